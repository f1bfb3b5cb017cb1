//! One chat server in a process of its own, as [`super`] starts it. Not a command for people.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use argh::FromArgs;
use cordee_core::Limits;
use cordee_net::server::{self, Ended, OnCrash, ServerConfig};
use cordee_net::supervise::die_with_parent;
use cordee_net::{Level, Log};
use rustix::process::{Signal, getpid, kill_process};

use crate::failure::{Failure, failed, usage};
use crate::{print, signals};

/// The word that makes this program a worker.
pub(crate) const COMMAND: &str = "__chat-server";
/// What a worker says, with its address, once it accepts connections.
pub(crate) const READY: &str = "listening on ";

/// One chat server.
#[derive(FromArgs, Clone, PartialEq, Debug)]
pub(crate) struct Worker {
    /// the process that started this one
    #[argh(option)]
    pub(crate) parent: u32,

    /// where to listen
    #[argh(option)]
    pub(crate) listen: SocketAddr,

    /// the address under which others reach this server
    #[argh(option)]
    pub(crate) advertise: String,

    /// another server of the cluster
    #[argh(option)]
    pub(crate) peer: Vec<String>,

    /// name of the cluster
    #[argh(option)]
    pub(crate) cluster: String,

    /// users before newcomers are sent elsewhere
    #[argh(option)]
    pub(crate) limit: u32,

    /// users in all
    #[argh(option)]
    pub(crate) hard_limit: u32,

    /// servers that hold a message before it is acknowledged
    #[argh(option)]
    pub(crate) copies: u8,

    /// memory of the archive, in bytes
    #[argh(option)]
    pub(crate) archive_memory: u64,

    /// allow users to crash the server
    #[argh(switch)]
    pub(crate) allow_kill: bool,
}

impl Worker {
    /// The arguments from which [`run`] reads the same again.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let mut args = vec![COMMAND.to_owned()];
        let mut option = |name: &str, value: &dyn ToString| {
            args.extend([format!("--{name}"), value.to_string()]);
        };
        option("parent", &self.parent);
        option("listen", &self.listen);
        option("advertise", &self.advertise);
        option("cluster", &self.cluster);
        option("limit", &self.limit);
        option("hard-limit", &self.hard_limit);
        option("copies", &self.copies);
        option("archive-memory", &self.archive_memory);
        for peer in &self.peer {
            option("peer", peer);
        }
        if self.allow_kill {
            args.push("--allow-kill".to_owned());
        }
        args
    }
}

/// Serves until a signal ends it, or its parent's death.
pub(crate) fn run(args: &[&str]) -> Result<(), Failure> {
    let worker = Worker::from_args(&[COMMAND], args)
        .map_err(|_| usage(format!("{COMMAND} is for cordee alone: see cordee --help")))?;
    die_with_parent(worker.parent).map_err(|error| failed(error.to_string()))?;
    // It was run by another path than its own; only its name in lists is at stake.
    let _ = std::fs::write("/proc/self/comm", "cordee");
    crate::descriptors::raise();
    let running = server::ChatServer::start(config(&worker))
        .map_err(|error| failed(format!("chat server {}: {error}", worker.listen)))?;
    let stopper = running.stopper();
    signals::watch(move |count| match count {
        1 => stopper.stop(),
        _ => stopper.stop_within(Duration::ZERO),
    })?;
    print::line(format_args!("{READY}{}", running.local_addr()))
        .map_err(|error| failed(format!("the parent does not listen: {error}")))?;
    match running.wait() {
        Ok(Ended::Stopped) => Ok(()),
        Ok(ended) => Err(failed(format!("chat server {}: {ended:?}", worker.listen))),
        Err(error) => Err(failed(format!("chat server {}: {error}", worker.listen))),
    }
}

fn config(worker: &Worker) -> ServerConfig {
    let listen = worker.listen;
    let mut config = ServerConfig::new(listen, worker.cluster.as_str());
    config.advertise = Some(worker.advertise.clone());
    config.peers.clone_from(&worker.peer);
    config.copies = worker.copies;
    config.allow_kill = worker.allow_kill;
    config.limits = Limits {
        users_max: worker.limit,
        users_hard_max: worker.hard_limit,
        archive_bytes_max: worker.archive_memory,
        ..Limits::default()
    };
    // What is rehearsed is the real thing: no destructor runs, nothing is flushed.
    config.on_crash = OnCrash::Call(Arc::new(|| {
        // It does not return; if the system refused, the server would end by itself.
        let _ = kill_process(getpid(), Signal::KILL);
    }));
    config.log = Log::new(move |level, line| {
        if level == Level::Warn {
            print::note(format_args!("chat server {listen}: {line}"));
        }
    });
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_reads_what_its_parent_wrote() {
        let worker = Worker {
            parent: 7,
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            advertise: "example.org:5000".to_owned(),
            peer: vec!["127.0.0.1:5001".to_owned(), "[::1]:5002".to_owned()],
            cluster: "--odd".to_owned(),
            limit: 3,
            hard_limit: 30,
            copies: 2,
            archive_memory: 1 << 30,
            allow_kill: true,
        };
        let bare = Worker { allow_kill: false, peer: Vec::new(), ..worker.clone() };
        for worker in [worker, bare] {
            let args = worker.to_args();
            let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
            assert_eq!(Worker::from_args(&[COMMAND], &args).ok(), Some(worker));
        }
    }
}
