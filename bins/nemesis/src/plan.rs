//! What goes wrong in one cycle: drawn from a seed, and told in one line.

use std::fmt;

use cordee_core::prng::Prng;

/// A fault, with the numbers of the servers that it hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// `kill -9`.
    Kill { server: usize },
    /// `SIGTERM`: it hands on what it has, and is started again.
    Terminate { server: usize },
    /// `SIGSTOP`, later `SIGCONT`.
    Stop { server: usize },
    /// No connection between two servers.
    CutLink { one: usize, other: usize },
    /// Nothing gets from one server to another, though their connection stands.
    Deafen { from: usize, to: usize },
    /// Servers whose bit is set, and the others, do not reach each other.
    Partition { side: u32 },
    /// Clients do not reach a server, and their connections to it are reset.
    CutClients { server: usize },
    /// Nothing gets from clients to a server, or back.
    StallClients { server: usize, inward: bool },
    /// A server's connections are reset, those of clients or those of peers.
    Reset { server: usize, clients: bool },
    /// One half of each connection to a server is closed.
    HalfClose { server: usize, clients: bool, inward: bool },
    /// All that travels to and from a server is late.
    Delay { server: usize, ms: u64 },
    /// Bytes to and from a server come one by one.
    Dribble { server: usize },
    /// Frames to or from a server are spoilt, those of clients or those of peers.
    Garble { server: usize, clients: bool, inward: bool },
    /// A server may open no more descriptors, while strangers connect.
    Descriptors { server: usize },
    /// A server may map no more memory.
    Memory { server: usize },
}

/// A fault, when it begins and when it ends, in milliseconds from the cycle's beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    pub(crate) begin_ms: u64,
    pub(crate) end_ms: u64,
}

/// Everything that goes wrong in one cycle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    pub(crate) faults: Vec<Planned>,
}

/// How many kinds of faults there are.
pub(crate) const KINDS: u64 = 15;

impl Plan {
    /// Draws a cycle for so many servers. At least one is always neither killed nor stopped.
    pub(crate) fn draw(draw: &mut Prng, servers: usize, relays: bool) -> Plan {
        let count = [1, 1, 2, 2, 3, 4][draw.below(6) as usize];
        let mut faults: Vec<Planned> = Vec::new();
        let mut hit = 0_u32;
        while faults.len() < count {
            let fault = Fault::draw(draw, servers);
            if !relays && fault.needs_relay() {
                continue;
            }
            if let Some(server) = fault.disables() {
                hit |= 1 << server;
                if hit.count_ones() as usize >= servers {
                    break;
                }
            }
            let begin_ms = draw.below(900);
            // Seldom so long that everyone must notice, often so short that only few do.
            let length_ms = match draw.below(8) {
                0 => 2_000 + draw.below(2_500),
                1 | 2 => 20 + draw.below(200),
                _ => 200 + draw.below(1_300),
            };
            faults.push(Planned { fault, begin_ms, end_ms: begin_ms + length_ms });
        }
        Plan { faults }
    }

    /// Until when something goes wrong.
    pub(crate) fn end_ms(&self) -> u64 {
        self.faults.iter().map(|planned| planned.end_ms).max().unwrap_or(0)
    }
}

impl Fault {
    fn draw(draw: &mut Prng, servers: usize) -> Fault {
        let mut below = |bound: u64| draw.below(bound);
        let kind = below(KINDS + 2);
        let server = below(servers as u64) as usize;
        let other = (server + 1 + below(servers as u64 - 1) as usize) % servers;
        let (clients, inward) = (below(2) == 0, below(2) == 0);
        match kind {
            0 => Fault::Terminate { server },
            1 => Fault::Stop { server },
            2 => Fault::CutLink { one: server, other },
            3 => Fault::Deafen { from: server, to: other },
            4 => Fault::Partition { side: 1 + below((1 << servers) - 2) as u32 },
            5 => Fault::CutClients { server },
            6 => Fault::StallClients { server, inward },
            7 => Fault::Reset { server, clients },
            8 => Fault::HalfClose { server, clients, inward },
            9 => Fault::Delay { server, ms: 5 + below(145) },
            10 => Fault::Dribble { server },
            11 => Fault::Garble { server, clients, inward },
            12 => Fault::Descriptors { server },
            13 => Fault::Memory { server },
            // What is asked about most comes most.
            _ => Fault::Kill { server },
        }
    }

    /// Whether only a relay can do that: it is about bytes, not about packets.
    fn needs_relay(self) -> bool {
        matches!(self, Fault::HalfClose { .. } | Fault::Dribble { .. } | Fault::Garble { .. })
    }

    /// The server whose process ends, or may end.
    pub(crate) fn kills(self) -> Option<usize> {
        self.disables().filter(|_| !matches!(self, Fault::Stop { .. }))
    }

    /// The server that does not serve for a while.
    fn disables(self) -> Option<usize> {
        match self {
            Fault::Kill { server }
            | Fault::Terminate { server }
            | Fault::Stop { server }
            | Fault::Memory { server } => Some(server),
            _ => None,
        }
    }

    /// Its place in a table of kinds, and its name there.
    pub(crate) fn kind(self) -> (usize, &'static str) {
        match self {
            Fault::Kill { .. } => (0, "kill -9"),
            Fault::Terminate { .. } => (1, "SIGTERM"),
            Fault::Stop { .. } => (2, "SIGSTOP"),
            Fault::CutLink { .. } => (3, "link cut"),
            Fault::Deafen { .. } => (4, "link cut one way"),
            Fault::Partition { .. } => (5, "partition"),
            Fault::CutClients { .. } => (6, "clients cut"),
            Fault::StallClients { .. } => (7, "clients stalled"),
            Fault::Reset { .. } => (8, "reset"),
            Fault::HalfClose { .. } => (9, "half-close"),
            Fault::Delay { .. } => (10, "delay"),
            Fault::Dribble { .. } => (11, "byte by byte"),
            Fault::Garble { .. } => (12, "spoilt frames"),
            Fault::Descriptors { .. } => (13, "no descriptors"),
            Fault::Memory { .. } => (14, "no memory"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, planned) in self.faults.iter().enumerate() {
            let Planned { fault, begin_ms, end_ms } = planned;
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{fault:?} {begin_ms}–{end_ms} ms")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_cycles_and_every_kind_comes() {
        let plans = |seed| {
            let mut draw = Prng::new(seed);
            (0..300).map(|_| Plan::draw(&mut draw, 4, true)).collect::<Vec<_>>()
        };
        assert_eq!(plans(1), plans(1));
        assert_ne!(plans(1), plans(2));
        let all = plans(1);
        let kinds: BTreeSet<usize> = all
            .iter()
            .flat_map(|plan| &plan.faults)
            .map(|planned| planned.fault.kind().0)
            .collect();
        assert_eq!(kinds.len() as u64, KINDS);
    }

    #[test]
    fn one_server_is_always_left() {
        let mut draw = Prng::new(3);
        for _ in 0..2_000 {
            let plan = Plan::draw(&mut draw, 3, true);
            let hit: BTreeSet<usize> =
                plan.faults.iter().filter_map(|planned| planned.fault.disables()).collect();
            assert!(hit.len() < 3, "{plan}");
        }
    }
}
