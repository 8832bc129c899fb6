//! ChaCha20-Poly1305 for sessions and handshakes, XChaCha20-Poly1305 for cookies.
//! [RFC 8439] [WG §5.4]
//!
//! Nonces are counters, and it is the caller's duty never to seal twice under one. A buffer that
//! failed to authenticate is wiped: the primitive decrypts before it has checked the tag, and what
//! it left behind must not be seen by anyone.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use zeroize::Zeroize;

use crate::crypto::batch::{Kernel, LANES, Message, NONCE_BYTES};
use crate::crypto::key::SymmetricKey;

/// Length of the authentication tag at the end of every ciphertext, in bytes.
pub const TAG_BYTES: usize = 16;

/// Length of a nonce of [`xseal`], in bytes.
pub const XNONCE_BYTES: usize = 24;

/// A ciphertext was not made with this key, nonce and additional data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message does not authenticate")]
pub struct AuthenticationFailed;

/// A key of ChaCha20-Poly1305; wiped on drop.
pub struct AeadKey {
    library: LessSafeKey,
    bytes: SymmetricKey,
}

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AeadKey(hidden)")
    }
}

impl AeadKey {
    pub fn new(key: &SymmetricKey) -> Self {
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, key.as_bytes());
        let unbound = unbound.expect("a key of ChaCha20-Poly1305 has 32 bytes");
        Self { library: LessSafeKey::new(unbound), bytes: key.clone() }
    }

    /// Encrypts `plaintext` followed by `padding` zero bytes into `out`, and appends the tag.
    ///
    /// # Panics
    /// If `out` is not exactly `plaintext.len() + padding + TAG_BYTES` long.
    pub fn seal(&self, counter: u64, aad: &[u8], plaintext: &[u8], padding: usize, out: &mut [u8]) {
        let inner = plaintext.len() + padding;
        assert_eq!(out.len(), inner + TAG_BYTES, "the buffer fits the ciphertext");
        let (ciphertext, tag) = out.split_at_mut(inner);
        let aad = Aad::from(aad);
        let sealed = if padding == 0 {
            let key = &self.library;
            key.seal_out_of_place_scatter(nonce(counter), aad, plaintext, ciphertext, &[], tag)
        } else {
            ciphertext[..plaintext.len()].copy_from_slice(plaintext);
            ciphertext[plaintext.len()..].fill(0);
            self.library.seal_in_place_scatter(nonce(counter), aad, ciphertext, &[], tag)
        };
        sealed.expect("a message is far shorter than the 256 GiB that one nonce can seal");
    }

    /// Decrypts `in_out`, a ciphertext and its tag, in place; returns the length of the plaintext.
    ///
    /// # Errors
    /// [`AuthenticationFailed`]; `in_out` is zero then.
    pub fn open_in_place(
        &self,
        counter: u64,
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<usize, AuthenticationFailed> {
        self.open_alone(nonce(counter), aad, in_out)
    }

    /// Encrypts each of `messages` in place, and writes its tag behind it: with `kernel` if there is
    /// one and if it gains by it.
    ///
    /// # Panics
    /// If a message has no room for its tag.
    pub fn seal_batch(&self, kernel: Option<Kernel>, messages: &mut [Message<'_>]) {
        for group in messages.chunks_mut(LANES) {
            match kernel {
                Some(kernel) if group.len() >= Kernel::WORTHWHILE => {
                    kernel.seal(&self.bytes, group)
                }
                Some(_) | None => group.iter_mut().for_each(|message| self.seal_alone(message)),
            }
        }
    }

    /// Decrypts each of `messages` in place if it is authentic, as [`Message::is_authentic`] says then;
    /// otherwise it is zero. With `kernel` if there is one and if it gains by it.
    ///
    /// # Panics
    /// If a message is shorter than a tag.
    pub fn open_batch(&self, kernel: Option<Kernel>, messages: &mut [Message<'_>]) {
        for group in messages.chunks_mut(LANES) {
            match kernel {
                Some(kernel) if group.len() >= Kernel::WORTHWHILE => {
                    kernel.open(&self.bytes, group)
                }
                Some(_) | None => {
                    for message in group {
                        let nonce = Nonce::assume_unique_for_key(message.nonce());
                        let opened = self.open_alone(nonce, message.aad(), message.in_out());
                        message.set_authentic(opened.is_ok());
                    }
                }
            }
        }
    }

    fn seal_alone(&self, message: &mut Message<'_>) {
        let nonce = Nonce::assume_unique_for_key(message.nonce());
        let aad = Aad::from(message.aad());
        let (text, tag) = message.split();
        let sealed = self.library.seal_in_place_scatter(nonce, aad, text, &[], tag);
        sealed.expect("a message is far shorter than the 256 GiB that one nonce can seal");
        message.set_authentic(true);
    }

    fn open_alone(
        &self,
        nonce: Nonce,
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<usize, AuthenticationFailed> {
        match self.library.open_in_place(nonce, Aad::from(aad), in_out) {
            Ok(plaintext) => Ok(plaintext.len()),
            Err(aws_lc_rs::error::Unspecified) => {
                in_out.fill(0);
                Err(AuthenticationFailed)
            }
        }
    }
}

impl<'a> Message<'a> {
    /// Of no additional data, and with `counter` for a nonce.
    pub fn with_counter(counter: u64, in_out: &'a mut [u8]) -> Self {
        Self::new(nonce_bytes(counter), &[], in_out)
    }
}

fn nonce(counter: u64) -> Nonce {
    Nonce::assume_unique_for_key(nonce_bytes(counter))
}

/// Four zero bytes, then the counter. [WG §5.4.6]
fn nonce_bytes(counter: u64) -> [u8; NONCE_BYTES] {
    let mut bytes = [0; NONCE_BYTES];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    bytes
}

/// Encrypts `plaintext` with XChaCha20-Poly1305 into `out`, and appends the tag.
///
/// The nonce is random, which 24 bytes allow.
///
/// # Panics
/// If `out` is not exactly `plaintext.len() + TAG_BYTES` long.
pub fn xseal(
    key: &SymmetricKey,
    nonce: &[u8; XNONCE_BYTES],
    aad: &[u8],
    plaintext: &[u8],
    out: &mut [u8],
) {
    assert_eq!(out.len(), plaintext.len() + TAG_BYTES, "the buffer fits the ciphertext");
    let (ciphertext, tag) = out.split_at_mut(plaintext.len());
    ciphertext.copy_from_slice(plaintext);
    let sealed = XChaCha20Poly1305::new(key.as_bytes().into())
        .encrypt_inout_detached(&XNonce::from(*nonce), aad, ciphertext.into())
        .expect("a cookie is far shorter than the 256 GiB that one nonce can seal");
    tag.copy_from_slice(&sealed);
}

/// Decrypts `ciphertext` with its tag at the end, made by [`xseal`], into `out`.
///
/// # Errors
/// [`AuthenticationFailed`]; `out` is zero then.
///
/// # Panics
/// If `out` is not exactly `TAG_BYTES` shorter than `ciphertext`.
pub fn xopen(
    key: &SymmetricKey,
    nonce: &[u8; XNONCE_BYTES],
    aad: &[u8],
    ciphertext: &[u8],
    out: &mut [u8],
) -> Result<(), AuthenticationFailed> {
    assert_eq!(ciphertext.len(), out.len() + TAG_BYTES, "the buffer fits the plaintext");
    let (ciphertext, tag) = ciphertext.split_at(out.len());
    let tag: [u8; TAG_BYTES] = tag.try_into().expect("what is left is the tag");
    out.copy_from_slice(ciphertext);
    XChaCha20Poly1305::new(key.as_bytes().into())
        .decrypt_inout_detached(&XNonce::from(*nonce), aad, (&mut *out).into(), &tag.into())
        .map_err(|_| {
            out.zeroize();
            AuthenticationFailed
        })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn bytes(value: &Value) -> Vec<u8> {
        hex::decode(value.as_str().unwrap()).unwrap()
    }

    fn key(value: &Value) -> SymmetricKey {
        SymmetricKey::from_bytes(bytes(value).try_into().unwrap())
    }

    fn sealed(key: &AeadKey, plaintext: &[u8], padding: usize) -> Vec<u8> {
        let mut out = vec![0xee; plaintext.len() + padding + TAG_BYTES];
        key.seal(9, b"aad", plaintext, padding, &mut out);
        out
    }

    /// The tests of a Wycheproof file whose nonce has the right length, flattened.
    fn wycheproof(text: &str, nonce_bytes: usize) -> Vec<Value> {
        let file: Value = serde_json::from_str(text).unwrap();
        let groups = file["testGroups"].as_array().unwrap();
        let tests = groups.iter().flat_map(|group| group["tests"].as_array().unwrap()).cloned();
        tests.filter(|test| bytes(&test["iv"]).len() == nonce_bytes).collect()
    }

    /// The vectors have nonces that do not start with four zeros, so they drive the key itself.
    fn raw_seal(key: &AeadKey, iv: [u8; 12], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut out = vec![0; plaintext.len() + TAG_BYTES];
        let (ciphertext, tag) = out.split_at_mut(plaintext.len());
        let nonce = Nonce::assume_unique_for_key(iv);
        key.library
            .seal_out_of_place_scatter(nonce, Aad::from(aad), plaintext, ciphertext, &[], tag)
            .unwrap();
        out
    }

    #[test]
    fn the_primitive_is_that_of_rfc_8439() {
        let file: Value =
            serde_json::from_str(include_str!("../../tests/data/rfc8439.json")).unwrap();
        for vector in file["aead"].as_array().unwrap() {
            let iv = bytes(&vector["nonce"]).try_into().unwrap();
            let aead = AeadKey::new(&key(&vector["key"]));
            let found = raw_seal(&aead, iv, &bytes(&vector["aad"]), &bytes(&vector["plaintext"]));
            assert_eq!(found, [bytes(&vector["ciphertext"]), bytes(&vector["tag"])].concat());
        }
    }

    #[test]
    fn the_primitive_agrees_with_wycheproof() {
        let text = include_str!("../../tests/data/wycheproof-chacha20_poly1305.json");
        let (mut valid, mut invalid, mut counters) = (0, 0, 0);
        for test in wycheproof(text, 12) {
            let aead = AeadKey::new(&key(&test["key"]));
            let iv: [u8; 12] = bytes(&test["iv"]).try_into().unwrap();
            let (aad, message) = (bytes(&test["aad"]), bytes(&test["msg"]));
            let ciphertext = [bytes(&test["ct"]), bytes(&test["tag"])].concat();
            let mut opened = ciphertext.clone();
            let nonce = Nonce::assume_unique_for_key(iv);
            let result = aead.library.open_in_place(nonce, Aad::from(&aad), &mut opened);
            if test["result"] == "valid" {
                valid += 1;
                assert_eq!(result.unwrap(), message, "tcId {}", test["tcId"]);
                assert_eq!(raw_seal(&aead, iv, &aad, &message), ciphertext);
            } else {
                invalid += 1;
                assert!(result.is_err(), "tcId {}", test["tcId"]);
            }
            if iv[..4] == [0; 4] {
                counters += 1;
                let counter = u64::from_le_bytes(iv[4..].try_into().unwrap());
                let mut opened = ciphertext.clone();
                let length = aead.open_in_place(counter, &aad, &mut opened);
                assert_eq!(length.is_ok(), test["result"] == "valid", "tcId {}", test["tcId"]);
            }
        }
        assert!(valid > 200 && invalid > 40 && counters >= 10, "{valid} {invalid} {counters}");
    }

    #[test]
    fn the_primitive_of_cookies_agrees_with_wycheproof() {
        let text = include_str!("../../tests/data/wycheproof-xchacha20_poly1305.json");
        let (mut valid, mut invalid) = (0, 0);
        for test in wycheproof(text, XNONCE_BYTES) {
            let key = key(&test["key"]);
            let iv: [u8; XNONCE_BYTES] = bytes(&test["iv"]).try_into().unwrap();
            let (aad, message) = (bytes(&test["aad"]), bytes(&test["msg"]));
            let ciphertext = [bytes(&test["ct"]), bytes(&test["tag"])].concat();
            let mut opened = vec![0xee; message.len()];
            let result = xopen(&key, &iv, &aad, &ciphertext, &mut opened);
            if test["result"] == "valid" {
                valid += 1;
                assert_eq!((result, &opened), (Ok(()), &message), "tcId {}", test["tcId"]);
                let mut found = vec![0; ciphertext.len()];
                xseal(&key, &iv, &aad, &message, &mut found);
                assert_eq!(found, ciphertext);
            } else {
                invalid += 1;
                assert_eq!(result, Err(AuthenticationFailed), "tcId {}", test["tcId"]);
                assert!(opened.iter().all(|&byte| byte == 0), "tcId {}", test["tcId"]);
            }
        }
        assert!(valid > 100 && invalid > 40, "{valid} {invalid}");
    }

    #[test]
    fn padding_is_sealed_as_zeros_after_the_plaintext() {
        let key = AeadKey::new(&SymmetricKey::from_bytes([7; 32]));
        for padding in [0, 1, 15, 64] {
            let mut padded = b"thirteen byte".to_vec();
            padded.resize(13 + padding, 0);
            assert_eq!(sealed(&key, b"thirteen byte", padding), sealed(&key, &padded, 0));
        }
    }

    #[test]
    fn what_was_sealed_opens_and_only_under_the_same_counter_and_data() {
        let key = AeadKey::new(&SymmetricKey::from_bytes([7; 32]));
        let good = sealed(&key, b"plaintext", 7);
        let mut opened = good.clone();
        assert_eq!(key.open_in_place(9, b"aad", &mut opened), Ok(16));
        assert_eq!(&opened[..16], b"plaintext\0\0\0\0\0\0\0");
        for (counter, aad) in [(8, &b"aad"[..]), (9, b""), (9 << 32, b"aad")] {
            let mut opened = good.clone();
            assert_eq!(key.open_in_place(counter, aad, &mut opened), Err(AuthenticationFailed));
        }
    }

    #[test]
    fn trap_24_a_buffer_that_does_not_authenticate_is_wiped() {
        let key = AeadKey::new(&SymmetricKey::from_bytes([7; 32]));
        for length in [0, 1, 5, 16, 600] {
            let mut bad = sealed(&key, &vec![0x55; length], 0);
            let last = bad.len() - 1;
            bad[last] ^= 1;
            assert_eq!(key.open_in_place(9, b"aad", &mut bad), Err(AuthenticationFailed));
            assert!(bad.iter().all(|&byte| byte == 0), "plaintext of {length} bytes");
        }
        let mut short = [0xaa; TAG_BYTES - 1];
        assert_eq!(key.open_in_place(9, b"", &mut short), Err(AuthenticationFailed));
    }
}
