//! Flows of peers that are carried on by this host, and those that begin or end at the tunnel's own
//! addresses: what the shards are told about them.
//!
//! - `refused`: names of services that lead where peers may not go.

mod refused;

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use self::refused::Refusals;
use super::lookups::Lookups;
use super::{Engine, refused};
use crate::control::command::{Flows, Inside};
use crate::control::ends::{Expose, HostPort, Protocol, Target};
use crate::control::netlink::{Netlink, NetlinkError};
use crate::control::settings::FlowCount;
use crate::control::uapi::Errno;
use crate::dataplane::inbox::ShardCommand;
use crate::dataplane::port::IpPort;
use crate::dataplane::tables::Tables;
use crate::dataplane::tun_port::TunPort;
use crate::flow::exposed::{self, Exposed};
use crate::flow::gate::Gate;
use crate::flow::policy::{HostAddresses, Service};
use crate::flow::port::{FlowPort, HandingPort};
use crate::flow::switch::{Settings, Switch};
use crate::sys::SysError;
use crate::sys::clock;
use crate::sys::tun::Tun;

/// The number of `lo` in each network namespace. [LNX include/net/flow.h:LOOPBACK_IFINDEX]
const LOOPBACK: u32 = 1;

/// What is carried on, and by what.
#[derive(Debug, Default)]
pub(super) struct Carrying {
    /// One of each shard, for ports that take the place of theirs.
    queues: Vec<Tun>,
    flows: Option<Flows>,
    /// Where the names of services led to when they were looked up last.
    places: Vec<(HostPort, Vec<SocketAddr>)>,
    looking: Option<AbortHandle>,
    refusals: Refusals,
    /// There is to be an end.
    is_draining: bool,
    /// From the first flow that was allowed on; from the start where there is no interface.
    switch: Option<Arc<Switch>>,
    /// What there is in place of an interface.
    home: Option<Inside>,
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

    /// The way into the tunnel, where there is no interface.
    pub fn gate(&self, tables: &Arc<Tables>) -> Option<Gate> {
        let switch = self.home.as_ref().and(self.switch.as_ref());
        switch.map(|switch| Gate::new(Arc::clone(switch), Arc::clone(tables)))
    }

    /// How many flows there are.
    pub fn count(&self) -> FlowCount {
        let Some(switch) = &self.switch else { return FlowCount::default() };
        FlowCount {
            now: switch.flows(),
            connections: switch.connections(),
            is_full: switch.is_full(),
        }
    }

    /// Whether there may be any.
    pub const fn may_have_flows(&self) -> bool {
        self.flows.is_some() || self.home.is_some()
    }

    /// Whether what peers send to others is carried on.
    pub fn carries(&self) -> bool {
        carries(self.flows.as_ref())
    }

    /// The tunnel's addresses, where there is no interface that would have them.
    pub fn addresses(&self) -> Option<&[IpNet]> {
        self.home.as_ref().map(|home| &*home.addresses)
    }

    /// Has the names of services looked up, and forgets those that are none any more.
    fn follow_names(&mut self, lookups: &Lookups) {
        if let Some(looking) = self.looking.take() {
            looking.abort();
        }
        let expose = self.flows.iter().flat_map(|flows| &flows.expose);
        let names: Vec<HostPort> = expose.filter_map(name_of).cloned().collect();
        self.places.retain(|(name, _)| names.contains(name));
        if names.is_empty() {
            self.refusals = Refusals::default();
        }
        self.looking = (!names.is_empty()).then(|| lookups.follow(names));
    }

    /// What is behind the ports of these. Names lead nowhere unless the addresses of this host, by which
    /// their places are judged, `are_known`.
    fn exposed(&self, expose: &[Expose], are_known: bool) -> Vec<Exposed> {
        let exposed = expose.iter().map(|expose| {
            let service = match expose.protocol {
                Protocol::Tcp => Service::Tcp(expose.port),
                Protocol::Udp => Service::Udp(expose.port),
            };
            let target = match &expose.target {
                Target::At(HostPort::Address(place)) => exposed::Target::Address(*place),
                Target::At(name) => {
                    let mut known =
                        self.places.iter().filter(|(known, _)| are_known && known == name);
                    exposed::Target::Named(known.next().map(|it| it.1.clone()).unwrap_or_default())
                }
                Target::Unix(path) => exposed::Target::Path(path.clone()),
            };
            let (from, source, proxy_v2) = (expose.from.clone(), expose.source, expose.proxy_v2);
            Exposed { service, target, from, source, proxy_v2 }
        });
        exposed.collect()
    }
}

/// Whether what peers send to others is carried on.
fn carries(flows: Option<&Flows>) -> bool {
    flows.is_some_and(|flows| flows.carries)
}

impl Engine {
    /// Carries on what `flows` says from now on, or nothing.
    pub(super) fn carry(&mut self, flows: Option<Flows>) -> Result<(), Errno> {
        let (does, did) = (carries(flows.as_ref()), self.carrying.carries());
        let settings = self.flow_settings(flows.as_ref()).map_err(|error| {
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
        if does != did {
            info!(on = does, "flows of peers are carried on");
        }
        self.carrying.flows = flows;
        self.carrying.follow_names(&self.lookups);
        Ok(())
    }

    /// Puts a port that carries on flows in the place of the first shard's, and ones that hand over to it
    /// in those of the others: a peer that moves to another shard keeps its flows.
    fn rewire(&mut self, settings: Settings) -> Result<(), SysError> {
        let queues = self.carrying.queues.iter();
        let insides = queues
            .map(|queue| Ok(Some(Box::new(TunPort::new(queue.try_clone()?)) as Box<dyn IpPort>)));
        let insides = insides.collect::<Result<_, SysError>>()?;
        let ports = self.flow_ports(settings, insides)?;
        for (inbox, port) in self.inboxes.iter().zip(ports) {
            inbox.post(ShardCommand::Rewire(port));
        }
        Ok(())
    }

    /// The ports of so many shards of a tunnel without an interface, which has no address yet.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn be_inside(&mut self, shards: usize) -> Result<Vec<Box<dyn IpPort>>, SysError> {
        self.carrying.home = Some(Inside::default());
        self.flow_ports(Settings::default(), std::iter::repeat_with(|| None).take(shards).collect())
    }

    fn flow_ports(
        &mut self,
        settings: Settings,
        insides: Vec<Option<Box<dyn IpPort>>>,
    ) -> Result<Vec<Box<dyn IpPort>>, SysError> {
        let switch = Arc::new(Switch::new(settings)?);
        let mut ports = Vec::<Box<dyn IpPort>>::new();
        for inside in insides {
            let (tables, switch) = (Arc::clone(&self.tables), Arc::clone(&switch));
            ports.push(match ports.is_empty() {
                true => Box::new(FlowPort::new(inside, tables, switch)?),
                false => Box::new(HandingPort::new(inside, tables, switch)),
            });
        }
        self.carrying.switch = Some(switch);
        Ok(ports)
    }

    /// Is what `inside` says from now on.
    ///
    /// # Errors
    /// There is an interface.
    pub(super) fn furnish(&mut self, inside: Inside) -> Result<(), Errno> {
        let Some(home) = &mut self.carrying.home else {
            warn!("configuration refused: the interface has addresses of its own");
            return Err(Errno::INVALID);
        };
        let mtu = inside.mtu;
        *home = inside;
        if mtu != self.tables.mtu() {
            self.tables.set_mtu(mtu);
            self.restart_sizes(mtu);
        }
        self.follow_addresses();
        Ok(())
    }

    /// Has nothing new begin, for peers or for programs of this host, or takes that back.
    pub(super) fn drain(&mut self, is_draining: bool) {
        self.carrying.is_draining = is_draining;
        self.proxies.count.be_ending(is_draining);
        self.follow_addresses();
    }

    /// The names of services were looked up: those that led nowhere lead where they led before.
    pub(super) fn take_services(
        &mut self,
        found: Vec<(HostPort, Result<Vec<SocketAddr>, String>)>,
    ) {
        let places = &mut self.carrying.places;
        for (name, found) in found {
            match found {
                Ok(addresses) => {
                    debug!(%name, ?addresses, "resolved");
                    places.retain(|(known, _)| *known != name);
                    places.push((name, addresses));
                }
                Err(reason) => info!(%name, reason, "cannot resolve a service: trying again later"),
            }
        }
        self.follow_addresses();
    }

    /// This host's addresses may be others, or the mark of our sockets, or where services are.
    pub(super) fn follow_addresses(&mut self) {
        let settings = self.flow_settings(self.carrying.flows.as_ref());
        let Carrying { flows, switch: Some(switch), refusals, .. } = &mut self.carrying else {
            return;
        };
        let settings = match settings {
            Ok(Some(settings)) => settings,
            Ok(None) => return,
            Err(error) => {
                return warn!(%error, "cannot read this host's addresses: the former ones count");
            }
        };
        let expose = flows.as_ref().map_or(&[][..], |flows| &flows.expose);
        refusals.tell(clock::now().mono, expose, &settings);
        if !switch.is_set_to(&settings) {
            switch.set(Some(settings));
        }
    }

    /// `None` where nothing is carried on or exposed, and the kernel has the tunnel's addresses.
    fn flow_settings(&self, flows: Option<&Flows>) -> Result<Option<Settings>, NetlinkError> {
        let home = self.carrying.home.as_ref();
        if flows.is_none() && home.is_none() {
            return Ok(None);
        }
        let Flows { carries, expose, policy, sources, tuning } = flows.cloned().unwrap_or_default();
        let mut netlink = Netlink::new();
        let (all, are_known) = match netlink.all_addresses() {
            Ok(all) => (all, true),
            // A sandbox without netlink. What was written down as an address needs no judgement.
            Err(error) if !carries && home.is_some() => {
                debug!(%error, "this host's addresses are not known: names of services lead nowhere");
                (Vec::new(), false)
            }
            Err(error) => return Err(error),
        };
        let tunnel = match home {
            Some(home) => home.addresses.clone(),
            None => {
                let own = netlink.link(&self.interface)?.map(|link| link.index);
                let of_tunnel = all.iter().filter(|(interface, _)| Some(*interface) == own);
                of_tunnel.map(|(_, network)| *network).collect()
            }
        };
        let loopback = all.iter().filter(|(interface, _)| *interface == LOOPBACK);
        let host: HostAddresses = all.iter().map(|(_, network)| *network).collect();
        let host = host.with_loopback(loopback.map(|(_, network)| *network));
        Ok(Some(Settings {
            policy,
            sources,
            tunnel,
            host,
            mark: self.fwmark,
            tuning,
            carries,
            exposed: self.carrying.exposed(&expose, are_known),
            is_draining: self.carrying.is_draining,
        }))
    }
}

/// What is to be looked up, if anything is.
const fn name_of(expose: &Expose) -> Option<&HostPort> {
    match &expose.target {
        Target::At(name @ HostPort::Name { .. }) => Some(name),
        Target::At(HostPort::Address(_)) | Target::Unix(_) => None,
    }
}
