//! Packets that wait for a session: copied out of their batch, bounded, oldest dropped first.
//!
//! They belong to one shard, as the flows they are of do; so they are sent in the order they came
//! in, ahead of anything later, and nothing here locks. [LNX queueing.h:MAX_STAGED_PACKETS]

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;

use crate::proto::constants::MAX_STAGED_PACKETS;
use crate::proto::peer::PeerId;
use crate::wire::fragment::fragment;

/// Most memory for staged packets of a device, in bytes, whatever the number of peers and shards.
const MAX_STAGED_BYTES: usize = 32 << 20;

/// What a staged packet costs beside its own bytes.
const PACKET_OVERHEAD_BYTES: usize = 64;

/// The staged packets of one shard.
#[derive(Debug)]
pub struct Staged {
    queues: HashMap<PeerId, VecDeque<Box<[u8]>>>,
    /// INVARIANT: the cost of all packets in `queues`; no queue is empty.
    bytes: usize,
    /// This shard's share of [`MAX_STAGED_BYTES`].
    max_bytes: usize,
}

impl Staged {
    /// Those of one of so many `shards`.
    pub fn new(shards: NonZeroU32) -> Self {
        let max_bytes = MAX_STAGED_BYTES / shards.get() as usize;
        Self { queues: HashMap::new(), bytes: 0, max_bytes }
    }

    /// Appends a copy of `packet`; returns how many packets were dropped for it, itself perhaps:
    /// the oldest of a peer that has [`MAX_STAGED_PACKETS`], or the new one if the shard is full.
    pub fn push(&mut self, peer: PeerId, packet: &[u8]) -> usize {
        if self.bytes + cost(packet) > self.max_bytes {
            return 1;
        }
        let mut dropped = 0;
        if self.queues.get(&peer).is_some_and(|queue| queue.len() >= MAX_STAGED_PACKETS) {
            dropped += usize::from(self.pop(peer).is_some());
        }
        self.bytes += cost(packet);
        self.queues.entry(peer).or_default().push_back(packet.into());
        dropped
    }

    /// Appends fragments of `packet`, an IPv4 packet that may be cut, none longer than `limit` bytes;
    /// returns how many packets were dropped for them, as [`Self::push`] does.
    pub fn push_cut(&mut self, peer: PeerId, packet: &[u8], limit: usize) -> usize {
        let mut buffer = vec![0; limit.min(packet.len())];
        let (mut done, mut dropped) = (0, 0);
        while let Some((len, next)) = fragment(packet, limit, done, &mut buffer) {
            dropped += self.push(peer, &buffer[..len]);
            done = next;
        }
        dropped
    }

    /// Whether a packet of `peer` waits, so that a later one must wait behind it.
    pub fn has(&self, peer: PeerId) -> bool {
        !self.queues.is_empty() && self.queues.contains_key(&peer)
    }

    /// The oldest packet of `peer`.
    pub fn first(&mut self, peer: PeerId) -> Option<&mut [u8]> {
        self.queues.get_mut(&peer)?.front_mut().map(|packet| &mut **packet)
    }

    /// Takes the oldest packet of `peer`.
    pub fn pop(&mut self, peer: PeerId) -> Option<Box<[u8]>> {
        let queue = self.queues.get_mut(&peer)?;
        let packet = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&peer);
        }
        self.bytes -= packet.as_deref().map_or(0, cost);
        packet
    }

    /// Drops all packets of `peer`; returns how many they were.
    pub fn purge(&mut self, peer: PeerId) -> usize {
        let Some(queue) = self.queues.remove(&peer) else { return 0 };
        self.bytes -= queue.iter().map(|packet| cost(packet)).sum::<usize>();
        queue.len()
    }
}

const fn cost(packet: &[u8]) -> usize {
    packet.len() + PACKET_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(1);

    fn staged() -> Staged {
        Staged::new(NonZeroU32::MIN)
    }

    #[test]
    fn a_peer_stages_128_packets_and_the_oldest_gives_way() {
        let mut staged = staged();
        let dropped: usize = (0..130_u8).map(|n| staged.push(PEER, &[n])).sum();
        assert_eq!(dropped, 2);
        let left: Vec<u8> =
            std::iter::from_fn(|| staged.pop(PEER)).map(|packet| packet[0]).collect();
        assert_eq!(left, (2..130).collect::<Vec<u8>>());
        assert!(!staged.has(PEER));
    }

    #[test]
    fn trap_29_all_peers_together_stay_below_the_limit_of_the_device() {
        let mut staged = staged();
        let packet = vec![0; 65_000];
        let kept = (0..2000).filter(|n| staged.push(PeerId(*n), &packet) == 0).count();
        assert_eq!(kept, (32 << 20) / 65_064);
        assert!(staged.bytes <= 32 << 20);
    }

    #[test]
    fn all_shards_together_stay_below_the_limit_of_the_device() {
        let kept = (0..4).map(|_| {
            let mut staged = Staged::new(NonZeroU32::new(4).unwrap());
            (0..2000).filter(|n| staged.push(PeerId(*n), &[0; 65_000]) == 0).count()
        });
        assert_eq!(kept.sum::<usize>(), 4 * ((8 << 20) / 65_064));
    }

    #[test]
    fn a_purge_drops_one_peer_and_frees_its_share() {
        let mut staged = staged();
        staged.push(PEER, &[1; 100]);
        staged.push(PEER, &[2; 100]);
        staged.push(PeerId(2), &[3]);
        assert_eq!(staged.purge(PEER), 2);
        assert_eq!(staged.purge(PEER), 0);
        assert!(!staged.has(PEER) && staged.has(PeerId(2)));
        assert_eq!(staged.first(PeerId(2)), Some(&mut [3][..]));
        staged.pop(PeerId(2));
        assert_eq!(staged.bytes, 0);
    }
}
