//! What a chat server is started with.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cordee_core::Limits;

use super::storage::{MemoryStorage, Storage};
use crate::log::Log;

/// What a chat server is started with. [`ServerConfig::new`] gives defaults for all but where to
/// listen and the cluster's name.
#[derive(Debug)]
pub struct ServerConfig {
    /// Where to listen; port 0 draws a free one.
    pub listen: SocketAddr,
    /// The cluster's name: servers of another one, and their clients, are refused.
    pub cluster: String,
    /// The address under which others reach this server, `host:port`; by default the one that it
    /// listens on. Needed when that is "every address" (`0.0.0.0`, `[::]`).
    pub advertise: Option<String>,
    /// Members to link with, `host:port`; more are learned from them.
    pub peers: Vec<String>,
    /// How many servers hold a message before it is acknowledged, this one included.
    pub copies: u8,
    /// Whether a user may crash the server, as a rehearsal.
    pub allow_kill: bool,
    /// What bounds everything. [`Limits::connections_max`] is cut to what the process can hold.
    pub limits: Limits,
    /// Threads that send, at least 1, and as many that read. By default one for every four processors: one serves two
    /// processors best, as the hub and the readers need theirs.
    pub pumps: u32,
    /// What happens when a user crashes the server.
    pub on_crash: OnCrash,
    /// Where entries are kept.
    pub storage: Box<dyn Storage>,
    /// Where reports go.
    pub log: Log,
}

impl ServerConfig {
    /// A server of the cluster `cluster` that listens on `listen`, keeps everything in memory and
    /// reports nothing.
    #[must_use]
    pub fn new(listen: SocketAddr, cluster: impl Into<String>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        ServerConfig {
            listen,
            cluster: cluster.into(),
            advertise: None,
            peers: Vec::new(),
            copies: 2,
            allow_kill: false,
            limits: Limits::default(),
            pumps: processors.div_ceil(4),
            on_crash: OnCrash::default(),
            storage: Box::new(MemoryStorage::default()),
            log: Log::none(),
        }
    }
}

/// What happens when a user crashes the server. Either way every connection is cut without a word.
#[derive(Clone, Default)]
pub enum OnCrash {
    /// The server ends, [`RunningServer::wait`](super::RunningServer::wait) says
    /// [`Ended::Crashed`](super::Ended::Crashed).
    #[default]
    End,
    /// This is called first, on the hub's thread; a program may exit in it.
    Call(Arc<dyn Fn() + Send + Sync>),
}

impl OnCrash {
    pub(crate) fn call(&self) {
        if let OnCrash::Call(call) = self {
            call();
        }
    }
}

impl fmt::Debug for OnCrash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnCrash::End => "End",
            OnCrash::Call(_) => "Call(…)",
        })
    }
}

/// For how long a server that is asked to stop may hand its clients on.
pub const DRAIN: Duration = Duration::from_secs(5);
