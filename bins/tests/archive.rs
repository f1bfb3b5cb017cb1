//! What becomes of the archive: all servers lose it, or a server may keep only so much.

mod common;

use std::io::Write;
use std::process::Stdio;

use common::terminal::Terminal;
use common::{Client, Cluster, Lines, cordee, pid, text, wait_until, wait_until_equal};
use rustix::process::{Signal, kill_process};
use serde_json::json;

/// `kill -9` of all servers at the same moment: none can tell another anything any more.
fn kill_all(cluster: &Cluster) {
    let servers = 0..cluster.addresses.len();
    let stopped: Vec<u64> =
        servers.clone().map(|index| cluster.signal(index, Signal::STOP)).collect();
    for number in &stopped {
        kill_process(pid(*number), Signal::KILL).expect("it is there");
    }
    for (index, number) in servers.zip(stopped) {
        cluster.wait_until_back(index, number);
    }
}

#[test]
fn everyone_is_told_when_the_archive_is_gone() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut ada = Client::start(&cluster.addresses[..1], "ada");
    for number in 1..=3 {
        ada.say(&format!("line {number}"));
    }
    ada.wait_for_sent("line 3");
    let mut bob = Client::start(&cluster.addresses[1..], "bob");
    bob.wait_for_body("line 3");
    let args = ["--name", "ben", "--reset"];
    let mut ben = Client::start_with(&cluster.addresses, &args);
    ben.wait_for_body("line 3");
    let state = tempfile::tempdir().expect("a directory for sessions");
    let mut plain = cordee()
        .args(["chat", "--name", "eve", &cluster.addresses[0]])
        .env("XDG_STATE_HOME", state.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let lines = Lines::collect(plain.stdout.take().expect("piped"));
    let shown = |what: &str| {
        wait_until(what, || lines.copy().iter().any(|line| line.contains(what)).then_some(()));
    };
    shown("ada: line 3");
    let mut terminal = Terminal::start(&cluster.addresses, &["--name", "zoe"]);
    terminal.wait_for("zoe #all ");
    ada.wait("everyone", |event| event["event"] == "arrived" && event["name"] == "zoe");

    kill_all(&cluster);
    for client in [&mut ada, &mut bob, &mut ben] {
        let reset = client.wait_for("reset");
        assert_eq!(reset, json!({"event": "reset", "why": "archive_lost", "held": 3}));
        assert_eq!(client.wait_until_drained(), 0);
    }
    shown(
        "! the archive is gone: the servers do not hold any more what you had received (3 messages",
    );
    terminal.wait_for("! the archive is gone");

    // It goes on, by indexes that begin anew.
    ada.say("after");
    assert_eq!(ada.wait_for_sent("after")["index"], 1);
    bob.wait_for_body("after");
    assert_eq!(bob.bodies(), ["line 1", "line 2", "line 3", "after"]);
    shown("#all ada: after");
    writeln!(plain.stdin.as_mut().expect("piped"), "/quit").expect("it reads");
    assert!(plain.wait().expect("it ends").success());
    assert_eq!(cluster.wait_until_equal(), 1);
    let resets = bob.seen.iter().filter(|event| event["event"] == "reset").count();
    assert_eq!(resets, 1);
}

#[test]
fn what_was_not_acknowledged_when_the_archive_went_is_said_in_the_new_one() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut ada = Client::start(&cluster.addresses[..1], "ada");
    ada.say("gone");
    ada.wait_for_sent("gone");
    let stopped = [cluster.signal(0, Signal::STOP), cluster.signal(1, Signal::STOP)];
    ada.say("kept");
    // A line that needs no server is answered after the one before was taken.
    ada.say("");
    ada.wait_for("error");
    for (index, number) in stopped.into_iter().enumerate() {
        kill_process(pid(number), Signal::KILL).expect("it is there");
        cluster.wait_until_back(index, number);
    }
    ada.wait_for("reset");
    ada.wait_for_sent("kept");
    let mut bob = Client::start(&cluster.addresses[1..], "bob");
    bob.wait_for_body("kept");
    assert_eq!(bob.bodies(), ["kept"]);
}

#[test]
fn a_death_of_all_but_one_loses_nothing_and_tells_nothing() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut ada = Client::start(&cluster.addresses[..1], "ada");
    ada.say("one");
    ada.wait_for_sent("one");
    for index in [0, 1, 0] {
        let killed = cluster.kill(index);
        cluster.wait_until_back(index, killed);
        cluster.wait_until_equal();
    }
    ada.say("two");
    ada.wait_for_sent("two");
    assert_eq!(ada.wait_until_drained(), 2);
    assert!(!ada.seen.iter().any(|event| event["event"] == "reset"));
}

#[test]
fn a_full_archive_drops_its_oldest_messages_and_all_go_on_counting_them() {
    const SAID: u64 = 700;
    let cluster = Cluster::start(&["--servers", "2", "--archive-memory", "2M"]);
    let mut people = [
        Client::start(&cluster.addresses[..1], "ada"),
        Client::start(&cluster.addresses[1..], "bob"),
    ];
    let body = "x".repeat(6_000);
    for number in 1..=SAID {
        let text = format!("{number} {body}");
        people[number as usize % 2].send(&json!({"say": text, "ref": number}));
    }
    for (at, person) in people.iter_mut().enumerate() {
        let last = SAID - u64::from(SAID % 2 != at as u64);
        person.wait("the last", |event| event["event"] == "sent" && event["ref"] == last);
    }
    assert_eq!(cluster.wait_until_equal(), SAID);
    for person in &mut people {
        assert_eq!(person.wait_until_drained(), SAID);
    }
    for index in 0..2 {
        let status = cluster.status(index);
        let memory = status["memory_bytes"].as_u64().expect("a number");
        assert!(status["from"].as_u64() > Some(SAID / 4), "{status}");
        assert!(memory < 200_000_000, "the archive and the log, which is 64 MiB at most: {status}");
    }

    // A server that comes late adopts what it cannot receive any more.
    let late = Cluster::start(&["--peer", &cluster.addresses[0], "--archive-memory", "2M"]);
    let all = [&cluster.addresses[..], &late.addresses[..]].concat();
    assert_eq!(wait_until_equal(&all, "cordee"), SAID);
    let from = late.status(0)["from"].as_u64().expect("a number");
    assert!(from > SAID / 4 && from < SAID, "{from}");
    let mut eve = Client::start(&late.addresses, "eve");
    let status = wait_until("MT = MA", || {
        let status = eve.status();
        (status["ma"] == status["mt"]).then_some(status)
    });
    assert_eq!(status["mt"], SAID, "what is gone counts as received");
    // A server that is still joining sends newcomers on to another, which has a floor of its own.
    let server = status["server"].as_str().expect("an address").to_owned();
    let from = common::try_status(&server, "cordee").expect("it answers")["from"].clone();
    let from = from.as_u64().expect("a number");
    let shown = eve.bodies().len() as u64;
    assert_eq!((shown, &status["held"]), (SAID - from + 1, &json!(shown)));

    // By index: below nothing is kept, and it says so; above all is as ever.
    let page = |from: u64, count: u64| json!({"history": {"room": "#all", "from": from, "count": count}, "ref": "h"});
    eve.send(&page(1, from - 1));
    let error = eve.wait_for("error");
    assert_eq!((&error["code"], &error["ref"]), (&json!("trimmed"), &json!("h")));
    let told = error["text"].as_str().expect("text");
    assert!(told.contains(&format!("kept from message {from} on")), "{told}");
    eve.send(&page(from - 2, 5));
    let history = eve.wait_for("history");
    let indexes: Vec<u64> = history["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|message| message["index"].as_u64().expect("a number"))
        .collect();
    assert_eq!(indexes, [from, from + 1, from + 2]);
    assert_eq!(history["total"], SAID);
    eve.send(&json!({"history": {"room": "#all", "last": 1}}));
    assert_eq!(eve.wait_for("history")["messages"][0]["index"], SAID);

    let output = common::run(&["status", &server]);
    let told = text(&output.stdout);
    assert!(told.contains(&format!("bodies from message {from} on")), "{told}");
}
