//! `hybridwg up FILE|NAME`.

use crate::cli::args;
use crate::cli::file;
use crate::cli::message::{self, Failure, Terminal};
use crate::control::config::Written;
use crate::control::interrupt::Interrupt;
use crate::control::resolve::resolve;
use crate::control::up::{self, Up};

/// Brings the interface of a configuration file up, and returns once it works; its daemon stays.
///
/// # Errors
/// [`Failure::Usage`] if the file is not usable; otherwise what stood in the way, after everything
/// that was done has been taken back.
pub fn run(arguments: &args::Up) -> Result<(), Failure> {
    let located = file::find(&arguments.tunnel.config)?;
    let Written { mut config, warnings } = file::read(&located)?;
    warnings.iter().for_each(|warning| message::warning(&warning.to_string()));
    file::fetch_keys(&located, &mut config)?;
    let interrupt = Interrupt::on_signals()?;
    let interrupt_resolving = interrupt.clone();
    let plan = Up {
        interface: &located.interface,
        file: located.path,
        config: &config,
        device: arguments.device.settings(),
        resolve: Box::new(move |host, port| {
            resolve(host, port, &mut Terminal, &interrupt_resolving)
        }),
    };
    up::up(plan, &mut Terminal, &interrupt)?;
    Ok(())
}
