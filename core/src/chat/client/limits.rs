//! What bounds a client.

use super::rows::TAKEN_BYTES;
use crate::framing::FRAME_BYTES_MAX;
use crate::names::{NAME_BYTES_MAX, ROOM_BYTES_MAX};
use crate::time::{MILLI_US, SECOND_US};

/// The limits of a client. Every queue, map and set of it is bounded by one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// The longest frame, header and all; at most [`FRAME_BYTES_MAX`].
    pub frame_bytes_max: u32,
    /// Messages said and not acknowledged, and commands that wait for the first connection.
    pub unacknowledged_max: u32,
    /// Their bodies, in bytes.
    pub unacknowledged_bytes_max: u32,
    /// Requests under way.
    pub requests_max: u32,
    /// Parts of answers that are not whole yet, in bytes.
    pub answer_bytes_max: u32,
    /// Users known.
    pub users_max: u32,
    /// Rooms known in the cluster.
    pub rooms_max: u32,
    /// Rooms that this session is in.
    pub own_rooms_max: u32,
    /// Servers known.
    pub servers_max: u32,
    /// Origins known.
    pub origins_max: u32,
    /// Authors by room or talk whose last number is remembered.
    pub authors_max: u32,
    /// Entries kept to be handed back, in bytes.
    pub store_bytes_max: u32,
    /// Bytes given to one connection and not yet drained, beyond which nothing is handed back.
    pub queue_bytes_max: u32,
    /// Redirects on the way to one attachment.
    pub hops_max: u8,
    /// Pings that may be missed before a connection is dead.
    pub misses_max: u8,
    /// How often to ping until a server says, in microseconds.
    pub ping_us: u64,
    /// From asking for a connection to its being open, and again to its welcome.
    pub open_us_max: u64,
    /// From asking for an attachment to the answer.
    pub attach_us_max: u64,
    /// The first wait after nobody answered.
    pub retry_first_us: u64,
    /// The longest wait after nobody answered.
    pub retry_us_max: u64,
    /// For how long a user whom a new server does not know may still come.
    pub missing_us_max: u64,
}

impl Default for ClientLimits {
    fn default() -> Self {
        ClientLimits {
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            unacknowledged_max: 4_096,
            unacknowledged_bytes_max: 4 << 20,
            requests_max: 256,
            answer_bytes_max: 32 << 20,
            users_max: 65_536,
            rooms_max: 4_096,
            own_rooms_max: 64,
            servers_max: 64,
            origins_max: 8_192,
            authors_max: 131_072,
            store_bytes_max: 8 << 20,
            queue_bytes_max: 256 << 10,
            hops_max: 8,
            misses_max: 3,
            ping_us: 500 * MILLI_US,
            open_us_max: 2 * SECOND_US,
            attach_us_max: 30 * SECOND_US,
            retry_first_us: 50 * MILLI_US,
            retry_us_max: 5 * SECOND_US,
            missing_us_max: 30 * SECOND_US,
        }
    }
}

/// The most memory that a client with these limits holds on to, in bytes: every queue, map and
/// set at its limit, with its nodes and keys.
#[must_use]
pub fn memory_bytes_max(limits: &ClientLimits) -> u64 {
    let count = |number: u32, bytes: u64| u64::from(number) * bytes;
    let room_bytes = ROOM_BYTES_MAX as u64 + NODE_BYTES;
    let name_bytes = NAME_BYTES_MAX as u64;
    // What was said, and what waits to be; numbers and addressees beside the bodies.
    count(limits.unacknowledged_bytes_max, 1)
        + count(limits.unacknowledged_max, NODE_BYTES + room_bytes)
        // Requests, with a topic each, and their answers.
        + count(limits.requests_max, NODE_BYTES + room_bytes + 1_024)
        + count(limits.answer_bytes_max, 2)
        // The roster twice, while a new list comes, and the names in their comparable form.
        + count(limits.users_max, 2 * (NODE_BYTES + name_bytes))
        + count(limits.users_max, 2 * count(limits.own_rooms_max, 4))
        + count(limits.users_max, NODE_BYTES + 4 * name_bytes)
        + count(limits.users_max, NODE_BYTES)
        + count(limits.rooms_max, 2 * room_bytes + 512)
        // Own rooms, each with a vector; and three vectors and a table for all.
        + count(limits.own_rooms_max, room_bytes + count(limits.origins_max, 8))
        + count(limits.origins_max, 3 * 8 + NODE_BYTES + 32)
        // Three connections with a table each way.
        + 3 * count(limits.origins_max, 16)
        // Rows, and those that were shown before.
        + count(limits.authors_max, 2 * (NODE_BYTES + TAKEN_BYTES))
        // The store, a chunk that is not full, and one to spare.
        + count(limits.store_bytes_max, 1)
        + 4 * u64::from(limits.frame_bytes_max)
        + count(limits.servers_max, NODE_BYTES + 256)
}

/// What an item of a map or queue takes beside its text, in bytes.
const NODE_BYTES: u64 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_memory_is_what_the_limits_say() {
        assert_eq!(memory_bytes_max(&ClientLimits::default()), 224_821_180);
    }
}
