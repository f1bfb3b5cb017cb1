//! The way out of a server, for a driver that writes from one thread: the log, and for each
//! connection what goes out when.
//!
//! ```text
//! Send, SendStamped ──▶ private ─────────┐ first
//! SendAt, Show, Hide ─▶ changes ─────┐   │
//! Publish ──▶ log ──▶ cursor ────────┴───┴──▶ send
//! ```
//!
//! A driver gives it every effect, does those that come back, and lets it write to whatever takes
//! bytes. One that has threads of its own to write keeps the same order by its own means.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::Effect;
use crate::framing::{HEADER_BYTES, end_of_frame};
use crate::ids::{ConnId, OriginRef, Position, ScopeRef};
use crate::log::{Chunk, ChunkBuilder, Cursor, Items, Visibility};
use crate::outbox::Span;
use crate::time::{SECOND_US, Time};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Outlets {
    builder: ChunkBuilder,
    log: VecDeque<Chunk>,
    /// Where the log ends.
    end: Position,
    outlets: BTreeMap<ConnId, Outlet>,
}

/// What came of sending.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// When not 0, to be told as [`Input::Drained`](super::Input::Drained).
    pub drained: u32,
    /// When the log has gone on without the connection, to be told as
    /// [`Input::Lagged`](super::Input::Lagged).
    pub lagged: Option<Vec<(OriginRef, u64)>>,
}

/// One connection.
#[derive(Debug, Default)]
struct Outlet {
    private: VecDeque<Private>,
    changes: VecDeque<(Position, Change)>,
    cursor: Option<Cursor>,
    /// What is on its way, and how much of it left. So many bytes of it count as queued.
    going: Vec<u8>,
    gone: usize,
    counted: u32,
    drained: u32,
    /// Since when nothing was taken of what there is to send.
    blocked_since: Option<Time>,
    /// When it closes at the latest.
    closing: Option<Time>,
}

/// Frames that go out whatever the cursor does.
#[derive(Debug)]
struct Private {
    bytes: Vec<u8>,
    stamped: bool,
}

/// What happens when the cursor stands somewhere.
#[derive(Debug)]
enum Change {
    Send(Vec<u8>),
    Show(ScopeRef, u64),
    Hide(ScopeRef, u64),
}

/// What an outlet has to send next.
enum Next {
    Bytes,
    Nothing,
    Lagged(Vec<(OriginRef, u64)>),
}

impl Outlets {
    /// An empty log, and no connections.
    #[must_use]
    pub fn new() -> Self {
        Outlets { builder: ChunkBuilder::new(Position(0)), ..Outlets::default() }
    }

    /// Takes up a connection that [`accept`](super::ChatServer::accept) or
    /// [`dialled`](super::ChatServer::dialled) gave an id, before the effects of that call.
    pub fn open(&mut self, conn: ConnId) {
        let before = self.outlets.insert(conn, Outlet::default());
        assert!(before.is_none(), "an id is given once");
    }

    /// Forgets a connection: its stream has ended, or [`is_finished`](Self::is_finished).
    pub fn remove(&mut self, conn: ConnId) {
        self.outlets.remove(&conn);
    }

    /// Does what an effect wants, and gives back the effects that are the driver's to do: dials,
    /// storage, reading, and the end. After [`Effect::Close`], which comes back, too, what is
    /// queued is still to be [sent](Self::send).
    pub fn apply(&mut self, now: Time, effect: Effect, arena: &[u8]) -> Option<Effect> {
        let bytes = |span: Span| arena[span.range()].to_vec();
        match effect {
            Effect::Send { conn, bytes: span, .. } => {
                let private = Private { bytes: bytes(span), stamped: false };
                self.outlet(conn).private.push_back(private);
            }
            Effect::SendStamped { conn, bytes: span } => {
                let private = Private { bytes: bytes(span), stamped: true };
                self.outlet(conn).private.push_back(private);
            }
            Effect::SendAt { conn, at, bytes: span } => {
                self.outlet(conn).change(at, Change::Send(bytes(span)));
            }
            Effect::Show { conn, scope, at, mt } => {
                self.outlet(conn).change(at, Change::Show(scope, mt));
            }
            Effect::Hide { conn, scope, at, mt } => {
                self.outlet(conn).change(at, Change::Hide(scope, mt));
            }
            Effect::Follow { conn, from, peer, mt } => self.outlet(conn).follow(from, peer, mt),
            Effect::Unfollow { conn } => self.outlet(conn).unfollow(),
            Effect::Publish { frames, items } => {
                self.builder.push(&arena[frames.range()], Items::new(&arena[items.range()]));
            }
            Effect::Trim { before } => self.trim(before),
            Effect::Discard { conn } => self.outlet(conn).discard(),
            Effect::Close { conn, .. } => {
                self.outlet(conn).closing = Some(now + SECOND_US);
                return Some(effect);
            }
            other => return Some(other),
        }
        None
    }

    /// Sends on a connection as much as `take` takes: it is given bytes and says how many of them
    /// it took, fewer when it takes no more for now.
    pub fn send(&mut self, now: Time, conn: ConnId, mut take: impl FnMut(&[u8]) -> usize) -> Sent {
        self.cut();
        let Some(outlet) = self.outlets.get_mut(&conn) else { return Sent::default() };
        let (mut took_any, mut lagged) = (false, None);
        loop {
            if outlet.is_sent() {
                match outlet.next(&self.log, self.end) {
                    Next::Bytes => {}
                    Next::Nothing => break,
                    Next::Lagged(passed) => {
                        lagged = Some(passed);
                        break;
                    }
                }
            }
            let took = take(&outlet.going[outlet.gone..]);
            outlet.gone += took;
            took_any |= took > 0;
            if !outlet.is_sent() {
                break;
            }
            outlet.drained += core::mem::take(&mut outlet.counted);
        }
        outlet.blocked_since = match outlet.blocked_since {
            _ if outlet.is_sent() => {
                outlet.let_go_of_much();
                None
            }
            Some(since) if !took_any => Some(since),
            _ => Some(now),
        };
        Sent { drained: core::mem::take(&mut outlet.drained), lagged }
    }

    /// Whether the connection is there and the machine has not closed it.
    #[must_use]
    pub fn is_open(&self, conn: ConnId) -> bool {
        self.outlets.get(&conn).is_some_and(|outlet| outlet.closing.is_none())
    }

    /// Whether the connection did not take all that there was to send, last time.
    #[must_use]
    pub fn is_blocked(&self, conn: ConnId) -> bool {
        self.outlets.get(&conn).is_some_and(|outlet| outlet.blocked_since.is_some())
    }

    /// Since when the connection has taken nothing of what there is to send: for
    /// [`Input::Stalled`](super::Input::Stalled).
    #[must_use]
    pub fn blocked_since(&self, conn: ConnId) -> Option<Time> {
        self.outlets.get(&conn).and_then(|outlet| outlet.blocked_since)
    }

    /// Whether the machine has closed the connection and nothing is left to wait for.
    #[must_use]
    pub fn is_finished(&self, conn: ConnId, now: Time) -> bool {
        let Some(outlet) = self.outlets.get(&conn) else { return false };
        outlet.closing.is_some_and(|latest| latest <= now || outlet.is_flushed())
    }

    /// Whether the connection was sent all that there is.
    #[must_use]
    pub fn is_drained(&self, conn: ConnId) -> bool {
        let Some(outlet) = self.outlets.get(&conn) else { return false };
        let at_end = |cursor: &Cursor| self.builder.is_empty() && cursor.position() == self.end;
        outlet.is_flushed()
            && outlet.changes.is_empty()
            && outlet.cursor.as_ref().is_some_and(at_end)
    }

    /// What is queued outside the log for all connections takes so many bytes of memory, what is
    /// about to leave included.
    #[must_use]
    pub fn queued_memory_bytes(&self) -> usize {
        self.outlets.values().map(Outlet::memory_bytes).sum()
    }

    /// Where the connection stands in the log, while it follows.
    #[must_use]
    pub fn cursor(&self, conn: ConnId) -> Option<&Cursor> {
        self.outlets.get(&conn)?.cursor.as_ref()
    }

    fn outlet(&mut self, conn: ConnId) -> &mut Outlet {
        let outlet = self.outlets.get_mut(&conn).expect("a connection that is there");
        assert!(outlet.closing.is_none(), "nothing is wanted of a connection that was closed");
        outlet
    }

    /// Makes a chunk of what was published.
    fn cut(&mut self) {
        if !self.builder.is_empty() {
            let chunk = self.builder.take();
            self.end = chunk.end();
            self.log.push_back(chunk);
        }
    }

    fn trim(&mut self, before: Position) {
        self.cut();
        while self.log.front().is_some_and(|chunk| chunk.end() <= before) {
            self.log.pop_front();
        }
    }
}

impl Outlet {
    fn follow(&mut self, from: Position, peer: bool, mt: u64) {
        assert!(self.cursor.is_none(), "a connection follows once");
        let visibility = if peer { Visibility::Peer } else { Visibility::Client(Vec::new()) };
        self.cursor = Some(Cursor::new(from, visibility, mt));
    }

    /// What was queued for the cursor is queued no more: it counts as drained.
    fn unfollow(&mut self) {
        self.cursor = None;
        for (_, change) in self.changes.drain(..) {
            if let Change::Send(bytes) = change {
                self.drained += bytes.len() as u32;
            }
        }
    }

    /// Drops what is queued, but for the rest of a frame that has left in part.
    fn discard(&mut self) {
        self.unfollow();
        self.private.clear();
        self.private.shrink_to_fit();
        self.changes.shrink_to_fit();
        let end = end_of_frame(&self.going, self.gone);
        self.going.truncate(end);
        self.going.shrink_to_fit();
        (self.counted, self.drained) = (0, 0);
    }

    fn change(&mut self, at: Position, change: Change) {
        let cursor = self.cursor.as_ref().expect("a change comes after the cursor");
        assert!(at >= cursor.position(), "a change lies ahead of the cursor");
        assert!(self.changes.back().is_none_or(|(last, _)| *last <= at), "changes ascend");
        self.changes.push_back((at, change));
    }

    /// Whether all that was handed out to be sent has left.
    fn is_sent(&self) -> bool {
        self.gone == self.going.len()
    }

    /// Whether nothing is left to be said before the log.
    fn is_flushed(&self) -> bool {
        self.private.is_empty() && self.is_sent()
    }

    /// What was long and has left takes no memory.
    fn let_go_of_much(&mut self) {
        if self.going.capacity() > 2 * SLICE_BYTES {
            (self.going, self.gone) = (Vec::new(), 0);
        }
    }

    fn memory_bytes(&self) -> usize {
        let private = self.private.iter().map(|private| private.bytes.capacity());
        let changes = self.changes.iter().map(|(_, change)| match change {
            Change::Send(bytes) => bytes.capacity(),
            Change::Show(..) | Change::Hide(..) => 0,
        });
        private.chain(changes).sum::<usize>() + self.going.capacity()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.going.clear();
        self.going.extend_from_slice(bytes);
        self.gone = 0;
    }

    /// Decides what goes out next.
    fn next(&mut self, log: &VecDeque<Chunk>, end: Position) -> Next {
        let Some(Private { mut bytes, stamped }) = self.private.pop_front() else {
            return if self.closing.is_none() { self.next_of_log(log, end) } else { Next::Nothing };
        };
        match &self.cursor {
            Some(cursor) if stamped => {
                bytes[HEADER_BYTES..HEADER_BYTES + 8].copy_from_slice(&cursor.mt().to_be_bytes());
            }
            _ => {}
        }
        self.counted += bytes.len() as u32;
        self.put(&bytes);
        Next::Bytes
    }

    fn next_of_log(&mut self, log: &VecDeque<Chunk>, end: Position) -> Next {
        loop {
            let Some(cursor) = &mut self.cursor else { return Next::Nothing };
            let due = self.changes.front().is_some_and(|(at, _)| *at <= cursor.position());
            if let Some((_, change)) = due.then(|| self.changes.pop_front()).flatten() {
                match change {
                    Change::Send(bytes) => {
                        self.counted += bytes.len() as u32;
                        self.put(&bytes);
                        return Next::Bytes;
                    }
                    Change::Show(scope, mt) => {
                        assert!(cursor.show(scope), "a scope is shown once");
                        cursor.set_mt(cursor.mt() + mt);
                    }
                    Change::Hide(scope, mt) => {
                        assert!(cursor.hide(scope), "what is hidden was shown");
                        let before = cursor.mt();
                        assert!(before >= mt, "MT holds the rows of each scope that is seen");
                        cursor.set_mt(before - mt);
                    }
                }
                continue;
            }
            let at = cursor.position();
            if at >= end {
                return Next::Nothing;
            }
            let Some(chunk) = chunk_of(log, at) else {
                let passed = cursor.passed().collect();
                self.unfollow();
                return Next::Lagged(passed);
            };
            let stop = self.changes.front().map_or(end, |(at, _)| *at);
            if let Some(range) = cursor.advance(chunk, SLICE_BYTES, stop) {
                self.put(&chunk.frames()[range]);
                return Next::Bytes;
            }
        }
    }
}

/// The chunk with the item at a position; `None` when it was trimmed.
fn chunk_of(log: &VecDeque<Chunk>, at: Position) -> Option<&Chunk> {
    let chunk = log.get(log.partition_point(|chunk| chunk.end() <= at))?;
    (chunk.first() <= at).then_some(chunk)
}

/// About how many bytes of the log go out in one piece.
const SLICE_BYTES: usize = 16 << 10;
