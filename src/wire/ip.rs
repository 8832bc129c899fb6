//! The parts of IPv4 and IPv6 headers that a tunnel looks at. [RFC 791] [RFC 8200]
//!
//! Parses nothing beyond what routing, trimming and congestion marks need, allocates nothing, and
//! must not panic on any input.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::checksum;
use crate::wire::transport::UDP_HEADER_BYTES;

pub const IPV4_HEADER_BYTES: usize = 20;
pub const IPV6_HEADER_BYTES: usize = 40;

pub const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_TCP: u8 = 6;
pub const PROTOCOL_UDP: u8 = 17;
pub const PROTOCOL_ICMPV6: u8 = 58;
pub const IPV6_FRAGMENT_HEADER: u8 = 44;
pub const IPV6_FRAGMENT_HEADER_BYTES: usize = 8;

/// The explicit congestion notification field. [RFC 3168 §5]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    NotEct = 0,
    Ect1 = 1,
    Ect0 = 2,
    Ce = 3,
}

impl Ecn {
    /// The low two bits of a TOS or traffic class byte.
    pub const fn from_traffic_class(byte: u8) -> Self {
        match byte & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// What an inner packet carries on after the tunnel; `None`: it must be dropped.
    /// [RFC 6040 §4.2, figure 4]
    pub const fn decapsulate(inner: Self, outer: Self) -> Option<Self> {
        match (inner, outer) {
            (Self::NotEct, Self::Ce) => None,
            (Self::NotEct, Self::NotEct | Self::Ect0 | Self::Ect1) => Some(Self::NotEct),
            (_, Self::Ce) => Some(Self::Ce),
            (Self::Ect0, Self::Ect1) => Some(Self::Ect1),
            (Self::Ect0 | Self::Ect1 | Self::Ce, _) => Some(inner),
        }
    }
}

/// What the fixed part of an IP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Bytes of the whole packet, header included, as the header claims; at least the header.
    pub total_length: usize,
    /// TOS or traffic class.
    pub traffic_class: u8,
}

impl IpHeader {
    /// Reads the header at the start of `packet`.
    ///
    /// `None` if the version is neither 4 nor 6, the fixed header is cut, or the header claims
    /// less than itself. Whether `packet` holds all of `total_length` is for the caller to see.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet.first_chunk()?),
            6 => Some(Self::parse_v6(packet.first_chunk()?)),
            _ => None,
        }
    }

    pub const fn ecn(&self) -> Ecn {
        Ecn::from_traffic_class(self.traffic_class)
    }

    fn parse_v4(header: &[u8; IPV4_HEADER_BYTES]) -> Option<Self> {
        let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if total_length < IPV4_HEADER_BYTES {
            return None;
        }
        Some(Self {
            source: IpAddr::V4(Ipv4Addr::new(header[12], header[13], header[14], header[15])),
            destination: IpAddr::V4(Ipv4Addr::new(header[16], header[17], header[18], header[19])),
            total_length,
            traffic_class: header[1],
        })
    }

    fn parse_v6(header: &[u8; IPV6_HEADER_BYTES]) -> Self {
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&header[at..at + 16]);
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
        Self {
            source: address(8),
            destination: address(24),
            total_length: IPV6_HEADER_BYTES + payload,
            traffic_class: (header[0] << 4) | (header[1] >> 4),
        }
    }
}

/// What a UDP packet, or its first fragment, carries, and between which ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpDatagram<'a> {
    pub source_port: u16,
    pub destination_port: u16,
    /// As far as it is in the packet.
    pub payload: &'a [u8],
}

/// Reads a UDP packet, or the first fragment of one.
///
/// `None` for anything else. Of the IPv6 extension headers only the fragment header is known: it is
/// the one that a host puts in front of its own datagrams.
pub fn udp_datagram(packet: &[u8]) -> Option<UdpDatagram<'_>> {
    let (protocol, fragment_offset, header_bytes) = match packet.first()? >> 4 {
        4 => {
            let header: &[u8; IPV4_HEADER_BYTES] = packet.first_chunk()?;
            let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
            (header[9], offset, usize::from(header[0] & 0xf) * 4)
        }
        6 => {
            let header: &[u8; IPV6_HEADER_BYTES] = packet.first_chunk()?;
            if header[6] == IPV6_FRAGMENT_HEADER {
                let (_, rest) = packet.split_at_checked(IPV6_HEADER_BYTES)?;
                let fragment: &[u8; IPV6_FRAGMENT_HEADER_BYTES] = rest.first_chunk()?;
                let offset = u16::from_be_bytes([fragment[2], fragment[3]]) >> 3;
                (fragment[0], offset, IPV6_HEADER_BYTES + IPV6_FRAGMENT_HEADER_BYTES)
            } else {
                (header[6], 0, IPV6_HEADER_BYTES)
            }
        }
        _ => return None,
    };
    if protocol != PROTOCOL_UDP || fragment_offset != 0 {
        return None;
    }
    let (_, datagram) = packet.split_at_checked(header_bytes)?;
    let (header, rest) = datagram.split_first_chunk::<UDP_HEADER_BYTES>()?;
    let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let length = usize::from(field(4)).saturating_sub(UDP_HEADER_BYTES).min(rest.len());
    Some(UdpDatagram {
        source_port: field(0),
        destination_port: field(2),
        payload: &rest[..length],
    })
}

/// Writes `ecn` into the header at the start of `packet`, and mends an IPv4 header checksum.
///
/// Does nothing to what [`IpHeader::parse`] refuses.
pub fn set_ecn(packet: &mut [u8], ecn: Ecn) {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= IPV4_HEADER_BYTES => {
            let old = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] = (packet[1] & !3) | ecn.bits();
            let new = u16::from_be_bytes([packet[0], packet[1]]);
            let sum = u16::from_be_bytes([packet[10], packet[11]]);
            packet[10..12].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
        }
        Some(6) if packet.len() >= IPV6_HEADER_BYTES => {
            packet[1] = (packet[1] & !0x30) | (ecn.bits() << 4);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_from_udp_and_from_first_fragments_only() {
        fn read(packet: &[u8]) -> Option<(u16, u16, &[u8])> {
            udp_datagram(packet)
                .map(|found| (found.source_port, found.destination_port, found.payload))
        }
        let mut v4 = [0; 36];
        v4[0] = 0x46;
        v4[9] = PROTOCOL_UDP;
        v4[24..35].copy_from_slice(&[1, 2, 3, 4, 0, 10, 0, 0, 8, 9, 10]);
        assert_eq!(read(&v4), Some((0x0102, 0x0304, &[8, 9][..])), "behind options");
        assert_eq!(read(&v4[..33]), Some((0x0102, 0x0304, &[8][..])), "cut");
        assert_eq!(read(&v4[..31]), None);
        v4[7] = 1;
        assert_eq!(read(&v4), None, "a later fragment");
        let mut v6 = [0; 58];
        v6[0] = 0x60;
        v6[6] = PROTOCOL_UDP;
        v6[40..50].copy_from_slice(&[5, 6, 7, 8, 0, 9, 0, 0, 7, 7]);
        assert_eq!(read(&v6), Some((0x0506, 0x0708, &[7][..])));
        v6[6] = IPV6_FRAGMENT_HEADER;
        v6[40..48].copy_from_slice(&[PROTOCOL_UDP, 0, 0, 1, 0, 0, 0, 0]);
        v6[48..58].copy_from_slice(&[1, 2, 3, 4, 5, 220, 0, 0, 8, 9]);
        assert_eq!(read(&v6), Some((0x0102, 0x0304, &[8, 9][..])), "more fragments follow");
        v6[43] = 9;
        assert_eq!(read(&v6), None, "a later fragment");
        v6[6] = 6;
        assert_eq!(read(&v6), None, "TCP");
    }

    fn v4(tos: u8) -> [u8; 28] {
        let mut packet = [0; 28];
        packet[..20]
            .copy_from_slice(b"\x45\0\0\x1c\x12\x34\x40\0\x40\x11\0\0\x0a\x0a\0\x01\x0a\x0a\0\x02");
        packet[1] = tos;
        let sum = checksum::checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn v6(class: u8) -> [u8; 48] {
        let mut packet = [0; 48];
        packet[0] = 0x60 | (class >> 4);
        packet[1] = (class << 4) | 0x0a;
        packet[2..8].copy_from_slice(b"\xbc\xde\0\x08\x11\x40");
        packet[23] = 1;
        packet[39] = 2;
        packet
    }

    #[test]
    fn both_versions_are_read() {
        let header = IpHeader::parse(&v4(0xb9)).unwrap();
        assert_eq!(header.source, "10.10.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(header.destination, "10.10.0.2".parse::<IpAddr>().unwrap());
        assert_eq!(
            (header.total_length, header.traffic_class, header.ecn()),
            (28, 0xb9, Ecn::Ect1)
        );
        let header = IpHeader::parse(&v6(0xb9)).unwrap();
        assert_eq!(header.source, "::1".parse::<IpAddr>().unwrap());
        assert_eq!(header.destination, "::2".parse::<IpAddr>().unwrap());
        assert_eq!(
            (header.total_length, header.traffic_class, header.ecn()),
            (48, 0xb9, Ecn::Ect1)
        );
    }

    #[test]
    fn cut_or_foreign_headers_are_refused() {
        for len in 0..20 {
            assert_eq!(IpHeader::parse(&v4(0)[..len]), None, "{len}");
        }
        for len in 0..40 {
            assert_eq!(IpHeader::parse(&v6(0)[..len]), None, "{len}");
        }
        for version in (0..16).filter(|v| ![4, 6].contains(v)) {
            assert_eq!(IpHeader::parse(&[version << 4; 64]), None, "{version}");
        }
        let mut short = v4(0);
        short[3] = 19;
        assert_eq!(IpHeader::parse(&short), None);
    }

    #[test]
    fn a_new_mark_keeps_the_rest_of_the_class_and_a_right_checksum() {
        for ecn in [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce] {
            for class in 0..=255 {
                let mut packet = v4(class);
                set_ecn(&mut packet, ecn);
                assert_eq!(packet, v4((class & !3) | ecn.bits()));
                let mut packet = v6(class);
                set_ecn(&mut packet, ecn);
                assert_eq!(packet, v6((class & !3) | ecn.bits()));
            }
        }
    }

    #[test]
    fn decapsulation_follows_figure_4_of_rfc_6040() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        let rows = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
        ];
        for (inner, row) in rows {
            for (outer, expected) in [NotEct, Ect0, Ect1, Ce].into_iter().zip(row) {
                assert_eq!(Ecn::decapsulate(inner, outer), expected, "{inner:?} in {outer:?}");
            }
        }
    }
}
