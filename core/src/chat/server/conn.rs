//! What the server knows of each connection.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use super::api::{DialId, Source};
use crate::archive::{CatchUp, EntryId, Floor, Sums};
use crate::ids::{AuthorId, Clock, Origin, OriginRef, Position, ScopeRef, ServerId, SessionId};
use crate::limits::{CONNECTION_BYTES, UNACKNOWLEDGED_BYTES};
use crate::time::Time;
use crate::wire::chat::Intent;
use crate::wire::peer::ServerState;

/// A connection, from its first moment to its last.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) source: Source,
    pub(super) opened: Time,
    /// When bytes last came.
    pub(super) heard: Time,
    /// Since when a frame is incomplete, and how many bytes of it are there.
    pub(super) begun: Option<(Time, u32)>,
    /// Bytes queued outside the log and not yet drained.
    pub(super) queued: u32,
    /// Requests that may still be made before the connection is not read for a while.
    pub(super) allowance: u32,
    pub(super) paused: Paused,
    pub(super) phase: Phase,
}

/// Why a connection is not read; it is read when no reason is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Paused {
    /// Too many requests in this second.
    pub(super) requests: bool,
    /// Too much is queued for it, or too much of what it said is not acknowledged.
    pub(super) backlog: bool,
}

impl Paused {
    pub(super) fn any(self) -> bool {
        self.requests || self.backlog
    }
}

/// What a connection is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Accepted; no hello came yet.
    Pending,
    /// Dialled; no welcome came yet.
    Dialled(DialId),
    /// A client, attached or not.
    Client(Box<Client>),
    /// Another server.
    Peer(Box<Peer>),
    /// Someone who asks how things stand.
    Observer,
}

/// A client's connection.
#[derive(Debug)]
pub(super) enum Client {
    /// No session: a standby, or one that must choose another name.
    Idle,
    /// Its name is being claimed.
    Claiming(Request),
    /// What it saw and we lack is on its way from a peer, until the deadline at the latest.
    Awaiting(Request, Time),
    /// It hands back what nobody else has.
    Returning(Request, HandBack),
    /// Attached.
    Attached(Attached),
}

/// What a client hands back, as far as it came.
#[derive(Debug)]
pub(super) struct HandBack {
    /// Until when more of it is awaited; once all came, what was held up is taken in then.
    pub(super) deadline: Time,
    /// Until when all of it must have come.
    pub(super) latest: Time,
    /// Whether all came.
    pub(super) whole: bool,
    /// Messages ([`Return`](crate::wire::chat::Return)) from the first on that an earlier one of
    /// its author is lacking for: its author may be about to hand that back. In their order.
    pub(super) held: VecDeque<Vec<u8>>,
    pub(super) held_bytes: usize,
}

/// What a client asked for when it attached.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) session: SessionId,
    pub(super) process: u64,
    pub(super) attachment: u32,
    pub(super) intent: Intent,
    pub(super) name: String,
    pub(super) claim: Clock,
    pub(super) rooms: Vec<String>,
    pub(super) seen: Vec<(Origin, u64)>,
    pub(super) partial: Vec<(String, Vec<(Origin, u64)>)>,
    /// The last number that it gave to a message of its own.
    pub(super) said: u64,
}

/// An attached session.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) session: SessionId,
    pub(super) author: AuthorId,
    /// Messages up to this number may have been accepted elsewhere.
    pub(super) said_before: u64,
    pub(super) name: String,
    /// Its rooms, normalised and sorted.
    pub(super) rooms: Vec<String>,
    /// What it may see: rooms and talks, sorted. Those being backfilled are not among them.
    pub(super) scopes: Vec<ScopeRef>,
    pub(super) feed: Feed,
    pub(super) backfills: VecDeque<Backfill>,
    /// Accepted and not acknowledged, in the author's order.
    pub(super) unacknowledged: VecDeque<Unacknowledged>,
    /// Whether it is on the list of those that wait for acknowledgements.
    pub(super) is_acknowledging: bool,
    pub(super) search: Option<Search>,
    /// A new name that is being claimed, and the request to answer.
    pub(super) renaming: Option<u64>,
}

/// How a client gets its entries.
#[derive(Debug)]
pub(super) enum Feed {
    /// From the archive, up to what was shown at `position`; then from the log.
    CatchUp {
        catch_up: Box<CatchUp>,
        position: Position,
        /// Rows transferred so far.
        mt: u64,
        /// Rows that the client's vector covers when the catch-up is over.
        mt_then: u64,
    },
    /// From the log.
    Log,
}

/// A room that was joined: its archive is on the way.
#[derive(Debug)]
pub(super) struct Backfill {
    pub(super) room: String,
    pub(super) scope: ScopeRef,
    pub(super) catch_up: Option<Box<CatchUp>>,
    /// What the client has of the room: as pairs, which take no more than the frame in which they
    /// came, as several may wait.
    pub(super) seen: Vec<(OriginRef, u64)>,
}

/// A message that was accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unacknowledged {
    pub(super) author_number: u64,
    pub(super) origin: OriginRef,
    pub(super) number: u64,
    /// Its index when it was accepted.
    pub(super) index: u64,
}

/// A search under way: a part of the archive is looked through at a time.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) request: u64,
    /// In lower case.
    pub(super) words: Vec<String>,
    /// Where to go on, towards older entries.
    pub(super) before: Option<EntryId>,
    pub(super) started: bool,
    pub(super) found: Vec<EntryId>,
}

/// A link to another server.
#[derive(Debug)]
pub(super) struct Peer {
    /// Our dial, when we dialled.
    pub(super) dial: Option<DialId>,
    /// Whether it was this server that dialled.
    pub(super) dialled_here: bool,
    pub(super) stage: Stage,
    pub(super) server: ServerId,
    pub(super) origin: Origin,
    pub(super) address: String,
    pub(super) state: ServerState,
    /// What each of the peer's references stands for.
    pub(super) refs: Vec<Option<PeerRef>>,
    /// What the peer holds, by our references.
    pub(super) held: Vec<u64>,
    /// What we told the peer that we hold.
    pub(super) told: Vec<u64>,
    /// What the peer held when it linked: a server that joins is in step when it has that.
    pub(super) held_at_link: Vec<u64>,
    /// Sending our own log up to where the live log begins: next number, last number, position.
    pub(super) push: Option<Push>,
    /// Up to where the peer was asked for entries, by our references.
    pub(super) asked: Vec<u64>,
    /// What the peer asked for: origin, next number, last number.
    pub(super) pulls: VecDeque<(OriginRef, u64, u64)>,
    pub(super) load: u32,
    pub(super) limit: u32,
    /// Whom it hears.
    pub(super) hears: Vec<(ServerId, Time)>,
    /// Its pasts, by server.
    pub(super) pasts: BTreeMap<ServerId, PeerPast>,
    /// A floor of which parts came, and the bytes of these.
    pub(super) floor: Floor,
    pub(super) floor_bytes: u64,
    /// When our floor was sent to it.
    pub(super) floor_sent: Option<Time>,
    /// A clock that it announced, with what it held then: final once we hold that.
    pub(super) announced: Option<(Clock, Vec<u64>)>,
}

/// The past of a server, as a peer has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerPast {
    pub(super) through: Origin,
    pub(super) sums: Sums,
    /// Whether nothing of it is lacking here.
    pub(super) settled: bool,
}

/// What a peer's reference stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerRef {
    pub(super) origin: Origin,
    /// Our reference, once something was heard of an entry of it: most starts never write one, and
    /// those take no place.
    pub(super) ours: Option<OriginRef>,
}

/// How far a link has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// The other's introduction is awaited.
    Greeting,
    /// Both were introduced; what the other holds is being told.
    Syncing,
    /// Everything was told.
    Linked,
}

/// The part of our own log that a peer lacks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Push {
    pub(super) origin: OriginRef,
    pub(super) next: u64,
    pub(super) last: u64,
    pub(super) position: Position,
}

const _: () = {
    let client = size_of::<Conn>() + size_of::<Client>();
    let peer = size_of::<Conn>() + size_of::<Peer>();
    assert!(client as u64 <= CONNECTION_BYTES && peer as u64 <= CONNECTION_BYTES);
    assert!(size_of::<Unacknowledged>() as u64 <= UNACKNOWLEDGED_BYTES);
};

impl Client {
    /// The session that is being attached.
    pub(super) fn arriving(&self) -> Option<SessionId> {
        match self {
            Client::Claiming(request)
            | Client::Awaiting(request, _)
            | Client::Returning(request, ..) => Some(request.session),
            Client::Idle | Client::Attached(_) => None,
        }
    }
}

impl Conn {
    pub(super) fn new(now: Time, source: Source, phase: Phase, allowance: u32) -> Self {
        Conn {
            source,
            opened: now,
            heard: now,
            begun: None,
            queued: 0,
            allowance,
            paused: Paused::default(),
            phase,
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        matches!(self.phase, Phase::Pending)
    }

    pub(super) fn attached(&self) -> Option<&Attached> {
        match &self.phase {
            Phase::Client(client) => match &**client {
                Client::Attached(attached) => Some(attached),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn attached_mut(&mut self) -> Option<&mut Attached> {
        match &mut self.phase {
            Phase::Client(client) => match &mut **client {
                Client::Attached(attached) => Some(attached),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn peer(&self) -> Option<&Peer> {
        match &self.phase {
            Phase::Peer(peer) => Some(peer),
            _ => None,
        }
    }

    pub(super) fn peer_mut(&mut self) -> Option<&mut Peer> {
        match &mut self.phase {
            Phase::Peer(peer) => Some(peer),
            _ => None,
        }
    }
}

impl Peer {
    pub(super) fn new(dial: Option<DialId>) -> Self {
        Peer {
            dialled_here: dial.is_some(),
            dial,
            stage: Stage::Greeting,
            server: ServerId(0),
            origin: Origin::default(),
            address: String::new(),
            state: ServerState::Joining,
            refs: Vec::new(),
            held: Vec::new(),
            told: Vec::new(),
            held_at_link: Vec::new(),
            push: None,
            asked: Vec::new(),
            pulls: VecDeque::new(),
            load: 0,
            limit: 0,
            hears: Vec::new(),
            pasts: BTreeMap::new(),
            floor: Floor::default(),
            floor_bytes: 0,
            floor_sent: None,
            announced: None,
        }
    }

    pub(super) fn is_linked(&self) -> bool {
        self.stage == Stage::Linked
    }

    /// The highest number of `origin` that the peer is known to hold.
    pub(super) fn holds(&self, origin: OriginRef) -> u64 {
        at(&self.held, origin)
    }
}

/// The number of `origin` in a vector by reference; 0 for what it does not reach.
pub(super) fn at(vector: &[u64], origin: OriginRef) -> u64 {
    vector.get(origin.0 as usize).copied().unwrap_or(0)
}

/// Raises the number of `origin` in a vector by reference. Returns whether it rose.
pub(super) fn raise(vector: &mut Vec<u64>, origin: OriginRef, number: u64) -> bool {
    let index = origin.0 as usize;
    if vector.len() <= index {
        vector.resize(index + 1, 0);
    }
    let rose = vector[index] < number;
    if rose {
        vector[index] = number;
    }
    rose
}
