//! The keeper: one thread that makes and joins the short-lived ones, the dialers, so that the hub
//! waits for none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use cordee_core::chat::server::DialId;

use super::inbox::{Event, Inbox};
use crate::address::resolve;
use crate::log::Log;
use crate::socket::connect;
use crate::sync::Arc;
use crate::sync::channel::{Receiver, Sender, unbounded};
use crate::threads::{STACK_BYTES, Thread, ThreadFailure};

/// What the keeper is asked to do.
#[derive(Debug)]
enum Request {
    Dial(DialId, String),
    Ended(u64),
    Stop,
}

/// Asks the keeper. Dials are bounded by [`DIALS_MAX`].
#[derive(Clone, Debug)]
pub(crate) struct KeeperHandle(Sender<Request>);

impl KeeperHandle {
    /// Connects to `address`; the hub is told [`Event::Dialled`].
    pub(crate) fn dial(&self, dial: DialId, address: String) {
        let _ = self.0.send(Request::Dial(dial, address));
    }

    /// Joins what is there and ends.
    pub(crate) fn stop(&self) {
        let _ = self.0.send(Request::Stop);
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Keeper {
    requests: Receiver<Request>,
    /// For the threads, to say that they are about to end.
    ended: Sender<Request>,
    inbox: Arc<Inbox>,
    log: Log,
    /// Dials leave from this address where that makes sense.
    from: IpAddr,
    threads: BTreeMap<u64, (DialId, Thread)>,
    next: u64,
}

impl Keeper {
    pub(crate) fn new(inbox: Arc<Inbox>, log: Log, from: IpAddr) -> (Self, KeeperHandle) {
        let (ended, requests) = unbounded();
        let handle = KeeperHandle(ended.clone());
        let threads = BTreeMap::new();
        (Keeper { requests, ended, inbox, log, from, threads, next: 0 }, handle)
    }

    /// Serves until it is told to stop.
    pub(crate) fn run(mut self) {
        while let Ok(request) = self.requests.recv() {
            match request {
                Request::Dial(dial, address) => self.dial(dial, address),
                Request::Ended(key) => self.ended(key),
                Request::Stop => break,
            }
        }
        self.stop();
    }

    fn dial(&mut self, dial: DialId, address: String) {
        if self.threads.len() >= DIALS_MAX {
            let result = Err(std::io::ErrorKind::WouldBlock.into());
            self.inbox.put_event(Event::Dialled { dial, result });
            return;
        }
        let key = self.next;
        self.next += 1;
        let last = Last { key, ended: self.ended.clone() };
        let (inbox, from) = (Arc::clone(&self.inbox), self.from);
        let thread = Thread::spawn(format!("cordee-dial-{}", dial.0), STACK_BYTES, move || {
            let _last = last;
            let result = dial_any(&address, from);
            inbox.put_event(Event::Dialled { dial, result });
        });
        match thread {
            Ok(thread) => {
                self.threads.insert(key, (dial, thread));
            }
            Err(failure) => self.failed(dial, failure),
        }
    }

    fn ended(&mut self, key: u64) {
        let Some((dial, thread)) = self.threads.remove(&key) else { return };
        if let Err(failure) = thread.join() {
            self.log.warn(&failure.to_string());
            self.failed(dial, failure);
        }
    }

    fn failed(&self, dial: DialId, failure: ThreadFailure) {
        let result = Err(std::io::Error::other(failure));
        self.inbox.put_event(Event::Dialled { dial, result });
    }

    /// Joins the dialers, unless one hangs in the resolver: nothing can end that before its time.
    fn stop(mut self) {
        let latest = Instant::now() + STOP;
        while !self.threads.is_empty() {
            match self.requests.recv_deadline(latest) {
                Ok(Request::Ended(key)) => self.ended(key),
                Ok(Request::Dial(..) | Request::Stop) => {}
                Err(_) => {
                    let left = self.threads.len();
                    self.log.warn(&format!("{left} threads have not ended: left to themselves"));
                    return;
                }
            }
        }
    }
}

/// Says on drop, so also in a panic, that a thread is about to end.
struct Last {
    key: u64,
    ended: Sender<Request>,
}

impl Drop for Last {
    fn drop(&mut self) {
        let _ = self.ended.send(Request::Ended(self.key));
    }
}

/// Connects to the first address of `address` that answers.
fn dial_any(address: &str, from: IpAddr) -> std::io::Result<socket2::Socket> {
    let mut last = std::io::ErrorKind::NotFound.into();
    for target in resolve(address)? {
        match connect(target, Some(from), DIAL) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Dials at a time.
const DIALS_MAX: usize = 64;
/// How long one address has to answer.
const DIAL: Duration = Duration::from_secs(1);
/// For how long the threads are waited for at the end.
const STOP: Duration = Duration::from_secs(5);
