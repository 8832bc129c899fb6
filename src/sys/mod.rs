//! The operating system: clocks, randomness, readiness, TUN, UDP, namespaces, processes.
//!
//! The home of `unsafe`. Everything public here is safe, takes `BorrowedFd`, slices and
//! standard types, and knows nothing of WireGuard. It must not import `proto`, `wire` or `crypto`
//! beyond the [`Entropy`](crate::crypto::entropy::Entropy) trait that [`entropy`] implements.
//!
//! Every failure is a [`SysError`]: the system call that failed and why. Callers never compare
//! error numbers; they ask a named predicate whose documentation says when the kernel answers so.

#![deny(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod alarm;
pub mod clock;
pub mod cmsg;
pub mod echo;
pub mod entropy;
pub mod file_watch;
pub mod inotify;
pub mod interface;
pub mod listen;
pub mod netfilter;
pub mod netlink_watch;
pub mod netns;
pub mod notify;
pub mod passing;
pub mod pidfd;
pub mod poll;
pub mod process;
pub mod reactor;
pub mod rights;
pub mod sandbox;
pub mod scheduling;
pub mod sockets;
pub mod tcp;
pub mod tun;
pub mod udp;
pub mod uevent;
pub mod xtables;

use std::{error, fmt, io};

/// A system call that failed.
#[derive(Debug)]
pub struct SysError {
    /// The system call or ioctl, with the option's name where one call has many meanings.
    pub op: &'static str,
    pub source: io::Error,
}

impl SysError {
    pub(crate) fn new(op: &'static str, source: impl Into<io::Error>) -> Self {
        Self { op, source: source.into() }
    }

    pub(crate) fn from_errno(op: &'static str, errno: i32) -> Self {
        Self { op, source: io::Error::from_raw_os_error(errno) }
    }

    /// What `errno` holds after a libc call returned -1.
    pub(crate) fn last(op: &'static str) -> Self {
        Self { op, source: io::Error::last_os_error() }
    }

    /// The error number, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    fn is_any(&self, errnos: &[i32]) -> bool {
        self.errno().is_some_and(|errno| errnos.contains(&errno))
    }

    /// Nothing to read, or no room to write, on a non-blocking descriptor.
    pub fn is_would_block(&self) -> bool {
        self.source.kind() == io::ErrorKind::WouldBlock
    }

    /// A signal arrived first; the call may simply be made again.
    pub fn is_interrupted(&self) -> bool {
        self.source.kind() == io::ErrorKind::Interrupted
    }

    /// A privilege is missing.
    pub fn is_not_permitted(&self) -> bool {
        self.is_any(&[libc::EPERM, libc::EACCES])
    }

    /// Another socket owns the port.
    pub fn is_address_in_use(&self) -> bool {
        self.is_any(&[libc::EADDRINUSE])
    }

    /// The file, device or namespace does not exist.
    pub fn is_missing(&self) -> bool {
        self.is_any(&[libc::ENOENT, libc::ENODEV, libc::ENXIO])
    }

    /// The host has no such address family: built without it (EAFNOSUPPORT), or booted with
    /// `ipv6.disable=1` (EADDRNOTAVAIL on bind in some containers). [P-82]
    pub fn is_family_absent(&self) -> bool {
        self.is_any(&[libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL, libc::EPFNOSUPPORT])
    }

    /// The TUN interface behind this descriptor was deleted: EBADFD from every call afterwards,
    /// EFAULT from a read that was already waiting, ENODEV from a write that raced the deletion.
    pub fn is_tun_gone(&self) -> bool {
        self.is_any(&[libc::EBADFD, libc::EFAULT, libc::ENODEV])
    }

    /// A write met a TUN interface that exists but is down. The packet is lost, the port is not.
    pub fn is_tun_down(&self) -> bool {
        self.is_any(&[libc::EIO])
    }

    /// The packet itself was refused (not IPv4 or IPv6, or longer than the kernel accepts).
    pub fn is_packet_refused(&self) -> bool {
        self.is_any(&[libc::EINVAL, libc::EMSGSIZE])
    }

    /// A send named a source address that is no longer ours: ENETUNREACH (IPv4) or EINVAL (IPv6)
    /// on recent kernels, EADDRNOTAVAIL on others. The source should be forgotten. [P-81]
    pub fn is_source_refused(&self) -> bool {
        self.is_any(&[libc::ENETUNREACH, libc::EINVAL, libc::EADDRNOTAVAIL, libc::ENODEV])
    }

    /// The datagram is longer than any, or than what is known of the path lets through whole.
    pub fn is_too_big(&self) -> bool {
        self.is_any(&[libc::EMSGSIZE])
    }

    /// Nobody listens there, or the connection was reset before it was made.
    pub fn is_refused(&self) -> bool {
        self.is_any(&[libc::ECONNREFUSED, libc::ECONNRESET])
    }

    /// No route leads there.
    pub fn is_network_unreachable(&self) -> bool {
        self.is_any(&[libc::ENETUNREACH, libc::ENETDOWN])
    }

    /// A route leads there, and nobody answers at its end.
    pub fn is_host_unreachable(&self) -> bool {
        self.is_any(&[libc::EHOSTUNREACH, libc::EHOSTDOWN])
    }

    /// The kernel would not cut a message into datagrams: it would do so for another path
    /// ([`is_path_too_narrow`](Self::is_path_too_narrow)), for none
    /// ([`is_segmentation_impossible`](Self::is_segmentation_impossible)), or with a shorter queue
    /// (ENOBUFS). [LNX udp.c:udp_send_skb]
    pub fn is_segmentation_refused(&self) -> bool {
        self.is_segmentation_impossible()
            || self.is_path_too_narrow()
            || self.is_any(&[libc::ENOBUFS])
    }

    /// A datagram does not fit the device, so that it would have to be fragmented as well: EINVAL in
    /// older kernels.
    pub fn is_path_too_narrow(&self) -> bool {
        self.is_any(&[libc::EMSGSIZE, libc::EINVAL])
    }

    /// The device cannot do checksums, without which the kernel cuts nothing.
    pub fn is_segmentation_impossible(&self) -> bool {
        self.is_any(&[libc::EIO, libc::EOPNOTSUPP])
    }

    /// Only a defect of ours, or a closed descriptor, makes a receive fail in this way. Every other
    /// error is an event of the network's and passes. [P-86]
    pub fn is_fatal_for_receive(&self) -> bool {
        self.is_any(&[libc::EBADF, libc::EFAULT, libc::EINVAL, libc::ENOTSOCK, libc::ENOSYS])
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.source)
    }
}

// `source()` stays empty: the text above already has it, and a printed chain would repeat it.
impl error::Error for SysError {}

/// Converts the -1 convention of libc.
fn check(op: &'static str, result: libc::c_int) -> Result<libc::c_int, SysError> {
    if result < 0 { Err(SysError::last(op)) } else { Ok(result) }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of this layer share.

    use std::process::Command;
    use std::time::Duration;

    use super::netns::NetNamespace;
    use super::poll::Poller;

    /// Runs `test` in a network namespace of its own with loopback up. Without the right to make
    /// one the test is skipped, which `HYBRIDWG_REQUIRE_HOST=1` makes a failure.
    pub(crate) fn in_own_namespace(test: impl FnOnce() + Send) {
        let namespace = match NetNamespace::create() {
            Ok(namespace) => namespace,
            Err(error) => return skip(&format!("no network namespace: {error}")),
        };
        let inside = namespace.run(|| {
            ip("link set lo up");
            test();
        });
        inside.expect("the namespace was made with the same rights");
    }

    /// Whether `condition` comes true within ten seconds.
    pub(crate) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
        let mut pause = Poller::new().expect("epoll");
        (0..2000).any(|_| {
            let holds = condition();
            if !holds {
                let _ = pause.wait(Some(Duration::from_millis(5))).map(drop);
            }
            holds
        })
    }

    pub(crate) fn skip(why: &str) {
        assert!(
            std::env::var_os("HYBRIDWG_REQUIRE_HOST").is_none_or(|v| v != "1"),
            "skipped: {why}"
        );
        println!("skipped: {why}");
    }

    /// Whether this machine has a program that a test needs; else the test is skipped.
    pub(crate) fn has_program(name: &str) -> bool {
        let is_there = Command::new(name).arg("--version").output().is_ok();
        if !is_there {
            skip(&format!("no `{name}` in PATH"));
        }
        is_there
    }

    /// iproute2 in the calling thread's namespace; what it prints.
    pub(crate) fn ip(arguments: &str) -> String {
        let output =
            Command::new("ip").args(arguments.split_whitespace()).output().expect("ip runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {complaint}");
        String::from_utf8(output.stdout).expect("ip prints text")
    }

    /// Makes a system call fail for the calling thread, always or with that first argument: e.g.
    /// `socket(AF_INET6, …)` with EAFNOSUPPORT, as in a kernel built without IPv6.
    pub(crate) fn refuse_calls(
        call: libc::c_long,
        argument: Option<libc::c_int>,
        errno: libc::c_int,
    ) {
        refuse_calls_with(call, argument.map(|value| (0, value)), errno);
    }

    /// As [`refuse_calls`], with any argument, counted from 0.
    pub(crate) fn refuse_calls_with(
        call: libc::c_long,
        argument: Option<(u32, libc::c_int)>,
        errno: libc::c_int,
    ) {
        #[cfg(target_endian = "little")]
        const FIRST_ARGUMENT: u32 = 16;
        #[cfg(target_endian = "big")]
        const FIRST_ARGUMENT: u32 = 20;
        let (place, value) = argument.unwrap_or_default();
        let op = |code: u32, jt, jf, k| libc::sock_filter {
            code: u16::try_from(code).expect("fits"),
            jt,
            jf,
            k,
        };
        let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        let jump_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let ret = libc::BPF_RET | libc::BPF_K;
        let number = |n: i64| u32::try_from(n).expect("fits");
        let errno = libc::SECCOMP_RET_ERRNO | u32::try_from(errno).expect("fits");
        // Past the check of the argument, if any will do.
        let any = u8::from(argument.is_none()) * 2;
        let mut program = [
            op(load, 0, 0, 0),
            op(jump_equal, any, 3, number(call)),
            op(load, 0, 0, FIRST_ARGUMENT + 8 * place),
            op(jump_equal, 0, 1, u32::try_from(value).expect("fits")),
            op(ret, 0, 0, errno),
            op(ret, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).expect("fits"),
            filter: program.as_mut_ptr(),
        };
        // SAFETY: takes numbers only.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        // SAFETY: the kernel copies the program, which outlives the call, and its header.
        let set = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }
}
