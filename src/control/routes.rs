//! Which routes lead into the tunnel, and the step that adds one.
//!
//! One route per allowed network, longest prefix first, in the main table; a network that an
//! existing route through the interface covers needs none. Default routes need policy routing and
//! are not this module's.

use ipnet::IpNet;

use crate::control::lifecycle::{LifecycleError, Step};
use crate::control::netlink::{Link, Netlink, NetlinkError, Route, family_flag};

/// The networks to route, each once, longest prefix first, equal lengths in the given order;
/// `/0` left out.
pub fn to_add(allowed: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for network in allowed {
        let network = network.trunc();
        if network.prefix_len() != 0 && seen.insert(network) {
            networks.push(network);
        }
    }
    networks.sort_by_key(|network| std::cmp::Reverse(network.prefix_len()));
    networks
}

/// The networks of `wanted` that no route of the main table through the interface covers.
///
/// Each is judged before any of them is added. That is enough, because a longer prefix, which
/// comes first, covers no shorter one.
///
/// # Errors
/// What the kernel refused.
pub fn uncovered(
    netlink: &mut Netlink,
    link: &Link,
    wanted: Vec<IpNet>,
) -> Result<Vec<IpNet>, NetlinkError> {
    let routes = netlink.routes()?;
    Ok(wanted.into_iter().filter(|network| !is_covered(&routes, link.index, *network)).collect())
}

fn is_covered(routes: &[Route], interface: u32, network: IpNet) -> bool {
    routes
        .iter()
        .any(|route| route.interface == Some(interface) && route.destination.contains(&network))
}

/// Sends a network through the interface.
#[derive(Debug)]
pub struct AddRoute {
    pub link: Link,
    pub network: IpNet,
}

impl Step for AddRoute {
    fn describe(&self) -> String {
        let Self { link, network } = self;
        format!("ip {} route add {network} dev {}", family_flag(network.addr()), link.name)
    }

    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        Ok(netlink.add_route(&self.link, self.network)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn routes_are_added_longest_prefix_first_each_once_and_without_defaults() {
        let allowed = nets(&[
            "10.0.0.0/8",
            "0.0.0.0/0",
            "fd00::/64",
            "10.1.2.3/32",
            "10.0.0.0/8",
            "::/0",
            "192.168.1.7/24",
        ]);
        assert_eq!(
            to_add(allowed),
            nets(&["fd00::/64", "10.1.2.3/32", "192.168.1.0/24", "10.0.0.0/8"])
        );
    }

    #[test]
    fn only_a_wider_or_equal_route_through_the_same_interface_covers_a_network() {
        let route = |text: &str, interface| Route {
            destination: text.parse().unwrap(),
            interface,
            mtu: None,
            metric: 0,
        };
        let routes = [
            route("10.10.0.0/24", Some(7)),
            route("10.20.0.0/16", Some(8)),
            route("10.30.0.5/32", Some(7)),
            route("0.0.0.0/0", None),
        ];
        let covered = |text: &str| is_covered(&routes, 7, text.parse().unwrap());
        assert!(covered("10.10.0.0/24"));
        assert!(covered("10.10.0.9/32"));
        assert!(!covered("10.10.0.0/16"));
        assert!(!covered("10.20.0.0/24"), "another interface");
        assert!(!covered("10.30.0.0/24"), "narrower");
        assert!(!covered("fd00::/64"));
    }
}
