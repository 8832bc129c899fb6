//! From [`Config`] back to text that this parser, `wg` and wg-quick read alike.

use std::fmt::{self, Write};

use zeroize::Zeroizing;

use super::lex::Key;
use super::model::{At, Config, Dns, Ends, Interface, Peer, Table};
use crate::control::command::AllowedIpChange;
use crate::control::ends::{Login, Proxy};

/// The whole file. It holds keys and is wiped when dropped.
pub fn render(config: &Config) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(4096 + 512 * config.peers.len()));
    let written = write_config(&mut *text, config);
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
    text
}

fn write_config(out: &mut impl Write, config: &Config) -> fmt::Result {
    write_interface(out, &config.interface)?;
    for peer in &config.peers {
        write_peer(out, peer)?;
    }
    Ok(())
}

fn write_interface(out: &mut impl Write, interface: &Interface) -> fmt::Result {
    out.write_str("[Interface]\n")?;
    if let Some(source) = &interface.private_key_file {
        writeln!(out, "#hybridwg: PrivateKeyFile = {}", source.value)?;
    } else if let Some(key) = &interface.private_key {
        writeln!(out, "PrivateKey = {}", *Zeroizing::new(key.to_base64()))?;
    }
    if let Some(port) = interface.listen_port {
        writeln!(out, "ListenPort = {port}")?;
    }
    match interface.fwmark {
        Some(0) => out.write_str("FwMark = off\n")?,
        Some(mark) => writeln!(out, "FwMark = {mark:#x}")?,
        None => {}
    }
    if let Some(mask) = interface.fwmark_mask {
        writeln!(out, "#hybridwg: FwMarkMask = {:#x}", mask.value)?;
    }
    if let Some(switch) = interface.kill_switch {
        let value = if switch.value { "on" } else { "off" };
        writeln!(out, "#hybridwg: KillSwitch = {value}")?;
    }
    if let Some(address) = interface.health {
        writeln!(out, "#hybridwg: Health = {}", address.value)?;
    }
    if let Some(endpoint) = &interface.public_endpoint {
        writeln!(out, "#hybridwg: PublicEndpoint = {endpoint}")?;
    }
    for address in &interface.addresses {
        writeln!(out, "Address = {address}")?;
    }
    for dns in &interface.dns {
        match &dns.value {
            Dns::Server(address) => writeln!(out, "DNS = {address}")?,
            Dns::SearchDomain(domain) => writeln!(out, "DNS = {domain}")?,
        }
    }
    if let Some(switch) = interface.require_dns {
        let value = if switch.value { "on" } else { "off" };
        writeln!(out, "#hybridwg: RequireDNS = {value}")?;
    }
    if interface.mtu_probe {
        out.write_str("#hybridwg: MTU = probe\n")?;
    }
    if let Some(mtu) = interface.mtu {
        writeln!(out, "MTU = {mtu}")?;
    }
    if let Some(setting) = interface.clamp_mss {
        writeln!(out, "#hybridwg: ClampMSS = {setting}")?;
    }
    write_masquerade(out, interface)?;
    write_ends(out, &interface.ends)?;
    match interface.table.as_ref().map(|table| &table.value) {
        Some(Table::Auto) => out.write_str("Table = auto\n")?,
        Some(Table::Off) => out.write_str("Table = off\n")?,
        Some(Table::Number(number)) => writeln!(out, "Table = {number}")?,
        Some(Table::Name(name)) => writeln!(out, "Table = {name}")?,
        None => {}
    }
    if let Some(save) = interface.save_config {
        writeln!(out, "SaveConfig = {}", save.value)?;
    }
    let hooks = [
        ("PreUp", &interface.pre_up),
        ("PostUp", &interface.post_up),
        ("PreDown", &interface.pre_down),
        ("PostDown", &interface.post_down),
    ];
    for (key, commands) in hooks {
        for command in commands {
            writeln!(out, "{key} = {command}")?;
        }
    }
    Ok(())
}

fn write_masquerade(out: &mut impl Write, interface: &Interface) -> fmt::Result {
    if let Some(how) = interface.masquerade {
        writeln!(out, "#hybridwg: Masquerade = {}", how.value.name())?;
    }
    for network in &interface.masquerade_from {
        writeln!(out, "#hybridwg: MasqueradeFrom = {}", network.value)?;
    }
    for (key, rules) in [(Key::AllowTo, &interface.allow_to), (Key::DenyTo, &interface.deny_to)] {
        for rule in rules {
            writeln!(out, "#hybridwg: {} = {}", key.name(), rule.value)?;
        }
    }
    for At { value: (key, tune), .. } in &interface.tunes {
        writeln!(out, "#hybridwg: {} = {tune}", key.name())?;
    }
    Ok(())
}

fn write_ends(out: &mut impl Write, ends: &Ends) -> fmt::Result {
    if let Some(mode) = ends.mode {
        writeln!(out, "#hybridwg: Mode = {}", mode.value.name())?;
    }
    for expose in &ends.expose {
        writeln!(out, "#hybridwg: Expose = {}", expose.value)?;
    }
    for forward in &ends.forward {
        writeln!(out, "#hybridwg: Forward = {}", forward.value)?;
    }
    for proxy in &ends.proxies {
        write_proxy(out, &proxy.value)?;
    }
    if let Some(via) = ends.resolve_via {
        writeln!(out, "#hybridwg: ResolveVia = {}", via.value.name())?;
    }
    match &ends.stdio {
        Some(place) => writeln!(out, "#hybridwg: Stdio = {}", place.value),
        None => Ok(()),
    }
}

fn write_proxy(out: &mut impl Write, proxy: &Proxy) -> fmt::Result {
    let key = Key::of_proxy(proxy.kind).name();
    write!(out, "#hybridwg: {key} = {}", proxy.listen)?;
    if let Some(Login { user, passfile, password }) = &proxy.login {
        write!(out, " user={user}")?;
        match (passfile, password) {
            (Some(source), _) => write!(out, " passfile={source}")?,
            (None, Some(password)) => write!(out, " password={}", password.as_text())?,
            (None, None) => {}
        }
    }
    out.write_str(if proxy.open { " open=yes\n" } else { "\n" })
}

/// One section, with a blank line before it.
pub(super) fn write_peer(out: &mut impl Write, peer: &Peer) -> fmt::Result {
    writeln!(out, "\n[Peer]\nPublicKey = {}", peer.public_key.to_base64())?;
    if let Some(source) = &peer.preshared_key_file {
        writeln!(out, "#hybridwg: PresharedKeyFile = {}", source.value)?;
    } else if let Some(key) = &peer.preshared_key {
        writeln!(out, "PresharedKey = {}", *Zeroizing::new(key.to_base64()))?;
    }
    if let Some(allowed_ips) = &peer.allowed_ips {
        out.write_str("AllowedIPs =")?;
        let mut separator = " ";
        for entry in allowed_ips {
            match entry.value {
                AllowedIpChange::Remove(network) => write!(out, "{separator}-{network}")?,
                AllowedIpChange::Add(network) if peer.incremental => {
                    write!(out, "{separator}+{network}")?;
                }
                AllowedIpChange::Add(network) => write!(out, "{separator}{network}")?,
            }
            separator = ", ";
        }
        out.write_char('\n')?;
    }
    if let Some(endpoint) = &peer.endpoint {
        writeln!(out, "Endpoint = {endpoint}")?;
    }
    if !peer.endpoints.is_empty() {
        let list: Vec<String> = peer.endpoints.iter().map(ToString::to_string).collect();
        writeln!(out, "#hybridwg: Endpoints = {}", list.join(", "))?;
    }
    if let Some(required) = peer.required {
        let value = if required { "on" } else { "off" };
        writeln!(out, "#hybridwg: Required = {value}")?;
    }
    match peer.persistent_keepalive {
        Some(0) => out.write_str("PersistentKeepalive = off\n"),
        Some(seconds) => writeln!(out, "PersistentKeepalive = {seconds}"),
        None => Ok(()),
    }
}
