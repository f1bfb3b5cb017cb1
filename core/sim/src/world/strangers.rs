//! Connections that a script writes itself.

use super::*;

impl World {
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

    pub(super) fn raw_reads(&mut self, raw: usize, wire: usize, side: usize) {
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
}
