//! Datagrams at a rate, and the search for the highest one that gets through.
//!
//! Numbered from 0 and counted where they arrive. Both sides move batches with one call, as
//! programs do that care for speed; one call a datagram would measure the generator.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{END, END_INTERVAL, ENDS, SILENCE, now, pause, silent};
use crate::sys::poll::{Interest, Poller};
use crate::sys::udp::{Receiver, RecvMeta, SendItem, Sender, UdpOffloads, UdpSockets};

/// Counts datagrams until the sender's end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receive {
    /// After which a sender that never ends is given up.
    pub limit: Duration,
}

/// What arrived; a datagram that arrives twice counts once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Received {
    pub packets: u64,
    pub bytes: u64,
    /// Datagrams that a later one had overtaken.
    pub late: u64,
}

/// Sends datagrams of one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Send {
    pub to: SocketAddr,
    /// At least 8.
    pub payload_bytes: usize,
    pub packets_per_second: f64,
    pub duration: Duration,
}

/// What was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    pub packets: u64,
    pub duration: Duration,
}

/// Does [`Receive`].
///
/// # Errors
/// What the socket said, or nothing for [`SILENCE`].
pub fn receive(task: &Receive, ready: &mut dyn FnMut(u16)) -> io::Result<Received> {
    let offloads = UdpOffloads { segmentation: false, gro: false };
    let sockets = UdpSockets::bind(0, 0, offloads).map_err(|e| e.source)?;
    let mut poller = Poller::new().map_err(|e| e.source)?;
    for (token, fd) in (0..).zip(sockets.fds().into_iter().flatten()) {
        poller.add(fd, token, Interest::Readable).map_err(|e| e.source)?;
    }
    ready(sockets.local_port());
    let (mut receiver, mut metas) = (Receiver::new(BATCH), vec![RecvMeta::default(); BATCH]);
    let mut buffers = vec![vec![0; LONGEST_BYTES]; BATCH];
    let (mut received, mut numbers, mut next) = (Received::default(), Numbers::default(), 0);
    let deadline = now() + task.limit;
    let mut heard = now();
    loop {
        let slices = buffers.iter_mut().map(Vec::as_mut_slice);
        let count = sockets
            .recv_batch(&mut receiver, [true; 2], slices, &mut metas)
            .map_err(|e| e.source)?;
        for (buffer, meta) in buffers.iter().zip(&metas[..count]) {
            let Some(number) = buffer[..meta.len].first_chunk().map(|n| u64::from_le_bytes(*n))
            else {
                continue;
            };
            if number == END {
                return Ok(received);
            }
            if !numbers.insert(number) {
                continue;
            }
            received.packets += 1;
            received.bytes += meta.len as u64;
            received.late += u64::from(number < next);
            next = next.max(number + 1);
        }
        if count > 0 {
            heard = now();
            continue;
        }
        poller.wait(Some(LOOK_EVERY)).map(drop).map_err(|e| e.source)?;
        if now().since(heard) > SILENCE || now() > deadline {
            return Err(silent("the sender did not end"));
        }
    }
}

/// Which datagrams have arrived: a bit each.
#[derive(Default)]
struct Numbers(Vec<u64>);

impl Numbers {
    /// Whether it is the first of this number, of those that a sender can reach.
    fn insert(&mut self, number: u64) -> bool {
        let Some(word) = usize::try_from(number / 64).ok().filter(|word| *word < MOST_WORDS) else {
            return false;
        };
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let bit = 1 << (number % 64);
        let is_first = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_first
    }
}

/// Does [`Send`].
///
/// # Errors
/// What the socket said.
pub fn send(task: &Send) -> io::Result<Sent> {
    let offloads = UdpOffloads { segmentation: false, gro: false };
    let sockets = UdpSockets::bind(0, 0, offloads).map_err(|e| e.source)?;
    let mut sender = Sender::new(BATCH);
    let mut buffers = vec![vec![0x77; task.payload_bytes.max(8)]; BATCH];
    let started = now();
    let mut sent = 0;
    let mut at = started;
    while at.since(started) < task.duration {
        let due = due(task.packets_per_second, at.since(started)).saturating_sub(sent);
        if due == 0 {
            let next = Duration::from_secs_f64(1.0 / task.packets_per_second);
            // Sleeping costs more than 50 µs anyway; shorter, the loop itself paces.
            if next > Duration::from_micros(50) {
                pause(next)?;
            }
        } else {
            let count = usize::try_from(due).map_or(BATCH, |due| due.min(BATCH));
            for (number, buffer) in (sent..).zip(&mut buffers[..count]) {
                buffer[..8].copy_from_slice(&number.to_le_bytes());
            }
            transmit(&sockets, &mut sender, task.to, &buffers[..count])?;
            sent += count as u64;
        }
        at = now();
    }
    let duration = at.since(started);
    end(&sockets, &mut sender, task.to)?;
    Ok(Sent { packets: sent, duration })
}

/// How many datagrams have to be out after so long.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of datagrams is positive and has far fewer than 16 digits"
)]
fn due(packets_per_second: f64, passed: Duration) -> u64 {
    (packets_per_second * passed.as_secs_f64()) as u64
}

/// Lets what is on its way arrive, and says that this was all.
fn end(sockets: &UdpSockets, sender: &mut Sender, to: SocketAddr) -> io::Result<()> {
    pause(DRAIN)?;
    for _ in 0..ENDS {
        transmit(sockets, sender, to, &[END.to_le_bytes().to_vec()])?;
        pause(END_INTERVAL)?;
    }
    Ok(())
}

fn transmit(
    sockets: &UdpSockets,
    sender: &mut Sender,
    to: SocketAddr,
    datagrams: &[Vec<u8>],
) -> io::Result<()> {
    let items = datagrams.iter().map(|payload| SendItem {
        remote: to,
        source: None,
        tos: 0,
        payload,
        stride: payload.len(),
        is_probe: false,
    });
    let report = sockets.send_batch(sender, items);
    // What did not get out is lost, as on the way. But a socket that refuses everything has
    // something to say.
    match report.failed.into_iter().next() {
        Some(failed) if report.sent == 0 && !failed.error.is_would_block() => {
            Err(failed.error.source)
        }
        _ => Ok(()),
    }
}

/// One try of a rate: what was offered and what arrived, in packets a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    pub offered: f64,
    pub delivered: f64,
}

/// Finds the highest rate, in packets a second, at which at most `loss` (a share) is lost, by
/// halving the ratio between a rate that got through and one that did not, `steps` times. What did
/// not get through is tried once more: one hiccup of the machine shall not decide. `None` if even
/// the lowest rate tried lost more.
///
/// # Errors
/// Those of `measure`.
pub fn search<E>(
    start: f64,
    steps: u32,
    loss: f64,
    mut measure: impl FnMut(f64) -> Result<Trial, E>,
) -> Result<Option<f64>, E> {
    let (mut good, mut bad) = (None::<f64>, None::<f64>);
    let mut rate = start;
    for _ in 0..steps {
        let mut trial = measure(rate)?;
        if !trial.got_through(rate, loss) {
            trial = measure(rate)?;
        }
        if trial.got_through(rate, loss) {
            // What got through once stays good, though the sender may have been slow since.
            good = Some(good.map_or(trial.delivered, |good| good.max(trial.delivered)));
        } else {
            // Where not even the sender kept pace, more than it gave cannot be asked for.
            bad = Some(rate.min(trial.offered / KEPT_PACE));
        }
        rate = match (good, bad) {
            (Some(good), Some(bad)) => (good * bad).sqrt(),
            (Some(good), None) => good * 2.0,
            (None, Some(bad)) => bad / 2.0,
            (None, None) => rate,
        };
    }
    Ok(good)
}

impl Trial {
    fn got_through(&self, rate: f64, loss: f64) -> bool {
        self.offered >= rate * KEPT_PACE && self.delivered >= self.offered * (1.0 - loss)
    }
}

/// The share of the rate asked for that the sender must have reached.
const KEPT_PACE: f64 = 0.97;
const BATCH: usize = 64;
const LONGEST_BYTES: usize = 9216;
/// For 67 million datagrams: ten a microsecond over several seconds.
const MOST_WORDS: usize = 1 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);
const DRAIN: Duration = Duration::from_millis(30);
