//! The acceptor: takes connections off the listener and gives each its place, or a refusal.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use cordee_core::wire::hello::Bye;
use cordee_core::wire::{Message, Reason};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use socket2::{SockAddr, Socket};

use super::connection::{Connection, Handle};
use super::queue::Queue;
use super::shared::Shared;
use super::table::{Admission, Table};
use crate::socket::prepare;
use crate::sync::Arc;

/// Ends the acceptor from another thread; it closes the listener.
#[derive(Debug)]
pub(super) struct AcceptorStop(OwnedFd);

impl AcceptorStop {
    pub(super) fn stop(&self) {
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: Socket,
    stop: Arc<AcceptorStop>,
    table: Arc<Table>,
    queue: Arc<Queue<Handle>>,
    shared: Arc<Shared>,
    /// Given up when there are no descriptors, so that who waits can be refused.
    spare: Option<OwnedFd>,
    starved: bool,
}

impl Acceptor {
    pub(super) fn new(
        listener: Socket,
        table: Arc<Table>,
        queue: Arc<Queue<Handle>>,
        shared: Arc<Shared>,
    ) -> io::Result<Acceptor> {
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AcceptorStop(new_descriptor()?));
        let spare = Some(new_descriptor()?);
        Ok(Acceptor { listener, stop, table, queue, shared, spare, starved: false })
    }

    pub(super) fn stopper(&self) -> Arc<AcceptorStop> {
        Arc::clone(&self.stop)
    }

    /// Accepts until it is stopped.
    pub(super) fn run(mut self) {
        while !self.wait(None) {
            loop {
                match self.listener.accept() {
                    Ok((socket, from)) => {
                        self.starved = false;
                        self.receive(socket, &from);
                    }
                    Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                        Some(Errno::AGAIN) => break,
                        // The one who connected has gone, or the network would not have it.
                        Some(Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM) => {}
                        errno => {
                            self.shed(errno, &error);
                            if self.wait(Some(BACK_OFF)) {
                                return;
                            }
                        }
                    },
                }
            }
        }
    }

    fn receive(&self, socket: Socket, from: &SockAddr) {
        // Either fails only when the connection has gone already.
        let (Some(from), Ok(())) = (from.as_socket(), prepare(&socket)) else { return };
        if socket.set_nonblocking(true).is_err() {
            return;
        }
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let (admission, displaced) = self.table.enter(from.ip());
        if let Some(mut displaced) = displaced {
            displaced.displace(&self.shared);
            self.queue.push(displaced);
        }
        let (place, refused) = match admission {
            Admission::Taken(place) => (place, false),
            Admission::Refused(place) => (place, true),
            Admission::None => return self.refuse(&socket),
        };
        // What it wants may have come with it.
        self.queue.push(Box::new(Connection::new(socket, place, from, refused)));
    }

    /// Too many are being refused already: this one is told in our own protocol, if it listens.
    fn refuse(&self, socket: &Socket) {
        let (reason, retry_ms) = (Reason::TooManyConnections, self.shared.limits.retry_ms());
        let mut bytes = Vec::new();
        Bye { reason, retry_ms, next: "", detail: "" }.put_frame(&mut bytes);
        let _ = send(socket, &bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Without descriptors: takes one who waits, at the cost of the spare one, and closes, so that
    /// it learns at once that there is no place.
    fn shed(&mut self, errno: Option<Errno>, error: &io::Error) {
        if !self.starved {
            self.shared.log.warn(&format!("cannot accept connections: {error}; raise ulimit -n"));
            self.starved = true;
        }
        if matches!(errno, Some(Errno::MFILE | Errno::NFILE)) {
            self.spare = None;
            drop(self.listener.accept());
            self.spare = new_descriptor().ok();
        }
    }

    /// Waits for a connection, or just for `time`. Returns whether to stop.
    fn wait(&self, time: Option<Duration>) -> bool {
        let stop = PollFd::new(&self.stop.0, PollFlags::IN);
        let mut polled = [stop, PollFd::new(&self.listener, PollFlags::IN)];
        let watched = if time.is_some() { &mut polled[..1] } else { &mut polled[..] };
        let time = time.map(|time| Timespec {
            tv_sec: time.as_secs().cast_signed(),
            tv_nsec: time.subsec_nanos().into(),
        });
        // An interrupted wait is over early, no more.
        let _ = poll(watched, time.as_ref());
        !polled[0].revents().is_empty()
    }
}

fn new_descriptor() -> rustix::io::Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
}

const BACK_OFF: Duration = Duration::from_millis(75);
