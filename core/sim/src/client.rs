//! A client on the wire, written for the simulation alone: what it takes for granted it checks.
//!
//! It shares no decision with the real client machine, so a mistake of one is not hidden by the
//! same mistake of the other. It never sleeps on a fault: whatever a server tells it that cannot
//! be is a panic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cordee_core::Time;
use cordee_core::framing::{Deframer, FRAME_BYTES_MAX, Frame, frames};
use cordee_core::ids::{AuthorId, Origin, OriginRef, SessionId, SessionSecret, Tag};
use cordee_core::wire::chat::{self, Attach, Attached, Intent, Partial};
use cordee_core::wire::entry::{Entry, OriginDef, Portable, Scope, flags};
use cordee_core::wire::hello::{Bye, Hello, Magic, Ping, Pong, Role, Transport, Welcome};
use cordee_core::wire::{
    Field, Fixed64, Message, Reader, Reason, Seq, VERSION_MAJOR, VERSION_MINOR,
};

use crate::rule::Rule;

const PING_US: u64 = 500_000;
const PINGS_MISSED_MAX: u64 = 3;
const RETRY_US: u64 = 20_000;
/// For so long a reference that an entry used keeps its meaning at the least.
const REFERENCE_US: u64 = 10_000_000;
/// Failed attempts to connect in a row, after which the client waits longer.
const CONNECT_US: u64 = 1_500_000;

/// What the client asks of the world.
#[derive(Debug)]
pub(crate) enum Action {
    Connect(String),
    Send(Vec<u8>),
    Close,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Without a connection until then.
    Waiting(Time),
    /// A connection is being made, until then at the latest.
    Connecting(Time),
    /// Hello and Attach were sent.
    Attaching,
    Attached,
    /// It wants no connection any more.
    Stopped,
}

/// A message as it was shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Who wrote it.
    pub author: AuthorId,
    /// The author's number.
    pub number: u64,
    /// The room, or `@` and the two sessions of a talk.
    pub scope: String,
    /// The author's name then.
    pub name: String,
    /// What it says.
    pub body: String,
    /// Whether it came to make good what was missed.
    pub replay: bool,
    /// Whether it is its own.
    pub own: bool,
    /// How often its room was joined anew until then.
    pub stay: u64,
    /// Its place in the canonical order of its room or talk.
    pub index: u64,
    /// Whether that was called final.
    pub is_final: bool,
}

/// What else happened to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happened {
    /// It was attached, at this server, and by that name.
    Attached(String, String),
    /// It was sent to another server.
    Redirected(String),
    /// Its connection ended.
    Ended(Reason),
    /// All it lacked was sent; or all of a room.
    CaughtUp(String),
    /// Somebody came, perhaps into a room.
    Arrived(String, String),
    /// Somebody went, perhaps out of a room.
    Departed(String, String),
    /// Somebody is called differently; why.
    Renamed(String, String, Reason),
    /// A room was made.
    RoomMade(String),
    /// A room has a topic.
    TopicSet(String, String),
    /// A request failed.
    Failed(u64, Reason),
    /// A message was refused.
    Refused(u64, Reason),
    /// A request was done.
    Done(u64),
    /// It is in a room.
    Joined(String),
    /// It is out of a room.
    Left(String),
    /// A message is safe: number, copies, durable, index.
    Acked(u64, u8, bool, u64),
    /// How it stands: MA, MT.
    Status(u64, u64),
    /// It goes on as another author, who says these again: number, scope, body.
    NumberedAnew(Vec<(u64, String, String)>),
    /// It was asked to hand back that many entries.
    Wanted(u64),
}

/// A message of its own.
#[derive(Clone, Debug)]
struct Own {
    number: u64,
    scope: String,
    body: String,
    after: Vec<(Origin, u64)>,
    seen: bool,
    acked: bool,
}

/// One scripted client, on the wire: what it sends is its own, what it checks is what came.
#[derive(Debug)]
pub struct Client {
    /// The name it asks for.
    pub wanted_name: String,
    /// Its name.
    pub name: String,
    secret: SessionSecret,
    process: u64,
    attachment: u32,
    cluster: String,
    session: Option<SessionId>,
    state: State,
    server: String,
    known: BTreeSet<String>,
    reservation: u64,
    hops: u8,
    intent: Intent,
    failures: u32,
    deframer: Deframer,
    actions: VecDeque<Action>,
    /// What the server's references stand for, and when an entry last used them.
    refs: Vec<Option<(Origin, Time)>>,
    /// Origins whose references stand for others since: they belong to a past there.
    given_up: BTreeSet<Origin>,
    seen: BTreeMap<Origin, u64>,
    /// In any scope: what a message may answer to.
    seen_any: BTreeMap<Origin, u64>,
    told: BTreeMap<Origin, u64>,
    partial: BTreeMap<String, BTreeMap<Origin, u64>>,
    rooms: BTreeSet<String>,
    leaving: BTreeSet<String>,
    stays: BTreeMap<String, u64>,
    held: BTreeMap<(Origin, u64), (u64, Vec<u8>, Tag)>,
    stable: BTreeMap<Origin, u64>,
    queue: VecDeque<Own>,
    last_number: u64,
    has: u64,
    said_before: u64,
    stale: u64,
    caught_up: bool,
    heard: Time,
    next_ping: Time,
    now: Time,
    /// When it was last attached, or lost its server.
    changed: Time,
    request: u64,
    /// What it holds, by scope.
    rows: BTreeMap<String, BTreeSet<(AuthorId, u64)>>,
    roster: BTreeMap<SessionId, (String, BTreeSet<String>)>,
    /// Everything shown, in order.
    pub shown: Vec<Shown>,
    /// What else happened, in order.
    pub happened: Vec<Happened>,
    /// When.
    pub happened_at: Vec<Time>,
    /// The pages of the last history or search that was answered: index and body.
    pub page: Vec<(u64, String)>,
    page_request: u64,
    /// How many the last page said there are.
    pub page_total: u64,
    /// The last list of users.
    pub users: Vec<(String, bool, String)>,
    users_parts: Vec<(String, bool, String)>,
    /// The last list of rooms: name, users, entries.
    pub room_list: Vec<(String, u32, u64)>,
    /// Whether it does nothing by itself.
    pub(crate) asleep: bool,
    /// Whether it keeps no more than what it needs to go on: it hands nothing back.
    pub forgetful: bool,
    /// Its name was refused: it waits for another.
    lacks_name: bool,
}

impl Client {
    pub(crate) fn new(
        name: &str,
        identity: u64,
        cluster: &str,
        servers: &[String],
        now: Time,
    ) -> Self {
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&identity.to_be_bytes());
        Client {
            wanted_name: name.to_owned(),
            name: name.to_owned(),
            secret: SessionSecret(secret),
            process: identity ^ 0x0c11_e117,
            attachment: 0,
            cluster: cluster.to_owned(),
            session: None,
            state: State::Waiting(Time::ZERO),
            server: servers[0].clone(),
            known: servers.iter().cloned().collect(),
            reservation: 0,
            hops: 0,
            intent: Intent::New,
            failures: 0,
            deframer: Deframer::new(FRAME_BYTES_MAX),
            actions: VecDeque::new(),
            refs: Vec::new(),
            given_up: BTreeSet::new(),
            seen: BTreeMap::new(),
            seen_any: BTreeMap::new(),
            told: BTreeMap::new(),
            partial: BTreeMap::new(),
            rooms: BTreeSet::from(["#all".to_owned()]),
            leaving: BTreeSet::new(),
            stays: BTreeMap::new(),
            held: BTreeMap::new(),
            stable: BTreeMap::new(),
            queue: VecDeque::new(),
            last_number: 0,
            has: 0,
            said_before: 0,
            stale: 0,
            caught_up: false,
            heard: Time::ZERO,
            next_ping: Time::ZERO,
            now,
            changed: now,
            request: 0,
            rows: BTreeMap::new(),
            roster: BTreeMap::new(),
            shown: Vec::new(),
            happened: Vec::new(),
            happened_at: Vec::new(),
            page: Vec::new(),
            page_request: 0,
            page_total: 0,
            users: Vec::new(),
            users_parts: Vec::new(),
            room_list: Vec::new(),
            asleep: false,
            forgetful: false,
            lacks_name: false,
        }
    }

    // What a script asks for.

    /// Its author's id, once it was attached.
    #[must_use]
    pub fn author(&self) -> Option<AuthorId> {
        Some(AuthorId { session: self.session?, process: self.process })
    }

    /// Its session's public id, once it was attached.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Where it is attached.
    #[must_use]
    pub fn attached_at(&self) -> Option<&str> {
        (self.state == State::Attached).then_some(&self.server)
    }

    /// Whether it is attached and was sent all it lacked.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.state == State::Attached && self.caught_up && self.partial.is_empty()
    }

    /// For how long it has been without a server, in microseconds.
    #[must_use]
    pub fn unattached_us(&self) -> u64 {
        if self.state == State::Attached { 0 } else { self.now.since_us(self.changed) }
    }

    /// For how long it has been attached, in microseconds, as far as it looked at the time.
    #[must_use]
    pub fn attached_us(&self) -> u64 {
        if self.state == State::Attached { self.now.since_us(self.changed) } else { 0 }
    }

    /// Whether its name was refused, and it waits for another.
    #[must_use]
    pub fn lacks_name(&self) -> bool {
        self.lacks_name && self.state == State::Attaching
    }

    /// Whether it wants no connection any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }

    /// How many messages of its own are not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.queue.iter().filter(|own| !own.acked).count()
    }

    /// The last number it gave.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    /// How many rows it holds of the rooms it is in and of its talks.
    #[must_use]
    pub fn rows_held(&self) -> u64 {
        let mine = |scope: &&String| scope.starts_with('@') || self.rooms.contains(*scope);
        self.rows.iter().filter(|(scope, _)| mine(scope)).map(|(_, rows)| rows.len() as u64).sum()
    }

    /// What it holds of a room.
    #[must_use]
    pub fn rows_of(&self, scope: &str) -> BTreeSet<(AuthorId, u64)> {
        self.rows.get(scope).cloned().unwrap_or_default()
    }

    /// The rooms it is in.
    #[must_use]
    pub fn rooms(&self) -> &BTreeSet<String> {
        &self.rooms
    }

    /// The rooms in which it can say something: it is in them and is not leaving.
    #[must_use]
    pub fn speakable(&self) -> BTreeSet<String> {
        self.rooms.difference(&self.leaving).cloned().collect()
    }

    /// Who is there as far as it was told, sorted by name.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.roster.values().map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// The bodies shown of a scope, in order.
    #[must_use]
    pub fn bodies(&self, scope: &str) -> Vec<&str> {
        let shown = self.shown.iter().filter(|shown| shown.scope == scope);
        shown.map(|shown| shown.body.as_str()).collect()
    }

    /// What happened, with times in milliseconds and runs of acknowledgements in one line.
    #[must_use]
    pub fn story(&self) -> String {
        let mut story = String::new();
        let mut acked = 0;
        for (at, happened) in self.happened_at.iter().zip(&self.happened) {
            if matches!(happened, Happened::Acked(..)) {
                acked += 1;
                continue;
            }
            if acked > 0 {
                story += &format!("   {acked} acknowledged\n");
                acked = 0;
            }
            story += &format!("   {} ms: {happened:?}\n", at.0 / 1_000);
        }
        story
    }

    /// Messages that it could hand back.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (AuthorId, u64)> {
        self.held.values().map(|(_, bytes, _)| {
            let entry = Portable::take(&mut Reader::new(bytes)).expect("kept as it was built");
            (entry.author, entry.author_number)
        })
    }

    pub(crate) fn say(&mut self, scope: &str, body: &str) -> u64 {
        self.last_number += 1;
        let told = &mut self.told;
        let news = self.seen_any.iter().filter(|(o, n)| told.get(o).is_none_or(|t| t < *n));
        let after: Vec<(Origin, u64)> = news.map(|(origin, number)| (*origin, *number)).collect();
        told.extend(after.iter().copied());
        let own = Own {
            number: self.last_number,
            scope: scope.to_owned(),
            body: body.to_owned(),
            after,
            seen: false,
            acked: false,
        };
        self.queue.push_back(own);
        if self.state == State::Attached {
            self.send_own(self.last_number);
        }
        self.last_number
    }

    pub(crate) fn request<'a, M: Message<'a>>(&mut self, make: impl FnOnce(u64) -> M) -> u64 {
        self.request += 1;
        let message = make(self.request);
        self.put(&message);
        self.request
    }

    pub(crate) fn leave(&mut self, room: &str) {
        self.leaving.insert(room.to_owned());
        self.request(|request| chat::Leave { request, room });
    }

    pub(crate) fn put<'a, M: Message<'a>>(&mut self, message: &M) {
        let mut bytes = Vec::new();
        message.put_frame(&mut bytes);
        self.actions.push_back(Action::Send(bytes));
    }

    /// Forgets everything it was shown, and attaches for all of it.
    pub(crate) fn reset(&mut self, now: Time) {
        self.intent = Intent::Reset;
        self.seen.clear();
        self.seen_any.clear();
        self.told.clear();
        self.partial.clear();
        self.held.clear();
        self.rows.clear();
        self.shown.clear();
        let server = self.server.clone();
        self.leave_connection();
        self.server = server;
        self.state = State::Waiting(now);
    }

    /// Takes another name to attach with, after one was refused.
    pub(crate) fn try_name(&mut self, name: &str) {
        self.wanted_name = name.to_owned();
        self.name = name.to_owned();
        if self.state == State::Attaching {
            self.send_attach();
        }
    }

    pub(crate) fn stop(&mut self) {
        self.leave_connection();
        self.state = State::Stopped;
    }

    /// Breaks its connection and goes on at the next server.
    pub(crate) fn move_on(&mut self, now: Time) {
        self.lose(now, Reason::Ended);
    }

    // What the world tells it.

    pub(crate) fn take_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn next_time(&self) -> Option<Time> {
        match self.state {
            State::Waiting(at) | State::Connecting(at) => Some(at),
            State::Attaching | State::Attached => Some(self.next_ping),
            State::Stopped => None,
        }
    }

    pub(crate) fn on_time(&mut self, now: Time) {
        self.now = now;
        if self.asleep && matches!(self.state, State::Attaching | State::Attached) {
            self.next_ping = now + PING_US;
            self.heard = now;
            // Whoever sleeps amid a change of servers goes on with it when it wakes.
            if let State::Waiting(at) | State::Connecting(at) = &mut self.state {
                *at = (*at).max(self.next_ping);
            }
            return;
        }
        match self.state {
            State::Waiting(at) if at <= now => {
                self.state = State::Connecting(now + CONNECT_US);
                self.actions.push_back(Action::Connect(self.server.clone()));
            }
            State::Connecting(at) if at <= now => self.on_closed(now),
            State::Attaching | State::Attached if self.next_ping <= now => {
                if now.since_us(self.heard) > PING_US * PINGS_MISSED_MAX {
                    self.lose(now, Reason::Silent);
                    return;
                }
                self.next_ping = now + PING_US;
                self.put(&Ping { nonce: now.0 });
            }
            _ => {}
        }
    }

    pub(crate) fn on_connected(&mut self, now: Time) {
        if !matches!(self.state, State::Connecting(_)) {
            return;
        }
        self.now = now;
        self.deframer = Deframer::new(FRAME_BYTES_MAX);
        self.refs.clear();
        self.given_up.clear();
        self.heard = now;
        self.next_ping = now + PING_US;
        self.state = State::Attaching;
        let cluster = self.cluster.clone();
        let hello = Hello {
            magic: Magic,
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            role: Role::Client,
            transport: Transport::Plain,
            key_id: Fixed64(0),
            cluster: &cluster,
        };
        self.put(&hello);
        self.send_attach();
    }

    pub(crate) fn on_closed(&mut self, now: Time) {
        if !matches!(self.state, State::Stopped | State::Waiting(_)) {
            self.lose(now, Reason::Ended);
        }
    }

    pub(crate) fn on_bytes(&mut self, now: Time, bytes: &[u8]) {
        self.now = now;
        self.heard = now;
        self.deframer.extend(bytes);
        let ready = self.deframer.ready().expect("a server sends valid frames").to_vec();
        self.deframer.consume(ready.len());
        for frame in frames(&ready) {
            if !matches!(self.state, State::Attaching | State::Attached) {
                return;
            }
            self.on_frame(frame);
        }
    }

    fn tell(&mut self, happened: Happened) {
        self.happened.push(happened);
        self.happened_at.push(self.now);
    }

    // Attaching.

    fn send_attach(&mut self) {
        (self.said_before, self.stale) = (self.last_number, 0);
        self.lacks_name = false;
        self.attachment += 1;
        let rooms: Vec<String> = self.rooms.iter().cloned().collect();
        let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let seen: Vec<(Origin, u64)> = self.seen.iter().map(|(o, n)| (*o, *n)).collect();
        let partial: Vec<(String, Vec<(Origin, u64)>)> = self
            .partial
            .iter()
            .map(|(room, seen)| (room.clone(), seen.iter().map(|(o, n)| (*o, *n)).collect()))
            .collect();
        let partial: Vec<Partial<'_>> =
            partial.iter().map(|(room, seen)| Partial { room, seen: Seq::new(seen) }).collect();
        let name = self.name.clone();
        let attach = Attach {
            secret: self.secret,
            process: Fixed64(self.process),
            attachment: self.attachment,
            intent: self.intent,
            name: &name,
            reservation: Fixed64(self.reservation),
            hops: self.hops,
            author_number: self.last_number,
            rooms: Seq::new(&rooms),
            seen: Seq::new(&seen),
            partial: Seq::new(&partial),
        };
        self.put(&attach);
        self.reservation = 0;
    }

    fn leave_connection(&mut self) {
        if self.state == State::Attached {
            self.changed = self.now;
        }
        self.leaving.clear();
        self.actions.push_back(Action::Close);
        self.caught_up = false;
    }

    fn lose(&mut self, now: Time, why: Reason) {
        let connecting = matches!(self.state, State::Connecting(_));
        if !connecting {
            self.tell(Happened::Ended(why));
        }
        self.leave_connection();
        self.server = self.next_server();
        self.failures += 1;
        let wait = if self.failures > self.known.len() as u32 { RETRY_US } else { 0 };
        self.state = State::Waiting(now + wait);
    }

    fn next_server(&self) -> String {
        let after = self.known.range(self.server.clone()..).find(|other| **other != self.server);
        after.or_else(|| self.known.first()).cloned().unwrap_or_else(|| self.server.clone())
    }

    fn go_to(&mut self, server: &str, wait_us: u64) {
        self.leave_connection();
        server.clone_into(&mut self.server);
        self.state = State::Waiting(self.now + wait_us);
    }

    fn on_frame(&mut self, frame: Frame<'_>) {
        let payload = frame.payload;
        match frame.kind {
            Entry::KIND => self.on_entry(&parse::<Entry<'_>>(payload)),
            Welcome::KIND => {
                parse::<Welcome<'_>>(payload);
            }
            OriginDef::KIND => {
                let def: OriginDef = parse(payload);
                let index = def.reference.0 as usize;
                if self.refs.len() <= index {
                    self.refs.resize(index + 1, None);
                }
                let (known, used) = self.refs[index].unwrap_or((def.origin, self.now));
                assert!(
                    known == def.origin || self.now.since_us(used) > REFERENCE_US,
                    "{}: a reference keeps its meaning while it is used: {known:?} {def:?}",
                    self.name,
                );
                if known != def.origin {
                    self.given_up.insert(known);
                }
                self.given_up.remove(&def.origin);
                self.refs[index] = Some((def.origin, used));
            }
            Pong::KIND => {}
            Bye::KIND => self.on_bye(&parse(payload)),
            Attached::KIND => self.on_attached(&parse(payload)),
            chat::Redirect::KIND => {
                let redirect: chat::Redirect<'_> = parse(payload);
                self.reservation = redirect.reservation.0;
                self.hops += 1;
                self.known.insert(redirect.address.to_owned());
                self.tell(Happened::Redirected(redirect.address.to_owned()));
                self.go_to(redirect.address, 0);
            }
            chat::Want::KIND => self.on_want(&parse(payload)),
            chat::Servers::KIND => {
                let servers: chat::Servers<'_> = parse(payload);
                for server in servers.servers {
                    self.known.insert(server.address.to_owned());
                }
            }
            _ => self.on_attached_frame(frame),
        }
    }

    fn on_attached_frame(&mut self, frame: Frame<'_>) {
        let payload = frame.payload;
        match frame.kind {
            chat::CaughtUp::KIND => self.on_caught_up(parse::<chat::CaughtUp<'_>>(payload).room),
            chat::Ack::KIND => self.on_ack(&parse(payload)),
            chat::Failed::KIND => self.on_failed(&parse(payload)),
            chat::Stable::KIND => self.on_stable(&parse(payload)),
            chat::Done::KIND => {
                self.tell(Happened::Done(parse::<chat::Done>(payload).request));
            }
            chat::Joined::KIND => {
                let room = parse::<chat::Joined<'_>>(payload).room.to_owned();
                if self.rooms.insert(room.clone()) {
                    self.partial.insert(room.clone(), BTreeMap::new());
                }
                self.tell(Happened::Joined(room));
            }
            chat::Left::KIND => {
                let room = parse::<chat::Left<'_>>(payload).room.to_owned();
                self.rooms.remove(&room);
                self.leaving.remove(&room);
                self.partial.remove(&room);
                self.rows.remove(&room);
                *self.stays.entry(room.clone()).or_default() += 1;
                self.tell(Happened::Left(room));
            }
            chat::Status::KIND => {
                let status: chat::Status<'_> = parse(payload);
                assert!(status.mt.0 <= status.ma, "{}: MT ≤ MA: {status:?}", self.name);
                self.tell(Happened::Status(status.ma, status.mt.0));
            }
            chat::Page::KIND => self.on_page(&parse(payload)),
            _ => self.on_event(frame),
        }
    }

    fn on_bye(&mut self, bye: &Bye<'_>) {
        self.tell(Happened::Ended(bye.reason));
        match bye.reason {
            Reason::Superseded | Reason::Goodbye => self.stop(),
            Reason::Full if bye.next.is_empty() => {
                self.hops = 0;
                let server = self.server.clone();
                self.go_to(&server, u64::from(bye.retry_ms) * 1_000);
            }
            Reason::Draining if !bye.next.is_empty() => self.go_to(bye.next, 0),
            Reason::Joining => {
                let next = self.next_server();
                self.go_to(&next, RETRY_US);
            }
            Reason::BadFrame | Reason::BadRequest | Reason::Unexpected | Reason::OutOfOrder => {
                panic!("{} was closed for what it sent: {bye:?}", self.name);
            }
            _ => {
                self.happened.pop();
                self.happened_at.pop();
                self.lose(self.now, bye.reason);
            }
        }
    }

    fn on_attached(&mut self, attached: &Attached<'_>) {
        self.state = State::Attached;
        self.changed = self.now;
        self.failures = 0;
        self.hops = 0;
        assert!(self.session.is_none_or(|known| known == attached.session));
        self.session = Some(attached.session);
        attached.name.clone_into(&mut self.name);
        for (origin, number) in attached.cut {
            let maps = self.partial.values_mut().chain([&mut self.seen, &mut self.seen_any]);
            for seen in maps.chain([&mut self.told]) {
                if let Some(seen) = seen.get_mut(&origin) {
                    *seen = number.min(*seen);
                }
            }
            self.held.retain(|(held, n), _| *held != origin || *n <= number);
            for own in &mut self.queue {
                own.after.iter_mut().filter(|(o, _)| *o == origin).for_each(|pair| {
                    pair.1 = pair.1.min(number);
                });
            }
        }
        assert!(attached.mt <= attached.ma, "{}: MT ≤ MA at the attach: {attached:?}", self.name);
        let granted: BTreeSet<String> = attached.rooms.iter().map(str::to_owned).collect();
        assert!(granted.contains("#all"));
        self.rooms = granted;
        self.intent = Intent::Resume;
        self.has = attached.author_number;
        assert!(self.has <= self.last_number, "{}: numbers never given", self.name);
        self.tell(Happened::Attached(self.server.clone(), self.name.clone()));
        let first = self.has + 1;
        if self.queue.front().map_or(self.last_number + 1, |own| own.number) > first {
            return self.number_anew();
        }
        for number in first..=self.last_number {
            self.send_own(number);
        }
        self.settle();
    }

    /// The cluster lacks messages that are not kept any more: what is not acknowledged is said
    /// again by another author, numbered from 1.
    fn number_anew(&mut self) {
        self.process = cordee_core::prng::mix(self.process);
        self.queue.retain(|own| !own.acked);
        let mut said = Vec::new();
        for (number, own) in (1..).zip(&mut self.queue) {
            (own.number, own.seen) = (number, false);
            said.push((number, own.scope.clone(), own.body.clone()));
        }
        self.last_number = self.queue.len() as u64;
        self.has = 0;
        self.tell(Happened::NumberedAnew(said));
        let server = self.server.clone();
        self.go_to(&server, 0);
    }

    fn send_own(&mut self, number: u64) {
        let own = self.queue.iter().find(|own| own.number == number).expect("kept").clone();
        let reference = |origin: &Origin| {
            self.refs
                .iter()
                .position(|known| known.is_some_and(|(known, _)| known == *origin))
                .map(|at| OriginRef(at as u32))
        };
        let after: Vec<(OriginRef, u64)> = own
            .after
            .iter()
            .filter(|(origin, number)| *number > 0 && !self.given_up.contains(origin))
            .map(|(origin, number)| {
                let known = reference(origin);
                (known.unwrap_or_else(|| panic!("{}: {origin:?} is unknown", self.name)), *number)
            })
            .collect();
        let scope = parse_scope(&own.scope);
        let say = chat::Say { number, scope, after: Seq::new(&after), body: &own.body };
        let mut bytes = Vec::new();
        say.put_frame(&mut bytes);
        self.actions.push_back(Action::Send(bytes));
    }

    fn on_want(&mut self, want: &chat::Want<'_>) {
        let mut back: Vec<(u64, Origin, u64)> = Vec::new();
        if !self.forgetful {
            for (origin, first, last) in want.ranges {
                for ((_, number), (clock, ..)) in self.held.range((origin, first)..=(origin, last))
                {
                    back.push((*clock, origin, *number));
                }
            }
        }
        back.sort_unstable();
        let count = back.len() as u64;
        for (_, origin, number) in back {
            let (_, bytes, tag) = self.held[&(origin, number)].clone();
            let entry = Portable::take(&mut Reader::new(&bytes)).expect("kept as it was built");
            self.put(&chat::Return { entry, tag });
        }
        self.tell(Happened::Wanted(count));
        self.put(&chat::Returned { count });
    }

    // Messages.

    fn on_entry(&mut self, entry: &Entry<'_>) {
        let origin = self.origin(entry.origin);
        self.refs[entry.origin.0 as usize] = Some((origin, self.now));
        let scope = scope_key(&entry.scope);
        let replay = entry.flags & flags::REPLAY != 0;
        assert!(
            scope.starts_with('@') || self.rooms.contains(&scope),
            "{}: not its room",
            self.name
        );
        if let Scope::Talk { low, high, .. } = entry.scope {
            let me = self.session.expect("attached");
            assert!(me == low || me == high, "{}: a talk of others", self.name);
        }
        let vector = match self.partial.get_mut(&scope) {
            Some(partial) => {
                assert!(replay, "{}: nothing of {scope} comes live before it caught up", self.name);
                partial
            }
            None => &mut self.seen,
        };
        let seen = vector.entry(origin).or_default();
        assert!(
            *seen < entry.number,
            "{}: {origin:?} {} comes after {seen} was seen",
            self.name,
            entry.number
        );
        *seen = entry.number;
        let any = self.seen_any.entry(origin).or_default();
        *any = entry.number.max(*any);
        let after: Vec<(Origin, u64)> =
            entry.after.iter().map(|(origin, number)| (self.origin(origin), number)).collect();
        self.keep(entry, origin, &after);
        let me = self.author();
        if Some(entry.author) == me {
            if let Some(own) = self.queue.iter_mut().find(|o| o.number == entry.author_number) {
                assert_eq!(own.body, entry.body, "its own message as it said it");
                own.seen = true;
            }
            self.settle();
        }
        assert!(entry.flags & flags::COPY == 0, "{}: a client is sent rows only", self.name);
        let row = (entry.author, entry.author_number);
        if !self.rows.entry(scope.clone()).or_default().insert(row) {
            return;
        }
        let stay = self.stays.get(&scope).copied().unwrap_or(0);
        self.shown.push(Shown {
            author: entry.author,
            number: entry.author_number,
            scope,
            name: entry.name.to_owned(),
            body: entry.body.to_owned(),
            replay,
            own: Some(entry.author) == me,
            stay,
            index: entry.index,
            is_final: entry.flags & flags::FINAL != 0,
        });
    }

    fn keep(&mut self, entry: &Entry<'_>, origin: Origin, after: &[(Origin, u64)]) {
        if self.stable.get(&origin).is_some_and(|stable| entry.number <= *stable) {
            return;
        }
        let portable = Portable {
            origin,
            number: entry.number,
            clock: entry.clock,
            author: entry.author,
            author_number: entry.author_number,
            name: entry.name,
            scope: entry.scope,
            after: Seq::new(after),
            body: entry.body,
        };
        let mut bytes = Vec::new();
        portable.put(&mut bytes);
        self.held.insert((origin, entry.number), (entry.clock.0, bytes, entry.tag));
    }

    fn origin(&self, reference: OriginRef) -> Origin {
        let known = self.refs.get(reference.0 as usize).copied().flatten();
        known.unwrap_or_else(|| panic!("{}: {reference:?} was not defined", self.name)).0
    }

    /// What the server had at the attach and is seen since is as good as acknowledged.
    fn settle(&mut self) {
        let has = self.has;
        for own in &mut self.queue {
            own.acked |= own.seen && own.number <= has;
        }
        self.release();
    }

    fn release(&mut self) {
        while self.queue.front().is_some_and(|own| own.acked && own.seen) {
            self.queue.pop_front();
        }
    }

    fn on_ack(&mut self, ack: &chat::Ack<'_>) {
        for (number, index) in (ack.first..).zip(ack.indexes) {
            let before = self.queue.iter().find(|own| !own.acked).map(|own| own.number);
            if let Some(own) = self.queue.iter_mut().find(|own| own.number == number) {
                if !own.acked {
                    assert_eq!(
                        before,
                        Some(number),
                        "{}: {}: acknowledged out of order",
                        Rule::InOrder.code(),
                        self.name
                    );
                }
                own.acked = true;
            } else {
                assert!(number <= self.last_number, "{}: only what was said", self.name);
            }
            self.tell(Happened::Acked(number, ack.copies, ack.durable, index));
        }
        self.release();
    }

    fn on_failed(&mut self, failed: &chat::Failed<'_>) {
        if failed.say {
            self.on_refused(failed.request, failed.reason);
        } else {
            self.lacks_name |= failed.request == 0 && self.state == State::Attaching;
            self.tell(Happened::Failed(failed.request, failed.reason));
        }
    }

    /// A message is not taken: those after it get the numbers before theirs and are sent again.
    fn on_refused(&mut self, number: u64, reason: Reason) {
        if self.stale > 0 {
            assert_eq!(
                reason,
                Reason::OutOfOrder,
                "{}: {number} comes after a refused one",
                self.name
            );
            self.stale -= 1;
            return;
        }
        assert!(
            number > self.said_before,
            "{}: {number}, which others may have: {reason:?}",
            self.name
        );
        let at = self.queue.iter().position(|own| own.number == number).expect("it was said");
        self.queue.remove(at);
        self.queue.iter_mut().filter(|own| own.number > number).for_each(|own| own.number -= 1);
        self.stale = self.last_number - number;
        self.last_number -= 1;
        self.tell(Happened::Refused(number, reason));
        for again in number..=self.last_number {
            self.send_own(again);
        }
    }

    fn on_stable(&mut self, stable: &chat::Stable<'_>) {
        for (reference, number) in stable.held {
            let origin = self.origin(reference);
            self.stable.insert(origin, number);
            self.held.retain(|(held, n), _| *held != origin || *n > number);
        }
    }

    fn on_caught_up(&mut self, room: &str) {
        if room.is_empty() {
            self.caught_up = true;
        } else if let Some(partial) = self.partial.remove(room) {
            for (origin, number) in partial {
                let seen = self.seen.entry(origin).or_default();
                *seen = number.max(*seen);
            }
        }
        if self.caught_up {
            // What the server had and did not send was trimmed there.
            let (has, partial) = (self.has, &self.partial);
            let trimmed = self.queue.iter_mut().filter(|own| own.number <= has);
            trimmed.for_each(|own| own.seen |= !partial.contains_key(&own.scope));
            self.settle();
        }
        self.tell(Happened::CaughtUp(room.to_owned()));
    }

    // Events and lists.

    fn on_event(&mut self, frame: Frame<'_>) {
        let payload = frame.payload;
        match frame.kind {
            chat::Arrived::KIND => {
                let arrived: chat::Arrived<'_> = parse(payload);
                let room = arrived.room.to_owned();
                if room.is_empty() {
                    let before = self.roster.get(&arrived.session);
                    assert!(before.is_none(), "{}: {arrived:?} was there: {before:?}", self.name);
                    let rooms = BTreeSet::new();
                    self.roster.insert(arrived.session, (arrived.name.to_owned(), rooms));
                } else if let Some((_, rooms)) = self.roster.get_mut(&arrived.session) {
                    rooms.insert(room.clone());
                }
                self.tell(Happened::Arrived(arrived.name.to_owned(), room));
            }
            chat::Departed::KIND => {
                let departed: chat::Departed<'_> = parse(payload);
                let room = departed.room.to_owned();
                if room.is_empty() {
                    let before = self.roster.remove(&departed.session);
                    assert!(before.is_some(), "{}: {departed:?} was not there", self.name);
                } else if let Some((_, rooms)) = self.roster.get_mut(&departed.session) {
                    rooms.remove(&room);
                }
                self.tell(Happened::Departed(departed.name.to_owned(), room));
            }
            chat::Renamed::KIND => {
                let renamed: chat::Renamed<'_> = parse(payload);
                let record = self.roster.get_mut(&renamed.session);
                let record = record.unwrap_or_else(|| panic!("{}: {renamed:?}", self.name));
                assert_eq!(record.0, renamed.from, "{}: the name before", self.name);
                renamed.to.clone_into(&mut record.0);
                if Some(renamed.session) == self.session {
                    renamed.to.clone_into(&mut self.name);
                }
                let (from, to) = (renamed.from.to_owned(), renamed.to.to_owned());
                self.tell(Happened::Renamed(from, to, renamed.reason));
            }
            chat::RoomMade::KIND => {
                let made: chat::RoomMade<'_> = parse(payload);
                self.tell(Happened::RoomMade(made.room.to_owned()));
            }
            chat::TopicSet::KIND => {
                let set: chat::TopicSet<'_> = parse(payload);
                self.tell(Happened::TopicSet(set.room.to_owned(), set.topic.to_owned()));
            }
            chat::UserList::KIND => self.on_users(&parse(payload)),
            chat::RoomList::KIND => {
                let list: chat::RoomList<'_> = parse(payload);
                self.room_list =
                    list.rooms.iter().map(|r| (r.room.to_owned(), r.users, r.entries)).collect();
            }
            kind => panic!("{}: a frame of kind {kind:#04x}", self.name),
        }
    }

    fn on_users(&mut self, list: &chat::UserList<'_>) {
        if list.request == 0 && self.users_parts.is_empty() {
            self.roster.clear();
        }
        for user in list.users {
            let entry = (user.name.to_owned(), user.online, user.server.to_owned());
            self.users_parts.push(entry);
            if list.request == 0 {
                let rooms = user.rooms.iter().map(str::to_owned).collect();
                self.roster.insert(user.session, (user.name.to_owned(), rooms));
            }
        }
        if !list.more {
            self.users = core::mem::take(&mut self.users_parts);
            self.users.sort();
        }
    }

    fn on_page(&mut self, page: &chat::Page<'_>) {
        if self.page_request != page.request {
            self.page_request = page.request;
            self.page.clear();
        }
        self.page_total = page.total;
        for entry in page.entries {
            self.page.push((entry.index, entry.body.to_owned()));
        }
    }
}

/// A scope's name in a script: a room, or `@` and the two sessions of a talk.
pub(crate) fn scope_key(scope: &Scope<'_>) -> String {
    match scope {
        Scope::Room(room) => (*room).to_owned(),
        Scope::Talk { low, high, .. } => format!("@{low}-{high}"),
    }
}

fn parse<'a, M: Message<'a>>(payload: &'a [u8]) -> M {
    M::parse(payload).expect("a server sends valid messages")
}

/// What [`scope_key`] gave.
pub(crate) fn parse_scope(scope: &str) -> Scope<'_> {
    match scope.strip_prefix('@').and_then(|pair| pair.split_once('-')) {
        None => Scope::Room(scope),
        Some((low, high)) => {
            let id = |hex| SessionId(u64::from_str_radix(hex, 16).expect("a session"));
            Scope::Talk { low: id(low), high: id(high), other: "" }
        }
    }
}
