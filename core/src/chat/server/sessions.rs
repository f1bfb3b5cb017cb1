//! Sessions: hello, attaching, admission, the end.
//!
//! ```text
//! Pending ─hello─▶ Idle ─Attach─▶ Claiming ─granted─▶ Awaiting ─here─▶ Attached
//!                   ▲                │ denied            │ nobody has it
//!                   └────────────────┘                   └──▶ Returning ─▶ Attached
//! ```

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::claims::Purpose;
use super::conn::{Attached, Backfill, Client, Feed, HandBack, Peer, Phase, Request, at, raise};
use super::roster::Record;
use super::{ChatServer, Effect};
use crate::archive::CatchUp;
use crate::framing::Frame;
use crate::hash;
use crate::ids::{AuthorId, Clock, ConnId, Origin, OriginRef, ScopeRef, SessionId};
use crate::names::{self, COMMON_ROOM};
use crate::outbox::Outbox;
use crate::time::{SECOND_US, Time};
use crate::wire::chat::{self, Attach, Intent, Redirect, Return, Returned, Want};
use crate::wire::entry::{OriginDef, Scope};
use crate::wire::hello::{Bye, Hello, Ping, Pong, Role, Transport, Welcome};
use crate::wire::peer::{Presence, Reserve, ServerState};
use crate::wire::{Fixed64, Message, Reason, Seq, VERSION_MAJOR, VERSION_MINOR};

/// Of all places for origins, one in so many is for those of one server that have no entries here.
const EMPTY_ORIGINS_SHARE: usize = 8;
/// How many redirects a newcomer may have behind it before it is told that all are full.
const HOPS_MAX: u8 = 4;
/// How long a client may take to hand back what it has, in all.
const RETURN_US_MAX: u64 = 60 * SECOND_US;
/// What a client is told to wait when all servers are full, in milliseconds.
const FULL_RETRY_MS: u32 = 2_000;

impl ChatServer {
    pub(super) fn on_hello(
        &mut self,
        now: Time,
        id: ConnId,
        frame: Frame<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        if frame.kind != Hello::KIND {
            return Err(Reason::NotCordee);
        }
        let hello = Hello::parse(frame.payload)?;
        if hello.major != VERSION_MAJOR {
            return Err(Reason::WrongVersion);
        }
        if hello.transport != Transport::Plain {
            return Err(Reason::WrongSecret);
        }
        if hello.cluster != self.config.cluster {
            return Err(Reason::WrongCluster);
        }
        let phase = match hello.role {
            Role::Client => Phase::Client(Box::new(Client::Idle)),
            Role::Peer => Phase::Peer(Box::new(Peer::new(None))),
            Role::Observer => Phase::Observer,
            Role::Fetcher => return Err(Reason::WrongService),
        };
        self.welcome(id, out);
        self.pending -= 1;
        if let Some(conn) = self.conns.get_mut(id) {
            conn.phase = phase;
            conn.opened = now;
        }
        // A peer is introduced to once it has said who it is.
        if hello.role == Role::Client {
            self.send_servers(id, out);
        }
        Ok(())
    }

    fn welcome(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        let address = self.config.advertise.clone();
        let welcome = Welcome {
            minor: VERSION_MINOR,
            server: self.id,
            origin: self.origin,
            cluster_id: self.cluster.id,
            address: &address,
            body_bytes_max: self.limits().body_bytes_max,
            ping_ms: (self.limits().ping_us / 1_000) as u32,
        };
        self.send(id, &welcome, out);
    }

    /// The cluster is another than clients were told: it met one that was founded before. Who
    /// would not know that, would take the others' servers for strangers and begin anew there.
    pub(super) fn welcome_clients_again(&mut self, out: &mut Outbox<Effect>) {
        let clients = self.conns.iter().filter(|(_, conn)| matches!(conn.phase, Phase::Client(_)));
        for id in clients.map(|(id, _)| id).collect::<Vec<ConnId>>() {
            self.welcome(id, out);
        }
    }

    pub(super) fn on_client_frame(
        &mut self,
        now: Time,
        id: ConnId,
        frame: Frame<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        if frame.kind != chat::Say::KIND && frame.kind != Return::KIND {
            self.count_request(id, out);
        }
        match frame.kind {
            chat::Say::KIND => self.on_say(now, id, &chat::Say::parse(frame.payload)?, out),
            Ping::KIND => {
                let ping = Ping::parse(frame.payload)?;
                self.send(id, &Pong { nonce: ping.nonce }, out);
                Ok(())
            }
            Attach::KIND => self.on_attach(now, id, &Attach::parse(frame.payload)?, out),
            Return::KIND => self.on_return(now, id, &Return::parse(frame.payload)?, out),
            Returned::KIND => self.on_returned(now, id, out),
            chat::Quit::KIND => self.on_quit(now, id, out),
            Bye::KIND => {
                self.discard(id, Reason::Goodbye, out);
                out.push(Effect::Close { conn: id, reason: Reason::Goodbye });
                self.lost(id, out);
                Ok(())
            }
            _ => self.on_request(now, id, frame, out),
        }
    }

    fn on_attach(
        &mut self,
        now: Time,
        id: ConnId,
        attach: &Attach<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        match self.client_mut(id) {
            Some(Client::Idle) => {}
            _ => return Err(Reason::Unexpected),
        }
        match self.state {
            ServerState::Active => {}
            ServerState::Joining => return Err(Reason::Joining),
            ServerState::Draining => return Err(Reason::Draining),
        }
        let session = hash::session_id(&self.config.cluster, &attach.secret);
        let Some(request) = self.read_attach(session, attach, id, out)? else { return Ok(()) };
        if !self.admit(now, id, &request, attach, out) {
            return Ok(());
        }
        let held = self.roster.get(session).filter(|record| record.is_here());
        let same = |record: &Record| names::user_key(&record.name) == names::user_key(attach.name);
        // A session that is known keeps the name that it has, whatever it thinks that is.
        let known = held.map(|record| (record.name.clone(), record.claim, same(record)));
        let mut request = request;
        match known {
            Some((name, claim, same)) if same || request.intent != Intent::New => {
                request.name = name;
                request.claim = claim;
                self.granted(now, id, request, out);
            }
            _ => self.claim_name(now, id, request, out),
        }
        Ok(())
    }

    /// Checks what an attach says. `None` when its name is not valid, which it was told.
    fn read_attach(
        &mut self,
        session: SessionId,
        attach: &Attach<'_>,
        id: ConnId,
        out: &mut Outbox<Effect>,
    ) -> Result<Option<Request>, Reason> {
        if names::user_key(attach.name).is_err() {
            let reason = Reason::NameInvalid;
            self.send(id, &chat::Failed { request: 0, say: false, reason, detail: "" }, out);
            return Ok(None);
        }
        let rooms_max = self.limits().rooms_per_session_max as usize;
        if attach.rooms.len().max(attach.partial.len()) > rooms_max {
            return Err(Reason::TooManyRooms);
        }
        let mut rooms = Vec::from([COMMON_ROOM.to_string()]);
        for room in attach.rooms {
            rooms.push(names::room(room)?);
        }
        rooms.sort_unstable();
        rooms.dedup();
        if rooms.len() > rooms_max {
            return Err(Reason::TooManyRooms);
        }
        let reset = attach.intent == Intent::Reset;
        let mut seen: Vec<(Origin, u64)> =
            if reset { Vec::new() } else { attach.seen.iter().collect() };
        seen.sort_unstable();
        seen.dedup_by_key(|(origin, _)| *origin);
        let mut partial: Vec<(String, Vec<(Origin, u64)>)> = attach
            .partial
            .iter()
            .filter(|_| !reset)
            .filter_map(|partial| {
                Some((names::room(partial.room).ok()?, partial.seen.iter().collect()))
            })
            .collect();
        partial.sort_unstable();
        partial.dedup_by(|a, b| a.0 == b.0);
        Ok(Some(Request {
            session,
            process: attach.process.0,
            attachment: attach.attachment,
            intent: attach.intent,
            name: attach.name.to_string(),
            claim: Clock(0),
            rooms,
            seen,
            partial,
            said: attach.author_number,
        }))
    }

    /// Whether there is a place; otherwise the client was sent elsewhere.
    fn admit(
        &mut self,
        now: Time,
        id: ConnId,
        request: &Request,
        attach: &Attach<'_>,
        out: &mut Outbox<Effect>,
    ) -> bool {
        let known = self.roster.get(request.session).is_some_and(Record::is_here)
            // Nobody told a server that has just started who there was.
            || now.since_us(self.started) < self.limits().grace_us;
        let resumes = request.intent != Intent::New && known;
        let reserved = self.reservations.remove(&attach.reservation.0).is_some();
        let load = self.load_beside(Some(request.session));
        let beyond = resumes || reserved;
        let limits = self.limits();
        let limit = if beyond { limits.users_hard_max } else { limits.users_max };
        if load < limit + u32::from(planted!(AdmitOneMore)) {
            return true;
        }
        let next = (attach.hops < HOPS_MAX).then(|| self.server_with_room(resumes)).flatten();
        match next {
            Some((peer, address)) => {
                let reservation = self.prng.next_u64().max(1);
                let reserve = Reserve { reservation: Fixed64(reservation) };
                if !planted!(NoReservation) {
                    self.send(peer, &reserve, out);
                }
                self.stats.redirected += 1;
                if let Some(peer) = self.conns.get_mut(peer).and_then(|conn| conn.peer_mut()) {
                    peer.load += 1;
                }
                let redirect = Redirect { address: &address, reservation: Fixed64(reservation) };
                self.send(id, &redirect, out);
                let bye = Bye { reason: Reason::Full, retry_ms: 0, next: &address, detail: "" };
                self.close_with(id, &bye, out);
            }
            None => {
                let bye =
                    Bye { reason: Reason::Full, retry_ms: FULL_RETRY_MS, next: "", detail: "" };
                self.close_with(id, &bye, out);
            }
        }
        false
    }

    /// The least loaded linked server that has room, ties at random.
    fn server_with_room(&mut self, beyond: bool) -> Option<(ConnId, String)> {
        let factor =
            if beyond { self.limits().users_hard_max / self.limits().users_max.max(1) } else { 1 };
        let room = |peer: &&(ConnId, &Peer)| {
            peer.1.state == ServerState::Active
                && peer.1.load < peer.1.limit.saturating_mul(factor.max(1))
        };
        let least =
            self.linked_peers().filter(|peer| room(&peer)).map(|(_, peer)| peer.load).min()?;
        let ties: Vec<(ConnId, String)> = self
            .linked_peers()
            .filter(|peer| room(&peer) && peer.1.load == least)
            .map(|(conn, peer)| (conn, peer.address.clone()))
            .collect();
        let drawn = self.prng.below(ties.len() as u64) as usize;
        ties.into_iter().nth(drawn)
    }

    /// Users attached or about to be, with the places kept for newcomers.
    pub(super) fn load(&self) -> u32 {
        self.load_beside(None)
    }

    /// The load without `session`. Who is attached and attaches anew counts once.
    fn load_beside(&self, session: Option<SessionId>) -> u32 {
        let arriving = self.conns.iter().filter_map(|(_, conn)| match &conn.phase {
            Phase::Client(client) => client.arriving(),
            _ => None,
        });
        let beside = |other: &SessionId| Some(*other) != session;
        let arriving = arriving.filter(|other| !self.sessions.contains_key(other)).filter(beside);
        let here = session.is_some_and(|session| self.sessions.contains_key(&session));
        let attached = self.sessions.len() - usize::from(here);
        (attached + self.reservations.len() + arriving.count()) as u32
    }

    /// The name is the session's. What it saw must be here before it goes on.
    pub(super) fn granted(
        &mut self,
        now: Time,
        id: ConnId,
        request: Request,
        out: &mut Outbox<Effect>,
    ) {
        let deadline = now + self.limits().resume_us_max;
        if let Some(client) = self.client_mut(id) {
            *client = Client::Awaiting(request, deadline);
            self.attaching.push(id);
            self.go_on_attaching(now, id, out);
        }
    }

    /// Looks whether what a resuming client saw is here by now.
    pub(super) fn go_on_attaching(&mut self, now: Time, id: ConnId, out: &mut Outbox<Effect>) {
        let Some(Client::Awaiting(request, deadline)) = self.client_ref(id) else { return };
        let mut lacking = Vec::new();
        let mut coming = false;
        for &(origin, number) in &request.seen {
            let reference = self.archive.find_origin(&origin);
            let shown = reference.map_or(0, |reference| self.archive.shown(reference));
            if shown < number {
                lacking.push((origin, shown + 1, number));
                coming |= reference.is_some_and(|reference| {
                    self.linked_peers().any(|(_, peer)| peer.holds(reference) > shown)
                        || self.waiting.count(reference) > 0
                });
            }
        }
        if lacking.is_empty() {
            self.take_request(id)
                .into_iter()
                .for_each(|request| self.attach(now, id, request, out));
        } else if coming && now < *deadline {
            self.soon.plan_pulls = true;
        } else if let Some(request) = self.take_request(id) {
            let deadline = now + self.limits().resume_us_max;
            self.send(id, &Want { ranges: Seq::new(&lacking) }, out);
            let latest = now + RETURN_US_MAX;
            let (held, held_bytes) = (VecDeque::new(), 0);
            let back = HandBack { deadline, latest, whole: false, held, held_bytes };
            if let Some(client) = self.client_mut(id) {
                *client = Client::Returning(request, back);
            }
        }
    }

    /// Clients that wait for something, whose time is up or whose wait may be over.
    pub(super) fn go_on_attaching_all(&mut self, now: Time, out: &mut Outbox<Effect>) {
        let mut waiting = core::mem::take(&mut self.attaching);
        let round = self.round_limit();
        waiting.retain(|id| {
            if self.is_round_over(round) {
                // The others have their turn at the next call, which is at once.
                self.soon.attach = true;
                return true;
            }
            match self.client_ref(*id) {
                Some(Client::Awaiting(..)) => self.go_on_attaching(now, *id, out),
                Some(Client::Returning(..)) => self.go_on_returning(now, *id, out),
                _ => {}
            }
            matches!(self.client_ref(*id), Some(Client::Awaiting(..) | Client::Returning(..)))
        });
        waiting.append(&mut self.attaching);
        self.attaching = waiting;
    }

    /// Attaches the session: states its standing to all, answers, and begins to send.
    pub(super) fn attach(
        &mut self,
        now: Time,
        id: ConnId,
        request: Request,
        out: &mut Outbox<Effect>,
    ) {
        if let Some(old) = self.sessions.remove(&request.session) {
            self.close(old, Reason::Superseded, out);
        }
        let known = self.roster.get(request.session);
        let above = known.map_or(0, |known| known.attachment.saturating_add(1));
        let attachment = request.attachment.max(above);
        // A count at its end cannot rise: the new standing must stand above the old all the same.
        let same = known.filter(|known| known.attachment == attachment);
        let version = same.map_or(0, |known| known.version + 1);
        self.stats.resumed += u64::from(known.is_some_and(Record::is_here));
        for room in &request.rooms {
            let made = self.clock.wall(now);
            self.know_room(room, Clock(made), out);
        }
        let rooms: Vec<String> =
            request.rooms.iter().filter(|room| self.rooms.get(room).is_some()).cloned().collect();
        let record = Record {
            name: request.name.clone(),
            claim: request.claim,
            attachment,
            version,
            home: self.id,
            presence: Presence::Online,
            rooms: rooms.clone(),
            since: now,
        };
        self.state_presence(request.session, record, out);
        let author = AuthorId { session: request.session, process: request.process };
        let (seen, cut) = self.cut_to_what_is_here(&request.seen);
        let backfills: VecDeque<Backfill> = request
            .partial
            .iter()
            .filter(|(room, _)| rooms.contains(room))
            .map(|(room, seen)| {
                let scope = self.archive.scope(&Scope::Room(room));
                let seen = self.pairs_of_what_is_here(seen);
                Backfill { room: room.clone(), scope, catch_up: None, seen }
            })
            .collect();
        let mut scopes: Vec<ScopeRef> = rooms
            .iter()
            .map(|room| self.archive.scope(&Scope::Room(room)))
            .filter(|scope| backfills.iter().all(|backfill| backfill.scope != *scope))
            .collect();
        scopes.extend(self.archive.talks_of(request.session));
        scopes.sort_unstable();
        scopes.dedup();
        let mt: u64 =
            scopes.iter().map(|scope| self.archive.rows_through(*scope, &|o| at(&seen, o))).sum();
        let until = self.shown_vector();
        let mt_then = scopes.iter().map(|scope| self.archive.scope_rows(*scope)).sum();
        let catch_up = Box::new(CatchUp::new(&scopes, seen, until));
        let position = self.log.end;
        let attached = Attached {
            session: request.session,
            author,
            said_before: request.said,
            name: request.name.clone(),
            rooms: rooms.clone(),
            scopes,
            feed: Feed::CatchUp { catch_up, position, mt, mt_then },
            backfills,
            unacknowledged: VecDeque::new(),
            is_acknowledging: false,
            search: None,
            renaming: None,
        };
        let Some(client) = self.client_mut(id) else { return };
        *client = Client::Attached(attached);
        self.sessions.insert(request.session, id);
        let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let answer = chat::Attached {
            session: request.session,
            name: &request.name,
            intent: request.intent,
            author_number: self.archive.author_number(&author),
            ma: mt_then,
            mt,
            cut: Seq::new(&cut),
            rooms: Seq::new(&rooms),
        };
        // First the origins: what the client says again at once names them.
        self.send_origins(id, out);
        self.send(id, &answer, out);
        self.send_users(id, 0, out);
        self.send_rooms(id, 0, out);
        self.feed(id, out);
    }

    /// A client's vector by our references, and what had to be cut from it.
    fn cut_to_what_is_here(&self, seen: &[(Origin, u64)]) -> (Vec<u64>, Vec<(Origin, u64)>) {
        let (mut here, mut cut) = (Vec::new(), Vec::new());
        for &(origin, number) in seen {
            let reference = self.archive.find_origin(&origin);
            let shown = reference.map_or(0, |reference| self.archive.shown(reference));
            if let Some(reference) = reference {
                let more = u64::from(planted!(ResumeTooFar));
                raise(&mut here, reference, (number + more).min(shown));
            }
            if shown < number {
                cut.push((origin, shown));
            }
        }
        (here, cut)
    }

    /// A client's vector of a room by our references, cut to what is here.
    fn pairs_of_what_is_here(&self, seen: &[(Origin, u64)]) -> Vec<(OriginRef, u64)> {
        let pairs = seen.iter().filter_map(|&(origin, number)| {
            let reference = self.archive.find_origin(&origin)?;
            Some((reference, number.min(self.archive.shown(reference))))
        });
        pairs.collect()
    }

    /// What this server shows, by its references.
    pub(super) fn shown_vector(&self) -> Vec<u64> {
        let references = (0..self.archive.references_end()).map(OriginRef);
        references.map(|reference| self.archive.shown(reference)).collect()
    }

    fn on_quit(&mut self, now: Time, id: ConnId, out: &mut Outbox<Effect>) -> Result<(), Reason> {
        if let Some(attached) = self.conns.get(id).and_then(|conn| conn.attached()) {
            let session = attached.session;
            self.sessions.remove(&session);
            self.restate(session, now, |record| record.presence = Presence::Gone, out);
        }
        self.close(id, Reason::Goodbye, out);
        Ok(())
    }

    /// A client's connection is no more. Its session stays listed for a while.
    pub(super) fn client_lost(&mut self, id: ConnId, client: Client, out: &mut Outbox<Effect>) {
        self.claims.drop_of(id);
        let Client::Attached(attached) = client else { return };
        // Quit and a newer attachment have taken the session away before.
        if self.sessions.get(&attached.session) != Some(&id) {
            return;
        }
        self.sessions.remove(&attached.session);
        let now = self.now;
        self.restate(attached.session, now, |record| record.presence = Presence::Away, out);
    }

    // Names.

    fn claim_name(&mut self, now: Time, id: ConnId, request: Request, out: &mut Outbox<Effect>) {
        let (session, name) = (request.session, request.name.clone());
        if let Some(client) = self.client_mut(id) {
            *client = Client::Claiming(request);
        }
        self.begin_claim(now, id, session, &name, Purpose::Attach, out);
    }

    /// A claim for attaching was decided.
    pub(super) fn attach_decided(
        &mut self,
        now: Time,
        id: ConnId,
        claim: Result<Clock, Reason>,
        out: &mut Outbox<Effect>,
    ) {
        let Some(mut request) = self.take_request(id) else { return };
        match claim {
            Ok(clock) => {
                request.claim = clock;
                self.granted(now, id, request, out);
            }
            Err(reason) => {
                self.send(id, &chat::Failed { request: 0, say: false, reason, detail: "" }, out);
            }
        }
    }

    // Access.

    pub(super) fn client_mut(&mut self, id: ConnId) -> Option<&mut Client> {
        match &mut self.conns.get_mut(id)?.phase {
            Phase::Client(client) => Some(client),
            _ => None,
        }
    }

    pub(super) fn client_ref(&self, id: ConnId) -> Option<&Client> {
        match &self.conns.get(id)?.phase {
            Phase::Client(client) => Some(client),
            _ => None,
        }
    }

    /// Takes the request of a client that is being attached; it is idle then.
    pub(super) fn take_request(&mut self, id: ConnId) -> Option<Request> {
        let client = self.client_mut(id)?;
        match core::mem::replace(client, Client::Idle) {
            Client::Claiming(request)
            | Client::Awaiting(request, _)
            | Client::Returning(request, ..) => Some(request),
            other => {
                *client = other;
                None
            }
        }
    }

    /// Tells a connection which origins our references stand for.
    pub(super) fn send_origins(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        let bytes = out.encode(|arena| {
            for (reference, origin) in self.archive.origins() {
                OriginDef { reference, origin }.put_frame(arena);
            }
        });
        self.queue(id, bytes.len());
        out.push(Effect::Send { conn: id, bytes, notify: false });
    }

    /// Our reference for an origin that a peer speaks of. `None` for one that is not taken in:
    /// places are for those of members, and not all of them for origins of one server of which
    /// nothing ever came here.
    pub(super) fn define_heard(
        &mut self,
        origin: Origin,
        out: &mut Outbox<Effect>,
    ) -> Result<Option<OriginRef>, Reason> {
        if let Some(known) = self.archive.find_origin(&origin) {
            return Ok(Some(known));
        }
        let member = self.members.get(origin.server);
        if member.is_none() && origin.server != self.id {
            return Ok(None);
        }
        // Whoever joins learns of all there are before the first of their entries comes. And as
        // long as places are left, nothing is lost by taking in what may be empty: a server that
        // started often may have written under any of its origins, and what turns out to be
        // empty gives its place up.
        let limit = self.limits().origins_max;
        let may_be_many = self.state == ServerState::Joining
            || self.archive.places_left() > limit / EMPTY_ORIGINS_SHARE as u32
            || member.is_some_and(|member| member.origin == origin);
        let is_empty = |(reference, other): &(OriginRef, Origin)| {
            other.server == origin.server
                && self.archive.shown(*reference) == 0
                && !self.archive.is_past(other)
        };
        let empty = || self.archive.origins().filter(is_empty).count();
        if !may_be_many && empty() >= limit as usize / EMPTY_ORIGINS_SHARE {
            return Ok(None);
        }
        self.define_origin(origin, out).map(Some).ok_or(Reason::Flood)
    }

    /// Our reference for an origin; told to everyone when it is new.
    pub(super) fn define_origin(
        &mut self,
        origin: Origin,
        out: &mut Outbox<Effect>,
    ) -> Option<OriginRef> {
        let (reference, new) = self.archive.define_origin(origin)?;
        if new {
            let everyone: Vec<ConnId> = self
                .conns
                .iter()
                .filter(|(_, conn)| {
                    conn.attached().is_some()
                        || conn
                            .peer()
                            .is_some_and(|peer| peer.stage != super::conn::Stage::Greeting)
                })
                .map(|(id, _)| id)
                .collect();
            for id in everyone {
                self.send(id, &OriginDef { reference, origin }, out);
            }
        }
        Some(reference)
    }
}
