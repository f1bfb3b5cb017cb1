//! A chat server inside another program, and a client of the library that talks to it.
//!
//! ```text
//! cargo run -p cordee-net --example embedded_server
//! ```
//!
//! Neither installs a signal handler, prints or exits: the program around them decides.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Duration;

use cordee_net::client::{ChatClient, ChatConfig, Command, Event, Target};
use cordee_net::server::{ChatServer, Ended, ServerConfig};

fn main() -> Result<(), Box<dyn Error>> {
    // Port 0 draws a free one. The threads of the server live until it is stopped or dropped.
    let server = ChatServer::start(ServerConfig::new("127.0.0.1:0".parse()?, "example"))?;
    println!("listening on {}", server.local_addr());

    let mut config = ChatConfig::new("example", vec![server.local_addr().to_string()])?;
    config.name = "ada".into();
    let (client, mut events) = ChatClient::start(config)?;

    // Things may be said before the client is connected: they are kept, in order.
    let all = Target::Room("#all".into());
    for (reference, body) in (1..).zip(TEXTS) {
        client.send(Command::Say { to: all.clone(), body: body.into(), reference })?;
    }
    let acknowledged = events.wait_for(PATIENCE, |event| match event {
        Event::Sent { reference: 3, index, copies, .. } => Some((index, copies)),
        _ => None,
    });
    let (index, copies) = acknowledged.ok_or("the server does not answer")?;
    println!("acknowledged: message {index} of its room, on {copies} server");

    // Any part of the archive by index, from 1; `from: None` would be the last ones.
    client.send(Command::History { of: all, from: Some(2), count: 2, reference: 4 })?;
    let history = events.wait_for(PATIENCE, |event| match event {
        Event::History { reference: 4, total, messages, .. } => Some((total, messages)),
        _ => None,
    });
    let (total, messages) = history.ok_or("the server does not answer")?;
    for message in &messages {
        println!("{} of {total}: {}: {}", message.index, message.from, message.body);
    }
    assert!(messages.iter().map(|message| &*message.body).eq(TEXTS[1..].iter().copied()));

    // The client leaves once everything is acknowledged; its last event says what was not.
    client.send(Command::Quit)?;
    let unacknowledged = events.wait_for(PATIENCE, |event| match event {
        Event::Closed { unacknowledged, .. } => Some(unacknowledged),
        _ => None,
    });
    assert_eq!(unacknowledged, Some(Vec::new()));

    // The server would hand clients on to the others of its cluster; then its threads end.
    server.stop();
    assert_eq!(server.wait()?, Ended::Stopped);
    Ok(())
}

const TEXTS: [&str; 3] = ["hello", "is anyone there?", "goodbye"];
const PATIENCE: Duration = Duration::from_secs(10);
