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
            None => Plan::new(given, &netlink.rules()?, &netlink.tables_in_use()?)?,
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
        rules.try_for_each(|rule| self.make(steps, HostChange::Rule(rule)))
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
