//! ICMP echo requests: how long a packet takes there and back, and how long it may be for that.
//! [RFC 792] [RFC 4443 §4]

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, Timeout, set_ip_mtu_discover,
    set_ipv6_mtu_discover, set_socket_timeout,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send,
    socket_with,
};

use super::{SysError, clock};

/// Bytes of a request as `ping` sends it, without its IP header.
const USUAL_BYTES: usize = 64;
const ICMP_HEADER_BYTES: usize = 8;
const SHORTEST_WAIT: Duration = Duration::from_micros(1);
const LONGEST_PACKET_BYTES: usize = 65_536;

/// A raw ICMP socket towards one address. What it sends is never cut, here or on the way.
#[derive(Debug)]
pub struct EchoSocket {
    socket: OwnedFd,
    family: Family,
    /// Tells our replies from those of others.
    identifier: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn request(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }

    const fn reply(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }

    /// Without options.
    const fn ip_header_bytes(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

impl EchoSocket {
    /// Opens the socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`is_not_permitted`](SysError::is_not_permitted) without CAP_NET_RAW; no route.
    pub fn open(destination: IpAddr) -> Result<Self, SysError> {
        let (family, domain, protocol) = match destination {
            IpAddr::V4(_) => (Family::V4, AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (Family::V6, AddressFamily::INET6, ipproto::ICMPV6),
        };
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(domain, SocketType::RAW, flags, Some(protocol))
            .map_err(|e| SysError::new("socket ICMP", e))?;
        // Not what is known of the path either: what gets through is to be found out.
        match family {
            Family::V4 => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE),
            Family::V6 => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE),
        }
        .map_err(|e| SysError::new("setsockopt MTU_DISCOVER", e))?;
        connect(&socket, &SocketAddr::new(destination, 0))
            .map_err(|e| SysError::new("connect ICMP", e))?;
        Ok(Self { socket, family, identifier: new_identifier() })
    }

    /// Sends a request of the usual length.
    ///
    /// # Errors
    /// It could not be sent.
    pub fn send(&self, sequence: u16) -> Result<(), SysError> {
        self.send_message(sequence, USUAL_BYTES)
    }

    /// Sends a request that is `packet_bytes` long, IP header included; shorter than its headers it
    /// cannot be.
    ///
    /// # Errors
    /// As [`Self::send`]; [`is_packet_refused`](SysError::is_packet_refused) if it is longer than
    /// the interface takes.
    pub fn send_packet(&self, sequence: u16, packet_bytes: usize) -> Result<(), SysError> {
        let message = packet_bytes.saturating_sub(self.family.ip_header_bytes());
        self.send_message(sequence, message)
    }

    fn send_message(&self, sequence: u16, bytes: usize) -> Result<(), SysError> {
        let request = request(self.family, self.identifier, sequence, bytes);
        let send = || send(&self.socket, &request, SendFlags::empty());
        // The first refusal may be of an earlier request; it is told once.
        send()
            .or_else(|error| if is_of_the_way(error) { send() } else { Err(error) })
            .map(drop)
            .map_err(|e| SysError::new("send", e))
    }

    /// Bytes of a packet of the usual length, IP header included.
    pub const fn usual_packet_bytes(&self) -> usize {
        USUAL_BYTES + self.family.ip_header_bytes()
    }

    /// The sequence number of the next reply to a request of this socket; `None` if none came within
    /// `limit`.
    ///
    /// # Errors
    /// What the socket said.
    pub fn receive(&self, limit: Duration) -> Result<Option<u16>, SysError> {
        let deadline = clock::now().mono + limit;
        let mut packet = vec![0; LONGEST_PACKET_BYTES];
        loop {
            let left = deadline.since(clock::now().mono);
            // A time-out of zero would mean "never".
            if left < SHORTEST_WAIT {
                return Ok(None);
            }
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left))
                .map_err(|e| SysError::new("setsockopt SO_RCVTIMEO", e))?;
            match recv(&self.socket, &mut packet[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    if let Some(sequence) = self.answered(&packet[..length]) {
                        return Ok(Some(sequence));
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                // That request is not answered; others may be.
                Err(error) if is_of_the_way(error) => {}
                Err(error) => return Err(SysError::new("recv", error)),
            }
        }
    }

    /// Sends one request and waits for its reply; `None` if none came within `limit`.
    ///
    /// # Errors
    /// The request could not be sent.
    pub fn round_trip(&self, sequence: u16, limit: Duration) -> Result<Option<Duration>, SysError> {
        let sent = clock::now().mono;
        self.send(sequence)?;
        loop {
            let left = limit.saturating_sub(clock::now().mono.since(sent));
            match self.receive(left)? {
                Some(answered) if answered == sequence => {
                    return Ok(Some(clock::now().mono.since(sent)));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Which request of ours a packet answers. The kernel leaves the header of IPv4 on, and takes
    /// that of IPv6 off.
    fn answered(&self, packet: &[u8]) -> Option<u16> {
        let header = match self.family {
            Family::V4 => usize::from(packet.first()? & 0x0f) * 4,
            Family::V6 => 0,
        };
        let message = packet.get(header..)?;
        let is_ours = *message.first()? == self.family.reply()
            && message.get(4..6)? == self.identifier.to_be_bytes();
        is_ours.then_some(u16::from_be_bytes([*message.get(6)?, *message.get(7)?]))
    }
}

/// Whether somebody on the way or a firewall at its end has refused a request, as too long or at all.
/// [LNX icmp.c:icmp_err_convert] [LNX icmp.c:icmpv6_err_convert]
fn is_of_the_way(error: Errno) -> bool {
    matches!(
        error,
        Errno::MSGSIZE
            | Errno::CONNREFUSED
            | Errno::NOPROTOOPT
            | Errno::HOSTUNREACH
            | Errno::HOSTDOWN
            | Errno::NETUNREACH
            | Errno::NONET
            | Errno::ACCESS
    )
}

/// Another one for each socket, and at first the low half of the process id, which differs between
/// processes that run at once.
fn new_identifier() -> u16 {
    static SOCKETS: AtomicU16 = AtomicU16::new(0);
    let [low, high, ..] = process::id().to_le_bytes();
    let earlier = SOCKETS.fetch_add(1, Ordering::Relaxed);
    // An odd step visits all numbers, and lands far from those of neighbouring processes.
    u16::from_le_bytes([low, high]).wrapping_add(earlier.wrapping_mul(0x5a35))
}

/// Type, code 0, checksum, identifier, sequence, and nothing up to `bytes`.
fn request(family: Family, identifier: u16, sequence: u16, bytes: usize) -> Vec<u8> {
    let mut message = vec![0; bytes.max(ICMP_HEADER_BYTES)];
    message[0] = family.request();
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    // That of ICMPv6 is the kernel's to make, which knows the source.
    let checksum = !sum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// The one's complement sum. [RFC 1071]
fn sum(message: &[u8]) -> u16 {
    message.chunks(2).fold(0, |sum: u16, pair| {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const BOTH: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

    /// Sockets to loopback; after saying so, fewer where the machine gives none or has no IPv6.
    ///
    /// # Panics
    /// If it gives none and `HYBRIDWG_REQUIRE_HOST=1`.
    fn open() -> Vec<EchoSocket> {
        let mut sockets = Vec::new();
        for address in BOTH {
            match EchoSocket::open(address) {
                Ok(echo) => sockets.push(echo),
                Err(error) if error.is_family_absent() => {}
                Err(error) => {
                    let required =
                        std::env::var_os("HYBRIDWG_REQUIRE_HOST").is_some_and(|value| value == "1");
                    assert!(!required, "HYBRIDWG_REQUIRE_HOST=1, but: {error}");
                    println!("skipped: no raw socket (CAP_NET_RAW): {error}");
                    break;
                }
            }
        }
        sockets
    }

    #[test]
    fn the_checksum_makes_the_whole_message_sum_up_to_all_ones() {
        for (identifier, sequence, bytes) in [(0, 0, 56), (0xffff, 1, 57), (0x1234, 0xfedc, 8)] {
            assert_eq!(sum(&request(Family::V4, identifier, sequence, bytes)), 0xffff);
        }
    }

    #[test]
    fn only_a_reply_to_a_request_of_this_socket_is_taken() {
        for echo in open() {
            let header = if echo.family == Family::V4 { vec![0x45; 20] } else { Vec::new() };
            let at = header.len();
            let mut packet = [header, request(echo.family, echo.identifier, 7, 64)].concat();
            assert_eq!(echo.answered(&packet), None, "a request");
            packet[at] = echo.family.reply();
            assert_eq!(echo.answered(&packet), Some(7));
            assert_eq!(echo.answered(&packet[..at + 5]), None);
            assert_eq!(echo.answered(&[]), None);
            packet[at + 4] ^= 1;
            assert_eq!(echo.answered(&packet), None, "somebody else's");
        }
    }

    #[test]
    fn loopback_answers_within_a_second_to_packets_of_any_length() {
        for echo in open() {
            let limit = Duration::from_secs(1);
            assert!(echo.round_trip(1, limit).unwrap().is_some());
            for (sequence, bytes) in [(2, 0), (3, 576), (4, 9001)] {
                echo.send_packet(sequence, bytes).unwrap();
                assert_eq!(echo.receive(limit).unwrap(), Some(sequence), "{bytes} bytes");
            }
        }
    }

    #[test]
    fn sockets_of_one_process_do_not_take_each_others_replies() {
        if let [first, ..] = &open()[..] {
            let second = EchoSocket::open(BOTH[0]).unwrap();
            assert_ne!(first.identifier, second.identifier);
            first.send(5).unwrap();
            assert_eq!(second.receive(Duration::from_millis(50)).unwrap(), None);
            assert_eq!(first.receive(Duration::from_secs(1)).unwrap(), Some(5));
        }
    }
}
