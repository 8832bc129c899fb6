//! TCP streams as fast as they go: one thread a stream, counted where they arrive.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SILENCE, at_once, is_time_out, now, silent};
use crate::bench::settings::Congestion;
use crate::sys::tcp;
use crate::time::Instant;

const CHUNK_BYTES: usize = 128 << 10;
const PACED_CHUNK_BYTES: usize = 8 << 10;

/// How streams come about; the other end does the other thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Meeting {
    /// At this address, and a port that is told.
    Listen(IpAddr),
    Connect(SocketAddr),
}

/// Counts what arrives on streams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receive {
    pub meeting: Meeting,
    pub streams: usize,
    pub counting: Counting,
}

/// What of streams is counted, from the moment at which all are there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counting {
    /// Before anything counts.
    pub warm_up: Duration,
    pub duration: Duration,
    /// How long each of the numbers of [`Received::buckets`] stands for.
    pub bucket: Duration,
}

/// How streams are filled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filling {
    /// After which the sender gives up a receiver that does not end.
    pub limit: Duration,
    /// Bits a second of all streams together; `None` for as fast as it goes.
    pub rate: Option<u64>,
}

/// What arrived.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Received {
    pub bytes: u64,
    pub duration: Duration,
    /// Bytes of all streams, by time.
    pub buckets: Vec<u64>,
    /// That arrived at all, in the warm-up too.
    pub all_bytes: u64,
    /// Bytes of each stream.
    pub shares: Vec<u64>,
}

impl Received {
    #[expect(clippy::cast_precision_loss, reason = "no number here has 16 digits")]
    pub fn bits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.duration.as_secs_f64()
    }

    /// How evenly the streams share, by Jain's index: 1 if all have the same, 1/n if one has all.
    #[expect(clippy::cast_precision_loss, reason = "no number here has 16 digits")]
    pub fn fairness(&self) -> f64 {
        let shares = self.shares.iter().map(|&share| share as f64);
        let (sum, squares) = (shares.clone().sum::<f64>(), shares.map(|share| share * share));
        sum * sum / (self.shares.len() as f64 * squares.sum::<f64>())
    }
}

/// Sends on so many streams until the other end has had enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Send {
    pub meeting: Meeting,
    pub streams: usize,
    pub filling: Filling,
    /// `None`: the system's own.
    pub congestion: Option<Congestion>,
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
    let streams = meet(task.meeting, task.streams, None, ready)?;
    count(&streams, task.counting, &AtomicU64::new(0))
}

/// Counts what arrives on these streams, and closes them when it has enough. `moved` is told all
/// bytes as they come, of the warm-up too.
///
/// # Errors
/// A stream that breaks off, or falls silent for [`SILENCE`].
pub fn count(streams: &[TcpStream], counting: Counting, moved: &AtomicU64) -> io::Result<Received> {
    let started = now() + counting.warm_up;
    let work = |number: usize| count_one(&streams[number], started, counting, moved);
    let each = at_once(streams.len(), work)?;
    let length = each.iter().map(|(buckets, _)| buckets.len()).max().unwrap_or(0);
    let sum = |at: usize| each.iter().filter_map(|(buckets, _)| buckets.get(at)).sum();
    let buckets: Vec<u64> = (0..length).map(sum).collect();
    let shares = each.iter().map(|(buckets, _)| buckets.iter().sum()).collect();
    let (bytes, all_bytes) = (buckets.iter().sum(), each.iter().map(|(_, all)| all).sum());
    Ok(Received { bytes, duration: counting.duration, buckets, all_bytes, shares })
}

fn meet(
    meeting: Meeting,
    streams: usize,
    congestion: Option<Congestion>,
    ready: &mut dyn FnMut(u16),
) -> io::Result<Vec<TcpStream>> {
    match meeting {
        Meeting::Listen(address) => {
            let listener = TcpListener::bind((address, 0))?;
            if let Some(congestion) = congestion {
                tcp::set_congestion(listener.as_fd(), congestion.name()).map_err(|e| e.source)?;
            }
            ready(listener.local_addr()?.port());
            accept(listener, streams)
        }
        Meeting::Connect(to) => {
            let algorithm = congestion.map(Congestion::name);
            let connect = |_| tcp::connect(to, SILENCE, algorithm).map_err(|e| e.source);
            (0..streams).map(connect).collect()
        }
    }
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

/// Reads one stream until the end of the measurement and closes it. Returns the bytes by time, and
/// all that arrived.
fn count_one(
    mut stream: &TcpStream,
    started: Instant,
    counting: Counting,
    moved: &AtomicU64,
) -> io::Result<(Vec<u64>, u64)> {
    let end = started + counting.duration;
    let slots = counting.duration.as_nanos().div_ceil(counting.bucket.as_nanos().max(1));
    let mut buckets = vec![0_u64; usize::try_from(slots).unwrap_or(0)];
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut all = 0;
    stream.set_read_timeout(Some(SILENCE))?;
    loop {
        let length = match stream.read(&mut chunk) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if is_time_out(&error) => return Err(silent("nothing arrived")),
            Err(error) => return Err(error),
        };
        moved.fetch_add(length as u64, Ordering::Relaxed);
        all += length as u64;
        let at = now();
        if at >= end {
            break;
        }
        if at >= started {
            let slot = at.since(started).as_nanos() / counting.bucket.as_nanos().max(1);
            let slot = usize::try_from(slot).ok().and_then(|slot| buckets.get_mut(slot));
            *slot.expect("before the end") += length as u64;
        }
    }
    // Data is still on its way, so that the sender learns of it by a reset.
    stream.shutdown(Shutdown::Both).or_else(ignore_closed)?;
    Ok((buckets, all))
}

/// Does [`Send`].
///
/// # Errors
/// A stream that does not come, or one that fails in another way than by the other end closing it.
pub fn send(task: &Send, ready: &mut dyn FnMut(u16)) -> io::Result<Sent> {
    let streams = meet(task.meeting, task.streams, task.congestion, ready)?;
    fill(&streams, task.filling, &AtomicU64::new(0))
}

/// Sends on these streams until the other end closes them. `moved` is told the bytes as they go.
///
/// # Errors
/// A stream that fails in another way than by the other end closing it.
pub fn fill(streams: &[TcpStream], filling: Filling, moved: &AtomicU64) -> io::Result<Sent> {
    let deadline = now() + filling.limit;
    let share = filling.rate.map(|rate| rate / streams.len().max(1) as u64);
    let work = |number: usize| fill_one(&streams[number], deadline, share, moved);
    let sent = at_once(streams.len(), work)?;
    Ok(sent.into_iter().fold(Sent::default(), |all, one| Sent {
        bytes: all.bytes + one.bytes,
        retransmissions: all.retransmissions + one.retransmissions,
    }))
}

fn fill_one(
    mut stream: &TcpStream,
    deadline: Instant,
    rate: Option<u64>,
    moved: &AtomicU64,
) -> io::Result<Sent> {
    stream.set_write_timeout(Some(SILENCE))?;
    let chunk = vec![0; if rate.is_some() { PACED_CHUNK_BYTES } else { CHUNK_BYTES }];
    let started = now();
    let mut bytes = 0;
    while now() < deadline {
        match stream.write(&chunk) {
            Ok(length) => {
                bytes += length as u64;
                moved.fetch_add(length as u64, Ordering::Relaxed);
            }
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
