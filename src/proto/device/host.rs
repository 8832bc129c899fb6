//! What happens to the host that we run on: its network changes, it was suspended or cloned.

use crate::crypto::tai64n::Timestamp;
use crate::proto::device::{Device, Event, Output, Outputs};
use crate::proto::peer::PeerId;
use crate::time::{Now, Wall};

impl Device {
    /// Packets to `peer` leave by another way than before. The peer learns of it by a handshake,
    /// at once if it is one that we are in touch with, but no sooner than [`REKEY_TIMEOUT`] after
    /// our last handshake message. [P-81]
    ///
    /// [`REKEY_TIMEOUT`]: crate::proto::constants::REKEY_TIMEOUT
    pub fn handle_path_change(&mut self, now: Now, peer: PeerId, out: &mut Outputs) {
        out.push(Output::ClearSource(peer));
        self.renew(now, peer);
    }

    /// The machine was suspended, or is a copy of one that runs elsewhere: no key from before may
    /// be used again. Peers that we were in touch with get new ones. [P-85]
    /// [LNX device.c:wg_pm_notification] [LNX device.c:wg_vm_notification]
    pub fn handle_discontinuity(&mut self, now: Now, out: &mut Outputs) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            // First, while there still is a session to tell by.
            self.renew(now, peer);
            self.erase_keys(peer, out);
            out.push(Output::ClearSource(peer));
            out.push(Output::Event(Event::KeysErased(peer)));
            self.reschedule(peer);
        }
    }

    /// No timestamp that is sent from now on is below `floor`: as much has been sent in an earlier
    /// life, and peers refuse what is not greater. [WG §5.1] [P-43]
    pub fn raise_timestamp_floor(&mut self, floor: Wall) {
        self.sent_timestamp = self.sent_timestamp.max(Timestamp::from_wall(floor));
    }

    /// The greatest timestamp that was sent, or the floor if that is greater; `None` if there is
    /// neither.
    pub fn timestamp_floor(&self) -> Option<Wall> {
        (self.sent_timestamp != Timestamp::default()).then(|| self.sent_timestamp.wall())
    }

    /// Has a session asked for soon, with a peer that we are in touch with. The deadlines do it,
    /// so that many peers at once do not keep the caller from its packets.
    fn renew(&mut self, now: Now, peer: PeerId) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let in_touch = state.session_wanted
            || state.timers.is_initiating()
            || state.persistent_keepalive() != 0
            || state.has_usable_session(now.mono);
        if in_touch && state.has_endpoint && self.identity.is_some() {
            state.timers.start_over(now.mono);
            self.reschedule(peer);
        }
    }
}
