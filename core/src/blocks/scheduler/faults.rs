//! Silence, wrong bytes, refusals and lost connections.

use super::Scheduler;
use super::api::{Effect, Fault, FetchConn, RunEnd, SourceId, Trouble};
use super::runs::{Conn, Stage, Suspicion};
use crate::outbox::Outbox;
use crate::time::{SECOND_US, Time};
use crate::wire::Reason;

/// A suspect is asked for one block after this, then after twice as long, and so on.
const PROBE_US: u64 = SECOND_US;
/// A suspect is closed after this if any other works.
const SUSPECT_US_MAX: u64 = 10 * SECOND_US;
/// Whoever sent a wrong block is asked for single ones until so many were right.
const PROBATION_BLOCKS: u32 = 64;
/// So many wrong blocks, or connections of garbage, and a source is left out.
const STRIKES: u32 = 2;

impl Scheduler {
    /// A sign of life.
    pub(super) fn hear(&mut self, now: Time, at: usize, out: &mut Outbox<Effect>) {
        let conn = &mut self.conns[at];
        if !conn.runs.is_empty() {
            conn.waits.heard(now, now.since_us(conn.heard));
        }
        conn.heard = now;
        if conn.suspicion.take().is_some() {
            self.trial.disturb();
            self.reclaim(at);
            self.trim_runs(now, out);
        }
    }

    /// What is on its way from a connection anyway and free becomes its own again.
    fn reclaim(&mut self, at: usize) {
        for run in self.conns[at].runs.iter_mut().filter(|run| !run.is_cancelled) {
            let from = run.keep.max(run.next);
            let blocks = self.free.run_at(from, run.end - from);
            if blocks.is_empty() {
                continue;
            }
            self.free.remove_range(blocks.clone());
            if let Some(bucket) = &mut self.bucket {
                bucket.pay(super::bytes_of(&self.config, blocks.clone()));
            }
            run.keep = blocks.end;
            run.is_extra_welcome &= run.keep < run.end;
        }
    }

    /// Frees what a connection owns. What was asked of it stays welcome until others are asked.
    fn free_owned(&mut self, at: usize) {
        for index in 0..self.conns[at].runs.len() {
            let run = &mut self.conns[at].runs[index];
            let owned = run.owned();
            run.keep = run.next;
            run.is_extra_welcome = true;
            self.release(owned);
        }
    }

    /// What became free is left to those that are about to send it anyway.
    fn reclaim_all(&mut self) {
        for at in 0..self.conns.len() {
            if self.conns[at].is_sound() {
                self.reclaim(at);
            }
        }
    }

    /// Those that gave nothing for too long: what they have not delivered is free.
    pub(super) fn suspect_silent(&mut self, now: Time, out: &mut Outbox<Effect>) {
        for at in 0..self.conns.len() {
            let conn = &mut self.conns[at];
            if let Some(suspicion) = conn.suspicion {
                if suspicion.since + SUSPECT_US_MAX <= now && self.any_works() {
                    self.close(at, Some(Trouble::Silent), out);
                }
            } else if stall_at(conn).is_some_and(|at| at <= now) {
                conn.suspicion =
                    Some(Suspicion { since: now, probe_at: now + PROBE_US, probe_us: PROBE_US });
                self.sources[conn.source].note(Trouble::Silent);
                self.trial.disturb();
                self.free_owned(at);
                self.reclaim_all();
            }
        }
    }

    /// Takes back what suspects were asked for: others need the room.
    pub(super) fn cancel_suspects(&mut self, out: &mut Outbox<Effect>) {
        for conn in self.conns.iter_mut().filter(|conn| conn.suspicion.is_some()) {
            for run in conn.runs.iter_mut().filter(|run| !run.is_cancelled) {
                run.is_cancelled = true;
                out.push(Effect::Cancel { conn: conn.id, request: run.request });
            }
        }
    }

    fn any_works(&self) -> bool {
        let works = |conn: &Conn| conn.is_sound() && self.sources[conn.source].blocks_stored > 0;
        self.conns.iter().any(works)
    }

    /// Whether a suspect is to be asked for one block: nothing is awaited of it by which it could
    /// show that it is there.
    pub(super) fn may_probe(&self, now: Time, conn: &Conn) -> bool {
        let is_due = conn.suspicion.is_some_and(|suspicion| suspicion.probe_at <= now);
        let awaits = conn.runs.iter().any(|run| !run.is_cancelled);
        let may_ask = !self.config.connection_per_block || conn.asked == 0;
        is_due
            && may_ask
            && conn.is_open()
            && !awaits
            && conn.runs.len() < conn.requests_max as usize
    }

    /// Asks a suspect for a block that stays free.
    pub(super) fn probe(&mut self, now: Time, at: usize, out: &mut Outbox<Effect>) -> bool {
        let conn = &mut self.conns[at];
        if let Some(suspicion) = &mut conn.suspicion {
            suspicion.probe_us *= 2;
            suspicion.probe_at = now + suspicion.probe_us;
        }
        let Some(block) = self.unasked(self.conns[at].source) else { return false };
        if self.in_flight_bytes() + u64::from(self.config.layout.block_bytes())
            > self.config.in_flight_bytes_max
        {
            return false;
        }
        let mut run = self.new_run(block..block + 1);
        (run.keep, run.is_extra_welcome) = (block, true);
        let heard = self.conns[at].heard;
        self.request(now, at, run, None, out);
        self.conns[at].heard = heard;
        false
    }

    /// A free block that nobody is about to send.
    fn unasked(&self, source: usize) -> Option<u64> {
        let cursor = if self.config.sequential { self.low } else { self.sources[source].cursor };
        let mut block = self.free.next(cursor).or_else(|| self.free.next(self.low))?;
        let senders = || self.conns.iter().flat_map(|conn| &conn.runs);
        while let Some(run) = senders().find(|run| run.in_flight().contains(&block)) {
            block = self.free.next(run.end)?;
        }
        (block < self.window_end()).then_some(block)
    }

    pub(super) fn on_bad(
        &mut self,
        now: Time,
        id: FetchConn,
        block: u64,
        out: &mut Outbox<Effect>,
    ) {
        let Some(at) = self.conn_at(id) else { return };
        self.hear(now, at, out);
        if self.came(now, at, block) && !self.stored.contains(block) {
            self.release(block..block + 1);
            self.reclaim_all();
        }
        let index = self.conns[at].source;
        let source = &mut self.sources[index];
        source.blocks_bad += 1;
        source.probation = PROBATION_BLOCKS;
        source.note(Trouble::Corrupt);
        if source.blocks_bad >= STRIKES.into() {
            self.drop_source(index, Trouble::Corrupt, out);
        }
        self.close_if_through(id, out);
    }

    pub(super) fn on_ended(
        &mut self,
        now: Time,
        id: FetchConn,
        request: u64,
        end: RunEnd,
        out: &mut Outbox<Effect>,
    ) {
        let Some(at) = self.conn_at(id) else { return };
        self.hear(now, at, out);
        let conn = &mut self.conns[at];
        let Some(index) = conn.runs.iter().position(|run| run.request == request) else { return };
        if let Some(run) = conn.runs.remove(index) {
            self.release(run.owned());
            self.rest(now, at);
            self.reclaim_all();
        }
        if let RunEnd::Refused { reason, retry_us } = end {
            self.refused(now, at, reason, retry_us, out);
        }
        self.close_if_through(id, out);
    }

    fn refused(
        &mut self,
        now: Time,
        at: usize,
        reason: Reason,
        retry_us: u64,
        out: &mut Outbox<Effect>,
    ) {
        let index = self.conns[at].source;
        let trouble = match reason {
            Reason::Cancelled => return,
            Reason::Busy => Trouble::Busy,
            Reason::FileHashing => Trouble::Hashing,
            Reason::FileChanged => Trouble::Changed,
            Reason::FileUnknown => Trouble::Unknown,
            Reason::FileForbidden => Trouble::Forbidden,
            other => Trouble::Refused(other),
        };
        let wait_us = self.failed(now, index, trouble, retry_us, out);
        let conn = &mut self.conns[at];
        if conn.is_open() {
            conn.paused_until = now + wait_us;
        }
        // Only who opens the file anew finds out which version is there now.
        if trouble == Trouble::Changed {
            self.close(at, None, out);
        }
    }

    pub(super) fn on_closed(
        &mut self,
        now: Time,
        id: FetchConn,
        fault: Fault,
        out: &mut Outbox<Effect>,
    ) {
        let Some(at) = self.conn_at(id) else { return };
        self.free_owned(at);
        let mut conn = self.conns.remove(at);
        conn.rate.end(now);
        if conn.asked > 0 {
            let source = &mut self.sources[conn.source];
            source.rate = conn.rate.clone();
            source.waits = Some(conn.waits.clone());
        }
        if !conn.is_closing() {
            self.trial.disturb();
        }
        self.reclaim_all();
        let trouble = match (conn.stage, Trouble::of(fault)) {
            (Stage::Closing(why), _) => why,
            (Stage::Open, None) => conn.suspicion.map(|_| Trouble::Silent),
            (Stage::Connecting, None) => Some(Trouble::Ended),
            (_, trouble) => trouble,
        };
        let retry_us = match fault {
            Fault::Busy { retry_us } | Fault::Hashing { retry_us } => retry_us,
            _ => 0,
        };
        if let Some(trouble) = trouble {
            self.failed(now, conn.source, trouble, retry_us, out);
        }
    }

    /// A source failed in some way; how long it is left alone, in microseconds.
    fn failed(
        &mut self,
        now: Time,
        index: usize,
        trouble: Trouble,
        retry_us: u64,
        out: &mut Outbox<Effect>,
    ) -> u64 {
        let source = &mut self.sources[index];
        if source.dropped.is_some() {
            return 0;
        }
        source.note(trouble);
        let wait_us = source.backoff.next_us(&mut self.prng).max(retry_us);
        source.retry_at = now + wait_us;
        if !source.is_failing || trouble == Trouble::Hashing {
            (source.is_failing, source.alive_at) = (true, now);
        }
        source.garbage += u32::from(trouble == Trouble::Garbage);
        let is_final =
            matches!(trouble, Trouble::OtherVersion | Trouble::Unknown | Trouble::Forbidden);
        if is_final || source.garbage >= STRIKES {
            self.drop_source(index, trouble, out);
        }
        wait_us
    }

    /// Leaves a source out for good.
    fn drop_source(&mut self, index: usize, why: Trouble, out: &mut Outbox<Effect>) {
        if self.sources[index].dropped.is_some() || self.is_over {
            return;
        }
        self.sources[index].dropped = Some(why);
        for at in 0..self.conns.len() {
            if self.conns[at].source == index {
                self.close(at, None, out);
            }
        }
        out.push(Effect::Drop { source: SourceId(index as u32), why });
    }

    /// Closes a connection; what it owns is free.
    pub(super) fn close(&mut self, at: usize, why: Option<Trouble>, out: &mut Outbox<Effect>) {
        if self.conns[at].is_closing() {
            return;
        }
        self.free_owned(at);
        let conn = &mut self.conns[at];
        conn.runs.clear();
        conn.partial = 0;
        conn.suspicion = None;
        conn.stage = Stage::Closing(why);
        out.push(Effect::Close { conn: conn.id });
        if !conn.is_retiring {
            self.trial.disturb();
        }
        self.reclaim_all();
    }

    /// Gives up when every source is dropped or has failed for too long.
    pub(super) fn give_up_starved(&mut self, now: Time, out: &mut Outbox<Effect>) {
        let is_starved = |index: usize| {
            self.sources[index].dropped.is_some()
                || self.starved_at(now, index).is_some_and(|at| at <= now)
        };
        if !self.sources.is_empty() && (0..self.sources.len()).all(is_starved) {
            for source in self.sources.iter_mut().filter(|source| source.troubles.is_empty()) {
                source.note(Trouble::Silent);
            }
            self.finish(Some(Effect::Failed), out);
        }
    }

    /// When a source will have given nothing for too long; none while it waits for us.
    fn starved_at(&self, now: Time, index: usize) -> Option<Time> {
        let mut alive_at = self.sources[index].alive_at;
        for conn in self.conns.iter().filter(|conn| conn.source == index && conn.is_open()) {
            if conn.runs.is_empty() && conn.is_sound() && conn.paused_until <= now {
                return None;
            }
            alive_at = alive_at.max(conn.byte_at);
        }
        Some(alive_at + self.config.timeout_us)
    }

    pub(super) fn wakes_of_faults(&self, now: Time, by: &mut impl FnMut(Time)) {
        for conn in self.conns.iter().filter(|conn| conn.is_open()) {
            match conn.suspicion {
                None => {
                    if let Some(at) = stall_at(conn) {
                        by(at);
                    }
                }
                Some(suspicion) => {
                    by(suspicion.probe_at);
                    by(suspicion.since + SUSPECT_US_MAX);
                }
            }
            by(conn.paused_until);
        }
        let standing = (0..self.sources.len()).filter(|at| self.sources[*at].dropped.is_none());
        let mut last = None;
        for index in standing {
            match self.starved_at(now, index) {
                None => return,
                at => last = last.max(at),
            }
        }
        if let Some(last) = last {
            by(last);
        }
    }
}

/// When a connection of which something is awaited will have been silent for too long.
fn stall_at(conn: &Conn) -> Option<Time> {
    let awaits = conn.is_open() && !conn.runs.is_empty();
    awaits.then(|| conn.heard + conn.waits.stall_us())
}
