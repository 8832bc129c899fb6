//! Everything into the tunnel: the steps of policy routing, and the kill switch.
//!
//! Both have the same rules. Without a kill switch they come last, when the tunnel's table has its
//! route. With one they come as soon as the endpoints are known and the tunnel's packets are marked,
//! and the table refuses everything until it has that route, and again when the interface is gone,
//! whatever has ended the daemon: only `down` opens the host again. [wg-quick(8)]
//!
//! A reload takes the same steps without those whose work is done, and takes back what stands and is
//! wanted no more: see [`Standing`].

use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;

use crate::control::firewall::{self, Protect};
use crate::control::host_change::{HostChange, Lasting};
use crate::control::journal::Journal;
use crate::control::lifecycle::{LifecycleError, TakenBack, Transaction};
use crate::control::link::SetMark;
use crate::control::netlink::nft::{Owner, Table};
use crate::control::netlink::{Family, Link, Mark, Netlink, Unreachable};
use crate::control::policy::Plan;
use crate::control::routes::AddRoute;
use crate::control::src_valid_mark::Parameters;

/// What is to be done for one tunnel.
pub struct Diversion {
    link: Link,
    plan: Plan,
    /// The device has the mark already.
    is_marked: bool,
    /// Which have a default route into the tunnel.
    families: Vec<Family>,
    /// Which have no other way out; none without a kill switch.
    closed: Vec<Family>,
    standing: Standing,
    journal: Journal,
}

/// What a tunnel that is up has of it already.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    plan: Option<Plan>,
    /// Which have a default route into the tunnel.
    families: Vec<Family>,
    /// Rules and routes that refuse.
    changes: Vec<HostChange>,
    tables: Vec<Table>,
}

impl Standing {
    /// What `link` has, by its journal and the kernel.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn of(netlink: &mut Netlink, link: &Link) -> Result<Self, LifecycleError> {
        let rules = netlink.rules()?;
        let stands = |change: &HostChange| match change {
            HostChange::Rule(rule) => rules.contains(rule),
            HostChange::Unreachable(_) => true,
            _ => false,
        };
        let changes: Vec<HostChange> =
            Journal::of(&link.name).read().into_iter().filter(stands).collect();
        let ours = changes.iter().filter_map(|change| match change {
            HostChange::Rule(rule) => Some(*rule),
            _ => None,
        });
        let Some(plan) = Plan::of(ours) else { return Ok(Self { changes, ..Self::default() }) };
        let routes = netlink.routes_through(link)?;
        let leads = |family: &Family| routes.contains(&(family.everything(), plan.table));
        let families: Vec<Family> = Family::BOTH.into_iter().filter(leads).collect();
        let addresses = netlink.addresses(link)?;
        let tables = tables(&link.name, &families, &addresses, plan.mark);
        Ok(Self { plan: Some(plan), families, changes, tables })
    }

    /// The mark of the tunnel's packets, if there is policy routing.
    pub fn mark(&self) -> Option<Mark> {
        self.plan.map(|plan| plan.mark)
    }

    /// Whether there are tables of the firewall.
    pub fn has_tables(&self) -> bool {
        !self.tables.is_empty()
    }

    /// Takes back what `wanted` does not have: rules, default routes, tables of the firewall. Whether
    /// reverse path filtering minds marks is left to `down`.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn take_back(
        &self,
        steps: &mut Transaction<'_>,
        link: &Link,
        wanted: Option<&Diversion>,
        owner: Option<&Rc<Owner>>,
    ) -> Result<(), LifecycleError> {
        let Some(plan) = self.plan else { return Ok(()) };
        let journal = Journal::of(&link.name);
        let is_wanted = |family: &Family| wanted.is_some_and(|it| it.families.contains(family));
        let changes = wanted.map(Diversion::changes).unwrap_or_default();
        for change in self.changes.iter().rev().filter(|change| !changes.contains(change)) {
            steps.apply(TakenBack(Lasting { change: change.clone(), journal: journal.clone() }))?;
        }
        for family in self.families.iter().filter(|family| !is_wanted(family)) {
            let network = family.everything();
            steps.apply(TakenBack(AddRoute { link: link.clone(), network, table: plan.table }))?;
        }
        for table in self.tables.iter().filter(|table| !is_wanted(&table.family)) {
            let protect = Protect::new(owner.cloned(), table.clone(), None, journal.clone());
            steps.apply(TakenBack(protect))?;
        }
        Ok(())
    }
}

impl Diversion {
    /// `mark` is that of the device, with the value 0 if it has none. What stands is
    /// not made again, and its numbers stay.
    ///
    /// # Errors
    /// What the kernel refused, or no number is free.
    pub fn new(
        netlink: &mut Netlink,
        link: &Link,
        mark: Mark,
        families: Vec<Family>,
        closed: Vec<Family>,
        standing: Standing,
    ) -> Result<Self, LifecycleError> {
        let given = (mark.value != 0).then_some(mark);
        let plan = match standing.plan {
            Some(plan) => plan,
            None => {
                let rules = netlink.rules();
                let rules = rules.map_err(|error| explained(error.into(), link, Family::V4))?;
                Plan::new(given, &rules, &netlink.tables_in_use()?)?
            }
        };
        let (link, journal) = (link.clone(), Journal::of(&link.name));
        Ok(Self { link, plan, is_marked: given.is_some(), families, closed, standing, journal })
    }

    /// The rules and the routes that refuse, all of them.
    fn changes(&self) -> Vec<HostChange> {
        let refusals = self.closed.iter().map(|&family| self.refusal(family));
        let families = Family::BOTH.into_iter();
        let ruled = families.filter(|it| self.closed.contains(it) || self.families.contains(it));
        let rules = ruled.flat_map(|family| self.plan.rules(family).map(HostChange::Rule));
        refusals.chain(rules).collect()
    }

    const fn refusal(&self, family: Family) -> HostChange {
        HostChange::Unreachable(Unreachable { family, table: self.plan.table })
    }

    /// Marks the tunnel's packets; with a kill switch, lets nothing else out from now on. What is in
    /// `left`, of a tunnel of that name that has ended, is kept and taken from the list.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn close(
        &self,
        steps: &mut Transaction<'_>,
        left: &mut Vec<HostChange>,
    ) -> Result<(), LifecycleError> {
        if !self.is_marked {
            let interface = self.link.name.clone();
            steps.apply(SetMark { interface, mark: self.plan.mark.value, former: 0 })?;
        }
        for &family in &self.closed {
            let refusal = self.refusal(family);
            match left.iter().position(|change| *change == refusal) {
                Some(position) => drop(left.remove(position)),
                None => self.make(steps, refusal)?,
            }
            self.add_rules(steps, family)?;
        }
        Ok(())
    }

    /// Leads everything into the tunnel, which is up and has these addresses.
    ///
    /// # Errors
    /// The first step that failed, unless it is one that the tunnel works without: that is a
    /// warning.
    pub fn open(
        &self,
        steps: &mut Transaction<'_>,
        addresses: &[IpNet],
        owner: Option<&Rc<Owner>>,
    ) -> Result<(), LifecycleError> {
        for table in tables(&self.link.name, &self.families, addresses, self.plan.mark) {
            let family = table.family;
            let former = self.standing.tables.iter().find(|former| former.family == family);
            if former != Some(&table) {
                let (owner, journal) = (owner.cloned(), self.journal.clone());
                let protect = Protect::new(owner, table, former.cloned(), journal);
                let outcome = steps.apply(protect);
                warn_unless(outcome, steps, &self.without_firewall())?;
            }
            if family == Family::V4 && !Parameters::of_this_host().is_set() {
                let outcome = self.make(steps, HostChange::SrcValidMark);
                warn_unless(outcome, steps, &without_src_valid_mark())?;
            }
        }
        let routes = steps.netlink().routes_through(&self.link)?;
        for &family in &self.families {
            let (network, table) = (family.everything(), self.plan.table);
            if !routes.contains(&(network, table)) {
                steps.apply(AddRoute { link: self.link.clone(), network, table })?;
            }
            if !self.closed.contains(&family) {
                self.add_rules(steps, family)?;
            }
        }
        Ok(())
    }

    fn add_rules(&self, steps: &mut Transaction<'_>, family: Family) -> Result<(), LifecycleError> {
        let mut rules = self.plan.rules(family).into_iter();
        let outcome = rules.try_for_each(|rule| self.make(steps, HostChange::Rule(rule)));
        outcome.map_err(|error| explained(error, &self.link, family))
    }

    fn make(&self, steps: &mut Transaction<'_>, change: HostChange) -> Result<(), LifecycleError> {
        if self.standing.changes.contains(&change) {
            return Ok(());
        }
        steps.apply(Lasting { change, journal: self.journal.clone() })
    }

    fn without_firewall(&self) -> String {
        let interface = &self.link.name;
        let strict = strictness("the tunnel gets no answers");
        format!(
            "packets for the addresses of {interface} that come by another interface are not \
             dropped: whoever shares a network with this host could inject them into connections \
             in the tunnel. Replies do not get its mark: {strict}"
        )
    }
}

/// The firewall's tables for a tunnel with these addresses.
fn tables(interface: &str, families: &[Family], addresses: &[IpNet], mark: Mark) -> Vec<Table> {
    let addresses: Vec<IpAddr> = addresses.iter().map(IpNet::addr).collect();
    families.iter().map(|&family| firewall::table(interface, family, &addresses, mark)).collect()
}

/// A kernel without policy routing is named as such. Going on is no choice there: what was to go into
/// the tunnel would go past it.
fn explained(error: LifecycleError, link: &Link, family: Family) -> LifecycleError {
    match error {
        LifecycleError::Netlink(source) if source.is_unsupported() => {
            let (interface, family) = (link.name.clone(), family.name());
            LifecycleError::NoPolicyRouting { interface, family, source }
        }
        other => other,
    }
}

/// Goes on without what failed, and says what that means; but not when the user has interrupted.
fn warn_unless(
    outcome: Result<(), LifecycleError>,
    steps: &mut Transaction<'_>,
    lost: &str,
) -> Result<(), LifecycleError> {
    match outcome {
        Err(error @ LifecycleError::Interrupted) => Err(error),
        Err(error) => {
            steps.console().warn(&format!("{}. Without it, {lost}", with_source(&error)));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The error and what is behind it, in one line.
pub fn with_source(error: &LifecycleError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn without_src_valid_mark() -> String {
    format!(
        "{}; a container gets it by `--sysctl net.ipv4.conf.all.src_valid_mark=1`",
        strictness("replies to the tunnel are dropped")
    )
}

/// What is so where reverse path filtering is strict.
fn strictness(consequence: &str) -> String {
    let strict = Parameters::of_this_host().strict_interfaces();
    match strict.is_empty() {
        true => format!(
            "{consequence} where reverse path filtering is strict (rp_filter 1), which it is \
             nowhere on this host"
        ),
        false => format!(
            "{consequence}, since reverse path filtering is strict on {} (rp_filter 1)",
            strict.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::control::interrupt::Interrupt;
    use crate::control::lifecycle::{Console, Kind};
    use crate::control::netlink::NetlinkError;
    use crate::sys::testing::{in_own_namespace, ip, refuse_calls_with};

    #[derive(Default)]
    struct Told(Vec<String>);

    impl Console for Told {
        fn command(&mut self, _: &str) {}

        fn warn(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    /// Sends everything of IPv4 into an interface that there is, as far as this kernel can.
    fn divert(folder: &Path) -> Vec<String> {
        ip("link add t0 type veth peer name t1");
        ip("link set t0 up");
        ip("link set t1 up");
        ip("address add 10.10.0.1/24 dev t0");
        let (mut netlink, mut told) = (Netlink::new(), Told::default());
        let link = netlink.link("t0").unwrap().unwrap();
        let mut diversion = Diversion::new(
            &mut netlink,
            &link,
            Mark::exact(0x1234),
            vec![Family::V4],
            Vec::new(),
            Standing::default(),
        )
        .unwrap();
        diversion.journal = Journal::in_folder(folder, "t0");
        let owner = Owner::new().ok().map(Rc::new);
        let interrupt = Interrupt::never();
        let mut steps = Transaction::new(&mut netlink, &mut told, &interrupt, Kind::Making);
        diversion.open(&mut steps, &["10.10.0.1/24".parse().unwrap()], owner.as_ref()).unwrap();
        steps.commit().unwrap();
        assert!(ip("rule").contains("fwmark 0x1234 lookup 4660"));
        assert!(ip("route show table 4660").contains("default dev t0"));
        told.0
    }

    /// WQ-23.
    #[test]
    fn u_04_on_a_kernel_without_netfilter_everything_goes_into_the_tunnel_with_a_warning() {
        in_own_namespace(|| {
            let folder = tempfile::tempdir().unwrap();
            let netfilter = Some((2, libc::NETLINK_NETFILTER));
            refuse_calls_with(libc::SYS_socket, netfilter, libc::EPROTONOSUPPORT);
            let told = divert(folder.path());
            let start = "nft 'table ip hybridwg-t0 ";
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(start), "{told:?}");
            for part in [
                ". Without it, packets for the addresses of t0 that come by",
                "Replies do not get its mark: the tunnel gets no answers where reverse path",
            ] {
                assert!(told[0].contains(part), "{told:?}");
            }
        });
    }

    #[test]
    fn u_02_a_kernel_without_policy_routing_is_named_with_a_way_to_do_without() {
        let link = Link { name: "t0".to_owned(), index: 7, mtu: 1360 };
        for errno in [libc::EAFNOSUPPORT, libc::EOPNOTSUPP] {
            let refused = NetlinkError::of_errno("ip -6 rule add".to_owned(), errno);
            let told = explained(refused.into(), &link, Family::V6).to_string();
            assert!(
                told.starts_with("t0 cannot take everything: this kernel has no policy"),
                "{told}"
            );
            assert!(told.contains("for IPv6") && told.contains("128.0.0.0/1"), "{told}");
        }
        let refused = NetlinkError::of_errno("ip rule add".to_owned(), libc::EPERM);
        assert!(matches!(explained(refused.into(), &link, Family::V4), LifecycleError::Netlink(_)));
    }
}
