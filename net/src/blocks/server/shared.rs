//! What all threads of a block server share.

use std::time::{Duration, Instant};

use super::BlockLimits;
use super::files::Directory;
use super::hashing::Hashing;
use super::rate::Rate;
use crate::log::Log;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, lock};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) directory: Directory,
    pub(super) hashing: Hashing,
    pub(super) rate: Option<Rate>,
    pub(super) limits: BlockLimits,
    pub(super) log: Log,
    /// Whether everybody is to be sent away.
    pub(super) stopping: AtomicBool,
    pub(super) connections: AtomicU32,
    pub(super) bytes_sent: AtomicU64,
    transfers: Arc<AtomicU32>,
    /// Walks through directories that are under way: a worker stays free of them.
    walks: AtomicUsize,
    walks_max: usize,
    /// When the files were counted, and how many there were.
    counted: Mutex<Option<(Instant, u64)>>,
}

/// Counts as a transfer from when it is asked for until it is sent or dropped.
#[derive(Debug)]
pub(super) struct Transfer(Arc<AtomicU32>);

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The permission to walk through directories.
#[derive(Debug)]
pub(super) struct Walking<'a>(&'a AtomicUsize);

impl Drop for Walking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn new(
        directory: Directory,
        limits: BlockLimits,
        limit_rate: Option<u64>,
        threads: usize,
        log: Log,
    ) -> Shared {
        Shared {
            directory,
            hashing: Hashing::new(limits.hashings_max as usize, limits.hash_bytes_max),
            rate: limit_rate.map(Rate::new),
            limits,
            log,
            stopping: AtomicBool::new(false),
            connections: AtomicU32::new(0),
            bytes_sent: AtomicU64::new(0),
            transfers: Arc::new(AtomicU32::new(0)),
            walks: AtomicUsize::new(0),
            walks_max: threads.saturating_sub(1).max(1),
            counted: Mutex::new(None),
        }
    }

    /// Counts a transfer.
    pub(super) fn transfer(&self) -> Transfer {
        self.transfers.fetch_add(1, Ordering::Relaxed);
        Transfer(Arc::clone(&self.transfers))
    }

    /// How many transfers there are.
    pub(super) fn transfers(&self) -> u32 {
        self.transfers.load(Ordering::Relaxed)
    }

    /// Whether everybody is to be sent away.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The permission to walk through directories; `None` when as many do as may.
    pub(super) fn walk(&self) -> Option<Walking<'_>> {
        let walking = Walking(&self.walks);
        let before = self.walks.fetch_add(1, Ordering::Relaxed);
        (before < self.walks_max).then_some(walking)
    }

    /// How many files are served, as of a few seconds ago. `None` when somebody else is counting and
    /// nobody has yet.
    pub(super) fn files(&self) -> Option<u64> {
        let counted = *lock(&self.counted);
        if let Some((at, files)) = counted
            && at.elapsed() < COUNTED
        {
            return Some(files);
        }
        let Some(_walking) = self.walk() else { return counted.map(|(_, files)| files) };
        let files = self.directory.count();
        *lock(&self.counted) = Some((Instant::now(), files));
        Some(files)
    }
}

/// For so long a count of all files is good enough.
const COUNTED: Duration = Duration::from_secs(2);
