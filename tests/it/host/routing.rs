//! Routes and policy rules, as `up` makes and `down` deletes them.

use super::script::{Host, KEYS, PROGRAMS};
use super::skips;

/// A tunnel that takes `networks`, on a host whose other way out is `eth0`.
fn config(interface: &str, address: &str, networks: &str) -> String {
    let (private, public) = KEYS;
    format!(
        "[Interface]\nPrivateKey = {private}\nAddress = {address}\n{interface}\n\
         [Peer]\nPublicKey = {public}\nAllowedIPs = {networks}\nEndpoint = 192.0.2.9:9\n"
    )
}

const EVERYTHING: &str = "0.0.0.0/0, ::/0";

/// A way out for both families, and functions that tell by which one an address is reached and what
/// the host's routing looks like.
const UPLINK: &str = "ip link add eth0 type veth peer name eth1; ip link set eth0 up; ip link set eth1 up; \
    ip address add 192.0.2.1/24 dev eth0; ip address add 2001:db8::1/64 dev eth0 nodad; \
    ip route add default via 192.0.2.254; ip -6 route add default via 2001:db8::fe; \
    way() { ip route get \"$@\" | grep -o 'dev [a-z0-9]*' || echo none; }; \
    host() { ip -4 rule; ip -6 rule; ip -4 route show table all; \
             ip -6 route show table all | sed 's/expires [0-9]*sec//'; \
             ip -o link | sed 's/^[0-9]*//'; ls /run/hybridwg 2> /dev/null; }; \
    gone() { while pgrep -x hybridwg > /dev/null; do sleep 0.02; done; }\n";

/// WQ-18, WQ-20.
#[test]
fn everything_goes_into_the_tunnel_but_networks_of_the_main_table_and_marked_packets() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("MTU = 1400", "10.10.0.1/24, fd10::1/64", EVERYTHING));
    let outcome = host.run(&format!(
        "{UPLINK} host > before; hybridwg up ./wg0.conf || exit 1; \
         for a in 203.0.113.9 192.0.2.77 2001:4860::9 2001:db8::77; do way $a; done; \
         mark=$(hybridwg show wg0 fwmark); echo $mark; \
         for a in 203.0.113.9 2001:4860::9; do way $a mark $mark; done; ip rule; ip -6 rule; \
         hybridwg down ./wg0.conf || exit 1; host | diff before -"
    ));
    outcome.assert_ok();
    assert_eq!(
        outcome.out,
        "dev wg0\ndev eth0\ndev wg0\ndev eth0\n0x1002\ndev eth0\ndev eth0\n\
         0:\tfrom all lookup local\n\
         32764:\tfrom all lookup main suppress_prefixlength 0 proto 87\n\
         32765:\tnot from all fwmark 0x1002 lookup 51820 proto 87\n\
         32766:\tfrom all lookup main\n32767:\tfrom all lookup default\n\
         0:\tfrom all lookup local\n\
         32764:\tfrom all lookup main suppress_prefixlength 0 proto 87\n\
         32765:\tnot from all fwmark 0x1002 lookup 51820 proto 87\n\
         32766:\tfrom all lookup main\n"
    );
    let rules = |family: &str, verb: &str| {
        [
            format!(
                "ip {family} rule {verb} preference 32764 table main suppress_prefixlength 0 protocol 87"
            ),
            format!(
                "ip {family} rule {verb} preference 32765 not fwmark 0x1002 table 51820 protocol 87"
            ),
        ]
    };
    let expected = [
        &["wg set wg0 fwmark 0x1002".to_owned()][..],
        &["ip -4 route add 0.0.0.0/0 dev wg0 table 51820".to_owned()],
        &rules("-4", "add"),
        &["ip -6 route add ::/0 dev wg0 table 51820".to_owned()],
        &rules("-6", "add"),
    ]
    .concat();
    let commands = outcome.commands();
    let start = commands.iter().position(|line| line.starts_with("wg set")).unwrap();
    assert_eq!(commands[start..start + expected.len()], expected);
}

/// The commands that are shown are ones that iproute2 takes.
#[test]
fn what_up_prints_can_be_typed() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("", "10.10.0.1/24, fd10::1/64", EVERYTHING));
    let outcome = host.run(&format!(
        "{UPLINK} hybridwg up ./wg0.conf 2> log || exit 1; hybridwg show wg0 fwmark; \
         host > first; grep '^\\[#\\] ip .* rule add' log | cut -c 5- > commands; wc -l < commands; \
         sed 's/ add / delete /' commands | bash -e || exit 2; bash -e commands || exit 3; \
         host | diff first -"
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "0x1002\n4\n");
}

/// WQ-25: wg-quick deletes the suppressing rules of every tunnel.
#[test]
fn down_deletes_the_rules_of_its_own_tunnel_and_nobody_elses() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("", "10.10.0.1/24", "0.0.0.0/0"));
    host.write("wg1.conf", &config("FwMark = 77", "10.11.0.1/24, fd11::1/64", EVERYTHING));
    let outcome = host.run(&format!(
        "{UPLINK} ip rule add table main suppress_prefixlength 0; \
         ip rule add preference 100 not fwmark 0x1002 table 51820; host > before; \
         hybridwg up ./wg0.conf && host > first && hybridwg up ./wg1.conf && \
         way 203.0.113.9 && way 203.0.113.9 mark 77 && hybridwg down ./wg1.conf || exit 1; \
         host | diff first - || exit 2; hybridwg up ./wg1.conf && hybridwg down ./wg0.conf && \
         way 203.0.113.9 && way 2001:4860::9 && hybridwg down ./wg1.conf || exit 3; \
         host | diff before -"
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "dev wg1\ndev wg0\ndev wg1\ndev wg1\n");
}

/// WQ-20: the mark is also the number of the table.
#[test]
fn a_mark_of_the_file_or_of_a_hook_is_used_as_it_is() {
    if skips(PROGRAMS) || skips(&["wg"]) {
        return;
    }
    let host = Host::new(&config("FwMark = 0x4d2", "10.10.0.1/24", "0.0.0.0/0"));
    host.write("wg1.conf", &config("PreUp = wg set %i fwmark 77", "10.11.0.1/24", "0.0.0.0/0"));
    let outcome = host.run(&format!(
        "{UPLINK} for i in 0 1; do hybridwg up ./wg$i.conf && ip rule | grep fwmark && hybridwg down ./wg$i.conf \
         || exit 1; done"
    ));
    outcome.assert_ok();
    assert_eq!(
        outcome.out,
        "32765:\tnot from all fwmark 0x4d2 lookup 1234 proto 87\n\
         32765:\tnot from all fwmark 0x4d lookup 77 proto 87\n"
    );
    assert!(!outcome.err.contains("[#] wg set wg0"), "{}", outcome.err);
}

/// WQ-18.
#[test]
fn a_table_of_the_file_gets_every_route_and_nothing_else_happens() {
    if skips(PROGRAMS) {
        return;
    }
    let networks = "10.10.0.7/32, 172.16.0.0/12, 0.0.0.0/0, ::/0";
    let host = Host::new(&config("Table = 1234", "10.10.0.1/24, fd10::1/64", networks));
    host.write("wg1.conf", &config("Table = vpn", "10.11.0.1/24", "10.99.0.0/16"));
    host.write("wg2.conf", &config("Table = main", "10.12.0.1/24", "10.98.0.0/16"));
    host.write("wg3.conf", &config("Table = nowhere", "10.13.0.1/24", "10.97.0.0/16"));
    host.write("wg4.conf", &config("Table = off", "10.14.0.1/24", "10.96.0.0/16, 0.0.0.0/0"));
    let outcome = host.run(&format!(
        "{UPLINK} mount -t tmpfs none /etc; mkdir /etc/iproute2; echo '99 vpn' > /etc/iproute2/rt_tables; \
         ip rule > rules; ip -6 rule >> rules; \
         for i in 0 1 2 4; do hybridwg up ./wg$i.conf || exit 1; hybridwg show wg$i fwmark; done; \
         {{ ip rule; ip -6 rule; }} | diff rules - && ip -4 route show table 1234 && \
         ip -6 route show table 1234 && ip route show table 99 && ip route show dev wg2 && \
         ip -4 route show table all | grep wg4; \
         hybridwg up ./wg3.conf; echo code $?"
    ));
    assert_eq!(
        outcome.out,
        "off\noff\noff\noff\n\
         default dev wg0 scope link \n10.10.0.7 dev wg0 scope link \n172.16.0.0/12 dev wg0 scope link \n\
         default dev wg0 metric 1024 pref medium\n10.99.0.0/16 dev wg1 scope link \n\
         10.12.0.0/24 proto kernel scope link src 10.12.0.1 \n10.98.0.0/16 scope link \n\
         10.14.0.0/24 dev wg4 proto kernel scope link src 10.14.0.1 \n\
         local 10.14.0.1 dev wg4 table local proto kernel scope host src 10.14.0.1 \n\
         broadcast 10.14.0.255 dev wg4 table local proto kernel scope link src 10.14.0.1 \ncode 1\n",
        "{}",
        outcome.err
    );
    let told = "hybridwg: no routing table is called \"nowhere\": a line `NUMBER nowhere` in \
                /etc/iproute2/rt_tables gives it a number\n";
    assert!(outcome.err.ends_with(told), "{}", outcome.err);
}

#[test]
fn rules_are_taken_back_when_a_later_step_fails() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("PostUp = exit 7", "10.10.0.1/24", EVERYTHING));
    let outcome = host.run(&format!(
        "{UPLINK} host > before; hybridwg up ./wg0.conf; echo code $?; host | diff before -"
    ));
    assert_eq!(outcome.out, "code 1\n", "{}", outcome.err);
}

#[test]
fn whatever_ends_the_daemon_the_next_up_works_and_the_next_down_leaves_nothing() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("PostDown = echo gone", "10.10.0.1/24", EVERYTHING));
    for end in ["kill -9 $(pgrep -x hybridwg)", "kill $(pgrep -x hybridwg)", "ip link delete wg0"] {
        let outcome = host.run(&format!(
            "{UPLINK} host > before; \
             hybridwg up ./wg0.conf && {end} && gone && hybridwg up ./wg0.conf && way 203.0.113.9 && \
             ip rule | grep -c 'lookup 51820' && {end} && gone && hybridwg down ./wg0.conf || exit 1; \
             host | diff before -; hybridwg down ./wg0.conf; echo code $?"
        ));
        assert_eq!(outcome.out, "gone\ndev wg0\n1\ngone\ncode 1\n", "{end}: {}", outcome.err);
        let told = "Warning: the last daemon of wg0 ended without `hybridwg down`\n";
        assert_eq!(outcome.err.matches(told).count(), 1, "{}", outcome.err);
    }
}

/// U-14.
#[test]
fn without_ipv6_everything_of_ipv4_goes_into_the_tunnel() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("", "10.10.0.1/24, fd10::1/64", EVERYTHING));
    let outcome = host.run(&format!(
        "{UPLINK} for i in all default; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done; \
         host > before; hybridwg up ./wg0.conf && way 203.0.113.9 && ip -6 rule | grep -c 51820; \
         hybridwg down ./wg0.conf || exit 1; host | diff before -"
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "dev wg0\n0\n");
    let told = "IPv6 is disabled on this host: leaving out AllowedIPs ::/0\n";
    assert!(outcome.err.contains(told), "{}", outcome.err);
}

#[test]
fn rules_that_could_not_be_found_again_are_not_made() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("", "10.10.0.1/24", "0.0.0.0/0"));
    let outcome = host.run(&format!(
        "{UPLINK} mkdir /run/hybridwg; mount -t tmpfs -o ro none /run/hybridwg; host > before; \
         hybridwg up ./wg0.conf; echo code $?; host | diff before -"
    ));
    assert_eq!(outcome.out, "code 1\n", "{}", outcome.err);
    let told = "hybridwg: cannot write /run/hybridwg/wg0.changes, without which nothing could be \
                taken back after a crash: Read-only file system (os error 30)\n";
    assert!(outcome.err.ends_with(told), "{}", outcome.err);
}
