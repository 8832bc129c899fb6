//! One shard: an IP port, a datagram port, and both directions between them, run to completion.
//!
//! A device has one or several, each with ports of its own. They know nothing of each other: what they
//! share is the tables and the lane. A flow that always comes by the same ports keeps its order.
//!
//! A turn does what the engine asked for, then at most one batch inbound and one outbound, of what
//! is ready. The thread loop repeats turns while there is work, searches for a moment after the last
//! of it or lets packets gather, and then blocks: the search halves round-trip times under traffic, and
//! an idle shard uses no processor.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::crypto::batch::Kernel;
use crate::dataplane::Stop;
use crate::dataplane::inbound::Inbound;
use crate::dataplane::inbox::{Inbox, ShardCommand};
use crate::dataplane::lane::{Lane, Signal};
use crate::dataplane::moderation::{self, Moderation};
use crate::dataplane::outbound::Outbound;
use crate::dataplane::port::{DatagramPort, IpPort, Ready};
use crate::dataplane::preemption::Preemption;
use crate::dataplane::spin::Spin;
use crate::dataplane::tables::Tables;
use crate::dataplane::turn::{Context, Direction, Work};
use crate::proto::drop_reason::DropReason;
use crate::sys::SysError;
use crate::sys::clock;
use crate::sys::poll::{self, Interest, Poller, Waker};
use crate::time::Now;

/// What the poller calls the waker, the IP port, and the first descriptor of the
/// datagram port.
const WAKER: u64 = 0;
const IP: u64 = 1;
const UDP: u64 = 2;

/// What came of a turn.
#[derive(Debug)]
pub enum Turn {
    /// There was nothing to do.
    Idle,
    /// There was, and there may be more.
    Worked(Work),
    Stopped(Stop),
}

/// One shard. Whoever holds it drives it, by turns or by its thread loop.
pub struct Shard {
    ip: Box<dyn IpPort>,
    udp: Box<dyn DatagramPort>,
    tables: Arc<Tables>,
    lane: Arc<Lane>,
    inbox: Arc<Inbox>,
    commands: VecDeque<ShardCommand>,
    inbound: Inbound,
    outbound: Outbound,
    kernel: Option<Kernel>,
    /// Packets may wait for others, and this shard for its turn.
    moderates: bool,
    moderation: Moderation,
    /// Counts the replacements of ports, whose descriptors must be watched anew.
    rebinds: u64,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

impl Shard {
    /// The only shard of a device.
    pub fn new(
        ip: Box<dyn IpPort>,
        udp: Box<dyn DatagramPort>,
        tables: Arc<Tables>,
        lane: Arc<Lane>,
        inbox: Arc<Inbox>,
    ) -> Self {
        Self::one_of(NonZeroU32::MIN, ip, udp, tables, lane, inbox)
    }

    /// One of so many `shards` of a device, each of which has its share of the device's limits.
    pub fn one_of(
        shards: NonZeroU32,
        ip: Box<dyn IpPort>,
        udp: Box<dyn DatagramPort>,
        tables: Arc<Tables>,
        lane: Arc<Lane>,
        inbox: Arc<Inbox>,
    ) -> Self {
        Self {
            ip,
            udp,
            tables,
            lane,
            inbox,
            commands: VecDeque::new(),
            inbound: Inbound::new(shards),
            outbound: Outbound::new(shards),
            kernel: None,
            moderates: true,
            // Of several shards, none knows what goes the other way.
            moderation: Moderation::new(shards == NonZeroU32::MIN),
            rebinds: 0,
        }
    }

    /// Seals and opens with `kernel` what comes together, if there is one.
    #[must_use]
    pub const fn with_kernel(mut self, kernel: Option<Kernel>) -> Self {
        self.kernel = kernel;
        self
    }

    /// Lets packets wait for others and for their turn, where that is worth it, or never.
    #[must_use]
    pub const fn with_moderation(mut self, moderates: bool) -> Self {
        self.moderates = moderates;
        if !moderates {
            self.moderation = Moderation::new(false);
        }
        self
    }

    /// Does what is to be done at `now` for what is `ready`: all commands, one batch inbound, one
    /// batch outbound.
    pub fn turn(&mut self, now: Now, ready: Ready) -> Turn {
        match self.try_turn(now, ready) {
            Ok(Some(work)) => Turn::Worked(work),
            Ok(None) => Turn::Idle,
            Err(stop) => Turn::Stopped(stop),
        }
    }

    fn try_turn(&mut self, now: Now, ready: Ready) -> Result<Option<Work>, Stop> {
        let (tables, lane) = (Arc::clone(&self.tables), Arc::clone(&self.lane));
        let context = Context { now, tables: &tables, lane: &lane, kernel: self.kernel };
        let commanded = ready.inbox && self.obey(&context)?;
        let (ip, udp) = (&mut *self.ip, &mut *self.udp);
        let mut work = Work::default();
        if ready.udp != [false; 2] {
            work.inbound = self.inbound.turn(&context, ip, udp, ready.udp)?;
        }
        let reads = ready.ip || work.inbound > 0 && ip.has_more();
        work.outbound = self.outbound.turn(&context, ip, udp, reads)?;
        if commanded || work.inbound > 0 {
            for narrowed in udp.take_narrowed() {
                tables.tell_narrowed(now.mono, narrowed, &lane);
            }
        }
        Ok((commanded || work.messages() > 0).then_some(work))
    }

    /// Does what the engine asked for; true if it asked for anything.
    fn obey(&mut self, context: &Context<'_>) -> Result<bool, Stop> {
        self.inbox.take(&mut self.commands);
        let any = !self.commands.is_empty();
        while let Some(command) = self.commands.pop_front() {
            let udp = &mut *self.udp;
            match command {
                ShardCommand::Transmit { to, datagram, traffic_class } => {
                    self.outbound.transmit(context, udp, to, &datagram, traffic_class)?;
                }
                ShardCommand::Flush(peer) => self.outbound.flush(context, udp, peer, true)?,
                ShardCommand::SendStaged(peer) => self.outbound.flush(context, udp, peer, false)?,
                ShardCommand::Keepalive(peer) => self.outbound.keepalive(context, udp, peer)?,
                ShardCommand::Probe { peer, mut echo, bytes } => {
                    self.outbound.probe(context, udp, peer, &mut echo, bytes)?;
                }
                ShardCommand::Purge(peer) => {
                    self.outbound.purge(context, peer, DropReason::StagedPurged);
                }
                ShardCommand::Forget(peer) => {
                    self.outbound.purge(context, peer, DropReason::PeerRemoved);
                }
                ShardCommand::Rebind(replacement) => {
                    self.outbound.send(context, udp)?;
                    self.udp = replacement;
                    self.rebinds += 1;
                }
                ShardCommand::Rewire(replacement) => {
                    self.ip = replacement;
                    self.rebinds += 1;
                }
                ShardCommand::Pulse(pulse) => drop(pulse),
                ShardCommand::Shutdown => {
                    self.outbound.send(context, udp)?;
                    return Err(Stop::Shutdown);
                }
            }
        }
        if any {
            self.outbound.send(context, &mut *self.udp)?;
        }
        Ok(any)
    }

    /// Takes turns until something ends the shard, and returns what did.
    pub fn run(mut self) -> Stop {
        let stop = self.try_run().unwrap_or_else(Stop::PollFailed);
        self.end();
        stop
    }

    /// Has those who are connected told of the end, as far as ports are left for it.
    fn end(&mut self) {
        let (tables, lane) = (Arc::clone(&self.tables), Arc::clone(&self.lane));
        let context =
            Context { now: clock::now(), tables: &tables, lane: &lane, kernel: self.kernel };
        let (ip, udp) = (&mut *self.ip, &mut *self.udp);
        ip.end();
        let mut reads = ip.has_more();
        while (reads || self.outbound.has_more())
            && matches!(self.outbound.turn(&context, ip, udp, reads), Ok(1..))
        {
            reads = ip.has_more();
        }
    }

    fn try_run(&mut self) -> Result<Stop, SysError> {
        let waker = Arc::new(Waker::new()?);
        let ringing = Arc::clone(&waker);
        self.inbox.set_waker(move || ringing.wake());
        let mut poller = self.watch(&waker)?;
        let mut rebinds = self.rebinds;
        clock::be_punctual();
        let mut spin = Spin::new();
        let mut preemption = Preemption::of_this_thread(self.moderates);
        let mut ready = Ready::ALL;
        let mut may_block = false;
        loop {
            let now = clock::now();
            match self.turn(now, ready) {
                Turn::Worked(work) => {
                    spin.found(now.mono);
                    self.moderation.found(now.mono, work, may_block);
                    preemption.look(now.mono);
                }
                Turn::Idle => {}
                Turn::Stopped(stop) => return Ok(stop),
            }
            if self.rebinds != rebinds {
                rebinds = self.rebinds;
                poller = self.watch(&waker)?;
            }
            let has_more = self.ip.has_more() || self.outbound.has_more();
            let gathering = self.moderation.take().filter(|_| !has_more);
            let gathers = gathering.is_some();
            may_block = !has_more && (gathers || !spin.goes_on(now.mono));
            let at_once = (gathers || !may_block).then_some(Duration::ZERO);
            ready = told(poller.wait(at_once)?);
            if let Some(direction) = gathering
                && ready == Ready::NONE
            {
                self.gather(direction, &waker)?;
                ready = told(poller.wait(None)?);
            }
            ready.ip |= self.ip.has_more();
            if ready.inbox {
                // Before the turn that empties the inbox, so that a command posted during it rings again.
                waker.drain();
            } else if !may_block && ready == Ready::NONE && (!has_more || preemption.may_yield()) {
                thread::yield_now();
            }
            ready.ip |= self.ip.fd().is_none();
        }
    }

    /// Lets packets of `direction` gather, until something else comes.
    fn gather(&self, direction: Direction, waker: &Waker) -> Result<(), SysError> {
        let others = match direction {
            Direction::Inbound => [self.ip.fd(), None],
            Direction::Outbound => self.udp.fds(),
        };
        poll::nap(waker, others, moderation::LIMIT)
    }

    /// A poller of everything that can make work.
    fn watch(&self, waker: &Waker) -> Result<Poller, SysError> {
        let poller = Poller::new()?;
        let [first, second] = self.udp.fds();
        let watched =
            [(WAKER, Some(waker.as_fd())), (IP, self.ip.fd()), (UDP, first), (UDP + 1, second)];
        for (token, fd) in watched {
            if let Some(fd) = fd {
                poller.add(fd, token, Interest::Readable)?;
            }
        }
        Ok(poller)
    }
}

/// What may have something, by what a poller with the tokens of [`Shard::watch`] reports. An error
/// counts: it is for the one who reads to find.
fn told(events: impl Iterator<Item = poll::Ready>) -> Ready {
    events.fold(Ready::NONE, |mut ready, event| {
        match event.token {
            WAKER => ready.inbox = true,
            IP => ready.ip = true,
            token => ready.udp[usize::from(token != UDP)] = true,
        }
        ready
    })
}

/// A shard on a thread of its own, which ends and is joined when this is dropped.
#[derive(Debug)]
pub struct ShardThread {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

impl ShardThread {
    /// Starts `shard`. When it ends, it tells the engine why by [`Signal::Stopped`].
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn spawn(shard: Shard) -> io::Result<Self> {
        let (inbox, lane) = (Arc::clone(&shard.inbox), Arc::clone(&shard.lane));
        let thread = thread::Builder::new().name("shard".into()).spawn(move || {
            let stop = shard.run();
            lane.signal(Signal::Stopped(stop));
        })?;
        Ok(Self { inbox, thread: Some(thread) })
    }
}

impl Drop for ShardThread {
    fn drop(&mut self) {
        self.inbox.post(ShardCommand::Shutdown);
        if let Some(thread) = self.thread.take() {
            // A panic of the shard has already stopped the process in a release, and was printed
            // by its own thread in a test.
            let _ = thread.join();
        }
    }
}
