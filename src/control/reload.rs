//! `reload`: a running interface is changed to what its file says now.
//!
//! Everything that differs is changed, all of it or nothing, and sessions of peers that stay are
//! kept. Compared are the file as it was applied (the `record`), the file now, and the host: what
//! others have added to the interface stays, peers that the file does not name go. A private key
//! that the file does not have is kept. What cannot be changed without a moment in which packets
//! would take the wrong way is refused before anything is touched: see [`obstacles`].

use std::collections::HashSet;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::control::command::{DeviceSnapshot, PeerSnapshot, SetRequest};
use crate::control::config::{Config, Interface, Table};
use crate::control::dns;
use crate::control::hooks::{RunHook, Shell};
use crate::control::host_change::{HostChange, Lasting};
use crate::control::interrupt::Interrupt;
use crate::control::journal::Journal;
use crate::control::lifecycle::{Console, Kind, LifecycleError, Step, TakenBack, Transaction};
use crate::control::link::{AddAddress, SetMtuUp};
use crate::control::netlink::{Link, MAIN_TABLE, Netlink};
use crate::control::peer_changes::{self, SetDevice, SetPeers};
use crate::control::record::{self, Record};
use crate::control::resolve::Resolve;
use crate::control::routes::{self, AddRoute, Destination};
use crate::control::starting::{Note, NoteError};
use crate::control::uapi::client::UapiClient;
use crate::control::up::{mtu, set_dns, without_ipv6_if_off};

/// What a reload is to bring about.
pub struct Reload<'a> {
    pub interface: &'a str,
    /// Where `config` was read.
    pub file: PathBuf,
    pub config: &'a Config,
    pub resolve: Resolve,
    /// Hooks that have changed are run: the old ones for `down`, then the new ones for `up`.
    pub runs_hooks: bool,
    /// Only tells what would be done.
    pub is_rehearsal: bool,
}

/// Changes what differs; tells whether anything did.
///
/// # Errors
/// What stood in the way. The interface is then as it was, but for what hooks have done.
pub fn reload(
    plan: Reload<'_>,
    console: &mut dyn Console,
    interrupt: &Interrupt,
) -> Result<bool, LifecycleError> {
    let Reload { interface, file, config, mut resolve, runs_hooks, is_rehearsal } = plan;
    if config.says_nothing() {
        return Err(LifecycleError::NothingSaid { file });
    }
    let mut netlink = Netlink::new();
    let not_wireguard = || LifecycleError::NotWireGuard { interface: interface.to_owned() };
    let link = netlink.link(interface)?.ok_or_else(not_wireguard)?;
    let device = UapiClient::connect(interface)?.get()?;
    let no_record = || LifecycleError::NoRecord { interface: interface.to_owned() };
    let Record { config: before, .. } = record::read(interface).ok_or_else(no_record)?;
    let _note = take_note(interface)?;
    let obstacles = obstacles(&before, config);
    if !obstacles.is_empty() {
        let what = obstacles.join(", ");
        return Err(LifecycleError::NeedsRestart { interface: interface.to_owned(), what });
    }
    let peers = peer_changes::between(&before, config, &device, &mut resolve)?;
    let device_change = peer_changes::of_device(&before.interface, &config.interface, &device);
    let hooks = Hooks::new(interface, &before.interface, &config.interface);

    let kind = if is_rehearsal { Kind::Rehearsing } else { Kind::Changing };
    let mut steps = Transaction::new(&mut netlink, console, interrupt, kind);
    if runs_hooks {
        hooks.run_old(&mut steps)?;
    }
    if let Some(request) = device_change {
        steps.apply(SetDevice::new(interface, request, &device))?;
    }
    change_host(&mut steps, &link, &before, config, &device, &peers)?;
    if peers != SetRequest::default() {
        steps.apply(SetPeers::new(interface, peers, device, &before))?;
    }
    if runs_hooks {
        hooks.run_new(&mut steps)?;
    } else if hooks.have_changed {
        steps
            .console()
            .warn("hooks have changed: they run with --hooks, or at the next down and up");
    }
    let has_changed = steps.announced() > 0;
    steps.commit()?;
    if !is_rehearsal && let Err(error) = record::write(interface, &file, config) {
        console.warn(&format!("the next reload will repeat this one: {error}"));
    }
    Ok(has_changed)
}

/// Keeps other reloads and `up` away.
fn take_note(interface: &str) -> Result<Option<Note>, LifecycleError> {
    match Note::take(interface) {
        Ok(note) => Ok(Some(note)),
        Err(NoteError::Held) => Err(LifecycleError::Busy { interface: interface.to_owned() }),
        Err(NoteError::Failed { .. }) => Ok(None),
    }
}

/// The keys that differ and cannot be changed on a running interface: where everything goes into the
/// tunnel, rules, marks, the firewall and the kill switch depend on each other, and between two
/// states of them packets would leave beside the tunnel.
fn obstacles(before: &Config, after: &Config) -> Vec<&'static str> {
    let (was, is) = (&before.interface, &after.interface);
    let is_diverted = !defaults(before).is_empty() || !defaults(after).is_empty();
    if !is_diverted {
        return Vec::new();
    }
    let table = |interface: &Interface| match interface.table.as_ref().map(|table| &table.value) {
        None => Table::Auto,
        Some(table) => table.clone(),
    };
    let switch = |interface: &Interface| interface.kill_switch.is_some_and(|switch| switch.value);
    let mask = |interface: &Interface| interface.fwmark_mask.as_ref().map(|mask| mask.value);
    let set = |interface: &Interface| interface.addresses.iter().copied().collect::<HashSet<_>>();
    let differences = [
        ("Table", table(was) != table(is)),
        ("KillSwitch", switch(was) != switch(is)),
        ("FwMark", was.fwmark.unwrap_or(0) != is.fwmark.unwrap_or(0)),
        ("FwMarkMask", mask(was) != mask(is)),
        ("0.0.0.0/0 or ::/0 among the AllowedIPs", defaults(before) != defaults(after)),
        ("Address beside 0.0.0.0/0 or ::/0", set(was) != set(is)),
    ];
    differences.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// The default routes that need policy routing.
fn defaults(config: &Config) -> HashSet<IpNet> {
    let table = config.interface.table.as_ref().map(|table| &table.value);
    if !matches!(table, None | Some(Table::Auto)) {
        return HashSet::new();
    }
    let networks = config.merged_peers().into_iter().flat_map(|peer| peer.networks);
    networks.filter(|network| network.prefix_len() == 0).collect()
}

/// Addresses, MTU, name servers and routes.
fn change_host(
    steps: &mut Transaction<'_>,
    link: &Link,
    before: &Config,
    after: &Config,
    device: &DeviceSnapshot,
    peers: &SetRequest,
) -> Result<(), LifecycleError> {
    let (was, is) = (&before.interface, &after.interface);
    let routed = steps.netlink().routes_through(link)?;
    steps.apply(RestoreRoutes { link: link.clone(), routes: routed })?;
    let addresses = without_ipv6_if_off(&is.addresses, &link.name, "Address", steps);
    change_addresses(steps, link, &was.addresses, &addresses)?;
    let mtu = mtu(is, &addresses, &afterwards(device, peers), steps)?;
    if mtu != link.mtu {
        steps.apply(SetMtuUp { link: link.clone(), mtu })?;
    }
    change_dns(steps, &link.name, was, is)?;
    change_routes(steps, link, before, after, device)
}

/// The device with the endpoints that it will have.
fn afterwards(device: &DeviceSnapshot, changes: &SetRequest) -> DeviceSnapshot {
    let mut device = device.clone();
    for update in &changes.peers {
        let key = update.public_key;
        if update.remove {
            device.peers.retain(|peer| peer.public_key != key);
        } else if let Some(peer) = device.peers.iter_mut().find(|peer| peer.public_key == key) {
            peer.endpoint = update.endpoint.or(peer.endpoint);
        } else {
            let endpoint = update.endpoint;
            device.peers.push(PeerSnapshot { endpoint, ..PeerSnapshot::new(key) });
        }
    }
    device
}

/// New ones come before old ones go: with its last address an interface loses its routes.
fn change_addresses(
    steps: &mut Transaction<'_>,
    link: &Link,
    before: &[IpNet],
    after: &[IpNet],
) -> Result<(), LifecycleError> {
    let present = steps.netlink().addresses(link)?;
    let add = |address: IpNet| AddAddress { link: link.clone(), address };
    for &address in after.iter().filter(|address| !present.contains(address)) {
        steps.apply(add(address))?;
    }
    let gone =
        before.iter().filter(|address| present.contains(address) && !after.contains(address));
    let gone: Vec<IpNet> = gone.copied().collect();
    for &address in &gone {
        steps.apply(TakenBack(add(address)))?;
    }
    if gone.is_empty() || steps.is_rehearsal() {
        return Ok(());
    }
    // The kernel takes the other addresses of a network away with the first.
    let present = steps.netlink().addresses(link)?;
    for &address in after.iter().filter(|address| !present.contains(address)) {
        steps.apply(add(address))?;
    }
    Ok(())
}

fn change_dns(
    steps: &mut Transaction<'_>,
    interface: &str,
    before: &Interface,
    after: &Interface,
) -> Result<(), LifecycleError> {
    let wanted = dns::Wanted::of(interface, &after.dns);
    if wanted == dns::Wanted::of(interface, &before.dns) {
        return Ok(());
    }
    let journal = Journal::of(interface);
    for change in journal.read().into_iter().filter(|change| matches!(change, HostChange::Dns(_))) {
        steps.apply(TakenBack(Lasting { change, journal: journal.clone() }))?;
    }
    wanted.map_or(Ok(()), |wanted| set_dns(steps, &wanted, after))
}

fn change_routes(
    steps: &mut Transaction<'_>,
    link: &Link,
    before: &Config,
    after: &Config,
    device: &DeviceSnapshot,
) -> Result<(), LifecycleError> {
    let wanted = wanted_routes(steps, link, after, &[])?;
    let running: Vec<IpNet> =
        device.peers.iter().flat_map(|peer| peer.allowed_ips.iter().copied()).collect();
    let former = wanted_routes(steps, link, before, &running)?;
    let present = steps.netlink().routes_through(link)?;
    let add = |(network, table)| AddRoute { link: link.clone(), network, table };
    for &route in wanted.iter().filter(|route| !present.contains(route)) {
        steps.apply(add(route))?;
    }
    for &route in former.iter().filter(|it| present.contains(it) && !wanted.contains(it)) {
        steps.apply(TakenBack(add(route)))?;
    }
    Ok(())
}

/// The routes that a file asks for, each with its table, and those for `more` networks; without
/// the default routes of policy routing, which do not change.
fn wanted_routes(
    steps: &mut Transaction<'_>,
    link: &Link,
    config: &Config,
    more: &[IpNet],
) -> Result<Vec<(IpNet, u32)>, LifecycleError> {
    let settings = &config.interface;
    let destination = Destination::of(settings.table.as_ref().map(|table| &table.value))?;
    let peers = config.merged_peers();
    let networks = peers.iter().flat_map(|peer| peer.networks.iter().copied());
    let networks = routes::to_add(networks.chain(more.iter().copied()));
    let networks = without_ipv6_if_off(&networks, &link.name, "AllowedIPs", steps);
    let is_connected =
        |network: IpNet| settings.addresses.iter().any(|it| routes::is_connected(*it, network));
    let needs_route = |network: &IpNet| network.prefix_len() != 0 && !is_connected(*network);
    Ok(match destination {
        Destination::Nowhere => Vec::new(),
        Destination::Table(table) => networks.into_iter().map(|it| (it, table)).collect(),
        Destination::Auto => {
            networks.into_iter().filter(needs_route).map(|it| (it, MAIN_TABLE)).collect()
        }
    })
}

/// Does nothing, and when it is taken back, which is last of all, makes the routes again that went
/// with an address.
#[derive(Debug)]
struct RestoreRoutes {
    link: Link,
    routes: HashSet<(IpNet, u32)>,
}

impl Step for RestoreRoutes {
    fn describe(&self) -> String {
        String::new()
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        Ok(())
    }

    fn describe_undo(&self) -> Option<String> {
        Some(String::new())
    }

    fn undo(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        let present = netlink.routes_through(&self.link)?;
        let mut gone = self.routes.difference(&present);
        gone.try_for_each(|&(network, table)| netlink.add_route(&self.link, network, table))?;
        Ok(())
    }
}

/// The hooks before and after, if they differ.
struct Hooks<'a> {
    interface: &'a str,
    before: &'a Interface,
    after: &'a Interface,
    have_changed: bool,
}

impl<'a> Hooks<'a> {
    fn new(interface: &'a str, before: &'a Interface, after: &'a Interface) -> Self {
        let all = |it: &'a Interface| [&it.pre_up, &it.post_up, &it.pre_down, &it.post_down];
        Self { interface, before, after, have_changed: all(before) != all(after) }
    }

    fn run_old(&self, steps: &mut Transaction<'_>) -> Result<(), LifecycleError> {
        let Interface { pre_down, post_down, .. } = self.before;
        self.run(steps, [("PreDown", pre_down), ("PostDown", post_down)])
    }

    fn run_new(&self, steps: &mut Transaction<'_>) -> Result<(), LifecycleError> {
        let Interface { pre_up, post_up, .. } = self.after;
        self.run(steps, [("PreUp", pre_up), ("PostUp", post_up)])
    }

    fn run(
        &self,
        steps: &mut Transaction<'_>,
        hooks: [(&'static str, &Vec<String>); 2],
    ) -> Result<(), LifecycleError> {
        if !self.have_changed {
            return Ok(());
        }
        let shell = Shell::for_hooks(&[hooks[0].1, hooks[1].1], steps.console());
        hooks.iter().try_for_each(|(key, commands)| {
            let mut hooks = commands.iter();
            hooks.try_for_each(|hook| steps.apply(RunHook::new(key, hook, self.interface, shell)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::parse;

    const PEER: &str = "oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=";

    fn config(interface: &str, networks: &str) -> Config {
        let text = format!(
            "[Interface]\n{interface}\n[Peer]\nPublicKey = {PEER}\nAllowedIPs = {networks}\n"
        );
        parse(&text, "t.conf").unwrap().config
    }

    #[test]
    fn u_11_what_everything_depends_on_is_not_changed_while_everything_goes_into_the_tunnel() {
        let all = "0.0.0.0/0, 10.0.0.0/8";
        let base = config("Address = 10.0.0.1", all);
        let differences =
            |interface: &str, networks: &str| obstacles(&base, &config(interface, networks));
        assert!(
            differences("Address = 10.0.0.1\nMTU = 1280\nTable = auto", "0.0.0.0/0").is_empty()
        );
        assert_eq!(differences("Address = 10.0.0.1\nFwMark = 1", all), ["FwMark"]);
        assert_eq!(differences("Address = 10.0.0.2", all), ["Address beside 0.0.0.0/0 or ::/0"]);
        assert_eq!(
            differences("Address = 10.0.0.1\n#hybridwg: KillSwitch = on", "0.0.0.0/0, ::/0"),
            ["KillSwitch", "0.0.0.0/0 or ::/0 among the AllowedIPs"]
        );
        let without = config("Address = 10.0.0.1\nTable = off", all);
        let other = config("Address = 10.0.0.2\nTable = 7\nFwMark = 1", all);
        assert!(obstacles(&without, &other).is_empty(), "no policy routing before or after");
    }
}
