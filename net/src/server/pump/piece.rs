//! What is on its way to one socket: pieces in order, and the account of what left.

use std::collections::VecDeque;
use std::ops::Range;

use cordee_core::framing::end_of_frame;
use cordee_core::log::Chunk;

use crate::sync::Arc;

/// Bytes that go out in one slice.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// So many bytes left already.
    pub(super) sent: usize,
    /// So many bytes are of the log: not counted as drained.
    pub(super) uncounted: usize,
    /// Whether the hub wants to know when the piece has left.
    pub(super) notify: bool,
}

/// Where the bytes of a piece are.
#[derive(Debug)]
pub(super) enum Bytes {
    /// Its own.
    Owned(Vec<u8>),
    /// In the log.
    Log(Arc<Chunk>, Range<usize>),
    /// In the pump's scratch buffer: until the end of the turn only.
    Scratch(Range<usize>),
}

impl Piece {
    /// What is still to be sent.
    pub(super) fn rest<'a>(&'a self, scratch: &'a [u8]) -> &'a [u8] {
        let all = match &self.bytes {
            Bytes::Owned(bytes) => bytes,
            Bytes::Log(chunk, range) => &chunk.frames()[range.clone()],
            Bytes::Scratch(range) => &scratch[range.clone()],
        };
        &all[self.sent..]
    }

    /// The rest of a frame that has left in part, as a piece of its own: nobody wants to know when
    /// it has left.
    pub(super) fn rest_of_frame(self) -> Option<Piece> {
        let all = match &self.bytes {
            Bytes::Owned(bytes) => &bytes[..],
            Bytes::Log(chunk, range) => &chunk.frames()[range.clone()],
            // It is there within a turn only.
            Bytes::Scratch(_) => return None,
        };
        let rest = all[self.sent..end_of_frame(all, self.sent)].to_vec();
        let uncounted = rest.len();
        let bytes = Bytes::Owned(rest);
        (uncounted > 0).then_some(Piece { bytes, sent: 0, uncounted, notify: false })
    }

    fn len(&self) -> usize {
        match &self.bytes {
            Bytes::Owned(bytes) => bytes.len(),
            Bytes::Log(_, range) | Bytes::Scratch(range) => range.len(),
        }
    }
}

/// What left, as far as the hub wants to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Left {
    /// Bytes that count as drained. Those that do not count are taken to leave first.
    pub(super) drained: u32,
    /// Pieces that the hub wants to know of.
    pub(super) notices: u32,
}

/// Takes `bytes` bytes off the front of `pieces`; whole pieces go, their buffers to `pool`.
pub(super) fn consume(pieces: &mut VecDeque<Piece>, mut bytes: usize, pool: &mut Pool) -> Left {
    let mut left = Left::default();
    while let Some(piece) = pieces.front_mut() {
        let taken = bytes.min(piece.len() - piece.sent);
        let counted = |sent: usize| sent.saturating_sub(piece.uncounted);
        left.drained += (counted(piece.sent + taken) - counted(piece.sent)) as u32;
        piece.sent += taken;
        bytes -= taken;
        if piece.sent < piece.len() {
            debug_assert_eq!(bytes, 0, "a piece is left only when nothing more was sent");
            break;
        }
        left.notices += u32::from(piece.notify);
        if let Some(Piece { bytes: Bytes::Owned(buffer), .. }) = pieces.pop_front() {
            pool.give(buffer);
        }
    }
    left
}

/// Gives every piece in the scratch buffer bytes of its own, those that are still to be sent.
pub(super) fn keep(pieces: &mut VecDeque<Piece>, scratch: &[u8], pool: &mut Pool) {
    for piece in pieces {
        if let Bytes::Scratch(range) = &piece.bytes {
            let mut own = pool.take();
            own.extend_from_slice(&scratch[range.clone()]);
            piece.bytes = Bytes::Owned(own);
        }
    }
}

/// Empty buffers, for their capacity.
#[derive(Debug, Default)]
pub(super) struct Pool(Vec<Vec<u8>>);

impl Pool {
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < POOLED_MAX && buffer.capacity() <= POOLED_BYTES_MAX {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

const POOLED_MAX: usize = 256;
const POOLED_BYTES_MAX: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_do_not_count_leave_first_and_notices_come_with_the_last_byte() {
        let mut pool = Pool::default();
        let owned = |len, uncounted, notify| Piece {
            bytes: Bytes::Owned(vec![0; len]),
            sent: 0,
            uncounted,
            notify,
        };
        let mut pieces = VecDeque::from([owned(10, 4, true), owned(5, 0, false)]);
        let left = |drained, notices| Left { drained, notices };
        assert_eq!(consume(&mut pieces, 3, &mut pool), left(0, 0));
        assert_eq!(consume(&mut pieces, 3, &mut pool), left(2, 0));
        assert_eq!(consume(&mut pieces, 6, &mut pool), left(6, 1));
        assert_eq!(consume(&mut pieces, 3, &mut pool), left(3, 0));
        assert!(pieces.is_empty());
    }
}
