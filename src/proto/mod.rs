//! WireGuard as a pure state machine.
//!
//! Inputs are datagrams, instants and random bytes handed in; outputs are values. Must not read a
//! clock, a socket or the system's randomness, take a lock, or do I/O. [WG §5, §6]

pub mod allowed_ips;
pub mod constants;
pub mod cookie;
pub mod device;
pub mod drop_reason;
pub mod endpoint;
pub mod handshake;
pub mod index;
pub mod keypair;
pub mod noise;
pub mod padding;
pub mod path_mtu;
pub mod peer;
pub mod peer_id;
pub mod places;
pub mod ratelimit;
pub mod replay;
pub mod timers;
