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
use crate::proto::drop_reason::DropReason;
use crate::proto::handshake::{InitiationSent, RemoteStatic};
use crate::proto::index::Index;
use crate::proto::keypair::Sealer;
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
            keypairs: Keypairs::default(),
            jar,
            timers: Timers::default(),
            last_handshake: None,
            scheduled: None,
            sent_timestamp: Timestamp::default(),
            received_timestamp: None,
        }
    }

    /// Takes the timestamp for the next initiation.
    ///
    /// The receiver wants each greater than the last, so when the wall clock has been set back it
    /// follows the last one instead of locking us out until the clock has caught up. [WG §5.1]
    pub(super) fn next_timestamp(&mut self, wall: Wall) -> Timestamp {
        self.sent_timestamp = Timestamp::from_wall(wall).max(self.sent_timestamp.successor());
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
    pub(super) fn has_usable_session(&self, now: Instant) -> bool {
        self.keypairs.current.as_ref().is_some_and(|session| !session.sealer.is_expired(now))
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
