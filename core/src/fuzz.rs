//! Bodies of the fuzz targets. The crate in `fuzz/` feeds them; the tests replay its corpora.
//!
//! Each takes arbitrary bytes and panics when something that must hold does not.

use alloc::vec::Vec;

use crate::framing::{
    BUFFER_BYTES_MAX, Deframer, FRAME_BYTES_MAX, HEADER_BYTES, frames as whole_frames,
};
use crate::wire::entry::Portable;
use crate::wire::{Field, Message, Reader, WireError, block, chat, hello, reencode};

/// A stream gives the same frames, and the same error at the same place, however it is cut into
/// pieces. The first byte says how long a frame may be, the second how the stream is cut.
pub fn frames(data: &[u8]) {
    let [limit, cut, stream @ ..] = data else { return };
    let frame_bytes_max = match limit {
        0..=199 => HEADER_BYTES + usize::from(*limit),
        _ => FRAME_BYTES_MAX,
    };
    let mut deframer = Deframer::new(frame_bytes_max);
    let mut outcome = Outcome::default();
    let mut rest = stream;
    for piece in pieces(*cut) {
        if rest.is_empty() || outcome.error.is_some() {
            break;
        }
        let now = &rest[..piece.len.min(rest.len())];
        let count = if piece.copied {
            deframer.extend(now);
            now.len()
        } else {
            let space = deframer.space();
            let count = now.len().min(space.len());
            space[..count].copy_from_slice(&now[..count]);
            deframer.filled(count);
            count
        };
        rest = &rest[count..];
        take_ready(&mut deframer, &mut outcome);
        assert!(deframer.memory_bytes() <= BUFFER_BYTES_MAX, "the buffer is bounded");
    }
    assert_eq!(outcome, cut_at_once(stream, frame_bytes_max));
    assert_eq!(deframer.is_mid_frame(), outcome.error.is_none() && outcome.end < stream.len());
}

/// What became of a stream.
#[derive(PartialEq, Eq, Debug, Default)]
struct Outcome {
    /// Kind and length of the payload of each frame.
    frames: Vec<(u8, usize)>,
    /// Where the last frame ended.
    end: usize,
    /// What was wrong there.
    error: Option<WireError>,
}

struct Piece {
    len: usize,
    copied: bool,
}

/// Single bytes, a few, and more than the buffer begins with, copied in and read in.
fn pieces(seed: u8) -> impl Iterator<Item = Piece> {
    let lengths = [1, 1 + usize::from(seed), 5_000, 2, 40_000, 1, 7, 300];
    (usize::from(seed)..).map(move |at| Piece { len: lengths[at % 8], copied: at % 3 == 0 })
}

fn take_ready(deframer: &mut Deframer, outcome: &mut Outcome) {
    if let Ok(ready) = deframer.ready() {
        let found = whole_frames(ready).map(|frame| (frame.kind, frame.payload.len()));
        outcome.frames.extend(found);
        let taken = ready.len();
        outcome.end += taken;
        deframer.consume(taken);
    }
    outcome.error = deframer.ready().err();
}

/// The same from the whole stream, by the plainest means.
fn cut_at_once(stream: &[u8], frame_bytes_max: usize) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(prefix) = stream.get(outcome.end..outcome.end + 4) {
        let length = prefix.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length == 0 {
            outcome.error = Some(WireError::EmptyFrame);
            break;
        }
        if length + 4 > frame_bytes_max {
            outcome.error = Some(WireError::FrameTooLong);
            break;
        }
        let Some(frame) = stream.get(outcome.end..outcome.end + 4 + length) else { break };
        outcome.frames.push((frame[4], length - 1));
        outcome.end += frame.len();
    }
    outcome
}

/// A payload is refused, or means the same when it is written and read again, and was read in its
/// only form. The first byte is the kind; 0 is an entry in portable form.
pub fn wire(data: &[u8]) {
    let [kind, payload @ ..] = data else { return };
    let mut once = Vec::new();
    if read_and_write(*kind, payload, &mut once).is_err() {
        return;
    }
    let mut twice = Vec::new();
    assert_eq!(read_and_write(*kind, &once, &mut twice), Ok(()), "what we write can be read");
    assert_eq!(once, twice, "and means the same");
    // A reason that we do not know is read as one that says so.
    let with_reason =
        [hello::Bye::KIND, chat::Failed::KIND, chat::Renamed::KIND, block::Refused::KIND];
    if !with_reason.contains(kind) {
        assert_eq!(once, payload[..once.len()], "there is no other form of it");
    }
}

fn read_and_write(kind: u8, payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    if kind == 0 {
        Portable::take(&mut Reader::new(payload))?.put(out);
        return Ok(());
    }
    reencode(kind, payload, out).unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Gives every file of a corpus to its body; says which one it was that failed.
    fn replay(target: &str, body: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let files = std::fs::read_dir(&folder).expect("the corpus is part of the repository");
        let mut count = 0;
        for file in files {
            let path = file.expect("a readable folder").path();
            let data = std::fs::read(&path).expect("a readable file");
            let outcome = std::panic::catch_unwind(|| body(&data));
            assert!(outcome.is_ok(), "{}", path.display());
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }

    #[test]
    fn the_corpus_of_frames_passes() {
        replay("frames", frames);
    }

    #[test]
    fn the_corpus_of_wire_passes() {
        replay("wire", wire);
    }
}
