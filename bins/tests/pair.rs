//! Two servers, the classic pair: a limit, a death, a return.

mod common;

use common::{Client, Cluster};
use serde_json::json;

#[test]
fn the_fourth_of_three_is_sent_to_the_second_and_one_server_carries_on_for_both() {
    let cluster = Cluster::start(&["--servers", "2", "--limit", "3"]);
    let (first, second) = (cluster.addresses[0].clone(), cluster.addresses[1].clone());
    let mut people: Vec<Client> = ["ada", "bob", "cyd", "dan"]
        .iter()
        .map(|name| Client::start(&cluster.addresses[..1], name))
        .collect();
    let servers: Vec<String> = people
        .iter_mut()
        .map(|person| person.status()["server"].as_str().expect("an address").to_owned())
        .collect();
    assert_eq!(servers, [&first, &first, &first, &second].map(String::clone));

    people[3].say("before");
    people[0].wait_for_body("before");
    let killed = cluster.kill(0);
    for (at, person) in people.iter_mut().enumerate() {
        let text = format!("after {at}");
        person.say(&text);
        let sent = person.wait_for_sent(&text);
        assert!(sent["copies"].as_u64() >= Some(1), "{sent}");
    }
    for person in &mut people {
        for other in 0..4 {
            let text = format!("after {other}");
            let own = person.seen.iter().any(|event| event["ref"] == text);
            if !own && !person.bodies().contains(&text) {
                person.wait_for_body(&text);
            }
        }
        assert_eq!(person.status()["server"], json!(second));
    }
    cluster.wait_until_back(0, killed);
    assert_eq!(cluster.wait_until_equal(), 5);
    for person in &mut people {
        assert_eq!(person.wait_until_drained(), 5);
    }
}

#[test]
fn when_all_are_full_a_newcomer_is_told_so() {
    let cluster = Cluster::start(&["--servers", "2", "--limit", "1", "--hard-limit", "2"]);
    let _ada = Client::start(&cluster.addresses[..1], "ada");
    let _bob = Client::start(&cluster.addresses[..1], "bob");
    let mut cyd = Client::spawn(&cluster.addresses, &["--name", "cyd"], None);
    let refused = cyd.wait("the refusal", |event| {
        event.to_string().contains("\"full\"") || event.to_string().contains("are full")
    });
    assert!(refused["event"] == "error" || refused["event"] == "disconnected", "{refused}");
}

#[test]
fn newcomers_who_come_to_both_at_once_are_no_more_than_the_limits() {
    let cluster = Cluster::start(&["--servers", "2", "--limit", "3"]);
    let mut people: Vec<Client> = (0..10)
        .map(|at| {
            let name = format!("user{at}");
            Client::spawn(&cluster.addresses[at % 2..=at % 2], &["--name", &name], None)
        })
        .collect();
    let mut refused = 0;
    for person in &mut people {
        let event = person.wait("a place, or a refusal", |event| {
            event["event"] == "connected" || event["code"] == "full"
        });
        refused += u32::from(event["code"] == "full");
    }
    assert_eq!(refused, 4);
    for index in 0..2 {
        assert_eq!(cluster.status(index)["users"], 3);
    }
}
