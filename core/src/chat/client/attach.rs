//! From an open connection to an attached session.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use super::api::{Effect, Event, LinkId};
use super::link::{Link, Phase};
use super::outgoing::Agreement;
use super::requests::Ask;
use super::rooms::{Partial, Standing};
use super::seen::{OriginIndex, Seen};
use super::store::Place;
use super::tell::tell;
use super::{ChatClient, Role, Stage};
use crate::framing::put_frame;
use crate::ids::{Origin, OriginRef};
use crate::outbox::Outbox;
use crate::time::{MILLI_US, Time};
use crate::wire::chat::{self, Attached, Failed, Intent, Redirect, Want};
use crate::wire::entry::AFTER_PAIRS_MAX;
use crate::wire::hello::{Hello, Magic, Role as HelloRole, Transport, Welcome};
use crate::wire::{Fixed64, Message, Reason, Seq, VERSION_MAJOR, VERSION_MINOR};

/// Entries on their way back to a server that lacks them.
#[derive(Debug)]
pub(super) struct HandBack {
    /// In canonical order.
    places: Vec<Place>,
    next: usize,
    /// How many were sent.
    count: u64,
}

impl ChatClient {
    pub(super) fn on_opened(&mut self, now: Time, role: Role, out: &mut Outbox<Effect>) {
        let deadline = now + self.config.limits.open_us_max;
        let cluster = self.config.cluster.clone();
        let Some(link) = self.link_mut(role) else { return };
        link.phase = Phase::Greeting;
        link.deadline = Some(deadline);
        let hello = Hello {
            magic: Magic,
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            role: HelloRole::Client,
            transport: Transport::Plain,
            key_id: Fixed64(0),
            cluster: &cluster,
        };
        link.send(&hello, out);
    }

    pub(super) fn on_welcome(
        &mut self,
        now: Time,
        role: Role,
        welcome: &Welcome<'_>,
        out: &mut Outbox<Effect>,
    ) {
        let ping_us = match u64::from(welcome.ping_ms) * MILLI_US {
            0 => self.config.limits.ping_us,
            given => given.clamp(PING_US_MIN, PING_US_MAX),
        };
        if !self.define(now, role, OriginRef(0), welcome.origin, out) {
            return;
        }
        let Some(link) = self.link_mut(role) else { return };
        link.phase = Phase::Ready;
        link.deadline = None;
        link.server = Some(welcome.server);
        link.cluster = Some(welcome.cluster_id);
        link.body_bytes_max = welcome.body_bytes_max;
        if super::split_address(welcome.address).is_some() {
            link.address = welcome.address.into();
        }
        link.pulse.start(now, ping_us);
        let dialled = link.dialled.clone();
        self.ring.learn(&dialled, welcome.server);
        match role {
            Role::Primary => self.on_ready(now, out),
            Role::Candidate => self.on_candidate_ready(now, out),
            Role::Standby => {}
        }
    }

    /// A server's reference stands for `origin`. Returns whether it could be taken in; if not, the
    /// connection is gone.
    pub(super) fn define(
        &mut self,
        now: Time,
        role: Role,
        reference: OriginRef,
        origin: Origin,
        out: &mut Outbox<Effect>,
    ) -> bool {
        let origins_max = self.config.limits.origins_max;
        let mut index = self.seen.intern(origin, origins_max);
        if index.is_none() {
            self.forget_old_origins();
            index = self.seen.intern(origin, origins_max);
        }
        let Some(index) = index else {
            self.start_over(now, out);
            return false;
        };
        let Some(link) = self.link_mut(role) else { return false };
        if !link.define(reference, index, origins_max) {
            self.fail(now, role, Reason::BadFrame, out);
            return false;
        }
        true
    }

    /// Makes place for origins: those that no server names and of which nothing is kept can go.
    fn forget_old_origins(&mut self) {
        let named = self.links().flat_map(Link::origins);
        let in_use: BTreeSet<OriginIndex> = named.chain(self.store.origins()).collect();
        let origins_max = self.config.limits.origins_max;
        let forgotten = self.seen.forget_oldest(origins_max, |index| in_use.contains(&index));
        for index in forgotten {
            self.rooms.cut(index, 0);
        }
    }

    /// There are too many origins at once: everything is received anew.
    fn start_over(&mut self, now: Time, out: &mut Outbox<Effect>) {
        self.close(Role::Standby, out);
        self.close(Role::Candidate, out);
        self.receive_anew();
        self.seen = Seen::default();
        self.reconnect(now, out);
    }

    /// The primary is welcome: attaches, unless the application must choose a name first.
    pub(super) fn on_ready(&mut self, now: Time, out: &mut Outbox<Effect>) {
        if self.me.name.is_empty() {
            return;
        }
        let cluster = self.primary.as_ref().and_then(|link| link.cluster);
        if self.me.cluster != cluster && self.me.offers >= OFFERS_MAX {
            // Over this link it takes longer than the servers wait for it.
            self.lose_archive();
        }
        let fresh = self.me.intent != Intent::Resume;
        for (_, room) in self.rooms.iter_mut() {
            if fresh {
                room.partial = None;
            } else if room.standing == Standing::Joining && room.partial.is_none() {
                room.partial = Some(Partial::default());
            }
            if let Some(partial) = &mut room.partial {
                partial.attached = true;
            }
        }
        self.me.attachment = self.me.attachment.saturating_add(1);
        let deadline = now + self.config.limits.attach_us_max;
        if let Some(link) = &mut self.primary {
            link.phase = Phase::Attaching;
            link.deadline = Some(deadline);
            link.intent = self.me.intent;
        }
        self.send_attach(out);
    }

    fn send_attach(&mut self, out: &mut Outbox<Effect>) {
        let rooms: Vec<&str> = self.rooms.iter().map(|(name, _)| name.as_str()).collect();
        let seen = self.seen.in_full(self.seen.base(), SEEN_PAIRS_MAX);
        let mut left = PARTIAL_PAIRS_MAX;
        let mut vectors: Vec<(&str, Vec<(Origin, u64)>)> = Vec::new();
        for (name, room) in self.rooms.iter() {
            if let Some(partial) = &room.partial {
                let vector = self.seen.in_full(&partial.seen, left);
                left -= vector.len();
                vectors.push((name, vector));
            }
        }
        let partial: Vec<chat::Partial<'_>> = vectors
            .iter()
            .map(|(room, seen)| chat::Partial { room, seen: Seq::new(seen) })
            .collect();
        let attach = chat::Attach {
            secret: self.config.secret,
            process: Fixed64(self.me.process),
            attachment: self.me.attachment,
            intent: self.me.intent,
            name: &self.me.name,
            reservation: Fixed64(self.way.reservation),
            hops: self.way.hops,
            author_number: self.outgoing.last(),
            rooms: Seq::new(&rooms),
            seen: Seq::new(&seen),
            partial: Seq::new(&partial),
        };
        if let Some(link) = &mut self.primary {
            link.send(&attach, out);
        }
    }

    pub(super) fn on_attached(
        &mut self,
        now: Time,
        attached: &Attached<'_>,
        out: &mut Outbox<Effect>,
    ) {
        let Some(link) = &mut self.primary else { return };
        link.phase = Phase::Attached;
        link.deadline = None;
        self.body_bytes_max = link.body_bytes_max;
        let (asked, server) = (link.intent, link.address.clone());
        let before = core::mem::replace(&mut self.me.cluster, link.cluster);
        let is_another = before.is_some() && before != self.me.cluster;
        self.me.offers = 0;
        if asked == Intent::Resume {
            self.way.moved = Some(now);
        }
        if asked == Intent::Resume && attached.intent != Intent::Resume {
            self.lose_archive();
        } else if asked == Intent::Resume && is_another && self.lacks_what_was_seen(attached) {
            // It was handed back, as far as the server could verify it. The rest is gone.
            self.lose_archive();
            return self.reconnect(now, out);
        }
        // Whoever forgot it all is not told what the server lacks, but sees that it is less.
        let had = core::mem::take(&mut self.me.had);
        if is_another && attached.ma < had {
            self.me.lost = Some(had);
        }
        self.me.session = attached.session;
        for (origin, number) in attached.cut {
            if let Some(index) = self.seen.find(&origin) {
                self.seen.cut(index, number);
                self.rooms.cut(index, number);
            }
        }
        if self.outgoing.attach(attached.author_number) == Agreement::Broken {
            return self.become_another_author(now, out);
        }
        self.me.intent = Intent::Resume;
        (self.way.hops, self.way.reservation) = (0, 0);
        self.seen.tell_again(SEEN_PAIRS_MAX);
        let before = core::mem::replace(&mut self.me.name, attached.name.into());
        self.me.name_tries = 0;
        let left = self.take_rooms(attached.rooms);
        if self.way.announced.as_deref() != Some(server.as_str()) {
            self.tell_connected(&server, out);
            self.way.announced = Some(server);
        }
        if let Some(held) = self.me.lost.take() {
            tell(out, Event::Reset { held });
        }
        if self.stage == Stage::Arrived && before != self.me.name {
            self.tell_own_name(&before, Some(Reason::NameLost), out);
        }
        for room in left {
            self.leave_room(&room, 0, out);
        }
        self.settle_rooms(out);
        self.resending = true;
        self.resend_when_told(out);
        self.tend_standby(now, out);
    }

    /// Whether a cluster that was met first now has less than what was seen: not one that another
    /// was merged into, but one that was founded anew.
    fn lacks_what_was_seen(&self, attached: &Attached<'_>) -> bool {
        // Of a room that is being received the server does not say what it lacks.
        !attached.cut.is_empty() || self.rooms.iter().any(|(_, room)| room.partial.is_some())
    }

    /// What was received is in no archive any more. The application is told once attached.
    fn lose_archive(&mut self) {
        let held = self.held();
        self.receive_anew();
        if held > 0 {
            self.me.lost = Some(held);
        }
    }

    /// Own messages cannot go on by their numbers: what is not acknowledged is said anew.
    fn become_another_author(&mut self, now: Time, out: &mut Outbox<Effect>) {
        self.me.process = self.prng.next_u64();
        self.me.forgotten = 0;
        self.outgoing.number_anew();
        self.reconnect(now, out);
    }

    /// Takes in the rooms that the session is in now. Returns those that it is not in any more.
    fn take_rooms(&mut self, rooms: Seq<'_, &str>) -> Vec<String> {
        let own_rooms_max = self.config.limits.own_rooms_max as usize;
        for room in rooms {
            if self.rooms.get(room).is_some() || self.rooms.len() < own_rooms_max {
                let room = self.rooms.insert(room, Standing::In);
                if room.standing == Standing::Joining {
                    room.standing = Standing::In;
                }
            }
        }
        let gone = self.rooms.iter().filter(|(name, room)| {
            room.standing == Standing::In && !rooms.iter().any(|in_now| in_now == name.as_str())
        });
        gone.map(|(name, _)| name.clone()).collect()
    }

    /// Answers the requests that the attachment itself granted.
    fn settle_rooms(&mut self, out: &mut Outbox<Effect>) {
        let rooms = &self.rooms;
        let granted = |ask: &Ask| match ask {
            Ask::Join(room) => rooms.get(room).is_some_and(|room| room.standing == Standing::In),
            _ => false,
        };
        let mut joined = Vec::new();
        while let Some(id) = self.requests.find(granted) {
            joined.extend(self.requests.remove(id));
        }
        for request in joined {
            if let Ask::Join(room) = &request.ask {
                self.tell_joined(room, request.reference, out);
            }
        }
    }

    /// Sends what is outstanding as soon as it can be said what it comes after. A server that has
    /// what the client has seen, defines those origins right after it has attached the session.
    pub(super) fn resend_when_told(&mut self, out: &mut Outbox<Effect>) {
        let Some(link) = self.primary.as_ref().filter(|_| self.resending) else { return };
        if self.caught_up || self.seen.can_tell(|origin| link.reference(origin).is_some()) {
            self.resending = false;
            self.send_outstanding(out);
        }
    }

    /// Sends what was said and asked and is not answered, in the order in which it was wanted.
    fn send_outstanding(&mut self, out: &mut Outbox<Effect>) {
        let mut from = 0;
        loop {
            match (self.requests.next(from), self.outgoing.unsent()) {
                (None, None) => return,
                (Some(id), Some(own)) if own.order < id => self.send_say(out),
                (None, Some(_)) => self.send_say(out),
                (Some(id), _) => {
                    self.send_request(id, out);
                    from = id + 1;
                }
            }
        }
    }

    /// Sends a request, unless it must wait for the answer to another.
    pub(super) fn send_request(&mut self, id: u64, out: &mut Outbox<Effect>) {
        if let (Some(request), Some(link)) = (self.requests.sendable(id), &mut self.primary) {
            request.send(id, self.me.session, link, out);
        }
    }

    /// Sends the next message.
    pub(super) fn send_say(&mut self, out: &mut Outbox<Effect>) {
        let (Some(own), Some(link)) = (self.outgoing.unsent(), &mut self.primary) else { return };
        let pairs_max = if self.outgoing.was_there(own.number) { 0 } else { AFTER_PAIRS_MAX };
        let after = self.seen.take_untold(pairs_max, |origin| link.reference(origin));
        let scope = own.to.scope(self.me.session);
        let after = Seq::new(&after);
        link.send(&chat::Say { number: own.number, scope, after, body: &own.body }, out);
        self.outgoing.mark_sent();
    }

    /// The name is refused, or the attachment fails otherwise.
    pub(super) fn on_attach_failed(
        &mut self,
        now: Time,
        failed: &Failed<'_>,
        out: &mut Outbox<Effect>,
    ) {
        let reason = failed.reason;
        if !matches!(reason, Reason::NameTaken | Reason::NameInvalid) {
            // An entry handed back that the server does not want is no reason to go.
            if self.hand_back.is_none() && reason != Reason::BadTag {
                self.tell_error(0, reason, failed.detail, out);
                self.fail(now, Role::Primary, reason, out);
            }
            return;
        }
        if let Some(link) = &mut self.primary {
            link.phase = Phase::Ready;
            link.deadline = None;
        }
        // Nobody is thrown out because his name was taken while he was away.
        if self.stage == Stage::Arrived && self.me.name_tries < NAME_TRIES_MAX {
            self.me.name_tries += 1;
            self.me.name = numbered(&self.me.name, self.me.name_tries + 1);
            return self.on_ready(now, out);
        }
        let reference = core::mem::take(&mut self.me.name_reference);
        self.me.name.clear();
        self.tell_error(reference, reason, failed.detail, out);
    }

    pub(super) fn on_redirect(
        &mut self,
        now: Time,
        redirect: &Redirect<'_>,
        out: &mut Outbox<Effect>,
    ) {
        if super::split_address(redirect.address).is_none() {
            return self.fail(now, Role::Primary, Reason::BadFrame, out);
        }
        if self.way.hops >= self.config.limits.hops_max {
            return self.fail(now, Role::Primary, Reason::Full, out);
        }
        self.way.hops += 1;
        self.way.reservation = redirect.reservation.0;
        self.go_to(now, redirect.address.into(), out);
    }

    /// The server lacks entries that we have.
    pub(super) fn on_want(&mut self, now: Time, want: &Want<'_>, out: &mut Outbox<Effect>) {
        let ranges: Vec<_> = want
            .ranges
            .iter()
            .filter_map(|(origin, from, to)| Some((self.seen.find(&origin)?, from, to)))
            .collect();
        let places = self.store.find(|origin, number| {
            let within =
                |range: &(_, u64, u64)| range.0 == origin && (range.1..=range.2).contains(&number);
            ranges.iter().any(within)
        });
        if let Some(link) = &mut self.primary {
            link.deadline = None;
            self.me.offers += u8::from(self.me.cluster != link.cluster);
        }
        self.hand_back = Some(HandBack { places, next: 0, count: 0 });
        self.hand_back_more(now, out);
    }

    /// Sends entries until enough is on its way.
    fn hand_back_more(&mut self, now: Time, out: &mut Outbox<Effect>) {
        let (Some(hand_back), Some(link)) = (&mut self.hand_back, &mut self.primary) else {
            return;
        };
        while let Some(place) = hand_back.places.get(hand_back.next) {
            if link.queued >= u64::from(self.config.limits.queue_bytes_max) {
                return;
            }
            hand_back.next += 1;
            let Some(payload) = self.store.payload(*place) else { continue };
            let bytes = out.encode(|arena| {
                put_frame(arena, chat::Return::KIND, |frame| frame.extend_from_slice(payload));
            });
            link.queued += bytes.len() as u64;
            out.push(Effect::Send { link: link.id, bytes });
            hand_back.count += 1;
        }
        link.deadline = Some(now + self.config.limits.attach_us_max);
        link.send(&chat::Returned { count: hand_back.count }, out);
        self.hand_back = None;
    }

    pub(super) fn on_drained(
        &mut self,
        now: Time,
        link: LinkId,
        bytes: u32,
        out: &mut Outbox<Effect>,
    ) {
        let role = self.role(link);
        if let Some(link) = role.and_then(|role| self.link_mut(role)) {
            link.drained(bytes);
        }
        if role == Some(Role::Primary) {
            self.hand_back_more(now, out);
        }
    }
}

/// `name~2`, with the number in place of an earlier one, and cut so that it stays a name.
fn numbered(name: &str, number: u8) -> String {
    let stem = name.rsplit_once('~').map_or(name, |(stem, _)| stem);
    let suffix = alloc::format!("~{number}");
    let mut end = stem.len().min(crate::names::NAME_BYTES_MAX - suffix.len());
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    let mut numbered = String::from(&stem[..end]);
    numbered.push_str(&suffix);
    numbered
}

/// Pairs of the vector in an attachment: with [`PARTIAL_PAIRS_MAX`], 64 rooms twice and a name it
/// fits a frame (30 bytes a pair, 65 a room).
const SEEN_PAIRS_MAX: usize = 1_200;
/// Pairs of the vectors of all rooms that are being received, in an attachment.
const PARTIAL_PAIRS_MAX: usize = 600;
/// Other names that are tried when the own one was taken while the client was away.
const NAME_TRIES_MAX: u8 = 9;
/// How often what is kept is offered to another cluster, when that ends before its answer.
const OFFERS_MAX: u8 = 3;
/// How often a server may want pings at the most.
const PING_US_MIN: u64 = 20 * MILLI_US;
/// How seldom at the least.
const PING_US_MAX: u64 = 10_000 * MILLI_US;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_name_is_a_name() {
        assert_eq!(numbered("bob", 2), "bob~2");
        assert_eq!(numbered("bob~2", 3), "bob~3");
        let long = numbered(&"é".repeat(16), 10);
        assert!(crate::names::user_key(&long).is_ok(), "{long}");
    }
}
