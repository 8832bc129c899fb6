//! Two nodes on ports made of queues, with sessions from real handshakes and a clock of our own.

mod batch;
mod clamp;
mod devices;
mod established;
mod hostile;
mod offload;
mod path_mtu;
mod sessions;
mod shards;
mod thread;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use crate::crypto::tai64n::Timestamp;
use crate::dataplane::inbox::{Inbox, Inboxes, ShardCommand};
use crate::dataplane::lane::{Lane, Signal};
use crate::dataplane::memory_port::{MemoryDatagramPort, MemoryIpPort, SentDatagram};
use crate::dataplane::port::Ready;
use crate::dataplane::shard::{Shard, Turn};
use crate::dataplane::tables::{PeerPath, Tables};
use crate::proto::allowed_ips::AllowedIps;
use crate::proto::device::Output;
use crate::proto::drop_reason::DropReason;
use crate::proto::endpoint::{Endpoint, LocalSource};
use crate::proto::handshake::{InitiationOpened, InitiationSent, RemoteStatic, StaticIdentity};
use crate::proto::index::Index;
use crate::proto::keypair::Keypair;
use crate::proto::peer::PeerId;
use crate::proto::timers::Facts;
use crate::time::{Instant, Now};
use crate::wire::checksum::checksum;
use crate::wire::ip::Ecn;

/// The other node, in the tables of each.
const PEER: PeerId = PeerId(1);

/// A second peer, who has a route and nothing else.
const OTHER: PeerId = PeerId(2);

struct Node {
    address: SocketAddr,
    tables: Arc<Tables>,
    lane: Arc<Lane>,
    inboxes: Inboxes,
    inbox: Arc<Inbox>,
    ip: MemoryIpPort,
    udp: MemoryDatagramPort,
    shard: Shard,
}

fn at(seconds: u64) -> Now {
    Now { mono: Instant::ZERO + Duration::from_secs(seconds), ..Now::default() }
}

impl Node {
    /// A node at `address` that routes `routes` to their peers.
    fn new(address: &str, routes: &[(&str, PeerId)]) -> Self {
        let (tables, lane) = <(Arc<Tables>, Arc<Lane>)>::default();
        let inboxes = Inboxes::new(1);
        let inbox = inboxes.iter().next().map(Arc::clone).unwrap();
        let (ip, udp) = (MemoryIpPort::default(), MemoryDatagramPort::default());
        let shard = Shard::new(
            Box::new(ip.clone()),
            Box::new(udp.clone()),
            Arc::clone(&tables),
            Arc::clone(&lane),
            Arc::clone(&inbox),
        );
        let address = address.parse().unwrap();
        let node = Self { address, tables, lane, inboxes, inbox, ip, udp, shard };
        for peer in [PEER, OTHER] {
            let public_key = PublicKey::from_bytes([7; 32]);
            node.apply(Output::PeerAdded { peer, public_key, facts: Arc::new(Facts::new()) });
        }
        let mut allowed = AllowedIps::new();
        for (net, peer) in routes {
            allowed.insert(net.parse().unwrap(), *peer);
        }
        node.tables.set_routes(allowed.routes());
        node
    }

    fn apply(&self, output: Output) {
        assert!(self.tables.apply(output, &self.inboxes).is_none());
    }

    fn path(&self) -> Arc<PeerPath> {
        self.tables.peer(PEER).unwrap()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.tables.drops.get(reason)
    }

    /// Turns until there is nothing left to do.
    fn settle(&mut self, now: Now) {
        loop {
            match self.shard.turn(now, Ready::ALL) {
                Turn::Worked(_) => {}
                Turn::Idle => break,
                Turn::Stopped(stop) => panic!("{stop:?}"),
            }
        }
    }

    /// Lets the host send `packets`, and returns the datagrams that leave.
    fn send(&mut self, now: Now, packets: &[Vec<u8>]) -> Vec<SentDatagram> {
        packets.iter().for_each(|packet| self.ip.push(packet));
        self.settle(now);
        self.udp.take_sent()
    }

    /// Lets `datagrams` of `from` arrive, and returns the packets that the host gets.
    fn receive(&mut self, now: Now, from: &Self, datagrams: &[SentDatagram]) -> Vec<Vec<u8>> {
        self.receive_from(now, from.address, datagrams)
    }

    fn receive_from(
        &mut self,
        now: Now,
        remote: SocketAddr,
        datagrams: &[SentDatagram],
    ) -> Vec<Vec<u8>> {
        let from = Endpoint { remote, local: Some(self.source()) };
        for datagram in datagrams {
            let ecn = Ecn::from_traffic_class(datagram.traffic_class);
            self.udp.push(from, ecn, &datagram.bytes);
        }
        self.settle(now);
        self.ip.take_delivered()
    }

    fn source(&self) -> LocalSource {
        LocalSource { address: self.address.ip(), interface: 3 }
    }

    fn signals(&self) -> Vec<Signal> {
        std::iter::from_fn(|| self.lane.next_signal()).collect()
    }

    /// How often the engine was asked for a session with the peer since it was last asked here.
    fn sessions_wanted(&self) -> usize {
        let wanted = |signal: &Signal| matches!(signal, Signal::WantSession(PEER));
        self.signals().iter().filter(|signal| wanted(signal)).count()
    }

    /// A session to receive with.
    fn install(&self, keypair: Keypair, confirmed: bool) -> Arc<crate::proto::keypair::Sealer> {
        let Keypair { sealer, opener, local_index: index, .. } = keypair;
        let sealer = Arc::new(sealer);
        let install =
            Output::Install { peer: PEER, index, opener, sealer: Arc::clone(&sealer), confirmed };
        self.apply(install);
        sealer
    }

    fn make_current(&self, sealer: Arc<crate::proto::keypair::Sealer>) {
        self.apply(Output::Current { peer: PEER, sealer: Some(sealer) });
    }

    fn reach(&self, remote: SocketAddr) {
        self.apply(Output::Roamed(PEER, Endpoint::new(remote)));
    }
}

/// A session that begins at `now`, as its initiator and its responder have it.
fn handshake(now: Now, indices: [u32; 2]) -> [Keypair; 2] {
    let identity = |byte| StaticIdentity::new(PrivateKey::from_bytes([byte; 32]));
    let (us, them) = (identity(1), identity(2));
    let ours = RemoteStatic::new(&us, them.public, PresharedKey::NONE);
    let theirs = RemoteStatic::new(&them, us.public, PresharedKey::NONE);
    let ephemeral = |byte| PrivateKey::from_bytes([byte; 32]);
    let [first, second] = indices.map(Index);
    let stamp = Timestamp::from_wall(now.wall);
    let (sent, initiation) =
        InitiationSent::create(&us, &ours, ephemeral(3), first, stamp).unwrap();
    let received = InitiationOpened::open(&them, &initiation).unwrap().verify(&theirs).unwrap();
    let (response, responder) =
        received.create_response(now.mono, &theirs, ephemeral(4), second).unwrap();
    let initiator = sent.consume_response(now.mono, &us, &ours, &response).unwrap();
    [initiator, responder]
}

const A: &str = "192.0.2.1:1001";
const B: &str = "198.51.100.2:1002";

/// Two nodes without a session: `a` has 10.0.1.0/24 and fd00:1::/64 behind it, `b` 10.0.2.0/24 and
/// fd00:2::/64.
fn strangers() -> [Node; 2] {
    let a = Node::new(A, &[("10.0.2.0/24", PEER), ("fd00:2::/64", PEER)]);
    let b = Node::new(B, &[("10.0.1.0/24", PEER), ("fd00:1::/64", PEER)]);
    a.reach(b.address);
    b.reach(a.address);
    [a, b]
}

/// The same with a session since `now`, of which `a` is the initiator.
fn connected(now: Now) -> [Node; 2] {
    let [a, b] = strangers();
    let [initiator, responder] = handshake(now, [11, 22]);
    a.make_current(a.install(initiator, true));
    b.make_current(b.install(responder, true));
    [a, b]
}

/// A UDP packet over IP of `len` bytes, at least 48, whose last byte is `mark`.
fn packet(source: &str, destination: &str, class: u8, len: usize, mark: u8) -> Vec<u8> {
    let mut packet = vec![0; len];
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet[..2].copy_from_slice(&[0x45, class]);
            packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            packet[8..10].copy_from_slice(&[64, 17]);
            packet[12..16].copy_from_slice(&source.octets());
            packet[16..20].copy_from_slice(&destination.octets());
            let sum = checksum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet[..2].copy_from_slice(&[0x60 | (class >> 4), class << 4]);
            packet[4..6].copy_from_slice(&u16::try_from(len - 40).unwrap().to_be_bytes());
            packet[6..8].copy_from_slice(&[17, 64]);
            packet[8..24].copy_from_slice(&source.octets());
            packet[24..40].copy_from_slice(&destination.octets());
        }
        (source, destination) => panic!("{source} to {destination}"),
    }
    packet[len - 1] = mark;
    packet
}

/// From behind `a` to behind `b`.
fn there(len: usize, mark: u8) -> Vec<u8> {
    packet("10.0.1.1", "10.0.2.1", 0, len, mark)
}

/// From behind `b` to behind `a`.
fn back(len: usize, mark: u8) -> Vec<u8> {
    packet("10.0.2.1", "10.0.1.1", 0, len, mark)
}
