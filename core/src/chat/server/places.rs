//! Origins that ended give up their places.
//!
//! ```text
//! ended, without entries ───────────────────────────────▶ nothing is left
//! ended, with entries ──trimmed──▶ spent ──all hold it──▶ the past of its server
//! ```
//!
//! A start whose entries were all trimmed is added to the past of its server once every member is
//! linked and holds it wholly, and after all earlier starts of that server. So servers do so at
//! different times, and yet agree: a past is told to peers by its sums, and whoever has the same
//! entries in another form adds up the same. Where the sums differ, one of the two was not there
//! when that past came to be. The one with the lesser past adopts the other's floor, and says
//! again what it alone had: nothing that was acknowledged is lost.
//!
//! **Too few places.** Beyond half of them for origins that ended and have entries, or are named
//! by entries, the oldest entries are trimmed, however much memory there is. When three quarters are taken, nobody who is away is waited for.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::conn::{Attached, Client, Conn, Feed, Peer, PeerPast, Phase};
use super::{ChatServer, Effect};
use crate::archive::{Past, PastOrder, Sums};
use crate::ids::{ConnId, Origin, OriginRef, Position, ServerId};
use crate::outbox::Outbox;
use crate::time::{SECOND_US, Time};
use crate::wire::entry::Portable;
use crate::wire::peer::{Pasts, Pull, ServerState};
use crate::wire::{Field, peer};
use crate::wire::{Reader, Reason, Seq};

/// For so long a reference that was given up stands for nothing: whatever is on its way is over,
/// and whoever is that far behind in the log is closed.
const ASIDE_US: u64 = 30 * SECOND_US;
/// Before a floor is asked for again.
const FLOOR_AGAIN_US: u64 = 2 * SECOND_US;
/// Pasts in one frame: at most 44 bytes each.
const PASTS_PART: usize = 1_024;
/// Pasts of one peer that are remembered.
const PEER_PASTS_MAX: usize = 1_024;

impl ChatServer {
    /// Looks which origins can give up their places.
    pub(super) fn tend_places(&mut self, now: Time, out: &mut Outbox<Effect>) {
        self.trim_for_places();
        self.reuse_places(now, out);
        let (whole, few) = (self.is_whole(), self.has_few_places());
        let mut ended: Vec<(Origin, OriginRef)> =
            self.archive.origins().map(|(reference, origin)| (origin, reference)).collect();
        ended.retain(|(origin, _)| self.is_ended(origin));
        ended.sort_unstable();
        let mut kept = BTreeSet::new();
        let mut changed = BTreeSet::new();
        for (origin, reference) in ended {
            let shown = self.archive.shown(reference);
            let goes = if shown == 0 {
                self.is_unused(&origin, reference)
            } else {
                // A server's starts go in their order.
                !kept.contains(&origin.server) && self.is_foldable(reference, whole, few)
            };
            if goes && self.archive.fold(reference) {
                self.give_up(now, reference);
                if shown > 0 {
                    changed.insert(origin.server);
                }
            } else if shown > 0 {
                kept.insert(origin.server);
            }
        }
        self.tell_pasts(&changed, out);
        self.settle_pasts(now, true, out);
    }

    /// Whether no entry of an origin is written any more.
    pub(super) fn is_ended(&self, origin: &Origin) -> bool {
        match self.members.get(origin.server) {
            _ if origin.server == self.id => *origin < self.origin,
            Some(member) => !member.counts() || member.origin > *origin,
            None => true,
        }
    }

    /// Whether everyone who may have something is linked.
    fn is_whole(&self) -> bool {
        let mut counted = self.members.iter().filter(|(_, member)| member.counts());
        let linked = |id: ServerId| self.linked_peers().any(|(_, peer)| peer.server == id);
        self.state == ServerState::Active
            && self.members.all_met()
            && counted.all(|(id, _)| linked(id))
    }

    fn has_few_places(&self) -> bool {
        self.archive.places_left() < self.limits().origins_max / 4
    }

    /// Whether an origin without entries can go without anybody's noticing.
    fn is_unused(&self, origin: &Origin, reference: OriginRef) -> bool {
        let mut peers = self.conns.iter().filter_map(|(_, conn)| conn.peer());
        let past = self.archive.is_past(origin);
        self.archive.is_spent(reference)
            && (past || peers.all(|peer| peer.holds(reference) == 0))
            && !self.is_in_use(reference)
    }

    /// Whether an origin with entries can be added to the past of its server.
    fn is_foldable(&self, reference: OriginRef, whole: bool, few: bool) -> bool {
        let shown = self.archive.shown(reference);
        let mut peers = self.linked_peers();
        self.archive.is_spent(reference)
            && self.holds(reference) >= shown
            && !self.is_in_use(reference)
            && if few {
                peers.all(|(_, peer)| peer.holds(reference) <= shown)
            } else {
                whole && peers.all(|(_, peer)| peer.holds(reference) == shown)
            }
    }

    /// Whether something is under way that names an origin.
    fn is_in_use(&self, reference: OriginRef) -> bool {
        let by_peer = |peer: &Peer| {
            peer.push.is_some_and(|push| push.origin == reference)
                || peer.pulls.iter().any(|(origin, ..)| *origin == reference)
                || peer.floor.origins.iter().any(|floor| floor.origin == reference)
        };
        let by_client = |attached: &Attached| {
            attached.unacknowledged.iter().any(|message| message.origin == reference)
        };
        self.waiting.count(reference) > 0
            || self.pulls.contains_key(&reference)
            || self.conns.iter().any(|(_, conn)| {
                conn.peer().is_some_and(by_peer) || conn.attached().is_some_and(by_client)
            })
    }

    /// A reference stands for nothing any more: whatever is kept by it is dropped.
    fn give_up(&mut self, now: Time, reference: OriginRef) {
        let index = reference.0 as usize;
        let clear = |vector: &mut Vec<u64>| {
            if let Some(number) = vector.get_mut(index) {
                *number = 0;
            }
        };
        for (_, conn) in self.conns.iter_mut() {
            match &mut conn.phase {
                Phase::Peer(peer) => {
                    let Peer { held, told, held_at_link, asked, announced, refs, .. } = &mut **peer;
                    [held, told, held_at_link, asked].into_iter().for_each(clear);
                    announced.iter_mut().for_each(|(_, vector)| clear(vector));
                    for theirs in refs.iter_mut().flatten() {
                        theirs.ours = theirs.ours.filter(|ours| *ours != reference);
                    }
                }
                Phase::Client(client) => {
                    let Client::Attached(attached) = &mut **client else { continue };
                    if let Feed::CatchUp { catch_up, .. } = &mut attached.feed {
                        catch_up.drop_origin(reference);
                    }
                    for backfill in &mut attached.backfills {
                        backfill.seen.retain(|(origin, _)| *origin != reference);
                        if let Some(catch_up) = &mut backfill.catch_up {
                            catch_up.drop_origin(reference);
                        }
                    }
                }
                _ => {}
            }
        }
        let storage = &mut self.storage;
        let kept = [&mut storage.held, &mut storage.synced, &mut self.stable_told];
        kept.into_iter().for_each(clear);
        self.aside.push_back((reference, now, self.log.end));
    }

    /// Lets references that were given up long ago stand for others, when places get fewer.
    fn reuse_places(&mut self, now: Time, out: &mut Outbox<Effect>) {
        while self.archive.places_left() < self.limits().origins_max / 2
            && let Some(&(reference, since, position)) = self.aside.front()
            && now.since_us(since) >= ASIDE_US
        {
            self.aside.pop_front();
            self.trim_log(position, out);
            self.archive.reuse(reference);
        }
    }

    /// Drops the log before a position.
    fn trim_log(&mut self, before: Position, out: &mut Outbox<Effect>) {
        if self.log.begin >= before {
            return;
        }
        while self.log.begin < before {
            let Some(bytes) = self.log.items.pop_front() else { break };
            self.log.bytes -= u64::from(bytes);
            self.log.begin.0 += 1;
        }
        out.push(Effect::Trim { before: self.log.begin });
    }

    /// Trims the oldest entries when origins that ended take too many places.
    fn trim_for_places(&mut self) {
        let most = self.limits().origins_max as usize / 2;
        let ended = self.archive.origins().filter(|(_, origin)| self.is_ended(origin));
        // Those without entries in memory are kept by entries that name them.
        let (mut last, mut named) = (Vec::new(), 0);
        for (reference, _) in ended {
            match self.archive.last_id(reference) {
                Some(id) => last.push(id),
                None => named += usize::from(!self.archive.is_spent(reference)),
            }
        }
        if last.len() + named > most && !last.is_empty() {
            // An eighth at a time, so that it is rare.
            let trimmed = last.len().min(most / 8 + 1);
            last.sort_unstable();
            self.archive.trim_through(last[trimmed - 1]);
        }
    }

    // Pasts.

    /// Tells a peer all pasts.
    pub(super) fn tell_all_pasts(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        let pasts: Vec<_> =
            self.archive.pasts().map(|(through, sums)| Past::told(through, sums)).collect();
        for part in pasts.chunks(PASTS_PART) {
            self.send(id, &Pasts { pasts: Seq::new(part) }, out);
        }
    }

    /// Tells all peers the pasts of some servers, which are others than before.
    fn tell_pasts(&mut self, changed: &BTreeSet<ServerId>, out: &mut Outbox<Effect>) {
        if changed.is_empty() {
            return;
        }
        let pasts = self.archive.pasts().filter(|(through, _)| changed.contains(&through.server));
        let pasts: Vec<_> = pasts.map(|(through, sums)| Past::told(through, sums)).collect();
        for part in pasts.chunks(PASTS_PART) {
            let pasts = Pasts { pasts: Seq::new(part) };
            self.for_each_told(|server, peer| server.send(peer, &pasts, out));
        }
    }

    pub(super) fn on_pasts(
        &mut self,
        id: ConnId,
        pasts: &Pasts<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        for past in pasts.pasts {
            self.outlive(past.through, out)?;
            let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) else { break };
            let (server, sums) = (past.through.server, sums_of(&past));
            if peer.pasts.len() >= PEER_PASTS_MAX && !peer.pasts.contains_key(&server) {
                return Err(Reason::Flood);
            }
            let past = PeerPast { through: past.through, sums, settled: false };
            peer.pasts.insert(server, past);
        }
        self.soon.plan_pulls = true;
        Ok(())
    }

    /// A past of our own starts includes this one: there was a later one that we do not know of.
    pub(super) fn outlive(
        &mut self,
        through: Origin,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        if through.server != self.id || through < self.origin {
            return Ok(());
        }
        self.be_born_again(through.incarnation.saturating_add(1), out);
        if through < self.origin { Ok(()) } else { Err(Reason::BadFrame) }
    }

    /// Compares the pasts of peers with what is here: those that are not yet, or all. A peer whose
    /// past adds up to what is here holds all of that. Where a peer's stays, its floor is asked for.
    pub(super) fn settle_pasts(&mut self, now: Time, all: bool, out: &mut Outbox<Effect>) {
        for id in self.peers.clone() {
            let Some(peer) = self.conns.get(id).and_then(Conn::peer) else { continue };
            let open = peer.pasts.values().filter(|past| all || !past.settled);
            for past in open.copied().collect::<Vec<_>>() {
                let order = self.archive.compare_past(past.through, past.sums);
                match order {
                    PastOrder::Equal => self.hold_past(id, past.through),
                    PastOrder::Less => {}
                    PastOrder::Greater => self.ask_floor(now, id, past.through, out),
                }
                let peer = self.conns.get_mut(id).and_then(Conn::peer_mut);
                let known = peer.and_then(|peer| peer.pasts.get_mut(&past.through.server));
                if let Some(known) = known {
                    known.settled = order != PastOrder::Greater;
                }
            }
        }
    }

    /// A peer holds all that is here of a server's starts through one of them.
    fn hold_past(&mut self, id: ConnId, through: Origin) {
        for reference in self.archive.origins_through(through) {
            let shown = self.archive.shown(reference);
            let peer = self.conns.get_mut(id).and_then(Conn::peer_mut);
            if let Some(peer) = peer.filter(|_| shown > 0)
                && super::conn::raise(&mut peer.held, reference, shown)
            {
                self.soon.acknowledge = true;
            }
        }
    }

    fn ask_floor(&mut self, now: Time, id: ConnId, origin: Origin, out: &mut Outbox<Effect>) {
        if self.floor_asked.is_none_or(|asked| now.since_us(asked) >= FLOOR_AGAIN_US) {
            self.floor_asked = Some(now);
            self.send(id, &Pull { origin, from: 1, to: 1 }, out);
        }
    }

    /// Whether everything that stands together at the peers stands, in whatever form, here.
    pub(super) fn pasts_are_settled(&self) -> bool {
        self.linked_peers().all(|(_, peer)| peer.pasts.values().all(|past| past.settled))
    }

    /// A floor with pasts was adopted: what was here alone is said again, and whatever named
    /// origins that belong to a past now goes on without them.
    pub(super) fn after_adopting_pasts(
        &mut self,
        now: Time,
        orphans: &[Vec<u8>],
        out: &mut Outbox<Effect>,
    ) {
        for (reference, origin) in self.archive.origins().collect::<Vec<_>>() {
            if self.archive.is_past(&origin) {
                self.waiting.drop_through(reference, u64::MAX);
                self.pulls.remove(&reference);
            }
        }
        for orphan in orphans {
            if let Ok(entry) = Portable::take(&mut Reader::new(orphan)) {
                self.take_in_again(now, &entry, out);
            }
        }
        let archive = &self.archive;
        for (_, conn) in self.conns.iter_mut() {
            let Some(attached) = conn.attached_mut() else { continue };
            let author = attached.author;
            for message in &mut attached.unacknowledged {
                if !archive.is_past(&archive.origin(message.origin)) {
                    continue;
                }
                // What was trimmed is as safe as it gets.
                let row = archive.row(&author, message.author_number);
                (message.origin, message.number, message.index) = row
                    .map_or((self.own, 0, 0), |row| {
                        (archive.origin_of(row), archive.number_of(row), archive.index(row))
                    });
            }
        }
        self.soon.acknowledge = true;
        let all = self.archive.pasts().map(|(through, _)| through.server).collect();
        self.tell_pasts(&all, out);
    }
}

/// What a past adds up to, as a peer tells it.
pub(super) fn sums_of(past: &peer::Past) -> Sums {
    Sums { vector: past.vector.0, digest: u128::from_be_bytes(past.digest.0) }
}
