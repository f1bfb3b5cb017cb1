//! Connections: made, written on, ended, and who reads what arrives.

use super::*;

impl World {
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

    pub(super) fn on_arrive(&mut self, wire: usize, side: usize) {
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

    pub(super) fn on_reach(&mut self, node: usize, start: u64, dial: DialId, target: usize) {
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
}
