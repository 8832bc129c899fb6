//! The two clocks of the program, read together.
//!
//! `CLOCK_BOOTTIME` counts suspended time, as the kernel's implementation does, so that keys age
//! while a laptop sleeps. [LNX timers.c:ktime_get_coarse_boottime_ns]

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
}
