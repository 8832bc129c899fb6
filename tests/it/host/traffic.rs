//! Traffic between hosts whose every byte is known in advance.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use hybridwg::sys::clock;

use super::net::{Host, pause};

/// Patience of one socket operation: longer than a tunnel needs to notice a dead session and to
/// shake hands again, TCP's own back-off included.
const PATIENCE: Duration = Duration::from_secs(90);

/// The byte at `offset` of every stream. The period is prime, so a lost or doubled block shows.
fn byte_at(offset: u64) -> u8 {
    u8::try_from(offset % 251).expect("below 251")
}

/// Sends `bytes` bytes by TCP from one host to `address` on another, doing `halfway` when half of
/// them have arrived, and returns how many came through unharmed.
///
/// # Panics
/// If a byte differs from what was sent, or nothing moves for longer than [`PATIENCE`].
pub fn tcp(from: &Host, to: &Host, address: &str, bytes: u64, halfway: impl FnOnce()) -> u64 {
    let (mut outgoing, mut incoming) = connection(from, to, address);
    thread::scope(|scope| {
        scope.spawn(move || {
            send_stream(&mut outgoing, bytes).expect("the receiver reads on");
        });
        let first = receive_stream(&mut incoming, 0, bytes / 2).expect("the sender sends on");
        halfway();
        receive_stream(&mut incoming, first, u64::MAX).expect("the sender sends on")
    })
}

/// Both ends of a new connection, the sender's first.
fn connection(from: &Host, to: &Host, address: &str) -> (TcpStream, TcpStream) {
    let address: IpAddr = address.parse().expect("an address");
    let listener = to.run(|| TcpListener::bind((address, 0))).expect("the address is up");
    let target = listener.local_addr().expect("it is bound");
    let outgoing = from.run(move || TcpStream::connect_timeout(&target, PATIENCE));
    let outgoing = outgoing.expect("the other side listens");
    let (incoming, _) = listener.accept().expect("the connection made above");
    for stream in [&outgoing, &incoming] {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    }
    (outgoing, incoming)
}

/// What became of a stream that [`steady_tcp`] sent.
#[derive(Debug)]
pub struct Steady {
    pub sent: u64,
    /// Those that came, each the byte that was sent.
    pub came: u64,
    /// The longest time in which nothing came.
    pub longest_gap: Duration,
}

/// Sends 32 KiB by TCP a hundred times a second for `duration`.
///
/// # Panics
/// If a byte differs from what was sent, or nothing moves for longer than [`PATIENCE`].
pub fn steady_tcp(from: &Host, to: &Host, address: &str, duration: Duration) -> Steady {
    const BLOCK: u64 = 32_768;
    let (mut outgoing, mut incoming) = connection(from, to, address);
    let started = clock::now().mono;
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let mut sent = 0;
            while clock::now().mono.since(started) < duration {
                let block: Vec<u8> = (sent..sent + BLOCK).map(byte_at).collect();
                outgoing.write_all(&block).expect("the receiver reads on");
                sent += BLOCK;
                pause(Duration::from_millis(10));
            }
            sent
        });
        let (mut came, mut last, mut longest_gap) = (0, started, Duration::ZERO);
        loop {
            let next = receive_stream(&mut incoming, came, came + 1).expect("the sender sends on");
            if next == came {
                break;
            }
            let now = clock::now().mono;
            longest_gap = longest_gap.max(now.since(last));
            (came, last) = (next, now);
        }
        let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Steady { sent, came, longest_gap }
    })
}

fn send_stream(stream: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes {
        let end = bytes.min(sent + 65_536);
        let block: Vec<u8> = (sent..end).map(byte_at).collect();
        stream.write_all(&block)?;
        sent = end;
    }
    Ok(())
}

/// Reads on from `offset` until `end` or somewhat more, or the end of the stream; the offset reached.
fn receive_stream(stream: &mut TcpStream, mut offset: u64, end: u64) -> io::Result<u64> {
    let mut buffer = [0; 65_536];
    while offset < end {
        let read = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => outcome?,
        };
        if read == 0 {
            break;
        }
        for &byte in &buffer[..read] {
            assert_eq!(byte, byte_at(offset), "at offset {offset}");
            offset += 1;
        }
    }
    Ok(offset)
}

/// Receives a datagram; the machine may stop and go on meanwhile.
///
/// # Errors
/// As [`UdpSocket::recv`], but for a call that was interrupted, which a socket with a timeout
/// reports where another is resumed. [signal(7)]
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.recv(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// How often a datagram is sent before it is given up. The machine's queue for packets of virtual wires
/// is one for all namespaces, and what other tests flood it with costs one of ours now and then.
const TRIES: usize = 3;

/// Sends datagrams of the given sizes and returns the sizes of those that came, unharmed.
pub fn udp(from: &Host, to: &Host, address: &str, sizes: &[usize]) -> Vec<usize> {
    let address: IpAddr = address.parse().expect("an address");
    let incoming = to.run(|| UdpSocket::bind((address, 0))).expect("the address is up");
    incoming.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let target = incoming.local_addr().expect("it is bound");
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let outgoing = from.run(|| UdpSocket::bind(any)).expect("any address");
    let mut buffer = vec![0; 65_536];
    // One at a time: fragments of several would only test how large the socket buffers are.
    let mut comes = |&size: &usize| {
        let datagram: Vec<u8> = (0..size).map(|at| byte_at(at as u64)).collect();
        (0..TRIES).find_map(|_| {
            outgoing.send_to(&datagram, target).expect("a route");
            let len = receive(&incoming, &mut buffer).ok()?;
            assert_eq!(buffer[..len], datagram[..len.min(size)], "a datagram of {len} bytes");
            Some(len)
        })
    };
    sizes.iter().filter_map(&mut comes).collect()
}
