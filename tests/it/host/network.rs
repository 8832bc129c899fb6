//! The network under the tunnel changes: addresses, routes, and a clock that is wrong after a
//! restart. Nothing is sent through the tunnel while it changes: whoever notices is the daemon.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hybridwg::sys::clock;
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, SendFlags, SocketType};

use super::net::{Host, eventually, holds_within};
use super::tunnel::Program::Hybridwg;
use super::tunnel::{End, Keys, join, peer};
use super::{skip, skips};

const PROGRAMS: &[&str] = &["ip", "ping", "wg"];

/// What was noticed at once is done by then. A handshake that nobody starts would come, if at all,
/// when packets have been unanswered for 15 seconds.
const SOON: Duration = Duration::from_secs(3);

/// Since the last handshake message of ours a change may be answered only after 5 seconds.
const SOON_AFTER_ANOTHER: Duration = Duration::from_secs(8);

/// Lets the 5 seconds pass in which no second handshake message may be sent.
fn settle(end: &End<'_>) {
    let last = end.latest_handshake();
    eventually("the last handshake is 6 seconds ago", SOON_AFTER_ANOTHER, || {
        clock::now().wall.secs > last + 6
    });
}

#[test]
fn u_12_another_address_is_told_to_the_peer_at_once_and_a_lost_network_that_returns_too() {
    if skips(PROGRAMS) {
        return;
    }
    let (left_host, right_host) = (Host::new(), Host::new());
    let (port, _) =
        left_host.wire("192.168.7.1/24 fd07::1/64", &right_host, "192.168.7.2/24 fd07::2/64");
    let (left, right) = (End::start(&left_host, Hybridwg), End::start(&right_host, Hybridwg));
    join(&left, &right, "192.168.7.2", "");
    eventually("a first answer", SOON, || left_host.pings("10.10.0.2"));
    settle(&left);

    left_host.sh(&format!("ip address delete 192.168.7.1/24 dev {port}"));
    left_host.sh(&format!("ip address add 192.168.7.11/24 dev {port}"));
    let known_at = |address: &str| right.show("endpoints").starts_with(address);
    eventually("the peer knows the new address", SOON, || known_at("192.168.7.11:"));
    assert!(right_host.pings("10.10.0.1"), "and reaches it at the first try");

    // The cable is out, and in again with another address.
    left_host.sh(&format!("ip link set {port} down"));
    left_host.sh(&format!("ip address flush dev {port}"));
    settle(&left);
    left_host.sh(&format!("ip address add 192.168.7.12/24 dev {port}"));
    left_host.sh(&format!("ip link set {port} up"));
    eventually("the peer knows the third address", SOON, || known_at("192.168.7.12:"));
}

#[test]
fn u_12_a_better_route_by_another_interface_is_taken_although_the_old_one_still_works() {
    if skips(PROGRAMS) {
        return;
    }
    let (left_host, right_host) = (Host::new(), Host::new());
    left_host.wire("192.168.7.1/24", &right_host, "192.168.7.2/24");
    left_host.wire("192.168.8.1/24", &right_host, "192.168.8.2/24");
    // Whoever sends back takes the cable that it came by.
    right_host.sh("ip address add 192.0.2.2/32 dev lo");
    left_host.sh("ip route add 192.0.2.2 via 192.168.7.2 metric 20");
    let (left, right) = (End::start(&left_host, Hybridwg), End::start(&right_host, Hybridwg));
    join(&left, &right, "192.0.2.2", "");
    eventually("a first answer", SOON, || left_host.pings("10.10.0.2"));
    let known_at = |address: &str| right.show("endpoints").starts_with(address);
    assert!(known_at("192.168.7.1:"));
    settle(&left);

    left_host.sh("ip route add 192.0.2.2 via 192.168.8.2 metric 10");
    eventually("the peer is spoken to by the other cable", SOON, || known_at("192.168.8.1:"));
    assert!(right_host.pings("10.10.0.1"));
    settle(&left);
    left_host.sh("ip route delete 192.0.2.2 via 192.168.8.2 metric 10");
    eventually("and by the first again", SOON, || known_at("192.168.7.1:"));
}

#[test]
fn u_13_a_clock_in_the_past_after_a_restart_is_no_obstacle_as_long_as_the_state_file_is_there() {
    if skips(PROGRAMS) {
        return;
    }
    let (left_host, right_host) = (Host::new(), Host::new());
    left_host.wire("192.168.7.1/24", &right_host, "192.168.7.2/24");
    let (left, right) = (End::start(&left_host, Hybridwg), End::start(&right_host, Hybridwg));
    let folder = env::var_os("STATE_DIRECTORY").map_or("/var/lib/hybridwg".into(), PathBuf::from);
    let file = folder.join(format!("{}.clock", left.interface));
    join(&left, &right, "192.168.7.2", "");
    eventually("a first answer", SOON, || left_host.pings("10.10.0.2"));
    let kept = || fs::read_to_string(&file).ok()?.trim().parse::<u64>().ok();
    let now = clock::now().wall.secs;
    eventually("the time is kept", SOON, || kept().is_some_and(|kept| kept.abs_diff(now) < 10));

    // The clock of a life before stood a day later, as it looks now.
    let a_day_later = now + 86_400;
    let endpoint = format!("Endpoint = 192.168.7.2:{}", right.port());
    fs::write(&file, format!("{a_day_later}\n")).unwrap();
    let (left, met) = reborn(left, &right.keys, &endpoint);
    assert!(met, "timestamps of tomorrow are as good as any");
    eventually("what was sent is kept", SOON, || kept().is_some_and(|kept| kept > a_day_later));
    let before = kept();
    let (left, met) = reborn(left, &right.keys, &endpoint);
    assert!(met, "what the peer has seen is exceeded");
    // Else the daemon might write it after it was removed.
    eventually("so is what was sent now", SOON, || kept() > before);
    fs::remove_file(&file).unwrap();
    let (left, met) = reborn(left, &right.keys, &endpoint);
    assert!(!met, "without the file the peer takes us for a replay");
    drop(left);
    drop(fs::remove_file(&file));
}

/// Kills the daemon and starts another in its place; tells whether that gets through to the peer.
fn reborn<'h>(left: End<'h>, right: &Keys, endpoint: &str) -> (End<'h>, bool) {
    let left = left.restart();
    left.setconf(&peer(right, 2, endpoint));
    left.up("10.10.0.1/24");
    let met = holds_within(SOON, || left.host.pings("10.10.0.2"));
    (left, met)
}

/// Has the kernel say, in this network namespace alone, what it says when the hypervisor has given
/// the machine another generation number.
fn say_copied() -> Result<(), Errno> {
    let event = b"change@/devices/platform/VMGENCTR:00\0ACTION=change\0NEW_VMGENID=1\0";
    let socket = net::socket(AddressFamily::NETLINK, SocketType::RAW, Some(KOBJECT_UEVENT))?;
    let length = u32::try_from(16 + event.len()).unwrap();
    // A header with the first type that is not reserved, and NLM_F_REQUEST.
    let mut message = [&length.to_ne_bytes()[..], &16_u16.to_ne_bytes()].concat();
    message.extend([&1_u16.to_ne_bytes()[..], &[0; 8], event].concat());
    net::sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).map(drop)
}

/// N-12.
#[test]
fn p_85_a_machine_that_was_cloned_makes_new_keys_at_once() {
    if skips(PROGRAMS) {
        return;
    }
    let (left_host, right_host) = (Host::new(), Host::new());
    left_host.wire("192.168.7.1/24", &right_host, "192.168.7.2/24");
    let (left, right) = (End::start(&left_host, Hybridwg), End::start(&right_host, Hybridwg));
    join(&left, &right, "192.168.7.2", "");
    eventually("a first answer", SOON, || left_host.pings("10.10.0.2"));
    settle(&left);
    let before = left.latest_handshake();
    if let Err(error) = left_host.run(say_copied) {
        return skip(&format!("the kernel takes no event from here: {error}"));
    }
    eventually("new keys", SOON, || left.latest_handshake() > before);
    assert!(left_host.pings("10.10.0.2") && right_host.pings("10.10.0.1"));
}
