//! From the datagram port to the IP port, in the order that keeps attackers out. [WG §5.4.6]
//!
//! ```text
//! receive ▶ classify ─ handshake ▶ lane to the engine
//!              └ transport ▶ session by index ▶ open ▶ replay window
//!                  ▶ endpoint, counters, timers          (authenticated from here on)
//!                  ▶ empty: keepalive, done
//!                  ▶ version, length ▶ source allowed? ▶ congestion mark ▶ deliver
//! ```
//!
//! Nothing of a datagram is believed before its tag and its counter are, and everything outside the
//! inner packet is believed then: even a packet that its peer may not send moves the endpoint.
//! [LNX receive.c:wg_packet_consume_data_done]

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use crate::crypto::batch::{Kernel, LANES};
use crate::crypto::key::PublicKey;
use crate::dataplane::clamp_mss;
use crate::dataplane::lane::Incoming;
use crate::dataplane::port::{DatagramPort, IpPort};
use crate::dataplane::tables::Session;
use crate::dataplane::turn::Context;
use crate::dataplane::{DATAGRAM_BATCH, Stop};
use crate::packet::batch::{DatagramBatch, PlainBatch, PlainRange, Received};
use crate::packet::train::TRAIN_DATAGRAMS;
use crate::proto::allowed_ips::Routes;
use crate::proto::device::SmallDatagram;
use crate::proto::drop_reason::DropReason;
use crate::proto::endpoint::Endpoint;
use crate::proto::index::Index;
use crate::proto::keypair::Opened;
use crate::proto::peer::PeerId;
use crate::time::{Instant, TokenBucket};
use crate::wire::ip::{self, Ecn, IpHeader};
use crate::wire::message::{Message, classify};
use crate::wire::vnet::VnetHeader;

/// How often a device says that peers send what they may not.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The inbound half of a shard.
#[derive(Debug)]
pub struct Inbound {
    batch: DatagramBatch,
    ahead: Ahead,
    ranges: Vec<PlainRange>,
    /// For lines about packets that their peer may not send.
    log: TokenBucket,
}

impl Inbound {
    /// For one of so many `shards`.
    pub fn new(shards: NonZeroU32) -> Self {
        Self {
            batch: DatagramBatch::with_capacity(DATAGRAM_BATCH),
            ahead: Ahead::default(),
            ranges: Vec::with_capacity(DATAGRAM_BATCH * TRAIN_DATAGRAMS),
            log: TokenBucket::new(1, LOG_INTERVAL * shards.get()),
        }
    }

    /// Receives one batch of messages and delivers what is in them; returns how many there were.
    ///
    /// # Errors
    /// A port is gone.
    pub fn turn(
        &mut self,
        context: &Context<'_>,
        ip: &mut dyn IpPort,
        udp: &mut dyn DatagramPort,
        ready: [bool; 2],
    ) -> Result<u32, Stop> {
        self.batch.clear();
        let count = udp.recv(&mut self.batch, ready).map_err(Stop::DatagramPortGone)?;
        if count == 0 {
            return Ok(0);
        }
        self.ranges.clear();
        let forbidden = open_batch(context, &mut self.batch, &mut self.ahead, &mut self.ranges);
        self.log_forbidden(context.now.mono, forbidden);
        if !self.ranges.is_empty() {
            let (slabs, _) = self.batch.parts();
            let mut packets = PlainBatch::new(slabs, &self.ranges);
            let refused = ip.send(&mut packets).map_err(Stop::IpPortGone)?;
            context.tables.drops.count_many(DropReason::TunWriteFailed, refused as u64);
        }
        Ok(count as u32)
    }
}

impl Inbound {
    /// Says that a peer uses a source that is not its own, not often.
    /// [LNX receive.c:wg_packet_consume_data_done]
    fn log_forbidden(&mut self, now: Instant, peer: Option<PublicKey>) {
        if let Some(peer) = peer
            && self.log.take(now)
        {
            debug!(%peer, "packet with a source outside the peer's allowed IPs dropped");
        }
    }
}

/// Opens every datagram of `batch` in place, and appends to `ranges` what is to be delivered. Yields
/// a peer that sent what it may not, if one did.
fn open_batch(
    context: &Context<'_>,
    batch: &mut DatagramBatch,
    ahead: &mut Ahead,
    ranges: &mut Vec<PlainRange>,
) -> Option<PublicKey> {
    let mut forbidden = None;
    let routes = context.tables.routes();
    // Datagrams in a row are most often of one session.
    let mut run: Option<Arc<Session>> = None;
    let (slabs, messages) = batch.parts();
    for (position, (slab, message)) in slabs.iter_mut().zip(messages).enumerate() {
        if message.truncated {
            context.tables.drops.count(DropReason::DatagramTruncated);
            continue;
        }
        for Range { start, end } in message.datagrams() {
            let opened =
                ahead.next(context, &mut run, &mut slab[start..message.len], message.stride);
            match receive(context, &routes, &mut run, message, opened, &mut slab[start..end]) {
                Ok(Some(plain)) => ranges.push(PlainRange {
                    slab: position,
                    start: start + plain.start,
                    len: plain.len(),
                }),
                Ok(None) => {}
                Err(reason) => {
                    context.tables.drops.count(reason);
                    if reason == DropReason::SourceNotAllowed {
                        forbidden = run.as_ref().map(|session| session.path.public_key);
                    }
                }
            }
        }
    }
    end_run(context, run.as_deref());
    forbidden
}

/// Datagrams that were opened together before each is dealt with in its turn. None is left at the end
/// of the message that they came in.
#[derive(Debug, Default)]
struct Ahead {
    opened: [Option<Opened>; LANES],
    next: usize,
}

impl Ahead {
    /// What came of opening the first of the datagrams in `bytes`, one each `stride`, if it was opened
    /// with others. If none is left over, opens those that come next.
    ///
    /// They are of one session and have nothing else between them, so that `run` stays what it is
    /// until they are dealt with.
    fn next(
        &mut self,
        context: &Context<'_>,
        run: &mut Option<Arc<Session>>,
        bytes: &mut [u8],
        stride: usize,
    ) -> Option<Opened> {
        let taken = |ahead: &mut Self| {
            let opened = ahead.opened.get_mut(ahead.next).and_then(Option::take);
            ahead.next += 1;
            opened
        };
        let left = taken(self);
        if left.is_some() {
            return left;
        }
        let kernel = context.kernel?;
        let stride = stride.max(1);
        let datagrams = bytes.chunks(stride).take(LANES);
        let receivers = datagrams.map_while(receiver);
        let first = receivers.clone().next()?;
        let count = receivers.take_while(|&receiver| receiver == first).count();
        if count < Kernel::WORTHWHILE {
            return None;
        }
        match find(context, run, Index(first)) {
            Ok(session) => {
                let datagrams = bytes.chunks_mut(stride).take(count);
                self.opened = session.opener.open_batch(kernel, context.now.mono, datagrams);
            }
            Err(reason) => self.opened[..count].fill_with(|| Some(Err(reason))),
        }
        self.next = 0;
        taken(self)
    }
}

/// Whom a datagram names as its receiver, if it is a transport message.
fn receiver(datagram: &[u8]) -> Option<u32> {
    match classify(datagram) {
        Some(Message::Transport { receiver, .. }) => Some(receiver),
        Some(Message::Initiation(_) | Message::Response(_) | Message::CookieReply(_)) | None => {
            None
        }
    }
}

/// Deals with one datagram, which may be `opened`; yields where in it the packet to deliver is, if
/// there is one.
fn receive(
    context: &Context<'_>,
    routes: &Routes<PeerId>,
    run: &mut Option<Arc<Session>>,
    message: &Received,
    opened: Option<Opened>,
    datagram: &mut [u8],
) -> Result<Option<Range<usize>>, DropReason> {
    let handshake = match classify(datagram).ok_or(DropReason::BadMessage)? {
        Message::Initiation(bytes) => SmallDatagram::from(bytes),
        Message::Response(bytes) => SmallDatagram::from(bytes),
        Message::CookieReply(bytes) => SmallDatagram::from(bytes),
        Message::Transport { receiver, .. } => {
            let session = find(context, run, Index(receiver))?;
            let plain = authenticate(context, session, message.from, opened, datagram)?;
            if plain.is_empty() {
                return Ok(None);
            }
            session.path.facts.data_received(context.now.mono);
            let packet = &mut datagram[plain.clone()];
            let len = admit(routes, session.path.peer, message.ecn, packet)?;
            let vnet = VnetHeader::default();
            if clamp_mss::may_announce(packet, &vnet) {
                clamp_mss::lower(packet, &vnet, context.tables, &session.path.mtu);
            }
            if session.path.mtu.is_probing() && session.path.take_answer(packet, context.lane) {
                return Ok(None);
            }
            return Ok(Some(plain.start..plain.start + len));
        }
    };
    context.lane.push_handshake(Incoming { from: message.from, datagram: handshake })?;
    Ok(None)
}

/// The session that `index` names, which is `run` if that is the one of the datagram before.
fn find<'r>(
    context: &Context<'_>,
    run: &'r mut Option<Arc<Session>>,
    index: Index,
) -> Result<&'r Session, DropReason> {
    if run.as_ref().is_none_or(|session| session.index != index) {
        let session = context.tables.session(index).ok_or(DropReason::UnknownIndex)?;
        end_run(context, run.replace(session).as_deref());
    }
    run.as_deref().ok_or(DropReason::UnknownIndex)
}

/// Opens `datagram`, unless that was done, and notes what its being authentic proves.
fn authenticate(
    context: &Context<'_>,
    session: &Session,
    from: Endpoint,
    opened: Option<Opened>,
    datagram: &mut [u8],
) -> Result<Range<usize>, DropReason> {
    let now = context.now.mono;
    let (proof, plain) = opened.unwrap_or_else(|| session.opener.open(now, datagram))?;
    session.replay().accept(&proof)?;
    session.path.roam(from);
    session.path.count_received(datagram.len());
    session.confirm(context.lane);
    session.path.facts.any_authenticated_received(now);
    session.keep_fresh_on_receive(now, context.lane);
    Ok(plain)
}

/// After the last datagram of a session in a row.
fn end_run(context: &Context<'_>, session: Option<&Session>) {
    if let Some(session) = session {
        session.path.nudge(context.lane);
    }
}

/// Checks an authenticated packet of `peer`, merges the outer congestion mark into it, and returns
/// its length without padding.
fn admit(
    routes: &Routes<PeerId>,
    peer: PeerId,
    outer: Ecn,
    packet: &mut [u8],
) -> Result<usize, DropReason> {
    let header = match packet.first().map(|byte| byte >> 4) {
        Some(4 | 6) => IpHeader::parse(packet).ok_or(DropReason::InnerBadLength)?,
        Some(_) | None => return Err(DropReason::InnerNotIp),
    };
    if header.total_length > packet.len() {
        return Err(DropReason::InnerBadLength);
    }
    if routes.lookup(header.source) != Some(peer) {
        return Err(DropReason::SourceNotAllowed);
    }
    let inner = header.ecn();
    let merged = Ecn::decapsulate(inner, outer).ok_or(DropReason::EcnIllegal)?;
    if merged != inner {
        ip::set_ecn(packet, merged);
    }
    Ok(header.total_length)
}
