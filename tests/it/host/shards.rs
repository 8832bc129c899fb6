//! Daemons of four shards: threads with a queue of the TUN and sockets each.

use std::fs;
use std::net::UdpSocket;
use std::ops::Range;
use std::panic;
use std::thread;
use std::time::Duration;

use super::net::{Host, eventually, pause};
use super::skips;
use super::traffic::{receive, tcp};
use super::tunnel::Program::Sharded;
use super::tunnel::{End, join};

const PROGRAMS: &[&str] = &["ip", "ping", "wg"];

/// Flows each way at once.
const FLOWS: u16 = 8;

const STREAM_BYTES: u64 = 1_000_003;

fn joined<'h>(left: &'h Host, right: &'h Host) -> [End<'h>; 2] {
    left.wire("192.168.7.1/24", right, "192.168.7.2/24");
    let ends = [left, right].map(|host| End::start(host, Sharded));
    join(&ends[0], &ends[1], "192.168.7.2", "");
    eventually("a first answer", Duration::from_secs(10), || left.pings("10.10.0.2"));
    ends
}

/// Runs all of `work` at once.
fn at_once<T: Send>(work: Vec<impl FnOnce() -> T + Send>) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = work.into_iter().map(|work| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|outcome| outcome.unwrap_or_else(|e| panic::resume_unwind(e))).collect()
    })
}

/// A flow of numbered datagrams from one host to another; their sockets.
fn flow(from: (&Host, &str), to: (&Host, &str)) -> [UdpSocket; 2] {
    let incoming = to.0.run(|| UdpSocket::bind((to.1, 0))).unwrap();
    incoming.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let target = incoming.local_addr().unwrap();
    let outgoing = from.0.run(|| UdpSocket::bind((from.1, 0))).unwrap();
    outgoing.connect(target).unwrap();
    [outgoing, incoming]
}

/// Sends `numbers`, in bursts, and takes them in until the last one has come, or none does.
///
/// # Panics
/// If one overtakes another.
fn run_flow([outgoing, incoming]: &[UdpSocket; 2], numbers: Range<u32>) -> usize {
    thread::scope(|scope| {
        let last = numbers.end - 1;
        scope.spawn(move || {
            for number in numbers {
                outgoing.send(&number.to_be_bytes()).unwrap();
                if number % 4 == 0 {
                    pause(Duration::from_millis(1));
                }
            }
        });
        let (mut came, mut before) = (0, None);
        let mut buffer = [0; 4];
        while before != Some(last) && receive(incoming, &mut buffer).is_ok() {
            let number = u32::from_be_bytes(buffer);
            assert!(before.is_none_or(|before| before < number), "{number} after {before:?}");
            (came, before) = (came + 1, Some(number));
        }
        came
    })
}

#[test]
fn between_four_shards_no_flow_is_reordered_wherever_the_peer_moves() {
    if skips(PROGRAMS) {
        return;
    }
    let (left_host, right_host) = (Host::new(), Host::new());
    let mut ends = joined(&left_host, &right_host);
    for end in &mut ends {
        let tasks = fs::read_dir(format!("/proc/{}/task", end.daemon().id())).unwrap();
        let names =
            tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
        assert_eq!(names.filter(|name| name.starts_with("shard")).count(), 4);
    }
    let (left, right) = ((&left_host, "10.10.0.1"), (&right_host, "10.10.0.2"));
    let both = [(left, right), (right, left)].into_iter();
    let flows: Vec<_> = both.flat_map(|(a, b)| (0..FLOWS).map(move |_| flow(a, b))).collect();
    for round in 0..4 {
        let numbers = round * 500..(round + 1) * 500;
        let work = flows.iter().map(|flow| {
            let numbers = numbers.clone();
            move || run_flow(flow, numbers)
        });
        let came = at_once(work.collect());
        // What queues are too short for is lost.
        assert!(came.iter().all(|&came| came > 100), "{came:?}");
        // To the right end its peer has moved, and may be another shard's from now on.
        let port = 40_000 + round;
        ends[0].set(&format!("listen-port {port}"));
        assert!(left_host.pings("10.10.0.2"));
        assert_eq!(ends[1].show("endpoints"), format!("192.168.7.1:{port}"));
    }
}

#[test]
fn streams_through_four_shards_arrive_to_the_last_byte() {
    if skips(PROGRAMS) {
        return;
    }
    let (left, right) = (Host::new(), Host::new());
    let _ends = joined(&left, &right);
    let (left, right) = (&left, &right);
    let stream = |number: u64| {
        move || {
            let bytes = STREAM_BYTES + number;
            let came = match number % 4 {
                0 => tcp(left, right, "10.10.0.2", bytes, || {}),
                1 => tcp(right, left, "10.10.0.1", bytes, || {}),
                2 => tcp(left, right, "fd10::2", bytes, || {}),
                _ => tcp(right, left, "fd10::1", bytes, || {}),
            };
            assert_eq!(came, bytes);
        }
    };
    at_once((0..12).map(stream).collect());
}

#[test]
fn another_daemon_gets_neither_the_interface_nor_the_port_of_four_shards() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new();
    let mut first = End::start(&host, Sharded);
    first.set("listen-port 40404");
    for arguments in ["--shards=1", "--shards=4"] {
        let binary = env!("CARGO_BIN_EXE_hybridwg");
        let output = host.try_sh(&format!("{binary} -f {arguments} {}", first.interface));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("in use by another process"), "{said}");
        let other = End::start_tuned(&host, &[arguments]);
        let refused = host.try_sh(&format!("wg set {} listen-port 40404", other.interface));
        assert!(!refused.status.success());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Address already in use"));
    }
    assert!(first.daemon().is_alive());
    assert_eq!(first.port(), 40_404);
}
