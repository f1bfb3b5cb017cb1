//! Links: one connection to each other server, and what is told on it before it stands.
//!
//! ```text
//! dial ─▶ Hello ─▶ Welcome ─▶ PeerHello ⇄ PeerHello ─▶ pasts, vectors, roster, rooms, members ─▶ Linked
//! ```
//!
//! Both may dial. Of two connections the one that the lesser id dialled stays. So while its dial
//! is under way, no link is made of the other's: what is sent on it would be sent twice. Nor is a
//! link made while what the peer wrote is on its way from others, for the peer would push that, too.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::conn::{Conn, Peer, Phase, Push, Stage, raise};
use super::roster;
use super::{ChatServer, DialId, Effect, Founding, KeyByFounding, Source};
use crate::framing::Frame;
use crate::hash::ClusterKey;
use crate::ids::{ConnId, Origin, OriginRef, ServerId, Tag};
use crate::outbox::Outbox;
use crate::time::{MILLI_US, Time};
use crate::wire::chat::MemberState;
use crate::wire::entry::{Entry, OriginDef};
use crate::wire::hello::{Bye, Hello, Magic, Ping, Pong, Role, Transport, Welcome};
use crate::wire::peer::{
    Beat, Claim, Floor, FloorAuthors, FloorPast, Have, Linked, MemberRecord, Members, Pasts,
    PeerHello, PeerVector, Pull, Reserve, Room, ServerState, Session, Vote,
};
use crate::wire::{Fixed64, Message, Reason, Seq, VERSION_MAJOR, VERSION_MINOR};

/// Pairs in one part of a vector: 45 bytes each at the most.
const VECTOR_PART: usize = 1_024;
/// For how long a connection waits for one that would take its place, or for what others send of
/// what its peer wrote.
const DOUBLE_US_MAX: u64 = 500 * MILLI_US;
/// Keys of earlier foundings that are remembered.
const OLD_KEYS_MAX: usize = 16;

impl ChatServer {
    /// Takes the connection of a dial; `None` when it is not wanted any more.
    pub fn dialled(&mut self, now: Time, dial: DialId, out: &mut Outbox<Effect>) -> Option<ConnId> {
        self.clock_now(now);
        if !self.members.is_dialling(dial) || self.state == ServerState::Draining {
            return None;
        }
        let source = Source { address: 0, loopback: true };
        let id = self.conns.insert(Conn::new(now, source, Phase::Dialled(dial), u32::MAX));
        let cluster = self.config.cluster.clone();
        let hello = Hello {
            magic: Magic,
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            role: Role::Peer,
            transport: Transport::Plain,
            key_id: Fixed64(0),
            cluster: &cluster,
        };
        self.send(id, &hello, out);
        Some(id)
    }

    pub(super) fn on_welcome(
        &mut self,
        id: ConnId,
        frame: Frame<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let Some(Phase::Dialled(dial)) = self.conns.get(id).map(|conn| &conn.phase) else {
            return Err(Reason::Unexpected);
        };
        let dial = *dial;
        match frame.kind {
            Welcome::KIND => {
                let welcome = Welcome::parse(frame.payload)?;
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.phase = Phase::Peer(Box::new(Peer::new(Some(dial))));
                }
                self.introduce(id, welcome.origin, out);
                Ok(())
            }
            Bye::KIND => Err(Bye::parse(frame.payload)?.reason),
            _ => Err(Reason::Unexpected),
        }
    }

    /// Introduces this server to a peer, whose present start is `listener`.
    fn introduce(&mut self, id: ConnId, listener: Origin, out: &mut Outbox<Effect>) {
        let past = self.archive.past_through(listener.server).filter(|past| *past != listener);
        let past = past.map_or(0, |past| past.incarnation);
        let known_incarnation = self.members.earlier_incarnation(listener).max(past);
        let members = self.member_records();
        let records: Vec<MemberRecord<'_>> = members.iter().map(OwnedMember::wire).collect();
        let address = self.config.advertise.clone();
        let hello = PeerHello {
            server: self.id,
            origin: self.origin,
            address: &address,
            cluster_id: self.cluster.id,
            founded: self.cluster.founded,
            key: self.cluster.key.0,
            clock: self.clock.announce(self.now),
            final_clock: self.final_clock,
            known_incarnation,
            state: self.state,
            members: Seq::new(&records),
        };
        self.send(id, &hello, out);
    }

    fn member_records(&self) -> Vec<OwnedMember> {
        self.members
            .iter()
            .map(|(server, member)| OwnedMember {
                server,
                address: member.address.clone(),
                origin: member.origin,
                state: self.member_state(server),
                version: member.version,
            })
            .collect()
    }

    pub(super) fn on_peer_frame(
        &mut self,
        now: Time,
        id: ConnId,
        frame: Frame<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let Some(peer) = self.conns.get(id).and_then(|conn| conn.peer()) else {
            return Err(Reason::Unexpected);
        };
        let (server, stage) = (peer.server, peer.stage);
        let payload = frame.payload;
        match (frame.kind, stage) {
            (PeerHello::KIND, Stage::Greeting) => {
                return self.on_peer_hello(now, id, &PeerHello::parse(payload)?, out);
            }
            // Its cluster met one that was founded before.
            (PeerHello::KIND, _) => {
                self.found(&PeerHello::parse(payload)?, out);
                return Ok(());
            }
            (Bye::KIND, _) => {
                let bye = Bye::parse(payload)?;
                out.push(Effect::Close { conn: id, reason: bye.reason });
                self.lost(id, out);
                return Ok(());
            }
            (_, Stage::Greeting) => return Err(Reason::Unexpected),
            _ => {}
        }
        if let Some(member) = self.members.get_mut(server) {
            member.heard = now;
        }
        match frame.kind {
            Entry::KIND => self.on_peer_entry(now, id, &Entry::parse(payload)?, out),
            OriginDef::KIND => self.on_origin_def(id, &OriginDef::parse(payload)?),
            Have::KIND => self.on_have(id, &Have::parse(payload)?, out),
            Beat::KIND => self.on_beat(now, id, &Beat::parse(payload)?),
            PeerVector::KIND => self.on_peer_vector(id, &PeerVector::parse(payload)?, out),
            Linked::KIND => self.on_linked(now, id, out),
            Pull::KIND => self.on_pull(id, &Pull::parse(payload)?, out),
            Floor::KIND => self.on_floor(now, id, &Floor::parse(payload)?, out),
            FloorPast::KIND => self.on_floor_past(now, id, &FloorPast::parse(payload)?, out),
            Pasts::KIND => self.on_pasts(id, &Pasts::parse(payload)?, out),
            FloorAuthors::KIND => self.on_floor_authors(id, &FloorAuthors::parse(payload)?, out),
            Claim::KIND => self.on_claim(now, id, &Claim::parse(payload)?, out),
            Vote::KIND => {
                self.on_vote(now, server, &Vote::parse(payload)?, out);
                Ok(())
            }
            Session::KIND => self.on_session(now, id, &Session::parse(payload)?, out),
            Room::KIND => self.on_room(id, &Room::parse(payload)?, out),
            Reserve::KIND => {
                self.on_reserve(now, &Reserve::parse(payload)?);
                Ok(())
            }
            Members::KIND => {
                let members = Members::parse(payload)?;
                self.on_members(now, members.members, out);
                Ok(())
            }
            Ping::KIND => {
                let ping = Ping::parse(payload)?;
                self.send(id, &Pong { nonce: ping.nonce }, out);
                Ok(())
            }
            // A kind of a newer minor version.
            _ => Ok(()),
        }
    }

    /// Keeps a place, if there is one: what the sender last heard of our load may be old. A newcomer
    /// that comes without one is treated as any other.
    fn on_reserve(&mut self, now: Time, reserve: &Reserve) {
        if self.load() < self.limits().users_max {
            let until = now + self.limits().reservation_us;
            self.reservations.insert(reserve.reservation.0, until);
        }
    }

    fn on_peer_hello(
        &mut self,
        now: Time,
        id: ConnId,
        hello: &PeerHello<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        if hello.server == self.id || hello.origin.server != hello.server {
            // Ourselves under another address, or one that claims to be us.
            self.end_dial(now, id, Some(hello.server));
            return Err(Reason::SameServer);
        }
        if self.clock.is_absurd(now, hello.clock) {
            return Err(Reason::ClockAhead);
        }
        let forgotten = self.members.get(hello.server).is_some_and(|member| {
            member.state == MemberState::Forgotten && member.origin == hello.origin
        });
        if forgotten {
            return Err(Reason::Forgotten);
        }
        self.settle_double(now, id, hello, out)?;
        self.end_dial(now, id, Some(hello.server));
        self.found(hello, out);
        self.clock.observe(now, hello.clock);
        // What others called final stays final: nothing is stamped below it here.
        self.clock.raise(hello.final_clock.min(hello.clock));
        if self.conns.get(id).and_then(Conn::peer).is_some_and(|peer| !peer.dialled_here) {
            self.introduce(id, hello.origin, out);
        }
        if self.know_member(now, hello) {
            // Before anything that it wrote: others take in what members write, and no more.
            self.tell_members(out);
        }
        self.on_members(now, hello.members, out);
        // Another start of this server is known that is as late as this one or later.
        if hello.known_incarnation >= self.origin.incarnation {
            self.be_born_again(hello.known_incarnation.saturating_add(1), out);
        }
        self.links.insert(hello.server, id);
        if let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) {
            peer.server = hello.server;
            peer.origin = hello.origin;
            peer.address = hello.address.to_string();
            peer.state = hello.state;
            peer.stage = Stage::Syncing;
        }
        self.tell_everything(id, out);
        self.go_on_linking(now, id, out);
        Ok(())
    }

    fn end_dial(&mut self, now: Time, id: ConnId, server: Option<ServerId>) {
        let dial =
            self.conns.get_mut(id).and_then(Conn::peer_mut).and_then(|peer| peer.dial.take());
        if let Some(dial) = dial {
            self.members.dial_ended(dial, server, now, &mut self.prng);
        }
    }

    /// There may be a link to that server already. Decides which connection stays.
    fn settle_double(
        &mut self,
        now: Time,
        id: ConnId,
        hello: &PeerHello<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let Some(&other) = self.links.get(&hello.server) else { return Ok(()) };
        let Some(conn) = self.conns.get(other) else { return Ok(()) };
        let Some(peer) = conn.peer() else { return Ok(()) };
        let silent = now.since_us(conn.heard) > 2 * self.limits().beat_us;
        // It took a new origin while it introduced itself on both connections.
        let was_born_again =
            !peer.is_linked() && hello.origin > peer.origin && hello.address == peer.address;
        if peer.origin != hello.origin && !was_born_again {
            // It started anew, or somebody else goes by its id. While the other one is heard,
            // it is the one that stays.
            if !silent {
                return Err(Reason::SameServer);
            }
            self.close(other, Reason::SameServer, out);
            return Ok(());
        }
        let new_is_ours = self.conns.get(id).and_then(Conn::peer).is_some_and(|p| p.dialled_here);
        let lesser_dialled_new = new_is_ours == (self.id < hello.server);
        if peer.dialled_here == new_is_ours || lesser_dialled_new {
            self.close(other, Reason::Redundant, out);
            Ok(())
        } else {
            Err(Reason::Redundant)
        }
    }

    /// Where two clusters meet, the one founded first stays. Who is linked already is told.
    fn found(&mut self, hello: &PeerHello<'_>, out: &mut Outbox<Effect>) {
        let key = KeyByFounding(hello.key);
        let other = Founding { founded: hello.founded, id: hello.cluster_id, key };
        if other == self.cluster {
            return;
        }
        if other > self.cluster {
            // A server that joins has accepted nothing yet: its key was never used.
            if hello.state != ServerState::Joining {
                self.remember_key(other.key.0);
            }
            return;
        }
        let ours = core::mem::replace(&mut self.cluster, other);
        if self.state != ServerState::Joining {
            self.remember_key(ours.key.0);
        }
        self.welcome_clients_again(out);
        let links: Vec<ConnId> = self.links.values().copied().collect();
        for link in links {
            if let Some(origin) = self.conns.get(link).and_then(Conn::peer).map(|p| p.origin) {
                self.introduce(link, origin, out);
            }
        }
    }

    /// Keeps a key for entries that were tagged with it.
    fn remember_key(&mut self, key: ClusterKey) {
        if key == self.cluster.key.0 || self.old_keys.contains(&key) {
            return;
        }
        if self.old_keys.len() == OLD_KEYS_MAX {
            self.old_keys.remove(0);
        }
        self.old_keys.push(key);
    }

    /// Takes in what a member says of itself. Returns whether it was not known before.
    fn know_member(&mut self, now: Time, hello: &PeerHello<'_>) -> bool {
        let is_new = self.members.get(hello.server).is_none();
        if !self.members.meet(hello.server, hello.address, now) {
            return false;
        }
        if let Some(member) = self.members.get_mut(hello.server) {
            member.address = hello.address.to_string();
            member.started(hello.origin);
            member.heard = now;
            member.state = MemberState::Linked;
        }
        self.members.seek(hello.address, now);
        is_new
    }

    /// Others know a later start of this server than this one says it is: it takes a new origin.
    pub(super) fn be_born_again(&mut self, incarnation: u32, out: &mut Outbox<Effect>) {
        let nonce = self.prng.next_u64() ^ self.origin.nonce;
        let origin = Origin { server: self.id, incarnation, nonce };
        if let Some(own) = self.define_origin(origin, out) {
            self.origin = origin;
            self.own = own;
        }
    }

    /// Tells a new peer what is here: members that were met since the introduction, origins (only
    /// those of members are taken in), vector, roster, rooms.
    fn tell_everything(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        self.send_members(id, out);
        self.send_origins(id, out);
        self.tell_all_pasts(id, out);
        let held: Vec<(Origin, u64, Tag)> = self
            .archive
            .origins()
            .map(|(o, origin)| {
                (origin, self.holds(o).min(self.archive.shown(o)), self.archive.rolling(o))
            })
            .filter(|(_, number, _)| *number > 0)
            .collect();
        let parts = held.len().div_ceil(VECTOR_PART).max(1);
        for part in 0..parts {
            let end = held.len().min((part + 1) * VECTOR_PART);
            let held = Seq::new(&held[part * VECTOR_PART..end]);
            self.send(id, &PeerVector { more: part + 1 < parts, held }, out);
        }
        let references = (0..self.archive.references_end()).map(OriginRef);
        let told: Vec<u64> = references.map(|reference| self.holds(reference)).collect();
        if let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) {
            peer.told = told;
        }
        let records: Vec<_> =
            self.roster.iter().map(|(session, record)| (session, record.clone())).collect();
        for (session, record) in records {
            roster::with_wire(session, &record, |wire| self.send(id, wire, out));
        }
        let rooms: Vec<_> =
            self.rooms.iter().map(|(name, room)| (name.to_string(), room.clone())).collect();
        for (name, room) in rooms {
            self.send_room_record(id, &name, &room, out);
        }
    }

    fn on_peer_vector(
        &mut self,
        id: ConnId,
        vector: &PeerVector<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        for (origin, number, _) in vector.held {
            if origin == self.origin && number > self.archive.shown(self.own) {
                // Nobody can hold what was never written.
                return Err(Reason::BadFrame);
            }
            if number == 0 || self.archive.is_past(&origin) {
                continue;
            }
            let Some(origin) = self.define_heard(origin, out)? else { continue };
            if let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) {
                raise(&mut peer.held, origin, number);
            }
        }
        Ok(())
    }

    /// The peer has told everything.
    fn on_linked(&mut self, now: Time, id: ConnId, out: &mut Outbox<Effect>) -> Result<(), Reason> {
        let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) else { return Ok(()) };
        if peer.stage != Stage::Syncing || core::mem::replace(&mut peer.heard_all, true) {
            return Err(Reason::Unexpected);
        }
        self.go_on_linking(now, id, out);
        Ok(())
    }

    /// Links that are being made and had to wait.
    pub(super) fn go_on_linking_all(&mut self, now: Time, out: &mut Outbox<Effect>) {
        self.for_each_told(|server, peer| server.go_on_linking(now, peer, out));
    }

    /// Says that everything was told, and makes a link once the peer has said so, too; unless
    /// something would then be sent twice, and is settled soon.
    fn go_on_linking(&mut self, now: Time, id: ConnId, out: &mut Outbox<Effect>) {
        let Some(conn) = self.conns.get(id) else { return };
        let Some(peer) = conn.peer().filter(|peer| peer.stage == Stage::Syncing) else { return };
        let is_new = now.since_us(conn.opened) < DOUBLE_US_MAX;
        let is_fetching = || !peer.told_all && self.is_fetching(now, peer.origin);
        if is_new && (self.may_be_double(peer) || is_fetching()) {
            return;
        }
        let (told, heard) = (peer.told_all, peer.heard_all);
        if !told {
            // What came from others since the vector was told is not to be pushed.
            self.tell_held_to(id, true, out);
            self.send(id, &Linked { reserved: 0 }, out);
        }
        if let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) {
            peer.told_all = true;
        }
        if heard {
            self.link(id, out);
        }
    }

    /// Whether another connection is about to take the place of this one.
    fn may_be_double(&self, peer: &Peer) -> bool {
        !peer.dialled_here
            && self.id < peer.server
            && self.members.is_dialled(peer.server, &peer.address)
    }

    /// The link stands, and our own log flows to it.
    fn link(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        let own = self.own;
        let last = self.archive.shown(own);
        let position = self.here();
        let now = self.now;
        let Some(peer) = self.conns.get_mut(id).and_then(Conn::peer_mut) else { return };
        peer.stage = Stage::Linked;
        peer.held_at_link = peer.held.clone();
        let next = if planted!(PushAll) { 1 } else { peer.holds(own) + 1 };
        peer.push = Some(Push { origin: own, next, last, position });
        self.peers.push(id);
        self.stats.linked += 1;
        self.soon.plan_pulls = true;
        self.soon.acknowledge = true;
        self.soon.attach = true;
        self.feed_peer(id, out);
        self.beat_to(now, id, out);
        self.tell_servers(out);
    }

    /// Tells all clients which servers there are now.
    pub(super) fn tell_servers(&mut self, out: &mut Outbox<Effect>) {
        let clients: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| matches!(conn.phase, Phase::Client(_)))
            .map(|(id, _)| id)
            .collect();
        for id in clients {
            self.send_servers(id, out);
        }
    }

    /// A peer's connection is no more.
    pub(super) fn peer_lost(&mut self, id: ConnId, peer: Peer, out: &mut Outbox<Effect>) {
        let now = self.now;
        if let Some(dial) = peer.dial {
            self.members.dial_ended(dial, None, now, &mut self.prng);
        }
        if self.links.get(&peer.server) != Some(&id) {
            return;
        }
        self.links.remove(&peer.server);
        self.peers.retain(|other| *other != id);
        self.members.redial(peer.server, now);
        self.voter_lost(now, peer.server, out);
        self.pulls.retain(|_, asked| asked.from != id);
        self.soon.plan_pulls = true;
        self.soon.acknowledge = true;
        self.soon.attach = true;
        self.tell_servers(out);
    }

    // Members.

    pub(super) fn on_members<'a>(
        &mut self,
        now: Time,
        members: Seq<'a, MemberRecord<'a>>,
        out: &mut Outbox<Effect>,
    ) {
        let mut changed = false;
        for record in members {
            if record.server == self.id || record.version > roster::VERSION_MAX {
                continue;
            }
            if self.members.add(record.server, record.address, now) {
                self.members.seek(record.address, now);
                changed = true;
            }
            let linked = self.links.contains_key(&record.server);
            let Some(member) = self.members.get_mut(record.server) else { continue };
            let newer = (record.origin, record.version) > (member.origin, member.version);
            if record.origin.server == record.server {
                member.started(record.origin);
            }
            let stated = matches!(record.state, MemberState::Left | MemberState::Forgotten);
            if newer && stated && (!linked || record.state == MemberState::Left) {
                member.state = record.state;
                member.version = record.version;
                changed = true;
            } else if newer && !stated && !member.counts() {
                member.state = MemberState::Lost;
                member.version = record.version;
                changed = true;
            }
        }
        if changed {
            self.tell_members(out);
            self.soon.plan_pulls = true;
        }
    }

    /// Tells all peers how members stand.
    pub(super) fn tell_members(&mut self, out: &mut Outbox<Effect>) {
        self.for_each_told(|server, peer| server.send_members(peer, out));
        self.tell_servers(out);
    }

    fn send_members(&mut self, peer: ConnId, out: &mut Outbox<Effect>) {
        let members = self.member_records();
        let records: Vec<MemberRecord<'_>> = members.iter().map(OwnedMember::wire).collect();
        self.send(peer, &Members { members: Seq::new(&records) }, out);
    }

    /// An operator says that a member will not return.
    pub(super) fn forget(
        &mut self,
        now: Time,
        address: &str,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        if address == self.config.advertise {
            return Err(Reason::MemberItself);
        }
        let server = self.members.by_address(address).ok_or(Reason::MemberUnknown)?;
        if self.is_alive(server) {
            return Err(Reason::MemberAlive);
        }
        let Some(member) = self.members.get_mut(server) else { return Err(Reason::MemberUnknown) };
        member.state = MemberState::Forgotten;
        member.version += 1;
        member.heard = member.heard.min(now);
        self.tell_members(out);
        self.show_waiting(out);
        Ok(())
    }

    /// Whether a server is there: linked, or heard by one that is.
    pub(super) fn is_alive(&self, server: ServerId) -> bool {
        self.member_state(server) == MemberState::Linked
    }

    pub(super) fn member_state(&self, server: ServerId) -> MemberState {
        let Some(member) = self.members.get(server) else { return MemberState::Lost };
        if !member.counts() {
            return member.state;
        }
        let linked = self
            .links
            .get(&server)
            .and_then(|conn| self.conns.get(*conn)?.peer())
            .is_some_and(Peer::is_linked);
        let silence = self.limits().beat_us * u64::from(self.limits().beats_missed_max);
        let heard = || {
            self.linked_peers().any(|(_, peer)| {
                let heard = |(id, at): &(ServerId, Time)| {
                    *id == server && self.now.since_us(*at) <= silence
                };
                peer.hears.iter().any(heard)
            })
        };
        if linked || heard() { MemberState::Linked } else { MemberState::Lost }
    }
}

/// A member's record with its address.
struct OwnedMember {
    server: ServerId,
    address: String,
    origin: Origin,
    state: MemberState,
    version: u64,
}

impl OwnedMember {
    fn wire(&self) -> MemberRecord<'_> {
        let OwnedMember { server, ref address, origin, state, version } = *self;
        MemberRecord { server, address, origin, state, version }
    }
}
