//! A configured peer: who he is, what is agreed with him, and when something is due. [WG §2, §6.3]
//!
//! Owns a peer's share of the protocol state and keeps its invariants; what is sent because of it
//! is the device's decision. Handles of keypairs are kept here, the keys to open with are not:
//! those belong to the data plane.

use std::sync::Arc;

use crate::crypto::key::{PresharedKey, PublicKey};
use crate::crypto::tai64n::Timestamp;
use crate::proto::constants::INITIATION_MIN_INTERVAL;
use crate::proto::cookie::CookieJar;
use crate::proto::device::SmallDatagram;
use crate::proto::drop_reason::DropReason;
use crate::proto::handshake::{InitiationSent, RemoteStatic};
use crate::proto::index::Index;
use crate::proto::keypair::Sealer;
use crate::proto::places::Places;
use crate::proto::timers::Timers;
use crate::time::{Instant, Wall};

pub use crate::proto::peer_id::PeerId;

/// One peer of a device.
#[derive(Debug)]
pub struct Peer {
    pub(super) remote: RemoteStatic,
    /// Whether the data plane has an address to send to. Once known, one is never taken away.
    pub(super) has_endpoint: bool,
    /// Whether packets wait for a session that could not be asked for yet.
    pub(super) session_wanted: bool,
    pub(super) handshake: Option<InitiationSent>,
    pub(super) places: Places,
    /// Of a peer that has places: for addresses that are learnt while it waits for its answer.
    pub(super) last_initiation: Option<SmallDatagram>,
    pub(super) keypairs: Keypairs,
    pub(super) jar: CookieJar,
    pub(super) timers: Timers,
    pub(super) last_handshake: Option<Wall>,
    /// When the device will look at this peer.
    pub(super) scheduled: Option<Instant>,
    /// The timestamp of the last initiation sent.
    sent_timestamp: Timestamp,
    /// The greatest timestamp received, and when.
    received_timestamp: Option<(Timestamp, Instant)>,
}

impl Peer {
    pub(super) fn new(remote: RemoteStatic) -> Self {
        let jar = CookieJar::new(&remote.public);
        Self {
            remote,
            has_endpoint: false,
            session_wanted: false,
            handshake: None,
            places: Places::default(),
            last_initiation: None,
            keypairs: Keypairs::default(),
            jar,
            timers: Timers::default(),
            last_handshake: None,
            scheduled: None,
            sent_timestamp: Timestamp::default(),
            received_timestamp: None,
        }
    }

    /// Takes the timestamp for the next initiation. `floor` is the greatest that was sent to any
    /// peer, maybe in an earlier life.
    ///
    /// The receiver wants each greater than the last, so when the wall clock has been set back it
    /// follows the last one instead of locking us out until the clock has caught up. [WG §5.1]
    pub(super) fn next_timestamp(&mut self, wall: Wall, floor: Timestamp) -> Timestamp {
        let by_clock = Timestamp::from_wall(wall);
        self.sent_timestamp = if by_clock > self.sent_timestamp && by_clock >= floor {
            by_clock
        } else {
            self.sent_timestamp.max(floor).successor()
        };
        self.sent_timestamp
    }

    /// Accepts the timestamp of an authenticated initiation, at most once and only in order.
    /// [WG §5.1] [LNX noise.c:wg_noise_handshake_consume_initiation]
    pub(super) fn accept_timestamp(
        &mut self,
        now: Instant,
        timestamp: Timestamp,
    ) -> Result<(), DropReason> {
        if let Some((greatest, consumed)) = self.received_timestamp {
            if timestamp <= greatest {
                return Err(DropReason::TimestampReplayed);
            }
            if now.since(consumed) < INITIATION_MIN_INTERVAL {
                return Err(DropReason::InitiationFlood);
            }
        }
        self.received_timestamp = Some((timestamp, now));
        Ok(())
    }

    /// Whether there is a session to send with that needs no successor yet.
    pub(super) fn has_fresh_session(&self, now: Instant) -> bool {
        self.keypairs.current.as_ref().is_some_and(|session| {
            !session.sealer.is_expired(now) && !session.sealer.wants_rekey_on_send(now)
        })
    }

    /// Whether there is a session to send with.
    pub fn has_usable_session(&self, now: Instant) -> bool {
        self.keypairs.current.as_ref().is_some_and(|session| !session.sealer.is_expired(now))
    }

    /// Whether there is an address to send to.
    pub const fn has_endpoint(&self) -> bool {
        self.has_endpoint
    }

    /// Since when initiations of ours are not answered, if the last one was not.
    pub const fn unanswered_initiation(&self) -> Option<Instant> {
        self.timers.unanswered_initiation()
    }

    pub const fn public_key(&self) -> &PublicKey {
        &self.remote.public
    }

    /// [`PresharedKey::NONE`] if there is none.
    pub const fn preshared_key(&self) -> &PresharedKey {
        &self.remote.preshared
    }

    /// Seconds; 0 if off.
    pub const fn persistent_keepalive(&self) -> u16 {
        self.timers.persistent_keepalive_secs()
    }

    /// When the last handshake was completed, by the wall clock.
    pub const fn last_handshake(&self) -> Option<Wall> {
        self.last_handshake
    }
}

/// A session as the protocol core knows it.
#[derive(Debug)]
pub(super) struct Session {
    pub index: Index,
    pub sealer: Arc<Sealer>,
}

/// The sessions with a peer. [LNX noise.h:noise_keypairs]
///
/// All three can be received with; `current` alone is sent with. `next` is a session that we
/// answered for and whose initiator has not yet shown that he has it.
#[derive(Debug, Default)]
pub(super) struct Keypairs {
    pub previous: Option<Session>,
    pub current: Option<Session>,
    pub next: Option<Session>,
}

impl Keypairs {
    /// Takes a session that we initiated: the response has confirmed it. Returns what it displaced.
    pub fn accept_as_initiator(&mut self, session: Session) -> [Option<Session>; 2] {
        let current = self.current.replace(session);
        match self.next.take() {
            // The peer, who initiated as well, may be sending with his session already.
            Some(next) => [current, self.previous.replace(next)],
            None => [std::mem::replace(&mut self.previous, current), None],
        }
    }

    /// Takes a session that we answered for, unconfirmed. Returns what it displaced.
    pub fn accept_as_responder(&mut self, session: Session) -> [Option<Session>; 2] {
        [self.next.replace(session), self.previous.take()]
    }

    /// Makes `next` current if it is `index`: a packet under it was authenticated. Returns whether
    /// it was, and what it displaced.
    pub fn confirm(&mut self, index: Index) -> (bool, Option<Session>) {
        match self.next.take_if(|next| next.index == index) {
            Some(next) => {
                let current = self.current.replace(next);
                (true, std::mem::replace(&mut self.previous, current))
            }
            None => (false, None),
        }
    }

    /// Gives up all sessions.
    pub fn take_all(&mut self) -> impl Iterator<Item = Session> + use<> {
        let Self { previous, current, next } = std::mem::take(self);
        [previous, current, next].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::crypto::key::SymmetricKey;
    use crate::proto::keypair::{Keypair, Role};

    fn session(index: u32) -> Session {
        let key = SymmetricKey::from_bytes([1; 32]);
        let index = Index(index);
        let keypair = Keypair::start(Instant::ZERO, Role::Initiator, &key, &key, index, Index(0));
        Session { index, sealer: Arc::new(keypair.sealer) }
    }

    /// Previous, current, next.
    fn slots(keypairs: &Keypairs) -> [Option<u32>; 3] {
        [&keypairs.previous, &keypairs.current, &keypairs.next]
            .map(|slot| slot.as_ref().map(|session| session.index.0))
    }

    fn filled(slots: [Option<u32>; 3]) -> Keypairs {
        let [previous, current, next] = slots.map(|slot| slot.map(session));
        Keypairs { previous, current, next }
    }

    fn indices(sessions: impl IntoIterator<Item = Option<Session>>) -> Vec<u32> {
        let mut indices: Vec<_> =
            sessions.into_iter().flatten().map(|session| session.index.0).collect();
        indices.sort_unstable();
        indices
    }

    #[test]
    fn the_initiator_sends_with_a_new_session_at_once_and_still_receives_with_the_last() {
        let mut keypairs = filled([Some(1), Some(2), None]);
        let displaced = keypairs.accept_as_initiator(session(3));
        assert_eq!(slots(&keypairs), [Some(2), Some(3), None]);
        assert_eq!(indices(displaced), [1]);
    }

    #[test]
    fn an_initiator_who_is_responder_as_well_keeps_the_session_the_peer_may_be_using() {
        let mut keypairs = filled([Some(1), Some(2), Some(3)]);
        let displaced = keypairs.accept_as_initiator(session(4));
        assert_eq!(slots(&keypairs), [Some(3), Some(4), None]);
        assert_eq!(indices(displaced), [1, 2]);
    }

    #[test]
    fn the_responder_keeps_sending_with_the_current_session() {
        let mut keypairs = filled([Some(1), Some(2), Some(3)]);
        let displaced = keypairs.accept_as_responder(session(4));
        assert_eq!(slots(&keypairs), [None, Some(2), Some(4)]);
        assert_eq!(indices(displaced), [1, 3]);
    }

    #[test]
    fn only_a_packet_under_next_makes_it_current() {
        let mut keypairs = filled([Some(1), Some(2), Some(3)]);
        for other in [1, 2, 9] {
            let (confirmed, displaced) = keypairs.confirm(Index(other));
            assert!(!confirmed && displaced.is_none());
        }
        let (confirmed, displaced) = keypairs.confirm(Index(3));
        assert!(confirmed);
        assert_eq!(indices([displaced]), [1]);
        assert_eq!(slots(&keypairs), [Some(2), Some(3), None]);
        assert!(!keypairs.confirm(Index(3)).0, "once");
    }

    #[test]
    fn giving_up_all_sessions_leaves_none() {
        let mut keypairs = filled([Some(1), Some(2), Some(3)]);
        assert_eq!(keypairs.take_all().count(), 3);
        assert_eq!(slots(&keypairs), [None; 3]);
    }

    fn peer() -> Peer {
        Peer::new(RemoteStatic {
            public: PublicKey::from_bytes([9; 32]),
            static_static: None,
            preshared: PresharedKey::NONE,
        })
    }

    const fn wall(secs: u64, nanos: u32) -> Wall {
        Wall { secs, nanos }
    }

    #[test]
    fn timestamps_sent_grow_even_when_the_clock_does_not() {
        let mut peer = peer();
        let walls = [wall(100, 0), wall(100, 0), wall(100, 1), wall(50, 0), wall(101, 0)];
        let floor = Timestamp::default();
        let sent: Vec<_> = walls.map(|wall| peer.next_timestamp(wall, floor)).into();
        assert!(sent.windows(2).all(|pair| pair[0] < pair[1]), "{sent:?}");
        assert_eq!(sent[4], Timestamp::from_wall(wall(101, 0)), "and it is not left behind");
    }

    #[test]
    fn timestamps_sent_exceed_the_floor_and_leave_it_when_the_clock_does() {
        let mut peer = peer();
        let floor = Timestamp::from_wall(wall(200, 0));
        let first = peer.next_timestamp(wall(100, 0), floor);
        assert_eq!(first, floor.successor(), "what another life has sent is not sent again");
        assert_eq!(peer.next_timestamp(wall(100, 0), floor), first.successor());
        let caught_up = Timestamp::from_wall(wall(201, 0));
        assert_eq!(peer.next_timestamp(wall(201, 0), floor), caught_up);
    }

    #[test]
    fn timestamps_received_must_grow_and_a_refused_one_leaves_no_trace() {
        let mut peer = peer();
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let stamp = |secs| Timestamp::from_wall(wall(secs, 0));
        assert_eq!(peer.accept_timestamp(at(0), stamp(10)), Ok(()));
        assert_eq!(peer.accept_timestamp(at(100), stamp(10)), Err(DropReason::TimestampReplayed));
        assert_eq!(peer.accept_timestamp(at(100), stamp(9)), Err(DropReason::TimestampReplayed));
        assert_eq!(peer.accept_timestamp(at(19), stamp(11)), Err(DropReason::InitiationFlood));
        assert_eq!(peer.accept_timestamp(at(20), stamp(11)), Ok(()));
    }
}
