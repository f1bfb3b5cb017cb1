//! The keeper: one thread that makes and joins the short-lived ones, readers and dialers, so that
//! the hub waits for neither.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use cordee_core::chat::server::DialId;
use cordee_core::ids::ConnId;
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::inbox::{Event, Inbox};
use super::reader::{READER_STACK_BYTES, Reader};
use crate::address::resolve;
use crate::log::Log;
use crate::socket::connect;
use crate::sync::Arc;
use crate::threads::{STACK_BYTES, Thread, ThreadFailure};

/// What the keeper is asked to do.
#[derive(Debug)]
enum Request {
    Read(Reader),
    Dial(DialId, String),
    Ended(u64),
    Stop,
}

/// Asks the keeper. It is bounded by what is asked: readers by admitted connections, dials by
/// [`DIALS_MAX`].
#[derive(Clone, Debug)]
pub(crate) struct KeeperHandle(Sender<Request>);

impl KeeperHandle {
    /// Makes a thread for `reader`; on failure the hub is told [`Event::ReaderLost`].
    pub(crate) fn read(&self, reader: Reader) {
        let _ = self.0.send(Request::Read(reader));
    }

    /// Connects to `address`; the hub is told [`Event::Dialled`].
    pub(crate) fn dial(&self, dial: DialId, address: String) {
        let _ = self.0.send(Request::Dial(dial, address));
    }

    /// Joins what is there and ends. The sockets of the readers must have been shut.
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
    threads: BTreeMap<u64, (Purpose, Thread)>,
    next: u64,
    dials: usize,
}

#[derive(Clone, Copy, Debug)]
enum Purpose {
    Read(ConnId),
    Dial(DialId),
}

impl Keeper {
    pub(crate) fn new(inbox: Arc<Inbox>, log: Log, from: IpAddr) -> (Self, KeeperHandle) {
        let (ended, requests) = unbounded();
        let handle = KeeperHandle(ended.clone());
        let threads = BTreeMap::new();
        (Keeper { requests, ended, inbox, log, from, threads, next: 0, dials: 0 }, handle)
    }

    /// Serves until it is told to stop.
    pub(crate) fn run(mut self) {
        while let Ok(request) = self.requests.recv() {
            match request {
                Request::Read(reader) => self.read(reader),
                Request::Dial(dial, address) => self.dial(dial, address),
                Request::Ended(key) => self.ended(key),
                Request::Stop => break,
            }
        }
        self.stop();
    }

    fn read(&mut self, reader: Reader) {
        let conn = reader.conn;
        let name = format!("cordee-r-{}", conn.index);
        let made = self.make(name, READER_STACK_BYTES, Purpose::Read(conn), || reader.run());
        if let Err(failure) = made {
            self.inbox.put_event(Event::ReaderLost { conn, why: failure.to_string() });
        }
    }

    fn dial(&mut self, dial: DialId, address: String) {
        if self.dials >= DIALS_MAX {
            let result = Err(std::io::ErrorKind::WouldBlock.into());
            self.inbox.put_event(Event::Dialled { dial, result });
            return;
        }
        let (inbox, from) = (Arc::clone(&self.inbox), self.from);
        let name = format!("cordee-dial-{}", dial.0);
        let made = self.make(name, STACK_BYTES, Purpose::Dial(dial), move || {
            let result = dial_any(&address, from);
            inbox.put_event(Event::Dialled { dial, result });
        });
        match made {
            Ok(()) => self.dials += 1,
            Err(failure) => {
                let result = Err(std::io::Error::other(failure));
                self.inbox.put_event(Event::Dialled { dial, result });
            }
        }
    }

    fn make(
        &mut self,
        name: String,
        stack_bytes: usize,
        purpose: Purpose,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), ThreadFailure> {
        let key = self.next;
        self.next += 1;
        let last = Last { key, ended: self.ended.clone() };
        let thread = Thread::spawn(name, stack_bytes, move || {
            let _last = last;
            run();
        })?;
        self.threads.insert(key, (purpose, thread));
        Ok(())
    }

    fn ended(&mut self, key: u64) {
        let Some((purpose, thread)) = self.threads.remove(&key) else { return };
        let result = thread.join();
        if let Purpose::Dial(_) = purpose {
            self.dials -= 1;
        }
        let Err(failure) = result else { return };
        self.log.warn(&failure.to_string());
        let event = match purpose {
            Purpose::Read(conn) => Event::ReaderLost { conn, why: failure.to_string() },
            Purpose::Dial(dial) => {
                Event::Dialled { dial, result: Err(std::io::Error::other(failure)) }
            }
        };
        self.inbox.put_event(event);
    }

    /// Joins the readers, which end because their sockets were shut, and the dialers, unless one
    /// hangs in the resolver: nothing can end that before its time.
    fn stop(mut self) {
        let latest = Instant::now() + STOP;
        while !self.threads.is_empty() {
            match self.requests.recv_deadline(latest) {
                Ok(Request::Ended(key)) => self.ended(key),
                // It had not started: its share of the socket goes.
                Ok(Request::Read(_) | Request::Dial(..) | Request::Stop) => {}
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
