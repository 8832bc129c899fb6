//! What a file without faults can still be told. Each lint is a function; [`LINTS`] lists them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Finding, Severity, Surroundings};
use crate::control::command::AllowedIpChange;
use crate::control::config::{At, Config, Dns, Endpoint, Interface, Key, Masquerade, Peer, Table};
use crate::control::ends::{self, Mode, ResolveVia};
use crate::control::mtu::{IPV6_MINIMUM_MTU, OVERHEAD};
use crate::control::netlink::MAIN_TABLE;
use crate::control::rootless::NO_ADDRESS;
use crate::crypto::dh;
use crate::flow::policy::{BUILT_IN, Denial, Rule, Target};

/// What is judged, and where.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub config: &'a Config,
    pub interface: &'a str,
    pub host: &'a Surroundings,
}

impl Subject<'_> {
    fn table(&self) -> Table {
        let table = self.config.interface.table.as_ref();
        table.map_or(Table::Auto, |table| table.value.clone())
    }

    /// The commands of all hooks, each with its key.
    fn hooks(&self) -> impl Iterator<Item = (Key, &str)> {
        let settings = &self.config.interface;
        let hooks = [
            (Key::PreUp, &settings.pre_up),
            (Key::PostUp, &settings.post_up),
            (Key::PreDown, &settings.pre_down),
            (Key::PostDown, &settings.post_down),
        ];
        hooks.into_iter().flat_map(|(key, hooks)| hooks.iter().map(move |it| (key, &**it)))
    }
}

type Lint = fn(&Subject<'_>, &mut Vec<Finding>);

/// A new lint is a function here, and a row of docs/configuration.md.
const LINTS: &[Lint] = &[
    about_own_key,
    about_overlaps,
    about_addresses,
    about_loops,
    about_ways,
    about_mtu,
    about_keepalive,
    about_hooks,
    about_masquerading,
    about_openings,
    about_local_services,
    about_names,
    about_ends,
];

/// What all of them find, in no order.
pub fn all(subject: &Subject<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    LINTS.iter().for_each(|lint| lint(subject, &mut findings));
    findings
}

/// The networks of each peer, with the peer's place and the line.
fn networks(config: &Config) -> Vec<(usize, usize, IpNet)> {
    let mut found = Vec::new();
    for (place, peer) in config.peers.iter().enumerate() {
        for entry in peer.allowed_ips.iter().flatten() {
            if let AllowedIpChange::Add(network) = entry.value {
                found.push((place, entry.line, network));
            }
        }
    }
    found
}

/// The line of the default route that a peer gets, if it gets one.
fn default_route(peer: &Peer) -> Option<usize> {
    let mut entries = peer.allowed_ips.iter().flatten();
    let is_default =
        |change| matches!(change, AllowedIpChange::Add(network) if network.prefix_len() == 0);
    entries.find(|entry| is_default(entry.value)).map(|entry| entry.line)
}

/// The endpoints that are addresses, each with its peer.
fn endpoints(config: &Config) -> impl Iterator<Item = (&Peer, std::net::SocketAddr)> {
    config.peers.iter().flat_map(|peer| {
        peer.places().iter().filter_map(move |place| match place {
            Endpoint::Address(address) => Some((peer, *address)),
            Endpoint::Name { .. } => None,
        })
    })
}

/// Where the key does not stand in the file. Otherwise it is told when the file is read.
fn about_own_key(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let settings = &subject.config.interface;
    let elsewhere = settings.private_key_file.as_ref().and(settings.private_key.as_ref());
    let Some(own) = elsewhere.filter(|key| !key.is_zero()).map(dh::public_key) else { return };
    let peers = subject.config.peers.iter().filter(|peer| peer.public_key == own);
    let text = "[Peer]: its PublicKey is that of this interface itself, which is no peer";
    findings.extend(peers.map(|peer| Finding::warning(peer.line, text)));
}

/// A network within another peer's is legal: the longer prefix decides. Sorted by address, with the
/// wider one first, whatever contains a network is among those that are open when it comes.
fn about_overlaps(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let mut all = networks(subject.config);
    all.retain(|(_, _, network)| network.prefix_len() != 0);
    all.sort_by_key(|(_, _, network)| (network.network(), network.prefix_len()));
    let mut open: Vec<(usize, usize, IpNet)> = Vec::new();
    for (place, line, network) in all {
        open.retain(|(_, _, wider)| wider.contains(&network));
        if let Some((owner, other, wider)) = open.last()
            && *owner != place
            && *wider != network
        {
            findings.push(Finding::warning(
                line,
                format!(
                    "AllowedIPs: {network} lies in {wider} of the peer on line {other}: packets to \
                     it go to this peer"
                ),
            ));
        }
        open.push((place, line, network));
    }
}

fn about_addresses(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let networks = networks(subject.config);
    for address in &subject.config.interface.addresses {
        let host = IpNet::from(address.addr());
        if let Some((_, line, _)) = networks.iter().find(|(_, _, network)| *network == host) {
            let text = format!("AllowedIPs: {host} is the Address of this interface as well");
            findings.push(Finding::warning(*line, text));
        }
        let meets = |network: &IpNet| network.contains(address) || address.contains(network);
        let is_alone = address.prefix_len() == host.prefix_len();
        if !is_alone && !networks.is_empty() && !networks.iter().any(|(_, _, it)| meets(it)) {
            let network = address.trunc();
            let text = format!(
                "Address: no peer has an address of {network}: nobody there can be reached"
            );
            findings.push(Finding::about(Severity::Warning, Key::Address, address, text));
        }
    }
}

/// A route to an endpoint that leads into its own tunnel. Policy routing keeps the tunnel's own
/// packets out of a default route.
fn about_loops(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let networks = networks(subject.config);
    let is_main = match subject.table() {
        Table::Auto => false,
        Table::Number(number) => number == MAIN_TABLE,
        Table::Name(name) => name == "main",
        Table::Off => return,
    };
    let is_auto = subject.table() == Table::Auto;
    for (_, endpoint) in endpoints(subject.config) {
        let swallows = |network: &IpNet| {
            let is_looked_up = if network.prefix_len() == 0 { is_main } else { is_main || is_auto };
            is_looked_up && network.contains(&endpoint.ip())
        };
        if let Some((_, line, network)) = networks.iter().find(|(_, _, it)| swallows(it)) {
            let text = format!(
                "AllowedIPs: {network} contains the endpoint {endpoint}: its packets would go into \
                 the tunnel itself"
            );
            findings.push(Finding::warning(*line, text));
        }
    }
}

/// Peers that nothing leads to, above all one that is to get everything.
fn about_ways(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for (peer, endpoint) in endpoints(subject.config) {
        if subject.host.unreachable.contains(&endpoint) {
            let text = format!("Endpoint: no route of this host leads to {endpoint}");
            let line = default_route(peer).filter(|_| subject.table() != Table::Off);
            findings.push(match line {
                Some(line) => {
                    Finding::warning(line, format!("{text}, and everything is to go there"))
                }
                None => Finding::warning(peer.line, text),
            });
        }
    }
    if subject.table() == Table::Off {
        return;
    }
    for peer in subject.config.peers.iter().filter(|peer| peer.places().is_empty()) {
        let text = "AllowedIPs: everything is to go to a peer without Endpoint: nothing gets out \
                    before it has called";
        findings.extend(default_route(peer).map(|line| Finding::warning(line, text)));
    }
}

/// What the networks of clouds carry. [U-05]
const CLOUDS: [(&str, u32); 2] = [("Google Cloud", 1460), ("Azure", 1400)];

fn about_mtu(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let Some(mtu) = subject.config.interface.mtu.map(u32::from) else { return };
    let mut tell = |severity, text| {
        findings.push(Finding::about(severity, Key::Mtu, mtu, text));
    };
    for (endpoint, path) in &subject.host.paths {
        let (overhead, way) = match endpoint {
            Endpoint::Address(address) if address.is_ipv6() => (OVERHEAD, "path"),
            Endpoint::Address(_) => (OVERHEAD - 20, "path"),
            // By whichever family: what is too much for IPv4 is too much.
            Endpoint::Name { .. } => (OVERHEAD - 20, "default route"),
        };
        if mtu + overhead > *path {
            let fits = path.saturating_sub(overhead);
            tell(
                Severity::Warning,
                format!("MTU: {mtu} is more than the {fits} that fit the {way} to {endpoint}"),
            );
        }
    }
    let mut addresses = subject.config.interface.addresses.iter();
    if mtu < IPV6_MINIMUM_MTU && addresses.any(|address| matches!(address, IpNet::V6(_))) {
        let text = format!("MTU: below {IPV6_MINIMUM_MTU} the kernel takes IPv6 addresses away");
        tell(Severity::Warning, text);
    }
    for (cloud, path) in CLOUDS {
        if mtu + OVERHEAD > path {
            let fits = path - OVERHEAD;
            tell(
                Severity::Note,
                format!("MTU: {cloud} carries {path} bytes, {fits} inside a tunnel over IPv6"),
            );
        }
    }
    if mtu % 16 != 0 {
        let below = mtu - mtu % 16;
        tell(
            Severity::Note,
            format!(
                "MTU: {mtu} is no multiple of 16: the length of full packets is not hidden; {below} \
                 is one"
            ),
        );
    }
}

fn about_keepalive(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let has_port = subject.config.interface.listen_port.is_some_and(|port| port != 0);
    if !subject.host.is_behind_nat || has_port {
        return;
    }
    let is_silent =
        |peer: &&Peer| !peer.places().is_empty() && peer.persistent_keepalive.unwrap_or(0) == 0;
    let text = "[Peer]: this host is behind a NAT, and without PersistentKeepalive = 25 the peer \
                cannot reach it once it has been silent";
    let peers = subject.config.peers.iter().filter(is_silent);
    findings.extend(peers.map(|peer| Finding::warning(peer.line, text)));
}

/// Interfaces that hooks name: one that is not there, or one that does not lead outside. [U-24]
fn about_hooks(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let Surroundings { interfaces, uplink, .. } = subject.host;
    let leads = uplink.as_ref().map(|it| format!(" (the default route uses {it})"));
    let leads = leads.unwrap_or_default();
    let is_made =
        |name: &str| subject.hooks().any(|(_, it)| it.contains("link add") && it.contains(name));
    for (key, command) in subject.hooks() {
        for (option, name) in interfaces_in(command) {
            let is_there = interfaces.iter().any(|it| it == name);
            let is_way_out = option == "-o" || option == "oifname";
            let masquerades = command.to_ascii_lowercase().contains("masquerade");
            let text = if name == subject.interface || interfaces.is_empty() || is_made(name) {
                continue;
            } else if !is_there {
                format!("there is no interface {name} on this host{leads}")
            } else if !is_way_out || uplink.as_ref().is_none_or(|it| it == name) {
                continue;
            } else if masquerades {
                format!("masquerades on {name}{leads}")
            } else if name == "eth0" {
                format!("{name} is not the way out{leads}")
            } else {
                continue;
            };
            let text = format!("{}: {text}", key.name());
            findings.push(Finding::about(Severity::Warning, key, name, text));
        }
    }
}

/// Hooks that do what `Masquerade` does, and go on working. [U-24]
fn about_masquerading(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let masquerade = subject.config.interface.masquerade;
    let masquerade = masquerade.map_or(Masquerade::Off, |wanted| wanted.value);
    for (key, command) in subject.hooks() {
        let Some(word) = command.split_whitespace().find(|word| is_masquerade(word)) else {
            continue;
        };
        if matches!(key, Key::PreDown | Key::PostDown) {
            continue;
        }
        let name = key.name();
        let text = match masquerade {
            Masquerade::Off => format!(
                "{name}: `#hybridwg: Masquerade = auto` in place of the hooks that masquerade does \
                 the same without iptables, on whatever interface leads out, and is taken back \
                 whatever ends the tunnel"
            ),
            Masquerade::Auto | Masquerade::Nft => {
                format!("{name}: Masquerade does this already: the hook can go")
            }
            Masquerade::Flow => format!(
                "{name}: Masquerade = flow sends by sockets of this host, which the hook does nothing \
                 for: it can go"
            ),
        };
        findings.push(Finding::about(Severity::Note, key, word, text));
    }
}

/// As iptables and nft name it.
fn is_masquerade(word: &str) -> bool {
    word.trim_matches([';', '"', '\'', '}']).eq_ignore_ascii_case("masquerade")
}

/// An `AllowTo` that opens a metadata service by the way: who names it means it.
fn about_openings(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let Interface { allow_to, deny_to, .. } = &subject.config.interface;
    let holds = |rule: &At<Rule>, inner: &IpNet| matches!(rule.value.target, Target::Network(network) if network.contains(inner));
    for rule in allow_to {
        let services = BUILT_IN.iter().filter(|(_, denial)| *denial == Denial::Metadata);
        let opened = services.map(|(service, _)| service).find(|service| {
            rule.value.target != Target::Network(**service)
                && holds(rule, service)
                && !deny_to.iter().any(|deny| holds(deny, service))
        });
        if let Some(service) = opened {
            let (rule, line, address) = (rule.value, rule.line, service.addr());
            let text = format!(
                "AllowTo: {rule} opens {address} as well, the metadata service of a cloud: \
                 `DenyTo = {address}` closes it"
            );
            findings.push(Finding::warning(line, text));
        }
    }
}

/// The interfaces that a command names, each with the option before it.
fn interfaces_in(command: &str) -> impl Iterator<Item = (&str, &str)> {
    let split = |c: char| c.is_whitespace() || matches!(c, ';' | '"' | '\'');
    let words: Vec<&str> = command.split(split).filter(|word| !word.is_empty()).collect();
    let pairs: Vec<(&str, &str)> = words.windows(2).map(|pair| (pair[0], pair[1])).collect();
    pairs.into_iter().filter(|(option, name)| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        matches!(*option, "-i" | "-o" | "dev" | "iifname" | "oifname")
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(is_name)
    })
}

/// Who calls a service of this host is taken for somebody of this host.
fn about_local_services(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for At { line, value } in &subject.config.interface.ends.expose {
        if !value.target.is_local() || value.source.is_some() || value.proxy_v2 {
            continue;
        }
        let target = &value.target;
        let remedy = match target {
            ends::Target::At(_) => ": `source=127.77.0.1` lets it tell them apart",
            ends::Target::Unix(_) => "",
        };
        let text = format!(
            "Expose: {target} takes peers for callers of this host, and trusts them where it \
             trusts those (`trust` and `peer` in pg_hba.conf){remedy}"
        );
        findings.push(Finding::warning(*line, text));
    }
}

/// Names that nobody, or nobody in the tunnel, is asked for.
fn about_names(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let Interface { dns, ends, .. } = &subject.config.interface;
    let via = ends.resolve_via.map(|via| via.value).unwrap_or_default();
    let servers = dns.iter().filter_map(|it| match it.value {
        Dns::Server(address) => Some(address),
        Dns::SearchDomain(_) => None,
    });
    let servers: Vec<IpAddr> = servers.collect();
    let networks = networks(subject.config);
    let is_led_to =
        |server: &IpAddr| networks.iter().any(|(_, _, network)| network.contains(server));
    if via == ResolveVia::System || servers.iter().any(is_led_to) {
        return;
    }
    let what = match servers.is_empty() {
        true => "without a name server in DNS",
        false => "with no name server of DNS in the AllowedIPs of a peer",
    };
    let text =
        format!("{what}, names are refused: `ResolveVia = system` asks the resolver of this host");
    for forward in &ends.forward {
        if matches!(forward.value.to, Endpoint::Name { .. }) {
            findings.push(Finding::warning(forward.line, format!("Forward: {text}")));
        }
    }
    if let Some(proxy) = ends.proxies.first() {
        findings.push(Finding::new(Severity::Note, Some(proxy.line), text));
    }
}

/// Places in the tunnel that no peer has: whoever is led there is refused, and the listener tells nobody.
fn about_ends(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let Interface { ends, .. } = &subject.config.interface;
    if ends.mode.is_some_and(|mode| mode.value == Mode::Rootless)
        && subject.config.interface.lacks_address()
    {
        findings.push(Finding::new(Severity::Warning, None, NO_ADDRESS));
    }
    let networks = networks(subject.config);
    if networks.is_empty() {
        return;
    }
    let is_lost =
        |address: IpAddr| !networks.iter().any(|(.., it)| it.contains(&address.to_canonical()));
    let mut look = |line: usize, key: Key, address: IpAddr| {
        if is_lost(address) {
            let key = key.name();
            let text = format!(
                "{key}: no peer has {address} in its AllowedIPs: nobody will be reached there"
            );
            findings.push(Finding::warning(line, text));
        }
    };
    let forwards = ends.forward.iter().map(|it| (it.line, Key::Forward, &it.value.to));
    let stdio = ends.stdio.iter().map(|it| (it.line, Key::Stdio, &it.value));
    for (line, key, place) in forwards.chain(stdio) {
        if let Endpoint::Address(address) = place {
            look(line, key, address.ip());
        }
    }
    for At { line, value } in &ends.expose {
        let meets =
            |from: &IpNet| networks.iter().any(|(.., it)| it.contains(from) || from.contains(it));
        for from in value.from.iter().filter(|from| !meets(from)) {
            let text = format!("Expose: no peer has an address of {from}, which `from=` lets in");
            findings.push(Finding::warning(*line, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::parse;

    const ALICE: &str = "oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=";
    const BOB: &str = "sbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbE=";

    fn told(interface: &str, alice: &str, bob: &str, surroundings: &Surroundings) -> Vec<String> {
        let text = format!(
            "[Interface]\n{interface}\n[Peer]\nPublicKey = {ALICE}\n{alice}\n[Peer]\n\
             PublicKey = {BOB}\n{bob}\n"
        );
        let config = parse(&text, "t.conf").unwrap().config;
        let subject = Subject { config: &config, interface: "wg0", host: surroundings };
        all(&subject).into_iter().map(|finding| finding.text).collect()
    }

    fn alone(interface: &str, alice: &str) -> Vec<String> {
        told(interface, alice, "", &Surroundings::default())
    }

    #[test]
    fn a_network_within_that_of_another_peer_is_told_but_not_within_everything() {
        let found = told(
            "",
            "AllowedIPs = 10.0.0.0/8, 0.0.0.0/0\nEndpoint = a:1",
            "AllowedIPs = 10.1.0.0/16",
            &Surroundings::default(),
        );
        let text = "AllowedIPs: 10.1.0.0/16 lies in 10.0.0.0/8 of the peer on line 5: packets to it \
                    go to this peer";
        assert_eq!(found, [text]);
        assert!(alone("", "AllowedIPs = 10.0.0.0/8, 10.1.0.0/16").is_empty(), "its own");
    }

    #[test]
    fn an_address_that_a_peer_has_or_whose_network_no_peer_has_is_told() {
        assert_eq!(
            alone("Address = 10.0.0.1/24", "AllowedIPs = 10.0.0.1/32"),
            ["AllowedIPs: 10.0.0.1/32 is the Address of this interface as well"]
        );
        assert_eq!(
            alone("Address = 10.0.0.1/24", "AllowedIPs = 10.1.0.0/16"),
            ["Address: no peer has an address of 10.0.0.0/24: nobody there can be reached"]
        );
        assert!(
            alone("Address = 10.0.0.1/24, fd00::1", "AllowedIPs = 0.0.0.0/0\nEndpoint = a:1")
                .is_empty()
        );
    }

    #[test]
    fn a_route_that_swallows_the_endpoint_is_told_unless_policy_routing_or_nothing_routes() {
        let halves = "AllowedIPs = 0.0.0.0/1, 128.0.0.0/1\nEndpoint = 192.0.2.1:5";
        let text = "AllowedIPs: 128.0.0.0/1 contains the endpoint 192.0.2.1:5: its packets would go \
                    into the tunnel itself";
        assert_eq!(alone("", halves), [text]);
        assert!(alone("Table = off", halves).is_empty());
        assert!(alone("Table = 1234", halves).is_empty());
        let everything = "AllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.1:5";
        assert!(alone("", everything).is_empty());
        for main in ["Table = main", "Table = 254"] {
            assert_eq!(alone(main, everything), [text.replace("128.0.0.0/1", "0.0.0.0/0")]);
        }
    }

    #[test]
    fn everything_for_a_peer_that_nothing_leads_to_is_told() {
        let lost = Surroundings {
            unreachable: vec!["192.0.2.1:5".parse().unwrap()],
            ..Surroundings::default()
        };
        let text = "Endpoint: no route of this host leads to 192.0.2.1:5";
        let peer = |networks: &str| format!("AllowedIPs = {networks}\nEndpoint = 192.0.2.1:5");
        assert_eq!(told("", &peer("10.0.0.0/8"), "", &lost), [text]);
        let all = format!("{text}, and everything is to go there");
        assert_eq!(told("", &peer("0.0.0.0/0"), "", &lost), [all]);
        let waits = "AllowedIPs: everything is to go to a peer without Endpoint: nothing gets out \
                     before it has called";
        assert_eq!(alone("", "AllowedIPs = ::/0"), [waits]);
        assert!(alone("Table = off", "AllowedIPs = ::/0").is_empty());
    }

    #[test]
    fn u_23_the_own_key_that_stands_elsewhere_is_no_peer_either() {
        let key = crate::crypto::key::PrivateKey::from_bytes([0x18; 32]);
        let own = dh::public_key(&key).to_base64();
        let text =
            format!("[Interface]\n#hybridwg: PrivateKeyFile = k\n[Peer]\nPublicKey = {own}\n");
        let mut config = parse(&text, "t.conf").unwrap().config;
        config.interface.private_key = Some(key);
        let host = Surroundings::default();
        let findings = all(&Subject { config: &config, interface: "wg0", host: &host });
        let told: Vec<_> = findings.iter().map(|it| (it.line, &*it.text)).collect();
        assert_eq!(
            told,
            [(Some(3), "[Peer]: its PublicKey is that of this interface itself, which is no peer")]
        );
    }

    #[test]
    fn u_05_an_mtu_is_held_against_the_path_the_clouds_and_the_padding() {
        let address = Endpoint::Address("192.0.2.1:1".parse().unwrap());
        let path = Surroundings { paths: vec![(address, 1400)], ..Surroundings::default() };
        assert_eq!(
            told("MTU = 1390", "", "", &path),
            [
                "MTU: 1390 is more than the 1340 that fit the path to 192.0.2.1:1",
                "MTU: Google Cloud carries 1460 bytes, 1380 inside a tunnel over IPv6",
                "MTU: Azure carries 1400 bytes, 1320 inside a tunnel over IPv6",
                "MTU: 1390 is no multiple of 16: the length of full packets is not hidden; 1376 is one",
            ]
        );
        assert!(told("MTU = 1312", "", "", &path).is_empty());
        let name = Endpoint::Name { host: "hub.example".to_owned(), port: 5 };
        let path = Surroundings { paths: vec![(name, 1360)], ..Surroundings::default() };
        assert_eq!(
            told("MTU = 1312", "", "", &path),
            ["MTU: 1312 is more than the 1300 that fit the default route to hub.example:5"]
        );
        assert!(alone("MTU = 1264\nAddress = 10.0.0.1", "").is_empty());
        assert_eq!(
            alone("MTU = 1264\nAddress = fd00::1", ""),
            ["MTU: below 1280 the kernel takes IPv6 addresses away"]
        );
    }

    #[test]
    fn a_client_behind_a_nat_without_keepalive_is_told() {
        let nat = Surroundings { is_behind_nat: true, ..Surroundings::default() };
        let text = "[Peer]: this host is behind a NAT, and without PersistentKeepalive = 25 the peer \
                    cannot reach it once it has been silent";
        assert_eq!(told("", "Endpoint = a:1", "", &nat), [text]);
        assert!(told("", "Endpoint = a:1\nPersistentKeepalive = 25", "", &nat).is_empty());
        assert!(told("ListenPort = 5", "Endpoint = a:1", "", &nat).is_empty());
    }

    #[test]
    fn u_24_a_hook_that_names_an_interface_that_is_not_there_or_not_the_way_out_is_told() {
        let host = Surroundings {
            interfaces: ["lo", "ens5", "docker0", "eth0"].map(str::to_owned).to_vec(),
            uplink: Some("ens5".to_owned()),
            ..Surroundings::default()
        };
        let hook = |hook: &str| {
            let mut found = told(&format!("PostUp = {hook}"), "", "", &host);
            found.retain(|text| !text.contains("Masquerade = auto"));
            found
        };
        let masquerade = "iptables -t nat -A POSTROUTING -o";
        assert_eq!(
            hook(&format!("{masquerade} eth1 -j MASQUERADE")),
            ["PostUp: there is no interface eth1 on this host (the default route uses ens5)"]
        );
        let made = "ip link add eth1 type veth; ip address add 10.9.0.1/24 dev eth1";
        assert!(hook(made).is_empty(), "the hook makes it");
        assert_eq!(
            hook("iptables -A FORWARD -o eth0 -j ACCEPT"),
            ["PostUp: eth0 is not the way out (the default route uses ens5)"]
        );
        assert!(hook("iptables -A FORWARD -i eth0 -j ACCEPT").is_empty());
        assert_eq!(
            hook("nft add rule nat post oifname \"eth0\" masquerade"),
            ["PostUp: masquerades on eth0 (the default route uses ens5)"]
        );
        assert_eq!(
            hook(&format!("{masquerade} docker0 -j MASQUERADE")),
            ["PostUp: masquerades on docker0 (the default route uses ens5)"]
        );
        for fine in ["ens5", "%i", "wg0", "$IF", "eth+"] {
            assert!(hook(&format!("{masquerade} {fine} -j MASQUERADE")).is_empty(), "{fine}");
        }
    }

    #[test]
    fn u_24_a_hook_that_masquerades_is_offered_the_line_that_does_the_same() {
        let nat = "iptables -t nat -A POSTROUTING -o ens5 -j MASQUERADE";
        let text = "PostUp: `#hybridwg: Masquerade = auto` in place of the hooks that masquerade \
                    does the same without iptables, on whatever interface leads out, and is taken \
                    back whatever ends the tunnel";
        assert_eq!(alone(&format!("PostUp = {nat}\nPostDown = {nat}"), ""), [text]);
        assert_eq!(alone("PostUp = nft 'add rule ip n p masquerade; }'", ""), [text]);
        assert!(alone("PostUp = echo no masquerading", "").is_empty());
        assert_eq!(
            alone(&format!("Masquerade = nft\nPostUp = {nat}"), ""),
            ["PostUp: Masquerade does this already: the hook can go"]
        );
        assert_eq!(
            alone(&format!("Masquerade = flow\nPostUp = {nat}"), ""),
            [
                "PostUp: Masquerade = flow sends by sockets of this host, which the hook does nothing \
              for: it can go"
            ]
        );
    }

    #[test]
    fn an_allow_to_that_opens_a_metadata_service_by_the_way_is_told() {
        let rules = |rules: &str| alone(&format!("Masquerade = auto\n{rules}"), "");
        assert_eq!(
            rules("AllowTo = fd00::/8"),
            ["AllowTo: fd00::/8 opens fd00:ec2::254 as well, the metadata service of a cloud: \
              `DenyTo = fd00:ec2::254` closes it"]
        );
        for fine in [
            "AllowTo = 10.0.0.0/8",
            "AllowTo = 169.254.169.254:53",
            "AllowTo = 100.64.0.0/10\nDenyTo = 100.100.100.200",
        ] {
            assert!(rules(fine).is_empty(), "{fine}");
        }
    }

    #[test]
    fn a_service_that_takes_peers_for_callers_of_this_host_is_told() {
        assert_eq!(
            alone("Expose = 5432 127.0.0.1:5432", ""),
            [
                "Expose: 127.0.0.1:5432 takes peers for callers of this host, and trusts them where it \
              trusts those (`trust` and `peer` in pg_hba.conf): `source=127.77.0.1` lets it tell \
              them apart"
            ]
        );
        assert!(alone("Expose = 5432 unix:/s", "")[0].ends_with("in pg_hba.conf)"));
        for fine in ["127.0.0.1:1 source=127.77.0.1", "localhost:1 proxy=v2", "192.0.2.1:1"] {
            assert!(alone(&format!("Expose = 5432 {fine}"), "").is_empty(), "{fine}");
        }
    }

    #[test]
    fn names_that_nobody_is_asked_for_are_told() {
        let told = alone("Forward = 127.0.0.1:1 db.example:1", "");
        assert!(told[0].starts_with("Forward: without a name server in DNS,"), "{told:?}");
        assert_eq!(alone("Proxy = 127.0.0.1:1", "").len(), 1);
        let peer = "AllowedIPs = 10.0.0.0/24";
        let told = alone("Proxy = 127.0.0.1:1\nDNS = 10.0.1.53, lan", peer);
        assert!(told[0].starts_with("with no name server of DNS in the AllowedIPs"), "{told:?}");
        for fine in [
            "Forward = 127.0.0.1:1 10.0.0.1:1",
            "Proxy = 127.0.0.1:1\nResolveVia = system",
            "Socks5 = 127.0.0.1:1\nDNS = 10.0.0.53",
        ] {
            assert!(alone(fine, peer).is_empty(), "{fine}");
        }
    }

    #[test]
    fn ends_that_lead_where_no_peer_is_and_a_tunnel_without_any_address_are_told() {
        let networks = "AllowedIPs = 10.66.0.0/24\nEndpoint = a:1";
        let lost = |key: &str, address: &str| {
            format!("{key}: no peer has {address} in its AllowedIPs: nobody will be reached there")
        };
        for (lines, told) in [
            ("Forward = 127.0.0.1:1 10.99.0.1:1", lost("Forward", "10.99.0.1")),
            ("Stdio = [fd00::1]:22", lost("Stdio", "fd00::1")),
            (
                "Expose = 1 192.0.2.1:1 from=10.66.0.9,10.67.0.0/24",
                "Expose: no peer has an address of 10.67.0.0/24, which `from=` lets in".to_owned(),
            ),
            ("Mode = rootless", NO_ADDRESS.to_owned()),
        ] {
            assert_eq!(alone(lines, networks), [told], "{lines}");
        }
        for fine in [
            "Forward = 127.0.0.1:1 [::ffff:10.66.0.1]:1",
            "DNS = 1.1.1.1",
            "Expose = 1 192.0.2.1:1 from=10.0.0.0/8",
            "Mode = rootless\nMasquerade = flow",
        ] {
            assert!(alone(fine, networks).is_empty(), "{fine}: {:?}", alone(fine, networks));
        }
    }
}
