//! The shapes of load, each for any system.

use std::time::{Duration, Instant};

use crate::failure::{Result, broken};
use crate::process::{own_cpu_s, usage};
use crate::swarm::{MemberId, Speaker, Step, Swarm};
use crate::system::{SERVERS, System};

pub(crate) mod acks;
pub(crate) mod fan_out;
pub(crate) mod idle;
pub(crate) mod latency;
pub(crate) mod replay;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// How much was done: deliveries, acknowledgements, entries.
    pub(crate) amount: f64,
    /// In how many seconds.
    pub(crate) wall_s: f64,
    /// User and system seconds of all servers.
    pub(crate) server_cpu_s: f64,
    /// User and system seconds of this program.
    pub(crate) client_cpu_s: f64,
    /// Microseconds: the median, and that of which one in a hundred is longer.
    pub(crate) latency_us: Option<(u32, u32)>,
}

/// Measures from its making on.
struct Watch {
    begun: Instant,
    server_cpu_s: f64,
    client_cpu_s: f64,
}

impl Watch {
    fn start(pids: &[u32]) -> Result<Watch> {
        let (server_cpu_s, client_cpu_s) = (usage(pids)?.cpu_s, own_cpu_s()?);
        Ok(Watch { begun: Instant::now(), server_cpu_s, client_cpu_s })
    }

    fn stop(&self, pids: &[u32], amount: u64) -> Result<Outcome> {
        let wall_s = self.begun.elapsed().as_secs_f64();
        Ok(Outcome {
            amount: amount as f64,
            wall_s,
            server_cpu_s: usage(pids)?.cpu_s - self.server_cpu_s,
            client_cpu_s: own_cpu_s()? - self.client_cpu_s,
            latency_us: None,
        })
    }
}

/// Publishers and subscribers of one room, spread over the servers.
struct Room<S: System> {
    system: S,
    swarm: Swarm<S::Speaker>,
    publishers: Vec<MemberId>,
    subscribers: Vec<MemberId>,
    payload: Vec<u8>,
}

impl<S: System> Room<S> {
    fn open(publishers: usize, subscribers: usize, payload_bytes: usize) -> Result<Room<S>> {
        let mut system = S::start(false)?;
        let mut swarm = Swarm::new()?;
        let (mut publisher_ids, mut subscriber_ids) = (Vec::new(), Vec::new());
        for at in 0..subscribers {
            let line = system.subscriber(at % SERVERS)?;
            subscriber_ids.push(swarm.add(line, publishers)?);
            swarm.take_all()?;
        }
        for at in 0..publishers {
            let line = system.publisher(at % SERVERS)?;
            publisher_ids.push(swarm.add(line, 0)?);
            swarm.take_all()?;
        }
        system.settle()?;
        let payload = vec![b'x'; payload_bytes];
        Ok(Room { system, swarm, publishers: publisher_ids, subscribers: subscriber_ids, payload })
    }

    /// Messages published by all.
    fn sent(&self) -> u64 {
        self.publishers.iter().map(|id| self.swarm.sent(*id)).sum()
    }

    /// Deliveries to all subscribers.
    fn heard(&self) -> u64 {
        self.subscribers.iter().map(|id| self.swarm.heard(*id)).sum()
    }

    /// Waits until everyone has heard everything.
    fn drain(&mut self) -> Result<()> {
        let sent = self.sent();
        let subscribers = &self.subscribers;
        self.swarm.run(|swarm| Ok(Step::done_when(swarm.heard_least(subscribers) == sent)))
    }
}

/// Publishes `count` kept messages, `window` of them under way at most. Returns how long each was
/// under way, in microseconds, when `window` is 1.
pub(crate) fn keep<S: Speaker>(
    swarm: &mut Swarm<S>,
    keeper: MemberId,
    payload_bytes: usize,
    window: u64,
    limit: Limit,
) -> Result<Vec<u32>> {
    let mut payload = vec![b'x'; payload_bytes];
    let mut latencies_us = Vec::new();
    let begun = Instant::now();
    let base = swarm.acknowledged(keeper);
    let mut sent_at = None;
    swarm.run(|swarm| {
        let (sent, acknowledged) = (swarm.sent(keeper), swarm.acknowledged(keeper));
        if acknowledged > sent {
            return broken("more acknowledged than sent");
        }
        let open = match limit {
            Limit::Time(time) if begun.elapsed() >= time => 0,
            Limit::Time(_) => window,
            Limit::Count(count) => (base + count).saturating_sub(sent),
        };
        if acknowledged == sent {
            if let Some(at) = sent_at.take().filter(|_| window == 1) {
                latencies_us.push(Instant::duration_since(&Instant::now(), at).as_micros() as u32);
            }
            if open == 0 {
                return Ok(Step::Done);
            }
        }
        let count = open.min(window.saturating_sub(sent - acknowledged));
        if count > 0 {
            sent_at = Some(Instant::now());
            swarm.publish(keeper, 0, count, &mut payload)?;
        }
        Ok(Step::Wait(Duration::from_millis(100)))
    })?;
    Ok(latencies_us)
}

/// When publishing ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    Time(Duration),
    Count(u64),
}

/// The median of measured times, and that of which one in a hundred is longer.
fn percentiles(mut times_us: Vec<u32>) -> Option<(u32, u32)> {
    times_us.sort_unstable();
    let at = |share: usize| times_us.get((times_us.len() * share / 100).min(times_us.len() - 1));
    if times_us.is_empty() { None } else { Some((*at(50)?, *at(99)?)) }
}
