//! `up --foreground`, as a service manager runs it. The test is the manager.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::net::{Host, Process, daemon_of, eventually, unique};
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
    let daemon = daemon_of(&service.interface);
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

/// WQ-32.
#[test]
fn the_unit_is_one_that_systemd_understands_and_its_exposure_is_what_the_readme_says() {
    if skips(&["systemd-analyze"]) {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let unit = fs::read_to_string(root.join("configs/systemd/hybridwg@.service")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let analyze = |arguments: &[&str], unit: &str| {
        let path = folder.path().join("hybridwg@.service");
        let installed = "/usr/local/bin/hybridwg";
        fs::write(&path, unit.replace(installed, env!("CARGO_BIN_EXE_hybridwg"))).unwrap();
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(path.with_file_name("hybridwg@t.service"));
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let verify = &["verify", "--man=no"];
    // What stands elsewhere on this machine is not ours to judge.
    let complaints = |unit: &str| {
        let (_, said) = analyze(verify, unit);
        said.lines().filter(|line| line.contains("hybridwg")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complaints(&unit), [""; 0]);
    assert_eq!(complaints(&unit.replace("Type=", "Tipe=")).len(), 1, "or nothing is looked at");

    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, after) = readme.split_once("rates its exposure ").unwrap();
    let figure: f32 = after.split(' ').next().unwrap().parse().unwrap();
    let threshold = format!("--threshold={:.0}", figure * 10.0);
    let (is_below, said) =
        analyze(&["security", "--offline=true", "--no-pager", &threshold], &unit);
    assert!(is_below, "{said}");

    // `systemctl restart wg-quick.target` means both, and nobody brings a tunnel up twice.
    for line in [
        "PartOf=wg-quick.target",
        "Conflicts=wg-quick@%i.service",
        "After=network-online.target nss-lookup.target",
        "Wants=network-online.target nss-lookup.target",
    ] {
        assert!(unit.lines().any(|it| it == line), "{line}");
    }
}

/// U-23.
#[test]
fn a_key_that_is_a_credential_of_the_service_or_a_variable_of_the_container_is_used() {
    if skips(&["ip", "wg"]) {
        return;
    }
    let (host, folder) = (Host::new(), tempfile::tempdir().unwrap());
    let key = host.sh("wg genkey");
    fs::write(folder.path().join("tunnel.key"), &key).unwrap();
    let public_key = host.feed(wg(&["pubkey"]), &key);
    for source in ["credential:tunnel.key", "env:TUNNEL_KEY"] {
        let interface = unique("k");
        let config = folder.path().join(format!("{interface}.conf"));
        fs::write(&config, format!("[Interface]\n#hybridwg: PrivateKeyFile = {source}\n")).unwrap();
        let hybridwg = |word: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_hybridwg"));
            command.arg(word).arg(&config);
            command.env("CREDENTIALS_DIRECTORY", folder.path()).env("TUNNEL_KEY", key.trim());
            command
        };
        let output = host.output(hybridwg("up"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(host.sh(&format!("wg show {interface} public-key")), public_key, "{source}");
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            assert!(!line.contains(key.trim()), "in the command line of {:?}", entry.path());
        }
        assert!(host.output(hybridwg("down")).status.success());
    }
}

fn wg(arguments: &[&str]) -> Command {
    let mut command = Command::new("wg");
    command.args(arguments);
    command
}
