//! The two keys of a session: [`Sealer`] sends, [`Opener`] receives. [WG §5.4.6, §6.1]
//!
//! No counter is handed out twice or from [`REJECT_AFTER_MESSAGES`] on, whichever threads ask, and
//! a [`Counter`] can be spent once only: it is neither `Copy` nor `Clone`. An opener yields
//! [`Authenticated`], the only proof of authenticity, and only for a message within the limits of
//! age and counter. Must not know about replays (the window does) or addresses.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::crypto::aead::{AeadKey, AuthenticationFailed, TAG_BYTES};
use crate::crypto::batch::{self, Kernel, LANES};
use crate::crypto::key::SymmetricKey;
use crate::proto::constants::{
    REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME,
    REKEY_ON_RECEIVE_AFTER_TIME,
};
use crate::proto::drop_reason::DropReason;
use crate::proto::index::Index;
use crate::time::Instant;
use crate::wire::message::{
    Message, TRANSPORT_HEADER_BYTES, TRANSPORT_OVERHEAD_BYTES, classify, write_transport_header,
};

/// Which end of the handshake we were. Only the initiator renews a session by age. [WG §6.1]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Initiator,
    Responder,
}

/// What a handshake ends with.
#[derive(Debug)]
pub struct Keypair {
    pub sealer: Sealer,
    pub opener: Opener,
    /// What the peer calls this session by when it sends to us.
    pub local_index: Index,
    pub remote_index: Index,
    pub role: Role,
}

impl Keypair {
    /// A session that begins at `now`, with no message sent or received yet.
    pub(super) fn start(
        now: Instant,
        role: Role,
        send: &SymmetricKey,
        receive: &SymmetricKey,
        local_index: Index,
        remote_index: Index,
    ) -> Self {
        Self {
            sealer: Sealer {
                key: AeadKey::new(send),
                counter: AtomicU64::new(0),
                remote: remote_index,
                born: now,
                role,
            },
            opener: Opener { key: AeadKey::new(receive), born: now, role },
            local_index,
            remote_index,
            role,
        }
    }
}

/// The right to seal one message: a number that no other message under the same key has.
#[derive(Debug, PartialEq, Eq)]
pub struct Counter(u64);

/// Consecutive counters that belong to the one who reserved them. Unused ones are lost.
#[derive(Debug, PartialEq, Eq)]
pub struct CounterRange(Range<u64>);

impl Iterator for CounterRange {
    type Item = Counter;

    fn next(&mut self) -> Option<Counter> {
        self.0.next().map(Counter)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.0.end - self.0.start).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

impl ExactSizeIterator for CounterRange {}

/// The sending key of a session and its message counter.
#[derive(Debug)]
pub struct Sealer {
    key: AeadKey,
    /// The next counter that is free.
    counter: AtomicU64,
    remote: Index,
    born: Instant,
    role: Role,
}

impl Sealer {
    /// Reserves `n` counters, or none at all if that many are not left.
    ///
    /// Relaxed, because only the number itself is shared. It is compared before it is stored: with
    /// an unconditional addition, attempts on a spent key would carry it around to zero.
    pub fn reserve(&self, n: u32) -> Option<CounterRange> {
        let taken =
            |next: u64| next.checked_add(u64::from(n)).filter(|&end| end <= REJECT_AFTER_MESSAGES);
        let start = self.counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(CounterRange(start..start + u64::from(n)))
    }

    /// Writes a whole transport message to the front of `out`: header, `plaintext` and `padding`
    /// zeros encrypted, tag. Returns its length.
    ///
    /// # Panics
    /// If `out` is shorter than `plaintext.len() + padding + TRANSPORT_OVERHEAD_BYTES`.
    pub fn seal(
        &self,
        counter: Counter,
        plaintext: &[u8],
        padding: usize,
        out: &mut [u8],
    ) -> usize {
        let body = self.write_header(&counter, plaintext.len() + padding, out);
        self.key.seal(counter.0, &[], plaintext, padding, body);
        TRANSPORT_HEADER_BYTES + body.len()
    }

    /// Writes the header of a message with so many bytes `inner` to `out`; returns where the ciphertext
    /// and its tag go.
    fn write_header<'d>(&self, counter: &Counter, inner: usize, out: &'d mut [u8]) -> &'d mut [u8] {
        let (header, body) = out[..inner + TRANSPORT_OVERHEAD_BYTES]
            .split_first_chunk_mut::<TRANSPORT_HEADER_BYTES>()
            .expect("a message is longer than its header");
        write_transport_header(header, self.remote.0, counter.0);
        body
    }

    /// Whether the session is too old to send with.
    pub fn is_expired(&self, now: Instant) -> bool {
        now.since(self.born) >= REJECT_AFTER_TIME
    }

    /// Whether sending should start a new handshake: the session is old and ours to renew, or it
    /// has sent very many messages.
    pub fn wants_rekey_on_send(&self, now: Instant) -> bool {
        let initiator = self.role == Role::Initiator;
        (initiator && now.since(self.born) >= REKEY_AFTER_TIME)
            || self.counter.load(Ordering::Relaxed) > REKEY_AFTER_MESSAGES
    }

    /// What the peer calls this session by: the receiver of every message that is sealed.
    pub fn remote_index(&self) -> Index {
        self.remote
    }

    /// When the session began.
    pub fn born(&self) -> Instant {
        self.born
    }

    /// Makes `counter` the next one: a session that has sent that many messages, for a test.
    #[cfg(test)]
    pub(crate) fn skip_to(&self, counter: u64) {
        self.counter.store(counter, Ordering::Relaxed);
    }
}

/// Messages of a session that are encrypted together: those that were pushed, when it is dropped, so
/// that none is left in the clear.
#[derive(Debug)]
pub struct SealBatch<'s, 'd> {
    sealer: &'s Sealer,
    kernel: Kernel,
    messages: [batch::Message<'d>; LANES],
    count: usize,
}

impl<'s, 'd> SealBatch<'s, 'd> {
    pub fn new(sealer: &'s Sealer, kernel: Kernel) -> Self {
        Self { sealer, kernel, messages: Default::default(), count: 0 }
    }

    pub const fn is_full(&self) -> bool {
        self.count == LANES
    }

    /// Writes to the front of `out` what [`Sealer::seal`] does, but in the clear for now.
    ///
    /// # Panics
    /// If the batch is full, or as [`Sealer::seal`].
    pub fn push(&mut self, counter: Counter, plaintext: &[u8], padding: usize, out: &'d mut [u8]) {
        let inner = plaintext.len() + padding;
        let body = self.sealer.write_header(&counter, inner, out);
        body[..plaintext.len()].copy_from_slice(plaintext);
        body[plaintext.len()..inner].fill(0);
        self.messages[self.count] = batch::Message::with_counter(counter.0, body);
        self.count += 1;
    }
}

impl Drop for SealBatch<'_, '_> {
    fn drop(&mut self) {
        self.sealer.key.seal_batch(Some(self.kernel), &mut self.messages[..self.count]);
    }
}

/// What came of opening a message: where in its datagram the plaintext is, padding included.
pub type Opened = Result<(Authenticated, Range<usize>), DropReason>;

/// Proof that a message was made by the peer with this session's key.
///
/// It may still be a copy of an earlier message: the replay window decides about that.
#[derive(Debug, PartialEq, Eq)]
pub struct Authenticated {
    counter: u64,
}

impl Authenticated {
    pub const fn counter(&self) -> u64 {
        self.counter
    }

    /// The proof that a test of the replay window claims to have.
    #[cfg(test)]
    pub(crate) const fn claimed(counter: u64) -> Self {
        Self { counter }
    }
}

/// The receiving key of a session.
#[derive(Debug)]
pub struct Opener {
    key: AeadKey,
    born: Instant,
    role: Role,
}

impl Opener {
    /// Checks the limits of age and counter, then decrypts a transport message in place. Returns
    /// where in `datagram` the plaintext is, padding included.
    ///
    /// # Errors
    /// [`DropReason::BadMessage`], [`DropReason::KeypairExpired`], [`DropReason::CounterLimit`],
    /// with `datagram` untouched; [`DropReason::AuthenticationFailed`], with everything after its
    /// header wiped.
    pub fn open(&self, now: Instant, datagram: &mut [u8]) -> Opened {
        let counter = self.admit(now, datagram)?;
        let length = self
            .key
            .open_in_place(counter, &[], &mut datagram[TRANSPORT_HEADER_BYTES..])
            .map_err(|AuthenticationFailed| DropReason::AuthenticationFailed)?;
        let plaintext = TRANSPORT_HEADER_BYTES..TRANSPORT_HEADER_BYTES + length;
        Ok((Authenticated { counter }, plaintext))
    }

    /// Opens at most [`LANES`] of `datagrams` together. What came of each is what [`Self::open`] would
    /// make of it alone, in their order; `None` for those that there are not.
    pub fn open_batch<'d>(
        &self,
        kernel: Kernel,
        now: Instant,
        datagrams: impl Iterator<Item = &'d mut [u8]>,
    ) -> [Option<Opened>; LANES] {
        let mut admitted: [Option<Result<(u64, usize), DropReason>>; LANES] = [None; LANES];
        let mut messages: [batch::Message<'d>; LANES] = Default::default();
        let mut count = 0;
        for (admitted, datagram) in admitted.iter_mut().zip(datagrams) {
            *admitted = Some(self.admit(now, datagram).map(|counter| {
                let body = &mut datagram[TRANSPORT_HEADER_BYTES..];
                let length = body.len() - TAG_BYTES;
                messages[count] = batch::Message::with_counter(counter, body);
                count += 1;
                (counter, length)
            }));
        }
        self.key.open_batch(Some(kernel), &mut messages[..count]);
        let mut verdicts = messages[..count].iter().map(batch::Message::is_authentic);
        admitted.map(|admitted| {
            admitted.map(|admitted| {
                let (counter, length) = admitted?;
                if !verdicts.next().is_some_and(|is_authentic| is_authentic) {
                    return Err(DropReason::AuthenticationFailed);
                }
                let plaintext = TRANSPORT_HEADER_BYTES..TRANSPORT_HEADER_BYTES + length;
                Ok((Authenticated { counter }, plaintext))
            })
        })
    }

    /// The counter of a transport message within the limits of age and counter.
    fn admit(&self, now: Instant, datagram: &[u8]) -> Result<u64, DropReason> {
        let Some(Message::Transport { counter, .. }) = classify(datagram) else {
            return Err(DropReason::BadMessage);
        };
        if self.is_expired(now) {
            return Err(DropReason::KeypairExpired);
        }
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(DropReason::CounterLimit);
        }
        Ok(counter)
    }

    /// Whether the session is too old to receive with.
    pub fn is_expired(&self, now: Instant) -> bool {
        now.since(self.born) >= REJECT_AFTER_TIME
    }

    /// Whether receiving should start a new handshake, which it does once per session: it is ours
    /// to renew, and we may have nothing to send before it expires.
    pub fn wants_rekey_on_receive(&self, now: Instant) -> bool {
        self.role == Role::Initiator && now.since(self.born) >= REKEY_ON_RECEIVE_AFTER_TIME
    }

    /// When the session began.
    pub fn born(&self) -> Instant {
        self.born
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::wire::message::KEEPALIVE_BYTES;

    const BORN: Instant = Instant::from_nanos(1_000_000_000_000);

    fn after(seconds: u64) -> Instant {
        BORN + Duration::from_secs(seconds)
    }

    fn pair(role: Role) -> Keypair {
        let (a, b) = (SymmetricKey::from_bytes([1; 32]), SymmetricKey::from_bytes([2; 32]));
        match role {
            Role::Initiator => Keypair::start(BORN, role, &a, &b, Index(10), Index(20)),
            Role::Responder => Keypair::start(BORN, role, &b, &a, Index(20), Index(10)),
        }
    }

    fn pair_at(counter: u64) -> Keypair {
        let pair = pair(Role::Initiator);
        pair.sealer.skip_to(counter);
        pair
    }

    fn message(sealer: &Sealer, plaintext: &[u8]) -> Vec<u8> {
        let mut out = vec![0; plaintext.len() + TRANSPORT_OVERHEAD_BYTES];
        let counter = sealer.reserve(1).unwrap().next().unwrap();
        assert_eq!(sealer.seal(counter, plaintext, 0, &mut out), out.len());
        out
    }

    #[test]
    fn halves_can_be_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Sealer>();
        shared::<Opener>();
    }

    #[test]
    fn what_one_end_seals_the_other_opens_both_ways() {
        let (initiator, responder) = (pair(Role::Initiator), pair(Role::Responder));
        for (from, to) in [(&initiator, &responder), (&responder, &initiator)] {
            for (counter, plaintext) in [&b""[..], b"x", &[7; 1420]].into_iter().enumerate() {
                let mut datagram = message(&from.sealer, plaintext);
                let mut reflected = datagram.clone();
                assert_eq!(datagram[4..8], to.local_index.to_le_bytes());
                let (proof, range) = to.opener.open(BORN, &mut datagram).unwrap();
                assert_eq!(&datagram[range], plaintext);
                assert_eq!(proof.counter(), counter as u64);
                let found = from.opener.open(BORN, &mut reflected);
                assert_eq!(found, Err(DropReason::AuthenticationFailed), "reflected");
            }
        }
    }

    #[test]
    fn padding_comes_out_as_zeros_and_the_rest_of_the_buffer_is_left_alone() {
        let (from, to) = (pair(Role::Initiator), pair(Role::Responder));
        let mut out = [0xee; 100];
        let counter = from.sealer.reserve(1).unwrap().next().unwrap();
        let length = from.sealer.seal(counter, b"12345", 11, &mut out);
        assert_eq!(length, 16 + 16 + 16);
        assert!(out[length..].iter().all(|&byte| byte == 0xee));
        let (_, range) = to.opener.open(BORN, &mut out[..length]).unwrap();
        assert_eq!(range, 16..32);
        assert_eq!(&out[range], b"12345\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn counters_are_never_handed_out_twice_by_any_threads() {
        let sealer = pair_at(u64::from(u32::MAX) - 1000).sealer;
        let counters: Vec<u64> = std::thread::scope(|scope| {
            let workers: Vec<_> = (1..=4_u32)
                .map(|step| {
                    let sealer = &sealer;
                    scope.spawn(move || {
                        let ranges = (0..500).map(|_| sealer.reserve(step).unwrap());
                        ranges.flatten().map(|counter| counter.0).collect::<Vec<_>>()
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(counters.len(), 500 * (1 + 2 + 3 + 4));
        assert_eq!(counters.iter().collect::<HashSet<_>>().len(), counters.len());
        assert!(counters.iter().any(|&counter| counter > u64::from(u32::MAX)), "no 32-bit wrap");
    }

    #[test]
    fn trap_10_no_counter_at_or_after_the_limit_is_ever_handed_out() {
        let sealer = pair_at(REJECT_AFTER_MESSAGES - 3).sealer;
        assert_eq!(sealer.reserve(4), None, "all or nothing");
        let range = sealer.reserve(2).unwrap();
        assert_eq!(range.len(), 2);
        assert_eq!(range.last(), Some(Counter(REJECT_AFTER_MESSAGES - 2)));
        assert_eq!(sealer.reserve(1).unwrap().next(), Some(Counter(REJECT_AFTER_MESSAGES - 1)));
        for n in std::iter::repeat_n(1, 20_000).chain([u32::MAX; 8]) {
            assert_eq!(sealer.reserve(n), None, "a spent key stays spent");
        }
    }

    #[test]
    fn trap_10_messages_at_or_after_the_counter_limit_are_not_opened() {
        let to = pair(Role::Responder);
        for (counter, expected) in [
            (REJECT_AFTER_MESSAGES - 1, None),
            (REJECT_AFTER_MESSAGES, Some(DropReason::CounterLimit)),
            (u64::MAX, Some(DropReason::CounterLimit)),
        ] {
            let from = pair(Role::Initiator);
            let mut datagram = [0; 64];
            let length = from.sealer.seal(Counter(counter), b"inner", 0, &mut datagram);
            let found = to.opener.open(BORN, &mut datagram[..length]);
            assert_eq!(found.err(), expected, "{counter}");
        }
    }

    #[test]
    fn a_session_is_dead_both_ways_after_reject_after_time() {
        let (from, to) = (pair(Role::Initiator), pair(Role::Responder));
        let just_before = after(180) - Duration::from_nanos(1);
        assert!(!from.sealer.is_expired(just_before));
        assert!(to.opener.open(just_before, &mut message(&from.sealer, b"")).is_ok());
        assert!(from.sealer.is_expired(after(180)));
        let untouched = message(&from.sealer, b"inner");
        let mut datagram = untouched.clone();
        let found = to.opener.open(after(180), &mut datagram);
        assert_eq!(found, Err(DropReason::KeypairExpired));
        assert_eq!(datagram, untouched, "the age is checked before anything is decrypted");
    }

    #[test]
    fn a_session_of_the_future_is_not_expired_when_the_clock_went_backwards() {
        let pair = pair(Role::Initiator);
        assert!(!pair.sealer.is_expired(Instant::ZERO));
        assert!(!pair.sealer.wants_rekey_on_send(Instant::ZERO));
    }

    #[test]
    fn only_the_initiator_renews_by_age() {
        let (initiator, responder) = (pair(Role::Initiator), pair(Role::Responder));
        let nano = Duration::from_nanos(1);
        assert!(!initiator.sealer.wants_rekey_on_send(after(120) - nano));
        assert!(initiator.sealer.wants_rekey_on_send(after(120)));
        assert!(!initiator.opener.wants_rekey_on_receive(after(165) - nano));
        assert!(initiator.opener.wants_rekey_on_receive(after(165)));
        assert!(!responder.sealer.wants_rekey_on_send(after(179)));
        assert!(!responder.opener.wants_rekey_on_receive(after(179)));
    }

    #[test]
    fn both_ends_renew_after_very_many_messages() {
        for role in [Role::Initiator, Role::Responder] {
            let sealer = pair(role).sealer;
            sealer.skip_to(REKEY_AFTER_MESSAGES);
            assert!(!sealer.wants_rekey_on_send(BORN));
            assert!(sealer.reserve(1).is_some());
            assert!(sealer.wants_rekey_on_send(BORN));
        }
    }

    #[test]
    fn a_changed_message_is_refused_and_its_content_wiped() {
        let (from, to) = (pair(Role::Initiator), pair(Role::Responder));
        let good = message(&from.sealer, &[0x55; 100]);
        for changed in 8..good.len() {
            let mut datagram = good.clone();
            datagram[changed] ^= 1;
            let found = to.opener.open(BORN, &mut datagram);
            assert_eq!(found, Err(DropReason::AuthenticationFailed), "byte {changed}");
            assert!(datagram[16..].iter().all(|&byte| byte == 0), "byte {changed}");
        }
    }

    #[test]
    fn what_is_no_transport_message_is_not_opened() {
        let (from, to) = (pair(Role::Initiator), pair(Role::Responder));
        let good = message(&from.sealer, b"");
        for length in 0..KEEPALIVE_BYTES {
            let found = to.opener.open(BORN, &mut good.clone()[..length]);
            assert_eq!(found, Err(DropReason::BadMessage));
        }
        let mut typed = good;
        typed[1] = 1;
        assert_eq!(to.opener.open(BORN, &mut typed), Err(DropReason::BadMessage));
    }
}
