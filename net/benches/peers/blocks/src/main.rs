//! Files fetched by Cordee beside aria2c, axel and curl, and by Cordee while servers fail.
//!
//! `docs/BENCHMARKS.md` says how the figures come about. `run.sh` installs what is missing, builds
//! and runs everything.

#![forbid(unsafe_code)]

#[path = "../../../bare/mod.rs"]
mod bare;
mod failing;
mod one;
mod peers;
mod process;
mod report;
mod small;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use argh::FromArgs;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measure how files are fetched.
#[derive(FromArgs, Debug)]
pub(crate) struct Arguments {
    /// pairs of runs, or runs, for each row (5)
    #[argh(option, default = "5")]
    pairs: usize,

    /// bytes of the file, or with K, M, G, powers of 1000 (1G); failing servers get at most 600 MB
    #[argh(option, default = "1_000_000_000", from_str_fn(size))]
    size: u64,

    /// seconds that a run of small blocks lasts (3)
    #[argh(option, default = "3")]
    seconds: u64,

    /// only groups whose name holds this text: limit, peers, small, slow, frozen, killed
    #[argh(option, default = "String::new()")]
    row: String,

    /// where files are written (the target directory beside this program)
    #[argh(option)]
    directory: Option<PathBuf>,

    /// the cordee program (beside this one)
    #[argh(option)]
    cordee: Option<PathBuf>,

    /// fetch once, for the program itself: name, target, full or none, sources
    #[argh(positional, greedy)]
    once: Vec<String>,
}

fn size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return Err(format!("{text:?} is no size")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size"))?;
    number.checked_mul(unit).filter(|size| *size > 0).ok_or_else(|| format!("{text:?} is no size"))
}

type Group = fn(&Arguments, &world::World) -> Result<bool>;

const GROUPS: [(&str, Group); 6] = [
    ("limit", peers::limit),
    ("peers", peers::peers),
    ("small", small::run),
    ("slow", failing::slow),
    ("frozen", failing::frozen),
    ("killed", failing::killed),
];

fn main() -> ExitCode {
    let arguments: Arguments = argh::from_env();
    let good = match &arguments.once[..] {
        [] => all(&arguments),
        once => one::main(once).map(|()| true),
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::line(format_args!("{error}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for. A failure of one group does not keep the others from being measured.
fn all(arguments: &Arguments) -> Result<bool> {
    let world = world::World::new(arguments)?;
    let mut good = true;
    for (name, group) in GROUPS.iter().filter(|(name, _)| name.contains(&arguments.row)) {
        match group(arguments, &world) {
            Ok(reached) => good &= reached,
            Err(error) => {
                report::line(format_args!("{name}: failed: {error}"));
                good = false;
            }
        }
    }
    Ok(good)
}
