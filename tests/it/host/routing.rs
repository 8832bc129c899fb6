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

/// A way out for both families, whose link-local addresses the kernel gives it a moment later, and
/// functions that tell by which one an address is reached and what the host's routing looks like.
pub const UPLINK: &str = "ip link add eth0 type veth peer name eth1; \
    for i in eth0 eth1; do echo 0 > /proc/sys/net/ipv6/conf/$i/accept_dad; done; ip link set eth0 up; ip link set eth1 up; \
    ip address add 192.0.2.1/24 dev eth0; ip address add 2001:db8::1/64 dev eth0 nodad; \
    ip route add default via 192.0.2.254; ip -6 route add default via 2001:db8::fe; \
    for i in $(seq 500); do [ $(ip -6 route show table local | grep -c '^local fe80') = 2 ] && break; sleep 0.02; done; \
    way() { ip route get \"$@\" | grep -o 'dev [a-z0-9]*' || echo none; }; \
    host() { ip -4 rule; ip -6 rule; ip -4 route show table all; \
             ip -6 route show table all | sed 's/expires [0-9]*sec//'; \
             ip -o link | sed 's/^[0-9]*//'; ls /run/hybridwg 2> /dev/null; \
             nft list ruleset; cat /proc/sys/net/ipv4/conf/all/src_valid_mark; }; \
    gone() { while pgrep -x hybridwg > /dev/null; do sleep 0.02; done; }\n";

/// WQ-18, WQ-20, U-19.
#[test]
fn everything_goes_into_the_tunnel_but_networks_of_the_main_table_and_marked_packets() {
    if skips(PROGRAMS) || skips(&["nft"]) {
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
    // The address that the kernel gives to the link is guarded as well.
    let table = |family: &str, address: &str| {
        let lines = outcome.commands();
        let start = format!("nft 'table {family} hybridwg-wg0 ");
        let line = lines.iter().find(|line| line.starts_with(&start)).unwrap();
        let guard = format!("{family} daddr {address} fib saddr type != local drop;");
        assert!(line.contains(&guard), "{line}");
        (*line).to_owned()
    };
    let expected = [
        &["sysctl -q net.ipv4.conf.all.src_valid_mark=1".to_owned()][..],
        &[table("ip6", "fd10::1")],
        &["ip -4 route add 0.0.0.0/0 dev wg0 table 51820".to_owned()],
        &rules("-4", "add"),
        &["ip -6 route add ::/0 dev wg0 table 51820".to_owned()],
        &rules("-6", "add"),
    ]
    .concat();
    let commands = outcome.commands();
    let marked = commands.iter().position(|line| *line == "wg set wg0 fwmark 0x1002").unwrap();
    assert!(commands[marked + 1].starts_with("ip -4 address add"), "{commands:?}");
    let start = commands.iter().position(|line| line.starts_with("sysctl")).unwrap();
    assert_eq!(commands[start - 1], table("ip", "10.10.0.1"));
    assert_eq!(commands[start..start + expected.len()], expected);
}

/// The commands that are shown are ones that iproute2 takes.
#[test]
fn what_up_prints_can_be_typed() {
    if skips(PROGRAMS) || skips(&["nft"]) {
        return;
    }
    let host = Host::new(&config("", "10.10.0.1/24, fd10::1/64", EVERYTHING));
    let outcome = host.run(&format!(
        "{UPLINK} hybridwg up ./wg0.conf 2> log || exit 1; hybridwg show wg0 fwmark; \
         host > first; grep -o 'nft .*' log > tables; wc -l < tables; \
         typed() {{ nft list ruleset | sed 's/ # progname.*//; /flags owner/d; /^$/d'; }}; typed > made; \
         unshare --net bash -c \"$(declare -f typed); bash -e tables && typed\" | diff made - || exit 4; \
         grep '^\\[#\\] ip .* rule add' log | cut -c 5- > commands; wc -l < commands; \
         sed 's/ add / delete /' commands | bash -e || exit 2; bash -e commands || exit 3; \
         host | diff first -"
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "0x1002\n2\n4\n");
}

/// WQ-25: wg-quick deletes the suppressing rules of every tunnel.
#[test]
fn down_deletes_the_rules_of_its_own_tunnel_and_nobody_elses() {
    if skips(PROGRAMS) || skips(&["nft"]) {
        return;
    }
    let host = Host::new(&config("", "10.10.0.1/24", "0.0.0.0/0"));
    host.write("wg1.conf", &config("FwMark = 77", "10.11.0.1/24, fd11::1/64", EVERYTHING));
    let outcome = host.run(&format!(
        "{UPLINK} ip rule add table main suppress_prefixlength 0; \
         echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark; ip rule add preference 100 not fwmark 0x1002 table 51820; host > before; \
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
    if skips(PROGRAMS) || skips(&["nft"]) || skips(&["wg"]) {
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
    if skips(PROGRAMS) || skips(&["nft"]) {
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
    if skips(PROGRAMS) || skips(&["nft"]) {
        return;
    }
    let host = Host::new(&config("PostUp = exit 7", "10.10.0.1/24", EVERYTHING));
    let outcome = host.run(&format!(
        "{UPLINK} host > before; hybridwg up ./wg0.conf; echo code $?; host | diff before -"
    ));
    assert_eq!(outcome.out, "code 1\n", "{}", outcome.err);
}

/// WQ-24.
#[test]
fn whatever_ends_the_daemon_the_next_up_works_and_the_next_down_leaves_nothing() {
    if skips(PROGRAMS) || skips(&["nft"]) {
        return;
    }
    let host = Host::new(&config("PostDown = echo gone", "10.10.0.1/24", EVERYTHING));
    for end in ["kill -9 $(pgrep -x hybridwg)", "kill $(pgrep -x hybridwg)", "ip link delete wg0"] {
        let outcome = host.run(&format!(
            "{UPLINK} host > before; \
             hybridwg up ./wg0.conf && {end} && gone && nft list ruleset && hybridwg up ./wg0.conf && \
             way 203.0.113.9 && \
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
    if skips(PROGRAMS) || skips(&["nft"]) {
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
    if skips(PROGRAMS) || skips(&["nft"]) {
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

/// A hub beyond the uplink, in a network namespace of its own: `at` runs something there. `wg0.conf`
/// gets its keys. The endpoint and 203.0.113.9 are reached by the default route.
const HUB: &str = "unshare --net sleep 600 & hub=$!; \
    until [ $(readlink /proc/$hub/ns/net) != $(readlink /proc/self/ns/net) ]; do sleep 0.01; done; \
    at() { nsenter -t $hub -n \"$@\"; }; umask 077; \
    ip link add eth0 type veth peer name eth0 netns $hub; ip link set eth0 up; at ip link set eth0 up; \
    ip address add 192.0.2.1/24 dev eth0; at ip address add 192.0.2.9/24 dev eth0; at ip link set lo up; \
    at ip address add 198.51.100.1/32 dev lo; at ip address add 203.0.113.9/32 dev lo; \
    ip route add default via 192.0.2.9; \
    mine=$(./hybridwg genkey) theirs=$(./hybridwg genkey); \
    sed -i \"s|PrivateKey = .*|PrivateKey = $mine|; s|PublicKey = .*|PublicKey = $(./hybridwg pubkey <<< $theirs)|; \
            s|Endpoint = .*|Endpoint = 198.51.100.1:51820|\" wg0.conf; \
    printf '[Interface]\nPrivateKey = %s\nListenPort = 51820\nAddress = 10.10.0.9/24\n[Peer]\nPublicKey = %s\nAllowedIPs = 10.10.0.1/32\n' \
        $theirs $(./hybridwg pubkey <<< $mine) > hub.conf; at ./hybridwg up ./hub.conf 2> /dev/null || exit 9; \
    pings() { ping -n -q -c 3 -i 0.2 -W 1 $1 > /dev/null; echo ping $?; }; \
    strict() { echo $1 > /proc/sys/net/ipv4/conf/eth0/rp_filter; }; \
    lax() { echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark; }\n";

/// WQ-21, WQ-22.
#[test]
fn the_tunnel_works_under_strict_reverse_path_filtering() {
    if skips(PROGRAMS) || skips(&["nft", "nsenter", "ping"]) {
        return;
    }
    let host = Host::new(&config("", "10.10.0.1/24", "0.0.0.0/0"));
    let outcome = host.run(&format!(
        "{HUB} strict 1; hybridwg up ./wg0.conf && pings 203.0.113.9; \
         hybridwg show wg0 transfer | cut -f 3 | grep -c '^0$'; hybridwg down ./wg0.conf"
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "ping 0\n0\n");
}

/// U-02.
#[test]
fn a_kernel_parameter_that_cannot_be_written_is_no_failure_and_what_it_costs_is_told() {
    if skips(PROGRAMS) || skips(&["nft", "nsenter", "ping"]) {
        return;
    }
    let host = Host::new(&config("", "10.10.0.1/24", "0.0.0.0/0"));
    for (filter, answer, told) in [
        (
            "1",
            "1",
            "replies to the tunnel are dropped, since reverse path filtering is strict on eth0 (rp_filter 1);",
        ),
        (
            "2",
            "0",
            "replies to the tunnel are dropped where reverse path filtering is strict (rp_filter 1), which it is nowhere on this host;",
        ),
    ] {
        let outcome = host.run(&format!(
            "{HUB} strict {filter}; lax; mount -o bind,ro /proc/sys /proc/sys; hybridwg up ./wg0.conf && \
             pings 203.0.113.9; hybridwg down ./wg0.conf"
        ));
        assert_eq!(outcome.out, format!("ping {answer}\n"), "{filter}: {}", outcome.err);
        let told = format!(
            "Warning: cannot write net.ipv4.conf.all.src_valid_mark: Read-only file system \
                            (os error 30). Without it, {told}"
        );
        assert!(outcome.err.contains(&told), "{}", outcome.err);
    }
    // Where it was set from outside, nothing has to be written.
    let outcome = host.run(&format!(
        "{HUB} strict 1; echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark; mount -o bind,ro /proc/sys /proc/sys; \
         hybridwg up ./wg0.conf && pings 203.0.113.9; hybridwg down ./wg0.conf; \
         cat /proc/sys/net/ipv4/conf/all/src_valid_mark"
    ));
    assert_eq!(outcome.out, "ping 0\n1\n", "{}", outcome.err);
    assert!(!outcome.err.contains("Warning"), "{}", outcome.err);
}

/// WQ-21: CVE-2019-14899.
#[test]
fn nobody_beside_the_tunnel_reaches_its_address() {
    if skips(PROGRAMS) || skips(&["nft", "nsenter", "ping"]) {
        return;
    }
    let host = Host::new(&config("Table = off", "10.10.0.1/24", "0.0.0.0/0"));
    let outcome = host.run(&format!(
        "{HUB} beside() {{ at ip route add 10.10.0.1/32 via 192.0.2.1 dev eth0; \
             at ping -n -q -c 1 -W 1 10.10.0.1 > /dev/null; echo beside $?; \
             at ip route delete 10.10.0.1/32 via 192.0.2.1 dev eth0; \
             at ping -n -q -c 1 -W 2 10.10.0.1 > /dev/null; echo through $?; }}; \
         echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark; hybridwg up ./wg0.conf && ping -n -q -c 1 10.10.0.9 > /dev/null; beside; \
         hybridwg down ./wg0.conf; sed -i /Table/d wg0.conf; hybridwg up ./wg0.conf && pings 10.10.0.9; beside"
    ));
    assert_eq!(
        outcome.out, "beside 0\nthrough 0\nping 0\nbeside 1\nthrough 0\n",
        "{}",
        outcome.err
    );
}

/// WQ-22: wg-quick leaves it as it is.
#[test]
fn the_last_tunnel_that_needed_it_puts_the_kernel_parameter_back() {
    if skips(PROGRAMS) || skips(&["nft"]) {
        return;
    }
    let host = Host::new(&config("", "10.10.0.1/24", "0.0.0.0/0"));
    host.write("wg1.conf", &config("", "10.11.0.1/24", "0.0.0.0/0"));
    let outcome = host.run(&format!(
        "{UPLINK} set_() {{ cat /proc/sys/net/ipv4/conf/all/src_valid_mark; }}; \
         for i in '0 1' '1 0'; do set -- $i; hybridwg up ./wg$1.conf && hybridwg up ./wg$2.conf && \
         hybridwg down ./wg$1.conf && set_ && hybridwg down ./wg$2.conf && set_ || exit 1; done; \
         ip rule add table main suppress_prefixlength 0; hybridwg up ./wg0.conf && \
         hybridwg down ./wg0.conf && set_; ls /run/hybridwg"
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "1\n0\n1\n0\n1\n");
}

/// N-13, U-17.
#[test]
fn a_kill_switch_outlives_the_daemon_and_the_next_up_and_only_down_opens_it() {
    if skips(PROGRAMS) || skips(&["nft"]) {
        return;
    }
    let ways = "for a in 203.0.113.9 2001:4860::9 192.0.2.77 2001:db8::77; do way $a; done";
    let hooks = format!(
        "#hybridwg: KillSwitch = on\nPreUp = way() {{ ip route get \"$@\" 2> /dev/null | grep -o 'dev [a-z0-9]*' || echo none; }}; {ways}"
    );
    // IPv4 alone goes into the tunnel; IPv6 goes nowhere.
    let host = Host::new(&config(&hooks, "10.10.0.1/24", "0.0.0.0/0"));
    let lan = "dev eth0\ndev eth0\n";
    let (open, closed) = (format!("dev eth0\ndev eth0\n{lan}"), format!("none\nnone\n{lan}"));
    let up = format!("dev wg0\nnone\n{lan}");
    let outcome = host.run(&format!(
        "{UPLINK} host > before; hybridwg up ./wg0.conf && {ways}; \
         for i in 1 2; do kill -9 $(pgrep -x hybridwg); gone; {ways}; hybridwg up ./wg0.conf; {ways}; done; \
         way 203.0.113.9 mark $(hybridwg show wg0 fwmark); hybridwg down ./wg0.conf || exit 1; \
         host | diff before -"
    ));
    outcome.assert_ok();
    let again = format!("{closed}{closed}{up}");
    assert_eq!(outcome.out, format!("{open}{up}{again}{again}dev eth0\n"), "{}", outcome.err);
    // Whatever stands in the way, an `up` that fails opens nothing that was closed.
    let outcome = host.run(&format!(
        "{UPLINK} host > before; sed -i 's/PreUp.*/PostUp = ! test -e fail/; s/#hybridwg: KillSwitch/&/' wg0.conf; \
         touch fail; hybridwg up ./wg0.conf; host | diff before -; rm fail; hybridwg up ./wg0.conf || exit 1; \
         kill -9 $(pgrep -x hybridwg); gone; touch fail; hybridwg up ./wg0.conf; {ways}; \
         hybridwg down ./wg0.conf; host | diff before -"
    ));
    assert_eq!(outcome.out, closed, "{}", outcome.err);
}

/// N-13.
#[test]
fn a_kill_switch_is_lifted_for_names_and_refused_where_it_would_close_nothing() {
    if skips(PROGRAMS) || skips(&["nft"]) {
        return;
    }
    let text = config("#hybridwg: KillSwitch = on", "10.10.0.1/24", "0.0.0.0/0");
    let host = Host::new(&text.replace("192.0.2.9:9", "hub.test:9"));
    host.write("wg1.conf", &text.replace("0.0.0.0/0", "10.99.0.0/16"));
    let outcome = host.run(&format!(
        "{UPLINK} mount -t tmpfs none /etc; echo 'hosts: files' > /etc/nsswitch.conf; \
         echo 192.0.2.9 hub.test > /etc/hosts; host > before; hybridwg up ./wg0.conf || exit 1; \
         kill -9 $(pgrep -x hybridwg); gone; hybridwg up ./wg0.conf && hybridwg down ./wg0.conf || exit 2; \
         hybridwg up ./wg1.conf; echo code $?; host | diff before -"
    ));
    assert_eq!(outcome.out, "code 1\n", "{}", outcome.err);
    let told = "Warning: the kill switch is lifted until the names of the endpoints are resolved\n";
    assert!(outcome.err.contains(told), "{}", outcome.err);
    let told = "hybridwg: KillSwitch is on, but nothing goes into wg1 by default: no peer has \
                0.0.0.0/0 or ::/0 in its AllowedIPs\n";
    assert!(outcome.err.ends_with(told), "{}", outcome.err);
}

/// U-21.
#[test]
fn a_mark_with_a_mask_is_known_whatever_others_set_in_the_other_bits() {
    if skips(PROGRAMS) || skips(&["nft"]) {
        return;
    }
    let host = Host::new(&config(
        "FwMark = 0x1002\n#hybridwg: FwMarkMask = 0x1fff",
        "10.10.0.1/24",
        "0.0.0.0/0",
    ));
    let outcome = host.run(&format!(
        "{UPLINK} hybridwg up ./wg0.conf && ip rule | grep fwmark && way 203.0.113.9 mark 0x5002 && \
         way 203.0.113.9 mark 0x5003 && nft list table ip hybridwg-wg0 | grep -c 0x00001fff"
    ));
    outcome.assert_ok();
    assert_eq!(
        outcome.out,
        "32765:\tnot from all fwmark 0x1002/0x1fff lookup 4098 proto 87\ndev eth0\ndev wg0\n2\n"
    );
}

/// Whatever is killed and when: the daemon alone, or `up` as well. A hook that outlives `up` is waited
/// for: it would make what it makes after everything has been taken back.
#[test]
fn a_kill_at_any_step_of_up_leaves_a_host_on_which_the_next_up_works_and_down_leaves_nothing() {
    if skips(PROGRAMS) || skips(&["nft", "mkfifo"]) {
        return;
    }
    let host = Host::new(&config(
        "DNS = 10.0.0.53\n#hybridwg: KillSwitch = on\nPreUp = touch made\nPostUp = test -e made\nPostDown = rm -f made",
        "10.10.0.1/24, fd10::1/64",
        "10.20.0.0/16, 0.0.0.0/0, ::/0",
    ));
    let outcome = host.run(&format!(
        "{UPLINK} mount -t tmpfs none /etc; echo nameserver 192.0.2.53 > /etc/resolv.conf; mkfifo told; \
         all() {{ host; cat /etc/resolv.conf; ls made /run/wireguard 2> /dev/null; }}; \
         alone() {{ while set -- /proc/[0-9]*; [ $# -gt 1 ]; do sleep 0.02; done; }}; \
         hybridwg up ./wg0.conf 2> log || exit 1; steps=$(grep -c '^.#' log); hybridwg down ./wg0.conf; \
         [ $steps -gt 15 ] || exit 2; all > before; \
         for who in daemon both; do for at in $(seq 2 $steps); do \
         ./hybridwg up ./wg0.conf 2> told & up=$!; exec 3< told; n=0; \
         while read -r line <&3; do case $line in '[#]'*) n=$((n + 1)); [ $n = $at ] || continue; \
             [ $who = both ] && kill -9 $up; kill -9 $(pgrep -x hybridwg | grep -vx $up) 2> /dev/null;; esac; done; \
         exec 3<&-; wait $up 2> /dev/null; alone; ip link show wg0 2> /dev/null && echo \"$who $at: still up\"; \
         hybridwg up ./wg0.conf 2> log && [ \"$(way 203.0.113.9)\" = 'dev wg0' ] || {{ echo \"$who $at: no up\"; cat log; }}; \
         hybridwg down ./wg0.conf 2> log || {{ echo \"$who $at: no down\"; cat log; }}; \
         all | diff before - || echo \"$who $at: something is left\"; done; done"
    ));
    assert_eq!(outcome.out, "", "{}", outcome.err);
}
