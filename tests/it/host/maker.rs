//! Files that `hybridwg new` has made, on two machines.

use super::script::{Host, PROGRAMS};
use super::skips;

#[test]
fn a_pair_that_was_made_comes_up_and_pings_and_the_next_client_costs_no_session() {
    if skips(PROGRAMS) || skips(&["nsenter", "ping"]) {
        return;
    }
    let host = Host::new("");
    let outcome = host.run(
        "unshare --net sleep 600 & hub=$!; \
         until [ $(readlink /proc/$hub/ns/net) != $(readlink /proc/self/ns/net) ]; do sleep 0.01; done; \
         at() { nsenter -t $hub -n \"$@\"; }; at ip link set lo up; \
         ip link add eth0 type veth peer name eth0 netns $hub; ip link set eth0 up; at ip link set eth0 up; \
         ip address add 192.0.2.1/24 dev eth0; at ip address add 192.0.2.9/24 dev eth0; \
         hybridwg new hub ./hub.conf --endpoint 192.0.2.9 || exit 1; \
         for name in one two; do hybridwg new client ./hub.conf $name || exit 2; done; \
         at ./hybridwg up ./hub.conf && hybridwg up ./two.conf || exit 3; \
         hub() { sed -n \"s/^Address = \\($1[^/]*\\).*/\\1/p\" hub.conf; }; \
         for address in $(hub 10) $(hub fd); do ping -n -q -c 1 -W 2 $address > /dev/null; echo $?; done; \
         cat /proc/sys/net/ipv6/conf/two/mtu; hybridwg show two persistent-keepalive | cut -f 2; \
         at ./hybridwg show hub latest-handshakes | cut -f 2 | grep -vc '^0$'; \
         hybridwg new client ./hub.conf three && at ./hybridwg reload ./hub.conf || exit 4; \
         at ./hybridwg show hub peers | wc -l; ping -n -q -c 1 -W 2 $(hub 10) > /dev/null; echo $?; \
         at ./hybridwg show hub latest-handshakes | cut -f 2 | grep -vc '^0$'",
    );
    outcome.assert_ok();
    assert_eq!(outcome.out, "0\n0\n1360\n25\n1\n3\n0\n1\n", "{}", outcome.err);
}
