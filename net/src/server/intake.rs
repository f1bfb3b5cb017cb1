//! Cuts one connection's stream into frames: bytes come in as they were read, whole frames leave,
//! and only the beginning of a frame that is not whole stays.

use cordee_core::framing::first_frame;
use cordee_core::wire::WireError;

/// See the module's documentation. Between frames it holds no memory.
#[derive(Debug)]
pub(crate) struct Intake {
    /// The beginning of a frame.
    tail: Vec<u8>,
    /// The longest frame that comes next, and those after it.
    frame_bytes_max: (usize, usize),
    error: Option<WireError>,
}

impl Intake {
    /// An intake whose first frame has at most `first_bytes_max`, and every other at most
    /// `frame_bytes_max` bytes.
    pub(crate) fn new(first_bytes_max: usize, frame_bytes_max: usize) -> Self {
        let frame_bytes_max = (first_bytes_max, frame_bytes_max);
        Intake { tail: Vec::new(), frame_bytes_max, error: None }
    }

    /// Takes bytes as they came and gives the frames that are whole by now. After an error it
    /// takes and gives nothing.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.tail.is_empty() {
            let whole = self.scan(bytes);
            if self.error.is_none() {
                self.tail.extend_from_slice(&bytes[whole..]);
            }
            return bytes[..whole].to_vec();
        }
        let mut all = std::mem::take(&mut self.tail);
        all.extend_from_slice(bytes);
        let whole = self.scan(&all);
        if whole == 0 && self.error.is_none() {
            // However slowly a frame comes, each of its bytes is copied a few times at the most.
            self.tail = all;
            return Vec::new();
        }
        let tail = all.split_off(whole);
        if self.error.is_none() {
            self.tail = tail;
        }
        all
    }

    /// How much is held of a frame that is not whole.
    pub(crate) fn begun_bytes(&self) -> usize {
        self.tail.len()
    }

    /// What made the stream unreadable, after its whole frames.
    pub(crate) fn error(&self) -> Option<WireError> {
        self.error
    }

    /// Up to where there are whole frames.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        let mut whole = 0;
        while self.error.is_none() {
            let (next, others) = self.frame_bytes_max;
            match first_frame(&bytes[whole..], next) {
                Ok(Some(length)) => {
                    whole += length;
                    self.frame_bytes_max = (others, others);
                }
                Ok(None) => break,
                Err(error) => self.error = Some(error),
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cordee_core::framing::{FRAME_BYTES_MAX, frames, put_frame};

    /// What comes out when `stream` comes in pieces of `step`.
    fn read(intake: &mut Intake, stream: &[u8], step: usize) -> Vec<(u8, Vec<u8>)> {
        let mut got = Vec::new();
        for piece in stream.chunks(step) {
            let whole = intake.take(piece);
            got.extend(frames(&whole).map(|f| (f.kind, f.payload.to_vec())));
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
        let expected = read(&mut whole, &bytes, bytes.len());
        assert_eq!(expected.len(), 8);
        for step in [1, 2, 3, 7, 1_000, 1_024, 4_096, 65_536] {
            let mut intake = Intake::new(FRAME_BYTES_MAX, FRAME_BYTES_MAX);
            assert_eq!(read(&mut intake, &bytes, step), expected, "pieces of {step}");
            assert!(intake.begun_bytes() == 0);
            assert_eq!(intake.tail.capacity(), 0, "between frames it holds no memory");
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
        assert!(intake.begun_bytes() == 0);
    }

    #[test]
    fn after_an_error_nothing_is_kept() {
        let mut intake = Intake::new(20, 20);
        let mut bytes = stream(&[3]);
        bytes.extend_from_slice(&[0; 4]);
        assert_eq!(intake.take(&bytes), stream(&[3]));
        assert_eq!(intake.error(), Some(WireError::EmptyFrame));
        assert!(intake.take(&[1; 1_000]).is_empty());
        assert_eq!(intake.tail.capacity(), 0);
    }
}
