//! The other end of a measurement of throughput: one at a time, for peers of the tunnel alone.
//!
//! It listens on the addresses of the tunnel's interface and takes nothing that comes in another
//! way. What it does for whoever asks is bounded by [`Request::check`].

use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use super::protocol::{Answer, Direction, Request, SILENCE, Seen, TOKEN_BYTES, WARM_UP, Words};
use crate::bench::error::BenchError;
use crate::bench::load::tcp::{self, Counting, Filling};
use crate::bench::measure::BUCKET;
use crate::control::interrupt::Interrupt;
use crate::crypto::entropy::Entropy;
use crate::sys::clock;
use crate::sys::entropy::OsEntropy;
use crate::sys::poll::{Interest, Poller};
use crate::time::Instant;

/// How often it looks whether it shall end.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Beside what was asked for: a sender that nobody stops ends by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Listens.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    poller: Poller,
}

/// What a server did for somebody.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    pub whom: IpAddr,
    /// `None` if he did not get so far as to ask.
    pub request: Option<Request>,
    pub outcome: Result<(), String>,
}

impl Server {
    /// Listens at `port` on each of `addresses`, for what comes in by `interface`.
    ///
    /// # Errors
    /// The port is another's, or there is no such interface.
    pub fn bind(interface: &str, addresses: &[IpAddr], port: u16) -> Result<Self, BenchError> {
        let listen = |address: &IpAddr| {
            crate::sys::tcp::listen_on(interface, SocketAddr::new(*address, port))
        };
        let listeners = addresses.iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let poller = Poller::new()?;
        for (token, listener) in (0..).zip(&listeners) {
            poller.add(listener.as_fd(), token, Interest::Readable)?;
        }
        Ok(Self { listeners, poller })
    }

    /// Serves until somebody interrupts or the time is over; `tell` is told of each that was served.
    ///
    /// # Errors
    /// What the sockets said.
    pub fn run(
        &mut self,
        until: Instant,
        interrupt: &Interrupt,
        tell: &mut dyn FnMut(&Served),
    ) -> Result<(), BenchError> {
        while let Some((stream, from)) = self.accept(until, interrupt)? {
            tell(&self.serve(stream, from.ip(), interrupt));
        }
        Ok(())
    }

    /// The next connection; `None` if none came until then, or somebody interrupted.
    fn accept(
        &mut self,
        until: Instant,
        interrupt: &Interrupt,
    ) -> Result<Option<(TcpStream, SocketAddr)>, BenchError> {
        loop {
            for listener in &self.listeners {
                match listener.accept() {
                    Ok(accepted) => return Ok(Some(accepted)),
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(BenchError::io("cannot accept")(error)),
                }
            }
            let left = until.since(clock::now().mono);
            if interrupt.is_raised() || left == Duration::ZERO {
                return Ok(None);
            }
            self.poller.wait(Some(left.min(LOOK_EVERY))).map(drop)?;
        }
    }

    fn serve(&mut self, stream: TcpStream, whom: IpAddr, interrupt: &Interrupt) -> Served {
        let mut request = None;
        let outcome = Words::new(stream).and_then(|mut words| {
            let asked: Request = words.hear()?;
            request = Some(asked);
            if let Err(fault) = asked.check() {
                words.say(&Answer::Refused(fault.clone()))?;
                return Err(io::Error::other(format!("refused: {fault}")));
            }
            let token: [u8; TOKEN_BYTES] = (&mut OsEntropy as &mut dyn Entropy).bytes();
            words.say(&Answer::Token(hexadecimal(&token)))?;
            let streams = self.streams(asked.streams, whom, &token, interrupt)?;
            let seen = guarded(&streams, interrupt, || work(&streams, &asked));
            words.say(&seen.as_ref().map_or_else(|e| Seen::Failed(e.to_string()), Clone::clone))?;
            seen.map(drop)
        });
        Served { whom, request, outcome: outcome.map_err(|error| error.to_string()) }
    }

    /// As many streams of his as he asked for. Whoever else comes is sent away.
    fn streams(
        &mut self,
        count: u16,
        whom: IpAddr,
        token: &[u8; TOKEN_BYTES],
        interrupt: &Interrupt,
    ) -> io::Result<Vec<TcpStream>> {
        let until = clock::now().mono + SILENCE;
        let mut streams = Vec::new();
        while streams.len() < usize::from(count) {
            let accepted = self.accept(until, interrupt).map_err(io::Error::other)?;
            let Some((mut stream, from)) = accepted else {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "his streams did not come"));
            };
            stream.set_read_timeout(Some(SILENCE))?;
            let mut begins = [0; TOKEN_BYTES];
            if from.ip() == whom && stream.read_exact(&mut begins).is_ok() && begins == *token {
                streams.push(stream);
            }
        }
        Ok(streams)
    }
}

fn work(streams: &[TcpStream], request: &Request) -> io::Result<Seen> {
    let (duration, nobody) = (request.duration(), AtomicU64::new(0));
    match request.direction {
        Direction::There => {
            let counting = Counting { warm_up: WARM_UP, duration, bucket: BUCKET };
            let received = tcp::count(streams, counting, &nobody)?;
            Ok(Seen::Received { bits_per_second: received.bits_per_second() })
        }
        Direction::Back => {
            let limit = WARM_UP + duration + GRACE;
            let filling = Filling { limit, rate: request.rate() };
            let sent = tcp::fill(streams, filling, &nobody)?;
            Ok(Seen::Sent { retransmissions: sent.retransmissions })
        }
    }
}

/// Does `work` with these streams, and cuts them off if somebody interrupts.
///
/// # Errors
/// That somebody did, or those of `work`.
pub fn guarded<T: Send>(
    streams: &[TcpStream],
    interrupt: &Interrupt,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let working = scope.spawn(work);
        while !working.is_finished() {
            if interrupt.wait(LOOK_EVERY.min(BUCKET)) {
                for stream in streams {
                    // It may be closed already.
                    drop(stream.shutdown(Shutdown::Both));
                }
                break;
            }
        }
        let outcome = working.join().map_err(|_| io::Error::other("a thread panicked"))?;
        if interrupt.is_raised() { Err(io::Error::other("interrupted")) } else { outcome }
    })
}

fn is_passing(error: &io::Error) -> bool {
    // Whoever came may have gone before he was taken in.
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
