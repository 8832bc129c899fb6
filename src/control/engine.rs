//! The one thread that decides: it owns the protocol state, its deadlines and the configuration,
//! and tells the shards what to send.
//!
//! A tokio current-thread runtime waits for whichever comes first: something in the lane, a
//! deadline, a configuration request, a change of the host, a signal. Every change of the device
//! goes through [`Engine::set`]. Must not touch a data packet.
//!
//! - `events`: what is waited for.
//! - `flows`: what of peers is carried on.
//! - `health`: how the device is.
//! - `lookups`: names of endpoints.
//! - `path_mtu`: how large packets to each peer may be.
//! - `proxies`: what is listened for.
//! - `surroundings`: what follows from a change of the host.
//! - `telling`: what the log has of events.
//! - `watchdog`: signs of life.

mod equipment;
mod events;
mod flows;
mod health;
mod lookups;
mod path_mtu;
mod proxies;
mod surroundings;
mod telling;
mod watchdog;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

pub use self::equipment::Inside;
use self::equipment::{bind, find_kernel, open_queues};
use self::events::{Events, Happening};
use self::flows::Carrying;
use self::health::Health;
use self::lookups::Lookups;
use self::path_mtu::PathMtus;
use self::surroundings::Surroundings;
use self::telling::{judge, log};
use self::watchdog::Watchdog;
use super::command::{DeviceSnapshot, PeerSnapshot, SetRequest};
use super::netlink::Netlink;
use super::proxy::Proxies;
use super::record;
use super::reloading::Reloading;
use super::settings::{Offloads, Settings, Status};
use super::uapi::server::Command;
use super::uapi::{Errno, Refusal};
use crate::dataplane::Stop;
use crate::dataplane::inbox::{Inboxes, ShardCommand};
use crate::dataplane::lane::{Incoming, Lane, Signal};
use crate::dataplane::port::IpPort;
use crate::dataplane::shard::{Shard, ShardThread};
use crate::dataplane::tables::{Notice, Tables};
use crate::dataplane::tun_port::TunPort;
use crate::dataplane::udp_port::UdpPort;
use crate::proto::device::{Change, Device, Load, Output, Outputs};
use crate::sys::SysError;
use crate::sys::clock;
use crate::sys::entropy::OsEntropy;
use crate::sys::inotify::DeletionWatch;
use crate::sys::tun::{Tun, TunOffloads};
use crate::sys::udp::{self, UdpSockets};
use crate::time::{Now, TokenBucket};

/// Handshake messages dealt with before deadlines and requests are looked at again.
const HANDSHAKES_A_TURN: usize = 32;

/// Signals dealt with before handshake messages are.
const SIGNALS_A_TURN: usize = 256;

/// Look-ups of names and writes to disk that may go on at once; the others wait.
const BLOCKING_THREADS: usize = 16;

/// Lines about refused handshake messages: so many at once, and then one each interval.
const LOG_BURST: u32 = 10;
const LOG_INTERVAL: Duration = Duration::from_millis(100);

/// Why a device could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("cannot open the UDP sockets")]
    Sockets(#[source] SysError),
    #[error("cannot watch the host")]
    Watch(#[source] SysError),
    #[error("cannot start the event loop or a thread")]
    Start(#[source] std::io::Error),
    #[error("the data plane ended: {0:?}")]
    DataPlane(Stop),
}

/// The protocol state of one device and everything that acts on it.
#[derive(Debug)]
struct Engine {
    device: Device,
    outputs: Outputs,
    tables: Arc<Tables>,
    lane: Arc<Lane>,
    inboxes: Inboxes,
    /// A pair for each shard, all on one port.
    sockets: Vec<Arc<UdpSockets>>,
    port: u16,
    port_is_random: bool,
    fwmark: u32,
    interface: String,
    settings: Settings,
    /// Those that the kernel has agreed to.
    tun_offloads: TunOffloads,
    surroundings: Surroundings,
    lookups: Lookups,
    path_mtus: PathMtus,
    carrying: Carrying,
    proxies: Proxies,
    health: Health,
    watchdog: Option<Watchdog>,
    /// For lines that anybody can provoke.
    log: TokenBucket,
}

/// When the engine takes its next turn.
enum Next {
    /// When something happens.
    Wait,
    /// At once, but after requests and signals had their chance.
    Again,
    /// When the shard has caught up with what it was given.
    AfterShard,
    /// Never.
    Stopped(Stop),
}

/// What a device is started with beside its TUN.
#[derive(Debug)]
pub struct Given {
    pub listener: UnixListener,
    /// A pipe: the device ends when the other end is closed before a byte has come.
    pub leash: Option<OwnedFd>,
    /// Stays open as long as the device lives.
    pub kept: Option<OwnedFd>,
}

/// Runs the device on `inside` until a signal, or until its TUN, `socket` or leash goes.
///
/// # Errors
/// Nothing could be started, or the data plane failed.
pub fn run(
    inside: Inside,
    given: Given,
    socket: &Path,
    settings: Settings,
) -> Result<(), EngineError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(EngineError::Start)?;
    let outcome = runtime.block_on(serve(inside, given, socket, settings));
    // Nobody waits for a slow disk or name server.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    inside: Inside,
    given: Given,
    socket: &Path,
    settings: Settings,
) -> Result<(), EngineError> {
    let deletion = DeletionWatch::new(socket).map_err(EngineError::Watch)?;
    let outcome = serve_until_stopped(inside, given, &deletion, settings).await;
    // While the runtime still listens: nobody can take the socket for abandoned and put his own in
    // its place before ours is gone.
    if deletion.is_still_there().unwrap_or(false) {
        drop(std::fs::remove_file(socket));
    }
    outcome
}

async fn serve_until_stopped(
    inside: Inside,
    given: Given,
    deletion: &DeletionWatch,
    settings: Settings,
) -> Result<(), EngineError> {
    let Given { listener, leash, kept } = given;
    let is_on_leash = leash.is_some();
    // Watched first, so that a change while we start is not missed.
    let mut events = Events::new(deletion, leash, inside.tun().is_some())?;
    let control = inside.tun().map(Tun::try_clone).transpose().map_err(EngineError::Watch)?;
    let (mut engine, threads) = Engine::start(inside, settings)?;
    events.listen_to(&engine.lane);
    engine.health.begin(events.commands(), is_on_leash);
    engine.follow_link(control.as_ref());
    events.serve(listener, kept)?;
    engine.announce();

    let mut reloading = Reloading::default();
    let outcome = loop {
        let next = match engine.turn() {
            Next::Stopped(stop) => break stop,
            next => next,
        };
        match events.next(&next, engine.next_deadline(), &mut engine.lookups).await {
            Happening::LaneFilled | Happening::Deadline | Happening::Nothing => {}
            Happening::Request(command) => engine.obey(command),
            Happening::LinkChanged => engine.follow_link(control.as_ref()),
            Happening::Resolved(answer) => engine.take_answer(answer),
            Happening::NetworkChanged => {
                engine.surroundings.paths.stir(clock::now().mono);
                engine.follow_addresses();
            }
            Happening::ClockJumped => engine.follow_clocks(),
            Happening::Cloned => engine.start_over_as_copy(),
            Happening::SocketTouched => {
                if !deletion.is_still_there().unwrap_or(false) {
                    info!("the configuration socket was removed: ending");
                    break Stop::Shutdown;
                }
            }
            // A terminal that hangs up on `hybridwg -f` ends it: there is no file to read again.
            Happening::HungUp if reloading.want(&engine.interface) => info!("reloading"),
            Happening::HungUp => {
                info!("hung up: ending");
                break Stop::Shutdown;
            }
            Happening::Stopped(how) => {
                info!("{how}: ending");
                break Stop::Shutdown;
            }
        }
    };
    drop(threads);
    engine.settle();
    record::remove(&engine.interface);
    judge(outcome)
}

impl Engine {
    fn start(
        inside: Inside,
        mut settings: Settings,
    ) -> Result<(Self, Vec<ShardThread>), EngineError> {
        let wanted = settings.offloads;
        settings.offloads.udp = udp::self_test(wanted.udp);
        if settings.offloads != wanted {
            warn!(
                offloads = %settings.offloads,
                "a self-test found that the kernel cuts or joins datagrams wrongly: only these offloads are used"
            );
        }
        let kernel = if wanted.aead_batch { find_kernel() } else { None };
        settings.offloads.aead_batch = kernel.is_some();
        let interface = inside.name().to_owned();
        let offloads = inside.tun().map_or(TunOffloads::NONE, Tun::offloads);
        let (engine, ports) = match inside {
            Inside::Interface(tun) => {
                let queues = open_queues(tun, settings.shards.get());
                let mut engine = Self::new(interface, offloads, queues.len(), settings)?;
                engine.carrying = Carrying::of(&queues).map_err(EngineError::Watch)?;
                let port = |queue| Box::new(TunPort::new(queue)) as Box<dyn IpPort>;
                (engine, queues.into_iter().map(port).collect())
            }
            Inside::Nothing(_) => {
                let shards = settings.shards.get().get() as usize;
                let mut engine = Self::new(interface, offloads, shards, settings)?;
                let ports = engine.be_inside(shards).map_err(EngineError::Watch)?;
                (engine, ports)
            }
        };
        let shards = u32::try_from(ports.len()).ok().and_then(NonZeroU32::new);
        let ports = ports.into_iter().zip(&engine.sockets).zip(engine.inboxes.iter());
        let threads = ports.map(|((port, sockets), inbox)| {
            let shard = Shard::one_of(
                shards.unwrap_or(NonZeroU32::MIN),
                port,
                Box::new(UdpPort::new(Arc::clone(sockets))),
                Arc::clone(&engine.tables),
                Arc::clone(&engine.lane),
                Arc::clone(inbox),
            );
            let shard = shard.with_kernel(kernel).with_moderation(wanted.moderation);
            ShardThread::spawn(shard).map_err(EngineError::Start)
        });
        let threads = threads.collect::<Result<_, _>>()?;
        Ok((engine, threads))
    }

    /// An engine whose `shards` are still to be started.
    fn new(
        interface: String,
        tun_offloads: TunOffloads,
        shards: usize,
        settings: Settings,
    ) -> Result<Self, EngineError> {
        let sockets = bind(0, 0, settings, shards).map_err(EngineError::Sockets)?;
        let port = sockets[0].local_port();
        let tables = Arc::new(Tables::new());
        tables.set_listen_port(port);
        let mut engine = Self {
            device: Device::new(Box::new(OsEntropy)),
            outputs: Outputs::new(),
            path_mtus: PathMtus::new(tables.mtu()),
            tables,
            lane: Arc::new(Lane::new()),
            inboxes: Inboxes::new(shards),
            sockets,
            port,
            port_is_random: true,
            fwmark: 0,
            surroundings: Surroundings::new(&interface),
            lookups: Lookups::new(),
            carrying: Carrying::default(),
            proxies: Proxies::default(),
            health: Health::default(),
            watchdog: Watchdog::from_environment(),
            interface,
            settings,
            tun_offloads,
            log: TokenBucket::new(LOG_BURST, LOG_INTERVAL),
        };
        engine.raise_timestamp_floor(clock::now().wall);
        Ok(engine)
    }

    fn announce(&self) {
        info!(
            interface = self.interface,
            port = self.port,
            shards = self.inboxes.count(),
            offloads = %self.status().offloads,
            "device started"
        );
    }

    /// Deals with what the shards report and with what is due.
    fn turn(&mut self) -> Next {
        for _ in 0..SIGNALS_A_TURN {
            let Some(signal) = self.lane.next_signal() else { break };
            // Read after the signal was taken, so that what it reports lies in the past.
            let now = clock::now();
            match signal {
                Signal::WantSession(peer) => self.device.want_session(now, peer, &mut self.outputs),
                Signal::Confirmed(index) => {
                    self.device.handle_confirmed(now, index, &mut self.outputs);
                }
                Signal::Nudge(peer) => self.device.handle_nudge(now, peer, &mut self.outputs),
                Signal::Stopped(stop) => return Next::Stopped(stop),
                signal @ (Signal::SendsLarge(_)
                | Signal::Answered { .. }
                | Signal::Inside { .. }
                | Signal::Narrowed(_)) => self.hear_of_sizes(signal),
            }
            self.carry_out();
        }
        for _ in 0..HANDSHAKES_A_TURN {
            if self.inboxes.is_crowded() {
                return Next::AfterShard;
            }
            let now = clock::now();
            let load = self.lane.load(now.mono);
            let Some(incoming) = self.lane.next_handshake() else { break };
            self.shake_hands(now, load, &incoming);
        }
        let now = clock::now();
        if self.device.next_deadline().is_some_and(|deadline| deadline <= now.mono) {
            self.device.handle_timeout(now, &mut self.outputs);
            self.carry_out();
        }
        self.follow_sizes(now.mono);
        self.look_around(now);
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.turn(now.mono, &self.inboxes);
        }
        // The lane rings only when it stops being empty: what came meanwhile must not be left.
        if self.lane.is_empty() { Next::Wait } else { Next::Again }
    }

    fn shake_hands(&mut self, now: Now, load: Load, incoming: &Incoming) {
        let from = incoming.from;
        let outcome =
            self.device.handle_handshake(now, from, load, &incoming.datagram, &mut self.outputs);
        if let Err(reason) = outcome
            && self.log.take(now.mono)
        {
            debug!(from = %from.remote, reason = reason.name(), "handshake message dropped");
        }
        if let Err(reason) = outcome {
            self.tables.drops.count(reason);
        }
        self.carry_out();
    }

    /// Hands the outputs of the protocol core to the data plane, in order.
    fn carry_out(&mut self) {
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for output in self.outputs.drain() {
            match &output {
                Output::PeerAdded { peer, .. } => added.push(*peer),
                Output::PeerRemoved(peer) => removed.push(*peer),
                _ => {}
            }
            match self.tables.apply(output, &self.inboxes) {
                None => {}
                Some(Notice::RoutesChanged) => {
                    self.tables.set_routes(self.device.allowed_ips().routes());
                    self.carrying.look_again();
                }
                Some(Notice::Resolve { peer, position }) => {
                    if let Some(place) = self.device.place(peer, position) {
                        self.lookups.start(peer, place.clone());
                    }
                }
                Some(Notice::Event(event)) => log(&self.device, event),
            }
        }
        removed.into_iter().for_each(|peer| self.drop_sizes(peer));
        added.into_iter().for_each(|peer| self.ask_for_sizes(peer));
    }

    fn obey(&mut self, command: Command) {
        // A client that has hung up meanwhile does not want the answer.
        match command {
            Command::Get(answer) => {
                let _ = answer.send(self.get());
            }
            Command::Status(answer) => {
                let _ = answer.send(self.status());
            }
            Command::Health(question, answer) => {
                let _ = answer.send(self.examine(question));
            }
            Command::Names(answer) => {
                let _ = answer.send(self.names());
            }
            Command::Set(request, answer) => {
                let outcome = self.set(request);
                let _ = answer.send(outcome);
            }
        }
    }

    fn status(&self) -> Status {
        Status {
            offloads: Offloads {
                tun: self.tun_offloads,
                udp: self.sockets[0].offloads(),
                ..self.settings.offloads
            },
            port_is_random: self.port_is_random,
            flows: self.count_flows(),
            is_masquerading: self.carrying.carries(),
            is_rootless: self.settings.is_rootless,
            paths: self.path_statuses(),
            drops: self.tables.drops.iter().filter(|&(_, packets)| packets > 0).collect(),
        }
    }

    /// Carries out a change. What can fail comes first, so that a refused request changes nothing;
    /// only the limit of peers is met on the way. [UAPI]
    fn set(&mut self, request: SetRequest) -> Result<(), Refusal> {
        let now = clock::now();
        let mark = request.fwmark.unwrap_or(self.fwmark);
        match request.listen_port {
            Some(port) if port != self.port => self.rebind(port, mark)?,
            Some(_) | None if mark != self.fwmark => {
                let mut sockets = self.sockets.iter();
                let outcome = sockets.try_for_each(|sockets| sockets.set_mark(mark));
                outcome.map_err(|error| refused(&error))?;
                self.forget_sources();
            }
            Some(_) | None => {}
        }
        let mark_changes = mark != self.fwmark;
        self.fwmark = mark;
        if let Some(health) = request.health {
            self.tell_health(health).map_err(|error| refused(&error))?;
        }
        if let Some(inside) = request.inside {
            self.furnish(inside)?;
        }
        if let Some(is_draining) = request.drain {
            self.drain(is_draining);
        }
        if let Some(flows) = request.flows {
            self.carry(flows)?;
        } else if mark_changes {
            self.follow_addresses();
        }
        if let Some(serve) = request.serve {
            self.serve(serve)?;
        }
        if let Some(setting) = request.clamp_mss {
            self.tables.set_clamp_mss(setting);
        }
        if let Some(policy) = request.mtu_policy.filter(|policy| *policy != self.path_mtus.policy) {
            self.path_mtus.policy = policy;
            self.restart_sizes(self.tables.mtu());
        }
        self.port_is_random = request.listen_port.map_or(self.port_is_random, |port| port == 0);
        let mut changes = Vec::with_capacity(request.peers.len() + 2);
        changes.extend(request.private_key.map(Change::PrivateKey));
        if request.replace_peers {
            let named = request.peers.iter().filter(|peer| !peer.remove);
            changes
                .push(Change::KeepOnly(named.map(|peer| peer.public_key).collect::<BTreeSet<_>>()));
        }
        changes.extend(request.peers.into_iter().map(Change::Peer));
        for change in changes {
            let outcome = self.device.configure(now, change, &mut self.outputs);
            self.carry_out();
            outcome.map_err(|error| {
                warn!(%error, "configuration refused");
                Errno::INVALID
            })?;
        }
        if request.measure_paths {
            self.look_for_sizes();
        }
        // New endpoints, or a new mark: how they are reached is to be known before that changes.
        self.surroundings.paths.stir(now.mono);
        Ok(())
    }

    /// Opens the sockets anew; sessions stay. [P-84]
    fn rebind(&mut self, port: u16, mark: u32) -> Result<(), Errno> {
        let sockets = bind(port, mark, self.settings, self.inboxes.count())
            .map_err(|error| refused(&error))?;
        self.port = sockets[0].local_port();
        self.sockets = sockets;
        self.tables.set_listen_port(self.port);
        for (inbox, sockets) in self.inboxes.iter().zip(&self.sockets) {
            let port = UdpPort::new(Arc::clone(sockets));
            inbox.post(ShardCommand::Rebind(Box::new(port)));
        }
        self.forget_sources();
        Ok(())
    }

    /// The addresses that peers were reached from may not be the right ones any more. [P-81]
    fn forget_sources(&self) {
        for (peer, _) in self.device.peers() {
            if let Some(path) = self.tables.peer(peer) {
                path.clear_source();
            }
        }
    }

    fn get(&self) -> DeviceSnapshot {
        let peers = self.device.peers().map(|(id, peer)| {
            let path = self.tables.peer(id);
            PeerSnapshot {
                public_key: *peer.public_key(),
                preshared_key: peer.preshared_key().clone(),
                endpoint: path.as_ref().and_then(|path| path.endpoint()).map(|end| end.remote),
                last_handshake: peer.last_handshake(),
                rx_bytes: path.as_ref().map_or(0, |path| path.rx_bytes()),
                tx_bytes: path.as_ref().map_or(0, |path| path.tx_bytes()),
                persistent_keepalive: peer.persistent_keepalive(),
                allowed_ips: self.device.allowed_ips().iter_of(id).collect(),
            }
        });
        DeviceSnapshot {
            private_key: self.device.private_key().cloned(),
            listen_port: self.port,
            fwmark: self.fwmark,
            peers: peers.collect(),
        }
    }

    /// Takes over the interface's MTU. Its end is noticed by the shard.
    fn follow_link(&mut self, tun: Option<&Tun>) {
        let Some(tun) = tun else { return };
        let link = tun.current_name().ok().and_then(|name| {
            let link = Netlink::new().link(&name);
            link.inspect_err(|error| warn!(%error, "cannot read the interface's MTU")).ok()?
        });
        if let Some(link) = link
            && link.mtu != self.tables.mtu()
        {
            debug!(mtu = link.mtu, "MTU");
            self.tables.set_mtu(link.mtu);
            self.restart_sizes(link.mtu);
        }
    }
}

fn refused(error: &SysError) -> Errno {
    warn!(%error, "configuration refused");
    Errno::from_io(&error.source)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::proto::device::SmallDatagram;
    use crate::proto::endpoint::Endpoint;
    use crate::proto::peer::PeerId;
    use crate::sys::poll::{Interest, Poller, Waker};

    /// Handshakes and signals of three shards arrive at every moment of a turn. An engine that goes to sleep with
    /// one of them left behind is never woken again.
    #[test]
    fn nothing_is_left_in_the_lane_when_the_engine_waits() {
        const ROUNDS: u32 = 10_000;
        let (offloads, settings) = (TunOffloads::ALL, Settings::default());
        let mut engine = Engine::new("hwgtest0".to_owned(), offloads, 1, settings).unwrap();
        let waker = Arc::new(Waker::new().unwrap());
        let ring = Arc::clone(&waker);
        engine.lane.set_waker(move || ring.wake());
        let mut poller = Poller::new().unwrap();
        poller.add(waker.as_fd(), 0, Interest::Readable).unwrap();
        let lane = Arc::clone(&engine.lane);
        let talk = |lane: &Lane| {
            let from = Endpoint::new("192.0.2.1:51820".parse().unwrap());
            for round in 0..ROUNDS {
                let incoming = Incoming { from, datagram: SmallDatagram::from(&[1; 148]) };
                // A full lane is part of the game.
                let _ = lane.push_handshake(incoming);
                lane.signal(Signal::Nudge(PeerId(round)));
            }
        };
        let shards = std::thread::spawn(move || {
            std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(|| talk(&lane)))));
            lane.signal(Signal::Stopped(Stop::Shutdown));
        });
        loop {
            match engine.turn() {
                Next::Again | Next::AfterShard => {}
                Next::Stopped(_) => break,
                Next::Wait => {
                    let woken = poller.wait(Some(Duration::from_secs(10))).unwrap().count();
                    assert_eq!(woken, 1, "deaf, with {} handshakes left", engine.lane.depth());
                    waker.drain();
                }
            }
        }
        shards.join().unwrap();
    }
}
