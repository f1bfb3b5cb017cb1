//! The rooms that this session is in.

use alloc::collections::BTreeMap;
use alloc::string::String;

use super::rows::RowScope;
use super::seen::{OriginIndex, Vector};

/// How far in it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Asked to join.
    Joining,
    /// In.
    In,
    /// Asked to leave.
    Leaving,
}

/// A room whose archive is being received.
#[derive(Clone, Debug, Default)]
pub(super) struct Partial {
    /// What was received of it.
    pub(super) seen: Vector,
    /// Whether the attachment named it: then it has caught up when everything has.
    pub(super) attached: bool,
}

/// A room.
#[derive(Debug)]
pub(super) struct OwnRoom {
    id: u32,
    pub(super) standing: Standing,
    /// How many rows came.
    pub(super) held: u64,
    pub(super) partial: Option<Partial>,
}

impl OwnRoom {
    pub(super) fn scope(&self) -> RowScope {
        RowScope::Room(self.id)
    }
}

/// The rooms, by normalised name.
#[derive(Debug, Default)]
pub(super) struct OwnRooms {
    map: BTreeMap<String, OwnRoom>,
    next_id: u32,
}

impl OwnRooms {
    pub(super) fn get(&self, room: &str) -> Option<&OwnRoom> {
        self.map.get(room)
    }

    pub(super) fn get_mut(&mut self, room: &str) -> Option<&mut OwnRoom> {
        self.map.get_mut(room)
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &OwnRoom)> {
        self.map.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&String, &mut OwnRoom)> {
        self.map.iter_mut()
    }

    /// Puts a room in, unless it is there.
    pub(super) fn insert(&mut self, room: &str, standing: Standing) -> &mut OwnRoom {
        let next_id = &mut self.next_id;
        self.map.entry(String::from(room)).or_insert_with(|| {
            *next_id += 1;
            OwnRoom { id: *next_id, standing, held: 0, partial: None }
        })
    }

    /// Takes a room out, with all that is known of it. Returns whether it was there.
    pub(super) fn remove(&mut self, room: &str) -> bool {
        self.map.remove(room).is_some()
    }

    /// Whether a message may go there: it is in, or will be when the message arrives.
    pub(super) fn may_say(&self, room: &str) -> bool {
        self.map.get(room).is_some_and(|room| room.standing != Standing::Leaving)
    }

    /// What was received of `origin` beyond `number` comes again under other numbers.
    pub(super) fn cut(&mut self, origin: OriginIndex, number: u64) {
        for room in self.map.values_mut() {
            if let Some(partial) = &mut room.partial {
                partial.seen.lower(origin, number);
            }
        }
    }

    /// The highest number of `origin` received in a room that has not caught up.
    pub(super) fn seen(&self, origin: OriginIndex) -> u64 {
        let partial = self.map.values().filter_map(|room| room.partial.as_ref());
        partial.map(|partial| partial.seen.at(origin)).max().unwrap_or(0)
    }

    /// Forgets what was received.
    pub(super) fn forget(&mut self) {
        for room in self.map.values_mut() {
            room.held = 0;
            room.partial = None;
        }
    }

    /// How many rows came of all rooms.
    pub(super) fn held(&self) -> u64 {
        self.map.values().map(|room| room.held).sum()
    }
}
