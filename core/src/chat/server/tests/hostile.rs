//! What nobody honest sends: it ends a connection at the most, and costs what it may cost.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::super::{ChatServer, Config, Effect, Input, Source};
use crate::Limits;
use crate::framing::frames;
use crate::hash::ClusterKey;
use crate::ids::{Clock, ConnId, Origin, OriginRef, ServerId, SessionSecret, Tag};
use crate::machine::Machine;
use crate::outbox::Outbox;
use crate::time::{SECOND_US, Time, Wall};
use crate::wire::chat::{
    AskHistory, AskServer, Attach, Attached, CaughtUp, Failed, Intent, Page, Partial, Say, Want,
};
use crate::wire::entry::{OriginDef, Scope};
use crate::wire::hello::{Bye, Hello, Magic, Role, Transport};
use crate::wire::peer::{PeerHello, Pull, ServerState};
use crate::wire::{Fixed64, Message, Reason, Seq, VECTOR_PAIRS_MAX, WireError};

/// A server that is alone and serves, and what it sent.
pub(super) struct Lone {
    pub(super) server: ChatServer,
    pub(super) now: Time,
    out: Outbox<Effect>,
    /// Kinds and payloads, by connection.
    pub(super) sent: Vec<(ConnId, u8, Vec<u8>)>,
    pub(super) closed: Vec<(ConnId, Reason)>,
    pub(super) discarded: Vec<ConnId>,
    /// Every effect with the bytes that it is about.
    pub(super) all: Vec<(Effect, Vec<u8>)>,
}

impl Lone {
    pub(super) fn new() -> Lone {
        Lone::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Lone {
        limits.validate().expect("limits that make sense");
        let config = Config {
            cluster: String::from("cordee"),
            advertise: String::from("127.0.0.1:5000"),
            peers: Vec::new(),
            copies: 2,
            allow_kill: false,
            pid: 1,
            incarnation: 1,
            entropy: [7; 64],
            wall: Wall(1_767_225_600_000_000),
            limits,
        };
        let mut lone = Lone {
            server: ChatServer::new(config, 1, Time::ZERO),
            now: Time::ZERO,
            out: Outbox::new(),
            sent: Vec::new(),
            closed: Vec::new(),
            discarded: Vec::new(),
            all: Vec::new(),
        };
        for _ in 0..3 {
            lone.now = lone.now + SECOND_US;
            lone.server.handle_timeout(lone.now, &mut lone.out);
            lone.drain();
        }
        lone
    }

    pub(super) fn drain(&mut self) {
        let Lone { out, sent, closed, discarded, all, .. } = self;
        out.drain(|effect, arena| {
            if all.len() < 1_000 {
                all.push((effect, arena.to_vec()));
            }
            match effect {
                Effect::Send { conn, bytes, .. } | Effect::SendAt { conn, bytes, .. } => {
                    let frames = frames(&arena[bytes.range()]);
                    sent.extend(frames.map(|frame| (conn, frame.kind, frame.payload.to_vec())));
                }
                Effect::Close { conn, reason } => closed.push((conn, reason)),
                Effect::Discard { conn } => discarded.push(conn),
                _ => {}
            }
        });
        self.server.check();
    }

    pub(super) fn input(&mut self, input: Input<'_>) {
        self.server.handle_input(self.now, input, &mut self.out);
        self.drain();
    }

    pub(super) fn tell<'a>(&mut self, conn: ConnId, message: &impl Message<'a>) {
        let mut bytes = Vec::new();
        message.put_frame(&mut bytes);
        let frame = frames(&bytes).next().expect("one frame");
        self.input(Input::Frame { conn, frame });
        self.server.handle_timeout(self.now, &mut self.out);
        self.drain();
    }

    pub(super) fn accept(&mut self) -> ConnId {
        let source = Source { address: 1, loopback: true };
        self.server.accept(self.now, source, &mut self.out).expect("a place")
    }

    pub(super) fn greet(&mut self, role: Role) -> ConnId {
        let conn = self.accept();
        self.tell(conn, &hello(role));
        conn
    }

    pub(super) fn attach(&mut self) -> ConnId {
        let conn = self.greet(Role::Client);
        self.tell(conn, &attach());
        assert_eq!(self.count(conn, Attached::KIND), 1);
        conn
    }

    /// A second.
    pub(super) fn time_passes(&mut self) {
        self.now = self.now + SECOND_US;
        self.server.handle_timeout(self.now, &mut self.out);
        self.drain();
    }

    pub(super) fn say_hello_and_attach(&mut self, conn: ConnId) {
        self.tell(conn, &hello(Role::Client));
        self.tell(conn, &attach());
    }

    /// Attaches the so-manyth user, without what follows.
    pub(super) fn attach_as(&mut self, user: u16) -> ConnId {
        let conn = self.greet(Role::Client);
        let name = alloc::format!("user{user}");
        let [high, low] = user.to_be_bytes();
        let mut secret = [1; 16];
        (secret[0], secret[1]) = (high, low);
        self.tell(conn, &Attach { secret: SessionSecret(secret), name: &name, ..attach() });
        conn
    }

    /// All that was sent to a connection has left. Returns whether more was sent at that.
    pub(super) fn reads(&mut self, conn: ConnId) -> bool {
        let before = self.sent.len();
        self.input(Input::Drained { conn, bytes: u32::MAX });
        self.sent.len() > before
    }

    /// Says so many messages of 8 000 bytes.
    pub(super) fn fill(&mut self, conn: ConnId, messages: u64) {
        let body = "b".repeat(8_000);
        for number in 1..=messages {
            let scope = Scope::Room("#all");
            self.tell(conn, &Say { number, scope, after: Seq::default(), body: &body });
            self.reads(conn);
        }
    }

    pub(super) fn count(&self, conn: ConnId, kind: u8) -> usize {
        self.sent.iter().filter(|sent| (sent.0, sent.1) == (conn, kind)).count()
    }

    pub(super) fn reason(&self, conn: ConnId) -> Option<Reason> {
        self.closed.iter().find(|closed| closed.0 == conn).map(|closed| closed.1)
    }
}

fn hello(role: Role) -> Hello<'static> {
    Hello {
        magic: Magic,
        major: 1,
        minor: 0,
        role,
        transport: Transport::Plain,
        key_id: Fixed64(0),
        cluster: "cordee",
    }
}

fn attach() -> Attach<'static> {
    Attach {
        secret: SessionSecret([1; 16]),
        process: Fixed64(1),
        attachment: 1,
        intent: Intent::New,
        name: "ada",
        reservation: Fixed64(0),
        hops: 0,
        author_number: 0,
        rooms: Seq::default(),
        seen: Seq::default(),
        partial: Seq::default(),
    }
}

fn origins(count: usize) -> Vec<(Origin, u64)> {
    (0..count as u64)
        .map(|nonce| (Origin { server: ServerId(9), incarnation: 1, nonce }, u64::MAX))
        .collect()
}

#[test]
fn first_bytes_that_are_no_frame_are_not_the_protocol() {
    let mut lone = Lone::new();
    for (error, hello_first, reason) in [
        (WireError::FrameTooLong, false, Reason::NotCordee),
        (WireError::EmptyFrame, false, Reason::NotCordee),
        (WireError::FrameTooLong, true, Reason::BadFrame),
    ] {
        let conn = if hello_first { lone.greet(Role::Client) } else { lone.accept() };
        lone.input(Input::Broken { conn, error });
        assert_eq!(lone.reason(conn), Some(reason));
        assert_eq!(lone.count(conn, Bye::KIND), 1);
    }
}

#[test]
fn a_client_that_saw_more_origins_than_there_can_be_is_asked_for_what_fits_a_frame() {
    let mut lone = Lone::new();
    let seen = origins(VECTOR_PAIRS_MAX + 1);
    for (count, want, reason) in
        [(VECTOR_PAIRS_MAX, 1, None), (VECTOR_PAIRS_MAX + 1, 0, Some(Reason::BadFrame))]
    {
        let conn = lone.greet(Role::Client);
        let intent = Intent::Resume;
        lone.tell(conn, &Attach { intent, seen: Seq::new(&seen[..count]), ..attach() });
        assert_eq!(lone.count(conn, Want::KIND), want);
        assert_eq!(lone.reason(conn), reason);
    }
}

#[test]
fn a_room_that_is_named_often_is_sent_once() {
    let mut lone = Lone::new();
    let partial = Partial { room: "#all", seen: Seq::default() };
    let many = vec![partial; 2_000];
    let conn = lone.greet(Role::Client);
    lone.tell(conn, &Attach { partial: Seq::new(&many), ..attach() });
    assert_eq!(lone.reason(conn), Some(Reason::TooManyRooms));
    let conn = lone.greet(Role::Client);
    lone.tell(conn, &Attach { partial: Seq::new(&many[..60]), ..attach() });
    let caught_up: Vec<_> =
        lone.sent.iter().filter(|sent| (sent.0, sent.1) == (conn, CaughtUp::KIND)).collect();
    let rooms: Vec<_> =
        caught_up.iter().map(|sent| CaughtUp::parse(&sent.2).expect("valid").room).collect();
    assert_eq!(rooms, ["", "#all"]);
}

#[test]
fn numbers_at_the_end_of_their_range_do_not_wrap() {
    let mut lone = Lone::new();
    let conn = lone.greet(Role::Client);
    lone.tell(conn, &Attach { attachment: u32::MAX, ..attach() });
    let again = lone.greet(Role::Client);
    lone.tell(again, &Attach { attachment: u32::MAX, intent: Intent::Resume, ..attach() });
    assert_eq!(lone.reason(conn), Some(Reason::Superseded));
    assert_eq!(lone.count(again, Attached::KIND), 1);
    let say =
        Say { number: u64::MAX, scope: Scope::Room("#all"), after: Seq::default(), body: "x" };
    lone.tell(again, &say);
    assert_eq!(lone.count(again, Failed::KIND), 1);
    let (scope, from) = (Scope::Room("#all"), u64::MAX);
    lone.tell(again, &AskHistory { request: 1, scope, from, count: u32::MAX });
    assert_eq!(lone.count(again, Page::KIND), 1);
}

#[test]
fn who_asks_and_does_not_read_gets_no_more_than_its_queue_holds() {
    let mut lone = Lone::new();
    let conn = lone.attach();
    let body = "b".repeat(8_000);
    for number in 1..=300 {
        let scope = Scope::Room("#all");
        lone.tell(conn, &Say { number, scope, after: Seq::default(), body: &body });
    }
    lone.sent.clear();
    let observer = lone.greet(Role::Observer);
    for request in 1..=100 {
        let scope = Scope::Room("#all");
        lone.tell(conn, &AskHistory { request, scope, from: 1, count: 1_000 });
        lone.tell(observer, &AskServer { users: true });
    }
    let bytes: usize = lone.sent.iter().map(|(_, _, payload)| payload.len()).sum();
    let queue = Limits::default().queue_bytes_max as usize;
    assert!(bytes < 2 * queue + (64 << 10), "{bytes} bytes are queued");
    assert!(lone.count(conn, Failed::KIND) > 90);
    assert_eq!(lone.reason(conn), None);
}

#[test]
fn a_peer_at_the_ends_of_its_ranges_is_borne() {
    let mut lone = Lone::new();
    let conn = lone.greet(Role::Peer);
    let server = ServerId(5);
    let origin = Origin { server, incarnation: u32::MAX, nonce: 1 };
    let hello = PeerHello {
        server,
        origin,
        address: "x:1",
        cluster_id: Tag::default(),
        founded: Clock(u64::MAX),
        key: ClusterKey([0; 32]),
        clock: Clock(0),
        final_clock: Clock(u64::MAX),
        known_incarnation: u32::MAX,
        state: ServerState::Active,
        members: Seq::default(),
    };
    lone.tell(conn, &hello);
    lone.tell(conn, &Pull { origin: lone.server.origin(), from: u64::MAX, to: u64::MAX });
    lone.tell(conn, &OriginDef { reference: OriginRef(u32::MAX), origin });
    assert_eq!(lone.reason(conn), Some(Reason::BadFrame));
}
