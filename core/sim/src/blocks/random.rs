//! Fetches drawn from a seed, and what must hold of each.

use cordee_core::blocks::scheduler::{Config, Fault, SourceState, Trouble};
use cordee_core::blocks::{BlockSet, Layout};

use super::fetch::{Change, Ending, Fetch, Outcome};
use super::source::{Manner, SourcePlan};
use crate::draw::Draw;

/// A fetch: how, from whom, and what goes wrong when.
#[derive(Clone, Debug)]
pub struct Story {
    /// Everything follows from it.
    pub seed: u64,
    /// How.
    pub config: Config,
    /// What is there already.
    pub stored: BlockSet,
    /// What all sources share, in bytes per second.
    pub shared: Option<u64>,
    /// When the fetcher hears of it, in microseconds, and what it is like.
    pub sources: Vec<(u64, SourcePlan)>,
    /// Nothing is ever done to this one.
    pub good: Option<usize>,
    /// When, to whom, what.
    pub changes: Vec<(u64, usize, Change)>,
}

/// After this many microseconds nothing is done any more.
const CHANGES_US: u64 = 30_000_000;

/// The fetch of a seed.
#[must_use]
pub fn draw_fetch(seed: u64) -> Story {
    let draw = Draw::new(seed);
    let pick = |what: &str, from: &[u64]| from[draw.below(what, &[], from.len() as u64) as usize];
    let block_bytes = pick("block", &[1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20]) as u32;
    let blocks = pick("blocks", &[0, 1, 2, 7, 40, 300, 1_000]);
    let length = (blocks * u64::from(block_bytes)).saturating_sub(draw.below("short", &[], 1_000));
    let layout = Layout::new(length, block_bytes).expect("a layout");
    let mut stored = BlockSet::new(layout.blocks());
    if layout.blocks() > 0 && draw.chance("resumed", &[], 30) {
        for run in 0..draw.below("runs", &[], 6) {
            let first = draw.below("first", &[run], layout.blocks());
            let count = draw.below("count", &[run], layout.blocks() - first) + 1;
            stored.insert_range(first..first + count);
        }
    }
    let block = u64::from(block_bytes);
    let limit = pick("limit", &[64 << 10, 1 << 20, 8 << 20]).max(length / 100 + 1);
    let config = Config {
        connections: draw
            .chance("connections", &[], 30)
            .then(|| 1 + draw.below("n", &[], 4) as u32),
        connection_per_block: draw.chance("per block", &[], 15),
        sequential: draw.chance("sequential", &[], 25),
        limit_rate: draw.chance("limited", &[], 15).then_some(limit),
        timeout_us: pick("timeout", &[5, 20, 60]) * 1_000_000,
        in_flight_bytes_max: match draw.below("in flight", &[], 4) {
            0 => block * (1 + draw.below("few", &[], 8)),
            1 => block * 64,
            _ => Config::new(layout).in_flight_bytes_max,
        },
        requests_max: pick("requests", &[1, 2, 4, 32]) as u32,
        ..Config::new(layout)
    };
    let count = 1 + draw.below("sources", &[], 8) as usize;
    let good =
        draw.chance("good", &[], 80).then(|| draw.below("which", &[], count as u64) as usize);
    let mut story = Story {
        seed,
        config,
        stored,
        shared: draw.chance("shared", &[], 15).then(|| pick("link", &[2, 20, 100]) << 20),
        sources: Vec::new(),
        good,
        changes: Vec::new(),
    };
    let mut at_us = 0;
    for index in 0..count {
        // The good one is known before all others may have been given up.
        if good.is_none_or(|good| index > good) && draw.chance("late", &[index as u64], 20) {
            at_us += draw.below("later", &[index as u64], 3_000_000);
        }
        let plan = draw_source(draw, index as u64, length, Some(index) == good);
        story.sources.push((at_us, plan));
        if let Manner::Says(Fault::Hashing { .. }) = plan.manner {
            story.changes.push((CHANGES_US, index, Change::Manner(Manner::Good)));
        }
        if Some(index) != good {
            draw_changes(draw, index, plan.rate, &mut story.changes);
        }
    }
    story
}

fn draw_source(draw: Draw, index: u64, length: u64, is_good: bool) -> SourcePlan {
    let pick =
        |what: &str, from: &[u64]| from[draw.below(what, &[index], from.len() as u64) as usize];
    let rates = [20 << 10, 300 << 10, 1 << 20, 5 << 20, 20 << 20, 200 << 20, 2 << 30];
    // So that even the slowest is through with it in a while.
    let rate = pick("rate", &rates).max(length / 300 + 1);
    let manner = match draw.below("manner", &[index], 24) {
        _ if is_good => Manner::Good,
        0 | 1 => Manner::Refuses,
        2 => Manner::Mute,
        3 => Manner::Says(Fault::Garbage),
        4 => Manner::Says(Fault::Busy { retry_us: 500_000 }),
        5 => Manner::Says(Fault::Hashing { retry_us: 1_000_000 }),
        6 => Manner::Says([Fault::Unknown, Fault::OtherVersion][index as usize % 2]),
        7 => Manner::Closes(pick("closes", &[10, 100_000, 3_000_000])),
        8 => Manner::Lies(100),
        9 => Manner::Lies(5),
        _ => Manner::Good,
    };
    SourcePlan {
        rate,
        latency_us: pick("latency", &[30, 200, 2_000, 20_000, 80_000]),
        begun_bytes: pick("begun", &[0, 64 << 10, 256 << 10, 2 << 20]),
        is_http: draw.chance("http", &[index], 20),
        requests_max: pick("requests of source", &[0, 1, 4, 64]) as u32,
        manner,
        from_us: if is_good || !draw.chance("absent", &[index], 10) {
            0
        } else {
            draw.below("from", &[index], 10_000_000)
        },
    }
}

fn draw_changes(draw: Draw, index: usize, rate: u64, changes: &mut Vec<(u64, usize, Change)>) {
    if !draw.chance("changes", &[index as u64], 60) {
        return;
    }
    let longest = [200_000, 2_000_000, CHANGES_US][draw.below("pace", &[], 3) as usize];
    for number in 0..draw.below("how many", &[index as u64], 8) {
        let ids = [index as u64, number];
        let change = match draw.below("change", &ids, 12) {
            0..=2 => Change::Freeze,
            3 | 4 => Change::Thaw,
            5 => Change::Kill,
            6 | 7 => Change::Start,
            8 => Change::Reset,
            9 => Change::Rate((rate / 50).max(2_000)),
            10 => Change::Rate(rate * 10),
            _ => {
                Change::Manner([Manner::Good, Manner::Lies(50), Manner::Mute][number as usize % 3])
            }
        };
        changes.push((draw.below("when", &ids, longest), index, change));
    }
}

/// Runs the fetch of a seed; panics with what did not hold.
#[must_use]
pub fn run_fetch(story: &Story, trace: bool) -> Outcome {
    let mut fetch = Fetch::new(story.config.clone(), &story.stored, story.seed);
    fetch.check_every(if story.config.layout.blocks() > 300 { 16 } else { 1 });
    if trace {
        fetch.trace();
    }
    if let Some(rate) = story.shared {
        fetch.share(rate);
    }
    for (at_us, plan) in &story.sources {
        fetch.source_at(*at_us, *plan);
    }
    for (at_us, source, change) in &story.changes {
        fetch.change(*at_us, *source, *change);
    }
    let outcome = fetch.run(until_us(story));
    judge(story, &fetch, &outcome);
    outcome
}

/// When the fetch must have ended.
fn until_us(story: &Story) -> u64 {
    let config = &story.config;
    let block = u64::from(config.layout.block_bytes());
    let missing = (config.layout.blocks() - story.stored.len()) * block;
    let Some(good) = story.good else { return 40_000_000_000 };
    let (at_us, plan) = story.sources[good];
    let mut rate = plan.rate.min(config.limit_rate.unwrap_or(u64::MAX));
    rate = rate.min(story.shared.unwrap_or(u64::MAX) / story.sources.len() as u64);
    // A round trip for each block, where nothing else may be on its way; several where each has a
    // connection of its own.
    let trips_us = missing / block * 8 * plan.latency_us;
    // Where one block fills all that may be in flight, others wait while a slow one is tried.
    let tried_us: u64 =
        story.sources.iter().map(|(_, plan)| 3 * block * 50_000_000 / plan.rate).sum();
    at_us + tried_us + CHANGES_US + 4 * (missing * 1_000_000 / rate + trips_us) + 30_000_000
}

fn judge(story: &Story, fetch: &Fetch, outcome: &Outcome) {
    let scheduler = fetch.scheduler();
    let progress = scheduler.progress(fetch.now());
    let reports: Vec<_> = scheduler.sources(fetch.now()).collect();
    match outcome.ending {
        Ending::Done => assert_eq!(progress.bytes_stored, progress.bytes, "all is stored"),
        Ending::Failed => {
            assert_eq!(story.good, None, "given up beside a good source");
            for report in &reports {
                assert!(!report.troubles.is_empty(), "{:?} is not named", report.source);
            }
        }
        Ending::Late => {
            panic!("neither done nor failed after {} ms: {reports:#?}", fetch.now().0 / 1_000)
        }
    }
    for (report, (_, plan)) in reports.iter().zip(&story.sources) {
        let is_dropped = matches!(report.state, SourceState::Dropped(_));
        if report.source.0 as usize == story.good.unwrap_or(usize::MAX) {
            assert!(!is_dropped, "the good source is left out: {report:?}");
            assert_eq!(report.blocks_bad, 0);
        }
        assert!(report.blocks_bad <= 2, "a liar goes on: {report:?}");
        let is_liar = report.blocks_bad == 2;
        let is_out = report.state == SourceState::Dropped(Trouble::Corrupt);
        assert!(is_liar == is_out || fetch.scheduler().is_over(), "{report:?}, {plan:?}");
    }
    // What came for nothing from those to whom nothing was done: two per cent of the file at most. Not
    // counted is what nobody could know: at the end of the file, and whenever a connection of another is made
    // or lost, a source may be in the midst of a block that another gives sooner, and what it
    // has begun of a run that was split comes all the same.
    let block = u64::from(story.config.layout.block_bytes());
    let connections = u64::from(story.config.connections.unwrap_or(2));
    let begun: u64 = story.sources.iter().map(|(_, plan)| plan.begun_bytes + 2 * block).sum();
    let lost = if story.config.connection_per_block { 0 } else { outcome.connects * block };
    let most = story.config.layout.length() / 50 + connections * begun + lost;
    assert!(
        outcome.wasted_by_good <= most,
        "{} bytes for nothing, {most} allowed",
        outcome.wasted_by_good
    );
}
