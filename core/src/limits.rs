//! What bounds everything: sizes in bytes, counts, times in microseconds.

use crate::framing::{FRAME_BYTES_MAX, HELLO_BYTES_MAX};
use crate::time::{MILLI_US, SECOND_US};
use crate::wire::VECTOR_PAIRS_MAX;

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
    /// Origins in the archive; at most [`VECTOR_PAIRS_MAX`].
    pub origins_max: u32,
    /// Authors whose last number is remembered.
    pub authors_max: u32,
    /// Entries in memory, with their indexes.
    pub archive_bytes_max: u64,
    /// The log that cursors read.
    pub log_bytes_max: u64,
    /// Bytes queued for one connection outside the log.
    pub queue_bytes_max: u32,
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
