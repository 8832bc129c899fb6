//! Peers get out under this host's own addresses: `Masquerade`, `MasqueradeFrom`, `AllowTo`,
//! `DenyTo`.
//!
//! By nftables where that works, and else flow by flow, by sockets of the daemon, which need nothing of
//! the kernel's. The tables of nftables belong to the daemon and go with it, where the kernel knows owners; else
//! `down` deletes them. Forwarding is turned on, and turned off again by `down` if it was off and no
//! other tunnel needs it. A plan is made from what the host says and changes nothing.

mod flows;
mod forward;
mod obstacles;
mod tables;

use std::path::Path;
use std::rc::Rc;

use ipnet::IpNet;

use self::flows::SetFlows;
use self::forward::Forward;
use self::obstacles::Obstacle;
use self::tables::{MASQUERADE, PREFIX};
use crate::control::command::Flows;
use crate::control::config::{Interface, Masquerade};
use crate::control::firewall::Protect;
use crate::control::journal::Journal;
use crate::control::lifecycle::{LifecycleError, Step, TakenBack, Transaction};
use crate::control::netlink::nft::{self, Owner, Table};
use crate::control::netlink::{Family, Netlink};
use crate::control::up::{is_ipv6_off, without_ipv6_if_off};

/// What is to be done for one tunnel.
#[derive(Clone, Debug, Default)]
pub struct Masquerading {
    interface: String,
    tables: Vec<Table>,
    /// In whose place the tables come.
    former: Standing,
    /// What is carried on flow by flow.
    flows: Option<Flows>,
    /// Each family's sources.
    sources: Vec<IpNet>,
    /// Why this way was taken, in words behind its name.
    reason: &'static str,
}

/// What an interface has.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    pub tables: Vec<Table>,
    pub flows: Option<Flows>,
}

impl Masquerading {
    /// For a tunnel whose peers have `networks`, and which has what `former` says.
    ///
    /// # Errors
    /// Nothing can be masqueraded in the way that is asked for.
    pub fn plan(
        steps: &mut Transaction<'_>,
        interface: &str,
        settings: &Interface,
        networks: &[IpNet],
        former: Standing,
    ) -> Result<Self, LifecycleError> {
        let wanted = settings.masquerade.map_or(Masquerade::Off, |wanted| wanted.value);
        // The way that was taken stays: what others have put in it since is no reason to leave it.
        let has_tables = !former.tables.is_empty();
        let carried = former.flows.as_ref().is_some_and(|flows| flows.carries);
        let wanted = match wanted {
            Masquerade::Auto if carried => Masquerade::Flow,
            wanted => wanted,
        };
        let flows = exposed_of(settings);
        let nothing = Self { interface: interface.to_owned(), former, flows, ..Self::default() };
        let flow_by_flow = || Some(flows_of(settings, true));
        match wanted {
            Masquerade::Off => return Ok(nothing),
            Masquerade::Flow => return Ok(Self { flows: flow_by_flow(), ..nothing }),
            Masquerade::Auto | Masquerade::Nft => {}
        }
        let sources = sources(settings, networks);
        let sources = without_ipv6_if_off(&sources, interface, "MasqueradeFrom", steps);
        if sources.is_empty() && networks.iter().any(is_everything) {
            return Err(LifecycleError::NoMasqueradeSource { interface: interface.to_owned() });
        }
        let (tables, obstacles) = match tables(interface, settings, &sources, has_ipv6(interface)) {
            Ok(tables) => {
                let obstacles = obstacles::of(interface, &tables, steps.netlink());
                (tables, obstacles)
            }
            Err(rule) => (Vec::new(), vec![Obstacle::Rule(rule)]),
        };
        let stands_in_the_way = |it: &Obstacle| it.is_certain() || !has_tables;
        if wanted == Masquerade::Auto && obstacles.iter().any(stands_in_the_way) {
            for obstacle in &obstacles {
                let told = obstacle.tell(interface);
                steps.console().warn(&format!("flow by flow, and not by nftables: {told}"));
            }
            let reason = " (auto: nftables would not do)";
            return Ok(Self { flows: flow_by_flow(), reason, ..nothing });
        }
        let reason = choose(wanted, interface, &obstacles)?;
        for obstacle in &obstacles {
            let told = obstacle.tell(interface);
            steps.console().warn(&format!("what is masqueraded may not get through: {told}"));
        }
        Ok(Self { tables, sources, reason, ..nothing })
    }

    /// Whether tables of nftables are made, changed or deleted.
    pub fn has_tables(&self) -> bool {
        !self.tables.is_empty() || !self.former.tables.is_empty()
    }

    /// Makes the tables, and lets the host forward; takes back the tables that are not wanted any
    /// more.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn apply(
        &self,
        steps: &mut Transaction<'_>,
        owner: Option<&Rc<Owner>>,
    ) -> Result<(), LifecycleError> {
        // There is no moment in which the policy holds neither here nor there.
        let carries = self.flows.as_ref().is_some_and(|flows| flows.carries);
        if carries {
            self.set_flows(steps)?;
        }
        for table in &self.tables {
            let family = table.family;
            let former = self.former.tables.iter().find(|former| former.family == family).cloned();
            // What stands may be of other peers: it is made anew in any case.
            let announcement =
                if former.as_ref() == Some(table) { String::new() } else { self.announce(family) };
            steps.apply(self.put(table, former, announcement, owner))?;
        }
        let journal = Journal::of(&self.interface);
        for family in Family::BOTH {
            if self.tables.iter().any(|it| it.family == family && tables::masquerades(it)) {
                let step = Forward::new(steps.netlink(), family, journal.clone())?;
                steps.apply(step)?;
            }
        }
        if !carries {
            self.set_flows(steps)?;
        }
        self.leave(steps, owner)
    }

    fn set_flows(&self, steps: &mut Transaction<'_>) -> Result<(), LifecycleError> {
        if self.flows == self.former.flows {
            return Ok(());
        }
        steps.apply(SetFlows::new(self))
    }

    /// Takes back what is not needed any more: forwarding before the policy.
    fn leave(
        &self,
        steps: &mut Transaction<'_>,
        owner: Option<&Rc<Owner>>,
    ) -> Result<(), LifecycleError> {
        let journal = Journal::of(&self.interface);
        for family in Family::BOTH {
            let is_needed =
                self.tables.iter().any(|it| it.family == family && tables::masquerades(it));
            if let Some(step) = Forward::standing(steps.netlink(), family, &journal)?
                && !is_needed
            {
                steps.apply(TakenBack(step))?;
            }
        }
        let is_wanted = |table: &&Table| self.tables.iter().any(|it| it.family == table.family);
        for table in self.former.tables.iter().filter(|table| !is_wanted(table)) {
            let announcement = format!("# {}: masquerades by nftables again", self.interface);
            steps.apply(TakenBack(self.put(table, None, announcement, owner)))?;
        }
        Ok(())
    }

    fn put(
        &self,
        table: &Table,
        former: Option<Table>,
        announcement: String,
        owner: Option<&Rc<Owner>>,
    ) -> PutTable {
        let journal = Journal::of(&self.interface);
        let delete = if former.is_some() { String::new() } else { table.delete_command() };
        let protect = Protect::new(owner.cloned(), table.clone(), former, journal);
        PutTable { protect, announcement, delete }
    }

    fn announce(&self, family: Family) -> String {
        let Self { interface, sources, reason, .. } = self;
        let ours = sources.iter().filter(|network| Family::of(network.addr()) == family);
        let sources: Vec<String> = ours.map(ToString::to_string).collect();
        let sources = sources.join(", ");
        if sources.is_empty() {
            let version = if family == Family::V4 { 4 } else { 6 };
            return format!("# {interface}: closes over IPv{version} what peers may not reach");
        }
        format!("# {interface}: masquerades {sources} by nftables{reason}")
    }
}

/// The tables that `settings` have led to for a tunnel whose peers have `networks`.
pub fn standing(interface: &str, settings: &Interface, networks: &[IpNet]) -> Vec<Table> {
    if settings.masquerade.is_none_or(|wanted| wanted.value == Masquerade::Off) {
        return Vec::new();
    }
    let mut sources = sources(settings, networks);
    let has_ipv6 = has_ipv6(interface);
    if !has_ipv6 {
        sources.retain(|network| matches!(network, IpNet::V4(_)));
    }
    tables(interface, settings, &sources, has_ipv6).unwrap_or_default()
}

fn has_ipv6(interface: &str) -> bool {
    !is_ipv6_off(Path::new("/proc/sys/net"), interface)
}

/// The tunnels of this network namespace that masquerade packets of the family. None if the kernel
/// tells nothing of nftables.
pub fn interfaces(netlink: &mut Netlink, family: Family) -> Vec<String> {
    let chains = netlink.base_chains().unwrap_or_default();
    let ours = chains.iter().filter(|chain| chain.name == MASQUERADE && chain.is_of(family));
    ours.filter_map(|chain| chain.table.strip_prefix(PREFIX)).map(str::to_owned).collect()
}

/// A chain of somebody else's that gives forwarded packets of the family another source. None if the
/// kernel tells nothing of nftables.
pub fn translator(netlink: &mut Netlink, family: Family) -> Option<nft::Standing> {
    let chains = netlink.base_chains().unwrap_or_default();
    let others = chains.into_iter().filter(|chain| {
        chain.is_source_nat && chain.is_of(family) && !chain.table.starts_with(PREFIX)
    });
    // iptables leaves chains behind that are empty.
    let mut others = others.filter(|chain| netlink.has_rules(chain).unwrap_or(false));
    others.next()
}

/// By whom and why nftables are taken.
///
/// # Errors
/// They cannot be.
fn choose(
    wanted: Masquerade,
    interface: &str,
    obstacles: &[Obstacle],
) -> Result<&'static str, LifecycleError> {
    if wanted == Masquerade::Auto && obstacles.is_empty() {
        return Ok(" (auto: nothing stands in the way)");
    }
    if !obstacles.iter().any(Obstacle::is_certain) {
        return Ok("");
    }
    let list: Vec<String> = obstacles.iter().map(|obstacle| obstacle.tell(interface)).collect();
    let interface = interface.to_owned();
    Err(LifecycleError::NoMasquerade { interface, obstacles: list.join("\n- ") })
}

/// What the file says about flows, where those to others are carried on or not.
pub fn flows_of(settings: &Interface, carries: bool) -> Flows {
    let sources = settings.masquerade_from.iter().map(|network| network.value).collect();
    let expose = settings.ends.expose.iter().map(|expose| expose.value.clone()).collect();
    Flows { carries, expose, policy: settings.policy(), sources, tuning: settings.tuning() }
}

/// The flows that there are where those to others are not carried on.
pub fn exposed_of(settings: &Interface) -> Option<Flows> {
    let has_any = !settings.ends.expose.is_empty();
    has_any.then(|| flows_of(settings, false))
}

/// A line for each service that peers find at the addresses of `interface`.
pub fn tell_exposed(interface: &str, flows: &Flows) -> impl Iterator<Item = String> {
    flows.expose.iter().map(move |expose| format!("# {interface}: exposes {expose}"))
}

/// A table for each family that the host has.
fn tables(
    interface: &str,
    settings: &Interface,
    sources: &[IpNet],
    has_ipv6: bool,
) -> Result<Vec<Table>, crate::flow::policy::Rule> {
    let policy = settings.policy();
    let families = Family::BOTH.into_iter().filter(|family| has_ipv6 || *family == Family::V4);
    families.map(|family| tables::table(interface, family, sources, &policy)).collect()
}

/// Those that the file names, else what the peers have. A peer that has everything is a way out and
/// no source.
fn sources(settings: &Interface, networks: &[IpNet]) -> Vec<IpNet> {
    let named: Vec<IpNet> = settings.masquerade_from.iter().map(|network| network.value).collect();
    let all = if named.is_empty() { networks.to_vec() } else { named };
    let mut sources = IpNet::aggregate(&all);
    sources.retain(|network| !is_everything(network) || !settings.masquerade_from.is_empty());
    sources
}

fn is_everything(network: &IpNet) -> bool {
    network.prefix_len() == 0
}

/// A table under words of its own: it is too long to be printed.
#[derive(Debug)]
struct PutTable {
    protect: Protect,
    announcement: String,
    delete: String,
}

impl Step for PutTable {
    fn describe(&self) -> String {
        self.announcement.clone()
    }

    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        self.protect.apply(netlink)
    }

    fn describe_undo(&self) -> Option<String> {
        Some(self.delete.clone())
    }

    fn undo(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        self.protect.undo(netlink)
    }
}
