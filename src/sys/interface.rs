//! Names and numbers of network interfaces.

use std::fs;

use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// The name of the interface with that index in the current network namespace, if there is one.
pub fn name_of(index: u32) -> Option<String> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    index_to_name(socket, index).ok()
}

/// Whether an interface has an IPv6 address that is for more than its link.
/// [LNX addrconf.c:if6_seq_show]
pub fn has_ipv6(interface: &str) -> bool {
    const LINK: &str = "20";
    let table = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    table.lines().any(|row| {
        let mut columns = row.split_ascii_whitespace();
        columns.nth(3) != Some(LINK) && columns.nth(1) == Some(interface)
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_first_interface_of_every_namespace_is_lo() {
        assert_eq!(name_of(1).as_deref(), Some("lo"));
        assert_eq!(name_of(u32::MAX), None);
    }

    #[test]
    fn lo_has_ipv6_where_the_host_has() {
        assert_eq!(has_ipv6("lo"), UdpSocket::bind("[::1]:0").is_ok());
        assert!(!has_ipv6("l"));
    }
}
