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

/// What a [`Deframer`] begins with, in bytes, as soon as it is asked for space.
pub const BUFFER_BYTES_MIN: usize = 4 << 10;
/// What a [`Deframer`] grows to, in bytes, when reads keep filling it: the greatest frame fits.
pub const BUFFER_BYTES_MAX: usize = 64 << 10;

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
    if length > frame_bytes_max.saturating_sub(4) {
        return Err(WireError::FrameTooLong);
    }
    Ok((bytes.len() >= length + 4).then_some(length + 4))
}

/// The frames of `bytes`, which must hold whole, valid frames only, as [`Deframer::ready`] gives.
#[must_use]
pub fn frames(bytes: &[u8]) -> Frames<'_> {
    Frames { rest: bytes }
}

/// Where in `bytes`, whole frames, the frame ends of which the byte before `at` is a part; 0 when
/// there is none before it.
#[must_use]
pub fn end_of_frame(bytes: &[u8], at: usize) -> usize {
    let mut end = 0;
    while end < at {
        match first_frame(&bytes[end..], usize::MAX) {
            Ok(Some(length)) => end += length,
            _ => return bytes.len(),
        }
    }
    end
}

/// Iterator over whole frames.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let Ok(Some(end)) = first_frame(self.rest, usize::MAX) else {
            debug_assert!(self.rest.is_empty(), "whole frames only");
            return None;
        };
        let (frame, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(Frame { kind: frame[4], payload: &frame[HEADER_BYTES..] })
    }
}

/// Cuts a stream into frames without copying: bytes come in at the end of one buffer, whole
/// frames leave at its front.
///
/// ```text
///             consumed          whole              filled            end
/// | gone      | whole frames    | part of a frame  | space for more  |
///               └── ready()       └── is_mid_frame() └── space()
/// ```
///
/// A frame's length is judged when the frame stands at the front, by the limit of that moment: a
/// first frame can come together with longer ones that only its acceptance allows. After an error
/// the deframer is dead: it holds nothing, takes no more bytes and gives the same error again.
///
/// Whoever consumes all that is ready before taking in more has linear work, however small the
/// pieces, and a buffer of at most [`BUFFER_BYTES_MAX`] bytes, at most twice what came and
/// [`BUFFER_BYTES_MIN`].
///
/// ```
/// use cordee_core::framing::{Deframer, frames, put_frame};
/// let mut stream = Vec::new();
/// put_frame(&mut stream, 7, |payload| payload.extend_from_slice(b"abc"));
/// let mut socket = &stream[..];
/// let mut deframer = Deframer::new(64);
/// let count = std::io::Read::read(&mut socket, deframer.space()).unwrap();
/// deframer.filled(count);
/// let whole = deframer.ready().unwrap();
/// assert_eq!(frames(whole).next().unwrap().payload, b"abc");
/// let taken = whole.len();
/// deframer.consume(taken);
/// ```
#[derive(Debug)]
pub struct Deframer {
    /// All of it is initialised, so that it can be lent out to be read into.
    buffer: Vec<u8>,
    /// Up to here everything was handed out and consumed.
    consumed: usize,
    /// Up to here there are whole frames.
    whole: usize,
    /// Up to here there are bytes that came.
    filled: usize,
    /// How long the buffer is to be next time: it follows what single reads bring.
    target: usize,
    frame_bytes_max: usize,
    error: Option<WireError>,
}

impl Deframer {
    /// A deframer that refuses frames of more than `frame_bytes_max` bytes. It allocates nothing
    /// before it is asked for space.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Self {
        Deframer {
            buffer: Vec::new(),
            consumed: 0,
            whole: 0,
            filled: 0,
            target: BUFFER_BYTES_MIN,
            frame_bytes_max,
            error: None,
        }
    }

    /// Allows frames of up to `frame_bytes_max` bytes from now on. To be said before the frame
    /// that brought the change is consumed: then what follows it is judged anew.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
        self.scan();
    }

    /// Where to put the bytes that come next: at least one, none after an error.
    /// [`filled`](Self::filled) says how many came.
    pub fn space(&mut self) -> &mut [u8] {
        if self.error.is_some() {
            return &mut [];
        }
        self.compact();
        if self.filled == 0 && self.target < self.buffer.len() {
            self.buffer.truncate(self.target);
            self.buffer.shrink_to_fit();
        }
        if self.filled == self.buffer.len() {
            self.target = self.target.max(2 * self.filled).max(BUFFER_BYTES_MIN);
        }
        if self.buffer.len() < self.target {
            self.buffer.reserve_exact(self.target - self.buffer.len());
            self.buffer.resize(self.target, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// The first `count` bytes of the [`space`](Self::space) are bytes that came. Does nothing
    /// after an error.
    ///
    /// Panics when `count` is more than there was space for.
    pub fn filled(&mut self, count: usize) {
        if self.error.is_some() {
            return;
        }
        let space = self.buffer.len() - self.filled;
        assert!(count <= space, "{count} bytes were read into a space of {space}");
        self.filled += count;
        if count == space {
            // More is waiting, for all we know.
            self.target = (2 * self.buffer.len()).min(BUFFER_BYTES_MAX).max(self.target);
        } else if count < self.target / 4 {
            self.target = (self.target / 2).max(BUFFER_BYTES_MIN);
        }
        self.scan();
    }

    /// Takes bytes as they came, by copying them. Does nothing after an error.
    pub fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.error.is_none() {
            let space = self.space();
            let (now, later) = bytes.split_at(bytes.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            self.filled(now.len());
            bytes = later;
        }
    }

    /// The whole frames that are there and not yet consumed.
    ///
    /// # Errors
    ///
    /// The stream's error, once the frames before it were consumed.
    pub fn ready(&self) -> Result<&[u8], WireError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(&self.buffer[self.consumed..self.whole]),
        }
    }

    /// Lets go of the first `bytes` bytes of what [`ready`](Self::ready) gave: whole frames.
    pub fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.whole - self.consumed, "only what was ready can be consumed");
        self.consumed += bytes;
        self.scan();
    }

    /// Whether a frame has begun that is not whole yet.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.whole < self.filled
    }

    /// How many bytes have come of a frame that is not whole.
    #[must_use]
    pub fn begun_bytes(&self) -> usize {
        self.filled - self.whole
    }

    /// Lets go of the buffer when nothing is in it: so that a connection which is silent takes no
    /// memory, for those who copy what they read anyway ([`extend`](Self::extend)).
    pub fn release(&mut self) {
        if self.consumed == self.filled {
            (self.consumed, self.whole, self.filled) = (0, 0, 0);
            self.buffer = Vec::new();
        }
    }

    /// Bytes of memory that the buffer takes now.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Finds the end of the whole frames.
    fn scan(&mut self) {
        loop {
            match first_frame(&self.buffer[self.whole..self.filled], self.frame_bytes_max) {
                Ok(Some(length)) => self.whole += length,
                Ok(None) => return,
                Err(error) => {
                    if self.whole == self.consumed {
                        self.die(error);
                    }
                    return;
                }
            }
        }
    }

    fn die(&mut self, error: WireError) {
        *self = Deframer { error: Some(error), ..Deframer::new(self.frame_bytes_max) };
    }

    /// Moves what is left to the front: when it is only the part of a frame, which is moved once
    /// and then stays in front until it is whole, or when at least as much was consumed. Returns
    /// how many bytes were moved.
    fn compact(&mut self) -> usize {
        let left = self.filled - self.consumed;
        if self.consumed == 0 || (self.whole > self.consumed && self.consumed < left) {
            return 0;
        }
        self.buffer.copy_within(self.consumed..self.filled, 0);
        self.whole -= self.consumed;
        self.filled = left;
        self.consumed = 0;
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, length) in [(1, 0), (2, 1), (3, 250), (4, 9_000), (5, 3), (6, 60_000), (7, 0)] {
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

    /// Puts `bytes` in as one read would, as far as there is space.
    fn read(deframer: &mut Deframer, bytes: &[u8]) -> usize {
        let space = deframer.space();
        let count = bytes.len().min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        deframer.filled(count);
        count
    }

    #[test]
    fn every_split_gives_the_same_frames() {
        let bytes = stream();
        let mut expected = Vec::new();
        let mut whole = Deframer::new(FRAME_BYTES_MAX);
        whole.extend(&bytes);
        collect(&mut whole, &mut expected).expect("valid");
        assert_eq!(
            expected.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6, 7]
        );
        for step in (1..300).chain([1_000, 4_095, 4_096, 4_097, 30_000, 65_535, 65_536]) {
            let (mut copied, mut lent) = (Vec::new(), Vec::new());
            let mut deframer = Deframer::new(FRAME_BYTES_MAX);
            for piece in bytes.chunks(step) {
                deframer.extend(piece);
                collect(&mut deframer, &mut copied).expect("valid");
            }
            assert!(!deframer.is_mid_frame());
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                rest = &rest[read(&mut deframer, &rest[..step.min(rest.len())])..];
                collect(&mut deframer, &mut lent).expect("valid");
            }
            assert!(copied == expected && lent == expected, "pieces of {step}");
            assert!(deframer.memory_bytes() <= BUFFER_BYTES_MAX, "pieces of {step}");
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
            assert_eq!(deframer.memory_bytes(), 0, "a dead deframer costs nothing");
            assert!(deframer.space().is_empty());
            assert!(!deframer.is_mid_frame());
            deframer.set_frame_bytes_max(FRAME_BYTES_MAX);
            assert_eq!(deframer.ready(), Err(error), "dead is dead");
        }
    }

    #[test]
    fn a_long_frame_may_come_together_with_the_hello_that_allows_it() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 1, |out| out.resize(out.len() + 20, 1));
        put_frame(&mut bytes, 2, |out| out.resize(out.len() + 1_000, 2));
        for step in [bytes.len(), 100, 1] {
            let mut deframer = Deframer::new(HELLO_BYTES_MAX);
            let mut got = Vec::new();
            for piece in bytes.chunks(step) {
                deframer.extend(piece);
                if !deframer.ready().expect("nothing is wrong").is_empty() {
                    deframer.set_frame_bytes_max(FRAME_BYTES_MAX);
                }
                collect(&mut deframer, &mut got).expect("nothing is wrong");
            }
            collect(&mut deframer, &mut got).expect("nothing is wrong");
            assert_eq!(got.len(), 2, "pieces of {step}");
        }
    }

    #[test]
    fn a_length_reserves_nothing() {
        let mut deframer = Deframer::new(FRAME_BYTES_MAX);
        assert_eq!(deframer.memory_bytes(), 0);
        deframer.extend(&60_000_u32.to_be_bytes());
        assert_eq!(deframer.memory_bytes(), BUFFER_BYTES_MIN);
        assert!(deframer.is_mid_frame());
    }

    #[test]
    fn the_buffer_follows_what_single_reads_bring() {
        let mut bytes = Vec::new();
        for _ in 0..40_000 {
            put_frame(&mut bytes, 1, |_| ());
        }
        let mut deframer = Deframer::new(FRAME_BYTES_MAX);
        let mut sizes = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = &rest[read(&mut deframer, rest)..];
            collect(&mut deframer, &mut Vec::new()).expect("valid");
            sizes.push(deframer.memory_bytes());
        }
        assert_eq!(sizes[..5], [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10]);
        assert!(sizes.iter().all(|size| *size <= BUFFER_BYTES_MAX));
        for _ in 0..6 {
            read(&mut deframer, &bytes[..5]);
            collect(&mut deframer, &mut Vec::new()).expect("valid");
        }
        assert_eq!(deframer.memory_bytes(), BUFFER_BYTES_MIN, "it shrinks again");
    }

    #[test]
    fn single_bytes_are_moved_once_at_the_most() {
        // Were the part of a frame moved with every byte, this would copy two gigabytes.
        let bytes = stream();
        let mut deframer = Deframer::new(FRAME_BYTES_MAX);
        let mut moves = 0;
        for byte in &bytes {
            moves += deframer.compact();
            deframer.extend(core::slice::from_ref(byte));
            collect(&mut deframer, &mut Vec::new()).expect("valid");
        }
        assert!(moves <= bytes.len(), "{moves} bytes moved for {}", bytes.len());
    }

    #[test]
    fn a_length_is_judged_as_soon_as_it_is_there() {
        assert_eq!(first_frame(&[0, 0, 0], 64), Ok(None));
        assert_eq!(first_frame(&[0, 0, 0, 0], 64), Err(WireError::EmptyFrame));
        assert_eq!(first_frame(&[0, 0, 0, 60], 64), Ok(None));
        assert_eq!(first_frame(&[0, 0, 0, 61], 64), Err(WireError::FrameTooLong));
    }

    #[test]
    fn the_end_of_a_frame_is_found_from_any_place_within_it() {
        let mut bytes = Vec::new();
        let mut ends = Vec::from([0]);
        for length in [0, 3, 1, 200] {
            put_frame(&mut bytes, 1, |out| out.resize(out.len() + length, 7));
            ends.push(bytes.len());
        }
        for at in 0..=bytes.len() {
            let expected = *ends.iter().find(|end| **end >= at).expect("one ends it all");
            assert_eq!(end_of_frame(&bytes, at), expected, "from {at}");
        }
        let part = &bytes[..bytes.len() - 1];
        assert_eq!(
            end_of_frame(part, part.len()),
            part.len(),
            "what is not whole ends where it ends"
        );
    }

    #[test]
    fn a_buffer_that_nobody_empties_doubles() {
        let mut bytes = Vec::new();
        for _ in 0..20_000 {
            put_frame(&mut bytes, 1, |out| out.push(1));
        }
        let mut deframer = Deframer::new(FRAME_BYTES_MAX);
        for piece in bytes.chunks(1_000) {
            deframer.extend(piece);
            let memory = deframer.memory_bytes();
            assert!(memory.is_power_of_two(), "{memory}: grown by a few bytes each time");
        }
        assert_eq!(deframer.ready(), Ok(&bytes[..]));
    }

    #[test]
    fn a_buffer_halves_when_a_read_fills_less_than_a_quarter_of_it() {
        // Whole frames of eight bytes, so that nothing is left in front.
        let mut bytes = Vec::new();
        for _ in 0..BUFFER_BYTES_MAX / 8 {
            put_frame(&mut bytes, 1, |out| out.extend_from_slice(b"abc"));
        }
        let mut deframer = Deframer::new(FRAME_BYTES_MAX);
        let mut length_after = |count: usize| {
            let count = count.min(deframer.space().len());
            read(&mut deframer, &bytes[..count]);
            collect(&mut deframer, &mut Vec::new()).expect("valid");
            deframer.space().len()
        };
        while length_after(BUFFER_BYTES_MAX) < BUFFER_BYTES_MAX {}
        assert_eq!(length_after(16 << 10), 64 << 10, "a quarter is enough");
        assert_eq!(length_after((16 << 10) - 8), 32 << 10);
        assert_eq!(length_after(8), 16 << 10);
    }

    #[test]
    fn a_buffer_with_nothing_in_it_can_be_let_go() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 1, |out| out.push(1));
        let mut deframer = Deframer::new(64);
        deframer.extend(&bytes);
        deframer.release();
        assert_eq!(deframer.ready(), Ok(&bytes[..]), "there is something in it");
        deframer.consume(bytes.len());
        deframer.release();
        assert_eq!(deframer.memory_bytes(), 0);
        deframer.extend(&bytes);
        assert_eq!(deframer.ready(), Ok(&bytes[..]), "and it is of use again");
    }

    #[test]
    fn what_is_left_is_moved_when_as_much_was_consumed() {
        let mut bytes = Vec::new();
        for _ in 0..3 {
            put_frame(&mut bytes, 1, |out| out.resize(out.len() + 5, 1));
        }
        for (frames, part, consumed, moved) in
            [(3, 0, 1, 0), (3, 0, 2, 10), (2, 0, 1, 10), (2, 3, 1, 0), (1, 4, 1, 4), (1, 4, 0, 0)]
        {
            let mut deframer = Deframer::new(64);
            deframer.extend(&bytes[..10 * frames]);
            deframer.extend(&bytes[..part]);
            deframer.consume(10 * consumed);
            let context = (frames, part, consumed);
            assert_eq!(deframer.compact(), moved, "{context:?}");
            assert_eq!(deframer.ready(), Ok(&bytes[..10 * (frames - consumed)]), "{context:?}");
        }
    }

    #[test]
    fn the_longest_frame_passes_and_one_byte_more_does_not() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 1, |out| out.resize(FRAME_BYTES_MAX, 0));
        assert_eq!(first_frame(&bytes, FRAME_BYTES_MAX), Ok(Some(FRAME_BYTES_MAX)));
        assert_eq!(first_frame(&bytes, FRAME_BYTES_MAX - 1), Err(WireError::FrameTooLong));
    }
}
