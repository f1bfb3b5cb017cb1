use cordee_core::ids::{AuthorId, Clock, SessionId};
use cordee_net::client::{MemberState, MessageId};

use super::*;

fn message(scope: Scope, body: &str, replay: bool) -> Message {
    Message {
        scope,
        from: "ada".into(),
        body: body.into(),
        index: 12,
        is_final: false,
        clock: Clock(1_700_000_000_123_456),
        id: MessageId { author: AuthorId { session: SessionId(1), process: 2 }, number: 3 },
        replay,
        own: false,
    }
}

fn room(name: &str) -> Scope {
    Scope::Room(name.into())
}

fn shown(event: &Event) -> Vec<String> {
    lines(event, &Heard::default(), "me", Breaks::Escaped)
}

fn answered(event: &Event) -> Vec<String> {
    lines(event, &Heard { asked: true, ..Heard::default() }, "me", Breaks::Escaped)
}

#[test]
fn messages_show_place_author_and_body() {
    assert_eq!(shown(&Event::Message(message(room("#all"), "hi", false))), ["#all ada: hi"]);
    let talk = Scope::Talk { name: "bob".into(), session: SessionId(1) };
    assert_eq!(shown(&Event::Message(message(talk, "hi", false))), ["@bob ada: hi"]);
    assert_eq!(
        shown(&Event::Message(message(room("#all"), "hi", true))),
        ["2023-11-14 22:13:20Z #all ada: hi"]
    );
}

#[test]
fn nothing_that_others_wrote_reaches_the_terminal_as_it_is() {
    let nasty = "a\u{1b}[2J\u{202e}\nb";
    let s = || nasty.to_owned();
    let user =
        User { name: s(), session: SessionId(1), online: false, server: s(), rooms: vec![s()] };
    let list = Room { name: s(), users: 1, messages: 1, topic: s() };
    let member = Member { address: s(), state: MemberState::Linked, ma: 1 };
    let messages = vec![message(room(nasty), nasty, true)];
    let events = [
        Event::Connected {
            server: s(),
            servers: vec![s()],
            name: s(),
            rooms: vec![s()],
            attachment: 1,
        },
        Event::Disconnected { server: s(), why: Reason::Ended },
        Event::Message(message(
            Scope::Talk { name: s().into(), session: SessionId(1) },
            nasty,
            true,
        )),
        Event::Arrived { name: s(), room: None },
        Event::Departed { name: s(), room: Some(s()) },
        Event::Joined { room: s(), topic: s(), reference: 1 },
        Event::Left { room: s(), reference: 1 },
        Event::RoomMade { room: s() },
        Event::Topic { room: s(), topic: s(), by: s() },
        Event::Renamed { from: s(), to: s(), own: false, why: Some(Reason::NameLost) },
        Event::Users { reference: 1, users: vec![user] },
        Event::Rooms { reference: 1, rooms: vec![list] },
        Event::History { reference: 1, scope: room(nasty), total: 1, messages: messages.clone() },
        Event::Search { reference: 1, more: false, messages },
        Event::Status { reference: 1, server: s(), members: vec![member], ma: 1, mt: 1, held: 1 },
        Event::Error { reference: 1, reason: Reason::Unknown, text: s() },
    ];
    for event in &events {
        for line in shown(event).into_iter().chain(answered(event)) {
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
            assert!(line.contains("\\u{1b}[2J") || line.starts_with("* 1 "), "{line:?}");
        }
    }
}

#[test]
fn what_happens_is_one_line_each() {
    let s = str::to_owned;
    for (event, line) in [
        (Event::Arrived { name: s("bob"), room: None }, "* bob arrived"),
        (Event::Arrived { name: s("bob"), room: Some(s("#ops")) }, "* bob joined #ops"),
        (Event::Departed { name: s("bob"), room: None }, "* bob departed"),
        (Event::Departed { name: s("bob"), room: Some(s("#ops")) }, "* bob left #ops"),
        (Event::Left { room: s("#ops"), reference: 1 }, "* me left #ops"),
        (Event::RoomMade { room: s("#ops") }, "* new room #ops"),
        (
            Event::Topic { room: s("#ops"), topic: s("rota"), by: s("bob") },
            "* topic of #ops: rota (by bob)",
        ),
        (Event::Topic { room: s("#ops"), topic: s(""), by: s("") }, "* #ops has no topic any more"),
        (Event::Renamed { from: s("a"), to: s("b"), own: false, why: None }, "* a is now b"),
    ] {
        assert_eq!(shown(&event), [line]);
    }
}

#[test]
fn lists_are_short_on_arrival_and_whole_when_asked_for() {
    let user = |name: &str, online| User {
        name: name.to_owned(),
        session: SessionId(1),
        online,
        server: "127.0.0.1:5000".to_owned(),
        rooms: vec!["#all".to_owned(), "#ops".to_owned()],
    };
    let users = Event::Users { reference: 0, users: vec![user("bob", false), user("ada", true)] };
    assert_eq!(shown(&users), ["* here: ada, bob"]);
    assert_eq!(
        answered(&users),
        [
            "* 2 users: name, server, rooms",
            "  ada                      127.0.0.1:5000         #all #ops",
            "  bob (away)               127.0.0.1:5000         #all #ops",
        ]
    );
}

#[test]
fn history_shows_indexes_and_which_may_change() {
    let messages = vec![
        Message { is_final: true, index: 1, ..message(room("#all"), "one", true) },
        message(room("#all"), "two", true),
    ];
    let history = Event::History { reference: 1, scope: room("#all"), total: 12, messages };
    assert_eq!(
        answered(&history),
        [
            "* 2 of 12 messages of #all",
            "     1  2023-11-14 22:13:20Z #all ada: one",
            "    12? 2023-11-14 22:13:20Z #all ada: two",
        ]
    );
}

#[test]
fn a_message_of_several_lines_is_one_line_or_has_indented_lines() {
    let event = Event::Message(message(room("#all"), "one\n#all bob: two\u{1b}[m", false));
    assert_eq!(shown(&event), ["#all ada: one\\u{a}#all bob: two\\u{1b}[m"]);
    let lines = lines(&event, &Heard::default(), "me", Breaks::Shown);
    assert_eq!(lines, ["#all ada: one\n    #all bob: two\\u{1b}[m"]);
}
