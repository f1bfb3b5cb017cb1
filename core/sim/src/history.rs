//! What must hold over a whole run, judged from outside: from what is stored, said and shown.

use std::collections::{BTreeMap, BTreeSet};

use cordee_core::ids::{AuthorId, Origin, Tag};
use cordee_core::wire::entry::Portable;
use cordee_core::wire::{Field, Reader};

use crate::client::{Happened, Shown};

/// A message: who wrote it, and the author's number.
type Key = (AuthorId, u64);

/// A message as its client said it.
#[derive(Clone, Debug)]
struct Said {
    scope: String,
    body: String,
    /// What its client had been shown in the common room, the last of each author, and what it
    /// had said there before.
    after: Vec<Key>,
    acknowledged: bool,
}

/// One start of one server.
pub(crate) type Start = (usize, u64);

/// Everything that was stored, said and shown in a run.
#[derive(Debug, Default)]
pub struct History {
    /// The bytes of each entry: one and the same on every server, for ever.
    entries: BTreeMap<(Origin, u64), Vec<u8>>,
    /// How many entries there are of a message: more than one when it was handed back, or when
    /// two servers took it in.
    copies: BTreeMap<Key, usize>,
    /// The highest number stored of an origin by a start of a server.
    stored: BTreeMap<(Start, Origin), u64>,
    said: BTreeMap<Key, Said>,
    /// Which living starts of servers hold a message.
    holders: BTreeMap<Key, BTreeSet<Start>>,
    /// Messages that every server that held them has lost, and those for which that was ever so.
    wiped: BTreeSet<Key>,
    ever_wiped: BTreeSet<Key>,
    clients: BTreeMap<usize, Seen>,
}

/// How far a client's record was looked at.
#[derive(Debug, Default)]
struct Seen {
    shown: usize,
    happened: usize,
    /// Per author, the last shown in the common room, as far as the cluster that it is in can know
    /// of it: one that lost what the client had seen takes its messages as those of a newcomer.
    context: BTreeMap<AuthorId, u64>,
    /// What was shown in the common room comes after these; and which it was.
    required: BTreeMap<Key, Key>,
    /// Everything that was ever shown to it since it last forgot, with the stay in its room.
    all: BTreeSet<(Key, u64)>,
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
        let context = &self.clients.entry(client).or_default().context;
        let mut after: Vec<Key> = context.iter().map(|(author, n)| (*author, *n)).collect();
        let before = self.said.range((author, 0)..(author, number)).rev();
        let before = before.map(|(key, said)| (*key, &said.scope));
        after.extend(before.filter(|(_, scope)| *scope == "#all").map(|(key, _)| key).next());
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
        let key = (entry.author, entry.author_number);
        let place = (entry.origin, entry.number);
        match self.entries.get(&place) {
            Some(known) => assert_eq!(known, bytes, "a fork: {place:?} is two things"),
            None => {
                self.entries.insert(place, bytes.to_vec());
                *self.copies.entry(key).or_default() += 1;
            }
        }
        let stored = self.stored.entry((start, entry.origin)).or_default();
        let follows = entry.number == *stored + 1 || trims && entry.number > *stored;
        assert!(follows, "{start:?} stores {:?} without a gap", entry.origin);
        *stored = entry.number;
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
                self.ever_wiped.insert(*key);
            }
        }
    }

    /// A client forgot what it was shown.
    pub(crate) fn on_reset(&mut self, client: usize) {
        let seen = self.clients.entry(client).or_default();
        let happened = seen.happened;
        *seen = Seen { happened, ..Seen::default() };
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
    ) {
        let seen = self.clients.entry(client).or_default();
        let news = &shown[seen.shown..];
        seen.shown = shown.len();
        for shown in news {
            self.on_shown(client, shown);
        }
        let seen = self.clients.entry(client).or_default();
        for happened in &happened[seen.happened..] {
            match happened {
                Happened::Acked(number, ..) => {
                    let key = (author.expect("attached"), *number);
                    let said = self.said.get_mut(&key).expect("only what was said");
                    said.acknowledged = true;
                }
                // What was lost, and is held by everybody as far as the client was told, or cannot
                // be verified, is not handed back.
                Happened::Attached(..) => {
                    seen.context.retain(|author, number| has(&(*author, *number)));
                }
                Happened::NumberedAnew(again) => {
                    seen.context.clear();
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
                Happened::Departed(name, room) if room.is_empty() => {
                    *seen.departed.entry(name.clone()).or_default() += 1;
                }
                _ => {}
            }
        }
        seen.happened = happened.len();
    }

    fn on_shown(&mut self, client: usize, shown: &Shown) {
        let key = (shown.author, shown.number);
        let said = self.said.get(&key);
        let said = said.unwrap_or_else(|| panic!("shown, and never said: {shown:?}"));
        assert_eq!((&said.body, &said.scope), (&shown.body, &shown.scope), "as it was said");
        let seen = self.clients.entry(client).or_default();
        assert!(seen.all.insert((key, shown.stay)), "client {client}: shown twice: {shown:?}");
        if shown.scope != "#all" {
            return;
        }
        if let Some(answer) = seen.required.get(&key) {
            assert!(
                self.ever_wiped.contains(&key),
                "client {client}: {shown:?} was shown after an answer to it, {answer:?}"
            );
        }
        let last = seen.context.entry(shown.author).or_default();
        *last = shown.number.max(*last);
        // What was handed back comes after what its new server knew then.
        if self.copies.get(&key).is_none_or(|copies| *copies < 2) {
            let lacking = said.after.iter().filter(|after| !seen.all.contains(&(**after, 0)));
            seen.required.extend(lacking.map(|after| (*after, key)));
        }
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
