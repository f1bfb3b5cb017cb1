//! The poller: the one thread that waits for all connections which would block, and gives each back
//! to the workers when its socket is ready or its time has come.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll;

use super::connection::Handle;
use super::queue::Queue;
use super::shared::Shared;
use super::table::{Table, WAKE};
use crate::sync::{Arc, Mutex, lock};

/// When the server is to end at the latest, once it is to end.
pub(super) type End = Mutex<Option<Instant>>;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Poller {
    pub(super) table: Arc<Table>,
    pub(super) queue: Arc<Queue<Handle>>,
    pub(super) shared: Arc<Shared>,
    pub(super) end: Arc<End>,
}

impl Poller {
    /// Runs until the server is to end and nobody is left, or it is time.
    pub(super) fn run(self) {
        let mut due = Vec::new();
        let mut told = false;
        loop {
            let now = Instant::now();
            let end = *lock(&self.end);
            if let Some(end) = end {
                if self.table.len() == 0 || now >= end {
                    return;
                }
                if !std::mem::replace(&mut told, true) {
                    // Whoever waits is told that there is nothing to wait for.
                    due.extend(self.table.all());
                }
            }
            let next = self.table.due(now, &mut due);
            if !due.is_empty() {
                due.drain(..).for_each(|connection| self.queue.push(connection));
                continue;
            }
            let until = end.map_or(next, |end| Some(next.map_or(end, |next| next.min(end))));
            self.wait(until);
        }
    }

    fn wait(&self, until: Option<Instant>) {
        let time = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            // Never a little too early, which would be again and again.
            let left = left + Duration::from_micros(1);
            let (tv_sec, tv_nsec) = (left.as_secs().cast_signed(), left.subsec_nanos().into());
            Timespec { tv_sec, tv_nsec }
        });
        let mut events = [MaybeUninit::uninit(); EVENTS_MAX];
        let events = match epoll::wait(&self.table.epoll, &mut events[..], time.as_ref()) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return,
            Err(error) => {
                self.shared.log.warn(&format!("cannot wait for connections: {error}"));
                std::thread::sleep(BACK_OFF);
                return;
            }
        };
        for event in events {
            let data = event.data.u64();
            if data != WAKE
                && let Some(connection) = self.table.ready(data)
            {
                self.queue.push(connection);
            }
        }
    }
}

const EVENTS_MAX: usize = 256;
const BACK_OFF: Duration = Duration::from_millis(50);
