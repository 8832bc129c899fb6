//! Datagrams that are ready to go: trains, and what is to be noted once they are gone.
//!
//! A fixed number of trains that are filled by the stages and sent by one call. Datagrams leave in
//! the order they were appended. Sealing happens straight into a train: the one copy outbound.

use std::sync::Arc;

use crate::dataplane::port::DatagramPort;
use crate::dataplane::tables::PeerPath;
use crate::dataplane::turn::Context;
use crate::packet::train::{TRAIN_BYTES, Train};
use crate::proto::drop_reason::DropReason;
use crate::proto::endpoint::Endpoint;
use crate::proto::keypair::Sealer;
use crate::proto::padding::padding;
use crate::sys::SysError;
use crate::wire::ip::Ecn;
use crate::wire::message::TRANSPORT_OVERHEAD_BYTES;

/// What the datagrams of a train are; a train never mixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cargo {
    /// Handshake messages and cookie replies: the engine keeps their facts.
    Handshake,
    Keepalive,
    Data,
}

/// What must be known of a train once it is gone.
#[derive(Debug)]
struct Waybill {
    cargo: Cargo,
    /// `None` for datagrams to an address that is no peer's.
    path: Option<Arc<PeerPath>>,
}

/// Why a packet could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsealed {
    /// All trains are full: send them and try again.
    Full,
    /// The keypair has no counters left.
    Exhausted,
    TooBig,
}

/// The trains of one shard.
#[derive(Debug)]
pub struct Departures {
    trains: Box<[Train]>,
    /// One for each filled train.
    waybills: Vec<Waybill>,
}

impl Departures {
    /// Room for `trains` trains, and so for at least as many datagrams.
    pub fn new(trains: usize) -> Self {
        Self {
            trains: (0..trains).map(|_| Train::new()).collect(),
            waybills: Vec::with_capacity(trains),
        }
    }

    /// Appends a handshake message or cookie reply; false if all trains are full.
    #[must_use]
    pub fn append_handshake(
        &mut self,
        path: Option<&Arc<PeerPath>>,
        to: Endpoint,
        traffic_class: u8,
        datagram: &[u8],
    ) -> bool {
        let slot = self.append(Cargo::Handshake, path, to, traffic_class, datagram.len());
        let Some(slot) = slot else { return false };
        slot.copy_from_slice(datagram);
        true
    }

    /// Appends `packet` sealed for the peer at `to`; an empty packet is a keepalive.
    ///
    /// `ecn` is the mark of the packet, which the datagram bears, too. [RFC 6040 §4.1]
    ///
    /// # Errors
    /// [`Unsealed`]; nothing was appended then.
    pub fn seal(
        &mut self,
        context: &Context<'_>,
        path: &Arc<PeerPath>,
        to: Endpoint,
        sealer: &Sealer,
        packet: &[u8],
        ecn: Ecn,
    ) -> Result<(), Unsealed> {
        let padding = padding(packet.len(), context.tables.mtu() as usize);
        let len = packet.len() + padding + TRANSPORT_OVERHEAD_BYTES;
        if len > TRAIN_BYTES {
            return Err(Unsealed::TooBig);
        }
        let cargo = if packet.is_empty() { Cargo::Keepalive } else { Cargo::Data };
        if !self.admits(cargo, Some(path), to, ecn.bits(), len) {
            return Err(Unsealed::Full);
        }
        // A counter once reserved is never given back, so nothing may fail from here on.
        let counter =
            sealer.reserve(1).and_then(|mut one| one.next()).ok_or(Unsealed::Exhausted)?;
        let slot = self.append(cargo, Some(path), to, ecn.bits(), len).ok_or(Unsealed::Full)?;
        sealer.seal(counter, packet, padding, slot);
        Ok(())
    }

    /// Sends everything and notes what became of it.
    ///
    /// # Errors
    /// The port is gone.
    pub fn send(
        &mut self,
        context: &Context<'_>,
        port: &mut dyn DatagramPort,
    ) -> Result<(), SysError> {
        if self.waybills.is_empty() {
            return Ok(());
        }
        let trains = &mut self.trains[..self.waybills.len()];
        port.send(trains)?;
        for (train, waybill) in trains.iter().zip(self.waybills.drain(..)) {
            context.tables.drops.count_many(DropReason::UdpSendFailed, train.refused() as u64);
            if let Some(path) = waybill.path {
                note(context, train, waybill.cargo, &path);
            }
        }
        Ok(())
    }

    /// Whether [`Self::append`] of the same would succeed.
    fn admits(
        &self,
        cargo: Cargo,
        path: Option<&Arc<PeerPath>>,
        to: Endpoint,
        traffic_class: u8,
        len: usize,
    ) -> bool {
        self.waybills.len() < self.trains.len()
            || self.last_admits(cargo, path, to, traffic_class, len)
    }

    fn last_admits(
        &self,
        cargo: Cargo,
        path: Option<&Arc<PeerPath>>,
        to: Endpoint,
        traffic_class: u8,
        len: usize,
    ) -> bool {
        let Some((train, waybill)) = self.trains.iter().zip(&self.waybills).next_back() else {
            return false;
        };
        let same_path = match (path, &waybill.path) {
            (Some(path), Some(of_train)) => Arc::ptr_eq(path, of_train),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_path
            && waybill.cargo == cargo
            && train.to() == to
            && train.traffic_class() == traffic_class
            && train.admits(len)
    }

    /// Where to write a datagram of `len` bytes: in the last train if it takes it, else in a new
    /// one; `None` if there is none. Only the last train grows, so that order is kept.
    fn append(
        &mut self,
        cargo: Cargo,
        path: Option<&Arc<PeerPath>>,
        to: Endpoint,
        traffic_class: u8,
        len: usize,
    ) -> Option<&mut [u8]> {
        if !self.last_admits(cargo, path, to, traffic_class, len) {
            self.trains.get_mut(self.waybills.len())?.start(to, traffic_class);
            self.waybills.push(Waybill { cargo, path: path.map(Arc::clone) });
        }
        self.trains[self.waybills.len() - 1].append(len)
    }
}

/// Notes of a train that the peer was sent to, once it is gone.
fn note(context: &Context<'_>, train: &Train, cargo: Cargo, path: &PeerPath) {
    let now = context.now.mono;
    path.count_sent(train.sent_bytes());
    if train.source_lost() {
        path.lose_source(train.to().local);
    }
    match cargo {
        Cargo::Handshake => return,
        Cargo::Keepalive => path.facts.any_authenticated_sent(now),
        Cargo::Data => {
            path.facts.any_authenticated_sent(now);
            // What never left cannot be answered. [LNX send.c:wg_packet_create_data_done]
            if train.refused() < train.count() {
                path.facts.data_sent(now);
            }
        }
    }
    path.nudge(context.lane);
}
