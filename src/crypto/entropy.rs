//! Randomness as an argument.
//!
//! One injected source feeds ephemerals, indices, cookie secrets, nonces and jitter, so that equal
//! seeds give equal bytes in tests. The source of a running program is `sys::entropy::OsEntropy`;
//! it must be the OS pool, because a leaked generator state would reveal past ephemerals.

/// A source of random bytes.
pub trait Entropy: Send {
    fn fill(&mut self, bytes: &mut [u8]);
}

impl dyn Entropy + '_ {
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A number in `0..=max`; the bias of the multiplication is below 2^-32.
    pub fn up_to(&mut self, max: u32) -> u32 {
        let random = u64::from(u32::from_le_bytes(self.bytes()));
        u32::try_from((random * (u64::from(max) + 1)) >> 32).unwrap_or(max)
    }
}

/// SplitMix64: reproducible, and for tests, benchmarks and fuzzing only.
#[derive(Debug)]
pub struct SeededEntropy(u64);

impl SeededEntropy {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }
}
