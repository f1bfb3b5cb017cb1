//! Frames on a byte stream: a length of four bytes, a kind, a payload.
//!
//! ```text
//! | length: u32, big endian | kind: u8 | payload: length − 1 bytes |
//! ```
//!
//! The length counts kind and payload. It is checked before a byte of the payload is looked at,
//! and reserves nothing: a buffer grows only as bytes arrive.

use alloc::vec::Vec;

use byteorder::{BigEndian, ByteOrder};

use crate::wire::WireError;

/// Bytes before the payload of a frame: length and kind.
pub const HEADER_BYTES: usize = 5;

/// The greatest frame, header and all: it fits one encrypted message of 65 535 bytes with its
/// proof of 16 (Noise Protocol Framework, revision 34, section 3).
pub const FRAME_BYTES_MAX: usize = 65_519;

/// The greatest first frame of a connection, before its hello was accepted.
pub const HELLO_BYTES_MAX: usize = 256;

/// Appends a frame of `kind`; `payload` writes its payload.
///
/// Panics when the frame would be longer than [`FRAME_BYTES_MAX`]: the caller splits its lists.
pub fn put_frame(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    payload(out);
    let length = out.len() - start;
    assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes (kind {kind:#04x})");
    BigEndian::write_u32(&mut out[start..start + 4], (length - 4) as u32);
}

/// One frame, borrowed from the bytes in which it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// What the payload is.
    pub kind: u8,
    /// The payload.
    pub payload: &'a [u8],
}

/// Looks at the first frame of `bytes`: its whole length when it is complete.
///
/// # Errors
///
/// [`WireError::EmptyFrame`] for a length of 0, [`WireError::FrameTooLong`] for a frame of more
/// than `frame_bytes_max` bytes, both as soon as the length is there.
pub fn first_frame(bytes: &[u8], frame_bytes_max: usize) -> Result<Option<usize>, WireError> {
    if bytes.len() < 4 {
        return Ok(None);
    }
    let length = BigEndian::read_u32(bytes) as usize;
    if length == 0 {
        return Err(WireError::EmptyFrame);
    }
    if length > frame_bytes_max - 4 {
        return Err(WireError::FrameTooLong);
    }
    Ok((bytes.len() >= length + 4).then_some(length + 4))
}

/// The frames of `bytes`, which must hold whole, valid frames only, as [`Deframer::ready`] gives.
#[must_use]
pub fn frames(bytes: &[u8]) -> Frames<'_> {
    Frames { rest: bytes }
}

/// Iterator over whole frames.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        if self.rest.len() < HEADER_BYTES {
            debug_assert!(self.rest.is_empty(), "whole frames only");
            return None;
        }
        let end = BigEndian::read_u32(self.rest) as usize + 4;
        let (frame, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(Frame { kind: frame[4], payload: &frame[HEADER_BYTES..] })
    }
}

/// Cuts a stream into frames without copying: bytes come in at the end of one buffer, whole
/// frames leave at its front.
///
/// After an error it is dead: it takes no more bytes and gives the same error again.
///
/// ```
/// use cordee_core::framing::{Deframer, frames, put_frame};
/// let mut stream = Vec::new();
/// put_frame(&mut stream, 7, |payload| payload.extend_from_slice(b"abc"));
/// let mut deframer = Deframer::new(64);
/// deframer.extend(&stream[..6]);
/// assert_eq!(deframer.ready().unwrap(), b"");
/// deframer.extend(&stream[6..]);
/// let whole = deframer.ready().unwrap();
/// assert_eq!(frames(whole).next().unwrap().payload, b"abc");
/// let taken = whole.len();
/// deframer.consume(taken);
/// ```
#[derive(Debug)]
pub struct Deframer {
    buffer: Vec<u8>,
    /// Up to here everything was handed out and consumed.
    consumed: usize,
    /// Up to here there are whole frames.
    whole: usize,
    frame_bytes_max: usize,
    error: Option<WireError>,
}

impl Deframer {
    /// A deframer that refuses frames of more than `frame_bytes_max` bytes.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Self {
        Deframer { buffer: Vec::new(), consumed: 0, whole: 0, frame_bytes_max, error: None }
    }

    /// Allows frames of up to `frame_bytes_max` bytes from now on.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Takes bytes as they came. Does nothing after an error.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.error.is_some() {
            return;
        }
        self.compact();
        self.buffer.extend_from_slice(bytes);
        self.scan();
    }

    /// The whole frames that are there and not yet consumed.
    ///
    /// # Errors
    ///
    /// The stream's error, once the frames before it were consumed.
    pub fn ready(&self) -> Result<&[u8], WireError> {
        match self.error {
            Some(error) if self.whole == self.consumed => Err(error),
            _ => Ok(&self.buffer[self.consumed..self.whole]),
        }
    }

    /// Lets go of the first `bytes` bytes of what [`ready`](Self::ready) gave: whole frames.
    pub fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.whole - self.consumed, "only what was ready can be consumed");
        self.consumed += bytes;
        // A limit may have been raised in between (the hello was accepted).
        self.scan();
    }

    /// Whether a frame has begun that is not whole yet.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.error.is_none() && self.whole < self.buffer.len()
    }

    fn scan(&mut self) {
        if self.error.is_some() {
            return;
        }
        loop {
            match first_frame(&self.buffer[self.whole..], self.frame_bytes_max) {
                Ok(Some(length)) => self.whole += length,
                Ok(None) => return,
                Err(error) => {
                    self.error = Some(error);
                    return;
                }
            }
        }
    }

    /// Moves what is left to the front, only when at least as much was consumed: linear work.
    fn compact(&mut self) {
        let left = self.buffer.len() - self.consumed;
        if self.consumed >= left {
            self.buffer.copy_within(self.consumed.., 0);
            self.buffer.truncate(left);
            self.whole -= self.consumed;
            self.consumed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, length) in [(1, 0), (2, 1), (3, 250), (4, 3)] {
            put_frame(&mut bytes, kind, |out| out.resize(out.len() + length, kind));
        }
        bytes
    }

    fn collect(deframer: &mut Deframer, into: &mut Vec<(u8, Vec<u8>)>) -> Result<(), WireError> {
        let whole = deframer.ready()?;
        into.extend(frames(whole).map(|frame| (frame.kind, frame.payload.to_vec())));
        let taken = whole.len();
        deframer.consume(taken);
        Ok(())
    }

    #[test]
    fn every_split_gives_the_same_frames() {
        let bytes = stream();
        let mut expected = Vec::new();
        let mut whole = Deframer::new(FRAME_BYTES_MAX);
        whole.extend(&bytes);
        collect(&mut whole, &mut expected).expect("valid");
        assert_eq!(expected.len(), 4);
        for step in 1..bytes.len() {
            let mut deframer = Deframer::new(FRAME_BYTES_MAX);
            let mut got = Vec::new();
            for piece in bytes.chunks(step) {
                deframer.extend(piece);
                collect(&mut deframer, &mut got).expect("valid");
            }
            assert_eq!(got, expected, "pieces of {step}");
            assert!(!deframer.is_mid_frame());
        }
    }

    #[test]
    fn a_bad_length_is_an_error_after_the_good_frames_and_kills_the_deframer() {
        for (length, error) in [
            (0_u32, WireError::EmptyFrame),
            (u32::MAX, WireError::FrameTooLong),
            (253, WireError::FrameTooLong),
        ] {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, 9, |_| ());
            bytes.extend_from_slice(&length.to_be_bytes());
            let mut deframer = Deframer::new(HELLO_BYTES_MAX);
            deframer.extend(&bytes);
            let mut got = Vec::new();
            collect(&mut deframer, &mut got).expect("the good frame first");
            assert_eq!(got, [(9, Vec::new())]);
            deframer.extend(&[0; 1000]);
            assert_eq!(deframer.ready(), Err(error));
            assert!(deframer.buffer.len() < 100, "a dead deframer takes no more bytes");
        }
    }

    #[test]
    fn a_length_reserves_nothing() {
        let mut deframer = Deframer::new(FRAME_BYTES_MAX);
        deframer.extend(&60_000_u32.to_be_bytes());
        assert!(deframer.buffer.capacity() < 1_000);
        assert!(deframer.is_mid_frame());
    }

    #[test]
    fn the_longest_frame_passes_and_one_byte_more_does_not() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 1, |out| out.resize(FRAME_BYTES_MAX, 0));
        assert_eq!(first_frame(&bytes, FRAME_BYTES_MAX), Ok(Some(FRAME_BYTES_MAX)));
        assert_eq!(first_frame(&bytes, FRAME_BYTES_MAX - 1), Err(WireError::FrameTooLong));
    }
}
