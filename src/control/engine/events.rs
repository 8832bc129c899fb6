//! What the engine waits for, all of it in one place.

use std::future::pending;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::lookups::{Answer, Lookups};
use super::{EngineError, Next};
use crate::control::uapi::server::{self, Command};
use crate::dataplane::lane::Lane;
use crate::sys::alarm::{Alarm, ClockWatch};
use crate::sys::inotify::DeletionWatch;
use crate::sys::netlink_watch::NetlinkWatch;
use crate::sys::poll::Waker;
use crate::sys::reactor::Readable;
use crate::sys::uevent::CloneWatch;
use crate::time::Instant;

/// How long a shard is given to empty its inbox.
const CATCH_UP: Duration = Duration::from_millis(1);

/// Requests that may wait; a client whose request does not fit waits with its connection.
const REQUESTS: usize = 16;

/// What can happen between two turns.
pub(super) enum Happening {
    LaneFilled,
    Deadline,
    Request(Command),
    /// A name was looked up.
    Resolved(Answer),
    LinkChanged,
    /// Addresses, routes or rules.
    NetworkChanged,
    /// The wall clock was set, or the machine was suspended.
    ClockJumped,
    /// The machine is a copy of another, or may be one.
    Cloned,
    /// Something else that nobody has to act upon.
    Nothing,
    SocketTouched,
    HungUp,
    Stopped(&'static str),
}

/// A source of events with a way to wait for it.
struct Source<T> {
    source: T,
    ready: Readable,
}

impl<T: AsFd> Source<T> {
    fn new(source: T) -> Result<Self, EngineError> {
        let ready = Readable::new(&source).map_err(EngineError::Start)?;
        Ok(Self { source, ready })
    }
}

/// Everything that is watched.
pub(super) struct Events {
    waker: Source<Arc<Waker>>,
    alarm: Source<Alarm>,
    /// `None` without an interface.
    links: Option<Source<NetlinkWatch>>,
    /// `None` also where a sandbox has no netlink, and there is no interface.
    network: Option<Source<NetlinkWatch>>,
    clocks: Source<ClockWatch>,
    /// Unless this host does not let us listen.
    clones: Option<Source<CloneWatch>>,
    deletion: Readable,
    requests: mpsc::Receiver<Command>,
    commands: mpsc::Sender<Command>,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    abandoned: Pin<Box<dyn Future<Output = ()>>>,
}

impl Events {
    /// Watches from now on: what happens before [`next`](Self::next) is called is not missed.
    ///
    /// # Errors
    /// Something cannot be watched.
    pub fn new(
        deletion: &DeletionWatch,
        leash: Option<OwnedFd>,
        has_interface: bool,
    ) -> Result<Self, EngineError> {
        let network = match NetlinkWatch::paths() {
            Err(error) if !has_interface => {
                info!(%error, "changes of this host's network will not be noticed");
                None
            }
            watch => Some(Source::new(watch.map_err(EngineError::Watch)?)?),
        };
        let links = has_interface.then(NetlinkWatch::links).transpose();
        let catch = |kind| signal(kind).map_err(EngineError::Start);
        let leash = leash.map(Receiver::from_owned_fd).transpose().map_err(EngineError::Start)?;
        let (commands, requests) = mpsc::channel(REQUESTS);
        Ok(Self {
            waker: Source::new(Arc::new(Waker::new().map_err(EngineError::Watch)?))?,
            alarm: Source::new(Alarm::new().map_err(EngineError::Watch)?)?,
            links: links.map_err(EngineError::Watch)?.map(Source::new).transpose()?,
            network,
            clocks: Source::new(ClockWatch::new().map_err(EngineError::Watch)?)?,
            clones: CloneWatch::new().ok().map(Source::new).transpose()?,
            deletion: Readable::new(deletion).map_err(EngineError::Start)?,
            requests,
            commands,
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: catch(SignalKind::hangup())?,
            abandoned: Box::pin(abandoned(leash)),
        })
    }

    /// Lets `lane` wake the engine.
    pub fn listen_to(&self, lane: &Lane) {
        let ring = Arc::clone(&self.waker.source);
        lane.set_waker(move || ring.wake());
    }

    /// Where requests are taken from, of clients that are served otherwise.
    pub fn commands(&self) -> mpsc::Sender<Command> {
        self.commands.clone()
    }

    /// Takes requests from the clients of `listener`, and lets them have `kept`.
    ///
    /// # Errors
    /// It cannot be registered with the runtime.
    pub fn serve(&self, listener: UnixListener, kept: Option<OwnedFd>) -> Result<(), EngineError> {
        server::serve(listener, self.commands.clone(), kept).map_err(EngineError::Start)
    }

    /// Waits for the next event, at most until `deadline`, or as `next` says.
    pub async fn next(
        &mut self,
        next: &Next,
        deadline: Option<Instant>,
        lookups: &mut Lookups,
    ) -> Happening {
        // While the shard catches up, nothing that is due would be done.
        let deadline = deadline.filter(|_| !matches!(next, Next::AfterShard));
        if let Err(error) = self.alarm.source.set(deadline) {
            // Never seen. What is due is then acted upon when something else happens.
            warn!(%error, "cannot set the alarm");
        }
        tokio::select! {
            () = next_turn(next) => Happening::LaneFilled,
            () = self.waker.ready.ready() => {
                self.waker.source.drain();
                Happening::LaneFilled
            }
            () = self.alarm.ready.ready() => {
                self.alarm.source.drain();
                Happening::Deadline
            }
            Some(command) = self.requests.recv() => Happening::Request(command),
            Some(answer) = lookups.next() => Happening::Resolved(answer),
            () = changed(self.links.as_ref()) => Happening::LinkChanged,
            () = changed(self.network.as_ref()) => Happening::NetworkChanged,
            () = self.clocks.ready.ready() => {
                self.clocks.source.drain();
                Happening::ClockJumped
            }
            is_clone = heard(self.clones.as_ref()) => {
                if is_clone { Happening::Cloned } else { Happening::Nothing }
            }
            () = self.deletion.ready() => Happening::SocketTouched,
            _ = self.interrupt.recv() => Happening::Stopped("interrupted"),
            _ = self.terminate.recv() => Happening::Stopped("terminated"),
            _ = self.hangup.recv() => Happening::HungUp,
            () = &mut self.abandoned => Happening::Stopped("whoever started this has ended half-way"),
        }
    }
}

/// Waits as `next` says. Even a turn at once is a round of the runtime later: without it, a lane
/// that never empties would keep clients and signals out.
async fn next_turn(next: &Next) {
    match next {
        Next::Again => tokio::task::yield_now().await,
        Next::AfterShard => tokio::time::sleep(CATCH_UP).await,
        Next::Wait | Next::Stopped(_) => pending().await,
    }
}

/// Waits for a change, if any is watched for.
async fn changed(watch: Option<&Source<NetlinkWatch>>) {
    let Some(watch) = watch else { return pending().await };
    watch.ready.ready().await;
    watch.source.drain();
}

/// Waits for events of the kernel, and tells whether the machine is a copy.
async fn heard(clones: Option<&Source<CloneWatch>>) -> bool {
    let Some(clones) = clones else { return pending().await };
    clones.ready.ready().await;
    clones.source.drain()
}

/// Waits until the other end of `leash` is closed without a word; for ever if there is a word, or
/// no leash.
async fn abandoned(leash: Option<Receiver>) {
    if let Some(mut leash) = leash
        && leash.read_u8().await.is_err()
    {
        return;
    }
    pending().await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn a_turn_at_once_leaves_a_round_to_clients_and_signals() {
        for next in [Next::Again, Next::Wait] {
            let mut turn = pin!(next_turn(&next));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(turn.as_mut().poll(&mut context).is_pending());
            let is_due = turn.as_mut().poll(&mut context).is_ready();
            assert_eq!(is_due, matches!(next, Next::Again));
        }
    }
}
