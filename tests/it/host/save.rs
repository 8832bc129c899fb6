//! `save`, `SaveConfig = true` and `strip`, with stock `wg` as the hand that changes things.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::script::{Host, KEYS, PROGRAMS, config};
use super::skips;

/// A peer that the file does not have.
const NEW: &str = "sbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbE=";

fn programs() -> Vec<&'static str> {
    [PROGRAMS, &["wg"]].concat()
}

fn file(host: &Host) -> String {
    fs::read_to_string(host.folder.path().join("wg0.conf")).unwrap()
}

#[test]
fn wq_30_save_changes_what_differs_and_leaves_the_rest_of_the_file() {
    if skips(&programs()) {
        return;
    }
    let text =
        config("# by hand\nMTU = 1360\nPostUp = echo '#x'").replace("127.0.0.1:9", "localhost:9");
    let host = Host::new(&text);
    fs::set_permissions(host.folder.path().join("wg0.conf"), fs::Permissions::from_mode(0o640))
        .unwrap();
    let outcome = host.run(&format!(
        "hybridwg up ./wg0.conf 2>/dev/null || exit 1; hybridwg save ./wg0.conf; cp -p wg0.conf same; \
         ip address add 10.99.0.1/32 dev wg0; ip link set mtu 1280 dev wg0; \
         wg set wg0 listen-port 7777 peer {public} persistent-keepalive 9 \
         allowed-ips 10.10.0.2/32,192.168.7.0/24,10.50.0.0/16 \
         peer {NEW} endpoint 192.0.2.1:5 allowed-ips 10.60.0.0/16; hybridwg save ./wg0.conf",
        public = KEYS.1
    ));
    outcome.assert_ok();
    let path = host.folder.path().join("wg0.conf");
    let told = [
        format!("{} was up to date\n", path.display()),
        format!("{} is up to date\n", path.display()),
    ];
    assert_eq!(outcome.err, told.concat());
    assert_eq!(fs::read_to_string(host.folder.path().join("same")).unwrap(), text);
    let kept = fs::metadata(host.folder.path().join("same")).unwrap().permissions().mode();
    assert_eq!(kept & 0o777, 0o640, "what is up to date is not touched");
    let expected = text
        .replace("fd00:10::1/64\n", "fd00:10::1/64, 10.99.0.1/32\n")
        .replace("MTU = 1360", "MTU = 1280")
        .replace("echo '#x'\n", "echo '#x'\nListenPort = 7777\n")
        .replace("AllowedIPs = 10.10.0.2/32, 172.16.0.0/12\n", "AllowedIPs = 10.10.0.2/32\n")
        .replace("192.168.7.0/24, fd00:77::/48\n", "192.168.7.0/24, 10.50.0.0/16\n")
        + &format!(
            "PersistentKeepalive = 9\n\n[Peer]\nPublicKey = {NEW}\nAllowedIPs = 10.60.0.0/16\n\
             Endpoint = 192.0.2.1:5\n"
        );
    assert_eq!(file(&host), expected);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

/// The file is reached by a link, has lines that nobody knows by then, and is open elsewhere.
#[test]
fn wq_30_save_replaces_what_a_link_leads_to_at_once_and_keeps_unknown_lines() {
    if skips(&programs()) {
        return;
    }
    let text = config("MTU = 1360\n# last");
    let host = Host::new(&text);
    let outcome = host.run(
        "mkdir real; mv wg0.conf real; ln -s real/wg0.conf wg0.conf; hybridwg up ./wg0.conf 2> /dev/null || exit 1; \
         printf '[Cloud]\\nRegion = here # known to others\\n' >> real/wg0.conf; chmod 0640 real/wg0.conf; \
         echo prepared > real/wg0.conf.tmp; exec 5< real/wg0.conf; ip link set mtu 1280 dev wg0; \
         hybridwg save ./wg0.conf 2> /dev/null || exit 2; readlink wg0.conf; ls real; stat -c %a real/wg0.conf; \
         grep MTU <&5",
    );
    assert_eq!(outcome.out, "real/wg0.conf\nwg0.conf\n600\nMTU = 1360\n", "{}", outcome.err);
    let expected =
        text.replace("MTU = 1360", "MTU = 1280") + "[Cloud]\nRegion = here # known to others\n";
    assert_eq!(file(&host), expected);
}

#[test]
fn wq_29_down_saves_after_pre_down_and_before_the_interface_goes() {
    if skips(&programs()) {
        return;
    }
    let text = config("SaveConfig = true\nPreDown = wg set %i listen-port 7778");
    let host = Host::new(&text);
    let outcome = host.run("hybridwg up ./wg0.conf && hybridwg down ./wg0.conf");
    outcome.assert_ok();
    assert_eq!(
        file(&host),
        text.replace("listen-port 7778\n", "listen-port 7778\nListenPort = 7778\n")
    );
}

#[test]
fn a_tunnel_that_cannot_be_saved_stays_up_and_the_way_out_is_told() {
    if skips(&programs()) {
        return;
    }
    let host = Host::new(&config("SaveConfig = true\nPostDown = echo GONE"));
    let outcome = host.run(
        "hybridwg up ./wg0.conf 2> /dev/null; wg set wg0 listen-port 7779; mount --bind . . || exit 3; \
         mount -o remount,bind,ro . || exit 3; cd .; $PWD/hybridwg down $PWD/wg0.conf; echo code $?; \
         ip -o link show wg0 | wc -l",
    );
    assert_eq!(outcome.out, "code 1\n1\n", "{}", outcome.err);
    let path = host.folder.path().join("wg0.conf");
    let told = format!(
        "hybridwg: wg0 stays up, because what has changed could not be saved: cannot replace {}: \
         Read-only file system (os error 30)\nhint: `ip link delete dev wg0` takes wg0 down without",
        path.display()
    );
    assert!(outcome.err.contains(&told), "{}", outcome.err);
}

#[test]
fn save_refuses_what_is_not_up_and_a_file_with_faults_and_keeps_the_file() {
    if skips(&programs()) {
        return;
    }
    let host = Host::new(&config(""));
    let outcome = host.run(
        "hybridwg save ./wg0.conf; echo code $?; hybridwg up ./wg0.conf 2>/dev/null; \
         echo 'MTU = big' >> wg0.conf; hybridwg save ./wg0.conf; echo code $?; tail -n 1 wg0.conf",
    );
    assert_eq!(outcome.out, "code 1\ncode 2\nMTU = big\n", "{}", outcome.err);
    assert!(outcome.err.contains("`wg0' is not a WireGuard interface"), "{}", outcome.err);
    assert!(outcome.err.contains(":10: MTU: belongs into [Interface]"), "{}", outcome.err);
}

#[test]
fn wq_31_strip_prints_what_wg_quick_strip_prints_and_nothing_of_a_file_with_a_fault() {
    if skips(&[PROGRAMS, &["wg-quick"]].concat()) {
        return;
    }
    let host = Host::new(&config("# a comment\nMTU = 1360\nPostUp = echo 1 # 2\nFwMark = 0x5\n\n"));
    let outcome = host.run(
        "hybridwg strip ./wg0.conf > ours || exit 1; wg-quick strip ./wg0.conf > theirs || exit 2; \
         echo >> ours; cmp ours theirs || exit 3; echo 'Colour = red' >> wg0.conf; hybridwg strip ./wg0.conf",
    );
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(2), ""), "{}", outcome.err);
}
