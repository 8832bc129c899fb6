//! Routes of the main table, and the path to one address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_bindings::rt_route::{IterableRouteAttrs, Request, Rtmsg};

use super::{Link, Netlink, NetlinkError, family, family_flag};

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
    /// MTU in bytes that the route has or path MTU discovery found; `None`: the interface's.
    pub mtu: Option<u32>,
}

impl Netlink {
    /// Sends the network through the interface, in the main table.
    ///
    /// # Errors
    /// A route that exists ([`NetlinkError::is_present`]), an interface that is down, no right.
    pub fn add_route(&mut self, link: &Link, network: IpNet) -> Result<(), NetlinkError> {
        let mut request =
            Request::new().set_create().set_excl().op_newroute_do(&header(network.trunc()));
        request.encode().push_dst(network.network()).push_oif(link.index).end_nested();
        self.change(&request, || command(link, network))
    }

    /// The unicast routes of the main table, of both families.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut found = Vec::new();
        for any in [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)] {
            let request =
                Request::new().op_getroute_dump(&Rtmsg { rtm_family: family(any), ..Rtmsg::new() });
            let action = || format!("ip {} route show", family_flag(any));
            self.query(&request, action, |(header, attributes)| {
                found.extend(read(&header, &attributes, any));
            })?;
        }
        Ok(found)
    }

    /// How a packet to `address` would leave; `None` if no route leads there.
    ///
    /// # Errors
    /// What the kernel refused, other than by "unreachable".
    pub fn path_to(&mut self, address: IpAddr) -> Result<Option<Path>, NetlinkError> {
        let host = IpNet::from(address);
        let mut request = Request::new().op_getroute_do(&Rtmsg {
            rtm_family: family(address),
            rtm_dst_len: host.prefix_len(),
            ..Rtmsg::new()
        });
        request.encode().push_dst(address).end_nested();
        let mut path = None;
        let outcome = self.query(
            &request,
            || format!("ip route get {address}"),
            |(_, attributes)| {
                if let Ok(interface) = attributes.get_oif() {
                    path = Some(Path { interface, mtu: mtu(&attributes) });
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

/// A route of the dump, if it is a unicast one of the main table.
fn read(header: &Rtmsg, attributes: &IterableRouteAttrs<'_>, any: IpAddr) -> Option<Route> {
    let table = attributes.get_table().unwrap_or_else(|_| u32::from(header.rtm_table));
    if table != u32::from(libc::RT_TABLE_MAIN) || header.rtm_type != libc::RTN_UNICAST {
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

fn mtu(attributes: &IterableRouteAttrs<'_>) -> Option<u32> {
    attributes.get_metrics().ok()?.get_mtu().ok()
}

/// What ip(8) puts into a route of its own: protocol "boot", and for IPv4 scope "link", because
/// there is no gateway.
fn header(network: IpNet) -> Rtmsg {
    let scope =
        if network.addr().is_ipv4() { libc::RT_SCOPE_LINK } else { libc::RT_SCOPE_UNIVERSE };
    Rtmsg {
        rtm_family: family(network.addr()),
        rtm_dst_len: network.prefix_len(),
        rtm_table: libc::RT_TABLE_MAIN,
        rtm_protocol: libc::RTPROT_BOOT,
        rtm_scope: scope,
        rtm_type: libc::RTN_UNICAST,
        ..Rtmsg::new()
    }
}

fn command(link: &Link, network: IpNet) -> String {
    format!("ip {} route add {network} dev {}", family_flag(network.addr()), link.name)
}
