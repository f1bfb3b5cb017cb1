//! The origins: what is shown of each, and hashes over all of them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Add;

use super::floor::FloorOrigin;
use super::pool::{Id, Pool};
use super::sequence::Sequence;
use crate::hash;
use crate::ids::{Clock, Origin, OriginRef, Tag};
use crate::prng::mix;

/// What is known of an origin.
#[derive(Debug)]
pub(super) struct OriginState {
    pub(super) value: Origin,
    /// The clock of its last entry.
    pub(super) clock: Clock,
    pub(super) rolling: Tag,
    /// Its entries by number.
    pub(super) entries: Sequence,
    /// Clock and rolling hash of the last entry that was trimmed.
    pub(super) floor: (Clock, Tag),
    /// How often entries in memory name it as what they come after.
    pub(super) mentions: u64,
    /// Its part in the hash over the vector.
    seed: u64,
}

/// What entries add to the hash over the vector, and to the digest. Such sums do not depend on the
/// order of origins, nor on which of them stand together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Sums {
    /// Over the vector.
    pub vector: u64,
    /// Over all entries.
    pub digest: u128,
}

impl Add for Sums {
    type Output = Sums;

    fn add(self, other: Sums) -> Sums {
        Sums {
            vector: self.vector.wrapping_add(other.vector),
            digest: self.digest.wrapping_add(other.digest),
        }
    }
}

impl OriginState {
    fn new(value: Origin) -> Self {
        let seed = mix(value.server.0 ^ mix(u64::from(value.incarnation) ^ mix(value.nonce)));
        OriginState {
            value,
            clock: Clock(0),
            rolling: Tag::default(),
            entries: Sequence::new(1),
            floor: (Clock(0), Tag::default()),
            mentions: 0,
            seed,
        }
    }

    /// What it adds.
    pub(super) fn sums(&self) -> Sums {
        if self.shown() == 0 {
            return Sums::default();
        }
        let digest = hash::origin_part(&self.value, self.shown(), &self.rolling);
        Sums { vector: vector_part(self), digest }
    }

    /// The highest number.
    pub(super) fn shown(&self) -> u64 {
        self.entries.end() - 1
    }
}

#[derive(Debug)]
pub(super) struct Origins {
    states: Vec<OriginState>,
    by_value: BTreeMap<Origin, OriginRef>,
    vector_hash: u64,
    /// References that were given up and may be used again.
    free: Vec<OriginRef>,
    count_max: u32,
}

impl Origins {
    pub(super) fn new(count_max: u32) -> Self {
        Origins {
            states: Vec::new(),
            by_value: BTreeMap::new(),
            vector_hash: 0,
            free: Vec::new(),
            count_max,
        }
    }

    pub(super) fn define(&mut self, value: Origin) -> Option<(OriginRef, bool)> {
        if let Some(&known) = self.by_value.get(&value) {
            return Some((known, false));
        }
        if value == Origin::default() {
            // It stands for none.
            return None;
        }
        let reference = match self.free.pop() {
            Some(free) => free,
            None if self.states.len() as u32 >= self.count_max => return None,
            None => {
                self.states.push(OriginState::new(value));
                OriginRef(self.states.len() as u32 - 1)
            }
        };
        self.states[reference.0 as usize] = OriginState::new(value);
        self.by_value.insert(value, reference);
        Some((reference, true))
    }

    /// Its reference stands for nothing any more.
    pub(super) fn vacate(&mut self, reference: OriginRef) {
        let state = &mut self.states[reference.0 as usize];
        self.by_value.remove(&state.value);
        *state = OriginState::new(Origin::default());
    }

    pub(super) fn reuse(&mut self, reference: OriginRef) {
        assert_eq!(self.value(reference), Origin::default(), "it was given up");
        self.free.push(reference);
    }

    pub(super) fn places_left(&self) -> u32 {
        self.count_max - self.states.len() as u32 + self.free.len() as u32
    }

    /// Those between two, both included, in their order.
    pub(super) fn range(
        &self,
        first: Origin,
        last: Origin,
    ) -> impl Iterator<Item = (OriginRef, &OriginState)> {
        let known = self.by_value.range(first..=last);
        known.map(|(_, reference)| (*reference, self.state(*reference)))
    }

    pub(super) fn find(&self, value: &Origin) -> Option<OriginRef> {
        self.by_value.get(value).copied()
    }

    pub(super) fn count(&self) -> u32 {
        self.states.len() as u32
    }

    pub(super) fn has(&self, reference: OriginRef) -> bool {
        (reference.0 as usize) < self.states.len()
    }

    pub(super) fn state(&self, reference: OriginRef) -> &OriginState {
        &self.states[reference.0 as usize]
    }

    pub(super) fn value(&self, reference: OriginRef) -> Origin {
        self.state(reference).value
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (OriginRef, &OriginState)> {
        let all = (0..).map(OriginRef).zip(&self.states);
        all.filter(|(_, state)| state.value != Origin::default())
    }

    /// Entries name it, or do so no longer.
    pub(super) fn mention(&mut self, reference: OriginRef, more: bool) {
        let mentions = &mut self.states[reference.0 as usize].mentions;
        *mentions = if more { *mentions + 1 } else { *mentions - 1 };
    }

    /// Nothing of it counts any more: it belongs to its server's past.
    pub(super) fn forget_shown(&mut self, pool: &mut Pool, reference: OriginRef) {
        let state = &mut self.states[reference.0 as usize];
        self.vector_hash = self.vector_hash.wrapping_sub(vector_part(state));
        state.entries.clear(pool);
        *state = OriginState { mentions: state.mentions, ..OriginState::new(state.value) };
    }

    /// The pasts count otherwise.
    pub(super) fn change_past(&mut self, change: u64) {
        self.vector_hash = self.vector_hash.wrapping_add(change);
    }

    /// Notes the next entry of an origin.
    pub(super) fn push(
        &mut self,
        pool: &mut Pool,
        reference: OriginRef,
        id: Id,
        clock: Clock,
        portable: &[u8],
    ) {
        let state = &mut self.states[reference.0 as usize];
        state.rolling = hash::rolling(&state.rolling, portable);
        state.clock = clock;
        let before = vector_part(state);
        state.entries.push(pool, id);
        let change = vector_part(state).wrapping_sub(before);
        self.vector_hash = self.vector_hash.wrapping_add(change);
    }

    /// Trims the oldest entry of an origin.
    pub(super) fn pop_front(
        &mut self,
        pool: &mut Pool,
        reference: OriginRef,
        clock: Clock,
        portable: &[u8],
    ) {
        let state = &mut self.states[reference.0 as usize];
        state.entries.pop_front(pool);
        state.floor = (clock, hash::rolling(&state.floor.1, portable));
    }

    /// Makes `floor.number` the last that was trimmed. What is in memory below is dropped.
    pub(super) fn adopt(&mut self, pool: &mut Pool, floor: &FloorOrigin) {
        let state = &mut self.states[floor.origin.0 as usize];
        let before = vector_part(state);
        if floor.number > state.shown() {
            (state.clock, state.rolling) = (floor.clock, floor.rolling);
        }
        state.entries.trim_to(pool, floor.number + 1);
        state.floor = (floor.clock, floor.rolling);
        let change = vector_part(state).wrapping_sub(before);
        self.vector_hash = self.vector_hash.wrapping_add(change);
    }

    pub(super) fn vector_hash(&self) -> u64 {
        self.vector_hash
    }

    /// What all of them add.
    pub(super) fn sums(&self) -> Sums {
        self.states.iter().map(OriginState::sums).fold(Sums::default(), Sums::add)
    }

    pub(super) fn reserve(&mut self, entries: usize) {
        self.states.iter_mut().for_each(|state| state.entries.reserve(entries));
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.states.len() * (size_of::<OriginState>() + 2 * size_of::<Origin>())) as u64
    }

    /// Panics unless the hash over the vector is what its parts sum up to.
    pub(super) fn check(&self, pasts: u64) {
        let sum = self.states.iter().map(vector_part).fold(pasts, u64::wrapping_add);
        assert_eq!(sum, self.vector_hash, "the hash over the vector");
        let there = self.iter().count();
        assert_eq!(there, self.by_value.len(), "every origin has one place");
        assert!(there + self.free.len() <= self.states.len());
    }
}

/// A sum of such parts does not depend on the order of origins. An origin of which nothing is
/// shown has none.
fn vector_part(state: &OriginState) -> u64 {
    if state.shown() == 0 { 0 } else { mix(state.seed ^ mix(state.shown())) }
}
