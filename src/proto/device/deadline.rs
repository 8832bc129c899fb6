//! What falls due, and when. [WG §6]
//!
//! One entry a peer in an ordered set. A fact that moves a deadline back does not touch the set:
//! when the entry comes up, the deadlines are derived anew, and it is put back if none is due.

use crate::proto::device::{Device, Event, Output, Outputs};
use crate::proto::peer::PeerId;
use crate::proto::timers::{Deadline, Retransmission};
use crate::time::{Instant, Now};

/// How many peers one call looks at, so that a thousand deadlines at once do not keep the caller
/// from its packets: each may cost two multiplications on the curve.
const PEERS_A_CALL: usize = 64;

impl Device {
    /// Does what is due. Early, late, or twice: all harmless. If much is due, some of it is left
    /// for the next call, and [`next_deadline`](Self::next_deadline) is not in the future then.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Outputs) {
        for _ in 0..PEERS_A_CALL {
            match self.deadlines.first() {
                Some(&(at, peer)) if at <= now.mono => self.look_at(now, peer, out),
                Some(_) | None => break,
            }
        }
    }

    /// The data plane recorded a fact that makes something due before we would look at `peer`.
    pub fn handle_nudge(&mut self, now: Now, peer: PeerId, out: &mut Outputs) {
        self.look_at(now, peer, out);
    }

    fn look_at(&mut self, now: Now, peer: PeerId, out: &mut Outputs) {
        self.ask_again_for_places(now, peer, out);
        for deadline in Deadline::ALL {
            let Some(state) = self.peers.get_mut(&peer) else { return };
            state.timers.observe(&mut *self.entropy);
            if state.timers.at(deadline).is_some_and(|at| at <= now.mono) {
                self.expire(now, peer, deadline, out);
            }
        }
        self.reschedule(peer);
    }

    /// Acts on one deadline. Each leaves itself disarmed or armed for later.
    fn expire(&mut self, now: Now, peer: PeerId, deadline: Deadline, out: &mut Outputs) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        match deadline {
            Deadline::ZeroKeyMaterial => {
                self.erase_keys(peer, out);
                out.push(Output::Event(Event::KeysErased(peer)));
            }
            Deadline::RetransmitHandshake => match state.timers.retransmit(now.mono) {
                Retransmission::First => self.initiate(now, peer, out),
                Retransmission::Again { attempt } => {
                    out.push(Output::Event(Event::HandshakeRetry { peer, attempt }));
                    out.push(Output::ClearSource(peer));
                    self.initiate(now, peer, out);
                }
                Retransmission::GiveUp => {
                    state.session_wanted = false;
                    state.timers.settle_keepalive();
                    out.push(Output::PurgeStaged(peer));
                    out.push(Output::Event(Event::HandshakeGivenUp(peer)));
                }
            },
            Deadline::NewHandshake => {
                state.timers.settle_silence();
                state.timers.session_wanted();
                out.push(Output::ClearSource(peer));
                if !state.timers.is_initiating() {
                    self.initiate(now, peer, out);
                }
            }
            Deadline::SendKeepalive => {
                state.timers.settle_keepalive();
                self.keepalive(now, peer, out);
            }
            Deadline::PersistentKeepalive => {
                state.timers.persistent_keepalive_fired(now.mono);
                self.keepalive(now, peer, out);
            }
        }
    }

    /// Has an empty packet sent; without a session to send it with, asks for one, and its first
    /// packet will do. [LNX send.c:wg_packet_send_keepalive]
    pub(super) fn keepalive(&mut self, now: Now, peer: PeerId, out: &mut Outputs) {
        match self.peers.get(&peer) {
            Some(state) if state.has_usable_session(now.mono) => out.push(Output::Keepalive(peer)),
            Some(_) => self.want_session(now, peer, out),
            None => {}
        }
    }

    /// Enters the first deadline of a peer into the set. Called after every change of him.
    pub(super) fn reschedule(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let next_ask = state.places.next_ask();
        let first = loop {
            state.timers.observe(&mut *self.entropy);
            let first = state.timers.earliest();
            state.timers.facts.publish(first.unwrap_or(Instant::MAX));
            // What was recorded up to here the data plane has not nudged us for. Only what it has
            // made due earlier matters: of what is due later we take note when we look.
            state.timers.observe(&mut *self.entropy);
            let earliest = state.timers.earliest().unwrap_or(Instant::MAX);
            if earliest >= first.unwrap_or(Instant::MAX) {
                break first;
            }
        };
        let first = first.into_iter().chain(next_ask).min();
        if let Some(scheduled) = std::mem::replace(&mut state.scheduled, first) {
            self.deadlines.remove(&(scheduled, peer));
        }
        if let Some(at) = first {
            self.deadlines.insert((at, peer));
        }
    }
}
