//! Request and response: how many a second in a closed loop, and how long each takes at a steady
//! pace.
//!
//! At a pace, requests leave when they are due and not when the last was answered, so that a stall
//! shows in all the answers that it held up. Each is timed from when it left: that the generator
//! itself was late is not the tunnel's fault. One that the way does not take is lost, and holds up no
//! other.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    END, END_INTERVAL, ENDS, SILENCE, at_once, connected_udp, is_time_out, now, pause, silent,
};
use crate::bench::latencies::Latencies;
use crate::time::Instant;

/// The transport of requests and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    Tcp,
    Udp,
    /// A connection of TCP for each question, which is one byte.
    Connect,
}

/// Sends back what comes in: over TCP as many connections as are said, otherwise until the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Serve {
    pub address: IpAddr,
    pub transport: Transport,
    /// At once.
    pub connections: usize,
}

/// Asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    pub to: SocketAddr,
    pub transport: Transport,
    /// Each with one question at a time under way.
    pub connections: usize,
    pub warm_up: Duration,
    pub duration: Duration,
    /// A steady pace in place of the closed loop; UDP with one connection only.
    pub interval: Option<Duration>,
    /// That the path itself takes at most.
    pub round_trip: Duration,
}

/// What was answered after the warm-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    pub latencies: Latencies,
    pub lost: u64,
    pub duration: Duration,
}

impl Answers {
    #[expect(clippy::cast_precision_loss, reason = "no number here has 16 digits")]
    pub fn per_second(&self) -> f64 {
        self.latencies.count() as f64 / self.duration.as_secs_f64()
    }

    /// Of all questions, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "no number here has 16 digits")]
    pub fn lost_share(&self) -> f64 {
        self.lost as f64 / (self.lost + self.latencies.count()).max(1) as f64
    }
}

/// Does [`Serve`].
///
/// # Errors
/// What the sockets said, or nobody who came.
pub fn serve(task: &Serve, ready: &mut dyn FnMut(u16)) -> io::Result<()> {
    match task.transport {
        Transport::Udp => serve_udp(task, ready),
        Transport::Tcp => serve_tcp(task, ready),
        Transport::Connect => serve_connections(task, ready),
    }
}

fn serve_udp(task: &Serve, ready: &mut dyn FnMut(u16)) -> io::Result<()> {
    let socket = UdpSocket::bind((task.address, 0))?;
    socket.set_read_timeout(Some(SILENCE))?;
    ready(socket.local_addr()?.port());
    let mut buffer = [0; QUESTION_BYTES];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((_, _)) if number(&buffer) == END => return Ok(()),
            Ok((length, from)) => drop(socket.send_to(&buffer[..length], from)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_time_out(&error) => return Err(silent("nobody asked")),
            Err(error) => return Err(error),
        }
    }
}

fn serve_tcp(task: &Serve, ready: &mut dyn FnMut(u16)) -> io::Result<()> {
    let listener = TcpListener::bind((task.address, 0))?;
    ready(listener.local_addr()?.port());
    let mut answering = Vec::new();
    for _ in 0..task.connections {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        answering.push(thread::Builder::new().name("answer".to_owned()).spawn(move || {
            let mut buffer = [0; QUESTION_BYTES];
            // It ends when the other closes.
            while stream.read_exact(&mut buffer).and_then(|()| stream.write_all(&buffer)).is_ok() {}
        })?);
    }
    for thread in answering {
        thread.join().map_err(|_| io::Error::other("a thread of the load panicked"))?;
    }
    Ok(())
}

/// Whoever answers closes first, so that the ports of whoever asks are free again at once.
fn serve_connections(task: &Serve, ready: &mut dyn FnMut(u16)) -> io::Result<()> {
    let listener = TcpListener::bind((task.address, 0))?;
    ready(listener.local_addr()?.port());
    at_once(task.connections, |_| {
        loop {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(SILENCE))?;
            let mut byte = [0];
            match stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)) {
                Ok(()) if byte == [LAST_BYTE] => return Ok(()),
                // Whoever asked has given up, and says so itself.
                Ok(()) | Err(_) => {}
            }
        }
    })
    .map(drop)
}

/// Asks by a connection of its own.
fn connect_and_ask(to: &SocketAddr, byte: u8) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(to, SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.write_all(&[byte])?;
    let mut answer = [!byte; 2];
    stream.read_exact(&mut answer[..1])?;
    if answer[0] == byte && stream.read(&mut answer)? == 0 {
        return Ok(());
    }
    Err(io::Error::other("another answer than the question"))
}

/// Does [`Ask`].
///
/// # Errors
/// What the sockets said; over UDP a lost question is counted, over TCP a silent other end fails.
pub fn ask(task: &Ask) -> io::Result<Answers> {
    match (task.transport, task.interval) {
        (Transport::Tcp, _) => {
            let connect = |_| {
                let stream = TcpStream::connect_timeout(&task.to, SILENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(SILENCE))?;
                Ok(stream)
            };
            let streams = (0..task.connections).map(connect).collect::<io::Result<Vec<_>>>()?;
            closed_loop(task, |connection, question| {
                let mut stream = &streams[connection];
                stream.write_all(question)?;
                let mut answer = [0; QUESTION_BYTES];
                stream.read_exact(&mut answer)?;
                Ok(true)
            })
        }
        (Transport::Connect, _) => {
            let answers = closed_loop(task, |_, question| {
                connect_and_ask(&task.to, question[0] & !LAST_BYTE).map(|()| true)
            })?;
            at_once(task.connections, |_| connect_and_ask(&task.to, LAST_BYTE))?;
            Ok(answers)
        }
        (Transport::Udp, None) => {
            let socket = |_| {
                let socket = connected_udp(task.to)?;
                socket.set_read_timeout(Some(task.round_trip + UDP_PATIENCE))?;
                Ok(socket)
            };
            let sockets = (0..task.connections).map(socket).collect::<io::Result<Vec<_>>>()?;
            let answers = closed_loop(task, |connection, question| {
                let socket = &sockets[connection];
                socket.send(question)?;
                answered(socket, question)
            })?;
            end(&sockets[0])?;
            Ok(answers)
        }
        (Transport::Udp, Some(interval)) => paced(task, interval),
    }
}

/// Waits for the answer to `question`, passing over answers that come too late. False if none came.
fn answered(socket: &UdpSocket, question: &[u8]) -> io::Result<bool> {
    let mut answer = [0; QUESTION_BYTES];
    loop {
        match socket.recv(&mut answer) {
            Ok(_) if answer[..8] == question[..8] => return Ok(true),
            Ok(_) => {}
            Err(error) if is_time_out(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Asks on each connection as soon as the last question was answered.
fn closed_loop(
    task: &Ask,
    exchange: impl Fn(usize, &[u8]) -> io::Result<bool> + Sync,
) -> io::Result<Answers> {
    let started = now() + task.warm_up;
    let end = started + task.duration;
    let all = at_once(task.connections, |connection| {
        let mut answers = Answers { duration: task.duration, ..Answers::default() };
        let mut asked = now();
        for number in 0.. {
            let is_answered = exchange(connection, &question(number))?;
            let at = now();
            if at >= end {
                break;
            }
            if at >= started {
                if is_answered {
                    answers.latencies.record(at.since(asked));
                } else {
                    answers.lost += 1;
                }
            }
            asked = at;
        }
        Ok(answers)
    })?;
    let mut sum = Answers { duration: task.duration, ..Answers::default() };
    for answers in all {
        sum.latencies.merge(&answers.latencies);
        sum.lost += answers.lost;
    }
    Ok(sum)
}

/// Asks at a steady pace; another thread takes the answers. A question carries when it was sent.
fn paced(task: &Ask, interval: Duration) -> io::Result<Answers> {
    let socket = connected_udp(task.to)?;
    socket.set_read_timeout(Some(task.round_trip + LAST_PATIENCE))?;
    socket.set_write_timeout(Some(interval))?;
    let started = now();
    let warm_up = times(task.warm_up, interval);
    let count = warm_up + times(task.duration, interval);
    let due =
        |number: u64| started + interval.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
    let latencies = thread::scope(|scope| {
        let taker = scope.spawn(|| take(&socket, warm_up..count, due(count)));
        for number in 0..count {
            let early = due(number).since(now());
            if early > Duration::ZERO {
                pause(early)?;
            }
            let mut question = question(number);
            question[SENT_AT].copy_from_slice(&now().as_nanos().to_le_bytes());
            // A queue that is full loses the question, as the way does.
            drop(socket.send(&question));
        }
        taker.join().map_err(|_| io::Error::other("a thread of the load panicked"))?
    })?;
    end(&socket)?;
    let lost = (count - warm_up).saturating_sub(latencies.count());
    Ok(Answers { latencies, lost, duration: task.duration })
}

/// How often `interval` goes into `duration`.
fn times(duration: Duration, interval: Duration) -> u64 {
    u64::try_from(duration.as_nanos() / interval.as_nanos().max(1)).unwrap_or(u64::MAX)
}

/// Takes the answers to the questions of these numbers, until all are there or none came for a while
/// after the `last` was due.
fn take(socket: &UdpSocket, numbers: Range<u64>, last: Instant) -> io::Result<Latencies> {
    let mut latencies = Latencies::default();
    let mut missing: HashSet<u64> = numbers.collect();
    let mut buffer = [0; QUESTION_BYTES];
    while !missing.is_empty() {
        match socket.recv(&mut buffer) {
            // A second copy is no answer to another one.
            Ok(_) if missing.remove(&number(&buffer)) => {
                let sent = buffer[SENT_AT].first_chunk().map_or(0, |at| u64::from_le_bytes(*at));
                latencies.record(now().since(Instant::from_nanos(sent)));
            }
            Ok(_) => {}
            Err(error) if is_time_out(&error) && now() > last => break,
            Err(error) if is_time_out(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(latencies)
}

fn end(socket: &UdpSocket) -> io::Result<()> {
    for _ in 0..ENDS {
        // Nobody listens any more once one has arrived.
        drop(socket.send(&question(END)));
        pause(END_INTERVAL)?;
    }
    Ok(())
}

fn question(number: u64) -> [u8; QUESTION_BYTES] {
    let mut question = [0x77; QUESTION_BYTES];
    question[..8].copy_from_slice(&number.to_le_bytes());
    question
}

fn number(message: &[u8; QUESTION_BYTES]) -> u64 {
    message.first_chunk().map_or(END, |number| u64::from_le_bytes(*number))
}

const QUESTION_BYTES: usize = 64;
/// The question that ends one of those who answer.
const LAST_BYTE: u8 = 0x80;
const SENT_AT: Range<usize> = 8..16;
/// Beside the round trip of the path: in a closed loop each loss costs so much of its time.
const UDP_PATIENCE: Duration = Duration::from_millis(300);
const LAST_PATIENCE: Duration = Duration::from_secs(1);
