//! A nemesis for real processes: it starts servers and clients of the program under test, lets
//! the clients talk, kills, stops, cuts and starves, heals, and judges what everybody saw.
//!
//! ```text
//!  book ── says ──▶ cordee chat --json ──▶ relay ──▶ cordee chat-server ◀── relay ◀── the others
//!   │                     │ prints           ▲               ▲
//!   └────── judge ◀── screen                 └──── plan ─────┘ kill, stop, starve
//! ```
//!
//! Faults come from a seed, cycle by cycle; how they meet the processes is up to the machine, so
//! a seed replays the faults and not every race. What is judged is independent of the code under
//! test: the [book](crate) of what was said, and what clients print.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use cordee_core::prng::{Prng, mix};

mod book;
mod failure;
mod harm;
mod judge;
mod lane;
mod namespaces;
mod party;
mod plan;
mod process;
mod relay;
mod screen;
mod server;
mod world;

pub use failure::Failure;
pub use lane::Lane;
pub use namespaces::Namespaces;
pub use process::Process;
pub use relay::{End, Path, Relay};

use failure::Result;
use plan::Plan;
use world::{Make, World};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program under test, `cordee`.
    pub binary: PathBuf,
    /// Where processes leave what they say, and clients their sessions.
    pub directory: PathBuf,
    /// From which all faults are drawn.
    pub seed: u64,
    /// The first cycle, from 0: those before it are left out.
    pub first: u64,
    /// How many times something goes wrong and is judged.
    pub cycles: u64,
    /// How the names of the [`Namespaces`] begin in which all is to run; this process is in their
    /// hub then. None for relays on addresses of this machine.
    pub namespaces: Option<String>,
    /// No cycle begins later than this after the first.
    pub time_max: Duration,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Servers and clients.
    pub servers: usize,
    /// Clients that talked.
    pub parties: usize,
    /// Cycles that were judged.
    pub cycles: u64,
    /// Messages said.
    pub said: u64,
    /// Messages shown, over all clients.
    pub shown: u64,
    /// Messages that died with every server that held them, which is no fault.
    pub wiped: u64,
    /// Messages that were refused with a reason, for the same cause.
    pub refused: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often clients were connected, the first time included.
    pub connected: u64,
    /// The longest that a cycle took to settle.
    pub settled_in_max: Duration,
    /// How long all of it took.
    pub took: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} cycles in {:.0} s: {} servers, {} clients, {} messages said, {} shown; clients \
             connected {} times; settled in {:.1} s at the latest",
            self.cycles,
            self.took.as_secs_f64(),
            self.servers,
            self.parties,
            self.said,
            self.shown,
            self.connected,
            self.settled_in_max.as_secs_f64(),
        )?;
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(f, "faults: {}", faults.join(", "))?;
        write!(
            f,
            "0 lost, 0 doubled, 0 out of order, 0 forks, nobody said to be gone; {} died with all \
             their holders, {} refused",
            self.wiped, self.refused
        )
    }
}

/// Runs cycles of faults. `tell` is given a line now and then.
///
/// # Errors
///
/// The first thing that must hold and does not, or what kept the run from going on. Its text
/// names the seed and the cycles so far.
pub fn run(options: &Options, mut tell: impl FnMut(&str)) -> std::result::Result<Summary, Failure> {
    let mut story = String::new();
    let result = run_cycles(options, &mut story, &mut tell);
    result.map_err(|failure| {
        let seed = options.seed;
        let told = format!("{failure}\nseed {seed}; the cycles so far:\n{story}");
        match failure {
            Failure::Violated(_) => Failure::Violated(told),
            Failure::Broken(_) | Failure::Io { .. } => Failure::Broken(told),
        }
    })
}

fn run_cycles(
    options: &Options,
    story: &mut String,
    tell: &mut dyn FnMut(&str),
) -> Result<Summary> {
    let begun = Instant::now();
    let mut draw = Prng::new(mix(options.seed));
    let servers = 3 + draw.below(3) as usize;
    let parties = 4 + draw.below(5) as usize;
    let copies = 2 + draw.below(2) as u8;
    let make = Make {
        binary: &options.binary,
        directory: options.directory.clone(),
        seed: options.seed,
        servers,
        parties,
        copies,
        life: options.time_max + Duration::from_secs(180),
        namespaces: options.namespaces.clone(),
    };
    let mut world = World::start(&make)?;
    let mut summary = Summary { servers, parties, ..Summary::default() };
    // Writing to a string never fails.
    let _ = writeln!(story, "{servers} servers, {copies} copies, {parties} clients");
    tell(story.trim_end());
    for cycle in options.first..options.first + options.cycles {
        if begun.elapsed() > options.time_max {
            break;
        }
        // Of its own, so that a cycle is the same whatever the clock did in the one before.
        let mut draw = Prng::new(mix(options.seed ^ mix(cycle + 1)));
        let plan = Plan::draw(&mut draw, servers, options.namespaces.is_none());
        let _ = writeln!(story, "cycle {cycle}: {plan}");
        for planned in &plan.faults {
            *summary.faults.entry(planned.fault.kind().1).or_default() += 1;
        }
        let settled_in = run_cycle(&mut world, &plan, &mut draw)?;
        summary.settled_in_max = summary.settled_in_max.max(settled_in);
        summary.cycles += 1;
        if cycle % HISTORY_EVERY == HISTORY_EVERY - 1 {
            world.judge_history()?;
        }
        let (said, ms) = (world.book.total(), settled_in.as_millis());
        tell(&format!("cycle {cycle}: {plan}; settled in {ms} ms, {said} said in all"));
    }
    world.judge_history()?;
    summary.said = world.book.total();
    summary.wiped = world.lost.len() as u64;
    for party in &world.parties {
        let screen = party.screen();
        summary.shown += screen.shown();
        summary.refused += screen.refused.len() as u64;
        summary.connected += screen.connected;
    }
    world.finish()?;
    summary.took = begun.elapsed();
    Ok(summary)
}

/// One cycle. Returns how long it took to settle.
fn run_cycle(world: &mut World, plan: &Plan, draw: &mut Prng) -> Result<Duration> {
    let begun = Instant::now();
    let mut changes: Vec<(u64, usize, bool)> = Vec::new();
    for (at, planned) in plan.faults.iter().enumerate() {
        changes.push((planned.begin_ms, at, true));
        changes.push((planned.end_ms, at, false));
    }
    changes.sort_unstable();
    let alone = plan.faults.len() == 1;
    let end = Duration::from_millis(plan.end_ms() + TALK_ON_MS);
    let mut changes = changes.into_iter().peekable();
    while begun.elapsed() < end {
        let now_ms = begun.elapsed().as_millis() as u64;
        while let Some((_, at, begins)) = changes.next_if(|(ms, ..)| *ms <= now_ms) {
            if begins {
                world.begin(at, plan.faults[at].fault, alone)?;
            } else {
                world.end(at)?;
            }
        }
        world.say_something(draw)?;
        thread::sleep(Duration::from_millis(4 + draw.below(22)));
    }
    world.heal()?;
    let healed = Instant::now();
    world.settle_and_judge()?;
    Ok(healed.elapsed())
}

/// Everyone talks for so long after the last fault ended.
const TALK_ON_MS: u64 = 150;
/// Histories are compared every so many cycles.
const HISTORY_EVERY: u64 = 10;
