//! A pod: a tunnel without an interface, of a user who may do nothing, and the hub that it leads to.
//!
//! ```text
//! hub (TUN) ══ tunnel ══ pod: uid 65534, no capability
//! ```

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::net::{Host, Process, eventually, unique};
use super::tunnel::Program;
use super::tunnel::{End, Keys};
use super::{copy_binary, skips};

/// What must come comes by then, also on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

pub const PROGRAMS: &[&str] = &["ip", "ping", "setpriv", "wg"];

/// The user that containers run as who have no other.
const NOBODY: u32 = 65534;

/// Debian's, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

/// Runs a program under a filter of system calls.
const CONFINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/host/confine.py");

/// Both ends' hosts, and the pod's files.
pub struct Place {
    pub hub: Host,
    pub pod: Host,
    pub folder: TempDir,
    pub interface: String,
    pub keys: Keys,
    is_confined: bool,
}

impl Place {
    pub fn new() -> Self {
        let (hub, pod) = (Host::new(), Host::new());
        hub.wire("192.168.7.1/24", &pod, "192.168.7.2/24");
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        copy_binary(&folder.path().join("hybridwg"));
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        chown(run, Some(NOBODY), Some(NOBODY)).unwrap();
        let keys = Keys::generate(&hub);
        Self { hub, pod, folder, interface: unique("r"), keys, is_confined: false }
    }

    /// One whose programs may make the system calls of a container alone, without netlink. `None` where
    /// this machine cannot hold them to that, which it has said then.
    #[track_caller]
    pub fn confined() -> Option<Self> {
        if skips(&[PYTHON]) {
            return None;
        }
        let place = Self { is_confined: true, ..Self::new() };
        let tried = place.pod.output(place.plain("true"));
        let told = String::from_utf8_lossy(&tried.stderr).into_owned();
        if told.contains("ModuleNotFoundError") || told.contains("FileNotFoundError") {
            super::skip("no python3-seccomp or golang-github-containers-common");
            return None;
        }
        assert!(tried.status.success(), "{told}");
        Some(place)
    }

    /// The other end, an interface of `program`'s.
    pub fn join(&self, program: Program) -> End<'_> {
        let hub = End::start(&self.hub, program);
        hub.setconf(&format!(
            "[Peer]\nPublicKey = {}\nAllowedIPs = 10.66.0.2/32, fd66::2/128",
            self.keys.public
        ));
        hub.up("10.66.0.1/24 10.66.0.9/24 fd66::1/64");
        hub
    }

    /// The same hub after it has lost everything; it begins to speak.
    pub fn rejoin<'h>(&self, hub: End<'h>) -> End<'h> {
        let hub = hub.restart();
        hub.setconf(&format!(
            "[Peer]\nPublicKey = {}\nAllowedIPs = 10.66.0.2/32, fd66::2/128\nEndpoint = 192.168.7.2:{}",
            self.keys.public,
            self.port()
        ));
        hub.up("10.66.0.1/24 10.66.0.9/24 fd66::1/64");
        eventually("the pod answers a ping again", SOON, || self.hub.pings("10.66.0.2"));
        hub
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join(format!("{}.conf", self.interface))
    }

    pub fn write(&self, hub: &End<'_>, lines: &str) {
        let text = format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.66.0.2/24, fd66::2/64\n{lines}\n[Peer]\n\
             PublicKey = {}\nEndpoint = 192.168.7.1:{}\nAllowedIPs = 10.66.0.0/24, fd66::/64\n\
             PersistentKeepalive = 1\n",
            self.keys.private,
            hub.keys.public,
            hub.port()
        );
        fs::write(self.path(), text).unwrap();
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o600)).unwrap();
        chown(self.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }

    /// A program of the pod's, with no right at all.
    pub fn plain(&self, program: &str) -> Command {
        let setpriv = "setpriv";
        let mut command = Command::new(if self.is_confined { PYTHON } else { setpriv });
        if self.is_confined {
            command.args([CONFINE, setpriv]);
        }
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"])
            .args(["--inh-caps=-all", "--no-new-privs", program])
            .current_dir(self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path().join("run"))
            .env("STATE_DIRECTORY", "");
        command
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let binary = self.folder.path().join("hybridwg");
        let mut command = self.plain(binary.to_str().unwrap());
        command.args(words);
        command
    }

    pub fn hybridwg(&self, words: &[&str]) -> Output {
        self.pod.output(self.command(words))
    }

    /// Makes the tunnel what its file says now.
    pub fn reload(&self) {
        let reloaded = self.hybridwg(&["reload", self.path().to_str().unwrap()]);
        assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    }

    /// The port of a service of the pod that is reached by loopback alone ([`echo_at_the_end`]).
    pub fn echo(&self) -> u16 {
        let service = self.pod.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = service.local_addr().unwrap().port();
        echo_at_the_end(service);
        port
    }

    /// Brings the tunnel up with what `lines` say, in the foreground.
    pub fn up(&self, hub: &End<'_>, lines: &str) -> Process {
        self.write(hub, lines);
        let file = self.path();
        self.start(self.command(&["up", "--foreground", file.to_str().unwrap()]))
    }

    /// Runs a command that has the tunnel in the foreground.
    pub fn start(&self, command: Command) -> Process {
        let mut process = self.pod.spawn(command);
        eventually("the pod answers a ping", SOON, || {
            assert!(process.is_alive(), "{}", process.log());
            self.hub.pings("10.66.0.2")
        });
        process
    }

    /// The port that the pod listens on for peers.
    pub fn port(&self) -> u16 {
        let shown = self.hybridwg(&["show", &self.interface, "listen-port"]);
        String::from_utf8_lossy(&shown.stdout).trim().parse().unwrap()
    }
}

/// What `show --json` has told of one interface.
pub fn shown(output: &Output) -> serde_json::Value {
    let mut shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    shown["interfaces"][0].take()
}

pub fn connect(host: &Host, place: &str) -> io::Result<TcpStream> {
    let place: SocketAddr = place.parse().unwrap();
    let stream = host.run(|| TcpStream::connect_timeout(&place, SOON))?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    Ok(stream)
}

pub fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n * 31 + n / 251) as u8).collect()
}

/// Says everything back when it has heard the end, and first from where it was called.
pub fn echo_at_the_end(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).unwrap();
                let from = stream.peer_addr().unwrap().ip().to_string();
                stream.write_all(from.as_bytes()).and_then(|()| stream.write_all(&heard)).unwrap();
            });
        }
    });
}

/// Says each datagram back.
pub fn echo_datagrams(socket: UdpSocket) {
    thread::spawn(move || {
        let mut room = [0; 65536];
        while let Ok((len, from)) = socket.recv_from(&mut room) {
            socket.send_to(&room[..len], from).unwrap();
        }
    });
}

/// Answers each request of HTTP with a line: its first one, how many bytes followed, and the sum of
/// them; and its fields.
pub fn pages(listener: TcpListener) {
    let answer = |mut stream: TcpStream| {
        let (mut heard, mut room) = (Vec::new(), [0; 4096]);
        let end = loop {
            if let Some(at) = heard.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let len = stream.read(&mut room)?;
            if len == 0 {
                return Ok(());
            }
            heard.extend_from_slice(&room[..len]);
        };
        let body = heard.split_off(end);
        let head = String::from_utf8_lossy(&heard).into_owned();
        let field = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = field.map_or(0, |text| text.parse().unwrap());
        let mut body = io::Cursor::new(body).chain(&mut stream);
        let mut content = vec![0; length];
        body.read_exact(&mut content)?;
        let sum: u64 = content.iter().map(|&byte| u64::from(byte)).sum();
        let (first, fields) = head.split_once("\r\n").unwrap();
        let page = format!("{first}, {length} bytes, sum {sum}\n{fields}");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
        stream.write_all(&[head.as_bytes(), page.as_bytes()].concat())
    };
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || answer(stream).unwrap());
        }
    });
}

/// Says `what` and that it is all; returns what is said back.
pub fn ask(host: &Host, place: &str, what: &[u8]) -> Vec<u8> {
    let mut stream = connect(host, place).unwrap();
    stream.write_all(what).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// What comes back for a datagram of so many bytes.
pub fn ask_by_datagram(host: &Host, to: &str, len: usize) -> io::Result<Vec<u8>> {
    let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let client = host.run(|| UdpSocket::bind(any))?;
    client.set_read_timeout(Some(SOON))?;
    client.connect(to)?;
    client.send(&pattern(len))?;
    let mut room = vec![0; 65536];
    client.recv(&mut room).map(|len| room[..len].to_vec())
}
