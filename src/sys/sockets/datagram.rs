//! Unconnected sockets for UDP and for ICMP echo, and what the network says of what they have sent.
//! [LNX net/ipv4/ip_sockglue.c:ip_recv_error] [LNX net/ipv4/ping.c:ping_err]
//!
//! An error waits in the queue of its socket, and the next call on the socket fails with it, whatever
//! that call was for: who meets an error asks [`DatagramSocket::next_said`] until there is no more,
//! and sends again once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ip_ttl,
    set_ipv6_mtu_discover, set_ipv6_unicast_hops,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, ipproto,
    recvfrom, sendto, socket_with,
};

use crate::sys::cmsg::{ControlBuffer, ExtendedError};
use crate::sys::udp::address::{self, RawAddress};
use crate::sys::udp::{set_mark, set_option};
use crate::sys::{SysError, check};

/// Below it ports are the system's. [RFC 6335 §6]
const FIRST_USER_PORT: u16 = 1024;

/// What a socket sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Udp,
    /// ICMP messages from their type on: requests go out, replies come in. The kernel puts the port
    /// of the socket in the place of the identifier.
    Echo,
}

/// Whether what is sent may be cut on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragments {
    Allowed,
    /// It must not, and what is known of the path is heeded: too large a datagram is refused.
    Never,
}

/// What was said of a datagram that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Where the datagram went.
    pub to: SocketAddr,
    pub refusal: Refusal,
    /// Bytes of the datagram that are quoted.
    pub quoted: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A router or the other host sent this ICMP message.
    Icmp {
        from: IpAddr,
        kind: u8,
        code: u8,
        /// The second word of the message, where it is a number: an MTU in bytes.
        info: u32,
    },
    /// It did not fit what this host knows of the path, in bytes of a whole packet.
    TooBig { mtu: u32 },
    /// Something else that happened in this host.
    Local { errno: i32 },
}

/// An unconnected socket of one family.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: OwnedFd,
    is_v4: bool,
    /// What was last asked of the kernel.
    hops: Option<u8>,
    fragments: Option<Fragments>,
}

impl DatagramSocket {
    /// Opens a socket on `port`, or if that is taken or a port of the system on another, with firewall mark `mark` (0: none).
    ///
    /// # Errors
    /// [`is_not_permitted`](SysError::is_not_permitted) for [`Kind::Echo`] if the group of this
    /// process is not in `net.ipv4.ping_group_range`; no such family; no descriptor left.
    pub fn open(kind: Kind, is_v4: bool, port: u16, mark: u32) -> Result<Self, SysError> {
        let (family, any) = if is_v4 {
            (AddressFamily::INET, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        } else {
            (AddressFamily::INET6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        };
        let protocol = match kind {
            Kind::Udp => ipproto::UDP,
            Kind::Echo if is_v4 => ipproto::ICMP,
            Kind::Echo => ipproto::ICMPV6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::DGRAM, flags, Some(protocol))
            .map_err(|e| SysError::new("socket", e))?;
        let fd = socket.as_fd();
        if is_v4 {
            set_option("setsockopt IP_RECVERR", fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
        } else {
            let level = libc::IPPROTO_IPV6;
            set_option("setsockopt IPV6_RECVERR", fd, level, libc::IPV6_RECVERR, 1)?;
            set_option("setsockopt IPV6_V6ONLY", fd, level, libc::IPV6_V6ONLY, 1)?;
        }
        if mark != 0 {
            set_mark(fd, mark)?;
        }
        // Ports of the system are for its own programs, whatever this one has a right to.
        let port = if kind == Kind::Udp && port < FIRST_USER_PORT { 0 } else { port };
        bind(&socket, &SocketAddr::new(any, port))
            // Taken, perhaps.
            .or_else(|_| bind(&socket, &SocketAddr::new(any, 0)))
            .map_err(|e| SysError::new("bind", e))?;
        Ok(Self { socket, is_v4, hops: None, fragments: None })
    }

    /// The port, or the identifier of echoes, that the socket was given.
    pub fn port(&self) -> u16 {
        let address = getsockname(&self.socket).ok().and_then(|it| SocketAddr::try_from(it).ok());
        address.map_or(0, |address| address.port())
    }

    /// Sends `datagram` to `remote`, to go so many `hops`.
    ///
    /// # Errors
    /// [`is_too_big`](SysError::is_too_big); no route, a firewall, no room; or what was said of an
    /// earlier datagram.
    pub fn send(
        &mut self,
        remote: SocketAddr,
        hops: u8,
        fragments: Fragments,
        datagram: &[u8],
    ) -> Result<(), SysError> {
        if self.hops != Some(hops) {
            if self.is_v4 {
                set_ip_ttl(&self.socket, hops.into())
            } else {
                set_ipv6_unicast_hops(&self.socket, Some(hops))
            }
            .map_err(|e| SysError::new("setsockopt TTL", e))?;
            self.hops = Some(hops);
        }
        if self.fragments != Some(fragments) {
            match (self.is_v4, fragments) {
                (true, Fragments::Never) => {
                    set_ip_mtu_discover(&self.socket, Ipv4PathMtuDiscovery::DO)
                }
                (true, Fragments::Allowed) => {
                    set_ip_mtu_discover(&self.socket, Ipv4PathMtuDiscovery::DONT)
                }
                (false, Fragments::Never) => {
                    set_ipv6_mtu_discover(&self.socket, Ipv6PathMtuDiscovery::DO)
                }
                (false, Fragments::Allowed) => {
                    set_ipv6_mtu_discover(&self.socket, Ipv6PathMtuDiscovery::DONT)
                }
            }
            .map_err(|e| SysError::new("setsockopt MTU_DISCOVER", e))?;
            self.fragments = Some(fragments);
        }
        loop {
            match sendto(&self.socket, datagram, SendFlags::empty(), &remote) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(SysError::new("sendto", error)),
            }
        }
    }

    /// Receives a datagram into `buffer`, as far as it fits; `None` if none waits.
    ///
    /// # Errors
    /// What was said of an earlier datagram.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<(usize, SocketAddr)>, SysError> {
        loop {
            match recvfrom(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((bytes, _, from)) => {
                    let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                    match from {
                        Some(from) => return Ok(Some((bytes.min(buffer.len()), from))),
                        // The kernel names the sender of every datagram.
                        None => continue,
                    }
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(SysError::new("recvfrom", error)),
            }
        }
    }

    /// Takes what was said of one datagram, and writes what is quoted of it to the start of `quote`;
    /// `None` if nothing more was said.
    pub fn next_said(&self, quote: &mut [u8]) -> Option<Said> {
        let (mut name, mut control) = (RawAddress::EMPTY, ControlBuffer::default());
        let mut piece = libc::iovec { iov_base: quote.as_mut_ptr().cast(), iov_len: quote.len() };
        // SAFETY: `msghdr` is integers and nullable pointers: all-zero is a valid value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = name.as_mut_ptr();
        header.msg_namelen = libc::socklen_t::try_from(address::BYTES).unwrap_or(0);
        header.msg_iov = &raw mut piece;
        header.msg_iovlen = 1;
        header.msg_control = control.space().as_mut_ptr().cast();
        header.msg_controllen = control.space().len();
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        // SAFETY: the socket is open. The name and control pointers denote locals of the lengths
        // beside them, the one iovec denotes `quote`, borrowed mutably; all outlive the call.
        let received = unsafe { libc::recvmsg(fd, &raw mut header, flags) };
        let received = libc::c_int::try_from(received).unwrap_or(0);
        let quoted = check("recvmsg MSG_ERRQUEUE", received).ok()?;
        control.set_len(header.msg_controllen);
        let error = ExtendedError::decode(control.as_bytes())?;
        let to = name.decode()?;
        let refusal = match (error.origin, error.offender) {
            (libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6, Some(from)) => {
                Refusal::Icmp { from, kind: error.kind, code: error.code, info: error.info }
            }
            (libc::SO_EE_ORIGIN_LOCAL, _) if error.errno == libc::EMSGSIZE => {
                Refusal::TooBig { mtu: error.info }
            }
            _ => Refusal::Local { errno: error.errno },
        };
        Some(Said { to, refusal, quoted: usize::try_from(quoted).unwrap_or(0).min(quote.len()) })
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::sys::testing::eventually;

    fn said(socket: &DatagramSocket) -> Said {
        let mut found = None;
        assert!(eventually(|| {
            found = socket.next_said(&mut [0; 64]);
            found.is_some()
        }));
        found.unwrap()
    }

    #[test]
    fn a_closed_port_is_told_with_the_address_of_who_says_so() {
        for host in ["127.0.0.1", "::1"] {
            let host: IpAddr = host.parse().unwrap();
            let Ok(closed) = UdpSocket::bind((host, 0)) else { continue };
            let remote = closed.local_addr().unwrap();
            drop(closed);
            let mut socket = DatagramSocket::open(Kind::Udp, host.is_ipv4(), 0, 0).unwrap();
            socket.send(remote, 9, Fragments::Never, b"hello").unwrap();
            let said = said(&socket);
            let (kind, code) = if host.is_ipv4() { (3, 3) } else { (1, 4) };
            let refusal = Refusal::Icmp { from: host, kind, code, info: 0 };
            assert_eq!((said.to, said.refusal, said.quoted), (remote, refusal, 5));
            assert_eq!(socket.next_said(&mut []), None);
        }
    }

    #[test]
    fn a_port_that_is_taken_is_replaced_and_answers_come_with_their_sender() {
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let taken = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        let wanted = taken.local_addr().unwrap().port();
        let mut socket = DatagramSocket::open(Kind::Udp, true, wanted, 0).unwrap();
        assert_ne!(socket.port(), wanted);
        let mut buffer = [0; 16];
        assert_eq!(socket.receive(&mut buffer).unwrap(), None);
        let remote = SocketAddr::from(([127, 0, 0, 1], port));
        socket.send(remote, 64, Fragments::Allowed, b"ping").unwrap();
        let (_, from) = other.recv_from(&mut buffer).unwrap();
        assert_eq!(from.port(), socket.port());
        other.send_to(b"pong", from).unwrap();
        let mut received = None;
        assert!(eventually(|| {
            received = socket.receive(&mut buffer).unwrap();
            received.is_some()
        }));
        assert_eq!(received, Some((4, remote)));
        assert_eq!(buffer[..4], *b"pong");
    }
}
