//! Hashes of files: made with all processors, one file after the other, and kept.
//!
//! Threads of low priority take runs of blocks of the first file that waits. A file that changes
//! meanwhile is let go of: whoever asks for it again asks for its new version.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cordee_core::blocks::{BlockHash, BlockHasher, Manifest};
use rustix::io::Errno;

use super::files::{Identity, OpenFile};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Condvar, Mutex, lock, wait, wait_timeout};

mod cache;
#[cfg(all(test, not(feature = "loom")))]
mod tests;

use cache::Cache;

/// What is known of a file's hashes.
#[derive(Clone, Debug)]
pub(super) enum Hashed {
    /// Everything.
    Whole(Arc<Manifest>),
    /// So many blocks.
    Part(u64),
}

/// Shared by those who ask and the threads that hash.
#[derive(Debug)]
pub(super) struct Hashing {
    state: Mutex<State>,
    work: Condvar,
    jobs_max: usize,
    /// Seen by a thread that is amid a block.
    ended: AtomicBool,
}

#[derive(Debug)]
struct State {
    jobs: VecDeque<Job>,
    cache: Cache,
    ended: bool,
}

/// A file that is being hashed, or waits for it.
#[derive(Debug)]
struct Job {
    file: Arc<OpenFile>,
    /// For each block, once the first was taken.
    hashes: Vec<BlockHash>,
    /// The first block that nobody has taken.
    next: u64,
    done: u64,
}

/// A run of blocks that a thread has taken.
struct Task {
    file: Arc<OpenFile>,
    first: u64,
    count: u64,
}

impl Hashing {
    pub(super) fn new(jobs_max: usize, cache_bytes_max: u64) -> Hashing {
        Hashing {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                cache: Cache::new(cache_bytes_max),
                ended: false,
            }),
            work: Condvar::new(),
            jobs_max: jobs_max.max(1),
            ended: AtomicBool::new(false),
        }
    }

    /// What is known of the hashes of `file`, which keeps them from then on.
    pub(super) fn known(&self, file: &OpenFile) -> Hashed {
        if let Some(manifest) = file.manifest() {
            return Hashed::Whole(manifest);
        }
        let mut state = lock(&self.state);
        if let Some(manifest) = state.cache.find(&file.identity) {
            file.set_manifest(Arc::clone(&manifest));
            return Hashed::Whole(manifest);
        }
        let job = state.jobs.iter().find(|job| job.file.identity == file.identity);
        Hashed::Part(job.map_or(0, |job| job.done))
    }

    /// As [`known`](Self::known); what is not known is hashed: at once when the file is small, else by and by.
    pub(super) fn wanted(&self, file: &Arc<OpenFile>, buffer: &mut [u8]) -> Hashed {
        let known = self.known(file);
        if matches!(known, Hashed::Whole(_)) {
            return known;
        }
        if file.identity.size <= AT_ONCE_BYTES_MAX {
            return self.at_once(file, buffer).map_or(known, Hashed::Whole);
        }
        let mut state = lock(&self.state);
        let is_there = state.jobs.iter().any(|job| job.file.identity == file.identity);
        if !is_there && state.jobs.len() < self.jobs_max && !state.ended {
            state.jobs.push_back(Job {
                file: Arc::clone(file),
                hashes: Vec::new(),
                next: 0,
                done: 0,
            });
            self.work.notify_all();
        }
        known
    }

    /// Hashes for as long as the server runs.
    pub(super) fn run(&self) {
        // The kernel may not allow it; then it hashes as fast as it serves.
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(task) = self.take() {
            let mut hashes = Vec::with_capacity(task.count as usize);
            for block in task.first..task.first + task.count {
                if self.ended.load(Ordering::Relaxed) {
                    return;
                }
                match hash_block(&task.file, block, &mut buffer) {
                    Some(hash) => hashes.push(hash),
                    None => break,
                }
            }
            let whole = hashes.len() as u64 == task.count && task.file.is_unchanged();
            self.done(&task, whole.then_some(&hashes));
        }
    }

    /// Ends the threads.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        lock(&self.state).ended = true;
        self.work.notify_all();
    }

    /// Waits for a run of blocks that nobody has taken.
    fn take(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        loop {
            if state.ended {
                return None;
            }
            let Some(job) = state.jobs.iter_mut().find(|job| job.next < job.file.layout.blocks())
            else {
                state = wait(&self.work, state);
                continue;
            };
            if job.next == 0
                && let Some(time) = until_old(&job.file.identity)
            {
                state = wait_timeout(&self.work, state, time).0;
                continue;
            }
            let blocks = job.file.layout.blocks();
            job.hashes.resize(blocks as usize, BlockHash::default());
            let run = (RUN_BYTES / u64::from(job.file.layout.block_bytes())).max(1);
            let first = job.next;
            job.next = (first + run).min(blocks);
            return Some(Task { file: Arc::clone(&job.file), first, count: job.next - first });
        }
    }

    /// Notes the hashes of a run; without them the file has changed, or cannot be read.
    fn done(&self, task: &Task, hashes: Option<&Vec<BlockHash>>) {
        let mut state = lock(&self.state);
        let at = state.jobs.iter().position(|job| Arc::ptr_eq(&job.file, &task.file));
        // Another thread may have seen before that the file changed.
        let Some(at) = at else { return };
        let Some(hashes) = hashes else {
            state.jobs.remove(at);
            return;
        };
        let job = &mut state.jobs[at];
        let first = task.first as usize;
        job.hashes[first..first + hashes.len()].copy_from_slice(hashes);
        job.done += task.count;
        if job.done == job.file.layout.blocks()
            && let Some(job) = state.jobs.remove(at)
            && let Ok(manifest) = Manifest::of_hashes(job.file.layout, job.hashes)
        {
            let manifest = Arc::new(manifest);
            job.file.set_manifest(Arc::clone(&manifest));
            state.cache.keep(job.file.identity, manifest);
        }
    }

    /// Hashes a small file in the thread that asks.
    fn at_once(&self, file: &OpenFile, buffer: &mut [u8]) -> Option<Arc<Manifest>> {
        let old = until_old(&file.identity).is_none();
        let blocks = 0..file.layout.blocks().max(1);
        let hashes: Option<Vec<BlockHash>> =
            blocks.map(|block| hash_block(file, block, buffer)).collect();
        let manifest = Manifest::of_hashes(file.layout, hashes?).ok()?;
        if !file.is_unchanged() {
            return None;
        }
        let manifest = Arc::new(manifest);
        file.set_manifest(Arc::clone(&manifest));
        if old {
            lock(&self.state).cache.keep(file.identity, Arc::clone(&manifest));
        }
        Some(manifest)
    }
}

/// `None` when it cannot be read, or the file has become shorter.
fn hash_block(file: &OpenFile, block: u64, buffer: &mut [u8]) -> Option<BlockHash> {
    let mut hasher = BlockHasher::new(&file.layout, block);
    if file.layout.blocks() > 0 {
        let mut range = file.layout.range(block, 1);
        while range.start < range.end {
            let most = (range.end - range.start).min(buffer.len() as u64) as usize;
            match rustix::io::pread(&file.handle, &mut buffer[..most], range.start) {
                Ok(0) => return None,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    range.start += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
    Some(hasher.finish())
}

/// How long until another change of the file is sure to be seen in its times: their grain is up to a
/// tick of the kernel's clock, so that two changes in one tick look like one.
fn until_old(identity: &Identity) -> Option<Duration> {
    let (seconds, nanos) = identity.changed;
    let changed = UNIX_EPOCH + Duration::new(u64::try_from(seconds).ok()?, nanos);
    match SystemTime::now().duration_since(changed) {
        Ok(age) => GRAIN.checked_sub(age).filter(|left| !left.is_zero()),
        // A time to come, by a clock that was set back: no wait helps.
        Err(_) => None,
    }
}

/// Files up to that length are hashed by the worker that is asked: 4 ms at the most.
const AT_ONCE_BYTES_MAX: u64 = 4 << 20;
/// So much of a file a thread hashes in one go.
const RUN_BYTES: u64 = 1 << 20;
/// What a thread reads at once: it stays in the second-level cache.
const BUFFER_BYTES: usize = 128 << 10;
/// Two changes of a file within that time may have the same stamp.
const GRAIN: Duration = Duration::from_millis(50);
/// How much hashing stands back behind serving.
const NICE: i32 = 10;
