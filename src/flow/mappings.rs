//! UDP and ICMP echo: one unconnected socket for each address and port of the inside.
//! [RFC 4787] [RFC 5508]
//!
//! So a peer's port looks the same from everywhere (endpoint-independent mapping), and only who was
//! spoken to may answer (address-dependent filtering). What the network says of a datagram is passed
//! on with the address of who says it, and with a quotation that is the peer's own packet again.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::flow::common::{Budget, Common};
use crate::flow::inner::{Inner, ip_header_bytes, write_echo, write_ip, write_udp};
use crate::flow::limits::Sort;
use crate::flow::policy::Service;
use crate::flow::slots::{self, Slots, Token};
use crate::packet::batch::IpBatch;
use crate::packet::slab::HEADROOM;
use crate::proto::drop_reason::DropReason;
use crate::proto::peer::PeerId;
use crate::sys::SysError;
use crate::sys::poll::Interest;
use crate::sys::sockets::{DatagramSocket, Fragments, Kind, Refusal, Said};
use crate::time::Instant;
use crate::wire::checksum;
use crate::wire::icmp::{Problem, Told};
use crate::wire::ip::{PROTOCOL_ICMP, PROTOCOL_ICMPV6};
use crate::wire::transport::UDP_HEADER_BYTES;

/// How long a mapping lives after the last datagram of its peer. [RFC 4787 §4.3] [RFC 5508 §3.2]
const UDP_LIFE: Duration = Duration::from_secs(300);
const ECHO_LIFE: Duration = Duration::from_secs(60);

/// How long one that asked name servers alone lives after an answer. [RFC 4787 §4.3]
const DNS_LIFE: Duration = Duration::from_secs(30);
const DNS_PORT: u16 = 53;

/// Addresses that one mapping may have spoken to. Beyond them it is new ones that may answer.
const REMOTES: usize = 1024;

/// Datagrams that one mapping may put into a batch before the next has its turn.
const DATAGRAMS_A_TURN: usize = 8;

/// Errors that are taken from a socket at a time.
const ERRORS_A_TURN: usize = 64;

/// Bytes of a datagram that are quoted back.
const QUOTE_BYTES: usize = 1024;

const ECHO_HEADER_BYTES: usize = 8;

/// All mappings of one kind.
#[derive(Debug)]
pub(super) struct Mappings {
    kind: Kind,
    by_inner: HashMap<SocketAddr, Token>,
    slots: Slots<Mapping>,
}

#[derive(Debug)]
struct Mapping {
    /// The peer's address, and its port or its echo identifier.
    inner: SocketAddr,
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

/// What a peer sends by a mapping.
struct Datagram<'a> {
    inner: SocketAddr,
    remote: SocketAddr,
    bytes: &'a [u8],
}

impl Mappings {
    pub fn new(kind: Kind) -> Self {
        let slots = match kind {
            Kind::Udp => slots::Kind::Udp,
            Kind::Echo => slots::Kind::Echo,
        };
        Self { kind, by_inner: HashMap::new(), slots: Slots::new(slots) }
    }

    /// Sends what `packet` carries, which is of this kind.
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
        let token = match self.by_inner.get(&datagram.inner) {
            Some(&token) => token,
            None => self.open(common, now, peer, datagram.inner)?,
        };
        let life = if self.kind == Kind::Udp { UDP_LIFE } else { ECHO_LIFE };
        let Some(mapping) = self.slots.get_mut(token) else { return Ok(()) };
        mapping.note(now + life, datagram.remote);
        common.deadlines.set(token, &mut mapping.scheduled, mapping.ends_at);
        mapping.send(self.kind, common, now, packet, &datagram)
    }

    fn open(
        &mut self,
        common: &mut Common,
        now: Instant,
        peer: PeerId,
        inner: SocketAddr,
    ) -> Result<Token, DropReason> {
        let sort = if self.kind == Kind::Udp { Sort::Udp } else { Sort::Echo };
        common.limits.open(now, peer, sort).map_err(|limit| common.met(now, peer, limit))?;
        let kind = self.kind;
        let opened = self.slots.try_insert(|token| {
            let mark = common.settings.mark;
            let socket = DatagramSocket::open(kind, inner.is_ipv4(), inner.port(), mark)?;
            common.watch(&socket, token, Interest::Arrivals)?;
            Ok::<_, SysError>(Mapping {
                inner,
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
                self.by_inner.insert(inner, token);
                Ok(token)
            }
            Err(error) => {
                common.limits.close(peer, sort);
                let what = match kind {
                    Kind::Udp => "datagrams",
                    Kind::Echo => "pings (net.ipv4.ping_group_range must allow them)",
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
        for _ in 0..DATAGRAMS_A_TURN {
            if !budget.is_left() {
                return false;
            }
            let Some(slab) = batch.vacant() else { return false };
            match mapping.receive(self.kind, common, now, &mut slab[HEADROOM..]) {
                Ok(Some(0)) => {}
                Ok(Some(len)) => {
                    batch.push(len, Ok(Default::default()));
                    budget.take(len);
                }
                Ok(None) => {
                    common.deadlines.set(token, &mut mapping.scheduled, mapping.ends_at);
                    mapping.is_queued = false;
                    return true;
                }
                Err(_) => mapping.hear(self.kind, common, now),
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
        mut is_wanted: impl FnMut(IpAddr, PeerId) -> bool,
    ) {
        for token in self.slots.find(|mapping| !is_wanted(mapping.inner.ip(), mapping.peer)) {
            self.close(common, token);
        }
    }

    /// Lets nobody answer who is not spoken to again.
    pub fn forget_remotes(&mut self) {
        self.slots.for_each(|mapping| mapping.remotes.clear());
    }

    fn close(&mut self, common: &mut Common, token: Token) {
        let Some(mut mapping) = self.slots.remove(token) else { return };
        let sort = if self.kind == Kind::Udp { Sort::Udp } else { Sort::Echo };
        common.limits.close(mapping.peer, sort);
        common.deadlines.clear(token, &mut mapping.scheduled);
        self.by_inner.remove(&mapping.inner);
    }
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

    fn send(
        &mut self,
        kind: Kind,
        common: &mut Common,
        now: Instant,
        packet: &Inner<'_>,
        datagram: &Datagram<'_>,
    ) -> Result<(), DropReason> {
        let fragments = if packet.may_be_cut { Fragments::Allowed } else { Fragments::Never };
        let hops = packet.hops.saturating_sub(1);
        let remote = datagram.remote;
        let Err(first) = self.socket.send(remote, hops, fragments, datagram.bytes) else {
            return Ok(());
        };
        // What was said of an earlier datagram, perhaps; of this one, if it is too large.
        self.hear(kind, common, now);
        if first.is_too_big() {
            return Err(DropReason::FlowRefused);
        }
        let Err(error) = self.socket.send(remote, hops, fragments, datagram.bytes) else {
            return Ok(());
        };
        self.hear(kind, common, now);
        if let Some(problem) = problem_of(&error) {
            common.refuse(now, self.peer, packet.packet, problem);
        }
        Err(DropReason::FlowRefused)
    }

    /// Receives one datagram for the peer and makes a packet of it at the start of `slab`. `None`: there
    /// is none; zero: there was one, which does not go this way.
    fn receive(
        &mut self,
        kind: Kind,
        common: &mut Common,
        now: Instant,
        slab: &mut [u8],
    ) -> Result<Option<usize>, SysError> {
        let is_v4 = self.inner.is_ipv4();
        let ip_bytes = ip_header_bytes(is_v4);
        let headers = match kind {
            Kind::Udp => ip_bytes + UDP_HEADER_BYTES,
            Kind::Echo => ip_bytes,
        };
        let Some((len, from)) = self.socket.receive(&mut slab[headers..])? else {
            return Ok(None);
        };
        if !self.remotes.contains(&from.ip()) {
            common.drop(DropReason::FlowFiltered);
            return Ok(Some(0));
        }
        if self.asks_names_only {
            self.ends_at = self.ends_at.min(now + DNS_LIFE);
        }
        let id = common.next_id();
        let packet = &mut slab[..headers + len];
        let written = match kind {
            Kind::Udp => write_udp(packet, from, self.inner, id as u16),
            Kind::Echo => {
                write_echo(packet, from.ip(), self.inner.ip(), self.inner.port(), id as u16)
            }
        };
        if written.is_none() {
            common.drop(DropReason::FlowRefused);
            return Ok(Some(0));
        }
        if packet.len() > common.whole_bytes(self.peer, is_v4) {
            common.send_cut(packet);
            return Ok(Some(0));
        }
        Ok(Some(packet.len()))
    }

    /// Passes on what was said of datagrams.
    fn hear(&mut self, kind: Kind, common: &mut Common, now: Instant) {
        let mut quote = [0; QUOTE_BYTES];
        for _ in 0..ERRORS_A_TURN {
            let Some(said) = self.socket.next_said(&mut quote) else { return };
            let quoted = &quote[..said.quoted];
            let Some(packet) = self.quoted(kind, &said, quoted) else { continue };
            match said.refusal {
                Refusal::Icmp { from, kind, code, info } => {
                    let told = Told { from, kind, code, word: info };
                    if is_for_peers(self.inner.is_ipv4(), told) {
                        common.pass_on(now, self.peer, &packet, told);
                    }
                }
                Refusal::TooBig { mtu } => {
                    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                    common.refuse(now, self.peer, &packet, Problem::TooBig(mtu));
                }
                Refusal::Local { .. } => {}
            }
        }
    }

    /// The peer's packet of which something was `said`, as far as it is quoted.
    fn quoted(&self, kind: Kind, said: &Said, quoted: &[u8]) -> Option<Vec<u8>> {
        let ip_bytes = ip_header_bytes(self.inner.is_ipv4());
        let (source, to) = (self.inner.ip(), said.to.ip());
        match kind {
            Kind::Udp => {
                let headers = ip_bytes + UDP_HEADER_BYTES;
                let mut packet = vec![0; headers + quoted.len()];
                packet[headers..].copy_from_slice(quoted);
                write_udp(&mut packet, self.inner, said.to, 0)?;
                Some(packet)
            }
            Kind::Echo => {
                let (head, _) = quoted.split_first_chunk::<ECHO_HEADER_BYTES>()?;
                let mut packet = vec![0; ip_bytes + quoted.len()];
                let message = &mut packet[ip_bytes..];
                message.copy_from_slice(quoted);
                // The identifier is the peer's again. The checksum is over what is not quoted as well.
                let ours = u16::from_be_bytes([head[4], head[5]]);
                let sum = u16::from_be_bytes([head[2], head[3]]);
                let sum = checksum::update(sum, ours, self.inner.port());
                message[2..4].copy_from_slice(&sum.to_be_bytes());
                message[4..6].copy_from_slice(&self.inner.port().to_be_bytes());
                let protocol = if source.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
                write_ip(&mut packet, source, to, protocol, 0)?;
                Some(packet)
            }
        }
    }
}

/// Errors that a router passes on, of all that there are.
const fn is_for_peers(is_v4: bool, told: Told) -> bool {
    match (is_v4, told.from) {
        (true, IpAddr::V4(_)) => matches!(told.kind, 3 | 11 | 12),
        (false, IpAddr::V6(_)) => matches!(told.kind, 1..=4),
        (true, IpAddr::V6(_)) | (false, IpAddr::V4(_)) => false,
    }
}

/// What a peer is told of an error of this host's; nothing of one that passes.
pub(super) fn problem_of(error: &SysError) -> Option<Problem> {
    if error.is_network_unreachable() {
        Some(Problem::NoRoute)
    } else if error.is_host_unreachable() {
        Some(Problem::HostUnreachable)
    } else if error.is_not_permitted() {
        Some(Problem::Prohibited)
    } else {
        None
    }
}
