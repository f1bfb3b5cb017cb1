//! What is seen of a world from outside.

use super::*;

impl World {
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

    /// How many entries servers have sent again.
    #[must_use]
    pub fn resent(&self) -> u64 {
        let running = self.nodes.iter().filter_map(Node::machine);
        self.resent_before + running.map(|machine| machine.stats().resent).sum::<u64>()
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
