//! One fixed piece of memory, large enough for any datagram or super-packet.
//!
//! A slab belongs to a batch, a queue or a train, which may exchange theirs: it is never grown, shared
//! or handed to an allocator on the packet path. Fresh slabs are zero pages, so that memory which no
//! packet ever touched costs nothing.

use std::ops::{Deref, DerefMut};

/// Room in front of a packet: for a transport header, and for what a TUN device wants before it.
pub const HEADROOM: usize = 128;

/// Size of a slab in bytes: headroom and the longest IP packet, rounded up to a cache line.
///
/// Not a power of two on purpose: the first lines of many slabs must not fall into one cache set.
pub const SLAB_BYTES: usize = (HEADROOM + 65_535).next_multiple_of(64);

const _: () = assert!(!SLAB_BYTES.is_power_of_two());

/// [`SLAB_BYTES`] initialised bytes.
pub struct Slab(Box<[u8]>);

impl Slab {
    #[expect(clippy::new_without_default, reason = "64 KB are no default value")]
    pub fn new() -> Self {
        Self(vec![0; SLAB_BYTES].into_boxed_slice())
    }

    pub(super) fn many(count: usize) -> Box<[Self]> {
        (0..count).map(|_| Self::new()).collect()
    }
}

impl Deref for Slab {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Slab {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl std::fmt::Debug for Slab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slab")
    }
}
