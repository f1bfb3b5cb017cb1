//! What happens in a world, and between whom.

use cordee_core::chat::client::LinkId;
use cordee_core::chat::server::DialId;
use cordee_core::ids::ConnId;
use cordee_core::time::Time;

use crate::pipe::Pipe;

/// Who is at an end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// A server, by number and start; the connection's id once it has one.
    Node {
        node: usize,
        start: u64,
        conn: Option<ConnId>,
    },
    Client(usize),
    Real(usize, LinkId),
    Raw(usize),
    Nobody,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Node { node, .. } => write!(f, "s{node}"),
            End::Client(client) => write!(f, "client {client}"),
            End::Real(real, _) => write!(f, "real client {real}"),
            End::Raw(raw) => write!(f, "stranger {raw}"),
            End::Nobody => write!(f, "nobody"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) ends: [End; 2],
    /// From each end to the other.
    pub(crate) pipes: [Pipe; 2],
}

#[derive(Debug, Default)]
pub(crate) struct Raw {
    pub(crate) wire: Option<usize>,
    pub(crate) received: Vec<u8>,
    pub(crate) over: bool,
    pub(crate) reads: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Something may have arrived that was sent from this side of a connection.
    Arrive {
        wire: usize,
        side: usize,
    },
    Accept {
        wire: usize,
    },
    Dialled {
        node: usize,
        start: u64,
        dial: DialId,
        wire: usize,
    },
    DialFailed {
        node: usize,
        start: u64,
        dial: DialId,
    },
    /// A server's connection request reaches another.
    Reach {
        node: usize,
        start: u64,
        dial: DialId,
        target: usize,
    },
    Timer {
        node: usize,
        start: u64,
    },
    Persisted {
        node: usize,
        start: u64,
        through: u64,
    },
    Writable {
        node: usize,
        start: u64,
        conn: ConnId,
    },
    ForceClose {
        node: usize,
        start: u64,
        conn: ConnId,
    },
    ClientTimer {
        client: usize,
    },
    ClientReach {
        client: usize,
        attempt: u64,
        target: Option<usize>,
    },
    ClientRefused {
        client: usize,
        attempt: u64,
    },
    RealTimer {
        real: usize,
    },
    RealReach {
        real: usize,
        link: LinkId,
        target: Option<usize>,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) at: Time,
    pub(crate) tie: u64,
    pub(crate) number: u64,
    pub(crate) event: Event,
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.tie, self.number).cmp(&(other.at, other.tie, other.number))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
