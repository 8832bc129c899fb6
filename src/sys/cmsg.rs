//! Control messages of `recvmsg` and `sendmsg`, encoded and decoded as plain bytes.
//!
//! The layout is that of cmsg(3): a header of length (`size_t`), level and type, the payload, and
//! padding to the size of `size_t`. Nothing here needs `unsafe`, and a decoder fed with garbage
//! yields fewer messages, never a panic.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = size_of::<usize>() + 2 * size_of::<libc::c_int>();

/// Enough for packet info, TOS and either a segment size or an error, on 64-bit machines.
const CAPACITY: usize = 160;

const fn aligned(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

/// One message's control data, in memory the kernel may read or fill.
#[derive(Clone, Debug)]
#[repr(C, align(8))]
pub struct ControlBuffer {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl Default for ControlBuffer {
    fn default() -> Self {
        Self { bytes: [0; CAPACITY], len: 0 }
    }
}

impl ControlBuffer {
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The encoded messages.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// All of the memory, for the kernel to fill; follow with [`set_len`](Self::set_len).
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// How much of [`space`](Self::space) the kernel has filled. The C libraries disagree about the types of
    /// such lengths and flags, so that callers convert by `as _`: musl's are narrower, and hold them all.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(CAPACITY);
    }

    /// Asks for a traffic class (DSCP and ECN) of an IPv4 datagram.
    pub fn push_tos_v4(&mut self, tos: u8) {
        self.push(libc::IPPROTO_IP, libc::IP_TOS, &libc::c_int::from(tos).to_ne_bytes());
    }

    /// Asks for a traffic class (DSCP and ECN) of an IPv6 datagram.
    pub fn push_tclass_v6(&mut self, tclass: u8) {
        self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &libc::c_int::from(tclass).to_ne_bytes());
    }

    /// Asks for a source address, and with a non-zero `interface` for an outgoing interface.
    pub fn push_packet_info_v4(&mut self, source: Ipv4Addr, interface: u32) {
        // struct in_pktinfo: interface, source, destination (ignored when sending).
        let mut info = [0; 12];
        info[..4].copy_from_slice(&interface.to_ne_bytes());
        info[4..8].copy_from_slice(&source.octets());
        self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
    }

    /// Asks for a source address, and with a non-zero `interface` for an outgoing interface.
    pub fn push_packet_info_v6(&mut self, source: Ipv6Addr, interface: u32) {
        // struct in6_pktinfo: source, interface.
        let mut info = [0; 20];
        info[..16].copy_from_slice(&source.octets());
        info[16..].copy_from_slice(&interface.to_ne_bytes());
        self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
    }

    /// Asks for the payload to be cut into datagrams of `bytes`. [LNX udp.h:UDP_SEGMENT]
    pub fn push_segment_size(&mut self, bytes: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &bytes.to_ne_bytes());
    }

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, payload: &[u8]) {
        let message = HEADER + payload.len();
        let end = self.len + aligned(message);
        debug_assert!(end <= CAPACITY, "control messages outgrew their buffer");
        let Some(slot) = self.bytes.get_mut(self.len..end) else {
            return;
        };
        slot.fill(0);
        let (header, data) = slot.split_at_mut(HEADER);
        let (length, level_and_kind) = header.split_at_mut(size_of::<usize>());
        length.copy_from_slice(&message.to_ne_bytes());
        level_and_kind[..4].copy_from_slice(&level.to_ne_bytes());
        level_and_kind[4..].copy_from_slice(&kind.to_ne_bytes());
        data[..payload.len()].copy_from_slice(payload);
        self.len = end;
    }
}

/// What the kernel tells about a received datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The address the datagram was sent to, and the index of the interface it came in by.
    pub local: Option<(IpAddr, u32)>,
    /// IPv4 TOS or IPv6 traffic class.
    pub tos: u8,
    /// Bytes of each datagram but the last, of several that the kernel has joined.
    pub segment_size: Option<usize>,
}

impl Received {
    /// Reads the control messages of one datagram; those not asked for are skipped.
    pub fn decode(control: &[u8]) -> Self {
        let mut received = Self::default();
        for message in Messages(control) {
            received.take(&message);
        }
        received
    }

    fn take(&mut self, message: &Message<'_>) {
        match (message.level, message.kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // The second word (spec_dst) is the local address to answer from; for a datagram
                // sent to a broadcast address it differs from the third, the header's.
                if let (Some(interface), Some(local)) =
                    (word(message.payload, 0), word(message.payload, 4))
                {
                    self.local =
                        Some((Ipv4Addr::from(local).into(), u32::from_ne_bytes(interface)));
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let (Some(local), Some(interface)) =
                    (message.payload.first_chunk::<16>(), word(message.payload, 16))
                {
                    self.local =
                        Some((Ipv6Addr::from(*local).into(), u32::from_ne_bytes(interface)));
                }
            }
            // One byte by IP_RECVTOS; an int by IPV6_RECVTCLASS.
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                self.tos = message.payload.first().copied().unwrap_or(0)
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                let class = word(message.payload, 0).map_or(0, i32::from_ne_bytes);
                self.tos = u8::try_from(class).unwrap_or(0);
            }
            // An int, though it is set by a `u16`. [LNX udp.h:UDP_GRO]
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let bytes = word(message.payload, 0).map_or(0, i32::from_ne_bytes);
                self.segment_size = usize::try_from(bytes).ok().filter(|&bytes| bytes > 0);
            }
            _ => {}
        }
    }
}

/// What the error in the control messages of an error queue says fits, if that is what it is about:
/// bytes of an outer packet. [LNX include/uapi/linux/errqueue.h:sock_extended_err]
pub fn narrower_path(control: &[u8]) -> Option<u32> {
    let errors = [(libc::IPPROTO_IP, libc::IP_RECVERR), (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)];
    Messages(control).filter(|message| errors.contains(&(message.level, message.kind))).find_map(
        |message| {
            let errno = u32::from_ne_bytes(word(message.payload, 0)?);
            let info = u32::from_ne_bytes(word(message.payload, 8)?);
            (errno == libc::EMSGSIZE.unsigned_abs() && info != 0).then_some(info)
        },
    )
}

/// What an error queue says of one datagram. [LNX include/uapi/linux/errqueue.h:sock_extended_err]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    pub errno: i32,
    /// Who says so: `SO_EE_ORIGIN_…`.
    pub origin: u8,
    /// Type and code of the ICMP message, if it was one.
    pub kind: u8,
    pub code: u8,
    /// For errors about sizes, the bytes of a whole packet that would fit.
    pub info: u32,
    /// Who sent the ICMP message.
    pub offender: Option<IpAddr>,
}

impl ExtendedError {
    /// Finds the error in the control messages of an error queue.
    pub fn decode(control: &[u8]) -> Option<Self> {
        let errors =
            [(libc::IPPROTO_IP, libc::IP_RECVERR), (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)];
        let message =
            Messages(control).find(|message| errors.contains(&(message.level, message.kind)))?;
        let [origin, kind, code, _] = word(message.payload, 4)?;
        // The address of the offender follows, of family 0 if there is none.
        let family = message.payload.get(16..18).and_then(|bytes| bytes.first_chunk().copied());
        let family = family.map_or(0, u16::from_ne_bytes);
        let offender = match libc::c_int::from(family) {
            libc::AF_INET => word(message.payload, 20).map(|octets| Ipv4Addr::from(octets).into()),
            libc::AF_INET6 => message
                .payload
                .get(24..)
                .and_then(|rest| rest.first_chunk::<16>())
                .map(|octets| Ipv6Addr::from(*octets).into()),
            _ => None,
        };
        Some(Self {
            errno: i32::from_ne_bytes(word(message.payload, 0)?),
            origin,
            kind,
            code,
            info: u32::from_ne_bytes(word(message.payload, 8)?),
            offender,
        })
    }
}

fn word(payload: &[u8], offset: usize) -> Option<[u8; 4]> {
    payload.get(offset..)?.first_chunk().copied()
}

struct Message<'a> {
    level: libc::c_int,
    kind: libc::c_int,
    payload: &'a [u8],
}

/// Iterates over encoded messages; ends at the first that is not whole.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::from_ne_bytes(*self.0.first_chunk()?);
        let level = word(self.0, size_of::<usize>())?;
        let kind = word(self.0, size_of::<usize>() + 4)?;
        let payload = self.0.get(HEADER..length)?;
        // The last message need not be padded. `length` is at most the buffer's, so no overflow.
        self.0 = self.0.get(aligned(length)..).unwrap_or(&[]);
        Some(Message { level: i32::from_ne_bytes(level), kind: i32::from_ne_bytes(kind), payload })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_is_as_large_as_the_c_library_says() {
        assert_eq!(HEADER, size_of::<libc::cmsghdr>());
    }

    #[test]
    fn ipv4_packet_info_and_tos_come_back_as_encoded() {
        let mut control = ControlBuffer::default();
        control.push_tos_v4(0x8a);
        control.push_packet_info_v4(Ipv4Addr::new(192, 0, 2, 7), 3);
        let received = Received::decode(control.as_bytes());
        assert_eq!(received.local, Some((IpAddr::from([192, 0, 2, 7]), 3)));
        // The kernel sends one byte where it takes an int: both begin with the value here only on
        // little-endian machines, so ask for the value's own bytes.
        assert_eq!(received.tos, 0x8a_i32.to_ne_bytes()[0]);
    }

    #[test]
    fn ipv6_packet_info_and_traffic_class_come_back_as_encoded() {
        let mut control = ControlBuffer::default();
        let local = "2001:db8::7".parse().unwrap();
        control.push_tclass_v6(2);
        control.push_packet_info_v6(local, 9);
        let received = Received::decode(control.as_bytes());
        let local = Some((local.into(), 9));
        assert_eq!(received, Received { local, tos: 2, segment_size: None });
    }

    #[test]
    fn the_size_of_joined_datagrams_is_a_positive_int() {
        for (told, expected) in [(1452_i32, Some(1452)), (0, None), (-1, None)] {
            let mut control = ControlBuffer::default();
            control.push(libc::SOL_UDP, libc::UDP_GRO, &told.to_ne_bytes());
            assert_eq!(Received::decode(control.as_bytes()).segment_size, expected);
        }
    }

    #[test]
    fn a_cleared_buffer_holds_nothing() {
        let mut control = ControlBuffer::default();
        control.push_tos_v4(1);
        control.clear();
        assert!(control.as_bytes().is_empty());
        assert_eq!(Received::decode(control.as_bytes()), Received::default());
    }

    #[test]
    fn a_message_longer_than_its_buffer_ends_the_decoding() {
        let mut control = ControlBuffer::default();
        control.push_packet_info_v4(Ipv4Addr::LOCALHOST, 1);
        let whole = control.as_bytes();
        for cut in 0..HEADER + 12 {
            assert_eq!(Received::decode(&whole[..cut]), Received::default(), "{cut} bytes");
        }
        let mut lying = whole.to_vec();
        lying[..size_of::<usize>()].copy_from_slice(&usize::MAX.to_ne_bytes());
        assert_eq!(Received::decode(&lying), Received::default());
        lying[..size_of::<usize>()].copy_from_slice(&0_usize.to_ne_bytes());
        assert_eq!(Received::decode(&lying), Received::default());
    }

    proptest! {
        #[test]
        fn garbage_is_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0_usize..64) {
            let mut bytes = bytes;
            if let Some(head) = bytes.first_chunk_mut() {
                *head = length.to_ne_bytes();
            }
            Received::decode(&bytes);
        }
    }
}
