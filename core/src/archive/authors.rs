//! The authors: how far each is shown, and their rows by number.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::EntryId;
use super::floor::FloorAuthor;
use super::pool::{Id, Pool};
use super::sequence::Sequence;
use crate::ids::{AuthorId, Clock};

/// Stands for a message that was lost with its server, while a later one of its author was not.
/// No entry has this id.
pub(super) const HOLE: Id = Id::MAX;

/// Stands for a message that is counted below an adopted floor, above one of its author that is
/// not. No entry has this id or a greater one.
pub(super) const GONE: Id = HOLE - 1;

/// A message that is taken for lost may still come, from the other half of a split: for so many
/// messages of its author it is waited for, even when those after it were trimmed.
const HOLE_KEPT_MAX: u64 = 1 << 12;

/// How many messages of an author may be lost in a row: what comes after is not believed.
pub(super) const GAP_MAX: u64 = 1 << 16;

#[derive(Debug)]
struct Author {
    /// The greatest clock among its rows when they came.
    clock: Clock,
    /// Its rows by number; one more than the highest shown is the end.
    rows: Sequence,
    /// How many of its rows are in memory.
    there: u64,
}

/// What the number of an entry means to its author.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Accepted {
    /// A new row.
    New,
    /// Another copy of a row; where that is, unless it was trimmed.
    Copy(Option<Id>),
}

/// Who wrote what is shown.
///
/// An author is remembered while any of its rows is in memory. Of the others the one that wrote
/// last longest ago, by its clock, is forgotten when there are too many.
#[derive(Debug)]
pub(super) struct Authors {
    known: BTreeMap<AuthorId, Author>,
    /// Authors without a row in memory, by the clock of their last row.
    silent: BTreeSet<(Clock, AuthorId)>,
    /// Whether any was ever forgotten.
    forgot: bool,
    count_max: u32,
}

impl Authors {
    pub(super) fn new(count_max: u32) -> Self {
        Authors { known: BTreeMap::new(), silent: BTreeSet::new(), forgot: false, count_max }
    }

    pub(super) fn number(&self, author: &AuthorId) -> u64 {
        self.known.get(author).map_or(0, |author| author.rows.end() - 1)
    }

    pub(super) fn clock(&self, author: &AuthorId) -> Clock {
        self.known.get(author).map_or(Clock(0), |author| author.clock)
    }

    pub(super) fn may_follow(&self, author: &AuthorId, number: u64) -> bool {
        let end = match self.known.get(author) {
            Some(author) => author.rows.end(),
            None if self.forgot => return number > 0,
            None => 1,
        };
        number > 0 && number < end + GAP_MAX
    }

    /// Whether a message of an author was shown. One that may have been trimmed counts as shown.
    pub(super) fn has(&self, pool: &Pool, author: &AuthorId, number: u64) -> bool {
        self.known.get(author).is_some_and(|author| {
            number < author.rows.end() && author.rows.get(pool, number) != Some(HOLE)
        })
    }

    pub(super) fn row(&self, pool: &Pool, author: &AuthorId, number: u64) -> Option<Id> {
        self.known.get(author)?.rows.get(pool, number).filter(|id| *id != HOLE)
    }

    /// Takes the entry `id` in as this author's `number`.
    pub(super) fn accept(
        &mut self,
        pool: &mut Pool,
        author: AuthorId,
        number: u64,
        clock: Clock,
        id: EntryId,
    ) -> Accepted {
        let first = if self.forgot { number } else { 1 };
        let new = || Author { clock, rows: Sequence::new(first), there: 0 };
        let state = self.known.entry(author).or_insert_with(new);
        match state.rows.get(pool, number) {
            // What was taken for lost came after all.
            Some(HOLE) => state.rows.set(pool, number, id.0 as Id),
            Some(row) => return Accepted::Copy(Some(row)),
            None if number < state.rows.end() => return Accepted::Copy(None),
            None => {
                let most = state.rows.end() + GAP_MAX;
                assert!(number < most, "the caller asks whether it may follow");
                state.rows.skip_to(number);
                state.rows.push(pool, id.0 as Id);
            }
        }
        if state.there == 0 {
            self.silent.remove(&(state.clock, author));
        }
        state.clock = state.clock.max(clock);
        state.there += 1;
        self.forget(pool);
        Accepted::New
    }

    /// Another copy is the row now.
    pub(super) fn replace(&mut self, pool: &mut Pool, author: &AuthorId, number: u64, id: EntryId) {
        let state = self.known.get_mut(author).expect("the author of a row is known");
        state.rows.set(pool, number, id.0 as Id);
    }

    /// Trims the row of a number, once nothing before it is there, and with it those after it that
    /// are not there any more either. Old holes on the way are taken for trimmed.
    pub(super) fn trim(
        &mut self,
        pool: &mut Pool,
        author: &AuthorId,
        number: u64,
        is_there: impl Fn(Id, u64) -> bool,
    ) {
        let state = self.known.get_mut(author).expect("the author of a row is known");
        state.there -= 1;
        while let Some(id) = state.rows.get(pool, state.rows.front()) {
            let front = state.rows.front();
            // A row that moved to a later copy may outlive the next ones: these go when it goes.
            let outlives = front != number && is_there(id, front);
            let may_come = id == HOLE && state.rows.end() - front <= HOLE_KEPT_MAX;
            if outlives || may_come {
                break;
            }
            state.rows.pop_front(pool);
        }
        if state.there == 0 {
            self.silent.insert((state.clock, *author));
            self.forget(pool);
        }
    }

    // Floors.

    /// A row that was in memory is not known any more: it may come again.
    pub(super) fn lose(&mut self, pool: &mut Pool, author: &AuthorId, number: u64) {
        let state = self.known.get_mut(author).expect("the author of a row is known");
        state.rows.set(pool, number, HOLE);
        self.went(author, 1);
    }

    /// So many rows of an author are not in memory any more.
    fn went(&mut self, author: &AuthorId, count: u64) {
        let state = self.known.get_mut(author).expect("the author of a row is known");
        state.there -= count;
        if state.there == 0 {
            self.silent.insert((state.clock, *author));
        }
    }

    /// What is highest of an author whose rows were lost is the highest that is known still.
    pub(super) fn end_lost(&mut self, pool: &mut Pool, author: &AuthorId) {
        if let Some(state) = self.known.get_mut(author) {
            state.rows.drop_last_holes(pool);
        }
    }

    /// The ids of an author's messages from one number through another.
    pub(super) fn ids(&self, pool: &Pool, floor: &FloorAuthor) -> Vec<(u64, Id)> {
        let Some(state) = self.known.get(&floor.author) else { return Vec::new() };
        let first = state.rows.front().max(floor.from);
        let numbers = first..state.rows.end().min(floor.through + 1);
        numbers.filter_map(|number| Some((number, state.rows.get(pool, number)?))).collect()
    }

    /// An author's messages from one number through another are counted below a floor. As many as
    /// `count` of them were rows in memory until now.
    pub(super) fn adopt(&mut self, pool: &mut Pool, floor: &FloorAuthor, count: u64) {
        let FloorAuthor { author, from, through, clock } = *floor;
        let new = || Author { clock, rows: Sequence::new(1), there: 0 };
        let state = self.known.entry(author).or_insert_with(new);
        if state.there == 0 {
            self.silent.remove(&(state.clock, author));
        }
        state.clock = state.clock.max(clock);
        let rows = &mut state.rows;
        if from <= rows.front() {
            rows.trim_to(pool, rows.front().max(through + 1));
        } else {
            rows.skip_to(through + 1);
            (from..=through).for_each(|number| rows.set(pool, number, GONE));
        }
        while rows.get(pool, rows.front()) == Some(GONE) {
            rows.pop_front(pool);
        }
        self.went(&author, count);
    }

    /// Drops who is too many after an adoption, whose author may have forgotten some, too.
    pub(super) fn adopted(&mut self, pool: &mut Pool, forgot: bool) {
        self.forgot |= forgot;
        self.forget(pool);
    }

    /// Whether any was ever forgotten.
    pub(super) fn forgot(&self) -> bool {
        self.forgot
    }

    /// What is counted, or taken for lost, and is not in memory.
    pub(super) fn floors(
        &self,
        pool: &Pool,
        is_there: impl Fn(Id, &AuthorId, u64) -> bool,
    ) -> Vec<FloorAuthor> {
        let mut floors: Vec<FloorAuthor> = Vec::new();
        for (&author, state) in &self.known {
            let (clock, front, end) = (state.clock, state.rows.front(), state.rows.end());
            if front > 1 {
                floors.push(FloorAuthor { author, from: 1, through: front - 1, clock });
            }
            if state.there == end - front {
                continue;
            }
            for number in front..end {
                let id = state.rows.get(pool, number).filter(|id| *id != HOLE);
                if id.is_none_or(|id| is_there(id, &author, number)) {
                    continue;
                }
                match floors.last_mut() {
                    Some(last) if last.author == author && last.through + 1 == number => {
                        last.through = number;
                    }
                    _ => floors.push(FloorAuthor { author, from: number, through: number, clock }),
                }
            }
        }
        floors
    }

    /// Panics unless those who have no row there are silent, and they alone.
    pub(super) fn check(&self, pool: &Pool, is_there: impl Fn(Id, &AuthorId, u64) -> bool) {
        for (author, state) in &self.known {
            let there = (state.rows.front()..state.rows.end()).filter(|number| {
                let id = state.rows.get(pool, *number).expect("no gap in a sequence");
                is_there(id, author, *number)
            });
            assert_eq!(there.count() as u64, state.there, "rows in memory are counted");
            let silent = self.silent.contains(&(state.clock, *author));
            assert_eq!(state.there == 0, silent, "who is silent");
        }
        let silent = self.known.values().filter(|state| state.there == 0);
        assert_eq!(silent.count(), self.silent.len());
    }

    pub(super) fn reserve(&mut self, entries: usize) {
        self.known.values_mut().for_each(|author| author.rows.reserve(entries));
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        let known = size_of::<(AuthorId, Author)>() * 3 / 2;
        let silent = size_of::<(Clock, AuthorId)>() * 3 / 2;
        (self.known.len() * known + self.silent.len() * silent) as u64
    }

    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// Runs of the pool that the authors' rows hold.
    pub(super) fn runs(&self) -> usize {
        self.known.values().map(|author| author.rows.runs()).sum()
    }

    fn forget(&mut self, pool: &mut Pool) {
        while self.known.len() > self.count_max as usize {
            let Some((_, author)) = self.silent.pop_first() else { return };
            if let Some(mut forgotten) = self.known.remove(&author) {
                forgotten.rows.clear(pool);
            }
            self.forgot = true;
        }
    }
}
