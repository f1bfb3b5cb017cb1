//! People on different servers talk: rooms, persons, names, the archive, the counters.

mod common;

use common::{Client, Cluster};
use serde_json::{Value, json};

fn is(event: &Value, kind: &str) -> bool {
    event["event"] == kind
}

#[test]
fn two_people_on_different_servers_talk_in_the_common_room_in_their_own_and_one_to_one() {
    let cluster = Cluster::start(&["--servers", "3"]);
    let mut ada = Client::start(&cluster.addresses[..1], "ada");
    let mut bob = Client::start(&cluster.addresses[1..2], "bob");
    let mut eve = Client::start(&cluster.addresses[2..], "eve");
    ada.wait("bob's arrival", |event| is(event, "arrived") && event["name"] == "bob");

    ada.say("hello all");
    let sent = ada.wait_for_sent("hello all");
    assert!(sent["copies"].as_u64() >= Some(2), "{sent}");
    let heard = bob.wait_for_body("hello all");
    assert_eq!((&heard["from"], &heard["room"]), (&json!("ada"), &json!("#all")));
    assert_eq!(heard["replay"], false);
    assert_eq!(heard["index"], sent["index"]);
    assert_eq!(heard["id"], sent["id"]);

    bob.send(&json!({"join": "#Ops"}));
    ada.wait("the new room", |event| is(event, "room") && event["name"] == "#ops");
    ada.send(&json!({"join": "#ops"}));
    bob.wait("ada in #ops", |event| {
        is(event, "arrived") && event["room"] == "#ops" && event["name"] == "ada"
    });
    bob.say_to("#ops", "only for us");
    assert_eq!(ada.wait_for_body("only for us")["room"], "#ops");
    ada.send(&json!({"topic": "high winds"}));
    bob.wait("the topic", |event| is(event, "topic") && event["topic"] == "high winds");

    bob.say_to("ada", "psst");
    let whisper = ada.wait_for_body("psst");
    assert_eq!((&whisper["with"], &whisper["from"]), (&json!("bob"), &json!("bob")));
    ada.say_to("bob", "what");
    assert_eq!(bob.wait_for_body("what")["with"], "ada");

    // Eve is in neither: she heard the common room alone, and her counters say so.
    ada.say_to("#all", "last");
    eve.wait_for_body("last");
    assert_eq!(eve.bodies(), ["hello all", "last"]);
    assert_eq!(eve.wait_until_drained(), 2);
    assert_eq!(ada.wait_until_drained(), 5);
    assert_eq!(bob.wait_until_drained(), 5);
    assert_eq!(cluster.wait_until_equal(), 5);
}

#[test]
fn a_newcomer_sees_who_is_there_and_receives_the_archive() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut ada = Client::start(&cluster.addresses[..1], "ada");
    for number in 0..200 {
        ada.say(&format!("line {number}"));
    }
    ada.wait_for_sent("line 199");
    let mut bob = Client::start(&cluster.addresses[1..], "bob");
    bob.wait_for_body("line 199");
    let expected: Vec<String> = (0..200).map(|number| format!("line {number}")).collect();
    assert_eq!(bob.bodies(), expected);
    let messages: Vec<&Value> = bob.seen.iter().filter(|event| is(event, "message")).collect();
    for (at, message) in messages.iter().enumerate() {
        assert_eq!((&message["replay"], &message["index"]), (&json!(true), &json!(at + 1)));
    }
    bob.send(&json!({"users": true}));
    let users = bob.wait_for("users");
    let users = users["users"].to_string();
    assert!(users.contains("\"ada\"") && users.contains("\"bob\""), "{users}");
    assert_eq!(bob.wait_until_drained(), 200);
}

#[test]
fn a_name_is_taken_in_the_whole_cluster_whatever_its_case() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let _ada = Client::start(&cluster.addresses[..1], "Ada");
    let mut other = Client::spawn(&cluster.addresses[1..], &["--name", "ADA"], None);
    let error = other.wait_for("error");
    assert_eq!(error["code"], "name_taken");
    other.send(&json!({"name": "bob"}));
    assert_eq!(other.wait_for("connected")["name"], "bob");
    other.send(&json!({"name": "ada"}));
    assert_eq!(other.wait_for("error")["code"], "name_taken");
    other.send(&json!({"name": "rob"}));
    other.wait("the new name", |event| is(event, "renamed") && event["to"] == "rob");
}

#[test]
fn history_is_the_same_by_index_on_every_server() {
    let cluster = Cluster::start(&["--servers", "3"]);
    let mut people: Vec<Client> = (0..3)
        .map(|at| Client::start(&cluster.addresses[at..=at], &format!("person{at}")))
        .collect();
    for round in 0..20 {
        for (at, person) in people.iter_mut().enumerate() {
            person.say(&format!("{at}:{round}"));
        }
    }
    for (at, person) in people.iter_mut().enumerate() {
        person.wait_for_sent(&format!("{at}:19"));
    }
    cluster.wait_until_equal();
    let mut pages = Vec::new();
    for person in &mut people {
        person.send(&json!({"history": {"room": "#all", "from": 11, "count": 20}}));
        let page = person.wait_for("history")["messages"].clone();
        let rows: Vec<(Value, Value)> = page
            .as_array()
            .expect("a list")
            .iter()
            .map(|row| (row["index"].clone(), row["body"].clone()))
            .collect();
        assert_eq!(rows.len(), 20);
        assert_eq!(rows[0].0, 11);
        pages.push(rows);
    }
    assert_eq!(pages[0], pages[1]);
    assert_eq!(pages[1], pages[2]);
    people[0].send(&json!({"history": {"room": "#all", "last": 3}}));
    let last = people[0].wait_for("history")["messages"].clone();
    assert_eq!(last[2]["index"], 60);
    people[1].send(&json!({"search": "2:7"}));
    let found = people[1].wait_for("search")["messages"].clone();
    assert_eq!(found[0]["body"], "2:7", "{found}");
}

#[test]
fn leaving_a_room_and_the_cluster_is_seen_by_the_others() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut ada = Client::start(&cluster.addresses[..1], "ada");
    let mut bob = Client::start(&cluster.addresses[1..], "bob");
    ada.send(&json!({"join": "#ops"}));
    ada.wait("to be in #ops", |event| is(event, "arrived") && event["room"] == "#ops");
    bob.send(&json!({"join": "#ops"}));
    ada.wait("bob in #ops", |event| {
        is(event, "arrived") && event["room"] == "#ops" && event["name"] == "bob"
    });
    bob.send(&json!({"leave": "#ops"}));
    ada.wait("bob out of #ops", |event| {
        is(event, "departed") && event["room"] == "#ops" && event["name"] == "bob"
    });
    ada.say_to("#ops", "alone");
    ada.wait_for_sent("alone");
    bob.send(&json!({"quit": true}));
    ada.wait("bob's departure", |event| {
        is(event, "departed") && event["name"] == "bob" && event["room"].is_null()
    });
    assert!(bob.finish().status.success());
}

#[test]
fn a_reset_forgets_and_receives_the_archive_whole() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut ada = Client::start(&cluster.addresses[..1], "ada");
    for text in ["one", "two", "three"] {
        ada.say(text);
    }
    ada.wait_for_sent("three");
    ada.send(&json!({"reset": true}));
    ada.wait("the replay", |event| {
        is(event, "message") && event["body"] == "three" && event["replay"] == true
    });
    assert_eq!(ada.bodies(), ["one", "two", "three"]);
    assert_eq!(ada.wait_until_drained(), 3);
}
