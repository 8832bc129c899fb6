//! Primitives, and the only files that name a crypto dependency.
//!
//! Must not know WireGuard, hold a key without zeroizing it, or compare secrets with `==`.

pub mod entropy;
pub mod key;
pub mod tai64n;
