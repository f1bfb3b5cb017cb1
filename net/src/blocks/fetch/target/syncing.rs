//! Syncs an unfinished file while blocks go on coming: a disk that takes long delays nobody.

use std::fs::File;
use std::io;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::sync::Arc;
use crate::threads::{STACK_BYTES, Thread, ThreadFailure};

/// A thread that syncs.
#[derive(Debug)]
pub(super) struct Syncer {
    orders: Sender<u64>,
    results: Receiver<io::Result<u64>>,
    is_busy: bool,
    thread: Thread,
}

impl Syncer {
    /// Starts it.
    pub(super) fn start(data: Arc<File>, journal: File) -> Result<Syncer, ThreadFailure> {
        let (orders, received) = bounded::<u64>(1);
        let (results, taken) = bounded(1);
        let thread = Thread::spawn("fetch-sync".to_owned(), STACK_BYTES, move || {
            for covered in received {
                // The journal comes along: its records, and the marker of the time before.
                let synced = data.sync_data().and_then(|()| journal.sync_data());
                // Nobody wants to know when the fetch has ended.
                let _ = results.send(synced.map(|()| covered));
            }
        })?;
        Ok(Syncer { orders, results: taken, is_busy: false, thread })
    }

    /// Has it sync what the journal's records below `covered` speak of; false if it is still at
    /// the time before.
    pub(super) fn sync(&mut self, covered: u64) -> bool {
        if self.is_busy {
            return false;
        }
        self.is_busy = self.orders.try_send(covered).is_ok();
        self.is_busy
    }

    /// Up to which record everything is on the disk, once after each time.
    pub(super) fn synced(&mut self) -> Option<io::Result<u64>> {
        let result = self.results.try_recv().ok()?;
        self.is_busy = false;
        Some(result)
    }

    /// Waits until it is through.
    pub(super) fn join(self) -> Result<(), ThreadFailure> {
        drop(self.orders);
        drop(self.results);
        self.thread.join()
    }
}
