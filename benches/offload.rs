//! What segmentation offload costs: a super-packet cut into packets, and packets merged into one.
//!
//! Bytes are those of the packets on the inside. Under `cargo test` everything runs once.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hybridwg::packet::batch::{PLAIN_HEADROOM, PlainRange};
use hybridwg::packet::coalesce::{Coalescer, Mergeable};
use hybridwg::packet::slab::Slab;
use hybridwg::packet::split::Splitter;
use hybridwg::wire::checksum::checksum;
use hybridwg::wire::vnet::{Gso, GsoKind, PartialChecksum, VnetHeader};

mod effort;

/// Payload of a packet of 1420 bytes with TCP timestamps.
const SEGMENT_BYTES: usize = 1368;
const SEGMENTS: usize = 45;
const HEADER_BYTES: usize = 20 + 32;

/// An IPv4 packet of TCP with timestamps and `payload` bytes; its checksums are not filled in.
fn tcp(sequence: u32, payload: usize) -> Vec<u8> {
    let len = u16::try_from(HEADER_BYTES + payload).expect("not more than a packet can hold");
    let mut packet = vec![0x5a; usize::from(len)];
    packet[..20].copy_from_slice(b"\x45\0\0\0\0\0\x40\0\x40\x06\0\0\x0a\0\0\x01\x0a\0\0\x02");
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[20..24].copy_from_slice(&[0x9c, 0x40, 0x14, 0x51]);
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[32..34].copy_from_slice(&[8 << 4, 0x10]);
    packet
}

fn sum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("offload/checksum");
    for len in [20, 64, 1420] {
        let packet = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(len.to_string(), |bencher| {
            bencher.iter(|| checksum(black_box(&packet)));
        });
    }
    group.finish();
}

fn split(criterion: &mut Criterion) {
    let mut packet = tcp(0, SEGMENTS * SEGMENT_BYTES);
    let vnet = VnetHeader {
        checksum: Some(PartialChecksum { start: 20, offset: 16 }),
        gso: Some(Gso { kind: GsoKind::TcpV4, size: SEGMENT_BYTES as u16, ecn: false }),
        header_length: 0,
    };
    let mut group = criterion.benchmark_group("offload/split");
    group.throughput(Throughput::Bytes(packet.len() as u64));
    group.bench_function("tcp_61_kb", |bencher| {
        bencher.iter(|| {
            // The first header is left as it was read, so that the packet can be cut again.
            let mut splitter = Splitter::new(&mut packet, &vnet).expect("a super-packet");
            let mut bytes = 0;
            while let Some(packet) = splitter.next() {
                bytes += black_box(packet).len();
            }
            packet[2..4].copy_from_slice(&(61_612_u16).to_be_bytes());
            assert_eq!(bytes, SEGMENTS * (HEADER_BYTES + SEGMENT_BYTES));
        });
    });
    group.finish();
}

/// As many packets as a train carries, of `flows` flows in turn; opened where they were received.
fn coalesce(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("offload/coalesce");
    for flows in [1, 8] {
        let packets: Vec<_> = (0..SEGMENTS)
            .map(|position| {
                let (flow, turn) = (position % flows, position / flows);
                let mut packet = tcp((turn * SEGMENT_BYTES) as u32, SEGMENT_BYTES);
                packet[21] = flow as u8;
                // Its id never changes, as it has no meaning.
                let sum = checksum(&packet[..20]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
                packet
            })
            .collect();
        let len = HEADER_BYTES + SEGMENT_BYTES;
        let (mut slabs, mut ranges) = ([Slab::new()], Vec::new());
        for (position, packet) in packets.iter().enumerate() {
            let start = PLAIN_HEADROOM + position * (len + PLAIN_HEADROOM + 16);
            slabs[0][start..start + len].copy_from_slice(packet);
            ranges.push(PlainRange { slab: 0, start, len });
        }
        let mergeable = Mergeable { tcp: true, udp: true };
        let mut coalescer = Coalescer::new(mergeable, SEGMENTS);
        group.throughput(Throughput::Bytes((SEGMENTS * len) as u64));
        group.bench_function(format!("tcp_45_packets_{flows}_flows"), |bencher| {
            bencher.iter(|| {
                // The heads were rewritten.
                for (range, packet) in ranges.iter().zip(&packets).take(flows) {
                    slabs[0][range.start..range.start + HEADER_BYTES]
                        .copy_from_slice(&packet[..HEADER_BYTES]);
                }
                let (mut writes, mut bytes) = (0, 0);
                for write in coalescer.plan(&mut slabs, &ranges) {
                    writes += 1;
                    bytes += write.pieces().map(|piece| black_box(piece).len).sum::<usize>();
                }
                assert_eq!((writes, bytes / SEGMENT_BYTES), (flows, SEGMENTS));
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = offload;
    config = effort::criterion();
    targets = sum, split, coalesce
}
criterion_main!(offload);
