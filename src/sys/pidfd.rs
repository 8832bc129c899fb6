//! Waiting for the end of a process that is no child of ours.
//!
//! By a descriptor and not by number: a number may be another process's by the time it is looked
//! at. Kernels before 5.3 have no such descriptors.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{SysError, check, clock};

/// Makes this process the one that [`Watched::listener_of`] finds behind `listener`, which another
/// has made. Connections that wait are not disturbed. [LNX af_unix.c:unix_listen]
///
/// # Errors
/// Not a socket that listens.
pub fn listen_again(listener: &UnixListener) -> Result<(), SysError> {
    /// As many as the system allows, which is what std asks for.
    const BACKLOG: i32 = -1;
    rustix::net::listen(listener, BACKLOG).map_err(|e| SysError::new("listen", e))
}

/// A process whose end can be waited for.
#[derive(Debug)]
pub struct Watched(OwnedFd);

impl Watched {
    /// The process that listens where the Unix stream socket `connected` leads: the last one that
    /// called `listen` before the connection was made.
    ///
    /// # Errors
    /// `ESRCH` if it has ended or cannot be seen from our PID namespace, `ENOSYS` on a kernel
    /// without descriptors of processes.
    pub fn listener_of(connected: impl AsFd) -> Result<Self, SysError> {
        let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let size = size_of::<libc::ucred>();
        let mut length = libc::socklen_t::try_from(size).expect("a few bytes");
        // SAFETY: `peer` is a whole ucred, which is what SO_PEERCRED writes, and `length` is its
        // size in bytes; both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                connected.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut peer).cast(),
                &raw mut length,
            )
        };
        check("getsockopt SO_PEERCRED", result)?;
        Self::by_number(peer.pid)
    }

    fn by_number(number: libc::pid_t) -> Result<Self, SysError> {
        // Zero stands for a process outside of our PID namespace.
        let process = if number > 0 { Pid::from_raw(number) } else { None };
        let process = process.ok_or_else(|| SysError::from_errno("pidfd_open", libc::ESRCH))?;
        let descriptor =
            pidfd_open(process, PidfdFlags::empty()).map_err(|e| SysError::new("pidfd_open", e))?;
        Ok(Self(descriptor))
    }

    /// Waits for the end of the process, at most for `limit`. Says whether it has ended.
    pub fn ends_within(&self, limit: Duration) -> bool {
        let deadline = clock::now().mono + limit;
        loop {
            let left = deadline.since(clock::now().mono);
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
                Err(Errno::INTR) => {}
                outcome => return outcome.is_ok_and(|ready| ready > 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sys::testing::skip;

    #[test]
    fn a_process_is_waited_for_until_it_ends_and_no_longer_than_asked() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let number = child.id().try_into().unwrap();
        let process = known(Watched::by_number(number));
        if let Some(process) = &process {
            assert!(!process.ends_within(Duration::from_millis(20)));
        }
        drop(child.stdin.take());
        if let Some(process) = &process {
            assert!(process.ends_within(Duration::from_secs(60)), "before anybody has taken note");
        }
        child.wait().unwrap();
        if let Some(process) = &process {
            assert!(process.ends_within(Duration::ZERO), "and after");
        }
    }

    /// Nothing on a kernel without descriptors of processes, where the test is skipped.
    fn known(outcome: Result<Watched, SysError>) -> Option<Watched> {
        if outcome.as_ref().is_err_and(|error| error.errno() == Some(libc::ENOSYS)) {
            skip("no descriptors of processes");
            return None;
        }
        Some(outcome.unwrap())
    }

    #[test]
    fn behind_a_connection_is_the_process_that_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        listen_again(&listener).unwrap();
        let connected = UnixStream::connect(&path).unwrap();
        if let Some(process) = known(Watched::listener_of(&connected)) {
            assert!(!process.ends_within(Duration::ZERO), "this one");
        }
    }

    #[test]
    fn a_number_that_is_no_process_of_ours_cannot_be_watched() {
        for number in [0, -1] {
            assert_eq!(Watched::by_number(number).unwrap_err().errno(), Some(libc::ESRCH));
        }
    }
}
