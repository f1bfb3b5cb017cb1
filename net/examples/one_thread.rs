//! A chat server in a program's own loop, beside whatever else that waits for: no thread of ours.
//! `cargo run -p cordee-net --example one_thread` echoes a line over a socket of the program's own,
//! serves one visitor and ends; given an address it serves on that for ever, linked with the
//! servers named after it, and `cordee chat --name ada ADDRESS` talks to it.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cordee_net::client::{ChatClient, ChatConfig, Command, Event, Target};
use cordee_net::server::{PollFd, PollFlags, PolledServer, ServerConfig};
use rustix::event::{Timespec, poll};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (address, peers) = (args.next(), args.collect());
    let listen = address.as_deref().unwrap_or("127.0.0.1:0").parse()?;
    let config = ServerConfig { peers, ..ServerConfig::new(listen, "cordee") };
    let mut server = PolledServer::bind(config)?;
    println!("listening on {}", server.local_addr());
    while address.is_some() && server.ended().is_none() {
        // With nothing else to wait for, this is the whole loop.
        server.turn(Duration::MAX)?;
    }

    // The library's client has a thread of its own; the server has none.
    let mut config = ChatConfig::new("cordee", vec![server.local_addr().to_string()])?;
    config.name = "ada".into();
    let (visitor, mut events) = ChatClient::start(config)?;
    let to = Target::Room("#all".into());
    visitor.send(Command::Say { to, body: "hello".into(), reference: 1 })?;
    visitor.send(Command::Quit)?;

    let (mut ours, mut other) = UnixStream::pair()?;
    other.write_all(b"the program has a socket, too\n")?;
    let (mut acknowledged, mut echoed) = (0, 0);
    while !events.is_over() {
        if wait(&mut server, &ours)? {
            let mut line = [0; 64];
            echoed += ours.read(&mut line)?;
        }
        while let Some(event) = events.next_timeout(Duration::ZERO) {
            acknowledged += u32::from(matches!(event, Event::Sent { reference: 1, .. }));
        }
    }
    assert_eq!((acknowledged, server.machine().stats().accepted, echoed), (1, 1, 30));
    println!("one message was said, and acknowledged");

    server.stopper().stop();
    while server.ended().is_none() {
        server.turn(Duration::MAX)?;
    }
    Ok(())
}

/// Waits for the server's descriptors and one of the program's own, and lets the server do what
/// there is to do. Returns whether the program's own is ready.
fn wait(server: &mut PolledServer, own: &UnixStream) -> Result<bool, Box<dyn Error>> {
    let time = server.timeout();
    let (tv_sec, tv_nsec) = (time.as_secs().cast_signed(), time.subsec_nanos().into());
    let mut fds = vec![PollFd::new(own, PollFlags::IN)];
    server.poll_fds(&mut fds);
    poll(&mut fds, Some(&Timespec { tv_sec, tv_nsec }))?;
    let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
    server.ready(&ready[1..]);
    Ok(!ready[0].is_empty())
}
