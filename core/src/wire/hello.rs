//! What every connection begins and ends with.

use alloc::vec::Vec;

use super::{ADDRESS_BYTES_MAX, Field, Fixed64, Reader, Reason, WireError, wire, wire_enum};
use crate::ids::{Origin, ServerId, Tag};

/// The longest name of a cluster, in bytes: with it a hello is as short as it has to be.
pub const CLUSTER_BYTES_MAX: usize = 64;

/// The first bytes of every hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Magic;

impl Magic {
    /// The bytes.
    pub const BYTES: [u8; 4] = *b"CRDE";
}

impl Field<'_> for Magic {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&Self::BYTES);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        match from.bytes(4) {
            Ok(bytes) if bytes == Self::BYTES => Ok(Magic),
            _ => Err(WireError::NotCordee),
        }
    }
}

wire_enum! {
    /// What the one who connects is.
    Role {
        /// A client: it will attach a session, now or when its server dies.
        Client = 0,
        /// Another server of the cluster.
        Peer = 1,
        /// Someone who asks how things stand, or an operator.
        Observer = 2,
        /// Someone who fetches files from a block server.
        Fetcher = 3,
    }
    /// How the bytes after the hello travel.
    Transport {
        /// As they are.
        Plain = 0,
        /// Encrypted, each frame one message of the Noise protocol. Reserved.
        Noise = 1,
    }
}

wire! {
    /// The first frame of whoever connects; at most 256 bytes, header and all.
    [0x01] Hello<'a> {
        /// Says that this is our protocol.
        magic: Magic,
        /// Versions of different major numbers do not talk.
        major: u16,
        /// The sender's minor version.
        minor: u16,
        /// What the sender is.
        role: Role,
        /// How the rest will travel.
        transport: Transport,
        /// Which secret the sender uses; 0 without one.
        key_id: Fixed64,
        /// The cluster's name.
        cluster: &'a str[..=CLUSTER_BYTES_MAX],
    }

    /// The answer to a hello that is welcome. From now on frames may have their full length.
    [0x02] Welcome<'a> {
        /// The answerer's minor version.
        minor: u16,
        /// Who answers.
        server: ServerId,
        /// Its present origin.
        origin: Origin,
        /// The cluster's id.
        cluster_id: Tag,
        /// The address that it advertises.
        address: &'a str[..=ADDRESS_BYTES_MAX],
        /// The longest body of a message, in bytes.
        body_bytes_max: u32,
        /// How often clients are expected to ping, in milliseconds.
        ping_ms: u32,
    }

    /// The last frame of a connection: why it ends, and where to go.
    [0x03] Bye<'a> {
        /// Why.
        reason: Reason,
        /// When to try again, in milliseconds; 0 for at once.
        retry_ms: u32,
        /// Where to go on; empty for the next in the ring.
        next: &'a str[..=ADDRESS_BYTES_MAX],
        /// More for people to read than the reason's own sentence; may be empty.
        detail: &'a str,
    }

    /// Asks for a sign of life.
    [0x04] Ping {
        /// Comes back in the pong.
        nonce: u64,
    }

    /// The answer to a ping.
    [0x05] Pong {
        /// As in the ping.
        nonce: u64,
    }
}
