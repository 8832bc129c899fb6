//! What happens to a tunnel in its life: the way changes, a NAT forgets, a hub restarts.

use std::time::Duration;

use super::net::{Host, eventually, pause};
use super::skips;
use super::traffic::tcp;
use super::tunnel::Program::Hybridwg;
use super::tunnel::{End, LEFT, RIGHT, join, peer};

const PROGRAMS: &[&str] = &["ip", "ping", "wg"];

const STREAM_BYTES: u64 = 8_000_009;

/// Client (left, 192.168.7.1) and hub (right, 192.168.7.2), joined, with a session.
fn client_and_hub<'h>(client: &'h Host, hub: &'h Host) -> (End<'h>, End<'h>, String) {
    let (port, _) = client.wire("192.168.7.1/24", hub, "192.168.7.2/24");
    let (left, right) = (End::start(client, Hybridwg), End::start(hub, Hybridwg));
    join(&left, &right, "192.168.7.2", "");
    eventually("a first answer", Duration::from_secs(10), || client.pings("10.10.0.2"));
    (left, right, port)
}

#[test]
fn a_transfer_survives_a_new_address_of_the_client() {
    if skips(PROGRAMS) {
        return;
    }
    let (client, hub) = (Host::new(), Host::new());
    let (left, right, port) = client_and_hub(&client, &hub);
    let handshake = left.latest_handshake();
    let came = tcp(&client, &hub, "10.10.0.2", STREAM_BYTES, || {
        client.sh(&format!("ip address del 192.168.7.1/24 dev {port}"));
        client.sh(&format!("ip address add 192.168.7.77/24 dev {port}"));
    });
    assert_eq!(came, STREAM_BYTES);
    assert_eq!(right.show("endpoints"), format!("192.168.7.77:{}", left.port()));
    assert_eq!(left.latest_handshake(), handshake, "the session went on");
}

#[test]
fn a_transfer_survives_a_new_port_of_the_client() {
    if skips(PROGRAMS) {
        return;
    }
    let (client, hub) = (Host::new(), Host::new());
    let (left, right, _) = client_and_hub(&client, &hub);
    let handshake = left.latest_handshake();
    let came = tcp(&client, &hub, "10.10.0.2", STREAM_BYTES, || left.set("listen-port 40123"));
    assert_eq!(came, STREAM_BYTES);
    assert_eq!(right.show("endpoints"), "192.168.7.1:40123");
    assert_eq!(left.latest_handshake(), handshake, "the session went on");
}

#[test]
fn a_transfer_survives_a_restart_of_the_hub() {
    if skips(PROGRAMS) {
        return;
    }
    let (client, hub) = (Host::new(), Host::new());
    let (left, right, _) = client_and_hub(&client, &hub);
    let port = right.port();
    let mut right = Some(right);
    let came = tcp(&client, &hub, "10.10.0.2", STREAM_BYTES, || {
        let again = right.take().expect("once").restart();
        again.setconf(&format!("ListenPort = {port}\n{}", peer(&left.keys, 1, "")));
        again.up(RIGHT);
        right = Some(again);
    });
    assert_eq!(came, STREAM_BYTES);
}

/// ```text
///   client 10.99.0.2 ── 10.99.0.1 NAT 192.168.7.1 ── 192.168.7.2 hub
/// ```
#[test]
fn a_keepalive_keeps_the_way_through_a_nat_open_for_the_hub() {
    if skips(&["ip", "ping", "wg", "nft"]) {
        return;
    }
    let (client, nat, hub) = (Host::new(), Host::new(), Host::new());
    client.wire("10.99.0.2/24", &nat, "10.99.0.1/24");
    let (outside, _) = nat.wire("192.168.7.1/24", &hub, "192.168.7.2/24");
    client.sh("ip route add default via 10.99.0.1");
    nat.forward();
    nat.sh("nft add table ip nat");
    nat.sh("nft add chain ip nat after { type nat hook postrouting priority 100 ; }");
    nat.sh(&format!("nft add rule ip nat after oifname {outside} masquerade"));
    // Seconds: shorter than any silence that a keepalive of one second leaves, doubled.
    nat.set("net/netfilter/nf_conntrack_udp_timeout", "3");
    nat.set("net/netfilter/nf_conntrack_udp_timeout_stream", "3");
    let (left, right) = (End::start(&client, Hybridwg), End::start(&hub, Hybridwg));
    right.setconf(&peer(&left.keys, 1, ""));
    let endpoint = format!("Endpoint = 192.168.7.2:{}\n", right.port());
    left.setconf(&peer(&right.keys, 2, &format!("{endpoint}PersistentKeepalive = 1")));
    left.up(LEFT);
    right.up(RIGHT);
    // Nobody on the client speaks first: the keepalive makes the session.
    eventually("a session", Duration::from_secs(10), || right.latest_handshake() > 0);
    assert!(right.show("endpoints").starts_with("192.168.7.1:"), "{}", right.show("endpoints"));
    pause(Duration::from_secs(8));
    assert!(hub.pings("10.10.0.1"), "the NAT still knows the way in");
    left.set(&format!("peer {} persistent-keepalive off", right.keys.public));
    // Longer than the NAT remembers, shorter than the 15 s after which the client, whose last
    // answer to a ping went unanswered, would shake hands anew and so open the way again.
    pause(Duration::from_secs(7));
    assert!(
        !hub.pings("10.10.0.1"),
        "without keepalives it forgets, so the above proved something"
    );
}

#[test]
fn an_interface_that_goes_down_and_up_again_keeps_its_session() {
    if skips(PROGRAMS) {
        return;
    }
    let (client, hub) = (Host::new(), Host::new());
    let (left, right, _) = client_and_hub(&client, &hub);
    let before = (left.latest_handshake(), right.latest_handshake());
    // A second later a new handshake would show.
    pause(Duration::from_millis(1100));
    client.sh(&format!("ip link set {} down", left.interface));
    assert!(!client.pings("10.10.0.2"));
    client.sh(&format!("ip link set {} up", left.interface));
    eventually("an answer", Duration::from_secs(5), || client.pings("10.10.0.2"));
    assert_eq!((left.latest_handshake(), right.latest_handshake()), before);
}

#[test]
fn a_change_of_the_configuration_costs_no_session() {
    if skips(PROGRAMS) {
        return;
    }
    let (client, hub) = (Host::new(), Host::new());
    let (left, right, _) = client_and_hub(&client, &hub);
    let before = (left.latest_handshake(), right.latest_handshake());
    let stranger = super::tunnel::Keys::generate(&hub);
    let port = right.port();
    let same = format!("ListenPort = {port}\n{}", peer(&left.keys, 1, ""));
    // A second later a new handshake would show.
    pause(Duration::from_millis(1100));
    right.apply("syncconf", &same);
    right.apply("syncconf", &format!("{same}\n[Peer]\nPublicKey = {}\n", stranger.public));
    right.set(&format!("peer {} persistent-keepalive 7", left.keys.public));
    right.set(&format!("peer {} allowed-ips 10.10.0.1/32,fd10::1/128", left.keys.public));
    right.set(&format!("peer {} remove", stranger.public));
    assert!(client.pings("10.10.0.2") && hub.pings("fd10::1"));
    assert_eq!((left.latest_handshake(), right.latest_handshake()), before);
    assert_eq!(right.show("persistent-keepalive"), "7");
    let shown = hub.sh(&format!("wg showconf {}", right.interface));
    for part in [format!("ListenPort = {port}"), format!("PrivateKey = {}", right.keys.private)] {
        assert!(shown.contains(&part), "{part} in:\n{shown}");
    }
}

#[test]
fn a_packet_from_an_address_that_is_not_the_peers_goes_nowhere() {
    if skips(PROGRAMS) {
        return;
    }
    let (client, hub) = (Host::new(), Host::new());
    let (left, right, _) = client_and_hub(&client, &hub);
    client.sh(&format!("ip address add 10.10.0.66/24 dev {}", left.interface));
    hub.sh(&format!("ip address add 10.10.0.67/24 dev {}", right.interface));
    assert!(!client.try_sh("ping -n -q -c 1 -W 1 -I 10.10.0.66 10.10.0.2").status.success());
    assert!(client.pings("10.10.0.2"));
    // No peer has this one: the sender is told at once, and by ICMP. [P-70]
    let told = client.try_sh("ping -n -c 1 -W 2 10.10.0.99");
    assert!(String::from_utf8_lossy(&told.stdout).contains("Unreachable"), "{told:?}");
}
