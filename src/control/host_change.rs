//! Changes of the host that do not go away with the interface: each with its command and the way to
//! take it back.
//!
//! They are data, so that a [`Journal`] can keep them for whoever cleans up: `down`, or the next
//! `up` after a crash. Taking back what is not there any more is no failure.

use std::io;

use serde::{Deserialize, Serialize};

use crate::control::dns::DnsChange;
use crate::control::forwarding::{self, Forwarding};
use crate::control::journal::Journal;
use crate::control::lifecycle::{LifecycleError, Step};
use crate::control::masquerade;
use crate::control::netlink::nft::{self, Table};
use crate::control::netlink::{Family, Netlink, NetlinkError, Rule, Unreachable};
use crate::control::src_valid_mark::Parameters;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostChange {
    /// A policy rule.
    Rule(Rule),
    /// A default route that refuses.
    Unreachable(Unreachable),
    /// A table of nftables that has no owner.
    Firewall(Table),
    /// `net.ipv4.conf.all.src_valid_mark` was 0 and is 1.
    SrcValidMark,
    /// Forwarding was off and is on.
    Forwarding(Forwarding),
    Dns(DnsChange),
}

impl HostChange {
    /// The command that an operator would type for the same effect.
    pub fn describe(&self) -> String {
        match self {
            Self::Rule(rule) => format!("ip {} rule add {rule}", rule.family.flag()),
            Self::Unreachable(route) => format!("ip {} route add {route}", route.family.flag()),
            Self::Firewall(table) => table.add_command(),
            Self::SrcValidMark => "sysctl -q net.ipv4.conf.all.src_valid_mark=1".to_owned(),
            Self::Forwarding(change) => change.on_command(),
            Self::Dns(change) => change.describe(),
        }
    }

    /// The command that takes it back.
    pub fn describe_undo(&self) -> String {
        match self {
            Self::Rule(rule) => format!("ip {} rule delete {rule}", rule.family.flag()),
            Self::Unreachable(route) => format!("ip {} route delete {route}", route.family.flag()),
            Self::Firewall(table) => table.delete_command(),
            Self::SrcValidMark => "sysctl -q net.ipv4.conf.all.src_valid_mark=0".to_owned(),
            Self::Forwarding(change) => change.off_command(),
            Self::Dns(change) => change.describe_undo(),
        }
    }

    fn apply(&self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        match self {
            Self::Rule(rule) => netlink.add_rule(rule)?,
            Self::Unreachable(route) => netlink.add_unreachable(route)?,
            Self::Firewall(table) => netlink.replace_table(table)?,
            Self::SrcValidMark => mind_marks(true)?,
            Self::Forwarding(change) => forward(change, forwarding::Parameters::turn_on)?,
            Self::Dns(change) => change.apply().map_err(LifecycleError::Dns)?,
        }
        Ok(())
    }

    /// Takes it back, if it is still there.
    fn undo(&self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        match self {
            Self::Rule(rule) => if_there(netlink.delete_rule(rule))?,
            Self::Unreachable(route) => if_there(netlink.delete_unreachable(route))?,
            Self::Firewall(table) => if_there(netlink.delete_table(table))?,
            Self::SrcValidMark => mind_marks(false)?,
            Self::Forwarding(change) => forward(change, forwarding::Parameters::turn_off)?,
            Self::Dns(change) => change.undo().map_err(LifecycleError::Dns)?,
        }
        Ok(())
    }
}

fn if_there(outcome: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match outcome {
        Err(error) if error.is_absent() || error.is_unsupported() => Ok(()),
        outcome => outcome,
    }
}

fn mind_marks(on: bool) -> Result<(), LifecycleError> {
    Parameters::of_this_host().set(on).map_err(LifecycleError::SrcValidMark)
}

fn forward(
    change: &Forwarding,
    turn: impl Fn(&forwarding::Parameters, &Forwarding) -> io::Result<()>,
) -> Result<(), LifecycleError> {
    let outcome = turn(&forwarding::Parameters::of_this_host(), change);
    outcome.map_err(|source| LifecycleError::Forwarding { family: change.family, source })
}

/// A change as a step: it stands in the journal from before it is made until it is taken back.
#[derive(Debug)]
pub struct Lasting {
    pub change: HostChange,
    pub journal: Journal,
}

/// Who needs a change besides the tunnel that has made it.
#[derive(Debug)]
pub enum Heir {
    Tunnel(Journal),
    /// Somebody who keeps no journal, in words.
    Stranger(String),
}

impl Lasting {
    /// Takes the change back, or leaves it to somebody else who needs it by now: it is in this journal
    /// no longer, and perhaps in another. `announce` hears of it before.
    ///
    /// # Errors
    /// What the kernel refused, or a journal that cannot be written.
    pub fn let_go(
        &mut self,
        netlink: &mut Netlink,
        announce: impl FnOnce(String),
    ) -> Result<(), LifecycleError> {
        let _turn = self.journal.turn();
        let heir = self.heir(netlink)?;
        announce(self.describe_end(heir.as_ref()));
        match heir {
            None => return self.undo(netlink),
            Some(Heir::Tunnel(other)) => other.add(&self.change)?,
            Some(Heir::Stranger(_)) => {}
        }
        Ok(self.journal.strike(&self.change)?)
    }

    /// What is done to take the change back, where this `heir` was found.
    pub fn describe_end(&self, heir: Option<&Heir>) -> String {
        match (&self.change, heir) {
            (_, None) => self.change.describe_undo(),
            (HostChange::Forwarding(change), Some(Heir::Stranger(who))) => {
                format!("# {} stays 1: {who}", Forwarding::name(change.family))
            }
            _ => String::new(),
        }
    }

    /// # Errors
    /// What the kernel refused.
    pub fn heir(&self, netlink: &mut Netlink) -> Result<Option<Heir>, NetlinkError> {
        match &self.change {
            HostChange::SrcValidMark => self.heir_of_marks(netlink),
            HostChange::Forwarding(change) => Ok(self.heir_of_forwarding(change, netlink)),
            _ => Ok(None),
        }
    }

    fn heir_of_marks(&self, netlink: &mut Netlink) -> Result<Option<Heir>, NetlinkError> {
        // Every tunnel that takes everything, wg-quick's as well, has such a rule.
        let own = self.journal.read();
        let mut rules = netlink.rules()?;
        rules.retain(|rule| {
            rule.family == Family::V4
                && rule.suppress_prefix_length == Some(0)
                && !own.contains(&HostChange::Rule(*rule))
        });
        if rules.is_empty() {
            return Ok(None);
        }
        // A journal of another network namespace has rules that are not here.
        let is_here =
            |change: &HostChange| matches!(change, HostChange::Rule(rule) if rules.contains(rule));
        let mut others = self.journal.others().into_iter();
        let other = others.find(|other| other.read().iter().any(is_here));
        let stranger = || Heir::Stranger("another tunnel takes everything".to_owned());
        Ok(Some(other.map_or_else(stranger, Heir::Tunnel)))
    }

    fn heir_of_forwarding(&self, change: &Forwarding, netlink: &mut Netlink) -> Option<Heir> {
        let interfaces = masquerade::interfaces(netlink, change.family);
        let mut journals = interfaces.iter().map(|interface| self.journal.of_other(interface));
        if let Some(other) = journals.find(|other| *other != self.journal) {
            return Some(Heir::Tunnel(other));
        }
        if change.is_translated {
            return None;
        }
        // Of a container engine that found forwarding on, say, and did not have to turn it on itself.
        let translator = masquerade::translator(netlink, change.family)?;
        let nft::Standing { family, table, name, .. } = translator;
        Some(Heir::Stranger(format!(
            "the chain {name} of the table {family} {table} translates addresses by now, as container \
             engines do"
        )))
    }
}

impl Step for Lasting {
    fn describe(&self) -> String {
        self.change.describe()
    }

    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        self.journal.add(&self.change)?;
        let outcome = self.change.apply(netlink);
        if outcome.is_err() {
            self.journal.strike(&self.change)?;
        }
        outcome
    }

    fn describe_undo(&self) -> Option<String> {
        Some(self.change.describe_undo())
    }

    fn undo(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        self.change.undo(netlink)?;
        Ok(self.journal.strike(&self.change)?)
    }
}
