//! A reader: one thread that reads from its share of the connections and hands batches to the hub.
//!
//! ```text
//! watched ── readable, the credit is here ──▶ read ─▶ batch, the credit goes with it ──▶ watched
//!    ▲  └─── readable, the hub has the credit ──▶ not watched ── credit is back ─┐
//!    └───────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! It waits for all of them at once. A thread for each, blocked in `read`, would cost an idle
//! connection two stacks, one of them in the kernel: more than all the rest that it needs.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cordee_core::chat::server::begun_bytes;
use cordee_core::ids::ConnId;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::Socket;

use super::credit::{Credit, Holder, conn_of};
use super::inbox::{Batch, End, Inbox};
use super::intake::Intake;
use crate::sync::{Arc, Mutex, Wake, lock};

/// From the hub to one reader: connections, and the word to end.
#[derive(Debug)]
pub(crate) struct Desk {
    epoll: Arc<OwnedFd>,
    wake: Wake,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    arrived: Vec<Source>,
    halted: bool,
}

/// A connection to read from.
#[derive(Debug)]
struct Source {
    credit: Arc<Credit>,
    intake: Intake,
    /// What the hub was told of a frame that is not whole.
    told_begun: u32,
    /// So much is read from it after it was closed, not more.
    discard_bytes: usize,
}

impl Desk {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let wake = Wake::new()?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&*epoll, &wake, EventData::new_u64(WAKE), flags)?;
        Ok(Desk { epoll, wake, state: Mutex::new(State::default()) })
    }

    /// The credit of a connection that is about to be read from.
    pub(crate) fn credit(&self, conn: ConnId, socket: Arc<Socket>) -> Arc<Credit> {
        Arc::new(Credit::new(conn, socket, Arc::clone(&self.epoll)))
    }

    /// Reads from a connection from now on: a first frame of at most `first_bytes_max` bytes, and
    /// others of at most `frame_bytes_max`.
    pub(crate) fn read(
        &self,
        credit: &Arc<Credit>,
        first_bytes_max: usize,
        frame_bytes_max: usize,
    ) -> io::Result<()> {
        // Whoever is told of its readiness finds it here.
        let mut state = lock(&self.state);
        credit.begin()?;
        state.arrived.push(Source {
            credit: Arc::clone(credit),
            intake: Intake::new(first_bytes_max, frame_bytes_max),
            told_begun: 0,
            discard_bytes: DISCARDED_BYTES_MAX,
        });
        Ok(())
    }

    /// Ends the reader once every connection has ended, or the pumps' time for that is over.
    pub(crate) fn halt(&self) {
        lock(&self.state).halted = true;
        self.wake.wake();
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Reader {
    desk: Arc<Desk>,
    inbox: Arc<Inbox>,
    sources: BTreeMap<ConnId, Source>,
    buffer: Box<[u8]>,
    latest: Option<Instant>,
}

impl Reader {
    pub(crate) fn new(desk: Arc<Desk>, inbox: Arc<Inbox>) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Reader { desk, inbox, sources: BTreeMap::new(), buffer, latest: None }
    }

    /// Reads until it is halted.
    pub(crate) fn run(mut self) {
        while self.latest.is_none_or(|latest| !self.sources.is_empty() && Instant::now() < latest) {
            let mut events = [MaybeUninit::uninit(); EVENTS_MAX];
            let time = self.latest.map(|latest| {
                let left = latest.saturating_duration_since(Instant::now());
                let (tv_sec, tv_nsec) = (left.as_secs().cast_signed(), left.subsec_nanos().into());
                Timespec { tv_sec, tv_nsec }
            });
            let waited = epoll::wait(&*self.desk.epoll, &mut events, time.as_ref());
            self.take_arrived();
            // An interrupted wait is over early, no more.
            let Ok((ready, _)) = waited else { continue };
            for event in ready.iter().map(|event| event.data.u64()).filter(|token| *token != WAKE) {
                self.serve(conn_of(event));
            }
        }
        // Those that are left have their share of the socket here alone.
    }

    fn take_arrived(&mut self) {
        let mut state = lock(&self.desk.state);
        for source in state.arrived.drain(..) {
            self.sources.insert(source.credit.conn(), source);
        }
        if state.halted {
            self.latest.get_or_insert_with(|| Instant::now() + HALT);
        }
    }

    fn serve(&mut self, conn: ConnId) {
        let Some(source) = self.sources.get_mut(&conn) else { return };
        let stays = match source.credit.holder() {
            Holder::Reader => source.read(&mut self.buffer, &self.inbox),
            Holder::Hub => true,
            Holder::Nobody => source.discard(&mut self.buffer),
        };
        if !stays {
            source.credit.end();
            self.sources.remove(&conn);
        }
    }
}

impl Source {
    /// Reads once and hands over what came. Returns whether there may be more.
    fn read(&mut self, buffer: &mut [u8], inbox: &Inbox) -> bool {
        let (bytes, end) = match receive(self.credit.socket(), buffer) {
            Ok(0) | Err(Errno::CONNRESET) => (Vec::new(), Some(End::Closed)),
            Ok(count) => {
                let bytes = self.intake.take(&buffer[..count]);
                (bytes, self.intake.error().map(End::Broken))
            }
            Err(Errno::AGAIN) => return true,
            Err(_) => (Vec::new(), Some(End::Closed)),
        };
        let begun = if end.is_none() { begun_bytes(self.intake.begun_bytes()) } else { 0 };
        if bytes.is_empty() && end.is_none() && begun == self.told_begun {
            return true;
        }
        self.told_begun = begun;
        self.credit.hand_over();
        let batch = Batch { conn: self.credit.conn(), bytes, begun, end };
        // When the hub is gone it has closed the credit, or is about to.
        inbox.put_batch(batch, self.credit.is_peer());
        end != Some(End::Closed)
    }

    /// Reads what nobody wants until the other end closes: a socket that is closed with bytes
    /// unread resets the connection, and the reason for the close may not arrive. The pump ends
    /// this after a second. Returns whether there may be more.
    fn discard(&mut self, buffer: &mut [u8]) -> bool {
        match receive(self.credit.socket(), buffer) {
            Err(Errno::AGAIN) => true,
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.discard_bytes = self.discard_bytes.saturating_sub(count);
                self.discard_bytes > 0
            }
        }
    }
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            result => return result.map(|(count, _)| count),
        }
    }
}

/// The token of the word to end. No connection has it: there are fewer than 2³² of them.
const WAKE: u64 = u64::MAX;
const EVENTS_MAX: usize = 64;
/// What is read at once.
const BUFFER_BYTES: usize = 64 << 10;
/// So much is read from a connection that is being closed, not more.
const DISCARDED_BYTES_MAX: usize = 256 << 10;
/// For how long connections may end after the word to end: longer than the pumps take.
const HALT: Duration = Duration::from_millis(1_500);
