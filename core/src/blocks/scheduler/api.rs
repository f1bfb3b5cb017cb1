//! What a driver tells the scheduler, and what the scheduler wants done.

use core::fmt;

use crate::blocks::Layout;
use crate::wire::Reason;

/// A source, numbered by the driver: 0, 1, 2, … in the order in which they are added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SourceId(pub u32);

/// A connection to a source, numbered by the scheduler, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchConn(pub u32);

/// How a file is to be fetched.
#[derive(Clone, Debug)]
pub struct Config {
    /// How the file is cut.
    pub layout: Layout,
    /// Connections to each source; none given: one, and more to the best source while they help.
    pub connections: Option<u32>,
    /// Every connection carries one request of one block, then it is closed.
    pub connection_per_block: bool,
    /// The lowest offset first, and nothing further than `in_flight_bytes_max` ahead of the first
    /// block that is not stored. Otherwise every source has its own part of the file to begin at.
    pub sequential: bool,
    /// The most bytes per second to ask for, of all sources together; not 0.
    pub limit_rate: Option<u64>,
    /// After so long, in microseconds, without a byte from any source the whole is given up.
    pub timeout_us: u64,
    /// The most bytes asked for and neither here nor taken back, of all sources together; at
    /// least one block.
    pub in_flight_bytes_max: u64,
    /// The most requests outstanding on one connection, at least one; a source may allow fewer.
    pub requests_max: u32,
}

/// Without a byte from any source, given up after so long, in microseconds.
pub const TIMEOUT_US_DEFAULT: u64 = 60_000_000;
/// The most bytes asked for at once, unless told otherwise.
pub const IN_FLIGHT_BYTES_DEFAULT: u64 = 256 << 20;
/// The most requests outstanding on a connection, unless told otherwise.
pub const REQUESTS_DEFAULT: u32 = 32;

impl Config {
    /// The defaults for a file of this layout.
    #[must_use]
    pub fn new(layout: Layout) -> Config {
        Config {
            layout,
            connections: None,
            connection_per_block: false,
            sequential: false,
            limit_rate: None,
            timeout_us: TIMEOUT_US_DEFAULT,
            in_flight_bytes_max: IN_FLIGHT_BYTES_DEFAULT.max(layout.block_bytes().into()),
            requests_max: REQUESTS_DEFAULT,
        }
    }
}

/// What happened.
///
/// The blocks of one connection come in the order in which they were asked for. What is said of a
/// connection that is closed is taken for what it says of blocks, and ignored otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// A source may be contacted from now on.
    SourceAdded {
        /// The next number.
        source: SourceId,
    },
    /// Hello and Open are done, it is the version that was agreed on: it may be asked for blocks.
    Connected {
        /// The connection of an [`Effect::Connect`].
        conn: FetchConn,
        /// One round trip, in microseconds: of connecting, or of a hello and its answer.
        rtt_us: u64,
        /// The most requests that may wait on this connection; at least one is assumed.
        requests_max: u32,
    },
    /// Payload was read, in any portions, at least every 10 ms while bytes come, and always
    /// before a block that they complete is reported.
    Arrived {
        /// From where.
        conn: FetchConn,
        /// Bytes of blocks.
        bytes: u64,
    },
    /// A block is verified, or not to be verified, and written.
    Stored {
        /// From where.
        conn: FetchConn,
        /// Which; also one of a run that was cancelled.
        block: u64,
    },
    /// A block came whole and is not what its hash says.
    Bad {
        /// From where.
        conn: FetchConn,
        /// Which.
        block: u64,
    },
    /// A run ended before all of it came. A run that completes needs no message.
    Ended {
        /// From where.
        conn: FetchConn,
        /// Of the [`Effect::Request`].
        request: u64,
        /// How.
        end: RunEnd,
    },
    /// A connection is gone, or was never made. Whatever it had not delivered is asked of others.
    Closed {
        /// Which.
        conn: FetchConn,
        /// Why.
        fault: Fault,
    },
    /// The user does not want the file any more: everything is closed, nothing else follows.
    Cancelled,
}

/// How a run ended before all of it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunEnd {
    /// It had been taken back.
    Cancelled,
    /// The source does not want to.
    Refused {
        /// Why.
        reason: Reason,
        /// When to try again, in microseconds; 0 if it did not say.
        retry_us: u64,
    },
}

/// Why a connection is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nobody answers there.
    Unreachable,
    /// Closed or reset by the source.
    Ended,
    /// The source has too much to do.
    Busy {
        /// When to try again, in microseconds.
        retry_us: u64,
    },
    /// It said nothing for too long.
    Silent,
    /// What came is not the protocol, or not what was asked for.
    Garbage,
    /// It has another version of the file.
    OtherVersion,
    /// It has no such file.
    Unknown,
    /// It does not serve that name, or not to us.
    Forbidden,
    /// The file changed while it was read.
    Changed,
    /// It is still hashing the file.
    Hashing {
        /// When to try again, in microseconds.
        retry_us: u64,
    },
    /// The answer to [`Effect::Close`], or to [`Effect::Cancel`] where a run cannot be taken back
    /// in another way.
    Asked,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Connect, say hello, open the file: answered by `Connected` or `Closed`.
    Connect {
        /// To whom.
        source: SourceId,
        /// Stands for the connection from now on.
        conn: FetchConn,
    },
    /// Ask for a run of blocks.
    Request {
        /// Of whom.
        conn: FetchConn,
        /// Its number, different from all others.
        request: u64,
        /// The first block.
        first: u64,
        /// How many.
        count: u32,
    },
    /// Take a run back as far as it was not sent: answered by `Ended`, unless all of it came.
    Cancel {
        /// Of whom.
        conn: FetchConn,
        /// Of the [`Effect::Request`].
        request: u64,
    },
    /// Close a connection: answered by `Closed` with [`Fault::Asked`].
    Close {
        /// Which.
        conn: FetchConn,
    },
    /// A source is left out from now on.
    Drop {
        /// Which.
        source: SourceId,
        /// Why.
        why: Trouble,
    },
    /// Every block is stored. The last effect but for none.
    Done,
    /// Given up: [`sources`](super::Scheduler::sources) says what each one's trouble is.
    Failed,
}

/// What is wrong with a source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Trouble {
    /// Nobody answers there.
    Unreachable,
    /// It closes connections.
    Ended,
    /// It has too much to do.
    Busy,
    /// It says nothing.
    Silent,
    /// It does not speak the protocol.
    Garbage,
    /// It has another version of the file.
    OtherVersion,
    /// It has no such file.
    Unknown,
    /// It does not serve that name.
    Forbidden,
    /// The file changes.
    Changed,
    /// It is hashing the file.
    Hashing,
    /// It sends wrong bytes.
    Corrupt,
    /// It refuses to send blocks.
    Refused(Reason),
}

impl Trouble {
    /// Of a connection that is gone; none when we closed it.
    #[must_use]
    pub const fn of(fault: Fault) -> Option<Trouble> {
        Some(match fault {
            Fault::Unreachable => Trouble::Unreachable,
            Fault::Ended => Trouble::Ended,
            Fault::Busy { .. } => Trouble::Busy,
            Fault::Silent => Trouble::Silent,
            Fault::Garbage => Trouble::Garbage,
            Fault::OtherVersion => Trouble::OtherVersion,
            Fault::Unknown => Trouble::Unknown,
            Fault::Forbidden => Trouble::Forbidden,
            Fault::Changed => Trouble::Changed,
            Fault::Hashing { .. } => Trouble::Hashing,
            Fault::Asked => return None,
        })
    }

    /// The word that stands for it in JSON; stable.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Trouble::Unreachable => "unreachable",
            Trouble::Ended => "ended",
            Trouble::Busy => "busy",
            Trouble::Silent => "silent",
            Trouble::Garbage => "garbage",
            Trouble::OtherVersion => "other_version",
            Trouble::Unknown => "unknown",
            Trouble::Forbidden => "forbidden",
            Trouble::Changed => "changed",
            Trouble::Hashing => "hashing",
            Trouble::Corrupt => "corrupt",
            Trouble::Refused(reason) => reason.word(),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trouble::Unreachable => "nobody answers there",
            Trouble::Ended => "it closed the connection",
            Trouble::Busy => "it has too many clients",
            Trouble::Silent => "it fell silent",
            Trouble::Garbage => "it does not speak the protocol",
            Trouble::OtherVersion => "it has another version of the file",
            Trouble::Unknown => "it has no such file",
            Trouble::Forbidden => "it does not serve that name",
            Trouble::Changed => "the file changed there",
            Trouble::Hashing => "it is still hashing the file",
            Trouble::Corrupt => "it sent wrong bytes",
            Trouble::Refused(reason) => reason.text(),
        })
    }
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Of the file.
    pub blocks: u64,
    /// Stored, those that were there from the beginning among them.
    pub blocks_stored: u64,
    /// Of the file.
    pub bytes: u64,
    /// Stored, those that were there from the beginning among them.
    pub bytes_stored: u64,
    /// Payload that came in, whatever became of it.
    pub bytes_received: u64,
    /// Of blocks that came whole and had been stored already.
    pub duplicate_bytes: u64,
    /// Asked for, neither here nor taken back.
    pub in_flight_bytes: u64,
    /// What all sources together give now.
    pub bytes_per_s: u64,
}

/// What became of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceState {
    /// Is tried again a little later.
    Waiting,
    /// Is being connected to.
    Connecting,
    /// Gives blocks, or could.
    Working,
    /// Has not given what it was asked for in time.
    Suspect,
    /// Is left out.
    Dropped(Trouble),
}

/// How a source does.
#[derive(Clone, Debug)]
pub struct SourceReport<'a> {
    /// Which.
    pub source: SourceId,
    /// What it is doing.
    pub state: SourceState,
    /// Connections that stand.
    pub connections: u32,
    /// Payload that came from it.
    pub bytes: u64,
    /// Blocks that it was the first to give.
    pub blocks_stored: u64,
    /// Blocks that were wrong.
    pub blocks_bad: u64,
    /// What it gives now.
    pub bytes_per_s: u64,
    /// What was wrong with it, in the order of the first time, and how often.
    pub troubles: &'a [(Trouble, u32)],
}
