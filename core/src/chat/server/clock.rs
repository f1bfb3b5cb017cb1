//! The server's hybrid logical clock.

use crate::ids::Clock;
use crate::limits::Limits;
use crate::time::{Time, Wall};

/// Stamps entries and claims: never the same twice, never at or below what was announced.
#[derive(Debug)]
pub(super) struct HybridClock {
    last: Clock,
    anchor: (Time, Wall),
    drag_us_max: u64,
    ahead_us_max: u64,
}

impl HybridClock {
    pub(super) fn new(now: Time, wall: Wall, limits: &Limits) -> Self {
        HybridClock {
            last: Clock(wall.0),
            anchor: (now, wall),
            drag_us_max: limits.clock_drag_us_max,
            ahead_us_max: limits.clock_ahead_us_max,
        }
    }

    /// The wall clock was read: `wall` at `now`.
    pub(super) fn set_wall(&mut self, now: Time, wall: Wall) {
        self.anchor = (now, wall);
    }

    /// What the wall clock reads at `now`, by the last reading.
    pub(super) fn wall(&self, now: Time) -> u64 {
        self.anchor.1.0.saturating_add(now.since_us(self.anchor.0))
    }

    /// A new stamp, above all before and above `floor`.
    pub(super) fn stamp(&mut self, now: Time, floor: Clock) -> Clock {
        let next = self.wall(now).max(self.last.0 + 1).max(floor.0.saturating_add(1));
        self.last = Clock(next);
        self.last
    }

    /// Announces the clock: nothing is stamped at or below it any more.
    pub(super) fn announce(&mut self, now: Time) -> Clock {
        if planted!(StampBelow) {
            return Clock(self.last.0.max(self.wall(now) + 50_000));
        }
        self.last = Clock(self.last.0.max(self.wall(now)));
        self.last
    }

    /// Another's clock was seen: ours follows, but not far beyond the wall clock.
    pub(super) fn observe(&mut self, now: Time, other: Clock) {
        let drag = other.0.min(self.wall(now).saturating_add(self.drag_us_max));
        self.last = Clock(self.last.0.max(drag));
    }

    /// A floor that must hold whatever the wall clock says: indexes up to it were called final.
    pub(super) fn raise(&mut self, floor: Clock) {
        self.last = self.last.max(floor);
    }

    /// Whether another's clock is so far ahead that it cannot be dealt with.
    pub(super) fn is_absurd(&self, now: Time, other: Clock) -> bool {
        other.0 > self.wall(now).saturating_add(self.ahead_us_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_above_everything_that_was_announced_or_seen_and_follow_others_only_so_far() {
        let limits = Limits::default();
        let mut clock = HybridClock::new(Time(0), Wall(1_000), &limits);
        let first = clock.stamp(Time(0), Clock(0));
        assert_eq!(first, Clock(1_001));
        assert_eq!(clock.stamp(Time(500), Clock(0)), Clock(1_500));
        assert_eq!(clock.stamp(Time(500), Clock(9_000)), Clock(9_001));
        let announced = clock.announce(Time(600));
        assert!(clock.stamp(Time(600), Clock(0)) > announced);
        clock.observe(Time(600), Clock(u64::MAX));
        let dragged = clock.stamp(Time(600), Clock(0));
        assert_eq!(dragged.0, 1_600 + limits.clock_drag_us_max + 1);
        assert!(clock.is_absurd(Time(600), Clock(limits.clock_ahead_us_max + 1_601)));
        assert!(!clock.is_absurd(Time(600), Clock(limits.clock_ahead_us_max + 1_600)));
    }

    #[test]
    fn a_wall_clock_that_steps_back_does_not_take_stamps_with_it() {
        let mut clock = HybridClock::new(Time(0), Wall(1_000_000), &Limits::default());
        let before = clock.stamp(Time(10), Clock(0));
        clock.set_wall(Time(20), Wall(500));
        assert!(clock.stamp(Time(20), Clock(0)) > before);
    }
}
