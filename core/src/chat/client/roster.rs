//! Who is there and which rooms there are, as the servers say.
//!
//! Every server sends the whole lists to whoever attaches, then what changes. Compared with what
//! was known before, the lists of a new server tell what was missed on the way to it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use crate::ids::SessionId;
use crate::names;
use crate::time::Time;
use crate::wire::Reason;
use crate::wire::chat::{RoomInfo, UserInfo};

/// Somebody.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Person {
    name: String,
    /// Rooms, by index, sorted. The common room is not among them.
    rooms: Vec<u32>,
}

impl Person {
    /// Goes into a room. Returns whether it was not there before, as far as is known.
    fn enter(&mut self, room: u32, limits: RosterLimits) -> bool {
        let Err(at) = self.rooms.binary_search(&room) else { return false };
        if self.rooms.len() < limits.rooms_per_user_max {
            self.rooms.insert(at, room);
        }
        true
    }
}

/// Something changed, for those who look on. An empty room stands for the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Arrived {
        name: String,
        room: String,
    },
    Departed {
        name: String,
        room: String,
    },
    /// With the reason, when it was not the user's wish.
    Renamed {
        from: String,
        to: String,
        why: Option<Reason>,
    },
    RoomMade {
        room: String,
    },
    Topic {
        room: String,
        topic: String,
    },
}

/// How much of a roster is kept; what goes beyond is passed on and not remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct RosterLimits {
    pub(super) users_max: usize,
    pub(super) rooms_per_user_max: usize,
    pub(super) rooms_max: usize,
}

/// The roster.
#[derive(Debug)]
pub(super) struct Roster {
    limits: RosterLimits,
    people: BTreeMap<SessionId, Person>,
    /// Who holds a name, by its comparable form.
    names: BTreeMap<String, SessionId>,
    rooms: Vec<String>,
    topics: Vec<String>,
    room_index: BTreeMap<String, u32>,
    /// Who was not on the list of a new server, and until when that means nothing.
    missing: BTreeMap<SessionId, Time>,
    /// A list that is not whole yet.
    coming: BTreeMap<SessionId, Person>,
}

impl Roster {
    pub(super) fn new(limits: RosterLimits) -> Self {
        Roster {
            limits,
            people: BTreeMap::new(),
            names: BTreeMap::new(),
            rooms: Vec::new(),
            topics: Vec::new(),
            room_index: BTreeMap::new(),
            missing: BTreeMap::new(),
            coming: BTreeMap::new(),
        }
    }

    /// The session that holds `name` now.
    pub(super) fn holder(&self, name: &str) -> Option<SessionId> {
        self.names.get(&key(name)).copied()
    }

    /// The name of a session now.
    pub(super) fn name(&self, session: SessionId) -> Option<&str> {
        self.people.get(&session).map(|person| person.name.as_str())
    }

    /// The topic of a room, as far as it is known.
    pub(super) fn topic(&self, room: &str) -> &str {
        self.room_index.get(room).map_or("", |index| &self.topics[*index as usize])
    }

    pub(super) fn arrive(
        &mut self,
        session: SessionId,
        name: &str,
        room: &str,
        tell: &mut impl FnMut(Change),
    ) {
        let room_index = if is_common(room) { None } else { self.room(room) };
        let full = self.people.len() >= self.limits.users_max;
        let mut new = true;
        self.missing.remove(&session);
        if let Some(person) = self.people.get_mut(&session) {
            new = room_index.is_some_and(|index| person.enter(index, self.limits));
            self.rename(session, name, None, tell);
        } else if !full {
            let rooms = room_index.into_iter().collect();
            self.people.insert(session, Person { name: name.into(), rooms });
            self.names.insert(key(name), session);
        }
        if new {
            tell(Change::Arrived { name: name.into(), room: room.into() });
        }
    }

    pub(super) fn depart(
        &mut self,
        session: SessionId,
        name: &str,
        room: &str,
        tell: &mut impl FnMut(Change),
    ) {
        let room_index = self.room_index.get(room).copied();
        let Some(person) = self.people.get_mut(&session) else {
            if self.people.len() >= self.limits.users_max {
                tell(Change::Departed { name: name.into(), room: room.into() });
            }
            return;
        };
        if room.is_empty() {
            self.missing.remove(&session);
            let name = mem::take(&mut person.name);
            self.people.remove(&session);
            self.release(session, &name);
            tell(Change::Departed { name, room: String::new() });
        } else if let Some(at) =
            room_index.and_then(|index| person.rooms.binary_search(&index).ok())
        {
            person.rooms.remove(at);
            tell(Change::Departed { name: name.into(), room: room.into() });
        }
    }

    /// A session has the name `to`. Tells it when it had another, and `why` when it was not its wish.
    pub(super) fn rename(
        &mut self,
        session: SessionId,
        to: &str,
        why: Option<Reason>,
        tell: &mut impl FnMut(Change),
    ) {
        let Some(person) = self.people.get_mut(&session) else { return };
        let from = mem::replace(&mut person.name, to.into());
        self.release(session, &from);
        self.names.insert(key(to), session);
        if from != to {
            tell(Change::Renamed { from, to: to.into(), why });
        }
    }

    pub(super) fn make_room(&mut self, room: &str, tell: &mut impl FnMut(Change)) {
        if !self.room_index.contains_key(room) {
            self.room(room);
            tell(Change::RoomMade { room: room.into() });
        }
    }

    /// A room's topic is this. Returns whether it was another.
    pub(super) fn set_topic(&mut self, room: &str, topic: &str) -> bool {
        let Some(index) = self.room(room) else { return true };
        let held = &mut self.topics[index as usize];
        let changed = held != topic;
        if changed {
            *held = topic.into();
        }
        changed
    }

    /// Takes a part of a whole list of users.
    pub(super) fn list_user(&mut self, user: &UserInfo<'_>) {
        if self.coming.len() >= self.limits.users_max {
            return;
        }
        let mut rooms: Vec<u32> = Vec::new();
        for room in user.rooms.iter().filter(|room| !is_common(room)) {
            rooms.extend(self.room(room));
        }
        rooms.sort_unstable();
        rooms.dedup();
        rooms.truncate(self.limits.rooms_per_user_max);
        self.coming.insert(user.session, Person { name: user.name.into(), rooms });
    }

    /// A list begins anew: its first parts came from a server that is lost.
    pub(super) fn drop_list(&mut self) {
        self.coming.clear();
    }

    /// The list of users is whole: it is the roster from now on. Tells what it changes, but
    /// nothing of `me`. Who is not on it may only be late: a server that has just started learns
    /// of users as they come. They count as departed if they are still missing at `missing_until`.
    pub(super) fn finish_list(
        &mut self,
        me: SessionId,
        missing_until: Time,
        tell: &mut impl FnMut(Change),
    ) {
        let new = mem::take(&mut self.coming);
        let mut old = mem::take(&mut self.people);
        let room = |index: &u32| self.rooms[*index as usize].clone();
        for (session, person) in new.iter().filter(|(session, _)| **session != me) {
            let name = &person.name;
            let before = old.get(session);
            match before {
                None => tell(Change::Arrived { name: name.clone(), room: String::new() }),
                Some(before) if before.name != *name => {
                    let (from, to) = (before.name.clone(), name.clone());
                    tell(Change::Renamed { from, to, why: None });
                }
                Some(_) => {}
            }
            let before = before.map_or(&[][..], |before| &before.rooms);
            for index in before.iter().filter(|index| !person.rooms.contains(index)) {
                tell(Change::Departed { name: name.clone(), room: room(index) });
            }
            for index in person.rooms.iter().filter(|index| !before.contains(index)) {
                tell(Change::Arrived { name: name.clone(), room: room(index) });
            }
        }
        self.missing.retain(|session, _| !new.contains_key(session));
        for session in old.keys().filter(|session| !new.contains_key(session)) {
            self.missing.entry(*session).or_insert(missing_until);
        }
        old.retain(|session, _| self.missing.contains_key(session));
        let name_of = |(session, person): (&SessionId, &Person)| (key(&person.name), *session);
        // Who is on the list has the better claim to a name.
        self.names = old.iter().map(name_of).collect();
        self.names.extend(new.iter().map(name_of));
        self.people = old;
        self.people.extend(new);
    }

    /// The client has ended.
    pub(super) fn forget(&mut self) {
        self.missing.clear();
    }

    /// When somebody who is missing counts as departed, if anybody is.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.missing.values().min().copied()
    }

    /// Who is still missing has departed.
    pub(super) fn expire(&mut self, now: Time, tell: &mut impl FnMut(Change)) {
        let due = |until: &Time| *until <= now;
        let gone: Vec<SessionId> =
            self.missing.iter().filter(|(_, until)| due(until)).map(|(id, _)| *id).collect();
        for session in gone {
            self.depart(session, "", "", tell);
        }
    }

    /// Takes a room of a whole list. Tells what is new.
    pub(super) fn list_room(&mut self, info: &RoomInfo<'_>, tell: &mut impl FnMut(Change)) {
        self.make_room(info.room, tell);
        if self.set_topic(info.room, info.topic) {
            tell(Change::Topic { room: info.room.into(), topic: info.topic.into() });
        }
    }

    fn release(&mut self, session: SessionId, name: &str) {
        let key = key(name);
        if self.names.get(&key) == Some(&session) {
            self.names.remove(&key);
        }
    }

    fn room(&mut self, room: &str) -> Option<u32> {
        if let Some(index) = self.room_index.get(room) {
            return Some(*index);
        }
        if self.rooms.len() >= self.limits.rooms_max {
            return None;
        }
        let index = self.rooms.len() as u32;
        self.rooms.push(room.into());
        self.topics.push(String::new());
        self.room_index.insert(room.into(), index);
        Some(index)
    }

    pub(super) fn check(&self) {
        assert!(self.missing.keys().all(|session| self.people.contains_key(session)));
        for (name, session) in &self.names {
            let person = self.people.get(session).map(|person| key(&person.name));
            assert_eq!(person.as_ref(), Some(name), "a name leads to who has it");
        }
    }
}

/// The comparable form of a name; of one that is not allowed, itself.
fn key(name: &str) -> String {
    names::user_key(name).unwrap_or_else(|_| name.into())
}

/// Everyone is in the common room: nothing is said about that.
fn is_common(room: &str) -> bool {
    room.is_empty() || room == names::COMMON_ROOM
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Seq;

    fn roster() -> Roster {
        Roster::new(RosterLimits { users_max: 4, rooms_per_user_max: 8, rooms_max: 4 })
    }

    fn user<'a>(session: u64, name: &'a str, rooms: &'a [&'a str]) -> UserInfo<'a> {
        let (session, rooms) = (SessionId(session), Seq::new(rooms));
        UserInfo { session, name, online: true, server: "", rooms }
    }

    fn list(roster: &mut Roster, users: &[UserInfo<'_>]) -> Vec<Change> {
        let mut changes = Vec::new();
        users.iter().for_each(|user| roster.list_user(user));
        roster.finish_list(SessionId(0), Time(30), &mut |change| changes.push(change));
        roster.check();
        changes
    }

    #[test]
    fn a_list_tells_what_was_missed() {
        let mut roster = roster();
        list(&mut roster, &[user(1, "ada", &["#all", "#x"]), user(2, "bob", &["#all"])]);
        let changes = list(&mut roster, &[user(1, "Ada", &["#y"]), user(3, "cy", &[])]);
        let change = |arrived: bool, name: &str, room: &str| {
            let (name, room) = (String::from(name), String::from(room));
            if arrived { Change::Arrived { name, room } } else { Change::Departed { name, room } }
        };
        let renamed = Change::Renamed { from: "ada".into(), to: "Ada".into(), why: None };
        let expected = [
            renamed,
            change(false, "Ada", "#x"),
            change(true, "Ada", "#y"),
            change(true, "cy", ""),
        ];
        assert_eq!(changes, expected);
        assert_eq!(roster.holder("ADA"), Some(SessionId(1)));
    }

    #[test]
    fn who_is_not_on_a_list_has_departed_only_if_he_does_not_come_in_time() {
        let mut roster = roster();
        list(&mut roster, &[user(1, "ada", &[]), user(2, "bob", &[]), user(3, "cy", &[])]);
        assert_eq!(list(&mut roster, &[user(1, "ada", &[])]), []);
        let mut changes = Vec::new();
        roster.arrive(SessionId(2), "bob", "", &mut |change| changes.push(change));
        roster.expire(Time(29), &mut |change| changes.push(change));
        assert_eq!((changes.len(), roster.next_deadline()), (0, Some(Time(30))));
        roster.expire(Time(30), &mut |change| changes.push(change));
        let departed = Change::Departed { name: "cy".into(), room: String::new() };
        assert_eq!((changes, roster.next_deadline()), (Vec::from([departed]), None));
        assert_eq!(roster.holder("cy"), None);
        roster.check();
    }

    #[test]
    fn what_is_known_already_is_not_told_again() {
        let mut roster = roster();
        let mut changes = Vec::new();
        let mut tell = |change| changes.push(change);
        for _ in 0..2 {
            roster.arrive(SessionId(1), "ada", "", &mut tell);
            roster.arrive(SessionId(1), "ada", "#x", &mut tell);
            roster.make_room("#z", &mut tell);
        }
        for _ in 0..2 {
            roster.depart(SessionId(1), "ada", "#x", &mut tell);
            roster.depart(SessionId(1), "ada", "", &mut tell);
        }
        roster.check();
        assert_eq!(changes.len(), 5, "{changes:?}");
    }

    #[test]
    fn a_full_roster_passes_on_what_it_cannot_keep() {
        let mut roster = roster();
        let mut told = 0;
        for session in 0..10 {
            roster.arrive(SessionId(session), "x", "", &mut |_| told += 1);
            roster.check();
        }
        assert_eq!((told, roster.people.len()), (10, 4));
    }
}
