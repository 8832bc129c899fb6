//! From the argument of `up` and `down` to a configuration that was understood.

use std::env;
use std::path::Path;

use anyhow::anyhow;

use crate::cli::message::{self, Failure};
use crate::control::config::{self, Config, DIRECTORY, Lines, LoadError, Located, Written};
use crate::sys::process;

/// Finds the file that `argument` means.
///
/// # Errors
/// [`Failure::Usage`] if there is no such file.
pub fn find(argument: &str) -> Result<Located, Failure> {
    let located = match config::given(argument) {
        Some(given) => given,
        None => config::locate(argument, &env::current_dir()?, Path::new(DIRECTORY))
            .map_err(Failure::usage)?,
    };
    // A word can mean two places; the operator sees which one it was.
    if !argument.contains('/') {
        message::note(&format!("Using {}", located.path.display()));
    }
    Ok(located)
}

/// Reads a file, and prints all its faults if it has some.
///
/// # Errors
/// [`Failure::Usage`] if it cannot be read, or has faults.
pub fn read(located: &Located) -> Result<Written, Failure> {
    read_with(located, &[])
}

/// As [`read`], with lines beside the file.
///
/// # Errors
/// As [`read`].
pub fn read_with(located: &Located, beside: &[Lines]) -> Result<Written, Failure> {
    config::load_with(&located.path, beside).map_err(unusable)
}

/// Prints the faults of a file, if that is what is wrong with it.
pub fn unusable(error: LoadError) -> Failure {
    if let LoadError::Faulty { errors, .. } = &error {
        errors.iter().for_each(|fault| message::note(&fault.to_string()));
    }
    let is_denied = error.is_denied();
    explained(Failure::usage(error), is_denied)
}

/// With what helps, if this user may not read the file: in a container that is seldom its owner.
fn explained(failure: Failure, is_denied: bool) -> Failure {
    if !is_denied {
        return failure;
    }
    let user = process::user();
    failure.with_hint(format!(
        "this runs as user {user}. A file of a container is to belong to that user: \
         `chown {user} FILE`, for rootless podman `podman unshare chown {user} FILE`"
    ))
}

/// Reads the keys that a configuration keeps elsewhere, and prints all that could not be had.
///
/// # Errors
/// [`Failure::Usage`] if there is one.
pub fn fetch_keys(located: &Located, config: &mut Config) -> Result<(), Failure> {
    config::fetch_keys(config, &located.path).map_err(|errors| {
        errors.iter().for_each(|error| message::note(&error.to_string()));
        let is_denied = errors.iter().any(|error| error.problem.is_denied());
        let told = anyhow!("{} names keys that cannot be had", located.path.display());
        explained(Failure::usage(told), is_denied)
    })
}
