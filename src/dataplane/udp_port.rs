//! The UDP sockets of the device as a datagram port.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::dataplane::DATAGRAM_BATCH;
use crate::dataplane::port::DatagramPort;
use crate::packet::batch::{DatagramBatch, Received};
use crate::packet::train::{TRAIN_DATAGRAMS, Train};
use crate::proto::endpoint::{Endpoint, LocalSource};
use crate::sys::SysError;
use crate::sys::udp::{Failed, Local, Narrowed, Receiver, RecvMeta, SendItem, Sender, UdpSockets};
use crate::wire::ip::Ecn;

/// Messages of at least this length on average are joined ones. Not more than so many of them are
/// received at once: they stay in a core's cache until they are delivered, many do not.
const LONG_MESSAGE_BYTES: usize = 16 << 10;
const LONG_MESSAGES: usize = 2;

/// Messages of one system call. Without segmentation each is a datagram.
const SEND_MESSAGES: usize = TRAIN_DATAGRAMS;

/// The sockets, shared with the engine (which may change their mark), and this shard's memory for
/// its system calls.
#[derive(Debug)]
pub struct UdpPort {
    sockets: Arc<UdpSockets>,
    receiver: Receiver,
    metas: Box<[RecvMeta]>,
    /// Messages to ask for in the next call.
    budget: usize,
    sender: Sender,
    narrowed: Vec<Narrowed>,
}

impl UdpPort {
    pub fn new(sockets: Arc<UdpSockets>) -> Self {
        Self {
            sockets,
            receiver: Receiver::new(DATAGRAM_BATCH),
            metas: vec![RecvMeta::default(); DATAGRAM_BATCH].into(),
            budget: DATAGRAM_BATCH,
            sender: Sender::new(SEND_MESSAGES),
            narrowed: Vec::new(),
        }
    }
}

impl DatagramPort for UdpPort {
    fn recv(&mut self, batch: &mut DatagramBatch, ready: [bool; 2]) -> Result<usize, SysError> {
        let buffers = batch.vacant().iter_mut().take(self.budget).map(|slab| &mut **slab);
        let count = self.sockets.recv_batch(&mut self.receiver, ready, buffers, &mut self.metas)?;
        let bytes: usize = self.metas[..count].iter().map(|meta| meta.len).sum();
        self.budget =
            if bytes > count * LONG_MESSAGE_BYTES { LONG_MESSAGES } else { DATAGRAM_BATCH };
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
        let report = self.sockets.send_batch(&mut self.sender, trains.iter().map(item));
        for position in report.source_refused {
            trains[position].lose_source();
        }
        for Failed { item, datagrams, .. } in report.failed {
            datagrams.for_each(|within| trains[item].refuse(within));
        }
        self.narrowed.extend(report.narrowed);
        Ok(())
    }

    fn take_narrowed(&mut self) -> Vec<Narrowed> {
        let mut narrowed = self.receiver.take_narrowed();
        narrowed.append(&mut self.narrowed);
        narrowed
    }

    fn fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        self.sockets.fds()
    }
}

fn item(train: &Train) -> SendItem<'_> {
    SendItem {
        remote: train.to().remote,
        source: train.to().local.map(local_of),
        tos: train.traffic_class(),
        payload: train.bytes(),
        stride: train.stride(),
        is_probe: train.is_probe(),
    }
}

const fn source_of((address, interface): Local) -> LocalSource {
    LocalSource { address, interface }
}

const fn local_of(LocalSource { address, interface }: LocalSource) -> Local {
    (address, interface)
}
