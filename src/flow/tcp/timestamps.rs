//! The timestamps option: the clock behind ours, and the protection against old segments that theirs
//! give. [RFC 7323 §3, §4, §5]

use std::time::Duration;

use crate::time::Instant;

/// A tick of our clock.
const TICK: Duration = Duration::from_millis(1);

/// After so long a timestamp may have gone half around, and says nothing any more. [RFC 7323 §5.5]
const OUTDATED: Duration = Duration::from_secs(24 * 24 * 3600);

/// Our clock, which begins at an arbitrary number: nobody learns for how long the machine is up.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub offset: u32,
}

impl Clock {
    pub const fn value(self, now: Instant) -> u32 {
        ((now.as_nanos() / TICK.as_nanos() as u64) as u32).wrapping_add(self.offset)
    }

    /// How long ago the clock showed `echo`; `None` if it never has lately. Exact to a tick.
    pub fn since(self, now: Instant, echo: u32) -> Option<Duration> {
        let ticks = self.value(now).wrapping_sub(echo);
        (ticks <= i32::MAX as u32).then(|| TICK * ticks.max(1))
    }

    /// Whether `echo` is of a segment that was sent before `then`.
    pub const fn is_before(self, echo: u32, then: Instant) -> bool {
        is_older(echo, self.value(then))
    }
}

const fn is_older(value: u32, than: u32) -> bool {
    (value.wrapping_sub(than) as i32) < 0
}

/// The timestamp of the other end that is echoed: `TS.Recent`.
#[derive(Clone, Copy, Debug)]
pub struct Recent {
    pub value: u32,
    at: Instant,
}

impl Recent {
    pub const fn new(now: Instant, value: u32) -> Self {
        Self { value, at: now }
    }

    /// Whether a segment with this timestamp is an old one. [RFC 7323 §5.3 R1]
    pub fn rejects(&self, now: Instant, value: u32) -> bool {
        is_older(value, self.value) && now.since(self.at) < OUTDATED
    }

    /// Takes in the timestamp of a segment that was accepted.
    pub fn update(&mut self, now: Instant, value: u32) {
        if !self.rejects(now, value) {
            *self = Self::new(now, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_timestamp_is_rejected_across_a_lap_and_until_it_is_outdated() {
        let at = |days: u64| Instant::ZERO + Duration::from_secs(days * 24 * 3600);
        let mut recent = Recent::new(at(0), u32::MAX - 5);
        assert!(recent.rejects(at(1), u32::MAX - 6));
        assert!(!recent.rejects(at(1), u32::MAX - 5));
        recent.update(at(1), 3);
        assert!(recent.rejects(at(2), u32::MAX));
        recent.update(at(2), u32::MAX);
        assert_eq!(recent.value, 3);
        assert!(!recent.rejects(at(26), u32::MAX), "nothing was heard for 25 days");
    }

    #[test]
    fn the_clock_tells_how_long_ago_it_was_read() {
        let clock = Clock { offset: u32::MAX - 10 };
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let echo = clock.value(at(5));
        assert_eq!(clock.since(at(45), echo), Some(Duration::from_millis(40)));
        assert_eq!(clock.since(at(5), echo), Some(Duration::from_millis(1)), "a tick at least");
        assert_eq!(clock.since(at(4), echo), None, "of the future");
        assert!(clock.is_before(echo, at(6)) && !clock.is_before(echo, at(5)));
    }
}
