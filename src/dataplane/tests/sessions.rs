//! Before a session, between two of them, and after the last.

use super::*;
use crate::dataplane::Stop;
use crate::dataplane::port::Ready;
use crate::dataplane::tables::Notice;
use crate::proto::device::{Destination, SmallDatagram};

#[test]
fn p_71_packets_wait_for_a_session_and_leave_in_order_ahead_of_later_ones() {
    let [mut a, mut b] = strangers();
    let waiting: Vec<_> = (0..100).map(|n| there(60 + usize::from(n), n)).collect();
    assert!(a.send(at(1), &waiting).is_empty());
    assert_eq!(a.sessions_wanted(), 1);
    let [initiator, responder] = handshake(at(2), [11, 22]);
    b.install(responder, false);
    a.make_current(a.install(initiator, true));
    a.apply(Output::Flush(PEER));
    let datagrams = a.send(at(2), &[there(100, 200)]);
    let expected = [&waiting[..], &[there(100, 200)]].concat();
    assert_eq!(b.receive(at(2), &a, &datagrams), expected);
}

#[test]
fn packets_that_overtake_the_flush_leave_behind_those_that_wait() {
    let [mut a, mut b] = strangers();
    a.send(at(1), &[there(100, 1), there(100, 2)]);
    let [initiator, responder] = handshake(at(2), [11, 22]);
    b.install(responder, false);
    a.make_current(a.install(initiator, true));
    let datagrams = a.send(at(2), &[there(100, 3)]);
    let marks: Vec<_> = b.receive(at(2), &a, &datagrams).iter().map(|packet| packet[99]).collect();
    assert_eq!(marks, [1, 2, 3]);
}

#[test]
fn p_41_a_flush_without_staged_packets_sends_one_keepalive() {
    let [mut a, mut b] = connected(at(0));
    a.apply(Output::Flush(PEER));
    a.apply(Output::SendStaged(PEER));
    a.settle(at(1));
    let datagrams = a.udp.take_sent();
    assert_eq!(datagrams.iter().map(|datagram| datagram.bytes.len()).collect::<Vec<_>>(), [32]);
    assert!(b.receive(at(1), &a, &datagrams).is_empty());
    assert_eq!(b.tables.drops.total(), 0);
}

#[test]
fn a_flood_before_the_session_keeps_the_newest_128_packets() {
    let [mut a, mut b] = strangers();
    let flood: Vec<_> = (0..200).map(|n| there(100, n)).collect();
    a.send(at(1), &flood);
    assert_eq!(a.dropped(DropReason::StagedOverflow), 72);
    let [initiator, responder] = handshake(at(2), [11, 22]);
    b.install(responder, false);
    a.make_current(a.install(initiator, true));
    a.apply(Output::Flush(PEER));
    a.settle(at(2));
    let datagrams = a.udp.take_sent();
    assert_eq!(b.receive(at(2), &a, &datagrams), flood[72..]);
}

#[test]
fn given_up_packets_are_purged_and_the_next_one_asks_again_at_once() {
    let [mut a, _] = strangers();
    a.send(at(1), &[there(100, 1), there(100, 2)]);
    assert_eq!(a.sessions_wanted(), 1);
    a.apply(Output::PurgeStaged(PEER));
    a.send(at(2), &[there(100, 3)]);
    assert_eq!(a.dropped(DropReason::StagedPurged), 2);
    assert_eq!(a.sessions_wanted(), 1);
}

#[test]
fn a_session_is_asked_for_at_most_once_in_5_seconds() {
    let [mut a, _] = strangers();
    for (now, expected) in [(0, 1), (1, 0), (4, 0), (5, 1), (9, 0), (10, 1)] {
        a.send(at(now), &[there(100, 1), there(100, 2)]);
        assert_eq!(a.sessions_wanted(), expected, "at {now} s");
    }
}

#[test]
fn the_responder_reports_the_first_packet_of_a_session_once() {
    let [mut a, mut b] = strangers();
    let [initiator, responder] = handshake(at(0), [11, 22]);
    a.make_current(a.install(initiator, true));
    let sealer = b.install(responder, false);
    assert!(b.send(at(0), &[back(100, 9)]).is_empty(), "P-41: `next` is not for sending");
    b.signals();
    let datagrams = a.send(at(1), &[there(100, 1), there(100, 2)]);
    b.receive(at(1), &a, &datagrams);
    let confirmed = |signal: &Signal| matches!(signal, Signal::Confirmed(Index(22)));
    assert_eq!(b.signals().iter().filter(|signal| confirmed(signal)).count(), 1);
    b.make_current(sealer);
    b.apply(Output::SendStaged(PEER));
    b.settle(at(1));
    let answer = b.udp.take_sent();
    assert_eq!(a.receive(at(1), &b, &answer), [back(100, 9)]);
}

#[test]
fn the_first_packet_of_a_peer_that_has_restarted_is_answered_under_its_new_session() {
    let [_, mut b] = connected(at(0));
    let [mut restarted, _] = strangers();
    let [initiator, responder] = handshake(at(1), [33, 44]);
    restarted.make_current(restarted.install(initiator, true));
    b.install(responder, false);
    let datagrams = restarted.send(at(1), &[there(100, 1)]);
    b.receive(at(1), &restarted, &datagrams);
    let answer = b.send(at(1), &[back(100, 2)]);
    assert_eq!(
        restarted.receive(at(1), &b, &answer),
        [back(100, 2)],
        "before the engine has heard"
    );
}

#[test]
fn a_session_that_was_overtaken_before_it_was_confirmed_stays_behind() {
    let [mut a, mut b] = connected(at(0));
    let [first, overtaken] = handshake(at(1), [33, 44]);
    a.make_current(a.install(first, true));
    b.install(overtaken, false);
    let datagrams = a.send(at(1), &[there(100, 1)]);
    let [newer, answered] = handshake(at(2), [66, 55]);
    b.make_current(b.install(newer, true));
    a.install(answered, true);
    assert_eq!(b.receive(at(2), &a, &datagrams).len(), 1);
    let answer = b.send(at(2), &[back(100, 2)]);
    assert_eq!(answer[0].bytes[4..8], 55_u32.to_le_bytes(), "the receiver's index of the newer");
    assert_eq!(a.receive(at(2), &b, &answer), [back(100, 2)]);
}

#[test]
fn the_initiator_asks_for_a_new_session_when_it_sends_after_120_seconds() {
    let [mut a, mut b] = connected(at(0));
    a.send(at(119), &[there(100, 1)]);
    assert_eq!(a.sessions_wanted(), 0);
    assert_eq!(a.send(at(120), &[there(100, 1)]).len(), 1, "and goes on with the old one");
    assert_eq!(a.sessions_wanted(), 1);
    b.send(at(150), &[back(100, 1)]);
    assert_eq!(b.sessions_wanted(), 0, "P-42: the responder does not");
}

#[test]
fn the_initiator_asks_once_when_it_only_receives_after_165_seconds() {
    let [mut a, mut b] = connected(at(0));
    for (now, expected) in [(164, 0), (165, 1), (171, 0), (179, 0)] {
        let datagrams = b.send(at(now), &[back(100, 1)]);
        a.receive(at(now), &b, &datagrams);
        assert_eq!(a.sessions_wanted(), expected, "at {now} s");
    }
}

#[test]
fn the_last_packets_of_a_session_that_has_a_successor_ask_for_nothing() {
    let [mut a, mut b] = connected(at(0));
    let datagrams = b.send(at(170), &[back(100, 1)]);
    let [initiator, _] = handshake(at(160), [33, 44]);
    a.make_current(a.install(initiator, true));
    assert_eq!(a.receive(at(170), &b, &datagrams).len(), 1);
    assert_eq!(a.sessions_wanted(), 0);
}

#[test]
fn after_180_seconds_nothing_is_sent_or_received_and_packets_wait() {
    let [mut a, mut b] = connected(at(0));
    let datagrams = a.send(at(179), &[there(100, 1)]);
    assert!(b.receive(at(180), &a, &datagrams).is_empty());
    assert_eq!(b.dropped(DropReason::KeypairExpired), 1);
    a.signals();
    assert!(a.send(at(185), &[there(100, 2)]).is_empty());
    assert_eq!(a.sessions_wanted(), 1);
}

#[test]
fn a_keepalive_without_a_session_asks_for_one() {
    let [mut a, _] = strangers();
    a.inbox.post(ShardCommand::Keepalive(PEER));
    a.settle(at(1));
    assert!(a.udp.take_sent().is_empty());
    assert_eq!(a.sessions_wanted(), 1);
}

#[test]
fn a_retired_session_is_unknown_and_a_new_one_takes_over() {
    let [mut a, mut b] = connected(at(0));
    let [initiator, responder] = handshake(at(10), [33, 44]);
    let old = a.send(at(10), &[there(100, 1)]);
    a.make_current(a.install(initiator, true));
    b.install(responder, false);
    let new = a.send(at(10), &[there(100, 2)]);
    let both = [&old[..], &new[..]].concat();
    assert_eq!(b.receive(at(10), &a, &both).len(), 2, "the old session still receives");
    let old = connected(at(0))[0].send(at(10), &[there(100, 1), there(100, 3)]);
    b.apply(Output::Retire(Index(22)));
    assert!(b.receive(at(10), &a, &old).is_empty());
    assert_eq!(b.dropped(DropReason::UnknownIndex), 2);
}

#[test]
fn handshake_messages_go_to_the_peer_with_their_class_and_count() {
    let [mut a, b] = strangers();
    let datagram = SmallDatagram::from(&[1; 148]);
    let reply = SmallDatagram::from(&[3; 64]);
    let stranger = Endpoint::new("203.0.113.9:9".parse().unwrap());
    let to = Destination::Peer(PEER);
    a.apply(Output::Transmit { to, datagram, traffic_class: 0x88 });
    let to = Destination::Address(stranger);
    a.apply(Output::Transmit { to, datagram: reply, traffic_class: 0 });
    a.settle(at(1));
    let expected = [
        SentDatagram { to: Endpoint::new(b.address), traffic_class: 0x88, bytes: vec![1; 148] },
        SentDatagram { to: stranger, traffic_class: 0, bytes: vec![3; 64] },
    ];
    assert_eq!(a.udp.take_sent(), expected);
    assert_eq!(a.path().tx_bytes(), 148, "a cookie reply is nobody's");
    a.apply(Output::Transmit { to: Destination::Peer(OTHER), datagram, traffic_class: 0x88 });
    a.settle(at(1));
    assert_eq!(a.dropped(DropReason::NoEndpoint), 1);
}

#[test]
fn more_messages_than_there_are_trains_all_leave() {
    let [mut a, _] = strangers();
    for n in 0..100 {
        let datagram = SmallDatagram::from(&[n; 148]);
        let to = Destination::Address(Endpoint::new(([203, 0, 113, n], 9).into()));
        a.apply(Output::Transmit { to, datagram, traffic_class: 0 });
    }
    a.settle(at(1));
    let first: Vec<_> = a.udp.take_sent().iter().map(|datagram| datagram.bytes[0]).collect();
    assert_eq!(first, (0..100).collect::<Vec<u8>>());
}

#[test]
fn a_removed_peer_leaves_nothing_behind() {
    let [mut a, _] = strangers();
    a.send(at(1), &[there(100, 1)]);
    a.apply(Output::PeerRemoved(PEER));
    assert!(a.send(at(1), &[there(100, 2)]).is_empty());
    assert_eq!(a.dropped(DropReason::PeerRemoved), 1);
    assert_eq!(a.dropped(DropReason::NoPeer), 1);
    assert!(a.tables.peer(PEER).is_none());
}

#[test]
fn clearing_the_source_keeps_the_remote_address() {
    let [a, b] = strangers();
    a.path().roam(Endpoint { remote: b.address, local: Some(a.source()) });
    a.apply(Output::ClearSource(PEER));
    assert_eq!(a.path().endpoint(), Some(Endpoint::new(b.address)));
}

#[test]
fn the_engines_own_outputs_are_handed_back() {
    let [a, _] = strangers();
    let output = a.tables.apply(Output::RoutesChanged, &a.inboxes);
    assert!(matches!(output, Some(Notice::RoutesChanged)));
}

#[test]
fn a_shutdown_sends_what_was_posted_before_it_and_stops() {
    let [mut a, _] = connected(at(0));
    a.inbox.post(ShardCommand::Keepalive(PEER));
    a.inbox.post(ShardCommand::Shutdown);
    assert!(matches!(a.shard.turn(at(1), Ready::ALL), Turn::Stopped(Stop::Shutdown)));
    assert_eq!(a.udp.take_sent().len(), 1);
}
