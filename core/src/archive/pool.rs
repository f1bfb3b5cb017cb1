//! Runs of entry ids, all of one size, which the lists of the archive share.
//!
//! A list that grows takes one more run, so nothing large is ever moved, and what one list frees
//! serves the next.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Ids in a run.
pub(super) const RUN_IDS: usize = 128;
/// Bytes of a run, with what a list keeps of it.
pub(super) const RUN_BYTES: u64 = 4 * RUN_IDS as u64 + 24;
/// Runs that are allocated together.
const BLOCK_RUNS: usize = 64;

/// The lower half of an [`EntryId`](super::EntryId): enough among those in memory.
pub(super) type Id = u32;
type Run = [Id; RUN_IDS];

/// Names a run of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Handle(u32);

#[derive(Debug, Default)]
pub(super) struct Pool {
    blocks: Vec<Box<[Run]>>,
    free: Vec<Handle>,
}

impl Pool {
    /// A run with any contents.
    pub(super) fn take(&mut self) -> Handle {
        if self.free.is_empty() {
            self.grow();
        }
        self.free.pop().expect("a pool that grew has a free run")
    }

    pub(super) fn give_back(&mut self, handle: Handle) {
        self.free.push(handle);
    }

    pub(super) fn run(&self, handle: Handle) -> &Run {
        &self.blocks[handle.0 as usize / BLOCK_RUNS][handle.0 as usize % BLOCK_RUNS]
    }

    pub(super) fn run_mut(&mut self, handle: Handle) -> &mut Run {
        &mut self.blocks[handle.0 as usize / BLOCK_RUNS][handle.0 as usize % BLOCK_RUNS]
    }

    /// Runs that lists hold.
    pub(super) fn used(&self) -> usize {
        self.blocks.len() * BLOCK_RUNS - self.free.len()
    }

    /// Makes sure that `runs` more can be taken without allocating.
    pub(super) fn reserve(&mut self, runs: usize) {
        while self.free.len() < runs {
            self.grow();
        }
    }

    fn grow(&mut self) {
        let first = self.blocks.len() * BLOCK_RUNS;
        self.blocks.push(alloc::vec![[0; RUN_IDS]; BLOCK_RUNS].into_boxed_slice());
        // Room for all, so that giving back never allocates.
        self.free.reserve(first + BLOCK_RUNS - self.free.len());
        let handles = (first..first + BLOCK_RUNS).rev();
        self.free.extend(handles.map(|run| Handle(run as u32)));
    }
}
