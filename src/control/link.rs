//! Steps on the tunnel interface itself: its daemon, its addresses, MTU and up.

use ipnet::IpNet;

use crate::control::lifecycle::{LifecycleError, Step};
use crate::control::netlink::{Link, Netlink, family_flag};

/// Gives the interface an address.
#[derive(Debug)]
pub struct AddAddress {
    pub link: Link,
    /// With its host bits.
    pub address: IpNet,
}

impl Step for AddAddress {
    fn describe(&self) -> String {
        let Self { link, address } = self;
        format!("ip {} address add {address} dev {}", family_flag(address.addr()), link.name)
    }

    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        Ok(netlink.add_address(&self.link, self.address)?)
    }

    /// Addresses go away with the interface.
    fn describe_undo(&self) -> Option<String> {
        None
    }

    fn undo(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        Ok(())
    }
}

/// Sets the MTU and brings the interface up.
#[derive(Debug)]
pub struct SetMtuUp {
    pub link: Link,
    /// Bytes.
    pub mtu: u32,
}

impl Step for SetMtuUp {
    fn describe(&self) -> String {
        format!("ip link set mtu {} up dev {}", self.mtu, self.link.name)
    }

    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        Ok(netlink.set_mtu_up(&self.link, self.mtu)?)
    }

    /// The interface goes away as a whole.
    fn describe_undo(&self) -> Option<String> {
        None
    }

    fn undo(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        Ok(())
    }
}
