//! The reader of one connection: a thread that blocks in `read` and hands batches to the hub.

use std::io::{self, Read};

use cordee_core::ids::ConnId;
use socket2::Socket;

use super::credit::Credit;
use super::inbox::{Batch, End, Inbox};
use super::intake::Intake;
use crate::sync::Arc;

/// A reader that is about to start.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) conn: ConnId,
    pub(crate) socket: Arc<Socket>,
    pub(crate) credit: Arc<Credit>,
    pub(crate) inbox: Arc<Inbox>,
    /// The longest first frame, and the longest of the others.
    pub(crate) frame_bytes_max: (usize, usize),
}

impl Reader {
    /// Reads until the stream ends, breaks, or the hub wants no more of it.
    pub(crate) fn run(self) {
        let mut intake = Intake::new(self.frame_bytes_max.0, self.frame_bytes_max.1);
        let mut told_mid_frame = false;
        loop {
            let end = match read(&self.socket, intake.space()) {
                Ok(0) | Err(_) => Some(End::Closed),
                Ok(bytes) => {
                    intake.filled(bytes);
                    intake.error().map(End::Broken)
                }
            };
            let mid_frame = end.is_none() && intake.is_mid_frame();
            if intake.whole() == 0 && end.is_none() && mid_frame == told_mid_frame {
                continue;
            }
            let Some(spare) = self.credit.take() else { return self.discard() };
            let whole = intake.whole();
            // Without a whole frame there is nothing to hand over but the news.
            let bytes = if whole > 0 { intake.swap(spare) } else { spare };
            told_mid_frame = mid_frame;
            let batch = Batch { conn: self.conn, bytes, whole, mid_frame, end };
            if !self.inbox.put_batch(batch, self.credit.is_peer()) {
                return;
            }
            match end {
                None => {}
                Some(End::Closed) => return,
                Some(End::Broken(_)) => return self.discard(),
            }
        }
    }

    /// Reads what nobody wants until the other end closes: a socket that is closed with bytes
    /// unread resets the connection, and the reason for the close may not arrive. The pump ends
    /// this after a second.
    fn discard(&self) {
        let mut buffer = vec![0; DISCARD_BYTES];
        let mut left = DISCARDED_BYTES_MAX;
        while left > 0 {
            match read(&self.socket, &mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(bytes) => left = left.saturating_sub(bytes),
            }
        }
    }
}

fn read(mut socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Address space of a reader's stack; what it does not use costs nothing.
pub(crate) const READER_STACK_BYTES: usize = 128 << 10;
const DISCARD_BYTES: usize = 4 << 10;
/// So much is read from a connection that is being closed, not more.
const DISCARDED_BYTES_MAX: usize = 256 << 10;
