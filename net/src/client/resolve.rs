//! Host names: numbers at once, names by a thread of their own, since resolvers block.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::Builder;

use cordee_core::chat::client::LinkId;
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::wake::Shared;

/// The addresses of a name; none when it has none.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) link: LinkId,
    pub(super) addresses: Vec<SocketAddr>,
}

/// Resolves names.
#[derive(Debug)]
pub(super) struct Resolver {
    results: Receiver<Resolved>,
    sender: Sender<Resolved>,
    shared: Arc<Shared>,
    /// Threads that have not answered.
    asked: usize,
}

impl Resolver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (sender, results) = unbounded();
        Resolver { results, sender, shared, asked: 0 }
    }

    /// The addresses of `host:port` when it is a number. Otherwise the answer comes by
    /// [`next`](Self::next), and the hub is woken.
    pub(super) fn resolve(&mut self, link: LinkId, address: &str) -> Option<Vec<SocketAddr>> {
        if let Ok(address) = address.parse() {
            return Some(vec![address]);
        }
        if self.asked >= THREADS_MAX {
            return Some(Vec::new());
        }
        let (sender, shared) = (self.sender.clone(), Arc::clone(&self.shared));
        let address = address.to_owned();
        // Nobody joins it: a resolver cannot be interrupted, and it holds nothing of ours.
        let thread = Builder::new().name("cordee-resolve".into()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            let addresses = address.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
            // When the client has ended, nobody wants to know.
            let _ = sender.send(Resolved { link, addresses });
            shared.wake();
        });
        match started {
            Ok(_) => {
                self.asked += 1;
                None
            }
            Err(_) => Some(Vec::new()),
        }
    }

    /// The next answer, if one is there.
    pub(super) fn next(&mut self) -> Option<Resolved> {
        let resolved = self.results.try_recv().ok()?;
        self.asked -= 1;
        Some(resolved)
    }
}

/// Threads that may hang in the resolver at a time.
const THREADS_MAX: usize = 8;
/// Stack of such a thread, in bytes of address space.
const STACK_BYTES: usize = 512 << 10;
