//! Idle connections: what each costs the servers in memory.

use std::time::{Duration, Instant};

use crate::failure::Result;
use crate::process::{Usage, usage};
use crate::swarm::{Step, Swarm};
use crate::system::{SERVERS, System};

/// A thread's stack in the kernel, on 64-bit Linux (`THREAD_SIZE`); `VmRSS` does not hold it.
const KERNEL_STACK_BYTES: u64 = 16 << 10;
/// For whatever was needed only while they came to be given back.
const SETTLE: Duration = Duration::from_secs(3);

/// Bytes of memory per connection, over all servers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident in the servers' address spaces.
    pub(crate) resident_bytes: f64,
    /// The same, and the kernel's stacks of the threads that came.
    pub(crate) with_kernel_stacks_bytes: f64,
}

/// Opens `connections` that hear the room, spread over the servers, and lets nobody talk.
pub(crate) fn run<S: System>(connections: usize) -> Result<Memory> {
    let mut system = S::start(false)?;
    let mut swarm = Swarm::new()?;
    let before = usage(system.pids())?;
    for at in 0..connections {
        let line = system.subscriber(at % SERVERS)?;
        swarm.add(line, 0)?;
        swarm.take_all()?;
    }
    let end = Instant::now() + SETTLE;
    swarm.run(|_| {
        let rest = end.saturating_duration_since(Instant::now());
        Ok(if rest.is_zero() { Step::Done } else { Step::Wait(rest) })
    })?;
    let after = usage(system.pids())?;
    Ok(per_connection(before, after, connections))
}

fn per_connection(before: Usage, after: Usage, connections: usize) -> Memory {
    let resident = after.resident_bytes.saturating_sub(before.resident_bytes) as f64;
    let stacks = after.threads.saturating_sub(before.threads) * KERNEL_STACK_BYTES;
    let connections = connections as f64;
    Memory {
        resident_bytes: resident / connections,
        with_kernel_stacks_bytes: (resident + stacks as f64) / connections,
    }
}
