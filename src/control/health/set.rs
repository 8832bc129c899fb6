//! The step that tells a daemon whom its health is told to, and which peers it is judged by.

use std::net::SocketAddr;

use crate::control::command::{Health, SetRequest};
use crate::control::lifecycle::{LifecycleError, Step};
use crate::control::netlink::Netlink;
use crate::control::uapi::client::UapiClient;

/// The last of `up`: until then the daemon counts as starting.
#[derive(Debug)]
pub struct SetHealth {
    interface: String,
    wanted: Health,
    former: Health,
}

impl SetHealth {
    pub fn new(interface: &str, wanted: Health, former: Health) -> Self {
        Self { interface: interface.to_owned(), wanted, former }
    }

    fn set(&self, health: &Health) -> Result<(), LifecycleError> {
        let request = SetRequest { health: Some(health.clone()), ..SetRequest::default() };
        let outcome = UapiClient::connect(&self.interface)?.set(&request);
        outcome.map_err(|error| match (health.listen, error.refusal()) {
            (Some(address), Some(errno)) => {
                let interface = self.interface.clone();
                LifecycleError::Health { interface, address, errno }
            }
            (None, _) | (_, None) => error.into(),
        })
    }

    /// Says nothing where nothing is listened on.
    fn tell(&self, from: Option<SocketAddr>, to: Option<SocketAddr>) -> String {
        let interface = &self.interface;
        match to {
            Some(_) if from == to => String::new(),
            Some(address) => format!("# {interface}: tells its health on http://{address}"),
            None => from.map_or_else(String::new, |_| {
                format!("# {interface}: tells its health over HTTP no more")
            }),
        }
    }
}

impl Step for SetHealth {
    fn describe(&self) -> String {
        self.tell(self.former.listen, self.wanted.listen)
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        self.set(&self.wanted)
    }

    fn describe_undo(&self) -> Option<String> {
        Some(self.tell(self.wanted.listen, self.former.listen))
    }

    fn goes_with_interface(&self) -> bool {
        true
    }

    fn undo(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        self.set(&self.former)
    }
}
