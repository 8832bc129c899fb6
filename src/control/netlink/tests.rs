//! The requests against the kernel, each test in a network namespace of its own.

use std::env;
use std::os::fd::AsFd;

use ipnet::IpNet;
use netlink_bindings::rt_link;

use super::*;
use crate::control::lifecycle::Step;
use crate::control::link::{AddAddress, SetMtuUp};
use crate::control::{mtu, routes};
use crate::sys::netns::NetNamespace;

/// A namespace of the test's own; `None`, after saying so, where the machine gives none.
///
/// # Panics
/// If it gives none and `HYBRIDWG_REQUIRE_HOST=1`.
pub fn namespace() -> Option<NetNamespace> {
    match NetNamespace::create() {
        Ok(namespace) => Some(namespace),
        Err(error) => {
            let required = env::var_os("HYBRIDWG_REQUIRE_HOST").is_some_and(|value| value == "1");
            assert!(!required, "HYBRIDWG_REQUIRE_HOST=1, but: {error}");
            println!("skipped: no network namespace of its own: {error}");
            None
        }
    }
}

/// Runs `work` in a namespace with a cable `here` to another one with `there`, both down.
fn with_cable(work: impl FnOnce(&mut Netlink, &NetNamespace) + Send) {
    let (Some(here), Some(there)) = (namespace(), namespace()) else { return };
    let there = &there;
    here.run(move || {
        let mut netlink = Netlink::new();
        netlink.create_veth("here", "there", there.as_fd()).unwrap();
        work(&mut netlink, there);
    })
    .unwrap();
}

/// Whether the interface is administratively up.
fn is_up(netlink: &mut Netlink, name: &str) -> bool {
    let mut flags = 0;
    let request = rt_link::Request::new().op_getlink_dump(&rt_link::Ifinfomsg::new());
    let read = |(header, attributes): (rt_link::Ifinfomsg, rt_link::IterableLinkAttrs<'_>)| {
        if attributes.get_ifname().unwrap().to_str() == Ok(name) {
            flags = header.ifi_flags;
        }
    };
    netlink.query(&request, || "ip link show".to_owned(), read).unwrap();
    flags & libc::IFF_UP.cast_unsigned() != 0
}

fn link(netlink: &mut Netlink, name: &str) -> Link {
    netlink.link(name).unwrap().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn the_ends_of_a_cable_appear_in_both_namespaces_and_vanish_together() {
    with_cable(|netlink, there| {
        assert_eq!(link(netlink, "here").mtu, 1500);
        assert!(netlink.link("there").unwrap().is_none());
        let far = || there.run(|| Netlink::new().link("there").unwrap()).unwrap();
        assert!(far().is_some());
        netlink.delete_link("here").unwrap();
        assert!(netlink.link("here").unwrap().is_none());
        assert!(far().is_none());
    });
}

#[test]
fn a_link_is_found_by_name_and_by_index_and_goes_up_with_its_mtu() {
    with_cable(|netlink, _| {
        let before = link(netlink, "here");
        assert!(!is_up(netlink, "here"));
        assert_eq!(netlink.link_by_index(before.index).unwrap().unwrap(), before);
        assert!(netlink.link_by_index(4711).unwrap().is_none());
        // Whatever `/sys` shows, which is that of the namespace that mounted it.
        let names: Vec<String> = netlink.links().unwrap().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["lo", "here"]);
        netlink.set_mtu_up(&before, 1360).unwrap();
        let after = link(netlink, "here");
        assert!(is_up(netlink, "here"));
        assert_eq!(after.mtu, 1360);
    });
}

#[test]
fn the_kernels_own_words_are_in_the_error() {
    with_cable(|netlink, _| {
        let here = link(netlink, "here");
        let error = netlink.set_mtu_up(&here, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ip link set mtu 1 up dev here: mtu less than device minimum (Invalid argument)"
        );
        let error = netlink.delete_link("nowhere").unwrap_err();
        assert!(error.is_absent(), "{error}");
        assert!(error.to_string().starts_with("ip link delete dev nowhere: "), "{error}");
        let taken = netlink.create_veth("here", "other", namespace().unwrap().as_fd());
        assert!(taken.unwrap_err().is_present());
    });
}

#[test]
fn addresses_of_both_families_are_added_once_and_read_back() {
    with_cable(|netlink, _| {
        let here = link(netlink, "here");
        netlink.set_up(&here).unwrap();
        let wanted = [net("10.10.0.1/24"), net("10.20.0.1/32"), net("fd00:10::1/64")];
        for address in wanted {
            netlink.add_address(&here, address).unwrap();
        }
        let found = netlink.addresses(&here).unwrap();
        for address in wanted {
            assert!(found.contains(&address), "{address} in {found:?}");
        }
        assert!(netlink.add_address(&here, wanted[0]).unwrap_err().is_present());
    });
}

#[test]
fn routes_of_both_families_are_added_once_read_back_and_go_with_the_interface() {
    with_cable(|netlink, _| {
        let here = link(netlink, "here");
        netlink.set_up(&here).unwrap();
        // An IPv6 route is refused on an interface that has no IPv6 address.
        netlink.add_address(&here, net("fd00:10::1/64")).unwrap();
        let networks = [net("10.30.0.0/16"), net("fd00:30::/32"), net("192.0.2.7/32")];
        for network in networks {
            netlink.add_route(&here, network, MAIN_TABLE).unwrap();
            assert!(netlink.add_route(&here, network, MAIN_TABLE).unwrap_err().is_present());
        }
        for network in networks {
            let route = netlink.routes().unwrap().into_iter().find(|r| r.destination == network);
            assert_eq!(route.unwrap().interface, Some(here.index));
        }
        netlink.delete_link("here").unwrap();
        let left = netlink.routes().unwrap();
        assert!(left.iter().all(|route| !networks.contains(&route.destination)), "{left:?}");
    });
}

#[test]
fn a_network_that_the_address_covers_gets_no_route_of_its_own() {
    with_cable(|netlink, _| {
        let link = link(netlink, "here");
        AddAddress { link: link.clone(), address: net("10.10.0.2/24") }.apply(netlink).unwrap();
        SetMtuUp { link: link.clone(), mtu: 1360 }.apply(netlink).unwrap();
        let wanted = vec![net("10.10.0.1/32"), net("10.10.0.0/24"), net("10.10.0.0/16")];
        assert_eq!(routes::uncovered(netlink, &link, wanted).unwrap(), [net("10.10.0.0/16")]);
    });
}

#[test]
fn the_path_to_an_address_names_interface_and_route_mtu() {
    with_cable(|netlink, _| {
        let here = link(netlink, "here");
        netlink.set_up(&here).unwrap();
        netlink.add_address(&here, net("192.0.2.1/24")).unwrap();
        let path = netlink.path_to("192.0.2.9".parse().unwrap()).unwrap().unwrap();
        assert_eq!(path, Path { interface: here.index, gateway: None, mtu: None });
        for unreachable in ["198.51.100.1", "2001:db8::1"] {
            assert_eq!(netlink.path_to(unreachable.parse().unwrap()).unwrap(), None);
        }
    });
}

#[test]
fn the_path_from_an_address_is_that_of_its_rule_and_none_once_the_address_is_gone() {
    with_cable(|netlink, _| {
        let here = link(netlink, "here");
        netlink.set_up(&here).unwrap();
        netlink.add_address(&here, net("192.0.2.1/24")).unwrap();
        let [ours, foreign] = ["192.0.2.1", "192.0.2.77"].map(|text| text.parse().unwrap());
        assert!(netlink.local_addresses().unwrap().contains(&ours));
        assert!(!netlink.local_addresses().unwrap().contains(&foreign));
        let peer = "192.0.2.9".parse().unwrap();
        let path = netlink.path(peer, Some(ours), 0x51).unwrap();
        assert_eq!(path.map(|path| path.interface), Some(here.index));
        assert_eq!(netlink.path(peer, Some(foreign), 0).unwrap(), None);
    });
}

#[test]
fn the_automatic_mtu_follows_the_interface_that_leads_to_the_endpoint() {
    with_cable(|netlink, _| {
        let here = link(netlink, "here");
        netlink.set_mtu_up(&here, 1400).unwrap();
        netlink.add_address(&here, net("192.0.2.1/24")).unwrap();
        let endpoint = "192.0.2.9:51820".parse().unwrap();
        assert_eq!(mtu::automatic(netlink, &[endpoint]).unwrap(), 1320);
        // No endpoint and no default route: as on Ethernet.
        assert_eq!(mtu::automatic(netlink, &[]).unwrap(), 1360);
        netlink.add_route(&here, net("0.0.0.0/0"), MAIN_TABLE).unwrap();
        assert_eq!(mtu::automatic(netlink, &[]).unwrap(), 1320);
    });
}

#[test]
fn the_loopback_interface_of_a_fresh_namespace_is_brought_up() {
    let Some(namespace) = namespace() else { return };
    namespace
        .run(|| {
            let mut netlink = Netlink::new();
            assert!(!is_up(&mut netlink, "lo"));
            netlink.set_loopback_up().unwrap();
            assert!(is_up(&mut netlink, "lo"));
        })
        .unwrap();
}

#[test]
fn a_rule_is_read_back_as_it_was_added_and_deleted_alone() {
    with_cable(|netlink, _| {
        let kernels = netlink.rules().unwrap();
        assert!(kernels.iter().any(|rule| rule.table == MAIN_TABLE && rule.preference == 32766));
        let mut added = Vec::new();
        for family in Family::BOTH {
            let main = Rule {
                family,
                preference: 32000,
                mark: None,
                inverted: false,
                table: MAIN_TABLE,
                suppress_prefix_length: Some(0),
                protocol: OUR_PROTOCOL,
            };
            let rule = Rule { preference: 32001, suppress_prefix_length: None, ..main };
            let marked = |mark| Rule { mark: Some(mark), inverted: true, table: 51820, ..rule };
            let masked = Mark { value: 0x1002, mask: 0x10fe };
            added.extend([main, marked(Mark::exact(0x1002)), marked(masked)]);
        }
        for rule in &added {
            netlink.add_rule(rule).unwrap();
            assert!(netlink.add_rule(rule).unwrap_err().is_present());
        }
        // What another program has made of the same tables stays.
        let other = Rule { preference: 100, protocol: 0, ..added[1] };
        netlink.add_rule(&other).unwrap();
        let rules = netlink.rules().unwrap();
        for rule in &added {
            assert!(rules.contains(rule), "{rule} in {rules:?}");
            netlink.delete_rule(rule).unwrap();
            assert!(netlink.delete_rule(rule).unwrap_err().is_absent());
        }
        let left = netlink.rules().unwrap();
        assert!(left.contains(&other) && left.len() == kernels.len() + 1, "{left:?}");
    });
}

#[test]
fn a_refusing_default_stands_behind_every_other_route_of_its_table() {
    with_cable(|netlink, _| {
        netlink.set_loopback_up().unwrap();
        let here = link(netlink, "here");
        netlink.set_up(&here).unwrap();
        netlink.add_address(&here, net("192.0.2.1/24")).unwrap();
        netlink.add_address(&here, net("fd00:10::1/64")).unwrap();
        assert!(!netlink.tables_in_use().unwrap().contains(&51820));
        for family in Family::BOTH {
            let refusal = Unreachable { family, table: 51820 };
            netlink.add_unreachable(&refusal).unwrap();
            assert!(netlink.add_unreachable(&refusal).unwrap_err().is_present());
            netlink.add_route(&here, family.everything(), 51820).unwrap();
            assert!(netlink.tables_in_use().unwrap().contains(&51820));
            let rule = Rule {
                family,
                preference: 32000,
                mark: None,
                inverted: false,
                table: 51820,
                suppress_prefix_length: None,
                protocol: OUR_PROTOCOL,
            };
            netlink.add_rule(&rule).unwrap();
        }
        let there = ["203.0.113.9", "2001:db8::9"].map(|address| address.parse().unwrap());
        for address in there {
            let path = netlink.path_to(address).unwrap();
            assert_eq!(path.map(|path| path.interface), Some(here.index), "{address}");
        }
        netlink.delete_link("here").unwrap();
        for address in there {
            assert_eq!(netlink.path_to(address).unwrap(), None, "{address}");
        }
        for family in Family::BOTH {
            let refusal = Unreachable { family, table: 51820 };
            netlink.delete_unreachable(&refusal).unwrap();
            assert!(netlink.delete_unreachable(&refusal).unwrap_err().is_absent());
        }
        assert!(!netlink.tables_in_use().unwrap().contains(&51820));
    });
}
