//! Addresses of an interface.

use ipnet::IpNet;
use netlink_bindings::rt_addr::{Ifaddrmsg, Request};

use super::{Link, Netlink, NetlinkError, family, family_flag};

impl Netlink {
    /// Gives the interface an address; the host bits of `address` are the address, its prefix
    /// length the network that becomes reachable through the interface.
    ///
    /// IPv6 duplicate detection is off: it can only delay, since a tunnel has no neighbours.
    ///
    /// # Errors
    /// An address that it has ([`NetlinkError::is_present`]), IPv6 switched off on it, no right.
    pub fn add_address(&mut self, link: &Link, address: IpNet) -> Result<(), NetlinkError> {
        let mut request =
            Request::new().set_create().set_excl().op_newaddr_do(&header(link, address));
        let mut attributes =
            request.encode().push_local(address.addr()).push_address(address.addr());
        if address.addr().is_ipv6() {
            attributes = attributes.push_flags(libc::IFA_F_NODAD);
        }
        attributes.end_nested();
        self.change(&request, || command("add", link, address))
    }

    /// Takes an address from the interface.
    ///
    /// # Errors
    /// An address that it does not have ([`NetlinkError::is_absent`]), no right.
    pub fn delete_address(&mut self, link: &Link, address: IpNet) -> Result<(), NetlinkError> {
        let mut request = Request::new().op_deladdr_do(&header(link, address));
        request.encode().push_local(address.addr()).end_nested();
        self.change(&request, || command("delete", link, address))
    }

    /// The addresses of the interface, link-local ones included, in the kernel's order.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn addresses(&mut self, link: &Link) -> Result<Vec<IpNet>, NetlinkError> {
        let mut found = Vec::new();
        let request = Request::new().op_getaddr_dump(&Ifaddrmsg::new());
        let action = || format!("ip address show dev {}", link.name);
        self.query(&request, action, |(header, attributes)| {
            // IPv4 has both attributes and means IFA_LOCAL; IPv6 has IFA_ADDRESS alone.
            let address = attributes.get_local().or_else(|_| attributes.get_address());
            if header.ifa_index == link.index
                && let Ok(address) = address
                && let Ok(network) = IpNet::new(address, header.ifa_prefixlen)
            {
                found.push(network);
            }
        })?;
        Ok(found)
    }
}

fn header(link: &Link, address: IpNet) -> Ifaddrmsg {
    Ifaddrmsg {
        ifa_family: family(address.addr()),
        ifa_prefixlen: address.prefix_len(),
        ifa_index: link.index,
        ..Ifaddrmsg::new()
    }
}

fn command(verb: &str, link: &Link, address: IpNet) -> String {
    format!("ip {} address {verb} {address} dev {}", family_flag(address.addr()), link.name)
}
