//! Small clusters in memory.

use cordee_sim::{Options, World};

fn world(seed: u64, servers: usize) -> World {
    let mut world = World::new(seed, Options { servers, ..Options::default() });
    world.wait(5_000, "all servers link", World::is_meshed);
    world
}

#[test]
fn two_servers_link_whoever_dials() {
    for seed in 0..20 {
        let mut world = world(seed, 2);
        world.run_ms(2_000);
        assert!(world.is_meshed());
    }
}

#[test]
fn a_message_said_on_one_server_is_shown_on_all_once() {
    let mut world = world(1, 5);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2), ("d", 3), ("e", 4)]);
    world.say(clients[0], "#all", "hello");
    world.wait(1_000, "all see it", |world| {
        clients.iter().all(|client| world.client(*client).bodies("#all") == ["hello"])
    });
    world.wait(1_000, "it is acknowledged", |w| w.client(clients[0]).unacknowledged() == 0);
}
