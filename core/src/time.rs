//! Time as the machines see it: an argument, never a clock that is read.

use core::ops::{Add, Sub};

/// Microseconds since the driver started, from a clock that never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// The moment at which the driver started.
    pub const ZERO: Time = Time(0);

    /// Microseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub const fn since_us(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Time {
    type Output = Time;
    /// Adds microseconds; stays at the end of time rather than wrap.
    fn add(self, us: u64) -> Time {
        Time(self.0.saturating_add(us))
    }
}

impl Sub<u64> for Time {
    type Output = Time;
    fn sub(self, us: u64) -> Time {
        Time(self.0.saturating_sub(us))
    }
}

/// Wall-clock time: microseconds since 1970-01-01 UTC. For stamps and display, never for timers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Wall(pub u64);

/// One second in microseconds.
pub const SECOND_US: u64 = 1_000_000;
/// One millisecond in microseconds.
pub const MILLI_US: u64 = 1_000;
