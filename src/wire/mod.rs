//! Bytes: headers and messages as they are on the wire.
//!
//! Must not allocate, keep state, or panic on any input.

pub mod checksum;
pub mod fragment;
pub mod icmp;
pub mod ip;
pub mod message;
pub mod mss;
pub mod transport;
pub mod vnet;
