//! What the host is like, as far as a file can be judged by it.

use std::net::{IpAddr, SocketAddr};

use crate::control::config::{Config, Endpoint};
use crate::control::netlink::{Netlink, NetlinkError};

/// What was gathered; the default knows nothing.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Names of the interfaces; empty if they are not known.
    pub interfaces: Vec<String>,
    /// Through which the default route leads.
    pub uplink: Option<String>,
    /// The host has addresses, and all of its IPv4 ones are private.
    pub is_behind_nat: bool,
    /// For endpoints that are addresses: bytes that fit the path there.
    pub paths: Vec<(SocketAddr, u32)>,
    /// Endpoints that no route leads to.
    pub unreachable: Vec<SocketAddr>,
}

/// Gathers it, for the file of `interface`.
///
/// # Errors
/// What the kernel refused.
pub fn gather(config: &Config, interface: &str) -> Result<Surroundings, NetlinkError> {
    let mut netlink = Netlink::new();
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let addresses = netlink.local_addresses()?;
    let mut v4 = addresses.iter().filter(|it| it.is_ipv4() && !it.is_loopback()).peekable();
    let mut surroundings = Surroundings {
        interfaces: interfaces.filter_map(|it| it.file_name().into_string().ok()).collect(),
        uplink: uplink(&mut netlink)?,
        is_behind_nat: v4.peek().is_some() && v4.all(|address| is_private(*address)),
        ..Surroundings::default()
    };
    for peer in &config.peers {
        for endpoint in peer.places() {
            let Endpoint::Address(address) = endpoint else { continue };
            let Some(path) = netlink.path_to(address.ip())? else {
                surroundings.unreachable.push(*address);
                continue;
            };
            // While the tunnel is up, what has no mark goes into it: that is not the path.
            let link = netlink.link_by_index(path.interface)?.filter(|it| it.name != interface);
            let mtu = link.map(|link| path.mtu.unwrap_or(link.mtu));
            surroundings.paths.extend(mtu.map(|mtu| (*address, mtu)));
        }
    }
    Ok(surroundings)
}

fn uplink(netlink: &mut Netlink) -> Result<Option<String>, NetlinkError> {
    let routes = netlink.routes()?;
    let default = routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0)
        .min_by_key(|route| (route.destination.addr().is_ipv6(), route.metric));
    let Some(index) = default.and_then(|route| route.interface) else { return Ok(None) };
    Ok(netlink.link_by_index(index)?.map(|link| link.name))
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
