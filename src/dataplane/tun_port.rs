//! A TUN device as an IP port: one packet a system call.

use std::os::fd::{AsFd, BorrowedFd};

use crate::dataplane::port::IpPort;
use crate::packet::batch::{IpBatch, PlainBatch};
use crate::packet::slab::HEADROOM;
use crate::sys::SysError;
use crate::sys::tun::Tun;

/// One queue of a TUN device.
#[derive(Debug)]
pub struct TunPort(Tun);

impl TunPort {
    pub const fn new(tun: Tun) -> Self {
        Self(tun)
    }
}

impl IpPort for TunPort {
    fn recv(&mut self, batch: &mut IpBatch) -> Result<usize, SysError> {
        let mut count = 0;
        while let Some(slab) = batch.vacant() {
            match self.0.recv(&mut slab[HEADROOM..]) {
                Ok(Some(len)) => {
                    batch.push(len);
                    count += 1;
                }
                Ok(None) => break,
                // What was read before is still to be sent; the next call fails again.
                Err(_) if count > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    fn send(&mut self, packets: &mut PlainBatch<'_>) -> Result<usize, SysError> {
        let mut refused = 0;
        for position in 0..packets.count() {
            match self.0.send(packets.packet(position)) {
                Ok(()) => {}
                Err(error) if error.is_tun_gone() => return Err(error),
                // The interface is down, or its queue is full, or it does not like the packet.
                Err(_) => refused += 1,
            }
        }
        Ok(refused)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}
