//! What the engine of the device tells the flow engines of its shards, at any time.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use ipnet::IpNet;
use tokio::sync::mpsc;

use crate::flow::exposed::Exposed;
use crate::flow::gate::{Datagram, Request};
use crate::flow::inner::{Aim, Inner};
use crate::flow::limits::Limits;
use crate::flow::policy::{HostAddresses, Policy, Service};
use crate::flow::tuning::Tuning;
use crate::sys::SysError;
use crate::sys::poll::Waker;
use crate::wire::ip::IpHeader;

/// Packets that may wait for the shard that carries on, and their bytes: those of the largest batch that
/// one receives.
const HANDED_PACKETS: usize = 4096;
const HANDED_BYTES: usize = 8 << 20;

/// Requests of this host's own that may wait, and its UDP sockets inside the tunnel.
const REQUESTS: usize = 4096;
const CLAIMED_PORTS: usize = 4096;

/// What peers may, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub policy: Policy,
    /// Whose packets are carried on; empty: all that peers may send.
    pub sources: Vec<IpNet>,
    pub host: HostAddresses,
    /// The tunnel's own addresses with their networks: what goes there stays with the kernel, if it is
    /// not exposed.
    pub tunnel: Vec<IpNet>,
    /// Of all sockets, so that they do not lead into the tunnel; 0 for none.
    pub mark: u32,
    /// Whether what peers send to anybody else is carried on at all.
    pub carries: bool,
    /// What is behind ports of the tunnel's own addresses.
    pub exposed: Vec<Exposed>,
    /// Nobody gets a new flow: there is to be an end.
    pub is_draining: bool,
    pub tuning: Tuning,
}

impl Settings {
    /// Whether packets to `address` are the kernel's: for an address of the tunnel, for all on its
    /// network, or for a group on the link.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        let is_of_tunnel = self.tunnel.iter().any(|network| {
            let is_broadcast = match network {
                IpNet::V4(network) => network.prefix_len() < 31 && network.broadcast() == address,
                IpNet::V6(_) => false,
            };
            network.addr() == address || is_broadcast
        });
        is_of_tunnel
            || match address {
                IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
                IpAddr::V6(address) => address.is_multicast() || address.is_unicast_link_local(),
            }
    }

    /// Whether a `packet` of a peer's is for the kernel of a host that has the tunnel's addresses.
    /// `inner` is what can be read of it.
    pub(super) fn is_for_kernel(&self, packet: &[u8], inner: Option<&Inner<'_>>) -> bool {
        let Some(inner) = inner else {
            // On its way through this host it may go by others; at its end there is no reason to.
            let is_kept = !self.exposed.is_empty()
                && IpHeader::parse(packet).is_some_and(|it| self.is_local(it.destination));
            return !self.carries && !is_kept;
        };
        !self.is_kept(inner) && (!self.carries || self.is_ours(inner.destination))
    }

    /// Whether it is for a port that leads somewhere else, by whichever address of this host, or about
    /// what came from one.
    ///
    /// At addresses that are not the tunnel's, segments of TCP that open nothing are answers to programs
    /// of this host. Later fragments are let through: without the first nobody can join them.
    fn is_kept(&self, inner: &Inner<'_>) -> bool {
        if self.exposed.is_empty() {
            return false;
        }
        let is_exposed = |service| self.exposed.iter().any(|it| it.service == service);
        let to = inner.destination;
        match inner.aim() {
            Aim::Port(service) => {
                is_exposed(service) && (self.owns(to) || inner.may_open() && self.is_local(to))
            }
            Aim::About(from) => self.owns(from.ip()) && is_exposed(Service::Tcp(from.port())),
            Aim::Hidden => self.is_local(to),
            Aim::Other => false,
        }
    }

    /// Whether this host's kernel may take for itself what is sent to `address`; by a loopback address
    /// too, where `route_localnet` is set.
    fn is_local(&self, address: IpAddr) -> bool {
        self.is_ours(address) || self.host.hears(address) || address.is_loopback()
    }

    /// Whether the tunnel has this `address`.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.tunnel.iter().any(|network| network.addr() == address)
    }

    /// From which address of the tunnel `to` is spoken to: one of its network, or else the first.
    pub fn source_for(&self, to: IpAddr) -> Option<IpAddr> {
        let near = self.tunnel.iter().find(|network| network.contains(&to)).map(IpNet::addr);
        near.or_else(|| self.name(to))
    }

    /// In whose name packets from `address` are refused.
    pub fn name(&self, address: IpAddr) -> Option<IpAddr> {
        let networks = self.tunnel.iter().map(IpNet::addr);
        networks.into_iter().find(|own| own.is_ipv4() == address.is_ipv4())
    }

    /// Whether packets from `address` are carried on.
    pub fn takes(&self, address: IpAddr) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|network| network.contains(&address))
    }
}

/// The settings in force, and a bell for whoever has to follow them.
#[derive(Debug)]
pub struct Switch {
    /// `None`: nothing is carried on, as if there were no flow engine.
    settings: ArcSwapOption<Settings>,
    bell: Waker,
    /// Flows that there are now. Ordering: relaxed, statistics.
    flows: AtomicUsize,
    /// Those of them that are TCP. Ordering: as `flows`.
    connections: AtomicUsize,
    /// There may be no more of them. Ordering: as `flows`.
    is_full: AtomicBool,
    /// Packets that other shards have received.
    ///
    /// Locking: held for a push or a swap, and never together with another lock.
    handed: Mutex<Handed>,
    /// What this host asks for.
    ///
    /// Locking: as `handed`.
    requests: Mutex<VecDeque<Request>>,
    /// This host's own UDP sockets inside the tunnel, by port.
    ///
    /// Locking: as `handed`.
    claimed: Mutex<HashMap<u16, mpsc::Sender<Datagram>>>,
}

#[derive(Debug, Default)]
struct Handed {
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Switch {
    /// # Errors
    /// No descriptor is left.
    pub fn new(settings: Settings) -> Result<Self, SysError> {
        Ok(Self {
            settings: ArcSwapOption::from_pointee(settings),
            bell: Waker::new()?,
            flows: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            handed: Mutex::default(),
            requests: Mutex::default(),
            claimed: Mutex::default(),
        })
    }

    /// Puts `settings` in force. Flows that they do not allow end.
    pub fn set(&self, settings: Option<Settings>) {
        self.settings.store(settings.map(Arc::new));
        self.bell.wake();
    }

    /// Whether these settings are in force.
    pub fn is_set_to(&self, settings: &Settings) -> bool {
        self.settings.load().as_deref() == Some(settings)
    }

    /// Has the flows looked through: to whom addresses belong has changed.
    pub fn look_again(&self) {
        self.bell.wake();
    }

    /// How many flows there are now.
    pub fn flows(&self) -> usize {
        self.flows.load(Ordering::Relaxed)
    }

    /// How many of them are TCP.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether there may be no more of them.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Leaves a packet of a peer's to the shard that carries on; false if too many wait.
    pub(super) fn hand_over(&self, packet: &[u8]) -> bool {
        let mut handed = lock(&self.handed);
        if handed.packets.len() >= HANDED_PACKETS || handed.bytes >= HANDED_BYTES {
            return false;
        }
        let was_empty = handed.packets.is_empty();
        handed.bytes += packet.len();
        handed.packets.push_back(packet.to_vec());
        drop(handed);
        if was_empty {
            self.bell.wake();
        }
        true
    }

    /// Takes what was left by others.
    pub(super) fn take_handed(&self) -> VecDeque<Vec<u8>> {
        std::mem::take(&mut *lock(&self.handed)).packets
    }

    /// Asks for something; false if too much is asked for.
    pub(super) fn ask(&self, request: Request) -> bool {
        let mut requests = lock(&self.requests);
        let has_room = requests.len() < REQUESTS;
        if has_room {
            requests.push_back(request);
            self.bell.wake();
        }
        has_room
    }

    /// As [`Self::ask`], of a connection that there is: there are no more of these than connections.
    pub(super) fn tell(&self, request: Request) {
        lock(&self.requests).push_back(request);
        self.bell.wake();
    }

    /// Takes what is asked for.
    pub(super) fn take_requests(&self) -> VecDeque<Request> {
        std::mem::take(&mut *lock(&self.requests))
    }

    /// Gives `port` of UDP to whoever receives from `inbox`; false if it is another's.
    pub(super) fn claim(&self, port: u16, inbox: &mpsc::Sender<Datagram>) -> bool {
        let settings = self.settings();
        let mut exposed = settings.iter().flat_map(|settings| &settings.exposed);
        let is_exposed = exposed.any(|it| it.service == Service::Udp(port));
        let mut claimed = lock(&self.claimed);
        if is_exposed || claimed.len() >= CLAIMED_PORTS || claimed.contains_key(&port) {
            return false;
        }
        claimed.insert(port, inbox.clone());
        true
    }

    /// The inverse of [`Self::claim`].
    pub(super) fn release(&self, port: u16) {
        lock(&self.claimed).remove(&port);
    }

    /// Hands a datagram to who has claimed `port`: whether there was room for it, if somebody has.
    pub(super) fn deliver(&self, port: u16, content: &[u8], from: SocketAddr) -> Option<bool> {
        let claimed = lock(&self.claimed);
        let inbox = claimed.get(&port)?;
        Some(inbox.try_send((content.to_vec(), from)).is_ok())
    }

    pub(super) fn count_flows(&self, limits: &Limits) {
        self.flows.store(limits.flows(), Ordering::Relaxed);
        self.connections.store(limits.connections(), Ordering::Relaxed);
        self.is_full.store(limits.is_full(), Ordering::Relaxed);
    }

    pub(super) fn settings(&self) -> Option<Arc<Settings>> {
        self.settings.load_full()
    }

    pub(super) const fn bell(&self) -> &Waker {
        &self.bell
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_keeps_what_is_for_the_tunnel_itself_and_for_groups_on_the_link() {
        let tunnel = ["10.10.0.1/24", "fd10::1/64"].map(|network| network.parse().unwrap());
        let sources = vec!["10.10.0.0/25".parse().unwrap()];
        let settings = Settings { tunnel: tunnel.to_vec(), sources, ..Settings::default() };
        let is_ours = |text: &str| settings.is_ours(text.parse().unwrap());
        for ours in ["10.10.0.1", "10.10.0.255", "fd10::1", "224.0.0.251", "fe80::9", "ff02::1"] {
            assert!(is_ours(ours), "{ours}");
        }
        for others in ["10.10.0.2", "192.0.2.1", "169.254.169.254", "127.0.0.1", "fd10::2", "::1"] {
            assert!(!is_ours(others), "{others}");
        }
        let name = |text: &str| settings.name(text.parse().unwrap()).map(|own| own.to_string());
        assert_eq!(name("192.0.2.1").as_deref(), Some("10.10.0.1"));
        assert_eq!(name("fd00::7").as_deref(), Some("fd10::1"));
        let takes = |text: &str| settings.takes(text.parse().unwrap());
        assert!(takes("10.10.0.7") && !takes("10.10.0.200"));
    }

    #[test]
    fn packets_are_handed_over_in_order_and_within_a_bound() {
        let switch = Switch::new(Settings::default()).unwrap();
        let taken = (0..5000_u32).filter(|n| switch.hand_over(&n.to_be_bytes())).count();
        assert_eq!(taken, 4096);
        let handed = switch.take_handed();
        assert_eq!((handed.len(), &handed[1][..]), (4096, &[0, 0, 0, 1][..]));
        assert!(switch.take_handed().is_empty() && switch.hand_over(&[]));
    }
}
