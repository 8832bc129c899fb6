//! Randomness of the operating system.
//!
//! Always `getrandom(2)`, never a generator of ours: a leaked generator state would reveal past
//! ephemeral keys. If the pool cannot be read the process ends, because there is no safe way on.

use crate::crypto::entropy::Entropy;

/// The kernel's random pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    /// Fills `bytes`; aborts the process when the kernel has no randomness to give.
    fn fill(&mut self, bytes: &mut [u8]) {
        if getrandom::fill(bytes).is_err() {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_fills_differ_and_no_byte_position_stays_unwritten() {
        let mut first = [0; 64];
        let mut second = [0; 64];
        OsEntropy.fill(&mut first);
        OsEntropy.fill(&mut second);
        assert_ne!(first, second);
        // A position that is zero in 20 fills was not written (chance 2^-160).
        let mut seen = [0; 64];
        for _ in 0..20 {
            OsEntropy.fill(&mut first);
            for (seen, byte) in seen.iter_mut().zip(first) {
                *seen |= byte;
            }
        }
        assert!(seen.iter().all(|&byte| byte != 0));
    }
}
