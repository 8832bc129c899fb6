//! The cryptokey routing table: which peer an inner address belongs to. [WG §2]
//!
//! [`AllowedIps`] is what configuration edits: the table and, for each owner, its prefixes.
//! [`Routes`] is the table alone: a persistent Patricia trie whose nodes are shared between
//! versions, so that a clone is two reference counts, and an edit copies only the nodes between
//! the root and the place of the edit (at most 33 for IPv4, 129 for IPv6) and only while an older
//! version still holds them. The data plane reads such clones without a lock.
//!
//! Guarantees: the longest prefix wins; a prefix has one owner, the last it was given to; host
//! bits do not matter; a trie holds no node that neither is a prefix nor joins two subtrees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// The table with the prefixes of each owner.
#[derive(Debug)]
pub struct AllowedIps<T> {
    routes: Routes<T>,
    /// INVARIANT: the prefixes of `routes` by their owner, host bits zero; no set is empty.
    by_owner: BTreeMap<T, BTreeSet<IpNet>>,
}

impl<T> AllowedIps<T> {
    pub fn new() -> Self {
        Self { routes: Routes::new(), by_owner: BTreeMap::new() }
    }

    /// The table as it is now; later edits do not show in it. Costs two reference counts.
    pub fn routes(&self) -> Routes<T> {
        self.routes.clone()
    }
}

impl<T: Copy + Ord> AllowedIps<T> {
    /// Gives `net`, without its host bits, to `owner`. Returns the owner it had, which may be the
    /// same.
    pub fn insert(&mut self, net: IpNet, owner: T) -> Option<T> {
        let net = net.trunc();
        let former = self.routes.insert(net, owner);
        if former == Some(owner) {
            return former;
        }
        if let Some(former) = former {
            self.forget(net, former);
        }
        self.by_owner.entry(owner).or_default().insert(net);
        former
    }

    /// Takes `net`, without its host bits, from `owner`. Returns false, and changes nothing, if it
    /// belongs to another or to none.
    pub fn remove(&mut self, net: IpNet, owner: T) -> bool {
        let net = net.trunc();
        let owned = self.forget(net, owner);
        if owned {
            self.routes.remove(net);
        }
        owned
    }

    /// Takes everything from `owner`; costs what `owner` has, not what the table holds.
    pub fn remove_all(&mut self, owner: T) {
        for net in self.by_owner.remove(&owner).unwrap_or_default() {
            self.routes.remove(net);
        }
    }

    /// The owner of the longest prefix that contains `address`.
    pub fn lookup(&self, address: IpAddr) -> Option<T> {
        self.routes.lookup(address)
    }

    /// The prefixes of `owner` in ascending order, IPv4 first.
    pub fn iter_of(&self, owner: T) -> impl Iterator<Item = IpNet> + '_ {
        self.by_owner.get(&owner).into_iter().flatten().copied()
    }

    fn forget(&mut self, net: IpNet, owner: T) -> bool {
        let Some(nets) = self.by_owner.get_mut(&owner) else { return false };
        let owned = nets.remove(&net);
        if nets.is_empty() {
            self.by_owner.remove(&owner);
        }
        owned
    }
}

impl<T> Default for AllowedIps<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// One version of the table, for lookups.
#[derive(Debug)]
pub struct Routes<T> {
    ipv4: Link<u32, T>,
    ipv6: Link<u128, T>,
}

impl<T> Routes<T> {
    pub const fn new() -> Self {
        Self { ipv4: None, ipv6: None }
    }
}

impl<T: Copy> Routes<T> {
    /// The owner of the longest prefix that contains `address`.
    pub fn lookup(&self, address: IpAddr) -> Option<T> {
        match address {
            IpAddr::V4(address) => lookup(&self.ipv4, address.to_bits()),
            IpAddr::V6(address) => lookup(&self.ipv6, address.to_bits()),
        }
    }

    fn insert(&mut self, net: IpNet, owner: T) -> Option<T> {
        match net {
            IpNet::V4(net) => {
                insert(&mut self.ipv4, prefix(net.network().to_bits(), net.prefix_len()), owner)
            }
            IpNet::V6(net) => {
                insert(&mut self.ipv6, prefix(net.network().to_bits(), net.prefix_len()), owner)
            }
        }
    }

    fn remove(&mut self, net: IpNet) -> Option<T> {
        match net {
            IpNet::V4(net) => {
                remove(&mut self.ipv4, prefix(net.network().to_bits(), net.prefix_len()))
            }
            IpNet::V6(net) => {
                remove(&mut self.ipv6, prefix(net.network().to_bits(), net.prefix_len()))
            }
        }
    }
}

impl<T> Clone for Routes<T> {
    fn clone(&self) -> Self {
        Self { ipv4: self.ipv4.clone(), ipv6: self.ipv6.clone() }
    }
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// An address as a number, its first bit the most significant.
trait Bits: Copy + Eq {
    const WIDTH: u8;

    /// How many leading bits `self` and `other` share.
    fn shared_with(self, other: Self) -> u8;

    /// The bit after the first `len`, of which there are fewer than `WIDTH`.
    fn side(self, len: u8) -> usize;

    /// The first `len` bits, of which there are fewer than `WIDTH`; the others zero.
    fn cut(self, len: u8) -> Self;
}

macro_rules! bits {
    ($number:ty) => {
        impl Bits for $number {
            // Both widths are below 256.
            const WIDTH: u8 = <$number>::BITS as u8;

            fn shared_with(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }

            fn side(self, len: u8) -> usize {
                usize::from(self >> (Self::WIDTH - 1 - len) & 1 == 1)
            }

            fn cut(self, len: u8) -> Self {
                self & !(Self::MAX >> len)
            }
        }
    };
}

bits!(u32);
bits!(u128);

/// INVARIANT: all bits of `bits` after the first `len` are zero.
#[derive(Clone, Copy, Debug)]
struct Prefix<B> {
    bits: B,
    len: u8,
}

fn prefix<B>(bits: B, len: u8) -> Prefix<B> {
    Prefix { bits, len }
}

impl<B: Bits> Prefix<B> {
    fn shared_with(self, other: Self) -> u8 {
        self.bits.shared_with(other.bits).min(self.len).min(other.len)
    }

    fn contains(self, other: Self) -> bool {
        self.shared_with(other) == self.len
    }

    fn contains_address(self, address: B) -> bool {
        self.bits.shared_with(address) >= self.len
    }
}

type Link<B, T> = Option<Arc<Node<B, T>>>;

/// INVARIANT: a child's prefix is longer than, and contained in, `prefix`, and continues with its
/// place's bit; without an owner there are two children.
#[derive(Clone, Debug)]
struct Node<B, T> {
    prefix: Prefix<B>,
    owner: Option<T>,
    children: [Link<B, T>; 2],
}

impl<B: Bits, T> Node<B, T> {
    fn leaf(prefix: Prefix<B>, owner: T) -> Self {
        Self { prefix, owner: Some(owner), children: [None, None] }
    }

    /// What takes the place of `old`, which does not contain `prefix`, when `prefix` comes.
    fn above(old: Arc<Self>, prefix: Prefix<B>, owner: T) -> Self {
        let len = old.prefix.shared_with(prefix);
        let old_side = old.prefix.bits.side(len);
        let mut node = if len == prefix.len {
            Self::leaf(prefix, owner)
        } else {
            let mut fork = Self {
                prefix: Prefix { bits: prefix.bits.cut(len), len },
                owner: None,
                children: [None, None],
            };
            fork.children[1 - old_side] = Some(Arc::new(Self::leaf(prefix, owner)));
            fork
        };
        node.children[old_side] = Some(old);
        node
    }
}

fn lookup<B: Bits, T: Copy>(root: &Link<B, T>, address: B) -> Option<T> {
    let mut longest = None;
    let mut link = root;
    while let Some(node) = link {
        if !node.prefix.contains_address(address) {
            break;
        }
        longest = node.owner.or(longest);
        if node.prefix.len == B::WIDTH {
            break;
        }
        link = &node.children[address.side(node.prefix.len)];
    }
    longest
}

fn insert<B: Bits, T: Copy>(root: &mut Link<B, T>, prefix: Prefix<B>, owner: T) -> Option<T> {
    let mut link = root;
    loop {
        let Some(node) = link else {
            *link = Some(Arc::new(Node::leaf(prefix, owner)));
            return None;
        };
        if !node.prefix.contains(prefix) {
            *node = Arc::new(Node::above(Arc::clone(node), prefix, owner));
            return None;
        }
        let node = Arc::make_mut(node);
        if node.prefix.len == prefix.len {
            return node.owner.replace(owner);
        }
        link = &mut node.children[prefix.bits.side(node.prefix.len)];
    }
}

/// Recurses at most once a bit of the address.
fn remove<B: Bits, T: Copy>(link: &mut Link<B, T>, prefix: Prefix<B>) -> Option<T> {
    let node = match link {
        Some(node) if node.prefix.contains(prefix) => Arc::make_mut(node),
        Some(_) | None => return None,
    };
    let removed = if node.prefix.len == prefix.len {
        node.owner.take()?
    } else {
        remove(&mut node.children[prefix.bits.side(node.prefix.len)], prefix)?
    };
    if node.owner.is_none() && node.children.iter().any(Option::is_none) {
        let [left, right] = &mut node.children;
        *link = left.take().or(right.take());
    }
    Some(removed)
}

#[cfg(test)]
mod tests;
