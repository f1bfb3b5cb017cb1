//! The first attachment: names, redirects, refusals.

use super::*;
use crate::wire::chat::{Failed, Redirect, RoomInfo, RoomList};

#[test]
fn the_first_server_is_greeted_then_attached_to_and_a_standby_is_sought() {
    let mut rig = Rig::new(config(&[A], "ada"));
    let link = rig.open(A);
    assert_eq!(rig.sent[&link], ["attach ada #11 New own 0 in #all seen []"]);
    rig.attach(link, |_| ());
    let rooms = [RoomInfo { room: "#all", users: 2, entries: 1, topic: "" }];
    rig.feed(link, &RoomList { request: 0, more: false, rooms: Seq::new(&rooms) });
    rig.feed(link, &replayed(entry(1, 1, "hello")));
    rig.feed(link, &CaughtUp { room: "" });
    let expected = [
        "connected 127.0.0.1:5000 of [127.0.0.1:5000] as ada in #all #11",
        "servers [127.0.0.1:5000 127.0.0.1:5001 127.0.0.1:5002]",
        "users 0 [ada bob]",
        "rooms 0 [#all]",
        "#all bob: hello #1 replay",
        "caught up",
    ];
    assert_eq!(rig.take_events(), expected);
    assert_eq!(rig.client.held(), 1);
    let standby = rig.open(B);
    assert!(rig.take_sent(standby).is_empty() && rig.take_events().is_empty());
    assert!(rig.is_open(link) && rig.is_open(standby));
}

#[test]
fn what_is_said_before_it_is_connected_is_kept_in_order() {
    let mut rig = Rig::new(config(&[A], "ada"));
    rig.say("one", 1);
    rig.command(Command::Say { to: Target::User("BOB".into()), body: "two".into(), reference: 2 });
    rig.command(Command::Say { to: Target::User("eve".into()), body: "no".into(), reference: 3 });
    let link = rig.open(A);
    rig.attach(link, |_| ());
    let said = ["say 1 #all after [] one", "say 2 @bob(2) after [] two"];
    assert_eq!(rig.take_sent(link), said);
    assert_eq!(rig.take_events().last().expect("an error"), "error 3 user_unknown");
}

#[test]
fn whatever_was_taken_before_it_is_connected_is_done_up_to_the_last_byte_and_request() {
    let mut small = config(&[A], "ada");
    small.limits.unacknowledged_bytes_max = 100;
    small.limits.requests_max = 4;
    let mut rig = Rig::new(small.clone());
    let mut said = 0;
    while rig.client.takes_commands() {
        said += 1;
        rig.say("more than half of them wait", said);
    }
    let link = rig.open(A);
    rig.attach(link, |_| ());
    assert_eq!((said, rig.take_sent(link).len()), (4, 4));

    let mut rig = Rig::new(small);
    let mut asked = 0;
    while rig.client.takes_commands() {
        asked += 1;
        rig.say("x", asked);
        rig.command(Command::Status { reference: asked });
    }
    let link = rig.open(A);
    rig.attach(link, |_| ());
    assert_eq!((asked, rig.take_sent(link).len()), (4, 8));
    assert!(!rig.take_events().iter().any(|event| event.contains("busy")));
}

#[test]
fn without_a_name_it_waits_for_one_and_a_taken_one_is_asked_for_again() {
    let mut rig = Rig::new(config(&[A], ""));
    let link = rig.open(A);
    for _ in 0..10 {
        rig.wait(1_000_000);
        rig.feed(link, &Pong { nonce: 0 });
    }
    assert!(rig.take_sent(link).is_empty());
    rig.command(Command::Name { name: "a b".into(), reference: 4 });
    rig.command(Command::Name { name: "bob".into(), reference: 5 });
    assert_eq!(rig.take_sent(link), ["attach bob #11 New own 0 in #all seen []"]);
    let reason = Reason::NameTaken;
    rig.feed(link, &Failed { request: 0, say: false, reason, detail: "" });
    assert_eq!(rig.take_events(), ["error 4 name_invalid", "error 5 name_taken"]);
    rig.command(Command::Name { name: "ada".into(), reference: 6 });
    assert_eq!(rig.sent[&link], ["attach ada #12 New own 0 in #all seen []"]);
    rig.attach(link, |_| ());
    assert!(rig.take_events()[0].starts_with("connected"));
}

#[test]
fn a_redirect_is_followed_with_its_reservation_and_not_for_ever() {
    let mut rig = Rig::new(config(&[A], "ada"));
    let mut link = rig.open(A);
    for hop in 1..=8 {
        rig.take_sent(link);
        let address = format!("127.0.0.1:{}", 6_000 + hop);
        let reservation = Fixed64(40 + hop);
        rig.feed(link, &Redirect { address: &address, reservation });
        assert!(rig.closed.contains(&link));
        link = rig.open(&address);
        let attach = rig.sent[&link].last().expect("attach").clone();
        assert!(attach.ends_with(&format!(" hop {hop} key {}", 40 + hop)), "{attach}");
    }
    rig.feed(link, &Redirect { address: B, reservation: Fixed64(1) });
    let open: Vec<&str> = rig.dialled.iter().map(|(_, address)| address.as_str()).collect();
    assert_eq!(open, [A], "the ninth is not followed; the ring is");
}

#[test]
fn after_a_redirect_one_connected_is_told_of_the_last_server() {
    let mut rig = Rig::new(config(&[A], "ada"));
    let link = rig.open(A);
    rig.feed(link, &Redirect { address: B, reservation: Fixed64(5) });
    let link = rig.open(B);
    rig.attach(link, |_| ());
    let connected = |event: &&String| event.starts_with("connected");
    let events = rig.take_events();
    assert_eq!(events.iter().filter(connected).count(), 1);
    assert!(events[0].starts_with("connected 127.0.0.1:5001"), "{events:?}");
}

#[test]
fn a_refusal_that_trying_cannot_mend_ends_the_client() {
    let mut rig = Rig::new(config(&[A], "ada"));
    let (link, _) = rig.dialled[0].clone();
    rig.input(Input::Opened { link });
    rig.feed(link, &bye(Reason::WrongCluster));
    assert_eq!(rig.take_events(), ["closed wrong_cluster []"]);
    assert!(rig.client.is_over() && rig.client.poll_timeout().is_none());
}

#[test]
fn what_does_not_speak_the_protocol_is_refused() {
    let mut rig = Rig::new(config(&[A], "ada"));
    let (link, _) = rig.dialled[0].clone();
    rig.input(Input::Opened { link });
    rig.input(Input::Broken { link, error: crate::wire::WireError::FrameTooLong });
    assert_eq!(rig.take_events(), ["closed not_cordee []"]);
}

#[test]
fn when_nobody_answers_it_says_so_once_and_keeps_trying() {
    let mut rig = Rig::new(config(&[A, B], "ada"));
    for _ in 0..5 {
        for address in [A, B] {
            rig.refuse(address);
        }
        rig.wait_for_dial();
    }
    assert_eq!(rig.take_events(), ["error 0 unreachable"]);
    // Meanwhile a connection hangs: it is given up.
    let (link, _) = rig.dialled[0].clone();
    rig.wait(2_000_000);
    assert!(rig.closed.contains(&link));
}

#[test]
fn a_full_cluster_says_when_to_try_again() {
    let mut rig = Rig::new(config(&[A], "ada"));
    for _ in 0..3 {
        let link = rig.open(A);
        rig.feed(link, &Bye { retry_ms: 3_000, ..bye(Reason::Full) });
        assert!(rig.dialled.is_empty());
        rig.wait(2_900_000);
        rig.wait_for_dial();
    }
    assert_eq!(rig.take_events(), ["error 0 full"]);
}

#[test]
fn a_server_that_still_joins_is_passed_over() {
    let mut rig = Rig::new(config(&[A, B], "ada"));
    let link = rig.open(A);
    rig.feed(link, &bye(Reason::Joining));
    let link = rig.open(B);
    rig.attach(link, |_| ());
    assert!(rig.take_events()[0].starts_with("connected 127.0.0.1:5001"));
}
