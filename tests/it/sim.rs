//! A network that exists in memory: devices, links and a clock that jumps from event to event.
//!
//! Hours of protocol time pass in milliseconds, and equal seeds give equal runs. A [`Node`] is the
//! protocol core with the smallest data plane that keeps its rules; a [`Sim`] carries datagrams
//! between nodes, badly if the [`Link`] says so, and writes down what was sent when.
//!
//! ```text
//!   Node a ──▶ (NAT) ──▶ link: latency, loss, reordering, duplication ──▶ (NAT) ──▶ Node b
//! ```

mod configure;
mod cookies;
mod handshake;
mod timers;
mod weather;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hybridwg::crypto::entropy::{Entropy, SeededEntropy};
use hybridwg::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use hybridwg::proto::device::{
    Change, Destination, Device, Event, Load, Output, Outputs, PeerUpdate,
};
use hybridwg::proto::drop_reason::DropReason;
use hybridwg::proto::endpoint::Endpoint;
use hybridwg::proto::index::Index;
use hybridwg::proto::keypair::{Opener, Sealer};
use hybridwg::proto::peer_id::PeerId;
use hybridwg::proto::replay::ReplayWindow;
use hybridwg::proto::timers::Facts;
use hybridwg::time::{Instant, Now, Wall};
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

/// A session as the data plane knows it.
struct Session {
    peer: PeerId,
    opener: Opener,
    window: ReplayWindow,
    confirmed: bool,
}

/// A peer as the data plane knows him.
struct Path {
    public_key: PublicKey,
    facts: Arc<Facts>,
    current: Option<Arc<Sealer>>,
    endpoint: Option<Endpoint>,
    staged: VecDeque<Vec<u8>>,
    source_cleared: u32,
}

pub struct Node {
    pub device: Device,
    pub address: SocketAddr,
    pub load: Load,
    /// What the wall clock is off by, in seconds.
    pub wall_offset: i64,
    pub events: Vec<(Instant, Event)>,
    pub drops: HashMap<DropReason, u32>,
    /// What came in for the user, in order.
    pub delivered: Vec<(Instant, Vec<u8>)>,
    /// If set, the node is behind a NAT that forgets it after so long without outbound traffic.
    pub nat: Option<Duration>,
    nat_used: Instant,
    sessions: BTreeMap<Index, Session>,
    paths: BTreeMap<PeerId, Path>,
    out: Outputs,
    wire: Vec<(SocketAddr, Vec<u8>)>,
    pub routes_changed: u32,
}

impl Node {
    fn new(seed: u64, address: SocketAddr) -> Self {
        Self {
            device: Device::new(Box::new(SeededEntropy::new(seed))),
            address,
            load: Load::Normal,
            wall_offset: 0,
            events: Vec::new(),
            drops: HashMap::new(),
            delivered: Vec::new(),
            nat: None,
            nat_used: Instant::ZERO,
            sessions: BTreeMap::new(),
            paths: BTreeMap::new(),
            out: Outputs::new(),
            wire: Vec::new(),
            routes_changed: 0,
        }
    }

    pub fn drops(&self, reason: DropReason) -> u32 {
        self.drops.get(&reason).copied().unwrap_or(0)
    }

    /// Who the peer of this key is reached at.
    pub fn endpoint(&self, key: &PublicKey) -> Option<SocketAddr> {
        let path = self.paths.values().find(|path| path.public_key == *key)?;
        path.endpoint.map(|endpoint| endpoint.remote)
    }

    /// How many sessions can be received with.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    pub fn session_indices(&self) -> Vec<Index> {
        self.sessions.keys().copied().collect()
    }

    pub fn staged_count(&self) -> usize {
        self.paths.values().map(|path| path.staged.len()).sum()
    }

    /// How often a peer's remembered source address was forgotten.
    pub fn sources_cleared(&self) -> u32 {
        self.paths.values().map(|path| path.source_cleared).sum()
    }

    fn configure(&mut self, now: Now, change: Change) {
        self.device.configure(now, change, &mut self.out).expect("the change is acceptable");
        self.apply(now);
    }

    /// The user sends `packet` to `peer`; nothing in it would be a keepalive.
    fn send(&mut self, now: Now, peer: PeerId, packet: Vec<u8>) {
        assert!(!packet.is_empty());
        let path = self.paths.get_mut(&peer).expect("the peer is known");
        path.staged.push_back(packet);
        if path.staged.len() > 128 {
            path.staged.pop_front();
        }
        self.send_staged(now, peer);
        self.apply(now);
    }

    fn send_staged(&mut self, now: Now, peer: PeerId) {
        while let Some(packet) = self.paths.get_mut(&peer).and_then(|path| path.staged.pop_front())
        {
            if let Err(packet) = self.seal(now, peer, packet) {
                self.paths.get_mut(&peer).expect("it was there").staged.push_front(packet);
                self.device.want_session(now, peer, &mut self.out);
                break;
            }
        }
    }

    /// Seals and sends, or gives the packet back if there is no session for it.
    fn seal(&mut self, now: Now, peer: PeerId, packet: Vec<u8>) -> Result<(), Vec<u8>> {
        let path = self.paths.get_mut(&peer).expect("the peer is known");
        let Some(sealer) = path.current.clone().filter(|sealer| !sealer.is_expired(now.mono))
        else {
            return Err(packet);
        };
        let Some(mut range) = sealer.reserve(1) else { return Err(packet) };
        let counter = range.next().expect("one was reserved");
        let padding = packet.len().next_multiple_of(16) - packet.len();
        let mut datagram = vec![0; 16 + packet.len() + padding + 16];
        sealer.seal(counter, &packet, padding, &mut datagram);
        path.facts.any_authenticated_sent(now.mono);
        if !packet.is_empty() {
            path.facts.data_sent(now.mono);
        }
        let nudge = path.facts.needs_nudge();
        if let Some(endpoint) = path.endpoint {
            self.wire.push((endpoint.remote, datagram));
        }
        if sealer.wants_rekey_on_send(now.mono) {
            self.device.want_session(now, peer, &mut self.out);
        }
        if nudge {
            self.device.handle_nudge(now, peer, &mut self.out);
        }
        Ok(())
    }

    fn receive(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) {
        let from = Endpoint::new(from);
        let result = match classify(datagram) {
            Some(Message::Transport { receiver, .. }) => {
                self.open(now, from, Index(receiver), datagram)
            }
            Some(_) | None => self
                .device
                .handle_handshake(now, from, self.load, datagram, &mut self.out)
                .map(|_| ()),
        };
        if let Err(reason) = result {
            *self.drops.entry(reason).or_default() += 1;
        }
        self.apply(now);
    }

    fn open(
        &mut self,
        now: Now,
        from: Endpoint,
        index: Index,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let session = self.sessions.get_mut(&index).ok_or(DropReason::UnknownIndex)?;
        let mut datagram = datagram.to_vec();
        let (proof, plaintext) = session.opener.open(now.mono, &mut datagram)?;
        session.window.accept(&proof)?;
        let peer = session.peer;
        let unconfirmed = !std::mem::replace(&mut session.confirmed, true);
        let wants_rekey = session.opener.wants_rekey_on_receive(now.mono);
        let path = self.paths.get_mut(&peer).expect("a session belongs to a peer");
        path.endpoint = Some(from);
        path.facts.any_authenticated_received(now.mono);
        if !plaintext.is_empty() {
            path.facts.data_received(now.mono);
            self.delivered.push((now.mono, datagram[plaintext].to_vec()));
        }
        let nudge = path.facts.needs_nudge();
        if unconfirmed {
            self.device.handle_confirmed(now, index, &mut self.out);
        }
        if wants_rekey {
            self.device.want_session(now, peer, &mut self.out);
        }
        if nudge {
            self.device.handle_nudge(now, peer, &mut self.out);
        }
        Ok(())
    }

    fn apply(&mut self, now: Now) {
        while !self.out.is_empty() {
            let outputs: Vec<_> = self.out.drain().collect();
            for output in outputs {
                self.apply_one(now, output);
            }
        }
    }

    fn path(&mut self, peer: PeerId) -> &mut Path {
        self.paths.get_mut(&peer).expect("outputs name peers that were added")
    }

    fn apply_one(&mut self, now: Now, output: Output) {
        match output {
            Output::Transmit { to, datagram, traffic_class } => {
                let expected = if Kind::of(&datagram) == Kind::CookieReply { 0 } else { 0x88 };
                assert_eq!(traffic_class, expected, "P-21");
                let to = match to {
                    Destination::Peer(peer) => self.path(peer).endpoint,
                    Destination::Address(endpoint) => Some(endpoint),
                };
                let to = to.expect("nothing is sent to a peer without an endpoint");
                self.wire.push((to.remote, datagram.to_vec()));
            }
            Output::Install { peer, index, opener, confirmed, sealer: _ } => {
                let window = ReplayWindow::default();
                let session = Session { peer, opener, window, confirmed };
                let known = self.sessions.insert(index, session);
                assert!(known.is_none(), "an index is used once");
            }
            Output::Current { peer, sealer } => self.path(peer).current = sealer,
            Output::Retire(index) => {
                self.sessions.remove(&index).expect("only sessions are retired, and once");
            }
            Output::Flush(peer) => {
                if self.path(peer).staged.is_empty() {
                    self.seal(now, peer, Vec::new()).expect("there is a session");
                } else {
                    self.send_staged(now, peer);
                }
            }
            Output::SendStaged(peer) => self.send_staged(now, peer),
            Output::Keepalive(peer) => {
                self.seal(now, peer, Vec::new()).expect("there is a session");
            }
            Output::PurgeStaged(peer) => self.path(peer).staged.clear(),
            Output::ClearSource(peer) => self.path(peer).source_cleared += 1,
            Output::Roamed(peer, endpoint) => self.path(peer).endpoint = Some(endpoint),
            Output::PeerAdded { peer, public_key, facts } => {
                let path = Path {
                    public_key,
                    facts,
                    current: None,
                    endpoint: None,
                    staged: VecDeque::new(),
                    source_cleared: 0,
                };
                assert!(self.paths.insert(peer, path).is_none(), "a handle is given out once");
            }
            Output::PeerRemoved(peer) => {
                self.paths.remove(&peer).expect("a peer is removed once");
                assert!(self.sessions.values().all(|session| session.peer != peer));
            }
            Output::RoutesChanged => self.routes_changed += 1,
            Output::Event(event) => self.events.push((now.mono, event)),
        }
    }
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
            let address = SocketAddr::from(([192, 0, 2, 1 + n as u8], 51820));
            sim.nodes.push(Node::new(seed.wrapping_mul(31).wrapping_add(n as u64), address));
            sim.configure(n, Change::PrivateKey(Some(private_key(n))));
        }
        sim
    }

    /// Makes `other` a peer of `node`, with or without his address.
    pub fn introduce(&mut self, node: usize, other: usize, address: bool) {
        let mut update = PeerUpdate::new(self.key(other));
        update.endpoint = address.then(|| self.nodes[other].address);
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
        self.nodes[node].configure(now, change);
        self.collect(node);
    }

    /// Changes what `node` has agreed with `other`.
    pub fn update(&mut self, node: usize, other: usize, change: impl FnOnce(&mut PeerUpdate)) {
        let mut update = PeerUpdate::new(self.key(other));
        change(&mut update);
        self.configure(node, Change::Peer(update));
    }

    /// The user of `node` sends a packet to `other`.
    pub fn send(&mut self, node: usize, other: usize, packet: &[u8]) {
        let now = self.now(node);
        let peer = self.peer_id(node, other);
        self.nodes[node].send(now, peer, packet.to_vec());
        self.collect(node);
    }

    pub fn peer_id(&self, node: usize, other: usize) -> PeerId {
        self.nodes[node].device.peer_id(&self.key(other)).expect("they were introduced")
    }

    /// Hands a datagram to `node` as if it had come from `from`.
    pub fn inject(&mut self, node: usize, from: SocketAddr, datagram: &[u8]) {
        let now = self.now(node);
        self.nodes[node].receive(now, from, datagram);
        self.collect(node);
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
                self.nodes[node].apply(now);
                self.collect(node);
            }
        }
    }

    /// Puts on the wire what `node` has sent.
    fn collect(&mut self, node: usize) {
        for (to, datagram) in std::mem::take(&mut self.nodes[node].wire) {
            let kind = Kind::of(&datagram);
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
        delivered.map(|(_, packet)| trim(packet)).collect()
    }
}

/// Takes the padding off a packet that does not end in zeros itself.
fn trim(packet: &[u8]) -> &[u8] {
    &packet[..packet.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)]
}

impl Node {
    fn nat_idle(&self, now: Instant) -> Duration {
        now.since(self.nat_used)
    }
}

pub fn private_key(node: usize) -> PrivateKey {
    PrivateKey::from_bytes([0x40 + node as u8; 32])
}

pub fn preshared_key(n: u8) -> PresharedKey {
    PresharedKey::from_bytes([n; 32])
}
