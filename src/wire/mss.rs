//! Lowers the maximum segment size that a TCP SYN announces. [RFC 9293 §3.7.1] [RFC 6691]
//!
//! Whoever receives the SYN then sends no segment that is larger, so that a path that is narrower
//! than the link of its sender does not stall where the ICMP that would tell is filtered. Both ends
//! announce, and each announcement rules the other direction: a tunnel that lowers only what leaves
//! lets what comes back be too large.
//!
//! Only ever lowers. What contradicts itself (an option that reaches beyond its header, a header
//! beyond its packet) is left as it is, for its receiver to judge. Allocates nothing, and must not
//! panic on any input.

use std::ops::Range;

use crate::wire::checksum;
use crate::wire::ip::{IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, PROTOCOL_TCP};
use crate::wire::transport::{SYN, TCP_CHECKSUM_AT, TCP_FLAGS_AT, TCP_HEADER_BYTES};

/// What a host must take at least, less both headers: no announcement is lowered beyond. Bytes.
/// [RFC 9293 §3.7.1] [RFC 8200 §5]
pub const LOWEST_MSS_V4: u16 = 536;
pub const LOWEST_MSS_V6: u16 = 1220;

/// More headers in a row than this are no packet whose sender expects anything of us.
const MAX_EXTENSIONS: usize = 8;

/// The largest segment of each family, in bytes without headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub v4: u16,
    pub v6: u16,
}

impl Limits {
    /// What fits packets of `mtu` bytes, if they have no options.
    pub fn of_mtu(mtu: u32) -> Self {
        let without = |headers: usize, lowest: u16| {
            let rest = (mtu as usize).saturating_sub(headers + TCP_HEADER_BYTES);
            u16::try_from(rest).unwrap_or(u16::MAX).max(lowest)
        };
        Self {
            v4: without(IPV4_HEADER_BYTES, LOWEST_MSS_V4),
            v6: without(IPV6_HEADER_BYTES, LOWEST_MSS_V6),
        }
    }

    /// These, but at most `bytes`.
    #[must_use]
    pub fn at_most(self, bytes: u16) -> Self {
        Self { v4: self.v4.min(bytes), v6: self.v6.min(bytes) }
    }
}

/// Whether [`clamp`] is worth a call; a SYN always is. One comparison for most packets.
#[inline]
pub fn may_be_syn(packet: &[u8]) -> bool {
    match packet {
        [0x45, _, _, _, _, _, _, _, _, protocol, ..] => {
            *protocol == PROTOCOL_TCP
                && packet
                    .get(IPV4_HEADER_BYTES + TCP_FLAGS_AT)
                    .is_some_and(|flags| flags & SYN != 0)
        }
        [0x60..=0x6f, _, _, _, _, _, PROTOCOL_TCP, ..] => {
            packet.get(IPV6_HEADER_BYTES + TCP_FLAGS_AT).is_some_and(|flags| flags & SYN != 0)
        }
        [0x60..=0x6f, _, _, _, _, _, next, ..] => is_extension(*next),
        [0x46..=0x4f, _, _, _, _, _, _, _, _, protocol, ..] => *protocol == PROTOCOL_TCP,
        _ => false,
    }
}

/// What becomes of the TCP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It covers the segment, and is mended.
    Whole,
    /// It holds the sum of the pseudo header, and is completed by somebody later.
    Partial,
}

/// Lowers the MSS that the SYN in `packet` announces, if it is above `limits`; true if it was.
///
/// A SYN without the option stays without: what its receiver takes for granted is no more than
/// anybody must take. `packet` begins with its IP header and may be followed by padding.
pub fn clamp(packet: &mut [u8], limits: Limits, checksum: Checksum) -> bool {
    let Some((segment, limit)) = syn(packet, limits) else { return false };
    let segment = &mut packet[segment];
    let header_bytes = usize::from(segment[12] >> 4) * 4;
    let mut at = TCP_HEADER_BYTES;
    let mut lowered = false;
    while let Some(option) = TcpOption::at(segment, at, header_bytes) {
        at = option.end;
        if !option.is_mss {
            continue;
        }
        let place = option.end - 2;
        let old = u16::from_be_bytes([segment[place], segment[place + 1]]);
        if old <= limit {
            continue;
        }
        segment[place..place + 2].copy_from_slice(&limit.to_be_bytes());
        if checksum == Checksum::Whole {
            mend(segment, place, old, limit);
        }
        lowered = true;
    }
    lowered
}

/// Mends the checksum after the two bytes at `place` went from `old` to `new`. At an odd place they
/// are halves of two words: the sum sees them with their bytes swapped. [RFC 1071 §2 (B)]
fn mend(segment: &mut [u8], place: usize, old: u16, new: u16) {
    let field = &mut segment[TCP_CHECKSUM_AT..TCP_CHECKSUM_AT + 2];
    let sum = u16::from_be_bytes([field[0], field[1]]);
    let sum = if place.is_multiple_of(2) {
        checksum::update(sum, old, new)
    } else {
        checksum::update(sum, old.swap_bytes(), new.swap_bytes())
    };
    field.copy_from_slice(&sum.to_be_bytes());
}

/// Where in `packet` the segment of a SYN is whose options are well-formed, and how large segments
/// of its family may be.
fn syn(packet: &[u8], limits: Limits) -> Option<(Range<usize>, u16)> {
    let segment = segment(packet)?;
    let limit = if packet.first()? >> 4 == 4 { limits.v4 } else { limits.v6 };
    let bytes = packet.get(segment.clone())?;
    let header: &[u8; TCP_HEADER_BYTES] = bytes.first_chunk()?;
    let header_bytes = usize::from(header[12] >> 4) * 4;
    if header[TCP_FLAGS_AT] & SYN == 0
        || header_bytes < TCP_HEADER_BYTES
        || bytes.len() < header_bytes
    {
        return None;
    }
    let mut at = TCP_HEADER_BYTES;
    while let Some(option) = TcpOption::at(bytes, at, header_bytes) {
        at = option.end;
    }
    // Options end with their header, or with the option that says so.
    let is_whole = at == header_bytes || bytes[at] == END_OF_OPTIONS;
    is_whole.then_some((segment, limit))
}

/// Where in `packet` its TCP segment is, as far as it is there; `None` if the packet is none, nor the
/// first fragment of one. It may be shorter than a header.
pub fn segment(packet: &[u8]) -> Option<Range<usize>> {
    match packet.first()? >> 4 {
        4 => segment_v4(packet),
        6 => segment_v6(packet),
        _ => None,
    }
}

fn segment_v4(packet: &[u8]) -> Option<Range<usize>> {
    let header: &[u8; IPV4_HEADER_BYTES] = packet.first_chunk()?;
    let header_bytes = usize::from(header[0] & 0xf) * 4;
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let is_segment = header[9] == PROTOCOL_TCP && fragment_offset == 0;
    (is_segment && header_bytes >= IPV4_HEADER_BYTES && header_bytes <= total_length)
        .then(|| header_bytes..total_length.min(packet.len()))
        .filter(|segment| segment.start <= segment.end)
}

/// The same, behind extension headers. [RFC 8200 §4]
fn segment_v6(packet: &[u8]) -> Option<Range<usize>> {
    let header: &[u8; IPV6_HEADER_BYTES] = packet.first_chunk()?;
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let end = packet.len().min(IPV6_HEADER_BYTES + payload);
    let (mut next, mut at) = (header[6], IPV6_HEADER_BYTES);
    for _ in 0..MAX_EXTENSIONS {
        if next == PROTOCOL_TCP {
            return (at <= end).then_some(at..end);
        }
        if !is_extension(next) {
            return None;
        }
        let extension = packet.get(at..end)?.first_chunk::<8>()?;
        let length = if next == FRAGMENT {
            if u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0 {
                return None;
            }
            8
        } else {
            8 + 8 * usize::from(extension[1])
        };
        next = extension[0];
        at += length;
    }
    None
}

const FRAGMENT: u8 = 44;

/// Hop-by-hop options, routing, fragment, destination options: behind these there may be a segment
/// that can be read. Others (authentication, encryption) would not forgive a change.
const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | FRAGMENT | 60)
}

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_BYTES: u8 = 4;

/// One option of a TCP header.
struct TcpOption {
    /// Where the next one begins.
    end: usize,
    is_mss: bool,
}

impl TcpOption {
    /// The option at `at`; `None` at the end of the options, or if there is none that fits.
    fn at(segment: &[u8], at: usize, header_bytes: usize) -> Option<Self> {
        let options = segment.get(at..header_bytes)?;
        let (end, is_mss) = match *options {
            [NO_OPERATION, ..] => (at + 1, false),
            [END_OF_OPTIONS, ..] => return None,
            [kind, length, ..] if length >= 2 => {
                (at + usize::from(length), kind == MSS && length == MSS_BYTES)
            }
            _ => return None,
        };
        (end <= header_bytes).then_some(Self { end, is_mss })
    }
}

#[cfg(test)]
mod tests;
