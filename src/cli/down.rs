//! `hybridwg down FILE|NAME`.

use crate::cli::file;
use crate::cli::message::{Failure, Terminal};
use crate::control::config::Written;
use crate::control::up;

/// Takes the interface of a configuration file down: its hooks, the interface, its daemon.
///
/// The file is read anew, so the hooks are those that it has now.
///
/// # Errors
/// [`Failure::Usage`] if the file is not usable; otherwise what stood in the way.
pub fn run(argument: &str) -> Result<(), Failure> {
    // What is odd about the file was told when it was brought up.
    let (located, Written { config, .. }) = file::open(argument)?;
    up::down(&located.interface, &config, &mut Terminal)?;
    Ok(())
}
