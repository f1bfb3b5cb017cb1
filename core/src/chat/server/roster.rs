//! Who there is: sessions, their names and rooms, merged from all servers.
//!
//! A session's home states its standing; records are merged by (attachment, version), so relaying
//! them in any order, any number of times, ends alike everywhere.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::ids::{Clock, ServerId, SessionId};
use crate::names;
use crate::time::Time;
use crate::wire::Seq;
use crate::wire::peer::{Presence, Session};

/// The standing of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) name: String,
    /// When the name was claimed: the earliest claim of a name keeps it.
    pub(super) claim: Clock,
    pub(super) attachment: u32,
    pub(super) version: u64,
    pub(super) home: ServerId,
    pub(super) presence: Presence,
    /// Sorted, the common room among them.
    pub(super) rooms: Vec<String>,
    /// When this server learned of the standing.
    pub(super) since: Time,
}

impl Record {
    pub(super) fn is_here(&self) -> bool {
        self.presence != Presence::Gone
    }

    fn stands_above(&self, other: &Record) -> bool {
        // Gone and the home break ties: two servers can state the same departure at once.
        (self.attachment, self.version, self.presence, self.home)
            > (other.attachment, other.version, other.presence, other.home)
    }
}

/// What a merge changed, for those who look on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Arrived,
    Departed { name: String },
    Renamed { from: String },
    JoinedRoom { room: String },
    LeftRoom { room: String },
}

/// Versions up to this are believed: whoever changes a record can still raise it.
pub(super) const VERSION_MAX: u64 = 1 << 60;

/// All sessions that are known, and who holds which name.
#[derive(Debug, Default)]
pub(super) struct Roster {
    records: BTreeMap<SessionId, Record>,
    /// By comparable name: who holds it.
    names: BTreeMap<String, SessionId>,
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn get(&self, session: SessionId) -> Option<&Record> {
        self.records.get(&session)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, &Record)> {
        self.records.iter().map(|(session, record)| (*session, record))
    }

    /// Who holds the name, if anybody does.
    pub(super) fn holder(&self, key: &str) -> Option<SessionId> {
        self.names.get(key).copied()
    }

    /// Whether `session` may have the name of `key` as far as this roster knows.
    pub(super) fn is_free_for(&self, key: &str, session: SessionId) -> bool {
        let away = |holder: SessionId| {
            let record = self.records.get(&holder);
            planted!(NameOfAway) && record.is_some_and(|r| r.presence == Presence::Away)
        };
        self.holder(key).is_none_or(|holder| holder == session || away(holder))
    }

    /// Takes a record in. `None` when it says nothing new; else what changed for onlookers.
    pub(super) fn merge(&mut self, session: SessionId, new: Record) -> Option<Vec<Change>> {
        let old = self.records.get(&session);
        if old.is_some_and(|old| !new.stands_above(old)) {
            return None;
        }
        let changes = changes(old, &new);
        let old = self.records.insert(session, new);
        if let Some(old) = old {
            self.release(session, &old.name);
        }
        self.hold(session);
        Some(changes)
    }

    /// Forgets a session that is gone.
    pub(super) fn remove(&mut self, session: SessionId) {
        if let Some(record) = self.records.remove(&session) {
            self.release(session, &record.name);
        }
    }

    /// A name like `name` that nobody has: `name~2`, `name~3`, …
    pub(super) fn free_name_like(&self, name: &str) -> String {
        let base = name.rsplit_once('~').map_or(name, |(base, _)| base);
        (2_u32..)
            .find_map(|n| {
                let suffix = alloc::format!("~{n}");
                let mut cut = base.len().min(names::NAME_BYTES_MAX - suffix.len());
                while !base.is_char_boundary(cut) {
                    cut -= 1;
                }
                let candidate = alloc::format!("{}{suffix}", &base[..cut]);
                let key = names::user_key(&candidate).ok()?;
                (!self.names.contains_key(&key)).then_some(candidate)
            })
            .unwrap_or_else(|| name.to_string())
    }

    /// Gives the name of `session` to it, unless somebody claimed it earlier.
    fn hold(&mut self, session: SessionId) {
        let record = &self.records[&session];
        let Ok(key) = names::user_key(&record.name) else { return };
        if !record.is_here() {
            return;
        }
        let earlier = self.names.get(&key).is_some_and(|holder| {
            let other = &self.records[holder];
            (other.claim, *holder) <= (record.claim, session) || planted!(ClaimByArrival)
        });
        if !earlier {
            self.names.insert(key, session);
        }
    }

    fn release(&mut self, session: SessionId, name: &str) {
        let Ok(key) = names::user_key(name) else { return };
        if self.names.get(&key) != Some(&session) {
            return;
        }
        if planted!(NameKept) && self.records.get(&session).is_none_or(|r| !r.is_here()) {
            return;
        }
        self.names.remove(&key);
        // Somebody who lost the name in a conflict, and was not renamed yet, gets it now.
        let next = self
            .records
            .iter()
            .filter(|(other, record)| {
                **other != session
                    && record.is_here()
                    && names::user_key(&record.name).is_ok_and(|other| other == key)
            })
            .min_by_key(|(other, record)| (record.claim, **other));
        if let Some((next, _)) = next {
            self.names.insert(key, *next);
        }
    }

    pub(super) fn check(&self) {
        for (key, session) in &self.names {
            let record = self.records.get(session).expect("a name is held by a known session");
            assert!(record.is_here(), "a name is held by one who is here");
            assert_eq!(names::user_key(&record.name).as_ref(), Ok(key));
        }
        for (session, record) in &self.records {
            let key = names::user_key(&record.name).expect("only valid names are merged");
            assert!(
                !record.is_here() || self.names.contains_key(&key),
                "the name of {session} is held by somebody"
            );
        }
    }
}

fn changes(old: Option<&Record>, new: &Record) -> Vec<Change> {
    let mut changes = Vec::new();
    let before = old.filter(|old| old.is_here());
    match (before, new.is_here()) {
        (None, false) => return changes,
        (None, true) => changes.push(Change::Arrived),
        (Some(old), false) => {
            changes.push(Change::Departed { name: old.name.clone() });
            return changes;
        }
        (Some(old), true) if old.name != new.name => {
            changes.push(Change::Renamed { from: old.name.clone() });
        }
        (Some(_), true) => {}
    }
    let nothing = Vec::new();
    let rooms = before.map_or(&nothing, |old| &old.rooms);
    let other = |room: &&String| room.as_str() != names::COMMON_ROOM;
    for room in new.rooms.iter().filter(other).filter(|room| !rooms.contains(room)) {
        changes.push(Change::JoinedRoom { room: room.clone() });
    }
    for room in rooms.iter().filter(other).filter(|room| !new.rooms.contains(room)) {
        changes.push(Change::LeftRoom { room: room.clone() });
    }
    changes
}

/// Calls `with` with the wire form of a record.
pub(super) fn with_wire<R>(
    session: SessionId,
    record: &Record,
    with: impl FnOnce(&Session<'_>) -> R,
) -> R {
    let rooms: Vec<&str> = record.rooms.iter().map(String::as_str).collect();
    with(&Session {
        session,
        name: &record.name,
        claim: record.claim,
        attachment: record.attachment,
        version: record.version,
        home: record.home,
        presence: record.presence,
        rooms: Seq::new(&rooms),
    })
}

/// A record as it came from a peer; `None` when its names are not valid.
pub(super) fn from_wire(session: &Session<'_>, rooms_max: usize, now: Time) -> Option<Record> {
    names::user_key(session.name).ok()?;
    if session.version > VERSION_MAX {
        return None;
    }
    let mut rooms = Vec::new();
    for room in session.rooms.iter().take(rooms_max + 1) {
        rooms.push(names::room(room).ok()?);
    }
    rooms.sort_unstable();
    rooms.dedup();
    Some(Record {
        name: session.name.to_string(),
        claim: session.claim,
        attachment: session.attachment,
        version: session.version,
        home: session.home,
        presence: session.presence,
        rooms,
        since: now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn record(name: &str, claim: u64, attachment: u32, version: u64) -> Record {
        Record {
            name: name.into(),
            claim: Clock(claim),
            attachment,
            version,
            home: ServerId(1),
            presence: Presence::Online,
            rooms: vec!["#all".into()],
            since: Time::ZERO,
        }
    }

    fn gone(mut record: Record) -> Record {
        record.presence = Presence::Gone;
        record
    }

    #[test]
    fn the_highest_attachment_and_version_win_in_any_order() {
        let records =
            [record("bob", 1, 1, 0), gone(record("bob", 1, 1, 1)), record("bob", 1, 2, 0)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
            let mut roster = Roster::default();
            for at in order {
                roster.merge(SessionId(5), records[at].clone());
                roster.check();
            }
            assert_eq!(roster.get(SessionId(5)), Some(&records[2]));
        }
    }

    #[test]
    fn onlookers_see_arrival_renaming_rooms_and_departure_once() {
        let mut roster = Roster::default();
        let session = SessionId(5);
        assert_eq!(roster.merge(session, record("bob", 1, 1, 0)), Some(vec![Change::Arrived]));
        assert_eq!(roster.merge(session, record("bob", 1, 1, 0)), None);
        let mut next = record("rob", 2, 1, 1);
        next.rooms.push("#ops".into());
        let changes = roster.merge(session, next.clone());
        let renamed = Change::Renamed { from: "bob".into() };
        assert_eq!(changes, Some(vec![renamed, Change::JoinedRoom { room: "#ops".into() }]));
        next.version = 2;
        next.presence = Presence::Away;
        assert_eq!(roster.merge(session, next.clone()), Some(vec![]));
        next.version = 3;
        let departed = Change::Departed { name: "rob".into() };
        assert_eq!(roster.merge(session, gone(next)), Some(vec![departed]));
        assert_eq!(roster.holder("rob"), None);
    }

    #[test]
    fn the_earliest_claim_holds_a_name_and_the_other_gets_it_afterwards() {
        let mut roster = Roster::default();
        roster.merge(SessionId(1), record("bob", 20, 1, 0));
        roster.merge(SessionId(2), record("Bob", 10, 1, 0));
        assert_eq!(roster.holder("bob"), Some(SessionId(2)));
        assert_eq!(roster.free_name_like("bob"), "bob~2");
        roster.merge(SessionId(2), gone(record("Bob", 10, 1, 1)));
        assert_eq!(roster.holder("bob"), Some(SessionId(1)));
        roster.check();
    }

    #[test]
    fn a_name_made_for_the_loser_of_a_conflict_is_short_enough() {
        let mut roster = Roster::default();
        let long = "x".repeat(names::NAME_BYTES_MAX);
        roster.merge(SessionId(1), record(&long, 1, 1, 0));
        let free = roster.free_name_like(&long);
        assert_eq!(free.len(), names::NAME_BYTES_MAX);
        assert!(free.ends_with("~2"));
    }
}
