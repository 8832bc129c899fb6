//! Links: look-up, MTU, up, deletion, veth pairs.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_bindings::rt_link::{Ifinfomsg, IterableLinkAttrs, PushLinkAttrs, Request};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils;

use super::{Netlink, NetlinkError};

/// A network interface as the kernel described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Bytes.
    pub mtu: u32,
}

impl Netlink {
    /// The interface of this name, if there is one.
    ///
    /// # Errors
    /// What the kernel refused, other than by "no such device".
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut request = Request::new().op_getlink_do(&Ifinfomsg::new());
        request.encode().push_ifname_bytes(name.as_bytes());
        self.one_link(&request, format!("ip link show dev {name}"))
    }

    /// The interface with this index, if there is one.
    ///
    /// # Errors
    /// What the kernel refused, other than by "no such device".
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let request = Request::new().op_getlink_do(&header(index));
        self.one_link(&request, format!("ip link show (index {index})"))
    }

    /// All interfaces of the network namespace, which need not be the ones below `/sys/class/net`:
    /// those are of the namespace that `/sys` was mounted in.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut found = Vec::new();
        let request = Request::new().op_getlink_dump(&Ifinfomsg::new());
        let action = || "ip link show".to_owned();
        self.query(&request, action, |(header, attributes)| {
            found.extend(read(&header, &attributes));
        })?;
        Ok(found)
    }

    fn one_link(
        &mut self,
        request: &netlink_bindings::rt_link::OpGetlinkDo<'_>,
        action: String,
    ) -> Result<Option<Link>, NetlinkError> {
        let mut found = None;
        let outcome = self.query(
            request,
            || action.clone(),
            |(header, attributes)| {
                found = Some(read(&header, &attributes));
            },
        );
        match outcome {
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
            Ok(()) => match found {
                Some(Some(link)) => Ok(Some(link)),
                Some(None) | None => Err(NetlinkError::incomplete(action, "name or MTU")),
            },
        }
    }

    /// Sets the MTU (bytes) and brings the interface up, in one request.
    ///
    /// # Errors
    /// An MTU that the driver does not take, no such interface, no right.
    pub fn set_mtu_up(&mut self, link: &Link, mtu: u32) -> Result<(), NetlinkError> {
        let mut request = Request::new().op_setlink_do(&up(link.index));
        request.encode().push_mtu(mtu);
        self.change(&request, || format!("ip link set mtu {mtu} up dev {}", link.name))
    }

    /// Sets the MTU (bytes).
    ///
    /// # Errors
    /// An MTU that the driver does not take, no such interface, no right.
    pub fn set_mtu(&mut self, link: &Link, mtu: u32) -> Result<(), NetlinkError> {
        let mut request = Request::new().op_setlink_do(&header(link.index));
        request.encode().push_mtu(mtu);
        self.change(&request, || format!("ip link set mtu {mtu} dev {}", link.name))
    }

    /// Brings the interface up, its MTU unchanged.
    ///
    /// # Errors
    /// No such interface, no right.
    pub fn set_up(&mut self, link: &Link) -> Result<(), NetlinkError> {
        let request = Request::new().op_setlink_do(&up(link.index));
        self.change(&request, || format!("ip link set up dev {}", link.name))
    }

    /// Brings the loopback interface of a fresh namespace up.
    ///
    /// # Errors
    /// No loopback interface, no right.
    pub fn set_loopback_up(&mut self) -> Result<(), NetlinkError> {
        match self.link("lo")? {
            Some(link) => self.set_up(&link),
            None => Err(NetlinkError::incomplete("ip link set up dev lo".to_owned(), "link lo")),
        }
    }

    /// Deletes the interface, with its addresses and routes.
    ///
    /// # Errors
    /// No such interface ([`NetlinkError::is_absent`]), no right.
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut request = Request::new().op_dellink_do(&Ifinfomsg::new());
        request.encode().push_ifname_bytes(name.as_bytes());
        self.change(&request, || format!("ip link delete dev {name}"))
    }

    /// Creates an interface of the kernel's own WireGuard.
    ///
    /// # Errors
    /// A kernel without it ([`NetlinkError::is_unsupported`]), a name that is taken, no right.
    pub fn create_wireguard(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut request = Request::new().set_create().set_excl().op_newlink_do(&Ifinfomsg::new());
        let info = request.encode().push_ifname_bytes(name.as_bytes()).nested_linkinfo();
        info.push_kind(c"wireguard").end_nested();
        self.change(&request, || format!("ip link add {name} type wireguard"))
    }

    /// Creates the two ends of a virtual cable: `name` here, `peer` in the namespace `netns`.
    ///
    /// # Errors
    /// A name that is taken in its namespace, no right in one of them.
    pub fn create_veth(
        &mut self,
        name: &str,
        peer: &str,
        netns: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        let mut request = Request::new().set_create().set_excl().op_newlink_do(&Ifinfomsg::new());
        let mut info = request.encode().push_ifname_bytes(name.as_bytes()).nested_linkinfo();
        info = info.push_kind(c"veth");
        // The bindings know no attributes for the kind "veth": IFLA_INFO_DATA { VETH_INFO_PEER
        // { struct ifinfomsg, link attributes of the other end } } is written by hand.
        let buffer = info.as_vec_mut();
        let data = utils::push_nested_header(buffer, IFLA_INFO_DATA);
        let other_end = utils::push_nested_header(buffer, VETH_INFO_PEER);
        buffer.extend_from_slice(Ifinfomsg::new().as_slice());
        let descriptor = u32::try_from(netns.as_raw_fd()).expect("open descriptors are positive");
        PushLinkAttrs::new(&mut *buffer)
            .push_ifname_bytes(peer.as_bytes())
            .push_net_ns_fd(descriptor);
        utils::finalize_nested_header(buffer, other_end);
        utils::finalize_nested_header(buffer, data);
        info.end_nested();
        self.change(&request, || format!("ip link add {name} type veth peer name {peer}"))
    }
}

fn read(header: &Ifinfomsg, attributes: &IterableLinkAttrs<'_>) -> Option<Link> {
    Some(Link {
        index: u32::try_from(header.ifi_index).ok()?,
        name: attributes.get_ifname().ok()?.to_str().ok()?.to_owned(),
        mtu: attributes.get_mtu().ok()?,
    })
}

fn header(index: u32) -> Ifinfomsg {
    Ifinfomsg { ifi_index: index.cast_signed(), ..Ifinfomsg::new() }
}

fn up(index: u32) -> Ifinfomsg {
    Ifinfomsg { ifi_flags: IFF_UP, ifi_change: IFF_UP, ..header(index) }
}

const IFF_UP: u32 = libc::IFF_UP.cast_unsigned();

// [LNX if_link.h:IFLA_INFO_DATA, veth.h:VETH_INFO_PEER]
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
