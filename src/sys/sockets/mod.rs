//! Sockets that speak for others: connections, datagrams and echoes of a host that forwards without a
//! firewall's help.
//!
//! None of them blocks, and each carries the mark that keeps it out of a tunnel's own routes. What the
//! network says of datagrams is told whole: who said so, and about what.

mod datagram;
mod stream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use self::datagram::{Arrival, DatagramSocket, Fragments, Kind, Refusal, Said, TRAINS_A_CALL};
pub use self::stream::{Stream, is_abandoned, set_tcp_options};

/// Raises the number of descriptors that this process may have as far as it may itself, and returns
/// it.
pub fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    // Refused, it stays as it is.
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current };
    limit.unwrap_or(u64::MAX)
}
