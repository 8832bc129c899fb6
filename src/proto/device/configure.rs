//! Changes by the user. [UAPI]

use std::collections::BTreeSet;

use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use crate::proto::constants::MAX_PEERS_PER_DEVICE;
use crate::proto::cookie::CookieChecker;
use crate::proto::device::{
    AllowedIpChange, Change, ConfigureError, Device, Event, Identity, Output, Outputs, PeerUpdate,
};
use crate::proto::endpoint::Endpoint;
use crate::proto::handshake::{RemoteStatic, StaticIdentity};
use crate::proto::peer::{Peer, PeerId};
use crate::time::Now;

impl Device {
    /// Carries out one change.
    ///
    /// # Errors
    /// See [`ConfigureError`]; nothing has been changed then.
    pub fn configure(
        &mut self,
        now: Now,
        change: Change,
        out: &mut Outputs,
    ) -> Result<(), ConfigureError> {
        match change {
            Change::PrivateKey(key) => self.set_private_key(now, key, out),
            Change::Peer(update) => self.update_peer(now, &update, out)?,
            Change::KeepOnly(named) => self.keep_only(&named, out),
        }
        Ok(())
    }

    /// [LNX netlink.c:wg_set_device]
    fn set_private_key(&mut self, now: Now, key: Option<PrivateKey>, out: &mut Outputs) {
        if self.private_key() == key.as_ref() {
            return;
        }
        self.identity = key.map(|key| {
            let keys = StaticIdentity::new(key);
            let checker = CookieChecker::new(&keys.public);
            Identity { keys, checker }
        });
        if let Some(&own) = self.public_key()
            && let Some(peer) = self.peer_id(&own)
        {
            self.remove_peer(peer, out);
            out.push(Output::Event(Event::SelfRemoved(own)));
        }
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            self.erase_keys(peer, out);
            if let Some(state) = self.peers.get_mut(&peer) {
                state.timers.stop_initiating();
                state.remote = remote_static(
                    self.identity.as_ref(),
                    state.remote.public,
                    state.remote.preshared.clone(),
                );
            }
            self.initiate_if_awaited(now, peer, out);
            self.reschedule(peer);
        }
    }

    fn update_peer(
        &mut self,
        now: Now,
        update: &PeerUpdate,
        out: &mut Outputs,
    ) -> Result<(), ConfigureError> {
        if self.public_key() == Some(&update.public_key) {
            return Ok(());
        }
        let known = self.peer_id(&update.public_key);
        if update.remove {
            if let Some(peer) = known {
                self.remove_peer(peer, out);
            }
            return Ok(());
        }
        let peer = match known {
            Some(peer) => peer,
            None if update.update_only => return Ok(()),
            None => self.add_peer(update.public_key, out)?,
        };
        self.apply_allowed_ips(peer, update, out);
        let Some(state) = self.peers.get_mut(&peer) else { return Ok(()) };
        if let Some(preshared) = &update.preshared_key {
            state.remote.preshared = preshared.clone();
        }
        let endpoint = match &update.places {
            Some(places) if state.places.set(places) || !state.has_endpoint => {
                update.endpoint.inspect(|&address| state.places.begin_at(address));
                update.endpoint.or(state.places.first_address())
            }
            Some(_) => None,
            None if update.endpoint.is_some() => {
                state.places.set(&[]);
                update.endpoint
            }
            None => None,
        };
        if let Some(remote) = endpoint {
            state.has_endpoint = true;
            state.places.in_touch(remote);
            out.push(Output::Roamed(peer, Endpoint::new(remote)));
        }
        self.ask_again_for_places(now, peer, out);
        let Some(state) = self.peers.get_mut(&peer) else { return Ok(()) };
        let had_keepalive = state.persistent_keepalive() != 0;
        if let Some(secs) = update.persistent_keepalive {
            state.timers.set_persistent_keepalive(secs);
        }
        let turned_on = !had_keepalive && state.persistent_keepalive() != 0;
        if turned_on && state.has_endpoint && self.identity.is_some() {
            state.timers.persistent_keepalive_fired(now.mono);
            self.keepalive(now, peer, out);
        } else {
            self.initiate_if_awaited(now, peer, out);
        }
        self.reschedule(peer);
        Ok(())
    }

    fn add_peer(
        &mut self,
        public_key: PublicKey,
        out: &mut Outputs,
    ) -> Result<PeerId, ConfigureError> {
        let full = ConfigureError::TooManyPeers { limit: MAX_PEERS_PER_DEVICE };
        if self.peers.len() >= MAX_PEERS_PER_DEVICE {
            return Err(full);
        }
        let peer = PeerId(self.next_id);
        self.next_id = self.next_id.checked_add(1).ok_or(full)?;
        let state =
            Peer::new(remote_static(self.identity.as_ref(), public_key, PresharedKey::NONE));
        out.push(Output::PeerAdded { peer, public_key, facts: state.timers.facts.clone() });
        self.peers.insert(peer, state);
        self.by_key.insert(public_key, peer);
        Ok(peer)
    }

    fn remove_peer(&mut self, peer: PeerId, out: &mut Outputs) {
        self.erase_keys(peer, out);
        let Some(state) = self.peers.remove(&peer) else { return };
        self.by_key.remove(state.public_key());
        if let Some(scheduled) = state.scheduled {
            self.deadlines.remove(&(scheduled, peer));
        }
        self.remove_all_allowed_ips(peer, out);
        out.push(Output::PeerRemoved(peer));
    }

    fn keep_only(&mut self, named: &BTreeSet<PublicKey>, out: &mut Outputs) {
        let peers: Vec<_> = self.by_key.iter().map(|(&key, &peer)| (key, peer)).collect();
        for (key, peer) in peers {
            if !named.contains(&key) {
                self.remove_peer(peer, out);
            } else if let Some(state) = self.peers.get_mut(&peer) {
                state.remote.preshared = PresharedKey::NONE;
                state.timers.set_persistent_keepalive(0);
                self.remove_all_allowed_ips(peer, out);
                self.reschedule(peer);
            }
        }
    }

    fn apply_allowed_ips(&mut self, peer: PeerId, update: &PeerUpdate, out: &mut Outputs) {
        if update.replace_allowed_ips {
            self.allowed_ips.remove_all(peer);
        }
        for change in &update.allowed_ips {
            match *change {
                AllowedIpChange::Add(net) => {
                    self.allowed_ips.insert(net.trunc(), peer);
                }
                AllowedIpChange::Remove(net) => {
                    self.allowed_ips.remove(net.trunc(), peer);
                }
            }
        }
        if update.replace_allowed_ips || !update.allowed_ips.is_empty() {
            out.push(Output::RoutesChanged);
        }
    }

    fn remove_all_allowed_ips(&mut self, peer: PeerId, out: &mut Outputs) {
        if self.allowed_ips.iter_of(peer).next().is_some() {
            self.allowed_ips.remove_all(peer);
            out.push(Output::RoutesChanged);
        }
    }

    /// Asks for the session that could not be asked for before this change: there was no key, or
    /// no endpoint. [LNX netlink.c:set_peer]
    pub(super) fn initiate_if_awaited(&mut self, now: Now, peer: PeerId, out: &mut Outputs) {
        let Some(state) = self.peers.get(&peer) else { return };
        let awaited = state.session_wanted || state.persistent_keepalive() != 0;
        if awaited && state.has_endpoint && !state.has_usable_session(now.mono) {
            self.want_session(now, peer, out);
        }
    }
}

/// What is known of a peer; the product of both static keys only if there is an own one.
fn remote_static(
    identity: Option<&Identity>,
    public: PublicKey,
    preshared: PresharedKey,
) -> RemoteStatic {
    match identity {
        Some(identity) => RemoteStatic::new(&identity.keys, public, preshared),
        None => RemoteStatic { public, static_static: None, preshared },
    }
}
