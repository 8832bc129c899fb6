//! Changes of the host that do not go away with the interface: each with its command and the way to
//! take it back.
//!
//! They are data, so that a [`Journal`] can keep them for whoever cleans up: `down`, or the next
//! `up` after a crash. Taking back what is not there any more is no failure.

use serde::{Deserialize, Serialize};

use crate::control::journal::Journal;
use crate::control::lifecycle::{LifecycleError, Step};
use crate::control::netlink::{Netlink, NetlinkError, Rule, Unreachable};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostChange {
    /// A policy rule.
    Rule(Rule),
    /// A default route that refuses.
    Unreachable(Unreachable),
}

impl HostChange {
    /// The command that an operator would type for the same effect.
    pub fn describe(&self) -> String {
        match self {
            Self::Rule(rule) => format!("ip {} rule add {rule}", rule.family.flag()),
            Self::Unreachable(route) => format!("ip {} route add {route}", route.family.flag()),
        }
    }

    /// The command that takes it back.
    pub fn describe_undo(&self) -> String {
        match self {
            Self::Rule(rule) => format!("ip {} rule delete {rule}", rule.family.flag()),
            Self::Unreachable(route) => format!("ip {} route delete {route}", route.family.flag()),
        }
    }

    fn apply(&self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        match self {
            Self::Rule(rule) => netlink.add_rule(rule)?,
            Self::Unreachable(route) => netlink.add_unreachable(route)?,
        }
        Ok(())
    }

    /// Takes it back, if it is still there.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn undo(&self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        match self {
            Self::Rule(rule) => if_there(netlink.delete_rule(rule))?,
            Self::Unreachable(route) => if_there(netlink.delete_unreachable(route))?,
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

/// A change as a step: it stands in the journal from before it is made until it is taken back.
#[derive(Debug)]
pub struct Lasting {
    pub change: HostChange,
    pub journal: Journal,
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
