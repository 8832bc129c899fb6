//! Packets by their fields, built and checked word by word as the RFCs say it.

use crate::crypto::entropy::{Entropy, SeededEntropy};
use crate::packet::batch::{PLAIN_HEADROOM, PlainRange};
use crate::packet::coalesce::Group;
use crate::packet::slab::Slab;
use crate::wire::vnet::{Gso, GsoKind, PartialChecksum, VNET_HEADER_BYTES, VnetHeader};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;
pub const CWR: u8 = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub sequence: u32,
    pub acknowledgement: u32,
    pub reserved: u8,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub options: Vec<u8>,
}

/// The fields of a packet from port `port` to port 5201.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub is_v6: bool,
    pub host: u8,
    pub port: u16,
    pub class: u8,
    pub flow_label: u32,
    pub hop_limit: u8,
    pub id: u16,
    pub dont_fragment: bool,
    pub ip_options: Vec<u8>,
    /// `None`: UDP.
    pub tcp: Option<Tcp>,
    pub payload: Vec<u8>,
}

impl Sample {
    pub fn tcp(is_v6: bool, len: usize) -> Self {
        let tcp = Tcp {
            sequence: 0xffff_f000,
            acknowledgement: 0x0102_0304,
            reserved: 0,
            flags: ACK,
            window: 501,
            urgent: 0,
            // Two fillers and timestamps.
            options: [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 7].into(),
        };
        Self { tcp: Some(tcp), ..Self::udp(is_v6, len) }
    }

    pub fn udp(is_v6: bool, len: usize) -> Self {
        let mut payload = vec![0; len];
        SeededEntropy::new(len as u64).fill(&mut payload);
        Self {
            is_v6,
            host: 1,
            port: 40_000,
            class: 2,
            flow_label: 0xa_bcde,
            hop_limit: 64,
            id: 0xfffe,
            dont_fragment: true,
            ip_options: Vec::new(),
            tcp: None,
            payload,
        }
    }

    /// With its TCP fields changed.
    pub fn with(mut self, change: impl FnOnce(&mut Tcp)) -> Self {
        change(self.tcp.as_mut().unwrap());
        self
    }

    pub fn ip_bytes(&self) -> usize {
        if self.is_v6 { 40 } else { 20 + self.ip_options.len() }
    }

    pub fn header_bytes(&self) -> usize {
        self.ip_bytes() + self.tcp.as_ref().map_or(8, |tcp| 20 + tcp.options.len())
    }

    /// Where the transport checksum is.
    pub fn checksum_at(&self) -> usize {
        self.ip_bytes() + if self.tcp.is_some() { 16 } else { 6 }
    }

    /// The packet, with right lengths and checksums.
    pub fn packet(&self) -> Vec<u8> {
        let mut packet = self.bytes();
        let at = self.checksum_at();
        let sum = match !naive_sum(&packet[self.ip_bytes()..], &pseudo_header(&packet)) {
            0 if self.tcp.is_none() => 0xffff,
            sum => sum,
        };
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// The packet as the kernel leaves it to be cut at `size`: the checksum is the pseudo header's.
    pub fn super_packet(&self, size: u16) -> (Vec<u8>, VnetHeader) {
        let mut packet = self.bytes();
        let at = self.checksum_at();
        let sum = naive_sum(&[], &pseudo_header(&packet));
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let kind = match (&self.tcp, self.is_v6) {
            (Some(_), false) => GsoKind::TcpV4,
            (Some(_), true) => GsoKind::TcpV6,
            (None, _) => GsoKind::UdpL4,
        };
        let start = self.ip_bytes() as u16;
        let vnet = VnetHeader {
            checksum: Some(PartialChecksum { start, offset: at as u16 - start }),
            gso: Some(Gso { kind, size, ecn: false }),
            // As the kernel does, it is not the length of the headers.
            header_length: 98,
        };
        (packet, vnet)
    }

    /// Without a transport checksum.
    fn bytes(&self) -> Vec<u8> {
        let len = self.header_bytes() + self.payload.len();
        let mut packet = Vec::with_capacity(len);
        let protocol = if self.tcp.is_some() { 6 } else { 17 };
        if self.is_v6 {
            let first = 6 << 28 | u32::from(self.class) << 20 | self.flow_label;
            packet.extend(first.to_be_bytes());
            packet.extend(((len - 40) as u16).to_be_bytes());
            packet.extend([protocol, self.hop_limit]);
            packet.extend([0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.host]);
            packet.extend([0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        } else {
            packet.extend([0x45 + (self.ip_options.len() / 4) as u8, self.class]);
            packet.extend((len as u16).to_be_bytes());
            packet.extend(self.id.to_be_bytes());
            packet.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
            packet.extend([self.hop_limit, protocol, 0, 0]);
            packet.extend([10, 0, 0, self.host, 10, 0, 1, 2]);
            packet.extend(&self.ip_options);
            let sum = !naive_sum(&packet, &[]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        packet.extend(self.port.to_be_bytes());
        packet.extend(5201_u16.to_be_bytes());
        if let Some(tcp) = &self.tcp {
            packet.extend(tcp.sequence.to_be_bytes());
            packet.extend(tcp.acknowledgement.to_be_bytes());
            packet.push(((5 + tcp.options.len() / 4) as u8) << 4 | tcp.reserved);
            packet.push(tcp.flags);
            packet.extend(tcp.window.to_be_bytes());
            packet.extend([0, 0]);
            packet.extend(tcp.urgent.to_be_bytes());
            packet.extend(&tcp.options);
        } else {
            packet.extend((8 + self.payload.len() as u16).to_be_bytes());
            packet.extend([0, 0]);
        }
        packet.extend(&self.payload);
        assert_eq!(packet.len(), len);
        packet
    }
}

/// Panics unless lengths and checksums of `packet` are right.
#[track_caller]
pub fn assert_right(packet: &[u8]) {
    let (ip_bytes, protocol) = match packet[0] >> 4 {
        4 => (usize::from(packet[0] & 15) * 4, packet[9]),
        6 => (40, packet[6]),
        version => panic!("version {version}"),
    };
    let length = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    if packet[0] >> 4 == 4 {
        assert_eq!(length(2), packet.len(), "total length");
        assert_eq!(naive_sum(&packet[..ip_bytes], &[]), 0xffff, "header checksum");
    } else {
        assert_eq!(length(4), packet.len() - 40, "payload length");
    }
    if protocol == 17 {
        assert_eq!(length(ip_bytes + 4), packet.len() - ip_bytes, "UDP length");
        assert_ne!(length(ip_bytes + 6), 0, "no UDP checksum");
    }
    let sum = naive_sum(&packet[ip_bytes..], &pseudo_header(packet));
    assert_eq!(sum, 0xffff, "transport checksum");
}

/// The pseudo header of a packet whose lengths are right.
fn pseudo_header(packet: &[u8]) -> Vec<u8> {
    let (addresses, ip_bytes, protocol) = if packet[0] >> 4 == 4 {
        (&packet[12..20], usize::from(packet[0] & 15) * 4, packet[9])
    } else {
        (&packet[8..40], 40, packet[6])
    };
    let length = (packet.len() - ip_bytes) as u32;
    [addresses, &length.to_be_bytes(), &[0, 0, 0, protocol]].concat()
}

/// The sum, not its complement, of both, word by word; only `last` may be odd.
fn naive_sum(last: &[u8], first: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in first.chunks(2).chain(last.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The packets in slabs, as they are after a batch was opened: with the dead header in front.
pub fn lay_out(packets: &[Vec<u8>]) -> (Vec<Slab>, Vec<PlainRange>) {
    let (mut slabs, mut ranges) = (vec![Slab::new()], Vec::new());
    let mut end = 0;
    for packet in packets {
        if end + PLAIN_HEADROOM + packet.len() > slabs[0].len() {
            slabs.push(Slab::new());
            end = 0;
        }
        let (slab, start, len) = (slabs.len() - 1, end + PLAIN_HEADROOM, packet.len());
        slabs[slab][end..start].fill(0xdd);
        slabs[slab][start..start + len].copy_from_slice(packet);
        end = start + len;
        ranges.push(PlainRange { slab, start, len });
    }
    (slabs, ranges)
}

/// What the device gets of one write.
pub fn gather(group: &Group<'_>, slabs: &[Slab]) -> (VnetHeader, Vec<u8>) {
    let pieces: Vec<&[u8]> = group.pieces().map(|piece| piece.bytes(slabs)).collect();
    let written = pieces.concat();
    let (vnet, packet) = written.split_first_chunk::<VNET_HEADER_BYTES>().unwrap();
    (VnetHeader::parse(vnet).unwrap(), packet.to_vec())
}
