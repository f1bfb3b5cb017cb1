//! A block server in a process that `cordee up` starts and keeps alive. Not a command for people.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use argh::FromArgs;
use cordee_net::blocks::server::BlockServerConfig;
use cordee_net::supervise::{Program, ReservedPort, die_with_parent};

use crate::failure::{Failure, failed, usage};
use crate::print;

/// The word that makes this program a worker.
pub(crate) const COMMAND: &str = "__block-server";
/// What a worker says, with its address, once it accepts connections.
pub(crate) const READY: &str = "listening on ";

/// One block server.
#[derive(FromArgs, Debug)]
struct Worker {
    /// the process that started this one
    #[argh(option)]
    parent: u32,

    /// where to listen
    #[argh(option)]
    listen: SocketAddr,

    /// what to serve
    #[argh(option)]
    directory: PathBuf,
}

/// What the supervisor runs to serve `directory` on that port.
pub(crate) fn program(port: &ReservedPort, directory: &Path) -> Program {
    let listen = port.address();
    let option = |name: &str, value: &dyn ToString| [name.to_owned(), value.to_string()];
    let mut args = vec![COMMAND.to_owned()];
    args.extend(option("--parent", &std::process::id()));
    args.extend(option("--listen", &listen));
    let mut args: Vec<_> = args.into_iter().map(std::ffi::OsString::from).collect();
    args.extend(["--directory".into(), directory.into()]);
    Program {
        name: format!("block server {listen}"),
        path: "/proc/self/exe".into(),
        arg0: "cordee".into(),
        args,
        env: Vec::new(),
        ready: READY.to_owned(),
    }
}

/// Serves until a signal ends it, or its parent's death.
pub(crate) fn run(args: &[&str]) -> Result<(), Failure> {
    let worker = Worker::from_args(&[COMMAND], args)
        .map_err(|_| usage(format!("{COMMAND} is for cordee alone: see cordee --help")))?;
    die_with_parent(worker.parent).map_err(|error| failed(error.to_string()))?;
    // It was run by another path than its own; only its name in lists is at stake.
    let _ = std::fs::write("/proc/self/comm", "cordee");
    let config = BlockServerConfig::new(worker.listen, worker.directory);
    super::serve(config, |address| print::line(format_args!("{READY}{address}")))
}
