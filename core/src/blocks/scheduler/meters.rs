//! What is measured of a connection: how fast it gives, and how long it can be silent.

use crate::time::{MILLI_US, SECOND_US, Time};

/// How fast bytes come while something is asked for: a moving average over windows of 10 ms at
/// first, of 100 ms later.
#[derive(Clone, Debug, Default)]
pub(super) struct RateMeter {
    /// Bytes per second; 0 is unknown.
    rate: u64,
    /// Whether anything is asked for.
    is_busy: bool,
    /// When the window was begun, and from when on its bytes could come at the earliest.
    asked_at: Time,
    from: Time,
    bytes: u64,
    windows: u32,
}

/// How many of the first windows are short.
const SHORT_WINDOWS: u32 = 10;

impl RateMeter {
    /// For another connection to the same source: it begins with what is known.
    pub(super) fn of_sibling(&self) -> RateMeter {
        RateMeter { rate: self.rate, ..RateMeter::default() }
    }

    /// Something is asked for; bytes can come in `rtt_us`, unless some were awaited already.
    pub(super) fn begin(&mut self, now: Time, rtt_us: u64) {
        if !self.is_busy {
            self.is_busy = true;
            self.open_window(now, now + rtt_us);
        }
    }

    fn open_window(&mut self, now: Time, from: Time) {
        (self.asked_at, self.from, self.bytes) = (now, from, 0);
    }

    /// Bytes came.
    pub(super) fn arrived(&mut self, now: Time, bytes: u64) {
        self.bytes += bytes;
        if now.since_us(self.from) >= self.width_us() {
            self.close_window(now);
        }
    }

    /// Nothing is awaited any more.
    pub(super) fn end(&mut self, now: Time) {
        if self.is_busy && self.bytes > 0 {
            self.close_window(now);
        }
        self.is_busy = false;
    }

    /// Time passed that does not count: nobody was there to take bytes.
    pub(super) fn skip(&mut self, us: u64) {
        self.asked_at = self.asked_at + us;
        self.from = self.from + us;
    }

    /// Bytes per second; 0 while nothing is known. A window that brings less than it should counts
    /// before it is over.
    pub(super) fn rate(&self, now: Time) -> u64 {
        let is_late = self.is_busy && now.since_us(self.from) > self.width_us();
        if self.rate == 0 || !is_late { self.rate } else { self.rate.min(self.blended(now)) }
    }

    /// Whether a rate is known.
    pub(super) const fn is_known(&self) -> bool {
        self.rate > 0
    }

    /// For how long something was awaited in this window, in microseconds.
    pub(super) fn awaited_us(&self, now: Time) -> u64 {
        if self.is_busy { now.since_us(self.asked_at) } else { 0 }
    }

    fn close_window(&mut self, now: Time) {
        self.rate = self.blended(now).max(1);
        self.windows = self.windows.saturating_add(1);
        self.open_window(now, now);
    }

    fn blended(&self, now: Time) -> u64 {
        // The round trip that is left out was measured once, and may be shorter now.
        let us = now.since_us(self.from).max(now.since_us(self.asked_at) / 8).max(1);
        let sample = self.bytes.saturating_mul(SECOND_US) / us;
        if self.rate == 0 {
            return sample;
        }
        let (old, new) = (u128::from(self.width_us()), u128::from(us));
        ((u128::from(self.rate) * old + u128::from(sample) * new) / (old + new)) as u64
    }

    const fn width_us(&self) -> u64 {
        if self.windows < SHORT_WINDOWS { 10 * MILLI_US } else { 100 * MILLI_US }
    }
}

/// How long a connection is silent while something is awaited of it: mean and deviation as TCP's
/// (RFC 6298), of the longest wait in each second.
#[derive(Clone, Debug)]
pub(super) struct WaitMeter {
    mean_us: u64,
    deviation_us: u64,
    longest_us: u64,
    since: Time,
}

/// Nobody is suspected before so much silence.
const STALL_US_MIN: u64 = 200 * MILLI_US;

impl WaitMeter {
    pub(super) const fn new(now: Time, rtt_us: u64) -> WaitMeter {
        WaitMeter { mean_us: rtt_us, deviation_us: rtt_us / 2, longest_us: 0, since: now }
    }

    /// Something came after a silence of `wait_us`.
    pub(super) fn heard(&mut self, now: Time, wait_us: u64) {
        let stall_us = self.stall_us();
        self.longest_us = self.longest_us.max(wait_us.min(stall_us));
        if self.longest_us < stall_us / 2 && now.since_us(self.since) < SECOND_US {
            return;
        }
        let off_by = self.longest_us.abs_diff(self.mean_us);
        self.deviation_us = (3 * self.deviation_us + off_by) / 4;
        self.mean_us = (7 * self.mean_us + self.longest_us) / 8;
        (self.longest_us, self.since) = (0, now);
    }

    /// Silence after which a connection is suspect, in microseconds.
    pub(super) fn stall_us(&self) -> u64 {
        (4 * (self.mean_us + 4 * self.deviation_us)).clamp(STALL_US_MIN, 60 * SECOND_US)
    }
}

/// A token bucket (`--limit-rate`): bytes are paid for when they are asked for, and given back when they are
/// asked of somebody else.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    bytes_per_s: u64,
    /// Bytes times a million; below 0 there is a debt.
    tokens: i128,
    at: Time,
}

/// What can be saved up, in microseconds of the rate.
const BURST_US: u64 = 100 * MILLI_US;

impl Bucket {
    pub(super) fn new(bytes_per_s: u64) -> Bucket {
        assert!(bytes_per_s > 0, "a rate of 0 never ends");
        Bucket { bytes_per_s, tokens: 0, at: Time::ZERO }
    }

    pub(super) const fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s
    }

    pub(super) fn refill(&mut self, now: Time) {
        let rate = i128::from(self.bytes_per_s);
        let filled = self.tokens + rate * i128::from(now.since_us(self.at));
        self.tokens = filled.min(rate * i128::from(BURST_US));
        self.at = now;
    }

    pub(super) fn pay(&mut self, bytes: u64) {
        self.tokens -= i128::from(bytes) * i128::from(SECOND_US);
    }

    pub(super) fn give_back(&mut self, bytes: u64) {
        self.tokens += i128::from(bytes) * i128::from(SECOND_US);
    }

    /// When something may be asked for: at once, or the time at which the debt is paid.
    pub(super) fn open_at(&self) -> Time {
        let debt = (-self.tokens).max(0) as u128;
        self.at + u64::try_from(debt.div_ceil(u128::from(self.bytes_per_s))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_known_after_one_block_and_follows() {
        let mut meter = RateMeter::default();
        meter.begin(Time(0), 1_000);
        meter.arrived(Time(5_000), 40_000);
        meter.end(Time(5_000));
        assert_eq!(meter.rate(Time(5_000)), 10_000_000, "without the round trip");
        meter.begin(Time(100_000), 1_000);
        for ms in 101..1_000 {
            meter.arrived(Time(ms * 1_000), 1_000);
        }
        let rate = meter.rate(Time(1_000_000));
        assert!(rate.abs_diff(1_000_000) < 100_000, "{rate}");
        let later = meter.rate(Time(1_500_000));
        assert!(later < rate / 3, "{later}: nothing came for half a second");
    }

    #[test]
    fn a_regular_wait_is_learned_and_forgotten() {
        let mut meter = WaitMeter::new(Time(0), 50);
        assert_eq!(meter.stall_us(), STALL_US_MIN);
        let mut now = 0;
        let suspected = (0..20).filter(|_| {
            let is_suspect = 3_000_000 >= meter.stall_us();
            now += 3_000_000;
            meter.heard(Time(now), 3_000_000);
            is_suspect
        });
        assert!(suspected.count() <= 4);
        for _ in 0..600 {
            now += 100_000;
            meter.heard(Time(now), 10);
        }
        assert!(meter.stall_us() < 300_000, "{}", meter.stall_us());
    }

    #[test]
    fn a_bucket_lets_through_its_rate_and_a_little_at_once() {
        let mut bucket = Bucket::new(1_000_000);
        let (mut now, mut paid) = (Time(0), 0);
        while now < Time(10_000_000) {
            bucket.refill(now);
            while bucket.open_at() <= now {
                bucket.pay(300_000);
                paid += 300_000;
            }
            now = bucket.open_at();
        }
        assert!((9_700_000..=10_700_000).contains(&paid), "{paid}");
        bucket.give_back(300_000);
        assert!(bucket.open_at() <= now);
    }
}
