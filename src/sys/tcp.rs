//! What the kernel knows of a TCP connection. [LNX tcp.h:tcp_info]

use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{SysError, check};

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
