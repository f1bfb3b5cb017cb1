//! A pump: one thread that sends to its share of the connections, and never waits for one of them.
//!
//! ```text
//!            Mailbox                    turn: gather, sendmsg
//! hub ──▶ commands, chunks ──▶ ready ─────────────────────────▶ idle
//!                                ▲                                │
//!                                └──── writable ◀── blocked ◀─────┘ the kernel takes no more
//! ```
//!
//! It sleeps only when nobody can take more, in `epoll_wait`, where the hub wakes it. Nothing is
//! held back in order to send it together with more: what piles up meanwhile goes together.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cordee_core::ids::{ConnId, OriginRef};
use rustix::event::{Timespec, epoll};

use super::inbox::Inbox;
use crate::sync::Arc;
use closing::Closing;
use connection::{Connection, Outcome, State, Turn};
use ring::Ring;

mod closing;
mod connection;
mod mailbox;
mod piece;
mod ring;
#[cfg(test)]
mod tests;

pub(crate) use mailbox::{Command, Halt, Mailbox, Orders};

/// What a pump tells the hub.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Report {
    /// Bytes of `Send` and `SendAt` left.
    Drained { conn: ConnId, bytes: u32 },
    /// The cursor lost its place and was dropped.
    Lagged { conn: ConnId, passed: Vec<(OriginRef, u64)> },
    /// A connection with something to send took no byte for too long.
    Stalled { conn: ConnId },
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Pump {
    mailbox: Arc<Mailbox>,
    inbox: Arc<Inbox>,
    epoll: OwnedFd,
    ring: Ring,
    /// By index of the connection's id, divided by `pumps`.
    slots: Vec<Option<Box<Connection>>>,
    /// How many pumps there are: each has every so many-th connection.
    pumps: u32,
    /// Slots of connections with a cursor.
    followers: Vec<u32>,
    /// Slots of connections whose state is [`State::Ready`]; of others, too, when they closed.
    ready: VecDeque<u32>,
    blocked: usize,
    closing: Vec<Closing>,
    turn: Turn,
    reports: Vec<Report>,
    stall: Duration,
    next_look: Instant,
}

impl Pump {
    /// One of `pumps` pumps. A connection that takes nothing for `stall` is reported.
    pub(crate) fn new(
        mailbox: Arc<Mailbox>,
        inbox: Arc<Inbox>,
        pumps: u32,
        stall: Duration,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &*mailbox, epoll::EventData::new_u64(WAKE), flags)?;
        Ok(Pump {
            mailbox,
            inbox,
            epoll,
            ring: Ring::default(),
            slots: Vec::new(),
            pumps,
            followers: Vec::new(),
            ready: VecDeque::new(),
            blocked: 0,
            closing: Vec::new(),
            turn: Turn::default(),
            reports: Vec::new(),
            stall,
            next_look: Instant::now(),
        })
    }

    /// Sends until the hub says how to end.
    pub(crate) fn run(mut self) {
        let mut orders = Vec::new();
        loop {
            let halt = self.mailbox.take(&mut orders, self.ready.is_empty());
            for batch in &orders {
                for command in &batch.commands {
                    self.carry_out(command, batch);
                }
            }
            if let Some(halt) = halt {
                // They hold shares of sockets.
                drop(orders);
                return self.end(halt);
            }
            if self.ready.is_empty() {
                if orders.is_empty() {
                    let time = self.until_look();
                    self.poll(time);
                }
            } else {
                self.turns();
                if self.blocked > 0 || !self.closing.is_empty() {
                    self.poll(Some(Duration::ZERO));
                }
            }
            self.look();
            if !self.reports.is_empty() {
                self.inbox.put_reports(&mut self.reports);
            }
        }
    }

    fn carry_out(&mut self, command: &Command, orders: &Orders) {
        match command {
            Command::Open { conn, socket } => {
                let slot = self.slot(*conn);
                if self.slots.len() <= slot {
                    self.slots.resize_with(slot + 1, || None);
                }
                debug_assert!(self.slots[slot].is_none(), "the id is free");
                self.slots[slot] = Some(Box::new(Connection::new(*conn, Arc::clone(socket))));
            }
            Command::Send { conn, bytes, notify } => {
                let bytes = orders.get(bytes);
                self.change(*conn, |c, turn| c.send(bytes, *notify, &mut turn.pool));
            }
            Command::SendStamped { conn, bytes } => {
                let bytes = orders.get(bytes);
                self.change(*conn, |c, turn| c.send_stamped(bytes, &mut turn.pool));
            }
            Command::SendAt { conn, at, bytes } => {
                let bytes = orders.get(bytes);
                self.change(*conn, |c, turn| c.send_at(*at, bytes, &mut turn.pool));
            }
            Command::Show { conn, scope, at, mt } => {
                self.change(*conn, |c, _| c.show(*at, *scope, *mt));
            }
            Command::Hide { conn, scope, at, mt } => {
                self.change(*conn, |c, _| c.hide(*at, *scope, *mt));
            }
            Command::Follow { conn, from, peer, mt } => self.follow(*conn, |connection, ring| {
                connection.follow(*from, *peer, *mt, ring);
            }),
            Command::Unfollow { conn } => {
                self.follow(*conn, |connection, _| connection.unfollow());
            }
            Command::Discard { conn } => {
                self.follow(*conn, |connection, _| connection.discard());
            }
            Command::Chunk(chunk) => {
                self.ring.push(Arc::clone(chunk));
                for at in 0..self.followers.len() {
                    self.make_ready(self.followers[at]);
                }
            }
            // Cursors that lag are found at their turn, or by the look when they are blocked.
            Command::Trim { before } => self.ring.trim(*before),
            Command::Close { conn } => self.close(*conn),
        }
    }

    /// Lets `change` act on a connection, which may then have something to send.
    fn change(&mut self, conn: ConnId, change: impl FnOnce(&mut Connection, &mut Turn)) {
        let slot = self.slot(conn);
        let connection = self.slots.get_mut(slot).and_then(Option::as_mut);
        let connection = connection.filter(|connection| connection.id == conn);
        if let Some(connection) = connection.filter(|connection| connection.state != State::Failed)
        {
            change(connection, &mut self.turn);
            self.make_ready(slot as u32);
        }
    }

    /// Lets `change` give a connection a cursor or take it.
    fn follow(&mut self, conn: ConnId, change: impl FnOnce(&mut Connection, &Ring)) {
        let slot = self.slot(conn);
        let connection = self.slots.get_mut(slot).and_then(Option::as_mut);
        if let Some(connection) = connection.filter(|connection| connection.id == conn) {
            let before = connection.is_following();
            change(connection, &self.ring);
            let after = connection.is_following();
            self.note_follower(slot as u32, before, after);
            self.make_ready(slot as u32);
        }
    }

    fn note_follower(&mut self, slot: u32, before: bool, after: bool) {
        if before == after {
            return;
        }
        if after {
            // Peers have their turn first.
            let peer = self.slots[slot as usize].as_ref().is_some_and(|c| c.is_peer());
            let at = if peer { 0 } else { self.followers.len() };
            self.followers.insert(at, slot);
        } else {
            self.followers.retain(|follower| *follower != slot);
        }
    }

    fn make_ready(&mut self, slot: u32) {
        if let Some(connection) = &mut self.slots[slot as usize]
            && connection.state == State::Idle
        {
            connection.state = State::Ready;
            self.ready.push_back(slot);
        }
    }

    /// Gives each of the ready connections a turn, a bounded number of them.
    fn turns(&mut self) {
        for _ in 0..TURNS {
            let Some(slot) = self.ready.pop_front() else { return };
            let Some(connection) = &mut self.slots[slot as usize] else { continue };
            if connection.state != State::Ready {
                continue;
            }
            connection.state = State::Idle;
            if let Some(passed) = connection.lagged(&self.ring) {
                self.reports.push(Report::Lagged { conn: connection.id, passed });
                self.note_follower(slot, true, false);
            }
            self.take_turn(slot);
        }
    }

    fn take_turn(&mut self, slot: u32) {
        let Some(connection) = &mut self.slots[slot as usize] else { return };
        let outcome = connection.turn(&self.ring, &mut self.turn);
        if let Some(bytes) = connection.drained() {
            self.reports.push(Report::Drained { conn: connection.id, bytes });
        }
        match outcome {
            Outcome::Idle => connection.blocked_since = None,
            Outcome::More => {
                connection.blocked_since = None;
                self.make_ready(slot);
            }
            Outcome::Blocked(some) => {
                connection.note_blocked(some);
                if watch(&self.epoll, connection).is_err() {
                    fail(connection);
                } else {
                    self.blocked += 1;
                }
            }
            Outcome::Failed => fail(connection),
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Some(mut connection) = self.remove(conn) else { return };
        connection.unfollow();
        if self.closing.len() >= CLOSING_MAX {
            self.closing.remove(0).end();
        }
        self.closing.push(Closing::new(connection, Instant::now() + CLOSE));
        self.advance_closing(|closing| closing.id() == conn);
    }

    /// Takes a connection out of the table.
    fn remove(&mut self, conn: ConnId) -> Option<Box<Connection>> {
        let slot = self.slot(conn);
        let place = self.slots.get_mut(slot)?;
        let connection = place.take_if(|connection| connection.id == conn)?;
        self.blocked -= usize::from(connection.state == State::Blocked);
        self.note_follower(slot as u32, connection.is_following(), false);
        Some(connection)
    }

    /// Lets those closing connections go on that `which` names.
    fn advance_closing(&mut self, which: impl Fn(&Closing) -> bool) {
        let (ring, turn, epoll) = (&self.ring, &mut self.turn, &self.epoll);
        let now = Instant::now();
        self.closing.retain_mut(|closing| {
            !which(closing) || closing.goes_on(now, ring, turn, |c| watch(epoll, c))
        });
    }

    /// Waits for readiness, or to be woken; `None` is for ever.
    fn poll(&mut self, time: Option<Duration>) {
        let mut events = [MaybeUninit::uninit(); EVENTS_MAX];
        let time = time.map(|time| Timespec {
            tv_sec: time.as_secs().cast_signed(),
            tv_nsec: time.subsec_nanos().into(),
        });
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut events, time.as_ref()) else { return };
        for event in events {
            let token = event.data.u64();
            if token == WAKE {
                continue;
            }
            let conn = ConnId { index: (token >> 32) as u32, generation: token as u32 };
            let slot = self.slot(conn);
            let connection = self.slots.get_mut(slot).and_then(Option::as_mut);
            match connection.filter(|connection| connection.id == conn) {
                Some(connection) if connection.state == State::Blocked => {
                    connection.state = State::Ready;
                    self.blocked -= 1;
                    self.ready.push_back(slot as u32);
                }
                Some(_) => {}
                None => self.advance_closing(|closing| closing.id() == conn),
            }
        }
    }

    /// How long the pump may sleep.
    fn until_look(&self) -> Option<Duration> {
        let waits = self.blocked > 0 || !self.closing.is_empty();
        waits.then(|| self.next_look.saturating_duration_since(Instant::now()))
    }

    /// Looks, now and then, for those that take nothing, lag, or have closed for long enough.
    fn look(&mut self) {
        if self.blocked == 0 && self.closing.is_empty() {
            return;
        }
        let now = Instant::now();
        if now < self.next_look {
            return;
        }
        self.next_look = now + LOOK.min(self.stall / 4).max(LOOK / 50);
        self.advance_closing(|_| true);
        for slot in 0..self.slots.len() {
            let Some(connection) = &mut self.slots[slot] else { continue };
            if connection.state != State::Blocked {
                continue;
            }
            if let Some(passed) = connection.lagged(&self.ring) {
                self.reports.push(Report::Lagged { conn: connection.id, passed });
                self.note_follower(slot as u32, true, false);
            }
            let Some(connection) = &mut self.slots[slot] else { continue };
            let since = connection.blocked_since.filter(|_| !connection.stalled);
            if since.is_some_and(|since| now.duration_since(since) >= self.stall) {
                connection.stalled = true;
                self.reports.push(Report::Stalled { conn: connection.id });
            }
        }
    }

    /// Ends: lets what is queued leave for at most a second, unless it is to end at once.
    fn end(mut self, halt: Halt) {
        let latest = Instant::now() + CLOSE;
        if halt == Halt::Flush {
            for connection in self.slots.iter_mut().filter_map(Option::take) {
                self.closing.push(Closing::new(connection, latest));
            }
            self.advance_closing(|_| true);
            while !self.closing.is_empty() && Instant::now() < latest {
                self.poll(Some(LOOK));
                self.advance_closing(|_| true);
            }
        }
        for connection in self.slots.drain(..).flatten() {
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
        self.closing.drain(..).for_each(Closing::end);
    }

    fn slot(&self, conn: ConnId) -> usize {
        (conn.index / self.pumps) as usize
    }
}

/// Waits for `connection` to take more. Once is enough: readiness is told at each change.
fn watch(epoll: &OwnedFd, connection: &mut Connection) -> io::Result<()> {
    if connection.registered {
        return Ok(());
    }
    let ConnId { index, generation } = connection.id;
    let token = u64::from(index) << 32 | u64::from(generation);
    let flags = epoll::EventFlags::OUT | epoll::EventFlags::ET;
    epoll::add(epoll, &*connection.socket, epoll::EventData::new_u64(token), flags)?;
    connection.registered = true;
    Ok(())
}

/// Gives up on a connection. Its reader sees the end of the stream and tells the hub.
fn fail(connection: &mut Connection) {
    connection.state = State::Failed;
    let _ = connection.socket.shutdown(Shutdown::Both);
}

/// The token of the mailbox. No connection has it: there are fewer than 2³² of them.
const WAKE: u64 = u64::MAX;
/// Turns between two looks at the mailbox.
const TURNS: usize = 64;
const EVENTS_MAX: usize = 64;
/// Between two looks at those that do not take more.
const LOOK: Duration = Duration::from_millis(50);
/// For how long a closing connection may take what is queued, and close from its side.
const CLOSE: Duration = Duration::from_secs(1);
/// Connections that close at a time; beyond, the oldest is cut off.
const CLOSING_MAX: usize = 256;
