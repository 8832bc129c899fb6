//! Instants as plain numbers: no clock is read here (that is `sys::clock`).
//!
//! [`Instant`] counts nanoseconds of boot time, suspend included, as the kernel's coarse boot-time
//! clock does; `std::time::Instant` on Linux stands still during suspend. Arithmetic saturates,
//! because clocks do go backwards.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the boot-time clock, in nanoseconds since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    pub const ZERO: Self = Self(0);

    /// The farthest future: what "never" compares as.
    pub const MAX: Self = Self(u64::MAX);

    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rhs)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(rhs)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Wall-clock time since the Unix epoch. Only TAI64N and "latest handshake" need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall {
    pub secs: u64,
    /// Below 1,000,000,000.
    pub nanos: u32,
}

/// Both clocks, sampled once per batch by the thread that did the I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub mono: Instant,
    pub wall: Wall,
}

/// Lets through a burst, and then one each interval: for replies and log lines.
///
/// Time that goes backwards earns nothing.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    burst: u32,
    interval: Duration,
    left: u32,
    refilled: Instant,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that earns one each `interval`, which is not zero.
    pub const fn new(burst: u32, interval: Duration) -> Self {
        Self { burst, interval, left: burst, refilled: Instant::ZERO }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let (passed, interval) = (nanos(now.since(self.refilled)), nanos(self.interval));
        let earned = passed / interval.max(1);
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(self.burst);
            // What has passed of the next interval counts for it.
            self.refilled = Instant(now.0 - passed % interval.max(1));
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }

    /// Gives one back that was taken.
    pub fn give_back(&mut self) {
        self.left = self.left.saturating_add(1).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_a_burst_through_and_then_one_each_interval() {
        let mut bucket = TokenBucket::new(3, Duration::from_millis(10));
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let taken = |bucket: &mut TokenBucket, now| (0..10).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, at(1000)), 3);
        assert_eq!(taken(&mut bucket, at(1009)), 0);
        assert_eq!(taken(&mut bucket, at(1025)), 2);
        assert_eq!(taken(&mut bucket, at(1031)), 1, "nothing of an interval is lost");
        assert_eq!(taken(&mut bucket, at(500)), 0, "the clock went backwards");
        assert_eq!(taken(&mut bucket, at(9000)), 3, "never more than a burst");
        bucket.give_back();
        assert_eq!(taken(&mut bucket, at(9000)), 1);
        (0..9).for_each(|_| bucket.give_back());
        assert_eq!(taken(&mut bucket, at(9000)), 3);
    }

    #[test]
    fn instants_saturate_when_the_clock_goes_backwards() {
        let early = Instant::ZERO + Duration::from_secs(1);
        assert_eq!(Instant::ZERO.since(early), Duration::ZERO);
        assert_eq!(Instant::ZERO - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::MAX + Duration::from_secs(1), Instant::MAX);
    }
}
