use std::os::fd::AsFd;

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
    let chain =
        |name: &str, hook, priority, rules| Chain { name: name.to_owned(), hook, priority, rules };
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
    Table {
        family,
        name: "test-wg0".to_owned(),
        chains: vec![
            chain("early", Hook::Prerouting, -300, early),
            chain("marks", Hook::Postrouting, -150, marks.to_vec()),
            chain("back", Hook::Prerouting, -150, back.to_vec()),
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
         meta l4proto udp ct mark & 0xffff == 0x1002 meta mark set meta mark & 0xffff0000 | 0x1002; }; }'"
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
