//! A netlink socket to netfilter.
//!
//! What is made with it can belong to it: the kernel then lets nobody else change that, and removes
//! it when the last copy of the socket is closed, whatever ends the processes that hold one.
//! [LNX nf_tables_api.c:nft_rcv_nl_event]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::SysError;

/// A batch is no longer, which is some thousand rules.
const BATCH_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub struct NetfilterSocket {
    socket: OwnedFd,
}

impl NetfilterSocket {
    /// Belongs to the network namespace of the calling thread.
    ///
    /// # Errors
    /// The failing syscall; a kernel without netfilter refuses.
    pub fn open() -> Result<Self, SysError> {
        let socket = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )
        .map_err(|e| SysError::new("socket(AF_NETLINK, NETLINK_NETFILTER)", e))?;
        // A batch is sent in one piece. Without the right to more, what a socket has must do.
        let _ = net::sockopt::set_socket_send_buffer_size_force(&socket, BATCH_BYTES);
        Ok(Self { socket })
    }

    /// Sends a batch of messages and returns the kernel's answers, one datagram each.
    ///
    /// # Errors
    /// The failing syscall.
    pub fn exchange(&self, batch: &[u8]) -> Result<Vec<Vec<u8>>, SysError> {
        net::send(&self.socket, batch, SendFlags::empty())
            .map_err(|e| SysError::new("send(AF_NETLINK)", e))?;
        let mut answers = Vec::new();
        let mut buffer = [0_u8; 8192];
        loop {
            // The kernel has answered before the send returned: what is not there does not come.
            match net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => answers.push(buffer[..length].to_vec()),
                Err(rustix::io::Errno::AGAIN) => return Ok(answers),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(SysError::new("recv(AF_NETLINK)", error)),
            }
        }
    }
}

/// From a copy of such a socket's descriptor.
impl From<OwnedFd> for NetfilterSocket {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl AsFd for NetfilterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
