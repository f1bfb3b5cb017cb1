//! What goes to clients besides the log: the archive as they drain, and acknowledgements.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::conn::{Attached, Backfill, Feed, Unacknowledged, at, raise};
use super::{ChatServer, Effect};
use crate::archive::CatchUp;
use crate::ids::{ConnId, OriginRef, Position, ScopeRef};
use crate::outbox::Outbox;
use crate::wire::chat::{Ack, CaughtUp};
use crate::wire::entry::flags;
use crate::wire::{Message, Reason, Seq};

/// The most acknowledgements in one frame.
const ACK_MAX: usize = 4_096;

impl ChatServer {
    /// Bytes left the queue of a connection: there may be place for more.
    pub(super) fn on_drained(&mut self, id: ConnId, bytes: u32, out: &mut Outbox<Effect>) {
        self.unqueue(id, bytes);
        let Some(conn) = self.conns.get(id) else { return };
        if conn.peer().is_some() {
            self.feed_peer(id, out);
        } else {
            self.feed(id, out);
            self.unpause_if_drained(id, out);
        }
    }

    /// Sends a client what it lacks, as much as there is place for.
    pub(super) fn feed(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        loop {
            let window = self.at_most_a_share(self.limits().catch_up_bytes_max);
            let Some(conn) = self.conns.get(id) else { return };
            let Some(attached) = conn.attached() else { return };
            if conn.queued >= window {
                return;
            }
            let room = (window - conn.queued) as usize;
            let more = match (&attached.feed, attached.backfills.front()) {
                (Feed::CatchUp { .. }, _) => self.feed_catch_up(id, room, out),
                (Feed::Log, Some(_)) => self.feed_backfill(id, room, out),
                (Feed::Log, None) => return,
            };
            if !more {
                return;
            }
        }
    }

    /// Sends from the archive. Returns whether there may be more to send at once.
    fn feed_catch_up(&mut self, id: ConnId, room: usize, out: &mut Outbox<Effect>) -> bool {
        let Some(attached) = self.conns.get_mut(id).and_then(|conn| conn.attached_mut()) else {
            return false;
        };
        let feed = core::mem::replace(&mut attached.feed, Feed::Log);
        let Feed::CatchUp { mut catch_up, position, mut mt, mt_then } = feed else { return false };
        let (rows, whole) = self.send_rows(id, &mut catch_up, room, out);
        mt += rows;
        if !whole {
            self.set_feed(id, Feed::CatchUp { catch_up, position, mt, mt_then });
            return true;
        }
        if position < self.log.begin {
            // It took so long that the log has moved on: once more, for what came since.
            return self.catch_up_again(id, catch_up.into_until(), mt, out);
        }
        let Some(attached) = self.conns.get(id).and_then(|conn| conn.attached()) else {
            return false;
        };
        let scopes = attached.scopes.clone();
        out.push(Effect::Follow { conn: id, from: position, peer: false, mt: mt_then });
        for scope in scopes {
            out.push(Effect::Show { conn: id, scope, at: position, mt: 0 });
        }
        let bytes = out.encode(|arena| CaughtUp { room: "" }.put_frame(arena));
        self.queue(id, bytes.len());
        out.push(Effect::SendAt { conn: id, at: position, bytes });
        true
    }

    fn catch_up_again(
        &mut self,
        id: ConnId,
        seen: Vec<u64>,
        mt: u64,
        out: &mut Outbox<Effect>,
    ) -> bool {
        let until = self.shown_vector();
        let Some(attached) = self.conns.get(id).and_then(|conn| conn.attached()) else {
            return false;
        };
        let scopes = attached.scopes.clone();
        let mt_then = scopes.iter().map(|scope| self.archive.scope_rows(*scope)).sum();
        let catch_up = Box::new(CatchUp::new(&scopes, seen, until));
        let position = self.log.end;
        self.set_feed(id, Feed::CatchUp { catch_up, position, mt, mt_then });
        self.send_users(id, 0, out);
        self.send_rooms(id, 0, out);
        true
    }

    /// A room was left before the catch-up that was made with it is over.
    pub(super) fn leave_catch_up(&mut self, id: ConnId, scope: ScopeRef) {
        let Some(attached) = self.conns.get_mut(id).and_then(|conn| conn.attached_mut()) else {
            return;
        };
        let Feed::CatchUp { catch_up, mt, mt_then, .. } = &mut attached.feed else { return };
        catch_up.drop_scope(scope);
        let until = catch_up.until();
        *mt_then -= self.archive.rows_through(scope, &|origin| at(until, origin)).min(*mt_then);
        *mt = (*mt).min(*mt_then);
    }

    fn set_feed(&mut self, id: ConnId, feed: Feed) {
        if let Some(attached) = self.conns.get_mut(id).and_then(|conn| conn.attached_mut()) {
            attached.feed = feed;
        }
    }

    /// Sends the archive of a room that was joined; shows the room when nothing is left.
    fn feed_backfill(&mut self, id: ConnId, room: usize, out: &mut Outbox<Effect>) -> bool {
        let until = self.shown_vector();
        let Some(attached) = self.conns.get_mut(id).and_then(|conn| conn.attached_mut()) else {
            return false;
        };
        let Some(mut backfill) = attached.backfills.pop_front() else { return false };
        let mut catch_up = backfill.catch_up.take().unwrap_or_else(|| {
            let mut seen = Vec::new();
            for (origin, number) in core::mem::take(&mut backfill.seen) {
                raise(&mut seen, origin, number);
            }
            Box::new(CatchUp::new(&[backfill.scope], seen, until.clone()))
        });
        let (_, whole) = if planted!(NoBackfill) {
            catch_up.drop_scope(backfill.scope);
            (0, true)
        } else {
            self.send_rows(id, &mut catch_up, room, out)
        };
        if !whole {
            backfill.catch_up = Some(catch_up);
            self.put_back(id, backfill);
            return true;
        }
        let done = catch_up.until();
        if until.iter().enumerate().any(|(o, n)| at(done, OriginRef(o as u32)) < *n) {
            // Entries came meanwhile: perhaps of this room.
            let seen = catch_up.into_until();
            backfill.catch_up = Some(Box::new(CatchUp::new(&[backfill.scope], seen, until)));
            self.put_back(id, backfill);
            return true;
        }
        self.show_room(id, &backfill, out);
        true
    }

    fn put_back(&mut self, id: ConnId, backfill: Backfill) {
        if let Some(attached) = self.conns.get_mut(id).and_then(|conn| conn.attached_mut()) {
            attached.backfills.push_front(backfill);
        }
    }

    fn show_room(&mut self, id: ConnId, backfill: &Backfill, out: &mut Outbox<Effect>) {
        let (scope, position) = (backfill.scope, self.log.end);
        let mt = self.archive.scope_rows(scope) << u32::from(planted!(MtTwice));
        let Some(attached) = self.conns.get_mut(id).and_then(|conn| conn.attached_mut()) else {
            return;
        };
        if let Err(place) = attached.scopes.binary_search(&scope) {
            attached.scopes.insert(place, scope);
        }
        out.push(Effect::Show { conn: id, scope, at: position, mt });
        let bytes = out.encode(|arena| CaughtUp { room: &backfill.room }.put_frame(arena));
        self.queue(id, bytes.len());
        out.push(Effect::SendAt { conn: id, at: position, bytes });
    }

    /// Sends rows of a catch-up, about `room` bytes. Returns how many, and whether that was all.
    fn send_rows(
        &mut self,
        id: ConnId,
        catch_up: &mut CatchUp,
        room: usize,
        out: &mut Outbox<Effect>,
    ) -> (u64, bool) {
        let (archive, final_clock) = (&self.archive, self.final_clock);
        let (mut rows, mut whole) = (0, false);
        let bytes = out.encode(|arena| {
            let end = arena.len() + room;
            while arena.len() < end {
                let Some(row) = catch_up.next(archive) else {
                    whole = true;
                    break;
                };
                archive.put_entry(row, final_clock, flags::REPLAY, arena);
                rows += 1;
            }
        });
        if !bytes.is_empty() {
            self.queue(id, bytes.len());
            out.push(Effect::Send { conn: id, bytes, notify: true });
        }
        (rows, whole)
    }

    // Acknowledgements.

    /// Acknowledges whatever is safe by now.
    pub(super) fn acknowledge_all(&mut self, out: &mut Outbox<Effect>) {
        let mut waiting = core::mem::take(&mut self.acknowledging);
        waiting.retain(|id| {
            while self.acknowledge(*id, out) {}
            self.unpause_if_drained(*id, out);
            let attached = self.conns.get_mut(*id).and_then(|conn| conn.attached_mut());
            attached.is_some_and(|attached| {
                attached.is_acknowledging = !attached.unacknowledged.is_empty();
                attached.is_acknowledging
            })
        });
        self.acknowledging = waiting;
    }

    /// Acknowledges a run of messages of one client. Returns whether there may be another run.
    fn acknowledge(&mut self, id: ConnId, out: &mut Outbox<Effect>) -> bool {
        let needed = self.copies_needed();
        let Some(attached) = self.conns.get_mut(id).and_then(|conn| conn.attached_mut()) else {
            return false;
        };
        let mut queue = core::mem::take(&mut attached.unacknowledged);
        let run = self.safe_run(&queue, needed);
        let Some(last) = run.checked_sub(1).map(|last| queue[last]) else {
            self.put_unacknowledged(id, queue);
            return false;
        };
        let mut indexes = core::mem::take(&mut self.scratch);
        indexes.clear();
        let first = queue[0].author_number + u64::from(planted!(AckNext) && run > 1);
        for message in queue.drain(..run) {
            indexes.push(message.index);
        }
        let durable = at(&self.storage.synced, last.origin) >= last.number;
        let copies = self.copies(last).min(u32::from(u8::MAX)) as u8;
        self.send(id, &Ack { first, copies, durable, indexes: Seq::new(&indexes) }, out);
        self.scratch = indexes;
        let more = !queue.is_empty();
        self.put_unacknowledged(id, queue);
        more
    }

    fn put_unacknowledged(&mut self, id: ConnId, queue: VecDeque<Unacknowledged>) {
        if let Some(attached) = self.conns.get_mut(id).and_then(|conn| conn.attached_mut()) {
            attached.unacknowledged = queue;
        }
    }

    /// How many messages at the front are safe, follow each other and are held alike.
    fn safe_run(&self, queue: &VecDeque<Unacknowledged>, needed: u32) -> usize {
        let mut run = 0;
        let mut safe_of = (OriginRef(u32::MAX), 0);
        for message in queue.iter().take(ACK_MAX) {
            let follows = message.author_number == queue[0].author_number + run as u64;
            if message.origin != safe_of.0 {
                safe_of = (message.origin, self.safe(message.origin, needed));
            }
            if !follows || message.number > safe_of.1 {
                break;
            }
            run += 1;
        }
        run
    }

    /// Up to which number enough servers hold an origin.
    fn safe(&self, origin: OriginRef, needed: u32) -> u64 {
        let own =
            if planted!(AckBeforeStored) { self.archive.shown(origin) } else { self.holds(origin) };
        if needed <= 1 {
            return own;
        }
        let mut held: [u64; 64] = [0; 64];
        let mut count = 0;
        for (_, peer) in self.linked_peers().take(held.len()) {
            held[count] = peer.holds(origin);
            count += 1;
        }
        let held = &mut held[..count];
        held.sort_unstable_by(|a, b| b.cmp(a));
        let others = held.get(needed as usize - 2).copied().unwrap_or(0);
        own.min(others)
    }

    fn copies(&self, message: Unacknowledged) -> u32 {
        let hold = |peer: &super::conn::Peer| peer.holds(message.origin) >= message.number;
        let more = u32::from(planted!(CopyTooMany));
        1 + more + self.linked_peers().filter(|(_, peer)| hold(peer)).count() as u32
    }

    /// As many as wanted, but never more than live.
    fn copies_needed(&self) -> u32 {
        let wanted = u32::from(self.config.copies) - u32::from(planted!(CopyTooFew));
        wanted.min(1 + self.linked() as u32).max(1)
    }

    // Backpressure.

    /// A client that is far ahead of what is safe, or of what it reads, is not read for a while.
    pub(super) fn pause_if_behind(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        let behind = self.is_behind(id, 1);
        let Some(conn) = self.conns.get_mut(id) else { return };
        if behind && !conn.paused.any() {
            out.push(Effect::Pause { conn: id });
        }
        self.paused += u32::from(behind && !conn.paused.backlog);
        conn.paused.backlog |= behind;
    }

    /// Who asks for what takes place in its queue. One that did not read what it got before must
    /// wait.
    pub(super) fn may_ask(&self, id: ConnId) -> Result<&Attached, Reason> {
        let attached = self.attached(id)?;
        if self.has_full_queue(id) { Err(Reason::Busy) } else { Ok(attached) }
    }

    pub(super) fn has_full_queue(&self, id: ConnId) -> bool {
        let most = self.at_most_a_share(self.limits().queue_bytes_max);
        self.conns.get(id).is_some_and(|conn| conn.queued >= most)
    }

    pub(super) fn unpause_if_drained(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        if self.is_behind(id, 2) {
            return;
        }
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.paused.backlog {
            conn.paused.backlog = false;
            self.paused -= 1;
            if !conn.paused.any() {
                out.push(Effect::Unpause { conn: id });
            }
        }
    }

    /// After storage has caught up, whoever was paused for its sake is read again.
    pub(super) fn unpause_all_behind(&mut self, out: &mut Outbox<Effect>) {
        if self.paused == 0 || self.storage.bytes > self.limits().unpersisted_bytes_max / 2 {
            return;
        }
        let paused: Vec<ConnId> =
            self.conns.iter().filter(|(_, conn)| conn.paused.backlog).map(|(id, _)| id).collect();
        for id in paused {
            self.unpause_if_drained(id, out);
        }
    }

    /// Whether a connection has used more than a `share`-th of what it may.
    fn is_behind(&self, id: ConnId, share: u64) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        let limits = self.limits();
        let queue_max = u64::from(self.at_most_a_share(limits.queue_bytes_max));
        let unacknowledged = conn.attached().map_or(0, |a: &Attached| a.unacknowledged.len());
        unacknowledged as u64 >= u64::from(limits.unacknowledged_max) / share
            || u64::from(conn.queued) >= (queue_max / share).max(1)
            || self.storage.bytes >= limits.unpersisted_bytes_max / share
    }

    /// The rows that a connection may see: MA.
    pub(super) fn ma_of(&self, attached: &Attached) -> u64 {
        let backfills = attached.backfills.iter().map(|backfill| backfill.scope);
        let scopes = attached.scopes.iter().copied().chain(backfills);
        scopes.map(|scope| self.archive.scope_rows(scope)).sum()
    }

    /// The position from which on a change that is made now holds.
    pub(super) fn here(&self) -> Position {
        self.log.end
    }
}
