//! What of one packet decides with which others it may be merged.

use crate::packet::coalesce::Mergeable;
use crate::packet::flow::{fold, mix};
use crate::wire::checksum::checksum;
use crate::wire::ip::{
    IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP,
};
use crate::wire::transport::{
    ACK, PSH, TCP_CHECKSUM_AT, TCP_FLAGS_AT, TCP_HEADER_BYTES, UDP_CHECKSUM_AT, UDP_HEADER_BYTES,
};

/// A whole packet of TCP or UDP right behind a plain IP header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    /// Hash of addresses, ports and protocol.
    pub flow: u32,
    /// Hash of the addresses, and of the protocol where it stands in every packet: in IPv4.
    pub addresses: u32,
    pub is_v6: bool,
    pub is_tcp: bool,
    /// It may be merged with others of its kind.
    pub is_mergeable: bool,
    /// The packet after it is no part of what it ends.
    pub push: bool,
    /// Bytes of the IP header.
    pub ip_bytes: u8,
    /// Bytes of the transport header.
    pub transport_bytes: u8,
    /// Bytes of payload.
    pub payload: u16,
    /// Of TCP.
    pub sequence: u32,
    pub checksum: u16,
    /// Of IPv4.
    pub id: u16,
    /// The packets of a group may all have this id.
    pub id_may_repeat: bool,
}

impl Segment {
    pub const fn header_bytes(&self) -> usize {
        self.ip_bytes as usize + self.transport_bytes as usize
    }

    /// Where the checksum is in the transport header.
    pub const fn checksum_at(&self) -> usize {
        if self.is_tcp { TCP_CHECKSUM_AT } else { UDP_CHECKSUM_AT }
    }
}

/// A packet at first sight.
#[derive(Clone, Copy, Debug)]
pub enum Sight {
    /// Of no flow that is ever merged.
    Foreign,
    /// Perhaps of a flow that is merged, but nobody can tell which: a fragment, or behind options or
    /// extension headers.
    Unclear {
        addresses: u32,
    },
    Segment(Segment),
}

impl Sight {
    pub fn of(packet: &[u8], mergeable: Mergeable) -> Self {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => Self::of_v4(packet, mergeable),
            Some(6) => Self::of_v6(packet, mergeable),
            _ => Self::Foreign,
        }
    }

    fn of_v4(packet: &[u8], mergeable: Mergeable) -> Self {
        let Some((header, segment)) = packet.split_first_chunk::<IPV4_HEADER_BYTES>() else {
            return Self::Foreign;
        };
        let protocol = header[9];
        if !is_wanted(protocol, mergeable) {
            return Self::Foreign;
        }
        let addresses = fold(u64::from(protocol), &header[12..]);
        // Reserved bit, more fragments, or an offset.
        let is_fragment = get(header, 6) & 0xbfff != 0;
        if header[0] != 0x45 || is_fragment || usize::from(get(header, 2)) != packet.len() {
            return Self::Unclear { addresses: mix(addresses) };
        }
        let parsed = Segment {
            ip_bytes: IPV4_HEADER_BYTES as u8,
            id: get(header, 4),
            id_may_repeat: header[6] & 0x40 != 0,
            // The kernel drops what has a wrong one; merging would mend it.
            is_mergeable: checksum(header) == 0,
            ..Segment::default()
        };
        parsed.with_transport(segment, protocol, addresses)
    }

    fn of_v6(packet: &[u8], mergeable: Mergeable) -> Self {
        let Some((header, segment)) = packet.split_first_chunk::<IPV6_HEADER_BYTES>() else {
            return Self::Foreign;
        };
        let protocol = header[6];
        let is_transport = matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_ICMPV6);
        if is_transport && !is_wanted(protocol, mergeable) {
            return Self::Foreign;
        }
        let addresses = fold(0, &header[8..]);
        if !is_transport || usize::from(get(header, 4)) != segment.len() {
            return Self::Unclear { addresses: mix(addresses) };
        }
        let parsed = Segment {
            ip_bytes: IPV6_HEADER_BYTES as u8,
            is_v6: true,
            id_may_repeat: true,
            is_mergeable: true,
            ..Segment::default()
        };
        parsed.with_transport(segment, protocol, addresses)
    }
}

const fn is_wanted(protocol: u8, mergeable: Mergeable) -> bool {
    match protocol {
        PROTOCOL_TCP => mergeable.tcp,
        PROTOCOL_UDP => mergeable.udp,
        _ => false,
    }
}

impl Segment {
    /// Adds what the transport header at the start of `segment` says.
    fn with_transport(mut self, segment: &[u8], protocol: u8, addresses: u64) -> Sight {
        let unclear = Sight::Unclear { addresses: mix(addresses) };
        self.is_tcp = protocol == PROTOCOL_TCP;
        let header_bytes = if self.is_tcp {
            let Some(header) = segment.first_chunk::<TCP_HEADER_BYTES>() else { return unclear };
            let header_bytes = usize::from(header[12] >> 4) * 4;
            if header_bytes < TCP_HEADER_BYTES {
                return unclear;
            }
            let flags = header[TCP_FLAGS_AT];
            self.push = flags & PSH != 0;
            self.sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            self.checksum = get(header, TCP_CHECKSUM_AT);
            self.is_mergeable &= flags & !PSH == ACK && header[12] & 0x0f == 0;
            header_bytes
        } else {
            let Some(header) = segment.first_chunk::<UDP_HEADER_BYTES>() else { return unclear };
            self.checksum = get(header, UDP_CHECKSUM_AT);
            self.is_mergeable &= self.checksum != 0 && usize::from(get(header, 4)) == segment.len();
            UDP_HEADER_BYTES
        };
        let Some(payload) = segment.len().checked_sub(header_bytes) else { return unclear };
        self.transport_bytes = header_bytes as u8;
        // The length field of the IP header has counted it.
        self.payload = payload as u16;
        self.is_mergeable &= payload > 0;
        self.addresses = mix(addresses);
        self.flow = mix(fold(addresses ^ u64::from(protocol), &segment[..4]));
        Sight::Segment(self)
    }
}

/// Whether two packets have the same addresses, ports and protocol. Both are of a [`Segment`].
pub fn is_same_flow(a: &[u8], b: &[u8]) -> bool {
    if a[0] >> 4 != b[0] >> 4 {
        return false;
    }
    match b[0] >> 4 {
        4 => a[9] == b[9] && a[12..24] == b[12..24],
        _ => a[6] == b[6] && a[8..44] == b[8..44],
    }
}

/// Whether the headers of two packets of a flow are equal but for lengths, checksums, ids, sequence
/// numbers and PSH. `segment` is of the second.
pub fn is_same_header(a: &[u8], b: &[u8], segment: &Segment) -> bool {
    let same_ip = if segment.is_v6 {
        // Version, traffic class, flow label; hop limit.
        a[..4] == b[..4] && a[7] == b[7]
    } else {
        // Traffic class; fragmentation and time to live.
        a[1] == b[1] && a[6..9] == b[6..9]
    };
    if !same_ip || !segment.is_tcp {
        return same_ip;
    }
    let at = usize::from(segment.ip_bytes);
    let end = segment.header_bytes();
    // Acknowledgement and data offset; window; urgent pointer and options. With equal offsets both
    // headers have `end` bytes.
    a[at + 8..at + 13] == b[at + 8..at + 13]
        && a[at + 14..at + 16] == b[at + 14..at + 16]
        && a[at + 18..end] == b[at + 18..end]
}

fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
