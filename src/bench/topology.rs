//! Two namespaces, a wire between them, and a tunnel over it.
//!
//! ```text
//!   side 0                                    side 1
//!   198.18.1.1/30 ═════════ tunnel ═════════ 198.18.1.2/30
//!   198.18.0.1/30 ───────── wire ─────────── 198.18.0.2/30
//! ```
//!
//! Without a tunnel the load takes the wire itself. In each namespace stands a load generator, but
//! where side 1 is a hub: then it stands at the server [behind it](super::gateway).
//! Whatever a [`Tunnel`] started ends when it is dropped, and interfaces go with their namespaces.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use zeroize::Zeroizing;

use super::error::BenchError;
use super::gateway::{self, Forwarding};
use super::implementation::{Implementation, Kind, without_folders};
use super::path::{Emulator, Profile};
use super::worker::Worker;
use crate::control::command::{AllowedIpChange, PeerUpdate, SetRequest};
use crate::control::interrupt::Interrupt;
use crate::control::netlink::{MAIN_TABLE, Netlink, NetlinkError};
use crate::control::uapi::client::UapiClient;
use crate::crypto::dh;
use crate::crypto::entropy::Entropy;
use crate::crypto::key::{PrivateKey, PublicKey};
use crate::sys::clock;
use crate::sys::echo::EchoSocket;
use crate::sys::entropy::OsEntropy;
use crate::sys::netns::NetNamespace;
use crate::sys::process;
use crate::sys::tun::{Tun, TunOffloads};

/// What a wire does with what is sent as one and is to become several datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wire {
    /// A veth pair as it is: it crosses whole, cheaper than on any network.
    Whole,
    /// It is cut by the sender's kernel and joined by the receiver's, as with a network card that
    /// does neither by itself.
    Cut,
    /// An emulated path, with its own MTU.
    Path(Profile),
}

/// How the namespaces are joined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wiring {
    pub wire: Wire,
    /// Bytes of the wire's packets.
    pub wire_mtu: u32,
    /// Bytes of the tunnel's packets.
    pub tunnel_mtu: u32,
}

impl Wiring {
    /// That the path itself takes at most.
    pub fn round_trip(&self) -> Duration {
        match self.wire {
            Wire::Whole | Wire::Cut => Duration::ZERO,
            Wire::Path(profile) => profile.round_trip(),
        }
    }
}

/// A path between two namespaces, with a tunnel or without.
#[derive(Debug)]
pub struct Tunnel {
    pub sides: [Side; 2],
    /// How long the program of side 0 took until it could be configured, the other being there;
    /// nothing without a program.
    pub start: Option<Duration>,
    /// From the start of one side, the other being there, until its first packet was answered;
    /// nothing without a tunnel.
    pub first_packet: Option<Duration>,
    /// What carries packets between the namespaces, if no wire does.
    #[expect(dead_code, reason = "it works until it is dropped")]
    emulator: Option<Emulator>,
}

/// One end.
#[derive(Debug)]
pub struct Side {
    pub worker: Worker,
    /// Where the load goes to.
    pub address: Ipv4Addr,
    /// The longest packet that the path takes whole.
    pub mtu: u32,
    /// Where the other side's datagrams go to, with a tunnel.
    pub endpoint: SocketAddr,
    /// Nothing without a tunnel.
    pub public_key: Option<PublicKey>,
    interface: String,
    program: Option<Program>,
    // After the processes inside.
    namespace: NetNamespace,
}

/// A key pair and where it lives.
struct Identity {
    private: PrivateKey,
    public: PublicKey,
}

impl Tunnel {
    /// Makes all of it. `files` is a folder that nobody else reads, for keys.
    ///
    /// # Errors
    /// Whatever stood in the way; nothing is left then.
    pub fn make(
        implementation: &Implementation,
        wiring: Wiring,
        files: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self, BenchError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespaces = [NetNamespace::create()?, NetNamespace::create()?];
        let emulator = lay_wire(&namespaces, wiring)?;
        let is_plain = implementation.kind == Kind::Plain;
        let forwarding = implementation.forwarding;
        let server = forwarding.map(|_| gateway::put_behind(&namespaces[1])).transpose()?;
        let side = |at: usize, namespace: NetNamespace| {
            let behind = server.as_ref().filter(|_| at == 1);
            let own = if is_plain { OUTSIDE[at] } else { INSIDE[at] };
            Ok::<_, BenchError>(Side {
                worker: Worker::start(behind.unwrap_or(&namespace))?,
                address: if behind.is_some() { gateway::SERVER } else { own },
                mtu: if is_plain { wiring.wire_mtu } else { wiring.tunnel_mtu },
                endpoint: (OUTSIDE[at], PORTS[at]).into(),
                public_key: None,
                interface: format!("bench{number}{}", ["a", "b"][at]),
                program: None,
                namespace,
            })
        };
        let [first, second] = namespaces;
        let sides = [side(0, first)?, side(1, second)?];
        let mut tunnel = Self { sides, start: None, first_packet: None, emulator };
        if !is_plain {
            let kind = &implementation.kind;
            tunnel.bring_up(kind, forwarding, wiring.tunnel_mtu, files, interrupt)?;
        }
        // Without a tunnel too, so that everybody's neighbours are known.
        tunnel.wait_for_packet(interrupt)?;
        Ok(tunnel)
    }

    /// Side 1 first, so that the time of side 0 is that until a tunnel works.
    fn bring_up(
        &mut self,
        kind: &Kind,
        forwarding: Option<Forwarding>,
        mtu: u32,
        files: &Path,
        interrupt: &Interrupt,
    ) -> Result<(), BenchError> {
        let identities = [identity(&mut OsEntropy), identity(&mut OsEntropy)];
        let mut started = clock::now().mono;
        for at in [1, 0] {
            let side = &mut self.sides[at];
            let settings = settings(&identities, at, forwarding);
            let file = files.join(format!("{}.conf", side.interface));
            started = clock::now().mono;
            side.start(kind, &settings, &file, interrupt)?;
            if matches!(kind, Kind::Program(_)) {
                self.start = Some(clock::now().mono.since(started));
            }
            let side = &self.sides[at];
            side.configure_by_socket(kind, &settings)?;
            side.set_up(mtu, INSIDE[at])?;
            if let Some(forwarding) = forwarding {
                side.lead_on(at, forwarding)?;
            }
            self.sides[at].public_key = Some(identities[at].public);
        }
        self.wait_for_packet(interrupt)?;
        self.first_packet = Some(clock::now().mono.since(started));
        Ok(())
    }

    /// Asks until an answer comes: some drop the packet that starts the handshake.
    fn wait_for_packet(&self, interrupt: &Interrupt) -> Result<(), BenchError> {
        let [near, far] = &self.sides;
        let echo = near.namespace.run(|| EchoSocket::open(far.address.into()))??;
        let deadline = clock::now().mono + FIRST_PACKET_LIMIT;
        let mut sequence = 0;
        while clock::now().mono < deadline {
            sequence += 1;
            echo.send(sequence)?;
            // Whichever it answers.
            if echo.receive(ASK_EVERY)?.is_some() {
                return Ok(());
            }
            if interrupt.is_raised() {
                return Err(BenchError::Interrupted);
            }
        }
        let seconds = FIRST_PACKET_LIMIT.as_secs();
        Err(BenchError::Silent(format!("no packet came through within {seconds} s{}", self.log())))
    }

    /// The processor time of the programs under test; nothing for a kernel or without a tunnel.
    ///
    /// # Errors
    /// A program has ended.
    pub fn processor_time(&self) -> Result<Option<Duration>, BenchError> {
        let mut sum = None;
        for program in self.sides.iter().filter_map(|side| side.program.as_ref()) {
            sum = Some(sum.unwrap_or_default() + process::processor_time(program.child.id())?);
        }
        Ok(sum)
    }

    /// The process under test of each side.
    pub fn processes(&self) -> impl Iterator<Item = u32> {
        self.sides.iter().filter_map(|side| Some(side.program.as_ref()?.child.id()))
    }

    /// The process of the hub, side 1.
    pub fn hub(&self) -> Option<u32> {
        Some(self.sides[1].program.as_ref()?.child.id())
    }

    /// # Errors
    /// A program under test has ended, with what it printed.
    pub fn check(&mut self) -> Result<(), BenchError> {
        for side in &mut self.sides {
            if let Some(program) = &mut side.program {
                program.check()?;
            }
        }
        Ok(())
    }

    fn log(&self) -> String {
        let logs = self.sides.iter().filter_map(|side| Some(side.program.as_ref()?.log()));
        let text: Vec<String> = logs.filter(|log| !log.is_empty()).collect();
        if text.is_empty() { String::new() } else { format!("; it printed: {}", text.join(" / ")) }
    }
}

impl Side {
    /// Adds peers that may only begin handshakes: none has an address.
    ///
    /// # Errors
    /// The device refuses, or the kernel's own, for which this is not built.
    pub fn add_peers(&self, keys: impl IntoIterator<Item = PublicKey>) -> Result<(), BenchError> {
        self.add(keys.into_iter().map(PeerUpdate::new).collect())
    }

    /// Adds one that has this address in the tunnel.
    ///
    /// # Errors
    /// As for [`Self::add_peers`].
    pub fn add_peer(&self, key: PublicKey, address: Ipv4Addr) -> Result<(), BenchError> {
        let allowed_ips = vec![AllowedIpChange::Add(single(address))];
        self.add(vec![PeerUpdate { allowed_ips, ..PeerUpdate::new(key) }])
    }

    fn add(&self, peers: Vec<PeerUpdate>) -> Result<(), BenchError> {
        let request = SetRequest { peers, ..SetRequest::default() };
        Ok(UapiClient::connect(&self.interface)?.set(&request)?)
    }

    fn start(
        &mut self,
        kind: &Kind,
        settings: &SetRequest,
        file: &Path,
        interrupt: &Interrupt,
    ) -> Result<(), BenchError> {
        match kind {
            Kind::Plain => Ok(()),
            Kind::Kernel => {
                write_settings(file, settings)?;
                let name = &self.interface;
                self.namespace.run(|| Netlink::new().create_wireguard(name))??;
                self.run_to_end("wg", &["setconf".as_ref(), name.as_ref(), file.as_os_str()])
            }
            Kind::Program(command) => {
                let reads_file = command.contains("{conf}");
                if reads_file {
                    write_settings(file, settings)?;
                }
                let command = command
                    .replace("{tun}", &self.interface)
                    .replace("{conf}", &file.to_string_lossy());
                let mut program = Program::start(&command, &self.namespace)?;
                let outcome = self.wait_until_ready(&mut program, reads_file, interrupt);
                self.program = Some(program);
                outcome
            }
        }
    }

    /// Waits for the interface, and unless a file was read for the socket to answer.
    fn wait_until_ready(
        &self,
        program: &mut Program,
        reads_file: bool,
        interrupt: &Interrupt,
    ) -> Result<(), BenchError> {
        let deadline = clock::now().mono + START_LIMIT;
        loop {
            let answers =
                || UapiClient::connect(&self.interface).is_ok_and(|mut c| c.get().is_ok());
            if self.has_interface()? && (reads_file || answers()) {
                return Ok(());
            }
            program.check()?;
            if clock::now().mono > deadline {
                return Err(program.failed(&format!("was not ready in {START_LIMIT:?}")));
            }
            if interrupt.wait(LOOK_EVERY) {
                return Err(BenchError::Interrupted);
            }
        }
    }

    fn has_interface(&self) -> Result<bool, BenchError> {
        Ok(self.namespace.run(|| Netlink::new().link(&self.interface))??.is_some())
    }

    fn configure_by_socket(&self, kind: &Kind, settings: &SetRequest) -> Result<(), BenchError> {
        match kind {
            Kind::Program(command) if !command.contains("{conf}") => {
                Ok(UapiClient::connect(&self.interface)?.set(settings)?)
            }
            Kind::Plain | Kind::Kernel | Kind::Program(_) => Ok(()),
        }
    }

    fn set_up(&self, mtu: u32, address: Ipv4Addr) -> Result<(), BenchError> {
        let outcome = self.namespace.run(|| {
            let mut netlink = Netlink::new();
            if let Some(link) = netlink.link(&self.interface)? {
                netlink.add_address(&link, network(address))?;
                netlink.set_mtu_up(&link, mtu)?;
            }
            Ok::<_, NetlinkError>(())
        })?;
        Ok(outcome?)
    }

    /// Has packets for the server go into the tunnel, and the hub get them on.
    fn lead_on(&self, at: usize, forwarding: Forwarding) -> Result<(), BenchError> {
        let further = if at == 0 { gateway::NETWORK } else { single(gateway::OTHER_PEER) };
        self.namespace.run(|| {
            let mut netlink = Netlink::new();
            if let Some(link) = netlink.link(&self.interface)? {
                netlink.add_route(&link, further, MAIN_TABLE)?;
            }
            if at == 1 {
                let peers = [INSIDE[0], gateway::OTHER_PEER].map(single);
                forwarding.set_up(&self.interface, &peers)?;
            }
            Ok::<_, BenchError>(())
        })?
    }

    fn run_to_end(&self, program: &str, words: &[&std::ffi::OsStr]) -> Result<(), BenchError> {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null());
        let output = self.namespace.run(move || command.output())?;
        let output = output.map_err(BenchError::io(format!("cannot run {program}")))?;
        if output.status.success() {
            return Ok(());
        }
        let log = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let what = format!("ended with {}", output.status);
        Err(BenchError::Program { program: program.to_owned(), what, log })
    }
}

/// A program under test, and what it prints.
#[derive(Debug)]
struct Program {
    child: Child,
    command: String,
    log: File,
}

impl Program {
    fn start(command: &str, namespace: &NetNamespace) -> Result<Self, BenchError> {
        let what = format!("cannot start `{command}`");
        let log = process::anonymous_file(c"log")?;
        let copy = || log.try_clone().map_err(BenchError::io(what.clone()));
        let mut shell = Command::new("/bin/sh");
        // Replaces the shell, so that the process that we know is the one that works.
        shell.arg("-c").arg(format!("exec {command}"));
        shell.stdin(Stdio::null()).stdout(copy()?).stderr(copy()?);
        let child = namespace.run(move || shell.spawn())?.map_err(BenchError::io(what))?;
        Ok(Self { child, command: command.to_owned(), log })
    }

    fn name(&self) -> &str {
        without_folders(self.command.split(' ').next().unwrap_or_default())
    }

    /// # Errors
    /// It has ended.
    fn check(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("ended with {status}"))),
            Err(error) => Err(BenchError::Io { what: self.name().to_owned(), source: error }),
        }
    }

    fn failed(&self, what: &str) -> BenchError {
        BenchError::Program {
            program: self.name().to_owned(),
            what: what.to_owned(),
            log: self.log(),
        }
    }

    /// The end of what it printed, in one line; without the folders of what was typed, since results
    /// are given to others.
    fn log(&self) -> String {
        let mut text = Vec::new();
        let mut log = &self.log;
        let read = log.seek(SeekFrom::Start(0)).and_then(|_| log.read_to_end(&mut text));
        if read.is_err() {
            return String::new();
        }
        let mut text = String::from_utf8_lossy(&text).into_owned();
        for word in self.command.split(' ').map(|word| word.trim_matches('\'')) {
            if word.contains('/') {
                text = text.replace(word, without_folders(word));
            }
        }
        let end = text.ceil_char_boundary(text.len().saturating_sub(SHOWN_LOG_BYTES));
        let text = &text[end..];
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself, and is waited for here alone.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether the kernel has an implementation of its own, and `wg` is there to configure it.
///
/// # Errors
/// No right to try.
pub fn has_kernel_wireguard() -> Result<bool, BenchError> {
    let is_program = |folder: PathBuf| folder.join("wg").is_file();
    if !std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(is_program) {
        return Ok(false);
    }
    // It goes with the namespace.
    let outcome = NetNamespace::create()?.run(|| Netlink::new().create_wireguard(PROBE))?;
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.is_unsupported() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn lay_wire(
    namespaces: &[NetNamespace; 2],
    wiring: Wiring,
) -> Result<Option<Emulator>, BenchError> {
    let [near, far] = namespaces;
    let mut emulator = None;
    match wiring.wire {
        Wire::Whole | Wire::Cut => {
            near.run(|| Netlink::new().create_veth(WIRE, WIRE, far.as_fd()))??;
        }
        Wire::Path(profile) => {
            let end = |namespace: &NetNamespace| {
                let tun = namespace.run(|| Tun::create(WIRE, TunOffloads::NONE))??;
                Ok::<_, BenchError>(Arc::new(tun))
            };
            emulator = Some(Emulator::start(&profile, &[end(near)?, end(far)?])?);
        }
    }
    for (namespace, address) in namespaces.iter().zip(OUTSIDE) {
        namespace.run(|| plug_in(wiring, address))??;
    }
    Ok(emulator)
}

fn plug_in(wiring: Wiring, address: Ipv4Addr) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::new();
    netlink.set_loopback_up()?;
    let Some(link) = netlink.link(WIRE)? else { return Ok(()) };
    if wiring.wire == Wire::Cut {
        netlink.set_features(&link, &CUT_FEATURES)?;
        // A queue as a network card has: without one, veth drops all but the first few hundred
        // packets of a burst.
        netlink.set_queue(&link, c"pfifo")?;
    }
    netlink.add_address(&link, network(address))?;
    netlink.set_mtu_up(&link, wiring.wire_mtu)
}

fn identity(entropy: &mut dyn Entropy) -> Identity {
    let private = dh::clamp(&PrivateKey::from_bytes(entropy.bytes()));
    let public = dh::public_key(&private);
    Identity { private, public }
}

/// What side `at` is told.
fn settings(identities: &[Identity; 2], at: usize, forwarding: Option<Forwarding>) -> SetRequest {
    let other = 1 - at;
    let mut allowed_ips = vec![AllowedIpChange::Add(single(INSIDE[other]))];
    if forwarding.is_some() && at == 0 {
        allowed_ips.push(AllowedIpChange::Add(gateway::NETWORK));
    }
    let peer = PeerUpdate {
        endpoint: Some((OUTSIDE[other], PORTS[other]).into()),
        replace_allowed_ips: true,
        allowed_ips,
        ..PeerUpdate::new(identities[other].public)
    };
    let flows = forwarding.filter(|_| at == 1).and_then(Forwarding::flows);
    SetRequest {
        private_key: Some(Some(identities[at].private.clone())),
        listen_port: Some(PORTS[at]),
        flows: flows.map(Some),
        replace_peers: true,
        peers: vec![peer],
        ..SetRequest::default()
    }
}

/// In the format of `wg setconf`.
fn write_settings(path: &Path, settings: &SetRequest) -> Result<(), BenchError> {
    let mut text = Zeroizing::new(String::from("[Interface]\n"));
    if let Some(Some(key)) = &settings.private_key {
        let key = Zeroizing::new(key.to_base64());
        text.push_str(&format!("PrivateKey = {}\n", *key));
    }
    if let Some(port) = settings.listen_port {
        text.push_str(&format!("ListenPort = {port}\n"));
    }
    for peer in &settings.peers {
        text.push_str(&format!("\n[Peer]\nPublicKey = {}\n", peer.public_key.to_base64()));
        for change in &peer.allowed_ips {
            if let AllowedIpChange::Add(network) = change {
                text.push_str(&format!("AllowedIPs = {network}\n"));
            }
        }
        if let Some(endpoint) = peer.endpoint {
            text.push_str(&format!("Endpoint = {endpoint}\n"));
        }
    }
    std::fs::write(path, text.as_bytes()).map_err(BenchError::io("cannot write a configuration"))
}

fn network(address: Ipv4Addr) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(address, PREFIX))
}

fn single(address: Ipv4Addr) -> IpNet {
    IpNet::from(IpAddr::V4(address))
}

/// Names of interfaces are used once in a run: the sockets of both sides are in one folder.
static NEXT: AtomicU32 = AtomicU32::new(0);

const WIRE: &str = "wire";
/// By the names of ethtool(8).
const CUT_FEATURES: [(&CStr, bool); 4] = [
    (c"tx-udp-segmentation", false),
    (c"tx-tcp-segmentation", false),
    (c"tx-tcp6-segmentation", false),
    (c"rx-gro", true),
];
const PROBE: &str = "probe";
const PREFIX: u8 = 30;
// From the range for tests between networks. [RFC 2544 §C.2.2]
const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2)];
const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 1, 1), Ipv4Addr::new(198, 18, 1, 2)];
const PORTS: [u16; 2] = [51820, 51821];

const START_LIMIT: Duration = Duration::from_secs(10);
const FIRST_PACKET_LIMIT: Duration = Duration::from_secs(15);
const ASK_EVERY: Duration = Duration::from_millis(10);
const LOOK_EVERY: Duration = Duration::from_millis(1);
const SHOWN_LOG_BYTES: usize = 400;
