//! Whether a shard that has run out of work looks again for a moment before it blocks.
//!
//! A wake-up costs about 10 µs on a virtual machine, and a tunnelled round trip has four: whoever
//! finds the next packet without blocking saves one. But a packet that comes just after the shard
//! has given up has cost the search and the wake-up. So a shard searches as long as it finds.

use std::time::Duration;

use crate::time::Instant;

/// How long it searches at most, from the start of the last turn that found work. A turn of bulk takes
/// longer, so that no search follows it: docs/performance.md has what came of one.
const LIMIT: Duration = Duration::from_micros(40);

/// Searches in vain that it takes to give up searching; one that finds makes up for two.
const CREDIT: u32 = 8;

/// Without credit, one occasion in so many is tried all the same: the traffic may have changed. A
/// search in vain costs about as much as two packets.
const TRIAL: u32 = 64;

/// The search of one shard, and whether it has paid off lately.
#[derive(Debug)]
pub struct Spin {
    last_work: Instant,
    is_searching: bool,
    credit: u32,
    /// Occasions without credit, up to [`TRIAL`].
    occasions: u32,
}

impl Spin {
    pub const fn new() -> Self {
        Self { last_work: Instant::ZERO, is_searching: false, credit: CREDIT, occasions: 0 }
    }

    /// Takes note of a turn at `now` that found work.
    pub fn found(&mut self, now: Instant) {
        if self.is_searching {
            self.credit = (self.credit + 2).min(CREDIT);
            self.is_searching = false;
        }
        self.last_work = now;
        self.occasions = if self.credit > 0 { 0 } else { self.occasions % TRIAL + 1 };
    }

    /// Whether to look again after a turn at `now` that found nothing; else it is time to block.
    pub fn goes_on(&mut self, now: Instant) -> bool {
        let is_worth_it = self.credit > 0 || self.occasions == TRIAL;
        if is_worth_it && now.since(self.last_work) < LIMIT {
            // The look right after work is not for the search's sake.
            self.is_searching = now > self.last_work;
            return true;
        }
        if self.is_searching {
            self.credit = self.credit.saturating_sub(1);
            self.is_searching = false;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `count` packets come `gap` apart; how many were found by searching.
    fn found(spin: &mut Spin, from: &mut Instant, gap: Duration, count: usize) -> usize {
        (0..count)
            .filter(|_| {
                spin.found(*from);
                let next = *from + gap;
                let mut now = *from;
                while now < next && spin.goes_on(now) {
                    now = now + Duration::from_micros(1);
                }
                *from = next;
                now >= next
            })
            .count()
    }

    #[test]
    fn packets_that_come_soon_are_found_and_late_ones_are_soon_not_searched_for() {
        let (mut spin, mut now) = (Spin::new(), Instant::from_nanos(1_000_000_000));
        let (soon, late) = (Duration::from_micros(20), Duration::from_micros(50));
        assert_eq!(found(&mut spin, &mut now, soon, 100), 100);
        assert_eq!(found(&mut spin, &mut now, late, 100), 0);
        let searched = (0..640)
            .filter(|_| {
                spin.found(now);
                let searched = spin.goes_on(now);
                now = now + late;
                spin.goes_on(now);
                searched
            })
            .count();
        assert_eq!(searched, 10, "one occasion in so many");
        assert!(found(&mut spin, &mut now, soon, 200) > 130, "and they are found again");
    }

    #[test]
    fn answers_are_searched_for_though_no_question_follows_soon() {
        let (mut spin, mut now) = (Spin::new(), Instant::from_nanos(1_000_000_000));
        for _ in 0..100 {
            assert_eq!(found(&mut spin, &mut now, Duration::from_micros(30), 1), 1);
            assert_eq!(found(&mut spin, &mut now, Duration::from_millis(1), 1), 0);
        }
    }

    #[test]
    fn a_shard_that_is_idle_blocks() {
        let mut spin = Spin::new();
        let now = Instant::from_nanos(1_000_000_000);
        spin.found(now);
        assert!(spin.goes_on(now + Duration::from_micros(39)));
        assert!(!spin.goes_on(now + Duration::from_micros(40)));
        assert!(!spin.goes_on(now + Duration::from_secs(1)));
    }
}
