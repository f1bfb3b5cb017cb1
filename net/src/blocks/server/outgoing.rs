//! What a connection is about to send: bytes that are ready, then part of a file.
//!
//! ```text
//! | bytes: frames, heads, short blocks | body: at ── sendfile ──▶ last | the last byte, once checked |
//! ```
//!
//! Long blocks go from the page cache to the socket (`sendfile`). Short ones are read into the bytes:
//! many of them, each with what is around it, leave with one call. Either way the last byte follows only
//! after the file was found to be the version that was opened.

use std::io;
use std::time::Instant;

use cordee_core::wire::block::SliceEnd;
use cordee_core::wire::{Message, Reason};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use socket2::Socket;

use super::files::OpenFile;
use super::rate::Rate;
use super::shared::Transfer;
use crate::sync::Arc;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    /// How many of them were taken by the kernel.
    sent: usize,
    body: Option<Body>,
    /// Bytes of files that the rate allows this connection.
    granted: u64,
    /// Bytes of files since [`take_moved`](Self::take_moved).
    moved: u64,
}

/// Bytes of a file up to one before the last, and how the last follows.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) file: Arc<OpenFile>,
    /// The next byte.
    pub(super) at: u64,
    /// The last byte.
    pub(super) last: u64,
    /// Whether the last byte comes in a frame of its own, or as it is.
    pub(super) framed: bool,
    /// Whether it is read into the bytes rather than sent from the page cache.
    pub(super) short: bool,
    /// Counted as a transfer for as long.
    pub(super) transfer: Option<Transfer>,
    /// The file ended early or could not be read: zeros fill the place up to the last byte, so that
    /// the frame which says why can be found.
    broken: Option<Reason>,
}

impl Body {
    pub(super) fn new(file: Arc<OpenFile>, at: u64, last: u64) -> Body {
        let (framed, short, transfer, broken) = (false, false, None, None);
        Body { file, at, last, framed, short, transfer, broken }
    }
}

/// What came of moving part of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Some of it, or nothing, and it can go on.
    Some,
    /// All of it; or why its last byte cannot follow.
    Whole(Result<(), Reason>),
    /// The socket takes no more.
    Full,
    /// The rate allows more at that time.
    Wait(Instant),
}

impl Outgoing {
    /// Where frames and heads are appended, behind what is there.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The body behind the bytes.
    pub(super) fn body(&self) -> Option<&Body> {
        self.body.as_ref()
    }

    /// Begins a body; there is none.
    pub(super) fn begin(&mut self, body: Body) {
        debug_assert!(self.body.is_none(), "one body after the other");
        self.body = Some(body);
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether the body goes by [`splice`](Self::splice).
    pub(super) fn is_long(&self) -> bool {
        self.body.as_ref().is_some_and(|body| !body.short && body.broken.is_none())
    }

    /// How many bytes of files were moved since this was last asked.
    pub(super) fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }

    /// Lends a buffer for the bytes, so that a connection which is not served owns none but for what
    /// waits.
    pub(super) fn lend(&mut self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(&self.bytes[self.sent..]);
        self.bytes = std::mem::take(buffer);
        self.sent = 0;
    }

    /// Gives the buffer back.
    pub(super) fn give_back(&mut self, buffer: &mut Vec<u8>) {
        let rest = self.bytes[self.sent..].to_vec();
        *buffer = std::mem::replace(&mut self.bytes, rest);
        buffer.clear();
        self.sent = 0;
    }

    /// Sends what is ready. Returns how many bytes the kernel took; fewer than wait mean that the
    /// socket is full.
    pub(super) fn flush(&mut self, socket: &Socket) -> io::Result<usize> {
        let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if self.is_long() {
            flags |= SendFlags::MORE;
        }
        let mut taken = 0;
        while self.sent < self.bytes.len() {
            match send(socket, &self.bytes[self.sent..], flags) {
                Ok(count) => {
                    self.sent += count;
                    taken += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(taken),
                Err(errno) => return Err(errno.into()),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(taken)
    }

    /// Sends part of a long body, at most `most` bytes, from the page cache.
    pub(super) fn splice(
        &mut self,
        socket: &Socket,
        rate: Option<&Rate>,
        most: u64,
        now: Instant,
    ) -> io::Result<Moved> {
        let Some(body) = &mut self.body else { return Ok(Moved::Some) };
        if body.at == body.last {
            return Ok(Moved::Whole(self.finish()));
        }
        let most = most.min(body.last - body.at);
        let most = match grant(&mut self.granted, rate, most, now) {
            Ok(most) => most,
            Err(at) => return Ok(Moved::Wait(at)),
        };
        let length = most.min(1 << 30) as usize;
        match rustix::fs::sendfile(socket, &body.file.handle, Some(&mut body.at), length) {
            Ok(0) => {
                body.broken = Some(Reason::FileChanged);
                Ok(Moved::Some)
            }
            Ok(count) => {
                self.granted = self.granted.saturating_sub(count as u64);
                self.moved += count as u64;
                Ok(Moved::Some)
            }
            Err(Errno::INTR) => Ok(Moved::Some),
            Err(Errno::AGAIN) => Ok(Moved::Full),
            // Of the socket, not of the file.
            Err(errno @ (Errno::PIPE | Errno::CONNRESET | Errno::TIMEDOUT | Errno::NOTCONN)) => {
                Err(errno.into())
            }
            Err(_) => {
                body.broken = Some(Reason::FileUnreadable);
                Ok(Moved::Some)
            }
        }
    }

    /// Reads part of a body into the bytes, so that `waiting` gets at most `most`.
    pub(super) fn copy(&mut self, rate: Option<&Rate>, most: usize, now: Instant) -> Moved {
        let room = most.saturating_sub(self.waiting()) as u64;
        let Some(body) = &mut self.body else { return Moved::Some };
        if body.broken.is_some() && !body.framed {
            return Moved::Whole(self.finish());
        }
        let left = body.last - body.at;
        let wanted = left.min(room.max(1));
        let wanted = match grant(&mut self.granted, rate, wanted, now) {
            Ok(wanted) => wanted,
            Err(at) => return Moved::Wait(at),
        };
        // The last byte comes with the others, and is kept back.
        let with_last = wanted == left;
        let begin = self.bytes.len();
        self.bytes.resize(begin + wanted as usize + usize::from(with_last), 0);
        let mut read = begin;
        while body.broken.is_none() && read < self.bytes.len() {
            let at = body.at + (read - begin) as u64;
            match rustix::io::pread(&body.file.handle, &mut self.bytes[read..], at) {
                Ok(0) => body.broken = Some(Reason::FileChanged),
                Ok(count) => read += count,
                Err(Errno::INTR) => {}
                Err(_) => body.broken = Some(Reason::FileUnreadable),
            }
        }
        self.granted = self.granted.saturating_sub(wanted);
        self.moved += wanted;
        body.at += wanted;
        if !with_last {
            return Moved::Some;
        }
        let last = self.bytes.pop().unwrap_or_default();
        Moved::Whole(self.finish_with(last))
    }

    /// The last byte of a body of which all others were sent.
    fn finish(&mut self) -> Result<(), Reason> {
        let Some(body) = &mut self.body else { return Ok(()) };
        let mut last = [0];
        if body.broken.is_none() {
            match rustix::io::pread(&body.file.handle, &mut last, body.last) {
                Ok(1) => {}
                Ok(_) => body.broken = Some(Reason::FileChanged),
                Err(_) => body.broken = Some(Reason::FileUnreadable),
            }
        }
        self.finish_with(last[0])
    }

    /// Looks whether the file is still the one that was opened; only then the last byte follows.
    fn finish_with(&mut self, last: u8) -> Result<(), Reason> {
        let Some(body) = self.body.take() else { return Ok(()) };
        if !body.file.is_unchanged() {
            return Err(Reason::FileChanged);
        }
        if let Some(reason) = body.broken {
            return Err(reason);
        }
        self.moved += 1;
        if body.framed {
            SliceEnd { last }.put_frame(&mut self.bytes);
        } else {
            self.bytes.push(last);
        }
        Ok(())
    }
}

/// How many of `wanted` bytes may be sent now.
fn grant(
    granted: &mut u64,
    rate: Option<&Rate>,
    wanted: u64,
    now: Instant,
) -> Result<u64, Instant> {
    let Some(rate) = rate else { return Ok(wanted) };
    if *granted == 0 && wanted > 0 {
        let (bytes, at) = rate.reserve(wanted, now);
        *granted = bytes;
        if at > now {
            return Err(at);
        }
    }
    Ok(wanted.min(*granted))
}
