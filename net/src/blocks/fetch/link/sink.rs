//! Where blocks go: into a file, each at its place, or through a spool, in order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use cordee_core::blocks::Layout;

use crate::sync::{Arc, Condvar, Mutex, lock};
use crate::threads::{STACK_BYTES, Thread, ThreadFailure};

/// Where blocks go.
#[derive(Debug)]
pub(in super::super) enum Sink {
    /// Into a file, in place.
    File(Arc<File>),
    /// To somebody who takes them in order.
    Spool(Arc<Spool>),
}

impl Sink {
    /// Stores whole blocks from `first` on.
    pub(super) fn store(&self, layout: &Layout, first: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::File(file) => file.write_all_at(bytes, first * u64::from(layout.block_bytes())),
            Sink::Spool(spool) => {
                let pieces = bytes.chunks(layout.block_bytes() as usize);
                (first..).zip(pieces).for_each(|(block, bytes)| spool.put(block, bytes));
                Ok(())
            }
        }
    }
}

/// Blocks on their way to standard output. How many wait is bounded by who asks for them.
#[derive(Debug)]
pub(in super::super) struct Spool {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The next to be written.
    next: u64,
    waiting: BTreeMap<u64, Vec<u8>>,
    bytes: u64,
    /// Nothing more comes.
    ended: bool,
    failed: Option<io::Error>,
}

impl Spool {
    /// A spool, and the thread that writes what comes out of it to standard output.
    pub(in super::super) fn start() -> Result<(Arc<Spool>, Thread), ThreadFailure> {
        let spool = Arc::new(Spool { state: Mutex::default(), changed: Condvar::new() });
        let own = Arc::clone(&spool);
        let thread = Thread::spawn("fetch-out".to_owned(), STACK_BYTES, move || own.write_out())?;
        Ok((spool, thread))
    }

    /// Puts a block in; one that was there is not taken twice.
    fn put(&self, block: u64, bytes: &[u8]) {
        let mut state = lock(&self.state);
        if block < state.next || state.waiting.contains_key(&block) || state.failed.is_some() {
            return;
        }
        state.bytes += bytes.len() as u64;
        state.waiting.insert(block, bytes.to_vec());
        if block == state.next {
            self.changed.notify_all();
        }
    }

    /// Whether more waits than should.
    pub(in super::super) fn is_full(&self) -> bool {
        let state = lock(&self.state);
        state.bytes > FULL_BYTES && state.waiting.contains_key(&state.next)
    }

    /// Waits a little, unless it is not full any more.
    pub(in super::super) fn wait(&self, time: Duration) {
        let state = lock(&self.state);
        if state.bytes > FULL_BYTES {
            let _ = crate::sync::wait_timeout(&self.changed, state, time);
        }
    }

    /// What went wrong with writing, once.
    pub(in super::super) fn take_failure(&self) -> Option<io::Error> {
        lock(&self.state).failed.take()
    }

    /// Nothing more comes: what is there in order is written, then the thread ends. Without
    /// `finish` nothing more is written.
    pub(in super::super) fn end(&self, finish: bool) {
        let mut state = lock(&self.state);
        state.ended = true;
        if !finish {
            state.waiting.clear();
        }
        self.changed.notify_all();
    }

    fn write_out(&self) {
        let mut out = io::stdout().lock();
        loop {
            let mut state = lock(&self.state);
            let next = state.next;
            let Some(bytes) = state.waiting.remove(&next) else {
                if state.ended || state.failed.is_some() {
                    return;
                }
                drop(crate::sync::wait(&self.changed, state));
                continue;
            };
            drop(state);
            let written = out.write_all(&bytes).and_then(|()| out.flush());
            let mut state = lock(&self.state);
            state.next += 1;
            state.bytes -= bytes.len() as u64;
            if let Err(error) = written {
                state.failed = Some(error);
                state.waiting.clear();
                self.changed.notify_all();
                return;
            }
            self.changed.notify_all();
        }
    }
}

/// Nobody is asked for more while so much waits to be written.
const FULL_BYTES: u64 = 16 << 20;
