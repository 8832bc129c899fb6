//! What a configuration file says, once it has been understood: nothing here needs a second check.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::secret::KeySource;
use crate::control::command::{AllowedIpChange, ClampMss, PeerUpdate, SetRequest};
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};
/// Where a peer is reached.
pub use crate::proto::places::Place as Endpoint;

/// A value and the line it stands on.
#[derive(Clone, Copy, Debug)]
pub struct At<T> {
    pub line: usize,
    pub value: T,
}

/// One configuration file.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub interface: Interface,
    pub peers: Vec<Peer>,
}

/// All `[Interface]` sections together. `None` and empty mean that the key is absent.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// All zeros are no key.
    pub private_key: Option<PrivateKey>,
    /// Where it is, if it does not stand in the file; `fetch_keys` puts it above.
    pub private_key_file: Option<At<KeySource>>,
    pub listen_port: Option<u16>,
    /// 0 is off.
    pub fwmark: Option<u32>,
    /// Which bits of packets' marks count for us; not 0, and only beside a `fwmark`.
    pub fwmark_mask: Option<At<u32>>,
    /// Whether what does not go into the tunnel goes nowhere; only where `table` is auto.
    pub kill_switch: Option<At<bool>>,
    /// In the order of the file, host bits kept.
    pub addresses: Vec<IpNet>,
    pub dns: Vec<At<Dns>>,
    /// Whether `up` fails if `dns` cannot be set.
    pub require_dns: Option<At<bool>>,
    /// Bytes, 68 to 65535.
    pub mtu: Option<u16>,
    /// How far announced TCP segment sizes are lowered.
    pub clamp_mss: Option<ClampMss>,
    pub table: Option<At<Table>>,
    pub save_config: Option<At<bool>>,
    /// Commands in the order of the file, `%i` not yet replaced.
    pub pre_up: Vec<String>,
    pub post_up: Vec<String>,
    pub pre_down: Vec<String>,
    pub post_down: Vec<String>,
}

/// An entry of `DNS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    Server(IpAddr),
    SearchDomain(String),
}

/// Where the routes of the allowed IPs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Table {
    /// The main table, and policy routing for default routes.
    Auto,
    /// Nowhere.
    Off,
    /// 1 or more.
    Number(u32),
    Name(String),
}

/// One `[Peer]` section.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the section begins.
    pub line: usize,
    pub public_key: PublicKey,
    pub preshared_key: Option<PresharedKey>,
    /// Where it is, if it does not stand in the file; `fetch_keys` puts it above.
    pub preshared_key_file: Option<At<KeySource>>,
    /// `None` if the key is absent; empty if it is there and says none.
    pub allowed_ips: Option<Vec<At<AllowedIpChange>>>,
    /// An entry began with `+` or `-`: the entries change the peer's networks and do not replace
    /// them.
    pub incremental: bool,
    pub endpoint: Option<Endpoint>,
    /// In place of `endpoint`, best first.
    pub endpoints: Vec<Endpoint>,
    /// Seconds; 0 is off.
    pub persistent_keepalive: Option<u16>,
}

impl Peer {
    /// Where it may be reached, best first.
    pub fn places(&self) -> &[Endpoint] {
        if self.endpoints.is_empty() { self.endpoint.as_slice() } else { &self.endpoints }
    }
}

impl Config {
    /// The change that gives a device what the file names and leaves the rest, as `wg addconf`
    /// does: what a PreUp hook has set survives.
    ///
    /// # Errors
    /// The first error of `resolve`, which is asked for every endpoint that is a name; one without an
    /// address is left to the device.
    pub fn to_request<E>(
        &self,
        mut resolve: impl FnMut(&str, u16) -> Result<Option<SocketAddr>, E>,
    ) -> Result<SetRequest, E> {
        let private_key = self.interface.private_key.clone();
        let mut request = SetRequest {
            private_key: private_key.map(|key| (!key.is_zero()).then_some(key)),
            listen_port: self.interface.listen_port,
            fwmark: self.interface.fwmark,
            clamp_mss: self.interface.clamp_mss,
            replace_peers: false,
            peers: Vec::with_capacity(self.peers.len()),
        };
        for peer in &self.peers {
            let places = peer.places();
            let endpoint = match places.first() {
                Some(Endpoint::Address(address)) => Some(*address),
                Some(Endpoint::Name { host, port }) => resolve(host, *port)?,
                None => None,
            };
            let is_fixed = matches!(places, [] | [Endpoint::Address(_)]);
            let allowed_ips = peer.allowed_ips.as_deref().unwrap_or_default();
            request.peers.push(PeerUpdate {
                preshared_key: peer.preshared_key.clone(),
                endpoint,
                places: (!is_fixed).then(|| places.to_vec()),
                persistent_keepalive: peer.persistent_keepalive,
                replace_allowed_ips: peer.allowed_ips.is_some() && !peer.incremental,
                allowed_ips: allowed_ips.iter().map(|entry| entry.value).collect(),
                ..PeerUpdate::new(peer.public_key)
            });
        }
        Ok(request)
    }
}
