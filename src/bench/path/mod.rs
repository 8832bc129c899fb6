//! An emulated path: two TUN interfaces, one in each namespace, and a thread a direction that
//! carries packets between them as a [`Profile`] says.
//!
//! In user space, so that it works where the kernel has no emulation of its own, and so that equal
//! seeds give equal fates. Its own ceiling, of one packet a call, is what the plain path reaches.

mod fate;
mod profile;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use self::fate::{Direction, Reassembler};
pub use self::profile::{Fragments, NAMES, Profile};
use super::error::BenchError;
use crate::sys::SysError;
use crate::sys::clock;
use crate::sys::poll::{Interest, Poller, Waker};
use crate::sys::tun::Tun;
use crate::time::Instant;

/// A path that carries packets until it is dropped.
#[derive(Debug)]
pub struct Emulator {
    threads: Vec<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
    wakers: Vec<Arc<Waker>>,
}

impl Emulator {
    /// Starts to carry packets between `ends`.
    ///
    /// # Errors
    /// A thread or what it waits on cannot be made.
    pub fn start(profile: &Profile, ends: &[Arc<Tun>; 2]) -> Result<Self, BenchError> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut emulator = Self { threads: Vec::new(), is_over, wakers: Vec::new() };
        for (number, from) in ends.iter().enumerate() {
            let waker = Arc::new(Waker::new()?);
            let lane = Lane {
                from: Arc::clone(from),
                to: Arc::clone(&ends[1 - number]),
                direction: Direction::new(profile, number as u64),
                gate: (profile.fragments == Fragments::InOrder).then(Reassembler::default),
                under_way: BinaryHeap::new(),
                sequence: 0,
            };
            let (is_over, woken) = (Arc::clone(&emulator.is_over), Arc::clone(&waker));
            let thread = thread::Builder::new()
                .name(format!("path {number}"))
                // An interface that is gone ends it: there is nobody left to tell.
                .spawn(move || drop(lane.run(&is_over, &woken)))
                .map_err(BenchError::io("cannot start an emulated path"))?;
            emulator.threads.push(thread);
            emulator.wakers.push(waker);
        }
        Ok(emulator)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.wakers.iter().for_each(|waker| waker.wake());
        for thread in self.threads.drain(..) {
            // It panicked, which has been printed.
            drop(thread.join());
        }
    }
}

/// One direction with its interfaces and what is under way.
struct Lane {
    from: Arc<Tun>,
    to: Arc<Tun>,
    direction: Direction,
    gate: Option<Reassembler>,
    under_way: BinaryHeap<Reverse<Packet>>,
    sequence: u64,
}

/// Ordered by arrival, then by when it was sent.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    arrival: Instant,
    sequence: u64,
    bytes: Vec<u8>,
}

impl Lane {
    fn run(mut self, is_over: &AtomicBool, waker: &Waker) -> Result<(), SysError> {
        let mut poller = Poller::new()?;
        poller.add(self.from.as_fd(), 0, Interest::Readable)?;
        poller.add(waker.as_fd(), 1, Interest::Readable)?;
        let mut buffer = vec![0; LONGEST_BYTES];
        while !is_over.load(Ordering::Relaxed) {
            let had_work = self.take_in(&mut buffer)?;
            self.let_out()?;
            if !had_work {
                let now = clock::now().mono;
                let next = self.under_way.peek().map(|Reverse(packet)| packet.arrival.since(now));
                poller.wait(next.or(Some(LOOK_EVERY))).map(drop)?;
            }
        }
        Ok(())
    }

    /// Takes what waits at the near end, a number at most, so that what is due is not held up.
    fn take_in(&mut self, buffer: &mut [u8]) -> Result<bool, SysError> {
        for taken in 0..AT_ONCE {
            let length = match self.from.recv(buffer) {
                Ok(Some(length)) => length,
                Ok(None) => return Ok(taken > 0),
                Err(error) if error.is_tun_down() => return Ok(taken > 0),
                Err(error) => return Err(error),
            };
            let packet = &buffer[..length];
            let arrivals = self.direction.judge(clock::now().mono, packet);
            for arrival in arrivals.into_iter().flatten() {
                self.sequence += 1;
                let (bytes, sequence) = (packet.to_vec(), self.sequence);
                if self.under_way.len() < MOST_UNDER_WAY {
                    self.under_way.push(Reverse(Packet { arrival, sequence, bytes }));
                }
            }
        }
        Ok(true)
    }

    /// Puts what is due out at the far end.
    fn let_out(&mut self) -> Result<(), SysError> {
        let now = clock::now().mono;
        while self.under_way.peek().is_some_and(|Reverse(packet)| packet.arrival <= now) {
            let Some(Reverse(packet)) = self.under_way.pop() else { break };
            if self.gate.as_mut().is_some_and(|gate| !gate.passes(&packet.bytes)) {
                continue;
            }
            match self.to.send(&packet.bytes) {
                Ok(()) => {}
                Err(error) if error.is_tun_gone() => return Err(error),
                // Lost at the far end, as where a host is down.
                Err(_) => {}
            }
        }
        Ok(())
    }
}

const LONGEST_BYTES: usize = 65_536;
const AT_ONCE: usize = 64;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A path of 10 Gbit/s and 100 ms has so many packets under way.
const MOST_UNDER_WAY: usize = 100_000;
