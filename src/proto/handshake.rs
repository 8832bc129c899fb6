//! The handshake as typestates: each step consumes what the one before it gave. [WG §5.4.2, §5.4.3]
//!
//! Initiator: [`InitiationSent`], then a [`Keypair`]. Responder: [`InitiationOpened`] (the peer is
//! claimed), [`InitiationReceived`] (the peer is proven, the message may be old), then a
//! [`Keypair`]. All secrets in them are wiped on drop. Must not check or write the two MACs
//! (cookies), judge timestamps, or know which peers there are.

use crate::crypto::aead::TAG_BYTES;
use crate::crypto::dh::{LowOrder, SharedSecret, dh, public_key};
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use crate::crypto::tai64n::{TIMESTAMP_BYTES, Timestamp};
use crate::proto::drop_reason::DropReason;
use crate::proto::index::Index;
use crate::proto::keypair::{Keypair, Role};
use crate::proto::noise::{NoiseError, SymmetricState};
use crate::time::Instant;
use crate::wire::message::{
    INITIATION_BYTES, RESPONSE_BYTES, TYPE_INITIATION, TYPE_RESPONSE, initiation, response,
};

/// What both messages are bound to. [WG §5.4.2]
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// The Noise message inside an initiation: ephemeral, static, timestamp.
const FIRST: std::ops::Range<usize> = initiation::EPHEMERAL.start..initiation::TIMESTAMP.end;

/// The Noise message inside a response: ephemeral, nothing.
const SECOND: std::ops::Range<usize> = response::EPHEMERAL.start..response::EMPTY.end;

/// Our own static key pair.
#[derive(Clone, Debug)]
pub struct StaticIdentity {
    pub private: PrivateKey,
    pub public: PublicKey,
}

impl StaticIdentity {
    pub fn new(private: PrivateKey) -> Self {
        let public = public_key(&private);
        Self { private, public }
    }
}

/// What we know of a peer before the handshake.
#[derive(Clone, Debug)]
pub struct RemoteStatic {
    pub public: PublicKey,
    /// The product of both static keys, made once; `None` if the peer's key is of low order, and
    /// then no handshake with it gets anywhere.
    pub static_static: Option<SharedSecret>,
    pub preshared: PresharedKey,
}

impl RemoteStatic {
    pub fn new(identity: &StaticIdentity, public: PublicKey, preshared: PresharedKey) -> Self {
        let static_static = dh(&identity.private, &public).ok();
        Self { public, static_static, preshared }
    }

    fn static_static(&self) -> Result<&SharedSecret, DropReason> {
        self.static_static.as_ref().ok_or(DropReason::LowOrderKey)
    }
}

/// An initiation of ours that waits for its response.
pub struct InitiationSent {
    state: SymmetricState,
    ephemeral: PrivateKey,
    local_index: Index,
}

impl InitiationSent {
    /// Makes an initiation; its MACs are still zero.
    ///
    /// # Errors
    /// [`DropReason::LowOrderKey`] if the peer's static key is of low order.
    pub fn create(
        identity: &StaticIdentity,
        remote: &RemoteStatic,
        ephemeral: PrivateKey,
        index: Index,
        timestamp: Timestamp,
    ) -> Result<(Self, [u8; INITIATION_BYTES]), DropReason> {
        let mut message = [0; INITIATION_BYTES];
        message[..initiation::SENDER.start].copy_from_slice(&TYPE_INITIATION.to_le_bytes());
        message[initiation::SENDER].copy_from_slice(&index.to_le_bytes());
        let state = SymmetricState::new(PROLOGUE, &remote.public)
            .write_first(
                &ephemeral,
                &identity.public,
                &remote.public,
                remote.static_static()?,
                timestamp.as_bytes(),
                &mut message[FIRST],
            )
            .map_err(|LowOrder| DropReason::LowOrderKey)?;
        Ok((Self { state, ephemeral, local_index: index }, message))
    }

    pub const fn local_index(&self) -> Index {
        self.local_index
    }

    /// Completes the handshake, as its initiator. The session begins at `now`.
    ///
    /// A response that fails leaves the handshake as it was: anyone can send one.
    ///
    /// # Errors
    /// [`DropReason::UnknownHandshakeIndex`] if the response answers another initiation,
    /// [`DropReason::LowOrderKey`], or [`DropReason::InvalidEmpty`].
    pub fn consume_response(
        &self,
        now: Instant,
        identity: &StaticIdentity,
        remote: &RemoteStatic,
        message: &[u8; RESPONSE_BYTES],
    ) -> Result<Keypair, DropReason> {
        if Index::from_le_bytes(field(message, response::RECEIVER)) != self.local_index {
            return Err(DropReason::UnknownHandshakeIndex);
        }
        let ephemeral = PublicKey::from_bytes(field(message, response::EPHEMERAL));
        let empty = field::<TAG_BYTES>(message, response::EMPTY);
        let (state, []) = self
            .state
            .clone()
            .read_second(&self.ephemeral, &identity.private, &remote.preshared, &ephemeral, &empty)
            .map_err(|error| match error {
                NoiseError::LowOrder(_) => DropReason::LowOrderKey,
                NoiseError::AuthenticationFailed(_) => DropReason::InvalidEmpty,
            })?;
        let (send, receive) = state.split();
        let remote_index = Index::from_le_bytes(field(message, response::SENDER));
        let role = Role::Initiator;
        Ok(Keypair::start(now, role, &send, &receive, self.local_index, remote_index))
    }
}

impl std::fmt::Debug for InitiationSent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InitiationSent({:?})", self.local_index)
    }
}

/// An initiation whose sender claims to be `remote`.
///
/// Whoever sees our public key can make one; only [`Self::verify`] proves the claim.
pub struct InitiationOpened {
    /// The static key that the initiation names: look the peer up by it.
    pub remote: PublicKey,
    state: SymmetricState,
    remote_ephemeral: PublicKey,
    remote_index: Index,
    sealed_timestamp: [u8; TIMESTAMP_BYTES + TAG_BYTES],
}

impl InitiationOpened {
    /// Decrypts the static key of an initiation whose first MAC was found good.
    ///
    /// # Errors
    /// [`DropReason::LowOrderKey`] or [`DropReason::InvalidStatic`].
    pub fn open(
        identity: &StaticIdentity,
        message: &[u8; INITIATION_BYTES],
    ) -> Result<Self, DropReason> {
        let remote_ephemeral = PublicKey::from_bytes(field(message, initiation::EPHEMERAL));
        let (state, remote) = SymmetricState::new(PROLOGUE, &identity.public)
            .read_first_static(
                &identity.private,
                &remote_ephemeral,
                &field(message, initiation::STATIC),
            )
            .map_err(|error| match error {
                NoiseError::LowOrder(_) => DropReason::LowOrderKey,
                NoiseError::AuthenticationFailed(_) => DropReason::InvalidStatic,
            })?;
        Ok(Self {
            remote,
            state,
            remote_ephemeral,
            remote_index: Index::from_le_bytes(field(message, initiation::SENDER)),
            sealed_timestamp: field(message, initiation::TIMESTAMP),
        })
    }

    /// Proves that the initiation was made by the peer it names. `remote` is what we know of that
    /// peer.
    ///
    /// # Errors
    /// [`DropReason::LowOrderKey`] or [`DropReason::InvalidTimestamp`].
    pub fn verify(self, remote: &RemoteStatic) -> Result<InitiationReceived, DropReason> {
        let (state, timestamp) = self
            .state
            .read_first_payload(remote.static_static()?, &self.sealed_timestamp)
            .map_err(|_| DropReason::InvalidTimestamp)?;
        Ok(InitiationReceived {
            timestamp: Timestamp::from_bytes(timestamp),
            remote_index: self.remote_index,
            state,
            remote: self.remote,
            remote_ephemeral: self.remote_ephemeral,
        })
    }
}

impl std::fmt::Debug for InitiationOpened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InitiationOpened({:?} claimed, {:?})", self.remote, self.remote_index)
    }
}

/// An initiation that the peer did make, now or earlier: the timestamp tells which.
pub struct InitiationReceived {
    /// Must be greater than every timestamp seen from the peer before.
    pub timestamp: Timestamp,
    pub remote_index: Index,
    state: SymmetricState,
    remote: PublicKey,
    remote_ephemeral: PublicKey,
}

impl InitiationReceived {
    /// Makes the response, whose MACs are still zero, and completes the handshake, as its
    /// responder. The session begins at `now`; nothing may be sent with it before something was
    /// received with it.
    ///
    /// # Errors
    /// [`DropReason::LowOrderKey`].
    pub fn create_response(
        self,
        now: Instant,
        remote: &RemoteStatic,
        ephemeral: PrivateKey,
        index: Index,
    ) -> Result<([u8; RESPONSE_BYTES], Keypair), DropReason> {
        let mut message = [0; RESPONSE_BYTES];
        message[..response::SENDER.start].copy_from_slice(&TYPE_RESPONSE.to_le_bytes());
        message[response::SENDER].copy_from_slice(&index.to_le_bytes());
        message[response::RECEIVER].copy_from_slice(&self.remote_index.to_le_bytes());
        let state = self
            .state
            .write_second(
                &ephemeral,
                &self.remote_ephemeral,
                &self.remote,
                &remote.preshared,
                &[],
                &mut message[SECOND],
            )
            .map_err(|LowOrder| DropReason::LowOrderKey)?;
        let (receive, send) = state.split();
        let role = Role::Responder;
        let keypair = Keypair::start(now, role, &send, &receive, index, self.remote_index);
        Ok((message, keypair))
    }
}

impl std::fmt::Debug for InitiationReceived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InitiationReceived({:?}, {:?})", self.remote, self.remote_index)
    }
}

/// A field of a message; `at` is one of the ranges in [`crate::wire::message`].
fn field<const N: usize>(message: &[u8], at: std::ops::Range<usize>) -> [u8; N] {
    message[at].try_into().expect("the range of a field has the length of its type")
}

#[cfg(test)]
mod tests;
