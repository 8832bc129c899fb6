//! What the network or the host sends that must not get through, and what it must not move.

use super::*;
use crate::dataplane::Stop;
use crate::dataplane::port::Ready;
use crate::packet::batch::Received;
use crate::wire::ip::IpHeader;

#[test]
fn trap_15_a_datagram_that_was_cut_is_dropped_and_counted() {
    let [mut a, mut b] = connected(at(0));
    let datagrams = a.send(at(1), &[there(100, 1)]);
    let bytes = &datagrams[0].bytes;
    let (len, from) = (bytes.len(), Endpoint::new(a.address));
    let received = Received { len, stride: len, from, ecn: Ecn::NotEct, truncated: true };
    b.udp.push_message(received, bytes);
    b.settle(at(1));
    assert_eq!(b.dropped(DropReason::DatagramTruncated), 1);
    assert!(b.ip.take_delivered().is_empty());
}

#[test]
fn what_is_no_message_is_dropped_and_counted() {
    let [a, mut b] = connected(at(0));
    for bytes in [&[][..], &[4], &[4, 0, 0, 0], &[4; 31], &[0; 148], &[1; 147], &[9; 2000]] {
        b.udp.push(Endpoint::new(a.address), Ecn::NotEct, bytes);
    }
    b.settle(at(1));
    assert_eq!(b.dropped(DropReason::BadMessage), 7);
    assert_eq!(b.tables.drops.total(), 7);
}

#[test]
fn a_copy_of_a_datagram_is_dropped() {
    let [mut a, mut b] = connected(at(0));
    let datagrams = a.send(at(1), &[there(100, 1)]);
    let twice = [datagrams[0].clone(), datagrams[0].clone()];
    assert_eq!(b.receive(at(1), &a, &twice), [there(100, 1)]);
    assert_eq!(b.dropped(DropReason::CounterReplayed), 1);
}

#[test]
fn trap_2_any_authenticated_datagram_moves_the_endpoint() {
    let [mut a, mut b] = connected(at(0));
    let local = Some(b.source());
    let (first, second) = ("203.0.113.9:9".parse().unwrap(), "[2001:db8::9]:9".parse().unwrap());
    let data = a.send(at(1), &[there(100, 1)]);
    b.receive_from(at(1), first, &data);
    assert_eq!(b.path().endpoint(), Some(Endpoint { remote: first, local }));
    a.inbox.post(ShardCommand::Keepalive(PEER));
    a.settle(at(2));
    let keepalive = a.udp.take_sent();
    b.receive_from(at(2), second, &keepalive);
    assert_eq!(b.path().endpoint(), Some(Endpoint { remote: second, local }));
    assert_eq!(b.send(at(3), &[back(100, 1)])[0].to, Endpoint { remote: second, local });
}

#[test]
fn nothing_unauthenticated_moves_the_endpoint_or_counts() {
    let [mut a, mut b] = connected(at(0));
    let before = b.path().endpoint();
    let stranger = "203.0.113.66:6".parse().unwrap();
    let mut datagrams = a.send(at(1), &[there(100, 1), there(100, 2), there(100, 3)]);
    b.receive(at(1), &a, &datagrams[2..]);
    let bytes_before = b.path().rx_bytes();
    // A broken tag, a broken header, a copy, and a handshake message.
    *datagrams[0].bytes.last_mut().unwrap() ^= 1;
    datagrams[1].bytes[8] ^= 1;
    let (to, traffic_class) = (datagrams[0].to, 0);
    datagrams.push(SentDatagram {
        to,
        traffic_class,
        bytes: [&[1, 0, 0, 0][..], &[0; 144]].concat(),
    });
    assert!(b.receive_from(at(1), stranger, &datagrams).is_empty());
    assert_eq!(b.path().endpoint().unwrap().remote, before.unwrap().remote);
    assert_eq!(b.path().rx_bytes(), bytes_before);
    assert_eq!(b.dropped(DropReason::AuthenticationFailed), 2);
    assert_eq!(b.dropped(DropReason::CounterReplayed), 1);
}

#[test]
fn trap_16_a_source_under_another_peers_nested_prefix_is_refused() {
    let mut a = Node::new(A, &[("10.0.2.0/24", PEER)]);
    let mut b = Node::new(
        B,
        &[
            ("10.0.0.0/8", PEER),
            ("10.0.1.0/24", OTHER),
            ("fd00::/16", PEER),
            ("fd00:1::/64", OTHER),
        ],
    );
    let [initiator, responder] = handshake(at(0), [11, 22]);
    a.reach(b.address);
    a.make_current(a.install(initiator, true));
    b.install(responder, true);
    let mut allowed = AllowedIps::new();
    for net in ["10.0.2.0/24", "fd00:2::/64"] {
        allowed.insert(net.parse().unwrap(), PEER);
    }
    a.tables.set_routes(allowed.routes());
    let of = |source: &str, destination| packet(source, destination, 0, 100, 1);
    let refused =
        [of("10.0.1.1", "10.0.2.1"), of("fd00:1::1", "fd00:2::1"), of("192.168.0.1", "10.0.2.1")];
    let admitted = [of("10.0.3.1", "10.0.2.1"), of("fd00:3::1", "fd00:2::1")];
    let datagrams = a.send(at(1), &[&refused[..], &admitted[..]].concat());
    assert_eq!(datagrams.len(), 5);
    assert_eq!(b.receive(at(1), &a, &datagrams), admitted);
    assert_eq!(b.dropped(DropReason::SourceNotAllowed), 3);
}

#[test]
fn p_73_a_packet_with_a_forbidden_source_moves_the_endpoint_all_the_same() {
    let [mut a, mut b] = connected(at(0));
    let datagrams = a.send(at(1), &[packet("192.168.0.1", "10.0.2.1", 0, 100, 1)]);
    let roamed = "203.0.113.9:9".parse().unwrap();
    assert!(b.receive_from(at(1), roamed, &datagrams).is_empty());
    assert_eq!(b.dropped(DropReason::SourceNotAllowed), 1);
    assert_eq!(b.path().endpoint().unwrap().remote, roamed);
    assert_eq!(b.path().facts.unacknowledged_since(), Some(at(1).mono));
}

#[test]
fn inner_packets_that_are_not_what_they_say_are_dropped() {
    let [a, mut b] = connected(at(0));
    let sealer = a.path().sealer().as_ref().map(Arc::clone).unwrap();
    let mut longer = there(100, 1);
    longer[3] += 1;
    let mut shorter = there(100, 1);
    shorter[2..4].copy_from_slice(&[0, 19]);
    let cases = [
        (vec![0x50; 64], DropReason::InnerNotIp),
        (vec![0; 16], DropReason::InnerNotIp),
        (there(100, 1)[..16].to_vec(), DropReason::InnerBadLength),
        (packet("fd00:1::1", "fd00:2::1", 0, 100, 1)[..39].to_vec(), DropReason::InnerBadLength),
        (longer, DropReason::InnerBadLength),
        (shorter, DropReason::InnerBadLength),
    ];
    for (inner, reason) in cases {
        let before = b.dropped(reason);
        let mut bytes = vec![0; inner.len() + 32];
        let counter = sealer.reserve(1).unwrap().next().unwrap();
        sealer.seal(counter, &inner, 0, &mut bytes);
        b.udp.push(Endpoint::new(a.address), Ecn::NotEct, &bytes);
        b.settle(at(1));
        assert_eq!(b.dropped(reason), before + 1, "{reason:?}");
    }
    assert!(b.ip.take_delivered().is_empty());
}

#[test]
fn handshake_messages_reach_the_lane_with_their_sender() {
    let [a, mut b] = strangers();
    let from = Endpoint { remote: a.address, local: Some(b.source()) };
    for (kind, len) in [(1, 148), (2, 92), (3, 64)] {
        let mut bytes = vec![kind; len];
        bytes[1..4].fill(0);
        b.udp.push(from, Ecn::NotEct, &bytes);
        b.settle(at(1));
        let incoming = b.lane.next_handshake().unwrap();
        assert_eq!((incoming.from, &*incoming.datagram), (from, &*bytes));
    }
}

#[test]
fn a_full_lane_drops_handshakes_but_no_data() {
    let [mut a, mut b] = connected(at(0));
    let from = Endpoint::new(a.address);
    for _ in 0..4100 {
        b.udp.push(from, Ecn::NotEct, &[&[1, 0, 0, 0][..], &[0; 144]].concat());
    }
    let datagrams = a.send(at(1), &[there(100, 1)]);
    assert_eq!(b.receive(at(1), &a, &datagrams), [there(100, 1)]);
    assert_eq!(b.dropped(DropReason::LaneFull), 4);
}

#[test]
fn p_70_what_no_peer_takes_is_answered_by_icmp() {
    let [mut a, _] = connected(at(0));
    let requests =
        [packet("10.0.1.1", "10.9.9.9", 0, 100, 1), packet("fd00:1::1", "fd09::9", 0, 100, 1)];
    assert!(a.send(at(1), &requests).is_empty());
    let replies = a.ip.take_delivered();
    assert_eq!(replies.len(), 2);
    assert_eq!((&replies[0][20..22], &replies[0][28..]), (&[3, 1][..], &requests[0][..]));
    assert_eq!((&replies[1][40..42], &replies[1][48..]), (&[1, 3][..], &requests[1][..]));
    for (reply, request) in replies.iter().zip(&requests) {
        let (reply, request) = (IpHeader::parse(reply).unwrap(), IpHeader::parse(request).unwrap());
        assert_eq!((reply.source, reply.destination), (request.destination, request.source));
    }
    assert_eq!(a.dropped(DropReason::NoPeer), 2);
}

#[test]
fn p_70_a_peer_without_endpoint_is_answered_for_by_icmp_and_no_session_is_asked_for() {
    let mut a = Node::new(A, &[("10.0.2.0/24", PEER)]);
    assert!(a.send(at(1), &[there(100, 1)]).is_empty());
    assert_eq!(a.ip.take_delivered().len(), 1);
    assert_eq!(a.dropped(DropReason::NoEndpoint), 1);
    assert_eq!(a.sessions_wanted(), 0);
}

#[test]
fn icmp_replies_are_limited_to_a_burst_of_50_and_100_a_second() {
    let [mut a, _] = connected(at(0));
    let requests: Vec<_> = (0..200).map(|n| packet("10.0.1.1", "10.9.9.9", 0, 100, n)).collect();
    a.send(at(1), &requests);
    assert_eq!(a.ip.take_delivered().len(), 50);
    let later = Now { mono: at(1).mono + Duration::from_millis(100), ..Now::default() };
    a.send(later, &requests);
    assert_eq!(a.ip.take_delivered().len(), 10);
    assert_eq!(a.dropped(DropReason::NoPeer), 400);
}

#[test]
fn what_the_host_sends_that_is_no_whole_ip_packet_is_dropped() {
    let [mut a, _] = connected(at(0));
    let packets = [vec![0x50; 64], there(100, 1)[..19].to_vec(), there(100, 1)[..99].to_vec()];
    assert!(a.send(at(1), &packets).is_empty());
    assert_eq!(a.dropped(DropReason::OutboundNotIp), 3);
}

#[test]
fn trap_22_a_port_that_is_gone_stops_the_shard() {
    let [mut a, mut b] = connected(at(0));
    a.ip.vanish();
    assert!(matches!(a.shard.turn(at(1), Ready::ALL), Turn::Stopped(Stop::IpPortGone(_))));
    b.udp.vanish();
    assert!(matches!(b.shard.turn(at(1), Ready::ALL), Turn::Stopped(Stop::DatagramPortGone(_))));
}

/// A datagram from port 1001 of 10.0.1.1, as which `a` can be known in the tunnel, to its endpoint.
fn looped(source: &str, payload: &[u8]) -> Vec<u8> {
    let mut packet = packet(source, "10.0.2.9", 0, 28 + payload.len(), 0);
    packet[20..22].copy_from_slice(&1001_u16.to_be_bytes());
    packet[22..24].copy_from_slice(&1002_u16.to_be_bytes());
    packet[24..26].copy_from_slice(&u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    packet[28..].copy_from_slice(payload);
    packet
}

/// Lets the host's routes lead the endpoint of `a` into the tunnel.
fn misroute(a: &Node) {
    a.reach("10.0.2.9:1002".parse().unwrap());
    a.tables.set_listen_port(1001);
}

/// A message of that type with zeros in it.
fn message(kind: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[0] = kind;
    bytes
}

#[test]
fn trap_a_routing_loop_through_our_own_tunnel_ends_at_its_first_turn() {
    let [mut a, _] = connected(at(0));
    misroute(&a);
    let sent = a.send(at(1), &[there(100, 1)]);
    assert!(a.send(at(1), &[looped("10.0.1.1", &sent[0].bytes)]).is_empty());
    assert_eq!(a.dropped(DropReason::RoutingLoop), 1);
    // A handshake message says nothing of the session: it makes one turn more, inside of it.
    let sent = a.send(at(1), &[looped("10.0.1.1", &message(1, 148))]);
    assert_eq!(sent.len(), 1);
    assert!(a.send(at(1), &[looped("10.0.1.1", &sent[0].bytes)]).is_empty());
    assert_eq!(a.dropped(DropReason::RoutingLoop), 2);
}

#[test]
fn trap_a_routing_loop_is_told_while_it_keeps_a_session_from_coming() {
    let [mut a, _] = strangers();
    misroute(&a);
    for (kind, len) in [(1, 148), (2, 92), (3, 64)] {
        assert!(a.send(at(1), &[looped("10.0.1.1", &message(kind, len))]).is_empty());
    }
    assert_eq!(a.dropped(DropReason::RoutingLoop), 3);
    assert_eq!(a.sessions_wanted(), 0);
    a.send(at(1), &[looped("10.0.1.1", &message(4, 96))]);
    assert_eq!((a.dropped(DropReason::RoutingLoop), a.sessions_wanted()), (3, 1));
}

#[test]
fn a_wireguard_behind_us_reaches_the_same_endpoint_from_the_same_port() {
    let [mut a, _] = connected(at(0));
    misroute(&a);
    let mut data = message(4, 96);
    data[4] = 23;
    let packets = [message(1, 148), message(2, 92), data, message(9, 40)]
        .map(|payload| looped("10.0.1.77", &payload));
    assert_eq!(a.send(at(1), &packets).len(), 4);
    // The index of our session, and nothing else of it.
    let mut other = looped("10.0.1.1", &message(4, 96));
    other[32] = 22;
    let mut ports = [other.clone(), other.clone(), other];
    ports[0][21] ^= 1;
    ports[1][23] ^= 1;
    assert_eq!(a.send(at(1), &ports).len(), 2, "other ports");
    assert_eq!(a.dropped(DropReason::RoutingLoop), 1);
}
