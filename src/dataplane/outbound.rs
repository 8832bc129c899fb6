//! From the IP port to the datagram port: route, seal, send; and what waits for a session.
//!
//! ```text
//! read ▶ flow's turn ▶ header ▶ route ▶ endpoint ▶ session? ─ yes ▶ seal into a train ▶ send
//!                                 │         │          └ no ▶ stage, ask the engine for a session
//!                                 └─────────┴ none ▶ ICMP unreachable to the sender
//!                                           too large for the path ▶ fragments, or ICMP too big
//! ```
//!
//! Packets of one flow leave in the order they came in: while any of a peer waits for a session, all
//! later ones of the peer wait behind it. [LNX device.c:wg_xmit] [LNX send.c:wg_packet_send_staged_packets]

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::dataplane::clamp_mss;
use crate::dataplane::departures::{Departures, Unsealed};
use crate::dataplane::port::{DatagramPort, IpPort};
use crate::dataplane::replies::Replies;
use crate::dataplane::staged::Staged;
use crate::dataplane::standing::StandingQueue;
use crate::dataplane::tables::PeerPath;
use crate::dataplane::turn::Context;
use crate::dataplane::{IP_BATCH, READ_BYTES, SEND_BYTES, Stop, WAITING};
use crate::packet::batch::IpBatch;
use crate::packet::fair_queue::{FairQueue, QUEUES, Turn};
use crate::packet::split::Splitter;
use crate::proto::allowed_ips::Routes;
use crate::proto::device::{Destination, SmallDatagram};
use crate::proto::drop_reason::DropReason;
use crate::proto::endpoint::Endpoint;
use crate::proto::keypair::Sealer;
use crate::proto::peer::PeerId;
use crate::time::Instant;
use crate::wire::fragment;
use crate::wire::ip::{Ecn, IpHeader, set_ecn, udp_datagram};
use crate::wire::message::{Message, classify};
use crate::wire::vnet::VnetHeader;

/// A super-packet of so many packets is bulk: its sender has more on the way than it waits for, and
/// finds out within a round trip when one is missing.
const BULK_PACKETS: usize = 8;

/// Trains of a shard: a batch of packets for as many peers fits.
const TRAINS: usize = IP_BATCH;

/// The outbound half of a shard.
#[derive(Debug)]
pub struct Outbound {
    batch: IpBatch,
    /// What the IP port keeps.
    port: StandingQueue,
    waiting: FairQueue,
    /// The queues of `waiting`.
    flows: Box<[StandingQueue]>,
    departures: Departures,
    staged: Staged,
    /// Peers whose staged packets can go now.
    ready: VecDeque<PeerId>,
    replies: Replies,
}

impl Outbound {
    /// For one of so many `shards`.
    pub fn new(shards: NonZeroU32) -> Self {
        Self {
            batch: IpBatch::with_capacity(IP_BATCH, READ_BYTES),
            port: StandingQueue::new(),
            waiting: FairQueue::new(WAITING, SEND_BYTES / 3),
            flows: vec![StandingQueue::new(); QUEUES].into(),
            departures: Departures::new(TRAINS),
            staged: Staged::new(shards),
            ready: VecDeque::new(),
            replies: Replies::new(shards),
        }
    }

    /// Reads packets, if there may be any to read, and sends or stages those whose turn it is; returns
    /// how many these were.
    ///
    /// # Errors
    /// A port is gone.
    pub fn turn(
        &mut self,
        context: &Context<'_>,
        ip: &mut dyn IpPort,
        udp: &mut dyn DatagramPort,
        reads: bool,
    ) -> Result<u32, Stop> {
        // What is not looked into, since there is no room for what is in it, is not empty.
        let mut is_port_empty = !reads;
        if reads && self.waiting.room() >= IP_BATCH {
            ip.recv(&mut self.batch).map_err(Stop::IpPortGone)?;
            is_port_empty = !self.batch.is_full();
            self.waiting.take(&mut self.batch);
        }
        self.port.seen(context.now.mono, is_port_empty);
        if self.waiting.is_empty() {
            return Ok(0);
        }
        let routes = context.tables.routes();
        let (mut run, mut count, mut bytes) = (None, 0, 0);
        while count < IP_BATCH
            && bytes < SEND_BYTES
            && let Some(turn) = self.waiting.pop()
        {
            count += 1;
            bytes += turn.len;
            match self.packet(context, udp, &routes, &mut run, turn) {
                Ok(()) => {}
                Err(Ended::Dropped(reason)) => context.tables.drops.count(reason),
                Err(Ended::Stopped(stop)) => return Err(stop),
            }
        }
        drop(routes);
        self.send_ready(context, udp)?;
        self.send(context, udp)?;
        self.replies.deliver(ip).map_err(Stop::IpPortGone)?;
        Ok(count as u32)
    }

    /// Whether packets wait for their turn.
    pub const fn has_more(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Appends a handshake message or a cookie reply to what [`Self::send`] sends.
    ///
    /// # Errors
    /// The datagram port is gone.
    pub fn transmit(
        &mut self,
        context: &Context<'_>,
        udp: &mut dyn DatagramPort,
        to: Destination,
        datagram: &SmallDatagram,
        traffic_class: u8,
    ) -> Result<(), Stop> {
        let (path, endpoint) = match to {
            Destination::Address(endpoint) => (None, Some(endpoint)),
            Destination::Peer(peer) => {
                let path = context.tables.peer(peer);
                let endpoint = path.as_ref().and_then(|path| path.endpoint());
                (path, endpoint)
            }
        };
        let Some(endpoint) = endpoint else {
            context.tables.drops.count(DropReason::NoEndpoint);
            return Ok(());
        };
        self.departures
            .append_handshake(context, udp, path.as_ref(), endpoint, traffic_class, datagram)
            .map_err(Stop::DatagramPortGone)
    }

    /// Appends what is staged for `peer` to what [`Self::send`] sends, or a keepalive if nothing
    /// is and `or_keepalive`. [WG §6.5]
    ///
    /// # Errors
    /// The datagram port is gone.
    pub fn flush(
        &mut self,
        context: &Context<'_>,
        udp: &mut dyn DatagramPort,
        peer: PeerId,
        or_keepalive: bool,
    ) -> Result<(), Stop> {
        if self.staged.has(peer) {
            self.ready.push_back(peer);
            self.send_ready(context, udp)
        } else if or_keepalive {
            self.keepalive(context, udp, peer)
        } else {
            Ok(())
        }
    }

    /// Appends an empty packet for `peer` to what [`Self::send`] sends; without a session, asks for
    /// one.
    ///
    /// # Errors
    /// The datagram port is gone.
    pub fn keepalive(
        &mut self,
        context: &Context<'_>,
        udp: &mut dyn DatagramPort,
        peer: PeerId,
    ) -> Result<(), Stop> {
        let Some(path) = context.tables.peer(peer) else { return Ok(()) };
        let Some(to) = path.endpoint() else {
            context.tables.drops.count(DropReason::NoEndpoint);
            return Ok(());
        };
        if let Some(sealer) = usable(context.now.mono, &path) {
            let nothing = &mut Splitter::whole(&mut []);
            match self.departures.seal(context, udp, &path, to, &sealer, nothing, Ecn::NotEct) {
                Ok(()) => {
                    keep_fresh_on_send(context, &path, &sealer);
                    return Ok(());
                }
                Err(Unsealed::Gone(error)) => return Err(Stop::DatagramPortGone(error)),
                Err(Unsealed::Exhausted | Unsealed::TooBig) => {}
            }
        }
        path.want_session(context.now.mono, context.lane);
        Ok(())
    }

    /// Appends `echo` for `peer`, padded to `bytes`, to what [`Self::send`] sends, if there is a session
    /// and a place to send it to.
    ///
    /// # Errors
    /// The datagram port is gone.
    pub fn probe(
        &mut self,
        context: &Context<'_>,
        udp: &mut dyn DatagramPort,
        peer: PeerId,
        echo: &mut [u8],
        bytes: u16,
    ) -> Result<(), Stop> {
        let Some(path) = context.tables.peer(peer) else { return Ok(()) };
        let sealer = usable(context.now.mono, &path);
        let (Some(to), Some(sealer)) = (path.endpoint(), sealer) else { return Ok(()) };
        let bytes = usize::from(bytes);
        match self.departures.seal_probe(context, udp, &path, to, &sealer, echo, bytes) {
            Err(Unsealed::Gone(error)) => Err(Stop::DatagramPortGone(error)),
            // It is asked again, with another session.
            Ok(()) | Err(Unsealed::Exhausted | Unsealed::TooBig) => Ok(()),
        }
    }

    /// Sends what the methods above have left in trains.
    ///
    /// # Errors
    /// The datagram port is gone.
    pub fn send(&mut self, context: &Context<'_>, udp: &mut dyn DatagramPort) -> Result<(), Stop> {
        self.departures.send(context, udp).map_err(Stop::DatagramPortGone)
    }

    /// Drops what is staged for `peer`.
    pub fn purge(&mut self, context: &Context<'_>, peer: PeerId, reason: DropReason) {
        context.tables.drops.count_many(reason, self.staged.purge(peer) as u64);
    }

    /// Sends or stages the packet whose `turn` it is, or all that are in it. `run` is the path of the
    /// packet before it, which is most often this one's, too.
    fn packet(
        &mut self,
        context: &Context<'_>,
        udp: &mut dyn DatagramPort,
        routes: &Routes<PeerId>,
        run: &mut Option<Arc<PeerPath>>,
        turn: Turn,
    ) -> Result<(), Ended> {
        let flow = &mut self.flows[turn.queue];
        flow.seen(context.now.mono, turn.is_last);
        let (packet, vnet) = self.waiting.packet(turn.place);
        let header = IpHeader::parse(packet)
            .filter(|header| header.total_length <= packet.len())
            .ok_or(DropReason::OutboundNotIp)?;
        let peer = routes.lookup(header.destination);
        if run.as_ref().map(|path| path.peer) != peer {
            *run = peer.and_then(|peer| context.tables.peer(peer));
        }
        let Some(path) = run else {
            self.replies.unreachable(context.now.mono, packet);
            return Err(DropReason::NoPeer.into());
        };
        let Some(to) = path.endpoint() else {
            self.replies.unreachable(context.now.mono, packet);
            return Err(DropReason::NoEndpoint.into());
        };
        let sealer = usable(context.now.mono, path);
        if is_own_datagram(context, to, sealer.as_deref(), &header, packet) {
            return Err(DropReason::RoutingLoop.into());
        }
        let vnet = vnet.map_err(|_| DropReason::OutboundBadOffload)?;
        if clamp_mss::may_announce(packet, &vnet) {
            clamp_mss::lower(packet, &vnet, context.tables, &path.mtu);
        }
        let slow_down = is_bulk(packet, &vnet)
            && (flow.tells(context.now.mono) || self.port.tells(context.now.mono));
        let can_mark = header.ecn() != Ecn::NotEct;
        let ecn = if slow_down && can_mark { Ecn::Ce } else { header.ecn() };
        if ecn != header.ecn() {
            set_ecn(packet, ecn);
        }
        let mut packets =
            Splitter::new(packet, &vnet).map_err(|_| DropReason::OutboundBadOffload)?;
        if slow_down && !can_mark {
            packets.next();
            context.tables.drops.count(DropReason::QueueStanding);
        }
        if !path.mtu.passes(packets.largest()) {
            let limit = path.look_at_large(&header, sealer.is_some(), context.lane);
            let (staged, replies) = (&mut self.staged, &mut self.replies);
            cut_or_refuse(context, path, limit, &mut packets, staged, replies)?;
        }
        let others_wait = self.staged.has(path.peer);
        if let Some(sealer) = &sealer
            && !others_wait
        {
            match self.departures.seal(context, udp, path, to, sealer, &mut packets, ecn) {
                Ok(()) => {
                    keep_fresh_on_send(context, path, sealer);
                    return Ok(());
                }
                Err(Unsealed::TooBig) => return Err(DropReason::OutboundTooBig.into()),
                Err(Unsealed::Gone(error)) => return Err(Stop::DatagramPortGone(error).into()),
                Err(Unsealed::Exhausted) => {}
            }
        }
        while let Some(packet) = packets.next() {
            let overflow = self.staged.push(path.peer, packet) as u64;
            context.tables.drops.count_many(DropReason::StagedOverflow, overflow);
        }
        if sealer.is_none() || !others_wait {
            path.want_session(context.now.mono, context.lane);
        } else if !self.ready.contains(&path.peer) {
            // The session came before its flush: all go in order at the end of this turn.
            self.ready.push_back(path.peer);
        }
        Ok(())
    }

    /// Seals the staged packets of ready peers, each peer's in order.
    fn send_ready(
        &mut self,
        context: &Context<'_>,
        udp: &mut dyn DatagramPort,
    ) -> Result<(), Stop> {
        while let Some(peer) = self.ready.pop_front() {
            let Some(path) = context.tables.peer(peer) else {
                self.purge(context, peer, DropReason::PeerRemoved);
                continue;
            };
            while let Some(packet) = self.staged.first(peer) {
                match seal_staged(context, udp, &mut self.departures, &path, packet) {
                    Ok(()) => {}
                    // It stays staged, in its place.
                    Err(NotNow::NoSession) => {
                        path.want_session(context.now.mono, context.lane);
                        break;
                    }
                    Err(NotNow::Never(Ended::Dropped(reason))) => {
                        context.tables.drops.count(reason);
                    }
                    Err(NotNow::Never(Ended::Stopped(stop))) => return Err(stop),
                }
                self.staged.pop(peer);
            }
        }
        Ok(())
    }
}

/// Leaves `packets` alone if none has more than `limit` bytes. Otherwise stages them as fragments that
/// have no more, or tells their sender what would fit.
fn cut_or_refuse(
    context: &Context<'_>,
    path: &PeerPath,
    limit: u32,
    packets: &mut Splitter<'_>,
    staged: &mut Staged,
    replies: &mut Replies,
) -> Result<(), DropReason> {
    if packets.largest() <= limit as usize {
        return Ok(());
    }
    while let Some(packet) = packets.next() {
        if !fragment::may_be_cut(packet) {
            replies.too_big(context.now.mono, packet, u16::try_from(limit).unwrap_or(u16::MAX));
            return Err(DropReason::OutboundBeyondPath);
        }
        let dropped = staged.push_cut(path.peer, packet, limit as usize) as u64;
        context.tables.drops.count_many(DropReason::StagedOverflow, dropped);
    }
    Ok(())
}

fn is_bulk(packet: &[u8], vnet: &VnetHeader) -> bool {
    vnet.gso.is_some_and(|gso| packet.len() >= BULK_PACKETS * usize::from(gso.size))
}

/// Whether `packet` is a datagram that we have sent to `to` before. Sealed again, it would come
/// back again, larger each time.
///
/// Another host may have a WireGuard of its own towards the same endpoint, on the same port: only
/// the session tells whose a datagram is. Handshake messages do not name one. While there is a
/// session they pass, as later fragments do, and what is made of them is caught when it returns;
/// while there is none, nothing of another host could be sent either.
fn is_own_datagram(
    context: &Context<'_>,
    to: Endpoint,
    sealer: Option<&Sealer>,
    header: &IpHeader,
    packet: &[u8],
) -> bool {
    if header.destination != to.remote.ip() {
        return false;
    }
    let Some(datagram) = udp_datagram(packet) else { return false };
    if datagram.source_port != context.tables.listen_port()
        || datagram.destination_port != to.remote.port()
    {
        return false;
    }
    match (classify(datagram.payload), sealer) {
        (Some(Message::Transport { receiver, .. }), Some(sealer)) => {
            receiver == sealer.remote_index().0
        }
        (Some(Message::Transport { .. }), None) | (None, _) => false,
        (Some(_), sealer) => sealer.is_none(),
    }
}

/// How a packet ended that was neither sent nor staged.
enum Ended {
    Dropped(DropReason),
    /// With the shard.
    Stopped(Stop),
}

impl From<DropReason> for Ended {
    fn from(reason: DropReason) -> Self {
        Self::Dropped(reason)
    }
}

impl From<Stop> for Ended {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

/// Why a staged packet does not go.
enum NotNow {
    NoSession,
    Never(Ended),
}

fn seal_staged(
    context: &Context<'_>,
    udp: &mut dyn DatagramPort,
    departures: &mut Departures,
    path: &Arc<PeerPath>,
    packet: &mut [u8],
) -> Result<(), NotNow> {
    let to = path.endpoint().ok_or(NotNow::Never(DropReason::NoEndpoint.into()))?;
    let sealer = usable(context.now.mono, path).ok_or(NotNow::NoSession)?;
    let ecn = IpHeader::parse(packet).map_or(Ecn::NotEct, |header| header.ecn());
    let packets = &mut Splitter::whole(packet);
    departures.seal(context, udp, path, to, &sealer, packets, ecn).map_err(|unsealed| {
        match unsealed {
            Unsealed::Exhausted => NotNow::NoSession,
            Unsealed::TooBig => NotNow::Never(DropReason::OutboundTooBig.into()),
            Unsealed::Gone(error) => NotNow::Never(Stop::DatagramPortGone(error).into()),
        }
    })?;
    keep_fresh_on_send(context, path, &sealer);
    Ok(())
}

/// What to send to the peer with, if it may still be used. [WG §6.2]
fn usable(now: Instant, path: &PeerPath) -> Option<Arc<Sealer>> {
    path.sealer().as_ref().filter(|sealer| !sealer.is_expired(now)).map(Arc::clone)
}

/// Asks for a new session in time. [LNX send.c:keep_key_fresh]
fn keep_fresh_on_send(context: &Context<'_>, path: &PeerPath, sealer: &Sealer) {
    if sealer.wants_rekey_on_send(context.now.mono) {
        path.want_session(context.now.mono, context.lane);
    }
}
