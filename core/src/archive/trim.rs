//! What the archive takes of memory, and how it is kept within its bounds.

use super::pool::{Id, RUN_BYTES, RUN_IDS};
use super::store::Standing;
use super::{Archive, EntryId, forms, is_row};

/// What [`Archive::reserve`] takes an entry to be: most are shorter.
const RESERVED_ENTRY_BYTES: usize = 256;

impl Archive {
    /// Bytes in use. What [`reserve`](Self::reserve) set aside is not counted until it is used.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.store.memory_bytes()
            + self.pool.used() as u64 * RUN_BYTES
            + self.origins.memory_bytes()
            + self.scopes.memory_bytes()
            + self.authors.memory_bytes()
    }

    /// Sets memory aside, so that taking in `entries` more allocates nothing, given that they are
    /// of origins, authors and scopes that have entries already and take at most 256 bytes each.
    pub fn reserve(&mut self, entries: usize) {
        self.store.reserve(entries, RESERVED_ENTRY_BYTES);
        self.origins.reserve(entries);
        self.authors.reserve(entries);
        self.scopes.reserve(entries);
        self.scratch.bytes.reserve(RESERVED_ENTRY_BYTES);
        self.trimmed.reserve(RESERVED_ENTRY_BYTES);
        // Four lists have each row; one of them may be split in halves.
        self.pool.reserve(5 * entries / RUN_IDS + self.lists());
    }

    /// Drops whole chunks, the oldest first, until the archive is within its bounds. Says whether
    /// any was dropped.
    pub(super) fn trim(&mut self) -> bool {
        let before = self.store.ids().start;
        while self.memory_bytes() > self.bytes_max {
            let Some(ids) = self.store.oldest_chunk() else { break };
            for id in ids {
                self.trim_entry(EntryId(id));
                self.store.pop_front();
            }
            self.store.drop_oldest_chunk();
        }
        self.store.ids().start > before
    }

    /// Trims everything that arrived no later than an entry, however little memory that gives
    /// back: so that origins become [spent](Self::is_spent).
    pub fn trim_through(&mut self, last: EntryId) {
        while self.store.ids().start <= last.0 && !self.store.ids().is_empty() {
            self.trim_entry(EntryId(self.store.ids().start));
            self.store.pop_front();
        }
        while self.store.oldest_chunk().is_some_and(|ids| ids.is_empty()) {
            self.store.drop_oldest_chunk();
        }
    }

    /// Takes the oldest entry out of every list.
    fn trim_entry(&mut self, id: EntryId) {
        let record = *self.store.record(id);
        let Archive { store, pool, origins, scopes, authors, trimmed, .. } = self;
        for named in forms::after_of(store.bytes_of(&record)) {
            origins.mention(named, false);
        }
        if record.standing != Standing::Void {
            trimmed.clear();
            forms::put_portable(store.bytes_of(&record), origins, trimmed);
            origins.pop_front(pool, record.origin, record.clock, trimmed);
        }
        match record.standing {
            Standing::Copy | Standing::Void => {}
            Standing::Demoted => {
                let list = scopes.origin_rows_mut(record.scope, record.origin);
                list.demoted.retain(|demoted| demoted.id != id);
            }
            Standing::Row => {
                let low = id.0 as Id;
                let rows = &mut scopes.state_mut(record.scope).rows;
                let place = rows.find(pool, record.clock.0, low).expect("a row is in its scope");
                rows.trim(pool, place, |other| store.record(store.widen(other)).clock.0);
                let rows = &mut scopes.origin_rows_mut(record.scope, record.origin).rows;
                let place = rows.find(pool, record.number, low).expect("a row is in its list");
                rows.trim(pool, place, |other| store.record(store.widen(other)).number);
                let (author, number) = forms::author_of(store.bytes_of(&record));
                authors.trim(pool, &author, number, |other, number| {
                    is_row(store, store.widen(other), &author, number)
                });
                self.rows_trimmed += 1;
            }
        }
    }

    /// How many lists share the pool.
    fn lists(&self) -> usize {
        let scopes = self.scopes.iter().map(|(_, scope)| 1 + scope.by_origin.len());
        self.origins.iter().count() + self.authors.count() + scopes.sum::<usize>()
    }
}
