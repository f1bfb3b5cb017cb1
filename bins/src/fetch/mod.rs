//! `cordee fetch`: one file, or all below a directory, from everybody who has it.

mod face;
mod face_json;
mod face_lines;
mod face_terminal;
mod figures;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use argh::FromArgs;
use cordee_net::blocks::fetch::{
    Cancel, Event, Fetch as FileFetch, FetchConfig, FetchError, FetchTree, Root, Source, Target,
    Verify,
};

use crate::address::{Address, BLOCK_PORT};
use crate::chat::escape::escape;
use crate::failure::{Failure, failed, usage};
use crate::signals;
use crate::size::Size;
use face::Face;

/// Get a file, or all files below a directory, from every server that has it, verified, at the speed
/// of all of them together. Interrupted, the same command goes on where it was.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "fetch",
    help_triggers("-h", "--help", "help"),
    example = "From two block servers, and a web server beside them:\n  \
    {command_name} film.mp4 --from 10.0.0.1:4545 --from 10.0.0.2 --from http://10.0.0.3/film.mp4\n\
    Through a pipe:\n  {command_name} backup.tar --from 10.0.0.1 -o - | tar x",
    note = "The file grows as NAME.part, and gets its name when it is whole and verified."
)]
pub(crate) struct Fetch {
    /// the file's name at the servers; of a directory, all files below it are fetched
    #[argh(positional, arg_name = "name")]
    name: String,

    /// a server that may have it: host:port (port 4545 if none is given), or http://host/path, where a
    /// path that ends with a slash gets the name appended; may be given again (whoever listens on
    /// 127.0.0.1:4545 to 4548)
    #[argh(option, arg_name = "addr")]
    from: Vec<String>,

    /// where it goes (the last part of the name, in this directory); - is standard output
    #[argh(option, short = 'o', arg_name = "file")]
    output: Option<PathBuf>,

    /// the BLAKE3 hash that it must have, as b3sum prints it
    #[argh(option, arg_name = "hex")]
    hash: Option<String>,

    /// full: every block is verified (the default); none: nothing is, for networks that are trusted
    #[argh(option, default = "VerifyArg(Verify::Full)", arg_name = "how")]
    verify: VerifyArg,

    /// connections to each server (as many as help)
    #[argh(option, arg_name = "n")]
    connections: Option<u32>,

    /// a new connection for every block
    #[argh(switch)]
    connection_per_block: bool,

    /// bytes per second at the most, or with K, M, G (thousands, millions, …); no limit
    #[argh(option, arg_name = "rate")]
    limit_rate: Option<Size>,

    /// from the beginning to the end, rather than from everywhere
    #[argh(switch)]
    sequential: bool,

    /// seconds without a byte from anybody after which it is given up (60)
    #[argh(option, default = "60", arg_name = "secs")]
    timeout: u64,

    /// hash again what is there of an unfinished file
    #[argh(switch)]
    recheck: bool,

    /// replace another file of that name
    #[argh(switch)]
    force: bool,

    /// print JSON, an object a line
    #[argh(switch)]
    json: bool,
}

/// How `--verify` is written.
#[derive(Clone, Copy, Debug)]
struct VerifyArg(Verify);

impl FromStr for VerifyArg {
    type Err = String;

    fn from_str(text: &str) -> Result<VerifyArg, String> {
        match text {
            "full" => Ok(VerifyArg(Verify::Full)),
            "none" => Ok(VerifyArg(Verify::None)),
            _ => Err(format!("{text:?}: write full or none")),
        }
    }
}

/// Fetches it, showing how far it is.
pub(crate) fn run(args: &Fetch) -> Result<(), Failure> {
    let mut config = config(args)?;
    let terminal = std::io::stderr().is_terminal() && !args.json;
    config.progress_every = Duration::from_millis(if terminal { 100 } else { 1_000 });
    let to_stdout = config.target == Target::Stdout;
    let mut face: Box<dyn Face> = match () {
        () if args.json => Box::new(face_json::Json),
        () if terminal => Box::new(face_terminal::Terminal::new(&config.name)),
        () => Box::new(face_lines::Lines),
    };
    let cancel = Cancel::new();
    let stop = cancel.clone();
    signals::watch(move |count| match count {
        1 => stop.cancel(),
        _ => std::process::exit(1),
    })?;
    // A file that is longer than allowed is to be an error, not the end of the process.
    let ignored = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGXFSZ, ignored)
        .map_err(|error| failed(format!("signals cannot be watched: {error}")))?;
    let mut tell = |event: Event| match event {
        Event::Progress(progress) => face.progress(&progress),
        Event::Note(note) => face.note(&note),
    };
    let file = FileFetch::new(config.clone()).stopped_by(cancel.clone());
    let name = escape(&config.name).into_owned();
    match file.run(&mut tell) {
        Ok(report) => {
            face.done(&report, to_stdout);
            Ok(())
        }
        Err(FetchError::IsDirectory) => {
            if config.hash.is_some() {
                let why = format!("{name} is a directory, which has no hash: leave --hash away");
                face.failed(&why, &[], &[]);
                return Err(face.failure(why));
            }
            let tree = FetchTree::new(config).stopped_by(cancel).run(&mut tell);
            finish_tree(face.as_mut(), &name, tree)
        }
        Err(error) => fail(face.as_mut(), &name, &error, to_stdout),
    }
}

fn finish_tree(
    face: &mut dyn Face,
    name: &str,
    tree: Result<cordee_net::blocks::fetch::TreeReport, FetchError>,
) -> Result<(), Failure> {
    let report = match tree {
        Ok(report) => report,
        Err(error) => return fail(face, name, &error, false),
    };
    if report.failed.is_empty() {
        face.done_tree(&report);
        return Ok(());
    }
    let (missing, all) = (report.failed.len(), report.failed.len() as u64 + report.files);
    let why = format!("{missing} of {all} files below {name} are missing");
    face.failed(&why, &report.sources, &report.failed);
    Err(face.failure(why))
}

fn fail(
    face: &mut dyn Face,
    name: &str,
    error: &FetchError,
    to_stdout: bool,
) -> Result<(), Failure> {
    let why = match error {
        FetchError::Cancelled if to_stdout => format!("{name}: stopped"),
        FetchError::Cancelled | FetchError::Config(_) => format!("{name}: {error}"),
        _ => escape(&error.to_string()).into_owned(),
    };
    face.failed(&why, error.sources(), &[]);
    Err(face.failure(why))
}

/// What the arguments mean.
fn config(args: &Fetch) -> Result<FetchConfig, Failure> {
    let name = args.name.trim_end_matches('/').to_owned();
    if name.is_empty() {
        return Err(usage(format!("{:?} names nothing: say which file or directory", args.name)));
    }
    let sources: Result<Vec<Source>, Failure> = args.from.iter().map(|text| source(text)).collect();
    let mut config = FetchConfig::new(name, sources?, target(args)?);
    if config.sources.is_empty() {
        config.only_present = true;
        let ports = BLOCK_PORT..BLOCK_PORT + PORTS_TRIED;
        config.sources = ports.map(|port| Source::Server(format!("127.0.0.1:{port}"))).collect();
    }
    let hash = args.hash.as_deref().map(str::parse::<Root>).transpose();
    config.hash = hash.map_err(|error| usage(format!("--hash: {error}")))?;
    if args.connections.is_some_and(|count| !(1..=CONNECTIONS_MAX).contains(&count)) {
        return Err(usage(format!("--connections: from 1 to {CONNECTIONS_MAX}")));
    }
    if args.limit_rate == Some(Size(0)) {
        return Err(usage("--limit-rate 0: at least 1; without it there is no limit"));
    }
    if args.timeout == 0 {
        return Err(usage("--timeout 0: at least 1 second"));
    }
    if args.json && config.target == Target::Stdout {
        return Err(usage("--json and -o - both want standard output: choose one"));
    }
    config.verify = args.verify.0;
    config.connections = args.connections;
    config.connection_per_block = args.connection_per_block;
    config.limit_rate = args.limit_rate.map(|rate| rate.0);
    config.sequential = args.sequential;
    config.timeout = Duration::from_secs(args.timeout);
    config.recheck = args.recheck;
    config.force = args.force;
    Ok(config)
}

fn source(text: &str) -> Result<Source, Failure> {
    let wrong = |error: String| usage(format!("--from {error}"));
    if text.contains("://") {
        return text
            .parse()
            .map_err(|error: cordee_net::blocks::fetch::SourceError| wrong(error.to_string()));
    }
    let address: Address = text.parse().map_err(wrong)?;
    Ok(Source::Server(address.or_port(BLOCK_PORT).to_string()))
}

/// Where it goes: the last part of the name, unless it is said.
fn target(args: &Fetch) -> Result<Target, Failure> {
    if let Some(output) = &args.output {
        let is_stdout = output.as_os_str() == "-";
        return Ok(if is_stdout { Target::Stdout } else { Target::File(output.clone()) });
    }
    let last = args.name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match last {
        "" | "." | ".." => Err(usage(format!("{:?}: say where it goes with -o", args.name))),
        _ => Ok(Target::File(PathBuf::from(last))),
    }
}

/// Servers on this machine that are tried when nobody says where there are some.
const PORTS_TRIED: u16 = 4;
const CONNECTIONS_MAX: u32 = 64;
/// Sent to a process that writes more than it may.
const SIGXFSZ: i32 = 25;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<FetchConfig, Failure> {
        config(&Fetch::from_args(&["fetch"], args).expect("arguments"))
    }

    #[test]
    fn sources_may_leave_the_port_away() {
        let config = parsed(&["a/b", "--from", "h", "--from", "[::1]:7", "--from", "http://h/x"]);
        let config = config.expect("it makes sense");
        let sources: Vec<_> = config.sources.iter().map(ToString::to_string).collect();
        assert_eq!(sources, ["h:4545", "[::1]:7", "http://h:80/x"]);
        assert_eq!(config.target, Target::File("b".into()));
        assert!(!config.only_present);
    }

    #[test]
    fn without_sources_this_machine_is_asked() {
        let config = parsed(&["film.mp4", "-o", "-"]).expect("it makes sense");
        assert_eq!(config.sources.len(), 4);
        assert_eq!(config.sources[0].to_string(), "127.0.0.1:4545");
        assert!(config.only_present && config.target == Target::Stdout);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (args, what) in [
            (&["a", "--from", "https://h/a"][..], "only http:// is spoken"),
            (&["a", "--from", "a b"], "is not an address"),
            (&["a", "--hash", "123"], "--hash: a hash has 64"),
            (&["a", "--connections", "0"], "from 1 to 64"),
            (&["a", "--limit-rate", "0"], "at least 1"),
            (&["a", "--timeout", "0"], "at least 1 second"),
            (&["a", "-o", "-", "--json"], "choose one"),
            (&[".."], "say where it goes"),
            (&["/"], "names nothing"),
        ] {
            let failure = parsed(args).expect_err("it makes no sense");
            assert!(failure.to_string().contains(what), "{failure}");
            assert_eq!(failure.code(), 2);
        }
    }
}
