//! Everything into the tunnel (`0.0.0.0/0`, `::/0`), with wg-quick's routing by firewall mark.
//!
//! ```text
//!   client ── 192.168.7.1 ───── 192.168.7.2 ── hub, also 198.51.100.1, 203.0.113.9 and fd99::9
//!     └────── 10.10.0.2   ═════  10.10.0.1 ────┘
//! ```
//! The endpoint is 198.51.100.1, which the client's default route leads to as to everything else,
//! and which lies in what the tunnel claims: without the mark on our socket, the tunnel's packets
//! would go into the tunnel.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::lifetime::{
    assert_gone, assert_served_by_us, interface_of, kernel_has_wireguard, quick, state,
};
use super::net::{Host, eventually, unique};
use super::skips;
use super::traffic::tcp;
use super::tunnel::Keys;

const STREAM_BYTES: u64 = 5_000_011;

#[test]
fn wg_quick_sends_everything_into_the_tunnel_but_its_own_packets() {
    if skips(&["ip", "ping", "wg", "wg-quick", "iptables", "nft", "sysctl"])
        || kernel_has_wireguard()
    {
        return;
    }
    let (client, hub) = (Host::new(), Host::new());
    client.wire("192.168.7.1/24 fd07::1/64", &hub, "192.168.7.2/24 fd07::2/64");
    for address in ["198.51.100.1/32", "203.0.113.9/32", "fd99::9/128"] {
        hub.sh(&format!("ip address add {address} dev lo"));
    }
    client.sh("ip route add default via 192.168.7.2");
    client.sh("ip -6 route add default via fd07::2");
    let (keys, hub_keys) = (Keys::generate(&client), Keys::generate(&hub));
    let folder = tempfile::tempdir().unwrap();
    let place = |text: &str| -> PathBuf {
        let path = folder.path().join(format!("{}.conf", unique("h")));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let hub_file = place(&format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.10.0.1/24, fd10::1/64\nListenPort = 51820\n\
         [Peer]\nPublicKey = {}\nAllowedIPs = 10.10.0.2/32, fd10::2/128\n",
        hub_keys.private, keys.public
    ));
    let client_file = place(&format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.10.0.2/24, fd10::2/64\n\
         [Peer]\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 198.51.100.1:51820\n",
        keys.private, hub_keys.public
    ));
    let before = state(&client);
    quick("up")(&hub, &hub_file);
    quick("up")(&client, &client_file);
    let interface = interface_of(&client_file);
    assert_served_by_us(&client, &interface);
    assert_eq!(client.sh(&format!("wg show {interface} fwmark")).trim(), "0xca6c");

    eventually("the far side answers", Duration::from_secs(10), || client.pings("203.0.113.9"));
    assert!(client.pings("fd99::9"));
    // Without the tunnel all of this would arrive as well: what counts is what the tunnel sent.
    let sent = || {
        let text = client.sh(&format!("wg show {interface} transfer"));
        text.split_whitespace().nth(2).and_then(|n| n.parse::<u64>().ok()).expect("a count")
    };
    for address in ["203.0.113.9", "fd99::9"] {
        let first = sent();
        assert_eq!(tcp(&client, &hub, address, STREAM_BYTES, || ()), STREAM_BYTES, "to {address}");
        assert!(sent() > first + STREAM_BYTES, "{first} to {}: not by the tunnel", sent());
    }
    for (to, address) in [("10.10.0.2", "IPv4"), ("fd10::2", "IPv6")] {
        assert_eq!(tcp(&hub, &client, to, STREAM_BYTES, || ()), STREAM_BYTES, "{address} back");
    }
    quick("down")(&client, &client_file);
    assert_gone(&client, &interface);
    assert_eq!(state(&client), before);
    quick("down")(&hub, &hub_file);
    assert_gone(&hub, &interface_of(&hub_file));
}
