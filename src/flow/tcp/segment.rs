//! Segments: read from packets of the inside, and written into them. [RFC 9293 §3.1]
//!
//! Reading checks lengths and the checksum, and nothing that depends on a connection. Writing leaves
//! the checksum, and the cutting of a super-packet, to `packet::split`, as a kernel leaves them to a
//! TUN. Allocates nothing and must not panic on any input.

use std::net::{IpAddr, SocketAddr};

use super::options::{MAX_OPTIONS_BYTES, Options};
use crate::wire::checksum::{Sum, checksum};
use crate::wire::ip::{IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, IpHeader, PROTOCOL_TCP};
use crate::wire::mss;
use crate::wire::transport::{ACK, FIN, RST, SYN, TCP_CHECKSUM_AT, TCP_FLAGS_AT, TCP_HEADER_BYTES};
use crate::wire::vnet::{Gso, GsoKind, PartialChecksum, VnetHeader};

/// The most that a packet can be, headers included, and so the most that a burst is.
pub const MAX_PACKET_BYTES: usize = 65_535;

const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

/// Whether the checksum of a packet is still to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    Verify,
    /// Somebody has, or the packet never left this process.
    Trusted,
}

/// Why a packet is not a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not TCP, or behind headers that are not read.
    NotTcp,
    /// A part of a packet.
    Fragment,
    /// Less than its headers say.
    Cut,
    WrongChecksum,
}

/// A segment and between whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub segment: Segment<'a>,
}

/// What a segment says; the numbers are those on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment<'a> {
    pub sequence: u32,
    /// Means something with ACK only.
    pub acknowledgment: u32,
    /// `wire::transport::{SYN, ACK, …}`.
    pub flags: u8,
    /// Not shifted.
    pub window: u16,
    pub options: Options,
    pub payload: &'a [u8],
}

impl Segment<'_> {
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What it occupies of the sequence numbers.
    pub const fn length(&self) -> u32 {
        self.payload.len() as u32 + self.has(SYN) as u32 + self.has(FIN) as u32
    }
}

impl<'a> Packet<'a> {
    /// Reads a whole IP packet; what follows it (padding) is ignored.
    ///
    /// # Errors
    /// The packet holds no whole segment, or its checksum is wrong.
    pub fn parse(packet: &'a [u8], checksum: Checksum) -> Result<Self, Malformed> {
        let ip = IpHeader::parse(packet).ok_or(Malformed::NotTcp)?;
        let packet = packet.get(..ip.total_length).ok_or(Malformed::Cut)?;
        if packet[0] >> 4 == 4 && u16::from_be_bytes([packet[6], packet[7]]) & MORE_FRAGMENTS != 0 {
            return Err(Malformed::Fragment);
        }
        let range = mss::segment(packet).ok_or(Malformed::NotTcp)?;
        let bytes = packet.get(range).ok_or(Malformed::Cut)?;
        if checksum == Checksum::Verify {
            let sum = pseudo_header(ip.source, ip.destination, bytes.len());
            if sum.add(bytes).finish() != 0 {
                return Err(Malformed::WrongChecksum);
            }
        }
        let (header, _) = bytes.split_first_chunk::<TCP_HEADER_BYTES>().ok_or(Malformed::Cut)?;
        let header_bytes = usize::from(header[12] >> 4) * 4;
        let options = bytes.get(TCP_HEADER_BYTES..header_bytes).ok_or(Malformed::Cut)?;
        let short = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let long = |at: usize| u32::from(short(at)) << 16 | u32::from(short(at + 2));
        Ok(Self {
            source: SocketAddr::new(ip.source, short(0)),
            destination: SocketAddr::new(ip.destination, short(2)),
            segment: Segment {
                sequence: long(4),
                acknowledgment: long(8),
                flags: header[TCP_FLAGS_AT],
                window: short(14),
                options: Options::parse(options),
                payload: &bytes[header_bytes..],
            },
        })
    }
}

/// A SYN that asks for a connection: what has to be kept of it until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub sequence: u32,
    pub window: u16,
    pub options: Options,
}

impl Syn {
    /// `None` if `packet` does not ask for a connection. Data in a SYN is left to be sent again.
    pub fn of(packet: &Packet<'_>) -> Option<Self> {
        let segment = &packet.segment;
        (segment.flags & (SYN | ACK | RST | FIN) == SYN).then_some(Self {
            local: packet.destination,
            remote: packet.source,
            sequence: segment.sequence,
            window: segment.window,
            options: segment.options,
        })
    }

    /// Writes the RST that refuses it.
    pub fn refuse(&self, out: &mut [u8]) -> Transmit {
        let rst = Segment {
            acknowledgment: self.sequence.wrapping_add(1),
            flags: RST | ACK,
            ..Segment::default()
        };
        Header { local: self.local, remote: self.remote, segment: rst }.finish(out, 0, 0)
    }
}

/// Writes the RST that answers a segment of no connection; `None` if it must not be answered.
/// [RFC 9293 §3.10.7.1]
pub fn refuse(packet: &Packet<'_>, out: &mut [u8]) -> Option<Transmit> {
    let segment = &packet.segment;
    if segment.has(RST) {
        return None;
    }
    let rst = if segment.has(ACK) {
        Segment { sequence: segment.acknowledgment, flags: RST, ..Segment::default() }
    } else {
        let acknowledgment = segment.sequence.wrapping_add(segment.length());
        Segment { acknowledgment, flags: RST | ACK, ..Segment::default() }
    };
    let header = Header { local: packet.destination, remote: packet.source, segment: rst };
    Some(header.finish(out, 0, 0))
}

/// A packet in a buffer: its first `len` bytes, for which `vnet` says what is left to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    pub len: usize,
    pub vnet: VnetHeader,
}

/// The headers of a packet to be.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Without payload, which its writer puts behind the headers.
    pub segment: Segment<'a>,
}

impl Header<'_> {
    /// Bytes of IP and TCP headers, without options.
    pub const fn fixed_bytes(local: SocketAddr) -> usize {
        let ip = if local.is_ipv4() { IPV4_HEADER_BYTES } else { IPV6_HEADER_BYTES };
        ip + TCP_HEADER_BYTES
    }

    /// Writes the headers in front of `payload_bytes` that stand in `out` already, of which each
    /// segment is to have `mss`. `out` holds all of it, and both addresses are of one family.
    pub fn finish(&self, out: &mut [u8], payload_bytes: usize, mss: usize) -> Transmit {
        let mut options = [0; MAX_OPTIONS_BYTES];
        let options_bytes = self.segment.options.write(&mut options);
        let ip_bytes = Self::fixed_bytes(self.local) - TCP_HEADER_BYTES;
        let tcp_bytes = TCP_HEADER_BYTES + options_bytes;
        let len = ip_bytes + tcp_bytes + payload_bytes;
        let (ip, tcp) = out[..len].split_at_mut(ip_bytes);
        self.write_ip(ip, len);
        let segment = &self.segment;
        tcp[0..2].copy_from_slice(&self.local.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.remote.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&segment.sequence.to_be_bytes());
        tcp[8..12].copy_from_slice(&segment.acknowledgment.to_be_bytes());
        tcp[12] = (tcp_bytes as u8 / 4) << 4;
        tcp[TCP_FLAGS_AT] = segment.flags;
        tcp[14..16].copy_from_slice(&segment.window.to_be_bytes());
        // The sum of the pseudo header, to be completed.
        let sum = !pseudo_header(self.local.ip(), self.remote.ip(), len - ip_bytes).finish();
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        tcp[18..20].fill(0);
        tcp[TCP_HEADER_BYTES..tcp_bytes].copy_from_slice(&options[..options_bytes]);
        let kind = if self.local.is_ipv4() { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
        let gso = (payload_bytes > mss).then_some(Gso { kind, size: mss as u16, ecn: false });
        let checksum = PartialChecksum { start: ip_bytes as u16, offset: TCP_CHECKSUM_AT as u16 };
        let header_length = (ip_bytes + tcp_bytes) as u16;
        Transmit { len, vnet: VnetHeader { checksum: Some(checksum), gso, header_length } }
    }

    fn write_ip(&self, ip: &mut [u8], len: usize) {
        ip.fill(0);
        match (self.local.ip(), self.remote.ip()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                ip[0] = 0x45;
                ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                // What is never fragmented needs no identification. [RFC 6864 §4.1]
                ip[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
                ip[8] = TTL;
                ip[9] = PROTOCOL_TCP;
                ip[12..16].copy_from_slice(&local.octets());
                ip[16..20].copy_from_slice(&remote.octets());
                let sum = checksum(ip);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (local, remote) => {
                ip[0] = 0x60;
                ip[4..6].copy_from_slice(&((len - IPV6_HEADER_BYTES) as u16).to_be_bytes());
                ip[6] = PROTOCOL_TCP;
                ip[7] = TTL;
                ip[8..24].copy_from_slice(&octets_v6(local));
                ip[24..40].copy_from_slice(&octets_v6(remote));
            }
        }
    }
}

const fn octets_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The sum over the pseudo header of a segment of `length` bytes. [RFC 9293 §3.1] [RFC 8200 §8.1]
fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> Sum {
    let sum = Sum::new().add_u32(u32::from(PROTOCOL_TCP)).add_u32(length as u32);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            sum.add(&source.octets()).add(&destination.octets())
        }
        (source, destination) => sum.add(&octets_v6(source)).add(&octets_v6(destination)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tcp::options::Timestamps;
    use crate::packet::split::Splitter;
    use crate::wire::transport::PSH;

    fn addresses(v6: bool) -> [SocketAddr; 2] {
        let text =
            if v6 { ["[fd00::1]:80", "[fd00::2]:4000"] } else { ["10.0.0.1:80", "10.0.0.2:4000"] };
        text.map(|text| text.parse().unwrap())
    }

    #[test]
    fn a_burst_is_cut_into_segments_that_are_read_again() {
        for v6 in [false, true] {
            let [local, remote] = addresses(v6);
            let options = Options {
                timestamps: Some(Timestamps { value: 5, echo: 6 }),
                ..Options::default()
            };
            let segment = Segment {
                sequence: u32::MAX - 999,
                acknowledgment: 77,
                flags: ACK | PSH,
                window: 512,
                options,
                payload: &[],
            };
            let header = Header { local, remote, segment };
            let payload: Vec<u8> = (0..2500).map(|n| n as u8).collect();
            let mut out = vec![0xee; MAX_PACKET_BYTES];
            out[Header::fixed_bytes(local) + 12..][..2500].copy_from_slice(&payload);
            let Transmit { len, vnet } = header.finish(&mut out, 2500, 1000);
            let mut splitter = Splitter::new(&mut out[..len], &vnet).unwrap();
            let mut read = Vec::new();
            let mut sizes = Vec::new();
            while let Some(bytes) = splitter.next() {
                let packet = Packet::parse(bytes, Checksum::Verify).unwrap();
                assert_eq!((packet.source, packet.destination), (local, remote));
                let expected = segment.sequence.wrapping_add(read.len() as u32);
                assert_eq!(packet.segment.sequence, expected);
                assert_eq!(packet.segment.options, options);
                read.extend_from_slice(packet.segment.payload);
                sizes.push(packet.segment.payload.len());
            }
            assert_eq!(sizes, [1000, 1000, 500]);
            assert_eq!(read, payload);
        }
    }

    #[test]
    fn damage_padding_and_fragments_are_told_apart() {
        for v6 in [false, true] {
            let [local, remote] = addresses(v6);
            let segment = Segment { flags: ACK, ..Segment::default() };
            let mut out = [0; 100];
            out[Header::fixed_bytes(local)..][..4].copy_from_slice(b"data");
            let Transmit { len, vnet } =
                Header { local, remote, segment }.finish(&mut out, 4, 1000);
            let bytes = Splitter::new(&mut out[..len], &vnet).unwrap().next().unwrap().to_vec();
            let padded = [&bytes[..], &[0; 8]].concat();
            assert_eq!(Packet::parse(&padded, Checksum::Verify).unwrap().segment.payload, b"data");
            for at in Header::fixed_bytes(local) - TCP_HEADER_BYTES..len {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                let read = Packet::parse(&damaged, Checksum::Verify);
                assert_eq!(read, Err(Malformed::WrongChecksum), "byte {at}");
            }
            for cut in 0..len {
                assert!(Packet::parse(&bytes[..cut], Checksum::Trusted).is_err(), "{cut}");
            }
            if !v6 {
                let mut fragment = bytes.clone();
                fragment[6] |= 0x20;
                let read = Packet::parse(&fragment, Checksum::Trusted);
                assert_eq!(read, Err(Malformed::Fragment));
            }
        }
    }

    #[test]
    fn a_segment_of_no_connection_is_refused_as_the_rfc_says() {
        let [local, remote] = addresses(false);
        let refusal = |segment: Segment<'_>| {
            let mut out = [0; 100];
            let packet = Packet { source: remote, destination: local, segment };
            let Transmit { len, vnet } = refuse(&packet, &mut out)?;
            let mut splitter = Splitter::new(&mut out[..len], &vnet).unwrap();
            let packet = Packet::parse(splitter.next().unwrap(), Checksum::Verify).unwrap();
            assert_eq!((packet.source, packet.destination), (local, remote));
            Some((packet.segment.sequence, packet.segment.acknowledgment, packet.segment.flags))
        };
        let syn = Segment { sequence: 9, flags: SYN, payload: b"xy", ..Segment::default() };
        assert_eq!(refusal(syn), Some((0, 12, RST | ACK)));
        let ack = Segment { sequence: 9, acknowledgment: 5, flags: ACK, ..Segment::default() };
        assert_eq!(refusal(ack), Some((5, 0, RST)));
        assert_eq!(refusal(Segment { flags: RST, ..ack }), None);
    }
}
