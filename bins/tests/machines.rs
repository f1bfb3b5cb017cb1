//! Servers on "different machines": addresses of their own, started by hand, late, cut off.

mod common;

use std::net::IpAddr;

use common::{Client, Cluster, wait_until, wait_until_equal};
use cordee_nemesis::Relay;

fn start(host: &str, peers: &[&str], more: &[&str]) -> Cluster {
    let mut args = vec!["-i", host, "--servers", "1"];
    for peer in peers {
        args.extend(["--peer", peer]);
    }
    args.extend(more);
    Cluster::start(&args)
}

#[test]
fn a_server_that_comes_late_catches_up() {
    let first = start("127.0.0.1", &[], &[]);
    let second = start("127.0.0.2", &[&first.addresses[0]], &[]);
    let mut ada = Client::start(&first.addresses, "ada");
    for number in 0..500 {
        ada.say(&format!("line {number}"));
    }
    ada.wait_for_sent("line 499");
    // It is told of one member and learns of the other.
    let third = start("127.0.0.3", &[&second.addresses[0]], &[]);
    let all = [&first, &second, &third].map(|cluster| cluster.addresses[0].clone());
    assert_eq!(wait_until_equal(&all, "cordee"), 500);
    let mut bob = Client::start(&third.addresses, "bob");
    bob.wait_for_body("line 499");
    assert_eq!(bob.wait_until_drained(), 500);
    bob.say("thanks");
    ada.wait_for_body("thanks");
}

#[test]
fn what_two_that_are_cut_off_from_each_other_lack_comes_through_the_third() {
    // Whoever dials a server goes through its relay, from an address of its own.
    let hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let relays = hosts.map(|host| Relay::start(host, 0).expect("a free port"));
    let addresses: Vec<String> = relays.iter().map(Relay::address).collect();
    let clusters: Vec<Cluster> = (0..3)
        .map(|at| {
            let others: Vec<&str> = (0..3)
                .filter(|other| *other != at)
                .map(|other| addresses[other].as_str())
                .collect();
            let cluster = start(hosts[at], &others, &["--advertise", &addresses[at]]);
            relays[at].lead_to(cluster.addresses[0].parse().expect("an address"));
            cluster
        })
        .collect();
    let direct: Vec<String> = clusters.iter().map(|cluster| cluster.addresses[0].clone()).collect();
    wait_until_equal(&direct, "cordee");

    let [first, _, third] = hosts.map(|host| host.parse::<IpAddr>().expect("an address"));
    relays[0].cut(third);
    relays[2].cut(first);
    let mut ada = Client::start(&direct[..1], "ada");
    let mut bob = Client::start(&direct[2..], "bob");
    for number in 0..100 {
        ada.say(&format!("ada {number}"));
        bob.say(&format!("bob {number}"));
    }
    ada.wait_for_body("bob 99");
    bob.wait_for_body("ada 99");
    let expected: Vec<String> = (0..100).map(|number| format!("bob {number}")).collect();
    assert_eq!(ada.bodies(), expected);
    assert_eq!(wait_until_equal(&direct, "cordee"), 200);
    assert_eq!(ada.wait_until_drained(), 200);

    relays[0].heal();
    relays[2].heal();
    wait_until("the link to stand again", || {
        let links = relays[0].connections_from(third) + relays[2].connections_from(first);
        (links > 0).then_some(())
    });
    ada.say("healed");
    bob.wait_for_body("healed");
}
