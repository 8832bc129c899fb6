//! Look-ups of names, on threads that may wait for a name server.

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tracing::{debug, info};

use super::Engine;
use crate::control::resolve;
use crate::proto::peer::PeerId;
use crate::proto::places::Place;
use crate::sys::clock;

/// What came of a look-up.
#[derive(Debug)]
pub(super) struct Answer {
    peer: PeerId,
    place: Place,
    /// Or why there are none.
    addresses: Result<Vec<SocketAddr>, String>,
}

/// The look-ups that are on their way. The core has at most one of each name.
#[derive(Debug)]
pub(super) struct Lookups {
    sender: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl Lookups {
    pub fn new() -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        Self { sender, answers }
    }

    pub fn start(&self, peer: PeerId, place: Place) {
        let sender = self.sender.clone();
        tokio::task::spawn_blocking(move || {
            let addresses = match &place {
                Place::Address(address) => Ok(vec![*address]),
                Place::Name { host, port } => resolve::addresses(host, *port),
            };
            // Nobody wants it any more if the engine has ended.
            drop(sender.send(Answer { peer, place, addresses }));
        });
    }

    pub async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

impl Engine {
    pub(super) fn take_answer(&mut self, answer: &Answer) {
        let Answer { peer, place, addresses } = answer;
        match addresses {
            Ok(addresses) => debug!(%place, ?addresses, "resolved"),
            Err(reason) => info!(%place, reason, "cannot resolve an endpoint: trying again later"),
        }
        let addresses = addresses.as_deref().unwrap_or_default();
        self.device.handle_resolved(clock::now(), *peer, place, addresses, &mut self.outputs);
        self.carry_out();
    }
}
