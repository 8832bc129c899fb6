//! Traffic between hosts whose every byte is known in advance.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use super::net::Host;

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
    let address: IpAddr = address.parse().expect("an address");
    let listener = to.run(|| TcpListener::bind((address, 0))).expect("the address is up");
    let target = listener.local_addr().expect("it is bound");
    let connection = from.run(move || TcpStream::connect_timeout(&target, PATIENCE));
    let mut outgoing = connection.expect("the other side listens");
    let (mut incoming, _) = listener.accept().expect("the connection made above");
    for stream in [&outgoing, &incoming] {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    }
    thread::scope(|scope| {
        scope.spawn(move || {
            send_stream(&mut outgoing, bytes).expect("the receiver reads on");
        });
        let first = receive_stream(&mut incoming, 0, bytes / 2).expect("the sender sends on");
        halfway();
        receive_stream(&mut incoming, first, u64::MAX).expect("the sender sends on")
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

/// Reads on from `offset` until `end` or the end of the stream; the offset reached.
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

/// Sends datagrams of the given sizes and returns the sizes of those that came, unharmed.
pub fn udp(from: &Host, to: &Host, address: &str, sizes: &[usize]) -> Vec<usize> {
    let address: IpAddr = address.parse().expect("an address");
    let incoming = to.run(|| UdpSocket::bind((address, 0))).expect("the address is up");
    incoming.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let target = incoming.local_addr().expect("it is bound");
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let outgoing = from.run(|| UdpSocket::bind(any)).expect("any address");
    let mut buffer = vec![0; 65_536];
    let mut came = Vec::new();
    for &size in sizes {
        let datagram: Vec<u8> = (0..size).map(|at| byte_at(at as u64)).collect();
        outgoing.send_to(&datagram, target).expect("a route");
        // One at a time: fragments of several would only test how large the socket buffers are.
        let Ok(len) = incoming.recv(&mut buffer) else { continue };
        assert_eq!(buffer[..len], datagram[..len.min(size)], "a datagram of {len} bytes");
        came.push(len);
    }
    came
}
