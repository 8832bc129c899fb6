//! The two clocks of the program, read together, and what they cannot tell.
//!
//! `CLOCK_BOOTTIME` counts suspended time, as the kernel's implementation does, so that keys age
//! while a laptop sleeps. [LNX timers.c:ktime_get_coarse_boottime_ns]

use std::num::NonZeroU64;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::time::{Instant, Now, Wall};

/// Samples both clocks. Call it once per batch and pass the result on.
pub fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let real = clock_gettime(ClockId::Realtime);
    Now {
        mono: Instant::from_nanos(
            seconds(boot).saturating_mul(1_000_000_000) + u64::from(nanos(boot)),
        ),
        wall: Wall { secs: seconds(real), nanos: nanos(real) },
    }
}

/// For how long the machine has been suspended since it was booted: by how much its boot-time clock
/// is ahead of the monotonic one. Off by the moment that lies between two readings.
pub fn suspended() -> Duration {
    let mono = clock_gettime(ClockId::Monotonic);
    let boot = clock_gettime(ClockId::Boottime);
    duration(boot).saturating_sub(duration(mono))
}

fn duration(time: Timespec) -> Duration {
    Duration::new(seconds(time), nanos(time))
}

/// Ends timed waits of this thread when they are due, not up to 50 µs later, as is usual to spare
/// processors that sleep. [prctl(2), PR_SET_TIMERSLACK] Nothing is lost if that is refused.
pub fn be_punctual() {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// The unit of `/proc/stat`: so many are a second.
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

/// A clock set before 1970 reads as 1970.
fn seconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0)
}

fn nanos(time: Timespec) -> u32 {
    u32::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_run_forward_and_the_wall_clock_is_after_2020() {
        let earlier = now();
        let later = now();
        assert!(earlier.mono > Instant::ZERO);
        assert!(later.mono >= earlier.mono);
        assert!(later.wall.secs > 1_577_836_800);
        assert!(later.wall.nanos < 1_000_000_000);
    }

    #[test]
    fn a_machine_that_is_awake_is_not_suspended_any_longer() {
        let before = suspended();
        let meanwhile = suspended().saturating_sub(before);
        assert!(meanwhile < Duration::from_secs(1), "{meanwhile:?}");
    }
}
