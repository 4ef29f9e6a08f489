//! Random ids from an injected seed, so that a simulated run repeats itself exactly.

/// SplitMix64 over a 128-bit seed.
#[derive(Debug)]
pub(super) struct Random(u64, u64);

impl Random {
    pub(super) fn new(seed: u128) -> Self {
        Self(seed as u64, (seed >> 64) as u64)
    }

    fn mix(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next 128 bits.
    pub(super) fn next(&mut self) -> u128 {
        u128::from(Self::mix(&mut self.0)) << 64 | u128::from(Self::mix(&mut self.1))
    }
}
