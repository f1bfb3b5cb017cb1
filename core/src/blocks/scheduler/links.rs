//! How many connections there are to whom.

use super::Scheduler;
use super::api::{Effect, FetchConn, SourceId, Trouble};
use super::meters::WaitMeter;
use super::plan::time_us;
use super::runs::{Conn, Stage};
use crate::outbox::Outbox;
use crate::time::{MILLI_US, SECOND_US, Time};

/// Connecting, hello and Open may take so long.
const CONNECT_US_MAX: u64 = 10 * SECOND_US;
/// What is given before and after a connection more is measured for so long each …
const MEASURE_US: u64 = 250 * MILLI_US;
/// … and the new one has had so long to get going.
const WARM_US: u64 = 100 * MILLI_US;
/// After a connection that did not help, none is tried for so long.
const REST_US: u64 = 30 * SECOND_US;
/// A trial is worth while if there is so much left to do.
const LEFT_US_MIN: u64 = SECOND_US;
/// Connections to one source, at most, that the scheduler opens by itself.
const CONNECTIONS_MAX: u32 = 8;
/// What a connection more must add, in per cent.
const GAIN_PERCENT: u64 = 5;

/// Whether one connection more to the best source helps: found out by trying.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trial {
    phase: Phase,
    /// Connections came, went or fell silent: what was measured means nothing.
    is_disturbed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    /// Not before.
    Rest(Time),
    /// What is given without another connection.
    #[default]
    Begin,
    Before {
        since: Time,
        bytes: u64,
    },
    /// The new connection is made, gets going, and is measured.
    Connecting(Added),
    Warming(Added, Time),
    After {
        added: Added,
        since: Time,
        bytes: u64,
    },
}

/// The connection more.
#[derive(Clone, Copy, Debug)]
struct Added {
    conn: FetchConn,
    /// Index of its source.
    source: usize,
    /// What was given without it, in bytes per second.
    before: u64,
}

impl Trial {
    pub(super) fn disturb(&mut self) {
        self.is_disturbed = true;
    }
}

impl Phase {
    const fn added(self) -> Option<Added> {
        match self {
            Phase::Connecting(added) | Phase::Warming(added, _) | Phase::After { added, .. } => {
                Some(added)
            }
            _ => None,
        }
    }
}

impl Scheduler {
    pub(super) fn on_connected(
        &mut self,
        now: Time,
        id: FetchConn,
        rtt_us: u64,
        requests_max: u32,
    ) {
        let Some(at) = self.conn_at(id) else { return };
        let conn = &mut self.conns[at];
        if conn.stage != Stage::Connecting {
            return;
        }
        conn.stage = Stage::Open;
        conn.rtt_us = rtt_us;
        conn.requests_max = requests_max.clamp(1, self.config.requests_max);
        conn.heard = now;
        let known = self.sources[conn.source].waits.clone();
        conn.waits = known.unwrap_or(WaitMeter::new(now, rtt_us));
        if self.trial.phase.added().is_none_or(|added| added.conn != id) {
            self.trial.disturb();
        }
    }

    /// Connects to every source that has fewer connections than it should.
    pub(super) fn connect(&mut self, now: Time, out: &mut Outbox<Effect>) {
        for at in 0..self.conns.len() {
            let conn = &self.conns[at];
            if conn.stage == Stage::Connecting && conn.since + CONNECT_US_MAX <= now {
                self.close(at, Some(Trouble::Silent), out);
            }
        }
        for index in 0..self.sources.len() {
            let source = &self.sources[index];
            if source.dropped.is_some() || source.retry_at > now {
                continue;
            }
            let live =
                || self.conns.iter().filter(|conn| conn.source == index && !conn.is_closing());
            // Whether it is there at all is found out with one.
            let wanted = match self.config.connections.unwrap_or(1) {
                fixed if live().any(Conn::is_open) => fixed + source.extra,
                _ => 1,
            };
            for _ in live().count() as u32..wanted {
                self.open(now, index, out);
            }
        }
    }

    fn open(&mut self, now: Time, source: usize, out: &mut Outbox<Effect>) -> FetchConn {
        let conn = FetchConn(self.next_conn);
        self.next_conn = self.next_conn.checked_add(1).expect("fewer than 2^32 connections");
        let siblings = self.conns.iter().filter(|conn| conn.source == source);
        let known = siblings.map(|conn| &conn.rate).find(|rate| rate.is_known());
        let rate = known.unwrap_or(&self.sources[source].rate).of_sibling();
        self.conns.push(Conn { rate, ..Conn::new(conn, source, now) });
        out.push(Effect::Connect { source: SourceId(source as u32), conn });
        conn
    }

    /// Closes a connection that has given all that it should.
    pub(super) fn close_if_through(&mut self, id: FetchConn, out: &mut Outbox<Effect>) {
        let Some(at) = self.conn_at(id) else { return };
        let conn = &self.conns[at];
        let is_last = conn.is_retiring || self.config.connection_per_block && conn.asked > 0;
        if is_last && conn.is_open() && conn.runs.is_empty() {
            self.close(at, None, out);
        }
    }

    /// Tries whether a connection more helps.
    pub(super) fn try_connections(&mut self, now: Time, out: &mut Outbox<Effect>) {
        if self.config.connections.is_some()
            || self.config.connection_per_block
            || self.bucket.is_some()
        {
            return;
        }
        if core::mem::take(&mut self.trial.is_disturbed) {
            self.trial.phase = match (self.trial.phase, self.trial.phase.added()) {
                (_, Some(added)) => {
                    self.retire(added, out);
                    Phase::Rest(now + REST_US)
                }
                (Phase::Rest(until), None) => Phase::Rest(until),
                _ => Phase::Begin,
            };
        }
        let received = self.bytes_received;
        let is_over = |since: Time, us: u64| now.since_us(since) >= us;
        let rate = |since: Time, bytes: u64| {
            (received - bytes).saturating_mul(SECOND_US) / now.since_us(since).max(1)
        };
        self.trial.phase = match self.trial.phase {
            Phase::Rest(until) if now >= until => Phase::Begin,
            Phase::Begin => Phase::Before { since: now, bytes: received },
            Phase::Before { since, bytes } if is_over(since, MEASURE_US) => {
                let before = rate(since, bytes);
                match self.best_for_more(now, before) {
                    Some(source) => {
                        self.sources[source].extra += 1;
                        let conn = self.open(now, source, out);
                        Phase::Connecting(Added { conn, source, before })
                    }
                    None => Phase::Begin,
                }
            }
            Phase::Connecting(added) if self.is_open(added.conn) => Phase::Warming(added, now),
            Phase::Warming(added, since) if is_over(since, WARM_US) => {
                Phase::After { added, since: now, bytes: received }
            }
            Phase::After { added, since, bytes } if is_over(since, MEASURE_US) => {
                let wanted = added.before.saturating_mul(100 + GAIN_PERCENT) / 100;
                if rate(since, bytes) >= wanted {
                    Phase::Begin
                } else {
                    self.retire(added, out);
                    Phase::Rest(now + REST_US)
                }
            }
            phase => phase,
        };
    }

    /// The source that gives most, if it may have another connection and there is enough to do.
    fn best_for_more(&self, now: Time, total: u64) -> Option<usize> {
        if total == 0 || time_us(self.missing_bytes(), total) < LEFT_US_MIN {
            return None;
        }
        let rate = |index: usize| -> u64 {
            let conns = self.conns.iter().filter(|conn| conn.source == index && conn.is_sound());
            conns.map(|conn| conn.rate.rate(now)).sum()
        };
        let best = (0..self.sources.len()).max_by_key(|index| rate(*index))?;
        let source = &self.sources[best];
        let may = rate(best) > 0 && source.retry_at <= now && source.extra + 1 < CONNECTIONS_MAX;
        may.then_some(best)
    }

    fn is_open(&self, id: FetchConn) -> bool {
        self.conn_at(id).is_some_and(|at| self.conns[at].is_open())
    }

    /// A connection that did not help is closed when it is through.
    fn retire(&mut self, added: Added, out: &mut Outbox<Effect>) {
        let extra = &mut self.sources[added.source].extra;
        *extra = extra.saturating_sub(1);
        let Some(at) = self.conn_at(added.conn) else { return };
        self.conns[at].is_retiring = true;
        if self.conns[at].stage == Stage::Connecting {
            self.close(at, None, out);
        }
        self.close_if_through(added.conn, out);
    }

    pub(super) fn wakes_of_links(&self, now: Time, by: &mut impl FnMut(Time)) {
        for conn in self.conns.iter().filter(|conn| conn.stage == Stage::Connecting) {
            by(conn.since + CONNECT_US_MAX);
        }
        for source in self.sources.iter().filter(|source| source.dropped.is_none()) {
            by(source.retry_at);
        }
        if self.conns.iter().all(|conn| conn.in_flight_blocks() == 0) {
            return;
        }
        match self.trial.phase {
            Phase::Rest(until) => by(until),
            Phase::Before { since, .. } | Phase::After { since, .. } => by(since + MEASURE_US),
            Phase::Warming(_, since) => by(since + WARM_US),
            Phase::Begin => by(now + MEASURE_US),
            Phase::Connecting(_) => {}
        }
    }
}
