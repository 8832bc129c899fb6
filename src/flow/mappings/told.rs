//! What the network says of datagrams of a peer's, told to the peer as if it had been said of them.

use std::net::{IpAddr, SocketAddr};

use super::{ERRORS_A_TURN, Mapping, QUOTE_BYTES};
use crate::flow::common::Common;
use crate::flow::inner::{quote_echo, quote_udp};
use crate::sys::SysError;
use crate::sys::sockets::{Kind, Refusal};
use crate::time::Instant;
use crate::wire::icmp::{Problem, Told};

impl Mapping {
    /// Passes on what was said of datagrams. Yields what fits, in bytes of a packet, if this host itself
    /// has said so, which is of the last datagram.
    pub(super) fn hear(&mut self, kind: Kind, common: &mut Common, now: Instant) -> Option<u16> {
        let (mut quote, mut fits) = ([0; QUOTE_BYTES], None);
        for _ in 0..ERRORS_A_TURN {
            let Some(said) = self.socket.next_said(&mut quote) else { break };
            // A raw socket is told of the echoes of others as well.
            let own = self.socket.identifier().map(u16::to_be_bytes);
            let is_others = own.is_some_and(|own| quote[..said.quoted].get(4..6) != Some(&own));
            match said.refusal {
                Refusal::Icmp { .. } if is_others => {}
                // What is behind the port is nobody's business.
                Refusal::Icmp { .. } if self.front.is_some() => {
                    if let Some(packet) = self.packet_to(kind, said.to, &quote[..said.quoted]) {
                        common.refuse(now, self.peer, &packet, Problem::PortUnreachable);
                    }
                }
                Refusal::Icmp { from, kind: icmp_kind, code, info } => {
                    let told = Told { from, kind: icmp_kind, code, word: info };
                    if is_for_peers(self.inner.is_ipv4(), told)
                        && let Some(packet) = self.packet_to(kind, said.to, &quote[..said.quoted])
                    {
                        common.pass_on(now, self.peer, &packet, told);
                    }
                }
                Refusal::TooBig { mtu } => fits = Some(u16::try_from(mtu).unwrap_or(u16::MAX)),
                Refusal::Local { .. } => {}
            }
        }
        fits
    }

    /// The peer's packet to `remote` that began with `bytes`.
    pub(super) fn packet_to(
        &self,
        kind: Kind,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        let bytes = &bytes[..bytes.len().min(QUOTE_BYTES)];
        let remote = self.front.map_or(remote, |front| front.own);
        match kind {
            Kind::Udp => quote_udp(self.inner, remote, bytes),
            Kind::Echo => quote_echo(self.inner.ip(), remote.ip(), self.inner.port(), bytes),
        }
    }
}

/// Errors that a router passes on, of all that there are.
const fn is_for_peers(is_v4: bool, told: Told) -> bool {
    match (is_v4, told.from) {
        (true, IpAddr::V4(_)) => matches!(told.kind, 3 | 11 | 12),
        (false, IpAddr::V6(_)) => matches!(told.kind, 1..=4),
        (true, IpAddr::V6(_)) | (false, IpAddr::V4(_)) => false,
    }
}

/// What a peer is told of an error of this host's; nothing of one that passes.
pub(in crate::flow) fn problem_of(error: &SysError) -> Option<Problem> {
    if error.is_network_unreachable() {
        Some(Problem::NoRoute)
    } else if error.is_host_unreachable() {
        Some(Problem::HostUnreachable)
    } else if error.is_not_permitted() {
        Some(Problem::Prohibited)
    } else {
        None
    }
}
