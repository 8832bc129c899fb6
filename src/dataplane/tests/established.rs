//! Packets through a session that stands.

use super::*;
use crate::packet::batch::Received;

#[test]
fn packets_cross_both_ways_unchanged_and_in_order() {
    let [mut a, mut b] = connected(at(0));
    let sent: Vec<_> = (0..200).map(|n| there(60 + usize::from(n) * 7, n)).collect();
    let datagrams = a.send(at(1), &sent);
    assert_eq!(datagrams.len(), 200);
    assert!(datagrams.iter().all(|datagram| datagram.to.remote == b.address));
    assert_eq!(b.receive(at(1), &a, &datagrams), sent);

    let sent: Vec<_> =
        (0..3).map(|n| packet("fd00:2::1", "fd00:1::1", 0, 1420, n)).chain([back(48, 9)]).collect();
    let datagrams = b.send(at(1), &sent);
    assert_eq!(a.receive(at(1), &b, &datagrams), sent);
}

#[test]
fn trap_1_packets_are_padded_to_16_but_not_past_the_mtu() {
    let [mut a, _] = connected(at(0));
    a.tables.set_mtu(1299);
    let inner = [48, 49, 100, 1280, 1281, 1296, 1297, 1299];
    let padded = [48, 64, 112, 1280, 1296, 1296, 1299, 1299];
    let datagrams = a.send(at(1), &inner.map(|len| there(len, 1)));
    let lengths: Vec<_> = datagrams.iter().map(|datagram| datagram.bytes.len()).collect();
    assert_eq!(lengths, padded.map(|len| len + 32));
}

#[test]
fn every_datagram_counts_whole_on_both_sides() {
    let [mut a, mut b] = connected(at(0));
    let datagrams = a.send(at(1), &[there(100, 1), there(50, 2)]);
    b.receive(at(1), &a, &datagrams);
    let bytes = (112 + 32) + (64 + 32);
    assert_eq!((a.path().tx_bytes(), b.path().rx_bytes()), (bytes, bytes));
    assert_eq!((a.path().rx_bytes(), b.path().tx_bytes()), (0, 0));
}

#[test]
fn what_the_port_refuses_is_dropped_and_not_counted_as_sent() {
    let [mut a, b] = connected(at(0));
    a.udp.refuse(b.address);
    assert!(a.send(at(1), &[there(100, 1), there(100, 2)]).is_empty());
    assert_eq!((a.path().tx_bytes(), a.dropped(DropReason::UdpSendFailed)), (0, 2));
    assert_eq!(a.path().facts.unanswered_since(), None, "nothing left that could be answered");
}

#[test]
fn when_the_port_has_room_for_less_the_rest_is_dropped_and_the_shard_goes_on() {
    let [mut a, _] = connected(at(0));
    a.udp.set_room(Some(40));
    let packets: Vec<_> = (0..100).map(|n| there(100, n)).collect();
    assert_eq!(a.send(at(1), &packets).len(), 40);
    assert_eq!(a.dropped(DropReason::UdpSendFailed), 60);
    a.udp.set_room(None);
    assert_eq!(a.send(at(1), &packets).len(), 100);
}

#[test]
fn p_81_a_source_address_that_is_gone_is_forgotten_and_nothing_is_lost() {
    let [mut a, b] = connected(at(0));
    let local = Some(a.source());
    a.path().roam(Endpoint { remote: b.address, local });
    assert_eq!(a.send(at(1), &[there(100, 1)])[0].to.local, local);
    a.udp.lose_source(a.source().address);
    assert_eq!(a.send(at(1), &[there(100, 2)])[0].to.local, None);
    assert_eq!(a.path().endpoint(), Some(Endpoint::new(b.address)));
}

#[test]
fn a_keepalive_is_authenticated_traffic_but_no_data() {
    let [mut a, mut b] = connected(at(0));
    a.inbox.post(ShardCommand::Keepalive(PEER));
    a.settle(at(1));
    let datagrams = a.udp.take_sent();
    assert_eq!(datagrams.iter().map(|datagram| datagram.bytes.len()).collect::<Vec<_>>(), [32]);
    assert_eq!(a.path().facts.unanswered_since(), None);
    assert!(b.receive(at(2), &a, &datagrams).is_empty());
    assert_eq!(b.path().facts.last_traversal(), Some(at(2).mono));
    assert_eq!(b.path().facts.unacknowledged_since(), None, "trap 5: or it would be answered");
    assert_eq!((b.path().rx_bytes(), b.tables.drops.total()), (32, 0));
}

#[test]
fn data_is_noted_on_both_sides_and_the_engine_nudged_once() {
    let [mut a, mut b] = connected(at(0));
    let datagrams = a.send(at(1), &[there(100, 1), there(100, 2)]);
    assert_eq!(a.path().facts.unanswered_since(), Some(at(1).mono));
    assert!(matches!(a.signals()[..], [Signal::Nudge(PEER)]));
    b.receive(at(2), &a, &datagrams);
    assert_eq!(b.path().facts.unacknowledged_since(), Some(at(2).mono));
    assert!(matches!(b.signals()[..], [Signal::Nudge(PEER)]));
}

#[test]
fn the_congestion_mark_goes_out_with_the_datagram_and_dscp_stays_inside() {
    let [mut a, _] = connected(at(0));
    for ecn in 0..4 {
        let packets = ["10.0.1.1 10.0.2.1", "fd00:1::1 fd00:2::1"].map(|pair| {
            let (source, destination) = pair.split_once(' ').unwrap();
            packet(source, destination, 0xb8 | ecn, 100, 1)
        });
        let classes: Vec<_> =
            a.send(at(1), &packets).iter().map(|datagram| datagram.traffic_class).collect();
        assert_eq!(classes, [ecn, ecn]);
    }
}

#[test]
fn the_outer_congestion_mark_is_merged_as_rfc_6040_says() {
    const DROPPED: Option<u8> = None;
    let rows = [
        (0, [Some(0), Some(0), Some(0), DROPPED]),
        (1, [Some(1), Some(1), Some(1), Some(3)]),
        (2, [Some(2), Some(1), Some(2), Some(3)]),
        (3, [Some(3), Some(3), Some(3), Some(3)]),
    ];
    for (inner, row) in rows {
        for (outer, expected) in (0..4).zip(row) {
            for (source, destination) in [("10.0.1.1", "10.0.2.1"), ("fd00:1::1", "fd00:2::1")] {
                let [mut a, mut b] = connected(at(0));
                let mut datagrams =
                    a.send(at(1), &[packet(source, destination, 0x28 | inner, 100, 1)]);
                datagrams[0].traffic_class = outer;
                let delivered = b.receive(at(1), &a, &datagrams);
                let expected: Vec<_> = expected
                    .map(|ecn| packet(source, destination, 0x28 | ecn, 100, 1))
                    .into_iter()
                    .collect();
                assert_eq!(delivered, expected, "{inner} in {outer}");
                assert_eq!(b.dropped(DropReason::EcnIllegal), u64::from(expected.is_empty()));
            }
        }
    }
}

#[test]
fn datagrams_that_the_kernel_merged_come_apart() {
    let [mut a, mut b] = connected(at(0));
    let sent = [there(100, 1), there(100, 2), there(60, 3)];
    let datagrams = a.send(at(1), &sent);
    let stride = datagrams[0].bytes.len();
    let bytes: Vec<u8> = datagrams.into_iter().flat_map(|datagram| datagram.bytes).collect();
    let from = Endpoint::new(a.address);
    let received = Received { len: bytes.len(), stride, from, ecn: Ecn::NotEct, truncated: false };
    b.udp.push_message(received, &bytes);
    b.settle(at(1));
    assert_eq!(b.ip.take_delivered(), sent);
}

#[test]
fn the_longest_packet_that_a_datagram_can_carry_goes_and_a_longer_one_is_dropped() {
    let [mut a, mut b] = connected(at(0));
    a.tables.set_mtu(65_475);
    let sent = [there(65_475, 1)];
    let datagrams = a.send(at(1), &sent);
    assert_eq!(datagrams[0].bytes.len(), 65_507);
    assert_eq!(b.receive(at(1), &a, &datagrams), sent);
    a.tables.set_mtu(65_535);
    assert!(a.send(at(1), &[there(65_476, 1)]).is_empty());
    assert_eq!(a.dropped(DropReason::OutboundTooBig), 1);
}

#[test]
fn after_a_rebind_the_new_port_sends_and_receives() {
    let [mut a, mut b] = connected(at(0));
    let port = MemoryDatagramPort::default();
    a.inbox.post(ShardCommand::Rebind(Box::new(port.clone())));
    let old = a.send(at(1), &[there(100, 1)]);
    let new = port.take_sent();
    assert_eq!((old.len(), new.len()), (0, 1));
    b.receive(at(1), &a, &new);
    let datagrams = b.send(at(1), &[back(100, 2)]);
    port.push(Endpoint::new(b.address), Ecn::NotEct, &datagrams[0].bytes);
    a.settle(at(1));
    assert_eq!(a.ip.take_delivered(), [back(100, 2)]);
}
