//! What one connection still lacks.
//!
//! Within an origin clocks increase with the numbers, so the rows of one origin in one scope, by
//! number, are in canonical order already. What a connection lacks is the merge of such lists,
//! each from what was seen on: nothing that was seen is ever looked at.
//!
//! There are as many lists as rooms and talks times origins, so only the lists with the least next
//! rows have a place in the merge. Where a list without a place may be next, the merge stops, and
//! begins again from there.

use alloc::collections::BinaryHeap;
use alloc::collections::binary_heap::PeekMut;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::{Archive, EntryId};
use crate::ids::{Clock, Origin, OriginRef, ScopeRef};

/// What one connection still lacks, in canonical order merged over its scopes.
///
/// It gives the rows of the archive as it was when it had shown `until`, whatever comes in
/// meanwhile: a row that a lesser copy replaces after that moment is given all the same, because
/// the copy comes by the log, where it counts as none. What is trimmed meanwhile is left out.
#[derive(Debug)]
pub struct CatchUp {
    scopes: Vec<ScopeRef>,
    seen: Vec<u64>,
    until: Vec<u64>,
    /// Whether the lists were looked up. They are when the first row is asked for.
    begun: bool,
    /// The next rows of the lists that have a place.
    heads: BinaryHeap<Reverse<Head>>,
    /// The least next row of the lists that have none.
    horizon: Option<Key>,
    places: usize,
}

/// A row's place in the canonical order.
type Key = (Clock, Origin, u64);

/// The next row of a list. Ordered by its first three fields: the canonical order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Head {
    clock: Clock,
    origin: Origin,
    number: u64,
    id: EntryId,
    list: (ScopeRef, OriginRef),
    after: Hint,
}

impl Head {
    fn key(&self) -> Key {
        (self.clock, self.origin, self.number)
    }
}

const _: () = assert!(size_of::<Head>() as u64 <= crate::limits::HEAD_BYTES);

/// Where in a list the next row is: its rank, as long as no row was taken out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Hint {
    rank: u64,
    removals: u64,
}

impl CatchUp {
    /// The rows of `scopes` with numbers above `seen` and up to `until`, both by reference of the
    /// origin, 0 beyond their ends. `until` must be what the archive had shown at some moment.
    #[must_use]
    pub fn new(scopes: &[ScopeRef], seen: Vec<u64>, until: Vec<u64>) -> Self {
        let mut scopes = scopes.to_vec();
        scopes.sort_unstable();
        scopes.dedup();
        let heads = BinaryHeap::new();
        CatchUp { scopes, seen, until, begun: false, heads, horizon: None, places: HEADS_MAX }
    }

    /// As many lists have a place in the merge at a time.
    #[cfg(test)]
    pub(super) fn with_places(self, places: usize) -> Self {
        CatchUp { places, ..self }
    }

    /// How much memory the merge takes, in heads.
    #[cfg(test)]
    pub(super) fn heads_held(&self) -> usize {
        self.heads.capacity()
    }

    /// The next row; `None` when nothing is lacking any more.
    pub fn next(&mut self, archive: &Archive) -> Option<EntryId> {
        if !self.begun {
            self.begin(archive);
        }
        loop {
            if let Some(horizon) = self.horizon
                && self.heads.peek().is_none_or(|top| top.0.key() >= horizon)
            {
                self.pass(archive, horizon);
                self.begin(archive);
                continue;
            }
            let mut top = self.heads.peek_mut()?;
            let Head { id, number, list, after, .. } = top.0;
            match head(archive, &self.until, list, number, Some(after)) {
                Some(next) => *top = Reverse(next),
                None => drop(PeekMut::pop(top)),
            }
            if archive.contains(id) {
                return Some(id);
            }
        }
    }

    /// Up to where it goes, by reference of the origin.
    #[must_use]
    pub fn until(&self) -> &[u64] {
        &self.until
    }

    /// Ends it: where it went up to is where the next may begin.
    #[must_use]
    pub fn into_until(self) -> Vec<u64> {
        self.until
    }

    /// Gives nothing of `scope` any more.
    pub fn drop_scope(&mut self, scope: ScopeRef) {
        self.scopes.retain(|other| *other != scope);
        self.heads.retain(|Reverse(head)| head.list.0 != scope);
    }

    /// An origin was given up: everything of it counts as given.
    pub fn drop_origin(&mut self, origin: OriginRef) {
        for vector in [&mut self.seen, &mut self.until] {
            if let Some(number) = vector.get_mut(origin.0 as usize) {
                *number = 0;
            }
        }
        self.heads.retain(|Reverse(head)| head.list.1 != origin);
    }

    /// Looks up all lists and gives places to those with the least next rows.
    fn begin(&mut self, archive: &Archive) {
        self.begun = true;
        let (places, mut horizon) = (self.places, None);
        let mut heads = core::mem::take(&mut self.heads).into_vec();
        heads.clear();
        for &scope in &self.scopes {
            for rows in &archive.scopes.state(scope).by_origin {
                let list = (scope, rows.origin);
                let seen = number_in(&self.seen, rows.origin);
                if heads.len() == heads.capacity() {
                    // By doubling, but never beyond what is held while they are chosen.
                    heads.reserve_exact(heads.len().max(4).min(2 * places - heads.len()));
                }
                heads.extend(head(archive, &self.until, list, seen, None).map(Reverse));
                if heads.len() == 2 * places {
                    keep_the_least(&mut heads, places, &mut horizon);
                }
            }
        }
        if heads.len() > places {
            keep_the_least(&mut heads, places, &mut horizon);
        }
        (self.heads, self.horizon) = (BinaryHeap::from(heads), horizon);
    }

    /// All rows before `horizon` were given: they are seen. An origin's clocks increase with its
    /// numbers, so that is one number for each origin, whatever the scope.
    fn pass(&mut self, archive: &Archive, horizon: Key) {
        self.seen.resize(self.until.len().max(self.seen.len()), 0);
        for (seen, reference) in self.seen.iter_mut().zip((0..).map(OriginRef)) {
            if !archive.has_reference(reference) {
                break;
            }
            let origin = archive.origins.value(reference);
            let before = |number: u64| {
                let entry = archive.id(reference, number);
                entry.is_none_or(|id| (archive.store.record(id).clock, origin, number) < horizon)
            };
            let first = archive.first_number(reference).max(*seen + 1);
            let (mut low, mut high) = (first, number_in(&self.until, reference) + 1);
            while low < high {
                let middle = low + (high - low) / 2;
                if before(middle) { low = middle + 1 } else { high = middle }
            }
            *seen = (*seen).max(low - 1);
        }
    }
}

/// Keeps so many heads, the least; the horizon is the least of those that went.
fn keep_the_least(heads: &mut Vec<Reverse<Head>>, places: usize, horizon: &mut Option<Key>) {
    heads.select_nth_unstable_by(places, |a, b| a.0.cmp(&b.0));
    let least = heads[places].0.key();
    *horizon = Some(horizon.map_or(least, |horizon| horizon.min(least)));
    heads.truncate(places);
}

/// The first row of a list with a number above `seen`, unless that is beyond `until`.
fn head(
    archive: &Archive,
    until: &[u64],
    list: (ScopeRef, OriginRef),
    seen: u64,
    hint: Option<Hint>,
) -> Option<Head> {
    let (scope, origin) = list;
    let last = number_in(until, origin);
    if seen >= last {
        return None;
    }
    let rows = archive.scopes.state(scope).origin_rows(origin)?;
    let removals = rows.rows.removals();
    let mut rank = match hint {
        Some(hint) if hint.removals == removals => hint.rank.max(rows.rows.trimmed()),
        _ => rows.rank_after(&archive.store, &archive.pool, seen),
    };
    // A row then that is none now: the copy that took its place is beyond `until`.
    let mut demoted = rows.demoted[rows.demoted.partition_point(|row| row.number <= seen)..].iter();
    let demoted = demoted.find(|row| row.by.1 > number_in(until, row.by.0));
    let row = rows.rows.get(&archive.pool, rank).map(|id| archive.store.widen(id));
    let id = match (row, demoted) {
        (Some(row), Some(demoted)) if demoted.number < archive.number_of(row) => demoted.id,
        (None, Some(demoted)) => demoted.id,
        (row, _) => {
            rank += 1;
            row?
        }
    };
    let record = archive.store.record(id);
    (record.number <= last).then(|| Head {
        clock: record.clock,
        origin: archive.origins.value(origin),
        number: record.number,
        id,
        list,
        after: Hint { rank, removals },
    })
}

fn number_in(vector: &[u64], origin: OriginRef) -> u64 {
    vector.get(origin.0 as usize).copied().unwrap_or(0)
}

/// Lists that have a place in one merge. Twice as many heads are held while they are chosen.
pub(crate) const HEADS_MAX: usize = 512;
