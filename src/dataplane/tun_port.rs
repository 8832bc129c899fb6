//! A TUN device as an IP port: one packet, or one super-packet, a system call.
//!
//! Without a vnet header every packet travels alone. With one, super-packets are read as they come,
//! and what is delivered is merged; a device that refuses a merged packet gets its members.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use crate::dataplane::DATAGRAM_BATCH;
use crate::dataplane::port::IpPort;
use crate::packet::batch::{IpBatch, PlainBatch};
use crate::packet::coalesce::{Coalescer, GROUP_PACKETS, Mergeable};
use crate::packet::slab::HEADROOM;
use crate::packet::train::TRAIN_DATAGRAMS;
use crate::sys::SysError;
use crate::sys::tun::{self, Tun, TunOffloads};
use crate::wire::vnet::{VNET_HEADER_BYTES, VnetHeader};

const _: () = assert!(VNET_HEADER_BYTES == tun::VNET_HEADER_BYTES);

/// One queue of a TUN device.
#[derive(Debug)]
pub struct TunPort {
    tun: Tun,
    /// `None`: there is no vnet header to say that a packet is merged.
    coalescer: Option<Coalescer>,
}

impl TunPort {
    pub fn new(tun: Tun) -> Self {
        let TunOffloads { tcp, udp } = tun.offloads();
        let coalescer = (tun.header_bytes() > 0)
            .then(|| Coalescer::new(Mergeable { tcp, udp }, DATAGRAM_BATCH * TRAIN_DATAGRAMS));
        Self { tun, coalescer }
    }
}

impl IpPort for TunPort {
    fn recv(&mut self, batch: &mut IpBatch) -> Result<usize, SysError> {
        let header = self.tun.header_bytes();
        let mut count = 0;
        while let Some(slab) = batch.vacant() {
            match self.tun.recv(&mut slab[HEADROOM - header..]) {
                Ok(Some(len)) => {
                    let vnet = match slab[HEADROOM - header..].first_chunk() {
                        Some(bytes) if header > 0 => VnetHeader::parse(bytes),
                        Some(_) | None => Ok(VnetHeader::default()),
                    };
                    batch.push(len.saturating_sub(header), vnet);
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
        let Self { tun, coalescer } = self;
        let mut refused = 0;
        let Some(coalescer) = coalescer else {
            for position in 0..packets.count() {
                refused += usize::from(!deliver(tun, &[IoSlice::new(packets.packet(position))])?);
            }
            return Ok(refused);
        };
        let (slabs, ranges) = packets.parts();
        for group in coalescer.plan(slabs, ranges) {
            let mut slices = [IoSlice::new(&[]); GROUP_PACKETS];
            for (slice, piece) in slices.iter_mut().zip(group.pieces()) {
                *slice = IoSlice::new(piece.bytes(slabs));
            }
            if deliver(tun, &slices[..group.count()])? {
                continue;
            }
            if group.count() == 1 {
                refused += 1;
                continue;
            }
            for piece in group.dissolve(slabs) {
                refused += usize::from(!deliver(tun, &[IoSlice::new(piece.bytes(slabs))])?);
            }
        }
        Ok(refused)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tun.as_fd())
    }
}

/// Writes one packet; false if the interface is down, or its queue is full, or it does not like the
/// packet.
fn deliver(tun: &Tun, pieces: &[IoSlice<'_>]) -> Result<bool, SysError> {
    let sent = match pieces {
        [whole] => tun.send(whole),
        pieces => tun.send_vectored(pieces),
    };
    match sent {
        Ok(()) => Ok(true),
        Err(error) if error.is_tun_gone() => Err(error),
        Err(_) => Ok(false),
    }
}
