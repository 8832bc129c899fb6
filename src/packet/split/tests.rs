use super::*;
use crate::crypto::entropy::{Entropy, SeededEntropy};
use crate::packet::tests::sample::{ACK, CWR, FIN, PSH, RST, SYN, Sample, URG, assert_right};

/// All packets of a super-packet; counted and measured in advance.
#[track_caller]
fn split(packet: &mut [u8], vnet: &VnetHeader) -> Vec<Vec<u8>> {
    let mut splitter = Splitter::new(packet, vnet).unwrap();
    let (count, largest) = (splitter.remaining(), splitter.largest());
    let mut packets = Vec::new();
    while let Some(packet) = splitter.next() {
        packets.push(packet.to_vec());
    }
    assert!(splitter.next().is_none());
    assert_eq!(packets.len(), count as usize);
    assert_eq!(packets.iter().map(Vec::len).max(), Some(largest));
    packets
}

fn refused(sample: &Sample, spoil: impl FnOnce(&mut Vec<u8>, &mut VnetHeader)) -> SplitError {
    let (mut packet, mut vnet) = sample.super_packet(100);
    spoil(&mut packet, &mut vnet);
    let before = packet.clone();
    let error = Splitter::new(&mut packet, &vnet).unwrap_err();
    assert_eq!(packet, before, "a refused packet is unchanged");
    error
}

/// What the sender would have sent itself without offload.
fn expected(whole: &Sample, size: u16) -> Vec<Vec<u8>> {
    let pieces = whole.payload.chunks(usize::from(size));
    let last = pieces.len() - 1;
    let one = |(position, payload): (usize, &[u8])| {
        let mut sample = Sample { payload: payload.to_vec(), ..whole.clone() };
        sample.id = whole.id.wrapping_add(position as u16);
        if let Some(tcp) = &mut sample.tcp {
            tcp.sequence = tcp.sequence.wrapping_add((position * usize::from(size)) as u32);
            if position > 0 {
                tcp.flags &= !CWR;
            }
            if position < last {
                tcp.flags &= !(FIN | PSH);
            }
        }
        sample.packet()
    };
    pieces.enumerate().map(one).collect()
}

fn four_kinds(len: usize) -> [Sample; 4] {
    [
        Sample::tcp(false, len),
        Sample::tcp(true, len),
        Sample::udp(false, len),
        Sample::udp(true, len),
    ]
}

#[test]
fn packets_are_those_that_a_sender_without_offload_makes() {
    for sample in four_kinds(61_000) {
        let (mut packet, vnet) = sample.super_packet(1368);
        let packets = split(&mut packet, &vnet);
        assert_eq!(packets.len(), 45);
        assert_eq!(packets, expected(&sample, 1368));
        packets.iter().for_each(|packet| assert_right(packet));
    }
}

#[test]
fn any_length_and_size_is_cut_right() {
    let entropy: &mut dyn Entropy = &mut SeededEntropy::new(1);
    for round in 0..2000 {
        let len = 1 + entropy.up_to(if round % 20 == 0 { 60_000 } else { 600 }) as usize;
        let size = 1 + entropy.up_to(if round % 3 == 0 { 40 } else { 300 }) as u16;
        for mut sample in four_kinds(len) {
            if let Some(tcp) = &mut sample.tcp {
                tcp.options.truncate(4 * entropy.up_to(3) as usize);
                tcp.flags |= [0, FIN, PSH, CWR, URG, FIN | PSH | CWR][entropy.up_to(5) as usize];
            }
            let (mut packet, vnet) = sample.super_packet(size);
            assert_eq!(split(&mut packet, &vnet), expected(&sample, size), "{len} by {size}");
        }
    }
}

#[test]
fn headers_longer_than_a_payload_overlap_without_harm() {
    let sample = Sample::tcp(true, 300).with(|tcp| tcp.options = vec![1; 40]);
    for size in 1..=100 {
        let (mut packet, vnet) = sample.super_packet(size);
        assert_eq!(split(&mut packet, &vnet), expected(&sample, size), "{size}");
    }
}

#[test]
fn options_of_ipv4_are_in_every_packet() {
    for mut sample in [Sample::tcp(false, 1000), Sample::udp(false, 1000)] {
        sample.ip_options = vec![1; 40];
        let (mut packet, vnet) = sample.super_packet(100);
        assert_eq!(split(&mut packet, &vnet), expected(&sample, 100));
    }
}

#[test]
fn a_last_packet_that_is_full_is_no_other() {
    let sample = Sample::tcp(false, 300).with(|tcp| tcp.flags |= FIN | PSH);
    let (mut packet, vnet) = sample.super_packet(100);
    let packets = split(&mut packet, &vnet);
    assert_eq!(
        packets.iter().map(|packet| packet[33]).collect::<Vec<_>>(),
        [ACK, ACK, ACK | FIN | PSH]
    );
}

#[test]
fn a_packet_of_one_segment_keeps_its_flags() {
    let sample = Sample::tcp(false, 50).with(|tcp| tcp.flags |= FIN | PSH | CWR);
    let (mut packet, vnet) = sample.super_packet(100);
    assert_eq!(split(&mut packet, &vnet), [sample.packet()]);
}

#[test]
fn only_the_first_packet_says_that_the_window_was_reduced() {
    let sample = Sample::tcp(true, 300).with(|tcp| tcp.flags |= CWR);
    let (mut packet, mut vnet) = sample.super_packet(100);
    vnet.gso.as_mut().unwrap().ecn = true;
    let flags: Vec<_> = split(&mut packet, &vnet).iter().map(|packet| packet[53]).collect();
    assert_eq!(flags, [ACK | CWR, ACK, ACK]);
}

#[test]
fn what_stood_in_the_fields_that_are_written_does_not_count() {
    for sample in four_kinds(1000) {
        let (mut packet, vnet) = sample.super_packet(100);
        let at = sample.checksum_at();
        packet[at..at + 2].fill(0xa5);
        if !sample.is_v6 {
            packet[10..12].fill(0x5a);
        }
        assert_eq!(split(&mut packet, &vnet), expected(&sample, 100));
    }
}

#[test]
fn a_udp_checksum_of_zero_is_written_as_its_other_form() {
    for is_v6 in [false, true] {
        let mut sample = Sample::udp(is_v6, 200);
        // The second packet's two last bytes are what makes its sum come out even.
        sample.payload[100..].fill(0);
        let at = sample.checksum_at();
        let (mut packet, vnet) = sample.super_packet(100);
        let sum = split(&mut packet, &vnet)[1][at..at + 2].to_vec();
        sample.payload[198..].copy_from_slice(&sum);
        let (mut packet, vnet) = sample.super_packet(100);
        let packets = split(&mut packet, &vnet);
        assert_eq!(packets[1][at..at + 2], [0xff, 0xff]);
        assert_right(&packets[1]);
    }
}

#[test]
fn a_lone_packet_is_completed_where_its_header_says() {
    for sample in four_kinds(333) {
        let (mut packet, vnet) = sample.super_packet(1);
        let vnet = VnetHeader { gso: None, ..vnet };
        assert_eq!(split(&mut packet, &vnet), [sample.packet()]);
    }
    // Of a protocol that we do not know, with its pseudo header's sum in the field.
    let mut packet = [0; 64];
    packet[0] = 0x45;
    packet[20..].fill(7);
    packet[50..52].copy_from_slice(&[0x12, 0x34]);
    let checksum = PartialChecksum { start: 40, offset: 10 };
    let vnet = VnetHeader { checksum: Some(checksum), ..VnetHeader::default() };
    let sum = Sum::new().add(&packet[40..]).finish().to_be_bytes();
    let completed = split(&mut packet, &vnet);
    assert_eq!(completed[0][50..52], sum);
}

#[test]
fn a_lone_packet_without_a_checksum_to_complete_passes_as_it_is() {
    for bytes in [&[][..], &[0xff], b"neither version nor length", &[0x45; 1500]] {
        assert_eq!(split(&mut bytes.to_vec(), &VnetHeader::default()), [bytes]);
    }
}

#[test]
fn a_checksum_outside_its_packet_is_refused() {
    let sample = Sample::udp(false, 12);
    for (start, offset) in [(0, 6), (19, 6), (40, 0), (20, 19), (39, 0), (u16::MAX, u16::MAX)] {
        let error = refused(&sample, |_, vnet| {
            *vnet = VnetHeader {
                checksum: Some(PartialChecksum { start, offset }),
                ..VnetHeader::default()
            };
        });
        assert_eq!(error, SplitError::ChecksumOutside, "{start} + {offset}");
    }
}

#[test]
fn a_super_packet_leaves_the_checksum_of_its_own_protocol() {
    for sample in four_kinds(1000) {
        for (start, offset) in [(0, 1), (0, 2), (2, 0)] {
            let error = refused(&sample, |_, vnet| {
                let place = vnet.checksum.as_mut().unwrap();
                place.start += start;
                place.offset += offset;
            });
            assert_eq!(error, SplitError::ChecksumElsewhere);
        }
        let error = refused(&sample, |_, vnet| vnet.checksum = None);
        assert_eq!(error, SplitError::ChecksumElsewhere);
    }
}

#[test]
fn a_super_packet_is_of_the_kind_it_says() {
    let kinds = [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpL4];
    for sample in four_kinds(1000) {
        let own = sample.super_packet(1).1.gso.unwrap().kind;
        for kind in kinds.into_iter().filter(|kind| *kind != own) {
            let error = refused(&sample, |_, vnet| vnet.gso.as_mut().unwrap().kind = kind);
            assert_eq!(error, SplitError::WrongProtocol, "{kind:?}");
        }
        for version in (0..16).filter(|version| ![4, 6].contains(version)) {
            let error = refused(&sample, |packet, _| packet[0] = packet[0] & 15 | version << 4);
            assert_eq!(error, SplitError::WrongProtocol, "version {version}");
        }
        // ICMP, and each extension header of IPv6.
        for protocol in [0, 1, 43, 44, 50, 51, 60, 135] {
            let at = if sample.is_v6 { 6 } else { 9 };
            let error = refused(&sample, |packet, _| packet[at] = protocol);
            assert_eq!(error, SplitError::WrongProtocol, "protocol {protocol}");
        }
        let error = refused(&sample, |packet, _| packet.clear());
        assert_eq!(error, SplitError::WrongProtocol);
    }
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    for sample in four_kinds(1000) {
        let len = sample.packet().len();
        for cut in 1..len {
            let error = refused(&sample, |packet, _| packet.truncate(cut));
            assert_eq!(error, SplitError::WrongLength, "{cut}");
        }
        let error = refused(&sample, |packet, _| packet.push(0));
        assert_eq!(error, SplitError::WrongLength);
        let wrong_ip = if sample.is_v6 { 5 } else { 3 };
        let error = refused(&sample, |packet, _| packet[wrong_ip] ^= 1);
        assert_eq!(error, SplitError::WrongLength);
    }
    for is_v6 in [false, true] {
        let udp = Sample::udp(is_v6, 1000);
        let error = refused(&udp, |packet, _| packet[udp.ip_bytes() + 5] ^= 1);
        assert_eq!(error, SplitError::WrongLength);
        let tcp = Sample::tcp(is_v6, 20);
        for words in [0, 4, 14, 15] {
            let error = refused(&tcp, |packet, _| packet[tcp.ip_bytes() + 12] = words << 4);
            assert_eq!(error, SplitError::WrongLength, "{words} words of TCP header");
        }
    }
    let error = refused(&Sample::tcp(false, 1000), |packet, _| packet[0] = 0x44);
    assert_eq!(error, SplitError::WrongLength);
}

#[test]
fn what_cannot_be_cut_is_refused() {
    for sample in four_kinds(1000) {
        let error = refused(&sample, |_, vnet| vnet.gso.as_mut().unwrap().size = 0);
        assert_eq!(error, SplitError::NoSize);
        let empty = Sample { payload: Vec::new(), ..sample.clone() };
        assert_eq!(refused(&empty, |_, _| ()), SplitError::NoPayload);
        if !sample.is_v6 {
            for (at, bits) in [(6, 0x20), (6, 0x10), (7, 1)] {
                let error = refused(&sample, |packet, _| packet[at] |= bits);
                assert_eq!(error, SplitError::Fragment);
            }
        }
    }
    for flag in [SYN, RST] {
        let sample = Sample::tcp(true, 1000).with(|tcp| tcp.flags |= flag);
        assert_eq!(refused(&sample, |_, _| ()), SplitError::WrongFlags);
    }
}

#[test]
fn the_longest_packets_of_both_versions_are_cut() {
    for (sample, len) in [
        (Sample::tcp(false, 65_535 - 52), 65_535),
        (Sample::udp(false, 65_535 - 28), 65_535),
        (Sample::tcp(true, 65_535 - 32), 65_575),
        (Sample::udp(true, 65_535 - 8), 65_575),
    ] {
        for size in [1, 1368, u16::MAX] {
            let (mut packet, vnet) = sample.super_packet(size);
            assert_eq!(packet.len(), len);
            let packets = split(&mut packet, &vnet);
            assert_eq!(packets.len(), sample.payload.len().div_ceil(usize::from(size)));
            packets.iter().for_each(|packet| assert_right(packet));
        }
    }
}
