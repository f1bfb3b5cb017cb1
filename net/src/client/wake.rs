//! How other threads reach the one that waits for its sockets.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use super::event::Event;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Events that happened together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    /// About what they take.
    pub(super) bytes: usize,
}

/// What the handles, the events and the hub share.
#[derive(Debug)]
pub(super) struct Shared {
    sender: UnixStream,
    /// A byte is on its way to the hub: another would say nothing more.
    woken: AtomicBool,
    stopped: AtomicBool,
    /// Bytes of events that were told and not taken.
    untaken: AtomicUsize,
    /// The hub waits for events to be taken.
    starved: AtomicBool,
}

/// The hub's end: readable when somebody wants something.
#[derive(Debug)]
pub(super) struct Waker {
    receiver: UnixStream,
}

impl Shared {
    pub(super) fn new() -> io::Result<(Arc<Shared>, Waker)> {
        let (sender, receiver) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        let shared = Shared {
            sender,
            woken: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            untaken: AtomicUsize::new(0),
            starved: AtomicBool::new(false),
        };
        Ok((Arc::new(shared), Waker { receiver }))
    }

    /// Wakes the hub, which then looks at everything.
    pub(super) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // One byte in an empty pipe always fits; without a hub there is nobody to wake.
            let _ = (&self.sender).write(&[0]);
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Events were told.
    pub(super) fn told(&self, bytes: usize) {
        self.untaken.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Events were taken.
    pub(super) fn took(&self, bytes: usize) {
        self.untaken.fetch_sub(bytes, Ordering::AcqRel);
        if self.starved.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Whether so many events wait that no more should be read. When they do, the hub is woken
    /// as soon as some are taken.
    pub(super) fn is_behind(&self) -> bool {
        if self.untaken.load(Ordering::Acquire) <= UNTAKEN_BYTES_MAX {
            return false;
        }
        self.starved.swap(true, Ordering::AcqRel);
        // They may have been taken just before that was said. A plain load could still miss it,
        // while whoever took them missed what was said: both must see the last value.
        self.untaken.fetch_add(0, Ordering::AcqRel) > UNTAKEN_BYTES_MAX
    }
}

impl Waker {
    pub(super) fn stream(&self) -> &UnixStream {
        &self.receiver
    }

    /// Takes the byte: whatever is wanted from now on wakes again.
    pub(super) fn reset(&self, shared: &Shared) {
        let mut bytes = [0; 8];
        while (&self.receiver).read(&mut bytes).is_ok_and(|count| count > 0) {}
        shared.woken.swap(false, Ordering::AcqRel);
    }
}

/// Bytes of events that may wait to be taken before no more is read.
const UNTAKEN_BYTES_MAX: usize = 16 << 20;

/// Every interleaving that loom finds: see "Threads" in `docs/testing.md`.
#[cfg(all(test, feature = "loom"))]
mod interleavings {
    use super::*;
    use crate::sync::thread;

    #[test]
    fn whoever_is_behind_is_woken_once_events_were_taken() {
        loom::model(|| {
            let (shared, waker) = Shared::new().expect("descriptors");
            shared.told(UNTAKEN_BYTES_MAX + 1);
            let there = Arc::clone(&shared);
            let taker = thread::spawn(move || there.took(2));
            let behind = shared.is_behind();
            taker.join().expect("it ends");
            let mut byte = [0];
            let woken = waker.stream().read(&mut byte).is_ok_and(|count| count == 1);
            assert!(woken || !behind, "the hub would wait for what has happened");
        });
    }

    #[test]
    fn whatever_is_wanted_before_a_wake_is_seen_after_it() {
        loom::model(|| {
            let (shared, waker) = Shared::new().expect("descriptors");
            let there = Arc::clone(&shared);
            let first = thread::spawn(move || there.wake());
            let there = Arc::clone(&shared);
            let second = thread::spawn(move || there.stop());
            while !shared.is_stopped() {
                let mut byte = [0];
                if waker.stream().read(&mut byte).is_ok() {
                    waker.reset(&shared);
                } else {
                    thread::yield_now();
                }
            }
            first.join().expect("it ends");
            second.join().expect("it ends");
        });
    }
}
