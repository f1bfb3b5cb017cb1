//! A person with a client of the plainest kind, and the connection that it has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::string::String;
use std::vec::Vec;

use super::super::net::WireId;
use super::model::{Model, Row, is_talk_of, scope_key};
use cordee_core::hash;
use cordee_core::ids::{AuthorId, Origin, OriginRef, SessionId, SessionSecret, Tag};
use cordee_core::names::{self, COMMON_ROOM};
use cordee_core::time::Time;
use cordee_core::wire::chat::Intent;
use cordee_core::wire::entry::{Entry, Portable, flags};
use cordee_core::wire::{Field, Reason, Seq};

/// What somebody asked for and must be answered, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Join(String),
    Leave(String),
    Topic,
    Name(String),
    Users,
    Rooms,
    /// Authors and numbers of the rows, and how many there are in all.
    Page(Vec<(AuthorId, u64)>, u64),
    Status,
    /// It must fail.
    Refused(Reason),
    /// It may succeed as this, or fail.
    Either(String),
}

/// A message on its way, and whether it must be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Saying {
    pub(super) number: u64,
    pub(super) taken: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) wire: WireId,
    pub(super) person: Option<usize>,
    pub(super) greeted: bool,
    pub(super) attached: bool,
    pub(super) caught_up: bool,
    /// It says what it likes: whatever happens to it is right.
    pub(super) wild: bool,
    /// Who left it to attach on another one, until it is attached there.
    pub(super) former: Option<usize>,
    pub(super) reads: bool,
    pub(super) buffer: Vec<u8>,
    pub(super) refs: BTreeMap<OriginRef, Origin>,
    pub(super) asked: BTreeMap<u64, Asked>,
    pub(super) page: Vec<(AuthorId, u64)>,
    pub(super) saying: VecDeque<Saying>,
    /// What may come of the attach that is under way: a reason, or none for being attached.
    pub(super) attaching: Vec<Option<Reason>>,
    pub(super) intent: Intent,
    /// How it answers when it is asked to hand something back.
    pub(super) returns: u8,
    /// For which reasons the server may close it.
    pub(super) may_close: Vec<Reason>,
}

impl Link {
    pub(super) fn new(wire: WireId) -> Self {
        Link {
            wire,
            person: None,
            greeted: false,
            attached: false,
            caught_up: false,
            wild: false,
            former: None,
            reads: true,
            buffer: Vec::new(),
            refs: BTreeMap::new(),
            asked: BTreeMap::new(),
            page: Vec::new(),
            saying: VecDeque::new(),
            attaching: Vec::new(),
            intent: Intent::New,
            returns: 0,
            may_close: Vec::new(),
        }
    }

    /// Takes what came and gives whole frames: kind and payload.
    pub(super) fn frames(&mut self, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        self.buffer.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while let Some(prefix) = self.buffer.first_chunk::<4>() {
            let end = u32::from_be_bytes(*prefix) as usize + 4;
            if self.buffer.len() < end {
                break;
            }
            whole.push((self.buffer[4], self.buffer[5..end].to_vec()));
            self.buffer.drain(..end);
        }
        whole
    }
}

/// An entry that was received, to be handed back.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) scope: String,
    pub(super) portable: Vec<u8>,
    pub(super) tag: Tag,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) secret: SessionSecret,
    pub(super) session: SessionId,
    pub(super) process: u64,
    pub(super) attachment: u32,
    /// The last number that it gave.
    pub(super) given: u64,
    /// What it told the server of that when it attached.
    pub(super) said_before: u64,
    pub(super) rooms: BTreeSet<String>,
    pub(super) seen: BTreeMap<Origin, u64>,
    pub(super) partial: BTreeMap<String, BTreeMap<Origin, u64>>,
    pub(super) kept: BTreeMap<(Origin, u64), Kept>,
    pub(super) screen: BTreeMap<String, Vec<(AuthorId, u64)>>,
    /// Whether this start of the server knows it, by which comparable name, and since when it is
    /// away.
    pub(super) known: Option<(String, Option<Time>)>,
    /// Whether it said that it saw more than it did.
    pub(super) lied: bool,
}

impl Person {
    pub(super) fn new(number: usize) -> Self {
        let secret = SessionSecret([0xa0 + number as u8; 16]);
        Person {
            secret,
            session: hash::session_id("cordee", &secret),
            process: 1,
            attachment: 0,
            given: 0,
            said_before: 0,
            rooms: BTreeSet::new(),
            seen: BTreeMap::new(),
            partial: BTreeMap::new(),
            kept: BTreeMap::new(),
            screen: BTreeMap::new(),
            known: None,
            lied: false,
        }
    }

    pub(super) fn author(&self) -> AuthorId {
        AuthorId { session: self.session, process: self.process }
    }

    /// It begins with nothing.
    pub(super) fn begin_anew(&mut self) {
        self.lied = false;
        self.seen.clear();
        self.partial.clear();
        self.kept.clear();
        self.screen.clear();
    }

    /// It is attached: what it holds is cut back, its rooms are the server's.
    pub(super) fn attached(&mut self, cut: &[(Origin, u64)], rooms: BTreeSet<String>) {
        for (origin, number) in cut {
            if let Some(seen) = self.seen.get_mut(origin) {
                *seen = (*seen).min(*number);
            }
            self.kept.retain(|(of, at), _| of != origin || at <= number);
        }
        self.partial.retain(|room, _| rooms.contains(room));
        self.rooms = rooms;
    }

    pub(super) fn joined(&mut self, room: &str) {
        if self.rooms.insert(String::from(room)) {
            self.partial.insert(String::from(room), BTreeMap::new());
        }
    }

    pub(super) fn left(&mut self, room: &str) {
        self.rooms.remove(room);
        self.partial.remove(room);
        self.screen.remove(room);
        self.kept.retain(|_, kept| kept.scope != room);
    }

    /// An entry came: it is one of those that it may see, was said by who it says, and comes once.
    pub(super) fn receive(
        &mut self,
        entry: &Entry<'_>,
        refs: &BTreeMap<OriginRef, Origin>,
        model: &Model,
    ) {
        let origin = *refs.get(&entry.origin).expect("an origin is defined before it is used");
        let scope = scope_key(&entry.scope);
        assert_eq!(entry.flags & flags::COPY, 0, "one server takes nothing twice");
        let own = self.rooms.contains(&scope) || is_talk_of(&scope, self.session);
        assert!(own, "{scope} is not to be seen");
        let row = Row {
            scope: scope.clone(),
            author: entry.author,
            number: entry.author_number,
            body: String::from(entry.body),
        };
        assert!(model.was_said(&row), "nobody said {row:?}");
        let seen = match self.partial.get_mut(&scope) {
            Some(seen) => seen,
            None => &mut self.seen,
        };
        let seen = seen.entry(origin).or_default();
        assert!(*seen < entry.number, "{} of {origin:?} comes after {seen}", entry.number);
        *seen = entry.number;
        let kept = Kept { scope: scope.clone(), portable: portable(entry, refs), tag: entry.tag };
        let before = self.kept.insert((origin, entry.number), kept);
        assert!(before.is_none(), "an entry comes once");
        let shown = self.screen.entry(scope).or_default();
        if !shown.contains(&(row.author, row.number)) {
            shown.push((row.author, row.number));
        }
    }

    /// What the server has and it may see is what it was shown, in the server's order.
    pub(super) fn assert_has_all(&self, model: &Model) {
        if self.lied {
            return;
        }
        let scopes: BTreeSet<&String> =
            model.visible(self.session, &self.rooms).map(|row| &row.scope).collect();
        for scope in scopes {
            let there: Vec<(AuthorId, u64)> =
                model.rows_of(scope).map(|row| (row.author, row.number)).collect();
            let shown = self.screen.get(scope).map_or(&[][..], Vec::as_slice);
            for row in &there {
                assert!(shown.contains(row), "{row:?} in {scope} was never shown");
            }
        }
    }

    /// Its name as it is compared.
    pub(super) fn key_of(name: &str) -> Option<String> {
        names::user_key(name).ok()
    }
}

pub(super) fn with_common_room(rooms: &[&str]) -> BTreeSet<String> {
    rooms.iter().copied().chain([COMMON_ROOM]).filter_map(|room| names::room(room).ok()).collect()
}

fn portable(entry: &Entry<'_>, refs: &BTreeMap<OriginRef, Origin>) -> Vec<u8> {
    let of = |reference: &OriginRef| *refs.get(reference).expect("defined before it is used");
    let after: Vec<(Origin, u64)> =
        entry.after.iter().map(|(o, number)| (of(&o), number)).collect();
    let mut bytes = Vec::new();
    Portable {
        origin: of(&entry.origin),
        number: entry.number,
        clock: entry.clock,
        author: entry.author,
        author_number: entry.author_number,
        name: entry.name,
        scope: entry.scope,
        after: Seq::new(&after),
        body: entry.body,
    }
    .put(&mut bytes);
    bytes
}
