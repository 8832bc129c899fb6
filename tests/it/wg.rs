//! The `wg` of Debian as judge: its text is our text, and its requests are understood.
//!
//! A scripted UAPI server stands in for a device; the engine has tests of its own.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, id};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use hybridwg::control::command::{AllowedIpChange, DeviceSnapshot, PeerSnapshot, SetRequest};
use hybridwg::control::uapi::request::{Request, RequestReader};
use hybridwg::control::uapi::{Errno, Operation, get, reply, socket_path};
use hybridwg::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use hybridwg::sys::clock;
use hybridwg::time::Wall;

use crate::host;

/// Answers on the socket of an interface that does not exist, until it is dropped.
struct Device {
    interface: String,
    path: PathBuf,
    requests: Arc<Mutex<Vec<Request>>>,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    fn start(letter: char, state: &DeviceSnapshot, outcome: Result<(), Errno>) -> Self {
        let interface = format!("hw{letter}{}", id());
        let path = socket_path(&interface);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, state) = (Arc::clone(&requests), get::render(state).to_string());
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if !serve(stream.unwrap(), &state, outcome, &seen) {
                    return;
                }
            }
        });
        Self { interface, path, requests, thread: Some(thread) }
    }

    /// The change that arrived since the last call.
    fn change(&self) -> SetRequest {
        let requests = std::mem::take(&mut *self.requests.lock().unwrap());
        let mut changes = requests.into_iter().filter_map(|request| match request {
            Request::Set(change) => Some(change),
            Request::Get
            | Request::Status
            | Request::Kept
            | Request::Health(_)
            | Request::Connect(_) => None,
            Request::Refused(..) | Request::Unintelligible(_) => panic!("{request:?}"),
        });
        let change = changes.next().unwrap();
        assert!(changes.next().is_none(), "one change only");
        change
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // An operation that nobody knows ends the server.
        if let Ok(mut stream) = UnixStream::connect(&self.path) {
            let _ = stream.write_all(b"stop\n");
        }
        let _ = fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection to its end; false if it was the one that ends the server.
fn serve(
    mut stream: UnixStream,
    state: &str,
    outcome: Result<(), Errno>,
    seen: &Mutex<Vec<Request>>,
) -> bool {
    let mut reader = RequestReader::new();
    let mut buffer = [0; 4096];
    loop {
        let Ok(count @ 1..) = stream.read(&mut buffer) else { return true };
        let mut goes_on = true;
        let mut answers = String::new();
        reader.feed(&buffer[..count], |request| {
            match &request {
                Request::Get => answers += state,
                Request::Set(_) => answers += &reply(Operation::Set, outcome),
                // It stands for another implementation, too.
                Request::Status | Request::Kept | Request::Health(_) | Request::Connect(_) => {
                    answers += &reply(Operation::Get, Err(Errno::INVALID));
                }
                Request::Refused(operation, fault) => {
                    answers += &reply(*operation, Err(fault.errno));
                }
                Request::Unintelligible(_) => {
                    goes_on = false;
                    return;
                }
            }
            seen.lock().unwrap().push(request);
        });
        if !goes_on {
            return false;
        }
        if stream.write_all(answers.as_bytes()).is_err() {
            return true;
        }
    }
}

fn peer(byte: u8) -> PeerSnapshot {
    PeerSnapshot::new(PublicKey::from_bytes([byte; 32]))
}

fn state() -> DeviceSnapshot {
    let now = clock::now().wall.secs;
    let ago = |seconds| Some(Wall { secs: now - seconds, nanos: 7 });
    DeviceSnapshot {
        private_key: Some(PrivateKey::from_bytes([0x18; 32])),
        listen_port: 51820,
        fwmark: 0xca6c,
        peers: vec![
            peer(1),
            PeerSnapshot {
                preshared_key: PresharedKey::from_bytes([9; 32]),
                endpoint: Some("[fe80::1%1]:5".parse().unwrap()),
                last_handshake: ago(3_665),
                rx_bytes: 1_023,
                tx_bytes: 123_456_789,
                persistent_keepalive: 90,
                allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/64".parse().unwrap()],
                ..peer(2)
            },
            PeerSnapshot {
                endpoint: Some("192.0.2.1:51820".parse().unwrap()),
                last_handshake: ago(86_400 * 400 + 7_200),
                rx_bytes: 12_345_678_901_234,
                persistent_keepalive: 1,
                allowed_ips: vec!["0.0.0.0/0".parse().unwrap()],
                ..peer(3)
            },
            PeerSnapshot { last_handshake: Some(Wall { secs: now + 9_999, nanos: 0 }), ..peer(4) },
        ],
    }
}

fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("WG_COLOR_MODE").env_remove("WG_HIDE_KEYS");
    command.envs(environment.iter().copied()).output().unwrap()
}

/// Both programs say the same on standard output. Between two seconds the time since a handshake
/// differs, so that they are asked again.
#[track_caller]
fn assert_same_text(arguments: &[&str], environment: &[(&str, &str)]) {
    let texts = || {
        ["wg", env!("CARGO_BIN_EXE_hybridwg")].map(|program| {
            let output = run(program, arguments, environment);
            assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        })
    };
    let last = (0..5).map(|_| texts()).find(|[theirs, ours]| theirs == ours);
    let [theirs, ours] = last.unwrap_or_else(texts);
    assert!(!theirs.is_empty(), "{arguments:?}");
    assert_eq!(ours, theirs, "{arguments:?} {environment:?}");
}

#[test]
fn wg_03_wg_04_show_has_the_very_text_of_wg() {
    if host::skips(&["wg"]) {
        return;
    }
    let device = Device::start('s', &state(), Ok(()));
    let show = ["show", &device.interface];
    assert_same_text(&show, &[]);
    assert_same_text(&show, &[("WG_COLOR_MODE", "always")]);
    assert_same_text(&show, &[("WG_COLOR_MODE", "never"), ("WG_HIDE_KEYS", "never")]);
    let bare = DeviceSnapshot { peers: vec![peer(1), peer(2)], ..DeviceSnapshot::default() };
    let bare = Device::start('b', &bare, Ok(()));
    assert_same_text(&["show", &bare.interface], &[("WG_COLOR_MODE", "always")]);
}

#[test]
fn wg_05_wg_06_every_parameter_of_show_has_the_very_text_of_wg() {
    if host::skips(&["wg"]) {
        return;
    }
    let full = Device::start('p', &state(), Ok(()));
    let bare = DeviceSnapshot { peers: vec![peer(1), peer(2)], ..DeviceSnapshot::default() };
    let bare = Device::start('q', &bare, Ok(()));
    for parameter in [
        "public-key",
        "private-key",
        "listen-port",
        "fwmark",
        "peers",
        "preshared-keys",
        "endpoints",
        "allowed-ips",
        "latest-handshakes",
        "transfer",
        "persistent-keepalive",
        "dump",
    ] {
        assert_same_text(&["show", &full.interface, parameter], &[]);
        assert_same_text(&["show", &bare.interface, parameter], &[]);
    }
}

#[test]
fn wg_07_an_interface_that_cannot_be_read_is_exit_status_1() {
    if host::skips(&["wg"]) {
        return;
    }
    let name = format!("hwx{}", id());
    for program in ["wg", env!("CARGO_BIN_EXE_hybridwg")] {
        let output = run(program, &["show", &name], &[]);
        assert_eq!(output.status.code(), Some(1), "{program}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with("Unable to access interface"), "{program}: {told}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn wg_07_an_interface_of_another_user_is_named_and_exit_status_1() {
    if host::skips(&["wg", "setpriv"]) {
        return;
    }
    let device = Device::start('y', &state(), Ok(()));
    // Where another user can reach it.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("hybridwg");
    host::copy_binary(&copy);
    // `wg` leaves out the name of an interface that was named.
    let named = format!("Unable to access interface {}: Permission denied", device.interface);
    let unnamed = "Unable to access interface: Permission denied";
    for program in ["wg", copy.to_str().unwrap()] {
        for target in [&device.interface, "all"] {
            let denied = if program == "wg" && target != "all" { unnamed } else { &named };
            let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
            let output = run("setpriv", &[&nobody[..], &[program, "show", target]].concat(), &[]);
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(told.lines().any(|line| line == denied), "{program} {target}: {told}");
            assert_eq!(output.status.code(), Some(1), "{program} {target}");
        }
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let output = run("setpriv", &[&nobody[..], &[program, "show", "interfaces"]].concat(), &[]);
        let names = String::from_utf8(output.stdout).unwrap();
        assert!(names.split_whitespace().any(|name| name == device.interface), "{program}");
    }
}

/// WG-12.
#[test]
fn ua_06_ua_07_what_wg_set_asks_for_is_understood() {
    if host::skips(&["wg"]) {
        return;
    }
    let device = Device::start('t', &state(), Ok(()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let key = PresharedKey::from_bytes([5; 32]);
    fs::write(&file, key.to_base64()).unwrap();
    let file = file.to_str().unwrap();
    let peers = [2, 3].map(|byte| PublicKey::from_bytes([byte; 32]));
    let [first, second] = peers.map(PublicKey::to_base64);
    let arguments = [
        "set",
        &device.interface,
        "listen-port",
        "7",
        "fwmark",
        "0x10",
        "private-key",
        file,
        "peer",
        &first,
        "preshared-key",
        file,
        "endpoint",
        "[fe80::1%lo]:9",
        "persistent-keepalive",
        "25",
        "allowed-ips",
        "10.0.0.0/8,::/0",
        "peer",
        &second,
        "remove",
    ];
    let output = run("wg", &arguments, &[]);
    assert!(output.status.success(), "{output:?}");
    let change = device.change();
    assert!(change.private_key == Some(Some(PrivateKey::from_bytes([5; 32]))));
    assert_eq!((change.listen_port, change.fwmark), (Some(7), Some(16)));
    assert!(!change.replace_peers);
    let [added, removed] = &change.peers[..] else { panic!("{change:?}") };
    assert_eq!([added.public_key, removed.public_key], peers);
    assert!(added.preshared_key == Some(key) && added.replace_allowed_ips);
    assert_eq!(added.endpoint, "[fe80::1%1]:9".parse().ok());
    assert_eq!(added.persistent_keepalive, Some(25));
    let networks = ["10.0.0.0/8", "::/0"];
    assert_eq!(
        added.allowed_ips,
        networks.map(|network| AllowedIpChange::Add(network.parse().unwrap()))
    );
    assert!(removed.remove && !added.remove);
}

#[test]
fn ua_06_what_wg_setconf_asks_for_is_understood() {
    if host::skips(&["wg"]) {
        return;
    }
    let device = Device::start('c', &state(), Ok(()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wg.conf");
    fs::write(&file, "[Interface]\n").unwrap();
    let output = run("wg", &["setconf", &device.interface, file.to_str().unwrap()], &[]);
    assert!(output.status.success(), "{output:?}");
    let expected = SetRequest {
        private_key: Some(None),
        listen_port: Some(0),
        fwmark: Some(0),
        replace_peers: true,
        ..SetRequest::default()
    };
    assert_eq!(device.change(), expected);
}

#[test]
fn ua_10_wg_names_the_error_that_a_device_gives() {
    if host::skips(&["wg"]) {
        return;
    }
    let device = Device::start('e', &state(), Err(Errno::ADDRESS_IN_USE));
    let output = run("wg", &["set", &device.interface, "listen-port", "7"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("Address already in use"), "{told}");
}
