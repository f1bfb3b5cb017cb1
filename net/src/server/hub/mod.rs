//! The hub: the one thread that owns the machine. It never blocks, except for something to do.
//!
//! ```text
//! readers ─▶ batches ──┐                      ┌─▶ orders, one chunk ─▶ pumps
//! acceptor, keeper ────┼─▶ machine ─▶ outbox ─┼─▶ dials ─────────────▶ keeper
//! pumps ─▶ reports ────┘                      └─▶ entries ───────────▶ storage
//! ```
//!
//! Each round takes a bounded batch, peers' first, then fires what is due, whatever came: no flood
//! starves a timer. What the machine publishes in a round is one chunk, what it sends is handed to
//! each pump at once.

use std::net::SocketAddr;
use std::time::Instant;

use cordee_core::chat::server::{Effect, Input, Source};
use cordee_core::framing::frames;
use cordee_core::ids::{ConnId, Position};
use cordee_core::log::ChunkBuilder;
use cordee_core::wire::Reason;
use cordee_core::{Limits, Outbox, Time};
use socket2::Socket;

use super::config::OnCrash;
use super::inbox::{Accepted, Batch, End, Event, Inbox, Taken};
use super::keeper::KeeperHandle;
use super::node::Node;
use super::pump::{Command, Mailbox, Orders, Report};
use super::reader::Desk;
use super::storage::{Persisted, Storage};
use crate::acceptor::AcceptorStop;
use crate::address;
use crate::clock::{Clock, wall};
use crate::log::Log;
use crate::sync::Arc;
use dials::Dials;
use links::{Link, Links};
use refusal::{Refusals, bye, refuse};

mod dials;
mod effects;
mod links;
pub(crate) mod refusal;
#[cfg(test)]
mod testing;

#[cfg(test)]
pub(crate) use testing::testing;

/// How a server ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was stopped.
    Stopped,
    /// A user rehearsed a crash.
    Crashed,
    /// A thread died; joining it says why.
    Failed,
}

/// What the hub works with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) readers: Vec<Arc<Desk>>,
    pub(crate) pumps: Vec<Arc<Mailbox>>,
    pub(crate) keeper: KeeperHandle,
    pub(crate) acceptor: Arc<AcceptorStop>,
    pub(crate) storage: Box<dyn Storage>,
    pub(crate) on_crash: OnCrash,
    pub(crate) limits: Limits,
    pub(crate) log: Log,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Hub<N> {
    node: N,
    parts: Parts,
    taken: Taken,
    outbox: Outbox<Effect>,
    links: Links,
    /// For each pump, what it is to be told at the end of the round.
    orders: Vec<Orders>,
    builder: ChunkBuilder,
    refusals: Refusals,
    dials: Dials,
    /// Whether storage was given something in this round.
    persisting: bool,
    stop_latest: Option<Instant>,
    ended: Option<Ended>,
}

impl<N: Node> Hub<N> {
    pub(crate) fn new(node: N, parts: Parts) -> Self {
        let orders = parts.pumps.iter().map(|_| Orders::default()).collect();
        Hub {
            node,
            parts,
            taken: Taken::default(),
            outbox: Outbox::new(),
            links: Links::default(),
            orders,
            builder: ChunkBuilder::new(Position(0)),
            refusals: Refusals::default(),
            dials: Dials::default(),
            persisting: false,
            stop_latest: None,
            ended: None,
        }
    }

    /// Serves until it is stopped, crashes, or a thread that it needs dies.
    pub(crate) fn run(mut self) -> Ended {
        loop {
            let deadline = self.deadline();
            self.parts.inbox.take(&mut self.taken, deadline);
            let now = self.parts.clock.now();
            self.input(now, Input::Wall(wall()));
            self.round(now);
            if self.ended.is_none() {
                // What is persisted by now can be told and acknowledged in the same round.
                self.commit(now);
                self.node.handle_timeout(now, &mut self.outbox);
                self.drain();
                self.commit(now);
            }
            if self.stop_latest.is_some_and(|latest| latest <= Instant::now()) {
                self.ended.get_or_insert(Ended::Stopped);
            }
            // Whoever crashes says nothing more.
            if self.ended != Some(Ended::Crashed) {
                self.flush();
            }
            if let Some(ended) = self.ended {
                return ended;
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let timeout = self.node.poll_timeout().and_then(|time| self.parts.clock.instant(time));
        timeout.into_iter().chain(self.stop_latest).min()
    }

    /// Handles a bounded part of what was taken.
    fn round(&mut self, now: Time) {
        let mut budget = Budget::default();
        while let Some(batch) = budget.next(&mut self.taken.peers) {
            self.on_batch(now, batch);
        }
        for _ in 0..REPORTS {
            let Some(report) = self.taken.reports.pop_front() else { break };
            self.on_report(now, report);
        }
        while let Some(event) = self.taken.events.pop_front() {
            self.on_event(now, event);
        }
        for _ in 0..ACCEPTED {
            let Some(accepted) = self.taken.accepted.pop_front() else { break };
            self.on_accepted(now, accepted);
        }
        let (mut budget, mut handled) = (Budget::default(), 0);
        while let Some(batch) = budget.next(&mut self.taken.clients) {
            handled += batch.bytes.len();
            self.on_batch(now, batch);
        }
        self.parts.inbox.handled(handled);
    }

    fn on_batch(&mut self, now: Time, batch: Batch) {
        let Batch { conn, bytes, begun, end } = batch;
        let Some(link) = self.links.get_mut(conn) else { return };
        let mut known = std::mem::replace(&mut link.begun, begun);
        if known > 0 && (!bytes.is_empty() || begun == 0) {
            known = 0;
            self.input(now, Input::MidFrame { conn, bytes: 0 });
        }
        for frame in frames(&bytes) {
            if !self.links.has(conn) || self.ended.is_some() {
                return;
            }
            self.input(now, Input::Frame { conn, frame });
        }
        if begun != known && self.links.has(conn) {
            self.input(now, Input::MidFrame { conn, bytes: begun });
        }
        match end {
            None => self.give_back(conn),
            Some(End::Broken(error)) if self.links.has(conn) => {
                self.input(now, Input::Broken { conn, error });
            }
            Some(End::Closed) => self.on_closed(now, conn, Reason::Ended),
            Some(_) => {}
        }
    }

    /// Gives the reader its credit back, unless it is not to read.
    fn give_back(&mut self, conn: ConnId) {
        match self.links.get_mut(conn) {
            Some(link) if link.paused => link.held = true,
            Some(link) => link.credit.give_back(),
            None => {}
        }
    }

    fn on_closed(&mut self, now: Time, conn: ConnId, why: Reason) {
        if self.unlink(conn, why) {
            self.input(now, Input::Closed { conn });
        }
    }

    fn on_report(&mut self, now: Time, report: Report) {
        let (Report::Drained { conn, .. } | Report::Lagged { conn, .. } | Report::Stalled { conn }) =
            report;
        if !self.links.has(conn) {
            return;
        }
        match report {
            Report::Drained { bytes, .. } => self.input(now, Input::Drained { conn, bytes }),
            Report::Lagged { ref passed, .. } => self.input(now, Input::Lagged { conn, passed }),
            Report::Stalled { .. } => self.input(now, Input::Stalled { conn }),
        }
    }

    fn on_event(&mut self, now: Time, event: Event) {
        match event {
            Event::Dialled { dial, result: Ok(socket) } => {
                let Ok(Some(address)) = socket.peer_addr().map(|address| address.as_socket())
                else {
                    return self.input(now, Input::DialFailed { dial });
                };
                match self.node.dialled(now, dial, &mut self.outbox) {
                    Some(conn) => {
                        self.dials.connected(dial, conn);
                        self.link(conn, socket, address, true);
                    }
                    None => self.drain(),
                }
            }
            Event::Dialled { dial, result: Err(error) } => {
                if let Some(line) = self.dials.failed(dial, now, &error.to_string()) {
                    self.parts.log.warn(&line);
                }
                self.input(now, Input::DialFailed { dial });
            }
            Event::Unreadable { conn, why } => {
                if self.links.has(conn) {
                    self.refusals.warn(now, &self.parts.log, &why);
                    self.order_bytes(conn, &bye(Reason::TooManyConnections));
                    self.on_closed(now, conn, Reason::TooManyConnections);
                }
            }
            Event::Persisted { through, durable } => {
                self.input(now, Input::Persisted { through, durable });
            }
            Event::Stop { latest } => self.on_stop(now, latest),
            Event::ThreadDied => self.ended = Some(Ended::Failed),
        }
    }

    /// The first asks for an orderly end; another may only hasten it.
    fn on_stop(&mut self, now: Time, latest: Instant) {
        let first = self.stop_latest.is_none();
        self.stop_latest = Some(self.stop_latest.map_or(latest, |before| before.min(latest)));
        if first {
            self.parts.acceptor.stop();
            self.input(now, Input::Drain);
        }
    }

    fn on_accepted(&mut self, now: Time, accepted: Accepted) {
        let Accepted { socket, from } = accepted;
        let address = address::bits(from.ip());
        let source = Source { address, loopback: address::is_loopback(from.ip()) };
        match self.node.accept(now, source, &mut self.outbox) {
            Ok(conn) => self.link(conn, socket, from, false),
            Err(reason) => {
                self.drain();
                let line = format!("refused {from}: {}", reason.word());
                self.refusals.warn(now, &self.parts.log, &line);
                refuse(&socket, reason);
            }
        }
    }

    /// Takes up a connection that the machine has just given an id. What the machine wants done
    /// for others comes first, as it may be the close of the one that had the same place.
    fn link(&mut self, conn: ConnId, socket: Socket, address: SocketAddr, dialled: bool) {
        let mut newcomer = Some((socket, address, dialled));
        let mut out = std::mem::take(&mut self.outbox);
        out.drain(|effect, arena| {
            if effects::conn_of(&effect) == Some(conn)
                && let Some((socket, address, dialled)) = newcomer.take()
            {
                self.set_up(conn, socket, address, dialled);
            }
            self.apply(effect, arena);
        });
        self.outbox = out;
        if let Some((socket, address, dialled)) = newcomer {
            self.set_up(conn, socket, address, dialled);
        }
    }

    fn set_up(&mut self, id: ConnId, socket: Socket, address: SocketAddr, dialled: bool) {
        let what = if dialled { "connected to" } else { "accepted" };
        self.parts.log.debug(&format!("{what} {address}"));
        let socket = Arc::new(socket);
        self.order(id, Command::Open { conn: id, socket: Arc::clone(&socket) });
        let Limits { hello_bytes_max, frame_bytes_max, .. } = self.parts.limits;
        let first_bytes_max = if dialled { frame_bytes_max } else { hello_bytes_max };
        let (first_bytes_max, frame_bytes_max) =
            (first_bytes_max as usize, frame_bytes_max as usize);
        let desk = &self.parts.readers[id.index as usize % self.parts.readers.len()];
        let credit = desk.credit(id, Arc::clone(&socket));
        if dialled {
            credit.set_peer();
        }
        if let Err(error) = desk.read(&credit, first_bytes_max, frame_bytes_max) {
            // The machine learns of it as of any other end.
            let why = format!("cannot read from {address}: {error}");
            self.parts.inbox.put_event(Event::Unreadable { conn: id, why });
        }
        self.links.insert(Link {
            id,
            address,
            socket,
            credit,
            peer: false,
            begun: 0,
            paused: false,
            held: false,
        });
    }

    /// Ends the group commit of the round. What that sets free may be persisted in turn.
    fn commit(&mut self, now: Time) {
        while std::mem::take(&mut self.persisting) {
            if let Some(Persisted { through, durable }) = self.parts.storage.commit() {
                self.input(now, Input::Persisted { through, durable });
            }
        }
    }

    /// Gives the machine an input and does what it wants.
    fn input(&mut self, now: Time, input: Input<'_>) {
        self.node.handle_input(now, input, &mut self.outbox);
        self.drain();
    }

    fn drain(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let mut out = std::mem::take(&mut self.outbox);
        out.drain(|effect, arena| self.apply(effect, arena));
        self.outbox = out;
    }
}

impl<N> Drop for Hub<N> {
    /// Also in a panic: nobody is left waiting for the hub.
    fn drop(&mut self) {
        self.parts.inbox.close();
        for link in self.links.iter() {
            link.credit.close();
            if std::thread::panicking() {
                let _ = link.socket.shutdown(std::net::Shutdown::Both);
            }
        }
    }
}

/// What one kind of connections may take of a round.
#[derive(Debug)]
struct Budget {
    batches: usize,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { batches: BATCHES, bytes: BATCH_BYTES }
    }
}

impl Budget {
    /// The next batch, while something is left.
    fn next(&mut self, queue: &mut std::collections::VecDeque<Batch>) -> Option<Batch> {
        if self.batches == 0 || self.bytes == 0 {
            return None;
        }
        let batch = queue.pop_front()?;
        self.batches -= 1;
        self.bytes = self.bytes.saturating_sub(batch.bytes.len());
        Some(batch)
    }
}

/// What a round handles at most, of peers and of clients: batches, and bytes, the last batch over.
const BATCHES: usize = 128;
const BATCH_BYTES: usize = 512 << 10;
/// What it handles of reports, and of new connections.
const REPORTS: usize = 1_024;
const ACCEPTED: usize = 32;
