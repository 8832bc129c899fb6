//! Announced segment sizes.

use hybridwg::wire::mss::{Checksum, Limits, clamp, may_be_syn};

use super::Choices;

/// Any packet, or one that is almost a SYN: nothing is ever raised, what is not told to be changed
/// is not, and no more than options and a checksum change.
pub fn mss(data: &[u8]) {
    let mut choices = Choices(data);
    let kind = choices.byte();
    let limits = Limits::of_mtu(u32::from(u16::from_be_bytes(choices.bytes())));
    let checksum = if kind & 1 == 0 { Checksum::Whole } else { Checksum::Partial };
    let before = if kind & 2 == 0 { choices.0.to_vec() } else { almost_syn(&mut choices) };
    let mut after = before.clone();
    let changed = clamp(&mut after, limits, checksum);
    assert_eq!(changed, after != before);
    assert!(!changed || may_be_syn(&before), "a SYN was not recognised");
    let differ: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    let (Some(first), Some(last)) = (differ.first(), differ.last()) else { return };
    // From the checksum to the end of the longest header.
    assert!(*first >= 20 && last - first < 44, "{differ:?}");
    let mut again = after.clone();
    assert!(!clamp(&mut again, limits, checksum), "what was lowered fits");
}

/// A SYN over IPv4 or IPv6 with whatever follows as its options.
fn almost_syn(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut packet = if choices.byte() & 1 == 0 {
        b"\x45\0\0\0\0\0\x40\0\x40\x06\0\0\x0a\0\0\x01\x0a\0\0\x02".to_vec()
    } else {
        let mut header = vec![0; 40];
        (header[0], header[6]) = (0x60, 6);
        header
    };
    let start = packet.len();
    packet.extend([0; 20]);
    packet.extend_from_slice(choices.0);
    let length = (packet.len() - if start == 20 { 0 } else { 40 }) as u16;
    let at = if start == 20 { 2 } else { 4 };
    packet[at..at + 2].copy_from_slice(&length.to_be_bytes());
    packet[start + 12] = (5 + (choices.0.len() / 4).min(10) as u8) << 4;
    packet[start + 13] = 2;
    packet
}
