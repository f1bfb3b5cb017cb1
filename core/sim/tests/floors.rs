//! Servers that keep less than was said: whoever comes later counts all of it and shows the rest.

use cordee_core::Limits;
use cordee_core::wire::Reason;
use cordee_core::wire::entry::Scope;
use cordee_sim::{Cut, Happened, Options, World};

fn small() -> Limits {
    Limits { archive_bytes_max: 1 << 20, ..Limits::default() }
}

fn world(seed: u64, servers: usize, started: usize) -> World {
    let mut world =
        World::new(seed, Options { servers, started, limits: small(), ..Options::default() });
    world.wait(5_000, "all servers link", World::is_meshed);
    world
}

/// Much is said, in turn; more than a server keeps when it is 300 messages.
fn fill(world: &mut World, clients: &[usize], messages: usize) {
    for at in 0..messages {
        let client = clients[at % clients.len()];
        world.say(client, "#all", &format!("{at} {}", "x".repeat(6_000)));
        if at % 8 == 7 {
            world.run_ms(10);
        }
    }
    world.wait(20_000, "all of it is safe", |world| {
        clients.iter().all(|client| world.client(*client).unacknowledged() == 0)
    });
}

fn trimmed(world: &World, node: usize) -> u64 {
    world.server(node).machine().expect("it runs").archive().rows_trimmed()
}

/// All servers hold and count the same, by scope too, and all clients are up to date with theirs.
#[track_caller]
fn judge(world: &mut World) {
    world.wait(20_000, "the servers link", World::is_meshed);
    world.wait(20_000, "the servers hold and count the same", World::is_converged);
    world.wait(20_000, "everyone has caught up", |world| {
        world.guests().iter().all(|guest| world.client(*guest).is_caught_up())
    });
    world.run_ms(2_000);
    world.check_all();
    let alive = world.alive();
    let rows = |world: &World, node: usize| {
        let archive = world.server(node).machine().expect("alive").archive();
        archive.find_scope(&Scope::Room("#all")).map_or(0, |scope| archive.scope_rows(scope))
    };
    for node in &alive {
        assert_eq!(rows(world, *node), rows(world, alive[0]));
        assert_eq!(world.server(*node).machine().expect("alive").stats().diverged, 0);
    }
    for guest in world.guests() {
        world.ask_status(guest);
    }
    world.run_ms(500);
    for guest in world.guests() {
        let happened = &world.client(guest).happened;
        let status = happened.iter().rev().find_map(|happened| match happened {
            Happened::Status(ma, mt) => Some((*ma, *mt)),
            _ => None,
        });
        let (ma, mt) = status.expect("it asked");
        assert_eq!((ma, ma > 0), (mt, true), "{} is up to date", world.client(guest).name);
    }
}

#[test]
fn a_late_joiner_adopts_the_floor_and_goes_on_above() {
    for seed in 0..4 {
        let mut world = world(seed, 3, 2);
        let clients = world.join_clients(&[("a", 0), ("b", 1)]);
        let talk = world.talk(clients[0], clients[1]);
        world.say(clients[0], &talk, "between us");
        fill(&mut world, &clients, 300);
        let floor = trimmed(&world, 0);
        assert!(floor > 50, "{floor} rows were trimmed");
        world.start(2);
        judge(&mut world);
        assert!(trimmed(&world, 2) >= floor.min(trimmed(&world, 1)));
        let newcomer = world.join_clients(&[("c", 2)])[0];
        let shown = world.client(newcomer).bodies("#all").len() as u64;
        assert!(shown > 0 && shown <= 300 - floor.min(trimmed(&world, 2)) + 1);
        world.say(clients[0], "#all", "news");
        world.say(clients[1], &talk, "still between us");
        world.wait(2_000, "all see it", |world| {
            world.guests().iter().all(|c| world.client(*c).bodies("#all").contains(&"news"))
        });
        judge(&mut world);
    }
}

#[test]
fn who_resumes_at_a_late_joiner_with_an_old_vector_is_up_to_date() {
    let mut world = world(1, 3, 2);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("slow", 0)]);
    let talk = world.talk(clients[0], clients[2]);
    world.say(clients[2], "#all", "early");
    world.say(clients[2], &talk, "early, between us");
    world.run_ms(500);
    // It hears neither of these nor that they are safe, and asks the next server whether it has them.
    world.set_reading(clients[2], false);
    world.say(clients[2], "#all", "unheard");
    world.say(clients[2], "#all", "unheard, too");
    world.run_ms(500);
    fill(&mut world, &clients[..2], 300);
    world.start(2);
    world.wait(20_000, "the servers link", World::is_meshed);
    world.wait(20_000, "the servers hold the same", World::is_converged);
    world.run_ms(12_000);
    world.crash(0);
    world.crash(1);
    world.set_reading(clients[2], true);
    judge(&mut world);
    assert!(trimmed(&world, 2) > 50);
    let twice = |body: &str| {
        world.client(clients[2]).bodies("#all").iter().filter(|shown| **shown == body).count()
    };
    assert_eq!(twice("early"), 1);
    world.say(clients[2], &talk, "late, between us");
    judge(&mut world);
    assert_eq!(world.client(clients[2]).unacknowledged(), 0);
    let happened = &world.client(clients[2]).happened;
    let anew = happened.iter().any(|happened| matches!(happened, Happened::NumberedAnew(_)));
    assert!(!anew, "its author is known where all it said was trimmed");
    let rows = world.server(2).machine().expect("it runs").archive().rows();
    assert_eq!(rows, world.history.said() as u64, "what was trimmed is not taken in again");
}

#[test]
fn servers_start_anew_one_after_the_other_until_nobody_has_the_beginning() {
    for seed in 0..4 {
        let mut world = world(seed, 3, 3);
        let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
        for round in 0..6 {
            fill(&mut world, &clients, 120);
            judge(&mut world);
            let node = round % 3;
            world.crash(node);
            world.run_ms(1_500);
            world.start(node);
            judge(&mut world);
        }
        let rows = world.server(0).machine().expect("it runs").archive().rows();
        assert_eq!(rows, 720, "nothing is counted twice, nothing forgotten");
        assert!((0..3).all(|node| trimmed(&world, node) > 300));
    }
}

#[test]
fn of_peers_that_trimmed_more_and_less_a_joiner_takes_what_makes_it_agree() {
    for seed in 0..6 {
        let mut world = World::new(
            seed,
            Options { servers: 4, started: 0, limits: small(), ..Options::default() },
        );
        for (node, bytes) in [(1, 3 << 19), (2, 1 << 30)] {
            world.setup(node, |setup| setup.limits.archive_bytes_max = bytes);
        }
        (0..3).for_each(|node| world.start(node));
        world.wait(5_000, "all servers link", World::is_meshed);
        let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
        fill(&mut world, &clients, 400);
        assert!(trimmed(&world, 0) > trimmed(&world, 1) && trimmed(&world, 2) == 0);
        world.start(3);
        judge(&mut world);
        fill(&mut world, &clients, 50);
        judge(&mut world);
    }
}

#[test]
fn who_was_apart_while_the_others_trimmed_agrees_again_and_so_do_its_clients() {
    for seed in 0..6 {
        let cut = if seed % 2 == 0 { Cut::Reset } else { Cut::Stall };
        let mut world = world(seed, 3, 3);
        let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2), ("d", 2)]);
        fill(&mut world, &clients, 40);
        world.cut(0, 2, cut);
        world.cut(1, 2, cut);
        world.run_ms(2_000);
        fill(&mut world, &clients[2..], 20);
        fill(&mut world, &clients[..2], 300);
        assert!(trimmed(&world, 0) > 40 && trimmed(&world, 2) == 0);
        let own = world.say(clients[2], "#all", "from the other side");
        world.heal_all();
        judge(&mut world);
        assert!(own > 0 && trimmed(&world, 2) > 40);
        world.wait(5_000, "what was said apart is there", |world| {
            world.client(clients[0]).bodies("#all").contains(&"from the other side")
        });
        let rows = world.server(0).machine().expect("it runs").archive().rows();
        assert_eq!(rows, 361);
    }
}

#[test]
fn no_more_talks_are_begun_than_allowed_and_those_that_are_go_on() {
    let limits = Limits { talks_max: 1, ..Limits::default() };
    let mut world = World::new(1, Options { servers: 2, limits, ..Options::default() });
    world.wait(5_000, "all servers link", World::is_meshed);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 0)]);
    let first = world.talk(clients[0], clients[1]);
    world.say(clients[0], &first, "one");
    world.run_ms(500);
    let second = world.talk(clients[2], clients[1]);
    let refused = world.say(clients[2], &second, "two");
    world.say(clients[1], &first, "three");
    world.run_ms(500);
    let refusal = Happened::Refused(refused, Reason::TooManyTalks);
    assert!(world.client(clients[2]).happened.contains(&refusal));
    assert_eq!(world.client(clients[0]).bodies(&first), ["one", "three"]);
}
