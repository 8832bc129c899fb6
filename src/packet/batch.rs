//! Packets on their way through the stages: fixed numbers of slabs, and what is in them.
//!
//! A batch is filled by one call of a port and emptied in the same turn, by the stages or by a queue
//! that takes its packets. It never grows: its capacity is the budget of that call.

use std::ops::Range;

use crate::packet::slab::{HEADROOM, Slab};
use crate::proto::endpoint::Endpoint;
use crate::wire::ip::Ecn;
use crate::wire::vnet::{VnetError, VnetHeader};

/// IP packets read from an IP port, one a slab, each with [`HEADROOM`] bytes in front. A packet may
/// be a super-packet, which its vnet header tells.
#[derive(Debug)]
pub struct IpBatch {
    slabs: Box<[Slab]>,
    lens: Box<[usize]>,
    vnets: Box<[Result<VnetHeader, VnetError>]>,
    count: usize,
    /// Bytes of all packets.
    bytes: usize,
    /// Bytes after which the batch is full, too.
    most_bytes: usize,
}

impl IpBatch {
    /// Full with `packets` packets, or when those that it has are of `bytes` bytes or more.
    pub fn with_capacity(packets: usize, bytes: usize) -> Self {
        Self {
            slabs: Slab::many(packets),
            lens: vec![0; packets].into(),
            vnets: vec![Ok(VnetHeader::default()); packets].into(),
            count: 0,
            bytes: 0,
            most_bytes: bytes,
        }
    }

    pub const fn clear(&mut self) {
        self.count = 0;
        self.bytes = 0;
    }

    pub const fn is_full(&self) -> bool {
        self.count == self.slabs.len() || self.bytes >= self.most_bytes
    }

    /// Where the next packet may be read to; `None` once the batch is full.
    ///
    /// Returns the whole slab; a packet goes to [`HEADROOM`] and is then told to [`Self::push`].
    pub fn vacant(&mut self) -> Option<&mut Slab> {
        if self.is_full() { None } else { self.slabs.get_mut(self.count) }
    }

    /// Keeps the packet of `len` bytes that was written to [`HEADROOM`] of the vacant slab, and what
    /// was said of it.
    ///
    /// Does nothing if the batch is full or the slab is shorter.
    pub fn push(&mut self, len: usize, vnet: Result<VnetHeader, VnetError>) {
        if !self.is_full() && HEADROOM + len <= self.slabs[self.count].len() {
            self.lens[self.count] = len;
            self.vnets[self.count] = vnet;
            self.count += 1;
            self.bytes += len;
        }
    }

    pub const fn count(&self) -> usize {
        self.count
    }

    /// Gives away the packet at `position`, which is below [`Self::count`] and behind [`HEADROOM`], for
    /// another slab; its length, and what was said of it.
    pub const fn exchange(
        &mut self,
        position: usize,
        slab: &mut Slab,
    ) -> (usize, Result<VnetHeader, VnetError>) {
        std::mem::swap(&mut self.slabs[position], slab);
        (self.lens[position], self.vnets[position])
    }

    /// The packet at `position`, which is below [`Self::count`], and what was said of it.
    pub fn packet(&mut self, position: usize) -> (&mut [u8], Result<VnetHeader, VnetError>) {
        let len = self.lens[position];
        (&mut self.slabs[position][HEADROOM..HEADROOM + len], self.vnets[position])
    }
}

/// What is known of one received message: a datagram, or several merged by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of all its datagrams.
    pub len: usize,
    /// Bytes of each datagram but the last, which may be shorter; `len` when it is alone.
    pub stride: usize,
    /// Who sent it, and to which address of ours.
    pub from: Endpoint,
    /// The outer congestion mark.
    pub ecn: Ecn,
    /// The kernel cut it because the slab was too short.
    pub truncated: bool,
}

impl Received {
    /// The range of each datagram within its slab, in order of arrival.
    pub fn datagrams(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (len, stride) = (self.len, self.stride.max(1));
        (0..len.div_ceil(stride).max(1)).map(move |n| n * stride..len.min((n + 1) * stride))
    }
}

/// Messages read from a datagram port, one a slab, each at its start.
#[derive(Debug)]
pub struct DatagramBatch {
    slabs: Box<[Slab]>,
    received: Vec<Received>,
}

impl DatagramBatch {
    pub fn with_capacity(capacity: usize) -> Self {
        Self { slabs: Slab::many(capacity), received: Vec::with_capacity(capacity) }
    }

    pub fn clear(&mut self) {
        self.received.clear();
    }

    /// The slabs that hold no message yet; the first of them takes the next.
    pub fn vacant(&mut self) -> &mut [Slab] {
        &mut self.slabs[self.received.len()..]
    }

    /// Keeps the message that was written to the start of the first vacant slab.
    ///
    /// Does nothing if the batch is full or the slab is shorter.
    pub fn push(&mut self, received: Received) {
        let slab = self.slabs.get(self.received.len());
        if slab.is_some_and(|slab| received.len <= slab.len()) {
            self.received.push(received);
        }
    }

    pub fn count(&self) -> usize {
        self.received.len()
    }

    pub fn received(&self) -> &[Received] {
        &self.received
    }

    /// The slabs with their messages, both in order of arrival.
    pub fn parts(&mut self) -> (&mut [Slab], &[Received]) {
        (&mut self.slabs, &self.received)
    }
}

/// One IP packet to deliver: where it lies in the slabs of a [`PlainBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainRange {
    pub slab: usize,
    /// INVARIANT: at least [`PLAIN_HEADROOM`].
    pub start: usize,
    pub len: usize,
}

/// Bytes in front of a packet of a [`PlainBatch`] that nobody needs any more: the dead transport
/// header, in which a TUN port may put its own.
pub const PLAIN_HEADROOM: usize = 16;

/// Authenticated IP packets on their way to an IP port, in the slabs they were opened in.
#[derive(Debug)]
pub struct PlainBatch<'a> {
    slabs: &'a mut [Slab],
    ranges: &'a [PlainRange],
}

impl<'a> PlainBatch<'a> {
    pub const fn new(slabs: &'a mut [Slab], ranges: &'a [PlainRange]) -> Self {
        Self { slabs, ranges }
    }

    pub const fn count(&self) -> usize {
        self.ranges.len()
    }

    /// The packet at `position`, which is below [`Self::count`].
    pub fn packet(&self, position: usize) -> &[u8] {
        let PlainRange { slab, start, len } = self.ranges[position];
        &self.slabs[slab][start..start + len]
    }

    /// The slabs with the ranges of all packets, for a port that writes headers in front.
    pub const fn parts(&mut self) -> (&mut [Slab], &[PlainRange]) {
        (self.slabs, self.ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Result<VnetHeader, VnetError> =
        Ok(VnetHeader { checksum: None, gso: None, header_length: 0 });

    fn received(len: usize, stride: usize) -> Received {
        let from = Endpoint { remote: "192.0.2.1:1".parse().unwrap(), local: None };
        Received { len, stride, from, ecn: Ecn::NotEct, truncated: false }
    }

    #[test]
    fn a_full_batch_takes_no_more() {
        let mut batch = IpBatch::with_capacity(2, usize::MAX);
        for byte in [1, 2] {
            batch.vacant().unwrap()[HEADROOM] = byte;
            batch.push(1, NOTHING);
        }
        assert!(batch.vacant().is_none());
        batch.push(1, NOTHING);
        assert_eq!(batch.count(), 2);
        assert_eq!(batch.packet(0), (&mut [1][..], NOTHING));
        assert_eq!(batch.packet(1), (&mut [2][..], NOTHING));

        let mut batch = DatagramBatch::with_capacity(1);
        batch.push(received(3, 3));
        assert!(batch.vacant().is_empty());
        batch.push(received(3, 3));
        assert_eq!(batch.count(), 1);
    }

    #[test]
    fn a_batch_is_full_with_the_packet_that_reaches_its_bytes() {
        let mut batch = IpBatch::with_capacity(9, 100);
        for (len, is_full) in [(40, false), (59, false), (1000, true), (0, true)] {
            batch.push(len, NOTHING);
            assert_eq!((batch.is_full(), batch.vacant().is_none()), (is_full, is_full));
        }
        assert_eq!(batch.count(), 3);
        batch.clear();
        assert!(batch.vacant().is_some());
    }

    #[test]
    fn a_length_beyond_the_slab_is_not_kept() {
        let mut batch = IpBatch::with_capacity(1, usize::MAX);
        batch.push(crate::packet::slab::SLAB_BYTES, NOTHING);
        assert_eq!(batch.count(), 0);
        let mut batch = DatagramBatch::with_capacity(1);
        batch.push(received(crate::packet::slab::SLAB_BYTES + 1, 1));
        assert_eq!(batch.count(), 0);
    }

    #[test]
    fn merged_datagrams_come_apart_at_their_stride() {
        let ranges = |len, stride| received(len, stride).datagrams().collect::<Vec<_>>();
        assert_eq!(ranges(10, 10), [0..10]);
        assert_eq!(ranges(10, 4), [0..4, 4..8, 8..10]);
        assert_eq!(ranges(8, 4), [0..4, 4..8]);
        assert_eq!(ranges(0, 0), [0..0]);
    }
}
