//! How much a tunnel carries, measured with a [server](super::serve) at its other end, and what that
//! does to round trips.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Watcher;
use super::protocol::{
    Answer, Direction, PORT, Request, SILENCE, Seen, TOKEN_BYTES, WARM_UP, Words, shown,
};
use super::round_trips::{self, Pace, RoundTrips};
use super::serve::guarded;
use crate::bench::error::BenchError;
use crate::bench::load::tcp::{self, Counting, Filling};
use crate::bench::measure::BUCKET;
use crate::control::interrupt::Interrupt;
use crate::sys::clock;
use crate::sys::echo::EchoSocket;

/// Beside what was asked for: a sender that nobody stops ends by itself.
const GRACE: Duration = Duration::from_secs(5);
/// A bounded stream that reaches so much of its bound could have gone faster.
const REACHED: f64 = 0.95;

/// One direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    pub bits_per_second: f64,
    /// The rate that was asked for was reached, so that the tunnel carries at least as much.
    pub is_bounded: bool,
    pub retransmissions: u64,
    /// Meanwhile.
    pub round_trips: RoundTrips,
}

/// Measures one direction, and round trips meanwhile.
///
/// # Errors
/// Nobody serves there, he refuses, the connection breaks, or somebody interrupted.
pub fn measure(
    to: SocketAddr,
    request: &Request,
    echo: &EchoSocket,
    interval: Duration,
    interrupt: &Interrupt,
    watcher: &mut dyn Watcher,
) -> Result<Throughput, BenchError> {
    let asked = *request;
    let begun = interrupt.cut_short(move || begin(to, &asked));
    let begun = begun.map_err(BenchError::io("cannot connect"))?;
    let (mut words, streams) = begun.ok_or(BenchError::Interrupted)??;
    let moved = AtomicU64::new(0);
    let takes = WARM_UP + request.duration();
    let (name, work_name) = match request.direction {
        Direction::There => ("there", "cannot send"),
        Direction::Back => ("back", "cannot receive"),
    };
    watcher.begins(name, takes);
    let (ours, round_trips) = thread::scope(|scope| {
        let working =
            scope.spawn(|| guarded(&streams, interrupt, || work(&streams, request, &moved)));
        let mut last = (clock::now().mono, 0);
        let pace = Pace { interval, duration: takes };
        let round_trips = round_trips::measure(echo, pace, interrupt, &mut |passed, so_far| {
            let now = (clock::now().mono, moved.load(Ordering::Relaxed));
            let bits = (now.1 - last.1) as f64 * 8.0 / now.0.since(last.0).as_secs_f64();
            last = now;
            let round_trip = so_far.times.micros(0.5).unwrap_or(0.0) / 1e3;
            let news = format!("{:.1} Mbit/s, round trip {round_trip:.1} ms", bits / 1e6);
            watcher.goes_on(passed, &news);
        });
        let ours = working.join().map_err(|_| io::Error::other("a thread panicked"));
        (ours.and_then(|outcome| outcome), round_trips)
    });
    if interrupt.is_raised() {
        return Err(BenchError::Interrupted);
    }
    let ours = ours.map_err(BenchError::io(work_name));
    let theirs: Seen = words.hear().map_err(BenchError::io("the other end said nothing of it"))?;
    let (bits_per_second, retransmissions) = match (ours?, theirs) {
        (Ours::Sent(sent), Seen::Received { bits_per_second }) => {
            (bits_per_second, sent.retransmissions)
        }
        (Ours::Received(received), Seen::Sent { retransmissions }) => {
            (received.bits_per_second(), retransmissions)
        }
        (_, Seen::Failed(reason)) => {
            return Err(BenchError::Silent(format!("the other end: {}", shown(&reason))));
        }
        (_, other) => {
            return Err(BenchError::Silent(format!("the other end measured {other:?}")));
        }
    };
    let is_bounded = request.rate().is_some_and(|rate| bits_per_second >= rate as f64 * REACHED);
    Ok(Throughput { bits_per_second, is_bounded, retransmissions, round_trips: round_trips? })
}

enum Ours {
    Sent(tcp::Sent),
    Received(tcp::Received),
}

fn work(streams: &[TcpStream], request: &Request, moved: &AtomicU64) -> io::Result<Ours> {
    let duration = request.duration();
    match request.direction {
        Direction::There => {
            let limit = WARM_UP + duration + GRACE;
            let filling = Filling { limit, rate: request.rate() };
            tcp::fill(streams, filling, moved).map(Ours::Sent)
        }
        Direction::Back => {
            let counting = Counting { warm_up: WARM_UP, duration, bucket: BUCKET };
            tcp::count(streams, counting, moved).map(Ours::Received)
        }
    }
}

/// Asks for a measurement, and begins its streams.
fn begin(to: SocketAddr, request: &Request) -> Result<(Words, Vec<TcpStream>), BenchError> {
    let connect = || TcpStream::connect_timeout(&to, SILENCE);
    let words = connect().map_err(BenchError::io(format!(
        "nobody serves at {to}: `hybridwg bench link NAME --serve` at the other end does{}",
        if to.port() == PORT { "" } else { ", with the same --port" }
    )))?;
    let failed = || BenchError::io(format!("{to} does not answer as a server of ours"));
    let mut words = Words::new(words).map_err(failed())?;
    words.say(request).map_err(failed())?;
    let token = match words.hear().map_err(failed())? {
        Answer::Token(token) => token_bytes(&token).map_err(failed())?,
        Answer::Refused(why) => {
            return Err(BenchError::Silent(format!("the other end refuses: {}", shown(&why))));
        }
    };
    let stream = |_| {
        let mut stream = connect()?;
        stream.write_all(&token)?;
        Ok(stream)
    };
    let streams = (0..request.streams).map(stream).collect::<io::Result<Vec<_>>>();
    Ok((words, streams.map_err(failed())?))
}

fn token_bytes(text: &str) -> io::Result<[u8; TOKEN_BYTES]> {
    let digits = (0..TOKEN_BYTES).map(|at| {
        let pair = text.get(at * 2..at * 2 + 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes: Option<Vec<u8>> = digits.collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .filter(|_| text.len() == TOKEN_BYTES * 2)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a token that is none"))
}
