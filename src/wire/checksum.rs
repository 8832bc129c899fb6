//! The Internet checksum. [RFC 1071]
//!
//! Sums are taken in native order over big-endian words and folded once at the end.

use std::net::Ipv6Addr;

/// A running one's-complement sum of 16-bit big-endian words.
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
    pub fn add(mut self, bytes: &[u8]) -> Self {
        let words = bytes.chunks_exact(2);
        if let [last] = words.remainder() {
            self.0 += u64::from(*last) << 8;
        }
        for word in words {
            self.0 += u64::from(u16::from_be_bytes([word[0], word[1]]));
        }
        self
    }

    #[must_use]
    pub fn add_u32(mut self, value: u32) -> Self {
        self.0 += u64::from(value >> 16) + u64::from(value & 0xffff);
        self
    }

    /// The complement, as it stands in a header.
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !u16::try_from(sum).unwrap_or(u16::MAX)
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
