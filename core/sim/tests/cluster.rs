//! Servers together: linking, talk, catching up, dying, coming back.

use cordee_core::wire::Reason;
use cordee_core::wire::chat::MemberState;
use cordee_sim::{Cut, Happened, Options, World};

fn meshed(options: Options) -> World {
    let mut world = World::new(1, options);
    world.wait(5_000, "all servers link", World::is_meshed);
    world
}

fn servers(servers: usize) -> World {
    meshed(Options { servers, ..Options::default() })
}

fn all_show(world: &World, clients: &[usize], bodies: &[&str]) -> bool {
    clients.iter().all(|client| world.client(*client).bodies("#all") == bodies)
}

/// How many servers held the messages that were acknowledged to a client.
fn copies(world: &World, client: usize) -> Vec<u8> {
    let copies = world.client(client).happened.iter().filter_map(|happened| match happened {
        Happened::Acked(_, copies, ..) => Some(*copies),
        _ => None,
    });
    copies.collect()
}

fn departures(world: &World, watchers: &[usize], name: &str) -> Vec<u32> {
    watchers.iter().map(|client| world.history.departures(*client, name)).collect()
}

#[test]
fn two_servers_link_whoever_dials() {
    for seed in 0..20 {
        for all_known in [true, false] {
            let options = Options { servers: 2, all_known, ..Options::default() };
            let mut world = World::new(seed, options);
            world.wait(2_000, "they link", World::is_meshed);
            world.run_ms(2_000);
            assert!(world.is_meshed());
        }
    }
}

#[test]
fn five_servers_of_which_each_knows_but_the_first_find_each_other() {
    for seed in 0..10 {
        let options = Options { all_known: false, ..Options::default() };
        let mut world = World::new(seed, options);
        world.wait(3_000, "they link", World::is_meshed);
    }
}

#[test]
fn a_message_said_on_one_server_is_shown_on_all_once() {
    let mut world = servers(5);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2), ("d", 3), ("e", 4)]);
    world.say(clients[0], "#all", "hello");
    world.wait(1_000, "all see it", |world| all_show(world, &clients, &["hello"]));
    world.wait(1_000, "it is acknowledged", |w| w.client(clients[0]).unacknowledged() == 0);
    world.heal_and_judge(5_000);
}

#[test]
fn five_servers_converge_under_talk() {
    let mut world = servers(5);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2), ("d", 3), ("e", 4)]);
    for round in 0..100 {
        for client in &clients {
            world.say(*client, "#all", &format!("{client} {round}"));
        }
        world.run(500);
    }
    world.heal_and_judge(5_000);
    assert_eq!(world.server(3).machine().expect("it runs").archive().rows(), 500);
}

#[test]
fn an_acknowledgement_says_how_many_servers_hold_the_message() {
    for (wanted, least) in [(1, 1), (2, 2), (5, 5), (9, 5)] {
        let mut world = meshed(Options { copies: wanted, ..Options::default() });
        let clients = world.join_clients(&[("a", 0)]);
        for at in 0..20 {
            world.say(clients[0], "#all", &format!("{at}"));
            world.run_ms(10);
        }
        let copies = copies(&world, clients[0]);
        assert_eq!(copies.len(), 20);
        assert!(copies.iter().all(|copies| (least..=5).contains(copies)), "{wanted}: {copies:?}");
    }
}

#[test]
fn of_two_servers_with_one_dead_the_other_acknowledges_with_one_copy() {
    let mut world = servers(2);
    let clients = world.join_clients(&[("a", 0)]);
    world.crash(1);
    world.say(clients[0], "#all", "alone");
    world.wait(2_000, "it is acknowledged", |w| w.client(clients[0]).unacknowledged() == 0);
    assert_eq!(copies(&world, clients[0]), [1]);
    world.start(1);
    world.heal_and_judge(5_000);
}

#[test]
fn a_message_waits_for_its_copy_until_a_silent_server_counts_as_dead() {
    let mut world = servers(2);
    let clients = world.join_clients(&[("a", 0)]);
    world.freeze(1);
    world.say(clients[0], "#all", "who hears me?");
    world.run_ms(300);
    assert_eq!(copies(&world, clients[0]), []);
    world.wait(2_000, "it is acknowledged", |w| w.client(clients[0]).unacknowledged() == 0);
    assert_eq!(copies(&world, clients[0]), [1]);
    world.heal_and_judge(5_000);
}

#[test]
fn a_late_joiner_catches_up_by_differences() {
    let mut world = meshed(Options { servers: 3, started: 2, ..Options::default() });
    let clients = world.join_clients(&[("a", 0), ("b", 1)]);
    for at in 0..500 {
        world.say(clients[at % 2], "#all", &format!("{at}"));
    }
    world.run_ms(2_000);
    world.start(2);
    world.wait(5_000, "it catches up", |world| world.is_meshed() && world.is_converged());
    world.run_ms(1_000);
    let resent = |world: &World| {
        world
            .alive()
            .iter()
            .map(|n| world.server(*n).machine().map_or(0, |m| m.stats().resent))
            .sum()
    };
    let all: u64 = resent(&world);
    assert!((500..=550).contains(&all), "500 were lacking, {all} were sent");
    // A cut of a moment costs what was said meanwhile, and no more.
    world.cut(0, 2, Cut::Reset);
    world.cut(1, 2, Cut::Reset);
    for at in 0..50 {
        world.say(clients[at % 2], "#all", &format!("more {at}"));
    }
    world.run_ms(1_000);
    world.heal_and_judge(5_000);
    let more = resent(&world) - all;
    assert!((50..=55).contains(&more), "50 were lacking, {more} were sent");
}

#[test]
fn what_a_cut_link_does_not_carry_comes_through_a_third() {
    for cut in [Cut::Stall, Cut::Reset] {
        let mut world = servers(3);
        let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
        world.cut(0, 1, cut);
        world.run_ms(2_000);
        world.say(clients[0], "#all", "round the cut");
        world.wait(2_000, "all see it", |world| all_show(world, &clients, &["round the cut"]));
        world.wait(1_000, "it is acknowledged", |w| w.client(clients[0]).unacknowledged() == 0);
        world.heal_and_judge(5_000);
    }
}

#[test]
fn what_a_server_that_died_had_told_one_other_comes_from_that_one() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
    world.cut(0, 2, Cut::Stall);
    world.say(clients[0], "#all", "last words");
    world.run_ms(5);
    world.crash(0);
    world.wait(2_000, "c sees it", |world| all_show(world, &clients[2..], &["last words"]));
    world.heal_and_judge(5_000);
}

#[test]
fn a_restarted_member_has_a_higher_incarnation_and_is_caught_up() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 1)]);
    for start in 1..5 {
        world.say(clients[1], "#all", &format!("before start {start}"));
        world.run_ms(100);
        let machine = world.server(0).machine().expect("it runs");
        assert_eq!(machine.origin().incarnation, start);
        world.crash(0);
        world.run_ms(200);
        world.start(0);
        world.wait(3_000, "it is back", |world| world.is_meshed() && world.is_converged());
    }
    world.heal_and_judge(5_000);
}

#[test]
fn what_waits_for_an_entry_that_nobody_has_any_more_is_shown_once_its_holder_returned() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
    // b answers to what only the first server and b have; c has neither.
    world.cut(0, 2, Cut::Reset);
    world.cut(1, 2, Cut::Reset);
    world.say(clients[0], "#all", "question");
    world.run_ms(100);
    world.say(clients[1], "#all", "answer");
    world.run_ms(100);
    // The question is lost with its server; b, who could hand it back, is gone for good; and the
    // second server has lost it, too, with all the rest that it had.
    world.vanish(clients[1]);
    world.vanish(clients[0]);
    world.crash(0);
    world.crash(1);
    world.start(1);
    world.start(0);
    world.heal_and_judge(5_000);
    world.say(clients[2], "#all", "is anybody there?");
    world.wait(1_000, "it is acknowledged", |w| w.client(clients[2]).unacknowledged() == 0);
    world.heal_and_judge(5_000);
}

#[test]
fn a_forgotten_member_is_waited_for_no_longer_and_may_come_back_as_another_start() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
    world.say(clients[0], "#all", "question");
    world.run_ms(100);
    world.crash(0);
    world.run_ms(2_000);
    let reply = world.forget(1, "s0:1");
    world.run_ms(500);
    assert!(world.is_done(reply), "{}", world.describe());
    for (address, reason) in [
        ("s2:1", Reason::MemberAlive),
        ("s1:1", Reason::MemberItself),
        ("s9:1", Reason::MemberUnknown),
    ] {
        let reply = world.forget(1, address);
        world.run_ms(500);
        assert_eq!(world.refused(reply), Some(reason), "{address} is not forgotten");
    }
    world.start(0);
    world.heal_and_judge(5_000);
}

#[test]
fn a_failover_announces_nobody() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
    world.crash(0);
    world.wait(2_000, "a goes on", |world| {
        world.client(clients[0]).attached_at().is_some_and(|at| at != "s0:1")
    });
    world.run_ms(40_000);
    assert_eq!(departures(&world, &clients, "a"), [0, 0, 0]);
    for client in &clients {
        let again = |happened: &&Happened| **happened == Happened::Arrived("a".into(), "".into());
        let arrivals = world.client(*client).happened.iter().filter(again).count();
        assert!(arrivals <= 1, "nobody came twice");
    }
    world.start(0);
    world.heal_and_judge(5_000);
}

#[test]
fn who_vanishes_is_announced_once_on_every_server_when_the_grace_is_over() {
    for with_server in [false, true] {
        let mut world = servers(3);
        let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2), ("d", 1)]);
        world.vanish(clients[0]);
        if with_server {
            world.crash(0);
        }
        world.run_ms(29_000);
        assert_eq!(departures(&world, &clients[1..], "a"), [0, 0, 0]);
        world.run_ms(4_000);
        assert_eq!(departures(&world, &clients[1..], "a"), [1, 1, 1]);
        world.run_ms(60_000);
        world.heal_and_judge(5_000);
        assert_eq!(departures(&world, &clients[1..], "a"), [1, 1, 1]);
        let again = world.join_client("a", 2);
        world.wait(2_000, "the name is free again", |w| w.client(again).is_caught_up());
        assert_eq!(world.client(again).name, "a");
    }
}

#[test]
fn who_quits_is_announced_at_once_and_once() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
    world.quit(clients[0]);
    world.run_ms(200);
    assert_eq!(departures(&world, &clients[1..], "a"), [1, 1]);
    world.run_ms(40_000);
    assert_eq!(departures(&world, &clients[1..], "a"), [1, 1]);
    world.heal_and_judge(5_000);
}

#[test]
fn a_drained_server_hands_its_clients_over_and_leaves() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 0)]);
    world.say(clients[0], "#all", "one");
    world.say(clients[2], "#all", "two");
    world.drain(0);
    world.wait(2_000, "it stops", |world| !world.server(0).is_up());
    world.wait(1_000, "its clients go on", |world| {
        clients.iter().all(|client| world.client(*client).is_caught_up())
    });
    world.wait(1_000, "all is safe", |world| {
        clients.iter().all(|client| world.client(*client).unacknowledged() == 0)
    });
    for client in &clients {
        assert_eq!(world.client(*client).bodies("#all").len(), 2);
    }
    // It left: the others find nothing wrong, and it is not waited for.
    world.run_ms(2_000);
    assert_eq!(world.member_state(1, "s0:1"), Some(MemberState::Left));
    assert!(world.is_meshed());
    assert_eq!(departures(&world, &clients, "a"), [0, 0, 0]);
    world.start(0);
    world.heal_and_judge(5_000);
    assert_eq!(world.member_state(1, "s0:1"), Some(MemberState::Linked));
}

#[test]
fn a_server_is_killed_by_a_user_only_where_that_is_allowed() {
    for allow_kill in [false, true] {
        let mut world = meshed(Options { servers: 3, allow_kill, ..Options::default() });
        let clients = world.join_clients(&[("a", 0), ("b", 1)]);
        world.kill_server(clients[0]);
        world.run_ms(500);
        assert_eq!(world.server(0).is_up(), !allow_kill);
        world.heal_and_judge(5_000);
    }
}

#[test]
fn what_a_server_writes_reaches_one_that_never_met_it_through_a_third() {
    let mut world = meshed(Options { servers: 3, started: 2, ..Options::default() });
    let clients = world.join_clients(&[("a", 0), ("b", 1)]);
    world.cut(1, 2, Cut::Stall);
    world.start(2);
    world.run_ms(3_000);
    let newcomer = world.join_client("c", 2);
    world.run_ms(3_000);
    world.say(newcomer, "#all", "can you hear me?");
    world.wait(2_000, "all hear it", |world| all_show(world, &clients, &["can you hear me?"]));
    world.heal_and_judge(10_000);
}
