//! `cordee`: the command line. Each command is a thin module: arguments, then
//! [`cordee_net`], then an exit code.
//!
//! ```text
//! up              everything on this machine        chat_server::serve
//! chat_server     servers, kept alive               cordee_net::supervise
//!   worker          one server, one process         cordee_net::server
//! block_server    serves files                      cordee_net::blocks::server
//!   worker          the same, kept alive by up
//! chat            the client                        cordee_net::client
//!   conversation    from requests to commands of the client; what the faces have in common
//!   commands        what can be asked for, and how it is typed
//!   json            the same from JSON, and events to JSON
//!   text            events as lines for people
//!   escape          what others wrote, made safe for a terminal
//!   lines           standard input, line by line, bounded
//!   session_file    who the user is, from one run to the next
//!   face_terminal   line editing, completion, prompt
//!   face_plain      lines in, lines out
//!   face_json       JSON lines in, JSON lines out
//! fetch           files from block servers          cordee_net::blocks::fetch
//!   face_*          progress: a bar, plain lines, JSON
//! status, forget  how servers stand                 cordee_net::observe
//! address, size, failure, print, signals, descriptors   shared by all
//! ```
#![forbid(unsafe_code)]

mod address;
mod block_server;
mod chat;
mod chat_server;
mod descriptors;
mod failure;
mod fetch;
mod forget;
mod print;
mod signals;
mod size;
mod status;
mod up;

use std::process::ExitCode;

use argh::{EarlyExit, FromArgs};
use chat_server::worker;
use failure::Failure;

/// Keeps a group talking while its machines die: replicated chat servers and their client.
#[derive(FromArgs, Debug)]
#[argh(
    help_triggers("-h", "--help", "help"),
    example = "Everything on this machine, then a client in another terminal:\n  \
    {command_name} up\n  {command_name} chat --name ada"
)]
struct Cordee {
    /// print the version
    #[argh(switch)]
    version: bool,

    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Command {
    Up(up::Up),
    ChatServer(chat_server::ChatServer),
    BlockServer(block_server::Args),
    Chat(chat::Chat),
    Status(status::Status),
    Fetch(fetch::Fetch),
    Forget(forget::Forget),
}

fn main() -> ExitCode {
    let args: Result<Vec<String>, _> =
        std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect();
    let outcome = match &args {
        Ok(args) => run(&args.iter().map(String::as_str).collect::<Vec<_>>()),
        Err(argument) => Err(failure::usage(format!("{argument:?} is not UTF-8"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Told) {
                print::note(&failure);
            }
            ExitCode::from(failure.code())
        }
    }
}

fn run(args: &[&str]) -> Result<(), Failure> {
    // No commands for people: how a supervisor starts one server.
    if let Some((&worker::COMMAND, args)) = args.split_first() {
        return worker::run(args);
    }
    if let Some((&block_server::worker::COMMAND, args)) = args.split_first() {
        return block_server::worker::run(args);
    }
    let cordee = match Cordee::from_args(&["cordee"], args) {
        Ok(cordee) => cordee,
        Err(exit) => return early_exit(&exit),
    };
    if cordee.version {
        help(concat!("cordee ", env!("CARGO_PKG_VERSION")));
        return Ok(());
    }
    match cordee.command {
        None => Err(failure::usage("a command is missing: cordee --help lists them")),
        Some(Command::Up(args)) => up::run(&args),
        Some(Command::ChatServer(args)) => chat_server::run(&args),
        Some(Command::BlockServer(args)) => block_server::run(&args),
        Some(Command::Chat(args)) => chat::run(&args),
        Some(Command::Status(args)) => status::run(&args),
        Some(Command::Fetch(args)) => fetch::run(&args),
        Some(Command::Forget(args)) => forget::run(&args),
    }
}

/// What argh has to say instead of arguments: help, or one line on what is wrong.
fn early_exit(exit: &EarlyExit) -> Result<(), Failure> {
    if exit.status.is_ok() {
        help(exit.output.trim_end());
        return Ok(());
    }
    let words: Vec<&str> = exit.output.split_whitespace().collect();
    let wrong = words.join(" ");
    Err(failure::usage(format!("{}; see --help", wrong.trim_end_matches('.'))))
}

/// Help that nobody reads to its end is no failure.
fn help(text: &str) {
    let _ = print::line(text);
}
