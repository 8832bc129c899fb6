//! The same files under Debian's `wg-quick` (over `wireguard-go`) and under `hybridwg up`, in equal
//! machines: links, addresses, routes, rules, nftables, DNS and the device itself are compared.
//!
//! A difference must be one of [`DIFFERENCES`], each of which docs/compatibility.md has; one that a
//! case names and that does not show is a failure too. What differs at random (the link-local
//! address of a TUN device, traffic) is left out on both sides. After `down` our machine is as it
//! was.

use std::fmt::Write;
use std::path::Path;
use std::{fs, thread};

use super::lifetime::kernel_has_wireguard;
use super::script::{Host, PROGRAMS};
use super::skips;

/// A file, and how the two shall differ on it.
struct Case {
    name: &'static str,
    /// Lines of `[Interface]`, beside the key and the port.
    interface: &'static str,
    /// Lines of the first `[Peer]`, beside its key; what follows may begin another one.
    peer: &'static str,
    /// Commands of the machine before `up`.
    machine: &'static str,
    differences: &'static [&'static str],
}

const fn case(name: &'static str, interface: &'static str, peer: &'static str) -> Case {
    Case { name, interface, peer, machine: "", differences: &[] }
}

impl Case {
    const fn on(self, machine: &'static str) -> Self {
        Self { machine, ..self }
    }

    const fn but(self, differences: &'static [&'static str]) -> Self {
        Self { differences, ..self }
    }

    fn file(&self) -> String {
        let port = if self.interface.contains("ListenPort") { "" } else { "ListenPort = 51999\n" };
        format!(
            "[Interface]\nPrivateKey = {PRIVATE}\n{port}{}\n[Peer]\nPublicKey = {PUBLIC}\n{}",
            self.interface, self.peer
        )
    }
}

const PRIVATE: &str = "CFQPfVMVkLbrCr2yhnGOcFWRWWnDuUrXo1HQGl15cV0=";
const PUBLIC: &str = "CFQPfVMVkLbrCr2yhnGOcFWRWWnDuUrXo1HQGl15cW0=";

/// What turns our side into that of wg-quick, by the label in docs/compatibility.md.
const DIFFERENCES: &[(&str, fn(&str) -> String)] = &[
    ("WQ-09", |line| match line.starts_with("address wg0") {
        true => line.replace(" nodad ", " "),
        false => line.to_owned(),
    }),
    ("WQ-17", |line| match line.starts_with("link wg0") {
        true => line.replace(" mtu 1360 ", " mtu 1420 "),
        false => line.to_owned(),
    }),
    ("WQ-20", |line| {
        let line = line.replace(" proto 87", "").replace("0x1002", "0xca6c");
        line.replace("0x00001002", "0x0000ca6c")
    }),
    ("WQ-21", |line| {
        if let Some((before, _)) = line.split_once(" ct mark 0x")
            && line.contains(" meta mark set ")
        {
            return format!("{before} meta mark set ct mark");
        }
        if line.contains("flags owner") {
            return String::new();
        }
        let line = match line.split_once(" ct mark set ") {
            Some((before, _)) => format!("{before} ct mark set meta mark"),
            None => line.replace("hybridwg-wg0", "wg-quick-wg0"),
        };
        line.split(" # progname").next().unwrap_or_default().to_owned()
    }),
];

const FULL: &[&str] = &["WQ-17", "WQ-20", "WQ-21"];
const FULL_MTU: &[&str] = &["WQ-20", "WQ-21"];
const MTU: &[&str] = &["WQ-17"];

/// WQ-06 to WQ-19: parsing, addresses, MTU, tables.
const PLAIN: &[Case] = &[
    case("nothing but keys", "", "").but(MTU),
    case("WQ-09 one address", "MTU = 1400\nAddress = 10.10.0.1/24", ""),
    case("WQ-09 no prefix", "MTU = 1400\nAddress = 10.10.0.1", ""),
    case("WQ-09 IPv6", "MTU = 1400\nAddress = fd10::1/64", ""),
    case("WQ-09 IPv6 without prefix", "MTU = 1400\nAddress = fd10::1", ""),
    case("WQ-09 by commas", "MTU = 1400\nAddress = 10.10.0.1/24,fd10::1/64 , 10.11.0.1/32", ""),
    case("WQ-09 by blanks", "MTU = 1400\nAddress = 10.10.0.1/24 fd10::1/64", ""),
    case("WQ-09 repeated", "MTU = 1400\nAddress = 10.10.0.1/24\nAddress = 10.10.0.2/24", ""),
    case("WQ-06 any case", "mtu = 1400\nADDRESS=10.10.0.1/24", "allowedips = 10.20.0.0/16"),
    case(
        "WQ-06 comments",
        "# a\nMTU = 1400 # b\n\nAddress = 10.10.0.1/24#c",
        "AllowedIPs = 10.20.0.0/16#d",
    ),
    case(
        "WQ-07 two sections",
        "MTU = 1400\nAddress = 10.10.0.1/24\n[interface]\nAddress = 10.11.0.1/24",
        "",
    ),
    case("WQ-16 MTU", "MTU = 1500\nAddress = 10.10.0.1/24", ""),
    case("WQ-16 small MTU", "MTU = 1280\nAddress = fd10::1/64", ""),
    case("WQ-11 last MTU", "MTU = 1300\nMTU = 1400\nAddress = 10.10.0.1/24", ""),
    case("WQ-17 path", "Address = 10.10.0.1/24", "Endpoint = 192.0.2.9:9").but(MTU),
    case("WQ-17 path over IPv6", "Address = 10.10.0.1/24", "Endpoint = [2001:db8::9]:9").but(MTU),
    case("WQ-17 narrow path", "Address = 10.10.0.1/24", "Endpoint = 192.0.2.9:9")
        .on("ip link set eth0 mtu 1400"),
    case("WQ-17 route", "Address = 10.10.0.1/24", "Endpoint = 198.51.100.1:9")
        .on("ip route add 198.51.100.0/24 via 192.0.2.254 mtu 1380"),
    case("WQ-17 default route", "Address = 10.10.0.1/24", "").on("ip link set eth0 mtu 1390"),
    case("port", "MTU = 1400\nListenPort = 51820", ""),
    case("mark", "MTU = 1400\nFwMark = 0x4d2", "AllowedIPs = 10.20.0.0/16"),
    case("no mark", "MTU = 1400\nFwMark = off", "AllowedIPs = 10.20.0.0/16"),
    case(
        "peer",
        "MTU = 1400",
        "PresharedKey = CFQPfVMVkLbrCr2yhnGOcFWRWWnDuUrXo1HQGl15cV0=\n\
          Endpoint = [2001:db8::9]:51820\nPersistentKeepalive = 25\nAllowedIPs = 10.20.0.0/16, fd20::/48",
    ),
    case("no keepalive", "MTU = 1400", "PersistentKeepalive = off\nEndpoint = 192.0.2.9:9"),
    case(
        "WQ-18 no routes",
        "MTU = 1400\nTable = off\nAddress = 10.10.0.1/24",
        "AllowedIPs = 10.20.0.0/16, 0.0.0.0/0",
    ),
    case(
        "WQ-18 auto",
        "MTU = 1400\nTable = auto\nAddress = 10.10.0.1/24",
        "AllowedIPs = 10.20.0.0/16",
    ),
    case(
        "WQ-18 number",
        "MTU = 1400\nTable = 1234\nAddress = 10.10.0.1/24",
        "AllowedIPs = 10.10.0.7/32, 10.20.0.0/16",
    ),
    case(
        "WQ-18 number, all",
        "MTU = 1400\nTable = 1234\nAddress = 10.10.0.1/24, fd10::1/64",
        "AllowedIPs = 0.0.0.0/0, ::/0",
    ),
    case(
        "WQ-18 name",
        "MTU = 1400\nTable = vpn\nAddress = 10.10.0.1/24",
        "AllowedIPs = 10.20.0.0/16",
    ),
    case(
        "WQ-18 main",
        "MTU = 1400\nTable = main\nAddress = 10.10.0.1/24",
        "AllowedIPs = 10.20.0.0/16",
    ),
    case(
        "WQ-18 unknown name",
        "MTU = 1400\nTable = nowhere\nAddress = 10.10.0.1/24",
        "AllowedIPs = 10.20.0.0/16",
    ),
    case(
        "WQ-19 covered",
        "MTU = 1400\nAddress = 10.10.0.1/16, fd10::1/64",
        "AllowedIPs = 10.10.0.7/32, 10.10.0.0/16, fd10::7/128, 10.0.0.0/8",
    ),
    case(
        "WQ-19 lengths",
        "MTU = 1400\nAddress = 10.10.0.1/24, fd10::1/64",
        "AllowedIPs = 10.0.0.0/8, fd20::/48, 10.20.0.0/16, fd20:0:0:1::/64, 192.168.7.7/32",
    ),
    case(
        "WQ-20 halves",
        "MTU = 1400\nAddress = 10.10.0.1/24",
        "AllowedIPs = 0.0.0.0/1, 128.0.0.0/1",
    ),
    case("WG-10 host bits", "MTU = 1400\nAddress = 10.10.0.1/24", "AllowedIPs = 10.20.7.7/16"),
    case(
        "WG-10 moved",
        "MTU = 1400\nAddress = 10.10.0.1/24",
        "AllowedIPs = 10.20.0.0/16, 10.30.0.0/16\n[Peer]\n\
          PublicKey = 7+n0BwI2HL/GMOZ1EsfUyMjFgDS0dCTBYTkBh7XZHwE=\nAllowedIPs = 10.20.0.0/16",
    ),
];

/// WQ-14 to WQ-29: policy routing, DNS, hooks, failures.
const REST: &[Case] = &[
    case("WQ-20 IPv4", "Address = 10.10.0.1/24, fd10::1/64", "AllowedIPs = 0.0.0.0/0").but(FULL),
    case("WQ-20 IPv6", "Address = 10.10.0.1/24, fd10::1/64", "AllowedIPs = ::/0").but(FULL),
    case(
        "WQ-20 both",
        "MTU = 1400\nAddress = 10.10.0.1/24, fd10::1/64",
        "AllowedIPs = 0.0.0.0/0, ::/0",
    )
    .but(FULL_MTU),
    case(
        "WQ-20 and networks",
        "MTU = 1400\nAddress = 10.10.0.1/24",
        "AllowedIPs = 0.0.0.0/0, 10.20.0.0/16",
    )
    .but(FULL_MTU),
    case(
        "WQ-20 mark",
        "MTU = 1400\nFwMark = 1234\nAddress = 10.10.0.1/24",
        "AllowedIPs = 0.0.0.0/0",
    )
    .but(FULL_MTU),
    case(
        "WQ-20 table in use",
        "MTU = 1400\nFwMark = 0\nAddress = 10.10.0.1/24",
        "AllowedIPs = 10.99.0.0/16, ::/0",
    )
    .on("ip route add 10.98.0.0/16 dev eth0 table 51820; ip route delete 10.98.0.0/16 table 51820")
    .but(FULL_MTU),
    case(
        "WQ-20 a rule of somebody",
        "MTU = 1400\nAddress = 10.10.0.1/24",
        "AllowedIPs = 0.0.0.0/0",
    )
    .on("ip rule add from 192.0.2.1 table 99")
    .but(FULL_MTU),
    case("WQ-20 a lonely rule", "MTU = 1400\nAddress = 10.10.0.1/24", "AllowedIPs = 0.0.0.0/0")
        .on("ip rule add table 99; ip -6 rule add table 99")
        .but(FULL_MTU),
    case(
        "WQ-21 several addresses",
        "MTU = 1400\nAddress = 10.10.0.1/24, 10.11.0.1/32, fd10::1/64, fd11::1/64",
        "AllowedIPs = 0.0.0.0/0, ::/0",
    )
    .but(FULL_MTU),
    case("WQ-21 no address", "MTU = 1400", "AllowedIPs = 0.0.0.0/0").but(FULL_MTU),
    case("WQ-22 set already", "MTU = 1400\nAddress = 10.10.0.1/24", "AllowedIPs = 0.0.0.0/0")
        .on("echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark")
        .but(FULL_MTU),
    case("WQ-26 servers", "MTU = 1400\nDNS = 10.0.0.53, fd00::53", ""),
    case("WQ-26 servers and domains", "MTU = 1400\nDNS = 10.0.0.53 a.test\nDNS = b.test", ""),
    case("WQ-27 prefix", "MTU = 1400\nDNS = 10.0.0.53", "")
        .on("mkdir /etc/resolvconf; echo 'tun*' > /etc/resolvconf/interface-order"),
    case(
        "WQ-26 and everything",
        "MTU = 1400\nAddress = 10.10.0.1/24\nDNS = 10.0.0.53",
        "AllowedIPs = 0.0.0.0/0",
    )
    .but(FULL_MTU),
    case(
        "WQ-12, WQ-29 hooks",
        "MTU = 1400\nAddress = 10.10.0.1/24\nPostUp = ip route add blackhole 10.77.0.0/16; echo up %i >> hooks\n\
          PostUp = echo again-%i >> hooks\nPreDown = echo predown %i >> hooks\nPostDown = ip route delete blackhole 10.77.0.0/16; echo down >> hooks",
        "",
    ),
    case("WQ-12 bash", "MTU = 1400\nPostUp = cat <(echo %i) >> hooks; [[ %i == wg* ]]", ""),
    case(
        "WQ-15 PostUp fails",
        "MTU = 1400\nAddress = 10.10.0.1/24\nDNS = 10.0.0.53\nPostUp = exit 7\nPreDown = echo no >> hooks\nPostDown = echo no >> hooks",
        "AllowedIPs = 10.20.0.0/16",
    ),
    case(
        "WQ-15 an address that is no good",
        "MTU = 1400\nAddress = 10.10.0.1/24, 10.10.0.1/24",
        "AllowedIPs = 10.20.0.0/16",
    ),
    case("WQ-08 unknown key", "MTU = 1400\nNonsense = 1", ""),
    case("WQ-14 there already", "MTU = 1400", "").on("ip tuntap add wg0 mode tun"),
];

/// The machine: a way out, an `/etc`, a `resolvconf` that keeps records, and `state`, which tells all
/// about it, a fact a line.
const MACHINE: &str = r#"
ip link add eth0 type veth peer name eth1; ip link set eth0 up; ip link set eth1 up
for i in eth0 eth1; do echo 0 > /proc/sys/net/ipv6/conf/$i/accept_dad; done
ip address add 192.0.2.1/24 dev eth0; ip address add 2001:db8::1/64 dev eth0 nodad
ip route add default via 192.0.2.254; ip -6 route add default via 2001:db8::fe
mount -t tmpfs none /etc; mkdir /etc/iproute2 bin; echo '99 vpn' > /etc/iproute2/rt_tables
printf '#!/bin/sh\ncase $1 in -a) { echo "$@"; cat; } > /run/record-$2;; -d) rm -f /run/record-$2;; esac\n' > bin/resolvconf
chmod +x bin/resolvconf; export PATH=$PWD/bin:$PATH; touch hooks
state() { {
    ip -o link | grep -v ': lo:' | sed 's/^[0-9]*:/link/; s/@[^:]*//; s/ link-netnsid.*//; s/ether [0-9a-f:]*//'
    ip -o address | grep -v 'lo ' | sed 's/^[0-9]*:/address/'
    ip -4 route show table all | sed 's/^/route /'; ip -6 route show table all | grep -v 'dev eth1' | sed 's/^/route /'
    ip -4 rule | sed 's/^/rule /'; ip -6 rule | sed 's/^/rule6 /'
    nft list tables | sort | while read -r table; do nft list $table; done | sed '/^$/d; s/^[ \t]*/nft /'
    cat /run/record-* 2> /dev/null | sed 's/^/dns /'; sed 's/^/hook /' hooks
    wg show wg0 dump 2> /dev/null | cut -f 1-4,8 | sort | sed 's/^/wg /'
} | grep -v 'fe80:' | sed 's/[ ]*$//'; }
settled() { for i in $(seq 250); do { pgrep -x hybridwg || pgrep -x wireguard-go; } > /dev/null || return; sleep 0.02; done; }
"#;

/// What the machine looks like after `up` and after `down`, each with the exit status.
fn under(program: &str, case: &Case) -> [String; 3] {
    let host = Host::new(&case.file());
    let outcome = host.run(&format!(
        "{MACHINE}\n{}\nstate > before\n{program} up ./wg0.conf; echo up $?; state; echo ===; cat before; echo ===; \
         {program} down ./wg0.conf; echo down $?; settled; state",
        case.machine
    ));
    let parts: Vec<&str> = outcome.out.split("===\n").collect();
    let [up, before, down] = parts[..] else {
        panic!("{}: {}{}", case.name, outcome.out, outcome.err)
    };
    println!("{}: {program}\n{}", case.name, outcome.err);
    [up.to_owned(), before.to_owned(), down.to_owned()]
}

/// Our lines as wg-quick's, and the differences that have shown.
fn translated(text: &str, differences: &[&'static str]) -> (String, Vec<&'static str>) {
    let mut shown = Vec::new();
    let mut out = String::new();
    for line in text.lines() {
        let mut line = line.to_owned();
        for (label, rewrite) in DIFFERENCES.iter().filter(|(label, _)| differences.contains(label))
        {
            let other = rewrite(&line);
            if other != line && !shown.contains(label) {
                shown.push(*label);
            }
            line = other;
        }
        if !line.is_empty() {
            writeln!(out, "{line}").unwrap();
        }
    }
    shown.sort_unstable();
    (out, shown)
}

/// What is not the same on both sides.
fn differing(theirs: &str, ours: &str) -> String {
    let missing = theirs.lines().filter(|line| !ours.lines().any(|other| other == *line));
    let more = ours.lines().filter(|line| !theirs.lines().any(|other| other == *line));
    let lines =
        missing.map(|line| format!("- {line}\n")).chain(more.map(|line| format!("+ {line}\n")));
    let text: String = lines.collect();
    let order = theirs.lines().zip(ours.lines()).find(|(one, other)| one != other);
    match order {
        Some((one, other)) if text.is_empty() => format!("{one}\nstands where we have\n{other}\n"),
        None if theirs.lines().count() != ours.lines().count() => {
            format!("{text}a line more than once\n")
        }
        _ => text,
    }
}

/// The networks of a peer in one order: there is no meaning in it.
fn sorted(state: &str) -> String {
    let sorted = state.lines().map(|line| {
        let sort = |field: &str| {
            let mut networks: Vec<&str> = field.split(',').collect();
            networks.sort_unstable();
            networks.join(",")
        };
        let fields: Vec<String> = line.split('\t').map(sort).collect();
        if line.starts_with("wg ") { fields.join("\t") } else { line.to_owned() }
    });
    sorted.map(|line| line + "\n").collect()
}

/// What is wrong about a case; empty if nothing is.
fn judge(case: &Case) -> String {
    let [theirs, _, their_end] = under("wg-quick", case);
    let [ours, before, our_end] = under("hybridwg", case);
    let mut differences = case.differences.to_vec();
    // Every IPv6 address that gets onto the interface differs.
    if case.interface.contains("::") && ours.contains("inet6 fd") {
        differences.insert(0, "WQ-09");
    }
    let (as_theirs, shown) = translated(&ours, &differences);
    let mut faults = String::new();
    // The statuses of failures differ: ours tells a faulty file from a failure.
    let failed = |text: &str| !text.lines().next().is_some_and(|line| line.ends_with(" 0"));
    for (theirs, ours) in [(&theirs, &ours), (&their_end, &our_end)] {
        if failed(theirs) == failed(ours) {
            continue;
        }
        writeln!(
            faults,
            "{} against {}",
            theirs.lines().next().unwrap(),
            ours.lines().next().unwrap()
        )
        .unwrap();
    }
    let rest = |text: &str| text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap();
    faults += &differing(&sorted(&rest(&theirs)), &sorted(&rest(&as_theirs)));
    if shown != differences {
        writeln!(faults, "differs in {shown:?} and not in {differences:?}").unwrap();
    }
    // Hooks write down that they ran.
    let parted = |text: &str| -> (Vec<String>, Vec<String>) {
        text.lines().map(str::to_owned).partition(|line| line.starts_with("hook "))
    };
    let ((hooks, left), (_, before)) = (parted(&rest(&our_end)), parted(&before));
    faults += &differing(&parted(&their_end).0.join("\n"), &hooks.join("\n"));
    faults += &differing(&before.join("\n"), &left.join("\n"));
    faults
}

#[track_caller]
fn judge_all(cases: &[Case]) {
    if skips(PROGRAMS)
        || skips(&["wg", "wg-quick", "wireguard-go", "nft", "sysctl"])
        || kernel_has_wireguard()
    {
        return;
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    let page = fs::read_to_string(page).unwrap();
    for (label, _) in DIFFERENCES {
        assert!(page.contains(&format!("| {label} |")), "docs/compatibility.md has no {label}");
    }
    // Most of the time is waiting.
    let faults = thread::scope(|scope| {
        let parts = cases.chunks(cases.len().div_ceil(4));
        let threads: Vec<_> = parts
            .map(|part| {
                scope.spawn(|| part.iter().map(|case| (case.name, judge(case))).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let faults: Vec<String> = faults
        .into_iter()
        .filter(|(_, fault)| !fault.is_empty())
        .map(|(name, fault)| format!("{name}:\n{fault}"))
        .collect();
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

#[test]
fn addresses_mtu_and_tables_are_as_under_wg_quick() {
    judge_all(PLAIN);
}

#[test]
fn policy_routing_dns_hooks_and_failures_are_as_under_wg_quick_but_for_what_is_listed() {
    judge_all(REST);
}
