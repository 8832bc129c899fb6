use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::Command;

use netlink_bindings::nftables::{IterableGenAttrs, Nfgenmsg, Request};

use super::*;
use crate::control::netlink::tests::namespace;

/// A table with every part that there is.
fn table(family: Family) -> Table {
    let address = match family {
        Family::V4 => "10.10.0.1",
        Family::V6 => "fd10::1",
    };
    let exact = Mark::exact(0x1002);
    let masked = Mark { value: 0x1002, mask: 0xffff };
    let chain = |name: &str, kind, hook, priority, rules| Chain {
        name: name.to_owned(),
        kind,
        hook,
        priority,
        rules,
    };
    let bits = |value: &str, mask: &str| -> (IpAddr, IpAddr) {
        (value.parse().unwrap(), mask.parse().unwrap())
    };
    let (network, odd) = match family {
        Family::V4 => (bits("10.20.0.0", "255.255.0.0"), bits("10.0.0.1", "255.0.0.255")),
        Family::V6 => (bits("fd20::", "ffff::"), bits("fd00::1", "ff00::ffff")),
    };
    let early = vec![vec![
        Part::NotByInterface("wg0".to_owned()),
        Part::Destination(address.parse().unwrap()),
        Part::SourceNotOurs,
        Part::Drop,
    ]];
    let marks = [exact, masked]
        .map(|mark| vec![Part::Udp, Part::Marked(mark), Part::SetConnectionMark(mark)]);
    let back = [exact, masked]
        .map(|mark| vec![Part::Udp, Part::ConnectionMarked(mark), Part::SetMark(mark)]);
    let (value, mask) = odd;
    let policy = vec![
        vec![Part::ToInterface("wg0".to_owned()), Part::Established, Part::Accept],
        vec![Part::DestinationBits { value, mask }, Part::Icmp, Part::Reject],
        vec![Part::Tcp, Part::DestinationPorts(80, 443), Part::Reject],
    ];
    let (value, mask) = network;
    let masquerade = vec![vec![
        Part::SourceBits { value, mask },
        Part::NotToInterface("wg0".to_owned()),
        Part::Masquerade,
    ]];
    let (filter, nat) = (Kind::Filter, Kind::Nat);
    Table {
        family,
        name: "test-wg0".to_owned(),
        chains: vec![
            chain("early", filter, Hook::Prerouting, -300, early),
            chain("marks", filter, Hook::Postrouting, -150, marks.to_vec()),
            chain("back", filter, Hook::Prerouting, -150, back.to_vec()),
            chain("policy", filter, Hook::Forward, 0, policy),
            chain("masquerade", nat, Hook::Postrouting, 100, masquerade),
        ],
    }
}

#[test]
fn a_table_reads_as_nft_takes_it() {
    assert_eq!(
        table(Family::V6).add_command(),
        "nft 'table ip6 test-wg0 { \
         chain early { type filter hook prerouting priority -300; \
         iifname != \"wg0\" ip6 daddr fd10::1 fib saddr type != local drop; }; \
         chain marks { type filter hook postrouting priority -150; \
         meta l4proto udp meta mark 0x1002 ct mark set 0x1002; \
         meta l4proto udp meta mark & 0xffff == 0x1002 ct mark set ct mark & 0xffff0000 | 0x1002; }; \
         chain back { type filter hook prerouting priority -150; \
         meta l4proto udp ct mark 0x1002 meta mark set 0x1002; \
         meta l4proto udp ct mark & 0xffff == 0x1002 meta mark set meta mark & 0xffff0000 | 0x1002; }; \
         chain policy { type filter hook forward priority 0; \
         oifname \"wg0\" ct state established,related accept; \
         ip6 daddr & ff00::ffff == fd00::1 meta l4proto ipv6-icmp \
         reject with icmpv6 type admin-prohibited; \
         meta l4proto tcp th dport 80-443 reject with icmpv6 type admin-prohibited; }; \
         chain masquerade { type nat hook postrouting priority 100; \
         ip6 saddr fd20::/16 oifname != \"wg0\" masquerade; }; }'"
    );
}

#[test]
fn a_table_without_an_owner_stays_until_it_is_deleted_and_can_be_made_again() {
    let Some(namespace) = namespace() else { return };
    namespace
        .run(|| {
            for family in Family::BOTH {
                let table = table(family);
                let mut netlink = Netlink::new();
                netlink.replace_table(&table).unwrap();
                netlink.replace_table(&table).unwrap();
                drop(netlink);
                let mut netlink = Netlink::new();
                netlink.delete_table(&table).unwrap();
                let error = netlink.delete_table(&table).unwrap_err();
                assert!(error.is_absent(), "{error}");
                // What was left by one refusal is not taken for the answer to the next request.
                netlink.replace_table(&table).unwrap();
            }
        })
        .unwrap();
}

#[test]
fn a_table_of_an_owner_is_touched_by_nobody_else_and_goes_with_the_last_copy_of_its_descriptor() {
    let Some(namespace) = namespace() else { return };
    namespace
        .run(|| {
            let (mut netlink, owner) = (Netlink::new(), Owner::new().unwrap());
            let table = table(Family::V4);
            // Left behind by a program on a kernel that knew no owners.
            netlink.replace_table(&table).unwrap();
            owner.replace_table(&table).unwrap();
            owner.replace_table(&table).unwrap();
            for refused in [netlink.delete_table(&table), netlink.replace_table(&table)] {
                let refused = refused.unwrap_err().to_string();
                assert!(refused.ends_with("Operation not permitted"), "{refused}");
            }
            let copy = owner.as_fd().try_clone_to_owned().unwrap();
            drop(owner);
            assert!(!netlink.delete_table(&table).unwrap_err().is_absent());
            drop(copy);
            assert!(netlink.delete_table(&table).unwrap_err().is_absent());
            let owner = Owner::new().unwrap();
            assert!(owner.delete_table(&table).unwrap_err().is_absent());
            owner.replace_table(&table).unwrap();
            owner.delete_table(&table).unwrap();
        })
        .unwrap();
}

#[test]
fn a_rehearsal_makes_nothing_and_tells_what_the_kernel_would_refuse() {
    let Some(namespace) = namespace() else { return };
    namespace
        .run(|| {
            let mut netlink = Netlink::new();
            let mut table = table(Family::V4);
            netlink.rehearse_table(&table).unwrap();
            assert_eq!(netlink.base_chains().unwrap(), []);
            netlink.replace_table(&table).unwrap();
            let chains = netlink.base_chains().unwrap();
            let forwards = chains.iter().filter(|chain| chain.is_forward && !chain.drops);
            assert_eq!(forwards.map(|chain| &*chain.name).collect::<Vec<_>>(), ["policy"]);
            // The kernel knows no "nat" there.
            table.chains[4].hook = Hook::Forward;
            let refused = netlink.rehearse_table(&table).unwrap_err();
            assert!(refused.is_unsupported(), "{refused}");
            assert_eq!(netlink.base_chains().unwrap(), chains);
        })
        .unwrap();
}

#[test]
fn a_table_of_an_owner_gets_other_rules_also_if_it_is_long() {
    let Some(namespace) = namespace() else { return };
    namespace
        .run(|| {
            let (mut netlink, owner) = (Netlink::new(), Owner::new().unwrap());
            let mut table = table(Family::V6);
            owner.replace_table(&table).unwrap();
            let masquerade = table.chains[4].rules[0].clone();
            table.chains[4].rules = vec![masquerade; 2000];
            owner.replace_table(&table).unwrap();
            // A chain cannot be moved: the table is made anew.
            table.chains[4].priority = 101;
            owner.replace_table(&table).unwrap();
            assert_eq!(netlink.base_chains().unwrap().len(), 5);
        })
        .unwrap();
}

/// How often the rules of this network namespace were changed.
fn generation(netlink: &mut Netlink) -> u32 {
    let request = Request::new().op_getgen_do(&Nfgenmsg::new());
    let mut number = None;
    let read = |(_, attributes): (_, IterableGenAttrs<'_>)| number = attributes.get_id().ok();
    netlink.query(&request, || "nft list ruleset".to_owned(), read).unwrap();
    number.unwrap()
}

#[test]
fn an_owner_replaces_his_own_table_and_one_of_nobodys_in_one_transaction() {
    let Some(namespace) = namespace() else { return };
    namespace
        .run(|| {
            let (mut netlink, owner) = (Netlink::new(), Owner::new().unwrap());
            assert!(!owner.is_unknown(), "this kernel is not that old");
            let mut table = table(Family::V4);
            netlink.replace_table(&table).unwrap();
            for _ in 0..2 {
                let before = generation(&mut netlink);
                // A chain that is gone and one at another place: nothing of the former stays.
                table.chains.pop();
                table.chains[0].priority -= 1;
                owner.replace_table(&table).unwrap();
                assert_eq!(generation(&mut netlink), before + 1);
                assert_eq!(netlink.base_chains().unwrap().len(), table.chains.len());
            }
            // What the kernel cannot make leaves all as it was, whoever has asked for it.
            let chains = netlink.base_chains().unwrap();
            table.chains[0].kind = Kind::Nat;
            assert!(owner.replace_table(&table).unwrap_err().is_unsupported());
            let new = Table { name: "test-wg1".to_owned(), ..table };
            assert!(owner.replace_table(&new).unwrap_err().is_unsupported());
            assert_eq!(netlink.base_chains().unwrap(), chains);
        })
        .unwrap();
}

/// A script for nft(8) in this network namespace.
fn nft(script: &str) {
    let mut nft = Command::new("nft");
    let output = nft.arg(script).output().expect("nft runs");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether the forward hook of the family drops the rest once nft has read `chains`.
fn drops_the_rest(chains: &str) -> bool {
    let mut netlink = Netlink::new();
    nft(&format!(
        "table inet t {{ {chains}; }}; table ip t {{ chain f {{ type filter hook forward priority 0; }}; }}"
    ));
    let standing = netlink.base_chains().unwrap();
    let chain = standing.iter().find(|it| it.is_forward && it.family == "inet").unwrap();
    let drops = netlink.drops_the_rest(chain).unwrap();
    nft("delete table inet t; delete table ip t");
    drops
}

#[test]
fn what_no_match_is_about_is_dropped_by_policy_or_by_a_rule_without_matches_wherever_it_stands() {
    if !crate::sys::testing::has_program("nft") {
        return;
    }
    let Some(namespace) = namespace() else { return };
    let start = "chain f { type filter hook forward priority 0; policy";
    let others = "chain o { type filter hook output priority 0; drop; };";
    namespace
        .run(|| {
            for open in [
                "accept; }",
                "accept; ct state invalid drop; iifname \"x\" reject; }",
                "drop; counter accept; }",
                "accept; accept; drop; }",
                "accept; return; drop; }",
            ] {
                assert!(!drops_the_rest(&format!("{others} {start} {open}")), "{open}");
            }
            for shut in [
                "drop; }",
                "drop; iifname \"x\" accept; }",
                "accept; ct state established accept; drop; }",
                "accept; counter log prefix \"x\" reject with icmpx admin-prohibited; }",
                "accept; reject; accept; }",
                "drop; return; accept; }",
            ] {
                assert!(drops_the_rest(&format!("{others} {start} {shut}")), "{shut}");
            }
            // Chains that nothing leads to by themselves.
            for (inner, drops) in [
                ("reject;", true),
                ("iifname \"x\" accept; jump b;", true),
                ("goto b; accept;", true),
                ("iifname \"x\" drop;", false),
                ("return; drop;", false),
                ("accept; drop;", false),
            ] {
                let chains = format!("chain b {{ counter drop; }}; chain a {{ {inner} }};");
                let called = format!("{chains} {start} accept; jump a; }}");
                assert_eq!(drops_the_rest(&called), drops, "{inner}");
                let seldom = format!("{chains} {start} accept; iifname \"x\" jump a; }}");
                assert!(!drops_the_rest(&seldom), "{inner}");
            }
        })
        .unwrap();
}
