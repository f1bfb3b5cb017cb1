//! Addresses of every kind: IPv6, names, "every address"; and members that are to be forgotten.

mod common;

use common::{Client, Cluster, run, text, wait_until, wait_until_equal};

fn port_of(address: &str) -> &str {
    address.rsplit_once(':').expect("host:port").1
}

/// Which of two servers the client is on, and which it is not.
fn own_and_other(client: &mut Client, addresses: &[String]) -> (usize, usize) {
    let server = client.status()["server"].clone();
    let own = addresses.iter().position(|address| server == address.as_str()).expect("one of two");
    (own, 1 - own)
}

#[test]
fn ipv6_works_like_ipv4() {
    let cluster = Cluster::start(&["-i", "::1", "--servers", "2"]);
    assert!(cluster.addresses.iter().all(|address| address.starts_with("[::1]:")));
    let mut ada = Client::start(&cluster.addresses[..1], "ada");
    let port = port_of(&cluster.addresses[1]);
    let mut bob = Client::start_with(&[], &["--name", "bob", "-i", "::1", "-p", port]);
    ada.say("hello six");
    bob.wait_for_body("hello six");
    let (own, next) = own_and_other(&mut ada, &cluster.addresses);
    let killed = cluster.kill(own);
    ada.wait("the next server", |event| event["server"] == cluster.addresses[next].as_str());
    cluster.wait_until_back(own, killed);
    let status = run(&["status", "-i", "::1", "-p", port, "--json"]);
    assert_eq!(status.status.code(), Some(0), "{status:?}");
    // A member on another address of the machine, linked by IPv6.
    let third = Cluster::start(&["-i", "::1", "--peer", &cluster.addresses[1]]);
    let all = [&cluster.addresses[..], &third.addresses[..]].concat();
    wait_until_equal(&all, "cordee");
}

#[test]
fn names_are_addresses_too() {
    let cluster = Cluster::start(&["--servers", "1", "--advertise", "localhost"]);
    let by_name = format!("localhost:{}", port_of(&cluster.addresses[0]));
    let mut ada = Client::start(std::slice::from_ref(&by_name), "ada");
    assert_eq!(ada.seen[0]["server"], by_name.as_str(), "as it advertises itself");
    let other = Cluster::start(&["-i", "127.0.0.2", "--peer", &by_name]);
    wait_until_equal(&[cluster.addresses[0].clone(), other.addresses[0].clone()], "cordee");
    let mut bob = Client::start(&other.addresses, "bob");
    bob.say("hello");
    ada.wait_for_body("hello");
    let nowhere = run(&["status", "no-such-host.invalid:5000"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("no-such-host.invalid:5000"), "{nowhere:?}");
}

#[test]
fn who_listens_on_every_address_says_how_it_is_reached() {
    for (args, mend) in [
        (&["-i", "0.0.0.0"][..], "--advertise HOST"),
        (&["-i", "::"], "--advertise HOST"),
        (&["-i", "0.0.0.0", "--peer", "127.0.0.1:5000"], "--advertise HOST"),
        (&["-i", "0.0.0.0", "--advertise", "0.0.0.0"], "no address that others can connect to"),
        (&["-i", "127.0.0.1", "--advertise", "[::]:80"], "no address that others can connect to"),
        (&["-i", "0.0.0.0", "--advertise", "localhost:0"], "a port that others can connect to"),
    ] {
        let output = run(&[&["chat-server", "-p", "0"], args].concat());
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(mend), "{args:?}: {told}");
    }
    let first = Cluster::start(&["-i", "0.0.0.0", "--servers", "2", "--advertise", "127.0.0.1"]);
    let told = first.stderr().join("\n");
    assert!(told.contains("open to other machines"), "{told}");
    let at = |address: &String| format!("127.0.0.1:{}", port_of(address));
    let reached: Vec<String> = first.addresses.iter().map(at).collect();
    let mut ada = Client::start(&reached[..1], "ada");
    let mut servers = ada.seen[0]["servers"].as_array().expect("a list").clone();
    servers.sort_by_key(ToString::to_string);
    let mut expected = reached.clone();
    expected.sort();
    assert_eq!(servers, expected, "what clients are told leads there");
    let second = Cluster::start(&["--peer", &reached[1], "-i", "127.0.0.2"]);
    wait_until_equal(&[&reached[..], &second.addresses[..]].concat(), "cordee");
    let (own, _) = own_and_other(&mut ada, &reached);
    first.kill(own);
    ada.wait("another server", |event| {
        event["event"] == "connected" && event["server"] != reached[own].as_str()
    });
}

/// What `cordee forget` says, asking the server at `asked`.
fn forget(member: &str, asked: &str) -> (Option<i32>, String) {
    let (host, port) = asked.rsplit_once(':').expect("host:port");
    let output = run(&["forget", member, "-i", host, "-p", port]);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn forgetting_says_what_is_wrong_and_the_mend() {
    let first = Cluster::start(&["--servers", "1"]);
    let second = Cluster::start(&["-i", "127.0.0.2", "--peer", &first.addresses[0]]);
    let both = [first.addresses[0].clone(), second.addresses[0].clone()];
    wait_until_equal(&both, "cordee");
    let (code, told) = forget(&both[0], &both[0]);
    assert_eq!(code, Some(1));
    assert!(told.contains(&both[0]) && told.contains("is the server that was asked"), "{told}");
    let (code, told) = forget(&both[1], &both[0]);
    assert_eq!(code, Some(1));
    assert!(told.contains(&both[1]) && told.contains("is alive"), "{told}");
    assert!(told.contains("stop it first"), "{told}");
    let (code, told) = forget("127.0.0.9:9", &both[0]);
    assert_eq!(code, Some(1));
    assert!(told.contains("knows no member 127.0.0.9:9"), "{told}");
    assert!(both.iter().all(|member| told.contains(member)), "its members are listed: {told}");
    let (code, told) = forget(&both[0], "127.0.0.9:9");
    assert_eq!(code, Some(1));
    assert!(told.contains("127.0.0.9:9: nobody answers"), "{told}");

    // It will not return.
    rustix::process::kill_process(common::pid(second.parent_pid()), rustix::process::Signal::KILL)
        .expect("it runs");
    let state = || {
        let status = first.status(0);
        let members = status["members"].as_array().expect("a list").clone();
        let member = members.iter().find(|member| member["address"] == both[1].as_str())?;
        member["state"].as_str().map(str::to_owned)
    };
    wait_until("the member to be lost", || (state()? == "lost").then_some(()));
    let (code, told) = forget(&both[1], &both[0]);
    assert_eq!((code, told), (Some(0), format!("{} forgot {}\n", both[0], both[1])));
    assert_eq!(state().as_deref(), Some("forgotten"));
}

#[test]
fn servers_of_one_command_find_each_other_whatever_they_advertise() {
    // A documentation address: nobody is there.
    let cluster = Cluster::start(&["--servers", "2", "--advertise", "192.0.2.1:7000"]);
    let members = cluster.status(0)["members"].as_array().expect("a list").clone();
    let linked = members.iter().filter(|member| member["state"] == "linked").count();
    assert_eq!(linked, 2, "{members:?}");
}
