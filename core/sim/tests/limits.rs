//! Servers at their limits: what many do together costs a bounded amount of memory, and nobody
//! else anything.

use cordee_core::Limits;
use cordee_core::time::SECOND_US;
use cordee_sim::{Options, World};

/// Two servers with small queues, so that a few clients fill them.
fn world(seed: u64, queue: u32) -> World {
    let limits = Limits {
        users_max: 300,
        queue_bytes_max: queue,
        catch_up_bytes_max: queue / 2,
        queued_bytes_max: queued(queue),
        ..Limits::default()
    };
    let servers = 2;
    let mut world = World::new(seed, Options { servers, limits, ..Options::default() });
    world.wait(5_000, "all servers link", World::is_meshed);
    world.run_ms(100);
    world
}

/// What may be queued for all.
fn queued(queue: u32) -> u64 {
    4 * u64::from(queue)
}

/// One who is there says so many messages of about so many bytes.
fn fill(world: &mut World, client: usize, messages: usize, bytes: usize) {
    let body = "x".repeat(bytes);
    for at in 0..messages {
        world.say(client, "#all", &format!("{at} {body}"));
    }
    world.wait(20_000, "all is said", |world| world.client(client).unacknowledged() == 0);
}

/// Looks at a server's memory. What is about to leave is in a buffer of its own, of one window.
fn assert_bounded(world: &World, queued: u64, connections: usize) {
    let server = world.server(0);
    assert!(server.machine().expect("it runs").queued_bytes() <= queued);
    let going = connections * (16 << 10);
    let memory = server.queued_memory_bytes();
    assert!(memory <= 2 * queued as usize + going, "{memory} bytes of memory are queued");
}

#[test]
fn two_hundred_who_never_read_take_bounded_memory_and_those_who_talk_do_not_notice() {
    // One message for each is more than may be queued for all: then a fair share is no help.
    let queue = 128 << 10;
    let mut world = world(7, queue);
    let talking = world.join_clients(&[("a", 0), ("b", 1), ("c", 0)]);
    fill(&mut world, talking[0], 80, 8_000);
    let deaf: Vec<usize> = (0..200).map(|at| world.join_client(&format!("deaf{at}"), 0)).collect();
    let there = |world: &World| deaf.iter().all(|at| world.client(*at).attached_at().is_some());
    world.wait(20_000, "all are there", there);
    for client in &deaf {
        world.set_reading(*client, false);
    }
    let before = world.client(talking[2]).shown.len();
    for turn in 0..40 {
        for client in &deaf {
            world.ask_history(*client, "#all", 1, 1_000);
        }
        for client in &talking {
            world.say(*client, "#all", &format!("turn {turn}"));
        }
        world.run_ms(250);
        assert_bounded(&world, queued(queue), 210);
        for client in &talking {
            let client = world.client(*client);
            assert_eq!(client.unacknowledged(), 0, "acknowledged within the turn");
            assert_eq!(client.shown.len(), before + 3 * (turn + 1), "shown within the turn");
        }
    }
    let relieved = world.server(0).machine().expect("it runs").stats().relieved;
    assert!(relieved > 0, "so much was asked for that somebody had to go");
    for client in &deaf {
        world.set_reading(*client, true);
    }
    world.heal_and_judge(30_000);
}

#[test]
fn when_a_server_dies_two_hundred_who_are_far_behind_go_on_at_the_next_and_nobody_is_closed() {
    let queue = 256 << 10;
    let mut world = world(8, queue);
    let talking = world.join_clients(&[("a", 1), ("b", 1)]);
    let users: Vec<usize> = (0..200).map(|at| world.join_client(&format!("user{at}"), 0)).collect();
    let there = |world: &World| users.iter().all(|at| world.client(*at).is_caught_up());
    world.wait(20_000, "all are there", there);
    world.crash(0);
    fill(&mut world, talking[0], 100, 2_000);
    let at_next = |world: &World| {
        let server = world.server(1).machine().expect("it runs");
        assert!(server.queued_bytes() <= queued(queue));
        users.iter().all(|at| world.client(*at).is_caught_up())
    };
    let before = world.now();
    world.wait(10_000, "all have gone on", at_next);
    assert!(world.now().since_us(before) < 5 * SECOND_US, "within virtual seconds");
    assert_eq!(world.server(1).machine().expect("it runs").stats().relieved, 0);
    world.start(0);
    world.heal_and_judge(10_000);
}
