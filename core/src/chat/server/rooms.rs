//! The rooms: a set that only grows, and a topic each, whose last writer wins.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};

use crate::ids::Clock;
use crate::names::COMMON_ROOM;

/// A room.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Room {
    /// When it was first made, anywhere.
    pub(super) made: Clock,
    pub(super) topic: String,
    /// When the topic was set; 0 when it never was.
    pub(super) topic_clock: Clock,
    pub(super) topic_by: String,
}

/// What taking a room in changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct RoomChange {
    /// It was not known before.
    pub(super) made: bool,
    /// Its topic is another.
    pub(super) topic: bool,
    /// Anything is other than before, so others may want to know.
    pub(super) any: bool,
}

/// All rooms, by their normalised names.
#[derive(Debug)]
pub(super) struct Rooms {
    rooms: BTreeMap<String, Room>,
    rooms_max: usize,
}

impl Rooms {
    pub(super) fn new(rooms_max: u32) -> Self {
        let rooms = BTreeMap::from([(COMMON_ROOM.to_string(), Room::default())]);
        Rooms { rooms, rooms_max: rooms_max as usize }
    }

    pub(super) fn len(&self) -> usize {
        self.rooms.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Room> {
        self.rooms.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Room)> {
        self.rooms.iter().map(|(name, room)| (name.as_str(), room))
    }

    pub(super) fn is_full(&self) -> bool {
        self.rooms.len() >= self.rooms_max
    }

    /// Takes a room in, from here or from a peer. `None` when there is no place for another.
    pub(super) fn merge(&mut self, name: &str, other: &Room) -> Option<RoomChange> {
        let Some(room) = self.rooms.get_mut(name) else {
            if self.is_full() {
                return None;
            }
            self.rooms.insert(name.to_string(), other.clone());
            return Some(RoomChange { made: true, topic: !other.topic.is_empty(), any: true });
        };
        let mut change = RoomChange::default();
        if other.made < room.made && other.made != Clock(0) {
            room.made = other.made;
            change.any = true;
        }
        let (ours, theirs) = ((room.topic_clock, &room.topic), (other.topic_clock, &other.topic));
        if theirs > ours {
            change.topic = room.topic != other.topic;
            change.any = true;
            room.topic.clone_from(&other.topic);
            room.topic_clock = other.topic_clock;
            room.topic_by.clone_from(&other.topic_by);
        }
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(made: u64, topic: &str, topic_clock: u64) -> Room {
        Room {
            made: Clock(made),
            topic: topic.into(),
            topic_clock: Clock(topic_clock),
            topic_by: String::new(),
        }
    }

    #[test]
    fn the_last_topic_wins_and_the_first_making_counts_in_any_order() {
        let rooms = [room(5, "a", 10), room(4, "b", 20), room(6, "c", 20)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let mut all = Rooms::new(8);
            for at in order {
                all.merge("#ops", &rooms[at]);
            }
            let merged = all.get("#ops").expect("made");
            assert_eq!((merged.made, merged.topic.as_str()), (Clock(4), "c"));
        }
    }

    #[test]
    fn the_number_of_rooms_is_bounded() {
        let mut all = Rooms::new(2);
        assert!(all.merge("#a", &room(1, "", 0)).is_some_and(|change| change.made));
        assert_eq!(all.merge("#b", &room(1, "", 0)), None);
        assert!(all.merge("#a", &room(1, "", 0)).is_some_and(|change| !change.any));
    }
}
