//! Which rows were shown: per room or talk, the numbers of each author.
//!
//! An author's messages are shown in the author's order, so mostly what is not higher was shown
//! before: it comes again when it was handed back, or when two servers took it in. But where a part
//! of the cluster had lost an author's earlier messages and took the later ones in, the earlier
//! ones come when it meets the rest. So what was skipped lately is known, too.

use alloc::collections::BTreeMap;
use core::mem;

use crate::ids::{AuthorId, SessionId};

/// A room or a talk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum RowScope {
    /// A room, by a number that it gets when it is joined and that is never used again.
    Room(u32),
    /// A talk, by the other's session.
    Talk(SessionId),
}

/// What was taken in of an author in a room or talk.
#[derive(Clone, Copy, Debug)]
struct Taken {
    first: u64,
    last: u64,
    /// Which of the last [`RECENT`] numbers were, each at its remainder. Of those before these, all
    /// from the first on count as taken in.
    recent: [u64; WORDS],
}

impl Taken {
    fn new(number: u64) -> Self {
        let mut taken = Taken { first: number, last: number, recent: [0; WORDS] };
        taken.mark(number, true);
        taken
    }

    fn has(&self, number: u64) -> bool {
        match self.last.checked_sub(number) {
            None => false,
            Some(below) if below < RECENT => {
                self.recent[word(number)] >> (number % u64::from(u64::BITS)) & 1 == 1
            }
            Some(_) => number >= self.first,
        }
    }

    /// Takes a number in. Returns whether it is new.
    fn add(&mut self, number: u64) -> bool {
        let new = !self.has(number);
        if number > self.last {
            let skipped = (number - self.last - 1).min(RECENT);
            (number - skipped..number).for_each(|skipped| self.mark(skipped, false));
            self.last = number;
        }
        if self.last - number < RECENT {
            self.mark(number, true);
        }
        self.first = self.first.min(number);
        new
    }

    fn absorb(&mut self, other: &Taken) {
        let (low, high) = if self.last <= other.last { (*self, *other) } else { (*other, *self) };
        *self = high;
        let recent = low.last.saturating_sub(RECENT - 1)..=low.last;
        for number in recent.filter(|number| low.has(*number)) {
            self.add(number);
        }
        self.first = low.first.min(high.first);
    }

    fn mark(&mut self, number: u64, taken: bool) {
        let bit = 1 << (number % u64::from(u64::BITS));
        let word = &mut self.recent[word(number)];
        *word = if taken { *word | bit } else { *word & !bit };
    }
}

fn word(number: u64) -> usize {
    (number / u64::from(u64::BITS)) as usize % WORDS
}

/// How many of an author's last numbers are known one by one.
const RECENT: u64 = WORDS as u64 * u64::BITS as u64;
const WORDS: usize = 16;

/// What the memory of an author takes, in bytes, beside its node.
pub(super) const TAKEN_BYTES: u64 = size_of::<Taken>() as u64;

/// Two generations: what did not come up again while the young one filled is forgotten. What
/// comes again does so shortly after a server died, so what matters is always young.
#[derive(Debug, Default)]
pub(super) struct Rows {
    young: BTreeMap<(RowScope, AuthorId), Taken>,
    old: BTreeMap<(RowScope, AuthorId), Taken>,
}

impl Rows {
    /// Takes a row in. Returns whether it is new.
    pub(super) fn add(
        &mut self,
        scope: RowScope,
        author: AuthorId,
        number: u64,
        authors_max: u32,
    ) -> bool {
        let key = (scope, author);
        if let Some(taken) = self.young.get_mut(&key) {
            return taken.add(number);
        }
        let new = !self.has(scope, author, number);
        self.take_in(key, &Taken::new(number), authors_max);
        new
    }

    /// Whether a row was taken in.
    pub(super) fn has(&self, scope: RowScope, author: AuthorId, number: u64) -> bool {
        let generations = [&self.young, &self.old].into_iter();
        let taken = generations.filter_map(|rows| rows.get(&(scope, author)));
        taken.into_iter().any(|taken| taken.has(number))
    }

    /// Takes in all rows of another.
    pub(super) fn absorb(&mut self, other: &mut Rows, authors_max: u32) {
        for rows in [mem::take(&mut other.old), mem::take(&mut other.young)] {
            for (key, taken) in rows {
                self.take_in(key, &taken, authors_max);
            }
        }
    }

    fn take_in(&mut self, key: (RowScope, AuthorId), more: &Taken, authors_max: u32) {
        if let Some(taken) = self.young.get_mut(&key) {
            return taken.absorb(more);
        }
        let mut taken = self.old.remove(&key).unwrap_or(*more);
        taken.absorb(more);
        if self.young.len() >= authors_max as usize / 2 {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, taken);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    pub(super) fn forget(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_new_once_and_memory_is_bounded() {
        let mut rows = Rows::default();
        let author = |process| AuthorId { session: SessionId(1), process };
        let room = RowScope::Room(1);
        assert!(rows.add(room, author(0), 2, 8));
        assert!(!rows.add(room, author(0), 2, 8));
        assert!(rows.add(RowScope::Talk(SessionId(5)), author(0), 1, 8));
        for process in 1..100 {
            assert!(rows.add(room, author(process), 1, 8));
            assert!(!rows.add(room, author(0), 2, 8), "what comes up stays known");
            assert!(rows.len() <= 8);
        }
        let mut later = Rows::default();
        later.absorb(&mut rows, 8);
        assert!(rows.is_empty() && later.has(room, author(0), 2));
        assert!(!later.has(room, author(0), 3) && !later.has(room, author(1_000), 1));
    }

    #[test]
    fn what_was_skipped_is_new_when_it_comes_and_what_lies_far_back_is_not() {
        let author = AuthorId { session: SessionId(1), process: 1 };
        let room = RowScope::Room(1);
        let mut rows = Rows::default();
        let mut add = |number| rows.add(room, author, number, 8);
        assert!(add(5) && add(6) && add(9), "they come in order");
        assert!(add(3) && add(7), "and some from a part of the cluster that had them alone");
        assert!(!add(3) && !add(5) && !add(6) && !add(7) && !add(9));
        assert!(add(8 + RECENT) && !add(9) && add(7 + RECENT) && add(10));
        assert!(add(20 + RECENT) && !add(8), "who can tell after so many");
        assert!(add(2), "what is before the first never came");
    }

    #[test]
    fn two_memories_of_an_author_become_one() {
        for (one, other) in [(10, 12), (12, 10), (10, 10 + RECENT), (10, 11 + RECENT), (10, 1_000)]
        {
            let (mut a, b) = (Taken::new(one), Taken::new(other));
            a.add(one + 4);
            a.absorb(&b);
            for taken in [one, one + 4, other] {
                assert!(a.has(taken), "{taken} of {a:?}");
            }
            assert!(!a.has(9) && !a.has(other.max(one + 4) + 1), "{a:?}");
            assert!(!a.has(11) || other > RECENT, "{a:?}");
        }
    }
}
