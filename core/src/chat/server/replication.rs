//! Replication: our own log is pushed by a cursor, what is lacking is pulled from anyone who has
//! it, and everyone says what it holds.

use alloc::vec::Vec;

use super::conn::{Conn, Peer, PeerRef, at, raise};
use super::{Asked, ChatServer, Effect};
use crate::archive::NewEntry;
use crate::ids::{Clock, ConnId, Origin, OriginRef, ServerId};
use crate::log::EVERYONE;
use crate::outbox::Outbox;
use crate::time::{SECOND_US, Time};
use crate::wire::chat::Stable;
use crate::wire::entry::{Entry, OriginDef, flags};
use crate::wire::peer::{Beat, Have, Pull};
use crate::wire::{Fixed64, Reason, Seq};

/// Entries asked for at once.
const PULL_ENTRIES: u64 = 16_384;
/// Requests of one peer that wait to be served.
const PULLS_MAX: usize = 64;
/// Before what was asked for is asked for again, perhaps from another.
const PULL_AGAIN_US: u64 = 2 * SECOND_US;
/// Pairs in one frame that says what is held or stable: 15 bytes each at the most.
const HELD_PART: usize = 1_024;

impl ChatServer {
    pub(super) fn on_peer_entry(
        &mut self,
        now: Time,
        id: ConnId,
        entry: &Entry<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let Some(peer) = self.conns.get(id).and_then(Conn::peer) else { return Ok(()) };
        let theirs = peer.refs.get(entry.origin.0 as usize).copied().flatten();
        let theirs = theirs.ok_or(Reason::BadFrame)?;
        // A server sends what it wrote itself. Of others, only what it was asked for: their own
        // entries would have two meanings if anybody could write them.
        let ours = theirs.ours.or_else(|| self.archive.find_origin(&theirs.origin));
        let asked = ours.map_or(0, |origin| at(&peer.asked, origin));
        if theirs.origin.server != peer.server && entry.number > asked {
            return Err(Reason::Unexpected);
        }
        if theirs.origin == self.origin || self.archive.is_past(&theirs.origin) {
            // Our own, back from a peer. What an earlier start of this server wrote can come so;
            // what this start wrote nobody else can have first. What belongs to a past is counted.
            return Ok(());
        }
        let origin = self.ours(id, entry.origin, out)?.ok_or(Reason::BadFrame)?;
        let mut after = Vec::with_capacity(entry.after.len());
        for (theirs, number) in entry.after {
            after.push((self.ours(id, theirs, out)?.ok_or(Reason::BadFrame)?, number));
        }
        let peer = self.conns.get_mut(id).and_then(Conn::peer_mut);
        if let Some(peer) = peer.filter(|peer| self.archive.origin(origin) == peer.origin) {
            for &(origin, number) in &after {
                raise(&mut peer.named, origin, number);
            }
        }
        let new = NewEntry {
            origin,
            number: entry.number,
            clock: entry.clock,
            author: entry.author,
            author_number: entry.author_number,
            name: entry.name,
            scope: entry.scope,
            after: &after,
            body: entry.body,
            tag: entry.tag,
        };
        let result = self.on_foreign(now, &new, out);
        // That the peer has it in memory does not mean that it has stored it: it says so itself.
        let peer = self.conns.get_mut(id).and_then(Conn::peer_mut);
        if let Some(peer) = peer.filter(|_| planted!(TrustSender)) {
            raise(&mut peer.held, origin, entry.number);
        }
        result
    }

    /// Our reference for one of a peer's. `None` for an origin that is not taken in.
    fn ours(
        &mut self,
        id: ConnId,
        theirs: OriginRef,
        out: &mut Outbox<Effect>,
    ) -> Result<Option<OriginRef>, Reason> {
        let index = theirs.0 as usize;
        let peer = self.conns.get(id).and_then(Conn::peer);
        let known = peer.and_then(|peer| peer.refs.get(index).copied().flatten());
        let PeerRef { origin, ours } = known.ok_or(Reason::BadFrame)?;
        if ours.is_some() {
            return Ok(ours);
        }
        let ours = self.define_heard(origin, out)?;
        if let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) {
            peer.refs[index] = Some(PeerRef { origin, ours });
        }
        Ok(ours)
    }

    /// Whether a peer's reference stands for an origin that belongs to a past here.
    fn is_past_of(&self, id: ConnId, theirs: OriginRef) -> bool {
        let peer = self.conns.get(id).and_then(Conn::peer);
        let known = peer.and_then(|peer| peer.refs.get(theirs.0 as usize).copied().flatten());
        known.is_some_and(|known| self.archive.is_past(&known.origin))
    }

    pub(super) fn on_origin_def(&mut self, id: ConnId, def: &OriginDef) -> Result<(), Reason> {
        if def.reference.0 >= self.limits().origins_max {
            return Err(Reason::BadFrame);
        }
        let ours = self.archive.find_origin(&def.origin);
        let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) else { return Ok(()) };
        let index = def.reference.0 as usize;
        if peer.refs.len() <= index {
            peer.refs.resize(index + 1, None);
        }
        peer.refs[index] = Some(PeerRef { origin: def.origin, ours });
        if def.origin.server == peer.server && def.origin > peer.origin {
            peer.origin = def.origin;
            if let Some(member) = self.members.get_mut(def.origin.server) {
                member.started(def.origin);
            }
        }
        Ok(())
    }

    /// A peer says what it holds.
    pub(super) fn on_have(
        &mut self,
        id: ConnId,
        have: &Have<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        for (theirs, number) in have.held {
            // One that was not taken in is passed over, or belongs to a past.
            if self.is_past_of(id, theirs) {
                continue;
            }
            let Some(ours) = self.ours(id, theirs, out)? else { continue };
            if ours == self.own && number > self.archive.shown(ours) {
                // Nobody can hold what was never written.
                return Err(Reason::BadFrame);
            }
            let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) else { break };
            raise(&mut peer.held, ours, number);
        }
        self.soon.acknowledge = true;
        self.soon.plan_pulls = true;
        Ok(())
    }

    // Sending our own log.

    /// Sends a peer what it lacks of our own log, then what it asked for, as it drains.
    pub(super) fn feed_peer(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        loop {
            let window = self.at_most_a_share(self.limits().catch_up_bytes_max);
            let Some(conn) = self.conns.get(id) else { return };
            let Some(peer) = conn.peer() else { return };
            if conn.queued >= window {
                return;
            }
            let room = (window - conn.queued) as usize;
            if peer.push.is_some() {
                self.feed_push(id, room, out);
            } else if !peer.pulls.is_empty() {
                self.feed_pull(id, room, out);
            } else {
                return;
            }
        }
    }

    fn feed_push(&mut self, id: ConnId, room: usize, out: &mut Outbox<Effect>) {
        let begin = self.log.begin;
        let position = self.log.end;
        let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) else { return };
        let Some(mut push) = peer.push.take() else { return };
        if push.next < self.archive.first_number(push.origin) {
            self.send_floor(id, out);
        }
        push.next = self.send_range(id, push.origin, push.next, push.last, room, out);
        if push.next > push.last {
            if push.position >= begin {
                out.push(Effect::Follow { conn: id, from: push.position, peer: true, mt: 0 });
                return;
            }
            push.last = self.archive.shown(push.origin);
            push.position = position;
        }
        if let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) {
            peer.push = Some(push);
        }
    }

    fn feed_pull(&mut self, id: ConnId, room: usize, out: &mut Outbox<Effect>) {
        let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) else { return };
        let Some((origin, next, last)) = peer.pulls.pop_front() else { return };
        if next < self.archive.first_number(origin) {
            self.send_floor_again(id, out);
        }
        let next = self.send_range(id, origin, next, last, room, out);
        if next > last {
            return;
        }
        if let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) {
            peer.pulls.push_front((origin, next, last));
        }
    }

    /// Sends entries of an origin from `next` to `last`, about `room` bytes. Returns the number
    /// to go on with.
    fn send_range(
        &mut self,
        id: ConnId,
        origin: OriginRef,
        mut next: u64,
        last: u64,
        room: usize,
        out: &mut Outbox<Effect>,
    ) -> u64 {
        let (archive, final_clock) = (&self.archive, self.final_clock);
        // What was trimmed is passed over: for that there is the floor.
        next = next.max(archive.first_number(origin));
        let before = next;
        let bytes = out.encode(|arena| {
            let end = arena.len() + room;
            while next <= last && arena.len() < end {
                if let Some(entry) = archive.id(origin, next) {
                    archive.put_entry(entry, final_clock, flags::REPLAY, arena);
                }
                next += 1;
            }
        });
        self.stats.resent += next - before;
        if !bytes.is_empty() {
            self.queue(id, bytes.len());
            out.push(Effect::Send { conn: id, bytes, notify: true });
        }
        next
    }

    pub(super) fn on_pull(
        &mut self,
        id: ConnId,
        pull: &Pull,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        if self.archive.is_past(&pull.origin) {
            self.send_floor_again(id, out);
            return Ok(());
        }
        let Some(origin) = self.archive.find_origin(&pull.origin) else { return Ok(()) };
        if pull.from == 0 || pull.from > pull.to {
            return Err(Reason::BadRequest);
        }
        let window = pull.from.saturating_add(PULL_ENTRIES - 1);
        let last = pull.to.min(self.archive.shown(origin)).min(window);
        let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) else { return Ok(()) };
        if pull.from <= last && peer.pulls.len() < PULLS_MAX {
            peer.pulls.push_back((origin, pull.from, last));
            self.feed_peer(id, out);
        }
        Ok(())
    }

    // Pulling.

    /// Asks for what others hold and we lack, unless its own server pushes it.
    pub(super) fn plan_pulls(&mut self, now: Time, out: &mut Outbox<Effect>) {
        if planted!(NoPull) {
            return;
        }
        for reference in (0..self.archive.references_end()).map(OriginRef) {
            let origin = self.archive.origin(reference);
            if self.archive.is_vacant(reference) || self.archive.is_past(&origin) {
                continue;
            }
            let held = self.archive.shown(reference) + self.waiting.count(reference);
            let asked = self.pulls.get(&reference);
            if reference == self.own || asked.is_some_and(|asked| asked.again > now) {
                continue;
            }
            if self.is_pushed(now, &origin) {
                continue;
            }
            let Some((conn, theirs)) = self.source_of(reference, held) else { continue };
            let to = theirs.min(held + PULL_ENTRIES);
            self.stats.pulls += 1;
            let wait = if planted!(PullAgain) { 0 } else { PULL_AGAIN_US };
            self.pulls.insert(reference, Asked { again: now + wait, from: conn, through: to });
            let from = held + 1 + u64::from(planted!(PullTooLate) && to > held + 1);
            self.send(conn, &Pull { origin, from, to }, out);
            if let Some(peer) = self.conns.get_mut(conn).and_then(Conn::peer_mut) {
                raise(&mut peer.asked, reference, to);
            }
        }
    }

    /// An entry came: what was asked for is on its way, or here.
    pub(super) fn note_pulled(&mut self, origin: OriginRef, number: u64) {
        let again = self.now + PULL_AGAIN_US;
        let Some(asked) = self.pulls.get_mut(&origin) else { return };
        if number < asked.through && !planted!(PullAgain) {
            asked.again = again;
        } else {
            self.pulls.remove(&origin);
        }
    }

    /// Whether entries of an origin are on their way from a server that did not write them, or came
    /// and are not stored yet, so that its own server is not told of them.
    pub(super) fn is_fetching(&self, now: Time, origin: Origin) -> bool {
        let Some(reference) = self.archive.find_origin(&origin) else { return false };
        let is_coming = self.pulls.get(&reference).is_some_and(|asked| asked.again > now);
        is_coming || self.holds(reference) < self.archive.shown(reference)
    }

    /// Whether an origin's own server pushes it, or is about to: it is linked, or has only just
    /// become known and is being met. Pulling it from another as well would move it twice.
    fn is_pushed(&self, now: Time, origin: &Origin) -> bool {
        let server = origin.server;
        let linked = self.linked_peers().any(|(_, peer)| peer.origin == *origin);
        let latest = self.members.get(server).is_some_and(|member| member.origin == *origin);
        let is_met = self.links.contains_key(&server);
        linked || (latest && (is_met || self.members.is_expected(server, is_met, now)))
    }

    /// Who has more of an origin than `held`, drawn at random, and up to where.
    fn source_of(&mut self, reference: OriginRef, held: u64) -> Option<(ConnId, u64)> {
        let own = self.archive.origin(reference).server;
        let more = |peer: &&(ConnId, &Peer)| {
            let asked = !planted!(PullFromOrigin) || peer.1.server == own;
            peer.1.holds(reference) > held && asked
        };
        let sources = self.linked_peers().filter(|peer| more(&peer)).count() as u64;
        if sources == 0 {
            return None;
        }
        let drawn = self.prng.below(sources) as usize;
        let (conn, peer) = self.linked_peers().filter(|peer| more(&peer)).nth(drawn)?;
        Some((conn, peer.holds(reference)))
    }

    // What is held.

    /// Tells peers what we hold that they do not know of: at once to the server that wrote it and
    /// waits for copies, to the others with the heartbeat.
    pub(super) fn tell_held(&mut self, all: bool, out: &mut Outbox<Effect>) {
        self.for_each_link(|server, peer| server.tell_held_to(peer, all, out));
    }

    pub(super) fn tell_held_to(&mut self, id: ConnId, all: bool, out: &mut Outbox<Effect>) {
        let mut news = core::mem::take(&mut self.news);
        news.clear();
        let Some(peer) = self.conns.get(id).and_then(Conn::peer) else { return };
        for (reference, origin) in self.archive.origins() {
            let held = self.holds(reference).min(self.archive.shown(reference));
            let theirs = origin.server == peer.server;
            if held > at(&peer.told, reference) && (all || theirs) {
                news.push((reference, held));
            }
        }
        for part in news.chunks(HELD_PART) {
            self.send(id, &Have { held: Seq::new(part) }, out);
        }
        if let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) {
            for &(reference, held) in &news {
                raise(&mut peer.told, reference, held);
            }
        }
        self.news = news;
    }

    // Heartbeats.

    pub(super) fn beat_all(&mut self, now: Time, out: &mut Outbox<Effect>) {
        self.tell_held(true, out);
        self.for_each_link(|server, peer| server.beat_to(now, peer, out));
    }

    /// Sends a heartbeat. What we hold was told before on the same connection, so the clock in it
    /// is bound to a vector that the peer knows.
    pub(super) fn beat_to(&mut self, now: Time, id: ConnId, out: &mut Outbox<Effect>) {
        self.tell_held_to(id, true, out);
        let heard: Vec<(ServerId, u32)> = self
            .links
            .iter()
            .filter_map(|(server, conn)| {
                let conn = self.conns.get(*conn)?;
                let ago = (now.since_us(conn.heard) / 1_000).min(u64::from(u32::MAX)) as u32;
                conn.peer()?.is_linked().then_some((*server, ago))
            })
            .collect();
        // A clock may be announced only with everything that was stamped before it and is here.
        let quiet = self.waiting.is_empty();
        let all_told = quiet && self.holds(self.own) == self.archive.shown(self.own);
        let clock = if all_told { self.clock.announce(now) } else { Clock(0) };
        let beat = Beat {
            clock,
            vector: Fixed64(self.archive.vector_hash()),
            digest: if quiet { self.digest() } else { crate::ids::Tag::default() },
            ma: self.archive.rows(),
            state: self.state,
            load: self.load(),
            limit: self.limits().users_max,
            heard: Seq::new(&heard),
        };
        self.send(id, &beat, out);
    }

    pub(super) fn on_beat(&mut self, now: Time, id: ConnId, beat: &Beat<'_>) -> Result<(), Reason> {
        if self.clock.is_absurd(now, beat.clock) {
            return Err(Reason::ClockAhead);
        }
        self.clock.observe(now, beat.clock);
        let equal = beat.vector.0 == self.archive.vector_hash();
        let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) else { return Ok(()) };
        (peer.state, peer.load, peer.limit) = (beat.state, beat.load, beat.limit);
        peer.hears.clear();
        for (server, ago) in beat.heard.iter().take(self.config.limits.members_max as usize) {
            peer.hears.push((server, now - u64::from(ago) * 1_000));
        }
        if beat.clock > Clock(0) && peer.announced.is_none() {
            peer.announced = Some((beat.clock, peer.held.clone()));
        }
        let (server, hears) = (peer.server, peer.hears.clone());
        if let Some(member) = self.members.get_mut(server) {
            member.ma = beat.ma;
        }
        for (server, heard) in hears {
            if let Some(member) = self.members.get_mut(server) {
                member.heard = member.heard.max(heard);
            }
        }
        if equal && beat.digest != crate::ids::Tag::default() && beat.digest != self.digest() {
            // A topic that is on its way does that, too: one heartbeat proves nothing.
            self.stats.diverged += 1;
        }
        self.soon.plan_pulls = true;
        self.raise_final_clock();
        Ok(())
    }

    /// Up to which clock every index is final: the least that a member announced, once we hold
    /// all that it held then.
    pub(super) fn raise_final_clock(&mut self) {
        let mut reached: Vec<(ServerId, Clock)> = Vec::new();
        for (id, conn) in self.links.iter().map(|(id, conn)| (*id, *conn)).collect::<Vec<_>>() {
            let shown = &self.archive;
            let Some(peer) = self.conns.get_mut(conn).and_then(Conn::peer_mut) else { continue };
            let whole = |vector: &Vec<u64>| {
                let origins = vector.iter().enumerate();
                origins
                    .filter(|(_, number)| **number > 0)
                    .all(|(o, number)| shown.shown(OriginRef(o as u32)) >= *number)
            };
            if let Some((clock, _)) =
                peer.announced.take_if(|(_, vector)| whole(vector) || planted!(FinalTooEarly))
            {
                reached.push((id, clock));
            }
        }
        for (id, clock) in reached {
            if let Some(member) = self.members.get_mut(id) {
                member.final_clock = member.final_clock.max(clock);
            }
        }
        let all_shown = self.waiting.is_empty();
        let own = if all_shown && self.holds(self.own) == self.archive.shown(self.own) {
            self.clock.announce(self.now)
        } else {
            self.final_clock
        };
        let others = self.members.iter().filter(|(_, member)| member.counts());
        let least = others.map(|(_, member)| member.final_clock).min();
        self.final_clock = self.final_clock.max(least.map_or(own, |least| least.min(own)));
    }

    // What cannot come any more, and what everybody has.

    /// Whether an entry was lost for good: its origin has ended, every member that counts is
    /// linked, and nobody holds it, or wrote something that comes after it: who did holds it, and
    /// has not said so yet.
    pub(super) fn is_void(&self, origin: &Origin, number: u64) -> bool {
        // Of what belongs to a past nothing is lacking.
        if self.archive.is_past(origin) {
            return true;
        }
        let ended = match self.members.get(origin.server) {
            _ if origin.server == self.id => *origin != self.origin,
            Some(member) => !member.counts() || member.origin > *origin,
            None => false,
        };
        let all_linked = self
            .members
            .iter()
            .filter(|(_, member)| member.counts())
            .all(|(id, _)| self.linked_peers().any(|(_, peer)| peer.server == id));
        if !ended || !all_linked {
            return false;
        }
        let Some(reference) = self.archive.find_origin(origin) else { return true };
        self.archive.shown(reference) + self.waiting.count(reference) < number
            && self
                .linked_peers()
                .all(|(_, peer)| peer.holds(reference).max(at(&peer.named, reference)) < number)
    }

    /// Tells clients what every member holds: they need not keep it to hand it back.
    pub(super) fn tell_stable(&mut self, out: &mut Outbox<Effect>) {
        let all_linked = self
            .members
            .iter()
            .filter(|(_, member)| member.counts())
            .all(|(id, _)| self.linked_peers().any(|(_, peer)| peer.server == id));
        if !all_linked || !self.members.all_met() {
            return;
        }
        let mut news: Vec<(OriginRef, u64)> = Vec::new();
        for (reference, _) in self.archive.origins() {
            let others = self.linked_peers().map(|(_, peer): (_, &Peer)| peer.holds(reference));
            let least = others.min().unwrap_or(u64::MAX).min(self.holds(reference));
            if least > at(&self.stable_told, reference) {
                news.push((reference, least));
            }
        }
        for part in news.chunks(HELD_PART) {
            self.publish(EVERYONE, &Stable { held: Seq::new(part) }, out);
        }
        for (reference, least) in news {
            raise(&mut self.stable_told, reference, least);
        }
    }
}
