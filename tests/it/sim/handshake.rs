//! Handshakes between two nodes: who may start one, what is believed, what waits. [WG §5.4]

use std::net::SocketAddr;

use hybridwg::crypto::key::PublicKey;
use hybridwg::proto::device::{Change, Event, PeerUpdate};
use hybridwg::proto::drop_reason::DropReason;
use hybridwg::time::Wall;

use super::{Kind, Sim, ms, secs};

const ELSEWHERE: ([u8; 4], u16) = ([198, 51, 100, 7], 4711);

#[test]
fn nothing_is_sent_until_there_is_a_packet() {
    let mut sim = Sim::pair(1);
    sim.run(secs(24 * 3600));
    assert!(sim.trace.is_empty());
    assert_eq!(sim.nodes[0].device.next_deadline(), None);
}

/// Trap: the first packet waits for a timer.
#[test]
fn a_packet_starts_a_handshake_and_follows_it_without_a_stall() {
    let mut sim = Sim::pair(2);
    sim.send(0, 1, b"hello");
    let asked = sim.mono();
    sim.run(secs(1));
    let kinds: Vec<_> = sim.trace.iter().map(|sent| (sent.by, sent.kind)).collect();
    assert_eq!(kinds, [(0, Kind::Initiation), (1, Kind::Response), (0, Kind::Data)]);
    // Three crossings of a link of 10 ms.
    assert_eq!(sim.nodes[1].delivered[0].0.since(asked), ms(30));
}

#[test]
fn packets_that_waited_for_a_session_arrive_in_order() {
    let mut sim = Sim::pair(3);
    for packet in [b"1", b"2", b"3", b"4"] {
        sim.send(0, 1, packet);
    }
    sim.run(secs(1));
    assert_eq!(sim.count(0, Kind::Initiation), 1);
    assert_eq!(sim.delivered(1), [b"1", b"2", b"3", b"4"]);
}

/// Trap: the first handshake is lost, and with it the packets that waited.
#[test]
fn trap_27_a_lost_handshake_message_costs_one_retry_and_no_packet() {
    for lost in [Kind::Initiation, Kind::Response] {
        let mut sim = Sim::pair(30);
        let mut first = true;
        sim.filter = Box::new(move |_, kind| kind != lost || !std::mem::replace(&mut first, false));
        sim.send(0, 1, b"1");
        let asked = sim.mono();
        sim.run(secs(2));
        sim.send(0, 1, b"2");
        sim.run(secs(4));
        assert_eq!(sim.delivered(1), [b"1", b"2"], "{lost:?}");
        let waited = sim.nodes[1].delivered[0].0.since(asked);
        assert!((ms(5030)..=ms(5363)).contains(&waited), "{lost:?}: {waited:?}");
    }
}

#[test]
fn an_initiator_with_nothing_to_send_confirms_with_a_keepalive() {
    let mut sim = Sim::pair(4);
    sim.update(0, 1, |peer| peer.persistent_keepalive = Some(25));
    sim.run(secs(1));
    let kinds: Vec<_> = sim.trace.iter().map(|sent| (sent.by, sent.kind)).collect();
    assert_eq!(kinds, [(0, Kind::Initiation), (1, Kind::Response), (0, Kind::Keepalive)]);
}

/// Trap: sending on an unconfirmed `next` keypair.
#[test]
fn a_responder_never_sends_on_a_session_that_is_not_confirmed() {
    let mut sim = Sim::pair(5);
    sim.filter = Box::new(|by, kind| by != 0 || kind == Kind::Initiation);
    sim.send(0, 1, b"lost");
    sim.run(ms(100));
    sim.send(1, 0, b"must wait");
    sim.run(secs(2));
    assert_eq!(sim.count(1, Kind::Data) + sim.count(1, Kind::Keepalive), 0);

    // The first packet that gets through confirms the session and frees what waited.
    sim.filter = Box::new(|_, _| true);
    sim.send(0, 1, b"arrives");
    sim.run(ms(100));
    assert_eq!(sim.delivered(0), [b"must wait"]);
}

#[test]
fn a_responder_whose_session_is_not_confirmed_asks_again_by_itself() {
    let mut sim = Sim::pair(6);
    sim.filter = Box::new(|by, kind| by == 1 || kind == Kind::Initiation);
    sim.send(0, 1, b"lost");
    sim.run(ms(100));
    sim.filter = Box::new(|_, _| true);
    sim.send(1, 0, b"waits");
    sim.run(secs(6));
    assert_eq!(sim.delivered(0), [b"waits"]);
    let gap = sim.times(1, Kind::Initiation)[0].since(sim.times(1, Kind::Response)[0]);
    assert!((ms(5000)..=ms(5333)).contains(&gap), "own initiations keep off a response: {gap:?}");
}

/// Trap: each answers the other and forgets its own handshake.
#[test]
fn both_ends_can_start_at_once_and_packets_flow_both_ways() {
    for seed in 0..20 {
        let mut sim = Sim::pair(seed);
        sim.introduce(1, 0, true);
        sim.link.jitter = ms(seed);
        sim.send(0, 1, b"from 0");
        sim.send(1, 0, b"from 1");
        sim.run(secs(1));
        assert_eq!(sim.delivered(1), [b"from 0"], "seed {seed}");
        assert_eq!(sim.delivered(0), [b"from 1"], "seed {seed}");
        sim.send(0, 1, b"more");
        sim.send(1, 0, b"more");
        sim.run(secs(1));
        assert_eq!((sim.delivered(0).len(), sim.delivered(1).len()), (2, 2), "seed {seed}");
        assert_eq!(sim.count(0, Kind::Initiation) + sim.count(1, Kind::Initiation), 2);
    }
}

/// Trap: a response is thrown away by a tick or a short timeout.
#[test]
fn trap_18_a_response_may_take_almost_five_seconds() {
    let mut sim = Sim::pair(7);
    sim.link.latency = ms(2450);
    sim.send(0, 1, b"far away");
    sim.run(secs(8));
    assert_eq!(sim.count(0, Kind::Initiation), 1);
    assert_eq!(sim.delivered(1), [b"far away"]);
}

#[test]
fn an_initiation_is_consumed_once() {
    let mut sim = Sim::connected(8);
    let initiation = sim.last(0, Kind::Initiation);
    let from = sim.nodes[0].address;
    sim.run(secs(60));
    sim.inject(1, from, &initiation);
    assert_eq!(sim.nodes[1].drops(DropReason::TimestampReplayed), 1);
    assert_eq!(sim.count(1, Kind::Response), 1);
}

#[test]
fn an_older_initiation_is_refused_after_a_newer_one() {
    let mut sim = Sim::pair(9);
    sim.filter = Box::new(|_, _| false);
    sim.send(0, 1, b"x");
    sim.run(secs(6));
    let initiations: Vec<_> =
        sim.trace.iter().filter(|sent| sent.kind == Kind::Initiation).cloned().collect();
    assert_eq!(initiations.len(), 2);
    let from = sim.nodes[0].address;
    sim.inject(1, from, &initiations[1].datagram);
    sim.run(secs(1));
    sim.inject(1, from, &initiations[0].datagram);
    assert_eq!(sim.nodes[1].drops(DropReason::TimestampReplayed), 1);
}

#[test]
fn initiations_of_a_peer_less_than_20_ms_apart_are_a_flood() {
    let initiations = |sim: &Sim| -> Vec<Vec<u8>> {
        sim.trace.iter().map(|sent| sent.datagram.clone()).collect()
    };
    for (gap, answered) in [(ms(19), 1), (ms(20), 2)] {
        let mut sim = Sim::pair(10);
        sim.filter = Box::new(|_, _| false);
        sim.send(0, 1, b"x");
        sim.run(secs(6));
        let from = sim.nodes[0].address;
        let held = initiations(&sim);
        sim.inject(1, from, &held[0]);
        sim.run(gap);
        sim.inject(1, from, &held[1]);
        assert_eq!(sim.count(1, Kind::Response), answered, "{gap:?}");
        assert_eq!(sim.nodes[1].drops(DropReason::InitiationFlood), 2 - answered as u64);
    }
}

#[test]
fn a_forged_response_leaves_the_handshake_usable() {
    let mut sim = Sim::pair(11);
    sim.filter = Box::new(|_, kind| kind == Kind::Initiation);
    sim.send(0, 1, b"x");
    sim.run(ms(100));
    let response = sim.last(1, Kind::Response);
    let from = sim.nodes[1].address;
    for byte in [0, 4, 8, 12, 44, 60] {
        let mut forged = response.clone();
        forged[byte] ^= 1;
        sim.inject(0, from, &forged);
        assert_eq!(sim.nodes[0].session_count(), 0, "byte {byte}");
    }
    sim.inject(0, from, &response);
    assert_eq!(sim.nodes[0].session_count(), 1);
    sim.inject(0, from, &response);
    assert_eq!(sim.nodes[0].session_count(), 1, "a response is good once");
}

#[test]
fn a_message_with_a_wrong_first_mac_touches_nothing() {
    let mut sim = Sim::pair(12);
    sim.filter = Box::new(|_, _| false);
    sim.send(0, 1, b"x");
    let mut initiation = sim.last(0, Kind::Initiation);
    initiation[116] ^= 1;
    sim.inject(1, ELSEWHERE.into(), &initiation);
    assert_eq!(sim.nodes[1].drops(DropReason::InvalidMac1), 1);
    assert_eq!(sim.count(1, Kind::Response), 0);
    let zero = sim.key(0);
    assert_eq!(sim.nodes[1].endpoint(&zero), None);
    initiation[116] ^= 1;
    sim.inject(1, ELSEWHERE.into(), &initiation);
    assert_eq!(sim.count(1, Kind::Response), 1);
}

#[test]
fn a_stranger_is_not_answered() {
    let mut sim = Sim::strangers(13, 2);
    sim.introduce(0, 1, true);
    sim.send(0, 1, b"x");
    sim.run(secs(1));
    assert_eq!(sim.nodes[1].drops(DropReason::UnknownPeer), 1);
    assert_eq!(sim.count(1, Kind::Response), 0);
}

/// Trap: a big or odd datagram ends the receiver.
#[test]
fn datagrams_that_are_no_messages_are_dropped_at_any_length() {
    let mut sim = Sim::connected(14);
    let sessions = sim.nodes[1].session_indices();
    for len in (0..2000).chain([9000, 65_507]) {
        for first in 0..=5 {
            let mut datagram = vec![0x5a; len];
            if let Some(kind) = datagram.first_chunk_mut::<4>() {
                *kind = [first, 0, 0, 0];
            }
            sim.inject(1, ELSEWHERE.into(), &datagram);
        }
    }
    assert_eq!(sim.nodes[1].session_indices(), sessions);
    assert_eq!(sim.count(1, Kind::Response), 1);
}

/// Trap: the endpoint moves on initiations only, or on anything at all.
#[test]
fn the_endpoint_moves_on_an_authenticated_initiation_and_on_data_but_on_no_copy_of_them() {
    let mut sim = Sim::connected(15);
    let zero = sim.key(0);
    assert_eq!(sim.nodes[1].endpoint(&zero), Some(sim.nodes[0].address));

    // Data from a new address.
    sim.rebind(0);
    sim.send(0, 1, b"moved");
    sim.run(ms(100));
    let moved = sim.nodes[0].address;
    assert_eq!(sim.nodes[1].endpoint(&zero), Some(moved));

    // Copies from elsewhere.
    for kind in [Kind::Initiation, Kind::Data] {
        let copy = sim.last(0, kind);
        sim.inject(1, ELSEWHERE.into(), &copy);
        assert_eq!(sim.nodes[1].endpoint(&zero), Some(moved), "{kind:?}");
    }

    // A new initiation from another address.
    sim.rebind(0);
    sim.run(secs(130));
    sim.filter = Box::new(|by, kind| by == 0 && kind == Kind::Initiation);
    sim.send(0, 1, b"late");
    sim.run(ms(100));
    assert_eq!(sim.count(0, Kind::Initiation), 2);
    assert_eq!(sim.nodes[1].endpoint(&zero), Some(sim.nodes[0].address));
}

#[test]
fn the_endpoint_moves_on_an_authenticated_response() {
    let mut sim = Sim::pair(16);
    sim.filter = Box::new(|_, kind| kind == Kind::Initiation);
    sim.send(0, 1, b"x");
    sim.run(ms(100));
    let response = sim.last(1, Kind::Response);
    let elsewhere = SocketAddr::from(ELSEWHERE);
    sim.inject(0, elsewhere, &response);
    let one = sim.key(1);
    assert_eq!(sim.nodes[0].endpoint(&one), Some(elsewhere));
}

/// Trap: the clock goes backwards, and the peer sees replays until it has caught up.
#[test]
fn a_wall_clock_that_is_set_back_does_not_lock_us_out() {
    let mut sim = Sim::connected(17);
    sim.nodes[0].wall_offset = -86_400;
    sim.run(secs(200));
    sim.send(0, 1, b"after the clock was set back");
    sim.run(secs(1));
    assert_eq!(sim.nodes[1].delivered.len(), 2);
    assert_eq!(sim.nodes[1].drops(DropReason::TimestampReplayed), 0);
}

/// Trap: low-order peer keys.
#[test]
fn a_peer_key_of_low_order_is_accepted_and_never_talked_to() {
    let mut sim = Sim::strangers(18, 1);
    let mut update = PeerUpdate::new(PublicKey::from_bytes([0; 32]));
    update.endpoint = Some(ELSEWHERE.into());
    update.persistent_keepalive = Some(1);
    sim.configure(0, Change::Peer(update));
    sim.run(secs(3600));
    assert!(sim.trace.is_empty());
}

/// Trap: `last_handshake` as elapsed time.
#[test]
fn trap_23_the_last_handshake_is_a_time_on_the_wall_at_both_ends() {
    let sim = Sim::connected(19);
    for node in 0..2 {
        let peer = sim.peer_id(node, 1 - node);
        let last = sim.nodes[node].device.peer(peer).unwrap().last_handshake();
        let Wall { secs, .. } = last.expect("there was one");
        assert_eq!(secs, 1_800_000_000 + 1000);
        let complete = Event::HandshakeComplete(peer);
        assert_eq!(
            sim.nodes[node].events.iter().filter(|(_, event)| *event == complete).count(),
            1
        );
    }
}

/// Trap: predictable indices.
#[test]
fn what_an_eavesdropper_sees_of_indices_and_ephemerals_never_repeats() {
    let mut sim = Sim::connected(20);
    sim.run_with(secs(3600), secs(1), |sim| sim.send(0, 1, b"x"));
    let initiations: Vec<_> =
        sim.trace.iter().filter(|sent| sent.kind == Kind::Initiation).collect();
    assert!(initiations.len() >= 29);
    let mut indices: Vec<_> = initiations.iter().map(|sent| sent.datagram[4..8].to_vec()).collect();
    let mut ephemerals: Vec<_> =
        initiations.iter().map(|sent| sent.datagram[8..40].to_vec()).collect();
    for seen in [&mut indices, &mut ephemerals] {
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), initiations.len());
    }
    // A counter, or anything that grows with it, would keep the upper half.
    let uppers: std::collections::HashSet<_> =
        indices.iter().map(|index| index[2..].to_vec()).collect();
    assert!(uppers.len() > initiations.len() / 2);
}
