//! A server without threads: it serves clients of the library, and is a member of a cluster with
//! servers that have threads.

use std::time::{Duration, Instant};

use cordee_core::wire::peer::ServerState;
use cordee_net::client::{ChatClient, ChatConfig, Command, Event, Events, Target};
use cordee_net::server::{ChatServer, Ended, PolledServer, ServerConfig};

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(peers: &[String]) -> ServerConfig {
    let listen = "127.0.0.1:0".parse().expect("an address");
    ServerConfig { peers: peers.to_vec(), ..ServerConfig::new(listen, "polled") }
}

fn client(name: &str, server: String) -> (ChatClient, Events) {
    let mut config = ChatConfig::new("polled", vec![server]).expect("an address");
    config.name = name.into();
    ChatClient::start(config).expect("a thread")
}

fn say(client: &ChatClient, body: &str) {
    let to = Target::Room("#all".into());
    client.send(Command::Say { to, body: body.into(), reference: 1 }).expect("it runs");
}

/// Turns the server until `done`.
fn turn_until(server: &mut PolledServer, what: &str, mut done: impl FnMut(&PolledServer) -> bool) {
    let latest = Instant::now() + PATIENCE;
    while !done(server) {
        let stats = server.machine().stats();
        assert!(Instant::now() < latest, "in vain: {what}; {stats:?}");
        server.turn(Duration::from_millis(20)).expect("poll works");
    }
}

/// A client of another server. One that has just dialled may be joining still, and then sends
/// newcomers on: whoever ends up elsewhere leaves, and the next one tries.
fn client_at(polled: &mut PolledServer, server: String) -> (ChatClient, Events) {
    for number in 0.. {
        let (client, mut events) = client(&format!("ada{number}"), server.clone());
        let mut found = None;
        turn_until(polled, "a client finds a server", |_| {
            found = found.take().or_else(|| connected_to(&mut events));
            found.is_some()
        });
        if found.as_ref() == Some(&server) {
            return (client, events);
        }
    }
    unreachable!("a server does not join for ever")
}

/// Where a client is connected now, among the events that are there.
fn connected_to(events: &mut Events) -> Option<String> {
    std::iter::from_fn(|| events.next_timeout(Duration::ZERO)).find_map(|event| match event {
        Event::Connected { server, .. } => Some(server),
        _ => None,
    })
}

/// Whether `body` was shown, among the events that are there.
fn shows(events: &mut Events, body: &str) -> bool {
    while let Some(event) = events.next_timeout(Duration::ZERO) {
        if matches!(&event, Event::Message(message) if &*message.body == body) {
            return true;
        }
    }
    false
}

#[test]
fn what_is_said_at_one_is_shown_at_the_other_whichever_of_them_dialled() {
    for polled_dials in [true, false] {
        let start = |peers: &[String]| ChatServer::start(config(peers)).expect("it starts");
        let bind = |peers: &[String]| PolledServer::bind(config(peers)).expect("it listens");
        let (threaded, mut polled) = if polled_dials {
            let threaded = start(&[]);
            let polled = bind(&[threaded.local_addr().to_string()]);
            (threaded, polled)
        } else {
            let polled = bind(&[]);
            (start(&[polled.local_addr().to_string()]), polled)
        };
        turn_until(&mut polled, "they link", |server| {
            server.machine().linked() == 1 && server.machine().state() == ServerState::Active
        });
        let (ada, mut at_threaded) = client_at(&mut polled, threaded.local_addr().to_string());
        let (bob, mut at_polled) = client("bob", polled.local_addr().to_string());
        turn_until(&mut polled, "bob is here", |server| server.machine().users() == 1);
        say(&ada, "from the one with threads");
        turn_until(&mut polled, "bob is shown it", |_| {
            shows(&mut at_polled, "from the one with threads")
        });
        // Longer than what a socket takes at once.
        let long = "x".repeat(8_000);
        for _ in 0..100 {
            say(&bob, &long);
        }
        say(&bob, "from the one without");
        turn_until(&mut polled, "ada is shown it", |_| {
            shows(&mut at_threaded, "from the one without")
        });
        assert_eq!(
            polled.machine().archive().rows(),
            102,
            "all was said here or came over the link"
        );
        polled.stopper().stop();
        turn_until(&mut polled, "it stops", |server| server.ended() == Some(Ended::Stopped));
    }
}

#[test]
fn a_newcomer_gets_the_archive_and_a_turn_never_waits_longer_than_it_may() {
    let mut server = PolledServer::bind(config(&[])).expect("it listens");
    let address = server.local_addr().to_string();
    let (ada, mut said) = client("ada", address.clone());
    let body = "y".repeat(8_000);
    (0..300).for_each(|_| say(&ada, &body));
    say(&ada, "last");
    turn_until(&mut server, "ada is here", |server| server.machine().users() == 1);
    turn_until(&mut server, "all is said", |server| {
        // Who takes no events makes the client read no more.
        while said.next_timeout(Duration::ZERO).is_some() {}
        server.machine().archive().rows() == 301
    });
    let (_bob, mut events) = client("bob", address);
    turn_until(&mut server, "bob is shown it", |_| shows(&mut events, "last"));
    // From another thread, while the loop waits as long as it likes.
    let stopper = server.stopper();
    let other = std::thread::spawn(move || stopper.stop());
    let latest = Instant::now() + PATIENCE;
    while server.ended().is_none() && Instant::now() < latest {
        server.turn(Duration::MAX).expect("poll works");
    }
    other.join().expect("no panic");
    assert_eq!(server.ended(), Some(Ended::Stopped));
}

#[test]
fn a_member_that_is_not_there_or_is_a_name_is_looked_for_without_waiting() {
    let peers = ["127.0.0.1:1".to_owned(), "localhost:5000".to_owned()];
    let mut server = PolledServer::bind(config(&peers)).expect("it listens");
    let (_ada, mut events) = client("ada", server.local_addr().to_string());
    turn_until(&mut server, "ada is attached", |server| server.machine().users() == 1);
    turn_until(&mut server, "ada knows", |_| {
        let event = events.next_timeout(Duration::ZERO);
        matches!(event, Some(Event::Connected { .. }))
    });
}
