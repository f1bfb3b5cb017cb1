//! What must hold over a whole run, judged from outside: from what is stored, said and shown.

use std::collections::{BTreeMap, BTreeSet};

use cordee_core::ids::{AuthorId, Origin, Tag};
use cordee_core::wire::entry::Portable;
use cordee_core::wire::{Field, Reader};

use crate::client::{Happened, Shown};

/// A message as its client said it.
#[derive(Clone, Debug)]
struct Said {
    scope: String,
    body: String,
    /// Per author, the highest number in the common room that its client had shown.
    after: BTreeMap<AuthorId, u64>,
    acknowledged: bool,
}

/// One start of one server.
pub(crate) type Start = (usize, u64);

/// Everything that was stored, said and shown in a run.
#[derive(Debug, Default)]
pub struct History {
    /// The bytes of each entry: one and the same on every server, for ever.
    entries: BTreeMap<(Origin, u64), Vec<u8>>,
    /// The highest number stored of an origin by a start of a server.
    stored: BTreeMap<(Start, Origin), u64>,
    said: BTreeMap<(AuthorId, u64), Said>,
    /// Which living starts of servers hold a message.
    holders: BTreeMap<(AuthorId, u64), BTreeSet<Start>>,
    /// Messages that every server that held them has lost.
    wiped: BTreeSet<(AuthorId, u64)>,
    clients: BTreeMap<usize, Seen>,
}

/// How far a client's record was looked at.
#[derive(Debug, Default)]
struct Seen {
    shown: usize,
    happened: usize,
    /// Highest number shown in the common room, by author.
    high: BTreeMap<AuthorId, u64>,
    /// The same, as far as the cluster that it is in can know of it: one that lost what the client
    /// had seen takes its messages as those of a newcomer.
    context: BTreeMap<AuthorId, u64>,
    /// What was shown in the common room comes after these.
    required: BTreeMap<AuthorId, u64>,
    /// Everything that was ever shown to it since it last forgot.
    all: BTreeSet<(AuthorId, u64, u64)>,
    /// Names that it was told have departed, and how often.
    departed: BTreeMap<String, u32>,
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
        let after = self.clients.entry(client).or_default().context.clone();
        let (scope, body) = (scope.to_owned(), body.to_owned());
        let said = Said { scope, body, after, acknowledged: false };
        let before = self.said.insert((author, number), said);
        assert!(before.is_none(), "a number is given once");
    }

    /// A server stores an entry. Where it trims, others adopt its floor and go on above.
    pub(crate) fn on_persist(&mut self, start: Start, bytes: &[u8], trims: bool) {
        let from = &mut Reader::new(bytes);
        let entry = Portable::take(from).expect("what is stored can be read");
        Tag::take(from).expect("with its tag");
        assert!(from.rest().is_empty());
        let known = self.entries.entry((entry.origin, entry.number));
        let known = known.or_insert_with(|| bytes.to_vec());
        assert_eq!(known, bytes, "a fork: {:?} {} is two things", entry.origin, entry.number);
        let stored = self.stored.entry((start, entry.origin)).or_default();
        let follows = entry.number == *stored + 1 || trims && entry.number > *stored;
        assert!(follows, "{start:?} stores {:?} without a gap", entry.origin);
        *stored = entry.number;
        let key = (entry.author, entry.author_number);
        self.holders.entry(key).or_default().insert(start);
        self.wiped.remove(&key);
        let said = self.said.get(&key).unwrap_or_else(|| panic!("nobody said {entry:?}"));
        assert_eq!(said.body, entry.body, "an entry says what its author said");
    }

    /// A server has lost all it had.
    pub(crate) fn on_wipe(&mut self, start: Start) {
        for (key, holders) in &mut self.holders {
            if holders.remove(&start) && holders.is_empty() {
                self.wiped.insert(*key);
            }
        }
    }

    /// A client forgot what it was shown.
    pub(crate) fn on_reset(&mut self, client: usize) {
        let seen = self.clients.entry(client).or_default();
        let happened = seen.happened;
        *seen = Seen { happened, ..Seen::default() };
    }

    /// A client was shown more, or more happened to it.
    pub(crate) fn look(
        &mut self,
        client: usize,
        author: Option<AuthorId>,
        shown: &[Shown],
        happened: &[Happened],
    ) {
        let seen = self.clients.entry(client).or_default();
        for shown in &shown[seen.shown..] {
            let key = (shown.author, shown.number);
            let said = self.said.get(&key);
            let said = said.unwrap_or_else(|| panic!("shown, and never said: {shown:?}"));
            assert_eq!((&said.body, &said.scope), (&shown.body, &shown.scope), "as it was said");
            assert!(
                seen.all.insert((key.0, key.1, shown.stay)),
                "client {client}: shown twice: {shown:?}"
            );
            if shown.scope != "#all" {
                continue;
            }
            let required = seen.required.get(&shown.author).copied().unwrap_or(0);
            assert!(
                shown.number > required,
                "client {client}: {shown:?} was shown after an answer to it"
            );
            let high = seen.high.entry(shown.author).or_default();
            assert!(shown.number > *high, "client {client}: out of its author's order: {shown:?}");
            *high = shown.number;
            seen.context.insert(shown.author, shown.number);
            for (author, number) in &said.after {
                let required = seen.required.entry(*author).or_default();
                *required = (*required).max(*number);
            }
        }
        // What an author could have lost in the meantime is no answer's question any more.
        for (author, required) in &mut seen.required {
            let high = seen.high.get(author).copied().unwrap_or(0);
            let entries = (high + 1..=*required).map(|number| (*author, number));
            let lacking = entries
                .filter(|key| self.said.get(key).is_some_and(|said| said.scope == "#all"))
                .filter(|key| !self.wiped.contains(key))
                .count();
            if lacking == 0 {
                *required = high.min(*required);
            }
        }
        seen.shown = shown.len();
        for happened in &happened[seen.happened..] {
            match happened {
                Happened::Acked(number, ..) => {
                    let key = (author.expect("attached"), *number);
                    let said = self.said.get_mut(&key).expect("only what was said");
                    said.acknowledged = true;
                }
                Happened::NumberedAnew(again) => {
                    seen.context.clear();
                    for (number, scope, body) in again {
                        let key = (author.expect("attached"), *number);
                        let after = BTreeMap::new();
                        let (scope, body) = (scope.clone(), body.clone());
                        self.said.insert(key, Said { scope, body, after, acknowledged: false });
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
                Happened::Departed(name, room) if room.is_empty() => {
                    *seen.departed.entry(name.clone()).or_default() += 1;
                }
                _ => {}
            }
        }
        seen.happened = happened.len();
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
}
