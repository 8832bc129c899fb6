//! What the shards may know: routes, sessions, and how each peer is reached.
//!
//! The engine writes, by applying the outputs of the protocol core in their order; shards read,
//! and write back only what a datagram proves: where a peer is, and how much went each way.
//!
//! Locking: every lock here is held for a lookup or a copy, never across AEAD or a system call, and
//! never two at once. The established path takes one read lock a datagram to find its session, the
//! replay window of that session, and the endpoint of its peer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};

use crate::crypto::key::PublicKey;
use crate::dataplane::clamp_mss::{ClampMss, ClampMssCell};
use crate::dataplane::inbox::{Inboxes, ShardCommand};
use crate::dataplane::lane::{Lane, Signal};
use crate::dataplane::path_mtu::PathMtu;
use crate::proto::allowed_ips::Routes;
use crate::proto::constants::{DEFAULT_MTU, REKEY_TIMEOUT};
use crate::proto::device::{Destination, Event, Output};
use crate::proto::drop_reason::{DropReason, Drops};
use crate::proto::endpoint::{Endpoint, LocalSource};
use crate::proto::index::Index;
use crate::proto::keypair::{Opener, Sealer};
use crate::proto::peer::PeerId;
use crate::proto::replay::ReplayWindow;
use crate::proto::timers::Facts;
use crate::sys::udp::Narrowed;
use crate::time::{Instant, TokenBucket};
use crate::wire::icmp::{self, Echo};
use crate::wire::ip::IpHeader;

/// Locks that share the sessions, so that installing one seldom meets a lookup.
const SESSION_STRIPES: usize = 16;

/// What the network says of narrow paths is passed on so many times at once, and then one each
/// interval.
const NARROWED_BURST: u32 = 32;
const NARROWED_INTERVAL: Duration = Duration::from_millis(20);

/// One session, for the datagrams that name its index.
#[derive(Debug)]
pub struct Session {
    pub index: Index,
    pub opener: Opener,
    pub path: Arc<PeerPath>,
    sealer: Arc<Sealer>,
    replay: Mutex<ReplayWindow>,
    /// False while the session is the responder's `next`. [LNX noise.c:wg_noise_received_with_keypair]
    confirmed: AtomicBool,
    /// Whether this session has asked for its successor because it only receives.
    /// [LNX receive.c:keep_key_fresh]
    asked_for_successor: AtomicBool,
}

impl Session {
    pub fn replay(&self) -> MutexGuard<'_, ReplayWindow> {
        self.replay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a packet of this session was authenticated. The first one makes it current, if it
    /// is the responder's `next`, and is reported.
    ///
    /// At once, not when the engine has heard of it: the answer to this very packet is for a peer who
    /// may have restarted, and knows no other session. [LNX noise.c:wg_noise_received_with_keypair]
    pub fn confirm(&self, lane: &Lane) {
        if self.confirmed.load(Ordering::Relaxed) || self.confirmed.swap(true, Ordering::Relaxed) {
            return;
        }
        self.path.promote(&self.sealer);
        lane.signal(Signal::Confirmed(self.index));
    }

    /// Asks once for a new session if this is the current one and about to end. [WG §6.2]
    pub fn keep_fresh_on_receive(&self, now: Instant, lane: &Lane) {
        if self.opener.wants_rekey_on_receive(now)
            && self.path.sealer().as_ref().is_some_and(|current| Arc::ptr_eq(current, &self.sealer))
            && !self.asked_for_successor.swap(true, Ordering::Relaxed)
        {
            self.path.want_session(now, lane);
        }
    }
}

/// How one peer is reached, and what has gone to and fro.
#[derive(Debug)]
pub struct PeerPath {
    pub peer: PeerId,
    pub public_key: PublicKey,
    pub facts: Arc<Facts>,
    pub mtu: PathMtu,
    /// What to send with now.
    current: ArcSwapOption<Sealer>,
    /// What to send with once a packet under it was authenticated: the responder's `next`. Whoever
    /// changes `current` holds this lock, so that no session takes the place of a newer one.
    next: Mutex<Option<Arc<Sealer>>>,
    endpoint: Mutex<Option<Endpoint>>,
    /// Bytes of all datagrams sent and of all authenticated ones received, headers included, as
    /// the kernel counts them. Ordering: relaxed, statistics.
    tx_bytes: AtomicU64,
    rx_bytes: AtomicU64,
    /// Before this time, in nanoseconds of boot time, no session is asked for again.
    ask_again_after: AtomicU64,
}

impl PeerPath {
    fn new(peer: PeerId, public_key: PublicKey, facts: Arc<Facts>) -> Self {
        Self {
            peer,
            public_key,
            facts,
            mtu: PathMtu::default(),
            current: ArcSwapOption::empty(),
            next: Mutex::new(None),
            endpoint: Mutex::new(None),
            tx_bytes: AtomicU64::new(0),
            rx_bytes: AtomicU64::new(0),
            ask_again_after: AtomicU64::new(0),
        }
    }

    pub fn sealer(&self) -> Guard<Option<Arc<Sealer>>> {
        self.current.load()
    }

    /// The engine says what to send with, which leaves no session to be confirmed.
    fn make_current(&self, sealer: Option<Arc<Sealer>>) {
        let mut next = self.lock_next();
        *next = None;
        self.current.store(sealer);
    }

    /// Makes `sealer` current if it is `next`.
    fn promote(&self, sealer: &Arc<Sealer>) {
        let mut next = self.lock_next();
        if let Some(next) = next.take_if(|next| Arc::ptr_eq(next, sealer)) {
            self.current.store(Some(next));
        }
    }

    fn lock_next(&self) -> MutexGuard<'_, Option<Arc<Sealer>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn endpoint(&self) -> Option<Endpoint> {
        *self.lock_endpoint()
    }

    /// The peer was heard from `endpoint`, authenticated; the last writer wins. [WG §2.1]
    pub fn roam(&self, endpoint: Endpoint) {
        let mut known = self.lock_endpoint();
        if *known != Some(endpoint) {
            *known = Some(endpoint);
        }
    }

    /// Forgets which of our addresses the peer was reached from.
    pub fn clear_source(&self) {
        if let Some(endpoint) = &mut *self.lock_endpoint() {
            endpoint.local = None;
        }
    }

    /// Forgets `source` because it is no longer an address of ours, unless another has taken its
    /// place. [P-81]
    pub fn lose_source(&self, source: Option<LocalSource>) {
        if let Some(endpoint) = &mut *self.lock_endpoint()
            && endpoint.local == source
        {
            endpoint.local = None;
        }
    }

    pub fn tx_bytes(&self) -> u64 {
        self.tx_bytes.load(Ordering::Relaxed)
    }

    pub fn rx_bytes(&self) -> u64 {
        self.rx_bytes.load(Ordering::Relaxed)
    }

    /// Counts datagrams to the peer, handshake messages included.
    pub fn count_sent(&self, bytes: usize) {
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts authenticated datagrams of the peer, handshake messages included.
    pub fn count_received(&self, bytes: usize) {
        self.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Asks the engine for a session, unless it was asked within [`REKEY_TIMEOUT`]. Costs one load
    /// when it has been asked.
    pub fn want_session(&self, now: Instant, lane: &Lane) {
        let due = self.ask_again_after.load(Ordering::Relaxed);
        let next = (now + REKEY_TIMEOUT).as_nanos();
        let order = Ordering::Relaxed;
        if now.as_nanos() >= due
            && self.ask_again_after.compare_exchange(due, next, order, order).is_ok()
        {
            lane.signal(Signal::WantSession(self.peer));
        }
    }

    /// The next packet without a session asks for one at once.
    fn ask_at_once(&self) {
        self.ask_again_after.store(0, Ordering::Relaxed);
    }

    /// Tells the engine of an answer to an echo of ours, which is for nobody else; and, while one is
    /// waited for, of somebody behind the peer who might answer. True if `packet` was an answer.
    #[cold]
    pub fn take_answer(&self, packet: &[u8], lane: &Lane) -> bool {
        let echo = icmp::echo_reply(packet).filter(|echo| self.mtu.is_ours(echo));
        if let Some(Echo { from, sequence, .. }) = echo {
            if self.mtu.take_answer(sequence) {
                lane.signal(Signal::Answered { peer: self.peer, sequence, from });
            }
        } else if self.mtu.take_inside()
            && let Some(header) = IpHeader::parse(packet)
        {
            lane.signal(Signal::Inside { peer: self.peer, address: header.source });
        }
        echo.is_some()
    }

    /// Tells the engine of a large packet, if it wants to hear of them, and yields
    /// what fits.
    pub fn look_at_large(&self, header: &IpHeader, has_session: bool, lane: &Lane) -> u32 {
        // Without one nothing could be found out.
        if has_session && self.mtu.take_question() {
            lane.signal(Signal::SendsLarge(self.peer));
        }
        self.mtu.limit(header.destination.is_ipv6())
    }

    /// Tells the engine if the facts have made something due before it will look.
    pub fn nudge(&self, lane: &Lane) {
        if self.facts.needs_nudge() {
            lane.signal(Signal::Nudge(self.peer));
        }
    }

    fn lock_endpoint(&self) -> MutexGuard<'_, Option<Endpoint>> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An output that is not for the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Answered by [`Tables::set_routes`].
    RoutesChanged,
    /// Answered by [`Device::handle_resolved`](crate::proto::device::Device::handle_resolved).
    Resolve {
        peer: PeerId,
        position: usize,
    },
    Event(Event),
}

type Stripe = RwLock<HashMap<Index, Arc<Session>>>;

/// The tables of one device, shared by its engine and all its shards.
#[derive(Debug)]
pub struct Tables {
    routes: ArcSwap<Routes<PeerId>>,
    sessions: [Stripe; SESSION_STRIPES],
    peers: RwLock<HashMap<PeerId, Arc<PeerPath>>>,
    mtu: AtomicU32,
    clamp_mss: ClampMssCell,
    /// The UDP port of our datagrams; 0 before there is one. Ordering: relaxed, as for the MTU: it
    /// is right from some batch on.
    listen_port: AtomicU16,
    /// So many times a shard may tell of narrow paths: anybody may say that one is.
    narrowed: Mutex<TokenBucket>,
    /// Packets that ended here, by reason.
    pub drops: Drops,
}

impl Default for Tables {
    fn default() -> Self {
        Self::new()
    }
}

impl Tables {
    pub fn new() -> Self {
        Self {
            routes: ArcSwap::from_pointee(Routes::new()),
            sessions: std::array::from_fn(|_| RwLock::default()),
            peers: RwLock::default(),
            mtu: AtomicU32::new(u32::from(DEFAULT_MTU)),
            clamp_mss: ClampMssCell::new(ClampMss::default()),
            listen_port: AtomicU16::new(0),
            narrowed: Mutex::new(TokenBucket::new(NARROWED_BURST, NARROWED_INTERVAL)),
            drops: Drops::new(),
        }
    }

    /// Does what `output` asks of the tables, or passes it on to the shards behind `inboxes`.
    ///
    /// Returns what is for the engine itself.
    pub fn apply(&self, output: Output, inboxes: &Inboxes) -> Option<Notice> {
        match output {
            Output::Install { peer, index, opener, sealer, confirmed } => {
                if let Some(path) = self.peer(peer) {
                    self.install(path, index, opener, sealer, confirmed);
                }
            }
            Output::Current { peer, sealer } => {
                if let Some(path) = self.peer(peer) {
                    path.make_current(sealer);
                    path.ask_at_once();
                }
            }
            Output::Retire(index) => {
                write(self.stripe(index)).remove(&index);
            }
            Output::PeerAdded { peer, public_key, facts } => {
                let path = Arc::new(PeerPath::new(peer, public_key, facts));
                write(&self.peers).insert(peer, path);
            }
            Output::PeerRemoved(peer) => {
                write(&self.peers).remove(&peer);
                inboxes.post_to_all(|| ShardCommand::Forget(peer));
            }
            Output::Heard { peer, from, bytes } => {
                if let Some(path) = self.peer(peer) {
                    path.roam(from);
                    path.count_received(bytes);
                }
            }
            Output::Roamed(peer, endpoint) => {
                if let Some(path) = self.peer(peer) {
                    path.roam(endpoint);
                }
            }
            Output::ClearSource(peer) => {
                if let Some(path) = self.peer(peer) {
                    path.clear_source();
                }
            }
            Output::Transmit { to, datagram, traffic_class } => {
                let inbox = match to {
                    Destination::Peer(peer) => inboxes.speaker(peer),
                    Destination::Address(_) => inboxes.first(),
                };
                if !inbox.post(ShardCommand::Transmit { to, datagram, traffic_class }) {
                    self.drops.count(DropReason::UdpSendFailed);
                }
            }
            Output::Keepalive(peer) => {
                if !inboxes.speaker(peer).post(ShardCommand::Keepalive(peer)) {
                    self.drops.count(DropReason::UdpSendFailed);
                }
            }
            Output::Flush(peer) => inboxes.flush(peer),
            Output::SendStaged(peer) => inboxes.post_to_all(|| ShardCommand::SendStaged(peer)),
            Output::PurgeStaged(peer) => {
                if let Some(path) = self.peer(peer) {
                    path.ask_at_once();
                }
                inboxes.post_to_all(|| ShardCommand::Purge(peer));
            }
            Output::Resolve { peer, position } => {
                return Some(Notice::Resolve { peer, position });
            }
            Output::RoutesChanged => return Some(Notice::RoutesChanged),
            Output::Event(event) => return Some(Notice::Event(event)),
        }
        None
    }

    fn install(
        &self,
        path: Arc<PeerPath>,
        index: Index,
        opener: Opener,
        sealer: Arc<Sealer>,
        confirmed: bool,
    ) {
        if !confirmed {
            *path.lock_next() = Some(Arc::clone(&sealer));
        }
        let session = Session {
            index,
            opener,
            path,
            sealer,
            replay: Mutex::new(ReplayWindow::new()),
            confirmed: AtomicBool::new(confirmed),
            asked_for_successor: AtomicBool::new(false),
        };
        write(self.stripe(index)).insert(index, Arc::new(session));
    }

    /// Lets shards route by `routes` from their next batch on.
    pub fn set_routes(&self, routes: Routes<PeerId>) {
        self.routes.store(Arc::new(routes));
    }

    /// Tells the engine that a datagram of ours does not fit, unless that is said too often.
    pub fn tell_narrowed(&self, now: Instant, narrowed: Narrowed, lane: &Lane) {
        let mut tokens = self.narrowed.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.take(now) {
            drop(tokens);
            lane.signal(Signal::Narrowed(narrowed));
        }
    }

    /// Sets the largest inner packet in bytes, up to which packets are padded. [WG §5.4.6]
    pub fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    pub fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Sets how far announced segment sizes are lowered.
    pub fn set_clamp_mss(&self, setting: ClampMss) {
        self.clamp_mss.set(setting);
    }

    pub fn clamp_mss(&self) -> ClampMss {
        self.clamp_mss.get()
    }

    /// Sets the UDP port that our datagrams come from.
    pub fn set_listen_port(&self, port: u16) {
        self.listen_port.store(port, Ordering::Relaxed);
    }

    pub fn listen_port(&self) -> u16 {
        self.listen_port.load(Ordering::Relaxed)
    }

    /// The routes of one batch.
    pub fn routes(&self) -> Guard<Arc<Routes<PeerId>>> {
        self.routes.load()
    }

    /// Whose `address` is, by the longest prefix.
    pub fn route(&self, address: IpAddr) -> Option<PeerId> {
        self.routes.load().lookup(address)
    }

    pub fn session(&self, index: Index) -> Option<Arc<Session>> {
        read(self.stripe(index)).get(&index).map(Arc::clone)
    }

    pub fn peer(&self, peer: PeerId) -> Option<Arc<PeerPath>> {
        read(&self.peers).get(&peer).map(Arc::clone)
    }

    pub fn count_peers(&self) -> usize {
        read(&self.peers).len()
    }

    const fn stripe(&self, index: Index) -> &Stripe {
        &self.sessions[index.0 as usize % SESSION_STRIPES]
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
