//! The receiving half of a connection: the stream put together, the window, and when to acknowledge.
//! [RFC 9293 §3.8.6] [RFC 2018] [RFC 2883] [RFC 5681 §4.2]
//!
//! What came out of order waits in a map, within the window and a bound on its memory. The window
//! grows with what the application takes in a round trip, and its end never goes back.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::options::SackBlocks;
use super::queue::{Piece, Queue};
use crate::time::Instant;

/// The window that a connection begins with, in bytes.
pub const INITIAL_WINDOW_BYTES: usize = 64 << 10;

/// What a connection is left with when memory is short, in bytes.
pub const PRESSED_WINDOW_BYTES: usize = 16 << 10;

/// How long an acknowledgment is kept back. [LNX tcp.h:TCP_DELACK_MIN]
const DELAYED_ACK: Duration = Duration::from_millis(40);

/// Segments that are acknowledged at once when a connection begins, or begins anew after idleness:
/// the other end is in slow start. [LNX tcp.h:TCP_MAX_QUICKACKS]
const QUICK_ACKS: u8 = 16;
const QUICK_AFTER: Duration = Duration::from_millis(200);

/// A piece that came out of order grows to so many bytes before another is begun: they move as one.
const PIECE_BYTES: usize = 64 << 10;

/// A piece of fewer bytes is not worth an allocation of its own once it is in order.
const OWNED_BYTES: usize = 1 << 10;

/// What a piece costs beyond its bytes: small ones must not be cheap.
const PIECE_OVERHEAD_BYTES: usize = 128;

/// When an acknowledgment is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    No,
    At(Instant),
    Now,
}

#[derive(Debug)]
pub struct Receiver {
    /// In order, and not yet taken.
    pub queue: Queue,
    /// The first position that has not arrived. Beyond the end of the queue once a FIN has.
    nxt: u64,
    /// Out of order, by position; they do not overlap.
    pieces: BTreeMap<u64, Piece>,
    pieces_bytes: usize,
    fin: Option<u64>,
    /// Behind the last position that was announced.
    edge: u64,
    scale: u8,
    /// What may be held now, and ever. Bytes.
    capacity: usize,
    max_capacity: usize,
    /// What arrived out of order, the latest first. [RFC 2018 §4]
    blocks: [Range<u64>; SackBlocks::MAX],
    /// What arrived twice, to be told once.
    duplicate: Option<Range<u64>>,
    due: Due,
    /// What was not acknowledged yet, in bytes.
    unacknowledged: u64,
    quick_acks: u8,
    arrived_at: Instant,
    mss: u64,
    /// A round trip, as the receiver sees it.
    round_trip: Duration,
    /// What has arrived, in order or not, since.
    arrived: usize,
    arrived_since: Instant,
}

impl Receiver {
    /// `start`: the position behind the SYN. `scale`: by how much the window is shifted.
    pub fn new(now: Instant, start: u64, scale: u8, max_capacity: usize, mss: u64) -> Self {
        let max_capacity = max_capacity.min(usize::from(u16::MAX) << scale);
        Self {
            queue: Queue::new(start),
            nxt: start,
            pieces: BTreeMap::new(),
            pieces_bytes: 0,
            fin: None,
            edge: start,
            scale,
            capacity: INITIAL_WINDOW_BYTES.min(max_capacity),
            max_capacity,
            blocks: std::array::from_fn(|_| 0..0),
            duplicate: None,
            due: Due::No,
            unacknowledged: 0,
            quick_acks: QUICK_ACKS,
            arrived_at: now,
            mss,
            round_trip: Duration::MAX,
            arrived: 0,
            arrived_since: now,
        }
    }

    pub const fn nxt(&self) -> u64 {
        self.nxt
    }

    /// Behind the last position that may be sent to us.
    pub const fn edge(&self) -> u64 {
        self.edge
    }

    /// All of the stream has arrived.
    pub fn is_finished(&self) -> bool {
        self.fin.is_some_and(|fin| self.nxt > fin)
    }

    /// Memory that it holds, in bytes.
    pub const fn held_bytes(&self) -> usize {
        self.queue.held_bytes() + self.pieces_bytes
    }

    /// The largest shift that `capacity` bytes of window need.
    pub fn scale_for(capacity: usize) -> u8 {
        let max = super::options::MAX_WINDOW_SCALE;
        (0..max).find(|scale| usize::from(u16::MAX) << scale >= capacity).unwrap_or(max)
    }

    /// How long a round trip takes.
    pub fn on_round_trip(&mut self, sample: Duration) {
        let lower = self.round_trip.min(sample);
        self.round_trip = lower + (sample - lower) / 8;
    }

    /// Takes in the payload of an acceptable segment that begins at `start`, and whether its FIN
    /// follows. True if there is more to read. What is not in order is kept as long as no more than
    /// `most` bytes are held.
    pub fn on_segment(
        &mut self,
        now: Instant,
        start: u64,
        payload: &[u8],
        has_fin: bool,
        most: usize,
    ) -> bool {
        let end = start + payload.len() as u64;
        if now.since(self.arrived_at) > QUICK_AFTER {
            self.quick_acks = QUICK_ACKS;
        }
        self.arrived_at = now;
        if start < self.nxt && start < end {
            self.duplicate = Some(start..end.min(self.nxt));
        }
        if has_fin && end <= self.edge && self.fin.is_none() && end >= self.nxt {
            self.fin = Some(end);
        }
        let limit = self.edge.min(self.fin.unwrap_or(u64::MAX));
        let fresh = start.max(self.nxt)..end.min(limit);
        let before = self.nxt;
        let is_next = start <= self.nxt;
        if fresh.start < fresh.end {
            let bytes = &payload[(fresh.start - start) as usize..(fresh.end - start) as usize];
            self.arrived += bytes.len();
            if is_next {
                self.queue.push(bytes);
                self.nxt = fresh.end;
            } else {
                self.keep(fresh.start, bytes, most);
            }
        }
        let had_gap = !self.pieces.is_empty();
        self.join();
        if self.fin == Some(self.nxt) {
            self.nxt += 1;
        }
        self.unacknowledged += self.nxt - before;
        let is_plain = is_next && !had_gap && !has_fin && self.duplicate.is_none();
        self.schedule(now, is_plain && fresh.end == end, end - start);
        self.nxt > before
    }

    /// A copy of what was acknowledged has arrived: tells its sender. [RFC 2883 §4.1]
    pub fn on_copy(&mut self, range: Range<u64>) {
        if range.start < range.end && range.end <= self.nxt {
            self.duplicate = Some(range);
        }
        self.due = Due::Now;
    }

    /// Puts what follows in order behind the queue.
    fn join(&mut self) {
        while let Some(entry) = self.pieces.first_entry() {
            let start = *entry.key();
            if start > self.nxt {
                break;
            }
            let Piece(piece) = entry.remove();
            self.pieces_bytes -= piece.capacity() + PIECE_OVERHEAD_BYTES;
            let skipped = (self.nxt - start) as usize;
            if skipped == 0 && piece.len() >= OWNED_BYTES {
                self.nxt += piece.len() as u64;
                self.queue.push_owned(piece);
            } else if let Some(rest) = piece.get(skipped..) {
                self.nxt += rest.len() as u64;
                self.queue.push(rest);
            }
        }
        // What has been put in order is no block any more.
        let nxt = self.nxt;
        let mut kept = 0;
        for index in 0..self.blocks.len() {
            if self.blocks[index].end > nxt {
                self.blocks.swap(kept, index);
                kept += 1;
            }
        }
        self.blocks[kept..].fill(0..0);
    }

    /// Keeps what came out of order, but for what is there already.
    fn keep(&mut self, start: u64, bytes: &[u8], most: usize) {
        let end = start + bytes.len() as u64;
        let mut at = start;
        let mut is_known = true;
        while at < end {
            let before = self.pieces.range(..=at).next_back();
            let before = before.map(|(start, piece)| (*start, *start + piece.0.len() as u64));
            if let Some((_, piece_end)) = before.filter(|(_, piece_end)| *piece_end > at) {
                at = piece_end.min(end);
                continue;
            }
            let next = self.pieces.range(at..).next().map_or(end, |(next, _)| *next);
            let gap = &bytes[(at - start) as usize..(next.min(end) - start) as usize];
            is_known = false;
            if !self.store(before, at, gap, most) {
                break;
            }
            at += gap.len() as u64;
        }
        if is_known {
            self.duplicate = Some(start..end);
        }
        if at > start {
            self.report(start..at);
        }
    }

    /// Stores bytes that are not there; false if they would be too much.
    fn store(&mut self, before: Option<(u64, u64)>, at: u64, bytes: &[u8], most: usize) -> bool {
        let most = most.min(2 * self.capacity);
        if self.held_bytes() + bytes.len() + PIECE_OVERHEAD_BYTES > most {
            return false;
        }
        let adjacent = before.filter(|(_, end)| *end == at).map(|(start, _)| start);
        let adjacent = adjacent.and_then(|start| self.pieces.get_mut(&start));
        if let Some(piece) = adjacent.filter(|piece| piece.0.len() < PIECE_BYTES) {
            let before = piece.0.capacity();
            piece.0.extend_from_slice(bytes);
            self.pieces_bytes += piece.0.capacity() - before;
        } else {
            self.pieces_bytes += bytes.len() + PIECE_OVERHEAD_BYTES;
            self.pieces.insert(at, Piece(bytes.to_vec()));
        }
        true
    }

    /// Makes a block of `range` and of those that it touches, and the first of all.
    fn report(&mut self, mut range: Range<u64>) {
        let mut blocks: [Range<u64>; SackBlocks::MAX] = std::array::from_fn(|_| 0..0);
        let mut count = 1;
        for block in std::mem::replace(&mut self.blocks, std::array::from_fn(|_| 0..0)) {
            if block.start <= range.end && range.start <= block.end && block.start < block.end {
                range = range.start.min(block.start)..range.end.max(block.end);
            } else if count < blocks.len() {
                blocks[count] = block;
                count += 1;
            }
        }
        blocks[0] = range;
        self.blocks = blocks;
    }

    fn schedule(&mut self, now: Instant, is_plain: bool, length: u64) {
        if !is_plain {
            // The sender waits for this. [RFC 5681 §4.2]
            self.due = Due::Now;
            return;
        }
        if length == 0 {
            return;
        }
        if self.unacknowledged >= 2 * self.mss || self.quick_acks > 0 {
            self.quick_acks = self.quick_acks.saturating_sub(1);
            self.due = Due::Now;
        } else if self.due == Due::No {
            self.due = Due::At(now + DELAYED_ACK);
        }
    }

    /// An acknowledgment is wanted at once.
    pub const fn acknowledge(&mut self) {
        self.due = Due::Now;
    }

    pub fn is_due(&self, now: Instant) -> bool {
        match self.due {
            Due::No => false,
            Due::At(at) => at <= now,
            Due::Now => true,
        }
    }

    pub const fn next_deadline(&self) -> Option<Instant> {
        match self.due {
            Due::At(at) => Some(at),
            Due::No | Due::Now => None,
        }
    }

    /// Forgets `count` bytes that the application has taken.
    pub fn consume(&mut self, count: usize, is_pressed: bool) {
        self.queue.advance(self.queue.start() + count as u64);
        // Worth a segment of its own: what lets the other end go on. [RFC 9293 §3.8.6.2.2]
        let (open, new) = (self.edge - self.nxt.min(self.edge), self.free(is_pressed));
        let worth = (self.capacity as u64 / 4).max(2 * self.mss);
        if new >= open + worth || (open < 2 * self.mss && new >= 2 * self.mss) {
            self.due = Due::Now;
        }
    }

    /// Once a round trip: makes room for twice what arrived in it, so that the window never limits a
    /// sender that the path does not. What is lost is missing for another round trip, at least, and
    /// keeps all that follows. An application that does not keep up gets no more.
    /// [LNX tcp_input.c:tcp_rcv_space_adjust]
    pub fn tune(&mut self, now: Instant, is_pressed: bool) {
        let passed = now.since(self.arrived_since);
        if self.round_trip == Duration::MAX || passed < self.round_trip {
            return;
        }
        let rounds = if self.pieces.is_empty() { 2 } else { 4 };
        let wanted = rounds * self.arrived + 16 * self.mss as usize;
        if !is_pressed && self.queue.len() <= self.capacity / 2 {
            self.capacity = self.capacity.max(wanted.min(self.max_capacity));
        }
        self.arrived = 0;
        self.arrived_since = now;
    }

    /// Bytes that there is room for.
    fn free(&self, is_pressed: bool) -> u64 {
        let pressed = if is_pressed { PRESSED_WINDOW_BYTES } else { usize::MAX };
        self.capacity.min(pressed).saturating_sub(self.queue.len()) as u64
    }

    /// The window as it stands in a header, from the first position that has not arrived. Its end
    /// goes back for nothing, and forward by a segment at least.
    pub fn window(&mut self, is_pressed: bool) -> u16 {
        let candidate = self.nxt + self.free(is_pressed);
        let step = self.mss.min(self.capacity as u64 / 2);
        if candidate >= self.edge + step {
            self.edge = candidate;
        }
        let open = self.edge.saturating_sub(self.nxt);
        // Rounded up: rounded down it would go back.
        let shifted = open.div_ceil(1 << self.scale).min(u64::from(u16::MAX));
        self.edge = self.edge.max(self.nxt + (shifted << self.scale));
        shifted as u16
    }

    /// The window of a SYN, which nobody shifts.
    pub fn initial_window(&mut self) -> u16 {
        let window = u16::try_from(self.capacity).unwrap_or(u16::MAX);
        self.edge = self.edge.max(self.nxt + u64::from(window));
        window
    }

    /// Whether an acknowledgment has more to say than a position.
    pub fn has_blocks(&self) -> bool {
        self.duplicate.is_some() || self.blocks[0].start < self.blocks[0].end
    }

    /// The blocks for an acknowledgment that is about to leave, a duplicate first. [RFC 2883 §4]
    pub fn take_blocks(&mut self) -> SackBlocks {
        let mut sack = SackBlocks::default();
        let blocks = self.blocks.iter().filter(|block| block.start < block.end);
        for block in self.duplicate.take().iter().chain(blocks) {
            sack.push(block.start as u32, block.end as u32);
        }
        sack
    }

    /// An acknowledgment has left.
    pub fn on_acknowledged(&mut self) {
        self.due = Due::No;
        self.unacknowledged = 0;
        // Who does not know the option is not told.
        self.duplicate = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1 << 33;
    const NOW: Instant = Instant::from_nanos(1 << 40);

    fn receiver() -> Receiver {
        let mut receiver = Receiver::new(NOW, START, 8, 8 << 20, 1000);
        assert_eq!(receiver.window(false), 256, "64 KiB in units of 256");
        receiver
    }

    fn take(receiver: &mut Receiver, at: u64, bytes: &[u8]) -> Vec<(u32, u32)> {
        receiver.on_segment(NOW, START + at, bytes, false, usize::MAX);
        receiver.take_blocks().as_slice().to_vec()
    }

    #[test]
    fn blocks_are_told_the_latest_first_and_join_what_they_touch() {
        let mut receiver = receiver();
        assert_eq!(take(&mut receiver, 0, &[0; 10]), []);
        assert_eq!(take(&mut receiver, 20, &[2; 10]), [(20, 30)]);
        assert_eq!(take(&mut receiver, 40, &[4; 10]), [(40, 50), (20, 30)]);
        assert_eq!(take(&mut receiver, 60, &[6; 10]), [(60, 70), (40, 50), (20, 30)]);
        assert_eq!(take(&mut receiver, 30, &[3; 10]), [(20, 50), (60, 70)]);
        assert_eq!(take(&mut receiver, 10, &[1; 10]), [(60, 70)]);
        assert_eq!(take(&mut receiver, 50, &[5; 10]), []);
        let bytes: Vec<u8> = receiver.queue.slices(START).flatten().copied().collect();
        assert_eq!(bytes, (0..7).flat_map(|n| [n; 10]).collect::<Vec<u8>>());
        assert_eq!(receiver.pieces_bytes, 0);
    }

    #[test]
    fn what_comes_twice_is_told_once_and_first() {
        let mut receiver = receiver();
        take(&mut receiver, 0, &[0; 30]);
        assert_eq!(take(&mut receiver, 10, &[0; 10]), [(10, 20)]);
        assert_eq!(take(&mut receiver, 40, &[0; 10]), [(40, 50)]);
        assert_eq!(take(&mut receiver, 40, &[0; 10]), [(40, 50), (40, 50)], "inside of a block");
        assert_eq!(receiver.take_blocks().as_slice(), [(40, 50)]);
        receiver.on_copy(START..START + 5);
        assert_eq!(receiver.take_blocks().as_slice()[0], (0, 5));
    }

    #[test]
    fn the_end_of_the_window_never_goes_back() {
        let mut receiver = receiver();
        let mut position = 0;
        let mut edge = receiver.edge();
        for n in 0..200 {
            let room = (receiver.edge() - START - position).min(1 + n * 37 % 1400);
            take(&mut receiver, position, &vec![0; room as usize]);
            position += room;
            if n % 3 == 0 {
                receiver.consume(receiver.queue.len() / 2, n % 2 == 0);
            }
            let told = u64::from(receiver.window(n % 5 == 0)) << 8;
            assert!(receiver.nxt() + told >= edge, "{n}");
            edge = receiver.nxt() + told;
            assert!(edge <= receiver.edge());
        }
    }

    #[test]
    fn the_window_grows_with_what_arrives_in_a_round_trip_if_it_is_taken() {
        for (takes, expected) in [(true, 4 << 20), (false, 64 << 10)] {
            let mut receiver = receiver();
            receiver.on_round_trip(Duration::from_millis(10));
            let mut now = NOW;
            for _ in 0..40 {
                let room = receiver.edge() - receiver.nxt();
                receiver.on_segment(
                    now,
                    receiver.nxt(),
                    &vec![0; room as usize],
                    false,
                    usize::MAX,
                );
                if takes {
                    receiver.consume(receiver.queue.len(), false);
                }
                now = now + Duration::from_millis(10);
                receiver.tune(now, false);
                receiver.window(false);
            }
            let is_grown = receiver.capacity >= 4 << 20;
            assert_eq!(is_grown, takes, "{} of {expected}", receiver.capacity);
        }
    }
}
