//! Packets that have been read from an IP port and wait to be sent: each flow behind itself alone.
//!
//! Whoever has little to say waits for what is just being sent, and not behind all that others have
//! ready. The order is that of FQ-CoDel: flows by turns, and first those that had nothing for a
//! round. [RFC 8290 §4] Two flows that share a queue are treated as one. So a collision of the hash, by
//! chance or by intent, makes a flow wait, and be told to slow down, as if there were one queue for all;
//! no more than that, which is why the hash has no secret.

use std::collections::VecDeque;
use std::mem;

use crate::packet::batch::IpBatch;
use crate::packet::flow::flow_of;
use crate::packet::slab::{HEADROOM, Slab};
use crate::wire::vnet::{VnetError, VnetHeader};

/// Queues, which are many more than flows that have something waiting at the same time.
pub const QUEUES: usize = 256;

/// Most packets of a turn: small ones count for more than their bytes, since each costs work.
const PACKETS_A_TURN: isize = 32;

/// Room for one packet, which may be a super-packet.
#[derive(Debug)]
struct Place {
    slab: Slab,
    len: usize,
    vnet: Result<VnetHeader, VnetError>,
    /// The place of the packet behind this one in its queue, if this is not the last.
    next: usize,
}

/// A queue, and its turn.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    first: usize,
    last: usize,
    packets: usize,
    /// Bytes that it may send before it is another's turn. What the last packet of a turn took beyond
    /// is missing in the next.
    credit: isize,
    /// It is in one of the two lists.
    is_listed: bool,
}

/// A packet whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// For [`FairQueue::packet`].
    pub place: usize,
    /// Bytes of the packet.
    pub len: usize,
    /// Below [`QUEUES`].
    pub queue: usize,
    /// No other packet waits in that queue.
    pub is_last: bool,
}

/// See the module.
#[derive(Debug)]
pub struct FairQueue {
    places: Box<[Place]>,
    /// Those that hold no packet. The one that was used last is used next: the cache has it.
    free: Vec<usize>,
    queues: Box<[Queue]>,
    /// Had nothing for a round.
    new: VecDeque<usize>,
    old: VecDeque<usize>,
    /// Bytes of a turn.
    quantum: isize,
}

impl FairQueue {
    /// Room for so many `packets`; a queue has its turn until it has sent `quantum` bytes, which is not
    /// 0.
    pub fn new(packets: usize, quantum: usize) -> Self {
        let place =
            || Place { slab: Slab::new(), len: 0, vnet: Ok(VnetHeader::default()), next: 0 };
        Self {
            places: (0..packets).map(|_| place()).collect(),
            free: (0..packets).collect(),
            queues: vec![Queue::default(); QUEUES].into(),
            new: VecDeque::with_capacity(QUEUES),
            old: VecDeque::with_capacity(QUEUES),
            quantum: isize::try_from(quantum.max(1)).unwrap_or(isize::MAX),
        }
    }

    /// How many packets still find room.
    pub const fn room(&self) -> usize {
        self.free.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Takes all packets of `batch` and leaves it empty. They are not copied: the batch gets other slabs.
    ///
    /// # Panics
    /// If there is no room for so many.
    pub fn take(&mut self, batch: &mut IpBatch) {
        for position in 0..batch.count() {
            let free = self.free.pop().expect("there is room for the batch");
            let place = &mut self.places[free];
            (place.len, place.vnet) = batch.exchange(position, &mut place.slab);
            let flow = flow_of(&place.slab[HEADROOM..HEADROOM + place.len]);
            self.append(free, flow as usize % QUEUES);
        }
        batch.clear();
    }

    fn append(&mut self, place: usize, number: usize) {
        let queue = &mut self.queues[number];
        if queue.packets == 0 {
            queue.first = place;
        } else {
            self.places[queue.last].next = place;
        }
        queue.last = place;
        queue.packets += 1;
        if !mem::replace(&mut queue.is_listed, true) {
            queue.credit = self.quantum;
            self.new.push_back(number);
        }
    }

    /// Whose turn it is. The packet can be read until others are taken.
    pub fn pop(&mut self) -> Option<Turn> {
        // Queues without packets stay listed meanwhile, and are struck off when they are come by: a lone
        // packet is spared that.
        if self.is_empty() {
            return None;
        }
        loop {
            let is_new = !self.new.is_empty();
            let list = if is_new { &mut self.new } else { &mut self.old };
            let number = *list.front()?;
            let queue = &mut self.queues[number];
            if queue.credit <= 0 {
                queue.credit += self.quantum;
                list.pop_front();
                self.old.push_back(number);
            } else if queue.packets == 0 {
                list.pop_front();
                // It is not new again before all others have had their turn.
                if is_new {
                    self.old.push_back(number);
                } else {
                    queue.is_listed = false;
                }
            } else {
                let place = queue.first;
                let Place { len, next, .. } = self.places[place];
                queue.first = next;
                queue.packets -= 1;
                // Lossless: no packet is longer than 65,535 bytes.
                queue.credit -= (len as isize).max(self.quantum / PACKETS_A_TURN);
                self.free.push(place);
                return Some(Turn { place, len, queue: number, is_last: queue.packets == 0 });
            }
        }
    }

    /// The packet at the `place` of a turn, and what was said of it.
    pub fn packet(&mut self, place: usize) -> (&mut [u8], Result<VnetHeader, VnetError>) {
        let Place { slab, len, vnet, .. } = &mut self.places[place];
        (&mut slab[HEADROOM..HEADROOM + *len], *vnet)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::crypto::entropy::{Entropy, SeededEntropy};
    use crate::packet::tests::sample::Sample;

    const QUANTUM: usize = 1000;

    /// Packets of connections, each with a port of its own, that are taken and popped.
    struct Flows {
        queue: FairQueue,
        batch: IpBatch,
    }

    impl Flows {
        fn new(room: usize) -> Self {
            Self::with_quantum(room, QUANTUM)
        }

        fn with_quantum(room: usize, quantum: usize) -> Self {
            let batch = IpBatch::with_capacity(room, usize::MAX);
            Self { queue: FairQueue::new(room, quantum), batch }
        }

        /// Takes a packet of `len` bytes from each of `ports`, in this order; the mark of each is its
        /// place among them.
        fn take(&mut self, len: usize, ports: &[u16]) {
            for (port, mark) in ports.iter().zip(0..) {
                let sample = Sample { port: *port, ..Sample::tcp(false, 0) };
                let packet = Sample { payload: vec![mark; len - 52], ..sample }.packet();
                self.batch.vacant().unwrap()[HEADROOM..HEADROOM + len].copy_from_slice(&packet);
                self.batch.push(len, Ok(VnetHeader::default()));
            }
            self.queue.take(&mut self.batch);
            assert_eq!(self.batch.count(), 0);
        }

        /// The port and the mark of the next packet, and whether it is its flow's last.
        fn pop(&mut self) -> Option<(u16, u8, bool)> {
            let turn = self.queue.pop()?;
            let (packet, vnet) = self.queue.packet(turn.place);
            assert_eq!(vnet, Ok(VnetHeader::default()));
            assert_eq!(turn.queue, flow_of(packet) as usize % QUEUES);
            let port = u16::from_be_bytes([packet[20], packet[21]]);
            Some((port, packet[packet.len() - 1], turn.is_last))
        }

        fn ports(&mut self, count: usize) -> Vec<u16> {
            (0..count).map_while(|_| self.pop()).map(|(port, ..)| port).collect()
        }
    }

    #[test]
    fn flows_have_their_turns_and_each_keeps_its_order() {
        let mut flows = Flows::new(9);
        flows.take(QUANTUM, &[1, 1, 1, 1, 2, 2, 3, 2, 3]);
        assert!(!flows.queue.is_empty());
        assert_eq!(flows.queue.room(), 0);
        let order: Vec<_> = std::iter::from_fn(|| flows.pop()).collect();
        let expected = [
            (1, 0, false),
            (2, 4, false),
            (3, 6, false),
            (1, 1, false),
            (2, 5, false),
            (3, 8, true),
            (1, 2, false),
            (2, 7, true),
            (1, 3, true),
        ];
        assert_eq!(order, expected);
        assert!(flows.queue.is_empty());
        assert_eq!(flows.queue.room(), 9);
    }

    #[test]
    fn whoever_had_nothing_for_a_round_is_first() {
        let mut flows = Flows::new(40);
        flows.take(QUANTUM, &[1, 2].repeat(15));
        assert_eq!(flows.ports(3), [1, 2, 1]);
        for _ in 0..5 {
            flows.take(80, &[9]);
            // The last place is where others find that it has nothing any more.
            assert_eq!(flows.ports(4), [9, 2, 1, 2]);
            assert_eq!(flows.ports(1), [1]);
        }
    }

    #[test]
    fn whoever_always_empties_his_queue_does_not_keep_others_from_their_turn() {
        let mut flows = Flows::new(40);
        flows.take(QUANTUM, &[7; 30]);
        let mut turns = 0;
        for _ in 0..20 {
            flows.take(QUANTUM, &[1, 2]);
            turns += flows.ports(3).iter().filter(|port| **port == 7).count();
        }
        assert!((19..=21).contains(&turns), "{turns} of 60");
    }

    #[test]
    fn small_packets_have_as_many_bytes_a_turn_as_large_ones() {
        let mut flows = Flows::new(40);
        flows.take(2 * QUANTUM, &[1; 8]);
        flows.take(250, &[2; 24]);
        let ports = flows.ports(32);
        assert_eq!(ports[..9], [1, 2, 2, 2, 2, 2, 2, 2, 2]);
        for turns in ports.chunks(9).take(3) {
            assert_eq!(turns.iter().filter(|port| **port == 1).count(), 1, "{ports:?}");
        }
    }

    #[test]
    fn a_place_is_used_again_at_once_and_its_packet_can_be_read_until_then() {
        let mut flows = Flows::new(3);
        flows.take(100, &[1]);
        let first = flows.queue.pop().unwrap().place;
        for mark in [4, 5] {
            flows.take(100, &vec![2; mark][..1]);
            let turn = flows.queue.pop().unwrap();
            assert_eq!(turn.place, first);
            assert_eq!(flows.queue.packet(first).0.len(), 100);
        }
    }

    #[test]
    fn whatever_comes_and_goes_nothing_is_lost_or_overtakes_its_own_flow() {
        let entropy: &mut dyn Entropy = &mut SeededEntropy::new(5);
        let mut flows = Flows::new(16);
        let mut waiting: BTreeMap<usize, VecDeque<(u16, usize)>> = BTreeMap::new();
        for _ in 0..20_000 {
            if entropy.up_to(1) == 0 && flows.queue.room() > 0 {
                let port = entropy.up_to(40) as u16;
                let len = 80 + entropy.up_to(3000) as usize;
                flows.take(len, &[port]);
                let packet = Sample { port, ..Sample::tcp(false, 0) }.packet();
                let queue = flow_of(&packet) as usize % QUEUES;
                waiting.entry(queue).or_default().push_back((port, len));
            } else if let Some(turn) = flows.queue.pop() {
                let queue = waiting.get_mut(&turn.queue).unwrap();
                let (port, len) = queue.pop_front().unwrap();
                assert_eq!(turn.is_last, queue.is_empty());
                let packet = flows.queue.packet(turn.place).0;
                assert_eq!((&packet[20..22], packet.len()), (&port.to_be_bytes()[..], len));
            }
            let count: usize = waiting.values().map(VecDeque::len).sum();
            assert_eq!((flows.queue.room(), flows.queue.is_empty()), (16 - count, count == 0));
        }
    }

    #[test]
    fn the_smallest_packets_do_not_have_turns_without_end() {
        let mut flows = Flows::with_quantum(100, 1 << 20);
        flows.take(80, &[1; 80]);
        flows.take(80, &[2; 3]);
        let ports = flows.ports(40);
        assert_eq!(ports[..35], [&[1; 32][..], &[2; 3]].concat());
    }
}
