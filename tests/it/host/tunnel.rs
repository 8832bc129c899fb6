//! One end of a tunnel: a daemon on a host, driven through its UAPI by Debian's `wg`.

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use super::net::{Host, Process, eventually, unique};

/// Who terminates a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Hybridwg,
    /// Ours, with four threads for packets.
    Sharded,
    WireguardGo,
}

impl Program {
    /// The command that serves `interface` in the foreground.
    fn command(self, arguments: &[&str], interface: &str) -> Command {
        let path = match self {
            Self::Hybridwg | Self::Sharded => env!("CARGO_BIN_EXE_hybridwg"),
            Self::WireguardGo => "wireguard-go",
        };
        let mut command = Command::new(path);
        command.arg("-f").args(arguments).arg(interface);
        if self == Self::Sharded {
            command.arg("--shards=4");
        }
        // wireguard-go asks for this, or it advises to use the kernel's module.
        command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1").env("LOG_LEVEL", "error");
        command
    }
}

/// A key pair in base64, from Debian's `wg`.
#[derive(Clone, Debug)]
pub struct Keys {
    pub private: String,
    pub public: String,
}

impl Keys {
    pub fn generate(host: &Host) -> Self {
        let private = host.sh("wg genkey").trim().to_owned();
        let mut pubkey = Command::new("wg");
        pubkey.arg("pubkey");
        let public = host.feed(pubkey, &private).trim().to_owned();
        Self { private, public }
    }
}

/// A daemon with its interface.
#[derive(Debug)]
pub struct End<'h> {
    pub host: &'h Host,
    pub interface: String,
    pub keys: Keys,
    program: Program,
    daemon: Process,
}

impl<'h> End<'h> {
    /// Starts the daemon and waits until its UAPI answers.
    pub fn start(host: &'h Host, program: Program) -> Self {
        Self::start_with(host, program, &[], &unique("h"), Keys::generate(host))
    }

    /// As [`Self::start`], of our own program with arguments.
    pub fn start_tuned(host: &'h Host, arguments: &[&str]) -> Self {
        let program = Program::Hybridwg;
        Self::start_with(host, program, arguments, &unique("h"), Keys::generate(host))
    }

    /// Starts `program` with these keys, which are not set yet.
    pub fn start_with(
        host: &'h Host,
        program: Program,
        arguments: &[&str],
        interface: &str,
        keys: Keys,
    ) -> Self {
        let daemon = host.spawn(program.command(arguments, interface));
        let mut end = Self { host, interface: interface.to_owned(), keys, program, daemon };
        end.wait_until_it_answers();
        end
    }

    fn wait_until_it_answers(&mut self) {
        // Not by `wg`: it deletes a socket that refuses it, as one does between bind and listen.
        let socket = format!("/var/run/wireguard/{}.sock", self.interface);
        eventually("the UAPI answers", Duration::from_secs(10), || {
            assert!(self.daemon.is_alive(), "the daemon ended:\n{}", self.daemon.log());
            UnixStream::connect(&socket).is_ok()
        });
    }

    /// Gives the interface its addresses and MTU and brings it up.
    pub fn up(&self, addresses: &str) {
        let interface = &self.interface;
        for address in addresses.split_whitespace() {
            self.host.sh(&format!("ip address add {address} dev {interface}"));
        }
        self.host.sh(&format!("ip link set {interface} mtu 1360 up"));
        // The kernel makes an IPv6 address usable some time after the interface is up.
        for address in addresses.split_whitespace().filter_map(|text| text.split('/').next()) {
            eventually("the address is ours", Duration::from_secs(5), || self.host.pings(address));
        }
    }

    /// `wg set` with the words that follow the interface.
    pub fn set(&self, words: &str) {
        self.host.sh(&format!("wg set {} {words}", self.interface));
    }

    /// `wg setconf`: private key, then the lines given.
    pub fn setconf(&self, lines: &str) {
        self.apply("setconf", lines);
    }

    pub fn apply(&self, verb: &str, lines: &str) {
        let text = format!("[Interface]\nPrivateKey = {}\n{lines}\n", self.keys.private);
        let mut command = Command::new("wg");
        command.args([verb, &self.interface, "/dev/stdin"]);
        self.host.feed(command, &text);
    }

    /// A column of `wg show` for the only peer, without its key.
    pub fn show(&self, parameter: &str) -> String {
        let text = self.host.sh(&format!("wg show {} {parameter}", self.interface));
        text.split_once('\t').map_or(text.as_str(), |(_, value)| value).trim().to_owned()
    }

    /// The port the daemon listens on.
    pub fn port(&self) -> u16 {
        self.show("listen-port").parse().expect("a port")
    }

    /// Unix time of the only peer's latest handshake, 0 if there was none.
    pub fn latest_handshake(&self) -> u64 {
        self.show("latest-handshakes").parse().expect("a number")
    }

    pub fn daemon(&mut self) -> &mut Process {
        &mut self.daemon
    }

    /// Ends the daemon without a goodbye, and starts another in its place, unconfigured.
    pub fn restart(self) -> Self {
        let Self { host, interface, keys, program, mut daemon } = self;
        daemon.kill();
        drop(daemon);
        Self::start_with(host, program, &[], &interface, keys)
    }
}

/// The `[Peer]` section of the end with these keys and the addresses inside that end in `number`.
pub fn peer(keys: &Keys, number: u8, more: &str) -> String {
    let public = &keys.public;
    format!(
        "[Peer]\nPublicKey = {public}\nAllowedIPs = 10.10.0.{number}/32, fd10::{number}/128\n{more}\n"
    )
}

/// Both ends know each other; `endpoint` is where the right end is reached (without its port), and
/// `more` stands in both peer sections. Addresses inside are 10.10.0.1 and fd10::1 (left),
/// 10.10.0.2 and fd10::2 (right).
pub fn join(left: &End<'_>, right: &End<'_>, endpoint: &str, more: &str) {
    right.setconf(&peer(&left.keys, 1, more));
    let port = right.port();
    left.setconf(&peer(&right.keys, 2, &format!("Endpoint = {endpoint}:{port}\n{more}")));
    left.up(LEFT);
    right.up(RIGHT);
}

/// The left end's addresses inside.
pub const LEFT: &str = "10.10.0.1/24 fd10::1/64";

/// The right end's addresses inside.
pub const RIGHT: &str = "10.10.0.2/24 fd10::2/64";
