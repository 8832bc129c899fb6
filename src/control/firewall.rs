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
use crate::control::lifecycle::{Console, LifecycleError, Step};
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

/// Who tables shall belong to. If the kernel knows no owners, it says that they stay.
pub fn known(owner: Option<Rc<Owner>>, console: &mut dyn Console) -> Option<Rc<Owner>> {
    if !owner.as_ref().is_some_and(|owner| owner.is_unknown()) {
        return owner;
    }
    console.warn(
        "this kernel lets no table of nftables belong to a process (Linux 5.12 does): ours stay \
         until `hybridwg down` or the next `up`, also if the daemon is killed",
    );
    None
}

/// Makes a table that goes with the owner if there is one, and else one that `down` deletes.
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
        let former = self.lasting();
        let change = HostChange::Firewall(table.clone());
        let is_left = |it: &&HostChange| match &self.owner {
            Some(_) => true,
            None => **it != change,
        };
        match &self.owner {
            Some(owner) => owner.replace_table(table)?,
            None if former.contains(&change) => netlink.replace_table(table)?,
            None => {
                let journal = self.journal.clone();
                Lasting { change: change.clone(), journal }.apply(netlink)?;
            }
        }
        former.iter().filter(is_left).try_for_each(|former| Ok(self.journal.strike(former)?))
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
    use crate::sys::testing::in_own_namespace;

    /// As on a kernel before 5.12, whose tables have no owners.
    #[test]
    fn without_an_owner_a_table_stands_in_the_journal_until_it_is_taken_back_and_outlives_a_crash()
    {
        in_own_namespace(|| {
            let folder = tempfile::tempdir().unwrap();
            let (mut netlink, journal) = (Netlink::new(), Journal::in_folder(folder.path(), "wg0"));
            let table = |address: &str| {
                let addresses = [address.parse().unwrap()];
                table("wg0", Family::V4, &addresses, Mark::exact(0x1002))
            };
            let (old, new) = (table("10.10.0.1"), table("10.10.0.2"));
            let journaled = || journal.read();
            let protect = |owner: Option<&Rc<Owner>>, table: &Table, former| {
                Protect::new(owner.cloned(), table.clone(), former, journal.clone())
            };
            protect(None, &old, None).apply(&mut netlink).unwrap();
            assert_eq!(journaled(), [HostChange::Firewall(old.clone())]);
            // A reload, and one that is taken back.
            let mut reload = protect(None, &new, Some(old.clone()));
            reload.apply(&mut netlink).unwrap();
            assert_eq!(journaled(), [HostChange::Firewall(new.clone())]);
            reload.undo(&mut netlink).unwrap();
            assert_eq!(journaled(), [HostChange::Firewall(old.clone())]);
            // After a crash it is still there, and `up` makes it anew.
            protect(None, &old, None).apply(&mut netlink).unwrap();
            assert_eq!(journaled(), [HostChange::Firewall(old.clone())]);
            // Where the kernel has learnt of owners meanwhile, it is theirs alone.
            let owner = Rc::new(Owner::new().unwrap());
            let mut owned = protect(Some(&owner), &new, None);
            owned.apply(&mut netlink).unwrap();
            assert_eq!(journaled(), []);
            assert!(netlink.delete_table(&new).is_err_and(|error| !error.is_absent()));
            owned.undo(&mut netlink).unwrap();
            let mut last = protect(None, &old, None);
            last.apply(&mut netlink).unwrap();
            last.undo(&mut netlink).unwrap();
            assert_eq!(journaled(), []);
            assert!(netlink.delete_table(&old).unwrap_err().is_absent());
        });
    }

    #[test]
    fn what_the_kernel_refuses_of_an_owner_is_not_made_without_one() {
        in_own_namespace(|| {
            let folder = tempfile::tempdir().unwrap();
            let (mut netlink, journal) = (Netlink::new(), Journal::in_folder(folder.path(), "wg0"));
            let mut table = table("wg0", Family::V4, &[], Mark::exact(0x1002));
            table.chains[0].kind = Kind::Nat;
            let owner = Owner::new().ok().map(Rc::new);
            let mut protect = Protect::new(owner, table, None, journal.clone());
            assert!(protect.apply(&mut netlink).is_err());
            assert_eq!((journal.read(), netlink.base_chains().unwrap()), (vec![], vec![]));
        });
    }

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
