//! `show`: the state of interfaces, in the text of wg(8) or as JSON.
//!
//! Works with every userspace implementation that serves a UAPI socket. Interfaces come in
//! alphabetical order, where `wg` takes the order of the folder.

mod json;
mod pretty;
mod table;

#[cfg(test)]
mod tests;

use zeroize::Zeroizing;

use crate::cli::args;
use crate::cli::message::{self, Failure};
use crate::control::command::{DeviceSnapshot, PeerSnapshot};
use crate::control::run_folder::SOCKETS;
use crate::control::settings::{PathSource, PathStatus, Status};
use crate::control::uapi::client::{self, ClientError, UapiClient};
use crate::crypto::dh;
use crate::crypto::key::PublicKey;
use crate::sys::clock;
use crate::time::Wall;

/// How secrets and colours are treated in text for people.
#[derive(Clone, Copy, Debug, Default)]
struct Style {
    coloured: bool,
    keys_shown: bool,
}

/// A device under its name.
#[derive(Debug)]
struct Shown {
    interface: String,
    device: DeviceSnapshot,
    /// Of a device of our own.
    status: Option<Status>,
}

impl Shown {
    /// What was found out about the path to a peer, if anything was.
    fn path_of(&self, peer: &PeerSnapshot) -> Option<&PathStatus> {
        let mut paths = self.status.iter().flat_map(|status| &status.paths);
        paths.find(|path| path.public_key == peer.public_key && path.source != PathSource::Assumed)
    }

    fn public_key(&self) -> Option<PublicKey> {
        self.device.private_key.as_ref().map(dh::public_key)
    }
}

/// Prints what was asked for.
///
/// # Errors
/// If an interface that was named cannot be read; if `all` were asked for, only if there are some
/// and none could be read.
pub fn run(arguments: &args::Show) -> Result<(), Failure> {
    if arguments.target == "interfaces" {
        return interfaces(arguments);
    }
    let is_all = arguments.target == "all";
    let names = if is_all { all()? } else { vec![arguments.target.clone()] };
    let mut shown = Vec::new();
    for interface in &names {
        let asked = UapiClient::connect(interface).and_then(|mut client| {
            let device = client.get()?;
            Ok((device, client.status().ok()))
        });
        match asked {
            Ok((device, status)) => {
                shown.push(Shown { interface: interface.clone(), device, status });
            }
            Err(error) => message::inaccessible(interface, &reason(&error)),
        }
    }
    if shown.is_empty() && !names.is_empty() {
        return Err(Failure::Told);
    }
    let style = Style {
        coloured: message::is_coloured(),
        keys_shown: std::env::var("WG_HIDE_KEYS").is_ok_and(|mode| mode == "never"),
    };
    let text = match arguments.parameter {
        Some(parameter) => table::render(&shown, parameter, is_all),
        None if arguments.json => json::render(&shown, style)?,
        None => pretty::render(&shown, style, clock::now().wall),
    };
    Ok(message::result(&text)?)
}

fn interfaces(arguments: &args::Show) -> Result<(), Failure> {
    if arguments.parameter.is_some() {
        return Err(Failure::usage(anyhow::anyhow!("`show interfaces` takes no parameter")));
    }
    let names = all()?;
    if arguments.json {
        return Ok(message::result(&format!("{}\n", serde_json::to_string(&names)?))?);
    }
    if names.is_empty() {
        return Ok(());
    }
    Ok(message::result(&format!("{}\n", names.join(" ")))?)
}

/// # Errors
/// If the folder of sockets cannot be read.
fn all() -> Result<Vec<String>, Failure> {
    client::interfaces().map_err(|error| {
        let is_denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let error = anyhow::Error::new(error).context(format!("cannot read {SOCKETS}"));
        let failure = Failure::run(error);
        if is_denied { failure.with_hint("`sudo hybridwg show` may read it") } else { failure }
    })
}

/// The cause alone: the interface is named before it.
fn reason(error: &ClientError) -> String {
    let text =
        std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    // The number says nothing that the words do not.
    text.split(" (os error ").next().unwrap_or(&text).to_owned()
}

/// Seconds since the epoch, 0 for never.
fn handshake_seconds(handshake: Option<Wall>) -> u64 {
    handshake.map_or(0, |wall| wall.secs)
}

/// A text that may hold keys and is wiped when dropped.
type Text = Zeroizing<String>;
