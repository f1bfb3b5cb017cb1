//! What a relay does to the bytes of one direction of a connection.

use std::time::Duration;

use cordee_core::prng::Prng;

/// How bytes travel in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lane {
    /// Nothing gets through; what is sent waits, and arrives when this ends.
    pub stalled: bool,
    /// How long each piece that was read is held.
    pub delay: Duration,
    /// Written one byte at a time.
    pub dribbles: bool,
    /// The header of the next frame is overwritten with a length that cannot be.
    pub garbled: bool,
}

/// Follows the frames of a stream, so that harm can be done where the receiver must notice it.
///
/// A flipped bit inside a frame that stays a valid frame is for a checksum to find: TCP has one.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    header: [u8; 4],
    header_bytes: usize,
    left: u64,
}

impl Framing {
    /// Passes over bytes that are about to be sent. With `garble` the first header that begins
    /// among them is spoilt; returns whether there was one. What follows it is no stream of frames
    /// any more.
    pub(crate) fn pass(&mut self, bytes: &mut [u8], mut garble: Option<&mut Prng>) -> bool {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let step = self.left.min((bytes.len() - at) as u64);
                self.left -= step;
                at += step as usize;
                continue;
            }
            if let Some(draw) = garble.as_mut().filter(|_| self.header_bytes == 0) {
                // 16 MiB at the least: longer than any frame may be.
                bytes[at] = 1 + draw.below(255) as u8;
                return true;
            }
            self.header[self.header_bytes] = bytes[at];
            self.header_bytes += 1;
            at += 1;
            if self.header_bytes == self.header.len() {
                self.header_bytes = 0;
                self.left = u32::from_be_bytes(self.header).into();
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cordee_core::framing::put_frame;

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        for length in [0, 3, 300, 1] {
            put_frame(&mut bytes, 7, |out| out.resize(out.len() + length, 9));
        }
        bytes
    }

    #[test]
    fn undisturbed_bytes_pass_as_they_are_in_any_pieces() {
        for step in [1, 2, 5, 64, 1_000] {
            let mut framing = Framing::default();
            for piece in stream().chunks(step) {
                let mut copy = piece.to_vec();
                assert!(!framing.pass(&mut copy, None));
                assert_eq!(copy, piece);
            }
            assert_eq!((framing.left, framing.header_bytes), (0, 0), "it ends between frames");
        }
    }

    #[test]
    fn harm_is_done_to_the_first_byte_of_a_frame_only() {
        let mut framing = Framing::default();
        let bytes = stream();
        // The second frame begins behind 5 bytes; this piece ends within its payload.
        assert!(!framing.pass(&mut bytes[..11].to_vec(), None));
        let mut rest = bytes[11..].to_vec();
        assert!(framing.pass(&mut rest, Some(&mut Prng::new(1))));
        assert_eq!(rest[..2], bytes[11..13], "the rest of the frame under way is whole");
        assert_ne!(rest[2], 0);
        assert_eq!(rest[3..], bytes[14..]);
    }
}
