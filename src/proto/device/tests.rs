//! What the simulated network cannot show: many peers at once, and callers who call at odd times.

use std::time::Duration;

use super::*;
use crate::crypto::entropy::SeededEntropy;
use crate::proto::drop_reason::DropReason;
use crate::proto::endpoint::Endpoint;
use crate::time::Wall;

fn at(secs: u64) -> Now {
    Now {
        mono: Instant::ZERO + Duration::from_secs(secs),
        wall: Wall { secs: 1_800_000_000 + secs, nanos: 0 },
    }
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(([192, 0, 2, 1], port).into())
}

/// A device with a key and `count` peers at known addresses.
fn device(count: u16, keepalive: u16) -> (Device, Outputs) {
    let mut device = Device::new(Box::new(SeededEntropy::new(1)));
    let mut out = Outputs::new();
    let key = PrivateKey::from_bytes([1; 32]);
    device.configure(at(0), Change::PrivateKey(Some(key)), &mut out).unwrap();
    for n in 0..count {
        let mut key = [9; 32];
        key[..2].copy_from_slice(&n.to_le_bytes());
        let mut update = PeerUpdate::new(PublicKey::from_bytes(key));
        update.endpoint = Some(endpoint(n).remote);
        update.persistent_keepalive = Some(keepalive);
        device.configure(at(0), Change::Peer(update), &mut out).unwrap();
    }
    (device, out)
}

fn transmissions(out: &mut Outputs) -> usize {
    out.drain().filter(|output| matches!(output, Output::Transmit { .. })).count()
}

#[test]
fn a_thousand_deadlines_at_once_are_worked_off_in_portions() {
    let (mut device, mut out) = device(1000, 25);
    assert_eq!(transmissions(&mut out), 1000);
    let (now, mut calls, mut sent) = (at(6), 0, 0);
    while device.next_deadline().is_some_and(|due| due <= now.mono) {
        device.handle_timeout(now, &mut out);
        let portion = transmissions(&mut out);
        assert!(portion <= 64);
        (calls, sent) = (calls + 1, sent + portion);
    }
    assert_eq!((calls, sent), (16, 1000));
}

#[test]
fn calling_early_or_twice_does_nothing() {
    let (mut device, mut out) = device(1, 25);
    assert_eq!(transmissions(&mut out), 1);
    let due = device.next_deadline().unwrap();
    for _ in 0..3 {
        device.handle_timeout(at(4), &mut out);
        assert!(out.is_empty());
        assert_eq!(device.next_deadline(), Some(due));
    }
    device.handle_timeout(at(6), &mut out);
    assert_eq!(transmissions(&mut out), 1);
    device.handle_timeout(at(6), &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_clock_that_runs_backwards_is_survived() {
    let (mut device, mut out) = device(1, 25);
    device.handle_timeout(at(1000), &mut out);
    for now in [at(500), at(0), at(1000), at(3), at(1006)] {
        device.handle_timeout(now, &mut out);
        device.want_session(now, PeerId(0), &mut out);
    }
    assert!(device.next_deadline().unwrap() <= at(1012).mono);
}

#[test]
fn handles_and_indices_of_nobody_are_ignored() {
    let (mut device, mut out) = device(1, 0);
    out.drain().for_each(drop);
    device.want_session(at(1), PeerId(77), &mut out);
    device.handle_nudge(at(1), PeerId(77), &mut out);
    device.handle_confirmed(at(1), Index(77), &mut out);
    assert!(out.is_empty());
    let response = [2, 0, 0, 0].into_iter().chain([0; 88]).collect::<Vec<u8>>();
    let result = device.handle_handshake(at(1), endpoint(1), Load::Normal, &response, &mut out);
    assert_eq!(result, Err(DropReason::InvalidMac1));
    let cookie = [3, 0, 0, 0].into_iter().chain([0; 60]).collect::<Vec<u8>>();
    let result = device.handle_handshake(at(1), endpoint(1), Load::High, &cookie, &mut out);
    assert_eq!(result, Err(DropReason::UnknownCookieIndex));
    assert!(out.is_empty());
}

#[test]
fn a_nudge_brings_a_deadline_forward() {
    let (mut device, mut out) = device(1, 0);
    let facts = out
        .drain()
        .find_map(|output| match output {
            Output::PeerAdded { facts, .. } => Some(facts),
            _ => None,
        })
        .unwrap();
    assert_eq!(device.next_deadline(), None);
    facts.data_sent(at(10).mono);
    assert!(facts.needs_nudge());
    device.handle_nudge(at(10), PeerId(0), &mut out);
    let due = device.next_deadline().unwrap();
    assert!((at(25).mono..=at(26).mono).contains(&due));
    device.handle_timeout(Now { mono: due, ..at(26) }, &mut out);
    assert_eq!(transmissions(&mut out), 1);
}

/// The datagrams among the outputs, and the indices installed.
fn sent_and_installed(out: &mut Outputs) -> (Vec<SmallDatagram>, Vec<Index>) {
    let (mut sent, mut installed) = (Vec::new(), Vec::new());
    for output in out.drain() {
        match output {
            Output::Transmit { datagram, .. } => sent.push(datagram),
            Output::Install { index, .. } => installed.push(index),
            _ => {}
        }
    }
    (sent, installed)
}

#[test]
fn a_response_that_was_held_back_replaces_no_session_made_since() {
    let mut out = Outputs::new();
    let [mut ours, mut theirs] = [(1, 2), (2, 1)].map(|(own, other)| {
        let mut device = Device::new(Box::new(SeededEntropy::new(own.into())));
        let key = PrivateKey::from_bytes([own; 32]);
        device.configure(at(0), Change::PrivateKey(Some(key)), &mut out).unwrap();
        let remote = StaticIdentity::new(PrivateKey::from_bytes([other; 32])).public;
        let mut update = PeerUpdate::new(remote);
        update.endpoint = Some(endpoint(other.into()).remote);
        device.configure(at(0), Change::Peer(update), &mut out).unwrap();
        device
    });
    sent_and_installed(&mut out);
    let peer = PeerId(0);
    ours.want_session(at(1), peer, &mut out);
    let initiation = sent_and_installed(&mut out).0.remove(0);
    theirs.handle_handshake(at(1), endpoint(1), Load::Normal, &initiation, &mut out).unwrap();
    let held_back = sent_and_installed(&mut out).0.remove(0);

    theirs.want_session(at(10), peer, &mut out);
    theirs.handle_timeout(at(10), &mut out);
    let initiation = sent_and_installed(&mut out).0.remove(0);
    ours.handle_handshake(at(10), endpoint(2), Load::Normal, &initiation, &mut out).unwrap();
    let index = sent_and_installed(&mut out).1.remove(0);
    ours.handle_confirmed(at(10), index, &mut out);
    sent_and_installed(&mut out);

    let attacker = endpoint(66);
    let outcome = ours.handle_handshake(at(11), attacker, Load::Normal, &held_back, &mut out);
    assert_eq!(outcome, Err(DropReason::UnknownHandshakeIndex));
    assert!(out.is_empty(), "neither session nor endpoint has changed");
}
