//! The tab-separated text for scripts: the form of wg(8), byte for byte.

use std::fmt::{self, Write};

use zeroize::Zeroizing;

use super::{Shown, Text, handshake_seconds};
use crate::cli::args::Parameter;
use crate::control::command::PeerSnapshot;
use crate::control::resolve::endpoint_text;
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};

const NONE: &str = "(none)";

/// One parameter of all devices; `named` puts the interface before every line.
///
/// `wg show all endpoints` names the interface before the first line of each only. That is
/// followed, because scripts have been written around it.
pub(super) fn render(shown: &[Shown], parameter: Parameter, named: bool) -> Text {
    let mut text = Zeroizing::new(String::with_capacity(4096));
    for device in shown {
        let prefix = if named { format!("{}\t", device.interface) } else { String::new() };
        let written = write_device(&mut *text, device, parameter, &prefix);
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    text
}

fn write_device(
    out: &mut impl Write,
    shown: &Shown,
    parameter: Parameter,
    prefix: &str,
) -> fmt::Result {
    let device = &shown.device;
    let private_key = || {
        let key = device.private_key.as_ref().map(PrivateKey::to_base64);
        Zeroizing::new(key.unwrap_or_else(|| NONE.to_owned()))
    };
    let public_key = || shown.public_key().map_or_else(|| NONE.to_owned(), PublicKey::to_base64);
    let fwmark = || match device.fwmark {
        0 => "off".to_owned(),
        mark => format!("{mark:#x}"),
    };
    let column: fn(&PeerSnapshot) -> Text = match parameter {
        Parameter::PublicKey => return writeln!(out, "{prefix}{}", public_key()),
        Parameter::PrivateKey => return writeln!(out, "{prefix}{}", *private_key()),
        Parameter::ListenPort => return writeln!(out, "{prefix}{}", device.listen_port),
        Parameter::Fwmark => return writeln!(out, "{prefix}{}", fwmark()),
        Parameter::Peers => {
            let mut keys = device.peers.iter().map(|peer| peer.public_key.to_base64());
            return keys.try_for_each(|key| writeln!(out, "{prefix}{key}"));
        }
        Parameter::Dump => {
            let (port, mark) = (device.listen_port, fwmark());
            writeln!(out, "{prefix}{}\t{}\t{port}\t{mark}", *private_key(), public_key())?;
            dump
        }
        Parameter::PresharedKeys => preshared_key,
        Parameter::Endpoints => |peer| Zeroizing::new(endpoint(peer)),
        Parameter::AllowedIps => |peer| Zeroizing::new(allowed_ips(peer, " ")),
        Parameter::LatestHandshakes => {
            |peer| Zeroizing::new(handshake_seconds(peer.last_handshake).to_string())
        }
        Parameter::Transfer => {
            |peer| Zeroizing::new(format!("{}\t{}", peer.rx_bytes, peer.tx_bytes))
        }
        Parameter::PersistentKeepalive => |peer| Zeroizing::new(keepalive(peer)),
    };
    for (index, peer) in device.peers.iter().enumerate() {
        let is_bare = parameter == Parameter::Endpoints && index > 0;
        let prefix = if is_bare { "" } else { prefix };
        writeln!(out, "{prefix}{}\t{}", peer.public_key.to_base64(), *column(peer))?;
    }
    Ok(())
}

fn dump(peer: &PeerSnapshot) -> Text {
    Zeroizing::new(format!(
        "{}\t{}\t{}\t{}\t{}\t{}\t{}",
        *preshared_key(peer),
        endpoint(peer),
        allowed_ips(peer, ","),
        handshake_seconds(peer.last_handshake),
        peer.rx_bytes,
        peer.tx_bytes,
        keepalive(peer)
    ))
}

fn preshared_key(peer: &PeerSnapshot) -> Text {
    Zeroizing::new(match &peer.preshared_key {
        key if *key == PresharedKey::NONE => NONE.to_owned(),
        key => key.to_base64(),
    })
}

fn endpoint(peer: &PeerSnapshot) -> String {
    peer.endpoint.map_or_else(|| NONE.to_owned(), endpoint_text)
}

fn allowed_ips(peer: &PeerSnapshot, separator: &str) -> String {
    if peer.allowed_ips.is_empty() {
        return NONE.to_owned();
    }
    let networks: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    networks.join(separator)
}

fn keepalive(peer: &PeerSnapshot) -> String {
    match peer.persistent_keepalive {
        0 => "off".to_owned(),
        seconds => seconds.to_string(),
    }
}
