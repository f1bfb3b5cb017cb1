//! What the application wants, and what it hears.

use super::*;
use crate::wire::chat::{Ack, Done, Failed, Page, Renamed, RoomMade, Status, TopicSet};

#[test]
fn messages_are_shown_as_the_session_sees_them() {
    let (mut rig, link) = Rig::attached();
    rig.feed(link, &entry(1, 1, "hello"));
    let talk = Scope::talk(me(), BOB.session, "ada");
    rig.feed(link, &Entry { scope: talk, flags: flags::FINAL, ..entry(2, 2, "psst") });
    rig.feed(link, &own_entry(3, 9));
    let earlier = AuthorId { process: 1, ..own_author() };
    rig.feed(link, &replayed(Entry { author: earlier, name: "ada", ..entry(4, 1, "before") }));
    let foreign = Scope::talk(SessionId(3), SessionId(4), "x");
    assert_eq!(
        rig.take_events(),
        ["#all bob: hello #1", "@bob(2) bob: psst #2", "#all ada: before #4 replay own"]
    );
    assert_eq!(rig.client.held(), 4);
    rig.feed(link, &Entry { scope: foreign, ..entry(5, 3, "not for us") });
    assert!(!rig.is_open(link), "a server that shows others' talks is not listened to");
}

#[test]
fn what_cannot_be_said_is_refused_before_it_gets_a_number() {
    let (mut rig, link) = Rig::attached();
    let say = |to: &str, body: &str, reference| Command::Say {
        to: Target::parse(to),
        body: body.into(),
        reference,
    };
    rig.command(say("#all", "", 1));
    rig.command(say("#all", &"x".repeat(8_193), 2));
    rig.command(say("#nowhere", "x", 3));
    rig.command(say("#no room", "x", 4));
    rig.command(say("nobody", "x", 5));
    rig.command(Command::Leave { room: "#all".into(), reference: 6 });
    rig.command(Command::Search { words: " ".into(), reference: 7 });
    rig.command(Command::Topic { room: "#all".into(), topic: "x".repeat(513), reference: 8 });
    let expected = [
        "error 1 body_empty",
        "error 2 body_too_long",
        "error 3 not_member",
        "error 4 room_invalid",
        "error 5 user_unknown",
        "error 6 common_room",
        "error 7 search_empty",
        "error 8 topic_too_long",
    ];
    assert_eq!(rig.take_events(), expected);
    rig.say("first", 9);
    assert_eq!(rig.take_sent(link), ["say 1 #all after [] first"]);
}

#[test]
fn no_more_is_taken_than_may_be_unacknowledged() {
    let mut small = config(&[A], "ada");
    small.limits.unacknowledged_max = 2;
    let (mut rig, link) = Rig::attached_with(small);
    rig.say("a", 1);
    assert!(rig.client.takes_commands());
    rig.say("b", 2);
    assert!(!rig.client.takes_commands());
    rig.say("c", 3);
    assert_eq!(rig.take_events(), ["error 3 busy"]);
    rig.feed(link, &own_entry(1, 1));
    rig.feed(link, &Ack { first: 1, copies: 1, durable: true, indexes: Seq::new(&[1]) });
    assert!(rig.client.takes_commands());
}

#[test]
fn answers_in_parts_are_put_together() {
    let (mut rig, link) = Rig::attached();
    let of = Target::User("bob".into());
    rig.command(Command::History { of, from: None, count: 3, reference: 8 });
    rig.command(Command::Search { words: "x".into(), reference: 9 });
    assert_eq!(rig.take_sent(link), ["history? @bob(2) 0+3", "search? x"]);
    let page = |request, more, entries| Page { request, more, total: 40, entries };
    let (first, last) = ([entry(1, 1, "a"), entry(2, 2, "b")], [entry(3, 3, "c")]);
    rig.feed(link, &page(1, true, Seq::new(&first)));
    rig.feed(link, &page(2, false, Seq::default()));
    rig.feed(link, &page(1, false, Seq::new(&last)));
    let expected = ["search 9 40 []", "history 8 @bob(2) 40 [a b c]"];
    assert_eq!(rig.take_events(), expected);
}

#[test]
fn questions_that_a_server_takes_one_at_a_time_wait_for_each_other() {
    let (mut rig, link) = Rig::attached();
    for (words, reference) in [("x", 1), ("y", 2)] {
        rig.command(Command::Search { words: words.into(), reference });
    }
    rig.command(Command::Status { reference: 3 });
    assert_eq!(rig.take_sent(link), ["search? x", "status?"]);
    let reason = Reason::Busy;
    rig.feed(link, &Failed { request: 1, say: false, reason, detail: "" });
    assert_eq!(rig.take_sent(link), ["search? y"]);
}

#[test]
fn a_half_answered_question_is_asked_anew_of_the_next_server() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.command(Command::Search { words: "x".into(), reference: 9 });
    let entries = [entry(1, 1, "a")];
    let part = Seq::new(&entries);
    rig.feed(link, &Page { request: 1, more: true, total: 2, entries: part });
    rig.end(link);
    rig.attach(standby, |_| ());
    assert_eq!(rig.take_sent(standby).last().expect("a question"), "search? x");
    rig.feed(standby, &Page { request: 1, more: false, total: 2, entries: part });
    assert_eq!(rig.take_events().last().expect("an answer"), "search 9 2 [a]");
}

#[test]
fn status_shows_what_is_held() {
    let (mut rig, link) = Rig::attached();
    rig.feed(link, &entry(1, 1, "a"));
    rig.feed(link, &own_entry(2, 1));
    rig.take_events();
    rig.command(Command::Status { reference: 3 });
    let (mt, ma, members) = (Fixed64(2), 2, Seq::default());
    rig.feed(link, &Status { mt, ma, request: 1, server: A, members });
    assert_eq!(rig.take_events(), ["status 3 ma 2 mt 2 held 2"]);
}

#[test]
fn names_rooms_and_topics_change() {
    let (mut rig, link) = Rig::attached();
    rig.command(Command::Name { name: "Ada".into(), reference: 5 });
    assert_eq!(rig.take_sent(link), ["name Ada"]);
    let renamed = |session, from, to, reason| Renamed { session, from, to, reason };
    rig.feed(link, &renamed(me(), "ada", "Ada", Reason::Unknown));
    rig.feed(link, &Done { request: 1 });
    rig.feed(link, &renamed(BOB.session, "bob", "bob~2", Reason::NameLost));
    rig.feed(link, &renamed(me(), "Ada", "Ada~2", Reason::NameLost));
    rig.feed(link, &RoomMade { room: "#x" });
    rig.feed(link, &RoomMade { room: "#x" });
    rig.feed(link, &TopicSet { room: "#x", topic: "t", by: "bob" });
    let expected = [
        "renamed ada Ada own ",
        "done 5",
        "renamed bob bob~2 name_lost",
        "renamed Ada Ada~2 own name_lost",
        "room #x",
        "topic #x t by bob",
    ];
    assert_eq!(rig.take_events(), expected);
    let to = Target::User("bob~2".into());
    rig.command(Command::Say { to, body: "still you".into(), reference: 0 });
    assert_eq!(rig.take_sent(link), ["say 1 @bob~2(2) after [] still you"]);
}

#[test]
fn a_reset_receives_everything_again_from_the_same_server_own_messages_too() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.say("own", 1);
    rig.feed(link, &own_entry(1, 1));
    rig.feed(link, &Ack { first: 1, copies: 1, durable: false, indexes: Seq::new(&[1]) });
    rig.take_events();
    rig.command(Command::Reset);
    assert!(rig.is_open(standby));
    let again = rig.open(A);
    assert_eq!(rig.sent[&again], ["attach ada #12 Reset own 1 in #all seen []"]);
    rig.attach(again, |attached| attached.author_number = 1);
    rig.feed(again, &replayed(own_entry(1, 1)));
    assert_eq!(rig.take_events(), ["#all ada: own #1 replay own"]);
    assert_eq!(rig.client.held(), 1);
    rig.say("next", 2);
    assert_eq!(rig.take_sent(again), ["say 2 #all after [0:1] next"]);
}

#[test]
fn the_classic_client_forgets_at_every_change_of_server() {
    let mut classic = config(&[A], "ada");
    classic.reset = true;
    let (mut rig, link) = Rig::attached_with(classic);
    let standby = rig.open(B);
    rig.feed(link, &entry(1, 1, "a"));
    rig.end(link);
    assert_eq!(rig.sent[&standby], ["attach ada #12 Reset own 0 in #all seen []"]);
    assert_eq!(rig.client.held(), 0);
}

#[test]
fn a_server_is_killed_once() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.command(Command::KillServer { reference: 1 });
    rig.command(Command::Rooms { reference: 2 });
    assert_eq!(rig.take_sent(link), ["kill", "rooms?"]);
    rig.end(link);
    rig.command(Command::KillServer { reference: 3 });
    rig.attach(standby, |_| ());
    assert_eq!(rig.take_sent(standby), ["rooms?"]);
    assert!(rig.take_events().contains(&"error 3 not_attached".into()));
    rig.command(Command::KillServer { reference: 4 });
    let reason = Reason::KillForbidden;
    rig.feed(standby, &Failed { request: 3, say: false, reason, detail: "" });
    assert_eq!(rig.take_events(), ["error 4 kill_forbidden"]);
}

#[test]
fn quitting_waits_for_acknowledgements_and_answers() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.caught_up(link);
    rig.say("a", 1);
    rig.command(Command::Users { reference: 2 });
    rig.command(Command::Quit);
    rig.say("late", 3);
    assert_eq!(rig.take_events(), ["error 3 goodbye"]);
    rig.take_sent(link);
    rig.feed(link, &Ack { first: 1, copies: 2, durable: false, indexes: Seq::new(&[1]) });
    assert!(!rig.client.is_over());
    rig.feed(link, &UserList { request: 2, more: false, users: Seq::default() });
    let expected = ["sent 1 number 1 #1 copies 2", "users 2 []", "closed  []"];
    assert_eq!(rig.take_events(), expected);
    assert_eq!(rig.take_sent(link), ["quit"]);
    assert!(rig.closed.contains(&link) && rig.closed.contains(&standby));
}

#[test]
fn quitting_outlives_its_server() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.caught_up(link);
    rig.say("a", 1);
    rig.command(Command::Quit);
    rig.end(link);
    rig.attach(standby, |_| ());
    rig.feed(standby, &Ack { first: 1, copies: 1, durable: false, indexes: Seq::new(&[1]) });
    rig.feed(standby, &CaughtUp { room: "" });
    assert!(rig.client.is_over());
    assert_eq!(rig.take_events().last().expect("the end"), "closed  []");
}

#[test]
fn a_stop_says_what_was_left_undone() {
    let (mut rig, link) = Rig::attached();
    rig.say("a", 1);
    rig.say("b", 2);
    rig.take_sent(link);
    rig.input(Input::Stop);
    assert_eq!(rig.take_events(), ["closed  [1 2]"]);
    assert_eq!(rig.take_sent(link), ["quit"]);
    rig.input(Input::Stop);
    assert!(rig.take_events().is_empty());
}
