//! What was seen: one number per origin, for all rooms and talks.
//!
//! An origin's entries come in the order of its numbers, so the highest number seen says all.
//! Only a room that is being received has a vector of its own ([`super::rooms`]); when it has
//! caught up, that is merged into this one.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::ids::Origin;

/// An origin as this client numbers them: an index into its table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct OriginIndex(pub(super) u32);

/// Per origin, a number; 0 for none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Vector {
    numbers: Vec<u64>,
}

impl Vector {
    pub(super) fn at(&self, origin: OriginIndex) -> u64 {
        self.numbers.get(origin.0 as usize).copied().unwrap_or(0)
    }

    /// Raises the number of `origin`. Returns whether it rose.
    pub(super) fn raise(&mut self, origin: OriginIndex, number: u64) -> bool {
        let index = origin.0 as usize;
        if self.numbers.len() <= index {
            self.numbers.resize(index + 1, 0);
        }
        let rose = self.numbers[index] < number;
        if rose {
            self.numbers[index] = number;
        }
        rose
    }

    pub(super) fn lower(&mut self, origin: OriginIndex, number: u64) {
        if let Some(held) = self.numbers.get_mut(origin.0 as usize) {
            *held = number.min(*held);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (OriginIndex, u64)> {
        let numbers = self.numbers.iter().enumerate().filter(|(_, number)| **number > 0);
        numbers.map(|(index, number)| (OriginIndex(index as u32), *number))
    }
}

/// The origins that are known, and what was seen of each.
#[derive(Debug, Default)]
pub(super) struct Seen {
    origins: Vec<Origin>,
    index: BTreeMap<Origin, OriginIndex>,
    /// For all rooms and talks that have caught up.
    base: Vector,
    /// In any room or talk at all: what a message may answer to.
    shown: Vector,
    /// Up to here every member of the cluster holds everything.
    stable: Vector,
    /// When each origin last advanced, by [`Seen::tick`].
    advanced: Vec<u64>,
    tick: u64,
    /// Indexes of origins that were forgotten.
    free: Vec<OriginIndex>,
    /// Origins that advanced since the server was last told, each once.
    untold: Vec<OriginIndex>,
    is_untold: Vec<bool>,
}

impl Seen {
    /// The index of `origin`, which becomes known; `None` when there are `origins_max` others.
    pub(super) fn intern(&mut self, origin: Origin, origins_max: u32) -> Option<OriginIndex> {
        if let Some(index) = self.index.get(&origin) {
            return Some(*index);
        }
        let index = match self.free.pop() {
            Some(free) => free,
            None if self.origins.len() >= origins_max as usize => return None,
            None => {
                self.origins.push(origin);
                self.advanced.push(0);
                self.is_untold.push(false);
                OriginIndex(self.origins.len() as u32 - 1)
            }
        };
        self.origins[index.0 as usize] = origin;
        self.advanced[index.0 as usize] = self.tick;
        self.index.insert(origin, index);
        Some(index)
    }

    /// Forgets origins that are not `in_use`, those that advanced longest ago first, an eighth of
    /// all at the most. Says which. What a server sends of them again is not shown again.
    pub(super) fn forget_oldest(
        &mut self,
        origins_max: u32,
        in_use: impl Fn(OriginIndex) -> bool,
    ) -> Vec<OriginIndex> {
        let mut old: Vec<OriginIndex> =
            self.index.values().copied().filter(|index| !in_use(*index)).collect();
        old.sort_unstable_by_key(|index| self.advanced[index.0 as usize]);
        old.truncate((origins_max as usize / 8).max(1));
        for &index in &old {
            self.index.remove(&self.origins[index.0 as usize]);
            for vector in [&mut self.base, &mut self.shown, &mut self.stable] {
                vector.lower(index, 0);
            }
            self.is_untold[index.0 as usize] = false;
            self.free.push(index);
        }
        let is_untold = &self.is_untold;
        self.untold.retain(|index| is_untold[index.0 as usize]);
        old
    }

    pub(super) fn find(&self, origin: &Origin) -> Option<OriginIndex> {
        self.index.get(origin).copied()
    }

    pub(super) fn origin(&self, index: OriginIndex) -> Origin {
        self.origins[index.0 as usize]
    }

    pub(super) fn base(&self) -> &Vector {
        &self.base
    }

    pub(super) fn is_stable(&self, origin: OriginIndex, number: u64) -> bool {
        number <= self.stable.at(origin)
    }

    pub(super) fn set_stable(&mut self, origin: OriginIndex, number: u64) {
        self.stable.raise(origin, number);
    }

    /// An entry was seen that `base` covers from now on.
    pub(super) fn advance(&mut self, origin: OriginIndex, number: u64) {
        self.base.raise(origin, number);
        self.show(origin, number);
    }

    /// An entry was seen, in a room that has a vector of its own.
    pub(super) fn show(&mut self, origin: OriginIndex, number: u64) {
        if !self.shown.raise(origin, number) {
            return;
        }
        let index = origin.0 as usize;
        self.tick += 1;
        self.advanced[index] = self.tick;
        if !self.is_untold[index] {
            self.is_untold[index] = true;
            self.untold.push(origin);
        }
    }

    /// A room has caught up: `base` covers it from now on.
    pub(super) fn merge(&mut self, vector: &Vector) {
        for (origin, number) in vector.iter() {
            self.base.raise(origin, number);
        }
    }

    /// What was seen of `origin` beyond `number` comes again under other numbers.
    pub(super) fn cut(&mut self, origin: OriginIndex, number: u64) {
        self.base.lower(origin, number);
        self.shown.lower(origin, number);
    }

    /// Forgets what was seen. What is stable stays so.
    pub(super) fn forget(&mut self) {
        self.base = Vector::default();
        self.shown = Vector::default();
        self.untold.clear();
        self.is_untold.fill(false);
    }

    /// A new server was told of `base`, at most `pairs_max` origins of it, and has all that. What
    /// it has of the rest is not known, and must not be named to it before it was shown there.
    pub(super) fn tell_again(&mut self, pairs_max: usize) {
        self.untold.clear();
        self.is_untold.fill(false);
        self.shown = self.base.clone();
        for (origin, _) in self.latest(&self.base, pairs_max) {
            self.is_untold[origin.0 as usize] = true;
            self.untold.push(origin);
        }
    }

    /// What is to be told with the next message, at most `pairs_max` origins, those of them that
    /// `reference` knows; those count as told.
    pub(super) fn take_untold<R>(
        &mut self,
        pairs_max: usize,
        reference: impl Fn(OriginIndex) -> Option<R>,
    ) -> Vec<(R, u64)> {
        let Seen { untold, is_untold, shown, .. } = self;
        let mut pairs = Vec::new();
        untold.retain(|&origin| {
            if pairs.len() == pairs_max {
                return true;
            }
            let Some(reference) = reference(origin) else { return true };
            is_untold[origin.0 as usize] = false;
            pairs.push((reference, shown.at(origin)));
            false
        });
        pairs
    }

    /// Whether `is_known` holds for every origin that is to be told.
    pub(super) fn can_tell(&self, is_known: impl Fn(OriginIndex) -> bool) -> bool {
        self.untold.iter().all(|origin| is_known(*origin))
    }

    /// A vector with origins in full, at most `pairs_max` of them: those that advanced last.
    /// What is left out is sent again and not shown again.
    pub(super) fn in_full(&self, vector: &Vector, pairs_max: usize) -> Vec<(Origin, u64)> {
        let pairs = self.latest(vector, pairs_max).into_iter();
        pairs.map(|(origin, number)| (self.origin(origin), number)).collect()
    }

    fn latest(&self, vector: &Vector, pairs_max: usize) -> Vec<(OriginIndex, u64)> {
        let mut pairs: Vec<(OriginIndex, u64)> = vector.iter().collect();
        if pairs.len() > pairs_max {
            pairs.sort_unstable_by_key(|(origin, _)| Reverse(self.advanced[origin.0 as usize]));
            pairs.truncate(pairs_max);
        }
        pairs
    }

    pub(super) fn check(&self) {
        let used = self.origins.len() - self.free.len();
        assert_eq!(used, self.index.len(), "every origin has one index");
        for (origin, number) in self.base.iter() {
            assert!(self.shown.at(origin) >= number, "what the base covers was shown");
        }
        for origin in &self.untold {
            assert!(self.is_untold[origin.0 as usize], "what is to be told is marked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ServerId;

    fn origin(server: u64) -> Origin {
        Origin { server: ServerId(server), incarnation: 1, nonce: 0 }
    }

    #[test]
    fn what_advanced_is_told_once_and_to_a_new_server_again() {
        let mut seen = Seen::default();
        let a = seen.intern(origin(1), 10).expect("room");
        let b = seen.intern(origin(2), 10).expect("room");
        seen.advance(a, 1);
        seen.advance(b, 7);
        seen.advance(a, 2);
        let known = |index: OriginIndex| (index == a).then_some(index.0);
        assert_eq!(seen.take_untold(10, known), [(0, 2)]);
        assert_eq!(seen.take_untold(10, known), [], "the other is not known there");
        seen.tell_again(10);
        assert_eq!(seen.take_untold(1, |index| Some(index.0)), [(0, 2)]);
        assert_eq!(seen.take_untold(1, |index| Some(index.0)), [(1, 7)]);
        seen.check();
    }

    #[test]
    fn what_advanced_longest_ago_makes_place_unless_it_is_in_use() {
        let mut seen = Seen::default();
        for server in 0..16 {
            let index = seen.intern(origin(server), 16).expect("room");
            seen.advance(index, 5);
            seen.set_stable(index, 5);
        }
        assert_eq!(seen.intern(origin(16), 16), None);
        let forgotten = seen.forget_oldest(16, |index| index.0 == 0);
        assert_eq!(forgotten, [OriginIndex(1), OriginIndex(2)]);
        seen.check();
        assert_eq!((seen.find(&origin(0)), seen.find(&origin(1))), (Some(OriginIndex(0)), None));
        let again = seen.intern(origin(16), 16).expect("there is place");
        assert_eq!((seen.base().at(again), seen.is_stable(again, 1)), (0, false));
        assert_eq!(seen.take_untold(16, |index| Some(index.0)).len(), 14);
        seen.check();
    }

    #[test]
    fn a_full_table_and_a_short_list_keep_what_matters() {
        let mut seen = Seen::default();
        for server in 0..3 {
            let index = seen.intern(origin(server), 3).expect("room");
            seen.advance(index, 5 + server);
        }
        assert_eq!(seen.intern(origin(9), 3), None);
        seen.advance(OriginIndex(0), 9);
        assert_eq!(seen.in_full(seen.base(), 2), [(origin(0), 9), (origin(2), 7)]);
        seen.cut(OriginIndex(0), 4);
        assert_eq!(seen.base().at(OriginIndex(0)), 4);
    }
}
