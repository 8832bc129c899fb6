//! Makes configuration files that fit each other: that of a hub, and that of each client with its
//! section in the hub's.
//!
//! The hub's file is all there is to know: clients get the lowest addresses that nobody in it has,
//! the hub's public key, its MTU and its `PublicEndpoint`. Nothing here reads or writes a file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zeroize::Zeroizing;

use crate::control::command::AllowedIpChange;
use crate::control::config::{At, Config, Dns, Endpoint, Interface, Peer, parse_endpoint};
use crate::crypto::dh;
use crate::crypto::entropy::Entropy;
use crate::crypto::key::{PresharedKey, PrivateKey};

/// WireGuard's usual port.
pub const DEFAULT_PORT: u16 = 51820;

/// Bytes. Fits between all large clouds, with 1420 outside over IPv4 and 1440 over IPv6. (U-05)
const MTU: u16 = 1360;

/// Seconds: most NATs forget a flow of UDP that was silent for 30.
const KEEPALIVE: u16 = 25;

/// Networks that clouds and Kubernetes give out by default, so that a site of somebody's has them.
const POPULAR: [Ipv4Net; 5] = [
    // Amazon, Azure and everybody else.
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16),
    // Containers of k3s.
    Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 15),
    // Services of Kubernetes.
    Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12),
    // Google.
    Ipv4Net::new_assert(Ipv4Addr::new(10, 128, 0, 0), 9),
    // Those of whoever needs just one.
    Ipv4Net::new_assert(Ipv4Addr::new(10, 10, 0, 0), 16),
];

/// Why no file was made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakerError {
    #[error("{0} has no room for a hub and a client: a network for tunnels has a /30 or wider")]
    TooSmall(IpNet),
    #[error("no network of 10.0.0.0/8 is free on this host: name one")]
    NoNetwork,
    #[error("it has no PrivateKey, whose public key each client needs")]
    NoKey,
    #[error(
        "it has no Address with room for clients: one such as 10.10.0.1/24 says that 10.10.0.0/24 \
         is the tunnel's network"
    )]
    NoAddress,
    #[error("each address of {0} is somebody's")]
    Full(IpNet),
    #[error("it does not say where clients reach it")]
    NoEndpoint,
}

/// A network for a tunnel, for each family: of IPv4 one that overlaps none of `taken`, of IPv6 one
/// that nobody else is likely to have. [RFC 4193]
///
/// # Errors
/// [`MakerError::NoNetwork`]
pub fn pick_networks(entropy: &mut dyn Entropy, taken: &[IpNet]) -> Result<Vec<IpNet>, MakerError> {
    const DRAWS: usize = 1000;
    let overlaps = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let popular = POPULAR.map(IpNet::V4);
    let is_free = |network: &IpNet| !popular.iter().chain(taken).any(|it| overlaps(it, network));
    let draw = |entropy: &mut dyn Entropy| {
        let [second, third] = entropy.bytes();
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, second, third, 0), 24))
    };
    let v4 = (0..DRAWS).map(|_| draw(entropy)).find(is_free).ok_or(MakerError::NoNetwork)?;
    let mut v6 = [0; 16];
    v6[0] = 0xfd;
    v6[1..6].copy_from_slice(&entropy.bytes::<5>());
    Ok(vec![v4, IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(v6), 64))])
}

/// Where clients reach a hub that listens on `port`: `HOST`, or `HOST:PORT` where something in
/// between gives it another one.
pub fn public_endpoint(text: &str, port: u16) -> Option<Endpoint> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Endpoint::Address((address, port).into()));
    }
    parse_endpoint(text).or_else(|| parse_endpoint(&format!("{text}:{port}")))
}

/// A hub in `networks`. Of a network without host bits it gets the first address.
///
/// # Errors
/// [`MakerError::TooSmall`]
pub fn hub(
    entropy: &mut dyn Entropy,
    networks: &[IpNet],
    port: u16,
    endpoint: Endpoint,
) -> Result<Config, MakerError> {
    let address = |network: &IpNet| {
        if !has_room(network) {
            return Err(MakerError::TooSmall(*network));
        }
        let is_whole = *network == network.trunc();
        let first = Pool::of(*network).address(Pool::of(*network).first);
        let address = if is_whole { first } else { network.addr() };
        Ok(IpNet::new(address, network.prefix_len()).unwrap_or(*network))
    };
    let interface = Interface {
        private_key: Some(new_private_key(entropy)),
        listen_port: Some(port),
        public_endpoint: Some(endpoint),
        addresses: networks.iter().map(address).collect::<Result<_, _>>()?,
        mtu: Some(MTU),
        ..Interface::default()
    };
    Ok(Config { interface, ..Config::default() })
}

/// What a client is to be like, beyond what its hub says.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Where the hub is, if its file does not say so.
    pub endpoint: Option<Endpoint>,
    /// What goes to the hub; empty for the tunnel's own networks.
    pub allowed_ips: Vec<IpNet>,
    pub dns: Vec<Dns>,
}

/// A client, and what its hub is told of it.
#[derive(Clone, Debug)]
pub struct Pair {
    pub client: Config,
    pub peer: Peer,
}

/// The next client of `hub`, whose keys have been fetched.
///
/// # Errors
/// The hub lacks something, or has no address left.
pub fn client(entropy: &mut dyn Entropy, hub: &Config, wishes: Wishes) -> Result<Pair, MakerError> {
    let own = hub.interface.private_key.as_ref().filter(|key| !key.is_zero());
    let own = dh::public_key(own.ok_or(MakerError::NoKey)?);
    let endpoint = wishes.endpoint.or_else(|| hub.interface.public_endpoint.clone());
    let endpoint = endpoint.ok_or(MakerError::NoEndpoint)?;
    let addresses = free_addresses(hub)?;
    let (private_key, preshared_key) =
        (new_private_key(entropy), PresharedKey::from_bytes(*Zeroizing::new(entropy.bytes())));
    let networks = match wishes.allowed_ips.is_empty() {
        true => addresses.iter().map(IpNet::trunc).collect(),
        false => wishes.allowed_ips,
    };
    let peer = |public_key, networks: Vec<IpNet>| Peer {
        line: 0,
        public_key,
        preshared_key: Some(preshared_key.clone()),
        preshared_key_file: None,
        allowed_ips: Some(networks.into_iter().map(|it| here(AllowedIpChange::Add(it))).collect()),
        incremental: false,
        endpoint: None,
        endpoints: Vec::new(),
        persistent_keepalive: None,
        required: None,
    };
    let hosts = addresses.iter().map(|address| IpNet::from(address.addr())).collect();
    let public_key = dh::public_key(&private_key);
    let interface = Interface {
        private_key: Some(private_key),
        mtu: Some(hub.interface.mtu.unwrap_or(MTU)),
        addresses,
        dns: wishes.dns.into_iter().map(here).collect(),
        ..Interface::default()
    };
    let endpoint = Some(endpoint);
    let hubs = Peer { endpoint, persistent_keepalive: Some(KEEPALIVE), ..peer(own, networks) };
    Ok(Pair {
        client: Config { interface, peers: vec![hubs], ..Config::default() },
        peer: peer(public_key, hosts),
    })
}

/// A value of a file that is yet to be written.
const fn here<T>(value: T) -> At<T> {
    At { line: 0, value }
}

fn new_private_key(entropy: &mut dyn Entropy) -> PrivateKey {
    dh::clamp(&PrivateKey::from_bytes(*Zeroizing::new(entropy.bytes())))
}

/// For a hub and at least one client.
fn has_room(network: &IpNet) -> bool {
    network.max_prefix_len() - network.prefix_len() >= 2
}

/// One address for a client in each network of the hub, the lowest that is nobody's.
fn free_addresses(hub: &Config) -> Result<Vec<IpNet>, MakerError> {
    let is_link_local =
        |net: &IpNet| matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
    let own = &hub.interface.addresses;
    let with_room: Vec<&IpNet> =
        own.iter().filter(|net| has_room(net) && !is_link_local(net)).collect();
    if with_room.is_empty() {
        return Err(MakerError::NoAddress);
    }
    let changes = hub.peers.iter().flat_map(|peer| peer.allowed_ips.iter().flatten());
    let peers = changes.filter_map(|change| match change.value {
        AllowedIpChange::Add(network) => Some(network.trunc()),
        AllowedIpChange::Remove(_) => None,
    });
    let hosts = own.iter().map(|address| IpNet::from(address.addr()));
    let taken: Vec<IpNet> = peers.chain(hosts).collect();
    let free = |network: &&IpNet| {
        let address = Pool::of(**network).lowest_free(&taken);
        let address = address.and_then(|it| IpNet::new(it, network.prefix_len()).ok());
        address.ok_or(MakerError::Full(network.trunc()))
    };
    with_room.iter().map(free).collect()
}

/// The addresses of a network that a host can have, as numbers.
struct Pool {
    network: IpNet,
    first: u128,
    last: u128,
}

impl Pool {
    fn of(network: IpNet) -> Self {
        let (first, last) = (number(network.network()) + 1, number(network.broadcast()));
        // IPv6 has no broadcast.
        let last = if network.addr().is_ipv4() { last - 1 } else { last };
        Self { network, first, last }
    }

    /// The lowest address in none of `taken`. A network that contains all of ours is nobody's claim
    /// to a place in it: the longer prefix wins.
    fn lowest_free(&self, taken: &[IpNet]) -> Option<IpAddr> {
        let within = |other: &&IpNet| {
            self.network.contains(*other) && other.prefix_len() > self.network.prefix_len()
        };
        let range = |other: &IpNet| (number(other.network()), number(other.broadcast()));
        let mut taken: Vec<(u128, u128)> = taken.iter().filter(within).map(range).collect();
        taken.sort_unstable();
        let lowest = taken.iter().try_fold(self.first, |free, &(start, end)| {
            if (start..=end).contains(&free) { end.checked_add(1) } else { Some(free) }
        })?;
        (lowest <= self.last).then(|| self.address(lowest))
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.network {
            IpNet::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            IpNet::V6(_) => Ipv6Addr::from_bits(number).into(),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::control::config::{line_of_peer, parse, render, with_peer};
    use crate::crypto::entropy::SeededEntropy;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn endpoint() -> Endpoint {
        public_endpoint("hub.example", 51820).unwrap()
    }

    /// What a hub with these lines gives the next client.
    fn next(lines: &str) -> Result<Vec<String>, MakerError> {
        let key = PrivateKey::from_bytes([24; 32]).to_base64();
        let text = format!("[Interface]\nPrivateKey = {key}\n{lines}");
        let hub = parse(&text, "hub.conf").unwrap().config;
        let wishes = Wishes { endpoint: Some(endpoint()), ..Wishes::default() };
        let pair = client(&mut SeededEntropy::new(1), &hub, wishes)?;
        Ok(pair.client.interface.addresses.iter().map(ToString::to_string).collect())
    }

    const PEER: &str =
        "[Peer]\nPublicKey = oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=\nAllowedIPs =";

    #[test]
    fn a_hub_and_its_clients_fit_each_other_whatever_the_seed() {
        for seed in 0..20 {
            let mut entropy = SeededEntropy::new(seed);
            let networks = pick_networks(&mut entropy, &[]).unwrap();
            let config = hub(&mut entropy, &networks, 1234, endpoint()).unwrap();
            let mut text = render(&config).to_string();
            for number in 2..5_u8 {
                let read = parse(&text, "hub.conf").unwrap().config;
                let pair = client(&mut entropy, &read, Wishes::default()).unwrap();
                text = with_peer(&text, &format!("c{number}"), &pair.peer).to_string();
                let written = parse(&render(&pair.client), "client.conf").unwrap();
                assert!(written.warnings.is_empty(), "{:?}", written.warnings);
                let Config { interface, peers, .. } = written.config;
                let own = config.interface.private_key.as_ref().map(dh::public_key);
                assert_eq!(Some(peers[0].public_key), own);
                let public_key = interface.private_key.as_ref().map(dh::public_key);
                assert_eq!(public_key, Some(pair.peer.public_key));
                assert!(peers[0].preshared_key == pair.peer.preshared_key);
                assert!(peers[0].preshared_key.is_some());
                assert_eq!(peers[0].endpoint.as_ref().unwrap().to_string(), "hub.example:51820");
                assert_eq!((interface.mtu, peers[0].persistent_keepalive), (Some(1360), Some(25)));
                let hosts = interface.addresses.iter().map(|it| IpNet::from(it.addr()));
                assert!(hosts.eq(added(&pair.peer)), "what the client is, the hub expects");
                assert!(networks.iter().copied().eq(added(&peers[0])));
                let last = interface.addresses.iter().map(|it| number_of_host(it.addr()));
                assert!(last.eq([number, number]), "seed {seed}");
            }
            let written = parse(&text, "hub.conf").unwrap();
            assert!(written.warnings.is_empty(), "{:?}", written.warnings);
            assert_eq!(written.config.peers.len(), 3);
            assert_eq!(
                line_of_peer(&text, "c3"),
                text.lines().position(|l| l == "# c3").map(|l| l + 2)
            );
        }
    }

    fn added(peer: &Peer) -> impl Iterator<Item = IpNet> {
        peer.allowed_ips.iter().flatten().map(|entry| match entry.value {
            AllowedIpChange::Add(network) => network,
            AllowedIpChange::Remove(network) => panic!("-{network}"),
        })
    }

    fn number_of_host(address: IpAddr) -> u8 {
        u8::try_from(number(address) & 0xff).unwrap()
    }

    #[test]
    fn a_client_gets_the_lowest_address_that_is_nobodys() {
        for (lines, expected) in [
            ("Address = 10.7.0.1/24", "10.7.0.2/24"),
            ("Address = 10.7.0.2/24", "10.7.0.1/24"),
            (&format!("Address = 10.7.0.1/24\n{PEER} 10.7.0.2, 10.7.0.4"), "10.7.0.3/24"),
            (&format!("Address = 10.7.0.1/24\n{PEER} 10.7.0.0/28"), "10.7.0.16/24"),
            (
                &format!("Address = 10.7.0.1/24\n{PEER} 0.0.0.0/0, 10.7.0.0/24, 10.7.0.2"),
                "10.7.0.3/24",
            ),
            (&format!("Address = 10.7.0.1/30\n{PEER} 192.168.0.0/16"), "10.7.0.2/30"),
            ("Address = fd00::1/64", "fd00::2/64"),
            ("Address = fe80::1/64, 192.0.2.7/32, 10.7.0.1/16", "10.7.0.2/16"),
        ] {
            assert_eq!(
                next(lines).map(|found| found.join(" ")).as_deref(),
                Ok(expected),
                "{lines}"
            );
        }
    }

    #[test]
    fn a_hub_that_lacks_something_is_told_what() {
        let full = format!("Address = 10.7.0.1/30\n{PEER} 10.7.0.2/32");
        assert_eq!(next(&full), Err(MakerError::Full(net("10.7.0.0/30"))));
        assert_eq!(next("Address = 10.7.0.1/32"), Err(MakerError::NoAddress));
        let mut entropy = SeededEntropy::new(1);
        let wishes = || Wishes { endpoint: Some(endpoint()), ..Wishes::default() };
        let without_key = client(&mut entropy, &Config::default(), wishes()).unwrap_err();
        assert_eq!(without_key, MakerError::NoKey);
        let mut config = hub(&mut entropy, &[net("10.7.0.0/24")], 1, endpoint()).unwrap();
        config.interface.public_endpoint = None;
        let without_endpoint = client(&mut entropy, &config, Wishes::default()).unwrap_err();
        assert_eq!(without_endpoint, MakerError::NoEndpoint);
        let too_small = hub(&mut entropy, &[net("10.7.0.0/31")], 1, endpoint()).unwrap_err();
        assert_eq!(too_small, MakerError::TooSmall(net("10.7.0.0/31")));
    }

    #[test]
    fn what_was_wished_for_is_in_the_file_of_the_client() {
        let mut entropy = SeededEntropy::new(1);
        let config = hub(&mut entropy, &[net("10.7.0.9/24")], 1, endpoint()).unwrap();
        assert_eq!(config.interface.addresses, [net("10.7.0.9/24")], "host bits are the hub's own");
        let wishes = Wishes {
            endpoint: public_endpoint("2001:db8::1", 7),
            allowed_ips: vec![net("0.0.0.0/0"), net("::/0")],
            dns: vec![Dns::Server("10.7.0.9".parse().unwrap())],
        };
        let text = render(&client(&mut entropy, &config, wishes).unwrap().client);
        for line in ["Endpoint = [2001:db8::1]:7", "AllowedIPs = 0.0.0.0/0, ::/0", "DNS = 10.7.0.9"]
        {
            assert!(text.lines().any(|it| it == line), "{line}");
        }
    }

    #[test]
    fn an_endpoint_has_the_port_that_the_hub_listens_on_unless_it_says_another() {
        for (text, expected) in [
            ("hub.example", "hub.example:7"),
            ("hub.example:8", "hub.example:8"),
            ("192.0.2.1", "192.0.2.1:7"),
            ("2001:db8::1", "[2001:db8::1]:7"),
            ("[2001:db8::1]", "[2001:db8::1]:7"),
            ("[2001:db8::1]:8", "[2001:db8::1]:8"),
        ] {
            let found = public_endpoint(text, 7).map(|it| it.to_string());
            assert_eq!(found.as_deref(), Some(expected));
        }
        for bad in ["", "a b", "hub.example:x", "1.2.3.4.5", "-x"] {
            assert_eq!(public_endpoint(bad, 7), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_network_that_is_picked_overlaps_none_that_is_taken(
            seed in any::<u64>(),
            taken in prop::collection::vec((any::<u8>(), any::<u8>(), 9..=32_u8), 0..50),
        ) {
            let taken: Vec<IpNet> = taken
                .into_iter()
                .map(|(b, c, length)| IpNet::new(Ipv4Addr::new(10, b, c, 0).into(), length).unwrap())
                .collect();
            match pick_networks(&mut SeededEntropy::new(seed), &taken) {
                Ok(networks) => for other in &taken {
                    let other = other.trunc();
                    prop_assert!(!networks[0].contains(&other) && !other.contains(&networks[0]));
                },
                Err(error) => prop_assert_eq!(error, MakerError::NoNetwork),
            }
        }
    }
}
