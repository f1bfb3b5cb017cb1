//! Where entries are kept, behind one interface: in memory here; on a disk by whoever implements
//! [`Storage`] with a thread of its own.

use std::fmt;

use super::inbox::{Event, Inbox};
use crate::sync::Arc;

/// How far storage has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Persisted {
    /// Everything up to this sequence number is kept.
    pub through: u64,
    /// Whether it was also synced, so that a power cut does not take it.
    pub durable: bool,
}

/// Keeps what the server persists. Called from the hub, which must not wait: an implementation
/// that writes to a disk hands the bytes to a thread and answers by [`PersistAnswer`].
pub trait Storage: Send + fmt::Debug {
    /// Says, once and first of all, where answers go that do not come at once. Returns the
    /// incarnation of this start: one more than the highest that was kept, 1 when nothing was.
    fn start(&mut self, answer: PersistAnswer) -> u32;

    /// Takes an entry. Sequence numbers ascend.
    fn persist(&mut self, sequence: u64, bytes: &[u8]);

    /// The hub has given all it has for now: the end of a group commit. Returns how far storage
    /// is, if it is further than when it last said.
    fn commit(&mut self) -> Option<Persisted>;
}

/// Keeps nothing beyond the life of the process: the archive in memory is all there is. Everything
/// counts as persisted, and nothing as durable, at once.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    given: Option<u64>,
}

impl Storage for MemoryStorage {
    fn start(&mut self, _answer: PersistAnswer) -> u32 {
        1
    }

    fn persist(&mut self, sequence: u64, _bytes: &[u8]) {
        self.given = Some(sequence);
    }

    fn commit(&mut self) -> Option<Persisted> {
        let through = self.given.take()?;
        Some(Persisted { through, durable: false })
    }
}

/// Tells the hub, from any thread, how far storage has come.
#[derive(Clone)]
pub struct PersistAnswer(Arc<Inbox>);

impl PersistAnswer {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        PersistAnswer(inbox)
    }

    /// Storage has come so far. Returns `false` when the server is gone.
    pub fn persisted(&self, Persisted { through, durable }: Persisted) -> bool {
        self.0.put_event(Event::Persisted { through, durable })
    }
}

impl fmt::Debug for PersistAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersistAnswer(…)")
    }
}
