//! What was sent and is not acknowledged in order: the scoreboard. [RFC 6675 §3] [RFC 8985 §6]
//!
//! Ranges, not segments: what left as one burst is one entry until a SACK block or a loss divides it,
//! and what was delivered is one entry as long as it has no gap. So its length follows the number of
//! bursts and holes. Beside it, in the order of sending, one record for each transmission: RACK looks
//! at the oldest alone, and each is looked at a bounded number of times.
//!
//! It also measures how fast the path delivers. [draft-cheng-iccrg-delivery-rate-estimation-02]

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::congestion::Rate;
use crate::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    InFlight,
    /// To be sent again.
    Lost,
    /// Delivered, though not in order.
    Sacked,
}

/// A range, and its last transmission.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u64,
    end: u64,
    state: State,
    is_retransmitted: bool,
    is_app_limited: bool,
    /// Which transmission; later ones have larger numbers.
    transmission: u64,
    sent_at: Instant,
    /// What was delivered then, and when the last of it was.
    delivered: u64,
    delivered_at: Instant,
    /// When what was delivered last then had been sent.
    first_sent_at: Instant,
}

impl Entry {
    const fn len(&self) -> u64 {
        self.end - self.start
    }
}

/// The latest transmission that was delivered. [RFC 8985 §5.2]
#[derive(Clone, Copy, Debug, Default)]
struct Rack {
    transmission: u64,
    end: u64,
    rtt: Duration,
}

/// What an acknowledgment says, and how to judge it.
pub struct Evidence<'a> {
    pub now: Instant,
    /// Everything before it has arrived.
    pub acknowledged: u64,
    /// So have these, each between `acknowledged` and the end of what was sent.
    pub blocks: &'a [Range<u64>],
    /// The transmission that [`Acked::is_original`] asks about.
    pub limit: u64,
    /// Blocks that would make more entries than this are not believed: who divides what was sent into
    /// more ranges than it had segments wants us to work. (CVE-2019-11478)
    pub max_entries: usize,
    /// The shortest round trip of late.
    pub min_rtt: Duration,
    /// Whether what made the other end acknowledge was sent before a time.
    pub is_before: &'a dyn Fn(Instant) -> bool,
}

/// What an acknowledgment has changed. Amounts in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acked {
    /// Newly delivered, in order or not.
    pub delivered: u64,
    /// Since the oldest, and since the latest transmission that was delivered, neither repeated.
    pub oldest_rtt: Option<Duration>,
    pub latest_rtt: Option<Duration>,
    pub rate: Option<Rate>,
    /// Something was delivered that had not been sent again, and was not sent after the transmission
    /// that was asked about. [RFC 5682 §3]
    pub is_original: bool,
    /// When what was delivered had been sent last, if that was for another time.
    pub retransmitted_at: Option<Instant>,
    /// Something was delivered that was sent before what had been delivered already, once.
    pub is_reordered: bool,
}

/// The sample of the delivery rate that an acknowledgment makes.
#[derive(Clone, Copy, Debug)]
struct Sample {
    prior_delivered: u64,
    prior_delivered_at: Instant,
    send_elapsed: Duration,
    is_app_limited: bool,
}

#[derive(Debug)]
pub struct Scoreboard {
    /// By position, without gaps.
    entries: VecDeque<Entry>,
    /// By time of sending; may tell of what is no longer there.
    transmissions: VecDeque<(u64, Range<u64>)>,
    next_transmission: u64,
    in_flight: u64,
    sacked: u64,
    lost: u64,
    /// Nothing before it is lost.
    first_lost: u64,
    rack: Rack,
    /// The end of the furthest range that was ever delivered.
    furthest: u64,
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    /// Until so much is delivered the application is what limits the rate; zero: it does not.
    app_limited_until: u64,
}

impl Scoreboard {
    pub const fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            transmissions: VecDeque::new(),
            next_transmission: 1,
            in_flight: 0,
            sacked: 0,
            lost: 0,
            first_lost: 0,
            rack: Rack { transmission: 0, end: 0, rtt: Duration::ZERO },
            furthest: 0,
            delivered: 0,
            delivered_at: Instant::ZERO,
            first_sent_at: Instant::ZERO,
            app_limited_until: 0,
        }
    }

    /// Bytes that are on the way.
    pub const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Bytes that arrived beyond a gap.
    pub const fn sacked(&self) -> u64 {
        self.sacked
    }

    /// Bytes that are to be sent again.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes that were ever delivered.
    pub const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Memory that it holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.transmissions.capacity() * size_of::<(u64, Range<u64>)>()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Transmissions of which it is not settled whether they arrived.
    pub fn transmissions(&self) -> usize {
        self.transmissions.len()
    }

    /// The number that the next transmission gets.
    pub const fn next_transmission(&self) -> u64 {
        self.next_transmission
    }

    /// The application has nothing more to send.
    pub const fn on_app_limited(&mut self) {
        self.app_limited_until = self.delivered + self.in_flight;
        if self.app_limited_until == 0 {
            self.app_limited_until = 1;
        }
    }

    /// Takes note of a transmission of what has not been sent before; `start` is the end of what has.
    pub fn on_sent(&mut self, now: Instant, range: Range<u64>) {
        if self.in_flight == 0 {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        let entry = self.transmit(now, &range, false);
        self.in_flight += entry.len();
        self.entries.push_back(entry);
    }

    /// Takes note that `range`, the start of what [`next_lost`](Self::next_lost) gave, was sent again.
    pub fn on_retransmitted(&mut self, now: Instant, range: Range<u64>) {
        self.divide(range.start);
        self.divide(range.end);
        let entry = self.transmit(now, &range, true);
        let (first, end) = self.indices(&range);
        for old in self.entries.range_mut(first..end) {
            match old.state {
                State::Lost => self.lost -= old.len(),
                State::InFlight => self.in_flight -= old.len(),
                State::Sacked => continue,
            }
            self.in_flight += old.len();
            *old = Entry { start: old.start, end: old.end, ..entry };
        }
        if self.first_lost >= range.start {
            self.first_lost = self.first_lost.max(range.end);
        }
    }

    fn transmit(&mut self, now: Instant, range: &Range<u64>, is_retransmitted: bool) -> Entry {
        let transmission = self.next_transmission;
        self.next_transmission += 1;
        self.transmissions.push_back((transmission, range.clone()));
        Entry {
            start: range.start,
            end: range.end,
            state: State::InFlight,
            is_retransmitted,
            is_app_limited: self.app_limited_until > 0,
            transmission,
            sent_at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
        }
    }

    /// Takes in what an acknowledgment says.
    pub fn on_ack(&mut self, evidence: &Evidence<'_>) -> Acked {
        let acknowledged = evidence.acknowledged;
        let mut acked = Acked::default();
        let mut sample = None;
        self.divide(acknowledged);
        while let Some(entry) = self.entries.front().copied() {
            if entry.start >= acknowledged {
                break;
            }
            self.entries.pop_front();
            match entry.state {
                State::Sacked => self.sacked -= entry.len(),
                State::Lost => self.lost -= entry.len(),
                State::InFlight => self.in_flight -= entry.len(),
            }
            if entry.state != State::Sacked {
                self.deliver(evidence, &entry, &mut acked, &mut sample);
            }
        }
        for block in evidence.blocks {
            self.sack(evidence, block, &mut acked, &mut sample);
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
            self.transmissions = VecDeque::new();
        }
        acked.rate = sample.and_then(|sample| self.rate(evidence, &sample));
        acked
    }

    /// Marks what of `block` is not yet as delivered.
    fn sack(
        &mut self,
        evidence: &Evidence<'_>,
        block: &Range<u64>,
        acked: &mut Acked,
        sample: &mut Option<Sample>,
    ) {
        let is_new = |entry: &Entry| entry.state != State::Sacked;
        let (first, end) = self.indices(block);
        if self.entries.len() >= evidence.max_entries || !self.entries.range(first..end).any(is_new)
        {
            return;
        }
        self.divide(block.start);
        self.divide(block.end);
        let (first, end) = self.indices(block);
        for index in first..end {
            let entry = self.entries[index];
            match entry.state {
                State::Sacked => continue,
                State::Lost => self.lost -= entry.len(),
                State::InFlight => self.in_flight -= entry.len(),
            }
            self.sacked += entry.len();
            self.entries[index].state = State::Sacked;
            self.deliver(evidence, &entry, acked, sample);
        }
        self.join(first, end);
    }

    /// Makes one entry of those between `first` and `end`, all delivered, and of those beside them.
    fn join(&mut self, mut first: usize, mut end: usize) {
        let is_sacked = |entry: Option<&Entry>| entry.is_some_and(|e| e.state == State::Sacked);
        if first > 0 && is_sacked(self.entries.get(first - 1)) {
            first -= 1;
        }
        if is_sacked(self.entries.get(end)) {
            end += 1;
        }
        if end - first > 1 {
            self.entries[first].end = self.entries[end - 1].end;
            self.entries.drain(first + 1..end);
        }
    }

    fn deliver(
        &mut self,
        evidence: &Evidence<'_>,
        entry: &Entry,
        acked: &mut Acked,
        sample: &mut Option<Sample>,
    ) {
        acked.delivered += entry.len();
        self.delivered += entry.len();
        self.delivered_at = evidence.now;
        let rtt = evidence.now.since(entry.sent_at);
        if entry.is_retransmitted {
            acked.retransmitted_at = acked.retransmitted_at.max(Some(entry.sent_at));
        } else {
            acked.oldest_rtt = acked.oldest_rtt.max(Some(rtt));
            acked.latest_rtt = Some(acked.latest_rtt.map_or(rtt, |latest| latest.min(rtt)));
            acked.is_original |= entry.transmission < evidence.limit;
            acked.is_reordered |= entry.end < self.furthest;
        }
        self.furthest = self.furthest.max(entry.end);
        // What was sent again may have been delivered the first time. What came out of order is not
        // echoed, so that of it only the time can tell. [RFC 8985 §6.2 step 2]
        let is_first_copy = entry.is_retransmitted
            && (rtt < evidence.min_rtt
                || (entry.end <= evidence.acknowledged && (evidence.is_before)(entry.sent_at)));
        let is_latest = (entry.transmission, entry.end) > (self.rack.transmission, self.rack.end);
        if is_latest && !is_first_copy {
            self.rack = Rack { transmission: entry.transmission, end: entry.end, rtt };
        }
        if sample.is_none_or(|sample| entry.delivered >= sample.prior_delivered) {
            *sample = Some(Sample {
                prior_delivered: entry.delivered,
                prior_delivered_at: entry.delivered_at,
                send_elapsed: entry.sent_at.since(entry.first_sent_at),
                is_app_limited: entry.is_app_limited,
            });
            self.first_sent_at = entry.sent_at;
        }
    }

    fn rate(&mut self, evidence: &Evidence<'_>, sample: &Sample) -> Option<Rate> {
        if self.app_limited_until > 0 && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        // Acknowledgments may come in a heap, and so may what was sent: the slower of the two.
        let ack_elapsed = evidence.now.since(sample.prior_delivered_at);
        let elapsed = ack_elapsed.max(sample.send_elapsed);
        // Less than a round trip is no measurement of a path.
        if evidence.min_rtt != Duration::MAX && elapsed < evidence.min_rtt {
            return None;
        }
        let bytes = self.delivered - sample.prior_delivered;
        let nanos = elapsed.as_nanos().max(1);
        let bytes_per_second = u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).ok()?;
        (bytes_per_second > 0).then_some(Rate {
            bytes_per_second,
            prior_delivered: sample.prior_delivered,
            is_app_limited: sample.is_app_limited,
        })
    }

    /// Marks as lost what was sent before something that was delivered, and has had time enough since:
    /// a round trip and `window`. Tells how many bytes those are, and when the next time is up.
    /// [RFC 8985 §6.2 step 5]
    pub fn detect_loss(&mut self, now: Instant, window: Duration) -> (u64, Option<Instant>) {
        let mut lost = 0;
        while let Some((transmission, range)) = self.transmissions.front().cloned() {
            if transmission > self.rack.transmission {
                break;
            }
            let mut is_settled = true;
            let (first, end) = self.indices(&range);
            for entry in self.entries.range_mut(first..end) {
                if entry.transmission != transmission || entry.state != State::InFlight {
                    continue;
                }
                if transmission == self.rack.transmission && entry.end > self.rack.end {
                    is_settled = false;
                    break;
                }
                let due = entry.sent_at + self.rack.rtt + window;
                if due > now {
                    self.mark(lost);
                    return (lost, Some(due));
                }
                entry.state = State::Lost;
                self.first_lost = self.first_lost.min(entry.start);
                lost += entry.len();
            }
            if !is_settled {
                break;
            }
            self.transmissions.pop_front();
        }
        self.mark(lost);
        (lost, None)
    }

    const fn mark(&mut self, bytes: u64) {
        self.in_flight -= bytes;
        self.lost += bytes;
    }

    /// Marks the first `bytes` as lost, where nothing else can tell. [RFC 6582 §3.2]
    pub fn lose_first(&mut self, bytes: u64) -> u64 {
        let Some(start) = self.entries.front().map(|entry| entry.start) else { return 0 };
        self.divide(start + bytes);
        self.lose(|entry| entry.start == start)
    }

    /// Marks as lost, after a timeout, the first in flight and what has had a round trip's time.
    /// [RFC 8985 §6.3]
    pub fn lose_old(&mut self, now: Instant) -> u64 {
        let Some(start) = self.entries.front().map(|entry| entry.start) else { return 0 };
        if self.entries.front().is_some_and(|entry| entry.state == State::Sacked) {
            self.forget_sacks();
        }
        let rtt = self.rack.rtt;
        self.lose(|entry| entry.start == start || entry.sent_at + rtt <= now)
    }

    /// Marks everything in flight as lost.
    pub fn lose_all(&mut self) -> u64 {
        self.lose(|_| true)
    }

    fn lose(&mut self, which: impl Fn(&Entry) -> bool) -> u64 {
        let mut lost = 0;
        for entry in &mut self.entries {
            if entry.state == State::InFlight && which(entry) {
                entry.state = State::Lost;
                self.first_lost = self.first_lost.min(entry.start);
                lost += entry.len();
            }
        }
        self.mark(lost);
        lost
    }

    /// What counts as lost and was never sent again is on the way after all.
    pub fn find_lost(&mut self) {
        for entry in &mut self.entries {
            if entry.state == State::Lost && !entry.is_retransmitted {
                entry.state = State::InFlight;
                self.lost -= entry.len();
                self.in_flight += entry.len();
                self.transmissions.push_front((entry.transmission, entry.start..entry.end));
            }
        }
        self.transmissions
            .make_contiguous()
            .sort_unstable_by_key(|(transmission, _)| *transmission);
    }

    /// The other end has thrown away what it had out of order. [RFC 2018 §8]
    fn forget_sacks(&mut self) {
        for entry in &mut self.entries {
            if entry.state == State::Sacked {
                entry.state = State::Lost;
                self.sacked -= entry.len();
                self.lost += entry.len();
                self.first_lost = self.first_lost.min(entry.start);
            }
        }
    }

    /// The first range to be sent again.
    pub fn next_lost(&mut self) -> Option<Range<u64>> {
        if self.lost == 0 {
            return None;
        }
        let first = self.entries.partition_point(|entry| entry.end <= self.first_lost);
        let mut lost = self.entries.range(first..).skip_while(|entry| entry.state != State::Lost);
        let Entry { start, mut end, .. } = *lost.next()?;
        for entry in lost.take_while(|entry| entry.state == State::Lost) {
            end = entry.end;
        }
        self.first_lost = start;
        Some(start..end)
    }

    /// The last range that is on the way, and when it was sent.
    pub fn last(&self) -> Option<Range<u64>> {
        self.entries.back().map(|entry| entry.start..entry.end)
    }

    /// Which entries have something of `range`.
    fn indices(&self, range: &Range<u64>) -> (usize, usize) {
        let first = self.entries.partition_point(|entry| entry.end <= range.start);
        let end = self.entries.partition_point(|entry| entry.start < range.end);
        (first, end.max(first))
    }

    /// Lets an entry end and another begin at `position`, if it is inside of one.
    fn divide(&mut self, position: u64) {
        let index = self.entries.partition_point(|entry| entry.end <= position);
        let Some(entry) = self.entries.get_mut(index).filter(|entry| entry.start < position) else {
            return;
        };
        let rest = Entry { start: position, ..*entry };
        entry.end = position;
        self.entries.insert(index + 1, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1 << 33;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn range(start: u64, end: u64) -> Range<u64> {
        START + start..START + end
    }

    fn ack(board: &mut Scoreboard, millis: u64, to: u64, blocks: &[Range<u64>]) -> Acked {
        board.on_ack(&Evidence {
            now: at(millis),
            acknowledged: START + to,
            blocks,
            limit: 0,
            max_entries: 20,
            min_rtt: Duration::from_millis(10),
            is_before: &|_| false,
        })
    }

    /// A burst of a hundred bytes at each of the times.
    fn board(times: &[u64]) -> Scoreboard {
        let mut board = Scoreboard::new();
        for (n, millis) in times.iter().enumerate() {
            let start = 100 * n as u64;
            board.on_sent(at(*millis), range(start, start + 100));
        }
        board
    }

    #[test]
    fn what_was_sent_before_something_that_arrived_is_lost_when_its_time_is_up() {
        let mut board = board(&[0, 0, 5]);
        let acked = ack(&mut board, 20, 0, &[range(150, 200)]);
        assert_eq!((acked.delivered, board.in_flight(), board.sacked()), (50, 250, 50));
        assert_eq!(board.detect_loss(at(20), Duration::from_millis(4)), (0, Some(at(24))));
        assert_eq!(board.detect_loss(at(24), Duration::from_millis(4)), (150, None));
        assert_eq!(board.next_lost(), Some(range(0, 150)));
        assert_eq!((board.in_flight(), board.lost()), (100, 150), "what was sent later is not");
    }

    #[test]
    fn a_repetition_that_is_lost_is_found_by_what_was_sent_after_it() {
        let mut board = board(&[0, 0]);
        ack(&mut board, 20, 0, &[range(100, 200)]);
        assert_eq!(board.detect_loss(at(20), Duration::ZERO), (100, None));
        board.on_retransmitted(at(20), range(0, 60));
        board.on_retransmitted(at(21), range(60, 100));
        assert_eq!((board.in_flight(), board.lost(), board.next_lost()), (100, 0, None));
        ack(&mut board, 41, 0, &[range(60, 200)]);
        assert_eq!(board.detect_loss(at(41), Duration::ZERO), (60, None));
        assert_eq!(board.next_lost(), Some(range(0, 60)));
        board.on_retransmitted(at(41), range(0, 60));
        let acked = ack(&mut board, 60, 200, &[]);
        assert_eq!((acked.delivered, board.delivered()), (60, 200));
        assert!(board.is_empty());
        assert_eq!(
            (board.in_flight(), board.lost(), board.sacked(), board.held_bytes()),
            (0, 0, 0, 0)
        );
    }

    #[test]
    fn what_arrived_is_one_entry_and_scattered_bytes_are_not_believed_without_end() {
        let mut board = board(&[0; 10]);
        for n in (0..10).rev() {
            ack(&mut board, 20, 0, &[range(n * 100 + 10, n * 100 + 100)]);
        }
        assert_eq!(board.entries.len(), 20);
        assert_eq!(ack(&mut board, 20, 0, &[range(0, 5)]).delivered, 0, "one too many");
        ack(&mut board, 20, 800, &[]);
        assert_eq!(ack(&mut board, 20, 800, &[range(900, 910)]).delivered, 10);
        assert_eq!(board.entries.len(), 2, "a gap, and what arrived behind it");
    }

    #[test]
    fn the_rate_is_what_was_delivered_meanwhile_by_the_slower_of_sending_and_arriving() {
        let mut board = board(&[0, 10, 20, 30]);
        // Sent within 30 ms, all acknowledged at once.
        let rate = ack(&mut board, 100, 400, &[]).rate.unwrap();
        assert_eq!((rate.bytes_per_second, rate.prior_delivered), (4000, 0), "400 in 100 ms");
        board.on_app_limited();
        board.on_sent(at(100), range(400, 500));
        let rate = ack(&mut board, 120, 500, &[]).rate.unwrap();
        assert_eq!((rate.bytes_per_second, rate.is_app_limited), (5000, true));
        board.on_sent(at(120), range(500, 600));
        assert!(ack(&mut board, 125, 600, &[]).rate.is_none(), "less than a round trip");
    }

    #[test]
    fn what_was_believed_lost_is_on_the_way_again_and_is_looked_at_again() {
        let mut board = board(&[0, 1, 2]);
        board.lose_old(at(300));
        assert_eq!((board.lost(), board.in_flight()), (300, 0));
        board.on_retransmitted(at(300), range(0, 100));
        board.find_lost();
        assert_eq!((board.lost(), board.in_flight()), (0, 300));
        ack(&mut board, 310, 100, &[range(200, 300)]);
        assert_eq!(board.detect_loss(at(700), Duration::ZERO).0, 100, "the second");
    }

    #[test]
    fn a_peer_that_forgets_what_it_had_gets_it_again() {
        let mut board = board(&[0, 0, 0]);
        ack(&mut board, 20, 0, &[range(100, 200)]);
        ack(&mut board, 20, 100, &[]);
        board.lose_old(at(300));
        assert_eq!(board.next_lost(), Some(range(100, 300)));
    }
}
