//! Connections to sources: one thread each reads, hashes and writes; the hub asks.
//!
//! The hub puts what it expects into the connection's list and then sends the request. The thread
//! takes nothing that is not expected: blocks only of runs that were asked for on this very
//! connection. Payload goes from the socket to the disk; the hub hears of it in a few words.

mod blocks;
mod dial;
mod inlet;
mod server;
mod sink;
mod web;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::OnceLock;

use cordee_core::Time;
use cordee_core::blocks::scheduler::{Fault, FetchConn, RunEnd};
use cordee_core::blocks::{Layout, Manifest};
use crossbeam_channel::Sender;
use socket2::Socket;

use super::source::{Source, Url};
use crate::clock::Clock;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, lock};
use crate::threads::{Thread, ThreadFailure};
pub(super) use sink::{Sink, Spool};
pub(super) use web::request as web_request;

/// A connection, numbered by the hub.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LinkId(pub(super) u64);

/// A file that is being received.
#[derive(Debug)]
pub(super) struct Job {
    /// Its number among those of the hub.
    pub(super) id: u64,
    pub(super) layout: Layout,
    /// The hashes by which blocks are verified; none: they are not.
    pub(super) manifest: Option<Manifest>,
    pub(super) sink: Sink,
    /// Nothing more is to be written.
    pub(super) closed: AtomicBool,
}

/// What a connection tells the hub.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) link: LinkId,
    pub(super) what: What,
}

/// What happened.
#[derive(Debug)]
pub(super) enum What {
    /// It stands, and the first request was sent; a round trip took so long.
    Up { rtt_us: u64 },
    /// A frame that was expected, other than one of blocks.
    Frame { kind: u8, payload: Vec<u8> },
    /// A web server has the file.
    Web(WebFile),
    /// Payload came; these blocks are verified and written.
    Came { conn: FetchConn, job: u64, arrived: u64, stored: Range<u64> },
    /// A block is wrong.
    Bad { conn: FetchConn, job: u64, block: u64 },
    /// A run ended before all of it came.
    Ended { conn: FetchConn, job: u64, request: u64, end: RunEnd },
    /// The connection is gone.
    Gone(Gone),
    /// What came cannot be written.
    Broken(io::Error),
}

/// Why a connection is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Gone {
    pub(super) fault: Fault,
    /// More for people to read; may be empty.
    pub(super) detail: String,
}

/// A file at a web server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct WebFile {
    pub(super) length: u64,
    /// Only a strong one says that the bytes are the same (RFC 9110, section 8.8.1).
    pub(super) etag: Option<String>,
    /// Where it was found in the end.
    pub(super) url: Url,
    pub(super) rtt_us: u64,
}

/// What the hub expects of a connection, in the order in which it asked.
#[derive(Debug)]
pub(super) enum Expected {
    /// The answer to the hello.
    Welcome,
    /// A frame for a request, or a refusal.
    Answer { request: u64, kind: u8 },
    /// Blocks.
    Run(Run),
}

/// A run of blocks that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) conn: FetchConn,
    pub(super) job: Arc<Job>,
    /// The scheduler's number, and the one on the connection.
    pub(super) request: u64,
    pub(super) wire: u64,
    /// What has not come of it.
    pub(super) left: Range<u64>,
}

/// What hub and thread share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Set before the hub hears that the connection stands.
    pub(super) socket: OnceLock<Socket>,
    pub(super) expected: Mutex<VecDeque<Expected>>,
    /// The hub lets go of it.
    closing: AtomicBool,
    clock: Clock,
    /// Since when the thread waits for the disk: microseconds of the clock, and 1; 0 when it does not.
    writing: AtomicU64,
}

impl Shared {
    /// Whether the thread has been waiting for the disk for so long that the source cannot be blamed
    /// for its silence.
    pub(super) fn is_held_up(&self) -> bool {
        let since = self.writing.load(Ordering::Relaxed);
        since > 0 && self.clock.now().since_us(Time(since)) > HELD_UP_US
    }

    /// Writes, and lets the hub know for how long that takes.
    fn writing<T>(&self, write: impl FnOnce() -> T) -> T {
        self.writing.store(self.clock.now().0 + 1, Ordering::Relaxed);
        let written = write();
        self.writing.store(0, Ordering::Relaxed);
        written
    }

    /// Ends the thread, soon: whatever it waits for.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        if let Some(socket) = self.socket.get() {
            // It fails when the connection is gone already.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Whether blocks are still to come.
    pub(super) fn has_runs(&self) -> bool {
        lock(&self.expected).iter().any(|expected| matches!(expected, Expected::Run(_)))
    }
}

/// What the thread of a connection begins with.
#[derive(Debug)]
struct Start {
    link: LinkId,
    shared: Arc<Shared>,
    events: Sender<Event>,
}

impl Start {
    /// Tells the hub; an error when it is gone.
    fn tell(&self, what: What) -> Result<(), Gone> {
        self.events.send(Event { link: self.link, what }).map_err(|_| Gone::asked())
    }
}

impl Gone {
    fn new(fault: Fault, detail: impl Into<String>) -> Gone {
        Gone { fault, detail: detail.into() }
    }

    fn asked() -> Gone {
        Gone::new(Fault::Asked, "")
    }

    fn garbage(detail: impl Into<String>) -> Gone {
        Gone::new(Fault::Garbage, detail)
    }

    /// Of a read or write that failed.
    fn broken(error: &io::Error) -> Gone {
        Gone::new(Fault::Ended, error.to_string())
    }
}

/// Makes a connection to `source`, and opens the file there.
pub(super) fn start(
    link: LinkId,
    source: &Source,
    name: &str,
    hashes: bool,
    events: Sender<Event>,
    clock: Clock,
) -> Result<(Arc<Shared>, Thread), ThreadFailure> {
    let shared = Arc::new(Shared {
        socket: OnceLock::new(),
        expected: Mutex::default(),
        closing: AtomicBool::new(false),
        clock,
        writing: AtomicU64::new(0),
    });
    let start = Start { link, shared: Arc::clone(&shared), events };
    let (source, name) = (source.clone(), name.to_owned());
    let thread = Thread::spawn(format!("fetch-{}", link.0), STACK_BYTES, move || {
        let gone = match &source {
            Source::Server(address) => server::run(&start, address, &name, hashes),
            Source::Web(url) => web::run(&start, &url.of_file(&name)),
        };
        let Err(gone) = gone;
        let gone = if start.shared.is_closing() { Gone::asked() } else { gone };
        // When the hub has ended, nobody wants to know.
        let _ = start.tell(What::Gone(gone));
    })?;
    Ok((shared, thread))
}

/// The number under which the hub opens a file at first; its later requests count on.
pub(super) const FIRST_REQUEST: u64 = 1;
/// A write into memory that is free takes less.
const HELD_UP_US: u64 = 20_000;
/// Of address space: a resolver may want a lot.
const STACK_BYTES: usize = 512 << 10;
