//! Tunnels between every pair of implementations: what must work at all.

use std::time::Duration;

use super::net::{Host, eventually};
use super::skips;
use super::traffic::{tcp, udp};
use super::tunnel::Program::{Hybridwg, WireguardGo};
use super::tunnel::{End, Program, join};
const PROGRAMS: &[&str] = &["ip", "ping", "wg", "wireguard-go"];

/// Bytes of a TCP transfer: many windows, and no multiple of anything.
const STREAM_BYTES: u64 = 5_000_011;

/// ```text
///   left ── 192.168.7.1 ───── 192.168.7.2 ── right
///     └──── 10.10.0.1  ═════  10.10.0.2 ───────┘
/// ```
fn everything_passes(left: Program, right: Program, outer: &str, with_psk: bool) {
    let (left_host, right_host) = (Host::new(), Host::new());
    left_host.wire("192.168.7.1/24 fd07::1/64", &right_host, "192.168.7.2/24 fd07::2/64");
    let (left, right) = (End::start(&left_host, left), End::start(&right_host, right));
    let psk = if with_psk { left_host.sh("wg genpsk") } else { String::new() };
    let more = if with_psk { format!("PresharedKey = {psk}") } else { psk };
    join(&left, &right, outer, &more);
    eventually("a first answer", Duration::from_secs(10), || left_host.pings("10.10.0.2"));
    assert!(left_host.pings("fd10::2"));
    assert!(right_host.pings("10.10.0.1") && right_host.pings("fd10::1"));
    for (from, to, address) in [
        (&left_host, &right_host, "10.10.0.2"),
        (&left_host, &right_host, "fd10::2"),
        (&right_host, &left_host, "10.10.0.1"),
        (&right_host, &left_host, "fd10::1"),
    ] {
        assert_eq!(tcp(from, to, address, STREAM_BYTES, || ()), STREAM_BYTES, "to {address}");
        let sizes = [0, 1, 15, 16, 17, 1331, 1332, 1333, 8000, 60_000, 65_000];
        assert_eq!(udp(from, to, address, &sizes), sizes, "to {address}");
    }
    let handshakes = (left.latest_handshake(), right.latest_handshake());
    assert!(handshakes.0 > 0 && handshakes.1 > 0, "{handshakes:?}");
}

macro_rules! pairs {
    ($($name:ident: $left:ident, $right:ident, $outer:literal, $psk:literal;)*) => {$(
        #[test]
        fn $name() {
            if !skips(PROGRAMS) {
                everything_passes($left, $right, $outer, $psk);
            }
        }
    )*};
}

pairs! {
    two_of_ours_over_ipv4: Hybridwg, Hybridwg, "192.168.7.2", false;
    two_of_ours_over_ipv6_with_a_preshared_key: Hybridwg, Hybridwg, "[fd07::2]", true;
    ours_calls_wireguard_go_over_ipv4: Hybridwg, WireguardGo, "192.168.7.2", false;
    ours_calls_wireguard_go_over_ipv4_with_a_preshared_key: Hybridwg, WireguardGo, "192.168.7.2", true;
    ours_calls_wireguard_go_over_ipv6: Hybridwg, WireguardGo, "[fd07::2]", false;
    ours_calls_wireguard_go_over_ipv6_with_a_preshared_key: Hybridwg, WireguardGo, "[fd07::2]", true;
    wireguard_go_calls_ours_over_ipv4: WireguardGo, Hybridwg, "192.168.7.2", false;
    wireguard_go_calls_ours_over_ipv4_with_a_preshared_key: WireguardGo, Hybridwg, "192.168.7.2", true;
    wireguard_go_calls_ours_over_ipv6: WireguardGo, Hybridwg, "[fd07::2]", false;
    wireguard_go_calls_ours_over_ipv6_with_a_preshared_key: WireguardGo, Hybridwg, "[fd07::2]", true;
}

/// The harness itself: what fails between two of theirs is no fault of ours.
#[test]
fn two_of_wireguard_go_show_that_the_harness_works() {
    if !skips(PROGRAMS) {
        everything_passes(WireguardGo, WireguardGo, "[fd07::2]", true);
    }
}
