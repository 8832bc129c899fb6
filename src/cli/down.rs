//! `hybridwg down FILE|NAME`.

use crate::cli::file;
use crate::cli::message::{Failure, Terminal};
use crate::control::config::Written;
use crate::control::lifecycle::LifecycleError;
use crate::control::link;
use crate::control::rootless;
use crate::control::uapi::client::UapiClient;
use crate::control::up;

/// Takes the interface of a configuration file down: its hooks, the interface, its daemon.
///
/// The file is read anew, so the hooks are those that it has now.
///
/// # Errors
/// [`Failure::Usage`] if the file is not usable; otherwise what stood in the way.
pub fn run(argument: &str) -> Result<(), Failure> {
    let located = file::find(argument)?;
    let interface = &located.interface;
    if rootless::is_running(interface) {
        return Ok(rootless::down(interface, &mut Terminal)?);
    }
    // What is odd about the file was told when it was brought up.
    let Written { config, .. } = file::read(&located).map_err(|failure| {
        // It may have got its faults since, and there shall be a way out.
        if UapiClient::connect(interface).is_err() {
            return failure;
        }
        failure.with_hint(way_out(interface))
    })?;
    up::down(interface, &located.path, &config, &mut Terminal).map_err(|error| match error {
        LifecycleError::NotSaved { .. } => Failure::run(error).with_hint(way_out(interface)),
        error => error.into(),
    })
}

fn way_out(interface: &str) -> String {
    let command = link::delete_command(interface);
    format!("`{command}` takes {interface} down without its hooks and without saving")
}
