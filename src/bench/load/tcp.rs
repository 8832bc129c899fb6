//! TCP streams as fast as they go: one thread a stream, counted where they arrive.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SILENCE, at_once, is_time_out, now, silent};
use crate::sys::tcp;
use crate::time::Instant;

/// Accepts streams and counts what arrives after a warm-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receive {
    pub address: IpAddr,
    pub streams: usize,
    /// From the moment at which all streams are there.
    pub warm_up: Duration,
    pub duration: Duration,
    /// How long each of the numbers of [`Received::buckets`] stands for.
    pub bucket: Duration,
}

/// What arrived.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Received {
    pub bytes: u64,
    pub duration: Duration,
    /// Bytes of all streams, by time.
    pub buckets: Vec<u64>,
}

impl Received {
    #[expect(clippy::cast_precision_loss, reason = "no number here has 16 digits")]
    pub fn bits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.duration.as_secs_f64()
    }
}

/// Sends on so many streams until the other end has had enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Send {
    pub to: SocketAddr,
    pub streams: usize,
    /// After which the sender gives up a receiver that does not end.
    pub limit: Duration,
    /// Bits a second of all streams together; `None` for as fast as it goes.
    pub rate: Option<u64>,
}

/// What was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    pub bytes: u64,
    pub retransmissions: u64,
}

/// Does [`Receive`].
///
/// # Errors
/// A stream that does not come, breaks off, or falls silent for [`SILENCE`].
pub fn receive(task: &Receive, ready: &mut dyn FnMut(u16)) -> io::Result<Received> {
    let listener = TcpListener::bind((task.address, 0))?;
    ready(listener.local_addr()?.port());
    let streams = accept(listener, task.streams)?;
    let started = now() + task.warm_up;
    let buckets = at_once(streams.len(), |number| count(&streams[number], started, task))?;
    let length = buckets.iter().map(Vec::len).max().unwrap_or(0);
    let sum = |at: usize| buckets.iter().filter_map(|bucket| bucket.get(at)).sum();
    let buckets: Vec<u64> = (0..length).map(sum).collect();
    Ok(Received { bytes: buckets.iter().sum(), duration: task.duration, buckets })
}

/// Accepts `count` connections, on a thread of its own since accepting knows no time-out.
fn accept(listener: TcpListener, count: usize) -> io::Result<Vec<TcpStream>> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("accept".to_owned()).spawn(move || {
        for _ in 0..count {
            // Whoever waited may have given up.
            if sender.send(listener.accept()).is_err() {
                break;
            }
        }
    })?;
    let next = |_| match receiver.recv_timeout(SILENCE) {
        Ok(accepted) => accepted.map(|(stream, _)| stream),
        Err(_) => Err(silent("not all streams came")),
    };
    (0..count).map(next).collect()
}

/// Reads one stream until the end of the measurement and closes it.
fn count(mut stream: &TcpStream, started: Instant, task: &Receive) -> io::Result<Vec<u64>> {
    let end = started + task.duration;
    let slots = task.duration.as_nanos().div_ceil(task.bucket.as_nanos().max(1));
    let mut buckets = vec![0_u64; usize::try_from(slots).unwrap_or(0)];
    let mut chunk = vec![0; CHUNK_BYTES];
    stream.set_read_timeout(Some(SILENCE))?;
    loop {
        let length = match stream.read(&mut chunk) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if is_time_out(&error) => return Err(silent("nothing arrived")),
            Err(error) => return Err(error),
        };
        let at = now();
        if at >= end {
            break;
        }
        if at >= started {
            let slot = at.since(started).as_nanos() / task.bucket.as_nanos().max(1);
            let slot = usize::try_from(slot).ok().and_then(|slot| buckets.get_mut(slot));
            *slot.expect("before the end") += length as u64;
        }
    }
    // Data is still on its way, so that the sender learns of it by a reset.
    stream.shutdown(Shutdown::Both).or_else(ignore_closed)?;
    Ok(buckets)
}

/// Does [`Send`].
///
/// # Errors
/// No connection, or one that fails in another way than by the other end closing it.
pub fn send(task: &Send) -> io::Result<Sent> {
    let streams = (0..task.streams).map(|_| TcpStream::connect_timeout(&task.to, SILENCE));
    let streams = streams.collect::<io::Result<Vec<_>>>()?;
    let deadline = now() + task.limit;
    let share = task.rate.map(|rate| rate / task.streams.max(1) as u64);
    let sent = at_once(streams.len(), |number| feed(&streams[number], deadline, share))?;
    Ok(sent.into_iter().fold(Sent::default(), |all, one| Sent {
        bytes: all.bytes + one.bytes,
        retransmissions: all.retransmissions + one.retransmissions,
    }))
}

fn feed(mut stream: &TcpStream, deadline: Instant, rate: Option<u64>) -> io::Result<Sent> {
    stream.set_write_timeout(Some(SILENCE))?;
    let chunk = vec![0; if rate.is_some() { PACED_CHUNK_BYTES } else { CHUNK_BYTES }];
    let started = now();
    let mut bytes = 0;
    while now() < deadline {
        match stream.write(&chunk) {
            Ok(length) => bytes += length as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                ignore_closed(error)?;
                break;
            }
        }
        if let Some(rate) = rate {
            let due = Duration::from_nanos(
                u64::try_from(u128::from(bytes) * 8_000_000_000 / u128::from(rate.max(1)))
                    .unwrap_or(u64::MAX),
            );
            let early = (started + due).since(now());
            if early > Duration::ZERO {
                super::pause(early)?;
            }
        }
    }
    let retransmissions = u64::from(tcp::retransmissions(stream.as_fd()).map_err(|e| e.source)?);
    Ok(Sent { bytes, retransmissions })
}

/// One end closes the connection while data is on its way; that is how a measurement ends.
///
/// # Errors
/// Any other error.
pub fn ignore_closed(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::NotConnected => Ok(()),
        _ => Err(error),
    }
}

const CHUNK_BYTES: usize = 128 << 10;
const PACED_CHUNK_BYTES: usize = 8 << 10;
