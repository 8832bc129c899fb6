//! Changes while the tunnel is up. [UAPI]

use std::collections::BTreeSet;
use std::net::IpAddr;

use hybridwg::crypto::key::{PresharedKey, PrivateKey};
use hybridwg::proto::device::{AllowedIpChange, Change, Event, PeerUpdate};
use hybridwg::proto::drop_reason::DropReason;

use super::{Kind, Sim, ms, preshared_key, private_key, secs};

/// Everything that can be said of node 1, without removing it.
fn full_update(sim: &Sim) -> PeerUpdate {
    PeerUpdate {
        preshared_key: Some(PresharedKey::NONE),
        endpoint: Some(sim.nodes[1].address),
        persistent_keepalive: Some(25),
        replace_allowed_ips: true,
        allowed_ips: vec![AllowedIpChange::Add("10.0.0.0/24".parse().unwrap())],
        ..PeerUpdate::new(sim.key(1))
    }
}

/// Trap: the session is lost on `set`.
/// UA-11.
#[test]
fn trap_26_an_update_of_a_peer_keeps_his_session() {
    let mut sim = Sim::connected(1);
    let indices = sim.nodes[0].session_indices();
    let update = full_update(&sim);
    for _ in 0..3 {
        sim.configure(0, Change::Peer(update.clone()));
        sim.run(ms(100));
    }
    sim.send(0, 1, b"still here");
    sim.run(ms(100));
    assert_eq!(sim.delivered(1).last(), Some(&b"still here".as_slice()));
    assert_eq!(sim.nodes[0].session_indices(), indices);
    assert_eq!(sim.count(0, Kind::Initiation), 1);
}

/// Trap: a change of the preshared key is ignored, or ends the session.
#[test]
fn trap_8_a_preshared_key_takes_effect_at_the_next_handshake_and_the_session_stays() {
    let mut sim = Sim::connected(2);
    for node in 0..2 {
        sim.update(node, 1 - node, |peer| peer.preshared_key = Some(preshared_key(7)));
    }
    sim.run_with(secs(300), secs(1), |sim| sim.send(0, 1, b"x"));
    sim.run(secs(1));
    assert_eq!(sim.count(0, Kind::Initiation), 3);
    assert_eq!(sim.count(0, Kind::Data), sim.nodes[1].delivered.len());

    // One side alone changes it: the session lives on, the next handshake fails.
    sim.update(1, 0, |peer| peer.preshared_key = Some(preshared_key(8)));
    sim.send(0, 1, b"old session");
    sim.run(secs(1));
    assert_eq!(sim.delivered(1).last(), Some(&b"old session".as_slice()));
    sim.run(secs(200));
    let delivered = sim.nodes[1].delivered.len();
    sim.send(0, 1, b"never arrives");
    sim.run(secs(20));
    assert_eq!(sim.nodes[1].delivered.len(), delivered);
    assert!(sim.nodes[0].drops(DropReason::InvalidEmpty) > 0);
}

#[test]
fn another_private_key_ends_every_session_and_the_next_handshake_uses_it() {
    let mut sim = Sim::connected(3);
    let old = sim.key(0);
    sim.configure(0, Change::PrivateKey(Some(private_key(99))));
    assert_eq!(sim.nodes[0].session_count(), 0);
    let mut remove = PeerUpdate::new(old);
    remove.remove = true;
    sim.configure(1, Change::Peer(remove));
    sim.introduce(1, 0, false);
    sim.run(secs(5));
    sim.send(0, 1, b"new me");
    sim.run(secs(1));
    assert_eq!(sim.delivered(1).last(), Some(&b"new me".as_slice()));
}

#[test]
fn the_same_private_key_again_changes_nothing() {
    let mut sim = Sim::connected(4);
    sim.configure(0, Change::PrivateKey(Some(private_key(0))));
    assert_eq!(sim.nodes[0].session_count(), 1);
}

#[test]
fn without_a_private_key_nothing_is_sent_and_nothing_is_answered() {
    let mut sim = Sim::connected(5);
    sim.configure(1, Change::PrivateKey(None));
    assert_eq!(sim.nodes[1].session_count(), 0);
    let initiation = sim.last(0, Kind::Initiation);
    let from = sim.nodes[0].address;
    sim.inject(1, from, &initiation);
    assert_eq!(sim.nodes[1].drops(DropReason::NoPrivateKey), 1);
}

#[test]
fn the_first_private_key_sends_what_waited_for_it() {
    let mut sim = Sim::pair(6);
    sim.configure(0, Change::PrivateKey(None));
    sim.send(0, 1, b"early");
    sim.run(secs(1));
    assert!(sim.trace.is_empty());
    sim.configure(0, Change::PrivateKey(Some(private_key(0))));
    sim.run(secs(1));
    assert_eq!(sim.delivered(1), [b"early"]);
}

#[test]
fn a_packet_for_a_peer_without_an_endpoint_is_refused_at_once() {
    let mut sim = Sim::pair(7);
    sim.send(1, 0, b"where are you");
    assert_eq!(sim.nodes[1].unreachable, 1);
    sim.run(secs(60));
    assert!(sim.trace.is_empty());
    sim.introduce(1, 0, true);
    sim.send(1, 0, b"there you are");
    sim.run(secs(1));
    assert_eq!(sim.delivered(0), [b"there you are"]);
}

/// UA-08.
#[test]
fn a_keepalive_for_a_peer_without_an_endpoint_starts_when_he_has_one() {
    let mut sim = Sim::pair(8);
    sim.update(1, 0, |peer| peer.persistent_keepalive = Some(25));
    sim.run(secs(60));
    assert!(sim.trace.is_empty());
    sim.introduce(1, 0, true);
    sim.run(secs(1));
    assert_eq!(sim.count(1, Kind::Keepalive), 1);
}

/// Trap: the own key configured as a peer.
#[test]
fn we_are_never_our_own_peer() {
    let mut sim = Sim::strangers(9, 1);
    sim.configure(0, Change::Peer(PeerUpdate::new(sim.key(0))));
    assert_eq!(sim.nodes[0].device.peers().count(), 0);

    // A peer becomes ourselves when his key becomes ours.
    let mut sim = Sim::connected(10);
    let one = sim.key(1);
    sim.configure(0, Change::PrivateKey(Some(private_key(1))));
    assert_eq!(sim.nodes[0].device.peers().count(), 0);
    assert!(sim.nodes[0].events.iter().any(|(_, event)| *event == Event::SelfRemoved(one)));
}

#[test]
fn an_update_only_of_an_unknown_peer_creates_nobody() {
    let mut sim = Sim::strangers(11, 2);
    sim.update(0, 1, |peer| peer.update_only = true);
    assert_eq!(sim.nodes[0].device.peers().count(), 0);
    sim.update(0, 1, |peer| peer.remove = true);
    assert_eq!(sim.nodes[0].device.peers().count(), 0);
}

#[test]
fn a_removed_peer_leaves_no_session_no_route_and_no_deadline() {
    let mut sim = Sim::connected(12);
    sim.update(0, 1, |peer| {
        peer.persistent_keepalive = Some(25);
        peer.allowed_ips = vec![AllowedIpChange::Add("10.0.0.0/24".parse().unwrap())];
    });
    sim.run(secs(1));
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    assert!(sim.nodes[0].device.allowed_ips().lookup(address).is_some());
    let stale = sim.peer_id(0, 1);
    sim.update(0, 1, |peer| peer.remove = true);
    assert_eq!(sim.nodes[0].session_count(), 0);
    assert_eq!(sim.nodes[0].device.allowed_ips().lookup(address), None);
    assert_eq!(sim.nodes[0].device.next_deadline(), None);

    // He comes back as somebody new, so that his old handle cannot be mistaken for his.
    sim.introduce(0, 1, true);
    assert_ne!(sim.peer_id(0, 1), stale);
}

#[test]
fn replacing_all_peers_keeps_the_sessions_of_those_who_stay() {
    let mut sim = Sim::strangers(13, 3);
    for other in 1..3 {
        sim.introduce(0, other, true);
        sim.introduce(other, 0, false);
        sim.send(0, other, b"x");
        sim.run(secs(1));
        sim.update(0, other, |peer| {
            peer.preshared_key = Some(preshared_key(1));
            let net = format!("10.0.{other}.0/24").parse().unwrap();
            peer.allowed_ips = vec![AllowedIpChange::Add(net)];
        });
    }
    assert_eq!(sim.nodes[0].session_count(), 2);
    sim.configure(0, Change::KeepOnly(BTreeSet::from([sim.key(2)])));
    assert_eq!(sim.nodes[0].session_count(), 1);
    let device = &sim.nodes[0].device;
    let left: Vec<_> = device.peers().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(*left[0].1.public_key(), sim.key(2));
    assert_eq!(*left[0].1.preshared_key(), PresharedKey::NONE);
    assert_eq!(device.allowed_ips().iter_of(left[0].0).count(), 0);
}

#[test]
fn allowed_ips_move_are_replaced_and_are_taken_away() {
    let mut sim = Sim::strangers(14, 3);
    sim.introduce(0, 1, true);
    sim.introduce(0, 2, true);
    let net = |text: &str| text.parse().unwrap();
    let add = |text| vec![AllowedIpChange::Add(net(text))];
    let owner = |sim: &Sim, address: &str| {
        sim.nodes[0].device.allowed_ips().lookup(address.parse().unwrap())
    };
    sim.update(0, 1, |peer| peer.allowed_ips = add("10.0.0.0/24"));
    assert_eq!(owner(&sim, "10.0.0.9"), Some(sim.peer_id(0, 1)));
    sim.update(0, 2, |peer| peer.allowed_ips = add("10.0.0.0/24"));
    assert_eq!(owner(&sim, "10.0.0.9"), Some(sim.peer_id(0, 2)));
    // He cannot take away what is not his.
    sim.update(0, 1, |peer| peer.allowed_ips = vec![AllowedIpChange::Remove(net("10.0.0.0/24"))]);
    assert_eq!(owner(&sim, "10.0.0.9"), Some(sim.peer_id(0, 2)));
    sim.update(0, 2, |peer| peer.allowed_ips = vec![AllowedIpChange::Remove(net("10.0.0.0/24"))]);
    assert_eq!(owner(&sim, "10.0.0.9"), None);
    sim.update(0, 1, |peer| peer.allowed_ips = add("::/0"));
    sim.update(0, 1, |peer| {
        peer.replace_allowed_ips = true;
        peer.allowed_ips = add("0.0.0.0/0");
    });
    assert_eq!(owner(&sim, "2001:db8::1"), None);
    assert_eq!(owner(&sim, "8.8.8.8"), Some(sim.peer_id(0, 1)));
    assert!(sim.nodes[0].routes_changed >= 5);
}

#[test]
fn the_answer_to_a_get_has_what_was_set() {
    let mut sim = Sim::strangers(15, 2);
    sim.update(0, 1, |peer| {
        peer.preshared_key = Some(preshared_key(3));
        peer.persistent_keepalive = Some(17);
    });
    let device = &sim.nodes[0].device;
    assert_eq!(device.private_key(), Some(&PrivateKey::from_bytes([0x40; 32])));
    let (_, peer) = device.peers().next().unwrap();
    assert_eq!(*peer.preshared_key(), preshared_key(3));
    assert_eq!(peer.persistent_keepalive(), 17);
    assert_eq!(peer.last_handshake(), None);
}
