//! The handle of a peer.

/// A dense handle for one peer of a device.
///
/// It is smaller than the public key that names the peer to people, and is what tables are indexed
/// by. Handles are given out by the device and may be reused after the peer was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);
