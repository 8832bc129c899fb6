//! Cutting and merging of packets.

use std::collections::BTreeSet;

use hybridwg::packet::batch::{PLAIN_HEADROOM, PlainRange};
use hybridwg::packet::coalesce::{Coalescer, Group, Mergeable};
use hybridwg::packet::slab::Slab;
use hybridwg::packet::split::Splitter;
use hybridwg::wire::vnet::{Gso, GsoKind, PartialChecksum, VNET_HEADER_BYTES, VnetHeader};

use super::Choices;

/// A packet with any vnet header, or one that is almost right: what is accepted comes apart into
/// packets with right lengths and checksums that hold all its payload in order, and what is refused
/// is unchanged.
pub fn split(data: &[u8]) {
    let mut choices = Choices(data);
    let (vnet, mut packet) = if choices.byte() & 1 == 0 {
        let header: [u8; VNET_HEADER_BYTES] = choices.bytes();
        let Ok(vnet) = VnetHeader::parse(&header) else { return };
        assert_eq!(VnetHeader::parse(&vnet.to_bytes()), Ok(vnet));
        (vnet, choices.0.to_vec())
    } else {
        almost_right(&mut choices)
    };
    let whole = packet.clone();
    let Ok(mut splitter) = Splitter::new(&mut packet, &vnet) else {
        assert_eq!(packet, whole, "a refused packet was changed");
        return;
    };
    let (count, largest) = (splitter.remaining() as usize, splitter.largest());
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let mut announced = splitter.next_len();
    while let Some(packet) = splitter.next() {
        assert_eq!(packet.len(), announced);
        packets.push(packet.to_vec());
        announced = splitter.next_len();
    }
    assert_eq!(packets.len(), count);
    assert_eq!(packets.iter().map(Vec::len).max(), Some(largest));
    match vnet.gso {
        Some(gso) => check_segments(&whole, &packets, usize::from(gso.size)),
        None => {
            let mut completed = whole;
            if let Some(PartialChecksum { start, offset }) = vnet.checksum {
                let at = usize::from(start) + usize::from(offset);
                completed[at..at + 2].copy_from_slice(&packets[0][at..at + 2]);
            }
            assert_eq!(packets, [completed]);
        }
    }
}

fn check_segments(whole: &[u8], packets: &[Vec<u8>], size: usize) {
    let headers = header_bytes(whole);
    let payloads: Vec<&[u8]> = packets.iter().map(|packet| &packet[headers..]).collect();
    assert!(payloads.concat() == whole[headers..], "the payload is another");
    let (last, full) = payloads.split_last().expect("at least one packet");
    assert!(full.iter().all(|payload| payload.len() == size) && (1..=size).contains(&last.len()));
    for packet in packets {
        check_sums(packet);
    }
}

/// Panics unless lengths and checksums of a packet without IPv6 extension headers are right.
pub fn check_sums(packet: &[u8]) {
    let (ip_bytes, addresses, protocol) = if packet[0] >> 4 == 4 {
        let ip_bytes = usize::from(packet[0] & 15) * 4;
        assert_eq!(number(packet, 2), packet.len(), "total length");
        assert_eq!(naive_sum(&[&packet[..ip_bytes]]), 0xffff, "header checksum");
        (ip_bytes, &packet[12..20], packet[9])
    } else {
        assert_eq!(number(packet, 4), packet.len() - 40, "payload length");
        (40, &packet[8..40], packet[6])
    };
    let segment = &packet[ip_bytes..];
    if protocol == 17 {
        assert_eq!(number(segment, 4), segment.len(), "UDP length");
        assert_ne!(number(segment, 6), 0, "a UDP checksum that says there is none");
    }
    let length = (segment.len() as u32).to_be_bytes();
    let sum = naive_sum(&[addresses, &length, &[0, protocol], segment]);
    assert_eq!(sum, 0xffff, "transport checksum");
}

/// The 16-bit number at `at`.
fn number(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// The sum of 16-bit words; only the last part may be odd.
fn naive_sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from_be_bytes([0, 0, pair[0], pair.get(1).copied().unwrap_or(0)]);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Bytes of all headers of a packet of TCP or UDP.
pub fn header_bytes(packet: &[u8]) -> usize {
    let (ip_bytes, protocol) = if packet[0] >> 4 == 4 {
        (usize::from(packet[0] & 15) * 4, packet[9])
    } else {
        (40, packet[6])
    };
    let transport = if protocol == 6 { usize::from(packet[ip_bytes + 12] >> 4) * 4 } else { 8 };
    ip_bytes + transport
}

/// A packet with right lengths and a right IPv4 header checksum, whose payload follows from `fill`.
fn build(is_v6: bool, is_tcp: bool, options: usize, payload: usize, fill: u8) -> Vec<u8> {
    let ip_bytes = if is_v6 { 40 } else { 20 };
    let transport = if is_tcp { 20 + options } else { 8 };
    let mut packet = vec![0; ip_bytes + transport + payload];
    for (place, byte) in packet[ip_bytes..].iter_mut().enumerate() {
        *byte = (place as u8).wrapping_mul(fill);
    }
    let length = packet.len() as u16;
    let protocol = if is_tcp { 6 } else { 17 };
    if is_v6 {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
        packet[6] = protocol;
    } else {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[9] = protocol;
        mend_v4(&mut packet);
    }
    if is_tcp {
        packet[ip_bytes + 12..ip_bytes + 14].copy_from_slice(&[(transport as u8) << 2, 0x10]);
    } else {
        let length = length - ip_bytes as u16;
        packet[ip_bytes + 4..ip_bytes + 6].copy_from_slice(&length.to_be_bytes());
    }
    packet
}

/// Makes the checksum of a plain IPv4 header right.
fn mend_v4(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = !naive_sum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A super-packet as the kernel makes it, and then up to seven bytes of its headers changed.
fn almost_right(choices: &mut Choices<'_>) -> (VnetHeader, Vec<u8>) {
    let (is_v6, is_tcp) = (choices.byte() & 1 != 0, choices.byte() & 1 != 0);
    let options = if is_tcp { usize::from(choices.byte() % 11) * 4 } else { 0 };
    let payload = number(&choices.bytes::<2>(), 0) % 4096;
    let size = 1 + choices.byte() as u16 * (1 + choices.byte() as u16 % 8);
    let mut packet = build(is_v6, is_tcp, options, payload, choices.byte());
    let ip_bytes = if is_v6 { 40 } else { 20 };
    if is_tcp {
        packet[ip_bytes + 13] = choices.byte() & !6;
    }
    let kind = match (is_tcp, is_v6) {
        (true, false) => GsoKind::TcpV4,
        (true, true) => GsoKind::TcpV6,
        (false, _) => GsoKind::UdpL4,
    };
    let offset = if is_tcp { 16 } else { 6 };
    let mut vnet = VnetHeader {
        checksum: Some(PartialChecksum { start: ip_bytes as u16, offset }),
        gso: Some(Gso { kind, size, ecn: false }),
        header_length: 0,
    };
    for _ in 0..choices.byte() % 8 {
        let [place, value] = choices.bytes();
        match place {
            255 => vnet.gso = None,
            254 => vnet.checksum = Some(PartialChecksum { start: value.into(), offset }),
            253 => packet.truncate(packet.len() - packet.len().min(value.into())),
            _ => {
                if let Some(byte) = packet.get_mut(usize::from(place)) {
                    *byte = value;
                }
            }
        }
    }
    (vnet, packet)
}

/// Packets of up to eight flows that are in order, out of order, damaged or anything: merged, and cut
/// again as the kernel would, they are the same packets, each flow's in its order; taken apart, they
/// are what they were.
pub fn coalesce(data: &[u8]) {
    let mut choices = Choices(data);
    let choice = choices.byte();
    let mergeable = Mergeable { tcp: choice & 1 == 0, udp: choice & 2 == 0 };
    let capacity = if choice & 4 == 0 { MOST_PACKETS } else { usize::from(choice >> 3) };
    let packets = traffic(&mut choices);
    let (mut slabs, ranges) = lay_out(&packets);
    let mut coalescer = Coalescer::new(mergeable, capacity);
    let plan = coalescer.plan(&mut slabs, &ranges);
    let mut after = Vec::new();
    for group in plan.clone() {
        let (vnet, mut packet) = gather(&group, &slabs);
        if group.count() == 1 {
            assert_eq!(vnet, VnetHeader::default());
            assert!(packets.contains(&packet), "a lone packet was changed");
        }
        let before = after.len();
        let mut splitter = Splitter::new(&mut packet, &vnet).expect("what the kernel would cut");
        while let Some(packet) = splitter.next() {
            after.push(packet.to_vec());
        }
        assert_eq!(after.len() - before, group.count());
    }
    assert_same_order(&packets, &after);
    let mut apart = Vec::new();
    for group in plan {
        for piece in group.dissolve(&mut slabs) {
            apart.push(piece.bytes(&slabs)[VNET_HEADER_BYTES..].to_vec());
        }
    }
    let sorted = |packets: &[Vec<u8>]| {
        let mut packets = packets.to_vec();
        packets.sort();
        packets
    };
    assert!(sorted(&apart) == sorted(&packets), "taken apart, a packet is another");
}

const MOST_PACKETS: usize = 400;

struct Flow {
    number: u8,
    payload: usize,
    sequence: u32,
    id: u16,
    fill: u8,
}

impl Flow {
    fn next(&mut self) -> Vec<u8> {
        let (is_v6, is_tcp) = (self.number & 1 != 0, self.number & 2 != 0);
        let mut packet = build(is_v6, is_tcp, 12, self.payload, self.fill);
        let at = if is_v6 { 40 } else { 20 };
        packet[at..at + 2].copy_from_slice(&[0, self.number]);
        if is_tcp {
            packet[at + 4..at + 8].copy_from_slice(&self.sequence.to_be_bytes());
        } else {
            packet[at + 7] |= 1;
        }
        if !is_v6 {
            packet[4..6].copy_from_slice(&self.id.to_be_bytes());
            packet[6] = if self.fill & 1 == 0 { 0x40 } else { 0 };
            mend_v4(&mut packet);
        }
        self.sequence = self.sequence.wrapping_add(self.payload as u32);
        self.id = self.id.wrapping_add(1);
        packet
    }
}

fn traffic(choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let mut flows: Vec<Flow> = (0..8)
        .map(|number| Flow { number, payload: 100, sequence: 0, id: 65_530, fill: number / 4 })
        .collect();
    let mut packets = Vec::new();
    while !choices.is_empty() && packets.len() < MOST_PACKETS {
        let choice = choices.byte();
        let flow = &mut flows[usize::from(choice & 7)];
        match choice >> 3 & 7 {
            0 | 1 => packets.push(flow.next()),
            2 => packets.extend((0..1 + choices.byte() % 80).map(|_| flow.next())),
            3 => flow.payload = usize::from(choices.byte()) * (1 + usize::from(choices.byte() % 6)),
            4 => {
                // Goes back, forward, or stays where it was.
                let [sequence, id] = choices.bytes().map(|byte: u8| i32::from(byte.cast_signed()));
                flow.sequence = flow.sequence.wrapping_add_signed(sequence);
                flow.id = flow.id.wrapping_add_signed(id as i16);
            }
            5 | 6 => {
                let mut packet = flow.next();
                let [place, value] = choices.bytes();
                if let Some(byte) = packet.get_mut(usize::from(place)) {
                    *byte = value;
                }
                if choice & 0x40 == 0 && packet[0] >> 4 == 4 {
                    mend_v4(&mut packet);
                }
                packets.push(packet);
            }
            _ => {
                let len = usize::from(choices.byte()).min(choices.0.len());
                let (packet, rest) = choices.0.split_at(len);
                packets.push(packet.to_vec());
                *choices = Choices(rest);
            }
        }
    }
    packets
}

fn lay_out(packets: &[Vec<u8>]) -> (Vec<Slab>, Vec<PlainRange>) {
    let (mut slabs, mut ranges) = (vec![Slab::new()], Vec::new());
    let mut end = 0;
    for packet in packets {
        if end + PLAIN_HEADROOM + packet.len() > slabs[0].len() {
            slabs.push(Slab::new());
            end = 0;
        }
        let (slab, start, len) = (slabs.len() - 1, end + PLAIN_HEADROOM, packet.len());
        slabs[slab][start..start + len].copy_from_slice(packet);
        end = start + len;
        ranges.push(PlainRange { slab, start, len });
    }
    (slabs, ranges)
}

fn gather(group: &Group<'_>, slabs: &[Slab]) -> (VnetHeader, Vec<u8>) {
    let pieces: Vec<&[u8]> = group.pieces().map(|piece| piece.bytes(slabs)).collect();
    assert!(pieces.len() == group.count() && pieces.len() <= 128);
    let written = pieces.concat();
    let (vnet, packet) = written.split_at(VNET_HEADER_BYTES);
    let vnet = VnetHeader::parse(vnet.try_into().expect("its length")).expect("our own");
    assert!(vnet.gso.is_none() || packet.len() <= 65_535);
    (vnet, packet.to_vec())
}

/// What keeps its place: a flow, or what may be of several flows between two addresses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    addresses: Vec<u8>,
    /// `None` behind an extension header of IPv6.
    protocol: Option<u8>,
    /// `None` where they cannot be told.
    ports: Option<Vec<u8>>,
}

fn place(packet: &[u8]) -> Option<Place> {
    let (addresses, protocol, at, is_plain) = match packet.first()? >> 4 {
        4 if packet.len() >= 20 => {
            let is_fragment = number(packet, 6) & 0xbfff != 0;
            let is_plain = packet[0] == 0x45 && !is_fragment && number(packet, 2) == packet.len();
            (&packet[12..20], packet[9], 20, is_plain)
        }
        6 if packet.len() >= 40 => {
            (&packet[8..40], packet[6], 40, number(packet, 4) + 40 == packet.len())
        }
        _ => return None,
    };
    let addresses = addresses.to_vec();
    let transport_bytes = match protocol {
        6 => packet.get(at + 12).map_or(20, |offset| usize::from(offset >> 4) * 4).max(20),
        17 => 8,
        _ if at == 40 && protocol != 58 => {
            return Some(Place { addresses, protocol: None, ports: None });
        }
        _ => return None,
    };
    let is_plain = is_plain && packet.len() >= at + transport_bytes;
    let ports = is_plain.then(|| packet[at..at + 4].to_vec());
    Some(Place { addresses, protocol: Some(protocol), ports })
}

/// Panics unless both hold the same packets, and those of each flow, and what may be of it, are in
/// the same order.
fn assert_same_order(before: &[Vec<u8>], after: &[Vec<u8>]) {
    assert_eq!(before.len(), after.len());
    let of = |packets: &[Vec<u8>], wanted: &Place| -> Vec<Vec<u8>> {
        let belongs = |place: Place| {
            place.addresses == wanted.addresses
                && (place.protocol == wanted.protocol || place.protocol.is_none())
                && (place.ports == wanted.ports || place.ports.is_none())
        };
        let packets = packets.iter().filter(|packet| place(packet).is_some_and(belongs));
        packets.map(|packet| comparable(packet)).collect()
    };
    let places: BTreeSet<Place> = before.iter().filter_map(|packet| place(packet)).collect();
    for wanted in places {
        assert!(of(before, &wanted) == of(after, &wanted), "a flow was changed");
    }
    let others = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
        packets.iter().filter(|packet| place(packet).is_none()).cloned().collect()
    };
    assert!(others(before) == others(after), "a foreign packet was changed");
}

/// A packet without what merging may change: the transport checksum, and an id without meaning.
fn comparable(packet: &[u8]) -> Vec<u8> {
    let mut comparable = packet.to_vec();
    let Some(Place { ports: Some(_), .. }) = place(packet) else { return comparable };
    let (at, protocol) = if packet[0] >> 4 == 4 { (20, packet[9]) } else { (40, packet[6]) };
    let checksum = at + if protocol == 6 { 16 } else { 6 };
    comparable[checksum..checksum + 2].fill(0);
    if at == 20 && packet[6] & 0x40 != 0 {
        comparable[4..6].fill(0);
        comparable[10..12].fill(0);
    }
    comparable
}
