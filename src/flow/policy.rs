//! Where peers may go through this host: `AllowTo`, `DenyTo`, and what is closed without a word.
//!
//! A host that masquerades lends its own place in the network: the loopback interface, the metadata
//! service that hands out the credentials of a cloud, the neighbours on its link. A peer gets none
//! of these unless a rule gives it to it. The first of these that applies decides:
//!
//! 1. a `DenyTo` that names the destination: no;
//! 2. an `AllowTo` that names it: yes;
//! 3. a destination that is closed by itself ([`BUILT_IN`], this host): no;
//! 4. there is an `AllowTo`: no; else yes.
//!
//! An IPv6 address may carry an IPv4 address that a gateway on the way unwraps ([`embedded`]).
//! Such a destination is judged as both. What is closed as the inner one is not opened by a rule
//! that names the outer one: `AllowTo = ::/0` does not lead to `64:ff9b::127.0.0.1`.
//!
//! Pure: the addresses of this host are given ([`HostAddresses`]). Nothing here knows a packet.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The rules of one tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub allow_to: Vec<Rule>,
    pub deny_to: Vec<Rule>,
}

/// Where a flow is to go, as it was addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    pub address: IpAddr,
    pub service: Service,
}

/// What a flow asks for there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// A port.
    Tcp(u16),
    /// A port.
    Udp(u16),
    /// ICMP over IPv4 and ICMPv6 over IPv6.
    Icmp,
}

/// Why a flow is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    #[error("a DenyTo names it")]
    DenyTo,
    #[error("no AllowTo names it")]
    NotInAllowTo,
    #[error("a loopback address")]
    Loopback,
    #[error("an unspecified address")]
    Unspecified,
    #[error("a link-local address")]
    LinkLocal,
    #[error("a metadata service of a cloud")]
    Metadata,
    #[error("a multicast address")]
    Multicast,
    #[error("a broadcast address")]
    Broadcast,
    #[error("a reserved address")]
    Reserved,
    #[error("an address of this host")]
    Host,
}

impl Policy {
    /// Whether a peer may reach `destination` from a host that has the addresses `host`.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn judge(&self, destination: Destination, host: &HostAddresses) -> Result<(), Denial> {
        let Destination { address, service } = destination;
        let is_allowed = |address| {
            self.allow_to.iter().any(|rule| rule.names(Destination { address, service }, host))
        };
        if self.denied_by(destination, host).is_some() {
            return Err(Denial::DenyTo);
        }
        for form in forms(address) {
            if let Some(denial) = built_in(form, host)
                && !is_allowed(form)
            {
                return Err(denial);
            }
        }
        if !self.allow_to.is_empty() && !forms(address).any(is_allowed) {
            return Err(Denial::NotInAllowTo);
        }
        Ok(())
    }

    /// The `DenyTo` that names `destination`.
    pub fn denied_by(&self, destination: Destination, host: &HostAddresses) -> Option<&Rule> {
        let Destination { address, service } = destination;
        let names = |rule: &Rule, address| rule.names(Destination { address, service }, host);
        self.deny_to.iter().find(|rule| forms(address).any(|form| names(rule, form)))
    }
}

/// An address, and those that it may stand for. For a socket a mapped address is the one that it maps.
fn forms(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let address = address.to_canonical();
    std::iter::once(address).chain(embedded(address).map(IpAddr::V4))
}

/// The addresses of this host, and those at which everybody, or every router, on its links listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    addresses: BTreeSet<IpAddr>,
    /// All of whose addresses are this host's.
    local: Vec<Ipv4Net>,
    broadcasts: BTreeSet<Ipv4Addr>,
    anycasts: BTreeSet<Ipv6Addr>,
}

impl HostAddresses {
    /// With all addresses of these `networks` of the loopback interface, which the kernel has as its own
    /// for IPv4. [LNX net/ipv4/fib_frontend.c:fib_add_ifaddr]
    pub fn with_loopback(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        let networks = networks.into_iter().filter(|network| !network.addr().is_loopback());
        self.local.extend(networks.filter_map(|network| match network {
            IpNet::V4(network) => Some(network),
            IpNet::V6(_) => None,
        }));
        self
    }

    fn has(&self, address: IpAddr) -> bool {
        let is_in = |network: &Ipv4Net| matches!(address, IpAddr::V4(v4) if network.contains(&v4));
        self.addresses.contains(&address) || self.local.iter().any(is_in)
    }

    /// Whether this host, a router perhaps, takes for itself what is sent to `address`.
    pub fn hears(&self, address: IpAddr) -> bool {
        self.has(address)
            || match address {
                IpAddr::V4(address) => self.broadcasts.contains(&address),
                IpAddr::V6(address) => self.anycasts.contains(&address),
            }
    }
}

impl FromIterator<IpNet> for HostAddresses {
    /// Takes the addresses of the interfaces, each with the length of its link's prefix.
    ///
    /// Passes over loopback addresses: a rule for `host` shall not open what listens on them.
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let mut host = Self::default();
        for network in networks.into_iter().filter(|network| !network.addr().is_loopback()) {
            host.addresses.insert(network.addr());
            match network {
                // Of shorter subnets both ends are hosts. [RFC 3021] [RFC 6164]
                IpNet::V4(network) if network.prefix_len() < 31 => {
                    host.broadcasts.insert(network.broadcast());
                }
                // Of all routers on the link. [RFC 4291 §2.6.1]
                IpNet::V6(network) if network.prefix_len() < 127 => {
                    host.anycasts.insert(network.network());
                }
                IpNet::V4(_) | IpNet::V6(_) => {}
            }
        }
        host
    }
}

/// What is closed by itself, whatever the host. The first one that contains an address counts.
///
/// The metadata services are those of AWS (also its EKS Pod Identity), Google, Azure (WireServer),
/// Oracle, Alibaba and Scaleway, as far as a prefix below does not close them anyway.
pub const BUILT_IN: [(IpNet, Denial); 22] = [
    (v4(169, 254, 169, 254, 32), Denial::Metadata),
    (v4(100, 100, 100, 200, 32), Denial::Metadata),
    (v4(168, 63, 129, 16, 32), Denial::Metadata),
    (v4(192, 0, 0, 192, 32), Denial::Metadata),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), Denial::Metadata),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128), Denial::Metadata),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), Denial::Metadata),
    (v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128), Denial::Metadata),
    (v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128), Denial::Metadata),
    (v4(0, 0, 0, 0, 8), Denial::Unspecified),
    (v4(127, 0, 0, 0, 8), Denial::Loopback),
    (v4(169, 254, 0, 0, 16), Denial::LinkLocal),
    (v4(192, 0, 0, 0, 24), Denial::Reserved),
    (v4(224, 0, 0, 0, 4), Denial::Multicast),
    (v4(255, 255, 255, 255, 32), Denial::Broadcast),
    (v4(240, 0, 0, 0, 4), Denial::Reserved),
    (v6([0; 8], 128), Denial::Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), Denial::Loopback),
    // "IPv4-compatible", which nothing uses any more. [RFC 4291 §2.5.5.1]
    (v6([0; 8], 96), Denial::Reserved),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), Denial::LinkLocal),
    // Site-local, the link-local of a bigger place. [RFC 3879 §4]
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), Denial::Reserved),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Denial::Multicast),
];

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(s: [u16; 8], length: u8) -> IpNet {
    let address = Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    IpNet::V6(Ipv6Net::new_assert(address, length))
}

fn built_in(address: IpAddr, host: &HostAddresses) -> Option<Denial> {
    let listed = BUILT_IN.iter().find(|(network, _)| network.contains(&address));
    listed.map(|&(_, denial)| denial).or_else(|| match address {
        _ if host.has(address) => Some(Denial::Host),
        IpAddr::V4(address) if host.broadcasts.contains(&address) => Some(Denial::Broadcast),
        _ => None,
    })
}

/// A way to carry an IPv4 address in an IPv6 address, by which a gateway sends it on as IPv4.
///
/// Byte positions are those in the IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// Where `mark` stands, by which the addresses of this kind are known.
    pub mark_at: usize,
    pub mark: &'static [u8],
    /// Where the IPv4 address stands.
    pub address_at: usize,
    /// Its bits are inverted.
    pub is_inverted: bool,
}

/// All that are known here. A NAT64 with a prefix of the network's own cannot be known.
pub const EMBEDDINGS: [Embedding; 6] = [
    // IPv4-mapped [RFC 4291 §2.5.5.2]
    embedding(0, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff], 12),
    // NAT64 [RFC 6052 §2.1]
    embedding(0, &[0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0], 12),
    // 6to4 [RFC 3056 §2]
    embedding(0, &[0x20, 0x02], 2),
    // Teredo [RFC 4380 §4]
    Embedding { is_inverted: true, ..embedding(0, &[0x20, 0x01, 0, 0], 12) },
    // ISATAP, for private and for unique IPv4 addresses [RFC 5214 §6.1]
    embedding(8, &[0, 0, 0x5e, 0xfe], 12),
    embedding(8, &[2, 0, 0x5e, 0xfe], 12),
];

const fn embedding(mark_at: usize, mark: &'static [u8], address_at: usize) -> Embedding {
    Embedding { mark_at, mark, address_at, is_inverted: false }
}

/// The IPv4 addresses that `address` may lead to.
pub fn embedded(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let octets = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address.octets()),
    };
    octets.into_iter().flat_map(|octets| {
        EMBEDDINGS.iter().filter_map(move |embedding| {
            let (_, from_mark) = octets.split_at_checked(embedding.mark_at)?;
            let (_, from_address) = octets.split_at_checked(embedding.address_at)?;
            let bits = u32::from_be_bytes(*from_address.first_chunk()?);
            let bits = if embedding.is_inverted { !bits } else { bits };
            from_mark.starts_with(embedding.mark).then_some(Ipv4Addr::from_bits(bits))
        })
    })
}

/// One `AllowTo` or `DenyTo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub target: Target,
    /// `None`: all, and ICMP too unless there is a protocol.
    pub ports: Option<Ports>,
    /// `None`: every protocol; with ports those that have any.
    pub protocol: Option<Protocol>,
}

/// Which destinations a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Without host bits.
    Network(IpNet),
    /// Every address of this host but the loopback ones.
    Host,
}

/// From the first to the last, which is not before it. There is no port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

impl Rule {
    fn names(&self, destination: Destination, host: &HostAddresses) -> bool {
        let Destination { address, service } = destination;
        let is_target = match self.target {
            Target::Network(network) => network.contains(&address),
            Target::Host => host.has(address),
        };
        let (protocol, port) = match service {
            Service::Tcp(port) => (Protocol::Tcp, Some(port)),
            Service::Udp(port) => (Protocol::Udp, Some(port)),
            Service::Icmp => (Protocol::Icmp, None),
        };
        let is_port = |ports: Ports| port.is_some_and(|port| ports.range().contains(&port));
        is_target
            && self.protocol.is_none_or(|only| only == protocol)
            && self.ports.is_none_or(is_port)
    }
}

impl Ports {
    pub const fn range(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

/// What a rule looks like, for whoever wrote another thing.
pub const ACCEPTED: &str = "a network, an address or `host`; then, if wanted, `:port` or \
                            `:port-port`; then, if wanted, `/tcp`, `/udp` or `/icmp`; with a port \
                            an IPv6 address stands in brackets";

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {ACCEPTED}")]
pub struct NotARule;

impl FromStr for Rule {
    type Err = NotARule;

    /// Reads for example `10.20.0.0/16`, `10.30.5.7:443/tcp`, `[fd00::/8]:5000-5999`, `host/icmp`.
    fn from_str(text: &str) -> Result<Self, NotARule> {
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, "tcp")) => (rest, Some(Protocol::Tcp)),
            Some((rest, "udp")) => (rest, Some(Protocol::Udp)),
            Some((rest, "icmp")) => (rest, Some(Protocol::Icmp)),
            _ => (text, None),
        };
        let (target, ports) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((target, "")) => (target, None),
            Some((target, ports)) => (target, Some(ports.strip_prefix(':').ok_or(NotARule)?)),
            None => match rest.split_once(':') {
                // Of several colons none is in front of a port.
                Some((target, ports)) if !ports.contains(':') => (target, Some(ports)),
                _ => (rest, None),
            },
        };
        let ports = ports.map(str::parse).transpose()?;
        if ports.is_some() && protocol == Some(Protocol::Icmp) {
            return Err(NotARule);
        }
        Ok(Self { target: target.parse()?, ports, protocol })
    }
}

impl FromStr for Target {
    type Err = NotARule;

    fn from_str(text: &str) -> Result<Self, NotARule> {
        if text.eq_ignore_ascii_case("host") {
            return Ok(Self::Host);
        }
        let address = || text.parse().map(|address: IpAddr| IpNet::from(address));
        let network: IpNet = text.parse().or_else(|_| address()).map_err(|_| NotARule)?;
        Ok(Self::Network(network.trunc()))
    }
}

impl FromStr for Ports {
    type Err = NotARule;

    fn from_str(text: &str) -> Result<Self, NotARule> {
        let port = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u16>().ok().filter(|port| *port != 0).ok_or(NotARule),
            false => Err(NotARule),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first <= last { Ok(Self { first, last }) } else { Err(NotARule) }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.target, self.ports) {
            (Target::Network(network @ IpNet::V6(_)), Some(_)) => {
                write!(f, "[{}]", Short(network))?;
            }
            (Target::Network(network), _) => write!(f, "{}", Short(network))?,
            (Target::Host, _) => f.write_str("host")?,
        }
        match self.ports {
            Some(Ports { first, last }) if first == last => write!(f, ":{first}")?,
            Some(Ports { first, last }) => write!(f, ":{first}-{last}")?,
            None => {}
        }
        f.write_str(match self.protocol {
            Some(Protocol::Tcp) => "/tcp",
            Some(Protocol::Udp) => "/udp",
            Some(Protocol::Icmp) => "/icmp",
            None => "",
        })
    }
}

/// A network of one address without its length.
struct Short(IpNet);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(network) = self;
        if network.prefix_len() == network.max_prefix_len() {
            network.addr().fmt(f)
        } else {
            network.fmt(f)
        }
    }
}

#[cfg(test)]
mod tests;
