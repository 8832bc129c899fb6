//! Writes what a running tunnel is like into its file: `save`, and `down` with `SaveConfig = true`.
//!
//! Only what differs is changed, see `config::edit`; a file that says it all already is not touched.

use std::io;
use std::path::{Path, PathBuf};

use crate::control::config::{self, LoadError, State};
use crate::control::mtu::IPV6_MINIMUM_MTU;
use crate::control::netlink::{Netlink, NetlinkError};
use crate::control::uapi::client::{ClientError, UapiClient};
use crate::control::up::is_ipv6_off;

/// Why a tunnel was not saved. The file is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Uapi(#[from] ClientError),
    #[error("cannot replace {}", .path.display())]
    Unwritten { path: PathBuf, source: io::Error },
    #[error("`{interface}' is not a WireGuard interface")]
    NotWireGuard { interface: String },
}

/// Brings the file of `interface` up to date; tells whether anything differed.
///
/// # Errors
/// The interface is not up, the file has faults or cannot be written.
pub fn save(netlink: &mut Netlink, interface: &str, file: &Path) -> Result<bool, SaveError> {
    let state = state(netlink, interface)?;
    let Some(text) = config::updated(file, &state)? else { return Ok(false) };
    let unwritten = |source| SaveError::Unwritten { path: file.to_owned(), source };
    config::replace(file, &text).map_err(unwritten)?;
    Ok(true)
}

fn state(netlink: &mut Netlink, interface: &str) -> Result<State, SaveError> {
    let not_wireguard = || SaveError::NotWireGuard { interface: interface.to_owned() };
    let link = netlink.link(interface)?.ok_or_else(not_wireguard)?;
    let mut client = UapiClient::connect(interface)?;
    let ipv6_is_off = is_ipv6_off(Path::new("/proc/sys/net"), interface);
    Ok(State {
        device: client.get()?,
        // Of another implementation it is not known: its port is one that was asked for.
        port_is_random: client.status().is_ok_and(|status| status.port_is_random),
        addresses: netlink.addresses(&link)?,
        ipv6_is_off: ipv6_is_off || link.mtu < IPV6_MINIMUM_MTU,
        mtu: link.mtu,
    })
}
