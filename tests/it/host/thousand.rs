//! A hub with a thousand clients, which are played by another implementation in this process.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use super::net::{Host, eventually};
use super::skips;
use super::traffic::receive;
use super::tunnel::End;
use super::tunnel::Program::Hybridwg;

const PEERS: u32 = 1000;

/// What an idle peer may cost the daemon: an upper bound that a regression would break, not the
/// figure (that is printed).
const MAX_BYTES_PER_IDLE_PEER: u64 = 8 * 1024;

fn secret(number: u32) -> StaticSecret {
    let mut bytes = [0x5a; 32];
    // Not the first bytes: some of their bits are no part of a key.
    bytes[4..8].copy_from_slice(&number.to_le_bytes());
    StaticSecret::from(bytes)
}

/// Resident memory of a process, in bytes.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The peer sections of all clients; addresses 10.20.x.y.
fn sections() -> String {
    let section = |number: u32| {
        let public = Base64::encode_string(PublicKey::from(&secret(number)).as_bytes());
        let [_, _, high, low] = number.to_be_bytes();
        format!("[Peer]\nPublicKey = {public}\nAllowedIPs = 10.20.{high}.{low}/32\n")
    };
    (0..PEERS).map(section).collect()
}

/// Shakes hands as each client in turn, from one socket, and confirms with a keepalive.
fn all_shake_hands(host: &Host, hub: PublicKey, port: u16) {
    let socket = host.run(|| UdpSocket::bind("127.0.0.1:0")).unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for number in 0..PEERS {
        let mut client = Tunn::new(secret(number), hub, None, None, number, None);
        let (mut message, mut answer, mut reply) = ([0; 256], [0; 256], [0; 256]);
        let TunnResult::WriteToNetwork(initiation) =
            client.format_handshake_initiation(&mut message, false)
        else {
            panic!("client {number} starts no handshake")
        };
        socket.send(initiation).unwrap();
        let len = receive(&socket, &mut answer).unwrap_or_else(|e| panic!("client {number}: {e}"));
        let TunnResult::WriteToNetwork(keepalive) =
            client.decapsulate(None, &answer[..len], &mut reply)
        else {
            panic!("client {number} does not accept the response")
        };
        socket.send(keepalive).unwrap();
    }
}

/// U-20.
#[test]
fn a_thousand_peers_are_set_at_once_and_all_shake_hands() {
    if skips(&["ip", "wg"]) {
        return;
    }
    let host = Host::new();
    let mut end = End::start(&host, Hybridwg);
    end.up("10.20.255.1/16");
    end.setconf("ListenPort = 0");
    let process = end.daemon().id();
    let empty = resident(process);
    let peers = sections();
    let port = end.port();
    end.apply("syncconf", &format!("ListenPort = {port}\n{peers}"));
    let per_peer = resident(process).saturating_sub(empty) / u64::from(PEERS);
    println!("{PEERS} idle peers: {per_peer} bytes of resident memory each");
    assert!(per_peer <= MAX_BYTES_PER_IDLE_PEER, "{per_peer} bytes per idle peer");

    let mut public = [0; 32];
    Base64::decode(&end.keys.public, &mut public).unwrap();
    all_shake_hands(&host, PublicKey::from(public), port);
    let never = |end: &End<'_>| {
        let all = host.sh(&format!("wg show {} latest-handshakes", end.interface));
        assert_eq!(all.lines().count(), PEERS as usize);
        all.lines().filter(|line| line.ends_with("\t0")).count()
    };
    eventually("every handshake is confirmed", Duration::from_secs(10), || never(&end) == 0);
    let with_sessions = resident(process).saturating_sub(empty) / u64::from(PEERS);
    println!("{PEERS} peers with a session: {with_sessions} bytes of resident memory each");

    // Again the same, and then none: neither costs a session or leaves a peer.
    end.apply("syncconf", &format!("ListenPort = {port}\n{peers}"));
    assert_eq!(never(&end), 0);
    end.apply("setconf", &format!("ListenPort = {port}"));
    assert_eq!(host.sh(&format!("wg show {} peers", end.interface)), "");
}
