//! The authors: how far each is shown, and their rows by number.

use alloc::collections::BTreeMap;

use super::EntryId;
use super::pool::{Id, Pool};
use super::sequence::Sequence;
use crate::ids::{AuthorId, Clock};

/// Stands for a message that was lost with its server, while a later one of its author was not.
/// No entry has this id.
pub(super) const HOLE: Id = Id::MAX;

/// How many messages of an author may be lost in a row: what comes after is not believed.
const GAP_MAX: u64 = 1 << 16;

#[derive(Debug)]
struct Author {
    /// The greatest clock among its rows when they came.
    clock: Clock,
    /// Its rows by number; one more than the highest shown is the end.
    rows: Sequence,
    /// Its last new row: the key in `silent`.
    last: EntryId,
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
/// last longest ago is forgotten when there are too many.
#[derive(Debug)]
pub(super) struct Authors {
    known: BTreeMap<AuthorId, Author>,
    /// Authors without a row in memory, by their last row.
    silent: BTreeMap<EntryId, AuthorId>,
    /// Whether any was ever forgotten.
    forgot: bool,
    count_max: u32,
}

impl Authors {
    pub(super) fn new(count_max: u32) -> Self {
        Authors { known: BTreeMap::new(), silent: BTreeMap::new(), forgot: false, count_max }
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
        let state = self.known.entry(author).or_insert_with(|| Author {
            clock,
            rows: Sequence::new(first),
            last: id,
        });
        match state.rows.get(pool, number) {
            Some(HOLE) => {
                // What was taken for lost came after all.
                state.rows.set(pool, number, id.0 as Id);
                state.clock = state.clock.max(clock);
                return Accepted::New;
            }
            Some(row) => return Accepted::Copy(Some(row)),
            None if number < state.rows.end() => return Accepted::Copy(None),
            None => {}
        }
        assert!(number < state.rows.end() + GAP_MAX, "the caller asks whether it may follow");
        if state.rows.is_empty() {
            self.silent.remove(&state.last);
        }
        while state.rows.end() < number {
            state.rows.push(pool, HOLE);
        }
        state.rows.push(pool, id.0 as Id);
        state.clock = state.clock.max(clock);
        state.last = id;
        self.forget();
        Accepted::New
    }

    /// Another copy is the row now.
    pub(super) fn replace(&mut self, pool: &mut Pool, author: &AuthorId, number: u64, id: EntryId) {
        let state = self.known.get_mut(author).expect("the author of a row is known");
        state.rows.set(pool, number, id.0 as Id);
    }

    /// Trims the row of a number, once nothing before it is there, and with it those after it that
    /// are not there any more either. Holes on the way are taken for trimmed.
    pub(super) fn trim(
        &mut self,
        pool: &mut Pool,
        author: &AuthorId,
        number: u64,
        is_there: impl Fn(Id, u64) -> bool,
    ) {
        let state = self.known.get_mut(author).expect("the author of a row is known");
        // A row that moved to a later copy may outlive the next ones: these go when it goes.
        while let Some(id) = state.rows.get(pool, state.rows.front()) {
            let front = state.rows.front();
            if front != number && is_there(id, front) {
                return;
            }
            state.rows.pop_front(pool);
        }
        self.silent.insert(state.last, *author);
        self.forget();
    }

    /// Panics unless those who have no row there are silent, and they alone.
    pub(super) fn check(&self, pool: &Pool, is_there: impl Fn(Id, &AuthorId, u64) -> bool) {
        for (author, state) in &self.known {
            let there = (state.rows.front()..state.rows.end()).any(|number| {
                let id = state.rows.get(pool, number).expect("no gap in a sequence");
                is_there(id, author, number)
            });
            assert_eq!(there, !state.rows.is_empty(), "rows that are gone leave nothing");
            assert_eq!(there, !self.silent.contains_key(&state.last), "who is silent");
        }
        let silent = self.known.values().filter(|state| state.rows.is_empty());
        assert_eq!(silent.count(), self.silent.len());
    }

    pub(super) fn reserve(&mut self, entries: usize) {
        self.known.values_mut().for_each(|author| author.rows.reserve(entries));
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        let known = size_of::<(AuthorId, Author)>() * 3 / 2;
        let silent = size_of::<(EntryId, AuthorId)>() * 3 / 2;
        (self.known.len() * known + self.silent.len() * silent) as u64
    }

    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// Runs of the pool that the authors' rows hold.
    pub(super) fn runs(&self) -> usize {
        self.known.values().map(|author| author.rows.runs()).sum()
    }

    fn forget(&mut self) {
        while self.known.len() > self.count_max as usize {
            let Some((_, author)) = self.silent.pop_first() else { return };
            self.known.remove(&author);
            self.forgot = true;
        }
    }
}
