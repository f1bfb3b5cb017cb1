//! The archive: every entry that was shown, by origin, by author and in canonical order.
//!
//! ```text
//! insert ──▶ Store    records and encoded bytes, in the order of arrival; trimmed at the front
//!            Origins  number → entry, rolling hashes, the hash over the vector
//!            Pasts    by server: what is left of starts that ended and were trimmed
//!            Authors  author's number → row: tells copies from rows
//!            Scopes   rows in canonical order, and by origin: index, pages, MA and MT
//! ```
//!
//! **Rows and copies.** Of several entries with one (author, author's number) the least in
//! canonical order (clock, origin, number) is the row; a lesser copy that comes later takes its
//! place. Copies are stored, for peers and for the rolling hash, and are in no scope. An author's
//! numbers may have holes, where messages were lost with their server; what fills one is a row.
//!
//! **Trimming.** When the archive outgrows its bytes, the entries that arrived first go, a chunk
//! at a time. What they were counted in stays counted: trimmed rows stand below all others of
//! their scope, and whoever asks what it lacks is taken to have them. A row that arrived before
//! others but stands after them thus raises their index by one when it is trimmed.
//!
//! **Floors.** Whoever lacks what was trimmed here adopts the floor: per origin the number, the
//! rolling hash and the rows of each scope up to there, and which messages these were. It then
//! counts as if it had shown all of it and trimmed it.
//!
//! **Pasts.** An origin that ended and of which everything was trimmed gives up its place: counts
//! and hashes are added to the past of its server ([`Past`]). An origin without entries leaves
//! nothing. So places are taken by origins that go on, and by those that are paid for by entries.

use alloc::vec::Vec;

use crate::framing::HEADER_BYTES;
use crate::hash;
use crate::ids::{AuthorId, Clock, Origin, OriginRef, ScopeRef, SessionId, Tag};
use crate::wire::entry::{Entry, Scope, flags};
use crate::wire::{Message, put_varint};

mod authors;
mod catch_up;
mod check;
mod floor;
mod forms;
mod insert;
mod origins;
mod past;
mod pool;
mod row_list;
mod scopes;
mod sequence;
mod store;
#[cfg(test)]
mod tests;
mod trim;

pub use catch_up::CatchUp;
pub(crate) use catch_up::HEADS_MAX;
pub use floor::{Adopted, Floor, FloorAuthor, FloorOrigin, Raised};
pub use insert::{Inserted, NewEntry};
pub use origins::Sums;
pub use past::{Past, PastOrder};

use authors::Authors;
use forms::PortableForm;
use origins::Origins;
use past::Pasts;
use pool::{Id, Pool};
use scopes::{Name, Scopes};
use store::{Record, Standing, Store};

/// A stored entry. Counts in the order of arrival; valid until the entry is trimmed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntryId(pub u64);

/// Every entry that was shown. See the [module](self).
///
/// References to origins and scopes are this archive's own. Those to scopes never change their
/// meaning, those to origins only when they were [given up](Self::fold) and [used again](Self::reuse).
/// Methods that take an [`EntryId`] panic when it was trimmed ([`contains`](Self::contains)).
#[derive(Debug)]
pub struct Archive {
    store: Store,
    pool: Pool,
    origins: Origins,
    pasts: Pasts,
    scopes: Scopes,
    authors: Authors,
    /// Rows of all scopes, trimmed ones included.
    rows: u64,
    rows_trimmed: u64,
    bytes_max: u64,
    /// The entry that was inserted last.
    scratch: PortableForm,
    /// Kept for its capacity: the entry that was trimmed last.
    trimmed: Vec<u8>,
}

impl Archive {
    /// An empty archive of at most `bytes_max` bytes (half a MiB at least), `origins_max` origins,
    /// and `authors_max` authors that have no row in memory and are remembered all the same.
    #[must_use]
    pub fn new(bytes_max: u64, origins_max: u32, authors_max: u32) -> Self {
        Archive {
            store: Store::new(bytes_max),
            pool: Pool::default(),
            origins: Origins::new(origins_max),
            pasts: Pasts::default(),
            scopes: Scopes::default(),
            authors: Authors::new(authors_max),
            rows: 0,
            rows_trimmed: 0,
            bytes_max,
            scratch: PortableForm::default(),
            trimmed: Vec::new(),
        }
    }

    /// The reference of an origin, and whether it is new. The first one defined gets 0. `None`
    /// when there are too many.
    pub fn define_origin(&mut self, origin: Origin) -> Option<(OriginRef, bool)> {
        self.origins.define(origin)
    }

    /// The reference of an origin that was defined.
    #[must_use]
    pub fn find_origin(&self, origin: &Origin) -> Option<OriginRef> {
        self.origins.find(origin)
    }

    /// References are numbers below this.
    #[must_use]
    pub fn references_end(&self) -> u32 {
        self.origins.count()
    }

    /// Whether a reference stands, or stood, for an origin.
    #[must_use]
    pub fn has_reference(&self, origin: OriginRef) -> bool {
        self.origins.has(origin)
    }

    /// Whether a reference was given up and stands for nothing.
    #[must_use]
    pub fn is_vacant(&self, origin: OriginRef) -> bool {
        self.origins.value(origin) == Origin::default()
    }

    /// What a reference stands for.
    #[must_use]
    pub fn origin(&self, origin: OriginRef) -> Origin {
        self.origins.value(origin)
    }

    /// All origins that have a place, by reference.
    pub fn origins(&self) -> impl Iterator<Item = (OriginRef, Origin)> {
        self.origins.iter().map(|(reference, state)| (reference, state.value))
    }

    /// The highest number of an origin; 0 when nothing of it is shown.
    #[must_use]
    pub fn shown(&self, origin: OriginRef) -> u64 {
        self.origins.state(origin).shown()
    }

    /// The lowest number of an origin that was not trimmed; one more than [`shown`](Self::shown)
    /// when none is left.
    #[must_use]
    pub fn first_number(&self, origin: OriginRef) -> u64 {
        self.origins.state(origin).entries.front()
    }

    /// The clock of an origin's last entry: that of the next must be greater.
    #[must_use]
    pub fn origin_clock(&self, origin: OriginRef) -> Clock {
        self.origins.state(origin).clock
    }

    /// The rolling hash over an origin's entries in portable form, in their order.
    #[must_use]
    pub fn rolling(&self, origin: OriginRef) -> Tag {
        self.origins.state(origin).rolling
    }

    /// A hash over what is shown of every origin. Equal vectors, equal hashes, on every server.
    #[must_use]
    pub fn vector_hash(&self) -> u64 {
        self.origins.vector_hash()
    }

    /// The digest over all entries, then `extra`. Equal archives, equal digests, on every server.
    #[must_use]
    pub fn digest(&self, extra: &[&[u8]]) -> Tag {
        let pasts = self.pasts.0.values().map(|(_, sums, _)| *sums);
        let sums = pasts.fold(self.origins.sums(), |sum, sums| sum + sums);
        let sum = sums.digest.to_be_bytes();
        hash::digest(core::iter::once(&sum[..]).chain(extra.iter().copied()))
    }

    /// The reference of a scope, which is defined when it is new. What the other was called is no
    /// part of a talk's identity.
    pub fn scope(&mut self, scope: &Scope<'_>) -> ScopeRef {
        self.scopes.intern(scope)
    }

    /// The reference of a scope that was defined.
    #[must_use]
    pub fn find_scope(&self, scope: &Scope<'_>) -> Option<ScopeRef> {
        self.scopes.find(scope)
    }

    /// The name of a room; `None` for a talk.
    #[must_use]
    pub fn room_name(&self, scope: ScopeRef) -> Option<&str> {
        match &self.scopes.state(scope).name {
            Name::Room(name) => Some(name),
            Name::Talk(..) => None,
        }
    }

    /// The two sessions of a talk, the lesser first; `None` for a room.
    #[must_use]
    pub fn talk_members(&self, scope: ScopeRef) -> Option<(SessionId, SessionId)> {
        match self.scopes.state(scope).name {
            Name::Room(_) => None,
            Name::Talk(low, high) => Some((low, high)),
        }
    }

    /// How many talks there are. Like rooms, they stay.
    #[must_use]
    pub fn talk_count(&self) -> u64 {
        self.scopes.talk_count()
    }

    /// The talks of a session.
    pub fn talks_of(&self, session: SessionId) -> impl Iterator<Item = ScopeRef> {
        self.scopes.talks_of(session)
    }

    /// How many rows a scope has, trimmed ones included.
    #[must_use]
    pub fn scope_rows(&self, scope: ScopeRef) -> u64 {
        self.scopes.state(scope).rows.end()
    }

    /// How many rows of a scope were trimmed: the least index that is there is one more.
    #[must_use]
    pub fn scope_trimmed(&self, scope: ScopeRef) -> u64 {
        self.scopes.state(scope).rows.trimmed()
    }

    /// How many rows all scopes have, trimmed ones included.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many rows of all scopes were trimmed.
    #[must_use]
    pub fn rows_trimmed(&self) -> u64 {
        self.rows_trimmed
    }

    /// The highest number of an author; 0 when nothing of it is known.
    #[must_use]
    pub fn author_number(&self, author: &AuthorId) -> u64 {
        self.authors.number(author)
    }

    /// A clock that is at least that of every row of an author when it was shown.
    #[must_use]
    pub fn author_clock(&self, author: &AuthorId) -> Clock {
        self.authors.clock(author)
    }

    /// Whether an entry with this number of an author is believable: a copy, the next one, or one
    /// that comes so soon after it that those between can have been lost.
    #[must_use]
    pub fn may_follow(&self, author: &AuthorId, author_number: u64) -> bool {
        self.authors.may_follow(author, author_number)
    }

    /// Whether a message of an author was shown.
    #[must_use]
    pub fn has_row(&self, author: &AuthorId, author_number: u64) -> bool {
        self.authors.has(&self.pool, author, author_number)
    }

    /// The row of an author's message, unless it was trimmed.
    #[must_use]
    pub fn row(&self, author: &AuthorId, author_number: u64) -> Option<EntryId> {
        let id = self.authors.row(&self.pool, author, author_number)?;
        self.live_row(id, author, author_number)
    }

    /// Whether an entry is there. What was trimmed is not.
    #[must_use]
    pub fn contains(&self, id: EntryId) -> bool {
        self.store.contains(id) && self.store.record(id).standing != Standing::Void
    }

    /// The entry with a number of an origin, unless it was trimmed.
    #[must_use]
    pub fn id(&self, origin: OriginRef, number: u64) -> Option<EntryId> {
        let id = self.origins.state(origin).entries.get(&self.pool, number)?;
        Some(self.store.widen(id))
    }

    /// The place of an entry's row in the canonical order of its scope, from 1, trimmed rows
    /// counted; 0 for a copy whose row was trimmed.
    #[must_use]
    pub fn index(&self, id: EntryId) -> u64 {
        self.index_of(id, self.store.record(id))
    }

    /// Whether another entry is the row of its author's message.
    #[must_use]
    pub fn is_copy(&self, id: EntryId) -> bool {
        self.store.record(id).standing != Standing::Row
    }

    /// An entry as it travels, with the flags that follow from the archive: `FINAL` when its clock
    /// is at most `final_clock`, `COPY` when it never was the row.
    #[must_use]
    pub fn entry(&self, id: EntryId, final_clock: Clock) -> Entry<'_> {
        let record = self.store.record(id);
        let index = self.index_of(id, record);
        forms::decode(self.store.bytes_of(record), index, flags_of(record, final_clock))
    }

    /// What an entry says.
    #[must_use]
    pub fn body_of(&self, id: EntryId) -> &str {
        forms::decode(self.store.bytes(id), 0, 0).body
    }

    /// Appends the frame of [`entry`](Self::entry), with `extra_flags` added.
    pub fn put_entry(&self, id: EntryId, final_clock: Clock, extra_flags: u8, out: &mut Vec<u8>) {
        let record = self.store.record(id);
        self.put_indexed(record, self.index_of(id, record), final_clock, extra_flags, out);
    }

    /// As [`put_entry`](Self::put_entry), of an entry that was inserted last.
    pub fn put_inserted(&self, inserted: &Inserted, final_clock: Clock, out: &mut Vec<u8>) {
        let record = self.store.record(inserted.id);
        self.put_indexed(record, inserted.index, final_clock, 0, out);
    }

    fn put_indexed(
        &self,
        record: &Record,
        index: u64,
        final_clock: Clock,
        extra_flags: u8,
        out: &mut Vec<u8>,
    ) {
        let stored = self.store.bytes_of(record);
        let start = out.len();
        out.reserve(HEADER_BYTES + stored.len() + 11);
        out.extend_from_slice(&[0, 0, 0, 0, Entry::KIND]);
        out.extend_from_slice(stored);
        put_varint(out, index);
        out.push(flags_of(record, final_clock) | extra_flags);
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Appends the portable form of an entry.
    pub fn put_portable(&self, id: EntryId, out: &mut Vec<u8>) {
        forms::put_portable(self.store.bytes(id), &self.origins, out);
    }

    /// The portable form of the entry that was inserted last.
    #[must_use]
    pub fn inserted_portable(&self) -> &[u8] {
        &self.scratch.bytes
    }

    /// The tag of an entry.
    #[must_use]
    pub fn tag(&self, id: EntryId) -> Tag {
        forms::tag_of(self.store.bytes(id))
    }

    /// The clock of an entry.
    #[must_use]
    pub fn clock_of(&self, id: EntryId) -> Clock {
        self.store.record(id).clock
    }

    /// The origin of an entry.
    #[must_use]
    pub fn origin_of(&self, id: EntryId) -> OriginRef {
        self.store.record(id).origin
    }

    /// The number of an entry.
    #[must_use]
    pub fn number_of(&self, id: EntryId) -> u64 {
        self.store.record(id).number
    }

    /// The scope of an entry.
    #[must_use]
    pub fn scope_of(&self, id: EntryId) -> ScopeRef {
        self.store.record(id).scope
    }

    /// Up to `count` rows of a scope in canonical order, from an index on, or from the first that
    /// was not trimmed.
    pub fn page(
        &self,
        scope: ScopeRef,
        from_index: u64,
        count: usize,
    ) -> impl Iterator<Item = EntryId> {
        let rows = &self.scopes.state(scope).rows;
        let ids = rows.iter_from(&self.pool, from_index.saturating_sub(1));
        ids.take(count).map(|id| self.store.widen(id))
    }

    /// How many rows of a scope have numbers up to what was `seen` of their origin. Trimmed rows
    /// count as seen.
    #[must_use]
    pub fn rows_through(&self, scope: ScopeRef, seen: &dyn Fn(OriginRef) -> u64) -> u64 {
        let state = self.scopes.state(scope);
        let ranks = state.by_origin.iter();
        let ranks = ranks.map(|list| list.rank_after(&self.store, &self.pool, seen(list.origin)));
        state.past_rows() + ranks.sum::<u64>()
    }

    /// Rows from the newest arrival back to the oldest: all of them, or those that arrived before
    /// `before`. To go on later, give the last id that came.
    pub fn newest_first(&self, before: Option<EntryId>) -> impl Iterator<Item = EntryId> {
        let ids = self.store.ids();
        let end = before.map_or(ids.end, |before| before.0.min(ids.end));
        (ids.start..end).rev().map(EntryId).filter(|id| !self.is_copy(*id))
    }

    fn index_of(&self, id: EntryId, record: &Record) -> u64 {
        if record.standing == Standing::Row {
            let rows = &self.scopes.state(record.scope).rows;
            let place = rows.find(&self.pool, record.clock.0, id.0 as Id);
            return rows.rank(place.expect("a row is in its scope")) + 1;
        }
        let (author, number) = forms::author_of(self.store.bytes_of(record));
        self.row(&author, number).map_or(0, |row| self.index(row))
    }

    /// The entry of an id that an author's list holds, if it is that author's row still.
    fn live_row(&self, id: Id, author: &AuthorId, author_number: u64) -> Option<EntryId> {
        let id = self.store.widen(id);
        is_row(&self.store, id, author, author_number).then_some(id)
    }
}

fn flags_of(record: &Record, final_clock: Clock) -> u8 {
    let copy = if record.standing == Standing::Copy { flags::COPY } else { 0 };
    let is_final = if record.clock <= final_clock { flags::FINAL } else { 0 };
    copy | is_final
}

/// Whether `id` is there and is the row of that message. An author's list may hold ids of trimmed
/// rows, and after 2^32 arrivals such an id means another entry.
fn is_row(store: &Store, id: EntryId, author: &AuthorId, author_number: u64) -> bool {
    store.contains(id)
        && store.record(id).standing == Standing::Row
        && forms::author_of(store.bytes(id)) == (*author, author_number)
}
