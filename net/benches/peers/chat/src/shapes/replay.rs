//! Replay: newcomers, one after the other, receive everything that was kept.

use std::time::{Duration, Instant};

use super::{Limit, Outcome, Watch, keep};
use crate::failure::{Result, broken};
use crate::swarm::{Step, Swarm};
use crate::system::{SERVERS, System};

const ENTRIES: u64 = 50_000;
const NEWCOMERS: u64 = 12;
const PAYLOAD_BYTES: usize = 64;

/// Runs it; counts entries, from a newcomer's connecting to its last entry.
pub(crate) fn run<S: System>() -> Result<Outcome> {
    let mut system = S::start(true)?;
    let mut swarm = Swarm::new()?;
    let keeper = swarm.add(system.keeper()?, 0)?;
    keep(&mut swarm, keeper, PAYLOAD_BYTES, 256, Limit::Count(ENTRIES))?;
    let kept = system.kept()?;
    if kept != ENTRIES {
        return broken(format!("{ENTRIES} messages were sent and {kept} are kept"));
    }
    let mut wall = Duration::ZERO;
    let watch = Watch::start(system.pids())?;
    for at in 0..NEWCOMERS {
        let mut swarm = Swarm::new()?;
        let begun = Instant::now();
        let newcomer = swarm.add(system.newcomer(at as usize % SERVERS)?, 1)?;
        swarm.run(|swarm| Ok(Step::done_when(swarm.heard(newcomer) == ENTRIES)))?;
        wall += begun.elapsed();
    }
    let mut outcome = watch.stop(system.pids(), NEWCOMERS * ENTRIES)?;
    outcome.wall_s = wall.as_secs_f64();
    Ok(outcome)
}
