//! Messages 1 to 3, both ways. [WG §5.4]
//!
//! The order of checks is the defence: length and the first MAC before anything is looked up or
//! multiplied; under load, a proof of address and a fair share by source; decryption; the
//! timestamp last, and only an initiation that passed everything leaves a trace. An endpoint moves
//! only when a message was authenticated: never by a cookie reply. [WG §5.3]

use std::ops::Range;
use std::sync::Arc;

use crate::crypto::entropy::Entropy;
use crate::crypto::key::PrivateKey;
use crate::proto::constants::HANDSHAKE_DSCP;
use crate::proto::cookie::MacVerdict;
use crate::proto::device::{Destination, Device, Event, Load, Output, Outputs};
use crate::proto::drop_reason::DropReason;
use crate::proto::endpoint::Endpoint;
use crate::proto::handshake::{InitiationOpened, InitiationSent};
use crate::proto::index::Index;
use crate::proto::keypair::Keypair;
use crate::proto::peer::{PeerId, Session};
use crate::time::Now;
use crate::wire::message::{
    COOKIE_REPLY_BYTES, INITIATION_BYTES, Message, RESPONSE_BYTES, classify, cookie_reply,
    initiation, response,
};

impl Device {
    /// Consumes a message of type 1, 2 or 3 that came from `from`, and tells whose it was.
    ///
    /// # Errors
    /// The reason why it was not acted on; a cookie reply may have been sent then. No endpoint and
    /// no session has changed.
    pub fn handle_handshake(
        &mut self,
        now: Now,
        from: Endpoint,
        load: Load,
        datagram: &[u8],
        out: &mut Outputs,
    ) -> Result<PeerId, DropReason> {
        let peer = match classify(datagram) {
            Some(Message::Initiation(message)) => {
                self.admit(now, from, load, message, out)?;
                self.consume_initiation(now, from, message, out)?
            }
            Some(Message::Response(message)) => {
                self.admit(now, from, load, message, out)?;
                self.consume_response(now, from, message, out)?
            }
            Some(Message::CookieReply(message)) => self.consume_cookie_reply(now, message)?,
            Some(Message::Transport { .. }) | None => return Err(DropReason::BadMessage),
        };
        self.reschedule(peer);
        Ok(peer)
    }

    /// Decides whether a message is worth a multiplication. [LNX receive.c:wg_receive_handshake_packet]
    fn admit(
        &mut self,
        now: Now,
        from: Endpoint,
        load: Load,
        message: &[u8],
        out: &mut Outputs,
    ) -> Result<(), DropReason> {
        let identity = self.identity.as_mut().ok_or(DropReason::NoPrivateKey)?;
        let verdict = identity.checker.check(now.mono, from.remote, message);
        match (verdict, load) {
            (MacVerdict::Invalid, _) => Err(DropReason::InvalidMac1),
            (MacVerdict::ValidMac1 | MacVerdict::ValidBoth, Load::Normal) => Ok(()),
            (MacVerdict::ValidMac1, Load::High) => {
                // The sender's index is at the same place in both kinds of message.
                let reply = identity.checker.create_reply(
                    now.mono,
                    &mut *self.entropy,
                    message,
                    index_at(message, initiation::SENDER),
                    from.remote,
                );
                out.push(Output::Transmit {
                    to: Destination::Address(from),
                    datagram: (&reply).into(),
                    traffic_class: 0,
                });
                Err(DropReason::CookieSent)
            }
            (MacVerdict::ValidBoth, Load::High) => {
                let allowed = self.limiter.allow(now.mono, from.remote.ip());
                if allowed { Ok(()) } else { Err(DropReason::RateLimited) }
            }
        }
    }

    /// Answers an initiation. The session it makes is not sent with until the peer has used it.
    /// [WG §5.4.2, §5.4.3]
    fn consume_initiation(
        &mut self,
        now: Now,
        from: Endpoint,
        message: &[u8; INITIATION_BYTES],
        out: &mut Outputs,
    ) -> Result<PeerId, DropReason> {
        let identity = &self.identity.as_ref().ok_or(DropReason::NoPrivateKey)?.keys;
        let opened = InitiationOpened::open(identity, message)?;
        let &peer = self.by_key.get(&opened.remote).ok_or(DropReason::UnknownPeer)?;
        let state = self.peers.get_mut(&peer).ok_or(DropReason::UnknownPeer)?;
        let received = opened.verify(&state.remote)?;
        state.accept_timestamp(now.mono, received.timestamp)?;

        let received_bytes = message.len();
        let ephemeral = ephemeral(&mut *self.entropy);
        let index = self.indices.insert(&mut *self.entropy, peer);
        let (mut message, keypair) =
            match received.create_response(now.mono, &state.remote, ephemeral, index) {
                Ok(made) => made,
                Err(reason) => {
                    self.indices.remove(index);
                    return Err(reason);
                }
            };
        state.has_endpoint = true;
        state.timers.facts.any_authenticated_received(now.mono);
        state.places.in_touch(from.remote);
        out.push(Output::Heard { peer, from, bytes: received_bytes });

        state.jar.stamp(now.mono, &mut message);
        state.timers.responded(now.mono);
        let displaced = state.keypairs.accept_as_responder(install(peer, keypair, false, out));
        self.retire(displaced.into_iter().flatten(), out);
        out.push(Output::Transmit {
            to: Destination::Peer(peer),
            datagram: (&message).into(),
            traffic_class: HANDSHAKE_DSCP,
        });
        Ok(peer)
    }

    /// Takes the session that a response completes, and confirms it by sending. [WG §5.4.3]
    fn consume_response(
        &mut self,
        now: Now,
        from: Endpoint,
        message: &[u8; RESPONSE_BYTES],
        out: &mut Outputs,
    ) -> Result<PeerId, DropReason> {
        let identity = &self.identity.as_ref().ok_or(DropReason::NoPrivateKey)?.keys;
        let index = index_at(message, response::RECEIVER);
        let &peer = self.indices.get(index).ok_or(DropReason::UnknownHandshakeIndex)?;
        let state = self.peers.get_mut(&peer).ok_or(DropReason::UnknownHandshakeIndex)?;
        let handshake = state
            .handshake
            .take_if(|handshake| handshake.local_index() == index)
            .ok_or(DropReason::NoHandshake)?;
        let keypair = match handshake.consume_response(now.mono, identity, &state.remote, message) {
            Ok(keypair) => keypair,
            Err(reason) => {
                // The true response may still be on its way.
                state.handshake = Some(handshake);
                return Err(reason);
            }
        };

        state.has_endpoint = true;
        state.session_wanted = false;
        state.last_handshake = Some(now.wall);
        state.timers.response_received(now.mono);
        state.timers.facts.any_authenticated_received(now.mono);
        let is_elsewhere = state.places.answered(from.remote);
        out.push(Output::Heard { peer, from, bytes: message.len() });

        let session = install(peer, keypair, true, out);
        out.push(Output::Current { peer, sealer: Some(session.sealer.clone()) });
        let displaced = state.keypairs.accept_as_initiator(session);
        // Another machine with the same key still has that session: what it sends late must not
        // lead us back to it.
        let left = state.keypairs.previous.take_if(|_| is_elsewhere);
        self.retire(displaced.into_iter().flatten().chain(left), out);
        out.push(Output::Flush(peer));
        out.push(Output::Event(Event::HandshakeComplete(peer)));
        Ok(peer)
    }

    /// Keeps a cookie for the next retry. Nothing is sent, and nobody has moved: the sender of a
    /// cookie reply is not authenticated. [WG §5.4.7]
    fn consume_cookie_reply(
        &mut self,
        now: Now,
        message: &[u8; COOKIE_REPLY_BYTES],
    ) -> Result<PeerId, DropReason> {
        let index = index_at(message, cookie_reply::RECEIVER);
        let &peer = self.indices.get(index).ok_or(DropReason::UnknownCookieIndex)?;
        let state = self.peers.get_mut(&peer).ok_or(DropReason::UnknownCookieIndex)?;
        state.jar.consume_reply(now.mono, message)?;
        Ok(peer)
    }

    /// Sends an initiation, now or as soon as one may be sent. Without a key or an endpoint there
    /// is nothing to do; whoever brings it asks again.
    pub(super) fn initiate(&mut self, now: Now, peer: PeerId, out: &mut Outputs) {
        self.ask_for_places(now, peer, out);
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let Some(identity) = &self.identity else { return };
        if !state.has_endpoint {
            return;
        }
        if !state.timers.may_initiate(now.mono) {
            state.timers.defer(now.mono, &mut *self.entropy);
            return;
        }
        let timestamp = state.next_timestamp(now.wall, self.sent_timestamp);
        self.sent_timestamp = self.sent_timestamp.max(timestamp);
        let ephemeral = ephemeral(&mut *self.entropy);
        let index = self.indices.insert(&mut *self.entropy, peer);
        let made =
            InitiationSent::create(&identity.keys, &state.remote, ephemeral, index, timestamp);
        let Ok((handshake, mut message)) = made else {
            // A key of low order: no handshake with this peer can ever succeed.
            self.indices.remove(index);
            return;
        };
        if let Some(unanswered) = state.handshake.replace(handshake) {
            self.indices.remove(unanswered.local_index());
        }
        state.jar.stamp(now.mono, &mut message);
        state.timers.initiated(now.mono, &mut *self.entropy);
        self.transmit_initiation(now, peer, (&message).into(), out);
    }
}

/// Hands the keys of a new session to the data plane and keeps what the core needs of it.
fn install(peer: PeerId, keypair: Keypair, confirmed: bool, out: &mut Outputs) -> Session {
    let sealer = Arc::new(keypair.sealer);
    out.push(Output::Install {
        peer,
        index: keypair.local_index,
        opener: keypair.opener,
        sealer: sealer.clone(),
        confirmed,
    });
    Session { index: keypair.local_index, sealer }
}

fn ephemeral(entropy: &mut dyn Entropy) -> PrivateKey {
    PrivateKey::from_bytes(entropy.bytes())
}

/// Reads an index out of a message that is long enough to have it.
fn index_at(message: &[u8], field: Range<usize>) -> Index {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&message[field]);
    Index::from_le_bytes(bytes)
}
