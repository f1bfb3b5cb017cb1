//! The door: gives each connection that is accepted its place, or a refusal.

use std::net::SocketAddr;

use cordee_core::wire::hello::Bye;
use cordee_core::wire::{Message, Reason};
use rustix::net::{SendFlags, send};
use socket2::Socket;

use super::connection::{Connection, Handle};
use super::queue::Queue;
use super::shared::Shared;
use super::table::{Admission, Table};
use crate::sync::Arc;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) table: Arc<Table>,
    pub(super) queue: Arc<Queue<Handle>>,
    pub(super) shared: Arc<Shared>,
}

impl Door {
    pub(super) fn receive(&self, socket: Socket, from: SocketAddr) {
        // It fails only when the connection has gone already.
        if socket.set_nonblocking(true).is_err() {
            return;
        }
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
}
