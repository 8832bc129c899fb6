//! Everything about a device except its packets: configuration files, the UAPI, host changes and
//! the engine that owns the protocol state.
//!
//! Must not touch a packet: what has to be known per packet is handed down to `dataplane`.

pub mod command;
pub mod netlink;
pub mod uapi;
