//! `cordee forget`: a member that will not return.

use std::time::Duration;

use argh::FromArgs;
use cordee_net::observe::Observer;

use crate::address::{self, Address, CHAT_PORT};
use crate::chat_server::{CLUSTER_DEFAULT, check_cluster};
use crate::failure::{Failure, failed};
use crate::print;

/// Remove a server that will not return from the cluster: nobody waits for it any more, and what
/// it alone held is given up.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "forget",
    help_triggers("-h", "--help", "help"),
    example = "Asking a server on this machine:\n  {command_name} 10.0.0.3:5000\n\
    Asking another:\n  {command_name} 10.0.0.3:5000 -i 10.0.0.1 -p 5000",
    note = "The server that is asked may allow this to operators on its own machine alone."
)]
pub(crate) struct Forget {
    /// the server to remove, host:port as it advertised itself
    #[argh(positional, arg_name = "server")]
    server: Address,

    /// address of the server to ask (the first of 127.0.0.1:5000 to 5004 that answers)
    #[argh(option, short = 'i', arg_name = "host")]
    address: Option<Address>,

    /// port of the server to ask (5000)
    #[argh(option, short = 'p')]
    port: Option<u16>,

    /// name of the cluster (cordee)
    #[argh(option, default = "CLUSTER_DEFAULT.to_owned()", arg_name = "name")]
    cluster: String,
}

/// Asks the first server that answers.
pub(crate) fn run(args: &Forget) -> Result<(), Failure> {
    check_cluster(&args.cluster)?;
    let forgotten = args.server.or_port(CHAT_PORT).to_string();
    let told = address::servers(&[], args.address.as_ref(), args.port)?;
    let asked = if told.is_empty() { address::default_servers() } else { told };
    let mut last = None;
    for address in asked.iter().filter(|address| **address != forgotten) {
        match Observer::connect(address, &args.cluster, PATIENCE) {
            Ok(mut observer) => {
                observer.forget(&forgotten, PATIENCE).map_err(|error| {
                    failed(format!("{address} does not forget {forgotten}: {error}"))
                })?;
                // It is done, whether or not anybody reads it.
                let _ = print::line(format_args!("{address} forgot {forgotten}"));
                return Ok(());
            }
            Err(error) => last = Some((address, error)),
        }
    }
    let why = last.map(|(address, error)| format!(" ({address}: {error})")).unwrap_or_default();
    Err(failed(format!("no chat server to ask{why}: say which one with -i and -p")))
}

/// For connecting, and again for the answer.
const PATIENCE: Duration = Duration::from_secs(2);
