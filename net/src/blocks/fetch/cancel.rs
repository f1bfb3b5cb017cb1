//! Stops a fetch from another thread.

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::sync::{Arc, Mutex, lock};

/// Stops what it belongs to, from any thread and at any time; clones stop the same.
#[derive(Clone, Debug)]
pub struct Cancel {
    /// Dropped to stop: then everybody who waits at the other end hears of it, once and for all.
    sender: Arc<Mutex<Option<Sender<()>>>>,
    receiver: Receiver<()>,
}

impl Default for Cancel {
    fn default() -> Self {
        Cancel::new()
    }
}

impl Cancel {
    /// One that nothing belongs to yet.
    #[must_use]
    pub fn new() -> Cancel {
        let (sender, receiver) = bounded(0);
        Cancel { sender: Arc::new(Mutex::new(Some(sender))), receiver }
    }

    /// Stops it, soon. What was verified so far is kept: the same fetch goes on from there.
    pub fn cancel(&self) {
        lock(&self.sender).take();
    }

    /// Whether it was stopped.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        lock(&self.sender).is_none()
    }

    /// Has nothing to receive until it is stopped, and then an error at once.
    pub(super) fn signal(&self) -> &Receiver<()> {
        &self.receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_who_waits_hears_of_it() {
        let cancel = Cancel::new();
        let waiting = cancel.clone();
        let thread = std::thread::spawn(move || waiting.signal().recv());
        assert!(!cancel.is_cancelled());
        cancel.cancel();
        assert!(thread.join().expect("it ends").is_err());
        assert!(cancel.is_cancelled() && cancel.signal().recv().is_err());
    }
}
