//! Which MTU a tunnel gets.
//!
//! An explicit one wins. Otherwise it is the smallest path MTU towards the endpoints less 80 bytes
//! (an IPv6 and a UDP header, and 32 bytes of WireGuard), but at most [`SAFE_MTU`]: the path
//! MTU that a host sees is that of its own interface, and clouds differ behind it.

use std::net::SocketAddr;

use crate::control::netlink::{Netlink, NetlinkError, Route};

/// Passes Google Cloud (1460) and PPPoE (1492) under IPv6, and is a multiple of 16, so that
/// padding never enlarges a full packet. Bytes.
pub const SAFE_MTU: u32 = 1360;

/// Below this the kernel switches IPv6 off on an interface. [RFC 8200 §5] Bytes.
pub const IPV6_MINIMUM_MTU: u32 = 1280;

/// 40 bytes of IPv6, 8 of UDP, 32 of WireGuard; also taken for IPv4 endpoints, since they roam.
/// Bytes.
pub const OVERHEAD: u32 = 80;

/// Taken if neither an endpoint nor a default route says anything. Bytes.
const ETHERNET_MTU: u32 = 1500;

/// The MTU in bytes for a tunnel to these endpoints, when none is configured.
///
/// # Errors
/// What the kernel refused; an endpoint to which no route leads is no error.
pub fn automatic(netlink: &mut Netlink, endpoints: &[SocketAddr]) -> Result<u32, NetlinkError> {
    let mut paths = Vec::new();
    for endpoint in endpoints {
        if let Some(path) = netlink.path_to(endpoint.ip())? {
            paths.extend(interface_mtu(netlink, path.mtu, Some(path.interface))?);
        }
    }
    if paths.is_empty()
        && let Some(route) = default_route(netlink)?
    {
        paths.extend(interface_mtu(netlink, route.mtu, route.interface)?);
    }
    Ok(from_paths(&paths))
}

/// The rule alone.
fn from_paths(paths: &[u32]) -> u32 {
    let path = paths.iter().copied().filter(|&mtu| mtu != 0).min().unwrap_or(ETHERNET_MTU);
    path.saturating_sub(OVERHEAD).min(SAFE_MTU)
}

/// The default route that would be used: IPv4 first, then the lowest metric.
///
/// # Errors
/// What the kernel refused.
pub fn default_route(netlink: &mut Netlink) -> Result<Option<Route>, NetlinkError> {
    let routes = netlink.routes()?;
    let defaults = routes.into_iter().filter(|route| route.destination.prefix_len() == 0);
    Ok(defaults.min_by_key(|route| (route.destination.addr().is_ipv6(), route.metric)))
}

/// The MTU of the route if it has one, else that of its interface.
fn interface_mtu(
    netlink: &mut Netlink,
    route: Option<u32>,
    interface: Option<u32>,
) -> Result<Option<u32>, NetlinkError> {
    if route.is_some() {
        return Ok(route);
    }
    let Some(index) = interface else { return Ok(None) };
    Ok(netlink.link_by_index(index)?.map(|link| link.mtu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_path_less_80_is_taken_but_never_more_than_1360() {
        assert_eq!(from_paths(&[1500]), 1360);
        assert_eq!(from_paths(&[9001, 65536]), 1360);
        assert_eq!(from_paths(&[1500, 1400]), 1320);
        assert_eq!(from_paths(&[1440]), 1360);
        assert_eq!(from_paths(&[1439]), 1359);
    }

    #[test]
    fn without_a_path_or_with_a_path_of_zero_it_is_as_on_ethernet() {
        assert_eq!(from_paths(&[]), 1360);
        assert_eq!(from_paths(&[0]), 1360);
        assert_eq!(from_paths(&[0, 1300]), 1220);
    }
}
