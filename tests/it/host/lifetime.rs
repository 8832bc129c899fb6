//! From up to down: how a daemon comes, how it goes, and what it leaves behind: nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::net::{Host, eventually, unique};
use super::traffic::tcp;
use super::tunnel::Program::Hybridwg;
use super::tunnel::{End, Keys};
use super::{skip, skips};

/// Bytes of a TCP transfer: many windows, and no multiple of anything.
const STREAM_BYTES: u64 = 5_000_011;

const BINARY: &str = env!("CARGO_BIN_EXE_hybridwg");

fn socket_of(interface: &str) -> PathBuf {
    Path::new("/var/run/wireguard").join(format!("{interface}.sock"))
}

/// Whether this very binary serves the interface: a TUN and a socket, with the process behind both.
/// The kernel's own WireGuard would have neither.
#[track_caller]
pub fn assert_served_by_us(host: &Host, interface: &str) {
    let link = host.sh(&format!("ip -d -o link show {interface}"));
    assert!(link.contains(" tun type tun "), "no TUN: {link}");
    assert!(socket_of(interface).exists(), "{interface} has no socket");
    let [process] = &processes_with(interface)[..] else {
        panic!("not one process: {:?}", processes_with(interface))
    };
    assert!(process.starts_with(BINARY), "{process}");
}

fn has_link(host: &Host, interface: &str) -> bool {
    host.try_sh(&format!("ip link show {interface}")).status.success()
}

/// Processes with `word` among their arguments.
fn processes_with(word: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(word)).collect()
}

pub fn assert_gone(host: &Host, interface: &str) {
    eventually("interface, socket and process are gone", Duration::from_secs(10), || {
        !has_link(host, interface)
            && !socket_of(interface).exists()
            && processes_with(interface).is_empty()
    });
}

/// Trap 22. [UA-02]
#[test]
fn a_daemon_ends_when_its_interface_is_deleted() {
    if skips(&["ip", "wg"]) {
        return;
    }
    let host = Host::new();
    let mut end = End::start(&host, Hybridwg);
    host.sh(&format!("ip link delete {}", end.interface));
    eventually("the daemon ended", Duration::from_secs(5), || !end.daemon().is_alive());
    assert_gone(&host, &end.interface);
}

#[test]
fn a_daemon_ends_when_its_socket_is_deleted() {
    if skips(&["ip", "wg"]) {
        return;
    }
    let host = Host::new();
    let mut end = End::start(&host, Hybridwg);
    let mode = fs::metadata(socket_of(&end.interface)).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "for its owner alone");
    fs::remove_file(socket_of(&end.interface)).unwrap();
    eventually("the daemon ended", Duration::from_secs(5), || !end.daemon().is_alive());
    assert_gone(&host, &end.interface);
}

#[test]
fn a_daemon_ends_when_it_is_asked_to() {
    if skips(&["ip", "wg"]) {
        return;
    }
    let host = Host::new();
    let mut end = End::start(&host, Hybridwg);
    end.daemon().terminate();
    eventually("the daemon ended", Duration::from_secs(5), || !end.daemon().is_alive());
    assert_gone(&host, &end.interface);
}

#[test]
fn a_second_daemon_of_the_same_name_is_refused_and_the_first_goes_on() {
    if skips(&["ip", "wg"]) {
        return;
    }
    let host = Host::new();
    let mut end = End::start(&host, Hybridwg);
    let output = host.try_sh(&format!("{BINARY} -f {}", end.interface));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&end.interface), "{output:?}");
    assert!(end.daemon().is_alive());
    host.sh(&format!("wg show {}", end.interface));
}

#[test]
fn without_f_it_goes_to_the_background_once_its_socket_answers() {
    if skips(&["ip", "wg"]) {
        return;
    }
    let (host, interface) = (Host::new(), unique("h"));
    host.sh(&format!("{BINARY} {interface}"));
    host.sh(&format!("wg show {interface}"));
    assert_eq!(processes_with(&interface).len(), 1);
    host.sh(&format!("ip link delete {interface}"));
    assert_gone(&host, &interface);
}

/// The harness itself: what a failing test has started ends with it.
#[test]
fn a_test_that_panics_leaves_no_daemon_behind() {
    if skips(&["ip", "wg"]) {
        return;
    }
    let (background, front) = (unique("h"), unique("h"));
    let outcome = panic::catch_unwind(|| {
        let host = Host::new();
        host.sh(&format!("{BINARY} {background}"));
        let mut command = Command::new(BINARY);
        command.args(["-f", &front]);
        let _front = host.spawn(command);
        eventually("both answer", Duration::from_secs(10), || socket_of(&front).exists());
        assert!(socket_of(&background).exists());
        // As a panic, without its words in the log of a test that passes.
        panic::resume_unwind(Box::new("failed"));
    });
    let failure = outcome.expect_err("it did fail");
    assert_eq!(failure.downcast_ref(), Some(&"failed"), "in the way it was to fail");
    for interface in [&background, &front] {
        assert_gone(&Host::new(), interface);
    }
}

/// The hub and the client of `configs/`, with keys and the hub's address put in.
struct Deployment {
    _folder: tempfile::TempDir,
    hub: PathBuf,
    client: PathBuf,
}

fn deployment(host: &Host) -> Deployment {
    let folder = tempfile::tempdir().unwrap();
    let (hub_keys, client_keys) = (Keys::generate(host), Keys::generate(host));
    let place = |template: &str, private: &Keys, remote: (&str, &Keys)| {
        let text =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(template)).unwrap();
        let text = text
            .replace("HUB_PRIVATE_KEY", &private.private)
            .replace("CLIENT_PRIVATE_KEY", &private.private)
            .replace(remote.0, &remote.1.public)
            .replace("hub.example.com", "192.168.7.2");
        let path = folder.path().join(format!("{}.conf", unique("h")));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let hub = place("configs/hub.conf", &hub_keys, ("CLIENT_PUBLIC_KEY", &client_keys));
    let client = place("configs/client.conf", &client_keys, ("HUB_PUBLIC_KEY", &hub_keys));
    Deployment { _folder: folder, hub, client }
}

pub fn interface_of(config: &Path) -> String {
    config.file_stem().unwrap().to_string_lossy().into_owned()
}

/// Everything of the host that `up` may touch, as text.
pub fn state(host: &Host) -> String {
    let commands = [
        "ip -o link",
        "ip -o address",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip -4 rule",
        "ip -6 rule",
        "iptables -S",
        "iptables -t nat -S",
    ];
    commands.map(|command| format!("{command}:\n{}", host.sh(command))).concat()
}

/// Up by `up`, pings and streams both ways between client and hub, down by `down`, and nothing left of it.
fn up_and_down(up: impl Fn(&Host, &Path), down: impl Fn(&Host, &Path)) {
    let (client, hub) = (Host::new(), Host::new());
    client.wire("192.168.7.1/24", &hub, "192.168.7.2/24");
    let deployment = deployment(&hub);
    // A first listing makes the tables of iptables, which then stay.
    let _ = (state(&client), state(&hub));
    let before = (state(&client), state(&hub));
    up(&hub, &deployment.hub);
    up(&client, &deployment.client);
    eventually("the hub answers", Duration::from_secs(10), || client.pings("10.10.0.1"));
    assert!(hub.pings("10.10.0.2"));
    assert_served_by_us(&client, &interface_of(&deployment.client));
    assert_served_by_us(&hub, &interface_of(&deployment.hub));
    for (from, to, address) in [(&client, &hub, "10.10.0.1"), (&hub, &client, "10.10.0.2")] {
        assert_eq!(tcp(from, to, address, STREAM_BYTES, || ()), STREAM_BYTES, "to {address}");
    }
    let mtu = client.sh(&format!("ip link show {}", interface_of(&deployment.client)));
    assert!(mtu.contains("mtu 1360"), "{mtu}");
    down(&client, &deployment.client);
    down(&hub, &deployment.hub);
    for (host, config, before) in
        [(&client, &deployment.client, before.0), (&hub, &deployment.hub, before.1)]
    {
        assert_gone(host, &interface_of(config));
        assert_eq!(state(host), before);
    }
}

fn ours(verb: &str) -> impl Fn(&Host, &Path) {
    move |host, config| {
        host.sh(&format!("{BINARY} {verb} {}", config.display()));
    }
}

/// wg-quick with our binary as its userspace implementation.
pub fn quick(verb: &'static str) -> impl Fn(&Host, &Path) {
    move |host, config| {
        let mut command = Command::new("wg-quick");
        command.arg(verb).arg(config).env("WG_QUICK_USERSPACE_IMPLEMENTATION", BINARY);
        let output = host.output(command);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "wg-quick {verb}:\n{complaint}");
    }
}

#[test]
fn the_reference_deployment_comes_up_carries_streams_both_ways_and_goes_without_a_trace() {
    if !skips(&["ip", "ping", "wg", "iptables"]) {
        up_and_down(ours("up"), ours("down"));
    }
}

/// Where the kernel has WireGuard, wg-quick takes that and never asks for a program.
pub fn kernel_has_wireguard() -> bool {
    let host = Host::new();
    let has_it = host.try_sh("ip link add probe type wireguard").status.success();
    if has_it {
        skip("the kernel has WireGuard of its own, which wg-quick prefers");
    }
    has_it
}

#[test]
fn wg_quick_drives_the_daemon_up_and_down() {
    if !skips(&["ip", "ping", "wg", "wg-quick", "iptables"]) && !kernel_has_wireguard() {
        up_and_down(quick("up"), quick("down"));
    }
}

#[test]
fn what_up_made_wg_quick_takes_down() {
    if !skips(&["ip", "ping", "wg", "wg-quick", "iptables"]) {
        up_and_down(ours("up"), |host, config| {
            quick("down")(host, config);
            // What wg-quick knows nothing of, on the hub: that the host forwards.
            drop(host.try_sh(&format!("{BINARY} down {}", config.display())));
        });
    }
}

#[test]
fn an_up_that_fails_leaves_nothing() {
    if skips(&["ip", "wg", "iptables"]) {
        return;
    }
    let host = Host::new();
    let deployment = deployment(&host);
    let text = fs::read_to_string(&deployment.hub).unwrap();
    fs::write(&deployment.hub, text.replacen("[Interface]", "[Interface]\nPostUp = false", 1))
        .unwrap();
    let before = (state(&host), state(&host)).1;
    let output = host.try_sh(&format!("{BINARY} up {}", deployment.hub.display()));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_gone(&host, &interface_of(&deployment.hub));
    assert_eq!(state(&host), before);
}
