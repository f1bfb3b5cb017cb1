//! The connections of a server without threads: reading, sending, coming and going.

use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice};
use std::net::{Shutdown, SocketAddr};

use cordee_core::chat::server::{Inlet, Input, Outlets, Source};
use cordee_core::ids::ConnId;
use cordee_core::time::SECOND_US;
use cordee_core::{Limits, Time};
use rustix::net::{RecvFlags, recv};
use socket2::Socket;

use super::{PollFd, PollFlags, PolledServer};
use crate::address;
use crate::server::hub::refusal::refuse;
use crate::socket::{prepare, send_now};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<ConnId, Line>);

#[derive(Debug)]
struct Line {
    socket: Socket,
    inlet: Inlet,
    /// Whether it was dialled, as links are: those have their turn first.
    dialled: bool,
    paused: bool,
    /// Until when the other end may still close; our side has.
    shut: Option<Time>,
}

/// A line that can be read from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Readable {
    client: bool,
    conn: ConnId,
    /// Whether it is reset, or closed by both ends.
    over: bool,
}

impl Lines {
    pub(super) fn open(&mut self, conn: ConnId, socket: Socket, dialled: bool, limits: &Limits) {
        let inlet =
            if dialled { Inlet::dialled(conn, limits) } else { Inlet::accepted(conn, limits) };
        self.0.insert(conn, Line { socket, inlet, dialled, paused: false, shut: None });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn pause(&mut self, conn: ConnId, paused: bool) {
        if let Some(line) = self.0.get_mut(&conn) {
            line.paused = paused;
        }
    }

    pub(super) fn poll_fds<'a>(&'a self, outlets: &Outlets, fds: &mut Vec<PollFd<'a>>) {
        for (conn, line) in &self.0 {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, !line.paused || !outlets.is_open(*conn));
            wanted.set(PollFlags::OUT, outlets.is_blocked(*conn));
            fds.push(PollFd::new(&line.socket, wanted));
        }
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.0.values().filter_map(|line| line.shut).min()
    }

    /// Those that can be read from or are over, links first.
    pub(super) fn ready(&self, ready: &mut impl Iterator<Item = PollFlags>) -> Vec<Readable> {
        let lines = self.0.iter().zip(ready);
        let over = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        let mut ready: Vec<Readable> = lines
            .filter(|(_, flags)| flags.intersects(PollFlags::IN | over))
            .map(|((conn, line), flags)| Readable {
                client: !line.dialled,
                conn: *conn,
                over: flags.intersects(over),
            })
            .collect();
        ready.sort_unstable();
        ready
    }

    /// Lets those go for whose end nobody waits any longer.
    pub(super) fn sweep(&mut self, now: Time) {
        self.0.retain(|_, line| line.shut.is_none_or(|until| until > now));
    }

    /// Cuts all off without a word.
    pub(super) fn cut(&mut self) {
        self.0.clear();
    }
}

impl PolledServer {
    pub(super) fn accept(&mut self, now: Time) {
        self.starved = None;
        for _ in 0..ACCEPTED {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((socket, from)) => {
                    let from = from.as_socket();
                    let ready = prepare(&socket).and_then(|()| socket.set_nonblocking(true));
                    // It fails only when the connection has gone already.
                    if let (Some(from), Ok(())) = (from, ready) {
                        self.on_accepted(now, socket, from);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    let line = format!("cannot accept connections: {error}; raise ulimit -n");
                    self.refusals.warn(now, &self.config.log, &line);
                    self.starved = Some(now + BACK_OFF_US);
                    return;
                }
            }
        }
    }

    fn on_accepted(&mut self, now: Time, socket: Socket, from: SocketAddr) {
        let loopback = address::is_loopback(from.ip());
        let source = Source { address: address::bits(from.ip()), loopback };
        match self.machine.accept(now, source, &mut self.outbox) {
            Ok(conn) => self.link(now, conn, socket, false),
            Err(reason) => {
                self.apply(now);
                let line = format!("refused {from}: {}", reason.word());
                self.refusals.warn(now, &self.config.log, &line);
                refuse(&socket, reason);
            }
        }
    }

    /// Reads once from a connection, and handles what is whole.
    pub(super) fn read(&mut self, now: Time, Readable { conn, over, .. }: Readable) {
        let open = self.outlets.is_open(conn);
        let Some(line) = self.lines.0.get_mut(&conn) else { return };
        if open && line.paused {
            // It would be told again and again, and nobody reads who would find out.
            if over {
                self.on_end(now, conn);
            }
            return;
        }
        let count = match recv(&line.socket, &mut *self.buffer, RecvFlags::DONTWAIT) {
            Err(errno) if errno == rustix::io::Errno::AGAIN || errno == rustix::io::Errno::INTR => {
                return;
            }
            Ok((count @ 1.., _)) => count,
            Ok(_) | Err(_) => return self.on_end(now, conn),
        };
        // What comes after the close is read for nothing, so that its reason is not lost.
        if !open {
            return;
        }
        line.inlet.extend(&self.buffer[..count]);
        // The line stays where it is while inputs are handled: they may pause it.
        let empty = Inlet::dialled(conn, &self.config.limits);
        let mut inlet = std::mem::replace(&mut line.inlet, empty);
        inlet.inputs(|input| self.input(now, input));
        if let Some(line) = self.lines.0.get_mut(&conn) {
            line.inlet = inlet;
        }
    }

    fn on_end(&mut self, now: Time, conn: ConnId) {
        self.lines.0.remove(&conn);
        let open = self.outlets.is_open(conn);
        if open {
            self.input(now, Input::Closed { conn });
        }
        self.outlets.remove(conn);
    }

    /// Sends what can be sent at once, a bounded part of it. Returns whether the machine was told
    /// anything, so that there may be more.
    pub(super) fn write(&mut self, now: Time) -> bool {
        let mut told = false;
        let conns: Vec<ConnId> = self.lines.0.keys().copied().collect();
        for conn in conns {
            let Some(line) = self.lines.0.get(&conn) else { continue };
            let mut left = SENT_BYTES_MAX;
            let sent = self.outlets.send(now, conn, |bytes| {
                let part = &bytes[..bytes.len().min(left)];
                let taken = send_now(&line.socket, &[IoSlice::new(part)]).unwrap_or(0);
                left -= taken;
                taken
            });
            if sent.drained > 0 {
                told = true;
                self.input(now, Input::Drained { conn, bytes: sent.drained });
            }
            if let Some(passed) = &sent.lagged
                && self.outlets.is_open(conn)
            {
                told = true;
                self.input(now, Input::Lagged { conn, passed });
            }
            let stalled = self
                .outlets
                .blocked_since(conn)
                .is_some_and(|since| now.since_us(since) > self.config.limits.stall_us_max);
            if stalled && self.outlets.is_open(conn) {
                told = true;
                self.input(now, Input::Stalled { conn });
            }
            self.shut_if_finished(now, conn);
        }
        told
    }

    fn shut_if_finished(&mut self, now: Time, conn: ConnId) {
        if !self.outlets.is_finished(conn, now) {
            return;
        }
        self.outlets.remove(conn);
        let closing = self.lines.0.values().filter(|line| line.shut.is_some()).count();
        let Some(line) = self.lines.0.get_mut(&conn) else { return };
        line.shut = Some(now + SHUT_US);
        if line.socket.shutdown(Shutdown::Write).is_err() || closing >= CLOSING_MAX {
            self.lines.0.remove(&conn);
        }
    }
}

/// Connections that are taken in a turn.
const ACCEPTED: usize = 32;
/// What is sent to one connection before others have their turn.
const SENT_BYTES_MAX: usize = 256 << 10;
/// How long the other end may take to close after us.
const SHUT_US: u64 = SECOND_US;
/// Connections for whose other end is waited.
const CLOSING_MAX: usize = 64;
const BACK_OFF_US: u64 = 75_000;
