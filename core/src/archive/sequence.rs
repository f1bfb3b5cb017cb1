//! Ids by consecutive numbers: an origin's entries, an author's rows.

use alloc::vec::Vec;

use super::authors::HOLE;
use super::pool::{Handle, Id, Pool, RUN_IDS};

/// A list that grows at its end and is trimmed at its front.
///
/// Numbers in between that have no id are holes. Where a whole run would be holes there is none, so
/// that a gap takes nothing, however long it is.
#[derive(Debug)]
pub(super) struct Sequence {
    /// The number of the first place of page 0. A page is as long as a run.
    base: u64,
    /// The first number that is still there.
    front: u64,
    /// One more than the last number.
    end: u64,
    /// By page, those that have an id.
    runs: Vec<(u64, Handle)>,
}

impl Sequence {
    /// An empty list whose first number will be `first`.
    pub(super) fn new(first: u64) -> Self {
        Sequence { base: first, front: first, end: first, runs: Vec::new() }
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
        self.end += 1;
        self.set(pool, self.end - 1, id);
    }

    /// Makes holes of all numbers below `number` that are not there yet.
    pub(super) fn skip_to(&mut self, number: u64) {
        self.end = self.end.max(number);
    }

    pub(super) fn get(&self, pool: &Pool, number: u64) -> Option<Id> {
        if number < self.front || number >= self.end {
            return None;
        }
        let (page, at) = self.place(number);
        Some(self.find(page).map_or(HOLE, |run| pool.run(self.runs[run].1)[at]))
    }

    /// Puts another id in the place of a number that is there.
    pub(super) fn set(&mut self, pool: &mut Pool, number: u64, id: Id) {
        assert!((self.front..self.end).contains(&number), "only what is there can be replaced");
        let (page, at) = self.place(number);
        let run = self.find(page).unwrap_or_else(|run| {
            let handle = pool.take();
            pool.run_mut(handle).fill(HOLE);
            self.runs.insert(run, (page, handle));
            run
        });
        pool.run_mut(self.runs[run].1)[at] = id;
    }

    pub(super) fn pop_front(&mut self, pool: &mut Pool) {
        assert!(!self.is_empty(), "only what is there can be trimmed");
        self.trim_to(pool, self.front + 1);
    }

    /// Trims everything below `front`, which may lie beyond the end.
    pub(super) fn trim_to(&mut self, pool: &mut Pool, front: u64) {
        if front >= self.end {
            self.clear(pool);
            *self = Sequence { runs: core::mem::take(&mut self.runs), ..Sequence::new(front) };
            return;
        }
        self.front = self.front.max(front);
        let (page, _) = self.place(self.front);
        while self.runs.first().is_some_and(|(first, _)| *first < page) {
            pool.give_back(self.runs.remove(0).1);
        }
    }

    /// Takes the holes at the end away.
    pub(super) fn drop_last_holes(&mut self, pool: &mut Pool) {
        while !self.is_empty() && self.get(pool, self.end - 1) == Some(HOLE) {
            self.end -= 1;
        }
        let pages = (self.end - self.base).div_ceil(RUN_IDS as u64);
        while let Some((_, run)) = self.runs.pop_if(|(last, _)| *last >= pages) {
            pool.give_back(run);
        }
    }

    /// Gives all runs back.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        self.runs.drain(..).for_each(|(_, run)| pool.give_back(run));
        self.front = self.end;
    }

    /// Room for `count` more without allocating, given that the pool has the runs.
    pub(super) fn reserve(&mut self, count: usize) {
        self.runs.reserve(count / RUN_IDS + 2);
    }

    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    fn place(&self, number: u64) -> (u64, usize) {
        let offset = number - self.base;
        (offset / RUN_IDS as u64, offset as usize % RUN_IDS)
    }

    /// The run of a page, or where it would be. Mostly no page is missing.
    fn find(&self, page: u64) -> Result<usize, usize> {
        let first = self.runs.first().map_or(0, |(first, _)| *first);
        let likely = page.wrapping_sub(first) as usize;
        if self.runs.get(likely).is_some_and(|(found, _)| *found == page) {
            return Ok(likely);
        }
        self.runs.binary_search_by_key(&page, |(page, _)| *page)
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

    #[test]
    fn a_gap_takes_no_memory_and_what_fills_it_is_found() {
        let (mut pool, mut list) = (Pool::default(), Sequence::new(1));
        list.push(&mut pool, 10);
        list.skip_to(60_000);
        list.push(&mut pool, 20);
        assert_eq!(pool.used(), 2);
        assert_eq!((list.end(), list.get(&pool, 30_000)), (60_001, Some(HOLE)));
        list.set(&mut pool, 30_000, 15);
        assert_eq!([1, 2, 30_000, 60_000].map(|n| list.get(&pool, n)), {
            [Some(10), Some(HOLE), Some(15), Some(20)]
        });
        assert_eq!(pool.used(), 3);
        list.set(&mut pool, 60_000, HOLE);
        list.drop_last_holes(&mut pool);
        assert_eq!((list.end(), pool.used()), (30_001, 2));
        list.trim_to(&mut pool, 30_000);
        assert_eq!((list.front(), pool.used()), (30_000, 1));
        list.trim_to(&mut pool, 99_999);
        assert_eq!((list.front(), list.end(), pool.used()), (99_999, 99_999, 0));
        list.push(&mut pool, 30);
        assert_eq!(list.get(&pool, 99_999), Some(30));
    }
}
