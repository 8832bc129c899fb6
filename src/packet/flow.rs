//! Which flow a packet is of, as far as its headers tell without a look at other packets.

use crate::wire::ip::{IPV4_HEADER_BYTES, IPV6_FRAGMENT_HEADER, IPV6_HEADER_BYTES, PROTOCOL_TCP};

/// A number that all packets of a flow have, and other flows hardly ever.
///
/// Flows of TCP are told apart by their ports, all else by protocol and addresses only: fragments but
/// the first do not show ports, and would overtake datagrams of their flow that need no cutting. Of
/// TCP, which avoids them, fragments are a flow by themselves.
pub fn flow_of(packet: &[u8]) -> u32 {
    let (addresses, protocol, transport_at) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            let Some(header) = packet.first_chunk::<IPV4_HEADER_BYTES>() else { return 0 };
            // More fragments, or an offset.
            let is_fragment = header[6] & 0x3f != 0 || header[7] != 0;
            let header_bytes = usize::from(header[0] & 0xf) * 4;
            (&header[12..], header[9], (!is_fragment).then_some(header_bytes))
        }
        Some(6) => {
            let Some(header) = packet.first_chunk::<IPV6_HEADER_BYTES>() else { return 0 };
            let (protocol, at) = match (header[6], packet.get(IPV6_HEADER_BYTES)) {
                (IPV6_FRAGMENT_HEADER, Some(protocol)) => (*protocol, None),
                (protocol, _) => (protocol, Some(IPV6_HEADER_BYTES)),
            };
            (&header[8..], protocol, at)
        }
        _ => return 0,
    };
    let hash = fold(u64::from(protocol), addresses);
    let ports = transport_at
        .filter(|_| protocol == PROTOCOL_TCP)
        .and_then(|at| packet.get(at..)?.first_chunk::<4>());
    mix(ports.map_or(hash, |ports| fold(hash, ports)))
}

/// Hashes `bytes` on top of `seed`, in words of four bytes.
#[inline]
pub(super) fn fold(seed: u64, bytes: &[u8]) -> u64 {
    bytes.as_chunks::<4>().0.iter().fold(seed, |hash, word| {
        (hash.rotate_left(23) ^ u64::from(u32::from_ne_bytes(*word)))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// The bits of a hash that depend on all that went into it.
#[inline]
pub(super) const fn mix(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::sample::Sample;
    use crate::wire::ip::IPV6_FRAGMENT_HEADER_BYTES;

    /// The first of two fragments, and the second.
    fn fragments(sample: &Sample) -> [Vec<u8>; 2] {
        let packet = sample.packet();
        if !sample.is_v6 {
            let (mut first, mut second) = (packet.clone(), packet);
            first[6..8].copy_from_slice(&[0x20, 0]);
            second[6..8].copy_from_slice(&[0, 9]);
            second[20..].fill(0x5a);
            return [first, second];
        }
        [[0, 1], [0, 72]].map(|offset| {
            let mut fragment = packet.clone();
            fragment[6] = IPV6_FRAGMENT_HEADER;
            let mut header = [0; IPV6_FRAGMENT_HEADER_BYTES];
            header[0] = packet[6];
            header[2..4].copy_from_slice(&offset);
            fragment.splice(IPV6_HEADER_BYTES..IPV6_HEADER_BYTES, header);
            if offset[1] != 1 {
                fragment[IPV6_HEADER_BYTES + header.len()..].fill(0x5a);
            }
            fragment
        })
    }

    #[test]
    fn connections_are_flows_of_their_own_whatever_they_carry() {
        for is_v6 in [false, true] {
            let sample = Sample::tcp(is_v6, 100);
            let flow = flow_of(&sample.packet());
            let same = Sample { id: 9, class: 8, hop_limit: 3, ..Sample::tcp(is_v6, 7) };
            assert_eq!(flow_of(&same.packet()), flow);
            let others = [
                Sample { port: sample.port + 1, ..sample.clone() },
                Sample { host: sample.host + 1, ..sample.clone() },
                Sample::udp(is_v6, 100),
            ];
            for other in others {
                assert_ne!(flow_of(&other.packet()), flow, "{other:?}");
            }
        }
        let behind_options = Sample { ip_options: vec![1; 8], ..Sample::tcp(false, 100) };
        let flow = flow_of(&behind_options.packet());
        assert_eq!(flow, flow_of(&Sample::tcp(false, 100).packet()));
    }

    #[test]
    fn fragments_are_of_one_flow_and_those_of_udp_of_the_flow_of_whole_datagrams() {
        for is_v6 in [false, true] {
            let [first, second] = fragments(&Sample::tcp(is_v6, 100)).map(|it| flow_of(&it));
            assert_eq!(first, second);
            let udp = Sample::udp(is_v6, 100);
            for fragment in fragments(&udp) {
                assert_eq!(flow_of(&fragment), flow_of(&udp.packet()));
            }
        }
    }

    #[test]
    fn what_is_cut_or_foreign_is_of_some_flow() {
        for is_v6 in [false, true] {
            let packet = Sample::tcp(is_v6, 0).packet();
            for len in 0..packet.len() {
                flow_of(&packet[..len]);
            }
        }
        assert_eq!(flow_of(&[0x55; 60]), 0);
    }
}
