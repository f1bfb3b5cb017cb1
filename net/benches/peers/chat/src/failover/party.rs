//! A client that speaks at an even pace and checks what it hears of another.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use cordee_net::client::{ChatClient, ChatConfig, Command, Event, Events, Target};

use crate::cordee::CLUSTER;
use crate::failure::{Failure, Result, broken};
use crate::report::line;

/// What must not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Faults {
    /// Messages of the other that were never heard.
    pub(super) lost: u64,
    /// Messages of the other that were heard again, or after a later one.
    pub(super) doubled: u64,
    /// Messages of its own that were refused, or not acknowledged at the end.
    pub(super) refused: u64,
}

impl Faults {
    pub(super) fn add(&mut self, other: Faults) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.refused += other.refused;
    }
}

/// What its thread that hears knows.
#[derive(Debug, Default)]
struct Heard {
    server: String,
    /// The number of the other's next message.
    next: u64,
    last: Option<Instant>,
    silence: Duration,
    faults: Faults,
    acknowledged: u64,
}

/// A client with a thread that speaks and one that hears.
#[derive(Debug)]
pub(super) struct Party {
    heard: Arc<Mutex<Heard>>,
    said: Arc<AtomicU64>,
    leaves: Arc<AtomicBool>,
    speaks: JoinHandle<()>,
    hears: JoinHandle<()>,
    first: u64,
}

impl Party {
    /// Connects to `server` and speaks from message number `said` on. It checks what those say
    /// whose names begin with `other`.
    pub(super) fn start(
        name: &str,
        other: &'static str,
        server: &str,
        pace: Duration,
        said: u64,
    ) -> Result<Party> {
        let connect = || {
            let mut config = ChatConfig::new(CLUSTER, vec![server.to_string()])?;
            config.name = name.to_string();
            ChatClient::start(config)
        };
        let (client, events) = connect().map_err(|error| Failure::Broken(error.to_string()))?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let first = said;
        let said = Arc::new(AtomicU64::new(said));
        let leaves = Arc::new(AtomicBool::new(false));
        let hears = {
            let heard = Arc::clone(&heard);
            std::thread::spawn(move || hear(events, other, &heard))
        };
        await_server(&heard)?;
        let speaks = {
            let (said, leaves) = (Arc::clone(&said), Arc::clone(&leaves));
            std::thread::spawn(move || speak(&client, pace, &said, &leaves))
        };
        Ok(Party { heard, said, leaves, speaks, hears, first })
    }

    /// The address of the server it is at.
    pub(super) fn server(&self) -> String {
        lock(&self.heard).server.clone()
    }

    /// The longest silence counts from now on.
    pub(super) fn forget_silence(&self) {
        lock(&self.heard).silence = Duration::ZERO;
    }

    /// The longest time between two messages that it heard.
    pub(super) fn longest_silence(&self) -> Duration {
        lock(&self.heard).silence
    }

    /// Whether it hears the first `count` messages of the other in time.
    pub(super) fn await_heard(&self, count: u64, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while lock(&self.heard).next < count {
            if Instant::now() > end {
                return false;
            }
            sleep(Duration::from_millis(10));
        }
        true
    }

    /// Leaves once everything it said is acknowledged. Returns how many messages that were, those of
    /// its predecessors included.
    pub(super) fn leave(self) -> Result<(Faults, u64)> {
        self.leaves.store(true, Ordering::Release);
        if self.speaks.join().is_err() || self.hears.join().is_err() {
            return broken("a thread of a client died");
        }
        let heard = lock(&self.heard);
        let mut faults = heard.faults;
        let said = self.said.load(Ordering::Acquire);
        faults.refused += (said - self.first).saturating_sub(heard.acknowledged);
        Ok((faults, said))
    }
}

fn await_server(heard: &Mutex<Heard>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while lock(heard).server.is_empty() {
        if Instant::now() > end {
            return broken("a client finds no server");
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn speak(client: &ChatClient, pace: Duration, said: &AtomicU64, leaves: &AtomicBool) {
    let mut next = Instant::now();
    while !leaves.load(Ordering::Acquire) {
        let number = said.load(Ordering::Relaxed);
        let to = Target::Room("#all".to_string());
        let say = Command::Say { to, body: number.to_string(), reference: number + 1 };
        if client.send(say).is_err() {
            return;
        }
        said.store(number + 1, Ordering::Release);
        next += pace;
        sleep(next.saturating_duration_since(Instant::now()));
    }
    // It has ended when that fails, and then the thread that hears says why.
    let _ = client.send(Command::Quit);
}

fn hear(events: Events, other: &str, heard: &Mutex<Heard>) {
    for event in events {
        let now = Instant::now();
        let mut heard = lock(heard);
        match event {
            Event::Connected { server, .. } => heard.server = server,
            Event::Message(message) if message.from.starts_with(other) => {
                heard.hear(&message.from, &message.body, now);
            }
            Event::Sent { .. } => heard.acknowledged += 1,
            // Those without a reference are about connecting.
            Event::Error { reference: 1.., .. } => heard.faults.refused += 1,
            _ => {}
        }
    }
}

impl Heard {
    fn hear(&mut self, from: &str, body: &str, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            self.silence = self.silence.max(now.duration_since(last));
        }
        match body.parse::<u64>() {
            Ok(number) if number >= self.next => {
                if number > self.next {
                    line(format_args!("  LOST: {} to {} from {from}", self.next, number - 1));
                }
                self.faults.lost += number - self.next;
                self.next = number + 1;
            }
            _ => {
                line(format_args!("  DOUBLED: {body} from {from}, not {}", self.next));
                self.faults.doubled += 1;
            }
        }
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
