//! What one connection still lacks.
//!
//! Within an origin clocks increase with the numbers, so the rows of one origin in one scope, by
//! number, are in canonical order already. What a connection lacks is the merge of such lists,
//! each from what was seen on: nothing that was seen is ever looked at.

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
    /// The next row of each list that has one.
    heads: BinaryHeap<Reverse<Head>>,
}

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
        CatchUp { scopes, seen, until, begun: false, heads: BinaryHeap::new() }
    }

    /// The next row; `None` when nothing is lacking any more.
    pub fn next(&mut self, archive: &Archive) -> Option<EntryId> {
        if !self.begun {
            self.begin(archive);
        }
        loop {
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

    fn begin(&mut self, archive: &Archive) {
        self.begun = true;
        for &scope in &self.scopes {
            for rows in &archive.scopes.state(scope).by_origin {
                let list = (scope, rows.origin);
                let seen = number_in(&self.seen, rows.origin);
                self.heads.extend(head(archive, &self.until, list, seen, None).map(Reverse));
            }
        }
    }
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
