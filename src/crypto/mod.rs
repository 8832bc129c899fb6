//! Primitives, and the only files that name a crypto dependency.
//!
//! Must not know WireGuard, hold a key without zeroizing it, or compare secrets with `==`.

pub mod aead;
#[allow(unsafe_code, reason = "instructions that only some processors have, and their loads")]
pub mod batch;
pub mod dh;
pub mod entropy;
pub mod hash;
pub mod key;
pub mod password;
pub mod tai64n;
