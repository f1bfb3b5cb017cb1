//! From the hub to one pump: a batch of commands at a time, in order, without waiting.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use cordee_core::ids::{ConnId, Position, ScopeRef};
use cordee_core::log::Chunk;
use socket2::Socket;

use crate::sync::{Arc, Mutex, Wake, lock};

/// What the hub wants of a pump. Ranges are of the [`Orders`]' bytes.
#[derive(Debug)]
pub(crate) enum Command {
    /// A connection to send to. The pump never blocks on it.
    Open { conn: ConnId, socket: Arc<Socket> },
    /// As [`cordee_core::chat::server::Effect::Send`].
    Send { conn: ConnId, bytes: Range<u32>, notify: bool },
    /// As [`cordee_core::chat::server::Effect::SendStamped`].
    SendStamped { conn: ConnId, bytes: Range<u32> },
    /// As [`cordee_core::chat::server::Effect::SendAt`].
    SendAt { conn: ConnId, at: Position, bytes: Range<u32> },
    /// As [`cordee_core::chat::server::Effect::Follow`].
    Follow { conn: ConnId, from: Position, peer: bool, mt: u64 },
    /// As [`cordee_core::chat::server::Effect::Discard`].
    Discard { conn: ConnId },
    /// As [`cordee_core::chat::server::Effect::Unfollow`].
    Unfollow { conn: ConnId },
    /// As [`cordee_core::chat::server::Effect::Show`].
    Show { conn: ConnId, scope: ScopeRef, at: Position, mt: u64 },
    /// As [`cordee_core::chat::server::Effect::Hide`].
    Hide { conn: ConnId, scope: ScopeRef, at: Position, mt: u64 },
    /// The log goes on.
    Chunk(Arc<Chunk>),
    /// As [`cordee_core::chat::server::Effect::Trim`].
    Trim { before: Position },
    /// Send what is queued outside the log for at most a second, then close.
    Close { conn: ConnId },
}

/// Commands in order, and the bytes that they refer to.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) commands: Vec<Command>,
    pub(crate) bytes: Vec<u8>,
}

impl Orders {
    pub(crate) fn push(&mut self, command: Command) {
        self.commands.push(command);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Appends bytes for a command.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        let end = u32::try_from(self.bytes.len()).expect("the hub flushes long before 4 GiB");
        start as u32..end
    }

    pub(crate) fn get(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn clear(&mut self) {
        self.commands.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
    }
}

/// How a pump is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Halt {
    /// Send what is queued outside the log for at most a second.
    Flush,
    /// At once, as in a crash.
    Now,
}

/// See the module's documentation. The hub puts in, the pump takes out.
#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    /// Written to when the pump sleeps; it waits for readiness of this among its sockets.
    wake: Wake,
}

#[derive(Debug, Default)]
struct State {
    orders: Vec<Orders>,
    /// Emptied orders, for their capacity.
    spent: Vec<Orders>,
    halt: Option<Halt>,
    sleeping: bool,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Mailbox { state: Mutex::new(State::default()), wake: Wake::new()? })
    }

    /// Hands the orders over and leaves empty ones in their place.
    pub(crate) fn put(&self, orders: &mut Orders) {
        let mut state = lock(&self.state);
        let empty = state.spent.pop().unwrap_or_default();
        state.orders.push(std::mem::replace(orders, empty));
        let sleeping = std::mem::take(&mut state.sleeping);
        drop(state);
        self.wake_if(sleeping);
    }

    /// Tells the pump to end.
    pub(crate) fn halt(&self, halt: Halt) {
        let mut state = lock(&self.state);
        state.halt.get_or_insert(halt);
        let sleeping = std::mem::take(&mut state.sleeping);
        drop(state);
        self.wake_if(sleeping);
    }

    /// Takes all orders, gives back those that were carried out. When there is nothing to take
    /// and the pump is `idle`, it counts as asleep from now on. Returns how to end, if so.
    pub(crate) fn take(&self, orders: &mut Vec<Orders>, idle: bool) -> Option<Halt> {
        let mut state = lock(&self.state);
        for mut done in orders.drain(..) {
            if state.spent.len() < SPENT_MAX {
                done.clear();
                state.spent.push(done);
            }
        }
        std::mem::swap(orders, &mut state.orders);
        state.sleeping = idle && orders.is_empty() && state.halt.is_none();
        state.halt
    }

    fn wake_if(&self, sleeping: bool) {
        if sleeping {
            self.wake.wake();
        }
    }

    /// Stands for the pump's sleep.
    #[cfg(all(test, feature = "loom"))]
    pub(crate) fn sleep(&self) {
        self.wake.wait_for();
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Emptied orders that are kept, and how many bytes of each.
const SPENT_MAX: usize = 4;
const KEPT_BYTES_MAX: usize = 64 << 10;
