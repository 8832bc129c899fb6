//! A stream of this host's: a TCP connection from its first SYN on, one to a Unix socket, or one that
//! somebody else has made.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio, readv, retry_on_intr, writev};
use rustix::net::sockopt;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, connect, shutdown,
    socket_with,
};

use crate::sys::SysError;
use crate::sys::udp::{set_mark, set_option};

/// When a connection on which nothing moves is asked whether it lives, how often and how many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 4;

/// How long a service may leave sent data unacknowledged, or unread, before the connection is given up.
const USER_TIMEOUT_MILLIS: u32 = 300_000;

/// One connection. It may still be under way: it becomes writable when that is decided, and
/// [`Self::take_error`] tells how.
#[derive(Debug)]
pub struct Stream(OwnedFd);

impl Stream {
    /// Starts to connect to `remote`, with firewall mark `mark` (0: none), from `source` if there is one.
    ///
    /// # Errors
    /// What can be told at once, as that there is no route.
    pub fn connect(
        remote: SocketAddr,
        mark: u32,
        source: Option<IpAddr>,
    ) -> Result<Self, SysError> {
        let prepare = |socket: BorrowedFd<'_>| {
            if mark != 0 {
                set_mark(socket, mark)?;
            }
            set_tcp_options(socket)?;
            sockopt::set_tcp_user_timeout(socket, USER_TIMEOUT_MILLIS)
                .map_err(|e| SysError::new("setsockopt TCP_USER_TIMEOUT", e))?;
            if let Some(source) = source {
                // The port is picked when the far end is known: else there were so many ports for all.
                let name = libc::IP_BIND_ADDRESS_NO_PORT;
                set_option(
                    "setsockopt IP_BIND_ADDRESS_NO_PORT",
                    socket,
                    libc::IPPROTO_IP,
                    name,
                    1,
                )?;
                let source = SocketAddr::new(source, 0);
                bind(socket, &source).map_err(|e| SysError::new("bind TCP", e))?;
            }
            Ok(())
        };
        Self::prepared(remote, prepare)
    }

    /// Starts to connect to `remote` by a socket that `prepare` has had before.
    ///
    /// # Errors
    /// Those of `prepare`, and what can be told at once.
    pub(in crate::sys) fn prepared(
        remote: SocketAddr,
        prepare: impl FnOnce(BorrowedFd<'_>) -> Result<(), SysError>,
    ) -> Result<Self, SysError> {
        let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = open(family)?;
        prepare(socket.as_fd())?;
        match connect(&socket, &remote) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Self(socket)),
            Err(error) => Err(SysError::new("connect TCP", error)),
        }
    }

    /// As a connection whose calls wait, once it stands: for at most `limit`, and that anew after each
    /// signal.
    ///
    /// # Errors
    /// It does not come about.
    pub(in crate::sys) fn wait(self, limit: Duration) -> Result<TcpStream, SysError> {
        let error = |e| SysError::new("connect TCP", e);
        let limit = Timespec::try_from(limit).map_err(|_| error(Errno::INVAL))?;
        let mut awaited = [PollFd::new(&self.0, PollFlags::OUT)];
        if retry_on_intr(|| poll(&mut awaited, Some(&limit))).map_err(error)? == 0 {
            return Err(error(Errno::TIMEDOUT));
        }
        self.take_error()?;
        ioctl_fionbio(&self.0, false).map_err(|e| SysError::new("FIONBIO", e))?;
        Ok(self.0.into())
    }

    /// Connects to the Unix socket at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or has room for one more; no right.
    pub fn connect_to_path(path: &Path) -> Result<Self, SysError> {
        let error = |e| SysError::new("connect unix", e);
        let socket = open(AddressFamily::UNIX)?;
        connect(&socket, &SocketAddrUnix::new(path).map_err(error)?).map_err(error)?;
        Ok(Self(socket))
    }

    /// A connection that somebody else has made, TCP or Unix, with the options that it has.
    ///
    /// # Errors
    /// It is no descriptor for this.
    pub fn adopt(connection: OwnedFd) -> Result<Self, SysError> {
        ioctl_fionbio(&connection, true).map_err(|e| SysError::new("FIONBIO", e))?;
        Ok(Self(connection))
    }

    /// The error that waits on the connection: how connecting ended, or what ended the connection.
    ///
    /// # Errors
    /// That error.
    pub fn take_error(&self) -> Result<(), SysError> {
        match sockopt::socket_error(&self.0) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) | Err(error) => Err(SysError::new("connect", error)),
        }
    }

    /// Reads into `pieces`; 0: the other side has said all. `None` if nothing waits.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn read(&mut self, pieces: &mut [IoSliceMut<'_>]) -> Result<Option<usize>, SysError> {
        would_block("readv", || readv(&self.0, pieces))
    }

    /// Writes of `pieces` what finds room; `None` if nothing does.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn write(&mut self, pieces: &[IoSlice<'_>]) -> Result<Option<usize>, SysError> {
        would_block("writev", || writev(&self.0, pieces))
    }

    /// Says that there is no more to come.
    pub fn finish(&self) {
        // It fails only where the connection has ended, which reading tells.
        let _ = shutdown(&self.0, Shutdown::Write);
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

fn open(family: AddressFamily) -> Result<OwnedFd, SysError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(family, SocketType::STREAM, flags, None)
        .map_err(|e| SysError::new("socket stream", e))
}

/// What a TCP connection needs that stands between two others: data goes on at once, because the far
/// ends have waited for more already, if they wanted to; and a host that is gone ends it. One that is there
/// may stop reading for as long as it likes, which TCP_USER_TIMEOUT would end. [tcp(7)]
///
/// # Errors
/// Not a TCP socket.
pub fn set_tcp_options(socket: BorrowedFd<'_>) -> Result<(), SysError> {
    sockopt::set_tcp_nodelay(socket, true)
        .and_then(|()| sockopt::set_socket_keepalive(socket, true))
        .and_then(|()| sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE))
        .and_then(|()| sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL))
        .and_then(|()| sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES))
        .map_err(|e| SysError::new("setsockopt TCP", e))
}

/// Whether the other end of a Unix stream, which this end may still write to, is closed, and has not said
/// only that it has no more to say: as near as such a stream comes to a reset.
/// [LNX af_unix.c:unix_poll]
pub fn is_abandoned(stream: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(&stream, PollFlags::empty())];
    let at_once = Timespec::default();
    poll(&mut asked, Some(&at_once)).is_ok() && asked[0].revents().contains(PollFlags::HUP)
}

fn would_block(
    op: &'static str,
    mut call: impl FnMut() -> Result<usize, Errno>,
) -> Result<Option<usize>, SysError> {
    loop {
        match call() {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(SysError::new(op, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

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
        let mut stream = Stream::connect(listener.local_addr().unwrap(), 0, None).unwrap();
        decided(&stream).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        set_tcp_options(other.as_fd()).unwrap();
        let patience = [stream.as_fd(), other.as_fd()].map(sockopt::tcp_user_timeout);
        assert_eq!(patience, [Ok(300_000), Ok(0)], "who stops reading is not gone");
        assert_eq!([stream.as_fd(), other.as_fd()].map(sockopt::socket_keepalive), [Ok(true); 2]);
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
        let refused = Stream::connect(address, 0, None).and_then(|stream| decided(&stream));
        assert_eq!(refused.unwrap_err().errno(), Some(libc::ECONNREFUSED));
    }

    #[test]
    fn a_connection_comes_from_the_address_that_was_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let source = "127.77.0.1".parse().unwrap();
        let place = listener.local_addr().unwrap();
        let _stream = Stream::connect(place, 0, Some(source)).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), source);
    }

    #[test]
    fn a_unix_socket_is_a_stream_as_well_and_so_is_what_somebody_else_has_connected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(Stream::connect_to_path(&path).is_err());
        let listener = UnixListener::bind(&path).unwrap();
        let stream = Stream::connect_to_path(&path).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let mut adopted = Stream::adopt(accepted.into()).unwrap();
        let mut room = [0; 4];
        assert_eq!(adopted.read(&mut [IoSliceMut::new(&mut room)]).unwrap(), None);
        assert_eq!(stream.take_error().map_err(|error| error.errno()), Ok(()));
        let mut stream = stream;
        assert_eq!(stream.write(&[IoSlice::new(b"abcd")]).unwrap(), Some(4));
        stream.finish();
        assert_eq!(adopted.read(&mut [IoSliceMut::new(&mut room)]).unwrap(), Some(4));
        assert_eq!(adopted.read(&mut [IoSliceMut::new(&mut room)]).unwrap(), Some(0));
        assert!(!is_abandoned(adopted.as_fd()), "it has said all, and may still listen");
        stream.reset();
        assert!(is_abandoned(adopted.as_fd()));
    }
}
