//! One WireGuard interface as a pure state machine. [WG §5, §6]
//!
//! Owns identity, peers, handshakes, the rotation of sessions and every deadline. What it wants
//! done it appends to the [`Outputs`] it is handed, in the order in which it must be done; nothing
//! is sent or installed by itself. Keys to transport data with leave it at once: the data plane
//! seals and opens, and tells what matters through [`Facts`](crate::proto::timers::Facts),
//! [`want_session`](Device::want_session) and [`handle_confirmed`](Device::handle_confirmed).
//! Must not do work that grows with the number of peers, but for changes of the whole device.
//!
//! - `configure`: changes by the user.
//! - `handshake`: messages 1 to 3, both ways.
//! - `deadline`: what falls due, and when.
//! - `host`: what happens to the machine.
//! - `places`: peers whose endpoint is a name, or several.

mod change;
mod configure;
mod deadline;
mod handshake;
mod host;
mod output;
mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::crypto::entropy::Entropy;
use crate::crypto::key::{PrivateKey, PublicKey};
use crate::crypto::tai64n::Timestamp;
use crate::proto::allowed_ips::AllowedIps;
use crate::proto::cookie::CookieChecker;
use crate::proto::handshake::StaticIdentity;
use crate::proto::index::{Index, IndexTable};
use crate::proto::peer::{Peer, PeerId, Session};
use crate::proto::ratelimit::RateLimiter;
use crate::time::{Instant, Now};

pub use change::{AllowedIpChange, Change, ConfigureError, PeerUpdate};
pub use output::{Destination, Event, Load, Output, Outputs, SmallDatagram};

/// The protocol state of one interface.
pub struct Device {
    entropy: Box<dyn Entropy>,
    identity: Option<Identity>,
    limiter: RateLimiter,
    peers: BTreeMap<PeerId, Peer>,
    /// INVARIANT: names exactly the peers.
    by_key: BTreeMap<PublicKey, PeerId>,
    next_id: u32,
    /// The indices of live sessions and of handshakes that wait for a response.
    indices: IndexTable<PeerId>,
    allowed_ips: AllowedIps<PeerId>,
    /// The greatest timestamp of all initiations sent, or what it must exceed.
    sent_timestamp: Timestamp,
    /// When to look at which peer: never later than the first of his deadlines that the facts gave
    /// when he was last looked at. INVARIANT: holds what `Peer::scheduled` says.
    deadlines: BTreeSet<(Instant, PeerId)>,
}

/// Who we are, and what is derived from it.
struct Identity {
    keys: StaticIdentity,
    checker: CookieChecker,
}

impl Device {
    /// A device without a key and without peers.
    pub fn new(entropy: Box<dyn Entropy>) -> Self {
        Self {
            entropy,
            identity: None,
            limiter: RateLimiter::new(),
            peers: BTreeMap::new(),
            by_key: BTreeMap::new(),
            next_id: 0,
            indices: IndexTable::new(),
            allowed_ips: AllowedIps::new(),
            sent_timestamp: Timestamp::default(),
            deadlines: BTreeSet::new(),
        }
    }

    /// The data plane has packets for `peer` and no session to send them with, or the session is
    /// due for renewal. Asking too often, or in vain, does no harm.
    pub fn want_session(&mut self, now: Now, peer: PeerId, out: &mut Outputs) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if state.has_fresh_session(now.mono) {
            return;
        }
        state.session_wanted = true;
        state.timers.session_wanted();
        // While one is asked for, the next retry is near and has its jitter.
        if !state.timers.is_initiating() {
            self.initiate(now, peer, out);
        }
        self.reschedule(peer);
    }

    /// The first packet under the session of `index` was authenticated: its initiator has it, so
    /// it is sent with from now on. [WG §6.3] [LNX noise.c:wg_noise_received_with_keypair]
    pub fn handle_confirmed(&mut self, now: Now, index: Index, out: &mut Outputs) {
        let Some(&peer) = self.indices.get(index) else { return };
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let (confirmed, displaced) = state.keypairs.confirm(index);
        if !confirmed {
            return;
        }
        // Whatever we asked for ourselves is answered by this session: a response that comes later
        // must not put an older one in its place.
        if let Some(handshake) = state.handshake.take() {
            self.indices.remove(handshake.local_index());
        }
        state.timers.handshake_complete();
        state.session_wanted = false;
        state.last_handshake = Some(now.wall);
        let sealer = state.keypairs.current.as_ref().map(|session| session.sealer.clone());
        out.push(Output::Current { peer, sealer });
        self.retire(displaced, out);
        out.push(Output::SendStaged(peer));
        out.push(Output::Event(Event::HandshakeComplete(peer)));
        self.reschedule(peer);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next. Later is harmless, and so is
    /// earlier.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    pub fn private_key(&self) -> Option<&PrivateKey> {
        self.identity.as_ref().map(|identity| &identity.keys.private)
    }

    pub fn public_key(&self) -> Option<&PublicKey> {
        self.identity.as_ref().map(|identity| &identity.keys.public)
    }

    /// All peers, in the order in which they were added.
    pub fn peers(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.peers.iter().map(|(&id, peer)| (id, peer))
    }

    pub fn peer(&self, peer: PeerId) -> Option<&Peer> {
        self.peers.get(&peer)
    }

    pub fn peer_id(&self, public_key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(public_key).copied()
    }

    /// Which address belongs to which peer; the data plane takes a snapshot.
    pub const fn allowed_ips(&self) -> &AllowedIps<PeerId> {
        &self.allowed_ips
    }

    /// Ends sessions: their indices are free, and the data plane forgets their keys.
    fn retire(&mut self, sessions: impl IntoIterator<Item = Session>, out: &mut Outputs) {
        for session in sessions {
            self.indices.remove(session.index);
            out.push(Output::Retire(session.index));
        }
    }

    /// Forgets all keys shared with a peer, and the handshake that waits for a response.
    fn erase_keys(&mut self, peer: PeerId, out: &mut Outputs) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.timers.keys_zeroed();
        let handshake = state.handshake.take();
        if state.keypairs.current.is_some() {
            out.push(Output::Current { peer, sealer: None });
        }
        let sessions = state.keypairs.take_all();
        if let Some(handshake) = handshake {
            self.indices.remove(handshake.local_index());
        }
        self.retire(sessions, out);
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("public_key", &self.public_key())
            .field("peers", &self.peers.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
