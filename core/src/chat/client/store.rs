//! Entries kept to be handed back, in case their server dies before anyone else has them.
//!
//! Each is kept as it will be sent: the payload of a [`Return`](crate::wire::chat::Return). They
//! lie in chunks, oldest first; a chunk goes when every member of the cluster holds all that is in
//! it, or when there is no more room.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::seen::OriginIndex;
use crate::ids::Clock;

/// What is known of a kept entry.
#[derive(Clone, Copy, Debug)]
struct Kept {
    origin: OriginIndex,
    number: u64,
    clock: Clock,
    end: u32,
}

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    kept: Vec<Kept>,
    /// How many from the front need not be kept.
    needless: usize,
}

/// Where a kept entry lies. Void when the store changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    /// Canonical order first.
    clock: Clock,
    /// The chunk, counted from the first that ever was.
    chunk: u64,
    index: usize,
}

/// The entries.
#[derive(Debug, Default)]
pub(super) struct Store {
    chunks: VecDeque<Chunk>,
    /// How many chunks went.
    gone: u64,
    /// One that went, to be filled again.
    spare: Option<Chunk>,
    bytes: usize,
}

impl Store {
    /// Keeps an entry: `write` appends the payload.
    pub(super) fn keep(
        &mut self,
        origin: OriginIndex,
        number: u64,
        clock: Clock,
        bytes_max: u32,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.chunks.back().is_none_or(|chunk| chunk.bytes.len() >= CHUNK_BYTES) {
            let fresh = self.spare.take().unwrap_or_default();
            self.chunks.push_back(fresh);
        }
        let Some(chunk) = self.chunks.back_mut() else { return };
        let start = chunk.bytes.len();
        write(&mut chunk.bytes);
        self.bytes += chunk.bytes.len() - start + size_of::<Kept>();
        let end = chunk.bytes.len() as u32;
        chunk.kept.push(Kept { origin, number, clock, end });
        while self.bytes > bytes_max as usize && self.chunks.len() > 1 {
            self.drop_front();
        }
    }

    /// Lets go of what needs no keeping any more, from the front.
    pub(super) fn release(&mut self, needless: impl Fn(OriginIndex, u64) -> bool) {
        while let Some(front) = self.chunks.front_mut() {
            let rest = &front.kept[front.needless..];
            let count = rest.iter().take_while(|kept| needless(kept.origin, kept.number)).count();
            front.needless += count;
            if front.needless < front.kept.len() {
                return;
            }
            self.drop_front();
        }
    }

    /// The origins of what is kept.
    pub(super) fn origins(&self) -> impl Iterator<Item = OriginIndex> {
        self.chunks.iter().flat_map(|chunk| &chunk.kept).map(|kept| kept.origin)
    }

    /// The entries that `wanted` picks, in canonical order.
    pub(super) fn find(&self, wanted: impl Fn(OriginIndex, u64) -> bool) -> Vec<Place> {
        let mut places = Vec::new();
        for (chunk, content) in (self.gone..).zip(&self.chunks) {
            for (index, kept) in content.kept.iter().enumerate() {
                if wanted(kept.origin, kept.number) {
                    places.push(Place { clock: kept.clock, chunk, index });
                }
            }
        }
        // Equal clocks belong to different origins, whose order among each other nobody needs.
        places.sort_unstable();
        places
    }

    /// The payload at a place; `None` when it went.
    pub(super) fn payload(&self, place: Place) -> Option<&[u8]> {
        let chunk = self.chunks.get(usize::try_from(place.chunk.checked_sub(self.gone)?).ok()?)?;
        let start = match place.index.checked_sub(1) {
            Some(before) => chunk.kept.get(before)?.end,
            None => 0,
        };
        Some(&chunk.bytes[start as usize..chunk.kept.get(place.index)?.end as usize])
    }

    pub(super) fn forget(&mut self) {
        while !self.chunks.is_empty() {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        let Some(mut chunk) = self.chunks.pop_front() else { return };
        self.gone += 1;
        self.bytes -= chunk.bytes.len() + chunk.kept.len() * size_of::<Kept>();
        chunk.bytes.clear();
        chunk.kept.clear();
        chunk.needless = 0;
        self.spare = Some(chunk);
    }

    pub(super) fn check(&self, bytes_max: u32) {
        let sum = |chunk: &Chunk| chunk.bytes.len() + chunk.kept.len() * size_of::<Kept>();
        assert_eq!(self.bytes, self.chunks.iter().map(sum).sum(), "the store counts its bytes");
        assert!(
            self.bytes <= bytes_max as usize || self.chunks.len() == 1,
            "the store keeps its bound"
        );
    }
}

/// A chunk is full from here on.
const CHUNK_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const A: OriginIndex = OriginIndex(0);
    const B: OriginIndex = OriginIndex(1);

    fn keep(store: &mut Store, origin: OriginIndex, number: u64, clock: u64) {
        store.keep(origin, number, Clock(clock), 1 << 20, |out| {
            out.extend_from_slice(&[number as u8; 1_000]);
        });
        store.check(1 << 20);
    }

    #[test]
    fn what_is_wanted_comes_in_canonical_order() {
        let mut store = Store::default();
        keep(&mut store, A, 1, 10);
        keep(&mut store, B, 1, 5);
        keep(&mut store, A, 2, 20);
        let places = store.find(|origin, number| origin == B || number == 2);
        let first = places.iter().map(|place| store.payload(*place).expect("kept")[0]);
        assert_eq!(first.collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn the_oldest_go_first_and_what_all_hold_goes_at_once() {
        let mut store = Store::default();
        for number in 1..3_000 {
            keep(&mut store, A, number, number);
        }
        assert!(store.find(|_, number| number == 1).is_empty());
        assert_eq!(store.find(|_, number| number == 2_999).len(), 1);
        store.release(|_, number| number < 2_999);
        assert!(!store.find(|_, number| number == 2_999).is_empty(), "only whole chunks go");
        store.release(|_, _| true);
        assert_eq!(store.bytes, 0);
        keep(&mut store, B, 1, 1);
        assert_eq!(store.find(|_, _| true).len(), 1);
    }
}
