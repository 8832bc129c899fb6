//! The thread loop, over loopback sockets.

use std::net::UdpSocket;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::dataplane::Stop;
use crate::dataplane::port::IpPort;
use crate::dataplane::shard::ShardThread;
use crate::dataplane::udp_port::UdpPort;
use crate::packet::batch::{IpBatch, PlainBatch};
use crate::sys::SysError;
use crate::sys::testing::eventually;
use crate::sys::udp::{UdpOffloads, UdpSockets};

/// Counts how often the shard looks for packets.
struct Counting(MemoryIpPort, Arc<AtomicUsize>);

impl IpPort for Counting {
    fn recv(&mut self, batch: &mut IpBatch) -> Result<usize, SysError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.recv(batch)
    }

    fn send(&mut self, packets: &mut PlainBatch<'_>) -> Result<usize, SysError> {
        self.0.send(packets)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

struct Running {
    node: Node,
    looks: Arc<AtomicUsize>,
    port: u16,
    told: mpsc::Receiver<()>,
    thread: ShardThread,
}

fn running() -> Running {
    let node = Node::new(A, &[("10.0.2.0/24", PEER)]);
    let looks = Arc::new(AtomicUsize::new(0));
    let sockets = Arc::new(UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap());
    let port = sockets.local_port();
    let shard = Shard::new(
        Box::new(Counting(node.ip.clone(), Arc::clone(&looks))),
        Box::new(UdpPort::new(sockets)),
        Arc::clone(&node.tables),
        Arc::clone(&node.lane),
        Arc::clone(&node.inbox),
    );
    let (tell, told) = mpsc::channel();
    // The receiver is gone at the end of a test, when the shard reports its own end.
    node.lane.set_waker(move || tell.send(()).unwrap_or(()));
    let thread = ShardThread::spawn(shard).unwrap();
    Running { node, looks, port, told, thread }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_datagram_from_the_network_wakes_the_shard() {
    let running = running();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let message = [&[1, 0, 0, 0][..], &[0; 144]].concat();
    socket.send_to(&message, ("127.0.0.1", running.port)).unwrap();
    running.told.recv_timeout(PATIENCE).unwrap();
    let incoming = running.node.lane.next_handshake().unwrap();
    assert_eq!(incoming.from.remote, socket.local_addr().unwrap());
    assert_eq!(incoming.from.local.unwrap().address, IpAddr::from([127, 0, 0, 1]));
    assert_eq!(&*incoming.datagram, message);
}

#[test]
fn a_command_wakes_the_shard_and_is_sent() {
    let running = running();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let [initiator, _] = handshake(crate::sys::clock::now(), [11, 22]);
    running.node.make_current(running.node.install(initiator, true));
    running.node.reach(socket.local_addr().unwrap());
    running.node.apply(Output::Keepalive(PEER));
    let mut buffer = [0; 100];
    assert_eq!(socket.recv(&mut buffer).unwrap(), 32);
}

#[test]
fn an_idle_shard_does_not_look_for_work() {
    let running = running();
    // Long enough for the spin after the start to end, thousands of times.
    assert!(running.told.recv_timeout(Duration::from_millis(300)).is_err());
    let before = running.looks.load(Ordering::Relaxed);
    assert!(running.told.recv_timeout(Duration::from_millis(200)).is_err());
    assert_eq!(running.looks.load(Ordering::Relaxed), before);
}

#[test]
fn the_shard_sends_all_that_it_has_read_before_it_sleeps() {
    let mut node = Node::new(A, &[("10.0.2.0/24", PEER)]);
    let [initiator, _] = handshake(crate::sys::clock::now(), [11, 22]);
    node.make_current(node.install(initiator, true));
    node.reach(B.parse().unwrap());
    let idle = Node::new(A, &[]).shard;
    let _thread = ShardThread::spawn(std::mem::replace(&mut node.shard, idle)).unwrap();
    let wake_and_wait_for = |count| {
        node.apply(Output::Keepalive(PEER));
        let mut sent = 0;
        assert!(eventually(|| {
            sent += node.udp.take_sent().len();
            sent == count
        }));
    };
    // One by one, until it has given up to search for more.
    (0..20).for_each(|_| wake_and_wait_for(1));
    // More than it sends in one turn, and nothing wakes it after that.
    (0..20).for_each(|mark| node.ip.push(&there(8000, mark)));
    wake_and_wait_for(21);
}

#[test]
fn dropping_the_thread_ends_and_joins_the_shard() {
    let Running { node, thread, looks, .. } = running();
    drop(thread);
    assert!(matches!(node.signals()[..], [Signal::Stopped(Stop::Shutdown)]));
    assert_eq!(Arc::strong_count(&looks), 1, "the ports are closed");
}

#[test]
fn a_shard_whose_port_goes_tells_the_engine() {
    let running = running();
    running.node.ip.vanish();
    running.node.apply(Output::Keepalive(PEER));
    running.told.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(running.node.signals()[..], [Signal::Stopped(Stop::IpPortGone(_))]));
}

#[test]
fn what_is_not_ready_is_left_alone() {
    let mut node = Node::new(A, &[("10.0.2.0/24", PEER)]);
    node.ip.push(&[0; 20]);
    node.apply(Output::Keepalive(PEER));
    let mut dropped = |ready| {
        assert!(matches!(node.shard.turn(at(1), ready), Turn::Worked(_) | Turn::Idle));
        (node.dropped(DropReason::OutboundNotIp), node.dropped(DropReason::NoEndpoint))
    };
    assert_eq!(dropped(Ready::NONE), (0, 0));
    assert_eq!(dropped(Ready { udp: [true; 2], ..Ready::NONE }), (0, 0));
    assert_eq!(dropped(Ready { ip: true, ..Ready::NONE }), (1, 0));
    assert_eq!(dropped(Ready { inbox: true, ..Ready::NONE }), (1, 1));
}
