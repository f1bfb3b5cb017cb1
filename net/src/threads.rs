//! Threads: each has a name, is made fallibly, and says what failed when it dies.

use std::any::Any;
use std::io;

use crate::sync::thread::{Builder, JoinHandle};

/// A thread that could not be made, or died.
#[derive(Debug, thiserror::Error)]
pub enum ThreadFailure {
    /// The operating system makes no more threads.
    #[error("cannot start the thread {name}: {source}; allow more processes (ulimit -u) or memory")]
    Spawn {
        /// Which.
        name: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// It panicked: a fault in Cordee.
    #[error("the thread {name} died: {message}; this is a fault in cordee, please report it")]
    Panicked {
        /// Which.
        name: String,
        /// What it said.
        message: String,
    },
}

/// A thread that is to be joined.
#[derive(Debug)]
pub(crate) struct Thread {
    name: String,
    handle: JoinHandle<()>,
}

impl Thread {
    /// Starts `run` with a stack of `stack_bytes`. Names of more than 15 bytes are cut by Linux.
    pub(crate) fn spawn(
        name: String,
        stack_bytes: usize,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<Thread, ThreadFailure> {
        #[cfg(all(test, not(feature = "loom")))]
        let run = running::counted(run);
        match Builder::new().name(name.clone()).stack_size(stack_bytes).spawn(run) {
            Ok(handle) => Ok(Thread { name, handle }),
            Err(source) => Err(ThreadFailure::Spawn { name, source }),
        }
    }

    /// Waits for its end.
    pub(crate) fn join(self) -> Result<(), ThreadFailure> {
        let name = self.name;
        self.handle
            .join()
            .map_err(|payload| ThreadFailure::Panicked { name, message: message(&*payload) })
    }
}

/// What a panic said.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}

/// Stack of a thread that calls a machine or a resolver, in bytes of address space.
pub(crate) const STACK_BYTES: usize = 1 << 20;

/// How many threads have begun and not ended. One that was joined has.
#[cfg(all(test, not(feature = "loom")))]
pub(crate) fn running() -> usize {
    running::count()
}

#[cfg(all(test, not(feature = "loom")))]
mod running {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static RUNNING: AtomicUsize = AtomicUsize::new(0);

    struct Running;

    impl Drop for Running {
        fn drop(&mut self) {
            RUNNING.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(super) fn count() -> usize {
        RUNNING.load(Ordering::SeqCst)
    }

    /// Counts `run` from now until it has returned or unwound, or was never called.
    pub(super) fn counted(run: impl FnOnce() + Send + 'static) -> impl FnOnce() + Send + 'static {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        let running = Running;
        move || {
            let _running = running;
            run();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_dies_says_who_and_why() {
        let thread = Thread::spawn("fragile".to_owned(), STACK_BYTES, || panic!("on purpose"))
            .expect("threads can be made");
        let failure = thread.join().expect_err("it panicked");
        let said = failure.to_string();
        assert!(said.contains("fragile") && said.contains("on purpose"), "{said}");
    }
}
