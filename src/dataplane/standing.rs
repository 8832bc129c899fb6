//! Tells senders to slow down while the queue of the IP port does not run empty: CoDel. [RFC 8289]
//!
//! A queue that takes up a burst is of use; one that never drains makes every packet late and
//! carries no more. How long a packet has waited in a TUN's queue the kernel does not say. But a
//! read that finds the queue empty says that none waits, so the time since the last such read stands
//! for the shortest wait of [RFC 8289 §3.2], and the target is zero.
//!
//! It only keeps the time. Whom to tell, and how, is for its caller.

use std::time::Duration;

use crate::time::Instant;

/// How long a queue may stand before a sender is told. More than the round trips between
/// neighbouring clouds, so that a window that just fills a path is left alone.
const PATIENCE: Duration = Duration::from_millis(30);

/// How long until the second sender is told, divided by the square root of their number.
/// [RFC 8289 §5.4] Less than a round trip is no harm: what a sender learns within one, congestion
/// control takes as once; but several senders may share the queue.
const SPACING: Duration = Duration::from_millis(10);

/// A queue that stands again within this time continues near its former rate. [RFC 8289 §5.5]
const MEMORY: Duration = PATIENCE.saturating_mul(16);

/// The queue of one IP port, as the reads show it.
#[derive(Debug)]
pub struct StandingQueue {
    /// The last read did not find it empty.
    stands: bool,
    /// When the next sender is told, if it goes on to stand.
    next: Instant,
    /// Senders told, one after the other, while it stood.
    told: u32,
}

impl StandingQueue {
    pub const fn new() -> Self {
        Self { stands: false, next: Instant::ZERO, told: 0 }
    }

    /// Takes note of a read at `now`, which found the queue empty at its end or did not.
    pub fn read(&mut self, now: Instant, is_empty: bool) {
        let began = !is_empty && !self.stands;
        self.stands = !is_empty;
        if began {
            let is_fresh = now.since(self.next) < MEMORY;
            self.told = if is_fresh { self.told.saturating_sub(2) } else { 0 };
            self.next = now + PATIENCE;
        }
    }

    /// Whether the sender of a packet that was read at `now` is to be told; true is for one packet.
    ///
    /// The longer the queue stands, the more often. [RFC 8289 §5.4]
    pub fn tells(&mut self, now: Instant) -> bool {
        if !self.stands || now < self.next {
            return false;
        }
        self.told += 1;
        self.next = now + SPACING.div_f64(f64::from(self.told).sqrt());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos((1_000_000 + milliseconds) * 1_000_000)
    }

    /// Reads once a millisecond, never to the end of the queue; when a sender was told.
    fn stand(queue: &mut StandingQueue, range: std::ops::Range<u64>) -> Vec<u64> {
        let mut read = |ms: &u64| {
            queue.read(at(*ms), false);
            queue.tells(at(*ms))
        };
        range.filter(|ms| read(ms)).collect()
    }

    #[test]
    fn nobody_is_told_while_the_queue_runs_empty_now_and_then() {
        let mut queue = StandingQueue::new();
        for start in (0..1000).step_by(30) {
            assert_eq!(stand(&mut queue, start..start + 30), [0; 0]);
            queue.read(at(start + 30), true);
            assert!(!queue.tells(at(start + 30)));
        }
    }

    #[test]
    fn while_the_queue_stands_senders_are_told_ever_more_often() {
        let mut queue = StandingQueue::new();
        // Apart by 10 ms divided by the square roots of 1, 2, 3, 4, rounded up.
        assert_eq!(stand(&mut queue, 0..65), [30, 40, 48, 54, 59, 64]);
    }

    #[test]
    fn a_queue_that_stands_again_soon_continues_near_its_former_rate_and_later_anew() {
        let mut queue = StandingQueue::new();
        assert_eq!(stand(&mut queue, 0..65).len(), 6);
        queue.read(at(65), true);
        assert_eq!(stand(&mut queue, 100..136), [130, 135], "10 ms divided by the root of 5");
        queue.read(at(136), true);
        assert_eq!(stand(&mut queue, 1000..1045), [1030, 1040]);
    }

    #[test]
    fn time_without_reads_is_no_standing_queue() {
        let mut queue = StandingQueue::new();
        queue.read(at(0), true);
        assert_eq!(stand(&mut queue, 5000..5030), [0; 0]);
    }
}
