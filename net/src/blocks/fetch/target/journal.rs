//! Beside an unfinished file: which of its blocks are there. Append-only; each record is written
//! after the data that it speaks of.
//!
//! ```text
//! | header: 96 bytes | record: 24 bytes | record | …
//!   header: magic 8, flags u32, block_bytes u32, root 32, length u64, inode u64, boot id 16,
//!           reserved 8, checksum u64
//!   record: kind u32, count u32, first u64, checksum u64      numbers little endian
//!     kind 1: `count` blocks from `first` on are stored
//!     kind 2: every record below the offset `first` of the journal is of data that are on the disk
//! ```
//!
//! A record's checksum is seeded with its offset: one that was moved or left over is not taken.
//! Records of the same boot are trusted, the kernel holds what was written; after another boot only
//! those that a marker covers.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use byteorder::{ByteOrder, LittleEndian};
use cordee_core::blocks::{BLOCKS_MAX, BlockSet, Layout, Root};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a journal belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct Identity {
    /// The file's hash, or what stands for its version where that is not known.
    pub(in super::super) root: Root,
    pub(in super::super) layout: Layout,
    /// Whether the blocks were verified before they were written.
    pub(in super::super) verified: bool,
    /// Of the unfinished file.
    pub(in super::super) inode: u64,
    /// Which start of the machine.
    pub(in super::super) boot: [u8; 16],
}

/// What a journal says.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Blocks that are there.
    pub(super) trusted: BlockSet,
    /// Of these, those that are on the disk.
    pub(super) synced: BlockSet,
    /// More may be there than it says: it was damaged, or the machine was started anew.
    pub(super) more: bool,
}

/// A journal that is written to.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    len: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// A new journal in the place of the one at `path`, if there is one. That one is replaced at
    /// once and as a whole.
    pub(super) fn create(
        path: &Path,
        identity: &Identity,
        stored: &BlockSet,
        synced: &BlockSet,
    ) -> io::Result<Journal> {
        let mut bytes = header(identity);
        put_runs(&mut bytes, 0, synced.runs());
        if !synced.is_empty() {
            let covered = bytes.len() as u64;
            put_record(&mut bytes, 0, KIND_MARKER, 0, covered);
        }
        let mut rest = stored.clone();
        for run in synced.runs() {
            rest.remove_range(run);
        }
        put_runs(&mut bytes, 0, rest.runs());
        let new = with_suffix(path, ".new");
        // Appending is atomic, so that markers and records may come from two threads.
        let mut file = OpenOptions::new().append(true).create(true).open(&new)?;
        file.set_len(0)?;
        file.write_all(&bytes)?;
        std::fs::rename(&new, path)?;
        Ok(Journal { file, len: bytes.len() as u64, buffer: Vec::new() })
    }

    /// Appends that these blocks are stored; their data were written before.
    pub(super) fn append(&mut self, runs: impl Iterator<Item = Range<u64>>) -> io::Result<()> {
        self.buffer.clear();
        put_runs(&mut self.buffer, self.len, runs);
        self.write()
    }

    /// Appends that the data of all records below `covered` are on the disk.
    pub(super) fn mark(&mut self, covered: u64) -> io::Result<()> {
        self.buffer.clear();
        put_record(&mut self.buffer, self.len, KIND_MARKER, 0, covered);
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.len += self.buffer.len() as u64;
        Ok(())
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The file, to be synced by another thread.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// What the journal at `path` says of `identity`'s file. `None` when it is not there, or of another
/// file: then it says nothing.
pub(super) fn load(path: &Path, identity: &Identity) -> io::Result<Option<Loaded>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(found) if !found.is_file() || found.len() > JOURNAL_BYTES_MAX => return Ok(None),
        Ok(_) => {}
    }
    Ok(parse(&std::fs::read(path)?, identity))
}

fn parse(bytes: &[u8], identity: &Identity) -> Option<Loaded> {
    let (head, records) = bytes.split_at_checked(HEADER_BYTES)?;
    let same_boot = head == header(identity);
    if !same_boot {
        let boot: [u8; 16] = head[BOOT].try_into().ok()?;
        if head != header(&Identity { boot, ..*identity }) {
            return None;
        }
    }
    let blocks = identity.layout.blocks();
    let mut loaded =
        Loaded { trusted: BlockSet::new(blocks), synced: BlockSet::new(blocks), more: !same_boot };
    let mut damaged = false;
    let mut runs: Vec<(u64, Range<u64>)> = Vec::new();
    let mut covered = 0;
    for (at, record) in (HEADER_BYTES..).step_by(RECORD_BYTES).zip(records.chunks(RECORD_BYTES)) {
        let Some((kind, count, first)) = take_record(at as u64, record) else {
            damaged = true;
            continue;
        };
        // A good one behind a bad one: the bad one is not just a tail that was being written.
        loaded.more |= damaged;
        let end = first.checked_add(count.into());
        match kind {
            KIND_STORED if end.is_some_and(|end| end <= blocks) => {
                runs.push((at as u64, first..first + u64::from(count)));
            }
            KIND_MARKER => covered = covered.max(first.min(at as u64)),
            _ => loaded.more = true,
        }
    }
    for (at, run) in runs {
        if at < covered {
            loaded.synced.insert_range(run.clone());
        }
        if at < covered || same_boot {
            loaded.trusted.insert_range(run);
        }
    }
    Some(loaded)
}

fn header(identity: &Identity) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&u32::from(identity.verified).to_le_bytes());
    bytes.extend_from_slice(&identity.layout.block_bytes().to_le_bytes());
    bytes.extend_from_slice(&identity.root.0);
    bytes.extend_from_slice(&identity.layout.length().to_le_bytes());
    bytes.extend_from_slice(&identity.inode.to_le_bytes());
    bytes.extend_from_slice(&identity.boot);
    bytes.extend_from_slice(&[0; 8]);
    let checksum = xxh3_64_with_seed(&bytes, 0);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Appends runs to `bytes`, which go to the offset `base` of the journal.
fn put_runs(bytes: &mut Vec<u8>, base: u64, runs: impl Iterator<Item = Range<u64>>) {
    for run in runs {
        // A file has fewer blocks than a count can say.
        put_record(bytes, base, KIND_STORED, (run.end - run.start) as u32, run.start);
    }
}

fn put_record(bytes: &mut Vec<u8>, base: u64, kind: u32, count: u32, first: u64) {
    let start = bytes.len();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&first.to_le_bytes());
    let checksum = xxh3_64_with_seed(&bytes[start..], base + start as u64);
    bytes.extend_from_slice(&checksum.to_le_bytes());
}

fn take_record(at: u64, record: &[u8]) -> Option<(u32, u32, u64)> {
    let (fields, checksum) = record.split_at_checked(RECORD_BYTES - 8)?;
    if checksum.len() != 8 || LittleEndian::read_u64(checksum) != xxh3_64_with_seed(fields, at) {
        return None;
    }
    Some((
        LittleEndian::read_u32(fields),
        LittleEndian::read_u32(&fields[4..]),
        LittleEndian::read_u64(&fields[8..]),
    ))
}

/// `path` with something behind its last part.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

const MAGIC: &[u8; 8] = b"cordeej1";
const HEADER_BYTES: usize = 96;
/// Where the boot id stands in the header.
const BOOT: Range<usize> = 64..80;
const RECORD_BYTES: usize = 24;
const KIND_STORED: u32 = 1;
const KIND_MARKER: u32 = 2;
/// A journal is not longer: a record for each block twice over, and as many markers.
const JOURNAL_BYTES_MAX: u64 = 3 * RECORD_BYTES as u64 * BLOCKS_MAX;

#[cfg(test)]
mod tests;
