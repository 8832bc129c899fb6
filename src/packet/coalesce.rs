//! Packets into super-packets: one write to a TUN device for many packets of a flow.
//! [LNX net/ipv4/tcp_offload.c:tcp_gro_receive] [LNX net/ipv4/udp_offload.c:udp_gro_receive]
//!
//! Merges only what the kernel would cut into the same packets again, byte for byte but for the
//! checksums of the transport and for IPv4 ids that have no meaning (those of packets that must not
//! be fragmented, [RFC 6864 §4.1]). The order within a flow never changes: a packet that may not
//! join closes what is open of its flow. Packets of different flows may overtake each other.
//!
//! A merged packet goes to the kernel with a partial checksum, so that nobody sums it again. The
//! checksums that its members came with are not verified: the tag has proved that the packets are
//! what the peer sent, and the kernel's WireGuard tells the stack the same (`CHECKSUM_UNNECESSARY`).
//! A member whose checksum was wrong when the peer sent it is mended by this.
//!
//! No payload is copied, only headers are read, and nothing is allocated after [`Coalescer::new`].
//! Must not panic on any bytes in the packets.

use std::ops::Range;

use crate::packet::batch::{PLAIN_HEADROOM, PlainRange};
use crate::packet::coalesce::segment::{Segment, Sight, is_same_flow, is_same_header};
use crate::packet::slab::Slab;
use crate::wire::checksum::{Sum, checksum};
use crate::wire::ip::{IPV6_HEADER_BYTES, PROTOCOL_TCP, PROTOCOL_UDP};
use crate::wire::transport::{PSH, TCP_FLAGS_AT};
use crate::wire::vnet::{Gso, GsoKind, PartialChecksum, VNET_HEADER_BYTES, VnetHeader};

mod segment;

/// Flows that may be open at once; one more closes another.
pub const OPEN_FLOWS: usize = 16;

/// Most packets of TCP in a group, and so most pieces of a write.
pub const GROUP_PACKETS: usize = 128;

/// Most packets of UDP in a group: what kernels before 6.9 cut. [LNX udp.h:UDP_MAX_SEGMENTS]
const GROUP_PACKETS_UDP: usize = 64;

/// Most bytes of a merged packet: an IPv4 header cannot say more.
const GROUP_BYTES: usize = 65_535;

const _: () = assert!(VNET_HEADER_BYTES <= PLAIN_HEADROOM);

/// What the device takes merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mergeable {
    pub tcp: bool,
    /// Kernels before 6.2 refuse it.
    pub udp: bool,
}

/// Plans the writes of one batch after the other, in fixed memory.
#[derive(Debug)]
pub struct Coalescer {
    mergeable: Mergeable,
    /// For each range, the next of its group.
    next: Box<[u16]>,
    /// In order of their first packets. Never more than `next` is long.
    merges: Vec<Merge>,
    /// The first `open_count` are valid; no flow is in two.
    open: [Open; OPEN_FLOWS],
    open_count: usize,
    /// Which to close when one more is to be opened.
    victim: usize,
}

/// What goes into one write.
#[derive(Clone, Copy, Debug)]
struct Merge {
    first: u16,
    last: u16,
    count: u16,
    /// Payload bytes of all packets.
    payload: u32,
    /// The last packet is to be pushed.
    push: bool,
    /// The transport checksum that the first packet came with.
    checksum: u16,
    /// Of the first packet; all zeros if it is none that could merge.
    segment: Segment,
}

/// A flow whose next packet may join.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    flow: u32,
    addresses: u32,
    /// Position in `merges`.
    merge: usize,
    /// The sequence number that continues it.
    sequence: u32,
    ids: Ids,
}

/// How the IPv4 ids of a group go on.
#[derive(Clone, Copy, Debug)]
enum Ids {
    /// Of the only packet yet.
    First(u16),
    Consecutive(u16),
    Constant(u16),
}

impl Default for Ids {
    fn default() -> Self {
        Self::First(0)
    }
}

impl Ids {
    /// With a packet of `id` joined, if it may. Only ids that nobody needs may repeat.
    fn join(self, id: u16, may_repeat: bool) -> Option<Self> {
        match self {
            Self::First(last) | Self::Consecutive(last) if id == last.wrapping_add(1) => {
                Some(Self::Consecutive(id))
            }
            Self::First(last) | Self::Constant(last) if id == last && may_repeat => {
                Some(Self::Constant(id))
            }
            Self::First(_) | Self::Consecutive(_) | Self::Constant(_) => None,
        }
    }
}

impl Coalescer {
    /// Room for plans of `capacity` packets; what a batch has beyond is not merged.
    pub fn new(mergeable: Mergeable, capacity: usize) -> Self {
        let capacity = capacity.min(usize::from(u16::MAX));
        Self {
            mergeable,
            next: vec![0; capacity].into(),
            merges: Vec::with_capacity(capacity),
            open: [Open::default(); OPEN_FLOWS],
            open_count: 0,
            victim: 0,
        }
    }

    /// Changes what may be merged, from the next plan on.
    pub const fn set_mergeable(&mut self, mergeable: Mergeable) {
        self.mergeable = mergeable;
    }

    /// Plans the writes of the packets in `ranges`, which do not overlap and have their headroom.
    ///
    /// Writes a vnet header into the headroom of each first packet, and makes it the merged
    /// packet's header where there is more than one.
    ///
    /// # Panics
    /// If a range is not inside its slab or has no headroom.
    pub fn plan<'a>(&'a mut self, slabs: &mut [Slab], ranges: &'a [PlainRange]) -> Plan<'a> {
        self.merges.clear();
        self.open_count = 0;
        let (planned, rest) = ranges.split_at(ranges.len().min(self.next.len()));
        for position in 0..planned.len() {
            self.place(slabs, planned, position);
        }
        for merge in &self.merges {
            merge.finish(slabs, ranges[usize::from(merge.first)]);
        }
        for range in rest {
            put_vnet(slabs, *range, &VnetHeader::default());
        }
        Plan { merges: self.merges.iter(), next: &self.next, planned, rest: rest.iter() }
    }

    /// Lets the packet at `position` join what is open of its flow, or start anew.
    fn place(&mut self, slabs: &[Slab], ranges: &[PlainRange], position: usize) {
        let packet = bytes(slabs, ranges[position]);
        let segment = match Sight::of(packet, self.mergeable) {
            Sight::Foreign => return self.start(position, Segment::default()),
            Sight::Unclear { addresses } => {
                self.close_all_between(addresses);
                return self.start(position, Segment::default());
            }
            Sight::Segment(segment) => segment,
        };
        if let Some(slot) = self.find(slabs, ranges, packet, &segment) {
            let head = bytes(slabs, ranges[usize::from(self.merges[self.open[slot].merge].first)]);
            if self.try_join(slot, head, packet, &segment, position) {
                return;
            }
            self.close(slot);
        }
        self.start(position, segment);
        if segment.is_mergeable && !segment.push {
            self.open(&segment);
        }
    }

    /// Where the flow of `packet` is open.
    fn find(
        &self,
        slabs: &[Slab],
        ranges: &[PlainRange],
        packet: &[u8],
        segment: &Segment,
    ) -> Option<usize> {
        let mut open = self.open[..self.open_count].iter();
        open.position(|open| {
            open.flow == segment.flow && {
                let first = usize::from(self.merges[open.merge].first);
                is_same_flow(bytes(slabs, ranges[first]), packet)
            }
        })
    }

    /// Appends the packet at `position` to the group that is open in `slot`, if it may join.
    fn try_join(
        &mut self,
        slot: usize,
        head: &[u8],
        packet: &[u8],
        segment: &Segment,
        position: usize,
    ) -> bool {
        let open = &mut self.open[slot];
        let merge = &mut self.merges[open.merge];
        let size = merge.segment.payload;
        let most = if segment.is_tcp { GROUP_PACKETS } else { GROUP_PACKETS_UDP };
        let bytes = segment.header_bytes() + merge.payload as usize + usize::from(segment.payload);
        let fits = segment.is_mergeable
            && segment.payload <= size
            && usize::from(merge.count) < most
            && bytes <= GROUP_BYTES
            && (!segment.is_tcp || segment.sequence == open.sequence)
            && is_same_header(head, packet, segment);
        let Some(ids) = open.ids.join(segment.id, segment.id_may_repeat).filter(|_| fits) else {
            return false;
        };
        self.next[usize::from(merge.last)] = position as u16;
        merge.last = position as u16;
        merge.count += 1;
        merge.payload += u32::from(segment.payload);
        merge.push = segment.push;
        open.ids = ids;
        open.sequence = open.sequence.wrapping_add(u32::from(segment.payload));
        if segment.push || segment.payload < size {
            self.close(slot);
        }
        true
    }

    /// Starts a group with the packet at `position`.
    fn start(&mut self, position: usize, segment: Segment) {
        self.merges.push(Merge {
            first: position as u16,
            last: position as u16,
            count: 1,
            payload: u32::from(segment.payload),
            push: segment.push,
            checksum: segment.checksum,
            segment,
        });
    }

    /// Opens the group that was started last.
    fn open(&mut self, segment: &Segment) {
        let slot = if self.open_count < OPEN_FLOWS {
            self.open_count += 1;
            self.open_count - 1
        } else {
            self.victim = (self.victim + 1) % OPEN_FLOWS;
            self.victim
        };
        let first = Ids::First(segment.id);
        self.open[slot] = Open {
            flow: segment.flow,
            addresses: segment.addresses,
            merge: self.merges.len() - 1,
            sequence: segment.sequence.wrapping_add(u32::from(segment.payload)),
            ids: first,
        };
    }

    fn close(&mut self, slot: usize) {
        self.open_count -= 1;
        self.open[slot] = self.open[self.open_count];
    }

    /// Closes every flow that may be one between `addresses`.
    fn close_all_between(&mut self, addresses: u32) {
        for slot in (0..self.open_count).rev() {
            if self.open[slot].addresses == addresses {
                self.close(slot);
            }
        }
    }
}

impl Merge {
    /// What is left to be done to the packet.
    fn vnet(&self) -> VnetHeader {
        if self.count == 1 {
            return VnetHeader::default();
        }
        let segment = &self.segment;
        let kind = match (segment.is_tcp, segment.is_v6) {
            (true, false) => GsoKind::TcpV4,
            (true, true) => GsoKind::TcpV6,
            (false, _) => GsoKind::UdpL4,
        };
        let (start, offset) = (u16::from(segment.ip_bytes), segment.checksum_at() as u16);
        VnetHeader {
            checksum: Some(PartialChecksum { start, offset }),
            gso: Some(Gso { kind, size: segment.payload, ecn: false }),
            header_length: segment.header_bytes() as u16,
        }
    }

    /// Writes the headers of the write in and before its first packet, which is at `range`.
    fn finish(&self, slabs: &mut [Slab], range: PlainRange) {
        put_vnet(slabs, range, &self.vnet());
        if self.count == 1 {
            return;
        }
        let segment = &self.segment;
        let head = bytes_mut(slabs, range);
        let covered = set_lengths(head, segment, segment.header_bytes() + self.payload as usize);
        let (addresses, protocol): (Range<usize>, u8) = (
            if segment.is_v6 { 8..40 } else { 12..20 },
            if segment.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP },
        );
        let pseudo = Sum::new().add(&head[addresses]).add_u32(covered).add_u32(protocol.into());
        let transport = &mut head[usize::from(segment.ip_bytes)..];
        put(transport, segment.checksum_at(), !pseudo.finish());
        if segment.is_tcp && self.push {
            transport[TCP_FLAGS_AT] |= PSH;
        }
    }

    /// Makes the first packet, which is at `range`, what it was.
    fn undo(&self, slabs: &mut [Slab], range: PlainRange) {
        if self.count == 1 {
            return;
        }
        let segment = &self.segment;
        let head = bytes_mut(slabs, range);
        set_lengths(head, segment, segment.header_bytes() + usize::from(segment.payload));
        let transport = &mut head[usize::from(segment.ip_bytes)..];
        put(transport, segment.checksum_at(), self.checksum);
        if segment.is_tcp {
            // A packet that is to be pushed is the last of its group.
            transport[TCP_FLAGS_AT] &= !PSH;
        }
    }
}

/// Makes the headers in `head` say that the packet has `len` bytes, and returns how many of them are
/// the transport's.
fn set_lengths(head: &mut [u8], segment: &Segment, len: usize) -> u32 {
    let ip_bytes = usize::from(segment.ip_bytes);
    if segment.is_v6 {
        put(head, 4, (len - IPV6_HEADER_BYTES) as u16);
    } else {
        put(head, 2, len as u16);
        put(head, 10, 0);
        let sum = checksum(&head[..ip_bytes]);
        put(head, 10, sum);
    }
    let covered = len - ip_bytes;
    if !segment.is_tcp {
        put(head, ip_bytes + 4, covered as u16);
    }
    covered as u32
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn put_vnet(slabs: &mut [Slab], range: PlainRange, vnet: &VnetHeader) {
    let header = range.start - VNET_HEADER_BYTES..range.start;
    slabs[range.slab][header].copy_from_slice(&vnet.to_bytes());
}

fn bytes(slabs: &[Slab], PlainRange { slab, start, len }: PlainRange) -> &[u8] {
    &slabs[slab][start..start + len]
}

fn bytes_mut(slabs: &mut [Slab], PlainRange { slab, start, len }: PlainRange) -> &mut [u8] {
    &mut slabs[slab][start..start + len]
}

/// The writes of a batch, in the order in which they are to be made.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    merges: std::slice::Iter<'a, Merge>,
    next: &'a [u16],
    planned: &'a [PlainRange],
    rest: std::slice::Iter<'a, PlainRange>,
}

impl<'a> Iterator for Plan<'a> {
    type Item = Group<'a>;

    fn next(&mut self) -> Option<Group<'a>> {
        if let Some(merge) = self.merges.next() {
            return Some(Group { merge: *merge, next: self.next, ranges: self.planned });
        }
        let range = self.rest.next()?;
        let segment = Segment::default();
        let merge =
            Merge { first: 0, last: 0, count: 1, payload: 0, push: false, checksum: 0, segment };
        Some(Group { merge, next: self.next, ranges: std::slice::from_ref(range) })
    }
}

/// Packets that are written as one.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    merge: Merge,
    next: &'a [u16],
    ranges: &'a [PlainRange],
}

/// Bytes to write, and where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub slab: usize,
    pub start: usize,
    pub len: usize,
}

impl Piece {
    /// A packet with its vnet header.
    const fn whole(PlainRange { slab, start, len }: PlainRange) -> Self {
        Self { slab, start: start - VNET_HEADER_BYTES, len: VNET_HEADER_BYTES + len }
    }

    pub fn bytes(self, slabs: &[Slab]) -> &[u8] {
        &slabs[self.slab][self.start..self.start + self.len]
    }
}

impl<'a> Group<'a> {
    /// How many packets it holds, and how many pieces it has: at least one, at most
    /// [`GROUP_PACKETS`].
    pub const fn count(&self) -> usize {
        self.merge.count as usize
    }

    /// What one call is to write, in this order: vnet header and first packet, then payloads.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + use<'a> {
        let header_bytes = self.merge.segment.header_bytes();
        self.members().enumerate().map(move |(position, range)| {
            if position == 0 {
                return Piece::whole(range);
            }
            let PlainRange { slab, start, len } = range;
            Piece { slab, start: start + header_bytes, len: len - header_bytes }
        })
    }

    /// A copy of all of them as one packet, and what is left to be done to it.
    pub fn to_packet(&self, slabs: &[Slab]) -> (VnetHeader, Vec<u8>) {
        let length: usize = self.pieces().map(|piece| piece.len).sum();
        let mut packet = Vec::with_capacity(length);
        for (position, piece) in self.pieces().enumerate() {
            let skipped = if position == 0 { VNET_HEADER_BYTES } else { 0 };
            packet.extend_from_slice(&piece.bytes(slabs)[skipped..]);
        }
        (self.merge.vnet(), packet)
    }

    /// Takes the group apart again, for a device that refused it: yields what one call each is to
    /// write, vnet header and packet, as the packets came. [`Self::pieces`] are void after that.
    pub fn dissolve(&self, slabs: &mut [Slab]) -> impl Iterator<Item = Piece> + use<'a> {
        self.merge.undo(slabs, self.ranges[usize::from(self.merge.first)]);
        for range in self.members() {
            put_vnet(slabs, range, &VnetHeader::default());
        }
        self.members().map(Piece::whole)
    }

    fn members(&self) -> impl Iterator<Item = PlainRange> + use<'a> {
        let Self { merge, next, ranges } = *self;
        let mut position = merge.first;
        (0..merge.count).map(move |_| {
            let range = ranges[usize::from(position)];
            position = next.get(usize::from(position)).copied().unwrap_or(0);
            range
        })
    }
}

#[cfg(test)]
mod tests;
