//! Two TCP endpoints and what a network, or somebody on it, does to their segments.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hybridwg::crypto::entropy::SeededEntropy;
use hybridwg::flow::tcp::{
    Algorithm, Checksum, Config, Connection, MAX_PACKET_BYTES, Packet, Segment, Stack, State, Syn,
    Timestamps, refuse,
};
use hybridwg::packet::split::Splitter;
use hybridwg::time::Instant;

use super::Choices;

const BUFFER_BYTES: usize = 100_000;
/// A connection holds no more than its buffers, and what came out of order twice over.
const MOST_BYTES: usize = 2 * (BUFFER_BYTES + 3 * BUFFER_BYTES + 65_536);
const PERIOD: usize = 251;

fn pattern(position: usize) -> u8 {
    (position % PERIOD) as u8
}

struct End {
    connection: Option<Connection>,
    written: usize,
    read: usize,
    /// What it has sent and nobody has received.
    sent: VecDeque<Vec<u8>>,
}

/// Segments are delivered, lost, repeated, reordered and forged at will. Nothing panics, what leaves
/// can be read, memory stays within its bounds, and without forgeries each byte arrives in order.
pub fn tcp(data: &[u8]) {
    let mut choices = Choices(data);
    let congestion = if choices.byte() & 1 == 0 { Algorithm::Cubic } else { Algorithm::Bbr };
    let config = Config {
        congestion,
        send_buffer_bytes: BUFFER_BYTES,
        receive_buffer_bytes: BUFFER_BYTES,
        ..Config::default()
    };
    let stack = Arc::new(Stack::new(config, &mut SeededEntropy::new(1)));
    let [local, remote] = [1, 2].map(|n| SocketAddr::from(([10, 0, 0, n], 80)));
    let mut now = Instant::from_nanos(1 << 40);
    let mut ends = [Some(Connection::connect(now, &stack, local, remote)), None]
        .map(|connection| End { connection, written: 0, read: 0, sent: VecDeque::new() });
    let mut is_forged = false;
    let mut out = vec![0; MAX_PACKET_BYTES];
    while !choices.is_empty() {
        let choice = choices.byte();
        let (here, there) = (usize::from(choice & 1), usize::from(!choice & 1));
        match choice >> 1 & 7 {
            0 | 1 => {
                if let Some(packet) = ends[here].sent.pop_front() {
                    receive(&mut ends[there], now, &stack, &packet);
                }
            }
            2 => match choices.byte() % 3 {
                0 => drop(ends[here].sent.pop_front()),
                1 => ends[here].sent.rotate_left(usize::from(ends[here].sent.len() > 1)),
                _ => {
                    let copy = ends[here].sent.front().cloned();
                    ends[here].sent.extend(copy);
                }
            },
            3 => {
                let millis = [1, 40, 250, 3_000, 70_000][usize::from(choices.byte() % 5)];
                now = now + Duration::from_millis(millis);
            }
            4 => is_forged |= forge(&mut ends, here, now, &mut choices),
            5 => {
                let bytes: Vec<u8> = choices.bytes::<48>().to_vec();
                if let Ok(packet) = Packet::parse(&bytes, Checksum::Trusted) {
                    let _ = refuse(&packet, &mut [0; 128]);
                }
            }
            _ => act(&mut ends[here], &mut choices),
        }
        for host in [0, 1] {
            turn(&mut ends[host], now, &mut out);
            let (written, end) = (ends[1 - host].written, &mut ends[host]);
            read(end, written, is_forged);
        }
        assert!(stack.memory_bytes() <= MOST_BYTES, "{} bytes", stack.memory_bytes());
    }
    drop(ends);
    assert_eq!(stack.memory_bytes(), 0, "memory that nobody holds");
}

fn receive(end: &mut End, now: Instant, stack: &Arc<Stack>, packet: &[u8]) {
    let packet = Packet::parse(packet, Checksum::Verify).expect("what we write, we read");
    match (&mut end.connection, Syn::of(&packet)) {
        (Some(connection), _) => connection.on_segment(now, &packet.segment),
        (none, Some(syn)) => *none = Some(Connection::accept(now, stack, &syn)),
        (None, None) => {}
    }
}

/// Changes what an end has sent last, or makes up something like it, and delivers that. True if it
/// can have passed for what the other end might say.
fn forge(ends: &mut [End; 2], here: usize, now: Instant, choices: &mut Choices<'_>) -> bool {
    let Some(bytes) = ends[here].sent.front().cloned() else { return false };
    let mut packet = Packet::parse(&bytes, Checksum::Verify).expect("what we write, we read");
    let Some(connection) = &mut ends[1 - here].connection else { return false };
    let segment: &mut Segment<'_> = &mut packet.segment;
    let near = |choices: &mut Choices<'_>| {
        let by = i16::from_be_bytes(choices.bytes());
        // Far ones, too.
        if by % 7 == 0 { i32::from(by) << 16 } else { i32::from(by) }
    };
    match choices.byte() % 7 {
        0 => segment.sequence = segment.sequence.wrapping_add_signed(near(choices)),
        1 => segment.acknowledgment = segment.acknowledgment.wrapping_add_signed(near(choices)),
        2 => segment.flags = choices.byte(),
        3 => segment.window = u16::from_be_bytes(choices.bytes()),
        4 => {
            let start = segment.acknowledgment.wrapping_add_signed(near(choices));
            segment.options.sack.push(start, start.wrapping_add_signed(near(choices)));
        }
        5 => {
            let [value, echo] = [(); 2].map(|()| u32::from_be_bytes(choices.bytes()));
            segment.options.timestamps = Some(Timestamps { value, echo });
        }
        _ => {
            let mtu = u32::from(u16::from_be_bytes(choices.bytes()));
            connection.on_too_big(mtu, segment.acknowledgment);
            connection.on_unreachable(segment.acknowledgment);
        }
    }
    connection.on_segment(now, segment);
    true
}

fn act(end: &mut End, choices: &mut Choices<'_>) {
    let Some(connection) = &mut end.connection else { return };
    match choices.byte() {
        0 => connection.abort(),
        1..=20 => connection.shutdown_write(),
        scale => {
            let count = usize::from(scale) * usize::from(choices.byte());
            let bytes: Vec<u8> = (0..count).map(|at| pattern(end.written + at)).collect();
            end.written += connection.write(&bytes);
        }
    }
}

/// Lets a connection do what is due, and takes what it sends.
fn turn(end: &mut End, now: Instant, out: &mut [u8]) {
    let Some(connection) = &mut end.connection else { return };
    if connection.next_deadline().is_some_and(|at| at <= now) {
        connection.on_deadline(now);
    }
    let mut count = 0;
    while let Some(transmit) = connection.poll_transmit(now, out) {
        let packet = &mut out[..transmit.len];
        let mut splitter = Splitter::new(packet, &transmit.vnet).expect("it fits its header");
        while let Some(packet) = splitter.next() {
            // What nobody receives is lost some time.
            if end.sent.len() < 200 {
                end.sent.push_back(packet.to_vec());
            }
        }
        count += 1;
        assert!(count < 1000, "it never ends");
    }
    let is_late = connection.next_deadline().is_some_and(|at| at <= now);
    assert!(!is_late, "a deadline that has passed, in {:?}", connection.state());
}

fn read(end: &mut End, written: usize, is_forged: bool) {
    let Some(connection) = &mut end.connection else { return };
    for byte in connection.readable().flatten() {
        assert!(is_forged || *byte == pattern(end.read), "byte {} is a wrong one", end.read);
        end.read += 1;
    }
    assert!(is_forged || end.read <= written, "more was read than written");
    let count = connection.readable_bytes();
    connection.consume(count);
    assert!(connection.state() != State::Closed || connection.next_deadline().is_none());
}
