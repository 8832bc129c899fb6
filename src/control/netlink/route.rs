//! Routes, and the path to one address.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_bindings::rt_route::{IterableRouteAttrs, PushRouteAttrs, Request, Rtmsg};
use netlink_bindings::traits::Pusher;
use serde::{Deserialize, Serialize};

use super::{Family, Link, MAIN_TABLE, Netlink, NetlinkError, OUR_PROTOCOL, table_name};

/// A unicast route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNet,
    /// Index of the outgoing interface; `None` if it has several next hops or none.
    pub interface: Option<u32>,
    /// The route's own MTU in bytes, if it has one.
    pub mtu: Option<u32>,
    /// Lower is preferred.
    pub metric: u32,
}

/// How a packet to one address would leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Index of the outgoing interface.
    pub interface: u32,
    /// The next router, if there is one.
    pub gateway: Option<IpAddr>,
    /// MTU in bytes that the route has or path MTU discovery found; `None`: the interface's.
    pub mtu: Option<u32>,
}

/// A default route of a table that refuses what no better route of it takes, with an answer to the
/// sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    pub family: Family,
    pub table: u32,
}

/// As ip(8) takes it after `ip -4 route add`.
impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = table_name(self.table);
        write!(f, "unreachable default table {table} metric {} protocol {OUR_PROTOCOL}", u32::MAX)
    }
}

impl Netlink {
    /// Sends the network through the interface.
    ///
    /// # Errors
    /// A route that exists ([`NetlinkError::is_present`]), an interface that is down, no right.
    pub fn add_route(
        &mut self,
        link: &Link,
        network: IpNet,
        table: u32,
    ) -> Result<(), NetlinkError> {
        let mut request =
            Request::new().set_create().set_excl().op_newroute_do(&header(network.trunc()));
        let attributes = request.encode().push_dst(network.network());
        attributes.push_oif(link.index).push_table(table).end_nested();
        self.change(&request, || add_route_command(link, network, table))
    }

    /// Takes away the route that [`Self::add_route`] makes.
    ///
    /// # Errors
    /// No such route ([`NetlinkError::is_absent`]), no right.
    pub fn delete_route(
        &mut self,
        link: &Link,
        network: IpNet,
        table: u32,
    ) -> Result<(), NetlinkError> {
        let mut request = Request::new().op_delroute_do(&header(network.trunc()));
        let attributes = request.encode().push_dst(network.network());
        attributes.push_oif(link.index).push_table(table).end_nested();
        self.change(&request, || delete_route_command(link, network, table))
    }

    /// The networks that routes through the interface lead to, each with its table.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn routes_through(&mut self, link: &Link) -> Result<HashSet<(IpNet, u32)>, NetlinkError> {
        let mut found = HashSet::new();
        self.each_route(|family, header, attributes| {
            let destination = attributes.get_dst().unwrap_or(family.everything().addr());
            if header.rtm_type == libc::RTN_UNICAST
                && attributes.get_oif().is_ok_and(|interface| interface == link.index)
                && let Ok(network) = IpNet::new(destination, header.rtm_dst_len)
            {
                found.insert((network, table_of(header, attributes)));
            }
        })?;
        Ok(found)
    }

    /// # Errors
    /// A route that exists ([`NetlinkError::is_present`]), IPv6 switched off, no right.
    pub fn add_unreachable(&mut self, route: &Unreachable) -> Result<(), NetlinkError> {
        let mut request =
            Request::new().set_create().set_excl().op_newroute_do(&refusal(route.family));
        push_refusal(request.encode(), route);
        self.change(&request, || format!("ip {} route add {route}", route.family.flag()))
    }

    /// # Errors
    /// No such route ([`NetlinkError::is_absent`]), no right.
    pub fn delete_unreachable(&mut self, route: &Unreachable) -> Result<(), NetlinkError> {
        let mut request = Request::new().op_delroute_do(&refusal(route.family));
        push_refusal(request.encode(), route);
        self.change(&request, || format!("ip {} route delete {route}", route.family.flag()))
    }

    /// The unicast routes of the main table, of both families.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut found = Vec::new();
        self.each_route(|family, header, attributes| {
            found.extend(read(header, attributes, family.everything().addr()));
        })?;
        Ok(found)
    }

    /// The tables that have a route of either family.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn tables_in_use(&mut self) -> Result<BTreeSet<u32>, NetlinkError> {
        let mut found = BTreeSet::new();
        self.each_route(|_, header, attributes| {
            found.insert(table_of(header, attributes));
        })?;
        Ok(found)
    }

    fn each_route(
        &mut self,
        mut visit: impl FnMut(Family, &Rtmsg, &IterableRouteAttrs<'_>),
    ) -> Result<(), NetlinkError> {
        for family in Family::BOTH {
            let header = Rtmsg { rtm_family: family.number(), ..Rtmsg::new() };
            let request = Request::new().op_getroute_dump(&header);
            let action = || format!("ip {} route show table all", family.flag());
            self.query(&request, action, |(header, attributes)| {
                visit(family, &header, &attributes);
            })?;
        }
        Ok(())
    }

    /// How a packet to `address` would leave; `None` if no route leads there.
    ///
    /// # Errors
    /// What the kernel refused, other than by "unreachable".
    pub fn path_to(&mut self, address: IpAddr) -> Result<Option<Path>, NetlinkError> {
        self.path(address, None, 0)
    }

    /// How a packet to `address` would leave that has the source `from`, if that is fixed, and the
    /// firewall mark `mark` (0: none); `None` if no route leads there, or not with this source.
    ///
    /// # Errors
    /// What the kernel refused, other than by "unreachable".
    pub fn path(
        &mut self,
        address: IpAddr,
        from: Option<IpAddr>,
        mark: u32,
    ) -> Result<Option<Path>, NetlinkError> {
        let length = |address: IpAddr| IpNet::from(address).prefix_len();
        let mut request = Request::new().op_getroute_do(&Rtmsg {
            rtm_family: Family::of(address).number(),
            rtm_dst_len: length(address),
            rtm_src_len: from.map_or(0, length),
            ..Rtmsg::new()
        });
        let mut attributes = request.encode().push_dst(address);
        if let Some(from) = from {
            attributes = attributes.push_src(from);
        }
        if mark != 0 {
            attributes = attributes.push_mark(mark);
        }
        attributes.end_nested();
        let mut path = None;
        let outcome = self.query(
            &request,
            || format!("ip route get {address}"),
            |(_, attributes)| {
                if let Ok(interface) = attributes.get_oif() {
                    let gateway = attributes.get_gateway().or_else(|_| attributes.get_via()).ok();
                    path = Some(Path { interface, gateway, mtu: mtu(&attributes) });
                }
            },
        );
        match outcome {
            Ok(()) => Ok(path),
            Err(error) if error.is_unreachable() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How ip(8) is told to add a route.
pub fn add_route_command(link: &Link, network: IpNet, table: u32) -> String {
    let command =
        format!("ip {} route add {network} dev {}", Family::of(network.addr()).flag(), link.name);
    if table == MAIN_TABLE { command } else { format!("{command} table {table}") }
}

/// How ip(8) is told to take a route away.
pub fn delete_route_command(link: &Link, network: IpNet, table: u32) -> String {
    add_route_command(link, network, table).replacen(" add ", " delete ", 1)
}

/// A route of the dump, if it is a unicast one of the main table.
fn read(header: &Rtmsg, attributes: &IterableRouteAttrs<'_>, any: IpAddr) -> Option<Route> {
    if table_of(header, attributes) != MAIN_TABLE || header.rtm_type != libc::RTN_UNICAST {
        return None;
    }
    let destination = attributes.get_dst().unwrap_or(any);
    Some(Route {
        destination: IpNet::new(destination, header.rtm_dst_len).ok()?,
        interface: attributes.get_oif().ok(),
        mtu: mtu(attributes),
        metric: attributes.get_priority().unwrap_or(0),
    })
}

fn table_of(header: &Rtmsg, attributes: &IterableRouteAttrs<'_>) -> u32 {
    attributes.get_table().unwrap_or_else(|_| u32::from(header.rtm_table))
}

fn mtu(attributes: &IterableRouteAttrs<'_>) -> Option<u32> {
    attributes.get_metrics().ok()?.get_mtu().ok()
}

/// What ip(8) puts into a route of its own: protocol "boot", and for IPv4 scope "link", because
/// there is no gateway. The table is an attribute, since the header has no place for large numbers.
fn header(network: IpNet) -> Rtmsg {
    let family = Family::of(network.addr());
    let scope = match family {
        Family::V4 => libc::RT_SCOPE_LINK,
        Family::V6 => libc::RT_SCOPE_UNIVERSE,
    };
    Rtmsg {
        rtm_family: family.number(),
        rtm_dst_len: network.prefix_len(),
        rtm_protocol: libc::RTPROT_BOOT,
        rtm_scope: scope,
        rtm_type: libc::RTN_UNICAST,
        ..Rtmsg::new()
    }
}

fn refusal(family: Family) -> Rtmsg {
    Rtmsg {
        rtm_family: family.number(),
        rtm_protocol: OUR_PROTOCOL,
        rtm_type: libc::RTN_UNREACHABLE,
        ..Rtmsg::new()
    }
}

/// With the metric that every other route of the table is preferred to.
fn push_refusal<P: Pusher>(attributes: PushRouteAttrs<P>, route: &Unreachable) {
    attributes.push_table(route.table).push_priority(u32::MAX).end_nested();
}
