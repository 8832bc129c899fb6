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
use crate::control::netlink::nft::{Chain, Hook, Kind, Owner, Part, Table};
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
    let chain = |name: &str, hook, priority, rules| Chain {
        name: name.to_owned(),
        kind: Kind::Filter,
        hook,
        priority,
        rules,
    };
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
    owner: Option<Rc<Owner>>,
    table: Table,
    /// In whose place.
    former: Option<Table>,
    journal: Journal,
}

impl Protect {
    pub fn new(
        owner: Option<Rc<Owner>>,
        table: Table,
        former: Option<Table>,
        journal: Journal,
    ) -> Self {
        Self { owner, table, former, journal }
    }

    /// Makes `table`, in place of what the journal has of its name.
    fn put(&self, table: &Table, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        if self.owner.as_ref().is_some_and(|owner| owner.replace_table(table).is_ok()) {
            return Ok(());
        }
        let former = self.lasting();
        let change = HostChange::Firewall(table.clone());
        Lasting { change: change.clone(), journal: self.journal.clone() }.apply(netlink)?;
        for former in former.iter().filter(|former| **former != change) {
            self.journal.strike(former)?;
        }
        Ok(())
    }

    /// What the journal has of the table's name.
    fn lasting(&self) -> Vec<HostChange> {
        let is_it = |change: &HostChange| {
            matches!(change, HostChange::Firewall(Table { family, name, .. })
                if *family == self.table.family && *name == self.table.name)
        };
        self.journal.read().into_iter().filter(is_it).collect()
    }
}

impl Step for Protect {
    fn describe(&self) -> String {
        let delete = self.former.as_ref().map(|former| former.delete_command() + "\n");
        delete.unwrap_or_default() + &self.table.add_command()
    }

    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        self.put(&self.table, netlink)
    }

    fn describe_undo(&self) -> Option<String> {
        let add = self.former.as_ref().map(|former| "\n".to_owned() + &former.add_command());
        Some(self.table.delete_command() + &add.unwrap_or_default())
    }

    fn undo(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        if let Some(former) = &self.former {
            return self.put(former, netlink);
        }
        let mut lasting = self.lasting().into_iter().peekable();
        match (lasting.peek(), &self.owner) {
            (None, Some(owner)) => match owner.delete_table(&self.table) {
                Err(error) if !error.is_absent() => Err(error.into()),
                Ok(()) | Err(_) => Ok(()),
            },
            _ => lasting.try_for_each(|change| {
                Lasting { change, journal: self.journal.clone() }.undo(netlink)
            }),
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
