//! Entries that came before what they come after: held, not shown, not counted.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use crate::ids::{Clock, OriginRef, Tag};

/// One entry that waits: its portable form and its tag.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) number: u64,
    pub(super) clock: Clock,
    pub(super) portable: Box<[u8]>,
    pub(super) tag: Tag,
}

/// Per origin, a run of entries that follows what is shown of it, without a gap.
#[derive(Debug)]
pub(super) struct Waiting {
    runs: BTreeMap<OriginRef, VecDeque<Held>>,
    bytes: u64,
    bytes_max: u64,
}

impl Waiting {
    pub(super) fn new(bytes_max: u64) -> Self {
        Waiting { runs: BTreeMap::new(), bytes: 0, bytes_max }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many entries of `origin` wait.
    pub(super) fn count(&self, origin: OriginRef) -> u64 {
        self.runs.get(&origin).map_or(0, |run| run.len() as u64)
    }

    /// The clock of the last entry of `origin` that waits.
    pub(super) fn last_clock(&self, origin: OriginRef) -> Option<Clock> {
        Some(self.runs.get(&origin)?.back()?.clock)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Holds the next entry of `origin`. Without room for it it is dropped: it is pulled again
    /// once those before it were shown.
    pub(super) fn hold(
        &mut self,
        origin: OriginRef,
        number: u64,
        clock: Clock,
        portable: &[u8],
        tag: Tag,
    ) {
        if self.bytes + portable.len() as u64 > self.bytes_max {
            return;
        }
        let run = self.runs.entry(origin).or_default();
        assert!(run.back().is_none_or(|last| last.number + 1 == number), "a run has no gap");
        self.bytes += portable.len() as u64;
        run.push_back(Held { number, clock, portable: Box::from(portable), tag });
    }

    /// The entry of `origin` that is next to be shown.
    pub(super) fn first(&self, origin: OriginRef) -> Option<&Held> {
        self.runs.get(&origin)?.front()
    }

    /// Takes what [`first`](Self::first) gave.
    pub(super) fn take_first(&mut self, origin: OriginRef) -> Option<Held> {
        let run = self.runs.get_mut(&origin)?;
        let held = run.pop_front()?;
        self.bytes -= held.portable.len() as u64;
        if run.is_empty() {
            self.runs.remove(&origin);
        }
        Some(held)
    }

    /// Drops what waits of `origin` up to a number.
    pub(super) fn drop_through(&mut self, origin: OriginRef, number: u64) {
        while self.first(origin).is_some_and(|first| first.number <= number) {
            self.take_first(origin);
        }
    }

    /// The origins of which something waits, after `origin`.
    pub(super) fn next_origin(&self, after: Option<OriginRef>) -> Option<OriginRef> {
        use core::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.runs.range((from, Unbounded)).next().map(|(origin, _)| *origin)
    }

    pub(super) fn check(&self) {
        let bytes: usize = self.runs.values().flatten().map(|held| held.portable.len()).sum();
        assert_eq!(self.bytes, bytes as u64, "the bytes that wait are counted");
        assert!(self.bytes <= self.bytes_max, "what waits is bounded");
    }
}
