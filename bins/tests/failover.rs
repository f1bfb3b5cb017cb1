//! Servers die while people talk. Nobody misses a message, sees one twice or out of order, or is
//! said to have left.

mod common;

use std::collections::BTreeMap;

use common::{Client, Cluster, pid, wait_until};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

/// The bodies `who:number` that a client was shown of `who`, in the order in which it saw them.
fn numbers_of(client: &Client, who: &str) -> Vec<u64> {
    let of = |body: &String| {
        let (name, number) = body.split_once(':')?;
        (name == who).then(|| number.parse().expect("a number"))
    };
    client.bodies().iter().filter_map(of).collect()
}

fn assert_nobody_left(client: &Client) {
    let left: Vec<&Value> =
        client.seen.iter().filter(|event| event["event"] == "departed").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Both talk, `rounds` lines each, while `meanwhile` happens after every tenth.
fn talk(
    people: &mut BTreeMap<&str, Client>,
    said: &mut u64,
    rounds: u64,
    mut meanwhile: impl FnMut(u64),
) {
    for round in 0..rounds {
        *said += 1;
        for (name, client) in people.iter_mut() {
            client.say(&format!("{name}:{said}"));
        }
        if round % 10 == 5 {
            meanwhile(round / 10);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    for (name, client) in people.iter_mut() {
        client.wait_for_sent(&format!("{name}:{said}"));
    }
}

fn assert_all_heard_all(people: &mut BTreeMap<&str, Client>, said: u64) {
    let names: Vec<&str> = people.keys().copied().collect();
    for (own, client) in people.iter_mut() {
        for other in names.iter().filter(|other| *other != own) {
            if numbers_of(client, other).last() != Some(&said) {
                client.wait_for_body(&format!("{other}:{said}"));
            }
            let expected: Vec<u64> = (1..=said).collect();
            assert_eq!(numbers_of(client, other), expected, "{own} hears {other}");
        }
        assert_nobody_left(client);
        client.wait_until_drained();
    }
}

fn server_of(client: &mut Client) -> String {
    client.status()["server"].as_str().expect("an address").to_owned()
}

/// The server on the next greater port, round to the least.
fn next_in_ring(cluster: &Cluster, address: &str) -> String {
    let port = |address: &str| -> u16 {
        let (_, port) = address.rsplit_once(':').expect("a port");
        port.parse().expect("a number")
    };
    let mut ring = cluster.addresses.clone();
    ring.sort_by_key(|address| port(address));
    let at = ring.iter().position(|other| other == address).expect("known");
    ring[(at + 1) % ring.len()].clone()
}

#[test]
fn servers_are_killed_one_after_the_other_under_two_who_talk() {
    let cluster = Cluster::start(&["--servers", "5"]);
    let mut people = BTreeMap::from([
        ("ada", Client::start(&cluster.addresses[..1], "ada")),
        ("bob", Client::start(&cluster.addresses[2..3], "bob")),
    ]);
    let mut said = 0;
    talk(&mut people, &mut said, 20, |_| ());
    for _ in 0..4 {
        let address = server_of(people.get_mut("ada").expect("ada"));
        let index = cluster.addresses.iter().position(|other| *other == address).expect("known");
        let mut killed = 0;
        talk(&mut people, &mut said, 30, |round| {
            if round == 1 {
                killed = cluster.kill(index);
            }
        });
        let next = server_of(people.get_mut("ada").expect("ada"));
        assert_eq!(next, next_in_ring(&cluster, &address), "the next in the ring");
        cluster.wait_until_back(index, killed);
        cluster.wait_until_equal();
    }
    assert_all_heard_all(&mut people, said);
    assert_eq!(cluster.wait_until_equal(), 2 * said);
}

#[test]
fn down_to_one_server_and_up_again_everyone_holds_the_same() {
    let cluster = Cluster::start(&["--servers", "5"]);
    let mut people = BTreeMap::from([
        ("ada", Client::start(&cluster.addresses[..1], "ada")),
        ("bob", Client::start(&cluster.addresses[1..2], "bob")),
    ]);
    let mut said = 0;
    talk(&mut people, &mut said, 10, |_| ());
    // Stopped servers do not answer and are not started again: only the last one is left.
    let mut stopped = Vec::new();
    for index in 0..4 {
        stopped.push(cluster.signal(index, Signal::STOP));
        talk(&mut people, &mut said, 5, |_| ());
    }
    for name in ["ada", "bob"] {
        let client = people.get_mut(name).expect("known");
        assert_eq!(server_of(client), cluster.addresses[4]);
    }
    people.get_mut("ada").expect("ada").say("alone:1");
    let sent = people.get_mut("ada").expect("ada").wait_for_sent("alone:1");
    assert_eq!(sent["copies"], 1, "one server is left and says so");
    // Two wake, two die: these are started anew, with nothing.
    for (at, number) in stopped.iter().enumerate() {
        let signal = if at < 2 { Signal::CONT } else { Signal::KILL };
        kill_process(pid(*number), signal).expect("it is there");
    }
    talk(&mut people, &mut said, 5, |_| ());
    assert_eq!(cluster.wait_until_equal(), 2 * said + 1);
    assert_all_heard_all(&mut people, said);
}

#[test]
fn a_user_kills_the_server_where_that_is_allowed() {
    let cluster = Cluster::start(&["--servers", "2", "--allow-kill"]);
    let mut ada = Client::start(&cluster.addresses[..1], "ada");
    let before = cluster.pid(0);
    ada.send(&json!({"kill_server": true}));
    let connected = ada.wait_for("connected");
    assert_eq!(connected["server"], json!(cluster.addresses[1]));
    cluster.wait_until_back(0, before);

    let guarded = Cluster::start(&["--servers", "1", "--cluster", "guarded"]);
    let args = ["--name", "bob", "--cluster", "guarded"];
    let mut bob = Client::start_with(&guarded.addresses, &args);
    bob.send(&json!({"kill_server": true}));
    assert_eq!(bob.wait_for("error")["code"], "kill_forbidden");
}

#[test]
fn what_was_said_while_no_server_lived_is_said_when_one_does() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut ada = Client::start(&cluster.addresses, "ada");
    ada.say("before");
    ada.wait_for_sent("before");
    let killed = cluster.kill(0);
    ada.wait_for("disconnected");
    ada.say("meanwhile");
    cluster.wait_until_back(0, killed);
    ada.wait_for_sent("meanwhile");
}

#[test]
fn a_server_that_stops_in_order_hands_its_users_on() {
    let cluster = Cluster::start(&["--servers", "3"]);
    let mut ada = Client::start(&cluster.addresses[..1], "ada");
    let mut bob = Client::start(&cluster.addresses[1..2], "bob");
    ada.say("one");
    bob.wait_for_body("one");
    let pid = cluster.signal(0, Signal::TERM);
    ada.wait("another server", |event| {
        event["event"] == "connected" && event["server"] != json!(cluster.addresses[0])
    });
    wait_until("the old process to end", || (!common::runs(pid)).then_some(()));
    ada.say("two");
    bob.wait_for_body("two");
    assert_nobody_left(&bob);
    assert_eq!(bob.bodies(), ["one", "two"]);
}
