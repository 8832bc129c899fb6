//! `up` and `down`: the steps in the order of wg-quick(8) 1.0.20260223.
//!
//! `up`: interface, PreUp, keys and peers, addresses, MTU and up, routes, PostUp. If a step fails,
//! what was done is taken back: rules, and the interface with everything on it. PreDown and PostDown
//! are not run, and what hooks did is not undone. `down`: PreDown, rules, the interface, PostDown,
//! then forwarding. Where the last daemon has ended otherwise, or the last `up` was killed half-way, `down` or the
//! next `up` takes back what is left and runs PostDown.
//!
//! Must not read files or resolve names by itself: it is given a configuration that was understood
//! and a resolver, which is asked after PreUp because that may bring up the network.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ipnet::IpNet;

use crate::control::command::DeviceSnapshot;
use crate::control::config::{At, Config, DIRECTORY, Endpoint, Interface, Located, Peer};
use crate::control::divert::{Diversion, Standing, with_source};
use crate::control::dns::{DnsChange, Wanted};
use crate::control::ends::Mode;
use crate::control::firewall;
use crate::control::health::SetHealth;
use crate::control::hooks::{RunHook, Shell};
use crate::control::host_change::{HostChange, Lasting};
use crate::control::interrupt::Interrupt;
use crate::control::journal::Journal;
use crate::control::lifecycle::{Console, Kind, LifecycleError, Step, Transaction};
use crate::control::link::{self, AddAddress, AddInterface, Configure, SetMtuUp, delete_command};
use crate::control::masquerade::Masquerading;
use crate::control::mtu;
use crate::control::netlink::nft::Owner;
use crate::control::netlink::{Family, Link, MAIN_TABLE, Mark, Netlink};
use crate::control::preflight::{self, Missing};
use crate::control::proxy::SetServing;
use crate::control::record;
use crate::control::resolve::Resolve;
use crate::control::routes::{self, AddRoute, Destination};
use crate::control::save::save;
use crate::control::settings::Settings;
use crate::control::starting::{self, Note, NoteError};
use crate::control::uapi::client::{ClientError, UapiClient, is_nobody};
use crate::control::uapi::is_interface_name;

/// What `up` is to bring about.
pub struct Up<'a> {
    pub interface: &'a str,
    /// Where `config` was read; for what is printed.
    pub file: PathBuf,
    pub config: &'a Config,
    pub resolve: Resolve,
    pub device: Settings,
}

/// Brings the interface up, or leaves the host as it was.
///
/// # Errors
/// The first step that failed, after everything before it has been taken back.
pub fn up(
    plan: Up<'_>,
    console: &mut dyn Console,
    interrupt: &Interrupt,
) -> Result<(), LifecycleError> {
    let Up { interface, file, config, resolve, device } = plan;
    let settings = &config.interface;
    let mut netlink = Netlink::new();
    look_first(interface, &file, config, console, &mut netlink)?;
    let destination = Destination::of(settings.table.as_ref().map(|table| &table.value))?;
    // Dropped after the transaction, which takes back what was done.
    let note = take_note(interface, settings, console)?;
    let shell = Shell::for_hooks(&[&settings.pre_up, &settings.post_up], console);
    let was_killed = note.as_ref().is_some_and(Note::was_left);
    let has_ended = link::is_left_behind(&mut netlink, interface)?
        || (!was_killed && !Journal::of(interface).read().is_empty());
    if has_ended {
        console.warn(&format!("the last daemon of {interface} ended without `hybridwg down`"));
    } else if was_killed {
        console.warn(&format!("the last `hybridwg up` of {interface} was killed half-way"));
    }
    let mut left = Vec::new();
    if has_ended || was_killed {
        left = clean_up(interface, config, console, &mut netlink);
    }

    let owner = Owner::new().ok().map(Rc::new);
    let mut steps = Transaction::new(&mut netlink, console, interrupt, Kind::Making);
    steps.apply(AddInterface::new(interface, device, owner.clone()))?;
    for hook in &settings.pre_up {
        steps.apply(RunHook::new("PreUp", hook, interface, shell))?;
    }
    let configure = Configure {
        interface: interface.to_owned(),
        file: file.clone(),
        config: config.clone(),
        resolve,
    };
    steps.apply(configure)?;
    // As the device reports it: in canonical form, and with what a PreUp hook has added.
    let device = UapiClient::connect(interface)?.get()?;
    let gone = || LifecycleError::LinkGone { interface: interface.to_owned() };
    let link = steps.netlink().link(interface)?.ok_or_else(gone)?;
    let addresses = without_ipv6_if_off(&settings.addresses, interface, "Address", &mut steps);
    let mtu = mtu(settings, &addresses, &device, &mut steps)?;
    let sources = device.networks();
    let (networks, diversion) =
        plan_routes(&mut steps, &link, device, destination, settings, Standing::default())?;
    if let Some(diversion) = &diversion {
        diversion.close(&mut steps, &mut left)?;
    }
    for &address in &addresses {
        steps.apply(AddAddress { link: link.clone(), address })?;
    }
    let masquerading =
        Masquerading::plan(&mut steps, interface, settings, &sources, Default::default())?;
    let has_tables = diversion.is_some() || masquerading.has_tables();
    let owner = if has_tables { firewall::known(owner, steps.console()) } else { None };
    // Before anybody gets through: what peers may reach is settled from the first packet on.
    masquerading.apply(&mut steps, owner.as_ref())?;
    steps.apply(SetMtuUp { link: link.clone(), mtu })?;
    if let Some(wanted) = Wanted::of(interface, &settings.dns) {
        set_dns(&mut steps, &wanted, settings)?;
    }
    add_routes(&mut steps, &link, networks, destination)?;
    if let Some(diversion) = &diversion {
        let addresses = steps.netlink().addresses(&link)?;
        diversion.open(&mut steps, &addresses, owner.as_ref())?;
    }
    SetServing::plan(&mut steps, interface, settings, &Interface::default())?;
    for hook in &settings.post_up {
        steps.apply(RunHook::new("PostUp", hook, interface, shell))?;
    }
    steps.apply(SetHealth::new(interface, config.health(), Default::default()))?;
    steps.commit()?;
    warn_of(take_back(interface, left, console, &mut netlink), console);
    keep_record(interface, &file, config, console);
    Ok(())
}

fn keep_record(interface: &str, file: &Path, config: &Config, console: &mut dyn Console) {
    if let Err(error) = record::write(interface, file, config) {
        console.warn(&format!(
            "`hybridwg reload` will not work, for want of a record in /run/hybridwg: {error}"
        ));
    }
}

/// What those do who get none of what is missing.
const WITHOUT_INTERFACE: &str = "\nNo right at all is needed without an interface: `Forward`, `Socks5`, \
                                 `Expose` in the file (or -L, -D, -R, --rootless) do that";

/// Looks whether there is such an interface already, and whether this host has what it takes.
///
/// # Errors
/// There is one, or [`LifecycleError::Preflight`].
fn look_first(
    interface: &str,
    file: &Path,
    config: &Config,
    console: &mut dyn Console,
    netlink: &mut Netlink,
) -> Result<(), LifecycleError> {
    if netlink.link(interface)?.is_some() {
        return Err(present(interface, file));
    }
    let missing = preflight::of_tun_mode(config);
    if missing.iter().any(Missing::is_fatal) {
        let mut missing = preflight::tell(&missing);
        if config.interface.ends.mode.is_none_or(|mode| mode.value != Mode::Tun) {
            missing.push_str(WITHOUT_INTERFACE);
        }
        return Err(LifecycleError::Preflight { interface: interface.to_owned(), missing });
    }
    // Of the firewall and of kernel parameters is told what goes on without them, where that is.
    for missing in missing.iter().filter(|it| matches!(it, Missing::Ping | Missing::Descriptors(_)))
    {
        console.warn(&preflight::tell_shortly(missing));
    }
    Ok(())
}

/// Takes the interface down, and saves what it was like first if `config`, which was read from
/// `file`, says so.
///
/// # Errors
/// Not an interface of ours, or the first step that failed; what was done by then stays done.
pub fn down(
    interface: &str,
    file: &Path,
    config: &Config,
    console: &mut dyn Console,
) -> Result<(), LifecycleError> {
    let settings = &config.interface;
    let mut netlink = Netlink::new();
    let is_there = netlink.link(interface)?.is_some();
    let _note = if is_there {
        // Also finds out, before a hook runs, whether this user may speak to it.
        if !has_daemon(interface)? {
            return Err(LifecycleError::NotWireGuard { interface: interface.to_owned() });
        }
        // A reload that is at work would make again what goes here.
        starting::turn(interface, &Interrupt::never())?
    } else {
        take_what_is_left(interface, settings, console, &mut netlink)?
    };
    let shell = Shell::for_hooks(&[&settings.pre_down, &settings.post_down], console);
    let run = |key, hooks: &[String], console: &mut dyn Console, netlink: &mut Netlink| {
        hooks.iter().try_for_each(|hook| {
            run_hook(RunHook::new(key, hook, interface, shell), console, netlink)
        })
    };
    if is_there {
        run("PreDown", &settings.pre_down, console, &mut netlink)?;
        if matches!(settings.save_config, Some(At { value: true, .. })) {
            save(&mut netlink, interface, file).map_err(|source| LifecycleError::NotSaved {
                interface: interface.to_owned(),
                source,
            })?;
        }
    }
    let journal = Journal::of(interface);
    let early = journal.read().into_iter().filter(|change| !holds_for_peers(change)).collect();
    let outcome = take_back(interface, early, console, &mut netlink);
    if is_there {
        console.command(&delete_command(interface));
        link::delete(&mut netlink, interface)?;
    }
    record::remove(interface);
    let outcome =
        outcome.and_then(|()| run("PostDown", &settings.post_down, console, &mut netlink));
    // Others may have left something here until now, which they do not to whom has no table; and rules
    // of hooks are gone, which would be taken for somebody's who needs it.
    let late = journal.read().into_iter().filter(holds_for_peers).collect();
    outcome.and(take_back(interface, late, console, &mut netlink))
}

/// Whether peers get further than to this host by it, or not further than they may: it is taken back
/// when they are gone.
const fn holds_for_peers(change: &HostChange) -> bool {
    matches!(change, HostChange::Firewall(_) | HostChange::Forwarding(_))
}

/// Finds out whether a daemon that has crashed, or an `up` that was killed, has left work for
/// `down`, although there is no interface of that name; removes the socket of such a daemon.
///
/// # Errors
/// Nothing is left, the daemon lives and its interface is elsewhere, or an `up` is at work.
fn take_what_is_left(
    interface: &str,
    settings: &Interface,
    console: &mut dyn Console,
    netlink: &mut Netlink,
) -> Result<Option<Note>, LifecycleError> {
    let nothing = || LifecycleError::NotWireGuard { interface: interface.to_owned() };
    let has_socket = link::is_left_behind(netlink, interface)?;
    if !has_socket && has_daemon(interface)? {
        return Err(LifecycleError::Elsewhere { interface: interface.to_owned() });
    }
    let has_changes = !Journal::of(interface).read().is_empty();
    if !has_socket && !has_changes && !starting::is_noted(interface) {
        return Err(nothing());
    }
    let note = take_note(interface, settings, console)?;
    if has_socket {
        console.command(&link::remove_socket_command(interface));
        link::remove_socket(interface)?;
    } else if !has_changes && !note.as_ref().is_some_and(Note::was_left) {
        return Err(nothing());
    }
    Ok(note)
}

/// Notes that hooks may run from now on. Without the note they are not cleaned up after if this
/// process is killed, which is no reason not to run them.
///
/// # Errors
/// [`LifecycleError::Busy`]
fn take_note(
    interface: &str,
    settings: &Interface,
    console: &mut dyn Console,
) -> Result<Option<Note>, LifecycleError> {
    match Note::take(interface) {
        Ok(note) => Ok(Some(note)),
        Err(NoteError::Held) => Err(LifecycleError::Busy { interface: interface.to_owned() }),
        Err(NoteError::Failed { path, source }) => {
            let hooks = [&settings.pre_up, &settings.post_up, &settings.post_down];
            if hooks.iter().any(|hooks| !hooks.is_empty()) {
                console.warn(&format!(
                    "cannot write {}, so PostDown will not follow if this is killed: {source}",
                    path.display()
                ));
            }
            Ok(None)
        }
    }
}

/// Whether somebody serves the socket of the interface.
///
/// # Errors
/// Nobody can be asked, as for want of the right.
fn has_daemon(interface: &str) -> Result<bool, ClientError> {
    match UapiClient::connect(interface) {
        Ok(_) => Ok(true),
        Err(ClientError::Unreachable { source, .. }) if is_nobody(&source) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Why the interface cannot be brought up: it is there.
fn present(interface: &str, file: &Path) -> LifecycleError {
    let interface = interface.to_owned();
    if matches!(has_daemon(&interface), Ok(false)) {
        return LifecycleError::Exists { interface };
    }
    let located = Located { interface, path: file.to_owned() };
    let argument = located.argument(Path::new(DIRECTORY));
    LifecycleError::Running { interface: located.interface, argument }
}

/// Does what `down` would have done after a crash: without this, what PreUp and PostUp hooks made
/// would be made twice. A hook that fails is reported, as it may have run before. Returns what is
/// still to be taken back: a kill switch stays until there is a new one, unless names have to be
/// resolved meanwhile, which it could prevent.
///
/// The socket of a daemon that has crashed is left to [`AddInterface`], who can take its place and
/// nobody else's.
fn clean_up(
    interface: &str,
    config: &Config,
    console: &mut dyn Console,
    netlink: &mut Netlink,
) -> Vec<HostChange> {
    let (mut left, others): (Vec<_>, Vec<_>) = Journal::of(interface)
        .read()
        .into_iter()
        .partition(|it| matches!(it, HostChange::Rule(_) | HostChange::Unreachable(_)));
    let is_closed = config.interface.kill_switch.is_some_and(|switch| switch.value)
        && left.iter().any(|change| matches!(change, HostChange::Unreachable(_)));
    let is_name = |peer: &Peer| matches!(peer.endpoint, Some(Endpoint::Name { .. }));
    let has_names = config.peers.iter().any(is_name);
    if is_closed && has_names {
        console.warn("the kill switch is lifted until the names of the endpoints are resolved");
    }
    if !is_closed || has_names {
        let all = std::mem::take(&mut left);
        warn_of(take_back(interface, all, console, netlink), console);
    }
    let (late, early) = others.into_iter().partition(holds_for_peers);
    warn_of(take_back(interface, early, console, netlink), console);
    let post_down = &config.interface.post_down;
    let shell = Shell::for_hooks(&[post_down], console);
    for hook in post_down {
        let hook = RunHook::new("PostDown", hook, interface, shell);
        warn_of(run_hook(hook, console, netlink), console);
    }
    warn_of(take_back(interface, late, console, netlink), console);
    left
}

/// Takes these changes of the host back, last one first. One that cannot be taken back stays in the
/// journal, and does not keep the others from it.
///
/// # Errors
/// [`LifecycleError::Left`], after everything has been tried.
fn take_back(
    interface: &str,
    changes: Vec<HostChange>,
    console: &mut dyn Console,
    netlink: &mut Netlink,
) -> Result<(), LifecycleError> {
    let mut outcome = Ok(());
    for change in changes.into_iter().rev() {
        let mut step = Lasting { change, journal: Journal::of(interface) };
        let announce = |command: String| {
            if !command.is_empty() {
                console.command(&command);
            }
        };
        let undone = step.let_go(netlink, announce);
        if let Err(error) = undone {
            console.warn(&format!("could not take back: {error}"));
            outcome = Err(LifecycleError::Left { interface: interface.to_owned() });
        }
    }
    outcome
}

fn warn_of(outcome: Result<(), LifecycleError>, console: &mut dyn Console) {
    if let Err(error) = outcome {
        console.warn(&error.to_string());
    }
}

fn run_hook(
    mut hook: RunHook,
    console: &mut dyn Console,
    netlink: &mut Netlink,
) -> Result<(), LifecycleError> {
    console.command(&hook.describe());
    hook.apply(netlink)
}

/// Sets name servers and search domains by the first way of this host that works. If none does, that
/// is a warning, unless the file wants it otherwise.
pub(super) fn set_dns(
    steps: &mut Transaction<'_>,
    wanted: &Wanted,
    settings: &Interface,
) -> Result<(), LifecycleError> {
    let is_required = settings.require_dns.is_some_and(|required| required.value);
    let mut ways = DnsChange::ways(wanted).into_iter().peekable();
    while let Some(way) = ways.next() {
        let journal = Journal::of(&wanted.interface);
        let error = match steps.apply(Lasting { change: HostChange::Dns(way), journal }) {
            Err(error @ (LifecycleError::Dns(_) | LifecycleError::Journal(_))) => error,
            outcome => return outcome,
        };
        let is_last = ways.peek().is_none();
        if is_last && is_required {
            return Err(error);
        }
        let then = if is_last {
            "names are resolved as before, outside of the tunnel"
        } else {
            "trying another way"
        };
        steps.console().warn(&format!("{}: {then}", with_source(&error)));
    }
    Ok(())
}

/// The configured MTU, or what fits the paths to the device's peers. Bytes.
pub(super) fn mtu(
    settings: &Interface,
    addresses: &[IpNet],
    device: &DeviceSnapshot,
    steps: &mut Transaction<'_>,
) -> Result<u32, LifecycleError> {
    let mtu = match settings.mtu {
        Some(mtu) => u32::from(mtu),
        None => {
            let endpoints: Vec<_> = device.peers.iter().filter_map(|peer| peer.endpoint).collect();
            mtu::automatic(steps.netlink(), &endpoints)?
        }
    };
    if mtu < mtu::IPV6_MINIMUM_MTU && addresses.iter().any(|a| matches!(a, IpNet::V6(_))) {
        steps.console().warn(&format!(
            "MTU {mtu} is below {}: the kernel takes the tunnel's IPv6 addresses away",
            mtu::IPV6_MINIMUM_MTU
        ));
    }
    Ok(mtu)
}

/// The networks of the device's peers that get a route, and how everything else gets into the tunnel
/// if it shall; what is `standing` of that is not made again.
pub(super) fn plan_routes(
    steps: &mut Transaction<'_>,
    link: &Link,
    device: DeviceSnapshot,
    destination: Destination,
    settings: &Interface,
    standing: Standing,
) -> Result<(Vec<IpNet>, Option<Diversion>), LifecycleError> {
    if destination == Destination::Nowhere {
        return Ok((Vec::new(), None));
    }
    let allowed = device.peers.into_iter().flat_map(|peer| peer.allowed_ips);
    let wanted = without_ipv6_if_off(&routes::to_add(allowed), &link.name, "AllowedIPs", steps);
    if destination != Destination::Auto {
        return Ok((wanted, None));
    }
    let (defaults, networks): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|network| network.prefix_len() == 0);
    let families: Vec<Family> = defaults.iter().map(|network| Family::of(network.addr())).collect();
    let mut closed = Vec::new();
    if settings.kill_switch.is_some_and(|switch| switch.value) {
        if families.is_empty() {
            return Err(LifecycleError::NothingToClose { interface: link.name.clone() });
        }
        closed.push(Family::V4);
        // Where it is off for loopback it is off for all, and there is nothing to close.
        closed.extend((!is_ipv6_off(Path::new("/proc/sys/net"), "lo")).then_some(Family::V6));
    }
    if families.is_empty() {
        return Ok((networks, None));
    }
    let mask = settings.fwmark_mask.map_or(u32::MAX, |mask| mask.value);
    let mark = Mark { value: device.fwmark, mask };
    let diversion = Diversion::new(steps.netlink(), link, mark, families, closed, standing)?;
    Ok((networks, Some(diversion)))
}

/// One route for each network, unless the main table has one that covers it.
fn add_routes(
    steps: &mut Transaction<'_>,
    link: &Link,
    networks: Vec<IpNet>,
    destination: Destination,
) -> Result<(), LifecycleError> {
    let (networks, table) = match destination {
        Destination::Table(table) => (networks, table),
        Destination::Auto => (routes::uncovered(steps.netlink(), link, networks)?, MAIN_TABLE),
        Destination::Nowhere => return Ok(()),
    };
    let mut networks = networks.into_iter();
    networks.try_for_each(|network| steps.apply(AddRoute { link: link.clone(), network, table }))
}

/// The networks that the host can take; on a host without IPv6 that is the IPv4 ones, which is
/// worth a warning and no failure.
pub(super) fn without_ipv6_if_off(
    networks: &[IpNet],
    interface: &str,
    key: &str,
    steps: &mut Transaction<'_>,
) -> Vec<IpNet> {
    let (v6, v4): (Vec<IpNet>, Vec<IpNet>) =
        networks.iter().partition(|network| matches!(network, IpNet::V6(_)));
    if v6.is_empty() || !is_ipv6_off(Path::new("/proc/sys/net"), interface) {
        return networks.to_vec();
    }
    let list: Vec<String> = v6.iter().map(ToString::to_string).collect();
    steps
        .console()
        .warn(&format!("IPv6 is disabled on this host: leaving out {key} {}", list.join(", ")));
    v4
}

/// Whether IPv6 is switched off on the interface, or the kernel runs without it.
pub fn is_ipv6_off(settings: &Path, interface: &str) -> bool {
    debug_assert!(is_interface_name(interface));
    let switch = settings.join("ipv6/conf").join(interface).join("disable_ipv6");
    match fs::read_to_string(switch) {
        Ok(value) => value.trim() == "1",
        // Without /proc/sys nothing is known, and the kernel will say it.
        Err(_) => settings.join("ipv4").exists() && !settings.join("ipv6").exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_off_by_switch_or_by_absence_and_on_where_nothing_is_known() {
        let proc = tempfile::tempdir().unwrap();
        let settings = proc.path();
        assert!(!is_ipv6_off(settings, "wg0"));
        fs::create_dir_all(settings.join("ipv4")).unwrap();
        assert!(is_ipv6_off(settings, "wg0"));
        let conf = settings.join("ipv6/conf/wg0");
        fs::create_dir_all(&conf).unwrap();
        assert!(!is_ipv6_off(settings, "wg0"));
        fs::write(conf.join("disable_ipv6"), "1\n").unwrap();
        assert!(is_ipv6_off(settings, "wg0"));
        fs::write(conf.join("disable_ipv6"), "0\n").unwrap();
        assert!(!is_ipv6_off(settings, "wg0"));
    }
}
