//! Flows of peers that are carried on by this host: what the shards are told about them.

use std::sync::Arc;

use tracing::{info, warn};

use super::{Engine, refused};
use crate::control::command::Flows;
use crate::control::netlink::{Netlink, NetlinkError};
use crate::control::uapi::Errno;
use crate::dataplane::inbox::ShardCommand;
use crate::dataplane::port::IpPort;
use crate::dataplane::tun_port::TunPort;
use crate::flow::port::{FlowPort, HandingPort};
use crate::flow::switch::{Settings, Switch};
use crate::sys::SysError;
use crate::sys::tun::Tun;

/// What is carried on, and by what.
#[derive(Debug, Default)]
pub(super) struct Carrying {
    /// One of each shard, for ports that take the place of theirs.
    queues: Vec<Tun>,
    flows: Option<Flows>,
    /// From the first flow that was allowed on.
    switch: Option<Arc<Switch>>,
}

impl Carrying {
    /// For a device with these `queues`.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn of(queues: &[Tun]) -> Result<Self, SysError> {
        let queues = queues.iter().map(Tun::try_clone).collect::<Result<_, _>>()?;
        Ok(Self { queues, ..Self::default() })
    }

    /// To whom addresses belong has changed.
    pub fn look_again(&self) {
        if let Some(switch) = &self.switch {
            switch.look_again();
        }
    }

    /// How many flows there are, if there may be any.
    pub fn count(&self) -> Option<usize> {
        self.flows.as_ref().and(self.switch.as_ref()).map(|switch| switch.flows())
    }
}

impl Engine {
    /// Carries on what `flows` says from now on, or nothing.
    pub(super) fn carry(&mut self, flows: Option<Flows>) -> Result<(), Errno> {
        let settings = flows.as_ref().map(|flows| self.flow_settings(flows)).transpose();
        let settings = settings.map_err(|error| {
            warn!(%error, "configuration refused: cannot read this host's addresses");
            Errno::INVALID
        })?;
        match (&self.carrying.switch, settings) {
            (Some(switch), settings) => switch.set(settings),
            (None, Some(settings)) => {
                self.rewire(settings).map_err(|error| refused(&error))?;
            }
            (None, None) => {}
        }
        if flows.is_some() != self.carrying.flows.is_some() {
            info!(on = flows.is_some(), "flows of peers are carried on");
        }
        self.carrying.flows = flows;
        Ok(())
    }

    /// Puts a port that carries on flows in the place of the first shard's, and ones that hand over to it
    /// in those of the others: a peer that moves to another shard keeps its flows.
    fn rewire(&mut self, settings: Settings) -> Result<(), SysError> {
        let switch = Arc::new(Switch::new(settings)?);
        let mut ports = Vec::<Box<dyn IpPort>>::new();
        for queue in &self.carrying.queues {
            let inside = Box::new(TunPort::new(queue.try_clone()?));
            let switch = Arc::clone(&switch);
            ports.push(match ports.is_empty() {
                true => Box::new(FlowPort::new(Some(inside), Arc::clone(&self.tables), switch)?),
                false => Box::new(HandingPort::new(Some(inside), Arc::clone(&self.tables), switch)),
            });
        }
        for (inbox, port) in self.inboxes.iter().zip(ports) {
            inbox.post(ShardCommand::Rewire(port));
        }
        self.carrying.switch = Some(switch);
        Ok(())
    }

    /// This host's addresses may be others, or the mark of our sockets.
    pub(super) fn follow_addresses(&mut self) {
        let Carrying { flows: Some(flows), switch: Some(switch), .. } = &self.carrying else {
            return;
        };
        match self.flow_settings(flows) {
            Ok(settings) if switch.is_set_to(&settings) => {}
            Ok(settings) => switch.set(Some(settings)),
            Err(error) => warn!(%error, "cannot read this host's addresses: the former ones count"),
        }
    }

    fn flow_settings(&self, flows: &Flows) -> Result<Settings, NetlinkError> {
        let mut netlink = Netlink::new();
        let own = netlink.link(&self.interface)?.map(|link| link.index);
        let all = netlink.all_addresses()?;
        let of_tunnel = all.iter().filter(|(interface, _)| Some(*interface) == own);
        Ok(Settings {
            policy: flows.policy.clone(),
            sources: flows.sources.clone(),
            tunnel: of_tunnel.map(|(_, network)| *network).collect(),
            host: all.iter().map(|(_, network)| *network).collect(),
            mark: self.fwmark,
            carries: true,
            ..Settings::default()
        })
    }
}
