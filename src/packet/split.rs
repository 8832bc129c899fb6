//! Super-packets into packets: what the kernel leaves to a TUN with segmentation offload.
//! [RFC 9293] [RFC 768] [LNX net/ipv4/tcp_offload.c:tcp_gso_segment]
//!
//! Works inside the buffer that the super-packet was read into and copies no payload: the header of
//! a packet is written over the end of the payload before it, which the caller has sealed by then.
//! Each payload byte is read once, for the checksum.
//!
//! The kernel's own words are checked, not trusted: what contradicts itself is refused as a whole.
//! Of its numbers only the size of a segment and the place of the checksum are used; lengths of
//! headers are read from the headers. Must not panic on any input, nor allocate.

use std::ops::Range;

use crate::wire::checksum::Sum;
use crate::wire::ip::{IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, PROTOCOL_TCP, PROTOCOL_UDP};
use crate::wire::transport::{
    CWR, FIN, PSH, RST, SYN, TCP_CHECKSUM_AT, TCP_FLAGS_AT, TCP_HEADER_BYTES, UDP_CHECKSUM_AT,
    UDP_HEADER_BYTES,
};
use crate::wire::vnet::{Gso, GsoKind, PartialChecksum, VnetHeader};

/// Why a packet cannot be what its vnet header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// The checksum to complete is not behind an IP header and inside the packet.
    ChecksumOutside,
    /// Packets to cut leave their checksum to us, at the place of their protocol's.
    ChecksumElsewhere,
    /// Packets of no payload.
    NoSize,
    /// Nothing to cut.
    NoPayload,
    /// The packet is not of the IP version and protocol that are to be cut; an IPv6 extension header
    /// is another protocol.
    WrongProtocol,
    /// A header is cut, or lengths contradict each other.
    WrongLength,
    /// A fragment of a packet cannot be cut again.
    Fragment,
    /// A TCP segment that starts or resets a connection cannot be repeated.
    WrongFlags,
}

/// The packets in a packet, one at a time.
#[derive(Debug)]
pub struct Splitter<'a> {
    packet: &'a mut [u8],
    /// `None`: the packet is one already.
    cut: Option<Cut>,
    /// How many were yielded.
    position: u32,
    /// At least one.
    count: u32,
}

impl<'a> Splitter<'a> {
    /// Prepares `packet`, whose vnet header is `vnet`. A lone packet is finished here.
    ///
    /// A lone packet without a checksum to complete may be anything.
    ///
    /// # Errors
    /// `packet` cannot be what `vnet` says; it is unchanged then.
    pub fn new(packet: &'a mut [u8], vnet: &VnetHeader) -> Result<Self, SplitError> {
        let cut = match (vnet.gso, vnet.checksum) {
            (Some(gso), Some(checksum)) => Some(Cut::new(packet, gso, checksum)?),
            (Some(_), None) => return Err(SplitError::ChecksumElsewhere),
            (None, Some(checksum)) => {
                complete(packet, checksum)?;
                None
            }
            (None, None) => None,
        };
        let count = cut.as_ref().map_or(1, |cut| cut.count(packet.len()));
        Ok(Self { packet, cut, position: 0, count })
    }

    /// One packet that is finished, or none of the network's at all, such as the nothing that a
    /// keepalive carries.
    pub const fn whole(packet: &'a mut [u8]) -> Self {
        Self { packet, cut: None, position: 0, count: 1 }
    }

    /// How many packets [`Self::next`] has still to make.
    pub const fn remaining(&self) -> u32 {
        self.count - self.position
    }

    /// Bytes of the longest packet.
    pub fn largest(&self) -> usize {
        let len = self.packet.len();
        self.cut.as_ref().map_or(len, |cut| len.min(cut.header_bytes + cut.size))
    }

    /// Bytes of the packet that [`Self::next`] makes next; 0 after the last.
    pub fn next_len(&self) -> usize {
        if self.position == self.count {
            return 0;
        }
        let len = self.packet.len();
        self.cut.as_ref().map_or(len, |cut| cut.range(len, self.position).len())
    }

    /// The next packet, which takes the place of the one before it; `None` after the last.
    #[expect(clippy::should_implement_trait, reason = "lends its items, which no iterator can")]
    pub fn next(&mut self) -> Option<&[u8]> {
        if self.position == self.count {
            return None;
        }
        let position = self.position;
        self.position += 1;
        let Some(cut) = &self.cut else { return Some(self.packet) };
        let range = cut.stamp(self.packet, position, self.position == self.count);
        Some(&self.packet[range])
    }
}

/// Completes the checksum of a lone packet, of whatever protocol: its field holds the sum of what it
/// covers beyond the packet. [LNX net/core/dev.c:skb_checksum_help]
fn complete(packet: &mut [u8], checksum: PartialChecksum) -> Result<(), SplitError> {
    let (start, offset) = (usize::from(checksum.start), usize::from(checksum.offset));
    let covered = packet.get_mut(start..).filter(|_| start >= IPV4_HEADER_BYTES);
    let covered = covered.ok_or(SplitError::ChecksumOutside)?;
    let sum = Sum::new().add(covered).finish();
    let field = covered.get_mut(offset..offset + 2).ok_or(SplitError::ChecksumOutside)?;
    field.copy_from_slice(&never_zero(sum).to_be_bytes());
    Ok(())
}

/// In UDP a checksum of zero says that there is none; its other form is as right anywhere. [RFC 768]
const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { u16::MAX } else { checksum }
}

/// How a super-packet is cut: what all its packets have in common, and what differs.
///
/// INVARIANT: the headers lie inside the packet that it was made from, and payload follows them.
#[derive(Debug)]
struct Cut {
    /// Bytes of the IP header.
    ip_bytes: usize,
    /// Bytes of all headers.
    header_bytes: usize,
    /// Payload bytes of each packet but the last; not zero.
    size: usize,
    ip: Ip,
    transport: Transport,
    /// The pseudo header and the transport header, but for what differs.
    sum: Sum,
}

#[derive(Debug)]
enum Ip {
    V4 {
        /// Of the first packet.
        id: u16,
        /// The header, but for length, id and checksum.
        sum: Sum,
    },
    V6,
}

#[derive(Debug)]
enum Transport {
    Tcp {
        /// Of the first packet.
        sequence: u32,
        /// Data offset and reserved bits.
        offset: u8,
        flags: u8,
    },
    Udp,
}

impl Cut {
    fn new(packet: &[u8], gso: Gso, checksum: PartialChecksum) -> Result<Self, SplitError> {
        let (ip, ip_bytes, protocol, addresses) = match packet.first().map(|byte| byte >> 4) {
            Some(4) if gso.kind != GsoKind::TcpV6 => parse_v4(packet)?,
            Some(6) if gso.kind != GsoKind::TcpV4 => parse_v6(packet)?,
            _ => return Err(SplitError::WrongProtocol),
        };
        let (wanted, checksum_at) = match gso.kind {
            GsoKind::TcpV4 | GsoKind::TcpV6 => (PROTOCOL_TCP, TCP_CHECKSUM_AT),
            GsoKind::UdpL4 => (PROTOCOL_UDP, UDP_CHECKSUM_AT),
        };
        if protocol != wanted {
            return Err(SplitError::WrongProtocol);
        }
        let place = (usize::from(checksum.start), usize::from(checksum.offset));
        if place != (ip_bytes, checksum_at) {
            return Err(SplitError::ChecksumElsewhere);
        }
        let pseudo = Sum::new().add(&packet[addresses]).add_u32(u32::from(protocol));
        let segment = &packet[ip_bytes..];
        let (transport, transport_bytes, sum) = match gso.kind {
            GsoKind::TcpV4 | GsoKind::TcpV6 => parse_tcp(segment, pseudo)?,
            GsoKind::UdpL4 => parse_udp(segment, pseudo)?,
        };
        if gso.size == 0 {
            return Err(SplitError::NoSize);
        }
        if segment.len() == transport_bytes {
            return Err(SplitError::NoPayload);
        }
        let (header_bytes, size) = (ip_bytes + transport_bytes, usize::from(gso.size));
        Ok(Self { ip_bytes, header_bytes, size, ip, transport, sum })
    }

    /// How many packets `len` bytes make; at least one.
    fn count(&self, len: usize) -> u32 {
        let count = (len - self.header_bytes).div_ceil(self.size);
        u32::try_from(count).expect("a length field of 16 bits has counted the bytes")
    }

    /// Where in a super-packet of `len` bytes the packet at `position` is.
    fn range(&self, len: usize, position: u32) -> Range<usize> {
        let before = position as usize * self.size;
        before..len.min(before + self.header_bytes + self.size)
    }

    /// Writes the headers of the packet at `position` in front of its payload, and tells where the
    /// packet is. All packets before it have been made.
    fn stamp(&self, packet: &mut [u8], position: u32, is_last: bool) -> Range<usize> {
        let range = self.range(packet.len(), position);
        let before = range.start;
        if position > 0 {
            let previous = before - self.size;
            packet.copy_within(previous..previous + self.header_bytes, before);
        }
        let packet = &mut packet[range.clone()];
        let length = packet.len();
        let (headers, payload) = packet.split_at_mut(self.header_bytes);
        let (ip, transport) = headers.split_at_mut(self.ip_bytes);
        match self.ip {
            Ip::V4 { id, sum } => {
                let id = id.wrapping_add(position as u16);
                let sum = sum.add_u32(length as u32).add_u32(u32::from(id));
                put(ip, 2, length as u16);
                put(ip, 4, id);
                put(ip, 10, sum.finish());
            }
            Ip::V6 => put(ip, 4, (length - IPV6_HEADER_BYTES) as u16),
        }
        let covered = length - self.ip_bytes;
        let sum = self.sum.add_u32(covered as u32).add(payload);
        match self.transport {
            Transport::Tcp { sequence, offset, flags } => {
                let mut cleared = 0;
                if !is_last {
                    cleared |= FIN | PSH;
                }
                if position > 0 {
                    cleared |= CWR;
                }
                let flags = flags & !cleared;
                let sequence = sequence.wrapping_add(before as u32);
                let sum = sum.add_u32(sequence).add_u32(u32::from_be_bytes([0, 0, offset, flags]));
                transport[4..8].copy_from_slice(&sequence.to_be_bytes());
                transport[TCP_FLAGS_AT] = flags;
                put(transport, TCP_CHECKSUM_AT, sum.finish());
            }
            Transport::Udp => {
                put(transport, 4, covered as u16);
                let sum = sum.add_u32(covered as u32).finish();
                put(transport, UDP_CHECKSUM_AT, never_zero(sum));
            }
        }
        range
    }
}

fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// What differs, the header's length, the protocol, and where the addresses are.
type IpParts = (Ip, usize, u8, Range<usize>);

fn parse_v4(packet: &[u8]) -> Result<IpParts, SplitError> {
    let header_bytes = usize::from(packet[0] & 0x0f) * 4;
    if header_bytes < IPV4_HEADER_BYTES
        || packet.len() < header_bytes
        || usize::from(get(packet, 2)) != packet.len()
    {
        return Err(SplitError::WrongLength);
    }
    // More fragments, or an offset.
    if get(packet, 6) & 0x3fff != 0 {
        return Err(SplitError::Fragment);
    }
    let sum = Sum::new().add(&packet[..2]).add(&packet[6..10]).add(&packet[12..header_bytes]);
    Ok((Ip::V4 { id: get(packet, 4), sum }, header_bytes, packet[9], 12..20))
}

fn parse_v6(packet: &[u8]) -> Result<IpParts, SplitError> {
    if packet.len() < IPV6_HEADER_BYTES
        || usize::from(get(packet, 4)) != packet.len() - IPV6_HEADER_BYTES
    {
        return Err(SplitError::WrongLength);
    }
    Ok((Ip::V6, IPV6_HEADER_BYTES, packet[6], 8..40))
}

/// What differs, the header's length, and the sum of the rest of it with `pseudo`.
type TransportParts = (Transport, usize, Sum);

fn parse_tcp(segment: &[u8], pseudo: Sum) -> Result<TransportParts, SplitError> {
    let header: &[u8; TCP_HEADER_BYTES] = segment.first_chunk().ok_or(SplitError::WrongLength)?;
    let header_bytes = usize::from(header[12] >> 4) * 4;
    if header_bytes < TCP_HEADER_BYTES || segment.len() < header_bytes {
        return Err(SplitError::WrongLength);
    }
    let (offset, flags) = (header[12], header[13]);
    if flags & (SYN | RST) != 0 {
        return Err(SplitError::WrongFlags);
    }
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let sum = pseudo.add(&header[..4]).add(&header[8..12]).add(&header[14..16]);
    let sum = sum.add(&segment[18..header_bytes]);
    Ok((Transport::Tcp { sequence, offset, flags }, header_bytes, sum))
}

fn parse_udp(segment: &[u8], pseudo: Sum) -> Result<TransportParts, SplitError> {
    if segment.len() < UDP_HEADER_BYTES || usize::from(get(segment, 4)) != segment.len() {
        return Err(SplitError::WrongLength);
    }
    Ok((Transport::Udp, UDP_HEADER_BYTES, pseudo.add(&segment[..4])))
}

#[cfg(test)]
mod tests;
