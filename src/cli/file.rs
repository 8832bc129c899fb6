//! From the argument of `up` and `down` to a configuration that was understood.

use std::env;
use std::path::Path;

use anyhow::anyhow;

use crate::cli::message::{self, Failure};
use crate::control::config::{self, Config, DIRECTORY, LoadError, Located, Written};

/// Finds and reads the file that `argument` means, and prints all its faults if it has some.
///
/// # Errors
/// [`Failure::Usage`] if there is no such file, it cannot be read, or it has faults.
pub fn open(argument: &str) -> Result<(Located, Written), Failure> {
    let located = config::locate(argument, &env::current_dir()?, Path::new(DIRECTORY))
        .map_err(Failure::usage)?;
    // A word can mean two places; the operator sees which one it was.
    if !argument.contains('/') {
        message::note(&format!("Using {}", located.path.display()));
    }
    match config::load(&located.path) {
        Ok(written) => Ok((located, written)),
        Err(error) => {
            if let LoadError::Faulty { errors, .. } = &error {
                errors.iter().for_each(|fault| message::note(&fault.to_string()));
            }
            Err(Failure::usage(error))
        }
    }
}

/// Refuses a configuration that asks for more than this version does, naming all of it.
///
/// # Errors
/// [`Failure::Usage`]
pub fn refuse_unavailable(located: &Located, config: &Config) -> Result<(), Failure> {
    let found = config.unavailable();
    if found.is_empty() {
        return Ok(());
    }
    let file = located.path.display();
    for unavailable in found {
        message::note(&format!("{file}:{}: {unavailable}", unavailable.line));
    }
    Err(Failure::usage(anyhow!("{file} asks for what this version cannot do")))
}
