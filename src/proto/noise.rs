//! Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s: the two messages, with any prologue and payloads.
//! [NOISE §5, §7, §9] [WG §5.4.2, §5.4.3]
//!
//! A Noise message here is one contiguous slice; what WireGuard puts around it is
//! [`super::handshake`]'s. Every key is derived for one encryption, so every nonce is zero. The
//! state is wiped on drop, and it is consumed by a step that can fail halfway.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::aead::{AeadKey, AuthenticationFailed, TAG_BYTES};
use crate::crypto::dh::{LowOrder, SharedSecret, dh, public_key};
use crate::crypto::hash::{HASH_BYTES, hash, kdf1, kdf2, kdf3};
use crate::crypto::key::{KEY_BYTES, PresharedKey, PrivateKey, PublicKey, SymmetricKey};

const PROTOCOL_NAME: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";

/// Length of the first message without its payload: ephemeral, sealed static, tag. In bytes.
pub const FIRST_OVERHEAD_BYTES: usize = KEY_BYTES + SEALED_STATIC_BYTES + TAG_BYTES;

/// Length of the second message without its payload: ephemeral, tag. In bytes.
pub const SECOND_OVERHEAD_BYTES: usize = KEY_BYTES + TAG_BYTES;

const SEALED_STATIC_BYTES: usize = KEY_BYTES + TAG_BYTES;

/// Why a Noise message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    #[error(transparent)]
    LowOrder(#[from] LowOrder),
    #[error(transparent)]
    AuthenticationFailed(#[from] AuthenticationFailed),
}

/// Chaining key and transcript hash. [NOISE §5.2]
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SymmetricState {
    chaining_key: [u8; HASH_BYTES],
    hash: [u8; HASH_BYTES],
}

impl SymmetricState {
    /// The state before the first message, in which both ends know the responder's static key.
    pub fn new(prologue: &[u8], responder: &PublicKey) -> Self {
        // The name is longer than a hash, so it enters as its hash. [NOISE §5.2]
        let chaining_key = hash(&[PROTOCOL_NAME]);
        let mut state = Self { chaining_key, hash: hash(&[&chaining_key, prologue]) };
        state.mix_hash(responder.as_bytes());
        state
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    /// The token `e`; with a preshared key, ephemerals enter the chaining key too. [NOISE §9.2]
    fn mix_ephemeral(&mut self, public: &PublicKey) {
        self.mix_hash(public.as_bytes());
        self.chaining_key = *kdf1(&self.chaining_key, public.as_bytes());
    }

    /// A token whose key is used.
    fn mix_key(&mut self, shared: &SharedSecret) -> AeadKey {
        let (chaining_key, key) = kdf2(&self.chaining_key, shared.as_bytes());
        self.chaining_key = *chaining_key;
        AeadKey::new(&SymmetricKey::from_bytes(*key))
    }

    /// A token whose key is replaced before it is used.
    fn mix_unused_key(&mut self, shared: &SharedSecret) {
        self.chaining_key = *kdf1(&self.chaining_key, shared.as_bytes());
    }

    /// The token `psk`.
    fn mix_preshared(&mut self, preshared: &PresharedKey) -> AeadKey {
        let (chaining_key, mixed, key) = kdf3(&self.chaining_key, preshared.as_bytes());
        self.chaining_key = *chaining_key;
        self.mix_hash(mixed.as_slice());
        AeadKey::new(&SymmetricKey::from_bytes(*key))
    }

    fn seal(&mut self, key: &AeadKey, plaintext: &[u8], out: &mut [u8]) {
        key.seal(0, &self.hash, plaintext, 0, out);
        self.mix_hash(out);
    }

    /// Opens `sealed` and returns its plaintext, of `N` bytes and `M` with the tag.
    fn open<const N: usize, const M: usize>(
        &mut self,
        key: &AeadKey,
        sealed: &[u8; M],
    ) -> Result<[u8; N], AuthenticationFailed> {
        const { assert!(M == N + TAG_BYTES, "a ciphertext is a plaintext and a tag") };
        let mut buffer = *sealed;
        key.open_in_place(0, &self.hash, &mut buffer)?;
        self.mix_hash(sealed);
        let plaintext = *buffer.first_chunk().expect("a ciphertext is longer than its plaintext");
        buffer.zeroize();
        Ok(plaintext)
    }

    /// Writes the first message, as the initiator: `-> e, es, s, ss`, payload.
    ///
    /// # Errors
    /// [`LowOrder`] if the responder's static key is of low order.
    ///
    /// # Panics
    /// If `out` is not exactly `FIRST_OVERHEAD_BYTES + payload.len()` long.
    pub fn write_first(
        mut self,
        ephemeral: &PrivateKey,
        own_static: &PublicKey,
        responder: &PublicKey,
        static_static: &SharedSecret,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<Self, LowOrder> {
        let (out_ephemeral, rest) = out.split_at_mut(KEY_BYTES);
        let (out_static, out_payload) = rest.split_at_mut(SEALED_STATIC_BYTES);
        let public = public_key(ephemeral);
        out_ephemeral.copy_from_slice(public.as_bytes());
        self.mix_ephemeral(&public);
        let key = self.mix_key(&dh(ephemeral, responder)?);
        self.seal(&key, own_static.as_bytes(), out_static);
        let key = self.mix_key(static_static);
        self.seal(&key, payload, out_payload);
        Ok(self)
    }

    /// Reads the ephemeral and static keys of the first message, as the responder: `-> e, es, s`.
    /// What is left of the message is for [`Self::read_first_payload`].
    ///
    /// # Errors
    /// [`NoiseError`] if the ephemeral is of low order, or the static key was not sealed for us.
    pub fn read_first_static(
        mut self,
        own: &PrivateKey,
        ephemeral: &PublicKey,
        sealed_static: &[u8; SEALED_STATIC_BYTES],
    ) -> Result<(Self, PublicKey), NoiseError> {
        self.mix_ephemeral(ephemeral);
        let key = self.mix_key(&dh(own, ephemeral)?);
        let initiator = PublicKey::from_bytes(self.open(&key, sealed_static)?);
        Ok((self, initiator))
    }

    /// Reads the payload of the first message, as the responder: `-> ss`, payload. It
    /// authenticates the initiator, but not that the message is new.
    ///
    /// # Errors
    /// [`AuthenticationFailed`] if it was not made by the owner of the static key.
    pub fn read_first_payload<const N: usize, const M: usize>(
        mut self,
        static_static: &SharedSecret,
        sealed_payload: &[u8; M],
    ) -> Result<(Self, [u8; N]), AuthenticationFailed> {
        let key = self.mix_key(static_static);
        let payload = self.open(&key, sealed_payload)?;
        Ok((self, payload))
    }

    /// Writes the second message, as the responder: `<- e, ee, se, psk`, payload.
    ///
    /// # Errors
    /// [`LowOrder`] if a key of the initiator is of low order.
    ///
    /// # Panics
    /// If `out` is not exactly `SECOND_OVERHEAD_BYTES + payload.len()` long.
    pub fn write_second(
        mut self,
        ephemeral: &PrivateKey,
        initiator_ephemeral: &PublicKey,
        initiator: &PublicKey,
        preshared: &PresharedKey,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<Self, LowOrder> {
        let (out_ephemeral, out_payload) = out.split_at_mut(KEY_BYTES);
        let public = public_key(ephemeral);
        out_ephemeral.copy_from_slice(public.as_bytes());
        self.mix_ephemeral(&public);
        self.mix_unused_key(&dh(ephemeral, initiator_ephemeral)?);
        self.mix_unused_key(&dh(ephemeral, initiator)?);
        let key = self.mix_preshared(preshared);
        self.seal(&key, payload, out_payload);
        Ok(self)
    }

    /// Reads the second message, as the initiator: `<- e, ee, se, psk`, payload.
    ///
    /// # Errors
    /// [`NoiseError`] if its ephemeral is of low order, or it was not made by the responder in
    /// answer to our first message.
    pub fn read_second<const N: usize, const M: usize>(
        mut self,
        own_ephemeral: &PrivateKey,
        own_static: &PrivateKey,
        preshared: &PresharedKey,
        ephemeral: &PublicKey,
        sealed_payload: &[u8; M],
    ) -> Result<(Self, [u8; N]), NoiseError> {
        self.mix_ephemeral(ephemeral);
        self.mix_unused_key(&dh(own_ephemeral, ephemeral)?);
        self.mix_unused_key(&dh(own_static, ephemeral)?);
        let key = self.mix_preshared(preshared);
        let payload = self.open(&key, sealed_payload)?;
        Ok((self, payload))
    }

    /// The session keys, after the second message: the initiator's sending key, then the
    /// responder's.
    pub fn split(self) -> (SymmetricKey, SymmetricKey) {
        let (initiator, responder) = kdf2(&self.chaining_key, &[]);
        (SymmetricKey::from_bytes(*initiator), SymmetricKey::from_bytes(*responder))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn bytes(value: &Value) -> Vec<u8> {
        hex::decode(value.as_str().unwrap()).unwrap()
    }

    fn key(value: &Value) -> [u8; KEY_BYTES] {
        bytes(value).try_into().unwrap()
    }

    #[test]
    fn a_whole_handshake_with_prologue_and_payloads_gives_the_published_bytes() {
        let text = include_str!("../../tests/data/noise-ikpsk2.json");
        let file: Value = serde_json::from_str(text).unwrap();
        let vector = &file["vectors"][0];
        assert_eq!(vector["protocol_name"].as_str().unwrap().as_bytes(), PROTOCOL_NAME);
        let private = |name: &str| PrivateKey::from_bytes(key(&vector[name]));
        let (initiator, responder) = (private("init_static"), private("resp_static"));
        let (first, second) = (private("init_ephemeral"), private("resp_ephemeral"));
        let responder_public = PublicKey::from_bytes(key(&vector["init_remote_static"]));
        let preshared = PresharedKey::from_bytes(key(&vector["init_psks"][0]));
        let messages: Vec<(Vec<u8>, Vec<u8>)> = vector["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| (bytes(&message["payload"]), bytes(&message["ciphertext"])))
            .collect();

        // First message.
        let (payload, expected) = &messages[0];
        let ss = dh(&initiator, &responder_public).unwrap();
        let mut out = vec![0; FIRST_OVERHEAD_BYTES + payload.len()];
        let start = SymmetricState::new(&bytes(&vector["init_prologue"]), &responder_public);
        let initiator_public = public_key(&initiator);
        let sent = start
            .write_first(&first, &initiator_public, &responder_public, &ss, payload, &mut out)
            .unwrap();
        assert_eq!(&out, expected);

        let start = SymmetricState::new(&bytes(&vector["resp_prologue"]), &public_key(&responder));
        let ephemeral = PublicKey::from_bytes(out[..32].try_into().unwrap());
        let (read, found) = start
            .read_first_static(&responder, &ephemeral, out[32..80].try_into().unwrap())
            .unwrap();
        assert_eq!(found, initiator_public);
        let ss = dh(&responder, &found).unwrap();
        let sealed = out[80..].try_into().unwrap();
        let (read, found) = read.read_first_payload::<16, 32>(&ss, sealed).unwrap();
        assert_eq!(&found[..], payload);

        // Second message.
        let (payload, expected) = &messages[1];
        let mut out = vec![0; SECOND_OVERHEAD_BYTES + payload.len()];
        let responded = read
            .write_second(&second, &ephemeral, &initiator_public, &preshared, payload, &mut out)
            .unwrap();
        assert_eq!(&out, expected);
        let ephemeral = PublicKey::from_bytes(out[..32].try_into().unwrap());
        let sealed = out[32..].try_into().unwrap();
        let (done, found) =
            sent.read_second::<15, 31>(&first, &initiator, &preshared, &ephemeral, sealed).unwrap();
        assert_eq!(&found[..], payload);
        assert_eq!(done.hash, key(&vector["handshake_hash"]));
        assert_eq!(responded.hash, done.hash);

        // Transport messages, alternating, first one from the initiator.
        let (send, receive) = done.split();
        assert_eq!(responded.split(), (send.clone(), receive.clone()));
        let keys = [AeadKey::new(&send), AeadKey::new(&receive)];
        assert_eq!(messages.len(), 6);
        for (number, (payload, expected)) in messages[2..].iter().enumerate() {
            let mut out = vec![0; payload.len() + TAG_BYTES];
            keys[number % 2].seal((number / 2) as u64, &[], payload, 0, &mut out);
            assert_eq!(&out, expected);
        }
    }
}
