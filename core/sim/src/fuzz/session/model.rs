//! What the server of the sessions must hold, by the plainest means.

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::String;
use std::vec::Vec;

use cordee_core::ids::{AuthorId, SessionId};
use cordee_core::names::COMMON_ROOM;
use cordee_core::wire::entry::Scope;

/// A message that counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) scope: String,
    pub(super) author: AuthorId,
    pub(super) number: u64,
    pub(super) body: String,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Model {
    /// In the order in which they were taken.
    pub(super) rows: Vec<Row>,
    pub(super) rooms: BTreeMap<String, String>,
    /// Everything that anyone ever said under a number: nobody else's words may come.
    said: BTreeSet<(AuthorId, u64, String, String)>,
}

impl Model {
    pub(super) fn new() -> Self {
        let rooms = BTreeMap::from([(String::from(COMMON_ROOM), String::new())]);
        Model { rows: Vec::new(), rooms, said: BTreeSet::new() }
    }

    /// The server has started anew and has nothing.
    pub(super) fn lose_all(&mut self) {
        self.rows.clear();
        self.rooms.retain(|room, _| room == COMMON_ROOM);
        self.rooms.insert(String::from(COMMON_ROOM), String::new());
    }

    pub(super) fn note_said(&mut self, row: &Row) {
        self.said.insert((row.author, row.number, row.scope.clone(), row.body.clone()));
    }

    pub(super) fn was_said(&self, row: &Row) -> bool {
        self.said.contains(&(row.author, row.number, row.scope.clone(), row.body.clone()))
    }

    pub(super) fn has(&self, author: AuthorId, number: u64) -> bool {
        self.rows.iter().any(|row| (row.author, row.number) == (author, number))
    }

    /// The highest number of an author.
    pub(super) fn last(&self, author: AuthorId) -> u64 {
        let own = self.rows.iter().filter(|row| row.author == author);
        own.map(|row| row.number).max().unwrap_or(0)
    }

    pub(super) fn know_room(&mut self, room: &str) {
        self.rooms.entry(String::from(room)).or_default();
    }

    pub(super) fn rows_of<'m>(&'m self, scope: &'m str) -> impl Iterator<Item = &'m Row> {
        self.rows.iter().filter(move |row| row.scope == scope)
    }

    /// What a session may see.
    pub(super) fn visible<'m>(
        &'m self,
        session: SessionId,
        rooms: &'m BTreeSet<String>,
    ) -> impl DoubleEndedIterator<Item = &'m Row> {
        self.rows
            .iter()
            .filter(move |row| rooms.contains(&row.scope) || is_talk_of(&row.scope, session))
    }
}

/// How a scope is known here.
pub(super) fn scope_key(scope: &Scope<'_>) -> String {
    match scope {
        Scope::Room(room) => String::from(*room),
        Scope::Talk { low, high, .. } => format!("{low}+{high}"),
    }
}

pub(super) fn is_talk_of(scope: &str, session: SessionId) -> bool {
    let session = format!("{session}");
    scope.split_once('+').is_some_and(|(low, high)| low == session || high == session)
}
