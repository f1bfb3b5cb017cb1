//! Hashes what lies on the disk, with all cores.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cordee_core::blocks::{BlockHash, BlockHasher, BlockSet, Layout};

use crate::sync::{Mutex, lock};

/// Hashes the blocks `which` of `file`; a block that lies beyond its end has no hash. Now and then
/// `go_on` is told how many bytes were hashed; when it says no, the result is `None`.
pub(in super::super) fn hash_blocks(
    file: &File,
    layout: &Layout,
    which: &BlockSet,
    mut go_on: impl FnMut(u64) -> bool,
) -> io::Result<Option<Vec<(u64, BlockHash)>>> {
    let parts: Vec<_> = which.runs().flat_map(|run| cut(run, layout)).collect();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(parts.len());
    if threads <= 1 {
        let mut hashes = Vec::new();
        let mut buffer = Vec::new();
        let mut bytes = 0;
        for block in which.runs().flatten() {
            if !go_on(bytes) {
                return Ok(None);
            }
            bytes += u64::from(layout.block_len(block));
            hashes.extend(hash_block(file, layout, block, &mut buffer)?.map(|hash| (block, hash)));
        }
        return Ok(Some(hashes));
    }
    let (next, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let (stop, result) = (AtomicBool::new(false), Mutex::new(Ok(Vec::new())));
    let work = || {
        let mut buffer = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed) as usize) else {
                return;
            };
            for block in part.clone() {
                let hashed = hash_block(file, layout, block, &mut buffer);
                bytes.fetch_add(layout.block_len(block).into(), Ordering::Relaxed);
                let mut result = lock(&result);
                match (&mut *result, hashed) {
                    (Ok(hashes), Ok(hash)) => hashes.extend(hash.map(|hash| (block, hash))),
                    (Ok(_), Err(error)) => {
                        *result = Err(error);
                        stop.store(true, Ordering::Relaxed);
                        return;
                    }
                    (Err(_), _) => return,
                }
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            if !go_on(bytes.load(Ordering::Relaxed)) {
                stop.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(Some(()))
    })
    .and_then(|done| match done {
        None => Ok(None),
        Some(()) => {
            let taken = std::mem::replace(&mut *lock(&result), Ok(Vec::new()));
            taken.map(Some)
        }
    })
}

/// Parts of a run, long enough that taking one costs nothing.
fn cut(
    run: std::ops::Range<u64>,
    layout: &Layout,
) -> impl Iterator<Item = std::ops::Range<u64>> + use<> {
    let blocks = (PART_BYTES / u64::from(layout.block_bytes())).max(1);
    let end = run.end;
    run.step_by(blocks as usize).map(move |first| first..(first + blocks).min(end))
}

fn hash_block(
    file: &File,
    layout: &Layout,
    block: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<BlockHash>> {
    let mut hasher = BlockHasher::new(layout, block);
    let range = layout.range(block, 1);
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(READ_BYTES) as usize;
        buffer.resize(len, 0);
        match file.read_at(buffer, at) {
            Ok(0) => return Ok(None),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(hasher.finish()))
}

const PART_BYTES: u64 = 4 << 20;
const READ_BYTES: u64 = 256 << 10;
const LOOK_EVERY: Duration = Duration::from_millis(10);
