//! The scopes: their rows in canonical order, and by origin.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::EntryId;
use super::pool::Pool;
use super::row_list::RowList;
use super::store::Store;
use crate::ids::{OriginRef, ScopeRef, ServerId, SessionId};
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
    /// Rows that belong to the past of a server, by it, without those that have none.
    pub(super) past: Vec<(ServerId, u64)>,
}

impl ScopeState {
    pub(super) fn origin_rows(&self, origin: OriginRef) -> Option<&OriginRows> {
        let at = self.by_origin.binary_search_by_key(&origin, |rows| rows.origin).ok()?;
        Some(&self.by_origin[at])
    }

    /// Rows that belong to the past of any server.
    pub(super) fn past_rows(&self) -> u64 {
        self.past.iter().map(|(_, rows)| rows).sum()
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
        self.states.push(ScopeState {
            name,
            rows: RowList::default(),
            by_origin: Vec::new(),
            past: Vec::new(),
        });
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

    /// Counts an origin's rows, all of which were trimmed, as its server's past.
    pub(super) fn fold(&mut self, origin: OriginRef, server: ServerId) {
        for (rows, scope) in self.take_trimmed(origin) {
            let before = self.state(scope).past.iter().find(|(other, _)| *other == server);
            let before = before.map_or(0, |(_, rows)| *rows);
            self.set_past(scope, server, before + rows);
        }
    }

    /// Takes the lists of an origin out, of which all rows were trimmed, and returns how many it
    /// had in which scopes.
    pub(super) fn take_trimmed(&mut self, origin: OriginRef) -> Vec<(u64, ScopeRef)> {
        let mut taken = Vec::new();
        for (scope, state) in (0..).map(ScopeRef).zip(&mut self.states) {
            let by_origin = &mut state.by_origin;
            let Ok(at) = by_origin.binary_search_by_key(&origin, |rows| rows.origin) else {
                continue;
            };
            let list = by_origin.remove(at);
            assert!(list.rows.runs() == 0 && list.demoted.is_empty(), "all were trimmed");
            self.memory_bytes -= size_of::<OriginRows>() as u64;
            if list.rows.trimmed() > 0 {
                taken.push((list.rows.trimmed(), scope));
            }
        }
        taken
    }

    /// Takes out what belongs to the past of a server, and returns it.
    pub(super) fn take_past(&mut self, server: ServerId) -> Vec<(u64, ScopeRef)> {
        let mut taken = Vec::new();
        for (scope, state) in (0..).map(ScopeRef).zip(&mut self.states) {
            if let Some(at) = state.past.iter().position(|(other, _)| *other == server) {
                taken.push((state.past.remove(at).1, scope));
                self.memory_bytes -= PAST_BYTES;
            }
        }
        taken
    }

    /// So many rows of a scope belong to the past of a server.
    pub(super) fn set_past(&mut self, scope: ScopeRef, server: ServerId, rows: u64) {
        let past = &mut self.states[scope.0 as usize].past;
        match past.iter_mut().find(|(other, _)| *other == server) {
            Some((_, before)) => *before = rows,
            None => {
                past.push((server, rows));
                self.memory_bytes += PAST_BYTES;
            }
        }
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

/// What a server's past takes in a scope.
const PAST_BYTES: u64 = 2 * size_of::<(ServerId, u64)>() as u64;

/// What a scope takes, with its place in the tables.
const SCOPE_BYTES: u64 = (size_of::<ScopeState>() + 96) as u64;
