//! Look-ups of names, on threads that may wait for a name server.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{debug, info};

use super::Engine;
use crate::control::resolve;
use crate::proto::peer::PeerId;
use crate::proto::places::Place;
use crate::sys::clock;

/// How often names of services are looked up: how long they are good for nobody tells us.
const NAMES_INTERVAL: Duration = Duration::from_secs(30);

/// The addresses of a name, or why there are none.
type Found = Result<Vec<SocketAddr>, String>;

/// What came of a look-up.
#[derive(Debug)]
pub(super) enum Answer {
    Endpoint { peer: PeerId, place: Place, addresses: Found },
    Services(Vec<(Place, Found)>),
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
            let addresses = addresses_of(&place);
            // Nobody wants it any more if the engine has ended.
            drop(sender.send(Answer::Endpoint { peer, place, addresses }));
        });
    }

    /// Looks the names of services up again and again.
    pub fn follow(&self, places: Vec<Place>) -> AbortHandle {
        let sender = self.sender.clone();
        let follow = async move {
            loop {
                let places = places.clone();
                let look = move || {
                    let found = places.into_iter().map(|place| {
                        let found = addresses_of(&place);
                        (place, found)
                    });
                    found.collect()
                };
                let Ok(found) = tokio::task::spawn_blocking(look).await else { return };
                if sender.send(Answer::Services(found)).is_err() {
                    return;
                }
                tokio::time::sleep(NAMES_INTERVAL).await;
            }
        };
        tokio::spawn(follow).abort_handle()
    }

    pub async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

fn addresses_of(place: &Place) -> Found {
    match place {
        Place::Address(address) => Ok(vec![*address]),
        Place::Name { host, port } => resolve::addresses(host, *port),
    }
}

impl Engine {
    pub(super) fn take_answer(&mut self, answer: Answer) {
        let (peer, place, addresses) = match answer {
            Answer::Endpoint { peer, place, addresses } => (peer, place, addresses),
            Answer::Services(found) => return self.take_services(found),
        };
        match &addresses {
            Ok(addresses) => debug!(%place, ?addresses, "resolved"),
            Err(reason) => info!(%place, reason, "cannot resolve an endpoint: trying again later"),
        }
        let addresses = addresses.as_deref().unwrap_or_default();
        self.device.handle_resolved(clock::now(), peer, &place, addresses, &mut self.outputs);
        self.carry_out();
    }
}
