//! A network that exists in memory: devices, links and a clock that jumps from event to event.
//!
//! Hours of protocol time pass in milliseconds, and equal seeds give equal runs. A [`Node`] is the
//! protocol core and a real shard on ports made of queues, with a few lines between them in the
//! place of the engine; a [`Sim`] carries datagrams between nodes, badly if the [`Link`] says so,
//! and writes down what was sent when.
//!
//! ```text
//!   Node a ──▶ (NAT) ──▶ link: latency, loss, reordering, duplication ──▶ (NAT) ──▶ Node b
//! ```
//!
//! Node `n` has the inner address 10.0.0.n+1 and the outer address 192.0.2.n+1.

mod configure;
mod cookies;
mod handshake;
mod health;
mod host;
mod places;
mod timers;
mod weather;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hybridwg::crypto::entropy::{Entropy, SeededEntropy};
use hybridwg::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use hybridwg::dataplane::inbox::Inboxes;
use hybridwg::dataplane::lane::{Lane, Signal};
use hybridwg::dataplane::memory_port::{MemoryDatagramPort, MemoryIpPort};
use hybridwg::dataplane::port::Ready;
use hybridwg::dataplane::shard::{Shard, Turn};
use hybridwg::dataplane::tables::{Notice, Tables};
use hybridwg::proto::device::{
    AllowedIpChange, Change, Device, Event, Load, Output, Outputs, PeerUpdate,
};
use hybridwg::proto::drop_reason::DropReason;
use hybridwg::proto::endpoint::Endpoint;
use hybridwg::proto::index::Index;
use hybridwg::proto::peer::PeerId;
use hybridwg::time::{Instant, Now, Wall};
use hybridwg::wire::checksum::checksum;
use hybridwg::wire::ip::Ecn;
use hybridwg::wire::message::{Message, classify};

/// Where the wall clock stands when the simulation begins.
const EPOCH: u64 = 1_800_000_000;

const MILLISECOND: Duration = Duration::from_millis(1);

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What an eavesdropper can tell a datagram to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Initiation,
    Response,
    CookieReply,
    Keepalive,
    Data,
}

impl Kind {
    fn of(datagram: &[u8]) -> Self {
        match classify(datagram).expect("a node sends nothing but messages") {
            Message::Initiation(_) => Self::Initiation,
            Message::Response(_) => Self::Response,
            Message::CookieReply(_) => Self::CookieReply,
            Message::Transport { .. } if datagram.len() == 32 => Self::Keepalive,
            Message::Transport { .. } => Self::Data,
        }
    }
}

/// One datagram as it left a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub at: Instant,
    pub by: usize,
    pub kind: Kind,
    pub datagram: Vec<u8>,
}

/// How badly datagrams travel.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub latency: Duration,
    /// Added to the latency at random: what comes of it is reordering.
    pub jitter: Duration,
    /// Of a thousand datagrams, how many are lost, and how many arrive twice.
    pub loss: u32,
    pub duplication: u32,
}

impl Link {
    pub const GOOD: Self = Self { latency: ms(10), jitter: ms(0), loss: 0, duplication: 0 };
}

pub struct Node {
    pub device: Device,
    pub tables: Arc<Tables>,
    pub address: SocketAddr,
    pub load: Load,
    /// What the wall clock is off by, in seconds.
    pub wall_offset: i64,
    pub events: Vec<(Instant, Event)>,
    /// What came in for the user, in order.
    pub delivered: Vec<(Instant, Vec<u8>)>,
    /// How many packets of the user were answered by "unreachable".
    pub unreachable: u32,
    /// If set, the node is behind a NAT that forgets it after so long without outbound traffic.
    pub nat: Option<Duration>,
    pub routes_changed: u32,
    /// How often a peer's remembered source address was forgotten.
    pub sources_cleared: u32,
    /// The places that were to be looked up, by peer and position.
    pub lookups: Vec<(PeerId, usize)>,
    nat_used: Instant,
    inner: Ipv4Addr,
    sessions: BTreeSet<Index>,
    out: Outputs,
    shard: Shard,
    lane: Arc<Lane>,
    inboxes: Inboxes,
    ip: MemoryIpPort,
    udp: MemoryDatagramPort,
}

impl Node {
    fn new(seed: u64, n: usize) -> Self {
        let (tables, lane, inboxes) =
            (Arc::<Tables>::default(), Arc::<Lane>::default(), Inboxes::new(1));
        let (ip, udp) = (MemoryIpPort::default(), MemoryDatagramPort::default());
        let shard = Shard::new(
            Box::new(ip.clone()),
            Box::new(udp.clone()),
            Arc::clone(&tables),
            Arc::clone(&lane),
            inboxes.iter().next().map(Arc::clone).expect("one at least"),
        );
        Self {
            device: Device::new(Box::new(SeededEntropy::new(seed))),
            tables,
            address: SocketAddr::from(([192, 0, 2, 1 + n as u8], 51820)),
            load: Load::Normal,
            wall_offset: 0,
            events: Vec::new(),
            delivered: Vec::new(),
            unreachable: 0,
            nat: None,
            routes_changed: 0,
            sources_cleared: 0,
            lookups: Vec::new(),
            nat_used: Instant::ZERO,
            inner: inner_address(n),
            sessions: BTreeSet::new(),
            out: Outputs::new(),
            shard,
            lane,
            inboxes,
            ip,
            udp,
        }
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.tables.drops.get(reason)
    }

    /// Where the peer of this key is reached.
    pub fn endpoint(&self, key: &PublicKey) -> Option<SocketAddr> {
        let path = self.tables.peer(self.device.peer_id(key)?)?;
        path.endpoint().map(|endpoint| endpoint.remote)
    }

    /// How many sessions can be received with.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    pub fn session_indices(&self) -> Vec<Index> {
        self.sessions.iter().copied().collect()
    }

    /// Turns shard and core until neither has anything to do.
    fn settle(&mut self, now: Now) {
        loop {
            self.apply(now);
            match self.shard.turn(now, Ready::ALL) {
                Turn::Worked(_) => {}
                Turn::Idle if self.listen(now) => {}
                Turn::Idle => break,
                Turn::Stopped(stop) => panic!("{stop:?}"),
            }
        }
        for packet in self.ip.take_delivered() {
            match packet[9] {
                PROTOCOL => self.delivered.push((now.mono, packet[20..].to_vec())),
                _ => self.unreachable += 1,
            }
        }
    }

    /// Hands what the shard reports to the core; false if there was nothing.
    fn listen(&mut self, now: Now) -> bool {
        let Self { device, out, lane, .. } = self;
        if let Some(signal) = lane.next_signal() {
            match signal {
                Signal::WantSession(peer) => device.want_session(now, peer, out),
                Signal::Confirmed(index) => device.handle_confirmed(now, index, out),
                Signal::Nudge(peer) => device.handle_nudge(now, peer, out),
                signal => panic!("{signal:?}"),
            }
        } else if let Some(message) = lane.next_handshake() {
            let result =
                device.handle_handshake(now, message.from, self.load, &message.datagram, out);
            if let Err(reason) = result {
                self.tables.drops.count(reason);
            }
        } else {
            return false;
        }
        true
    }

    fn apply(&mut self, now: Now) {
        for output in self.out.drain() {
            match &output {
                Output::Install { index, .. } => {
                    assert!(self.sessions.insert(*index), "a live index is not used again");
                }
                Output::Retire(index) => {
                    assert!(self.sessions.remove(index), "only sessions are retired, and once");
                }
                Output::ClearSource(_) => self.sources_cleared += 1,
                _ => {}
            }
            match self.tables.apply(output, &self.inboxes) {
                Some(Notice::RoutesChanged) => {
                    self.routes_changed += 1;
                    self.tables.set_routes(self.device.allowed_ips().routes());
                }
                Some(Notice::Resolve { peer, position }) => self.lookups.push((peer, position)),
                Some(Notice::Event(event)) => self.events.push((now.mono, event)),
                None => {}
            }
        }
    }

    fn nat_idle(&self, now: Instant) -> Duration {
        now.since(self.nat_used)
    }
}

/// Of the inner packets: for experiments. [RFC 3692]
const PROTOCOL: u8 = 253;

pub fn inner_address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1 + node as u8)
}

fn inner_packet(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, PROTOCOL, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    let total = u16::try_from(packet.len()).expect("a small packet");
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A datagram on its way.
struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    datagram: Vec<u8>,
}

pub struct Sim {
    now: Instant,
    pub nodes: Vec<Node>,
    pub link: Link,
    /// Every datagram that left a node, in order.
    pub trace: Vec<Sent>,
    /// Decides about each datagram, by sender and kind; `false` loses it.
    pub filter: Box<dyn FnMut(usize, Kind) -> bool>,
    flights: BTreeMap<(Instant, u64), Flight>,
    flight_count: u64,
    chance: SeededEntropy,
    next_port: u16,
}

impl Sim {
    /// Two nodes that know each other's keys; node 0 knows where node 1 is. No session yet.
    pub fn pair(seed: u64) -> Self {
        let mut sim = Self::strangers(seed, 2);
        sim.introduce(0, 1, true);
        sim.introduce(1, 0, false);
        sim
    }

    /// `count` nodes with keys that do not know each other.
    pub fn strangers(seed: u64, count: usize) -> Self {
        let mut sim = Self {
            now: Instant::ZERO + secs(1000),
            nodes: Vec::new(),
            link: Link::GOOD,
            trace: Vec::new(),
            filter: Box::new(|_, _| true),
            flights: BTreeMap::new(),
            flight_count: 0,
            chance: SeededEntropy::new(seed),
            next_port: 40_000,
        };
        for n in 0..count {
            sim.nodes.push(Node::new(seed.wrapping_mul(31).wrapping_add(n as u64), n));
            sim.configure(n, Change::PrivateKey(Some(private_key(n))));
        }
        sim
    }

    /// Makes `other` a peer of `node`, with or without his address.
    pub fn introduce(&mut self, node: usize, other: usize, address: bool) {
        let mut update = PeerUpdate::new(self.key(other));
        update.endpoint = address.then(|| self.nodes[other].address);
        update.allowed_ips = vec![AllowedIpChange::Add(IpAddr::from(inner_address(other)).into())];
        self.configure(node, Change::Peer(update));
    }

    /// A pair with a session that node 0 initiated.
    pub fn connected(seed: u64) -> Self {
        let mut sim = Self::pair(seed);
        sim.send(0, 1, b"first");
        sim.run(secs(1));
        assert_eq!(sim.nodes[1].delivered.len(), 1);
        sim
    }

    pub fn key(&self, node: usize) -> PublicKey {
        *self.nodes[node].device.public_key().expect("every node has a key")
    }

    pub fn mono(&self) -> Instant {
        self.now
    }

    pub fn now(&self, node: usize) -> Now {
        let since_start = self.now.since(Instant::ZERO);
        let secs = (EPOCH + since_start.as_secs())
            .checked_add_signed(self.nodes[node].wall_offset)
            .expect("the clock is after 1970");
        Now { mono: self.now, wall: Wall { secs, nanos: since_start.subsec_nanos() } }
    }

    pub fn configure(&mut self, node: usize, change: Change) {
        let now = self.now(node);
        let Node { device, out, .. } = &mut self.nodes[node];
        device.configure(now, change, out).expect("the change is acceptable");
        self.settle(node);
    }

    /// Changes what `node` has agreed with `other`.
    pub fn update(&mut self, node: usize, other: usize, change: impl FnOnce(&mut PeerUpdate)) {
        let mut update = PeerUpdate::new(self.key(other));
        change(&mut update);
        self.configure(node, Change::Peer(update));
    }

    /// The user of `node` sends a packet to `other`.
    pub fn send(&mut self, node: usize, other: usize, packet: &[u8]) {
        let Node { ip, inner, .. } = &self.nodes[node];
        ip.push(&inner_packet(*inner, self.nodes[other].inner, packet));
        self.settle(node);
    }

    pub fn peer_id(&self, node: usize, other: usize) -> PeerId {
        self.nodes[node].device.peer_id(&self.key(other)).expect("they were introduced")
    }

    /// Hands a datagram to `node` as if it had come from `from`.
    pub fn inject(&mut self, node: usize, from: SocketAddr, datagram: &[u8]) {
        self.nodes[node].udp.push(Endpoint::new(from), Ecn::NotEct, datagram);
        self.settle(node);
    }

    /// Moves `node` to another address, as a NAT or a walk out of the house does.
    pub fn rebind(&mut self, node: usize) {
        self.next_port += 1;
        self.nodes[node].address.set_port(self.next_port);
    }

    /// Lets `duration` pass.
    pub fn run(&mut self, duration: Duration) {
        self.run_with(duration, Duration::MAX, |_| {});
    }

    /// Lets `duration` pass, doing something every `interval`.
    pub fn run_with(
        &mut self,
        duration: Duration,
        interval: Duration,
        mut act: impl FnMut(&mut Self),
    ) {
        let end = self.now + duration;
        let mut next_act = self.now + interval;
        loop {
            let flight = self.flights.first_key_value().map(|(&(at, _), _)| at);
            let deadlines = self.nodes.iter().filter_map(|node| node.device.next_deadline());
            let next = deadlines.chain(flight).chain([next_act, end]).min().expect("not empty");
            self.now = self.now.max(next);
            if self.now >= end {
                self.now = end;
                return;
            }
            if next_act <= self.now {
                next_act = self.now + interval;
                act(self);
            }
            self.land();
            self.expire();
        }
    }

    /// Lets `duration` pass with everybody asleep.
    pub fn jump(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    /// Delivers what has arrived.
    fn land(&mut self) {
        while let Some(entry) = self.flights.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let flight = entry.remove();
            let Some(node) = self.nodes.iter().position(|node| node.address == flight.to) else {
                continue;
            };
            if self.nodes[node].nat.is_some_and(|life| self.nodes[node].nat_idle(self.now) > life) {
                continue;
            }
            self.inject(node, flight.from, &flight.datagram);
        }
    }

    fn expire(&mut self) {
        for node in 0..self.nodes.len() {
            let now = self.now(node);
            let due = |node: &Node| node.device.next_deadline().is_some_and(|at| at <= now.mono);
            for turn in 0.. {
                if !due(&self.nodes[node]) {
                    break;
                }
                assert!(turn < 1000, "a deadline stays due");
                let Node { device, out, .. } = &mut self.nodes[node];
                device.handle_timeout(now, out);
                self.settle(node);
            }
        }
    }

    /// Lets `node` do what it has to, and puts on the wire what it sends.
    fn settle(&mut self, node: usize) {
        let now = self.now(node);
        self.nodes[node].settle(now);
        for sent in self.nodes[node].udp.take_sent() {
            let (to, datagram) = (sent.to.remote, sent.bytes);
            let kind = Kind::of(&datagram);
            let marked = matches!(kind, Kind::Initiation | Kind::Response);
            assert_eq!(sent.traffic_class, if marked { 0x88 } else { 0 }, "{kind:?}");
            let sent = Sent { at: self.now, by: node, kind, datagram: datagram.clone() };
            self.trace.push(sent);
            if let Some(life) = self.nodes[node].nat {
                if self.nodes[node].nat_idle(self.now) > life {
                    self.rebind(node);
                }
                self.nodes[node].nat_used = self.now;
            }
            let from = self.nodes[node].address;
            if !(self.filter)(node, kind) {
                continue;
            }
            let copies = 1 + u32::from(self.per_mille(self.link.duplication));
            for _ in 0..copies {
                if self.per_mille(self.link.loss) {
                    continue;
                }
                let millis = self.link.jitter.as_millis() as u32;
                let entropy: &mut dyn Entropy = &mut self.chance;
                let late = MILLISECOND * entropy.up_to(millis);
                let key = (self.now + self.link.latency + late, self.flight_count);
                self.flight_count += 1;
                self.flights.insert(key, Flight { from, to, datagram: datagram.clone() });
            }
        }
    }

    fn per_mille(&mut self, chance: u32) -> bool {
        let entropy: &mut dyn Entropy = &mut self.chance;
        entropy.up_to(999) < chance
    }

    /// When `node` sent datagrams of `kind`.
    pub fn times(&self, node: usize, kind: Kind) -> Vec<Instant> {
        let matching = self.trace.iter().filter(|sent| sent.by == node && sent.kind == kind);
        matching.map(|sent| sent.at).collect()
    }

    pub fn count(&self, node: usize, kind: Kind) -> usize {
        self.times(node, kind).len()
    }

    /// The last datagram of `kind` that `node` sent.
    pub fn last(&self, node: usize, kind: Kind) -> Vec<u8> {
        let mut sent = self.trace.iter().rev();
        let found = sent.find(|sent| sent.by == node && sent.kind == kind);
        found.expect("one was sent").datagram.clone()
    }

    /// The packets that `node` was delivered.
    pub fn delivered(&self, node: usize) -> Vec<&[u8]> {
        let delivered = self.nodes[node].delivered.iter();
        delivered.map(|(_, packet)| packet.as_slice()).collect()
    }
}

pub fn private_key(node: usize) -> PrivateKey {
    PrivateKey::from_bytes([0x40 + node as u8; 32])
}

pub fn preshared_key(n: u8) -> PresharedKey {
    PresharedKey::from_bytes([n; 32])
}
