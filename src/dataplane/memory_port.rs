//! Ports made of queues: the data plane without an operating system.
//!
//! Tests, simulations and benchmarks hold the other end. Nothing here has a descriptor, so such a
//! shard is driven by its turns, never by its thread loop.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dataplane::port::{DatagramPort, IpPort};
use crate::packet::batch::{DatagramBatch, IpBatch, PlainBatch, Received};
use crate::packet::slab::HEADROOM;
use crate::packet::train::Train;
use crate::proto::endpoint::Endpoint;
use crate::sys::SysError;
use crate::sys::udp::Narrowed;
use crate::wire::ip::Ecn;
use crate::wire::vnet::VnetHeader;

/// What a port says once its other end has gone.
fn gone(op: &'static str) -> SysError {
    SysError { op, source: io::ErrorKind::BrokenPipe.into() }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct IpState {
    waiting: VecDeque<(VnetHeader, Vec<u8>)>,
    delivered: Vec<Vec<u8>>,
    gone: bool,
}

/// An [`IpPort`] made of two queues. Clones are ends of the same port.
#[derive(Clone, Debug, Default)]
pub struct MemoryIpPort(Arc<Mutex<IpState>>);

impl MemoryIpPort {
    /// Lets `packet` wait to be read by the shard.
    pub fn push(&self, packet: &[u8]) {
        self.push_super(packet, VnetHeader::default());
    }

    /// Lets a packet wait of which something is still to be done, as a TUN with offloads has them.
    pub fn push_super(&self, packet: &[u8], vnet: VnetHeader) {
        lock(&self.0).waiting.push_back((vnet, packet.to_vec()));
    }

    /// Packets that wait to be read.
    pub fn waiting(&self) -> usize {
        lock(&self.0).waiting.len()
    }

    /// Takes the packets that the shard has delivered, oldest first.
    pub fn take_delivered(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut lock(&self.0).delivered)
    }

    /// From now on the port fails, as the descriptor of a deleted TUN device does.
    pub fn vanish(&self) {
        lock(&self.0).gone = true;
    }
}

impl IpPort for MemoryIpPort {
    fn recv(&mut self, batch: &mut IpBatch) -> Result<usize, SysError> {
        let mut state = lock(&self.0);
        if state.gone {
            return Err(gone("read"));
        }
        let mut count = 0;
        while let Some(slab) = batch.vacant() {
            let Some((vnet, packet)) = state.waiting.pop_front() else { break };
            slab[HEADROOM..HEADROOM + packet.len()].copy_from_slice(&packet);
            batch.push(packet.len(), Ok(vnet));
            count += 1;
        }
        Ok(count)
    }

    fn send(&mut self, packets: &mut PlainBatch<'_>) -> Result<usize, SysError> {
        let mut state = lock(&self.0);
        if state.gone {
            return Err(gone("write"));
        }
        for position in 0..packets.count() {
            state.delivered.push(packets.packet(position).to_vec());
        }
        Ok(0)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A datagram that a shard has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentDatagram {
    pub to: Endpoint,
    /// DSCP and ECN.
    pub traffic_class: u8,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct DatagramState {
    waiting: VecDeque<(Received, Vec<u8>)>,
    sent: Vec<SentDatagram>,
    narrowed: Vec<Narrowed>,
    /// How many datagrams each train had.
    trains: Vec<usize>,
    /// Datagrams that may still be sent before the port refuses them; `None`: any number.
    room: Option<usize>,
    lost_source: Option<std::net::IpAddr>,
    refused: Option<std::net::SocketAddr>,
    /// Bytes of the largest probe that comes through, and what is told of larger ones.
    path: Option<(usize, Vec<Narrowed>)>,
    gone: bool,
}

/// A [`DatagramPort`] made of two queues. Clones are ends of the same port.
#[derive(Clone, Debug, Default)]
pub struct MemoryDatagramPort(Arc<Mutex<DatagramState>>);

impl MemoryDatagramPort {
    /// Lets a datagram wait to be received by the shard.
    pub fn push(&self, from: Endpoint, ecn: Ecn, bytes: &[u8]) {
        let received =
            Received { len: bytes.len(), stride: bytes.len(), from, ecn, truncated: false };
        self.push_message(received, bytes);
    }

    /// Lets a message wait that may be merged from many datagrams, or cut.
    pub fn push_message(&self, received: Received, bytes: &[u8]) {
        lock(&self.0).waiting.push_back((received, bytes.to_vec()));
    }

    /// Takes the datagrams that the shard has sent, oldest first.
    pub fn take_sent(&self) -> Vec<SentDatagram> {
        std::mem::take(&mut lock(&self.0).sent)
    }

    /// Takes the numbers of datagrams that the shard has sent together, oldest first.
    pub fn take_trains(&self) -> Vec<usize> {
        std::mem::take(&mut lock(&self.0).trains)
    }

    /// Refuses datagrams after `room` more; `None` takes any number.
    pub fn set_room(&self, room: Option<usize>) {
        lock(&self.0).room = room;
    }

    /// From now on sending from the local address `source` fails, as it does when the address is
    /// removed from the host.
    pub fn lose_source(&self, source: std::net::IpAddr) {
        lock(&self.0).lost_source = Some(source);
    }

    /// From now on every datagram to `remote` is refused.
    pub fn refuse(&self, remote: std::net::SocketAddr) {
        lock(&self.0).refused = Some(remote);
    }

    /// From now on probes of more than `bytes` do not come through, and `told` is said of each.
    pub fn narrow(&self, bytes: usize, told: Vec<Narrowed>) {
        lock(&self.0).path = Some((bytes, told));
    }

    /// From now on the port fails.
    pub fn vanish(&self) {
        lock(&self.0).gone = true;
    }
}

impl DatagramPort for MemoryDatagramPort {
    fn recv(&mut self, batch: &mut DatagramBatch, _ready: [bool; 2]) -> Result<usize, SysError> {
        let mut state = lock(&self.0);
        if state.gone {
            return Err(gone("recvmmsg"));
        }
        let mut count = 0;
        while let Some(slab) = batch.vacant().first_mut() {
            let Some((received, bytes)) = state.waiting.pop_front() else { break };
            slab[..bytes.len()].copy_from_slice(&bytes);
            batch.push(received);
            count += 1;
        }
        Ok(count)
    }

    fn send(&mut self, trains: &mut [Train]) -> Result<(), SysError> {
        let mut state = lock(&self.0);
        if state.gone {
            return Err(gone("sendmmsg"));
        }
        for train in trains {
            state.trains.push(train.count());
            let mut to = train.to();
            let local = to.local.map(|local| local.address);
            if local.is_some() && local == state.lost_source {
                train.lose_source();
                to.local = None;
            }
            if let Some((most, told)) = &state.path
                && train.is_probe()
                && train.bytes().len() > *most
            {
                let told = told.clone();
                state.narrowed.extend(told);
                continue;
            }
            for position in 0..train.count() {
                if Some(to.remote) == state.refused || state.room == Some(0) {
                    train.refuse(position);
                    continue;
                }
                state.room = state.room.map(|room| room - 1);
                let (bytes, traffic_class) =
                    (train.datagram(position).to_vec(), train.traffic_class());
                state.sent.push(SentDatagram { to, traffic_class, bytes });
            }
        }
        Ok(())
    }

    fn take_narrowed(&mut self) -> Vec<Narrowed> {
        std::mem::take(&mut lock(&self.0).narrowed)
    }

    fn fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [None, None]
    }
}
