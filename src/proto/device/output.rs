//! What the protocol core wants done, as values. The data plane and its tables follow.

use std::ops::Deref;
use std::sync::Arc;

use crate::crypto::key::PublicKey;
use crate::proto::endpoint::Endpoint;
use crate::proto::index::Index;
use crate::proto::keypair::{Opener, Sealer};
use crate::proto::peer::PeerId;
use crate::proto::timers::Facts;
use crate::wire::message::{COOKIE_REPLY_BYTES, INITIATION_BYTES, RESPONSE_BYTES};

/// Whether a proof of address is demanded before a handshake message costs a multiplication.
/// [WG §5.3]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Load {
    #[default]
    Normal,
    /// More handshake messages wait than are dealt with in time.
    High,
}

/// One thing to do. To be done in the order given.
#[derive(Debug)]
pub enum Output {
    /// Send a handshake message or a cookie reply.
    Transmit {
        to: Destination,
        datagram: SmallDatagram,
        /// TOS or traffic class of the outer packet. [LNX messages.h:HANDSHAKE_DSCP]
        traffic_class: u8,
    },
    /// A session to receive with.
    Install {
        peer: PeerId,
        index: Index,
        opener: Opener,
        sealer: Arc<Sealer>,
        /// If not, its first authenticated packet is to be reported, and nothing is sent with it
        /// until it becomes current.
        confirmed: bool,
    },
    /// What to send to the peer with from now on; nothing if `None`.
    Current {
        peer: PeerId,
        sealer: Option<Arc<Sealer>>,
    },
    /// Forget the session of this index and its keys.
    Retire(Index),
    /// Send the packets that wait for a session, or, if there are none, an empty one: it confirms
    /// the session to the responder. [WG §5.4.6]
    Flush(PeerId),
    /// Send the packets that wait for a session, if any.
    SendStaged(PeerId),
    /// Send an empty packet. [WG §6.5]
    Keepalive(PeerId),
    /// Drop the packets that wait for a session.
    PurgeStaged(PeerId),
    /// Forget the local address that the peer was reached from. [LNX socket.c:wg_socket_clear_peer_endpoint_src]
    ClearSource(PeerId),
    /// Look up the addresses of a place, which [`Device::place`] names, and hand them to
    /// [`Device::handle_resolved`] whatever comes of it.
    ///
    /// [`Device::place`]: crate::proto::device::Device::place
    /// [`Device::handle_resolved`]: crate::proto::device::Device::handle_resolved
    Resolve {
        peer: PeerId,
        position: usize,
    },
    /// The user says where the peer is to be reached.
    Roamed(PeerId, Endpoint),
    /// A handshake message of this many bytes was authenticated: the peer is reached where it came
    /// from, and it counts as received. [LNX receive.c:wg_receive_handshake_packet]
    Heard {
        peer: PeerId,
        from: Endpoint,
        bytes: usize,
    },
    PeerAdded {
        peer: PeerId,
        public_key: PublicKey,
        facts: Arc<Facts>,
    },
    /// The peer is gone; his sessions were retired before.
    PeerRemoved(PeerId),
    /// The allowed IPs have changed: take a new snapshot.
    RoutesChanged,
    Event(Event),
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To a peer, wherever he roams.
    Peer(PeerId),
    /// To whoever sent a message: cookie replies.
    Address(Endpoint),
}

/// What is worth a line in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session was agreed and confirmed.
    HandshakeComplete(PeerId),
    /// An initiation has found no answer and is sent again; `attempt` counts from 2.
    HandshakeRetry { peer: PeerId, attempt: u32 },
    /// No initiation has found an answer: nothing more is tried until there are packets.
    HandshakeGivenUp(PeerId),
    /// All keys of a peer were erased because no session was made for too long.
    KeysErased(PeerId),
    /// A new private key made this peer ourselves, so he was removed.
    SelfRemoved(PublicKey),
}

/// A handshake message or a cookie reply, without an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SmallDatagram {
    bytes: [u8; Self::CAPACITY],
    /// INVARIANT: at most `CAPACITY`.
    len: u8,
}

impl SmallDatagram {
    /// The longest of them: an initiation.
    const CAPACITY: usize = INITIATION_BYTES;
}

macro_rules! from_message {
    ($($len:ident)+) => {$(
        impl From<&[u8; $len]> for SmallDatagram {
            fn from(message: &[u8; $len]) -> Self {
                let mut bytes = [0; Self::CAPACITY];
                bytes[..$len].copy_from_slice(message);
                Self { bytes, len: $len as u8 }
            }
        }
    )+};
}
from_message!(INITIATION_BYTES RESPONSE_BYTES COOKIE_REPLY_BYTES);

impl Deref for SmallDatagram {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for SmallDatagram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SmallDatagram({} bytes)", self.len)
    }
}

/// Where outputs are collected; drained by the caller after each call, and reused.
#[derive(Debug, Default)]
pub struct Outputs(Vec<Output>);

impl Outputs {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn push(&mut self, output: Output) {
        self.0.push(output);
    }

    /// Takes everything out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Output> + '_ {
        self.0.drain(..)
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
