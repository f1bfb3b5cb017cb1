//! `cordee-nemesis`: breaks real servers under clients that talk, for as long as it is told to.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use argh::FromArgs;
use cordee_nemesis::{Namespaces, Options, run};

/// Starts servers and clients, lets these talk, breaks things, and judges what everybody saw.
#[derive(FromArgs, Debug)]
struct Args {
    /// how many cycles (300)
    #[argh(option, default = "300")]
    cycles: u64,

    /// the first of them (0): with a seed, to see one again without those before it
    #[argh(option, default = "0")]
    first: u64,

    /// from which the faults are drawn (another one each time); a failing run prints its own
    #[argh(option)]
    seed: Option<u64>,

    /// no cycle begins after so many minutes (60)
    #[argh(option, default = "60")]
    minutes: u64,

    /// give every server, and the clients, a network namespace (as root, on Linux) instead of relays:
    /// cuts are silent then, and lines slow
    #[argh(switch)]
    namespaces: bool,

    /// namespaces that were made already, in whose hub this process is; --namespaces cares for that
    #[argh(option)]
    inside: Option<String>,

    /// the program under test (built first, and taken from where this one lies)
    #[argh(option)]
    cordee: Option<PathBuf>,

    /// where to write what happens, cycle by cycle (a file in the system's temporary directory)
    #[argh(option)]
    log: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args: Args = argh::from_env();
    let result = if args.namespaces { soak_in_namespaces() } else { soak(&args) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&why);
            ExitCode::FAILURE
        }
    }
}

/// Makes namespaces, and runs this program again in their hub.
fn soak_in_namespaces() -> Result<(), String> {
    let prefix = format!("cordee-nemesis-{}", std::process::id());
    let namespaces = Namespaces::make(&prefix).map_err(|failure| {
        format!("namespaces need root, and ip (of iproute2); without --namespaces there are relays: {failure}")
    })?;
    let within = namespaces.in_hub();
    let own = std::env::current_exe().map_err(|error| format!("this program: {error}"));
    let status = own.and_then(|own| {
        let args = std::env::args_os().skip(1).filter(|arg| arg != "--namespaces");
        let mut command = Command::new(&within[0]);
        command.args(&within[1..]).arg(own).args(args).args(["--inside", &prefix]);
        command.status().map_err(|error| format!("ip (of iproute2): {error}"))
    });
    namespaces.remove();
    if status?.success() { Ok(()) } else { Err("it failed, as told above".to_owned()) }
}

fn soak(args: &Args) -> Result<(), String> {
    let seed = args.seed.unwrap_or_else(seed_of_now);
    let binary = match &args.cordee {
        Some(binary) => binary.clone(),
        None => build()?,
    };
    let temporary = std::env::temp_dir();
    let log_path =
        args.log.clone().unwrap_or_else(|| temporary.join(format!("cordee-nemesis-{seed}.log")));
    let told = |error: io::Error| format!("{}: {error}", log_path.display());
    let mut log = File::create(&log_path).map_err(told)?;
    let directory = tempfile::Builder::new().prefix("cordee-nemesis-").tempdir();
    let directory = directory.map_err(|error| format!("a temporary directory: {error}"))?;
    say(&format!("seed {seed}; log {}", log_path.display()));
    let options = Options {
        binary,
        directory: directory.path().to_owned(),
        seed,
        namespaces: args.inside.clone(),
        first: args.first,
        cycles: args.cycles,
        time_max: Duration::from_secs(60 * args.minutes),
    };
    let result = run(&options, |line| {
        // A log that cannot be written is no reason to stop: the end is told anyway.
        let _ = writeln!(log, "{line}");
    });
    match result {
        Ok(summary) => {
            let _ = writeln!(log, "{summary}");
            say(&summary.to_string());
            Ok(())
        }
        Err(failure) => {
            let _ = writeln!(log, "{failure}");
            // What the servers said is worth keeping.
            let kept = directory.keep();
            let text = failure.to_string();
            let first: Vec<&str> = text.lines().take(3).collect();
            Err(format!(
                "{}\nagain: cordee-nemesis --seed {seed} --cycles {}\nall of it is in {}, what the \
                 processes said in {}",
                first.join("\n"),
                args.cycles,
                log_path.display(),
                kept.display()
            ))
        }
    }
}

/// Builds the program under test and says where it is: an old one would be judged in vain.
fn build() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "-q", "-p", "cordee", "--bin", "cordee"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.status().map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err(format!("cordee cannot be built: {status}"));
    }
    Ok(own.with_file_name("cordee"))
}

fn seed_of_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    cordee_core::prng::mix(since.as_nanos() as u64) >> 32
}

fn say(text: &str) {
    // Whoever started us may not want to hear it.
    let _ = writeln!(io::stdout(), "{text}");
}
