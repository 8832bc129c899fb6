//! A configured peer: who he is, what is agreed with him, and when something is due. [WG §2]

/// The handle of a peer.
///
/// Handed out in rising order and never used twice while its device lives: a handle that outlived
/// its peer names nobody, rather than somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);
