//! What peers reach through this host: forwarding as a matter of flows.
//!
//! Must not know WireGuard: whose packets these are has been settled before.

pub mod policy;
pub mod tcp;
