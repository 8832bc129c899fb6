//! Addresses of an interface, and of the host.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_bindings::rt_addr::{Ifaddrmsg, IterableAddrAttrs, Request};

use super::{Family, Link, Netlink, NetlinkError};

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
        self.change(&request, || command(link, address))
    }

    /// Takes an address from the interface.
    ///
    /// # Errors
    /// No such address ([`NetlinkError::is_absent`]), no right.
    pub fn delete_address(&mut self, link: &Link, address: IpNet) -> Result<(), NetlinkError> {
        let mut request = Request::new().op_deladdr_do(&header(link, address));
        request.encode().push_local(address.addr()).push_address(address.addr()).end_nested();
        self.change(&request, || delete_address_command(link, address))
    }

    /// The addresses of the interface, host bits kept.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn addresses(&mut self, link: &Link) -> Result<Vec<IpNet>, NetlinkError> {
        let all = self.all_addresses()?;
        Ok(all
            .into_iter()
            .filter(|(at, _)| *at == link.index)
            .map(|(_, address)| address)
            .collect())
    }

    /// The addresses of all interfaces, host bits kept, each with the number of its interface.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn all_addresses(&mut self) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        let mut found = Vec::new();
        let request = Request::new().op_getaddr_dump(&Ifaddrmsg::new());
        self.query(
            &request,
            || "ip address show".to_owned(),
            |(header, attributes)| {
                let network = address_of(&attributes)
                    .and_then(|address| IpNet::new(address, header.ifa_prefixlen).ok());
                found.extend(network.map(|network| (header.ifa_index, network)));
            },
        )?;
        Ok(found)
    }

    /// All addresses of the host, whichever interface has them.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn local_addresses(&mut self) -> Result<HashSet<IpAddr>, NetlinkError> {
        let mut found = HashSet::new();
        let request = Request::new().op_getaddr_dump(&Ifaddrmsg::new());
        let part = |(_, attributes): (Ifaddrmsg, IterableAddrAttrs<'_>)| {
            found.extend(address_of(&attributes));
        };
        self.query(&request, || "ip address show".to_owned(), part)?;
        Ok(found)
    }
}

fn address_of(attributes: &IterableAddrAttrs<'_>) -> Option<IpAddr> {
    // IPv6 has no local address apart from the address.
    attributes.get_local().or_else(|_| attributes.get_address()).ok()
}

fn header(link: &Link, address: IpNet) -> Ifaddrmsg {
    Ifaddrmsg {
        ifa_family: Family::of(address.addr()).number(),
        ifa_prefixlen: address.prefix_len(),
        ifa_index: link.index,
        ..Ifaddrmsg::new()
    }
}

/// How ip(8) is told to take an address away.
pub fn delete_address_command(link: &Link, address: IpNet) -> String {
    command(link, address).replacen(" add ", " delete ", 1)
}

fn command(link: &Link, address: IpNet) -> String {
    format!("ip {} address add {address} dev {}", Family::of(address.addr()).flag(), link.name)
}
