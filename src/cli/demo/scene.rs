//! Two namespaces, a cable between them, a tunnel over it, and what passes through the tunnel.
//!
//! ```text
//!   namespace of the hub                     namespace of the client
//!   hub    10.10.0.1/24 ═══ tunnel ═══ client 10.10.0.2/24
//!   cable  198.18.0.1/30 ── veth pair ── cable 198.18.0.2/30
//! ```
//!
//! Both sides come up by the code of `hybridwg up`, daemons included.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use ipnet::{IpNet, Ipv4Net};

use crate::cli::args;
use crate::cli::demo::measure::{self, millis};
use crate::cli::demo::reference::{self, Pair, Texts};
use crate::cli::message::{self, Failure};
use crate::cli::show;
use crate::control::config::Config;
use crate::control::interrupt::Interrupt;
use crate::control::lifecycle::{Console, LifecycleError};
use crate::control::netlink::{Netlink, NetlinkError};
use crate::control::settings::Settings;
use crate::control::up::{self, Up};
use crate::sys::clock;
use crate::sys::echo::EchoSocket;
use crate::sys::entropy::OsEntropy;
use crate::sys::netns::NetNamespace;

/// Plays the whole demo. Must run in a sandbox: it leaves its daemons to the end of the process if
/// it fails.
///
/// # Errors
/// Whatever stood in the way, or somebody interrupted.
pub fn play(texts: &Texts, interrupt: &Interrupt) -> Result<(), Failure> {
    let Pair { hub, client } = texts.fill(&mut OsEntropy, SocketAddr::from((HUB_OUTSIDE, PORT)))?;
    let mut hub = Side { name: "hub", config: hub, namespace: NetNamespace::create()? };
    let mut client = Side { name: "client", config: client, namespace: NetNamespace::create()? };
    message::note("A hub and a client, in network namespaces of their own on this machine.");
    connect(&hub, &client)?;
    hub.leave_out_hooks();
    client.leave_out_hooks();

    hub.up(interrupt)?;
    let started = clock::now().wall;
    client.up(interrupt)?;
    let took = measure::handshake(client.name, started, interrupt)?;
    message::result(&format!("handshake     {} after `up client` began\n", millis(took)))?;

    let hub_inside = hub.address_inside()?;
    let echo = client.namespace.run(|| EchoSocket::open(hub_inside.into()))??;
    measure::ping(&echo, interrupt)?;
    for (direction, upwards) in [("client → hub", true), ("hub → client", false)] {
        let (at_client, at_hub) = open_connection(&client, &hub, hub_inside)?;
        let (from, to) = if upwards { (&at_client, &at_hub) } else { (&at_hub, &at_client) };
        measure::throughput(direction, from, to, interrupt)?;
    }

    message::note("\nThis is what `hybridwg show` says now:");
    let all = args::Show { target: "all".to_owned(), parameter: None, json: false };
    show::run(&all)?;
    message::note("");
    client.down()?;
    hub.down()?;
    message::note("Nothing is left of it.");
    Ok(())
}

/// One end of the tunnel.
struct Side {
    /// Of the side and of its interface.
    name: &'static str,
    config: Config,
    namespace: NetNamespace,
}

impl Side {
    /// The hooks of the reference deployment open the host's firewall; there is none here.
    fn leave_out_hooks(&mut self) {
        self.config.interface.save_config = None;
        let hooks = reference::take_host_changes(&mut self.config);
        if !hooks.is_empty() {
            message::note("What changes the host beyond the tunnel is left out here:");
        }
        for hook in hooks {
            message::note(&format!("{:<6} | {hook}", self.name));
        }
    }

    fn up(&self, interrupt: &Interrupt) -> Result<(), Failure> {
        let plan = Up {
            interface: self.name,
            file: self.file(),
            config: &self.config,
            device: Settings::default(),
            // Only addresses of the cable can be reached.
            resolve: Box::new(|_, _| Ok(None)),
        };
        let outcome = self.namespace.run(|| up::up(plan, &mut Prefixed(self.name), interrupt))?;
        outcome.map_err(|error| explained(self.name, error))
    }

    fn down(&self) -> Result<(), Failure> {
        let work = || up::down(self.name, &self.file(), &self.config, &mut Prefixed(self.name));
        self.namespace.run(work)?.map_err(|error| explained(self.name, error))
    }

    /// For what is printed: nothing is read or written there.
    fn file(&self) -> PathBuf {
        PathBuf::from(format!("{}.conf", self.name))
    }

    /// The first IPv4 address inside the tunnel.
    fn address_inside(&self) -> Result<Ipv4Addr, Failure> {
        let first = self.config.interface.addresses.iter().find_map(|address| match address {
            IpNet::V4(address) => Some(address.addr()),
            IpNet::V6(_) => None,
        });
        let missing = || Failure::usage(anyhow!("{}.conf has no IPv4 Address", self.name));
        first.ok_or_else(missing)
    }
}

/// Says which side does what.
struct Prefixed(&'static str);

impl Console for Prefixed {
    fn command(&mut self, line: &str) {
        message::note(&format!("{:<6} | [#] {line}", self.0));
    }

    fn warn(&mut self, text: &str) {
        message::note(&format!("{:<6} | Warning: {text}", self.0));
    }
}

/// Lays the cable: both ends are called alike, as they are in different namespaces.
fn connect(hub: &Side, client: &Side) -> Result<(), Failure> {
    let far = client.namespace.as_fd();
    let outcome = hub.namespace.run(|| {
        let mut netlink = Netlink::new();
        netlink.create_veth(CABLE, CABLE, far)?;
        plug_in(&mut netlink, HUB_OUTSIDE)
    })?;
    outcome.context("cannot lay a cable between two namespaces").map_err(Failure::run)?;
    let outcome = client.namespace.run(|| plug_in(&mut Netlink::new(), CLIENT_OUTSIDE))?;
    outcome.context("cannot plug the cable in").map_err(Failure::run)
}

fn plug_in(netlink: &mut Netlink, address: Ipv4Addr) -> Result<(), NetlinkError> {
    netlink.set_loopback_up()?;
    if let Some(link) = netlink.link(CABLE)? {
        netlink.set_up(&link)?;
        netlink.add_address(&link, IpNet::V4(Ipv4Net::new_assert(address, CABLE_PREFIX)))?;
    }
    Ok(())
}

/// A TCP connection through the tunnel: the client's end and the hub's end.
fn open_connection(
    client: &Side,
    hub: &Side,
    hub_inside: Ipv4Addr,
) -> Result<(TcpStream, TcpStream), Failure> {
    let listener = hub.namespace.run(|| TcpListener::bind((hub_inside, 0)))??;
    let target = listener.local_addr()?;
    let at_client = client.namespace.run(|| TcpStream::connect(target))?;
    let at_client = at_client.context("cannot connect through the tunnel").map_err(Failure::run)?;
    let (at_hub, _) = listener.accept()?;
    Ok((at_client, at_hub))
}

fn explained(side: &str, error: LifecycleError) -> Failure {
    Failure::run(anyhow::Error::new(error).context(format!("{side} did not come up or down")))
}

const CABLE: &str = "cable";
const CABLE_PREFIX: u8 = 30;
// From the range for tests between networks. [RFC 2544 §C.2.2]
const HUB_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const CLIENT_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// Where the hub listens, unless its file says otherwise.
const PORT: u16 = 51820;
