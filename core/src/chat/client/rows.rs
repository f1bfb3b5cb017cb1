//! Which rows were shown: per room or talk and author, the highest of the author's numbers.
//!
//! An author's messages are shown in the author's order everywhere, so whatever is not higher
//! was shown before: it comes again when it was handed back, or when two servers took it in.

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

/// Two generations: what did not come up again while the young one filled is forgotten. What
/// comes again does so shortly after a server died, so what matters is always young.
#[derive(Debug, Default)]
pub(super) struct Rows {
    young: BTreeMap<(RowScope, AuthorId), u64>,
    old: BTreeMap<(RowScope, AuthorId), u64>,
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
        if let Some(high) = self.young.get_mut(&key) {
            let new = number > *high;
            *high = number.max(*high);
            return new;
        }
        let high = self.old.remove(&key).unwrap_or(0);
        if self.young.len() >= authors_max as usize / 2 {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, high.max(number));
        number > high
    }

    /// Whether a row was taken in, or one of the same author that comes after it.
    pub(super) fn has(&self, scope: RowScope, author: AuthorId, number: u64) -> bool {
        let high = |rows: &BTreeMap<_, u64>| rows.get(&(scope, author)).copied().unwrap_or(0);
        number <= high(&self.young).max(high(&self.old))
    }

    /// Takes in all rows of another.
    pub(super) fn absorb(&mut self, other: &mut Rows, authors_max: u32) {
        for rows in [mem::take(&mut other.old), mem::take(&mut other.young)] {
            for ((scope, author), number) in rows {
                self.add(scope, author, number, authors_max);
            }
        }
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
        assert!(!rows.add(room, author(0), 1, 8));
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
}
