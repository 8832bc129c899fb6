//! Where packets enter and leave: plain ones on one side, datagrams on the other.
//!
//! Ports speak in batches, and reading never blocks. They absorb what passes (a full queue, an interface
//! that is down, an unreachable peer) and fail only when they are gone for good, which ends the
//! shard. They decide nothing about packets and know no keys.

use std::os::fd::BorrowedFd;

use crate::packet::batch::{DatagramBatch, IpBatch, PlainBatch};
use crate::packet::train::Train;
use crate::sys::SysError;
use crate::sys::udp::Narrowed;

/// The plaintext side: a TUN device, or whatever stands where one stands on a host.
pub trait IpPort: Send {
    /// Reads packets until `batch` is full or none waits; returns how many it read.
    ///
    /// # Errors
    /// The port is gone: nothing will ever come from it again.
    fn recv(&mut self, batch: &mut IpBatch) -> Result<usize, SysError>;

    /// Delivers `packets` in order; returns how many the other side did not take.
    ///
    /// May overwrite the headroom in front of each packet.
    ///
    /// # Errors
    /// The port is gone: nothing can ever be delivered again.
    fn send(&mut self, packets: &mut PlainBatch<'_>) -> Result<usize, SysError>;

    /// Whether [`Self::recv`] has something of which the descriptor does not tell, as what a packet that
    /// was delivered has led to. A shard asks after each turn.
    fn has_more(&self) -> bool {
        false
    }

    /// There is an end: whoever is connected through this port is told so by what [`Self::recv`] reads
    /// until there is no [more](Self::has_more).
    fn end(&mut self) {}

    /// Becomes readable when [`Self::recv`] has something. Without a descriptor, a shard looks
    /// whenever it is awake; who fills the port wakes it.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}

/// What of a shard's may have something: what [`crate::sys::poll`] told of, or all, to be on the
/// safe side. Asking what has nothing costs a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub inbox: bool,
    pub ip: bool,
    /// In the order of [`DatagramPort::fds`].
    pub udp: [bool; 2],
}

impl Ready {
    pub const NONE: Self = Self { inbox: false, ip: false, udp: [false; 2] };
    pub const ALL: Self = Self { inbox: true, ip: true, udp: [true; 2] };
}

/// The ciphertext side: the UDP sockets of the device.
pub trait DatagramPort: Send {
    /// Reads messages until `batch` is full or none waits in the `ready` ones of [`Self::fds`];
    /// returns how many it read.
    ///
    /// # Errors
    /// The port is gone: nothing will ever come from it again.
    fn recv(&mut self, batch: &mut DatagramBatch, ready: [bool; 2]) -> Result<usize, SysError>;

    /// Sends the datagrams of `trains` in order, and records in each train what became of them.
    ///
    /// Waits for room for a bounded time, which is the back-pressure that inner senders feel; what
    /// finds none, or cannot be sent at all, is recorded as refused. A source address that is no
    /// longer ours is recorded as lost, and its datagrams go out without it. [P-81]
    ///
    /// # Errors
    /// The port is gone: nothing can ever be sent again.
    fn send(&mut self, trains: &mut [Train]) -> Result<(), SysError>;

    /// Takes what the network has said since the last call about datagrams that do not fit.
    fn take_narrowed(&mut self) -> Vec<Narrowed>;

    /// Each becomes readable when [`Self::recv`] has something.
    fn fds(&self) -> [Option<BorrowedFd<'_>>; 2];
}
