//! Who takes part: hybridwg itself, what is found on this machine, what is named on the command
//! line, and the same path without a tunnel as the ceiling.

use std::env;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::gateway::Forwarding;

/// One that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Implementation {
    pub name: String,
    pub kind: Kind,
    /// How the hub gets packets on to the server, where a server is behind it.
    pub forwarding: Option<Forwarding>,
}

/// How it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No tunnel at all.
    Plain,
    /// The module of the kernel, configured by `wg setconf`.
    Kernel,
    /// A shell command that stays in the foreground, with `{tun}` for the interface to create. With
    /// `{conf}` it reads that file (in the format of `wg setconf`); otherwise it is configured over
    /// its socket.
    Program(String),
}

/// The name of the path without a tunnel.
pub const PLAIN: &str = "plain";

/// The name under which this program takes part.
pub const OURS: &str = "hybridwg";

/// The name of the kernel's implementation.
pub const KERNEL: &str = "kernel";

/// Programs that are looked for: name, file names in the order of preference, arguments.
const KNOWN: [(&str, &[&str], &str); 3] = [
    ("wireguard-go", &["wireguard-go"], "-f {tun}"),
    ("boringtun", &["boringtun-cli"], "-f --disable-drop-privileges {tun}"),
    ("gotatun", &["gotatun", "gotatun-cli"], "-f --disable-drop-privileges {tun}"),
];

impl Implementation {
    pub fn plain() -> Self {
        Self { name: PLAIN.to_owned(), kind: Kind::Plain, forwarding: None }
    }

    pub fn kernel() -> Self {
        Self { name: KERNEL.to_owned(), kind: Kind::Kernel, forwarding: None }
    }

    /// This program, as `executable`.
    pub fn ours(executable: &Path) -> Self {
        Self::program(OURS, executable, "-f {tun}")
    }

    fn program(name: &str, executable: &Path, arguments: &str) -> Self {
        let command = format!("{} {arguments}", quoted(&executable.to_string_lossy()));
        Self { name: name.to_owned(), kind: Kind::Program(command), forwarding: None }
    }

    /// The same as a hub, under a name of its own.
    #[must_use]
    pub fn forwarding(self, name: &str, forwarding: Forwarding) -> Self {
        Self { name: name.to_owned(), forwarding: Some(forwarding), ..self }
    }

    /// The command as it may be shown to others: folders of this machine are left out.
    pub fn shown_command(&self) -> Option<String> {
        let Kind::Program(command) = &self.kind else { return None };
        Some(command.split(' ').map(without_folders).collect::<Vec<_>>().join(" "))
    }
}

/// A word without the folders in front of a file's name.
pub fn without_folders(word: &str) -> &str {
    let name = word.trim_matches('\'');
    name.rsplit_once('/').map_or(name, |(_, name)| name)
}

/// `NAME=COMMAND`, as on the command line.
impl FromStr for Implementation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |why: &str| format!("{why}; it must be NAME='COMMAND', as in mine='./mine -f {{tun}}'");
        let (name, command) = text.split_once('=').ok_or_else(|| wrong("no `=` in it"))?;
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(is_letter) {
            return Err(wrong("a name has letters, digits, `-`, `_` and `.`"));
        }
        if [PLAIN, KERNEL].contains(&name) {
            return Err(wrong(&format!("`{name}` is taken")));
        }
        if !command.contains("{tun}") && !command.contains("{conf}") {
            return Err(wrong("the command must say where {tun}, the interface to create, goes"));
        }
        let kind = Kind::Program(command.to_owned());
        Ok(Self { name: name.to_owned(), kind, forwarding: None })
    }
}

/// The known programs that are in one of the folders of `path`.
pub fn find(path: &std::ffi::OsStr) -> Vec<Implementation> {
    let folders: Vec<PathBuf> = env::split_paths(path).collect();
    let find = |file: &&str| folders.iter().map(|folder| folder.join(file)).find(|f| f.is_file());
    let found = KNOWN.iter().filter_map(|(name, files, arguments)| {
        let executable = files.iter().find_map(find)?;
        Some(Implementation::program(name, &executable, arguments))
    });
    found.collect()
}

/// As a word of the shell's.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_command_line_names_an_implementation() {
        let read: Implementation = "mine=/opt/x/mine -f {tun}".parse().unwrap();
        assert_eq!(read.name, "mine");
        assert_eq!(read.kind, Kind::Program("/opt/x/mine -f {tun}".to_owned()));
        assert_eq!(read.shown_command().as_deref(), Some("mine -f {tun}"));
        for wrong in ["mine", "=x {tun}", "a b=x {tun}", "plain=x {tun}", "mine=x"] {
            let error = wrong.parse::<Implementation>().unwrap_err();
            assert!(error.contains("NAME='COMMAND'"), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_is_in_the_path_is_found_by_the_name_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["boringtun-cli", "gotatun-cli", "other"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        let found = find(folder.path().as_os_str());
        let names: Vec<_> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["boringtun", "gotatun"]);
        let shown = found[1].shown_command().unwrap();
        assert_eq!(shown, "gotatun-cli -f --disable-drop-privileges {tun}");
    }

    #[test]
    fn a_folder_with_a_quote_or_a_blank_stays_one_word_for_the_shell() {
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    }
}
