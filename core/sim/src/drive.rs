//! How the world drives a server: inputs in batches, effects out, sending.

use cordee_core::chat::server::{DialId, Effect, Inlet, Input, Sent, Source};
use cordee_core::ids::ConnId;
use cordee_core::log::Visibility;
use cordee_core::time::{SECOND_US, Time};
use cordee_core::wire::hello::Bye;
use cordee_core::wire::{Message, Reason};
use cordee_core::{Machine, Outbox};

use crate::node::{Line, Node};
use crate::rule::holds;
use crate::world::{End, Event, World};

/// A server states its invariants after every step of so many, one with a larger archive more
/// rarely: what is broken once mostly stays so.
const CHECKED_ROWS: u64 = 64;
const CHECK_EVERY: [u64; 2] = [8, 256];
/// MA and MT of all connections are looked at after every step of so many.
const COUNT_EVERY: u64 = 4;
/// So many effects an input may have whatever it is, as in telling a new peer of all there is; and
/// so many more for each connection.
const EFFECTS: usize = 256;
const EFFECTS_PER_LINE: usize = 32;

impl World {
    // Inputs.

    fn is_current(&self, node: usize, start: u64) -> bool {
        self.nodes[node].is_up() && self.nodes[node].starts == start
    }

    pub(crate) fn on_accept(&mut self, wire: usize) {
        let End::Node { node, start, .. } = self.wires[wire].ends[1] else { return };
        if !self.is_current(node, start) {
            self.wires[wire].ends[1] = End::Nobody;
            self.finish(wire, 1);
            return;
        }
        let (now, loopback) = (self.now, self.options.loopback);
        let address = match self.wires[wire].ends[0] {
            End::Node { node, .. } => node as u128,
            End::Client(client) => 1_000 + client as u128,
            End::Real(real, _) => 2_000 + real as u128,
            End::Raw(_) | End::Nobody => 1,
        };
        let source = Source { address, loopback };
        let accepted = self.with_machine(node, |machine, out| machine.accept(now, source, out));
        match accepted {
            Ok(conn) => {
                self.wires[wire].ends[1] = End::Node { node, start, conn: Some(conn) };
                let inlet = Inlet::accepted(conn, &self.nodes[node].setup.limits);
                let line = Line::new(wire, 1, inlet);
                self.nodes[node].lines.insert(conn, line);
                self.nodes[node].outlets.open(conn);
                self.apply(node);
                self.node_reads(node, conn);
            }
            Err(reason) => {
                let mut bytes = Vec::new();
                Bye { reason, retry_ms: 0, next: "", detail: "" }.put_frame(&mut bytes);
                self.transmit(wire, 1, &bytes);
                self.wires[wire].ends[1] = End::Nobody;
                self.finish(wire, 1);
            }
        }
        self.settle(node);
    }

    pub(crate) fn on_dialled(&mut self, node: usize, start: u64, dial: DialId, wire: usize) {
        let now = self.now;
        let wanted = self
            .is_current(node, start)
            .then(|| self.with_machine(node, |machine, out| machine.dialled(now, dial, out)));
        let Some(Some(conn)) = wanted else {
            self.wires[wire].ends[0] = End::Nobody;
            return self.finish(wire, 0);
        };
        self.wires[wire].ends[0] = End::Node { node, start, conn: Some(conn) };
        let inlet = Inlet::dialled(conn, &self.nodes[node].setup.limits);
        self.nodes[node].lines.insert(conn, Line::new(wire, 0, inlet));
        self.nodes[node].outlets.open(conn);
        self.apply(node);
        self.node_reads(node, conn);
        if self.is_current(node, start) {
            self.settle(node);
        }
    }

    pub(crate) fn on_dial_failed(&mut self, node: usize, start: u64, dial: DialId) {
        if self.is_current(node, start) {
            self.input(node, Input::DialFailed { dial });
            self.settle(node);
        }
    }

    pub(crate) fn on_timer(&mut self, node: usize, start: u64) {
        if !self.is_current(node, start) {
            return;
        }
        self.nodes[node].timer = None;
        let wall = self.nodes[node].wall(self.now);
        self.input(node, Input::Wall(wall));
        self.look_for_stalls(node);
        self.settle(node);
    }

    pub(crate) fn on_persisted(&mut self, node: usize, start: u64, through: u64) {
        if self.is_current(node, start) {
            if self.nodes[node].storage_stuck {
                let before = self.nodes[node].stored_meanwhile;
                self.nodes[node].stored_meanwhile = before.max(Some(through));
                return;
            }
            self.history.on_persisted((node, start), through);
            self.input(node, Input::Persisted { through, durable: false });
            self.settle(node);
        }
    }

    pub(crate) fn on_writable(&mut self, node: usize, start: u64, _conn: ConnId) {
        if self.is_current(node, start) {
            self.settle(node);
        }
    }

    pub(crate) fn on_force_close(&mut self, node: usize, start: u64, conn: ConnId) {
        if self.is_current(node, start) {
            self.drop_line(node, conn);
        }
    }

    /// A connection with something to send that took nothing for long.
    fn look_for_stalls(&mut self, node: usize) {
        let now = self.now;
        if now.since_us(self.nodes[node].stalls_checked) < SECOND_US / 4 {
            return;
        }
        self.nodes[node].stalls_checked = now;
        let stall = self.nodes[node].setup.limits.stall_us_max;
        let Node { lines, outlets, .. } = &self.nodes[node];
        let is_stalled = |conn: &ConnId| {
            let since = outlets.blocked_since(*conn);
            outlets.is_open(*conn) && since.is_some_and(|since| now.since_us(since) >= stall)
        };
        let stalled: Vec<ConnId> = lines.keys().copied().filter(is_stalled).collect();
        for conn in stalled {
            self.input(node, Input::Stalled { conn });
        }
    }

    /// A server reads what arrived on a connection, as long as it is not paused.
    pub(crate) fn node_reads(&mut self, node: usize, conn: ConnId) {
        let Some(line) = self.nodes[node].lines.get_mut(&conn) else { return };
        let (wire, side) = (line.wire, 1 - line.side);
        if line.paused && self.nodes[node].outlets.is_open(conn) {
            return;
        }
        let bytes = self.wires[wire].pipes[side].take();
        if !bytes.is_empty() {
            self.wake_writer(wire, side);
            if self.is_open(node, conn) {
                self.feed(node, conn, &bytes);
            }
        }
        if self.wires[wire].pipes[side].is_over() && self.is_open(node, conn) {
            self.input(node, Input::Closed { conn });
            self.drop_line(node, conn);
        }
        if self.nodes[node].is_up() {
            self.settle(node);
        }
    }

    fn is_open(&self, node: usize, conn: ConnId) -> bool {
        self.nodes[node].outlets.is_open(conn)
    }

    /// Cuts bytes into frames and gives them to the machine, as a batch.
    fn feed(&mut self, node: usize, conn: ConnId, bytes: &[u8]) {
        let line = self.nodes[node].lines.get_mut(&conn);
        let Some(mut inlet) = line.and_then(|line| line.inlet.take()) else { return };
        inlet.extend(bytes);
        inlet.inputs(|input| {
            if self.is_open(node, conn) {
                self.input(node, input);
            }
        });
        if let Some(line) = self.nodes[node].lines.get_mut(&conn) {
            line.inlet = Some(inlet);
        }
    }

    fn with_machine<R>(
        &mut self,
        node: usize,
        act: impl FnOnce(&mut cordee_core::chat::server::ChatServer, &mut Outbox<Effect>) -> R,
    ) -> R {
        self.counts.inputs += 1;
        let node = &mut self.nodes[node];
        let done = act(node.machine.as_mut().expect("it runs"), &mut node.out);
        let effects = node.out.effects();
        if effects.len() > EFFECTS {
            self.counts.effects_max = self.counts.effects_max.max(effects.len());
            let stored = effects.iter().filter(|e| matches!(e, Effect::Persist { .. })).count();
            let most = EFFECTS + EFFECTS_PER_LINE * (node.lines.len() + 1) + 6 * stored;
            let count = effects.len();
            holds!(self.history.tally, Effects, count <= most, "one input had {count} effects");
        }
        done
    }

    pub(crate) fn input(&mut self, node: usize, input: Input<'_>) {
        let now = self.now;
        if self.nodes[node].is_up() {
            self.with_machine(node, |machine, out| machine.handle_input(now, input, out));
            self.apply(node);
        }
    }

    // Effects.

    /// Fires what is due, sends, and feeds back, until nothing is left to do. Then checks.
    pub(crate) fn settle(&mut self, node: usize) {
        for round in 0.. {
            assert!(round < 10_000, "s{node} comes to no end\n{}", self.describe());
            if !self.nodes[node].is_up() {
                return;
            }
            let now = self.now;
            self.with_machine(node, |machine, out| machine.handle_timeout(now, out));
            self.apply(node);
            if !self.nodes[node].is_up() || !self.send(node) {
                break;
            }
        }
        if self.nodes[node].is_up() && self.nodes[node].stopping {
            return self.end(node, false);
        }
        let Some(machine) = self.nodes[node].machine.as_ref() else { return };
        let due = machine.poll_timeout().expect("a server always waits for something");
        holds!(self.history.tally, Deadline, due > self.now, "s{node} is due at {due:?} for ever");
        self.check_step(node);
        if self.nodes[node].timer.is_none_or(|timer| due < timer || timer <= self.now) {
            self.nodes[node].timer = Some(due);
            let start = self.nodes[node].starts;
            self.schedule(due, Event::Timer { node, start });
        }
    }

    fn check_step(&mut self, node: usize) {
        self.nodes[node].steps += 1;
        let Some(machine) = self.nodes[node].machine.as_ref() else { return };
        let small = machine.archive().rows() <= CHECKED_ROWS;
        if self.nodes[node].steps.is_multiple_of(CHECK_EVERY[usize::from(!small)]) {
            self.history.tally.saw(crate::Rule::Machine);
            machine.check();
        }
        self.watch(node);
        if !self.nodes[node].steps.is_multiple_of(COUNT_EVERY) {
            return;
        }
        let Some(machine) = self.nodes[node].machine.as_ref() else { return };
        let outlets = &self.nodes[node].outlets;
        for conn in self.nodes[node].lines.keys() {
            let Some(cursor) = outlets.cursor(*conn) else { continue };
            let scopes = match cursor.visibility() {
                Visibility::Client(scopes) if !scopes.is_empty() => scopes,
                Visibility::Client(_) | Visibility::Peer => continue,
            };
            let ma: u64 = scopes.iter().map(|scope| machine.archive().scope_rows(*scope)).sum();
            let mt = cursor.mt();
            let counts = mt <= ma && (mt == ma || !outlets.is_drained(*conn));
            holds!(self.history.tally, Counts, counts, "s{node} {conn:?}: MT {mt}, MA {ma}");
        }
    }

    /// Sends what the connections take. Says whether the machine was told anything.
    fn send(&mut self, node: usize) -> bool {
        let conns: Vec<ConnId> = self.nodes[node].lines.keys().copied().collect();
        let mut told = false;
        for conn in conns {
            let (now, latency, draw) = (self.now, self.options.latency_us, self.draw);
            let Some(line) = self.nodes[node].lines.get(&conn) else { continue };
            let (wire, side) = (line.wire, line.side);
            let pipe = &mut self.wires[wire].pipes[side];
            let mut arrivals: Vec<Time> = Vec::new();
            let id = (wire * 2 + side) as u64;
            let Sent { drained, lagged } = self.nodes[node].outlets.send(now, conn, |bytes| {
                let took = bytes.len().min(pipe.room());
                pipe.send(now, &bytes[..took], latency, draw, id, &mut arrivals);
                took
            });
            arrivals.dedup();
            for at in arrivals {
                self.schedule(at, Event::Arrive { wire, side });
            }
            if drained > 0 && self.is_open(node, conn) {
                told = true;
                self.input(node, Input::Drained { conn, bytes: drained });
            }
            if let Some(passed) = lagged.filter(|_| self.is_open(node, conn)) {
                told = true;
                self.input(node, Input::Lagged { conn, passed: &passed });
            }
            if self.nodes[node].outlets.is_finished(conn, now) {
                self.drop_line(node, conn);
            }
        }
        told
    }

    /// Closes a connection for good.
    fn drop_line(&mut self, node: usize, conn: ConnId) {
        let Some(line) = self.nodes[node].lines.remove(&conn) else { return };
        self.nodes[node].outlets.remove(conn);
        self.nodes[node].newcomers.remove(&conn);
        self.wires[line.wire].ends[line.side] = End::Nobody;
        self.wires[line.wire].pipes[1 - line.side].take();
        self.finish(line.wire, line.side);
    }

    /// Does what the machine wants done.
    fn apply(&mut self, node: usize) {
        let mut out = core::mem::take(&mut self.nodes[node].out);
        let effects: Vec<Effect> = out.effects().to_vec();
        self.watch_effects(node, &effects, &out);
        for effect in effects {
            if !self.nodes[node].is_up() {
                break;
            }
            self.apply_one(node, effect, &out);
        }
        out.clear();
        self.nodes[node].out = out;
    }

    fn apply_one(&mut self, node: usize, effect: Effect, out: &Outbox<Effect>) {
        let start = self.nodes[node].starts;
        let now = self.now;
        let Some(effect) = self.nodes[node].outlets.apply(now, effect, out.arena()) else { return };
        match effect {
            Effect::Dial { dial, address } => {
                let address = out.bytes(address).to_vec();
                let is_it = |n: &crate::Node| n.setup.address.as_bytes() == address;
                let at = now + self.options.latency_us.0;
                let event = match self.nodes.iter().position(is_it) {
                    Some(target) => Event::Reach { node, start, dial, target },
                    None => Event::DialFailed { node, start, dial },
                };
                self.schedule(at, event);
            }
            Effect::Persist { sequence, bytes } => {
                let trims = self.trims();
                self.history.on_persist((node, start), sequence, out.bytes(bytes), trims);
                let (least, jitter) = self.options.persist_us;
                let ids = [node as u64, start, sequence];
                let takes = least + self.draw.below("persist", &ids, jitter.max(1));
                let takes = takes * self.nodes[node].storage_slow;
                let at = self.nodes[node].persisted.max(now + takes);
                self.nodes[node].persisted = at;
                self.schedule(at, Event::Persisted { node, start, through: sequence });
            }
            Effect::Pause { conn } => self.line(node, conn).paused = true,
            Effect::Unpause { conn } => {
                let line = self.line(node, conn);
                line.paused = false;
                let (wire, side) = (line.wire, 1 - line.side);
                self.schedule(now, Event::Arrive { wire, side });
            }
            Effect::Close { conn, reason } => {
                self.note_close(node, conn, reason);
                let at = now + SECOND_US;
                self.schedule(at, Event::ForceClose { node, start, conn });
            }
            Effect::Crash => self.crash(node),
            Effect::Stopped => self.nodes[node].stopping = true,
            other => panic!("the outlets do {other:?}"),
        }
    }

    /// A server closes a link to another: that is worth a line in the story.
    fn note_close(&mut self, node: usize, conn: ConnId, reason: Reason) {
        if self.story.is_some() && matches!(self.end_of(node, conn), End::Node { .. }) {
            let whom = self.end_of(node, conn);
            self.note(|| format!("s{node} closes a link with {whom}: {reason:?}"));
        }
    }

    /// Who is at the other end of a server's connection.
    pub(crate) fn end_of(&self, node: usize, conn: ConnId) -> End {
        let line = self.nodes[node].lines.get(&conn);
        line.map_or(End::Nobody, |line| self.wires[line.wire].ends[1 - line.side])
    }

    /// A connection that the machine speaks of; it must be there.
    fn line(&mut self, node: usize, conn: ConnId) -> &mut Line {
        self.nodes[node].lines.get_mut(&conn).expect("an effect is for a connection that is there")
    }
}
