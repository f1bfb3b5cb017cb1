//! Whoever is connected and sends, or does not read, what nobody honest would: it costs the sender
//! its connection or its pace, and nobody else anything.

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use common::raw::{Raw, attach, encoded, frame, hello};
use common::witness::{Meter, Witnesses, a_newcomer_is_served};
use common::{Client, Cluster};
use cordee_core::framing::FRAME_BYTES_MAX;
use cordee_core::ids::{AuthorId, Clock, Origin, ServerId, SessionId, SessionSecret, Tag};
use cordee_core::names::COMMON_ROOM;
use cordee_core::wire::chat::{
    AskHistory, AskRooms, AskServer, AskUsers, Attach, Attached, Failed, Intent, Join, Joined,
    Leave, Return, Returned, Say, Search, SetTopic, Want,
};
use cordee_core::wire::entry::{Entry, Portable, Scope};
use cordee_core::wire::hello::{Bye, Hello, Ping, Role};
use cordee_core::wire::{Fixed64, Message, Reason, Seq};

const ALL: Scope<'static> = Scope::Room(COMMON_ROOM);
/// What an attack by one connection may cost in memory.
const MEMORY_MAX: u64 = 32 << 20;

#[test]
fn absurd_lengths_after_the_hello_end_the_connection_and_reserve_nothing() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut witnesses = Witnesses::new(&cluster);
    let meter = Meter::new(&cluster, 0);
    let longest = FRAME_BYTES_MAX as u32 - 4;
    for role in [Role::Client, Role::Peer, Role::Observer] {
        for length in [0, longest + 1, 1 << 24, u32::MAX] {
            // Many at once, so that memory which is reserved would show.
            let mut raws: Vec<Raw> =
                (0..20).map(|_| Raw::greet(&cluster.addresses[0], role).0).collect();
            for raw in &mut raws {
                raw.send(&length.to_be_bytes());
            }
            for raw in &mut raws {
                assert_eq!(raw.reason(), Reason::BadFrame, "{role:?} {length}");
            }
            witnesses.talk();
        }
        // The longest that is allowed, of which nothing comes.
        let mut raws: Vec<Raw> =
            (0..100).map(|_| Raw::greet(&cluster.addresses[0], role).0).collect();
        for raw in &mut raws {
            raw.send(&longest.to_be_bytes());
        }
        witnesses.talk();
        meter.assert_memory(MEMORY_MAX);
    }
    witnesses.assert_undisturbed();
}

/// Sends the same bytes as fast as they are taken, for a while; whether the connection still
/// stands then.
fn flood(stream: &mut TcpStream, bytes: &[u8], time: Duration) -> bool {
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a time-out");
    let end = Instant::now() + time;
    let mut at = 0;
    while Instant::now() < end {
        match stream.write(&bytes[at..]) {
            Ok(count) => at = (at + count) % bytes.len(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    true
}

#[test]
fn floods_of_tiny_frames_and_of_requests_slow_their_sender_alone() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut witnesses = Witnesses::new(&cluster);
    for number in 0..200 {
        witnesses.bob.say(&format!("line {number}"));
    }
    witnesses.bob.wait_for_sent("line 199");
    let many = |bytes: Vec<u8>| bytes.repeat((32 << 10) / bytes.len() + 1);
    let request = 1;
    let last = AskHistory { request, scope: ALL, from: 1, count: 1_000 };
    let observer = Some(Role::Observer);
    let cases: Vec<(&str, Option<Role>, Vec<u8>)> = vec![
        ("empty frames of no known kind", None, many(frame(0xee, b""))),
        ("pings", None, many(encoded(&Ping { nonce: 1 }))),
        ("pings before an attach", Some(Role::Client), many(encoded(&Ping { nonce: 1 }))),
        ("attaches with a bad name", Some(Role::Client), many(encoded(&attach("\u{7}")))),
        ("empty frames of an observer", observer, many(frame(0xee, b""))),
        ("questions of an observer", observer, many(encoded(&AskServer { users: true }))),
        (
            "messages that are refused",
            None,
            many(encoded(&Say { number: 9, scope: ALL, after: Seq::default(), body: "x" })),
        ),
        ("joins that are refused", None, many(encoded(&Join { request, room: "\u{7}" }))),
        (
            "joining and leaving",
            None,
            many(
                [encoded(&Join { request, room: "#x" }), encoded(&Leave { request, room: "#x" })]
                    .concat(),
            ),
        ),
        ("topics", None, many(encoded(&SetTopic { request, room: COMMON_ROOM, topic: "x" }))),
        ("lists of users", None, many(encoded(&AskUsers { request }))),
        ("lists of rooms", None, many(encoded(&AskRooms { request }))),
        ("history", None, many(encoded(&last))),
        ("searches", None, many(encoded(&Search { request, words: "line" }))),
    ];
    for (what, role, bytes) in cases {
        let meter = Meter::new(&cluster, 0).of(what);
        let mut raw = match role {
            Some(role) => Raw::greet(&cluster.addresses[0], role).0,
            None => {
                let mut raw = Raw::connect(&cluster.addresses[0]);
                raw.attach("mallory");
                raw
            }
        };
        // It does not read what it provokes.
        let flooder = thread::spawn(move || {
            flood(&mut raw.stream, &bytes, Duration::from_millis(1_200));
            raw
        });
        witnesses.talk_for(Duration::from_secs(1));
        drop(flooder.join().expect("it lives"));
        meter.assert_memory(MEMORY_MAX);
        meter.assert_cpu(0.7);
    }
    a_newcomer_is_served(&cluster, "cyd");
    witnesses.assert_undisturbed();
}

#[test]
fn whoever_never_reads_is_closed_costs_a_cursor_and_loses_nothing() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut witnesses = Witnesses::new(&cluster);
    let mut deaf: Vec<Raw> = (0..20)
        .map(|number| {
            let mut raw = Raw::connect(&cluster.addresses[0]);
            raw.attach(&format!("deaf{number}"));
            raw
        })
        .collect();
    let meter = Meter::new(&cluster, 0);
    // Far more than the kernel takes for each of them; the archive keeps it once.
    let body = "b".repeat(8_000);
    let (count, begun) = (3_000, Instant::now());
    for number in 0..count {
        witnesses.ada.send(&serde_json::json!({"say": format!("{number} {body}"), "ref": number}));
    }
    witnesses
        .ada
        .wait("the last of it", |event| event["event"] == "sent" && event["ref"] == count - 1);
    let kept = 3 * count * 8_100;
    meter.assert_memory(kept + MEMORY_MAX);
    let closed = |raw: &mut Raw| {
        // What is buffered may be read; then the stream ends, with the reason or without.
        while raw.next(&[Bye::KIND]).is_some() {}
    };
    // They are closed after ten seconds without progress. One comes back and gets everything.
    std::thread::sleep(Duration::from_secs(12).saturating_sub(begun.elapsed()));
    witnesses.talk();
    deaf.iter_mut().for_each(closed);
    let mut raw = Raw::connect(&cluster.addresses[0]);
    raw.send_message(&hello());
    raw.send_message(&Attach { attachment: 2, intent: Intent::Resume, ..attach("deaf0") });
    for expected in 0..count {
        let (_, payload) = raw.next(&[Entry::KIND]).expect("an entry");
        let entry = Entry::parse(&payload).expect("valid");
        assert!(entry.body.starts_with(&format!("{expected} ")), "{:.20}", entry.body);
    }
    witnesses.assert_undisturbed();
}

#[test]
fn names_that_cannot_be_are_refused_and_look_alikes_are_one() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut witnesses = Witnesses::new(&cluster);
    let long = "x".repeat(33);
    let refused = |name: &str| {
        let (mut raw, _) = Raw::greet(&cluster.addresses[1], Role::Client);
        // A secret that nobody else has: what is refused is the name.
        let secret = SessionSecret(*b"mallory's secret");
        raw.send_message(&Attach { secret, ..attach(name) });
        let (kind, payload) = raw.next(&[Failed::KIND, Bye::KIND]).expect("an answer");
        assert_eq!(kind, Failed::KIND, "{name:?}: the connection stays");
        Failed::parse(&payload).expect("valid").reason
    };
    for name in [
        "",
        " ",
        "a b",
        "a\nb",
        "a\0",
        "\u{7}",
        "\u{1b}[2J",
        "a\u{202e}b",
        "\u{200b}",
        "#all",
        "~x",
        "-x",
        "a/b",
        "a\u{feff}",
        long.as_str(),
    ] {
        assert_eq!(refused(name), Reason::NameInvalid, "{name:?}");
    }
    for name in ["ADA", "Ada", "ａｄａ", "AdA"] {
        assert_eq!(refused(name), Reason::NameTaken, "{name:?}");
    }
    for room in ["", "#", "all", "#a b", "#\u{202e}", "#\n", "#a\0"] {
        let mut raw = Raw::connect(&cluster.addresses[0]);
        raw.attach("mallory");
        raw.send_message(&Join { request: 1, room });
        assert_eq!(raw.refusal(), Reason::RoomInvalid, "{room:?}");
    }
    // Ten megabytes are no message, and a name that is no text is none either.
    let mut raw = Raw::connect(&cluster.addresses[0]);
    raw.attach("mallory");
    let mut huge = Vec::from((10_u32 << 20).to_be_bytes());
    huge.push(Say::KIND);
    huge.resize(10 << 20, b'x');
    raw.send(&huge);
    assert_eq!(raw.reason(), Reason::BadFrame);
    let (mut raw, _) = Raw::greet(&cluster.addresses[0], Role::Client);
    let mut bytes = encoded(&attach("mallory"));
    // The secret is made of the name; it comes first.
    let at = bytes.windows(7).rposition(|window| window == b"mallory").expect("its name");
    bytes[at] = 0xff;
    raw.send(&bytes);
    assert_eq!(raw.reason(), Reason::BadFrame);
    witnesses.talk();
    witnesses.assert_undisturbed();
}

#[test]
fn rooms_without_end_meet_the_caps_of_a_session_and_of_the_cluster() {
    let cluster = Cluster::start(&["--servers", "2", "--limit", "200"]);
    let mut witnesses = Witnesses::new(&cluster);
    let meter = Meter::new(&cluster, 0);
    let (mut made, mut refused) = (0, 0);
    for session in 0..80 {
        let mut raw = Raw::connect(&cluster.addresses[0]);
        raw.attach(&format!("mallory{session}"));
        let mut bytes = Vec::new();
        for number in 0..70 {
            let room = format!("#room-{session}-{number}");
            Join { request: number, room: &room }.put_frame(&mut bytes);
        }
        raw.send(&bytes);
        for _ in 0..70 {
            let (kind, payload) = raw.next(&[Joined::KIND, Failed::KIND]).expect("an answer");
            if kind == Joined::KIND {
                made += 1;
            } else {
                assert_eq!(Failed::parse(&payload).expect("valid").reason, Reason::TooManyRooms);
                refused += 1;
            }
        }
        witnesses.talk();
    }
    // The common room is one of the 4 096, and one of each session's 64.
    assert_eq!((made, refused), (4_095, 80 * 70 - 4_095));
    for index in 0..2 {
        common::wait_until("the rooms everywhere", || {
            (cluster.status(index)["rooms"] == 4_096).then_some(())
        });
    }
    meter.assert_memory(2 * MEMORY_MAX);
    a_newcomer_is_served(&cluster, "cyd");
    witnesses.assert_undisturbed();
    cluster.wait_until_equal();
}

#[test]
fn nobody_takes_over_a_session_without_its_secret() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut witnesses = Witnesses::new(&cluster);
    // A stranger who knows everything of ada but her secret, on each of the servers.
    for (address, intent) in cluster.addresses.iter().zip([Intent::Resume, Intent::Reset]) {
        let (mut raw, _) = Raw::greet(address, Role::Client);
        let secret = SessionSecret(*b"mallory's secret");
        let attachment = u32::MAX;
        raw.send_message(&Attach { secret, intent, attachment, ..attach("ada") });
        assert_eq!(raw.refusal(), Reason::NameTaken);
        witnesses.talk();
    }
    // A message of somebody else's talk, or under somebody else's number, is none.
    let mut raw = Raw::connect(&cluster.addresses[0]);
    raw.attach("mallory");
    raw.say(1, Scope::talk(SessionId(1), SessionId(2), ""), "psst");
    assert_eq!(raw.refusal(), Reason::UserUnknown);
    for number in [0, 2, 1_000, u64::MAX] {
        raw.say(number, ALL, "jump");
        assert_eq!(raw.refusal(), Reason::OutOfOrder, "{number}");
    }
    // What is said again is there once.
    for _ in 0..5 {
        raw.say(1, ALL, "said five times");
    }
    witnesses.bob.wait_for_body("said five times");
    witnesses.talk();
    let times = |body: &&String| body.as_str() == "said five times";
    assert_eq!(witnesses.bob.bodies().iter().filter(times).count(), 1);
    witnesses.assert_undisturbed();
}

#[test]
fn a_vector_of_inventions_is_asked_for_once_and_forgeries_are_passed_over() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut witnesses = Witnesses::new(&cluster);
    let meter = Meter::new(&cluster, 0);
    let origin = |nonce| Origin { server: ServerId(nonce), incarnation: u32::MAX, nonce };
    let seen: Vec<(Origin, u64)> = (0..1_200).map(|nonce| (origin(nonce), u64::MAX)).collect();
    for round in 0..20 {
        let (mut raw, _) = Raw::greet(&cluster.addresses[0], Role::Client);
        let name = format!("mallory{round}");
        let intent = Intent::Resume;
        raw.send_message(&Attach { intent, seen: Seq::new(&seen), ..attach(&name) });
        assert!(raw.next(&[Want::KIND]).is_some(), "it is asked for what it says it saw");
        for number in 1..=50 {
            let entry = Portable {
                origin: origin(number),
                number,
                clock: Clock(u64::MAX),
                author: AuthorId { session: SessionId(number), process: 1 },
                author_number: number,
                name: "ada",
                scope: ALL,
                after: Seq::default(),
                body: "forged",
            };
            raw.send_message(&Return { entry, tag: Tag([number as u8; 16]) });
        }
        raw.send_message(&Returned { count: 50 });
        let (_, payload) = raw.next(&[Attached::KIND]).expect("it comes in with less");
        let cut = Attached::parse(&payload).expect("valid").cut.len();
        assert_eq!(cut, seen.len(), "all inventions are cut out of its vector");
    }
    // One that is asked and does not answer is not waited for.
    let (mut raw, _) = Raw::greet(&cluster.addresses[0], Role::Client);
    raw.send_message(&Attach {
        intent: Intent::Resume,
        seen: Seq::new(&seen),
        reservation: Fixed64(0),
        ..attach("sleeper")
    });
    assert_eq!(raw.reason(), Reason::HelloTimeout);
    meter.assert_memory(MEMORY_MAX);
    a_newcomer_is_served(&cluster, "cyd");
    let mut late = Client::start(&cluster.addresses, "dan");
    witnesses.talk();
    late.wait("the newest word", |event| event["event"] == "message" && event["from"] == "ada");
    assert!(!late.bodies().contains(&"forged".to_owned()));
    witnesses.assert_undisturbed();
}

#[test]
fn a_hello_in_pieces_is_one_and_a_second_hello_is_nothing() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut raw = Raw::connect(&cluster.addresses[0]);
    for byte in encoded(&Hello { role: Role::Observer, ..hello() }) {
        raw.send(&[byte]);
    }
    raw.send_message(&hello());
    raw.send_message(&AskServer { users: false });
    let status = cordee_core::wire::chat::ServerStatus::KIND;
    assert!(raw.next(&[status]).is_some(), "it serves");
}
