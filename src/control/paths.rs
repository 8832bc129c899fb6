//! Notices by which way each peer is reached, and when that has changed.
//!
//! The kernel tells that something about addresses, routes or rules is different now, and not what
//! it means to us. So the way to each peer is looked up again and compared with what it was. A burst
//! of changes, as of a routing daemon, is looked at once, and looking takes a bounded share of the
//! time however many peers there are. Must not change anything: the engine does. [P-81]

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::control::netlink::{Netlink, NetlinkError, Path};
use crate::proto::endpoint::{Endpoint, LocalSource};
use crate::proto::peer::PeerId;
use crate::time::Instant;

/// How long changes are gathered before they are looked at.
const GATHER: Duration = Duration::from_millis(100);

/// After a look that has taken a while, so many times that while passes before the next.
const REST: u32 = 20;

/// What a look has found for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Same,
    /// Packets leave by another way, or do again.
    Changed,
    /// No way leads to the peer any more.
    Lost,
}

/// The way to each peer as it was when it was last looked at.
#[derive(Debug, Default)]
pub struct Paths {
    known: HashMap<PeerId, Known>,
    due: Option<Instant>,
    not_before: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    remote: SocketAddr,
    path: Option<Way>,
}

/// What of a path makes it another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    interface: u32,
    gateway: Option<IpAddr>,
}

impl Paths {
    /// Something has changed that may concern peers.
    pub fn stir(&mut self, now: Instant) {
        self.due.get_or_insert_with(|| (now + GATHER).max(self.not_before));
    }

    /// When to look.
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Looks at the way to each of `peers` and yields those whose way is not what it was. `clock`
    /// tells the time before and after.
    ///
    /// # Errors
    /// The kernel does not tell; nothing is known to have changed then.
    pub fn look(
        &mut self,
        peers: &[(PeerId, Endpoint)],
        mark: u32,
        clock: impl Fn() -> Instant,
    ) -> Result<Vec<(PeerId, Finding)>, NetlinkError> {
        let started = clock();
        self.due = None;
        let found = self.compare(peers, &mut Netlink::new(), mark);
        let ended = clock();
        self.not_before = ended + ended.since(started) * REST;
        found
    }

    fn compare(
        &mut self,
        peers: &[(PeerId, Endpoint)],
        netlink: &mut Netlink,
        mark: u32,
    ) -> Result<Vec<(PeerId, Finding)>, NetlinkError> {
        let ours = netlink.local_addresses()?;
        let mut known = HashMap::with_capacity(peers.len());
        let mut findings = Vec::new();
        for &(peer, endpoint) in peers {
            let from = endpoint.local.map(|source| source.address);
            let from = from.filter(|address| ours.contains(address));
            let path = netlink.path(endpoint.remote.ip(), from, mark)?.map(Way::of);
            // What a remembered source no longer allows, another one may.
            let path = match (path, from) {
                (None, Some(_)) => netlink.path(endpoint.remote.ip(), None, mark)?.map(Way::of),
                _ => path,
            };
            let finding = judge(self.known.get(&peer), endpoint, &ours, path);
            if finding != Finding::Same {
                findings.push((peer, finding));
            }
            known.insert(peer, Known { remote: endpoint.remote, path });
        }
        self.known = known;
        Ok(findings)
    }
}

impl Way {
    fn of(path: Path) -> Self {
        Self { interface: path.interface, gateway: path.gateway }
    }
}

/// Compares with what was `known` of the way to a peer, who is at `endpoint`, what it is now.
///
/// A peer that was heard from tells by itself which way it was: the address and the interface that
/// its last packet came in by. [LNX socket.c:send4] Of others, and of a change of router, only an
/// earlier look can tell.
fn judge(
    known: Option<&Known>,
    endpoint: Endpoint,
    ours: &HashSet<IpAddr>,
    path: Option<Way>,
) -> Finding {
    let before = known.filter(|known| known.remote == endpoint.remote).map(|known| known.path);
    let Some(way) = path else {
        return if before == Some(None) { Finding::Same } else { Finding::Lost };
    };
    let source_holds = |source: LocalSource| {
        ours.contains(&source.address)
            && (source.interface == 0 || source.interface == way.interface)
    };
    let same = endpoint.local.is_none_or(source_holds) && before.is_none_or(|it| it == path);
    if same { Finding::Same } else { Finding::Changed }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "192.0.2.9:51820";
    const HERE: &str = "192.0.2.1";

    fn endpoint(source: Option<(&str, u32)>) -> Endpoint {
        let local = source.map(|(address, interface)| LocalSource {
            address: address.parse().unwrap(),
            interface,
        });
        Endpoint { remote: PEER.parse().unwrap(), local }
    }

    const VIA_2: Option<Way> = Some(Way { interface: 2, gateway: None });
    const VIA_3: Option<Way> = Some(Way { interface: 3, gateway: None });

    /// What a look finds that comes after one which has found `before`, or after none.
    fn judged(
        before: Option<Option<Way>>,
        source: Option<(&str, u32)>,
        path: Option<Way>,
    ) -> Finding {
        let ours = HashSet::from([HERE.parse().unwrap()]);
        let known = before.map(|path| Known { remote: PEER.parse().unwrap(), path });
        judge(known.as_ref(), endpoint(source), &ours, path)
    }

    #[test]
    fn a_source_that_is_gone_or_on_another_interface_means_another_path() {
        assert_eq!(judged(None, Some((HERE, 2)), VIA_2), Finding::Same);
        assert_eq!(judged(None, Some((HERE, 0)), VIA_2), Finding::Same, "interface unknown");
        assert_eq!(judged(None, Some((HERE, 2)), VIA_3), Finding::Changed);
        assert_eq!(judged(None, Some(("192.0.2.77", 2)), VIA_2), Finding::Changed);
    }

    #[test]
    fn without_a_source_the_last_look_decides_and_the_first_changes_nothing() {
        assert_eq!(judged(None, None, VIA_2), Finding::Same);
        assert_eq!(judged(Some(VIA_2), None, VIA_2), Finding::Same);
        assert_eq!(judged(Some(VIA_2), None, VIA_3), Finding::Changed);
        let elsewhere = Known { remote: "192.0.2.8:1".parse().unwrap(), path: VIA_2 };
        let found = judge(Some(&elsewhere), endpoint(None), &HashSet::new(), VIA_3);
        assert_eq!(found, Finding::Same, "the peer has moved");
    }

    #[test]
    fn another_router_is_another_path_though_the_source_holds() {
        let behind =
            |router: &str| Some(Way { interface: 2, gateway: Some(router.parse().unwrap()) });
        let (old, new) = (behind("192.0.2.254"), behind("192.0.2.253"));
        assert_eq!(judged(Some(old), Some((HERE, 2)), old), Finding::Same);
        assert_eq!(judged(Some(old), Some((HERE, 2)), new), Finding::Changed);
    }

    #[test]
    fn a_path_that_is_lost_is_told_once_and_its_return_is_a_change() {
        assert_eq!(judged(Some(VIA_2), None, None), Finding::Lost);
        assert_eq!(judged(None, Some((HERE, 2)), None), Finding::Lost);
        assert_eq!(judged(Some(None), None, None), Finding::Same);
        assert_eq!(judged(Some(None), None, VIA_2), Finding::Changed);
    }

    #[test]
    fn a_burst_of_changes_is_looked_at_once_and_a_long_look_is_followed_by_a_rest() {
        let mut paths = Paths::default();
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        assert_eq!(paths.due(), None);
        paths.stir(at(1000));
        paths.stir(at(1050));
        assert_eq!(paths.due(), Some(at(1100)));
        let times = std::cell::Cell::new([at(1100), at(1110)].into_iter());
        let clock = || {
            let mut left = times.take();
            let now = left.next().unwrap();
            times.set(left);
            now
        };
        assert!(paths.look(&[], 0, clock).unwrap().is_empty());
        assert_eq!(paths.due(), None);
        paths.stir(at(1111));
        assert_eq!(paths.due(), Some(at(1310)), "10 ms of work, 200 ms of rest");
    }
}
