use cordee_core::ids::{AuthorId, SessionId};
use cordee_core::wire::Reason;
use cordee_net::client::{Member, MemberState, MessageId};

use super::*;

fn request(line: &str) -> Request {
    parse(line).expect(line).request
}

#[test]
fn every_line_of_the_documentation_is_understood() {
    let say = |to: Option<&str>| Request::Say { to: to.map(Target::parse), body: "text".into() };
    for (line, expected) in [
        (r#"{"say":"text"}"#, say(None)),
        (r#"{"say":"text","to":"bob"}"#, say(Some("bob"))),
        (r##"{"say":"text","to":"#ops"}"##, say(Some("#ops"))),
        (r#"{"to":"bob","ref":[1],"say":"text"}"#, say(Some("bob"))),
        (r##"{"join":"#ops"}"##, Request::Join("#ops".into())),
        (r##"{"leave":"#ops"}"##, Request::Leave(Some("#ops".into()))),
        (r#"{"topic":"text"}"#, Request::Topic("text".into())),
        (r#"{"topic":""}"#, Request::Topic(String::new())),
        (r#"{"name":"new"}"#, Request::Name("new".into())),
        (r#"{"users":true}"#, Request::Users),
        (r#"{"rooms":true}"#, Request::Rooms),
        (r#"{"status":true}"#, Request::Status),
        (r#"{"search":"words"}"#, Request::Search("words".into())),
        (r#"{"kill_server":true}"#, Request::KillServer),
        (r#"{"reset":true}"#, Request::Reset),
        (r#" {"quit" : true} "#, Request::Quit),
    ] {
        assert_eq!(request(line), expected, "{line}");
    }
}

#[test]
fn history_is_asked_for_by_index_or_from_the_end() {
    let room = Some(Target::Room("#all".into()));
    for (line, of, window) in [
        (
            r##"{"history":{"room":"#all","from":7,"count":3}}"##,
            room.clone(),
            Window::From { from: 7, count: 3 },
        ),
        (r##"{"history":{"room":"#all","last":50}}"##, room, Window::Last(50)),
        (r#"{"history":{"last":1}}"#, None, Window::Last(1)),
        (
            r#"{"history":{"with":"bob","last":1}}"#,
            Some(Target::User("bob".into())),
            Window::Last(1),
        ),
    ] {
        assert_eq!(request(line), Request::History { of, window }, "{line}");
    }
}

#[test]
fn the_reference_is_kept_whatever_it_is() {
    for reference in [json!(7), json!("a"), json!({"a": [null]}), json!(null)] {
        let line = json!({"say": "x", "ref": reference}).to_string();
        assert_eq!(parse(&line).expect("valid").reference, Some(reference.clone()));
        let line = json!({"sya": "x", "ref": reference}).to_string();
        assert_eq!(parse(&line).expect_err("not valid").reference, Some(reference));
    }
    assert_eq!(parse(r#"{"say":"x"}"#).expect("valid").reference, None);
}

#[test]
fn what_is_wrong_has_a_code_and_says_what() {
    for (line, code, text) in [
        ("hello", "bad_json", "this is not JSON"),
        (r#"{"say":"x"} {"say":"y"}"#, "bad_json", "trailing characters"),
        ("[]", "bad_json", "one JSON object"),
        ("{}", "bad_value", "say what to do"),
        (r#"{"ref":1}"#, "bad_value", "say what to do"),
        (r#"{"shout":"x"}"#, "unknown_key", "\"shout\" is not known"),
        (r#"{"say":"x","two":"bob"}"#, "unknown_key", "\"two\" is not known"),
        (r#"{"users":true,"to":"bob"}"#, "unknown_key", "\"to\" is not known"),
        (r#"{"say":1}"#, "bad_value", "\"say\" takes a string"),
        (r#"{"say":"x","to":1}"#, "bad_value", "\"to\" takes a string"),
        (r#"{"users":false}"#, "bad_value", "\"users\" takes true"),
        (r#"{"say":"x","quit":true}"#, "bad_value", "one thing a line"),
        (r#"{"history":true}"#, "bad_value", "takes an object"),
        (r#"{"history":{}}"#, "bad_value", "takes \"last\", or \"from\" and \"count\""),
        (r#"{"history":{"last":1,"from":1,"count":1}}"#, "bad_value", "takes \"last\""),
        (r#"{"history":{"from":0,"count":1}}"#, "bad_value", "\"from\" takes a number from 1"),
        (r#"{"history":{"last":-1}}"#, "bad_value", "\"last\" takes a number from 1"),
        (r#"{"history":{"last":4294967296}}"#, "bad_value", "to 4294967295"),
        (r#"{"history":{"last":1,"rom":"x"}}"#, "unknown_key", "\"rom\""),
        (r##"{"history":{"last":1,"room":"#a","with":"b"}}"##, "bad_value", "not both"),
    ] {
        let wrong = parse(line).expect_err(line);
        assert_eq!(wrong.code, code, "{line}");
        assert!(wrong.text.contains(text), "{line}: {}", wrong.text);
    }
    let deep = "[".repeat(60_000);
    assert_eq!(parse(&deep).expect_err("too deep").code, "bad_json");
}

fn message(scope: Scope, replay: bool) -> Message {
    Message {
        scope,
        from: "ada".into(),
        body: "hi \u{1b}".into(),
        index: 12,
        is_final: false,
        clock: Clock(1_700_000_000_123_456),
        id: MessageId {
            author: AuthorId { session: SessionId(0xab), process: 0xcd },
            number: 0x1f,
        },
        replay,
        own: false,
    }
}

const ID: &str = "00000000000000ab-00000000000000cd-1f";

fn line(of: &Event, reference: Option<Value>) -> String {
    event(of, reference, "ada").expect("a line").to_string()
}

#[test]
fn golden_lines_of_messages() {
    let room = || Scope::Room("#all".into());
    assert_eq!(
        line(&Event::Message(message(room(), false)), None),
        format!(
            r##"{{"event":"message","room":"#all","from":"ada","body":"hi \u001b","index":12,"final":false,"time":"2023-11-14T22:13:20.123Z","id":"{ID}","replay":false}}"##
        )
    );
    let talk = Scope::Talk { name: "bob".into(), session: SessionId(1) };
    assert_eq!(
        line(&Event::Message(message(talk, true)), None),
        format!(
            r#"{{"event":"message","with":"bob","from":"ada","body":"hi \u001b","index":12,"final":false,"time":"2023-11-14T22:13:20.123Z","id":"{ID}","replay":true}}"#
        )
    );
    let id = message(room(), false).id;
    let sent = Event::Sent { reference: 1, id, index: 3, copies: 2, durable: false };
    assert_eq!(
        line(&sent, Some(json!("r"))),
        format!(r#"{{"event":"sent","id":"{ID}","ref":"r","index":3,"copies":2,"durable":false}}"#)
    );
    assert!(line(&sent, None).contains(r#""ref":null"#));
    let scope = room();
    let messages = vec![message(room(), true)];
    let history = Event::History { reference: 1, scope, total: 40, messages: messages.clone() };
    assert_eq!(
        line(&history, Some(json!(4))),
        format!(
            r##"{{"event":"history","room":"#all","total":40,"messages":[{{"room":"#all","from":"ada","body":"hi \u001b","index":12,"final":false,"time":"2023-11-14T22:13:20.123Z","id":"{ID}"}}],"ref":4}}"##
        )
    );
    let search = line(&Event::Search { reference: 1, total: 1, messages }, None);
    assert!(search.starts_with(r##"{"event":"search","total":1,"messages":[{"room":"#all""##));
}

#[test]
fn golden_lines_of_all_else() {
    let s = str::to_owned;
    let cases = [
        (
            Event::Connected {
                server: s("127.0.0.1:5000"),
                servers: vec![s("127.0.0.1:5000"), s("127.0.0.1:5001")],
                name: s("ada"),
                rooms: vec![s("#all")],
                attachment: 1,
            },
            r#"{"event":"connected","server":"127.0.0.1:5000","servers":["127.0.0.1:5000","127.0.0.1:5001"],"name":"ada"}"#,
        ),
        (
            Event::Disconnected { server: s("127.0.0.1:5000"), why: Reason::Ended },
            r#"{"event":"disconnected","server":"127.0.0.1:5000","why":"ended"}"#,
        ),
        (Event::Arrived { name: s("bob"), room: None }, r#"{"event":"arrived","name":"bob"}"#),
        (
            Event::Departed { name: s("bob"), room: Some(s("#ops")) },
            r##"{"event":"departed","name":"bob","room":"#ops"}"##,
        ),
        (
            Event::Joined { room: s("#ops"), topic: s("t"), reference: 1 },
            r##"{"event":"arrived","name":"ada","room":"#ops"}"##,
        ),
        (
            Event::Left { room: s("#ops"), reference: 1 },
            r##"{"event":"departed","name":"ada","room":"#ops"}"##,
        ),
        (Event::RoomMade { room: s("#ops") }, r##"{"event":"room","name":"#ops"}"##),
        (
            Event::Topic { room: s("#ops"), topic: s("t"), by: s("bob") },
            r##"{"event":"topic","room":"#ops","topic":"t","by":"bob"}"##,
        ),
        (
            Event::Renamed { from: s("a"), to: s("b"), own: false, why: None },
            r#"{"event":"renamed","from":"a","to":"b"}"#,
        ),
        (
            Event::Renamed { from: s("a"), to: s("a~2"), own: true, why: Some(Reason::NameLost) },
            r#"{"event":"renamed","from":"a","to":"a~2","why":"name_lost"}"#,
        ),
        (
            Event::Users {
                reference: 0,
                users: vec![User {
                    name: s("ada"),
                    session: SessionId(1),
                    online: true,
                    server: s("127.0.0.1:5000"),
                    rooms: vec![s("#all")],
                }],
            },
            r##"{"event":"users","users":[{"name":"ada","online":true,"server":"127.0.0.1:5000","rooms":["#all"]}]}"##,
        ),
        (
            Event::Rooms {
                reference: 0,
                rooms: vec![Room { name: s("#all"), users: 2, messages: 9, topic: s("") }],
            },
            r##"{"event":"rooms","rooms":[{"name":"#all","users":2,"messages":9,"topic":""}]}"##,
        ),
        (
            Event::Status {
                reference: 1,
                server: s("127.0.0.1:5000"),
                members: vec![Member {
                    address: s("127.0.0.1:5000"),
                    state: MemberState::Linked,
                    ma: 5,
                }],
                ma: 4,
                mt: 3,
                held: 2,
            },
            r#"{"event":"status","server":"127.0.0.1:5000","servers":["127.0.0.1:5000"],"ma":4,"mt":3,"held":2,"members":[{"address":"127.0.0.1:5000","state":"linked","ma":5}]}"#,
        ),
        (Event::CaughtUp { room: None }, r#"{"event":"caught_up"}"#),
        (Event::Reset { held: 12 }, r#"{"event":"reset","why":"archive_lost","held":12}"#),
        (
            Event::Error { reference: 0, reason: Reason::NameTaken, text: s("why") },
            r#"{"event":"error","code":"name_taken","text":"why","ref":null}"#,
        ),
    ];
    for (event, expected) in &cases {
        assert_eq!(line(event, None), *expected);
    }
    assert_eq!(event(&Event::Done { reference: 1 }, None, "ada"), None);
}

#[test]
fn any_clock_has_a_time() {
    assert_eq!(time(Clock(0)), "1970-01-01T00:00:00.000Z");
    assert_eq!(time(Clock(u64::MAX)), "9999-12-31T23:59:59.999Z");
}

#[test]
fn the_guide_names_every_code_and_every_request() {
    let guide = include_str!("../../../../docs/chat.md");
    let of_blocks = include_str!("../../../../docs/blocks.md");
    for reason in Reason::ALL {
        // From 80 on they are a block server's.
        let guide = if reason.code() < 80 { guide } else { of_blocks };
        assert!(guide.contains(&format!("`{}`", reason.word())), "{}", reason.word());
    }
    for key in ["say", "join", "leave", "topic", "name", "search", "history", "users", "rooms"] {
        assert!(guide.contains(&format!("{{\"{key}\":")), "{key}");
    }
    for code in [
        "bad_json",
        "unknown_key",
        "bad_value",
        "line_too_long",
        "not_acknowledged",
        "not_answered",
    ] {
        assert!(guide.contains(&format!("`{code}`")), "{code}");
    }
}
