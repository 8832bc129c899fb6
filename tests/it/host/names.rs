//! Endpoints by name and by list: names that come and change, machines that end and return.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::net::{Host, eventually, unique};
use super::skips;
use super::tunnel::Program::Hybridwg;
use super::tunnel::{End, Keys, peer};

const PROGRAMS: &[&str] = &["ip", "ping", "wg", "unshare", "mount"];

const SOON: Duration = Duration::from_secs(5);

/// A client on a host whose names stand in a file of its own.
struct Client<'h> {
    host: &'h Host,
    interface: String,
    folder: TempDir,
}

impl<'h> Client<'h> {
    /// Brings the tunnel up; its peer is the hub of these keys, reached as `endpoint` says. `names`
    /// are the lines of the file. Returns what `up` said, too.
    fn up(host: &'h Host, keys: &Keys, hub: &Keys, endpoint: &str, names: &str) -> (Self, String) {
        let (folder, interface) = (tempfile::tempdir().unwrap(), unique("n"));
        let client = Self { host, interface, folder };
        client.set_names(names);
        fs::write(client.file("nsswitch.conf"), "hosts: files\n").unwrap();
        let peer = peer(hub, 1, &format!("{endpoint}\nPersistentKeepalive = 5"));
        let private = &keys.private;
        let text = format!("[Interface]\nPrivateKey = {private}\nAddress = 10.10.0.2/24\n{peer}");
        let config = client.file(&format!("{}.conf", client.interface));
        fs::write(&config, text).unwrap();
        let script = format!(
            "mount --bind {} /etc/hosts && mount --bind {} /etc/nsswitch.conf && exec {} up {}",
            client.file("hosts").display(),
            client.file("nsswitch.conf").display(),
            env!("CARGO_BIN_EXE_hybridwg"),
            config.display(),
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]);
        let output = host.output(command);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        (client, said)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// In place: the file is bound to another one.
    fn set_names(&self, names: &str) {
        fs::write(self.file("hosts"), names).unwrap();
    }

    /// The endpoint of the only peer.
    fn endpoint(&self) -> String {
        let text = self.host.sh(&format!("wg show {} endpoints", self.interface));
        text.split_once('\t').map_or("", |(_, endpoint)| endpoint).trim().to_owned()
    }
}

/// A hub on `host` that knows the client, with these keys.
fn hub<'h>(host: &'h Host, keys: &Keys, client: &Keys, port: u16) -> End<'h> {
    let end = End::start_with(host, Hybridwg, &[], &unique("h"), keys.clone());
    end.setconf(&format!("ListenPort = {port}\n{}", peer(client, 2, "")));
    end.up("10.10.0.1/24");
    end
}

/// Not used by anybody else in namespaces of the test's own.
const PORT: u16 = 51820;

#[test]
fn u_01_a_name_may_come_after_up_has_two_addresses_and_move_to_another_machine() {
    if skips(PROGRAMS) {
        return;
    }
    let (left, first, second) = (Host::new(), Host::new(), Host::new());
    left.wire("192.168.7.1/24 fd07::1/64", &first, "192.168.7.2/24 fd07::2/64");
    left.wire("192.168.8.1/24", &second, "192.168.8.2/24");
    let (keys, hub_keys) = (Keys::generate(&left), Keys::generate(&left));
    let mut at_first = hub(&first, &hub_keys, &keys, PORT);

    let endpoint = format!("Endpoint = hub.test:{PORT}");
    let (client, said) = Client::up(&left, &keys, &hub_keys, &endpoint, "");
    assert!(said.contains(&format!("`hub.test:{PORT}'. The daemon goes on trying")), "{said}");
    assert_eq!(client.endpoint(), "(none)");

    // Nobody is at the IPv6 address, which comes first.
    client.set_names("fd07::99 hub.test\n192.168.7.2 hub.test\n");
    eventually("the hub is found without a packet", Duration::from_secs(20), || {
        client.endpoint() == format!("192.168.7.2:{PORT}")
    });
    assert!(left.pings("10.10.0.1"));

    at_first.daemon().kill();
    let at_second = hub(&second, &hub_keys, &keys, PORT);
    client.set_names("192.168.8.2 hub.test\n");
    eventually("the name leads to the other machine", Duration::from_secs(40), || {
        left.pings("10.10.0.1")
    });
    assert_eq!(client.endpoint(), format!("192.168.8.2:{PORT}"));
    assert!(at_second.latest_handshake() > 0);
}

#[test]
fn u_16_a_list_of_endpoints_goes_on_to_the_one_that_lives_and_back_to_the_first() {
    if skips(PROGRAMS) {
        return;
    }
    let (left, first, second) = (Host::new(), Host::new(), Host::new());
    left.wire("192.168.7.1/24", &first, "192.168.7.2/24");
    let (cable, _) = left.wire("192.168.8.1/24", &second, "192.168.8.2/24");
    let (keys, hub_keys) = (Keys::generate(&left), Keys::generate(&left));
    let mut at_first = hub(&first, &hub_keys, &keys, PORT);
    let at_second = hub(&second, &hub_keys, &keys, PORT);

    let list = format!("#hybridwg: Endpoints = first.test:{PORT}, 192.168.8.2:{PORT}");
    let (client, _) = Client::up(&left, &keys, &hub_keys, &list, "192.168.7.2 first.test\n");
    eventually("the first one answers", SOON, || left.pings("10.10.0.1"));
    assert_eq!(client.endpoint(), format!("192.168.7.2:{PORT}"));
    assert_eq!(at_second.latest_handshake(), 0, "the second is not bothered");

    at_first.daemon().kill();
    eventually("the second one answers", Duration::from_secs(45), || left.pings("10.10.0.1"));
    assert_eq!(client.endpoint(), format!("192.168.8.2:{PORT}"));

    let _at_first = hub(&first, &hub_keys, &keys, PORT);
    // Whatever makes for a new session does: here, another address of ours.
    let last = at_second.latest_handshake();
    eventually("6 seconds", Duration::from_secs(10), || {
        hybridwg::sys::clock::now().wall.secs > last + 6
    });
    left.sh(&format!("ip address delete 192.168.8.1/24 dev {cable}"));
    left.sh(&format!("ip address add 192.168.8.11/24 dev {cable}"));
    eventually("back at the first", Duration::from_secs(10), || {
        client.endpoint() == format!("192.168.7.2:{PORT}")
    });
    assert!(left.pings("10.10.0.1"));
}
