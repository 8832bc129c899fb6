//! What peers reach through this host: forwarding as a matter of flows, without a firewall's help.
//!
//! - [`policy`]: where they may go.
//! - [`switch`]: what the device's engine says about it while it runs; [`tuning`]: what an operator may.
//! - [`port`]: stands where a TUN stands, and tells what is for whom.
//! - `engine`, `common`: which flow is meant, and whose turn it is; [`slots`], [`deadlines`], [`limits`]:
//!   how it is found, when it is looked at, and how many there may be.
//! - `mappings`: UDP and ICMP echo; `streams`, `open`: TCP, for which [`tcp`] is the end on the inside.
//! - `own`, [`exposed`]: what is for the tunnel's own addresses, where no kernel has them.
//! - [`gate`]: what this host itself wants in the tunnel.
//! - [`inner`], [`reassembly`]: packets of the inside.
//!
//! Whose packets these are has been settled before: a source is a peer's.

mod common;
pub mod deadlines;
mod engine;
pub mod exposed;
pub mod gate;
pub mod inner;
pub mod limits;
mod mappings;
mod open;
mod own;
pub mod policy;
pub mod port;
pub mod reassembly;
pub mod slots;
mod streams;
pub mod switch;
pub mod tcp;
pub mod tuning;

pub use self::tuning::FLOWS;

#[cfg(test)]
mod tests;
