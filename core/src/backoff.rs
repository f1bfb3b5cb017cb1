//! Growing, jittered delays between attempts.

use crate::prng::Prng;

/// Doubles from a first delay to a greatest one; each drawn within ± 20 per cent.
#[derive(Clone, Debug)]
pub struct Backoff {
    first_us: u64,
    max_us: u64,
    next_us: u64,
}

impl Backoff {
    /// Delays from `first_us` up to `max_us`, in microseconds.
    #[must_use]
    pub const fn new(first_us: u64, max_us: u64) -> Self {
        Backoff { first_us, max_us, next_us: first_us }
    }

    /// The delay to wait now, in microseconds; the one after is twice as long.
    pub fn next_us(&mut self, prng: &mut Prng) -> u64 {
        let delay = self.next_us;
        self.next_us = (delay.saturating_mul(2)).min(self.max_us);
        prng.jitter(delay, 20)
    }

    /// Starts again at the first delay, after a success.
    pub fn reset(&mut self) {
        self.next_us = self.first_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_greatest_and_start_again_after_a_success() {
        let mut prng = Prng::new(3);
        let mut backoff = Backoff::new(1_000, 4_000);
        for expected in [1_000, 2_000, 4_000, 4_000] {
            let delay = backoff.next_us(&mut prng);
            assert!(delay.abs_diff(expected) <= expected / 5, "{delay} for {expected}");
        }
        backoff.reset();
        assert!(backoff.next_us(&mut prng) <= 1_200);
    }
}
