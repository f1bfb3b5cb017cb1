//! The write side of one connection: what waits to be sent, in which order, and sending it.
//!
//! ```text
//! Send, SendStamped ──▶ private ─────────┐ first
//! SendAt, Show, Hide ─▶ positioned ──┐   │
//! log ──▶ cursor ────────────────────┴───┴──▶ out ──▶ sendmsg
//! ```
//!
//! What is in `out` was handed out by the cursor, or follows a frame that left in part: its order
//! is fixed. Everything else waits where it can still be overtaken.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Instant;

use byteorder::{BigEndian, ByteOrder};
use cordee_core::framing::HEADER_BYTES;
use cordee_core::ids::{ConnId, OriginRef, Position, ScopeRef};
use cordee_core::log::{Cursor, Visibility};
use socket2::Socket;

use super::piece::{Bytes, Piece, Pool, consume, keep};
use super::ring::Ring;
use crate::socket::send_now;
use crate::sync::Arc;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) socket: Arc<Socket>,
    pub(super) state: State,
    /// Whether the pump waits for its readiness.
    pub(super) registered: bool,
    /// Since when the kernel has taken nothing.
    pub(super) blocked_since: Option<Instant>,
    /// Whether the hub was told that it takes nothing.
    pub(super) stalled: bool,
    out: VecDeque<Piece>,
    private: Private,
    positioned: VecDeque<Positioned>,
    follow: Option<Follow>,
    /// How much is gathered at once: little for those who take little, so that what is urgent
    /// waits behind little.
    turn_bytes: usize,
    drained: u32,
    /// Pieces queued of which the hub wants to know when they left.
    notices: u32,
    notified: bool,
}

/// Where a connection stands between the pump's queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nothing to send.
    Idle,
    /// In the queue of those that may have something to send.
    Ready,
    /// The kernel takes no more for now.
    Blocked,
    /// Sending failed. The reader sees the end of the stream.
    Failed,
}

/// What became of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// There is nothing more to send.
    Idle,
    /// There is more.
    More,
    /// The kernel takes no more for now; `true` when it took something.
    Blocked(bool),
    /// The connection is gone.
    Failed,
}

/// What waits to be sent whatever the cursor does.
#[derive(Debug, Default)]
struct Private {
    bytes: Vec<u8>,
    notify: bool,
    /// Where frames begin that want MT.
    stamps: Vec<usize>,
}

/// What waits for the cursor to stand at a position.
#[derive(Debug)]
struct Positioned {
    at: Position,
    what: What,
}

#[derive(Debug)]
enum What {
    Bytes(Vec<u8>),
    Show(ScopeRef, u64),
    Hide(ScopeRef, u64),
}

/// A cursor and the number of the chunk that it reads.
#[derive(Debug)]
struct Follow {
    peer: bool,
    cursor: Cursor,
    chunk: u64,
}

/// What a pump lends to the connection whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) pool: Pool,
    pieces: VecDeque<Piece>,
    scratch: Vec<u8>,
}

impl Connection {
    pub(super) fn new(id: ConnId, socket: Arc<Socket>) -> Self {
        Connection {
            id,
            socket,
            state: State::Idle,
            registered: false,
            blocked_since: None,
            stalled: false,
            out: VecDeque::new(),
            private: Private::default(),
            positioned: VecDeque::new(),
            follow: None,
            turn_bytes: TURN_BYTES_FIRST,
            drained: 0,
            notices: 0,
            notified: false,
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8], notify: bool, pool: &mut Pool) {
        self.private(bytes, pool);
        if notify && !self.private.notify {
            self.private.notify = true;
            self.notices += 1;
        }
    }

    pub(super) fn send_stamped(&mut self, bytes: &[u8], pool: &mut Pool) {
        let at = self.private.bytes.len();
        self.private(bytes, pool);
        self.private.stamps.push(at);
    }

    fn private(&mut self, bytes: &[u8], pool: &mut Pool) {
        if self.private.bytes.capacity() == 0 {
            self.private.bytes = pool.take();
        }
        self.private.bytes.extend_from_slice(bytes);
    }

    /// Bytes for a cursor that is gone count as drained: they are queued no more.
    pub(super) fn send_at(&mut self, at: Position, bytes: &[u8], pool: &mut Pool) {
        if self.follow.is_none() {
            self.drained += bytes.len() as u32;
            return;
        }
        if let Some(Positioned { at: last, what: What::Bytes(before) }) = self.positioned.back_mut()
            && *last == at
        {
            before.extend_from_slice(bytes);
            return;
        }
        let mut own = pool.take();
        own.extend_from_slice(bytes);
        self.positioned.push_back(Positioned { at, what: What::Bytes(own) });
    }

    pub(super) fn show(&mut self, at: Position, scope: ScopeRef, mt: u64) {
        self.change(at, What::Show(scope, mt));
    }

    pub(super) fn hide(&mut self, at: Position, scope: ScopeRef, mt: u64) {
        self.change(at, What::Hide(scope, mt));
    }

    fn change(&mut self, at: Position, what: What) {
        if self.follow.is_some() {
            self.positioned.push_back(Positioned { at, what });
        }
    }

    pub(super) fn follow(&mut self, from: Position, peer: bool, mt: u64, ring: &Ring) {
        let visibility = if peer { Visibility::Peer } else { Visibility::Client(Vec::new()) };
        let cursor = Cursor::new(from, visibility, mt);
        self.follow = Some(Follow { peer, cursor, chunk: ring.find(from) });
    }

    /// Takes note that the kernel takes no more; `some` when it had just taken something.
    pub(super) fn note_blocked(&mut self, some: bool) {
        self.state = State::Blocked;
        if some || self.blocked_since.is_none() {
            self.blocked_since = Some(Instant::now());
            self.stalled = false;
        }
    }

    pub(super) fn is_peer(&self) -> bool {
        self.follow.as_ref().is_some_and(|follow| follow.peer)
    }

    pub(super) fn is_following(&self) -> bool {
        self.follow.is_some()
    }

    pub(super) fn unfollow(&mut self) {
        self.follow = None;
        for Positioned { what, .. } in std::mem::take(&mut self.positioned) {
            if let What::Bytes(bytes) = what {
                self.drained += bytes.len() as u32;
            }
        }
    }

    /// Drops what is queued, but for the rest of a frame that has left in part.
    pub(super) fn discard(&mut self) {
        self.follow = None;
        self.positioned = VecDeque::new();
        self.private = Private::default();
        let begun = self.out.pop_front().filter(|piece| piece.sent > 0);
        self.out = begun.and_then(Piece::rest_of_frame).into_iter().collect();
        (self.drained, self.notices, self.notified) = (0, 0, false);
    }

    /// When the log no longer holds what the cursor reads next: what it passed. The cursor is
    /// dropped.
    pub(super) fn lagged(&mut self, ring: &Ring) -> Option<Vec<(OriginRef, u64)>> {
        let follow = self.follow.as_mut()?;
        if follow.cursor.position() >= ring.start() {
            follow.chunk = follow.chunk.max(ring.first());
            return None;
        }
        let passed = follow.cursor.passed().collect();
        self.unfollow();
        Some(passed)
    }

    /// What left since this was last asked, when it is time to say so.
    pub(super) fn drained(&mut self) -> Option<u32> {
        let due = self.drained >= DRAINED_BYTES || (self.notified && self.drained > 0);
        self.notified = false;
        due.then(|| std::mem::take(&mut self.drained))
    }

    /// Sends what there is, up to about a turn's bytes, as far as the kernel takes it.
    pub(super) fn turn(&mut self, ring: &Ring, turn: &mut Turn) -> Outcome {
        // A connection that is idle has no list of its own.
        if self.out.is_empty() {
            self.out = std::mem::take(&mut turn.pieces);
        }
        turn.scratch.clear();
        let more = self.gather(ring, turn);
        let outcome = match self.send_out(&turn.scratch) {
            Ok((0, 0)) => Outcome::Idle,
            Ok((sent, all)) => self.after(sent, all, more, turn),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::Blocked(false),
            Err(_) => Outcome::Failed,
        };
        if self.out.is_empty() {
            turn.pieces = std::mem::take(&mut self.out);
        } else {
            keep(&mut self.out, &turn.scratch, &mut turn.pool);
        }
        outcome
    }

    /// Moves what may go now to `out`. Returns whether there is more.
    fn gather(&mut self, ring: &Ring, turn: &mut Turn) -> bool {
        self.gather_private();
        let Some(Follow { cursor, chunk: number, .. }) = &mut self.follow else { return false };
        let mut bytes = 0;
        loop {
            if bytes >= self.turn_bytes || self.out.len() >= SLICES_MAX {
                return true;
            }
            let due = self.positioned.front().is_some_and(|next| next.at <= cursor.position());
            if due {
                match self.positioned.pop_front().map(|next| next.what) {
                    Some(What::Bytes(own)) => {
                        bytes += own.len();
                        put_owned(&mut self.out, own, turn);
                    }
                    Some(What::Show(scope, mt)) => {
                        cursor.show(scope);
                        cursor.set_mt(cursor.mt() + mt);
                    }
                    Some(What::Hide(scope, mt)) => {
                        cursor.hide(scope);
                        cursor.set_mt(cursor.mt().saturating_sub(mt));
                    }
                    None => {}
                }
                continue;
            }
            let Some(chunk) = ring.get(*number) else { return false };
            if chunk.end() <= cursor.position() {
                *number += 1;
                continue;
            }
            let stop = self.positioned.front().map_or(Position(u64::MAX), |next| next.at);
            if let Some(range) = cursor.advance(chunk, self.turn_bytes, stop) {
                bytes += range.len();
                if range.len() < COPIED_BYTES_MAX {
                    put_copied(&mut self.out, &chunk.frames()[range], false, turn);
                } else {
                    let bytes = Bytes::Log(Arc::clone(chunk), range.clone());
                    let uncounted = range.len();
                    self.out.push_back(Piece { bytes, sent: 0, uncounted, notify: false });
                }
            }
        }
    }

    /// Moves all that is private to `out`, with MT as of now.
    fn gather_private(&mut self) {
        if self.private.bytes.is_empty() {
            return;
        }
        let Private { mut bytes, notify, stamps } = std::mem::take(&mut self.private);
        if let Some(follow) = &self.follow {
            for at in stamps {
                let payload = at + HEADER_BYTES;
                BigEndian::write_u64(&mut bytes[payload..payload + 8], follow.cursor.mt());
            }
        }
        self.out.push_back(Piece { bytes: Bytes::Owned(bytes), sent: 0, uncounted: 0, notify });
    }

    /// Hands `out` to the kernel. Returns how much it took, and how much it was offered.
    fn send_out(&self, scratch: &[u8]) -> io::Result<(usize, usize)> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut count, mut all) = (0, 0);
        for (slice, piece) in slices.iter_mut().zip(&self.out) {
            let rest = piece.rest(scratch);
            *slice = IoSlice::new(rest);
            count += 1;
            all += rest.len();
        }
        if count == 0 {
            return Ok((0, 0));
        }
        Ok((send_now(&self.socket, &slices[..count])?, all))
    }

    fn after(&mut self, sent: usize, all: usize, more: bool, turn: &mut Turn) -> Outcome {
        let left = consume(&mut self.out, sent, &mut turn.pool);
        self.drained += left.drained;
        self.notices -= left.notices;
        self.notified |= left.notices > 0 && self.notices == 0;
        if sent < all {
            self.turn_bytes = sent.clamp(TURN_BYTES_MIN, TURN_BYTES_MAX);
            return Outcome::Blocked(sent > 0);
        }
        if more {
            self.turn_bytes = (self.turn_bytes * 2).min(TURN_BYTES_MAX);
        }
        if more || !self.out.is_empty() { Outcome::More } else { Outcome::Idle }
    }
}

/// Queues bytes that wait no longer for a position.
fn put_owned(out: &mut VecDeque<Piece>, own: Vec<u8>, turn: &mut Turn) {
    if own.len() < COPIED_BYTES_MAX {
        put_copied(out, &own, true, turn);
        turn.pool.give(own);
    } else {
        let bytes = Bytes::Owned(own);
        out.push_back(Piece { bytes, sent: 0, uncounted: 0, notify: false });
    }
}

/// Copies a few bytes to the scratch buffer, where they are one slice with their neighbours: that
/// is cheaper than a slice for each.
fn put_copied(out: &mut VecDeque<Piece>, bytes: &[u8], counted: bool, turn: &mut Turn) {
    let start = turn.scratch.len();
    turn.scratch.extend_from_slice(bytes);
    let end = turn.scratch.len();
    let uncounted = if counted { 0 } else { bytes.len() };
    match out.back_mut() {
        Some(Piece { bytes: Bytes::Scratch(range), uncounted: before, .. }) => {
            range.end = end;
            *before += uncounted;
        }
        _ => {
            let bytes = Bytes::Scratch(start..end);
            out.push_back(Piece { bytes, sent: 0, uncounted, notify: false });
        }
    }
}

/// How much is gathered at once: at first, and after a turn that was not taken whole, or was.
const TURN_BYTES_FIRST: usize = 64 << 10;
const TURN_BYTES_MIN: usize = 16 << 10;
const TURN_BYTES_MAX: usize = 256 << 10;
/// Slices in one call. The kernel allows 1 024; 64 cost 1 KiB of stack.
const SLICES_MAX: usize = 64;
/// Shorter runs of visible frames are copied.
const COPIED_BYTES_MAX: usize = 512;
/// The hub is told when so many bytes have left, if it did not ask for more.
const DRAINED_BYTES: u32 = 16 << 10;
