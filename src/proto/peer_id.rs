//! The handle of a peer.

/// A handle for one peer of a device.
///
/// It is smaller than the public key that names the peer to people, and is what tables are indexed
/// by. The device gives handles out in rising order and none twice: one that outlived its peer
/// names nobody, and never somebody else, so that a stale route cannot lead to a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);
