//! `hybridwg save FILE|NAME`.

use crate::cli::file;
use crate::cli::message::{self, Failure};
use crate::control::netlink::Netlink;
use crate::control::save::{self, SaveError};

/// Writes what the interface is like into its file.
///
/// # Errors
/// [`Failure::Usage`] if the file is not usable; otherwise what stood in the way.
pub fn run(argument: &str) -> Result<(), Failure> {
    let located = file::find(argument)?;
    let path = located.path.display();
    match save::save(&mut Netlink::new(), &located.interface, &located.path) {
        Ok(true) => message::note(&format!("{path} is up to date")),
        Ok(false) => message::note(&format!("{path} was up to date")),
        Err(SaveError::Load(error)) => return Err(file::unusable(error)),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
