//! Links with their features and queues, addresses, routes and policy rules of the network namespace
//! of the calling thread, over rtnetlink.
//!
//! The only folder that names `netlink-bindings` and `netlink-socket2`. Requests are synchronous:
//! the kernel answers before the send returns. An error says what was asked for in the words of
//! ip(8), then the kernel's own explanation (extended acknowledgement) if it gave one.
//!
//! Must not decide anything: what to add, skip or undo is the business of `lifecycle` and its
//! steps. [LNX rtnetlink.c:rtnetlink_rcv_msg]

mod address;
mod features;
mod link;
pub mod nft;
mod route;
mod rule;

use std::fmt;
use std::io;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_bindings::traits::NetlinkRequest;
use netlink_socket2::{NetlinkSocket, ReplyError};
use serde::{Deserialize, Serialize};

pub use address::delete_address_command;
pub use link::Link;
pub use route::{Path, Route, Unreachable, add_route_command, delete_route_command};
pub use rule::{Mark, OUR_PROTOCOL, Rule};

use crate::sys::netfilter::NetfilterSocket;

/// A connection to rtnetlink.
///
/// It belongs to the network namespace in which its thread is at the time of the first request,
/// and stays there if the thread moves on.
pub struct Netlink {
    socket: NetlinkSocket,
    /// For tables of nftables, when one is made or deleted.
    netfilter: Option<NetfilterSocket>,
}

impl Netlink {
    /// A connection that is made by the first request.
    pub fn new() -> Self {
        Self { socket: NetlinkSocket::new(), netfilter: None }
    }

    /// Sends a request that is answered by an acknowledgement alone.
    fn change<R: NetlinkRequest>(
        &mut self,
        request: &R,
        action: impl FnOnce() -> String,
    ) -> Result<(), NetlinkError> {
        let reply = self.socket.request(request);
        match reply.map_err(ReplyError::from).and_then(|mut reply| reply.recv_ack()) {
            Ok(()) => Ok(()),
            Err(error) => Err(NetlinkError::new(action(), &error)),
        }
    }

    /// Sends a request and hands each part of the answer to `part`.
    fn query<R: NetlinkRequest>(
        &mut self,
        request: &R,
        action: impl Fn() -> String,
        mut part: impl FnMut(R::ReplyType<'_>),
    ) -> Result<(), NetlinkError> {
        let mut reply = self
            .socket
            .request(request)
            .map_err(|error| NetlinkError::new(action(), &error.into()))?;
        while let Some(answer) = reply.recv() {
            part(answer.map_err(|error| NetlinkError::new(action(), &error))?);
        }
        Ok(())
    }
}

impl Default for Netlink {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {reason}")]
pub struct NetlinkError {
    action: String,
    reason: String,
    errno: Option<i32>,
}

impl NetlinkError {
    fn new(action: String, error: &ReplyError) -> Self {
        let code = error.as_io_error();
        let explanation = error.ext_ack().and_then(|attributes| {
            attributes.get_msg().ok().map(|text| text.to_string_lossy().into_owned())
        });
        let reason = match explanation {
            Some(text) => format!("{text} ({})", describe(code)),
            None => describe(code),
        };
        Self { action, reason, errno: code.raw_os_error() }
    }

    pub(in crate::control) fn of_errno(action: String, errno: i32) -> Self {
        let reason = describe(&io::Error::from_raw_os_error(errno));
        Self { action, reason, errno: Some(errno) }
    }

    /// The answer lacked what it must contain.
    fn incomplete(action: String, missing: &str) -> Self {
        Self { action, reason: format!("the kernel's answer has no {missing}"), errno: None }
    }

    /// What the kernel said, without what was asked of it.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether the thing that was named does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self.errno, Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL))
    }

    /// Whether the thing that was to be added exists.
    pub fn is_present(&self) -> bool {
        self.errno == Some(libc::EEXIST)
    }

    /// Whether the kernel lacks what was asked for, as IPv6 or a kind of interface.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno, Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT))
    }

    /// Whether the kernel could make nothing of the request.
    pub fn is_invalid(&self) -> bool {
        self.errno == Some(libc::EINVAL)
    }

    /// Whether no route leads to the address that was asked about.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self.errno,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
        )
    }
}

/// The text of an OS error without Rust's "(os error n)".
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// As an option of ip(8).
    pub const fn flag(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }

    /// The network of all addresses.
    pub fn everything(self) -> IpNet {
        match self {
            Self::V4 => Ipv4Net::default().into(),
            Self::V6 => Ipv6Net::default().into(),
        }
    }

    fn number(self) -> u8 {
        let family = match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
        };
        u8::try_from(family).expect("address families are small numbers")
    }
}

/// The table that routes go to unless something else is said.
pub const MAIN_TABLE: u32 = libc::RT_TABLE_MAIN as u32;

/// The main table by its name, every other by its number, which ip(8) knows on every host.
pub fn table_name(table: u32) -> String {
    if table == MAIN_TABLE { "main".to_owned() } else { table.to_string() }
}

#[cfg(test)]
mod tests;
