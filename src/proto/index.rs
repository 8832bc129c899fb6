//! Session indices: which session a datagram claims to belong to. [WG §5.4.2]
//!
//! An index is drawn from all 32-bit numbers by the injected entropy, so that it tells an observer
//! nothing about earlier sessions, and no two live sessions of a device share one. The table is an
//! ordered map: lookups by a stranger cost the same whatever number he asks for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::crypto::entropy::Entropy;

/// A receiver or sender index; little-endian on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u32);

impl Index {
    pub const fn from_le_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_le_bytes(bytes))
    }

    pub const fn to_le_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }
}

/// The live indices of a device, each with what it stands for.
#[derive(Debug)]
pub struct IndexTable<T> {
    entries: BTreeMap<Index, T>,
}

impl<T> Default for IndexTable<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> IndexTable<T> {
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new() }
    }

    /// Draws an index that no live entry has, and keeps it until [`Self::remove`].
    ///
    /// It ends as long as the table is far from holding every number; a device has at most four
    /// indices for each of 2^20 peers.
    pub fn insert(&mut self, entropy: &mut dyn Entropy, value: T) -> Index {
        loop {
            let index = Index::from_le_bytes(entropy.bytes());
            if let Entry::Vacant(vacant) = self.entries.entry(index) {
                vacant.insert(value);
                return index;
            }
        }
    }

    pub fn get(&self, index: Index) -> Option<&T> {
        self.entries.get(&index)
    }

    pub fn get_mut(&mut self, index: Index) -> Option<&mut T> {
        self.entries.get_mut(&index)
    }

    /// Frees `index`; a later session may draw it again.
    pub fn remove(&mut self, index: Index) -> Option<T> {
        self.entries.remove(&index)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;

    /// Repeats each draw: 1, 1, 2, 2, 3, 3, …
    struct Stutter(u32);

    impl Entropy for Stutter {
        fn fill(&mut self, bytes: &mut [u8]) {
            self.0 += 1;
            bytes.copy_from_slice(&self.0.div_ceil(2).to_le_bytes());
        }
    }

    #[test]
    fn no_two_live_entries_share_an_index() {
        let mut table = IndexTable::new();
        let mut entropy = Stutter(0);
        let drawn: Vec<_> = (0..3).map(|value| table.insert(&mut entropy, value)).collect();
        assert_eq!(drawn, [Index(1), Index(2), Index(3)]);
        assert_eq!(table.get(Index(2)), Some(&1));
    }

    #[test]
    fn a_freed_index_is_unknown_and_can_be_drawn_again() {
        let mut table = IndexTable::new();
        assert_eq!(table.insert(&mut Stutter(0), 'a'), Index(1));
        assert_eq!(table.remove(Index(1)), Some('a'));
        assert_eq!(table.remove(Index(1)), None);
        assert_eq!(table.get(Index(1)), None);
        assert!(table.is_empty());
        assert_eq!(table.insert(&mut Stutter(0), 'b'), Index(1));
    }

    #[test]
    fn trap_13_successive_indices_do_not_follow_from_each_other() {
        let mut table = IndexTable::new();
        let mut entropy = SeededEntropy::new(1);
        let drawn: Vec<u32> = (0..1000).map(|_| table.insert(&mut entropy, ()).0).collect();
        let mut steps: Vec<u32> = drawn.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
        steps.sort_unstable();
        steps.dedup();
        assert!(steps.len() > 990, "steps repeat: {} distinct", steps.len());
        assert_eq!(table.len(), drawn.len());
    }
}
