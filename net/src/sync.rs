//! The locks of the drivers. All hand-offs between threads go through these, so that a checker of
//! interleavings can take their place in one file.

pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::sync::{PoisonError, WaitTimeoutResult};
use std::time::Duration;

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
