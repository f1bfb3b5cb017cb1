//! Seeded randomness: xoshiro256++ (Blackman and Vigna, 2019), seeded by SplitMix64.
//!
//! For jitter, ties and ids that need not be unguessable. Secrets arrive as inputs.

/// A small generator; the same seed gives the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Prng {
    state: [u64; 4],
}

impl Prng {
    /// A generator for `seed`; any value will do.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut z = seed;
        let state = core::array::from_fn(|_| {
            z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(z)
        });
        Prng { state }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`, which must not be 0. The bias is below 2⁻³² for bounds of 32 bits.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a bound of 0 leaves nothing to draw");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// `value` changed by up to `percent` per cent either way.
    pub fn jitter(&mut self, value: u64, percent: u64) -> u64 {
        let spread = value / 100 * percent;
        if spread == 0 {
            return value;
        }
        value - spread + self.below(2 * spread + 1)
    }
}

/// The finaliser of SplitMix64: spreads every bit of `z` over the result.
#[must_use]
pub const fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let mut a = Prng::new(7);
        let mut b = Prng::new(7);
        for _ in 0..100 {
            assert_eq!(a.next_u64(), b.next_u64());
        }
        assert_ne!(Prng::new(7).next_u64(), Prng::new(8).next_u64());
    }

    #[test]
    fn numbers_stay_below_their_bound_and_jitter_within_its_share() {
        let mut prng = Prng::new(1);
        for bound in 1..200 {
            assert!(prng.below(bound) < bound);
            let jittered = prng.jitter(1_000, 10);
            assert!((900..=1_100).contains(&jittered), "{jittered}");
        }
        assert_eq!(prng.jitter(5, 10), 5);
    }
}
