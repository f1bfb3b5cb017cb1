//! What nobody honest sends: it ends a connection at the most, and costs what it may cost.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::super::{ChatServer, Config, Effect, Input, Source};
use crate::Limits;
use crate::framing::frames;
use crate::hash::ClusterKey;
use crate::ids::{
    AuthorId, Clock, ConnId, Origin, OriginRef, ServerId, SessionId, SessionSecret, Tag,
};
use crate::machine::Machine;
use crate::outbox::Outbox;
use crate::time::{SECOND_US, Time, Wall};
use crate::wire::chat::{
    AskHistory, AskServer, Attach, Attached, CaughtUp, Failed, Intent, Page, Partial, Return,
    Returned, Say, UserList, Want,
};
use crate::wire::entry::{OriginDef, Portable, Scope};
use crate::wire::hello::{Bye, Hello, Magic, Ping, Role, Transport, Welcome};
use crate::wire::peer::{Linked, PeerHello, Presence, Pull, ServerState, Session};
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
    /// Connections that are not read.
    pub(super) paused: Vec<ConnId>,
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
            paused: Vec::new(),
        };
        for _ in 0..3 {
            lone.now = lone.now + SECOND_US;
            lone.server.handle_timeout(lone.now, &mut lone.out);
            lone.drain();
        }
        lone
    }

    pub(super) fn drain(&mut self) {
        let Lone { out, sent, closed, discarded, paused, all, .. } = self;
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
                Effect::Pause { conn } => paused.push(conn),
                Effect::Unpause { conn } => paused.retain(|paused| *paused != conn),
                _ => {}
            }
        });
        self.server.check();
    }

    /// Has the server do something, and takes in what it wants done.
    pub(super) fn with_server(&mut self, act: impl FnOnce(&mut ChatServer, &mut Outbox<Effect>)) {
        act(&mut self.server, &mut self.out);
        self.drain();
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

pub(super) fn hello(role: Role) -> Hello<'static> {
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

pub(super) fn attach() -> Attach<'static> {
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
fn refusals_that_nobody_reads_stop_at_a_full_queue() {
    let mut lone = Lone::new();
    let conn = lone.attach();
    let queue = Limits::default().queue_bytes_max as usize;
    let say = Say { number: 9, scope: Scope::Room("#all"), after: Seq::default(), body: "x" };
    let mut bytes = 0;
    while !lone.paused.contains(&conn) {
        assert!(bytes < queue + 1_000, "{bytes} bytes are queued");
        lone.tell(conn, &say);
        bytes += lone.sent.drain(..).map(|(_, _, payload)| payload.len() + 5).sum::<usize>();
    }
    // The first answers, to its attachment, were not counted.
    lone.input(Input::Drained { conn, bytes: u32::MAX });
    assert!(!lone.paused.contains(&conn), "who reads again is read again");
}

#[test]
fn who_is_not_attached_and_reads_again_is_read_again() {
    let mut lone = Lone::new();
    for role in [Role::Observer, Role::Client] {
        let conn = lone.greet(role);
        let bytes = |lone: &Lone| -> usize {
            let bytes = lone.sent.iter().filter(|sent| sent.0 == conn);
            bytes.map(|(_, _, payload)| payload.len() + 5).sum()
        };
        let queue = Limits::default().queue_bytes_max as usize;
        while bytes(&lone) < queue {
            let before = lone.sent.len();
            for _ in 0..500 {
                lone.tell(conn, &Ping { nonce: u64::MAX });
            }
            assert_eq!(lone.sent.len(), before + 500);
            // So seldom that it is not paused for their number.
            lone.now = lone.now + SECOND_US;
            lone.server.handle_timeout(lone.now, &mut lone.out);
            lone.drain();
            lone.sent.retain(|sent| sent.0 == conn);
        }
        lone.tell(conn, &Ping { nonce: 1 });
        assert!(lone.paused.contains(&conn), "{role:?}: its queue is full");
        let bytes = bytes(&lone) as u32;
        lone.input(Input::Drained { conn, bytes });
        assert!(!lone.paused.contains(&conn), "{role:?}: its queue is empty");
    }
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

const DEAD: Origin = Origin { server: ServerId(9), incarnation: 1, nonce: 3 };
const SEEN: [(Origin, u64); 1] = [(DEAD, 2)];

fn secret(n: u8) -> SessionSecret {
    SessionSecret([n; 16])
}

fn session(n: u8) -> SessionId {
    crate::hash::session_id("cordee", &secret(n))
}

/// Ada's author.
fn ada() -> AuthorId {
    AuthorId { session: session(1), process: 1 }
}

/// Someone who saw what Ada said at a server that died.
fn resumes(n: u8, name: &'static str) -> Attach<'static> {
    let (intent, seen) = (Intent::Resume, Seq::new(&SEEN));
    Attach { secret: secret(n), intent, name, seen, ..attach() }
}

/// Hands back what Ada said there.
fn hand_back(lone: &mut Lone, conn: ConnId, number: u64, scope: Scope<'_>) {
    let entry = Portable {
        origin: DEAD,
        number,
        clock: Clock(1_767_225_600_000_000 + number),
        author: ada(),
        author_number: number,
        name: "ada",
        scope,
        after: Seq::default(),
        body: "hello",
    };
    let mut bytes = Vec::new();
    crate::wire::Field::put(&entry, &mut bytes);
    let tag = crate::hash::entry_tag(&ClusterKey([7; 32]), &bytes);
    lone.tell(conn, &Return { entry, tag });
}

/// A message of Ada's that Cyd did not see, and one that both saw.
fn hers() -> [Scope<'static>; 2] {
    [Scope::talk(session(1), session(2), "bob"), Scope::Room("#all")]
}

#[test]
fn what_one_hands_back_before_another_does_leaves_room_for_what_only_that_one_saw() {
    let mut lone = Lone::new();
    // Nobody knows Ada here: she is not waited for.
    let cyd = lone.greet(Role::Client);
    lone.tell(cyd, &resumes(3, "cyd"));
    assert_eq!(lone.count(cyd, Want::KIND), 1);
    hand_back(&mut lone, cyd, 2, hers()[1]);
    lone.tell(cyd, &Returned { count: 1 });
    assert_eq!(lone.count(cyd, Attached::KIND), 1);
    let conn = lone.greet(Role::Client);
    lone.tell(conn, &resumes(1, "ada"));
    assert_eq!(lone.count(conn, Want::KIND), 1, "she has more");
    hand_back(&mut lone, conn, 1, hers()[0]);
    hand_back(&mut lone, conn, 2, hers()[1]);
    lone.tell(conn, &Returned { count: 2 });
    assert_eq!(lone.count(conn, Attached::KIND), 1);
    for number in 1..=2 {
        assert!(lone.server.archive().has_row(&ada(), number), "{number}");
    }
    assert_eq!(lone.server.archive().rows(), 2);
}

/// A server that knows Ada, and Cyd, who hands back the second of her messages and has no other.
fn with_the_second_alone() -> (Lone, ConnId) {
    let mut lone = Lone::new();
    let before = lone.greet(Role::Client);
    lone.tell(before, &Attach { secret: secret(1), name: "ada", ..attach() });
    assert_eq!(lone.count(before, Attached::KIND), 1);
    lone.input(Input::Closed { conn: before });
    let cyd = lone.greet(Role::Client);
    lone.tell(cyd, &resumes(3, "cyd"));
    hand_back(&mut lone, cyd, 2, hers()[1]);
    lone.tell(cyd, &Returned { count: 1 });
    (lone, cyd)
}

#[test]
fn what_is_handed_back_waits_for_the_earlier_messages_of_its_author() {
    let (mut lone, cyd) = with_the_second_alone();
    assert_eq!(lone.count(cyd, Attached::KIND), 0);
    assert_eq!(lone.server.archive().rows(), 0);
    let conn = lone.greet(Role::Client);
    lone.tell(conn, &resumes(1, "ada"));
    hand_back(&mut lone, conn, 1, hers()[0]);
    assert_eq!(lone.count(cyd, Attached::KIND), 1, "she has all she saw");
    let archive = lone.server.archive();
    let clock = |number| archive.clock_of(archive.row(&ada(), number).expect("a row"));
    assert!(clock(1) < clock(2), "in her order");
}

#[test]
fn what_is_handed_back_waits_no_longer_than_a_resume_does() {
    let (mut lone, cyd) = with_the_second_alone();
    lone.time_passes();
    assert_eq!(lone.count(cyd, Attached::KIND), 1);
    assert!(lone.server.archive().has_row(&ada(), 2));
}

#[test]
fn clients_are_told_when_their_cluster_meets_one_that_was_founded_before() {
    let mut lone = Lone::new();
    let clients = [lone.attach(), lone.greet(Role::Client)];
    lone.sent.clear();
    let peer = lone.greet(Role::Peer);
    let server = ServerId(5);
    let origin = Origin { server, incarnation: 1, nonce: 1 };
    let hello = PeerHello {
        server,
        origin,
        address: "x:1",
        cluster_id: Tag([9; 16]),
        founded: Clock(1),
        key: ClusterKey([8; 32]),
        clock: Clock(0),
        final_clock: Clock(0),
        known_incarnation: 0,
        state: ServerState::Active,
        members: Seq::default(),
    };
    lone.tell(peer, &hello);
    for client in clients {
        let welcome = lone.sent.iter().find(|sent| (sent.0, sent.1) == (client, Welcome::KIND));
        let (_, _, payload) = welcome.expect("it is welcome again");
        assert_eq!(Welcome::parse(payload).expect("valid").cluster_id, Tag([9; 16]));
    }
}

/// A peer that has said who it is, and that this was all.
fn link(lone: &mut Lone) -> ConnId {
    let conn = lone.greet(Role::Peer);
    let server = ServerId(5);
    lone.tell(
        conn,
        &PeerHello {
            server,
            origin: Origin { server, incarnation: 1, nonce: 1 },
            address: "x:1",
            cluster_id: Tag::default(),
            founded: Clock(u64::MAX),
            key: ClusterKey([0; 32]),
            clock: Clock(0),
            final_clock: Clock(0),
            known_incarnation: 0,
            state: ServerState::Active,
            members: Seq::default(),
        },
    );
    lone.tell(conn, &Linked { reserved: 0 });
    conn
}

#[test]
fn a_standing_that_nobody_could_change_any_more_is_not_believed() {
    let mut lone = Lone::new();
    lone.attach();
    for (version, reason) in [(1 << 60, None), (u64::MAX, Some(Reason::BadFrame))] {
        let peer = link(&mut lone);
        let session = Session {
            session: SessionId(3),
            name: "bob",
            claim: Clock(1),
            attachment: 1,
            version,
            home: lone.server.id(),
            presence: Presence::Online,
            rooms: Seq::default(),
        };
        // The home knows better, and says so with a later version.
        lone.tell(peer, &session);
        assert_eq!(lone.reason(peer), reason);
    }
}

#[test]
fn a_session_whose_attachments_cannot_be_counted_any_more_is_listed_where_it_is() {
    let mut lone = Lone::new();
    let attach = Attach { attachment: u32::MAX, ..attach() };
    let conn = lone.greet(Role::Client);
    lone.tell(conn, &attach);
    lone.input(Input::Closed { conn });
    let again = lone.greet(Role::Client);
    lone.tell(again, &Attach { intent: Intent::Resume, ..attach });
    let observer = lone.greet(Role::Observer);
    lone.tell(observer, &AskServer { users: true });
    let list = lone.sent.iter().find(|sent| (sent.0, sent.1) == (observer, UserList::KIND));
    let list = UserList::parse(&list.expect("it is answered").2).expect("valid");
    assert!(list.users.iter().next().is_some_and(|user| user.online));
}
