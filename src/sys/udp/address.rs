//! Socket addresses in the memory layout of the kernel, converted as plain bytes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for a `sockaddr_in6`, the longer of the two.
pub(in crate::sys) const BYTES: usize = size_of::<libc::sockaddr_in6>();

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(in crate::sys) struct RawAddress {
    bytes: [u8; BYTES],
}

impl RawAddress {
    pub(in crate::sys) const EMPTY: Self = Self { bytes: [0; BYTES] };

    /// The layout the kernel reads, and how many bytes of it count.
    pub(in crate::sys) fn encode(address: SocketAddr) -> (Self, usize) {
        let mut raw = Self::EMPTY;
        let bytes = &mut raw.bytes;
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                bytes[..2].copy_from_slice(&family(libc::AF_INET));
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                (raw, size_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(v6) => {
                bytes[..2].copy_from_slice(&family(libc::AF_INET6));
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (raw, size_of::<libc::sockaddr_in6>())
            }
        }
    }

    /// What the kernel wrote; `None` for a family that is neither, which it never writes here. The
    /// flow label is dropped: an answer need not repeat it.
    pub(in crate::sys) fn decode(&self) -> Option<SocketAddr> {
        let [f0, f1, p0, p1, rest @ ..] = &self.bytes;
        let port = u16::from_be_bytes([*p0, *p1]);
        if [*f0, *f1] == family(libc::AF_INET) {
            let octets: [u8; 4] = *rest.first_chunk()?;
            return Some(SocketAddrV4::new(Ipv4Addr::from(octets), port).into());
        }
        if [*f0, *f1] == family(libc::AF_INET6) {
            let octets: [u8; 16] = *rest.get(4..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*rest.get(20..)?.first_chunk()?);
            return Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope).into());
        }
        None
    }

    pub(in crate::sys) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.bytes.as_mut_ptr().cast()
    }
}

fn family(number: libc::c_int) -> [u8; 2] {
    libc::sa_family_t::try_from(number).unwrap_or(0).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_ipv4_address_comes_back_as_encoded(octets: [u8; 4], port: u16) {
            let address = SocketAddr::from((octets, port));
            let (raw, len) = RawAddress::encode(address);
            prop_assert_eq!(len, 16);
            prop_assert_eq!(raw.decode(), Some(address));
        }

        #[test]
        fn an_ipv6_address_comes_back_with_its_scope(octets: [u8; 16], port: u16, scope: u32) {
            let address = SocketAddr::from(SocketAddrV6::new(octets.into(), port, 0, scope));
            let (raw, len) = RawAddress::encode(address);
            prop_assert_eq!(len, 28);
            prop_assert_eq!(raw.decode(), Some(address));
        }
    }

    #[test]
    fn memory_the_kernel_did_not_write_is_no_address() {
        assert_eq!(RawAddress::EMPTY.decode(), None);
    }
}
