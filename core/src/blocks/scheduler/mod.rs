//! Which source is asked for which block, and when: the scheduler of a fetch.
//!
//! Every block is *stored*, *free*, or *owned* by exactly one run of one connection: whoever asks
//! for it last. It changes hands when a connection dies or falls silent (it is free again), when
//! an idle one takes the tail of what another will be long about, or asks for the same block.
//!
//! ```text
//!                 request                 stored
//!        free ─────────────▶ owned by a run ─────▶ stored
//!          ▲                  │      │ ▲
//!          └──────────────────┘      └─┘ tail split, hedge
//!        closed, refused, silent, bad
//! ```
//!
//! What is outstanding is bounded in time, not in number: a source has a request more as soon as
//! less than max(4 round trips, 50 ms) of its own speed is awaited of it, for a quarter of a second
//! of its speed, and near the end for half of what the ideal finish leaves (`plan`). Silence, wrong
//! bytes and retries are in `faults`, the number of connections in `links`.

mod api;
mod check;
mod faults;
mod links;
mod meters;
mod plan;
mod runs;
mod sources;
mod steal;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::ops::Range;

pub use api::{
    Config, Effect, Fault, FetchConn, IN_FLIGHT_BYTES_DEFAULT, Input, Progress, REQUESTS_DEFAULT,
    RunEnd, SourceId, SourceReport, SourceState, TIMEOUT_US_DEFAULT, Trouble,
};

use self::links::Trial;
use self::meters::Bucket;
use self::runs::{Conn, Stage};
use self::sources::Source;
use super::BlockSet;
use crate::machine::Machine;
use crate::outbox::Outbox;
use crate::prng::Prng;
use crate::time::{MILLI_US, Time};

/// Fetches every block of a file exactly once from sources that may be slow, silent or lying.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    stored: BlockSet,
    /// Neither stored nor owned.
    free: BlockSet,
    /// The first block that is not stored.
    low: u64,
    sources: Vec<Source>,
    /// By id, which grows.
    conns: Vec<Conn>,
    next_conn: u32,
    next_request: u64,
    bucket: Option<Bucket>,
    trial: Trial,
    prng: Prng,
    bytes_received: u64,
    duplicate_bytes: u64,
    /// Blocks that were asked of a second source while a first was about them.
    hedges: u64,
    /// Done, failed or cancelled: nothing is wanted any more.
    is_over: bool,
    wake: Option<Time>,
}

impl Scheduler {
    /// A fetch of what is not in `stored`; `seed` is for jitter. Where nothing is missing, `Done` comes
    /// with the first timeout.
    ///
    /// Panics when `stored` is not of a file of that layout, or a bound of `config` leaves no room for
    /// one block, one request, one connection or one byte a second.
    #[must_use]
    pub fn new(config: Config, stored: &BlockSet, seed: u64) -> Scheduler {
        let blocks = config.layout.blocks();
        assert_eq!(stored.blocks(), blocks, "a set of this file's blocks");
        assert!(
            config.in_flight_bytes_max >= config.layout.block_bytes().into(),
            "room for a block"
        );
        assert!(config.requests_max > 0 && config.connections != Some(0), "room for a request");
        let mut free = BlockSet::full(blocks);
        for run in stored.runs() {
            free.remove_range(run);
        }
        Scheduler {
            stored: stored.clone(),
            free,
            low: stored.next_missing(0),
            sources: Vec::new(),
            conns: Vec::new(),
            next_conn: 0,
            next_request: 0,
            bucket: config.limit_rate.map(Bucket::new),
            trial: Trial::default(),
            prng: Prng::new(seed),
            bytes_received: 0,
            duplicate_bytes: 0,
            hedges: 0,
            is_over: false,
            wake: stored.is_full().then_some(Time::ZERO),
            config,
        }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self, now: Time) -> Progress {
        let layout = &self.config.layout;
        Progress {
            blocks: layout.blocks(),
            blocks_stored: self.stored.len(),
            bytes: layout.length(),
            bytes_stored: layout.length() - self.missing_bytes(),
            bytes_received: self.bytes_received,
            duplicate_bytes: self.duplicate_bytes,
            in_flight_bytes: self.in_flight_bytes(),
            bytes_per_s: self
                .conns
                .iter()
                .filter(|conn| conn.is_sound())
                .map(|conn| conn.rate.rate(now))
                .sum(),
        }
    }

    /// How each source does, in the order in which they were added.
    pub fn sources(&self, now: Time) -> impl Iterator<Item = SourceReport<'_>> {
        self.sources.iter().enumerate().map(move |(at, source)| {
            let conns = || self.conns.iter().filter(move |conn| conn.source == at);
            let sound = || conns().filter(|conn| conn.is_sound());
            let state = match source.dropped {
                Some(why) => SourceState::Dropped(why),
                None if sound().next().is_some() => SourceState::Working,
                None if conns().any(Conn::is_open) => SourceState::Suspect,
                None if conns().any(|conn| conn.stage == Stage::Connecting) => {
                    SourceState::Connecting
                }
                None => SourceState::Waiting,
            };
            SourceReport {
                source: SourceId(at as u32),
                state,
                connections: conns().filter(|conn| conn.is_open()).count() as u32,
                bytes: source.bytes,
                blocks_stored: source.blocks_stored,
                blocks_bad: source.blocks_bad,
                bytes_per_s: sound().map(|conn| conn.rate.rate(now)).sum(),
                troubles: &source.troubles,
            }
        })
    }

    /// The blocks that are stored.
    #[must_use]
    pub const fn stored(&self) -> &BlockSet {
        &self.stored
    }

    /// Whether it is done, failed or cancelled.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whoever drives the machine was late, and so was whatever it had to tell: silence that
    /// nobody could hear is nobody's fault.
    fn forgive(&mut self, now: Time) {
        let late_us = self.wake.map_or(0, |wake| now.since_us(wake));
        if late_us < LATE_US {
            return;
        }
        for conn in &mut self.conns {
            // What came meanwhile is told next: nobody is suspect before.
            let excused = now + GRACE_US - conn.waits.stall_us();
            conn.heard = (conn.heard + late_us).max(excused).min(now);
            conn.rate.skip(late_us.min(now.since_us(conn.since)));
        }
    }

    /// Does what is due and what has become possible.
    fn settle(&mut self, now: Time, out: &mut Outbox<Effect>) {
        if !self.is_over && self.stored.is_full() {
            self.finish(Some(Effect::Done), out);
        }
        if !self.is_over {
            self.suspect_silent(now, out);
            self.give_up_starved(now, out);
        }
        if !self.is_over {
            if let Some(bucket) = &mut self.bucket {
                bucket.refill(now);
            }
            self.try_connections(now, out);
            self.connect(now, out);
            self.plan(now, out);
        }
        self.wake = if self.is_over { None } else { self.next_wake(now) };
    }

    /// Closes everything; nothing follows.
    fn finish(&mut self, last: Option<Effect>, out: &mut Outbox<Effect>) {
        for at in 0..self.conns.len() {
            self.close(at, None, out);
        }
        self.is_over = true;
        if let Some(last) = last {
            out.push(last);
        }
    }

    fn on_source_added(&mut self, now: Time, source: SourceId) {
        assert_eq!(source.0 as usize, self.sources.len(), "sources are numbered in their order");
        // 0, 1/2, 1/4, 3/4, 1/8 …: whatever their number, they begin far from each other.
        let fraction = u64::from(source.0.reverse_bits());
        let cursor = (self.config.layout.blocks() * fraction) >> 32;
        self.sources.push(Source::new(cursor, now));
    }

    fn on_arrived(&mut self, now: Time, id: FetchConn, bytes: u64, out: &mut Outbox<Effect>) {
        self.bytes_received += bytes;
        let Some(at) = self.conn_at(id) else { return };
        let conn = &mut self.conns[at];
        self.sources[conn.source].bytes += bytes;
        conn.partial += bytes;
        conn.byte_at = now;
        conn.rate.arrived(now, bytes);
        self.hear(now, at, out);
    }

    fn on_stored(&mut self, now: Time, id: FetchConn, block: u64, out: &mut Outbox<Effect>) {
        let at = self.conn_at(id);
        if let Some(at) = at {
            self.hear(now, at, out);
            self.came(now, at, block);
            self.sources[self.conns[at].source].succeeded(now);
        }
        if !self.stored.insert(block) {
            self.duplicate_bytes += u64::from(self.config.layout.block_len(block));
        } else {
            self.low = self.stored.next_missing(self.low);
            if let Some(at) = at {
                self.sources[self.conns[at].source].blocks_stored += 1;
            }
            self.free.remove(block);
        }
        self.trim_runs(now, out);
        self.close_if_through(id, out);
    }

    /// The next block of a run came whole, whatever it is worth. Whether it was the run's own.
    fn came(&mut self, now: Time, at: usize, block: u64) -> bool {
        let len = u64::from(self.config.layout.block_len(block));
        let conn = &mut self.conns[at];
        conn.partial = conn.partial.saturating_sub(len);
        let Some(index) = conn.run_of(block) else { return false };
        let run = &mut conn.runs[index];
        let skipped = run.next..run.keep.min(block);
        let was_owner = block < run.keep;
        run.next = block + 1;
        run.keep = run.keep.max(run.next);
        if run.next == run.end {
            conn.runs.remove(index);
        }
        self.release(skipped);
        self.rest(now, at);
        was_owner
    }

    /// Blocks that a run owned are free again.
    fn release(&mut self, blocks: Range<u64>) {
        let mut from = blocks.start;
        while from < blocks.end {
            let end = self.stored.next(from).map_or(blocks.end, |stored| stored.min(blocks.end));
            let freed = self.free.insert_range(from..end);
            debug_assert_eq!(freed, end - from, "what is owned is not free");
            if let Some(bucket) = &mut self.bucket {
                bucket.give_back(bytes_of(&self.config, from..end));
            }
            from = self.stored.run_at(end, blocks.end - end).end;
        }
    }

    /// Nothing may be awaited of a connection any more.
    fn rest(&mut self, now: Time, at: usize) {
        let conn = &mut self.conns[at];
        if conn.in_flight_blocks() == 0 {
            conn.rate.end(now);
        }
        if conn.runs.is_empty() {
            conn.partial = 0;
        }
    }

    fn conn_at(&self, id: FetchConn) -> Option<usize> {
        self.conns.binary_search_by_key(&id, |conn| conn.id).ok()
    }

    fn missing_bytes(&self) -> u64 {
        let layout = &self.config.layout;
        let missing = layout.blocks() - self.stored.len();
        let whole = missing * u64::from(layout.block_bytes());
        match layout.blocks().checked_sub(1) {
            Some(last) if !self.stored.contains(last) => {
                whole - u64::from(layout.block_bytes() - layout.block_len(last))
            }
            _ => whole,
        }
    }

    fn in_flight_bytes(&self) -> u64 {
        let runs = self.conns.iter().flat_map(|conn| &conn.runs);
        runs.map(|run| bytes_of(&self.config, run.in_flight())).sum()
    }
}

impl Machine for Scheduler {
    type Input<'a> = Input;
    type Effect = Effect;

    fn handle_input(&mut self, now: Time, input: Input, out: &mut Outbox<Effect>) {
        self.forgive(now);
        match input {
            Input::SourceAdded { source } => self.on_source_added(now, source),
            Input::Connected { conn, rtt_us, requests_max } => {
                self.on_connected(now, conn, rtt_us, requests_max);
            }
            Input::Arrived { conn, bytes } => {
                self.on_arrived(now, conn, bytes, out);
                if self.has_enough(now, conn) {
                    return;
                }
            }
            Input::Stored { conn, block } => self.on_stored(now, conn, block, out),
            Input::Bad { conn, block } => self.on_bad(now, conn, block, out),
            Input::Ended { conn, request, end } => self.on_ended(now, conn, request, end, out),
            Input::Closed { conn, fault } => self.on_closed(now, conn, fault, out),
            Input::Cancelled if !self.is_over => self.finish(None, out),
            Input::Cancelled => {}
        }
        self.settle(now, out);
    }

    fn handle_timeout(&mut self, now: Time, out: &mut Outbox<Effect>) {
        if self.wake.is_none_or(|wake| wake > now) {
            return;
        }
        self.forgive(now);
        self.settle(now, out);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.wake
    }

    fn check(&self) {
        self.check_invariants();
    }
}

/// Bytes of a run; none when it is empty.
fn bytes_of(config: &Config, blocks: Range<u64>) -> u64 {
    if blocks.start >= blocks.end {
        return 0;
    }
    let range = config.layout.range(blocks.start, blocks.end - blocks.start);
    range.end - range.start
}

/// A driver that comes so much later than it was asked to was not there.
const LATE_US: u64 = 50 * MILLI_US;
/// So long after that nobody is suspect.
const GRACE_US: u64 = 10 * MILLI_US;
