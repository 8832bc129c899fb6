//! Tells senders to slow down while a queue does not run empty: CoDel. [RFC 8289]
//!
//! A queue that takes up a burst is of use; one that never drains makes every packet late and
//! carries no more. How long a packet has waited in a TUN's queue the kernel does not say. But when
//! a queue is found empty none waits, so the time since that was last seen stands for the shortest
//! wait of [RFC 8289 §3.2], and the target is zero.
//!
//! It only keeps the time. Whom to tell, and how, is for its caller.

use std::time::Duration;

use crate::time::Instant;

/// How long a queue may stand before its sender is told. More than the round trips between
/// neighbouring clouds, so that a window that just fills a path is left alone.
const PATIENCE: Duration = Duration::from_millis(30);

/// How long until the second sender is told, divided by the square root of their number.
/// [RFC 8289 §5.4] Less than a round trip is no harm: what a sender learns within one, congestion
/// control takes as once; but several senders may share the queue.
const SPACING: Duration = Duration::from_millis(10);

/// A queue that stands again within this time continues near its former rate. [RFC 8289 §5.5]
const MEMORY: Duration = PATIENCE.saturating_mul(16);

/// A queue, as it is seen by who takes packets from it.
#[derive(Clone, Debug)]
pub struct StandingQueue {
    /// When it was first seen with something in it, since it was seen empty.
    since: Option<Instant>,
    /// A sender has been told since then.
    is_telling: bool,
    /// When the next sender is told, if it goes on to stand.
    next: Instant,
    /// Senders told, one after the other, while it stood.
    told: u32,
}

impl StandingQueue {
    pub const fn new() -> Self {
        Self { since: None, is_telling: false, next: Instant::ZERO, told: 0 }
    }

    /// Takes note that it was seen at `now`, empty or not.
    pub fn seen(&mut self, now: Instant, is_empty: bool) {
        if is_empty {
            self.since = None;
            self.is_telling = false;
        } else {
            self.since.get_or_insert(now);
        }
    }

    /// Whether the sender of a packet that was taken at `now` is to be told; true is for one packet.
    ///
    /// The longer the queue stands, the more often. [RFC 8289 §5.4]
    pub fn tells(&mut self, now: Instant) -> bool {
        let Some(since) = self.since else { return false };
        if now < since + PATIENCE || self.is_telling && now < self.next {
            return false;
        }
        if !self.is_telling {
            self.is_telling = true;
            let is_fresh = now.since(self.next) < MEMORY;
            self.told = if is_fresh { self.told.saturating_sub(2) } else { 0 };
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

    /// Sees it stand each millisecond; when a sender was told.
    fn stand(queue: &mut StandingQueue, range: std::ops::Range<u64>) -> Vec<u64> {
        let mut see = |ms: &u64| {
            queue.seen(at(*ms), false);
            queue.tells(at(*ms))
        };
        range.filter(|ms| see(ms)).collect()
    }

    #[test]
    fn nobody_is_told_while_the_queue_runs_empty_now_and_then() {
        let mut queue = StandingQueue::new();
        for start in (0..1000).step_by(30) {
            assert_eq!(stand(&mut queue, start..start + 30), [0; 0]);
            queue.seen(at(start + 30), true);
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
        queue.seen(at(65), true);
        assert_eq!(stand(&mut queue, 100..136), [130, 135], "10 ms divided by the root of 5");
        queue.seen(at(136), true);
        assert_eq!(stand(&mut queue, 1000..1045), [1030, 1040]);
    }

    #[test]
    fn time_in_which_nobody_looks_is_no_standing_queue() {
        let mut queue = StandingQueue::new();
        queue.seen(at(0), true);
        assert_eq!(stand(&mut queue, 5000..5030), [0; 0]);
    }
}
