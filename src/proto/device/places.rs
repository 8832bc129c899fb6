//! Peers that the user has given by name, or by several places. [U-01, U-15, U-16]

use std::net::SocketAddr;

use crate::proto::constants::HANDSHAKE_DSCP;
use crate::proto::device::{Destination, Device, Output, Outputs, SmallDatagram};
use crate::proto::endpoint::Endpoint;
use crate::proto::peer::PeerId;
use crate::proto::places::Place;
use crate::time::Now;

impl Device {
    /// A look-up that was asked for by [`Output::Resolve`] is done: the addresses of the place, best
    /// first; none if it has failed. Moves no endpoint that is there.
    pub fn handle_resolved(
        &mut self,
        now: Now,
        peer: PeerId,
        place: &Place,
        addresses: &[SocketAddr],
        out: &mut Outputs,
    ) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let missed = state.places.resolved(place, addresses);
        if !state.has_endpoint
            && let Some(first) = state.places.first_address()
        {
            state.has_endpoint = true;
            state.places.in_touch(first);
            out.push(Output::Roamed(peer, Endpoint::new(first)));
            self.initiate_if_awaited(now, peer, out);
        } else if state.handshake.is_some()
            && let Some(initiation) = state.last_initiation
        {
            transmit_to(&missed, initiation, out);
        }
        self.reschedule(peer);
    }

    /// The place of that position in the list of a peer.
    pub fn place(&self, peer: PeerId, position: usize) -> Option<&Place> {
        self.peers.get(&peer)?.places.place(position)
    }

    /// Has names looked up that a new session needs, before it is asked for.
    pub(super) fn ask_for_places(&mut self, now: Now, peer: PeerId, out: &mut Outputs) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let positions = state.places.take_due(now.mono, state.timers.last_session());
        resolve(peer, positions, out);
    }

    /// Has names looked up that have no address yet.
    pub(super) fn ask_again_for_places(&mut self, now: Now, peer: PeerId, out: &mut Outputs) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        resolve(peer, state.places.take_unresolved(now.mono), out);
    }

    /// Sends an initiation where its peer may be.
    pub(super) fn transmit_initiation(
        &mut self,
        now: Now,
        peer: PeerId,
        initiation: SmallDatagram,
        out: &mut Outputs,
    ) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let attempt = state.places.attempt(state.has_usable_session(now.mono));
        state.last_initiation = state.places.place(0).map(|_| initiation);
        if attempt.direct {
            out.push(Output::Transmit {
                to: Destination::Peer(peer),
                datagram: initiation,
                traffic_class: HANDSHAKE_DSCP,
            });
        }
        transmit_to(&attempt.addresses, initiation, out);
    }
}

fn resolve(peer: PeerId, positions: Vec<usize>, out: &mut Outputs) {
    for position in positions {
        out.push(Output::Resolve { peer, position });
    }
}

fn transmit_to(addresses: &[SocketAddr], initiation: SmallDatagram, out: &mut Outputs) {
    for &address in addresses {
        out.push(Output::Transmit {
            to: Destination::Address(Endpoint::new(address)),
            datagram: initiation,
            traffic_class: HANDSHAKE_DSCP,
        });
    }
}
