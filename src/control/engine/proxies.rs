//! Listeners for programs of this host, and how these get into the tunnel.

use std::net::IpAddr;
use std::sync::Arc;

use tracing::warn;

use super::Engine;
use crate::control::proxy::Serve;
use crate::control::proxy::names::Names;
use crate::control::proxy::way::{Host, Way, is_elsewhere};
use crate::control::settings::FlowCount;
use crate::control::uapi::{Errno, Refusal};

impl Engine {
    pub(super) fn serve(&mut self, serve: Serve) -> Result<(), Refusal> {
        let way = self.way();
        let outcome = match serve {
            Serve::Replace(serving) => self.proxies.apply(way, serving),
            Serve::Restore => self.proxies.restore(way),
        };
        outcome.map_err(|error| {
            warn!(%error, "configuration refused");
            let place = Some(error.listen.to_string());
            Refusal { errno: Errno::from_io(&error.source), place }
        })
    }

    /// Who leads clients of the configuration socket into the tunnel.
    pub(super) fn names(&mut self) -> Arc<Names> {
        let way = self.way();
        self.proxies.names(way)
    }

    /// How many flows begin or end at this host: those of the flow engine, and connections into the
    /// tunnel by an interface. `None` where there are none and nothing that they could be for.
    pub(super) fn count_flows(&self) -> Option<FlowCount> {
        let mut count = self.carrying.count();
        let by_interface = self.proxies.count.now();
        count.now += by_interface;
        count.connections += by_interface;
        let may_be = self.carrying.may_have_flows() || self.proxies.is_serving();
        (may_be || count.now > 0).then_some(count)
    }

    /// By the flow engine, where the tunnel has no interface.
    fn way(&self) -> Way {
        if let Some(gate) = self.carrying.gate(&self.tables) {
            return Way::Gate(gate);
        }
        let tables = Arc::clone(&self.tables);
        let leads_to = move |address: IpAddr| {
            is_elsewhere(address) && tables.route(address.to_canonical()).is_some()
        };
        Way::Host(Host {
            interface: Some(self.interface.clone()),
            leads_to: Arc::new(leads_to),
            count: self.proxies.count.clone(),
        })
    }
}
