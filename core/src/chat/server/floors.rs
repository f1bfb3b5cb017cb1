//! Floors: what is left of entries that were trimmed, for peers that lack them.

use alloc::vec::Vec;

use super::conn::{Conn, Feed, raise};
use super::places::sums_of;
use super::{ChatServer, Effect};
use crate::archive::{self, Adopted, FloorAuthor, FloorOrigin, Past, Raised};
use crate::framing::FRAME_BYTES_MAX;
use crate::ids::{ConnId, OriginRef, ScopeRef};
use crate::outbox::Outbox;
use crate::time::{SECOND_US, Time};
use crate::wire::entry::Scope;
use crate::wire::peer::{Floor, FloorAuthors, FloorPast, MessageRange};
use crate::wire::{Message, Reason, Seq};

/// Scopes in one frame: at most 75 bytes each.
const ROWS_PART: usize = 800;
/// Ranges in one frame: at most 44 bytes each.
const AUTHORS_PART: usize = 1_024;
/// Before a floor is sent again to one who asks for what lies below it: it asks for each origin.
const FLOOR_AGAIN_US: u64 = 2 * SECOND_US;
/// What a frame takes at most.
const _: () = assert!(75 * ROWS_PART + 64 < FRAME_BYTES_MAX && 44 * AUTHORS_PART < FRAME_BYTES_MAX);

impl ChatServer {
    // Sending.

    /// Sends our floor to a peer, unless it was just sent.
    pub(super) fn send_floor_again(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        let sent = self.conns.get(id).and_then(Conn::peer).and_then(|peer| peer.floor_sent);
        if sent.is_none_or(|sent| self.now.since_us(sent) >= FLOOR_AGAIN_US) {
            self.send_floor(id, out);
        }
    }

    /// Sends our floor to a peer, as a whole: it must not move while it is sent.
    pub(super) fn send_floor(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        let floor = self.archive.floor();
        let bytes = out.encode(|arena| {
            for origin in &floor.origins {
                self.put_floor(origin, arena);
            }
            for past in &floor.pasts {
                self.put_past(past, arena);
            }
            let ranges: Vec<MessageRange> = floor.authors.iter().map(range).collect();
            let parts = ranges.len().div_ceil(AUTHORS_PART).max(1);
            for part in 0..parts {
                let end = ranges.len().min((part + 1) * AUTHORS_PART);
                let counted = Seq::new(&ranges[part * AUTHORS_PART..end]);
                let more = part + 1 < parts;
                FloorAuthors { more, forgot: floor.forgot, counted }.put_frame(arena);
            }
        });
        self.queue(id, bytes.len());
        out.push(Effect::Send { conn: id, bytes, notify: true });
        let now = self.now;
        if let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) {
            peer.floor_sent = Some(now);
        }
    }

    fn put_floor(&self, floor: &FloorOrigin, out: &mut Vec<u8>) {
        let rows: Vec<(Scope<'_>, u64)> =
            floor.rows.iter().map(|(scope, rows)| (self.scope_named(*scope), *rows)).collect();
        let parts = rows.len().div_ceil(ROWS_PART).max(1);
        for part in 0..parts {
            let end = rows.len().min((part + 1) * ROWS_PART);
            let message = Floor {
                origin: self.archive.origin(floor.origin),
                number: floor.number,
                rolling: floor.rolling,
                clock: floor.clock,
                rows: Seq::new(&rows[part * ROWS_PART..end]),
            };
            message.put_frame(out);
        }
    }

    fn put_past(&self, past: &Past, out: &mut Vec<u8>) {
        let rows: Vec<(Scope<'_>, u64)> =
            past.rows.iter().map(|(scope, rows)| (self.scope_named(*scope), *rows)).collect();
        let parts = rows.len().div_ceil(ROWS_PART).max(1);
        for part in 0..parts {
            let end = rows.len().min((part + 1) * ROWS_PART);
            let message = FloorPast {
                past: Past::told(past.through, past.sums),
                clock: past.clock,
                rows: Seq::new(&rows[part * ROWS_PART..end]),
            };
            message.put_frame(out);
        }
    }

    fn scope_named(&self, scope: ScopeRef) -> Scope<'_> {
        match self.archive.talk_members(scope) {
            Some((low, high)) => Scope::Talk { low, high, other: "" },
            None => Scope::Room(self.archive.room_name(scope).unwrap_or("")),
        }
    }

    // Receiving.

    /// A part of a peer's floor: what is left of an origin.
    pub(super) fn on_floor(
        &mut self,
        now: Time,
        id: ConnId,
        floor: &Floor<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        if self.clock.is_absurd(now, floor.clock) {
            return Err(Reason::ClockAhead);
        }
        if self.archive.is_past(&floor.origin) {
            return Ok(());
        }
        let Some(origin) = self.define_heard(floor.origin, out)? else { return Ok(()) };
        if origin == self.own && floor.number > self.archive.shown(origin) {
            // Nobody can have trimmed what was never written.
            return Err(Reason::BadFrame);
        }
        self.count_floor(id, floor.rows.len(), size_of::<(ScopeRef, u64)>())?;
        let rows: Vec<(ScopeRef, u64)> =
            floor.rows.iter().map(|(scope, rows)| (self.archive.scope(&scope), rows)).collect();
        let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) else { return Ok(()) };
        let Floor { number, rolling, clock, .. } = *floor;
        match peer.floor.origins.last_mut() {
            Some(last) if last.origin == origin => last.rows.extend(rows),
            _ => peer.floor.origins.push(FloorOrigin { origin, number, rolling, clock, rows }),
        }
        Ok(())
    }

    /// A part of a peer's floor: what is left of the starts of a server that stand together.
    pub(super) fn on_floor_past(
        &mut self,
        now: Time,
        id: ConnId,
        floor: &FloorPast<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        if self.clock.is_absurd(now, floor.clock) {
            return Err(Reason::ClockAhead);
        }
        self.outlive(floor.past.through, out)?;
        self.count_floor(id, floor.rows.len(), size_of::<(ScopeRef, u64)>())?;
        let rows: Vec<(ScopeRef, u64)> =
            floor.rows.iter().map(|(scope, rows)| (self.archive.scope(&scope), rows)).collect();
        let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) else { return Ok(()) };
        let (through, clock) = (floor.past.through, floor.clock);
        match peer.floor.pasts.last_mut() {
            Some(last) if last.through == through => last.rows.extend(rows),
            _ => peer.floor.pasts.push(Past { through, sums: sums_of(&floor.past), clock, rows }),
        }
        Ok(())
    }

    /// A part of a peer's floor: which messages it counts. The last part makes it whole.
    pub(super) fn on_floor_authors(
        &mut self,
        id: ConnId,
        authors: &FloorAuthors<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        self.count_floor(id, authors.counted.len(), size_of::<FloorAuthor>())?;
        let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) else { return Ok(()) };
        peer.floor.forgot |= authors.forgot;
        for MessageRange { author, from, through, clock } in authors.counted {
            peer.floor.authors.push(FloorAuthor { author, from, through, clock });
        }
        if authors.more {
            return Ok(());
        }
        peer.floor_bytes = 0;
        let floor = core::mem::take(&mut peer.floor);
        if !floor.is_believable() {
            return Err(Reason::BadFrame);
        }
        self.adopt(&floor, out);
        Ok(())
    }

    /// Counts what is kept of a peer's floor until it is whole: with that of the others it takes no
    /// more than entries that wait may.
    fn count_floor(&mut self, id: ConnId, items: usize, bytes: usize) -> Result<(), Reason> {
        let all = self.conns.iter().filter_map(|(_, conn)| conn.peer());
        let all: u64 = all.map(|peer| peer.floor_bytes).sum();
        let more = (items * bytes + size_of::<FloorOrigin>()) as u64;
        if all + more > self.limits().waiting_bytes_max {
            return Err(Reason::Flood);
        }
        if let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) {
            peer.floor_bytes += more;
        }
        Ok(())
    }

    fn adopt(&mut self, floor: &archive::Floor, out: &mut Outbox<Effect>) {
        let now = self.now;
        let lacked = |floor: &&FloorOrigin| floor.number > self.archive.shown(floor.origin);
        let lacked: Vec<(OriginRef, u64)> =
            floor.origins.iter().filter(lacked).map(|floor| (floor.origin, floor.number)).collect();
        let clocks = floor.origins.iter().map(|origin| origin.clock);
        for clock in clocks.chain(floor.pasts.iter().map(|past| past.clock)) {
            self.clock.observe(now, clock);
        }
        let pasts: Vec<_> = self.archive.pasts().collect();
        let Adopted { raised, orphans } = self.archive.adopt_floor(floor);
        for (origin, number) in lacked {
            // There is nothing to be persisted any more.
            raise(&mut self.storage.held, origin, number);
            self.waiting.drop_through(origin, number);
            self.pulls.remove(&origin);
        }
        self.raise_mt(&raised, out);
        if !self.archive.pasts().eq(pasts) {
            self.after_adopting_pasts(now, &orphans, out);
        }
        self.soon.tell_held = true;
        self.soon.attach = true;
        self.soon.plan_pulls = true;
        self.soon.acknowledge = true;
    }

    /// What lies below a floor counts as transferred to everyone who may see it.
    fn raise_mt(&mut self, raised: &[Raised], out: &mut Outbox<Effect>) {
        let at = self.log.end;
        for (conn, state) in self.conns.iter_mut() {
            let Some(attached) = state.attached_mut() else { continue };
            for &Raised { scope, before, after } in raised {
                let (session, talk) = (attached.session, self.archive.talk_members(scope));
                let visible = attached.scopes.binary_search(&scope);
                let own = talk.is_some_and(|(low, high)| session == low || session == high);
                if let (Err(place), true) = (visible, own) {
                    attached.scopes.insert(place, scope);
                } else if visible.is_err() {
                    continue;
                }
                match &mut attached.feed {
                    Feed::CatchUp { mt, mt_then, .. } => {
                        *mt = (*mt + after).saturating_sub(before);
                        *mt_then = (*mt_then + after).saturating_sub(before);
                    }
                    Feed::Log => {
                        let (more, less) =
                            (after.saturating_sub(before), before.saturating_sub(after));
                        if visible.is_ok() {
                            out.push(Effect::Hide { conn, scope, at, mt: less });
                        }
                        out.push(Effect::Show { conn, scope, at, mt: more });
                    }
                }
            }
        }
    }
}

fn range(floor: &FloorAuthor) -> MessageRange {
    let FloorAuthor { author, from, through, clock } = *floor;
    MessageRange { author, from, through, clock }
}
