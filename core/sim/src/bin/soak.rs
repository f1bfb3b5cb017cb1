//! Runs worlds from new seeds, or one from a seed that failed. See docs/testing.md.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use argh::FromArgs;
use cordee_sim::{
    Counts, Failure, Fault, Outcome, Plan, Planted, Rule, SEEDS_MAX, Tally, hunt, run, shrink,
};

/// Clusters under every fault that a seed can draw: exits with 1 when anything did not hold.
#[derive(FromArgs)]
struct Args {
    /// for how many minutes; fractions, too (default 1)
    #[argh(option)]
    minutes: Option<f64>,
    /// one seed alone
    #[argh(option)]
    seed: Option<u64>,
    /// these seeds: `0..1000`
    #[argh(option, from_str_fn(range))]
    seeds: Option<(u64, u64)>,
    /// tell what happens in the world, line by line; with --seed
    #[argh(switch)]
    trace: bool,
    /// draw worlds that are known to fail, too (docs/testing.md); with --seed or --seeds
    #[argh(switch)]
    unrestricted: bool,
    /// look for the deliberate faults instead, and print the table of docs/testing.md
    #[argh(switch)]
    planted: bool,
    /// put the table of --planted into this file, between its marks
    #[argh(option)]
    into: Option<std::path::PathBuf>,
    /// how many threads (default: one for each core)
    #[argh(option)]
    jobs: Option<usize>,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let pair = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    pair.filter(|(from, to)| from < to).ok_or_else(|| "two numbers, as in 0..1000".to_owned())
}

/// What all worlds together showed.
#[derive(Default)]
struct Sum {
    worlds: u64,
    virtual_us: u64,
    said: u64,
    counts: Counts,
    tally: Tally,
    faults: [u64; Fault::ALL.len()],
    hash: u64,
    failed: Vec<u64>,
}

/// Runs to make a failing world shorter.
const SHRINK_RUNS: usize = 300;
/// After so many failures a run ends.
const FAILURES_MAX: usize = 5;

fn main() -> ExitCode {
    let args: Args = argh::from_env();
    let draw = if args.unrestricted { Plan::unrestricted } else { Plan::new };
    if let Some(seed) = args.seed {
        return one(&draw(seed), args.trace);
    }
    let jobs =
        args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if args.planted {
        return planted(jobs, args.into.as_deref());
    }
    let (from, to, end) = match args.seeds {
        Some((from, to)) => (from, to, None),
        None => {
            let from = fresh();
            let minutes = args.minutes.unwrap_or(1.0);
            (from, u64::MAX, Some(Instant::now() + Duration::from_secs_f64(minutes * 60.0)))
        }
    };
    let begun = Instant::now();
    let sum = many(from..to, end, jobs, draw);
    report(&sum, from, jobs, begun.elapsed());
    for seed in sum.failed.iter().take(1) {
        explain(&draw(*seed), false);
    }
    ExitCode::from(u8::from(!sum.failed.is_empty()))
}

/// A seed that nobody used before: the time.
fn fresh() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() * 1_000_000)
}

fn many(seeds: Range<u64>, end: Option<Instant>, jobs: usize, draw: fn(u64) -> Plan) -> Sum {
    let next = AtomicU64::new(seeds.start);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next, seeds) = (sender.clone(), &next, &seeds);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let is_over = end.is_some_and(|end| Instant::now() >= end);
                    if seed >= seeds.end || is_over {
                        return;
                    }
                    if sender.send((seed, run(&draw(seed), false))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut sum = Sum::default();
        for (seed, outcome) in receiver {
            sum.add(seed, &outcome);
            if let Some(failure) = &outcome.failure {
                let line = failure.text.lines().next().unwrap_or("");
                println!("seed {seed}: {} ms: {line} ({})", failure.at.0 / 1_000, failure.place);
                if sum.failed.len() >= FAILURES_MAX {
                    next.store(u64::MAX / 2, Ordering::Relaxed);
                }
            }
        }
        sum
    })
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.worlds += 1;
        self.virtual_us += outcome.virtual_us;
        self.said += outcome.said as u64;
        self.counts.events += outcome.counts.events;
        self.counts.inputs += outcome.counts.inputs;
        self.counts.effects_max = self.counts.effects_max.max(outcome.counts.effects_max);
        self.tally.add(&outcome.tally);
        for (sum, count) in self.faults.iter_mut().zip(outcome.faults) {
            *sum += count;
        }
        // The same whatever order the worlds come in.
        self.hash ^= outcome.hash.wrapping_mul(2 * seed + 1);
        self.failed.extend(outcome.failure.as_ref().map(|_| seed));
    }
}

fn report(sum: &Sum, from: u64, jobs: usize, took: Duration) {
    let minutes = took.as_secs_f64() / 60.0;
    let hours = sum.virtual_us as f64 / 3.6e9;
    let rate = sum.virtual_us as f64 / 60e6 / minutes / jobs as f64;
    println!(
        "{} worlds from seed {from}, {hours:.1} h of virtual time, {minutes:.2} min on {jobs} threads",
        sum.worlds
    );
    println!(
        "{rate:.0} worlds of 60 s a minute and thread, {} events, {} inputs of servers",
        sum.counts.events, sum.counts.inputs
    );
    println!(
        "{} messages, at most {} effects of an input, trace hash {:016x}",
        sum.said, sum.counts.effects_max, sum.hash
    );
    println!("\nfaults:");
    for (fault, count) in Fault::ALL.iter().zip(sum.faults) {
        println!("  {count:>9}  {fault:?}");
    }
    println!("\nwhat was looked at, how often:");
    for rule in Rule::ALL {
        println!("  {:>11}  {:<10} {}", sum.tally.of(*rule), rule.code(), rule.says().trim());
    }
    println!("\n{} of {} worlds failed", sum.failed.len(), sum.worlds);
}

/// Everything about a failure: what the seed drew, the command that replays it, and a short form,
/// with its story when it is wanted.
fn explain(plan: &Plan, trace: bool) {
    println!("\n{:#?}", Plan { acts: Vec::new(), ..plan.clone() });
    let seed = plan.seed;
    println!("replay: cargo run --release -p cordee-sim --bin soak -- --seed {seed} --trace");
    let Some((short, failure)) = shrink(plan, SHRINK_RUNS) else {
        println!("it did not fail again");
        return;
    };
    println!("{} of {} acts are enough:", short.acts.len(), plan.acts.len());
    for act in &short.acts {
        println!("  {:>6} ms  {:?} {:?}", act.at_ms, act.what, act.dice);
    }
    if trace {
        tell(&run(&short, true));
    }
    println!("{}\nat {}", failure.text, failure.place);
}

fn tell(outcome: &Outcome) {
    for (at, line) in &outcome.story {
        println!("{:>9.3} ms {line}", at.0 as f64 / 1_000.0);
    }
}

fn one(plan: &Plan, trace: bool) -> ExitCode {
    let seed = plan.seed;
    let outcome = run(plan, trace);
    tell(&outcome);
    let mut sum = Sum::default();
    sum.add(seed, &outcome);
    println!(
        "seed {seed}: {} ms, {} said, trace hash {:016x}",
        outcome.virtual_us / 1_000,
        outcome.said,
        outcome.hash
    );
    if let Some(failure) = outcome.failure {
        println!("{}: {}\nat {}", failure.rule, failure.text, failure.place);
        explain(plan, trace);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Looks for every deliberate fault. Fails when one is not found.
fn planted(jobs: usize, into: Option<&std::path::Path>) -> ExitCode {
    let next = AtomicU64::new(0);
    let mut found: Vec<Option<(u64, Failure)>> = vec![None; Planted::ALL.len()];
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(fault) = Planted::ALL.get(at) else { return };
                    if sender.send((at, hunt(*fault, SEEDS_MAX))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (at, caught) in receiver {
            let says = caught.as_ref().map(|(seeds, failure)| (seeds, &failure.rule));
            eprintln!("{:?}: {says:?}", Planted::ALL[at]);
            found[at] = caught;
        }
    });
    let table = table(&found);
    println!("{table}");
    if let Some(path) = into
        && let Err(error) = write_between(path, &table)
    {
        eprintln!("{}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::from(u8::from(found.iter().any(Option::is_none)))
}

fn table(found: &[Option<(u64, Failure)>]) -> String {
    let mut text =
        String::from("| deliberate fault | what it does wrong | broken rule | seeds |\n");
    text += "| --- | --- | --- | ---: |\n";
    for (fault, caught) in Planted::ALL.iter().zip(found) {
        let (rule, seeds) = match caught {
            Some((seeds, failure)) => (failure.rule.clone(), seeds.to_string()),
            None => ("not found".to_owned(), format!("> {SEEDS_MAX}")),
        };
        text += &format!("| `{fault:?}` | {} | {rule} | {seeds} |\n", fault.says().trim());
    }
    let mut seeds: Vec<u64> = found.iter().flatten().map(|(seeds, _)| *seeds).collect();
    seeds.sort_unstable();
    let median = seeds.get(seeds.len() / 2).copied().unwrap_or(0);
    text + &format!(
        "\n{} of {} found, within {median} seeds in the median.\n",
        seeds.len(),
        found.len()
    )
}

/// Puts the table between the marks of a file.
fn write_between(path: &std::path::Path, table: &str) -> std::io::Result<()> {
    const MARKS: [&str; 2] = ["<!-- planted: begin -->\n", "<!-- planted: end -->"];
    let text = std::fs::read_to_string(path)?;
    let marks = text.find(MARKS[0]).zip(text.find(MARKS[1]));
    let Some((begin, end)) = marks else { return Err(std::io::Error::other("no marks for it")) };
    std::fs::write(path, text[..begin + MARKS[0].len()].to_owned() + table + &text[end..])
}
