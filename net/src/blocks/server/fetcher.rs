//! A connection that speaks our own protocol: frames in, answers out, in the order of the requests.

use cordee_core::framing::{Deframer, FRAME_BYTES_MAX, HEADER_BYTES, HELLO_BYTES_MAX, frames};
use cordee_core::wire::Reason;

use super::desk::Desk;
use super::outgoing::Outgoing;
use super::shared::Shared;
use super::talk::{Next, Serving};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Fetcher {
    deframer: Deframer,
    desk: Desk,
}

impl Fetcher {
    pub(super) fn new(shared: &Shared) -> Fetcher {
        Fetcher { deframer: Deframer::new(HELLO_BYTES_MAX), desk: Desk::new(shared) }
    }

    /// Whether its hello was accepted.
    pub(super) fn is_greeted(&self) -> bool {
        self.desk.is_greeted()
    }

    /// Whether part of a frame came, the rest of which is waited for.
    pub(super) fn is_amid_frame(&self) -> bool {
        self.deframer.is_mid_frame()
    }

    /// Where to put what comes next; none while so much waits that nothing more is read.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.wants_input() { self.deframer.space() } else { &mut [] }
    }

    /// Whether more may be read.
    pub(super) fn wants_input(&self) -> bool {
        self.desk.wants_input()
    }

    /// So many bytes were put there. Returns how many frames they made whole.
    pub(super) fn filled(&mut self, count: usize, shared: &Shared) -> u32 {
        self.deframer.filled(count);
        self.take_frames(shared)
    }

    /// Lets go of memory while nothing comes.
    pub(super) fn release(&mut self) {
        self.deframer.release();
    }

    /// The connection is to end with a reason, as soon as no block is amid being sent.
    pub(super) fn end(&mut self, reason: Reason) {
        self.desk.end(reason);
    }

    fn take_frames(&mut self, shared: &Shared) -> u32 {
        let mut taken = 0;
        while self.wants_input() {
            // A frame at a time: the hello changes what the next may be.
            let frame = match self.deframer.ready() {
                Ok(whole) => frames(whole).next(),
                Err(error) => {
                    let reason = if self.is_greeted() { error.into() } else { Reason::NotCordee };
                    self.end(reason);
                    break;
                }
            };
            let Some(frame) = frame else { break };
            let length = HEADER_BYTES + frame.payload.len();
            let greeted = self.is_greeted();
            if let Err(reason) = self.desk.on_frame(frame, shared) {
                self.end(reason);
            }
            if !greeted && self.is_greeted() {
                self.deframer.set_frame_bytes_max(FRAME_BYTES_MAX);
            }
            self.deframer.consume(length);
            taken += 1;
        }
        taken
    }

    /// Produces what is sent next, behind what waits; there is no body.
    pub(super) fn next(&mut self, serving: &mut Serving<'_>, out: &mut Outgoing) -> Next {
        let next = self.desk.next(serving, out);
        if matches!(next, Next::Some) {
            // There may be room now for what waited in the deframer.
            self.take_frames(serving.shared);
        }
        next
    }

    /// A body ended, with its last byte or without.
    pub(super) fn body_ended(&mut self, result: Result<(), Reason>) {
        if let Err(reason) = result {
            self.end(reason);
        }
    }
}
