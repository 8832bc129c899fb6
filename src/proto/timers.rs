//! What happened between us and a peer, and what falls due because of it. [WG §6]
//!
//! [`Facts`] record *when something happened*; every deadline is a small function over facts and
//! over the state that only the protocol core has. The data plane writes facts and the core reads
//! them, so nothing is rescheduled for a packet: a deadline that has moved is noticed when it
//! comes. Must not read a clock, and decides nothing about handshakes; it only says when.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::time::Instant;

/// A received packet that nothing of ours has followed for this long is answered by a keepalive.
/// [WG §6.5]
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the data plane and the protocol core both know of a peer.
///
/// Written by both, read by the core. Zero stands for "not so", hence the clock's first
/// nanosecond counts as its second.
///
/// Ordering: each fact is a lone number that publishes no other memory, so all accesses are
/// relaxed, but for the fences that keep [`needs_nudge`](Self::needs_nudge) and
/// [`publish`](Self::publish) from missing each other.
#[derive(Debug)]
pub struct Facts {
    /// When anything authenticated last went either way.
    last_traversal: AtomicU64,
    /// The first data sent since anything authenticated came in.
    unanswered_since: AtomicU64,
    /// The first data received since anything authenticated went out.
    unacknowledged_since: AtomicU64,
    /// When the core will next look at this peer; [`Instant::MAX`] is never.
    wake_up: AtomicU64,
}

impl Facts {
    pub const fn new() -> Self {
        Self {
            last_traversal: AtomicU64::new(0),
            unanswered_since: AtomicU64::new(0),
            unacknowledged_since: AtomicU64::new(0),
            wake_up: AtomicU64::new(u64::MAX),
        }
    }

    /// Non-empty packets have gone to the peer. [LNX timers.c:wg_timers_data_sent]
    pub fn data_sent(&self, now: Instant) {
        set_if_unset(&self.unanswered_since, now);
    }

    /// Non-empty packets of the peer were authenticated. [LNX timers.c:wg_timers_data_received]
    pub fn data_received(&self, now: Instant) {
        set_if_unset(&self.unacknowledged_since, now);
    }

    /// Anything has gone to the peer that he can authenticate, handshakes and keepalives included.
    ///
    /// Called before [`data_sent`](Self::data_sent) for the same packets.
    /// [LNX timers.c:wg_timers_any_authenticated_packet_sent]
    pub fn any_authenticated_sent(&self, now: Instant) {
        clear(&self.unacknowledged_since);
        self.last_traversal.store(stamp(now), Ordering::Relaxed);
    }

    /// Anything of the peer was authenticated, handshakes and keepalives included.
    ///
    /// Called before [`data_received`](Self::data_received) for the same packets.
    /// [LNX timers.c:wg_timers_any_authenticated_packet_received]
    pub fn any_authenticated_received(&self, now: Instant) {
        clear(&self.unanswered_since);
        self.last_traversal.store(stamp(now), Ordering::Relaxed);
    }

    /// Whether a fact has armed a deadline before the time the core will next look at this peer.
    ///
    /// True once for each such deadline: whoever gets it must tell the core. To be asked once for
    /// each peer and batch, after the batch's facts are recorded.
    pub fn needs_nudge(&self) -> bool {
        // Pairs with the fence in `publish`: either that call sees our facts, or we see its time.
        fence(Ordering::SeqCst);
        let wake_up = self.wake_up.load(Ordering::Relaxed);
        let Some(earliest) = self.earliest().map(Instant::as_nanos) else { return false };
        earliest < wake_up && self.wake_up.fetch_min(earliest, Ordering::Relaxed) > earliest
    }

    /// When anything authenticated last went either way.
    pub fn last_traversal(&self) -> Option<Instant> {
        read(&self.last_traversal)
    }

    /// When the first data was sent that nothing authenticated has followed in.
    pub fn unanswered_since(&self) -> Option<Instant> {
        read(&self.unanswered_since)
    }

    /// When the first data was received that nothing authenticated has followed out.
    pub fn unacknowledged_since(&self) -> Option<Instant> {
        read(&self.unacknowledged_since)
    }

    /// Announces when the core will look at the peer again.
    ///
    /// The facts must be read again afterwards: what the data plane recorded before it could see
    /// the announcement, it has not nudged for.
    pub(super) fn publish(&self, wake_up: Instant) {
        self.wake_up.store(wake_up.as_nanos(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Forgets unanswered data of `since`, unless newer data has taken its place.
    pub(super) fn settle_unanswered(&self, since: Instant) {
        settle(&self.unanswered_since, since);
    }

    /// Forgets unacknowledged data of `since`, unless newer data has taken its place.
    pub(super) fn settle_unacknowledged(&self, since: Instant) {
        settle(&self.unacknowledged_since, since);
    }

    /// The earliest time at which a fact alone can make something due.
    fn earliest(&self) -> Option<Instant> {
        let keepalive = self.unacknowledged_since().map(|since| since + KEEPALIVE_TIMEOUT);
        let silence = self.unanswered_since().map(|since| since + SILENCE);
        keepalive.into_iter().chain(silence).min()
    }
}

impl Default for Facts {
    fn default() -> Self {
        Self::new()
    }
}

fn stamp(now: Instant) -> u64 {
    now.as_nanos().max(1)
}

fn read(fact: &AtomicU64) -> Option<Instant> {
    match fact.load(Ordering::Relaxed) {
        0 => None,
        nanos => Some(Instant::from_nanos(nanos)),
    }
}

fn set_if_unset(fact: &AtomicU64, now: Instant) {
    // The load keeps the cache line shared while the fact stands.
    if fact.load(Ordering::Relaxed) == 0 {
        fact.store(stamp(now), Ordering::Relaxed);
    }
}

fn clear(fact: &AtomicU64) {
    if fact.load(Ordering::Relaxed) != 0 {
        fact.store(0, Ordering::Relaxed);
    }
}

fn settle(fact: &AtomicU64, since: Instant) {
    // A failure means that the fact has changed, which is what must not be lost.
    let _ = fact.compare_exchange(stamp(since), 0, Ordering::Relaxed, Ordering::Relaxed);
}

/// Data unanswered for this long makes for a new handshake. [WG §6.5]
const SILENCE: Duration = Duration::from_secs(15);
