//! The text of a change: `set=1`, device lines, peer blocks.
//!
//! The same change in the other direction, for our own client: `render` and the parser are
//! inverses. [UAPI]

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use zeroize::Zeroizing;

use super::{Errno, parse_endpoint, parse_network, parse_number};
use crate::control::command::{
    AllowedIpChange, Flows, Health, Inside, MtuPolicy, PeerUpdate, SetRequest,
};
use crate::control::config;
use crate::control::ends::Expose;
use crate::control::proxy;
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use crate::flow::policy::{self, Policy};
use crate::flow::tuning::{self, Tune};

/// A key of our own, which only our own client sends: a place where the peer may be, name or address.
/// Repeated, the best first.
const PLACE: &str = "hybridwg_place";

/// Another one, of the device: `on`, `off` or bytes.
const CLAMP_MSS: &str = "hybridwg_clamp_mss";

/// Two more, of the device: the name of a policy, and `true`.
const MTU: &str = "hybridwg_mtu";
const MEASURE: &str = "hybridwg_measure_paths";

/// And more, of the device: `on`, `own` for those to the tunnel's own addresses alone, or `off`; after
/// `on` and `own`, repeated, what `Expose` takes, where flows come from and where they may and may not
/// go; and after that what they are like.
const FLOWS: &str = "hybridwg_flows";
const FLOWS_EXPOSE: &str = "hybridwg_flows_expose";
const FLOWS_FROM: &str = "hybridwg_flows_from";
const FLOWS_ALLOW: &str = "hybridwg_flows_allow_to";
const FLOWS_DENY: &str = "hybridwg_flows_deny_to";
const FLOWS_CONGESTION: &str = "hybridwg_flows_tcp_congestion";
const FLOWS_UDP_TIMEOUT: &str = "hybridwg_flows_udp_timeout";
const FLOWS_UDP_FILTER: &str = "hybridwg_flows_udp_filter";
const FLOWS_MAX: &str = "hybridwg_flows_max";

/// And two: where HTTP is answered, or `off`; and after it, repeated, the keys of peers.
const HEALTH: &str = "hybridwg_health";
const HEALTH_REQUIRED: &str = "hybridwg_health_required";
/// And what an interface would have: bytes; and behind it, repeated, ADDRESS/LENGTH.
const INSIDE: &str = "hybridwg_inside_mtu";
const ADDRESS: &str = "hybridwg_address";

/// `true`.
const DRAIN: &str = "hybridwg_drain";

/// Collects the lines after `set=1` into one request.
#[derive(Debug, Default)]
pub struct SetParser {
    request: SetRequest,
}

type Refusal = (Errno, &'static str);

impl SetParser {
    /// Takes one line without its line end.
    ///
    /// # Errors
    /// [`Errno::PROTOCOL`] if there is no `=`, [`Errno::INVALID`] if the key is unknown at this
    /// place or the value is not one of its values. The parser must not be used any further.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let line =
            std::str::from_utf8(line).map_err(|_| (Errno::INVALID, "the line is not UTF-8"))?;
        let (key, value) = line.split_once('=').ok_or((Errno::PROTOCOL, "expected key=value"))?;
        if key == "public_key" {
            let public_key = PublicKey::from_hex(value)
                .map_err(|_| (Errno::INVALID, "public_key is not a key"))?;
            self.request.peers.push(PeerUpdate::new(public_key));
            return Ok(());
        }
        match self.request.peers.last_mut() {
            Some(peer) => peer_line(peer, key, value),
            None => device_line(&mut self.request, key, value),
        }
    }

    /// The request, once its empty line has been read.
    pub fn finish(self) -> SetRequest {
        self.request
    }
}

fn device_line(request: &mut SetRequest, key: &str, value: &str) -> Result<(), Refusal> {
    match key {
        "private_key" => {
            let private_key = PrivateKey::from_hex(value)
                .map_err(|_| (Errno::INVALID, "private_key is not a key"))?;
            request.private_key = Some((!private_key.is_zero()).then_some(private_key));
        }
        "listen_port" => {
            request.listen_port = Some(number(value, "listen_port is not 0 to 65535")?)
        }
        "fwmark" => request.fwmark = Some(number(value, "fwmark is not 0 to 4294967295")?),
        CLAMP_MSS => {
            let setting = value
                .parse()
                .map_err(|()| (Errno::INVALID, "hybridwg_clamp_mss is not on, off or bytes"))?;
            request.clamp_mss = Some(setting);
        }
        MTU => {
            let policy = MtuPolicy::ALL.into_iter().find(|policy| policy.name() == value);
            let policy =
                policy.ok_or((Errno::INVALID, "hybridwg_mtu is not fixed, auto or probe"))?;
            request.mtu_policy = Some(policy);
        }
        FLOWS => {
            request.flows = match value {
                "on" => Some(Some(Flows { carries: true, ..Flows::default() })),
                "own" => Some(Some(Flows::default())),
                "off" => Some(None),
                _ => return Err((Errno::INVALID, "hybridwg_flows is not on, own or off")),
            };
        }
        FLOWS_EXPOSE | FLOWS_FROM | FLOWS_ALLOW | FLOWS_DENY | FLOWS_CONGESTION
        | FLOWS_UDP_TIMEOUT | FLOWS_UDP_FILTER | FLOWS_MAX => flows_line(request, key, value)?,
        HEALTH | HEALTH_REQUIRED => health_line(request, key, value)?,
        INSIDE => {
            let mtu = number(value, "hybridwg_inside_mtu is not bytes")?;
            request.inside = Some(Inside { mtu, ..Inside::default() });
        }
        ADDRESS => inside_line(request, value)?,
        DRAIN => request.drain = Some(either(value, "hybridwg_drain is not true or false")?),
        MEASURE => request.measure_paths = truth(value, "hybridwg_measure_paths is not true")?,
        key if proxy::text::is_key(key) => {
            let read = proxy::text::line(&mut request.serve, key, value);
            read.map_err(|reason| (Errno::INVALID, reason))?;
        }
        "replace_peers" => request.replace_peers = truth(value, "replace_peers is not true")?,
        _ => return Err((Errno::INVALID, "unknown device key")),
    }
    Ok(())
}

fn flows_line(request: &mut SetRequest, key: &str, value: &str) -> Result<(), Refusal> {
    let Some(Some(flows)) = &mut request.flows else {
        return Err((Errno::INVALID, "what flows are like without hybridwg_flows before it"));
    };
    if key == FLOWS_EXPOSE {
        let expose = Expose::parse(value).map_err(|refused| (Errno::INVALID, refused.accepted))?;
        flows.expose.push(expose);
        return Ok(());
    }
    if key == FLOWS_FROM {
        let network = parse_network(value);
        flows.sources.push(network.ok_or((Errno::INVALID, "not ADDRESS/LENGTH"))?);
        return Ok(());
    }
    let tune = match key {
        FLOWS_CONGESTION => Some((Tune::congestion(value), tuning::CONGESTION_ACCEPTED)),
        FLOWS_UDP_TIMEOUT => Some((Tune::udp_timeout(value), tuning::UDP_TIMEOUT_ACCEPTED)),
        FLOWS_UDP_FILTER => Some((Tune::udp_filter(value), tuning::UDP_FILTER_ACCEPTED)),
        FLOWS_MAX => Some((Tune::max_flows(value), tuning::MAX_FLOWS_ACCEPTED)),
        _ => None,
    };
    if let Some((tune, accepted)) = tune {
        tune.ok_or((Errno::INVALID, accepted))?.apply(&mut flows.tuning);
        return Ok(());
    }
    let rule = value.parse().map_err(|_| (Errno::INVALID, policy::ACCEPTED))?;
    let Policy { allow_to, deny_to } = &mut flows.policy;
    if key == FLOWS_ALLOW {
        allow_to.push(rule)
    } else {
        deny_to.push(rule)
    }
    Ok(())
}

fn health_line(request: &mut SetRequest, key: &str, value: &str) -> Result<(), Refusal> {
    if key == HEALTH {
        let listen = match value {
            "off" => None,
            _ => Some(
                value
                    .parse()
                    .map_err(|_| (Errno::INVALID, "hybridwg_health is not IP:PORT or off"))?,
            ),
        };
        request.health = Some(Health { listen, required: BTreeSet::new() });
        return Ok(());
    }
    let Some(health) = &mut request.health else {
        return Err((Errno::INVALID, "hybridwg_health_required without hybridwg_health before it"));
    };
    let peer = PublicKey::from_hex(value);
    health.required.insert(peer.map_err(|_| (Errno::INVALID, "not a public key"))?);
    Ok(())
}

fn inside_line(request: &mut SetRequest, value: &str) -> Result<(), Refusal> {
    let Some(inside) = &mut request.inside else {
        return Err((Errno::INVALID, "an address without hybridwg_inside_mtu before it"));
    };
    let address = value.parse().map_err(|_| (Errno::INVALID, "not ADDRESS/LENGTH"))?;
    inside.addresses.push(address);
    Ok(())
}

fn peer_line(peer: &mut PeerUpdate, key: &str, value: &str) -> Result<(), Refusal> {
    match key {
        "update_only" => peer.update_only = truth(value, "update_only is not true")?,
        "remove" => peer.remove = truth(value, "remove is not true")?,
        "preshared_key" => {
            let preshared_key = PresharedKey::from_hex(value)
                .map_err(|_| (Errno::INVALID, "preshared_key is not a key"))?;
            peer.preshared_key = Some(preshared_key);
        }
        "endpoint" => {
            let endpoint = parse_endpoint(value)
                .ok_or((Errno::INVALID, "endpoint is not IP:PORT or [IPV6]:PORT"))?;
            peer.endpoint = Some(endpoint);
        }
        PLACE => {
            let place = config::parse_endpoint(value)
                .ok_or((Errno::INVALID, "hybridwg_place is not HOST:PORT"))?;
            peer.places.get_or_insert_default().push(place);
        }
        "persistent_keepalive_interval" => {
            let seconds = number(value, "persistent_keepalive_interval is not 0 to 65535")?;
            peer.persistent_keepalive = Some(seconds);
        }
        "replace_allowed_ips" => {
            peer.replace_allowed_ips = truth(value, "replace_allowed_ips is not true")?;
            // What came before it in this block is replaced as well.
            peer.allowed_ips.clear();
        }
        "allowed_ip" => {
            let change = parse_allowed_ip(value)
                .ok_or((Errno::INVALID, "allowed_ip is not [+|-]ADDRESS/LENGTH"))?;
            peer.allowed_ips.push(change);
        }
        "protocol_version" if value == "1" => {}
        "protocol_version" => return Err((Errno::INVALID, "protocol_version is not 1")),
        _ => return Err((Errno::INVALID, "unknown peer key")),
    }
    Ok(())
}

fn parse_allowed_ip(value: &str) -> Option<AllowedIpChange> {
    if let Some(network) = value.strip_prefix('-') {
        return parse_network(network).map(AllowedIpChange::Remove);
    }
    parse_network(value.strip_prefix('+').unwrap_or(value)).map(AllowedIpChange::Add)
}

fn truth(value: &str, reason: &'static str) -> Result<bool, Refusal> {
    if value == "true" { Ok(true) } else { Err((Errno::INVALID, reason)) }
}

fn either(value: &str, reason: &'static str) -> Result<bool, Refusal> {
    value.parse().map_err(|_| (Errno::INVALID, reason))
}

fn number<T: std::str::FromStr>(value: &str, reason: &'static str) -> Result<T, Refusal> {
    parse_number(value).ok_or((Errno::INVALID, reason))
}

/// The whole request as text, its empty line included. It holds keys and is wiped when dropped.
pub fn render(request: &SetRequest) -> Zeroizing<String> {
    let allowed_ips: usize = request.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
    // An upper bound, because growing would leave copies of keys behind.
    let mut text =
        Zeroizing::new(String::with_capacity(256 + 512 * request.peers.len() + 64 * allowed_ips));
    let written = write_request(&mut *text, request);
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
    text
}

fn write_request(out: &mut impl Write, request: &SetRequest) -> fmt::Result {
    out.write_str("set=1\n")?;
    if let Some(private_key) = &request.private_key {
        let key = private_key.as_ref().map_or_else(|| "0".repeat(64), PrivateKey::to_hex);
        writeln!(out, "private_key={}", *Zeroizing::new(key))?;
    }
    if let Some(port) = request.listen_port {
        writeln!(out, "listen_port={port}")?;
    }
    if let Some(mark) = request.fwmark {
        writeln!(out, "fwmark={mark}")?;
    }
    if let Some(setting) = request.clamp_mss {
        writeln!(out, "{CLAMP_MSS}={setting}")?;
    }
    if let Some(policy) = request.mtu_policy {
        writeln!(out, "{MTU}={}", policy.name())?;
    }
    match &request.flows {
        None => {}
        Some(None) => writeln!(out, "{FLOWS}=off")?,
        Some(Some(Flows { carries, expose, policy, sources, tuning })) => {
            writeln!(out, "{FLOWS}={}", if *carries { "on" } else { "own" })?;
            let Policy { allow_to, deny_to } = policy;
            expose.iter().try_for_each(|expose| writeln!(out, "{FLOWS_EXPOSE}={expose}"))?;
            sources.iter().try_for_each(|network| writeln!(out, "{FLOWS_FROM}={network}"))?;
            allow_to.iter().try_for_each(|rule| writeln!(out, "{FLOWS_ALLOW}={rule}"))?;
            deny_to.iter().try_for_each(|rule| writeln!(out, "{FLOWS_DENY}={rule}"))?;
            let keys = [FLOWS_CONGESTION, FLOWS_UDP_TIMEOUT, FLOWS_UDP_FILTER, FLOWS_MAX];
            let mut tunes = keys.into_iter().zip(tuning.tunes());
            tunes.try_for_each(|(key, tune)| writeln!(out, "{key}={tune}"))?;
        }
    }
    if let Some(Health { listen, required }) = &request.health {
        match listen {
            Some(address) => writeln!(out, "{HEALTH}={address}")?,
            None => writeln!(out, "{HEALTH}=off")?,
        }
        required.iter().try_for_each(|key| writeln!(out, "{HEALTH_REQUIRED}={}", key.to_hex()))?;
    }
    if let Some(Inside { addresses, mtu }) = &request.inside {
        writeln!(out, "{INSIDE}={mtu}")?;
        addresses.iter().try_for_each(|address| writeln!(out, "{ADDRESS}={address}"))?;
    }
    if let Some(drain) = request.drain {
        writeln!(out, "{DRAIN}={drain}")?;
    }
    if let Some(serve) = &request.serve {
        proxy::text::write(out, serve)?;
    }
    if request.measure_paths {
        writeln!(out, "{MEASURE}=true")?;
    }
    if request.replace_peers {
        out.write_str("replace_peers=true\n")?;
    }
    for peer in &request.peers {
        write_peer(out, peer)?;
    }
    out.write_char('\n')
}

fn write_peer(out: &mut impl Write, peer: &PeerUpdate) -> fmt::Result {
    writeln!(out, "public_key={}", peer.public_key.to_hex())?;
    if peer.update_only {
        out.write_str("update_only=true\n")?;
    }
    if peer.remove {
        out.write_str("remove=true\n")?;
    }
    if let Some(key) = &peer.preshared_key {
        writeln!(out, "preshared_key={}", *Zeroizing::new(key.to_hex()))?;
    }
    if let Some(endpoint) = peer.endpoint {
        writeln!(out, "endpoint={endpoint}")?;
    }
    for place in peer.places.iter().flatten() {
        writeln!(out, "{PLACE}={place}")?;
    }
    if let Some(seconds) = peer.persistent_keepalive {
        writeln!(out, "persistent_keepalive_interval={seconds}")?;
    }
    if peer.replace_allowed_ips {
        out.write_str("replace_allowed_ips=true\n")?;
    }
    for change in &peer.allowed_ips {
        match change {
            AllowedIpChange::Add(network) => writeln!(out, "allowed_ip={network}")?,
            AllowedIpChange::Remove(network) => writeln!(out, "allowed_ip=-{network}")?,
        }
    }
    Ok(())
}
