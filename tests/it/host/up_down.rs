//! `up`, `down` and `demo` as an operator types them.

use super::script::{Host, LEFTOVERS, PROGRAMS, config};
use super::{skip, skips};

/// WQ-13, WQ-16.
#[test]
fn up_takes_its_steps_in_the_order_of_wg_quick_and_down_leaves_nothing() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config(
        "MTU = 1360\nListenPort = 0\nPreUp = echo pre %i $(ls /run/wireguard)\n\
         PostUp = echo post '#1' %i\nPreDown = echo down %i\nPostDown = echo gone %i; ! ip link show %i",
    ));
    let up = host.run(
        "hybridwg up wg0.conf || exit 1; ip -o addr show wg0; ip -o link show wg0; ip route; \
         ip -6 route",
    );
    up.assert_ok();
    let file = host.folder.path().join("wg0.conf");
    let addconf = format!("wg addconf wg0 <(wg-quick strip {})", file.display());
    assert_eq!(
        up.commands(),
        [
            "ip link add wg0 type tun",
            "echo pre wg0 $(ls /run/wireguard)",
            &addconf,
            "ip -4 address add 10.10.0.1/24 dev wg0",
            "ip -6 address add fd00:10::1/64 dev wg0",
            "ip link set mtu 1360 up dev wg0",
            // 10.10.0.2/32 is covered by the address.
            "ip -6 route add fd00:77::/48 dev wg0",
            "ip -4 route add 192.168.7.0/24 dev wg0",
            "ip -4 route add 172.16.0.0/12 dev wg0",
            "echo post '#1' wg0",
        ]
    );
    for part in [
        // The socket answers before PreUp runs.
        "pre wg0 wg0.sock",
        "post #1 wg0",
        "inet 10.10.0.1/24",
        "inet6 fd00:10::1/64",
        "mtu 1360",
        "172.16.0.0/12 dev wg0",
        "192.168.7.0/24 dev wg0",
        "fd00:77::/48 dev wg0",
    ] {
        assert!(up.out.contains(part), "no {part} in {}", up.out);
    }

    let down = host.run(&format!(
        "{{ hybridwg up ./wg0.conf >/dev/null && hybridwg down ./wg0.conf; }} 2>&1 || exit 1; \
         echo LEFT; {LEFTOVERS}"
    ));
    down.assert_ok();
    let (said, left) = down.out.split_once("LEFT\n").unwrap();
    assert_eq!(left, "");
    let order = "[#] echo down wg0\ndown wg0\n[#] ip link delete dev wg0\n\
                 [#] echo gone wg0; ! ip link show wg0\ngone wg0\n";
    assert!(said.contains(order), "{said}");
}

/// WQ-15.
#[test]
fn a_step_that_fails_takes_everything_back_and_runs_no_down_hook() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("PostUp = exit 7\nPreDown = echo PRE\nPostDown = echo POST"));
    let outcome = host.run(&format!("hybridwg up ./wg0.conf; echo code $?; {LEFTOVERS}"));
    assert_eq!(outcome.out, "code 1\n");
    assert_eq!(outcome.commands().last(), Some(&"ip link delete dev wg0"));
    assert!(outcome.err.contains("PostUp failed (exit status: 7)"), "{}", outcome.err);
}

#[test]
fn an_interrupt_during_a_hook_takes_everything_back() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("PostUp = kill -INT $PPID; sleep 0.2"));
    let outcome = host.run(&format!("hybridwg up ./wg0.conf; echo code $?; {LEFTOVERS}"));
    assert_eq!(outcome.out, "code 1\n", "{}", outcome.err);
    assert!(outcome.err.ends_with("hybridwg: interrupted\n"), "{}", outcome.err);
}

#[test]
fn an_up_that_is_killed_half_way_leaves_no_device() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("PostUp = kill -9 $PPID; sleep 0.2"));
    let outcome = host.run(&format!(
        "./hybridwg up ./wg0.conf; echo code $?; \
         for i in $(seq 250); do pgrep -x hybridwg > /dev/null || break; sleep 0.02; done; \
         {LEFTOVERS}"
    ));
    assert_eq!(outcome.out, "code 137\nwg0.starting\n", "{}", outcome.err);
}

#[test]
fn after_an_up_that_was_killed_up_and_down_clean_up_first() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config(
        "PreUp = ! test -e made-%i && touch made-%i && ls /run/hybridwg\nPreDown = echo PRE\n\
         PostUp = if test -e trap; then rm trap; kill -9 $PPID; sleep 0.2; fi\n\
         PostDown = rm made-%i; exit 3",
    ));
    let kill = "touch trap; ./hybridwg up ./wg0.conf; echo code $?; \
                for i in $(seq 250); do pgrep -x hybridwg > /dev/null || break; sleep 0.02; done; ";
    let outcome = host.run(&format!(
        "{kill} hybridwg reload ./wg0.conf; hybridwg up ./wg0.conf; echo up $?; ls /run/hybridwg; \
         sed -i 's/; exit 3//; s/PRE/down/' wg0.conf; hybridwg down ./wg0.conf; echo down $?; \
         {kill} hybridwg down ./wg0.conf; echo down $?; hybridwg down ./wg0.conf; echo again $?; \
         ls made-* 2>/dev/null; {LEFTOVERS}"
    ));
    assert_eq!(
        outcome.out,
        "wg0.starting\ncode 137\nwg0.starting\nup 0\nwg0.applied\ndown\ndown 0\n\
         wg0.starting\ncode 137\ndown 0\nagain 1\n",
        "{}",
        outcome.err
    );
    let said = "Warning: the last `hybridwg up` of wg0 was killed half-way\n\
                [#] rm made-wg0; exit 3\n\
                Warning: PostDown failed (exit status: 3): rm made-wg0; exit 3\n\
                [#] ip link add wg0 type tun\n";
    assert!(outcome.err.contains(said), "{}", outcome.err);
}

#[test]
fn while_another_up_is_at_work_nothing_is_cleaned_up() {
    if skips(&["unshare", "mount", "ip", "bash", "pgrep", "flock"]) {
        return;
    }
    let host = Host::new(&config("PostDown = echo touched"));
    let outcome = host.run(
        "note=/run/hybridwg/wg0.starting; mkdir /run/hybridwg; echo x > $note; \
         flock $note ./hybridwg up ./wg0.conf; echo code $?; \
         flock $note ./hybridwg down ./wg0.conf; echo code $?; cat $note",
    );
    assert_eq!(outcome.out, "code 1\ncode 1\nx\n");
    let told = "hybridwg: another `hybridwg up`, `down` or `reload` of wg0 is at work\n";
    assert_eq!(outcome.err, told.repeat(2));
}

#[test]
fn down_and_reload_wait_for_another_that_is_at_work() {
    if skips(&["unshare", "mount", "ip", "bash", "pgrep", "flock"]) {
        return;
    }
    let host =
        Host::new(&config("MTU = 1400\nPreDown = echo down >> order\nPostUp = echo up >> order"));
    // The note is held by somebody else until the command has had the time to be wrong.
    let outcome = host.run(&format!(
        "hybridwg up ./wg0.conf 2> /dev/null || exit 1; note=/run/hybridwg/wg0.starting; sed -i 's/echo up/echo again/' wg0.conf; \
         for word in 'reload --hooks' down; do \
         flock $note sh -c 'touch held; sleep 0.5; echo released >> order' & \
         until [ -e held ]; do sleep 0.02; done; rm held; hybridwg $word ./wg0.conf 2> log || cat log; wait; done; \
         cat order; {LEFTOVERS}"
    ));
    assert_eq!(outcome.out, "up\nreleased\ndown\nagain\nreleased\ndown\n", "{}", outcome.err);
}

#[test]
fn where_no_note_can_be_made_the_tunnel_comes_up_and_hooks_are_warned_about() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config(""));
    host.write("wg1.conf", &config("PostDown = true"));
    let outcome = host.run(
        "mkdir /run/hybridwg; mount -t tmpfs -o ro none /run/hybridwg; \
         for name in wg0 wg1; do hybridwg up ./$name.conf && hybridwg down ./$name.conf; \
         echo code $?; done",
    );
    assert_eq!(outcome.out, "code 0\ncode 0\n", "{}", outcome.err);
    let told = "Warning: cannot write /run/hybridwg/wg1.starting, so PostDown will not follow if \
                this is killed: Read-only file system (os error 30)\n";
    assert!(outcome.err.contains(told), "{}", outcome.err);
    let reload =
        "Warning: `hybridwg reload` will not work, for want of a record in /run/hybridwg: ";
    assert_eq!(outcome.err.matches(reload).count(), 2, "{}", outcome.err);
    assert_eq!(outcome.err.matches("Warning").count(), 3, "{}", outcome.err);
}

#[test]
fn of_two_ups_at_once_after_a_crash_one_does_the_work() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("PostDown = echo gone"));
    let outcome = host.run(&format!(
        "hybridwg up ./wg0.conf || exit 1; \
         for i in $(seq 10); do \
         kill -9 $(pgrep -x hybridwg); while pgrep -x hybridwg > /dev/null; do sleep 0.02; done; \
         ./hybridwg up ./wg0.conf & one=$!; ./hybridwg up ./wg0.conf & \
         wait $!; two=$?; wait $one; echo $(($? + two)) $(hybridwg show interfaces); done; \
         hybridwg down ./wg0.conf; {LEFTOVERS}"
    ));
    assert_eq!(outcome.out, "gone\n1 wg0\n".repeat(10) + "gone\n", "{}", outcome.err);
}

#[test]
fn down_returns_when_the_process_of_the_daemon_has_ended() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config(""));
    let outcome = host.run(&format!(
        "for i in $(seq 20); do hybridwg up ./wg0.conf && hybridwg down ./wg0.conf || exit 1; \
         pgrep -x hybridwg && ps -C hybridwg -o stat=; done; {LEFTOVERS}"
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "", "{}", outcome.err);
}

#[test]
fn an_interface_that_was_renamed_is_told_before_a_hook_runs() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("PreDown = echo touched\nPostDown = echo touched"));
    let outcome = host.run(
        "hybridwg up ./wg0.conf || exit 1; ip link set wg0 down; ip link set wg0 name wg9; \
         hybridwg down ./wg0.conf; echo code $?; ip -o link show wg9 | grep -c wg9",
    );
    assert_eq!(outcome.out, "code 1\n1\n", "{}", outcome.err);
    let told = "hybridwg: `wg0' is not here, though its daemon answers: renamed or in another \
                network namespace\n";
    assert!(outcome.err.ends_with(told), "{}", outcome.err);
}

#[test]
fn folders_below_run_can_be_read_by_all_whatever_the_umask_is() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("PreUp = stat -c %a /run/hybridwg"));
    let outcome = host.run("umask 077; hybridwg up ./wg0.conf; stat -c %a /run/wireguard");
    outcome.assert_ok();
    assert_eq!(outcome.out, "755\n755\n");
}

/// WQ-14.
#[test]
fn an_interface_that_exists_is_left_alone() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config(""));
    let outcome = host.run(
        "ip tuntap add wg0 mode tun; hybridwg up ./wg0.conf; echo code $?; \
         hybridwg down ./wg0.conf; echo code $?; ip -o link show wg0 | grep -c wg0",
    );
    assert_eq!(outcome.out, "code 1\ncode 1\n1\n");
    assert!(outcome.err.contains("`wg0' already exists"), "{}", outcome.err);
    assert!(outcome.err.contains("`wg0' is not a WireGuard interface"), "{}", outcome.err);
}

#[test]
fn a_place_that_no_listener_can_have_is_named_alone() {
    if skips(PROGRAMS) {
        return;
    }
    let places = "Forward = 127.0.0.1:11003 a.test:1\nForward = 192.0.2.77:1 a.test:1";
    let host = Host::new(&config(places));
    let outcome = host.run(&format!("hybridwg up ./wg0.conf; echo code $?; {LEFTOVERS}"));
    assert_eq!(outcome.out, "code 1\n", "{}", outcome.err);
    let told = "hybridwg: the daemon of wg0 cannot listen at 192.0.2.77:1: Cannot assign requested address";
    assert!(outcome.err.contains(told), "{}", outcome.err);
}

#[test]
fn without_an_interface_a_name_server_that_is_asked_is_not_left_out_and_a_missing_address_is_told()
{
    if skips(PROGRAMS) {
        return;
    }
    let lines = "Mode = rootless\nDNS = 10.10.0.2\nForward = 127.0.0.1:11004 a.test:1";
    let host = Host::new(&config(lines));
    let outcome = host.run(
        "hybridwg up ./wg0.conf && hybridwg down ./wg0.conf; echo ===; echo === >&2; \
         sed -i '/^Address/d; /^Forward/d' wg0.conf; hybridwg up ./wg0.conf && hybridwg down ./wg0.conf",
    );
    let (used, bare) = outcome.err.split_once("===\n").unwrap();
    let (dns, address) =
        ("DNS is left out", "no Address: without an interface the tunnel has none");
    assert!(!used.contains(dns) && !used.contains(address), "{used}");
    assert!(
        bare.contains(dns) && bare.contains(address) && bare.contains("has no address"),
        "{bare}"
    );
}

#[test]
fn a_port_in_use_is_named_and_everything_taken_back() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("ListenPort = 51820\nPostUp = true"));
    host.write("wg1.conf", &config("ListenPort = 51820").replace("10.10.", "10.11."));
    let outcome = host.run(&format!(
        "hybridwg up ./wg0.conf && ip link set wg0 up || exit 1; hybridwg up ./wg1.conf; \
         echo code $?; hybridwg down ./wg0.conf; {LEFTOVERS}"
    ));
    assert_eq!(outcome.out, "code 1\n", "{}", outcome.err);
    let told = "hybridwg: UDP port 51820, the ListenPort of wg1, is in use (`ss -lunp sport = 51820` \
                shows by whom)\n";
    assert!(outcome.err.contains(told), "{}", outcome.err);
}

/// Makes `/etc` an empty one in which names stand in `hosts` alone.
const NO_NAME_SERVER: &str =
    "mount -t tmpfs none /etc; echo 'hosts: files' > /etc/nsswitch.conf; touch /etc/hosts; ";

#[test]
fn endpoints_are_resolved_after_pre_up_and_not_before_the_interface_is_found_free() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(
        &config("PreUp = echo 127.0.0.1 hub.test >> /etc/hosts")
            .replace("127.0.0.1:9", "hub.test:9"),
    );
    let outcome = host.run(&format!(
        "{NO_NAME_SERVER} hybridwg up ./wg0.conf || exit 1; hybridwg show wg0 endpoints | cut -f 2; \
         > /etc/hosts; hybridwg up ./wg0.conf; echo code $?; hybridwg down ./wg0.conf; \
         sed -i /PreUp/d wg0.conf; hybridwg up ./wg0.conf && hybridwg down ./wg0.conf; \
         echo code $?; {LEFTOVERS}"
    ));
    assert_eq!(outcome.out, "127.0.0.1:9\ncode 1\ncode 0\n", "{}", outcome.err);
    assert!(outcome.err.contains("`wg0' already exists"), "{}", outcome.err);
    let told = ": `hub.test:9'. The daemon goes on trying";
    assert!(outcome.err.contains(told), "{}", outcome.err);
}

#[test]
fn a_name_server_that_is_silent_does_not_keep_a_signal_waiting() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("").replace("127.0.0.1:9", "hub.test:9"));
    // Nobody holds the other side of this TUN: what goes in is lost without a word.
    let outcome = host.run(&format!(
        "mount -t tmpfs none /etc; echo 'hosts: dns' > /etc/nsswitch.conf; \
         echo nameserver 192.0.2.53 > /etc/resolv.conf; ip tuntap add void mode tun; \
         ip address add 192.0.2.1/24 dev void; ip link set void up; \
         ./hybridwg up ./wg0.conf 2> log & up=$!; \
         until grep -q addconf log; do sleep 0.02; kill -0 $up || exit 1; done; sleep 0.3; \
         kill -TERM $up; SECONDS=0; wait $up; echo code $?; [ $SECONDS -lt 4 ] && echo soon; cat log >&2; \
         ip link delete void; {LEFTOVERS}"
    ));
    assert_eq!(outcome.out, "code 1\nsoon\n", "{}", outcome.err);
    assert!(outcome.err.ends_with("hybridwg: interrupted\n"), "{}", outcome.err);
}

#[test]
fn without_hooks_up_and_down_need_no_other_program() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config(""));
    let outcome = host.run(&format!(
        "{{ PATH=/nowhere ./hybridwg up ./wg0.conf && PATH=/nowhere ./hybridwg down ./wg0.conf; }} \
         || exit 1; {LEFTOVERS}"
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "");
}

/// WQ-17.
#[test]
fn without_an_mtu_of_its_own_the_tunnel_gets_1360_or_80_less_than_its_path() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config(""));
    let outcome = host.run(
        "mtu() { hybridwg up ./wg0.conf && cat /proc/sys/net/ipv6/conf/wg0/mtu && \
         hybridwg down ./wg0.conf; }; mtu && ip link set lo mtu 1400 && mtu",
    );
    outcome.assert_ok();
    assert_eq!(outcome.out, "1360\n1320\n");
}

#[test]
fn on_a_host_without_ipv6_the_ipv4_part_comes_up_with_a_warning() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config(""));
    let outcome = host.run(
        "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; \
         echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; \
         hybridwg up ./wg0.conf && ip -4 -o addr show wg0 | grep -c 10.10.0.1/24",
    );
    outcome.assert_ok();
    assert_eq!(outcome.out, "1\n");
    for part in ["leaving out Address fd00:10::1/64", "leaving out AllowedIPs fd00:77::/48"] {
        assert!(outcome.err.contains(part), "{}", outcome.err);
    }
}

#[test]
fn what_a_killed_daemon_left_does_not_stop_the_next_up() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config(""));
    let outcome = host.run(&format!(
        "hybridwg up ./wg0.conf && kill -9 $(pgrep -x hybridwg) || exit 1; \
         while pgrep -x hybridwg > /dev/null; do sleep 0.02; done; ls /run/wireguard; \
         hybridwg up ./wg0.conf && hybridwg down ./wg0.conf || exit 1; {LEFTOVERS}"
    ));
    outcome.assert_ok();
    assert!(outcome.out.ends_with("wg0.sock\n"), "{}", outcome.out);
}

/// The old daemon still ends while the new one starts: neither may take the other's socket.
#[test]
fn a_daemon_whose_interface_was_just_deleted_is_not_in_the_way_of_the_next() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new("");
    let outcome = host.run(&format!(
        "for i in $(seq 20); do hybridwg wgr || {{ echo start $i failed; exit 1; }}; \
         [ -S /run/wireguard/wgr.sock ] || {{ echo no socket at $i; exit 1; }}; \
         ip link del wgr || exit 1; done; \
         for i in $(seq 500); do pgrep -x hybridwg > /dev/null || break; sleep 0.02; done; \
         {LEFTOVERS}"
    ));
    outcome.assert_ok();
    assert_eq!(outcome.out, "", "{}", outcome.err);
}

#[test]
fn after_a_crash_up_and_down_clean_up_first() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config(
        "PostUp = ! test -e made-%i && touch made-%i\nPreDown = echo PRE\n\
         PostDown = rm made-%i; exit 3",
    ));
    let crash = "hybridwg up ./wg0.conf && kill -9 $(pgrep -x hybridwg) || exit 1; \
                 while pgrep -x hybridwg > /dev/null; do sleep 0.02; done; ";
    // A hook that fails stops `down` and not `up`.
    let outcome = host.run(&format!(
        "{crash} hybridwg up ./wg0.conf; echo up $?; hybridwg show interfaces; \
         kill -9 $(pgrep -x hybridwg); while pgrep -x hybridwg > /dev/null; do sleep 0.02; done; \
         sed -i 's/; exit 3//' wg0.conf; hybridwg down ./wg0.conf; echo down $?; \
         hybridwg down ./wg0.conf; echo again $?; ls made-* 2>/dev/null; {LEFTOVERS}"
    ));
    assert_eq!(outcome.out, "up 0\nwg0\ndown 0\nagain 1\n", "{}", outcome.err);
    let said = "the last daemon of wg0 ended without `hybridwg down`\n\
                [#] rm made-wg0; exit 3\n\
                Warning: PostDown failed (exit status: 3): rm made-wg0; exit 3\n\
                [#] ip link add wg0 type tun\n";
    assert!(outcome.err.contains(said), "{}", outcome.err);
    assert!(!outcome.err.contains("PRE"), "{}", outcome.err);
}

#[test]
fn a_user_without_the_right_to_take_it_down_runs_no_hook() {
    if skips(&["unshare", "mount", "ip", "bash", "pgrep", "setpriv"]) {
        return;
    }
    let host = Host::new(&config("PreDown = echo touched"));
    let outcome = host.run(
        "hybridwg up ./wg0.conf || exit 1; chmod 644 wg0.conf; \
         setpriv --reuid=65534 --regid=65534 --clear-groups ./hybridwg down ./wg0.conf; \
         echo code $?; ip -o link show wg0 | grep -c wg0",
    );
    assert_eq!(outcome.out, "code 1\n1\n", "{}", outcome.err);
    assert!(
        outcome.err.contains("hybridwg: cannot reach interface wg0: Permission denied"),
        "{}",
        outcome.err
    );
}

/// WQ-02.
#[test]
fn strip_and_check_need_no_rights_and_up_says_which_it_lacks() {
    if skips(&["unshare", "mount", "ip", "bash", "pgrep", "setpriv"]) {
        return;
    }
    let host = Host::new(&config("MTU = 1360"));
    let outcome = host.run(&format!(
        "chmod 644 wg0.conf; for word in strip check up; do \
         setpriv --reuid=65534 --regid=65534 --clear-groups ./hybridwg $word ./wg0.conf > out; \
         echo $word $?; done; {LEFTOVERS}"
    ));
    // The file can be read by others, which is worth a warning.
    assert_eq!(outcome.out, "strip 0\ncheck 1\nup 1\n", "{}", outcome.err);
    for told in [
        "hybridwg: wg0 cannot be brought up here. What is missing, and what supplies it:\n- ",
        "\n- CAP_NET_ADMIN: this process does not have it\n    \
         host:        sudo, or `AmbientCapabilities=CAP_NET_ADMIN` in a systemd service\n    \
         docker run:  --user 0 --cap-add NET_ADMIN\n",
        "\nNo right at all is needed without an interface: `Forward`, `Socks5`, `Expose` in the file",
    ] {
        assert!(outcome.err.contains(told), "no {told} in {}", outcome.err);
    }
    assert!(!outcome.err.contains("sudo -p"), "nothing starts itself again");
}

#[test]
fn the_warnings_about_a_file_are_given_by_up_alone() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("ListenPort = 1\nListenPort = 0"));
    let outcome = host.run(
        "hybridwg up ./wg0.conf 2>&1 | grep -c ^Warning; hybridwg down ./wg0.conf 2>&1 | \
         grep -c ^Warning",
    );
    assert_eq!(outcome.out, "1\n0\n", "{}", outcome.err);
}

#[test]
fn what_is_up_already_is_left_alone_and_how_to_take_it_down_is_told() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config(""));
    let outcome = host.run(
        "hybridwg up ./wg0.conf || exit 1; hybridwg up ./wg0.conf; echo code $?; \
         mount -t tmpfs none /etc; \
         mkdir /etc/wireguard; cp wg0.conf /etc/wireguard; hybridwg up wg0; echo code $?; pgrep -x hybridwg | wc -l",
    );
    assert_eq!(outcome.out, "code 1\ncode 1\n1\n", "{}", outcome.err);
    let told = "`wg0' already exists: `hybridwg down wg0` takes it down";
    assert!(outcome.err.contains(told), "{}", outcome.err);
    let file = host.folder.path().join("wg0.conf");
    let told = format!("`hybridwg down {}` takes it down", file.display());
    assert!(outcome.err.contains(&told), "{}", outcome.err);
}

#[test]
fn a_bare_interface_is_told_on_a_terminal_alone_and_a_log_level_nobody_knows_is_a_warning() {
    if skips(&["unshare", "mount", "ip", "bash", "pgrep", "script"]) {
        return;
    }
    let host = Host::new("");
    let outcome = host.run(
        "script -qec './hybridwg wg0' /dev/null; hybridwg wg1 || exit 1; \
         LOG_LEVEL=loud ./hybridwg wg2; hybridwg show interfaces",
    );
    outcome.assert_ok();
    assert_eq!(
        outcome.out.replace('\r', ""),
        "wg0 runs in the background; `ip link delete dev wg0` ends it\nwg0 wg1 wg2\n"
    );
    let told = "Warning: LOG_LEVEL is \"loud\", and can be silent, error, warn, info, verbose or \
                trace; info is used\n";
    assert!(outcome.err.contains(told), "{}", outcome.err);
}

#[test]
fn a_log_in_a_file_has_no_colours_and_one_on_a_terminal_has() {
    if skips(&["unshare", "mount", "ip", "bash", "pgrep", "script", "grep"]) {
        return;
    }
    let host = Host::new("");
    host.write(
        "session",
        "./hybridwg -f $1 $2 & until [ -S /run/wireguard/$1.sock ]; do sleep 0.02; \
         kill -0 $! || exit 1; done; ip link delete $1; wait",
    );
    let outcome = host.run(
        "bash session wg0 2> log; LOG_LEVEL=verbose ./hybridwg wg1 2>> log; \
         ip link delete wg1; while pgrep -x hybridwg > /dev/null; do sleep 0.02; done; \
         grep -c 'device started' log; grep -c $'\\e' log; \
         script -qec 'bash session wg2' /dev/null | grep -c $'\\e.*device started'; \
         NO_COLOR=1 script -qec 'bash session wg3' /dev/null | grep -c $'\\e'",
    );
    assert_eq!(outcome.out, "2\n0\n1\n0\n", "{}", outcome.err);
}

#[test]
fn a_folder_of_sockets_that_may_not_be_read_is_named_with_a_way_out() {
    if skips(&["unshare", "mount", "ip", "bash", "setpriv"]) {
        return;
    }
    let host = Host::new(&config(""));
    let outcome = host.run(
        "hybridwg up ./wg0.conf 2> /dev/null || exit 1; chmod 700 /run/wireguard; \
         for words in show 'show interfaces'; do \
         setpriv --reuid=65534 --regid=65534 --clear-groups ./hybridwg $words; echo code $?; done",
    );
    assert_eq!(outcome.out, "code 1\ncode 1\n");
    let told = "hybridwg: cannot read /var/run/wireguard: Permission denied (os error 13)\n\
                hint: `sudo hybridwg show` may read it\n";
    assert_eq!(outcome.err, told.repeat(2));
}

#[test]
fn the_memory_of_every_command_is_hidden_before_it_reads_a_key() {
    if skips(&["unshare", "mount", "ip", "bash", "setpriv", "mkfifo", "stat"]) {
        return;
    }
    let host = Host::new("");
    // What belongs to a process whose memory is hidden belongs to root.
    let outcome = host.run(
        "mkfifo -m 666 in.conf; for words in pubkey 'up ./in.conf' 'down ./in.conf'; do \
         exec 3<> in.conf; \
         setpriv --reuid=65534 --regid=65534 --clear-groups ./hybridwg $words < in.conf & \
         for i in $(seq 250); do [ $(cat /proc/$!/comm) = hybridwg ] && \
         [ $(stat -c %u /proc/$!/environ) = 0 ] && echo hidden && break; sleep 0.02; done; \
         kill $!; wait $! 2> /dev/null; exec 3>&-; done",
    );
    assert_eq!(outcome.out, "hidden\nhidden\nhidden\n", "{}", outcome.err);
}

#[test]
fn a_file_that_got_a_fault_meanwhile_is_refused_by_down_with_a_way_out() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("PreDown = echo touched"));
    let outcome = host.run(&format!(
        "hybridwg down ./wg0.conf; hybridwg up ./wg0.conf || exit 1; echo nonsense >> wg0.conf; \
         hybridwg down ./wg0.conf; echo code $?; ip link delete dev wg0; \
         while pgrep -x hybridwg > /dev/null; do sleep 0.02; done; \
         hybridwg down ./wg0.conf; echo code $?; {LEFTOVERS}"
    ));
    assert_eq!(outcome.out, "code 2\ncode 2\n", "{}", outcome.err);
    let hint =
        "hint: `ip link delete dev wg0` takes wg0 down without its hooks and without saving\n";
    assert_eq!(outcome.err.matches(hint).count(), 1, "{}", outcome.err);
}

#[test]
fn a_result_that_cannot_be_written_is_told_as_such() {
    if skips(PROGRAMS) {
        return;
    }
    let outcome = Host::new("").run("hybridwg genkey > /dev/full; echo code $?");
    assert_eq!(outcome.out, "code 1\n");
    let told = "hybridwg: cannot write to standard output: No space left on device (os error 28)\n";
    assert_eq!(outcome.err, told);
}

#[test]
fn the_demo_shows_handshake_ping_and_throughput_and_leaves_nothing() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new("");
    let outcome = host.run(&format!("hybridwg demo && {{ {LEFTOVERS} }}"));
    outcome.assert_ok();
    for start in ["handshake ", "round trip ", "client → hub ", "hub → client "] {
        assert!(outcome.out.lines().any(|line| line.starts_with(start)), "{}", outcome.out);
    }
    assert!(outcome.out.contains("5 of 5 answered"), "{}", outcome.out);
    assert!(outcome.out.ends_with("sent\n"), "something is left: {}", outcome.out);
    assert!(outcome.err.contains("left out"), "{}", outcome.err);
}

#[test]
fn a_demo_that_is_interrupted_or_killed_leaves_nothing() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new("");
    for signal in ["INT", "TERM", "KILL"] {
        // Wait for both daemons: the demo, its inner process, and one daemon for each side.
        let outcome = host.run(&format!(
            "./hybridwg demo > log 2>&1 & demo=$!; \
             until grep -q '^ping' log; do sleep 0.05; kill -0 $demo || exit 1; done; \
             kill -{signal} $demo; [ {signal} = INT ] && kill -INT $(pgrep -P $demo); \
             while pgrep -x hybridwg > /dev/null; do sleep 0.02; done; {LEFTOVERS}"
        ));
        outcome.assert_ok();
        assert_eq!(outcome.out, "", "after SIG{signal}");
    }
}

#[test]
fn an_unprivileged_user_can_run_the_demo_in_a_user_namespace() {
    if skips(&["unshare", "mount", "ip", "bash", "pgrep", "setpriv", "mknod"]) {
        return;
    }
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let host = Host::new("");
    // As on Debian, where everybody may open it.
    let outcome = host.run(&format!(
        "{nobody} unshare --user --map-root-user true 2>/dev/null || exit 77; \
         mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 || exit 1; \
         {nobody} ./hybridwg demo"
    ));
    if outcome.code == Some(77) {
        return skip("no user namespaces for users on this machine");
    }
    outcome.assert_ok();
    assert!(outcome.out.contains("5 of 5 answered"), "{}", outcome.out);
}

#[test]
fn without_the_rights_the_demo_names_them_and_how_to_give_them() {
    if skips(&["unshare", "mount", "ip", "bash", "pgrep", "setpriv"]) {
        return;
    }
    let host = Host::new("");
    let outcome = host.run(
        "unshare --user --map-root-user bash -c 'echo 0 > /proc/sys/user/max_user_namespaces; \
         exec setpriv --bounding-set=-all --inh-caps=-all ./hybridwg demo'; echo code $?; \
         mount -t tmpfs none /dev/net; ./hybridwg demo; echo code $?",
    );
    assert_eq!(outcome.out, "code 1\ncode 1\n", "{}", outcome.err);
    for part in [
        "missing: CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW",
        "a user namespace was refused",
        "--cap-add SYS_ADMIN",
        "the demo needs /dev/net/tun",
        "sudo modprobe tun",
    ] {
        assert!(outcome.err.contains(part), "no {part} in {}", outcome.err);
    }
}
