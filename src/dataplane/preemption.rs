//! Whether a shard that is woken interrupts whoever runs on its processor, and whether it lets others
//! run there while it has work in hand.
//!
//! Where both ends of a tunnel are on one machine, or a program sends several packets before it waits,
//! the interrupted are those whose work is nearly done: the other end's shard, which will block when
//! its call returns, or the sender of the next packet. While they wait to go on, their processor counts
//! as busy, and the program for whom the packet is gets woken on another one, which sleeps and takes
//! its time to wake up. So a shard waits for its turn.
//!
//! Beside programs that compute this would be a wait of milliseconds: a shard looks how long its
//! waits are, goes back to interrupting as soon as they are too long, and tries again about once a
//! second at most.
//!
//! While packets wait for their turn, and nothing new has come, a shard yields: those who run in
//! between are the senders and receivers of just these packets, whose queues stay shorter for it. A
//! program that computes would take a whole slice of the scheduler.

use std::time::Duration;

use crate::sys::scheduling::{self, Waited, Waits};
use crate::time::Instant;

/// Not more often does a shard look.
const INTERVAL: Duration = Duration::from_millis(1);

/// Longer waits, on average between two looks, are too long. A wake-up costs up to half as much.
const TOLERATED: Duration = Duration::from_micros(50);

/// Where waits are as long as this, programs compute all the time: who yields to one of them gets the
/// processor back after a slice of the scheduler, which is a millisecond or more.
const CROWDED: Duration = Duration::from_micros(250);

/// About as many looks count for that: one program with a long slice is no crowd.
const LOOKS: u32 = 32;

/// So long a shard interrupts after a wait that was too long, and twice as long each time that waiting
/// did not last [`WORTHWHILE`] times as long, else half: late wake-ups stay rare whatever else runs.
const PAUSE: Duration = Duration::from_millis(100);
const WORTHWHILE: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// Sees to it for the calling thread.
#[derive(Debug)]
pub struct Preemption {
    /// `None`: what cannot be looked at is not tried.
    waits: Option<Waits>,
    courtesy: Courtesy,
}

impl Preemption {
    /// For a thread that waits when woken where that is not long, or that never does.
    pub fn of_this_thread(may_wait: bool) -> Self {
        Self { waits: Waits::of_this_thread().ok().filter(|_| may_wait), courtesy: Courtesy::new() }
    }

    /// Whether others may have the processor while there is work in hand: it is known that they give it
    /// back before long.
    pub fn may_yield(&self) -> bool {
        self.waits.is_some() && self.courtesy.recent.mean() < CROWDED
    }

    /// To be called after a turn at `now` that found work.
    pub fn look(&mut self, now: Instant) {
        let Some(waits) = self.waits.as_ref().filter(|_| self.courtesy.is_due(now)) else { return };
        let is_possible = waits.read().is_some_and(|waited| {
            let change = self.courtesy.judge(now, waited);
            change.is_none_or(|waits| matches!(scheduling::wait_when_woken(waits), Ok(true)))
        });
        if !is_possible {
            self.waits = None;
        }
    }
}

/// Whether to wait when woken, by how long that took.
#[derive(Debug)]
struct Courtesy {
    waits: bool,
    /// When this was decided.
    since: Instant,
    pause: Duration,
    looked: Instant,
    waited: Waited,
    recent: Recent,
}

impl Courtesy {
    const fn new() -> Self {
        Self {
            waits: false,
            since: Instant::ZERO,
            pause: PAUSE,
            looked: Instant::ZERO,
            waited: Waited { total: Duration::ZERO, times: 0 },
            recent: Recent { total: Duration::ZERO, times: 0.0 },
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        now.since(self.looked) >= INTERVAL
    }

    /// Whether to wait from now on, if that changes at `now`, when the thread has `waited` so much.
    fn judge(&mut self, now: Instant, waited: Waited) -> Option<bool> {
        let total = waited.total.saturating_sub(self.waited.total);
        let times = waited.times.saturating_sub(self.waited.times);
        (self.looked, self.waited) = (now, waited);
        self.recent.add(total, times as f64);
        let lasted = now.since(self.since);
        let is_over = if self.waits {
            total.as_nanos() > TOLERATED.as_nanos() * u128::from(times)
        } else {
            lasted >= self.pause
        };
        if !is_over {
            return None;
        }
        if self.waits {
            let is_soon = lasted < self.pause * WORTHWHILE;
            self.pause =
                if is_soon { LONGEST_PAUSE.min(self.pause * 2) } else { PAUSE.max(self.pause / 2) };
        }
        self.waits = !self.waits;
        self.since = now;
        Some(self.waits)
    }
}

/// Waits, the latest of which weigh most.
#[derive(Clone, Copy, Debug)]
struct Recent {
    total: Duration,
    times: f64,
}

impl Recent {
    fn add(&mut self, total: Duration, times: f64) {
        self.total = self.total * (LOOKS - 1) / LOOKS + total;
        self.times = self.times * f64::from(LOOKS - 1) / f64::from(LOOKS) + times;
    }

    /// 0 before long if there are no waits any more: a shard that does not yield may have none.
    fn mean(&self) -> Duration {
        self.total.div_f64(self.times.max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(20);
    const LONG: Duration = Duration::from_millis(3);

    /// Looks each millisecond of `range` after ten waits of `wait`; when that changed something, and
    /// to what.
    fn looks(
        courtesy: &mut Courtesy,
        range: std::ops::Range<u64>,
        mut wait: impl FnMut(bool) -> Duration,
    ) -> Vec<(u64, bool)> {
        let look = |milliseconds: u64| {
            let now = Instant::from_nanos((1_000_000 + milliseconds) * 1_000_000);
            assert!(courtesy.is_due(now));
            let Waited { total, times } = courtesy.waited;
            let waited = Waited { total: total + 10 * wait(courtesy.waits), times: times + 10 };
            Some((milliseconds, courtesy.judge(now, waited)?))
        };
        range.filter_map(look).collect()
    }

    #[test]
    fn a_shard_waits_as_long_as_that_does_not_take_long() {
        assert_eq!(looks(&mut Courtesy::new(), 0..100_000, |_| SHORT), [(0, true)]);
    }

    #[test]
    fn beside_a_program_that_computes_it_tries_ever_less_often() {
        let waits = |is_waiting| if is_waiting { LONG } else { SHORT };
        let changes = looks(&mut Courtesy::new(), 0..60_000, waits);
        let tries: Vec<_> =
            changes.iter().filter(|change| change.1).map(|change| change.0).collect();
        assert_eq!(tries, [0, 201, 602, 1403, 3004, 6205, 12_606, 25_407, 41_408, 57_409]);
        let ends: Vec<_> =
            changes.iter().filter(|change| !change.1).map(|change| change.0).collect();
        let after_one_look: Vec<_> = tries.iter().map(|time| time + 1).collect();
        assert_eq!(ends, after_one_look);
    }

    #[test]
    fn when_that_program_has_ended_the_next_one_is_soon_tried_again() {
        let courtesy = &mut Courtesy::new();
        looks(courtesy, 0..30_000, |is_waiting| if is_waiting { LONG } else { SHORT });
        assert_eq!(looks(courtesy, 30_000..250_000, |_| SHORT), [(41_408, true)]);
        assert_eq!(
            looks(courtesy, 250_000..260_000, |_| LONG),
            [(250_000, false), (258_000, true), (258_001, false)]
        );
    }

    #[test]
    fn programs_that_compute_all_the_time_are_a_crowd_and_one_long_slice_is_none() {
        let mut recent = Recent { total: Duration::ZERO, times: 0.0 };
        let mut is_crowd = |looks, micros, times| {
            (0..looks)
                .for_each(|_| recent.add(Duration::from_micros(micros) * times, times.into()));
            recent.mean() >= CROWDED
        };
        assert!(!is_crowd(40, 44, 4));
        assert!(!is_crowd(1, 3000, 1));
        assert!(!is_crowd(10, 44, 4));
        assert!(is_crowd(40, 2000, 1));
        assert!(!is_crowd(40, 44, 4));
        assert!(is_crowd(40, 2000, 1));
        assert!(!is_crowd(300, 0, 0));
    }
}
