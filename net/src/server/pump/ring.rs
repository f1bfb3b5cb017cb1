//! The part of the log that cursors may still read.

use std::collections::VecDeque;

use cordee_core::ids::Position;
use cordee_core::log::Chunk;

use crate::sync::Arc;

/// Chunks in order, each with a sequence number by which cursors find it.
#[derive(Debug, Default)]
pub(super) struct Ring {
    chunks: VecDeque<Arc<Chunk>>,
    /// The number of the first chunk.
    first: u64,
    /// Nothing before this position is there any more.
    start: Position,
}

impl Ring {
    pub(super) fn push(&mut self, chunk: Arc<Chunk>) {
        debug_assert!(self.chunks.back().is_none_or(|last| last.end() == chunk.first()));
        self.chunks.push_back(chunk);
    }

    /// Lets go of the chunks that lie wholly before `before`.
    pub(super) fn trim(&mut self, before: Position) {
        while let Some(chunk) = self.chunks.front().filter(|chunk| chunk.end() <= before) {
            self.start = chunk.end();
            self.chunks.pop_front();
            self.first += 1;
        }
    }

    pub(super) fn start(&self) -> Position {
        self.start
    }

    /// The number of the first chunk that is there.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The chunk of a number; `None` for one that is still to come.
    pub(super) fn get(&self, number: u64) -> Option<&Arc<Chunk>> {
        self.chunks.get(number.checked_sub(self.first)? as usize)
    }

    /// The number of the chunk with the item at `position`.
    pub(super) fn find(&self, position: Position) -> u64 {
        self.first + self.chunks.partition_point(|chunk| chunk.end() <= position) as u64
    }
}
