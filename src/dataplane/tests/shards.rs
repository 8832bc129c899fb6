//! Devices of several shards: whichever of them turns first, no inner flow overtakes itself.
//!
//! A hub and its clients. The kernel is played as it is: an inner flow always enters by the same
//! shard, and so do all datagrams from one address. All else is up to chance: which host does what
//! next, which shard of it, and what the network loses.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU32;

use super::*;
use crate::crypto::entropy::{Entropy, SeededEntropy};
use crate::dataplane::port::Ready;
use crate::dataplane::tables::Notice;
use crate::proto::device::{AllowedIpChange, Change, Device, Outputs, PeerUpdate};

/// Clients of the hub, which is host 0.
const CLIENTS: usize = 3;

/// Flows between the hub and each client, each way.
const FLOWS: u8 = 6;

/// How often chance acts.
const STEPS: u32 = 25_000;

struct Dice(SeededEntropy);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % bound as u64).unwrap()
    }
}

struct Host {
    address: SocketAddr,
    device: Device,
    outputs: Outputs,
    tables: Arc<Tables>,
    lane: Arc<Lane>,
    inboxes: Inboxes,
    shards: Vec<(Shard, MemoryIpPort, MemoryDatagramPort)>,
    /// What has left, and what has come for the user, of all shards in the order of their turns.
    sent: VecDeque<SentDatagram>,
    delivered: Vec<Vec<u8>>,
    /// Shards that have sent a packet or delivered one.
    busy: BTreeSet<usize>,
}

fn outer(host: usize, moves: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(host).unwrap()], 1000 + u16::from(moves)))
}

fn private(host: usize) -> PrivateKey {
    PrivateKey::from_bytes([u8::try_from(host).unwrap() + 1; 32])
}

impl Host {
    fn new(number: usize, shards: u32) -> Self {
        let (tables, lane) = <(Arc<Tables>, Arc<Lane>)>::default();
        let count = NonZeroU32::new(shards).unwrap();
        let inboxes = Inboxes::new(shards as usize);
        let shards = inboxes.iter().map(|inbox| {
            let (ip, udp) = (MemoryIpPort::default(), MemoryDatagramPort::default());
            let shard = Shard::one_of(
                count,
                Box::new(ip.clone()),
                Box::new(udp.clone()),
                Arc::clone(&tables),
                Arc::clone(&lane),
                Arc::clone(inbox),
            );
            (shard, ip, udp)
        });
        let shards = shards.collect();
        let device = Device::new(Box::new(SeededEntropy::new(number as u64)));
        let mut host = Self {
            address: outer(number, 0),
            device,
            outputs: Outputs::new(),
            tables,
            lane,
            inboxes,
            shards,
            sent: VecDeque::new(),
            delivered: Vec::new(),
            busy: BTreeSet::new(),
        };
        host.configure(Change::PrivateKey(Some(private(number))));
        host
    }

    fn add_peer(&mut self, peer: usize, endpoint: Option<SocketAddr>) {
        let mut update = PeerUpdate::new(StaticIdentity::new(private(peer)).public);
        update.endpoint = endpoint;
        let net = format!("10.0.{peer}.0/24").parse().unwrap();
        update.allowed_ips = vec![AllowedIpChange::Add(net)];
        self.configure(Change::Peer(update));
    }

    fn configure(&mut self, change: Change) {
        self.device.configure(at(1), change, &mut self.outputs).unwrap();
        self.apply();
    }

    fn apply(&mut self) {
        for output in self.outputs.drain() {
            let own = self.tables.apply(output, &self.inboxes);
            if matches!(own, Some(Notice::RoutesChanged)) {
                self.tables.set_routes(self.device.allowed_ips().routes());
            }
        }
    }

    /// What an engine does when it is woken.
    fn decide(&mut self, now: Now) {
        while let Some(signal) = self.lane.next_signal() {
            let out = &mut self.outputs;
            match signal {
                Signal::WantSession(peer) => self.device.want_session(now, peer, out),
                Signal::Confirmed(index) => self.device.handle_confirmed(now, index, out),
                Signal::Nudge(peer) => self.device.handle_nudge(now, peer, out),
                signal => panic!("{signal:?}"),
            }
        }
        while let Some(incoming) = self.lane.next_handshake() {
            let (from, load) = (incoming.from, self.lane.load(now.mono));
            let out = &mut self.outputs;
            // One that answers an initiation which was given up meanwhile is refused.
            let _ = self.device.handle_handshake(now, from, load, &incoming.datagram, out);
        }
        self.device.handle_timeout(now, &mut self.outputs);
        self.apply();
    }

    /// One turn of one shard; false if it had nothing to do.
    fn turn(&mut self, position: usize, now: Now) -> bool {
        let (shard, ip, udp) = &mut self.shards[position];
        let worked = match shard.turn(now, Ready::ALL) {
            Turn::Worked(_) => true,
            Turn::Idle => false,
            Turn::Stopped(stop) => panic!("{stop:?}"),
        };
        let (sent, delivered) = (udp.take_sent(), ip.take_delivered());
        if !delivered.is_empty() || sent.iter().any(|datagram| datagram.bytes[0] == 4) {
            self.busy.insert(position);
        }
        self.sent.extend(sent);
        self.delivered.extend(delivered);
        worked
    }

    fn settle(&mut self, now: Now) {
        while (0..self.shards.len()).any(|shard| self.turn(shard, now)) {}
    }

    /// The shard whose socket the kernel gives datagrams from `remote` to.
    fn receiver_of(&self, remote: SocketAddr) -> usize {
        let SocketAddr::V4(remote) = remote else { panic!("{remote}") };
        (usize::from(remote.ip().octets()[3]) + usize::from(remote.port())) % self.shards.len()
    }
}

/// The 28 bytes of headers, then flow, and number in the flow.
fn numbered(from: usize, to: usize, flow: u8, number: u32) -> Vec<u8> {
    let mut packet = packet(&format!("10.0.{from}.1"), &format!("10.0.{to}.1"), 0, 100, 0);
    packet[28] = flow;
    packet[29..33].copy_from_slice(&number.to_be_bytes());
    packet
}

struct World {
    hosts: Vec<Host>,
    now: Now,
    dice: Dice,
    /// The next number of each flow, by sender, receiver and flow.
    next: HashMap<(usize, usize, u8), u32>,
    sent: usize,
    moves: u8,
}

impl World {
    fn new(seed: u64, shards: u32) -> Self {
        let mut hosts: Vec<_> = (0..=CLIENTS).map(|number| Host::new(number, shards)).collect();
        for client in 1..=CLIENTS {
            hosts[0].add_peer(client, Some(outer(client, 0)));
            hosts[client].add_peer(0, Some(outer(0, 0)));
        }
        let (next, dice) = (HashMap::new(), Dice(SeededEntropy::new(seed)));
        let mut world = Self { hosts, now: at(1), dice, next, sent: 0, moves: 0 };
        // The clients call first: two handshakes at once may cost a packet, whatever the shards.
        (1..=CLIENTS).for_each(|client| world.say(client, 0, 0));
        world.finish();
        world
    }

    /// A user of a client or of the hub sends a packet of some flow.
    fn talk(&mut self) {
        let client = 1 + self.dice.below(CLIENTS);
        let (from, to) = if self.dice.below(2) == 0 { (0, client) } else { (client, 0) };
        let flow = u8::try_from(self.dice.below(usize::from(FLOWS))).unwrap();
        self.say(from, to, flow);
    }

    fn say(&mut self, from: usize, to: usize, flow: u8) {
        let next = self.next.entry((from, to, flow)).or_default();
        let packet = numbered(from, to, flow, *next);
        *next += 1;
        self.sent += 1;
        let host = &self.hosts[from];
        host.shards[(usize::from(flow) + from + to) % host.shards.len()].1.push(&packet);
    }

    /// The oldest datagram that has left some host arrives, unless it is lost, by chance or because
    /// nobody is at that address any more.
    fn carry(&mut self, loss_percent: usize) {
        let from = self.dice.below(self.hosts.len());
        let remote = self.hosts[from].address;
        let Some(datagram) = self.hosts[from].sent.pop_front() else { return };
        if self.dice.below(100) < loss_percent {
            return;
        }
        let mut hosts = self.hosts.iter();
        let Some(host) = hosts.find(|host| host.address == datagram.to.remote) else { return };
        let local = Some(LocalSource { address: host.address.ip(), interface: 3 });
        let (_, _, udp) = &host.shards[host.receiver_of(remote)];
        udp.push(Endpoint { remote, local }, Ecn::NotEct, &datagram.bytes);
    }

    /// A client gets another address, and the hub another shard for it. What the client had sent is
    /// lost or has been received: no shard knows what waits in the socket of another.
    fn roam(&mut self) {
        let client = 1 + self.dice.below(CLIENTS);
        self.moves += 1;
        self.hosts[client].address = outer(client, self.moves);
        self.hosts[client].sent.clear();
        self.hosts[0].settle(self.now);
    }

    /// Lets chance act.
    fn play(&mut self, loss_percent: usize, roams: bool) {
        for step in 1..=STEPS {
            // Seven minutes in all, that is three changes of keys, without a long silence.
            let passed = if step % 250 == 0 { 4000 } else { 1 };
            self.now.mono = self.now.mono + Duration::from_millis(passed);
            let host = self.dice.below(self.hosts.len());
            match self.dice.below(10) {
                0 | 1 => self.talk(),
                2..=4 => {
                    let shard = self.dice.below(self.hosts[host].shards.len());
                    self.hosts[host].turn(shard, self.now);
                }
                5 => self.hosts[host].decide(self.now),
                _ => (0..4).for_each(|_| self.carry(loss_percent)),
            }
            if roams && step % 1500 == 0 {
                self.roam();
            }
        }
    }

    /// Lets everything that has been sent arrive.
    fn finish(&mut self) {
        for _ in 0..100 {
            for host in &mut self.hosts {
                host.settle(self.now);
                host.decide(self.now);
                host.settle(self.now);
            }
            (0..2000).for_each(|_| self.carry(0));
        }
    }

    /// That every flow came in order; how many packets came.
    fn came_in_order(&self) -> usize {
        let mut last = HashMap::new();
        let mut came = 0;
        for host in &self.hosts {
            for packet in &host.delivered {
                assert_eq!(packet[9], 17, "an answer of our own to what could not be sent");
                let number = u32::from_be_bytes(*packet[29..].first_chunk().unwrap());
                let flow = (packet[14], packet[18], packet[28]);
                let before = last.insert(flow, number);
                assert!(
                    before.is_none_or(|before| before < number),
                    "{before:?}, {number}: {flow:?}"
                );
                came += 1;
            }
        }
        came
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.hosts.iter().map(|host| host.tables.drops.get(reason)).sum()
    }
}

#[test]
fn no_flow_is_reordered_and_no_packet_lost_by_1_2_or_4_shards_through_changes_of_keys() {
    for (shards, seed) in [(1, 1), (2, 2), (4, 3), (4, 4)] {
        let mut world = World::new(seed, shards);
        world.play(0, false);
        world.finish();
        let drops = world.hosts.iter().map(|host| &host.tables.drops).collect::<Vec<_>>();
        assert_eq!(world.came_in_order(), world.sent, "{shards} shards: {drops:?}");
        for host in &world.hosts {
            assert_eq!(host.busy.len(), shards as usize, "every shard moves packets");
        }
    }
}

#[test]
fn no_flow_is_reordered_by_1_2_or_4_shards_under_loss_and_roaming() {
    for (shards, seed) in [(1, 5), (2, 6), (4, 7), (4, 8)] {
        let mut world = World::new(seed, shards);
        world.play(5, true);
        world.finish();
        let came = world.came_in_order();
        assert!(came > world.sent * 3 / 4, "{came} of {} with {shards} shards", world.sent);
        assert_eq!(world.dropped(DropReason::CounterReplayed), 0);
        assert!(world.moves > 10);
    }
}

/// A host of four shards that knows the hub, and a session of its peer's making.
fn of_four_shards() -> Host {
    let mut host = Host::new(1, 4);
    host.add_peer(0, Some(outer(0, 0)));
    host
}

fn start_session(host: &Host, peer: PeerId) {
    let [Keypair { sealer, opener, local_index: index, .. }, _] = handshake(at(1), [11, 22]);
    let sealer = Arc::new(sealer);
    for output in [
        Output::Install { peer, index, opener, sealer: Arc::clone(&sealer), confirmed: true },
        Output::Current { peer, sealer: Some(sealer) },
        Output::Flush(peer),
    ] {
        assert!(host.tables.apply(output, &host.inboxes).is_none());
    }
}

#[test]
fn p_41_of_four_shards_without_staged_packets_one_sends_one_keepalive() {
    let mut host = of_four_shards();
    let (peer, _) = host.device.peers().next().unwrap();
    start_session(&host, peer);
    host.settle(at(1));
    let lengths: Vec<_> = host.sent.iter().map(|datagram| datagram.bytes.len()).collect();
    assert_eq!(lengths, [32]);
}

#[test]
fn p_71_what_waits_in_any_of_four_shards_is_sent_when_there_is_a_session_and_asked_for_once() {
    let mut host = of_four_shards();
    let (peer, _) = host.device.peers().next().unwrap();
    for number in 0..40 {
        host.shards[number as usize % 4].1.push(&numbered(1, 0, 0, number));
    }
    host.settle(at(1));
    assert!(host.sent.is_empty());
    let signals: Vec<_> = std::iter::from_fn(|| host.lane.next_signal()).collect();
    assert!(matches!(signals[..], [Signal::WantSession(_)]), "{signals:?}");
    start_session(&host, peer);
    host.settle(at(1));
    assert_eq!(host.sent.len(), 40);
}

#[test]
fn what_is_staged_for_a_peer_that_goes_or_is_given_up_is_dropped_by_every_shard() {
    for given_up in [true, false] {
        let mut host = of_four_shards();
        let (peer, _) = host.device.peers().next().unwrap();
        (0..4).for_each(|shard| host.shards[shard].1.push(&numbered(1, 0, 0, 0)));
        host.settle(at(1));
        let (output, reason) = if given_up {
            (Output::PurgeStaged(peer), DropReason::StagedPurged)
        } else {
            (Output::PeerRemoved(peer), DropReason::PeerRemoved)
        };
        host.tables.apply(output, &host.inboxes);
        host.settle(at(1));
        assert_eq!(host.tables.drops.get(reason), 4);
    }
}
