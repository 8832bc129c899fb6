use super::*;
use crate::packet::tests::sample::{
    ACK, CWR, FIN, PSH, RST, SYN, Sample, URG, assert_right, gather, lay_out,
};

const BOTH: Mergeable = Mergeable { tcp: true, udp: true };

/// What the device is given for `packets`: vnet header and packet of each write.
fn writes(packets: &[Vec<u8>], mergeable: Mergeable) -> Vec<(VnetHeader, Vec<u8>)> {
    let (mut slabs, ranges) = lay_out(packets);
    let mut coalescer = Coalescer::new(mergeable, packets.len());
    let plan = coalescer.plan(&mut slabs, &ranges);
    plan.map(|group| gather(&group, &slabs)).collect()
}

/// How many packets each write holds.
#[track_caller]
fn counts(packets: &[Vec<u8>]) -> Vec<usize> {
    let (mut slabs, ranges) = lay_out(packets);
    let mut coalescer = Coalescer::new(BOTH, packets.len());
    let plan = coalescer.plan(&mut slabs, &ranges);
    let counts: Vec<usize> = plan.clone().map(|group| group.count()).collect();
    assert_eq!(counts.iter().sum::<usize>(), packets.len(), "each packet is written once");
    for group in plan {
        assert_eq!(group.pieces().count(), group.count());
        let (vnet, packet) = gather(&group, &slabs);
        assert_eq!(group.to_packet(&slabs), (vnet, packet.clone()));
        if group.count() == 1 {
            assert_eq!(vnet, VnetHeader::default());
            assert!(packets.contains(&packet), "a lone packet is as it came");
        }
    }
    counts
}

/// `count` packets of a flow in a row, each of as many bytes of payload as `sample`.
fn row(sample: &Sample, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|position| nth(sample, position).packet()).collect()
}

/// The packet that `position` equal ones lie before.
fn nth(sample: &Sample, position: usize) -> Sample {
    let mut sample = sample.clone();
    sample.id = sample.id.wrapping_add(position as u16);
    if let Some(tcp) = &mut sample.tcp {
        tcp.sequence = tcp.sequence.wrapping_add((position * sample.payload.len()) as u32);
    }
    sample
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
fn a_row_of_packets_becomes_what_the_kernel_would_have_made() {
    for sample in four_kinds(1368) {
        let packets = row(&sample, 45);
        let mut whole = sample.clone();
        whole.payload = sample.payload.repeat(45);
        let (packet, mut vnet) = whole.super_packet(1368);
        vnet.header_length = sample.header_bytes() as u16;
        assert_eq!(writes(&packets, BOTH), [(vnet, packet)]);
    }
}

#[test]
fn a_lone_packet_stays_as_it_is() {
    let mut packets: Vec<_> = four_kinds(100).iter().map(Sample::packet).collect();
    packets.extend([vec![], vec![0], vec![0x45; 19], vec![0x60; 39], vec![0xff; 60]]);
    let expected: Vec<_> =
        packets.iter().map(|packet| (VnetHeader::default(), packet.clone())).collect();
    assert_eq!(writes(&packets, BOTH), expected);
}

#[test]
fn what_the_device_refuses_is_not_merged() {
    for (mergeable, tcp, udp) in [
        (Mergeable { tcp: true, udp: false }, 1, 3),
        (Mergeable { tcp: false, udp: true }, 3, 1),
        (Mergeable { tcp: false, udp: false }, 3, 3),
    ] {
        for sample in four_kinds(100) {
            let expected = if sample.tcp.is_some() { tcp } else { udp };
            assert_eq!(writes(&row(&sample, 3), mergeable).len(), expected);
        }
    }
    let mut coalescer = Coalescer::new(BOTH, 3);
    coalescer.set_mergeable(Mergeable { tcp: false, udp: false });
    let (mut slabs, ranges) = lay_out(&row(&Sample::tcp(false, 10), 3));
    assert_eq!(coalescer.plan(&mut slabs, &ranges).count(), 3);
}

#[test]
fn a_header_field_that_differs_keeps_packets_apart() {
    type Change = (&'static str, fn(&mut Sample));
    let of_ip: [Change; 2] = [
        ("traffic class", |sample| sample.class ^= 1),
        ("time to live", |sample| sample.hop_limit -= 1),
    ];
    let of_v4: [Change; 1] = [("don't fragment", |sample| sample.dont_fragment = false)];
    let of_v6: [Change; 1] = [("flow label", |sample| sample.flow_label ^= 1)];
    let of_tcp: [Change; 7] = [
        ("acknowledgement", |sample| sample.tcp.as_mut().unwrap().acknowledgement += 1),
        ("window", |sample| sample.tcp.as_mut().unwrap().window += 1),
        ("urgent pointer", |sample| sample.tcp.as_mut().unwrap().urgent = 1),
        ("timestamp", |sample| sample.tcp.as_mut().unwrap().options[7] += 1),
        ("length of the options", |sample| sample.tcp.as_mut().unwrap().options.truncate(8)),
        ("reserved bits", |sample| sample.tcp.as_mut().unwrap().reserved = 1),
        ("more options", |sample| sample.tcp.as_mut().unwrap().options.extend([1; 4])),
    ];
    for sample in four_kinds(100) {
        let mut changes = of_ip.to_vec();
        changes.extend(if sample.is_v6 { of_v6 } else { of_v4 });
        if sample.tcp.is_some() {
            changes.extend(of_tcp);
        }
        for (field, change) in changes {
            let mut packets = row(&sample, 2);
            packets.extend([2, 3].map(|position| {
                let mut changed = nth(&sample, position);
                change(&mut changed);
                changed.packet()
            }));
            let apart: &[usize] = if field == "reserved bits" { &[2, 1, 1] } else { &[2, 2] };
            assert_eq!(counts(&packets), apart, "{field}");
        }
    }
}

#[test]
fn a_flag_other_than_ack_and_psh_keeps_a_packet_alone() {
    for is_v6 in [false, true] {
        let sample = Sample::tcp(is_v6, 100);
        for flags in (0..=u8::MAX).filter(|flags| flags & !PSH != ACK) {
            let mut packets = row(&sample, 5);
            packets[2] = nth(&sample, 2).with(|tcp| tcp.flags = flags).packet();
            assert_eq!(counts(&packets), [2, 1, 2], "{flags:#x}");
            packets.remove(0);
            packets.remove(0);
            assert_eq!(counts(&packets), [1, 2], "{flags:#x} first");
        }
    }
}

#[test]
fn a_pushed_packet_is_the_last_of_its_group() {
    for is_v6 in [false, true] {
        let sample = Sample::tcp(is_v6, 100);
        let mut packets = row(&sample, 5);
        packets[2] = nth(&sample, 2).with(|tcp| tcp.flags |= PSH).packet();
        assert_eq!(counts(&packets), [3, 2]);
        let flags_at = sample.ip_bytes() + 13;
        let flags: Vec<u8> = writes(&packets, BOTH).iter().map(|(_, p)| p[flags_at]).collect();
        assert_eq!(flags, [ACK | PSH, ACK]);
        packets[0] = sample.clone().with(|tcp| tcp.flags |= PSH).packet();
        assert_eq!(counts(&packets), [1, 2, 2]);
    }
}

#[test]
fn a_shorter_payload_ends_a_group_and_a_longer_one_starts_another() {
    for sample in four_kinds(100) {
        let with_length = |position, len| {
            let mut sample = nth(&sample, position);
            sample.payload.resize(len, 7);
            sample.packet()
        };
        let mut packets = row(&sample, 4);
        packets[2] = with_length(2, 99);
        let after = Sample { payload: vec![1; 100], ..nth(&sample, 3) };
        packets[3] = if after.tcp.is_some() {
            after.with(|tcp| tcp.sequence = tcp.sequence.wrapping_sub(1)).packet()
        } else {
            after.packet()
        };
        assert_eq!(counts(&packets), [3, 1]);
        packets[2] = with_length(2, 101);
        packets.truncate(3);
        assert_eq!(counts(&packets), [2, 1]);
    }
}

#[test]
fn a_gap_or_a_repetition_starts_another_group() {
    for is_v6 in [false, true] {
        let sample = Sample { dont_fragment: true, ..Sample::tcp(is_v6, 100) };
        let at = |sequence: u32, id| {
            let sample = Sample { id, ..sample.clone() };
            sample.with(|tcp| tcp.sequence = tcp.sequence.wrapping_add(sequence)).packet()
        };
        assert_eq!(counts(&[at(0, 0), at(100, 1), at(300, 2), at(400, 3)]), [2, 2]);
        assert_eq!(counts(&[at(0, 0), at(100, 1), at(100, 2), at(200, 3)]), [2, 2]);
        assert_eq!(counts(&[at(0, 0), at(100, 1), at(201, 2)]), [2, 1]);
        assert_eq!(counts(&[at(100, 0), at(0, 1), at(200, 2)]), [1, 1, 1]);
    }
}

#[test]
fn ids_count_up_or_stay_where_nobody_needs_them() {
    for sample in [Sample::tcp(false, 100), Sample::udp(false, 100)] {
        let with_ids = |dont_fragment, ids: &[u16]| {
            let one = |(position, id): (usize, &u16)| {
                Sample { id: *id, dont_fragment, ..nth(&sample, position) }.packet()
            };
            counts(&ids.iter().enumerate().map(one).collect::<Vec<_>>())
        };
        for dont_fragment in [false, true] {
            assert_eq!(with_ids(dont_fragment, &[65_534, 65_535, 0, 1]), [4]);
            assert_eq!(with_ids(dont_fragment, &[1, 2, 4, 5]), [2, 2]);
            assert_eq!(with_ids(dont_fragment, &[5, 4, 3]), [1, 1, 1]);
            assert_eq!(with_ids(dont_fragment, &[1, 2, 2]), [2, 1]);
        }
        assert_eq!(with_ids(true, &[7, 7, 7]), [3]);
        assert_eq!(with_ids(true, &[7, 7, 8]), [2, 1]);
        assert_eq!(with_ids(false, &[7, 7, 7]), [1, 1, 1]);
    }
}

#[test]
fn a_packet_without_payload_never_joins() {
    for sample in four_kinds(100) {
        let mut packets = row(&sample, 4);
        packets.insert(2, Sample { payload: Vec::new(), ..nth(&sample, 2) }.packet());
        assert_eq!(counts(&packets), [2, 1, 2]);
    }
}

#[test]
fn what_may_be_of_an_open_flow_closes_it() {
    for sample in four_kinds(100) {
        let mut odd: Vec<[Vec<u8>; 3]> = Vec::new();
        let mut spoil = |spoil: &dyn Fn(&mut Vec<u8>)| {
            odd.push([2, 3, 4].map(|position| {
                let mut packet = nth(&sample, position).packet();
                spoil(&mut packet);
                if !sample.is_v6 {
                    let header_bytes = usize::from(packet[0] & 15) * 4;
                    packet[10..12].fill(0);
                    let sum = checksum(&packet[..header_bytes]);
                    put(&mut packet, 10, sum);
                }
                packet
            }));
        };
        if sample.is_v6 {
            // A fragment, and other extension headers.
            for next in [44, 0, 43, 60, 51] {
                spoil(&|packet| packet[6] = next);
            }
            spoil(&|packet| packet[5] ^= 1);
        } else {
            for (at, bits) in [(6, 0x20), (6, 0x80), (6, 0x10), (7, 1)] {
                spoil(&|packet| packet[at] |= bits);
            }
            spoil(&|packet| packet[3] ^= 1);
            spoil(&|packet| {
                packet[0] = 0x46;
                packet.splice(20..20, [1; 4]);
                packet[3] += 4;
            });
        }
        // The transport header is cut, or longer than the packet.
        let at = sample.ip_bytes();
        spoil(&|packet| {
            packet.truncate(at + 7);
            let len = packet.len() as u8;
            if sample.is_v6 { packet[5] = len - 40 } else { packet[3] = len }
        });
        if sample.tcp.is_some() {
            spoil(&|packet| packet[at + 12] = 4 << 4);
            spoil(&|packet| {
                packet.truncate(at + 59);
                packet[at + 12] = 15 << 4;
                let len = packet.len() as u8;
                if sample.is_v6 { packet[5] = len - 40 } else { packet[3] = len }
            });
        }
        for (position, odd) in odd.into_iter().enumerate() {
            assert_eq!(counts(&odd), [1, 1, 1], "{position}");
            let mut packets = row(&sample, 4);
            packets.insert(2, odd[0].clone());
            assert_eq!(counts(&packets), [2, 1, 2], "{position}");
        }
    }
}

#[test]
fn a_tcp_header_that_is_no_whole_one_is_never_merged() {
    for is_v6 in [false, true] {
        let sample = Sample::tcp(is_v6, 100);
        for words in 0..5 {
            // What would be its payload, were it one.
            let payload = 32 + 100 - u32::from(words) * 4;
            let packets = [0, 1].map(|position| {
                let sample = sample.clone().with(|tcp| tcp.sequence = position * payload);
                let mut packet = sample.packet();
                packet[sample.ip_bytes() + 12] = words << 4;
                packet
            });
            assert_eq!(counts(&packets), [1, 1], "{words} words");
        }
    }
}

#[test]
fn what_the_kernel_would_not_accept_is_not_mended_by_merging() {
    for sample in four_kinds(100) {
        let at = sample.checksum_at();
        let apart = |spoil: &dyn Fn(&mut Vec<u8>)| {
            let mut packets = row(&sample, 5);
            spoil(&mut packets[2]);
            assert_eq!(counts(&packets), [2, 1, 2]);
        };
        if !sample.is_v6 {
            apart(&|packet| packet[11] ^= 1);
        }
        if sample.tcp.is_none() {
            // No checksum; a length that is not the packet's.
            apart(&|packet| packet[at..at + 2].fill(0));
            apart(&|packet| packet[at - 1] ^= 1);
        }
    }
}

#[test]
fn other_packets_close_nothing() {
    for sample in four_kinds(100) {
        let mut icmp = nth(&sample, 2).packet();
        if sample.is_v6 {
            icmp[6] = 58;
        } else {
            icmp[9] = 1;
        }
        let mut other_port = sample.clone();
        other_port.port += 1;
        let mut other_host = sample.clone();
        other_host.host += 1;
        let mut fragment_of_other_host = other_host.packet();
        if sample.is_v6 {
            fragment_of_other_host[6] = 44;
        } else {
            fragment_of_other_host[6] |= 0x20;
        }
        let mut others =
            vec![icmp, other_port.packet(), other_host.packet(), fragment_of_other_host];
        if !sample.is_v6 {
            let mut fragment_of_other_protocol = sample.packet();
            fragment_of_other_protocol[6] |= 0x20;
            fragment_of_other_protocol[9] ^= 6 ^ 17;
            others.push(fragment_of_other_protocol);
        }
        for other in others.into_iter().chain([vec![], vec![0x45], vec![0x20; 40]]) {
            let mut packets = row(&sample, 4);
            packets.insert(2, other);
            assert_eq!(counts(&packets), [4, 1]);
        }
    }
}

#[test]
fn a_group_stays_within_what_headers_and_kernels_can_say() {
    for sample in four_kinds(1368) {
        let most = (65_535 - sample.header_bytes()) / 1368;
        assert_eq!(counts(&row(&sample, 100)), [most, most, 100 - 2 * most]);
    }
    for sample in four_kinds(20) {
        let most = if sample.tcp.is_some() { 128 } else { 64 };
        assert_eq!(counts(&row(&sample, 150))[..1], [most]);
    }
    // To the byte.
    for sample in four_kinds(1) {
        let mut sample = sample;
        let rest = 65_535 - sample.header_bytes();
        sample.payload = vec![1; rest / 2 + 1];
        let mut last = nth(&sample, 1);
        last.payload.truncate(rest - sample.payload.len());
        assert_eq!(counts(&[sample.packet(), last.packet()]), [2]);
        last.payload.push(1);
        assert_eq!(counts(&[sample.packet(), last.packet()]), [1, 1]);
    }
}

#[test]
fn sixteen_flows_are_merged_at_once() {
    for is_v6 in [false, true] {
        let flows: Vec<_> = (0..16)
            .map(|port| {
                let sample =
                    if port % 2 == 0 { Sample::tcp(is_v6, 100) } else { Sample::udp(is_v6, 100) };
                Sample { port: port / 2, ..sample }
            })
            .collect();
        let turns = (0..10).flat_map(|turn| flows.iter().map(move |flow| nth(flow, turn).packet()));
        assert_eq!(counts(&turns.collect::<Vec<_>>()), [10; 16]);
    }
}

#[test]
fn one_flow_more_closes_one_and_the_others_go_on() {
    let flows: Vec<_> = (0..17).map(|port| Sample { port, ..Sample::udp(false, 100) }).collect();
    let mut packets: Vec<_> = flows.iter().map(Sample::packet).collect();
    packets.extend(flows[1..].iter().rev().map(|flow| nth(flow, 1).packet()));
    let counts = counts(&packets);
    assert_eq!(counts.iter().filter(|count| **count == 2).count(), 15);
}

#[test]
fn packets_beyond_the_room_are_written_alone_and_last() {
    let packets = row(&Sample::tcp(false, 100), 10);
    let (mut slabs, ranges) = lay_out(&packets);
    let mut coalescer = Coalescer::new(BOTH, 6);
    for _ in 0..2 {
        let (mut slabs, ranges) = lay_out(&packets[..6]);
        assert_eq!(coalescer.plan(&mut slabs, &ranges).map(|g| g.count()).collect::<Vec<_>>(), [6]);
    }
    let plan = coalescer.plan(&mut slabs, &ranges);
    let writes: Vec<_> = plan.map(|group| (group.count(), gather(&group, &slabs).1)).collect();
    assert_eq!(writes[0].0, 6);
    for (position, (count, packet)) in writes[1..].iter().enumerate() {
        assert_eq!((*count, packet), (1, &packets[6 + position]));
    }
    let mut none = Coalescer::new(BOTH, 0);
    assert_eq!(none.plan(&mut slabs, &ranges).count(), 10);
}

#[test]
fn a_group_that_is_refused_comes_apart_into_the_packets_that_came() {
    for sample in four_kinds(500) {
        let mut packets = row(&sample, 5);
        if sample.tcp.is_some() {
            packets[4] = nth(&sample, 4).with(|tcp| tcp.flags |= PSH).packet();
        }
        packets.push(vec![0x45; 60]);
        packets.iter().take(5).for_each(|packet| assert_right(packet));
        let (mut slabs, ranges) = lay_out(&packets);
        let mut coalescer = Coalescer::new(BOTH, 6);
        let mut apart = Vec::new();
        for group in coalescer.plan(&mut slabs, &ranges) {
            for piece in group.dissolve(&mut slabs) {
                let (vnet, packet) = piece.bytes(&slabs).split_at(10);
                assert_eq!(vnet, [0; 10]);
                apart.push(packet.to_vec());
            }
        }
        assert_eq!(apart, packets);
    }
}

#[test]
fn connections_start_and_end_in_order() {
    let sample = Sample::tcp(true, 100);
    let with = |position, flags, len| {
        let mut sample = nth(&sample, position);
        sample.payload.truncate(len);
        sample.with(|tcp| tcp.flags = flags).packet()
    };
    let packets = [
        with(0, SYN, 0),
        with(0, ACK, 0),
        with(0, ACK, 100),
        with(1, ACK | URG, 100),
        with(2, ACK | CWR, 100),
        with(3, ACK, 100),
        with(4, ACK | PSH, 100),
        with(5, ACK | FIN, 0),
        with(5, RST, 0),
    ];
    assert_eq!(counts(&packets), [1, 1, 1, 1, 1, 2, 1, 1]);
}
