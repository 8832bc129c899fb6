//! What the host is like, as far as a file can be judged by it.

use std::net::{IpAddr, SocketAddr};

use crate::control::config::{Config, Endpoint};
use crate::control::mtu;
use crate::control::netlink::{Link, Netlink, NetlinkError};

/// What was gathered; the default knows nothing.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Names of the interfaces; empty if they are not known.
    pub interfaces: Vec<String>,
    /// Through which the default route leads.
    pub uplink: Option<String>,
    /// The host has addresses, and all of its IPv4 ones are private.
    pub is_behind_nat: bool,
    /// Bytes that fit the path to each endpoint. Of one that is a name they are those of the default
    /// route: names are not looked up.
    pub paths: Vec<(Endpoint, u32)>,
    /// Endpoints that no route leads to.
    pub unreachable: Vec<SocketAddr>,
}

/// Gathers it, for the file of `interface`.
///
/// # Errors
/// What the kernel refused.
pub fn gather(config: &Config, interface: &str) -> Result<Surroundings, NetlinkError> {
    let mut netlink = Netlink::new();
    let addresses = netlink.local_addresses()?;
    let mut v4 = addresses.iter().filter(|it| it.is_ipv4() && !it.is_loopback()).peekable();
    let uplink = uplink(&mut netlink)?;
    let mut surroundings = Surroundings {
        interfaces: netlink.links()?.into_iter().map(|link| link.name).collect(),
        uplink: uplink.as_ref().map(|link| link.name.clone()),
        is_behind_nat: v4.peek().is_some() && v4.all(|address| is_private(*address)),
        ..Surroundings::default()
    };
    for peer in &config.peers {
        for endpoint in peer.places() {
            let link = match endpoint {
                // An address that is good on one link alone.
                Endpoint::Name { host, .. } if host.contains('%') => None,
                Endpoint::Name { .. } => uplink.clone(),
                Endpoint::Address(address) => {
                    let Some(path) = netlink.path_to(address.ip())? else {
                        surroundings.unreachable.push(*address);
                        continue;
                    };
                    let link = netlink.link_by_index(path.interface)?;
                    link.map(|link| Link { mtu: path.mtu.unwrap_or(link.mtu), ..link })
                }
            };
            // While the tunnel is up, what has no mark goes into it: that is not the path.
            let link = link.filter(|link| link.name != interface);
            surroundings.paths.extend(link.map(|link| (endpoint.clone(), link.mtu)));
        }
    }
    Ok(surroundings)
}

/// The interface of the default route, with the MTU of the route if it has one.
fn uplink(netlink: &mut Netlink) -> Result<Option<Link>, NetlinkError> {
    let Some(route) = mtu::default_route(netlink)? else { return Ok(None) };
    let Some(index) = route.interface else { return Ok(None) };
    let link = netlink.link_by_index(index)?;
    Ok(link.map(|link| Link { mtu: route.mtu.unwrap_or(link.mtu), ..link }))
}

/// Also the addresses that providers share out behind a NAT of their own. [RFC 6598]
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private() || v4.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_one_outside_can_reach_are_private() {
        for (address, expected) in [
            ("10.0.0.1", true),
            ("172.31.0.1", true),
            ("100.64.0.1", true),
            ("100.127.0.1", true),
            ("169.254.0.1", true),
            ("100.128.0.1", false),
            ("8.8.8.8", false),
            ("fd00::1", false),
        ] {
            assert_eq!(is_private(address.parse().unwrap()), expected, "{address}");
        }
    }
}
