//! From the shards to the protocol engine: handshake messages, and word of what sessions need.
//!
//! The lane is bounded; its depth is what "under load" means, which makes the device demand
//! cookies. Signals wait in a queue of their own, so that a flood of handshakes cannot hold up the
//! news that a session is confirmed. Whoever finds the lane full drops, counts, and never waits.
//! [LNX messages.h:MAX_QUEUED_INCOMING_HANDSHAKES] [LNX receive.c:wg_packet_receive]

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use crate::dataplane::Stop;
use crate::proto::constants::{
    MAX_QUEUED_INCOMING_HANDSHAKES, UNDER_LOAD_HANDSHAKES, UNDER_LOAD_LASTS,
};
use crate::proto::device::{Load, SmallDatagram};
use crate::proto::drop_reason::DropReason;
use crate::proto::endpoint::Endpoint;
use crate::proto::index::Index;
use crate::proto::peer::PeerId;
use crate::sys::udp::Narrowed;
use crate::time::Instant;

/// Above this depth a shard does not wait for the lock either.
const CROWDED_HANDSHAKES: usize = MAX_QUEUED_INCOMING_HANDSHAKES / 2;

/// A handshake message with its sender.
#[derive(Debug)]
pub struct Incoming {
    pub from: Endpoint,
    pub datagram: SmallDatagram,
}

/// What a shard tells the engine.
#[derive(Debug)]
pub enum Signal {
    /// Packets wait for a session with the peer, or its session is due for renewal.
    WantSession(PeerId),
    /// The first packet under this session, which was `next`, has been authenticated.
    Confirmed(Index),
    /// The facts of the peer have armed a deadline earlier than the engine will wake up.
    Nudge(PeerId),
    /// A large packet went to the peer, and the engine has asked to hear of it.
    SendsLarge(PeerId),
    /// The echo request of that sequence was answered.
    Answered { peer: PeerId, sequence: u16, from: IpAddr },
    /// This address is behind the peer.
    Inside { peer: PeerId, address: IpAddr },
    /// Somebody says that a datagram of ours does not fit.
    Narrowed(Narrowed),
    /// A shard has stopped, and why.
    Stopped(Stop),
}

#[derive(Debug, Default)]
struct Queues {
    signals: VecDeque<Signal>,
    handshakes: VecDeque<Incoming>,
}

impl Queues {
    fn is_empty(&self) -> bool {
        self.signals.is_empty() && self.handshakes.is_empty()
    }
}

/// The bounded lane. Any number of shards write, one engine reads.
///
/// Locking: the one mutex is held for a push or a swap, and never together with another lock.
#[derive(Default)]
pub struct Lane {
    queues: Mutex<Queues>,
    /// Handshake messages that wait. Ordering: relaxed, a hint of the load.
    depth: AtomicUsize,
    /// Until when the device is under load, in nanoseconds of boot time. Ordering: relaxed.
    loaded_until: AtomicU64,
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Lane {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what wakes the engine when the lane stops being empty. The first call counts.
    pub fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        // Ignored on purpose when there is one: a device has one engine.
        let _ = self.waker.set(Box::new(waker));
    }

    /// Hands a handshake message to the engine.
    ///
    /// # Errors
    /// [`DropReason::LaneFull`] if [`MAX_QUEUED_INCOMING_HANDSHAKES`] wait, or half of that wait
    /// and another thread is at the lane.
    pub fn push_handshake(&self, incoming: Incoming) -> Result<(), DropReason> {
        let mut queues = if self.depth() > CROWDED_HANDSHAKES {
            match self.queues.try_lock() {
                Ok(queues) => queues,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return Err(DropReason::LaneFull),
            }
        } else {
            self.lock()
        };
        if queues.handshakes.len() >= MAX_QUEUED_INCOMING_HANDSHAKES {
            return Err(DropReason::LaneFull);
        }
        let was_empty = queues.is_empty();
        queues.handshakes.push_back(incoming);
        self.depth.store(queues.handshakes.len(), Ordering::Relaxed);
        drop(queues);
        self.wake_if(was_empty);
        Ok(())
    }

    /// Tells the engine something. Never refused, because a packet that made the signal may be the
    /// last: whoever signals does so once for each peer and kind until the engine has answered, and
    /// that bounds the queue.
    pub fn signal(&self, signal: Signal) {
        let mut queues = self.lock();
        let was_empty = queues.is_empty();
        queues.signals.push_back(signal);
        drop(queues);
        self.wake_if(was_empty);
    }

    /// Takes the oldest signal. The engine takes all signals before any handshake.
    pub fn next_signal(&self) -> Option<Signal> {
        self.lock().signals.pop_front()
    }

    /// Takes the oldest handshake message.
    ///
    /// The waker rings only when the lane stops being empty: an engine that leaves something
    /// behind must come again by itself.
    pub fn next_handshake(&self) -> Option<Incoming> {
        let mut queues = self.lock();
        let incoming = queues.handshakes.pop_front();
        self.depth.store(queues.handshakes.len(), Ordering::Relaxed);
        incoming
    }

    /// Whether nothing waits, of either kind: only then does the next arrival ring the waker.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Handshake messages that wait.
    pub fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    /// Whether the device must demand cookies now: the lane is an eighth full, or was within the
    /// last second. Asked by the engine for each message. [LNX receive.c:wg_receive_handshake_packet]
    pub fn load(&self, now: Instant) -> Load {
        if self.depth() >= UNDER_LOAD_HANDSHAKES {
            self.loaded_until.store((now + UNDER_LOAD_LASTS).as_nanos(), Ordering::Relaxed);
            return Load::High;
        }
        if now.as_nanos() < self.loaded_until.load(Ordering::Relaxed) {
            Load::High
        } else {
            Load::Normal
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_if(&self, was_empty: bool) {
        if was_empty && let Some(waker) = self.waker.get() {
            waker();
        }
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("depth", &self.depth()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn incoming() -> Incoming {
        Incoming {
            from: Endpoint::new("192.0.2.1:51820".parse().unwrap()),
            datagram: SmallDatagram::from(&[1; 148]),
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn the_lane_takes_4096_handshakes_and_no_more() {
        let lane = Lane::new();
        for _ in 0..4096 {
            lane.push_handshake(incoming()).unwrap();
        }
        assert_eq!(lane.push_handshake(incoming()), Err(DropReason::LaneFull));
        assert!(lane.next_handshake().is_some());
        assert_eq!(lane.push_handshake(incoming()), Ok(()));
    }

    #[test]
    fn above_half_a_shard_does_not_wait_for_the_lock() {
        let lane = Lane::new();
        for _ in 0..2049 {
            lane.push_handshake(incoming()).unwrap();
        }
        let held = lane.queues.lock().unwrap();
        assert_eq!(lane.push_handshake(incoming()), Err(DropReason::LaneFull));
        drop(held);
        assert_eq!(lane.push_handshake(incoming()), Ok(()));
    }

    #[test]
    fn an_eighth_is_load_and_load_sticks_for_a_second() {
        let lane = Lane::new();
        for _ in 0..511 {
            lane.push_handshake(incoming()).unwrap();
        }
        assert_eq!(lane.load(at(0)), Load::Normal);
        lane.push_handshake(incoming()).unwrap();
        assert_eq!(lane.load(at(5000)), Load::High);
        while lane.next_handshake().is_some() {}
        assert_eq!(lane.load(at(5999)), Load::High);
        assert_eq!(lane.load(at(6000)), Load::Normal);
    }

    #[test]
    fn signals_pass_a_queue_of_handshakes_and_none_is_lost() {
        let lane = Lane::new();
        for _ in 0..4096 {
            lane.push_handshake(incoming()).unwrap();
        }
        lane.signal(Signal::Confirmed(Index(7)));
        assert!(matches!(lane.next_signal(), Some(Signal::Confirmed(Index(7)))));
        (0..100_000).for_each(|n| lane.signal(Signal::Nudge(PeerId(n))));
        let told = std::iter::from_fn(|| lane.next_signal()).count();
        assert_eq!(told, 100_000, "of as many peers as there may be");
    }

    #[test]
    fn the_engine_is_woken_once_per_filling() {
        let (lane, rings) = (Lane::new(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&rings);
        lane.set_waker(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        lane.push_handshake(incoming()).unwrap();
        lane.push_handshake(incoming()).unwrap();
        lane.signal(Signal::Nudge(PeerId(1)));
        assert_eq!(rings.load(Ordering::Relaxed), 1);
        lane.next_handshake();
        lane.next_handshake();
        lane.signal(Signal::Nudge(PeerId(2)));
        assert_eq!(rings.load(Ordering::Relaxed), 1, "an engine must not leave a lane that is");
        assert!(!lane.is_empty(), "not empty");
        lane.next_signal();
        lane.next_signal();
        assert!(lane.is_empty());
        lane.signal(Signal::Nudge(PeerId(1)));
        assert_eq!(rings.load(Ordering::Relaxed), 2);
    }
}
