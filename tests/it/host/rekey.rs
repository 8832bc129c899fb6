//! Keys change under traffic. [WG §6.2]: the initiator of a session makes a new one after two
//! minutes, in time for no packet to be lost.

use std::net::UdpSocket;
use std::panic;
use std::thread;
use std::time::Duration;

use hybridwg::sys::clock;

use super::net::{Host, eventually, pause};
use super::skips;
use super::traffic::{receive, steady_tcp};
use super::tunnel::Program::{Hybridwg, Sharded, WireguardGo};
use super::tunnel::{End, Program, join};

const PROGRAMS: &[&str] = &["ip", "ping", "wg", "wireguard-go"];

/// Long enough for one change of keys.
const DURATION: Duration = Duration::from_secs(130);

/// Two hosts that never meet the others; the left one initiates. Runs `traffic` for [`DURATION`].
fn across_a_change_of_keys(left: Program, right: Program, traffic: fn(&Host, &Host)) {
    let (left_host, right_host) = (Host::new(), Host::new());
    left_host.wire("192.168.7.1/24", &right_host, "192.168.7.2/24");
    let (left, right) = (End::start(&left_host, left), End::start(&right_host, right));
    join(&left, &right, "192.168.7.2", "");
    eventually("a first answer", Duration::from_secs(10), || left_host.pings("10.10.0.2"));
    let handshakes = || [left.latest_handshake(), right.latest_handshake()];
    let first = handshakes();
    traffic(&left_host, &right_host);
    let last = handshakes();
    for (first, last) in first.iter().zip(&last) {
        assert!(*last >= first + 119, "keys of {first} were changed at {last}");
    }
}

/// A stream each way.
fn streams(left: &Host, right: &Host) {
    let outcomes = thread::scope(|scope| {
        let there = scope.spawn(|| steady_tcp(left, right, "10.10.0.2", DURATION));
        let back = scope.spawn(|| steady_tcp(right, left, "10.10.0.1", DURATION));
        [there, back].map(|stream| stream.join().unwrap_or_else(|e| panic::resume_unwind(e)))
    });
    println!("{outcomes:?}");
    for outcome in outcomes {
        assert_eq!(outcome.came, outcome.sent, "{outcome:?}");
        assert!(outcome.longest_gap < Duration::from_secs(1), "{outcome:?}");
    }
}

/// Each datagram is answered before the next is sent: any loss ends the test here.
fn datagrams(left: &Host, right: &Host) {
    let there = right.run(|| UdpSocket::bind("10.10.0.2:7000")).unwrap();
    let here = left.run(|| UdpSocket::bind("10.10.0.1:7000")).unwrap();
    here.connect("10.10.0.2:7000").unwrap();
    there.connect("10.10.0.1:7000").unwrap();
    for socket in [&here, &there] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let started = clock::now().mono;
    let mut number = 0_u64;
    while clock::now().mono.since(started) < DURATION {
        let mut buffer = [0; 1500];
        here.send(&number.to_le_bytes()).unwrap();
        let len = receive(&there, &mut buffer).unwrap_or_else(|e| panic!("datagram {number}: {e}"));
        there.send(&buffer[..len]).unwrap();
        let len = receive(&here, &mut buffer).unwrap_or_else(|e| panic!("answer {number}: {e}"));
        assert_eq!(buffer[..len], number.to_le_bytes());
        number += 1;
        pause(Duration::from_millis(2));
    }
}

/// One test, so that the pairs spend their two minutes together.
#[test]
fn two_minutes_of_traffic_lose_nothing_to_the_change_of_keys() {
    if skips(PROGRAMS) {
        return;
    }
    thread::scope(|scope| {
        let run = |name: &str, left, right, traffic| {
            thread::Builder::new()
                .name(name.to_owned())
                .spawn_scoped(scope, move || across_a_change_of_keys(left, right, traffic))
                .expect("threads are to be had");
        };
        run("datagrams between two of ours", Hybridwg, Hybridwg, datagrams as fn(&Host, &Host));
        run("streams between two of ours", Hybridwg, Hybridwg, streams);
        run("streams between two of four shards", Sharded, Sharded, streams);
        run("streams, ours calls wireguard-go", Hybridwg, WireguardGo, streams);
        run("streams, wireguard-go calls ours", WireguardGo, Hybridwg, streams);
    });
}
