//! What must hold once everything is healed and time has passed.

use std::collections::BTreeSet;

use cordee_core::archive::Archive;
use cordee_core::ids::{AuthorId, Clock, Origin};
use cordee_core::wire::entry::Scope;

use crate::client::{Happened, parse_scope, scope_key};
use crate::rule::{Rule, holds};
use crate::world::World;

/// A row as it stands in a room: its place in the canonical order, and whose it is.
type Row = (Clock, Origin, u64, AuthorId, u64);

impl World {
    /// Heals everything, waits at most `ms` milliseconds until all agree, and judges.
    #[track_caller]
    pub fn heal_and_judge(&mut self, ms: u64) {
        self.heal_all();
        self.wait(ms, "the servers link", World::is_meshed);
        self.wait(ms, "everyone has caught up", |world| {
            world.guests().iter().all(|client| world.client(*client).is_caught_up())
        });
        self.wait(ms, "everything is acknowledged", |world| {
            world.guests().iter().all(|client| world.client(*client).unacknowledged() == 0)
        });
        self.wait(ms, "the servers hold the same", World::is_converged);
        self.run_ms(2_000);
        self.judge();
    }

    /// Clients that want to be there.
    #[must_use]
    pub fn guests(&self) -> Vec<usize> {
        (0..self.seats.len()).filter(|client| !self.client(*client).is_stopped()).collect()
    }

    /// Judges a world that was left in peace: everyone must have, and see, the same.
    #[track_caller]
    pub fn judge(&mut self) {
        self.check_all();
        assert!(self.is_converged(), "all hold the same\n{}", self.describe());
        self.judge_servers();
        let guests = self.guests();
        let users: usize =
            self.nodes.iter().filter_map(|n| n.machine()).map(|machine| machine.users()).sum();
        let there = guests.len() + self.reals.len();
        holds!(self.history.tally, Roster, users == there, "{users} users of {there} are kept");
        for client in &guests {
            self.ask_status(*client);
            self.ask_users(*client);
            self.ask_rooms(*client);
        }
        self.run_ms(500);
        for client in &guests {
            self.judge_client(*client);
        }
        self.judge_rooms(&guests);
    }

    /// Everybody is told of the same rooms, with as many members as there are.
    fn judge_rooms(&mut self, guests: &[usize]) {
        let mut tally = std::mem::take(&mut self.history.tally);
        let Some(first) = guests.first() else { return };
        let rooms = &self.client(*first).room_list;
        for guest in guests {
            let theirs = &self.client(*guest).room_list;
            let users = (&self.client(*guest).users, &self.client(*first).users);
            holds!(tally, Rooms, theirs == rooms, "{theirs:?} and {rooms:?}, {users:?}");
        }
        for (room, users, _) in rooms {
            let models = guests.iter().filter(|guest| self.client(**guest).rooms().contains(room));
            let count = models.count() + self.reals.iter().filter(|r| r.is_in(room)).count();
            // Who went without a word is a member until the grace is over.
            let away = self.client(*first).users.iter().filter(|user| !user.1).count();
            let told = (count..=count + away).contains(&(*users as usize));
            holds!(tally, Rooms, told, "{room}: {count} are in, {users} said");
        }
        self.history.tally = tally;
    }

    /// Judges servers that keep less than was said, and were left in peace: they count alike, and
    /// everybody is up to date.
    #[track_caller]
    pub fn judge_trimmed(&mut self) {
        self.check_all();
        let alive = self.alive();
        let mut tally = std::mem::take(&mut self.history.tally);
        let archive = |node: usize| self.nodes[node].machine().expect("alive").archive();
        let all = Scope::Room("#all");
        let count = |node| archive(node).find_scope(&all).map(|s| archive(node).scope_rows(s));
        for node in &alive {
            let same = count(*node) == count(alive[0]);
            holds!(tally, Converged, same, "{:?} and {:?} rows", count(*node), count(alive[0]));
        }
        self.history.tally = tally;
        for guest in self.guests() {
            self.ask_status(guest);
        }
        self.run_ms(500);
        for guest in self.guests() {
            let client = self.client(guest);
            let status = client.happened.iter().rev().find_map(|happened| match happened {
                Happened::Status(ma, mt) => Some((*ma, *mt)),
                _ => None,
            });
            let (ma, mt) = status.expect("it asked");
            let name = client.name.clone();
            holds!(self.history.tally, Counts, mt == ma, "{name} is not up to date: {mt} of {ma}");
        }
    }

    fn judge_servers(&mut self) {
        let alive = self.alive();
        let Some(&first) = alive.first() else { return };
        let archive = |node: usize| self.nodes[node].machine().expect("alive").archive();
        let mut tally = std::mem::take(&mut self.history.tally);
        for room in rooms(archive(first)) {
            let rows = rows_of(archive(first), &room);
            let ordered = rows.is_sorted_by_key(|row| (row.0, row.1, row.2));
            holds!(tally, Converged, ordered, "{room} is out of order on s{first}");
            let messages: BTreeSet<(AuthorId, u64)> = rows.iter().map(|r| (r.3, r.4)).collect();
            holds!(tally, Once, messages.len() == rows.len(), "{room} holds a message twice");
            for &node in &alive {
                let same = rows_of(archive(node), &room) == rows;
                holds!(tally, Converged, same, "{room} differs on s{first} and s{node}");
            }
            let said = self.history.rows_in(&room);
            let count = rows.len() as u64;
            holds!(tally, OwnCount, said == count, "{room} has {count} rows, {said} were stored");
        }
        for (author, number) in self.history.must_be_there() {
            for &node in &alive {
                let there = archive(node).has_row(&author, number);
                holds!(tally, Kept, there, "s{node} lacks {author:?} {number}, acknowledged");
            }
        }
        for (scope, index, (author, number)) in self.history.finals() {
            for &node in &alive {
                let place = archive(node).find_scope(&parse_scope(scope)).and_then(|scope| {
                    let id = archive(node).page(scope, index, 1).next()?;
                    let entry = archive(node).entry(id, Clock(0));
                    Some((entry.author, entry.author_number))
                });
                let stays = place == Some((author, number));
                holds!(
                    tally,
                    Final,
                    stays,
                    "{scope} {index} was final for {author:?} {number}, s{node} has {place:?} there"
                );
            }
        }
        self.history.tally = tally;
    }

    fn judge_client(&mut self, client: usize) {
        let mut tally = std::mem::take(&mut self.history.tally);
        let seat = self.client(client);
        let name = &seat.name;
        let node = self
            .alive()
            .into_iter()
            .find(|node| seat.attached_at() == Some(self.nodes[*node].setup.address.as_str()));
        let node = node.unwrap_or_else(|| panic!("{name} is nowhere\n{}", self.describe()));
        let archive = self.nodes[node].machine().expect("alive").archive();
        let mut lacking = 0;
        let session = seat.session().expect("attached");
        let talks = archive.talks_of(session).map(|talk| {
            let (low, high) = archive.talk_members(talk).expect("a talk");
            scope_key(&Scope::talk(low, high, ""))
        });
        for room in seat.rooms().iter().cloned().chain(talks) {
            let there: BTreeSet<(AuthorId, u64)> =
                rows_of(archive, &room).into_iter().map(|row| (row.3, row.4)).collect();
            let held = seat.rows_of(&room);
            let missed: Vec<_> = there.difference(&held).collect();
            holds!(
                tally,
                Kept,
                missed.is_empty(),
                "{name} was never shown {missed:?} in {room}\n{}{}",
                seat.story(),
                self.describe()
            );
            lacking += held.difference(&there).count();
        }
        assert!(
            lacking <= self.history.wiped(),
            "{}: {name} holds {lacking} that no server has, {} were lost",
            Rule::Genuine.code(),
            self.history.wiped()
        );
        for (author, number) in seat.kept().filter(|_| self.options.shared_key) {
            let there = archive.has_row(&author, number);
            holds!(tally, Kept, there, "{name} could hand {author:?} {number} back to s{node}");
        }
        let status = seat.happened.iter().rev().find_map(|happened| match happened {
            Happened::Status(ma, mt) => Some((*ma, *mt)),
            _ => None,
        });
        let (ma, mt) = status.expect("it asked");
        holds!(tally, Counts, mt == ma, "{name} is not up to date: {mt} of {ma}");
        if self.history.wiped() == 0 {
            let held = seat.rows_held();
            holds!(tally, OwnCount, ma == held, "{name} holds {held} of {ma}");
        }
        let mut names: Vec<&str> = Vec::new();
        let guests = self.names();
        for (user, online, _) in &seat.users {
            names.push(user);
            let there = guests.iter().any(|guest| guest == user);
            holds!(
                tally,
                Roster,
                *online == there,
                "{name} is told of {user}, and that is not so\n{}",
                self.describe()
            );
        }
        for guest in &guests {
            let told = names.contains(&guest.as_str());
            holds!(tally, Roster, told, "{name} is not told of {guest}: {names:?}");
        }
        let distinct: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
        holds!(tally, Names, distinct.len() == names.len(), "names are not unique: {names:?}");
        holds!(tally, Roster, seat.names() == names, "{name} lost track: {:?}", seat.names());
        self.history.tally = tally;
    }

    /// What those who are there are called, each as it knows itself.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let models = self.guests().into_iter().map(|guest| self.client(guest).name.clone());
        models.chain(self.reals.iter().map(|real| real.name().to_owned())).collect()
    }
}

fn rooms(archive: &Archive) -> BTreeSet<String> {
    let rows = archive.newest_first(None);
    let rooms = rows.filter_map(|row| archive.room_name(archive.scope_of(row)));
    rooms.map(str::to_owned).collect()
}

fn rows_of(archive: &Archive, room: &str) -> Vec<Row> {
    let Some(scope) = archive.find_scope(&parse_scope(room)) else { return Vec::new() };
    let rows = archive.page(scope, 1, usize::MAX).map(|id| {
        let entry = archive.entry(id, Clock(0));
        let origin = archive.origin_of(id);
        (entry.clock, archive.origin(origin), entry.number, entry.author, entry.author_number)
    });
    rows.collect()
}
