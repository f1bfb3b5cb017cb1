//! `cordee up`: everything there is, on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use argh::FromArgs;

use crate::address::{Address, BLOCK_PORT, CHAT_PORT, CHAT_SERVERS, LOOPBACK};
use crate::block_server;
use crate::chat_server::{self, CLUSTER_DEFAULT, COPIES_DEFAULT, ChatServer, USERS_DEFAULT};
use crate::failure::{Failure, failed};
use crate::print;

/// Run the whole system on this machine: five chat servers, 127.0.0.1:5000 to 5004, which users may
/// crash to rehearse it (kill server), and a block server, 127.0.0.1:4545, for the files in ./shared,
/// which is made if it is not there. Ctrl-C stops it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "up", help_triggers("-h", "--help", "help"), example = "{command_name}")]
pub(crate) struct Up {}

/// Runs it until a signal ends it.
pub(crate) fn run(_args: &Up) -> Result<(), Failure> {
    let servers = ChatServer {
        address: Address { host: LOOPBACK.to_owned(), port: None },
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
    let shared = Path::new(SHARED);
    std::fs::create_dir_all(shared)
        .map_err(|error| failed(format!("{SHARED} cannot be made: {error}")))?;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, BLOCK_PORT));
    let port = chat_server::reserve_port(listen, "block-server DIR -p PORT")?;
    let blocks = block_server::worker::program(&port, shared);
    chat_server::serve(&servers, vec![blocks], || {
        for line in welcome(std::env::var_os("CARGO_MANIFEST_DIR").is_some()) {
            // A reader that has gone does not stop the servers.
            let _ = print::line(line);
        }
    })
}

/// What people read once all runs. `by_cargo`: they run it from the source, by cargo.
fn welcome(by_cargo: bool) -> [String; 8] {
    let program = if by_cargo { "cargo run --release --" } else { "cordee" };
    let last = CHAT_PORT + CHAT_SERVERS - 1;
    [
        String::new(),
        format!("Five chat servers run, ports {CHAT_PORT} to {last}, each a process of its own."),
        format!(
            "A block server on port {BLOCK_PORT} serves what is in {SHARED}: {program} status, or"
        ),
        format!("a browser at http://127.0.0.1:{BLOCK_PORT}/, shows it. Not there yet: binders."),
        String::new(),
        "Type next, in another terminal (and once more in a third, with another name):".to_owned(),
        format!("  {program} chat --name ada"),
        "Ctrl-C here stops the servers.".to_owned(),
    ]
}

/// The directory whose files are served.
const SHARED: &str = "./shared";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_command_is_the_one_that_works_for_whoever_reads_it() {
        assert!(welcome(true).contains(&"  cargo run --release -- chat --name ada".to_owned()));
        assert!(welcome(false).contains(&"  cordee chat --name ada".to_owned()));
    }
}
