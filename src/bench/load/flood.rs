//! A peer that begins connections and ends none: each SYN is another connection's.
//!
//! It is a peer of its own, made here: it does the handshake and seals its packets itself, so that
//! its speed is not that of a stack behind it. What comes back is not read.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::handshake::{new_key, private_keys};
use super::{SILENCE, connected_udp, is_time_out, now, pause, silent};
use crate::crypto::entropy::SeededEntropy;
use crate::crypto::key::{PresharedKey, PublicKey};
use crate::crypto::tai64n::Timestamp;
use crate::proto::cookie::CookieJar;
use crate::proto::handshake::{InitiationSent, RemoteStatic, StaticIdentity};
use crate::proto::index::Index;
use crate::proto::keypair::Keypair;
use crate::sys::clock;
use crate::wire::checksum::Sum;
use crate::wire::ip::PROTOCOL_TCP;
use crate::wire::message::{self, Message, TRANSPORT_OVERHEAD_BYTES};
use crate::wire::transport::SYN;

/// Floods for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flood {
    /// Where the hub takes datagrams.
    pub hub: SocketAddr,
    /// The hub's public key.
    pub responder: String,
    /// The peer's key follows from it: the first of [`private_keys`].
    pub seed: u64,
    /// The peer's address in the tunnel.
    pub source: Ipv4Addr,
    /// Whom it begins connections to, by turns; each has another port of the peer's.
    pub targets: Vec<SocketAddrV4>,
    pub per_second: f64,
    pub duration: Duration,
}

/// How many SYN have been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flooded {
    pub packets: u64,
}

/// Does [`Flood`].
///
/// # Errors
/// A key that is none, what the socket said, or a hub that does not answer.
pub fn flood(task: &Flood) -> io::Result<Flooded> {
    let socket = connected_udp(task.hub)?;
    let sealer = handshake(task, &socket)?.sealer;
    let started = now();
    let mut packets = 0;
    let mut message = [0; PADDED_BYTES + TRANSPORT_OVERHEAD_BYTES];
    while now().since(started) < task.duration {
        while now().since(started).as_secs_f64() * task.per_second > packets as f64 {
            let syn = syn(task, packets);
            let counter = sealer.reserve(1).and_then(|mut range| range.next());
            let counter = counter.ok_or_else(|| io::Error::other("no counter is left"))?;
            let length = sealer.seal(counter, &syn, PADDED_BYTES - SYN_BYTES, &mut message);
            // A queue that is full loses it, as the way does.
            drop(socket.send(&message[..length]));
            packets += 1;
        }
        pause(BETWEEN)?;
    }
    Ok(Flooded { packets })
}

fn handshake(task: &Flood, socket: &std::net::UdpSocket) -> io::Result<Keypair> {
    let responder = PublicKey::from_base64(&task.responder).map_err(io::Error::other)?;
    let private = private_keys(task.seed, 1).next().ok_or_else(|| silent("no key"))?;
    let identity = StaticIdentity::new(private);
    let remote = RemoteStatic::new(&identity, responder, PresharedKey::NONE);
    let ephemeral = new_key(&mut SeededEntropy::new(!task.seed));
    let timestamp = Timestamp::from_wall(clock::now().wall);
    let index = Index::from_le_bytes([1; 4]);
    let failed = |reason: crate::proto::drop_reason::DropReason| io::Error::other(reason.name());
    let (sent, mut message) =
        InitiationSent::create(&identity, &remote, ephemeral, index, timestamp).map_err(failed)?;
    CookieJar::new(&responder).stamp(now(), &mut message);
    socket.set_read_timeout(Some(SILENCE))?;
    socket.send(&message)?;
    let mut buffer = [0; 256];
    let length = match socket.recv(&mut buffer) {
        Ok(length) => length,
        Err(error) if is_time_out(&error) => return Err(silent("the hub did not answer")),
        Err(error) => return Err(error),
    };
    let Some(Message::Response(response)) = message::classify(&buffer[..length]) else {
        return Err(io::Error::other("the hub did not answer with a handshake"));
    };
    sent.consume_response(now(), &identity, &remote, response).map_err(failed)
}

/// The SYN of that number. [RFC 791 §3.1] [RFC 9293 §3.1]
fn syn(task: &Flood, number: u64) -> [u8; SYN_BYTES] {
    let targets = task.targets.len().max(1) as u64;
    let target = task.targets.get((number % targets) as usize);
    let target = target.copied().unwrap_or(SocketAddrV4::new(task.source, 0));
    let port = FIRST_PORT + (number / targets % PORTS) as u16;
    let mut syn = [0; SYN_BYTES];
    syn[0] = 0x45;
    syn[2..4].copy_from_slice(&(SYN_BYTES as u16).to_be_bytes());
    syn[8] = 64;
    syn[9] = PROTOCOL_TCP;
    syn[12..16].copy_from_slice(&task.source.octets());
    syn[16..20].copy_from_slice(&target.ip().octets());
    let checksum = Sum::new().add(&syn[..20]).finish();
    syn[10..12].copy_from_slice(&checksum.to_be_bytes());
    syn[20..22].copy_from_slice(&port.to_be_bytes());
    syn[22..24].copy_from_slice(&target.port().to_be_bytes());
    syn[24..28].copy_from_slice(&(number as u32).to_be_bytes());
    syn[32] = 0x50;
    syn[33] = SYN;
    syn[34..36].copy_from_slice(&u16::MAX.to_be_bytes());
    let pseudo_header = Sum::new().add(&syn[12..20]).add_u32(u32::from(PROTOCOL_TCP) + 20);
    let checksum = pseudo_header.add(&syn[20..]).finish();
    syn[36..38].copy_from_slice(&checksum.to_be_bytes());
    syn
}

const SYN_BYTES: usize = 40;
/// What it is padded to. [WG §5.4.6]
const PADDED_BYTES: usize = 48;
const FIRST_PORT: u16 = 1024;
const PORTS: u64 = 64_000;
const BETWEEN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tcp::{Checksum, Packet};

    #[test]
    fn each_syn_is_whole_and_of_another_connection() {
        let task = Flood {
            hub: "127.0.0.1:1".parse().unwrap(),
            responder: String::new(),
            seed: 1,
            source: Ipv4Addr::new(10, 0, 0, 2),
            targets: vec!["192.0.2.1:80".parse().unwrap(), "192.0.2.2:81".parse().unwrap()],
            per_second: 1.0,
            duration: Duration::ZERO,
        };
        let mut pairs = std::collections::HashSet::new();
        for number in 0..10_000 {
            let syn = syn(&task, number);
            assert_eq!(Sum::new().add(&syn[..20]).finish(), 0);
            let packet = Packet::parse(&syn, Checksum::Verify).unwrap();
            assert_eq!(packet.segment.flags, SYN);
            assert!(pairs.insert((packet.source, packet.destination)), "{number}");
        }
        assert!(pairs.iter().any(|(_, to)| to.to_string() == "192.0.2.2:81"));
    }
}
