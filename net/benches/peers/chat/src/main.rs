//! Load on clusters of chat servers: Cordee beside nats-server, and Cordee while servers die.
//!
//! `docs/BENCHMARKS.md` says how the figures come about. `run.sh` installs what is missing, builds
//! and runs everything.

#![forbid(unsafe_code)]

mod compare;
mod cordee;
mod failover;
mod failure;
mod nats;
mod payload;
mod process;
mod report;
mod shapes;
mod swarm;
mod system;

use std::path::PathBuf;
use std::process::ExitCode;

use argh::FromArgs;

/// Measure clusters of chat servers.
#[derive(FromArgs, Debug)]
struct Arguments {
    /// the cordee program (beside this one)
    #[argh(option)]
    cordee: Option<PathBuf>,

    #[argh(subcommand)]
    what: What,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum What {
    Compare(compare::Compare),
    Failover(failover::Failover),
}

fn main() -> ExitCode {
    let arguments: Arguments = argh::from_env();
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("cordee"));
    let program = arguments.cordee.or_else(beside).unwrap_or_default();
    cordee::set_program(&program);
    let good = match &arguments.what {
        What::Compare(compare) => compare::run(compare),
        What::Failover(failover) => failover::run(failover),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
