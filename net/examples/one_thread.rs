//! A chat server in a program's own loop: the machine of `cordee-core`, sockets and `poll`, no
//! thread. `cargo run -p cordee-net --example one_thread` serves one visitor and ends; given an
//! address it serves on that for ever, and `cordee chat --name ada ADDRESS` talks to it.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use cordee_core::chat::server::{ChatServer, Config, Effect, Inlet, Input, Outlets, Source};
use cordee_core::{Limits, Machine, Outbox, Time, Wall, ids::ConnId};
use cordee_net::client::{ChatClient, ChatConfig, Command, Event, Target};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let mut server = Server::listen(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    println!("listening on {}", server.listener.local_addr()?);
    while address.is_some() && !server.over {
        server.turn()?;
    }
    // The library's client has a thread of its own; the server has none.
    let mut config = ChatConfig::new("cordee", vec![server.listener.local_addr()?.to_string()])?;
    config.name = "ada".into();
    let (visitor, mut events) = ChatClient::start(config)?;
    let to = Target::Room("#all".into());
    visitor.send(Command::Say { to, body: "hello".into(), reference: 1 })?;
    visitor.send(Command::Quit)?;
    let mut acknowledged = 0;
    while !events.is_over() {
        server.turn()?;
        while let Some(event) = events.next_timeout(Duration::ZERO) {
            acknowledged += u32::from(matches!(event, Event::Sent { reference: 1, .. }));
        }
    }
    assert_eq!((acknowledged, server.machine.stats().accepted), (1, 1));
    // Before the events: their end waits for the server to close the connection, too.
    drop(server);
    println!("one message was said, and acknowledged");
    Ok(())
}

struct Server {
    listener: TcpListener,
    started: Instant,
    machine: ChatServer,
    out: Outbox<Effect>,
    outlets: Outlets,
    conns: BTreeMap<ConnId, (TcpStream, Inlet)>,
    paused: BTreeSet<ConnId>,
    over: bool,
}

impl Server {
    fn listen(address: &str) -> Result<Server> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let mut entropy = [0; 64];
        rustix::rand::getrandom(&mut entropy, rustix::rand::GetRandomFlags::empty())?;
        let config = Config::new("cordee", listener.local_addr()?.to_string(), entropy, wall());
        let (machine, outlets) = (ChatServer::new(config, 1, Time::ZERO), Outlets::new());
        let (conns, paused) = (BTreeMap::new(), BTreeSet::new());
        let (started, out) = (Instant::now(), Outbox::new());
        Ok(Server { listener, started, machine, out, outlets, conns, paused, over: false })
    }

    /// Waits until something happens or is due, and sees to it.
    fn turn(&mut self) -> Result<()> {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for (id, (socket, _)) in &self.conns {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, self.outlets.is_open(*id) && !self.paused.contains(id));
            wanted.set(PollFlags::OUT, self.outlets.is_blocked(*id));
            fds.push(PollFd::new(socket, wanted));
        }
        let us = self.machine.poll_timeout().map_or(0, |due| due.since_us(self.now()));
        let (tv_sec, tv_nsec) = ((us / 1_000_000) as i64, (us % 1_000_000 * 1_000) as i64);
        poll(&mut fds, Some(&Timespec { tv_sec, tv_nsec }))?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        self.input(Input::Wall(wall()));
        for (conn, ready) in
            self.conns.keys().copied().collect::<Vec<_>>().into_iter().zip(&ready[1..])
        {
            if *ready && self.outlets.is_open(conn) {
                self.read(conn);
            }
        }
        if ready[0] {
            self.accept()?;
        }
        loop {
            self.machine.handle_timeout(self.now(), &mut self.out);
            self.apply();
            if !self.write() {
                return Ok(());
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        let (socket, from) = self.listener.accept()?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let address = match from.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let source = Source { address, loopback: from.ip().is_loopback() };
        // Whoever is refused sees the connection end.
        if let Ok(conn) = self.machine.accept(self.now(), source, &mut self.out) {
            self.outlets.open(conn);
            self.conns.insert(conn, (socket, Inlet::accepted(conn, &Limits::default())));
        }
        self.apply();
        Ok(())
    }

    fn read(&mut self, conn: ConnId) {
        let Some((mut socket, mut inlet)) = self.conns.remove(&conn) else { return };
        match socket.read(inlet.space()) {
            Ok(count @ 1..) => inlet.filled(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => {
                self.input(Input::Closed { conn });
                return self.outlets.remove(conn);
            }
        }
        inlet.inputs(|input| self.input(input));
        self.conns.insert(conn, (socket, inlet));
    }

    /// Sends what there is. Says whether the machine was told anything.
    fn write(&mut self) -> bool {
        let (now, mut told) = (self.now(), false);
        for conn in self.conns.keys().copied().collect::<Vec<_>>() {
            let mut socket = &self.conns[&conn].0;
            let sent = self.outlets.send(now, conn, |bytes| socket.write(bytes).unwrap_or(0));
            let blocked_us = self.outlets.blocked_since(conn).map_or(0, |at| now.since_us(at));
            if sent.drained > 0 {
                self.input(Input::Drained { conn, bytes: sent.drained });
            }
            if let Some(passed) = &sent.lagged {
                self.input(Input::Lagged { conn, passed });
            }
            if blocked_us > Limits::default().stall_us_max {
                self.input(Input::Stalled { conn });
            }
            if self.outlets.is_finished(conn, now) {
                self.conns.remove(&conn);
                self.outlets.remove(conn);
            }
            told |= sent != Default::default();
        }
        told
    }

    fn input(&mut self, input: Input<'_>) {
        self.machine.handle_input(self.now(), input, &mut self.out);
        self.apply();
    }

    fn apply(&mut self) {
        let (mut out, now, mut persisted) = (std::mem::take(&mut self.out), self.now(), None);
        out.drain(|effect, arena| match self.outlets.apply(now, effect, arena) {
            Some(Effect::Persist { sequence, .. }) => persisted = Some(sequence),
            Some(Effect::Pause { conn }) => drop(self.paused.insert(conn)),
            Some(Effect::Unpause { conn }) => drop(self.paused.remove(&conn)),
            Some(Effect::Crash | Effect::Stopped) => self.over = true,
            // It has no peers to dial; who is to be closed is closed after writing.
            _ => {}
        });
        self.out = out;
        if let Some(through) = persisted {
            self.input(Input::Persisted { through, durable: false });
        }
    }

    fn now(&self) -> Time {
        Time(self.started.elapsed().as_micros() as u64)
    }
}

fn wall() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall(since.as_micros() as u64)
}
