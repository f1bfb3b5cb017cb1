//! A rate that all connections share.

use std::time::{Duration, Instant};

use crate::sync::{Mutex, lock};

/// Bytes per second for all connections together. Each takes a portion of a few milliseconds, and the
/// next portion begins when the one before has had its time: so they are served in turn, smoothly,
/// and nothing is saved up while nobody asks.
#[derive(Debug)]
pub(super) struct Rate {
    bytes_per_s: u64,
    /// When the portions that were given away have had their time.
    next: Mutex<Instant>,
}

impl Rate {
    /// At most `bytes_per_s`, at least 1.
    pub(super) fn new(bytes_per_s: u64) -> Rate {
        Rate { bytes_per_s: bytes_per_s.max(1), next: Mutex::new(Instant::now()) }
    }

    /// A portion of at most `wanted` bytes, and when it may be sent.
    pub(super) fn reserve(&self, wanted: u64, now: Instant) -> (u64, Instant) {
        let most = u64::try_from(u128::from(self.bytes_per_s) * PORTION.as_micros() / 1_000_000);
        let bytes = wanted.min(most.unwrap_or(u64::MAX).max(1));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut next = lock(&self.next);
        // A thread that woke late makes up for it, by a portion at most.
        let begin = (*next).max(now.checked_sub(PORTION).unwrap_or(now));
        *next = begin + time;
        (bytes, begin)
    }
}

const PORTION: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_follow_each_other_at_the_rate() {
        let begun = Instant::now();
        let rate = Rate::new(1_000_000);
        let (mut sent, mut last) = (0, begun);
        while sent < 100_000 {
            let (bytes, at) = rate.reserve(u64::MAX, begun);
            assert_eq!(bytes, 5_000);
            sent += bytes;
            last = at;
        }
        let time = last - begun;
        assert!((85..=95).contains(&time.as_millis()), "{time:?} for 100 kB at 1 MB/s");
    }

    #[test]
    fn nothing_is_saved_up() {
        let rate = Rate::new(1_000_000);
        let later = Instant::now() + Duration::from_secs(100);
        let given: u64 = std::iter::repeat_with(|| rate.reserve(1 << 20, later))
            .take_while(|(_, at)| *at <= later)
            .map(|(bytes, _)| bytes)
            .sum();
        assert_eq!(given, 10_000, "two portions at once, whatever the time before");
    }

    #[test]
    fn the_slowest_rate_moves_a_byte_a_second() {
        let rate = Rate::new(0);
        let now = Instant::now();
        let (first, _) = rate.reserve(1 << 20, now);
        let (second, at) = rate.reserve(1 << 20, now);
        assert_eq!((first, second), (1, 1));
        assert!(at - now >= Duration::from_millis(900));
    }
}
