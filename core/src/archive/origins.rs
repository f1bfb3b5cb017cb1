//! The origins: what is shown of each, and hashes over all of them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::floor::FloorOrigin;
use super::pool::{Id, Pool};
use super::sequence::Sequence;
use crate::hash;
use crate::ids::{Clock, Origin, OriginRef, Tag};
use crate::prng::mix;
use crate::wire::Field;

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
    /// Its part in the hash over the vector.
    seed: u64,
}

impl OriginState {
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
    count_max: u32,
}

impl Origins {
    pub(super) fn new(count_max: u32) -> Self {
        Origins { states: Vec::new(), by_value: BTreeMap::new(), vector_hash: 0, count_max }
    }

    pub(super) fn define(&mut self, value: Origin) -> Option<(OriginRef, bool)> {
        if let Some(&known) = self.by_value.get(&value) {
            return Some((known, false));
        }
        let reference = OriginRef(self.states.len() as u32);
        if reference.0 >= self.count_max {
            return None;
        }
        let seed = mix(value.server.0 ^ mix(u64::from(value.incarnation) ^ mix(value.nonce)));
        self.states.push(OriginState {
            value,
            clock: Clock(0),
            rolling: Tag::default(),
            entries: Sequence::new(1),
            floor: (Clock(0), Tag::default()),
            seed,
        });
        self.by_value.insert(value, reference);
        Some((reference, true))
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
        (0..).map(OriginRef).zip(&self.states)
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

    pub(super) fn digest(&self, extra: &[&[u8]]) -> Tag {
        let mut parts = Vec::with_capacity(self.states.len() * PART_BYTES);
        for &reference in self.by_value.values() {
            let state = self.state(reference);
            if state.shown() > 0 {
                state.value.put(&mut parts);
                parts.extend_from_slice(&state.shown().to_be_bytes());
                state.rolling.put(&mut parts);
            }
        }
        hash::digest(parts.chunks(PART_BYTES).chain(extra.iter().copied()))
    }

    pub(super) fn reserve(&mut self, entries: usize) {
        self.states.iter_mut().for_each(|state| state.entries.reserve(entries));
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.states.len() * (size_of::<OriginState>() + 2 * size_of::<Origin>())) as u64
    }

    /// Panics unless the hash over the vector is what its parts sum up to.
    pub(super) fn check(&self) {
        let sum = self.states.iter().map(vector_part).fold(0, u64::wrapping_add);
        assert_eq!(sum, self.vector_hash, "the hash over the vector");
    }
}

/// Bytes of an origin's part in the digest: origin, number, rolling hash.
const PART_BYTES: usize = 20 + 8 + 16;

/// A sum of such parts does not depend on the order of origins. An origin of which nothing is
/// shown has none.
fn vector_part(state: &OriginState) -> u64 {
    if state.shown() == 0 { 0 } else { mix(state.seed ^ mix(state.shown())) }
}
