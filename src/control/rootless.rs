//! `up`, `down` and `reload` of a tunnel without an interface, by a user who may do nothing to the host.
//!
//! The addresses of the tunnel are the daemon's own, and what leads to and from them are services and
//! listeners. The host is not changed: no routes, no name servers, no rules. Hooks are about an
//! interface, as a rule, and would miss it: they run only if that is asked for.

use std::os::unix::net::UnixStream;

use crate::control::command::{Flows, Inside, SetRequest};
use crate::control::config::{Config, Interface, Masquerade};
use crate::control::daemon::{Leash, spawn_daemon};
use crate::control::ends::{HostPort, Mode, Target};
use crate::control::health::SetHealth;
use crate::control::hooks::{RunHook, Shell};
use crate::control::interrupt::Interrupt;
use crate::control::lifecycle::{Console, Kind, LifecycleError, Step, Transaction};
use crate::control::link::{self, Configure};
use crate::control::masquerade::{flows_of, tell_exposed};
use crate::control::mtu::SAFE_MTU;
use crate::control::netlink::Netlink;
use crate::control::peer_changes::{self, SetDevice, SetPeers};
use crate::control::preflight::{self, Missing};
use crate::control::proxy::SetServing;
use crate::control::record::{self, Record};
use crate::control::reload::{Reload, with_hooks_of};
use crate::control::settings::Settings;
use crate::control::starting::{Note, NoteError};
use crate::control::uapi::client::UapiClient;
use crate::control::uapi::socket_path;
use crate::control::up::Up;

/// Whether there is to be no interface. Where nobody has asked for that, `console` is told what is
/// missing; and a tunnel that would lead nowhere without one is left to fail.
pub fn is_wanted(config: &Config, device: Settings, console: &mut dyn Console) -> bool {
    let Interface { ends, masquerade, .. } = &config.interface;
    let has_ends = !ends.expose.is_empty()
        || !ends.forward.is_empty()
        || !ends.proxies.is_empty()
        || masquerade.is_some_and(|it| it.value != Masquerade::Off);
    match ends.mode.map(|mode| mode.value) {
        _ if device.is_rootless => true,
        Some(Mode::Rootless) => true,
        Some(Mode::Tun) => false,
        None if !has_ends => false,
        Some(Mode::Auto) | None => {
            let missing = preflight::of_tun_mode(config);
            let fatal = missing.iter().filter(|it| it.is_fatal()).map(Missing::name);
            let missing: Vec<_> = fatal.collect();
            if !missing.is_empty() {
                console.warn(&format!(
                    "there will be no interface, for want of {}: what the file exposes and forwards \
                     works all the same (`Mode = tun` insists on one)",
                    missing.join(" and ")
                ));
            }
            !missing.is_empty()
        }
    }
}

/// Whether a daemon without an interface serves this name.
pub fn is_running(interface: &str) -> bool {
    let status = UapiClient::connect(interface).and_then(|mut client| client.status());
    status.is_ok_and(|status| status.is_rootless)
}

/// Brings the tunnel up, or leaves nothing behind.
///
/// # Errors
/// The first step that failed, after everything before it has been taken back.
pub fn up(
    plan: Up<'_>,
    allow_hooks: bool,
    console: &mut dyn Console,
    interrupt: &Interrupt,
) -> Result<(), LifecycleError> {
    let Up { interface, file, config, resolve, device } = plan;
    let settings = &config.interface;
    refuse_hooks(interface, settings, allow_hooks)?;
    let inside = (inside_of(settings), flows(interface, settings)?);
    if UapiClient::connect(interface).is_ok() {
        let argument = file.display().to_string();
        return Err(LifecycleError::Running { interface: interface.to_owned(), argument });
    }
    for (key, what) in ignored(settings) {
        console.warn(&format!("{key} is left out: {what}"));
    }
    look_for_addresses(interface, settings, console)?;
    let _note = match Note::take(interface) {
        Ok(note) => note,
        Err(NoteError::Held) => {
            return Err(LifecycleError::Busy { interface: interface.to_owned() });
        }
        Err(NoteError::Failed { path, source }) => {
            return Err(LifecycleError::NoFolder { path, source });
        }
    };
    let mut netlink = Netlink::new();
    let shell = Shell::for_hooks(&[&settings.pre_up, &settings.post_up], console);
    let mut steps = Transaction::new(&mut netlink, console, interrupt, Kind::Making);
    steps.apply(StartDaemon { interface: interface.to_owned(), settings: device, leash: None })?;
    run_hooks(&mut steps, interface, shell, "PreUp", &settings.pre_up)?;
    let mut config_without_mark = config.clone();
    config_without_mark.interface.fwmark = None;
    steps.apply(Configure {
        interface: interface.to_owned(),
        file: file.clone(),
        config: config_without_mark,
        resolve,
    })?;
    steps.apply(SetInside::new(interface, inside, None))?;
    SetServing::plan(&mut steps, interface, settings, &Interface::default())?;
    run_hooks(&mut steps, interface, shell, "PostUp", &settings.post_up)?;
    steps.apply(SetHealth::new(interface, config.health(), Default::default()))?;
    steps.commit()?;
    if let Err(error) = record::write(interface, &file, config) {
        console.warn(&format!("`hybridwg reload` will not work, for want of a record: {error}"));
    }
    Ok(())
}

/// Takes the tunnel down.
///
/// # Errors
/// A hook that `up` was allowed to run failed, or the daemon does not end.
pub fn down(interface: &str, console: &mut dyn Console) -> Result<(), LifecycleError> {
    let mut netlink = Netlink::new();
    // Those that it was brought up with: they were allowed then.
    let record = record::read(interface).map(|record| record.config.interface);
    let Interface { pre_down, post_down, .. } = record.unwrap_or_default();
    let shell = Shell::for_hooks(&[&pre_down, &post_down], console);
    let mut run = |key, hooks: &[String], console: &mut dyn Console| {
        hooks.iter().try_for_each(|hook| {
            let mut hook = RunHook::new(key, hook, interface, shell);
            console.command(&hook.describe());
            hook.apply(&mut netlink)
        })
    };
    run("PreDown", &pre_down, console)?;
    console.command(&link::remove_socket_command(interface));
    end(interface)?;
    record::remove(interface);
    run("PostDown", &post_down, console)
}

/// Changes what differs; tells whether anything did. The caller has his turn.
///
/// # Errors
/// What stood in the way; everything is then as it was.
pub fn reload(
    plan: Reload<'_>,
    console: &mut dyn Console,
    interrupt: &Interrupt,
) -> Result<bool, LifecycleError> {
    let Reload { interface, file, config, mut resolve, extent } = plan;
    if config.says_nothing() {
        return Err(LifecycleError::NothingSaid { file });
    }
    let device = UapiClient::connect(interface)?.get()?;
    let no_record = || LifecycleError::NoRecord { interface: interface.to_owned() };
    let Record { config: before, .. } = record::read(interface).ok_or_else(no_record)?;
    let (was, is) = (&before.interface, &config.interface);
    let peers = peer_changes::between(&before, config, &device, &mut resolve)?;
    let device_change = peer_changes::of_device(was, is, &device)
        .map(|change| SetRequest { fwmark: None, ..change })
        .filter(|change| *change != SetRequest::default());
    let former = (inside_of(was), flows(interface, was)?);
    let wanted = (inside_of(is), flows(interface, is)?);
    look_for_addresses(interface, is, console)?;
    let mut netlink = Netlink::new();
    let kind = if extent.is_rehearsal { Kind::Rehearsing } else { Kind::Changing };
    let mut steps = Transaction::new(&mut netlink, console, interrupt, kind);
    if let Some(request) = device_change {
        steps.apply(SetDevice::new(interface, request, &device, was))?;
    }
    if wanted != former {
        steps.apply(SetInside::new(interface, wanted, Some(former)))?;
    }
    SetServing::plan(&mut steps, interface, is, was)?;
    if peers != SetRequest::default() {
        steps.apply(SetPeers::new(interface, peers, device, &before))?;
    }
    let (health, healthy) = (config.health(), before.health());
    if health != healthy {
        steps.apply(SetHealth::new(interface, health, healthy))?;
    }
    let has_changed = steps.announced() > 0;
    steps.commit()?;
    // Hooks that nobody has allowed to run are not run by `down`.
    let applied = with_hooks_of(&before, config);
    if !extent.is_rehearsal
        && let Err(error) = record::write(interface, &file, &applied)
    {
        console.warn(&format!("the next reload will repeat this one: {error}"));
    }
    Ok(has_changed)
}

/// # Errors
/// [`LifecycleError::HooksRefused`]
fn refuse_hooks(
    interface: &str,
    settings: &Interface,
    are_allowed: bool,
) -> Result<(), LifecycleError> {
    let Interface { pre_up, post_up, pre_down, post_down, .. } = settings;
    let all =
        [("PreUp", pre_up), ("PostUp", post_up), ("PreDown", pre_down), ("PostDown", post_down)];
    match all.into_iter().find(|(_, hooks)| !hooks.is_empty() && !are_allowed) {
        Some((key, _)) => {
            Err(LifecycleError::HooksRefused { interface: interface.to_owned(), key })
        }
        None => Ok(()),
    }
}

/// Of a tunnel without an interface.
pub const NO_ADDRESS: &str =
    "no Address: without an interface the tunnel has none, and nothing leads in or out";

/// Without this host's addresses nothing is let through that is judged by them: the places of names.
///
/// # Errors
/// [`LifecycleError::NoAddresses`]: the same goes for all that is masqueraded.
fn look_for_addresses(
    interface: &str,
    settings: &Interface,
    console: &mut dyn Console,
) -> Result<(), LifecycleError> {
    if settings.lacks_address() {
        console.warn(NO_ADDRESS);
    }
    let Err(source) = Netlink::new().all_addresses() else { return Ok(()) };
    if settings.masquerade.is_some_and(|it| it.value != Masquerade::Off) {
        return Err(LifecycleError::NoAddresses { interface: interface.to_owned(), source });
    }
    let exposed = settings.ends.expose.iter().map(|it| &it.value);
    for expose in exposed.filter(|it| matches!(it.target, Target::At(HostPort::Name { .. }))) {
        console.warn(&format!(
            "`Expose = {expose}` leads nowhere: where its name leads is judged by the addresses of this \
             host, which cannot be read ({source}). An address in its place is not judged"
        ));
    }
    Ok(())
}

/// What a file says that is about an interface, and why it does nothing here.
fn ignored(settings: &Interface) -> Vec<(&'static str, &'static str)> {
    let Interface { table, fwmark, dns, kill_switch, ends, .. } = settings;
    let is_for_nobody = !dns.is_empty() && !ends.reaches_names();
    let all = [
        ("Table", table.is_some(), "there is no interface to which routes could lead"),
        ("FwMark", fwmark.is_some_and(|mark| mark != 0), "marks need CAP_NET_ADMIN"),
        ("KillSwitch", kill_switch.is_some_and(|it| it.value), "the host's way out is not touched"),
        ("DNS", is_for_nobody, "it is for names inside the tunnel alone, and not for the host"),
    ];
    all.into_iter().filter(|(_, is_said, _)| *is_said).map(|(key, _, why)| (key, why)).collect()
}

fn inside_of(settings: &Interface) -> Inside {
    Inside { addresses: settings.addresses.clone(), mtu: settings.mtu.map_or(SAFE_MTU, u32::from) }
}

fn flows(interface: &str, settings: &Interface) -> Result<Flows, LifecycleError> {
    match settings.masquerade.map_or(Masquerade::Off, |wanted| wanted.value) {
        Masquerade::Off => Ok(flows_of(settings, false)),
        Masquerade::Auto | Masquerade::Flow => Ok(flows_of(settings, true)),
        Masquerade::Nft => Err(LifecycleError::NoMasquerade {
            interface: interface.to_owned(),
            obstacles: "there is no interface".to_owned(),
        }),
    }
}

fn run_hooks(
    steps: &mut Transaction<'_>,
    interface: &str,
    shell: Shell,
    key: &'static str,
    hooks: &[String],
) -> Result<(), LifecycleError> {
    hooks.iter().try_for_each(|hook| steps.apply(RunHook::new(key, hook, interface, shell)))
}

/// Ends the daemon, and waits for it.
fn end(interface: &str) -> Result<(), LifecycleError> {
    let connection = UnixStream::connect(socket_path(interface)).ok();
    link::remove_socket(interface)?;
    connection
        .map_or(Ok(()), link::wait_for_end)
        .map_err(|_| LifecycleError::DaemonStays { interface: interface.to_owned() })
}

/// Starts the daemon, which ends if this process does before the commit.
#[derive(Debug)]
struct StartDaemon {
    interface: String,
    settings: Settings,
    leash: Option<Leash>,
}

impl Step for StartDaemon {
    fn describe(&self) -> String {
        format!("hybridwg --rootless {}", self.interface)
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        let failed = |source| LifecycleError::Daemon { interface: self.interface.clone(), source };
        self.leash = Some(spawn_daemon(&self.interface, self.settings, None).map_err(failed)?);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LifecycleError> {
        let failed = |source| LifecycleError::Daemon { interface: self.interface.clone(), source };
        self.leash.take().map_or(Ok(()), Leash::release).map_err(failed)
    }

    fn describe_undo(&self) -> Option<String> {
        Some(link::remove_socket_command(&self.interface))
    }

    fn undo(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        end(&self.interface)
    }
}

/// Gives the tunnel its addresses, its MTU, what is behind them, and what is carried on.
#[derive(Debug)]
struct SetInside {
    interface: String,
    wanted: (Inside, Flows),
    former: Option<(Inside, Flows)>,
}

impl SetInside {
    fn new(interface: &str, wanted: (Inside, Flows), former: Option<(Inside, Flows)>) -> Self {
        Self { interface: interface.to_owned(), wanted, former }
    }

    fn set(&self, (inside, flows): (Inside, Flows)) -> Result<(), LifecycleError> {
        let (inside, flows) = (Some(inside), Some(Some(flows)));
        let request = SetRequest { inside, flows, ..SetRequest::default() };
        Ok(UapiClient::connect(&self.interface)?.set(&request)?)
    }

    fn tell(&self, (inside, flows): &(Inside, Flows)) -> String {
        let interface = &self.interface;
        let addresses: Vec<String> = inside.addresses.iter().map(ToString::to_string).collect();
        let addresses = match &*addresses {
            [] => "no address".to_owned(),
            addresses => addresses.join(", "),
        };
        let mut lines = vec![format!("# {interface}: has {addresses} and MTU {}", inside.mtu)];
        lines.extend(tell_exposed(interface, flows));
        if flows.carries {
            lines.push(format!("# {interface}: carries on what peers send to others"));
        }
        lines.join("\n")
    }
}

impl Step for SetInside {
    fn describe(&self) -> String {
        self.tell(&self.wanted)
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        self.set(self.wanted.clone())
    }

    fn describe_undo(&self) -> Option<String> {
        self.former.as_ref().map(|former| self.tell(former))
    }

    fn undo(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        self.former.clone().map_or(Ok(()), |former| self.set(former))
    }
}
