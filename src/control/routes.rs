//! Which routes lead into the tunnel, and the step that adds one.
//!
//! One route per allowed network, longest prefix first. In the main table, a network that an
//! existing route through the interface covers needs none, and default routes do not belong there:
//! they have a table of their own (`policy`). A table that the file names gets them all.

use ipnet::IpNet;

use crate::control::config::Table;
use crate::control::lifecycle::{LifecycleError, Step};
use crate::control::netlink::{
    Link, MAIN_TABLE, Netlink, NetlinkError, Route, add_route_command, delete_route_command,
};
use crate::control::rt_tables;

/// Where the routes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    Nowhere,
    /// The main table, and policy routing for default routes.
    Auto,
    /// All of them to the table of this number.
    Table(u32),
}

impl Destination {
    /// # Errors
    /// [`LifecycleError::NoTable`]
    pub fn of(table: Option<&Table>) -> Result<Self, LifecycleError> {
        Ok(match table {
            None | Some(Table::Auto) => Self::Auto,
            Some(Table::Off) => Self::Nowhere,
            Some(Table::Number(number)) => Self::Table(*number),
            Some(Table::Name(name)) => match rt_tables::find(name) {
                Some(number) => Self::Table(number),
                None => return Err(LifecycleError::NoTable { name: name.clone() }),
            },
        })
    }
}

impl Destination {
    /// The routes that networks need on an interface with these addresses, each with its table.
    pub fn routes(self, networks: Vec<IpNet>, addresses: &[IpNet]) -> Vec<(IpNet, u32)> {
        let is_connected = |network| addresses.iter().any(|it| is_connected(*it, network));
        let networks = networks.into_iter();
        match self {
            Self::Nowhere => Vec::new(),
            Self::Table(table) => networks.map(|network| (network, table)).collect(),
            Self::Auto => {
                let uncovered = networks.filter(|network| !is_connected(*network));
                uncovered.map(|network| (network, MAIN_TABLE)).collect()
            }
        }
    }
}

/// The networks to route, each once, longest prefix first, equal lengths in the given order.
pub fn to_add(allowed: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for network in allowed {
        let network = network.trunc();
        if seen.insert(network) {
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

/// Whether the kernel routes the network by itself once the interface has this address. For an IPv4
/// address alone it makes no route.
fn is_connected(address: IpNet, network: IpNet) -> bool {
    let is_alone = matches!(address, IpNet::V4(_)) && address.prefix_len() == 32;
    !is_alone && address.contains(&network)
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
    pub table: u32,
}

impl Step for AddRoute {
    fn describe(&self) -> String {
        add_route_command(&self.link, self.network, self.table)
    }

    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        Ok(netlink.add_route(&self.link, self.network, self.table)?)
    }

    fn describe_undo(&self) -> Option<String> {
        Some(delete_route_command(&self.link, self.network, self.table))
    }

    fn goes_with_interface(&self) -> bool {
        true
    }

    fn undo(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        match netlink.delete_route(&self.link, self.network, self.table) {
            // The kernel takes routes away with the last address.
            Err(error) if !error.is_absent() => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// WQ-18: that includes `/0`.
    #[test]
    fn routes_are_added_longest_prefix_first_and_each_once() {
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
            nets(&[
                "fd00::/64",
                "10.1.2.3/32",
                "192.168.1.0/24",
                "10.0.0.0/8",
                "0.0.0.0/0",
                "::/0"
            ])
        );
    }

    #[test]
    fn what_an_address_covers_needs_no_route_in_the_main_table_alone() {
        let addresses = nets(&["10.10.0.1/24", "10.20.0.1/32", "fd00::1/128"]);
        let networks =
            nets(&["10.10.0.7/32", "10.10.0.0/16", "10.20.0.1/32", "fd00::1/128", "fd00::/64"]);
        let routes = |destination: Destination| {
            let routes = destination.routes(networks.clone(), &addresses).into_iter();
            routes.map(|(network, table)| format!("{network} {table}")).collect::<Vec<_>>()
        };
        assert_eq!(
            routes(Destination::Auto),
            ["10.10.0.0/16 254", "10.20.0.1/32 254", "fd00::/64 254"]
        );
        assert_eq!(routes(Destination::Table(7)).len(), 5);
        assert!(routes(Destination::Nowhere).is_empty());
    }

    /// WQ-19.
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
