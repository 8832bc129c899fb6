//! One WireGuard interface as a pure state machine. [WG §5, §6]

mod change;
mod output;

pub use change::{AllowedIpChange, Change, ConfigureError, PeerUpdate};
pub use output::{Destination, Event, Load, Output, Outputs, SmallDatagram};
