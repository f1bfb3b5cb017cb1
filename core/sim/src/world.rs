//! The world: servers, clients, connections, time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use cordee_core::chat::client::LinkId;
use cordee_core::chat::server::DialId;
use cordee_core::ids::{AuthorId, ConnId, SessionId};
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
struct Queued {
    at: Time,
    tie: u64,
    number: u64,
    event: Event,
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

/// A client and its connection.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) client: Client,
    pub(crate) wire: Option<usize>,
    pub(crate) attempt: u64,
    timer: Option<Time>,
    pub(crate) reads: bool,
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

    // Connections.

    /// A connection from `from` to a running server; the server is told of it.
    pub(crate) fn connect(&mut self, from: End, target: usize) -> usize {
        let start = self.nodes[target].starts;
        let to = End::Node { node: target, start, conn: None };
        let wire = self.wires.len();
        self.wires.push(Wire { ends: [from, to], pipes: [Pipe::new(), Pipe::new()] });
        if let End::Node { node, .. } = from {
            let cut = self.cut_between(node, target) == Some(Cut::Stall);
            self.wires[wire].pipes[0].stalled = cut || self.deaf.contains(&(node, target));
            self.wires[wire].pipes[1].stalled = cut || self.deaf.contains(&(target, node));
        }
        self.schedule(self.now, Event::Accept { wire });
        wire
    }

    /// Sends bytes from one side of a connection.
    pub(crate) fn transmit(&mut self, wire: usize, side: usize, bytes: &[u8]) {
        let mut arrivals = Vec::new();
        let id = (wire * 2 + side) as u64;
        let pipe = &mut self.wires[wire].pipes[side];
        pipe.send(self.now, bytes, self.options.latency_us, self.draw, id, &mut arrivals);
        arrivals.dedup();
        for at in arrivals {
            self.schedule(at, Event::Arrive { wire, side });
        }
    }

    /// Ends the stream from one side, behind what was sent.
    pub(crate) fn finish(&mut self, wire: usize, side: usize) {
        let latency = self.options.latency_us.0;
        if let Some(at) = self.wires[wire].pipes[side].finish(self.now, latency) {
            self.schedule(at, Event::Arrive { wire, side });
        }
    }

    fn on_arrive(&mut self, wire: usize, side: usize) {
        self.wires[wire].pipes[side].arrive(self.now);
        match self.wires[wire].ends[1 - side] {
            End::Node { node, start, conn } => {
                if self.nodes[node].starts != start || !self.nodes[node].is_up() {
                    self.wires[wire].pipes[side].take();
                } else if let Some(conn) = conn {
                    self.node_reads(node, conn);
                }
            }
            End::Client(client) => self.client_reads(client, wire, side),
            End::Real(real, link) => self.real_reads(real, link, wire, side),
            End::Raw(raw) => self.raw_reads(raw, wire, side),
            End::Nobody => {
                self.wires[wire].pipes[side].take();
            }
        }
    }

    /// Bytes were read: the writer has room again.
    pub(crate) fn wake_writer(&mut self, wire: usize, side: usize) {
        if let End::Node { node, start, conn: Some(conn) } = self.wires[wire].ends[side] {
            self.schedule(self.now + 1, Event::Writable { node, start, conn });
        }
    }

    pub(crate) fn cut_between(&self, a: usize, b: usize) -> Option<Cut> {
        self.cuts.get(&(a.min(b), a.max(b))).copied()
    }

    fn on_reach(&mut self, node: usize, start: u64, dial: DialId, target: usize) {
        let latency = self.options.latency_us.0;
        let failed = Event::DialFailed { node, start, dial };
        match self.cut_between(node, target) {
            Some(Cut::Stall) => return self.schedule(self.now + CONNECT_US, failed),
            Some(Cut::Reset) => return self.schedule(self.now + latency, failed),
            None if self.is_deaf(node, target) => {
                return self.schedule(self.now + CONNECT_US, failed);
            }
            None => {}
        }
        if !self.nodes[target].is_up() {
            return self.schedule(self.now + latency, failed);
        }
        let wire = self.connect(End::Node { node, start, conn: None }, target);
        self.schedule(self.now + latency, Event::Dialled { node, start, dial, wire });
    }

    // Clients.

    /// A client that comes in at a server.
    pub fn join_client(&mut self, name: &str, node: usize) -> usize {
        let index = self.seats.len();
        let mut servers: Vec<String> = (0..self.options.servers).map(address).collect();
        servers.rotate_left(node);
        let identity = self.draw.bits("client", &[index as u64]);
        let client = Client::new(name, identity, CLUSTER, &servers, self.now);
        self.seats.push(Seat { client, wire: None, attempt: 0, timer: None, reads: true });
        self.settle_client(index);
        index
    }

    /// Clients that come in at a server each, by name; waits until all have caught up.
    #[track_caller]
    pub fn join_clients(&mut self, clients: &[(&str, usize)]) -> Vec<usize> {
        let joined: Vec<usize> =
            clients.iter().map(|(name, node)| self.join_client(name, *node)).collect();
        let wanted = joined.clone();
        self.wait(5_000, "clients come in", |world| {
            wanted.iter().all(|client| world.client(*client).is_caught_up())
        });
        joined
    }

    /// Says something in a room, or in a talk (see [`talk`](Self::talk)).
    pub fn say(&mut self, client: usize, scope: &str, body: &str) -> u64 {
        let author = self.seats[client].client.author().expect("attached once");
        self.look(client);
        let number = self.seats[client].client.say(scope, body);
        self.history.on_say(client, author, number, scope, body);
        self.settle_client(client);
        number
    }

    /// The talk between two clients.
    #[must_use]
    pub fn talk(&self, a: usize, b: usize) -> String {
        let session = |client: usize| self.client(client).session().expect("attached once");
        crate::client::scope_key(&Scope::talk(session(a), session(b), ""))
    }

    /// Lets a client do something to itself.
    pub fn with_client<R>(&mut self, client: usize, act: impl FnOnce(&mut Client) -> R) -> R {
        let done = act(&mut self.seats[client].client);
        self.settle_client(client);
        done
    }

    /// A client joins a room.
    pub fn join(&mut self, client: usize, room: &str) {
        self.with_client(client, |c| c.request(|request| chat::Join { request, room }));
    }

    /// A client leaves a room.
    pub fn leave(&mut self, client: usize, room: &str) {
        self.with_client(client, |c| c.leave(room));
    }

    /// A client takes another name.
    pub fn rename(&mut self, client: usize, name: &str) {
        self.with_client(client, |c| c.request(|request| chat::SetName { request, name }));
    }

    /// A client whose name was refused tries another.
    pub fn try_name(&mut self, client: usize, name: &str) {
        self.with_client(client, |c| c.try_name(name));
    }

    /// A client sets a topic.
    pub fn topic(&mut self, client: usize, room: &str, topic: &str) {
        self.with_client(client, |c| c.request(|request| chat::SetTopic { request, room, topic }));
    }

    /// A client asks how it stands.
    pub fn ask_status(&mut self, client: usize) {
        self.with_client(client, |c| c.request(|request| chat::AskStatus { request }));
    }

    /// A client asks who is there.
    pub fn ask_users(&mut self, client: usize) {
        self.with_client(client, |c| c.request(|request| chat::AskUsers { request }));
    }

    /// A client asks which rooms there are.
    pub fn ask_rooms(&mut self, client: usize) {
        self.with_client(client, |c| c.request(|request| chat::AskRooms { request }));
    }

    /// A client asks for a page of a room or talk.
    pub fn ask_history(&mut self, client: usize, scope: &str, from: u64, count: u32) {
        self.with_client(client, |c| {
            let scope = parse_scope(scope);
            c.request(|request| chat::AskHistory { request, scope, from, count })
        });
    }

    /// A client looks for words.
    pub fn search(&mut self, client: usize, words: &str) {
        self.with_client(client, |c| c.request(|request| chat::Search { request, words }));
    }

    /// A client wants its server to crash.
    pub fn kill_server(&mut self, client: usize) {
        self.with_client(client, |c| c.request(|request| chat::KillServer { request }));
    }

    /// A client leaves for good.
    pub fn quit(&mut self, client: usize) {
        self.with_client(client, |c| c.put(&chat::Quit { reserved: 0 }));
    }

    /// A client vanishes: its connection breaks and it does not come back.
    pub fn vanish(&mut self, client: usize) {
        self.with_client(client, Client::stop);
    }

    /// A client's connection breaks; it goes on at the next server.
    pub fn move_on(&mut self, client: usize) {
        let now = self.now;
        self.with_client(client, |c| c.move_on(now));
    }

    /// A client forgets what it has and wants all of it anew.
    pub fn reset(&mut self, client: usize) {
        self.look(client);
        self.history.on_reset(client);
        let now = self.now;
        self.with_client(client, |c| c.reset(now));
    }

    /// A client stops reading, or reads again.
    pub fn set_reading(&mut self, client: usize, reads: bool) {
        self.seats[client].reads = reads;
        self.seats[client].client.asleep = !reads;
        if let (true, Some(wire)) = (reads, self.seats[client].wire) {
            self.client_reads(client, wire, 1);
        }
    }

    fn on_client_timer(&mut self, client: usize) {
        let seat = &mut self.seats[client];
        if seat.timer == Some(self.now) {
            seat.timer = None;
            seat.client.on_time(self.now);
            self.settle_client(client);
        }
    }

    fn on_client_reach(&mut self, client: usize, attempt: u64, target: Option<usize>) {
        if self.seats[client].attempt != attempt {
            return;
        }
        let Some(target) = target.filter(|target| self.nodes[*target].is_up()) else {
            let at = self.now + self.options.latency_us.0;
            return self.schedule(at, Event::ClientRefused { client, attempt });
        };
        let wire = self.connect(End::Client(client), target);
        self.seats[client].wire = Some(wire);
        let now = self.now;
        self.seats[client].client.on_connected(now);
        self.settle_client(client);
    }

    pub(crate) fn client_reads(&mut self, client: usize, wire: usize, side: usize) {
        if self.seats[client].wire != Some(wire) || !self.seats[client].reads {
            return;
        }
        let bytes = self.wires[wire].pipes[side].take();
        let over = self.wires[wire].pipes[side].is_over();
        if !bytes.is_empty() {
            let now = self.now;
            self.history.tally.saw(Rule::Wire);
            self.seats[client].client.on_bytes(now, &bytes);
            self.wake_writer(wire, side);
        }
        if over && self.seats[client].wire == Some(wire) {
            self.drop_client_wire(client);
            let now = self.now;
            self.seats[client].client.on_closed(now);
        }
        self.settle_client(client);
    }

    pub(crate) fn drop_client_wire(&mut self, client: usize) {
        if let Some(wire) = self.seats[client].wire.take() {
            // Who connects is at the first end.
            self.wires[wire].ends[0] = End::Nobody;
            self.finish(wire, 0);
        }
    }

    /// Does what a client wants, looks at what it was shown, and sets its timer.
    fn settle_client(&mut self, client: usize) {
        while let Some(action) = self.seats[client].client.take_action() {
            match action {
                Action::Connect(address) => {
                    self.drop_client_wire(client);
                    self.seats[client].attempt += 1;
                    let attempt = self.seats[client].attempt;
                    let target = self.nodes.iter().position(|n| n.setup.address == address);
                    let at = self.now + self.options.latency_us.0;
                    self.schedule(at, Event::ClientReach { client, attempt, target });
                }
                Action::Send(bytes) => {
                    if let Some(wire) = self.seats[client].wire {
                        self.transmit(wire, 0, &bytes);
                    }
                }
                Action::Close => {
                    self.seats[client].attempt += 1;
                    self.drop_client_wire(client);
                }
            }
        }
        self.look(client);
        let seat = &mut self.seats[client];
        if let Some(at) = seat.client.next_time()
            && seat.timer.is_none_or(|timer| at < timer)
        {
            let at = at.max(self.now);
            seat.timer = Some(at);
            self.schedule(at, Event::ClientTimer { client });
        }
    }

    fn look(&mut self, client: usize) {
        let seat = &self.seats[client].client;
        let at = seat.attached_at();
        let node = at.and_then(|at| self.nodes.iter().position(|n| n.setup.address == at));
        let archive = node.and_then(|node| self.nodes[node].machine()).map(|m| m.archive());
        let has = |(author, number): &(AuthorId, u64)| {
            archive.is_none_or(|archive| archive.has_row(author, *number))
        };
        let expected = self.expected();
        self.history.look(client, seat.author(), &seat.shown, &seat.happened, has, expected);
    }

    /// What can be expected of servers now: as many copies as wanted, as long as nothing went
    /// wrong.
    pub(crate) fn expected(&self) -> Expected {
        let servers = self.options.servers.min(self.options.started) as u8;
        let calm = self.disturbed.is_none();
        let copies = if calm { self.options.copies.min(servers) } else { 1 };
        Expected { trims: self.trims(), calm, copies }
    }

    // Connections of a script.

    /// Opens a connection to a server that the script writes itself.
    pub fn open(&mut self, node: usize) -> RawId {
        let raw = self.raws.len();
        self.raws.push(Raw { reads: true, ..Raw::default() });
        let wire = self.connect(End::Raw(raw), node);
        self.raws[raw].wire = Some(wire);
        RawId(raw)
    }

    /// Writes bytes on it.
    pub fn write(&mut self, raw: RawId, bytes: &[u8]) {
        if let Some(wire) = self.raws[raw.0].wire {
            self.transmit(wire, 0, bytes);
        }
    }

    /// Stops or begins to read on it.
    pub fn raw_reads_on(&mut self, raw: RawId, reads: bool) {
        self.raws[raw.0].reads = reads;
        if let (true, Some(wire)) = (reads, self.raws[raw.0].wire) {
            self.raw_reads(raw.0, wire, 1);
        }
    }

    /// What came on it.
    #[must_use]
    pub fn received(&self, raw: RawId) -> &[u8] {
        &self.raws[raw.0].received
    }

    /// Whether the server ended it.
    #[must_use]
    pub fn is_over(&self, raw: RawId) -> bool {
        self.raws[raw.0].over
    }

    /// Ends it from this side.
    pub fn hang_up(&mut self, raw: RawId) {
        if let Some(wire) = self.raws[raw.0].wire.take() {
            self.wires[wire].ends[0] = End::Nobody;
            self.finish(wire, 0);
        }
    }

    fn raw_reads(&mut self, raw: usize, wire: usize, side: usize) {
        if !self.raws[raw].reads {
            return;
        }
        let bytes = self.wires[wire].pipes[side].take();
        self.raws[raw].received.extend_from_slice(&bytes);
        if !bytes.is_empty() {
            self.wake_writer(wire, side);
        }
        if self.wires[wire].pipes[side].is_over() && !self.raws[raw].over {
            self.raws[raw].over = true;
            self.finish(wire, 1 - side);
        }
    }

    // What is seen from outside.

    /// Servers that run and are not frozen.
    #[must_use]
    pub fn alive(&self) -> Vec<usize> {
        let up = |node: &usize| self.nodes[*node].is_up() && !self.nodes[*node].frozen;
        (0..self.nodes.len()).filter(up).collect()
    }

    /// Whether all running servers are linked with each other.
    #[must_use]
    pub fn is_meshed(&self) -> bool {
        let alive = self.alive();
        let linked = |node: &usize| self.nodes[*node].machine().map_or(0, |m| m.linked());
        alive.iter().all(|node| linked(node) == alive.len() - 1)
    }

    /// Whether servers keep less than is said.
    pub(crate) fn trims(&self) -> bool {
        let few = Limits::default().origins_max;
        self.nodes.iter().any(|node| {
            let limits = &node.setup.limits;
            limits.archive_bytes_max < WHOLE_BYTES || limits.origins_max < few
        })
    }

    /// Whether all running servers hold the same.
    #[must_use]
    pub fn is_converged(&self) -> bool {
        let mut digests = self.alive().into_iter().filter_map(|node| {
            let machine = self.nodes[node].machine()?;
            Some((machine.digest(), machine.archive().vector_hash(), machine.archive().rows()))
        });
        let Some(first) = digests.next() else { return true };
        digests.all(|digest| digest == first)
    }

    /// How many entries servers that run have sent again since they started.
    #[must_use]
    pub fn resent(&self) -> u64 {
        self.nodes.iter().filter_map(Node::machine).map(|machine| machine.stats().resent).sum()
    }

    /// How many ranges servers that run have asked for since they started.
    #[must_use]
    pub fn pulls(&self) -> u64 {
        self.nodes.iter().filter_map(Node::machine).map(|machine| machine.stats().pulls).sum()
    }

    /// Who is attached to a server.
    #[must_use]
    pub fn sessions_at(&self, node: usize) -> Vec<SessionId> {
        let here = |seat: &&Seat| {
            seat.client.attached_at() == Some(self.nodes[node].setup.address.as_str())
        };
        self.seats.iter().filter(here).filter_map(|seat| seat.client.session()).collect()
    }

    /// A few lines on everything, for a failure.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("at {} ms\n", self.now.0 / 1_000);
        for (index, node) in self.nodes.iter().enumerate() {
            text += &match node.machine() {
                None => format!("s{index}: down\n"),
                Some(machine) => format!(
                    "s{index}: {:?}{}, {} linked, {} rows, {:?}\n",
                    machine.state(),
                    if node.frozen { ", frozen" } else { "" },
                    machine.linked(),
                    machine.archive().rows(),
                    machine.stats(),
                ),
            };
        }
        for seat in &self.seats {
            let client = &seat.client;
            text += &format!(
                "{}: at {:?}, {} shown, {} unacknowledged, caught up: {}, last: {:?}\n",
                client.name,
                client.attached_at(),
                client.shown.len(),
                client.unacknowledged(),
                client.is_caught_up(),
                client.happened.iter().rev().take(4).collect::<Vec<_>>(),
            );
        }
        text
    }

    /// States the invariants of every machine.
    pub fn check_all(&self) {
        for machine in self.nodes.iter().filter_map(Node::machine) {
            machine.check();
        }
    }
}

/// The address of a server.
pub(crate) fn address(index: usize) -> String {
    format!("s{index}:1")
}
