//! Choices: each a hash of the seed and of what is chosen, so that leaving one out changes no other.

use cordee_core::prng::mix;

/// Draws numbers for a seed.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    seed: u64,
}

impl Draw {
    /// Draws for `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Draw { seed }
    }

    /// 64 bits for the choice that `what` and `ids` name.
    #[must_use]
    pub fn bits(self, what: &str, ids: &[u64]) -> u64 {
        let mut state = mix(self.seed ^ 0x5eed_5eed);
        for byte in what.bytes() {
            state = mix(state ^ u64::from(byte));
        }
        for id in ids {
            state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ *id);
        }
        state
    }

    /// A number below `bound`, which must not be 0.
    #[must_use]
    pub fn below(self, what: &str, ids: &[u64], bound: u64) -> u64 {
        assert!(bound > 0, "a bound of 0 leaves nothing to draw");
        ((u128::from(self.bits(what, ids)) * u128::from(bound)) >> 64) as u64
    }

    /// Whether a choice of `percent` in a hundred comes true.
    #[must_use]
    pub fn chance(self, what: &str, ids: &[u64], percent: u64) -> bool {
        self.below(what, ids, 100) < percent
    }
}
