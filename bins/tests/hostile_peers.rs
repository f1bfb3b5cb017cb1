//! Strangers who say that they are servers of the cluster, and one that links and lies.
//!
//! Without a secret whoever reaches a server may link with it: what a liar claims of its own is
//! believed. It must not take from the honest what they need to go on without it.

mod common;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::raw::{Raw, encoded, hello};
use common::witness::{Meter, Witnesses, a_newcomer_is_served};
use common::{Client, Cluster, wait_until};
use cordee_core::hash::ClusterKey;
use cordee_core::ids::{AuthorId, Clock, Origin, OriginRef, ServerId, SessionId, Tag};
use cordee_core::names::COMMON_ROOM;
use cordee_core::wire::chat::MemberState;
use cordee_core::wire::entry::{Entry, OriginDef, Scope};
use cordee_core::wire::hello::{Hello, Role, Welcome};
use cordee_core::wire::peer::{
    Beat, Have, Linked, MemberRecord, PeerHello, PeerVector, Pull, ServerState,
};
use cordee_core::wire::{Fixed64, Message, Reason, Seq};
use serde_json::Value;

const ALL: Scope<'static> = Scope::Room(COMMON_ROOM);
const MEMORY_MAX: u64 = 64 << 20;
const LIAR: ServerId = ServerId(0xbad);

/// Microseconds since 1970.
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_micros() as u64
}

/// How a stranger introduces itself; it is told of nobody.
fn introduction() -> PeerHello<'static> {
    PeerHello {
        server: LIAR,
        origin: Origin { server: LIAR, incarnation: 1, nonce: 7 },
        address: "127.0.0.1:1",
        cluster_id: Tag([9; 16]),
        // It joined the cluster that it found.
        founded: Clock(u64::MAX),
        key: ClusterKey([9; 32]),
        clock: Clock(wall()),
        final_clock: Clock(0),
        known_incarnation: 0,
        state: ServerState::Active,
        members: Seq::default(),
    }
}

/// A heartbeat that says nothing but that somebody lives.
fn beat() -> Beat<'static> {
    Beat {
        clock: Clock(0),
        vector: Fixed64(0),
        digest: Tag::default(),
        ma: 0,
        state: ServerState::Active,
        load: 1_000,
        limit: 1,
        heard: Seq::default(),
    }
}

/// A stranger that linked: what the server sends is read and dropped, heartbeats are sent.
struct Liar {
    raw: Raw,
    /// The present origin of the server that it linked with.
    origin: Origin,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Liar {
    fn link(address: &str) -> Liar {
        Liar::link_with(address, &introduction(), &[])
    }

    fn link_with(address: &str, hello: &PeerHello<'_>, held: &[(Origin, u64, Tag)]) -> Liar {
        let (mut raw, welcome) = Raw::greet(address, Role::Peer);
        let origin = Welcome::parse(&welcome).expect("valid").origin;
        raw.send_message(hello);
        raw.send_message(&PeerVector { more: false, held: Seq::new(held) });
        raw.send_message(&Linked { reserved: 0 });
        assert!(raw.next(&[Linked::KIND]).is_some(), "it links");
        let over = Arc::new(AtomicBool::new(false));
        let mut liar = Liar { raw, origin, over, threads: Vec::new() };
        liar.keep_alive(encoded(&beat()));
        liar
    }

    /// Sends the same bytes ten times a second.
    fn keep_alive(&mut self, bytes: Vec<u8>) {
        let mut stream = self.raw.stream.try_clone().expect("a descriptor");
        let over = Arc::clone(&self.over);
        self.threads.push(thread::spawn(move || {
            while !over.load(Ordering::Relaxed) && stream.write_all(&bytes).is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        }));
    }

    /// Reads and drops what comes, so that it is no slow reader.
    fn listen(&mut self) {
        let mut stream: TcpStream = self.raw.stream.try_clone().expect("a descriptor");
        self.threads.push(thread::spawn(move || {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }));
    }

    fn leave(self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.raw.stream.shutdown(std::net::Shutdown::Both);
        for thread in self.threads {
            thread.join().expect("it lives");
        }
    }
}

/// Waits until the honest hold the same and are linked with each other, whatever else they know.
fn wait_until_honest_are_equal(cluster: &Cluster) {
    wait_until("the honest to hold the same", || {
        let statuses: Option<Vec<Value>> =
            (0..cluster.addresses.len()).map(|index| cluster.try_status(index)).collect();
        let statuses = statuses?;
        let linked = |status: &Value| {
            let members = status["members"].as_array().expect("a list");
            cluster.addresses.iter().all(|address| {
                let is = |member: &&Value| member["address"] == address.as_str();
                members.iter().find(is).is_some_and(|member| member["state"] == "linked")
            })
        };
        let equal = |status: &Value| {
            status["ma"] == statuses[0]["ma"] && status["digest"] == statuses[0]["digest"]
        };
        statuses.iter().all(|status| linked(status) && equal(status)).then_some(())
    });
}

/// A server is killed, comes back, and everything goes on as if nobody had lied.
fn assert_the_honest_go_on(cluster: &Cluster, mut witnesses: Witnesses) {
    witnesses.talk();
    let last = cluster.addresses.len() - 1;
    // Bob is there: he goes on elsewhere.
    let killed = cluster.kill(last);
    cluster.wait_until_back(last, killed);
    wait_until_honest_are_equal(cluster);
    witnesses.talk();
    let mut late = Client::start(&cluster.addresses[last..], "late");
    late.say("I am late");
    late.wait_for_sent("I am late");
    witnesses.ada.wait_for_body("I am late");
    let departed = |client: &Client| client.seen.iter().any(|event| event["event"] == "departed");
    assert!(!departed(&witnesses.ada) && !departed(&witnesses.bob));
}

#[test]
fn strangers_are_refused_with_a_reason_that_says_why() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut witnesses = Witnesses::new(&cluster);
    let address = &cluster.addresses[0];
    let peer = Hello { role: Role::Peer, ..hello() };
    for (hello, expected) in [
        (Hello { cluster: "else", ..peer }, Reason::WrongCluster),
        (Hello { major: 2, ..peer }, Reason::WrongVersion),
    ] {
        let mut raw = Raw::connect(address);
        raw.send_message(&hello);
        assert_eq!(raw.reason(), expected);
    }
    let id = |index: usize| {
        let (_, welcome) = Raw::greet(&cluster.addresses[index], Role::Observer);
        Welcome::parse(&welcome).expect("valid").server
    };
    let (own, other) = (id(0), id(1));
    let as_server = |server| PeerHello {
        server,
        origin: Origin { server, incarnation: 9, nonce: 1 },
        ..introduction()
    };
    let foreign = Origin { server: other, incarnation: 9, nonce: 1 };
    for (what, hello, expected) in [
        ("the server's own id", as_server(own), Reason::SameServer),
        ("the id of one that lives", as_server(other), Reason::SameServer),
        (
            "an origin of another",
            PeerHello { origin: foreign, ..introduction() },
            Reason::SameServer,
        ),
        (
            "a clock of 2^63",
            PeerHello { clock: Clock(1 << 63), ..introduction() },
            Reason::ClockAhead,
        ),
        (
            "a clock more than a day ahead",
            PeerHello { clock: Clock(wall() + 25 * 3_600_000_000), ..introduction() },
            Reason::ClockAhead,
        ),
    ] {
        let (mut raw, _) = Raw::greet(address, Role::Peer);
        raw.send_message(&hello);
        assert_eq!(raw.reason(), expected, "{what}");
        witnesses.talk();
    }
    // Before it has said who it is, nothing that it says counts.
    let (mut raw, _) = Raw::greet(address, Role::Peer);
    raw.send_message(&Linked { reserved: 0 });
    assert_eq!(raw.reason(), Reason::Unexpected);
    // One that says who it is and nothing more is not waited for.
    let (mut raw, _) = Raw::greet(address, Role::Peer);
    raw.send_message(&introduction());
    assert_eq!(raw.reason(), Reason::HelloTimeout);
    witnesses.assert_undisturbed();
}

#[test]
fn a_clock_that_leaps_ends_the_link_and_drags_nobody_far() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut witnesses = Witnesses::new(&cluster);
    for ahead_us in [1 << 62, 25 * 3_600_000_000] {
        let mut liar = Liar::link(&cluster.addresses[0]);
        liar.raw.send_message(&Beat { clock: Clock(wall() + ahead_us), ..beat() });
        assert_eq!(liar.raw.reason(), Reason::ClockAhead);
        liar.leave();
    }
    // An hour ahead is borne, and followed for ten seconds at most.
    let mut liar = Liar::link(&cluster.addresses[0]);
    for _ in 0..5 {
        liar.raw.send_message(&Beat { clock: Clock(wall() + 3_600_000_000), ..beat() });
    }
    liar.listen();
    witnesses.talk_for(Duration::from_millis(500));
    let heard = witnesses.bob.seen.iter().rev().find(|event| event["event"] == "message");
    let time = heard.expect("witnesses talk")["time"].as_str().expect("a string").to_owned();
    let limit = humantime::format_rfc3339_millis(SystemTime::now() + Duration::from_secs(30));
    assert!(time < limit.to_string(), "{time} is far ahead of now");
    liar.leave();
    assert_the_honest_go_on(&cluster, witnesses);
}

#[test]
fn a_million_origins_leave_places_for_those_of_the_honest() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut witnesses = Witnesses::new(&cluster);
    let meter = Meter::new(&cluster, 0);
    let mut nonce = 0;
    let mut invent = |server| {
        nonce += 1;
        Origin { server, incarnation: 1 + nonce as u32, nonce }
    };
    let strangers = |nonce: u64| ServerId(1_000_000 + nonce);
    // In vectors, as it links: a hundred times as many as there are places for.
    for round in 0..100 {
        let (mut raw, _) = Raw::greet(&cluster.addresses[0], Role::Peer);
        raw.send_message(&introduction());
        let held: Vec<(Origin, u64, Tag)> = (0..1_500)
            .map(|n| (invent(if n % 2 == 0 { strangers(n) } else { LIAR }), 5, Tag::default()))
            .collect();
        raw.send_message(&PeerVector { more: false, held: Seq::new(&held) });
        drop(raw);
        if round % 10 == 0 {
            witnesses.talk();
        }
    }
    // And by definition, one by one.
    let mut liar = Liar::link(&cluster.addresses[0]);
    for reference in 0..1_500 {
        let origin = invent(if reference % 2 == 0 { strangers(7) } else { LIAR });
        liar.raw.send_message(&OriginDef { reference: OriginRef(reference), origin });
    }
    witnesses.talk();
    liar.leave();
    meter.assert_memory(MEMORY_MAX);
    a_newcomer_is_served(&cluster, "cyd");
    assert_the_honest_go_on(&cluster, witnesses);
}

#[test]
fn nobody_holds_what_was_never_written() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut witnesses = Witnesses::new(&cluster);
    witnesses.talk();
    let address = &cluster.addresses[0];
    // The server's own log, longer than it is: at linking and later.
    let (mut raw, welcome) = Raw::greet(address, Role::Peer);
    let own = Welcome::parse(&welcome).expect("valid").origin;
    raw.send_message(&introduction());
    let held = [(own, u64::MAX, Tag::default())];
    raw.send_message(&PeerVector { more: false, held: Seq::new(&held) });
    assert_eq!(raw.reason(), Reason::BadFrame);
    let mut liar = Liar::link(address);
    liar.raw.send_message(&OriginDef { reference: OriginRef(3), origin: own });
    liar.raw.send_message(&Have { held: Seq::new(&[(OriginRef(3), u64::MAX)]) });
    assert_eq!(liar.raw.reason(), Reason::BadFrame);
    liar.leave();
    let mut liar = Liar::link(address);
    liar.raw.send_message(&Pull { origin: liar.origin, from: 7, to: 3 });
    assert_eq!(liar.raw.reason(), Reason::BadRequest);
    liar.leave();
    assert_the_honest_go_on(&cluster, witnesses);
}

fn forged(origin: u32, number: u64) -> Entry<'static> {
    Entry {
        origin: OriginRef(origin),
        number,
        clock: Clock(wall()),
        author: AuthorId { session: SessionId(1), process: 1 },
        author_number: number,
        name: "ada",
        scope: ALL,
        after: Seq::default(),
        body: "forged",
        tag: Tag([1; 16]),
        index: 1,
        flags: 0,
    }
}

#[test]
fn entries_of_others_that_nobody_asked_for_are_not_taken() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut witnesses = Witnesses::new(&cluster);
    witnesses.talk();
    let (_, welcome) = Raw::greet(&cluster.addresses[1], Role::Observer);
    let other = Welcome::parse(&welcome).expect("valid").origin;
    // The next of a server that lives and is linked: it would have two meanings.
    for number in 1..5 {
        let mut liar = Liar::link(&cluster.addresses[0]);
        liar.raw.send_message(&OriginDef { reference: OriginRef(1), origin: other });
        liar.raw.send_message(&forged(1, number));
        assert_eq!(liar.raw.reason(), Reason::Unexpected, "{number}");
        liar.leave();
    }
    witnesses.talk();
    witnesses.bob.say("bob speaks");
    witnesses.ada.wait_for_body("bob speaks");
    assert!(!witnesses.ada.bodies().contains(&"forged".to_owned()));
    assert!(!witnesses.bob.bodies().contains(&"forged".to_owned()));
    assert_the_honest_go_on(&cluster, witnesses);
}

#[test]
fn lying_digests_and_vectors_cost_the_honest_nothing() {
    let cluster = Cluster::start(&["--servers", "3"]);
    let mut witnesses = Witnesses::new(&cluster);
    let meters: Vec<Meter> = (0..3).map(|index| Meter::new(&cluster, index)).collect();
    // It claims entries of its own, and of the dead, that it never sends.
    let own = introduction().origin;
    let dead = Origin { server: LIAR, incarnation: 0, nonce: 1 };
    let held = [(own, u64::MAX, Tag([1; 16])), (dead, 1 << 40, Tag([2; 16]))];
    let mut liar = Liar::link_with(&cluster.addresses[0], &introduction(), &held);
    for number in 0..20 {
        liar.keep_alive(encoded(&Beat {
            vector: Fixed64(number),
            digest: Tag([number as u8; 16]),
            ma: u64::MAX,
            heard: Seq::new(&[(ServerId(number), 0), (LIAR, u32::MAX)]),
            ..beat()
        }));
    }
    liar.listen();
    witnesses.talk_for(Duration::from_secs(3));
    for meter in &meters {
        meter.assert_cpu(0.6);
        meter.assert_memory(MEMORY_MAX);
    }
    a_newcomer_is_served(&cluster, "cyd");
    // A server that starts anew while it lies serves in spite of it.
    assert_the_honest_go_on(&cluster, witnesses);
    liar.leave();
    wait_until_honest_are_equal(&cluster);
}

#[test]
fn a_server_that_joins_does_not_wait_for_ever_for_what_a_liar_claims() {
    // The only one that it is told of: it has everything, it says, and sends nothing.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let liar = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("it is dialled");
        let mut raw = Raw::over(stream);
        let own = introduction().origin;
        raw.next(&[Hello::KIND]).expect("a hello");
        raw.send_message(&Welcome {
            minor: 0,
            server: LIAR,
            origin: own,
            cluster_id: Tag([9; 16]),
            address: "127.0.0.1:1",
            body_bytes_max: 8_192,
            ping_ms: 500,
        });
        raw.next(&[PeerHello::KIND]).expect("an introduction");
        raw.send_message(&introduction());
        let held = [(own, u64::MAX, Tag([1; 16]))];
        raw.send_message(&PeerVector { more: false, held: Seq::new(&held) });
        raw.send_message(&Linked { reserved: 0 });
        while raw.send_message(&beat()) {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let args = ["--servers", "1", "--copies", "1", "--peer", &address];
    let cluster = Cluster::start(&args);
    let mut bob = Client::start(&cluster.addresses, "bob");
    bob.say("I am served");
    bob.wait_for_sent("I am served");
    drop(bob);
    drop(cluster);
    liar.join().expect("it lives");
}

#[test]
fn a_list_of_members_that_nobody_ever_met_leaves_the_honest_linked() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut witnesses = Witnesses::new(&cluster);
    let meter = Meter::new(&cluster, 0);
    let addresses: Vec<String> = (0..500).map(|n| format!("127.0.0.1:{}", 1 + n % 50)).collect();
    let members: Vec<MemberRecord<'_>> = (0_u64..500)
        .zip(&addresses)
        .map(|(n, address)| MemberRecord {
            server: ServerId(n),
            address,
            origin: Origin { server: ServerId(n), incarnation: u32::MAX, nonce: n },
            state: MemberState::Linked,
            version: u64::MAX,
        })
        .collect();
    let hello = PeerHello { members: Seq::new(&members), ..introduction() };
    let mut liar = Liar::link_with(&cluster.addresses[0], &hello, &[]);
    liar.listen();
    witnesses.talk_for(Duration::from_secs(3));
    meter.assert_cpu(0.6);
    meter.assert_memory(MEMORY_MAX);
    a_newcomer_is_served(&cluster, "cyd");
    liar.leave();
    assert_the_honest_go_on(&cluster, witnesses);
}
