//! How other threads reach the one that waits for its sockets.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::event::Event;

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
        self.starved.store(true, Ordering::Release);
        // They may have been taken just before that was said.
        self.untaken.load(Ordering::Acquire) > UNTAKEN_BYTES_MAX
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
