//! The scheduler's decisions by number of blocks and sources.
//!
//! Sources of different speeds serve at once; each step is a block that came whole (Arrived and Stored),
//! with whatever is asked for next. A scan of all blocks would show as a cost that grows with them.

use std::collections::VecDeque;

use cordee_core::blocks::scheduler::{Config, Effect, FetchConn, Input, Scheduler, SourceId};
use cordee_core::blocks::{BlockSet, Layout};
use cordee_core::{Machine, Outbox, Time};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const BLOCK_BYTES: u32 = 16 << 10;
/// Blocks that come in one measured run.
const STEPS: u64 = 4_096;

/// A fetch under way: per connection what was asked of it and has not come.
struct Fetch {
    scheduler: Scheduler,
    out: Outbox<Effect>,
    asked: Vec<VecDeque<(u64, u64)>>,
    now: u64,
    turn: usize,
}

impl Fetch {
    /// Half of the blocks are stored already, every second run of 64, so that there are many runs.
    fn new(blocks: u64, sources: u32) -> Fetch {
        let length = blocks * u64::from(BLOCK_BYTES);
        let layout = Layout::new(length, BLOCK_BYTES).expect("a layout");
        let mut stored = BlockSet::new(blocks);
        for run in 0..blocks / 128 {
            stored.insert_range(run * 128..run * 128 + 64);
        }
        let config = Config { connections: Some(1), ..Config::new(layout) };
        let mut fetch = Fetch {
            scheduler: Scheduler::new(config, &stored, 1),
            out: Outbox::new(),
            asked: Vec::new(),
            now: 0,
            turn: 0,
        };
        for source in 0..sources {
            fetch.tell(Input::SourceAdded { source: SourceId(source) });
        }
        for conn in 0..sources {
            let conn = FetchConn(conn);
            fetch.tell(Input::Connected { conn, rtt_us: 200, requests_max: 64 });
        }
        fetch
    }

    fn tell(&mut self, input: Input) {
        self.scheduler.handle_input(Time(self.now), input, &mut self.out);
        for effect in self.out.effects() {
            match *effect {
                Effect::Connect { .. } => self.asked.push(VecDeque::new()),
                Effect::Request { conn, first, count, .. } => {
                    self.asked[conn.0 as usize].push_back((first, first + u64::from(count)));
                }
                _ => {}
            }
        }
        self.out.clear();
    }

    /// The next block of the next connection; the first half of them is three times as fast.
    fn step(&mut self) {
        self.now += 100;
        self.turn += 1;
        let sources = self.asked.len();
        let at =
            if self.turn.is_multiple_of(4) { self.turn } else { self.turn % sources.div_ceil(2) };
        let conn = FetchConn((at % sources) as u32);
        let Some((first, end)) = self.asked[at % sources].front_mut() else { return };
        let block = *first;
        *first += 1;
        if first == end {
            self.asked[at % sources].pop_front();
        }
        self.tell(Input::Arrived { conn, bytes: BLOCK_BYTES.into() });
        self.tell(Input::Stored { conn, block });
    }
}

fn bench_decisions(c: &mut Criterion) {
    for blocks in [1 << 14, 1 << 18, 1 << 22] {
        let mut group = c.benchmark_group(format!("block_scheduler/{blocks} blocks"));
        group.throughput(Throughput::Elements(STEPS));
        group.sample_size(20);
        for sources in [2, 8, 32] {
            group.bench_function(BenchmarkId::new("sources", sources), |b| {
                b.iter_batched(
                    || Fetch::new(blocks, sources),
                    |mut fetch| {
                        (0..STEPS).for_each(|_| fetch.step());
                        fetch
                    },
                    BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench_decisions);
criterion_main!(benches);
