//! `up --foreground`, as a service manager runs it. The test is the manager.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::net::{Host, Process, eventually, unique};
use super::skips;

const SOON: Duration = Duration::from_secs(10);

/// A service of one tunnel and what it says.
struct Service {
    process: Process,
    manager: UnixDatagram,
    interface: String,
    folder: TempDir,
}

impl Service {
    /// Starts it; it has to give a sign of life each 0.4 seconds.
    fn start(host: &Host) -> Self {
        let (folder, interface) = (tempfile::tempdir().unwrap(), unique("s"));
        let config = folder.path().join(format!("{interface}.conf"));
        let gone = folder.path().join("gone");
        let key = host.sh("wg genkey");
        let text = format!(
            "[Interface]\nPrivateKey = {key}Address = 10.10.0.1/24\nPostDown = touch {}\n",
            gone.display()
        );
        fs::write(&config, text).unwrap();
        let socket = folder.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(SOON)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hybridwg"));
        command.args(["up", "--foreground"]).arg(&config);
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000");
        Self { process: host.spawn(command), manager, interface, folder }
    }

    fn next_word(&self) -> String {
        let mut buffer = [0; 64];
        let len = self.manager.recv(&mut buffer).expect("the service says something");
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    /// Waits for that word.
    fn says(&self, word: &str) {
        while self.next_word() != word {}
    }

    /// The process of the daemon.
    fn daemon(&self) -> Pid {
        let name = format!("--\0{}\0", self.interface);
        let is_it = |entry: &fs::DirEntry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).ends_with(&name)
        };
        let found = fs::read_dir("/proc").unwrap().filter_map(Result::ok).find(is_it);
        let number = found.and_then(|entry| entry.file_name().to_str()?.parse().ok());
        number.and_then(Pid::from_raw).expect("the daemon runs")
    }

    fn ends(&mut self) {
        eventually("the service ends", SOON, || !self.process.is_alive());
    }
}

#[test]
fn a_service_says_that_it_is_up_and_alive_and_a_signal_takes_the_tunnel_down() {
    if skips(&["ip", "wg"]) {
        return;
    }
    let host = Host::new();
    let mut service = Service::start(&host);
    service.says("READY=1");
    assert!(host.sh("ip -o address").contains("10.10.0.1/24"), "it is up by then");
    for _ in 0..3 {
        service.says("WATCHDOG=1");
    }
    service.process.terminate();
    service.says("STOPPING=1");
    service.ends();
    assert!(!host.sh("ip -o link").contains(&service.interface));
    assert!(service.folder.path().join("gone").exists(), "its hook has run");
}

#[test]
fn a_daemon_that_is_stopped_gives_no_sign_of_life_and_one_that_is_killed_ends_the_service() {
    if skips(&["ip", "wg"]) {
        return;
    }
    let host = Host::new();
    let mut service = Service::start(&host);
    service.says("READY=1");
    service.says("WATCHDOG=1");
    let daemon = service.daemon();
    kill_process(daemon, Signal::STOP).unwrap();
    service.manager.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut left = 0;
    while service.manager.recv(&mut [0; 64]).is_ok() {
        left += 1;
        assert!(left < 3, "signs of life of a daemon that does not run");
    }
    kill_process(daemon, Signal::KILL).unwrap();
    service.ends();
    assert!(service.process.log().contains("has ended without `hybridwg down`"));
}
