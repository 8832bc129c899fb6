//! The load generators: TCP streams, UDP at a rate, request and response, handshakes, connections on
//! which nothing passes, and a flood of attempts to connect.
//!
//! Each task is plain data (it travels to a [worker](super::worker) as JSON) with a function that
//! does it on the calling thread and returns what it saw, plain data too. Whoever receives or serves
//! first tells its port. Counting happens where data arrives, after a warm-up; the sender's numbers
//! say what was offered.
//!
//! Must not know of tunnels, but for the handshakes and the flood: two addresses that reach each other are all it
//! takes.

pub mod crowd;
pub mod echo;
pub mod flood;
pub mod handshake;
pub mod tcp;
pub mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys::clock;
use crate::sys::poll::Poller;
use crate::time::Instant;

/// What a worker can be asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Task {
    TcpReceive(tcp::Receive),
    TcpSend(tcp::Send),
    UdpReceive(udp::Receive),
    UdpSend(udp::Send),
    EchoServe(echo::Serve),
    EchoAsk(echo::Ask),
    Handshakes(handshake::Begin),
    CrowdServe(crowd::Serve),
    CrowdBegin(crowd::Begin),
    Flood(flood::Flood),
}

/// What came of a task, by its kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    TcpReceived(tcp::Received),
    TcpSent(tcp::Sent),
    UdpReceived(udp::Received),
    UdpSent(udp::Sent),
    EchoServed,
    EchoAsked(echo::Answers),
    HandshakesAnswered(handshake::Answered),
    CrowdGone,
    Flooded(flood::Flooded),
}

impl Task {
    /// Does it. `ready` is told the port as soon as others may send to it.
    ///
    /// # Errors
    /// What the sockets said, or a partner that did not come or fell silent.
    pub fn run(&self, ready: &mut dyn FnMut(u16)) -> io::Result<Outcome> {
        match self {
            Self::TcpReceive(task) => tcp::receive(task, ready).map(Outcome::TcpReceived),
            Self::TcpSend(task) => tcp::send(task, ready).map(Outcome::TcpSent),
            Self::UdpReceive(task) => udp::receive(task, ready).map(Outcome::UdpReceived),
            Self::UdpSend(task) => udp::send(task).map(Outcome::UdpSent),
            Self::EchoServe(task) => echo::serve(task, ready).map(|()| Outcome::EchoServed),
            Self::EchoAsk(task) => echo::ask(task).map(Outcome::EchoAsked),
            Self::Handshakes(task) => handshake::begin(task).map(Outcome::HandshakesAnswered),
            Self::CrowdServe(task) => crowd::serve(task, ready).map(|()| Outcome::CrowdGone),
            Self::CrowdBegin(task) => crowd::begin(task, ready).map(|()| Outcome::CrowdGone),
            Self::Flood(task) => flood::flood(task).map(Outcome::Flooded),
        }
    }
}

/// How long whoever waits for a partner or for data puts up with nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// The sequence number of the datagram that ends a task.
const END: u64 = u64::MAX;

/// So many end datagrams, so far apart: one at least arrives, whatever the loss.
const ENDS: u32 = 20;
const END_INTERVAL: Duration = Duration::from_millis(5);

fn now() -> Instant {
    clock::now().mono
}

/// Lets time pass.
fn pause(duration: Duration) -> io::Result<()> {
    Poller::new().and_then(|mut poller| poller.wait(Some(duration)).map(drop)).map_err(|e| e.source)
}

fn connected_udp(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

/// Whether an error only says that nothing came in time, or that a signal did.
fn is_time_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn silent(what: &str) -> io::Error {
    let seconds = SILENCE.as_secs();
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {seconds} s"))
}

/// Runs `work` `count` times at once, each on a thread of its own, and collects what they return.
fn at_once<T: Send>(
    count: usize,
    work: impl Fn(usize) -> io::Result<T> + Sync,
) -> io::Result<Vec<T>> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || work(number))).collect();
        let results = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the load panicked")))
        });
        results.collect()
    })
}

#[cfg(test)]
mod tests;
