//! A chat server: the threads around [`cordee_core::chat::server::ChatServer`].
//!
//! ```text
//!             ┌────────┐ batches, peers' first ┌─────┐ orders, chunks ┌──────┐
//! sockets ──▶ │readers │ ────────────────────▶ │ hub │ ─────────────▶ │pumps │ ──▶ sockets
//!             └────────┘ ◀──────────────────── └─────┘ ◀───────────── └──────┘
//!                          credit, withheld       ▲       reports
//!                          from a flooder        acceptor, keeper (dials), storage
//! ```
//!
//! Who waits for whom has no cycle: readers wait for the hub, the hub and the pumps for nobody.
//!
//! ```no_run
//! use cordee_net::server::{ChatServer, ServerConfig};
//! let listen = "127.0.0.1:0".parse().unwrap();
//! let server = ChatServer::start(ServerConfig::new(listen, "home")).unwrap();
//! println!("listening on {}", server.local_addr());
//! server.stop();
//! server.wait().unwrap();
//! ```

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cordee_core::chat::server as machine;
use cordee_core::{Limits, Time};
use rustix::process::{Resource, getrlimit};
use socket2::Socket;

use crate::acceptor::{Acceptor, AcceptorStop};
use crate::clock::{Clock, wall};
use crate::log::Log;
use crate::socket::listen;
use crate::sync::Arc;
use crate::threads::{STACK_BYTES, Thread};
use hub::{Hub, Parts};
use inbox::{Accepted, Event, Inbox};
use keeper::{Keeper, KeeperHandle};
use node::Node;
use pump::{Halt, Mailbox, Pump};
use reader::{Desk, Reader};

mod config;
mod credit;
mod error;
mod hub;
mod inbox;
mod intake;
#[cfg(all(test, feature = "loom"))]
mod interleavings;
mod keeper;
mod node;
mod polled;
mod pump;
mod reader;
mod storage;
#[cfg(all(test, not(feature = "loom")))]
mod tests;

pub use config::{DRAIN, OnCrash, ServerConfig};
pub use error::ServerError;
pub use hub::Ended;
pub use polled::{PollFd, PollFlags, PolledServer};
pub use storage::{MemoryStorage, PersistAnswer, Persisted, Storage};

/// Starts chat servers.
#[derive(Debug)]
pub struct ChatServer;

impl ChatServer {
    /// Starts a server. It accepts connections when this returns.
    ///
    /// # Errors
    ///
    /// A [`ServerError`] that says what to mend: the address is taken, or not to be advertised, or
    /// the system gives no threads or descriptors.
    pub fn start(config: ServerConfig) -> Result<RunningServer, ServerError> {
        start(config, machine::ChatServer::new)
    }
}

/// A server that runs. Dropping it stops it with no time to hand its clients on; for that, ask it
/// to [`stop`](Self::stop), and [`wait`](Self::wait).
#[derive(Debug)]
pub struct RunningServer {
    local_addr: SocketAddr,
    stopper: Stopper,
    hub: Option<HubThread>,
    /// In the order in which they end.
    others: Vec<Thread>,
}

/// Stops a server from any thread, a signal's for instance.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Inbox>);

impl Stopper {
    /// Asks the server to hand its clients on and end, within [`DRAIN`]. Returns at once.
    pub fn stop(&self) {
        self.stop_within(DRAIN);
    }

    /// Asks the server to hand its clients on and end, within `time`. Returns at once. When it was
    /// asked before, this can only hasten it.
    pub fn stop_within(&self, time: Duration) {
        // A longer time is no time that anyone waits for, and might not be counted in.
        let time = time.min(Duration::from_secs(24 * 3_600));
        self.0.put_event(Event::Stop { latest: Instant::now() + time });
    }
}

impl RunningServer {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Something that stops the server from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// As [`Stopper::stop`].
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// Waits until the server ended, whatever made it end, and all its threads with it.
    ///
    /// # Errors
    ///
    /// [`ServerError::Thread`] when one of them died.
    pub fn wait(mut self) -> Result<Ended, ServerError> {
        self.join()
    }

    fn join(&mut self) -> Result<Ended, ServerError> {
        let Some(hub) = self.hub.take() else { return Ok(Ended::Failed) };
        let mut result = hub.thread.join().map_err(ServerError::from);
        for thread in self.others.drain(..) {
            result = result.and(thread.join().map_err(ServerError::from));
        }
        // The hub says how it ended before it does.
        result.map(|()| hub.ended.try_recv().unwrap_or(Ended::Failed))
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        if self.hub.is_some() {
            self.stopper.stop_within(Duration::ZERO);
            // Whoever wants to know how it ended waits for it.
            let _ = self.join();
        }
    }
}

#[derive(Debug)]
struct HubThread {
    thread: Thread,
    ended: crossbeam_channel::Receiver<Ended>,
}

/// Starts a server around any machine.
fn start<N: Node>(
    mut config: ServerConfig,
    node: impl FnOnce(machine::Config, u64, Time) -> N,
) -> Result<RunningServer, ServerError> {
    config.limits.validate()?;
    let cannot_listen = |source| ServerError::Listen { address: config.listen, source };
    let listener = listen(config.listen).map_err(cannot_listen)?;
    let local_addr = local_addr(&listener).map_err(cannot_listen)?;
    cut_connections(&mut config.limits, &config.log)?;
    let inbox = Arc::new(Inbox::new(config.limits.read_bytes_max));
    let (clock, entropy) = (Clock::start(), draw()?);
    let incarnation = config.storage.start(PersistAnswer::new(Arc::clone(&inbox)));
    let machine_config = machine_config(&config, local_addr, entropy, incarnation)?;
    let seed = u64::from_be_bytes(draw()?);
    let node = node(machine_config, seed, clock.now());
    let threads = Threads::start(&config, listener, local_addr, &inbox)?;
    let parts = Parts {
        clock,
        inbox: Arc::clone(&inbox),
        readers: threads.stop.readers.clone(),
        pumps: threads.stop.pumps.clone(),
        keeper: threads.stop.keeper.clone(),
        acceptor: Arc::clone(&threads.stop.acceptor),
        storage: config.storage,
        on_crash: config.on_crash,
        limits: config.limits,
        log: config.log,
    };
    let Threads { others, stop } = threads;
    let (say, ended) = crossbeam_channel::bounded(1);
    let thread = Thread::spawn("cordee-hub".to_owned(), STACK_BYTES, move || {
        let mut stop = stop;
        let ended = Hub::new(node, parts).run();
        stop.halt = if ended == Ended::Crashed { Halt::Now } else { Halt::Flush };
        let _ = say.send(ended);
    })?;
    let hub = Some(HubThread { thread, ended });
    Ok(RunningServer { local_addr, stopper: Stopper(inbox), hub, others })
}

/// The threads beside the hub, and how to end them.
struct Threads {
    others: Vec<Thread>,
    stop: StopOthers,
}

/// Ends the other threads when the hub ends, in a panic, too, or did not start.
struct StopOthers {
    acceptor: Arc<AcceptorStop>,
    readers: Vec<Arc<Desk>>,
    pumps: Vec<Arc<Mailbox>>,
    keeper: KeeperHandle,
    halt: Halt,
}

impl Drop for StopOthers {
    fn drop(&mut self) {
        self.acceptor.stop();
        for pump in &self.pumps {
            pump.halt(self.halt);
        }
        for reader in &self.readers {
            reader.halt();
        }
        self.keeper.stop();
    }
}

impl Threads {
    fn start(
        config: &ServerConfig,
        listener: Socket,
        local_addr: SocketAddr,
        inbox: &Arc<Inbox>,
    ) -> Result<Threads, ServerError> {
        let pumps = config.pumps.max(1);
        let descriptors =
            |source: std::io::Error| ServerError::Resource { what: "a descriptor", source };
        let acceptor = Acceptor::new(listener, config.log.clone()).map_err(descriptors)?;
        let accepted = Arc::clone(inbox);
        let (keeper, handle) = Keeper::new(Arc::clone(inbox), config.log.clone(), local_addr.ip());
        let mailboxes = (0..pumps).map(|_| Mailbox::new().map(Arc::new));
        let mailboxes = mailboxes.collect::<Result<Vec<_>, _>>().map_err(descriptors)?;
        let desks = (0..pumps).map(|_| Desk::new().map(Arc::new));
        let desks = desks.collect::<Result<Vec<_>, _>>().map_err(descriptors)?;
        let stop = StopOthers {
            acceptor: acceptor.stopper(),
            readers: desks.clone(),
            pumps: mailboxes.clone(),
            keeper: handle,
            halt: Halt::Now,
        };
        // When one of them cannot be made, `stop` ends those that were.
        let mut threads = Threads { others: Vec::new(), stop };
        threads.spawn("cordee-accept".to_owned(), inbox, move || {
            acceptor.run(|socket, from| accepted.put_accepted(Accepted { socket, from }));
        })?;
        let stall = Duration::from_micros(config.limits.stall_us_max);
        for (number, mailbox) in mailboxes.into_iter().enumerate() {
            let pump = Pump::new(mailbox, Arc::clone(inbox), pumps, stall).map_err(descriptors)?;
            threads.spawn(format!("cordee-pump-{number}"), inbox, move || pump.run())?;
        }
        for (number, desk) in desks.into_iter().enumerate() {
            let reader = Reader::new(desk, Arc::clone(inbox));
            threads.spawn(format!("cordee-reader-{number}"), inbox, move || reader.run())?;
        }
        threads.spawn("cordee-keeper".to_owned(), inbox, move || keeper.run())?;
        Ok(threads)
    }

    /// Makes a thread whose death ends the server.
    fn spawn(
        &mut self,
        name: String,
        inbox: &Arc<Inbox>,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), ServerError> {
        let alarm = Alarm(Arc::clone(inbox));
        self.others.push(Thread::spawn(name, STACK_BYTES, move || {
            let _alarm = alarm;
            run();
        })?);
        Ok(())
    }
}

/// Tells the hub when a thread panics.
struct Alarm(Arc<Inbox>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.put_event(Event::ThreadDied);
        }
    }
}

fn local_addr(listener: &Socket) -> std::io::Result<SocketAddr> {
    let address = listener.local_addr()?.as_socket();
    address.ok_or_else(|| std::io::ErrorKind::AddrNotAvailable.into())
}

fn machine_config(
    config: &ServerConfig,
    local_addr: SocketAddr,
    entropy: [u8; 64],
    incarnation: u32,
) -> Result<machine::Config, ServerError> {
    let advertise = match &config.advertise {
        Some(advertise) => advertise.clone(),
        None if local_addr.ip().is_unspecified() => {
            return Err(ServerError::Advertise { address: local_addr });
        }
        None => local_addr.to_string(),
    };
    Ok(machine::Config {
        cluster: config.cluster.clone(),
        advertise,
        peers: config.peers.clone(),
        copies: config.copies,
        allow_kill: config.allow_kill,
        pid: std::process::id(),
        incarnation,
        entropy,
        wall: wall(),
        limits: config.limits.clone(),
    })
}

/// Takes no more connections than there are descriptors for; refuses to serve a handful.
fn cut_connections(limits: &mut Limits, log: &Log) -> Result<(), ServerError> {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = descriptors.saturating_sub(DESCRIPTORS_SPARE);
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    if most < CONNECTIONS_MIN.min(limits.connections_max) {
        let source = std::io::Error::other(format!("this process may have {descriptors}"));
        return Err(ServerError::Resource { what: "enough descriptors", source });
    }
    if limits.connections_max > most {
        log.warn(&format!(
            "at most {most} connections instead of {}: raise ulimit -n",
            limits.connections_max
        ));
        limits.connections_max = most;
        limits.connections_reserved = limits.connections_reserved.min(most / 4);
    }
    Ok(())
}

/// Bytes that nobody can guess.
fn draw<const N: usize>() -> Result<[u8; N], ServerError> {
    let mut bytes = [0; N];
    let mut drawn = 0;
    while drawn < N {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut bytes[drawn..], flags) {
            Ok(count) => drawn += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                return Err(ServerError::Resource { what: "random bytes", source: errno.into() });
            }
        }
    }
    Ok(bytes)
}

/// A server for fewer connections serves nobody well: its peers and their standbys need some, too.
const CONNECTIONS_MIN: u32 = 64;
/// Descriptors for the listener, files, dials and connections that are being closed.
const DESCRIPTORS_SPARE: u64 = 128;
