//! Names and numbers of network interfaces.

use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// The name of the interface with that index in the current network namespace, if there is one.
pub fn name_of(index: u32) -> Option<String> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    index_to_name(socket, index).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_interface_of_every_namespace_is_lo() {
        assert_eq!(name_of(1).as_deref(), Some("lo"));
        assert_eq!(name_of(u32::MAX), None);
    }
}
