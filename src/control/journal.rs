//! What `up` has changed on the host beyond the interface: `/run/hybridwg/NAME.changes`.
//!
//! A change is written down before it is made, and struck out when it has been taken back, so that
//! whatever ends `up` or the daemon, the next `down` or `up` finds what is left and takes back
//! exactly that. The file is there as long as there is something in it. One change a line, as JSON.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::control::host_change::HostChange;
use crate::control::run_folder;

const EXTENSION: &str = "changes";

/// Of all interfaces.
const LOCK: &str = ".lock";

/// The journal of one interface. Clones are the same journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    path: PathBuf,
}

/// A change cannot be written down, so it must not be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write {}, without which nothing could be taken back after a crash", .path.display()
)]
pub struct JournalError {
    path: PathBuf,
    source: io::Error,
}

impl Journal {
    pub fn of(interface: &str) -> Self {
        Self::in_folder(run_folder::notes(), interface)
    }

    pub(super) fn in_folder(folder: &Path, interface: &str) -> Self {
        Self { path: folder.join(format!("{interface}.{EXTENSION}")) }
    }

    /// Writes a change down that is about to be made.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&self, change: &HostChange) -> Result<(), JournalError> {
        let append = || {
            run_folder::create(self.path.parent().unwrap_or(run_folder::notes()))?;
            let mut options = OpenOptions::new();
            let mut file = options.create(true).append(true).mode(0o600).open(&self.path)?;
            file.write_all(&line(change)?)
        };
        append().map_err(|source| self.failed(source))
    }

    /// Forgets a change that was taken back, or not made after all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn strike(&self, change: &HostChange) -> Result<(), JournalError> {
        let rest: Vec<HostChange> = self.read().into_iter().filter(|it| it != change).collect();
        let write = || {
            if rest.is_empty() {
                return match fs::remove_file(&self.path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    Ok(()) | Err(_) => Ok(()),
                };
            }
            let lines: Vec<Vec<u8>> = rest.iter().map(line).collect::<io::Result<_>>()?;
            let new = self.path.with_extension("new");
            fs::write(&new, lines.concat())?;
            fs::rename(&new, &self.path)
        };
        write().map_err(|source| self.failed(source))
    }

    /// The changes that were made, in their order.
    pub fn read(&self) -> Vec<HostChange> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        // A line that was cut short belongs to a change that was not made.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// That of another interface.
    pub fn of_other(&self, interface: &str) -> Self {
        Self::in_folder(self.path.parent().unwrap_or(run_folder::notes()), interface)
    }

    /// Those of the other interfaces.
    pub fn others(&self) -> Vec<Self> {
        let folder = self.path.parent().unwrap_or(run_folder::notes());
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let journals = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
        journals.filter(|path| *path != self.path).map(|path| Self { path }).collect()
    }

    /// Keeps other processes from leaving changes to each other meanwhile. The file stays: who
    /// removes it could lock another one than who waits for it. Without a right to the folder there
    /// are no changes either.
    pub fn turn(&self) -> Option<File> {
        let folder = self.path.parent().unwrap_or(run_folder::notes());
        run_folder::create(folder).ok()?;
        // A lock on what others may open would let them hold up everybody.
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(folder.join(LOCK)).ok()?;
        file.lock().ok()?;
        Some(file)
    }

    fn failed(&self, source: io::Error) -> JournalError {
        JournalError { path: self.path.clone(), source }
    }
}

/// Begins with the line break, so that what was cut short before it spoils nothing.
fn line(change: &HostChange) -> io::Result<Vec<u8>> {
    Ok([b"\n".to_vec(), serde_json::to_vec(change)?].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::netlink::{Family, Unreachable};

    fn change(table: u32) -> HostChange {
        HostChange::Unreachable(Unreachable { family: Family::V4, table })
    }

    #[test]
    fn changes_stand_in_their_order_until_they_are_struck_out_and_the_file_goes_with_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::in_folder(&folder.path().join("hybridwg"), "wg0");
        assert_eq!(journal.read(), []);
        for table in [1, 2, 3] {
            journal.add(&change(table)).unwrap();
        }
        journal.strike(&change(2)).unwrap();
        assert_eq!(journal.read(), [change(1), change(3)]);
        assert!(Journal::in_folder(folder.path(), "wg1").read().is_empty(), "of another interface");
        let other = Journal::in_folder(&folder.path().join("hybridwg"), "wg1");
        assert_eq!(other.others().iter().map(Journal::read).collect::<Vec<_>>(), [journal.read()]);
        assert!(journal.others().is_empty());
        journal.strike(&change(1)).unwrap();
        journal.strike(&change(3)).unwrap();
        journal.strike(&change(3)).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("hybridwg")).unwrap().count(), 0);
    }

    #[test]
    fn a_line_that_was_cut_short_is_no_change_and_spoils_none() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::in_folder(folder.path(), "wg0");
        journal.add(&change(1)).unwrap();
        let mut file = OpenOptions::new().append(true).open(&journal.path).unwrap();
        file.write_all(b"\n{\"Unreachable\":{\"fam").unwrap();
        assert_eq!(journal.read(), [change(1)]);
        journal.add(&change(2)).unwrap();
        assert_eq!(journal.read(), [change(1), change(2)]);
    }
}
