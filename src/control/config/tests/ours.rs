//! Keys of our own.

use super::*;
use crate::control::command::ClampMss;
use crate::flow::policy::Rule;

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
fn n_06_health_is_told_at_a_port_that_is_known_and_every_peer_that_we_call_is_required() {
    let address = |line: &str| interface(line).health.map(|address| address.value.to_string());
    assert_eq!(address("Health = 127.0.0.1:9586").as_deref(), Some("127.0.0.1:9586"));
    assert_eq!(address("#hybridwg: health = [::]:9586").as_deref(), Some("[::]:9586"));
    assert_eq!(address("Health = *:9586").as_deref(), Some("[::]:9586"));
    for wrong in ["9586", "*:0", "*:70000", "localhost:9586", "127.0.0.1:0", ":9586", ""] {
        assert!(interface_fault(&format!("Health = {wrong}")).contains("Health: read "), "{wrong}");
    }
    let file = |lines: &str| good(&format!("[Peer]\nPublicKey = {PEER}\n{lines}\n"));
    let required = |lines: &str| file(lines).health().required.len();
    assert_eq!(required(""), 0);
    assert_eq!(required("Endpoint = hub.example:1"), 1);
    assert_eq!(required("#hybridwg: Endpoints = hub.example:1"), 1);
    assert_eq!(required("Endpoint = hub.example:1\n#hybridwg: Required = off"), 0);
    assert_eq!(required("Required = on"), 1);
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

#[test]
fn masquerade_is_a_way_and_its_rules_add_up_and_say_what_they_need() {
    let text = "[Interface]\n#hybridwg: Masquerade = Auto\n\
                #hybridwg: MasqueradeFrom = 10.10.0.7/24, fd10::/64\n\
                #hybridwg: AllowTo = 10.20.0.0/16, host:22/tcp\n#hybridwg: AllowTo = [fd20::1]:53\n\
                #hybridwg: DenyTo = 10.20.9.0/24\n";
    let interface = good(text).interface;
    assert_eq!(interface.masquerade.map(|it| it.value), Some(Masquerade::Auto));
    let texts = |rules: &[At<Rule>]| -> Vec<String> {
        rules.iter().map(|rule| rule.value.to_string()).collect()
    };
    assert_eq!(texts(&interface.allow_to), ["10.20.0.0/16", "host:22/tcp", "[fd20::1]:53"]);
    assert_eq!(texts(&interface.deny_to), ["10.20.9.0/24"]);
    let from: Vec<String> =
        interface.masquerade_from.iter().map(|network| network.value.to_string()).collect();
    assert_eq!(from, ["10.10.0.0/24", "fd10::/64"]);

    assert_eq!(
        interface_fault("#hybridwg: Masquerade = on"),
        "t.conf:2: Masquerade: read \"on\", accepted is off, auto, nft or flow"
    );
    let told = interface_fault("#hybridwg: AllowTo = example.org");
    assert!(told.starts_with("t.conf:2: AllowTo: read \"example.org\", accepted is a network,"));
    let name = ", or an Expose that leads to a name";
    for (line, or) in [
        ("MasqueradeFrom = 10.0.0.0/8", ""),
        ("AllowTo = 10.0.0.0/8", name),
        ("DenyTo = host", name),
    ] {
        let key = line.split(' ').next().unwrap();
        let told =
            format!("t.conf:2: {key}: takes effect only with Masquerade = auto, nft or flow{or}");
        assert_eq!(interface_fault(&format!("#hybridwg: {line}")), told);
        assert_eq!(interface_fault(&format!("#hybridwg: {line}\nExpose = 1 10.0.0.1:1")), told);
        good(&format!("[Interface]\n#hybridwg: Masquerade = off\n#hybridwg: {line}\n"));
        if !or.is_empty() {
            good(&format!("[Interface]\n{line}\nExpose = 1 db.internal:1\n"));
        }
    }
    let told = interface_fault("#hybridwg: Masqerade = auto");
    assert!(told.ends_with("did you mean Masquerade?"), "{told}");
}

#[test]
fn what_flows_are_like_is_said_for_those_that_there_may_be() {
    let keys = "#hybridwg: TcpCongestion = BBR\n#hybridwg: UdpTimeout = 600\n\
                #hybridwg: UdpFilter = endpoint\n#hybridwg: MaxFlows = 99\n\
                #hybridwg: MaxFlows = 100\n";
    let interface = good(&format!("[Interface]\n#hybridwg: Masquerade = auto\n{keys}")).interface;
    let told = interface.tuning().tunes().map(|tune| tune.to_string());
    assert_eq!(told, ["bbr", "600", "endpoint", "100"]);
    for text in ["", "#hybridwg: Masquerade = nft\n"] {
        let told = faults(&format!("[Interface]\n{text}{keys}"));
        assert_eq!(told.len(), 1);
        let told = told[0].split_once(": ").unwrap().1;
        assert_eq!(
            told,
            "TcpCongestion: takes effect only with Masquerade = auto or flow, Expose or Mode = \
             rootless"
        );
    }
    // Flows to the tunnel's own addresses and from them have no more than one who may answer.
    let others = keys.replace("#hybridwg: UdpFilter = endpoint\n", "");
    for line in ["Expose = 1 10.0.0.1:1", "Mode = rootless"] {
        good(&format!("[Interface]\n{line}\n{others}"));
        assert_eq!(
            faults(&format!("[Interface]\n{line}\n{others}UdpFilter = endpoint")),
            ["t.conf:7: UdpFilter: takes effect only with Masquerade = auto or flow"]
        );
    }
    good(&format!("[Interface]\n#hybridwg: Masquerade = off\n{keys}"));
    for (line, accepted) in [
        ("TcpCongestion = reno", "cubic or bbr"),
        ("UdpTimeout = 30", "a number of seconds from 120 to 86400"),
        ("UdpFilter = port", "address or endpoint"),
        ("MaxFlows = 0", "a number from 4 to 1000000"),
    ] {
        let (key, value) = line.split_once(" = ").unwrap();
        assert_eq!(
            interface_fault(&format!("#hybridwg: {line}")),
            format!("t.conf:2: {key}: read \"{value}\", accepted is {accepted}")
        );
    }
}

#[test]
fn clamp_mss_is_on_off_or_bytes() {
    let asked = |lines: &str| {
        let config = good(&format!("[Interface]\n{lines}\n"));
        config.to_request(|_, _| Ok::<_, ()>(None)).unwrap().clamp_mss
    };
    assert_eq!(asked(""), None, "the default is the device's");
    assert_eq!(asked("ClampMSS = off"), Some(ClampMss::Off));
    assert_eq!(asked("#hybridwg: clampmss = On"), Some(ClampMss::On));
    assert_eq!(asked("#hybridwg: ClampMSS = 1320"), Some(ClampMss::To(1320)));
    assert_eq!(
        interface_fault("#hybridwg: ClampMSS = 100"),
        "t.conf:2: ClampMSS: read \"100\", accepted is on, off, or a number of bytes from 536 to 65535"
    );
}
