//! Bad input on a server's port: a clear reason, nothing lost, nobody else disturbed.

mod common;

use std::net::Shutdown;
use std::time::Duration;

use common::raw::{Raw, encoded, frame, hello};
use common::witness::Witnesses;
use common::{Client, Cluster};
use cordee_core::ids::SessionId;
use cordee_core::names::COMMON_ROOM;
use cordee_core::wire::chat::Say;
use cordee_core::wire::entry::Scope;
use cordee_core::wire::hello::{Hello, Role};
use cordee_core::wire::{Reason, Seq};
use serde_json::json;

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

#[test]
fn random_bytes_at_every_stage_end_only_their_own_connection() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut witnesses = Witnesses::new(&cluster);
    let mut random = cordee_core::prng::Prng::new(7);
    for attempt in 0..60 {
        let mut raw = Raw::connect(&cluster.addresses[attempt % 2]);
        match attempt % 4 {
            0 => {}
            1 => drop(raw.send_message(&hello())),
            2 => drop(raw.send_message(&Hello { role: Role::Peer, ..hello() })),
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
