//! `reload`, SIGHUP and `up --watch`, as an operator uses them.

use super::routing::UPLINK;
use super::script::{Host, KEYS, LEFTOVERS, PROGRAMS, config};
use super::skips;

/// A peer that comes later.
const NEW: &str = "sbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbE=";

/// Changes of the file: addresses, MTU, a network less, a peer more.
const EDIT: &str = "sed -i 's/, fd00:10::1.64/, 10.20.0.1\\/16/; s/MTU = .*/MTU = 1300/; \
                    s/, 172.16.0.0.12//' wg0.conf; \
                    printf '[Peer]\\nPublicKey = sbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbE=\\n\
                    AllowedIPs = 10.50.0.0/16\\n' >> wg0.conf\n";

/// Waits until a command succeeds.
const UNTIL: &str = "until_it() { for i in $(seq 500); do eval \"$1\" && return; sleep 0.02; done; \
                     echo \"never: $1\" >&2; exit 9; }\n";

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
fn u_11_an_mtu_that_the_file_says_no_more_is_what_up_would_pick_and_a_policy_is_taken_back() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("#hybridwg: MTU = probe\nPostUp = true"));
    // As if it had been found out.
    let outcome = host.run(
        "mtu() { ip -o link show wg0 | grep -o 'mtu [0-9]*'; }; \
         hybridwg up ./wg0.conf 2> /dev/null || exit 1; ip link set wg0 mtu 1420; \
         sed -i 's/#hybridwg: MTU.*//; s/PostUp = true/PostUp = exit 7/' wg0.conf; \
         hybridwg reload --hooks ./wg0.conf 2> log; echo code $?; tail -n 3 log; mtu; \
         hybridwg reload ./wg0.conf 2> log; echo code $?; mtu; grep policy log",
    );
    assert_eq!(
        outcome.out,
        format!(
            "code 1\n[#] ip link set mtu 1420 up dev wg0\n[#] # wg0: MTU policy = probe\n{told}\n\
             mtu 1420\ncode 0\nmtu 1360\n[#] # wg0: MTU policy = auto\n",
            told = "hybridwg: PostUp failed (exit status: 7): exit 7"
        ),
        "{}",
        outcome.err
    );
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
fn u_11_hooks_that_have_changed_wait_until_they_are_asked_for_and_run_once() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("MTU = 1400\nPostUp = echo old up\nPostDown = echo old down"));
    let outcome = host.run(
        "hybridwg up ./wg0.conf 2> /dev/null || exit 1; sed -i 's/echo old/echo new/; s/1400/1300/' wg0.conf; \
         hybridwg reload ./wg0.conf 2> log; ip -o link show wg0 | grep -o 'mtu [0-9]*'; grep -c 'hooks have changed' log; \
         hybridwg reload --hooks ./wg0.conf 2> log; hybridwg reload --hooks ./wg0.conf; hybridwg down ./wg0.conf 2> /dev/null",
    );
    assert_eq!(outcome.out, "old up\nmtu 1300\n1\nold down\nnew up\nnew down\n", "{}", outcome.err);
}

#[test]
fn u_11_reload_refuses_an_empty_file_a_faulty_one_and_an_interface_that_is_not_up() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("MTU = 1400"));
    let outcome = host.run(
        "mkdir empty; touch empty/wg0.conf; hybridwg reload ./wg0.conf; echo code $?; hybridwg up ./wg0.conf 2> /dev/null; \
         hybridwg reload ./empty/wg0.conf; echo code $?; echo '[Peer]' > empty/wg0.conf; \
         hybridwg reload ./empty/wg0.conf; echo code $?; hybridwg show wg0 peers | wc -l",
    );
    assert_eq!(outcome.out, "code 1\ncode 2\ncode 2\n1\n", "{}", outcome.err);
    for part in [
        "hybridwg: `wg0' is not a WireGuard interface\n",
        "wg0.conf says nothing, and is not taken for a configuration\n",
        "this [Peer] has no PublicKey\n",
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
        "{UNTIL} hybridwg up ./wg0.conf 2> /dev/null || exit 1; {EDIT} kill -HUP $(pgrep -x hybridwg); \
         until_it 'hybridwg show wg0 peers | grep -q {NEW}'; pgrep -x hybridwg > /dev/null || exit 2; \
         ip link show wg0 | grep -o 'mtu [0-9]*'; hybridwg down ./wg0.conf 2> /dev/null; \
         hybridwg wg1 || exit 3; kill -HUP $(pgrep -x hybridwg); until_it '! pgrep -x hybridwg > /dev/null'"
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "mtu 1300\n", "{}", outcome.err);
}

#[test]
fn u_11_of_hangups_in_quick_succession_the_last_finds_its_file_taken_over() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("MTU = 1400"));
    let outcome = host.run(&format!(
        "{UNTIL} hybridwg up ./wg0.conf 2> /dev/null || exit 1; \
         for round in 1 2 3; do for mtu in $(seq 1301 1310); do \
         sed \"s/MTU = .*/MTU = $mtu/\" wg0.conf > new; mv new wg0.conf; kill -HUP $(pgrep -xo hybridwg); done; \
         until_it 'ip -o link show wg0 | grep -q \"mtu 1310 \"'; done; hybridwg down ./wg0.conf 2> /dev/null"
    ));
    outcome.assert_ok();
}

/// A hub, and a client in a network namespace of its own.
const TWO_HOSTS: &str = "echo nameserver 192.0.2.53 > resolv; mount --bind resolv /etc/resolv.conf; \
    ip netns add far; far() { ip netns exec far \"$@\"; }; ip link add eth0 type veth peer name eth1 netns far; \
    ip address add 192.0.2.1/24 dev eth0; ip link set eth0 up; far ip address add 192.0.2.2/24 dev eth1; \
    far ip link set eth1 up; far ip link set lo up; far ./hybridwg up ./wg1.conf 2> /dev/null || exit 3\n";

#[test]
fn u_11_a_session_whose_peer_stays_goes_on_and_loses_no_packet_whatever_else_is_changed() {
    if skips(&[PROGRAMS, &["wg", "ping"]].concat()) {
        return;
    }
    let outcome = Host::new("")
        .run("wg genkey | tee hub; wg genkey | tee client; wg pubkey < hub; wg pubkey < client");
    outcome.assert_ok();
    let keys: Vec<&str> = outcome.out.lines().collect();
    let hub = |interface: &str, networks: &str, more: &str| {
        format!(
            "[Interface]\nPrivateKey = {}\nListenPort = 51820\nAddress = 10.10.0.1/24{interface}\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = 10.10.0.2/32{networks}\n{more}",
            keys[0], keys[3]
        )
    };
    let other = format!("[Peer]\nPublicKey = {NEW}\nAllowedIPs = 10.50.0.0/16\n");
    let host = Host::new(&hub("\nMTU = 1400\nDNS = 10.0.0.53", "", ""));
    host.write(
        "one",
        &hub(", 10.20.0.1/16\nMTU = 1380\nDNS = 10.0.0.54", ", 172.16.0.0/12", &other),
    );
    host.write("two", &hub(", fd10::1/64\nMTU = 1360", ", fd10::2/128", ""));
    let client = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.10.0.2/24\n[Peer]\nPublicKey = {}\n\
         AllowedIPs = 10.10.0.1/32\nEndpoint = 192.0.2.1:51820\n",
        keys[1], keys[2]
    );
    host.write("wg1.conf", &client);
    let outcome = host.run(&format!(
        "{UNTIL} {TWO_HOSTS} hybridwg up ./wg0.conf 2> /dev/null || exit 1; cp wg0.conf three; \
         until_it 'far ping -c 1 -W 1 10.10.0.1 > /dev/null'; \
         session() {{ hybridwg show wg0 latest-handshakes | grep {}; }}; \
         received() {{ hybridwg show wg0 transfer | grep {} | cut -f 2; }}; session > before; \
         far ping -q -i 0.004 -c 700 10.10.0.1 > pings & pings=$!; \
         for step in one two three; do sleep 0.3; n=$(received); cp $step wg0.conf; \
         hybridwg reload ./wg0.conf 2>> log || exit 2; grep -v '^#' /etc/resolv.conf; \
         ip -o address show dev wg0 scope global | awk '{{ print $4 }}'; ip -o link show wg0 | grep -o 'mtu [0-9]*'; \
         [ $(received) -gt $n ] || exit 4; done; wait $pings; grep -o '[0-9.]*% packet loss' pings; \
         session | diff before -",
        keys[3], keys[3]
    ));
    assert_eq!(
        outcome.out,
        "nameserver 10.0.0.54\n10.10.0.1/24\n10.20.0.1/16\nmtu 1380\n\
         nameserver 192.0.2.53\n10.10.0.1/24\nfd10::1/64\nmtu 1360\n\
         nameserver 10.0.0.53\n10.10.0.1/24\nmtu 1400\n0% packet loss\n",
        "{}",
        outcome.err
    );
    outcome.assert_ok();
}

/// A tunnel that takes `networks`.
fn tunnel(interface: &str, networks: &str) -> String {
    let (private, public) = KEYS;
    format!(
        "[Interface]\nPrivateKey = {private}\nMTU = 1400\n{interface}\n[Peer]\nPublicKey = {public}\n\
         AllowedIPs = {networks}\nEndpoint = 192.0.2.9:9\n"
    )
}

/// Files that follow each other.
fn diversions() -> Vec<String> {
    let both = "0.0.0.0/0, ::/0";
    [
        ("Address = 10.10.0.1/24", "0.0.0.0/0"),
        ("Address = 10.10.0.1/24, fd10::1/64", both),
        ("Address = 10.11.0.1/24, fd10::1/64", "0.0.0.0/0, ::/0, 172.16.0.0/12"),
        ("Address = 10.11.0.1/24\n#hybridwg: KillSwitch = on", "0.0.0.0/0"),
        ("Address = 10.11.0.1/24, fd11::1/64\n#hybridwg: KillSwitch = on", both),
        ("Address = 10.11.0.1/24", "::/0"),
        ("Address = 10.11.0.1/24", "172.16.0.0/12"),
        ("Address = 10.11.0.1/24\nFwMark = 77", "0.0.0.0/0"),
        ("Address = 10.11.0.1/24\nFwMark = 77\nTable = off", "0.0.0.0/0"),
        ("Address = 10.11.0.1/24\nTable = 1234", both),
    ]
    .map(|(interface, networks)| tunnel(interface, networks))
    .to_vec()
}

/// `same` compares with what `up` makes of the same file at once.
const SAME: &str = "echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark; \
    all() { host | sed 's/ # progname.*//; /fe80/d; s/proto kernel metric [0-9]*/proto kernel/'; hybridwg show wg0 fwmark; \
            hybridwg show wg0 allowed-ips; sort /run/hybridwg/wg0.changes 2> /dev/null; }; \
    same() { all | sort > reloaded; hybridwg down ./wg0.conf 2> /dev/null || exit 5; gone; \
             hybridwg up ./wg0.conf 2> /dev/null || exit 6; all | sort | diff reloaded -; }\n";

#[test]
fn u_11_policy_routing_the_firewall_and_the_kill_switch_follow_a_reload() {
    if skips(&[PROGRAMS, &["nft"]].concat()) {
        return;
    }
    let files = diversions();
    let host = Host::new(&files[0]);
    for (number, pair) in files.windows(2).enumerate() {
        host.write("wg0.conf", &pair[0]);
        host.write("next", &pair[1]);
        let outcome = host.run(&format!(
            "{UPLINK} {SAME} hybridwg up ./wg0.conf 2> /dev/null || exit 1; cp next wg0.conf; \
             hybridwg reload --dry-run ./wg0.conf 2> plan || exit 2; hybridwg reload ./wg0.conf 2> done || exit 3; \
             diff plan done && hybridwg reload ./wg0.conf 2>&1 | grep -q 'wg0 is as' || exit 4; same"
        ));
        assert_eq!((outcome.code, &*outcome.out), (Some(0), ""), "{number}: {}", outcome.err);
    }
}

/// Counted where packets leave: by `eth0`, without the mark of the tunnel. Reloads follow each other
/// until enough were on their way meanwhile.
#[test]
fn n_13_with_a_kill_switch_nothing_gets_out_beside_the_tunnel_during_a_reload() {
    if skips(&[PROGRAMS, &["nft", "ping"]].concat()) {
        return;
    }
    let one = tunnel("Address = 10.10.0.1/24\n#hybridwg: KillSwitch = on", "0.0.0.0/0");
    let both = "Address = 10.11.0.1/24, fd10::1/64\n#hybridwg: KillSwitch = on";
    let host = Host::new(&one);
    host.write("one", &one);
    host.write("two", &tunnel(both, "0.0.0.0/0, ::/0, 172.16.0.0/12"));
    let outcome = host.run(&format!(
        "{UPLINK} hybridwg up ./wg0.conf 2> /dev/null || exit 1; \
         nft 'table inet count {{ chain out {{ type filter hook postrouting priority 0; \
         oifname eth0 meta l4proto icmp counter; oifname wg0 meta l4proto icmp counter; }}; }}' || exit 2; \
         counted() {{ nft list table inet count | grep $1 | grep -o 'packets [0-9]*'; }}; \
         enough() {{ [ $(counted wg0 | cut -c 9-) -ge 50 ]; }}; \
         ping -q -i 0.002 -W 1 203.0.113.9 > pings 2>&1 & pings=$!; \
         for round in $(seq 100); do for step in two one; do cp $step wg0.conf; \
         hybridwg reload ./wg0.conf 2>> log || exit 3; done; [ $round -ge 3 ] && enough && break; done; \
         kill -INT $pings; wait $pings; enough || exit 4; counted eth0; \
         hybridwg down ./wg0.conf 2> /dev/null; \
         ping -q -c 1 -W 1 203.0.113.9 > /dev/null; counted eth0"
    ));
    assert_eq!(outcome.out, "packets 0\npackets 1\n", "{:?}: {}", outcome.code, outcome.err);
}

#[test]
fn u_11_a_reload_that_fails_in_the_middle_takes_everything_back() {
    if skips(&[PROGRAMS, &["nft"]].concat()) {
        return;
    }
    let files = diversions();
    let host = Host::new(&files[0]);
    for (number, pair) in files.windows(2).enumerate() {
        host.write("wg0.conf", &pair[0]);
        // With a peer more and a hook that fails, when all the rest is done.
        let peer = format!("[Peer]\nPublicKey = {NEW}\nAllowedIPs = 10.50.0.0/16\n");
        host.write("next", &(pair[1].replace("MTU = 1400", "MTU = 1300\nPostUp = exit 7") + &peer));
        let outcome = host.run(&format!(
            "{UPLINK} {SAME} hybridwg up ./wg0.conf 2> /dev/null || exit 1; all > before; cp next wg0.conf; \
             hybridwg reload --hooks ./wg0.conf 2> log; echo code $?; grep 'could not' log; all | sort > after; \
             sort before | diff - after"
        ));
        assert_eq!(outcome.out, "code 1\n", "{number}: {}", outcome.err);
    }
    // One address twice: the second cannot be added.
    host.write("wg0.conf", &files[1]);
    host.write("next", &files[1].replace("10.10.0.1/24", "10.12.0.1/24, 10.12.0.1/24"));
    let outcome = host.run(&format!(
        "{UPLINK} {SAME} hybridwg up ./wg0.conf 2> /dev/null || exit 1; all > before; cp next wg0.conf; \
         hybridwg reload ./wg0.conf; echo code $?; all | diff before - && hybridwg down ./wg0.conf"
    ));
    assert_eq!(outcome.out, "code 1\n", "{}", outcome.err);
    assert!(outcome.err.contains("10.12.0.1/24"), "{}", outcome.err);
}

#[test]
fn u_11_while_everything_goes_into_the_tunnel_its_mark_is_not_changed() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&tunnel("FwMark = 77", "0.0.0.0/0"));
    let outcome = host.run(
        "hybridwg up ./wg0.conf 2> /dev/null || exit 1; ip rule > before; sed -i s/77/78/ wg0.conf; \
         hybridwg reload ./wg0.conf; echo code $?; ip rule | diff before -",
    );
    assert_eq!(outcome.out, "code 1\n", "{}", outcome.err);
    let told = "hybridwg: FwMark of wg0 can be changed by `hybridwg down` and `up` only\n";
    assert!(outcome.err.ends_with(told), "{}", outcome.err);
}

/// `up` in the foreground with `watch`, and `said`, what it has said.
fn foreground(watch: &str, script: &str) -> String {
    format!(
        "{UNTIL} said() {{ grep -q \"$1\" said; }}; \
         ./hybridwg up --foreground {watch} $PWD/etc/wg0.conf 2> said & main=$!; \
         until_it 'test -e /run/hybridwg/wg0.applied'; {script}; kill $main; wait $main; \
         echo ended $?; {LEFTOVERS}"
    )
}

/// The file is where Kubernetes puts it: etc/wg0.conf -> ..data/wg0.conf, ..data -> ..1.
#[test]
fn u_11_up_watch_follows_a_file_that_is_swapped_and_a_bad_one_changes_nothing() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("MTU = 1400"));
    let script = "put() { mkdir etc/..$1; cat > etc/..$1/wg0.conf; ln -s ..$1 etc/tmp; mv -T etc/tmp etc/..data; }; \
         with() { sed \"s/MTU = .*/MTU = $1/\" wg0.conf; }; is() { ip -o link show wg0 | grep -q \"mtu $1 \"; }; \
         with 1380 | put 2; until_it 'is 1380'; with 1370 | put 3; until_it 'is 1370'; rm -r etc/..2; \
         with many | put 4; until_it 'said \"MTU: read .many.\" && said \"wg0 stays as it is\"'; is 1370 || exit 3; \
         : | put 5; until_it 'said \"says nothing\"'; is 1370 || exit 4; hybridwg show wg0 peers | wc -l; \
         rm etc/..data; until_it 'said \"is gone: wg0 stays\"'; with 1360 | put 6; until_it 'is 1360'; \
         with 1350 > etc/..6/wg0.conf; until_it 'is 1350'";
    let setup = "mkdir -p etc/..1; cp wg0.conf etc/..1; ln -s ..1 etc/..data; ln -s ..data/wg0.conf etc/wg0.conf; ";
    let outcome = host.run(&(setup.to_owned() + &foreground("--watch", script)));
    assert_eq!(outcome.out, "1\nended 0\n", "{}", outcome.err);
}

#[test]
fn u_11_a_hangup_of_the_foreground_reloads_and_without_watch_nothing_is_watched() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("MTU = 1400"));
    let script = "sed -i 's/MTU = .*/MTU = 1300/' etc/wg0.conf; sleep 0.6; ip -o link show wg0 | grep -o 'mtu [0-9]*'; \
         kill -HUP $main; until_it 'ip -o link show wg0 | grep -q \"mtu 1300 \"'; \
         kill -HUP $main; until_it 'said \"wg0 is as\"'";
    let setup = "mkdir etc; cp wg0.conf etc; ";
    let outcome = host.run(&(setup.to_owned() + &foreground("", script)));
    assert_eq!(outcome.out, "mtu 1400\nended 0\n", "{}", outcome.err);
}
