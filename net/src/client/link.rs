//! One connection, none of whose calls blocks.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cordee_core::chat::client::LinkId;
use cordee_core::framing::{Deframer, FRAME_BYTES_MAX};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) state: State,
    /// Whether the machine was told that it is open.
    pub(super) opened: bool,
    pub(super) deframer: Deframer,
    /// Bytes to be sent, and how many of them left.
    queue: Vec<u8>,
    sent: usize,
    /// The kernel takes no more until it says so.
    blocked: bool,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum State {
    /// Its name is being resolved.
    Resolving,
    /// It is being connected; other addresses of the name to try after that.
    Connecting(Socket, VecDeque<SocketAddr>),
    /// It is open.
    Open(Socket),
    /// The machine let go of it: what is queued is sent until then, and the other's end awaited.
    Closing(Socket, Instant),
    /// It failed.
    Failed,
}

/// What came of reading.
#[derive(Debug)]
pub(super) enum Received {
    /// Bytes.
    Bytes,
    /// Nothing for now.
    Nothing,
    /// The stream ended.
    End,
}

impl Link {
    pub(super) fn new(id: LinkId) -> Self {
        Link {
            id,
            state: State::Resolving,
            opened: false,
            deframer: Deframer::new(FRAME_BYTES_MAX),
            queue: Vec::new(),
            sent: 0,
            blocked: false,
        }
    }

    /// Begins to connect to the first of `addresses` that takes it.
    pub(super) fn connect(&mut self, mut addresses: VecDeque<SocketAddr>) {
        self.state = State::Failed;
        while let Some(address) = addresses.pop_front() {
            if let Ok(socket) = begin(address) {
                self.state = State::Connecting(socket, addresses);
                return;
            }
        }
    }

    /// Looks whether connecting has come to an end: open, or failed with no address left.
    pub(super) fn finish_connecting(&mut self) {
        let State::Connecting(socket, rest) = mem::replace(&mut self.state, State::Failed) else {
            return;
        };
        if is_connected(&socket) {
            self.state = State::Open(socket);
        } else {
            self.connect(rest);
        }
    }

    pub(super) fn socket(&self) -> Option<&Socket> {
        match &self.state {
            State::Connecting(socket, _) | State::Open(socket) | State::Closing(socket, _) => {
                Some(socket)
            }
            State::Resolving | State::Failed => None,
        }
    }

    pub(super) fn queue(&mut self, bytes: &[u8]) {
        self.queue.extend_from_slice(bytes);
    }

    /// Whether to wait until the kernel takes something: the end of connecting, or more bytes.
    pub(super) fn waits_to_write(&self) -> bool {
        matches!(self.state, State::Connecting(..)) || self.blocked
    }

    pub(super) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Sends what the kernel takes at once and returns how many bytes that was.
    pub(super) fn flush(&mut self) -> io::Result<usize> {
        let (State::Open(socket) | State::Closing(socket, _)) = &self.state else { return Ok(0) };
        let before = self.sent;
        while !self.blocked && self.sent < self.queue.len() {
            match rustix::net::send(socket, &self.queue[self.sent..], SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::WOULDBLOCK) => self.blocked = true,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let count = self.sent - before;
        if self.sent == self.queue.len() {
            self.queue.clear();
            self.sent = 0;
            if self.queue.capacity() > QUEUE_BYTES_KEPT {
                self.queue = Vec::new();
            }
        } else if self.sent > QUEUE_BYTES_KEPT {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        Ok(count)
    }

    /// Reads what is there, at most what fits `buffer`, and gives it to the deframer.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        let (State::Open(socket) | State::Closing(socket, _)) = &self.state else {
            return Received::Nothing;
        };
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => Received::End,
            Ok((count, _)) => {
                if matches!(self.state, State::Open(_)) {
                    self.deframer.extend(&buffer[..count]);
                }
                Received::Bytes
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => Received::Nothing,
            Err(_) => Received::End,
        }
    }

    /// The machine lets go: nothing more is taken in, what is queued is sent.
    pub(super) fn close(&mut self) {
        self.state = match mem::replace(&mut self.state, State::Failed) {
            // Without something to send there is nothing to wait for.
            State::Open(socket) if !self.queue.is_empty() => {
                State::Closing(socket, Instant::now() + CLOSING)
            }
            _ => State::Failed,
        };
    }

    /// Everything was sent: says so to the other end, which then ends the stream, too. Were the
    /// connection closed at once, what the other sent meanwhile would reset it, and what we sent
    /// last would be lost.
    pub(super) fn end_sending(&self) {
        if let State::Closing(socket, _) = &self.state
            && self.queue.is_empty()
        {
            // It fails when the other end is gone already, which reading will tell.
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }
}

/// Begins to connect, without waiting.
fn begin(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
    socket.set_tcp_keepalive(&keepalive)?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Whether connecting ended well. A port that the system hands out itself may have been drawn as
/// our own: then we are connected to ourselves.
fn is_connected(socket: &Socket) -> bool {
    let failed = !matches!(socket.take_error(), Ok(None));
    let peer = socket.peer_addr().ok().and_then(|address| address.as_socket());
    let local = socket.local_addr().ok().and_then(|address| address.as_socket());
    !failed && peer.is_some() && peer != local
}

/// For how long a connection that is let go may take to send what is queued.
const CLOSING: Duration = Duration::from_secs(1);
/// Silence after which the system probes whether the other end is there at all.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A queue that was longer than this is freed when it is empty.
const QUEUE_BYTES_KEPT: usize = 64 << 10;
