//! A file before and after a tunnel has changed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;
use crate::control::config::file::replace;
use crate::control::config::parse::parse_known;

const KEY: &str = "GBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBg=";
const OTHER_KEY: &str = "KCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCg=";
const ALICE: &str = "oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=";
const BOB: &str = "sbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbE=";

fn file() -> String {
    format!(
        "# The hub.\n\
         [Interface]\n\
         Address = 10.0.0.1/24, fd00::1/64 # inside\n\
         \tprivatekey={KEY}   # made by hand\n\
         ListenPort = 51820\n\
         MTU = 1400\n\
         DNS = 1.1.1.1, lan\n\
         Colour = red\n\
         PostUp = echo '#x'\n\
         \n\
         # Alice, of Lima\n\
         [Peer]\n\
         PublicKey = {ALICE}\n\
         AllowedIPs = 10.0.0.2/32, 10.0.1.9/24 # her networks\n\
         AllowedIPs = fd00::2\n\
         Endpoint = alice.example.com:51820\n\
         #hybridwg: PresharedKeyFile = a.key\n\
         \n\
         # Bob\n\
         [Peer]\n\
         PublicKey = {BOB}\n\
         PresharedKey = {KEY}\n\
         Endpoint = 192.0.2.1:1\n\
         PersistentKeepalive = 25\n\
         # That was Bob."
    )
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What [`file`] says.
fn state() -> State {
    let peer = |key| PeerSnapshot::new(PublicKey::from_base64(key).unwrap());
    State {
        device: DeviceSnapshot {
            private_key: Some(PrivateKey::from_base64(KEY).unwrap()),
            listen_port: 51820,
            fwmark: 0,
            peers: vec![
                PeerSnapshot {
                    preshared_key: PresharedKey::from_bytes([9; 32]),
                    endpoint: Some("198.51.100.7:51820".parse().unwrap()),
                    allowed_ips: nets(&["fd00::2/128", "10.0.0.2/32", "10.0.1.0/24"]),
                    ..peer(ALICE)
                },
                PeerSnapshot {
                    preshared_key: PresharedKey::from_base64(KEY).unwrap(),
                    endpoint: Some("192.0.2.1:1".parse().unwrap()),
                    persistent_keepalive: 25,
                    ..peer(BOB)
                },
            ],
        },
        port_is_random: false,
        addresses: nets(&["10.0.0.1/24", "fd00::1/64", "fe80::1234/64"]),
        ipv6_is_off: false,
        mtu: 1400,
    }
}

fn updated(text: &str, state: &State) -> String {
    update(text, &parse_known(text, "t.conf").unwrap(), state).to_string()
}

/// The lines that `change` takes from [`file`], with `-`, and those that it adds, with `+`.
fn difference(change: impl FnOnce(&mut State)) -> Vec<String> {
    let mut state = state();
    change(&mut state);
    let (before, after) = (file(), updated(&file(), &state));
    assert_eq!(updated(&after, &state), after, "the second time nothing differs");
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (lines(&before), lines(&after));
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("-{line}"));
    let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+{line}"));
    let kept: Vec<_> = before.iter().filter(|line| after.contains(line)).collect();
    let still: Vec<_> = after.iter().filter(|line| before.contains(line)).collect();
    assert!(kept.iter().filter(|line| !line.is_empty()).eq(still.iter().filter(|l| !l.is_empty())));
    gone.chain(new).collect()
}

#[test]
fn wq_30_a_file_that_says_it_all_stays_as_it_is_to_the_byte() {
    assert_eq!(updated(&file(), &state()), file());
    let crlf = file().replace('\n', "\r\n");
    assert_eq!(updated(&crlf, &state()), crlf);
}

#[test]
fn wq_30_values_of_the_interface_are_changed_where_they_stand() {
    assert_eq!(
        difference(|state| {
            state.device.private_key = Some(PrivateKey::from_base64(OTHER_KEY).unwrap());
        }),
        [
            format!("-\tprivatekey={KEY}   # made by hand"),
            format!("+\tprivatekey={OTHER_KEY}   # made by hand"),
        ]
    );
    assert_eq!(
        difference(|state| (state.mtu, state.device.listen_port) = (1380, 7)),
        ["-ListenPort = 51820", "-MTU = 1400", "+ListenPort = 7", "+MTU = 1380"]
    );
    assert_eq!(difference(|state| state.device.fwmark = 0x12), ["+FwMark = 0x12"]);
    assert_eq!(
        difference(|state| state.device.private_key = None),
        [format!("-\tprivatekey={KEY}   # made by hand")]
    );
}

#[test]
fn wq_30_addresses_that_came_and_went_are_changed_and_the_others_keep_their_place() {
    assert_eq!(
        difference(|state| state.addresses = nets(&["10.0.0.1/24", "10.9.0.1/16"])),
        [
            "-Address = 10.0.0.1/24, fd00::1/64 # inside",
            "+Address = 10.0.0.1/24, 10.9.0.1/16 # inside",
        ]
    );
    assert_eq!(
        difference(|state| state.addresses.clear()),
        ["-Address = 10.0.0.1/24, fd00::1/64 # inside"]
    );
    assert_eq!(
        difference(|state| {
            state.addresses = nets(&["10.0.0.1/24"]);
            state.ipv6_is_off = true;
        }),
        [""; 0],
        "a host that takes no IPv6 has not lost an address"
    );
}

#[test]
fn wq_30_host_names_stay_and_addresses_follow_the_peer() {
    let to = |peer: usize, endpoint: &'static str| {
        move |state: &mut State| state.device.peers[peer].endpoint = endpoint.parse().ok()
    };
    assert_eq!(difference(to(0, "203.0.113.1:9")), [""; 0]);
    assert_eq!(
        difference(to(1, "[2001:db8::1]:2")),
        ["-Endpoint = 192.0.2.1:1", "+Endpoint = [2001:db8::1]:2"]
    );
}

#[test]
fn wq_30_what_a_peer_got_or_lost_is_changed_in_its_own_section() {
    assert_eq!(
        difference(|state| {
            state.device.peers[0].allowed_ips = nets(&["10.0.1.0/24", "10.7.0.0/16"]);
            state.device.peers[0].persistent_keepalive = 5;
        }),
        [
            "-AllowedIPs = 10.0.0.2/32, 10.0.1.9/24 # her networks",
            "-AllowedIPs = fd00::2",
            "+AllowedIPs = 10.0.1.9/24 # her networks",
            "+AllowedIPs = 10.7.0.0/16",
            "+PersistentKeepalive = 5",
        ]
    );
    assert_eq!(
        difference(|state| {
            state.device.peers[1].preshared_key = PresharedKey::NONE;
            state.device.peers[1].persistent_keepalive = 0;
            state.device.peers[1].allowed_ips = nets(&["10.8.0.0/16"]);
        }),
        [
            format!("-PresharedKey = {KEY}"),
            "-PersistentKeepalive = 25".to_owned(),
            "+AllowedIPs = 10.8.0.0/16".to_owned(),
        ]
    );
    let text = updated(&file(), &{
        let mut state = state();
        state.device.peers[1].allowed_ips = nets(&["10.8.0.0/16"]);
        state
    });
    assert!(text.contains("PersistentKeepalive = 25\nAllowedIPs = 10.8.0.0/16\n# That was Bob."));
}

#[test]
fn wq_30_a_peer_that_went_takes_the_comment_above_it_along_and_a_new_one_comes_last() {
    let mut state = state();
    let alice = state.device.peers.remove(0);
    let without = updated(&file(), &state);
    let (before, after) = (file().find("# Alice").unwrap(), file().find("# Bob").unwrap());
    assert_eq!(without, [&file()[..before], &file()[after..]].concat());
    state.device.peers.push(PeerSnapshot { preshared_key: PresharedKey::NONE, ..alice });
    assert_eq!(
        updated(&without, &state),
        format!(
            "{without}\n\n[Peer]\nPublicKey = {ALICE}\n\
             AllowedIPs = fd00::2/128, 10.0.0.2/32, 10.0.1.0/24\nEndpoint = 198.51.100.7:51820\n"
        )
    );
}

#[test]
fn wq_30_a_secret_that_is_kept_elsewhere_is_not_written_into_the_file() {
    let mut state = state();
    state.device.peers.clear();
    state.addresses.clear();
    for text in [
        "[Interface]\nListenPort = 51820\nPostUp = wg set %i private-key /k\n",
        "[Interface]\nListenPort = 51820\n#hybridwg: PrivateKeyFile = /k\n",
    ] {
        assert_eq!(updated(text, &state), text);
    }
    assert_eq!(
        updated("[Interface]\nListenPort = 51820\n", &state),
        format!("[Interface]\nListenPort = 51820\nPrivateKey = {KEY}\n"),
        "set by hand: it would be lost"
    );
}

#[test]
fn wq_30_what_nobody_has_asked_for_is_not_saved() {
    let mut state = state();
    state.device.peers.truncate(1);
    state.device.peers[0].allowed_ips = nets(&["0.0.0.0/0"]);
    state.addresses.clear();
    (state.port_is_random, state.device.fwmark) = (true, 0x1002);
    let text = |interface: &str| {
        format!(
            "[Interface]\nPrivateKey = {KEY}\n{interface}[Peer]\nPublicKey = {ALICE}\n\
             AllowedIPs = 0.0.0.0/0\nPresharedKey = {psk}\nEndpoint = a:1\n",
            psk = PresharedKey::from_bytes([9; 32]).to_base64()
        )
    };
    for interface in ["", "ListenPort = 0\nTable = auto\n"] {
        let text = text(interface);
        assert_eq!(updated(&text, &state), text, "a random port, the mark of policy routing");
    }
    let saved = updated(&text("Table = off\n"), &state);
    assert!(saved.contains("Table = off\nFwMark = 0x1002\n[Peer]"), "{saved}");
    state.port_is_random = false;
    assert!(updated(&text(""), &state).contains("ListenPort = 51820\n"));
}

#[test]
fn wq_30_of_several_sections_of_a_peer_the_last_has_the_last_word() {
    let mut state = state();
    state.device.peers.truncate(1);
    state.device.peers[0].allowed_ips = nets(&["10.0.0.2/32", "10.0.0.3/32"]);
    let peer = |networks: &str| {
        format!(
            "[Peer]\nPublicKey = {ALICE}\nAllowedIPs = {networks}\n#hybridwg: PresharedKeyFile = a\n\
                 Endpoint = a:1\n"
        )
    };
    let interface = format!("[Interface]\nPrivateKey = {KEY}\nListenPort = 51820\n");
    state.addresses.clear();
    let saved = updated(&[&*interface, &peer("10.0.0.2"), &peer("10.0.0.3")].concat(), &state);
    let expected = [&*interface, &peer("10.0.0.2"), &peer("10.0.0.3, 10.0.0.2/32")].concat();
    assert_eq!(saved, expected.replacen("AllowedIPs = 10.0.0.2\n", "", 1));
}

#[test]
fn wq_30_an_own_key_among_the_peers_and_a_file_without_interface_are_no_trouble() {
    let own = dh::public_key(&PrivateKey::from_base64(KEY).unwrap()).to_base64();
    let mut state = state();
    state.device.peers.clear();
    state.addresses = nets(&["10.0.0.1/24"]);
    assert_eq!(
        updated(&format!("[Peer]\nPublicKey = {own}"), &state),
        format!(
            "[Peer]\nPublicKey = {own}\n\n[Interface]\nPrivateKey = {KEY}\n\
             ListenPort = 51820\nAddress = 10.0.0.1/24\n"
        )
    );
}

#[test]
fn a_file_is_replaced_behind_its_link_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real.conf"), folder.path().join("wg0.conf"));
    fs::write(&real, "old").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
    symlink(&real, &link).unwrap();
    // As left by one that was killed; nothing is written into what others may have prepared.
    symlink("/dev/null", folder.path().join("real.conf.tmp")).unwrap();
    let before = fs::metadata(&real).unwrap();
    replace(&link, "new").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&real).unwrap(), "new");
    let after = fs::metadata(&real).unwrap();
    assert_eq!((after.mode() & 0o777, after.uid()), (0o600, before.uid()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

proptest! {
    /// Whatever of a device is changed, a file that was brought up to date says just that.
    #[test]
    fn an_updated_file_says_what_the_device_does(
        port in 1_u16.., mark: u32, mtu in 68_u32..65536, key: [u8; 32],
        addresses in prop::collection::btree_set(any::<[u8; 4]>(), 0..4),
        peers in prop::collection::btree_map(0_u8..8, (any::<bool>(), any::<u16>(), 0_u32..40), 0..6),
    ) {
        let key_of = |number| match number {
            0 => PublicKey::from_base64(ALICE).unwrap(),
            1 => PublicKey::from_base64(BOB).unwrap(),
            number => PublicKey::from_bytes([number; 32]),
        };
        let peers = peers.into_iter().map(|(number, (has_key, seconds, networks))| PeerSnapshot {
            // Alice's is kept elsewhere.
            preshared_key: match has_key && number != 0 {
                true => PresharedKey::from_bytes([number + 1; 32]),
                false => PresharedKey::NONE,
            },
            persistent_keepalive: seconds,
            allowed_ips: (0..networks % 4)
                .map(|bit| IpNet::from(std::net::IpAddr::from([10, number, 0, 1 + bit as u8])))
                .collect(),
            endpoint: (number == 1).then(|| ([192, 0, 2, 9], seconds).into()),
            ..PeerSnapshot::new(key_of(number))
        });
        let state = State {
            device: DeviceSnapshot {
                private_key: Some(PrivateKey::from_bytes(key)).filter(|key| !key.is_zero()),
                listen_port: port,
                fwmark: mark,
                peers: peers.collect(),
            },
            addresses: addresses.into_iter().map(|it| IpNet::from(std::net::IpAddr::from(it))).collect(),
            mtu,
            ..state()
        };
        let text = updated(&file(), &state);
        let config = parse_known(&text, "t.conf").unwrap();
        let interface = &config.interface;
        prop_assert!(interface.private_key == state.device.private_key);
        prop_assert_eq!(interface.listen_port, Some(port));
        prop_assert_eq!(interface.fwmark.unwrap_or(0), mark);
        prop_assert_eq!(interface.mtu.map(u32::from), Some(mtu));
        prop_assert!(!is_other(&interface.addresses, &state.addresses));
        prop_assert!(text.contains("# The hub.\n") && text.contains("\nColour = red\nPostUp = echo '#x'\n"));
        let mut said: Vec<_> = config.peers.iter().map(|peer| {
            let networks = peer.allowed_ips.iter().flatten().map(|entry| format!("{:?}", entry.value));
            let psk = peer.preshared_key.clone().unwrap_or(PresharedKey::NONE).to_base64();
            (peer.public_key, psk, peer.persistent_keepalive.unwrap_or(0), networks.collect::<BTreeSet<_>>())
        }).collect();
        let mut runs: Vec<_> = state.device.peers.iter().map(|peer| {
            let networks = peer.allowed_ips.iter().map(|net| format!("{:?}", AllowedIpChange::Add(*net)));
            (peer.public_key, peer.preshared_key.to_base64(), peer.persistent_keepalive, networks.collect::<BTreeSet<_>>())
        }).collect();
        said.sort();
        runs.sort();
        prop_assert_eq!(said, runs);
        prop_assert_eq!(&updated(&text, &state), &text);
    }
}
