//! `hybridwg strip FILE|NAME`.

use crate::cli::file;
use crate::cli::message::{self, Failure};
use crate::control::config;

/// Prints the file without the keys of wg-quick and our own. Needs no rights but to read it. Where
/// the file has a fault, nothing is printed: half a file given to `wg syncconf` removes peers.
///
/// # Errors
/// [`Failure::Usage`] if the file is not usable.
pub fn run(argument: &str) -> Result<(), Failure> {
    let located = file::find(argument)?;
    let text = config::stripped(&located.path).map_err(file::unusable)?;
    Ok(message::result(&text)?)
}
