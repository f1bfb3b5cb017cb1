//! The client against a scripted server: bytes in, bytes out, events as sentences.

mod arriving;
mod commands;
mod failover;
mod rooms;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::*;
use crate::framing::frames;
use crate::ids::{Clock, Origin, OriginRef, ServerId, SessionSecret, Tag};
use crate::wire::chat::{self, Attached, CaughtUp, ServerInfo, Servers, UserInfo, UserList};
use crate::wire::entry::{Entry, OriginDef, Scope, flags};
use crate::wire::hello::{Bye, Hello, Ping, Pong, Welcome};
use crate::wire::{Fixed64, Message as Wire, Seq};

const A: &str = "127.0.0.1:5000";
const B: &str = "127.0.0.1:5001";
const C: &str = "127.0.0.1:5002";
const SECRET: SessionSecret = SessionSecret([7; 16]);
/// Drawn by the client under test.
const PROCESS: u64 = 77;

/// The client, the world around it, and what it did.
struct Rig {
    client: ChatClient,
    now: Time,
    out: Outbox<Effect>,
    /// Connections that were asked for and not closed, by address, the newest last.
    dialled: Vec<(LinkId, String)>,
    sent: BTreeMap<LinkId, Vec<String>>,
    closed: Vec<LinkId>,
    events: Vec<String>,
}

fn config(servers: &[&str], name: &str) -> Config {
    Config {
        cluster: "test".into(),
        servers: servers.iter().map(ToString::to_string).collect(),
        name: name.into(),
        rooms: Vec::new(),
        secret: SECRET,
        process: PROCESS,
        attachment: 10,
        reset: false,
        limits: ClientLimits::default(),
    }
}

/// The server at a port: its id, and its origin.
fn server_at(address: &str) -> ServerId {
    ServerId(u64::from(split_address(address).expect("an address").1))
}

fn origin_of(address: &str) -> Origin {
    Origin { server: server_at(address), incarnation: 1, nonce: 9 }
}

fn me() -> SessionId {
    crate::hash::session_id("test", &SECRET)
}

fn own_author() -> AuthorId {
    AuthorId { session: me(), process: PROCESS }
}

const BOB: AuthorId = AuthorId { session: SessionId(2), process: 5 };

/// An entry of Bob's in the common room, of the server's own origin.
fn entry(number: u64, author_number: u64, body: &str) -> Entry<'_> {
    Entry {
        origin: OriginRef(0),
        number,
        clock: Clock(1_000 + number),
        author: BOB,
        author_number,
        name: "bob",
        scope: Scope::Room("#all"),
        after: Seq::default(),
        body,
        tag: Tag([3; 16]),
        index: number,
        flags: 0,
    }
}

/// An entry of the client under test, in the common room.
fn own_entry(number: u64, author_number: u64) -> Entry<'static> {
    Entry { author: own_author(), name: "ada", ..entry(number, author_number, "own") }
}

fn replayed(entry: Entry<'_>) -> Entry<'_> {
    Entry { flags: flags::REPLAY, ..entry }
}

impl Rig {
    fn new(config: Config) -> Rig {
        let mut rig = Rig {
            client: ChatClient::new(config, 1, Time(0)),
            now: Time(0),
            out: Outbox::new(),
            dialled: Vec::new(),
            sent: BTreeMap::new(),
            closed: Vec::new(),
            events: Vec::new(),
        };
        rig.wait(0);
        rig
    }

    /// A client named ada, attached at A, that knows A, B and C, and of Bob; and its connection.
    fn attached() -> (Rig, LinkId) {
        Rig::attached_with(config(&[A], "ada"))
    }

    fn attached_with(config: Config) -> (Rig, LinkId) {
        let mut rig = Rig::new(config);
        let link = rig.open(A);
        rig.attach(link, |_| ());
        rig.events.clear();
        (rig, link)
    }

    /// As [`attached`](Rig::attached), with a standby at B.
    fn with_standby() -> (Rig, LinkId, LinkId) {
        let (mut rig, link) = Rig::attached();
        let standby = rig.open(B);
        (rig, link, standby)
    }

    /// The server answers the connection that was last asked for, which must be to `address`.
    fn open(&mut self, address: &str) -> LinkId {
        let (link, dialled) = self.dialled.last().expect("a connection was asked for").clone();
        assert_eq!(dialled, address);
        self.input(Input::Opened { link });
        assert_eq!(self.take_sent(link), ["hello test"]);
        self.feed(link, &welcome(address));
        link
    }

    /// The server grants what the client asks for, and has nothing to send; `change` may differ.
    fn attach<'m>(&mut self, link: LinkId, change: impl FnOnce(&mut Attached<'m>)) {
        let asked = self.take_sent(link);
        assert!(asked.last().is_some_and(|sent| sent.starts_with("attach ada")), "{asked:?}");
        let resume = asked.iter().any(|sent| sent.contains("Resume"));
        let mut attached = Attached {
            session: me(),
            name: "ada",
            intent: if resume { chat::Intent::Resume } else { chat::Intent::New },
            author_number: 0,
            ma: 0,
            mt: 0,
            cut: Seq::default(),
            rooms: Seq::new(&["#all"]),
        };
        change(&mut attached);
        self.feed(link, &attached);
        let info = |address| ServerInfo {
            server: server_at(address),
            address,
            state: chat::MemberState::Linked,
        };
        self.feed(link, &Servers { servers: Seq::new(&[info(C), info(A), info(B)]) });
        let user = |session, name| UserInfo {
            session,
            name,
            online: true,
            server: A,
            rooms: Seq::new(&["#all"]),
        };
        let users = [user(me(), "ada"), user(BOB.session, "bob")];
        self.feed(link, &UserList { request: 0, more: false, users: Seq::new(&users) });
    }

    fn caught_up(&mut self, link: LinkId) {
        self.feed(link, &CaughtUp { room: "" });
        assert_eq!(self.events.pop().as_deref(), Some("caught up"));
    }

    fn feed<'m>(&mut self, link: LinkId, message: &impl Wire<'m>) {
        let mut bytes = Vec::new();
        message.put_frame(&mut bytes);
        self.input(Input::Heard { link });
        for frame in frames(&bytes) {
            self.input(Input::Frame { link, frame });
        }
    }

    fn command(&mut self, command: Command) {
        self.input(Input::Command(command));
    }

    fn say(&mut self, body: &str, reference: u64) {
        let to = Target::Room("#all".into());
        self.command(Command::Say { to, body: body.into(), reference });
    }

    fn input(&mut self, input: Input<'_>) {
        self.client.handle_input(self.now, input, &mut self.out);
        self.drain();
    }

    /// Time passes: every deadline on the way fires.
    fn wait(&mut self, us: u64) {
        let until = self.now + us;
        while let Some(at) = self.client.poll_timeout().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.client.handle_timeout(self.now, &mut self.out);
            assert!(self.client.poll_timeout().is_none_or(|next| next > self.now));
            self.drain();
        }
        self.now = until;
    }

    /// Nothing is under way; time passes until a connection is asked for.
    fn wait_for_dial(&mut self) {
        assert!(self.dialled.is_empty());
        while self.dialled.is_empty() {
            let next = self.client.poll_timeout().expect("it tries again");
            self.wait(next.since_us(self.now));
        }
    }

    fn drain(&mut self) {
        self.client.check();
        let mut out = core::mem::take(&mut self.out);
        for effect in out.effects() {
            match *effect {
                Effect::Connect { link, address } => {
                    let address = core::str::from_utf8(out.bytes(address)).expect("text");
                    self.dialled.push((link, address.into()));
                }
                Effect::Send { link, bytes } => {
                    assert!(self.is_open(link), "nothing is sent on a connection that is closed");
                    let sent = self.sent.entry(link).or_default();
                    let told = frames(out.bytes(bytes)).map(|frame| sent_as_text(&frame));
                    sent.extend(told);
                }
                Effect::Close { link } => {
                    assert!(self.is_open(link), "a connection is closed once");
                    self.dialled.retain(|(open, _)| *open != link);
                    self.closed.push(link);
                }
                Effect::Tell(event) => self.events.push(event_as_text(&event, &out)),
            }
        }
        out.clear();
        self.out = out;
    }

    fn is_open(&self, link: LinkId) -> bool {
        self.dialled.iter().any(|(open, _)| *open == link)
    }

    /// The stream ends.
    fn end(&mut self, link: LinkId) {
        self.dialled.retain(|(open, _)| *open != link);
        self.input(Input::Closed { link });
    }

    /// The connection that was last asked for fails.
    fn refuse(&mut self, address: &str) {
        let (link, dialled) = self.dialled.pop().expect("a connection was asked for");
        assert_eq!(dialled, address);
        self.input(Input::Failed { link });
    }

    /// What was sent on a connection since this was last asked, pings left out.
    fn take_sent(&mut self, link: LinkId) -> Vec<String> {
        let mut sent = self.sent.remove(&link).unwrap_or_default();
        sent.retain(|sent| sent != "ping");
        sent
    }

    fn take_events(&mut self) -> Vec<String> {
        core::mem::take(&mut self.events)
    }
}

fn vector(seen: Seq<'_, (Origin, u64)>) -> String {
    let pairs: Vec<String> =
        seen.iter().map(|(origin, number)| format!("{}:{number}", origin.server.0)).collect();
    pairs.join(" ")
}

fn scope_as_text(scope: Scope<'_>) -> String {
    match scope {
        Scope::Room(room) => room.into(),
        Scope::Talk { low, high, other } => {
            let session = if low == me() { high } else { low };
            format!("@{other}({})", session.0)
        }
    }
}

fn sent_as_text(frame: &crate::framing::Frame<'_>) -> String {
    let bytes = frame.payload;
    match frame.kind {
        Hello::KIND => format!("hello {}", Hello::parse(bytes).expect("valid").cluster),
        Ping::KIND => "ping".into(),
        Pong::KIND => "pong".into(),
        chat::Attach::KIND => {
            let attach = chat::Attach::parse(bytes).expect("valid");
            assert_eq!(attach.secret, SECRET);
            let rooms: Vec<&str> = attach.rooms.iter().collect();
            let mut text = format!(
                "attach {} #{} {:?} own {} in {} seen [{}]",
                attach.name,
                attach.attachment,
                attach.intent,
                attach.author_number,
                rooms.join(" "),
                vector(attach.seen)
            );
            for partial in attach.partial {
                text += &format!(" {} [{}]", partial.room, vector(partial.seen));
            }
            if attach.hops > 0 {
                text += &format!(" hop {} key {}", attach.hops, attach.reservation.0);
            }
            text
        }
        chat::Say::KIND => {
            let say = chat::Say::parse(bytes).expect("valid");
            let after: Vec<String> =
                say.after.iter().map(|(origin, number)| format!("{}:{number}", origin.0)).collect();
            let (number, body) = (say.number, say.body);
            format!("say {number} {} after [{}] {body}", scope_as_text(say.scope), after.join(" "))
        }
        chat::Join::KIND => format!("join {}", chat::Join::parse(bytes).expect("valid").room),
        chat::Leave::KIND => format!("leave {}", chat::Leave::parse(bytes).expect("valid").room),
        chat::SetTopic::KIND => {
            let topic = chat::SetTopic::parse(bytes).expect("valid");
            format!("topic {} {}", topic.room, topic.topic)
        }
        chat::SetName::KIND => format!("name {}", chat::SetName::parse(bytes).expect("valid").name),
        chat::AskUsers::KIND => "users?".into(),
        chat::AskRooms::KIND => "rooms?".into(),
        chat::AskStatus::KIND => "status?".into(),
        chat::AskHistory::KIND => {
            let ask = chat::AskHistory::parse(bytes).expect("valid");
            format!("history? {} {}+{}", scope_as_text(ask.scope), ask.from, ask.count)
        }
        chat::Search::KIND => {
            format!("search? {}", chat::Search::parse(bytes).expect("valid").words)
        }
        chat::KillServer::KIND => "kill".into(),
        chat::Quit::KIND => "quit".into(),
        chat::Return::KIND => {
            let entry = chat::Return::parse(bytes).expect("valid").entry;
            format!("return {}:{} {}", entry.origin.server.0, entry.number, entry.body)
        }
        chat::Returned::KIND => {
            format!("returned {}", chat::Returned::parse(bytes).expect("valid").count)
        }
        kind => panic!("a frame of kind {kind:#04x}"),
    }
}

fn event_as_text(event: &Event, out: &Outbox<Effect>) -> String {
    let text = |span| core::str::from_utf8(out.bytes(span)).expect("text");
    let names = |span| items::<&str>(out.bytes(span)).collect::<Vec<_>>().join(" ");
    let place = |place: Place<Span>| match place {
        Place::Room(room) => text(room).to_string(),
        Place::Talk { session, name } => format!("@{}({})", text(name), session.0),
    };
    let bodies = |span| {
        items::<Entry<'_>>(out.bytes(span)).map(|entry| entry.body).collect::<Vec<_>>().join(" ")
    };
    match *event {
        Event::Connected { server, servers, name, rooms, attachment } => format!(
            "connected {} of [{}] as {} in {} #{attachment}",
            text(server),
            names(servers),
            text(name),
            names(rooms)
        ),
        Event::Disconnected { server, why } => {
            format!("disconnected {} {}", text(server), why.word())
        }
        Event::Reset { held } => format!("reset {held}"),
        Event::Servers { servers } => format!("servers [{}]", names(servers)),
        Event::Message(message) => {
            let (place, from, body) =
                (place(message.place), text(message.from), text(message.body));
            let replay = if message.replay { " replay" } else { "" };
            let own = if message.own { " own" } else { "" };
            format!("{place} {from}: {body} #{}{replay}{own}", message.index)
        }
        Event::Sent { reference, id, index, copies, .. } => {
            format!("sent {reference} number {} #{index} copies {copies}", id.number)
        }
        Event::Arrived { name, room } => format!("arrived {} {}", text(name), text(room)),
        Event::Departed { name, room } => format!("departed {} {}", text(name), text(room)),
        Event::Renamed { from, to, own, why } => {
            let own = if own { " own" } else { "" };
            let why = why.map_or("", Reason::word);
            format!("renamed {} {}{own} {why}", text(from), text(to))
        }
        Event::RoomMade { room } => format!("room {}", text(room)),
        Event::Topic { room, topic, by } => {
            format!("topic {} {} by {}", text(room), text(topic), text(by))
        }
        Event::Joined { room, topic, reference } => {
            format!("joined {} ({}) {reference}", text(room), text(topic))
        }
        Event::Left { room, reference } => format!("left {} {reference}", text(room)),
        Event::Users { reference, users } => {
            let users = items::<UserInfo<'_>>(out.bytes(users)).map(|user| user.name);
            format!("users {reference} [{}]", users.collect::<Vec<_>>().join(" "))
        }
        Event::Rooms { reference, rooms } => {
            let rooms = items::<chat::RoomInfo<'_>>(out.bytes(rooms)).map(|room| room.room);
            format!("rooms {reference} [{}]", rooms.collect::<Vec<_>>().join(" "))
        }
        Event::History { reference, place: of, total, entries } => {
            format!("history {reference} {} {total} [{}]", place(of), bodies(entries))
        }
        Event::Search { reference, total, entries } => {
            format!("search {reference} {total} [{}]", bodies(entries))
        }
        Event::Status { reference, ma, mt, held, .. } => {
            format!("status {reference} ma {ma} mt {mt} held {held}")
        }
        Event::Done { reference } => format!("done {reference}"),
        Event::CaughtUp { room } => format!("caught up {}", text(room)).trim_end().into(),
        Event::Error { reference, reason, .. } => format!("error {reference} {}", reason.word()),
        Event::Closed { why, unacknowledged } => {
            let left = items::<(u64, &str)>(out.bytes(unacknowledged));
            let left: Vec<String> = left.map(|(reference, _)| reference.to_string()).collect();
            format!("closed {} [{}]", why.map_or("", Reason::word), left.join(" "))
        }
    }
}

fn welcome(address: &str) -> Welcome<'_> {
    Welcome {
        minor: 0,
        server: server_at(address),
        origin: origin_of(address),
        cluster_id: Tag([1; 16]),
        address,
        body_bytes_max: 8_192,
        ping_ms: 500,
    }
}

fn bye(reason: Reason) -> Bye<'static> {
    Bye { reason, retry_ms: 0, next: "", detail: "" }
}

/// Defines the origin of another server as reference 1.
fn define(rig: &mut Rig, link: LinkId, address: &str) {
    rig.feed(link, &OriginDef { reference: OriginRef(1), origin: origin_of(address) });
}

use crate::outbox::Span;
