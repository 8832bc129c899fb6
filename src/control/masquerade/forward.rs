//! The host forwards while a tunnel needs it: the step that turns it on, and off again unless somebody
//! else has come to need it.

use crate::control::forwarding::{Forwarding, Parameters};
use crate::control::host_change::{HostChange, Lasting};
use crate::control::journal::Journal;
use crate::control::lifecycle::{LifecycleError, Step};
use crate::control::netlink::{Family, Netlink, NetlinkError};

use super::is_everything;

/// Forwarding of one family. What is to be taken back stands in the journal, also if another tunnel has
/// left it there meanwhile.
#[derive(Debug)]
pub(super) struct Forward {
    family: Family,
    journal: Journal,
    described: String,
    undo_described: String,
}

impl Forward {
    /// For a tunnel that needs it from now on.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(
        netlink: &mut Netlink,
        family: Family,
        journal: Journal,
    ) -> Result<Self, NetlinkError> {
        let missing = missing(netlink, family)?;
        let described = missing.as_ref().map(Forwarding::on_command).unwrap_or_default();
        let undo_described = missing.as_ref().map(Forwarding::off_command).unwrap_or_default();
        Ok(Self { family, journal, described, undo_described })
    }

    /// What the journal has of it, for a tunnel that needs it no longer.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn standing(
        netlink: &mut Netlink,
        family: Family,
        journal: &Journal,
    ) -> Result<Option<Self>, NetlinkError> {
        let Some(change) = standing(journal, family).pop() else { return Ok(None) };
        let lasting = Lasting { change, journal: journal.clone() };
        let heir = lasting.heir(netlink)?;
        Ok(Some(Self {
            family,
            journal: journal.clone(),
            described: lasting.describe(),
            undo_described: lasting.describe_end(heir.as_ref()),
        }))
    }
}

impl Step for Forward {
    fn describe(&self) -> String {
        self.described.clone()
    }

    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        let _turn = self.journal.turn();
        match missing(netlink, self.family)? {
            Some(change) => {
                let change = HostChange::Forwarding(change);
                Lasting { change, journal: self.journal.clone() }.apply(netlink)
            }
            None => Ok(()),
        }
    }

    fn describe_undo(&self) -> Option<String> {
        Some(self.undo_described.clone())
    }

    fn undo(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        let mut standing = standing(&self.journal, self.family).into_iter();
        standing.try_for_each(|change| {
            Lasting { change, journal: self.journal.clone() }.let_go(netlink, drop)
        })
    }
}

/// What must be changed for the host to forward.
fn missing(netlink: &mut Netlink, family: Family) -> Result<Option<Forwarding>, NetlinkError> {
    let parameters = Parameters::of_this_host();
    if parameters.is_on(family) {
        return Ok(None);
    }
    let uplinks = uplinks(netlink, family)?;
    let is_translated = super::translator(netlink, family).is_some();
    Ok(Some(Forwarding { is_translated, ..parameters.change(family, &uplinks) }))
}

fn standing(journal: &Journal, family: Family) -> Vec<HostChange> {
    let mut changes = journal.read();
    changes.retain(|it| matches!(it, HostChange::Forwarding(change) if change.family == family));
    changes
}

/// The interfaces through which default routes of the family lead.
fn uplinks(netlink: &mut Netlink, family: Family) -> Result<Vec<String>, NetlinkError> {
    let mut names = Vec::new();
    for route in netlink.routes()? {
        let destination = route.destination;
        let is_default = is_everything(&destination) && Family::of(destination.addr()) == family;
        if let Some(index) = route.interface.filter(|_| is_default)
            && let Some(link) = netlink.link_by_index(index)?
            && !names.contains(&link.name)
        {
            names.push(link.name);
        }
    }
    Ok(names)
}
