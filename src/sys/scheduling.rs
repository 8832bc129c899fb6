//! How the kernel's scheduler treats the calling thread.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::SysError;

/// What the kernel keeps of a thread's waits for a processor.
#[derive(Debug)]
pub struct Waits(File);

/// So long, and so many times, a thread has waited for a processor since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    pub total: Duration,
    pub times: u64,
}

impl Waits {
    /// Those of the calling thread, whoever asks later.
    ///
    /// # Errors
    /// There is no `/proc`, or the kernel keeps no such account.
    pub fn of_this_thread() -> Result<Self, SysError> {
        File::open("/proc/thread-self/schedstat")
            .map(Self)
            .map_err(|e| SysError::new("open /proc/thread-self/schedstat", e))
    }

    /// What it is by now; `None` if the kernel does not say. [LNX base.c:proc_pid_schedstat]
    pub fn read(&self) -> Option<Waited> {
        let mut text = [0; 80];
        let length = self.0.read_at(&mut text, 0).ok()?;
        let mut numbers = text[..length].split(|byte| byte.is_ascii_whitespace()).skip(1);
        let mut next = || std::str::from_utf8(numbers.next()?).ok()?.parse().ok();
        let (total, times) = (next()?, next()?);
        // A thread that reads has been given a processor at least once.
        (times > 0).then_some(Waited { total: Duration::from_nanos(total), times })
    }
}

/// Has the calling thread, each time it is woken, wait until the running one of its processor waits or
/// has used up its time (`SCHED_BATCH`), or interrupt it (`SCHED_OTHER`, as is usual). [sched(7)]
/// [LNX fair.c:check_preempt_wakeup_fair] A thread that has neither of the two to begin
/// with was given another by somebody and is left alone; returns whether it has what it is to have.
///
/// # Errors
/// Only where a sandbox or a security module refuses the calls.
pub fn wait_when_woken(waits: bool) -> Result<bool, SysError> {
    let (from, to) = if waits {
        (libc::SCHED_OTHER, libc::SCHED_BATCH)
    } else {
        (libc::SCHED_BATCH, libc::SCHED_OTHER)
    };
    if policy()? != from {
        return Ok(false);
    }
    set(to).map(|()| true)
}

/// Of musl, the functions of the C library only say that there is no such call.
fn set(policy: i32) -> Result<(), SysError> {
    // Its only member is the priority, which these policies do not have.
    let parameter: i32 = 0;
    // SAFETY: the parameter outlives the call, which only reads it; 0 is the calling thread.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::c_long::from(policy),
            &raw const parameter,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(SysError::last("sched_setscheduler")) }
}

fn policy() -> Result<i32, SysError> {
    // SAFETY: the call takes a number and gives one; 0 is the calling thread.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    i32::try_from(policy)
        .ok()
        .filter(|&policy| policy >= 0)
        .ok_or_else(|| SysError::last("sched_getscheduler"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{self, Waker};

    #[test]
    fn a_thread_that_sleeps_has_waited_more_often_afterwards() {
        let account =
            || Some((Waits::of_this_thread().ok()?, Waits::of_this_thread().ok()?.read()?));
        let Some((waits, before)) = account() else {
            println!("skipped: this kernel keeps no account of waits");
            return;
        };
        poll::nap(&Waker::new().unwrap(), [None; 2], Duration::from_millis(1)).unwrap();
        let after = waits.read().unwrap();
        assert!(after.times > before.times, "{before:?} {after:?}");
        assert!(after.total >= before.total);
    }

    #[test]
    fn a_thread_waits_when_woken_or_not_and_keeps_a_policy_that_somebody_gave_it() {
        if policy().unwrap() != libc::SCHED_OTHER {
            println!("skipped: the tests were given a scheduling policy");
            return;
        }
        assert!(wait_when_woken(true).unwrap());
        assert_eq!(policy().unwrap(), libc::SCHED_BATCH);
        assert!(!wait_when_woken(true).unwrap(), "somebody has been here before");
        assert!(wait_when_woken(false).unwrap());
        assert_eq!(policy().unwrap(), libc::SCHED_OTHER);
        set(libc::SCHED_IDLE).unwrap();
        assert!(!wait_when_woken(true).unwrap());
        assert!(!wait_when_woken(false).unwrap());
        assert_eq!(policy().unwrap(), libc::SCHED_IDLE);
    }
}
