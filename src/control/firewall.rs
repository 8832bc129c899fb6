//! The firewall rules of a tunnel that takes everything.
//!
//! What comes for an address of the tunnel must come through it, unless a process of this host sent
//! it: else whoever shares a network with the host can find out the address and inject packets into
//! connections in the tunnel (CVE-2019-14899). And the replies to the tunnel's own packets get its
//! mark back, so that strict reverse path filtering looks their source up as it did ours.
//! [wg-quick(8)]
//!
//! Differs from wg-quick in that no packet loses a mark: only what belongs to a connection of ours is
//! marked, and only in the bits of our mask.

use std::net::IpAddr;
use std::rc::Rc;

use crate::control::host_change::{HostChange, Lasting};
use crate::control::journal::Journal;
use crate::control::lifecycle::{LifecycleError, Step};
use crate::control::netlink::nft::{Chain, Hook, Owner, Part, Table};
use crate::control::netlink::{Family, Mark, Netlink};

/// The table for one family of a tunnel with these addresses, whose packets carry `mark`.
pub fn table(interface: &str, family: Family, addresses: &[IpAddr], mark: Mark) -> Table {
    let ours = addresses.iter().filter(|address| Family::of(**address) == family);
    let guards = ours.map(|address| {
        vec![
            Part::NotByInterface(interface.to_owned()),
            Part::Destination(*address),
            Part::SourceNotOurs,
            Part::Drop,
        ]
    });
    let chain =
        |name: &str, hook, priority, rules| Chain { name: name.to_owned(), hook, priority, rules };
    let sent = vec![Part::Udp, Part::Marked(mark), Part::SetConnectionMark(mark)];
    let answered = vec![Part::Udp, Part::ConnectionMarked(mark), Part::SetMark(mark)];
    Table {
        family,
        name: format!("hybridwg-{interface}"),
        // The priorities are those of the "raw" and "mangle" tables of iptables.
        chains: vec![
            chain("preraw", Hook::Prerouting, -300, guards.collect()),
            chain("premangle", Hook::Prerouting, -150, vec![answered]),
            chain("postmangle", Hook::Postrouting, -150, vec![sent]),
        ],
    }
}

/// Makes a table that goes with the owner where the kernel knows owners, and else one that `down`
/// deletes.
#[derive(Debug)]
pub struct Protect {
    owner: Rc<Owner>,
    table: Table,
    /// If it has no owner.
    lasting: Option<Lasting>,
    journal: Journal,
}

impl Protect {
    pub fn new(owner: Rc<Owner>, table: Table, journal: Journal) -> Self {
        Self { owner, table, lasting: None, journal }
    }
}

impl Step for Protect {
    fn describe(&self) -> String {
        self.table.add_command()
    }

    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        if self.owner.replace_table(&self.table).is_ok() {
            return Ok(());
        }
        let change = HostChange::Firewall(self.table.clone());
        let mut lasting = Lasting { change, journal: self.journal.clone() };
        lasting.apply(netlink)?;
        self.lasting = Some(lasting);
        Ok(())
    }

    fn describe_undo(&self) -> Option<String> {
        Some(self.table.delete_command())
    }

    fn undo(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        match &mut self.lasting {
            Some(lasting) => lasting.undo(netlink),
            None => Ok(self.owner.delete_table(&self.table)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WQ-21.
    #[test]
    fn each_address_of_the_family_is_guarded_and_marks_travel_with_connections() {
        let addresses = ["10.10.0.1", "fd10::1", "fe80::1"].map(|text| text.parse().unwrap());
        let texts = Family::BOTH
            .map(|family| table("wg0", family, &addresses, Mark::exact(0x1002)).to_string());
        let marks = "chain premangle { type filter hook prerouting priority -150; \
                     meta l4proto udp ct mark 0x1002 meta mark set 0x1002; }; \
                     chain postmangle { type filter hook postrouting priority -150; \
                     meta l4proto udp meta mark 0x1002 ct mark set 0x1002; }; }";
        let guard = |family: &str, address: &str| {
            format!("iifname != \"wg0\" {family} daddr {address} fib saddr type != local drop;")
        };
        let raw = "chain preraw { type filter hook prerouting priority -300;";
        let (one, two) = (guard("ip6", "fd10::1"), guard("ip6", "fe80::1"));
        assert_eq!(
            texts,
            [
                format!("table ip hybridwg-wg0 {{ {raw} {} }}; {marks}", guard("ip", "10.10.0.1")),
                format!("table ip6 hybridwg-wg0 {{ {raw} {one} {two} }}; {marks}"),
            ]
        );
    }
}
