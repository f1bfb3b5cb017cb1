//! What is queued for all connections together, and what came of frames that are not whole: each
//! has one bound for the whole server.
//!
//! ```text
//! bytes queued   0 ──────────── half ──────────────── queued_bytes_max
//!                everyone's      history and answers   whoever holds most is closed, with the
//!                whole window    up to a fair share    advice to resume; what it had is dropped
//! ```
//!
//! A fair share is half of the bound over the connections that have anything queued, and at most a
//! small part of what is left. Whoever has nothing queued may always be sent something, so nobody
//! waits for those who do not read.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::conn::{Conn, Phase};
use super::{ChatServer, Effect};
use crate::ids::ConnId;
use crate::outbox::Outbox;
use crate::time::{MILLI_US, SECOND_US, Time};
use crate::wire::Reason;

/// Bytes queued outside the log.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// For connections that are there, and how many of these have any.
    live: u64,
    busy: u32,
    /// For connections that were closed and are still being sent what they had: until when, bytes.
    closing: VecDeque<(Time, u64)>,
    closing_bytes: u64,
    /// What came of frames that are not whole.
    begun: u64,
}

impl Queues {
    fn total(&self) -> u64 {
        self.live + self.closing_bytes
    }

    fn changed(&mut self, before: u32, after: u32) {
        self.live = self.live + u64::from(after) - u64::from(before);
        self.busy = self.busy + u32::from(after > 0) - u32::from(before > 0);
    }

    /// So much of a closed connection is still on its way for a while.
    fn closed(&mut self, now: Time, bytes: u32) {
        if bytes == 0 {
            return;
        }
        self.closing_bytes += u64::from(bytes);
        let until = now + CLOSING_US;
        match self.closing.back_mut() {
            // A few are enough to say when what is over.
            Some((last, sum)) if until.since_us(*last) < CLOSING_STEP_US => {
                *sum += u64::from(bytes)
            }
            _ => self.closing.push_back((until + CLOSING_STEP_US, u64::from(bytes))),
        }
    }

    pub(super) fn expire(&mut self, now: Time) {
        while let Some((until, bytes)) = self.closing.front()
            && *until <= now
        {
            self.closing_bytes -= bytes;
            self.closing.pop_front();
        }
    }

    /// Panics unless the sums are right.
    pub(super) fn check<'a>(&self, conns: impl Iterator<Item = &'a Conn>) {
        let (mut live, mut busy, mut begun) = (0, 0, 0);
        for conn in conns {
            live += u64::from(conn.queued);
            busy += u32::from(conn.queued > 0);
            begun += conn.begun.map_or(0, |(_, bytes)| u64::from(bytes));
        }
        assert_eq!((live, busy, begun), (self.live, self.busy, self.begun), "all is counted");
        let closing: u64 = self.closing.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(closing, self.closing_bytes, "what is on its way out is counted");
    }
}

impl ChatServer {
    /// Counts bytes that were queued for a connection; one that takes none is not read.
    pub(super) fn queue(&mut self, id: ConnId, bytes: usize) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let before = conn.queued;
        conn.queued = before.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.queues.changed(before, conn.queued);
    }

    /// Counts bytes that left.
    pub(super) fn unqueue(&mut self, id: ConnId, bytes: u32) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let before = conn.queued;
        conn.queued = before.saturating_sub(bytes);
        self.queues.changed(before, conn.queued);
    }

    /// Bytes queued for all connections, those included that are being closed.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.queues.total()
    }

    /// Whether so much is queued that everyone has to do with a fair share.
    fn is_pressed(&self) -> bool {
        self.queues.total() >= self.limits().queued_bytes_max / 2
    }

    fn fair_share(&self) -> u64 {
        (self.limits().queued_bytes_max / 2 / u64::from(self.queues.busy.max(1))).max(1)
    }

    /// `bytes`, or a fair share when that is less and so much is queued that it matters.
    pub(super) fn at_most_a_share(&self, bytes: u32) -> u32 {
        if !self.is_pressed() {
            return bytes;
        }
        // A small part of what is left, so that however many come, those before them are not too
        // many: they may have taken more when their share was greater.
        let left = self.limits().queued_bytes_max.saturating_sub(self.queues.total());
        let share = self.fair_share().min(left / LEFT_PARTS).max(1);
        bytes.min(u32::try_from(share).unwrap_or(u32::MAX))
    }

    /// How much was queued so far, to end a round that queues for many.
    pub(super) fn round_limit(&self) -> u64 {
        self.queues.live + ROUND_BYTES
    }

    pub(super) fn is_round_over(&self, limit: u64) -> bool {
        self.queues.live >= limit
    }

    /// What a connection that is being closed is not to be sent any more. While little is queued,
    /// everyone is sent what there is; who does not read never.
    pub(super) fn discard(&mut self, id: ConnId, reason: Reason, out: &mut Outbox<Effect>) {
        if reason != Reason::SlowReader && !self.is_pressed() {
            return;
        }
        if self.conns.get(id).is_some_and(|conn| conn.queued > 0) {
            self.unqueue(id, u32::MAX);
            out.push(Effect::Discard { conn: id });
        }
    }

    /// A connection is gone: what it was to be sent is on its way for a while.
    pub(super) fn stop_counting(&mut self, gone: &Conn) {
        self.queues.changed(gone.queued, 0);
        self.queues.closed(self.now, gone.queued);
        self.queues.begun -= gone.begun.map_or(0, |(_, bytes)| u64::from(bytes));
    }

    /// Closes whoever holds most, until all together hold what they may.
    pub(super) fn relieve(&mut self, out: &mut Outbox<Effect>) {
        while self.queues.total() > self.limits().queued_bytes_max {
            let share = self.fair_share();
            let queued = |peers: bool| {
                let of_kind = move |(_, conn): &(ConnId, &Conn)| is_peer(conn) == peers;
                self.conns.iter().filter(of_kind).max_by_key(|(_, conn)| conn.queued)
            };
            // A link goes only when no client holds more than its share.
            let victim = queued(false).filter(|(_, conn)| u64::from(conn.queued) > share);
            let Some((id, _)) = victim.or_else(|| queued(true)) else { return };
            self.stats.relieved += 1;
            self.close(id, Reason::SlowReader, out);
        }
    }

    /// A frame has come in part, so many bytes; 0 when it is whole.
    pub(super) fn on_mid_frame(
        &mut self,
        now: Time,
        id: ConnId,
        bytes: u32,
        out: &mut Outbox<Effect>,
    ) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.heard = now;
        let before = conn.begun.take();
        self.queues.begun -= before.map_or(0, |(_, bytes)| u64::from(bytes));
        self.queues.begun += u64::from(bytes);
        let since = before.map_or(now, |(since, _)| since);
        conn.begun = (bytes > 0).then_some((since, bytes));
        while self.queues.begun > self.limits().begun_bytes_max {
            let Some(id) = self.longest_begun() else { return };
            self.close(id, Reason::FrameTimeout, out);
        }
    }

    /// Of the connections with more than an equal share of what came of frames that are not whole,
    /// the one whose frame began first.
    fn longest_begun(&self) -> Option<ConnId> {
        let begun: Vec<(ConnId, Time, u64)> = self
            .conns
            .iter()
            .filter_map(|(id, conn)| conn.begun.map(|(at, bytes)| (id, at, u64::from(bytes))))
            .collect();
        let share = self.limits().begun_bytes_max / begun.len().max(1) as u64;
        let beyond = begun.into_iter().filter(|(_, _, bytes)| *bytes > share);
        beyond.min_by_key(|(id, at, _)| (*at, *id)).map(|(id, ..)| id)
    }
}

fn is_peer(conn: &Conn) -> bool {
    matches!(conn.phase, Phase::Peer(_) | Phase::Dialled(_))
}

/// While much is queued, one takes such a part of what is left.
const LEFT_PARTS: u64 = 256;
/// For so long a driver may go on sending what a closed connection has queued, and a little more.
const CLOSING_US: u64 = SECOND_US + 200 * MILLI_US;
const CLOSING_STEP_US: u64 = 50 * MILLI_US;
/// What is queued for many connections at once is queued in rounds of about so much.
pub(crate) const ROUND_BYTES: u64 = 8 << 20;
