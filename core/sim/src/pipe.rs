//! One direction of a connection: bytes in order, late, in pieces.

use std::collections::VecDeque;

use cordee_core::Time;

use crate::draw::Draw;

/// What a pipe takes before its reader has read: the buffers of both sockets.
pub(crate) const WINDOW_BYTES: usize = 256 << 10;

/// The end of a stream, in order behind its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fin {
    Open,
    Flying(Time),
    Arrived,
}

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    flying: VecDeque<(Time, Vec<u8>)>,
    arrived: Vec<u8>,
    fin: Fin,
    /// When the last of what flies arrives.
    last: Time,
    bytes: usize,
    /// Nothing arrives until this is over.
    pub(crate) stalled: bool,
    sent: u64,
}

impl Pipe {
    pub(crate) fn new() -> Self {
        Pipe {
            flying: VecDeque::new(),
            arrived: Vec::new(),
            fin: Fin::Open,
            last: Time::ZERO,
            bytes: 0,
            stalled: false,
            sent: 0,
        }
    }

    /// How many bytes can be sent now.
    pub(crate) fn room(&self) -> usize {
        if self.fin == Fin::Open { WINDOW_BYTES.saturating_sub(self.bytes) } else { 0 }
    }

    /// Sends bytes in pieces; the last of them arrives at the returned time. Each piece has an
    /// arrival of its own: `arrivals` takes them.
    pub(crate) fn send(
        &mut self,
        now: Time,
        bytes: &[u8],
        latency: (u64, u64),
        draw: Draw,
        id: u64,
        arrivals: &mut Vec<Time>,
    ) {
        if self.fin != Fin::Open {
            return;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let most = match draw.below("piece", &[id, self.sent], 8) {
                0 => 1 + draw.below("tiny", &[id, self.sent], 7) as usize,
                1 | 2 => 1 + draw.below("small", &[id, self.sent], 200) as usize,
                _ => 64 << 10,
            };
            let (piece, after) = rest.split_at(most.min(rest.len()));
            let jitter = draw.below("late", &[id, self.sent], latency.1.max(1));
            let at = self.last.max(now + latency.0 + jitter);
            self.last = at;
            self.sent += piece.len() as u64;
            self.bytes += piece.len();
            self.flying.push_back((at, piece.to_vec()));
            arrivals.push(at);
            rest = after;
        }
    }

    /// Ends the stream behind what was sent. Returns when that arrives.
    pub(crate) fn finish(&mut self, now: Time, latency: u64) -> Option<Time> {
        if self.fin != Fin::Open {
            return None;
        }
        let at = self.last.max(now + latency);
        self.fin = Fin::Flying(at);
        Some(at)
    }

    /// Loses all but the first `keep` pieces of what flies.
    pub(crate) fn lose_tail(&mut self, keep: usize) {
        while self.flying.len() > keep {
            if let Some((_, piece)) = self.flying.pop_back() {
                self.bytes -= piece.len();
            }
        }
    }

    pub(crate) fn flying(&self) -> usize {
        self.flying.len()
    }

    /// Lets arrive what is due.
    pub(crate) fn arrive(&mut self, now: Time) {
        if self.stalled {
            return;
        }
        while self.flying.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, piece)) = self.flying.pop_front() {
                self.arrived.extend_from_slice(&piece);
            }
        }
        if self.flying.is_empty() && matches!(self.fin, Fin::Flying(at) if at <= now) {
            self.fin = Fin::Arrived;
        }
    }

    /// Takes what arrived. Empty when nothing did.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.bytes -= self.arrived.len();
        core::mem::take(&mut self.arrived)
    }

    /// Whether the end arrived, and everything before it was taken.
    pub(crate) fn is_over(&self) -> bool {
        self.fin == Fin::Arrived && self.arrived.is_empty()
    }
}
