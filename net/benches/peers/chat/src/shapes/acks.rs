//! Kept messages: one publisher, a window of unacknowledged messages, two copies at the least.

use std::time::Duration;

use super::{Limit, Outcome, Watch, keep, percentiles};
use crate::failure::{Result, broken};
use crate::swarm::Swarm;
use crate::system::System;

const PAYLOAD_BYTES: usize = 64;
const WARM_UP: u64 = 2_000;

/// Runs it for `time`; counts acknowledgements.
pub(crate) fn run<S: System>(window: u64, time: Duration) -> Result<Outcome> {
    let mut system = S::start(true)?;
    let mut swarm = Swarm::new()?;
    let keeper = swarm.add(system.keeper()?, 0)?;
    keep(&mut swarm, keeper, PAYLOAD_BYTES, 256, Limit::Count(WARM_UP))?;
    let before = swarm.acknowledged(keeper);
    let watch = Watch::start(system.pids())?;
    let latencies_us = keep(&mut swarm, keeper, PAYLOAD_BYTES, window, Limit::Time(time))?;
    let mut outcome = watch.stop(system.pids(), swarm.acknowledged(keeper) - before)?;
    outcome.latency_us = percentiles(latencies_us);
    let (kept, sent) = (system.kept()?, swarm.sent(keeper));
    if kept != sent {
        return broken(format!("{sent} messages were sent and {kept} are kept"));
    }
    Ok(outcome)
}
