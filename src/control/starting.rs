//! The note of an `up`, `down` or `reload` that is at work: `/run/hybridwg/NAME.starting`.
//!
//! It is there from before the first hook until everything is kept or has been taken back. An `up`
//! that is killed meanwhile leaves it behind, and with it word that its hooks may have run. Whoever
//! is at work holds a lock on the file, which ends with him whatever ends him: that is how a note
//! that was left behind differs from one in use. Two at work at once would take back what the other
//! has just made.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::control::interrupt::Interrupt;
use crate::control::lifecycle::LifecycleError;
use crate::control::netlink::Netlink;
use crate::control::{rootless, run_folder};

/// More than a reload takes, unless a name server is silent.
const PATIENCE: Duration = Duration::from_secs(30);

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
        Self::take_in(run_folder::notes(), interface, File::try_lock)
    }

    /// As [`Self::take`], but waits for another process, though not for ever: it may be one that has
    /// run us as its hook.
    ///
    /// # Errors
    /// As there.
    fn wait(interface: &str) -> Result<Self, NoteError> {
        Self::wait_in(run_folder::notes(), interface, PATIENCE)
    }

    fn wait_in(folder: &Path, interface: &str, patience: Duration) -> Result<Self, NoteError> {
        let (sender, receiver) = mpsc::channel();
        let (path, name) = (folder.to_owned(), interface.to_owned());
        let lock = |file: &File| file.lock().map_err(TryLockError::Error);
        // He may have given up; then the note is let go.
        let wait = move || drop(sender.send(Self::take_in(&path, &name, lock)));
        let spawned = thread::Builder::new().name("turn".to_owned()).spawn(wait);
        let path = path_in(folder, interface);
        spawned.map_err(|source| NoteError::Failed { path, source })?;
        receiver.recv_timeout(patience).unwrap_or(Err(NoteError::Held))
    }

    fn take_in(
        directory: &Path,
        interface: &str,
        lock: fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Self, NoteError> {
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
            match lock(&file) {
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

/// Waits until nobody else is at work on an interface that is up, and keeps others away for as long as
/// the note is held. A reload does so before it reads its file, so that the last one has read the last
/// file. Without a right to the folder there is no note, and nothing to wait for.
///
/// # Errors
/// It is not up: a note that was left behind is kept for whoever cleans up. Or
/// [`LifecycleError::Busy`], [`LifecycleError::Interrupted`].
pub fn turn(interface: &str, interrupt: &Interrupt) -> Result<Option<Note>, LifecycleError> {
    if Netlink::new().link(interface)?.is_none() && !rootless::is_running(interface) {
        return Err(LifecycleError::NotWireGuard { interface: interface.to_owned() });
    }
    let name = interface.to_owned();
    match interrupt.cut_short(move || Note::wait(&name)) {
        Ok(Some(Ok(note))) => Ok(Some(note)),
        Ok(Some(Err(NoteError::Held))) => {
            Err(LifecycleError::Busy { interface: interface.to_owned() })
        }
        Ok(None) => Err(LifecycleError::Interrupted),
        Ok(Some(Err(NoteError::Failed { .. }))) | Err(_) => Ok(None),
    }
}

/// Whether there is a note of `interface`, held or left behind.
pub fn is_noted(interface: &str) -> bool {
    path_in(run_folder::notes(), interface).exists()
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
        let take = || Note::take_in(folder.path(), "wg0", File::try_lock);
        let note = take().unwrap();
        assert!(!note.was_left());
        assert!(matches!(take(), Err(NoteError::Held)));
        assert!(
            !Note::take_in(folder.path(), "wg1", File::try_lock).unwrap().was_left(),
            "of another interface"
        );
        drop(note);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(!take().unwrap().was_left());
    }

    #[test]
    fn who_waits_gets_the_note_when_it_is_let_go_and_none_if_it_never_is() {
        let folder = tempfile::tempdir().unwrap();
        let wait = |patience| Note::wait_in(folder.path(), "wg0", patience);
        let note = Note::take_in(folder.path(), "wg0", File::try_lock).unwrap();
        assert!(matches!(wait(Duration::ZERO), Err(NoteError::Held)));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(Duration::from_secs(60)));
            drop(note);
            assert!(!waiting.join().unwrap().unwrap().was_left());
        });
    }

    #[test]
    fn a_note_that_nobody_holds_any_more_was_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_in(folder.path(), "wg0");
        let take = || Note::take_in(folder.path(), "wg0", File::try_lock).unwrap();
        fs::write(&path, "hooks may have run\n").unwrap();
        assert!(take().was_left());
        assert!(!take().was_left(), "it is gone since");
        fs::write(&path, "").unwrap();
        assert!(!take().was_left(), "its maker did not come to hold it");
    }
}
