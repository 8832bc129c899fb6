//! What the kernel knows of a TCP connection [LNX tcp.h:tcp_info], and by which interface it goes.

use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::sockopt;

use super::{SysError, check};

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
    fn a_fresh_connection_has_sent_nothing_again_and_a_udp_socket_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(retransmissions(stream.as_fd()).unwrap(), 0);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(retransmissions(udp.as_fd()).is_err());
    }
}
