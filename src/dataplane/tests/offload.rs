//! Super-packets, in memory and on a TUN device.

use std::net::{TcpListener, TcpStream, UdpSocket};

use super::*;
use crate::dataplane::port::{IpPort, Ready};
use crate::dataplane::tun_port::TunPort;
use crate::packet::batch::{IpBatch, PlainBatch, PlainRange};
use crate::packet::slab::Slab;
use crate::packet::split::Splitter;
use crate::sys::testing::{eventually, in_own_namespace, ip, refuse_calls};
use crate::sys::tun::{Tun, TunOffloads};
use crate::wire::ip::{IpHeader, set_ecn};
use crate::wire::vnet::{Gso, GsoKind, PartialChecksum, VnetHeader};

/// A UDP packet of `len` bytes that is to be cut into payloads of `size` bytes.
pub(super) fn super_packet(len: usize, size: u16) -> (Vec<u8>, VnetHeader) {
    let mut packet = there(len, 7);
    packet[20..24].copy_from_slice(&[0x30, 0x39, 0, 9]);
    packet[24..26].copy_from_slice(&u16::try_from(len - 20).unwrap().to_be_bytes());
    for (n, byte) in packet[28..].iter_mut().enumerate() {
        *byte = n.to_le_bytes()[0];
    }
    let vnet = VnetHeader {
        checksum: Some(PartialChecksum { start: 20, offset: 6 }),
        gso: Some(Gso { kind: GsoKind::UdpL4, size, ecn: false }),
        header_length: 28,
    };
    (packet, vnet)
}

fn cut(packet: &[u8], vnet: &VnetHeader) -> Vec<Vec<u8>> {
    let mut packet = packet.to_vec();
    let mut splitter = Splitter::new(&mut packet, vnet).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = splitter.next() {
        packets.push(packet.to_vec());
    }
    packets
}

#[test]
fn a_super_packet_leaves_as_one_train_and_arrives_as_its_packets() {
    let [mut a, mut b] = connected(at(0));
    let (packet, vnet) = super_packet(60_000, 1392);
    a.ip.push(&there(100, 1));
    a.ip.push_super(&packet, vnet);
    a.ip.push(&there(100, 2));
    a.settle(at(1));
    assert_eq!(a.udp.take_trains(), [1, 44, 1]);
    let datagrams = a.udp.take_sent();
    let expected: Vec<_> = std::iter::once(there(100, 1))
        .chain(cut(&packet, &vnet))
        .chain(std::iter::once(there(100, 2)))
        .collect();
    assert_eq!(b.receive(at(1), &a, &datagrams), expected);
    assert_eq!(b.tables.drops.total(), 0, "no counter was used twice");
}

#[test]
fn a_super_packet_waits_for_a_session_as_its_packets() {
    let [mut a, _] = strangers();
    let (packet, vnet) = super_packet(5_000, 1000);
    a.ip.push_super(&packet, vnet);
    a.settle(at(1));
    assert_eq!(a.sessions_wanted(), 1);
    let [keypair, _] = handshake(at(1), [1, 2]);
    let sealer = a.install(keypair, true);
    a.make_current(sealer);
    a.inbox.post(ShardCommand::Flush(PEER));
    a.settle(at(1));
    let lengths: Vec<_> = a.udp.take_sent().iter().map(|sent| sent.bytes.len() - 32).collect();
    let padded: Vec<_> =
        cut(&packet, &vnet).iter().map(|packet| packet.len().next_multiple_of(16)).collect();
    assert_eq!(lengths, padded);
}

/// Turns of `node` a millisecond apart from `from` on, each of which finds more in the queue than it
/// can take: `bulk` and 40 packets of 100 bytes.
fn congest(node: &mut Node, from: u64, turns: u64, bulk: &(Vec<u8>, VnetHeader)) {
    for turn in 0..turns {
        node.ip.push_super(&bulk.0, bulk.1);
        (0..40).for_each(|_| node.ip.push(&there(100, 1)));
        let mono = at(from).mono + Duration::from_millis(turn);
        assert!(matches!(node.shard.turn(Now { mono, ..at(from) }, Ready::ALL), Turn::Worked(_)));
    }
}

#[test]
fn when_the_queue_stands_bulk_loses_a_packet_now_and_then_and_nobody_else_does() {
    let [mut a, mut b] = connected(at(0));
    let (packet, vnet) = super_packet(60_000, 1392);
    congest(&mut a, 1, 30, &(packet.clone(), vnet));
    assert_eq!(a.tables.drops.total(), 0);
    a.settle(at(1));
    a.udp.take_sent();

    congest(&mut a, 3, 31, &(packet, vnet));
    assert_eq!(a.dropped(DropReason::QueueStanding), 1);
    a.settle(at(3));
    let (mut small, mut large) = (0, 0);
    for packet in b.receive(at(3), &a, &a.udp.take_sent()) {
        *if packet.len() == 100 { &mut small } else { &mut large } += 1;
    }
    assert_eq!((small, large), (31 * 40, 31 * 44 - 1));
    assert_eq!(a.tables.drops.total() + b.tables.drops.total(), 1);

    let (lone, vnet) = super_packet(7 * 1392 + 27, 1392);
    congest(&mut a, 5, 60, &(lone, vnet));
    assert_eq!(a.tables.drops.total(), 1, "seven packets are not many");
}

#[test]
fn when_the_queue_stands_bulk_that_can_be_marked_is_marked_and_loses_nothing() {
    let [mut a, mut b] = connected(at(0));
    let (mut packet, vnet) = super_packet(60_000, 1392);
    set_ecn(&mut packet, Ecn::Ect0);
    congest(&mut a, 1, 31, &(packet, vnet));
    a.settle(at(1));
    let mut marks = [0; 4];
    for packet in b.receive(at(1), &a, &a.udp.take_sent()) {
        let header = IpHeader::parse(&packet).unwrap();
        assert_eq!(checksum(&packet[..20]), 0);
        marks[header.ecn() as usize] += 1;
    }
    assert_eq!(marks, [31 * 40, 0, 30 * 44, 44]);
    assert_eq!(a.tables.drops.total() + b.tables.drops.total(), 0);
}

/// As `there`, but of another flow than super-packets are.
fn other_flow(len: usize) -> Vec<u8> {
    packet("10.0.1.2", "10.0.2.1", 0, len, 1)
}

#[test]
fn a_lone_packet_does_not_wait_behind_the_bulk_of_others() {
    let [mut a, mut b] = connected(at(0));
    let (bulk, vnet) = super_packet(60_000, 1392);
    (0..7).for_each(|_| a.ip.push_super(&bulk, vnet));
    a.ip.push(&other_flow(100));
    assert!(matches!(a.shard.turn(at(1), Ready::ALL), Turn::Worked(_)));
    assert_eq!(a.udp.take_trains(), [44, 1, 44, 44]);
    // Nothing is left in the port.
    let rest = Ready { ip: false, ..Ready::ALL };
    assert!(matches!(a.shard.turn(at(1), rest), Turn::Worked(_)));
    assert!(matches!(a.shard.turn(at(1), rest), Turn::Worked(_)));
    assert!(matches!(a.shard.turn(at(1), rest), Turn::Idle));
    assert_eq!(a.udp.take_trains(), [44; 4]);
    let received = b.receive(at(1), &a, &a.udp.take_sent());
    assert_eq!(received.len(), 7 * 44 + 1);
    assert_eq!(received[44], other_flow(100));
    assert_eq!(received[45..89], cut(&bulk, &vnet));
}

#[test]
fn of_two_flows_the_one_whose_queue_stands_is_told_and_the_other_is_not() {
    let [mut a, _] = connected(at(0));
    let (greedy, vnet) = super_packet(60_000, 1392);
    let mut modest = greedy.clone();
    modest[15] = 2;
    modest[10..12].fill(0);
    let sum = checksum(&modest[..20]);
    modest[10..12].copy_from_slice(&sum.to_be_bytes());
    set_ecn(&mut modest, Ecn::Ect0);
    (0..20).for_each(|_| a.ip.push_super(&greedy, vnet));
    for turn in 0..60 {
        a.ip.push_super(&modest, vnet);
        (0..2).for_each(|_| a.ip.push_super(&greedy, vnet));
        let now = Now { mono: at(1).mono + Duration::from_millis(turn), ..at(1) };
        assert!(matches!(a.shard.turn(now, Ready::ALL), Turn::Worked(_)));
    }
    assert!(a.dropped(DropReason::QueueStanding) > 1);
    assert_eq!(a.tables.drops.total(), a.dropped(DropReason::QueueStanding));
    let marked = a.udp.take_sent().iter().filter(|sent| sent.traffic_class & 3 == 3).count();
    assert_eq!(marked, 0, "whose queue runs empty is left alone");
}

#[test]
fn what_contradicts_its_header_is_dropped_alone() {
    let [mut a, _] = connected(at(0));
    let (packet, mut vnet) = super_packet(5_000, 1000);
    vnet.checksum = None;
    a.ip.push_super(&packet, vnet);
    a.ip.push(&there(100, 1));
    a.settle(at(1));
    assert_eq!(a.udp.take_sent().len(), 1);
    assert_eq!(a.dropped(DropReason::OutboundBadOffload), 1);
}

#[test]
fn more_trains_than_there_are_go_in_several_calls_and_in_order() {
    let [mut a, mut b] = connected(at(0));
    let (packet, vnet) = super_packet(60_000, 200);
    for _ in 0..40 {
        a.ip.push_super(&packet, vnet);
    }
    a.settle(at(1));
    let datagrams = a.udp.take_sent();
    let expected: Vec<_> = (0..40).flat_map(|_| cut(&packet, &vnet)).collect();
    assert_eq!(b.receive(at(1), &a, &datagrams), expected);
}

/// A TUN that is up, 10.9.0.1/24, with its port.
fn tun_port(wanted: TunOffloads) -> TunPort {
    let tun = Tun::create("hw0", wanted).unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/hw0/disable_ipv6", "1").unwrap();
    ip("address add 10.9.0.1/24 dev hw0");
    ip("link set hw0 up");
    TunPort::new(tun)
}

/// Lays `packets` out as inbound does, and delivers them.
fn deliver(port: &mut TunPort, packets: &[Vec<u8>]) -> usize {
    let mut slabs: Vec<_> = packets.iter().map(|_| Slab::new()).collect();
    let ranges: Vec<_> = packets
        .iter()
        .enumerate()
        .map(|(slab, packet)| {
            slabs[slab][16..16 + packet.len()].copy_from_slice(packet);
            PlainRange { slab, start: 16, len: packet.len() }
        })
        .collect();
    port.send(&mut PlainBatch::new(&mut slabs, &ranges)).unwrap()
}

/// Twenty packets of one flow to `10.9.0.1:port`, of 1000 payload bytes each.
fn flow_to(port: u16) -> Vec<Vec<u8>> {
    let (mut packet, vnet) = super_packet(28 + 20_000, 1000);
    packet[12..20].copy_from_slice(&[10, 9, 0, 2, 10, 9, 0, 1]);
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    cut(&packet, &vnet)
}

/// The payloads that arrive, of which there are twenty.
fn arriving(socket: &UdpSocket) -> Vec<Vec<u8>> {
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2048];
    let mut payloads = Vec::new();
    let all = || {
        while let Ok(len) = socket.recv(&mut buffer) {
            payloads.push(buffer[..len].to_vec());
        }
        payloads.len() >= 20
    };
    assert!(eventually(all));
    payloads
}

#[test]
fn packets_of_a_flow_reach_a_socket_whatever_the_device_takes() {
    for wanted in [TunOffloads::ALL, TunOffloads { tcp: true, udp: false }, TunOffloads::NONE] {
        in_own_namespace(|| {
            let mut port = tun_port(wanted);
            let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
            let packets = flow_to(socket.local_addr().unwrap().port());
            assert_eq!(deliver(&mut port, &packets), 0);
            let payloads: Vec<_> = packets.iter().map(|packet| packet[28..].to_vec()).collect();
            assert_eq!(arriving(&socket), payloads);
        });
    }
}

/// U-22.
#[test]
fn a_device_that_refuses_merged_packets_gets_them_one_by_one() {
    in_own_namespace(|| {
        let mut port = tun_port(TunOffloads::ALL);
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        let packets = flow_to(socket.local_addr().unwrap().port());
        let payloads: Vec<_> = packets.iter().map(|packet| packet[28..].to_vec()).collect();
        // A packet of one piece is written by another call.
        refuse_calls(libc::SYS_writev, None, libc::EINVAL);
        assert_eq!(deliver(&mut port, &packets), 0);
        assert_eq!(arriving(&socket), payloads);
    });
}

#[test]
fn a_device_that_is_down_refuses_each_packet_and_stays() {
    in_own_namespace(|| {
        let mut port = tun_port(TunOffloads::ALL);
        ip("link set hw0 down");
        assert_eq!(deliver(&mut port, &flow_to(9)), 20);
    });
}

/// The kernel's own TCP over its own TUN: what it leaves to be cut is cut and handed back.
#[test]
fn what_tcp_leaves_to_us_comes_in_super_packets() {
    in_own_namespace(|| {
        let mut port = tun_port(TunOffloads::ALL);
        // Reflected with its addresses exchanged, the kernel's traffic is its peer's.
        let listener = TcpListener::bind("10.9.0.1:7").unwrap();
        let sender = std::thread::spawn(|| {
            let mut stream = TcpStream::connect("10.9.0.2:7").unwrap();
            std::io::Write::write_all(&mut stream, &[9; 400_000]).unwrap();
        });
        let receiver = std::thread::spawn(move || {
            let mut received = Vec::new();
            let mut stream = listener.accept().unwrap().0;
            std::io::Read::read_to_end(&mut stream, &mut received).unwrap();
            received
        });
        let mut batch = IpBatch::with_capacity(32, usize::MAX);
        let mut largest = 0;
        let mut reflect = || {
            batch.clear();
            port.recv(&mut batch).unwrap();
            let mut packets = Vec::new();
            for position in 0..batch.count() {
                let (packet, vnet) = batch.packet(position);
                largest = largest.max(packet.len());
                let mut splitter = Splitter::new(packet, &vnet.unwrap()).unwrap();
                while let Some(packet) = splitter.next() {
                    let mut packet = packet.to_vec();
                    packet[12..20].rotate_left(4);
                    packets.push(packet);
                }
            }
            assert_eq!(deliver(&mut port, &packets), 0);
            receiver.is_finished()
        };
        assert!(eventually(|| (0..100).any(|_| reflect())));
        assert!(largest > 10_000, "super-packets came, the longest of {largest} bytes");
        sender.join().unwrap();
        assert_eq!(receiver.join().unwrap(), [9; 400_000]);
    });
}
