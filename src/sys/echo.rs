//! ICMP echo requests: how long a packet takes there and back. [RFC 792]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::process;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send,
    socket_with,
};

use super::{SysError, clock};

/// A raw ICMP socket towards one address.
#[derive(Debug)]
pub struct EchoSocket {
    socket: OwnedFd,
    /// Tells our replies from those of others.
    identifier: u16,
}

impl EchoSocket {
    /// Opens the socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`is_not_permitted`](SysError::is_not_permitted) without CAP_NET_RAW.
    pub fn open(destination: Ipv4Addr) -> Result<Self, SysError> {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(ipproto::ICMP),
        )
        .map_err(|e| SysError::new("socket ICMP", e))?;
        connect(&socket, &SocketAddrV4::new(destination, 0))
            .map_err(|e| SysError::new("connect ICMP", e))?;
        // The low half of a process id differs between processes that run at once.
        let [low, high, ..] = process::id().to_le_bytes();
        Ok(Self { socket, identifier: u16::from_le_bytes([low, high]) })
    }

    /// Sends one request and waits for its reply; `None` if none came within `limit`.
    ///
    /// # Errors
    /// The request could not be sent.
    pub fn round_trip(&self, sequence: u16, limit: Duration) -> Result<Option<Duration>, SysError> {
        let sent = clock::now().mono;
        let request = request(self.identifier, sequence);
        send(&self.socket, &request, SendFlags::empty()).map_err(|e| SysError::new("send", e))?;
        loop {
            let passed = clock::now().mono.since(sent);
            let left = limit.saturating_sub(passed);
            // A time-out of zero would mean "never".
            if left < SHORTEST_WAIT {
                return Ok(None);
            }
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left))
                .map_err(|e| SysError::new("setsockopt SO_RCVTIMEO", e))?;
            let mut packet = [0; 256];
            match recv(&self.socket, &mut packet, RecvFlags::empty()) {
                Ok((length, _)) if self.is_reply(&packet[..length], sequence) => {
                    return Ok(Some(clock::now().mono.since(sent)));
                }
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(SysError::new("recv", error)),
            }
        }
    }

    /// Whether a packet, IPv4 header included, answers our request.
    fn is_reply(&self, packet: &[u8], sequence: u16) -> bool {
        let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
        let Some(message) = packet.get(header..) else { return false };
        let expected = [self.identifier.to_be_bytes(), sequence.to_be_bytes()].concat();
        message.first() == Some(&ECHO_REPLY) && message.get(4..8) == Some(&expected)
    }
}

/// Type 8, code 0, checksum, identifier, sequence, and 48 bytes of nothing, as many as ping sends.
fn request(identifier: u16, sequence: u16) -> [u8; 56] {
    let mut message = [0; 56];
    message[0] = ECHO_REQUEST;
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    let checksum = !sum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// The one's complement sum of an even number of bytes. [RFC 1071]
fn sum(message: &[u8]) -> u16 {
    message.chunks_exact(2).fold(0, |sum: u16, pair| {
        let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([pair[0], pair[1]]));
        sum + u16::from(carry)
    })
}

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const SHORTEST_WAIT: Duration = Duration::from_micros(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket to loopback; `None`, after saying so, where the machine gives none.
    ///
    /// # Panics
    /// If it gives none and `HYBRIDWG_REQUIRE_HOST=1`.
    fn open() -> Option<EchoSocket> {
        match EchoSocket::open(Ipv4Addr::LOCALHOST) {
            Ok(echo) => Some(echo),
            Err(error) => {
                let required =
                    std::env::var_os("HYBRIDWG_REQUIRE_HOST").is_some_and(|value| value == "1");
                assert!(!required, "HYBRIDWG_REQUIRE_HOST=1, but: {error}");
                println!("skipped: no raw socket (CAP_NET_RAW): {error}");
                None
            }
        }
    }

    #[test]
    fn the_checksum_makes_the_whole_message_sum_up_to_all_ones() {
        for (identifier, sequence) in [(0, 0), (0xffff, 1), (0x1234, 0xfedc)] {
            assert_eq!(sum(&request(identifier, sequence)), 0xffff);
        }
    }

    #[test]
    fn only_the_reply_to_this_request_is_taken() {
        let Some(echo) = open() else { return };
        let mut packet = vec![0x45; 20];
        packet.extend(request(echo.identifier, 7));
        assert!(!echo.is_reply(&packet, 7), "a request");
        packet[20] = ECHO_REPLY;
        assert!(echo.is_reply(&packet, 7));
        assert!(!echo.is_reply(&packet, 8));
        assert!(!echo.is_reply(&packet[..25], 7));
        assert!(!echo.is_reply(&[], 7));
    }

    #[test]
    fn loopback_answers_within_a_second() {
        let Some(echo) = open() else { return };
        assert!(echo.round_trip(1, Duration::from_secs(1)).unwrap().is_some());
    }
}
