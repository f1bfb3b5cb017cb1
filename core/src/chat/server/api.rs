//! What a chat server is told, and what it wants done.

use alloc::string::String;
use alloc::vec::Vec;

use crate::framing::Frame;
use crate::ids::{ConnId, OriginRef, Position, ScopeRef};
use crate::limits::Limits;
use crate::outbox::Span;
use crate::time::Wall;
use crate::wire::{Reason, WireError};

/// What a server is told when it starts. The driver draws what must be unguessable.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name.
    pub cluster: String,
    /// The address under which others reach this server, `host:port`.
    pub advertise: String,
    /// Members to link with; more are learned from them.
    pub peers: Vec<String>,
    /// How many servers hold an entry before it is acknowledged, this one included; fewer when
    /// fewer live.
    pub copies: u8,
    /// Whether a user may crash the server.
    pub allow_kill: bool,
    /// The process that serves, for the status.
    pub pid: u32,
    /// One more than the highest incarnation on disk; 1 without.
    pub incarnation: u32,
    /// Unguessable bytes: nonce of the origin, cluster id and key in case this server founds the
    /// cluster.
    pub entropy: [u8; 64],
    /// The wall clock at the start.
    pub wall: Wall,
    /// What bounds everything.
    pub limits: Limits,
}

impl Config {
    /// A server that knows of no others, with defaults for everything else.
    #[must_use]
    pub fn new(
        cluster: impl Into<String>,
        advertise: impl Into<String>,
        entropy: [u8; 64],
        wall: Wall,
    ) -> Self {
        Config {
            cluster: cluster.into(),
            advertise: advertise.into(),
            peers: Vec::new(),
            copies: 2,
            allow_kill: false,
            pid: 0,
            incarnation: 1,
            entropy,
            wall,
            limits: Limits::default(),
        }
    }
}

/// Where a connection comes from, for limits by address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// The IPv6 address, or the IPv4 address mapped into IPv6; without the port.
    pub address: u128,
    /// Whether it is this machine.
    pub loopback: bool,
}

/// What is held of a frame that is not whole counts as so much, or as a power of two above it.
pub const BEGUN_BYTES_MIN: u32 = 4 << 10;

/// How much is held of a frame of which `held` bytes came, for [`Input::MidFrame`].
#[must_use]
pub fn begun_bytes(held: usize) -> u32 {
    if held == 0 { 0 } else { (held.next_power_of_two() as u32).max(BEGUN_BYTES_MIN) }
}

/// A dial that the machine asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DialId(pub u64);

/// What can happen to a server.
#[derive(Debug)]
pub enum Input<'a> {
    /// The wall clock reads this now. Given before frames, at most once a batch.
    Wall(Wall),
    /// A whole frame came.
    Frame {
        /// On which connection.
        conn: ConnId,
        /// The frame.
        frame: Frame<'a>,
    },
    /// What came is no frame; nothing more will come of it.
    Broken {
        /// On which connection.
        conn: ConnId,
        /// What is wrong.
        error: WireError,
    },
    /// A frame came in part, or is whole.
    MidFrame {
        /// On which connection.
        conn: ConnId,
        /// How much is held of a frame that is not whole, rounded up to a power of two of at
        /// least [`BEGUN_BYTES_MIN`]; 0 when there is none. To be said when it changes.
        bytes: u32,
    },
    /// The stream ended or failed. The id is void afterwards.
    Closed {
        /// Which connection.
        conn: ConnId,
    },
    /// A dial failed.
    DialFailed {
        /// Which.
        dial: DialId,
    },
    /// Bytes of [`Effect::Send`], [`Effect::SendStamped`] and [`Effect::SendAt`] left for the network.
    Drained {
        /// On which connection.
        conn: ConnId,
        /// How many, since this was last said.
        bytes: u32,
    },
    /// The log no longer holds what a connection's cursor reads next. The driver dropped the
    /// cursor; the connection is fed from the archive again.
    Lagged {
        /// Which connection.
        conn: ConnId,
        /// What its cursor passed ([`crate::log::Cursor::passed`]).
        passed: &'a [(OriginRef, u64)],
    },
    /// A connection with something to send took no byte for `stall_us_max`.
    Stalled {
        /// Which connection.
        conn: ConnId,
    },
    /// Storage has everything up to this sequence number.
    Persisted {
        /// As in [`Effect::Persist`].
        through: u64,
        /// Whether it is synced.
        durable: bool,
    },
    /// The operator wants an orderly end.
    Drain,
}

/// What a server wants done. Spans are of the outbox's arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send these frames as soon as possible, whatever the connection's cursor does.
    Send {
        /// To whom.
        conn: ConnId,
        /// Whole frames.
        bytes: Span,
        /// Say [`Input::Drained`] as soon as they left, not when it suits.
        notify: bool,
    },
    /// Send this frame as soon as possible, with the cursor's MT written, big endian, over the
    /// first eight bytes of its payload (0 when there is no cursor: then the bytes stay).
    SendStamped {
        /// To whom.
        conn: ConnId,
        /// One whole frame.
        bytes: Span,
    },
    /// Send these frames when the connection's cursor stands at `at`, before what is there. Comes
    /// after [`Effect::Follow`] for that connection, and in ascending order of `at`.
    SendAt {
        /// To whom.
        conn: ConnId,
        /// Where in the log.
        at: Position,
        /// Whole frames.
        bytes: Span,
    },
    /// Append to the log.
    Publish {
        /// The frames.
        frames: Span,
        /// What is known of each, for [`crate::log::Items`].
        items: Span,
    },
    /// Nothing before this position is needed in the log any more.
    Trim {
        /// The first position that is.
        before: Position,
    },
    /// Make a cursor for the connection that reads the log from here on. What was sent to it by
    /// [`Effect::Send`] before goes first.
    Follow {
        /// Which connection.
        conn: ConnId,
        /// From where; never before what was trimmed.
        from: Position,
        /// Whether it is a peer.
        peer: bool,
        /// Rows transferred before.
        mt: u64,
    },
    /// Stop following: drop the cursor, and what is queued by [`Effect::SendAt`].
    Unfollow {
        /// Which connection.
        conn: ConnId,
    },
    /// Let the connection's cursor see a scope from a position on.
    Show {
        /// Which connection.
        conn: ConnId,
        /// What.
        scope: ScopeRef,
        /// From where. At or after the cursor.
        at: Position,
        /// Add this to MT there: rows of the scope that were transferred otherwise.
        mt: u64,
    },
    /// Hide a scope from the connection's cursor from a position on.
    Hide {
        /// Which connection.
        conn: ConnId,
        /// What.
        scope: ScopeRef,
        /// From where. At or after the cursor.
        at: Position,
        /// Take this from MT there: the rows of the scope before `at`.
        mt: u64,
    },
    /// Connect to a member. Answered by [`ChatServer::dialled`](super::ChatServer::dialled) or
    /// [`Input::DialFailed`].
    Dial {
        /// Which dial.
        dial: DialId,
        /// The address, `host:port`, UTF-8.
        address: Span,
    },
    /// Give to storage. Answered by [`Input::Persisted`], which may cover several.
    Persist {
        /// Ascending.
        sequence: u64,
        /// One entry as [`crate::wire::entry::Portable`] and its tag.
        bytes: Span,
    },
    /// Do not read from this connection until told.
    Pause {
        /// Which connection.
        conn: ConnId,
    },
    /// Read from this connection again.
    Unpause {
        /// Which connection.
        conn: ConnId,
    },
    /// Drop what is queued for the connection, but for the rest of a frame that has left in part;
    /// it follows the log no more. Comes before its [`Effect::Close`].
    Discard {
        /// Which connection.
        conn: ConnId,
    },
    /// Send what was queued by [`Effect::Send`] for at most a second, then close. The id is void
    /// at once, no [`Input::Closed`] is expected.
    Close {
        /// Which connection.
        conn: ConnId,
        /// Why, for the driver's log.
        reason: Reason,
    },
    /// Die at once, as by a crash: a user rehearses one.
    Crash,
    /// The drain is over: stop.
    Stopped,
}
