//! What the tests of cutting and merging share, and what holds of both together.

use crate::crypto::entropy::{Entropy, SeededEntropy};
use crate::packet::coalesce::{Coalescer, Mergeable};
use crate::packet::split::Splitter;
use crate::wire::vnet::VnetHeader;
use sample::{ACK, PSH, Sample, Tcp, gather, lay_out};

pub mod sample;

const BOTH: Mergeable = Mergeable { tcp: true, udp: true };

fn split(mut packet: Vec<u8>, vnet: &VnetHeader) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut splitter = Splitter::new(&mut packet, vnet).unwrap();
    while let Some(packet) = splitter.next() {
        packets.push(packet.to_vec());
    }
    packets
}

fn coalesce(packets: &[Vec<u8>]) -> Vec<(VnetHeader, Vec<u8>)> {
    let (mut slabs, ranges) = lay_out(packets);
    let mut coalescer = Coalescer::new(BOTH, packets.len());
    coalescer.plan(&mut slabs, &ranges).map(|group| gather(&group, &slabs)).collect()
}

#[test]
fn a_super_packet_comes_out_of_the_tunnel_as_it_went_in() {
    let entropy: &mut dyn Entropy = &mut SeededEntropy::new(3);
    for round in 0..400 {
        let size = 1 + entropy.up_to(1399) as u16;
        let len = usize::from(size) + 1 + entropy.up_to(u32::from(size) * 44) as usize;
        let is_v6 = entropy.up_to(1) == 1;
        let mut sample =
            if round % 2 == 0 { Sample::tcp(is_v6, len) } else { Sample::udp(is_v6, len) };
        if let Some(tcp) = &mut sample.tcp {
            tcp.flags = [ACK, ACK | PSH][entropy.up_to(1) as usize];
        }
        let (packet, mut vnet) = sample.super_packet(size);
        vnet.header_length = sample.header_bytes() as u16;
        let packets = split(packet.clone(), &vnet);
        assert_eq!(coalesce(&packets), [(vnet, packet)], "{len} by {size}");
    }
}

/// A packet without what merging may change of it: an id that has no meaning.
fn comparable(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

/// A sender whose packets are sometimes short, pushed, empty or of another header than the last.
fn next_of(flow: &mut Sample, entropy: &mut dyn Entropy) -> Sample {
    let mut sent = flow.clone();
    if entropy.up_to(19) == 0 {
        sent.payload.truncate(entropy.up_to(120) as usize);
    }
    let advance = sent.payload.len() as u32;
    flow.id = flow.id.wrapping_add(u16::from(!flow.port.is_multiple_of(3)));
    let choice = entropy.up_to(79);
    match choice {
        0 => flow.class ^= 3,
        1 => flow.hop_limit = flow.hop_limit.wrapping_sub(1),
        2 => sent.payload.clear(),
        3 => flow.payload.resize(1 + entropy.up_to(199) as usize, 5),
        _ => {}
    }
    if let (Some(sent), Some(flow)) = (&mut sent.tcp, &mut flow.tcp) {
        let Tcp { sequence, acknowledgement, window, options, .. } = flow;
        match choice {
            10 => *acknowledgement = acknowledgement.wrapping_add(1),
            11 => *window = window.wrapping_add(1),
            12 if options.len() > 7 => options[7] = options[7].wrapping_add(1),
            13 => sent.flags |= entropy.up_to(255) as u8,
            14..19 => sent.flags |= PSH,
            _ => {}
        }
        // After 19 the same sequence number is sent again.
        if ![2, 19].contains(&choice) {
            *sequence = sequence.wrapping_add(advance);
        }
    }
    sent
}

#[test]
fn interleaved_flows_keep_their_packets_and_their_order() {
    for seed in 0..60 {
        let entropy: &mut dyn Entropy = &mut SeededEntropy::new(seed);
        let mut flows: Vec<Sample> = (0..1 + entropy.up_to(23) as u16)
            .map(|port| {
                let is_v6 = entropy.up_to(1) == 1;
                let sample =
                    if port % 4 == 1 { Sample::udp(is_v6, 120) } else { Sample::tcp(is_v6, 120) };
                Sample { port, dont_fragment: entropy.up_to(3) != 0, ..sample }
            })
            .collect();
        let mut packets = Vec::new();
        let mut flow = 0;
        for _ in 0..600 {
            if entropy.up_to(3) == 0 {
                flow = entropy.up_to(flows.len() as u32 - 1) as usize;
            }
            let sent = next_of(&mut flows[flow], entropy).packet();
            match entropy.up_to(39) {
                // Lost; repeated; late.
                0 => {}
                1 => packets.extend([sent.clone(), sent]),
                2 if !packets.is_empty() => packets.insert(packets.len() - 1, sent),
                _ => packets.push(sent),
            }
        }
        let writes = coalesce(&packets);
        assert!(writes.len() < packets.len(), "seed {seed}: nothing was merged");
        let after: Vec<_> =
            writes.into_iter().flat_map(|(vnet, packet)| split(packet, &vnet)).collect();
        let of = |packets: &[Vec<u8>], port: u16| -> Vec<Vec<u8>> {
            let port = port.to_be_bytes();
            let is_of = |packet: &&Vec<u8>| {
                let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
                packet[at..at + 2] == port
            };
            packets.iter().filter(is_of).map(|packet| comparable(packet)).collect()
        };
        assert_eq!(after.len(), packets.len(), "seed {seed}");
        for flow in flows {
            assert_eq!(
                of(&after, flow.port),
                of(&packets, flow.port),
                "seed {seed}, port {}",
                flow.port
            );
        }
    }
}
