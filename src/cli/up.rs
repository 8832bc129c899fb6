//! `hybridwg up FILE|NAME`.

use std::io;
use std::time::Duration;

use anyhow::anyhow;

use crate::cli::args;
use crate::cli::down;
use crate::cli::file;
use crate::cli::message::{self, Failure, Terminal};
use crate::cli::reload;
use crate::control::config::{Lines, Located, Written};
use crate::control::drain::{drain, resume};
use crate::control::interrupt::Interrupt;
use crate::control::link;
use crate::control::netlink::Netlink;
use crate::control::reload::Extent;
use crate::control::resolve::resolve;
use crate::control::rootless;
use crate::control::up::{self, Up};
use crate::control::vigil::{Happening, Vigil};
use crate::sys::notify::Notifier;

/// Brings the interface of a configuration file up, and returns once it works; its daemon stays. In
/// the foreground, returns when the tunnel is down again.
///
/// # Errors
/// [`Failure::Usage`] if the file is not usable; otherwise what stood in the way, after everything
/// that was done has been taken back.
pub fn run(arguments: &args::Up) -> Result<(), Failure> {
    let located = file::find(&arguments.tunnel.config)?;
    if !arguments.foreground {
        return bring_up(arguments, &located, Interrupt::on_signals).map(drop);
    }
    let mut vigil = Vigil::begin(arguments.watch.then_some(&*located.path))?;
    let interrupt = bring_up(arguments, &located, Interrupt::on_signals_to_end)?;
    // If it has ended since, that is the first thing to be told.
    let attended = vigil.attend(&located.interface);
    let grace = Duration::from_secs(arguments.grace.into());
    let vigil = attended.is_ok().then_some(vigil);
    stay(&arguments.tunnel.config, &located, vigil, grace, &interrupt)
}

/// Signals are caught by `catch` when the file has been read: until then there is nothing to take
/// back.
fn bring_up(
    arguments: &args::Up,
    located: &Located,
    catch: fn() -> io::Result<Interrupt>,
) -> Result<Interrupt, Failure> {
    let Written { mut config, warnings } = file::read_with(located, &beside(arguments))?;
    warnings.iter().for_each(|warning| message::warning(&warning.to_string()));
    file::fetch_keys(located, &mut config)?;
    let interrupt = catch()?;
    let interrupt_resolving = interrupt.clone();
    let mut device = arguments.device.settings();
    device.is_rootless = rootless::is_wanted(&config, device, &mut Terminal);
    let plan = Up {
        interface: &located.interface,
        file: located.path.clone(),
        config: &config,
        device,
        resolve: Box::new(move |host, port| {
            resolve(host, port, &mut Terminal, &interrupt_resolving)
        }),
    };
    match device.is_rootless {
        true => rootless::up(plan, arguments.allow_hooks, &mut Terminal, &interrupt)?,
        false => up::up(plan, &mut Terminal, &interrupt)?,
    }
    Ok(interrupt)
}

/// What is said beside the file: by the environment, for containers, and by options of ssh's.
fn beside(arguments: &args::Up) -> Vec<Lines> {
    const VARIABLE: &str = "HYBRIDWG_EXTRA";
    let args::Up { local, remote, dynamic, .. } = arguments;
    let options = [local, remote, dynamic].into_iter().flatten().cloned().collect::<Vec<_>>();
    let extra = std::env::var(VARIABLE).unwrap_or_default();
    let all = [(VARIABLE, extra), ("-L, -R, -D", options.join("\n"))];
    let said = all.into_iter().filter(|(_, text)| !text.trim().is_empty());
    said.map(|(name, text)| Lines { name: name.to_owned(), text }).collect()
}

/// Waits until somebody interrupts, and takes the tunnel down when its connections have ended or `grace` is
/// over; or until it ends otherwise.
/// Reloads meanwhile as `vigil` says.
///
/// # Errors
/// The daemon has crashed, or the tunnel cannot be taken down.
fn stay(
    argument: &str,
    located: &Located,
    mut vigil: Option<Vigil>,
    grace: Duration,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let interface = &located.interface;
    let notifier = Notifier::from_environment();
    let tell = |say: fn(&Notifier) -> io::Result<()>| match &notifier {
        Ok(notifier) => notifier.as_ref().map_or(Ok(()), say),
        Err(error) => Err(io::Error::new(error.kind(), "NOTIFY_SOCKET makes no sense")),
    };
    if let Err(error) = tell(Notifier::ready) {
        message::warning(&format!(
            "cannot tell the service manager that {interface} is up: {error}"
        ));
    }
    while let Some(mut waiting) = vigil.take() {
        let reaping = waiting.reaping();
        let waited = interrupt.cut_short(move || (waiting.wait(), waiting))?;
        let Some((happening, waiting)) = waited else {
            reaping.end();
            drop(tell(Notifier::stopping));
            match Interrupt::on_signals_to_end() {
                Ok(again) => drain(interface, grace, &again),
                Err(error) => message::warning(&format!(
                    "the connections of {interface} have no time to end: {error}"
                )),
            }
            return down::run(argument).inspect_err(|_| resume(interface));
        };
        match happening {
            Happening::Ended => break,
            Happening::HungUp | Happening::FileChanged => reload_or_tell(located, interrupt),
            Happening::FileGone => message::warning(&format!(
                "{} is gone: {interface} stays as it is",
                located.path.display()
            )),
            Happening::Blind(error) => message::warning(&format!(
                "changes of {} are not noticed any more: {error}",
                located.path.display()
            )),
        }
        vigil = Some(waiting);
    }
    if link::is_left_behind(&mut Netlink::new(), interface)? {
        let error = anyhow!("the daemon of {interface} has ended without `hybridwg down`");
        return Err(Failure::run(error));
    }
    Ok(())
}

/// A file that cannot be taken over changes nothing, and is no reason to end.
fn reload_or_tell(located: &Located, interrupt: &Interrupt) {
    let Located { interface, path } = located;
    message::note(&format!("reloading {}", path.display()));
    if let Err(failure) = reload::of(located, Extent::default(), || Ok(interrupt.clone())) {
        message::failure(&failure);
        message::warning(&format!("{interface} stays as it is"));
    }
}
