//! A chat server without threads, for a program that waits for readiness itself.
//!
//! ```text
//!       ┌──────────────── the program's loop ────────────────┐
//!       │ poll_fds, timeout ──▶ poll(2), epoll, … ──▶ ready  │
//!       └────────────────────────────────────────────────────┘
//! ready: dials ─ links ─ new connections ─ clients ─▶ machine ─▶ what can be sent at once
//! ```
//!
//! No call waits, except [`PolledServer::turn`] for the time it is given. It is a whole member of
//! a cluster: it listens, dials, serves clients and links. One turn reads and sends a bounded part
//! of what there is, links first, so that nobody starves; what is left makes the next turn due at
//! once.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cordee_core::chat::server::{ChatServer, Effect, Input, Outlets};
use cordee_core::ids::ConnId;
use cordee_core::{Machine, Outbox, Time};
use rustix::event::{EventfdFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use socket2::Socket;

use super::config::ServerConfig;
use super::hub::Ended;
use super::hub::refusal::Refusals;
use super::inbox::{Event, Inbox, Taken};
use super::storage::{PersistAnswer, Persisted};
use super::{ServerError, Stopper, cut_connections, draw, local_addr, machine_config};
use crate::clock::{Clock, wall};
use crate::socket::listen;
use crate::sync::Arc;
use dials::Dials;
use lines::Lines;

mod dials;
mod lines;

pub use rustix::event::{PollFd, PollFlags};

/// A whole chat server in a program's own readiness loop, without threads.
///
/// No call waits, except [`turn`](Self::turn) for the time it is given. One turn reads and sends a
/// bounded part of what there is, links first; what is left makes the next turn due at once.
///
/// ```no_run
/// use cordee_net::server::{PollFlags, PolledServer, ServerConfig};
/// let listen = "127.0.0.1:0".parse().unwrap();
/// let mut server = PolledServer::bind(ServerConfig::new(listen, "home")).unwrap();
/// while server.ended().is_none() {
///     let mut fds = Vec::new();
///     server.poll_fds(&mut fds);
///     // … with the program's own descriptors, and at most for `server.timeout()` …
///     let ready: Vec<PollFlags> = fds.iter().map(|fd| fd.revents()).collect();
///     server.ready(&ready);
/// }
/// ```
#[derive(Debug)]
pub struct PolledServer {
    config: ServerConfig,
    local_addr: SocketAddr,
    clock: Clock,
    machine: ChatServer,
    /// What other threads have to say: to stop, or that storage is done.
    inbox: Arc<Inbox>,
    /// `None` once it stops.
    listener: Option<Socket>,
    /// Until when no connection is taken, as there are no descriptors.
    starved: Option<Time>,
    dials: Dials,
    lines: Lines,
    outlets: Outlets,
    outbox: Outbox<Effect>,
    buffer: Box<[u8]>,
    refusals: Refusals,
    /// Whether storage was given something since its last commit.
    persisting: bool,
    /// Whether there is more to do at once.
    busy: bool,
    stop_latest: Option<Instant>,
    ended: Option<Ended>,
}

impl PolledServer {
    /// A server that listens; it does everything else in [`ready`](Self::ready).
    /// [`ServerConfig::pumps`] means nothing to it.
    ///
    /// # Errors
    ///
    /// A [`ServerError`] that says what to mend: the address is taken, or not to be advertised, or
    /// the system gives no descriptors.
    pub fn bind(mut config: ServerConfig) -> Result<PolledServer, ServerError> {
        config.limits.validate()?;
        let cannot_listen = |source| ServerError::Listen { address: config.listen, source };
        let descriptors =
            |source: Errno| ServerError::Resource { what: "a descriptor", source: source.into() };
        let listener = listen(config.listen).map_err(cannot_listen)?;
        listener.set_nonblocking(true).map_err(cannot_listen)?;
        let local_addr = local_addr(&listener).map_err(cannot_listen)?;
        cut_connections(&mut config.limits, &config.log)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let inbox = Arc::new(Inbox::waking(wake.map_err(descriptors)?));
        let (clock, entropy) = (Clock::start(), draw()?);
        let incarnation = config.storage.start(PersistAnswer::new(Arc::clone(&inbox)));
        let machine_config = machine_config(&config, local_addr, entropy, incarnation)?;
        let seed = u64::from_be_bytes(draw()?);
        Ok(PolledServer {
            machine: ChatServer::new(machine_config, seed, clock.now()),
            local_addr,
            clock,
            inbox,
            listener: Some(listener),
            starved: None,
            dials: Dials::new(local_addr.ip()),
            lines: Lines::default(),
            outlets: Outlets::new(),
            outbox: Outbox::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            refusals: Refusals::default(),
            persisting: false,
            busy: false,
            stop_latest: None,
            ended: None,
            config,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Its machine, to be looked at.
    #[must_use]
    pub fn machine(&self) -> &ChatServer {
        &self.machine
    }

    /// Something that stops the server, from any thread: the next turn, which is due at once,
    /// begins to hand its clients on.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.inbox))
    }

    /// How it ended; `None` while it wants to be called. Dropping it before cuts all connections.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        let over = self.stop_latest.is_some_and(|latest| latest <= Instant::now());
        match self.ended {
            Some(Ended::Stopped) if !self.lines.is_empty() && !over => None,
            ended => ended,
        }
    }

    /// Adds the descriptors that it waits for, and for what, to the end of `fds`: at most
    /// [`Limits::connections_max`](cordee_core::Limits) and 256 more.
    pub fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(self.inbox.wake().map(|wake| PollFd::new(wake, PollFlags::IN)));
        if let Some(listener) = &self.listener {
            let wanted = if self.starved.is_none() { PollFlags::IN } else { PollFlags::empty() };
            fds.push(PollFd::new(listener, wanted));
        }
        self.dials.poll_fds(fds);
        self.lines.poll_fds(&self.outlets, fds);
    }

    /// For how long to wait at the most, even if nothing is ready.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        if self.busy {
            return Duration::ZERO;
        }
        let now = self.clock.now();
        let machine = self.machine.poll_timeout();
        let due = machine.into_iter().chain(self.starved).chain(self.dials.due());
        let due = due.chain(self.lines.due()).min().unwrap_or(now + TIMEOUT_US_MAX);
        let wait = Duration::from_micros(due.since_us(now));
        let stop = self.stop_latest.map(|at| at.saturating_duration_since(Instant::now()));
        stop.map_or(wait, |stop| wait.min(stop))
    }

    /// Does what there is to do. `ready` is what came of the descriptors of the last
    /// [`poll_fds`](Self::poll_fds), in their order; those that are missing are not ready.
    pub fn ready(&mut self, ready: &[PollFlags]) {
        let mut ready = ready.iter().copied().chain(std::iter::repeat(PollFlags::empty()));
        let mut is_ready = || ready.next().is_some_and(|flags| !flags.is_empty());
        let woken = is_ready();
        let arriving = self.listener.is_some() && is_ready();
        let dialled = self.dials.ready(&mut ready);
        let readable = self.lines.ready(&mut ready);
        self.busy = false;
        let now = self.clock.now();
        self.input(now, Input::Wall(wall()));
        if woken {
            self.take_events(now);
        }
        self.on_dialled(now, dialled);
        for line in readable {
            self.read(now, line);
        }
        if arriving || self.starved.is_some_and(|until| until <= now) {
            self.accept(now);
        }
        self.finish_turn(now);
        if self.stop_latest.is_some_and(|latest| latest <= Instant::now()) {
            self.ended.get_or_insert(Ended::Stopped);
        }
    }

    /// Waits until something happens or is due, at most for `longest`, and does it: for a program
    /// with nothing else to wait for.
    ///
    /// # Errors
    ///
    /// What `poll(2)` says; an interruption is none.
    pub fn turn(&mut self, longest: Duration) -> io::Result<()> {
        let wait = self.timeout().min(longest);
        let mut fds = Vec::new();
        self.poll_fds(&mut fds);
        let (tv_sec, tv_nsec) = (wait.as_secs().cast_signed(), wait.subsec_nanos().into());
        match poll(&mut fds, Some(&Timespec { tv_sec, tv_nsec })) {
            Err(Errno::INTR) => return Ok(()),
            result => result?,
        };
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        self.ready(&ready);
        Ok(())
    }

    /// Fires what is due, whatever came, and sends.
    fn finish_turn(&mut self, now: Time) {
        for _ in 0..ROUNDS {
            if self.ended == Some(Ended::Crashed) {
                return self.lines.cut();
            }
            self.commit(now);
            self.machine.handle_timeout(now, &mut self.outbox);
            self.apply(now);
            self.commit(now);
            if !self.write(now) {
                return self.lines.sweep(now);
            }
        }
        // The rest has its turn after whatever else is ready.
        self.busy = true;
    }

    fn take_events(&mut self, now: Time) {
        if let Some(wake) = self.inbox.wake() {
            let _ = rustix::io::read(wake, &mut [0; 8]);
        }
        let mut taken = Taken::default();
        self.inbox.take(&mut taken, Some(Instant::now()));
        for event in taken.events {
            match event {
                Event::Persisted { through, durable } => {
                    self.input(now, Input::Persisted { through, durable });
                }
                Event::Stop { latest } => {
                    let before = self.stop_latest.get_or_insert(latest);
                    *before = latest.min(*before);
                    if self.listener.take().is_some() {
                        self.input(now, Input::Drain);
                    }
                }
                // These come of threads, and here is none.
                Event::Dialled { .. } | Event::Unreadable { .. } | Event::ThreadDied => {}
            }
        }
    }

    fn commit(&mut self, now: Time) {
        while std::mem::take(&mut self.persisting) {
            if let Some(Persisted { through, durable }) = self.config.storage.commit() {
                self.input(now, Input::Persisted { through, durable });
            }
        }
    }

    /// Gives the machine an input and does what it wants.
    fn input(&mut self, now: Time, input: Input<'_>) {
        self.machine.handle_input(now, input, &mut self.outbox);
        self.apply(now);
    }

    fn apply(&mut self, now: Time) {
        let mut out = std::mem::take(&mut self.outbox);
        let mut failed = Vec::new();
        out.drain(|effect, arena| match self.outlets.apply(now, effect, arena) {
            Some(Effect::Persist { sequence, bytes }) => {
                self.config.storage.persist(sequence, &arena[bytes.range()]);
                self.persisting = true;
            }
            Some(Effect::Dial { dial, address }) => {
                let address = String::from_utf8_lossy(&arena[address.range()]);
                if let Err(why) = self.dials.begin(now, dial, &address) {
                    let line = format!("no link with {address}: {why}");
                    self.refusals.warn(now, &self.config.log, &line);
                    failed.push(dial);
                }
            }
            Some(Effect::Pause { conn }) => self.lines.pause(conn, true),
            Some(Effect::Unpause { conn }) => self.lines.pause(conn, false),
            Some(Effect::Crash) => {
                self.ended = Some(Ended::Crashed);
                self.config.on_crash.call();
            }
            Some(Effect::Stopped) => {
                self.ended.get_or_insert(Ended::Stopped);
            }
            // Who is to be closed is closed after sending; the outlets did the rest.
            _ => {}
        });
        self.outbox = out;
        for dial in failed {
            self.input(now, Input::DialFailed { dial });
        }
    }

    /// Takes up a connection that the machine has just given an id.
    fn link(&mut self, now: Time, conn: ConnId, socket: Socket, dialled: bool) {
        self.outlets.open(conn);
        self.lines.open(conn, socket, dialled, &self.config.limits);
        self.apply(now);
    }
}

/// What is read at once from one connection.
const BUFFER_BYTES: usize = 64 << 10;
/// How often in a turn it is looked whether more can be sent.
const ROUNDS: usize = 8;
const TIMEOUT_US_MAX: u64 = 1_000_000;
