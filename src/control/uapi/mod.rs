//! The cross-platform configuration protocol: text over a Unix stream socket, spoken by `wg`,
//! `wg-quick`, wgctrl and our own command line. [UAPI]
//!
//! - [`request`] cuts a byte stream into requests, line by line, with bounded memory.
//! - [`set`] is the text of a change, both ways.
//! - [`get`] is the text of a state, both ways.
//! - [`status`] is an operation of our own, of which other implementations know nothing. So are
//!   `health=`, for which see [`text`](super::health::text), and
//!   `kept=1`, which hands out a copy of the descriptor that the device keeps for what belongs to it
//!   on the host: see [`client::UapiClient::kept`].
//! - `connect=HOST:PORT`, another, makes the stream a connection through the tunnel once it has been
//!   answered without an error.
//! - [`client`] is the blocking client; the server loop belongs to the engine.
//!
//! Guarantees: a request is complete and well-formed before anybody sees it, so that it is carried
//! out as a whole or not at all; no error repeats a value, which may be a secret; our buffers that
//! held keys are wiped after use. Not wiped is what we cannot reach: the socket buffers of the kernel
//! until it uses their memory anew, and what the compiler leaves of a key on the stack when it moves
//! one. What lies beyond the text is the engine's: that an update for the device's
//! own public key is ignored, that a port is free, that sessions survive.

pub mod client;
pub mod get;
pub mod request;
pub mod server;
pub mod set;
pub mod status;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use ipnet::IpNet;

/// The socket of an interface.
pub use crate::control::run_folder::socket as socket_path;

/// No legal line is longer: the longest is a key name, `=` and 64 digits, or an endpoint with an
/// interface name.
pub const MAX_LINE_BYTES: usize = 1024;

/// A request of 100,000 peers takes about 40 MiB.
pub const MAX_REQUEST_BYTES: usize = 256 << 20;

/// Whether `name` can be a network interface: 1 to 15 characters of the set that wg-quick takes,
/// and neither `.` nor `..`. [LNX net/core/dev.c:dev_valid_name]
pub fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b))
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Get,
    Set,
}

/// An error number of the operating system, positive, as it travels in `errno=`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// The text is not `key=value`.
    pub const PROTOCOL: Self = Self(libc::EPROTO);
    /// Unknown key, or a value that the key does not take.
    pub const INVALID: Self = Self(libc::EINVAL);
    /// There is no such thing.
    pub const ABSENT: Self = Self(libc::ENOENT);
    /// Nobody could be reached.
    pub const UNREACHED: Self = Self(libc::EHOSTUNREACH);
    /// The socket failed.
    pub const IO: Self = Self(libc::EIO);
    /// The port is taken.
    pub const ADDRESS_IN_USE: Self = Self(libc::EADDRINUSE);
    /// The request is larger than [`MAX_REQUEST_BYTES`].
    pub const TOO_BIG: Self = Self(libc::E2BIG);
    /// Whatever has no better number; wireguard-go uses the same.
    pub const UNKNOWN: Self = Self(libc::ENOANO);

    /// The number that the operating system gave, or [`Self::IO`] if it gave none.
    pub fn from_io(error: &std::io::Error) -> Self {
        error.raw_os_error().filter(|&number| number > 0).map_or(Self::IO, Self)
    }

    pub const fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({})", self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub errno: Errno,
    /// Where this host would have had to listen, if that is it. Only who asks for listeners is told.
    pub place: Option<String>,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, place: None }
    }
}

/// The reply to a change.
pub fn reply_to_set(outcome: Result<(), Refusal>) -> String {
    match outcome {
        Err(Refusal { errno, place: Some(place) }) => {
            format!("place={place}\n{}", reply(Operation::Set, Err(errno)))
        }
        outcome => reply(Operation::Set, outcome.map_err(|refusal| refusal.errno)),
    }
}

/// The end of every reply.
///
/// The sign of an error differs by operation, because `wg` reads it so: after a set it negates the
/// number, after a get it takes only digits.
pub fn reply(operation: Operation, outcome: Result<(), Errno>) -> String {
    let number = match (operation, outcome) {
        (_, Ok(())) => 0,
        (Operation::Get, Err(errno)) => errno.0,
        (Operation::Set, Err(errno)) => -errno.0,
    };
    format!("errno={number}\n\n")
}

/// Digits only: no sign, no space, no other base.
fn parse_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `ADDRESS/LENGTH`, host bits cleared.
fn parse_network(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    Some(IpNet::new(address, parse_number(length)?).ok()?.trunc())
}

/// `IP:PORT`, `[IPV6]:PORT` or `[IPV6%INTERFACE]:PORT`, never a host name.
fn parse_endpoint(text: &str) -> Option<SocketAddr> {
    if let Ok(endpoint) = text.parse() {
        return Some(endpoint);
    }
    // `wg` names the interface of a link-local address. Only such an address is handed to the
    // resolver, which then looks up the interface and nothing else.
    let (host, port) = text.strip_prefix('[')?.split_once("]:")?;
    let (address, interface) = host.split_once('%')?;
    let address: Ipv6Addr = address.parse().ok()?;
    if !address.is_unicast_link_local() || !is_interface_name(interface) {
        return None;
    }
    (host, parse_number::<u16>(port)?).to_socket_addrs().ok()?.next()
}
