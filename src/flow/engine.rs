//! One flow engine: which flow a packet belongs to, and whose turn it is to speak.
//!
//! Runs on the thread of its shard and knows no other. Must not touch routes or the configuration: what
//! it may do it is told by its [`Switch`].

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::dataplane::tables::Tables;
use crate::flow::common::{Budget, Common, Origin, Parcel};
use crate::flow::exposed;
use crate::flow::gate::Unreached;
use crate::flow::inner::{Inner, take_hop};
use crate::flow::limits::Limits;
use crate::flow::mappings::Mappings;
use crate::flow::policy::Service;
use crate::flow::reassembly::{PATIENCE, Reassembly};
use crate::flow::slots::{Kind, Token};
use crate::flow::streams::{Said, Streams};
use crate::flow::switch::Switch;
use crate::packet::batch::IpBatch;
use crate::proto::allowed_ips::Routes;
use crate::proto::drop_reason::DropReason;
use crate::proto::peer::PeerId;
use crate::sys::SysError;
use crate::sys::alarm::Alarm;
use crate::sys::poll::{Interest, Ready};
use crate::sys::sockets::{self, raise_descriptor_limit};
use crate::time::Instant;
use crate::wire::icmp::Problem;
use crate::wire::ip::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP};

const INSIDE: Token = Token::of_port(0);
const BELL: Token = Token::of_port(1);
const ALARM: Token = Token::of_port(2);
/// Packets whose parts have not come.
const PARTS: Token = Token::of_port(3);

/// How often the sockets are asked before the shard goes on.
const LOOKS: usize = 16;

/// What becomes of a packet of a peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Kernel,
    /// Somebody in the tunnel gets its first so many bytes, which have made a hop.
    Tunnel(usize),
    /// It is carried on, or refused.
    Taken,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) common: Common,
    pub(super) udp: Mappings,
    echo: Mappings,
    pub(super) streams: Streams,
    reassembly: Reassembly,
    parts_scheduled: Option<Instant>,
    pub(super) switch: Arc<Switch>,
    is_on: bool,
    /// Nothing is carried on any more, and what would have been does not get to the kernel instead.
    has_ended: bool,
    /// The tunnel's own addresses are a kernel's.
    has_kernel: bool,
    /// By which the flows were looked through.
    routes: Arc<Routes<PeerId>>,
    alarm: Alarm,
}

impl Engine {
    /// For a tunnel whose own addresses are a kernel's, or nobody's but ours.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(
        tables: Arc<Tables>,
        switch: Arc<Switch>,
        has_kernel: bool,
    ) -> Result<Self, SysError> {
        let settings = switch.settings();
        let is_on = settings.is_some();
        let limits = Limits::new(raise_descriptor_limit());
        let routes = Arc::clone(&tables.routes());
        let mut common = Common::new(settings.unwrap_or_default(), tables, limits)?;
        common.limits.share_among(common.tables.count_peers());
        let streams = Streams::new(&common, Arc::clone(&switch));
        let alarm = Alarm::new()?;
        common.poller.add(switch.bell().as_fd(), BELL.number(), Interest::Readable)?;
        common.poller.add(alarm.as_fd(), ALARM.number(), Interest::Readable)?;
        Ok(Self {
            common,
            udp: Mappings::new(sockets::Kind::Udp),
            echo: Mappings::new(sockets::Kind::Echo),
            streams,
            reassembly: Reassembly::default(),
            parts_scheduled: None,
            switch,
            is_on,
            has_ended: false,
            has_kernel,
            routes,
            alarm,
        })
    }

    /// Has the descriptor of the port behind this one watched as well.
    pub fn watch_inside(&self, fd: BorrowedFd<'_>) -> Result<(), SysError> {
        self.common.poller.add(fd, INSIDE.number(), Interest::Readable)
    }

    /// Takes a packet of a peer's.
    pub fn take(&mut self, now: Instant, packet: &mut [u8]) -> Fate {
        if !self.is_on && !self.has_ended {
            return Fate::Kernel;
        }
        let carries = self.common.settings.carries;
        let inner = Inner::parse(packet);
        if self.has_kernel && self.common.settings.is_for_kernel(packet, inner.as_ref()) {
            return Fate::Kernel;
        }
        if self.has_ended {
            self.common.drop(DropReason::FlowRefused);
            return Fate::Taken;
        }
        let Some(inner) = inner else {
            self.common.drop(DropReason::FlowMalformed);
            return Fate::Taken;
        };
        let is_ours = self.common.settings.is_ours(inner.destination);
        // Its source has been checked: a peer that has just been removed is nobody's.
        let Some(peer) = self.routes.lookup(inner.source) else {
            self.common.drop(DropReason::PeerRemoved);
            return Fate::Taken;
        };
        let outcome = if is_ours {
            match (self.common.settings.owns(inner.destination), self.has_kernel) {
                // The kernel gets the others.
                (true, true) if inner.fragment.is_some() => Err(DropReason::FlowFragment),
                (true, _) => self.join_and_take(now, peer, &inner),
                (false, true) => Err(DropReason::FlowDenied),
                // Groups have no members here.
                (false, false) => Ok(()),
            }
        } else if !carries {
            self.deny(now, peer, &inner)
        } else if inner.hops <= 1 {
            self.common.refuse(now, peer, inner.packet, Problem::HopsExhausted);
            Err(DropReason::FlowHops)
        } else if self.routes.lookup(inner.destination).is_some() {
            let len = inner.packet.len();
            take_hop(&mut packet[..len]);
            return Fate::Tunnel(len);
        } else {
            self.carry(now, peer, &inner)
        };
        if let Err(reason) = outcome {
            self.common.drop(reason);
        }
        Fate::Taken
    }

    /// Has what was taken for somebody in the tunnel go there.
    pub fn forward(&mut self, parcel: Parcel) {
        self.common.forward(parcel);
    }

    fn carry(&mut self, now: Instant, peer: PeerId, inner: &Inner<'_>) -> Result<(), DropReason> {
        // Never on a wire: the kernel would take it for another address than the one that routes and
        // peers know. [RFC 4291 §2.5.5.2]
        let is_disguised = inner.destination != inner.destination.to_canonical();
        if is_disguised || !self.common.settings.takes(inner.source) {
            return self.deny(now, peer, inner);
        }
        self.join_and_take(now, peer, inner)
    }

    fn deny(&mut self, now: Instant, peer: PeerId, inner: &Inner<'_>) -> Result<(), DropReason> {
        self.common.refuse(now, peer, inner.packet, Problem::Prohibited);
        Err(DropReason::FlowDenied)
    }

    /// Takes what is whole, or has become so.
    fn join_and_take(
        &mut self,
        now: Instant,
        peer: PeerId,
        inner: &Inner<'_>,
    ) -> Result<(), DropReason> {
        let Some(fragment) = inner.fragment else { return self.take_whole(now, peer, inner) };
        let outcome = self.reassembly.take(now, peer, inner, fragment);
        if !self.reassembly.is_empty() && self.parts_scheduled.is_none() {
            self.common.deadlines.set(PARTS, &mut self.parts_scheduled, now + PATIENCE);
        }
        let Some(whole) = outcome? else { return Ok(()) };
        let inner = Inner::parse(&whole.packet).ok_or(DropReason::FlowMalformed)?;
        // What came in parts may go on in parts.
        let inner = Inner { hops: whole.hops, may_be_cut: true, ..inner };
        self.take_whole(now, peer, &inner)
    }

    fn take_whole(
        &mut self,
        now: Instant,
        peer: PeerId,
        inner: &Inner<'_>,
    ) -> Result<(), DropReason> {
        let common = &mut self.common;
        match (inner.protocol, inner.source) {
            (PROTOCOL_TCP, _) => self.streams.carry(common, now, peer, inner),
            (PROTOCOL_UDP, _) if common.settings.owns(inner.destination) => {
                self.take_own_datagram(now, peer, inner)
            }
            (PROTOCOL_UDP, _) => self.udp.carry(common, now, peer, inner),
            (PROTOCOL_ICMP, IpAddr::V4(_)) | (PROTOCOL_ICMPV6, IpAddr::V6(_)) => {
                self.take_icmp(now, peer, inner)
            }
            _ => {
                common.refuse(now, peer, inner.packet, Problem::ProtocolUnknown);
                Err(DropReason::FlowUnsupported)
            }
        }
    }

    /// Echo requests are answered or carried on, and what is said of our segments is believed as far as
    /// it goes.
    pub(super) fn take_icmp(
        &mut self,
        now: Instant,
        peer: PeerId,
        inner: &Inner<'_>,
    ) -> Result<(), DropReason> {
        let [kind, code, _, _, word @ ..] = inner.icmp().ok_or(DropReason::FlowMalformed)?;
        let quoted = &inner.payload[8..];
        match (inner.source.is_ipv4(), *kind, *code) {
            (true, 8, 0) | (false, 128, 0) if self.common.settings.owns(inner.destination) => {
                return self.answer_ping(peer, inner);
            }
            (true, 8, 0) | (false, 128, 0) => {
                return self.echo.carry(&mut self.common, now, peer, inner);
            }
            _ => {}
        }
        let said = said(inner.source.is_ipv4(), *kind, *code, u32::from_be_bytes(*word));
        let said = said.ok_or(DropReason::FlowUnsupported)?;
        self.streams.hear(&mut self.common, peer, quoted, said);
        Ok(())
    }

    /// Acts upon what has been taken.
    pub fn settle(&mut self, now: Instant) {
        self.udp.settle(&mut self.common, now);
        self.echo.settle(&mut self.common, now);
        self.streams.settle(&mut self.common);
    }

    /// Finds out what has happened, and does what is due; true if the port behind has something.
    pub fn look(&mut self, now: Instant) -> Result<bool, SysError> {
        let (mut has_inside, mut is_rung) = (false, false);
        for _ in 0..LOOKS {
            let events: Vec<Ready> =
                self.common.poller.wait(Some(std::time::Duration::ZERO))?.collect();
            let is_last = events.len() < 16;
            for event in events {
                match Token::from_number(event.token) {
                    INSIDE => has_inside = true,
                    // What is said from now on rings again.
                    BELL => is_rung |= self.switch.bell().drain(),
                    ALARM => self.alarm.drain(),
                    token => self.stir(now, token, event),
                }
            }
            if is_last || has_inside {
                break;
            }
        }
        if is_rung {
            self.follow();
            self.take_handed(now);
            self.take_requests(now);
        }
        while let Some(token) = self.common.deadlines.next_due(now) {
            self.expire(now, token);
        }
        Ok(has_inside)
    }

    /// Takes packets that other shards have received, and that are for flows.
    fn take_handed(&mut self, now: Instant) {
        for mut packet in self.switch.take_handed() {
            match self.take(now, &mut packet) {
                Fate::Taken => {}
                Fate::Tunnel(len) => {
                    packet.truncate(len);
                    self.forward(Parcel { bytes: packet, count: 1, ..Parcel::default() });
                }
                // The settings are others by now: it is nobody's.
                Fate::Kernel => self.common.drop(DropReason::FlowRefused),
            }
        }
        self.settle(now);
    }

    fn stir(&mut self, now: Instant, token: Token, event: Ready) {
        let common = &mut self.common;
        match token.kind() {
            Kind::Udp => self.udp.stir(common, token),
            Kind::Echo => self.echo.stir(common, token),
            Kind::Tcp => self.streams.stir(common, now, token, event),
            Kind::Port => {}
        }
    }

    fn expire(&mut self, now: Instant, token: Token) {
        let common = &mut self.common;
        match token.kind() {
            Kind::Udp => self.udp.expire(common, now, token),
            Kind::Echo => self.echo.expire(common, now, token),
            Kind::Tcp => self.streams.expire(common, now, token),
            Kind::Port => {
                self.parts_scheduled = None;
                let given_up = self.reassembly.expire(now);
                common.tables.drops.count_many(DropReason::FlowFragment, given_up);
                if !self.reassembly.is_empty() {
                    // Those that are there have come within the time of one.
                    common.deadlines.set(PARTS, &mut self.parts_scheduled, now + PATIENCE / 4);
                }
            }
        }
    }

    /// Takes up new settings and routes: flows that they do not allow end.
    pub fn follow(&mut self) {
        let settings = self.switch.settings();
        let routes = Arc::clone(&self.common.tables.routes());
        let is_on = settings.is_some() && !self.has_ended;
        let settings = settings.unwrap_or_else(|| Arc::clone(&self.common.settings));
        let is_new = is_on != self.is_on || !Arc::ptr_eq(&settings, &self.common.settings);
        if !is_new && Arc::ptr_eq(&routes, &self.routes) {
            return;
        }
        let former = Arc::clone(&self.common.settings);
        let keeps_mark = settings.mark == former.mark;
        let judges_anew = (&settings.policy, &settings.host) != (&former.policy, &former.host);
        self.is_on = is_on;
        if is_new {
            self.common.set(Arc::clone(&settings));
        }
        self.routes = Arc::clone(&routes);
        let is_wanted = |origin: Origin, address: IpAddr, peer: PeerId| {
            let is_carried = origin == Origin::Carried;
            let is_allowed = !is_carried || (settings.carries && settings.takes(address));
            is_on && keeps_mark && is_allowed && routes.lookup(address) == Some(peer)
        };
        let common = &mut self.common;
        if judges_anew {
            // Who may answer is found out anew, by who may be spoken to.
            self.udp.forget_remotes();
            self.echo.forget_remotes();
        }
        self.udp.retain(common, is_wanted);
        self.echo.retain(common, is_wanted);
        self.streams.retain(common, |common, origin, (inner, place), judged, peer| {
            let has_place = match origin {
                Origin::Carried => true,
                Origin::Exposed => {
                    let service = Service::Tcp(place.port());
                    settings.owns(place.ip())
                        && exposed::find(&settings.exposed, service, inner.ip()).is_some()
                }
                Origin::Own => settings.owns(place.ip()),
            };
            let is_allowed =
                judged.is_none_or(|it| common.allows(it.ip(), Service::Tcp(it.port())));
            has_place && is_allowed && is_wanted(origin, inner.ip(), peer)
        });
        self.reassembly.retain(|address, peer| is_wanted(Origin::Own, address, peer));
        let tables = Arc::clone(&common.tables);
        common.limits.retain(|peer| tables.peer(peer).is_some());
        common.limits.share_among(tables.count_peers());
    }

    /// Carries on nothing any more, and tells both sides of what is connected.
    pub fn end(&mut self, now: Instant) {
        // The settings stay: by them the other shards, which end later, keep from the kernel what is
        // not for it.
        self.has_ended = true;
        self.follow();
        // Streams that were brought meanwhile find their connections ended.
        self.take_requests(now);
    }

    /// Puts packets for peers into `batch`, each flow in its turn.
    pub fn fill(&mut self, now: Instant, batch: &mut IpBatch) {
        let mut budget = Budget::new();
        // However much waits, flows have their turn.
        let aside = (!self.common.ready.is_empty()).then(|| budget.set_half_aside());
        self.common.fill(batch, &mut budget);
        budget.put_back(aside);
        for _ in 0..self.common.ready.len() {
            if !budget.is_left() {
                break;
            }
            let Some(token) = self.common.ready.pop_front() else { break };
            let common = &mut self.common;
            let is_done = match token.kind() {
                Kind::Udp => self.udp.fill(common, now, token, batch, &mut budget),
                Kind::Echo => self.echo.fill(common, now, token, batch, &mut budget),
                Kind::Tcp => self.streams.fill(common, now, token, batch, &mut budget),
                Kind::Port => true,
            };
            if !is_done {
                self.common.ready.push_back(token);
            }
        }
    }

    /// Whether there is something for peers.
    pub fn has_more(&self) -> bool {
        self.common.has_more()
    }

    /// Makes sure that the shard comes again when something is due.
    pub fn rest(&mut self) -> Result<(), SysError> {
        self.switch.count_flows(&self.common.limits);
        self.alarm.set(self.common.deadlines.first())
    }
}

/// What an ICMP error says of a segment of ours, if anything that matters to it.
/// [RFC 792] [RFC 4443 §3]
const fn said(is_v4: bool, kind: u8, code: u8, word: u32) -> Option<Said> {
    let why = match (is_v4, kind, code) {
        (true, 3, 4) => return Some(Said::TooBig(word & 0xffff)),
        (false, 2, _) => return Some(Said::TooBig(word)),
        (true, 3, 0 | 5 | 6 | 11) | (false, 1, 0) => Unreached::NetworkUnreachable,
        (true, 3, 2 | 3) | (false, 1, 4) => Unreached::Refused,
        (true, 3, 9 | 10 | 13) | (false, 1, 1 | 5 | 6) => Unreached::Prohibited,
        (true, 3, _) | (false, 1, _) => Unreached::HostUnreachable,
        (true, 11, 0) | (false, 3, 0) => Unreached::HopsExhausted,
        _ => return None,
    };
    Some(Said::Unreached(why))
}

impl AsFd for Engine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.common.poller.as_fd()
    }
}
