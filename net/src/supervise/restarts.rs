//! When a child that died is started again.

use std::time::Duration;

use cordee_core::backoff::Backoff;
use cordee_core::prng::Prng;

/// When a child that died is started again, and when no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Before the second restart in a row; the first is at once. Doubles each time.
    pub delay: Duration,
    /// What the delay grows to.
    pub delay_max: Duration,
    /// A child that lived this long is healthy: its next restart is at once again.
    pub healthy: Duration,
    /// A child that dies so often in a row, and was never ready, is given up.
    pub early_deaths_max: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            delay: Duration::from_millis(50),
            delay_max: Duration::from_secs(5),
            healthy: Duration::from_secs(10),
            early_deaths_max: 10,
        }
    }
}

/// When one child is started again.
#[derive(Debug)]
pub(super) struct Restarts {
    backoff: Backoff,
    prng: Prng,
    healthy: Duration,
    /// Deaths in a row of a child that was never ready. One that was can be again: what stands in its
    /// way, another program at its port or a machine short of memory, may go.
    early_deaths: u32,
    early_deaths_max: u32,
    was_ready: bool,
    /// Whether the next restart is at once.
    at_once: bool,
}

impl Restarts {
    pub(super) fn new(policy: &Policy, seed: u64) -> Self {
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Restarts {
            backoff: Backoff::new(us(policy.delay), us(policy.delay_max)),
            prng: Prng::new(seed),
            healthy: policy.healthy,
            early_deaths: 0,
            early_deaths_max: policy.early_deaths_max,
            was_ready: false,
            at_once: true,
        }
    }

    /// How long to wait before the next start; `None` when there is to be none.
    pub(super) fn after_death(&mut self, ran: Duration, ready: bool) -> Option<Duration> {
        self.was_ready |= ready;
        self.early_deaths = if self.was_ready { 0 } else { self.early_deaths + 1 };
        if self.early_deaths >= self.early_deaths_max {
            return None;
        }
        if ready && ran >= self.healthy {
            self.backoff.reset();
            self.at_once = true;
        }
        if std::mem::take(&mut self.at_once) {
            return Some(Duration::ZERO);
        }
        Some(Duration::from_micros(self.backoff.next_us(&mut self.prng)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_begin_again_after_a_healthy_life() {
        let policy = Policy::default();
        let mut restarts = Restarts::new(&policy, 1);
        let short = Duration::from_secs(1);
        let roughly = |delay: Option<Duration>, ms: u64| {
            let delay = delay.expect("not given up").as_millis() as u64;
            assert!(delay.abs_diff(ms) <= ms / 5, "{delay} ms, not {ms}");
        };
        assert_eq!(restarts.after_death(short, true), Some(Duration::ZERO));
        for ms in [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000, 5_000] {
            roughly(restarts.after_death(short, true), ms);
        }
        assert_eq!(restarts.after_death(policy.healthy, true), Some(Duration::ZERO));
        roughly(restarts.after_death(short, true), 50);
    }

    #[test]
    fn only_a_child_that_was_never_ready_is_given_up() {
        let mut restarts = Restarts::new(&Policy::default(), 1);
        for _ in 0..9 {
            assert!(restarts.after_death(Duration::from_secs(60), false).is_some());
        }
        assert_eq!(restarts.after_death(Duration::from_secs(60), false), None);

        let mut restarts = Restarts::new(&Policy::default(), 1);
        for _ in 0..9 {
            assert!(restarts.after_death(Duration::ZERO, false).is_some());
        }
        assert!(restarts.after_death(Duration::ZERO, true).is_some());
        for _ in 0..100 {
            assert!(
                restarts.after_death(Duration::ZERO, false).is_some(),
                "its port may be free again"
            );
        }
    }
}
