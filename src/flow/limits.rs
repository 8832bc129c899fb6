//! How much of a host peers may take, each of them and all together.
//!
//! A peer that reaches its own limit is not noticed by the others: none of its limits is more than a
//! part of what there is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::proto::peer::PeerId;
use crate::time::{Instant, TokenBucket};

/// One peer may have so large a part of all flows, where there are as many peers.
const SHARES: usize = 4;

/// Of these, mappings of UDP ports.
const UDP_A_PEER: usize = 1024;

/// Connections that are being made: of all peers, of one, to one place, and of one to one.
const DIALS: usize = 1024;
const DIALS_A_PEER: usize = 256;
const DIALS_A_PLACE: usize = 256;
const DIALS_A_PEER_AND_PLACE: usize = 64;

/// New flows of one peer in a burst, and how long until there may be one more: 5000 a second.
const NEW_BURST: u32 = 1000;
const NEW_INTERVAL: Duration = Duration::from_micros(200);

/// The same of connections that the peer has asked for and not completed: 500 a second. Whoever completes
/// what it begins has its tokens back, so that these are for floods, scans, and what is refused.
const VAIN_BURST: u32 = 500;
const VAIN_INTERVAL: Duration = Duration::from_millis(2);

/// ICMP errors to one peer. [RFC 1812 §4.3.2.8] [RFC 4443 §2.4]
const ERROR_BURST: u32 = 50;
const ERROR_INTERVAL: Duration = Duration::from_millis(10);

/// Descriptors that are left to the rest of the program.
const SPARED_DESCRIPTORS: u64 = 256;

/// Which limit was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Limit {
    #[error("all flows (MaxFlows, or descriptors: LimitNOFILE, ulimit -n)")]
    Flows,
    #[error("flows of this peer")]
    FlowsOfPeer,
    #[error("UDP ports of this peer")]
    UdpOfPeer,
    #[error("connections being made for all peers")]
    Dials,
    #[error("connections being made for this peer")]
    DialsOfPeer,
    #[error("connections being made to one place")]
    DialsToPlace,
    #[error("new flows of this peer in a second")]
    Rate,
    #[error("connections that this peer begins in a second and does not complete")]
    Vain,
}

/// What counts as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Udp,
    Echo,
    Tcp,
}

#[derive(Debug)]
struct Share {
    flows: usize,
    udp: usize,
    dials: usize,
    new: TokenBucket,
    vain: TokenBucket,
    errors: TokenBucket,
}

impl Share {
    const fn new() -> Self {
        Self {
            flows: 0,
            udp: 0,
            dials: 0,
            new: TokenBucket::new(NEW_BURST, NEW_INTERVAL),
            vain: TokenBucket::new(VAIN_BURST, VAIN_INTERVAL),
            errors: TokenBucket::new(ERROR_BURST, ERROR_INTERVAL),
        }
    }
}

/// What is taken now.
#[derive(Debug)]
pub struct Limits {
    /// That there are descriptors for.
    possible_flows: usize,
    most_flows: usize,
    shares: usize,
    flows: usize,
    /// Of these, TCP.
    connections: usize,
    dials: usize,
    peers: HashMap<PeerId, Share>,
    places: HashMap<SocketAddr, Place>,
}

/// Connections that are being made to one place.
#[derive(Debug, Default)]
struct Place {
    dials: usize,
    by_peer: HashMap<PeerId, usize>,
}

impl Limits {
    /// For a process that may have so many descriptors.
    pub fn new(descriptors: u64) -> Self {
        let flows = usize::try_from(descriptors.saturating_sub(SPARED_DESCRIPTORS));
        let possible_flows = flows.unwrap_or(usize::MAX).max(1);
        Self {
            possible_flows,
            most_flows: possible_flows,
            shares: SHARES,
            flows: 0,
            connections: 0,
            dials: 0,
            peers: HashMap::new(),
            places: HashMap::new(),
        }
    }

    /// Has all peers together have `most` flows, or as many as there are descriptors for, and tells
    /// how many that is. Those that there are stay.
    pub fn bound(&mut self, most: usize) -> usize {
        self.most_flows = most.min(self.possible_flows);
        self.most_flows
    }

    /// Parts all flows among so many peers: a single one, as a sidecar has, stands in nobody's way.
    pub fn share_among(&mut self, peers: usize) {
        self.shares = peers.clamp(1, SHARES);
    }

    pub const fn flows(&self) -> usize {
        self.flows
    }

    /// How many of the flows are connections.
    pub const fn connections(&self) -> usize {
        self.connections
    }

    /// Whether nobody may have one more.
    pub const fn is_full(&self) -> bool {
        self.flows >= self.most_flows
    }

    /// `peer` asks for a connection, which may come to nothing.
    ///
    /// # Errors
    /// Too many of them have, lately: this one is not worth a look.
    pub fn ask(&mut self, now: Instant, peer: PeerId) -> Result<(), Limit> {
        let share = self.peers.entry(peer).or_insert_with(Share::new);
        if share.vain.take(now) { Ok(()) } else { Err(Limit::Vain) }
    }

    /// `peer` has completed a connection that it had asked for.
    pub fn complete(&mut self, peer: PeerId) {
        if let Some(share) = self.peers.get_mut(&peer) {
            share.vain.give_back();
        }
    }

    /// Takes one flow of `peer`'s.
    ///
    /// # Errors
    /// There is none left, or none yet.
    pub fn open(&mut self, now: Instant, peer: PeerId, sort: Sort) -> Result<(), Limit> {
        let (is_full, most) = (self.is_full(), (self.most_flows / self.shares).max(1));
        let share = self.peers.entry(peer).or_insert_with(Share::new);
        if !share.new.take(now) {
            return Err(Limit::Rate);
        }
        if is_full {
            return Err(Limit::Flows);
        }
        if share.flows >= most {
            return Err(Limit::FlowsOfPeer);
        }
        if sort == Sort::Udp && share.udp >= UDP_A_PEER {
            return Err(Limit::UdpOfPeer);
        }
        self.flows += 1;
        self.connections += usize::from(sort == Sort::Tcp);
        share.flows += 1;
        share.udp += usize::from(sort == Sort::Udp);
        Ok(())
    }

    /// Gives one back.
    pub fn close(&mut self, peer: PeerId, sort: Sort) {
        self.flows = self.flows.saturating_sub(1);
        self.connections = self.connections.saturating_sub(usize::from(sort == Sort::Tcp));
        if let Some(share) = self.peers.get_mut(&peer) {
            share.flows = share.flows.saturating_sub(1);
            share.udp = share.udp.saturating_sub(usize::from(sort == Sort::Udp));
        }
    }

    /// Takes one connection of this host's own: it has as many as there are flows.
    ///
    /// # Errors
    /// There is none left.
    pub const fn open_own(&mut self) -> Result<(), Limit> {
        if self.is_full() {
            return Err(Limit::Flows);
        }
        self.flows += 1;
        self.connections += 1;
        Ok(())
    }

    /// Gives one back.
    pub const fn close_own(&mut self) {
        self.flows = self.flows.saturating_sub(1);
        self.connections = self.connections.saturating_sub(1);
    }

    /// Begins to make a connection to `place`.
    ///
    /// # Errors
    /// Too many are being made.
    pub fn dial(&mut self, peer: PeerId, place: SocketAddr) -> Result<(), Limit> {
        let share = self.peers.entry(peer).or_insert_with(Share::new);
        if share.dials >= DIALS_A_PEER {
            return Err(Limit::DialsOfPeer);
        }
        if self.dials >= DIALS {
            return Err(Limit::Dials);
        }
        let place = self.places.entry(place).or_default();
        let own = place.by_peer.get(&peer).copied().unwrap_or(0);
        if place.dials >= DIALS_A_PLACE || own >= DIALS_A_PEER_AND_PLACE {
            return Err(Limit::DialsToPlace);
        }
        place.dials += 1;
        place.by_peer.insert(peer, own + 1);
        share.dials += 1;
        self.dials += 1;
        Ok(())
    }

    /// Has made one, or given up.
    pub fn dialled(&mut self, peer: PeerId, place: SocketAddr) {
        self.dials = self.dials.saturating_sub(1);
        if let Some(share) = self.peers.get_mut(&peer) {
            share.dials = share.dials.saturating_sub(1);
        }
        let Some(dialled) = self.places.get_mut(&place) else { return };
        dialled.dials = dialled.dials.saturating_sub(1);
        if let Some(own) = dialled.by_peer.get_mut(&peer) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                dialled.by_peer.remove(&peer);
            }
        }
        if dialled.dials == 0 {
            self.places.remove(&place);
        }
    }

    /// Whether one more ICMP error may be sent to `peer`.
    pub fn may_complain(&mut self, now: Instant, peer: PeerId) -> bool {
        self.peers.entry(peer).or_insert_with(Share::new).errors.take(now)
    }

    /// Forgets peers that are not there any more.
    pub fn retain(&mut self, mut is_there: impl FnMut(PeerId) -> bool) {
        self.peers.retain(|&peer, share| share.flows > 0 || share.dials > 0 || is_there(peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_peer_has_a_quarter_of_all_flows_and_the_others_have_theirs() {
        let mut limits = Limits::new(256 + 400);
        assert_eq!(limits.bound(16_384), 400);
        for peer in 0..4 {
            for _ in 0..100 {
                limits.open(at(9000), PeerId(peer), Sort::Tcp).unwrap();
            }
            let refused = limits.open(at(9000), PeerId(peer), Sort::Tcp);
            let limit = if peer == 3 { Limit::Flows } else { Limit::FlowsOfPeer };
            assert_eq!(refused, Err(limit));
        }
        limits.close(PeerId(1), Sort::Tcp);
        assert_eq!(limits.open(at(9000), PeerId(2), Sort::Tcp), Err(Limit::FlowsOfPeer));
        assert_eq!(limits.open(at(9000), PeerId(1), Sort::Tcp), Ok(()));
        assert_eq!(limits.flows(), 400);
    }

    #[test]
    fn few_peers_have_equal_parts_and_a_single_one_has_all() {
        let mut limits = Limits::new(256 + 12);
        for (peers, share) in [(0, 12), (1, 12), (2, 6), (3, 4), (4, 3), (5, 3)] {
            limits.share_among(peers);
            let opened =
                (0..99).take_while(|_| limits.open(at(9000), PeerId(1), Sort::Tcp).is_ok());
            let opened = opened.count();
            assert_eq!(opened, share, "{peers} peers");
            (0..opened).for_each(|_| limits.close(PeerId(1), Sort::Tcp));
        }
    }

    #[test]
    fn who_is_bound_anew_keeps_what_there_is() {
        let mut limits = Limits::new(1024);
        assert_eq!((limits.bound(8), limits.bound(100_000)), (8, 768));
        for _ in 0..3 {
            limits.open(at(9000), PeerId(1), Sort::Tcp).unwrap();
        }
        assert_eq!(limits.bound(8), 8);
        assert_eq!(limits.open(at(9000), PeerId(1), Sort::Tcp), Err(Limit::FlowsOfPeer));
        assert_eq!((limits.flows(), limits.open(at(9000), PeerId(2), Sort::Tcp)), (3, Ok(())));
    }

    #[test]
    fn new_flows_and_complaints_have_a_rate_of_each_peer() {
        let mut limits = Limits::new(u64::MAX);
        let opened = |limits: &mut Limits, peer| {
            (0..2000).filter(|_| limits.open(at(9000), PeerId(peer), Sort::Tcp).is_ok()).count()
        };
        assert_eq!((opened(&mut limits, 1), opened(&mut limits, 2)), (1000, 1000));
        assert_eq!(limits.open(at(9000), PeerId(1), Sort::Tcp), Err(Limit::Rate));
        assert_eq!(limits.open(at(9001), PeerId(1), Sort::Tcp), Ok(()));
        let told = (0..99).filter(|_| limits.may_complain(at(9000), PeerId(1))).count();
        assert_eq!(told, 50);
    }

    #[test]
    fn who_completes_connections_may_begin_more_of_them() {
        let mut limits = Limits::new(u64::MAX);
        let mut asked = |peer, completes: bool| {
            let asks = |_: &u32| {
                let outcome = limits.ask(at(9000), PeerId(peer));
                if completes {
                    limits.complete(PeerId(peer));
                }
                outcome.is_ok()
            };
            (0..2000).filter(asks).count()
        };
        assert_eq!((asked(1, false), asked(2, true), asked(3, false)), (500, 2000, 500));
        assert_eq!(limits.ask(at(9001), PeerId(1)), Err(Limit::Vain));
        assert_eq!(limits.ask(at(9002), PeerId(1)), Ok(()));
    }

    #[test]
    fn connections_being_made_are_bounded_by_place_and_by_peer() {
        let mut limits = Limits::new(u64::MAX);
        let place = |port| SocketAddr::from(([192, 0, 2, 1], port));
        for _ in 0..64 {
            limits.dial(PeerId(1), place(1)).unwrap();
        }
        assert_eq!(limits.dial(PeerId(1), place(1)), Err(Limit::DialsToPlace));
        for peer in 2..5 {
            for _ in 0..64 {
                limits.dial(PeerId(peer), place(1)).unwrap();
            }
        }
        assert_eq!(limits.dial(PeerId(5), place(1)), Err(Limit::DialsToPlace));
        for port in 2..194 {
            limits.dial(PeerId(1), place(port)).unwrap();
        }
        assert_eq!(limits.dial(PeerId(1), place(999)), Err(Limit::DialsOfPeer));
        assert_eq!(limits.dial(PeerId(5), place(999)), Ok(()));
        limits.dialled(PeerId(1), place(1));
        assert_eq!(limits.dial(PeerId(5), place(1)), Ok(()));
    }

    #[test]
    fn udp_ports_have_a_limit_of_their_own() {
        let mut limits = Limits::new(u64::MAX);
        for n in 0..1024 {
            limits.open(at(9000 + n), PeerId(1), Sort::Udp).unwrap();
        }
        assert_eq!(limits.open(at(19_000), PeerId(1), Sort::Udp), Err(Limit::UdpOfPeer));
        assert_eq!(limits.open(at(19_000), PeerId(1), Sort::Tcp), Ok(()));
        assert_eq!((limits.flows(), limits.connections()), (1025, 1));
        limits.close(PeerId(1), Sort::Udp);
        assert_eq!(limits.open(at(19_000), PeerId(1), Sort::Udp), Ok(()));
    }
}
