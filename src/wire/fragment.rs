//! Fragments of IPv4 packets that are too large and may be cut. [RFC 791 §3.2]
//!
//! Writes one fragment at a time and allocates nothing. A fragment can be cut again. Must not panic
//! on any input.

use crate::wire::checksum::checksum;
use crate::wire::ip::IPV4_HEADER_BYTES;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Offsets count in these units. Bytes.
const UNIT: usize = 8;

/// Whether the sender of an IPv4 `packet` lets routers cut it; false for everything else.
pub fn may_be_cut(packet: &[u8]) -> bool {
    header_bytes(packet).is_some() && field(packet, 6) & DONT_FRAGMENT == 0
}

/// Writes the fragment of `packet` that begins `done` payload bytes into it to `out`, and returns
/// its length and how many payload bytes are done with it. No fragment is longer than `limit`.
///
/// `None` when all is done, if the packet is no whole IPv4 packet, or if `limit` or `out` has no
/// room for a header and a unit of payload. Begin with `done` of 0 and go on with what was returned.
pub fn fragment(
    packet: &[u8],
    limit: usize,
    done: usize,
    out: &mut [u8],
) -> Option<(usize, usize)> {
    let header = header_bytes(packet)?;
    let payload = packet.get(header..usize::from(field(packet, 2)))?;
    let rest = payload.get(done..).filter(|rest| !rest.is_empty())?;
    let room = limit.min(out.len()).checked_sub(header)?;
    let is_last = rest.len() <= room;
    let len = if is_last { rest.len() } else { room / UNIT * UNIT };
    if len == 0 || !done.is_multiple_of(UNIT) {
        return None;
    }
    let flags = field(packet, 6);
    let offset = usize::from(flags & OFFSET) + done / UNIT;
    let offset = u16::try_from(offset).ok().filter(|offset| *offset <= OFFSET)?;
    let more = if is_last { flags & MORE_FRAGMENTS } else { MORE_FRAGMENTS };
    let (length, fragment) = (header + len, out.get_mut(..header + len)?);
    fragment[..header].copy_from_slice(&packet[..header]);
    fragment[header..].copy_from_slice(&rest[..len]);
    if done > 0 {
        blank_options(&mut fragment[IPV4_HEADER_BYTES..header]);
    }
    // Lossless: no longer than the packet.
    fragment[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    fragment[6..8].copy_from_slice(&(more | offset).to_be_bytes());
    fragment[10..12].fill(0);
    let sum = checksum(&fragment[..header]);
    fragment[10..12].copy_from_slice(&sum.to_be_bytes());
    Some((length, done + len))
}

/// Puts "no operation" in place of options that only the first fragment carries, so that headers
/// stay of one length.
fn blank_options(options: &mut [u8]) {
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let length = match kind {
            0 => return,
            NO_OPERATION => 1,
            _ => match options.get(at + 1) {
                Some(&length) if length >= 2 => usize::from(length),
                _ => return,
            },
        };
        let Some(option) = options.get_mut(at..at + length) else { return };
        if kind & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        at += length;
    }
}

/// Bytes of the header of an IPv4 packet that is all there.
fn header_bytes(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    (first >> 4 == 4 && header >= IPV4_HEADER_BYTES && packet.len() >= header).then_some(header)
}

fn field(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(options: &[u8], payload: usize, flags: u16) -> Vec<u8> {
        let header = 20 + options.len();
        let mut packet =
            b"\x45\x28\0\0\x12\x34\0\0\x40\x11\0\0\x0a\x0a\0\x01\x0a\x0a\0\x02".to_vec();
        packet[0] = 0x40 | (header / 4) as u8;
        packet[2..4].copy_from_slice(&((header + payload) as u16).to_be_bytes());
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        packet.extend_from_slice(options);
        packet.extend((0..payload).map(|n| n as u8));
        packet
    }

    fn cut(packet: &[u8], limit: usize) -> Vec<Vec<u8>> {
        let (mut done, mut fragments) = (0, Vec::new());
        let mut out = [0xee; 2000];
        while let Some((length, next)) = fragment(packet, limit, done, &mut out) {
            assert!(next > done);
            fragments.push(out[..length].to_vec());
            done = next;
        }
        fragments
    }

    #[test]
    fn a_packet_becomes_fragments_in_order_with_right_headers() {
        let fragments = cut(&packet(&[], 1400, 0), 1300);
        let head = |fragment: &[u8]| {
            assert_eq!(checksum(&fragment[..20]), 0);
            assert_eq!(usize::from(field(fragment, 2)), fragment.len());
            (fragment.len(), field(fragment, 4), field(fragment, 6))
        };
        let heads: Vec<_> = fragments.iter().map(|fragment| head(fragment)).collect();
        assert_eq!(heads, [(1300, 0x1234, 0x2000), (140, 0x1234, 160)]);
        let again = cut(&fragments[0], 700);
        let heads: Vec<_> = again.iter().map(|fragment| head(fragment)).collect();
        assert_eq!(heads, [(700, 0x1234, 0x2000), (620, 0x1234, 0x2000 | 85)]);
    }

    #[test]
    fn later_fragments_carry_only_options_that_are_to_be_copied() {
        let fragments = cut(&packet(&[7, 3, 4, 0x94, 4, 0, 0, 0], 100, 0), 80);
        assert_eq!(fragments[0][20..28], [7, 3, 4, 0x94, 4, 0, 0, 0]);
        assert_eq!(fragments[1][20..28], [1, 1, 1, 0x94, 4, 0, 0, 0]);
    }

    #[test]
    fn what_must_not_or_cannot_be_cut_is_told() {
        assert!(may_be_cut(&packet(&[], 8, 0)));
        assert!(!may_be_cut(&packet(&[], 8, DONT_FRAGMENT)));
        assert!(!may_be_cut(&[0x60; 60]) && !may_be_cut(&[0x4f; 30]) && !may_be_cut(&[]));
        assert_eq!(cut(&packet(&[], 100, 0), 27), [[0; 0]; 0], "no room for a unit");
        assert_eq!(cut(&packet(&[], 100, 0)[..90], 60), [[0; 0]; 0], "it is not all there");
        assert_eq!(cut(&packet(&[], 0, 0), 60), [[0; 0]; 0], "nothing to carry");
    }

    proptest! {
        #[test]
        fn all_fragments_together_are_the_payload(
            payload in 1..1800_usize, limit in 68..1500_usize, words in 0..3_usize, done in 0..9000_usize
        ) {
            let options = vec![1; 4 * words];
            let whole = packet(&options, payload, 0);
            let fragments = cut(&whole, limit);
            let header = 20 + options.len();
            prop_assert!(fragments.iter().all(|fragment| fragment.len() <= limit));
            prop_assert_eq!(fragments.iter().map(|f| f.len() - header).sum::<usize>(), payload);
            let mut joined = vec![0; payload];
            for fragment in &fragments {
                let at = usize::from(field(fragment, 6) & OFFSET) * 8;
                joined[at..at + fragment.len() - header].copy_from_slice(&fragment[header..]);
            }
            prop_assert_eq!(&joined[..], &whole[header..]);
            let more: Vec<_> = fragments.iter().map(|f| field(f, 6) & MORE_FRAGMENTS != 0).collect();
            prop_assert!(more.iter().rev().skip(1).all(|more| *more) && !more[more.len() - 1]);
            // Whatever the caller says is done, nothing panics.
            fragment(&whole, limit, done, &mut [0; 100]);
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100), limit in 0..200_usize
        ) {
            may_be_cut(&bytes);
            cut(&bytes, limit);
        }
    }
}
