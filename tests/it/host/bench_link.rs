//! `hybridwg bench link`, over tunnels between two hosts.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use hybridwg::bench::path::{Emulator, Fragments, Profile};
use hybridwg::sys::tun::{Tun, TunOffloads};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::net::{Host, Process, eventually};
use super::skips;
use super::tunnel::{End, Program, join};

const INSIDE: &str = "10.10.0.2";

/// Runs `hybridwg bench link` on the host of an end.
fn link(end: &End<'_>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybridwg"));
    command.args(["bench", "link", &end.interface]).args(arguments);
    end.host.output(command)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// As [`link`], and what `--json` wrote.
fn measured(end: &End<'_>, arguments: &[&str]) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("link.json");
    let output = link(end, &[arguments, &["--json", path.to_str().unwrap()]].concat());
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    let json = std::fs::read_to_string(path).unwrap();
    (serde_json::from_str(&json).unwrap(), told)
}

/// Lays an emulated path between two hosts, which carries packets until it is dropped.
fn lay(profile: &Profile, [left, right]: [&Host; 2]) -> Emulator {
    let end = |host: &Host, address: &str| {
        let tun = host.run(|| Tun::create("path", TunOffloads::NONE)).unwrap();
        host.sh(&format!("ip address add {address}/24 dev path"));
        host.sh(&format!("ip link set path mtu {} up", profile.mtu));
        Arc::new(tun)
    };
    let ends = [end(left, "192.168.7.1"), end(right, "192.168.7.2")];
    Emulator::start(profile, &ends).unwrap()
}

/// Nothing of ours is at the other end: delay and loss are those of the path, and what is longest is
/// what it takes without cutting datagrams.
#[test]
fn delay_loss_and_the_longest_packet_are_found_with_wireguard_go_at_the_other_end() {
    if skips(&["ip", "ping", "wg", "wireguard-go"]) {
        return;
    }
    let (left_host, right_host) = (Host::new(), Host::new());
    let profile = Profile {
        delay_ms: 10.0,
        loss_percent: 5.0,
        mtu: 1280,
        fragments: Fragments::Drop,
        ..Profile::default()
    };
    let _path = lay(&profile, [&left_host, &right_host]);
    let left = End::start(&left_host, Program::Hybridwg);
    let right = End::start(&right_host, Program::WireguardGo);
    join(&left, &right, "192.168.7.2", "");
    eventually("a first answer", Duration::from_secs(10), || left_host.pings(INSIDE));

    let (found, told) = measured(&left, &["--seconds", "3", "--interval", "10"]);
    let idle = &found["idle"];
    assert_eq!(idle["sent"], 300, "{told}");
    // Of what goes there and back, 9.75 % are lost.
    let lost = idle["lost"].as_u64().unwrap();
    assert!((9..60).contains(&lost), "{told}");
    let shortest = idle["times"][0][0].as_u64().unwrap();
    assert!((20_000_000..60_000_000).contains(&shortest), "{shortest} ns: {told}");
    // 1216 bytes, 32 of WireGuard and 28 of UDP and IP make 1276; the next length is 16 longer.
    assert_eq!(found["longest_packet"]["bytes"], 1216, "{told}");
    assert!(told.contains("`MTU = 1216`"), "{told}");
    assert_eq!(found["peer"], right.keys.public);
}

/// Runs `--serve` on the host of an end.
fn serve(end: &End<'_>, rate: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybridwg"));
    command.args(["bench", "link", &end.interface, "--serve", "--rate", rate]);
    let server = end.host.spawn(command);
    let listens = || end.host.try_sh("ss -Hltn sport = :5202").stdout.len() > 10;
    eventually("it listens", Duration::from_secs(10), listens);
    server
}

/// As Ctrl-C does, until it has ended.
fn interrupt(server: &mut Process) {
    kill_process(Pid::from_raw(server.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    eventually("it ends", Duration::from_secs(5), || !server.is_alive());
}

#[test]
fn throughput_is_measured_with_one_of_ours_at_the_other_end_and_stays_within_its_bound() {
    if skips(&["ip", "ping", "ss", "wg"]) {
        return;
    }
    let (left_host, right_host) = (Host::new(), Host::new());
    let (wire, _) = left_host.wire("192.168.7.1/24", &right_host, "192.168.7.2/24");
    let left = End::start(&left_host, Program::Hybridwg);
    let right = End::start(&right_host, Program::Hybridwg);
    join(&left, &right, "192.168.7.2", "");
    eventually("a first answer", Duration::from_secs(10), || left_host.pings(INSIDE));

    let short = ["--seconds", "1", "--throughput", "--stream-seconds", "1"];
    let refused = link(&left, &[&[INSIDE], &short[..]].concat());
    assert_eq!(refused.status.code(), Some(1), "nobody serves: {}", text(&refused));
    assert!(text(&refused).contains("--serve"), "{}", text(&refused));

    let mut server = serve(&right, "20");
    let (found, told) = measured(&left, &[&[INSIDE], &short[..], &["--rate", "10"]].concat());
    for way in ["there", "back"] {
        let mbit = found[way]["bits_per_second"].as_f64().unwrap() / 1e6;
        // A machine that is busy with other things may not reach it.
        assert!((1.0..11.0).contains(&mbit), "{way}: {told}");
        assert_eq!(found[way]["is_bounded"], mbit >= 9.5, "{told}");
        assert!(found[way]["round_trips"]["sent"].as_u64().unwrap() >= 20, "{told}");
    }
    assert_eq!(found["longest_packet"]["bytes"], 1360, "the whole MTU: {told}");
    let refused = link(&left, &[&[INSIDE], &short[..], &["--rate", "full"]].concat());
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("20 Mbit/s at most"), "{}", text(&refused));
    interrupt(&mut server);
    let mut server = serve(&right, "full");
    let (full, told) = measured(&left, &[&["fd10::2"], &short[..], &["--rate", "full"]].concat());
    assert!(full["there"]["bits_per_second"].as_f64().unwrap() > 11e6, "over IPv6: {told}");

    // Not by the tunnel, though to its address: nobody is there.
    let reaches = || {
        let to = SocketAddr::new(INSIDE.parse().unwrap(), 5202);
        left_host.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok())
    };
    assert!(reaches());
    left_host.sh(&format!("ip route add {INSIDE}/32 via 192.168.7.2 dev {wire}"));
    assert!(!reaches(), "the server can be reached beside the tunnel");

    interrupt(&mut server);
    let log = server.log();
    assert!(log.contains("serving the peers of") && log.contains("sent by him"), "{log}");
}

#[test]
fn whoever_does_not_answer_and_whoever_is_not_there_is_told() {
    if skips(&["ip", "ping", "wg", "iptables"]) {
        return;
    }
    let (left_host, right_host) = (Host::new(), Host::new());
    left_host.wire("192.168.7.1/24", &right_host, "192.168.7.2/24");
    let left = End::start(&left_host, Program::Hybridwg);
    let right = End::start(&right_host, Program::Hybridwg);
    join(&left, &right, "192.168.7.2", "");
    eventually("a first answer", Duration::from_secs(10), || left_host.pings(INSIDE));
    right_host.set("net/ipv4/icmp_echo_ignore_all", "1");
    let key = &right.keys.public[..10];
    let json = Path::new("none/link.json").to_str().unwrap();
    for (arguments, status, words) in [
        (&[key, "--seconds", "1"][..], 1, "the tunnel itself works"),
        (&["10.99.0.1"], 2, "no peer of the interface has 10.99.0.1"),
        (&["--json", json], 2, "cannot write"),
        (&["--streams", "2"], 2, "--throughput"),
        (&["--serve", "--throughput"], 2, "cannot be used with"),
    ] {
        let output = link(&left, arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(words), "{arguments:?}: {}", text(&output));
    }
    // A firewall that says so is no more than a host that says nothing.
    right_host.sh("iptables -A INPUT -p icmp -j REJECT");
    let output = link(&left, &[key, "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("the tunnel itself works"), "{}", text(&output));
}
