//! The texts of `show` on made-up devices. `tests/it` compares them with those of `wg` itself.

use super::{Shown, Style, json, pretty, table};
use crate::cli::args::Parameter;
use crate::control::command::{DeviceSnapshot, PeerSnapshot};
use crate::control::settings::{FlowCount, Offloads, Status};
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use crate::proto::drop_reason::DropReason;
use crate::time::Wall;

const NOW: Wall = Wall { secs: 2_000_000_000, nanos: 0 };
const PRIVATE: &str = "GBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBg=";
const PUBLIC: &str = "csrwV1GHNBMFsDUHRDlYYq6+l4s7LNeWNXUlGg7k5GY=";
const PSK: &str = "ERERERERERERERERERERERERERERERERERERERERERE=";
const OLD: &str = "oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=";
const NEW: &str = "sbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbE=";

fn peer(key: &str) -> PeerSnapshot {
    PeerSnapshot::new(PublicKey::from_base64(key).unwrap())
}

/// One device with a peer that has nothing and a peer that has everything.
fn full() -> Shown {
    let busy = PeerSnapshot {
        preshared_key: PresharedKey::from_base64(PSK).unwrap(),
        endpoint: Some("[fe80::1%1]:5".parse().unwrap()),
        last_handshake: Some(Wall { secs: NOW.secs - 65, nanos: 0 }),
        rx_bytes: 1_023,
        tx_bytes: 1_536,
        persistent_keepalive: 25,
        allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/64".parse().unwrap()],
        ..peer(NEW)
    };
    let device = DeviceSnapshot {
        private_key: Some(PrivateKey::from_base64(PRIVATE).unwrap()),
        listen_port: 51820,
        fwmark: 0xca6c,
        peers: vec![peer(OLD), busy],
    };
    Shown { interface: "wg0".to_owned(), device, status: None }
}

fn bare() -> Shown {
    let device = DeviceSnapshot { peers: vec![peer(OLD)], ..DeviceSnapshot::default() };
    Shown { interface: "wg1".to_owned(), device, status: None }
}

fn plain(shown: &[Shown]) -> String {
    pretty::render(shown, Style::default(), NOW).to_string()
}

/// The value that one peer's line has.
fn line_of(label: &str, peer: PeerSnapshot) -> Option<String> {
    let device = DeviceSnapshot { peers: vec![peer], ..DeviceSnapshot::default() };
    let text = plain(&[Shown { interface: "wg0".to_owned(), device, status: None }]);
    text.lines().find_map(|line| Some(line.strip_prefix(&format!("  {label}: "))?.to_owned()))
}

#[test]
fn wg_03_people_see_the_newest_peer_first_and_no_secrets() {
    assert_eq!(
        plain(&[full(), bare()]),
        format!(
            "interface: wg0\n  public key: {PUBLIC}\n  private key: (hidden)\n  \
             listening port: 51820\n  fwmark: 0xca6c\n\n\
             peer: {NEW}\n  preshared key: (hidden)\n  endpoint: [fe80::1%lo]:5\n  \
             allowed ips: 10.0.0.0/8, fd00::/64\n  latest handshake: 1 minute, 5 seconds ago\n  \
             transfer: 1023 B received, 1.50 KiB sent\n  persistent keepalive: every 25 seconds\n\n\
             peer: {OLD}\n  allowed ips: (none)\n\n\
             interface: wg1\n\n\
             peer: {OLD}\n  allowed ips: (none)\n"
        )
    );
}

#[test]
fn a_device_of_our_own_tells_its_offloads() {
    let mut shown = bare();
    for (offloads, text, names) in [
        (
            Offloads::ALL,
            "tso, uso, gso, gro, aead-batch, moderation",
            r#"["tso","uso","gso","gro","aead-batch","moderation"]"#,
        ),
        (Offloads::NONE, "(none)", "[]"),
    ] {
        let flows = (offloads == Offloads::ALL).then_some(FlowCount {
            now: 3,
            connections: 2,
            is_full: true,
        });
        shown.status = Some(Status {
            offloads,
            port_is_random: false,
            flows,
            is_masquerading: flows.is_some(),
            is_rootless: false,
            paths: vec![],
            drops: vec![(DropReason::NoPeer, 3)],
        });
        let told = plain(std::slice::from_ref(&shown));
        let head = format!("interface: wg1\n  offloads: {text}\n");
        assert!(told.starts_with(&head), "{told}");
        let lines = "  masquerade: flow by flow\n  flows: 3 (no more may begin)\n";
        assert_eq!(told.contains(lines), flows.is_some(), "{told}");
        let json = json::render(std::slice::from_ref(&shown), Style::default()).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["interfaces"][0]["offloads"].to_string(), names);
        assert_eq!(json["interfaces"][0]["drops"], serde_json::json!({ "no_peer": 3 }));
        assert_eq!(json["interfaces"][0]["flows"].as_u64(), flows.map(|_| 3));
        assert_eq!(json["interfaces"][0]["flows_full"].as_bool(), flows.map(|_| true));
    }
}

#[test]
fn wg_03_keys_are_shown_on_request_and_nothing_else_changes() {
    let style = Style { keys_shown: true, ..Style::default() };
    let shown = pretty::render(&[full()], style, NOW);
    let expected = plain(&[full()])
        .replace("private key: (hidden)", &format!("private key: {PRIVATE}"))
        .replace("preshared key: (hidden)", &format!("preshared key: {PSK}"));
    assert_eq!(*shown, expected);
}

#[test]
fn wg_03_colours_are_all_that_a_terminal_gets_more() {
    let style = Style { coloured: true, ..Style::default() };
    let coloured = pretty::render(&[full()], style, NOW).to_string();
    assert!(coloured.starts_with("\u{1b}[0m\u{1b}[32m\u{1b}[1minterface\u{1b}[0m: \u{1b}[32mwg0"));
    assert!(coloured.contains("\u{1b}[1mfwmark\u{1b}[0m: 0xca6c\n"));
    let mut stripped = coloured;
    for code in ["0", "1", "31", "32", "33", "36"] {
        stripped = stripped.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(stripped, plain(&[full()]));
}

#[test]
fn wg_04_the_time_since_a_handshake_is_told_in_words() {
    const DAY: u64 = 86_400;
    for (seconds, text) in [
        (0, "Now"),
        (1, "1 second ago"),
        (60, "1 minute ago"),
        (2 * 3_600 + 2, "2 hours, 2 seconds ago"),
        (365 * DAY - 1, "364 days, 23 hours, 59 minutes, 59 seconds ago"),
        (2 * 365 * DAY + DAY, "2 years, 1 day ago"),
    ] {
        let last_handshake = Some(Wall { secs: NOW.secs - seconds, nanos: 999_999_999 });
        let told = line_of("latest handshake", PeerSnapshot { last_handshake, ..peer(OLD) });
        assert_eq!(told.as_deref(), Some(text));
    }
    let last_handshake = Some(Wall { secs: NOW.secs + 1, nanos: 0 });
    assert_eq!(
        line_of("latest handshake", PeerSnapshot { last_handshake, ..peer(OLD) }).as_deref(),
        Some("(System clock wound backward; connection problems may ensue.)")
    );
    assert_eq!(line_of("latest handshake", peer(OLD)), None);
}

#[test]
fn wg_04_bytes_are_told_in_binary_units() {
    for (bytes, text) in [
        (1, "1 B"),
        (1_023, "1023 B"),
        (1_024, "1.00 KiB"),
        (1_048_575, "1024.00 KiB"),
        (1_048_576, "1.00 MiB"),
        (5_368_709_120, "5.00 GiB"),
        (1_099_511_627_776, "1.00 TiB"),
        (u64::MAX, "16777216.00 TiB"),
    ] {
        let told = line_of("transfer", PeerSnapshot { rx_bytes: bytes, ..peer(OLD) });
        assert_eq!(told, Some(format!("{text} received, 0 B sent")));
    }
    assert_eq!(line_of("transfer", peer(OLD)), None);
}

#[test]
fn wg_05_the_dump_has_every_column_and_words_for_what_is_absent() {
    let handshake = NOW.secs - 65;
    let expected = format!(
        "{PRIVATE}\t{PUBLIC}\t51820\t0xca6c\n\
         {OLD}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n\
         {NEW}\t{PSK}\t[fe80::1%lo]:5\t10.0.0.0/8,fd00::/64\t{handshake}\t1023\t1536\t25\n"
    );
    assert_eq!(*table::render(&[full()], Parameter::Dump, false), expected);
    assert_eq!(
        *table::render(&[bare()], Parameter::Dump, true),
        format!("wg1\t(none)\t(none)\t0\toff\nwg1\t{OLD}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n")
    );
}

#[test]
fn wg_06_each_parameter_is_a_line_of_its_own_per_peer() {
    let handshake = NOW.secs - 65;
    for (parameter, expected) in [
        (Parameter::PublicKey, format!("{PUBLIC}\n")),
        (Parameter::PrivateKey, format!("{PRIVATE}\n")),
        (Parameter::ListenPort, "51820\n".to_owned()),
        (Parameter::Fwmark, "0xca6c\n".to_owned()),
        (Parameter::Peers, format!("{OLD}\n{NEW}\n")),
        (Parameter::PresharedKeys, format!("{OLD}\t(none)\n{NEW}\t{PSK}\n")),
        (Parameter::Endpoints, format!("{OLD}\t(none)\n{NEW}\t[fe80::1%lo]:5\n")),
        (Parameter::AllowedIps, format!("{OLD}\t(none)\n{NEW}\t10.0.0.0/8 fd00::/64\n")),
        (Parameter::LatestHandshakes, format!("{OLD}\t0\n{NEW}\t{handshake}\n")),
        (Parameter::Transfer, format!("{OLD}\t0\t0\n{NEW}\t1023\t1536\n")),
        (Parameter::PersistentKeepalive, format!("{OLD}\toff\n{NEW}\t25\n")),
    ] {
        assert_eq!(*table::render(&[full()], parameter, false), expected, "{parameter:?}");
        let named: String = expected.lines().map(|line| format!("wg0\t{line}\n")).collect();
        if parameter != Parameter::Endpoints {
            assert_eq!(*table::render(&[full()], parameter, true), named, "{parameter:?}");
        }
    }
}

#[test]
fn wg_06_endpoints_of_all_name_the_interface_once_as_wg_does() {
    assert_eq!(
        *table::render(&[full(), bare()], Parameter::Endpoints, true),
        format!("wg0\t{OLD}\t(none)\n{NEW}\t[fe80::1%lo]:5\nwg1\t{OLD}\t(none)\n")
    );
}

#[test]
fn wg_15_json_has_every_value_and_hides_keys_unless_asked() {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let hidden = parse(&json::render(&[full(), bare()], Style::default()).unwrap());
    let peers = serde_json::json!([
        {
            "public_key": OLD, "preshared_key": null, "endpoint": null, "allowed_ips": [],
            "latest_handshake": null, "rx_bytes": 0, "tx_bytes": 0, "persistent_keepalive": null,
            "path_mtu": null, "path_mtu_source": null
        },
        {
            "public_key": NEW, "preshared_key": "(hidden)", "endpoint": "[fe80::1%lo]:5",
            "allowed_ips": ["10.0.0.0/8", "fd00::/64"], "latest_handshake": NOW.secs - 65,
            "rx_bytes": 1023, "tx_bytes": 1536, "persistent_keepalive": 25,
            "path_mtu": null, "path_mtu_source": null
        }
    ]);
    let expected = serde_json::json!({ "interfaces": [
        {
            "name": "wg0", "public_key": PUBLIC, "private_key": "(hidden)",
            "listen_port": 51820, "fwmark": 0xca6c, "flows": null, "flows_full": null, "offloads": null, "drops": null, "peers": peers
        },
        {
            "name": "wg1", "public_key": null, "private_key": null,
            "listen_port": null, "fwmark": null, "flows": null, "flows_full": null, "offloads": null, "drops": null, "peers": [peers[0]]
        }
    ] });
    assert_eq!(hidden, expected);
    let style = Style { keys_shown: true, ..Style::default() };
    let shown = parse(&json::render(&[full()], style).unwrap());
    assert_eq!(shown["interfaces"][0]["private_key"], PRIVATE);
    assert_eq!(shown["interfaces"][0]["peers"][1]["preshared_key"], PSK);
    let empty = parse(&json::render(&[], style).unwrap());
    assert_eq!(empty, serde_json::json!({ "interfaces": [] }));
}
