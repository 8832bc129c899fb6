//! `DNS`, as `up` sets and `down` restores it, in an `/etc` of the test's own.

use super::script::{Host, PROGRAMS, config};
use super::skips;

/// An `/etc` with a `resolv.conf`, and a folder for programs of our own.
const ETC: &str = "mount -t tmpfs none /etc; mkdir bin 2> /dev/null; export PATH=$PWD/bin:$PATH; \
    printf '# lan\\nnameserver 192.0.2.53\\nsearch lan\\n' > /etc/resolv.conf; cp /etc/resolv.conf before; \
    shown() { grep -v '^#' /etc/resolv.conf; }; restored() { diff before /etc/resolv.conf && echo restored; }\n";

/// A `resolvconf` that keeps records as Debian's do.
const RESOLVCONF: &str = "#!/bin/sh\n\
    echo \"resolvconf $*\" >> log\n\
    case $1 in -a) cat > /run/record-$2;; -d) rm -f /run/record-$2;; esac\n";

#[test]
fn without_another_way_the_file_is_written_and_restored_to_the_byte() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("DNS = 10.0.0.53, fd00::53\nDNS = a.test"));
    host.write("wg1.conf", &config("DNS = b.test").replace("10.10.0", "10.11.0"));
    let shown = "nameserver 10.0.0.53\nnameserver fd00::53\nsearch a.test\n";
    let outcome = host.run(&format!(
        "{ETC} hybridwg up ./wg0.conf && shown && hybridwg down ./wg0.conf && restored; \
         hybridwg up ./wg1.conf && shown && hybridwg down ./wg1.conf && restored; \
         hybridwg up ./wg0.conf && kill -9 $(pgrep -x hybridwg); \
         while pgrep -x hybridwg > /dev/null; do sleep 0.02; done; shown; hybridwg up ./wg0.conf; \
         kill -9 $(pgrep -x hybridwg); while pgrep -x hybridwg > /dev/null; do sleep 0.02; done; \
         hybridwg down ./wg0.conf && restored; sed -i '/DNS = a/aPostUp = false' wg0.conf; \
         hybridwg up ./wg0.conf; restored; ls /run/hybridwg"
    ));
    assert_eq!(
        outcome.out,
        format!(
            "{shown}restored\nsearch b.test lan\nnameserver 192.0.2.53\nrestored\n\
             {shown}restored\nrestored\n"
        ),
        "{}",
        outcome.err
    );
}

/// WQ-26, WQ-27.
#[test]
fn resolvconf_is_used_where_it_is_with_the_prefix_of_its_own_order() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("DNS = 10.0.0.53, a.test, b.test"));
    host.write("resolvconf", RESOLVCONF);
    let outcome = host.run(&format!(
        "{ETC} cp resolvconf bin; chmod +x bin/resolvconf; hybridwg up ./wg0.conf && \
         cat /run/record-wg0 && hybridwg down ./wg0.conf || exit 1; mkdir /etc/resolvconf; \
         printf 'lo*\\ntun*\\n' > /etc/resolvconf/interface-order; sed -i /lo/d /etc/resolvconf/interface-order; \
         hybridwg up ./wg0.conf && hybridwg down ./wg0.conf || exit 1; \
         mv bin/resolvconf bin/real; ln -s real bin/resolvconf; hybridwg up ./wg0.conf && hybridwg down ./wg0.conf || exit 1; \
         ls /run/record-*; cat log; restored"
    ));
    assert_eq!(
        outcome.out,
        "nameserver 10.0.0.53\nsearch a.test b.test\nresolvconf -a wg0 -m 0 -x\nresolvconf -d wg0 -f\n\
         resolvconf -a tun.wg0 -m 0 -x\nresolvconf -d tun.wg0 -f\n\
         resolvconf -a wg0 -m 0 -x\nresolvconf -d wg0 -f\nrestored\n",
        "{}",
        outcome.err
    );
}

/// U-03.
#[test]
fn resolved_is_asked_first_and_a_way_that_fails_is_followed_by_the_next() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("DNS = 10.0.0.53, a.test"));
    host.write("resolvectl", "#!/bin/sh\necho \"resolvectl $*\" >> log; test ! -e fails\n");
    host.write("resolvconf", "#!/bin/sh\necho resolvconf >> log; exit 3\n");
    let outcome = host.run(&format!(
        "{ETC} cp resolvconf resolvectl bin; chmod +x bin/*; mkdir -p /run/systemd/resolve; \
         mv /etc/resolv.conf /run/systemd/resolve/stub-resolv.conf; \
         ln -s /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf; \
         hybridwg up ./wg0.conf && hybridwg down ./wg0.conf && restored; touch fails; \
         hybridwg up ./wg0.conf && shown && hybridwg down ./wg0.conf && restored; cat log"
    ));
    assert_eq!(
        outcome.out,
        "restored\nnameserver 10.0.0.53\nsearch a.test\nrestored\nresolvectl dns wg0 10.0.0.53\n\
         resolvectl domain wg0 ~. a.test\nresolvectl default-route wg0 yes\nresolvectl revert wg0\n\
         resolvectl dns wg0 10.0.0.53\nresolvconf\n",
        "{}",
        outcome.err
    );
    let told = "Warning: cannot set DNS: resolvconf: exit status: 3: trying another way\n";
    assert!(outcome.err.contains(told), "{}", outcome.err);
}

/// U-03, WQ-28.
#[test]
fn dns_that_cannot_be_set_is_a_failure_only_if_the_file_says_so() {
    if skips(PROGRAMS) {
        return;
    }
    let host = Host::new(&config("DNS = 10.0.0.53"));
    host.write("wg1.conf", &config("DNS = 10.0.0.53\n#hybridwg: RequireDNS = on"));
    let outcome = host.run(&format!(
        "{ETC} mount -o remount,ro /etc; for i in 0 1; do hybridwg up ./wg$i.conf; echo code $?; \
         hybridwg down ./wg$i.conf; done; restored; ls /run/hybridwg"
    ));
    assert_eq!(outcome.out, "code 0\ncode 1\nrestored\n", "{}", outcome.err);
    let told = "Warning: cannot set DNS: /etc/resolv.conf: Read-only file system (os error 30): names \
                are resolved as before, outside of the tunnel\n";
    assert_eq!(outcome.err.matches(told).count(), 1, "{}", outcome.err);
}
