//! The text of a state: what a device answers to `get=1`, and how a client reads it.
//!
//! Handshake times are wall time since the Unix epoch, as `wg` expects. A client ignores keys that
//! it does not know, so that a server may add some. [UAPI]

use std::fmt::{self, Write};

use zeroize::Zeroizing;

use super::{Errno, Operation, parse_endpoint, parse_network, parse_number, reply};
use crate::control::command::{DeviceSnapshot, PeerSnapshot};
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use crate::time::Wall;

/// The whole reply as text, its `errno=0` and empty line included. It holds keys and is wiped when
/// dropped.
pub fn render(device: &DeviceSnapshot) -> Zeroizing<String> {
    let allowed_ips: usize = device.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
    // An upper bound, because growing would leave copies of keys behind.
    let mut text =
        Zeroizing::new(String::with_capacity(256 + 512 * device.peers.len() + 64 * allowed_ips));
    let written = write_device(&mut *text, device);
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
    text
}

fn write_device(out: &mut impl Write, device: &DeviceSnapshot) -> fmt::Result {
    if let Some(key) = &device.private_key {
        writeln!(out, "private_key={}", *Zeroizing::new(key.to_hex()))?;
    }
    writeln!(out, "listen_port={}", device.listen_port)?;
    if device.fwmark != 0 {
        writeln!(out, "fwmark={}", device.fwmark)?;
    }
    for peer in &device.peers {
        write_peer(out, peer)?;
    }
    out.write_str(&reply(Operation::Get, Ok(())))
}

fn write_peer(out: &mut impl Write, peer: &PeerSnapshot) -> fmt::Result {
    writeln!(out, "public_key={}", peer.public_key.to_hex())?;
    writeln!(out, "preshared_key={}", *Zeroizing::new(peer.preshared_key.to_hex()))?;
    out.write_str("protocol_version=1\n")?;
    if let Some(endpoint) = peer.endpoint {
        writeln!(out, "endpoint={endpoint}")?;
    }
    let handshake = peer.last_handshake.unwrap_or_default();
    writeln!(out, "last_handshake_time_sec={}", handshake.secs)?;
    writeln!(out, "last_handshake_time_nsec={}", handshake.nanos)?;
    writeln!(out, "tx_bytes={}", peer.tx_bytes)?;
    writeln!(out, "rx_bytes={}", peer.rx_bytes)?;
    writeln!(out, "persistent_keepalive_interval={}", peer.persistent_keepalive)?;
    for network in &peer.allowed_ips {
        writeln!(out, "allowed_ip={network}")?;
    }
    Ok(())
}

/// Why a reply could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The device refused.
    #[error("{0}")]
    Refused(Errno),
    /// The device does not speak the protocol.
    #[error("line {line} of the reply is malformed")]
    Malformed { line: usize },
    /// The device hung up before the end of its reply.
    #[error("the reply ends early")]
    Truncated,
}

/// Collects the lines of a reply to `get=1`.
#[derive(Debug, Default)]
pub struct GetParser {
    device: DeviceSnapshot,
    errno: Option<i64>,
    line: usize,
}

impl GetParser {
    /// Takes one line without its line end; gives the state when the reply is complete.
    ///
    /// # Errors
    /// [`ReplyError::Malformed`] for a known key with a bad value, [`ReplyError::Refused`] if the
    /// reply is an error.
    pub fn line(&mut self, line: &str) -> Result<Option<DeviceSnapshot>, ReplyError> {
        self.line += 1;
        if line.is_empty() {
            return match self.errno.take() {
                Some(0) => Ok(Some(std::mem::take(&mut self.device))),
                Some(number) => Err(ReplyError::Refused(errno_of(number))),
                None => Err(ReplyError::Malformed { line: self.line }),
            };
        }
        line.split_once('=')
            .and_then(|(key, value)| self.value(key, value))
            .ok_or(ReplyError::Malformed { line: self.line })?;
        Ok(None)
    }

    fn value(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "errno" => self.errno = Some(value.parse().ok()?),
            "public_key" => {
                self.device.peers.push(PeerSnapshot::new(PublicKey::from_hex(value).ok()?))
            }
            _ => match self.device.peers.last_mut() {
                Some(peer) => peer_value(peer, key, value)?,
                None => device_value(&mut self.device, key, value)?,
            },
        }
        Some(())
    }
}

fn device_value(device: &mut DeviceSnapshot, key: &str, value: &str) -> Option<()> {
    match key {
        "private_key" => {
            device.private_key =
                Some(PrivateKey::from_hex(value).ok()?).filter(|key| !key.is_zero())
        }
        "listen_port" => device.listen_port = parse_number(value)?,
        "fwmark" => device.fwmark = parse_number(value)?,
        _ => {}
    }
    Some(())
}

fn peer_value(peer: &mut PeerSnapshot, key: &str, value: &str) -> Option<()> {
    match key {
        "preshared_key" => peer.preshared_key = PresharedKey::from_hex(value).ok()?,
        "endpoint" => peer.endpoint = Some(parse_endpoint(value)?),
        "last_handshake_time_sec" => {
            let secs = parse_number(value)?;
            set_handshake(peer, |wall| wall.secs = secs);
        }
        "last_handshake_time_nsec" => {
            let nanos = parse_number(value).filter(|&nanos| nanos < 1_000_000_000)?;
            set_handshake(peer, |wall| wall.nanos = nanos);
        }
        "tx_bytes" => peer.tx_bytes = parse_number(value)?,
        "rx_bytes" => peer.rx_bytes = parse_number(value)?,
        "persistent_keepalive_interval" => peer.persistent_keepalive = parse_number(value)?,
        "allowed_ip" => peer.allowed_ips.push(parse_network(value)?),
        _ => {}
    }
    Some(())
}

/// Zero in both parts means never.
fn set_handshake(peer: &mut PeerSnapshot, change: impl FnOnce(&mut Wall)) {
    let mut wall = peer.last_handshake.unwrap_or_default();
    change(&mut wall);
    peer.last_handshake = (wall != Wall::default()).then_some(wall);
}

/// Implementations disagree about the sign.
pub fn errno_of(number: i64) -> Errno {
    i32::try_from(number.unsigned_abs())
        .ok()
        .filter(|&number| number != 0)
        .map_or(Errno::UNKNOWN, Errno)
}
