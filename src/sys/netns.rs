//! Network namespaces: create, open, and run code inside one; user namespaces for the unprivileged.
//!
//! A namespace is a property of a thread. Code is run inside on a thread made for it, so that no
//! caller can be left in the wrong one.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{getegid, geteuid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::SysError;

/// A network namespace, kept alive by this descriptor.
#[derive(Debug)]
pub struct NetNamespace(OwnedFd);

impl NetNamespace {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, SysError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Opens a namespace by path: `/run/netns/NAME`, `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> Result<Self, SysError> {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map(Self)
            .map_err(|e| SysError::new("open network namespace", e))
    }

    /// Makes an empty namespace: one loopback interface, down. It goes with its last descriptor,
    /// process and interface reference.
    ///
    /// # Errors
    /// [`is_not_permitted`](SysError::is_not_permitted) without CAP_SYS_ADMIN.
    pub fn create() -> Result<Self, SysError> {
        on_thread(|| {
            unshare(UnshareFlags::NEWNET)?;
            Self::current()
        })
    }

    /// Runs `work` on a new thread inside this namespace and waits for it. Threads and sockets that
    /// it makes stay inside.
    ///
    /// # Errors
    /// [`is_not_permitted`](SysError::is_not_permitted) without CAP_SYS_ADMIN in both namespaces.
    /// A panic of `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, SysError> {
        on_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }

    /// Moves the calling thread into this namespace for good.
    pub fn enter(&self) -> Result<(), SysError> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| SysError::new("setns", e))
    }
}

impl AsFd for NetNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the process root of a new user namespace, with the right to create network namespaces and
/// interfaces in them, and nothing more outside than before.
///
/// # Errors
/// `EINVAL` if the process has more than one thread: call it first in `main`. `EPERM`, `ENOSPC` or
/// `EUSERS` where the system forbids user namespaces to its users.
pub fn enter_user_namespace() -> Result<(), SysError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(UnshareFlags::NEWUSER)?;
    // Without this refusal an unprivileged process may not map its group. [user_namespaces(7)]
    write_proc("setgroups", "deny")?;
    write_proc("uid_map", &format!("0 {uid} 1"))?;
    write_proc("gid_map", &format!("0 {gid} 1"))
}

fn write_proc(file: &str, text: &str) -> Result<(), SysError> {
    fs::write(format!("/proc/self/{file}"), text)
        .map_err(|e| SysError::new("write user namespace map", e))
}

fn unshare(flags: UnshareFlags) -> Result<(), SysError> {
    // SAFETY: the hazard of `unshare` is CLONE_FILES, after which descriptors of other threads mean
    // something else here; only NEWNET and NEWUSER are passed.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(|e| SysError::new("unshare", e))
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T, SysError> + Send) -> Result<T, SysError> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::read_to_string;
    use std::net::UdpSocket;

    use super::*;
    use crate::sys::testing::{in_own_namespace, ip};

    fn interfaces() -> Vec<String> {
        let table = read_to_string("/proc/thread-self/net/dev").unwrap();
        let names = table.lines().skip(2).filter_map(|line| line.split(':').next());
        names.map(|name| name.trim().to_owned()).collect()
    }

    #[test]
    fn a_new_namespace_holds_loopback_alone_and_the_caller_stays_where_it_was() {
        in_own_namespace(|| {
            ip("link add outside type veth");
            let inner = NetNamespace::create().unwrap();
            inner.run(|| ip("link add inside type veth")).unwrap();
            let seen = inner.run(interfaces).unwrap();
            assert!(
                seen.contains(&"inside".to_owned()) && !seen.contains(&"outside".to_owned()),
                "{seen:?}"
            );
            assert!(interfaces().contains(&"outside".to_owned()));
            assert!(!interfaces().contains(&"inside".to_owned()));
        });
    }

    #[test]
    fn a_socket_made_inside_stays_inside() {
        in_own_namespace(|| {
            let inner = NetNamespace::create().unwrap();
            let socket = inner.run(|| {
                ip("link set lo up");
                UdpSocket::bind("127.0.0.1:7777").unwrap()
            });
            let _inside = socket.unwrap();
            assert!(UdpSocket::bind("127.0.0.1:7777").is_ok(), "the same port is free outside");
            assert!(inner.run(|| UdpSocket::bind("127.0.0.1:7777").is_err()).unwrap());
        });
    }

    #[test]
    fn a_namespace_that_does_not_exist_is_missing() {
        assert!(NetNamespace::open(Path::new("/run/netns/nonexistent")).unwrap_err().is_missing());
    }

    #[test]
    fn a_process_with_threads_cannot_enter_a_user_namespace() {
        // The test runner has threads of its own, so this must fail and change nothing.
        let before = fs::read_link("/proc/thread-self/ns/user").unwrap();
        assert_eq!(enter_user_namespace().unwrap_err().errno(), Some(libc::EINVAL));
        assert_eq!(fs::read_link("/proc/thread-self/ns/user").unwrap(), before);
    }
}
