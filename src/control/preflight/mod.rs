//! What TUN mode needs and this process lacks: all of it at once, each thing with what supplies it.
//!
//! Only looks: nothing is made and nothing is set. What cannot be known for want of a right (whether
//! the kernel has nf_tables) is not told. The words are `remedy`'s.

mod remedy;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::control::config::{Config, Masquerade};
use crate::control::firewall;
use crate::control::forwarding::{Forwarding, Parameters};
use crate::control::netlink::nft::Table;
use crate::control::netlink::{Family, Mark, Netlink, NetlinkError};
use crate::control::{run_folder, src_valid_mark};
use crate::flow::FLOWS;
use crate::sys::sockets::{DatagramSocket, Kind};
use crate::sys::{SysError, rights, tun};

/// One thing that is missing.
#[derive(Debug)]
pub enum Missing {
    /// The device node cannot be opened.
    Tun(SysError),
    NetAdmin,
    /// There is no place for sockets.
    Folder(io::Error),
    /// The kernel refuses tables of the firewall.
    NfTables(NetlinkError),
    /// A kernel parameter cannot be set.
    Parameter {
        name: &'static str,
        error: io::Error,
    },
    /// Pings of peers cannot be carried on.
    Ping,
    /// There are descriptors for fewer flows than there may be.
    Descriptors(u64),
}

impl Missing {
    /// Whether nothing works without it. What the firewall and kernel parameters are needed for decides
    /// itself what becomes of it without them.
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Tun(_) | Self::NetAdmin | Self::Folder(_))
    }

    /// In a word.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tun(_) => "/dev/net/tun",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::Folder(_) => "/run/wireguard",
            Self::NfTables(_) => "nf_tables",
            Self::Parameter { name, .. } => name,
            Self::Ping => "pings",
            Self::Descriptors(_) => "descriptors",
        }
    }

    /// Whether it depends on who asks, and not on the machine alone.
    pub fn is_a_right(&self) -> bool {
        match self {
            Self::Tun(error) => error.is_not_permitted(),
            Self::NetAdmin | Self::Folder(_) | Self::Parameter { .. } | Self::Ping => true,
            Self::NfTables(_) | Self::Descriptors(_) => false,
        }
    }
}

/// What a tunnel of this configuration lacks here in TUN mode.
pub fn of_tun_mode(config: &Config) -> Vec<Missing> {
    let mut missing = Vec::new();
    missing.extend(tun::try_device().err().map(Missing::Tun));
    // A kernel that does not tell refuses what it will.
    let is_admin = rights::has_net_admin().unwrap_or(true);
    missing.extend((!is_admin).then_some(Missing::NetAdmin));
    missing.extend(rights::may_write_in(Path::new(run_folder::SOCKETS)).err().map(Missing::Folder));

    let masquerade = config.interface.masquerade.map_or(Masquerade::Off, |how| how.value);
    let by_nft = masquerade == Masquerade::Nft;
    let takes_all = takes_all(config);
    if is_admin && (by_nft || takes_all) {
        let outcome = Netlink::new().rehearse_table(&trial());
        missing.extend(outcome.err().map(Missing::NfTables));
    }
    if by_nft && !Parameters::of_this_host().is_on(Family::V4) {
        let outcome = Parameters::of_this_host().rehearse(Family::V4);
        let name = Forwarding::name(Family::V4);
        missing.extend(parameter(name, outcome));
    }
    let marks = src_valid_mark::Parameters::of_this_host();
    if takes_all && !marks.is_set() && !marks.strict_interfaces().is_empty() {
        missing.extend(parameter(src_valid_mark::NAME, marks.rehearse()));
    }
    if masquerade == Masquerade::Flow {
        missing.extend(of_flows());
    }
    missing
}

/// What flows of peers lack, which are carried on by sockets.
pub fn of_flows() -> Vec<Missing> {
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let is_refused = DatagramSocket::open(Kind::Echo, any, 0).is_err();
    let descriptors = rights::descriptor_limit();
    let has_few = descriptors < FLOWS as u64;
    let ping = is_refused.then_some(Missing::Ping);
    ping.into_iter().chain(has_few.then_some(Missing::Descriptors(descriptors))).collect()
}

/// All of them in words, for a person who has to supply them.
pub fn tell(missing: &[Missing]) -> String {
    let told: Vec<String> = missing.iter().map(remedy::tell).collect();
    told.join("\n")
}

/// As [`tell`], of one thing and in one line.
pub fn tell_shortly(missing: &Missing) -> String {
    remedy::tell_shortly(missing)
}

fn parameter(name: &'static str, outcome: io::Result<()>) -> Option<Missing> {
    outcome.err().map(|error| Missing::Parameter { name, error })
}

/// Whether everything of IPv4 goes into the tunnel.
fn takes_all(config: &Config) -> bool {
    let peers = config.merged_peers().into_iter();
    peers.flat_map(|peer| peer.networks).any(|network| network == Family::V4.everything())
}

/// A table that the kernel takes if it takes ours.
fn trial() -> Table {
    firewall::table("hybridwg-trial", Family::V4, &[], Mark { value: 1, mask: 1 })
}
