//! What happened between us and a peer, and what falls due because of it. [WG §6]
//!
//! [`Facts`] record *when something happened*; every deadline is a small function over facts and
//! over the state that only the protocol core has. The data plane writes facts and the core reads
//! them, so nothing is rescheduled for a packet: a deadline that has moved is noticed when it
//! comes. Must not read a clock, and decides nothing about handshakes; it only says when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::crypto::entropy::Entropy;
use crate::proto::constants::{
    KEEPALIVE_TIMEOUT, MAX_TIMER_HANDSHAKES, NEW_HANDSHAKE_TIMEOUT, REKEY_TIMEOUT,
    REKEY_TIMEOUT_JITTER_MAX_MS, ZERO_KEYS_AFTER_TIME,
};
use crate::time::Instant;

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
        clear(&self.unacknowledged_since, now);
        self.last_traversal.store(stamp(now), Ordering::Relaxed);
    }

    /// Anything of the peer was authenticated, handshakes and keepalives included.
    ///
    /// Called before [`data_received`](Self::data_received) for the same packets.
    /// [LNX timers.c:wg_timers_any_authenticated_packet_received]
    pub fn any_authenticated_received(&self, now: Instant) {
        clear(&self.unanswered_since, now);
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
    ///
    /// Takes the jitter, which only the core knows, at its greatest: being told again for each
    /// packet would cost more than being late within the jitter.
    fn earliest(&self) -> Option<Instant> {
        let keepalive = self.unacknowledged_since().map(|since| since + KEEPALIVE_TIMEOUT);
        let silence =
            self.unanswered_since().map(|since| since + NEW_HANDSHAKE_TIMEOUT + MAX_JITTER);
        keepalive.into_iter().chain(silence).min()
    }
}

impl Default for Facts {
    fn default() -> Self {
        Self::new()
    }
}

/// The longest jitter.
const MAX_JITTER: Duration = Duration::from_millis(REKEY_TIMEOUT_JITTER_MAX_MS as u64);

/// What can fall due at a peer. [LNX timers.c:wg_timers_init]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Keys have outlived every session they could serve. [WG §6.3]
    ZeroKeyMaterial,
    /// An initiation has found no answer, or may be sent only now. [WG §6.4]
    RetransmitHandshake,
    /// Data was sent and nothing has come back. [WG §6.5]
    NewHandshake,
    /// Data was received and nothing has gone back. [WG §6.5]
    SendKeepalive,
    /// Nothing has gone either way for as long as the user said.
    PersistentKeepalive,
}

impl Deadline {
    /// In the order in which they are acted on when several are due.
    pub const ALL: [Self; 5] = [
        Self::ZeroKeyMaterial,
        Self::RetransmitHandshake,
        Self::NewHandshake,
        Self::SendKeepalive,
        Self::PersistentKeepalive,
    ];
}

/// How far we are in asking a peer for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pursuit {
    /// No session is asked for.
    Idle,
    /// One is wanted, but the last handshake message is too recent to send another.
    Deferred { since: Instant },
    /// An initiation is on its way.
    Sent { at: Instant },
}

/// What to do about an initiation that has found no answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retransmission {
    /// The first may go out now.
    First,
    /// Send another; it is the `attempt`th, counting from 1.
    Again { attempt: u32 },
    /// That was enough.
    GiveUp,
}

/// All that makes something fall due at a peer: the shared facts, and those of the core alone.
#[derive(Debug)]
pub(super) struct Timers {
    pub facts: Arc<Facts>,
    pursuit: Pursuit,
    /// Initiations sent since one was last asked for, besides the first.
    retries: u32,
    /// Of the retransmission; drawn for each. [WG §6.1]
    retry_jitter: Duration,
    /// When a handshake message other than a cookie reply was last sent.
    handshake_sent: Option<Instant>,
    /// The first initiation since a handshake was last completed.
    unanswered_initiation: Option<Instant>,
    /// From when the life of all keys is counted.
    keys_since: Option<Instant>,
    /// The unanswered data that a jitter was drawn for.
    silence_since: Option<Instant>,
    silence_jitter: Duration,
    /// Zero is off.
    persistent_keepalive: u16,
    /// When the persistent keepalive was last asked for. It is sent by the data plane, in its own
    /// time, or not at all.
    persistent_fired: Option<Instant>,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            facts: Arc::new(Facts::new()),
            pursuit: Pursuit::Idle,
            retries: 0,
            retry_jitter: Duration::ZERO,
            handshake_sent: None,
            unanswered_initiation: None,
            keys_since: None,
            silence_since: None,
            silence_jitter: Duration::ZERO,
            persistent_keepalive: 0,
            persistent_fired: None,
        }
    }
}

impl Timers {
    /// Packets ask for a session: the count of attempts starts anew.
    pub fn session_wanted(&mut self) {
        self.retries = 0;
    }

    /// Whether an initiation may be sent: at most one handshake message of ours in
    /// [`REKEY_TIMEOUT`]. [WG §6.1] [LNX send.c:wg_packet_send_handshake_initiation]
    pub fn may_initiate(&self, now: Instant) -> bool {
        self.handshake_sent.is_none_or(|sent| now.since(sent) >= REKEY_TIMEOUT)
    }

    /// An initiation is wanted that may not be sent yet.
    pub fn defer(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.retry_jitter = jitter(entropy);
        self.pursuit = Pursuit::Deferred { since: self.handshake_sent.unwrap_or(now) };
    }

    /// Asks for a session anew, as soon as another handshake message may be sent. Without jitter:
    /// what brings us to it does not happen to both ends in step.
    pub fn start_over(&mut self, now: Instant) {
        self.retries = 0;
        self.retry_jitter = Duration::ZERO;
        let since = self.handshake_sent.unwrap_or(now - REKEY_TIMEOUT);
        self.pursuit = Pursuit::Deferred { since };
    }

    /// An initiation was sent.
    pub fn initiated(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.handshake_sent = Some(now);
        self.unanswered_initiation.get_or_insert(now);
        self.retry_jitter = jitter(entropy);
        self.pursuit = Pursuit::Sent { at: now };
        self.facts.any_authenticated_sent(now);
    }

    /// A response was sent: there are new keys, and no initiation of ours for a while.
    pub fn responded(&mut self, now: Instant) {
        self.handshake_sent = Some(now);
        self.keys_since = Some(now);
        self.facts.any_authenticated_sent(now);
    }

    /// A response of the peer gave us new keys.
    pub fn response_received(&mut self, now: Instant) {
        self.keys_since = Some(now);
        self.handshake_complete();
    }

    /// A session was confirmed to us. [LNX timers.c:wg_timers_handshake_complete]
    pub const fn handshake_complete(&mut self) {
        self.pursuit = Pursuit::Idle;
        self.retries = 0;
        self.unanswered_initiation = None;
    }

    /// When the first initiation was sent that no handshake has followed; also of those that were
    /// given up.
    pub const fn unanswered_initiation(&self) -> Option<Instant> {
        self.unanswered_initiation
    }

    /// Decides about an initiation whose time to be answered is over.
    /// [LNX timers.c:wg_expired_retransmit_handshake]
    pub fn retransmit(&mut self, now: Instant) -> Retransmission {
        let pursuit = std::mem::replace(&mut self.pursuit, Pursuit::Idle);
        if matches!(pursuit, Pursuit::Deferred { .. }) {
            return Retransmission::First;
        }
        if self.retries > MAX_TIMER_HANDSHAKES {
            self.retries = 0;
            self.keys_since = self.keys_since.or(Some(now));
            return Retransmission::GiveUp;
        }
        self.retries += 1;
        Retransmission::Again { attempt: self.retries + 1 }
    }

    /// When the session that is in use was made, or the last one if keys of it are left.
    pub const fn last_session(&self) -> Option<Instant> {
        self.keys_since
    }

    /// There are no keys left.
    pub const fn keys_zeroed(&mut self) {
        self.keys_since = None;
    }

    /// No session can be asked for.
    pub const fn stop_initiating(&mut self) {
        self.pursuit = Pursuit::Idle;
        self.unanswered_initiation = None;
    }

    /// Whether a session is being asked for.
    pub const fn is_initiating(&self) -> bool {
        !matches!(self.pursuit, Pursuit::Idle)
    }

    /// The data that is unanswered was acted upon.
    pub fn settle_silence(&self) {
        if let Some(since) = self.facts.unanswered_since() {
            self.facts.settle_unanswered(since);
        }
    }

    /// The data that is unacknowledged was acted upon. One keepalive answers all of it.
    pub fn settle_keepalive(&self) {
        if let Some(since) = self.facts.unacknowledged_since() {
            self.facts.settle_unacknowledged(since);
        }
    }

    /// The persistent keepalive was asked for.
    pub const fn persistent_keepalive_fired(&mut self, now: Instant) {
        self.persistent_fired = Some(now);
    }

    pub const fn set_persistent_keepalive(&mut self, secs: u16) {
        self.persistent_keepalive = secs;
    }

    pub const fn persistent_keepalive_secs(&self) -> u16 {
        self.persistent_keepalive
    }

    /// Draws the jitter of unanswered data that has none yet. To be called before deadlines are
    /// read.
    pub fn observe(&mut self, entropy: &mut dyn Entropy) {
        let since = self.facts.unanswered_since();
        if since != self.silence_since {
            self.silence_since = since;
            self.silence_jitter = since.map_or(Duration::ZERO, |_| jitter(entropy));
        }
    }

    /// When `deadline` is, if it is armed.
    pub fn at(&self, deadline: Deadline) -> Option<Instant> {
        match deadline {
            Deadline::ZeroKeyMaterial => self.zero_key_material(),
            Deadline::RetransmitHandshake => self.retransmit_handshake(),
            Deadline::NewHandshake => self.new_handshake(),
            Deadline::SendKeepalive => self.send_keepalive(),
            Deadline::PersistentKeepalive => self.persistent_keepalive(),
        }
    }

    /// When the first of all deadlines is.
    pub fn earliest(&self) -> Option<Instant> {
        Deadline::ALL.into_iter().filter_map(|deadline| self.at(deadline)).min()
    }

    fn zero_key_material(&self) -> Option<Instant> {
        self.keys_since.map(|since| since + ZERO_KEYS_AFTER_TIME)
    }

    fn retransmit_handshake(&self) -> Option<Instant> {
        match self.pursuit {
            Pursuit::Idle => None,
            Pursuit::Deferred { since: sent } | Pursuit::Sent { at: sent } => {
                Some(sent + REKEY_TIMEOUT + self.retry_jitter)
            }
        }
    }

    fn new_handshake(&self) -> Option<Instant> {
        self.silence_since.map(|since| since + NEW_HANDSHAKE_TIMEOUT + self.silence_jitter)
    }

    fn send_keepalive(&self) -> Option<Instant> {
        self.facts.unacknowledged_since().map(|since| since + KEEPALIVE_TIMEOUT)
    }

    fn persistent_keepalive(&self) -> Option<Instant> {
        let interval = Duration::from_secs(u64::from(self.persistent_keepalive));
        let last = self.facts.last_traversal().max(self.persistent_fired)?;
        (!interval.is_zero()).then(|| last + interval)
    }
}

/// Keeps two ends from colliding for ever. [WG §6.1]
fn jitter(entropy: &mut dyn Entropy) -> Duration {
    Duration::from_millis(u64::from(entropy.up_to(REKEY_TIMEOUT_JITTER_MAX_MS)))
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

/// Forgets a fact of `now` or before. What another shard has recorded since is not concerned.
fn clear(fact: &AtomicU64, now: Instant) {
    let since = fact.load(Ordering::Relaxed);
    if since != 0 && since <= stamp(now) {
        // A failure means that somebody else has cleared it.
        let _ = fact.compare_exchange(since, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn settle(fact: &AtomicU64, since: Instant) {
    // A failure means that the fact has changed, which is what must not be lost.
    let _ = fact.compare_exchange(stamp(since), 0, Ordering::Relaxed, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000_000);

    /// The least jitter, or the greatest.
    struct Jitter(u8);

    impl Entropy for Jitter {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    const LEAST: Jitter = Jitter(0);
    const GREATEST: Jitter = Jitter(255);

    fn after(millis: u64) -> Instant {
        START + Duration::from_millis(millis)
    }

    #[test]
    fn what_one_shard_has_sent_clears_nothing_that_another_has_received_since() {
        let facts = Facts::new();
        facts.data_received(after(2));
        facts.data_sent(after(2));
        facts.any_authenticated_sent(after(1));
        facts.any_authenticated_received(after(1));
        assert_eq!(facts.unacknowledged_since(), Some(after(2)));
        assert_eq!(facts.unanswered_since(), Some(after(2)));
        facts.any_authenticated_sent(after(2));
        facts.any_authenticated_received(after(2));
        assert_eq!((facts.unacknowledged_since(), facts.unanswered_since()), (None, None));
    }

    #[test]
    fn nothing_is_due_at_a_peer_to_whom_nothing_happened() {
        assert_eq!(Timers::default().earliest(), None);
        assert!(!Facts::new().needs_nudge());
    }

    #[test]
    fn a_retransmission_is_due_5_seconds_after_the_initiation_and_at_most_a_third_later() {
        for (mut entropy, due) in [(LEAST, 5000), (GREATEST, 5333)] {
            let mut timers = Timers::default();
            timers.initiated(START, &mut entropy);
            assert_eq!(timers.at(Deadline::RetransmitHandshake), Some(after(due)));
        }
    }

    #[test]
    fn an_initiation_keeps_5_seconds_off_any_handshake_message_of_ours() {
        let mut timers = Timers::default();
        assert!(timers.may_initiate(START));
        timers.responded(START);
        assert!(!timers.may_initiate(after(4999)));
        assert!(timers.may_initiate(after(5000)));
        timers.defer(after(1000), &mut { GREATEST });
        assert_eq!(timers.at(Deadline::RetransmitHandshake), Some(after(5333)));
        assert_eq!(timers.retransmit(after(5333)), Retransmission::First);
    }

    #[test]
    fn to_start_over_is_due_at_once_but_5_seconds_after_any_handshake_message_of_ours() {
        let mut timers = Timers::default();
        timers.start_over(START);
        assert!(timers.at(Deadline::RetransmitHandshake).is_some_and(|at| at <= START));
        assert_eq!(timers.retransmit(START), Retransmission::First);
        timers.initiated(START, &mut { GREATEST });
        timers.start_over(after(3000));
        assert_eq!(timers.at(Deadline::RetransmitHandshake), Some(after(5000)));
        assert_eq!(timers.retransmit(after(5000)), Retransmission::First);
    }

    #[test]
    fn there_are_19_retransmissions_and_then_none() {
        let mut timers = Timers::default();
        let mut now = START;
        timers.initiated(now, &mut { LEAST });
        for attempt in 2..=20 {
            now = now + Duration::from_secs(5);
            assert_eq!(timers.at(Deadline::RetransmitHandshake), Some(now));
            assert_eq!(timers.retransmit(now), Retransmission::Again { attempt });
            timers.initiated(now, &mut { LEAST });
        }
        now = now + Duration::from_secs(5);
        assert_eq!(timers.retransmit(now), Retransmission::GiveUp);
        assert_eq!(timers.at(Deadline::RetransmitHandshake), None);
        assert_eq!(timers.at(Deadline::ZeroKeyMaterial), Some(now + Duration::from_secs(540)));
    }

    #[test]
    fn giving_up_does_not_prolong_the_life_of_older_keys() {
        let mut timers = Timers::default();
        timers.response_received(START);
        timers.initiated(after(400_000), &mut { LEAST });
        timers.retries = 19;
        assert_eq!(timers.retransmit(after(500_000)), Retransmission::GiveUp);
        assert_eq!(timers.at(Deadline::ZeroKeyMaterial), Some(after(540_000)));
    }

    #[test]
    fn a_completed_handshake_ends_the_retransmissions() {
        let mut timers = Timers::default();
        timers.initiated(START, &mut { LEAST });
        timers.response_received(after(10));
        assert_eq!(timers.at(Deadline::RetransmitHandshake), None);
        assert_eq!(timers.at(Deadline::ZeroKeyMaterial), Some(after(540_010)));
    }

    #[test]
    fn unanswered_data_is_due_15_seconds_after_the_first_of_it_and_at_most_a_third_later() {
        for (mut entropy, due) in [(LEAST, 15_000), (GREATEST, 15_333)] {
            let mut timers = Timers::default();
            timers.facts.data_sent(START);
            timers.facts.data_sent(after(9000));
            timers.observe(&mut entropy);
            assert_eq!(timers.at(Deadline::NewHandshake), Some(after(due)));
            timers.facts.any_authenticated_received(after(14_000));
            timers.observe(&mut entropy);
            assert_eq!(timers.at(Deadline::NewHandshake), None);
        }
    }

    #[test]
    fn unanswered_data_keeps_its_jitter_and_newer_data_draws_another() {
        let mut timers = Timers::default();
        timers.facts.data_sent(START);
        timers.observe(&mut { GREATEST });
        timers.observe(&mut { LEAST });
        assert_eq!(timers.at(Deadline::NewHandshake), Some(after(15_333)));
        timers.facts.any_authenticated_received(after(1));
        timers.facts.data_sent(after(2));
        timers.observe(&mut { LEAST });
        assert_eq!(timers.at(Deadline::NewHandshake), Some(after(15_002)));
    }

    #[test]
    fn a_keepalive_is_due_10_seconds_after_the_first_data_that_nothing_has_followed() {
        let timers = Timers::default();
        timers.facts.any_authenticated_received(START);
        assert_eq!(timers.at(Deadline::SendKeepalive), None, "a keepalive asks for none");
        timers.facts.data_received(START);
        timers.facts.data_received(after(9000));
        assert_eq!(timers.at(Deadline::SendKeepalive), Some(after(10_000)));
        timers.facts.any_authenticated_sent(after(9500));
        assert_eq!(timers.at(Deadline::SendKeepalive), None);
    }

    #[test]
    fn a_persistent_keepalive_counts_from_the_last_traversal_in_either_direction() {
        let mut timers = Timers::default();
        timers.set_persistent_keepalive(25);
        assert_eq!(timers.at(Deadline::PersistentKeepalive), None);
        timers.facts.any_authenticated_sent(START);
        assert_eq!(timers.at(Deadline::PersistentKeepalive), Some(after(25_000)));
        timers.facts.any_authenticated_received(after(7000));
        assert_eq!(timers.at(Deadline::PersistentKeepalive), Some(after(32_000)));
        timers.persistent_keepalive_fired(after(32_000));
        assert_eq!(timers.at(Deadline::PersistentKeepalive), Some(after(57_000)));
        timers.set_persistent_keepalive(0);
        assert_eq!(timers.at(Deadline::PersistentKeepalive), None);
    }

    #[test]
    fn what_was_acted_on_is_settled_but_newer_data_is_not() {
        let facts = Facts::new();
        facts.data_sent(after(1));
        facts.settle_unanswered(START);
        assert_eq!(facts.unanswered_since(), Some(after(1)));
        facts.settle_unanswered(after(1));
        assert_eq!(facts.unanswered_since(), None);
    }

    #[test]
    fn the_core_is_nudged_once_for_a_deadline_before_its_wake_up() {
        let facts = Facts::new();
        facts.data_received(START);
        assert!(facts.needs_nudge());
        assert!(!facts.needs_nudge(), "once");
        facts.publish(after(10_000));
        facts.any_authenticated_sent(after(500));
        facts.data_received(after(1000));
        assert!(!facts.needs_nudge(), "the core looks before it is due");
        facts.publish(after(60_000));
        assert!(facts.needs_nudge(), "now it would not");
    }

    #[test]
    fn jitter_alone_is_no_reason_for_a_nudge() {
        let mut timers = Timers::default();
        timers.facts.data_sent(START);
        assert!(timers.facts.needs_nudge());
        timers.observe(&mut { GREATEST });
        timers.facts.publish(timers.earliest().unwrap());
        assert!(!timers.facts.needs_nudge());
    }

    #[test]
    fn the_first_instant_of_the_clock_is_as_good_as_any() {
        let facts = Facts::new();
        facts.data_sent(Instant::ZERO);
        assert!(facts.unanswered_since().is_some());
        facts.settle_unanswered(Instant::ZERO);
        assert!(facts.unanswered_since().is_none());
    }
}
