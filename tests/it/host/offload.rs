//! Whatever a kernel or an operator takes away, streams arrive whole.

use std::time::Duration;

use super::net::{Host, eventually};
use super::skips;
use super::traffic::{tcp, udp};
use super::tunnel::{End, join};

const PROGRAMS: &[&str] = &["ip", "ping", "wg"];

const STREAM_BYTES: u64 = 20_000_003;

/// What `show --json` says about the offloads of that end; that of the processor is another matter.
fn offloads(end: &End<'_>) -> String {
    let program = env!("CARGO_BIN_EXE_hybridwg");
    let text = end.host.sh(&format!("{program} show {} --json", end.interface));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut offloads = json["interfaces"][0]["offloads"].clone();
    offloads.as_array_mut().unwrap().retain(|name| name != "aead-batch");
    offloads.to_string()
}

/// Streams both ways, and datagrams longer than the tunnel's MTU.
fn carries_everything(left: &End<'_>, right: &End<'_>) {
    eventually("an answer", Duration::from_secs(10), || left.host.pings("10.10.0.2"));
    assert_eq!(tcp(left.host, right.host, "10.10.0.2", STREAM_BYTES, || {}), STREAM_BYTES);
    assert_eq!(tcp(right.host, left.host, "10.10.0.1", STREAM_BYTES, || {}), STREAM_BYTES);
    let sizes = [1, 1332, 1333, 9000, 60_000];
    assert_eq!(udp(left.host, right.host, "10.10.0.2", &sizes), sizes);
}

#[test]
fn streams_arrive_whole_with_any_offload_disabled_at_either_end() {
    if skips(PROGRAMS) {
        return;
    }
    for (at_left, at_right, left_over) in [
        ("", "", r#"["tso","uso","gso","gro","moderation"]"#),
        ("--disable=tso,uso,gso,gro,moderation", "--disable=tso,uso,gso,gro,aead-batch", "[]"),
        ("--disable=tso,uso", "--disable=gso", r#"["gso","gro","moderation"]"#),
        ("--disable=uso", "--disable=gro", r#"["tso","gso","gro","moderation"]"#),
    ] {
        let (here, there) = (Host::new(), Host::new());
        here.wire("192.168.7.1/24", &there, "192.168.7.2/24");
        let arguments = |words: &'static str| words.split_whitespace().collect::<Vec<_>>();
        let left = End::start_tuned(&here, &arguments(at_left));
        let right = End::start_tuned(&there, &arguments(at_right));
        join(&left, &right, "192.168.7.2", "");
        carries_everything(&left, &right);
        assert_eq!(offloads(&left), left_over);
    }
}

#[test]
fn streams_arrive_whole_over_a_wire_too_narrow_to_cut_for() {
    if skips(PROGRAMS) {
        return;
    }
    let (here, there) = (Host::new(), Host::new());
    let (port, other) = here.wire("192.168.7.1/24", &there, "192.168.7.2/24");
    here.sh(&format!("ip link set {port} mtu 1300"));
    there.sh(&format!("ip link set {other} mtu 1300"));
    let (left, right) = (End::start_tuned(&here, &[]), End::start_tuned(&there, &[]));
    join(&left, &right, "192.168.7.2", "");
    carries_everything(&left, &right);
}
