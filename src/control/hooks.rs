//! PreUp, PostUp, PreDown and PostDown: commands of the operator, run by a shell.
//!
//! The shell is bash, because that is what wg-quick runs hooks in and what its manual page writes
//! them for (`<( )`). Where bash is missing, `sh` runs them after a warning. A hook is never taken
//! back: its counterpart is the operator's PreDown or PostDown.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::control::lifecycle::{Console, LifecycleError, Step};
use crate::control::netlink::Netlink;

/// The program that runs hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    Bash,
    /// In its place, where it is missing.
    Sh,
}

impl Shell {
    /// What is on `PATH`, with a warning if it is not bash.
    fn find(console: &mut dyn Console) -> Self {
        if is_on_path("bash") {
            return Self::Bash;
        }
        console.warn("bash is not installed: hooks run in sh, which does not know <( ) and [[ ]]");
        Self::Sh
    }

    /// As [`Self::find`], but without a hook no shell is needed, nor worth a word.
    pub fn for_hooks(hooks: &[&[String]], console: &mut dyn Console) -> Self {
        if hooks.iter().all(|hooks| hooks.is_empty()) { Self::Sh } else { Self::find(console) }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Sh => "sh",
        }
    }
}

/// One hook as a step.
#[derive(Debug)]
pub struct RunHook {
    key: &'static str,
    command: String,
    shell: Shell,
}

impl RunHook {
    /// The hook `template` of the configuration key `key`, every `%i` in it replaced by the name of
    /// the interface.
    pub fn new(key: &'static str, template: &str, interface: &str, shell: Shell) -> Self {
        Self { key, command: template.replace("%i", interface), shell }
    }
}

impl Step for RunHook {
    fn describe(&self) -> String {
        self.command.clone()
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        let status = Command::new(self.shell.program()).arg("-c").arg(&self.command).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                Err(LifecycleError::Hook { key: self.key, status, command: self.command.clone() })
            }
            Err(source) => Err(LifecycleError::HookNotRun {
                key: self.key,
                command: self.command.clone(),
                source,
            }),
        }
    }
}

/// Whether there is such a program.
pub fn is_on_path(program: &str) -> bool {
    on_path(program).is_some()
}

/// Where such a program is, if there is one.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut files = env::split_paths(&path).map(|folder| folder.join(program));
    files.find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn run(template: &str) -> Result<(), LifecycleError> {
        RunHook::new("PostUp", template, "wg7", Shell::Sh).apply(&mut Netlink::new())
    }

    #[test]
    fn every_percent_i_becomes_the_interface_and_nothing_else_changes() {
        let hook = RunHook::new("PostUp", "a %i b-%i '#x' 100%", "wg7", Shell::Bash);
        assert_eq!(hook.describe(), "a wg7 b-wg7 '#x' 100%");
    }

    #[test]
    fn a_hook_runs_in_a_shell_and_sees_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out");
        run(&format!("echo %i \"${{PATH:+path}}\" > {}", file.display())).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "wg7 path\n");
    }

    #[test]
    fn a_hook_that_fails_is_an_error_that_names_key_status_and_command() {
        let error = run("exit 3").unwrap_err().to_string();
        assert!(
            error.contains("PostUp") && error.contains('3') && error.contains("exit 3"),
            "{error}"
        );
    }

    #[test]
    fn a_program_counts_as_on_the_path_only_if_it_can_be_executed() {
        assert!(is_on_path("sh"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tool");
        fs::write(&file, "").unwrap();
        assert!(!is_executable(&file));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(is_executable(&file));
        assert!(!is_executable(folder.path()));
    }
}
