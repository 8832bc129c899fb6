//! The UDP sockets of the device as a datagram port.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::dataplane::DATAGRAM_BATCH;
use crate::dataplane::port::DatagramPort;
use crate::packet::batch::{DatagramBatch, Received};
use crate::packet::train::{TRAIN_DATAGRAMS, Train};
use crate::proto::endpoint::{Endpoint, LocalSource};
use crate::sys::SysError;
use crate::sys::udp::{Local, Receiver, RecvMeta, SendItem, Sender, UdpSockets};
use crate::wire::ip::Ecn;

/// The sockets, shared with the engine (which may change their mark), and this shard's memory for
/// its system calls.
#[derive(Debug)]
pub struct UdpPort {
    sockets: Arc<UdpSockets>,
    receiver: Receiver,
    metas: Box<[RecvMeta]>,
    sender: Sender,
}

impl UdpPort {
    pub fn new(sockets: Arc<UdpSockets>) -> Self {
        Self {
            sockets,
            receiver: Receiver::new(DATAGRAM_BATCH),
            metas: vec![RecvMeta::default(); DATAGRAM_BATCH].into(),
            sender: Sender::new(TRAIN_DATAGRAMS),
        }
    }
}

impl DatagramPort for UdpPort {
    fn recv(&mut self, batch: &mut DatagramBatch) -> Result<usize, SysError> {
        let buffers = batch.vacant().iter_mut().map(|slab| &mut **slab);
        let count = self.sockets.recv_batch(&mut self.receiver, buffers, &mut self.metas)?;
        for meta in &self.metas[..count] {
            batch.push(Received {
                len: meta.len,
                stride: meta.stride,
                from: Endpoint { remote: meta.remote, local: meta.local.map(source_of) },
                ecn: Ecn::from_traffic_class(meta.ecn),
                truncated: meta.truncated,
            });
        }
        Ok(count)
    }

    fn send(&mut self, trains: &mut [Train]) -> Result<(), SysError> {
        let report = self.sockets.send_batch(&mut self.sender, trains.iter().flat_map(items));
        for position in report.source_refused {
            if let Some((train, _)) = locate(trains, position) {
                train.lose_source();
            }
        }
        for (position, _) in report.failed {
            if let Some((train, within)) = locate(trains, position) {
                train.refuse(within);
            }
        }
        Ok(())
    }

    fn fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        self.sockets.fds()
    }
}

/// The datagrams of a train, one by one.
fn items(train: &Train) -> impl Iterator<Item = SendItem<'_>> {
    (0..train.count()).map(|position| SendItem {
        remote: train.to().remote,
        source: train.to().local.map(local_of),
        tos: train.traffic_class(),
        payload: train.datagram(position),
    })
}

/// The train of the datagram at `position` among all, and the datagram's position in it.
fn locate(trains: &mut [Train], mut position: usize) -> Option<(&mut Train, usize)> {
    for train in trains {
        if position < train.count() {
            return Some((train, position));
        }
        position -= train.count();
    }
    None
}

const fn source_of((address, interface): Local) -> LocalSource {
    LocalSource { address, interface }
}

const fn local_of(LocalSource { address, interface }: LocalSource) -> Local {
    (address, interface)
}
