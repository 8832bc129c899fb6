//! Packets that are too large for the path to their peer, and how that is found out.

use super::*;
use crate::sys::udp::Narrowed;
use crate::wire::icmp;

const DONT_FRAGMENT: u8 = 0x40;

/// From behind `a` to behind `b`, and not to be cut.
fn whole(len: usize) -> Vec<u8> {
    let mut packet = there(len, 1);
    packet[6] = DONT_FRAGMENT;
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn what_does_not_fit_and_may_not_be_cut_is_answered_with_what_fits() {
    let [mut a, _] = connected(at(0));
    a.path().mtu.set(1340, false);
    assert_eq!(a.send(at(1), &[whole(1340)]).len(), 1);
    assert_eq!(a.send(at(1), &[whole(1341)]).len(), 0);
    let reply = a.ip.take_delivered().remove(0);
    assert_eq!((&reply[12..16], &reply[16..20]), (&[10, 0, 2, 1][..], &[10, 0, 1, 1][..]));
    assert_eq!((&reply[20..22], &reply[26..28]), (&[3, 4][..], &1340_u16.to_be_bytes()[..]));
    let large = packet("fd00:1::1", "fd00:2::1", 0, 1400, 1);
    assert_eq!(a.send(at(1), std::slice::from_ref(&large)).len(), 0);
    let reply = a.ip.take_delivered().remove(0);
    assert_eq!((&reply[40..42], &reply[44..48]), (&[2, 0][..], &1340_u32.to_be_bytes()[..]));
    assert_eq!(reply[48..], large[..1232]);
    assert_eq!(a.dropped(DropReason::OutboundBeyondPath), 2);
}

#[test]
fn ipv6_of_1280_bytes_is_sent_on_every_path() {
    let [mut a, _] = connected(at(0));
    a.path().mtu.set(1200, false);
    assert_eq!(a.send(at(1), &[packet("fd00:1::1", "fd00:2::1", 0, 1280, 1)]).len(), 1);
    assert_eq!(a.send(at(1), &[packet("fd00:1::1", "fd00:2::1", 0, 1281, 1)]).len(), 0);
}

#[test]
fn what_may_be_cut_arrives_in_fragments_and_in_order() {
    let [mut a, mut b] = connected(at(0));
    a.path().mtu.set(1200, false);
    let sent = a.send(at(1), &[there(1400, 7), there(100, 8)]);
    assert!(sent.iter().all(|datagram| datagram.bytes.len() <= 1232));
    let delivered = b.receive(at(1), &a, &sent);
    let offsets: Vec<_> = delivered.iter().map(|packet| [packet[6], packet[7]]).collect();
    assert_eq!(offsets, [[0x20, 0], [0, 147], [0, 0]]);
    assert_eq!([&delivered[0][20..], &delivered[1][20..]].concat(), there(1400, 7)[20..]);
    assert_eq!(delivered[2], there(100, 8));
}

#[test]
fn replies_about_sizes_are_limited_as_all_replies_are() {
    let [mut a, _] = connected(at(0));
    a.path().mtu.set(1200, false);
    for _ in 0..10 {
        a.send(at(1), &vec![whole(1300); 20]);
    }
    assert_eq!(a.ip.take_delivered().len(), 50);
}

#[test]
fn the_engine_hears_of_the_first_large_packet_and_of_no_other() {
    let [mut a, _] = connected(at(0));
    a.signals();
    a.path().mtu.set(u32::MAX, true);
    a.send(at(1), &[there(1200, 1)]);
    let large = |a: &Node| {
        a.signals().iter().filter(|signal| matches!(signal, Signal::SendsLarge(PEER))).count()
    };
    assert_eq!(large(&a), 0);
    assert_eq!(a.send(at(1), &[there(1300, 1), there(1300, 2)]).len(), 2);
    assert_eq!(large(&a), 1);
}

/// An echo of `a` to 10.0.2.1, and what answers it.
fn echo(sequence: u16, token: u64) -> (Box<[u8]>, Vec<u8>) {
    let (ours, theirs) = ("10.0.1.1".parse().unwrap(), "10.0.2.1".parse().unwrap());
    let mut out = [0; icmp::LONGEST_ECHO_BYTES];
    let len = icmp::echo_request(ours, theirs, sequence, token, &mut out).unwrap();
    let request: Box<[u8]> = out[..len].into();
    let mut reply = request.to_vec();
    reply[12..16].copy_from_slice(&request[16..20]);
    reply[16..20].copy_from_slice(&request[12..16]);
    reply[20] = 0;
    (request, reply)
}

#[test]
fn a_probe_is_as_long_as_asked_and_its_answer_is_for_the_engine_alone() {
    let [mut a, mut b] = connected(at(0));
    a.path().mtu.set_token(77);
    let (request, reply) = echo(3, 77);
    for bytes in [0, 1340] {
        a.inbox.post(ShardCommand::Probe { peer: PEER, echo: request.clone(), bytes });
    }
    a.settle(at(1));
    assert_eq!(a.udp.take_trains(), [1, 1], "each by itself");
    let sent = a.udp.take_sent();
    assert_eq!(sent.iter().map(|sent| sent.bytes.len()).collect::<Vec<_>>(), [48 + 32, 1340 + 32]);
    assert_eq!(b.receive(at(1), &a, &sent), [request.to_vec(), request.to_vec()]);
    a.signals();
    let (_, other) = echo(4, 78);
    let answers = b.send(at(2), &[reply.clone(), reply, other.clone()]);
    assert_eq!(a.receive(at(2), &b, &answers), [other], "an echo of somebody else's");
    let signals: Vec<_> = a
        .signals()
        .into_iter()
        .filter(|signal| matches!(signal, Signal::Answered { .. } | Signal::Inside { .. }))
        .collect();
    assert_eq!(signals.len(), 2, "the answer counts once: {signals:?}");
    assert!(matches!(signals[0], Signal::Answered { peer: PEER, sequence: 3, .. }));
    assert!(matches!(signals[1], Signal::Inside { peer: PEER, .. }));
}

#[test]
fn what_the_network_says_of_a_probe_reaches_the_engine_and_not_without_limit() {
    let [mut a, b] = connected(at(0));
    let narrowed = Narrowed { remote: b.address, mtu: 1400 };
    a.udp.narrow(1300, vec![narrowed; 10]);
    a.signals();
    for _ in 0..20 {
        let (echo, _) = echo(1, 1);
        a.inbox.post(ShardCommand::Probe { peer: PEER, echo, bytes: 1340 });
    }
    a.settle(at(1));
    let told = a.signals();
    assert_eq!(told.len(), 32);
    assert!(told.iter().all(|signal| matches!(signal, Signal::Narrowed(one) if *one == narrowed)));
}
