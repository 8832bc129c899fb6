//! `reload`: a running interface is changed to what its file says now.
//!
//! Everything that differs is changed, all of it or nothing, and sessions of peers that stay are
//! kept. Compared are the file as it was applied (the `record`), the file now, and the host: what
//! others have added to the interface stays, peers that the file does not name go. A private key
//! that the file does not have is kept. What cannot be changed without a moment in which packets
//! would take the wrong way is refused before anything is touched: see [`obstacles`]. Where a kill
//! switch was on and stays on, nothing gets out beside the tunnel at any time.

use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;

use ipnet::IpNet;

use crate::control::command::{AllowedIpChange, DeviceSnapshot, PeerSnapshot, SetRequest};
use crate::control::config::{Config, Interface, Table};
use crate::control::divert::{Diversion, Standing};
use crate::control::dns;
use crate::control::firewall;
use crate::control::health::SetHealth;
use crate::control::hooks::{RunHook, Shell};
use crate::control::host_change::{HostChange, Lasting};
use crate::control::interrupt::Interrupt;
use crate::control::journal::Journal;
use crate::control::lifecycle::{Console, Kind, LifecycleError, Step, TakenBack, Transaction};
use crate::control::link::{AddAddress, SetMark, SetMtuUp};
use crate::control::masquerade::{self, Masquerading};
use crate::control::netlink::nft::Owner;
use crate::control::netlink::{Link, Mark, Netlink};
use crate::control::peer_changes::{self, SetDevice, SetPeers, policy_of};
use crate::control::proxy::SetServing;
use crate::control::record::{self, Record};
use crate::control::resolve::Resolve;
use crate::control::routes::{self, AddRoute, Destination};
use crate::control::uapi::client::UapiClient;
use crate::control::up::{mtu, plan_routes, set_dns, without_ipv6_if_off};

/// What a reload is to bring about.
pub struct Reload<'a> {
    pub interface: &'a str,
    /// Where `config` was read.
    pub file: PathBuf,
    pub config: &'a Config,
    pub resolve: Resolve,
    pub extent: Extent,
}

/// How far a reload goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// Hooks that have changed are run: the old ones for `down`, then the new ones for `up`.
    pub runs_hooks: bool,
    /// Only tells what would be done.
    pub is_rehearsal: bool,
}

/// Changes what differs; tells whether anything did. The caller has his [`turn`](super::starting::turn).
///
/// # Errors
/// What stood in the way. The interface is then as it was, but for what hooks have done.
pub fn reload(
    plan: Reload<'_>,
    console: &mut dyn Console,
    interrupt: &Interrupt,
) -> Result<bool, LifecycleError> {
    let Reload { interface, file, config, mut resolve, extent } = plan;
    let Extent { runs_hooks, is_rehearsal } = extent;
    if config.says_nothing() {
        return Err(LifecycleError::NothingSaid { file });
    }
    let mut netlink = Netlink::new();
    let not_wireguard = || LifecycleError::NotWireGuard { interface: interface.to_owned() };
    let link = netlink.link(interface)?.ok_or_else(not_wireguard)?;
    let device = UapiClient::connect(interface)?.get()?;
    let no_record = || LifecycleError::NoRecord { interface: interface.to_owned() };
    let Record { config: before, .. } = record::read(interface).ok_or_else(no_record)?;
    let obstacles = obstacles(&before, config);
    if !obstacles.is_empty() {
        let what = obstacles.join(", ");
        return Err(LifecycleError::NeedsRestart { interface: interface.to_owned(), what });
    }
    let peers = peer_changes::between(&before, config, &device, &mut resolve)?;
    let device_change = peer_changes::of_device(&before.interface, &config.interface, &device);
    let hooks = Hooks::new(interface, &before.interface, &config.interface);
    let owner = owner_of(interface);

    let kind = if is_rehearsal { Kind::Rehearsing } else { Kind::Changing };
    let mut steps = Transaction::new(&mut netlink, console, interrupt, kind);
    let after = afterwards(&device, device_change.iter().chain([&peers]));
    let masqueraded = masqueraded(interface, &before.interface, &device)?;
    let wanted = Wanted::plan(&mut steps, &link, config, after, masqueraded)?;
    if runs_hooks {
        hooks.run_old(&mut steps)?;
    }
    if let Some(request) = device_change {
        steps.apply(SetDevice::new(interface, request, &device, &before.interface))?;
    }
    change_host(&mut steps, &link, &before, config, &device, &wanted, owner)?;
    if peers != SetRequest::default() {
        steps.apply(SetPeers::new(interface, peers, device, &before))?;
    }
    SetServing::plan(&mut steps, interface, &config.interface, &before.interface)?;
    let (health, former) = (config.health(), before.health());
    if health != former {
        steps.apply(SetHealth::new(interface, health, former))?;
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
    // Hooks that were not run are still to be.
    let applied = if runs_hooks { config.clone() } else { with_hooks_of(&before, config) };
    if !is_rehearsal && let Err(error) = record::write(interface, &file, &applied) {
        console.warn(&format!("the next reload will repeat this one: {error}"));
    }
    Ok(has_changed)
}

/// What masquerades now: the daemon knows whether it does, and the tables follow from the file.
fn masqueraded(
    interface: &str,
    before: &Interface,
    device: &DeviceSnapshot,
) -> Result<masquerade::Standing, LifecycleError> {
    if UapiClient::connect(interface)?.status()?.flows.is_some() {
        let flows = Some(masquerade::flows_of(before, true));
        return Ok(masquerade::Standing { flows, ..Default::default() });
    }
    let tables = masquerade::standing(interface, before, &device.networks());
    Ok(masquerade::Standing { tables, flows: masquerade::exposed_of(before) })
}

/// What has been applied while the hooks of `before` are still those that were run.
pub(super) fn with_hooks_of(before: &Config, config: &Config) -> Config {
    let Interface { pre_up, post_up, pre_down, post_down, .. } = before.interface.clone();
    let interface = Interface { pre_up, post_up, pre_down, post_down, ..config.interface.clone() };
    Config { interface, ..config.clone() }
}

/// Who the firewall's tables belong to. Without him they cannot be changed.
fn owner_of(interface: &str) -> Option<Rc<Owner>> {
    let kept = UapiClient::connect(interface).and_then(|mut client| client.kept());
    kept.ok().flatten().map(|kept| Rc::new(Owner::from(kept)))
}

/// The keys that differ and cannot be changed on a running interface: while everything goes into the
/// tunnel, its own packets are told by their mark, and with another they would go into it as well.
fn obstacles(before: &Config, after: &Config) -> Vec<&'static str> {
    if defaults(before).is_empty() {
        return Vec::new();
    }
    let (was, is) = (&before.interface, &after.interface);
    let mask = |interface: &Interface| interface.fwmark_mask.as_ref().map(|mask| mask.value);
    let differences = [
        ("FwMark", was.fwmark.unwrap_or(0) != is.fwmark.unwrap_or(0)),
        ("FwMarkMask", mask(was) != mask(is)),
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

/// What the host is to be like.
struct Wanted {
    addresses: Vec<IpNet>,
    /// Bytes.
    mtu: u32,
    /// Each with its table, but for those of policy routing.
    routes: Vec<(IpNet, u32)>,
    diversion: Option<Diversion>,
    standing: Standing,
    masquerading: Masquerading,
}

impl Wanted {
    /// For `config` and the `device` that it leads to, where there are the tables `masqueraded`.
    /// Changes nothing.
    fn plan(
        steps: &mut Transaction<'_>,
        link: &Link,
        config: &Config,
        device: DeviceSnapshot,
        masqueraded: masquerade::Standing,
    ) -> Result<Self, LifecycleError> {
        let settings = &config.interface;
        let sources = device.networks();
        let destination = Destination::of(settings.table.as_ref().map(|table| &table.value))?;
        let standing = Standing::of(steps.netlink(), link)?;
        let addresses = without_ipv6_if_off(&settings.addresses, &link.name, "Address", steps);
        let mtu = mtu(settings, &addresses, &device, steps)?;
        let (networks, diversion) =
            plan_routes(steps, link, device, destination, settings, standing.clone())?;
        let routes = destination.routes(networks, &settings.addresses);
        let masquerading = Masquerading::plan(steps, &link.name, settings, &sources, masqueraded)?;
        Ok(Self { addresses, mtu, routes, diversion, standing, masquerading })
    }
}

/// Everything but the device.
fn change_host(
    steps: &mut Transaction<'_>,
    link: &Link,
    before: &Config,
    after: &Config,
    device: &DeviceSnapshot,
    wanted: &Wanted,
    owner: Option<Rc<Owner>>,
) -> Result<(), LifecycleError> {
    let Wanted { diversion, standing, masquerading, .. } = wanted;
    let has_tables = diversion.is_some() || standing.has_tables() || masquerading.has_tables();
    let owner = if has_tables { firewall::known(owner, steps.console()) } else { None };
    let owner = owner.as_ref();
    let (was, is) = (&before.interface, &after.interface);
    let routed = steps.netlink().routes_through(link)?;
    steps.apply(RestoreRoutes { link: link.clone(), routes: routed })?;
    if let Some(diversion) = diversion {
        diversion.close(steps, &mut Vec::new())?;
    }
    let addresses = change_addresses(steps, link, &was.addresses, &wanted.addresses)?;
    // Where the file goes on saying none, the device follows its paths.
    let is_decided = is.mtu.is_some() || policy_of(was) != policy_of(is);
    if wanted.mtu != link.mtu && is_decided {
        steps.apply(SetMtuUp { link: link.clone(), mtu: wanted.mtu })?;
    }
    change_dns(steps, &link.name, was, is)?;
    change_routes(steps, link, before, device, &wanted.routes)?;
    if let Some(diversion) = diversion {
        diversion.open(steps, &addresses, owner)?;
    }
    standing.take_back(steps, link, diversion.as_ref(), owner)?;
    masquerading.apply(steps, owner)?;
    let picked = standing.mark().filter(|_| was.fwmark.unwrap_or(0) == 0);
    if let Some(Mark { value: former, .. }) = picked
        && diversion.is_none()
    {
        steps.apply(SetMark { interface: link.name.clone(), mark: 0, former })?;
    }
    Ok(())
}

/// The device as it will be.
fn afterwards<'a>(
    device: &DeviceSnapshot,
    changes: impl Iterator<Item = &'a SetRequest>,
) -> DeviceSnapshot {
    let mut device = device.clone();
    for SetRequest { fwmark, peers, .. } in changes {
        device.fwmark = fwmark.unwrap_or(device.fwmark);
        for update in peers {
            let key = update.public_key;
            if update.remove {
                device.peers.retain(|peer| peer.public_key != key);
                continue;
            }
            if !device.peers.iter().any(|peer| peer.public_key == key) {
                device.peers.push(PeerSnapshot::new(key));
            }
            for peer in &mut device.peers {
                let is_it = peer.public_key == key;
                for &change in &update.allowed_ips {
                    let (AllowedIpChange::Add(network) | AllowedIpChange::Remove(network)) = change;
                    let is_new = matches!(change, AllowedIpChange::Add(_));
                    // A network that is given to one peer is taken from the others.
                    peer.allowed_ips.retain(|it| *it != network || (!is_it && !is_new));
                    peer.allowed_ips.extend((is_it && is_new).then_some(network));
                }
                peer.endpoint = update.endpoint.filter(|_| is_it).or(peer.endpoint);
            }
        }
    }
    device
}

/// New ones come before old ones go: with its last address an interface loses its routes. Returns
/// what there is then.
fn change_addresses(
    steps: &mut Transaction<'_>,
    link: &Link,
    before: &[IpNet],
    after: &[IpNet],
) -> Result<Vec<IpNet>, LifecycleError> {
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
    if !gone.is_empty() && !steps.is_rehearsal() {
        // The kernel takes the other addresses of a network away with the first.
        let left = steps.netlink().addresses(link)?;
        for &address in after.iter().filter(|address| !left.contains(address)) {
            steps.apply(add(address))?;
        }
    }
    let new = after.iter().filter(|address| !present.contains(address));
    Ok(present.iter().filter(|address| !gone.contains(address)).chain(new).copied().collect())
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

/// Those of the former file, and of what the device had, go if nothing wants them any more.
fn change_routes(
    steps: &mut Transaction<'_>,
    link: &Link,
    before: &Config,
    device: &DeviceSnapshot,
    wanted: &[(IpNet, u32)],
) -> Result<(), LifecycleError> {
    let settings = &before.interface;
    let destination = Destination::of(settings.table.as_ref().map(|table| &table.value))?;
    let said = before.merged_peers().into_iter().flat_map(|peer| peer.networks);
    let running = device.peers.iter().flat_map(|peer| peer.allowed_ips.iter().copied());
    let is_diverted =
        |network: &IpNet| destination == Destination::Auto && network.prefix_len() == 0;
    let mut networks = routes::to_add(said.chain(running));
    networks.retain(|network| !is_diverted(network));
    let former = destination.routes(networks, &settings.addresses);
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
    use crate::control::command::PeerUpdate;
    use crate::control::config::parse;
    use crate::crypto::key::PublicKey;

    const PEER: &str = "oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=";

    fn config(interface: &str, networks: &str) -> Config {
        let text = format!(
            "[Interface]\n{interface}\n[Peer]\nPublicKey = {PEER}\nAllowedIPs = {networks}\n"
        );
        parse(&text, "t.conf").unwrap().config
    }

    #[test]
    fn u_11_the_mark_is_not_changed_while_everything_goes_into_the_tunnel() {
        let all = "0.0.0.0/0, 10.0.0.0/8";
        let base = config("Address = 10.0.0.1", all);
        let differences =
            |interface: &str, networks: &str| obstacles(&base, &config(interface, networks));
        let others = "Address = 10.0.0.2\nMTU = 1280\n#hybridwg: KillSwitch = on";
        assert!(differences(others, "0.0.0.0/0, ::/0").is_empty());
        assert!(differences("Table = off", all).is_empty());
        assert_eq!(differences("FwMark = 1", all), ["FwMark"]);
        assert_eq!(differences("FwMark = 1", "10.0.0.0/8"), ["FwMark"]);
        let marked = "FwMark = 1\n#hybridwg: FwMarkMask = 0xff";
        assert_eq!(differences(marked, all), ["FwMark", "FwMarkMask"]);
        for without in [config("Table = off", all), config("", "10.0.0.0/8")] {
            assert!(obstacles(&without, &config(marked, all)).is_empty(), "no policy routing yet");
        }
    }

    #[test]
    fn the_device_as_it_will_be_has_each_network_once_and_new_endpoints() {
        let keys = [1, 2, 3].map(|byte| PublicKey::from_bytes([byte; 32]));
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let peer = |key, networks: &[&str]| PeerSnapshot {
            allowed_ips: networks.iter().map(|text| net(text)).collect(),
            ..PeerSnapshot::new(key)
        };
        let device = DeviceSnapshot {
            peers: vec![
                peer(keys[0], &["10.0.0.0/8"]),
                peer(keys[1], &["10.1.0.0/16", "10.2.0.0/16"]),
            ],
            ..DeviceSnapshot::default()
        };
        let endpoint = "192.0.2.1:7".parse().unwrap();
        let (add, remove) = (AllowedIpChange::Add, AllowedIpChange::Remove);
        let changes = SetRequest {
            fwmark: Some(5),
            peers: vec![
                PeerUpdate { remove: true, ..PeerUpdate::new(keys[0]) },
                PeerUpdate {
                    allowed_ips: vec![add(net("10.1.0.0/16"))],
                    endpoint: Some(endpoint),
                    ..PeerUpdate::new(keys[2])
                },
                // It is somebody else's by then.
                PeerUpdate {
                    allowed_ips: vec![remove(net("10.1.0.0/16"))],
                    ..PeerUpdate::new(keys[1])
                },
            ],
            ..SetRequest::default()
        };
        let after = afterwards(&device, [&changes].into_iter());
        assert_eq!(after.fwmark, 5);
        let told: Vec<_> = after
            .peers
            .iter()
            .map(|it| (it.public_key, it.endpoint, it.allowed_ips.clone()))
            .collect();
        assert_eq!(
            told,
            [
                (keys[1], None, vec![net("10.2.0.0/16")]),
                (keys[2], Some(endpoint), vec![net("10.1.0.0/16")]),
            ]
        );
    }
}
