//! Real servers, killed in every way, and the parent that keeps them alive.

mod common;

use std::net::TcpStream;

use common::{Cluster, cordee, pid, run, runs, text, wait_until};
use rustix::process::{Signal, kill_process};

#[test]
fn a_killed_server_is_back_at_the_same_address_in_a_new_process() {
    let cluster = Cluster::start(&["--servers", "3"]);
    let others = [cluster.pid(0), cluster.pid(2)];
    for _ in 0..3 {
        let killed = cluster.kill(1);
        cluster.wait_until_back(1, killed);
        assert!(!runs(killed));
        cluster.wait_until_equal();
    }
    assert_eq!([cluster.pid(0), cluster.pid(2)], others, "nobody else was touched");
    let told = cluster.stderr().join("\n");
    assert!(told.contains("signal: 9 (SIGKILL)") && told.contains("is back"), "{told}");
    assert!(cluster.stop().success());
}

#[test]
fn servers_die_with_a_parent_that_is_killed() {
    let cluster = Cluster::start(&["--servers", "3"]);
    let servers: Vec<u64> = (0..3).map(|index| cluster.pid(index)).collect();
    kill_process(pid(cluster.parent_pid()), Signal::KILL).expect("it runs");
    for server in servers {
        wait_until("a server to die with its parent", || (!runs(server)).then_some(()));
    }
}

#[test]
fn a_server_that_is_stopped_dies_with_its_parent_too() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let stopped = cluster.signal(0, Signal::STOP);
    let parent = {
        let path = format!("/proc/{stopped}/status");
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        line.and_then(|text| text.trim().parse().ok()).expect("a parent")
    };
    kill_process(pid(parent), Signal::KILL).expect("it runs");
    wait_until("the stopped server to die", || (!runs(stopped)).then_some(()));
}

#[test]
fn signals_stop_everything_in_good_order() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let cluster = Cluster::start(&["--servers", "2"]);
        let servers = [cluster.pid(0), cluster.pid(1)];
        let parent = cluster.parent_pid();
        kill_process(pid(parent), signal).expect("it runs");
        wait_until("the parent to end", || (!runs(parent)).then_some(()));
        assert!(!servers.iter().any(|server| runs(*server)), "nobody is left behind");
        for address in &cluster.addresses {
            assert!(TcpStream::connect(address).is_err(), "nobody listens");
        }
        let told = cluster.stderr();
        assert!(!told.iter().any(|line| line.contains("started again")), "{told:?}");
    }
}

#[test]
fn a_second_signal_does_not_wait_for_a_server_that_hangs() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let parent = cluster.parent_pid();
    let hangs = cluster.signal(0, Signal::STOP);
    kill_process(pid(parent), Signal::INT).expect("it runs");
    let other = &cluster.addresses[1];
    wait_until("the other to end", || TcpStream::connect(other).is_err().then_some(()));
    assert!(runs(parent) && runs(hangs), "one signal leaves a server its time");
    kill_process(pid(parent), Signal::INT).expect("it runs");
    wait_until("the parent to end", || (!runs(parent)).then_some(()));
    assert!(!runs(hangs));
}

#[test]
fn ports_are_consecutive_from_the_one_that_was_given() {
    // A free run of ports, as far as one can know beforehand.
    let first = wait_until("three free ports in a row", || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").ok()?;
        let first = listener.local_addr().ok()?.port();
        drop(listener);
        let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        (first < 65_000 && free(first) && free(first + 1) && free(first + 2)).then_some(first)
    });
    let cluster = Cluster::start(&["--servers", "3", "-p", &first.to_string()]);
    let mut addresses = cluster.addresses.clone();
    addresses.sort();
    let expected: Vec<String> =
        (first..first + 3).map(|port| format!("127.0.0.1:{port}")).collect();
    assert_eq!(addresses, expected);
    // Whoever wants one of them is told so, and the servers go on.
    let output = run(&["chat-server", "--servers", "1", "-p", &(first + 1).to_string()]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("is in use") && told.contains("-p"), "{told}");
    cluster.wait_until_equal();
}

#[test]
fn a_server_by_itself_serves_and_peers_join_by_address() {
    let first = Cluster::start(&["--servers", "1", "--cluster", "lab"]);
    let address = &first.addresses[0];
    let second = Cluster::start(&["-i", "127.0.0.2", "--peer", address, "--cluster", "lab"]);
    assert_eq!(second.addresses.len(), 1, "with a peer elsewhere it is one server");
    assert!(second.addresses[0].starts_with("127.0.0.2:"));
    let both = [address.clone(), second.addresses[0].clone()];
    common::wait_until_equal(&both, "lab");
    let stranger = run(&["status", address]);
    assert_eq!(stranger.status.code(), Some(1));
    assert!(text(&stranger.stderr).contains("cluster of another name"), "{stranger:?}");
}

#[test]
fn a_worker_without_its_parent_does_not_serve() {
    let output = cordee()
        .args(["__chat-server", "--parent", "1", "--listen", "127.0.0.1:0"])
        .args(["--advertise", "127.0.0.1:5000", "--cluster", "x", "--limit", "1"])
        .args(["--hard-limit", "1", "--copies", "1", "--archive-memory", "2000000"])
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let told = text(&output.stderr);
    assert!(told.contains("the process that started this one has gone"), "{told}");
}
