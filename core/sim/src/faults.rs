//! What can be done to a world: servers crash and hang, links are cut, streams break, clocks and
//! storage go wrong; and what makes all of it good again.

use cordee_core::chat::server::{Input, Outlets};
use cordee_core::time::MILLI_US;

use crate::node::Node;
use crate::world::{CLUSTER, Cut, End, Event, World};

impl World {
    /// Starts a server that is down: a new machine that knows nothing.
    pub fn start(&mut self, node: usize) {
        let (now, draw) = (self.now, self.draw);
        self.note(|| format!("s{node} starts"));
        self.nodes[node].start(now, CLUSTER, node as u64, draw);
        self.settle(node);
    }

    /// Kills a server: it loses all it had, its connections end, perhaps with a part of what they
    /// carried.
    pub fn crash(&mut self, node: usize) {
        self.end(node, true);
    }

    /// A server is no more. What its connections carry still arrives, unless some of it is lost.
    pub(crate) fn end(&mut self, node: usize, loses_tail: bool) {
        let Some(machine) = self.nodes[node].machine.take() else { return };
        self.resent_before += machine.stats().resent;
        self.note(|| format!("s{node} {}", if loses_tail { "crashes" } else { "has stopped" }));
        self.disturb();
        let start = self.nodes[node].starts;
        self.nodes[node].frozen = false;
        self.nodes[node].deferred.clear();
        self.nodes[node].lines.clear();
        self.nodes[node].outlets = Outlets::new();
        self.history.on_wipe((node, start));
        for wire in 0..self.wires.len() {
            for side in 0..2 {
                let End::Node { node: other, start: then, .. } = self.wires[wire].ends[side] else {
                    continue;
                };
                if (other, then) == (node, start) {
                    self.wires[wire].ends[side] = End::Nobody;
                    let flying = self.wires[wire].pipes[side].flying() as u64;
                    let keep = if !loses_tail {
                        flying
                    } else {
                        self.draw.below("tail", &[wire as u64, self.now.0], flying + 1)
                    };
                    self.wires[wire].pipes[side].lose_tail(keep as usize);
                    self.finish(wire, side);
                }
            }
        }
    }

    /// Stops a server's process, as by a signal: it does nothing, its connections stay.
    pub fn freeze(&mut self, node: usize) {
        self.disturb();
        self.nodes[node].frozen = self.nodes[node].is_up();
    }

    /// Lets a frozen server go on.
    pub fn thaw(&mut self, node: usize) {
        if !core::mem::take(&mut self.nodes[node].frozen) {
            return;
        }
        let deferred = core::mem::take(&mut self.nodes[node].deferred);
        for event in deferred {
            self.schedule(self.now, event);
        }
        self.nodes[node].timer = None;
        let start = self.nodes[node].starts;
        self.schedule(self.now, Event::Timer { node, start });
    }

    /// Cuts the network between two servers.
    pub fn cut(&mut self, a: usize, b: usize, how: Cut) {
        self.disturb();
        self.cuts.insert((a.min(b), a.max(b)), how);
        for wire in self.wires_between(a, b) {
            match how {
                Cut::Stall => self.wires[wire].pipes.iter_mut().for_each(|p| p.stalled = true),
                Cut::Reset => {
                    for side in 0..2 {
                        self.wires[wire].pipes[side].lose_tail(0);
                        self.finish(wire, side);
                    }
                }
            }
        }
    }

    /// Makes the network between two servers whole again.
    pub fn heal(&mut self, a: usize, b: usize) {
        let cut = self.cuts.remove(&(a.min(b), a.max(b))).is_some();
        let (there, back) = (self.deaf.remove(&(a, b)), self.deaf.remove(&(b, a)));
        if !cut && !there && !back {
            return;
        }
        self.disturb();
        for wire in self.wires_between(a, b) {
            for side in 0..2 {
                self.wires[wire].pipes[side].stalled = self.stalled.contains(&wire);
                self.schedule(self.now, Event::Arrive { wire, side });
            }
        }
    }

    /// Asks a server to stop in an orderly way.
    pub fn drain(&mut self, node: usize) {
        if self.nodes[node].is_up() && !self.nodes[node].frozen {
            self.disturb();
            self.input(node, Input::Drain);
            self.settle(node);
        }
    }

    /// Heals every cut, lets everything flow, thaws and starts every server that is to come back.
    pub fn heal_all(&mut self) {
        let cuts: Vec<(usize, usize)> =
            self.cuts.keys().copied().chain(self.deaf.iter().copied()).collect();
        for (a, b) in cuts {
            self.heal(a, b);
        }
        for wire in self.stalled.clone() {
            self.release_stream(wire);
        }
        for node in 0..self.nodes.len() {
            self.set_storage(node, 1, false);
            self.thaw(node);
            if !self.nodes[node].is_up() && !self.dead.contains(&node) {
                self.start(node);
            }
        }
        for client in 0..self.seats.len() {
            if !self.seats[client].reads {
                self.set_reading(client, true);
            }
        }
    }

    /// A server is gone for good, with all it had.
    pub fn bury(&mut self, node: usize) {
        self.crash(node);
        self.dead.insert(node);
    }

    /// Nothing arrives any more from one server at another; the other way it does.
    pub fn deafen(&mut self, from: usize, to: usize) {
        self.disturb();
        self.deaf.insert((from, to));
        for wire in self.wires_between(from, to) {
            let first = matches!(self.wires[wire].ends[0], End::Node { node, .. } if node == from);
            self.wires[wire].pipes[usize::from(!first)].stalled = true;
        }
    }

    pub(crate) fn is_deaf(&self, a: usize, b: usize) -> bool {
        self.deaf.contains(&(a, b)) || self.deaf.contains(&(b, a))
    }

    // Streams.

    /// Connections with somebody at both ends.
    #[must_use]
    pub fn streams(&self) -> Vec<usize> {
        let whole = |wire: &usize| self.wires[*wire].ends.iter().all(|end| *end != End::Nobody);
        (0..self.wires.len()).filter(whole).collect()
    }

    /// Resets a connection: each end reads what `keep` gives of what flies to it, then its end.
    pub fn reset_stream(&mut self, wire: usize, keep: impl Fn(u64, u64) -> u64) {
        self.disturb();
        for side in 0..2 {
            let flying = self.wires[wire].pipes[side].flying() as u64;
            self.wires[wire].pipes[side].lose_tail(keep(side as u64, flying) as usize);
            self.finish(wire, side);
        }
    }

    /// Nothing arrives on a connection, in either direction, until it is released; then all of it
    /// does at once.
    pub fn stall_stream(&mut self, wire: usize) {
        self.disturb();
        self.stalled.insert(wire);
        self.wires[wire].pipes.iter_mut().for_each(|pipe| pipe.stalled = true);
    }

    /// Lets a stalled connection go on, unless its servers are cut off from each other.
    pub fn release_stream(&mut self, wire: usize) {
        if !self.stalled.remove(&wire) {
            return;
        }
        self.disturb();
        let node = |end: End| match end {
            End::Node { node, .. } => Some(node),
            _ => None,
        };
        let [from, to] = self.wires[wire].ends.map(node);
        for side in 0..2 {
            let cut = from.zip(to).is_some_and(|(from, to)| {
                let way = if side == 0 { (from, to) } else { (to, from) };
                self.cut_between(from, to) == Some(Cut::Stall) || self.deaf.contains(&way)
            });
            self.wires[wire].pipes[side].stalled = cut;
            self.schedule(self.now, Event::Arrive { wire, side });
        }
    }

    /// A client's connection is gone and its server is not told: it is half open. The client goes
    /// on elsewhere.
    pub fn half_open(&mut self, client: usize) {
        self.disturb();
        if let Some(wire) = self.seats[client].wire.take() {
            self.wires[wire].ends[0] = End::Nobody;
            self.move_on(client);
        }
    }

    // Clocks and storage.

    /// Sets a server's wall clock forwards, or back.
    pub fn set_clock(&mut self, node: usize, by_us: i64) {
        self.nodes[node].setup.ahead_us += by_us;
    }

    /// How many times slower than usual a server's storage is, and whether it does nothing at all
    /// for now.
    pub fn set_storage(&mut self, node: usize, slow: u64, stuck: bool) {
        self.disturb();
        self.nodes[node].storage_slow = slow;
        self.nodes[node].storage_stuck = stuck;
        if let Some(through) = self.nodes[node].stored_meanwhile.take_if(|_| !stuck) {
            let start = self.nodes[node].starts;
            self.schedule(self.now, Event::Persisted { node, start, through });
        }
    }

    // Peace.

    /// Something is done to the world that is no one's ordinary business.
    pub(crate) fn disturb(&mut self) {
        self.disturbed = Some(self.now);
    }

    /// Whether everything is well, and has been for so many milliseconds.
    #[must_use]
    pub fn is_calm(&self, ms: u64) -> bool {
        let well = |index: usize, node: &Node| {
            let is_well = node.is_up() && !node.frozen && !node.storage_stuck;
            is_well && node.storage_slow == 1 || self.dead.contains(&index)
        };
        self.disturbed.is_none_or(|at| self.now.since_us(at) >= ms * MILLI_US)
            && self.cuts.is_empty()
            && self.deaf.is_empty()
            && self.stalled.is_empty()
            && self.nodes.iter().enumerate().all(|(index, node)| well(index, node))
            && self.is_meshed()
    }

    /// Adds a line to the story, when somebody wants to read it.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push((self.now, line()));
        }
    }

    fn wires_between(&self, a: usize, b: usize) -> Vec<usize> {
        let is_between = |ends: &[End; 2]| {
            let pair = ends.map(|end| match end {
                End::Node { node, .. } => Some(node),
                _ => None,
            });
            pair == [Some(a), Some(b)] || pair == [Some(b), Some(a)]
        };
        (0..self.wires.len()).filter(|wire| is_between(&self.wires[*wire].ends)).collect()
    }
}
