//! Files of wg(8) and wg-quick(8), good and bad.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::control::command::AllowedIpChange;
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};

const KEY: &str = "GBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBg=";
const PEER: &str = "oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=";
const OTHER: &str = "sbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbE=";

fn good(text: &str) -> Config {
    parse(text, "t.conf").unwrap_or_else(|errors| panic!("{text:?}: {errors:?}")).config
}

fn interface(lines: &str) -> Interface {
    good(&format!("[Interface]\n{lines}\n")).interface
}

fn peer(lines: &str) -> Peer {
    good(&format!("[Peer]\nPublicKey = {PEER}\n{lines}\n")).peers.remove(0)
}

/// The faults as the user reads them.
fn faults(text: &str) -> Vec<String> {
    let errors = parse(text, "t.conf").err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

fn interface_fault(line: &str) -> String {
    let mut faults = faults(&format!("[Interface]\n{line}\n"));
    assert_eq!(faults.len(), 1, "{line:?}: {faults:?}");
    faults.remove(0)
}

fn peer_fault(line: &str) -> String {
    let mut faults = faults(&format!("[Peer]\nPublicKey = {PEER}\n{line}\n"));
    assert_eq!(faults.len(), 1, "{line:?}: {faults:?}");
    faults.remove(0)
}

/// The warnings about a file that has a private key after `text`.
fn warnings(text: &str) -> Vec<String> {
    let written = parse(&format!("{text}\n[Interface]\nPrivateKey = {KEY}\n"), "t.conf").unwrap();
    written.warnings.iter().map(ToString::to_string).collect()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn adds(texts: &[&str]) -> Vec<AllowedIpChange> {
    nets(texts).into_iter().map(AllowedIpChange::Add).collect()
}

fn allowed_ips(peer: &Peer) -> Vec<AllowedIpChange> {
    peer.allowed_ips.iter().flatten().map(|entry| entry.value).collect()
}

#[test]
fn wq_06_keys_are_of_any_case_and_white_space_and_comments_are_no_part_of_values() {
    let config = good(&format!(
        "# before all\n \t[iNTERFACE] # here\n\tlistenport=7#comment\r\n  MTU   =  1420  # x\n\
         pRIVATEkEY = {KEY}\n#MTU = 9000\n\n[PEER]\nPUBLICKEY={PEER}\nendpoint = 192.0.2.1:1"
    ));
    assert_eq!(config.interface.listen_port, Some(7));
    assert_eq!(config.interface.mtu, Some(1420));
    assert!(config.interface.private_key == Some(PrivateKey::from_base64(KEY).unwrap()));
    assert_eq!(config.peers[0].endpoint, Some(Endpoint::Address(([192, 0, 2, 1], 1).into())));
}

#[test]
fn wq_07_interface_sections_add_up() {
    let config = good(&format!(
        "[Interface]\nAddress = 10.0.0.1/24\nMTU = 1300\n[Peer]\nPublicKey = {PEER}\n[Interface]\n\
         Address = fd00::1/64\nMTU = 1400\n[Peer]\nPublicKey = {OTHER}\n"
    ));
    assert_eq!(config.interface.addresses, nets(&["10.0.0.1/24", "fd00::1/64"]));
    assert_eq!(config.interface.mtu, Some(1400));
    let keys: Vec<String> = config.peers.iter().map(|peer| peer.public_key.to_base64()).collect();
    assert_eq!(keys, [PEER, OTHER]);
}

#[test]
fn wq_08_an_unknown_key_is_refused_and_the_likely_one_named() {
    for (line, meant) in [
        ("Adress = 10.0.0.1", "Address"),
        ("ListenPorts = 7", "ListenPort"),
        ("PostUpp = true", "PostUp"),
        ("AllowedIP = ::/0", "AllowedIPs"),
        ("privatkey = x", "PrivateKey"),
        ("Allowed_IPs = ::/0", "AllowedIPs"),
        ("Endpont = a:1", "Endpoint"),
        ("KeepAlive = 5", ""),
    ] {
        let key = line.split(' ').next().unwrap();
        let question = if meant.is_empty() {
            ", [Interface] takes PrivateKey, ListenPort, FwMark, Address, DNS, MTU, Table, \
             SaveConfig, PreUp, PostUp, PreDown, PostDown, FwMarkMask, KillSwitch, \
             RequireDNS, PrivateKeyFile"
        } else {
            &format!(", did you mean {meant}?")
        };
        assert_eq!(interface_fault(line), format!("t.conf:2: unknown key {key:?}{question}"));
    }
    assert_eq!(
        peer_fault("Colour = red"),
        "t.conf:3: unknown key \"Colour\", [Peer] takes PublicKey, PresharedKey, AllowedIPs, \
         Endpoint, Endpoints, PersistentKeepalive, PresharedKeyFile"
    );
    assert_eq!(faults("Colour = red\n"), ["t.conf:1: unknown key \"Colour\""]);
}

#[test]
fn wq_08_a_key_in_the_wrong_place_is_told_where_it_belongs() {
    assert_eq!(
        interface_fault("AllowedIPs = ::/0"),
        "t.conf:2: AllowedIPs: belongs into [Peer], not into [Interface]"
    );
    assert_eq!(peer_fault("MTU = 1"), "t.conf:3: MTU: belongs into [Interface], not into [Peer]");
    assert_eq!(
        faults("MTU = 1420\n"),
        ["t.conf:1: MTU: stands before the first [Interface] or [Peer]"]
    );
}

#[test]
fn lines_that_are_neither_pair_nor_section_are_refused() {
    assert_eq!(
        interface_fault("nonsense"),
        "t.conf:2: read \"nonsense\", expected `Key = value` or `[Section]`"
    );
    assert_eq!(
        faults("[Interfaec]\nMTU = x\nNoKey = 1\n"),
        ["t.conf:1: unknown section \"Interfaec\", did you mean [Interface]?"]
    );
    assert_eq!(
        faults("[Server]\n"),
        ["t.conf:1: unknown section \"Server\", expected [Interface] or [Peer]"]
    );
    assert_eq!(faults("[Peer\n").len(), 1);
}

#[test]
fn a_key_without_its_equals_sign_is_told_so_and_what_follows_it_is_not_shown() {
    assert_eq!(
        interface_fault("MTU 1420"),
        "t.conf:2: MTU: there is no `=` between the key and its value"
    );
    // The sign at the end of the value is not meant.
    assert_eq!(
        interface_fault(&format!("PrivateKey {KEY}")),
        "t.conf:2: PrivateKey: there is no `=` between the key and its value"
    );
    let faults = faults(&format!("[Peer]\npublickey\t{PEER}\n"));
    assert_eq!(faults, ["t.conf:2: PublicKey: there is no `=` between the key and its value"]);
}

#[test]
fn a_byte_order_mark_in_front_is_passed_over() {
    assert_eq!(good("\u{feff}[Interface]\r\nMTU = 1420\r\n").interface.mtu, Some(1420));
    assert_eq!(faults("[Interface]\n\u{feff}MTU = 1420\n").len(), 1, "elsewhere it is a fault");
}

#[test]
fn a_placeholder_and_a_key_of_the_wrong_length_are_told_apart_and_never_shown() {
    for placeholder in [
        "CLIENT_PRIVATE_KEY",
        "<client private key>",
        "${PRIVATE}",
        "YourPrivateKeyHere",
        "(hidden)",
        "xxxxxxxx",
        "abcd...",
    ] {
        assert_eq!(
            interface_fault(&format!("PrivateKey = {placeholder}")),
            "t.conf:2: PrivateKey: this is a placeholder, to be replaced by a key: 44 characters of base64, as `hybridwg genkey` or `wg genkey` prints it"
        );
    }
    let fault = faults("[Peer]\nPublicKey = SERVER_PUBLIC_KEY\n").remove(0);
    assert!(fault.contains("a placeholder") && fault.contains("`wg pubkey`"), "{fault}");
    for (value, told) in [
        (&KEY[..43], "43 characters in place of 44"),
        (&KEY[..20], "20 characters in place of 44"),
        ("x", "1 character in place of 44"),
        (&format!("{KEY}{KEY}"), "88 characters in place of 44"),
        (&KEY.replace('=', "A"), "44 characters that are not a key"),
        (&KEY.replace('Y', "_"), "44 characters that are not a key"),
        ("", "nothing"),
    ] {
        let fault = peer_fault(&format!("PresharedKey = {value}"));
        assert!(fault.starts_with(&format!("t.conf:3: PresharedKey: read {told}, ")), "{fault}");
    }
}

#[test]
fn at_most_16_characters_are_shown_of_what_stands_in_place_of_a_number() {
    for key in ["ListenPort", "FwMark", "MTU"] {
        let fault = interface_fault(&format!("{key} = {}", &KEY[..29]));
        assert!(fault.contains("read \"GBgYGBgYGBgYGBgY…\""), "{fault}");
    }
}

#[test]
fn a_tunnel_that_cannot_get_a_private_key_draws_a_warning() {
    let told = |text: &str| -> Vec<String> {
        parse(text, "t.conf").unwrap().warnings.iter().map(ToString::to_string).collect()
    };
    let warning = "`t.conf' has no PrivateKey, and no PreUp or PostUp that could set one: the \
                   tunnel stays silent";
    assert_eq!(told("[Interface]\nListenPort = 1\nPostDown = x\n"), [warning]);
    let zeros = PrivateKey::from_bytes([0; 32]).to_base64();
    assert_eq!(told(&format!("[Interface]\nPrivateKey = {zeros}\n")), [warning]);
    for hook in ["PreUp", "PostUp"] {
        assert_eq!(told(&format!("[Interface]\n{hook} = wg set %i private-key /x\n")), [""; 0]);
    }
}

#[test]
fn the_own_key_as_a_peer_draws_a_warning() {
    let own = crate::crypto::dh::public_key(&PrivateKey::from_base64(KEY).unwrap()).to_base64();
    let text = format!("[Peer]\nPublicKey = {PEER}\n[Peer]\nPublicKey = {own}\n");
    assert_eq!(
        warnings(&text),
        ["t.conf:3: [Peer]: its PublicKey is that of this interface itself, which is no peer: it \
          is left out"]
    );
}

#[test]
fn a_private_key_or_port_that_is_given_twice_draws_a_warning() {
    let text = format!("[Interface]\nPrivateKey = {OTHER}\nListenPort = 1\nListenPort = 2\n");
    assert_eq!(
        warnings(&text),
        [
            "t.conf:4: ListenPort stands on line 3 as well: this one is used",
            "t.conf:7: PrivateKey stands on line 2 as well: this one is used",
        ]
    );
    assert_eq!(good(&text).interface.listen_port, Some(2));
}

#[test]
fn a_section_reserved_for_later_is_refused_by_name() {
    assert_eq!(
        faults("[Hybrid]\nAnything = 1\n"),
        ["t.conf:1: [Hybrid] is reserved and has no keys in this version"]
    );
}

#[test]
fn keys_of_our_own_stand_in_a_comment_or_by_themselves() {
    let source = KeySource::File { path: "/run/my key".into(), any_mode: false };
    for line in [
        "#hybridwg: PrivateKeyFile = /run/my key",
        "#hybridwg:PrivateKeyFile=/run/my key",
        "  # HybridWG:  privatekeyfile = /run/my key  # why",
        "PrivateKeyFile = /run/my key # why",
    ] {
        let read = interface(line).private_key_file.unwrap();
        assert_eq!((read.line, read.value), (2, source.clone()), "{line}");
    }
    let read = peer("#hybridwg: PresharedKeyFile = any-mode:a").preshared_key_file.unwrap().value;
    assert_eq!(read, KeySource::File { path: "a".into(), any_mode: true });
}

#[test]
fn a_comment_that_is_not_for_us_is_only_a_comment() {
    for comment in [
        "# hybrid Port = 1",
        "#hybrid cloud",
        "#hybrid cloud is = fun",
        "#hybridwg",
        "#hybridwg is great",
        "# see hybridwg: a = b",
        "#hybridwgs: PrivateKeyFile = x",
        "#PrivateKeyFile = x",
    ] {
        assert_eq!(faults(&format!("[Interface]\n{comment}\n")), [""; 0], "{comment:?}");
    }
    assert_eq!(interface("PostUp = a #hybridwg: PrivateKeyFile = x").post_up.len(), 1);
}

#[test]
fn a_comment_that_only_seems_to_be_for_us_is_a_fault_and_never_passed_over() {
    for line in ["#hybridwg PrivateKeyFile = x", "# hybrid: PrivateKeyFile = x"] {
        let expected =
            "t.conf:2: PrivateKeyFile: to be read, the line must begin with `#hybridwg:`";
        assert_eq!(interface_fault(line), expected, "{line}");
    }
    assert_eq!(
        interface_fault("MTU = 1400 #hybridwg: PrivateKeyFile = x"),
        "t.conf:2: `#hybridwg:` is read only where it begins a line, not after a value"
    );
    assert_eq!(
        interface_fault("#hybridwg: MTU = 1400"),
        "t.conf:2: MTU: wg-quick knows this key, and shall not miss it: write it without the comment"
    );
    assert_eq!(
        interface_fault("#hybridwg: PrivatKeyFile = x"),
        "t.conf:2: unknown key \"PrivatKeyFile\", did you mean PrivateKeyFile?"
    );
    assert_eq!(
        interface_fault("#hybridwg: nonsense"),
        "t.conf:2: read \"nonsense\", expected `Key = value` or `[Section]`"
    );
    assert_eq!(
        peer_fault("#hybridwg: PrivateKeyFile = x"),
        "t.conf:3: PrivateKeyFile: belongs into [Interface], not into [Peer]"
    );
}

#[test]
fn u_23_a_key_stands_in_the_file_or_elsewhere_and_not_both() {
    assert_eq!(
        interface_fault(&format!("#hybridwg: PrivateKeyFile = x\nPrivateKey = {KEY}")),
        "t.conf:2: PrivateKeyFile: stands beside PrivateKey: one of the two must go"
    );
    assert_eq!(
        peer_fault(&format!("PresharedKey = {KEY}\n#hybridwg: PresharedKeyFile = x")),
        "t.conf:4: PresharedKeyFile: stands beside PresharedKey: one of the two must go"
    );
    for value in ["", "env:", "env:a b", "credential:../x", "credential:", "any-mode:", KEY] {
        let fault = interface_fault(&format!("#hybridwg: PrivateKeyFile = {value}"));
        assert!(fault.contains("accepted is a path") && !fault.contains(KEY), "{fault}");
    }
}

#[test]
fn all_faults_of_a_file_show_at_once_in_the_order_of_their_lines() {
    let text = format!(
        "[Interface]\nMTU = big\nListenPort = 70000\nMtuu = 5\n[Peer]\nEndpoint = x\n\
         [Peer]\nPublicKey = {PEER}\nAllowedIPs = 10.0.0.0/33, ::/0, nonsense\n"
    );
    assert_eq!(
        faults(&text),
        [
            "t.conf:2: MTU: read \"big\", accepted is a number from 68 to 65535",
            "t.conf:3: ListenPort: read \"70000\", accepted is a number from 0 to 65535",
            "t.conf:4: unknown key \"Mtuu\", did you mean MTU?",
            "t.conf:5: this [Peer] has no PublicKey",
            "t.conf:6: Endpoint: read \"x\", accepted is HOST:PORT, where an IPv6 address stands \
             in brackets",
            "t.conf:9: AllowedIPs: read \"10.0.0.0/33\", accepted is networks as ADDRESS/LENGTH, \
             separated by commas, each with or without a leading + or -",
            "t.conf:9: AllowedIPs: read \"nonsense\", accepted is networks as ADDRESS/LENGTH, \
             separated by commas, each with or without a leading + or -",
        ]
    );
}

#[test]
fn no_fault_repeats_a_key_wherever_it_was_put() {
    let secret = &KEY[..43];
    let damaged = &KEY[..40];
    for line in [
        format!("PrivateKey = {secret}"),
        format!("PrivateKey = {damaged}"),
        format!("PrivateKey = {KEY}x"),
        format!("PrivateKey = {KEY} {KEY}"),
        format!("PrivatKey = {KEY}"),
        format!("Address = {KEY}"),
        format!("DNS = 10.0.0.1, {KEY}"),
        format!("Table = {KEY}"),
        KEY.to_string(),
        secret.to_string(),
        format!("[{KEY}]"),
        format!("{KEY} = PrivateKey"),
    ] {
        let text = format!("[Interface]\n{line}\n");
        let errors = parse(&text, "t.conf").expect_err(&line);
        let told = format!("{errors:?} {}", faults(&text).join(" "));
        assert!(!told.contains("GBgYGBgY"), "{line}: {told}");
    }
    for key in ["PublicKey", "PresharedKey", "Endpoint", "AllowedIPs"] {
        let told = faults(&format!("[Peer]\n{key} = {secret}\n")).join(" ");
        assert!(!told.is_empty() && !told.contains("GBgYGBgY"), "{key}: {told}");
    }
}

#[test]
fn a_fault_shows_control_characters_escaped_and_long_values_shortened() {
    assert!(interface_fault("MTU = \u{1b}[31m").contains("\\u{1b}[31m"));
    assert!(interface_fault(&format!("MTU = {}", "1.".repeat(500))).len() < 200);
}

#[test]
fn wq_09_addresses_are_separated_by_commas_or_spaces_and_need_no_length() {
    let addresses = interface(
        "Address = 10.0.0.1/24, fd00::1/64 192.0.2.7\nAddress = 2001:db8::7,\nAddress =\n",
    )
    .addresses;
    assert_eq!(addresses, nets(&["10.0.0.1/24", "fd00::1/64", "192.0.2.7/32", "2001:db8::7/128"]));
    for value in ["10.0.0", "10.0.0.1/33", "fd00::1/129", "10.0.0.1/", "host", "10.0.0.1/+8"] {
        assert!(interface_fault(&format!("Address = {value}")).contains("Address: read"));
    }
}

#[test]
fn wq_10_dns_tells_name_servers_from_search_domains() {
    let dns = interface("DNS = 10.0.0.1, corp.example\nDNS = fd00::53 2.example").dns;
    let values: Vec<Dns> = dns.iter().map(|entry| entry.value.clone()).collect();
    assert_eq!(
        values,
        [
            Dns::Server([10, 0, 0, 1].into()),
            Dns::SearchDomain("corp.example".into()),
            Dns::Server("fd00::53".parse().unwrap()),
            Dns::SearchDomain("2.example".into()),
        ]
    );
    assert_eq!(dns[2].line, 3);
    for value in ["10.0.0", "fd00:::1", "ex$ample", "-x", "a..b"] {
        assert!(interface_fault(&format!("DNS = {value}")).contains("DNS: read"), "{value}");
    }
}

#[test]
fn wq_11_the_last_mtu_and_table_win() {
    let lines = interface("MTU = 1300\nMTU = 1400\nTable = off\nTable = 1234");
    assert_eq!(lines.mtu, Some(1400));
    assert_eq!(lines.table.map(|table| (table.line, table.value)), Some((5, Table::Number(1234))));
    for (text, mtu) in [("68", 68), ("65535", 65535)] {
        assert_eq!(interface(&format!("MTU = {text}")).mtu, Some(mtu));
    }
    for text in ["", "67", "65536", "0", "1420 bytes", "-1", "+1420"] {
        assert!(interface_fault(&format!("MTU = {text}")).contains("from 68 to 65535"), "{text}");
    }
}

#[test]
fn wq_11_a_table_is_auto_off_a_number_or_a_name() {
    for (text, table) in [
        ("auto", Table::Auto),
        ("OFF", Table::Off),
        ("4294967295", Table::Number(u32::MAX)),
        ("main", Table::Name("main".into())),
        ("my-table_1", Table::Name("my-table_1".into())),
    ] {
        assert_eq!(interface(&format!("Table = {text}")).table.unwrap().value, table);
    }
    for text in ["", "0", "4294967296", "1a", "a b", "a/b"] {
        assert!(interface_fault(&format!("Table = {text}")).contains("Table: read"), "{text}");
    }
}

#[test]
fn wq_11_save_config_is_true_or_false_in_any_case() {
    for (text, value) in [("true", true), ("False", false), ("TRUE", true)] {
        let save = interface(&format!("SaveConfig = {text}")).save_config;
        assert_eq!(save.map(|save| save.value), Some(value));
    }
    for text in ["", "yes", "1", "true false"] {
        let fault = interface_fault(&format!("SaveConfig = {text}"));
        assert!(fault.ends_with("accepted is true or false"), "{fault}");
    }
}

#[test]
fn wq_12_hooks_keep_their_order_and_what_looks_like_a_comment() {
    let hooks = interface(
        "PostUp = echo '#x' = %i # y\npostup=second\nPreUp = a\nPreDown = b\nPostDown = c\n\
         # PostUp = commented out\n",
    );
    assert_eq!(hooks.post_up, ["echo '#x' = %i # y", "second"]);
    assert_eq!((hooks.pre_up, hooks.pre_down), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(hooks.post_down, ["c"]);
    assert!(interface_fault("PostUp =").contains("read nothing, accepted is a command"));
}

#[test]
fn wg_09_device_values_take_the_forms_of_wg() {
    for (text, mark) in [
        ("off", 0),
        ("OFF", 0),
        ("0", 0),
        ("51820", 51820),
        ("0xCa6C", 0xca6c),
        ("0XFFFFFFFF", u32::MAX),
    ] {
        assert_eq!(interface(&format!("FwMark = {text}")).fwmark, Some(mark), "{text}");
    }
    // `wg` would read 010 as 8, which nobody means.
    for text in ["", "4294967296", "0x", "0x100000000", "-1", "0x+1", "on", "010"] {
        assert!(interface_fault(&format!("FwMark = {text}")).contains("FwMark: read"), "{text}");
    }
    assert_eq!(interface("ListenPort = 0").listen_port, Some(0));
    for text in ["", "65536", "-1", "http", "0x10"] {
        let fault = interface_fault(&format!("ListenPort = {text}"));
        assert!(fault.ends_with("accepted is a number from 0 to 65535"), "{fault}");
    }
}

#[test]
fn wg_09_white_space_inside_the_keys_and_values_of_wg_does_not_count() {
    let spaced = peer("Allowed IPs = 10.0. 0.0/8\nPersistent\tKeepalive = 2 5");
    assert_eq!(spaced.persistent_keepalive, Some(25));
    assert_eq!(allowed_ips(&spaced), adds(&["10.0.0.0/8"]));
    // wg-quick compares its own keys as they are.
    assert!(interface_fault("Post Up = x").contains("unknown key"));
}

#[test]
fn wg_09_peer_values_take_the_forms_of_wg() {
    let full = peer(&format!("PresharedKey = {KEY}\nPersistentKeepalive = 65535"));
    assert!(full.preshared_key == Some(PresharedKey::from_base64(KEY).unwrap()));
    assert_eq!(full.persistent_keepalive, Some(65535));
    assert_eq!(peer("PersistentKeepalive = Off").persistent_keepalive, Some(0));
    assert_eq!(peer("").persistent_keepalive, None);
    for text in ["", "on", "65536", "-1", "25s"] {
        let fault = peer_fault(&format!("PersistentKeepalive = {text}"));
        assert!(fault.ends_with("off, or a number of seconds from 0 to 65535"), "{fault}");
    }
}

#[test]
fn wg_09_a_peer_without_public_key_is_refused_at_its_section() {
    assert_eq!(faults("[Peer]\n\n[Peer]\n").len(), 2);
    assert_eq!(faults("\n[Peer]\nAllowedIPs = ::/0\n"), ["t.conf:2: this [Peer] has no PublicKey"]);
    let bad = faults("[Peer]\nPublicKey = x\n");
    assert_eq!(bad.len(), 1, "a bad key is not missing as well: {bad:?}");
}

#[test]
fn wg_10_allowed_ips_need_no_length_may_be_none_and_add_up() {
    assert!(peer("").allowed_ips.is_none());
    let none = peer("AllowedIPs =");
    assert!(none.allowed_ips.is_some_and(|entries| entries.is_empty()));
    let several = peer("AllowedIPs = 10.0.0.0/8,192.0.2.1\nAllowedIPs = ::/0 , 2001:db8::1");
    assert_eq!(
        allowed_ips(&several),
        adds(&["10.0.0.0/8", "192.0.2.1/32", "::/0", "2001:db8::1/128"])
    );
    assert!(!several.incremental);
    for text in ["10.0.0.0/8,", ",::/0", "10.0.0.0/8 10.1.0.0/16", "*", "+", "10.0.0.0/+8"] {
        assert!(peer_fault(&format!("AllowedIPs = {text}")).contains("AllowedIPs: read"), "{text}");
    }
}

#[test]
fn wg_10_a_sign_on_any_entry_makes_the_peer_incremental() {
    let signed = peer("AllowedIPs = 10.0.0.0/8, -10.1.0.0/16\nAllowedIPs = +::/0");
    assert!(signed.incremental);
    assert_eq!(
        allowed_ips(&signed),
        [
            AllowedIpChange::Add("10.0.0.0/8".parse().unwrap()),
            AllowedIpChange::Remove("10.1.0.0/16".parse().unwrap()),
            AllowedIpChange::Add("::/0".parse().unwrap()),
        ]
    );
}

#[test]
fn wg_10_host_bits_are_cleared_with_a_warning() {
    let text = format!("[Peer]\nPublicKey = {PEER}\nAllowedIPs = 10.1.2.3/8, 10.9.0.1/32\n");
    assert_eq!(
        warnings(&text),
        ["t.conf:3: AllowedIPs: 10.1.2.3/8 has host bits set, 10.0.0.0/8 is used"]
    );
    assert_eq!(allowed_ips(&good(&text).peers[0]), adds(&["10.0.0.0/8", "10.9.0.1/32"]));
}

#[test]
fn wg_10_a_network_given_to_two_peers_draws_a_warning() {
    let text = format!(
        "[Peer]\nPublicKey = {PEER}\nAllowedIPs = ::/0\n[Peer]\nPublicKey = {OTHER}\n\
         AllowedIPs = ::/0\n"
    );
    assert_eq!(
        warnings(&text),
        ["t.conf:6: AllowedIPs: ::/0 moves here from the peer that has it on line 3"]
    );
    let twice = format!("[Peer]\nPublicKey = {PEER}\n[Peer]\nPublicKey = {PEER}\n");
    assert_eq!(warnings(&twice), ["t.conf:3: [Peer]: this peer has a section on line 1 already"]);
}

#[test]
fn wg_11_endpoints_are_addresses_or_names_with_a_port() {
    for (text, address) in [
        ("192.0.2.1:51820", "192.0.2.1:51820"),
        ("[2001:db8::1]:1", "[2001:db8::1]:1"),
        ("[::ffff:192.0.2.1]:65535", "[::ffff:192.0.2.1]:65535"),
    ] {
        let endpoint = Endpoint::Address(address.parse().unwrap());
        assert_eq!(peer(&format!("Endpoint = {text}")).endpoint, Some(endpoint));
    }
    for (text, host) in [
        ("hub.example.com:51820", "hub.example.com"),
        ("localhost:51820", "localhost"),
        ("[fe80::1%eth0]:51820", "fe80::1%eth0"),
        ("b\u{fc}ro.example:51820", "b\u{fc}ro.example"),
    ] {
        let endpoint = Endpoint::Name { host: host.into(), port: 51820 };
        assert_eq!(endpoint.to_string(), text);
        assert_eq!(peer(&format!("Endpoint = {text}")).endpoint, Some(endpoint));
    }
    for text in [
        "",
        "192.0.2.1",
        ":51820",
        "hub:",
        "hub:65536",
        "hub:http",
        "192.0.2:1",
        "192.0.2.256:1",
        "2001:db8::1:51820",
        "[hub]:1",
        "[::1%lo]:1",
        "[::1]1",
        "-hub:1",
        "hub_/:1",
    ] {
        assert!(peer_fault(&format!("Endpoint = {text}")).contains("Endpoint: read"), "{text}");
    }
}

#[test]
fn a_file_becomes_a_request_that_names_only_what_the_file_names() {
    let config = good(&format!(
        "[Interface]\nPrivateKey = {KEY}\nListenPort = 7\nFwMark = off\n[Peer]\nPublicKey = {PEER}\n\
         AllowedIPs = 10.0.0.0/8\nEndpoint = hub:1\n[Peer]\nPublicKey = {OTHER}\n\
         AllowedIPs = -::/0\nPersistentKeepalive = off\n"
    ));
    let hub: SocketAddr = "192.0.2.9:1".parse().unwrap();
    let request = config
        .to_request(|host, port| {
            assert_eq!((host, port), ("hub", 1));
            Ok::<_, ()>(Some(hub))
        })
        .unwrap();
    assert!(request.private_key == Some(Some(PrivateKey::from_base64(KEY).unwrap())));
    assert_eq!((request.listen_port, request.fwmark), (Some(7), Some(0)));
    assert!(!request.replace_peers, "what PreUp has set survives");
    let [first, second] = &request.peers[..] else { panic!("{request:?}") };
    assert_eq!(first.public_key, PublicKey::from_base64(PEER).unwrap());
    assert_eq!(first.endpoint, Some(hub));
    assert_eq!(first.allowed_ips, adds(&["10.0.0.0/8"]));
    assert!(first.replace_allowed_ips && !second.replace_allowed_ips);
    assert_eq!((first.persistent_keepalive, second.persistent_keepalive), (None, Some(0)));
    let empty = good("").to_request(|_, _| Err(())).unwrap();
    assert_eq!(empty, crate::control::command::SetRequest::default());
    assert_eq!(config.to_request(|_, _| Err("no")), Err("no"));
    let name = Endpoint::Name { host: "hub".to_owned(), port: 1 };
    let unresolved = config.to_request(|_, _| Ok::<_, ()>(None)).unwrap();
    assert_eq!(unresolved.peers[0].endpoint, None);
    assert_eq!(unresolved.peers[0].places, Some(vec![name]), "the device goes on asking");
}

#[test]
fn endpoints_are_a_list_in_place_of_the_endpoint_that_wg_quick_takes() {
    let text = format!(
        "[Peer]\nPublicKey = {PEER}\nEndpoint = a.example:1\n\
         #hybridwg: Endpoints = a.example:1, [2001:db8::1]:2, a.example:1,192.0.2.3:3\n"
    );
    let config = good(&text);
    let listed: Vec<String> = config.peers[0].places().iter().map(ToString::to_string).collect();
    assert_eq!(listed, ["a.example:1", "[2001:db8::1]:2", "192.0.2.3:3"], "each once");
    let request = config.to_request(|_, _| Ok::<_, ()>(None)).unwrap();
    assert_eq!(request.peers[0].places.as_ref().map(Vec::len), Some(3));
    let one = good(&format!("[Peer]\nPublicKey = {PEER}\nEndpoint = 192.0.2.3:3\n"));
    let request = one.to_request(|_, _| Ok::<_, ()>(None)).unwrap();
    assert_eq!(request.peers[0].places, None, "as `wg` sets it");
    let many: Vec<String> = (1..=17).map(|port| format!("192.0.2.1:{port}")).collect();
    for bad in ["", "a.example", "a.example:1, b", &many.join(",")] {
        let told = peer_fault(&format!("#hybridwg: Endpoints = {bad}"));
        assert!(told.contains("Endpoints: read"), "{bad}: {told}");
    }
}

fn folder_with(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let text = format!("[Interface]\nPrivateKey = {KEY}\n");
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn wq_03_a_word_is_a_file_here_if_it_is_one_and_else_an_interface_name() {
    let here = folder_with(&["wg0.conf", "wg1"]);
    let etc = folder_with(&["wg0.conf", "wg1.conf", "wg2.conf.conf"]);
    let locate = |argument: &str| locate(argument, here.path(), etc.path());
    let found = |interface: &str, path| Ok(Located { interface: interface.to_owned(), path });
    assert_eq!(locate("wg0.conf"), found("wg0", here.path().join("wg0.conf")));
    let dotted = locate("./wg0.conf");
    assert_eq!(dotted, found("wg0", here.path().join("wg0.conf")));
    let told = dotted.unwrap().path.display().to_string();
    assert_eq!(told, format!("{}/wg0.conf", here.path().display()), "no dot in between");
    assert_eq!(locate("wg0"), found("wg0", etc.path().join("wg0.conf")));
    assert_eq!(locate("wg1"), found("wg1", etc.path().join("wg1.conf")));
    assert_eq!(locate("wg2.conf"), found("wg2.conf", etc.path().join("wg2.conf.conf")));
    let absolute = etc.path().join("wg1.conf");
    assert_eq!(locate(absolute.to_str().unwrap()), found("wg1", absolute));
}

#[test]
fn wq_03_a_missing_file_is_named() {
    let here = folder_with(&[]);
    let etc = folder_with(&[]);
    let missing = |argument| locate(argument, here.path(), etc.path()).unwrap_err();
    assert_eq!(missing("wg0"), LocateError::Missing(etc.path().join("wg0.conf")));
    assert_eq!(missing("a/wg0.conf"), LocateError::Missing(here.path().join("a/wg0.conf")));
    let told = missing("wg0.conf").to_string();
    assert!(told.contains("./wg0.conf") && told.contains("wg0.conf.conf"), "{told}");
}

#[test]
fn wq_04_the_file_is_named_after_the_interface_as_it_was_typed() {
    let here = folder_with(&["a-very-long-name.conf", "wg0.txt", "x y.conf"]);
    for argument in ["./a-very-long-name.conf", "./wg0.txt", "./x y.conf", "a b", ""] {
        assert_eq!(
            locate(argument, here.path(), here.path()),
            Err(LocateError::Name),
            "{argument:?}"
        );
    }
    std::os::unix::fs::symlink("wg0.txt", here.path().join("wg7.conf")).unwrap();
    assert_eq!(locate("wg7.conf", here.path(), here.path()).unwrap().interface, "wg7");
}

#[test]
fn wq_05_a_file_is_world_accessible_if_it_and_its_folder_share_a_bit_for_others() {
    let folder = folder_with(&["wg0.conf"]);
    let path = folder.path().join("wg0.conf");
    for (folder_mode, file_mode, warned) in [
        (0o700, 0o644, false),
        (0o755, 0o600, false),
        (0o755, 0o640, false),
        (0o755, 0o644, true),
        (0o711, 0o644, false),
        (0o711, 0o601, true),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(file_mode)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(folder_mode)).unwrap();
        let warnings = load(&path).unwrap().warnings;
        let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        let expected = format!("`{}' is world accessible", path.display());
        let expected = if warned { vec![expected] } else { vec![] };
        assert_eq!(told, expected, "{folder_mode:o} {file_mode:o}");
    }
}

#[test]
fn wq_05_permissions_are_those_of_the_file_behind_a_link() {
    let outside = folder_with(&["wg0.conf"]);
    let inside = folder_with(&[]);
    let (real, link) = (outside.path().join("wg0.conf"), inside.path().join("wg0.conf"));
    std::os::unix::fs::symlink(&real, &link).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(inside.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(load(&link).unwrap().warnings.len(), 1);
}

#[test]
fn a_file_that_is_no_text_is_told_by_its_line() {
    let folder = folder_with(&[]);
    let path = folder.path().join("wg0.conf");
    fs::write(&path, b"[Interface]\n# \xff\n").unwrap();
    assert!(matches!(load(&path), Err(LoadError::NotText { line: 2, .. })));
    fs::write(&path, "[Interface]\nMTU = x\n").unwrap();
    let Err(LoadError::Faulty { errors, .. }) = load(&path) else { panic!("accepted") };
    assert_eq!((errors.len(), errors[0].line), (1, 2));
    assert!(matches!(load(Path::new("/nonexistent")), Err(LoadError::Unreadable { .. })));
}

#[test]
fn what_was_read_can_be_written_and_read_again() {
    let text = format!(
        "[Interface]\nPrivateKey = {KEY}\nListenPort = 7\nFwMark = 0xca6c\nAddress = 10.0.0.1/24\n\
         Address = fd00::1/64\nDNS = 10.0.0.1\nDNS = corp.example\nMTU = 1400\nTable = main\n\
         SaveConfig = true\nPreUp = a\nPostUp = echo '#' %i\nPreDown = c\nPostDown = d\n\n\
         [Peer]\nPublicKey = {PEER}\nPresharedKey = {KEY}\nAllowedIPs = 10.0.0.0/8, ::/0\n\
         Endpoint = hub.example:1\nPersistentKeepalive = 25\n\n\
         [Peer]\nPublicKey = {OTHER}\nAllowedIPs = +10.0.0.0/8, -::/0\nEndpoint = [fe80::1%eth0]:1\n\
         PersistentKeepalive = off\n"
    );
    assert_eq!(*render(&good(&text)), text);
}

#[test]
fn a_file_of_a_hundred_thousand_peers_is_read() {
    let mut text = format!("[Interface]\nPrivateKey = {KEY}\n");
    for number in 0..100_000_u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let key = PublicKey::from_bytes(key).to_base64();
        let [_, a, b, c] = number.to_be_bytes();
        text += &format!("[Peer]\nPublicKey = {key}\nAllowedIPs = 10.{a}.{b}.{c}/32\n");
    }
    let written = parse(&text, "t.conf").unwrap();
    assert_eq!((written.config.peers.len(), written.warnings.len()), (100_000, 0));
}

proptest! {
    #[test]
    fn no_text_stops_the_parser(text in any::<String>()) {
        let _ = parse(&text, "t.conf");
    }

    #[test]
    fn no_words_stop_the_parser_and_what_it_takes_can_be_written(
        lines in proptest::collection::vec(
            "(\\[Interface\\]|\\[Peer\\]|PublicKey = oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=|\
             (Address|DNS|MTU|Table|FwMark|AllowedIPs|Endpoint|PostUp|ListenPort|\
             PersistentKeepalive) ?= ?(off|auto|[0-9]{1,5}|0x[0-9a-f]{1,8}|10\\.[0-9]\\.0\\.0/[0-9]{1,2}|\
             [+-]?fd00::[0-9a-f]{1,3}(/[0-9]{1,3})?|[a-z#%:.-]{0,6}:[0-9]{1,5}))\n",
            0..12,
        ),
    ) {
        let text = format!("[Interface]\n{}", lines.concat());
        if let Ok(written) = parse(&text, "t.conf") {
            let once = render(&written.config);
            let again = parse(&once, "t.conf");
            prop_assert!(again.is_ok(), "{:?}: {:?}", &*once, again.err());
            prop_assert_eq!(&*render(&again.unwrap().config), &*once);
        }
    }
}

#[test]
fn a_kill_switch_and_a_mask_say_what_they_need() {
    let told = |lines: &str| -> Vec<String> {
        let faults = parse(&format!("[Interface]\nPrivateKey = {KEY}\n{lines}"), "f").unwrap_err();
        faults.iter().map(ToString::to_string).collect()
    };
    for table in ["off", "7"] {
        assert_eq!(
            told(&format!("Table = {table}\n#hybridwg: KillSwitch = on\n")),
            ["f:4: KillSwitch: takes effect only with Table = auto"]
        );
    }
    assert_eq!(
        told("FwMark = off\n#hybridwg: FwMarkMask = 0xff\n"),
        ["f:4: FwMarkMask: takes effect only with a FwMark other than off"]
    );
    assert_eq!(told("#hybridwg: KillSwitch = true\n").len(), 1);
    let config = good(
        "[Interface]\nTable = off\nFwMark = 7\n#hybridwg: KillSwitch = off\n#hybridwg: FwMarkMask = 0xff\n",
    );
    assert_eq!(config.interface.kill_switch.map(|switch| switch.value), Some(false));
    assert_eq!(config.interface.fwmark_mask.map(|mask| mask.value), Some(0xff));
}
