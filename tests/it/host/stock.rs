//! Debian's `wg` with real files: what it writes into our daemon is what it reads out of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::net::{Host, eventually, pause};
use super::skips;
use super::tunnel::Program::Hybridwg;
use super::tunnel::{End, Keys, LEFT, RIGHT, peer};

const PROGRAMS: &[&str] = &["ip", "ping", "wg"];

/// A folder of configuration files.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// `wg VERB INTERFACE FILE`.
fn wg(end: &End<'_>, verb: &str, file: &Path) {
    end.host.sh(&format!("wg {verb} {} {}", end.interface, file.display()));
}

fn showconf(end: &End<'_>) -> String {
    end.host.sh(&format!("wg showconf {}", end.interface))
}

/// The public keys of an interface's peers.
fn peers(end: &End<'_>) -> Vec<String> {
    let mut keys: Vec<String> =
        end.host.sh(&format!("wg show {} peers", end.interface)).lines().map(Into::into).collect();
    keys.sort();
    keys
}

fn sorted(keys: &[&Keys]) -> Vec<String> {
    let mut keys: Vec<String> = keys.iter().map(|keys| keys.public.clone()).collect();
    keys.sort();
    keys
}

/// WG-08.
#[test]
fn what_wg_setconf_wrote_from_a_file_wg_showconf_writes_into_one_that_says_the_same() {
    if skips(PROGRAMS) {
        return;
    }
    let (host, files) = (Host::new(), Files::new());
    let [first, second] = [End::start(&host, Hybridwg), End::start(&host, Hybridwg)];
    let [near, far] = [Keys::generate(&host), Keys::generate(&host)];
    let psk = host.sh("wg genpsk");
    let full = files.write(
        "full.conf",
        &format!(
            "[Interface]\nListenPort = 0\nFwMark = 0xca6c\nPrivateKey = {}\n\n\
             [Peer]\nPublicKey = {}\nPresharedKey = {}\nAllowedIPs = 10.1.0.0/16, fd01::/64\n\
             Endpoint = 192.0.2.7:51820\nPersistentKeepalive = 25\n\n\
             [Peer] # the far one\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0, ::/0, 10.1.2.3/32\n\
             Endpoint = [2001:db8::7]:1\n",
            first.keys.private,
            near.public,
            psk.trim(),
            far.public
        ),
    );
    wg(&first, "setconf", &full);
    let shown = showconf(&first);
    for part in [
        format!("PrivateKey = {}\n", first.keys.private),
        format!("ListenPort = {}\n", first.port()),
        "FwMark = 0xca6c\n".to_owned(),
        format!("PublicKey = {}\nPresharedKey = {psk}", near.public),
        "AllowedIPs = 10.1.0.0/16, fd01::/64\nEndpoint = 192.0.2.7:51820\n".to_owned(),
        "PersistentKeepalive = 25\n".to_owned(),
        "Endpoint = [2001:db8::7]:1\n".to_owned(),
    ] {
        assert!(shown.contains(&part), "no {part} in:\n{shown}");
    }
    // A second interface cannot have the same port; everything else it takes over.
    let lines = shown.split_inclusive('\n').filter(|line| !line.starts_with("ListenPort"));
    let copy = lines.collect::<String>();
    wg(&second, "setconf", &files.write("copy.conf", &copy));
    let again = showconf(&second).replace(&format!("ListenPort = {}\n", second.port()), "");
    assert_eq!(again, copy);
    assert_ne!(second.port(), 0);
}

/// wg(8): `addconf` adds, `syncconf` makes it so without disturbing who stays, `setconf` replaces.
#[test]
fn wg_addconf_adds_wg_syncconf_changes_what_differs_and_wg_setconf_replaces() {
    if skips(PROGRAMS) {
        return;
    }
    let (client, hub, files) = (Host::new(), Host::new(), Files::new());
    client.wire("192.168.7.1/24", &hub, "192.168.7.2/24");
    let (left, right) = (End::start(&client, Hybridwg), End::start(&hub, Hybridwg));
    let [first, second] = [Keys::generate(&hub), Keys::generate(&hub)];
    let interface = format!("[Interface]\nPrivateKey = {}\nListenPort = ", right.keys.private);
    let section = |keys: &Keys, network: &str| {
        format!("\n[Peer]\nPublicKey = {}\nAllowedIPs = {network}\n", keys.public)
    };
    let client_section = format!("\n{}", peer(&left.keys, 1, ""));
    let alone = files.write("alone.conf", &format!("{interface}0\n{client_section}"));
    wg(&right, "setconf", &alone);
    let port = right.port();
    left.setconf(&peer(&right.keys, 2, &format!("Endpoint = 192.168.7.2:{port}")));
    left.up(LEFT);
    right.up(RIGHT);
    eventually("a first answer", Duration::from_secs(10), || client.pings("10.10.0.2"));
    assert_eq!(peers(&right), sorted(&[&left.keys]));
    let handshakes = || {
        let all = hub.sh(&format!("wg show {} latest-handshakes", right.interface));
        let line = all.lines().find(|line| line.starts_with(&left.keys.public));
        (left.latest_handshake(), line.map(str::to_owned))
    };
    let session = handshakes();
    // A second later a new handshake would show.
    pause(Duration::from_millis(1100));

    let more = files.write("more.conf", &section(&first, "10.1.0.0/16"));
    wg(&right, "addconf", &more);
    assert_eq!(peers(&right), sorted(&[&left.keys, &first]));
    assert_eq!(right.port(), port, "an [Interface] that is not there changes nothing");

    let other = files.write(
        "other.conf",
        &format!("{interface}{port}\n{client_section}{}", section(&second, "10.1.0.0/16")),
    );
    wg(&right, "syncconf", &other);
    assert_eq!(peers(&right), sorted(&[&left.keys, &second]));
    assert!(showconf(&right).contains(&format!("{}\nAllowedIPs = 10.1.0.0/16", second.public)));
    assert!(client.pings("10.10.0.2") && hub.pings("10.10.0.1"));
    assert_eq!(handshakes(), session, "the session of the peer that stayed goes on");

    wg(&right, "setconf", &files.write("last.conf", &section(&first, "10.1.0.0/16")));
    assert_eq!(peers(&right), sorted(&[&first]));
    assert!(!client.pings("10.10.0.2"), "whoever is no peer any more gets no answer");
}
