//! `hybridwg new` as a user without rights types it: files and what is said.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use hybridwg::control::config::{self, Config};
use hybridwg::crypto::dh;

fn new(folder: &Path, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hybridwg"))
        .arg("new")
        .args(words.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap()
}

/// What it prints, if it succeeds.
#[track_caller]
fn made(folder: &Path, words: &str) -> String {
    let output = new(folder, words);
    assert!(output.status.success(), "{words}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What it says, if it refuses.
#[track_caller]
fn refused(folder: &Path, words: &str) -> String {
    let output = new(folder, words);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert_eq!(output.stdout, b"", "{words}");
    text(&output.stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read(path: &Path) -> Config {
    let written = config::load(path).unwrap();
    assert!(written.warnings.is_empty(), "{}: {:?}", path.display(), written.warnings);
    written.config
}

const HUB: &str = "hub ./hub.conf --endpoint hub.example --network 10.7.0.0/24,fd07::/64";

#[test]
fn files_are_their_owners_alone_and_none_is_replaced_without_force() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Nobody sees a key who has not asked for it.
    assert_eq!(made(folder, HUB) + &made(folder, "client ./hub.conf laptop"), "");
    for name in ["hub.conf", "laptop.conf"] {
        let mode = fs::metadata(folder.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let all =
        || ["hub.conf", "laptop.conf"].map(|name| fs::read_to_string(folder.join(name)).unwrap());
    let before = all();
    assert!(refused(folder, HUB).contains("hub.conf is there already"));
    let told = refused(folder, "client ./hub.conf other --out ./laptop.conf");
    assert!(told.contains("laptop.conf is there already"), "{told}");
    assert_eq!(all(), before, "the hub does not know a client that was not made");
    made(folder, "client ./hub.conf other --out ./laptop.conf --force");
    made(folder, &format!("{HUB} --force"));
    assert_ne!(all(), before);
    assert_eq!(read(&folder.join("hub.conf")).peers.len(), 0);
}

#[test]
fn each_client_gets_the_next_address_and_the_rest_of_the_hubs_file_stays_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    made(folder, HUB);
    let hub = folder.join("hub.conf");
    let start = fs::read_to_string(&hub).unwrap() + "# The end.\n";
    fs::write(&hub, &start).unwrap();
    for (name, address) in [("a", "10.7.0.2/24"), ("b", "10.7.0.3/24"), ("c", "10.7.0.4/24")] {
        made(folder, &format!("client hub.conf {name}"));
        let client = read(&folder.join(format!("{name}.conf")));
        assert_eq!(client.interface.addresses[0].to_string(), address);
        let peer = read(&hub).peers.pop().unwrap();
        let public_key = client.interface.private_key.as_ref().map(dh::public_key);
        assert_eq!(Some(peer.public_key), public_key);
        assert!(
            peer.preshared_key.is_some() && peer.preshared_key == client.peers[0].preshared_key
        );
    }
    let text = fs::read_to_string(&hub).unwrap();
    let (before, added) = text.split_at(start.len());
    assert_eq!(before, start);
    let starts: Vec<&str> = added.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(starts, ["# a", "# b", "# c"]);
    let told = refused(folder, "client hub.conf b --out ./d.conf");
    assert!(told.contains("there is a peer called b already"), "{told}");
    assert!(!folder.join("d.conf").exists());
}

#[test]
fn of_clients_that_are_made_at_once_each_has_an_address_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    made(folder, HUB);
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || made(folder, &format!("client ./hub.conf c{number}")));
        }
    });
    let peers = read(&folder.join("hub.conf")).peers;
    let mut networks: Vec<String> = peers
        .iter()
        .flat_map(|peer| peer.allowed_ips.iter().flatten())
        .map(|entry| format!("{:?}", entry.value))
        .collect();
    assert_eq!(networks.len(), 16);
    networks.sort();
    networks.dedup();
    assert_eq!(networks.len(), 16);
}

#[test]
fn a_private_key_is_printed_or_drawn_where_that_was_asked_for_and_is_written_nowhere_then() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    made(folder, HUB);
    let printed = made(folder, "client ./hub.conf phone --out -");
    let config = config::parse(&printed, "phone").unwrap().config;
    assert!(config.interface.private_key.is_some());
    let drawn =
        made(folder, "client ./hub.conf tablet --qr --allowed-ips 0.0.0.0/0,::/0 --dns 10.7.0.1");
    let lines: Vec<&str> = drawn.lines().collect();
    let columns = lines[0].chars().count();
    assert!(columns > 50 && lines.iter().all(|line| line.chars().count() == columns), "{drawn}");
    assert!(lines.iter().all(|line| line.chars().all(|c| " ▀▄█".contains(c))), "{drawn}");
    made(folder, "client ./hub.conf both --qr --out ./both.conf");
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["both.conf", "hub.conf"]);
    assert_eq!(read(&folder.join("hub.conf")).peers.len(), 3);
}

#[test]
fn a_hub_that_was_written_by_hand_is_told_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let key = "GBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBg=";
    fs::write(folder.join("hub.key"), key).unwrap();
    let hub = |lines: &str| {
        fs::write(folder.join("hub.conf"), format!("[Interface]\n{lines}\n")).unwrap()
    };
    hub("Address = 10.7.0.1/24");
    let told = refused(folder, "client hub.conf a --endpoint hub.example:1");
    assert!(told.contains("hub.conf: it has no PrivateKey"), "{told}");
    hub("PrivateKeyFile = any-mode:hub.key\nAddress = 10.7.0.1/24");
    let told = refused(folder, "client hub.conf a");
    assert!(told.contains("hint: give --endpoint HOST"), "{told}");
    let told = refused(folder, "client hub.conf a --endpoint hub.example");
    assert!(told.contains("the endpoint hub.example needs a port"), "{told}");
    let told = refused(folder, "client hub.conf a/b");
    assert!(told.contains("cannot be the name of a client"), "{told}");
    assert!(!folder.join("a.conf").exists());
    made(folder, "client hub.conf a --endpoint hub.example:7");
    let client = read(&folder.join("a.conf"));
    assert_eq!(
        client.peers[0].public_key,
        dh::public_key(
            &config::parse(&format!("[Interface]\nPrivateKey = {key}"), "")
                .unwrap()
                .config
                .interface
                .private_key
                .unwrap()
        )
    );
    hub("Address = 10.7.0.1/24\nNonsense");
    assert!(refused(folder, "client hub.conf b").contains("hub.conf:3: "));
}
