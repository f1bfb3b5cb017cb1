//! A block server: serves the complete files below a directory, to fetchers and over HTTP.
//!
//! ```text
//!            newcomers    ┌───────┐ the first that came ┌─────────┐ sendfile
//! acceptor ─────────────▶ │ queue │ ──────────────────▶ │ workers │ ─────────▶ sockets
//!                         └───────┘ ◀────────────────── └─────────┘
//!                             ▲        more to be done       │ would block: idle, full, over the rate
//!                             │   ready, or time has come    ▼
//!                             └──────────────────────────  poller
//! ```
//!
//! A connection is in exactly one of these places. A worker never waits for one: a turn is bounded, and
//! whatever would block is given to the poller. Beside them are the threads that hash files.
//!
//! ```no_run
//! use cordee_net::blocks::server::{BlockServer, BlockServerConfig};
//! let listen = "127.0.0.1:0".parse().unwrap();
//! let server = BlockServer::start(BlockServerConfig::new(listen, "shared")).unwrap();
//! println!("listening on {}", server.local_addr());
//! server.stop();
//! server.wait().unwrap();
//! ```

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cordee_core::blocks::Layout;
use rustix::process::{Resource, getrlimit};

use crate::acceptor::{Acceptor, AcceptorStop};
use crate::log::Log;
use crate::socket::listen;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex, lock};
use crate::threads::{STACK_BYTES, Thread};
use door::Door;
use files::Directory;
use poller::{End, Poller};
use queue::Queue;
use shared::Shared;
use table::Table;
use worker::Worker;

mod config;
mod connection;
mod desk;
mod door;
mod error;
mod fetcher;
mod files;
mod hashing;
mod http;
mod limits;
mod outgoing;
mod poller;
mod queue;
mod rate;
mod requests;
mod shared;
mod table;
mod talk;
mod tcp;
#[cfg(all(test, not(feature = "loom")))]
mod tests;
mod worker;

pub use config::{BlockServerConfig, DRAIN};
pub use error::BlockServerError;
pub use limits::BlockLimits;

/// Starts block servers.
#[derive(Debug)]
pub struct BlockServer;

impl BlockServer {
    /// Starts a server. It accepts connections when this returns.
    ///
    /// # Errors
    ///
    /// A [`BlockServerError`] that says what to mend: the address is taken, the directory is not there,
    /// or the system gives no threads or descriptors.
    pub fn start(config: BlockServerConfig) -> Result<RunningBlockServer, BlockServerError> {
        start(config)
    }
}

/// A server that runs. Dropping it stops it at once; for an orderly end, ask it to
/// [`stop`](Self::stop), and [`wait`](Self::wait).
#[derive(Debug)]
pub struct RunningBlockServer {
    local_addr: SocketAddr,
    stopper: BlockServerStopper,
    /// In the order in which they end.
    threads: Vec<Thread>,
}

/// Stops a block server from any thread, a signal's for instance.
#[derive(Clone, Debug)]
pub struct BlockServerStopper {
    acceptor: Arc<AcceptorStop>,
    shared: Arc<Shared>,
    table: Arc<Table>,
    end: Arc<End>,
}

impl BlockServerStopper {
    /// Asks the server to send the blocks that it is amid, tell everybody, and end, within [`DRAIN`].
    /// Returns at once.
    pub fn stop(&self) {
        self.stop_within(DRAIN);
    }

    /// As [`stop`](Self::stop), within `time`. When it was asked before, this can only hasten it.
    pub fn stop_within(&self, time: Duration) {
        let latest = Instant::now() + time.min(Duration::from_secs(24 * 3_600));
        {
            let mut end = lock(&self.end);
            *end = Some(end.map_or(latest, |end| end.min(latest)));
        }
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.acceptor.stop();
        self.table.wake.wake();
    }
}

impl RunningBlockServer {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Something that stops the server from another thread.
    #[must_use]
    pub fn stopper(&self) -> BlockServerStopper {
        self.stopper.clone()
    }

    /// As [`BlockServerStopper::stop`].
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// Waits until the server ended, whatever made it end, and all its threads with it.
    ///
    /// # Errors
    ///
    /// [`BlockServerError::Thread`] when one of them died.
    pub fn wait(mut self) -> Result<(), BlockServerError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), BlockServerError> {
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            result = result.and(thread.join().map_err(BlockServerError::from));
        }
        result
    }
}

impl Drop for RunningBlockServer {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stopper.stop_within(Duration::ZERO);
            // Whoever wants to know how it ended waits for it.
            let _ = self.join();
        }
    }
}

fn start(mut config: BlockServerConfig) -> Result<RunningBlockServer, BlockServerError> {
    Layout::new(0, config.block_bytes)?;
    if let Some(limit) = config.limits.wrong() {
        return Err(BlockServerError::Limit(limit));
    }
    cut_to_descriptors(&mut config.limits, &config.log)?;
    let limits = &config.limits;
    let directory = Directory::open(
        &config.directory,
        config.block_bytes,
        limits.open_files_max as usize,
        limits.listing_entries_max as usize,
    );
    let cannot_serve =
        |source| BlockServerError::Directory { directory: config.directory.clone(), source };
    let directory = directory.map_err(cannot_serve)?;
    let cannot_listen = |source| BlockServerError::Listen { address: config.listen, source };
    let listener = listen(config.listen).map_err(cannot_listen)?;
    let local_addr = listener.local_addr().map_err(cannot_listen)?.as_socket();
    let local_addr =
        local_addr.ok_or_else(|| cannot_listen(io::ErrorKind::AddrNotAvailable.into()))?;

    let threads = config.threads.max(1);
    let shared = Arc::new(Shared::new(
        directory,
        config.limits,
        config.limit_rate,
        threads as usize,
        config.log,
    ));
    let no_descriptor = |source| BlockServerError::Resource { what: "a descriptor", source };
    let table = Table::new(Arc::clone(&shared)).map_err(no_descriptor)?;
    let queue = Arc::new(Queue::new());
    let end = Arc::new(Mutex::new(None));
    let clones = || (Arc::clone(&table), Arc::clone(&queue), Arc::clone(&shared));
    let acceptor = Acceptor::new(listener, shared.log.clone()).map_err(no_descriptor)?;
    let stopper = BlockServerStopper {
        acceptor: acceptor.stopper(),
        shared: Arc::clone(&shared),
        table: Arc::clone(&table),
        end: Arc::clone(&end),
    };
    // When a thread cannot be made, dropping this ends those that were.
    let mut running = RunningBlockServer { local_addr, stopper, threads: Vec::new() };
    let (table_, queue_, shared_) = clones();
    let door = Door { table: table_, queue: queue_, shared: shared_ };
    running.spawn("cordee-accept".to_owned(), move || {
        acceptor.run(|socket, from| {
            door.receive(socket, from);
            true
        });
    })?;
    let (table_, queue_, shared_) = clones();
    let rest = EndOthers { table: table_, queue: queue_, shared: shared_ };
    let (table_, queue_, shared_) = clones();
    let poller = Poller { table: table_, queue: queue_, shared: shared_, end };
    running.spawn("cordee-poller".to_owned(), move || {
        let _rest = rest;
        poller.run();
    })?;
    for number in 0..threads {
        let (table, queue, shared) = clones();
        let worker = Worker { table, queue, shared };
        running.spawn(format!("cordee-blocks-{number}"), move || worker.run())?;
    }
    for number in 0..threads {
        let shared = Arc::clone(&shared);
        running.spawn(format!("cordee-hash-{number}"), move || shared.hashing.run())?;
    }
    Ok(running)
}

impl RunningBlockServer {
    /// Makes a thread whose death ends the server.
    fn spawn(
        &mut self,
        name: String,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), BlockServerError> {
        let alarm = Alarm(self.stopper.clone());
        self.threads.push(Thread::spawn(name, STACK_BYTES, move || {
            let _alarm = alarm;
            run();
        })?);
        Ok(())
    }
}

/// Ends the server when a thread panics.
struct Alarm(BlockServerStopper);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop_within(Duration::ZERO);
        }
    }
}

/// Ends the threads that have nothing to do when the poller has ended.
struct EndOthers {
    table: Arc<Table>,
    queue: Arc<Queue<connection::Handle>>,
    shared: Arc<Shared>,
}

impl Drop for EndOthers {
    fn drop(&mut self) {
        self.table.close();
        self.queue.close();
        self.shared.hashing.end();
    }
}

/// Takes no more connections and files than there are descriptors for; refuses to serve a handful.
fn cut_to_descriptors(limits: &mut BlockLimits, log: &Log) -> Result<(), BlockServerError> {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let spare = DESCRIPTORS_SPARE + u64::from(limits.refused_max);
    let most = u32::try_from(descriptors.saturating_sub(spare)).unwrap_or(u32::MAX);
    if most < DESCRIPTORS_MIN {
        let source = io::Error::other(format!("this process may have {descriptors}"));
        return Err(BlockServerError::Resource { what: "enough descriptors", source });
    }
    if limits.connections_max.saturating_add(limits.open_files_max) <= most {
        return Ok(());
    }
    let connections_max = limits.connections_max.min(most / 2);
    let open_files_max = limits.open_files_max.min(most - connections_max);
    if connections_max < limits.connections_max {
        log.warn(&format!(
            "at most {connections_max} connections instead of {}: raise ulimit -n",
            limits.connections_max
        ));
    }
    (limits.connections_max, limits.open_files_max) = (connections_max, open_files_max);
    Ok(())
}

/// With fewer for connections and files a server serves nobody well.
const DESCRIPTORS_MIN: u32 = 64;
/// Descriptors for listener, directories that are being listed, and whatever else a process needs.
const DESCRIPTORS_SPARE: u64 = 160;
