//! The scopes: their rows in canonical order, and by origin.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::EntryId;
use super::pool::Pool;
use super::row_list::RowList;
use super::store::Store;
use crate::ids::{OriginRef, ScopeRef, SessionId};
use crate::wire::entry::Scope;

/// What a scope is. How the other was called does not matter to a talk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Name {
    Room(String),
    Talk(SessionId, SessionId),
}

/// An entry that was the row of its author's message until a lesser copy came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demoted {
    pub(super) number: u64,
    pub(super) id: EntryId,
    /// The copy that came.
    pub(super) by: (OriginRef, u64),
}

/// The rows of one origin in a scope.
#[derive(Debug)]
pub(super) struct OriginRows {
    pub(super) origin: OriginRef,
    /// By number, which is their canonical order too.
    pub(super) rows: RowList,
    /// By number.
    pub(super) demoted: Vec<Demoted>,
}

impl OriginRows {
    /// The rank of the first row with a number greater than `number`.
    pub(super) fn rank_after(&self, store: &Store, pool: &Pool, number: u64) -> u64 {
        let number_of = |id| store.record(store.widen(id)).number;
        if self.rows.last(pool).is_none_or(|last| number_of(last) <= number) {
            return self.rows.end();
        }
        let place = self.rows.lower_bound(pool, number + 1, |id| number_of(id) <= number);
        self.rows.rank(place)
    }
}

#[derive(Debug)]
pub(super) struct ScopeState {
    pub(super) name: Name,
    /// By clock, then origin, then number.
    pub(super) rows: RowList,
    /// By reference.
    pub(super) by_origin: Vec<OriginRows>,
}

impl ScopeState {
    pub(super) fn origin_rows(&self, origin: OriginRef) -> Option<&OriginRows> {
        let at = self.by_origin.binary_search_by_key(&origin, |rows| rows.origin).ok()?;
        Some(&self.by_origin[at])
    }
}

#[derive(Debug, Default)]
pub(super) struct Scopes {
    states: Vec<ScopeState>,
    rooms: BTreeMap<String, ScopeRef>,
    /// Both ways round: everyone's talks stand together.
    talks: BTreeMap<(SessionId, SessionId), ScopeRef>,
    talk_count: u64,
    memory_bytes: u64,
}

impl Scopes {
    pub(super) fn intern(&mut self, scope: &Scope<'_>) -> ScopeRef {
        if let Some(known) = self.find(scope) {
            return known;
        }
        let reference = ScopeRef(self.states.len() as u32);
        let name = match *scope {
            Scope::Room(room) => {
                self.rooms.insert(String::from(room), reference);
                self.memory_bytes += 2 * room.len() as u64;
                Name::Room(String::from(room))
            }
            Scope::Talk { low, high, .. } => {
                self.talks.insert((low, high), reference);
                self.talks.insert((high, low), reference);
                self.talk_count += 1;
                Name::Talk(low, high)
            }
        };
        self.memory_bytes += SCOPE_BYTES;
        self.states.push(ScopeState { name, rows: RowList::default(), by_origin: Vec::new() });
        reference
    }

    pub(super) fn find(&self, scope: &Scope<'_>) -> Option<ScopeRef> {
        match *scope {
            Scope::Room(room) => self.rooms.get(room).copied(),
            Scope::Talk { low, high, .. } => self.talks.get(&(low, high)).copied(),
        }
    }

    pub(super) fn talk_count(&self) -> u64 {
        self.talk_count
    }

    pub(super) fn talks_of(&self, session: SessionId) -> impl Iterator<Item = ScopeRef> {
        let all = (session, SessionId(0))..=(session, SessionId(u64::MAX));
        self.talks.range(all).map(|(_, scope)| *scope)
    }

    pub(super) fn state(&self, reference: ScopeRef) -> &ScopeState {
        &self.states[reference.0 as usize]
    }

    pub(super) fn state_mut(&mut self, reference: ScopeRef) -> &mut ScopeState {
        &mut self.states[reference.0 as usize]
    }

    /// The rows of an origin in a scope, to change them; an empty list at first.
    pub(super) fn origin_rows_mut(
        &mut self,
        scope: ScopeRef,
        origin: OriginRef,
    ) -> &mut OriginRows {
        let by_origin = &mut self.states[scope.0 as usize].by_origin;
        let at = by_origin.binary_search_by_key(&origin, |rows| rows.origin).unwrap_or_else(|at| {
            let rows = OriginRows { origin, rows: RowList::default(), demoted: Vec::new() };
            by_origin.insert(at, rows);
            self.memory_bytes += size_of::<OriginRows>() as u64;
            at
        });
        &mut by_origin[at]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ScopeRef, &ScopeState)> {
        (0..).map(ScopeRef).zip(&self.states)
    }

    pub(super) fn reserve(&mut self, entries: usize) {
        for state in &mut self.states {
            state.rows.reserve(entries);
            state.by_origin.iter_mut().for_each(|origin| origin.rows.reserve(entries));
        }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

/// What a scope takes, with its place in the tables.
const SCOPE_BYTES: u64 = (size_of::<ScopeState>() + 96) as u64;
