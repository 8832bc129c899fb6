//! Where a peer is reached, and from which of our addresses. [WG §2.1]

use std::net::{IpAddr, SocketAddr};

/// The outer address of a peer, and the local address it last spoke to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub remote: SocketAddr,
    /// Replies leave from here, so that a host with several addresses answers from the one it was
    /// asked at; `None` lets the routing table choose. [LNX socket.c:wg_socket_set_peer_endpoint]
    pub local: Option<LocalSource>,
}

impl Endpoint {
    /// An endpoint that a person named: the routing table chooses the source.
    pub const fn new(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}

/// A local address and the interface that a datagram came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalSource {
    pub address: IpAddr,
    /// Interface index of the kernel; 0 when it is not known.
    pub interface: u32,
}
