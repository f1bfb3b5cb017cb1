//! Runs that went wrong once.

use cordee_core::Limits;
use cordee_sim::{Cut, Options, World};

fn meshed(seed: u64, options: Options) -> World {
    let mut world = World::new(seed, options);
    world.wait(5_000, "all servers link", World::is_meshed);
    world
}

fn three() -> Options {
    Options { servers: 3, ..Options::default() }
}

/// What two servers that restarted alone take for held by everyone is not: the third counts, too.
#[test]
fn an_authors_order_survives_a_part_of_the_cluster_that_started_anew_without_the_rest() {
    for seed in 0..8 {
        let mut world = meshed(seed, three());
        world.cut(0, 1, Cut::Reset);
        world.cut(0, 2, Cut::Reset);
        for node in [1, 2] {
            world.crash(node);
            world.start(node);
        }
        world.run_ms(2_000);
        let clients = world.join_clients(&[("a", 1), ("b", 0)]);
        for at in 1..=20 {
            world.say(clients[0], "#all", &format!("{at}"));
        }
        world.run_ms(3_000);
        world.crash(1);
        world.wait(2_000, "a goes on", |world| world.client(clients[0]).is_caught_up());
        world.say(clients[0], "#all", "21");
        world.run_ms(100);
        world.start(1);
        world.heal_and_judge(10_000);
    }
}

#[test]
fn a_cluster_that_lost_everything_takes_its_clients_in_again() {
    for seed in 0..4 {
        let mut world = meshed(seed, three());
        let clients = world.join_clients(&[("a", 0), ("b", 1)]);
        for at in 0..5 {
            world.say(clients[at % 2], "#all", &format!("{at}"));
            world.run_ms(20);
        }
        for node in 0..3 {
            world.crash(node);
        }
        world.say(clients[0], "#all", "into the void");
        world.heal_and_judge(10_000);
        assert_eq!(world.client(clients[1]).bodies("#all").last(), Some(&"into the void"));
    }
}

/// An entry that is handed back comes after what stood before it in the origin that died.
#[test]
fn an_answer_that_was_handed_back_is_shown_after_its_question() {
    for seed in 0..4 {
        let mut world = meshed(seed, three());
        let clients = world.join_clients(&[("a", 0), ("b", 0), ("c", 2)]);
        world.cut(0, 2, Cut::Reset);
        world.cut(1, 2, Cut::Reset);
        world.say(clients[0], "#all", "question");
        world.run_ms(50);
        world.cut(0, 1, Cut::Reset);
        world.say(clients[1], "#all", "answer");
        world.run_ms(50);
        world.crash(0);
        world.run_ms(500);
        world.heal(1, 2);
        world.heal_and_judge(10_000);
        assert_eq!(world.client(clients[2]).bodies("#all"), ["question", "answer"]);
    }
}

/// Whoever is linked already is told when the cluster turns out to be one that is older.
#[test]
fn what_a_neighbour_accepted_after_two_clusters_met_can_be_handed_back() {
    for seed in 0..4 {
        let mut world = World::new(seed, Options { started: 1, ..three() });
        world.run_ms(100);
        world.cut(0, 1, Cut::Reset);
        world.cut(0, 2, Cut::Reset);
        world.start(1);
        world.start(2);
        world.run_ms(3_000);
        world.heal(0, 1);
        world.run_ms(3_000);
        let clients = world.join_clients(&[("a", 1), ("b", 1)]);
        world.cut(1, 2, Cut::Stall);
        world.say(clients[0], "#all", "kept by b alone");
        world.run_ms(50);
        world.cut(0, 1, Cut::Reset);
        world.crash(1);
        world.vanish(clients[0]);
        world.wait(2_000, "b goes on at the next", |world| {
            world.client(clients[1]).attached_at() == Some("s2:1")
        });
        let rows = world.server(2).machine().expect("up").archive().rows();
        assert_eq!(rows, 1, "seed {seed}");
    }
}

/// What changes while two servers introduce themselves to each other is told to both.
#[test]
fn who_comes_while_two_servers_are_linking_is_known_to_both() {
    for seed in 0..4 {
        let latency_us = (20_000, 1_000);
        let mut world = meshed(seed, Options { servers: 2, latency_us, ..Options::default() });
        world.cut(0, 1, Cut::Reset);
        world.run_ms(1_000);
        world.heal(0, 1);
        for client in 0..30 {
            world.join_client(&format!("user{client}"), client % 2);
            world.run_ms(10);
        }
        world.heal_and_judge(10_000);
    }
}

/// A part of the cluster that was alone for longer than the grace gave the others' users up. These
/// never went, and nobody near them hears that they did.
#[test]
fn after_a_long_partition_users_come_back_where_they_were_given_up_and_nowhere_else() {
    for seed in 0..4 {
        let mut world = meshed(seed, three());
        let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
        world.cut(0, 1, Cut::Reset);
        world.cut(0, 2, Cut::Stall);
        world.run_ms(40_000);
        for (near, far) in [(clients[0], clients[1]), (clients[1], clients[0])] {
            let far = world.client(far).name.clone();
            assert_eq!(world.history.departures(near, &far), 1, "{far} departed");
        }
        world.heal_and_judge(10_000);
        for (client, name) in [(0, "a"), (1, "b"), (1, "c"), (2, "b"), (2, "c")] {
            assert_eq!(world.history.departures(clients[client], name), 0, "{name} was here");
        }
    }
}

/// The first server was started without knowing the others, and is started again like that.
#[test]
fn who_left_and_starts_again_without_knowing_anybody_is_found() {
    for seed in 0..4 {
        let mut world = meshed(seed, Options { all_known: false, ..three() });
        world.drain(0);
        world.wait(2_000, "it stops", |world| !world.server(0).is_up());
        world.run_ms(2_000);
        world.start(0);
        world.heal_and_judge(10_000);
    }
}

/// The last words of a server that leaves reach one that is cut off from it by a third, and the
/// answer to them may be there before the third has said that it holds them.
#[test]
fn an_answer_to_the_last_words_of_a_server_that_left_waits_for_them() {
    for seed in 0..20 {
        let options = Options { latency_us: (100, 20_000), ..three() };
        let mut world = meshed(seed, options);
        let clients = world.join_clients(&[("a", 0), ("b", 2), ("c", 1)]);
        world.cut(0, 1, Cut::Stall);
        world.run_ms(2_000);
        world.say(clients[0], "#all", "last words");
        world.wait(1_000, "b hears them", |world| {
            world.client(clients[1]).bodies("#all") == ["last words"]
        });
        world.drain(0);
        world.say(clients[1], "#all", "an answer");
        world.run_ms(5_000);
        assert_eq!(world.client(clients[2]).bodies("#all"), ["last words", "an answer"]);
        world.heal_and_judge(10_000);
    }
}

/// A server whose client went on elsewhere, without its noticing, does not take the client's
/// farewell there for a mistake.
#[test]
fn who_quits_where_it_went_on_amid_a_split_is_gone_everywhere() {
    for seed in 0..4 {
        let mut world = meshed(seed, three());
        let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            world.cut(one, other, Cut::Stall);
        }
        world.half_open(clients[0]);
        world.wait(2_000, "a goes on at the next", |world| {
            world.client(clients[0]).attached_at() == Some("s1:1")
        });
        world.quit(clients[0]);
        world.run_ms(2_000);
        world.heal_and_judge(10_000);
        for client in [1, 2] {
            assert_eq!(world.client(clients[client]).names(), ["b", "c"], "seed {seed}");
        }
    }
}

/// A server that is met between the two halves of an introduction is in neither, and is told of
/// before anything that it wrote: a link is not given up because of an origin of its.
#[test]
fn who_is_met_amid_an_introduction_is_known_to_the_third() {
    for seed in 0..60 {
        let options = Options { latency_us: (100, 2_000), copies: 3, ..three() };
        let mut world = meshed(seed, options);
        world.run_ms(200);
        let links = |world: &World| {
            [0, 1, 2].map(|node| world.server(node).machine().expect("up").stats().linked)
        };
        let before = links(&world);
        let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
        for round in 0..3 {
            for (at, client) in clients.iter().enumerate() {
                world.say(*client, "#all", &format!("{round} {at}"));
                world.run_ms(20);
            }
        }
        assert_eq!(links(&world), before, "seed {seed}: links stay");
    }
}

/// A server that started anew, cut off from all others, takes in what clients still have to hand
/// back: later messages of an author, and not the earlier ones, which everybody else had.
#[test]
fn what_an_island_lacked_of_an_author_counts_when_it_meets_the_rest() {
    for seed in 0..4 {
        let mut world = meshed(seed, three());
        let real = world.join_real("a", 1);
        world.wait(2_000, "a comes in", |world| world.real(real).server().is_some());
        world.say_real(real, "#all", "held by everybody");
        world.run_ms(2_000);
        for other in [1, 2] {
            world.cut(0, other, Cut::Stall);
        }
        world.crash(0);
        world.start(0);
        world.say_real(real, "#all", "not held by all");
        world.run_ms(3_000);
        for other in [1, 2] {
            world.freeze(other);
        }
        world.wait(10_000, "a goes on alone", |world| world.real(real).server() == Some("s0:1"));
        world.run_ms(1_000);
        for other in [1, 2] {
            world.thaw(other);
        }
        world.heal_and_judge_reals(10_000);
        assert_eq!(world.real(real).status().map(|(ma, _, held)| (ma, held)), Some((2, 2)));
    }
}

/// The first of many entries that were asked for says nothing of the rest.
#[test]
fn what_is_on_its_way_is_not_asked_for_again() {
    for seed in 0..4 {
        let limits =
            Limits { catch_up_bytes_max: 65_519, queue_bytes_max: 65_519, ..Limits::default() };
        let options = Options { latency_us: (20_000, 1_000), limits, ..three() };
        let mut world = meshed(seed, options);
        let clients = world.join_clients(&[("a", 0)]);
        for at in 0..300 {
            world.say(clients[0], "#all", &format!("{at} {}", "x".repeat(1_000)));
            world.run_ms(5);
        }
        world.wait(5_000, "all is safe", |world| world.client(clients[0]).unacknowledged() == 0);
        world.crash(0);
        world.run_ms(2_000);
        let before = world.resent();
        world.start(0);
        world.wait(10_000, "it is back", |world| world.is_meshed() && world.is_converged());
        world.run_ms(1_000);
        let resent = world.resent() - before;
        assert!((300..=330).contains(&resent), "{resent} were sent where 300 were missing");
    }
}

/// A server that is linked with one of the others asks it for what the third wrote. Meanwhile it
/// meets the third, which is not to send that as well.
#[test]
fn what_is_on_its_way_from_another_is_not_pushed() {
    for seed in 0..30 {
        let options = Options { latency_us: (100, 40_000), ..three() };
        let mut world = meshed(seed, options);
        world.run_ms(500);
        let clients = world.join_clients(&[("a", 0)]);
        world.cut(1, 0, Cut::Stall);
        world.cut(1, 2, Cut::Stall);
        world.run_ms(2_000);
        for at in 0..200 {
            world.say(clients[0], "#all", &format!("{at}"));
        }
        world.wait(5_000, "all is safe", |world| world.client(clients[0]).unacknowledged() == 0);
        let before = world.resent();
        world.heal_all();
        world.wait(10_000, "all link", |world| world.is_meshed() && world.is_converged());
        world.run_ms(1_000);
        let resent = world.resent() - before;
        assert!(resent <= 220, "seed {seed}: {resent} were sent where 200 were missing");
    }
}
