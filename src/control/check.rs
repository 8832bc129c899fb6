//! What is wrong or odd about a configuration file, on the host that reads it.
//!
//! Judges without changing anything and without rights beyond reading the file. The judgement is
//! pure: the [`Surroundings`] are gathered first. Faults keep `up` from working, warnings are seldom
//! meant, notes are worth knowing.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::Path;

use ipnet::IpNet;

use crate::control::command::AllowedIpChange;
use crate::control::config::{
    self, Config, ConfigError, Endpoint, LoadError, Located, Problem, Read, Table, Written,
};
use crate::control::netlink::{Netlink, NetlinkError};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Note,
    Warning,
    Fault,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// Counted from 1; `None` if it is about the file as a whole.
    pub line: Option<usize>,
    pub text: String,
    /// The part of the line that it is about, if not its value.
    pub mark: Option<String>,
}

/// What the host is like, as far as a file can be judged by it.
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
}

/// Everything there is to say about a file, in the order of its lines.
///
/// # Errors
/// The file cannot be read.
pub fn check(located: &Located) -> Result<Vec<Finding>, LoadError> {
    let mut findings = Vec::new();
    match config::load(&located.path) {
        Err(LoadError::Faulty { errors, .. }) => findings.extend(errors.into_iter().map(|error| {
            let prefix = format!("{}:{}: ", error.file, error.line);
            let text = error.to_string();
            let text = text.strip_prefix(&prefix).unwrap_or(&text).to_owned();
            let mark = mark_of(&error);
            Finding { severity: Severity::Fault, line: Some(error.line), text, mark }
        })),
        Err(error) => return Err(error),
        Ok(Written { mut config, warnings }) => {
            findings.extend(warnings.into_iter().map(|it| warning(it.line, it.text().to_owned())));
            findings.extend(about_keys(&mut config, &located.path));
            let surroundings = surroundings(&config).unwrap_or_default();
            findings.extend(judge(&config, &located.interface, &surroundings));
        }
    }
    findings.sort_by_key(|finding| finding.line);
    Ok(findings)
}

fn mark_of(error: &ConfigError) -> Option<String> {
    match &error.problem {
        Problem::BadValue { read: Read::Text(text), .. }
        | Problem::UnknownKey { read: Read::Text(text), .. }
        | Problem::UnknownSection { read: Read::Text(text), .. } => Some(text.clone()),
        _ => None,
    }
}

/// Keys that stand elsewhere. A file that only root may read says nothing to others.
fn about_keys(config: &mut Config, path: &Path) -> Vec<Finding> {
    let errors = config::fetch_keys(config, path).err().unwrap_or_default();
    let is_denied = |problem: &config::SecretProblem| {
        matches!(problem, config::SecretProblem::Unreadable { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied)
    };
    let finding = |error: config::SecretError| Finding {
        severity: if is_denied(&error.problem) { Severity::Note } else { Severity::Fault },
        line: Some(error.line),
        text: format!("{}: {}", error.key.name(), error.problem),
        mark: None,
    };
    errors.into_iter().map(finding).collect()
}

fn surroundings(config: &Config) -> Result<Surroundings, NetlinkError> {
    let mut netlink = Netlink::new();
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let routes = netlink.routes()?;
    let default = routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0)
        .min_by_key(|route| (route.destination.addr().is_ipv6(), route.metric));
    let uplink = match default.and_then(|route| route.interface) {
        Some(index) => netlink.link_by_index(index)?.map(|link| link.name),
        None => None,
    };
    let addresses = netlink.local_addresses()?;
    let mut v4 = addresses.iter().filter(|it| it.is_ipv4() && !it.is_loopback()).peekable();
    let is_behind_nat = v4.peek().is_some() && v4.all(|address| is_private(*address));
    let mut paths = Vec::new();
    for peer in &config.peers {
        if let Some(Endpoint::Address(address)) = peer.endpoint
            && let Some(path) = netlink.path_to(address.ip())?
        {
            let link = netlink.link_by_index(path.interface)?;
            paths.extend(path.mtu.or(link.map(|link| link.mtu)).map(|mtu| (address, mtu)));
        }
    }
    Ok(Surroundings {
        interfaces: interfaces.filter_map(|it| it.file_name().into_string().ok()).collect(),
        uplink,
        is_behind_nat,
        paths,
    })
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

/// What a file without faults can still be told.
fn judge(config: &Config, interface: &str, surroundings: &Surroundings) -> Vec<Finding> {
    let mut findings = Vec::new();
    about_overlaps(config, &mut findings);
    about_addresses(config, &mut findings);
    about_loops(config, &mut findings);
    about_mtu(config, surroundings, &mut findings);
    about_keepalive(config, surroundings, &mut findings);
    about_hooks(config, interface, surroundings, &mut findings);
    findings
}

fn warning(line: impl Into<Option<usize>>, text: String) -> Finding {
    Finding { severity: Severity::Warning, line: line.into(), text, mark: None }
}

fn note(text: String) -> Finding {
    Finding { severity: Severity::Note, line: None, text, mark: None }
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

/// A network within another peer's is legal: the longer prefix decides. Sorted by address, with the
/// wider one first, whatever contains a network is among those that are open when it comes.
fn about_overlaps(config: &Config, findings: &mut Vec<Finding>) {
    let mut all = networks(config);
    all.retain(|(_, _, network)| network.prefix_len() != 0);
    all.sort_by_key(|(_, _, network)| (network.network(), network.prefix_len()));
    let mut open: Vec<(usize, usize, IpNet)> = Vec::new();
    for (place, line, network) in all {
        open.retain(|(_, _, wider)| wider.contains(&network));
        if let Some((owner, other, wider)) = open.last()
            && *owner != place
            && *wider != network
        {
            findings.push(warning(
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

fn about_addresses(config: &Config, findings: &mut Vec<Finding>) {
    let networks = networks(config);
    for address in &config.interface.addresses {
        let host = IpNet::from(address.addr());
        if let Some((_, line, _)) = networks.iter().find(|(_, _, network)| *network == host) {
            let text = format!("AllowedIPs: {host} is the Address of this interface as well");
            findings.push(warning(*line, text));
        }
        let meets = |network: &IpNet| network.contains(address) || address.contains(network);
        let is_alone = address.prefix_len() == host.prefix_len();
        if !is_alone && !networks.is_empty() && !networks.iter().any(|(_, _, it)| meets(it)) {
            findings.push(warning(
                None,
                format!(
                    "Address: no peer has an address of {}: nobody there can be reached",
                    address.trunc()
                ),
            ));
        }
    }
}

/// A route to an endpoint that leads into its own tunnel.
fn about_loops(config: &Config, findings: &mut Vec<Finding>) {
    let table = config.interface.table.as_ref().map(|table| &table.value);
    if matches!(table, Some(Table::Off)) {
        return;
    }
    let networks = networks(config);
    for peer in &config.peers {
        let Some(Endpoint::Address(endpoint)) = &peer.endpoint else { continue };
        let is_way = |network: &IpNet| network.contains(&endpoint.ip());
        let is_auto = matches!(table, None | Some(Table::Auto));
        // Policy routing keeps the tunnel's own packets out of a default route.
        let leads_there = |network: &IpNet| is_way(network) && network.prefix_len() != 0;
        let way = networks.iter().find(|(_, _, network)| is_auto && leads_there(network));
        if let Some((_, line, network)) = way {
            findings.push(warning(
                *line,
                format!(
                    "AllowedIPs: {network} contains the endpoint {endpoint}: its packets would go \
                     into the tunnel itself"
                ),
            ));
        }
    }
}

/// Bytes around a packet inside: IPv6, UDP and WireGuard's own.
const OVERHEAD: u32 = 80;

fn about_mtu(config: &Config, surroundings: &Surroundings, findings: &mut Vec<Finding>) {
    let Some(mtu) = config.interface.mtu.map(u32::from) else { return };
    for (endpoint, path) in &surroundings.paths {
        let overhead = if endpoint.is_ipv4() { OVERHEAD - 20 } else { OVERHEAD };
        if mtu + overhead > *path {
            let fits = path.saturating_sub(overhead);
            let text =
                format!("MTU: {mtu} is more than the {fits} that fit the path to {endpoint}");
            findings.push(warning(None, text));
        }
    }
    for (cloud, path) in [("Google Cloud", 1460), ("Azure", 1400)] {
        if mtu + OVERHEAD > path {
            let fits = path - OVERHEAD;
            let text =
                format!("MTU: {cloud} carries {path} bytes, {fits} inside a tunnel over IPv6");
            findings.push(note(text));
        }
    }
    if mtu % 16 != 0 {
        let below = mtu - mtu % 16;
        findings.push(note(format!(
            "MTU: {mtu} is no multiple of 16: the length of full packets is not hidden; {below} is one"
        )));
    }
}

fn about_keepalive(config: &Config, surroundings: &Surroundings, findings: &mut Vec<Finding>) {
    if !surroundings.is_behind_nat || config.interface.listen_port.is_some_and(|port| port != 0) {
        return;
    }
    for peer in config.peers.iter().filter(|peer| peer.endpoint.is_some()) {
        if peer.persistent_keepalive.unwrap_or(0) == 0 {
            findings.push(warning(
                peer.line,
                "[Peer]: this host is behind a NAT, and without PersistentKeepalive = 25 the peer \
                 cannot reach it once it has been silent"
                    .to_owned(),
            ));
        }
    }
}

/// Interfaces that hooks name: one that is not there, or one that does not lead outside.
fn about_hooks(
    config: &Config,
    interface: &str,
    surroundings: &Surroundings,
    findings: &mut Vec<Finding>,
) {
    let settings = &config.interface;
    let hooks = [
        ("PreUp", &settings.pre_up),
        ("PostUp", &settings.post_up),
        ("PreDown", &settings.pre_down),
        ("PostDown", &settings.post_down),
    ];
    for (key, command) in
        hooks.iter().flat_map(|(key, hooks)| hooks.iter().map(move |it| (key, it)))
    {
        for (option, name) in interfaces_in(command).filter(|(_, name)| *name != interface) {
            let uplink = surroundings.uplink.as_deref();
            let is_there = surroundings.interfaces.iter().any(|it| it == name);
            let leads =
                uplink.map(|it| format!(" (the default route uses {it})")).unwrap_or_default();
            if !is_there && !surroundings.interfaces.is_empty() {
                let text = format!("{key}: there is no interface {name} on this host{leads}");
                findings.push(warning(None, text));
            } else if option == "-o"
                && command.contains("MASQUERADE")
                && uplink.is_some_and(|it| it != name)
            {
                findings.push(warning(None, format!("{key}: masquerades on {name}{leads}")));
            }
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

/// A line as it may be shown, and the characters of it that a fault is about. What could be a key is
/// hidden.
pub fn excerpt(line: &str, mark: Option<&str>) -> (String, Range<usize>) {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
    let mut shown = String::new();
    let mut rest = line.trim_end();
    while let Some(start) = rest.find(is_base64) {
        let length = rest[start..].find(|c| !is_base64(c)).unwrap_or(rest.len() - start);
        let word = &rest[start..start + length];
        shown.push_str(&rest[..start]);
        shown.push_str(if length >= SUSPICIOUS { "(hidden)" } else { word });
        rest = &rest[start + length..];
    }
    shown.push_str(rest);
    let shown = shown.replace('\t', " ").replace(char::is_control, "?");
    let code = shown.split('#').next().filter(|code| !code.trim().is_empty()).unwrap_or(&shown);
    let value = code.split_once('=').map_or(code, |(_, value)| value);
    let marked = mark.filter(|mark| code.contains(mark)).unwrap_or(value.trim());
    let marked = if marked.is_empty() { code.trim() } else { marked };
    let start = code.rfind(marked).unwrap_or(0);
    let columns = |text: &str| text.chars().count();
    let first = columns(&shown[..start]);
    let range = first..first + columns(marked);
    (shown, range)
}

/// A key has 43 characters; what is left of a damaged one is not shown either.
const SUSPICIOUS: usize = 30;

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
        judge(&config, "wg0", surroundings).into_iter().map(|finding| finding.text).collect()
    }

    fn alone(interface: &str, alice: &str) -> Vec<String> {
        told(interface, alice, "", &Surroundings::default())
    }

    #[test]
    fn a_network_within_that_of_another_peer_is_told_but_not_within_everything() {
        let found = told(
            "",
            "AllowedIPs = 10.0.0.0/8, 0.0.0.0/0",
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
        assert!(alone("Address = 10.0.0.1/24, fd00::1", "AllowedIPs = 0.0.0.0/0").is_empty());
    }

    #[test]
    fn a_route_that_swallows_the_endpoint_is_told_unless_policy_routing_or_nothing_routes() {
        let halves = "AllowedIPs = 0.0.0.0/1, 128.0.0.0/1\nEndpoint = 192.0.2.1:5";
        let text = "AllowedIPs: 128.0.0.0/1 contains the endpoint 192.0.2.1:5: its packets would go \
                    into the tunnel itself";
        assert_eq!(alone("", halves), [text]);
        assert!(alone("Table = off", halves).is_empty());
        assert!(alone("", "AllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.1:5").is_empty());
    }

    #[test]
    fn u_05_an_mtu_is_held_against_the_path_the_clouds_and_the_padding() {
        let path = Surroundings {
            paths: vec![("192.0.2.1:1".parse().unwrap(), 1400)],
            ..Surroundings::default()
        };
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
    }

    #[test]
    fn a_client_behind_a_nat_without_keepalive_is_told() {
        let nat = Surroundings { is_behind_nat: true, ..Surroundings::default() };
        let text = "[Peer]: this host is behind a NAT, and without PersistentKeepalive = 25 the peer \
                    cannot reach it once it has been silent";
        assert_eq!(told("", "Endpoint = a:1", "", &nat), [text]);
        assert!(told("", "Endpoint = a:1\nPersistentKeepalive = 25", "", &nat).is_empty());
        assert!(told("ListenPort = 5", "Endpoint = a:1", "", &nat).is_empty());
        assert!(
            is_private("100.64.0.1".parse().unwrap())
                && !is_private("100.128.0.1".parse().unwrap())
        );
    }

    #[test]
    fn u_24_a_hook_that_names_an_interface_that_is_not_there_or_not_the_way_out_is_told() {
        let host = Surroundings {
            interfaces: ["lo", "ens5", "docker0"].map(str::to_owned).to_vec(),
            uplink: Some("ens5".to_owned()),
            ..Surroundings::default()
        };
        let hook = |hook: &str| told(&format!("PostUp = {hook}"), "", "", &host);
        let masquerade = "iptables -t nat -A POSTROUTING -o";
        assert_eq!(
            hook(&format!("{masquerade} eth0 -j MASQUERADE")),
            ["PostUp: there is no interface eth0 on this host (the default route uses ens5)"]
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
    fn an_excerpt_marks_what_was_read_and_hides_what_could_be_a_key() {
        let marked = |line: &str, mark: Option<&str>| {
            let (shown, range) = excerpt(line, mark);
            let marked: String = shown.chars().skip(range.start).take(range.len()).collect();
            (shown, marked)
        };
        let show = |line: &str, mark| {
            let (shown, marked) = marked(line, mark);
            format!("{shown}|{marked}")
        };
        assert_eq!(show("MTU = big # x", None), "MTU = big # x|big");
        assert_eq!(show("DNS = 1.1.1.1, ü.x", Some("1.1.1.1")), "DNS = 1.1.1.1, ü.x|1.1.1.1");
        assert_eq!(show("Mtuu = 5", Some("Mtuu")), "Mtuu = 5|Mtuu");
        assert_eq!(
            show(&format!("PrivateKey = {ALICE}x"), None),
            "PrivateKey = (hidden)=x|(hidden)=x"
        );
        assert_eq!(show("[Peer", None), "[Peer|[Peer");
        assert_eq!(show("#hybridwg: MTU = 5", None), "#hybridwg: MTU = 5|5");
        assert_eq!(show("MTU =", None), "MTU =|MTU =");
    }
}
