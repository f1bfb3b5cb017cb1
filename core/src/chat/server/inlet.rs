//! The way into a server: bytes as they come, inputs as the machine wants them.

use super::{Input, begun_bytes};
use crate::framing::{Deframer, frames};
use crate::ids::ConnId;
use crate::limits::Limits;

/// What is read from one connection, for a driver that reads and handles in one thread.
///
/// Read into [`space`](Self::space), say [`filled`](Self::filled), then give the machine the
/// [`inputs`](Self::inputs).
#[derive(Debug)]
pub struct Inlet {
    conn: ConnId,
    deframer: Deframer,
    frame_bytes_max: usize,
    /// What was last said of a frame that is not whole.
    begun: u32,
    broken: bool,
}

impl Inlet {
    /// For a connection that was accepted: its first frame, the hello, is shorter than the others
    /// may be.
    #[must_use]
    pub fn accepted(conn: ConnId, limits: &Limits) -> Self {
        Inlet::new(conn, limits.hello_bytes_max, limits)
    }

    /// For a connection that the machine dialled.
    #[must_use]
    pub fn dialled(conn: ConnId, limits: &Limits) -> Self {
        Inlet::new(conn, limits.frame_bytes_max, limits)
    }

    fn new(conn: ConnId, first_bytes_max: u32, limits: &Limits) -> Self {
        let deframer = Deframer::new(first_bytes_max as usize);
        let frame_bytes_max = limits.frame_bytes_max as usize;
        Inlet { conn, deframer, frame_bytes_max, begun: 0, broken: false }
    }

    /// Where to put the bytes that come next; empty when the stream is broken and to be read no
    /// more.
    pub fn space(&mut self) -> &mut [u8] {
        self.deframer.space()
    }

    /// The first `count` bytes of the space are bytes that came.
    pub fn filled(&mut self, count: usize) {
        self.deframer.filled(count);
    }

    /// Takes bytes as they came, by copying them.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.deframer.extend(bytes);
    }

    /// Gives what came, in order. What comes after the machine closed the connection misses: the
    /// id is void.
    pub fn inputs(&mut self, mut give: impl FnMut(Input<'_>)) {
        let conn = self.conn;
        if self.deframer.ready().is_ok_and(|whole| !whole.is_empty()) {
            // The hello is there: what follows it may be longer.
            self.deframer.set_frame_bytes_max(self.frame_bytes_max);
        }
        let whole = self.deframer.ready().map_or(0, |whole| {
            if !whole.is_empty() && core::mem::take(&mut self.begun) > 0 {
                give(Input::MidFrame { conn, bytes: 0 });
            }
            frames(whole).for_each(|frame| give(Input::Frame { conn, frame }));
            whole.len()
        });
        self.deframer.consume(whole);
        let begun = begun_bytes(self.deframer.begun_bytes());
        if begun != core::mem::replace(&mut self.begun, begun) {
            give(Input::MidFrame { conn, bytes: begun });
        }
        self.deframer.release();
        if let (Err(error), false) = (self.deframer.ready(), self.broken) {
            self.broken = true;
            give(Input::Broken { conn, error });
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::framing::put_frame;
    use crate::ids::ConnId;
    use crate::wire::WireError;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Given {
        Frame(u8, usize),
        MidFrame(bool),
        Broken(WireError),
    }

    fn given(inlet: &mut Inlet, bytes: &[u8]) -> Vec<Given> {
        let mut given = Vec::new();
        inlet.extend(bytes);
        inlet.inputs(|input| {
            given.push(match input {
                Input::Frame { frame, .. } => Given::Frame(frame.kind, frame.payload.len()),
                Input::MidFrame { bytes, .. } => Given::MidFrame(bytes > 0),
                Input::Broken { error, .. } => Given::Broken(error),
                _ => unreachable!("nothing else comes of bytes"),
            });
        });
        given
    }

    fn frame(kind: u8, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, kind, |out| out.resize(out.len() + len, kind));
        bytes
    }

    fn inlet() -> Inlet {
        let conn = ConnId { index: 1, generation: 1 };
        Inlet::accepted(conn, &Limits { hello_bytes_max: 100, ..Limits::default() })
    }

    #[test]
    fn a_long_frame_is_taken_after_the_first_and_never_as_the_first() {
        let mut bytes = frame(1, 50);
        bytes.extend(frame(2, 1_000));
        assert_eq!(given(&mut inlet(), &bytes), [Given::Frame(1, 50), Given::Frame(2, 1_000)]);
        let broken = [Given::Broken(WireError::FrameTooLong)];
        let mut inlet = inlet();
        assert_eq!(given(&mut inlet, &frame(2, 1_000)), broken);
        assert_eq!(given(&mut inlet, &frame(1, 50)), [], "that is said once");
        assert!(inlet.space().is_empty());
    }

    #[test]
    fn a_frame_that_has_begun_is_told_once_and_anew_for_the_next() {
        let (mut inlet, bytes) = (inlet(), frame(1, 50));
        assert_eq!(given(&mut inlet, &bytes[..10]), [Given::MidFrame(true)]);
        assert_eq!(given(&mut inlet, &bytes[10..20]), []);
        let mut rest = bytes[20..].to_vec();
        rest.extend(&bytes[..7]);
        let all = [Given::MidFrame(false), Given::Frame(1, 50), Given::MidFrame(true)];
        assert_eq!(given(&mut inlet, &rest), all);
        assert_eq!(given(&mut inlet, &bytes[7..]), [Given::MidFrame(false), Given::Frame(1, 50)]);
    }
}
