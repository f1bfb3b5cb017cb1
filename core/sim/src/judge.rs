//! What must hold once everything is healed and time has passed.

use std::collections::BTreeSet;

use cordee_core::archive::Archive;
use cordee_core::ids::{AuthorId, Clock, Origin};
use cordee_core::wire::entry::Scope;

use crate::client::{Happened, parse_scope, scope_key};
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
        for client in &guests {
            self.ask_status(*client);
            self.ask_users(*client);
        }
        self.run_ms(500);
        for client in guests {
            self.judge_client(client);
        }
    }

    fn judge_servers(&self) {
        let alive = self.alive();
        let Some(&first) = alive.first() else { return };
        let archive = |node: usize| self.nodes[node].machine().expect("alive").archive();
        for room in rooms(archive(first)) {
            let rows = rows_of(archive(first), &room);
            assert!(rows.is_sorted_by_key(|row| (row.0, row.1, row.2)), "the canonical order");
            for &node in &alive {
                assert_eq!(rows_of(archive(node), &room), rows, "{room} on s{first} and s{node}");
            }
        }
        for (author, number) in self.history.must_be_there() {
            for &node in &alive {
                assert!(
                    archive(node).has_row(&author, number),
                    "s{node} lacks {author:?} {number}, which was acknowledged"
                );
            }
        }
    }

    fn judge_client(&self, client: usize) {
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
            assert!(
                missed.is_empty(),
                "{name} was never shown {missed:?} in {room}\n{}{}",
                seat.story(),
                self.describe()
            );
            lacking += held.difference(&there).count();
        }
        assert!(
            lacking <= self.history.wiped(),
            "{name} holds {lacking} that no server has, {} were lost",
            self.history.wiped()
        );
        let status = seat.happened.iter().rev().find_map(|happened| match happened {
            Happened::Status(ma, mt) => Some((*ma, *mt)),
            _ => None,
        });
        let (ma, mt) = status.expect("it asked");
        assert_eq!(mt, ma, "{name} is up to date");
        if self.history.wiped() == 0 {
            assert_eq!(ma, seat.rows_held(), "{name} holds what it may see");
        }
        let mut names: Vec<&str> = Vec::new();
        for (user, online, _) in &seat.users {
            names.push(user);
            let there = self.guests().iter().any(|guest| self.client(*guest).name == *user);
            assert_eq!(*online, there, "{name} is told of {user}\n{}", self.describe());
        }
        for guest in self.guests() {
            let guest = &self.client(guest).name;
            assert!(names.contains(&guest.as_str()), "{name} is told of {guest}: {names:?}");
        }
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(distinct.len(), names.len(), "names are unique");
        assert_eq!(seat.names(), names, "{name} kept track of who is there");
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
