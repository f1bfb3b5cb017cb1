//! A chat server: archive, mesh, sessions, rooms and names in one machine.
//!
//! ```text
//!            frames                                   ┌────────────┐
//! client ──────────▶ sessions ── Say ──▶ entries ────▶│  archive   │
//!            attach, requests              ▲   │      └────────────┘
//!                                          │   │ Publish      │ catch-up, pages
//! peer   ──────────▶ links ──── Entry ─────┘   ▼              ▼
//!            vectors, roster               the log ──────▶ connections
//! ```
//!
//! One file a concept: `api` is what the driver sees; `sessions` attaches, `claims` decides on
//! names, `entries` takes messages in and shows them, `delivery` sends archive and
//! acknowledgements, `requests` answers questions, `links` and `replication` keep the mesh,
//! `places` has origins that ended give up theirs, `floors` makes good what cannot be replicated any more, `hand_back` what clients alone still have,
//! `presence` keeps the roster, `queues` bounds what waits for all connections, `upkeep` is what
//! time brings.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::archive::Archive;
use crate::framing::Frame;
use crate::hash::{self, ClusterKey};
use crate::ids::{Clock, ConnId, Origin, OriginRef, Position, ScopeRef, ServerId, SessionId, Tag};
use crate::limits::Limits;
use crate::log::{Audience, EVERYONE, Item};
use crate::machine::Machine;
use crate::names::COMMON_ROOM;
use crate::outbox::Outbox;
use crate::prng::Prng;
use crate::slab::Slab;
use crate::time::{SECOND_US, Time};
use crate::wire::entry::Scope;
use crate::wire::hello::Bye;
use crate::wire::peer::ServerState;
use crate::wire::{Message, Reason};

mod api;
mod claims;
mod clock;
mod conn;
mod delivery;
mod entries;
mod floors;
mod hand_back;
mod history;
mod inlet;
mod links;
mod members;
mod outlets;
mod places;
mod presence;
mod queues;
mod replication;
mod requests;
mod rooms;
mod roster;
mod sessions;
#[cfg(test)]
mod tests;
mod upkeep;
mod waiting;

pub use api::{BEGUN_BYTES_MIN, Config, DialId, Effect, Input, Source, begun_bytes};
pub use inlet::Inlet;
pub use outlets::{Outlets, Sent};

use claims::Claims;
use clock::HybridClock;
use conn::{Conn, Phase};
use members::Members;
use queues::Queues;
pub(crate) use queues::ROUND_BYTES;
use rooms::Rooms;
use roster::Roster;
use waiting::Waiting;

/// A chat server.
///
/// Give it what happens by [`Machine::handle_input`], and drain the outbox after every call; ask
/// [`Machine::poll_timeout`] when it wants to be woken. Connections are born by
/// [`accept`](Self::accept) and [`dialled`](Self::dialled), which decide on admission.
#[derive(Debug)]
pub struct ChatServer {
    config: Config,
    prng: Prng,
    id: ServerId,
    /// The present origin, and our reference for it.
    origin: Origin,
    own: OriginRef,
    cluster: Founding,
    /// Keys that went out of use when clusters met: entries tagged with them can still come back.
    old_keys: Vec<ClusterKey>,
    clock: HybridClock,
    state: ServerState,
    started: Time,
    /// How many entries came, and when the last did.
    join_progress: (u64, Time),
    archive: Archive,
    waiting: Waiting,
    conns: Slab<Conn>,
    pending: u32,
    queues: Queues,
    /// Which connection a session is attached by.
    sessions: BTreeMap<SessionId, ConnId>,
    /// The link to each server.
    links: BTreeMap<ServerId, ConnId>,
    /// Those of them that stand.
    peers: Vec<ConnId>,
    /// Clients with messages that are not acknowledged yet, and clients about to attach.
    acknowledging: Vec<ConnId>,
    attaching: Vec<ConnId>,
    /// Connections that are not read because of what is queued for them.
    paused: u32,
    members: Members,
    roster: Roster,
    rooms: Rooms,
    claims: Claims,
    /// Places kept for newcomers that were sent here, and until when.
    reservations: BTreeMap<u64, Time>,
    log: LogTail,
    storage: StorageState,
    /// What was asked for of each origin and is on its way.
    pulls: BTreeMap<OriginRef, Asked>,
    timers: Timers,
    /// Work for the end of this batch.
    soon: Soon,
    /// How a final index is known: everything up to this clock is here.
    final_clock: Clock,
    stable_told: Vec<u64>,
    /// References that were given up: since when, and where the log ended then.
    aside: VecDeque<(OriginRef, Time, Position)>,
    /// When a floor was last asked for.
    floor_asked: Option<Time>,
    stats: Stats,
    /// The time of the call under way.
    now: Time,
    soon_due: Time,
    /// Until when the others may fetch the rest of the log, once this server is about to stop.
    draining_until: Option<Time>,
    drained: bool,
    // Buffers that are used again and again.
    scratch: Vec<u64>,
    portable: Vec<u8>,
    news: Vec<(OriginRef, u64)>,
}

/// A part of an origin that was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// When it is asked for again, perhaps from another.
    again: Time,
    from: ConnId,
    /// The last number of it.
    through: u64,
}

/// Which cluster this is. Where two meet, the one founded first stays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Founding {
    founded: Clock,
    id: Tag,
    key: KeyByFounding,
}

/// Keys do not decide which founding is first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct KeyByFounding(ClusterKey);

impl PartialOrd for KeyByFounding {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyByFounding {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.0.0.cmp(&other.0.0)
    }
}

/// What the core knows of the log that the driver keeps.
#[derive(Debug, Default)]
struct LogTail {
    begin: Position,
    end: Position,
    bytes: u64,
    /// For each item: its bytes.
    items: VecDeque<u32>,
}

/// What storage was given and what it has.
#[derive(Debug, Default)]
struct StorageState {
    given: u64,
    persisted: u64,
    durable: u64,
    bytes: u64,
    /// Not yet persisted: sequence, bytes, origin, number.
    pending: VecDeque<(u64, u32, OriginRef, u64)>,
    /// By origin, the highest number persisted, and synced.
    held: Vec<u64>,
    synced: Vec<u64>,
}

#[derive(Debug)]
struct Timers {
    beat: Time,
    sweep: Time,
    stable: Time,
    second: Time,
}

/// What is done once for a whole batch of inputs, at the next timeout, which is due at once.
#[derive(Clone, Copy, Debug, Default)]
struct Soon {
    acknowledge: bool,
    tell_held: bool,
    plan_pulls: bool,
    attach: bool,
    search: bool,
}

impl Soon {
    fn any(self) -> bool {
        self.acknowledge || self.tell_held || self.plan_pulls || self.attach || self.search
    }
}

/// Counts of what happened since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Messages that clients said and that were accepted.
    pub accepted: u64,
    /// Entries shown, copies included.
    pub shown: u64,
    /// Copies of rows that were shown before.
    pub copies: u64,
    /// Entries that had to wait for what they come after.
    pub waited: u64,
    /// Ranges asked for from peers.
    pub pulls: u64,
    /// Entries sent to peers again, on linking or when asked for.
    pub resent: u64,
    /// Entries that clients handed back.
    pub returned: u64,
    /// Sessions attached that were known before.
    pub resumed: u64,
    /// Newcomers sent to another server.
    pub redirected: u64,
    /// Links that came to stand.
    pub linked: u64,
    /// Times that a peer with an equal vector had another digest: a fault.
    pub diverged: u64,
    /// Connections closed because they held most of what was queued for all, and that was too much.
    pub relieved: u64,
}

impl ChatServer {
    /// A server that has just started. `seed` is for jitter and ties.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Time) -> Self {
        let limits = &config.limits;
        let id = hash::server_id(&config.cluster, &config.advertise);
        let origin = Origin {
            server: id,
            incarnation: config.incarnation,
            nonce: match planted!(ReuseOrigin) {
                true => 0,
                false => u64::from_be_bytes(part(&config.entropy, 0)),
            },
        };
        let mut archive =
            Archive::new(limits.archive_bytes_max, limits.origins_max, limits.authors_max);
        let (own, _) = archive.define_origin(origin).expect("the first origin has a place");
        archive.scope(&Scope::Room(COMMON_ROOM));
        let mut members = Members::new(id, limits.members_max);
        for peer in config.peers.iter().filter(|peer| **peer != config.advertise) {
            members.seek(peer, now);
        }
        let cluster = Founding {
            founded: Clock(config.wall.0),
            id: Tag(part(&config.entropy, 8)),
            key: KeyByFounding(ClusterKey(part(&config.entropy, 32))),
        };
        ChatServer {
            prng: Prng::new(seed),
            id,
            origin,
            own,
            cluster,
            old_keys: Vec::new(),
            clock: HybridClock::new(now, config.wall, limits),
            state: ServerState::Joining,
            started: now,
            join_progress: (0, now),
            archive,
            waiting: Waiting::new(limits.waiting_bytes_max),
            conns: Slab::new(),
            pending: 0,
            queues: Queues::default(),
            sessions: BTreeMap::new(),
            links: BTreeMap::new(),
            peers: Vec::new(),
            acknowledging: Vec::new(),
            attaching: Vec::new(),
            paused: 0,
            members,
            roster: Roster::default(),
            rooms: Rooms::new(limits.rooms_max),
            claims: Claims::default(),
            reservations: BTreeMap::new(),
            log: LogTail::default(),
            storage: StorageState::default(),
            pulls: BTreeMap::new(),
            timers: Timers { beat: now, sweep: now, stable: now, second: now + SECOND_US },
            soon: Soon::default(),
            final_clock: Clock(0),
            stable_told: Vec::new(),
            aside: VecDeque::new(),
            floor_asked: None,
            stats: Stats::default(),
            now,
            soon_due: now,
            draining_until: None,
            drained: false,
            scratch: Vec::new(),
            portable: Vec::new(),
            news: Vec::new(),
            config,
        }
    }

    /// Decides on a connection that was accepted.
    ///
    /// # Errors
    ///
    /// Why it is refused. The driver tells the one who connected ([`Bye`]) without waiting, and
    /// closes.
    pub fn accept(
        &mut self,
        now: Time,
        source: Source,
        out: &mut Outbox<Effect>,
    ) -> Result<ConnId, Reason> {
        let limits = &self.config.limits;
        let reserved = if source.loopback { 0 } else { limits.connections_reserved };
        if self.conns.len() as u32 + reserved >= limits.connections_max {
            return Err(Reason::TooManyConnections);
        }
        if !source.loopback {
            let same = |conn: &Conn| conn.is_pending() && conn.source.address == source.address;
            let count = self.conns.iter().filter(|(_, conn)| same(conn)).count();
            if count as u32 >= limits.pending_per_source_max {
                return Err(Reason::TooManyConnections);
            }
        }
        if self.pending >= limits.pending_max {
            self.displace_pending(out);
        }
        let allowance = self.config.limits.requests_per_second_max;
        self.pending += 1;
        Ok(self.conns.insert(Conn::new(now, source, Phase::Pending, allowance)))
    }

    /// Makes place for a newer connection: one of the pending ones goes, drawn at random.
    fn displace_pending(&mut self, out: &mut Outbox<Effect>) {
        let count = self.conns.iter().filter(|(_, conn)| conn.is_pending()).count();
        let drawn = self.prng.below(count.max(1) as u64) as usize;
        let victim = self.conns.iter().filter(|(_, conn)| conn.is_pending()).nth(drawn);
        if let Some((conn, _)) = victim {
            self.close(conn, Reason::Displaced, out);
        }
    }

    /// Makes room for so many more entries, so that taking them in allocates nothing.
    pub fn reserve(&mut self, entries: usize) {
        self.archive.reserve(entries);
        self.log.items.reserve(entries);
    }

    /// Who this server is.
    #[must_use]
    pub fn id(&self) -> ServerId {
        self.id
    }

    /// Its present origin.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What it was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its archive, to be read.
    #[must_use]
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// What happened since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> ServerState {
        self.state
    }

    /// How many users are attached to it.
    #[must_use]
    pub fn users(&self) -> usize {
        self.sessions.len()
    }

    /// How many servers it is linked with.
    #[must_use]
    pub fn linked(&self) -> usize {
        self.linked_peers().count()
    }

    /// Over entries and rooms: equal on servers that hold the same.
    #[must_use]
    pub fn digest(&self) -> Tag {
        let mut parts = Vec::new();
        for (name, room) in self.rooms.iter() {
            parts.extend_from_slice(name.as_bytes());
            parts.push(0);
            parts.extend_from_slice(room.topic.as_bytes());
            parts.push(0);
        }
        self.archive.digest(&[&parts])
    }

    fn limits(&self) -> &Limits {
        &self.config.limits
    }

    // Sending.

    /// Sends a message to a connection, outside the log.
    fn send<'a, M: Message<'a>>(&mut self, conn: ConnId, message: &M, out: &mut Outbox<Effect>) {
        let bytes = out.encode(|arena| message.put_frame(arena));
        self.queue(conn, bytes.len());
        out.push(Effect::Send { conn, bytes, notify: false });
    }

    /// Appends a message to the log, for clients that see `scope`.
    fn publish<'a, M: Message<'a>>(
        &mut self,
        scope: ScopeRef,
        message: &M,
        out: &mut Outbox<Effect>,
    ) {
        let frames = out.encode(|arena| message.put_frame(arena));
        let item = Item {
            bytes: frames.len() as u32,
            scope,
            origin: OriginRef(0),
            number: 0,
            audience: Audience::Clients,
            row: false,
        };
        self.append(frames, item, out);
    }

    /// Appends to the log, and trims it.
    fn append(&mut self, frames: crate::outbox::Span, item: Item, out: &mut Outbox<Effect>) {
        let items = out.encode(|arena| item.put(arena));
        out.push(Effect::Publish { frames, items });
        self.log.end.0 += 1;
        self.log.bytes += u64::from(item.bytes);
        self.log.items.push_back(item.bytes);
        if self.log.bytes <= self.config.limits.log_bytes_max {
            return;
        }
        // A sixteenth at a time, so that trimming is rare.
        let keep = self.config.limits.log_bytes_max / 16 * 15;
        while self.log.bytes > keep {
            let Some(bytes) = self.log.items.pop_front() else { break };
            self.log.bytes -= u64::from(bytes);
            self.log.begin.0 += 1;
        }
        out.push(Effect::Trim { before: self.log.begin });
    }

    /// Says goodbye to a connection and closes it.
    fn close(&mut self, conn: ConnId, reason: Reason, out: &mut Outbox<Effect>) {
        self.close_with(conn, &Bye { reason, retry_ms: 0, next: "", detail: "" }, out);
    }

    fn close_with(&mut self, conn: ConnId, bye: &Bye<'_>, out: &mut Outbox<Effect>) {
        self.discard(conn, bye.reason, out);
        self.send(conn, bye, out);
        out.push(Effect::Close { conn, reason: bye.reason });
        self.lost(conn, out);
    }

    /// A connection is no more: whatever hung on it is let go.
    fn lost(&mut self, conn: ConnId, out: &mut Outbox<Effect>) {
        let Some(gone) = self.conns.remove(conn) else { return };
        self.paused -= u32::from(gone.paused.backlog);
        self.stop_counting(&gone);
        match gone.phase {
            Phase::Pending => self.pending -= 1,
            Phase::Dialled(dial) => self.members.dial_ended(dial, None, self.now, &mut self.prng),
            Phase::Client(client) => self.client_lost(conn, *client, out),
            Phase::Peer(peer) => self.peer_lost(conn, *peer, out),
            Phase::Observer => {}
        }
    }

    /// The links that stand.
    fn linked_peers(&self) -> impl Iterator<Item = (ConnId, &conn::Peer)> {
        self.peers.iter().filter_map(|conn| self.conns.get(*conn)?.peer().map(|peer| (*conn, peer)))
    }

    /// Does something for every link that stands. Links neither come nor go meanwhile.
    fn for_each_link(&mut self, mut each: impl FnMut(&mut Self, ConnId)) {
        for at in 0..self.peers.len() {
            let conn = self.peers[at];
            each(self, conn);
        }
    }

    /// Does something for every peer that was told everything, whether or not it has told
    /// everything itself: what changes from then on is to be told to it.
    fn for_each_told(&mut self, mut each: impl FnMut(&mut Self, ConnId)) {
        let told: Vec<ConnId> = self.links.values().copied().collect();
        for conn in told {
            each(self, conn);
        }
    }

    fn scope_of_room(&mut self, room: &str) -> ScopeRef {
        if room.is_empty() { EVERYONE } else { self.archive.scope(&Scope::Room(room)) }
    }

    /// The addresses of servers that a client can go on at.
    fn next_address(&self) -> String {
        let best = self
            .linked_peers()
            .filter(|(_, peer)| peer.state == ServerState::Active)
            .min_by_key(|(_, peer)| (peer.load, peer.server));
        best.map_or_else(String::new, |(_, peer)| peer.address.to_string())
    }
}

/// `N` bytes of the entropy from `at` on.
fn part<const N: usize>(entropy: &[u8; 64], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&entropy[at..at + N]);
    bytes
}

impl Machine for ChatServer {
    type Input<'a> = Input<'a>;
    type Effect = Effect;

    fn handle_input(&mut self, now: Time, input: Input<'_>, out: &mut Outbox<Effect>) {
        self.clock_now(now);
        self.soon_due = self.now;
        match input {
            Input::Wall(wall) => self.clock.set_wall(now, wall),
            Input::Frame { conn, frame } => self.on_frame(now, conn, frame, out),
            Input::Broken { conn, error } => {
                // First bytes that are no frame are another protocol's.
                let first = self.conns.get(conn).is_some_and(Conn::is_pending);
                let reason = if first { Reason::NotCordee } else { error.into() };
                self.close(conn, reason, out);
            }
            Input::MidFrame { conn, bytes } => self.on_mid_frame(now, conn, bytes, out),
            Input::Closed { conn } => self.lost(conn, out),
            Input::DialFailed { dial } => {
                self.members.dial_ended(dial, None, now, &mut self.prng);
            }
            Input::Drained { conn, bytes } => self.on_drained(conn, bytes, out),
            Input::Lagged { .. } if planted!(LagUnnoticed) => {}
            Input::Lagged { conn, .. } | Input::Stalled { conn } => {
                self.close(conn, Reason::SlowReader, out);
            }
            Input::Persisted { through, durable } => self.on_persisted(through, durable, out),
            Input::Drain => self.on_drain(now, out),
        }
        self.relieve(out);
    }

    fn handle_timeout(&mut self, now: Time, out: &mut Outbox<Effect>) {
        self.clock_now(now);
        self.on_time(now, out);
        self.relieve(out);
    }

    fn poll_timeout(&self) -> Option<Time> {
        let regular = self.timers.beat.min(self.timers.sweep).min(self.timers.stable);
        Some(if self.soon.any() { self.soon_due.min(regular) } else { regular })
    }

    fn check(&self) {
        self.archive.check();
        self.waiting.check();
        self.roster.check();
        self.members.check();
        self.check_connections();
    }
}

impl ChatServer {
    fn on_frame(&mut self, now: Time, id: ConnId, frame: Frame<'_>, out: &mut Outbox<Effect>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.heard = now;
        let result = match &conn.phase {
            Phase::Pending => self.on_hello(now, id, frame, out),
            Phase::Dialled(_) => self.on_welcome(id, frame, out),
            Phase::Client(_) => self.on_client_frame(now, id, frame, out),
            Phase::Peer(_) => self.on_peer_frame(now, id, frame, out),
            Phase::Observer => self.on_observer_frame(now, id, frame, out),
        };
        if let Err(reason) = result {
            self.close(id, reason, out);
        }
    }

    fn check_connections(&self) {
        let pending = self.conns.iter().filter(|(_, conn)| conn.is_pending()).count();
        assert_eq!(pending as u32, self.pending, "pending connections are counted");
        assert!(self.conns.len() as u32 <= self.limits().connections_max);
        self.queues.check(self.conns.iter().map(|(_, conn)| conn));
        assert!(self.queued_bytes() <= self.limits().queued_bytes_max, "queues are bounded");
        for (session, conn) in &self.sessions {
            let attached = self.conns.get(*conn).and_then(Conn::attached);
            let attached = attached.expect("a session's connection is attached");
            assert_eq!(attached.session, *session);
        }
        for conn in &self.peers {
            let peer = self.conns.get(*conn).and_then(Conn::peer).expect("a link's peer");
            assert!(peer.is_linked() && self.links.get(&peer.server) == Some(conn));
        }
        let paused = self.conns.iter().filter(|(_, conn)| conn.paused.backlog).count();
        assert_eq!(paused as u32, self.paused, "connections that are not read are counted");
        for (server, conn) in &self.links {
            let peer = self.conns.get(*conn).and_then(Conn::peer).expect("a link's peer");
            assert_eq!(peer.server, *server);
        }
        assert_eq!(self.log.end.0 - self.log.begin.0, self.log.items.len() as u64);
    }
}
