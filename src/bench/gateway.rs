//! A server behind side 1, which is a hub then, and the ways to get packets there.
//!
//! ```text
//!   client                        hub                         server
//!   198.18.1.1 ════ tunnel ════ 198.18.1.2
//!                               198.18.2.1/24 ─── veth ─── 198.18.2.2/24
//! ```
//!
//! The load stands at the client and at the server. What lies between client and hub is up to the
//! wiring; behind the hub is a cable that does nothing.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use ipnet::{IpNet, Ipv4Net};

use super::error::BenchError;
use super::settings::Congestion;
use crate::control::command::Flows;
use crate::control::config::{At, Interface, Masquerade};
use crate::control::forwarding::Parameters;
use crate::control::masquerade;
use crate::control::netlink::{Family, MAIN_TABLE, Netlink, NetlinkError};
use crate::flow::tcp::Algorithm;
use crate::sys::netns::NetNamespace;

/// How the hub gets packets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// `Masquerade = flow`, with this `TcpCongestion` if one is said.
    Flow(Option<Congestion>),
    /// `Masquerade = nft`.
    Nft,
    /// The kernel's plain routing: the server knows the way back into the tunnel.
    Routed,
}

impl Forwarding {
    /// All ways, whose senders avoid congestion by that algorithm.
    pub const fn all(congestion: Option<Congestion>) -> [Self; 3] {
        [Self::Flow(congestion), Self::Nft, Self::Routed]
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Flow(_) => "flow",
            Self::Nft => "nft",
            Self::Routed => "routed",
        }
    }

    /// What a hub of ours is told.
    pub fn flows(self) -> Option<Flows> {
        let Self::Flow(congestion) = self else { return None };
        let mut flows = Flows { carries: true, ..Flows::default() };
        // A crowd is larger than what there may be otherwise.
        flows.tuning.max_flows = MOST_FLOWS;
        match congestion {
            Some(Congestion::Cubic) => flows.tuning.congestion = Algorithm::Cubic,
            Some(Congestion::Bbr) => flows.tuning.congestion = Algorithm::Bbr,
            None => {}
        }
        Some(flows)
    }

    /// Has the kernel of the hub, in whose namespace this runs, do its part for a tunnel whose peers
    /// have these networks.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_up(self, interface: &str, networks: &[IpNet]) -> Result<(), BenchError> {
        if matches!(self, Self::Flow(_)) {
            return Ok(());
        }
        let parameters = Parameters::of_this_host();
        let forwards = parameters.turn_on(&parameters.change(Family::V4, &[]));
        forwards.map_err(BenchError::io("cannot let the hub forward"))?;
        if self == Self::Nft {
            let masquerade = Some(At { line: 0, value: Masquerade::Nft });
            let settings = Interface { masquerade, ..Interface::default() };
            let mut netlink = Netlink::new();
            for table in masquerade::standing(interface, &settings, networks) {
                netlink.replace_table(&table)?;
            }
        }
        Ok(())
    }
}

/// Puts a server behind `hub`.
///
/// # Errors
/// Whatever stood in the way.
pub fn put_behind(hub: &NetNamespace) -> Result<NetNamespace, BenchError> {
    let server = NetNamespace::create()?;
    hub.run(|| Netlink::new().create_veth(CABLE, CABLE, server.as_fd()))??;
    hub.run(|| plug_in(HUB))??;
    hub.run(answer_for_others)?.map_err(BenchError::io("cannot set up the hub"))?;
    server.run(|| {
        plug_in(SERVER)?;
        let mut netlink = Netlink::new();
        let Some(link) = netlink.link(CABLE)? else { return Ok(()) };
        netlink.add_route(&link, INSIDE, MAIN_TABLE)
    })??;
    Ok(server)
}

/// Where both ends are, one behind the other: who does not route answers nobody.
fn plug_in(address: Ipv4Addr) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::new();
    netlink.set_loopback_up()?;
    let Some(link) = netlink.link(CABLE)? else { return Ok(()) };
    netlink.add_address(&link, IpNet::V4(Ipv4Net::new_assert(address, PREFIX)))?;
    netlink.set_mtu_up(&link, MTU)
}

/// The server asks for the addresses in the tunnel on the cable. And whoever asks by an echo whether
/// the hub works is to be answered, also flow by flow.
fn answer_for_others() -> io::Result<()> {
    for (parameter, value) in [
        (format!("conf/{CABLE}/proxy_arp"), "1"),
        (format!("neigh/{CABLE}/proxy_delay"), "0"),
        ("ping_group_range".to_owned(), "0 0"),
    ] {
        fs::write(format!("/proc/sys/net/ipv4/{parameter}"), value)?;
    }
    Ok(())
}

/// Where the server is.
pub const NETWORK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 2, 0), PREFIX));
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 2);
/// Nobody has it.
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 77);
const HUB: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 1);

/// Where everybody in the tunnel is.
const INSIDE: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 1, 0), PREFIX));

/// Where another peer of the hub's is.
pub const OTHER_PEER: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 9);

const MOST_FLOWS: usize = 65_536;
const CABLE: &str = "lan";
const PREFIX: u8 = 24;
const MTU: u32 = 1500;
