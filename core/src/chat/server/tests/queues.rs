//! What all connections together may have queued, and what becomes of whom when it is too much.

use alloc::vec::Vec;

use super::super::{Effect, Input, Outlets};
use super::hostile::Lone;
use crate::Limits;
use crate::framing::FRAME_BYTES_MAX;
use crate::ids::ConnId;
use crate::wire::chat::{AskHistory, AskStatus, CaughtUp, Page, Status};
use crate::wire::entry::{Entry, Scope};
use crate::wire::hello::{Ping, Role};
use crate::wire::{Message, Reason};

const QUEUE: u32 = 128 << 10;
const QUEUED: u64 = 4 * QUEUE as u64;

fn small() -> Limits {
    Limits {
        queue_bytes_max: QUEUE,
        catch_up_bytes_max: QUEUE,
        queued_bytes_max: QUEUED,
        begun_bytes_max: 16 * FRAME_BYTES_MAX as u64,
        ..Limits::default()
    }
}

fn ask(lone: &mut Lone, conn: ConnId, request: u64) {
    let scope = Scope::Room("#all");
    lone.tell(conn, &AskHistory { request, scope, from: 1, count: 1_000 });
}

#[test]
fn of_many_who_do_not_read_those_who_hold_most_are_closed_and_who_reads_is_served_as_ever() {
    let mut lone = Lone::with(small());
    let honest = lone.attach_as(0);
    lone.fill(honest, 100);
    let deaf: Vec<ConnId> = (1..=100).map(|user| lone.attach_as(user)).collect();
    for request in 1..=5 {
        for conn in &deaf {
            ask(&mut lone, *conn, request);
            assert!(lone.server.queued_bytes() <= QUEUED);
        }
        lone.sent.clear();
        ask(&mut lone, honest, request);
        assert!(lone.count(honest, Page::KIND) > 0, "an answer to request {request}");
        while lone.reads(honest) {}
    }
    assert_eq!(lone.reason(honest), None);
    let closed = deaf.iter().filter(|conn| lone.reason(**conn).is_some()).count();
    assert!(closed > 0 && closed as u64 == lone.server.stats().relieved);
    for (conn, reason) in &lone.closed {
        assert_eq!(*reason, Reason::SlowReader);
        assert!(lone.discarded.contains(conn), "what it did not read takes no memory");
    }
}

#[test]
fn everyone_who_comes_at_once_and_reads_gets_all_with_a_bound_on_what_is_on_its_way() {
    let mut lone = Lone::with(small());
    let author = lone.attach_as(0);
    lone.fill(author, 100);
    lone.sent.clear();
    let others: Vec<ConnId> = (1..20).map(|user| lone.attach_as(user)).collect();
    assert!(lone.server.queued_bytes() <= QUEUED);
    while others.iter().fold(false, |more, conn| lone.reads(*conn) | more) {}
    for conn in &others {
        assert_eq!(lone.count(*conn, Entry::KIND), 100);
        assert_eq!(lone.count(*conn, CaughtUp::KIND), 1);
    }
    assert_eq!((lone.closed.len(), lone.server.queued_bytes()), (0, 0));
}

#[test]
fn what_a_closed_connection_is_still_sent_counts_until_the_driver_has_let_it_go() {
    let mut lone = Lone::with(small());
    let author = lone.attach_as(0);
    lone.fill(author, 100);
    let gone = lone.attach_as(1);
    let queued = lone.server.queued_bytes();
    assert!(queued > u64::from(QUEUE) / 2);
    lone.input(Input::Closed { conn: gone });
    assert!(lone.server.queued_bytes() >= queued);
    for _ in 0..2 {
        lone.time_passes();
        lone.reads(author);
    }
    assert_eq!(lone.server.queued_bytes(), 0);
}

#[test]
fn what_closed_connections_are_still_sent_is_let_go_in_their_order() {
    let mut lone = Lone::with(Limits { queued_bytes_max: 64 * QUEUED, ..small() });
    let author = lone.attach_as(0);
    lone.fill(author, 100);
    let gone = [lone.attach_as(1), lone.attach_as(2), lone.attach_as(3)];
    let others = |lone: &mut Lone| {
        lone.reads(author);
        lone.server.queued_bytes()
    };
    let each = others(&mut lone) / 3;
    // Two at once, the third half a second later.
    lone.input(Input::Closed { conn: gone[0] });
    lone.input(Input::Closed { conn: gone[1] });
    let mut left = Vec::new();
    for step in 0..40 {
        if step == 10 {
            lone.input(Input::Closed { conn: gone[2] });
        }
        left.push(others(&mut lone));
        lone.now = lone.now + 50_000;
        lone.timeout();
    }
    let at = |ms: usize| (left[ms / 50] + each / 2) / each;
    assert!(at(1_150) == 3 && at(1_350) == 1, "{left:?} of {each}");
    assert!(at(1_650) == 1 && at(1_850) == 0, "{left:?} of {each}");
}

#[test]
fn who_does_not_read_is_sent_no_more_and_others_what_there_is_while_that_is_little() {
    let mut lone = Lone::with(Limits { queued_bytes_max: 64 * QUEUED, ..small() });
    let author = lone.attach_as(0);
    lone.fill(author, 100);
    let [deaf, wrong, idle] = [lone.attach_as(1), lone.attach_as(2), lone.attach_as(3)];
    while lone.reads(idle) {}
    lone.input(Input::Broken { conn: wrong, error: crate::wire::WireError::EmptyFrame });
    lone.input(Input::Stalled { conn: idle });
    lone.input(Input::Stalled { conn: deaf });
    assert_eq!(lone.reason(wrong), Some(Reason::BadFrame));
    assert_eq!(lone.reason(deaf), Some(Reason::SlowReader));
    assert_eq!(lone.discarded, [deaf]);
}

#[test]
fn of_frames_that_are_not_whole_the_one_that_began_first_and_is_long_goes_when_all_are_too_much() {
    let mut lone = Lone::with(small());
    let short = lone.greet(Role::Client);
    lone.input(Input::MidFrame { conn: short, bytes: 4 << 10 });
    let mut long = Vec::new();
    for _ in 0..30 {
        let conn = lone.greet(Role::Client);
        lone.now = lone.now + 1_000;
        for bytes in [4 << 10, 16 << 10, 64 << 10] {
            lone.input(Input::MidFrame { conn, bytes });
        }
        long.push(conn);
    }
    // Sixteen frames fit, one of them is the short one and what it leaves.
    let expected: Vec<_> = long[..15].iter().map(|conn| (*conn, Reason::FrameTimeout)).collect();
    assert_eq!(lone.closed, expected);
    for conn in &long[15..] {
        lone.input(Input::MidFrame { conn: *conn, bytes: 0 });
    }
    lone.input(Input::MidFrame { conn: short, bytes: 0 });
    assert_eq!(lone.closed.len(), 15);
}

#[test]
fn an_answer_that_is_stamped_counts_until_it_left_and_no_longer() {
    let mut lone = Lone::new();
    let (conn, mut outlets) = (lone.accept(), Outlets::new());
    outlets.open(conn);
    lone.say_hello_and_attach(conn);
    for request in 1..=3 {
        lone.tell(conn, &AskStatus { request });
        assert_eq!(lone.count(conn, Status::KIND), 0, "it is the driver's to stamp");
    }
    assert!(lone.server.queued_bytes() > 0);
    for (effect, arena) in core::mem::take(&mut lone.all) {
        outlets.apply(lone.now, effect, &arena);
    }
    let sent = outlets.send(lone.now, conn, |bytes| bytes.len());
    lone.input(Input::Drained { conn, bytes: sent.drained });
    assert_eq!(lone.server.queued_bytes(), 0);
}

#[test]
fn whoever_has_no_session_is_read_again_too_when_it_has_read_what_it_was_sent() {
    let mut lone = Lone::with(Limits { requests_per_second_max: 1_000_000, ..small() });
    for role in [Role::Observer, Role::Client] {
        let conn = lone.greet(role);
        lone.all.clear();
        let paused = (0..u64::from(QUEUE)).any(|nonce| {
            lone.tell(conn, &Ping { nonce });
            let effects = core::mem::take(&mut lone.all);
            effects.iter().any(|(effect, _)| *effect == Effect::Pause { conn })
        });
        assert!(paused, "its answers are more than its queue holds");
        lone.reads(conn);
        assert_eq!(lone.all.pop().map(|(effect, _)| effect), Some(Effect::Unpause { conn }));
    }
}
