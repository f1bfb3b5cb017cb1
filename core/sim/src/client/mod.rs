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

mod attach;
mod connection;
mod lists;
mod messages;
mod script;

const PING_US: u64 = 500_000;
const PINGS_MISSED_MAX: u64 = 3;
const RETRY_US: u64 = 20_000;
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
