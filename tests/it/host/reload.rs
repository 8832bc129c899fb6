//! `reload` and SIGHUP, as an operator uses them.

use super::script::{Host, KEYS, LEFTOVERS, PROGRAMS, config};
use super::skips;

/// A peer that comes later.
const NEW: &str = "sbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbE=";

/// Changes of the file: addresses, MTU, a network less, a peer more.
const EDIT: &str = "sed -i 's/, fd00:10::1.64/, 10.20.0.1\\/16/; s/MTU = .*/MTU = 1300/; \
                    s/, 172.16.0.0.12//' wg0.conf; \
                    printf '[Peer]\\nPublicKey = sbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbE=\\n\
                    AllowedIPs = 10.50.0.0/16\\n' >> wg0.conf\n";

const STATE: &str = "state() { ip -o addr show wg0 scope global; ip -o link show wg0 | grep -o 'mtu [0-9]*'; \
                     ip route; ip -6 route | grep wg0; hybridwg show wg0 allowed-ips; }\n";

#[test]
fn u_11_reload_tells_and_makes_every_difference_and_the_next_one_finds_none() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("MTU = 1400\nPostUp = echo up"));
    let outcome = host.run(&format!(
        "{STATE} hybridwg up ./wg0.conf > /dev/null 2>&1 || exit 1; {EDIT} state > before; \
         hybridwg reload --dry-run ./wg0.conf 2> plan || exit 2; state | diff before - || exit 3; \
         hybridwg reload ./wg0.conf 2> done || exit 4; diff plan done >&2 || exit 5; state; \
         hybridwg reload ./wg0.conf; hybridwg down ./wg0.conf 2> /dev/null || exit 6; cat plan; {LEFTOVERS}"
    ));
    outcome.assert_ok();
    let path = host.folder.path().join("wg0.conf");
    assert_eq!(outcome.err, format!("wg0 is as {} says\n", path.display()));
    for part in ["inet 10.20.0.1/16", "mtu 1300", "10.50.0.0/16 dev wg0", "192.168.7.0/24 dev wg0"]
    {
        assert!(outcome.out.contains(part), "no {part} in {}", outcome.out);
    }
    let plan = format!(
        "[#] ip -4 address add 10.20.0.1/16 dev wg0\n\
         [#] ip -6 address delete fd00:10::1/64 dev wg0\n\
         [#] ip link set mtu 1300 up dev wg0\n\
         [#] ip -4 route add 10.50.0.0/16 dev wg0\n\
         [#] ip -4 route delete 172.16.0.0/12 dev wg0\n\
         [#] wg set wg0 peer {} allowed-ips -172.16.0.0/12\n\
         [#] wg set wg0 peer {NEW} allowed-ips +10.50.0.0/16\n",
        KEYS.1
    );
    assert!(outcome.out.ends_with(&plan), "{}", outcome.out);
}

#[test]
fn u_11_a_reload_that_fails_leaves_everything_as_it_was() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("MTU = 1400\nPostUp = true"));
    let outcome = host.run(&format!(
        "{STATE} hybridwg up ./wg0.conf 2> /dev/null || exit 1; {EDIT} state > before; \
         sed -i 's/PostUp = .*/PostUp = exit 7/' wg0.conf; \
         hybridwg reload --hooks ./wg0.conf; echo code $?; state | diff before - && echo same"
    ));
    assert_eq!(outcome.out, "code 1\nsame\n", "{}", outcome.err);
}

#[test]
fn u_11_reload_refuses_an_empty_file_a_faulty_one_and_what_it_cannot_change() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("MTU = 1400"));
    let outcome = host.run(
        "mkdir empty; touch empty/wg0.conf; hybridwg reload ./wg0.conf; echo code $?; hybridwg up ./wg0.conf 2> /dev/null; \
         hybridwg reload ./empty/wg0.conf; echo code $?; hybridwg show wg0 peers | wc -l; \
         sed 's/172.16.0.0.12/0.0.0.0\\/0/' wg0.conf > empty/wg0.conf; \
         hybridwg reload ./empty/wg0.conf; echo code $?; ip rule | wc -l",
    );
    assert_eq!(outcome.out, "code 1\ncode 2\n1\ncode 1\n3\n", "{}", outcome.err);
    for part in [
        "hybridwg: `wg0' is not a WireGuard interface\n",
        "wg0.conf says nothing, and is not taken for a configuration\n",
        "0.0.0.0/0 or ::/0 among the AllowedIPs of wg0 can be changed by `hybridwg down` and `up`",
    ] {
        assert!(outcome.err.contains(part), "{}", outcome.err);
    }
}

#[test]
fn u_11_a_file_without_a_private_key_leaves_the_one_that_a_hook_has_set() {
    if skips(&[PROGRAMS, &["wg"]].concat()) {
        return;
    }
    let text = config("PostUp = wg set %i private-key key");
    let key = KEYS.0;
    let host = Host::new(&text.replace(&format!("PrivateKey = {key}\n"), ""));
    host.write("key", key);
    let outcome = host.run(&format!(
        "hybridwg up ./wg0.conf 2> /dev/null || exit 1; {EDIT} hybridwg reload ./wg0.conf 2> /dev/null; \
         hybridwg show wg0 private-key"
    ));
    assert_eq!(outcome.out, format!("{key}\n"), "{}", outcome.err);
}

#[test]
fn u_11_a_hangup_reloads_what_up_has_made_and_ends_what_has_no_file() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("MTU = 1400"));
    let outcome = host.run(&format!(
        "until_it() {{ for i in $(seq 250); do eval \"$1\" && return; sleep 0.02; done; exit 9; }}; \
         hybridwg up ./wg0.conf 2> /dev/null || exit 1; {EDIT} kill -HUP $(pgrep -x hybridwg); \
         until_it 'hybridwg show wg0 peers | grep -q {NEW}'; pgrep -x hybridwg > /dev/null || exit 2; \
         ip link show wg0 | grep -o 'mtu [0-9]*'; hybridwg down ./wg0.conf 2> /dev/null; \
         hybridwg wg1 || exit 3; kill -HUP $(pgrep -x hybridwg); until_it '! pgrep -x hybridwg > /dev/null'"
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "mtu 1300\n", "{}", outcome.err);
}
