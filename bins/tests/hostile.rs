//! Bad input on a server's port: a clear reason, nothing lost, nobody else disturbed.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use common::{Client, Cluster};
use cordee_core::framing::{Deframer, frames, put_frame};
use cordee_core::ids::{SessionId, SessionSecret};
use cordee_core::names::COMMON_ROOM;
use cordee_core::wire::chat::{Attach, Attached, Failed, Intent, Say};
use cordee_core::wire::entry::Scope;
use cordee_core::wire::hello::{Bye, Hello, Magic, Role, Transport};
use cordee_core::wire::{Fixed64, Message, Reason, Seq, VERSION_MAJOR};
use serde_json::json;

/// A connection of our own making.
struct Raw {
    stream: TcpStream,
    deframer: Deframer,
}

impl Raw {
    fn connect(address: &str) -> Raw {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        Raw { stream, deframer: Deframer::new(65_519) }
    }

    fn send(&mut self, bytes: &[u8]) {
        // It may have been closed already: the answer says why.
        let _ = self.stream.write_all(bytes);
    }

    fn send_message<'a>(&mut self, message: &impl Message<'a>) {
        let mut bytes = Vec::new();
        message.put_frame(&mut bytes);
        self.send(&bytes);
    }

    /// The next frame of one of these kinds; `None` at the end of the stream.
    fn next(&mut self, kinds: &[u8]) -> Option<(u8, Vec<u8>)> {
        loop {
            let whole = self.deframer.ready().expect("a server sends whole frames").to_vec();
            if let Some(frame) = frames(&whole).next() {
                self.deframer.consume(frame.payload.len() + 5);
                if kinds.contains(&frame.kind) {
                    return Some((frame.kind, frame.payload.to_vec()));
                }
                continue;
            }
            let mut buffer = [0; 4_096];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.deframer.extend(&buffer[..count]),
            }
        }
    }

    /// Why the server closes the connection.
    fn reason(&mut self) -> Reason {
        let (_, payload) = self.next(&[Bye::KIND]).expect("the server says why");
        let reason = Bye::parse(&payload).expect("valid").reason;
        assert!(self.next(&[]).is_none(), "then the connection ends");
        reason
    }

    fn attach(&mut self, name: &str) -> SessionId {
        self.send_message(&hello());
        let mut secret = [0; 16];
        secret[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
        self.send_message(&Attach {
            secret: SessionSecret(secret),
            process: Fixed64(7),
            attachment: 1,
            intent: Intent::New,
            name,
            reservation: Fixed64(0),
            hops: 0,
            author_number: 0,
            rooms: Seq::default(),
            seen: Seq::default(),
            partial: Seq::default(),
        });
        let (_, payload) = self.next(&[Attached::KIND]).expect("attached");
        Attached::parse(&payload).expect("valid").session
    }

    fn say(&mut self, number: u64, scope: Scope<'_>, body: &str) {
        self.send_message(&Say { number, scope, after: Seq::default(), body });
    }

    /// Why the last message was not taken.
    fn refusal(&mut self) -> Reason {
        let (_, payload) = self.next(&[Failed::KIND]).expect("refused");
        Failed::parse(&payload).expect("valid").reason
    }
}

fn hello() -> Hello<'static> {
    Hello {
        magic: Magic,
        major: VERSION_MAJOR,
        minor: 0,
        role: Role::Client,
        transport: Transport::Plain,
        key_id: Fixed64(0),
        cluster: "cordee",
    }
}

/// Two people who talk meanwhile, and must not notice anything.
struct Witnesses {
    ada: Client,
    bob: Client,
    said: u32,
}

impl Witnesses {
    fn new(cluster: &Cluster) -> Self {
        let ada = Client::start(&cluster.addresses[..1], "ada");
        let bob = Client::start(&cluster.addresses[..1], "bob");
        Witnesses { ada, bob, said: 0 }
    }

    fn talk(&mut self) {
        self.said += 1;
        let text = format!("witness {}", self.said);
        self.ada.say(&text);
        self.bob.wait_for_body(&text);
    }

    fn assert_undisturbed(mut self) {
        self.talk();
        for client in [&self.ada, &self.bob] {
            let disturbed = client.seen.iter().find(|event| event["event"] == "disconnected");
            assert_eq!(disturbed, None);
        }
        let expected: Vec<String> = (1..=self.said).map(|n| format!("witness {n}")).collect();
        let heard: Vec<String> =
            self.bob.bodies().into_iter().filter(|body| body.starts_with("witness")).collect();
        assert_eq!(heard, expected);
    }
}

#[test]
fn whoever_does_not_speak_the_protocol_is_told_so() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut witnesses = Witnesses::new(&cluster);
    let address = &cluster.addresses[0];
    let cases: [(&str, Vec<u8>, Reason); 7] = [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Reason::NotCordee),
        ("4 GiB", vec![0xff; 64], Reason::NotCordee),
        ("nothing in a frame", vec![0; 64], Reason::NotCordee),
        ("no hello", frame(0x11, b"hello there"), Reason::NotCordee),
        ("garbage in a hello", frame(0x01, &[0xaa; 40]), Reason::NotCordee),
        ("version 9", encoded(&Hello { major: 9, ..hello() }), Reason::WrongVersion),
        ("another cluster", encoded(&Hello { cluster: "else", ..hello() }), Reason::WrongCluster),
    ];
    for (what, bytes, expected) in cases {
        let mut raw = Raw::connect(address);
        raw.send(&bytes);
        assert_eq!(raw.reason(), expected, "{what}");
        witnesses.talk();
    }
    witnesses.assert_undisturbed();
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, kind, |out| out.extend_from_slice(payload));
    bytes
}

fn encoded<'a>(message: &impl Message<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.put_frame(&mut bytes);
    bytes
}

#[test]
fn random_bytes_at_every_stage_end_only_their_own_connection() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut witnesses = Witnesses::new(&cluster);
    let mut random = cordee_core::prng::Prng::new(7);
    for attempt in 0..60 {
        let mut raw = Raw::connect(&cluster.addresses[attempt % 2]);
        match attempt % 4 {
            0 => {}
            1 => raw.send_message(&hello()),
            2 => raw.send_message(&Hello { role: Role::Peer, ..hello() }),
            _ => {
                raw.attach(&format!("mallory{attempt}"));
            }
        }
        for _ in 0..4 {
            let length = random.below(200) as usize;
            let payload: Vec<u8> = (0..length).map(|_| random.next_u64() as u8).collect();
            raw.send(&frame(random.next_u64() as u8, &payload));
        }
        let _ = raw.stream.shutdown(Shutdown::Write);
        while raw.next(&[]).is_some() {}
    }
    witnesses.talk();
    witnesses.assert_undisturbed();
    cluster.wait_until_equal();
}

#[test]
fn a_slow_hello_is_ended_by_its_deadline_however_many_bytes_trickle() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut witnesses = Witnesses::new(&cluster);
    let mut slow: Vec<Raw> = (0..50).map(|_| Raw::connect(&cluster.addresses[0])).collect();
    let bytes = encoded(&hello());
    for byte in &bytes[..bytes.len() - 1] {
        for raw in &mut slow {
            raw.send(&[*byte]);
        }
        witnesses.talk();
        std::thread::sleep(Duration::from_millis(250));
    }
    for raw in &mut slow {
        assert_eq!(raw.reason(), Reason::HelloTimeout);
    }
    witnesses.assert_undisturbed();
}

#[test]
fn a_message_that_cannot_be_is_refused_and_its_number_is_expected_again() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut witnesses = Witnesses::new(&cluster);
    let mut raw = Raw::connect(&cluster.addresses[0]);
    let session = raw.attach("mallory");
    let all = Scope::Room(COMMON_ROOM);
    let nobody = Scope::talk(session, SessionId(1), "");
    let foreign = Scope::talk(SessionId(1), SessionId(2), "");
    let long = "x".repeat(8 * 1_024 + 1);
    for (number, scope, body, expected) in [
        (1, all, "", Reason::BodyEmpty),
        (1, all, long.as_str(), Reason::BodyTooLong),
        (7, all, "jump", Reason::OutOfOrder),
        (0, all, "back", Reason::OutOfOrder),
        (1, Scope::Room("#nowhere"), "hi", Reason::RoomUnknown),
        (1, nobody, "hi", Reason::UserUnknown),
        (1, foreign, "hi", Reason::UserUnknown),
    ] {
        raw.say(number, scope, body);
        assert_eq!(raw.refusal(), expected, "{number} {body:.9}");
    }
    raw.say(1, all, "at last");
    witnesses.bob.wait_for_body("at last");
    // Text that is not UTF-8 is no message at all.
    let mut bytes = encoded(&Say { number: 2, scope: all, after: Seq::default(), body: "abc" });
    let last = bytes.len() - 1;
    bytes[last] = 0xff;
    raw.send(&bytes);
    assert_eq!(raw.reason(), Reason::BadFrame);
    witnesses.assert_undisturbed();
}

#[test]
fn terminal_escapes_reach_programs_as_data_and_people_as_text() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut raw = Raw::connect(&cluster.addresses[0]);
    raw.attach("mallory");
    raw.say(1, Scope::Room(COMMON_ROOM), "\u{1b}[2J\u{202e}evil\u{7}");
    let mut bob = Client::start(&cluster.addresses, "bob");
    bob.wait_for_body("\u{1b}[2J\u{202e}evil\u{7}");
    let output = common::cordee()
        .args(["chat", "--name", "cyd", &cluster.addresses[0]])
        .env("XDG_STATE_HOME", std::env::temp_dir().join("cordee-test-escapes"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            std::thread::sleep(Duration::from_secs(1));
            drop(child.stdin.take());
            child.wait_with_output()
        })
        .expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("evil"), "{printed}");
    for forbidden in ['\u{1b}', '\u{202e}', '\u{7}'] {
        assert!(!printed.contains(forbidden), "{printed:?}");
    }
}

#[test]
fn bad_json_lines_are_answered_and_end_nothing() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut ada = Client::start(&cluster.addresses, "ada");
    for line in ["{", "[]", "{\"nonsense\":1}", "{\"say\":7}", "\u{1b}[2J"] {
        ada.send_line(line);
        ada.wait_for("error");
    }
    ada.send(&json!({"say": "x".repeat(8 * 1_024 + 1), "ref": "long"}));
    assert_eq!(ada.wait_for("error")["code"], "body_too_long");
    ada.send(&json!({"say": "hi", "to": "nobody-there"}));
    assert_eq!(ada.wait_for("error")["code"], "user_unknown");
    ada.send(&json!({"say": "hi", "to": "#nowhere"}));
    let code = ada.wait_for("error")["code"].clone();
    assert!(code == "room_unknown" || code == "not_member", "{code}");
    ada.say("still here");
    ada.wait_for_sent("still here");
}
