//! The archive: every entry that was shown, by origin, by author and in canonical order.

use alloc::vec::Vec;

use crate::ids::{AuthorId, Clock, Origin, OriginRef, ScopeRef, SessionId, Tag};
use crate::wire::entry::{Entry, Scope};

mod catch_up;

pub use catch_up::CatchUp;

/// A stored entry. Counts in the order of arrival; valid until the entry is trimmed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntryId(pub u64);

/// An entry to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// Which origin accepted it.
    pub origin: OriginRef,
    /// Its number within the origin.
    pub number: u64,
    /// Its clock.
    pub clock: Clock,
    /// Who wrote it.
    pub author: AuthorId,
    /// The author's own count.
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

/// What became of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inserted {
    /// The entry.
    pub id: EntryId,
    /// Its scope.
    pub scope: ScopeRef,
    /// The place of its row in the canonical order of its scope, from 1, counting what was
    /// trimmed; 0 for a copy whose row was trimmed.
    pub index: u64,
    /// Whether it is another copy of a row that was shown before.
    pub copy: bool,
    /// Whether it is such a copy and became the row, being the least in canonical order.
    pub moved: bool,
}

/// Every entry that was shown.
#[derive(Debug)]
pub struct Archive {}

#[allow(unused_variables, missing_docs, clippy::missing_panics_doc, clippy::must_use_candidate)]
impl Archive {
    pub fn new(bytes_max: u64, origins_max: u32, authors_max: u32) -> Self {
        Archive {}
    }
    /// The reference of an origin and whether it is new; `None` when there are too many.
    pub fn define_origin(&mut self, origin: Origin) -> Option<(OriginRef, bool)> {
        todo!()
    }
    pub fn find_origin(&self, origin: &Origin) -> Option<OriginRef> {
        todo!()
    }
    pub fn origin(&self, r: OriginRef) -> Origin {
        todo!()
    }
    pub fn origins(&self) -> impl Iterator<Item = (OriginRef, Origin)> {
        core::iter::empty()
    }
    pub fn shown(&self, r: OriginRef) -> u64 {
        todo!()
    }
    /// The clock of the origin's last entry, 0 without: the next must be greater.
    pub fn origin_clock(&self, r: OriginRef) -> Clock {
        todo!()
    }
    pub fn rolling(&self, r: OriginRef) -> Tag {
        todo!()
    }
    pub fn vector_hash(&self) -> u64 {
        todo!()
    }
    pub fn digest(&self, extra: &[&[u8]]) -> Tag {
        todo!()
    }

    pub fn scope(&mut self, scope: &Scope<'_>) -> ScopeRef {
        todo!()
    }
    pub fn find_scope(&self, scope: &Scope<'_>) -> Option<ScopeRef> {
        todo!()
    }
    pub fn scope_rows(&self, s: ScopeRef) -> u64 {
        todo!()
    }
    /// Rows of all scopes, trimmed ones included.
    pub fn rows(&self) -> u64 {
        todo!()
    }
    pub fn talks_of(&self, session: SessionId) -> impl Iterator<Item = ScopeRef> {
        core::iter::empty()
    }
    pub fn talk_members(&self, s: ScopeRef) -> Option<(SessionId, SessionId)> {
        todo!()
    }

    pub fn author_number(&self, a: &AuthorId) -> u64 {
        todo!()
    }
    pub fn author_clock(&self, a: &AuthorId) -> Clock {
        todo!()
    }
    /// Whether an entry of that author and number may be shown now: at most one more than the
    /// highest shown, or anything of an author that may have been forgotten (`authors_max`).
    pub fn may_follow(&self, a: &AuthorId, author_number: u64) -> bool {
        todo!()
    }
    pub fn row(&self, a: &AuthorId, author_number: u64) -> Option<EntryId> {
        todo!()
    }

    /// Whether an entry is short enough to travel in one frame whatever its index.
    pub fn fits(&self, entry: &NewEntry<'_>) -> bool {
        todo!()
    }
    pub fn insert(&mut self, entry: &NewEntry<'_>) -> Inserted {
        todo!()
    }

    pub fn id(&self, origin: OriginRef, number: u64) -> Option<EntryId> {
        todo!()
    }
    pub fn contains(&self, id: EntryId) -> bool {
        todo!()
    }
    pub fn index(&self, id: EntryId) -> u64 {
        todo!()
    }
    pub fn is_copy(&self, id: EntryId) -> bool {
        todo!()
    }
    pub fn entry(&self, id: EntryId, final_clock: Clock) -> Entry<'_> {
        todo!()
    }
    pub fn put_entry(&self, id: EntryId, final_clock: Clock, extra_flags: u8, out: &mut Vec<u8>) {
        todo!()
    }
    pub fn put_portable(&self, id: EntryId, out: &mut Vec<u8>) {
        todo!()
    }
    pub fn tag(&self, id: EntryId) -> Tag {
        todo!()
    }
    pub fn clock_of(&self, id: EntryId) -> Clock {
        todo!()
    }
    pub fn origin_of(&self, id: EntryId) -> OriginRef {
        todo!()
    }
    pub fn number_of(&self, id: EntryId) -> u64 {
        todo!()
    }
    pub fn scope_of(&self, id: EntryId) -> ScopeRef {
        todo!()
    }
    pub fn body_of(&self, id: EntryId) -> &str {
        todo!()
    }
    pub fn page(
        &self,
        s: ScopeRef,
        from_index: u64,
        count: usize,
    ) -> impl Iterator<Item = EntryId> {
        core::iter::empty()
    }
    pub fn rows_through(&self, s: ScopeRef, seen: &dyn Fn(OriginRef) -> u64) -> u64 {
        todo!()
    }
    /// Rows from the newest arrival back, below `before` (all of them without). To go on later,
    /// give the last id as `before`.
    pub fn newest_first(&self, before: Option<EntryId>) -> impl Iterator<Item = EntryId> {
        core::iter::empty()
    }

    pub fn memory_bytes(&self) -> u64 {
        todo!()
    }
    /// Rows of a scope that were trimmed: the first index still there is one more.
    pub fn scope_trimmed(&self, s: ScopeRef) -> u64 {
        todo!()
    }
    /// Rows of all scopes that were trimmed.
    pub fn rows_trimmed(&self) -> u64 {
        todo!()
    }
    /// The lowest number of an origin that is still there (`shown + 1` when none is).
    pub fn first_number(&self, r: OriginRef) -> u64 {
        todo!()
    }
    pub fn reserve(&mut self, entries: usize) {
        todo!()
    }
    pub fn check(&self) {}
}
