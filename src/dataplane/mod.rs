//! Moves packets between an IP port and a datagram port.

pub mod memory_port;
pub mod port;
