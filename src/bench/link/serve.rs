//! The other end of a measurement of throughput: one at a time, for peers of the tunnel alone.
//!
//! It listens on the addresses of the tunnel's interface and takes nothing that comes in another
//! way. What it does for whoever asks is bounded by [`Request::check`] and by a rate, and how long it
//! listens to him by [`SILENCE`]: whoever comes, it ends in time and when it is interrupted.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use super::protocol::{
    Answer, Direction, Patient, Request, SILENCE, Seen, TOKEN_BYTES, WARM_UP, Words, shown,
};
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
/// How long a stream may take to say whose it is, which it does at once.
const INTRODUCTION: Duration = Duration::from_secs(2);

/// Listens.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    poller: Poller,
    /// Megabits a second that anybody may ask for; `None` for as fast as it goes.
    most_mbit: Option<u32>,
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
    pub fn bind(
        interface: &str,
        addresses: &[IpAddr],
        port: u16,
        most_mbit: Option<u32>,
    ) -> Result<Self, BenchError> {
        let listen = |address: &IpAddr| {
            crate::sys::listen::tcp_on(interface, SocketAddr::new(*address, port))
        };
        let listeners = addresses.iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let poller = Poller::new()?;
        for (token, listener) in (0..).zip(&listeners) {
            poller.add(listener.as_fd(), token, Interest::Readable)?;
        }
        Ok(Self { listeners, poller, most_mbit })
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
            // First, so that it does not take those who come to leave off.
            let left = until.since(clock::now().mono);
            if interrupt.is_raised() || left == Duration::ZERO {
                return Ok(None);
            }
            for listener in &self.listeners {
                match listener.accept() {
                    Ok(accepted) => return Ok(Some(accepted)),
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(BenchError::io("cannot accept")(error)),
                }
            }
            self.poller.wait(Some(left.min(LOOK_EVERY))).map(drop)?;
        }
    }

    fn serve(&mut self, stream: TcpStream, whom: IpAddr, interrupt: &Interrupt) -> Served {
        let mut request = None;
        let outcome = stream.try_clone().and_then(|words| {
            let talk = || self.talk(Words::new(words)?, whom, &mut request, interrupt);
            guarded(&[stream], interrupt, talk)
        });
        Served { whom, request, outcome: outcome.map_err(|error| shown(&error.to_string())) }
    }

    fn talk(
        &mut self,
        mut words: Words,
        whom: IpAddr,
        request: &mut Option<Request>,
        interrupt: &Interrupt,
    ) -> io::Result<()> {
        let asked: Request = words.hear()?;
        *request = Some(asked);
        if let Err(fault) = asked.check().and_then(|()| self.allow(&asked)) {
            words.say(&Answer::Refused(fault.clone()))?;
            return Err(io::Error::other(format!("refused: {fault}")));
        }
        let token: [u8; TOKEN_BYTES] = (&mut OsEntropy as &mut dyn Entropy).bytes();
        words.say(&Answer::Token(hexadecimal(&token)))?;
        let streams = self.streams(asked.streams, whom, &token, interrupt)?;
        let seen = guarded(&streams, interrupt, || work(&streams, &asked));
        words.say(&seen.as_ref().map_or_else(|e| Seen::Failed(e.to_string()), Clone::clone))?;
        seen.map(drop)
    }

    /// # Errors
    /// More is asked for than whoever serves gives.
    fn allow(&self, request: &Request) -> Result<(), String> {
        match self.most_mbit {
            Some(most) if request.mbit.is_none_or(|mbit| mbit > most) => {
                Err(format!("{most} Mbit/s at most, as the --rate of whoever serves has it"))
            }
            Some(_) | None => Ok(()),
        }
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
            let Some((stream, from)) = accepted else {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "his streams did not come"));
            };
            let mut begins = [0; TOKEN_BYTES];
            let mut stream = Patient { stream, until: clock::now().mono + INTRODUCTION };
            if from.ip() == whom && stream.read_exact(&mut begins).is_ok() && begins == *token {
                streams.push(stream.stream);
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

#[cfg(test)]
mod tests {
    use super::super::protocol::testing::REQUEST;
    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn server(most_mbit: Option<u32>) -> (Server, SocketAddr) {
        let server = Server::bind("lo", &[LOCALHOST], 0, most_mbit).unwrap();
        let address = server.listeners[0].local_addr().unwrap();
        (server, address)
    }

    #[test]
    fn whoever_keeps_coming_keeps_no_server_beyond_its_time() {
        let (mut server, address) = server(None);
        let until = clock::now().mono + Duration::from_millis(300);
        let is_over = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    // There is always one more that waits, and goes when its turn comes.
                    drop(TcpStream::connect(address));
                }
            });
            server.run(until, &Interrupt::never(), &mut |_| ()).unwrap();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn an_interrupted_server_does_not_wait_for_whoever_says_nothing() {
        let (mut server, address) = server(None);
        let _silent = TcpStream::connect(address).unwrap();
        let until = clock::now().mono + Duration::from_secs(60);
        let (stream, from) = server.accept(until, &Interrupt::never()).unwrap().unwrap();
        let interrupt = Interrupt::never();
        interrupt.raise();
        let served = server.serve(stream, from.ip(), &interrupt);
        assert_eq!(served.outcome, Err("interrupted".to_owned()));
    }

    #[test]
    fn more_than_whoever_serves_gives_is_refused() {
        for (most_mbit, mbit, is_refused) in [
            (Some(100), Some(100), false),
            (Some(100), Some(101), true),
            (Some(100), None, true),
            (None, None, false),
        ] {
            let (server, _) = server(most_mbit);
            let refused = server.allow(&Request { mbit, ..REQUEST });
            assert_eq!(refused.is_err(), is_refused, "{most_mbit:?} {mbit:?}");
        }
    }
}
