//! A connection's read credit: the buffer that goes to and fro between its reader and the hub.
//!
//! ```text
//! reader: read ─ take the credit ─ batch to the hub ─ read ─ take the credit (waits) …
//! hub:                              handles it ─ gives the credit back, or withholds it
//! ```
//!
//! A reader reads on while the hub has its batch, but hands nothing over before the credit is
//! back: one batch of a connection is in the hub's queue at a time, whatever it sends.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::sync::{Condvar, Mutex, lock, wait};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Credit {
    state: Mutex<State>,
    returned: Condvar,
    /// Whether the other end is a peer: its batches are served first.
    peer: AtomicBool,
}

#[derive(Debug)]
struct State {
    spare: Option<Vec<u8>>,
    open: bool,
    waiting: bool,
}

impl Credit {
    /// The credit is with the reader, and costs no memory yet.
    pub(crate) fn new() -> Self {
        let state = State { spare: Some(Vec::new()), open: true, waiting: false };
        Credit { state: Mutex::new(state), returned: Condvar::new(), peer: AtomicBool::new(false) }
    }

    /// Waits until the credit is back and takes it with its buffer; `None` when the hub is done
    /// with the connection.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        let mut state = lock(&self.state);
        loop {
            if !state.open {
                return None;
            }
            if let Some(spare) = state.spare.take() {
                return Some(spare);
            }
            state.waiting = true;
            state = wait(&self.returned, state);
            state.waiting = false;
        }
    }

    /// Gives the credit back.
    pub(crate) fn give(&self, spare: Vec<u8>) {
        let mut state = lock(&self.state);
        state.spare = Some(spare);
        self.wake(&state);
    }

    /// Tells the reader that nothing more is wanted of it.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.open = false;
        state.spare = None;
        self.wake(&state);
    }

    pub(crate) fn set_peer(&self) {
        self.peer.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_peer(&self) -> bool {
        self.peer.load(Ordering::Relaxed)
    }

    /// A wake is a system call, so nobody is woken who does not sleep.
    fn wake(&self, state: &State) {
        if state.waiting {
            self.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Arc;
    use crate::threads::{STACK_BYTES, Thread};

    #[test]
    fn a_reader_waits_for_its_credit_and_for_no_closed_one() {
        let credit = Arc::new(Credit::new());
        assert_eq!(credit.take(), Some(Vec::new()));
        let other = Arc::clone(&credit);
        let hub = Thread::spawn("hub".to_owned(), STACK_BYTES, move || other.give(vec![7]));
        assert_eq!(credit.take(), Some(vec![7]));
        hub.expect("threads can be made").join().expect("no panic");
        let other = Arc::clone(&credit);
        let hub = Thread::spawn("hub".to_owned(), STACK_BYTES, move || other.close());
        assert_eq!(credit.take(), None);
        hub.expect("threads can be made").join().expect("no panic");
        credit.give(vec![8]);
        assert_eq!(credit.take(), None, "closed stays closed");
    }
}
