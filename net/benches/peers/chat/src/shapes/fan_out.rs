//! Fan-out: publishers talk as fast as everyone hears.

use std::time::{Duration, Instant};

use super::{Outcome, Room, Watch};
use crate::failure::Result;
use crate::swarm::Step;
use crate::system::System;

/// How far the slowest subscriber may be behind, in bytes of payload, before publishers wait.
///
/// Without such a window nats-server drops subscribers that it finds slow; a wider one makes
/// neither system faster.
const WINDOW_BYTES: u64 = 512 << 10;
/// Before the measurement begins.
const WARM_UP: Duration = Duration::from_millis(500);

/// Runs it for `time`; counts deliveries.
pub(crate) fn run<S: System>(
    publishers: usize,
    subscribers: usize,
    payload_bytes: usize,
    time: Duration,
) -> Result<Outcome> {
    let mut room = Room::<S>::open(publishers, subscribers, payload_bytes)?;
    talk(&mut room, WARM_UP)?;
    room.drain()?;
    let before = room.heard();
    let watch = Watch::start(room.system.pids())?;
    talk(&mut room, time)?;
    room.drain()?;
    watch.stop(room.system.pids(), room.heard() - before)
}

fn talk<S: System>(room: &mut Room<S>, time: Duration) -> Result<()> {
    let window = WINDOW_BYTES / room.payload.len() as u64;
    // Fewer at once would be a system call for each.
    let batch_least = (window / 8).max(1);
    let begun = Instant::now();
    let Room { swarm, publishers, subscribers, payload, .. } = room;
    let mut turn = 0;
    swarm.run(|swarm| {
        if begun.elapsed() >= time {
            return Ok(Step::Done);
        }
        let sent: u64 = publishers.iter().map(|id| swarm.sent(*id)).sum();
        let mut open = window.saturating_sub(sent - swarm.heard_least(subscribers));
        let share = (window / publishers.len() as u64).max(1);
        while open >= batch_least.min(share) {
            let count = open.min(share);
            let at = turn % publishers.len();
            turn += 1;
            let before = swarm.sent(publishers[at]);
            swarm.publish(publishers[at], at as u32, count, payload)?;
            if swarm.sent(publishers[at]) == before {
                break;
            }
            open -= count;
        }
        Ok(Step::Wait(Duration::from_millis(20)))
    })
}
