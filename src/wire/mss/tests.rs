use proptest::prelude::*;

use super::*;
use crate::wire::checksum::{Sum, checksum, pseudo_header_v6};

const LIMITS: Limits = Limits { v4: 1320, v6: 1300 };

/// What stands before the segment.
#[derive(Clone, Debug)]
struct Below {
    is_v6: bool,
    /// Of the IPv4 header, in words; of IPv6, which extension headers of how many units there are.
    option_words: u8,
    extensions: Vec<(u8, u8)>,
}

impl Below {
    const V4: Self = Self { is_v6: false, option_words: 0, extensions: Vec::new() };
    const V6: Self = Self { is_v6: true, option_words: 0, extensions: Vec::new() };

    fn packet(&self, segment: &[u8]) -> Vec<u8> {
        if self.is_v6 { self.packet_v6(segment) } else { self.packet_v4(segment) }
    }

    fn packet_v4(&self, segment: &[u8]) -> Vec<u8> {
        let header = 20 + 4 * usize::from(self.option_words);
        let mut packet = vec![1; header];
        packet[..12].copy_from_slice(b"\x45\0\0\0\x12\x34\x40\0\x40\x06\0\0");
        packet[0] += self.option_words;
        packet[12..20].copy_from_slice(b"\x0a\x0a\0\x01\x0a\x0a\0\x02");
        packet[2..4].copy_from_slice(&((header + segment.len()) as u16).to_be_bytes());
        packet.extend_from_slice(segment);
        packet
    }

    fn packet_v6(&self, segment: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        (packet[0], packet[6], packet[7]) = (0x60, PROTOCOL_TCP, 64);
        (packet[8], packet[23], packet[24], packet[39]) = (0xfd, 1, 0xfd, 2);
        let mut slot = 6;
        for (kind, units) in &self.extensions {
            packet[slot] = *kind;
            slot = packet.len();
            packet.extend([PROTOCOL_TCP, *units]);
            packet.extend(vec![0; 6 + 8 * usize::from(*units)]);
        }
        packet.extend_from_slice(segment);
        let payload = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&payload.to_be_bytes());
        packet
    }

    /// The checksum that the segment should have, added up over all of it.
    fn sum(&self, segment: &[u8]) -> u16 {
        let mut zeroed = segment.to_vec();
        zeroed[16..18].fill(0);
        self.pseudo(segment.len()).add(&zeroed).finish()
    }

    fn pseudo(&self, len: usize) -> Sum {
        if self.is_v6 {
            let [source, destination] = ["fd00::1", "fd00::2"].map(|text| {
                let mut octets = text.parse::<std::net::Ipv6Addr>().unwrap().octets();
                octets[1] = 0;
                octets.into()
            });
            return pseudo_header_v6(source, destination, len as u32, PROTOCOL_TCP);
        }
        Sum::new().add(b"\x0a\x0a\0\x01\x0a\x0a\0\x02").add_u32(6).add_u32(len as u32)
    }
}

/// A segment with these flags and options, which are padded, and without a checksum.
fn segment(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut segment = b"\x9c\x40\0\x50\0\0\0\x01\0\0\0\0\0\0\xff\xff\0\0\0\0".to_vec();
    segment.extend_from_slice(options);
    segment.resize(segment.len().next_multiple_of(4), 0);
    segment[12] = (segment.len() as u8 / 4) << 4;
    segment[13] = flags;
    segment.extend_from_slice(payload);
    segment
}

fn with_sum(below: &Below, mut segment: Vec<u8>) -> Vec<u8> {
    let sum = below.sum(&segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

fn clamped(packet: &[u8]) -> Vec<u8> {
    let mut clamped = packet.to_vec();
    let changed = clamp(&mut clamped, LIMITS, Checksum::Whole);
    assert_eq!(changed, clamped != packet);
    clamped
}

const MSS_1460: [u8; 4] = [2, 4, 0x05, 0xb4];

#[test]
fn a_syn_and_its_answer_announce_no_more_than_fits_over_both_families() {
    for (below, limit) in [(Below::V4, [0x05, 0x28]), (Below::V6, [0x05, 0x14])] {
        for flags in [SYN, SYN | 0x10, SYN | 0xc2] {
            let packet = below.packet(&with_sum(&below, segment(flags, &MSS_1460, b"data")));
            let expected = [&[2, 4][..], &limit].concat();
            let expected = below.packet(&with_sum(&below, segment(flags, &expected, b"data")));
            assert!(may_be_syn(&packet));
            assert_eq!(clamped(&packet), expected, "{below:?} {flags:#x}");
        }
    }
}

#[test]
fn an_announcement_that_fits_is_never_raised() {
    for small in [0, 536, 1319, 1320] {
        let [high, low] = u16::to_be_bytes(small);
        let packet = Below::V4.packet(&segment(SYN, &[2, 4, high, low], &[]));
        assert_eq!(clamped(&packet), packet, "{small}");
    }
}

#[test]
fn what_is_no_syn_or_announces_nothing_is_left_as_it_is() {
    let plain = segment(SYN, &[4, 2, 3, 3, 7], &[]);
    let later = segment(0x10, &MSS_1460, &[]);
    for below in [Below::V4, Below::V6] {
        for segment in [&plain, &later] {
            let packet = below.packet(segment);
            assert_eq!(clamped(&packet), packet);
        }
        let mut udp = below.packet(&segment(SYN, &MSS_1460, &[]));
        udp[if below.is_v6 { 6 } else { 9 }] = 17;
        assert!(!may_be_syn(&udp));
        assert_eq!(clamped(&udp), udp);
    }
}

#[test]
fn options_that_contradict_themselves_are_left_to_their_receiver() {
    for options in [
        &[2, 4, 5, 0xb4, 3, 0][..],
        &[2, 4, 5, 0xb4, 3, 1],
        &[2, 4, 5, 0xb4, 8, 10, 0, 0],
        &[1, 1, 1, 2],
        &[1, 1, 2, 4],
        &[2, 3, 5, 0],
        &[2, 6, 5, 0xb4, 5, 0xb4],
    ] {
        let packet = Below::V4.packet(&segment(SYN, options, &[0xff; 8]));
        assert_eq!(clamped(&packet), packet, "{options:?}");
    }
}

#[test]
fn what_follows_the_end_of_the_options_is_none() {
    let packet = Below::V4.packet(&segment(SYN, &[1, 0, 1, 1, 2, 4, 5, 0xb4], &[]));
    assert_eq!(clamped(&packet), packet);
    let packet = Below::V4.packet(&segment(SYN, &[2, 4, 5, 0xb4, 0, 9, 9, 9], &[]));
    assert_ne!(clamped(&packet), packet);
}

#[test]
fn a_header_longer_than_its_packet_and_a_cut_one_are_left_as_they_are() {
    let whole = Below::V4.packet(&segment(SYN, &MSS_1460, &[]));
    for end in 0..whole.len() {
        assert_eq!(clamped(&whole[..end]), whole[..end], "{end}");
    }
    for offset in [0, 4, 7, 15] {
        let mut packet = whole.clone();
        packet[32] = offset << 4;
        assert_eq!(clamped(&packet), packet, "{offset}");
    }
    let mut padded = whole;
    padded[2..4].copy_from_slice(&40_u16.to_be_bytes());
    assert_eq!(clamped(&padded), padded, "the option is padding, not part of the packet");
}

#[test]
fn later_fragments_are_left_as_they_are_and_first_ones_are_read() {
    let mut v4 = Below::V4.packet(&segment(SYN, &MSS_1460, &[]));
    v4[6] = 0x20;
    assert_ne!(clamped(&v4), v4);
    v4[7] = 1;
    assert_eq!(clamped(&v4), v4);
    let below = Below { extensions: vec![(FRAGMENT, 0)], ..Below::V6 };
    let mut v6 = below.packet(&segment(SYN, &MSS_1460, &[]));
    assert_ne!(clamped(&v6), v6);
    v6[43] = 8;
    assert_eq!(clamped(&v6), v6);
}

#[test]
fn behind_authentication_or_too_many_headers_nothing_is_changed() {
    for extensions in [vec![(51, 1)], vec![(50, 1)], vec![(60, 0); 9]] {
        let below = Below { extensions, ..Below::V6 };
        let packet = below.packet(&segment(SYN, &MSS_1460, &[]));
        assert_eq!(clamped(&packet), packet);
    }
}

#[test]
fn a_partial_checksum_is_not_touched() {
    let below = Below::V4;
    let mut segment = segment(SYN, &MSS_1460, b"x");
    let partial = !below.pseudo(segment.len()).finish();
    segment[16..18].copy_from_slice(&partial.to_be_bytes());
    let mut packet = below.packet(&segment);
    assert!(clamp(&mut packet, LIMITS, Checksum::Partial));
    assert_eq!(packet[36..38], partial.to_be_bytes());
    // Completed as the kernel completes it, it is right.
    let sum = checksum(&packet[20..]);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(below.sum(&packet[20..]), sum);
}

#[test]
fn the_limits_of_an_mtu_are_without_headers_and_never_below_what_all_must_take() {
    assert_eq!(Limits::of_mtu(1360), Limits { v4: 1320, v6: 1300 });
    assert_eq!(Limits::of_mtu(1200), Limits { v4: 1160, v6: 1220 });
    assert_eq!(Limits::of_mtu(0), Limits { v4: 536, v6: 1220 });
    assert_eq!(Limits::of_mtu(1 << 20), Limits { v4: 65_535, v6: 65_535 });
    assert_eq!(Limits::of_mtu(1360).at_most(1310), Limits { v4: 1310, v6: 1300 });
}

fn options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        Just(vec![NO_OPERATION]),
        any::<u16>().prop_map(|mss| {
            let [high, low] = mss.to_be_bytes();
            vec![MSS, MSS_BYTES, high, low]
        }),
        (3..=8_u8, proptest::collection::vec(any::<u8>(), 0..6))
            .prop_map(|(kind, value)| { [&[kind, value.len() as u8 + 2][..], &value].concat() }),
    ];
    proptest::collection::vec(option, 0..7).prop_map(|all| {
        let mut options = Vec::new();
        for option in all {
            if options.len() + option.len() <= 40 {
                options.extend(option);
            }
        }
        options
    })
}

fn below() -> impl Strategy<Value = Below> {
    let extension =
        prop_oneof![(prop_oneof![Just(0), Just(43), Just(60)], 0..3_u8), Just((FRAGMENT, 0_u8)),];
    (any::<bool>(), 0..=10_u8, proptest::collection::vec(extension, 0..4))
        .prop_map(|(is_v6, option_words, extensions)| Below { is_v6, option_words, extensions })
}

proptest! {
    /// At every place of the option, behind every header, the checksum is the one of a full sum.
    #[test]
    fn only_announcements_above_the_limit_change_and_the_checksum_stays_right(
        below in below(), options in options(), payload in proptest::collection::vec(any::<u8>(), 0..9)
    ) {
        let before = below.packet(&with_sum(&below, segment(SYN, &options, &payload)));
        prop_assert!(may_be_syn(&before));
        let after = clamped(&before);
        let start = before.len() - segment(SYN, &options, &payload).len();
        let limit = if below.is_v6 { LIMITS.v6 } else { LIMITS.v4 };
        let mut expected = before[start..].to_vec();
        let mut at = 20;
        while at < 20 + options.len() {
            let length = if expected[at] == 1 { 1 } else { usize::from(expected[at + 1]) };
            if expected[at] == MSS {
                let mss = u16::from_be_bytes([expected[at + 2], expected[at + 3]]).min(limit);
                expected[at + 2..at + 4].copy_from_slice(&mss.to_be_bytes());
            }
            at += length;
        }
        let sum = below.sum(&expected);
        let unchanged = expected == before[start..];
        expected[16..18].copy_from_slice(&sum.to_be_bytes());
        prop_assert_eq!(&after[..start], &before[..start]);
        prop_assert!(unchanged && after == before || after[start..] == expected);
    }

    #[test]
    fn no_bytes_make_it_panic_or_change_more_than_an_option_and_a_checksum(
        mut packet in proptest::collection::vec(any::<u8>(), 0..120),
        first in prop_oneof![Just(0x45), Just(0x4f), Just(0x60), any::<u8>()],
        next in prop_oneof![Just(6), Just(0), Just(44), any::<u8>()],
    ) {
        for (at, byte) in [(0, first), (6, next), (9, next)] {
            if let Some(slot) = packet.get_mut(at) {
                *slot = byte;
            }
        }
        let after = clamped(&packet);
        prop_assert_eq!(after.len(), packet.len());
        prop_assert!(after == packet || may_be_syn(&packet));
    }
}
