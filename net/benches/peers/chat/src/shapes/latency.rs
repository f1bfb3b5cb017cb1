//! Latency: one message every millisecond, however long any of them takes.

use std::time::{Duration, Instant};

use super::{Outcome, Room, Watch, percentiles};
use crate::failure::Result;
use crate::swarm::Step;
use crate::system::System;

const INTERVAL: Duration = Duration::from_millis(1);
const WARM_UP: Duration = Duration::from_millis(500);

/// Runs it for `time`; counts deliveries and measures each.
pub(crate) fn run<S: System>(
    subscribers: usize,
    payload_bytes: usize,
    time: Duration,
) -> Result<Outcome> {
    let mut room = Room::<S>::open(1, subscribers, payload_bytes)?;
    talk(&mut room, WARM_UP)?;
    room.drain()?;
    room.swarm.measure_latencies();
    let before = room.heard();
    let watch = Watch::start(room.system.pids())?;
    talk(&mut room, time)?;
    room.drain()?;
    let mut outcome = watch.stop(room.system.pids(), room.heard() - before)?;
    outcome.latency_us = percentiles(room.swarm.measure_latencies());
    Ok(outcome)
}

fn talk<S: System>(room: &mut Room<S>, time: Duration) -> Result<()> {
    let publisher = room.publishers[0];
    let payload = &mut room.payload;
    let begun = Instant::now();
    let mut next = begun;
    room.swarm.run(|swarm| {
        let now = Instant::now();
        if now.duration_since(begun) >= time {
            return Ok(Step::Done);
        }
        while next <= now {
            swarm.publish(publisher, 0, 1, payload)?;
            next += INTERVAL;
        }
        Ok(Step::Wait(next.duration_since(now)))
    })
}
