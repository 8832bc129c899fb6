//! Tells when something of this network namespace changed: netlink sockets in groups of rtnetlink.
//!
//! Carries no content: the reader asks the kernel for the state it cares about. That way a message
//! lost to a full socket buffer costs nothing, because the overflow is itself an event.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::SysError;

/// Polls readable when there was a change.
#[derive(Debug)]
pub struct NetlinkWatch {
    socket: OwnedFd,
}

impl NetlinkWatch {
    /// Watches links.
    ///
    /// # Errors
    /// The failing syscall; sandboxes without netlink exist.
    pub fn links() -> Result<Self, SysError> {
        Self::open(RTMGRP_LINK)
    }

    /// Watches what decides how packets leave: addresses, routes and rules, of both families.
    ///
    /// # Errors
    /// The failing syscall; sandboxes without netlink exist.
    pub fn paths() -> Result<Self, SysError> {
        Self::open(
            RTMGRP_IPV4_IFADDR
                | RTMGRP_IPV4_ROUTE
                | RTMGRP_IPV4_RULE
                | RTMGRP_IPV6_IFADDR
                | RTMGRP_IPV6_ROUTE
                | RTMGRP_IPV6_RULE,
        )
    }

    fn open(groups: u32) -> Result<Self, SysError> {
        let socket = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            // NETLINK_ROUTE is number 0, which is what no protocol means.
            None,
        )
        .map_err(|e| SysError::new("socket(AF_NETLINK)", e))?;
        net::bind(&socket, &SocketAddrNetlink::new(0, groups))
            .map_err(|e| SysError::new("bind(AF_NETLINK)", e))?;
        Ok(Self { socket })
    }

    /// Forgets all pending events, so that the descriptor polls readable at the next change only.
    pub fn drain(&self) {
        let mut buffer = [0_u8; 8192];
        loop {
            match net::recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                // An overflow is an event like any other, and is reported once.
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for NetlinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

// Multicast groups, as bits of the mask in `sockaddr_nl`. [LNX rtnetlink.h:rtnetlink_groups]
const RTMGRP_LINK: u32 = 1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
const RTMGRP_IPV4_RULE: u32 = 0x80;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const RTMGRP_IPV6_ROUTE: u32 = 0x400;
/// Group 19 (RTNLGRP_IPV6_RULE), which has no name of its own as a bit.
const RTMGRP_IPV6_RULE: u32 = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{Interest, Poller};
    use crate::sys::testing::{eventually, in_own_namespace, ip};

    #[test]
    fn addresses_routes_and_rules_are_changes_of_paths_and_a_link_is_none() {
        in_own_namespace(|| {
            let watch = NetlinkWatch::paths().unwrap();
            let mut poller = Poller::new().unwrap();
            poller.add(watch.as_fd(), 0, Interest::Readable).unwrap();
            let mut is_told = |command: &str| {
                watch.drain();
                ip(command);
                eventually(|| {
                    poller.wait(None.or(Some(std::time::Duration::ZERO))).unwrap().count() > 0
                })
            };
            for command in [
                "address add 192.0.2.1/24 dev lo",
                "route add 198.51.100.0/24 dev lo",
                "rule add to 203.0.113.1 table 7",
                "address del 192.0.2.1/24 dev lo",
                "-6 address add 2001:db8::1/64 dev lo",
                "-6 route add 2001:db8:1::/48 dev lo",
                "-6 rule add to 2001:db8::9 table 7",
            ] {
                assert!(is_told(command), "{command}");
            }
            watch.drain();
            ip("link set lo mtu 9000");
            assert_eq!(poller.wait(Some(std::time::Duration::ZERO)).unwrap().count(), 0);
        });
    }
}
