//! The state as JSON, for programs.
//!
//! The schema; a field that has no value is `null`, and fields may be added:
//!
//! ```json
//! { "interfaces": [ {
//!     "name": "wg0",
//!     "public_key": "base64", "private_key": "base64, or (hidden)",
//!     "listen_port": 51820, "fwmark": null,
//!     "flows": 12, "flows_full": false,
//!     "offloads": ["tso", "uso", "gso", "gro", "aead-batch", "moderation"],
//!     "drops": { "no_peer": 3 },
//!     "peers": [ {
//!       "public_key": "base64", "preshared_key": "base64, or (hidden)",
//!       "endpoint": "192.0.2.1:51820", "allowed_ips": ["10.10.0.0/24"],
//!       "latest_handshake": 1700000000,
//!       "rx_bytes": 0, "tx_bytes": 0, "persistent_keepalive": 25,
//!       "path_mtu": 1340, "path_mtu_source": "measured"
//! } ] } ] }
//! ```
//!
//! `latest_handshake` counts seconds since the Unix epoch, `persistent_keepalive` seconds.
//! `flows` are those that begin or end at this host now: by `Masquerade = flow`, `Expose`, `Forward` and
//! proxies; `null` where there can be none. `flows_full`: the flow engine has as many as `MaxFlows` and the
//! descriptors of the process allow, and what would begin another is counted as dropped, `flow_limit`.
//! `drops` counts packets since the start of the daemon by the reason for which they were dropped
//! ([`crate::proto::drop_reason::DropReason`]).
//! Private and preshared keys are hidden unless `WG_HIDE_KEYS=never`.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use super::{Shown, Style, Text};
use crate::control::command::PeerSnapshot;
use crate::control::resolve::endpoint_text;
use crate::control::settings::Status;
use crate::crypto::key::{PrivateKey, PublicKey};

#[derive(Serialize)]
struct Document<'a> {
    interfaces: Vec<Interface<'a>>,
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
    public_key: Option<String>,
    private_key: Option<Secret>,
    listen_port: Option<u16>,
    fwmark: Option<u32>,
    flows: Option<usize>,
    flows_full: Option<bool>,
    offloads: Option<Vec<&'static str>>,
    drops: Option<BTreeMap<&'static str, u64>>,
    peers: Vec<Peer>,
}

#[derive(Serialize)]
struct Peer {
    public_key: String,
    preshared_key: Option<Secret>,
    endpoint: Option<String>,
    allowed_ips: Vec<String>,
    latest_handshake: Option<u64>,
    rx_bytes: u64,
    tx_bytes: u64,
    persistent_keepalive: Option<u16>,
    path_mtu: Option<u32>,
    path_mtu_source: Option<&'static str>,
}

struct Secret(Text);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The document, indented.
pub(super) fn render(shown: &[Shown], style: Style) -> serde_json::Result<Text> {
    let interfaces = shown.iter().map(|device| interface(device, style)).collect();
    let mut text = Zeroizing::new(serde_json::to_string_pretty(&Document { interfaces })?);
    text.push('\n');
    Ok(text)
}

fn interface(shown: &Shown, style: Style) -> Interface<'_> {
    let device = &shown.device;
    let flows = shown.status.as_ref().and_then(|status| status.flows);
    let private_key = device.private_key.as_ref().map(PrivateKey::to_base64);
    Interface {
        name: &shown.interface,
        public_key: shown.public_key().map(PublicKey::to_base64),
        private_key: private_key.map(|key| secret(key, style)),
        listen_port: Some(device.listen_port).filter(|&port| port != 0),
        fwmark: Some(device.fwmark).filter(|&mark| mark != 0),
        flows: flows.map(|flows| flows.now),
        flows_full: flows.map(|flows| flows.is_full),
        offloads: shown.status.as_ref().map(|status| status.offloads.names().collect()),
        drops: shown.status.as_ref().map(drops),
        peers: device.peers.iter().map(|snapshot| peer(shown, snapshot, style)).collect(),
    }
}

fn drops(status: &Status) -> BTreeMap<&'static str, u64> {
    status.drops.iter().map(|&(reason, packets)| (reason.name(), packets)).collect()
}

fn peer(shown: &Shown, peer: &PeerSnapshot, style: Style) -> Peer {
    let path = shown.path_of(peer);
    let preshared_key = (!peer.preshared_key.is_zero()).then(|| peer.preshared_key.to_base64());
    Peer {
        public_key: peer.public_key.to_base64(),
        preshared_key: preshared_key.map(|key| secret(key, style)),
        endpoint: peer.endpoint.map(endpoint_text),
        allowed_ips: peer.allowed_ips.iter().map(ToString::to_string).collect(),
        latest_handshake: peer.last_handshake.map(|wall| wall.secs),
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
        persistent_keepalive: Some(peer.persistent_keepalive).filter(|&seconds| seconds != 0),
        path_mtu: path.map(|path| path.mtu),
        path_mtu_source: path.map(|path| path.source.name()),
    }
}

fn secret(key: String, style: Style) -> Secret {
    let key = Zeroizing::new(key);
    Secret(if style.keys_shown { key } else { Zeroizing::new("(hidden)".to_owned()) })
}
