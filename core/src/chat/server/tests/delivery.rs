//! What those get who read slowly, change their mind amid it, or ask for what is gone.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::super::{Effect, Source};
use super::hostile::Lone;
use super::peers::{session_of, user};
use crate::Limits;
use crate::ids::ConnId;
use crate::wire::chat::{
    AskHistory, Attach, CaughtUp, Failed, Join, Leave, Page, Quit, Say, UserList,
};
use crate::wire::entry::{Entry, Scope};
use crate::wire::hello::{Bye, Role, Welcome};
use crate::wire::{Message, Reason, Seq};

fn small() -> Limits {
    Limits {
        log_bytes_max: 17 << 16,
        archive_bytes_max: 17 << 16,
        catch_up_bytes_max: 64 << 10,
        queue_bytes_max: 128 << 10,
        rooms_max: 3,
        connections_max: 8,
        connections_reserved: 2,
        pending_max: 4,
        pending_per_source_max: 2,
        ..Limits::default()
    }
}

/// As `small`, with an archive that keeps all.
fn keeping() -> Limits {
    Limits { archive_bytes_max: 64 << 20, ..small() }
}

/// Says messages of 8 000 bytes in a room, of which `first` is the first number.
fn fill(lone: &mut Lone, conn: ConnId, room: &str, first: u64, count: u64) {
    let body = "b".repeat(8_000);
    for number in first..first + count {
        let scope = Scope::Room(room);
        lone.tell(conn, &Say { number, scope, after: Seq::default(), body: &body });
        lone.reads(conn);
    }
}

/// The numbers of the messages of a room that were sent from the archive, in the order in which
/// they came.
fn received(lone: &Lone, conn: ConnId, room: &str) -> Vec<u64> {
    let entries = lone.sent.iter().filter(|sent| (sent.0, sent.1) == (conn, Entry::KIND));
    let entries = entries.map(|sent| Entry::parse(&sent.2).expect("valid"));
    entries.filter(|entry| entry.scope == Scope::Room(room)).map(|e| e.author_number).collect()
}

/// For which rooms a connection was told that it has caught up: none stands for all.
fn caught_up(lone: &Lone, conn: ConnId) -> Vec<alloc::string::String> {
    let told = lone.sent.iter().filter(|sent| (sent.0, sent.1) == (conn, CaughtUp::KIND));
    told.map(|sent| CaughtUp::parse(&sent.2).expect("valid").room.to_string()).collect()
}

fn reads_all(lone: &mut Lone, conn: ConnId) {
    while lone.reads(conn) {}
}

#[test]
fn whoever_catches_up_so_slowly_that_the_log_moves_on_gets_that_from_the_archive_too() {
    let mut lone = Lone::with(keeping());
    let ada = lone.comes(&user(1, "ada"));
    fill(&mut lone, ada, "#all", 1, 20);
    let bob = lone.comes(&user(2, "bob"));
    assert!(received(&lone, bob, "#all").len() < 20);
    let lists = lone.count(bob, UserList::KIND);
    // More than the log keeps.
    fill(&mut lone, ada, "#all", 21, 200);
    reads_all(&mut lone, bob);
    assert_eq!(received(&lone, bob, "#all"), (1..=220).collect::<Vec<_>>());
    assert_eq!(caught_up(&lone, bob), [""]);
    assert!(lone.count(bob, UserList::KIND) > lists, "what the log told of users it missed");
    assert_eq!(lone.reason(bob), None);
}

#[test]
fn a_room_that_is_left_amid_a_catch_up_is_sent_and_counted_no_more() {
    let mut lone = Lone::with(keeping());
    let rooms = ["#a"];
    let ada = lone.comes(&Attach { rooms: Seq::new(&rooms), ..user(1, "ada") });
    fill(&mut lone, ada, "#all", 1, 10);
    fill(&mut lone, ada, "#a", 11, 30);
    fill(&mut lone, ada, "#all", 41, 10);
    let bob = lone.comes(&Attach { rooms: Seq::new(&rooms), ..user(2, "bob") });
    lone.reads(bob);
    lone.tell(bob, &Leave { request: 1, room: "#a" });
    let before = received(&lone, bob, "#a").len();
    lone.all.clear();
    reads_all(&mut lone, bob);
    assert_eq!(received(&lone, bob, "#a").len(), before);
    assert_eq!(received(&lone, bob, "#all").len(), 20);
    let follow = lone.all.iter().find_map(|(effect, _)| match effect {
        Effect::Follow { conn, mt, .. } if *conn == bob => Some(*mt),
        _ => None,
    });
    assert_eq!(follow, Some(20), "MT is what it may see");
}

#[test]
fn a_room_that_is_joined_comes_as_it_is_read_with_what_is_said_meanwhile() {
    let mut lone = Lone::with(keeping());
    let rooms = ["#a"];
    let ada = lone.comes(&Attach { rooms: Seq::new(&rooms), ..user(1, "ada") });
    fill(&mut lone, ada, "#a", 1, 40);
    let bob = lone.comes(&user(2, "bob"));
    reads_all(&mut lone, bob);
    lone.tell(bob, &Join { request: 1, room: "#a" });
    assert!(received(&lone, bob, "#a").len() < 40, "as much as there is place for");
    fill(&mut lone, ada, "#a", 41, 5);
    lone.all.clear();
    reads_all(&mut lone, bob);
    assert_eq!(received(&lone, bob, "#a"), (1..=45).collect::<Vec<_>>());
    assert_eq!(caught_up(&lone, bob), ["", "#a"]);
    let shown = lone.all.iter().filter_map(|(effect, _)| match effect {
        Effect::Show { conn, mt, .. } if *conn == bob => Some(*mt),
        _ => None,
    });
    assert_eq!(shown.collect::<Vec<_>>(), [45]);
}

#[test]
fn what_was_trimmed_is_refused_with_the_first_that_is_kept() {
    let mut lone = Lone::with(small());
    let ada = lone.comes(&user(1, "ada"));
    fill(&mut lone, ada, "#all", 1, 300);
    let ask = |lone: &mut Lone, from: u64| {
        lone.sent.clear();
        let scope = Scope::Room("#all");
        lone.tell(ada, &AskHistory { request: 1, scope, from, count: 2 });
        reads_all(lone, ada);
    };
    ask(&mut lone, 1);
    let failed = lone.last(ada, Failed::KIND).expect("it is gone");
    let failed = Failed::parse(&failed).expect("valid");
    assert_eq!(failed.reason, Reason::Trimmed);
    let first = failed.detail.split(' ').find_map(|word| word.parse::<u64>().ok());
    let first = first.expect("it says which is the first");
    assert!((2..300).contains(&first));
    let page = |lone: &Lone| -> Option<Vec<u64>> {
        let page = lone.last(ada, Page::KIND)?;
        let page = Page::parse(&page).expect("valid");
        Some(page.entries.iter().map(|entry| entry.author_number).collect())
    };
    ask(&mut lone, first);
    assert_eq!(page(&lone), Some(Vec::from([first, first + 1])));
    ask(&mut lone, first - 1);
    assert_eq!(page(&lone), Some(Vec::from([first])), "of two the one that is kept");
    ask(&mut lone, first - 2);
    assert_eq!(page(&lone), None);
}

#[test]
fn there_are_so_many_rooms_and_no_more() {
    let mut lone = Lone::with(small());
    let ada = lone.comes(&user(1, "ada"));
    for (request, room) in [(1, "#a"), (2, "#b")] {
        lone.tell(ada, &Join { request, room });
        assert_eq!(lone.failure(ada), None);
    }
    lone.tell(ada, &Join { request: 3, room: "#c" });
    assert_eq!(lone.failure(ada), Some(Reason::TooManyRooms));
}

#[test]
fn whoever_says_goodbye_is_closed_and_its_session_away() {
    let mut lone = Lone::new();
    let bye = Bye { reason: Reason::Goodbye, retry_ms: 0, next: "", detail: "" };
    let ada = lone.comes(&user(1, "ada"));
    let observer = lone.greet(Role::Observer);
    for conn in [ada, observer] {
        lone.tell(conn, &bye);
        assert_eq!(lone.reason(conn), Some(Reason::Goodbye));
    }
    assert_eq!(lone.server.users(), 0);
    let other = lone.comes(&user(2, "ada"));
    assert_eq!(lone.failure(other), Some(Reason::NameTaken), "it may come back");
    assert!(lone.server.roster.get(session_of(1)).is_some());
}

#[test]
fn whoever_quits_is_gone_at_once() {
    let mut lone = Lone::new();
    let ada = lone.comes(&user(1, "ada"));
    lone.tell(ada, &Quit { reserved: 0 });
    assert_eq!((lone.reason(ada), lone.server.users()), (Some(Reason::Goodbye), 0));
    let other = lone.comes(&user(2, "ada"));
    assert_eq!(lone.name_of(other).as_deref(), Some("ada"));
}

#[test]
fn a_welcome_says_what_there_is_to_keep_to() {
    let mut lone = Lone::with(Limits { ping_us: 700_000, body_bytes_max: 4_000, ..small() });
    let conn = lone.greet(Role::Client);
    let welcome = lone.last(conn, Welcome::KIND).expect("it is welcome");
    let welcome = Welcome::parse(&welcome).expect("valid");
    assert_eq!((welcome.ping_ms, welcome.body_bytes_max), (700, 4_000));
    assert_eq!(welcome.address, lone.server.config().advertise);
}

fn from(address: u128) -> Source {
    Source { address, loopback: false }
}

const HERE: Source = Source { address: 0, loopback: true };

#[test]
fn of_one_address_few_may_be_silent_at_once() {
    let mut lone = Lone::with(small());
    let first = lone.knocks(from(7)).expect("a place");
    assert!(lone.knocks(from(7)).is_ok());
    assert_eq!(lone.knocks(from(7)), Err(Reason::TooManyConnections));
    assert!(lone.knocks(from(8)).is_ok() && lone.knocks(HERE).is_ok());
    lone.say_hello_and_attach(first);
    assert!(lone.knocks(from(7)).is_ok(), "one of them has said who it is");
}

#[test]
fn of_too_many_silent_ones_an_older_one_goes() {
    let mut lone = Lone::with(small());
    let mut silent: Vec<ConnId> = (0..4).map(|_| lone.knocks(HERE).expect("a place")).collect();
    assert!(lone.closed.is_empty());
    for count in 1..=20 {
        let newest = lone.knocks(HERE).expect("a place");
        let (victim, reason) = *lone.closed.last().expect("one went");
        assert_eq!((lone.closed.len(), reason), (count, Reason::Displaced));
        assert!(silent.contains(&victim), "one of those that were there");
        silent.retain(|conn| *conn != victim);
        silent.push(newest);
    }
}

#[test]
fn of_all_places_some_are_kept_for_this_machine() {
    let mut lone = Lone::with(Limits { pending_max: 100, ..small() });
    for address in 1..=6 {
        assert!(lone.knocks(from(address)).is_ok());
    }
    assert_eq!(lone.knocks(from(9)), Err(Reason::TooManyConnections));
    assert!(lone.knocks(HERE).is_ok() && lone.knocks(HERE).is_ok());
    assert_eq!(lone.knocks(HERE), Err(Reason::TooManyConnections));
}
