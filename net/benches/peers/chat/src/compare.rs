//! The same shapes on both systems, in turn.

use std::time::Duration;

use argh::FromArgs;

use crate::cordee::Cordee;
use crate::failure::Result;
use crate::nats::{self, Nats};
use crate::report::{Figure, Figures, line, print_ratios, print_run};
use crate::shapes::{acks, fan_out, idle, latency, replay};
use crate::system::{SERVERS, System};

/// run the same shapes on nats-server and on cordee, in turn, and print every figure and ratio
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "compare")]
pub(crate) struct Compare {
    /// pairs of runs of each shape (5)
    #[argh(option, default = "5")]
    pairs: usize,

    /// seconds that a run lasts (3)
    #[argh(option, default = "3")]
    seconds: u64,

    /// only shapes whose name holds this text
    #[argh(option, default = "String::new()")]
    shape: String,

    /// only this system, nats or cordee, and no ratios
    #[argh(option)]
    only: Option<String>,
}

/// What a run does.
#[derive(Clone, Copy, Debug)]
enum Shape {
    FanOut { publishers: usize, subscribers: usize, bytes: usize },
    Latency { subscribers: usize, bytes: usize },
    Acks { window: u64 },
    Replay,
    Idle { connections: usize },
}

const SHAPES: [(&str, Shape); 9] = [
    ("fan-out-1-50-64", Shape::FanOut { publishers: 1, subscribers: 50, bytes: 64 }),
    ("fan-out-1-50-1024", Shape::FanOut { publishers: 1, subscribers: 50, bytes: 1024 }),
    ("fan-out-10-100-64", Shape::FanOut { publishers: 10, subscribers: 100, bytes: 64 }),
    ("fan-out-10-100-1024", Shape::FanOut { publishers: 10, subscribers: 100, bytes: 1024 }),
    ("latency-1-50-64", Shape::Latency { subscribers: 50, bytes: 64 }),
    ("acks-1", Shape::Acks { window: 1 }),
    ("acks-256", Shape::Acks { window: 256 }),
    ("replay", Shape::Replay),
    ("idle", Shape::Idle { connections: 2_000 }),
];

impl Shape {
    fn run<S: System>(self, time: Duration) -> Result<Vec<Figure>> {
        Ok(match self {
            Shape::FanOut { publishers, subscribers, bytes } => {
                fan_out::run::<S>(publishers, subscribers, bytes, time)?.figures()
            }
            Shape::Latency { subscribers, bytes } => {
                latency::run::<S>(subscribers, bytes, time)?.figures()
            }
            Shape::Acks { window } => acks::run::<S>(window, time)?.figures(),
            Shape::Replay => replay::run::<S>()?.figures(),
            Shape::Idle { connections } => idle::run::<S>(connections)?.figures(),
        })
    }
}

/// Runs what was asked for. A failure of one shape does not keep the others from being measured.
pub(crate) fn run(compare: &Compare) -> bool {
    let time = Duration::from_secs(compare.seconds);
    let wanted = |system: &str| compare.only.as_ref().is_none_or(|only| only == system);
    let theirs = wanted(Nats::NAME) && nats::program().is_some();
    if wanted(Nats::NAME) && !theirs {
        line(format_args!("nats: not measured, nats-server is not installed"));
    }
    let mut good = true;
    for (name, shape) in SHAPES.iter().filter(|(name, _)| name.contains(&compare.shape)) {
        line(format_args!("{name}, {SERVERS} servers"));
        let mut pairs = Vec::new();
        for pair in 0..compare.pairs {
            line(format_args!("  pair {}", pair + 1));
            let theirs = if theirs { measure::<Nats>(*shape, time) } else { Ok(Vec::new()) };
            let ours =
                if wanted(Cordee::NAME) { measure::<Cordee>(*shape, time) } else { Ok(Vec::new()) };
            good &= theirs.is_ok() && ours.is_ok();
            let (Ok(theirs), Ok(ours)) = (theirs, ours) else { break };
            pairs.push((theirs, ours));
        }
        print_ratios(&pairs);
    }
    good
}

/// Touches and frees memory, more than a run needs. Pages that a virtual machine has given back to
/// its host, or never had, are many times as slow to get as others, and whoever ran first would pay
/// for both.
fn prime() {
    std::hint::black_box(vec![1_u8; PRIMED_BYTES]);
}

const PRIMED_BYTES: usize = 1 << 30;

fn measure<S: System>(shape: Shape, time: Duration) -> Result<Vec<Figure>> {
    prime();
    let figures = shape.run::<S>(time);
    match &figures {
        Ok(figures) => print_run(S::NAME, figures),
        Err(failure) => line(format_args!("    {:<7} failed: {failure}", S::NAME)),
    }
    figures
}
