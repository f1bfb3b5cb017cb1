//! Servers that start again and again: a cluster lives through any number of starts, and what they
//! leave behind takes a bounded number of places.

use cordee_core::Limits;
use cordee_core::wire::peer::ServerState;
use cordee_sim::{Cut, Options, World};

fn world(seed: u64, servers: usize, origins_max: u32) -> World {
    let limits = Limits { origins_max, ..Limits::default() };
    let mut world = World::new(seed, Options { servers, limits, ..Options::default() });
    world.wait(5_000, "all servers link", World::is_meshed);
    world
}

fn restart(world: &mut World, node: usize) {
    world.crash(node);
    world.start(node);
    world.wait(5_000, "it links again", World::is_meshed);
}

/// A server starts again, and one who comes in there says something and leaves: that start has an
/// entry.
fn restart_and_say(world: &mut World, node: usize, body: &str) {
    world.crash(node);
    world.start(node);
    world.wait(5_000, "it serves", |world| {
        let machine = world.server(node).machine().expect("it runs");
        machine.state() == ServerState::Active && machine.linked() > 0
    });
    let client = world.join_clients(&[(&format!("c{body}"), node)])[0];
    world.say(client, "#all", body);
    world.wait(3_000, "it is safe", |world| world.client(client).unacknowledged() == 0);
    world.quit(client);
    world.run_ms(1_500);
}

/// The places that origins take on a server.
fn places(world: &World, node: usize, origins_max: u32) -> u32 {
    origins_max - world.server(node).machine().expect("it runs").archive().places_left()
}

/// How many pasts a server has, and how many starts are not among them.
fn standing(world: &World, node: usize) -> (usize, usize) {
    let archive = world.server(node).machine().expect("it runs").archive();
    (archive.pasts().count(), archive.origins().count())
}

#[track_caller]
fn judge(world: &mut World) {
    world.wait(20_000, "all servers link", World::is_meshed);
    world.wait(20_000, "the servers hold and count the same", World::is_converged);
    world.wait(20_000, "everyone has caught up", |world| {
        world.guests().iter().all(|guest| world.client(*guest).is_caught_up())
    });
    world.check_all();
    for node in world.alive() {
        assert_eq!(world.server(node).machine().expect("alive").stats().diverged, 0);
    }
}

#[test]
fn thousands_of_starts_without_a_message_take_no_places() {
    let mut world = world(1, 3, 16);
    let client = world.join_clients(&[("a", 0)])[0];
    for at in 0..3_000 {
        // One lives all the while.
        restart(&mut world, 1 + at % 2);
        assert!((0..3).all(|node| places(&world, node, 16) <= 6), "start {at}");
        if at % 500 == 499 {
            world.say(client, "#all", &format!("{at}"));
            judge(&mut world);
        }
    }
    world.heal_and_judge(10_000);
    assert_eq!(world.client(client).bodies("#all").len(), 6);
}

#[test]
fn hundreds_of_starts_with_messages_take_a_bounded_number_of_places() {
    const MAX: u32 = 160;
    const STARTS: usize = 300;
    let mut world = world(2, 3, MAX);
    world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
    let (mut most, mut said) = (0, 0);
    for at in 0..STARTS {
        // Each third of the time another lives all the while.
        let node = (at * 3 / STARTS + 1 + at % 2) % 3;
        restart_and_say(&mut world, node, &format!("{at}"));
        said += 1;
        for node in 0..3 {
            most = most.max(places(&world, node, MAX));
        }
        if at % 30 == 29 {
            judge(&mut world);
            let rows = world.server(0).machine().expect("it runs").archive().rows();
            assert_eq!(rows, said, "all is counted");
        }
    }
    assert!(most < MAX, "{most} places were taken");
    for node in 0..3 {
        let (pasts, open) = standing(&world, node);
        assert!(pasts == 3 && open <= MAX as usize * 3 / 4, "{pasts} pasts, {open} starts");
    }
    judge(&mut world);
}

/// Makes the starts of servers 1 and 2 so many that most of them belong to pasts.
fn wear_out(world: &mut World, starts: usize) {
    for at in 0..starts {
        restart_and_say(world, 1 + at % 2, &format!("{at}"));
    }
    world.run_ms(3_000);
    assert!(standing(world, 0).0 >= 1, "starts stand together");
}

#[test]
fn what_a_server_took_in_while_it_knew_of_nobody_and_of_no_past_is_said_anew() {
    for seed in 0..3 {
        let mut world = world(seed, 3, 96);
        let clients = world.join_clients(&[("a", 1), ("b", 2)]);
        wear_out(&mut world, 70);
        // It starts with nothing, as its first start did, and reaches nobody.
        world.crash(1);
        world.run_ms(1_000);
        for other in [0, 2] {
            world.cut(1, other, Cut::Reset);
        }
        world.start(1);
        world.run_ms(2_000);
        let alone = world.join_clients(&[("alone", 1)])[0];
        for at in 0..5 {
            world.say(alone, "#all", &format!("alone {at}"));
        }
        world.wait(3_000, "it is acknowledged", |world| world.client(alone).unacknowledged() == 0);
        world.say(clients[0], "#all", "elsewhere");
        world.run_ms(500);
        world.heal_all();
        judge(&mut world);
        for at in 0..5 {
            let body = format!("alone {at}");
            for client in [clients[0], clients[1], alone] {
                let shown = world.client(client).bodies("#all");
                assert_eq!(shown.iter().filter(|shown| **shown == body).count(), 1, "{body}");
            }
        }
    }
}

#[test]
fn nobody_who_is_away_is_waited_for_once_places_are_few_and_what_he_had_is_kept() {
    for seed in 0..3 {
        let mut world = world(seed, 4, 96);
        let clients = world.join_clients(&[("a", 0), ("away", 3)]);
        world.say(clients[1], "#all", "before");
        world.run_ms(500);
        for other in 0..3 {
            world.cut(3, other, Cut::Stall);
        }
        world.run_ms(2_000);
        world.say(clients[1], "#all", "alone");
        wear_out(&mut world, 95);
        assert!(places(&world, 0, 96) < 96);
        world.heal_all();
        judge(&mut world);
        for client in clients {
            let shown = world.client(client).bodies("#all");
            assert_eq!(shown.iter().filter(|shown| **shown == "alone").count(), 1);
        }
    }
}
