//! What waits for the hub: every other thread puts in, the hub takes all at once.
//!
//! Nothing in it is without a bound: a connection has at most one [`Batch`] here, as long as its
//! buffer, and clients have a bound in all ([`cordee_core::Limits::read_bytes_max`]), beyond which
//! readers wait; pumps report what the hub gave them; accepted sockets wait outside beyond
//! [`ACCEPTED_MAX`]; dials are bounded where they are made.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use cordee_core::chat::server::DialId;
use cordee_core::ids::ConnId;
use cordee_core::wire::WireError;
use socket2::Socket;

use super::pump::Report;
use crate::sync::{Condvar, Mutex, lock, wait, wait_timeout};

/// What a reader hands over.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) conn: ConnId,
    /// Whole frames.
    pub(crate) bytes: Vec<u8>,
    /// How much is held of a frame that has begun after those, as
    /// [`cordee_core::chat::server::Input::MidFrame`] says it.
    pub(crate) begun: u32,
    /// What comes after them, if nothing more will be read.
    pub(crate) end: Option<End>,
}

/// Why nothing more will be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The stream ended or failed.
    Closed,
    /// What came is no frame.
    Broken(WireError),
}

/// A connection that the listener took.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    pub(crate) from: SocketAddr,
}

/// What happens rarely.
#[derive(Debug)]
pub(crate) enum Event {
    /// A dial ended.
    Dialled { dial: DialId, result: std::io::Result<Socket> },
    /// A connection cannot be read from.
    Unreadable { conn: ConnId, why: String },
    /// Storage has everything up to `through`.
    Persisted { through: u64, durable: bool },
    /// The operator wants an orderly end, at the latest then.
    Stop { latest: Instant },
    /// A thread without which there is no server died.
    ThreadDied,
}

/// What the hub took and has not handled yet.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) peers: VecDeque<Batch>,
    pub(crate) clients: VecDeque<Batch>,
    pub(crate) reports: VecDeque<Report>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) accepted: VecDeque<Accepted>,
}

impl Taken {
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
            && self.clients.is_empty()
            && self.reports.is_empty()
            && self.events.is_empty()
            && self.accepted.is_empty()
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
    room: Condvar,
    /// Readers wait for this.
    handled: Condvar,
    read_bytes_max: usize,
    /// Written to when something is put in, for who waits for readiness.
    wake: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct State {
    /// Of clients' batches that the hub has not handled.
    read_bytes: usize,
    readers_wait: bool,
    queued: Taken,
    closed: bool,
    hub_waits: bool,
    acceptor_waits: bool,
}

impl Inbox {
    /// An inbox for so many bytes of clients' batches, and one batch of each reader.
    pub(crate) fn new(read_bytes_max: u64) -> Self {
        let state = Mutex::new(State::default());
        let read_bytes_max = usize::try_from(read_bytes_max).unwrap_or(usize::MAX);
        let (arrived, room, handled) = (Condvar::new(), Condvar::new(), Condvar::new());
        Inbox { state, arrived, room, handled, read_bytes_max, wake: None }
    }

    /// An inbox that makes `wake` readable when something is put in.
    pub(crate) fn waking(wake: OwnedFd) -> Self {
        Inbox { wake: Some(wake), ..Inbox::new(u64::MAX) }
    }

    /// What [`waking`](Self::waking) was given.
    pub(crate) fn wake(&self) -> Option<&OwnedFd> {
        self.wake.as_ref()
    }

    /// Puts a batch in; peers' batches are served first. A client's waits while there are too many
    /// bytes of others: for a round of the hub, which waits for nobody. `false` when the hub is
    /// gone.
    pub(crate) fn put_batch(&self, batch: Batch, peer: bool) -> bool {
        if !peer {
            let mut state = lock(&self.state);
            while state.read_bytes >= self.read_bytes_max && !state.closed {
                state.readers_wait = true;
                state = wait(&self.handled, state);
            }
            state.read_bytes += batch.bytes.len();
        }
        self.put(
            |queued| {
                if peer { queued.peers.push_back(batch) } else { queued.clients.push_back(batch) }
            },
        )
    }

    /// The hub has handled so many bytes of clients' batches.
    pub(crate) fn handled(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut state = lock(&self.state);
        state.read_bytes = state.read_bytes.saturating_sub(bytes);
        if state.readers_wait && state.read_bytes < self.read_bytes_max {
            state.readers_wait = false;
            self.handled.notify_all();
        }
    }

    /// Puts in what a pump has to say.
    pub(crate) fn put_reports(&self, reports: &mut Vec<Report>) {
        self.put(|queued| queued.reports.extend(reports.drain(..)));
    }

    /// Puts an event in. `false` when the hub is gone.
    pub(crate) fn put_event(&self, event: Event) -> bool {
        self.put(|queued| queued.events.push_back(event))
    }

    /// Puts an accepted socket in, when there is room. `false` when the hub is gone.
    pub(crate) fn put_accepted(&self, accepted: Accepted) -> bool {
        let mut state = lock(&self.state);
        while state.queued.accepted.len() >= ACCEPTED_MAX && !state.closed {
            state.acceptor_waits = true;
            state = wait(&self.room, state);
            state.acceptor_waits = false;
        }
        drop(state);
        self.put(|queued| queued.accepted.push_back(accepted))
    }

    fn put(&self, put: impl FnOnce(&mut Taken)) -> bool {
        let mut state = lock(&self.state);
        if state.closed {
            return false;
        }
        put(&mut state.queued);
        if let Some(wake) = &self.wake {
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
        // A wake is a system call, so nobody is woken who does not sleep.
        if state.hub_waits {
            state.hub_waits = false;
            self.arrived.notify_one();
        }
        true
    }

    /// Takes all there is. When `into` is empty, waits for something until `deadline`; `None` is
    /// for ever.
    pub(crate) fn take(&self, into: &mut Taken, deadline: Option<Instant>) {
        let mut state = lock(&self.state);
        if into.is_empty() {
            while state.queued.is_empty() {
                let now = Instant::now();
                if deadline.is_some_and(|deadline| deadline <= now) {
                    return;
                }
                state.hub_waits = true;
                state = match deadline {
                    Some(deadline) => wait_timeout(&self.arrived, state, deadline - now).0,
                    None => wait(&self.arrived, state),
                };
                state.hub_waits = false;
            }
        }
        into.peers.append(&mut state.queued.peers);
        into.clients.append(&mut state.queued.clients);
        into.reports.append(&mut state.queued.reports);
        into.events.append(&mut state.queued.events);
        if into.accepted.is_empty() {
            into.accepted.append(&mut state.queued.accepted);
            if state.acceptor_waits {
                self.room.notify_one();
            }
        }
    }

    /// The hub is gone: nothing is put in any more, nobody waits.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.queued = Taken::default();
        self.room.notify_all();
        self.handled.notify_all();
    }
}

/// Accepted sockets that wait for the hub.
const ACCEPTED_MAX: usize = if cfg!(feature = "loom") { 1 } else { 64 };

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::sync::Arc;

    fn batch() -> Batch {
        let conn = ConnId { index: 0, generation: 0 };
        Batch { conn, bytes: vec![0; 100], begun: 0, end: None }
    }

    #[test]
    fn clients_batches_wait_while_many_are_not_handled_and_peers_do_not() {
        let inbox = Arc::new(Inbox::new(150));
        assert!(inbox.put_batch(batch(), false) && inbox.put_batch(batch(), false));
        let theirs = Arc::clone(&inbox);
        let reader = std::thread::spawn(move || theirs.put_batch(batch(), false));
        assert!(inbox.put_batch(batch(), true));
        let mut taken = Taken::default();
        inbox.take(&mut taken, None);
        assert_eq!((taken.clients.len(), taken.peers.len()), (2, 1));
        assert!(!reader.is_finished(), "taken is not handled");
        inbox.handled(200);
        assert!(reader.join().expect("no panic"));
        let mut taken = Taken::default();
        inbox.take(&mut taken, None);
        assert_eq!(taken.clients.len(), 1);
    }

    #[test]
    fn whoever_waits_to_put_a_batch_in_learns_that_the_hub_is_gone() {
        let inbox = Arc::new(Inbox::new(100));
        assert!(inbox.put_batch(batch(), false));
        let theirs = Arc::clone(&inbox);
        let reader = std::thread::spawn(move || theirs.put_batch(batch(), false));
        inbox.close();
        assert!(!reader.join().expect("no panic"));
    }
}
