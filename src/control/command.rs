//! What can be asked of a device, and what it answers: the vocabulary shared by the UAPI server,
//! the UAPI client, the configuration files and the engine.
//!
//! Plain data. A [`SetRequest`] names only what changes; a [`DeviceSnapshot`] is complete. Nothing
//! here validates: a value of these types is already well-formed, and whether it can be carried
//! out (a free port, a known peer) is the engine's answer. Secrets are key types, which redact
//! themselves in `Debug`. [UAPI]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::control::ends::Expose;
use crate::control::proxy::Serve;
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};
pub use crate::dataplane::clamp_mss::ClampMss;
use crate::flow::policy::Policy;
use crate::flow::tuning::Tuning;
pub use crate::proto::device::{AllowedIpChange, PeerUpdate};
use crate::time::Wall;

/// A change of one device, carried out as a whole: the device values first, then
/// `replace_peers`, then the peers in order.
///
/// `None` leaves a value as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetRequest {
    /// `Some(None)` removes the key.
    pub private_key: Option<Option<PrivateKey>>,
    /// UDP port to listen on; 0 asks for a free one.
    pub listen_port: Option<u16>,
    /// Mark on outgoing datagrams; 0 clears it.
    pub fwmark: Option<u32>,
    /// A setting of our own: how far announced TCP segment sizes are lowered.
    pub clamp_mss: Option<ClampMss>,
    /// Another: who decides about the MTU of the interface.
    pub mtu_policy: Option<MtuPolicy>,
    /// Another: which packets of peers are carried on as flows of this host. `Some(None)` ends it.
    pub flows: Option<Option<Flows>>,
    /// Another: who is told how the device is.
    pub health: Option<Health>,
    /// Another: what the tunnel is on this host, where it has no interface.
    pub inside: Option<Inside>,
    /// Whether there is to be an end, before which nothing new begins.
    pub drain: Option<bool>,
    /// Another: what is listened for, for programs of this host.
    pub serve: Option<Serve>,
    /// Has what fits measured, of all peers that can be asked.
    pub measure_paths: bool,
    /// Removes every peer before `peers` is applied. A peer that is named again in `peers` without
    /// `remove` may keep its session.
    pub replace_peers: bool,
    /// In the order of the request. The same peer may occur more than once.
    pub peers: Vec<PeerUpdate>,
}

/// Which packets of peers end here, and are carried on as flows of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// Also those for anybody else than the tunnel's own addresses.
    pub carries: bool,
    /// What peers find at these addresses; of several for a port the first that is for them.
    pub expose: Vec<Expose>,
    /// Where they may go, and where the names of services may lead.
    pub policy: Policy,
    /// Where they come from; empty: from wherever peers may send.
    pub sources: Vec<IpNet>,
    pub tuning: Tuning,
}

/// Whom the health of a device is told to, and what it is judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Where HTTP is answered.
    pub listen: Option<SocketAddr>,
    /// Without a session with each of these the device is of no use.
    pub required: BTreeSet<PublicKey>,
}

/// What else an interface would have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// With their networks.
    pub addresses: Vec<IpNet>,
    /// Bytes.
    pub mtu: u32,
}

/// Who decides about the MTU of the interface. What fits the path to a peer is found out, and
/// enforced for that peer, in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MtuPolicy {
    /// Whoever has set it.
    #[default]
    Fixed,
    /// The device may lower it.
    Auto,
    /// The device may raise it, too.
    Probe,
}

impl MtuPolicy {
    pub const ALL: [Self; 3] = [Self::Fixed, Self::Auto, Self::Probe];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Auto => "auto",
            Self::Probe => "probe",
        }
    }
}

/// The state of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSnapshot {
    pub private_key: Option<PrivateKey>,
    /// 0 if no socket is open.
    pub listen_port: u16,
    /// 0 if none.
    pub fwmark: u32,
    pub peers: Vec<PeerSnapshot>,
}

impl DeviceSnapshot {
    /// The networks of all peers.
    pub fn networks(&self) -> Vec<IpNet> {
        self.peers.iter().flat_map(|peer| peer.allowed_ips.iter().copied()).collect()
    }
}

/// The state of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSnapshot {
    pub public_key: PublicKey,
    /// [`PresharedKey::NONE`] if he has none.
    pub preshared_key: PresharedKey,
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake completed, in wall time; `None` if never.
    pub last_handshake: Option<Wall>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Seconds; 0 if off.
    pub persistent_keepalive: u16,
    pub allowed_ips: Vec<IpNet>,
}

impl PeerSnapshot {
    /// A peer about whom only the key is known.
    pub const fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            preshared_key: PresharedKey::NONE,
            endpoint: None,
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
            persistent_keepalive: 0,
            allowed_ips: Vec::new(),
        }
    }
}
