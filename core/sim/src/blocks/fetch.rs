//! One fetch under virtual time.
#![allow(clippy::print_stdout, reason = "a trace, when one is asked for")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use cordee_core::blocks::BlockSet;
use cordee_core::blocks::scheduler::{
    Config, Effect, Fault, FetchConn, Input, RunEnd, Scheduler, SourceId, Trouble,
};
use cordee_core::{Machine, Outbox, Time};

use super::model::Model;
use super::source::{Manner, Piece, Served, Source, SourcePlan, Task};
use crate::draw::Draw;

/// What a shared link stores, in microseconds of its rate.
const SHARED_QUEUE_US: u64 = 20_000;

/// What is done to a source.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Change {
    /// It stands still: what is on its way arrives.
    Freeze,
    /// It goes on.
    Thaw,
    /// It dies; all of its connections with it.
    Kill,
    /// It is there, again.
    Start,
    /// Its link has another rate, in bytes per second.
    Rate(u64),
    /// All of its connections are reset.
    Reset,
    /// It treats everybody in another manner from now on.
    Manner(Manner),
}

/// What the fetcher says to a source.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    Connect(FetchConn),
    Request { conn: FetchConn, request: u64, first: u64, count: u32 },
    Cancel { conn: FetchConn, request: u64 },
    Close(FetchConn),
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Add(usize),
    ToSource(usize, Said),
    ToFetcher(Input),
    /// A piece has left the link.
    Sent(usize, Piece),
    /// A piece is here.
    Piece(usize, Piece),
    Change(usize, Change),
}

/// How a fetch ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// All is stored.
    Done,
    /// Given up.
    Failed,
    /// Neither in the time that was given.
    Late,
}

/// What a fetch came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// When, in microseconds.
    pub wall_us: u64,
    /// Bytes that came and were of no use: blocks that were there already, and parts of blocks.
    pub wasted_bytes: u64,
    /// The same from those alone that nothing was done to.
    pub wasted_by_good: u64,
    /// The most that was in flight.
    pub in_flight_bytes_peak: u64,
    /// Inputs of the scheduler.
    pub inputs: u64,
    /// Who was left out, and why.
    pub dropped: Vec<(SourceId, Trouble)>,
    /// Connections that were made.
    pub connects: u64,
    /// Bytes that came from each source.
    pub bytes: Vec<u64>,
    /// Depends on everything that happened.
    pub hash: u64,
}

/// A scheduler, its sources, and the time.
#[derive(Debug)]
pub struct Fetch {
    config: Config,
    scheduler: Scheduler,
    model: Model,
    now: Time,
    out: Outbox<Effect>,
    events: BinaryHeap<Reverse<(Time, u64, usize)>>,
    pending: Vec<Option<Event>>,
    sources: Vec<Source>,
    /// Per connection its source, and whether it is there, seen from the fetcher.
    conns: Vec<(usize, bool)>,
    /// What all sources share, in bytes per second, and when it is free.
    shared: Option<(u64, Time)>,
    draw: Draw,
    ending: Option<Ending>,
    useful: Vec<u64>,
    bytes: Vec<u64>,
    outcome_hash: u64,
    inputs: u64,
    dropped: Vec<(SourceId, Trouble)>,
    checks_every: u64,
    trace: bool,
}

impl Fetch {
    /// A fetch of what is not in `stored`.
    #[must_use]
    pub fn new(config: Config, stored: &BlockSet, seed: u64) -> Fetch {
        Fetch {
            scheduler: Scheduler::new(config.clone(), stored, seed),
            model: Model::new(&config, stored.runs().flatten()),
            config,
            now: Time::ZERO,
            out: Outbox::new(),
            events: BinaryHeap::new(),
            pending: Vec::new(),
            sources: Vec::new(),
            conns: Vec::new(),
            shared: None,
            draw: Draw::new(seed),
            ending: None,
            useful: Vec::new(),
            bytes: Vec::new(),
            outcome_hash: seed,
            inputs: 0,
            dropped: Vec::new(),
            checks_every: 1,
            trace: false,
        }
    }

    /// The machine's own invariants are looked at after every so many inputs.
    pub fn check_every(&mut self, inputs: u64) {
        self.checks_every = inputs;
    }

    /// Tells what happens.
    pub fn trace(&mut self) {
        self.trace = true;
    }

    /// All sources send over one link of so many bytes per second.
    pub fn share(&mut self, rate: u64) {
        self.shared = Some((rate, Time::ZERO));
    }

    /// Adds a source, known to the fetcher from the beginning.
    pub fn source(&mut self, plan: SourcePlan) -> usize {
        self.source_at(0, plan)
    }

    /// Adds a source that the fetcher hears of at some time; in the order of these times.
    pub fn source_at(&mut self, at_us: u64, plan: SourcePlan) -> usize {
        let at = self.sources.len();
        self.sources.push(Source::new(plan));
        self.useful.push(0);
        self.bytes.push(0);
        self.schedule(Time(at_us), Event::Add(at));
        if plan.from_us > 0 {
            self.schedule(Time(plan.from_us), Event::Change(at, Change::Start));
        }
        at
    }

    /// Does something to a source at some time.
    pub fn change(&mut self, at_us: u64, source: usize, change: Change) {
        self.schedule(Time(at_us), Event::Change(source, change));
    }

    /// Runs to the end, or for so long.
    pub fn run(&mut self, until_us: u64) -> Outcome {
        while self.ending.is_none() {
            let wake = self.scheduler.poll_timeout();
            let next = self.events.peek().map(|Reverse((at, _, _))| *at);
            let at = match (wake, next) {
                (Some(wake), Some(next)) => wake.min(next),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => break,
            };
            if at.0 > until_us {
                self.now = Time(until_us);
                break;
            }
            self.now = self.now.max(at);
            if next == Some(at) {
                self.step();
            } else {
                self.scheduler.handle_timeout(self.now, &mut self.out);
                self.perform();
                let wake = self.scheduler.poll_timeout();
                assert!(wake.is_none_or(|wake| wake > self.now), "a deadline fires or moves");
            }
        }
        self.outcome()
    }

    fn outcome(&self) -> Outcome {
        let wasted = |at: usize| self.bytes[at] - self.useful[at];
        let good = (0..self.sources.len()).filter(|at| !self.sources[*at].is_faulty);
        Outcome {
            ending: self.ending.unwrap_or(Ending::Late),
            wall_us: self.now.0,
            wasted_bytes: (0..self.sources.len()).map(wasted).sum(),
            wasted_by_good: good.map(wasted).sum(),
            in_flight_bytes_peak: self.model.in_flight_bytes_peak,
            inputs: self.inputs,
            dropped: self.dropped.clone(),
            connects: self.conns.len() as u64,
            bytes: self.bytes.clone(),
            hash: self.outcome_hash,
        }
    }

    /// The machine.
    #[must_use]
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    fn schedule(&mut self, at: Time, event: Event) {
        let tie = self.pending.len();
        self.pending.push(Some(event));
        self.events.push(Reverse((at.max(self.now), tie as u64, tie)));
    }

    fn step(&mut self) {
        let Some(Reverse((_, _, index))) = self.events.pop() else { return };
        let Some(event) = self.pending[index].take() else { return };
        match event {
            Event::Add(at) => self.tell(Input::SourceAdded { source: SourceId(at as u32) }),
            Event::ToSource(at, said) if self.sources[at].is_frozen => {
                self.sources[at].held.push((self.now, said));
            }
            Event::ToSource(at, said) => self.hear(at, said),
            Event::ToFetcher(input) => self.reach_fetcher(input),
            Event::Sent(at, piece) => {
                self.sources[at].is_sending = false;
                self.sent(at, piece);
                self.send(at);
            }
            Event::Piece(at, piece) => self.arrived(at, piece),
            Event::Change(at, change) => self.do_change(at, change),
        }
    }

    fn reach_fetcher(&mut self, input: Input) {
        if let Input::Closed { conn, .. } = input {
            let is_here = std::mem::replace(&mut self.conns[conn.0 as usize].1, false);
            if !is_here {
                return;
            }
        }
        if let Input::Connected { conn, .. } | Input::Ended { conn, .. } = input
            && !self.conns[conn.0 as usize].1
        {
            return;
        }
        self.tell(input);
    }

    fn tell(&mut self, input: Input) {
        if self.trace {
            println!("{:>10} < {input:?}", self.now.0);
        }
        self.inputs += 1;
        self.model.before(&input);
        self.scheduler.handle_input(self.now, input, &mut self.out);
        self.perform();
    }

    fn perform(&mut self) {
        for effect in std::mem::take(&mut self.out).effects() {
            if self.trace {
                println!("{:>10} > {effect:?}", self.now.0);
            }
            self.note(effect);
            self.model.effect(effect);
            match *effect {
                Effect::Connect { source, conn } => {
                    assert_eq!(conn.0 as usize, self.conns.len(), "connections are numbered");
                    self.conns.push((source.0 as usize, true));
                    self.say(source.0 as usize, Said::Connect(conn));
                }
                Effect::Request { conn, request, first, count } => {
                    let source = self.conns[conn.0 as usize].0;
                    self.say(source, Said::Request { conn, request, first, count });
                }
                Effect::Cancel { conn, request } => {
                    let source = self.conns[conn.0 as usize].0;
                    if self.sources[source].plan.is_http {
                        self.say(source, Said::Close(conn));
                        self.closed_here(conn, Fault::Asked);
                    } else {
                        self.say(source, Said::Cancel { conn, request });
                    }
                }
                Effect::Close { conn } => {
                    let source = self.conns[conn.0 as usize].0;
                    self.say(source, Said::Close(conn));
                    self.closed_here(conn, Fault::Asked);
                }
                Effect::Drop { source, why } => self.dropped.push((source, why)),
                Effect::Done => self.ending = Some(Ending::Done),
                Effect::Failed => self.ending = Some(Ending::Failed),
            }
        }
        if self.inputs.is_multiple_of(self.checks_every) || self.ending.is_some() {
            self.scheduler.check();
        }
    }

    /// Mixes what is wanted into the hash of the run.
    fn note(&mut self, effect: &Effect) {
        let word = match *effect {
            Effect::Request { conn, first, count, .. } => {
                u64::from(conn.0) << 48 ^ first << 16 ^ u64::from(count)
            }
            Effect::Cancel { request, .. } => request ^ 1 << 63,
            _ => self.now.0,
        };
        self.outcome_hash = cordee_core::prng::mix(self.outcome_hash ^ word ^ self.now.0 << 20);
    }

    fn say(&mut self, source: usize, said: Said) {
        let at = self.now + self.sources[source].plan.latency_us;
        self.schedule(at, Event::ToSource(source, said));
    }

    /// A connection is gone on the fetcher's side, at once.
    fn closed_here(&mut self, conn: FetchConn, fault: Fault) {
        self.schedule(self.now, Event::ToFetcher(Input::Closed { conn, fault }));
    }

    fn answer(&mut self, source: usize, input: Input) {
        let at = self.now + self.sources[source].plan.latency_us;
        self.schedule(at, Event::ToFetcher(input));
    }

    fn hear(&mut self, at: usize, said: Said) {
        match said {
            Said::Connect(conn) => self.accept(at, conn),
            Said::Request { conn, request, first, count } => {
                if let Some(served) = self.sources[at].served(conn) {
                    let end = first + u64::from(count);
                    let task = Task { request, next: first, end, sent: 0, is_cancelled: false };
                    served.tasks.push_back(task);
                }
            }
            Said::Cancel { conn, request } => {
                self.sources[at].cancel(&self.config.layout, conn, request);
            }
            Said::Close(conn) => self.sources[at].served.retain(|served| served.conn != conn),
        }
        self.send(at);
    }

    fn accept(&mut self, at: usize, conn: FetchConn) {
        let source = &mut self.sources[at];
        if !source.is_up || source.plan.manner == Manner::Refuses {
            self.answer(at, Input::Closed { conn, fault: Fault::Unreachable });
            return;
        }
        match source.plan.manner {
            Manner::Says(fault) => self.answer(at, Input::Closed { conn, fault }),
            Manner::Mute => {}
            _ => {
                source.served.push(Served { conn, tasks: Default::default(), bytes: 0 });
                let rtt_us = 2 * source.plan.latency_us;
                let requests_max = source.plan.requests_max;
                self.answer(at, Input::Connected { conn, rtt_us, requests_max });
            }
        }
    }

    /// Puts the next piece on a link that is free.
    fn send(&mut self, at: usize) {
        let source = &mut self.sources[at];
        if source.is_sending {
            return;
        }
        let Some(piece) = source.next_piece(&self.config.layout) else { return };
        source.is_sending = true;
        // A link that all share holds up those that send, before it stores more than this.
        let queued_us = self.shared.map_or(0, |(_, free_at)| free_at.since_us(self.now));
        let us = source.piece_us(piece.bytes).max(queued_us.saturating_sub(SHARED_QUEUE_US));
        self.schedule(self.now + us, Event::Sent(at, piece));
    }

    fn sent(&mut self, at: usize, piece: Piece) {
        let mut leaves = self.now;
        if let Some((rate, free_at)) = &mut self.shared {
            *free_at = (*free_at).max(self.now) + (piece.bytes * 1_000_000).div_ceil(*rate);
            leaves = *free_at;
        }
        let latency_us = self.sources[at].plan.latency_us;
        self.schedule(leaves + latency_us, Event::Piece(at, piece));
        let closes = match self.sources[at].plan.manner {
            Manner::Closes(bytes) => {
                self.sources[at].served(piece.conn).is_some_and(|served| served.bytes >= bytes)
            }
            _ => false,
        };
        if closes {
            self.sources[at].served.retain(|served| served.conn != piece.conn);
            let input = Input::Closed { conn: piece.conn, fault: Fault::Ended };
            self.schedule(leaves + latency_us, Event::ToFetcher(input));
        }
    }

    fn arrived(&mut self, at: usize, piece: Piece) {
        let conn = piece.conn;
        if !self.conns[conn.0 as usize].1 {
            return;
        }
        self.bytes[at] += piece.bytes;
        if piece.bytes > 0 {
            self.tell(Input::Arrived { conn, bytes: piece.bytes });
        }
        if let Some(block) = piece.completes.filter(|_| self.ending.is_none()) {
            let lies = match self.sources[at].plan.manner {
                Manner::Lies(percent) => self.draw.chance("lie", &[self.inputs], percent.into()),
                _ => false,
            };
            if lies {
                self.tell(Input::Bad { conn, block });
            } else {
                if !self.scheduler.stored().contains(block) {
                    self.useful[at] += u64::from(self.config.layout.block_len(block));
                }
                self.tell(Input::Stored { conn, block });
            }
        }
        if let Some(request) = piece.ends.filter(|_| self.ending.is_none()) {
            self.reach_fetcher(Input::Ended { conn, request, end: RunEnd::Cancelled });
        }
    }

    fn do_change(&mut self, at: usize, change: Change) {
        if self.trace {
            println!("{:>10} ! {at}: {change:?}", self.now.0);
        }
        let source = &mut self.sources[at];
        source.is_faulty |= change != Change::Start;
        match change {
            Change::Freeze => source.is_frozen = true,
            Change::Thaw => {
                source.is_frozen = false;
                for (_, said) in std::mem::take(&mut self.sources[at].held) {
                    self.hear(at, said);
                }
            }
            Change::Kill => {
                source.is_up = false;
                source.is_frozen = false;
                for (_, said) in std::mem::take(&mut self.sources[at].held) {
                    self.hear(at, said);
                }
                self.reset(at);
            }
            Change::Start => source.is_up = true,
            Change::Rate(rate) => source.plan.rate = rate,
            Change::Reset => self.reset(at),
            Change::Manner(manner) => source.plan.manner = manner,
        }
        self.send(at);
    }

    fn reset(&mut self, at: usize) {
        for served in std::mem::take(&mut self.sources[at].served) {
            let fault = Fault::Ended;
            self.answer(at, Input::Closed { conn: served.conn, fault });
        }
    }
}
