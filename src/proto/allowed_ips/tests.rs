use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The same promises, kept by looking at everything.
#[derive(Default)]
struct LinearList(BTreeMap<IpNet, u8>);

impl LinearList {
    fn lookup(&self, address: IpAddr) -> Option<u8> {
        let containing = self.0.iter().filter(|(net, _)| net.contains(&address));
        containing.max_by_key(|(net, _)| net.prefix_len()).map(|(_, &owner)| owner)
    }

    fn of(&self, owner: u8) -> Vec<IpNet> {
        self.0.iter().filter(|&(_, &o)| o == owner).map(|(&net, _)| net).collect()
    }
}

/// The invariants of the trie, and what it holds.
fn contents<B: Bits, T: Copy>(link: &Link<B, T>, above: Option<(Prefix<B>, usize)>) -> usize {
    let Some(node) = link else { return 0 };
    if let Some((parent, side)) = above {
        assert!(node.prefix.len > parent.len && parent.contains(node.prefix));
        assert_eq!(node.prefix.bits.side(parent.len), side);
    }
    let children = node.children.iter().flatten().count();
    assert!(node.owner.is_some() || children == 2, "a node without a purpose");
    let [left, right] = &node.children;
    usize::from(node.owner.is_some())
        + contents(left, Some((node.prefix, 0)))
        + contents(right, Some((node.prefix, 1)))
}

fn assert_sound<T: Copy + Ord>(table: &AllowedIps<T>) {
    let held = contents(&table.routes.ipv4, None) + contents(&table.routes.ipv6, None);
    assert_eq!(held, table.by_owner.values().map(BTreeSet::len).sum::<usize>());
    assert!(table.by_owner.values().all(|nets| !nets.is_empty()));
}

#[test]
fn the_longest_prefix_wins_also_across_peers() {
    let mut table = AllowedIps::new();
    table.insert(net("10.0.0.0/8"), 1);
    table.insert(net("10.1.0.0/16"), 2);
    table.insert(net("10.1.2.0/24"), 1);
    table.insert(net("10.1.2.3/32"), 3);
    let owners = ["10.0.0.1", "10.1.0.1", "10.1.2.1", "10.1.2.3", "11.0.0.0"]
        .map(|address| table.lookup(ip(address)));
    assert_eq!(owners, [Some(1), Some(2), Some(1), Some(3), None]);
    assert_eq!(table.lookup(ip("::ffff:10.1.2.3")), None, "IPv6 has a table of its own");
}

#[test]
fn an_address_inside_a_broader_range_of_another_peer_belongs_to_the_narrower_one_until_it_goes() {
    let mut table = AllowedIps::new();
    table.insert(net("fd00::/16"), 1);
    table.insert(net("fd00:1::/32"), 2);
    assert_eq!(table.lookup(ip("fd00:1::1")), Some(2), "peer 1 must not send from it");
    assert!(table.remove(net("fd00:1::/32"), 2));
    assert_eq!(table.lookup(ip("fd00:1::1")), Some(1));
}

#[test]
fn a_prefix_given_to_another_peer_moves() {
    let mut table = AllowedIps::new();
    assert_eq!(table.insert(net("192.0.2.0/24"), 1), None);
    assert_eq!(table.insert(net("192.0.2.0/24"), 1), Some(1));
    assert_eq!(table.insert(net("192.0.2.77/24"), 2), Some(1), "host bits do not count");
    assert_eq!(table.iter_of(1).count(), 0);
    assert_eq!(table.iter_of(2).collect::<Vec<_>>(), [net("192.0.2.0/24")]);
    assert!(!table.remove(net("192.0.2.0/24"), 1), "it is no longer peer 1's to remove");
    assert_eq!(table.lookup(ip("192.0.2.1")), Some(2));
    assert_sound(&table);
}

#[test]
fn a_default_route_catches_what_nothing_else_does() {
    let mut table = AllowedIps::new();
    table.insert(net("0.0.0.0/0"), 1);
    table.insert(net("::/0"), 2);
    table.insert(net("128.0.0.0/1"), 3);
    assert_eq!(table.lookup(ip("0.0.0.0")), Some(1));
    assert_eq!(table.lookup(ip("255.255.255.255")), Some(3));
    assert_eq!(table.lookup(ip("ffff::")), Some(2));
    table.remove_all(3);
    assert_eq!(table.lookup(ip("255.255.255.255")), Some(1));
}

#[test]
fn a_snapshot_does_not_see_later_edits_and_shares_what_they_leave_alone() {
    let mut table = AllowedIps::new();
    for third in 0..=255 {
        table.insert(IpNet::new([10, 0, third, 0].into(), 24).unwrap(), 1);
    }
    let before = table.routes();
    table.insert(net("10.0.7.0/24"), 2);
    table.remove_all(1);
    table.insert(net("::/0"), 3);
    for third in 0..=255 {
        assert_eq!(before.lookup(IpAddr::from([10, 0, third, 9])), Some(1));
    }
    assert_eq!(before.lookup(ip("::1")), None);
    assert_eq!(table.lookup(ip("10.0.7.9")), Some(2));
    assert_eq!(table.lookup(ip("10.0.8.9")), None);
    assert_sound(&table);
}

#[test]
fn an_edit_copies_only_the_way_to_its_place() {
    let mut table = AllowedIps::new();
    for third in 0..=255 {
        table.insert(IpNet::new([10, 0, third, 0].into(), 24).unwrap(), 1);
    }
    let before = table.routes();
    table.insert(net("10.0.0.0/24"), 2);
    let mut copied = 0;
    let (mut old, mut new) = (&before.ipv4, &table.routes.ipv4);
    while let (Some(a), Some(b)) = (old, new) {
        assert!(!Arc::ptr_eq(a, b));
        assert!(match (&a.children[1], &b.children[1]) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        });
        (old, new) = (&a.children[0], &b.children[0]);
        copied += 1;
    }
    assert_eq!(copied, 9, "the root, and one a bit of the third byte");
}

#[test]
fn the_deepest_trie_is_built_searched_and_taken_down() {
    let mut table = AllowedIps::new();
    let nets: Vec<IpNet> = (0..=128)
        .map(|len| IpNet::new(Ipv6Addr::from_bits(u128::MAX).into(), len).unwrap())
        .collect();
    for (owner, &net) in nets.iter().enumerate() {
        table.insert(net, owner);
    }
    assert_eq!(table.lookup(Ipv6Addr::from_bits(u128::MAX).into()), Some(128));
    assert_eq!(table.lookup(Ipv6Addr::from_bits(u128::MAX - 1).into()), Some(127));
    assert_eq!(table.lookup(Ipv6Addr::UNSPECIFIED.into()), Some(0));
    for (owner, &net) in nets.iter().enumerate() {
        assert!(table.remove(net, owner));
        assert_sound(&table);
    }
    assert!(table.routes.ipv6.is_none());
}

#[test]
fn a_peer_with_the_kernels_test_load_of_65280_prefixes_is_listed_and_removed_whole() {
    let mut table = AllowedIps::new();
    for a in 0..255_u8 {
        for b in 0..=255 {
            table.insert(IpNet::new([a, b, 0, 1].into(), 32).unwrap(), 1);
        }
    }
    table.insert(net("0.0.0.0/0"), 2);
    assert_eq!(table.iter_of(1).count(), 65_280);
    assert_eq!(table.lookup(ip("254.255.0.1")), Some(1));
    table.remove_all(1);
    assert_eq!(table.lookup(ip("254.255.0.1")), Some(2));
    assert_sound(&table);
}

#[test]
fn the_kernels_cases_hold() {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/data/allowedips-kernel.json")).unwrap();
    let mut table = AllowedIps::new();
    let mut checked = 0;
    for step in file["operations"].as_array().unwrap() {
        let text = |key: &str| step[key].as_str().unwrap();
        let peer = || text("peer").as_bytes()[0];
        match text("op") {
            "insert" => {
                table.insert(net(text("cidr")), peer());
            }
            "lookup" => {
                let owner = |key: &str| step[key].as_str().map(|peer| peer.as_bytes()[0]);
                let found = table.lookup(ip(text("ip")));
                match owner("expect_not") {
                    Some(other) => assert_ne!(found, Some(other), "{step}"),
                    None => assert_eq!(found, owner("expect"), "{step}"),
                }
                checked += 1;
            }
            "remove_peer" => table.remove_all(peer()),
            "list_peer" => {
                let expected: BTreeSet<IpNet> = step["expect_set"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|cidr| net(cidr.as_str().unwrap()))
                    .collect();
                assert_eq!(table.iter_of(peer()).collect::<BTreeSet<_>>(), expected);
                checked += 1;
            }
            "clear" => table = AllowedIps::new(),
            op => assert_eq!(op, "note"),
        }
        assert_sound(&table);
    }
    assert_eq!(checked, 166);
}

#[test]
fn the_published_random_tables_answer_as_their_oracle() {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/data/allowedips-random.json")).unwrap();
    let mut table = AllowedIps::new();
    let mut lookups = 0;
    for step in file["operations"].as_array().unwrap() {
        match step[0].as_str().unwrap() {
            "i" => {
                table.insert(net(step[2].as_str().unwrap()), step[1].as_str().unwrap());
            }
            "q" => {
                assert_eq!(table.lookup(ip(step[1].as_str().unwrap())), step[2].as_str(), "{step}");
                lookups += 1;
            }
            "r" => table.remove_all(step[1].as_str().unwrap()),
            op => panic!("unknown operation {op}"),
        }
    }
    assert_eq!(lookups, 2600);
    assert_sound(&table);
}

#[derive(Clone, Debug)]
enum Edit {
    Insert(IpNet, u8),
    Remove(IpNet, u8),
    RemoveAll(u8),
    Snapshot,
}

/// Addresses from few bits, so that prefixes nest, collide and touch.
fn any_address() -> impl Strategy<Value = IpAddr> {
    let sparse = prop::collection::vec(prop_oneof![0..4_u32, 28..32_u32], 0..4)
        .prop_map(|bits| bits.into_iter().fold(0, |address, bit| address | 1 << bit));
    prop_oneof![
        sparse.clone().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        (sparse.clone(), sparse).prop_map(|(high, low)| {
            Ipv6Addr::from_bits(u128::from(high) << 96 | u128::from(low)).into()
        }),
    ]
}

fn any_net() -> impl Strategy<Value = IpNet> {
    (any_address(), 0..=128_u8).prop_map(|(address, len)| {
        let max = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, len % (max + 1)).unwrap()
    })
}

fn any_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        8 => (any_net(), 0..5_u8).prop_map(|(net, owner)| Edit::Insert(net, owner)),
        4 => (any_net(), 0..5_u8).prop_map(|(net, owner)| Edit::Remove(net, owner)),
        1 => (0..5_u8).prop_map(Edit::RemoveAll),
        1 => Just(Edit::Snapshot),
    ]
}

proptest! {
    #[test]
    fn any_edits_leave_what_a_linear_list_would(
        edits in prop::collection::vec(any_edit(), 1..120),
        addresses in prop::collection::vec(any_address(), 32),
    ) {
        let mut table = AllowedIps::new();
        let mut list = LinearList::default();
        let mut snapshots = Vec::new();
        for edit in edits {
            match edit {
                Edit::Insert(net, owner) => {
                    prop_assert_eq!(table.insert(net, owner), list.0.insert(net.trunc(), owner));
                }
                Edit::Remove(net, owner) => {
                    let owned = list.0.get(&net.trunc()) == Some(&owner);
                    if owned {
                        list.0.remove(&net.trunc());
                    }
                    prop_assert_eq!(table.remove(net, owner), owned);
                }
                Edit::RemoveAll(owner) => {
                    list.0.retain(|_, o| *o != owner);
                    table.remove_all(owner);
                }
                Edit::Snapshot => {
                    let answers: Vec<_> = addresses.iter().map(|&address| list.lookup(address)).collect();
                    snapshots.push((table.routes(), answers));
                }
            }
        }
        assert_sound(&table);
        for &address in &addresses {
            prop_assert_eq!(table.lookup(address), list.lookup(address));
        }
        for owner in 0..5 {
            prop_assert_eq!(table.iter_of(owner).collect::<Vec<_>>(), list.of(owner));
        }
        for (routes, answers) in snapshots {
            for (&address, answer) in addresses.iter().zip(answers) {
                prop_assert_eq!(routes.lookup(address), answer, "a snapshot changed");
            }
        }
    }
}
