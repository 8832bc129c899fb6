//! Against smoltcp, which somebody else wrote from the same RFCs, over the same line: whoever connects,
//! sends, ends or resets first.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{self, RecvError};
use smoltcp::time::Instant as Micros;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::super::{
    Algorithm, Checksum, Config, Connection, End, Packet, Stack, State, Syn, refuse,
};
use super::arrival::path;
use super::line::{Direction, PIECE_BYTES, Path, Peer, pattern};
use crate::crypto::entropy::SeededEntropy;
use crate::packet::split::Splitter;
use crate::time::Instant;

/// Our end and the other, per family.
const ADDRESSES: [[&str; 2]; 2] = [["10.0.0.1", "10.0.0.2"], ["fd00::1", "fd00::2"]];
const PORTS: [u16; 2] = [1000, 80];

/// Whose end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Ours,
    Theirs,
    Both,
}

#[derive(Clone, Copy, Debug)]
struct Script {
    seed: u64,
    paths: [Path; 2],
    is_v4: bool,
    we_connect: bool,
    /// What we send, and what they send.
    bytes: [u64; 2],
    /// Who is not first says its end when it has heard the other's.
    ends_first: First,
    /// Which side resets the connection when it has read so much.
    reset: Option<(usize, u64)>,
    their_buffer: usize,
    our_buffer: usize,
    they_stamp: bool,
    congestion: Algorithm,
    mtu: [u32; 2],
}

/// Where smoltcp finds packets and leaves them.
struct Wire {
    arrived: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    mtu: usize,
}

struct Arrived(Vec<u8>);
struct Leaving<'a>(&'a mut Vec<Vec<u8>>);

impl phy::RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl phy::TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let outcome = write(&mut packet);
        self.0.push(packet);
        outcome
    }
}

impl Device for Wire {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Micros) -> Option<(Arrived, Leaving<'_>)> {
        self.arrived.pop_front().map(|packet| (Arrived(packet), Leaving(&mut self.sent)))
    }

    fn transmit(&mut self, _: Micros) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

thread_local! {
    /// What smoltcp's timestamps are made from: it asks without saying for whom.
    static CLOCK: Cell<u32> = const { Cell::new(0) };
}

fn micros(now: Instant) -> Micros {
    Micros::from_micros((now.as_nanos() / 1000) as i64)
}

/// smoltcp, with an application that sends and checks the pattern.
struct Other {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    written: u64,
    read: u64,
    saw_end_of_stream: bool,
    is_done: bool,
}

impl Other {
    fn new(script: &Script, now: Instant) -> Self {
        let [ours, theirs] = ADDRESSES[usize::from(!script.is_v4)]
            .map(|address| address.parse::<IpAddress>().unwrap());
        let mtu = script.mtu[1] as usize;
        let mut wire = Wire { arrived: VecDeque::new(), sent: Vec::new(), mtu };
        let mut config = InterfaceConfig::new(HardwareAddress::Ip);
        config.random_seed = script.seed;
        let mut interface = Interface::new(config, &mut wire, micros(now));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(theirs, 24)).unwrap();
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; script.their_buffer]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // Whoever is reset and does not hear of it finds out.
        socket.set_keep_alive(Some(smoltcp::time::Duration::from_secs(60)));
        if script.they_stamp {
            socket.set_tsval_generator(Some(|| CLOCK.get()));
        }
        if script.we_connect {
            socket.listen(PORTS[1]).unwrap();
        } else {
            socket.connect(interface.context(), (ours, PORTS[0]), (theirs, PORTS[1])).unwrap();
        }
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self {
            interface,
            wire,
            sockets,
            handle,
            written: 0,
            read: 0,
            saw_end_of_stream: false,
            is_done: false,
        }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn poll(&mut self, now: Instant) {
        CLOCK.set((now.as_nanos() / 1_000_000) as u32);
        self.interface.poll(micros(now), &mut self.wire, &mut self.sockets);
    }

    fn next(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(micros(now), &self.sockets)?;
        let at = Instant::from_nanos(at.total_micros().max(0) as u64 * 1000);
        // While our window is closed it says "now" again and again, and then does nothing.
        Some(if at <= now { now + Duration::from_millis(20) } else { at })
    }

    /// Lets the application read and write.
    fn act(&mut self, script: &Script) {
        let mut read = self.read;
        let socket = self.socket();
        let saw_end = loop {
            let outcome = socket.recv(|bytes| {
                for piece in bytes.chunks(PIECE_BYTES) {
                    assert!(piece == pattern(read, piece.len()), "a wrong byte");
                    read += piece.len() as u64;
                }
                (bytes.len(), bytes.len())
            });
            match outcome {
                Ok(0) => break false,
                Ok(_) => {}
                Err(RecvError::Finished) => break true,
                Err(RecvError::InvalidState) => break false,
            }
        };
        self.read = read;
        self.saw_end_of_stream |= saw_end;
        let mut written = self.written;
        let socket = self.socket();
        while written < script.bytes[1] && socket.can_send() {
            let want = (script.bytes[1] - written).min(PIECE_BYTES as u64) as usize;
            written += socket.send_slice(pattern(written, want)).unwrap() as u64;
        }
        if matches!(script.reset, Some((1, after)) if read >= after) && socket.is_active() {
            socket.abort();
            self.is_done = true;
        }
        self.written = written;
        let may_end = script.ends_first != First::Ours || self.saw_end_of_stream;
        let socket = self.socket();
        if written == script.bytes[1] && may_end && socket.may_send() {
            socket.close();
            self.is_done = true;
        }
    }
}

/// Both, and the line between them.
struct Duo {
    script: Script,
    now: Instant,
    stack: Arc<Stack>,
    ours: Option<Peer>,
    other: Other,
    directions: [Direction; 2],
    random: SeededEntropy,
    buffer: Vec<u8>,
}

impl Duo {
    fn new(script: Script) -> Self {
        let config = Config {
            mtu: script.mtu[0],
            congestion: script.congestion,
            receive_buffer_bytes: script.our_buffer,
            user_timeout: Duration::from_secs(900),
            handshake_timeout: Duration::from_secs(900),
            ..Config::default()
        };
        let mut random = SeededEntropy::new(script.seed);
        let stack = Arc::new(Stack::new(config, &mut random));
        let now = super::START;
        let [ours, theirs] = ADDRESSES[usize::from(!script.is_v4)].map(|it| it.parse().unwrap());
        let places = [SocketAddr::new(ours, PORTS[0]), SocketAddr::new(theirs, PORTS[1])];
        let connection = Connection::connect(now, &stack, places[0], places[1]);
        Self {
            script,
            now,
            stack,
            ours: script.we_connect.then(|| Peer::new(connection, script.bytes[0], false)),
            other: Other::new(&script, now),
            directions: script.paths.map(Direction::new),
            random,
            buffer: vec![0; 65_535],
        }
    }

    fn act(&mut self) {
        let (script, now) = (self.script, self.now);
        if let Some(peer) = &mut self.ours {
            peer.closes = script.ends_first != First::Theirs || peer.saw_end_of_stream;
            peer.act(now);
            // The end of the other's stream may have been seen in this turn.
            peer.closes |= peer.saw_end_of_stream;
            peer.act(now);
            let is_up = !matches!(peer.connection.state(), State::SynSent | State::SynReceived);
            if matches!(script.reset, Some((0, after)) if peer.read >= after) && is_up {
                peer.connection.abort();
            }
            while let Some(transmit) = peer.connection.poll_transmit(now, &mut self.buffer) {
                let packet = &mut self.buffer[..transmit.len];
                let mut splitter =
                    Splitter::new(packet, &transmit.vnet).expect("it fits its header");
                while let Some(packet) = splitter.next() {
                    assert!(packet.len() <= script.mtu[0].min(script.mtu[1]) as usize);
                    self.directions[0].send(now, &mut self.random, packet);
                }
            }
        }
        self.other.act(&script);
        self.other.poll(now);
        for packet in self.other.wire.sent.drain(..) {
            assert!(packet.len() <= script.mtu[0].min(script.mtu[1]) as usize);
            self.directions[1].send(now, &mut self.random, &packet);
        }
    }

    /// A packet of the other's comes to us.
    fn deliver(&mut self, packet: &[u8]) {
        let now = self.now;
        let Ok(packet) = Packet::parse(packet, Checksum::Verify) else { return };
        // Damage may have made it another's.
        if packet.destination.port() != PORTS[0] || packet.source.port() != PORTS[1] {
            return;
        }
        match (&mut self.ours, Syn::of(&packet)) {
            (Some(peer), _) if !peer.connection.is_closed() => {
                peer.connection.on_segment(now, &packet.segment);
            }
            (none @ None, Some(syn)) if !self.script.we_connect => {
                let connection = Connection::accept(now, &self.stack, &syn);
                *none = Some(Peer::new(connection, self.script.bytes[0], false));
            }
            _ => {
                let mut out = [0; 100];
                let Some(transmit) = refuse(&packet, &mut out) else { return };
                let bytes = &mut out[..transmit.len];
                let mut splitter = Splitter::new(bytes, &transmit.vnet).expect("a packet");
                let bytes = splitter.next().expect("one");
                self.directions[0].send(now, &mut self.random, bytes);
            }
        }
    }

    fn is_over(&mut self) -> bool {
        let is_ended = self.ours.as_ref().is_some_and(|peer| peer.connection.end().is_some());
        is_ended && matches!(self.other.socket().state(), tcp::State::Closed)
    }

    /// Runs until both are done, or nothing happens any more.
    fn run(&mut self) {
        self.act();
        let (end, mut same) = (self.now + Duration::from_secs(100_000), 0);
        while !self.is_over() {
            let deadline = self.ours.as_ref().and_then(|peer| peer.connection.next_deadline());
            let arrivals = self.directions.iter().filter_map(Direction::next).min();
            let others = self.other.next(self.now);
            let next = [deadline, arrivals, others].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            same = if at <= self.now { same + 1 } else { 0 };
            assert!(same < 100_000, "the clock stands still at {at:?}");
            self.now = at.max(self.now);
            while let Some(packet) = self.directions[0].receive(self.now) {
                self.other.wire.arrived.push_back(packet);
            }
            while let Some(packet) = self.directions[1].receive(self.now) {
                self.deliver(&packet);
            }
            if let Some(peer) = &mut self.ours
                && peer.connection.next_deadline().is_some_and(|at| at <= self.now)
            {
                peer.connection.on_deadline(self.now);
            }
            self.other.poll(self.now);
            self.act();
        }
    }
}

/// What both agree on at the end, whatever the line does.
fn check(script: Script) -> Result<(), TestCaseError> {
    let mut duo = Duo::new(script);
    duo.run();
    let ours = duo.ours.as_ref().unwrap();
    let (end, state) = (ours.connection.end(), ours.connection.state());
    let other = duo.other.sockets.get::<tcp::Socket<'_>>(duo.other.handle).state();
    // The bytes themselves were compared on arrival.
    prop_assert!(ours.read <= script.bytes[1] && duo.other.read <= script.bytes[0]);
    if let Some((who, after)) = script.reset.filter(|(who, after)| *after < script.bytes[1 - who]) {
        let read = [ours.read, duo.other.read][who];
        prop_assert!(read >= after, "side {who} has read {read} of {after}");
        // They may have acknowledged all before they read it.
        let expected = if who == 0 { [End::Aborted; 2] } else { [End::Reset, End::Closed] };
        prop_assert!(end.is_some_and(|end| expected.contains(&end)), "{end:?} {state:?} {other:?}");
        prop_assert_eq!(other, tcp::State::Closed);
    } else {
        prop_assert_eq!((ours.read, duo.other.read), (script.bytes[1], script.bytes[0]));
        prop_assert!(ours.saw_end_of_stream && duo.other.saw_end_of_stream, "{state:?} {other:?}");
        // It remembers a connection for 10 s, and then takes the copy of a FIN for a stranger's.
        let is_fine = end == Some(End::Closed) || (end == Some(End::Reset) && duo.other.is_done);
        prop_assert!(is_fine, "{end:?} {state:?} {other:?}");
    }
    drop(duo.ours);
    prop_assert_eq!(duo.stack.memory_bytes(), 0);
    Ok(())
}

fn script() -> impl Strategy<Value = Script> {
    let first = prop_oneof![Just(First::Ours), Just(First::Theirs), Just(First::Both)];
    let bytes = || prop_oneof![Just(0), 1..100_u64, 1..100_000_u64];
    let buffer = || prop_oneof![Just(4_000), Just(65_535), Just(400_000)];
    let mtu = || prop_oneof![Just(1280), Just(1360), Just(1500)];
    let algorithm = prop_oneof![Just(Algorithm::Cubic), Just(Algorithm::Bbr)];
    let line = (any::<u64>(), [path(), path()], any::<bool>(), any::<bool>());
    let ends = (first, [bytes(), bytes()], [buffer(), buffer()], any::<bool>());
    (line, ends, algorithm, [mtu(), mtu()]).prop_map(|(line, ends, congestion, mtu)| {
        let (seed, paths, is_v4, we_connect) = line;
        let (ends_first, bytes, [our_buffer, their_buffer], they_stamp) = ends;
        Script {
            seed,
            paths,
            is_v4,
            we_connect,
            bytes,
            ends_first,
            reset: None,
            their_buffer,
            our_buffer,
            they_stamp,
            congestion,
            mtu,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_another_stack_every_byte_arrives_both_ways_and_both_ends_are_heard(script in script()) {
        check(script)?;
    }

    #[test]
    fn with_another_stack_a_reset_of_either_side_ends_both(
        script in script(),
        who in 0..2_usize,
        after in 0..80_000_u64,
    ) {
        check(Script { reset: Some((who, after)), ..script })?;
    }
}
