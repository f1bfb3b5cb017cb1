//! Clients at servers: names, admission, rooms, talks, going on elsewhere, questions.

use cordee_core::Limits;
use cordee_core::wire::Reason;
use cordee_sim::{Cut, Happened, Options, World};

fn meshed(options: Options) -> World {
    let mut world = World::new(2, options);
    world.wait(5_000, "all servers link", World::is_meshed);
    world.run_ms(100);
    world
}

fn servers(servers: usize) -> World {
    meshed(Options { servers, ..Options::default() })
}

fn limited(servers: usize, users_max: u32, users_hard_max: u32) -> Options {
    let limits = Limits { users_max, users_hard_max, ..Limits::default() };
    Options { servers, limits, ..Options::default() }
}

fn happened(world: &World, client: usize, what: impl Fn(&Happened) -> bool) -> usize {
    world.client(client).happened.iter().filter(|happened| what(happened)).count()
}

fn last_status(world: &mut World, client: usize) -> (u64, u64) {
    world.ask_status(client);
    world.run_ms(100);
    let status = world.client(client).happened.iter().rev().find_map(|happened| match happened {
        Happened::Status(ma, mt) => Some((*ma, *mt)),
        _ => None,
    });
    status.expect("an answer")
}

fn where_at(world: &World, client: usize) -> &str {
    world.client(client).attached_at().unwrap_or("nowhere")
}

// Names.

#[test]
fn of_many_who_want_a_name_at_the_same_moment_on_all_servers_at_most_one_gets_it() {
    for seed in 0..20 {
        let mut world = World::new(seed, Options::default());
        world.wait(5_000, "all servers link", World::is_meshed);
        world.run_ms(100);
        let clients: Vec<usize> = (0..10).map(|at| world.join_client("bob", at % 5)).collect();
        world.run_ms(500);
        let attached = clients.iter().filter(|c| world.client(**c).attached_at().is_some());
        assert!(attached.count() <= 1, "seed {seed}");
        for client in &clients {
            if world.client(*client).attached_at().is_none() {
                assert_eq!(
                    world.client(*client).happened.last(),
                    Some(&Happened::Failed(0, Reason::NameTaken))
                );
                world.try_name(*client, &format!("bob{client}"));
            }
        }
        world.heal_and_judge(5_000);
    }
}

#[test]
fn a_name_taken_on_both_sides_of_a_partition_stays_with_the_earlier_claim_and_the_other_is_renamed()
{
    for late_side in [0, 1] {
        let mut world = servers(2);
        world.cut(0, 1, Cut::Stall);
        world.run_ms(2_000);
        let early = world.join_client("bob", 1 - late_side);
        world.run_ms(500);
        let late = world.join_client("Bob", late_side);
        world.run_ms(500);
        world.say(late, "#all", "I am Bob");
        world.run_ms(100);
        assert!(world.client(early).is_caught_up() && world.client(late).is_caught_up());
        world.heal_and_judge(5_000);
        assert_eq!(world.client(early).name, "bob");
        assert_eq!(world.client(late).name, "Bob~2");
        let told = Happened::Renamed("Bob".into(), "Bob~2".into(), Reason::NameLost);
        assert_eq!(happened(&world, late, |happened| *happened == told), 1);
        assert_eq!(world.client(early).bodies("#all"), ["I am Bob"]);
        world.say(late, "#all", "I was Bob");
        world.run_ms(500);
        let shown = world.client(early).shown.last().cloned().expect("shown");
        assert_eq!((shown.name.as_str(), shown.body.as_str()), ("Bob~2", "I was Bob"));
        world.judge();
    }
}

#[test]
fn a_name_is_changed_when_it_is_free_and_everyone_is_told() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
    world.rename(clients[0], "b");
    world.run_ms(200);
    assert_eq!(happened(&world, clients[0], |h| *h == Happened::Failed(1, Reason::NameTaken)), 1);
    world.rename(clients[0], "not a name");
    world.run_ms(200);
    assert_eq!(happened(&world, clients[0], |h| *h == Happened::Failed(2, Reason::NameInvalid)), 1);
    world.rename(clients[0], "ada");
    world.run_ms(200);
    let told = Happened::Renamed("a".into(), "ada".into(), Reason::Unknown);
    for client in &clients {
        assert_eq!(happened(&world, *client, |happened| *happened == told), 1);
    }
    let again = world.join_client("a", 1);
    world.wait(1_000, "the old name is free", |world| world.client(again).is_caught_up());
    world.heal_and_judge(5_000);
}

#[test]
fn two_who_swap_into_one_name_at_the_same_moment_do_not_both_get_it() {
    for seed in 0..20 {
        let mut world = World::new(seed, Options { servers: 3, ..Options::default() });
        world.wait(5_000, "all servers link", World::is_meshed);
        let clients = world.join_clients(&[("a", 0), ("b", 1)]);
        world.rename(clients[0], "zoe");
        world.rename(clients[1], "ZOE");
        world.run_ms(500);
        world.heal_and_judge(5_000);
    }
}

#[test]
fn a_session_takes_its_own_name_along_at_once_and_nobody_else_gets_it() {
    let mut world = servers(2);
    let clients = world.join_clients(&[("a", 0), ("b", 1)]);
    world.crash(0);
    let thief = world.join_client("a", 1);
    world.wait(2_000, "a goes on", |world| world.client(clients[0]).attached_at() == Some("s1:1"));
    world.run_ms(200);
    assert!(world.client(thief).attached_at().is_none());
    assert_eq!(world.client(clients[0]).name, "a");
    world.vanish(thief);
    world.start(0);
    world.heal_and_judge(5_000);
}

#[test]
fn a_session_that_attached_elsewhere_is_closed_where_it_was() {
    let mut world = servers(2);
    let clients = world.join_clients(&[("a", 0)]);
    world.freeze(0);
    world.wait(4_000, "a goes on", |world| where_at(world, clients[0]) == "s1:1");
    world.thaw(0);
    world.run_ms(2_000);
    assert_eq!(world.server(0).machine().expect("it runs").users(), 0);
    world.heal_and_judge(5_000);
    assert_eq!(where_at(&world, clients[0]), "s1:1");
}

// Admission.

#[test]
fn the_fourth_user_is_sent_to_the_second_server_unasked() {
    let mut world = meshed(limited(2, 3, 30));
    let mut clients = world.join_clients(&[("a", 0), ("b", 0), ("c", 0)]);
    clients.extend(world.join_clients(&[("d", 0)]));
    assert!(clients[..3].iter().all(|client| where_at(&world, *client) == "s0:1"));
    assert_eq!(where_at(&world, clients[3]), "s1:1", "{}", world.client(clients[3]).story());
    assert_eq!(happened(&world, clients[3], |h| *h == Happened::Redirected("s1:1".into())), 1);
    world.judge();
    // With one killed, everyone is on the other.
    world.crash(0);
    world.say(clients[3], "#all", "all here?");
    world.wait(2_000, "all go on", |world| {
        clients.iter().all(|client| where_at(world, *client) == "s1:1")
    });
    world.wait(2_000, "it is acknowledged", |w| w.client(clients[3]).unacknowledged() == 0);
    world.heal_and_judge(5_000);
}

#[test]
fn many_newcomers_at_once_fill_every_server_to_its_limit_and_none_beyond() {
    for seed in 0..5 {
        let mut world = World::new(seed, limited(4, 5, 50));
        world.wait(5_000, "all servers link", World::is_meshed);
        world.run_ms(200);
        let clients: Vec<usize> =
            (0..20).map(|at| world.join_client(&format!("user{at}"), 0)).collect();
        world.wait(10_000, "all are in", |world| {
            clients.iter().all(|client| world.client(*client).is_caught_up())
        });
        for node in 0..4 {
            assert_eq!(world.server(node).machine().expect("it runs").users(), 5, "seed {seed}");
        }
        let late = world.join_client("late", 2);
        world.run_ms(1_000);
        assert_eq!(world.client(late).attached_at(), None);
        assert!(happened(&world, late, |h| *h == Happened::Ended(Reason::Full)) > 0);
        world.quit(clients[7]);
        world.wait(5_000, "there is a place now", |world| world.client(late).is_caught_up());
        world.heal_and_judge(5_000);
    }
}

#[test]
fn a_session_that_fails_over_is_taken_beyond_the_limit_up_to_the_hard_one() {
    let mut world = meshed(limited(3, 2, 4));
    let joining = [("a", 0), ("b", 0), ("c", 1), ("d", 1), ("e", 2), ("f", 2)];
    let clients = world.join_clients(&joining);
    world.crash(0);
    world.wait(3_000, "all go on", |world| {
        clients.iter().all(|client| world.client(*client).is_caught_up())
    });
    for node in [1, 2] {
        assert!(world.server(node).machine().expect("it runs").users() <= 4);
    }
    world.heal_and_judge(5_000);
}

// Going on elsewhere.

#[test]
fn who_goes_on_elsewhere_is_sent_what_it_lacks_and_nothing_twice() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 1)]);
    for round in 0..20 {
        for at in 0..10 {
            world.say(clients[1], "#all", &format!("{round} {at}"));
        }
        world.move_on(clients[0]);
        world.say(clients[0], "#all", &format!("{round} on the way"));
        world.run_ms(20);
    }
    world.heal_and_judge(5_000);
    assert_eq!(world.client(clients[0]).shown.len(), 220);
    let replayed = world.client(clients[0]).shown.iter().filter(|shown| shown.replay).count();
    assert!((1..220).contains(&replayed), "{replayed} were sent to make good what was missed");
}

#[test]
fn what_died_unreplicated_with_its_server_is_handed_back_by_who_saw_it() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 0), ("c", 1)]);
    for other in [1, 2] {
        world.cut(0, other, Cut::Stall);
    }
    for at in 0..10 {
        world.say(clients[at % 2], "#all", &format!("{at}"));
        world.run_ms(2);
    }
    world.run_ms(50);
    let acked = happened(&world, clients[0], |h| matches!(h, Happened::Acked(..)));
    assert_eq!(acked, 0, "no copy, no acknowledgement");
    world.crash(0);
    world.wait(3_000, "all is safe", |world| {
        clients.iter().all(|client| world.client(*client).unacknowledged() == 0)
    });
    world.heal_and_judge(5_000);
    let expected: Vec<String> = (0..10).map(|at| at.to_string()).collect();
    for client in clients {
        assert_eq!(world.client(client).bodies("#all"), expected);
    }
}

#[test]
fn a_reset_sends_everything_from_nothing() {
    let mut world = servers(2);
    let clients = world.join_clients(&[("a", 0), ("b", 1)]);
    for at in 0..50 {
        world.say(clients[at % 2], "#all", &format!("{at}"));
    }
    world.run_ms(500);
    world.reset(clients[0]);
    world.wait(1_000, "it has all", |world| world.client(clients[0]).is_caught_up());
    assert_eq!(world.client(clients[0]).shown.len(), 50);
    assert!(world.client(clients[0]).shown.iter().all(|shown| shown.replay));
    assert_eq!(last_status(&mut world, clients[0]), (50, 50));
    world.say(clients[0], "#all", "and on");
    world.heal_and_judge(5_000);
}

#[test]
fn a_newcomer_receives_the_archive_of_its_rooms() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 1)]);
    for at in 0..300 {
        world.say(clients[at % 2], "#all", &format!("{at} {}", "x".repeat(at)));
    }
    world.run_ms(500);
    let new = world.join_client("new", 2);
    world.say(clients[0], "#all", "meanwhile");
    world.wait(2_000, "it has all", |world| world.client(new).shown.len() == 301);
    world.heal_and_judge(5_000);
}

// Rooms and talks.

#[test]
fn a_room_joined_late_brings_its_archive_and_mt_follows_ma() {
    let mut world = servers(2);
    let clients = world.join_clients(&[("a", 0), ("b", 1)]);
    world.join(clients[0], "#Ops");
    world.run_ms(100);
    for at in 0..100 {
        world.say(clients[0], "#ops", &format!("{at}"));
        world.say(clients[0], "#all", &format!("{at}"));
    }
    world.run_ms(500);
    assert_eq!(last_status(&mut world, clients[1]), (100, 100));
    world.join(clients[1], "#ops");
    world.say(clients[0], "#ops", "welcome");
    world.wait(1_000, "it has all", |world| world.client(clients[1]).bodies("#ops").len() == 101);
    assert_eq!(last_status(&mut world, clients[1]), (201, 201));
    assert_eq!(happened(&world, clients[0], |h| *h == Happened::RoomMade("#ops".into())), 1);
    let arrived = Happened::Arrived("b".into(), "#ops".into());
    assert_eq!(happened(&world, clients[0], |h| *h == arrived), 1);
    world.heal_and_judge(5_000);
}

#[test]
fn a_room_that_was_left_is_out_of_ma_and_mt_and_comes_back_whole() {
    let mut world = servers(2);
    let clients = world.join_clients(&[("a", 0), ("b", 1)]);
    for client in &clients {
        world.join(*client, "#ops");
    }
    world.run_ms(200);
    for at in 0..20 {
        world.say(clients[0], "#ops", &format!("{at}"));
    }
    world.say(clients[0], "#all", "common");
    world.run_ms(200);
    assert_eq!(last_status(&mut world, clients[1]), (21, 21));
    world.leave(clients[1], "#ops");
    world.say(clients[0], "#ops", "unheard");
    world.run_ms(200);
    assert_eq!(last_status(&mut world, clients[1]), (1, 1));
    assert!(!world.client(clients[1]).bodies("#ops").contains(&"unheard"));
    world.leave(clients[1], "#all");
    world.run_ms(100);
    let refused = |h: &Happened| matches!(h, Happened::Failed(_, Reason::CommonRoom));
    assert_eq!(happened(&world, clients[1], refused), 1);
    world.join(clients[1], "#ops");
    world.run_ms(200);
    assert_eq!(last_status(&mut world, clients[1]), (22, 22));
    world.heal_and_judge(5_000);
}

#[test]
fn a_room_that_is_joined_while_its_server_dies_is_whole_at_the_next() {
    for at in 0..20 {
        let mut world = servers(3);
        let clients = world.join_clients(&[("a", 0), ("b", 1)]);
        world.join(clients[0], "#ops");
        world.run_ms(100);
        for at in 0..200 {
            world.say(clients[0], "#ops", &format!("{at} {}", "x".repeat(1_000)));
        }
        world.run_ms(1_000);
        world.join(clients[1], "#ops");
        world.run(at * 200);
        world.crash(1);
        world.heal_and_judge(5_000);
    }
}

#[test]
fn a_talk_is_seen_by_its_two_and_by_nobody_else() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
    let talk = world.talk(clients[0], clients[1]);
    world.say(clients[0], &talk, "psst");
    world.run_ms(100);
    world.say(clients[1], &talk, "what?");
    world.run_ms(100);
    for client in &clients[..2] {
        assert_eq!(world.client(*client).bodies(&talk), ["psst", "what?"]);
        assert_eq!(last_status(&mut world, *client), (2, 2));
    }
    assert_eq!(last_status(&mut world, clients[2]), (0, 0));
    world.ask_history(clients[2], &talk, 1, 10);
    world.run_ms(100);
    assert_eq!(happened(&world, clients[2], |h| *h == Happened::Failed(2, Reason::UserUnknown)), 1);
    world.search(clients[2], "psst");
    world.run_ms(100);
    assert_eq!(world.client(clients[2]).page, []);
    // Whoever takes the name later reads nothing of it.
    world.quit(clients[1]);
    world.run_ms(200);
    let heir = world.join_client("b", 1);
    world.wait(1_000, "the name is free", |world| world.client(heir).is_caught_up());
    assert_eq!(world.client(heir).shown, []);
    world.heal_and_judge(5_000);
}

#[test]
fn a_topic_is_seen_everywhere_and_the_last_one_stays() {
    let mut world = servers(3);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2)]);
    world.topic(clients[0], "#all", "first");
    world.run_ms(100);
    world.topic(clients[1], "#all", "second");
    world.run_ms(100);
    for client in &clients {
        let topics = happened(&world, *client, |h| matches!(h, Happened::TopicSet(..)));
        assert_eq!(topics, 2);
    }
    world.topic(clients[2], "#nowhere", "x");
    world.run_ms(100);
    assert_eq!(happened(&world, clients[2], |h| *h == Happened::Failed(1, Reason::NotMember)), 1);
    world.heal_and_judge(5_000);
}

// Questions.

#[test]
fn pages_are_the_same_on_every_server_and_in_canonical_order() {
    let mut world = servers(5);
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("c", 2), ("d", 3), ("e", 4)]);
    for round in 0..40 {
        for client in &clients {
            world.say(*client, "#all", &format!("{client} {round}"));
        }
        world.run(300);
    }
    world.run_ms(1_000);
    for (from, count, expected) in [(1, 30, 1..31), (150, 100, 150..201), (0, 7, 194..201)] {
        let mut pages = Vec::new();
        for client in &clients {
            world.ask_history(*client, "#all", from, count);
            world.run_ms(100);
            let page = world.client(*client).page.clone();
            assert_eq!(
                page.iter().map(|(i, _)| *i).collect::<Vec<_>>(),
                expected.clone().collect::<Vec<_>>()
            );
            assert_eq!(world.client(*client).page_total, 200);
            pages.push(page);
        }
        assert!(pages.iter().all(|page| *page == pages[0]), "from {from}");
    }
    world.ask_history(clients[0], "#all", 500, 10);
    world.run_ms(100);
    assert_eq!(world.client(clients[0]).page, []);
}

#[test]
fn a_long_page_comes_in_parts() {
    let mut world = servers(1);
    let clients = world.join_clients(&[("a", 0)]);
    let long = "x".repeat(8_000);
    for _ in 0..50 {
        world.say(clients[0], "#all", &long);
    }
    world.run_ms(500);
    world.ask_history(clients[0], "#all", 1, 50);
    world.run_ms(200);
    assert_eq!(world.client(clients[0]).page.len(), 50);
}

#[test]
fn a_search_finds_what_its_session_may_see_newest_first() {
    let mut world = servers(2);
    let clients = world.join_clients(&[("a", 0), ("b", 1)]);
    world.join(clients[0], "#ops");
    world.run_ms(100);
    for at in 0..3_000 {
        world.say(clients[0], "#all", &format!("{at} noise"));
    }
    for body in ["Needle one", "two needles, one hay", "hay only"] {
        world.say(clients[0], "#all", body);
    }
    world.say(clients[0], "#ops", "secret needle one");
    world.run_ms(2_000);
    world.search(clients[1], "NEEDLE one");
    world.run_ms(500);
    let found: Vec<&str> =
        world.client(clients[1]).page.iter().map(|(_, body)| body.as_str()).collect();
    assert_eq!(found, ["two needles, one hay", "Needle one"]);
    world.search(clients[1], "  ");
    world.run_ms(100);
    assert_eq!(happened(&world, clients[1], |h| *h == Happened::Failed(2, Reason::SearchEmpty)), 1);
}

#[test]
fn lists_say_who_is_there_and_where_and_which_rooms_there_are() {
    let mut world = servers(2);
    let clients = world.join_clients(&[("a", 0), ("b", 1)]);
    world.join(clients[0], "#ops");
    world.run_ms(100);
    world.say(clients[0], "#ops", "x");
    world.run_ms(100);
    world.ask_users(clients[1]);
    world.ask_rooms(clients[1]);
    world.run_ms(100);
    let users = [("a".into(), true, "s0:1".into()), ("b".into(), true, "s1:1".into())];
    assert_eq!(world.client(clients[1]).users, users);
    assert_eq!(world.client(clients[1]).room_list, [("#all".into(), 2, 0), ("#ops".into(), 1, 1)]);
    world.vanish(clients[0]);
    world.run_ms(100);
    world.ask_users(clients[1]);
    world.run_ms(100);
    assert!(!world.client(clients[1]).users[0].1, "it is listed, and not there");
}

// Slow and fast.

#[test]
fn a_slow_reader_costs_nobody_else_anything_is_closed_and_loses_nothing() {
    let limits = Limits { log_bytes_max: 1 << 20, ..Limits::default() };
    let mut world = meshed(Options { servers: 2, limits, ..Options::default() });
    let clients = world.join_clients(&[("a", 0), ("b", 1), ("slow", 0)]);
    world.set_reading(clients[2], false);
    let long = "x".repeat(4_000);
    for at in 0..1_000 {
        world.say(clients[0], "#all", &format!("{at} {long}"));
        world.run_ms(1);
    }
    world.run_ms(1_000);
    assert_eq!(world.client(clients[1]).shown.len(), 1_000);
    world.run_ms(12_000);
    assert_eq!(world.server(0).machine().expect("it runs").users(), 1);
    world.set_reading(clients[2], true);
    world.heal_and_judge(10_000);
    assert_eq!(world.client(clients[2]).shown.len(), 1_000);
}

#[test]
fn a_flood_is_slowed_by_not_being_read_and_all_of_it_arrives() {
    let limits =
        Limits { unacknowledged_max: 64, requests_per_second_max: 100, ..Limits::default() };
    let persist_us = (50_000, 100);
    let mut world = meshed(Options { servers: 2, limits, persist_us, ..Options::default() });
    let clients = world.join_clients(&[("a", 0), ("b", 1)]);
    for at in 0..2_000 {
        world.say(clients[0], "#all", &format!("{at}"));
    }
    for _ in 0..500 {
        world.ask_rooms(clients[0]);
    }
    world.run_ms(100);
    assert!(world.client(clients[0]).unacknowledged() > 1_000, "it is slowed");
    world.say(clients[1], "#all", "me too");
    world.run_ms(200);
    assert_eq!(world.client(clients[1]).unacknowledged(), 0, "and others are not");
    world.wait(20_000, "all of it is safe", |w| w.client(clients[0]).unacknowledged() == 0);
    world.heal_and_judge(5_000);
}
