//! Packets of peers that become datagrams of this host's, and what comes back of it.

use std::net::{IpAddr, SocketAddr};

use hybridwg::flow::inner::{
    Inner, Quoted, cut_v6, ip_header_bytes, quote_echo, quote_udp, take_hop, write_echo, write_udp,
};
use hybridwg::wire::fragment::fragment;
use hybridwg::wire::icmp::{self, Problem, REPLY_BYTES, Told};

use super::Choices;

const UDP: u8 = 17;
const ICMP: [u8; 2] = [1, 58];

/// Any packet, or one whose lengths and checksums have been mended: nothing panics, what goes on is what
/// the packet carried, an answer is a packet in its turn, and what a router says of it quotes the very
/// packet that the peer has sent. Nobody is told of what he was told.
pub fn translation(data: &[u8]) {
    let mut choices = Choices(data);
    let [how, much, other, word] = choices.bytes();
    let mut packet = choices.0.to_vec();
    if how & 1 == 1 {
        mend(&mut packet);
    }
    tell(&packet, how, other, word);
    hop(&packet);
    Quoted::parse(&packet);
    let Some(inner) = Inner::parse(&packet) else { return };
    assert!(packet.starts_with(inner.packet) && inner.packet.ends_with(inner.payload));
    assert_eq!(inner.source.is_ipv4(), inner.destination.is_ipv4());
    if inner.fragment.is_some() {
        return;
    }
    let limit = 68 + usize::from(much) * 8;
    if let (UDP, Some(datagram)) = (inner.protocol, inner.udp()) {
        udp(&inner, datagram, limit, usize::from(other));
    }
    let is_icmp = inner.protocol == ICMP[usize::from(inner.source.is_ipv6())];
    if is_icmp && inner.icmp().is_some() {
        echo(&inner, u16::from_be_bytes([other, word]), usize::from(much));
    }
}

fn udp(inner: &Inner<'_>, (from, to, content): (u16, u16, &[u8]), limit: usize, quoted: usize) {
    let peer = SocketAddr::new(inner.source, from);
    let remote = SocketAddr::new(inner.destination, to);
    // The answer says the same.
    let headers = ip_header_bytes(peer.is_ipv4()) + 8;
    let mut answer = vec![0xee; headers + content.len()];
    answer[headers..].copy_from_slice(content);
    write_udp(&mut answer, remote, peer, 7).expect("of one family, and not too long");
    assert_sound(&answer);
    let back = Inner::parse(&answer).expect("what we write, we read");
    assert_eq!((back.source, back.destination), (remote.ip(), peer.ip()));
    assert_eq!(back.udp(), Some((to, from, content)));
    cut(&answer, limit);
    let quoted = &content[..content.len().min(quoted)];
    let quote = quote_udp(peer, remote, quoted).expect("of one family");
    assert_sound(&quote);
    let again = Inner::parse(&quote).expect("what we write, we read");
    assert_eq!((again.source, again.destination), (inner.source, inner.destination));
    assert_eq!(again.udp(), Some((from, to, quoted)));
}

fn echo(inner: &Inner<'_>, identifier: u16, quoted: usize) {
    let original = inner.payload;
    // What the kernel makes of it: another identifier, and a checksum anew.
    let headers = ip_header_bytes(inner.source.is_ipv4());
    let mut sent = vec![0xee; headers + original.len()];
    sent[headers..].copy_from_slice(original);
    write_echo(&mut sent, inner.source, inner.destination, identifier, 7).expect("of one family");
    assert_sound(&sent);
    let message = &sent[headers..];
    assert_eq!(message[4..6], identifier.to_be_bytes());
    assert!(message[..2] == original[..2] && message[6..] == original[6..]);
    let quoted = &message[..message.len().min(8 + quoted)];
    let own = u16::from_be_bytes([original[4], original[5]]);
    let quote = quote_echo(inner.source, inner.destination, own, quoted).expect("of one family");
    let quote = &quote[headers..];
    assert!(quote[..2] == original[..2] && quote[4..] == original[4..quote.len()]);
    let sums = [quote, original].map(|it| u16::from_be_bytes([it[2], it[3]]) % u16::MAX);
    assert_eq!(sums[0], sums[1], "the peer's own checksum, also of what is not quoted");
}

/// A packet in parts is the packet, and no part is too long.
fn cut(packet: &[u8], limit: usize) {
    let parts: Vec<Vec<u8>> = if packet[0] >> 4 == 6 {
        cut_v6(packet, limit, 0x1234_5678).collect()
    } else {
        let (mut done, mut out, mut parts) = (0, vec![0; limit], Vec::new());
        while let Some((len, next)) = fragment(packet, limit, done, &mut out) {
            parts.push(out[..len].to_vec());
            done = next;
        }
        parts
    };
    let mut joined = Vec::new();
    for (position, part) in parts.iter().enumerate() {
        assert!(part.len() <= limit);
        assert_sound_header(part);
        let inner = Inner::parse(part).expect("what we write, we read");
        if let Some(fragment) = inner.fragment {
            assert_eq!(
                (fragment.offset, fragment.more),
                (joined.len(), position + 1 < parts.len())
            );
        }
        joined.extend_from_slice(inner.payload);
    }
    assert!(joined == packet[ip_header_bytes(packet[0] >> 4 == 4)..], "other bytes in parts");
}

fn hop(packet: &[u8]) {
    let mut shorter = packet.to_vec();
    take_hop(&mut shorter);
    let differ: Vec<_> = (0..packet.len()).filter(|at| packet[*at] != shorter[*at]).collect();
    let at: &[usize] =
        if packet.first().is_some_and(|it| it >> 4 == 4) { &[8, 10, 11] } else { &[7] };
    assert!(differ.iter().all(|it| at.contains(it)), "{differ:?}");
    if packet.len() >= 20 && packet[0] == 0x45 && naive_sum(&packet[..20]) == 0xffff {
        assert_eq!(naive_sum(&shorter[..20]), 0xffff);
        assert_eq!(shorter[8], packet[8].saturating_sub(1));
    }
}

/// What is said of `packet` is sound, short enough, quotes it, and is not spoken of again.
fn tell(packet: &[u8], how: u8, code: u8, word: u8) {
    let problems = [
        Problem::NoRoute,
        Problem::HostUnreachable,
        Problem::Prohibited,
        Problem::ProtocolUnknown,
        Problem::HopsExhausted,
        Problem::TooBig(u16::from(word) * 8),
    ];
    let from: IpAddr =
        if how & 2 == 0 { [192, 0, 2, 7].into() } else { [0xfd, 0, 0, 0, 0, 0, 0, 7].into() };
    let mut out = [0; REPLY_BYTES];
    let problem = problems[usize::from(how >> 4) % problems.len()];
    let len = if how & 4 == 0 {
        icmp::refuse(packet, Some(from).filter(|_| how & 8 == 0), problem, &mut out)
    } else {
        let kinds = if packet.first().is_some_and(|it| it >> 4 == 4) { [3, 11] } else { [1, 3] };
        let told = Told { from, kind: kinds[usize::from(how >> 7)], code, word: word.into() };
        icmp::pass_on(packet, told, &mut out)
    };
    let Some(len) = len else { return };
    let reply = &out[..len];
    assert_sound(reply);
    let inner = Inner::parse(reply).expect("what we write, we read");
    let quote = &inner.payload[8..];
    assert!(packet.starts_with(quote) && len <= if packet[0] >> 4 == 4 { 576 } else { 1280 });
    if let (Some(first), Some(again)) = (Quoted::parse(packet), Quoted::parse(quote)) {
        assert_eq!(first, again);
    }
    assert_eq!(icmp::refuse(reply, None, problem, &mut [0; REPLY_BYTES]), None, "an endless talk");
}

/// Gives `packet` the lengths and checksums that it should have.
fn mend(packet: &mut [u8]) {
    let (start, len) = match packet.first().map(|it| it >> 4) {
        Some(4) if packet.len() >= 20 => {
            packet[0] = 0x45;
            let len = packet.len().min(65_535);
            packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            // No fragment.
            packet[6] &= 0x40;
            packet[7] = 0;
            (20, len)
        }
        Some(6) if packet.len() >= 40 => {
            let len = packet.len().min(40 + 65_535);
            packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            (40, len)
        }
        _ => return,
    };
    let protocol = if start == 20 { packet[9] } else { packet[6] };
    let at = match (protocol, start) {
        (UDP, _) => 6,
        (1, 20) | (58, 40) => 2,
        _ => return,
    };
    if len < start + 8 {
        return;
    }
    let payload = (len - start) as u16;
    if protocol == UDP {
        packet[start + 4..start + 6].copy_from_slice(&payload.to_be_bytes());
    }
    packet[start + at..start + at + 2].fill(0);
    let sum = !naive_transport_sum(&packet[..len], start, protocol);
    let sum = if protocol == UDP && sum == 0 { u16::MAX } else { sum };
    packet[start + at..start + at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[track_caller]
fn assert_sound_header(packet: &[u8]) {
    if packet[0] >> 4 == 4 {
        assert_eq!(packet[0], 0x45);
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!(naive_sum(&packet[..20]), 0xffff, "the checksum of its header");
    } else {
        assert_eq!(packet[0], 0x60);
        assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len() - 40);
    }
}

#[track_caller]
fn assert_sound(packet: &[u8]) {
    assert_sound_header(packet);
    let start = ip_header_bytes(packet[0] >> 4 == 4);
    let protocol = if start == 20 { packet[9] } else { packet[6] };
    if protocol == UDP {
        let len = usize::from(u16::from_be_bytes([packet[start + 4], packet[start + 5]]));
        assert_eq!(len, packet.len() - start);
        assert!(packet[start + 6..start + 8] != [0, 0], "without a checksum");
    }
    assert_eq!(naive_transport_sum(packet, start, protocol), 0xffff, "its checksum");
}

/// Over the message and, but for ICMP over IPv4, the pseudo-header: 0xffff if the checksum is right.
/// [RFC 768] [RFC 8200 §8.1]
fn naive_transport_sum(packet: &[u8], start: usize, protocol: u8) -> u16 {
    let mut bytes = Vec::new();
    if protocol != 1 {
        bytes.extend_from_slice(if start == 20 { &packet[12..20] } else { &packet[8..40] });
        bytes.extend_from_slice(&((packet.len() - start) as u32).to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, protocol]);
    }
    bytes.extend_from_slice(&packet[start..]);
    naive_sum(&bytes)
}

/// [RFC 1071], word by word.
fn naive_sum(bytes: &[u8]) -> u16 {
    let word = |two: &[u8]| u16::from_be_bytes([two[0], two.get(1).copied().unwrap_or(0)]);
    bytes.chunks(2).map(word).fold(0, |sum: u16, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}
