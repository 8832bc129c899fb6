//! Announced segment sizes, on their way in and out.

use super::*;
use crate::dataplane::clamp_mss::ClampMss;
use crate::wire::vnet::{PartialChecksum, VnetHeader};

/// A SYN, or its answer, that announces `mss`, with a right checksum.
fn syn(source: &str, destination: &str, flags: u8, mss: u16) -> Vec<u8> {
    let is_v6 = source.contains(':');
    let start = if is_v6 { 40 } else { 20 };
    let mut packet = packet(source, destination, 0, start + 24, 0);
    packet[if is_v6 { 6 } else { 9 }] = 6;
    packet[start + 12..start + 14].copy_from_slice(&[6 << 4, flags]);
    packet[start + 20..start + 22].copy_from_slice(&[2, 4]);
    packet[start + 22..].copy_from_slice(&mss.to_be_bytes());
    if !is_v6 {
        packet[10..12].fill(0);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let sum = segment_sum(&packet);
    packet[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Zero if the checksum of the segment is right.
fn segment_sum(packet: &[u8]) -> u16 {
    let (addresses, start) = if packet[0] >> 4 == 6 { (8..40, 40) } else { (12..20, 20) };
    let mut covered = packet[addresses].to_vec();
    covered.extend([0, 6, 0, 24]);
    covered.extend(&packet[start..]);
    checksum(&covered)
}

fn announced(packet: &[u8]) -> u16 {
    assert_eq!(segment_sum(packet), 0, "a wrong checksum");
    u16::from_be_bytes([packet[packet.len() - 2], packet[packet.len() - 1]])
}

const ENDS: [[&str; 2]; 2] = [["10.0.1.1", "10.0.2.1"], ["fd00:1::1", "fd00:2::1"]];

#[test]
fn a_peer_that_does_not_clamp_gets_and_gives_announcements_that_fit() {
    for (lowers_out, lowers_in) in [(true, false), (false, true)] {
        let [mut a, mut b] = connected(at(0));
        for (node, lowers) in [(&a, lowers_out), (&b, lowers_in)] {
            node.tables.set_mtu(1360);
            node.tables.set_clamp_mss(if lowers { ClampMss::On } else { ClampMss::Off });
        }
        for ([source, destination], expected) in ENDS.into_iter().zip([1320, 1300]) {
            for flags in [0x02, 0x12] {
                let sent = a.send(at(1), &[syn(source, destination, flags, 1460)]);
                let delivered = b.receive(at(1), &a, &sent);
                assert_eq!(announced(&delivered[0]), expected, "{source} {flags:#x}");
            }
        }
    }
}

#[test]
fn a_checksum_that_the_kernel_has_left_to_us_is_right_after_it() {
    let [mut a, mut b] = connected(at(0));
    a.tables.set_mtu(1360);
    b.tables.set_clamp_mss(ClampMss::Off);
    let mut partial = syn("10.0.1.1", "10.0.2.1", 2, 1460);
    let mut pseudo = partial[12..20].to_vec();
    pseudo.extend([0, 6, 0, 24]);
    partial[36..38].copy_from_slice(&(!checksum(&pseudo)).to_be_bytes());
    let vnet = VnetHeader {
        checksum: Some(PartialChecksum { start: 20, offset: 16 }),
        ..VnetHeader::default()
    };
    a.ip.push_super(&partial, vnet);
    a.settle(at(1));
    let sent = a.udp.take_sent();
    assert_eq!(announced(&b.receive(at(1), &a, &sent)[0]), 1320);
}

#[test]
fn a_number_is_announced_at_most_and_off_leaves_everything() {
    let [mut a, mut b] = connected(at(0));
    b.tables.set_clamp_mss(ClampMss::Off);
    for (setting, expected) in
        [(ClampMss::Off, 1460), (ClampMss::To(1200), 1200), (ClampMss::On, 1380)]
    {
        a.tables.set_clamp_mss(setting);
        let sent = a.send(at(1), &[syn("10.0.1.1", "10.0.2.1", 2, 1460)]);
        assert_eq!(announced(&b.receive(at(1), &a, &sent)[0]), expected, "{setting}");
    }
}

#[test]
fn a_syn_that_waits_for_a_session_is_lowered_too() {
    let [mut a, _] = strangers();
    a.send(at(1), &[syn("10.0.1.1", "10.0.2.1", 2, 1460)]);
    let [keypair, responder] = handshake(at(1), [1, 2]);
    let mut b = strangers().into_iter().next_back().unwrap();
    b.tables.set_clamp_mss(ClampMss::Off);
    b.make_current(b.install(responder, true));
    a.make_current(a.install(keypair, true));
    a.inbox.post(ShardCommand::Flush(PEER));
    a.settle(at(1));
    let sent = a.udp.take_sent();
    assert_eq!(announced(&b.receive(at(1), &a, &sent)[0]), 1380);
}
