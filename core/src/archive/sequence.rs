//! Ids by consecutive numbers: an origin's entries, an author's rows.

use alloc::vec::Vec;

use super::pool::{Handle, Id, Pool, RUN_IDS};

/// A list that grows at its end and is trimmed at its front.
#[derive(Debug)]
pub(super) struct Sequence {
    /// The number of the first place of the first run.
    start: u64,
    /// The first number that is still there.
    front: u64,
    /// One more than the last number.
    end: u64,
    runs: Vec<Handle>,
}

impl Sequence {
    /// An empty list whose first number will be `first`.
    pub(super) fn new(first: u64) -> Self {
        Sequence { start: first, front: first, end: first, runs: Vec::new() }
    }

    pub(super) fn front(&self) -> u64 {
        self.front
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn is_empty(&self) -> bool {
        self.front == self.end
    }

    pub(super) fn push(&mut self, pool: &mut Pool, id: Id) {
        let (run, at) = self.place(self.end);
        if run == self.runs.len() {
            self.runs.push(pool.take());
        }
        pool.run_mut(self.runs[run])[at] = id;
        self.end += 1;
    }

    pub(super) fn get(&self, pool: &Pool, number: u64) -> Option<Id> {
        if number < self.front || number >= self.end {
            return None;
        }
        let (run, at) = self.place(number);
        Some(pool.run(self.runs[run])[at])
    }

    /// Puts another id in the place of a number that is there.
    pub(super) fn set(&mut self, pool: &mut Pool, number: u64, id: Id) {
        assert!((self.front..self.end).contains(&number), "only what is there can be replaced");
        let (run, at) = self.place(number);
        pool.run_mut(self.runs[run])[at] = id;
    }

    pub(super) fn pop_front(&mut self, pool: &mut Pool) {
        assert!(!self.is_empty(), "only what is there can be trimmed");
        self.front += 1;
        if self.is_empty() || self.front - self.start == RUN_IDS as u64 {
            pool.give_back(self.runs.remove(0));
            self.start = self.front;
        }
    }

    /// Room for `count` more without allocating, given that the pool has the runs.
    pub(super) fn reserve(&mut self, count: usize) {
        self.runs.reserve(count / RUN_IDS + 2);
    }

    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    fn place(&self, number: u64) -> (usize, usize) {
        let offset = (number - self.start) as usize;
        (offset / RUN_IDS, offset % RUN_IDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_find_their_ids_after_trimming_too() {
        let (mut pool, mut list) = (Pool::default(), Sequence::new(7));
        for number in 7..1_007 {
            list.push(&mut pool, number as Id * 2);
        }
        for trimmed in 7..900 {
            assert_eq!(list.get(&pool, trimmed), Some(trimmed as Id * 2));
            list.pop_front(&mut pool);
            assert_eq!(list.get(&pool, trimmed), None);
            assert_eq!(list.get(&pool, 1_006), Some(2_012));
        }
        assert_eq!(list.get(&pool, 1_007), None);
        list.set(&mut pool, 950, 1);
        assert_eq!(list.get(&pool, 950), Some(1));
        while !list.is_empty() {
            list.pop_front(&mut pool);
        }
        assert_eq!(pool.used(), 0);
        list.push(&mut pool, 3);
        assert_eq!((list.front(), list.end(), list.get(&pool, 1_007)), (1_007, 1_008, Some(3)));
    }
}
