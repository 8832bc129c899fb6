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

    /// Each command that is shown, as the words that lead to it.
    fn shown(command: &clap::Command, words: &str) -> Vec<String> {
        let commands = command.get_subcommands().filter(|it| !it.is_hide_set());
        let deeper = commands.flat_map(|it| shown(it, &format!("{words}-{}", it.get_name())));
        std::iter::once(words.to_owned()).chain(deeper).collect()
    }

    #[test]
    fn every_command_that_is_shown_has_a_manual_page_and_every_shell_completes_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(manual(folder.path()).is_ok());
        let commands = shown(&Arguments::command(), "hybridwg");
        assert!(commands.iter().any(|it| it == "hybridwg-new-client"), "{commands:?}");
        for command in &commands {
            let page = std::fs::read_to_string(folder.path().join(format!("{command}.1")));
            assert!(page.is_ok_and(|page| page.contains(".SH SYNOPSIS")), "{command}");
        }
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "hybridwg", &mut script);
            let script = String::from_utf8(script).unwrap();
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let words: std::collections::HashSet<&str> =
                script.split(|c| !is_word(c)).map(|word| word.trim_matches('-')).collect();
            for word in commands.iter().flat_map(|it| it.split('-').skip(1)) {
                assert!(words.contains(word), "{shell}: {word}");
            }
            assert!(words.contains("allowed-ips"), "{shell}: options");
        }
    }
}
