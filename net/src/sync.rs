//! What threads share: locks, wakes, channels and threads of the drivers. All hand-offs go through
//! these, so that a checker of interleavings can take their place in one file: with the feature
//! `loom` they are its own, without it the standard library's and crossbeam's.
//!
//! Under the checker no wait times out: whoever waits must be woken.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::PoisonError;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

pub(crate) use kind::{Condvar, Mutex, MutexGuard, WaitTimeoutResult, atomic, thread};
pub(crate) use std::sync::Arc;

#[cfg(not(feature = "loom"))]
mod kind {
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, WaitTimeoutResult, atomic};
    pub(crate) use std::thread;
}

#[cfg(feature = "loom")]
mod kind {
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, WaitTimeoutResult, atomic};
    pub(crate) use loom::thread;
}

/// Locks. A thread that died with the lock held left nothing half done: every section under a lock
/// only moves values, and the death is reported where the thread is joined.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for `condvar`.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits for `condvar`, at most for `time`.
pub(crate) fn wait_timeout<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    time: Duration,
) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
    condvar.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner)
}

/// Wakes a thread that waits for readiness of this among its sockets. Watched by edges: each wake
/// is told once, several may be told as one.
#[derive(Debug)]
pub(crate) struct Wake {
    descriptor: OwnedFd,
    #[cfg(feature = "loom")]
    model: (Mutex<bool>, Condvar),
}

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Wake {
            descriptor: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            #[cfg(feature = "loom")]
            model: (Mutex::new(false), Condvar::new()),
        })
    }

    pub(crate) fn wake(&self) {
        // The counter cannot overflow: nothing that writes 1 lives for 2⁶⁴ writes.
        let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
        #[cfg(feature = "loom")]
        {
            *lock(&self.model.0) = true;
            self.model.1.notify_one();
        }
    }

    /// Stands for the wait at the descriptor.
    #[cfg(all(test, feature = "loom"))]
    pub(crate) fn wait_for(&self) {
        let mut woken = lock(&self.model.0);
        while !std::mem::take(&mut *woken) {
            woken = wait(&self.model.1, woken);
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A queue of requests from several threads to one. Its users bound what is in it.
pub(crate) mod channel {
    #[cfg(not(feature = "loom"))]
    pub(crate) use crossbeam_channel::{Receiver, Sender, unbounded};

    #[cfg(feature = "loom")]
    pub(crate) use model::{Receiver, Sender, unbounded};

    /// As much of a channel as is used here, of the checker's locks.
    #[cfg(feature = "loom")]
    mod model {
        use std::collections::VecDeque;
        use std::time::Instant;

        use super::super::{Arc, Condvar, Mutex, lock, wait};

        type Queue<T> = Arc<(Mutex<VecDeque<T>>, Condvar)>;

        #[derive(Debug)]
        pub(crate) struct Sender<T>(Queue<T>);

        #[derive(Debug)]
        pub(crate) struct Receiver<T>(Queue<T>);

        pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
            let queue = Arc::new((Mutex::new(VecDeque::new()), Condvar::new()));
            (Sender(Arc::clone(&queue)), Receiver(queue))
        }

        impl<T> Clone for Sender<T> {
            fn clone(&self) -> Self {
                Sender(Arc::clone(&self.0))
            }
        }

        impl<T> Sender<T> {
            pub(crate) fn send(&self, value: T) -> Result<(), T> {
                lock(&self.0.0).push_back(value);
                self.0.1.notify_one();
                Ok(())
            }
        }

        impl<T> Receiver<T> {
            pub(crate) fn recv(&self) -> Result<T, ()> {
                let mut queue = lock(&self.0.0);
                loop {
                    match queue.pop_front() {
                        Some(value) => return Ok(value),
                        None => queue = wait(&self.0.1, queue),
                    }
                }
            }

            pub(crate) fn recv_deadline(&self, _: Instant) -> Result<T, ()> {
                self.recv()
            }
        }
    }
}
