//! The Internet checksum. [RFC 1071]
//!
//! Sums are taken over words as wide as the machine likes, in its own byte order, and folded once at
//! the end.

use std::net::Ipv6Addr;

/// A running one's-complement sum of 16-bit big-endian words.
///
/// Kept in the byte order of the machine, which the sum does not mind: swapping the bytes of every
/// word swaps those of the result. [RFC 1071 §2 (B)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds `bytes`; an odd last byte counts as the high half of a word.
    ///
    /// Only the last part of a message may have an odd length.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "a step of a sum over bytes, no arithmetic")]
    pub fn add(self, bytes: &[u8]) -> Self {
        // Words of any multiple of 16 bits add up to the same. Four independent sums keep the adders
        // of a processor busy, and at 128 bits no carry is lost.
        let mut lanes = [0_u128; 4];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
                *lane += u128::from(u64::from_ne_bytes(*word));
            }
        }
        let mut sum: u128 = lanes.into_iter().sum();
        let (words, rest) = rest.as_chunks::<8>();
        for word in words {
            sum += u128::from(u64::from_ne_bytes(*word));
        }
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            sum += u128::from(u32::from_ne_bytes(*word));
        }
        let (words, rest) = rest.as_chunks::<2>();
        for word in words {
            sum += u128::from(u16::from_ne_bytes(*word));
        }
        if let [high] = rest {
            sum += u128::from(u16::from_ne_bytes([*high, 0]));
        }
        let [low, high] = [sum, sum >> 64].map(|half| half as u64);
        Self(self.0 + (low >> 32) + (low & 0xffff_ffff) + high)
    }

    /// Adds two words, the high half first, as a number stands in a header.
    #[must_use]
    pub const fn add_u32(self, value: u32) -> Self {
        Self(self.0 + value.to_be() as u64)
    }

    /// The complement, as it stands in a header.
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !u16::try_from(sum).map_or(u16::MAX, u16::from_be)
    }
}

/// The checksum of `bytes`, as it stands in a header; zero if `bytes` hold a right one.
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().add(bytes).finish()
}

/// The sum of an IPv6 pseudo header. [RFC 8200 §8.1]
pub fn pseudo_header_v6(source: Ipv6Addr, destination: Ipv6Addr, length: u32, next: u8) -> Sum {
    Sum::new()
        .add(&source.octets())
        .add(&destination.octets())
        .add_u32(length)
        .add_u32(u32::from(next))
}

/// `checksum` after the word it covers went from `old` to `new`. [RFC 1624 §3]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    Sum::new().add_u32(sum).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_sums_to_ddf2() {
        // RFC 1071 §3: the sum is ddf2, the checksum its complement.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&bytes), !0xddf2);
    }

    /// Word by word, as the RFC says it.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn every_length_and_alignment_sums_as_word_by_word() {
        let mut entropy = 1_u32;
        let mut random = || {
            entropy = entropy.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (entropy >> 24) as u8
        };
        let random: Vec<u8> = (0..400).map(|_| random()).collect();
        for bytes in [&random[..], &[0xff; 400], &[0; 400]] {
            for start in 0..200 {
                for len in 0..200 {
                    let part = &bytes[start..start + len];
                    assert_eq!(checksum(part), naive(part), "{len} bytes at {start}");
                }
            }
        }
    }

    #[test]
    fn carries_of_a_whole_super_packet_are_kept() {
        let bytes = [0xff; 65_535];
        for len in [65_535, 65_534, 65_505, 65_504] {
            assert_eq!(checksum(&bytes[..len]), naive(&bytes[..len]), "{len}");
        }
    }

    #[test]
    fn parts_and_numbers_add_up_to_the_whole() {
        let bytes: Vec<u8> = (0..=255).map(|n: u8| n.wrapping_mul(167)).collect();
        for cut in (0..256).step_by(2) {
            let sum = Sum::new().add(&bytes[..cut]).add(&bytes[cut..]);
            assert_eq!(sum.finish(), naive(&bytes), "cut at {cut}");
        }
        let number = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        assert_eq!(Sum::new().add(&bytes[4..]).add_u32(number).finish(), naive(&bytes));
    }

    #[test]
    fn an_odd_byte_counts_as_the_high_half() {
        assert_eq!(checksum(&[0x12, 0x34, 0x56]), !(0x1234 + 0x5600));
    }

    #[test]
    fn a_right_checksum_verifies_to_zero() {
        let mut header = *b"\x45\0\0\x54\0\0\x40\0\x40\x01\0\0\x0a\x0a\0\x01\x0a\x0a\0\x02";
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&header), 0);
    }

    #[test]
    fn an_incremental_update_equals_a_full_sum() {
        let mut bytes: [u8; 8] = [0x45, 0, 0, 0x54, 0, 0, 0xff, 0xfe];
        for tos in 0..=255_u8 {
            let before = checksum(&bytes);
            let old = u16::from_be_bytes([bytes[0], bytes[1]]);
            bytes[1] = tos;
            let new = u16::from_be_bytes([bytes[0], bytes[1]]);
            assert_eq!(update(before, old, new), checksum(&bytes), "tos {tos}");
        }
    }
}
