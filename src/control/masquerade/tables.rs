//! What masquerades in nftables: a table for each family, with the policy before it. The policy holds
//! for a family without sources as well: a host may forward without us.
//!
//! The policy holds for what leaves the tunnel and this host by another interface, whatever its
//! source. It stands in the forward hook, so that it has no say about this host's own addresses:
//! those are the business of the host's own firewall, as without us. A connection that was let
//! through once stays so.
//!
//! Sources are matched and not the interface, because kernels before 5.7 do not know in the
//! postrouting hook by which interface a packet came. Marks are left to others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::control::netlink::Family;
use crate::control::netlink::nft::{Chain, Hook, Kind, Part, Table};
use crate::flow::policy::{BUILT_IN, EMBEDDINGS, Embedding, Policy, Ports, Protocol, Rule, Target};

/// What the names of these tables begin with. No table of the firewall's is called so, whatever the
/// interface.
pub const PREFIX: &str = "hybridwg_nat-";

/// The chain that masquerades, where there are sources.
pub const MASQUERADE: &str = "masquerade";

/// The table of one family for `interface`, whose peers get out under this host's addresses if they
/// come from `sources`.
///
/// # Errors
/// A rule about this host, which the forward hook never sees.
pub fn table(
    interface: &str,
    family: Family,
    sources: &[IpNet],
    policy: &Policy,
) -> Result<Table, Rule> {
    let mut rules = vec![
        vec![Part::NotByInterface(interface.to_owned()), Part::Accept],
        vec![Part::ToInterface(interface.to_owned()), Part::Accept],
        vec![Part::Established, Part::Accept],
    ];
    let denied = named(&policy.deny_to, family)?.into_iter();
    rules.extend(denied.map(|(_, parts)| then(parts, Part::Reject)));
    let allowed = named(&policy.allow_to, family)?;
    // As the policy has it: a rule that names what carries an address does not open what is carried.
    for is_carried in [true, false] {
        let these = allowed.iter().filter(|(it, _)| *it == is_carried);
        rules.extend(these.map(|(_, parts)| then(parts.clone(), Part::Accept)));
        let closed = BUILT_IN.iter().flat_map(|(network, _)| destinations(*network, family));
        let closed = closed.filter(|(it, _)| *it == is_carried);
        rules.extend(closed.map(|(_, part)| vec![part, Part::Reject]));
    }
    if !policy.allow_to.is_empty() {
        rules.push(vec![Part::Reject]);
    }
    let masquerade = sources.iter().filter(|network| Family::of(network.addr()) == family);
    let masquerade: Vec<_> = masquerade
        .map(|network| {
            vec![
                Part::SourceBits { value: network.network(), mask: network.netmask() },
                Part::NotToInterface(interface.to_owned()),
                Part::Masquerade,
            ]
        })
        .collect();
    let chain = |name: &str, kind, hook, priority, rules| Chain {
        name: name.to_owned(),
        kind,
        hook,
        priority,
        rules,
    };
    // The priorities are those of "filter" and "srcnat" in nft(8).
    let mut chains = vec![chain("policy", Kind::Filter, Hook::Forward, 0, rules)];
    if !masquerade.is_empty() {
        chains.push(chain(MASQUERADE, Kind::Nat, Hook::Postrouting, 100, masquerade));
    }
    Ok(Table { family, name: format!("{PREFIX}{interface}"), chains })
}

/// Whether it does more than to keep peers to the policy.
pub fn masquerades(table: &Table) -> bool {
    table.chains.iter().any(|chain| chain.kind == Kind::Nat)
}

fn then(mut parts: Vec<Part>, verdict: Part) -> Vec<Part> {
    parts.push(verdict);
    parts
}

/// The matches of rules, each with whether it is about an address that another one carries.
fn named(rules: &[Rule], family: Family) -> Result<Vec<(bool, Vec<Part>)>, Rule> {
    let mut all = Vec::new();
    for rule in rules {
        let Target::Network(network) = rule.target else { return Err(*rule) };
        for (is_carried, destination) in destinations(network, family) {
            let services = services(rule.protocol, rule.ports).into_iter();
            all.extend(services.map(|service| {
                (is_carried, std::iter::once(destination.clone()).chain(service).collect())
            }));
        }
    }
    Ok(all)
}

fn services(protocol: Option<Protocol>, ports: Option<Ports>) -> Vec<Vec<Part>> {
    let to = |protocol: Part| match ports {
        Some(Ports { first, last }) => vec![protocol, Part::DestinationPorts(first, last)],
        None => vec![protocol],
    };
    match protocol {
        Some(Protocol::Tcp) => vec![to(Part::Tcp)],
        Some(Protocol::Udp) => vec![to(Part::Udp)],
        Some(Protocol::Icmp) => vec![vec![Part::Icmp]],
        None if ports.is_some() => vec![to(Part::Tcp), to(Part::Udp)],
        None => vec![Vec::new()],
    }
}

/// The forms in which packets of the family carry a destination in `network`, each with whether it
/// is in another address.
fn destinations(network: IpNet, family: Family) -> Vec<(bool, Part)> {
    match (network, family) {
        (IpNet::V4(network), Family::V6) => {
            EMBEDDINGS.iter().map(|kind| (true, carried(kind, network))).collect()
        }
        (network, family) if Family::of(network.addr()) == family => {
            let (value, mask) = (network.network(), network.netmask());
            vec![(false, Part::DestinationBits { value, mask })]
        }
        _ => Vec::new(),
    }
}

/// The IPv6 addresses that carry one of `network`.
fn carried(kind: &Embedding, network: Ipv4Net) -> Part {
    let (mut value, mut mask) = ([0; 16], [0; 16]);
    value[kind.mark_at..][..kind.mark.len()].copy_from_slice(kind.mark);
    mask[kind.mark_at..][..kind.mark.len()].fill(u8::MAX);
    let netmask = network.netmask();
    let bits = network.network().to_bits();
    let bits = if kind.is_inverted { !bits & netmask.to_bits() } else { bits };
    value[kind.address_at..][..4].copy_from_slice(&Ipv4Addr::from_bits(bits).octets());
    mask[kind.address_at..][..4].copy_from_slice(&netmask.octets());
    let address = |octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets));
    Part::DestinationBits { value: address(value), mask: address(mask) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flow::policy::{Destination, HostAddresses, Service, embedded};

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_table_closes_what_the_policy_closes_and_masquerades_what_comes_from_the_sources() {
        let policy = Policy {
            allow_to: rules(&["10.20.0.0/16", "10.30.5.7:443/tcp", "[fd20::/64]:53"]),
            deny_to: rules(&["10.20.9.0/24/icmp"]),
        };
        let sources = nets(&["10.10.0.0/24", "fd10::/64"]);
        let text = table("wg0", Family::V4, &sources, &policy).unwrap().to_string();
        let start = "table ip hybridwg_nat-wg0 { chain policy { type filter hook forward priority 0; \
                     iifname != \"wg0\" accept; oifname \"wg0\" accept; \
                     ct state established,related accept; \
                     ip daddr 10.20.9.0/24 meta l4proto icmp \
                     reject with icmp type admin-prohibited; \
                     ip daddr 10.20.0.0/16 accept; \
                     ip daddr 10.30.5.7/32 meta l4proto tcp th dport 443-443 accept; \
                     ip daddr 169.254.169.254/32 reject with icmp type admin-prohibited;";
        assert!(text.starts_with(start), "{text}");
        let end = "ip daddr 240.0.0.0/4 reject with icmp type admin-prohibited; \
                   reject with icmp type admin-prohibited; }; \
                   chain masquerade { type nat hook postrouting priority 100; \
                   ip saddr 10.10.0.0/24 oifname != \"wg0\" masquerade; }; }";
        assert!(text.ends_with(end), "{text}");
        let text = table("wg0", Family::V6, &sources, &policy).unwrap().to_string();
        for part in [
            "ip6 daddr 64:ff9b::a14:900/120 meta l4proto ipv6-icmp reject with icmpv6 type \
             admin-prohibited;",
            "ip6 daddr & ffff:ffff::ffff:0 == 2001:0:0:0:0:0:f5eb:0 accept;",
            "ip6 daddr 2002:a14::/32 accept;",
            "ip6 daddr fd20::/64 meta l4proto tcp th dport 53-53 accept; \
             ip6 daddr fd20::/64 meta l4proto udp th dport 53-53 accept;",
            "ip6 saddr fd10::/64 oifname != \"wg0\" masquerade;",
        ] {
            let part = part.replace("2001:0:0:0:0:0:f5eb:0", "2001::f5eb:0");
            assert!(text.contains(&part), "{part}\n{text}");
        }
    }

    #[test]
    fn a_rule_about_this_host_cannot_be_held_by_the_forward_hook() {
        let host = rules(&["host:22"]);
        for policy in [
            Policy { allow_to: host.clone(), ..Policy::default() },
            Policy { deny_to: host.clone(), ..Policy::default() },
        ] {
            assert_eq!(table("wg0", Family::V4, &[], &policy), Err(host[0]));
        }
    }

    /// What the chain of the policy says to the first packet of a flow from the tunnel.
    fn lets_through(table: &Table, Destination { address, service }: Destination) -> bool {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let is_met = |part: &Part| match part {
            Part::NotByInterface(_) | Part::ToInterface(_) | Part::Established => false,
            Part::DestinationBits { value, mask } => {
                let bits = std::iter::zip(octets(address), octets(*mask));
                bits.map(|(one, mask)| one & mask)
                    .eq(std::iter::zip(octets(*value), octets(*mask)).map(|(one, mask)| one & mask))
            }
            Part::Tcp => matches!(service, Service::Tcp(_)),
            Part::Udp => matches!(service, Service::Udp(_)),
            Part::Icmp => service == Service::Icmp,
            Part::DestinationPorts(first, last) => match service {
                Service::Tcp(port) | Service::Udp(port) => (*first..=*last).contains(&port),
                Service::Icmp => false,
            },
            other => panic!("{other:?} is no match of the policy"),
        };
        for rule in &table.chains[0].rules {
            let (verdict, matches) = rule.split_last().unwrap();
            if matches.iter().all(is_met) {
                return *verdict == Part::Accept;
            }
        }
        true
    }

    fn any_destination() -> impl Strategy<Value = Destination> {
        let near = prop_oneof![
            Just("10.20.9.1"),
            Just("10.20.1.1"),
            Just("10.30.5.7"),
            Just("10.30.5.8"),
            Just("127.0.0.1"),
            Just("169.254.169.254"),
            Just("1.2.3.4"),
            Just("224.1.1.1"),
        ]
        .prop_map(|text| text.parse::<Ipv4Addr>().unwrap());
        let wrapped = (0..=EMBEDDINGS.len(), near).prop_map(|(kind, inner)| {
            let Some(kind) = EMBEDDINGS.get(kind) else { return IpAddr::V4(inner) };
            match carried(kind, Ipv4Net::from(inner)) {
                Part::DestinationBits { value, .. } => value,
                _ => unreachable!(),
            }
        });
        let listed = (0..BUILT_IN.len()).prop_map(|row| BUILT_IN[row].0.addr());
        let own = Just("fd20::1".parse().unwrap());
        let service = prop_oneof![
            Just(Service::Tcp(443)),
            Just(Service::Udp(53)),
            Just(Service::Tcp(22)),
            Just(Service::Icmp)
        ];
        let address = prop_oneof![wrapped, listed, own, any::<IpAddr>()];
        (address, service).prop_map(|(address, service)| Destination { address, service })
    }

    fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
        let texts = [
            "10.20.0.0/16",
            "10.20.9.0/24/tcp",
            "10.30.5.7:443/tcp",
            "169.254.169.254:53",
            "fd20::/64",
            "[fd20::/64]:53",
            "64:ff9b::/96",
            "2002::/16/icmp",
            "127.0.0.0/8",
            "::/0",
            "0.0.0.0/0/udp",
        ];
        prop::collection::vec(prop::sample::select(texts.to_vec()), 0..3)
            .prop_map(|texts| rules(&texts))
    }

    proptest! {
        #[test]
        fn the_chain_lets_through_what_the_policy_allows(
            destination in any_destination(), allow_to in any_rules(), deny_to in any_rules(),
        ) {
            // An address that carries two is judged by both there, by the first that is named here.
            // On wires there are no mapped ones.
            let is_simple = embedded(destination.address).count() < 2
                && destination.address == destination.address.to_canonical();
            prop_assume!(is_simple);
            let policy = Policy { allow_to, deny_to };
            let table =
                table("wg0", Family::of(destination.address), &[], &policy).unwrap();
            let is_allowed = policy.judge(destination, &HostAddresses::default()).is_ok();
            prop_assert_eq!(lets_through(&table, destination), is_allowed);
        }
    }
}
