//! Servers die.

use super::*;
use crate::wire::chat::{Ack, Arrived, Failed, Stable, Want};

fn ack(first: u64, indexes: &[u64]) -> Ack<'_> {
    Ack { first, copies: 2, durable: false, indexes: Seq::new(indexes) }
}

/// What was sent on `link`, its attachment left out.
fn after_attach(rig: &mut Rig, link: LinkId) -> Vec<String> {
    let mut sent = rig.take_sent(link);
    sent.retain(|sent| !sent.starts_with("attach"));
    sent
}

#[test]
fn when_the_stream_ends_the_standby_is_attached_to_at_once() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.feed(link, &entry(1, 1, "hello"));
    rig.caught_up(link);
    rig.take_events();
    rig.end(link);
    assert_eq!(rig.take_events(), ["disconnected 127.0.0.1:5000 ended"]);
    assert_eq!(rig.sent[&standby], ["attach ada #12 Resume own 0 in #all seen [5000:1]"]);
    rig.attach(standby, |_| ());
    let servers = "[127.0.0.1:5000 127.0.0.1:5001 127.0.0.1:5002]";
    let connected = format!("connected 127.0.0.1:5001 of {servers} as ada in #all #12");
    assert_eq!(rig.take_events(), [connected]);
    rig.open(C);
}

#[test]
fn three_missed_pings_are_as_good_as_an_end_and_any_byte_is_a_sign_of_life() {
    let (mut rig, link, standby) = Rig::with_standby();
    for _ in 0..20 {
        rig.wait(400_000);
        rig.input(Input::Heard { link });
        rig.input(Input::Heard { link: standby });
    }
    assert!(rig.take_events().is_empty());
    for _ in 0..5 {
        rig.wait(400_000);
        rig.input(Input::Heard { link: standby });
    }
    assert_eq!(rig.take_events(), ["disconnected 127.0.0.1:5000 silent"]);
    assert!(rig.closed.contains(&link));
    assert!(rig.take_sent(standby)[0].starts_with("attach ada #12 Resume"));
}

#[test]
fn while_the_application_takes_no_events_silence_means_nothing() {
    let (mut rig, link, _) = Rig::with_standby();
    rig.input(Input::Paused(true));
    rig.wait(60_000_000);
    assert!(rig.is_open(link));
    rig.input(Input::Paused(false));
    rig.wait(60_000_000);
    assert!(!rig.is_open(link));
}

#[test]
fn a_silent_standby_is_replaced() {
    let (mut rig, link, standby) = Rig::with_standby();
    for _ in 0..6 {
        rig.wait(400_000);
        rig.input(Input::Heard { link });
    }
    assert!(rig.closed.contains(&standby) && rig.is_open(link));
    rig.open(C);
    assert!(rig.take_events().is_empty(), "the standby is nobody's business");
}

#[test]
fn a_nearer_server_that_comes_back_takes_the_place_of_the_standby() {
    let (mut rig, link) = Rig::attached();
    rig.refuse(B);
    let far = rig.open(C);
    // B is tried again after a while.
    for _ in 0..3 {
        rig.wait(300_000);
        rig.input(Input::Heard { link });
        rig.input(Input::Heard { link: far });
    }
    let near = rig.open(B);
    assert!(rig.closed.contains(&far) && rig.is_open(near));
}

#[test]
fn what_is_not_acknowledged_is_sent_again_and_acknowledged_by_the_next_server() {
    let (mut rig, link, standby) = Rig::with_standby();
    for number in 1..=4 {
        rig.say(&format!("m{number}"), 100 + number);
    }
    rig.feed(link, &own_entry(1, 1));
    rig.feed(link, &ack(1, &[1]));
    assert_eq!(rig.take_events(), ["sent 101 number 1 #1 copies 2"]);
    rig.end(link);
    rig.say("m5", 105);
    rig.attach(standby, |attached| attached.author_number = 2);
    rig.feed(standby, &OriginDef { reference: OriginRef(6), origin: origin_of(A) });
    // The next server has the second, but only a message that is said to it is acknowledged.
    let expected = [
        "say 2 #all after [] m2",
        "say 3 #all after [6:1] m3",
        "say 4 #all after [] m4",
        "say 5 #all after [] m5",
    ];
    assert_eq!(after_attach(&mut rig, standby), expected);
    rig.take_events();
    rig.feed(standby, &replayed(own_entry(1, 2)));
    assert!(rig.take_events().is_empty(), "own messages are not shown");
    rig.feed(standby, &ack(2, &[1, 2, 3, 4]));
    let sent: Vec<String> =
        (2..=5).map(|n| format!("sent {} number {n} #{} copies 2", 100 + n, n - 1)).collect();
    assert_eq!(rig.take_events(), sent);
}

#[test]
fn acknowledgements_that_come_twice_are_told_once() {
    let (mut rig, link) = Rig::attached();
    rig.say("a", 1);
    rig.say("b", 2);
    rig.feed(link, &ack(1, &[5]));
    rig.feed(link, &ack(1, &[5, 6]));
    rig.feed(link, &ack(1, &[5, 6, 7]));
    assert_eq!(rig.take_events(), ["sent 1 number 1 #5 copies 2", "sent 2 number 2 #6 copies 2"]);
}

#[test]
fn a_row_that_comes_again_under_another_number_is_not_shown_again() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.feed(link, &entry(1, 1, "one"));
    rig.feed(link, &entry(2, 2, "two"));
    rig.take_events();
    rig.end(link);
    rig.attach(standby, |_| ());
    rig.take_events();
    rig.feed(standby, &replayed(entry(1, 2, "two")));
    rig.feed(standby, &replayed(entry(2, 3, "three")));
    rig.feed(standby, &Entry { flags: flags::COPY, ..entry(3, 4, "copy") });
    assert_eq!(rig.take_events(), ["#all bob: three #2 replay"]);
    assert_eq!(rig.client.held(), 3);
    rig.end(standby);
    let next = rig.open(C);
    let attach = &rig.take_sent(next)[0];
    assert!(attach.ends_with("seen [5000:2 5001:3]"), "{attach}");
}

#[test]
fn entries_that_died_with_their_server_are_handed_back_in_canonical_order() {
    let (mut rig, link, standby) = Rig::with_standby();
    define(&mut rig, link, C);
    let own = origin_of(A);
    rig.feed(link, &entry(1, 1, "stable"));
    rig.feed(link, &Stable { held: Seq::new(&[(OriginRef(0), 1)]) });
    rig.feed(link, &entry(2, 2, "later"));
    let other = Entry { origin: OriginRef(1), clock: Clock(1), ..entry(7, 9, "earlier") };
    rig.feed(link, &Entry { after: Seq::new(&[(OriginRef(0), 1)]), ..other });
    rig.feed(link, &own_entry(3, 1));
    rig.end(link);
    rig.take_sent(standby);
    let ranges = [(own, 1, 3), (origin_of(C), 7, 7), (origin_of(B), 1, 9)];
    rig.feed(standby, &Want { ranges: Seq::new(&ranges) });
    let expected =
        ["return 5002:7 earlier", "return 5000:2 later", "return 5000:3 own", "returned 3"];
    assert_eq!(rig.sent[&standby], expected);
    // The vector is cut back, and the entries come again without being shown.
    rig.take_events();
    rig.sent.remove(&standby);
    let cut = [(own, 1), (origin_of(C), 0)];
    let attached = Attached {
        session: me(),
        name: "ada",
        intent: chat::Intent::Resume,
        author_number: 0,
        ma: 4,
        mt: 1,
        cut: Seq::new(&cut),
        rooms: Seq::new(&["#all"]),
    };
    rig.feed(standby, &attached);
    rig.take_events();
    rig.feed(standby, &replayed(entry(1, 2, "later")));
    assert!(rig.take_events().is_empty());
    rig.end(standby);
    let next = rig.open(C);
    let attach = &rig.take_sent(next)[0];
    assert!(attach.ends_with("seen [5000:1 5001:1]"), "{attach}");
}

#[test]
fn what_is_handed_back_waits_for_what_went_before_to_drain() {
    let mut small = config(&[A], "ada");
    small.limits.queue_bytes_max = 2_000;
    let (mut rig, link) = Rig::attached_with(small);
    let standby = rig.open(B);
    let body = "x".repeat(600);
    for number in 1..=10 {
        rig.feed(link, &entry(number, number, &body));
    }
    rig.end(link);
    rig.take_sent(standby);
    rig.feed(standby, &Want { ranges: Seq::new(&[(origin_of(A), 1, 10)]) });
    let mut count = rig.take_sent(standby).len();
    assert!(count < 5, "{count}");
    for _ in 0..40 {
        rig.input(Input::Drained { link: standby, bytes: 1_000 });
        count += rig.take_sent(standby).len();
    }
    assert_eq!(count, 11, "ten and the end");
}

#[test]
fn a_message_names_what_was_seen_since_the_one_before_as_this_server_counts() {
    let (mut rig, link, standby) = Rig::with_standby();
    define(&mut rig, link, C);
    rig.feed(link, &entry(1, 1, "its own"));
    rig.feed(link, &Entry { origin: OriginRef(1), ..entry(4, 2, "another's") });
    rig.say("a", 1);
    rig.say("b", 2);
    assert_eq!(rig.take_sent(link), ["say 1 #all after [0:1 1:4] a", "say 2 #all after [] b"]);
    rig.end(link);
    // B counts the origins otherwise, and says so only after it has attached the session.
    rig.attach(standby, |_| ());
    rig.command(Command::Users { reference: 3 });
    rig.feed(standby, &OriginDef { reference: OriginRef(6), origin: origin_of(A) });
    assert!(after_attach(&mut rig, standby).is_empty(), "C's number is to come");
    rig.feed(standby, &OriginDef { reference: OriginRef(0), origin: origin_of(C) });
    let expected = ["say 1 #all after [6:1 0:4] a", "say 2 #all after [] b", "users?"];
    assert_eq!(after_attach(&mut rig, standby), expected);
}

#[test]
fn what_a_message_comes_after_is_told_with_the_first_that_the_server_lacks() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.say("a", 1);
    rig.feed(link, &entry(1, 1, "seen before the second is said"));
    rig.say("b", 2);
    rig.end(link);
    rig.feed(standby, &OriginDef { reference: OriginRef(6), origin: origin_of(A) });
    rig.attach(standby, |attached| attached.author_number = 1);
    let expected = ["say 1 #all after [] a", "say 2 #all after [6:1] b"];
    assert_eq!(after_attach(&mut rig, standby), expected);
}

#[test]
fn what_happened_on_the_way_is_told_from_the_lists() {
    let (mut rig, link, standby) = Rig::with_standby();
    let eve = Arrived { session: SessionId(9), name: "eve", room: "" };
    rig.feed(link, &eve);
    rig.feed(link, &eve);
    assert_eq!(rig.take_events(), ["arrived eve "]);
    rig.end(link);
    rig.attach(standby, |_| ());
    rig.take_events();
    // The next server does not know Eve. It may only be late; after half a minute it is not.
    for _ in 0..30 {
        assert_eq!(rig.take_events().len(), 0);
        rig.wait(1_000_000);
        rig.input(Input::Heard { link: standby });
    }
    assert_eq!(rig.take_events(), ["departed eve "]);
}

#[test]
fn a_name_that_was_taken_meanwhile_is_replaced_and_nobody_is_thrown_out() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.end(link);
    rig.take_sent(standby);
    let reason = Reason::NameTaken;
    rig.feed(standby, &Failed { request: 0, say: false, reason, detail: "" });
    assert_eq!(rig.sent[&standby], ["attach ada~2 #13 Resume own 0 in #all seen []"]);
    rig.take_events();
    rig.sent.insert(standby, alloc::vec!["attach ada Resume".into()]);
    rig.attach(standby, |attached| attached.name = "ada~2");
    let events = rig.take_events();
    assert!(events[0].contains("as ada~2"), "{events:?}");
}

#[test]
fn a_cluster_that_forgot_the_author_gets_what_is_unsaid_from_another() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.say("safe", 1);
    rig.say("unsafe", 2);
    rig.feed(link, &own_entry(1, 1));
    rig.feed(link, &ack(1, &[1]));
    rig.end(link);
    rig.take_events();
    let answer = Attached {
        session: me(),
        name: "ada",
        intent: chat::Intent::New,
        author_number: 0,
        ma: 0,
        mt: 0,
        cut: Seq::default(),
        rooms: Seq::new(&["#all"]),
    };
    rig.feed(standby, &answer);
    let again = rig.open(B);
    rig.take_events();
    rig.attach(again, |_| ());
    assert_eq!(after_attach(&mut rig, again), ["say 1 #all after [] unsafe"]);
    assert_ne!(rig.client.author(), own_author());
    rig.feed(again, &ack(1, &[1]));
    assert_eq!(rig.take_events().last().expect("sent"), "sent 2 number 1 #1 copies 2");
}

/// All servers end; the one that answers then belongs to the cluster with the id of twos.
fn to_another_cluster(rig: &mut Rig, link: LinkId, standby: LinkId) -> LinkId {
    rig.end(standby);
    rig.end(link);
    open_in_another_cluster(rig)
}

fn open_in_another_cluster(rig: &mut Rig) -> LinkId {
    let (link, dialled) = rig.dialled.last().expect("a connection").clone();
    rig.input(Input::Opened { link });
    assert_eq!(rig.take_sent(link), ["hello test"]);
    rig.feed(link, &Welcome { cluster_id: Tag([2; 16]), ..welcome(&dialled) });
    link
}

#[test]
fn an_archive_that_is_gone_is_told_and_what_there_is_received_from_its_beginning() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.feed(link, &entry(1, 1, "of the old one"));
    rig.feed(link, &entry(2, 2, "too"));
    let link = to_another_cluster(&mut rig, link, standby);
    rig.take_events();
    // Perhaps the server can verify what the client holds: it is asked to resume.
    let attach = "attach ada #12 Resume own 0 in #all seen [5000:2]";
    rig.feed(link, &Want { ranges: Seq::new(&[(origin_of(A), 1, 2)]) });
    let expected = [attach, "return 5000:1 of the old one", "return 5000:2 too", "returned 2"];
    assert_eq!(rig.sent[&link], expected);
    // It could not.
    rig.sent.insert(link, alloc::vec![attach.into()]);
    let cut = [(origin_of(A), 0)];
    rig.attach(link, |attached| attached.cut = Seq::new(&cut));
    assert!(rig.closed.contains(&link));
    let link = open_in_another_cluster(&mut rig);
    assert_eq!(rig.sent[&link], ["attach ada #13 Reset own 0 in #all seen []"]);
    rig.attach(link, |_| ());
    let events = rig.take_events();
    assert!(events[0].starts_with("connected "), "{events:?}");
    assert_eq!(events[1..], ["reset 2"]);
    assert_eq!(rig.client.held(), 0);
    // What it has still is not shown again.
    rig.feed(link, &replayed(entry(1, 1, "of the old one")));
    rig.feed(link, &replayed(entry(2, 3, "of the new one")));
    assert_eq!(rig.take_events(), ["#all bob: of the new one #2 replay"]);
    assert_eq!(rig.client.held(), 2);
}

#[test]
fn a_client_that_forgets_at_every_change_of_server_is_told_of_a_lost_archive_too() {
    for (ma, told) in [(1, true), (2, false)] {
        let (mut rig, link) = Rig::attached_with(Config { reset: true, ..config(&[A], "ada") });
        let standby = rig.open(B);
        rig.feed(link, &entry(1, 1, "one"));
        rig.feed(link, &entry(2, 2, "two"));
        let link = to_another_cluster(&mut rig, link, standby);
        rig.take_events();
        rig.attach(link, |attached| attached.ma = ma);
        assert_eq!(rig.take_events().contains(&"reset 2".to_string()), told);
    }
}

#[test]
fn who_cannot_hand_back_in_time_begins_anew_instead_of_trying_for_ever() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.feed(link, &entry(1, 1, "one"));
    let mut link = to_another_cluster(&mut rig, link, standby);
    rig.take_events();
    for _ in 0..3 {
        assert!(rig.sent[&link][0].contains("Resume"), "{:?}", rig.sent[&link]);
        rig.feed(link, &Want { ranges: Seq::new(&[(origin_of(A), 1, 1)]) });
        rig.feed(link, &bye(Reason::HelloTimeout));
        if rig.dialled.is_empty() {
            rig.wait_for_dial();
        }
        link = open_in_another_cluster(&mut rig);
    }
    assert!(rig.sent[&link][0].contains("Reset"), "{:?}", rig.sent[&link]);
    rig.attach(link, |_| ());
    assert!(rig.take_events().contains(&"reset 1".to_string()));
}

#[test]
fn a_cluster_that_was_merged_into_another_goes_on() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.feed(link, &entry(1, 1, "one"));
    let link = to_another_cluster(&mut rig, link, standby);
    rig.take_events();
    rig.attach(link, |_| ());
    assert!(rig.is_open(link));
    let events = rig.take_events();
    assert!(events.len() == 1 && events[0].starts_with("connected "), "{events:?}");
    rig.feed(link, &replayed(entry(1, 1, "one")));
    rig.feed(link, &replayed(entry(2, 2, "two")));
    assert_eq!(rig.take_events(), ["#all bob: two #2 replay"]);
    assert_eq!(rig.client.held(), 2);
}

#[test]
fn a_room_that_was_being_received_when_the_archive_went_is_received_anew() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.command(Command::Join { room: "#ops".into(), reference: 5 });
    rig.feed(link, &chat::Joined { request: 1, room: "#ops", topic: "" });
    let in_ops = |number| Entry { scope: Scope::Room("#ops"), ..entry(number, number, "ops") };
    rig.feed(link, &replayed(in_ops(1)));
    let link = to_another_cluster(&mut rig, link, standby);
    rig.take_events();
    rig.attach(link, |attached| attached.rooms = Seq::new(&["#all", "#ops"]));
    let link = open_in_another_cluster(&mut rig);
    rig.attach(link, |attached| attached.rooms = Seq::new(&["#all", "#ops"]));
    assert_eq!(rig.take_events()[1], "reset 1");
}

#[test]
fn a_server_that_drains_says_where_to_go() {
    let (mut rig, link) = Rig::attached();
    rig.refuse(B);
    rig.feed(link, &Bye { next: C, ..bye(Reason::Draining) });
    assert_eq!(rig.take_events(), ["disconnected 127.0.0.1:5000 draining"]);
    rig.open(C);
}

#[test]
fn a_session_that_was_attached_elsewhere_is_not_fought_for() {
    let (mut rig, link, _) = Rig::with_standby();
    rig.say("x", 8);
    rig.feed(link, &bye(Reason::Superseded));
    assert_eq!(rig.take_events(), ["closed superseded [8]"]);
}

#[test]
fn who_has_just_moved_takes_its_session_back_once() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.caught_up(link);
    rig.end(link);
    rig.attach(standby, |_| ());
    rig.take_events();
    rig.feed(standby, &bye(Reason::Superseded));
    assert_eq!(rig.take_events(), [format!("disconnected {B} superseded")]);
    let third = rig.open(C);
    rig.attach(third, |_| ());
    rig.take_events();
    rig.feed(third, &bye(Reason::Superseded));
    assert_eq!(rig.take_events(), ["closed superseded []"], "it does not fight");
}

#[test]
fn servers_that_die_one_after_the_other_are_left_one_after_the_other() {
    let (mut rig, link, standby) = Rig::with_standby();
    rig.caught_up(link);
    rig.end(link);
    rig.attach(standby, |_| ());
    rig.caught_up(standby);
    let third = rig.open(C);
    rig.end(standby);
    rig.attach(third, |_| ());
    rig.caught_up(third);
    rig.refuse(A);
    rig.refuse(B);
    // Alone, and then that one goes, too: it is the last to be tried.
    rig.end(third);
    rig.take_events();
    rig.refuse(A);
    rig.refuse(B);
    assert!(rig.dialled.is_empty());
    rig.wait_for_dial();
    let link = rig.open(C);
    assert!(rig.take_sent(link)[0].contains("Resume"));
}

#[test]
fn a_cluster_that_turns_out_to_be_another_s_is_told_of_and_nothing_is_received_anew() {
    // The standby was opened while its server, just started, knew of no other yet.
    let (mut rig, link) = Rig::attached();
    let (standby, dialled) = rig.dialled.last().expect("a standby is asked for").clone();
    rig.input(Input::Opened { link: standby });
    rig.take_sent(standby);
    rig.feed(standby, &Welcome { cluster_id: Tag([2; 16]), ..welcome(&dialled) });
    rig.feed(standby, &welcome(&dialled));
    rig.feed(link, &entry(1, 1, "hello"));
    rig.caught_up(link);
    rig.end(link);
    let sent = rig.take_sent(standby);
    assert_eq!(sent, ["attach ada #12 Resume own 0 in #all seen [5000:1]"]);
    // And so is one that is attached.
    let (mut rig, link, standby) = Rig::with_standby();
    rig.feed(link, &entry(1, 1, "hello"));
    rig.caught_up(link);
    rig.feed(link, &Welcome { cluster_id: Tag([2; 16]), ..welcome(A) });
    rig.feed(standby, &Welcome { cluster_id: Tag([2; 16]), ..welcome(B) });
    rig.end(link);
    let sent = rig.take_sent(standby);
    assert_eq!(sent, ["attach ada #12 Resume own 0 in #all seen [5000:1]"]);
}
