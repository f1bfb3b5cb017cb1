//! The two clocks: one that never goes back, for timers, and the wall's, for stamps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cordee_core::{Time, Wall};

/// Turns the operating system's monotonic clock into the machines' [`Time`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that reads [`Time::ZERO`] now.
    pub(crate) fn start() -> Self {
        Clock { start: Instant::now() }
    }

    /// Microseconds since the start.
    pub(crate) fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The instant at which this clock reads `time`; `None` for one that never comes.
    pub(crate) fn instant(&self, time: Time) -> Option<Instant> {
        self.start.checked_add(Duration::from_micros(time.0))
    }
}

/// What the wall clock reads; the epoch when it is set to before that.
pub(crate) fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
