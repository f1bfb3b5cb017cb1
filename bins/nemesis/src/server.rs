//! One server of the cluster: the program under test, behind a relay, at an address of its own.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path as FilePath;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use cordee_net::observe::{Observer, ServerReport};
use rustix::process::Signal;

use crate::failure::{Failure, Result, broken};
use crate::process::Process;
use crate::relay::{End, Path, Relay};

/// The name of the cluster.
pub(crate) const CLUSTER: &str = "nemesis";

/// A server, the process that keeps it alive, and the relay before it.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where it listens, and from where it dials.
    pub(crate) host: IpAddr,
    /// None where it has a network of its own.
    pub(crate) relay: Option<Relay>,
    /// Under which others reach it.
    pub(crate) address: String,
    pub(crate) listens: SocketAddr,
    /// `timeout`, which ends all even if nobody else does.
    keeper: Child,
}

/// What all servers are started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) binary: &'a FilePath,
    pub(crate) copies: u8,
    /// After this they end by themselves.
    pub(crate) life: Duration,
    /// Where what they say on standard error goes.
    pub(crate) directory: &'a FilePath,
}

/// Where a server is.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) host: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub(crate) port: u16,
    /// What runs a command there; nothing where it is here.
    pub(crate) within: Vec<String>,
    pub(crate) relay: Option<Relay>,
    /// Under which others reach it.
    pub(crate) address: String,
}

impl Server {
    /// Starts a server that looks for `peers`.
    pub(crate) fn start(setup: Setup<'_>, place: Place, peers: &[String]) -> Result<Server> {
        let Place { host, port, within, relay, address } = place;
        let log = setup.directory.join(format!("server-{host}.log"));
        let log = File::create(&log).map_err(Failure::io(format!("{}", log.display())))?;
        let mut command = command(&within, "timeout".as_ref());
        command.arg("--kill-after=10").arg(setup.life.as_secs().to_string());
        command.arg(setup.binary).args(["chat-server", "--servers", "1", "-p", &port.to_string()]);
        command.args(["-i", &host.to_string(), "--cluster", CLUSTER]);
        command.args(["--advertise", &address, "--copies", &setup.copies.to_string()]);
        for peer in peers {
            command.args(["--peer", peer]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut keeper = command.spawn().map_err(Failure::io("timeout (of coreutils)"))?;
        let stdout = keeper.stdout.take();
        let listens = SocketAddr::new(host, port);
        let mut server = Server { host, relay, address, listens, keeper };
        let Some(stdout) = stdout else { return broken("a server has no standard output") };
        let told = lines(stdout)?.recv_timeout(PATIENCE);
        let listens = told.as_deref().ok().and_then(|line| line.strip_prefix("listening on "));
        let Some(Ok(listens)) = listens.map(str::parse) else {
            return broken(format!("the server on {host} does not listen: {told:?}"));
        };
        server.listens = listens;
        if let Some(relay) = &server.relay {
            relay.lead_to(listens);
        }
        Ok(server)
    }

    /// Changes what happens to connections from `host`.
    pub(crate) fn change(&self, host: IpAddr, path: Path) {
        if let Some(relay) = &self.relay {
            relay.change(host, |now| *now = path);
        }
    }

    /// Ends the connections from `host` that stand.
    pub(crate) fn end(&self, host: IpAddr, how: End) {
        self.relay.as_ref().map(|relay| relay.end(host, how));
    }

    /// The process that serves now; `None` between two of them.
    pub(crate) fn process(&self) -> Option<Process> {
        // The keeper is `timeout`, its child the supervisor, whose child the one that serves.
        let supervisor = *Process(self.keeper.id()).children().first()?;
        supervisor.children().first().copied().filter(|process| process.runs())
    }

    /// How it stands, asked past its relay; `None` when it does not answer at once.
    pub(crate) fn report(&self) -> Option<ServerReport> {
        let mut observer = Observer::connect(&self.listens.to_string(), CLUSTER, ANSWER).ok()?;
        observer.report(ANSWER).ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It passes the signal on. A server that was stopped would not hear it.
        let _ = self.process().map(|process| process.signal(Signal::CONT));
        let _ = Process(self.keeper.id()).signal(Signal::TERM);
        let _ = self.keeper.wait();
    }
}

/// A command that runs `program`, by way of `within`.
pub(crate) fn command(within: &[String], program: &FilePath) -> Command {
    match within {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    }
}

/// The lines that a process prints, as they come.
pub(crate) fn lines(from: impl io::Read + Send + 'static) -> Result<Receiver<String>> {
    let (sender, receiver) = channel();
    let thread = thread::Builder::new().name("lines".to_owned());
    let read = move || {
        for line in BufReader::new(from).lines().map_while(io::Result::ok) {
            // Nobody listens any more at the very end only.
            let _ = sender.send(line);
        }
    };
    thread.spawn(read).map_err(Failure::io("a thread"))?;
    Ok(receiver)
}

const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(2);
