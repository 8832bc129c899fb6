//! What the kernel knows of a TCP connection [LNX tcp.h:tcp_info], by which interface it goes, and how
//! it avoids congestion.

use std::mem::zeroed;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, socket, sockopt};

use super::sockets::Stream;
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

/// A connection to `remote` that avoids congestion by `algorithm` from its first segment on; `None`
/// leaves it to the kernel.
///
/// # Errors
/// It does not come about within `limit`, or see [`set_congestion`].
pub fn connect(
    remote: SocketAddr,
    limit: Duration,
    algorithm: Option<&str>,
) -> Result<TcpStream, SysError> {
    let prepare =
        |socket: BorrowedFd<'_>| algorithm.map_or(Ok(()), |it| set_congestion(socket, it));
    Stream::prepared(remote, prepare)?.wait(limit)
}

/// Has a socket avoid congestion by the algorithm of that name: one that is not connected yet, or that
/// listens and hands it on to its connections. One that is connected would stay paced by a timer if bbr
/// was the former. [LNX tcp_cong.c:tcp_reinit_congestion_control, tcp_bbr.c:bbr_init]
///
/// # Errors
/// The kernel has no such algorithm, or does not let us have it.
pub fn set_congestion(socket: BorrowedFd<'_>, algorithm: &str) -> Result<(), SysError> {
    sockopt::set_tcp_congestion(socket, algorithm)
        .map_err(|e| SysError::new("setsockopt TCP_CONGESTION", e))
}

/// By which algorithm a new connection of this thread's network namespace avoids congestion if it is
/// told `algorithm`, or nothing.
///
/// # Errors
/// See [`set_congestion`].
pub fn congestion(algorithm: Option<&str>) -> Result<String, SysError> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)
        .map_err(|e| SysError::new("socket TCP", e))?;
    if let Some(algorithm) = algorithm {
        set_congestion(socket.as_fd(), algorithm)?;
    }
    sockopt::tcp_congestion(&socket).map_err(|e| SysError::new("getsockopt TCP_CONGESTION", e))
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
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn both_ends_of_a_connection_avoid_congestion_as_was_said() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Two that nobody needs a right for, unless reno is the default.
        for algorithm in ["reno", &congestion(None).unwrap()] {
            assert_eq!(congestion(Some(algorithm)).unwrap(), algorithm);
            set_congestion(listener.as_fd(), algorithm).unwrap();
            let stream = connect(address, LIMIT, Some(algorithm)).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            for end in [&stream, &accepted] {
                assert_eq!(sockopt::tcp_congestion(end).unwrap(), algorithm);
            }
            let flags = rustix::fs::fcntl_getfl(&stream).unwrap();
            assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK), "its calls wait");
        }
    }

    #[test]
    fn a_connection_that_nobody_accepts_or_by_no_algorithm_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = connect(address, LIMIT, Some("nonsense")).unwrap_err();
        assert!(error.is_missing(), "{error}");
        drop(listener);
        let error = connect(address, LIMIT, None).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ECONNREFUSED));
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
