//! Tells when some link of this network namespace changed: a netlink socket in the link group.
//!
//! Carries no content: the reader asks the kernel for the state it cares about. That way a message
//! lost to a full socket buffer costs nothing, because the overflow is itself an event.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::SysError;

/// Multicast group of link changes, as the bit mask of `sockaddr_nl`. [LNX rtnetlink.h:RTMGRP_LINK]
const RTMGRP_LINK: u32 = 1;

#[derive(Debug)]
pub struct LinkWatch {
    socket: OwnedFd,
}

impl LinkWatch {
    /// # Errors
    /// The failing syscall; sandboxes without netlink exist.
    pub fn open() -> Result<Self, SysError> {
        let socket = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            // NETLINK_ROUTE is number 0, which is what no protocol means.
            None,
        )
        .map_err(|e| SysError::new("socket(AF_NETLINK)", e))?;
        net::bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK))
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

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
