//! What time brings: deadlines, heartbeats, the end of a batch, the end of the server.

use alloc::string::String;
use alloc::vec::Vec;

use super::conn::{Conn, Phase};
use super::{ChatServer, Effect};
use crate::ids::{ConnId, OriginRef};
use crate::outbox::Outbox;
use crate::time::{MILLI_US, SECOND_US, Time};
use crate::wire::Reason;
use crate::wire::Seq;
use crate::wire::chat::MemberState;
use crate::wire::hello::Bye;
use crate::wire::peer::{MemberRecord, Members, ServerState};

/// How often deadlines of connections and members are looked at.
const SWEEP_US: u64 = 50 * MILLI_US;
/// How often clients are told what is stable.
const STABLE_US: u64 = SECOND_US;
/// For how long a server that joins waits for the next entry of those that its peers had. What one
/// peer does not send is asked for again, and of others, well within that.
const JOIN_STALL_US: u64 = 5 * SECOND_US;
/// How long a server that stops waits until the others have its log.
const DRAIN_US: u64 = SECOND_US;

impl ChatServer {
    /// The time of the call under way.
    pub(super) fn clock_now(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    pub(super) fn on_time(&mut self, now: Time, out: &mut Outbox<Effect>) {
        if self.soon.any() && self.soon_due <= now {
            self.end_batch(now, out);
        }
        if self.timers.beat <= now {
            self.timers.beat = now + self.limits().beat_us;
            self.raise_final_clock();
            self.beat_all(now, out);
        }
        if self.timers.stable <= now {
            self.timers.stable = if planted!(DeadlineStays) { now } else { now + STABLE_US };
            self.tell_stable(out);
        }
        if self.timers.sweep <= now {
            self.timers.sweep = now + SWEEP_US;
            self.sweep(now, out);
        }
        // What this made necessary is done at the next call: a deadline that fired has moved.
        self.soon_due = now + 1;
    }

    /// What is done once for all inputs of a batch.
    fn end_batch(&mut self, now: Time, out: &mut Outbox<Effect>) {
        let soon = core::mem::take(&mut self.soon);
        if soon.tell_held {
            self.tell_held(false, out);
        }
        if soon.plan_pulls {
            self.show_waiting(out);
            self.settle_pasts(now, false, out);
            self.plan_pulls(now, out);
        }
        if soon.acknowledge {
            self.acknowledge_all(out);
        }
        if soon.attach {
            self.go_on_attaching_all(now, out);
        }
        if soon.search && self.search_all(out) {
            self.soon.search = true;
        }
    }

    fn sweep(&mut self, now: Time, out: &mut Outbox<Effect>) {
        self.sweep_connections(now, out);
        self.dial_members(now, out);
        self.go_on_attaching_all(now, out);
        self.depart_overdue(now, out);
        self.decide_overdue(now, out);
        self.queues.expire(now);
        self.reservations.retain(|_, until| *until > now);
        let came = self.stats.shown + self.stats.waited;
        if self.join_progress.0 != came {
            self.join_progress = (came, now);
        }
        if self.state == ServerState::Joining && self.is_in_step(now) {
            self.state = ServerState::Active;
            self.beat_all(now, out);
        }
        if self.timers.second <= now {
            self.timers.second = now + SECOND_US;
            self.refill(out);
            self.tend_places(now, out);
        }
        if let Some(deadline) = self.draining_until {
            self.go_on_draining(now, deadline, out);
        }
    }

    fn sweep_connections(&mut self, now: Time, out: &mut Outbox<Effect>) {
        let limits = self.limits();
        let silence = limits.beat_us * u64::from(limits.beats_missed_max);
        let now = if planted!(WallInTimer) {
            let passed = self.clock.wall(now).saturating_sub(self.config.wall.0);
            Time(self.started.0.saturating_add(passed))
        } else {
            now
        };
        let overdue = |conn: &Conn| {
            let silent = now.since_us(conn.heard);
            match &conn.phase {
                Phase::Pending | Phase::Dialled(_)
                    if now.since_us(conn.opened) >= limits.hello_us_max =>
                {
                    Some(Reason::HelloTimeout)
                }
                Phase::Peer(peer) if peer.is_linked() && silent >= silence => Some(Reason::Silent),
                Phase::Peer(peer)
                    if !peer.is_linked() && now.since_us(conn.opened) >= limits.hello_us_max =>
                {
                    Some(Reason::HelloTimeout)
                }
                _ if conn.begun.is_some_and(|(at, _)| now.since_us(at) >= limits.frame_us_max) => {
                    Some(Reason::FrameTimeout)
                }
                Phase::Client(_) | Phase::Observer
                    if silent >= limits.idle_us_max && !conn.paused.any() =>
                {
                    Some(Reason::Idle)
                }
                _ => None,
            }
        };
        let overdue: Vec<(ConnId, Reason)> =
            self.conns.iter().filter_map(|(id, conn)| Some((id, overdue(conn)?))).collect();
        for (id, reason) in overdue {
            self.close(id, reason, out);
        }
    }

    fn dial_members(&mut self, now: Time, out: &mut Outbox<Effect>) {
        if self.state == ServerState::Draining {
            return;
        }
        loop {
            let links = &self.links;
            let next = self.members.next_dial(now, |server| links.contains_key(&server));
            let Some((dial, address)) = next else { return };
            let address = out.encode(|arena| arena.extend_from_slice(address.as_bytes()));
            out.push(Effect::Dial { dial, address });
        }
    }

    /// Whether a server that joins has what its peers had when it linked with them.
    fn is_in_step(&self, now: Time) -> bool {
        let waited = now.since_us(self.started) >= self.limits().join_us_max;
        let introducing = self.conns.iter().any(|(_, conn)| {
            matches!(conn.phase, Phase::Dialled(_))
                || conn.peer().is_some_and(|peer| !peer.is_linked())
        });
        if !waited && (introducing || !self.members.all_tried()) {
            return false;
        }
        // What was claimed and does not come, is not waited for: it comes later, or it was a lie.
        if waited && now.since_us(self.join_progress.1) >= JOIN_STALL_US {
            return true;
        }
        self.pasts_are_settled()
            && self.linked_peers().all(|(_, peer)| {
                let mut held =
                    peer.held_at_link.iter().enumerate().filter(|(_, number)| **number > 0);
                held.all(|(origin, number)| {
                    let origin = OriginRef(origin as u32);
                    self.archive.shown(origin) + self.waiting.count(origin) >= *number
                })
            })
    }

    /// A new second: everyone may ask again.
    fn refill(&mut self, out: &mut Outbox<Effect>) {
        let allowance = self.limits().requests_per_second_max;
        for (id, conn) in self.conns.iter_mut() {
            conn.allowance = allowance;
            if core::mem::take(&mut conn.paused.requests) && !conn.paused.any() {
                out.push(Effect::Unpause { conn: id });
            }
        }
    }

    // The end.

    /// Hands clients on, lets the others have the rest of the log, then stops.
    pub(super) fn on_drain(&mut self, now: Time, out: &mut Outbox<Effect>) {
        if self.state == ServerState::Draining {
            return;
        }
        self.state = ServerState::Draining;
        self.draining_until = Some(now + DRAIN_US);
        self.beat_all(now, out);
        let next = self.next_address();
        let clients: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| !matches!(conn.phase, Phase::Peer(_) | Phase::Dialled(_)))
            .map(|(id, _)| id)
            .collect();
        for id in clients {
            let bye = Bye { reason: Reason::Draining, retry_ms: 0, next: &next, detail: "" };
            self.close_with(id, &bye, out);
        }
        self.timers.sweep = now;
    }

    fn go_on_draining(&mut self, now: Time, deadline: Time, out: &mut Outbox<Effect>) {
        let last = self.archive.shown(self.own);
        let own = self.own;
        let all_have_it = self.linked_peers().all(|(_, peer)| peer.holds(own) >= last);
        if self.drained || !(all_have_it || now >= deadline) {
            return;
        }
        self.drained = true;
        let address: String = self.config.advertise.clone();
        let record = MemberRecord {
            server: self.id,
            address: &address,
            origin: self.origin,
            state: MemberState::Left,
            version: now.0.max(1),
        };
        for id in self.peers.clone() {
            self.send(id, &Members { members: Seq::new(&[record]) }, out);
            self.close(id, Reason::Goodbye, out);
        }
        out.push(Effect::Stopped);
    }
}
