//! Blocks of 16 KiB a second: our server beside nginx.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cordee_core::framing::{FRAME_BYTES_MAX, first_frame, frames};
use cordee_core::wire::block::{AskBlocks, BlockWelcome, Open, Opened, Slice, SliceEnd};
use cordee_core::wire::hello::{Hello, Magic, Role, Transport};
use cordee_core::wire::{Fixed64, Message, VERSION_MAJOR, VERSION_MINOR};

use socket2::{Domain, Socket, Type};

use crate::process::{Server, client, find};
use crate::report::{Bound, line, row};
use crate::world::World;
use crate::{Arguments, Result};

const BLOCK_BYTES: u32 = 16 << 10;
const CONNECTIONS: usize = 16;
/// Requests of a connection that wait at once.
const WINDOW: u64 = 8;
const NAME: &str = "small";

/// Ours pipelined and nginx with keep-alive; then a new connection for each block at both.
pub(crate) fn run(arguments: &Arguments, world: &World) -> Result<bool> {
    if find("wrk").is_none() || find("nginx").is_none() {
        line(format_args!("small: not measured, wrk or nginx is not installed"));
        return Ok(true);
    }
    world.file(NAME, u64::from(BLOCK_BYTES))?;
    let home = world.home().join("nginx-small");
    fs::create_dir_all(&home)?;
    let nginx = Server::nginx(&world.served(), &home, 1)?;
    let ours = Server::cordee(&world.cordee, &world.served(), None)?;
    let mut good = true;
    for (name, renew, bound) in [
        ("16 KiB, kept connections", false, Bound::Least(1.2, 2.0)),
        ("16 KiB, new connection each", true, Bound::Least(1.2, 1.4)),
    ] {
        let (mut ratios, mut same, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..arguments.pairs {
            let (theirs, their_cpu) = wrk(&nginx, renew, arguments.seconds)?;
            let before = ours.cpu_s();
            let native = load(ours.address(0), renew, Duration::from_secs(arguments.seconds))?;
            let native_cpu = (ours.cpu_s() - before) / (native * arguments.seconds as f64);
            let (http, _) = wrk(&ours, renew, arguments.seconds)?;
            line(format_args!(
                "    nginx {theirs:.0}/s, cordee {native:.0}/s, cordee over HTTP {http:.0}/s"
            ));
            ratios.push(native / theirs);
            same.push(http / theirs);
            cpu.push(native_cpu / their_cpu);
        }
        good &= row(&format!("{name}: blocks/s ÷ nginx + wrk"), "×", &ratios, bound);
        row(&format!("{name}: server CPU per block"), "×", &cpu, Bound::Told);
        row(&format!("{name}: both over HTTP with wrk"), "×", &same, Bound::Told);
    }
    Ok(good)
}

/// Requests a second, and the server's CPU seconds for each.
fn wrk(server: &Server, renew: bool, seconds: u64) -> Result<(f64, f64)> {
    let mut command = Command::new("wrk");
    command.arg("-t2").arg(format!("-c{CONNECTIONS}")).arg(format!("-d{seconds}s"));
    if renew {
        command.args(["-H", "Connection: close"]);
    }
    command.arg(format!("http://{}/{NAME}", server.address(0)));
    let (took, said) = client(&mut command, &[server])?;
    if said.contains("Non-2xx") {
        return Err("wrk was answered with errors".into());
    }
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    let rate: f64 = rate.ok_or("wrk says no rate")?.trim().parse()?;
    Ok((rate, took.server_cpu_s / (rate * took.wall_s)))
}

/// Blocks a second over our own protocol.
fn load(address: SocketAddr, renew: bool, time: Duration) -> Result<f64> {
    let end = Instant::now() + time;
    let begun = Instant::now();
    let run = move |number: usize| -> std::result::Result<u64, String> {
        // An address for each thread: whoever closes first keeps the port for a minute, and with one
        // address it is the ports that would be measured. wrk leaves the closing to the server.
        let from = SocketAddr::from(([127, 0, 1, 1 + number as u8], 0));
        let mut blocks = 0;
        while Instant::now() < end {
            let count = connection(from, address, renew, end).map_err(|error| error.to_string())?;
            blocks += count;
        }
        Ok(blocks)
    };
    let threads: Vec<_> =
        (0..CONNECTIONS).map(|number| thread::spawn(move || run(number))).collect();
    let mut blocks = 0;
    for thread in threads {
        blocks += thread.join().map_err(|_| "a thread died")??;
    }
    Ok(blocks as f64 / begun.elapsed().as_secs_f64())
}

/// A connection that fetches one block, or as many as it can until `end`.
fn connection(from: SocketAddr, address: SocketAddr, renew: bool, end: Instant) -> Result<u64> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&from.into())?;
    socket.connect(&address.into())?;
    let mut socket = TcpStream::from(socket);
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut out = Vec::new();
    Hello {
        magic: Magic,
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        role: Role::Fetcher,
        transport: Transport::Plain,
        key_id: Fixed64(0),
        cluster: "",
    }
    .put_frame(&mut out);
    Open { request: 0, file: 0, name: NAME, hashes: false }.put_frame(&mut out);
    let (mut asked, mut got) = (0, 0);
    let mut held = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let window = if renew { 1 } else { WINDOW };
        while asked < got + window {
            asked += 1;
            AskBlocks { request: asked, file: 0, first: 0, count: 1 }.put_frame(&mut out);
        }
        socket.write_all(&out)?;
        out.clear();
        let count = socket.read(&mut piece)?;
        if count == 0 {
            return Err("the server closed the connection".into());
        }
        held.extend_from_slice(&piece[..count]);
        let taken = take(&held, &mut got)?;
        held.drain(..taken);
        if (renew && got == 1) || (got > 0 && Instant::now() >= end) {
            return Ok(got);
        }
    }
}

/// Counts the blocks that are whole, and returns how many bytes are done with.
fn take(held: &[u8], got: &mut u64) -> Result<usize> {
    let mut at = 0;
    while let Some(length) = first_frame(&held[at..], FRAME_BYTES_MAX)? {
        let kind = frames(&held[at..at + length]).next().map(|frame| frame.kind);
        let raw = if kind == Some(Slice::KIND) { BLOCK_BYTES as usize - 1 } else { 0 };
        if held.len() < at + length + raw {
            break;
        }
        match kind {
            Some(SliceEnd::KIND) => *got += 1,
            Some(Slice::KIND | BlockWelcome::KIND | Opened::KIND) => {}
            kind => return Err(format!("a frame of kind {kind:?}").into()),
        }
        at += length + raw;
    }
    Ok(at)
}
