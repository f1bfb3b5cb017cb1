//! Who is let in: newcomers up to the limit, those who come back up to the hard one; the others
//! are sent to where there is room, with a place kept for them, or away.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::Input;
use super::hostile::{Lone, attach, hello};
use super::peers::{Linkee, beat, session_of, user};
use crate::Limits;
use crate::ids::{ConnId, Origin, ServerId};
use crate::time::{MILLI_US, SECOND_US};
use crate::wire::chat::{Attach, Intent, Partial, Redirect, Want};
use crate::wire::hello::{Hello, Role, Transport};
use crate::wire::peer::{Reserve, ServerState};
use crate::wire::{Fixed64, Message, Reason, Seq};

const GRACE_US: u64 = 2 * SECOND_US;

/// Two places for newcomers, and three more for those who come back. Its grace is over.
fn small() -> Lone {
    limited(2, 5)
}

fn limited(users_max: u32, users_hard_max: u32) -> Lone {
    Lone::with(Limits { users_max, users_hard_max, grace_us: GRACE_US, ..Limits::default() })
}

fn resumes(number: u8, name: &'static str) -> Attach<'static> {
    Attach { intent: Intent::Resume, ..user(number, name) }
}

fn name_of(number: u8) -> &'static str {
    ["ann", "ben", "cal", "dot", "ed", "fay", "gil", "hue"][usize::from(number)]
}

/// What the server was told to do with one who found no place: away, to come again later.
fn is_full(lone: &Lone, conn: ConnId) -> bool {
    let expected = Some((Reason::Full, 2_000, String::new()));
    lone.reason(conn) == Some(Reason::Full) && lone.farewell(conn) == expected
}

/// Where a newcomer was sent, and with which reservation.
fn redirected(lone: &Lone, conn: ConnId) -> Option<(String, u64)> {
    let redirect = lone.last(conn, Redirect::KIND)?;
    let redirect = Redirect::parse(&redirect).expect("valid");
    let (address, reservation) = (redirect.address.to_string(), redirect.reservation.0);
    assert_eq!(lone.farewell(conn), Some((Reason::Full, 0, address.clone())));
    Some((address, reservation))
}

fn stands(lone: &mut Lone, peer: Linkee, state: ServerState, load: u32, limit: u32) {
    lone.tell(peer.conn, &beat(state, load, limit));
}

/// The reservation that a peer was told of last.
fn reserved_at(lone: &Lone, peer: Linkee) -> Option<u64> {
    let reserve = lone.last(peer.conn, Reserve::KIND)?;
    Some(Reserve::parse(&reserve).expect("valid").reservation.0)
}

#[test]
fn newcomers_are_admitted_up_to_the_limit() {
    let mut lone = small();
    let first = lone.comes(&user(1, "ada"));
    let second = lone.comes(&user(2, "bob"));
    assert!(lone.is_attached(first) && lone.is_attached(second));
    let third = lone.comes(&user(3, "cyd"));
    assert!(is_full(&lone, third) && !lone.is_attached(third));
    lone.leaves(first);
    let third = lone.comes(&user(3, "cyd"));
    assert!(lone.is_attached(third), "who is away takes no place");
}

#[test]
fn whoever_comes_back_is_admitted_up_to_the_hard_limit() {
    let mut lone = small();
    for number in 1..=6 {
        let conn = lone.comes(&user(number, name_of(number)));
        assert!(lone.is_attached(conn), "{number}");
        lone.leaves(conn);
    }
    let newcomers = [lone.comes(&user(7, "gus")), lone.comes(&user(8, "hal"))];
    assert!(newcomers.iter().all(|conn| lone.is_attached(*conn)));
    let new = lone.comes(&user(1, name_of(1)));
    assert!(is_full(&lone, new), "who is known and does not resume is a newcomer");
    for number in 1..=3 {
        let conn = lone.comes(&resumes(number, "whatever"));
        assert!(lone.is_attached(conn), "{number}");
    }
    let fourth = lone.comes(&resumes(4, name_of(4)));
    assert!(is_full(&lone, fourth));
    let unknown = lone.comes(&resumes(9, "ida"));
    assert!(is_full(&lone, unknown));
}

#[test]
fn whoever_resumes_is_taken_for_known_while_a_server_may_not_have_heard_of_anybody() {
    for (after_us, is_known) in [(GRACE_US - 1, true), (GRACE_US, false)] {
        let mut lone = limited(1, 5);
        // As if it had started now.
        let started = lone.now;
        lone.with_server(|server, _| server.started = started);
        let first = lone.comes(&user(1, "ada"));
        assert!(lone.is_attached(first));
        lone.now = started + after_us;
        lone.timeout();
        let unknown = lone.comes(&resumes(2, "bob"));
        assert_eq!(lone.is_attached(unknown), is_known, "{after_us} µs after the start");
        let newcomer = lone.comes(&user(3, "cyd"));
        assert!(is_full(&lone, newcomer));
    }
}

#[test]
fn whoever_is_attached_and_attaches_anew_counts_once() {
    let mut lone = limited(1, 1);
    let first = lone.comes(&user(1, "ada"));
    let again = lone.comes(&Attach { attachment: 2, ..resumes(1, "ada") });
    assert!(lone.is_attached(again));
    assert_eq!(lone.reason(first), Some(Reason::Superseded));
    assert_eq!(lone.server.users(), 1);
    let other = lone.comes(&user(2, "bob"));
    assert!(is_full(&lone, other));
}

#[test]
fn whoever_is_about_to_be_attached_has_a_place_and_needs_no_second_one() {
    let mut lone = limited(1, 2);
    let peer = lone.link(5);
    let first = lone.comes(&user(1, "ada"));
    assert!(!lone.is_attached(first), "her name is being claimed");
    stands(&mut lone, peer, ServerState::Active, 9, 9);
    let second = lone.comes(&user(2, "bob"));
    assert!(is_full(&lone, second));
    let again = lone.comes(&user(1, "ada"));
    assert_eq!(lone.reason(again), None, "she counts once");
}

#[test]
fn whoever_hands_something_back_while_it_is_attached_counts_once() {
    let mut lone = limited(2, 3);
    let first = lone.comes(&user(1, "ada"));
    let dead = Origin { server: ServerId(9), incarnation: 1, nonce: 3 };
    let seen = [(dead, 2)];
    let attach = Attach { seen: Seq::new(&seen), attachment: 2, ..resumes(1, "ada") };
    let again = lone.comes(&attach);
    assert_eq!(lone.count(again, Want::KIND), 1);
    assert_eq!(lone.reason(first), None);
    let second = lone.comes(&user(2, "bob"));
    assert!(lone.is_attached(second), "there is a place left");
    let third = lone.comes(&user(3, "cyd"));
    assert!(is_full(&lone, third));
}

#[test]
fn newcomers_are_sent_to_the_least_loaded_that_has_room_which_is_told_first() {
    let mut lone = limited(1, 2);
    lone.comes(&user(1, "ada"));
    let peers: Vec<Linkee> = (5..=9).map(|id| lone.link(id)).collect();
    stands(&mut lone, peers[0], ServerState::Active, 7, 10);
    stands(&mut lone, peers[1], ServerState::Active, 5, 10);
    stands(&mut lone, peers[2], ServerState::Active, 4, 4);
    stands(&mut lone, peers[3], ServerState::Draining, 0, 10);
    stands(&mut lone, peers[4], ServerState::Joining, 0, 10);
    let mut given = Vec::new();
    for number in 2..=3 {
        let conn = lone.comes(&user(number, "bob"));
        let (address, reservation) = redirected(&lone, conn).expect("there is room");
        assert_eq!(address, "peer6:1");
        assert_eq!(reserved_at(&lone, peers[1]), Some(reservation));
        assert!(reservation != 0 && !given.contains(&reservation));
        let told = lone.sent.iter().position(|sent| sent.1 == Reserve::KIND);
        assert!(told < lone.sent.iter().position(|sent| sent.1 == Redirect::KIND));
        given.push(reservation);
    }
    // Each one that it was sent counts at once: now both have seven.
    let mut addresses: Vec<String> = (4..=5)
        .map(|number| {
            let conn = lone.comes(&user(number, "bob"));
            redirected(&lone, conn).expect("there is room").0
        })
        .collect();
    addresses.sort();
    assert_eq!(addresses, ["peer5:1", "peer6:1"]);
    assert_eq!(lone.server.stats().redirected, 4);
    for peer in &peers[..2] {
        stands(&mut lone, *peer, ServerState::Active, 10, 10);
    }
    let last = lone.comes(&user(6, "bob"));
    assert!(is_full(&lone, last));
    assert_eq!(lone.server.stats().redirected, 4);
}

#[test]
fn of_servers_that_are_loaded_alike_each_is_chosen_sometimes() {
    let mut lone = limited(1, 2);
    lone.comes(&user(1, "ada"));
    let peers = [lone.link(5), lone.link(6), lone.link(7)];
    let mut chosen = Vec::new();
    for number in 2..40 {
        for peer in peers {
            stands(&mut lone, peer, ServerState::Active, 3, 10);
        }
        let conn = lone.comes(&user(number, "bob"));
        chosen.push(redirected(&lone, conn).expect("there is room").0);
    }
    chosen.sort();
    chosen.dedup();
    assert_eq!(chosen, ["peer5:1", "peer6:1", "peer7:1"]);
}

#[test]
fn whoever_was_redirected_often_is_told_that_all_are_full() {
    let mut lone = limited(1, 2);
    lone.comes(&user(1, "ada"));
    let peer = lone.link(5);
    stands(&mut lone, peer, ServerState::Active, 0, 10);
    let conn = lone.comes(&Attach { hops: 3, ..user(2, "bob") });
    assert!(redirected(&lone, conn).is_some());
    let conn = lone.comes(&Attach { hops: 4, ..user(2, "bob") });
    assert!(is_full(&lone, conn));
}

#[test]
fn whoever_resumes_is_sent_to_where_the_hard_limit_leaves_room() {
    let mut lone = limited(2, 6);
    for number in 1..=7 {
        let known = lone.comes(&user(number, name_of(number)));
        lone.leaves(known);
    }
    for number in 2..=7 {
        let conn = lone.comes(&resumes(number, name_of(number)));
        assert!(lone.is_attached(conn), "{number}");
    }
    let peer = lone.link(5);
    // Three times its limit.
    for (load, has_room) in [(29, true), (30, false)] {
        stands(&mut lone, peer, ServerState::Active, load, 10);
        let newcomer = lone.comes(&user(9, "zoe"));
        assert!(is_full(&lone, newcomer));
        let conn = lone.comes(&resumes(1, name_of(1)));
        assert_eq!(redirected(&lone, conn).is_some(), has_room, "{load} users there");
        assert_eq!(is_full(&lone, conn), !has_room);
    }
}

#[test]
fn a_place_that_is_reserved_is_taken_and_given_once() {
    let mut lone = small();
    let peer = lone.link(5);
    stands(&mut lone, peer, ServerState::Active, 9, 9);
    lone.tell(peer.conn, &Reserve { reservation: Fixed64(77) });
    lone.tell(peer.conn, &Reserve { reservation: Fixed64(78) });
    // There are two places: a third cannot be kept.
    lone.tell(peer.conn, &Reserve { reservation: Fixed64(79) });
    let sent_here = |number, name, reservation| Attach {
        reservation: Fixed64(reservation),
        ..user(number, name)
    };
    let stranger = lone.comes(&user(1, "ada"));
    assert!(is_full(&lone, stranger));
    let one_too_many = lone.comes(&sent_here(1, "ada", 79));
    assert!(is_full(&lone, one_too_many));
    let expected = lone.comes(&sent_here(2, "bob", 77));
    assert_eq!(lone.reason(expected), None);
    let again = lone.comes(&sent_here(3, "cyd", 77));
    assert!(is_full(&lone, again), "it was used");
}

#[test]
fn a_place_is_kept_for_five_seconds() {
    let mut lone = limited(1, 2);
    let peer = lone.link(5);
    lone.tell(peer.conn, &Reserve { reservation: Fixed64(77) });
    lone.pass(5 * SECOND_US - 100 * MILLI_US, &[peer]);
    stands(&mut lone, peer, ServerState::Active, 9, 9);
    let early = lone.comes(&user(1, "ada"));
    assert!(is_full(&lone, early));
    lone.pass(100 * MILLI_US, &[peer]);
    let late = lone.comes(&user(1, "ada"));
    assert_eq!(lone.reason(late), None);
}

#[test]
fn a_server_that_stops_takes_nobody() {
    let mut lone = Lone::new();
    let conn = lone.greet(Role::Client);
    lone.input(Input::Drain);
    lone.tell(conn, &user(1, "ada"));
    assert_eq!(lone.reason(conn), Some(Reason::Draining));
}

#[test]
fn a_connection_attaches_once() {
    let mut lone = Lone::new();
    let conn = lone.attach();
    lone.tell(conn, &attach());
    assert_eq!(lone.reason(conn), Some(Reason::Unexpected));
}

#[test]
fn a_hello_of_another_kind_is_refused_with_the_reason() {
    let good = || hello(Role::Client);
    for (bad, reason) in [
        (Hello { major: 2, ..good() }, Reason::WrongVersion),
        (Hello { transport: Transport::Noise, ..good() }, Reason::WrongSecret),
        (Hello { cluster: "another", ..good() }, Reason::WrongCluster),
    ] {
        let mut lone = Lone::new();
        let conn = lone.accept();
        lone.tell(conn, &bad);
        assert_eq!(lone.reason(conn), Some(reason));
    }
    let mut lone = Lone::new();
    let conn = lone.accept();
    lone.tell(conn, &attach());
    assert_eq!(lone.reason(conn), Some(Reason::NotCordee));
}

#[test]
fn the_rooms_that_one_may_be_in_include_the_common_one() {
    let limits = Limits { rooms_per_session_max: 3, ..Limits::default() };
    for (rooms, reason) in [
        (&["#a", "#b"][..], None),
        (&["#a", "#A", "#all"], None),
        (&["#a", "#b", "#c"], Some(Reason::TooManyRooms)),
        (&["#a", "#a", "#a", "#a"], Some(Reason::TooManyRooms)),
        (&["a"], Some(Reason::RoomInvalid)),
    ] {
        let mut lone = Lone::with(limits.clone());
        let conn = lone.comes(&Attach { rooms: Seq::new(rooms), ..user(1, "ada") });
        assert_eq!(lone.reason(conn), reason, "{rooms:?}");
        assert_eq!(lone.is_attached(conn), reason.is_none(), "{rooms:?}");
    }
    let partial = [const { Partial { room: "#a", seen: Seq::new(&[]) } }; 4];
    for (count, reason) in [(3, None), (4, Some(Reason::TooManyRooms))] {
        let mut lone = Lone::with(limits.clone());
        let partial = Seq::new(&partial[..count]);
        let conn = lone.comes(&Attach { partial, ..user(1, "ada") });
        assert_eq!(lone.reason(conn), reason, "{count} rooms in part");
    }
}

#[test]
fn whoever_is_known_keeps_its_name_unless_it_comes_anew_under_another() {
    let mut lone = Lone::new();
    let ada = lone.comes(&user(1, "Ada"));
    lone.leaves(ada);
    for (attachment, intent, name, given) in [
        (2, Intent::Resume, "ida", "Ada"),
        (3, Intent::New, "ada", "Ada"),
        (4, Intent::Reset, "ida", "Ada"),
        (5, Intent::New, "ida", "ida"),
    ] {
        let conn = lone.comes(&Attach { attachment, intent, ..user(1, name) });
        assert_eq!(lone.name_of(conn).as_deref(), Some(given), "{intent:?} as {name}");
        lone.leaves(conn);
    }
    let other = lone.comes(&user(2, "ida"));
    assert_eq!(lone.failure(other), Some(Reason::NameTaken), "its holder is away");
    lone.tell(other, &user(2, "no name"));
    assert_eq!(lone.failure(other), Some(Reason::NameInvalid));
    lone.tell(other, &user(2, "Ada"));
    assert_eq!(lone.name_of(other).as_deref(), Some("Ada"), "nobody has it any more");
    assert_ne!(session_of(1), session_of(2));
}

#[test]
fn whoever_resets_has_seen_nothing() {
    let dead = Origin { server: ServerId(9), incarnation: 1, nonce: 3 };
    let seen = [(dead, 2), (dead, 3)];
    for (intent, wants) in [(Intent::Resume, 1), (Intent::New, 1), (Intent::Reset, 0)] {
        let mut lone = Lone::new();
        let conn = lone.comes(&Attach { intent, seen: Seq::new(&seen), ..user(1, "ada") });
        assert_eq!(lone.count(conn, Want::KIND), wants, "{intent:?}");
        assert_eq!(lone.is_attached(conn), wants == 0);
        if let Some(want) = lone.last(conn, Want::KIND) {
            let want = Want::parse(&want).expect("valid");
            assert_eq!(want.ranges.iter().collect::<Vec<_>>(), [(dead, 1, 2)], "each origin once");
        }
    }
}
