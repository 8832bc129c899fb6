//! The outer UDP sockets: one for IPv4 and one for IPv6, on one port; or a group of such pairs, among
//! which the kernel divides the senders.
//!
//! Guarantees: both families share the port; a host without one of them still works [P-82]; many
//! datagrams move per system call; each carries its local address and ECN bits both ways [P-81];
//! no error that the network can cause ends receiving [P-86], and none makes a batch lose its
//! remaining datagrams [P-87]. Outer packets go without DF, as the kernel's do, so a small path MTU
//! means fragments, not silence [P-75]; but for those that are sent to find out what fits. What the
//! network says of too large ones is told by both.
//!
//! Nothing here allocates per call: headers, addresses and control data live in a [`Receiver`] and
//! a [`Sender`], one of each per thread.

pub(super) mod address;
mod errors;
mod receive;
mod self_test;
mod send;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

pub use self::errors::Narrowed;
use self::errors::{Fragments, set_fragments};
pub(super) use self::receive::receive_message;
pub use self::receive::{Receiver, RecvMeta};
pub use self::self_test::self_test;
use self::send::Segmentation;
pub use self::send::{Failed, SendItem, SendReport, Sender};
use super::{SysError, check};

/// Tries for a port that is free in both families.
const PORT_TRIES: u32 = 100;

/// Kernel buffer in bytes, each way: a burst of a few thousand full datagrams.
const SOCKET_BUFFER_BYTES: libc::c_int = 4 << 20;

/// A local address with the index of its interface, as packet info has it.
pub type Local = (IpAddr, u32);

/// Ways to move many datagrams as one through the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpOffloads {
    /// Outbound: the kernel cuts messages (UDP_SEGMENT, Linux 4.18).
    pub segmentation: bool,
    /// Inbound: the kernel joins datagrams (UDP_GRO, Linux 5.0).
    pub gro: bool,
}

impl UdpOffloads {
    pub const ALL: Self = Self { segmentation: true, gro: true };
}

/// Both sockets. At least one is there.
#[derive(Debug)]
pub struct UdpSockets {
    v4: Option<OwnedFd>,
    v6: Option<OwnedFd>,
    port: u16,
    segmentation: Segmentation,
    gro: bool,
}

/// Whether a socket is bound to a port that others of ours have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Alone,
    Port,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(remote: SocketAddr) -> Self {
        if remote.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

impl UdpSockets {
    /// Opens both sockets on `port`, or for 0 on a free one, with firewall mark `mark` (0: none),
    /// and with those of the `wanted` offloads that the kernel has.
    ///
    /// # Errors
    /// [`is_address_in_use`](SysError::is_address_in_use) if the port is taken in either family;
    /// [`is_not_permitted`](SysError::is_not_permitted) for a mark without CAP_NET_ADMIN, or a port
    /// below 1024 without its right; [`is_family_absent`](SysError::is_family_absent) only if
    /// neither family exists.
    pub fn bind(port: u16, mark: u32, wanted: UdpOffloads) -> Result<Self, SysError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::bind_once(port, mark, wanted, Share::Alone) {
                // A port the kernel chose for IPv4 may be taken in IPv6.
                Err(error) if error.is_address_in_use() && port == 0 && tries < PORT_TRIES => {}
                outcome => return outcome,
            }
        }
    }

    /// Opens `count` pairs of sockets, one at least, on one port, as [`bind`](Self::bind) does with
    /// one. The kernel gives all datagrams from one address and port to one and the same pair.
    ///
    /// # Errors
    /// As [`bind`](Self::bind): others do not get the port, and a port that others have is refused.
    /// The exception is a socket of the same user that itself asks to share it (SO_REUSEPORT).
    pub fn bind_group(
        port: u16,
        mark: u32,
        wanted: UdpOffloads,
        count: usize,
    ) -> Result<Vec<Self>, SysError> {
        // The first is bound alone, so that the port is known to be nobody else's.
        let first = Self::bind(port, mark, wanted)?;
        let port = first.port;
        let mut group = vec![first];
        if count > 1 {
            group[0].fds().into_iter().flatten().try_for_each(share_port)?;
        }
        for _ in 1..count {
            group.push(Self::bind_once(port, mark, wanted, Share::Port)?);
        }
        Ok(group)
    }

    fn bind_once(
        port: u16,
        mark: u32,
        wanted: UdpOffloads,
        share: Share,
    ) -> Result<Self, SysError> {
        let v4 = open_if_present(Family::V4, port, mark, share)?;
        let port = v4.as_ref().map_or(Ok(port), port_of)?;
        let v6 = open_if_present(Family::V6, port, mark, share)?;
        let port = v6.as_ref().map_or(Ok(port), port_of)?;
        if v4.is_none() && v6.is_none() {
            return Err(SysError::from_errno("socket", libc::EAFNOSUPPORT));
        }
        let cuts = |fd: &Option<OwnedFd>| {
            wanted.segmentation && fd.as_ref().is_some_and(|fd| can_segment(fd.as_fd()))
        };
        let segmentation = Segmentation::new(cuts(&v4), cuts(&v6));
        let gro = wanted.gro && [&v4, &v6].into_iter().flatten().all(|fd| join(fd.as_fd()).is_ok());
        Ok(Self { v4, v6, port, segmentation, gro })
    }

    /// What is in use. The kernel may still refuse to cut for some paths, which costs nothing but
    /// time.
    pub fn offloads(&self) -> UdpOffloads {
        let segmentation =
            [Family::V4, Family::V6].into_iter().any(|family| self.segmentation.is_on(family));
        UdpOffloads { segmentation, gro: self.gro }
    }

    /// The port both sockets are bound to.
    pub fn local_port(&self) -> u16 {
        self.port
    }

    /// Sets the firewall mark of what is sent from now on; 0 removes it. [P-83]
    pub fn set_mark(&self, mark: u32) -> Result<(), SysError> {
        self.fds().into_iter().flatten().try_for_each(|fd| set_mark(fd, mark))
    }

    /// The descriptors to poll for readability, IPv4 first.
    pub fn fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.socket(Family::V4), self.socket(Family::V6)]
    }

    fn socket(&self, family: Family) -> Option<BorrowedFd<'_>> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
        .map(AsFd::as_fd)
    }
}

/// `None` if the host does not have this family.
fn open_if_present(
    family: Family,
    port: u16,
    mark: u32,
    share: Share,
) -> Result<Option<OwnedFd>, SysError> {
    match open(family, port, mark, share) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.is_family_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

fn open(family: Family, port: u16, mark: u32, share: Share) -> Result<OwnedFd, SysError> {
    let (domain, any) = match family {
        Family::V4 => (AddressFamily::INET, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        Family::V6 => (AddressFamily::INET6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(domain, SocketType::DGRAM, flags, None)
        .map_err(|e| SysError::new("socket", e))?;
    let fd = socket.as_fd();
    match family {
        Family::V4 => {
            set_option("setsockopt IP_PKTINFO", fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            set_option("setsockopt IP_RECVTOS", fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        }
        Family::V6 => {
            set_option("setsockopt IPV6_V6ONLY", fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
            set_option(
                "setsockopt IPV6_RECVPKTINFO",
                fd,
                libc::IPPROTO_IPV6,
                libc::IPV6_RECVPKTINFO,
                1,
            )?;
            set_option(
                "setsockopt IPV6_RECVTCLASS",
                fd,
                libc::IPPROTO_IPV6,
                libc::IPV6_RECVTCLASS,
                1,
            )?;
        }
    }
    set_fragments(fd, family, Fragments::Allowed)?;
    errors::keep(fd, family)?;
    enlarge_buffers(fd, SOCKET_BUFFER_BYTES)?;
    if mark != 0 {
        set_mark(fd, mark)?;
    }
    if share == Share::Port {
        share_port(fd)?;
    }
    rustix::net::bind(&socket, &any).map_err(|e| SysError::new("bind", e))?;
    Ok(socket)
}

/// Lets sockets of ours be bound beside this one, and lets this one be bound beside them.
fn share_port(fd: BorrowedFd<'_>) -> Result<(), SysError> {
    set_option("setsockopt SO_REUSEPORT", fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
}

/// Whether the kernel knows UDP_SEGMENT; 0 is its default, and each message brings its own.
pub(super) fn can_segment(fd: BorrowedFd<'_>) -> bool {
    set_option("setsockopt UDP_SEGMENT", fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

/// Lets the kernel join datagrams.
pub(super) fn join(fd: BorrowedFd<'_>) -> Result<(), SysError> {
    set_option("setsockopt UDP_GRO", fd, libc::SOL_UDP, libc::UDP_GRO, 1)
}

fn port_of(socket: &OwnedFd) -> Result<u16, SysError> {
    let address = rustix::net::getsockname(socket).map_err(|e| SysError::new("getsockname", e))?;
    let address =
        SocketAddr::try_from(address).map_err(|e: Errno| SysError::new("getsockname", e))?;
    Ok(address.port())
}

pub(super) fn set_mark(fd: BorrowedFd<'_>, mark: u32) -> Result<(), SysError> {
    set_option("setsockopt SO_MARK", fd, libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed())
}

/// Has both kernel buffers be of so many bytes: past the system's limit where CAP_NET_ADMIN allows it,
/// else up to the limit.
pub(super) fn enlarge_buffers(fd: BorrowedFd<'_>, bytes: libc::c_int) -> Result<(), SysError> {
    let set = |option| set_option("setsockopt buffer", fd, libc::SOL_SOCKET, option, bytes);
    set(libc::SO_RCVBUFFORCE).or_else(|_| set(libc::SO_RCVBUF))?;
    set(libc::SO_SNDBUFFORCE).or_else(|_| set(libc::SO_SNDBUF))
}

pub(super) fn set_option(
    op: &'static str,
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> Result<(), SysError> {
    let len = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(0);
    // SAFETY: `fd` is open for the call; the kernel reads `len` bytes, the size of `value`, from an
    // initialised local.
    check(op, unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(&value).cast(), len)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
