//! From the text of a value to its meaning.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::lex::Key;
use super::model::{Dns, Endpoint, Masquerade, Table};
use crate::flow::tuning::Tune;

pub(super) fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}

pub(super) fn number_of<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A decimal number with a leading zero is refused: `wg` would read it as octal.
pub(super) fn parse_fwmark(text: &str) -> Option<u32> {
    if text.eq_ignore_ascii_case("off") {
        return Some(0);
    }
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if digits.starts_with('+') => None,
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => None,
        None => number_of(text),
    }
}

pub(super) fn parse_table(text: &str) -> Option<Table> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if text.eq_ignore_ascii_case("auto") {
        Some(Table::Auto)
    } else if text.eq_ignore_ascii_case("off") {
        Some(Table::Off)
    } else if text.starts_with(|c: char| c.is_ascii_digit()) {
        number_of(text).filter(|number| *number != 0).map(Table::Number)
    } else {
        (!text.is_empty() && text.bytes().all(word)).then(|| Table::Name(text.to_owned()))
    }
}

pub(super) fn parse_truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

pub(super) fn parse_masquerade(text: &str) -> Option<Masquerade> {
    Masquerade::ALL.into_iter().find(|how| text.eq_ignore_ascii_case(how.name()))
}

/// A port of a certain number, so that others know it.
pub(super) fn parse_listen(text: &str) -> Option<SocketAddr> {
    let address = match text.strip_prefix("*:") {
        Some(port) => number_of(port).map(|port| (Ipv6Addr::UNSPECIFIED, port).into()),
        None => text.parse().ok(),
    };
    address.filter(|address: &SocketAddr| address.port() != 0)
}

/// The value of a key about flows.
pub(super) fn parse_tune(key: Key, text: &str) -> Option<Tune> {
    match key {
        Key::TcpCongestion => Tune::congestion(text),
        Key::UdpTimeout => Tune::udp_timeout(text),
        Key::UdpFilter => Tune::udp_filter(text),
        Key::MaxFlows => Tune::max_flows(text),
        _ => None,
    }
}

pub(super) fn is_probe(value: &str) -> bool {
    value.eq_ignore_ascii_case("probe")
}

pub(super) fn parse_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// An address with or without its prefix length, host bits kept.
pub fn parse_network(text: &str) -> Option<IpNet> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    match length {
        Some(length) => IpNet::new(address, number_of(length)?).ok(),
        None => Some(IpNet::from(address)),
    }
}

/// An entry of `DNS`. Digits and dots, or a colon, make a name server; everything else is a search domain.
pub fn parse_dns(word: &str) -> Option<Dns> {
    if word.contains(':') || word.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return word.parse().ok().map(Dns::Server);
    }
    is_host_name(word).then(|| Dns::SearchDomain(word.to_owned()))
}

/// More places than anybody has.
const MAX_ENDPOINTS: usize = 16;

pub(super) fn parse_endpoints(text: &str) -> Option<Vec<Endpoint>> {
    let mut endpoints = Vec::new();
    for word in words(text) {
        let endpoint = parse_endpoint(word)?;
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    (1..=MAX_ENDPOINTS).contains(&endpoints.len()).then_some(endpoints)
}

/// `HOST:PORT`, where an IPv6 address stands in brackets.
pub fn parse_endpoint(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = number_of(port)?;
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        if let Ok(address) = inside.parse::<Ipv6Addr>() {
            return Some(Endpoint::Address((address, port).into()));
        }
        let (address, interface) = inside.split_once('%')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let is_local = address.is_unicast_link_local();
        return (is_local && crate::control::uapi::is_interface_name(interface))
            .then(|| Endpoint::Name { host: inside.to_owned(), port });
    }
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => Some(Endpoint::Address((address, port).into())),
        // Without brackets nobody can tell where the address ends.
        Ok(IpAddr::V6(_)) => None,
        // What looks like an IPv4 address and is none shall not be asked of a name server.
        Err(_) if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') => None,
        Err(_) => is_host_name(host).then(|| Endpoint::Name { host: host.to_owned(), port }),
    }
}

/// A host that is named without its port: an address, without brackets, or a name.
pub fn parse_host(host: &str, port: u16) -> Option<Endpoint> {
    match host.parse::<IpAddr>() {
        Ok(address) => Some(Endpoint::Address((address, port).into())),
        Err(_) if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') => None,
        Err(_) => is_host_name(host).then(|| Endpoint::Name { host: host.to_owned(), port }),
    }
}

/// The characters that occur in names: letters beyond ASCII are left to the resolver.
fn is_host_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && !text.starts_with(['-', '.'])
        && !text.contains("..")
        && text.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
}
