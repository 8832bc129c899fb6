//! Our TCP endpoint against the kernel's, with a line between them that loses, doubles and reorders:
//! the kernel's end is a socket in a namespace, ours stands behind a TUN there.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use hybridwg::crypto::entropy::{Entropy, SeededEntropy};
use hybridwg::flow::tcp::{
    Algorithm, Checksum, Config, Connection, End, MAX_PACKET_BYTES, Packet, Stack, State, Syn,
};
use hybridwg::packet::split::Splitter;
use hybridwg::sys::clock;
use hybridwg::sys::poll::{Interest, Poller};
use hybridwg::sys::tun::{Tun, TunOffloads};
use hybridwg::time::Instant;
use hybridwg::wire::icmp::{self, REPLY_BYTES};
use rustix::net::sockopt::set_socket_linger;

use super::net::{Host, eventually, unique};
use super::skips;

const PROGRAMS: &[&str] = &["ip"];

/// What must come comes by then, also on a busy machine.
const SOON: Duration = Duration::from_secs(120);

const MTU: u32 = 1360;
const OUR_PORT: u16 = 7000;

/// The kernel's address and ours, by family.
const ADDRESSES: [[&str; 2]; 2] = [["10.20.0.1", "10.20.0.2"], ["fd20::1", "fd20::2"]];

/// What streams consist of.
fn pattern(start: usize, count: usize) -> Vec<u8> {
    (start..start + count).map(|n| (n % 251) as u8).collect()
}

/// A host with a TUN behind which our end stands.
struct Place {
    host: Host,
    tun: Tun,
    signals: Signals,
}

/// What the test says to our end while it runs, and hears from it.
#[derive(Default)]
struct Signals {
    /// The kernel's end is done: ours may go when it is done, too.
    may_go: AtomicBool,
    /// Whether our application does not read now.
    is_idle: AtomicBool,
    /// The largest packet that the line takes now, in bytes; 0: any.
    largest: AtomicU32,
    /// Segments that said that nothing more is taken: of the kernel's, and of ours.
    closed_windows: [AtomicU64; 2],
    /// Packets that were too large for the line: the kernel's, and ours.
    narrowed: [AtomicU64; 2],
    /// What our application has read.
    read: AtomicU64,
}

/// What our application does.
#[derive(Clone, Copy)]
struct Plan {
    sends: usize,
    /// The second half only when the line has grown narrow.
    awaits_narrow: bool,
    /// It ends when it has heard the other's end.
    ends_last: bool,
    /// It resets the connection when it has read so much.
    resets_after: Option<u64>,
    /// Parts of a thousand that the line loses; it doubles and reorders as many.
    badness: u32,
    congestion: Algorithm,
}

const PLAN: Plan = Plan {
    sends: 0,
    awaits_narrow: false,
    ends_last: false,
    resets_after: None,
    badness: 0,
    congestion: Algorithm::Cubic,
};

impl Place {
    fn new() -> Self {
        let host = Host::new();
        let name = unique("e");
        let tun = host.run(|| Tun::create(&name, TunOffloads::NONE).unwrap());
        host.sh(&format!("ip link set {name} mtu {MTU} up"));
        host.sh(&format!("ip address add 10.20.0.1/24 dev {name}"));
        host.sh(&format!("ip address add fd20::1/64 dev {name} nodad"));
        Self { host, tun, signals: Signals::default() }
    }
}

/// Our end: a connection, its application and the line.
struct Ours<'a> {
    place: &'a Place,
    plan: Plan,
    stack: Arc<Stack>,
    connection: Option<Connection>,
    written: usize,
    read: usize,
    heard_end: bool,
    random: SeededEntropy,
    /// A packet that others overtake, and whether it is for the kernel.
    held: Option<(bool, Vec<u8>)>,
}

impl<'a> Ours<'a> {
    fn new(place: &'a Place, plan: Plan) -> Self {
        let mut random = SeededEntropy::new(7);
        let config = Config { mtu: MTU, congestion: plan.congestion, ..Config::default() };
        Self {
            place,
            plan,
            stack: Arc::new(Stack::new(config, &mut random)),
            connection: None,
            written: 0,
            read: 0,
            heard_end: false,
            random,
            held: None,
        }
    }

    /// Runs until our application is done and the test lets it go; tells why the connection ended.
    fn run(mut self, remote: Option<SocketAddr>) -> (usize, Option<End>, State) {
        let started = clock::now().mono;
        if let Some(remote) = remote {
            let [_, ours] = ADDRESSES[usize::from(remote.is_ipv6())];
            let local = SocketAddr::new(ours.parse().unwrap(), OUR_PORT);
            self.connection = Some(Connection::connect(started, &self.stack, local, remote));
        }
        let mut poller = Poller::new().unwrap();
        poller.add(self.place.tun.as_fd(), 0, Interest::Readable).unwrap();
        let mut buffer = vec![0; MAX_PACKET_BYTES];
        loop {
            let now = clock::now().mono;
            assert!(now.since(started) < SOON, "our end hangs: {:?}", self.connection);
            while let Some(len) = self.place.tun.recv(&mut buffer).unwrap() {
                let packet = buffer[..len].to_vec();
                self.pass(now, false, packet);
            }
            self.act(now, &mut buffer);
            if self.is_done() && self.place.signals.may_go.load(Ordering::Relaxed) {
                let connection = self.connection.unwrap();
                return (self.read, connection.end(), connection.state());
            }
            let deadline = self.connection.as_ref().and_then(Connection::next_deadline);
            let wait = deadline.map_or(SOON, |at| at.since(now)).min(Duration::from_millis(20));
            poller.wait(Some(wait)).unwrap().for_each(drop);
            // Whoever waits to be overtaken does so for no longer than this.
            if let Some((to_kernel, packet)) = self.held.take() {
                self.deliver(clock::now().mono, to_kernel, &packet);
            }
        }
    }

    fn is_done(&self) -> bool {
        let Some(connection) = &self.connection else { return false };
        let has_said_all = self.written == self.plan.sends && self.heard_end;
        let is_over = matches!(connection.state(), State::TimeWait | State::Closed);
        connection.end().is_some() || (has_said_all && is_over)
    }

    fn chance(&mut self) -> bool {
        (&mut self.random as &mut dyn Entropy).up_to(999) < self.plan.badness
    }

    /// A packet goes over the line.
    fn pass(&mut self, now: Instant, to_kernel: bool, packet: Vec<u8>) {
        if self.chance() {
            return;
        }
        if self.chance() && self.held.is_none() {
            self.held = Some((to_kernel, packet));
            return;
        }
        let copies = if self.chance() { 2 } else { 1 };
        for _ in 0..copies {
            self.deliver(now, to_kernel, &packet);
        }
        if let Some((to_kernel, packet)) = self.held.take() {
            self.deliver(now, to_kernel, &packet);
        }
    }

    fn deliver(&mut self, now: Instant, to_kernel: bool, packet: &[u8]) {
        let signals = &self.place.signals;
        let largest = signals.largest.load(Ordering::Relaxed);
        let is_narrow = largest > 0 && packet.len() > largest as usize;
        let Ok(parsed) = Packet::parse(packet, Checksum::Verify) else { return };
        if parsed.segment.window == 0 {
            signals.closed_windows[usize::from(to_kernel)].fetch_add(1, Ordering::Relaxed);
        }
        if is_narrow {
            signals.narrowed[usize::from(to_kernel)].fetch_add(1, Ordering::Relaxed);
        }
        match (to_kernel, is_narrow) {
            (true, false) => self.place.tun.send(packet).unwrap(),
            (true, true) => {
                if let Some(connection) = &mut self.connection {
                    connection.on_too_big(largest, parsed.segment.sequence);
                }
            }
            (false, false) => self.receive(now, &parsed),
            (false, true) => {
                let mut reply = [0; REPLY_BYTES];
                let mtu = u16::try_from(largest).unwrap();
                let len = icmp::too_big(packet, mtu, &mut reply).unwrap();
                self.place.tun.send(&reply[..len]).unwrap();
            }
        }
    }

    fn receive(&mut self, now: Instant, packet: &Packet<'_>) {
        match (&mut self.connection, Syn::of(packet)) {
            (Some(connection), _) => connection.on_segment(now, &packet.segment),
            (none @ None, Some(syn)) => *none = Some(Connection::accept(now, &self.stack, &syn)),
            (None, None) => {}
        }
    }

    /// Lets the application and the connection do what there is to do.
    fn act(&mut self, now: Instant, buffer: &mut [u8]) {
        let Some(mut connection) = self.connection.take() else { return };
        if connection.next_deadline().is_some_and(|at| at <= now) {
            connection.on_deadline(now);
        }
        self.heard_end |= connection.take_events().peer_closed;
        if !self.place.signals.is_idle.load(Ordering::Relaxed) {
            let count = connection.readable_bytes();
            let bytes: Vec<u8> = connection.readable().flatten().copied().collect();
            assert!(bytes == pattern(self.read, count), "wrong bytes from {} on", self.read);
            connection.consume(count);
            self.read += count;
            self.place.signals.read.store(self.read as u64, Ordering::Relaxed);
        }
        let is_narrow = self.place.signals.largest.load(Ordering::Relaxed) > 0;
        let holds_back = self.plan.awaits_narrow && !is_narrow;
        let sends = if holds_back { self.plan.sends / 2 } else { self.plan.sends };
        while self.written < sends {
            let want = (sends - self.written).min(64 << 10);
            let taken = connection.write(&pattern(self.written, want));
            self.written += taken;
            if taken < want {
                break;
            }
        }
        let may_end = !self.plan.ends_last || self.heard_end;
        if self.written == self.plan.sends && may_end && self.plan.resets_after.is_none() {
            connection.shutdown_write();
        }
        if self.plan.resets_after.is_some_and(|after| self.read as u64 >= after) {
            connection.abort();
        }
        let mut packets = Vec::new();
        while let Some(transmit) = connection.poll_transmit(now, buffer) {
            let mut splitter =
                Splitter::new(&mut buffer[..transmit.len], &transmit.vnet).expect("it fits");
            while let Some(packet) = splitter.next() {
                packets.push(packet.to_vec());
            }
        }
        self.connection = Some(connection);
        for packet in packets {
            self.pass(now, true, packet);
        }
    }
}

/// Both ends, joined: the kernel's for `work`, ours on another thread. Returns what became of ours.
fn join<T: Send>(
    place: &Place,
    plan: Plan,
    address: [&str; 2],
    we_connect: bool,
    work: impl FnOnce(TcpStream, &Signals) -> T + Send,
) -> (T, (usize, Option<End>, State)) {
    place.signals.may_go.store(false, Ordering::Relaxed);
    let [theirs, ours] = address.map(|text| text.parse::<IpAddr>().unwrap());
    let listener = place.host.run(|| TcpListener::bind((theirs, 0)).unwrap());
    let remote = we_connect.then(|| listener.local_addr().unwrap());
    thread::scope(|scope| {
        let end = scope.spawn(|| Ours::new(place, plan).run(remote));
        let stream = if we_connect {
            listener.accept().unwrap().0
        } else {
            let goal = SocketAddr::new(ours, OUR_PORT);
            place.host.run(|| TcpStream::connect_timeout(&goal, SOON)).unwrap()
        };
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        let outcome = work(stream, &place.signals);
        place.signals.may_go.store(true, Ordering::Relaxed);
        (outcome, end.join().unwrap())
    })
}

/// Reads to the end and checks what comes.
fn hear(mut stream: &TcpStream, bytes: usize) {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert!(heard == pattern(0, bytes), "{} bytes of {bytes}, or others", heard.len());
}

#[test]
fn a_mebibyte_goes_to_the_kernel_and_another_comes_from_it_over_a_bad_line() {
    if skips(PROGRAMS) {
        return;
    }
    let place = Place::new();
    const BYTES: usize = 1 << 20;
    for (address, we_connect, congestion) in [
        (ADDRESSES[0], true, Algorithm::Cubic),
        (ADDRESSES[0], false, Algorithm::Bbr),
        (ADDRESSES[1], true, Algorithm::Bbr),
        (ADDRESSES[1], false, Algorithm::Cubic),
    ] {
        let plan = Plan { sends: BYTES, badness: 20, congestion, ..PLAN };
        let ((), ours) = join(&place, plan, address, we_connect, |stream, _| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    (&stream).write_all(&pattern(0, BYTES)).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                });
                hear(&stream, BYTES);
            });
        });
        assert_eq!(ours.0, BYTES);
    }
}

#[test]
fn whoever_of_us_and_the_kernel_ends_first_hears_the_other_out() {
    if skips(PROGRAMS) {
        return;
    }
    let place = Place::new();
    const BYTES: usize = 300_000;
    for badness in [0, 30] {
        // The kernel first.
        let plan = Plan { sends: BYTES, ends_last: true, badness, ..PLAN };
        let ((), ours) = join(&place, plan, ADDRESSES[0], true, |mut stream, _| {
            stream.write_all(&pattern(0, 5)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            hear(&stream, BYTES);
        });
        assert_eq!((ours.0, ours.1), (5, Some(End::Closed)));
        // We first.
        let plan = Plan { sends: 5, badness, ..PLAN };
        let ((), ours) = join(&place, plan, ADDRESSES[1], false, |mut stream, _| {
            hear(&stream, 5);
            stream.write_all(&pattern(0, BYTES)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        assert_eq!((ours.0, ours.2), (BYTES, State::TimeWait));
    }
}

#[test]
fn a_reset_of_the_kernels_ends_ours_and_one_of_ours_ends_the_kernels() {
    if skips(PROGRAMS) {
        return;
    }
    let place = Place::new();
    let plan = Plan { sends: 100_000, ends_last: true, ..PLAN };
    let ((), ours) = join(&place, plan, ADDRESSES[0], true, |mut stream, _| {
        stream.read_exact(&mut [0; 10]).unwrap();
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    });
    assert_eq!(ours.1, Some(End::Reset));
    let plan = Plan { resets_after: Some(3), ..PLAN };
    let (error, ours) = join(&place, plan, ADDRESSES[0], false, |mut stream, _| {
        stream.write_all(&pattern(0, 3)).unwrap();
        stream.read(&mut [0; 1]).unwrap_err()
    });
    assert_eq!((error.kind(), ours.1), (ErrorKind::ConnectionReset, Some(End::Aborted)));
}

#[test]
fn a_window_that_is_closed_by_either_side_opens_again_and_nothing_is_lost() {
    if skips(PROGRAMS) {
        return;
    }
    let place = Place::new();
    const BYTES: usize = 12 << 20;
    let closed = |signals: &Signals, side: usize| {
        eventually("a closed window is told, and asked after", SOON, || {
            signals.closed_windows[side].load(Ordering::Relaxed) >= 3
        });
    };
    // The kernel's application reads nothing for a while.
    let plan = Plan { sends: BYTES, ends_last: true, ..PLAN };
    join(&place, plan, ADDRESSES[0], true, |stream, signals| {
        closed(signals, 0);
        stream.shutdown(Shutdown::Write).unwrap();
        hear(&stream, BYTES);
    });
    // Ours does not.
    place.signals.is_idle.store(true, Ordering::Relaxed);
    let plan = Plan { ends_last: true, ..PLAN };
    let ((), ours) = join(&place, plan, ADDRESSES[0], true, |mut stream, signals| {
        thread::scope(|scope| {
            scope.spawn(|| {
                closed(signals, 1);
                assert_eq!(signals.read.load(Ordering::Relaxed), 0);
                signals.is_idle.store(false, Ordering::Relaxed);
            });
            stream.write_all(&pattern(0, BYTES)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            hear(&stream, 0);
        });
    });
    assert_eq!(ours.0, BYTES);
}

#[test]
fn a_path_that_grows_narrow_is_noticed_in_both_directions() {
    if skips(PROGRAMS) {
        return;
    }
    let place = Place::new();
    const BYTES: usize = 1 << 20;
    for (address, largest) in [(ADDRESSES[0], 1000), (ADDRESSES[1], 1280)] {
        place.signals.largest.store(0, Ordering::Relaxed);
        let plan = Plan { sends: BYTES, awaits_narrow: true, badness: 5, ..PLAN };
        let ((), ours) = join(&place, plan, address, true, |mut stream, signals| {
            stream.write_all(&pattern(0, BYTES / 2)).unwrap();
            let mut heard = vec![0; BYTES / 2];
            stream.read_exact(&mut heard).unwrap();
            signals.largest.store(largest, Ordering::Relaxed);
            thread::scope(|scope| {
                scope.spawn(|| {
                    (&stream).write_all(&pattern(BYTES / 2, BYTES / 2)).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                });
                (&stream).read_to_end(&mut heard).unwrap();
            });
            assert!(heard == pattern(0, BYTES), "{} bytes, or others", heard.len());
            assert!(signals.narrowed.iter().all(|told| told.load(Ordering::Relaxed) > 0));
        });
        assert_eq!(ours.0, BYTES);
    }
}
