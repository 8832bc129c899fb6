//! Datagrams that are ready to go: trains, and what is to be noted once they are gone.
//!
//! A fixed number of trains that are filled by the stages and sent by one call. Datagrams leave in
//! the order they were appended. A packet alone is sealed straight into its train; several at once are
//! copied there and sealed in place: the one copy outbound, either way.

use std::sync::Arc;

use crate::crypto::batch::Kernel;
use crate::dataplane::port::DatagramPort;
use crate::dataplane::tables::PeerPath;
use crate::dataplane::turn::Context;
use crate::packet::split::Splitter;
use crate::packet::train::{TRAIN_BYTES, Train};
use crate::proto::drop_reason::DropReason;
use crate::proto::endpoint::Endpoint;
use crate::proto::keypair::{SealBatch, Sealer};
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
    /// Asks what fits; nothing follows from it.
    Probe,
    Data,
}

/// What must be known of a train once it is gone.
#[derive(Debug)]
struct Waybill {
    cargo: Cargo,
    /// `None` for datagrams to an address that is no peer's.
    path: Option<Arc<PeerPath>>,
}

/// Why packets could not be sealed.
#[derive(Debug)]
pub enum Unsealed {
    /// The keypair has no counters left.
    Exhausted,
    TooBig,
    /// The trains were full, and the port is gone.
    Gone(SysError),
}

/// Whom datagrams are for, and what for.
#[derive(Clone, Copy, Debug)]
struct Consignment<'a> {
    cargo: Cargo,
    path: Option<&'a Arc<PeerPath>>,
    to: Endpoint,
    traffic_class: u8,
}

/// The trains of one shard.
#[derive(Debug)]
pub struct Departures {
    /// INVARIANT: at least one.
    trains: Box<[Train]>,
    /// One for each filled train.
    waybills: Vec<Waybill>,
}

impl Departures {
    /// Room for `trains` trains, one at least. When they are full they are sent.
    pub fn new(trains: usize) -> Self {
        Self {
            trains: (0..trains.max(1)).map(|_| Train::new()).collect(),
            waybills: Vec::with_capacity(trains),
        }
    }

    /// Appends a handshake message or cookie reply.
    ///
    /// # Errors
    /// The trains were full, and the port is gone.
    pub fn append_handshake(
        &mut self,
        context: &Context<'_>,
        udp: &mut dyn DatagramPort,
        path: Option<&Arc<PeerPath>>,
        to: Endpoint,
        traffic_class: u8,
        datagram: &[u8],
    ) -> Result<(), SysError> {
        let consignment = Consignment { cargo: Cargo::Handshake, path, to, traffic_class };
        self.append(context, udp, consignment, datagram.len())?.copy_from_slice(datagram);
        Ok(())
    }

    /// Appends `packets` sealed for the peer at `to`; an empty packet is a keepalive.
    ///
    /// `ecn` is the mark of the packets, which the datagrams bear, too. [RFC 6040 §4.1] Their
    /// counters are reserved together, so that nobody else's come in between.
    ///
    /// # Errors
    /// [`Unsealed`]; nothing was appended then, unless the port is gone.
    pub fn seal(
        &mut self,
        context: &Context<'_>,
        udp: &mut dyn DatagramPort,
        path: &Arc<PeerPath>,
        to: Endpoint,
        sealer: &Sealer,
        packets: &mut Splitter<'_>,
        ecn: Ecn,
    ) -> Result<(), Unsealed> {
        let mtu = context.tables.mtu().min(path.mtu.limit(false)) as usize;
        let message_bytes =
            |packet: usize| packet + padding(packet, mtu) + TRANSPORT_OVERHEAD_BYTES;
        if message_bytes(packets.largest()) > TRAIN_BYTES {
            return Err(Unsealed::TooBig);
        }
        let mut counters = sealer.reserve(packets.remaining()).ok_or(Unsealed::Exhausted)?;
        let mut consignment =
            Consignment { cargo: Cargo::Data, path: Some(path), to, traffic_class: ecn.bits() };
        // Many at once: written to a train in the clear and encrypted there, by the end of their batch,
        // before anything else can be done with the train.
        if let Some(kernel) = context.kernel
            && packets.remaining() as usize >= Kernel::WORTHWHILE
        {
            while packets.remaining() > 0 {
                let len = message_bytes(packets.next_len());
                let train = self.train_for(context, udp, consignment, len);
                let mut slots = train.map_err(Unsealed::Gone)?.appender();
                let mut batch = SealBatch::new(sealer, kernel);
                while packets.remaining() > 0
                    && !batch.is_full()
                    && let Some(slot) = slots.append(message_bytes(packets.next_len()))
                    && let (Some(packet), Some(counter)) = (packets.next(), counters.next())
                {
                    batch.push(counter, packet, padding(packet.len(), mtu), slot);
                }
            }
            return Ok(());
        }
        while let Some(packet) = packets.next()
            && let Some(counter) = counters.next()
        {
            if packet.is_empty() {
                consignment.cargo = Cargo::Keepalive;
            }
            let len = message_bytes(packet.len());
            let slot = self.append(context, udp, consignment, len).map_err(Unsealed::Gone)?;
            sealer.seal(counter, packet, padding(packet.len(), mtu), slot);
        }
        Ok(())
    }

    /// Appends `packet` sealed for the peer at `to` and padded to `bytes`, which nobody may cut on the
    /// way.
    ///
    /// # Errors
    /// [`Unsealed`]; nothing was appended then, unless the port is gone.
    pub fn seal_probe(
        &mut self,
        context: &Context<'_>,
        udp: &mut dyn DatagramPort,
        path: &Arc<PeerPath>,
        to: Endpoint,
        sealer: &Sealer,
        packet: &mut [u8],
        bytes: usize,
    ) -> Result<(), Unsealed> {
        let len = bytes.max(packet.len().next_multiple_of(16)) + TRANSPORT_OVERHEAD_BYTES;
        if len > TRAIN_BYTES {
            return Err(Unsealed::TooBig);
        }
        let counter = sealer.reserve(1).and_then(|mut counters| counters.next());
        let counter = counter.ok_or(Unsealed::Exhausted)?;
        let consignment =
            Consignment { cargo: Cargo::Probe, path: Some(path), to, traffic_class: 0 };
        let slot = self.append(context, udp, consignment, len).map_err(Unsealed::Gone)?;
        sealer.seal(counter, packet, len - TRANSPORT_OVERHEAD_BYTES - packet.len(), slot);
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
            // That a probe is refused may be what it was sent to find out.
            if waybill.cargo != Cargo::Probe {
                context.tables.drops.count_many(DropReason::UdpSendFailed, train.refused() as u64);
            }
            if let Some(path) = waybill.path {
                note(context, train, waybill.cargo, &path);
            }
        }
        Ok(())
    }

    /// Where to write a datagram of `len` bytes, which is not 0 and fits a train.
    fn append(
        &mut self,
        context: &Context<'_>,
        udp: &mut dyn DatagramPort,
        consignment: Consignment<'_>,
        len: usize,
    ) -> Result<&mut [u8], SysError> {
        let train = self.train_for(context, udp, consignment, len)?;
        Ok(train.append(len).expect("it is for a datagram of that length"))
    }

    /// A train that takes a datagram of `len` bytes, which is not 0 and fits a train: the last one, or a
    /// new one. Only the last train grows, so that order is kept.
    fn train_for(
        &mut self,
        context: &Context<'_>,
        udp: &mut dyn DatagramPort,
        consignment: Consignment<'_>,
        len: usize,
    ) -> Result<&mut Train, SysError> {
        if !self.last_admits(consignment, len) {
            if self.waybills.len() == self.trains.len() {
                self.send(context, udp)?;
            }
            let Consignment { cargo, path, to, traffic_class } = consignment;
            self.trains[self.waybills.len()].start(to, traffic_class);
            if cargo == Cargo::Probe {
                self.trains[self.waybills.len()].make_probe();
            }
            self.waybills.push(Waybill { cargo, path: path.map(Arc::clone) });
        }
        Ok(&mut self.trains[self.waybills.len() - 1])
    }

    fn last_admits(&self, consignment: Consignment<'_>, len: usize) -> bool {
        let Some((train, waybill)) = self.trains.iter().zip(&self.waybills).next_back() else {
            return false;
        };
        let Consignment { cargo, path, to, traffic_class } = consignment;
        let same_path = match (path, &waybill.path) {
            (Some(path), Some(of_train)) => Arc::ptr_eq(path, of_train),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_path
            && waybill.cargo == cargo
            && cargo != Cargo::Probe
            && train.to() == to
            && train.traffic_class() == traffic_class
            && train.admits(len)
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
        Cargo::Keepalive | Cargo::Probe => path.facts.any_authenticated_sent(now),
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
