//! `hybridwg nc [HOST PORT]`.

use std::fs::File;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use anyhow::{Context, anyhow};

use crate::cli::args;
use crate::cli::message::Failure;
use crate::control::config::parse_host;
use crate::control::ends::HostPort;
use crate::control::record;
use crate::control::uapi::client::{self, UapiClient};

/// Connects standard input and output with a place in a tunnel, for `ProxyCommand` of ssh. Each
/// direction ends by itself; it returns when the other end has ended.
///
/// # Errors
/// [`Failure::Usage`] if it is not clear which tunnel is meant; otherwise why nobody was reached.
pub fn run(arguments: &args::Nc) -> Result<(), Failure> {
    let tunnel = match &arguments.tunnel {
        Some(tunnel) => tunnel.clone(),
        None => only_one()?,
    };
    let to = match &*arguments.place {
        [host, port] => {
            let number = port.parse().ok().filter(|&number| number != 0);
            let place = number.and_then(|number| parse_host(host, number));
            place.ok_or_else(|| Failure::usage(anyhow!("`{host} {port}` is no HOST PORT")))?
        }
        _ => stdio(&tunnel)?,
    };
    let (stream, already) = UapiClient::connect(&tunnel)?.lead_to(&to)?;
    let lost = || format!("lost the connection to {to}");
    carry(&stream, &already).with_context(lost).map_err(Failure::run)
}

fn only_one() -> Result<String, Failure> {
    let mut running = client::likely_interfaces()?;
    match running.len() {
        1 => Ok(running.remove(0)),
        0 => Err(Failure::usage(anyhow!("no tunnel is up"))),
        _ => Err(Failure::usage(anyhow!("several tunnels are up: {}", running.join(", ")))
            .with_hint("`--tunnel NAME` says which".to_owned())),
    }
}

/// Where the file says that it leads.
fn stdio(tunnel: &str) -> Result<HostPort, Failure> {
    let place = record::read(tunnel).and_then(|record| record.config.interface.ends.stdio);
    place.map(|place| place.value).ok_or_else(|| {
        Failure::usage(anyhow!("the file of {tunnel} has no Stdio: HOST and PORT are missing"))
    })
}

fn carry(stream: &UnixStream, already: &[u8]) -> io::Result<()> {
    // Without the buffers of the library, which wait for the end of a line.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut from_us = stream.try_clone()?;
    thread::Builder::new().spawn(move || {
        // Whatever goes wrong here, the other direction tells.
        drop(io::copy(&mut input, &mut from_us));
        drop(from_us.shutdown(Shutdown::Write));
    })?;
    output.write_all(already)?;
    io::copy(&mut &*stream, &mut output).map(drop)
}
