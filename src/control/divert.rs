//! Everything into the tunnel: the steps of policy routing, and the kill switch.
//!
//! Both have the same rules. Without a kill switch they come last, when the tunnel's table has its
//! route. With one they come as soon as the endpoints are known and the tunnel's packets are marked,
//! and the table refuses everything until it has that route, and again when the interface is gone,
//! whatever has ended the daemon: only `down` opens the host again. [wg-quick(8)]

use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;

use crate::control::firewall::{self, Protect};
use crate::control::host_change::{HostChange, Lasting};
use crate::control::journal::Journal;
use crate::control::lifecycle::{LifecycleError, Transaction};
use crate::control::link::SetMark;
use crate::control::netlink::nft::Owner;
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
    journal: Journal,
}

impl Diversion {
    /// `mark` is that of the device, 0 for none, of which the bits of `mask` count.
    ///
    /// # Errors
    /// What the kernel refused, or no number is free.
    pub fn new(
        netlink: &mut Netlink,
        link: &Link,
        mark: u32,
        mask: u32,
        families: Vec<Family>,
        closed: Vec<Family>,
    ) -> Result<Self, LifecycleError> {
        let (rules, tables) = (netlink.rules()?, netlink.tables_in_use()?);
        let given = (mark != 0).then_some(Mark { value: mark, mask });
        let plan = Plan::new(given, &rules, &tables)?;
        let (link, journal) = (link.clone(), Journal::of(&link.name));
        Ok(Self { link, plan, is_marked: given.is_some(), families, closed, journal })
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
            steps.apply(SetMark { interface, mark: self.plan.mark.value })?;
        }
        for &family in &self.closed {
            let refusal = HostChange::Unreachable(Unreachable { family, table: self.plan.table });
            match left.iter().position(|change| *change == refusal) {
                Some(position) => drop(left.remove(position)),
                None => self.make(steps, refusal)?,
            }
            self.add_rules(steps, family)?;
        }
        Ok(())
    }

    /// Leads everything into the tunnel, which is up.
    ///
    /// # Errors
    /// The first step that failed, unless it is one that the tunnel works without: that is a
    /// warning.
    pub fn open(
        &self,
        steps: &mut Transaction<'_>,
        owner: Option<&Rc<Owner>>,
    ) -> Result<(), LifecycleError> {
        let networks = steps.netlink().addresses(&self.link)?;
        let addresses: Vec<IpAddr> = networks.iter().map(IpNet::addr).collect();
        for &family in &self.families {
            let table = firewall::table(&self.link.name, family, &addresses, self.plan.mark);
            let outcome = match owner {
                Some(owner) => {
                    steps.apply(Protect::new(Rc::clone(owner), table, self.journal.clone()))
                }
                None => self.make(steps, HostChange::Firewall(table)),
            };
            warn_unless(outcome, steps, &self.without_firewall())?;
            if family == Family::V4 && !Parameters::of_this_host().is_set() {
                let outcome = self.make(steps, HostChange::SrcValidMark);
                warn_unless(outcome, steps, &without_src_valid_mark())?;
            }
        }
        for &family in &self.families {
            let network = family.everything();
            steps.apply(AddRoute { link: self.link.clone(), network, table: self.plan.table })?;
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
