//! Health, as a kubelet and a shell-less container ask for it.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::net::{Host, daemon_of, eventually, pause, unique};
use super::script;
use super::skips;
use super::tunnel::{End, Keys, Program, peer};

const SOON: Duration = Duration::from_secs(30);

/// A client that was brought up from a file, which is told its health on port 9586.
struct Client<'h> {
    host: &'h Host,
    interface: String,
    folder: TempDir,
}

impl<'h> Client<'h> {
    fn up(host: &'h Host, keys: &Keys, peers: &str) -> Self {
        let client = Self { host, interface: unique("y"), folder: tempfile::tempdir().unwrap() };
        client.write(keys, "Health = 127.0.0.1:9586", peers);
        client.sh("up");
        client
    }

    fn write(&self, keys: &Keys, lines: &str, peers: &str) {
        let private = &keys.private;
        let text = format!(
            "[Interface]\nPrivateKey = {private}\nAddress = 10.10.0.1/24\n{lines}\n{peers}"
        );
        fs::write(self.file(), text).unwrap();
    }

    fn file(&self) -> String {
        self.folder.path().join(format!("{}.conf", self.interface)).display().to_string()
    }

    fn sh(&self, word: &str) -> String {
        self.host.sh(&format!("{} {word} {}", env!("CARGO_BIN_EXE_hybridwg"), self.file()))
    }

    /// Exit status and words of `hybridwg health`.
    fn health(&self, option: &str) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hybridwg"));
        command.args(["health", &self.interface, option]);
        let output = self.host.output(command);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Status and body of a page; 0 if nobody answers.
    fn page(&self, page: &str) -> (u16, String) {
        let output = self.host.try_sh(&format!(
            "curl --silent --max-time 10 --write-out %{{http_code}} http://127.0.0.1:9586{page}"
        ));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.split_at(text.len() - 3);
        (status.parse().unwrap(), body.trim_end().to_owned())
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        let down = format!("{} down {}", env!("CARGO_BIN_EXE_hybridwg"), self.file());
        drop(self.host.try_sh(&down));
    }
}

#[test]
fn u_08_a_tunnel_without_traffic_is_alive_and_becomes_ready_when_its_peer_answers() {
    if skips(&["ip", "wg", "curl"]) {
        return;
    }
    let (near, far) = (Host::new(), Host::new());
    near.wire("192.168.9.1/24", &far, "192.168.9.2/24");
    let (ours, theirs) = (Keys::generate(&near), Keys::generate(&far));
    let endpoint = "Endpoint = 192.168.9.2:51820";
    let client = Client::up(&near, &ours, &peer(&theirs, 2, endpoint));
    let fine = (200, "{\"status\":\"ok\",\"reasons\":[]}".to_owned());
    assert_eq!(client.page("/healthz"), fine);
    for page in ["/readyz", "/startupz"] {
        let (status, body) = client.page(page);
        let public = &theirs.public[..4];
        assert_eq!(status, 503, "{page}: {body}");
        assert!(body.contains(&format!("\"peer({public}")), "{page}: {body}");
        assert!(body.contains("no session yet"), "{page}: {body}");
        assert!(!body.contains("192.168"), "no address is told: {body}");
    }
    let (status, words) = client.health("--ready");
    assert_eq!(status, Some(1), "{words}");
    assert!(words.starts_with(&format!("{} is not ready: peer(", client.interface)), "{words}");

    let hub = End::start_with(&far, Program::Hybridwg, &[], &unique("h"), theirs.clone());
    hub.setconf(&format!("ListenPort = 51820\n{}", peer(&ours, 1, "")));
    eventually("it is ready", SOON, || client.page("/readyz") == fine);
    assert_eq!(client.page("/startupz"), fine);
    assert_eq!(client.health("--ready"), (Some(0), format!("{} is ready\n", client.interface)));
    assert_eq!(client.health("--startup").0, Some(0));

    // Whoever is not required is not waited for, and what the file says no more is over.
    drop(hub);
    client.write(&ours, "", &peer(&theirs, 2, &format!("{endpoint}\n#hybridwg: Required = off")));
    client.sh("reload");
    assert_eq!(client.page("/readyz").0, 0, "nobody listens there any more");
    assert_eq!(client.health("--ready").0, Some(0));

    // A probe that is not answered has failed.
    let daemon = daemon_of(&client.interface);
    kill_process(daemon, Signal::STOP).unwrap();
    let (status, words) = client.health("--live");
    kill_process(daemon, Signal::CONT).unwrap();
    assert_eq!(status, Some(1), "{words}");
    assert!(words.starts_with(&format!("{} is not live: ", client.interface)), "{words}");
    eventually("it is alive again", SOON, || client.health("--live").0 == Some(0));
}

/// Asks at `place` whether the device is live, and hears the whole answer.
fn ask(place: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&place, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What became of asking at `place` again and again while `work` was done.
fn while_asked(host: &Host, place: SocketAddr, work: impl FnOnce()) -> Vec<io::Result<String>> {
    let (tell, told) = mpsc::channel();
    let (held, gone) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            host.run(move || {
                while gone.try_recv() == Err(TryRecvError::Empty) {
                    tell.send(ask(place)).unwrap();
                    pause(Duration::from_millis(1));
                }
            });
        });
        let first = told.recv().unwrap();
        work();
        drop(held);
        [first].into_iter().chain(told.iter()).collect()
    })
}

/// The number of the socket that listens at this port of IPv4's. [proc_pid_net(5)]
fn listener(host: &Host, port: u16) -> String {
    let sockets = host.run(|| fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
    let place = format!(":{port:04X} 00000000:0000 0A ");
    let line = sockets.lines().find(|line| line.contains(&place)).expect("somebody listens");
    line.split_whitespace().nth(9).unwrap().to_owned()
}

#[test]
fn u_11_where_health_is_told_moves_at_a_reload_and_whoever_asks_meanwhile_is_not_refused() {
    if skips(&["ip", "wg"]) {
        return;
    }
    let (near, far) = (Host::new(), Host::new());
    near.wire("192.168.9.1/24", &far, "192.168.9.2/24");
    let (ours, theirs) = (Keys::generate(&near), Keys::generate(&far));
    let peer = |lines: &str| peer(&theirs, 2, &format!("Endpoint = 192.168.9.2:51820\n{lines}"));
    let client = Client::up(&near, &ours, &peer(""));
    let reload = |place: &str, lines: &str| {
        client.write(&ours, &format!("Health = {place}"), &peer(lines));
        client.sh("reload");
    };
    let place = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let is_live = |text: &str| {
        let outcome = near.run(|| ask(place(text)));
        outcome.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    };
    let is_closed = |text: &str| {
        let outcome = near.run(|| TcpStream::connect_timeout(&place(text), SOON));
        outcome.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    let (loopback, other) = ("127.0.0.1:9586", "127.0.0.1:9587");

    // What is judged changes, and nothing of where that is told.
    let before = listener(&near, 9586);
    for outcome in while_asked(&near, place(loopback), || {
        reload(loopback, "#hybridwg: Required = off");
        reload(loopback, "PersistentKeepalive = 25");
    }) {
        assert!(outcome.as_ref().is_ok_and(|it| it.starts_with("HTTP/1.1 200 ")), "{outcome:?}");
    }
    assert_eq!(listener(&near, 9586), before, "it is the same");

    // One address and all of them are in each other's way at one port.
    assert!(is_closed("192.168.9.1:9586"));
    for outcome in while_asked(&near, place(loopback), || {
        reload("0.0.0.0:9586", "");
        assert!(is_live("192.168.9.1:9586"));
        reload(loopback, "");
        assert!(is_closed("192.168.9.1:9586"));
    }) {
        // Who was not heard yet by the one that left is cut off.
        assert_ne!(outcome.err().map(|error| error.kind()), Some(ErrorKind::ConnectionRefused));
    }

    reload(other, "");
    assert!(is_live(other) && is_closed(loopback));
    // Somebody else's place is not had, and who was there stays.
    let _taken = near.run(|| TcpListener::bind(loopback).unwrap());
    client.write(&ours, &format!("Health = {loopback}"), &peer(""));
    let words = format!("{} reload {}", env!("CARGO_BIN_EXE_hybridwg"), client.file());
    let refused = near.try_sh(&words);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains(&format!("listen on {loopback}")), "{told}");
    assert!(is_live(other));
}

#[test]
fn n_06_an_address_that_cannot_be_had_for_health_is_named_and_nothing_stays_up() {
    if skips(script::PROGRAMS) {
        return;
    }
    let host = script::Host::new(&script::config("Health = 192.0.2.77:9586"));
    let outcome = host.run(&format!("hybridwg up ./wg0.conf; echo code $?; {}", script::LEFTOVERS));
    assert_eq!(outcome.out, "code 1\n", "{}", outcome.err);
    let told = "hybridwg: the daemon of wg0 cannot listen on 192.0.2.77:9586, its Health, for HTTP: \
                Cannot assign requested address";
    assert!(outcome.err.contains(told), "{}", outcome.err);
}
