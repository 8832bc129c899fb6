//! Clients that get out under their hub's address, as an operator brings it about.
//!
//! The hub is where the scripts run; the client `c`, and behind the hub a router `r` and a server
//! `s`, to whom the tunnel's network is unknown.

use super::script::{Host, PROGRAMS};
use super::skips;

/// The machines and their wires; `hub.conf` with the lines of `$1`, and `client.conf`.
const NETWORK: &str = r#"
    wire() { ip link add x1 type veth peer name x2
        for side in 1 2; do
            ip link set x$side netns $1 name $2
            ip netns exec $1 sh -c "echo 0 > /proc/sys/net/ipv6/conf/$2/accept_dad"
            for a in $3; do case $a in *:*) d=nodad;; *) d=;; esac; ip -n $1 address add $a dev $2 $d; done
            ip -n $1 link set $2 up; shift 3
        done }
    for n in c r s; do ip netns add $n; ip -n $n link set lo up; eval "$n() { ip netns exec $n \"\$@\"; }"; done
    touch /run/netns/hub; mount --bind /proc/self/ns/net /run/netns/hub
    wire c eth0 192.168.7.2/24 hub eth0 192.168.7.1/24
    wire hub ens5 '203.0.113.1/24 2001:db8:1::1/64' r eth0 '203.0.113.2/24 2001:db8:1::2/64'
    wire r eth1 '198.51.100.1/24 2001:db8:2::1/64' s eth0 '198.51.100.2/24 2001:db8:2::2/64'
    ip route add default via 203.0.113.2; ip -6 route add default via 2001:db8:1::2
    ip -n s route add default via 198.51.100.1; ip -n s -6 route add default via 2001:db8:2::1
    r sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'
    hub=$(hybridwg genkey) client=$(hybridwg genkey)
    conf() { umask 077; cat > hub.conf << END
[Interface]
PrivateKey = $hub
Address = 10.10.0.1/24, fd10::1/64
ListenPort = 51820
$1
[Peer]
PublicKey = $(hybridwg pubkey <<< $client)
AllowedIPs = 10.10.0.2/32, fd10::2/128
END
    cat > client.conf << END
[Interface]
PrivateKey = $client
Address = 10.10.0.2/32, fd10::2/128
[Peer]
PublicKey = $(hybridwg pubkey <<< $hub)
AllowedIPs = 10.10.0.1/32, fd10::1/128, 198.51.100.0/24, 203.0.113.0/24, 2001:db8::/32, 169.254.0.0/16
AllowedIPs = 64:ff9b::/96
Endpoint = 192.168.7.1:51820
END
    umask 022; }
    c() { ip netns exec c "$@"; }
    # For a hub that has forgotten it.
    c_again() { c ./hybridwg down ./client.conf > client.log 2>&1; c_up; }
    c_up() { ip netns exec c ./hybridwg up ./client.conf > client.log 2>&1; }
    forwards() { cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding | tr '\n' ' '; }
    # The program and no other: neither nft nor iptables nor sysctl is there.
    alone() { unshare --mount bash -c 'mount -t tmpfs none /usr/sbin && PATH=/nowhere exec "$@"' x "$PWD/hybridwg" "$@"; }
    within() { for i in {1..1000}; do eval "$1" > /dev/null 2>&1 && return; sleep 0.02; done; echo "not: $1" >&2; exit 90; }
    port() { within "s ss -Hltn 'sport = $1' | grep -q ."; }
"#;

fn programs() -> Vec<&'static str> {
    [PROGRAMS, &["nft", "ping", "ss"]].concat()
}

/// The hub does it all alone; what clients use gets through, and nothing stays.
#[test]
fn u_24_clients_get_out_under_the_hubs_address_and_all_of_it_goes_with_the_daemon() {
    let more = ["traceroute", "mtr", "curl", "vsftpd", "iperf3", "iptables"];
    if skips(&programs()) || skips(&more) {
        return;
    }
    let outcome = Host::new("").run(&format!(
        r##"{NETWORK} conf '#hybridwg: Masquerade = auto'; nft list ruleset > before; forwards
        alone up ./hub.conf || exit 1; c_up || exit 2; forwards
        echo; for a in 198.51.100.2 2001:db8:2::2; do
            c ping -n -q -c 1 -W 5 $a > log || exit 3
            c traceroute -n -q 1 -w 3 $a | sed 1d | awk '{{ print $2 }}' | xargs
            c mtr -n -r -c 1 -G 1 $a | grep -- '|--' | awk '{{ print $2 }}' | xargs
        done
        r nft 'table ip t {{ chain c {{ type filter hook prerouting priority 0; meta l4proto != tcp accept;
            ip frag-off & 0x3fff != 0 counter; ip length < 1000 accept;
            ip frag-off & 0x4000 == 0 counter; counter; }}; }}'
        s iperf3 -s -D --logfile $PWD/iperf; port 5201
        c iperf3 -c 198.51.100.2 -n 100M > log || {{ cat log; exit 4; }}; port 5201
        c iperf3 -u -b 20M -c 198.51.100.2 -n 1M > log || {{ cat log; exit 5; }}
        grep -o 'connection from [0-9.]*' iperf | sort -u
        r nft list table ip t | grep -o 'packets [0-9]*' | sed 's/[1-9][0-9]*/many/' | xargs
        mkdir -p ftp/pub ftp/empty; head -c 1000000 /dev/urandom > ftp/pub/file
        printf '%s\n' listen=YES background=YES anonymous_enable=YES isolate=NO isolate_network=NO \
            seccomp_sandbox=NO anon_root=$PWD/ftp/pub secure_chroot_dir=$PWD/ftp/empty > ftp/conf
        s vsftpd $PWD/ftp/conf; port 21
        c curl -sS --max-time 20 ftp://198.51.100.2/file | cmp - ftp/pub/file || exit 6
        # What others do to the firewall, and what ends the daemon.
        nft flush ruleset; c ping -n -q -c 1 -W 5 198.51.100.2 > log || exit 7
        iptables -t nat -F; c ping -n -q -c 1 -W 5 198.51.100.2 > log || exit 8
        alone reload ./hub.conf || exit 9; c ping -n -q -c 1 -W 5 198.51.100.2 > log || exit 10
        kill -9 $(pgrep -ax hybridwg | grep ' hub$' | cut -d ' ' -f 1) || exit 11; within '! ip link show hub'
        within 'nft list ruleset | diff before -'
        forwards; alone down ./hub.conf || exit 13; forwards; ls /run/hybridwg"##
    ));
    outcome.assert_ok();
    let hops = "10.10.0.1 203.0.113.2 198.51.100.2\n";
    let hops_v6 = "fd10::1 2001:db8:1::2 2001:db8:2::2\n";
    let out = format!(
        "0 0 1 1 \n{hops}{hops}{hops_v6}{hops_v6}connection from 203.0.113.1\n\
         packets 0 packets 0 packets many\n1 1 0 0 client.applied\n"
    );
    assert_eq!(outcome.out, out);
    let commands = outcome.commands();
    for line in [
        "# hub: masquerades 10.10.0.2/32 by nftables (auto: nothing stands in the way)",
        "sysctl -q net.ipv4.ip_forward=1",
        "# hub: masquerades fd10::2/128 by nftables (auto: nothing stands in the way)",
        "sysctl -q net.ipv6.conf.ens5.accept_ra=2 net.ipv6.conf.all.forwarding=1",
        "sysctl -q net.ipv6.conf.all.forwarding=0 net.ipv6.conf.ens5.accept_ra=1",
    ] {
        assert!(commands.contains(&line), "no {line} in {commands:?}");
    }
}

#[test]
fn allow_to_and_deny_to_decide_where_clients_get_and_follow_a_reload() {
    if skips(&programs()) {
        return;
    }
    let outcome = Host::new("").run(&format!(
        r##"{NETWORK} conf '#hybridwg: Masquerade = nft'; hybridwg up ./hub.conf || exit 1; c_up || exit 2
        s ip address add 198.51.100.3/24 dev eth0; s sh -c 'ip address add 198.51.100.4/24 dev eth0'
        r ip route add 169.254.169.254 via 198.51.100.2
        s ip address add 169.254.169.254/32 dev lo; s ip address add 64:ff9b::a9fe:a9fe/128 dev lo
        way() {{ for a in "$@"; do c ping -n -c 1 -W 5 $a | grep -o 'bytes from\|filtered\|prohibited' || echo lost; done | xargs; }}
        tcp() {{ c bash -c "exec 3<> /dev/tcp/198.51.100.2/$1" 2>&1 | grep -om1 'refused\|No route' || echo open; }}
        way 198.51.100.2 198.51.100.3 169.254.169.254 64:ff9b::169.254.169.254 203.0.113.1
        conf '#hybridwg: Masquerade = nft
#hybridwg: AllowTo = 198.51.100.2:80-90/tcp, 198.51.100.0/24/icmp, 169.254.169.254
#hybridwg: DenyTo = 198.51.100.3'; hybridwg reload ./hub.conf || exit 3
        way 198.51.100.2 198.51.100.3 198.51.100.4 169.254.169.254 2001:db8:2::2
        for p in 79 80 90 91; do tcp $p; done | xargs
        conf '#hybridwg: Masquerade = nft
#hybridwg: MasqueradeFrom = fd10::/64'; hybridwg reload ./hub.conf || exit 4
        # Whoever else lets the host forward.
        nft list tables; echo 1 > /proc/sys/net/ipv4/ip_forward; way 2001:db8:2::2 169.254.169.254
        echo 0 > /proc/sys/net/ipv4/ip_forward
        conf ''; hybridwg reload ./hub.conf || exit 5; nft list tables; hybridwg down ./hub.conf || exit 6; forwards
        conf '#hybridwg: Masquerade = nft
#hybridwg: DenyTo = host:22'; hybridwg up ./hub.conf && exit 7
        conf '#hybridwg: Masquerade = auto'; sed -i 's/^Allowed.*/AllowedIPs = 0.0.0.0\/0/' hub.conf
        hybridwg up ./hub.conf && exit 8; nft list ruleset; forwards; ls /run/hybridwg /run/wireguard"##
    ));
    outcome.assert_ok();
    let out = &outcome.out;
    assert!(out.starts_with("bytes from bytes from filtered prohibited bytes from\n"), "{out}");
    assert!(out.contains("bytes from filtered bytes from bytes from prohibited\n"), "{out}");
    assert!(out.contains("No route refused refused No route\n"), "{out}");
    assert!(
        out.contains(
            "table ip hybridwg_nat-hub\ntable ip6 hybridwg_nat-hub\nbytes from filtered\n"
        ),
        "{out}"
    );
    assert!(
        out.ends_with("0 0 0 0 /run/hybridwg:\nclient.applied\n\n/run/wireguard:\nclient.sock\n"),
        "{out}"
    );
    for told in [
        "hub cannot masquerade by nftables",
        "the rule `host:22` is about this host itself",
        "A peer of hub has everything (0.0.0.0/0 or ::/0)",
    ] {
        assert!(outcome.err.contains(told), "no {told} in {}", outcome.err);
    }
}

/// As Docker sets it up.
#[test]
fn where_somebody_else_drops_what_is_forwarded_flows_get_through_and_so_does_the_line_that_is_told()
{
    if skips(&programs()) || skips(&["iptables"]) {
        return;
    }
    let host = Host::new("");
    let outcome = host.run(&format!(
        r##"{NETWORK} conf '#hybridwg: Masquerade = auto'; iptables -P FORWARD DROP; nft list ruleset > before
        {FLOWS} hybridwg up ./hub.conf 2> told || exit 1; cat told >&2; nft list ruleset | diff before - || exit 2
        forwards; c_up || exit 4; pings || exit 9
        by_flow; hybridwg reload ./hub.conf 2>&1 | grep -i flow && exit 10
        sed -i 's/auto/nft/' hub.conf; hybridwg reload ./hub.conf || exit 3; by_flow && exit 12
        c ping -n -q -c 1 -W 1 198.51.100.2 > log && exit 5
        remedy told | bash || exit 6; pings || exit 7; iptables -S FORWARD > rules || exit 11; wc -l < rules
        # A second tunnel takes over what the first has changed.
        sed 's/10.10.0/10.11.0/g; s/fd10/fd11/g; /^Listen/d' hub.conf > two.conf; chmod 600 two.conf
        hybridwg up ./two.conf && hybridwg down ./hub.conf && forwards && hybridwg down ./two.conf || exit 8
        forwards"##
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "0 0 masquerade: flow by flow flows: 1\n3\n1 1 0 0 ");
    for told in [
        "flow by flow, and not by nftables: the chain FORWARD of the table ip filter drops what it \
         does not accept",
        "# hub: masquerades all peers flow by flow (auto: nftables would not do)",
        "# hub: masquerades nothing flow by flow",
        "what is masqueraded may not get through: the chain FORWARD",
    ] {
        assert!(outcome.err.contains(told), "no {told} in {}", outcome.err);
    }
    // At no time do neither rules of nftables nor those of flows hold.
    let commands = outcome.commands();
    let place = |what: &str| commands.iter().position(|it| it.contains(what)).unwrap();
    assert!(place("10.10.0.2/32 by nftables") < place("masquerades nothing flow by flow"));
}

/// Pings from the client that may, flows, and the line that `up` has told.
const FLOWS: &str = r#"
    echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range
    pings() { c ping -n -q -c 1 -W 5 198.51.100.2 > log; }
    by_flow() { hybridwg show hub | grep -A 1 'flow by flow' > shown && xargs < shown; }
    remedy() { grep -o "\(iptables\(-legacy\)\? -I\|nft 'insert\).*" $1; }
"#;

/// As firewalld and the "iptables-services" of other distributions set it up, and the iptables of old.
#[test]
fn chains_that_end_by_dropping_are_seen_whoever_has_made_them_and_empty_ones_stand_in_nobodys_way()
{
    if skips(&programs()) || skips(&["iptables", "iptables-legacy"]) {
        return;
    }
    let host = Host::new("");
    let outcome = host.run(&format!(
        r##"{NETWORK} {FLOWS} conf '#hybridwg: Masquerade = auto'
        case_() {{
            bash -c "$1" || exit 2; hybridwg up ./hub.conf 2> told && c_again || exit 3; cat told >&2; pings || exit 4
            by_flow > how; remedy told > line; hybridwg down ./hub.conf || exit 5
            if [ ! -s how ]; then echo nft; return; fi; echo "flow, $(cut -c 1-40 line)"
            sed 's/auto/nft/' hub.conf > forced/hub.conf; hybridwg up ./forced/hub.conf && c_again || exit 6
            c ping -n -q -c 1 -W 1 198.51.100.2 > log && exit 7
            bash line || exit 8; pings || exit 9; hybridwg down ./forced/hub.conf || exit 10; }}
        mkdir forced; umask 077
        case_ 'iptables -A FORWARD -i x -j REJECT'
        case_ 'iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited'; iptables -S > rules || exit 11
        iptables -F
        case_ 'nft "table inet fw {{ chain last {{ counter reject with icmpx admin-prohibited; }}; \
            chain f {{ type filter hook forward priority 10; ct state established accept; jump last; }}; }}"'
        nft delete table inet fw
        if iptables-legacy -S > log; then
            case_ 'iptables-legacy -A INPUT -i x -j DROP'
            case_ 'iptables-legacy -P FORWARD DROP'
        else echo 'no legacy'; fi"##
    ));
    outcome.assert_ok();
    let seen = "nft\nflow, iptables -I FORWARD -i hub -j ACCEPT; ip\n\
                flow, nft 'insert rule inet fw f iifname \"hub\"\n";
    let legacy = "nft\nflow, iptables-legacy -I FORWARD -i hub -j ACC\n";
    let expected = [legacy, "no legacy\n"].map(|legacy| format!("{seen}{legacy}"));
    assert!(expected.contains(&outcome.out), "{}", outcome.out);
}

#[test]
fn a_reload_leaves_and_takes_every_way_with_what_belongs_to_it() {
    if skips(&programs()) {
        return;
    }
    let outcome = Host::new("").run(&format!(
        r##"{NETWORK} {FLOWS} conf '#hybridwg: Masquerade = nft'; c_up || exit 1
        state() {{ echo "$(forwards)$(cat /proc/sys/net/ipv6/conf/ens5/accept_ra) $(nft list tables | sort | xargs)"; }}
        to() {{ conf "$1"; hybridwg reload ./hub.conf || exit 2; state; }}
        hybridwg up ./hub.conf || exit 3; state; pings || exit 4
        to ''; to '#hybridwg: Masquerade = nft'; pings || exit 5
        to '#hybridwg: Masquerade = flow'; by_flow > log || exit 6
        to '#hybridwg: Masquerade = nft
#hybridwg: MasqueradeFrom = 10.10.0.0/24'; pings || exit 7
        to '#hybridwg: Masquerade = off'
        # What was taken by itself gives way to what it cannot do.
        to '#hybridwg: Masquerade = auto'; to '#hybridwg: Masquerade = auto
#hybridwg: DenyTo = host:22'; pings || exit 8; by_flow > log || exit 9
        # A rehearsal changes nothing, and a reload that fails leaves all as it was.
        conf '#hybridwg: Masquerade = nft'; hybridwg reload --dry-run ./hub.conf || exit 10; state
        hybridwg reload ./hub.conf || exit 11
        conf '#hybridwg: Masquerade = off
PostUp = false'; hybridwg reload --hooks ./hub.conf && exit 12; state; pings || exit 13
        # Killed, brought up again, and taken down.
        conf '#hybridwg: Masquerade = auto'; kill -9 $(pgrep -ax hybridwg | grep ' hub$' | cut -d ' ' -f 1) || exit 14
        within '! ip link show hub'; within '! nft list tables | grep .'; state; hybridwg up ./hub.conf && c_again || exit 15; state; pings || exit 16
        hybridwg down ./hub.conf || exit 17; state; ls /run/hybridwg"##
    ));
    outcome.assert_ok();
    let both = "1 1 2 table ip hybridwg_nat-hub table ip6 hybridwg_nat-hub\n";
    let (none, v4) = ("0 0 1 \n", both.replacen("1 1 2", "1 0 1", 1));
    let out = [
        both,
        none,
        both,
        none,
        &v4,
        none,
        both,
        none,
        none,
        both,
        "1 1 2 \n",
        both,
        none,
        "client.applied\n",
    ];
    assert_eq!(outcome.out, out.concat(), "{}", outcome.err);
}

/// The host's own way out is one that a router has told of.
#[test]
fn a_host_that_has_its_default_route_from_a_router_keeps_it_while_it_forwards_ipv6() {
    if skips(&programs()) || skips(&["radvd"]) {
        return;
    }
    let outcome = Host::new("").run(&format!(
        r##"{NETWORK} ip -6 route del default; echo 1 > /proc/sys/net/ipv6/conf/ens5/accept_ra
        echo 'interface eth0 {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; }};' > radvd.conf; chmod 644 radvd.conf
        r radvd -C $PWD/radvd.conf -p $PWD/radvd.pid -m stderr -n 2> radvd.log &
        way() {{ ip -6 route show default dev ens5 proto ra | cut -d ' ' -f 1 | sort -u; }}
        ra() {{ cat /proc/sys/net/ipv6/conf/ens5/accept_ra; }}
        within 'way | grep default'
        conf '#hybridwg: Masquerade = auto'; hybridwg up ./hub.conf || exit 1; forwards; ra; way; c_up || exit 2
        c ping -n -q -c 1 -W 5 2001:db8:2::2 > log || exit 3
        # It goes on heeding routers: what one has told before is told again.
        ip -6 route del default dev ens5 proto ra; within 'way | grep default'
        hybridwg down ./hub.conf || exit 4; forwards; ra; way"##
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "1 1 2\ndefault\n0 0 1\ndefault\n");
}

/// Who comes later and finds forwarding on does not turn it on himself.
#[test]
fn forwarding_stays_for_whoever_translates_addresses_by_now_and_goes_with_the_last_tunnel() {
    if skips(&programs()) || skips(&["iptables"]) {
        return;
    }
    let outcome = Host::new("").run(&format!(
        r##"{NETWORK} conf '#hybridwg: Masquerade = nft'
        docker() {{ iptables -t nat $1 POSTROUTING -s 172.17.0.0/16 -j MASQUERADE; }}
        hybridwg up ./hub.conf || exit 1; docker -A; hybridwg down ./hub.conf 2> told || exit 2; forwards
        cat told >&2; echo 0 > /proc/sys/net/ipv4/ip_forward
        # It did without before.
        hybridwg up ./hub.conf && hybridwg down ./hub.conf || exit 3; forwards; docker -D
        # Tunnels that come and go at once; one is called as the rehearsal of another could be.
        sed 's/10.10.0/10.11.0/g; s/fd10/fd11/g; /^Listen/d' hub.conf > hub-trial.conf; chmod 600 hub-trial.conf
        both() {{ hybridwg $1 ./hub.conf & first=$!; hybridwg $1 ./hub-trial.conf || exit 4; wait $first || exit 5; }}
        for i in 1 2 3; do both up; forwards; both down; forwards; done; ls /run/hybridwg"##
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, format!("1 0 0 0 {}", "1 1 0 0 ".repeat(3)));
    let told =
        "# net.ipv4.ip_forward stays 1: the chain POSTROUTING of the table ip nat translates";
    assert!(outcome.commands().iter().any(|line| line.starts_with(told)), "{}", outcome.err);
}

/// What operators have in their files today.
#[test]
fn u_24_hooks_that_masquerade_by_iptables_go_on_working_and_so_do_they_beside_masquerade() {
    if skips(&programs()) || skips(&["iptables"]) {
        return;
    }
    let outcome = Host::new("").run(&format!(
        r##"{NETWORK} {FLOWS} nat='POSTROUTING -o ens5 -j MASQUERADE'
        hooks="PostUp = echo 1 > /proc/sys/net/ipv4/ip_forward; iptables -t nat -A $nat; iptables -A FORWARD -i %i -j ACCEPT
PostDown = iptables -t nat -D $nat; iptables -D FORWARD -i %i -j ACCEPT; echo 0 > /proc/sys/net/ipv4/ip_forward"
        rules() {{ iptables-save | grep -c '^-A'; }}
        conf "$hooks"; hybridwg up ./hub.conf && c_up || exit 1; pings || exit 2; rules
        hybridwg down ./hub.conf || exit 3; rules; forwards
        conf "#hybridwg: Masquerade = auto
$hooks"; hybridwg up ./hub.conf && c_again || exit 4; pings || exit 5; rules
        hybridwg down ./hub.conf || exit 6; rules; forwards"##
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "2\n0\n0 0 2\n0\n0 0 ");
}

/// Between client and hub lie two routers, and 1400 bytes between these; clouds drop fragments.
const NARROW: &str = r#"
    for n in p q; do ip netns add $n; eval "$n() { ip netns exec $n \"\$@\"; }"; done
    ip -n c link del eth0
    wire c eth0 192.168.7.2/24 p eth0 192.168.7.9/24; wire p eth1 192.168.8.1/24 q eth1 192.168.8.2/24
    wire q eth0 192.168.9.9/24 hub eth0 192.168.9.1/24
    ip -n p link set eth1 mtu 1400; ip -n q link set eth1 mtu 1400
    p sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'; q sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
    ip -n c route add default via 192.168.7.9; ip -n p route add 192.168.9.0/24 via 192.168.8.2
    ip -n q route add 192.168.7.0/24 via 192.168.8.1; ip route add 192.168.7.0/24 via 192.168.9.9
    for at in 'c nft' 'nft'; do $at 'table ip t { chain c { type filter hook prerouting priority -450;
        ip frag-off & 0x3fff != 0 counter drop; }; }'; done
    conf '#hybridwg: Masquerade = auto'; sed -i s/192.168.7.1:/192.168.9.1:/ client.conf
    # The most seconds in a row without a byte, and whether bytes came at all.
    stalls() { grep sec $1 | grep -v 'sender\|receiver' | awk '
        / 0.00 Bytes /{ if (++now > most) most = now; next } { now = 0; any = 1 }
        END { print (any && most < 5) ? "moves" : "stalls for " most " s" }'; }
    transfer() { s iperf3 -s -1 --logfile $PWD/server.log & port 5201
        c iperf3 -c 198.51.100.2 -t 6 -i 1 $1 > client.log || { cat client.log; exit 21; }; wait $!; }
    both_ways() { hybridwg up ./hub.conf || exit 22; c_up || exit 23
        transfer -R; stalls client.log; rm -f server.log; transfer; stalls server.log
        # The interface follows what was found.
        c cat /sys/class/net/client/mtu; }
"#;

#[test]
fn u_05_through_a_path_of_1400_bytes_that_says_so_masqueraded_connections_do_not_stall() {
    if skips(&programs()) || skips(&["iperf3"]) {
        return;
    }
    let outcome = Host::new("").run(&format!("{NETWORK} {NARROW} both_ways"));
    outcome.assert_ok();
    assert_eq!(outcome.out, "moves\nmoves\n1340\n");
}

#[test]
fn n_03_through_a_path_of_1400_bytes_that_says_nothing_masqueraded_connections_do_not_stall() {
    if skips(&programs()) || skips(&["iperf3"]) {
        return;
    }
    let outcome = Host::new("").run(&format!(
        r#"{NETWORK} {NARROW} for n in p q; do $n nft 'table ip t {{ chain c {{ type filter hook output priority 0;
            icmp type destination-unreachable counter drop; }}; }}'; done; both_ways
        # Somebody would have told.
        for n in p q; do $n nft list table ip t | grep -o 'packets [0-9]*' | sed 's/[1-9][0-9]*/some/'; done"#
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "moves\nmoves\n1280\npackets some\npackets some\n");
}
