//! A set of blocks: one bit each, and a bit for every 64 of these that has one.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Which blocks of a file. Half a mebibyte for as many as a file can have; the next block of the
/// set is found by looking at two bits' words where it is near, at a thousand words at most.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockSet {
    blocks: u64,
    len: u64,
    words: Vec<u64>,
    /// Which words are not 0.
    summary: Vec<u64>,
}

impl BlockSet {
    /// An empty set for a file of `blocks` blocks.
    #[must_use]
    pub fn new(blocks: u64) -> BlockSet {
        let words = blocks.div_ceil(64) as usize;
        BlockSet { blocks, len: 0, words: vec![0; words], summary: vec![0; words.div_ceil(64)] }
    }

    /// All of a file of `blocks` blocks.
    #[must_use]
    pub fn full(blocks: u64) -> BlockSet {
        let mut set = BlockSet::new(blocks);
        set.insert_range(0..blocks);
        set
    }

    /// How many blocks the file has.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many blocks are in the set.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether all are there.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.len == self.blocks
    }

    /// Whether `block` is there. Panics beyond the end of the file.
    #[must_use]
    pub fn contains(&self, block: u64) -> bool {
        assert!(block < self.blocks, "a block of the file");
        self.words[(block / 64) as usize] & 1 << (block % 64) != 0
    }

    /// Puts a block in; false if it was there. Panics beyond the end of the file.
    pub fn insert(&mut self, block: u64) -> bool {
        self.insert_range(block..block + 1) == 1
    }

    /// Takes a block out; false if it was not there. Panics beyond the end of the file.
    pub fn remove(&mut self, block: u64) -> bool {
        self.remove_range(block..block + 1) == 1
    }

    /// Puts blocks in; how many were not there. Panics beyond the end of the file.
    pub fn insert_range(&mut self, range: Range<u64>) -> u64 {
        assert!(range.end <= self.blocks, "blocks of the file");
        let mut added = 0;
        for (at, mask) in masks(range) {
            added += u64::from((mask & !self.words[at]).count_ones());
            self.words[at] |= mask;
            self.summary[at / 64] |= 1 << (at % 64);
        }
        self.len += added;
        added
    }

    /// Takes blocks out; how many were there. Panics beyond the end of the file.
    pub fn remove_range(&mut self, range: Range<u64>) -> u64 {
        assert!(range.end <= self.blocks, "blocks of the file");
        let mut removed = 0;
        for (at, mask) in masks(range) {
            removed += u64::from((mask & self.words[at]).count_ones());
            self.words[at] &= !mask;
            if self.words[at] == 0 {
                self.summary[at / 64] &= !(1 << (at % 64));
            }
        }
        self.len -= removed;
        removed
    }

    /// The first block of the set that is not below `from`.
    #[must_use]
    pub fn next(&self, from: u64) -> Option<u64> {
        if from >= self.blocks {
            return None;
        }
        let at = (from / 64) as usize;
        let word = self.words[at] & u64::MAX << (from % 64);
        if word != 0 {
            return Some(at as u64 * 64 + u64::from(word.trailing_zeros()));
        }
        let next = at + 1;
        let mut masked = self.summary.get(next / 64)? & u64::MAX << (next % 64);
        for above in next / 64.. {
            if masked != 0 {
                let at = above * 64 + masked.trailing_zeros() as usize;
                return Some(at as u64 * 64 + u64::from(self.words[at].trailing_zeros()));
            }
            masked = *self.summary.get(above + 1)?;
        }
        None
    }

    /// The first block of the file that is not below `from` and not in the set; the number of
    /// blocks if there is none.
    #[must_use]
    pub fn next_missing(&self, from: u64) -> u64 {
        let mut block = from;
        while block < self.blocks {
            let word = !self.words[(block / 64) as usize] >> (block % 64);
            if word != 0 {
                return (block + u64::from(word.trailing_zeros())).min(self.blocks);
            }
            block = (block / 64 + 1) * 64;
        }
        self.blocks
    }

    /// The blocks of the set from `first` on without a gap, at most `most`.
    #[must_use]
    pub fn run_at(&self, first: u64, most: u64) -> Range<u64> {
        let end = first.saturating_add(most).min(self.blocks);
        let mut block = first;
        while block < end {
            let word = !(self.words[(block / 64) as usize] >> (block % 64));
            let (ones, rest) = (u64::from(word.trailing_zeros()), 64 - block % 64);
            block += ones.min(rest);
            if ones < rest {
                break;
            }
        }
        first..block.min(end).max(first)
    }

    /// Its blocks as runs that do not touch, in order.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let mut from = 0;
        core::iter::from_fn(move || {
            let first = self.next(from)?;
            from = self.next_missing(first);
            Some(first..from)
        })
    }

    /// The blocks that are not in it as runs that do not touch, in order.
    pub fn missing_runs(&self) -> impl Iterator<Item = Range<u64>> {
        let mut from = 0;
        core::iter::from_fn(move || {
            let first = self.next_missing(from);
            if first == self.blocks {
                return None;
            }
            from = self.next(first).unwrap_or(self.blocks);
            Some(first..from)
        })
    }
}

/// The words that a range touches, and which of their bits.
fn masks(range: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let mut block = range.start;
    core::iter::from_fn(move || {
        if block >= range.end {
            return None;
        }
        let (at, low) = (block / 64, block % 64);
        let end = range.end.min((at + 1) * 64);
        let bits = end - block;
        block = end;
        Some((at as usize, u64::MAX >> (64 - bits) << low))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;
    use alloc::collections::BTreeSet;

    #[test]
    fn it_holds_what_a_plain_set_holds() {
        let mut prng = Prng::new(5);
        for blocks in [1, 63, 64, 65, 700, 9_000] {
            let (mut set, mut plain) = (BlockSet::new(blocks), BTreeSet::new());
            for _ in 0..300 {
                let first = prng.below(blocks);
                let range = first..first + 1 + prng.below((blocks - first).min(200));
                if prng.below(2) == 0 {
                    let added = range.clone().filter(|block| plain.insert(*block)).count();
                    assert_eq!(set.insert_range(range), added as u64);
                } else {
                    let removed = range.clone().filter(|block| plain.remove(block)).count();
                    assert_eq!(set.remove_range(range), removed as u64);
                }
                let from = prng.below(blocks + 2);
                assert_eq!(set.next(from), plain.range(from..).next().copied());
                let missing = (from..blocks).find(|block| !plain.contains(block));
                assert_eq!(set.next_missing(from), missing.unwrap_or(blocks));
                assert_eq!(set.len(), plain.len() as u64);
                let most = prng.below(150);
                let run = (from..blocks).take(most as usize);
                let run = run.take_while(|block| plain.contains(block)).count() as u64;
                assert_eq!(set.run_at(from, most), from..from + run);
            }
            let of_runs: BTreeSet<u64> = set.runs().flatten().collect();
            assert_eq!(of_runs, plain);
            let missing: BTreeSet<u64> = set.missing_runs().flatten().collect();
            assert!(missing.is_disjoint(&plain));
            assert_eq!((missing.len() + plain.len()) as u64, blocks);
        }
    }

    #[test]
    fn a_file_without_blocks_is_whole() {
        let set = BlockSet::full(0);
        assert!(set.is_full() && set.is_empty());
        assert_eq!((set.next(0), set.next_missing(0)), (None, 0));
    }

    #[test]
    fn far_blocks_are_found() {
        let mut set = BlockSet::new(1 << 22);
        set.insert((1 << 22) - 1);
        assert_eq!(set.next(0), Some((1 << 22) - 1));
        assert!(set.contains((1 << 22) - 1) && !set.contains(0));
        assert!(!set.insert((1 << 22) - 1) && set.remove((1 << 22) - 1));
        assert_eq!(set.next(0), None);
    }
}
