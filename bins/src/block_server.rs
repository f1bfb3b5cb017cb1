//! `cordee block-server`: serves the files below a directory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use argh::FromArgs;
use cordee_net::blocks::server::{BlockServer, BlockServerConfig};
use cordee_net::{Level, Log};

use crate::address::{Address, BLOCK_PORT, LOOPBACK};
use crate::failure::{Failure, failed, usage};
use crate::size::Size;
use crate::{print, signals};

pub(crate) mod worker;

/// Serve the complete files below a directory, to cordee fetch and, over HTTP, to browsers, curl and
/// aria2c. Hidden files, and those that are still being fetched, are not served.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "block-server",
    help_triggers("-h", "--help", "help"),
    example = "What is in ./shared, on 127.0.0.1:4545:\n  {command_name} shared\n\
    To other machines, 50 million bytes per second at the most:\n  \
    {command_name} shared -i 10.0.0.2 --limit-rate 50M"
)]
pub(crate) struct Args {
    /// the directory
    #[argh(positional, arg_name = "dir")]
    directory: PathBuf,

    /// address to listen on (127.0.0.1)
    #[argh(option, short = 'i', default = "loopback()", arg_name = "host")]
    address: Address,

    /// port to listen on (4545); 0 takes a free one
    #[argh(option, short = 'p', default = "BLOCK_PORT")]
    port: u16,

    /// threads that serve, and as many that hash files (one for each processor)
    #[argh(option, arg_name = "n")]
    threads: Option<u32>,

    /// bytes per second to all clients together, or with K, M, G (thousands, millions, …); no limit
    #[argh(option, arg_name = "rate")]
    limit_rate: Option<Size>,

    /// bytes of a block, a power of two from 1024 to 16777216 (262144)
    #[argh(option, arg_name = "bytes")]
    block_size: Option<u32>,

    /// connections at once; newcomers beyond are asked to try again (1024)
    #[argh(option, arg_name = "n")]
    connections: Option<u32>,
}

/// Serves until a signal ends it.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    check(args)?;
    let listen = SocketAddr::new(args.address.ip()?, args.port);
    if !listen.ip().is_loopback() {
        print::note(format_args!(
            "warning: {listen} is open to other machines, and whoever reaches it can read all files \
             below {}: keep it within a network that you trust",
            args.directory.display()
        ));
    }
    let mut config = BlockServerConfig::new(listen, &args.directory);
    config.threads = args.threads.unwrap_or(config.threads);
    config.limit_rate = args.limit_rate.map(|rate| rate.0);
    config.block_bytes = args.block_size.unwrap_or(config.block_bytes);
    config.limits.connections_max = args.connections.unwrap_or(config.limits.connections_max);
    serve(config, |address| print::line(format_args!("{}{address}", worker::READY)))
}

/// Serves until a signal ends it; `say` tells where.
fn serve(
    mut config: BlockServerConfig,
    say: impl FnOnce(SocketAddr) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let listen = config.listen;
    crate::descriptors::raise();
    config.log = Log::new(move |level, line| {
        if level == Level::Warn {
            print::note(format_args!("block server {listen}: {line}"));
        }
    });
    let running = BlockServer::start(config).map_err(|error| failed(error.to_string()))?;
    let stopper = running.stopper();
    signals::watch(move |count| match count {
        1 => stopper.stop(),
        _ => stopper.stop_within(Duration::ZERO),
    })?;
    // Whoever started it may not want to hear it.
    let _ = say(running.local_addr());
    running.wait().map_err(|error| failed(format!("block server {listen}: {error}")))
}

fn check(args: &Args) -> Result<(), Failure> {
    if args.address.port.is_some() {
        return Err(usage(format!("-i {}: give the port with -p", args.address)));
    }
    if let Some(threads) = args.threads
        && !(1..=THREADS_MAX).contains(&threads)
    {
        return Err(usage(format!("--threads {threads}: from 1 to {THREADS_MAX}")));
    }
    if args.limit_rate == Some(Size(0)) {
        return Err(usage("--limit-rate 0: at least 1; without it there is no limit"));
    }
    if let Some(bytes) = args.block_size {
        cordee_core::blocks::Layout::new(0, bytes)
            .map_err(|error| usage(format!("--block-size {bytes}: {error}")))?;
    }
    if args.connections == Some(0) {
        return Err(usage("--connections 0: at least 1"));
    }
    Ok(())
}

fn loopback() -> Address {
    Address { host: LOOPBACK.to_owned(), port: None }
}

const THREADS_MAX: u32 = 1_024;
