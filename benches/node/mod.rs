//! A shard with one session from a real handshake, between ports that cost next to nothing.
//!
//! What a port hands out is a copy of something prepared, and what it gets it only counts; but the
//! one that stands for a TUN device plans its writes as that does, so that cutting and merging are
//! both in what is measured. No clock is read and no randomness drawn.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hybridwg::crypto::batch::Kernel;
use hybridwg::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use hybridwg::crypto::tai64n::Timestamp;
use hybridwg::dataplane::DATAGRAM_BATCH;
use hybridwg::dataplane::inbox::Inboxes;
use hybridwg::dataplane::lane::Lane;
use hybridwg::dataplane::port::{DatagramPort, IpPort, Ready};
use hybridwg::dataplane::shard::{Shard, Turn};
use hybridwg::dataplane::tables::Tables;
use hybridwg::packet::batch::{DatagramBatch, IpBatch, PlainBatch, Received};
use hybridwg::packet::coalesce::{Coalescer, Mergeable};
use hybridwg::packet::slab::HEADROOM;
use hybridwg::packet::split::Splitter;
use hybridwg::packet::train::{TRAIN_DATAGRAMS, Train};
use hybridwg::proto::allowed_ips::AllowedIps;
use hybridwg::proto::device::Output;
use hybridwg::proto::endpoint::Endpoint;
use hybridwg::proto::handshake::{InitiationOpened, InitiationSent, RemoteStatic, StaticIdentity};
use hybridwg::proto::index::Index;
use hybridwg::proto::keypair::{Keypair, Sealer};
use hybridwg::proto::peer_id::PeerId;
use hybridwg::proto::timers::Facts;
use hybridwg::sys::SysError;
use hybridwg::sys::udp::Narrowed;
use hybridwg::time::{Instant, Now, Wall};
use hybridwg::wire::checksum::checksum;
use hybridwg::wire::ip::Ecn;
use hybridwg::wire::message::TRANSPORT_OVERHEAD_BYTES;
use hybridwg::wire::vnet::{Gso, GsoKind, PartialChecksum, VnetHeader};

/// Headers of a packet: IPv4, and TCP with timestamps.
const HEADER_BYTES: usize = 20 + 32;

/// An address on our side.
const OURS: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

const NOW: Now = Now { mono: Instant::from_nanos(1), wall: Wall { secs: 1_700_000_000, nanos: 0 } };

/// What a turn carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// 45 packets of 1420 bytes: one super-packet, one train.
    Train,
    /// One packet of 64 bytes.
    Lone,
}

impl Load {
    pub const fn packets(self) -> usize {
        match self {
            Self::Train => 45,
            Self::Lone => 1,
        }
    }

    /// Of each packet.
    pub const fn packet_bytes(self) -> usize {
        match self {
            Self::Train => 1420,
            Self::Lone => 64,
        }
    }

    /// Of all datagrams of a turn. The lengths of both packets need no padding.
    const fn sealed_bytes(self) -> usize {
        self.packets() * (self.packet_bytes() + TRANSPORT_OVERHEAD_BYTES)
    }

    /// As a TUN device hands it out.
    fn super_packet(self, source: Ipv4Addr, destination: Ipv4Addr) -> (Vec<u8>, VnetHeader) {
        let segment = self.packet_bytes() - HEADER_BYTES;
        let len = HEADER_BYTES + self.packets() * segment;
        let mut packet = vec![0x5a; len];
        packet[..12].copy_from_slice(b"\x45\0\0\0\0\0\x40\0\x40\x06\0\0");
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[12..16].copy_from_slice(&source.octets());
        packet[16..20].copy_from_slice(&destination.octets());
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet[20..24].copy_from_slice(&[0x9c, 0x40, 0x14, 0x51]);
        packet[32..34].copy_from_slice(&[8 << 4, 0x10]);
        let gso = Gso { kind: GsoKind::TcpV4, size: segment as u16, ecn: false };
        let vnet = VnetHeader {
            checksum: Some(PartialChecksum { start: 20, offset: 16 }),
            gso: (self == Self::Train).then_some(gso),
            header_length: HEADER_BYTES as u16,
        };
        (packet, vnet)
    }

    /// The packets of a turn that come from `source`.
    pub fn cut(self, source: Ipv4Addr) -> Vec<Vec<u8>> {
        let (mut packet, vnet) = self.super_packet(source, OURS);
        let mut splitter = Splitter::new(&mut packet, &vnet).expect("a super-packet");
        let mut packets = Vec::with_capacity(self.packets());
        while let Some(packet) = splitter.next() {
            packets.push(packet.to_vec());
        }
        packets
    }
}

/// A session, as its initiator and its responder have it.
pub fn session() -> [Keypair; 2] {
    let [us, them] = [1, 2].map(|byte| StaticIdentity::new(PrivateKey::from_bytes([byte; 32])));
    let ours = RemoteStatic::new(&us, them.public, PresharedKey::NONE);
    let theirs = RemoteStatic::new(&them, us.public, PresharedKey::NONE);
    let [mine, other] = [3, 4].map(|byte| PrivateKey::from_bytes([byte; 32]));
    let stamp = Timestamp::from_wall(NOW.wall);
    let (sent, initiation) =
        InitiationSent::create(&us, &ours, mine, Index(11), stamp).expect("good keys");
    let (response, responder) = InitiationOpened::open(&them, &initiation)
        .and_then(|opened| opened.verify(&theirs))
        .and_then(|received| received.create_response(NOW.mono, &theirs, other, Index(22)))
        .expect("a response");
    let initiator =
        sent.consume_response(NOW.mono, &us, &ours, &response).expect("a session of the initiator");
    [initiator, responder]
}

/// A shard that sends what it reads from its IP port.
pub struct Outbound {
    shard: Shard,
    datagrams: Arc<AtomicUsize>,
}

impl Outbound {
    /// One of `peers` peers is active.
    pub fn new(load: Load, peers: u32) -> Self {
        let [keypair, _] = session();
        let (packet, vnet) = load.super_packet(OURS, peer_address(active(peers)));
        let datagrams = Arc::new(AtomicUsize::new(0));
        let ip = PacketSource { packet, vnet };
        let udp = DatagramSink { load, datagrams: Arc::clone(&datagrams) };
        Self { shard: shard(Box::new(ip), Box::new(udp), keypair, peers), datagrams }
    }

    pub fn turn(&mut self) {
        turn(&mut self.shard);
    }

    /// How many datagrams were sent.
    pub fn datagrams(&self) -> usize {
        self.datagrams.load(Ordering::Relaxed)
    }
}

/// A shard that delivers what it receives.
pub struct Inbound {
    shard: Shard,
    packets: Arc<AtomicUsize>,
}

impl Inbound {
    /// One of `peers` peers is active: the one who holds what is returned, too.
    pub fn new(load: Load, peers: u32) -> (Self, Remote) {
        let [keypair, theirs] = session();
        let remote = Remote::new(load, theirs.sealer, peers);
        let packets = Arc::new(AtomicUsize::new(0));
        let ip = PacketSink::new(load, Arc::clone(&packets));
        let udp = DatagramSource { load, wire: Arc::clone(&remote.wire) };
        (Self { shard: shard(Box::new(ip), Box::new(udp), keypair, peers), packets }, remote)
    }

    /// Receives one message of those that wait.
    pub fn turn(&mut self) {
        turn(&mut self.shard);
    }

    /// How many packets were delivered.
    pub fn packets(&self) -> usize {
        self.packets.load(Ordering::Relaxed)
    }
}

/// The peer of an [`Inbound`].
pub struct Remote {
    packets: Vec<Vec<u8>>,
    sealer: Sealer,
    wire: Arc<Mutex<Wire>>,
}

impl Remote {
    fn new(load: Load, sealer: Sealer, peers: u32) -> Self {
        Self { packets: load.cut(peer_address(active(peers))), sealer, wire: Arc::default() }
    }

    /// Lets `count` messages of fresh datagrams wait, in the place of all earlier ones.
    pub fn send(&mut self, count: usize) {
        let Wire { messages, next } = &mut *lock(&self.wire);
        *next = 0;
        messages.resize_with(count, Vec::new);
        for message in messages {
            message.clear();
            let counters = self.sealer.reserve(self.packets.len() as u32).expect("few were sent");
            for (packet, counter) in self.packets.iter().zip(counters) {
                let start = message.len();
                message.resize(start + packet.len() + TRANSPORT_OVERHEAD_BYTES, 0);
                self.sealer.seal(counter, packet, 0, &mut message[start..]);
            }
        }
    }
}

/// A shard with a session with one of `peers` peers, each of whom has a route.
fn shard(ip: Box<dyn IpPort>, udp: Box<dyn DatagramPort>, keypair: Keypair, peers: u32) -> Shard {
    let (tables, lane) = <(Arc<Tables>, Arc<Lane>)>::default();
    let inboxes = Inboxes::new(1);
    let apply = |output| assert!(tables.apply(output, &inboxes).is_none());
    let mut allowed = AllowedIps::new();
    for n in 1..=peers {
        let (peer, public_key) = (PeerId(n), PublicKey::from_bytes([7; 32]));
        apply(Output::PeerAdded { peer, public_key, facts: Arc::new(Facts::new()) });
        apply(Output::Roamed(peer, endpoint()));
        allowed.insert(IpAddr::from(peer_address(n)).into(), peer);
    }
    tables.set_routes(allowed.routes());
    let peer = PeerId(active(peers));
    let Keypair { sealer, opener, local_index: index, .. } = keypair;
    let sealer = Arc::new(sealer);
    let current = Some(Arc::clone(&sealer));
    apply(Output::Install { peer, index, opener, sealer, confirmed: true });
    apply(Output::Current { peer, sealer: current });
    let inbox = inboxes.iter().next().map(Arc::clone).expect("one shard's");
    let kernel = Kernel::find().expect("the kernel works if there is one");
    Shard::new(ip, udp, tables, lane, inbox).with_kernel(kernel)
}

fn turn(shard: &mut Shard) {
    assert!(matches!(shard.turn(NOW, Ready::ALL), Turn::Worked(_)));
}

/// The peer in the middle.
const fn active(peers: u32) -> u32 {
    peers.div_ceil(2)
}

/// The only address of peer `n`.
fn peer_address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from((10 << 24) + n)
}

fn endpoint() -> Endpoint {
    Endpoint::new(SocketAddr::from(([192, 0, 2, 1], 51820)))
}

/// Messages that wait to be received.
#[derive(Default)]
struct Wire {
    messages: Vec<Vec<u8>>,
    next: usize,
}

fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies by the datagram: a long copy may be one `rep movsb`, which valgrind counts by the byte.
fn copy(from: &[u8], to: &mut [u8]) {
    for (from, to) in from.chunks(1452).zip(to.chunks_mut(1452)) {
        to[..from.len()].copy_from_slice(from);
    }
}

/// Always has one packet, or super-packet.
struct PacketSource {
    packet: Vec<u8>,
    vnet: VnetHeader,
}

impl IpPort for PacketSource {
    fn recv(&mut self, batch: &mut IpBatch) -> Result<usize, SysError> {
        let slab = batch.vacant().expect("an empty batch has room");
        copy(&self.packet, &mut slab[HEADROOM..]);
        batch.push(self.packet.len(), Ok(self.vnet));
        Ok(1)
    }

    fn send(&mut self, _: &mut PlainBatch<'_>) -> Result<usize, SysError> {
        panic!("nothing is received")
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Plans how to write what it gets, and does not.
struct PacketSink {
    load: Load,
    coalescer: Coalescer,
    packets: Arc<AtomicUsize>,
}

impl PacketSink {
    fn new(load: Load, packets: Arc<AtomicUsize>) -> Self {
        let mergeable = Mergeable { tcp: true, udp: true };
        Self {
            load,
            coalescer: Coalescer::new(mergeable, DATAGRAM_BATCH * TRAIN_DATAGRAMS),
            packets,
        }
    }
}

impl IpPort for PacketSink {
    fn recv(&mut self, _: &mut IpBatch) -> Result<usize, SysError> {
        Ok(0)
    }

    fn send(&mut self, packets: &mut PlainBatch<'_>) -> Result<usize, SysError> {
        let (slabs, ranges) = packets.parts();
        for group in self.coalescer.plan(slabs, ranges) {
            assert_eq!(group.count(), self.load.packets(), "all go in one write");
            self.packets.fetch_add(group.count(), Ordering::Relaxed);
        }
        Ok(0)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Hands out one message a time of those that wait.
struct DatagramSource {
    load: Load,
    wire: Arc<Mutex<Wire>>,
}

impl DatagramPort for DatagramSource {
    fn recv(&mut self, batch: &mut DatagramBatch, _ready: [bool; 2]) -> Result<usize, SysError> {
        let Wire { messages, next } = &mut *lock(&self.wire);
        let Some(message) = messages.get(*next) else { return Ok(0) };
        *next += 1;
        copy(message, &mut batch.vacant()[0]);
        let (len, stride) = (message.len(), message.len() / self.load.packets());
        let from = endpoint();
        batch.push(Received { len, stride, from, ecn: Ecn::NotEct, truncated: false });
        Ok(1)
    }

    fn send(&mut self, _: &mut [Train]) -> Result<(), SysError> {
        panic!("nothing is sent")
    }

    fn take_narrowed(&mut self) -> Vec<Narrowed> {
        Vec::new()
    }

    fn fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [None, None]
    }
}

/// Sends nowhere.
struct DatagramSink {
    load: Load,
    datagrams: Arc<AtomicUsize>,
}

impl DatagramPort for DatagramSink {
    fn recv(&mut self, _: &mut DatagramBatch, _: [bool; 2]) -> Result<usize, SysError> {
        Ok(0)
    }

    fn send(&mut self, trains: &mut [Train]) -> Result<(), SysError> {
        for train in trains {
            assert_eq!(train.bytes().len(), self.load.sealed_bytes(), "all go in one train");
            self.datagrams.fetch_add(train.count(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn take_narrowed(&mut self) -> Vec<Narrowed> {
        Vec::new()
    }

    fn fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [None, None]
    }
}
