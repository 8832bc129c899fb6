//! Unconnected sockets for UDP and for ICMP echo, and what the network says of what they have sent.
//! [LNX net/ipv4/ip_sockglue.c:ip_recv_error] [LNX net/ipv4/ping.c:ping_err]
//!
//! An error waits in the queue of its socket, and the next call on the socket fails with it, whatever
//! that call was for: who meets an error asks [`DatagramSocket::next_said`] until there is no more,
//! and sends again once.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::io::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ip_ttl,
    set_ipv6_mtu_discover, set_ipv6_unicast_hops,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, ipproto, recv,
    sendto, socket_with,
};

use crate::packet::train::Train;
use crate::sys::cmsg::{ControlBuffer, ExtendedError, Received};
use crate::sys::udp::address::RawAddress;
use crate::sys::udp::{can_segment, enlarge_buffers, join, receive_message, set_mark, set_option};
use crate::sys::{SysError, check};

/// Below it ports are the system's. [RFC 6335 §6]
const FIRST_USER_PORT: u16 = 1024;

/// What a UDP socket may keep for us and for the network, in bytes: some hundred full datagrams, for
/// the time that a busy thread is elsewhere. There are many sockets, but what all of them keep the
/// kernel bounds, too (`net.ipv4.udp_mem`).
const BUFFER_BYTES: libc::c_int = 1 << 20;

/// Trains that are sent with one call.
pub const TRAINS_A_CALL: usize = 16;

/// What a socket sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Udp,
    /// ICMP messages from their type on: requests go out, replies come in. The kernel puts the port
    /// of the socket in the place of the identifier; but see [`DatagramSocket::identifier`].
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

/// Datagrams that were received: one, or several that the kernel has joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub from: SocketAddr,
    /// Bytes of all of them.
    pub len: usize,
    /// Bytes of each but the last, which may be shorter; `len` if it is one.
    pub stride: usize,
    /// The buffer was too short: the rest is lost.
    pub is_cut: bool,
}

/// An unconnected socket of one family.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: OwnedFd,
    is_v4: bool,
    /// The kernel cuts messages into datagrams (UDP_SEGMENT, Linux 4.18).
    segments: bool,
    /// Of a raw socket.
    identifier: Option<u16>,
    /// What was last asked of the kernel.
    hops: Option<u8>,
    fragments: Option<Fragments>,
}

impl DatagramSocket {
    /// Opens a socket on `local`, or if its port is taken or one of the system on another, with firewall
    /// mark `mark` (0: none).
    ///
    /// # Errors
    /// [`is_not_permitted`](SysError::is_not_permitted) for [`Kind::Echo`] if the group of this
    /// process is not in `net.ipv4.ping_group_range` and it lacks CAP_NET_RAW; no such family; no
    /// descriptor left.
    pub fn open(kind: Kind, local: SocketAddr, mark: u32) -> Result<Self, SysError> {
        let is_v4 = local.is_ipv4();
        let family = if is_v4 { AddressFamily::INET } else { AddressFamily::INET6 };
        let protocol = match kind {
            Kind::Udp => ipproto::UDP,
            Kind::Echo if is_v4 => ipproto::ICMP,
            Kind::Echo => ipproto::ICMPV6,
        };
        let make = |kind| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(family, kind, flags, Some(protocol));
            socket.map_err(|e| SysError::new("socket", e))
        };
        let (socket, identifier) = match make(SocketType::DGRAM) {
            Err(error) if kind == Kind::Echo && error.is_not_permitted() => {
                let socket = make(SocketType::RAW).map_err(|_| error)?;
                let identifier = next_identifier();
                hear_replies_to(socket.as_fd(), is_v4, identifier)?;
                (socket, Some(identifier))
            }
            outcome => (outcome?, None),
        };
        let fd = socket.as_fd();
        if is_v4 {
            set_option("setsockopt IP_RECVERR", fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
        } else {
            let level = libc::IPPROTO_IPV6;
            set_option("setsockopt IPV6_RECVERR", fd, level, libc::IPV6_RECVERR, 1)?;
            // Raw sockets are of one family in any case.
            if identifier.is_none() {
                set_option("setsockopt IPV6_V6ONLY", fd, level, libc::IPV6_V6ONLY, 1)?;
            }
        }
        if mark != 0 {
            set_mark(fd, mark)?;
        }
        let segments = kind == Kind::Udp && can_segment(fd);
        if kind == Kind::Udp {
            enlarge_buffers(fd, BUFFER_BYTES)?;
            // Without it (Linux 5.0) datagrams come one by one.
            let _ = join(fd);
        }
        // Ports of the system are for its own programs, whatever this one has a right to.
        let is_of_system = kind == Kind::Udp && local.port() < FIRST_USER_PORT;
        let port = if is_of_system { 0 } else { local.port() };
        if identifier.is_none() {
            bind(&socket, &SocketAddr::new(local.ip(), port))
                // Taken, perhaps.
                .or_else(|_| bind(&socket, &SocketAddr::new(local.ip(), 0)))
                .map_err(|e| SysError::new("bind", e))?;
        }
        Ok(Self { socket, is_v4, segments, identifier, hops: None, fragments: None })
    }

    /// The identifier that echoes must bear, with a right checksum, if the kernel does not see to that:
    /// where a raw socket had to do. It hears replies to these echoes alone, but is told what is said
    /// of the echoes of others as well.
    pub const fn identifier(&self) -> Option<u16> {
        self.identifier
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
        self.set_way(hops, fragments)?;
        loop {
            match sendto(&self.socket, datagram, SendFlags::empty(), &remote) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(SysError::new("sendto", error)),
            }
        }
    }

    /// Sends the datagrams of the first of `trains`, and of as many others as go with the same call, as
    /// [`send`](Self::send) would send each of them; tells of how many trains.
    ///
    /// # Errors
    /// Nothing was sent: as of [`send`](Self::send) for the first train, or the kernel does not cut it,
    /// or each datagram is to bear an [`identifier`](Self::identifier)
    /// ([`is_segmentation_refused`](SysError::is_segmentation_refused)).
    pub fn send_trains(
        &mut self,
        hops: u8,
        fragments: Fragments,
        trains: &[Train],
    ) -> Result<usize, SysError> {
        const OP: &str = "sendmmsg UDP_SEGMENT";
        let is_sendable = |train: &&Train| train.count() == 1 || self.segments;
        let count = trains.iter().take(TRAINS_A_CALL).take_while(is_sendable).count();
        if count == 0 || self.identifier.is_some() {
            return Err(SysError::from_errno(OP, libc::EOPNOTSUPP));
        }
        self.set_way(hops, fragments)?;
        let mut names = [RawAddress::EMPTY; TRAINS_A_CALL];
        let mut controls: [_; TRAINS_A_CALL] = std::array::from_fn(|_| ControlBuffer::default());
        // SAFETY: both are integers and nullable pointers: all-zero is a valid value.
        let mut pieces: [libc::iovec; TRAINS_A_CALL] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; TRAINS_A_CALL] = unsafe { std::mem::zeroed() };
        for (n, train) in trains[..count].iter().enumerate() {
            let bytes = train.bytes();
            let (name, name_bytes) = RawAddress::encode(train.to().remote);
            names[n] = name;
            pieces[n] =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let header = &mut headers[n].msg_hdr;
            header.msg_name = names[n].as_mut_ptr();
            header.msg_namelen = libc::socklen_t::try_from(name_bytes).unwrap_or(0);
            header.msg_iov = &raw mut pieces[n];
            header.msg_iovlen = 1;
            if train.count() > 1 {
                // Lossless: no train has more bytes.
                controls[n].push_segment_size(train.stride() as u16);
                header.msg_controllen = controls[n].as_bytes().len() as _;
                header.msg_control = controls[n].space().as_mut_ptr().cast();
            }
        }
        let vlen = libc::c_uint::try_from(count).unwrap_or(0);
        loop {
            // SAFETY: the socket is open. The first `vlen` headers are initialised; their names,
            // pieces and control data are initialised locals and the bytes of `trains`, of the lengths
            // beside them. All outlive the call, and the kernel writes to the headers alone.
            let sent =
                unsafe { libc::sendmmsg(self.socket.as_raw_fd(), headers.as_mut_ptr(), vlen, 0) };
            match check(OP, sent) {
                Ok(sent) => return Ok(usize::try_from(sent).unwrap_or(0)),
                Err(error) if error.is_interrupted() => {}
                Err(error) => {
                    self.segments &= trains[0].count() == 1 || !error.is_segmentation_impossible();
                    return Err(error);
                }
            }
        }
    }

    /// Has the kernel send from now on what goes so many `hops`, and may be cut or not.
    fn set_way(&mut self, hops: u8, fragments: Fragments) -> Result<(), SysError> {
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
        Ok(())
    }

    /// Receives one datagram into `buffer`, or several that the kernel has joined, as far as they fit;
    /// `None` if none waits.
    ///
    /// # Errors
    /// What was said of an earlier datagram.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<Arrival>, SysError> {
        let (mut name, mut control) = (RawAddress::EMPTY, ControlBuffer::default());
        let received = receive_message(self.as_fd(), 0, buffer, &mut name, &mut control);
        let (len, flags) = match received {
            Ok(received) => received,
            Err(error) if error.is_would_block() => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = if self.identifier.is_some() && self.is_v4 {
            // Raw sockets of IPv4 alone have the header before it.
            let header_bytes =
                buffer.first().map_or(0, |byte| usize::from(byte & 0xf) * 4).min(len);
            buffer.copy_within(header_bytes..len, 0);
            len - header_bytes
        } else {
            len
        };
        let told = Received::decode(control.as_bytes());
        // The kernel names the sender of every datagram.
        Ok(name.decode().map(|from| Arrival {
            from,
            len,
            stride: told.segment_size.unwrap_or(len),
            is_cut: flags & libc::MSG_TRUNC != 0,
        }))
    }

    /// Takes what was said of one datagram, and writes what is quoted of it to the start of `quote`;
    /// `None` if nothing more was said.
    pub fn next_said(&self, quote: &mut [u8]) -> Option<Said> {
        let (mut name, mut control) = (RawAddress::EMPTY, ControlBuffer::default());
        let flags = libc::MSG_ERRQUEUE;
        let received = receive_message(self.as_fd(), flags, quote, &mut name, &mut control);
        let (quoted, _) = received.ok()?;
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
        Some(Said { to, refusal, quoted })
    }
}

/// One that no raw socket of ours has had for long.
fn next_identifier() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let bytes = std::process::id().to_ne_bytes();
    // Others may begin with the first. Ordering: nothing but the number.
    NEXT.fetch_add(1, Ordering::Relaxed) ^ u16::from_ne_bytes([bytes[0], bytes[1]])
}

/// Lets a raw socket of ICMP hear nothing but replies to echoes of `identifier`.
fn hear_replies_to(socket: BorrowedFd<'_>, is_v4: bool, identifier: u16) -> Result<(), SysError> {
    let op = |code: u32, jt, jf, k| {
        let code = u16::try_from(code).unwrap_or(0);
        libc::sock_filter { code, jt, jf, k }
    };
    // Where the message begins: behind an IPv4 header, of the length that it says; IPv6's is not there.
    let (start, reply) = match is_v4 {
        true => (op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0), 0),
        false => (op(libc::BPF_LDX | libc::BPF_IMM, 0, 0, 0), 129),
    };
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let ret = libc::BPF_RET | libc::BPF_K;
    let mut program = [
        start,
        op(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 0, 0, 0),
        op(equal, 0, 3, reply),
        op(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 0, 4),
        op(equal, 0, 1, identifier.into()),
        op(ret, 0, 0, u32::MAX),
        op(ret, 0, 0, 0),
    ];
    let len = libc::c_ushort::try_from(program.len()).unwrap_or(0);
    let filter = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let bytes = libc::socklen_t::try_from(size_of_val(&filter)).unwrap_or(0);
    // SAFETY: the socket is open. The kernel reads `bytes` bytes, the size of `filter`, and the program
    // of the length beside it; both are initialised locals.
    check("setsockopt SO_ATTACH_FILTER", unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&filter).cast(),
            bytes,
        )
    })?;
    // What has come before it.
    while recv(socket, &mut [0; 1][..], RecvFlags::DONTWAIT).is_ok() {}
    Ok(())
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::proto::endpoint::Endpoint;
    use crate::sys::testing::{eventually, in_own_namespace, ip, skip};

    fn any(is_v4: bool, port: u16) -> SocketAddr {
        let any: &str = if is_v4 { "0.0.0.0" } else { "::" };
        SocketAddr::new(any.parse().unwrap(), port)
    }

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
            let mut socket = DatagramSocket::open(Kind::Udp, any(host.is_ipv4(), 0), 0).unwrap();
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
        let mut socket = DatagramSocket::open(Kind::Udp, any(true, wanted), 0).unwrap();
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
        assert_eq!(received, Some(Arrival { from: remote, len: 4, stride: 4, is_cut: false }));
        assert_eq!(buffer[..4], *b"pong");
    }

    fn train_of(remote: SocketAddr, bytes: &[u8], stride: usize) -> Train {
        let mut train = Train::new();
        train.start(Endpoint { remote, local: None }, 0);
        bytes.chunks(stride).for_each(|it| train.append(it.len()).unwrap().copy_from_slice(it));
        train
    }

    #[test]
    fn datagrams_of_any_length_and_for_anybody_go_with_one_call() {
        let receivers = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut sender = DatagramSocket::open(Kind::Udp, any(true, 0), 0).unwrap();
        let to = |n: usize| receivers[n % 2].local_addr().unwrap();
        let train = |n| train_of(to(n), &[n as u8; 99][n..], 99);
        let trains: Vec<Train> = (0..20).map(train).collect();
        assert_eq!(sender.send_trains(64, Fragments::Allowed, &trains).unwrap(), 16);
        for n in 0..16 {
            let mut buffer = [0; 200];
            receivers[n % 2].set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let length = receivers[n % 2].recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], [n as u8; 99][n..]);
        }
    }

    #[test]
    fn a_train_goes_as_its_datagrams_and_comes_joined_or_one_by_one() {
        let [mut sender, receiver] =
            [0; 2].map(|port| DatagramSocket::open(Kind::Udp, any(true, port), 0).unwrap());
        let remote = SocketAddr::from(([127, 0, 0, 1], receiver.port()));
        let train: Vec<u8> = (0..2500_usize).map(|at| (at / 10) as u8).collect();
        let trains = [train_of(remote, &train, 1000)];
        let sent = sender.send_trains(64, Fragments::Never, &trains);
        assert!(sent.is_ok() == sender.segments, "{sent:?}");
        if sent.is_err() {
            return skip("the kernel cuts no datagrams");
        }
        let (mut arrived, mut buffer) = (Vec::new(), [0; 4000]);
        assert!(eventually(|| {
            while let Some(arrival) = receiver.receive(&mut buffer).unwrap() {
                assert_eq!((arrival.from.port(), arrival.is_cut), (sender.port(), false));
                arrived.extend(buffer[..arrival.len].chunks(arrival.stride).map(<[u8]>::to_vec));
            }
            arrived.len() == 3
        }));
        assert!(arrived.iter().map(Vec::as_slice).eq(train.chunks(1000)));
        sender.send_trains(64, Fragments::Never, &trains).unwrap();
        let mut cut = None;
        assert!(eventually(|| {
            cut = receiver.receive(&mut buffer[..99]).unwrap();
            cut.is_some()
        }));
        assert!(cut.is_some_and(|cut| cut.is_cut && cut.len == 99));
    }

    #[test]
    fn where_pings_are_forbidden_a_raw_socket_hears_replies_to_its_own_alone() {
        in_own_namespace(|| {
            // As it is where nobody has changed it: no group may.
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "1 0").unwrap();
            for (host, request, reply) in [("127.0.0.1", 8, 0), ("::1", 128, 129)] {
                let host: IpAddr = host.parse().unwrap();
                let open = || DatagramSocket::open(Kind::Echo, any(host.is_ipv4(), 7), 0).unwrap();
                let (mut socket, other) = (open(), open());
                let own = socket.identifier().unwrap();
                assert_ne!(Some(own), other.identifier());
                let [high, low] = own.to_be_bytes();
                // The kernel sums for IPv6 alone.
                let sum = 0x0800 + u32::from(own) + 3;
                let sum = (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes();
                let echo = [request, 0, sum[0], sum[1], high, low, 0, 3];
                socket.send(SocketAddr::new(host, 0), 9, Fragments::Never, &echo).unwrap();
                let mut buffer = [0; 99];
                let mut arrival = None;
                assert!(eventually(|| {
                    arrival = socket.receive(&mut buffer).unwrap();
                    arrival.is_some()
                }));
                assert_eq!(arrival.map(|it| (it.from.ip(), it.len)), Some((host, 8)));
                assert_eq!((buffer[0], &buffer[4..8]), (reply, &echo[4..]));
                assert_eq!(socket.receive(&mut buffer).unwrap(), None, "not its own request");
                assert_eq!(other.receive(&mut buffer).unwrap(), None, "a reply to another");
            }
        });
    }

    #[test]
    fn what_the_kernel_does_not_cut_is_refused_and_can_be_sent_one_by_one() {
        in_own_namespace(|| {
            ip("link set lo mtu 1280");
            let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
            let remote = receiver.local_addr().unwrap();
            let mut sender = DatagramSocket::open(Kind::Udp, any(true, 0), 0).unwrap();
            let train = [7; 4000];
            let trains = [train_of(remote, &train, 2000)];
            let error = sender.send_trains(64, Fragments::Allowed, &trains);
            assert!(error.unwrap_err().is_segmentation_refused());
            assert_eq!(sender.next_said(&mut []), None, "it is no datagram that did not fit");
            for datagram in train.chunks(2000) {
                sender.send(remote, 64, Fragments::Allowed, datagram).unwrap();
                assert_eq!(receiver.recv(&mut [0; 4000]).unwrap(), 2000);
            }
            let error = sender.send(remote, 64, Fragments::Never, &train).unwrap_err();
            assert!(error.is_too_big());
            let said = sender.next_said(&mut []).map(|said| said.refusal);
            assert_eq!(said, Some(Refusal::TooBig { mtu: 1280 }));
            // What comes before it goes, and what comes behind it waits.
            let trains = [9, 2000, 9].map(|len| train_of(remote, &train[..len], len));
            assert_eq!(sender.send_trains(64, Fragments::Never, &trains).unwrap(), 1);
            let error = sender.send_trains(64, Fragments::Never, &trains[1..]).unwrap_err();
            assert!(error.is_too_big());
        });
    }
}
