//! Runs fetches from new seeds, or one from a seed that failed. See docs/testing.md.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use argh::FromArgs;
use cordee_sim::blocks::{Ending, Outcome, draw_fetch, run_fetch};

/// Fetches from sources that do whatever a seed can draw: exits with 1 when anything did not hold.
#[derive(FromArgs)]
struct Args {
    /// for how many minutes; fractions, too (default 1)
    #[argh(option)]
    minutes: Option<f64>,
    /// one seed alone, told line by line
    #[argh(option)]
    seed: Option<u64>,
    /// these seeds: `0..1000`
    #[argh(option, from_str_fn(range))]
    seeds: Option<(u64, u64)>,
    /// how many threads (default: one for each core)
    #[argh(option)]
    jobs: Option<usize>,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let pair = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    pair.filter(|(from, to)| from < to).ok_or_else(|| "two numbers, as in 0..1000".to_owned())
}

/// After so many failures a run ends.
const FAILURES_MAX: usize = 5;

/// What all fetches together showed.
#[derive(Default)]
struct Sum {
    fetches: u64,
    done: u64,
    virtual_us: u64,
    inputs: u64,
    bytes: u64,
    wasted_by_good: u64,
    hash: u64,
    failed: Vec<u64>,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: Option<Outcome>) {
        self.fetches += 1;
        let Some(outcome) = outcome else {
            self.failed.push(seed);
            println!("seed {seed} failed: soak_blocks --seed {seed} tells how");
            return;
        };
        self.done += u64::from(outcome.ending == Ending::Done);
        self.virtual_us += outcome.wall_us;
        self.inputs += outcome.inputs;
        self.bytes += outcome.bytes.iter().sum::<u64>();
        self.wasted_by_good += outcome.wasted_by_good;
        // The same whatever order the fetches come in.
        self.hash ^= outcome.hash.wrapping_mul(2 * seed + 1);
    }
}

fn main() -> ExitCode {
    let args: Args = argh::from_env();
    if let Some(seed) = args.seed {
        let story = draw_fetch(seed);
        println!("{story:#?}");
        println!("{:#?}", run_fetch(&story, true));
        return ExitCode::SUCCESS;
    }
    let jobs =
        args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let (from, to, end) = match args.seeds {
        Some((from, to)) => (from, to, None),
        None => {
            let minutes = Duration::from_secs_f64(args.minutes.unwrap_or(1.0) * 60.0);
            (fresh(), u64::MAX, Some(Instant::now() + minutes))
        }
    };
    let begun = Instant::now();
    let sum = many(from, to, end, jobs);
    println!(
        "{} fetches from seed {from} in {:.1} s on {jobs} threads, {} done, the others named everybody",
        sum.fetches,
        begun.elapsed().as_secs_f64(),
        sum.done
    );
    println!(
        "{:.1} h of virtual time, {} inputs, {} MiB, for nothing from good sources {:.3} %, hash {:016x}",
        sum.virtual_us as f64 / 3.6e9,
        sum.inputs,
        sum.bytes >> 20,
        sum.wasted_by_good as f64 * 100.0 / sum.bytes.max(1) as f64,
        sum.hash
    );
    println!("{} failed", sum.failed.len());
    ExitCode::from(u8::from(!sum.failed.is_empty()))
}

/// A seed that nobody used before: the time.
fn fresh() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() * 1_000_000)
}

fn many(from: u64, to: u64, end: Option<Instant>, jobs: usize) -> Sum {
    let next = AtomicU64::new(from);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to || end.is_some_and(|end| Instant::now() >= end) {
                        return;
                    }
                    let outcome = catch_unwind(|| run_fetch(&draw_fetch(seed), false)).ok();
                    if sender.send((seed, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut sum = Sum::default();
        for (seed, outcome) in receiver {
            sum.add(seed, outcome);
            if sum.failed.len() >= FAILURES_MAX {
                next.store(u64::MAX / 2, Ordering::Relaxed);
            }
        }
        sum
    })
}
