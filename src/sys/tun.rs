//! TUN interfaces: created by name or taken over by descriptor, read and written without blocking.
//!
//! One call moves one packet, without packet information in front, or with a virtio-net header a
//! super-packet: the kernel then leaves it to us to cut what its TCP and UDP send into packets, and
//! cuts what we hand it joined. Each of these offloads may be refused: [`Tun::offloads`] says what is
//! left, and [`Tun::header_bytes`] whether there is a header at all.
//!
//! An interface has one queue, or as many as are opened beside it ([`Tun::open_queue`]): the kernel
//! spreads what it sends over them ([`Tun::steer_by_flow`]), and takes packets from any.
//!
//! The interface lives as long as a descriptor does. Addresses, MTU and state are set over netlink
//! elsewhere.

mod steer;

use std::ffi::CStr;
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{SysError, check};

/// Bytes of the virtio-net header before each packet of a TUN that has one.
pub const VNET_HEADER_BYTES: usize = 10;

/// Longest interface name in bytes, without the terminating zero.
pub const MAX_NAME_BYTES: usize = libc::IFNAMSIZ - 1;

const DEVICE: &CStr = c"/dev/net/tun";

/// Super-packets that may cross a TUN interface, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunOffloads {
    /// Of TCP, over IPv4 and IPv6.
    pub tcp: bool,
    /// Of UDP, over IPv4 and IPv6 (Linux 6.2).
    pub udp: bool,
}

impl TunOffloads {
    pub const ALL: Self = Self { tcp: true, udp: true };
    pub const NONE: Self = Self { tcp: false, udp: false };

    /// The argument of TUNSETOFFLOAD. Segmentation includes checksums.
    const fn bits(self) -> libc::c_uint {
        let tcp = libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
        let chosen = (if self.tcp { tcp } else { 0 }) | (if self.udp { udp } else { 0 });
        if chosen == 0 { 0 } else { libc::TUN_F_CSUM | chosen }
    }
}

/// One queue of a TUN interface. Reads and writes may come from two threads at once.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    has_header: bool,
    may_have_more: bool,
    offloads: TunOffloads,
}

/// Why there is no interface.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// Not a name an interface may have.
    #[error(
        "interface name {0:?} is not 1 to {MAX_NAME_BYTES} bytes without '/', ':', '%' or white space"
    )]
    InvalidName(String),
    /// The device node is missing: no `tun` module, or a container without the device.
    #[error(
        "{0} (/dev/net/tun is missing: load the module with `modprobe tun`, or give the container the device with `--device /dev/net/tun`)"
    )]
    NoDevice(SysError),
    /// CAP_NET_ADMIN is missing, or the device node may not be opened.
    #[error(
        "{0} (creating interface {1} needs root or CAP_NET_ADMIN: use sudo, or `AmbientCapabilities=CAP_NET_ADMIN` in a systemd service)"
    )]
    NotPermitted(SysError, String),
    /// Another process holds the interface of that name.
    #[error("{0} (interface {1} is in use by another process: bring it down first)")]
    Busy(SysError, String),
    /// An interface of that name exists and is not a TUN interface of this kind.
    #[error(
        "{0} (an interface named {1} exists: it is in use by another process, or is not a TUN interface with one queue, which could be taken over)"
    )]
    NotTun(SysError, String),
    /// The inherited descriptor is a TAP.
    #[error("interface {name} has flags {flags:#06x}: only a TUN interface can be used")]
    WrongKind { name: String, flags: u16 },
    /// Anything else the kernel said.
    #[error("{0}")]
    Other(SysError),
}

impl From<SysError> for TunError {
    fn from(error: SysError) -> Self {
        Self::Other(error)
    }
}

impl Tun {
    /// Creates the interface `name`, or takes over a persistent one that nobody holds, with those of
    /// the `wanted` offloads that the kernel has. `%d` at the end of the name lets the kernel choose
    /// a number; [`name`](Self::name) tells which.
    ///
    /// # Errors
    /// See [`TunError`]; each tells what to do about it.
    pub fn create(name: &str, wanted: TunOffloads) -> Result<Self, TunError> {
        Self::create_as(name, wanted, &[BARE])
    }

    /// As [`create`](Self::create); a new interface may then have more queues, if the kernel can do
    /// that: [`may_have_more`](Self::may_have_more) tells. One that is taken over has its one.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_for_queues(name: &str, wanted: TunOffloads) -> Result<Self, TunError> {
        // Exclusive: as one more queue of an interface that somebody else holds we would take away
        // a part of his packets.
        Self::create_as(name, wanted, &[BARE | QUEUES | EXCLUSIVE, BARE])
    }

    /// With the first of `kinds` that the kernel accepts, and with a header if it can be.
    fn create_as(
        name: &str,
        wanted: TunOffloads,
        kinds: &[libc::c_short],
    ) -> Result<Self, TunError> {
        if !is_valid_name(name.strip_suffix("%d").unwrap_or(name)) {
            return Err(TunError::InvalidName(name.to_owned()));
        }
        let fd = open_device().map_err(|error| match error.errno() {
            Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => TunError::NoDevice(error),
            Some(libc::EPERM | libc::EACCES) => TunError::NotPermitted(error, name.to_owned()),
            _ => TunError::Other(error),
        })?;
        let headers = if wanted == TunOffloads::NONE { &[0][..] } else { &[HEADER, 0] };
        let mut tries =
            kinds.iter().flat_map(|kind| headers.iter().map(move |header| kind | header));
        // Where the kernel's lookalikes know no header, the last error is the one that counts.
        let mut outcome = Err(SysError::from_errno("ioctl TUNSETIFF", libc::EINVAL));
        while outcome.is_err()
            && let Some(flags) = tries.next()
        {
            outcome = set_interface(fd.as_fd(), name, flags).map(|name| (name, flags));
        }
        let (name, flags) = outcome.map_err(|error| match error.errno() {
            Some(libc::EPERM) => TunError::NotPermitted(error, name.to_owned()),
            Some(libc::EBUSY) => TunError::Busy(error, name.to_owned()),
            Some(libc::EINVAL) => TunError::NotTun(error, name.to_owned()),
            _ => TunError::Other(error),
        })?;
        Self::over(fd, name, flags, wanted).map_err(TunError::Other)
    }

    /// With those of the `wanted` offloads that the kernel has for a descriptor with these `flags`.
    fn over(
        fd: OwnedFd,
        name: String,
        flags: libc::c_short,
        wanted: TunOffloads,
    ) -> Result<Self, SysError> {
        let has_header = flags & HEADER != 0;
        let offloads = negotiate(fd.as_fd(), has_header, wanted)?;
        Ok(Self { fd, name, has_header, may_have_more: flags & QUEUES != 0, offloads })
    }

    /// One more queue of the same interface, with the same offloads.
    ///
    /// # Errors
    /// The interface was not made for more than one, or has as many as the kernel allows (256).
    pub fn open_queue(&self) -> Result<Self, SysError> {
        if !self.may_have_more {
            return Err(SysError::from_errno("ioctl TUNSETIFF", libc::EINVAL));
        }
        let header = if self.has_header { HEADER } else { 0 };
        let (fd, flags) = (open_device()?, BARE | QUEUES | header);
        let name = set_interface(fd.as_fd(), &self.current_name()?, flags)?;
        Self::over(fd, name, flags, self.offloads)
    }

    /// Whether the interface was made for more than one queue.
    pub fn may_have_more(&self) -> bool {
        self.may_have_more
    }

    /// Takes over a descriptor that another process, or an earlier one of ours, has attached, with
    /// those of the `wanted` offloads that are possible: none, if it was made without a virtio-net
    /// header. It must have been made with IFF_NO_PI, which the kernel does not tell.
    ///
    /// # Errors
    /// [`TunError::WrongKind`] for a TAP; `EBADFD` in [`TunError::Other`] for one without an
    /// interface.
    pub fn attach(fd: OwnedFd, wanted: TunOffloads) -> Result<Self, TunError> {
        let mut request = request("");
        interface_ioctl("ioctl TUNGETIFF", fd.as_fd(), libc::TUNGETIFF, &mut request)?;
        let name = name_of(&request);
        // SAFETY: TUNGETIFF succeeded, so the kernel has written the flags member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        if flags & COMPARED != BARE & COMPARED {
            return Err(TunError::WrongKind { name, flags: flags.cast_unsigned() });
        }
        let status = rustix::fs::fcntl_getfl(&fd).map_err(|e| SysError::new("fcntl F_GETFL", e))?;
        rustix::fs::fcntl_setfl(&fd, status | OFlags::NONBLOCK)
            .map_err(|e| SysError::new("fcntl F_SETFL", e))?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)
            .map_err(|e| SysError::new("fcntl F_SETFD", e))?;
        Self::over(fd, name, flags, wanted).map_err(TunError::Other)
    }

    /// A second descriptor of the same queue, e.g. for the other direction's thread.
    pub fn try_clone(&self) -> Result<Self, SysError> {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
            .map_err(|e| SysError::new("fcntl F_DUPFD", e))?;
        Ok(Self { fd, name: self.name.clone(), ..*self })
    }

    /// Bytes of virtio-net header in front of each packet, read and written: 0 or
    /// [`VNET_HEADER_BYTES`].
    pub fn header_bytes(&self) -> usize {
        if self.has_header { VNET_HEADER_BYTES } else { 0 }
    }

    /// The super-packets that may cross.
    pub fn offloads(&self) -> TunOffloads {
        self.offloads
    }

    /// The name when the descriptor was opened; a later rename is told by
    /// [`current_name`](Self::current_name).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks the kernel for the interface's present name.
    ///
    /// # Errors
    /// [`is_tun_gone`](SysError::is_tun_gone) when the interface was deleted.
    pub fn current_name(&self) -> Result<String, SysError> {
        let mut request = request("");
        interface_ioctl("ioctl TUNGETIFF", self.fd.as_fd(), libc::TUNGETIFF, &mut request)?;
        Ok(name_of(&request))
    }

    /// Reads one packet, its header first, into the front of `buffer`; `None` when none waits. A packet longer than
    /// the buffer is cut by the kernel, so give room for the interface's MTU.
    ///
    /// # Errors
    /// [`is_tun_gone`](SysError::is_tun_gone) once the interface was deleted.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<Option<usize>, SysError> {
        self.recv_vectored(&mut [IoSliceMut::new(buffer)])
    }

    /// As [`recv`](Self::recv), over several pieces.
    pub fn recv_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> Result<Option<usize>, SysError> {
        loop {
            match rustix::io::readv(&self.fd, buffers) {
                Ok(len) => return Ok(Some(len)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(e) => return Err(SysError::new("read tun", e)),
            }
        }
    }

    /// Writes one packet, its header first.
    ///
    /// # Errors
    /// [`is_tun_down`](SysError::is_tun_down) and [`is_packet_refused`](SysError::is_packet_refused)
    /// concern this packet only; [`is_would_block`](SysError::is_would_block) is rare (memory);
    /// [`is_tun_gone`](SysError::is_tun_gone) is the end.
    pub fn send(&self, packet: &[u8]) -> Result<(), SysError> {
        loop {
            match rustix::io::write(&self.fd, packet) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(SysError::new("write tun", e)),
            }
        }
    }

    /// As [`send`](Self::send), gathered from several pieces.
    pub fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> Result<(), SysError> {
        loop {
            match rustix::io::writev(&self.fd, pieces) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(SysError::new("write tun", e)),
            }
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Display for Tun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// True if the kernel accepts `name` for an interface. [LNX net/core/dev.c:dev_valid_name]
pub fn is_valid_name(name: &str) -> bool {
    let banned =
        |c: char| matches!(c, '/' | ':' | '%' | '\0') || c.is_ascii_whitespace() || c == '\u{b}';
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name != "."
        && name != ".."
        && !name.contains(banned)
}

/// Flags of a TUN interface that gives bare packets. The constants fit: they are at most 0x1000.
#[allow(clippy::cast_possible_truncation, reason = "IFF_TUN and IFF_NO_PI are below 0x8000")]
const BARE: libc::c_short = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;

/// The flag of one that has a virtio-net header before its packets.
#[allow(clippy::cast_possible_truncation, reason = "IFF_VNET_HDR is below 0x8000")]
const HEADER: libc::c_short = libc::IFF_VNET_HDR as libc::c_short;

/// The flag of one that may have several queues.
#[allow(clippy::cast_possible_truncation, reason = "IFF_MULTI_QUEUE is below 0x8000")]
const QUEUES: libc::c_short = libc::IFF_MULTI_QUEUE as libc::c_short;

/// The flag that has the kernel refuse, as busy, the name of an interface that there is.
#[allow(clippy::cast_possible_truncation, reason = "the kernel reads the sixteen bits unsigned")]
const EXCLUSIVE: libc::c_short = libc::IFF_TUN_EXCL as libc::c_short;

/// The flags that must be right and can be asked for. IFF_NO_PI cannot: TUNGETIFF answers
/// IFF_NOFILTER, "no socket filter", in the same bit. [LNX drivers/net/tun.c:TUNGETIFF]
#[allow(clippy::cast_possible_truncation, reason = "all are below 0x8000")]
const COMPARED: libc::c_short = (libc::IFF_TUN | libc::IFF_TAP) as libc::c_short;

/// Agrees with the kernel on those of the `wanted` offloads that it has.
fn negotiate(
    fd: BorrowedFd<'_>,
    has_header: bool,
    wanted: TunOffloads,
) -> Result<TunOffloads, SysError> {
    if !has_header {
        return Ok(TunOffloads::NONE);
    }
    let mut size = libc::c_int::try_from(VNET_HEADER_BYTES).unwrap_or(0);
    // SAFETY: `fd` is open for the call; TUNSETVNETHDRSZ reads one int, to which `size` is an
    // exclusive, initialised reference.
    let set = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw mut size) };
    check("ioctl TUNSETVNETHDRSZ", set)?;
    let tries = [wanted, TunOffloads { udp: false, ..wanted }, TunOffloads::NONE];
    let mut outcome = Ok(TunOffloads::NONE);
    for offloads in tries {
        // SAFETY: `fd` is open for the call; TUNSETOFFLOAD takes a number.
        let set = unsafe {
            libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads.bits()))
        };
        outcome = check("ioctl TUNSETOFFLOAD", set).map(|_| offloads);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Finds out whether the device node is there and may be opened.
///
/// # Errors
/// [`is_missing`](SysError::is_missing) without the node, `ENODEV` without the module;
/// [`is_not_permitted`](SysError::is_not_permitted) where a container may not use it.
pub fn try_device() -> Result<(), SysError> {
    open_device().map(drop)
}

fn open_device() -> Result<OwnedFd, SysError> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .map_err(|e| SysError::new("open /dev/net/tun", e))
}

/// Attaches `fd` to the interface `name`, which is made if there is none; yields its name.
fn set_interface(fd: BorrowedFd<'_>, name: &str, flags: libc::c_short) -> Result<String, SysError> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = flags;
    interface_ioctl("ioctl TUNSETIFF", fd, libc::TUNSETIFF, &mut request)?;
    Ok(name_of(&request))
}

/// An interface request with `name` in it, cut so that a zero byte always ends it.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is an array of integers and a union of integers, addresses and a pointer, for
    // all of which the all-zero pattern is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (slot, byte) in request.ifr_name[..MAX_NAME_BYTES].iter_mut().zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    request
}

fn name_of(request: &libc::ifreq) -> String {
    let bytes: Vec<u8> = request
        .ifr_name
        .iter()
        .map(|byte| byte.cast_unsigned())
        .take_while(|&byte| byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn interface_ioctl(
    op: &'static str,
    fd: BorrowedFd<'_>,
    code: libc::Ioctl,
    request: &mut libc::ifreq,
) -> Result<(), SysError> {
    // SAFETY: `fd` is open for the call; both requests used here (TUNSETIFF, TUNGETIFF) read or
    // write one `ifreq`, to which `request` is an exclusive, initialised reference.
    check(op, unsafe { libc::ioctl(fd.as_raw_fd(), code, std::ptr::from_mut(request)) })?;
    Ok(())
}

#[cfg(test)]
mod tests;
