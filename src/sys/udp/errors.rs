//! What the network says of datagrams that were sent: the error queue of a socket.
//! [LNX net/ipv4/ip_sockglue.c:ip_recv_error]
//!
//! With IP_RECVERR each ICMP error about a datagram of ours waits in that queue, and the next call on
//! the socket, whatever it is for, fails with it. So whoever met an error empties the queue, and a
//! send is made again once. The kernel checks of an error only that its ports are ours: what it says
//! is a hint.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use super::address::RawAddress;
use super::receive::receive_message;
use super::{Family, set_option};
use crate::sys::SysError;
use crate::sys::cmsg::{ControlBuffer, narrower_path};

/// Errors taken at a time: more of them are left for the next call, so that a storm of them cannot
/// hold the caller.
const ERRORS_A_CALL: usize = 64;

/// A datagram to `remote` was too large for a link on the way, or for the host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Narrowed {
    /// Of what the host itself says the port is 0.
    pub remote: SocketAddr,
    /// Bytes of a whole outer packet that would fit.
    pub mtu: u32,
}

/// Lets errors wait for [`drain`].
pub(super) fn keep(fd: BorrowedFd<'_>, family: Family) -> Result<(), SysError> {
    match family {
        Family::V4 => {
            set_option("setsockopt IP_RECVERR", fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
        }
        Family::V6 => {
            set_option("setsockopt IPV6_RECVERR", fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
        }
    }
}

/// Takes the errors that wait, appends to `narrowed` those about sizes, and returns how many there
/// were.
pub(super) fn drain(socket: BorrowedFd<'_>, narrowed: &mut Vec<Narrowed>) -> usize {
    (0..ERRORS_A_CALL).take_while(|_| take(socket, narrowed).is_ok()).count()
}

fn take(socket: BorrowedFd<'_>, narrowed: &mut Vec<Narrowed>) -> Result<(), SysError> {
    let (mut name, mut control) = (RawAddress::EMPTY, ControlBuffer::default());
    // What the error quotes of our datagram is of no use.
    receive_message(socket, libc::MSG_ERRQUEUE, &mut [], &mut name, &mut control)?;
    if let (Some(remote), Some(mtu)) = (name.decode(), narrower_path(control.as_bytes())) {
        narrowed.push(Narrowed { remote, mtu });
    }
    Ok(())
}

/// Whether a datagram may be cut on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragments {
    /// By routers (IPv4) or by the host, as the kernel's own implementation has it. [P-75] Over IPv4
    /// what the host has been told about paths is not heeded: that can be forged, and it is the
    /// probes that find it out.
    Allowed,
    /// By nobody: it comes through whole or not at all.
    Never,
}

pub(super) fn set_fragments(
    fd: BorrowedFd<'_>,
    family: Family,
    fragments: Fragments,
) -> Result<(), SysError> {
    let (op, level, option) = match family {
        Family::V4 => ("setsockopt IP_MTU_DISCOVER", libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        Family::V6 => ("setsockopt IPV6_MTU_DISCOVER", libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    let value = match (family, fragments) {
        // As IP_PMTUDISC_DONT does, without DF, but an ICMP error about a probe is still told.
        (Family::V4, Fragments::Allowed) => libc::IP_PMTUDISC_OMIT,
        (Family::V6, Fragments::Allowed) => libc::IPV6_PMTUDISC_DONT,
        (Family::V4, Fragments::Never) => libc::IP_PMTUDISC_PROBE,
        (Family::V6, Fragments::Never) => libc::IPV6_PMTUDISC_PROBE,
    };
    set_option(op, fd, level, option, value)
}
