//! What can be changed about a device. [UAPI]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use crate::proto::places::Place;

/// One change of a device's configuration.
#[derive(Clone, Debug)]
pub enum Change {
    /// Takes another identity, or none. Ends every session and removes the peer who would be
    /// ourselves; the same key again changes nothing. [LNX netlink.c:set_device]
    PrivateKey(Option<PrivateKey>),
    /// Creates, changes or removes a peer. His session survives any change of him.
    Peer(PeerUpdate),
    /// Removes every peer but those named. They go back to the settings of a new peer, and keep
    /// their session and endpoint.
    ///
    /// This is `replace_peers` for the peers that the same request does not name; the updates that
    /// follow bring the settings back.
    KeepOnly(BTreeSet<PublicKey>),
}

/// A change of one peer, who is created if he is unknown.
///
/// A `public_key` equal to the device's own is legal and means: ignore this whole update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUpdate {
    pub public_key: PublicKey,
    /// Does nothing if the peer is unknown.
    pub update_only: bool,
    /// Removes the peer; the other fields are then of no account.
    pub remove: bool,
    /// [`PresharedKey::NONE`] clears it. Mixed into the next handshake.
    pub preshared_key: Option<PresharedKey>,
    /// Where the peer is from now on. Without `places` the list of them is emptied: the peer is
    /// where it was last heard from.
    pub endpoint: Option<SocketAddr>,
    /// Where the peer may be, best first. An `endpoint` is an address of the first of them
    /// then, to begin with. The same list again changes nothing, and the peer stays where it is.
    pub places: Option<Vec<Place>>,
    /// Seconds; 0 turns it off. Turning it on sends a keepalive at once.
    pub persistent_keepalive: Option<u16>,
    /// Removes all allowed IPs of the peer before `allowed_ips` is applied.
    pub replace_allowed_ips: bool,
    /// In the order of the request.
    pub allowed_ips: Vec<AllowedIpChange>,
}

impl PeerUpdate {
    /// An update that creates the peer if he is unknown and changes nothing else.
    pub const fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            update_only: false,
            remove: false,
            preshared_key: None,
            endpoint: None,
            places: None,
            persistent_keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// One step on a peer's allowed IPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AllowedIpChange {
    /// Gives the network to the peer, taking it from whoever had exactly it.
    Add(IpNet),
    /// Takes the network from the peer, if it is his.
    Remove(IpNet),
}

/// Why a change was refused. Nothing has been changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigureError {
    #[error("a device takes at most {limit} peers")]
    TooManyPeers { limit: usize },
}
