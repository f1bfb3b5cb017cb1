//! The buffer of a reader: bytes come in at its end, whole frames leave with it.
//!
//! Frames are found in place. When a batch is handed over, the buffer goes with it, and only the
//! beginning of the frame that is not whole yet moves to the next buffer.

use cordee_core::framing::first_frame;
use cordee_core::wire::WireError;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Its length is what may be read into; the bytes after `filled` mean nothing.
    buffer: Vec<u8>,
    filled: usize,
    /// Up to here there are whole frames.
    whole: usize,
    /// The longest frame that comes next, and those after it.
    frame_bytes_max: (usize, usize),
    error: Option<WireError>,
    /// How long the next buffer is to be.
    target: usize,
    /// Reads in a row that used little of the buffer.
    small_reads: u32,
}

impl Intake {
    /// An intake whose first frame has at most `first_bytes_max`, and every other at most
    /// `frame_bytes_max` bytes.
    pub(crate) fn new(first_bytes_max: usize, frame_bytes_max: usize) -> Self {
        debug_assert!(first_bytes_max.max(frame_bytes_max) <= BUFFER_BYTES_MAX);
        Intake {
            buffer: Vec::new(),
            filled: 0,
            whole: 0,
            frame_bytes_max: (first_bytes_max, frame_bytes_max),
            error: None,
            target: BUFFER_BYTES_MIN,
            small_reads: 0,
        }
    }

    /// Where to read to. Never empty: whole frames are taken out before more is read, and the
    /// longest frame is shorter than the longest buffer.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.filled == self.buffer.len() {
            let len = (self.buffer.len() * 2).clamp(self.target, BUFFER_BYTES_MAX);
            // `resize` alone may reserve up to twice as much.
            self.buffer.reserve_exact(len - self.filled);
            self.buffer.resize(len, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// Takes note of `bytes` that were read into the space.
    pub(crate) fn filled(&mut self, bytes: usize) {
        self.adapt(bytes);
        self.filled += bytes;
        while self.error.is_none() {
            let (next, others) = self.frame_bytes_max;
            match first_frame(&self.buffer[self.whole..self.filled], next) {
                Ok(Some(length)) => {
                    self.whole += length;
                    self.frame_bytes_max = (others, others);
                }
                Ok(None) => return,
                Err(error) => self.error = Some(error),
            }
        }
    }

    /// Bytes of whole frames.
    pub(crate) fn whole(&self) -> usize {
        self.whole
    }

    /// Whether a frame has begun and is not whole.
    pub(crate) fn is_mid_frame(&self) -> bool {
        self.error.is_none() && self.whole < self.filled
    }

    /// What made the stream unreadable, after its whole frames.
    pub(crate) fn error(&self) -> Option<WireError> {
        self.error
    }

    /// Hands over the buffer, whose first [`whole`](Self::whole) bytes are whole frames, and goes
    /// on with `spare`.
    pub(crate) fn swap(&mut self, mut spare: Vec<u8>) -> Vec<u8> {
        let rest = self.filled - self.whole;
        let len = self.target.max(rest);
        if spare.len() > len {
            spare.truncate(len);
            spare.shrink_to_fit();
        } else if spare.len() < len {
            spare.reserve_exact(len - spare.len());
            spare.resize(len, 0);
        }
        spare[..rest].copy_from_slice(&self.buffer[self.whole..self.filled]);
        (self.filled, self.whole) = (rest, 0);
        core::mem::replace(&mut self.buffer, spare)
    }

    /// A read that fills the buffer asks for a longer one; many that hardly use it, for a shorter.
    fn adapt(&mut self, bytes: usize) {
        if self.filled + bytes == self.buffer.len() {
            self.target = (self.target * 2).min(BUFFER_BYTES_MAX);
            self.small_reads = 0;
        } else if self.filled + bytes < self.target / 8 {
            self.small_reads += 1;
            if self.small_reads == SMALL_READS {
                self.target = BUFFER_BYTES_MIN;
                self.small_reads = 0;
            }
        } else {
            self.small_reads = 0;
        }
    }
}

/// A buffer at first: enough for what people type.
const BUFFER_BYTES_MIN: usize = 1 << 10;
/// The longest buffer: it takes the longest frame.
pub(crate) const BUFFER_BYTES_MAX: usize = 64 << 10;
/// After so many small reads a buffer that has grown is given up.
const SMALL_READS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use cordee_core::framing::{FRAME_BYTES_MAX, frames, put_frame};

    /// What comes out when `stream` is read in pieces of `step`, and the length of the buffer.
    fn read(intake: &mut Intake, stream: &[u8], step: usize) -> Vec<(u8, Vec<u8>)> {
        let mut got = Vec::new();
        let mut spare = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() && intake.error().is_none() {
            let space = intake.space();
            assert!(!space.is_empty());
            let taken = step.min(rest.len()).min(space.len());
            space[..taken].copy_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            intake.filled(taken);
            if intake.whole() > 0 {
                let whole = intake.whole();
                let batch = intake.swap(spare);
                got.extend(frames(&batch[..whole]).map(|f| (f.kind, f.payload.to_vec())));
                spare = batch;
            }
        }
        got
    }

    fn stream(lengths: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, length) in lengths.iter().enumerate() {
            put_frame(&mut bytes, kind as u8, |out| out.resize(out.len() + length, kind as u8));
        }
        bytes
    }

    #[test]
    fn every_split_gives_the_same_frames() {
        let bytes = stream(&[3, 0, 5_000, 1, 60_000, 2_000, 65_514, 9]);
        let mut whole = Intake::new(FRAME_BYTES_MAX, FRAME_BYTES_MAX);
        let expected = read(&mut whole, &bytes, usize::MAX);
        assert_eq!(expected.len(), 8);
        for step in [1, 2, 3, 7, 1_000, 1_024, 4_096, 65_536] {
            let mut intake = Intake::new(FRAME_BYTES_MAX, FRAME_BYTES_MAX);
            assert_eq!(read(&mut intake, &bytes, step), expected, "pieces of {step}");
            assert!(!intake.is_mid_frame());
            assert!(intake.buffer.capacity() <= BUFFER_BYTES_MAX);
        }
    }

    #[test]
    fn only_the_first_frame_has_the_first_limit() {
        let mut intake = Intake::new(20, 1_000);
        assert_eq!(read(&mut intake, &stream(&[15, 900]), 7).len(), 2);
        assert_eq!(intake.error(), None);
        let mut intake = Intake::new(20, 1_000);
        assert_eq!(read(&mut intake, &stream(&[16]), 7).len(), 0);
        assert_eq!(intake.error(), Some(WireError::FrameTooLong));
        let mut intake = Intake::new(20, 1_000);
        assert_eq!(read(&mut intake, &stream(&[1, 1_000]), 700).len(), 1);
        assert_eq!(intake.error(), Some(WireError::FrameTooLong));
        assert!(!intake.is_mid_frame());
    }

    #[test]
    fn a_buffer_grows_under_load_and_shrinks_when_little_comes() {
        let mut intake = Intake::new(FRAME_BYTES_MAX, FRAME_BYTES_MAX);
        assert_eq!(intake.space().len(), BUFFER_BYTES_MIN);
        read(&mut intake, &stream(&[50_000; 20]), usize::MAX);
        assert_eq!(intake.target, BUFFER_BYTES_MAX);
        read(&mut intake, &stream(&[30; 400]), 35);
        assert_eq!(intake.target, BUFFER_BYTES_MIN);
        assert!(intake.buffer.capacity() <= BUFFER_BYTES_MIN * 2);
    }
}
