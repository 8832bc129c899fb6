//! `hybridwg mtu NAME`: what fits the path to each peer, measured now.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use anyhow::anyhow;

use crate::cli::message::{self, Failure};
use crate::control::command::SetRequest;
use crate::control::settings::{PathSource, PathStatus, Status};
use crate::control::uapi::client::UapiClient;
use crate::sys::clock;

/// A check, and a search after it, with room.
const LONGEST_SEARCH: Duration = Duration::from_secs(6);

const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Has the paths measured, and prints what fits each and the line for the file.
///
/// # Errors
/// The interface is none of ours, or no path could be measured.
pub fn run(interface: &str) -> Result<(), Failure> {
    let mut client = UapiClient::connect(interface)?;
    client.set(&SetRequest { measure_paths: true, ..SetRequest::default() })?;
    let began = clock::now().mono;
    let status = loop {
        let status = client.status()?;
        if !is_searching(&status) || clock::now().mono.since(began) > LONGEST_SEARCH {
            break status;
        }
        pause();
    };
    message::result(&report(&status.paths))?;
    if line(&status.paths).is_none() {
        return Err(Failure::run(anyhow!("no path of {interface} could be measured")).with_hint(
            "it takes a session, an address of our own in the tunnel, and a peer that answers pings",
        ));
    }
    Ok(())
}

fn is_searching(status: &Status) -> bool {
    status.paths.iter().any(|path| path.source == PathSource::Searching)
}

#[expect(clippy::disallowed_methods, reason = "between two looks, with a deadline")]
fn pause() {
    thread::sleep(LOOK_AGAIN);
}

fn report(paths: &[PathStatus]) -> String {
    let mut text = String::new();
    for PathStatus { public_key, mtu, source } in paths {
        let key = public_key.to_base64();
        let known = match source {
            PathSource::Measured => "measured: the peer has answered",
            PathSource::Told => "told by the network; the peer answers no ping",
            PathSource::Unanswered => "not known: the peer answers no ping",
            PathSource::Assumed => "not known: there is no session with the peer",
            PathSource::Searching => "not known yet",
        };
        let written = writeln!(text, "{key}  {mtu}  {known}");
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    if let Some(mtu) = line(paths) {
        let written = write!(text, "\nfor [Interface]:\nMTU = {mtu}\n");
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    text
}

/// What fits all paths that are known.
fn line(paths: &[PathStatus]) -> Option<u32> {
    let is_known =
        |path: &&PathStatus| matches!(path.source, PathSource::Measured | PathSource::Told);
    paths.iter().filter(is_known).map(|path| path.mtu).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::key::PublicKey;

    fn path(mtu: u32, source: PathSource) -> PathStatus {
        PathStatus { public_key: PublicKey::from_bytes([0; 32]), mtu, source }
    }

    #[test]
    fn the_line_for_the_file_is_what_fits_every_path_that_is_known() {
        let paths = [
            path(1360, PathSource::Measured),
            path(1340, PathSource::Told),
            path(1280, PathSource::Unanswered),
        ];
        assert_eq!(line(&paths), Some(1340));
        let key = PublicKey::from_bytes([0; 32]).to_base64();
        assert_eq!(
            report(&paths[..1]),
            format!(
                "{key}  1360  measured: the peer has answered\n\nfor [Interface]:\nMTU = 1360\n"
            )
        );
        assert_eq!(line(&paths[2..]), None);
        assert!(!report(&paths[2..]).contains("MTU ="), "nobody knows");
    }
}
