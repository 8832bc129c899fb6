//! Datagrams of one mapping that wait to be sent, all with one call.

use std::net::SocketAddr;

use crate::flow::slots::Token;
use crate::packet::train::Train;
use crate::proto::endpoint::Endpoint;
use crate::sys::sockets::{Fragments, TRAINS_A_CALL};

/// How a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub hops: u8,
    pub fragments: Fragments,
}

/// What a peer sends by a mapping.
pub(super) struct Datagram<'a> {
    pub inner: SocketAddr,
    pub remote: SocketAddr,
    pub bytes: &'a [u8],
}

/// What goes the same way by one mapping.
#[derive(Debug)]
pub(super) struct Load {
    pub token: Token,
    pub way: Way,
    /// Of which the first so many are not sent yet.
    trains: Vec<Train>,
    used: usize,
}

impl Load {
    pub const fn new(token: Token, way: Way) -> Self {
        Self { token, way, trains: Vec::new(), used: 0 }
    }

    /// Forgets what was added for what goes such a `way` by the mapping of `token`.
    pub const fn start(&mut self, token: Token, way: Way) {
        (self.token, self.way, self.used) = (token, way, 0);
    }

    /// What was added, in order.
    pub fn trains(&self) -> &[Train] {
        &self.trains[..self.used]
    }

    /// Adds `datagram`; false if there is no room for it.
    pub fn append(&mut self, datagram: &Datagram<'_>) -> bool {
        let Datagram { remote, bytes, .. } = datagram;
        let to = Endpoint { remote: *remote, local: None };
        let last = self.trains[..self.used].last_mut().filter(|train| train.to() == to);
        if let Some(room) = last.and_then(|train| train.append(bytes.len())) {
            room.copy_from_slice(bytes);
            return true;
        }
        if self.used == TRAINS_A_CALL {
            return false;
        }
        if self.used == self.trains.len() {
            self.trains.push(Train::new());
        }
        let next = &mut self.trains[self.used];
        next.start(to, 0);
        let Some(room) = next.append(bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        self.used += 1;
        true
    }
}
