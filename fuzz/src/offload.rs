//! Cutting and merging of packets.

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
    let (count, largest) = (splitter.count() as usize, splitter.largest());
    let mut packets: Vec<Vec<u8>> = Vec::new();
    while let Some(packet) = splitter.next() {
        packets.push(packet.to_vec());
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

/// A super-packet as the kernel makes it, and then up to seven bytes of its headers changed.
fn almost_right(choices: &mut Choices<'_>) -> (VnetHeader, Vec<u8>) {
    let (is_v6, is_tcp) = (choices.byte() & 1 != 0, choices.byte() & 1 != 0);
    let options = if is_tcp { usize::from(choices.byte() % 11) * 4 } else { 0 };
    let payload = number(&choices.bytes::<2>(), 0) % 4096;
    let size = 1 + choices.byte() as u16 * (1 + choices.byte() as u16 % 8);
    let ip_bytes = if is_v6 { 40 } else { 20 };
    let transport = if is_tcp { 20 + options } else { 8 };
    let mut packet = vec![0; ip_bytes + transport + payload];
    let fill = choices.byte();
    for (place, byte) in packet[ip_bytes..].iter_mut().enumerate() {
        *byte = (place as u8).wrapping_mul(fill);
    }
    let length = packet.len() as u16;
    if is_v6 {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
        packet[6] = if is_tcp { 6 } else { 17 };
    } else {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[9] = if is_tcp { 6 } else { 17 };
    }
    if is_tcp {
        packet[ip_bytes + 12] = (transport as u8) << 2;
        packet[ip_bytes + 13] = choices.byte() & !6;
    } else {
        packet[ip_bytes + 4..ip_bytes + 6]
            .copy_from_slice(&(length - ip_bytes as u16).to_be_bytes());
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
