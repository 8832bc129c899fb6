//! The note of an `up` that is at work: `/run/hybridwg/NAME.starting`.
//!
//! It is there from before the first hook until everything is kept or has been taken back. An `up`
//! that is killed meanwhile leaves it behind, and with it word that its hooks may have run. Whoever
//! is at work holds a lock on the file, which ends with him whatever ends him: that is how a note
//! that was left behind differs from one in use.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::control::run_folder;

const DIRECTORY: &str = "/run/hybridwg";

/// A note that is held. Dropping it removes the file.
#[must_use = "the note ends with it"]
#[derive(Debug)]
pub struct Note {
    /// Locked.
    _file: File,
    path: PathBuf,
    was_left: bool,
}

/// Why a note could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    #[error("somebody else holds it")]
    Held,
    #[error("cannot make a note in {}", .path.display())]
    Failed { path: PathBuf, source: io::Error },
}

impl Note {
    /// Takes the note of `interface`, a new one or one that was left behind.
    ///
    /// # Errors
    /// Another process is at work, or the file cannot be made.
    pub fn take(interface: &str) -> Result<Self, NoteError> {
        Self::take_in(Path::new(DIRECTORY), interface)
    }

    fn take_in(directory: &Path, interface: &str) -> Result<Self, NoteError> {
        let path = path_in(directory, interface);
        let failed = |source| NoteError::Failed { path: path.clone(), source };
        run_folder::create(directory).map_err(failed)?;
        loop {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(NoteError::Held),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            let found = file.metadata().map_err(failed)?;
            // Its former holder has just removed it: it is nobody's note.
            if found.nlink() == 0 {
                continue;
            }
            // Whoever makes the file holds it only a moment later; a note without words is new.
            let was_left = found.size() > 0;
            if !was_left {
                file.write_all(b"hooks may have run\n").map_err(failed)?;
            }
            return Ok(Self { _file: file, path, was_left });
        }
    }

    /// Whether an `up` that was killed has left it behind.
    pub fn was_left(&self) -> bool {
        self.was_left
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        // While it is locked. One that stays is taken for left behind: PostDown runs once more.
        drop(fs::remove_file(&self.path));
    }
}

/// Whether there is a note of `interface`, held or left behind.
pub fn is_noted(interface: &str) -> bool {
    path_in(Path::new(DIRECTORY), interface).exists()
}

fn path_in(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{interface}.starting"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_held_by_one_and_gone_when_he_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let take = || Note::take_in(folder.path(), "wg0");
        let note = take().unwrap();
        assert!(!note.was_left());
        assert!(matches!(take(), Err(NoteError::Held)));
        assert!(!Note::take_in(folder.path(), "wg1").unwrap().was_left(), "of another interface");
        drop(note);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(!take().unwrap().was_left());
    }

    #[test]
    fn a_note_that_nobody_holds_any_more_was_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_in(folder.path(), "wg0");
        let take = || Note::take_in(folder.path(), "wg0").unwrap();
        fs::write(&path, "hooks may have run\n").unwrap();
        assert!(take().was_left());
        assert!(!take().was_left(), "it is gone since");
        fs::write(&path, "").unwrap();
        assert!(!take().was_left(), "its maker did not come to hold it");
    }
}
