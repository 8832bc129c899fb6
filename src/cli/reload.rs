//! `hybridwg reload FILE|NAME`.

use std::io;

use crate::cli::args;
use crate::cli::file;
use crate::cli::message::{self, Failure, Terminal};
use crate::control::config::{Located, Written};
use crate::control::interrupt::Interrupt;
use crate::control::lifecycle::LifecycleError;
use crate::control::record;
use crate::control::reload::{self, Extent, Reload};
use crate::control::resolve::resolve;
use crate::control::rootless;
use crate::control::starting;

/// Changes a running interface to what its file says now, or tells what that would change.
///
/// # Errors
/// As [`of`].
pub fn run(arguments: &args::Reload) -> Result<(), Failure> {
    let located = file::find(&arguments.tunnel.config)?;
    let extent = Extent { runs_hooks: arguments.hooks, is_rehearsal: arguments.dry_run };
    of(&located, extent, Interrupt::on_signals)
}

/// Reloads this file. Signals are caught by `catch`.
///
/// # Errors
/// [`Failure::Usage`] if the file is not usable; otherwise what stood in the way, after everything
/// that was done has been taken back.
pub fn of(
    located: &Located,
    extent: Extent,
    catch: impl FnOnce() -> io::Result<Interrupt>,
) -> Result<(), Failure> {
    let interface = &located.interface;
    let interrupt = catch()?;
    let _turn = starting::turn(interface, &interrupt)?;
    // What was said beside the file when it was brought up still holds.
    let beside = record::read(interface).map(|record| record.config.beside).unwrap_or_default();
    let Written { mut config, warnings } = file::read_with(located, &beside)?;
    warnings.iter().for_each(|warning| message::warning(&warning.to_string()));
    file::fetch_keys(located, &mut config)?;
    let interrupt_resolving = interrupt.clone();
    let plan = Reload {
        interface,
        file: located.path.clone(),
        config: &config,
        resolve: Box::new(move |host, port| {
            resolve(host, port, &mut Terminal, &interrupt_resolving)
        }),
        extent,
    };
    let outcome = match rootless::is_running(interface) {
        true => rootless::reload(plan, &mut Terminal, &interrupt),
        false => reload::reload(plan, &mut Terminal, &interrupt),
    };
    match outcome {
        Ok(true) => Ok(()),
        Ok(false) => {
            message::note(&format!("{interface} is as {} says", located.path.display()));
            Ok(())
        }
        Err(error @ LifecycleError::NothingSaid { .. }) => Err(Failure::usage(error)),
        Err(error) => Err(error.into()),
    }
}
