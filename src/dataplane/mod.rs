//! Moves packets between an IP port and a datagram port.

pub mod inbox;
pub mod lane;
pub mod memory_port;
pub mod port;
mod staged;

use crate::sys::SysError;

/// Why a shard has stopped.
#[derive(Debug)]
pub enum Stop {
    /// It was asked to.
    Shutdown,
    /// The TUN device was deleted, or what stands in its place is gone.
    IpPortGone(SysError),
    /// The UDP sockets cannot be used any more.
    DatagramPortGone(SysError),
    /// The shard cannot wait for its ports.
    PollFailed(SysError),
}
