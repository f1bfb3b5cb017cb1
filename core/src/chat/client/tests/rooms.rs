//! Rooms are joined and left, and servers die meanwhile.

use super::*;
use crate::wire::chat::{Failed, Joined, Left};

fn in_room<'a>(room: &'a str, entry: Entry<'a>) -> Entry<'a> {
    Entry { scope: Scope::Room(room), ..entry }
}

fn join(rig: &mut Rig, room: &str, reference: u64) {
    rig.command(Command::Join { room: room.into(), reference });
}

#[test]
fn a_room_is_joined_and_its_archive_received() {
    let (mut rig, link) = Rig::attached();
    rig.feed(link, &entry(5, 1, "live"));
    join(&mut rig, "#Ops", 1);
    rig.command(Command::Say { to: Target::parse("#ops"), body: "hi".into(), reference: 2 });
    assert_eq!(rig.take_sent(link), ["join #ops", "say 1 #ops after [0:5] hi"]);
    rig.take_events();
    rig.feed(link, &Joined { request: 1, room: "#ops", topic: "t" });
    rig.feed(link, &replayed(in_room("#ops", entry(2, 1, "old"))));
    rig.feed(link, &CaughtUp { room: "#ops" });
    let expected = ["joined #ops (t) 1", "#ops bob: old #2 replay", "caught up #ops"];
    assert_eq!(rig.take_events(), expected);
    assert_eq!(rig.client.held(), 2);
}

#[test]
fn a_room_half_received_goes_on_with_a_vector_of_its_own() {
    let (mut rig, link, standby) = Rig::with_standby();
    join(&mut rig, "#ops", 1);
    rig.feed(link, &Joined { request: 1, room: "#ops", topic: "" });
    rig.feed(link, &replayed(in_room("#ops", entry(2, 1, "old"))));
    rig.feed(link, &entry(9, 1, "live, elsewhere"));
    rig.end(link);
    let expected = "attach ada #12 Resume own 0 in #all #ops seen [5000:9] #ops [5000:2]";
    assert_eq!(rig.sent[&standby], [expected]);
    rig.attach(standby, |attached| attached.rooms = Seq::new(&["#all", "#ops"]));
    define(&mut rig, standby, A);
    rig.take_events();
    let rest = Entry { origin: OriginRef(1), ..in_room("#ops", entry(3, 2, "rest")) };
    rig.feed(standby, &replayed(rest));
    rig.feed(standby, &CaughtUp { room: "" });
    assert_eq!(rig.take_events(), ["#ops bob: rest #3 replay", "caught up"]);
    rig.end(standby);
    let next = rig.open(C);
    let attach = &rig.take_sent(next)[0];
    assert!(attach.ends_with("in #all #ops seen [5000:9]"), "{attach}");
}

#[test]
fn a_join_that_the_dead_server_did_not_answer_is_granted_by_the_attachment() {
    let (mut rig, link, standby) = Rig::with_standby();
    join(&mut rig, "#ops", 7);
    rig.end(link);
    assert!(rig.sent[&standby][0].ends_with("in #all #ops seen [] #ops []"));
    rig.take_events();
    rig.attach(standby, |attached| attached.rooms = Seq::new(&["#all", "#ops"]));
    let events = rig.take_events();
    assert_eq!(events[1], "joined #ops () 7", "{events:?}");
    assert!(rig.take_sent(standby).is_empty());
}

#[test]
fn what_was_wanted_is_wanted_in_the_same_order_from_the_next_server() {
    let (mut rig, link, standby) = Rig::with_standby();
    join(&mut rig, "#ops", 1);
    rig.feed(link, &Joined { request: 1, room: "#ops", topic: "" });
    rig.command(Command::Say { to: Target::parse("#ops"), body: "a".into(), reference: 2 });
    rig.command(Command::Leave { room: "#ops".into(), reference: 3 });
    rig.command(Command::Say { to: Target::parse("#ops"), body: "no".into(), reference: 4 });
    rig.say("b", 5);
    rig.command(Command::Users { reference: 6 });
    rig.end(link);
    let not_member = |event: &String| event == "error 4 not_member";
    assert!(rig.take_events().iter().any(not_member));
    rig.attach(standby, |attached| attached.rooms = Seq::new(&["#all", "#ops"]));
    let expected = ["say 1 #ops after [] a", "leave #ops", "say 2 #all after [] b", "users?"];
    assert_eq!(rig.take_sent(standby), expected);
}

#[test]
fn a_room_that_was_left_is_forgotten() {
    let (mut rig, link) = Rig::attached();
    join(&mut rig, "#ops", 1);
    rig.feed(link, &Joined { request: 1, room: "#ops", topic: "" });
    rig.feed(link, &replayed(in_room("#ops", entry(1, 1, "old"))));
    rig.feed(link, &CaughtUp { room: "#ops" });
    rig.command(Command::Leave { room: "#ops".into(), reference: 2 });
    rig.feed(link, &Left { request: 2, room: "#ops" });
    assert_eq!(rig.take_events().last().expect("left"), "left #ops 2");
    assert_eq!(rig.client.held(), 0);
    // Joined once more, it comes whole once more.
    join(&mut rig, "#ops", 3);
    rig.feed(link, &Joined { request: 3, room: "#ops", topic: "" });
    rig.take_events();
    rig.feed(link, &replayed(in_room("#ops", entry(1, 1, "old"))));
    assert_eq!(rig.take_events(), ["#ops bob: old #1 replay"]);
}

#[test]
fn a_message_to_a_room_that_could_not_be_joined_gives_its_number_back() {
    let (mut rig, link) = Rig::attached();
    join(&mut rig, "#ops", 1);
    rig.command(Command::Say { to: Target::parse("#ops"), body: "a".into(), reference: 2 });
    rig.say("b", 3);
    rig.take_sent(link);
    rig.feed(link, &Failed { request: 1, say: false, reason: Reason::TooManyRooms, detail: "" });
    rig.feed(link, &Failed { request: 1, say: true, reason: Reason::NotMember, detail: "" });
    assert_eq!(rig.take_sent(link), ["say 1 #all after [] b"]);
    rig.feed(link, &Failed { request: 2, say: true, reason: Reason::OutOfOrder, detail: "" });
    assert_eq!(rig.take_events(), ["error 1 too_many_rooms", "error 2 not_member"]);
    assert!(rig.is_open(link) && rig.take_sent(link).is_empty());
    // Out of order without such a reason: both sides must agree anew.
    rig.feed(link, &Failed { request: 1, say: true, reason: Reason::OutOfOrder, detail: "" });
    assert!(!rig.is_open(link));
}

#[test]
fn rooms_given_at_the_start_are_asked_for_and_those_granted_are_told() {
    let mut with_rooms = config(&[A], "ada");
    with_rooms.rooms = alloc::vec!["#ops".into(), "#x".into()];
    let mut rig = Rig::new(with_rooms);
    let link = rig.open(A);
    assert!(rig.sent[&link][0].contains("in #all #ops #x"));
    rig.attach(link, |attached| attached.rooms = Seq::new(&["#all", "#ops"]));
    let events = rig.take_events();
    assert!(events.contains(&"left #x 0".into()), "{events:?}");
}
