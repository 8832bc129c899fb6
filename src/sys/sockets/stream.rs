//! A TCP connection of this host's, from its first SYN on.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::sys::SysError;
use crate::sys::udp::set_mark;

/// When a connection on which nothing moves is asked whether it lives, how often and how many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 4;

/// How long sent data may stay unacknowledged before the connection is given up.
const USER_TIMEOUT_MILLIS: u32 = 300_000;

/// One connection. It may still be under way: it becomes writable when that is decided, and
/// [`Self::take_error`] tells how.
#[derive(Debug)]
pub struct Stream(TcpStream);

impl Stream {
    /// Starts to connect to `remote`, with firewall mark `mark` (0: none).
    ///
    /// # Errors
    /// What can be told at once, as that there is no route.
    pub fn connect(remote: SocketAddr, mark: u32) -> Result<Self, SysError> {
        let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)
            .map_err(|e| SysError::new("socket TCP", e))?;
        if mark != 0 {
            set_mark(socket.as_fd(), mark)?;
        }
        // The far ends have waited for more data already, if they wanted to.
        sockopt::set_tcp_nodelay(&socket, true)
            .and_then(|()| sockopt::set_socket_keepalive(&socket, true))
            .and_then(|()| sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE))
            .and_then(|()| sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL))
            .and_then(|()| sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_PROBES))
            .and_then(|()| sockopt::set_tcp_user_timeout(&socket, USER_TIMEOUT_MILLIS))
            .map_err(|e| SysError::new("setsockopt TCP", e))?;
        match connect(&socket, &remote) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Self(socket.into())),
            Err(error) => Err(SysError::new("connect TCP", error)),
        }
    }

    /// The error that waits on the connection: how connecting ended, or what ended the connection.
    ///
    /// # Errors
    /// That error.
    pub fn take_error(&self) -> Result<(), SysError> {
        match self.0.take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(SysError::new("connect TCP", error)),
        }
    }

    /// Reads into `pieces`; 0: the other side has said all. `None` if nothing waits.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn read(&mut self, pieces: &mut [IoSliceMut<'_>]) -> Result<Option<usize>, SysError> {
        would_block("readv", || self.0.read_vectored(pieces))
    }

    /// Writes of `pieces` what finds room; `None` if nothing does.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn write(&mut self, pieces: &[IoSlice<'_>]) -> Result<Option<usize>, SysError> {
        would_block("writev", || self.0.write_vectored(pieces))
    }

    /// Says that there is no more to come.
    pub fn finish(&self) {
        // It fails only where the connection has ended, which reading tells.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        // Failing, it ends in the other way.
        let _ = sockopt::set_socket_linger(&self.0, Some(Duration::ZERO));
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn would_block(
    op: &'static str,
    mut call: impl FnMut() -> io::Result<usize>,
) -> Result<Option<usize>, SysError> {
    loop {
        match call() {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                io::ErrorKind::Interrupted => {}
                _ => return Err(SysError::new(op, error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::sys::poll::{Interest, Poller};

    fn decided(stream: &Stream) -> Result<(), SysError> {
        let mut poller = Poller::new().unwrap();
        poller.add(stream.as_fd(), 0, Interest::Writable).unwrap();
        while poller.wait(Some(Duration::from_secs(10))).unwrap().count() == 0 {}
        stream.take_error()
    }

    #[test]
    fn a_connection_is_told_when_it_is_there_and_ends_as_it_is_told_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = Stream::connect(listener.local_addr().unwrap(), 0).unwrap();
        decided(&stream).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        assert_eq!(stream.read(&mut [IoSliceMut::new(&mut [0; 4])]).unwrap(), None);
        assert_eq!(stream.write(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).unwrap(), Some(3));
        stream.finish();
        let mut heard = Vec::new();
        other.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"abc");
        stream.reset();
        while other.write(b"x").is_ok() {}
    }

    #[test]
    fn a_closed_port_is_told_as_refused() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = Stream::connect(address, 0).and_then(|stream| decided(&stream));
        assert_eq!(refused.unwrap_err().errno(), Some(libc::ECONNREFUSED));
    }
}
