//! `check`, as an operator without rights uses it.
//!
//! The host is one behind a NAT, whose way out is `ens5`, with an `eth0` beside it.

use super::script::{Host, KEYS, PROGRAMS};
use super::skips;

const OTHER: &str = "sbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbE=";

const NETWORK: &str = "ip link add ens5 type veth peer name there; ip link add eth0 type veth peer name nowhere; \
    ip link set ens5 mtu 1400 up; ip link set there up; ip address add 10.9.0.2/24 dev ens5; \
    ip route add default via 10.9.0.1; chmod 0711 .; \
    check() { setpriv --reuid 65534 --regid 65534 --clear-groups ./hybridwg check \"$@\"; echo \"status $?\"; }\n";

/// A file in which nothing is odd there.
fn file(interface: &str, peers: &str) -> String {
    let (private, public) = KEYS;
    format!(
        "[Interface]\nPrivateKey = {private}\nAddress = 10.10.0.1/24\n{interface}\n[Peer]\n\
         PublicKey = {public}\nAllowedIPs = 10.10.0.2/32\nEndpoint = 192.0.2.9:9\n\
         PersistentKeepalive = 25\n{peers}"
    )
}

/// What `check` says of each file, without the file's name.
fn told(files: &[String]) -> Vec<String> {
    let host = Host::new("");
    let mut script = NETWORK.to_owned();
    for (number, text) in files.iter().enumerate() {
        host.write(&format!("wg{number}.conf"), text);
        // Of a user without rights, who alone can read it.
        script += &format!("chown 65534 wg{number}.conf; check ./wg{number}.conf; echo ===;");
    }
    let outcome = host.run(&script);
    assert_eq!(outcome.err, "");
    let folder = format!("{}/", host.folder.path().display());
    let said = outcome.out.replace(&folder, "");
    said.split_terminator("===\n").map(str::to_owned).collect()
}

fn programs() -> Vec<&'static str> {
    [PROGRAMS, &["setpriv"]].concat()
}

#[test]
fn whatever_is_odd_about_a_file_is_told_with_its_line_to_whoever_can_read_it() {
    if skips(&programs()) {
        return;
    }
    let (_, public) = KEYS;
    let peer = |key: &str, lines: &str| format!("[Peer]\nPublicKey = {key}\n{lines}\n");
    let own = "k8RS1aAZ6Lqf2Bk1EiEFopB/ATlexzI15M9E5svlRDg=";
    let cases: Vec<(String, &str, u8)> = vec![
        (file("MTU = 1312", ""), "", 0),
        // The syntax, with what was probably meant.
        (
            file("Adress = 10.0.0.1", ""),
            ":4: fault: unknown key \"Adress\", did you mean Address?\n  4 | Adress = 10.0.0.1\n    | ^^^^^^\n",
            2,
        ),
        (
            file("MTU = big # x", ""),
            ":4: fault: MTU: read \"big\", accepted is a number from 68 to 65535, or probe\n  4 | MTU = big # x\n    |       ^^^\n",
            2,
        ),
        (
            file("Socks5 = 127.0.0.1:1 user=ci password=ses ame", ""),
            ":4: fault: Socks5: read something that could be a password (not shown), accepted is",
            2,
        ),
        (
            file("Socks5 = 127.0.0.1:1 user=ci password=sesame", ""),
            ":4: note: without a name server in DNS, names are refused: `ResolveVia = system` asks the resolver of this host\n  4 | Socks5 = 127.0.0.1:1 user=ci password=(hidden)\n",
            0,
        ),
        (
            file("", &peer(own, "")),
            ":10: warning: [Peer]: its PublicKey is that of this interface itself",
            1,
        ),
        (
            file("", &peer(public, "")),
            ":10: warning: [Peer]: this peer has a section on line 5 already\n  10 | [Peer]\n     | ^^^^^^\n",
            1,
        ),
        (
            file("", &peer(OTHER, "AllowedIPs = 10.10.0.2/32")),
            ":12: warning: AllowedIPs: 10.10.0.2/32 moves here from the peer that has it on line 7\n",
            1,
        ),
        (
            file("", &peer(OTHER, "AllowedIPs = 10.10.0.0/24")),
            ":7: warning: AllowedIPs: 10.10.0.2/32 lies in 10.10.0.0/24 of the peer on line 12: packets to it go to this peer\n",
            1,
        ),
        (file("", &peer(OTHER, "AllowedIPs = 10.20.0.1/16")), ":12: warning: AllowedIPs: ", 1),
        (
            file("Address = 10.77.0.1/16", ""),
            ":4: warning: Address: no peer has an address of 10.77.0.0/16: nobody there can be reached\n  4 | Address = 10.77.0.1/16\n    |           ^^^^^^^^^^^^\n",
            1,
        ),
        (
            file("Table = main", "").replace("10.10.0.2/32", "0.0.0.0/0"),
            ":7: warning: AllowedIPs: 0.0.0.0/0 contains the endpoint 192.0.2.9:9: its packets would go into the tunnel itself\n",
            1,
        ),
        (
            file("", "")
                .replace("10.10.0.2/32", "::/0, 10.10.0.2/32")
                .replace("192.0.2.9", "[2001:db8::9]"),
            ":7: warning: Endpoint: no route of this host leads to [2001:db8::9]:9, and everything is to go there\n",
            1,
        ),
        (
            file("", "")
                .replace("10.10.0.2/32", "0.0.0.0/0")
                .replace("Endpoint = 192.0.2.9:9\n", ""),
            ":7: warning: AllowedIPs: everything is to go to a peer without Endpoint",
            1,
        ),
        (
            file("MTU = 1344", ""),
            ":4: warning: MTU: 1344 is more than the 1340 that fit the path to 192.0.2.9:9\n  4 | MTU = 1344\n    |       ^^^^\n",
            1,
        ),
        (
            file("MTU = 1344", "").replace("192.0.2.9", "hub.example"),
            ":4: warning: MTU: 1344 is more than the 1340 that fit the default route to hub.example:9\n",
            1,
        ),
        (
            file("MTU = 1336", ""),
            ":4: note: MTU: Azure carries 1400 bytes, 1320 inside a tunnel over IPv6\n",
            0,
        ),
        (
            file("MTU = 1400", ""),
            ":4: note: MTU: Google Cloud carries 1460 bytes, 1380 inside a tunnel over IPv6\n",
            1,
        ),
        (file("MTU = 1300", ""), ":4: note: MTU: 1300 is no multiple of 16", 0),
        (
            file("", "").replace("PersistentKeepalive = 25\n", ""),
            ":5: warning: [Peer]: this host is behind a NAT, and without PersistentKeepalive = 25",
            1,
        ),
        (
            file("PostUp = iptables -t nat -A POSTROUTING -o eth7 -j MASQUERADE", ""),
            ":4: warning: PostUp: there is no interface eth7 on this host (the default route uses ens5)\n",
            1,
        ),
        (
            file("PostUp = iptables -t nat -A POSTROUTING -j MASQUERADE", ""),
            ":4: note: PostUp: `#hybridwg: Masquerade = auto` in place of the hooks",
            0,
        ),
        (
            file("PostUp = iptables -A FORWARD -o eth0 -j ACCEPT", ""),
            ":4: warning: PostUp: eth0 is not the way out (the default route uses ens5)\n  4 | PostUp = iptables -A FORWARD -o eth0 -j ACCEPT\n    |                                 ^^^^\n",
            1,
        ),
        (file("PostUp = iptables -A FORWARD -o ens5 -j ACCEPT", ""), "", 0),
        (
            file("#hybridwg: PrivateKeyFile = none", "").replace("PrivateKey = ", "#"),
            ":4: fault: PrivateKeyFile: ",
            2,
        ),
    ];
    let files: Vec<String> = cases.iter().map(|(file, ..)| file.clone()).collect();
    let said = told(&files);
    assert_eq!(said.len(), cases.len(), "{said:?}");
    for (number, ((text, part, status), said)) in cases.iter().zip(&said).enumerate() {
        let part = match *part {
            "" => "",
            part => &format!("wg{number}.conf{part}"),
        };
        assert!(said.contains(part), "no {part:?} of\n{text}in\n{said}");
        assert!(said.ends_with(&format!("status {status}\n")), "{text}{said}");
        let is_quiet = said.lines().count() == 1;
        assert_eq!(is_quiet, part.is_empty(), "{text}{said}");
    }
}

#[test]
fn u_23_a_secret_that_others_can_read_is_told_and_no_key_is_shown() {
    if skips(&programs()) {
        return;
    }
    let (private, _) = KEYS;
    let host = Host::new(&file("MTU = 1312", ""));
    host.write("wg1.conf", &file("MTU = big", "").replace(private, &private[1..]));
    host.write(
        "wg2.conf",
        &file("#hybridwg: PrivateKeyFile = key", "").replace("PrivateKey = ", "#"),
    );
    host.write("key", private);
    let outcome = host.run(&format!(
        "{NETWORK} chmod 0755 .; chmod 0644 wg*.conf key; for i in 0 1 2; do check ./wg$i.conf; done"
    ));
    for part in [
        "wg0.conf' is world accessible, and the keys in it with it\nstatus 1\n",
        "wg1.conf' is world accessible",
        ":2: fault: PrivateKey: read 43 characters in place of 44",
        "  2 | PrivateKey = (hidden)=\n",
        ":4: fault: PrivateKeyFile: ",
    ] {
        assert!(outcome.out.contains(part), "no {part:?} in {}", outcome.out);
    }
    assert!(!outcome.out.contains(&private[1..20]), "{}", outcome.out);
}

const IS_TO_BELONG: &str = "hint: this runs as user 65534. A file of a container is to belong to that user: \
    `chown 65534 FILE`, for rootless podman `podman unshare chown 65534 FILE`\n";

#[test]
fn up_says_whose_a_key_file_is_to_be_that_it_may_not_read() {
    if skips(&programs()) {
        return;
    }
    let config = file("#hybridwg: PrivateKeyFile = key", "").replace("PrivateKey = ", "#");
    let host = Host::new(&config);
    host.write("key", KEYS.0);
    let outcome = host.run(&format!(
        "{NETWORK} chmod 600 key; chown 65534 wg0.conf; \
         setpriv --reuid 65534 --regid 65534 --clear-groups ./hybridwg up --rootless ./wg0.conf 2>&1"
    ));
    let denied = "/key: Permission denied (os error 13)\n";
    assert!(outcome.out.contains(denied) && outcome.out.ends_with(IS_TO_BELONG), "{}", outcome.out);
}

#[test]
fn check_speaks_json_and_a_file_that_cannot_be_read_is_wrong_usage() {
    if skips(&programs()) {
        return;
    }
    let host = Host::new(&file("MTU = 1336\nMtuu = 5", ""));
    let outcome = host.run(&format!(
        "{NETWORK} check --json ./wg0.conf 2>&1; chown 65534 wg0.conf; check --json ./wg0.conf; \
         sed -i /Mtuu/d wg0.conf; chown 65534 wg0.conf; check --json ./wg0.conf; check ./none.conf 2>&1"
    ));
    let path = host.folder.path().join("wg0.conf");
    let path = path.display();
    let expected = format!(
        "hybridwg: cannot read {path}: Permission denied (os error 13)\n{IS_TO_BELONG}status 2\n\
         {{\"file\":\"{path}\",\"findings\":[{{\"severity\":\"fault\",\"line\":5,\
         \"text\":\"unknown key \\\"Mtuu\\\", did you mean MTU?\"}}]}}\nstatus 2\n\
         {{\"file\":\"{path}\",\"findings\":[{{\"severity\":\"note\",\"line\":4,\
         \"text\":\"MTU: Azure carries 1400 bytes, 1320 inside a tunnel over IPv6\"}},\
         {{\"severity\":\"note\",\"line\":4,\"text\":\"MTU: 1336 is no multiple of 16: the length of full \
         packets is not hidden; 1328 is one\"}}]}}\nstatus 0\n"
    );
    assert!(outcome.out.starts_with(&expected), "{}\nis not\n{expected}", outcome.out);
    assert!(outcome.out.ends_with("none.conf' does not exist\nstatus 2\n"), "{}", outcome.out);
}
