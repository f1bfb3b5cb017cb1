//! What must hold over a whole run, judged from outside: from what is stored, said and shown.
//!
//! A model of its own: the archive as a set of messages with the servers that hold them, and each
//! client's screen as the order in which it was shown what. It shares no code with the machines.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use cordee_core::ids::{AuthorId, Origin, SessionId, Tag};
use cordee_core::wire::entry::Portable;
use cordee_core::wire::{Field, Reader, Reason};

use crate::client::{Happened, Shown};
use crate::rule::{Rule, Tally, holds};

/// A message: who wrote it, and the author's number.
type Key = (AuthorId, u64);

/// A message as its client said it.
#[derive(Clone, Debug)]
struct Said {
    scope: String,
    body: String,
    /// What its client had been shown in its room or talk, the last of each author, and what it
    /// had said there before.
    after: Vec<Key>,
    acknowledged: bool,
}

/// One start of one server.
pub(crate) type Start = (usize, u64);

/// What can be expected of servers now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Whether servers keep less than was said.
    pub(crate) trims: bool,
    /// Whether nothing ever went wrong.
    pub(crate) calm: bool,
    /// So many copies an acknowledgement must have.
    pub(crate) copies: u8,
}

/// Everything that was stored, said and shown in a run.
#[derive(Debug, Default)]
pub struct History {
    /// How often what was looked at.
    pub tally: Tally,
    /// The bytes of each entry: one and the same on every server, for ever.
    entries: HashMap<(Origin, u64), Vec<u8>>,
    /// How often a server stored an entry that another had before.
    taken_in: u64,
    /// How many entries there are of a message: more than one when it was handed back, or when
    /// two servers took it in.
    copies: HashMap<Key, usize>,
    /// The highest number stored of an origin by a start of a server.
    stored: BTreeMap<(Start, Origin), u64>,
    /// What was given to a server's storage and is not there yet.
    storing: BTreeMap<Start, VecDeque<(u64, Key)>>,
    /// Which starts of servers ever had a message in their storage.
    safe: HashMap<Key, Vec<Start>>,
    said: BTreeMap<Key, Said>,
    /// Which living starts of servers hold a message.
    holders: BTreeMap<Key, BTreeSet<Start>>,
    /// Messages that every server that held them has lost, and those for which that was ever so.
    wiped: BTreeSet<Key>,
    ever_wiped: BTreeSet<Key>,
    clients: BTreeMap<usize, Seen>,
    /// What stands at an index that was called final.
    finals: BTreeMap<(String, u64), Key>,
    /// Why indexes may move all the same in this run, if they may.
    pub(crate) unsettled: Option<&'static str>,
}

/// How far a client's record was looked at.
#[derive(Debug, Default)]
struct Seen {
    session: Option<SessionId>,
    shown: usize,
    happened: usize,
    /// What it saw of each room and talk.
    scopes: BTreeMap<String, Sight>,
    /// Everything that was ever shown to it since it last forgot, with the stay in its room.
    all: HashSet<(Key, u64)>,
    /// Names that it was told have departed, and how often.
    departed: BTreeMap<String, u32>,
}

/// What a client saw of a room or talk, since it last came into it.
#[derive(Debug, Default)]
struct Sight {
    stay: u64,
    /// Per author, the last shown, as far as the cluster that it is in can know of it: one that
    /// lost what the client had seen takes its messages as those of a newcomer.
    context: BTreeMap<AuthorId, u64>,
    /// The same, and nothing is ever taken back.
    high: BTreeMap<AuthorId, u64>,
    /// What was shown comes after these; and which it was.
    required: BTreeMap<Key, Key>,
}

impl History {
    /// A client says something.
    pub(crate) fn on_say(
        &mut self,
        client: usize,
        author: AuthorId,
        number: u64,
        scope: &str,
        body: &str,
    ) {
        let seen = self.clients.entry(client).or_default();
        let context = seen.scopes.get(scope).into_iter().flat_map(|sight| &sight.context);
        let mut after: Vec<Key> = context.map(|(author, n)| (*author, *n)).collect();
        let before = self.said.range((author, 0)..(author, number)).rev();
        let before = before.map(|(key, said)| (*key, &said.scope));
        after.extend(before.filter(|(_, before)| *before == scope).map(|(key, _)| key).next());
        let (scope, body) = (scope.to_owned(), body.to_owned());
        let said = Said { scope, body, after, acknowledged: false };
        let before = self.said.insert((author, number), said);
        assert!(before.is_none(), "a number is given once");
    }

    /// A server gives an entry to its storage. Where it trims, others adopt its floor and go on
    /// above.
    pub(crate) fn on_persist(&mut self, start: Start, sequence: u64, bytes: &[u8], trims: bool) {
        let from = &mut Reader::new(bytes);
        let entry = Portable::take(from).expect("what is stored can be read");
        Tag::take(from).expect("with its tag");
        assert!(from.rest().is_empty());
        let key = (entry.author, entry.author_number);
        let place = (entry.origin, entry.number);
        match self.entries.get(&place) {
            Some(known) => {
                let same = known == bytes;
                holds!(self.tally, Fork, same, "a fork: {place:?} is two things");
                self.taken_in += 1;
            }
            None => {
                self.entries.insert(place, bytes.to_vec());
                *self.copies.entry(key).or_default() += 1;
            }
        }
        let stored = self.stored.entry((start, entry.origin)).or_default();
        let follows = entry.number == *stored + 1 || trims && entry.number > *stored;
        holds!(self.tally, Gap, follows, "{start:?} stores {place:?} after {stored}");
        *stored = entry.number;
        self.storing.entry(start).or_default().push_back((sequence, key));
        self.holders.entry(key).or_default().insert(start);
        self.wiped.remove(&key);
        let said = self.said.get(&key);
        let genuine = said.is_some_and(|said| said.body == entry.body);
        holds!(self.tally, Genuine, genuine, "stored, and said otherwise or never: {entry:?}");
    }

    /// What a server gave to its storage is there.
    pub(crate) fn on_persisted(&mut self, start: Start, through: u64) {
        let Some(storing) = self.storing.get_mut(&start) else { return };
        while let Some((_, key)) = storing.front().copied().filter(|(at, _)| *at <= through) {
            storing.pop_front();
            let safe = self.safe.entry(key).or_default();
            if !safe.contains(&start) {
                safe.push(start);
            }
        }
    }

    /// A server has lost all it had.
    pub(crate) fn on_wipe(&mut self, start: Start) {
        self.storing.remove(&start);
        for (key, holders) in &mut self.holders {
            if holders.remove(&start) && holders.is_empty() {
                self.wiped.insert(*key);
                self.ever_wiped.insert(*key);
            }
        }
        if !self.ever_wiped.is_empty() {
            self.unsettled = Some("messages were lost");
        }
    }

    /// A client forgot what it was shown. It cannot name that any more when it says again what is
    /// not acknowledged.
    pub(crate) fn on_reset(&mut self, client: usize) {
        let seen = self.clients.entry(client).or_default();
        let (happened, session) = (seen.happened, seen.session);
        *seen = Seen { happened, session, ..Seen::default() };
        let Some(session) = session else { return };
        let first = (AuthorId { session, process: 0 }, 0);
        let last = (AuthorId { session, process: u64::MAX }, u64::MAX);
        for (key, said) in self.said.range_mut(first..=last) {
            if !said.acknowledged {
                said.after.retain(|after| after.0 == key.0);
            }
        }
    }

    /// A client was shown more, or more happened to it. `has` says what the server that it is
    /// attached to knows.
    pub(crate) fn look(
        &mut self,
        client: usize,
        author: Option<AuthorId>,
        shown: &[Shown],
        happened: &[Happened],
        has: impl Fn(&Key) -> bool,
        expected: Expected,
    ) {
        let seen = self.clients.entry(client).or_default();
        seen.session = author.map(|author| author.session).or(seen.session);
        if seen.shown == shown.len() && seen.happened == happened.len() {
            return;
        }
        let news = &shown[seen.shown..];
        seen.shown = shown.len();
        let from = seen.happened;
        seen.happened = happened.len();
        for shown in news {
            self.on_shown(client, shown, expected);
        }
        for happened in &happened[from..] {
            self.on_happened(client, author, happened, &has, expected);
        }
    }

    fn on_happened(
        &mut self,
        client: usize,
        author: Option<AuthorId>,
        happened: &Happened,
        has: &impl Fn(&Key) -> bool,
        expected: Expected,
    ) {
        let seen = self.clients.entry(client).or_default();
        match happened {
            Happened::Acked(number, copies, ..) => {
                let key = (author.expect("attached"), *number);
                let said = self.said.get_mut(&key).expect("only what was said");
                said.acknowledged = true;
                // Clients see to that themselves.
                self.tally.saw(Rule::InOrder);
                // What was trimmed since is counted and not stored.
                if !expected.trims {
                    let enough = *copies >= expected.copies;
                    holds!(self.tally, Wanted, enough, "{copies} copies, not {}", expected.copies);
                    let safe = self.safe.get(&key).map_or(0, Vec::len);
                    let enough = safe >= usize::from(*copies) && safe > 0;
                    holds!(self.tally, Copies, enough, "{key:?}: {copies} said, {safe} stored it");
                }
            }
            // What was lost, and is held by everybody as far as the client was told, or cannot
            // be verified, is not handed back.
            Happened::Attached(..) => {
                for sight in seen.scopes.values_mut() {
                    sight.context.retain(|author, number| has(&(*author, *number)));
                }
            }
            Happened::NumberedAnew(again) => {
                seen.scopes.values_mut().for_each(|sight| sight.context.clear());
                for (number, scope, body) in again {
                    let key = (author.expect("attached"), *number);
                    let (scope, body) = (scope.clone(), body.clone());
                    let said = Said { scope, body, after: Vec::new(), acknowledged: false };
                    self.said.insert(key, said);
                }
            }
            Happened::Refused(number, _) => {
                let author = author.expect("attached");
                self.said.remove(&(author, *number));
                for later in *number.. {
                    let Some(said) = self.said.remove(&(author, later + 1)) else { break };
                    self.said.insert((author, later), said);
                }
            }
            Happened::Renamed(from, to, reason) => {
                let lost = *reason == Reason::NameLost && expected.calm;
                holds!(self.tally, Asked, !lost, "{from} was given, and became {to}");
            }
            Happened::Departed(name, room) if room.is_empty() => {
                *seen.departed.entry(name.clone()).or_default() += 1;
            }
            _ => {}
        }
    }

    fn on_shown(&mut self, client: usize, shown: &Shown, expected: Expected) {
        let key = (shown.author, shown.number);
        let said = self.said.get(&key);
        let genuine =
            said.is_some_and(|said| (&said.body, &said.scope) == (&shown.body, &shown.scope));
        holds!(self.tally, Genuine, genuine, "client {client}: never said so: {shown:?}");
        let Some(said) = said else { return };
        let seen = self.clients.entry(client).or_default();
        let once = seen.all.insert((key, shown.stay));
        holds!(self.tally, Once, once, "client {client}: shown twice: {shown:?}");
        if let Some((low, high)) = shown.scope.strip_prefix('@').and_then(|s| s.split_once('-')) {
            let own = seen.session.map(|session| session.to_string());
            let its = own.is_none_or(|own| own == low || own == high);
            holds!(self.tally, Talk, its, "client {client}: a talk of others: {shown:?}");
        }
        let excused = self.ever_wiped.contains(&key);
        let sight = seen.scopes.entry(shown.scope.clone()).or_default();
        if sight.stay != shown.stay {
            *sight = Sight { stay: shown.stay, ..Sight::default() };
        }
        let Sight { context, high, required, .. } = sight;
        let last = high.get(&shown.author).copied().unwrap_or(0);
        // An author's messages follow each other: where one was lost the chain is broken.
        let later = (shown.author, last.max(shown.number));
        let broken = self.ever_wiped.range(key..=later).next().is_some();
        let ordered = shown.number > last || broken;
        holds!(self.tally, Author, ordered, "client {client}: {shown:?} was shown after {last}");
        let answer = required.get(&key);
        let unanswered = answer.is_none() || excused;
        holds!(
            self.tally,
            Cause,
            unanswered,
            "client {client}: {shown:?} was shown after an answer to it, {answer:?}"
        );
        // What was handed back comes after what its new server knew then. What was trimmed is
        // never shown.
        if self.copies.get(&key).is_none_or(|copies| *copies < 2) {
            high.insert(shown.author, last.max(shown.number));
            let lacks = |after: &&Key| high.get(&after.0).is_none_or(|high| *high < after.1);
            required.extend(said.after.iter().filter(lacks).map(|after| (*after, key)));
        }
        let last = context.entry(shown.author).or_default();
        *last = shown.number.max(*last);
        if shown.is_final && !expected.trims && self.unsettled.is_none() {
            let at = (shown.scope.clone(), shown.index);
            let there = *self.finals.entry(at).or_insert(key);
            holds!(
                self.tally,
                Final,
                there == key,
                "client {client}: {there:?} stood at the index of {shown:?}"
            );
        }
    }

    /// Every index that was called final, and what stands there.
    pub(crate) fn finals(&self) -> impl Iterator<Item = (&str, u64, Key)> {
        let settled = self.finals.iter().filter(|_| self.unsettled.is_none());
        settled.map(|((scope, index), key)| (scope.as_str(), *index, *key))
    }

    /// How many messages that are somewhere were said in a room or talk: an own count of MA.
    pub(crate) fn rows_in(&self, scope: &str) -> u64 {
        let stored = self.holders.iter().filter(|(_, holders)| !holders.is_empty());
        let said = stored.filter(|(key, _)| self.said.get(key).is_some_and(|s| s.scope == scope));
        said.count() as u64
    }

    /// How often a server stored an entry that another had before: an own count of what had to
    /// be sent.
    pub(crate) fn taken_in(&self) -> u64 {
        self.taken_in
    }

    /// Messages that were acknowledged and that some server kept all the time.
    pub(crate) fn must_be_there(&self) -> impl Iterator<Item = (AuthorId, u64)> {
        let kept = self.said.iter().filter(|(_, said)| said.acknowledged);
        kept.map(|(key, _)| *key).filter(|key| !self.wiped.contains(key))
    }

    /// Messages that were lost by every server that ever held them.
    #[must_use]
    pub fn wiped(&self) -> usize {
        self.wiped.len()
    }

    /// The room or talk in which a message was said.
    pub(crate) fn scope_of(&self, message: &(AuthorId, u64)) -> Option<&str> {
        self.said.get(message).map(|said| said.scope.as_str())
    }

    /// How many messages were said.
    #[must_use]
    pub fn said(&self) -> usize {
        self.said.len()
    }

    /// How often a client was told that `name` departed.
    #[must_use]
    pub fn departures(&self, client: usize, name: &str) -> u32 {
        let seen = self.clients.get(&client);
        seen.and_then(|seen| seen.departed.get(name)).copied().unwrap_or(0)
    }

    /// How often each name was said to have departed, in all.
    pub(crate) fn all_departures(&self) -> impl Iterator<Item = (usize, &str, u32)> {
        let clients = self.clients.iter();
        clients.flat_map(|(client, seen)| {
            seen.departed.iter().map(|(name, count)| (*client, name.as_str(), *count))
        })
    }
}
