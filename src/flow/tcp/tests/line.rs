//! A line between two hosts: delay, rate, a queue with a tail, loss, reordering, duplication and
//! damage, on a clock of its own. Equal seeds give equal runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Checksum, Config, Connection, End, Packet, Segment, Stack, State, Syn};
use crate::crypto::entropy::{Entropy, SeededEntropy};
use crate::packet::split::Splitter;
use crate::time::Instant;

/// One direction of a line. Probabilities in parts of a million.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub delay: Duration,
    /// Bits per second; zero: as fast as they come.
    pub rate: u64,
    /// What waits when the rate is less than what comes, in bytes; more is dropped.
    pub queue: u64,
    pub loss: u32,
    pub reordering: u32,
    pub duplication: u32,
    pub damage: u32,
}

impl Path {
    pub const fn new(delay: Duration) -> Self {
        Self { delay, rate: 0, queue: 0, loss: 0, reordering: 0, duplication: 0, damage: 0 }
    }
}

/// What is on its way from one host to the other.
pub struct Direction {
    pub path: Path,
    busy_until: Instant,
    arrivals: BTreeMap<(Instant, u64), Vec<u8>>,
    /// Packets that never arrive, by their number: the first that is sent is zero.
    doomed: Vec<u64>,
    sent: u64,
    dropped: u64,
}

impl Direction {
    pub const fn new(path: Path) -> Self {
        Self {
            path,
            busy_until: Instant::ZERO,
            arrivals: BTreeMap::new(),
            doomed: Vec::new(),
            sent: 0,
            dropped: 0,
        }
    }

    /// When the next packet arrives.
    pub fn next(&self) -> Option<Instant> {
        self.arrivals.first_key_value().map(|((at, _), _)| *at)
    }

    /// A packet that has arrived by `now`.
    pub fn receive(&mut self, now: Instant) -> Option<Vec<u8>> {
        let first = self.arrivals.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub fn send(&mut self, now: Instant, random: &mut SeededEntropy, packet: &[u8]) {
        let number = self.sent;
        self.sent += 1;
        let mut chance =
            |parts: u32| parts > 0 && (random as &mut dyn Entropy).up_to(999_999) < parts;
        if self.doomed.contains(&number) || chance(self.path.loss) {
            self.dropped += 1;
            return;
        }
        let mut leaves = now;
        if self.path.rate > 0 {
            let waiting = self.busy_until.since(now);
            let queued = waiting.as_nanos() as u64 * self.path.rate / 8 / 1_000_000_000;
            if queued + packet.len() as u64 > self.path.queue {
                self.dropped += 1;
                return;
            }
            let takes = packet.len() as u64 * 8 * 1_000_000_000 / self.path.rate;
            self.busy_until = self.busy_until.max(now) + Duration::from_nanos(takes);
            leaves = self.busy_until;
        }
        let mut packet = packet.to_vec();
        if chance(self.path.damage) {
            let at = (random as &mut dyn Entropy).up_to(packet.len() as u32 - 1) as usize;
            packet[at] ^= 1 << (number % 8);
        }
        let mut chance =
            |parts: u32| parts > 0 && (random as &mut dyn Entropy).up_to(999_999) < parts;
        let late = if chance(self.path.reordering) { self.path.delay / 2 } else { Duration::ZERO };
        let copies = if chance(self.path.duplication) { 2 } else { 1 };
        for copy in 0..copies {
            let at = leaves + self.path.delay + late + Duration::from_micros(100) * copy;
            self.arrivals.insert((at, number * 2 + u64::from(copy)), packet.clone());
        }
    }
}

/// One end of a flow, with an application that sends and checks a pattern.
pub struct Peer {
    pub connection: Connection,
    /// What the application wants to send, and what it has written and read.
    pub to_send: u64,
    pub written: u64,
    pub read: u64,
    /// What it reads at most in a turn; `None`: it does not read.
    pub appetite: Option<u64>,
    /// It shuts its side down when everything is written.
    pub closes: bool,
    pub saw_end_of_stream: bool,
    pub finished_at: Option<Instant>,
}

const PATTERN_PERIOD: usize = 251;
pub const PIECE_BYTES: usize = 64 << 10;

/// What streams consist of, from any position in its first period on.
static PATTERN: [u8; PATTERN_PERIOD + PIECE_BYTES] = {
    let mut pattern = [0; PATTERN_PERIOD + PIECE_BYTES];
    let mut at = 0;
    while at < pattern.len() {
        pattern[at] = (at % PATTERN_PERIOD) as u8;
        at += 1;
    }
    pattern
};

/// At most [`PIECE_BYTES`] of the pattern.
pub fn pattern(position: u64, count: usize) -> &'static [u8] {
    &PATTERN[position as usize % PATTERN_PERIOD..][..count]
}

impl Peer {
    pub fn new(connection: Connection, to_send: u64, closes: bool) -> Self {
        Self {
            connection,
            to_send,
            written: 0,
            read: 0,
            appetite: Some(u64::MAX),
            closes,
            saw_end_of_stream: false,
            finished_at: None,
        }
    }

    pub fn act(&mut self, now: Instant) {
        let events = self.connection.take_events();
        self.saw_end_of_stream |= events.peer_closed;
        let connection = &mut self.connection;
        if let Some(appetite) = self.appetite {
            let available = (connection.readable_bytes() as u64).min(appetite);
            let mut checked = 0;
            for slice in connection.readable() {
                let slice = &slice[..slice.len().min((available - checked) as usize)];
                for piece in slice.chunks(PIECE_BYTES) {
                    assert!(piece == pattern(self.read + checked, piece.len()), "a wrong byte");
                    checked += piece.len() as u64;
                }
            }
            connection.consume(available as usize);
            self.read += available;
        }
        while self.written < self.to_send {
            let want = (self.to_send - self.written).min(PIECE_BYTES as u64) as usize;
            let taken = connection.write(pattern(self.written, want));
            self.written += taken as u64;
            if taken < want {
                break;
            }
        }
        if self.closes && self.written == self.to_send {
            connection.shutdown_write();
        }
        if self.finished_at.is_none() && connection.end().is_some() {
            self.finished_at = Some(now);
        }
    }
}

/// Two hosts, the line between them, and flows from the first to the second.
pub struct Line {
    pub now: Instant,
    pub stacks: [Arc<Stack>; 2],
    directions: [Direction; 2],
    /// The end at the first host, and that at the second once it has been asked for.
    pub flows: Vec<(Peer, Option<Peer>)>,
    /// What the applications of the second host want to send.
    pub answer: u64,
    /// Whether the ends of flows to be shut down what they have sent all of.
    pub closes: [bool; 2],
    /// Whether the second host takes connections.
    pub listens: bool,
    /// Whether it sees the other's SACK, timestamps and window scaling in a SYN.
    pub features: [bool; 3],
    random: SeededEntropy,
    buffer: Vec<u8>,
    /// How late timers are.
    pub lateness: Duration,
    pub watch: Option<fn(usize, &Segment<'_>)>,
}

impl Line {
    pub fn new(seed: u64, configs: [Config; 2], paths: [Path; 2]) -> Self {
        let mut random = SeededEntropy::new(seed);
        Self {
            now: super::START,
            stacks: configs.map(|config| Arc::new(Stack::new(config, &mut random))),
            directions: paths.map(Direction::new),
            flows: Vec::new(),
            answer: 0,
            closes: [true; 2],
            listens: true,
            features: [true; 3],
            random,
            buffer: vec![0; 65_535],
            lateness: Duration::ZERO,
            watch: None,
        }
    }

    pub fn symmetric(seed: u64, config: Config, path: Path) -> Self {
        Self::new(seed, [config; 2], [path; 2])
    }

    pub fn doom(&mut self, direction: usize, packets: impl IntoIterator<Item = u64>) {
        self.directions[direction].doomed.extend(packets);
    }

    pub fn path(&mut self, direction: usize) -> &mut Path {
        &mut self.directions[direction].path
    }

    pub const fn sent(&self, direction: usize) -> u64 {
        self.directions[direction].sent
    }

    pub const fn dropped(&self, direction: usize) -> u64 {
        self.directions[direction].dropped
    }

    fn addresses(flow: usize) -> [SocketAddr; 2] {
        [([10, 0, 0, 1], 1000 + flow as u16).into(), ([10, 0, 0, 2], 80).into()]
    }

    /// Opens a flow whose first end wants to send so many bytes.
    pub fn open(&mut self, to_send: u64) -> usize {
        let flow = self.flows.len();
        let [local, remote] = Self::addresses(flow);
        let connection = Connection::connect(self.now, &self.stacks[0], local, remote);
        self.flows.push((Peer::new(connection, to_send, self.closes[0]), None));
        self.act(0, flow);
        flow
    }

    pub fn peer(&mut self, host: usize, flow: usize) -> Option<&mut Peer> {
        let (first, second) = self.flows.get_mut(flow)?;
        if host == 0 { Some(first) } else { second.as_mut() }
    }

    /// Lets an application and its connection do what there is to do.
    pub fn act(&mut self, host: usize, flow: usize) {
        let now = self.now;
        let (first, second) = &mut self.flows[flow];
        let Some(peer) = (if host == 0 { Some(first) } else { second.as_mut() }) else { return };
        peer.act(now);
        while let Some(transmit) = peer.connection.poll_transmit(now, &mut self.buffer) {
            let packet = &mut self.buffer[..transmit.len];
            let mut splitter = Splitter::new(packet, &transmit.vnet).expect("it fits its header");
            while let Some(packet) = splitter.next() {
                assert!(packet.len() <= 1360, "a packet of {} bytes", packet.len());
                self.directions[host].send(now, &mut self.random, packet);
            }
        }
        if peer.finished_at.is_none() && peer.connection.end().is_some() {
            peer.finished_at = Some(now);
        }
    }

    /// Puts a packet on the line that no connection has sent.
    pub fn inject(&mut self, host: usize, flow: usize, segment: &Segment<'_>) {
        let now = self.now;
        if let Some(peer) = self.peer(host, flow) {
            peer.connection.on_segment(now, segment);
            self.act(host, flow);
        }
    }

    fn deliver(&mut self, host: usize, packet: &[u8]) {
        let is_damaged = self.directions.iter().any(|direction| direction.path.damage > 0);
        let checksum = if is_damaged { Checksum::Verify } else { Checksum::Trusted };
        let Ok(packet) = Packet::parse(packet, checksum) else { return };
        if let Some(watch) = self.watch {
            watch(host, &packet.segment);
        }
        let port = if host == 0 { packet.destination.port() } else { packet.source.port() };
        let flow = usize::from(port).wrapping_sub(1000);
        if host == 1
            && let Some((_, second @ None)) = self.flows.get_mut(flow)
            && let Some(mut syn) = Syn::of(&packet)
            && self.listens
        {
            let [sack, timestamps, scaling] = self.features;
            syn.options.sack_permitted &= sack;
            syn.options.timestamps = syn.options.timestamps.filter(|_| timestamps);
            syn.options.window_scale = syn.options.window_scale.filter(|_| scaling);
            let connection = Connection::accept(self.now, &self.stacks[1], &syn);
            *second = Some(Peer::new(connection, self.answer, self.closes[1]));
            self.act(1, flow);
            return;
        }
        let now = self.now;
        match self.peer(host, flow) {
            Some(peer) => {
                peer.connection.on_segment(now, &packet.segment);
                self.act(host, flow);
            }
            None => {
                let mut out = [0; 100];
                if let Some(transmit) = super::super::refuse(&packet, &mut out) {
                    let bytes = &mut out[..transmit.len];
                    let mut splitter = Splitter::new(bytes, &transmit.vnet).expect("a packet");
                    let bytes = splitter.next().expect("one");
                    self.directions[host].send(now, &mut self.random, bytes);
                }
            }
        }
    }

    /// The next thing that happens: an arrival at a host, or a deadline.
    fn next(&self) -> Option<Instant> {
        let arrivals = self.directions.iter().filter_map(Direction::next);
        let deadlines = self.flows.iter().flat_map(|(first, second)| {
            let peers = [Some(first), second.as_ref()];
            peers.into_iter().flatten().filter_map(|peer| {
                peer.connection.next_deadline().map(|at| at.max(self.now) + self.lateness)
            })
        });
        arrivals.chain(deadlines).min()
    }

    /// Runs until `end`, or until nothing can happen any more.
    pub fn run_until(&mut self, end: Instant) {
        let mut same = 0;
        while let Some(at) = self.next().filter(|at| *at <= end) {
            same = if at <= self.now { same + 1 } else { 0 };
            assert!(same < 100_000, "the clock stands still at {at:?}");
            self.now = at.max(self.now);
            for host in [0, 1] {
                // What host sends arrives at the other.
                while let Some(packet) = self.directions[host].receive(self.now) {
                    self.deliver(1 - host, &packet);
                }
            }
            for flow in 0..self.flows.len() {
                for host in [0, 1] {
                    let now = self.now;
                    let Some(peer) = self.peer(host, flow) else { continue };
                    if peer.connection.next_deadline().is_some_and(|at| at <= now) {
                        peer.connection.on_deadline(now);
                        self.act(host, flow);
                    }
                }
            }
        }
        self.now = self.now.max(end);
    }

    pub fn run(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    pub fn states(&self, flow: usize) -> [Option<State>; 2] {
        let (first, second) = &self.flows[flow];
        [Some(first.connection.state()), second.as_ref().map(|peer| peer.connection.state())]
    }

    pub fn ends(&self, flow: usize) -> [Option<End>; 2] {
        let (first, second) = &self.flows[flow];
        [first.connection.end(), second.as_ref().and_then(|peer| peer.connection.end())]
    }
}
