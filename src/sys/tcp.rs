//! What the kernel knows of a TCP connection [LNX tcp.h:tcp_info], and listening on one interface
//! alone.

use std::mem::zeroed;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::udp::set_mark;
use super::{SysError, check};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens on `address`; what is accepted and answered there carries `mark`, unless that is 0.
/// [LNX inet_sock.h:inet_request_mark]
///
/// # Errors
/// No such address here, somebody else listens there, a right is missing.
pub fn listen_marked(address: SocketAddr, mark: u32) -> Result<TcpListener, SysError> {
    let listener = TcpListener::bind(address).map_err(|e| SysError::new("listen TCP", e))?;
    if mark != 0 {
        set_mark(listener.as_fd(), mark)?;
    }
    listener.set_nonblocking(true).map_err(|e| SysError::new("fcntl", e))?;
    Ok(listener)
}

/// Listens on `address` for what comes in by `interface`. The address alone would not do: a host
/// takes a packet to any of its addresses from any network.
///
/// # Errors
/// [`is_missing`](SysError::is_missing) without such an interface,
/// [`is_address_in_use`](SysError::is_address_in_use) if somebody else listens there.
pub fn listen_on(interface: &str, address: SocketAddr) -> Result<TcpListener, SysError> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)
        .map_err(|e| SysError::new("socket TCP", e))?;
    // Another one's connections that have just ended do not count.
    sockopt::set_socket_reuseaddr(&socket, true)
        .map_err(|e| SysError::new("setsockopt SO_REUSEADDR", e))?;
    bind_to_interface(socket.as_fd(), interface)?;
    bind(&socket, &address).map_err(|e| SysError::new("bind TCP", e))?;
    listen(&socket, BACKLOG).map_err(|e| SysError::new("listen", e))?;
    Ok(socket.into())
}

/// Has a socket send and receive by `interface` alone.
///
/// # Errors
/// [`is_missing`](SysError::is_missing) without such an interface.
pub fn bind_to_interface(socket: BorrowedFd<'_>, interface: &str) -> Result<(), SysError> {
    let length = libc::socklen_t::try_from(interface.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the kernel reads `length` bytes at most of `interface`, which has as many and outlives
    // the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            interface.as_ptr().cast(),
            length,
        )
    };
    check("setsockopt SO_BINDTODEVICE", result).map(drop)
}

/// Has the connection avoid congestion by the algorithm of that name.
///
/// # Errors
/// The kernel has no such algorithm, or does not let us have it.
pub fn set_congestion(socket: BorrowedFd<'_>, algorithm: &str) -> Result<(), SysError> {
    sockopt::set_tcp_congestion(socket, algorithm)
        .map_err(|e| SysError::new("setsockopt TCP_CONGESTION", e))
}

/// How many segments the connection has sent again.
///
/// # Errors
/// Not a TCP socket.
pub fn retransmissions(socket: BorrowedFd<'_>) -> Result<u32, SysError> {
    // SAFETY: `tcp_info` is integers alone: all-zero is a valid value.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let size = size_of::<libc::tcp_info>();
    let mut length = libc::socklen_t::try_from(size).expect("a few hundred bytes");
    // SAFETY: `info` is a whole tcp_info, of which the kernel writes `length` bytes at most, and
    // both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    check("getsockopt TCP_INFO", result)?;
    Ok(info.tcpi_total_retrans)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn one_listens_on_an_interface_that_is_there() {
        let listener = listen_on("lo", "127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(TcpStream::connect(listener.local_addr().unwrap()).is_ok());
        let error = listen_on("none4711", "127.0.0.1:0".parse().unwrap()).unwrap_err();
        assert!(error.is_missing(), "{error:?}");
        let again = listen_on("lo", listener.local_addr().unwrap()).unwrap_err();
        assert!(again.is_address_in_use(), "{again:?}");
    }

    #[test]
    fn a_fresh_connection_has_sent_nothing_again_and_a_udp_socket_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(retransmissions(stream.as_fd()).unwrap(), 0);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(retransmissions(udp.as_fd()).is_err());
    }
}
