//! The step that has a daemon listen for programs of this host, or no more.

use std::net::SocketAddr;

use super::names::Resolving;
use super::{Serve, Serving};
use crate::control::command::SetRequest;
use crate::control::config::{Dns, Interface};
use crate::control::ends::Listen;
use crate::control::lifecycle::{LifecycleError, Step, Transaction};
use crate::control::netlink::Netlink;
use crate::control::uapi::client::{ClientError, UapiClient};

/// Where name servers listen. [RFC 1035 §4.2]
const DNS_PORT: u16 = 53;

/// What a file says about it.
pub fn serving_of(interface: &Interface) -> Serving {
    let ends = &interface.ends;
    let servers = interface.dns.iter().filter_map(|dns| match dns.value {
        Dns::Server(address) => Some(SocketAddr::new(address, DNS_PORT)),
        Dns::SearchDomain(_) => None,
    });
    let via = ends.resolve_via.map(|via| via.value).unwrap_or_default();
    Serving {
        forwards: ends.forward.iter().map(|it| it.value.clone()).collect(),
        proxies: ends.proxies.iter().map(|it| it.value.clone()).collect(),
        resolving: Resolving { via, servers: servers.collect() },
    }
}

/// Comes when the tunnel has its addresses, which a listener may be on.
#[derive(Debug)]
pub struct SetServing {
    interface: String,
    wanted: Serving,
    former: Serving,
}

impl SetServing {
    /// Has the daemon of `interface` listen for what `wanted` says in place of what `former` says.
    ///
    /// # Errors
    /// A place to listen at cannot be had.
    pub fn plan(
        steps: &mut Transaction<'_>,
        interface: &str,
        wanted: &Interface,
        former: &Interface,
    ) -> Result<(), LifecycleError> {
        let step = Self::new(interface, wanted, former);
        if step.is_idle() { Ok(()) } else { steps.apply(step) }
    }

    fn new(interface: &str, wanted: &Interface, former: &Interface) -> Self {
        let (wanted, former) = (serving_of(wanted), serving_of(former));
        Self { interface: interface.to_owned(), wanted, former }
    }

    /// Whether there is nothing to say: passwords that stand elsewhere may be others by now.
    fn is_idle(&self) -> bool {
        let has_login = self.wanted.proxies.iter().any(|proxy| proxy.login.is_some());
        self.wanted == self.former && !has_login
    }

    fn set(&self, serve: Serve) -> Result<(), LifecycleError> {
        let request = SetRequest { serve: Some(serve), ..SetRequest::default() };
        let outcome = UapiClient::connect(&self.interface)?.set(&request);
        outcome.map_err(|error| match error {
            ClientError::NotListening { interface, place, errno } => {
                LifecycleError::Serving { interface, place, errno }
            }
            error => error.into(),
        })
    }

    fn tell(&self, from: &Serving, to: &Serving) -> String {
        let list = |serving| {
            let lines = places(serving).map(ToString::to_string).collect::<Vec<_>>();
            lines.join(", ")
        };
        let (interface, before, after) = (&self.interface, list(from), list(to));
        if before == after {
            return String::new();
        }
        let after = if after.is_empty() { "nothing".to_owned() } else { after };
        format!("# {interface}: listens at {after}")
    }
}

fn places(serving: &Serving) -> impl Iterator<Item = &Listen> {
    let forwards = serving.forwards.iter().map(|forward| &forward.listen);
    forwards.chain(serving.proxies.iter().map(|proxy| &proxy.listen))
}

impl Step for SetServing {
    fn describe(&self) -> String {
        self.tell(&self.former, &self.wanted)
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        self.set(Serve::Replace(self.wanted.clone()))
    }

    fn describe_undo(&self) -> Option<String> {
        Some(self.tell(&self.wanted, &self.former))
    }

    fn goes_with_interface(&self) -> bool {
        true
    }

    /// The daemon knows what was before, and the passwords, which we do not.
    fn undo(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        self.set(Serve::Restore)
    }
}
