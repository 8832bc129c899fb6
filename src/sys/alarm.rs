//! Timers as descriptors: one that goes off at a time of the boot-time clock, and one that tells
//! when the other clocks have jumped.
//!
//! A sleep on the monotonic clock, as event loops have it, does not count the time for which the
//! machine was suspended: what fell due meanwhile would be late by all of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::SysError;
use crate::time::Instant;

/// Polls readable from a time of `CLOCK_BOOTTIME` on.
#[derive(Debug)]
pub struct Alarm {
    timer: OwnedFd,
    set_to: Option<Instant>,
}

impl Alarm {
    /// An alarm that is off.
    ///
    /// # Errors
    /// The failing system call.
    pub fn new() -> Result<Self, SysError> {
        Ok(Self { timer: create(TimerfdClockId::Boottime)?, set_to: None })
    }

    /// Has the alarm go off at `at`, at once if that has passed; never for `None`. What it was set
    /// to before is forgotten. Costs nothing if nothing changes.
    ///
    /// # Errors
    /// The failing system call.
    pub fn set(&mut self, at: Option<Instant>) -> Result<(), SysError> {
        // "Never" can be said in two ways.
        let at = at.filter(|&at| at < Instant::MAX);
        if at == self.set_to {
            return Ok(());
        }
        // Zero would switch it off.
        let nanos = at.map_or(0, |at| at.as_nanos().max(1));
        let value = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
        };
        arm(&self.timer, TimerfdTimerFlags::ABSTIME, value)?;
        self.set_to = at;
        Ok(())
    }

    /// Silences an alarm that went off, which is off then.
    pub fn drain(&mut self) {
        if read(&self.timer).is_ok() {
            self.set_to = None;
        }
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// Polls readable when the wall clock was set or the machine was suspended.
///
/// Both change the distance between the wall clock and the monotonic one, which is what the kernel
/// reports. [LNX timerfd.c:timerfd_clock_was_set]
#[derive(Debug)]
pub struct ClockWatch(OwnedFd);

impl ClockWatch {
    /// # Errors
    /// The failing system call.
    pub fn new() -> Result<Self, SysError> {
        let timer = create(TimerfdClockId::Realtime)?;
        // It never goes off by itself.
        let value = Timespec { tv_sec: FAR_AWAY_SECS, tv_nsec: 0 };
        arm(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, value)?;
        Ok(Self(timer))
    }

    /// Forgets the jumps up to now; true if there were any.
    pub fn drain(&self) -> bool {
        // It goes on watching. [LNX timerfd.c:timerfd_canceled]
        matches!(read(&self.0), Err(Errno::CANCELED))
    }
}

impl AsFd for ClockWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Unix time of the year 36812.
const FAR_AWAY_SECS: i64 = 1 << 40;

fn create(clock: TimerfdClockId) -> Result<OwnedFd, SysError> {
    timerfd_create(clock, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
        .map_err(|e| SysError::new("timerfd_create", e))
}

fn arm(timer: &OwnedFd, flags: TimerfdTimerFlags, value: Timespec) -> Result<(), SysError> {
    let never_again = Timespec { tv_sec: 0, tv_nsec: 0 };
    let setting = Itimerspec { it_interval: never_again, it_value: value };
    timerfd_settime(timer, flags, &setting)
        .map(drop)
        .map_err(|e| SysError::new("timerfd_settime", e))
}

fn read(timer: &OwnedFd) -> Result<(), Errno> {
    let mut count = [0; 8];
    loop {
        match rustix::io::read(timer, &mut count) {
            Err(Errno::INTR) => {}
            outcome => return outcome.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::clock;
    use crate::sys::poll::{Interest, Poller};

    fn goes_off(alarm: &Alarm, within: Duration) -> bool {
        let mut poller = Poller::new().unwrap();
        poller.add(alarm.as_fd(), 0, Interest::Readable).unwrap();
        let deadline = clock::now().mono + within;
        // Signals of other tests of this process end a wait early.
        loop {
            if poller.wait(Some(deadline.since(clock::now().mono))).unwrap().count() > 0 {
                return true;
            }
            if clock::now().mono >= deadline {
                return false;
            }
        }
    }

    #[test]
    fn an_alarm_goes_off_at_its_time_of_the_boot_time_clock_and_not_before() {
        let mut alarm = Alarm::new().unwrap();
        let at = clock::now().mono + Duration::from_millis(30);
        alarm.set(Some(at)).unwrap();
        assert!(goes_off(&alarm, Duration::from_secs(10)));
        assert!(clock::now().mono >= at);
        alarm.drain();
        assert!(!goes_off(&alarm, Duration::ZERO), "once");
    }

    #[test]
    fn an_alarm_is_off_until_it_is_set_and_can_be_set_again() {
        let mut alarm = Alarm::new().unwrap();
        assert!(!goes_off(&alarm, Duration::ZERO));
        alarm.set(Some(Instant::ZERO)).unwrap();
        assert!(goes_off(&alarm, Duration::from_secs(10)), "the past is due at once");
        alarm.drain();
        alarm.set(Some(Instant::ZERO)).unwrap();
        assert!(goes_off(&alarm, Duration::from_secs(10)), "the same time again");
        alarm.set(Some(clock::now().mono + Duration::from_secs(600))).unwrap();
        assert!(!goes_off(&alarm, Duration::ZERO), "put off");
        for never in [None, Some(Instant::MAX)] {
            alarm.set(Some(Instant::ZERO)).unwrap();
            alarm.set(never).unwrap();
            assert!(!goes_off(&alarm, Duration::ZERO));
        }
    }

    #[test]
    fn clocks_that_nobody_sets_are_quiet() {
        let watch = ClockWatch::new().unwrap();
        assert!(!watch.drain());
    }
}
