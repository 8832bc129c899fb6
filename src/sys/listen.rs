//! Sockets that wait for whoever comes, and the moment in which one takes the place of another.
//!
//! A listener at one address and one at all addresses cannot have the same port at once, so that the
//! second of two could be opened only when the first is gone, and perhaps not even then. `SO_REUSEPORT`
//! allows it, to sockets of one user that all have it: here they have it while one is being opened, and
//! no longer, so that nobody shares a port without asking for it, which only the same user's programs
//! can. [LNX inet_connection_sock.c:inet_bind_conflict]

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::SysError;
use super::tcp::bind_to_interface;
use super::udp::set_mark;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens for connections to `address`, beside `leaving`, which have the same port and will be closed.
/// Does not block.
///
/// # Errors
/// [`is_address_in_use`](SysError::is_address_in_use) if somebody else listens there; no such address
/// here, a right is missing. Those who leave have noticed nothing then.
pub fn tcp(address: SocketAddr, leaving: &[BorrowedFd<'_>]) -> Result<TcpListener, SysError> {
    open(SocketType::STREAM, address, leaving).map(Into::into)
}

/// As [`tcp`], for datagrams.
///
/// # Errors
/// As there.
pub fn udp(address: SocketAddr, leaving: &[BorrowedFd<'_>]) -> Result<UdpSocket, SysError> {
    open(SocketType::DGRAM, address, leaving).map(Into::into)
}

/// As [`tcp`]; what is accepted and answered there carries `mark`, unless that is 0.
/// [LNX inet_sock.h:inet_request_mark]
///
/// # Errors
/// As there.
pub fn tcp_marked(
    address: SocketAddr,
    leaving: &[BorrowedFd<'_>],
    mark: u32,
) -> Result<TcpListener, SysError> {
    let listener = tcp(address, leaving)?;
    if mark != 0 {
        set_mark(listener.as_fd(), mark)?;
    }
    Ok(listener)
}

/// Listens on `address` for what comes in by `interface`. The address alone would not do: a host
/// takes a packet to any of its addresses from any network.
///
/// # Errors
/// [`is_missing`](SysError::is_missing) without such an interface, and as [`tcp`].
pub fn tcp_on(interface: &str, address: SocketAddr) -> Result<TcpListener, SysError> {
    let socket = socket(SocketType::STREAM, address)?;
    bind_to_interface(socket.as_fd(), interface)?;
    settle(&socket, SocketType::STREAM, address)?;
    Ok(socket.into())
}

fn open(
    kind: SocketType,
    address: SocketAddr,
    leaving: &[BorrowedFd<'_>],
) -> Result<OwnedFd, SysError> {
    let socket = socket(kind, address)?;
    if leaving.is_empty() {
        settle(&socket, kind, address)?;
        return Ok(socket);
    }
    let all = || leaving.iter().copied().chain([socket.as_fd()]);
    let outcome = all()
        .try_for_each(|socket| share(socket, true))
        .and_then(|()| settle(&socket, kind, address));
    all().try_for_each(|socket| share(socket, false))?;
    outcome.map(|()| socket)
}

fn share(socket: BorrowedFd<'_>, shares: bool) -> Result<(), SysError> {
    sockopt::set_socket_reuseport(socket, shares)
        .map_err(|e| SysError::new("setsockopt SO_REUSEPORT", e))
}

fn socket(kind: SocketType, address: SocketAddr) -> Result<OwnedFd, SysError> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(family, kind, flags, None).map_err(|e| SysError::new("socket", e))
}

fn settle(socket: &OwnedFd, kind: SocketType, address: SocketAddr) -> Result<(), SysError> {
    if kind == SocketType::STREAM {
        // Another one's connections that have just ended do not count.
        sockopt::set_socket_reuseaddr(socket, true)
            .map_err(|e| SysError::new("setsockopt SO_REUSEADDR", e))?;
    }
    bind(socket, &address).map_err(|e| SysError::new("bind", e))?;
    if kind == SocketType::STREAM {
        listen(socket, BACKLOG).map_err(|e| SysError::new("listen", e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn one_listens_on_an_interface_that_is_there() {
        let listener = tcp_on("lo", "127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(TcpStream::connect(listener.local_addr().unwrap()).is_ok());
        let error = tcp_on("none4711", "127.0.0.1:0".parse().unwrap()).unwrap_err();
        assert!(error.is_missing(), "{error:?}");
        let again = tcp_on("lo", listener.local_addr().unwrap()).unwrap_err();
        assert!(again.is_address_in_use(), "{again:?}");
    }

    #[test]
    fn one_takes_the_place_of_another_at_its_port_and_of_nobody_else() {
        let at = |host: &str, port| SocketAddr::new(host.parse().unwrap(), port);
        let one = tcp(at("127.0.0.1", 0), &[]).unwrap();
        let port = one.local_addr().unwrap().port();
        let refused = |outcome: Result<TcpListener, SysError>| {
            assert!(outcome.unwrap_err().is_address_in_use());
        };
        refused(tcp(at("0.0.0.0", port), &[]));
        let stranger = tcp(at("127.0.0.2", port), &[]).unwrap();
        refused(tcp(at("0.0.0.0", port), &[one.as_fd()]));
        assert!(!sockopt::socket_reuseport(&one).unwrap(), "also where it did not help");
        drop(stranger);
        let all = tcp(at("0.0.0.0", port), &[one.as_fd()]).unwrap();
        refused(tcp(at("127.0.0.2", port), &[]));
        drop(one);
        TcpStream::connect(at("127.0.0.1", port)).unwrap();
        all.accept().unwrap();
        let one = tcp(at("127.0.0.1", port), &[all.as_fd()]).unwrap();
        drop(all);
        TcpStream::connect(at("127.0.0.1", port)).unwrap();
        one.accept().unwrap();
    }

    #[test]
    fn a_socket_for_datagrams_takes_the_place_of_another_too() {
        let all = udp("0.0.0.0:0".parse().unwrap(), &[]).unwrap();
        let place = SocketAddr::from(([127, 0, 0, 1], all.local_addr().unwrap().port()));
        assert!(udp(place, &[]).unwrap_err().is_address_in_use());
        let one = udp(place, &[all.as_fd()]).unwrap();
        drop(all);
        one.send_to(b"x", place).unwrap();
        assert_eq!(one.recv_from(&mut [0; 2]).unwrap(), (1, place));
    }
}
