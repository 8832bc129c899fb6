//! ChaCha20-Poly1305 of many messages of one key at once, where the processor has AVX-512.
//! [RFC 8439 §2.8]
//!
//! What it computes for a message is what [`AeadKey`](crate::crypto::aead::AeadKey) computes for it
//! alone, which stays for single messages and other processors, and is the oracle of every test.
//! Sixteen messages lie side by side in the lanes of registers: the kernels are the specification,
//! written in vectors, and differ from it in nothing but how many they do.
//!
//! - **Constant time.** Keys, one-time keys, key stream and plaintext go through additions,
//!   multiplications, shifts, exclusive ors and shuffles only. What branches and addresses depend on
//!   is the number of messages, their lengths, nonces, and at the end, when one is opened, whether it
//!   is authentic. docs/performance.md says how that was checked.
//! - **Verified first.** A message is decrypted only if its tag is right, compared in constant time;
//!   else it is wiped. The others of its batch are none the wiser.
//! - **Wiped.** The copy of the key, the one-time keys and the key stream. What the compiler keeps in
//!   registers or spills of them is out of reach, here as everywhere.
//! - **Not trusted.** A [`Kernel`] is handed out only by [`Kernel::find`], if the processor has the
//!   instructions and a self-test against the library finds no difference.
//!
//! Must not allocate, or be used for fewer than [`Kernel::WORTHWHILE`] messages: it would be slower.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod self_test;

#[cfg(test)]
mod tests;

use crate::crypto::aead::TAG_BYTES;
use crate::crypto::key::SymmetricKey;

/// Messages that a kernel has lanes for; more are done one group after the other.
pub const LANES: usize = 16;

pub(super) const NONCE_BYTES: usize = 12;

/// The kernel of this processor and the library do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the AEAD over several packets at once gives wrong results on this processor")]
pub struct SelfTestFailed;

/// Proof that this processor has a kernel, and that it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Instructions);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// A message of a batch, in its place.
#[derive(Default)]
pub struct Message<'a> {
    nonce: [u8; NONCE_BYTES],
    aad: &'a [u8],
    /// Plaintext or ciphertext, then room for the tag, or the tag.
    in_out: &'a mut [u8],
    /// Set by sealing, and by opening a message that proves to be.
    is_authentic: bool,
}

/// Shows no text: it may be a plaintext.
impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("bytes", &self.in_out.len()).finish_non_exhaustive()
    }
}

impl<'a> Message<'a> {
    pub(super) const fn new(nonce: [u8; NONCE_BYTES], aad: &'a [u8], in_out: &'a mut [u8]) -> Self {
        Self { nonce, aad, in_out, is_authentic: false }
    }

    pub(super) const fn nonce(&self) -> [u8; NONCE_BYTES] {
        self.nonce
    }

    pub(super) const fn aad(&self) -> &'a [u8] {
        self.aad
    }

    pub(super) const fn in_out(&mut self) -> &mut [u8] {
        self.in_out
    }

    pub(super) const fn set_authentic(&mut self, is_authentic: bool) {
        self.is_authentic = is_authentic;
    }

    /// Whether it was opened and is what was sealed, or was sealed.
    pub const fn is_authentic(&self) -> bool {
        self.is_authentic
    }

    #[cfg(target_arch = "x86_64")]
    fn text(&self) -> &[u8] {
        &self.in_out[..self.in_out.len() - TAG_BYTES]
    }

    pub(super) fn split(&mut self) -> (&mut [u8], &mut [u8; TAG_BYTES]) {
        self.in_out.split_last_chunk_mut().expect("a message has room for its tag")
    }
}

impl Kernel {
    /// Fewest messages that are worth their lanes: four take two thirds of the library's time, short or
    /// long ones; three of 64 bytes would take as long as there.
    pub const WORTHWHILE: usize = 4;

    /// The kernel of this processor, if there is one for it.
    ///
    /// # Errors
    /// There is one, and its self-test failed.
    pub fn find() -> Result<Option<Self>, SelfTestFailed> {
        let kernel = Self::detect();
        match kernel {
            Some(kernel) if !self_test::passes(kernel) => Err(SelfTestFailed),
            Some(_) | None => Ok(kernel),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn detect() -> Option<Self> {
        // Those that avx512::seal and avx512::open are compiled for.
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vbmi2"))
        .then_some(Self(Instructions::Avx512))
    }

    #[cfg(not(target_arch = "x86_64"))]
    const fn detect() -> Option<Self> {
        None
    }

    /// Encrypts each message in place and writes its tag behind it.
    ///
    /// # Panics
    /// If one has no room for its tag.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "no kernel here"))]
    pub(super) fn seal(self, key: &SymmetricKey, messages: &mut [Message<'_>]) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => messages.chunks_mut(LANES).for_each(|group| {
                // SAFETY: `detect`, the one maker of a kernel, has found all these instructions.
                unsafe { avx512::seal(key.as_bytes(), group) }
            }),
        }
    }

    /// Decrypts each message that is authentic in place; the others are zero afterwards.
    ///
    /// # Panics
    /// If one is shorter than a tag.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "no kernel here"))]
    pub(super) fn open(self, key: &SymmetricKey, messages: &mut [Message<'_>]) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => messages.chunks_mut(LANES).for_each(|group| {
                // SAFETY: `detect`, the one maker of a kernel, has found all these instructions.
                unsafe { avx512::open(key.as_bytes(), group) }
            }),
        }
    }
}
