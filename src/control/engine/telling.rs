//! What the log has of events of the protocol, and of the end.

use tracing::{debug, info, warn};

use super::EngineError;
use crate::dataplane::Stop;
use crate::proto::device::{Device, Event};

pub(super) fn log(device: &Device, event: Event) {
    let name = |peer| device.peer(peer).map(|peer| *peer.public_key());
    match event {
        Event::HandshakeComplete(peer) => debug!(peer = ?name(peer), "handshake complete"),
        Event::HandshakeRetry { peer, attempt } => {
            debug!(peer = ?name(peer), attempt, "handshake unanswered: trying again");
        }
        Event::HandshakeGivenUp(peer) => {
            info!(peer = ?name(peer), "no handshake: giving up until there are packets to send");
        }
        Event::KeysErased(peer) => debug!(peer = ?name(peer), "keys erased"),
        Event::SelfRemoved(key) => warn!(peer = %key, "removed: its key is our own"),
    }
}

/// Whether the end of the device is one that somebody wanted.
pub(super) fn judge(stop: Stop) -> Result<(), EngineError> {
    match stop {
        Stop::Shutdown => Ok(()),
        // Deleting the interface is how wg-quick stops a device.
        Stop::IpPortGone(error) => {
            info!(%error, "the interface is gone: ending");
            Ok(())
        }
        stop @ (Stop::DatagramPortGone(_) | Stop::PollFailed(_)) => {
            Err(EngineError::DataPlane(stop))
        }
    }
}
