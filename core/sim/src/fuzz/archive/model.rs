//! What an archive must hold, by the plainest means: lists that are sorted anew for each question.

use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::vec::Vec;

use cordee_core::archive::{Archive, EntryId, Floor, Inserted};
use cordee_core::ids::{AuthorId, Clock, Origin, OriginRef, ScopeRef, ServerId, SessionId, Tag};
use cordee_core::wire::entry::Scope;

pub(super) const ORIGINS: usize = 4;
pub(super) const AUTHORS: usize = 3;
pub(super) const SCOPES: usize = 4;

/// An entry as all know it: origins, authors and scopes by number.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) origin: usize,
    pub(super) number: u64,
    pub(super) clock: u64,
    pub(super) author: usize,
    pub(super) author_number: u64,
    pub(super) scope: usize,
    pub(super) body: String,
    /// The rolling hash of its origin after it.
    pub(super) rolling: Tag,
}

impl Fact {
    fn message(&self) -> Message {
        (self.author, self.author_number)
    }

    /// Its place in the canonical order.
    fn key(&self) -> (u64, Origin, u64) {
        (self.clock, origin_value(self.origin), self.number)
    }
}

type Message = (usize, u64);

pub(super) fn origin_value(origin: usize) -> Origin {
    // Not ascending, so that references and values are in different orders.
    Origin { server: ServerId([5, 3, 8, 1][origin]), incarnation: 1, nonce: origin as u64 }
}

pub(super) fn author_value(author: usize) -> AuthorId {
    AuthorId { session: SessionId(author as u64), process: 7 }
}

fn author_of(value: &AuthorId) -> usize {
    value.session.0 as usize
}

pub(super) fn scope_value(scope: usize) -> Scope<'static> {
    match scope {
        0 => Scope::Room("#all"),
        1 => Scope::Room("#ops"),
        _ => Scope::talk(SessionId(9), SessionId(scope as u64), "other"),
    }
}

/// How an entry stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Row,
    Copy,
    /// What it says lies below an adopted floor, too.
    Uncounted,
    Gone,
}

#[derive(Debug)]
struct Held {
    fact: Fact,
    id: EntryId,
    standing: Standing,
}

/// Rows as they were at some moment, and the vector of that moment.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    rows: Vec<usize>,
    pub(super) until: [u64; ORIGINS],
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// In the order of arrival.
    held: Vec<Held>,
    /// As many of them were trimmed.
    trimmed: usize,
    /// Every message that counts, and where it is in memory, if it is.
    messages: BTreeMap<Message, Option<usize>>,
    pub(super) shown: [u64; ORIGINS],
    floor: [u64; ORIGINS],
    /// Rows that are counted and were trimmed.
    counted: BTreeMap<(usize, usize), u64>,
}

impl Model {
    /// Notes what became of an entry, and of those that had to go for it.
    pub(super) fn insert(&mut self, archive: &Archive, fact: &Fact, inserted: &Inserted) {
        let at = self.held.len();
        let message = fact.message();
        let (mut standing, mut moved) = (Standing::Copy, false);
        let copy = self.messages.contains_key(&message);
        match self.messages.get(&message) {
            None => standing = Standing::Row,
            Some(Some(row)) => {
                let row = &mut self.held[*row];
                if row.fact.scope == fact.scope && fact.key() < row.fact.key() {
                    row.standing = Standing::Copy;
                    (standing, moved) = (Standing::Row, true);
                }
            }
            Some(None) => {}
        }
        if standing == Standing::Row {
            self.messages.insert(message, Some(at));
        }
        self.shown[fact.origin] = fact.number;
        self.held.push(Held { fact: fact.clone(), id: inserted.id, standing });
        self.trim(archive);
        assert_eq!((inserted.copy, inserted.moved), (copy, moved), "{fact:?}");
        assert_eq!(inserted.index, self.index_of(at));
    }

    /// Lets go of whatever the archive let go of: always what arrived first.
    fn trim(&mut self, archive: &Archive) {
        while let Some(held) = self.held.get_mut(self.trimmed)
            && !archive.contains(held.id)
        {
            self.trimmed += 1;
            let standing = std::mem::replace(&mut held.standing, Standing::Gone);
            let (origin, scope) = (held.fact.origin, held.fact.scope);
            if standing == Standing::Gone {
                continue;
            }
            self.floor[origin] = held.fact.number;
            if standing == Standing::Row {
                let message = held.fact.message();
                *self.counted.entry((scope, origin)).or_default() += 1;
                self.messages.insert(message, None);
            }
        }
    }

    /// Adopts the floor of an archive, with that archive's references.
    pub(super) fn adopt(&mut self, archive: &Archive, floor: &Floor) {
        let origin_of = |reference: OriginRef| {
            let value = archive.origin(reference);
            (0..ORIGINS).find(|origin| origin_value(*origin) == value).expect("one of ours")
        };
        let new = |floor: &&cordee_core::archive::FloorOrigin| {
            floor.number > self.shown[origin_of(floor.origin)]
        };
        if !floor.origins.iter().any(|floor| new(&floor)) {
            return;
        }
        for below in &floor.origins {
            let origin = origin_of(below.origin);
            if below.number <= self.floor[origin] {
                continue;
            }
            for held in &mut self.held {
                if held.fact.origin == origin && held.fact.number <= below.number {
                    if held.standing == Standing::Row {
                        self.messages.remove(&held.fact.message());
                    }
                    held.standing = Standing::Gone;
                }
            }
            self.counted.retain(|(_, of), _| *of != origin);
            for &(scope, rows) in &below.rows {
                self.counted.insert((scope_of(archive, scope), origin), rows);
            }
            self.floor[origin] = below.number;
            self.shown[origin] = self.shown[origin].max(below.number);
        }
        for range in &floor.authors {
            for number in range.from..=range.through {
                let before = self.messages.insert((author_of(&range.author), number), None);
                if let Some(Some(row)) = before {
                    self.held[row].standing = Standing::Uncounted;
                }
            }
        }
        self.trim(archive);
    }

    /// The floor says what was trimmed, no more and no less.
    pub(super) fn assert_floor(&self, archive: &Archive) {
        let floor = archive.floor();
        assert!(floor.is_believable() && !floor.forgot);
        let mut known = [0; ORIGINS];
        for below in &floor.origins {
            let value = archive.origin(below.origin);
            let origin = (0..ORIGINS).find(|o| origin_value(*o) == value).expect("one of ours");
            known[origin] = below.number;
            let rows: BTreeMap<usize, u64> =
                below.rows.iter().map(|(scope, rows)| (scope_of(archive, *scope), *rows)).collect();
            let counted = self.counted.iter().filter(|((_, of), rows)| *of == origin && **rows > 0);
            let counted: BTreeMap<usize, u64> =
                counted.map(|((scope, _), rows)| (*scope, *rows)).collect();
            assert_eq!(rows, counted, "rows below the floor");
        }
        assert_eq!(known, self.floor, "the floor of each origin");
        let ranges = floor.authors.iter();
        let told: BTreeSet<Message> = ranges
            .flat_map(|range| {
                (range.from..=range.through).map(|number| (author_of(&range.author), number))
            })
            .collect();
        let gone = self.messages.iter().filter(|(_, row)| row.is_none());
        assert_eq!(told, gone.map(|(message, _)| *message).collect(), "messages below the floor");
    }

    // Questions.

    fn rows(&self) -> Vec<usize> {
        (0..self.held.len()).filter(|at| self.held[*at].standing == Standing::Row).collect()
    }

    /// Rows of a scope that are in memory, in canonical order.
    fn rows_of(&self, scope: usize) -> Vec<usize> {
        let rows = self.rows().into_iter();
        self.sorted(rows.filter(|at| self.held[*at].fact.scope == scope).collect())
    }

    fn sorted(&self, mut rows: Vec<usize>) -> Vec<usize> {
        rows.sort_by_key(|at| self.held[*at].fact.key());
        rows
    }

    fn ids(&self, rows: &[usize]) -> Vec<EntryId> {
        rows.iter().map(|at| self.held[*at].id).collect()
    }

    fn counted_of(&self, scope: usize) -> u64 {
        self.counted.iter().filter(|((of, _), _)| *of == scope).map(|(_, rows)| rows).sum()
    }

    fn index_of(&self, at: usize) -> u64 {
        let Some(Some(row)) = self.messages.get(&self.held[at].fact.message()) else { return 0 };
        let scope = self.held[*row].fact.scope;
        let place = self.rows_of(scope).iter().position(|other| other == row);
        self.counted_of(scope) + place.expect("a row is in its scope") as u64 + 1
    }

    pub(super) fn page(&self, scope: usize, from: u64, count: usize) -> Vec<EntryId> {
        let rows = self.rows_of(scope);
        let skip = from.max(1).saturating_sub(self.counted_of(scope) + 1);
        let skip = (skip as usize).min(rows.len());
        self.ids(&rows[skip..(skip + count).min(rows.len())])
    }

    pub(super) fn rows_through(&self, scope: usize, seen: &[u64; ORIGINS]) -> u64 {
        let rows = self.rows_of(scope).into_iter().map(|at| &self.held[at].fact);
        self.counted_of(scope) + rows.filter(|fact| fact.number <= seen[fact.origin]).count() as u64
    }

    /// Rows whose body has a word, from the newest arrival back.
    pub(super) fn search(&self, word: &str) -> Vec<EntryId> {
        let mut rows = self.rows();
        rows.retain(|at| self.held[*at].fact.body.contains(word));
        rows.reverse();
        self.ids(&rows)
    }

    pub(super) fn now(&self) -> Moment {
        Moment { rows: self.rows(), until: self.shown }
    }

    /// What whoever has `seen` lacked at a moment, in canonical order.
    pub(super) fn lacking(
        &self,
        moment: &Moment,
        scopes: &[usize],
        seen: &[u64; ORIGINS],
    ) -> Vec<usize> {
        let mut rows = moment.rows.clone();
        rows.retain(|at| {
            let fact = &self.held[*at].fact;
            scopes.contains(&fact.scope) && fact.number > seen[fact.origin]
        });
        self.sorted(rows)
    }

    pub(super) fn id(&self, at: usize) -> EntryId {
        self.held[at].id
    }

    pub(super) fn scope(&self, at: usize) -> usize {
        self.held[at].fact.scope
    }

    /// Whether what is counted below a floor may be left out of a catch-up.
    pub(super) fn is_uncounted(&self, at: usize) -> bool {
        self.held[at].standing == Standing::Uncounted
    }

    /// Compares all that can be asked.
    pub(super) fn assert_agrees(&self, archive: &Archive, logs: &[Vec<Fact>; ORIGINS]) {
        let rows = self.rows();
        let trimmed: u64 = self.counted.values().sum();
        assert_eq!(archive.rows(), rows.len() as u64 + trimmed);
        assert_eq!(archive.rows_trimmed(), trimmed);
        for scope in 0..SCOPES {
            let Some(reference) = archive.find_scope(&scope_value(scope)) else { continue };
            let counted = self.counted_of(scope);
            let of_scope = self.rows_of(scope);
            assert_eq!(archive.scope_rows(reference), counted + of_scope.len() as u64);
            assert_eq!(archive.scope_trimmed(reference), counted);
            let page: Vec<EntryId> = archive.page(reference, 1, usize::MAX).collect();
            assert_eq!(page, self.ids(&of_scope), "the canonical order");
        }
        for (origin, log) in logs.iter().enumerate() {
            let Some(reference) = archive.find_origin(&origin_value(origin)) else { continue };
            assert_eq!(archive.shown(reference), self.shown[origin]);
            assert_eq!(archive.first_number(reference), self.floor[origin] + 1);
            if let Some(last) = self.shown[origin].checked_sub(1) {
                let last = &log[last as usize];
                assert_eq!(archive.rolling(reference), last.rolling, "the rolling hash");
            }
        }
        for (at, held) in self.held.iter().enumerate() {
            let there = held.standing != Standing::Gone;
            assert_eq!(archive.contains(held.id), there);
            if there {
                assert_eq!(archive.is_copy(held.id), held.standing != Standing::Row);
                assert_eq!(archive.index(held.id), self.index_of(at));
                let entry = archive.entry(held.id, Clock(0));
                let author = (author_of(&entry.author), entry.author_number);
                assert_eq!((author, entry.body), (held.fact.message(), held.fact.body.as_str()));
            }
        }
        for author in 0..AUTHORS {
            let own = || self.messages.range((author, 0)..=(author, u64::MAX));
            let last = own().next_back().map_or(0, |((_, number), _)| *number);
            assert_eq!(archive.author_number(&author_value(author)), last);
            for number in 1..=last + 1 {
                let row = self.messages.get(&(author, number));
                assert_eq!(archive.has_row(&author_value(author), number), row.is_some());
                let id = row.copied().flatten().map(|at| self.held[at].id);
                assert_eq!(archive.row(&author_value(author), number), id);
            }
        }
        let newest: Vec<EntryId> = archive.newest_first(None).collect();
        assert_eq!(newest, self.search(""));
    }
}

fn scope_of(archive: &Archive, reference: ScopeRef) -> usize {
    let is = |scope: &usize| archive.find_scope(&scope_value(*scope)) == Some(reference);
    (0..SCOPES).find(is).expect("one of ours")
}
