//! What the engine knows of its health, and the server that tells it over HTTP.

use std::os::fd::{AsFd, OwnedFd};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::info;

use super::Engine;
use crate::control::command;
use crate::control::health::{Findings, Question, complaint, http};
use crate::control::uapi::server::Command;
use crate::dataplane::inbox::{Inboxes, ShardCommand};
use crate::proto::peer::{Peer, PeerId};
use crate::sys::SysError;
use crate::sys::{clock, listen};

/// What the device is judged by.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// `None` until `up` has said it.
    settings: Option<command::Health>,
    /// Whoever has started the device has more to do, and says the settings when it is done.
    is_being_started: bool,
    /// It has been ready.
    has_started: bool,
    /// Of each shard, closed when it has looked: one question at a time, so that a shard that is
    /// stuck does not collect them.
    pulses: Vec<watch::Receiver<()>>,
    commands: Option<mpsc::Sender<Command>>,
    server: Option<Server>,
}

/// Ends when it is dropped.
#[derive(Debug)]
struct Server {
    task: JoinHandle<()>,
    /// The socket of the task.
    socket: OwnedFd,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Health {
    /// Questions come by `commands`.
    pub fn begin(&mut self, commands: mpsc::Sender<Command>, is_being_started: bool) {
        self.commands = Some(commands);
        self.is_being_started = is_being_started;
    }

    /// Asks each shard for a sign, unless it still owes one.
    fn feel_pulses(&mut self, inboxes: &Inboxes) -> Vec<watch::Receiver<()>> {
        self.pulses.resize_with(inboxes.count(), || watch::channel(()).1);
        for (pulse, inbox) in self.pulses.iter_mut().zip(inboxes.iter()) {
            let has_looked = pulse.has_changed().is_err();
            if has_looked {
                let (held, asked) = watch::channel(());
                *pulse = asked;
                inbox.post(ShardCommand::Pulse(Box::new(held)));
            }
        }
        self.pulses.clone()
    }
}

impl Engine {
    /// Answers what it knows at once, and has its threads show that they live.
    pub(super) fn examine(&mut self, question: Question) -> Findings {
        let reasons = match question {
            Question::Live => Vec::new(),
            Question::Started if self.health.has_started => Vec::new(),
            Question::Started | Question::Ready => self.unready(),
        };
        if question != Question::Live && reasons.is_empty() {
            self.health.has_started = true;
        }
        Findings { reasons, pulses: self.health.feel_pulses(&self.inboxes) }
    }

    /// Why the device is not ready. Asks for the sessions that there should be.
    fn unready(&mut self) -> Vec<String> {
        let now = clock::now();
        let mut reasons = Vec::new();
        if self.health.settings.is_none() && self.health.is_being_started {
            reasons.push("`hybridwg up` is not done yet".to_owned());
        }
        let mut wanting = Vec::new();
        for (id, peer) in self.device.peers().filter(|(_, peer)| self.is_required(peer)) {
            if !peer.has_usable_session(now.mono) {
                wanting.push(id);
            }
            reasons.extend(complaint(peer, now.mono));
        }
        reasons.extend(self.absent());
        self.ask_for_sessions(&wanting);
        reasons
    }

    fn ask_for_sessions(&mut self, peers: &[PeerId]) {
        for &peer in peers {
            self.device.want_session(clock::now(), peer, &mut self.outputs);
        }
        self.carry_out();
    }

    /// As the file says, or without one each peer that can be called.
    fn is_required(&self, peer: &Peer) -> bool {
        match &self.health.settings {
            Some(settings) => settings.required.contains(peer.public_key()),
            None => peer.has_endpoint(),
        }
    }

    /// Peers that are required and have been removed since.
    fn absent(&self) -> Vec<String> {
        let required = self.health.settings.iter().flat_map(|settings| &settings.required);
        let absent = required.filter(|key| self.device.peer_id(key).is_none());
        absent.map(|key| format!("{key}: is required, and was removed")).collect()
    }

    /// Judges by `health` from now on, and tells it there.
    ///
    /// # Errors
    /// The address cannot be listened on; everything is then as it was.
    pub(super) fn tell_health(&mut self, health: command::Health) -> Result<(), SysError> {
        let former = self.health.settings.as_ref().and_then(|settings| settings.listen);
        if health.listen != former {
            self.health.server = match (health.listen, &self.health.commands) {
                (Some(address), Some(commands)) => {
                    // With the mark of the tunnel's own packets: where everything goes into the tunnel,
                    // the answers to a probe go out as it came in.
                    let is_near = former.is_some_and(|former| former.port() == address.port());
                    let leaving = self.health.server.iter().filter(|_| is_near);
                    let leaving: Vec<_> = leaving.map(|server| server.socket.as_fd()).collect();
                    let listener = listen::tcp_marked(address, &leaving, self.fwmark)?;
                    let error = |source| SysError::new("register a listener", source);
                    let socket = listener.as_fd().try_clone_to_owned().map_err(error)?;
                    let listener = TcpListener::from_std(listener).map_err(error)?;
                    info!(%address, "health is told");
                    let task = tokio::spawn(http::serve(listener, commands.clone()));
                    Some(Server { task, socket })
                }
                (Some(_), None) | (None, _) => None,
            };
        }
        self.health.settings = Some(health);
        Ok(())
    }
}
