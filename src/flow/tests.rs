//! The engine with sockets of its own on the loopback interface, packets of peers that are made here,
//! and a clock that is moved by hand.

mod exposed;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::crypto::entropy::SeededEntropy;
use crate::dataplane::tables::Tables;
use crate::flow::engine::{Engine, Fate};
use crate::flow::inner::{Inner, ip_header_bytes, write_echo, write_ip, write_udp};
use crate::flow::policy::Policy;
use crate::flow::slots::LOOKS;
use crate::flow::switch::{Settings, Switch};
use crate::flow::tcp::{Checksum, Config, Connection, End, MAX_PACKET_BYTES, Packet, Stack, State};
use crate::packet::batch::IpBatch;
use crate::packet::split::Splitter;
use crate::proto::allowed_ips::AllowedIps;
use crate::proto::drop_reason::DropReason;
use crate::proto::peer::PeerId;
use crate::sys::clock;
use crate::sys::poll::{Interest, Poller};
use crate::sys::sockets::raise_descriptor_limit;
use crate::time::Instant;

/// What must come comes by then, also on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// The first number that is no peer's.
const PEERS: u32 = 8;

/// An engine, and peers with their connections.
struct Bench {
    engine: Engine,
    tables: Arc<Tables>,
    switch: Arc<Switch>,
    now: Instant,
    batch: IpBatch,
    poller: Poller,
    stack: Arc<Stack>,
    connections: BTreeMap<SocketAddr, Connection>,
    /// What came for peers and belongs to none of their connections.
    others: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

fn settings(rules: &[&str]) -> Settings {
    let allow_to = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let tunnel = ["10.10.0.1/16", "fd10::1/16"].map(|network| network.parse().unwrap());
    let policy = Policy { allow_to, ..Policy::default() };
    Settings { policy, tunnel: tunnel.to_vec(), carries: true, ..Settings::default() }
}

/// An address of a peer's.
fn inside(peer: u32, port: u16) -> SocketAddr {
    // Lossless: there are few peers.
    SocketAddr::from(([10, 10, peer as u8, 2], port))
}

impl Bench {
    fn new(rules: &[&str]) -> Self {
        let tables = Arc::new(Tables::new());
        let mut allowed = AllowedIps::new();
        for peer in 1..PEERS {
            for network in [format!("10.10.{peer}.0/24"), format!("fd10:{peer}::/32")] {
                allowed.insert(network.parse().unwrap(), PeerId(peer));
            }
        }
        tables.set_routes(allowed.routes());
        let switch = Arc::new(Switch::new(settings(rules)).unwrap());
        let engine = Engine::new(Arc::clone(&tables), Arc::clone(&switch), true).unwrap();
        let poller = Poller::new().unwrap();
        poller.add(engine.as_fd(), 0, Interest::Readable).unwrap();
        let config = Config { handshake_timeout: SOON, ..Config::default() };
        Self {
            engine,
            tables,
            switch,
            now: clock::now().mono,
            batch: IpBatch::with_capacity(64, 1 << 20),
            poller,
            stack: Arc::new(Stack::new(config, &mut SeededEntropy::new(1))),
            connections: BTreeMap::new(),
            others: Vec::new(),
            buffer: vec![0; MAX_PACKET_BYTES],
        }
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.tables.drops.get(reason)
    }

    /// A packet of a peer's.
    fn take(&mut self, mut packet: Vec<u8>) {
        match self.engine.take(self.now, &mut packet) {
            Fate::Taken => {}
            Fate::Tunnel(_) => panic!("no peer speaks to another here"),
            Fate::Kernel => panic!("none is for the kernel"),
        }
        self.engine.settle(self.now);
    }

    fn connect(&mut self, from: SocketAddr, place: SocketAddr) {
        let connection = Connection::connect(self.now, &self.stack, from, place);
        self.connections.insert(from, connection);
        self.speak(from);
    }

    /// Has the engine take what a connection of a peer's sends.
    fn speak(&mut self, from: SocketAddr) {
        let mut packets = Vec::new();
        let Some(connection) = self.connections.get_mut(&from) else { return };
        while let Some(sent) = connection.poll_transmit(self.now, &mut self.buffer) {
            let mut splitter = Splitter::new(&mut self.buffer[..sent.len], &sent.vnet).unwrap();
            while let Some(packet) = splitter.next() {
                packets.push(packet.to_vec());
            }
        }
        packets.into_iter().for_each(|packet| self.take(packet));
    }

    fn state(&self, from: SocketAddr) -> State {
        self.connections[&from].state()
    }

    /// One turn of a shard, a millisecond after the last: what has happened, then what is for peers,
    /// which they get.
    fn turn(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        let is_due = |connection: &Connection| {
            connection.next_deadline().is_some_and(|deadline| deadline <= self.now)
        };
        let due = self.connections.iter().filter(|(_, connection)| is_due(connection));
        for from in due.map(|(from, _)| *from).collect::<Vec<_>>() {
            if let Some(connection) = self.connections.get_mut(&from) {
                connection.on_deadline(self.now);
            }
            self.speak(from);
        }
        self.engine.look(self.now).unwrap();
        self.batch.clear();
        self.engine.fill(self.now, &mut self.batch);
        self.engine.rest().unwrap();
        let mut arrived = Vec::new();
        for position in 0..self.batch.count() {
            let (packet, vnet) = self.batch.packet(position);
            let mut splitter = Splitter::new(packet, &vnet.unwrap()).unwrap();
            while let Some(packet) = splitter.next() {
                arrived.push(packet.to_vec());
            }
        }
        for packet in arrived {
            let segment = Packet::parse(&packet, Checksum::Verify);
            let to = segment.map(|segment| segment.destination);
            let connection = to.ok().and_then(|to| self.connections.get_mut(&to));
            match (connection, segment) {
                (Some(connection), Ok(segment)) => {
                    connection.on_segment(self.now, &segment.segment);
                    self.speak(segment.destination);
                }
                _ => self.others.push(packet),
            }
        }
    }

    /// Turns until `condition` holds. What is waited for happens in the kernel, and in no time of ours.
    #[track_caller]
    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let started = clock::now().mono;
        while !condition(self) {
            assert!(clock::now().mono.since(started) < SOON, "not soon: {what}");
            self.poller.wait(Some(Duration::from_millis(5))).unwrap().for_each(drop);
            self.turn();
        }
    }

    /// Lets time pass, and does each thing when it is due.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now = end.min(self.now + Duration::from_secs(1));
            self.turn();
            self.turn();
        }
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    (listener, place)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn datagram(from: SocketAddr, to: SocketAddr, content: &[u8]) -> Vec<u8> {
    let headers = if from.is_ipv4() { 28 } else { 48 };
    let mut packet = vec![0; headers + content.len()];
    packet[headers..].copy_from_slice(content);
    write_udp(&mut packet, from, to, 1).unwrap();
    packet
}

#[test]
fn loopback_is_denied_until_a_rule_names_it_and_by_another_name_always() {
    let (listener, place) = listen();
    listener.set_nonblocking(true).unwrap();
    let mut bench = Bench::new(&[]);
    bench.connect(inside(1, 1000), place);
    bench.take(datagram(inside(1, 1000), place, b"hello"));
    assert_eq!(bench.dropped(DropReason::FlowDenied), 2);
    // The same place by names that sockets, or routers on the way, would take for it.
    let port = place.port();
    let peer = SocketAddr::new("fd10:1::2".parse().unwrap(), 1000);
    let other_names = ["::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::1", "::1"];
    let refusals = |bench: &mut Bench, rules: &[&str]| {
        bench.switch.set(Some(settings(rules)));
        bench.turn();
        bench.others.clear();
        for name in other_names {
            let place = SocketAddr::new(name.parse().unwrap(), port);
            bench.connect(peer, place);
            bench.take(datagram(peer, place, b"hello"));
            bench.connections.remove(&peer);
        }
        bench.turn();
        bench.others.iter().filter(|packet| packet[40..42] == [1, 1]).count()
    };
    // To the loopback address itself nothing is ever answered. [RFC 4443 §2.4]
    assert_eq!(refusals(&mut bench, &[]), 6);
    assert_eq!(bench.dropped(DropReason::FlowDenied), 2 + 8);
    // A rule for the whole of IPv6, or for the mapped address, opens none of the inner ones.
    assert_eq!(refusals(&mut bench, &["2000::/3", "::ffff:127.0.0.1", "64:ff9b::/96"]), 6);
    assert_eq!(bench.dropped(DropReason::FlowDenied), 2 + 8 + 8);
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(bench.switch.flows(), 0);

    bench.switch.set(Some(settings(&["127.0.0.1/tcp"])));
    bench.turn();
    bench.connect(inside(1, 1001), place);
    bench.until("a connection", |bench| bench.state(inside(1, 1001)) == State::Established);
    bench.take(datagram(inside(1, 1001), place, b"hello"));
    assert_eq!(bench.dropped(DropReason::FlowDenied), 2 + 8 + 8 + 1, "UDP is not named");
}

#[test]
fn a_peer_that_vanishes_has_no_socket_left_after_four_minutes() {
    let (listener, place) = listen();
    let mut bench = Bench::new(&["127.0.0.1"]);
    let [vanishes, stays] = [inside(1, 1000), inside(2, 1000)];
    for from in [vanishes, stays] {
        bench.connect(from, place);
        bench.until("a connection", |bench| bench.state(from) == State::Established);
    }
    let mut served = [accept(&listener), accept(&listener)];
    // No word of any connection of this peer's from now on.
    bench.connections.remove(&vanishes);
    bench.pass(Duration::from_secs(235));
    assert_eq!(bench.switch.flows(), 2);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.switch.flows(), 1, "120 s without a word, and four questions of 30 s");
    let error = served[0].read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // Who answers stays, however little he has to say.
    bench.pass(Duration::from_secs(3600));
    served[1].write_all(b"still there").unwrap();
    bench.until("what was said", |bench| bench.connections[&stays].readable_bytes() == 11);
}

#[test]
fn a_udp_port_is_forgotten_after_five_minutes_without_a_word_of_its_peer() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut bench = Bench::new(&["127.0.0.1"]);
    bench.take(datagram(inside(1, 1000), server.local_addr().unwrap(), b"hello"));
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    bench.pass(Duration::from_secs(299));
    // What comes from outside keeps it no longer. [RFC 4787 §4.3, REQ-6]
    server.send_to(b"hi", from).unwrap();
    bench.until("an answer", |bench| bench.others.len() == 1);
    assert_eq!(Inner::parse(&bench.others[0]).unwrap().udp().unwrap().2, b"hi");
    bench.turn();
    assert_eq!(bench.switch.flows(), 1);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.switch.flows(), 0);
}

#[test]
fn a_flood_of_10_000_syns_has_its_share_and_another_peers_flow_goes_on() {
    // Whoever is asked here never answers: his queue is full.
    let full = TcpListener::bind("0.0.0.0:0").unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let port = full.local_addr().unwrap().port();
    let _fill = [(); 2].map(|()| dial(SocketAddr::from(([127, 0, 0, 1], port))));
    let (listener, place) = listen();
    let mut bench = Bench::new(&["127.0.0.0/8"]);
    let good = inside(2, 1000);
    bench.connect(good, place);
    bench.until("a connection", |bench| bench.state(good) == State::Established);
    let mut served = accept(&listener);
    let wanted: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut written, mut heard) = (0, Vec::new());
    served.set_nonblocking(true).unwrap();
    for n in 0..10_000_u32 {
        let [_, _, high, low] = n.to_be_bytes();
        let from = inside(1, 1000 + (n % 60_000) as u16);
        bench.connect(from, SocketAddr::from(([127, 1, high, low], port)));
        bench.connections.remove(&from);
        let connection = bench.connections.get_mut(&good).unwrap();
        written += connection.write(&wanted[written..wanted.len().min(written + 10)]);
        bench.speak(good);
        let mut buffer = [0; 4096];
        if let Ok(count) = served.read(&mut buffer) {
            heard.extend_from_slice(&buffer[..count]);
        }
        bench.now = bench.now + Duration::from_micros(200);
        if n % 16 == 0 {
            bench.turn();
        }
    }
    bench.until("the rest", |_| {
        let mut buffer = [0; 4096];
        if let Ok(count) = served.read(&mut buffer) {
            heard.extend_from_slice(&buffer[..count]);
        }
        heard.len() == wanted.len()
    });
    assert!(heard == wanted, "other bytes than were sent");
    // One peer may make 256 connections at once.
    assert_eq!(bench.dropped(DropReason::FlowLimit), 10_000 - 256);
    assert_eq!(bench.switch.flows(), 1 + 256);
    bench.pass(Duration::from_secs(16));
    assert_eq!(bench.switch.flows(), 1, "and gives up each after 15 s");
}

/// Begins to connect and does not wait.
fn dial(place: SocketAddr) -> rustix::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    let _ = connect(&socket, &place);
    socket
}

#[test]
fn ten_thousand_idle_flows_are_not_looked_at_when_another_is_used() {
    // Descriptors are what there may be fewer of.
    let spare = usize::try_from(raise_descriptor_limit()).unwrap_or(usize::MAX);
    let idle = spare.saturating_sub(1000).min(10_000);
    let listeners = [(); 5].map(|()| {
        let (listener, place) = listen();
        // Connections that nobody takes wait here, as the other ends of idle flows.
        rustix::net::listen(&listener, 4096).unwrap();
        (listener, place)
    });
    let mut bench = Bench::new(&["127.0.0.1"]);
    let used = inside(7, 1000);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    bench.connect(used, server.local_addr().unwrap());
    bench.until("a connection", |bench| bench.state(used) == State::Established);
    let mut served = accept(&server);
    let mut work = |bench: &mut Bench| {
        let before = LOOKS.get();
        for _ in 0..100 {
            bench.connections.get_mut(&used).unwrap().write(b"ping");
            bench.speak(used);
            let mut heard = [0; 4];
            served.read_exact(&mut heard).unwrap();
            served.write_all(&heard).unwrap();
            bench.until("an echo", |bench| bench.connections[&used].readable_bytes() == 4);
            bench.connections.get_mut(&used).unwrap().consume(4);
        }
        LOOKS.get() - before
    };
    let alone = work(&mut bench);
    for n in 0..idle {
        let (_, place) = listeners[n % 5];
        let peer = 1 + (n % 5) as u32;
        let from = inside(peer, 1000 + (n / 5) as u16);
        bench.connect(from, place);
        bench.until("a connection", |bench| bench.state(from) == State::Established);
        bench.connections.remove(&from);
    }
    // What is left of their beginning is done, and the questions whether they live have not begun.
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.switch.flows(), 1 + idle);
    let among_many = work(&mut bench);
    // The kernel tells of data and of room together, or one after the other.
    assert!(among_many <= alone + 200, "{among_many} looks at flows instead of {alone}");
    assert!(alone < 2000, "{alone} looks for 100 pings and answers");
}

#[test]
fn a_reset_and_an_end_pass_and_leave_nothing_behind() {
    let (listener, place) = listen();
    let mut bench = Bench::new(&["127.0.0.1"]);
    let [resets, ends] = [inside(1, 1000), inside(1, 1001)];
    for from in [resets, ends] {
        bench.connect(from, place);
        bench.until("a connection", |bench| bench.state(from) == State::Established);
    }
    let mut served = [accept(&listener), accept(&listener)];
    bench.connections.get_mut(&resets).unwrap().abort();
    bench.speak(resets);
    bench.turn();
    let error = served[0].read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    bench.connections.get_mut(&ends).unwrap().shutdown_write();
    bench.speak(ends);
    bench.turn();
    assert_eq!(served[1].read(&mut [0; 8]).unwrap(), 0);
    drop(served);
    bench.until("the end", |bench| bench.connections[&ends].state() == State::TimeWait);
    bench.turn();
    assert_eq!(bench.switch.flows(), 0);
}

#[test]
fn what_a_server_says_before_its_reset_arrives_before_it() {
    let (listener, place) = listen();
    let mut bench = Bench::new(&["127.0.0.1"]);
    let from = inside(1, 1000);
    bench.connect(from, place);
    bench.until("a connection", |bench| bench.state(from) == State::Established);
    let mut served = accept(&listener);
    let wanted: Vec<u8> = (0..40_000_u32).map(|n| (n % 251) as u8).collect();
    served.write_all(&wanted).unwrap();
    rustix::net::sockopt::set_socket_linger(&served, Some(Duration::ZERO)).unwrap();
    drop(served);
    // Nobody hears this: so the engine learns of the reset before it has read what came before.
    bench.connections.get_mut(&from).unwrap().write(b"unheard");
    bench.speak(from);
    let mut heard = Vec::new();
    bench.until("the reset", |bench| {
        let connection = bench.connections.get_mut(&from).unwrap();
        connection.readable().for_each(|bytes| heard.extend_from_slice(bytes));
        connection.consume(connection.readable_bytes());
        connection.end().is_some()
    });
    assert!(heard == wanted, "{} of {} bytes", heard.len(), wanted.len());
    assert_eq!(bench.connections[&from].end(), Some(End::Reset));
    assert_eq!(bench.switch.flows(), 0);
}

#[test]
fn neither_side_is_read_faster_than_the_other_takes() {
    let (listener, place) = listen();
    let mut bench = Bench::new(&["127.0.0.1"]);
    let from = inside(1, 1000);
    bench.connect(from, place);
    bench.until("a connection", |bench| bench.state(from) == State::Established);
    let mut served = accept(&listener);
    served.set_nonblocking(true).unwrap();
    // From behind the host, to a peer that reads nothing: it stands in the buffers of both, and then
    // with its sender.
    let piece = [7; 16 << 10];
    let mut write = |bench: &mut Bench| {
        let mut written = 0;
        for _ in 0..1000 {
            while let Ok(count) = served.write(&piece) {
                written += count;
                assert!(written < 64 << 20, "there is no end of it");
            }
            bench.turn();
        }
        written
    };
    let written = write(&mut bench);
    assert_eq!(write(&mut bench), 0, "nothing more is taken");
    let mut read = 0;
    bench.until("all of it", |bench| {
        let connection = bench.connections.get_mut(&from).unwrap();
        assert!(connection.readable().flatten().all(|byte| *byte == 7));
        read += connection.readable_bytes();
        connection.consume(connection.readable_bytes());
        bench.speak(from);
        read == written
    });

    // From a peer, to somebody who reads nothing.
    let write = |bench: &mut Bench| {
        let mut written = 0;
        for _ in 0..1000 {
            let connection = bench.connections.get_mut(&from).unwrap();
            written += connection.write(&piece);
            assert!(written < 64 << 20, "there is no end of it");
            bench.speak(from);
            bench.turn();
        }
        written
    };
    let written = write(&mut bench);
    assert_eq!(write(&mut bench), 0, "nothing more is taken");
    let (mut read, mut buffer) = (0, vec![0; 64 << 10]);
    bench.until("all of it", |_| {
        while let Ok(count) = served.read(&mut buffer) {
            assert!(buffer[..count].iter().all(|byte| *byte == 7));
            read += count;
        }
        read == written
    });
}

/// An IP packet with this payload.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let headers = ip_header_bytes(from.is_ipv4());
    let mut packet = vec![0; headers + payload.len()];
    packet[headers..].copy_from_slice(payload);
    write_ip(&mut packet, from, to, protocol, 1).unwrap();
    packet
}

#[test]
fn what_no_socket_carries_is_refused_and_the_last_hop_is_told() {
    let mut bench = Bench::new(&[]);
    for (from, to, own, unknown, exhausted) in [
        ("10.10.1.2", "192.0.2.1", "10.10.0.1", [3, 2], [11, 0]),
        ("fd10:1::2", "2001:db8::1", "fd10::1", [4, 1], [3, 0]),
    ] {
        let [from, to, own] = [from, to, own].map(|text| text.parse::<IpAddr>().unwrap());
        let hops = if from.is_ipv4() { 8 } else { 7 };
        let gre = packet(from, to, 47, &[0; 16]);
        let mut last = gre.clone();
        last[hops] = 1;
        let headers = ip_header_bytes(from.is_ipv4());
        for (packet, named, expected) in [(gre, to, unknown), (last, own, exhausted)] {
            bench.take(packet.clone());
            bench.turn();
            let told = bench.others.pop().unwrap();
            let inner = Inner::parse(&told).unwrap();
            assert_eq!((inner.source, inner.destination), (named, from));
            assert!(inner.icmp().is_some(), "its checksum is right");
            assert_eq!(inner.payload[..2], expected);
            assert_eq!(inner.payload[8..][headers..], packet[headers..]);
        }
    }
    assert_eq!(bench.dropped(DropReason::FlowUnsupported), 2);
    assert_eq!(bench.dropped(DropReason::FlowHops), 2);
}

#[test]
fn a_narrow_path_inside_is_believed_of_the_peer_whose_flow_it_is() {
    let (listener, place) = listen();
    let mut bench = Bench::new(&["127.0.0.1"]);
    let from = inside(1, 1000);
    bench.connect(from, place);
    bench.until("a connection", |bench| bench.state(from) == State::Established);
    // What comes for it is kept from it.
    let connection = bench.connections.remove(&from).unwrap();
    accept(&listener).write_all(&[7; 4000]).unwrap();
    bench.until("a segment", |bench| !bench.others.is_empty());
    let large = bench.others.remove(0);
    assert_eq!(large.len(), 1360);
    bench.others.clear();
    // Fragmentation needed: 1000 bytes would fit. [RFC 1191 §4]
    let message = [&[3, 4, 0, 0, 0, 0, 0x03, 0xe8][..], &large[..28]].concat();
    let tell = |bench: &mut Bench, router: [u8; 4]| {
        let mut told = packet(router.into(), place.ip(), 1, &message);
        write_echo(&mut told, router.into(), place.ip(), 0, 1).unwrap();
        bench.take(told);
        bench.turn();
        let repeated = bench.others.iter().map(Vec::len).max();
        bench.others.clear();
        repeated
    };
    assert_eq!(tell(&mut bench, [10, 10, 2, 9]), None, "another peer's router has no say in it");
    assert!(tell(&mut bench, [10, 10, 1, 9]).is_some_and(|len| len <= 1000), "sent again, smaller");
    bench.connections.insert(from, connection);
    bench.until("all of it", |bench| bench.connections[&from].readable_bytes() == 4000);
}
