//! UDP and ICMP echo: one unconnected socket for each address and port of the inside.
//! [RFC 4787] [RFC 5508]
//!
//! So a peer's port looks the same from everywhere (endpoint-independent mapping), and only who was
//! spoken to may answer (address-dependent filtering). What the network says of a datagram is passed
//! on with the address of who says it, and with a quotation that is the peer's own packet again.

mod load;
mod told;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use self::load::{Datagram, Load, Way};
pub(super) use self::told::problem_of;
use crate::flow::common::{Budget, Common, Origin};
use crate::flow::exposed::Front;
use crate::flow::inner::{
    HOPS, Inner, ip_header_bytes, renamed, write_echo, write_udp, write_udp_headers,
};
use crate::flow::limits::Sort;
use crate::flow::policy::Service;
use crate::flow::slots::{self, Slots, Token};
use crate::flow::tuning::UdpFilter;
use crate::packet::batch::IpBatch;
use crate::packet::slab::HEADROOM;
use crate::packet::train::Train;
use crate::proto::drop_reason::DropReason;
use crate::proto::peer::PeerId;
use crate::sys::SysError;
use crate::sys::poll::Interest;
use crate::sys::sockets::{Arrival, DatagramSocket, Fragments, Kind};
use crate::time::Instant;
use crate::wire::icmp::Problem;
use crate::wire::transport::{UDP_CHECKSUM_AT, UDP_HEADER_BYTES};
use crate::wire::vnet::{Gso, GsoKind, PartialChecksum, VnetHeader};

/// How long an echo's mapping lives after the last of its peer. [RFC 5508 §3.2]
const ECHO_LIFE: Duration = Duration::from_secs(60);

/// How long one that asked name servers alone lives after an answer. [RFC 4787 §4.3]
const DNS_LIFE: Duration = Duration::from_secs(30);
const DNS_PORT: u16 = 53;

/// Addresses that one mapping may have spoken to. Beyond them it is new ones that may answer.
const REMOTES: usize = 1024;

/// Messages that one mapping takes from its socket before the next has its turn.
const MESSAGES_A_TURN: usize = 8;

/// Mappings whose datagrams are collected at a time.
const LOADS: usize = 8;

/// Errors that are taken from a socket at a time.
const ERRORS_A_TURN: usize = 64;

/// Bytes of a datagram that are quoted back.
const QUOTE_BYTES: usize = 1024;

/// The peer's side of a mapping, and the place of the tunnel's own that it is spoken to at, if it is one.
type Key = (SocketAddr, Option<SocketAddr>);

/// All mappings of one kind.
#[derive(Debug)]
pub(super) struct Mappings {
    kind: Kind,
    by_inner: HashMap<Key, Token>,
    slots: Slots<Mapping>,
    /// Datagrams of one mapping each, of which the first `loaded` are not sent yet.
    loads: Vec<Load>,
    loaded: usize,
}

/// What came of receiving for a peer.
#[derive(Debug)]
enum Taken {
    Nothing,
    /// A packet of so many bytes.
    Packet(usize, VnetHeader),
    /// In fragments.
    Waits,
    Dropped,
}

#[derive(Debug)]
struct Mapping {
    /// The peer's address, and its port or its echo identifier.
    inner: SocketAddr,
    /// `None` if it leads to anybody.
    front: Option<Front>,
    peer: PeerId,
    socket: DatagramSocket,
    /// Who may answer.
    remotes: HashSet<IpAddr>,
    asks_names_only: bool,
    ends_at: Instant,
    scheduled: Option<Instant>,
    /// Whether it waits for its turn.
    is_queued: bool,
}

impl Mappings {
    pub fn new(kind: Kind) -> Self {
        let slots = match kind {
            Kind::Udp => slots::Kind::Udp,
            Kind::Echo => slots::Kind::Echo,
        };
        let (by_inner, slots) = (HashMap::new(), Slots::new(slots));
        Self { kind, by_inner, slots, loads: Vec::new(), loaded: 0 }
    }

    /// Sends what `packet` carries, which is of this kind, at the latest when things are settled.
    pub fn carry(
        &mut self,
        common: &mut Common,
        now: Instant,
        peer: PeerId,
        packet: &Inner<'_>,
    ) -> Result<(), DropReason> {
        let (source, destination) = (packet.source, packet.destination);
        let (datagram, service) = match self.kind {
            Kind::Udp => {
                let (from, to, bytes) = packet.udp().ok_or(DropReason::FlowMalformed)?;
                let (inner, remote) =
                    (SocketAddr::new(source, from), SocketAddr::new(destination, to));
                (Datagram { inner, remote, bytes }, Service::Udp(to))
            }
            Kind::Echo => {
                let [.., high, low, _, _] = packet.icmp().ok_or(DropReason::FlowMalformed)?;
                let inner = SocketAddr::new(source, u16::from_be_bytes([*high, *low]));
                let remote = SocketAddr::new(destination, 0);
                (Datagram { inner, remote, bytes: packet.payload }, Service::Icmp)
            }
        };
        if !common.allows(destination, service) {
            common.refuse(now, peer, packet.packet, Problem::Prohibited);
            return Err(DropReason::FlowDenied);
        }
        let way = Way {
            hops: packet.hops.saturating_sub(1),
            fragments: if packet.may_be_cut { Fragments::Allowed } else { Fragments::Never },
        };
        self.admit(common, now, peer, packet, &(datagram.inner, None))?;
        self.pass(common, now, peer, way, &datagram, None)
    }

    /// Sends what the UDP `packet` carries to what is behind a port of the tunnel's own.
    pub fn carry_exposed(
        &mut self,
        common: &mut Common,
        now: Instant,
        peer: PeerId,
        packet: &Inner<'_>,
    ) -> Result<(), DropReason> {
        let (from, to, bytes) = packet.udp().ok_or(DropReason::FlowMalformed)?;
        let own = SocketAddr::new(packet.destination, to);
        let inner = SocketAddr::new(packet.source, from);
        let key = (inner, Some(own));
        let known = self.by_inner.get(&key).and_then(|&token| self.slots.get_mut(token)?.front);
        let Some(front) = known.or_else(|| Front::find(common, own, inner.ip())) else {
            common.refuse(now, peer, packet.packet, Problem::PortUnreachable);
            return Err(DropReason::FlowRefused);
        };
        self.admit(common, now, peer, packet, &key)?;
        let remote = front.target;
        // As if this host had sent it.
        let way = Way { hops: HOPS, fragments: Fragments::Allowed };
        self.pass(common, now, peer, way, &Datagram { inner, remote, bytes }, Some(front))
    }

    /// Refuses what would begin a flow where there is to be an end.
    fn admit(
        &self,
        common: &mut Common,
        now: Instant,
        peer: PeerId,
        packet: &Inner<'_>,
        key: &Key,
    ) -> Result<(), DropReason> {
        if !common.settings.is_draining || self.by_inner.contains_key(key) {
            return Ok(());
        }
        if self.kind == Kind::Udp {
            common.refuse(now, peer, packet.packet, Problem::PortUnreachable);
        }
        Err(DropReason::FlowRefused)
    }

    fn pass(
        &mut self,
        common: &mut Common,
        now: Instant,
        peer: PeerId,
        way: Way,
        datagram: &Datagram<'_>,
        front: Option<Front>,
    ) -> Result<(), DropReason> {
        let token = match self.by_inner.get(&key(datagram.inner, front)) {
            Some(&token) => token,
            None => self.open(common, now, peer, datagram.inner, front)?,
        };
        let life = match self.kind {
            Kind::Udp => common.settings.tuning.udp_timeout,
            Kind::Echo => ECHO_LIFE,
        };
        let Some(mapping) = self.slots.get_mut(token) else { return Ok(()) };
        mapping.note(now + life, datagram.remote);
        common.deadlines.set(token, &mut mapping.scheduled, mapping.ends_at);
        self.load(common, now, token, way, datagram);
        Ok(())
    }

    /// Has `datagram` go with those that the mapping of `token` sends the same way, behind all that it
    /// has sent before.
    fn load(
        &mut self,
        common: &mut Common,
        now: Instant,
        token: Token,
        way: Way,
        datagram: &Datagram<'_>,
    ) {
        let place = self.loads[..self.loaded].iter().position(|load| load.token == token);
        let place = place.unwrap_or_else(|| {
            if self.loaded == LOADS {
                self.settle(common, now);
            }
            if self.loaded == self.loads.len() {
                self.loads.push(Load::new(token, way));
            }
            self.loaded += 1;
            self.loads[self.loaded - 1].start(token, way);
            self.loaded - 1
        });
        let load = &mut self.loads[place];
        if load.way == way && load.append(datagram) {
            return;
        }
        self.unload(common, now, place);
        self.loads[place].start(token, way);
        if !self.loads[place].append(datagram)
            && let Some(mapping) = self.slots.get_mut(token)
        {
            // Nothing at all, or more than a train may have.
            mapping.send(self.kind, common, now, way, datagram.remote, datagram.bytes);
        }
    }

    fn unload(&mut self, common: &mut Common, now: Instant, place: usize) {
        let load = &self.loads[place];
        if let Some(mapping) = self.slots.get_mut(load.token) {
            mapping.send_trains(self.kind, common, now, load.way, load.trains());
        }
    }

    /// Sends what has been collected.
    pub fn settle(&mut self, common: &mut Common, now: Instant) {
        (0..self.loaded).for_each(|place| self.unload(common, now, place));
        self.loaded = 0;
    }

    fn open(
        &mut self,
        common: &mut Common,
        now: Instant,
        peer: PeerId,
        inner: SocketAddr,
        front: Option<Front>,
    ) -> Result<Token, DropReason> {
        let sort = if self.kind == Kind::Udp { Sort::Udp } else { Sort::Echo };
        common.limits.open(now, peer, sort).map_err(|limit| common.met(now, peer, limit))?;
        let kind = self.kind;
        let local = match front {
            Some(Front { target, source, .. }) => {
                SocketAddr::new(source.unwrap_or(any_of(target.is_ipv4())), 0)
            }
            None => SocketAddr::new(any_of(inner.is_ipv4()), inner.port()),
        };
        let opened = self.slots.try_insert(|token| {
            let mark = common.settings.mark;
            let socket = DatagramSocket::open(kind, local, mark)?;
            common.watch(&socket, token, Interest::Arrivals)?;
            Ok::<_, SysError>(Mapping {
                inner,
                front,
                peer,
                socket,
                remotes: HashSet::new(),
                asks_names_only: true,
                ends_at: now,
                scheduled: None,
                is_queued: false,
            })
        });
        match opened {
            Ok(token) => {
                self.by_inner.insert(key(inner, front), token);
                Ok(token)
            }
            Err(error) => {
                common.limits.close(peer, sort);
                let what = match kind {
                    Kind::Udp => "datagrams",
                    Kind::Echo => {
                        "pings (net.ipv4.ping_group_range must allow them, or CAP_NET_RAW)"
                    }
                };
                common.cannot_open(now, what, &error);
                Err(DropReason::FlowRefused)
            }
        }
    }

    /// Something has happened on the socket of `token`.
    pub fn stir(&mut self, common: &mut Common, token: Token) {
        if let Some(mapping) = self.slots.get_mut(token)
            && !std::mem::replace(&mut mapping.is_queued, true)
        {
            common.ready.push_back(token);
        }
    }

    /// Puts datagrams for the peer into `batch`; false if there may be more of them.
    pub fn fill(
        &mut self,
        common: &mut Common,
        now: Instant,
        token: Token,
        batch: &mut IpBatch,
        budget: &mut Budget,
    ) -> bool {
        let Some(mapping) = self.slots.get_mut(token) else { return true };
        for message in 0.. {
            let is_others_turn = message >= MESSAGES_A_TURN && !common.ready.is_empty();
            if is_others_turn || !budget.is_left() {
                break;
            }
            let Some(slab) = batch.vacant() else { break };
            match mapping.receive(self.kind, common, now, &mut slab[HEADROOM..]) {
                // Whatever is not for the peer takes time as well.
                Ok(Taken::Dropped) => budget.take(0),
                Ok(Taken::Packet(len, vnet)) => {
                    batch.push(len, Ok(vnet));
                    budget.take(len);
                }
                // What comes next is to come behind it.
                Ok(Taken::Waits) => break,
                Ok(Taken::Nothing) => {
                    common.deadlines.set(token, &mut mapping.scheduled, mapping.ends_at);
                    mapping.is_queued = false;
                    return true;
                }
                Err(_) => {
                    budget.take(0);
                    mapping.hear(self.kind, common, now);
                }
            }
        }
        false
    }

    /// The deadline of `token` has come.
    pub fn expire(&mut self, common: &mut Common, now: Instant, token: Token) {
        let Some(mapping) = self.slots.get_mut(token) else { return };
        mapping.scheduled = None;
        if mapping.ends_at <= now {
            self.close(common, token);
        } else {
            common.deadlines.set(token, &mut mapping.scheduled, mapping.ends_at);
        }
    }

    /// Closes what is not wanted any more.
    pub fn retain(
        &mut self,
        common: &mut Common,
        mut is_wanted: impl FnMut(Origin, IpAddr, PeerId) -> bool,
    ) {
        let unwanted = self.slots.find(|mapping| {
            let address = mapping.inner.ip();
            let (origin, has_front) = match mapping.front {
                Some(front) => (Origin::Exposed, front.holds(common, address)),
                None => (Origin::Carried, true),
            };
            !has_front || !is_wanted(origin, address, mapping.peer)
        });
        for token in unwanted {
            self.close(common, token);
        }
    }

    /// Lets nobody answer who is not spoken to again, but what is exposed.
    pub fn forget_remotes(&mut self) {
        self.slots.for_each(|mapping| {
            if mapping.front.is_none() {
                mapping.remotes.clear();
            }
        });
    }

    fn close(&mut self, common: &mut Common, token: Token) {
        let Some(mut mapping) = self.slots.remove(token) else { return };
        let sort = if self.kind == Kind::Udp { Sort::Udp } else { Sort::Echo };
        common.limits.close(mapping.peer, sort);
        common.deadlines.clear(token, &mut mapping.scheduled);
        self.by_inner.remove(&key(mapping.inner, mapping.front));
    }
}

fn key(inner: SocketAddr, front: Option<Front>) -> Key {
    (inner, front.map(|front| front.own))
}

impl Mapping {
    /// The peer speaks to `remote`.
    fn note(&mut self, ends_at: Instant, remote: SocketAddr) {
        self.ends_at = ends_at;
        self.asks_names_only &= remote.port() == DNS_PORT;
        if !self.remotes.contains(&remote.ip()) {
            if self.remotes.len() >= REMOTES {
                self.remotes.clear();
            }
            self.remotes.insert(remote.ip());
        }
    }

    /// Sends the datagrams of `trains`, with one call if the kernel takes them so.
    fn send_trains(
        &mut self,
        kind: Kind,
        common: &mut Common,
        now: Instant,
        way: Way,
        trains: &[Train],
    ) {
        let mut rest = trains;
        let mut has_heard = false;
        while let [first, others @ ..] = rest {
            match self.socket.send_trains(way.hops, way.fragments, rest) {
                Ok(sent) => (rest, has_heard) = (&rest[sent..], false),
                Err(error) if error.is_would_block() => {
                    let lost = rest.iter().map(Train::count).sum::<usize>() as u64;
                    return common.tables.drops.count_many(DropReason::FlowRefused, lost);
                }
                // It may be what was said of earlier datagrams.
                Err(error)
                    if first.count() > 1 && !has_heard && !error.is_segmentation_refused() =>
                {
                    self.hear(kind, common, now);
                    has_heard = true;
                }
                Err(_) => {
                    let remote = first.to().remote;
                    for position in 0..first.count() {
                        self.send(kind, common, now, way, remote, first.datagram(position));
                    }
                    (rest, has_heard) = (others, false);
                }
            }
        }
    }

    /// Sends one datagram, and tells the peer why if that cannot be.
    fn send(
        &mut self,
        kind: Kind,
        common: &mut Common,
        now: Instant,
        way: Way,
        remote: SocketAddr,
        datagram: &[u8],
    ) {
        let Way { hops, fragments } = way;
        let mut problem = None;
        let renamed = self.socket.identifier().and_then(|own| renamed(datagram, own));
        let sent = renamed.as_deref().unwrap_or(datagram);
        for _ in 0..2 {
            let Err(error) = self.socket.send(remote, hops, fragments, sent) else { return };
            // What was said of an earlier datagram, perhaps; of this one, if it is too large.
            let fits = self.hear(kind, common, now);
            problem = match fits.filter(|_| error.is_too_big()) {
                Some(mtu) => Some(Problem::TooBig(mtu)),
                None => problem_of(&error),
            };
        }
        common.drop(DropReason::FlowRefused);
        if let Some(problem) = problem
            && let Some(packet) = self.packet_to(kind, remote, datagram)
        {
            common.refuse(now, self.peer, &packet, problem);
        }
    }

    /// Receives for the peer and makes a packet of it at the start of `slab`, or a super-packet of what
    /// the kernel has joined.
    fn receive(
        &mut self,
        kind: Kind,
        common: &mut Common,
        now: Instant,
        slab: &mut [u8],
    ) -> Result<Taken, SysError> {
        let is_v4 = self.inner.is_ipv4();
        let ip_bytes = ip_header_bytes(is_v4);
        let headers = match kind {
            Kind::Udp => ip_bytes + UDP_HEADER_BYTES,
            Kind::Echo => ip_bytes,
        };
        let Some(arrival) = self.socket.receive(&mut slab[headers..])? else {
            return Ok(Taken::Nothing);
        };
        let Arrival { from, len, stride, is_cut } = arrival;
        let count = len.div_ceil(stride.max(1)).max(1);
        if is_cut || !self.is_expected(kind, common, from) {
            let reason = if is_cut { DropReason::FlowRefused } else { DropReason::FlowFiltered };
            common.tables.drops.count_many(reason, count as u64);
            return Ok(Taken::Dropped);
        }
        let from = self.front.map_or(from, |front| front.own);
        if self.asks_names_only {
            self.ends_at = self.ends_at.min(now + DNS_LIFE);
        }
        // Lossless: a packet has less than 65,536 datagrams, and of its id the lower half is as good.
        let id = common.next_ids(count as u32) as u16;
        let packet = &mut slab[..headers + len];
        let whole_bytes = common.whole_bytes(self.peer, is_v4);
        if count > 1 && headers + stride > whole_bytes {
            self.send_cut(common, from, &packet[headers..], stride);
            return Ok(Taken::Waits);
        }
        let written = match kind {
            Kind::Udp if count > 1 => self.write_joined(from, packet, stride, id),
            Kind::Udp => write_udp(packet, from, self.inner, id).map(|()| VnetHeader::default()),
            Kind::Echo => write_echo(packet, from.ip(), self.inner.ip(), self.inner.port(), id)
                .map(|()| VnetHeader::default()),
        };
        let Some(vnet) = written else {
            common.tables.drops.count_many(DropReason::FlowRefused, count as u64);
            return Ok(Taken::Dropped);
        };
        if count == 1 && packet.len() > whole_bytes {
            common.send_cut(packet);
            return Ok(Taken::Waits);
        }
        Ok(Taken::Packet(packet.len(), vnet))
    }

    /// Whether what `from` sends is for the peer. [RFC 4787 §5]
    fn is_expected(&self, kind: Kind, common: &Common, from: SocketAddr) -> bool {
        if let Some(front) = self.front {
            return front.target == from;
        }
        let filter = common.settings.tuning.udp_filter;
        let is_open = kind == Kind::Udp && filter == UdpFilter::Endpoint;
        self.remotes.contains(&from.ip())
            || is_open && common.allows(from.ip(), Service::Udp(from.port()))
    }

    /// Makes a super-packet of the datagrams that are in place in `packet`.
    fn write_joined(
        &self,
        from: SocketAddr,
        packet: &mut [u8],
        stride: usize,
        id: u16,
    ) -> Option<VnetHeader> {
        write_udp_headers(packet, from, self.inner, id)?;
        let ip_bytes = ip_header_bytes(from.is_ipv4());
        Some(VnetHeader {
            // Lossless: the sizes of headers.
            checksum: Some(PartialChecksum {
                start: ip_bytes as u16,
                offset: UDP_CHECKSUM_AT as u16,
            }),
            gso: Some(Gso { kind: GsoKind::UdpL4, size: u16::try_from(stride).ok()?, ecn: false }),
            header_length: (ip_bytes + UDP_HEADER_BYTES) as u16,
        })
    }

    /// Has joined `datagrams`, each of which is too long for a packet, sent in fragments.
    fn send_cut(&self, common: &mut Common, from: SocketAddr, datagrams: &[u8], stride: usize) {
        let headers = ip_header_bytes(from.is_ipv4()) + UDP_HEADER_BYTES;
        for datagram in datagrams.chunks(stride) {
            let mut packet = vec![0; headers + datagram.len()];
            packet[headers..].copy_from_slice(datagram);
            // Lossless: the lower half is as good.
            let id = common.next_ids(1) as u16;
            match write_udp(&mut packet, from, self.inner, id) {
                Some(()) => common.send_cut(&packet),
                None => common.drop(DropReason::FlowRefused),
            }
        }
    }
}

const fn any_of(is_v4: bool) -> IpAddr {
    if is_v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }
}
