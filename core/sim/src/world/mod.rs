//! The world: servers, clients, connections, time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use cordee_core::chat::server::DialId;
use cordee_core::ids::{AuthorId, SessionId};
use cordee_core::time::{MILLI_US, SECOND_US, Time};
use cordee_core::wire::chat;
use cordee_core::wire::entry::Scope;
use cordee_core::{Limits, Machine};

use crate::client::{Action, Client, parse_scope};
use crate::draw::Draw;
use crate::history::{Expected, History};
use crate::node::{Node, Setup};
use crate::pipe::Pipe;
use crate::real::Real;
use crate::rule::{Rule, holds};

mod event;
mod people;
mod sight;
mod strangers;
mod wires;

pub(crate) use event::{End, Event, Queued, Raw, Wire};

/// How a world is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many servers.
    pub servers: usize,
    /// Servers that are started at once; the others when the script says so.
    pub started: usize,
    /// Whether each server is told of all others; otherwise of the first alone.
    pub all_known: bool,
    /// Least latency and jitter of a piece of a stream, in microseconds.
    pub latency_us: (u64, u64),
    /// Least time of storage and jitter, in microseconds.
    pub persist_us: (u64, u64),
    /// Copies to be acknowledged.
    pub copies: u8,
    /// Whether users may crash servers.
    pub allow_kill: bool,
    /// Whether all connections come from the same machine.
    pub loopback: bool,
    /// Whether all servers draw the same key for tags, as if it came from a secret. Otherwise a
    /// server that starts alone does not know what others accepted.
    pub shared_key: bool,
    /// What bounds the servers.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            servers: 5,
            started: usize::MAX,
            all_known: true,
            latency_us: (100, 400),
            persist_us: (20, 200),
            copies: 2,
            allow_kill: false,
            loopback: true,
            shared_key: true,
            limits: Limits::default(),
        }
    }
}

/// How a link between two servers is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Bytes no longer arrive, in either direction; new connections hang.
    Stall,
    /// Connections are reset, new ones refused.
    Reset,
}

/// A connection of a script that writes bytes of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawId(pub(crate) usize);

/// A client and its connection.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) client: Client,
    pub(crate) wire: Option<usize>,
    pub(crate) attempt: u64,
    timer: Option<Time>,
    pub(crate) reads: bool,
    /// Since when it reads, or does not.
    reads_since: Time,
}

/// Everything: see the crate's page.
#[derive(Debug)]
pub struct World {
    pub(crate) now: Time,
    pub(crate) options: Options,
    pub(crate) draw: Draw,
    queue: BinaryHeap<Reverse<Queued>>,
    count: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) seats: Vec<Seat>,
    pub(crate) reals: Vec<Real>,
    pub(crate) raws: Vec<Raw>,
    pub(crate) wires: Vec<Wire>,
    pub(crate) cuts: BTreeMap<(usize, usize), Cut>,
    /// From the first to the second nothing arrives.
    pub(crate) deaf: BTreeSet<(usize, usize)>,
    /// Servers that never come back.
    pub(crate) dead: BTreeSet<usize>,
    /// Connections on which nothing arrives.
    pub(crate) stalled: BTreeSet<usize>,
    /// When something was last done to the world that is no one's ordinary business.
    pub(crate) disturbed: Option<Time>,
    /// Entries that servers which are no more had sent again.
    pub(crate) resent_before: u64,
    /// Events since time last passed.
    at_once: u32,
    /// How much happened.
    pub counts: Counts,
    /// The story of the run, when somebody wants to read it.
    pub(crate) story: Option<Vec<(Time, String)>>,
    /// What must hold over the run.
    pub history: History,
    hash: u64,
}

/// How much happened in a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Events, one hash step each.
    pub events: u64,
    /// Inputs that servers were given.
    pub inputs: u64,
    /// The most effects that an input had.
    pub effects_max: usize,
}

/// The cluster's name in every world.
pub(crate) const CLUSTER: &str = "rope";
/// So many events at one moment are too many.
const AT_ONCE_MAX: u32 = 1_000_000;
/// A server with less than this for its archive keeps less than is said.
const WHOLE_BYTES: u64 = 1 << 30;
/// What a connection request takes that nobody answers.
const CONNECT_US: u64 = 2 * SECOND_US;

impl World {
    /// A world whose servers are started at once.
    #[must_use]
    pub fn new(seed: u64, options: Options) -> Self {
        let addresses: Vec<String> = (0..options.servers).map(address).collect();
        let nodes = (0..options.servers)
            .map(|index| {
                let peers = if options.all_known { &addresses[..] } else { &addresses[..1] };
                Node::new(Setup {
                    address: address(index),
                    peers: peers.to_vec(),
                    copies: options.copies,
                    allow_kill: options.allow_kill,
                    ahead_us: 0,
                    fast_ppm: 0,
                    shared_key: options.shared_key,
                    limits: options.limits.clone(),
                })
            })
            .collect();
        let mut world = World {
            now: Time(1),
            draw: Draw::new(seed),
            queue: BinaryHeap::new(),
            count: 0,
            nodes,
            seats: Vec::new(),
            reals: Vec::new(),
            raws: Vec::new(),
            wires: Vec::new(),
            cuts: BTreeMap::new(),
            deaf: BTreeSet::new(),
            dead: BTreeSet::new(),
            stalled: BTreeSet::new(),
            disturbed: None,
            resent_before: 0,
            at_once: 0,
            counts: Counts::default(),
            story: None,
            history: History::default(),
            hash: seed,
            options,
        };
        for node in 0..world.options.servers.min(world.options.started) {
            world.start(node);
        }
        world
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// A hash over every event so far: the same seed and script, the same hash.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The choices of this world.
    #[must_use]
    pub fn draw(&self) -> Draw {
        self.draw
    }

    /// A server.
    #[must_use]
    pub fn server(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// A client.
    #[must_use]
    pub fn client(&self, client: usize) -> &Client {
        &self.seats[client].client
    }

    /// Changes what a server is started with, from its next start on.
    pub fn setup(&mut self, node: usize, change: impl FnOnce(&mut Setup)) {
        change(&mut self.nodes[node].setup);
    }

    // Time.

    /// Lets `us` microseconds pass.
    pub fn run(&mut self, us: u64) {
        let end = self.now + us;
        while self.queue.peek().is_some_and(|Reverse(next)| next.at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Lets `ms` milliseconds pass.
    pub fn run_ms(&mut self, ms: u64) {
        self.run(ms * MILLI_US);
    }

    /// Lets time pass until `done` says so, `ms` milliseconds at the most. Says whether it was.
    pub fn run_until(&mut self, ms: u64, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + ms * MILLI_US;
        loop {
            if done(self) {
                return true;
            }
            if self.now >= end {
                return false;
            }
            self.run(MILLI_US.min(end.since_us(self.now)));
        }
    }

    /// Lets time pass until `done` says so, and panics when it takes more than `ms` milliseconds.
    #[track_caller]
    pub fn wait(&mut self, ms: u64, what: &str, done: impl FnMut(&World) -> bool) {
        let done = self.run_until(ms, done);
        holds!(self.history.tally, Live, done, "within {ms} ms: {what}\n{}", self.describe());
    }

    pub(crate) fn schedule(&mut self, at: Time, event: Event) {
        self.count += 1;
        let tie = self.draw.bits("tie", &[self.count]);
        let at = at.max(self.now);
        self.queue.push(Reverse(Queued { at, tie, number: self.count, event }));
    }

    fn step(&mut self) {
        let Some(Reverse(next)) = self.queue.pop() else { return };
        self.at_once = if next.at == self.now { self.at_once + 1 } else { 0 };
        holds!(self.history.tally, Deadline, self.at_once < AT_ONCE_MAX, "time stands still");
        self.now = next.at;
        self.counts.events += 1;
        self.hash = cordee_core::prng::mix(self.hash ^ next.at.0.wrapping_add(next.number << 40));
        self.on_event(next.event);
    }

    fn on_event(&mut self, event: Event) {
        if let Some(node) = self.node_of(event)
            && self.nodes[node].frozen
        {
            self.nodes[node].deferred.push(event);
            return;
        }
        match event {
            Event::Arrive { wire, side } => self.on_arrive(wire, side),
            Event::Accept { wire } => self.on_accept(wire),
            Event::Dialled { node, start, dial, wire } => self.on_dialled(node, start, dial, wire),
            Event::DialFailed { node, start, dial } => self.on_dial_failed(node, start, dial),
            Event::Reach { node, start, dial, target } => self.on_reach(node, start, dial, target),
            Event::Timer { node, start } => self.on_timer(node, start),
            Event::Persisted { node, start, through } => self.on_persisted(node, start, through),
            Event::Writable { node, start, conn } => self.on_writable(node, start, conn),
            Event::ForceClose { node, start, conn } => self.on_force_close(node, start, conn),
            Event::ClientTimer { client } => self.on_client_timer(client),
            Event::ClientReach { client, attempt, target } => {
                self.on_client_reach(client, attempt, target);
            }
            Event::RealTimer { real } => self.on_real_timer(real),
            Event::RealReach { real, link, target } => self.on_real_reach(real, link, target),
            Event::ClientRefused { client, attempt } => {
                if self.seats[client].attempt == attempt {
                    let now = self.now;
                    self.seats[client].client.on_closed(now);
                    self.settle_client(client);
                }
            }
        }
    }

    /// The server whose own work an event is: it does none while it is frozen.
    fn node_of(&self, event: Event) -> Option<usize> {
        match event {
            Event::Arrive { wire, side } => match self.wires[wire].ends[1 - side] {
                End::Node { node, .. } => Some(node),
                _ => None,
            },
            Event::Accept { wire } => match self.wires[wire].ends[1] {
                End::Node { node, .. } => Some(node),
                _ => None,
            },
            Event::Dialled { node, .. }
            | Event::DialFailed { node, .. }
            | Event::Timer { node, .. }
            | Event::Persisted { node, .. }
            | Event::Writable { node, .. }
            | Event::ForceClose { node, .. } => Some(node),
            _ => None,
        }
    }
}

/// The address of a server.
pub(crate) fn address(index: usize) -> String {
    format!("s{index}:1")
}
