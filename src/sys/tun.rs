//! TUN interfaces: created by name or taken over by descriptor, read and written without blocking.
//!
//! One call moves one packet, without packet information in front. A virtio-net header for
//! segmentation offload is not asked for yet; [`VNET_HEADER_BYTES`] is the one place that says so,
//! and an inherited descriptor that has one is refused rather than misread.
//!
//! The interface lives as long as a descriptor does. Addresses, MTU and state are set over netlink
//! elsewhere.

use std::ffi::CStr;
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{SysError, check};

/// Bytes of virtio-net header before each packet.
pub const VNET_HEADER_BYTES: usize = 0;

/// Longest interface name in bytes, without the terminating zero.
pub const MAX_NAME_BYTES: usize = libc::IFNAMSIZ - 1;

const DEVICE: &CStr = c"/dev/net/tun";

/// A TUN interface's packet port. Reads and writes may come from two threads at once.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
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
        "{0} (an interface named {1} exists and is not a TUN interface that can be taken over)"
    )]
    NotTun(SysError, String),
    /// The inherited descriptor is a TAP, or puts a virtio-net header before its packets.
    #[error(
        "interface {name} has flags {flags:#06x}: only a TUN interface without virtio-net header can be used"
    )]
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
    /// Creates the interface `name`, or takes over a persistent one that nobody holds. `%d` at the
    /// end of the name lets the kernel choose a number; [`name`](Self::name) tells which.
    ///
    /// # Errors
    /// See [`TunError`]; each tells what to do about it.
    pub fn create(name: &str) -> Result<Self, TunError> {
        if !is_valid_name(name.strip_suffix("%d").unwrap_or(name)) {
            return Err(TunError::InvalidName(name.to_owned()));
        }
        let fd = open_device().map_err(|error| match error.errno() {
            Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => TunError::NoDevice(error),
            Some(libc::EPERM | libc::EACCES) => TunError::NotPermitted(error, name.to_owned()),
            _ => TunError::Other(error),
        })?;
        let mut request = request(name);
        request.ifr_ifru.ifru_flags = WANTED;
        interface_ioctl("ioctl TUNSETIFF", fd.as_fd(), libc::TUNSETIFF, &mut request).map_err(
            |error| match error.errno() {
                Some(libc::EPERM) => TunError::NotPermitted(error, name.to_owned()),
                Some(libc::EBUSY) => TunError::Busy(error, name.to_owned()),
                Some(libc::EINVAL) => TunError::NotTun(error, name.to_owned()),
                _ => TunError::Other(error),
            },
        )?;
        let name = name_of(&request);
        Ok(Self { fd, name })
    }

    /// Takes over a descriptor that another process, or an earlier one of ours, has attached. It
    /// must have been made with IFF_NO_PI, which the kernel does not tell.
    ///
    /// # Errors
    /// [`TunError::WrongKind`] for a TAP or a virtio-net header; `EBADFD` in
    /// [`TunError::Other`] for one without an interface.
    pub fn attach(fd: OwnedFd) -> Result<Self, TunError> {
        let mut request = request("");
        interface_ioctl("ioctl TUNGETIFF", fd.as_fd(), libc::TUNGETIFF, &mut request)?;
        let name = name_of(&request);
        // SAFETY: TUNGETIFF succeeded, so the kernel has written the flags member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        if flags & COMPARED != WANTED & COMPARED {
            return Err(TunError::WrongKind { name, flags: flags.cast_unsigned() });
        }
        let status = rustix::fs::fcntl_getfl(&fd).map_err(|e| SysError::new("fcntl F_GETFL", e))?;
        rustix::fs::fcntl_setfl(&fd, status | OFlags::NONBLOCK)
            .map_err(|e| SysError::new("fcntl F_SETFL", e))?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)
            .map_err(|e| SysError::new("fcntl F_SETFD", e))?;
        Ok(Self { fd, name })
    }

    /// A second descriptor of the same queue, e.g. for the other direction's thread.
    pub fn try_clone(&self) -> Result<Self, SysError> {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
            .map_err(|e| SysError::new("fcntl F_DUPFD", e))?;
        Ok(Self { fd, name: self.name.clone() })
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

    /// Reads one packet into the front of `buffer`; `None` when none waits. A packet longer than
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

    /// Writes one packet.
    ///
    /// # Errors
    /// [`is_tun_down`](SysError::is_tun_down) and [`is_packet_refused`](SysError::is_packet_refused)
    /// concern this packet only; [`is_would_block`](SysError::is_would_block) is rare (memory);
    /// [`is_tun_gone`](SysError::is_tun_gone) is the end.
    pub fn send(&self, packet: &[u8]) -> Result<(), SysError> {
        self.send_vectored(&[IoSlice::new(packet)])
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
const WANTED: libc::c_short = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;

/// The flags that tell about the packet format and can be asked for. IFF_NO_PI cannot: TUNGETIFF
/// answers IFF_NOFILTER, "no socket filter", in the same bit. [LNX drivers/net/tun.c:TUNGETIFF]
#[allow(clippy::cast_possible_truncation, reason = "all are below 0x8000")]
const COMPARED: libc::c_short =
    (libc::IFF_TUN | libc::IFF_TAP | libc::IFF_VNET_HDR) as libc::c_short;

fn open_device() -> Result<OwnedFd, SysError> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .map_err(|e| SysError::new("open /dev/net/tun", e))
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
