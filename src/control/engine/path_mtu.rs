//! How large packets to each peer may be: carries out what `proto::path_mtu` decides.
//!
//! A peer is looked at when a large packet goes to it, or when somebody asks. Who is asked for an
//! echo is one of its own addresses, if its allowed IPs name one, or whoever answered before, was
//! heard from inside meanwhile, or is likely: the first address of a network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tracing::{debug, info, warn};

use super::Engine;
use crate::control::command::MtuPolicy;
use crate::control::mtu::IPV6_MINIMUM_MTU;
use crate::control::netlink::{Netlink, NetlinkError};
use crate::control::settings::{PathSource, PathStatus};
use crate::crypto::entropy::Entropy;
use crate::dataplane::inbox::ShardCommand;
use crate::dataplane::lane::Signal;
use crate::proto::endpoint::Endpoint;
use crate::proto::path_mtu::{PathMtu, Probe, RUNGS, Source};
use crate::proto::peer::PeerId;
use crate::sys::clock;
use crate::sys::entropy::OsEntropy;
use crate::sys::udp::Narrowed;
use crate::time::Instant;
use crate::wire::icmp::{LONGEST_ECHO_BYTES, echo_request};
use crate::wire::message::TRANSPORT_OVERHEAD_BYTES;

/// Most addresses that a request goes to while it is not known who answers.
const MOST_TARGETS: usize = 3;

/// Peers that are looked at when somebody asks, and not for their packets.
const MOST_ASKED: usize = 64;

/// Bytes of the outer headers: IP and UDP.
const OUTER_V4: u32 = 28;
const OUTER_V6: u32 = 48;

/// What is known of the paths to all peers of a device.
#[derive(Debug)]
pub(super) struct PathMtus {
    pub policy: MtuPolicy,
    /// The MTU that somebody else gave the interface.
    start: u32,
    /// The MTU that we have given it.
    own: Option<u32>,
    /// Those that were looked at.
    peers: BTreeMap<PeerId, Known>,
    /// INVARIANT: holds what `Known::scheduled` says.
    deadlines: BTreeSet<(Instant, PeerId)>,
}

#[derive(Debug)]
struct Known {
    mtu: PathMtu,
    scheduled: Option<Instant>,
    /// Of the echoes of the search that is going on.
    token: u64,
    /// Our address and whom to ask, best first.
    targets: Vec<(IpAddr, IpAddr)>,
    /// Who has answered.
    responder: Option<IpAddr>,
}

impl PathMtus {
    /// For an interface with this MTU.
    pub fn new(mtu: u32) -> Self {
        Self {
            policy: MtuPolicy::default(),
            start: mtu,
            own: None,
            peers: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    fn ceiling(&self) -> u16 {
        match self.policy {
            MtuPolicy::Fixed | MtuPolicy::Auto => bytes(self.start),
            MtuPolicy::Probe => RUNGS[0].max(bytes(self.start)),
        }
    }

    fn reschedule(&mut self, peer: PeerId) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let next = known.mtu.next_deadline();
        if let Some(at) = std::mem::replace(&mut known.scheduled, next) {
            self.deadlines.remove(&(at, peer));
        }
        self.deadlines.extend(next.map(|at| (at, peer)));
    }

    fn forget(&mut self, peer: PeerId) {
        if let Some(Known { scheduled: Some(at), .. }) = self.peers.remove(&peer) {
            self.deadlines.remove(&(at, peer));
        }
    }
}

fn bytes(mtu: u32) -> u16 {
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

impl Engine {
    /// What a shard tells about sizes.
    pub(super) fn hear_of_sizes(&mut self, signal: Signal) {
        let now = clock::now().mono;
        match signal {
            Signal::SendsLarge(peer) => self.look_for_size(now, peer),
            Signal::Answered { peer, sequence, from } => {
                if let Some(known) = self.path_mtus.peers.get_mut(&peer) {
                    known.responder = Some(from);
                }
                self.drive(peer, |mtu, out| mtu.handle_answer(now, sequence, out));
            }
            Signal::Inside { peer, address } => {
                let Some(known) = self.path_mtus.peers.get_mut(&peer) else { return };
                let of_family = |(ours, _): &&(IpAddr, IpAddr)| ours.is_ipv4() == address.is_ipv4();
                if let Some(&(ours, _)) = known.targets.iter().find(of_family)
                    && known.targets.len() <= MOST_TARGETS
                {
                    known.targets.push((ours, address));
                }
            }
            Signal::Narrowed(narrowed) => self.hear_of_narrow_path(narrowed),
            Signal::WantSession(_)
            | Signal::Confirmed(_)
            | Signal::Nudge(_)
            | Signal::Stopped(_) => {}
        }
    }

    fn hear_of_narrow_path(&mut self, Narrowed { remote, mtu }: Narrowed) {
        let overhead = if remote.is_ipv4() { OUTER_V4 } else { OUTER_V6 };
        let fits = bytes(mtu.saturating_sub(overhead + TRANSPORT_OVERHEAD_BYTES as u32));
        let searching = self.path_mtus.peers.iter().filter(|(_, known)| known.mtu.is_searching());
        let is_at = |peer: PeerId| {
            let endpoint = self.tables.peer(peer).and_then(|path| path.endpoint());
            endpoint.is_some_and(|Endpoint { remote: to, .. }| {
                to.ip() == remote.ip() && [to.port(), 0].contains(&remote.port())
            })
        };
        let meant: Vec<PeerId> =
            searching.map(|(&peer, _)| peer).filter(|&peer| is_at(peer)).collect();
        for peer in meant {
            debug!(peer = ?peer, outer = mtu, inner = fits, "told that the path is narrow");
            self.drive(peer, |mtu, out| mtu.handle_told(fits, out));
        }
    }

    /// Does what is due.
    pub(super) fn follow_sizes(&mut self, now: Instant) {
        while let Some(&(at, peer)) = self.path_mtus.deadlines.first()
            && at <= now
        {
            self.drive(peer, |mtu, out| mtu.handle_timeout(now, out));
        }
    }

    /// Looks for what fits of all peers that can be asked.
    pub(super) fn look_for_sizes(&mut self) {
        let now = clock::now().mono;
        let peers: Vec<PeerId> = self.device.peers().map(|(peer, _)| peer).collect();
        let has_session =
            |peer: &PeerId| self.tables.peer(*peer).is_some_and(|path| path.sealer().is_some());
        let peers: Vec<PeerId> = peers.into_iter().filter(has_session).take(MOST_ASKED).collect();
        for peer in peers {
            if let Some(known) = self.path_mtus.peers.get_mut(&peer) {
                known.mtu.handle_moved(now);
            }
            self.look_for_size(now, peer);
        }
    }

    fn look_for_size(&mut self, now: Instant, peer: PeerId) {
        if self.device.peer(peer).is_none() {
            return;
        }
        let (start, ceiling) = (bytes(self.path_mtus.start), self.path_mtus.ceiling());
        let known = self.path_mtus.peers.get(&peer);
        if known.is_some_and(|known| known.mtu.is_searching()) {
            return;
        }
        let targets = self.targets(peer, known.and_then(|known| known.responder));
        let known = self.path_mtus.peers.entry(peer).or_insert_with(|| Known {
            mtu: PathMtu::new(start, ceiling),
            scheduled: None,
            token: 0,
            targets: Vec::new(),
            responder: None,
        });
        known.targets = targets;
        self.drive(peer, |mtu, out| mtu.handle_large(now, out));
    }

    /// The path to `peer` is another now.
    pub(super) fn forget_size(&mut self, now: Instant, peer: PeerId) {
        self.drive(peer, |mtu, _| mtu.handle_moved(now));
    }

    /// A peer was added: nothing is known, and large packets to it are to be told of.
    pub(super) fn ask_for_sizes(&mut self, peer: PeerId) {
        self.path_mtus.forget(peer);
        self.tell_shards(peer);
    }

    /// The peer was removed.
    pub(super) fn drop_sizes(&mut self, peer: PeerId) {
        self.path_mtus.forget(peer);
    }

    /// Somebody has given the interface another MTU, or the policy is another.
    pub(super) fn restart_sizes(&mut self, mtu: u32) {
        if self.path_mtus.own != Some(mtu) {
            (self.path_mtus.start, self.path_mtus.own) = (mtu, None);
        }
        let peers: Vec<PeerId> = self.device.peers().map(|(peer, _)| peer).collect();
        for peer in peers {
            self.ask_for_sizes(peer);
        }
    }

    /// Hands an event to what is known of `peer`, and does what comes of it.
    fn drive(&mut self, peer: PeerId, event: impl FnOnce(&mut PathMtu, &mut Vec<Probe>)) {
        let Some(known) = self.path_mtus.peers.get_mut(&peer) else { return };
        let (before, was_searching) = (known.mtu.limit(), known.mtu.is_searching());
        let mut probes = Vec::new();
        event(&mut known.mtu, &mut probes);
        if known.mtu.is_searching() != was_searching {
            let entropy: &mut dyn Entropy = &mut OsEntropy;
            // 0 would say that none is on the way.
            known.token = if was_searching { 0 } else { u64::from_le_bytes(entropy.bytes()) | 1 };
            if let Some(path) = self.tables.peer(peer) {
                path.mtu.set_token(known.token);
            }
        }
        if known.mtu.source() == Source::Unanswered {
            known.responder = None;
        }
        let (limit, source) = (known.mtu.limit(), known.mtu.source());
        self.send_probes(peer, &probes);
        self.path_mtus.reschedule(peer);
        if limit != before {
            let key = self.device.peer(peer).map(|state| *state.public_key());
            info!(peer = ?key, mtu = limit, ?source, "path MTU");
            self.follow_with_interface();
        }
        self.tell_shards(peer);
    }

    fn send_probes(&self, peer: PeerId, probes: &[Probe]) {
        let Some(known) = self.path_mtus.peers.get(&peer) else { return };
        let asked = known
            .targets
            .iter()
            .filter(|(_, them)| known.responder.is_none_or(|responder| responder == *them));
        for &(ours, theirs) in asked {
            for &Probe { sequence, bytes } in probes {
                let mut echo = [0; LONGEST_ECHO_BYTES];
                if let Some(len) = echo_request(ours, theirs, sequence, known.token, &mut echo) {
                    let echo = echo[..len].into();
                    self.inboxes.speaker(peer).post(ShardCommand::Probe { peer, echo, bytes });
                }
            }
        }
    }

    /// What the shards hold packets against. The interface sees to its own MTU: only what is known to
    /// be less is theirs to enforce.
    fn tell_shards(&self, peer: PeerId) {
        let Some(path) = self.tables.peer(peer) else { return };
        let known = self.path_mtus.peers.get(&peer).map(|known| &known.mtu);
        let found = known.filter(|mtu| matches!(mtu.source(), Source::Measured | Source::Told));
        let limit = found.map(|mtu| u32::from(mtu.limit())).filter(|&mtu| mtu < self.tables.mtu());
        path.mtu.set(limit.unwrap_or(u32::MAX), known.is_none_or(PathMtu::asks));
    }

    /// Gives the interface the MTU of the widest path, where that is ours to do. Narrower ones are
    /// enforced packet by packet.
    fn follow_with_interface(&mut self) {
        let start = self.path_mtus.start;
        let widest = self.device.peers().map(|(peer, _)| {
            let known = self.path_mtus.peers.get(&peer);
            known.map_or(start, |known| known.mtu.limit().into())
        });
        let Some(widest) = widest.max() else { return };
        let wanted = match self.path_mtus.policy {
            MtuPolicy::Fixed => return,
            MtuPolicy::Auto => widest.min(start),
            MtuPolicy::Probe => widest,
        };
        // Below it the kernel takes IPv6 off the interface.
        let wanted = wanted.max(IPV6_MINIMUM_MTU.min(start));
        if wanted == self.tables.mtu() {
            return;
        }
        match self.set_link_mtu(wanted) {
            Ok(()) => {
                info!(mtu = wanted, "the interface follows its paths");
                self.path_mtus.own = Some(wanted);
                self.tables.set_mtu(wanted);
                // What the interface saw to may be up to the shards now, and the other way round.
                self.path_mtus.peers.keys().for_each(|peer| self.tell_shards(*peer));
            }
            Err(error) => warn!(%error, "the interface keeps its MTU"),
        }
    }

    fn set_link_mtu(&self, mtu: u32) -> Result<(), NetlinkError> {
        if self.settings.is_rootless {
            return Ok(());
        }
        let mut netlink = Netlink::new();
        netlink.link(&self.interface)?.map_or(Ok(()), |link| netlink.set_mtu(&link, mtu))
    }

    /// Whom to ask behind `peer`, each with our address: `responder` alone if there is one.
    fn targets(&self, peer: PeerId, responder: Option<IpAddr>) -> Vec<(IpAddr, IpAddr)> {
        let mut netlink = Netlink::new();
        let own = match self.carrying.addresses() {
            Some(addresses) => Ok(addresses.to_vec()),
            None => netlink
                .link(&self.interface)
                .and_then(|link| link.map_or(Ok(Vec::new()), |link| netlink.addresses(&link))),
        };
        let own = own.unwrap_or_else(|error| {
            debug!(%error, "no address to ask from");
            Vec::new()
        });
        let allowed: Vec<IpNet> = self.device.allowed_ips().iter_of(peer).collect();
        candidates(&own, &allowed, responder)
            .filter(|(_, theirs)| self.tables.route(*theirs) == Some(peer))
            .take(MOST_TARGETS)
            .collect()
    }

    /// What is known, for people.
    pub(super) fn path_statuses(&self) -> Vec<PathStatus> {
        let status = |(peer, state): (PeerId, &crate::proto::peer::Peer)| {
            let known = self.path_mtus.peers.get(&peer).map(|known| &known.mtu);
            let source = match known {
                Some(mtu) if mtu.is_searching() => PathSource::Searching,
                Some(mtu) => match mtu.source() {
                    Source::Assumed => PathSource::Assumed,
                    Source::Unanswered => PathSource::Unanswered,
                    Source::Told => PathSource::Told,
                    Source::Measured => PathSource::Measured,
                },
                None => PathSource::Assumed,
            };
            let mtu = known.map_or(self.path_mtus.start, |mtu| mtu.limit().into());
            PathStatus { public_key: *state.public_key(), mtu, source }
        };
        self.device.peers().map(status).collect()
    }
}

/// Whom to ask, each with an address of ours of the same family: who has answered; then addresses
/// that stand alone in `allowed`; then the first of our network and of each allowed one.
fn candidates(
    own: &[IpNet],
    allowed: &[IpNet],
    responder: Option<IpAddr>,
) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let is_host = |net: &&IpNet| net.prefix_len() == net.max_prefix_len();
    let hosts = allowed.iter().filter(is_host).map(IpNet::addr);
    let is_net = |net: &&IpNet| !is_host(net) && net.prefix_len() != 0;
    let firsts = own.iter().chain(allowed).filter(is_net).filter_map(|net| net.hosts().next());
    let theirs: Vec<IpAddr> = responder.into_iter().chain(hosts).chain(firsts).collect();
    let own = own.to_vec();
    theirs.into_iter().filter_map(move |theirs| {
        let ours = own.iter().map(IpNet::addr).find(|ours| ours.is_ipv4() == theirs.is_ipv4())?;
        let is_ours = own.iter().any(|net| net.addr() == theirs);
        (!is_ours).then_some((ours, theirs))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::command::{PeerUpdate, SetRequest};
    use crate::control::settings::Settings;
    use crate::crypto::key::PublicKey;
    use crate::sys::tun::TunOffloads;

    fn asked(own: &[&str], allowed: &[&str], responder: Option<&str>) -> Vec<String> {
        let nets = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let responder = responder.map(|text| text.parse().unwrap());
        candidates(&nets(own), &nets(allowed), responder)
            .map(|(ours, theirs)| format!("{ours} asks {theirs}"))
            .collect()
    }

    /// An interface may have this MTU before anybody tells of its link: then nobody ever does.
    #[test]
    fn an_mtu_that_the_interface_has_from_the_beginning_is_known() {
        let (offloads, settings) = (TunOffloads::ALL, Settings::default());
        let mut engine = Engine::new("hwgtest1".to_owned(), offloads, 1, settings).unwrap();
        let key = PublicKey::from_bytes([7; 32]);
        let peers = vec![PeerUpdate::new(key)];
        engine.set(SetRequest { peers, ..SetRequest::default() }).unwrap();
        assert_eq!(engine.path_statuses()[0].mtu, engine.tables.mtu());
        assert_eq!(u32::from(engine.path_mtus.ceiling()), engine.tables.mtu());
    }

    #[test]
    fn a_peer_with_an_address_is_asked_there_and_a_hub_at_the_first_of_the_network() {
        assert_eq!(
            asked(&["10.10.0.1/24"], &["10.10.0.2/32"], None),
            ["10.10.0.1 asks 10.10.0.2"],
            "our own address is not asked"
        );
        assert_eq!(
            asked(&["10.10.0.2/24", "fd00::2/64"], &["0.0.0.0/0", "::/0"], None),
            ["10.10.0.2 asks 10.10.0.1", "fd00::2 asks fd00::"]
        );
        assert_eq!(
            asked(&["10.10.0.2/32"], &["10.20.0.0/16"], Some("10.20.3.4")),
            ["10.10.0.2 asks 10.20.3.4", "10.10.0.2 asks 10.20.0.1"]
        );
        assert_eq!(asked(&[], &["10.10.0.2/32"], None), [""; 0], "there is nobody to answer to");
        assert_eq!(asked(&["10.10.0.1/24"], &["fd00::2/128"], None), [""; 0]);
    }
}
