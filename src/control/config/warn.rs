//! What is legal as a whole and seldom meant.

use std::collections::HashMap;

use ipnet::IpNet;

use super::Warning;
use super::model::{Config, Interface, Masquerade};
use crate::control::command::AllowedIpChange;
use crate::crypto::dh;
use crate::crypto::key::PublicKey;

/// The warnings about a file without faults, in no order.
pub(super) fn about(config: &Config, file: &str) -> Vec<Warning> {
    let mut warnings = Vec::new();
    about_own_key(config, file, &mut warnings);
    about_shared_networks(config, file, &mut warnings);
    about_masquerading(config, file, &mut warnings);
    warnings
}

fn about_own_key(config: &Config, file: &str, warnings: &mut Vec<Warning>) {
    let interface = &config.interface;
    let Some(private_key) = interface.private_key.as_ref().filter(|key| !key.is_zero()) else {
        // A hook may set it, which keeps the key out of the file.
        let is_set_by_hook = !interface.pre_up.is_empty() || !interface.post_up.is_empty();
        if interface.private_key_file.is_none() && !is_set_by_hook {
            warnings.push(Warning {
                file: file.to_owned(),
                line: None,
                text: format!(
                    "`{file}' has no PrivateKey, and no PreUp or PostUp that could set one: the \
                     tunnel stays silent"
                ),
            });
        }
        return;
    };
    let public_key = dh::public_key(private_key);
    for peer in config.peers.iter().filter(|peer| peer.public_key == public_key) {
        warnings.push(Warning {
            file: file.to_owned(),
            line: Some(peer.line),
            text:
                "[Peer]: its PublicKey is that of this interface itself, which is no peer: it is \
                   left out"
                    .to_owned(),
        });
    }
}

/// A network moves silently to the last peer it is given to, which is seldom meant.
fn about_shared_networks(config: &Config, file: &str, warnings: &mut Vec<Warning>) {
    let mut owners: HashMap<IpNet, (PublicKey, usize)> = HashMap::new();
    let mut peers: HashMap<PublicKey, usize> = HashMap::new();
    for peer in &config.peers {
        if let Some(former) = peers.insert(peer.public_key, peer.line) {
            warnings.push(Warning {
                file: file.to_owned(),
                line: Some(peer.line),
                text: format!("[Peer]: this peer has a section on line {former} already"),
            });
        }
        for entry in peer.allowed_ips.iter().flatten() {
            let AllowedIpChange::Add(network) = entry.value else { continue };
            let former = owners.insert(network, (peer.public_key, entry.line));
            if let Some((owner, line)) = former
                && owner != peer.public_key
            {
                warnings.push(Warning {
                    file: file.to_owned(),
                    line: Some(entry.line),
                    text: format!(
                        "AllowedIPs: {network} moves here from the peer that has it on line {line}"
                    ),
                });
            }
        }
    }
}

/// Rules for peers whom nothing lets out are no firewall, which they could be taken for.
fn about_masquerading(config: &Config, file: &str, warnings: &mut Vec<Warning>) {
    let Interface { masquerade, masquerade_from, allow_to, deny_to, ends, .. } = &config.interface;
    if masquerade.is_some_and(|wanted| wanted.value != Masquerade::Off) {
        return;
    }
    let is_judged = ends.exposes_names();
    let lines = [
        ("MasqueradeFrom", masquerade_from.first().map(|network| network.line)),
        ("AllowTo", allow_to.first().map(|rule| rule.line).filter(|_| !is_judged)),
        ("DenyTo", deny_to.first().map(|rule| rule.line).filter(|_| !is_judged)),
    ];
    for (key, line) in lines.into_iter().filter(|(_, line)| line.is_some()) {
        let text = format!("{key}: holds with Masquerade alone, which is off: nothing is done");
        warnings.push(Warning { file: file.to_owned(), line, text });
    }
}
