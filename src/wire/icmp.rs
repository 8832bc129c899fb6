//! "Destination unreachable" towards the sender of a packet that no peer takes, "too big" towards
//! that of one that does not fit the way to its peer, and the echo that finds out what fits.
//! [RFC 792] [RFC 1122 §3.2.2] [RFC 1812 §4.3.2] [RFC 1191] [RFC 4443 §2.4, §3.1, §3.2]
//!
//! The reply comes from the address that could not be reached, unless the caller names another: it is
//! routed to the tunnel, so the kernel's reverse-path filter lets it pass, where an address of the
//! host itself would be refused as a martian. Replies are never sent to what must not be answered. How often they may be sent
//! is the caller's to limit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::checksum::{checksum, pseudo_header_v6};
use crate::wire::ip::{
    IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, IpHeader, PROTOCOL_ICMP, PROTOCOL_ICMPV6,
};

/// Longest reply, in bytes: what an IPv6 link must carry. [RFC 4443 §2.4]
pub const REPLY_BYTES: usize = 1280;

/// Longest IPv4 reply, in bytes. [RFC 1812 §4.3.2.3]
const REPLY_BYTES_V4: usize = 576;

const ICMP_HEADER_BYTES: usize = 8;

/// What a reply says, as the first eight bytes of its message, but for the checksum.
#[derive(Clone, Copy)]
struct Head {
    v4: [u8; ICMP_HEADER_BYTES],
    v6: [u8; ICMP_HEADER_BYTES],
}

/// Why a packet goes no further. [RFC 792] [RFC 1812 §5.2.7] [RFC 4443 §3]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    NoRoute,
    HostUnreachable,
    Prohibited,
    ProtocolUnknown,
    PortUnreachable,
    HopsExhausted,
    /// So many bytes would fit.
    TooBig(u16),
}

impl Problem {
    const fn head(self) -> Head {
        match self {
            Self::NoRoute => head([3, 0], [1, 0], [0; 4]),
            Self::HostUnreachable => head([3, 1], [1, 3], [0; 4]),
            Self::Prohibited => head([3, 13], [1, 1], [0; 4]),
            // IPv6 points at the field that it does not understand: the next header.
            Self::ProtocolUnknown => Head {
                v4: head([3, 2], [4, 1], [0; 4]).v4,
                v6: head([3, 2], [4, 1], [0, 0, 0, 6]).v6,
            },
            Self::PortUnreachable => head([3, 3], [1, 4], [0; 4]),
            Self::HopsExhausted => head([11, 0], [3, 0], [0; 4]),
            Self::TooBig(mtu) => {
                let [high, low] = mtu.to_be_bytes();
                head([3, 4], [2, 0], [0, 0, high, low])
            }
        }
    }
}

/// Type and code of either version, and the second word.
const fn head(v4: [u8; 2], v6: [u8; 2], word: [u8; 4]) -> Head {
    let [a, b, c, d] = word;
    Head { v4: [v4[0], v4[1], 0, 0, a, b, c, d], v6: [v6[0], v6[1], 0, 0, a, b, c, d] }
}

/// What an ICMP error of somebody else's says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub from: IpAddr,
    pub kind: u8,
    pub code: u8,
    /// The second word of the message.
    pub word: u32,
}

/// Precedence "internetwork control". [RFC 1812 §4.3.2.5]
const TOS_V4: u8 = 0xc0;

const HOP_LIMIT: u8 = 64;

/// Writes "unreachable" as the reply to `packet` and returns its length; `None` if there must be no
/// reply.
///
/// No reply goes to ICMP errors and redirects, to later fragments, to what was sent to or from a
/// group or no single host, or to what is not IP. [RFC 1122 §3.2.2] [RFC 4443 §2.4 (e)]
pub fn unreachable(packet: &[u8], out: &mut [u8; REPLY_BYTES]) -> Option<usize> {
    reply(packet, None, Problem::HostUnreachable.head(), out)
}

/// Writes "too big" as the reply to `packet`, of which `mtu` bytes would fit; otherwise the same.
pub fn too_big(packet: &[u8], mtu: u16, out: &mut [u8; REPLY_BYTES]) -> Option<usize> {
    reply(packet, None, Problem::TooBig(mtu).head(), out)
}

/// Writes that there is a `problem` with `packet`, in the name of `from`, or of who was not reached;
/// otherwise as [`unreachable`].
pub fn refuse(
    packet: &[u8],
    from: Option<IpAddr>,
    problem: Problem,
    out: &mut [u8; REPLY_BYTES],
) -> Option<usize> {
    reply(packet, from, problem.head(), out)
}

/// Writes that somebody else has `told` this about `packet`; otherwise as [`unreachable`].
pub fn pass_on(packet: &[u8], told: Told, out: &mut [u8; REPLY_BYTES]) -> Option<usize> {
    let Told { from, kind, code, word } = told;
    let [a, b, c, d] = word.to_be_bytes();
    let head = [kind, code, 0, 0, a, b, c, d];
    reply(packet, Some(from), Head { v4: head, v6: head }, out)
}

fn reply(
    packet: &[u8],
    from: Option<IpAddr>,
    head: Head,
    out: &mut [u8; REPLY_BYTES],
) -> Option<usize> {
    let header = IpHeader::parse(packet)?;
    let packet = &packet[..packet.len().min(header.total_length)];
    match (header.source, header.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let from = match from {
                Some(IpAddr::V4(from)) => from,
                Some(IpAddr::V6(_)) | None => destination,
            };
            let answerable =
                is_one_host_v4(source) && is_one_host_v4(destination) && is_answerable_v4(packet);
            answerable.then(|| write_v4(packet, source, from, head.v4, out))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let from = match from {
                Some(IpAddr::V6(from)) => from,
                Some(IpAddr::V4(_)) | None => destination,
            };
            let answerable =
                is_one_host_v6(source) && is_one_host_v6(destination) && is_answerable_v6(packet);
            answerable.then(|| write_v6(packet, source, from, head.v6, out))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// Bytes of an echo request with its token, over IPv4 and over IPv6.
const ECHO_BYTES: usize = ICMP_HEADER_BYTES + size_of::<u64>();
pub const LONGEST_ECHO_BYTES: usize = IPV6_HEADER_BYTES + ECHO_BYTES;

/// An answer to an [`echo_request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    pub from: IpAddr,
    pub sequence: u16,
    /// What the request carried.
    pub token: u64,
}

/// Writes an echo request and returns its length; `None` if the addresses are not of one family.
pub fn echo_request(
    source: IpAddr,
    destination: IpAddr,
    sequence: u16,
    token: u64,
    out: &mut [u8; LONGEST_ECHO_BYTES],
) -> Option<usize> {
    let [high, low] = sequence.to_be_bytes();
    out.fill(0);
    let start = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            out[..10].copy_from_slice(&[
                0x45,
                0,
                0,
                (IPV4_HEADER_BYTES + ECHO_BYTES) as u8,
                0,
                0,
                0x40,
                0,
                HOP_LIMIT,
                PROTOCOL_ICMP,
            ]);
            out[12..16].copy_from_slice(&source.octets());
            out[16..20].copy_from_slice(&destination.octets());
            let sum = checksum(&out[..IPV4_HEADER_BYTES]);
            out[10..12].copy_from_slice(&sum.to_be_bytes());
            IPV4_HEADER_BYTES
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            out[..8].copy_from_slice(&[
                0x60,
                0,
                0,
                0,
                0,
                ECHO_BYTES as u8,
                PROTOCOL_ICMPV6,
                HOP_LIMIT,
            ]);
            out[8..24].copy_from_slice(&source.octets());
            out[24..40].copy_from_slice(&destination.octets());
            IPV6_HEADER_BYTES
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let message = &mut out[start..start + ECHO_BYTES];
    message[0] = if start == IPV4_HEADER_BYTES { ECHO_V4.0 } else { ECHO_V6.0 };
    message[6..8].copy_from_slice(&[high, low]);
    message[8..].copy_from_slice(&token.to_be_bytes());
    let sum = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            pseudo_header_v6(source, destination, ECHO_BYTES as u32, PROTOCOL_ICMPV6)
                .add(message)
                .finish()
        }
        _ => checksum(message),
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(start + ECHO_BYTES)
}

/// Reads the answer to an [`echo_request`]; `None` for everything else. Who wants to be sure looks at
/// the token.
pub fn echo_reply(packet: &[u8]) -> Option<Echo> {
    let from = IpHeader::parse(packet)?.source;
    let (start, protocol, kind) = match from {
        IpAddr::V4(_) => (usize::from(packet[0] & 0xf) * 4, packet[9], ECHO_V4.1),
        IpAddr::V6(_) => (IPV6_HEADER_BYTES, packet[6], ECHO_V6.1),
    };
    let wanted = if from.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
    let message: &[u8; ECHO_BYTES] = packet.get(start..)?.first_chunk()?;
    let (head, token) = message.split_first_chunk::<ICMP_HEADER_BYTES>()?;
    let token = u64::from_be_bytes(*token.first_chunk()?);
    let is_reply = protocol == wanted && head[0] == kind;
    is_reply.then_some(Echo { from, sequence: u16::from_be_bytes([head[6], head[7]]), token })
}

/// Types of echo request and reply.
const ECHO_V4: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);

/// Unspecified, loopback, group and reserved (with the limited broadcast) addresses are not.
const fn is_one_host_v4(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

const fn is_one_host_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

fn is_answerable_v4(packet: &[u8]) -> bool {
    let header_bytes = usize::from(packet[0] & 0x0f) * 4;
    let fragment_offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
    if header_bytes < IPV4_HEADER_BYTES || packet.len() < header_bytes || fragment_offset != 0 {
        return false;
    }
    // Of a message that is cut before its type nobody can say that it is no error.
    packet[9] != PROTOCOL_ICMP
        || packet.get(header_bytes).is_some_and(|kind| !matches!(kind, 3 | 4 | 5 | 11 | 12))
}

/// Follows the extension headers to the upper layer. [RFC 8200 §4]
fn is_answerable_v6(packet: &[u8]) -> bool {
    /// More headers in a row than this are no traffic that deserves an answer.
    const MAX_EXTENSIONS: usize = 8;
    let (mut next, mut at) = (packet[6], IPV6_HEADER_BYTES);
    for _ in 0..MAX_EXTENSIONS {
        let length = match next {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => {
                let Some(units) = packet.get(at + 1) else { return false };
                8 + 8 * usize::from(*units)
            }
            // Fragment.
            44 => {
                let Some(field) = packet.get(at + 2..at + 4) else { return false };
                if u16::from_be_bytes([field[0], field[1]]) & 0xfff8 != 0 {
                    return false;
                }
                8
            }
            // Errors are below 128; 137 is a redirect.
            PROTOCOL_ICMPV6 => {
                return packet.get(at).is_some_and(|kind| *kind >= 128 && *kind != 137);
            }
            _ => return true,
        };
        let Some(following) = packet.get(at) else { return false };
        next = *following;
        at += length;
    }
    false
}

fn write_v4(
    packet: &[u8],
    source: Ipv4Addr,
    from: Ipv4Addr,
    head: [u8; ICMP_HEADER_BYTES],
    out: &mut [u8; REPLY_BYTES],
) -> usize {
    let headers = IPV4_HEADER_BYTES + ICMP_HEADER_BYTES;
    let quoted = packet.len().min(REPLY_BYTES_V4 - headers);
    let length = headers + quoted;
    out[..headers].fill(0);
    out[0] = 0x45;
    out[1] = TOS_V4;
    // Lossless: at most REPLY_BYTES.
    out[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    out[8] = HOP_LIMIT;
    out[9] = PROTOCOL_ICMP;
    out[12..16].copy_from_slice(&from.octets());
    out[16..20].copy_from_slice(&source.octets());
    let sum = checksum(&out[..IPV4_HEADER_BYTES]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out[20..28].copy_from_slice(&head);
    out[headers..length].copy_from_slice(&packet[..quoted]);
    let sum = checksum(&out[IPV4_HEADER_BYTES..length]);
    out[22..24].copy_from_slice(&sum.to_be_bytes());
    length
}

fn write_v6(
    packet: &[u8],
    source: Ipv6Addr,
    from: Ipv6Addr,
    head: [u8; ICMP_HEADER_BYTES],
    out: &mut [u8; REPLY_BYTES],
) -> usize {
    let headers = IPV6_HEADER_BYTES + ICMP_HEADER_BYTES;
    let quoted = packet.len().min(REPLY_BYTES - headers);
    let length = headers + quoted;
    // Lossless: at most REPLY_BYTES.
    let payload = (ICMP_HEADER_BYTES + quoted) as u16;
    out[..headers].fill(0);
    out[0] = 0x60;
    out[4..6].copy_from_slice(&payload.to_be_bytes());
    out[6] = PROTOCOL_ICMPV6;
    out[7] = HOP_LIMIT;
    out[8..24].copy_from_slice(&from.octets());
    out[24..40].copy_from_slice(&source.octets());
    out[40..48].copy_from_slice(&head);
    out[headers..length].copy_from_slice(&packet[..quoted]);
    let sum = pseudo_header_v6(from, source, u32::from(payload), PROTOCOL_ICMPV6)
        .add(&out[IPV6_HEADER_BYTES..length])
        .finish();
    out[42..44].copy_from_slice(&sum.to_be_bytes());
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet =
            b"\x45\0\0\0\x12\x34\x40\0\x40\0\0\0\x0a\x0a\0\x01\xc0\x00\x02\x09".to_vec();
        packet[9] = protocol;
        packet.extend_from_slice(payload);
        packet[2..4].copy_from_slice(&u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
        packet
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        packet[6] = next;
        packet[7] = 64;
        packet[8..24].copy_from_slice(&"fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        packet[24..40].copy_from_slice(&"fd00::99".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend_from_slice(payload);
        packet
    }

    fn reply(packet: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0xee; REPLY_BYTES];
        unreachable(packet, &mut out).map(|length| out[..length].to_vec())
    }

    #[test]
    fn an_echo_request_is_answered_by_host_unreachable_byte_for_byte() {
        let request = v4(1, b"\x08\0\xf7\xfd\0\x01\0\x01");
        let mut expected = b"\x45\xc0\0\x38\0\0\0\0\x40\x01".to_vec();
        // The words 45c0 0038 4001 c000 0209 0a0a 0001 sum to 1 520d, folded 520e.
        expected.extend(0xadf1_u16.to_be_bytes());
        expected.extend(b"\xc0\x00\x02\x09\x0a\x0a\0\x01");
        // The words 0301 4500 001c 1234 4000 4001 0a0a 0001 c000 0209 0800 f7fd 0001 0001 sum to
        // 2 a665, folded a667.
        expected.extend(b"\x03\x01\x59\x98\0\0\0\0");
        expected.extend(&request);
        assert_eq!(reply(&request).unwrap(), expected);
    }

    #[test]
    fn an_ipv6_packet_is_answered_by_address_unreachable_with_a_right_checksum() {
        let request = v6(17, b"\x12\x34\0\x35\0\x0c\0\0abcd");
        let reply = reply(&request).unwrap();
        assert_eq!(reply[..8], *b"\x60\0\0\0\0\x3c\x3a\x40");
        assert_eq!(reply[8..24], request[24..40], "from the address that was not reached");
        assert_eq!(reply[24..40], request[8..24]);
        assert_eq!(reply[40..42], [1, 3]);
        assert_eq!(reply[44..48], [0; 4]);
        assert_eq!(reply[48..], request[..]);
        let (source, destination) = ("fd00::99".parse().unwrap(), "fd00::1".parse().unwrap());
        let sum = pseudo_header_v6(source, destination, 60, 58).add(&reply[40..]).finish();
        assert_eq!(sum, 0);
    }

    #[test]
    fn a_problem_is_told_in_the_name_that_is_asked_for() {
        let mut out = [0xee; REPLY_BYTES];
        let hub: IpAddr = "10.10.0.254".parse().unwrap();
        for (problem, head) in [
            (Problem::NoRoute, [3, 0]),
            (Problem::HostUnreachable, [3, 1]),
            (Problem::ProtocolUnknown, [3, 2]),
            (Problem::Prohibited, [3, 13]),
            (Problem::HopsExhausted, [11, 0]),
        ] {
            let len = refuse(&v4(17, &[7; 40]), Some(hub), problem, &mut out).unwrap();
            assert_eq!((&out[12..16], &out[20..22]), (&[10, 10, 0, 254][..], &head[..]));
            assert_eq!(checksum(&out[20..len]), 0);
        }
        let len = refuse(&v6(47, &[7; 40]), None, Problem::ProtocolUnknown, &mut out).unwrap();
        assert_eq!((&out[40..42], &out[44..48], len), (&[4, 1][..], &[0, 0, 0, 6][..], 128));
        let told = Told { from: hub, kind: 3, code: 4, word: 1340 };
        pass_on(&v4(17, &[7; 40]), told, &mut out).unwrap();
        assert_eq!(out[24..28], [0, 0, 5, 0x3c]);
    }

    #[test]
    fn what_is_too_big_learns_what_would_fit() {
        let mut out = [0xee; REPLY_BYTES];
        let len = too_big(&v4(17, &[7; 1400]), 1340, &mut out).unwrap();
        assert_eq!((len, &out[20..22], &out[24..28]), (576, &[3, 4][..], &[0, 0, 5, 0x3c][..]));
        assert_eq!(checksum(&out[20..len]), 0);
        let len = too_big(&v6(17, &[7; 1400]), 1340, &mut out).unwrap();
        assert_eq!((len, &out[40..42], &out[44..48]), (1280, &[2, 0][..], &[0, 0, 5, 0x3c][..]));
        let (source, destination) = ("fd00::99".parse().unwrap(), "fd00::1".parse().unwrap());
        let sum = pseudo_header_v6(source, destination, 1240, 58).add(&out[40..len]).finish();
        assert_eq!(sum, 0);
        assert_eq!(too_big(&v4(1, &[3, 4, 0, 0]), 1340, &mut out), None, "an error");
    }

    #[test]
    fn an_echo_that_is_turned_round_is_read_again() {
        for [ours, theirs] in [["10.0.0.1", "10.0.0.2"], ["fd00::1", "fd00::2"]] {
            let [ours, theirs] = [ours, theirs].map(|text| text.parse::<IpAddr>().unwrap());
            let mut out = [0xee; LONGEST_ECHO_BYTES];
            let len = echo_request(ours, theirs, 5, 0x0123_4567_89ab_cdef, &mut out).unwrap();
            let packet = &mut out[..len];
            let header = IpHeader::parse(packet).unwrap();
            assert_eq!((header.source, header.destination), (ours, theirs));
            assert_eq!(header.total_length, len);
            let start = len - 16;
            match (ours, theirs) {
                (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                    let sum = pseudo_header_v6(ours, theirs, 16, 58).add(&packet[start..]);
                    assert_eq!(sum.finish(), 0);
                }
                _ => assert_eq!((checksum(&packet[..20]), checksum(&packet[20..])), (0, 0)),
            }
            assert_eq!(echo_reply(packet), None, "a request is no reply");
            packet[start] = if ours.is_ipv4() { 0 } else { 129 };
            let expected = Echo { from: ours, sequence: 5, token: 0x0123_4567_89ab_cdef };
            assert_eq!(echo_reply(packet), Some(expected));
            for end in 0..len {
                assert_eq!(echo_reply(&packet[..end]), None, "cut");
            }
        }
        let (v4, v6) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        assert_eq!(echo_request(v4, v6, 0, 0, &mut [0; LONGEST_ECHO_BYTES]), None);
    }

    #[test]
    fn a_long_packet_is_quoted_as_far_as_the_reply_may_go() {
        let long = reply(&v4(17, &[7; 1400])).unwrap();
        assert_eq!(long.len(), 576);
        assert_eq!(long[2..4], 576_u16.to_be_bytes());
        assert_eq!(checksum(&long[20..]), 0);
        assert_eq!(reply(&v6(17, &[7; 1400])).unwrap().len(), 1280);
    }

    #[test]
    fn padding_after_the_packet_is_not_quoted() {
        let mut packet = v4(17, &[7; 8]);
        packet.extend([0xaa; 30]);
        assert_eq!(reply(&packet).unwrap().len(), 28 + 28);
    }

    #[test]
    fn errors_redirects_and_cut_messages_are_not_answered() {
        for kind in 0..=255_u8 {
            let is_error = [3, 4, 5, 11, 12].contains(&kind);
            assert_eq!(reply(&v4(1, &[kind, 0, 0, 0])).is_none(), is_error, "v4 type {kind}");
            let is_error = kind < 128 || kind == 137;
            assert_eq!(reply(&v6(58, &[kind, 0, 0, 0])).is_none(), is_error, "v6 type {kind}");
        }
        assert_eq!(reply(&v4(1, &[])), None);
        assert_eq!(reply(&v6(58, &[])), None);
    }

    #[test]
    fn only_the_first_fragment_is_answered() {
        let mut fragment = v4(17, &[0; 8]);
        fragment[6] = 0x20;
        assert!(reply(&fragment).is_some());
        fragment[7] = 1;
        assert_eq!(reply(&fragment), None);
        assert!(reply(&v6(44, b"\x11\0\0\x01\0\0\0\x07datagram")).is_some());
        assert_eq!(reply(&v6(44, b"\x11\0\0\x08\0\0\0\x07datagram")), None);
    }

    #[test]
    fn errors_behind_extension_headers_are_found() {
        let options = |kind| [&[58, 0, 1, 4, 0, 0, 0, 0, kind][..], &[0; 7]].concat();
        assert!(reply(&v6(60, &options(128))).is_some());
        assert_eq!(reply(&v6(60, &options(1))), None);
        assert_eq!(reply(&v6(0, &options(137))), None);
        assert_eq!(reply(&v6(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(9))), None);
        assert_eq!(reply(&v6(60, &[58, 255, 1, 4, 0, 0, 0, 0])), None);
    }

    #[test]
    fn groups_and_addresses_of_no_single_host_are_not_answered() {
        for address in
            ["0.0.0.0", "127.0.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"]
        {
            let octets = address.parse::<Ipv4Addr>().unwrap().octets();
            let mut packet = v4(17, &[0; 8]);
            packet[12..16].copy_from_slice(&octets);
            assert_eq!(reply(&packet), None, "from {address}");
            let mut packet = v4(17, &[0; 8]);
            packet[16..20].copy_from_slice(&octets);
            assert_eq!(reply(&packet), None, "to {address}");
        }
        for address in ["::", "::1", "ff02::1"] {
            let octets = address.parse::<Ipv6Addr>().unwrap().octets();
            let mut packet = v6(17, &[0; 8]);
            packet[8..24].copy_from_slice(&octets);
            assert_eq!(reply(&packet), None, "from {address}");
            let mut packet = v6(17, &[0; 8]);
            packet[24..40].copy_from_slice(&octets);
            assert_eq!(reply(&packet), None, "to {address}");
        }
    }

    #[test]
    fn no_packet_makes_it_panic() {
        for len in 0..60 {
            for first in [0x40, 0x45, 0x4f, 0x60] {
                for filler in [0, 44, 58, 60, 255] {
                    let mut packet = vec![filler; len];
                    if let Some(byte) = packet.first_mut() {
                        *byte = first;
                    }
                    if let Some(reply) = reply(&packet) {
                        assert!(reply.len() > len);
                    }
                }
            }
        }
    }
}
