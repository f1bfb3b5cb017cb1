//! What is asked of whom: the horizon, admission by the earliest finish, and where in the file.

use core::ops::Range;

use super::api::{Effect, FetchConn};
use super::runs::{Conn, Run, Stage};
use super::{Scheduler, bytes_of};
use crate::outbox::Outbox;
use crate::time::{MILLI_US, SECOND_US, Time};

/// How things stand for the decisions of one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) now: Time,
    /// When all is here if nobody ever waits, in microseconds from now; nothing is known: for ever.
    finish_us: u64,
    /// Index of the connection that must not be idle while anything is free.
    fastest: Option<usize>,
}

/// A connection has something more to do before less than this is awaited, or four round trips.
const HORIZON_US: u64 = 50 * MILLI_US;
/// What a run is to last.
const RUN_US: u64 = 250 * MILLI_US;
/// A run is not longer, however fast a source is.
const RUN_BYTES_MAX: u64 = 64 << 20;
/// So long a connection that takes the place of another counts as if it were there.
const COMING_US: u64 = 200 * MILLI_US;
/// While others are being waited for, those who could help look so often.
const LOOK_US: u64 = 20 * MILLI_US;

impl Scheduler {
    pub(super) fn plan(&mut self, now: Time, out: &mut Outbox<Effect>) {
        let view = self.view(now);
        // Those that are not known yet show first what they can.
        for is_known in [false, true] {
            for at in 0..self.conns.len() {
                while self.conns[at].rate.is_known() == is_known && self.ask(&view, at, out) {}
            }
        }
    }

    fn view(&self, now: Time) -> View {
        let (mut sum, mut best, mut fastest) = (0_u64, 0, None);
        for (at, conn) in self.conns.iter().enumerate() {
            let is_coming = self.config.connection_per_block
                && conn.stage == Stage::Connecting
                && now.since_us(conn.since) < COMING_US;
            if !is_coming && !self.may_be_asked(now, conn) {
                continue;
            }
            let rate = conn.rate.rate(now);
            sum += rate;
            if rate > best {
                (best, fastest) = (rate, Some(at));
            }
        }
        if let Some(bucket) = &self.bucket {
            sum = sum.min(bucket.bytes_per_s());
        }
        let partial: u64 = self.conns.iter().map(|conn| conn.partial).sum();
        let mut missing = self.missing_bytes().saturating_sub(partial);
        if self.config.sequential {
            // Whoever is slow would keep all others from going on.
            missing = missing.min(self.config.in_flight_bytes_max);
        }
        View { now, finish_us: time_us(missing, sum), fastest }
    }

    fn may_be_asked(&self, now: Time, conn: &Conn) -> bool {
        conn.is_sound() && !conn.is_retiring && conn.paused_until <= now
    }

    /// Asks a connection for one run, if it should have one more.
    fn ask(&mut self, view: &View, at: usize, out: &mut Outbox<Effect>) -> bool {
        let conn = &self.conns[at];
        if self.may_probe(view.now, conn) {
            return self.probe(view.now, at, out);
        }
        let is_full = conn.runs.len() >= conn.requests_max as usize
            || self.config.connection_per_block && conn.asked > 0;
        if is_full || !self.may_be_asked(view.now, conn) || !self.may_pay(view.now) {
            return false;
        }
        let source = conn.source;
        let awaited = self.awaited_bytes(conn);
        if awaited > 0 && (self.is_single(conn) || awaited > horizon_bytes(view.now, conn)) {
            return false;
        }
        let mut most = self.room_blocks();
        if most == 0 {
            self.cancel_suspects(out);
            most = self.room_blocks();
        }
        most = most.saturating_sub(self.reserve_blocks(view, at));
        let blocks = self.run_blocks(view, at).min(most);
        if let Some(run) = self.find_free(source, blocks) {
            self.free.remove_range(run.clone());
            let request = self.new_run(run);
            self.request(view.now, at, request, None, out);
            return true;
        }
        most > 0 && self.take_from_another(view.now, at, most, out)
    }

    /// Whether nothing is due, and bytes of a connection change nothing: it has enough to do.
    pub(super) fn has_enough(&self, now: Time, id: FetchConn) -> bool {
        let conn = self.conn_at(id).map(|at| &self.conns[at]);
        let is_busy = |conn: &Conn| self.awaited_bytes(conn) > horizon_bytes(now, conn);
        self.wake.is_some_and(|wake| wake > now) && conn.is_some_and(is_busy)
    }

    /// Only one block is asked of it at a time.
    pub(super) fn is_single(&self, conn: &Conn) -> bool {
        !conn.rate.is_known()
            || self.config.connection_per_block
            || self.sources[conn.source].probation > 0
    }

    /// How long the next run is to be, in blocks; 0 if others do the rest sooner.
    fn run_blocks(&self, view: &View, at: usize) -> u64 {
        let conn = &self.conns[at];
        if !conn.rate.is_known() {
            let is_late = view.finish_us < HORIZON_US.max(4 * conn.rtt_us);
            return u64::from(!is_late || view.fastest.is_none());
        }
        let rate = conn.rate.rate(view.now);
        let block = u64::from(self.config.layout.block_bytes());
        let in_time_bytes = in_time(rate, view.finish_us.saturating_sub(conn.rtt_us));
        let in_time_blocks = in_time_bytes.saturating_sub(self.awaited_bytes(conn)) / block;
        let admitted = in_time_blocks.max(u64::from(view.fastest == Some(at)));
        if self.is_single(conn) {
            return admitted.min(1);
        }
        let mut bytes = in_time(rate, RUN_US.min(view.finish_us / 2)).min(RUN_BYTES_MAX);
        if let Some(bucket) = &self.bucket {
            bytes = bytes.min(in_time(bucket.bytes_per_s(), HORIZON_US));
        }
        (bytes / block).max(1).min(admitted)
    }

    /// A free run for a source, `most` blocks at most.
    fn find_free(&self, source: usize, most: u64) -> Option<Range<u64>> {
        if most == 0 {
            return None;
        }
        if !self.config.sequential {
            let cursor = self.sources[source].cursor;
            let first = self.free.next(cursor).or_else(|| self.free.next(self.low))?;
            return Some(self.free.run_at(first, most));
        }
        let first = self.free.next(self.low)?;
        let most = most.min(self.window_end().saturating_sub(first));
        (most > 0).then(|| self.free.run_at(first, most))
    }

    /// In order, nothing is asked for further ahead than what may be in flight.
    pub(super) fn window_end(&self) -> u64 {
        let layout = &self.config.layout;
        let window = self.config.in_flight_bytes_max / u64::from(layout.block_bytes());
        if self.config.sequential { self.low + window } else { layout.blocks() }
    }

    pub(super) fn new_run(&mut self, blocks: Range<u64>) -> Run {
        self.next_request += 1;
        Run::new(self.next_request, blocks)
    }

    /// Asks for a run, which owns its blocks from now on; `victim` is who is asked for them, too.
    pub(super) fn request(
        &mut self,
        now: Time,
        at: usize,
        run: Run,
        victim: Option<usize>,
        out: &mut Outbox<Effect>,
    ) {
        let blocks = run.next..run.end;
        self.cancel_senders(&blocks, [Some(at), victim], out);
        if let Some(bucket) = &mut self.bucket {
            bucket.pay(bytes_of(&self.config, run.owned()));
        }
        let conn = &mut self.conns[at];
        let source = &mut self.sources[conn.source];
        source.cursor = blocks.end;
        if conn.runs.is_empty() {
            conn.heard = now;
            // It waited for us, not we for it.
            if !source.is_failing {
                source.alive_at = now;
            }
        }
        conn.rate.begin(now, conn.rtt_us);
        conn.asked += 1;
        let count = u32::try_from(blocks.end - blocks.start).expect("fewer blocks than a file has");
        out.push(Effect::Request {
            conn: conn.id,
            request: run.request,
            first: blocks.start,
            count,
        });
        conn.runs.push_back(run);
    }

    /// Whoever would send blocks of a run that are not its own any more is told not to, so that
    /// no block is on its way from more than two.
    fn cancel_senders(
        &mut self,
        blocks: &Range<u64>,
        but: [Option<usize>; 2],
        out: &mut Outbox<Effect>,
    ) {
        for (at, conn) in self.conns.iter_mut().enumerate() {
            if but.contains(&Some(at)) {
                continue;
            }
            for run in conn.runs.iter_mut().filter(|run| run.sends_others(blocks)) {
                run.is_cancelled = true;
                out.push(Effect::Cancel { conn: conn.id, request: run.request });
            }
        }
    }

    /// Takes back what is asked for and not wanted.
    pub(super) fn trim_runs(&mut self, now: Time, out: &mut Outbox<Effect>) {
        let block = u64::from(self.config.layout.block_bytes());
        for conn in &mut self.conns {
            let lead = in_time(conn.rate.rate(now), conn.rtt_us) / block;
            for run in conn.runs.iter_mut().filter(|run| !run.is_cancelled) {
                while run.keep > run.next && self.stored.contains(run.keep - 1) {
                    run.keep -= 1;
                }
                if run.keep == run.end {
                    continue;
                }
                let extra = run.keep.max(run.next)..run.end;
                let is_stored =
                    || self.stored.run_at(extra.start, extra.end - extra.start) == extra;
                if run.is_extra_welcome && !is_stored() {
                    continue;
                }
                if run.next + lead >= run.keep {
                    run.is_cancelled = true;
                    out.push(Effect::Cancel { conn: conn.id, request: run.request });
                }
            }
        }
    }

    /// Bytes that are still awaited of a connection.
    pub(super) fn awaited_bytes(&self, conn: &Conn) -> u64 {
        let bytes = conn.runs.iter().map(|run| bytes_of(&self.config, run.in_flight()));
        bytes.sum::<u64>().saturating_sub(conn.partial)
    }

    /// Blocks that may be asked for before too much is in flight.
    fn room_blocks(&self) -> u64 {
        let room = self.config.in_flight_bytes_max.saturating_sub(self.in_flight_bytes());
        room / u64::from(self.config.layout.block_bytes())
    }

    /// How much of that is left to the fastest, which a slow one would keep from work for long.
    fn reserve_blocks(&self, view: &View, at: usize) -> u64 {
        let is_known = self.conns[at].rate.is_known();
        let fastest = view.fastest.filter(|fastest| is_known && *fastest != at);
        let Some(fastest) = fastest else { return 0 };
        let block = u64::from(self.config.layout.block_bytes());
        let half = (self.config.in_flight_bytes_max / block).div_ceil(2);
        let conn = &self.conns[fastest];
        let needed = in_time(conn.rate.rate(view.now), HORIZON_US) / block + 1;
        needed.min(half).saturating_sub(conn.in_flight_blocks())
    }

    fn may_pay(&self, now: Time) -> bool {
        self.bucket.as_ref().is_none_or(|bucket| bucket.open_at() <= now)
    }

    /// When something is to be looked at again.
    pub(super) fn next_wake(&self, now: Time) -> Option<Time> {
        let mut wake: Option<Time> = None;
        let mut by = |time: Time| {
            if time > now {
                wake = Some(wake.map_or(time, |wake| wake.min(time)));
            }
        };
        self.wakes_of_faults(now, &mut by);
        self.wakes_of_links(now, &mut by);
        let is_idle = |conn: &Conn| self.may_be_asked(now, conn) && conn.in_flight_blocks() == 0;
        let is_busy = |conn: &Conn| conn.in_flight_blocks() > 0;
        if self.conns.iter().any(is_idle) && self.conns.iter().any(is_busy) {
            by(now + LOOK_US);
        }
        if let Some(bucket) = &self.bucket {
            by(bucket.open_at());
        }
        wake
    }
}

/// With less to come than this a connection has something more to do.
fn horizon_bytes(now: Time, conn: &Conn) -> u64 {
    in_time(conn.rate.rate(now), HORIZON_US.max(4 * conn.rtt_us))
}

/// Bytes at a rate in bytes per second during a time in microseconds.
pub(super) fn in_time(rate: u64, us: u64) -> u64 {
    let bytes = u128::from(rate) * u128::from(us) / u128::from(SECOND_US);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Microseconds for bytes at a rate in bytes per second; for ever at no rate.
pub(super) fn time_us(bytes: u64, rate: u64) -> u64 {
    let us = (u128::from(bytes) * u128::from(SECOND_US)).checked_div(u128::from(rate));
    us.and_then(|us| u64::try_from(us).ok()).unwrap_or(u64::MAX)
}
