//! Outer paths that carry less than what the tunnel was made for.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use hybridwg::sys::clock;

use super::net::{Host, eventually};
use super::skips;
use super::tunnel::Program::{Hybridwg, WireguardGo};
use super::tunnel::{End, peer};

/// 10.10.0.1 on `left` sends to 10.10.0.2 on `right` for a few seconds, and longer than the path needs
/// to be found out; returns the longest time without a byte.
fn longest_stall(left: &Host, right: &Host) -> Duration {
    const BYTES: usize = 4 << 20;
    let listener = right.run(|| TcpListener::bind("10.10.0.2:7000")).unwrap();
    let sender = left.run(|| TcpStream::connect("10.10.0.2:7000")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut sender = sender;
            sender.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
            sender.write_all(&vec![7; BYTES]).unwrap();
        });
        let (mut receiver, _) = listener.accept().unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut buffer, mut longest, mut received) = ([0; 65_536], Duration::ZERO, 0);
        let mut last = clock::now().mono;
        while received < BYTES {
            let count = match receiver.read(&mut buffer) {
                // Of a child of another test. A read with a time limit is never resumed by itself.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("bytes within 20 s"),
            };
            assert_ne!(count, 0, "after {received} bytes");
            let now = clock::now().mono;
            longest = longest.max(now.since(last));
            (last, received) = (now, received + count);
        }
        longest
    })
}

fn shown(end: &End<'_>, command: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_hybridwg"));
    program.args([command, &end.interface]);
    let output = end.host.output(program);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

const PROGRAMS: &[&str] = &["ip", "ping", "wg", "wireguard-go", "nft"];

/// A tunnel of 1360 bytes over a path of 1400 with a router, to wireguard-go; `and` does more to the
/// hosts.
fn over_a_narrow_path(and: impl FnOnce(&Host, &Host), expected: &str) {
    if skips(PROGRAMS) {
        return;
    }
    let (client, router, hub) = (Host::new(), Host::new(), Host::new());
    client.wire("10.99.0.2/24", &router, "10.99.0.1/24");
    let (outside, hubs) = router.wire("192.168.7.1/24", &hub, "192.168.7.2/24");
    client.sh("ip route add default via 10.99.0.1");
    hub.sh("ip route add default via 192.168.7.1");
    router.forward();
    router.sh(&format!("ip link set {outside} mtu 1400"));
    hub.sh(&format!("ip link set {hubs} mtu 1400"));
    and(&router, &hub);
    sends(&client, &hub, || {}, expected);
}

/// `client` sends to `hub`, which has the address 192.168.7.2, after `narrow` was done, does not stall
/// for long, and shows what was `expected`.
fn sends(client: &Host, hub: &Host, narrow: impl FnOnce(), expected: &str) {
    let (left, right) = (End::start(client, Hybridwg), End::start(hub, WireguardGo));
    right.setconf(&peer(&left.keys, 1, ""));
    let endpoint = format!("Endpoint = 192.168.7.2:{}\n", right.port());
    left.setconf(&peer(&right.keys, 2, &endpoint));
    left.up("10.10.0.1/24");
    right.up("10.10.0.2/24");
    eventually("a session", Duration::from_secs(10), || client.pings("10.10.0.2"));
    narrow();
    let stall = longest_stall(client, hub);
    assert!(stall < Duration::from_secs(5), "{stall:?}");
    eventually("the path is known", Duration::from_secs(5), || {
        shown(&left, "show").contains(expected)
    });
    let line = expected.split(' ').nth(2).unwrap();
    assert!(shown(&left, "mtu").ends_with(&format!("MTU = {line}\n")));
}

/// Drops fragments, as clouds do, and counts them.
fn drop_fragments(hub: &Host) {
    hub.sh("nft add table ip t");
    hub.sh("nft add chain ip t c { type filter hook prerouting priority -450 ; }");
    hub.sh("nft add rule ip t c ip frag-off & 0x3fff != 0 counter drop");
}

#[test]
fn u_05_a_path_of_1400_bytes_that_says_so_is_followed_to_the_byte() {
    over_a_narrow_path(|_, hub| drop_fragments(hub), "path mtu: 1340 (measured)");
}

#[test]
fn n_03_a_path_of_1400_bytes_that_says_nothing_is_found_out_without_a_long_stall() {
    over_a_narrow_path(
        |router, hub| {
            drop_fragments(hub);
            router.sh("nft add table ip t");
            router.sh("nft add chain ip t c { type filter hook output priority 0 ; }");
            router.sh("nft add rule ip t c icmp type destination-unreachable counter drop");
        },
        "path mtu: 1280 (measured)",
    );
}

/// The kernel says so of each datagram that it refuses (EMSGSIZE), and nobody else does.
#[test]
fn u_05_an_interface_of_this_host_that_gets_narrower_is_followed_to_the_byte() {
    if skips(PROGRAMS) {
        return;
    }
    let (client, hub) = (Host::new(), Host::new());
    let (mine, hubs) = client.wire("192.168.7.1/24", &hub, "192.168.7.2/24");
    drop_fragments(&hub);
    let narrow = || {
        client.sh(&format!("ip link set {mine} mtu 1400"));
        hub.sh(&format!("ip link set {hubs} mtu 1400"));
    };
    sends(&client, &hub, narrow, "path mtu: 1340 (measured)");
}
