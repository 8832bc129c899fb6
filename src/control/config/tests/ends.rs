//! Keys of what there is on this host beside, or in place of, the interface.

use super::*;
use crate::control::ends::{Mode, ResolveVia};

#[test]
fn u_06_ends_add_up_and_survive_being_written_and_read_again() {
    let lines = "#hybridwg: Mode = rootless\n#hybridwg: Expose = 5432 127.0.0.1:5432 from=10.66.0.0/24\n\
                 #hybridwg: Expose = 53/udp 10.20.0.2:53\n#hybridwg: Forward = 127.0.0.1:15432 10.66.0.1:5432\n\
                 #hybridwg: Forward = unix:/run/db.sock db.example:5432\n#hybridwg: Socks5 = 127.0.0.1:1080\n\
                 #hybridwg: HttpProxy = 0.0.0.0:8080 user=ci passfile=/run/secrets/proxy\n\
                 #hybridwg: Proxy = [::1]:1081 user=a password=b\n#hybridwg: Proxy = *:1082 open=yes\n\
                 #hybridwg: ResolveVia = system\n#hybridwg: Stdio = ssh.example:22\n";
    let ends = interface(lines).ends;
    assert_eq!(ends.mode.map(|mode| mode.value), Some(Mode::Rootless));
    assert_eq!((ends.expose.len(), ends.forward.len(), ends.proxies.len()), (2, 2, 4));
    assert_eq!(ends.resolve_via.map(|via| via.value), Some(ResolveVia::System));
    let rendered = render(&good(&format!("[Interface]\n{lines}")));
    assert_eq!(*rendered, *format!("[Interface]\n{lines}").replace("*:1082", "[::]:1082"));
    let spelt = "mode = TUN\nproxy = localhost:1 # here\n";
    assert_eq!(interface(spelt).ends.mode.map(|mode| mode.value), Some(Mode::Tun));
}

#[test]
fn what_is_wrong_with_an_end_is_told_by_the_word() {
    for (line, told) in [
        ("Mode = kernel", "Mode: read \"kernel\", accepted is auto, tun or rootless"),
        ("ResolveVia = dns", "ResolveVia: read \"dns\", accepted is tunnel or system"),
        (
            "Expose = 5432",
            "Expose: read nothing, accepted is HOST:PORT, where an IPv6 address stands in brackets, \
             or unix:/PATH",
        ),
        (
            "Forward = 80 a:1",
            "Forward: read \"80\", accepted is ADDRESS:PORT, localhost:PORT, *:PORT for all \
             addresses, or unix:/PATH",
        ),
        (
            "Socks5 = 127.0.0.1:1 user=a pasword=sesame",
            "Socks5: read \"pasword\", accepted is ADDRESS:PORT or unix:/PATH, and after it \
             user=NAME with passfile=PATH or password=WORD, or open=yes",
        ),
        ("Sock5 = 127.0.0.1:1", "unknown key \"Sock5\", did you mean Socks5?"),
        (
            "HttpProxy = 0.0.0.0:8080",
            "HttpProxy: everybody who reaches 0.0.0.0:8080 would be let in: `user=` and \
             `passfile=` say who may, and `open=yes` that all may",
        ),
    ] {
        assert_eq!(interface_fault(&format!("#hybridwg: {line}")), format!("t.conf:2: {told}"));
    }
    for secret in ["password=", "user=a password=b sesame", "user=a password=b password2=se$ame"] {
        let told = interface_fault(&format!("Proxy = 127.0.0.1:1 {secret}"));
        assert!(told.contains("(not shown)") && !told.contains("ame"), "{secret}: {told}");
    }
}

#[test]
fn a_line_that_may_hold_a_password_where_none_belongs_is_known() {
    for (line, may) in [
        ("Socks5 = 127.0.0.1:1 user=a pasword=sesame", true),
        ("Proxy = 127.0.0.1:1 sesame", true),
        ("Proxy 127.0.0.1:1 sesame", true),
        ("Password sesame", true),
        ("Sock5 = 127.0.0.1:1 user=a pasword=sesame", true),
        ("Pass = sesame", true),
        ("Adress = 10.0.0.1", false),
        ("[Peer]\nSocks5 = 127.0.0.1:1 user=a pasword=sesame", true),
        ("MTU = 1400 #hybridwg: Socks5 = 127.0.0.1:1 user=a pasword=sesame", true),
        ("Forward = 80 a:1", false),
        ("[http]\nPasswrod = sesame", true),
        ("[http]\nsesame", true),
    ] {
        let errors = parse(&format!("[Interface]\n{line}\n"), "t.conf").unwrap_err();
        assert_eq!(errors.iter().any(ConfigError::may_hold_password), may, "{line}");
        let told: String = errors.iter().map(ToString::to_string).collect();
        assert!(!told.contains("sesame"), "{told}");
    }
}

#[test]
fn two_ends_at_one_place_are_a_fault() {
    for (lines, key) in [
        ("Socks5 = 127.0.0.1:1\nHttpProxy = 127.0.0.1:1", "HttpProxy"),
        ("Forward = 127.0.0.1:1 a:1\nProxy = localhost:1", "Proxy"),
        ("Expose = 1 a:1\nExpose = 1/tcp a:2", "Expose"),
    ] {
        let told = format!("t.conf:3: {key}: line 2 has the same place already");
        assert_eq!(interface_fault(lines), told);
    }
    good("[Interface]\nForward = 127.0.0.1:1 a:1\nForward = 127.0.0.1:1/udp a:1\nExpose = 1 a:1\n");
}

#[test]
fn a_port_leads_peers_to_different_places_by_their_addresses_if_each_entry_is_for_somebody() {
    let told = "t.conf:3: Expose: line 2 has the same place already";
    for (first, second, is_for_somebody) in [
        ("1 a:1 from=10.66.0.0/24", "1 a:2", true),
        ("1 a:1 from=10.66.0.9", "1 a:2 from=10.66.0.0/24", true),
        ("1 a:1 from=10.66.0.0/24", "1 a:2 from=10.66.0.9,fd66::/64", true),
        ("1 a:1", "1/udp a:2", true),
        ("1 a:1", "1 a:2 from=10.66.0.9", false),
        ("1 a:1 from=10.66.0.0/24", "1 a:2 from=10.66.0.9,10.66.0.64/26", false),
    ] {
        let lines = format!("Expose = {first}\nExpose = {second}");
        match is_for_somebody {
            true => {
                assert_eq!(good(&format!("[Interface]\n{lines}")).interface.ends.expose.len(), 2)
            }
            false => assert_eq!(interface_fault(&lines), told),
        }
    }
}

fn beside(text: &str) -> Result<Config, Vec<String>> {
    let file = format!("[Interface]\nPrivateKey = {KEY}\n[Peer]\nPublicKey = {PEER}\n");
    let (file, lines) = (
        Text { name: "t.conf", text: &file, kind: TextKind::File },
        Text { name: "EXTRA", text, kind: TextKind::Lines },
    );
    let told = |errors: Vec<ConfigError>| errors.iter().map(ToString::to_string).collect();
    parse_all(&[file, lines]).map(|written| written.config).map_err(told)
}

#[test]
fn lines_beside_the_file_are_read_as_if_they_stood_in_it_and_told_by_their_own_numbers() {
    let config = beside("Forward = 127.0.0.1:1 a:1\n\n#hybridwg: Mode = tun\n").unwrap();
    assert_eq!(config.interface.ends.forward.len(), 1);
    assert_eq!(
        config.interface.ends.mode.map(|mode| config.texts.place(mode.line)),
        Some(("EXTRA", 3))
    );
    assert_eq!(
        beside("Forward = x\n[Peer]\nListenPort = 7\nMTU = 1400\n").unwrap_err(),
        [
            "EXTRA:1: Forward: read \"x\", accepted is ADDRESS:PORT, localhost:PORT, *:PORT for all \
             addresses, or unix:/PATH",
            "EXTRA:2: only lines of [Interface] stand here",
        ]
    );
    assert_eq!(
        beside("MTU = 1400\nSocks5 = 127.0.0.1:1 user=a password=sesame\n").unwrap_err(),
        [
            "EXTRA:1: MTU: belongs into the file: only keys of our own stand here",
            "EXTRA:2: Socks5: a password stands in the file or, with `passfile=env:NAME` or \
             `passfile=PATH`, outside of it, and not here",
        ]
    );
    beside("Socks5 = 127.0.0.1:1 user=a passfile=env:PW").unwrap();
}
