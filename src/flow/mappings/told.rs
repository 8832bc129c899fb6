//! What the network says of datagrams of a peer's, told to the peer as if it had been said of them.

use std::net::{IpAddr, SocketAddr};

use super::{ECHO_HEADER_BYTES, ERRORS_A_TURN, Mapping, QUOTE_BYTES};
use crate::flow::common::Common;
use crate::flow::inner::{ip_header_bytes, write_ip, write_udp};
use crate::sys::SysError;
use crate::sys::sockets::{Kind, Refusal};
use crate::time::Instant;
use crate::wire::checksum;
use crate::wire::icmp::{Problem, Told};
use crate::wire::ip::{PROTOCOL_ICMP, PROTOCOL_ICMPV6};
use crate::wire::transport::UDP_HEADER_BYTES;

impl Mapping {
    /// Passes on what was said of datagrams. Yields what fits, in bytes of a packet, if this host itself
    /// has said so, which is of the last datagram.
    pub(super) fn hear(&mut self, kind: Kind, common: &mut Common, now: Instant) -> Option<u16> {
        let (mut quote, mut fits) = ([0; QUOTE_BYTES], None);
        for _ in 0..ERRORS_A_TURN {
            let Some(said) = self.socket.next_said(&mut quote) else { break };
            match said.refusal {
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
        let ip_bytes = ip_header_bytes(self.inner.is_ipv4());
        let (source, to) = (self.inner.ip(), remote.ip());
        match kind {
            Kind::Udp => {
                let headers = ip_bytes + UDP_HEADER_BYTES;
                let mut packet = vec![0; headers + bytes.len()];
                packet[headers..].copy_from_slice(bytes);
                write_udp(&mut packet, self.inner, remote, 0)?;
                Some(packet)
            }
            Kind::Echo => {
                let (head, _) = bytes.split_first_chunk::<ECHO_HEADER_BYTES>()?;
                let mut packet = vec![0; ip_bytes + bytes.len()];
                let message = &mut packet[ip_bytes..];
                message.copy_from_slice(bytes);
                // The identifier is the peer's again. The checksum is over what is not quoted as well.
                let ours = u16::from_be_bytes([head[4], head[5]]);
                let sum = u16::from_be_bytes([head[2], head[3]]);
                let sum = checksum::update(sum, ours, self.inner.port());
                message[2..4].copy_from_slice(&sum.to_be_bytes());
                message[4..6].copy_from_slice(&self.inner.port().to_be_bytes());
                let protocol = if source.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
                write_ip(&mut packet, source, to, protocol, 0)?;
                Some(packet)
            }
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
