//! Servers joined in memory: their machines, driven as a driver of sockets drives them, and wires
//! whose other end is a server or whoever writes bytes of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::String;
use std::vec::Vec;

use cordee_core::Machine;
use cordee_core::chat::server::{
    ChatServer, Config, DialId, Effect, Inlet, Input, Outlets, Source,
};
use cordee_core::ids::ConnId;
use cordee_core::limits::Limits;
use cordee_core::outbox::Outbox;
use cordee_core::time::{Time, Wall};
use cordee_core::wire::{Message, Reason};

/// 2026-01-01 00:00:00 UTC.
pub(super) const WALL_US: u64 = 1_767_225_600_000_000;
/// What a wire takes before the other end reads.
const PIPE_BYTES: usize = 128 << 10;
/// The most that one input may make a server want.
const EFFECTS_MAX: usize = 20_000;
const ARENA_BYTES_MAX: usize = 16 << 20;

/// How the wires of a net are known.
pub(super) type WireId = usize;

/// Who is at an end of a wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Node(usize, ConnId),
    /// Whoever drives the net.
    Hand,
    /// Closed: what still comes is dropped.
    Gone,
}

#[derive(Debug)]
struct Wire {
    ends: [End; 2],
    /// What is on its way to each end.
    to: [Vec<u8>; 2],
}

/// A server.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) server: ChatServer,
    address: String,
    starts: u8,
    outlets: Outlets,
    out: Outbox<Effect>,
    /// Open connections: their wire, which end of it they are, and their read side.
    lines: BTreeMap<ConnId, Line>,
    /// Those that the machine has closed and that are still sent to.
    closing: BTreeMap<ConnId, WireId>,
    dials: Vec<(DialId, String)>,
    /// What storage was given, and whether it is slow: then only when told.
    given: u64,
    persisted: u64,
    pub(super) slow_storage: bool,
    pub(super) ended: bool,
}

#[derive(Debug)]
struct Line {
    wire: WireId,
    side: usize,
    inlet: Option<Inlet>,
    paused: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) now: Time,
    pub(super) nodes: Vec<Node>,
    wires: Vec<Wire>,
    cut: BTreeSet<(usize, usize)>,
    limits: Limits,
    copies: u8,
    /// Connections that a server closed, why and when, by the wire.
    pub(super) closed: BTreeMap<WireId, (Reason, Time)>,
}

impl Net {
    /// So many servers that know of each other, not linked yet.
    pub(super) fn new(count: usize, copies: u8, limits: &Limits) -> Self {
        limits.validate().expect("limits that make sense");
        let mut net = Net {
            now: Time::ZERO,
            nodes: Vec::new(),
            wires: Vec::new(),
            cut: BTreeSet::new(),
            limits: limits.clone(),
            copies,
            closed: BTreeMap::new(),
        };
        for node in 0..count {
            let config = net.config(node, count, 1);
            let server = ChatServer::new(config, node as u64, net.now);
            net.nodes.push(Node::new(server, address_of(node)));
        }
        net
    }

    /// The same key in all, as if it came from a secret; everything else differs by start.
    fn config(&self, node: usize, count: usize, start: u8) -> Config {
        let mut entropy = [7; 64];
        entropy[..24].fill(node as u8 * 16 + start);
        let wall = Wall(WALL_US + self.now.0);
        let mut config = Config::new("cordee", address_of(node), entropy, wall);
        config.peers = (0..count).map(address_of).collect();
        config.copies = self.copies;
        config.limits = self.limits.clone();
        config
    }

    /// A server dies and starts again, without anything that it had.
    pub(super) fn restart(&mut self, node: usize) {
        let lines: Vec<WireId> = self.nodes[node].lines.values().map(|line| line.wire).collect();
        let closing: Vec<WireId> = self.nodes[node].closing.values().copied().collect();
        for wire in lines.into_iter().chain(closing) {
            for side in 0..2 {
                if matches!(self.wires[wire].ends[side], End::Node(at, _) if at == node) {
                    self.wires[wire].ends[side] = End::Gone;
                }
            }
        }
        let starts = self.nodes[node].starts + 1;
        let config = self.config(node, self.nodes.len(), starts);
        let server = ChatServer::new(config, u64::from(starts), self.now);
        let fresh = Node::new(server, address_of(node));
        self.nodes[node] = Node { starts, ..fresh };
    }

    // Wires of whoever drives the net.

    /// Connects to a server; `None` when it takes no connection.
    pub(super) fn open(&mut self, node: usize, source: Source) -> Option<WireId> {
        let now = self.now;
        let Node { server, out, .. } = &mut self.nodes[node];
        let accepted = server.accept(now, source, out);
        let wire = self.wires.len();
        let conn = match accepted {
            Ok(conn) => conn,
            Err(_) => {
                self.apply(node);
                return None;
            }
        };
        self.wires.push(Wire { ends: [End::Hand, End::Node(node, conn)], to: Default::default() });
        self.nodes[node].attach(conn, wire, 1, Inlet::accepted(conn, &self.limits));
        self.apply(node);
        Some(wire)
    }

    pub(super) fn write(&mut self, wire: WireId, bytes: &[u8]) {
        if self.wires[wire].ends[1] != End::Gone {
            self.wires[wire].to[1].extend_from_slice(bytes);
        }
    }

    pub(super) fn tell<'a>(&mut self, wire: WireId, message: &impl Message<'a>) {
        let mut bytes = Vec::new();
        message.put_frame(&mut bytes);
        self.write(wire, &bytes);
    }

    /// Takes what came.
    pub(super) fn read(&mut self, wire: WireId) -> Vec<u8> {
        std::mem::take(&mut self.wires[wire].to[0])
    }

    pub(super) fn hang_up(&mut self, wire: WireId) {
        self.wires[wire].ends[0] = End::Gone;
    }

    /// Whether the server's end is closed: what came before is still to be read.
    pub(super) fn is_over(&self, wire: WireId) -> bool {
        self.wires[wire].ends[1] == End::Gone
    }

    // Faults.

    /// Nothing passes between two servers any more, or it does again.
    pub(super) fn cut(&mut self, a: usize, b: usize, cut: bool) {
        if !cut {
            self.cut.remove(&(a.min(b), a.max(b)));
            return;
        }
        self.cut.insert((a.min(b), a.max(b)));
        let mut lost = Vec::new();
        for wire in &mut self.wires {
            if let [End::Node(one, first), End::Node(other, second)] = wire.ends
                && (one.min(other), one.max(other)) == (a.min(b), a.max(b))
            {
                wire.ends = [End::Gone, End::Gone];
                wire.to = Default::default();
                lost.extend([(one, first), (other, second)]);
            }
        }
        lost.into_iter().for_each(|(node, conn)| self.lose(node, conn));
    }

    /// A connection of a server ended without its doing.
    fn lose(&mut self, node: usize, conn: ConnId) {
        let this = &mut self.nodes[node];
        this.outlets.remove(conn);
        this.closing.remove(&conn);
        if this.lines.remove(&conn).is_some() {
            self.input(node, Input::Closed { conn });
        }
    }

    // Time.

    /// Time passes, and everything that it brings happens.
    pub(super) fn pass(&mut self, us: u64) {
        let until = self.now + us;
        self.settle();
        loop {
            let due = self.nodes.iter().filter(|node| !node.ended);
            let due = due.filter_map(|node| node.server.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            self.settle();
        }
        self.now = self.now.max(until);
        self.settle();
    }

    /// Lets everything that is on its way arrive, and what follows from it happen.
    pub(super) fn settle(&mut self) {
        loop {
            let mut moved = false;
            for node in 0..self.nodes.len() {
                moved |= self.timeouts(node);
                moved |= self.receive(node);
                moved |= self.dial(node);
                moved |= self.persist(node);
                moved |= self.send(node);
            }
            let soon = |node: &Node| {
                !node.ended && node.server.poll_timeout().is_some_and(|due| due <= self.now + 1)
            };
            if self.nodes.iter().any(soon) {
                self.now = self.now + 1;
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    fn timeouts(&mut self, node: usize) -> bool {
        let now = self.now;
        let Node { server, out, ended, .. } = &mut self.nodes[node];
        if *ended || server.poll_timeout().is_none_or(|due| due > now) {
            return false;
        }
        server.handle_timeout(now, out);
        assert!(server.poll_timeout().is_none_or(|due| due > now), "what is due fires or moves");
        self.apply(node);
        true
    }

    fn input(&mut self, node: usize, input: Input<'_>) {
        let now = self.now;
        let Node { server, out, .. } = &mut self.nodes[node];
        server.handle_input(now, input, out);
        self.apply(node);
    }

    fn receive(&mut self, node: usize) -> bool {
        let mut moved = false;
        let conns: Vec<ConnId> = self.nodes[node].lines.keys().copied().collect();
        for conn in conns {
            let Some(line) = self.nodes[node].lines.get_mut(&conn) else { continue };
            let wire = &mut self.wires[line.wire];
            // What a connection that is not read had still to say is lost with it.
            let unread = wire.to[line.side].is_empty() || line.paused;
            if unread {
                if wire.ends[1 - line.side] == End::Gone {
                    wire.ends[line.side] = End::Gone;
                    self.lose(node, conn);
                    moved = true;
                }
                continue;
            }
            moved = true;
            let bytes = std::mem::take(&mut wire.to[line.side]);
            let Some(mut inlet) = line.inlet.take() else { continue };
            // As a driver reads: what fits its buffer, again and again.
            for piece in bytes.chunks(16 << 10) {
                inlet.extend(piece);
                inlet.inputs(|input| self.input(node, input));
            }
            if let Some(line) = self.nodes[node].lines.get_mut(&conn) {
                line.inlet = Some(inlet);
            }
        }
        moved
    }

    fn dial(&mut self, node: usize) -> bool {
        let dials = std::mem::take(&mut self.nodes[node].dials);
        let moved = !dials.is_empty();
        for (dial, address) in dials {
            let other = self.nodes.iter().position(|node| node.address == address && !node.ended);
            let cut = |other: usize| self.cut.contains(&(node.min(other), node.max(other)));
            let Some(other) = other.filter(|other| *other != node && !cut(*other)) else {
                self.input(node, Input::DialFailed { dial });
                continue;
            };
            let now = self.now;
            let source = Source { address: 1, loopback: true };
            let Node { server, out, .. } = &mut self.nodes[other];
            let Ok(there) = server.accept(now, source, out) else {
                self.apply(other);
                self.input(node, Input::DialFailed { dial });
                continue;
            };
            let wire = self.wires.len();
            self.wires
                .push(Wire { ends: [End::Gone, End::Node(other, there)], to: Default::default() });
            self.nodes[other].attach(there, wire, 1, Inlet::accepted(there, &self.limits));
            self.apply(other);
            let Node { server, out, .. } = &mut self.nodes[node];
            if let Some(here) = server.dialled(now, dial, out) {
                self.wires[wire].ends[0] = End::Node(node, here);
                self.nodes[node].attach(here, wire, 0, Inlet::dialled(here, &self.limits));
            }
            self.apply(node);
        }
        moved
    }

    fn persist(&mut self, node: usize) -> bool {
        let Node { given, persisted, slow_storage, .. } = &mut self.nodes[node];
        if *slow_storage || persisted == given {
            return false;
        }
        *persisted = *given;
        let through = *given;
        self.input(node, Input::Persisted { through, durable: false });
        true
    }

    fn send(&mut self, node: usize) -> bool {
        let now = self.now;
        let mut moved = false;
        let open = self.nodes[node].lines.iter().map(|(conn, line)| (*conn, line.wire, line.side));
        let mut all: Vec<(ConnId, WireId, usize)> = open.collect();
        for (conn, wire) in &self.nodes[node].closing {
            let side = usize::from(self.wires[*wire].ends[1] == End::Node(node, *conn));
            all.push((*conn, *wire, side));
        }
        for (conn, wire, side) in all {
            let gone = self.wires[wire].ends[1 - side] == End::Gone;
            let pipe = &mut self.wires[wire].to[1 - side];
            let sent = self.nodes[node].outlets.send(now, conn, |bytes| {
                let count = bytes.len().min(PIPE_BYTES.saturating_sub(pipe.len()));
                // What nobody will read is taken all the same.
                let count = if gone { bytes.len() } else { count };
                if !gone {
                    pipe.extend_from_slice(&bytes[..count]);
                }
                moved |= count > 0;
                count
            });
            if !self.nodes[node].lines.contains_key(&conn) {
                self.finish(node, conn, wire, side);
                continue;
            }
            if sent.drained > 0 {
                self.input(node, Input::Drained { conn, bytes: sent.drained });
            }
            if let Some(passed) = sent.lagged {
                self.input(node, Input::Lagged { conn, passed: &passed });
                moved = true;
            } else {
                let since = self.nodes[node].outlets.blocked_since(conn);
                if since.is_some_and(|since| now.since_us(since) >= self.limits.stall_us_max) {
                    self.input(node, Input::Stalled { conn });
                    moved = true;
                }
            }
        }
        moved
    }

    /// Closes what the machine has closed, once nothing is left to be sent.
    fn finish(&mut self, node: usize, conn: ConnId, wire: WireId, side: usize) {
        let this = &mut self.nodes[node];
        if this.outlets.is_finished(conn, self.now) {
            this.outlets.remove(conn);
            this.closing.remove(&conn);
            self.wires[wire].ends[side] = End::Gone;
        }
    }

    fn apply(&mut self, node: usize) {
        let now = self.now;
        let Node { out, outlets, lines, closing, dials, given, ended, .. } = &mut self.nodes[node];
        assert!(out.effects().len() <= EFFECTS_MAX, "effects of one input are bounded");
        assert!(out.arena_len() <= ARENA_BYTES_MAX, "and so are their bytes");
        let closed = &mut self.closed;
        out.drain(|effect, arena| match outlets.apply(now, effect, arena) {
            Some(Effect::Close { conn, reason }) => {
                if let Some(line) = lines.remove(&conn) {
                    closing.insert(conn, line.wire);
                    closed.insert(line.wire, (reason, now));
                }
            }
            Some(Effect::Dial { dial, address }) => {
                let address = String::from_utf8_lossy(&arena[address.range()]);
                dials.push((dial, address.into_owned()));
            }
            Some(Effect::Persist { sequence, .. }) => {
                assert!(sequence == *given + 1, "storage is given everything in order");
                *given = sequence;
            }
            Some(Effect::Pause { conn }) => set_paused(lines, conn, true),
            Some(Effect::Unpause { conn }) => set_paused(lines, conn, false),
            Some(Effect::Stopped | Effect::Crash) => *ended = true,
            _ => {}
        });
    }

    /// Every machine's own invariants, and the bounds that can be seen from outside.
    pub(super) fn check(&self) {
        for node in self.nodes.iter().filter(|node| !node.ended) {
            node.server.check();
            let bytes = node.server.archive().memory_bytes();
            assert!(bytes <= self.limits.archive_bytes_max + (1 << 20), "the archive is bounded");
            let connections = node.lines.len() as u32;
            assert!(connections <= self.limits.connections_max);
        }
    }
}

fn set_paused(lines: &mut BTreeMap<ConnId, Line>, conn: ConnId, paused: bool) {
    let line = lines.get_mut(&conn).expect("a connection that is there");
    assert!(line.paused != paused, "each is said once");
    line.paused = paused;
}

pub(super) fn address_of(node: usize) -> String {
    format!("127.0.0.1:{}", 5_000 + node)
}

impl Node {
    fn new(server: ChatServer, address: String) -> Self {
        Node {
            server,
            address,
            starts: 1,
            outlets: Outlets::new(),
            out: Outbox::new(),
            lines: BTreeMap::new(),
            closing: BTreeMap::new(),
            dials: Vec::new(),
            given: 0,
            persisted: 0,
            slow_storage: false,
            ended: false,
        }
    }

    fn attach(&mut self, conn: ConnId, wire: WireId, side: usize, inlet: Inlet) {
        self.outlets.open(conn);
        self.lines.insert(conn, Line { wire, side, inlet: Some(inlet), paused: false });
    }
}
