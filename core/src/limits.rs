//! What bounds everything: sizes in bytes, counts, times in microseconds.

use crate::archive::HEADS_MAX;
use crate::chat::server::ROUND_BYTES;
use crate::framing::{FRAME_BYTES_MAX, HELLO_BYTES_MAX};
use crate::names::{NAME_BYTES_MAX, ROOM_BYTES_MAX};
use crate::time::{MILLI_US, SECOND_US};
use crate::wire::entry::AFTER_PAIRS_MAX;
use crate::wire::{ADDRESS_BYTES_MAX, VECTOR_PAIRS_MAX};

/// The limits of a chat server. Every queue, map and set of it is bounded by one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest frame after the hello, header and all; at most [`FRAME_BYTES_MAX`].
    pub frame_bytes_max: u32,
    /// The longest first frame of a connection.
    pub hello_bytes_max: u32,
    /// The longest body of a message, in bytes of UTF-8.
    pub body_bytes_max: u32,
    /// The longest topic, in bytes of UTF-8.
    pub topic_bytes_max: u32,
    /// Rooms in the cluster.
    pub rooms_max: u32,
    /// Rooms that one session is in.
    pub rooms_per_session_max: u32,
    /// Talks in the cluster, beyond which no new ones are begun: they stay as long as rooms do.
    pub talks_max: u32,
    /// Users attached here before newcomers are sent elsewhere.
    pub users_max: u32,
    /// Users attached here in all, those that fail over included.
    pub users_hard_max: u32,
    /// Sessions known in the cluster.
    pub sessions_max: u32,
    /// Connections in all: clients, standbys, observers, peers.
    pub connections_max: u32,
    /// Of these, places that only peers and observers from loopback may take.
    pub connections_reserved: u32,
    /// Connections whose hello has not been accepted.
    pub pending_max: u32,
    /// Such connections from one address; loopback is exempt.
    pub pending_per_source_max: u32,
    /// Members of the cluster.
    pub members_max: u32,
    /// Origins in the archive; at most [`VECTOR_PAIRS_MAX`]. Those that ended take half of them at the
    /// most, with those that their entries name: beyond it the oldest entries go.
    pub origins_max: u32,
    /// Authors whose last number is remembered.
    pub authors_max: u32,
    /// Entries in memory, with their indexes.
    pub archive_bytes_max: u64,
    /// The log that cursors read.
    pub log_bytes_max: u64,
    /// Bytes queued for one connection outside the log.
    pub queue_bytes_max: u32,
    /// Bytes queued outside the log for all connections together. From half of it on, history and
    /// answers are sent up to a fair share only; beyond it, whoever holds most is closed.
    pub queued_bytes_max: u64,
    /// Bytes of frames that are not whole, of all connections together. Beyond it, whoever began
    /// first and has more than an equal share is closed.
    pub begun_bytes_max: u64,
    /// Bytes that were read from clients and are not handled yet, of all connections together.
    /// Beyond it nothing more is read.
    pub read_bytes_max: u64,
    /// Bytes of history on their way to one connection.
    pub catch_up_bytes_max: u32,
    /// Messages of one session that are accepted and not yet acknowledged.
    pub unacknowledged_max: u32,
    /// Bytes given to storage and not yet persisted, beyond which clients are not read.
    pub unpersisted_bytes_max: u64,
    /// Entries held until what they come after is there, in bytes.
    pub waiting_bytes_max: u64,
    /// Entries in one answer to a question for history.
    pub page_entries_max: u32,
    /// Results of one search.
    pub search_results_max: u32,
    /// Requests and pings a second from one client, beyond which it is not read for a while.
    pub requests_per_second_max: u32,
    /// From accepting a connection to its whole hello.
    pub hello_us_max: u64,
    /// From the first byte of a frame to its last.
    pub frame_us_max: u64,
    /// From a connection's last byte to its end.
    pub idle_us_max: u64,
    /// From the last byte that a connection with something to send took, to its end.
    pub stall_us_max: u64,
    /// For how long a session whose connection or server was lost stays listed.
    pub grace_us: u64,
    /// For how long a reservation holds.
    pub reservation_us: u64,
    /// Between two heartbeats on a link.
    pub beat_us: u64,
    /// Heartbeats that may be missed before a link is dead.
    pub beats_missed_max: u32,
    /// How often clients are to ping.
    pub ping_us: u64,
    /// How long a starting server waits for members to answer before it serves alone.
    pub join_us_max: u64,
    /// How long a client's resume waits for entries that a peer is about to send.
    pub resume_us_max: u64,
    /// How far ahead of the wall clock a peer's clock may be before it is refused.
    pub clock_ahead_us_max: u64,
    /// How far ahead of the wall clock a peer's clock may drag ours.
    pub clock_drag_us_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            hello_bytes_max: HELLO_BYTES_MAX as u32,
            body_bytes_max: 8 << 10,
            topic_bytes_max: 512,
            rooms_max: 4_096,
            rooms_per_session_max: 64,
            talks_max: 262_144,
            users_max: 100,
            users_hard_max: 1_000,
            sessions_max: 65_536,
            connections_max: 8_192,
            connections_reserved: 64,
            pending_max: 256,
            pending_per_source_max: 32,
            members_max: 64,
            origins_max: VECTOR_PAIRS_MAX as u32,
            authors_max: 65_536,
            archive_bytes_max: 1 << 30,
            log_bytes_max: 64 << 20,
            queue_bytes_max: 1 << 20,
            queued_bytes_max: 256 << 20,
            begun_bytes_max: 64 << 20,
            read_bytes_max: 32 << 20,
            catch_up_bytes_max: 512 << 10,
            unacknowledged_max: 4_096,
            unpersisted_bytes_max: 64 << 20,
            waiting_bytes_max: 64 << 20,
            page_entries_max: 1_000,
            search_results_max: 100,
            requests_per_second_max: 1_000,
            hello_us_max: 5 * SECOND_US,
            frame_us_max: 30 * SECOND_US,
            idle_us_max: 30 * SECOND_US,
            stall_us_max: 10 * SECOND_US,
            grace_us: 30 * SECOND_US,
            reservation_us: 5 * SECOND_US,
            beat_us: 150 * MILLI_US,
            beats_missed_max: 5,
            ping_us: 500 * MILLI_US,
            join_us_max: SECOND_US,
            resume_us_max: SECOND_US,
            clock_ahead_us_max: 24 * 3_600 * SECOND_US,
            clock_drag_us_max: 10 * SECOND_US,
        }
    }
}

/// A limit that makes no sense, alone or with the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the limit {limit} must be {range}")]
pub struct LimitError {
    /// Its name.
    pub limit: &'static str,
    /// What it must be.
    pub range: &'static str,
}

impl Limits {
    /// Whether a server can keep what the protocol promises with these limits.
    ///
    /// # Errors
    ///
    /// The first limit that is out of its range.
    pub fn validate(&self) -> Result<(), LimitError> {
        let rules = self.sizes().into_iter().chain(self.counts()).chain(self.times());
        match rules.into_iter().find(|(_, _, holds)| !holds) {
            Some((limit, range, _)) => Err(LimitError { limit, range }),
            None => Ok(()),
        }
    }

    fn sizes(&self) -> [Rule; 14] {
        let frame = u64::from(self.frame_bytes_max);
        let fits = |bytes: u64| bytes + MESSAGE_BYTES <= frame;
        let list = |count: u32, bytes: u64| u64::from(count) * bytes;
        let rooms = list(self.rooms_per_session_max, 2 * (ROOM_BYTES_MAX as u64 + 3));
        let entry = u64::from(self.body_bytes_max) + AFTER_PAIRS_MAX as u64 * PAIR_BYTES;
        let queue = u64::from(self.queue_bytes_max);
        [
            ("frame_bytes_max", "at most 65519", frame <= FRAME_BYTES_MAX as u64),
            (
                "hello_bytes_max",
                "88 to 256",
                (88..=HELLO_BYTES_MAX as u32).contains(&self.hello_bytes_max),
            ),
            (
                "body_bytes_max",
                "1 or more, and fit a frame",
                self.body_bytes_max > 0 && fits(entry),
            ),
            ("topic_bytes_max", "so small that it fits a frame", fits(self.topic_bytes_max.into())),
            (
                "rooms_per_session_max",
                "1 or more, and fit a frame with a vector",
                self.rooms_per_session_max > 0 && fits(rooms + list(self.origins_max, PAIR_BYTES)),
            ),
            (
                "origins_max",
                "2 to 1536, and fit a frame",
                (2..=VECTOR_PAIRS_MAX as u32).contains(&self.origins_max)
                    && fits(list(self.origins_max, RANGE_BYTES)),
            ),
            (
                "members_max",
                "1 or more, and fit a frame",
                self.members_max > 0 && fits(list(self.members_max + 1, MEMBER_BYTES)),
            ),
            (
                "unacknowledged_max",
                "1 or more, and fit a frame",
                self.unacknowledged_max > 0 && fits(list(self.unacknowledged_max, 10)),
            ),
            ("queue_bytes_max", "a frame or more", queue >= frame),
            (
                "queued_bytes_max",
                "at least four times queue_bytes_max",
                self.queued_bytes_max >= 4 * queue,
            ),
            (
                "begun_bytes_max, read_bytes_max",
                "16 frames or more",
                self.begun_bytes_max >= 16 * frame && self.read_bytes_max >= 16 * frame,
            ),
            (
                "catch_up_bytes_max",
                "a frame or more, and at most queue_bytes_max",
                (frame..=queue).contains(&u64::from(self.catch_up_bytes_max)),
            ),
            ("log_bytes_max", "16 frames or more", self.log_bytes_max >= 16 * frame),
            (
                "archive_bytes_max, waiting_bytes_max, unpersisted_bytes_max",
                "16 frames or more",
                [self.archive_bytes_max, self.waiting_bytes_max, self.unpersisted_bytes_max]
                    .iter()
                    .all(|bytes| *bytes >= 16 * frame),
            ),
        ]
    }

    fn counts(&self) -> [Rule; 6] {
        [
            ("rooms_max, talks_max", "1 or more", self.rooms_max > 0 && self.talks_max > 0),
            (
                "users_max",
                "1 or more, and at most users_hard_max",
                (1..=self.users_hard_max).contains(&self.users_max),
            ),
            (
                "connections_reserved",
                "less than connections_max",
                self.connections_reserved < self.connections_max,
            ),
            (
                "pending_max, pending_per_source_max",
                "1 or more",
                self.pending_max > 0 && self.pending_per_source_max > 0,
            ),
            ("authors_max", "at least sessions_max", self.authors_max >= self.sessions_max),
            (
                "page_entries_max, search_results_max, requests_per_second_max",
                "1 or more",
                self.page_entries_max > 0
                    && self.search_results_max > 0
                    && self.requests_per_second_max > 0,
            ),
        ]
    }

    fn times(&self) -> [Rule; 6] {
        let some = |times: &[u64]| times.iter().all(|us| *us >= MILLI_US);
        [
            ("beat_us, ping_us", "a millisecond or more", some(&[self.beat_us, self.ping_us])),
            ("beats_missed_max", "2 or more", self.beats_missed_max >= 2),
            (
                "hello_us_max, frame_us_max, stall_us_max",
                "a millisecond or more",
                some(&[self.hello_us_max, self.frame_us_max, self.stall_us_max]),
            ),
            (
                "idle_us_max",
                "more than two pings and two beats",
                self.idle_us_max > 2 * self.ping_us.max(self.beat_us),
            ),
            (
                "grace_us",
                "longer than a link takes to die",
                self.grace_us > self.beat_us.saturating_mul(self.beats_missed_max.into()),
            ),
            (
                "clock_drag_us_max",
                "at most clock_ahead_us_max",
                self.clock_drag_us_max <= self.clock_ahead_us_max,
            ),
        ]
    }
}

/// A limit, what it must be, and whether it is.
type Rule = (&'static str, &'static str, bool);

/// The most bytes of a pair (origin, number) on the wire.
const PAIR_BYTES: u64 = 20 + 10;
/// The most bytes of a range of an origin's numbers on the wire.
const RANGE_BYTES: u64 = 20 + 10 + 10;
/// The most bytes of a member on the wire.
const MEMBER_BYTES: u64 = 8 + 2 + ADDRESS_BYTES_MAX as u64 + 20 + 1 + 10;
/// Enough for the fields of any message beside its lists and its longest text.
const MESSAGE_BYTES: u64 = 512;

/// The most memory that a server with these limits holds on to, in bytes: every queue, map and
/// set at its limit at once, in the machine and in the driver. Not counted are the stacks of
/// threads, what the kernel buffers, and a list of users or rooms on its way to someone who asked,
/// which is as long as there are users or rooms.
#[must_use]
pub fn memory_bytes_max(limits: &Limits) -> u64 {
    let count = |number: u32, bytes: u64| u64::from(number) * bytes;
    let vector = count(limits.origins_max, 8);
    let rooms = count(limits.rooms_per_session_max, ROOM_BYTES_MAX as u64 + NODE_BYTES);

    // What is queued, in buffers that may have just grown; the machine checks after each input, so
    // a round of answers may be more. What came in part, likewise. What was read is with the hub.
    let queues = 2 * (limits.queued_bytes_max + u64::from(limits.queue_bytes_max) + ROUND_BYTES);
    let reading = 2 * limits.begun_bytes_max + limits.read_bytes_max;
    let connections = count(limits.connections_max, CONNECTION_BYTES) + queues + reading;

    // What an attach says is kept until it is answered, its pairs with 32 bytes for 21. From then
    // on there is a catch-up, of the session's rooms or of one that it joined: two vectors and
    // another for comparing, and the heads of its merge; what the cursor passed; and what is known
    // of rooms that wait for theirs, as in the frame in which it came.
    // What is handed back and held up, comes on top.
    let attaching = 3 * u64::from(limits.frame_bytes_max) + HELD_BACK_BYTES_MAX;
    let catch_up = 4 * vector + 2 * HEADS_MAX as u64 * HEAD_BYTES;
    let unacknowledged = count(limits.unacknowledged_max, UNACKNOWLEDGED_BYTES);
    let attached = catch_up + unacknowledged + u64::from(limits.frame_bytes_max);
    let users = count(limits.users_hard_max, rooms + attaching.max(attached));

    // What was read is not held against peers. Our reference for each of theirs, and what they
    // hold, held, announced, were told and asked.
    let links = count(limits.members_max, 7 * vector + 2 * u64::from(limits.frame_bytes_max));
    // A member, its address, and two addresses that lead to it.
    let members = count(limits.members_max, 3 * (NODE_BYTES + ADDRESS_BYTES_MAX as u64));
    // In the roster, with the name as it is written and as it is compared.
    let session = NODE_BYTES + 2 * NODE_BYTES + 5 * NAME_BYTES_MAX as u64 + rooms;
    let roster = count(limits.sessions_max, session);
    let room = ROOM_BYTES_MAX as u64 + u64::from(limits.topic_bytes_max) + NAME_BYTES_MAX as u64;
    let known_rooms = count(limits.rooms_max, NODE_BYTES + room);
    let reservations = count(limits.users_max, NODE_BYTES);

    // Entries go when there are too many; origins, talks, and authors who fell silent, stay.
    let archive = limits.archive_bytes_max
        + count(limits.origins_max, ORIGIN_BYTES)
        + count(limits.authors_max, AUTHOR_BYTES)
        + count(limits.talks_max, TALK_BYTES);
    // The shortest frames that it can hold are so short that the notes on them count for more.
    let log = limits.log_bytes_max * (1 + LOG_ITEM_BYTES.div_ceil(LOG_FRAME_BYTES_MIN));
    // What waits: an entry, and a note on it that is no longer than the shortest. Floors of which
    // parts came take as much again, in lists that may have just grown.
    let waiting = 5 * limits.waiting_bytes_max;
    // On the way to storage, with a note; one frame of each connection may still come.
    let unpersisted = 2 * limits.unpersisted_bytes_max;

    connections
        + users
        + links
        + members
        + roster
        + known_rooms
        + reservations
        + archive
        + log
        + waiting
        + unpersisted
}

/// What an item of a map takes beside its texts, in bytes.
const NODE_BYTES: u64 = 96;
/// The state of a connection in machine, reader and pump, without what is counted apart.
pub(crate) const CONNECTION_BYTES: u64 = 2 << 10;
/// What a client hands back and waits for what another hands back, but for the last message.
pub(crate) const HELD_BACK_BYTES_MAX: u64 = 32 << 10;
/// A message that was accepted and is not acknowledged.
pub(crate) const UNACKNOWLEDGED_BYTES: u64 = 32;
/// The next row of a list in a catch-up.
pub(crate) const HEAD_BYTES: u64 = 96;
/// An origin, in the archive and by its value.
const ORIGIN_BYTES: u64 = 256;
/// An author, by its id and among those who fell silent.
const AUTHOR_BYTES: u64 = 192;
/// A talk, by its sessions and by origin.
const TALK_BYTES: u64 = 768;
/// What machine and driver note of each frame in the log.
const LOG_ITEM_BYTES: u64 = 48;
/// The shortest frame in the log: a room with a name of two bytes.
const LOG_FRAME_BYTES_MIN: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_memory_is_what_the_limits_say() {
        assert_eq!(memory_bytes_max(&Limits::default()), 4_039_451_864);
    }

    #[test]
    fn every_limit_that_costs_memory_counts() {
        let limits = Limits::default();
        let sum = memory_bytes_max(&limits);
        for (name, more) in [
            ("rooms", Limits { rooms_max: 5_000, ..limits.clone() }),
            ("topics", Limits { topic_bytes_max: 600, ..limits.clone() }),
            ("rooms of a session", Limits { rooms_per_session_max: 65, ..limits.clone() }),
            ("users", Limits { users_hard_max: 1_001, ..limits.clone() }),
            ("reservations", Limits { users_max: 101, ..limits.clone() }),
            ("sessions", Limits { sessions_max: 65_537, ..limits.clone() }),
            ("connections", Limits { connections_max: 8_193, ..limits.clone() }),
            ("members", Limits { members_max: 65, ..limits.clone() }),
            ("origins", Limits { origins_max: 1_537, ..limits.clone() }),
            ("talks", Limits { talks_max: 262_145, ..limits.clone() }),
            ("authors", Limits { authors_max: 65_537, ..limits.clone() }),
            ("archive", Limits { archive_bytes_max: (1 << 30) + 1, ..limits.clone() }),
            ("log", Limits { log_bytes_max: (64 << 20) + 1, ..limits.clone() }),
            ("queues", Limits { queue_bytes_max: (1 << 20) + 1, ..limits.clone() }),
            ("all queues", Limits { queued_bytes_max: (256 << 20) + 1, ..limits.clone() }),
            ("frames in part", Limits { begun_bytes_max: (64 << 20) + 1, ..limits.clone() }),
            ("what was read", Limits { read_bytes_max: (32 << 20) + 1, ..limits.clone() }),
            ("unacknowledged", Limits { unacknowledged_max: 4_097, ..limits.clone() }),
            ("unpersisted", Limits { unpersisted_bytes_max: (64 << 20) + 1, ..limits.clone() }),
            ("waiting", Limits { waiting_bytes_max: (64 << 20) + 1, ..limits.clone() }),
        ] {
            assert!(memory_bytes_max(&more) > sum, "{name}");
        }
    }

    #[test]
    fn limits_that_break_a_promise_are_refused_by_name() {
        let limits = Limits::default();
        assert_eq!(limits.validate(), Ok(()));
        for (name, wrong) in [
            ("frame_bytes_max", Limits { frame_bytes_max: 65_520, ..limits.clone() }),
            ("body_bytes_max", Limits { frame_bytes_max: 8_192, ..limits.clone() }),
            ("hello_bytes_max", Limits { hello_bytes_max: 257, ..limits.clone() }),
            ("body_bytes_max", Limits { body_bytes_max: 0, ..limits.clone() }),
            ("body_bytes_max", Limits { body_bytes_max: 60_000, ..limits.clone() }),
            ("rooms_per_session_max", Limits { rooms_per_session_max: 200, ..limits.clone() }),
            ("origins_max", Limits { origins_max: 1, ..limits.clone() }),
            ("members_max", Limits { members_max: 300, ..limits.clone() }),
            ("unacknowledged_max", Limits { unacknowledged_max: 7_000, ..limits.clone() }),
            ("catch_up_bytes_max", Limits { catch_up_bytes_max: 2 << 20, ..limits.clone() }),
            ("queued_bytes_max", Limits { queued_bytes_max: 1 << 20, ..limits.clone() }),
            ("begun_bytes_max, read_bytes_max", Limits { read_bytes_max: 1, ..limits.clone() }),
            ("log_bytes_max", Limits { log_bytes_max: 1 << 19, ..limits.clone() }),
            ("users_max", Limits { users_max: 1_001, ..limits.clone() }),
            ("connections_reserved", Limits { connections_reserved: 8_192, ..limits.clone() }),
            ("beats_missed_max", Limits { beats_missed_max: 0, ..limits.clone() }),
            ("idle_us_max", Limits { idle_us_max: SECOND_US, ..limits.clone() }),
            ("grace_us", Limits { grace_us: 0, ..limits.clone() }),
        ] {
            assert_eq!(wrong.validate().map_err(|error| error.limit), Err(name));
        }
    }
}
