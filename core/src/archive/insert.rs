//! Taking entries in.

use super::authors::Accepted;
use super::pool::Id;
use super::scopes::Demoted;
use super::store::{Record, Standing};
use super::{Archive, EntryId, forms};
use crate::ids::{AuthorId, Clock, Origin, OriginRef, ScopeRef, Tag};
use crate::wire::entry::{Portable, Scope};

/// An entry to be taken in.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// Which origin accepted it.
    pub origin: OriginRef,
    /// Its number within the origin, from 1.
    pub number: u64,
    /// When, and its place in the canonical order.
    pub clock: Clock,
    /// Who wrote it.
    pub author: AuthorId,
    /// The author's own count, from 1.
    pub author_number: u64,
    /// The author's name then.
    pub name: &'a str,
    /// The room or talk.
    pub scope: Scope<'a>,
    /// What the author had seen since its previous message.
    pub after: &'a [(OriginRef, u64)],
    /// What was said.
    pub body: &'a str,
    /// Proves that a server of the cluster accepted it.
    pub tag: Tag,
}

/// What became of an entry that was taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inserted {
    /// The entry.
    pub id: EntryId,
    /// Its scope.
    pub scope: ScopeRef,
    /// As [`Archive::index`].
    pub index: u64,
    /// Whether it is another copy of a row that was shown before.
    pub copy: bool,
    /// Whether it is such a copy and took the row's place, being less in canonical order.
    pub moved: bool,
}

impl Archive {
    /// Whether an entry is short enough: each of its forms fits a frame, whatever its index. The
    /// same on every server.
    #[must_use]
    pub fn fits(entry: &NewEntry<'_>) -> bool {
        forms::fits(entry.name, &entry.scope, entry.after.len(), entry.body)
    }

    /// As [`fits`](Self::fits), of an entry in portable form.
    #[must_use]
    pub fn fits_portable(entry: &Portable<'_>) -> bool {
        forms::fits(entry.name, &entry.scope, entry.after.len(), entry.body)
    }

    /// Takes an entry in, and trims when that makes the archive too large.
    ///
    /// Panics unless it [`fits`](Self::fits), is the next of its origin, has a clock greater than
    /// [`origin_clock`](Self::origin_clock), and its author's number
    /// [`may follow`](Self::may_follow).
    pub fn insert(&mut self, entry: &NewEntry<'_>) -> Inserted {
        assert!(Archive::fits(entry), "an entry too long for a frame");
        assert!(entry.author_number > 0, "authors count from 1");
        let origin = self.origins.state(entry.origin);
        assert_eq!(entry.number, origin.shown() + 1, "the next of its origin");
        assert!(entry.clock > origin.clock, "clocks increase within an origin");

        let scope = self.scopes.intern(&entry.scope);
        let id = self.append(entry, scope);
        let (author, number) = (entry.author, entry.author_number);
        let accepted = self.authors.accept(&mut self.pool, author, number, entry.clock, id);
        let (copy, moved, mut index) = match accepted {
            Accepted::New => (false, false, self.file(id)),
            Accepted::Copy(_) if planted!(ForgetDuplicate) => (false, false, self.file(id)),
            Accepted::Copy(row) => {
                let row = row.and_then(|row| self.live_row(row, &author, number));
                let (moved, index) = self.settle(id, row, &author, number);
                (true, moved, index)
            }
        };
        if self.trim() {
            index = self.index(id);
        }
        Inserted { id, scope, index, copy, moved }
    }

    /// Stores the bytes and the record, and counts the entry in its origin.
    fn append(&mut self, entry: &NewEntry<'_>, scope: ScopeRef) -> EntryId {
        let form = &mut self.scratch;
        form.write(entry, &self.origins);
        let record = Record::new(entry.clock, entry.origin, entry.number, scope);
        let bytes_max = form.stored_bytes_max();
        let id = self.store.push(record, bytes_max, |out| form.put_stored(entry, out));
        let (low, clock) = (id.0 as Id, entry.clock);
        self.origins.push(&mut self.pool, entry.origin, low, clock, &form.bytes);
        entry.after.iter().for_each(|(origin, _)| self.origins.mention(*origin, true));
        id
    }

    /// Decides between a copy and the row of its message: the least in canonical order is the row.
    /// No author says one message in two scopes; were such a copy believed, it could take a row
    /// away from those who saw it.
    fn settle(
        &mut self,
        id: EntryId,
        row: Option<EntryId>,
        author: &AuthorId,
        number: u64,
    ) -> (bool, u64) {
        let Some(row) = row else {
            self.store.record_mut(id).standing = Standing::Copy;
            return (false, 0);
        };
        let elsewhere = self.scope_of(row) != self.scope_of(id);
        if elsewhere || self.key(row) < self.key(id) {
            self.store.record_mut(id).standing = Standing::Copy;
            return (false, self.index(row));
        }
        self.demote(row, id);
        self.authors.replace(&mut self.pool, author, number, id);
        (true, self.file(id))
    }

    /// Puts a row into its scope and returns its index.
    fn file(&mut self, id: EntryId) -> u64 {
        let record = *self.store.record(id);
        let key = self.key(id);
        let Archive { store, pool, origins, scopes, .. } = self;
        let low = id.0 as Id;
        let less = |other: Id| {
            let other = store.record(store.widen(other));
            (other.clock, origins.value(other.origin), other.number) < key
        };
        let rows = &mut scopes.state_mut(record.scope).rows;
        let rank = if rows.last(pool).is_none_or(less) {
            rows.push(pool, low, record.clock.0);
            rows.end() - 1
        } else {
            let place = rows.lower_bound(pool, record.clock.0, less);
            let rank = rows.rank(place);
            let key_of = |other| store.record(store.widen(other)).clock.0;
            rows.insert(pool, place, low, record.clock.0, key_of);
            rank
        };
        let by_origin = scopes.origin_rows_mut(record.scope, record.origin);
        by_origin.rows.push(pool, low, record.number);
        self.rows += 1;
        rank + 1
    }

    /// Takes a row out of its scope: `by` is the row of its message from now on.
    fn demote(&mut self, row: EntryId, by: EntryId) {
        let by = (self.origin_of(by), self.number_of(by));
        self.store.record_mut(row).standing = Standing::Demoted;
        self.unfile(row);
        let record = *self.store.record(row);
        let list = self.scopes.origin_rows_mut(record.scope, record.origin);
        let at = list.demoted.partition_point(|other| other.number < record.number);
        list.demoted.insert(at, Demoted { number: record.number, id: row, by });
    }

    /// The place of an entry in canonical order.
    pub(super) fn key(&self, id: EntryId) -> (Clock, Origin, u64) {
        let record = self.store.record(id);
        (record.clock, self.origins.value(record.origin), record.number)
    }
}
