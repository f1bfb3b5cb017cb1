//! A sorted list of rows with ranks: the rows of a scope, and those of one origin in a scope.
//!
//! Ranks count from 0 and include what was trimmed: trimmed rows stand below all others. A list
//! is cut into runs; of each run the rank and the key of its first row are kept side by side, so
//! finding a place touches one small array and one run.

use alloc::vec::Vec;

use super::pool::{Handle, Id, Pool, RUN_IDS};

/// Where a row is, or would be: run, and place within the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    run: usize,
    at: usize,
}

/// A sorted list. It knows the leading 64 bits of its rows' keys (a clock, or a number); for the
/// rest its caller says which rows are less.
#[derive(Debug, Default)]
pub(super) struct RowList {
    /// By run: the rank of its first row.
    firsts: Vec<u64>,
    /// By run: the key of its first row.
    keys: Vec<u64>,
    runs: Vec<Handle>,
    /// The rank of the next row at the end: how many rows there are, trimmed ones included.
    end: u64,
    /// How often ranks went down, or up by trimming amid: as long as this stays, what stands at a
    /// rank only changes when a row comes in before it.
    removals: u64,
}

impl RowList {
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// How many rows were trimmed.
    pub(super) fn trimmed(&self) -> u64 {
        self.firsts.first().copied().unwrap_or(self.end)
    }

    pub(super) fn removals(&self) -> u64 {
        self.removals
    }

    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn last(&self, pool: &Pool) -> Option<Id> {
        let run = self.runs.len().checked_sub(1)?;
        Some(pool.run(self.runs[run])[self.len_of(run) - 1])
    }

    pub(super) fn get(&self, pool: &Pool, rank: u64) -> Option<Id> {
        if rank < self.trimmed() || rank >= self.end {
            return None;
        }
        let run = self.firsts.partition_point(|first| *first <= rank) - 1;
        Some(pool.run(self.runs[run])[(rank - self.firsts[run]) as usize])
    }

    /// The rows from `rank` on, or from the first that is there.
    pub(super) fn iter_from<'a>(
        &'a self,
        pool: &'a Pool,
        rank: u64,
    ) -> impl Iterator<Item = Id> + 'a {
        let rank = rank.clamp(self.trimmed(), self.end);
        let first = self.firsts.partition_point(|first| *first <= rank).saturating_sub(1);
        (first..self.runs.len()).flat_map(move |run| {
            let skip = rank.saturating_sub(self.firsts[run]) as usize;
            pool.run(self.runs[run])[..self.len_of(run)].iter().skip(skip).copied()
        })
    }

    pub(super) fn rank(&self, place: Place) -> u64 {
        self.firsts.get(place.run).copied().unwrap_or(self.end) + place.at as u64
    }

    /// The place after every row that is `less`, for one more row to be put there. These all have
    /// keys of at most `key`.
    pub(super) fn lower_bound(&self, pool: &Pool, key: u64, less: impl Fn(Id) -> bool) -> Place {
        let mut run = self.keys.partition_point(|first| *first < key);
        while run < self.runs.len() && self.keys[run] == key && less(pool.run(self.runs[run])[0]) {
            run += 1;
        }
        let Some(run) = run.checked_sub(1) else { return Place { run: 0, at: 0 } };
        let ids = &pool.run(self.runs[run])[..self.len_of(run)];
        Place { run, at: ids.partition_point(|id| less(*id)) }
    }

    /// The place of a row that is there.
    pub(super) fn find(&self, pool: &Pool, key: u64, id: Id) -> Option<Place> {
        let mut run = self.keys.partition_point(|first| *first <= key);
        while run > 0 {
            run -= 1;
            let ids = &pool.run(self.runs[run])[..self.len_of(run)];
            if let Some(at) = position(ids, id) {
                return Some(Place { run, at });
            }
            if self.keys[run] < key {
                break;
            }
        }
        None
    }

    pub(super) fn push(&mut self, pool: &mut Pool, id: Id, key: u64) {
        let length = self.runs.len().checked_sub(1).map_or(RUN_IDS, |run| self.len_of(run));
        if length == RUN_IDS {
            self.runs.push(pool.take());
            self.firsts.push(self.end);
            self.keys.push(key);
        }
        let run = self.runs[self.runs.len() - 1];
        pool.run_mut(run)[length % RUN_IDS] = id;
        self.end += 1;
    }

    /// Puts a row at the place that [`lower_bound`](Self::lower_bound) gave.
    pub(super) fn insert(
        &mut self,
        pool: &mut Pool,
        mut place: Place,
        id: Id,
        key: u64,
        key_of: impl Fn(Id) -> u64,
    ) {
        if place.run + 1 >= self.runs.len() && self.rank(place) == self.end {
            return self.push(pool, id, key);
        }
        if self.len_of(place.run) == RUN_IDS {
            self.split(pool, place.run, key_of);
            if place.at > RUN_IDS / 2 {
                place = Place { run: place.run + 1, at: place.at - RUN_IDS / 2 };
            }
        }
        let length = self.len_of(place.run);
        let ids = pool.run_mut(self.runs[place.run]);
        ids.copy_within(place.at..length, place.at + 1);
        ids[place.at] = id;
        if place.at == 0 {
            self.keys[place.run] = key;
        }
        self.firsts[place.run + 1..].iter_mut().for_each(|first| *first += 1);
        self.end += 1;
    }

    /// Takes a row out: those after it move down by one.
    pub(super) fn remove(&mut self, pool: &mut Pool, place: Place, key_of: impl Fn(Id) -> u64) {
        self.firsts[place.run + 1..].iter_mut().for_each(|first| *first -= 1);
        self.end -= 1;
        self.removals += 1;
        let left = self.len_of(place.run);
        self.close_gap(pool, place, left, key_of);
    }

    /// Trims a row: from now on it stands below all others, so those before it move up by one.
    pub(super) fn trim(&mut self, pool: &mut Pool, place: Place, key_of: impl Fn(Id) -> u64) {
        self.removals += u64::from(place != Place { run: 0, at: 0 });
        self.firsts[..=place.run].iter_mut().for_each(|first| *first += 1);
        let left = self.len_of(place.run);
        self.close_gap(pool, place, left, key_of);
    }

    /// Sets how many rows were trimmed: all others move by the difference.
    pub(super) fn set_trimmed(&mut self, trimmed: u64) {
        let before = self.trimmed();
        let moved = |rank: u64| rank - before + trimmed;
        self.firsts.iter_mut().for_each(|first| *first = moved(*first));
        self.end = moved(self.end);
        self.removals += 1;
    }

    /// Room for `count` more without allocating, given that the pool has the runs.
    pub(super) fn reserve(&mut self, count: usize) {
        // Half-full runs are the worst that splitting leaves.
        let runs = 2 * count / RUN_IDS + 2;
        self.firsts.reserve(runs);
        self.keys.reserve(runs);
        self.runs.reserve(runs);
    }

    /// Panics unless runs, ranks and keys agree.
    pub(super) fn check(&self, pool: &Pool, key_of: impl Fn(Id) -> u64) {
        assert!(self.runs.len() == self.firsts.len() && self.runs.len() == self.keys.len());
        for run in 0..self.runs.len() {
            assert!((1..=RUN_IDS).contains(&self.len_of(run)), "runs are neither empty nor over");
            assert_eq!(self.keys[run], key_of(pool.run(self.runs[run])[0]), "the first row's key");
        }
        assert!(self.keys.is_sorted());
    }

    fn len_of(&self, run: usize) -> usize {
        (self.firsts.get(run + 1).copied().unwrap_or(self.end) - self.firsts[run]) as usize
    }

    fn close_gap(
        &mut self,
        pool: &mut Pool,
        place: Place,
        left: usize,
        key_of: impl Fn(Id) -> u64,
    ) {
        if left == 0 {
            pool.give_back(self.runs.remove(place.run));
            self.firsts.remove(place.run);
            self.keys.remove(place.run);
            return;
        }
        let ids = pool.run_mut(self.runs[place.run]);
        ids.copy_within(place.at + 1..left + 1, place.at);
        if place.at == 0 {
            self.keys[place.run] = key_of(ids[0]);
        }
    }

    fn split(&mut self, pool: &mut Pool, run: usize, key_of: impl Fn(Id) -> u64) {
        let upper = pool.take();
        let mut ids = [0; RUN_IDS / 2];
        ids.copy_from_slice(&pool.run(self.runs[run])[RUN_IDS / 2..]);
        pool.run_mut(upper)[..RUN_IDS / 2].copy_from_slice(&ids);
        self.runs.insert(run + 1, upper);
        self.firsts.insert(run + 1, self.firsts[run] + (RUN_IDS / 2) as u64);
        self.keys.insert(run + 1, key_of(ids[0]));
    }
}

/// Where an id is among others. Where these came in their order halving finds it; where they did
/// not, all are looked at, many at once and without a way out in between, so that the processor
/// compares them side by side.
fn position(ids: &[Id], id: Id) -> Option<usize> {
    const AT_ONCE: usize = 16;
    if let Ok(at) = ids.binary_search(&id) {
        return Some(at);
    }
    let (many, rest) = ids.as_chunks::<AT_ONCE>();
    let holds = |ids: &[Id; AT_ONCE]| ids.iter().fold(false, |found, other| found | (*other == id));
    let (before, ids) = match many.iter().position(holds) {
        Some(chunk) => (chunk * AT_ONCE, &many[chunk][..]),
        None => (many.len() * AT_ONCE, rest),
    };
    ids.iter().position(|other| *other == id).map(|at| before + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows are in the order of their ids; many share a key.
    fn key(id: Id) -> u64 {
        u64::from(id / 4)
    }

    fn place(list: &RowList, pool: &Pool, id: Id) -> Place {
        list.lower_bound(pool, key(id), |other| other < id)
    }

    fn assert_same(list: &RowList, pool: &Pool, trimmed: u64, expected: &[Id]) {
        list.check(pool, key);
        assert_eq!(list.trimmed(), trimmed);
        assert_eq!(list.end(), trimmed + expected.len() as u64);
        assert_eq!(list.iter_from(pool, 0).collect::<Vec<_>>(), expected);
        for (at, &id) in expected.iter().enumerate() {
            let rank = trimmed + at as u64;
            assert_eq!(list.get(pool, rank), Some(id));
            let found = list.find(pool, key(id), id).expect("it is there");
            assert_eq!(list.rank(found), rank);
            assert_eq!(list.rank(place(list, pool, id)), rank);
        }
        let middle = expected.len() / 2;
        let rest: Vec<_> = list.iter_from(pool, trimmed + middle as u64).collect();
        assert_eq!(rest, expected[middle..]);
        assert_eq!(list.last(pool), expected.last().copied());
    }

    #[test]
    fn a_list_stays_sorted_and_its_ranks_right() {
        arbtest::arbtest(|random| {
            let (mut pool, mut list) = (Pool::default(), RowList::default());
            let (mut expected, mut trimmed) = (Vec::new(), 0);
            let steps = random.int_in_range(1..=600_u32)?;
            let removing: u8 = random.int_in_range(0..=90)?;
            for step in 0..steps {
                let dice: u8 = random.int_in_range(0..=99)?;
                if dice < removing && !expected.is_empty() {
                    let at = random.choose_index(expected.len())?;
                    let id = expected.remove(at);
                    let place = list.find(&pool, key(id), id).expect("it is there");
                    if dice.is_multiple_of(2) {
                        list.remove(&mut pool, place, key);
                    } else {
                        list.trim(&mut pool, place, key);
                        trimmed += 1;
                    }
                    continue;
                }
                let id = if dice.is_multiple_of(3) {
                    random.int_in_range(0..=999)?
                } else {
                    1_000 + step
                };
                if let Err(at) = expected.binary_search(&id) {
                    expected.insert(at, id);
                    let place = place(&list, &pool, id);
                    list.insert(&mut pool, place, id, key(id), key);
                }
            }
            assert_same(&list, &pool, trimmed, &expected);
            assert_eq!(pool.used(), list.runs());
            Ok(())
        });
    }
}
