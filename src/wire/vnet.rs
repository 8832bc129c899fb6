//! The virtio-net header that a TUN device with `IFF_VNET_HDR` puts before each packet.
//! [LNX include/uapi/linux/virtio_net.h:virtio_net_hdr]
//!
//! It says what of a packet is still to be done: a checksum, a segmentation. All fields are in the
//! byte order of the host. What cannot be understood is refused: a wrong guess would put garbage on
//! the wire. Whether the header fits its packet is for the reader of the packet to see.

/// Bytes of the header, unless `TUNSETVNETHDRSZ` made it longer.
pub const VNET_HEADER_BYTES: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
/// The kernel has verified the packet's checksum.
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What is still to be done to a packet; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// The transport checksum holds the sum of the pseudo header only.
    pub checksum: Option<PartialChecksum>,
    /// The packet is several in one.
    pub gso: Option<Gso>,
    /// A hint: bytes that should lie together at the start of the packet. The kernel's own value is
    /// not the length of the headers.
    pub header_length: u16,
}

/// Where a checksum is to be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the bytes that it covers start, in bytes from the start of the packet; they end with it.
    pub start: u16,
    /// Where it is, in bytes from `start`.
    pub offset: u16,
}

/// How a super-packet is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    pub kind: GsoKind,
    /// Payload bytes of each packet but the last, which may have fewer.
    pub size: u16,
    /// CWR is set, and belongs to the first packet only.
    pub ecn: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    TcpV4,
    TcpV6,
    /// UDP over either IP version.
    UdpL4,
}

/// A header that asks for what we do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VnetError {
    UnknownFlags(u8),
    UnknownGso(u8),
}

impl VnetHeader {
    /// Reads what the kernel wrote. That it has verified a checksum is not kept.
    ///
    /// # Errors
    /// The header bears flags or a segmentation that nobody asked the kernel for.
    pub const fn parse(bytes: &[u8; VNET_HEADER_BYTES]) -> Result<Self, VnetError> {
        let [flags, gso, l0, l1, s0, s1, c0, c1, o0, o1] = *bytes;
        if flags & !(NEEDS_CHECKSUM | DATA_VALID) != 0 {
            return Err(VnetError::UnknownFlags(flags));
        }
        let checksum = if flags & NEEDS_CHECKSUM != 0 {
            Some(PartialChecksum {
                start: u16::from_ne_bytes([c0, c1]),
                offset: u16::from_ne_bytes([o0, o1]),
            })
        } else {
            None
        };
        let kind = match gso & !GSO_ECN {
            GSO_NONE if gso == GSO_NONE => None,
            GSO_TCP_V4 => Some(GsoKind::TcpV4),
            GSO_TCP_V6 => Some(GsoKind::TcpV6),
            GSO_UDP_L4 if gso == GSO_UDP_L4 => Some(GsoKind::UdpL4),
            _ => return Err(VnetError::UnknownGso(gso)),
        };
        let gso = match kind {
            Some(kind) => {
                Some(Gso { kind, size: u16::from_ne_bytes([s0, s1]), ecn: gso & GSO_ECN != 0 })
            }
            None => None,
        };
        Ok(Self { checksum, gso, header_length: u16::from_ne_bytes([l0, l1]) })
    }

    /// The header as the kernel reads it.
    pub const fn to_bytes(&self) -> [u8; VNET_HEADER_BYTES] {
        let (flags, start, offset) = match self.checksum {
            Some(PartialChecksum { start, offset }) => (NEEDS_CHECKSUM, start, offset),
            None => (0, 0, 0),
        };
        let (gso, size) = match self.gso {
            Some(Gso { kind, size, ecn }) => {
                let kind = match kind {
                    GsoKind::TcpV4 => GSO_TCP_V4,
                    GsoKind::TcpV6 => GSO_TCP_V6,
                    GsoKind::UdpL4 => GSO_UDP_L4,
                };
                (if ecn { kind | GSO_ECN } else { kind }, size)
            }
            None => (GSO_NONE, 0),
        };
        let [l0, l1] = self.header_length.to_ne_bytes();
        let [s0, s1] = size.to_ne_bytes();
        let [c0, c1] = start.to_ne_bytes();
        let [o0, o1] = offset.to_ne_bytes();
        [flags, gso, l0, l1, s0, s1, c0, c1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(flags: u8, gso: u8, fields: [u16; 4]) -> [u8; 10] {
        let mut bytes = [flags, gso, 0, 0, 0, 0, 0, 0, 0, 0];
        for (slot, field) in bytes[2..].chunks_exact_mut(2).zip(fields) {
            slot.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn a_super_packet_of_the_kernel_is_read_and_written_alike() {
        let tcp = bytes(1, 1, [98, 1368, 20, 16]);
        let header = VnetHeader {
            checksum: Some(PartialChecksum { start: 20, offset: 16 }),
            gso: Some(Gso { kind: GsoKind::TcpV4, size: 1368, ecn: false }),
            header_length: 98,
        };
        assert_eq!(VnetHeader::parse(&tcp), Ok(header));
        assert_eq!(header.to_bytes(), tcp);
        for (code, kind, ecn) in [
            (0x81, GsoKind::TcpV4, true),
            (4, GsoKind::TcpV6, false),
            (0x84, GsoKind::TcpV6, true),
            (5, GsoKind::UdpL4, false),
        ] {
            let bytes = bytes(0, code, [0, 1, 0, 0]);
            let header = VnetHeader::parse(&bytes).unwrap();
            assert_eq!(header.gso, Some(Gso { kind, size: 1, ecn }), "{code:#x}");
            assert_eq!(header.checksum, None);
            assert_eq!(header.to_bytes(), bytes);
        }
    }

    #[test]
    fn nothing_to_do_is_ten_zeros() {
        assert_eq!(VnetHeader::default().to_bytes(), [0; 10]);
        assert_eq!(VnetHeader::parse(&[0; 10]), Ok(VnetHeader::default()));
        // A verified checksum leaves nothing to do, and what is not said to be valid is not read.
        assert_eq!(VnetHeader::parse(&bytes(2, 0, [0, 9, 9, 9])), Ok(VnetHeader::default()));
    }

    #[test]
    fn what_is_not_known_is_refused_and_never_guessed() {
        for gso in 0..=u8::MAX {
            let known = [0, 1, 4, 5, 0x81, 0x84].contains(&gso);
            let parsed = VnetHeader::parse(&bytes(1, gso, [0, 1, 0, 0]));
            assert_eq!(parsed.is_ok(), known, "{gso:#x}");
            assert!(known || parsed == Err(VnetError::UnknownGso(gso)));
        }
        for flags in 4..=u8::MAX {
            let parsed = VnetHeader::parse(&bytes(flags, 0, [0; 4]));
            assert_eq!(parsed, Err(VnetError::UnknownFlags(flags)));
        }
    }
}
