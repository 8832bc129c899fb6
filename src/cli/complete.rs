//! Shell completions and manual pages, made from the definition of the command line, for packages.

use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::args::Arguments;
use crate::cli::message::{self, Failure};

/// Prints the completions for a shell.
///
/// # Errors
/// If standard output fails.
pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "hybridwg", &mut script);
    Ok(message::result(&String::from_utf8_lossy(&script))?)
}

/// Writes a manual page for the program and one for each command into `folder`.
///
/// # Errors
/// If the folder cannot be written to.
pub fn manual(folder: &Path) -> Result<(), Failure> {
    let written = clap_mangen::generate_to(Arguments::command(), folder);
    let context = || format!("cannot write into {}", folder.display());
    written.with_context(context).map_err(Failure::run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_manual_page_and_completions_know_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(manual(folder.path()).is_ok());
        let mut command = Arguments::command();
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut command, "hybridwg", &mut script);
        let script = String::from_utf8(script).unwrap();
        for shown in command.get_subcommands().filter(|it| !it.is_hide_set()) {
            let name = shown.get_name();
            assert!(script.contains(name), "{name}");
            let page = folder.path().join(format!("hybridwg-{name}.1"));
            assert!(name == "help" || page.exists(), "{}", page.display());
        }
        assert!(folder.path().join("hybridwg.1").exists());
    }
}
