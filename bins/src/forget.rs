//! `cordee forget`: a member that will not return.

use std::time::Duration;

use argh::FromArgs;
use cordee_core::wire::Reason;
use cordee_net::observe::{ObserveError, Observer};

use crate::address::{self, Address, CHAT_PORT};
use crate::chat::escape::escape;
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

/// Asks the first server that answers; without `-i` and `-p` the one to be forgotten last.
pub(crate) fn run(args: &Forget) -> Result<(), Failure> {
    check_cluster(&args.cluster)?;
    let member = args.server.or_port(CHAT_PORT).to_string();
    let told = address::servers(&[], args.address.as_ref(), args.port)?;
    let is_told = !told.is_empty();
    let mut asked = if is_told { told } else { address::default_servers() };
    asked.sort_by_key(|address| *address == member);
    let mut last = None;
    for address in &asked {
        match Observer::connect(address, &args.cluster, PATIENCE) {
            Ok(mut observer) => return forget(&mut observer, address, &member),
            // Of several that were not named, one that refuses says more than one that is not there.
            Err(error) => match &last {
                Some((_, before)) if !matches!(before, ObserveError::Connect(_)) => {}
                _ => last = Some((address, error)),
            },
        }
    }
    let why = last.map(|(address, error)| format!("{address}: {error}")).unwrap_or_default();
    Err(failed(if is_told {
        format!("{why}: ask a server that lives, with -i and -p")
    } else {
        format!("no chat server to ask ({why}): say which one with -i and -p")
    }))
}

/// Has the server at `address` forget `member`.
fn forget(observer: &mut Observer, address: &str, member: &str) -> Result<(), Failure> {
    let error = match observer.forget(member, PATIENCE) {
        Ok(()) => {
            // It is done, whether or not anybody reads it.
            let _ = print::line(format_args!("{address} forgot {member}"));
            return Ok(());
        }
        Err(error) => error,
    };
    let reason = match &error {
        ObserveError::Refused { reason, .. } => Some(*reason),
        _ => None,
    };
    Err(failed(match reason {
        Some(Reason::MemberAlive) => format!(
            "{member} is alive, and only a server that will not return can be forgotten: if it is \
             to go, stop it first"
        ),
        Some(Reason::MemberItself) => format!(
            "{member} is the server that was asked, and it is alive: if it is to go, stop it; if \
             another is meant, give its address"
        ),
        Some(Reason::MemberUnknown) => {
            format!("{address} knows no member {member}{}", known(observer))
        }
        Some(Reason::OperatorOnly) => format!(
            "{address} lets only its own machine do that: run cordee forget there, or ask a server \
             on this machine with -i and -p"
        ),
        _ => format!("{address} does not forget {member}: {error}"),
    }))
}

/// The members as they are to be written.
fn known(observer: &mut Observer) -> String {
    let Ok(report) = observer.report(PATIENCE) else { return String::new() };
    let members: Vec<_> = report.members.iter().map(|member| escape(&member.address)).collect();
    format!(": its members are {}", members.join(", "))
}

/// For connecting, and again for the answer.
const PATIENCE: Duration = Duration::from_secs(2);
