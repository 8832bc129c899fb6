//! Packets from their fragments. [RFC 791 §3.2] [RFC 8200 §4.5] [RFC 5722] [RFC 4787 §11]
//!
//! In any order, within bounds: a peer that sends parts and never the whole loses parts of its own.
//! Of a packet with parts that overlap nothing is kept: there is no honest sender of such.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use crate::flow::inner::{Fragment, Inner, ip_header_bytes, write_ip};
use crate::proto::drop_reason::DropReason;
use crate::proto::peer::PeerId;
use crate::time::Instant;

/// How long the parts of a packet are waited for.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Packets of one peer that may be in parts, and bytes that their parts may have.
const PACKETS_A_PEER: usize = 64;
const BYTES_A_PEER: usize = 1 << 20;

/// The same for all peers.
const PACKETS: usize = 1024;

/// A packet has no more, and so no more behind its IP header.
const LONGEST_BYTES: usize = 65_535;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    peer: PeerId,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

#[derive(Debug)]
struct Pieces {
    peer: PeerId,
    given_up_at: Instant,
    bytes: Vec<u8>,
    /// Which of them are there, in order; none touch.
    present: Vec<Range<usize>>,
    total: Option<usize>,
    /// Of the first fragment.
    hops: u8,
    /// Some parts overlap: what comes is dropped until it is given up.
    is_refused: bool,
}

/// What is made of a fragment.
#[derive(Debug)]
pub struct Whole {
    pub packet: Vec<u8>,
    pub hops: u8,
}

/// Packets of which parts are still to come.
#[derive(Debug, Default)]
pub struct Reassembly {
    pieces: HashMap<Key, Pieces>,
    /// Packets and bytes.
    shares: HashMap<PeerId, (usize, usize)>,
}

impl Reassembly {
    /// Takes a fragment of `peer`'s; yields the packet if it was the last that was missing.
    ///
    /// # Errors
    /// [`DropReason::FlowFragment`]: it overlaps, is longer than any packet, or exceeds a bound.
    pub fn take(
        &mut self,
        now: Instant,
        peer: PeerId,
        part: &Inner<'_>,
        fragment: Fragment,
    ) -> Result<Option<Whole>, DropReason> {
        let Inner { source, destination, protocol, payload, .. } = *part;
        let key = Key { peer, source, destination, protocol, id: fragment.id };
        let range = fragment.offset..fragment.offset + payload.len();
        let is_unfit = payload.is_empty()
            || range.end > LONGEST_BYTES - ip_header_bytes(source.is_ipv4())
            || (fragment.more && !payload.len().is_multiple_of(8));
        if is_unfit {
            return Err(DropReason::FlowFragment);
        }
        let share = self.shares.entry(peer).or_default();
        let is_new = !self.pieces.contains_key(&key);
        if is_new && (share.0 >= PACKETS_A_PEER || self.pieces.len() >= PACKETS) {
            return Err(DropReason::FlowFragment);
        }
        let pieces = self.pieces.entry(key).or_insert_with(|| {
            share.0 += 1;
            Pieces::new(peer, now)
        });
        let grows = range.end.saturating_sub(pieces.bytes.len());
        if share.1 + grows > BYTES_A_PEER {
            return Err(DropReason::FlowFragment);
        }
        let before = pieces.bytes.len();
        let outcome = pieces.add(range, part, fragment.more);
        share.1 = share.1 + pieces.bytes.len() - before;
        if !outcome? {
            return Ok(None);
        }
        Ok(self.remove(key).and_then(|pieces| pieces.whole(&key)))
    }

    /// Gives up packets whose parts have not come by `now`; yields how many.
    pub fn expire(&mut self, now: Instant) -> u64 {
        let late = self.pieces.iter().filter(|(_, pieces)| pieces.given_up_at <= now);
        let late: Vec<Key> = late.map(|(key, _)| *key).collect();
        late.iter().filter_map(|key| self.remove(*key)).count() as u64
    }

    /// Forgets what is not wanted any more.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(IpAddr, PeerId) -> bool) {
        let unwanted = self.pieces.iter().filter(|(key, it)| !is_wanted(key.source, it.peer));
        let unwanted: Vec<Key> = unwanted.map(|(key, _)| *key).collect();
        for key in unwanted {
            self.remove(key);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn remove(&mut self, key: Key) -> Option<Pieces> {
        let pieces = self.pieces.remove(&key)?;
        if let Some(share) = self.shares.get_mut(&pieces.peer) {
            *share = (share.0.saturating_sub(1), share.1.saturating_sub(pieces.bytes.len()));
            if share.0 == 0 {
                self.shares.remove(&pieces.peer);
            }
        }
        Some(pieces)
    }
}

impl Pieces {
    fn new(peer: PeerId, now: Instant) -> Self {
        Self {
            peer,
            given_up_at: now + PATIENCE,
            bytes: Vec::new(),
            present: Vec::new(),
            total: None,
            hops: 0,
            is_refused: false,
        }
    }

    /// Puts a part in its place; true if nothing is missing any more.
    fn add(
        &mut self,
        range: Range<usize>,
        part: &Inner<'_>,
        more: bool,
    ) -> Result<bool, DropReason> {
        if self.is_refused {
            return Err(DropReason::FlowFragment);
        }
        let total = if more { self.total } else { Some(range.end) };
        let is_beyond = total.is_some_and(|total| {
            total < range.end
                || total < self.bytes.len()
                || self.total.is_some_and(|it| it != total)
        });
        let at = self.present.partition_point(|present| present.end <= range.start);
        if let Some(present) = self.present.get(at)
            && present.start < range.end
        {
            // The network may have doubled it.
            let is_copy = present.start <= range.start && range.end <= present.end;
            if is_copy && self.bytes[range] == *part.payload {
                return Ok(false);
            }
            self.refuse();
            return Err(DropReason::FlowFragment);
        }
        if is_beyond {
            self.refuse();
            return Err(DropReason::FlowFragment);
        }
        self.total = total;
        if range.start == 0 {
            self.hops = part.hops;
        }
        if self.bytes.len() < range.end {
            self.bytes.resize(range.end, 0);
        }
        self.bytes[range.clone()].copy_from_slice(part.payload);
        self.present.insert(at, range);
        self.join(at);
        Ok(self.present.len() == 1
            && self.present[0].start == 0
            && self.total == Some(self.present[0].end))
    }

    /// Makes one of the range at `at` and those that touch it.
    fn join(&mut self, at: usize) {
        let touch = |ranges: &[Range<usize>], at: usize| {
            ranges.get(at + 1).is_some_and(|next| ranges[at].end == next.start)
        };
        if touch(&self.present, at) {
            self.present[at].end = self.present.remove(at + 1).end;
        }
        if at > 0 && touch(&self.present, at - 1) {
            self.present[at - 1].end = self.present.remove(at).end;
        }
    }

    fn refuse(&mut self) {
        self.is_refused = true;
        self.bytes = Vec::new();
        self.present = Vec::new();
    }

    fn whole(self, key: &Key) -> Option<Whole> {
        let header = ip_header_bytes(key.source.is_ipv4());
        let mut packet = vec![0; header + self.bytes.len()];
        packet[header..].copy_from_slice(&self.bytes);
        write_ip(&mut packet, key.source, key.destination, key.protocol, 0)?;
        Some(Whole { packet, hops: self.hops })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flow::inner::{cut_v6, write_udp};
    use crate::wire::fragment;

    const PEER: PeerId = PeerId(1);

    fn packet(is_v4: bool, payload: usize) -> Vec<u8> {
        let addresses =
            if is_v4 { ["10.10.0.2:7", "192.0.2.1:9"] } else { ["[fd10::2]:7", "[fd00::1]:9"] };
        let [source, destination] = addresses.map(|address| address.parse().unwrap());
        let mut packet = vec![0; ip_header_bytes(is_v4) + 8 + payload];
        packet.iter_mut().enumerate().for_each(|(n, byte)| *byte = (n * 7 + n / 256) as u8);
        write_udp(&mut packet, source, destination, 77).unwrap();
        packet
    }

    fn cut(packet: &[u8], limit: usize) -> Vec<Vec<u8>> {
        if packet[0] >> 4 == 6 {
            return cut_v6(packet, limit, 0x1234_5678).collect();
        }
        let (mut done, mut out, mut fragments) = (0, vec![0; limit], Vec::new());
        while let Some((len, next)) = fragment::fragment(packet, limit, done, &mut out) {
            fragments.push(out[..len].to_vec());
            done = next;
        }
        fragments
    }

    fn take(
        reassembly: &mut Reassembly,
        now: Instant,
        part: &[u8],
    ) -> Result<Option<Whole>, DropReason> {
        let part = Inner::parse(part).unwrap();
        reassembly.take(now, PEER, &part, part.fragment.unwrap())
    }

    fn content(packet: &[u8]) -> (u16, u16, Vec<u8>) {
        let (from, to, content) = Inner::parse(packet).unwrap().udp().unwrap();
        (from, to, content.to_vec())
    }

    proptest! {
        #[test]
        fn fragments_in_any_order_and_doubled_make_the_packet_once(
            is_v4: bool,
            payload in 1_500..60_000_usize,
            limit in 1_280..1_500_usize,
            order in any::<u64>(),
        ) {
            let packet = packet(is_v4, payload);
            let mut parts = cut(&packet, limit);
            prop_assert!(parts.iter().all(|part| part.len() <= limit));
            // One that is doubled before the whole is there.
            parts.push(parts[0].clone());
            let last = parts.len() - 1;
            let mut state = order | 1;
            for n in (1..last).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                parts.swap(n, (state >> 33) as usize % (n + 1));
            }
            parts.swap(0, last);
            let mut reassembly = Reassembly::default();
            let made: Vec<_> = parts
                .iter()
                .filter_map(|part| take(&mut reassembly, Instant::ZERO, part).unwrap())
                .collect();
            prop_assert_eq!(made.len(), 1);
            prop_assert_eq!(content(&made[0].packet), content(&packet));
            prop_assert_eq!(made[0].hops, 64);
        }

        #[test]
        fn no_bytes_make_it_panic(
            parts in proptest::collection::vec((0..200_usize, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..40),
        ) {
            let mut reassembly = Reassembly::default();
            for (offset, more, payload) in parts {
                let mut packet = vec![0; 20 + payload.len()];
                packet[20..].copy_from_slice(&payload);
                let [source, destination] = ["10.10.0.2", "192.0.2.1"].map(|it| it.parse().unwrap());
                write_ip(&mut packet, source, destination, 17, 1).unwrap();
                let inner = Inner::parse(&packet).unwrap();
                let fragment = Fragment { id: 1, offset: offset * 8, more };
                let _ = reassembly.take(Instant::ZERO, PEER, &inner, fragment);
            }
            reassembly.expire(Instant::ZERO + PATIENCE);
            prop_assert!(reassembly.is_empty() && reassembly.shares.values().all(|it| *it == (0, 0)));
        }
    }

    #[test]
    fn parts_that_overlap_spoil_the_packet() {
        let parts = cut(&packet(true, 3000), 1300);
        let mut reassembly = Reassembly::default();
        assert!(take(&mut reassembly, Instant::ZERO, &parts[0]).unwrap().is_none());
        // The second part again, a unit too early.
        let mut forged = parts[1].clone();
        let field = u16::from_be_bytes([forged[6], forged[7]]) - 1;
        forged[6..8].copy_from_slice(&field.to_be_bytes());
        assert!(take(&mut reassembly, Instant::ZERO, &forged).is_err());
        for part in &parts[1..] {
            assert!(take(&mut reassembly, Instant::ZERO, part).is_err());
        }
        assert_eq!(reassembly.expire(Instant::ZERO + PATIENCE), 1);
        let mut whole =
            parts.iter().filter_map(|part| take(&mut reassembly, Instant::ZERO, part).unwrap());
        assert!(whole.next().is_some(), "later it may come again");
    }

    #[test]
    fn a_peer_has_64_packets_in_parts_and_what_is_late_makes_room() {
        let mut reassembly = Reassembly::default();
        let part = cut(&packet(true, 3000), 1300).remove(0);
        let with_id = |id: u16| {
            let mut part = part.clone();
            part[4..6].copy_from_slice(&id.to_be_bytes());
            part
        };
        for id in 0..64 {
            assert!(take(&mut reassembly, Instant::ZERO, &with_id(id)).is_ok());
        }
        assert_eq!(
            take(&mut reassembly, Instant::ZERO, &with_id(64)).unwrap_err(),
            DropReason::FlowFragment
        );
        assert_eq!(reassembly.expire(Instant::ZERO + PATIENCE), 64);
        assert!(take(&mut reassembly, Instant::ZERO, &with_id(64)).is_ok());
    }
}
