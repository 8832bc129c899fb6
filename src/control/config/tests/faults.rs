//! What a file may look like, and what is said of one that is wrong or odd.

use super::*;

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
             ClampMSS, Masquerade, MasqueradeFrom, AllowTo, DenyTo, \
             TcpCongestion, UdpTimeout, UdpFilter, MaxFlows, RequireDNS, Health, \
             PublicEndpoint, Mode, Expose, Forward, Socks5, HttpProxy, Proxy, ResolveVia, Stdio, PrivateKeyFile"
        } else {
            &format!(", did you mean {meant}?")
        };
        assert_eq!(interface_fault(line), format!("t.conf:2: unknown key {key:?}{question}"));
    }
    assert_eq!(
        peer_fault("Colour = red"),
        "t.conf:3: unknown key \"Colour\", [Peer] takes PublicKey, PresharedKey, AllowedIPs, \
         Endpoint, Endpoints, PersistentKeepalive, Required, PresharedKeyFile"
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
fn u_21_a_mark_with_bits_of_others_draws_a_warning() {
    let told = warnings("[Interface]\nFwMark = 51820");
    assert!(told[0].starts_with("t.conf:2: FwMark: 0xca6c has bits that others use: "), "{told:?}");
    assert_eq!(warnings("[Interface]\nFwMark = 0x1002"), [""; 0]);
    assert_eq!(warnings("[Interface]\nFwMark = off"), [""; 0]);
}

#[test]
fn rules_for_peers_whom_nothing_lets_out_draw_warnings() {
    let rules = "MasqueradeFrom = 10.0.0.0/8\nAllowTo = 10.1.0.0/16\nDenyTo = host\n";
    let told = warnings(&format!("[Interface]\nMasquerade = off\n{rules}{rules}"));
    assert_eq!(
        told,
        [(3, "MasqueradeFrom"), (4, "AllowTo"), (5, "DenyTo")].map(|(line, key)| format!(
            "t.conf:{line}: {key}: holds with Masquerade alone, which is off: nothing is done"
        ))
    );
    assert_eq!(warnings(&format!("[Interface]\nMasquerade = flow\n{rules}")), [""; 0]);
    let judged = format!("[Interface]\nMasquerade = off\n{rules}Expose = 1 db.internal:1");
    assert_eq!(warnings(&judged), [told[0].clone()], "where a name leads is judged by the others");
}

#[test]
fn a_section_hybrid_is_refused_with_where_its_keys_stand() {
    assert_eq!(
        faults("[Hybrid]\nAnything = 1\n"),
        [
            "t.conf:1: there is no section [Hybrid]: its keys stand in [Interface], behind `#hybridwg:` \
          if wg-quick reads the file too"
        ]
    );
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
            "t.conf:2: MTU: read \"big\", accepted is a number from 68 to 65535, or probe",
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
