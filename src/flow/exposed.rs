//! What peers reach at the addresses of the tunnel: services on this host or beside it, by port.
//!
//! An address or a path that was written down is consent enough. What a name leads to is judged as any
//! other place that a peer wants to reach: names are in the hands of others.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::flow::common::Common;
use crate::flow::policy::Service;

/// A port of the tunnel's addresses, and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// TCP or UDP.
    pub service: Service,
    pub target: Target,
    /// Who may use it; empty: every peer.
    pub from: Vec<IpNet>,
    /// The address of this host that the target sees, if not any.
    pub source: Option<IpAddr>,
    /// Has the target told who is there, in the first bytes of each connection.
    pub proxy_v2: bool,
}

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Address(SocketAddr),
    /// Where its name leads to, best first.
    Named(Vec<SocketAddr>),
    /// A Unix socket; for TCP only.
    Path(PathBuf),
}

/// What `address` finds at the port of `service`; of several entries the first that is for it.
pub fn find(exposed: &[Exposed], service: Service, address: IpAddr) -> Option<&Exposed> {
    let is_for = |from: &[IpNet]| from.is_empty() || from.iter().any(|net| net.contains(&address));
    exposed.iter().find(|it| it.service == service && is_for(&it.from))
}

/// A port of the tunnel's own addresses, and where it leads a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Front {
    pub own: SocketAddr,
    pub target: SocketAddr,
    /// From where the target is spoken to, if not from any address.
    pub source: Option<IpAddr>,
}

impl Front {
    /// Where datagrams of `address` to `own` go, if to anything.
    pub fn find(common: &Common, own: SocketAddr, address: IpAddr) -> Option<Self> {
        let service = Service::Udp(own.port());
        let Exposed { target, source, .. } = find(&common.settings.exposed, service, address)?;
        let target = match target {
            Target::Address(place) => *place,
            Target::Named(places) => {
                let mut places = places.iter();
                *places.find(|it| common.allows(it.ip(), Service::Udp(it.port())))?
            }
            Target::Path(_) => return None,
        };
        Some(Self { own, target, source: *source })
    }

    /// Whether datagrams of `address` may go on to the target: it is still one of those that they find,
    /// though a name server may put another first.
    pub fn holds(&self, common: &Common, address: IpAddr) -> bool {
        let service = Service::Udp(self.own.port());
        find(&common.settings.exposed, service, address).is_some_and(|it| {
            let leads_there = match &it.target {
                Target::Address(place) => *place == self.target,
                Target::Named(places) => {
                    let service = Service::Udp(self.target.port());
                    places.contains(&self.target) && common.allows(self.target.ip(), service)
                }
                Target::Path(_) => false,
            };
            leads_there && it.source == self.source
        })
    }
}

/// The start of every header of this kind.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, a connection made for somebody else; and TCP over either family.
const PROXY: u8 = 0x21;
const TCP_V4: u8 = 0x11;
const TCP_V6: u8 = 0x21;

/// The PROXY protocol's header of a connection from `peer` to `own`, both of one family.
/// [PROXY protocol, version 2 §2.2]
pub fn proxy_header(peer: SocketAddr, own: SocketAddr) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(36);
    for address in [peer.ip(), own.ip()] {
        match address {
            IpAddr::V4(address) => addresses.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => addresses.extend_from_slice(&address.octets()),
        }
    }
    addresses.extend_from_slice(&peer.port().to_be_bytes());
    addresses.extend_from_slice(&own.port().to_be_bytes());
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[PROXY, if peer.is_ipv4() { TCP_V4 } else { TCP_V6 }]);
    // Lossless: 12 or 36.
    header.extend_from_slice(&(addresses.len() as u16).to_be_bytes());
    header.extend_from_slice(&addresses);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_entries_for_a_port_the_first_for_the_peer_counts() {
        let exposed = |from: &[&str], target: &str| Exposed {
            service: Service::Tcp(5432),
            target: Target::Address(target.parse().unwrap()),
            from: from.iter().map(|net| net.parse().unwrap()).collect(),
            source: None,
            proxy_v2: false,
        };
        let all = [exposed(&["10.0.0.0/24"], "127.0.0.1:1"), exposed(&[], "127.0.0.1:2")];
        let found = |service, address: &str| {
            find(&all, service, address.parse().unwrap()).map(|it| it.target.clone())
        };
        let target = |text: &str| Some(Target::Address(text.parse().unwrap()));
        assert_eq!(found(Service::Tcp(5432), "10.0.0.9"), target("127.0.0.1:1"));
        assert_eq!(found(Service::Tcp(5432), "10.0.1.9"), target("127.0.0.1:2"));
        assert_eq!(found(Service::Udp(5432), "10.0.0.9"), None);
        assert_eq!(find(&all[..1], Service::Tcp(5432), "fd00::1".parse().unwrap()), None);
    }

    #[test]
    fn a_proxy_header_is_that_of_the_specification() {
        let [peer, own] = ["10.66.0.10:40000", "10.66.0.2:5432"].map(|it| it.parse().unwrap());
        let expected = [
            &[0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a][..],
            &[0x21, 0x11, 0, 12, 10, 66, 0, 10, 10, 66, 0, 2, 0x9c, 0x40, 0x15, 0x38],
        ];
        assert_eq!(proxy_header(peer, own), expected.concat());
        let [peer, own] = ["[fd00::a]:1", "[fd00::2]:2"].map(|it| it.parse().unwrap());
        let header = proxy_header(peer, own);
        assert_eq!((header[13], header.len()), (0x21, 16 + 36));
    }
}
