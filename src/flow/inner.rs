//! Packets of the inside, taken apart as far as a flow needs it, and headers for those that go back.
//! [RFC 791 §3.1] [RFC 8200 §3, §4]
//!
//! Must not panic on any input.

use std::net::{IpAddr, SocketAddr};

use crate::flow::policy::Service;
use crate::wire::checksum::{Sum, checksum, pseudo_header_v6, update};
use crate::wire::ip::{
    IPV4_HEADER_BYTES, IPV6_FRAGMENT_HEADER, IPV6_FRAGMENT_HEADER_BYTES, IPV6_HEADER_BYTES,
    IpHeader, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP,
};
use crate::wire::transport::{ACK, SYN, TCP_FLAGS_AT, UDP_CHECKSUM_AT, UDP_HEADER_BYTES};

/// Hops of what we send ourselves.
pub const HOPS: u8 = 64;

/// More extension headers in a row than this are no traffic.
const MAX_EXTENSIONS: usize = 8;

/// One packet of a peer's.
#[derive(Clone, Copy, Debug)]
pub struct Inner<'a> {
    /// Without padding.
    pub packet: &'a [u8],
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Of `payload`.
    pub protocol: u8,
    /// How many hops it may still make.
    pub hops: u8,
    /// Whether routers may cut it.
    pub may_be_cut: bool,
    pub fragment: Option<Fragment>,
    /// What is behind all headers of IP.
    pub payload: &'a [u8],
}

/// Which part of a packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub id: u32,
    /// Bytes.
    pub offset: usize,
    /// It is not the last.
    pub more: bool,
}

/// What a packet is for, as far as it says so. Nothing of it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// A port of its destination's.
    Port(Service),
    /// An error of ICMP about a segment of TCP from here.
    About(SocketAddr),
    /// A port, perhaps, that is in another fragment or behind headers that are not read here.
    Hidden,
    /// No port; also a fragment that is nothing without the first.
    Other,
}

impl<'a> Inner<'a> {
    /// `None` if a header is cut or contradicts itself, or if it asks for a way by other hosts.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let header = IpHeader::parse(packet)?;
        let packet = packet.get(..header.total_length)?;
        let IpHeader { source, destination, .. } = header;
        if source.is_ipv4() {
            let header_bytes = usize::from(packet[0] & 0xf) * 4;
            let payload = packet.get(header_bytes..).filter(|_| header_bytes >= 20)?;
            let flags = u16::from_be_bytes([packet[6], packet[7]]);
            let (offset, more) = (usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0);
            let id = u16::from_be_bytes([packet[4], packet[5]]);
            let fragment = Fragment { id: id.into(), offset, more };
            return Some(Self {
                packet,
                source,
                destination,
                protocol: packet[9],
                hops: packet[8],
                may_be_cut: flags & 0x4000 == 0,
                fragment: (offset != 0 || more).then_some(fragment),
                payload,
            });
        }
        let (mut protocol, mut payload) = (packet[6], packet.get(IPV6_HEADER_BYTES..)?);
        let mut fragment = None;
        for _ in 0..MAX_EXTENSIONS {
            let length = match protocol {
                // Hop-by-hop options, destination options.
                0 | 60 => 8 + 8 * usize::from(*payload.get(1)?),
                // Routing: of use only at the end of the way. [RFC 5095]
                43 if *payload.get(3)? == 0 => 8 + 8 * usize::from(*payload.get(1)?),
                43 => return None,
                IPV6_FRAGMENT_HEADER => {
                    let head: &[u8; IPV6_FRAGMENT_HEADER_BYTES] = payload.first_chunk()?;
                    let field = u16::from_be_bytes([head[2], head[3]]);
                    let (offset, more) = (usize::from(field & !7), field & 1 != 0);
                    let id = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
                    // One that is whole, too, is a packet by itself. [RFC 6946]
                    if offset != 0 || more {
                        fragment = Some(Fragment { id, offset, more });
                    }
                    IPV6_FRAGMENT_HEADER_BYTES
                }
                _ => break,
            };
            protocol = *payload.first()?;
            payload = payload.get(length..)?;
            if fragment.is_some() {
                break;
            }
        }
        Some(Self {
            packet,
            source,
            destination,
            protocol,
            hops: packet[7],
            may_be_cut: false,
            fragment,
            payload,
        })
    }

    /// The ports and the content of a UDP packet whose checksum is right.
    pub fn udp(&self) -> Option<(u16, u16, &'a [u8])> {
        let header: &[u8; UDP_HEADER_BYTES] = self.payload.first_chunk()?;
        let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let datagram = self.payload.get(..usize::from(field(4)))?;
        let content = datagram.get(UDP_HEADER_BYTES..)?;
        // Over IPv4 there need not be one.
        let has_checksum = field(6) != 0 || self.source.is_ipv6();
        let sum = pseudo_header(self.source, self.destination, datagram.len(), PROTOCOL_UDP);
        let is_right = !has_checksum || sum.add(datagram).finish() == 0;
        let ports = (field(0), field(2));
        (is_right && ports.0 != 0 && ports.1 != 0).then_some((ports.0, ports.1, content))
    }

    /// The message of an ICMP packet whose checksum is right.
    pub fn icmp(&self) -> Option<&'a [u8; 8]> {
        let sum = match self.source {
            IpAddr::V4(_) => Sum::new(),
            IpAddr::V6(_) => {
                let length = self.payload.len();
                pseudo_header(self.source, self.destination, length, PROTOCOL_ICMPV6)
            }
        };
        self.payload.first_chunk().filter(|_| sum.add(self.payload).finish() == 0)
    }

    /// What it is for.
    pub fn aim(&self) -> Aim {
        if self.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Aim::Other;
        }
        match (self.protocol, self.payload) {
            (PROTOCOL_TCP, &[_, _, high, low, ..]) => {
                Aim::Port(Service::Tcp(u16::from_be_bytes([high, low])))
            }
            (PROTOCOL_UDP, &[_, _, high, low, ..]) => {
                Aim::Port(Service::Udp(u16::from_be_bytes([high, low])))
            }
            (PROTOCOL_TCP | PROTOCOL_UDP, _) => Aim::Hidden,
            // Errors have these types. [RFC 792] [RFC 4443 §2.1]
            (PROTOCOL_ICMP, [3 | 11 | 12, ..]) | (PROTOCOL_ICMPV6, [0..128, ..]) => {
                let quoted = self.payload.get(8..).and_then(Quoted::parse);
                quoted.map_or(Aim::Other, |quoted| Aim::About(quoted.source))
            }
            // Those that `parse` passes over, where it has not.
            (0 | 43 | IPV6_FRAGMENT_HEADER | 60, _) if self.source.is_ipv6() => Aim::Hidden,
            _ => Aim::Other,
        }
    }

    /// Whether it may be the first of a conversation. Of TCP that is a SYN alone; what a fragment says
    /// the next may say otherwise. [RFC 3128]
    pub fn may_open(&self) -> bool {
        let is_segment = self.protocol == PROTOCOL_TCP && self.fragment.is_none();
        let flags = self.payload.get(TCP_FLAGS_AT).filter(|_| is_segment);
        flags.is_none_or(|flags| flags & (SYN | ACK) == SYN)
    }
}

/// Writes the answer to an echo `request` into `packet`, which has its length and no options.
pub fn answer_echo(packet: &mut [u8], request: &Inner<'_>, id: u16) -> Option<()> {
    let is_v4 = request.source.is_ipv4();
    let message = packet.get_mut(ip_header_bytes(is_v4)..)?;
    message.copy_from_slice(request.payload);
    message[0] = if is_v4 { 0 } else { 129 };
    let identifier = u16::from_be_bytes([message[4], message[5]]);
    write_echo(packet, request.destination, request.source, identifier, id)
}

/// The start of a segment of ours that somebody quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub sequence: u32,
}

impl Quoted {
    /// Reads what is quoted of a packet, most often its headers alone; `None` if that is no TCP of ours,
    /// which has neither options nor extension headers of IP.
    pub fn parse(quote: &[u8]) -> Option<Self> {
        let ip = IpHeader::parse(quote)?;
        let protocol = if ip.source.is_ipv4() { quote[9] } else { quote[6] };
        let segment = quote.get(ip_header_bytes(ip.source.is_ipv4())..)?;
        let [s0, s1, d0, d1, sequence @ ..] = segment.first_chunk::<8>()?;
        (protocol == PROTOCOL_TCP).then_some(Self {
            source: SocketAddr::new(ip.source, u16::from_be_bytes([*s0, *s1])),
            destination: SocketAddr::new(ip.destination, u16::from_be_bytes([*d0, *d1])),
            sequence: u32::from_be_bytes(*sequence),
        })
    }
}

/// Of a TCP or UDP packet; of an IPv4 one, too, it is the same sum over fewer zeros.
fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize, protocol: u8) -> Sum {
    // Lossless: a packet has at most 65,575 bytes.
    let length = length as u32;
    match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            pseudo_header_v6(source, destination, length, protocol)
        }
        (IpAddr::V4(source), IpAddr::V4(destination)) => Sum::new()
            .add(&source.octets())
            .add(&destination.octets())
            .add_u32(length)
            .add_u32(protocol.into()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Sum::new(),
    }
}

/// Bytes of an IP header of this family, as [`write_ip`] writes it.
pub const fn ip_header_bytes(is_v4: bool) -> usize {
    if is_v4 { IPV4_HEADER_BYTES } else { IPV6_HEADER_BYTES }
}

/// Writes the IP header of `packet`, which is as long as the packet, with a checksum. Routers may cut
/// it.
///
/// Writes nothing if the addresses are not of one family or `packet` is shorter than the header or
/// longer than any packet.
pub fn write_ip(
    packet: &mut [u8],
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u16,
) -> Option<()> {
    let length = u16::try_from(packet.len()).ok()?;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = packet.first_chunk_mut::<IPV4_HEADER_BYTES>()?;
            header.fill(0);
            header[0] = 0x45;
            header[2..4].copy_from_slice(&length.to_be_bytes());
            header[4..6].copy_from_slice(&id.to_be_bytes());
            header[8] = HOPS;
            header[9] = protocol;
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            let sum = checksum(header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = packet.first_chunk_mut::<IPV6_HEADER_BYTES>()?;
            let payload = length - IPV6_HEADER_BYTES as u16;
            header.fill(0);
            header[0] = 0x60;
            header[4..6].copy_from_slice(&payload.to_be_bytes());
            header[6] = protocol;
            header[7] = HOPS;
            header[8..24].copy_from_slice(&source.octets());
            header[24..40].copy_from_slice(&destination.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    }
    Some(())
}

/// Writes both headers of the UDP `packet`, whose content is in place behind them.
pub fn write_udp(
    packet: &mut [u8],
    source: SocketAddr,
    destination: SocketAddr,
    id: u16,
) -> Option<()> {
    write_udp_headers(packet, source, destination, id)?;
    let datagram = packet.get_mut(ip_header_bytes(source.is_ipv4())..)?;
    let sum = pseudo_header(source.ip(), destination.ip(), datagram.len(), PROTOCOL_UDP);
    let sum = match sum.add(datagram).finish() {
        // Zero would say that there is none.
        0 => u16::MAX,
        sum => sum,
    };
    datagram[UDP_CHECKSUM_AT..UDP_CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// As [`write_udp`], without a checksum.
pub fn write_udp_headers(
    packet: &mut [u8],
    source: SocketAddr,
    destination: SocketAddr,
    id: u16,
) -> Option<()> {
    write_ip(packet, source.ip(), destination.ip(), PROTOCOL_UDP, id)?;
    let datagram = packet.get_mut(ip_header_bytes(source.is_ipv4())..)?;
    let length = u16::try_from(datagram.len()).ok()?;
    let header = datagram.first_chunk_mut::<UDP_HEADER_BYTES>()?;
    header[..2].copy_from_slice(&source.port().to_be_bytes());
    header[2..4].copy_from_slice(&destination.port().to_be_bytes());
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6..8].fill(0);
    Some(())
}

/// Writes the IP header of an ICMP `packet` whose message is in place behind it, and the identifier and
/// the checksum of that.
pub fn write_echo(
    packet: &mut [u8],
    source: IpAddr,
    destination: IpAddr,
    identifier: u16,
    id: u16,
) -> Option<()> {
    let is_v4 = source.is_ipv4();
    let protocol = if is_v4 { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
    write_ip(packet, source, destination, protocol, id)?;
    let message = packet.get_mut(ip_header_bytes(is_v4)..).filter(|message| message.len() >= 8)?;
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[2..4].fill(0);
    let sum = match is_v4 {
        true => Sum::new(),
        false => pseudo_header(source, destination, message.len(), PROTOCOL_ICMPV6),
    };
    let sum = sum.add(message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// The start of the UDP packet between these two of whose content `quoted` is known.
pub fn quote_udp(source: SocketAddr, destination: SocketAddr, quoted: &[u8]) -> Option<Vec<u8>> {
    let headers = ip_header_bytes(source.is_ipv4()) + UDP_HEADER_BYTES;
    let mut packet = vec![0; headers + quoted.len()];
    packet[headers..].copy_from_slice(quoted);
    write_udp(&mut packet, source, destination, 0)?;
    Some(packet)
}

/// The start of the ICMP packet between these two whose message begins with what is `quoted`, but for
/// its identifier.
pub fn quote_echo(
    source: IpAddr,
    destination: IpAddr,
    identifier: u16,
    quoted: &[u8],
) -> Option<Vec<u8>> {
    let mut packet = vec![0; ip_header_bytes(source.is_ipv4())];
    packet.extend(renamed(quoted, identifier)?);
    let protocol = if source.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
    write_ip(&mut packet, source, destination, protocol, 0)?;
    Some(packet)
}

/// The start of an echo with another identifier. The checksum is over what is not there as well.
pub fn renamed(echo: &[u8], identifier: u16) -> Option<Vec<u8>> {
    let [_, _, s0, s1, i0, i1, ..] = *echo.first_chunk::<8>()?;
    let sum = update(u16::from_be_bytes([s0, s1]), u16::from_be_bytes([i0, i1]), identifier);
    let mut renamed = echo.to_vec();
    renamed[2..4].copy_from_slice(&sum.to_be_bytes());
    renamed[4..6].copy_from_slice(&identifier.to_be_bytes());
    Some(renamed)
}

/// Takes a hop from the packet, as a router does. The caller has seen that there is one left.
pub fn take_hop(packet: &mut [u8]) {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= IPV4_HEADER_BYTES => {
            let old = u16::from_be_bytes([packet[8], packet[9]]);
            packet[8] = packet[8].saturating_sub(1);
            let new = u16::from_be_bytes([packet[8], packet[9]]);
            let sum = u16::from_be_bytes([packet[10], packet[11]]);
            let sum = update(sum, old, new);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        Some(6) if packet.len() >= IPV6_HEADER_BYTES => packet[7] = packet[7].saturating_sub(1),
        _ => {}
    }
}

/// The fragments of an IPv6 `packet` without extension headers, each of at most `limit` bytes, which
/// has room for headers and something more.
pub fn cut_v6(packet: &[u8], limit: usize, id: u32) -> impl Iterator<Item = Vec<u8>> {
    const HEADERS: usize = IPV6_HEADER_BYTES + IPV6_FRAGMENT_HEADER_BYTES;
    let (header, payload) = packet.split_at(packet.len().min(IPV6_HEADER_BYTES));
    let piece = limit.saturating_sub(HEADERS).max(8) / 8 * 8;
    let count = payload.len().div_ceil(piece);
    payload.chunks(piece).enumerate().map(move |(position, part)| {
        let more = position + 1 < count;
        // Lossless: a packet has at most 65,575 bytes.
        let field = (position * piece) as u16 | u16::from(more);
        let length = (IPV6_FRAGMENT_HEADER_BYTES + part.len()) as u16;
        let mut fragment = Vec::with_capacity(HEADERS + part.len());
        fragment.extend_from_slice(header);
        if let Some(header) = fragment.get_mut(..IPV6_HEADER_BYTES) {
            let next = std::mem::replace(&mut header[6], IPV6_FRAGMENT_HEADER);
            header[4..6].copy_from_slice(&length.to_be_bytes());
            fragment.extend_from_slice(&[next, 0]);
        }
        fragment.extend_from_slice(&field.to_be_bytes());
        fragment.extend_from_slice(&id.to_be_bytes());
        fragment.extend_from_slice(part);
        fragment
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(is_v4: bool) -> [SocketAddr; 2] {
        let pair =
            if is_v4 { ["10.10.0.2:7", "192.0.2.1:9"] } else { ["[fd10::2]:7", "[fd00::1]:9"] };
        pair.map(|address| address.parse().unwrap())
    }

    proptest! {
        #[test]
        fn a_datagram_that_is_written_is_read_again_and_one_that_is_damaged_is_not(
            is_v4: bool,
            content in proptest::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
        ) {
            let [source, destination] = pair(is_v4);
            let headers = ip_header_bytes(is_v4) + UDP_HEADER_BYTES;
            let mut packet = vec![0; headers + content.len()];
            packet[headers..].copy_from_slice(&content);
            write_udp(&mut packet, source, destination, 1).unwrap();
            let inner = Inner::parse(&packet).unwrap();
            prop_assert_eq!((inner.source, inner.destination), (source.ip(), destination.ip()));
            prop_assert_eq!((inner.hops, inner.protocol, inner.fragment), (64, 17, None));
            prop_assert_eq!(inner.udp(), Some((7, 9, &content[..])));
            let at = ip_header_bytes(is_v4) + at.index(packet.len() - ip_header_bytes(is_v4));
            let checksum = headers - 2..headers;
            if !checksum.contains(&at) {
                packet[at] ^= 0x10;
                prop_assert_eq!(Inner::parse(&packet).unwrap().udp(), None);
            }
        }

        #[test]
        fn an_echo_gets_its_identifier_and_a_right_checksum(is_v4: bool, identifier: u16, len in 8..300_usize) {
            let [source, destination] = pair(is_v4).map(|address| address.ip());
            let mut packet = vec![9; ip_header_bytes(is_v4) + len];
            write_echo(&mut packet, source, destination, identifier, 1).unwrap();
            let inner = Inner::parse(&packet).unwrap();
            let [_, _, _, _, high, low, _, _] = *inner.icmp().unwrap();
            prop_assert_eq!(u16::from_be_bytes([high, low]), identifier);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), first in 0..4_usize) {
            let mut bytes = bytes;
            if let Some(byte) = bytes.first_mut() {
                *byte = [0x45, 0x60, 0x4f, *byte][first];
            }
            if let Some(inner) = Inner::parse(&bytes) {
                let _ = (inner.udp(), inner.icmp(), inner.aim(), inner.may_open());
            }
            Quoted::parse(&bytes);
            take_hop(&mut bytes);
            prop_assert!(cut_v6(&bytes, 60, 1).all(|fragment| fragment.len() <= 60));
        }
    }

    #[test]
    fn a_hop_is_taken_and_the_checksum_stays_right() {
        let [source, destination] = pair(true).map(|address| address.ip());
        let mut packet = [0; 28];
        write_ip(&mut packet, source, destination, 17, 1).unwrap();
        take_hop(&mut packet);
        assert_eq!((packet[8], checksum(&packet[..20])), (63, 0));
    }

    #[test]
    fn a_way_by_other_hosts_is_not_taken_and_extension_headers_are_passed_over() {
        let [source, destination] = pair(false).map(|address| address.ip());
        let mut packet = [0; 40 + 8 + 8];
        write_ip(&mut packet, source, destination, 43, 1).unwrap();
        packet[40] = PROTOCOL_UDP;
        let inner = Inner::parse(&packet).unwrap();
        assert_eq!((inner.protocol, inner.payload.len()), (PROTOCOL_UDP, 8));
        packet[43] = 1;
        assert!(Inner::parse(&packet).is_none(), "somebody else is still to be visited");
    }

    #[test]
    fn what_is_quoted_of_a_segment_names_its_connection() {
        let [source, destination] = pair(true);
        let mut packet = [0; 28];
        write_ip(&mut packet, source.ip(), destination.ip(), PROTOCOL_TCP, 1).unwrap();
        packet[20..28].copy_from_slice(&[0, 7, 0, 9, 1, 2, 3, 4]);
        let quoted = Quoted { source, destination, sequence: 0x0102_0304 };
        assert_eq!(Quoted::parse(&packet), Some(quoted));
        assert_eq!(Quoted::parse(&packet[..27]), None);
    }
}
