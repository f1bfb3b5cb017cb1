//! Payload: read, hashed, written, reported, block by block.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use cordee_core::blocks::BlockHasher;
use cordee_core::framing::{FRAME_BYTES_MAX, HEADER_BYTES, first_frame};
use cordee_core::wire::Message;
use cordee_core::wire::block::SliceEnd;
use cordee_core::wire::hello::Bye;
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, pipe, splice};
use socket2::Socket;

use super::inlet::Inlet;
use super::server::said_goodbye;
use super::{Gone, Run, Sink, Start, What};
use crate::sync::atomic::Ordering;

/// Takes blocks from a connection.
#[derive(Debug)]
pub(super) struct Intake<'a> {
    pub(super) start: &'a Start,
    pub(super) socket: &'a Socket,
    pub(super) inlet: Inlet,
    pipe: Pipe,
}

/// What lets bytes go from a socket into a file without being looked at.
#[derive(Debug)]
enum Pipe {
    /// Made when it is needed.
    NotYet,
    There {
        read: OwnedFd,
        write: OwnedFd,
    },
    /// It cannot be made, or not be used with this file.
    Never,
}

/// Consecutive blocks that are coming.
#[derive(Debug)]
struct Slice<'a> {
    run: &'a Run,
    /// The blocks that have not been taken.
    blocks: Range<u64>,
    /// Bytes that came and were not reported.
    arrived: u64,
    reported: Instant,
    /// The last byte comes in a frame of its own.
    apart: bool,
}

impl Slice<'_> {
    fn tell(&mut self, start: &Start, stored: Range<u64>) -> Result<(), Gone> {
        self.reported = Instant::now();
        let arrived = std::mem::take(&mut self.arrived);
        let (conn, job) = (self.run.conn, self.run.job.id);
        start.tell(What::Came { conn, job, arrived, stored })
    }

    /// Tells what came, unless that was done just now.
    fn tell_soon(&mut self, start: &Start) -> Result<(), Gone> {
        if self.arrived > 0 && self.reported.elapsed() >= REPORT_EVERY {
            let at = self.blocks.start;
            return self.tell(start, at..at);
        }
        Ok(())
    }
}

impl<'a> Intake<'a> {
    pub(super) fn new(start: &'a Start, socket: &'a Socket) -> Intake<'a> {
        Intake { start, socket, inlet: Inlet::new(), pipe: Pipe::NotYet }
    }

    /// Takes the `count` blocks of a run that come next. With `apart`, the last byte comes in a
    /// [`SliceEnd`] behind the others.
    pub(super) fn take(&mut self, run: &Run, count: u64, apart: bool) -> Result<(), Gone> {
        let first = run.left.start;
        let blocks = first..first + count;
        let mut slice = Slice { run, blocks, arrived: 0, reported: Instant::now(), apart };
        let unseen = run.job.manifest.is_none() && matches!(run.job.sink, Sink::File(_));
        if unseen && !matches!(self.pipe, Pipe::Never) {
            return self.splice_blocks(&mut slice);
        }
        self.take_blocks(&mut slice)
    }

    fn take_blocks(&mut self, slice: &mut Slice<'_>) -> Result<(), Gone> {
        let layout = &slice.run.job.layout;
        let last = slice.blocks.end - 1;
        // Blocks at the front of the inlet that are good and not written yet: their bytes.
        let mut good = slice.blocks.start..slice.blocks.start;
        let mut good_bytes = 0;
        for block in slice.blocks.clone() {
            let len = layout.block_len(block) as usize;
            let apart = slice.apart && block == last;
            let here = if apart { len - 1 } else { len };
            let room = good_bytes + len + TAIL_BYTES;
            if self.inlet.len() < good_bytes + here || !self.inlet.has_room(room) {
                self.write(slice, good.end - good.start, &mut good_bytes)?;
                good.start = good.end;
                self.inlet.make_room(len + TAIL_BYTES);
            }
            let hasher =
                self.fill(slice, block, good_bytes, here, if apart { TAIL_BYTES } else { 0 });
            let mut hasher = hasher?;
            if apart {
                let byte = self.take_end(good_bytes + here)?;
                slice.arrived += 1;
                if let Some((hasher, _)) = &mut hasher {
                    hasher.update(&[byte]);
                }
            }
            let right = hasher.is_none_or(|(hasher, wanted)| hasher.finish() == wanted);
            if right {
                good.end = block + 1;
                good_bytes += len;
                continue;
            }
            self.write(slice, good.end - good.start, &mut good_bytes)?;
            self.inlet.consume(len);
            good = block + 1..block + 1;
            slice.blocks.start = block + 1;
            let (conn, job) = (slice.run.conn, slice.run.job.id);
            slice.tell(self.start, block..block)?;
            self.start.tell(What::Bad { conn, job, block })?;
        }
        self.write(slice, good.end - good.start, &mut good_bytes)
    }

    /// Reads until `here` bytes of a block are there behind the `skip` first, and at most `more`
    /// behind them; hashes them meanwhile.
    #[allow(clippy::type_complexity, reason = "a hasher, and what it must come to")]
    fn fill(
        &mut self,
        slice: &mut Slice<'_>,
        block: u64,
        skip: usize,
        here: usize,
        more: usize,
    ) -> Result<Option<(BlockHasher, cordee_core::blocks::BlockHash)>, Gone> {
        let job = &slice.run.job;
        let mut hasher = job.manifest.as_ref().map(|manifest| {
            (BlockHasher::new(&job.layout, block), manifest.hashes()[block as usize])
        });
        let small = job.layout.block_bytes() as usize <= SMALL_BYTES;
        let rest = job.layout.range(block, slice.blocks.end - block);
        let rest = (rest.end - rest.start) as usize;
        let (mut hashed, mut seen) = (0, 0);
        loop {
            let there = (self.inlet.len() - skip).min(here);
            slice.arrived += (there - seen) as u64;
            seen = there;
            let whole = there == here;
            let next = if whole { here } else { there - (there - hashed) % HASH_BYTES };
            if let Some((hasher, _)) = &mut hasher
                && next > hashed
            {
                hasher.update(&self.inlet.bytes()[skip + hashed..skip + next]);
                hashed = next;
            }
            if whole {
                return Ok(hasher);
            }
            slice.tell_soon(self.start)?;
            // Of small blocks as many as fit at once; of others no more than what belongs to one,
            // so that the next begins at the front of the buffer.
            let tail = if slice.apart { TAIL_BYTES - 1 } else { 0 };
            let most = if small { rest + tail - there } else { here + more - there };
            self.inlet.read(self.socket, most)?;
        }
    }

    /// Takes the frame behind the last block, `at` bytes from the front, and puts its byte there.
    fn take_end(&mut self, at: usize) -> Result<u8, Gone> {
        let byte = loop {
            let frame = &self.inlet.bytes()[at..];
            match first_frame(frame, FRAME_BYTES_MAX) {
                Err(error) => return Err(Gone::garbage(error.to_string())),
                Ok(Some(len)) => break end_of_slice(frame[4], &frame[HEADER_BYTES..len])?,
                Ok(None) => {
                    let there = self.inlet.len();
                    self.inlet.make_room(there + FRAME_BYTES_MAX);
                    self.inlet.read(self.socket, TAIL_BYTES)?;
                }
            }
        };
        // The byte takes the place of the frame's first, and what came behind the frame moves up.
        let bytes = self.inlet.bytes_mut();
        bytes[at] = byte;
        let behind = at + END_BYTES..bytes.len();
        bytes.copy_within(behind, at + 1);
        self.inlet.shorten(END_BYTES - 1);
        Ok(byte)
    }

    /// Writes the good blocks at the front of the inlet, and lets go of them.
    fn write(&mut self, slice: &mut Slice<'_>, blocks: u64, bytes: &mut usize) -> Result<(), Gone> {
        if blocks == 0 {
            return Ok(());
        }
        let job = &slice.run.job;
        let first = slice.blocks.start;
        if !job.closed.load(Ordering::SeqCst) {
            let bytes = &self.inlet.bytes()[..*bytes];
            let store = || job.sink.store(&job.layout, first, bytes);
            let written = self.start.shared.writing(store);
            self.check(written)?;
        }
        self.inlet.consume(*bytes);
        *bytes = 0;
        slice.blocks.start = first + blocks;
        slice.tell(self.start, first..first + blocks)
    }

    /// A disk that takes nothing ends the whole fetch.
    fn check<T>(&self, written: std::io::Result<T>) -> Result<T, Gone> {
        written.or_else(|error| {
            self.start.tell(What::Broken(error))?;
            Err(Gone::asked())
        })
    }

    /// Lets the bytes go into the file without looking at them.
    fn splice_blocks(&mut self, slice: &mut Slice<'_>) -> Result<(), Gone> {
        let job = &slice.run.job;
        let Sink::File(file) = &job.sink else { return self.take_blocks(slice) };
        if matches!(self.pipe, Pipe::NotYet) {
            self.pipe = make_pipe();
        }
        if matches!(self.pipe, Pipe::Never) {
            return self.take_blocks(slice);
        }
        let range = job.layout.range(slice.blocks.start, slice.blocks.end - slice.blocks.start);
        let end = if slice.apart { range.end - 1 } else { range.end };
        let mut at = range.start;
        let there = self.inlet.len().min((end - at) as usize);
        if !job.closed.load(Ordering::SeqCst) {
            let written = file.write_all_at(&self.inlet.bytes()[..there], at);
            self.check(written)?;
        }
        self.inlet.consume(there);
        at += there as u64;
        slice.arrived += there as u64;
        while at < end {
            let count = self.splice_some(file, at, end - at)?;
            at += count;
            slice.arrived += count;
            self.tell_up_to(slice, at)?;
        }
        if slice.apart {
            let byte = [self.take_end_alone()?];
            let written = file.write_all_at(&byte, end);
            self.check(written)?;
            slice.arrived += 1;
        }
        self.tell_up_to(slice, range.end)
    }

    /// Tells the blocks that are whole now that the bytes before `at` are there.
    fn tell_up_to(&self, slice: &mut Slice<'_>, at: u64) -> Result<(), Gone> {
        let layout = &slice.run.job.layout;
        let whole = at == layout.length();
        let up_to = if whole { layout.blocks() } else { at / u64::from(layout.block_bytes()) };
        if up_to > slice.blocks.start {
            let stored = slice.blocks.start..up_to;
            slice.blocks.start = up_to;
            return slice.tell(self.start, stored);
        }
        slice.tell_soon(self.start)
    }

    /// Moves some of the next `most` bytes to the offset `at` of the file.
    fn splice_some(&mut self, file: &std::fs::File, at: u64, most: u64) -> Result<u64, Gone> {
        let Pipe::There { read, write } = &self.pipe else {
            return self.copy_some(file, at, most);
        };
        let most = most.min(PIPE_BYTES as u64) as usize;
        let flags = SpliceFlags::MOVE | SpliceFlags::MORE;
        let count = loop {
            match splice(self.socket, None, write, None, most, flags) {
                Ok(0) => {
                    let fault = cordee_core::blocks::scheduler::Fault::Ended;
                    return Err(Gone::new(fault, "it closed the connection"));
                }
                Ok(count) => break count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(Gone::broken(&error.into())),
            }
        };
        let mut left = count;
        let mut offset = at;
        while left > 0 {
            let into = || splice(read, None, file, Some(&mut offset), left, flags);
            match self.start.shared.writing(into) {
                Ok(0) => return self.check(Err(std::io::ErrorKind::WriteZero.into())),
                Ok(moved) => left -= moved,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => {
                    // This file system wants to be written to in the plain way.
                    let mut bytes = vec![0; left];
                    let mut pipe = std::fs::File::from(
                        read.try_clone().map_err(|error| Gone::broken(&error))?,
                    );
                    let copied = std::io::Read::read_exact(&mut pipe, &mut bytes)
                        .and_then(|()| file.write_all_at(&bytes, offset));
                    self.check(copied)?;
                    self.pipe = Pipe::Never;
                    break;
                }
                Err(error) => return self.check(Err(error.into())),
            }
        }
        Ok(count as u64)
    }

    fn copy_some(&mut self, file: &std::fs::File, at: u64, most: u64) -> Result<u64, Gone> {
        self.inlet.make_room(PLAIN_BYTES);
        let count = self.inlet.read(self.socket, most.min(PLAIN_BYTES as u64) as usize)?;
        let written = file.write_all_at(self.inlet.bytes(), at);
        self.check(written)?;
        self.inlet.consume(count);
        Ok(count as u64)
    }

    /// Takes the frame behind the last block, which stands at the front.
    fn take_end_alone(&mut self) -> Result<u8, Gone> {
        let byte = self.take_end(0)?;
        self.inlet.consume(1);
        Ok(byte)
    }
}

/// The byte in the frame behind a slice, or why there is none.
fn end_of_slice(kind: u8, payload: &[u8]) -> Result<u8, Gone> {
    let garbage = |error: cordee_core::wire::WireError| Gone::garbage(error.to_string());
    match kind {
        SliceEnd::KIND if payload.len() == 1 => Ok(SliceEnd::parse(payload).map_err(garbage)?.last),
        Bye::KIND => Err(said_goodbye(&Bye::parse(payload).map_err(garbage)?)),
        _ => Err(Gone::garbage("blocks that do not end")),
    }
}

fn make_pipe() -> Pipe {
    match pipe() {
        Ok((read, write)) => {
            // A short pipe costs more calls, nothing else.
            let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
            Pipe::There { read, write }
        }
        Err(_) => Pipe::Never,
    }
}

/// A [`SliceEnd`], header and all.
const END_BYTES: usize = HEADER_BYTES + 1;
/// Read beyond a slice: its end, and most of the header of the next.
const TAIL_BYTES: usize = END_BYTES + 24;
/// Blocks that are read and written several at a time are not longer.
const SMALL_BYTES: usize = 128 << 10;
/// Hashed as soon as so much is there: enough for all lanes of the widest processor.
const HASH_BYTES: usize = 64 << 10;
/// What comes slowly is reported so often, blocks or not.
const REPORT_EVERY: Duration = Duration::from_millis(1);
const PIPE_BYTES: usize = 1 << 20;
const PLAIN_BYTES: usize = 256 << 10;
