//! `[Peer]` and what wg(8) reads, and what becomes of a whole file.

use super::*;

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
