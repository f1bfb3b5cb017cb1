//! `cordee up`: everything there is, on this machine.

use argh::FromArgs;

use crate::address::{Address, CHAT_PORT, CHAT_SERVERS};
use crate::chat_server::{self, CLUSTER_DEFAULT, COPIES_DEFAULT, ChatServer, USERS_DEFAULT};
use crate::failure::Failure;
use crate::print;

/// Run the whole system on this machine: five chat servers, 127.0.0.1:5000 to 5004, which users may
/// crash to rehearse it (kill server). Ctrl-C stops it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "up", help_triggers("-h", "--help", "help"), example = "{command_name}")]
pub(crate) struct Up {}

/// Runs it until a signal ends it.
pub(crate) fn run(_args: &Up) -> Result<(), Failure> {
    let servers = ChatServer {
        address: Address { host: "127.0.0.1".to_owned(), port: None },
        port: CHAT_PORT,
        servers: Some(CHAT_SERVERS),
        peer: Vec::new(),
        cluster: CLUSTER_DEFAULT.to_owned(),
        advertise: None,
        limit: USERS_DEFAULT,
        hard_limit: None,
        copies: COPIES_DEFAULT,
        archive_memory: None,
        allow_kill: true,
    };
    chat_server::serve(&servers, || {
        for line in welcome(std::env::var_os("CARGO_MANIFEST_DIR").is_some()) {
            // A reader that has gone does not stop the servers.
            let _ = print::line(line);
        }
    })
}

/// What people read once all runs. `by_cargo`: they run it from the source, by cargo.
fn welcome(by_cargo: bool) -> [String; 7] {
    let program = if by_cargo { "cargo run --release --" } else { "cordee" };
    let last = CHAT_PORT + CHAT_SERVERS - 1;
    [
        String::new(),
        format!("Five chat servers run, ports {CHAT_PORT} to {last}, each a process of its own."),
        "Not there yet: binders and block servers.".to_owned(),
        String::new(),
        "Type next, in another terminal (and once more in a third, with another name):".to_owned(),
        format!("  {program} chat --name ada"),
        "Ctrl-C here stops the servers.".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_command_is_the_one_that_works_for_whoever_reads_it() {
        assert!(welcome(true).contains(&"  cargo run --release -- chat --name ada".to_owned()));
        assert!(welcome(false).contains(&"  cordee chat --name ada".to_owned()));
    }
}
