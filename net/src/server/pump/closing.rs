//! A connection on its way out: what is queued leaves, then the other end is waited for.
//!
//! A socket that is closed while bytes are unread, or on their way, resets the connection, and a
//! reset may overtake the reason for the close. So our side is shut, the reader discards what
//! still comes, and the socket goes when the other end has closed, too, or the time is over.

use std::io;
use std::net::Shutdown;
use std::time::Instant;

use cordee_core::ids::ConnId;

use super::connection::{Connection, Outcome, State, Turn};
use super::ring::Ring;
use crate::sync::Arc;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Closing {
    connection: Box<Connection>,
    latest: Instant,
    flushed: bool,
}

impl Closing {
    pub(super) fn new(connection: Box<Connection>, latest: Instant) -> Self {
        Closing { connection, latest, flushed: false }
    }

    pub(super) fn id(&self) -> ConnId {
        self.connection.id
    }

    /// Sends what it can. Returns whether there is a reason to stay; when not, it is cut off.
    pub(super) fn goes_on(
        &mut self,
        now: Instant,
        ring: &Ring,
        turn: &mut Turn,
        watch: impl Fn(&mut Connection) -> io::Result<()>,
    ) -> bool {
        let stays = now < self.latest
            && self.connection.state != State::Failed
            && self.flush(ring, turn)
            && watch(&mut self.connection).is_ok()
            // The reader ends when the other end has closed, and gives up its share.
            && !(self.flushed && Arc::strong_count(&self.connection.socket) == 1);
        if !stays {
            let _ = self.connection.socket.shutdown(Shutdown::Both);
        }
        stays
    }

    /// Returns `false` when the connection is lost.
    fn flush(&mut self, ring: &Ring, turn: &mut Turn) -> bool {
        while !self.flushed {
            match self.connection.turn(ring, turn) {
                Outcome::More => {}
                Outcome::Idle => {
                    self.flushed = true;
                    return self.connection.socket.shutdown(Shutdown::Write).is_ok();
                }
                Outcome::Blocked(_) => return true,
                Outcome::Failed => return false,
            }
        }
        true
    }

    /// Cuts it off.
    pub(super) fn end(self) {
        let _ = self.connection.socket.shutdown(Shutdown::Both);
    }
}
