//! Notices that what a path names has changed: written anew, replaced, or reached by other links.
//!
//! Editors put a new file in the place of the old one; Kubernetes renames a symbolic link in the
//! middle of the path; others write in place. So every folder in which a name is looked up on the
//! way is watched, and the file itself, since a file that is mounted alone changes without its
//! folder. Events are only a hint to look: what counts is which file it is, its size and its time.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;

use super::SysError;

/// What a look at the path has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As at the last look.
    Same,
    Changed,
    /// It names no file any more. Told once.
    Gone,
}

/// Watches one path, whether or not there is a file.
#[derive(Debug)]
pub struct FileWatch {
    inotify: OwnedFd,
    path: PathBuf,
    watches: Vec<i32>,
    seen: Option<Version>,
}

/// Of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl FileWatch {
    /// Watches an absolute path from now on.
    ///
    /// # Errors
    /// The inotify limits of the user are reached, or a folder on the way cannot be read.
    pub fn new(path: &Path) -> Result<Self, SysError> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(|e| SysError::new("inotify_init1", e))?;
        let mut watch = Self { inotify, path: path.to_owned(), watches: Vec::new(), seen: None };
        watch.look()?;
        Ok(watch)
    }

    /// Takes the pending events and looks.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn look(&mut self) -> Result<Look, SysError> {
        self.drain()?;
        // Watched before it is looked at, so that what changes between the two is told by an event.
        self.follow()?;
        let found = version(&self.path).map_err(|e| SysError::new("stat", e))?;
        let was = std::mem::replace(&mut self.seen, found);
        Ok(match found {
            found if found == was => Look::Same,
            Some(_) => Look::Changed,
            None => Look::Gone,
        })
    }

    fn drain(&self) -> Result<(), SysError> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut space);
        loop {
            match events.next() {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(e) => return Err(SysError::new("read inotify", e)),
            }
        }
    }

    /// Watches what is on the way now, and no longer what was.
    fn follow(&mut self) -> Result<(), SysError> {
        let Way { folders, file } = way(&self.path).map_err(|e| SysError::new("lstat", e))?;
        let names = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let folders = folders.into_iter().map(|folder| (folder, names));
        let mut watches = Vec::new();
        for (path, events) in folders.chain(file.map(|file| (file, WatchFlags::CLOSE_WRITE))) {
            match inotify::add_watch(&self.inotify, &path, events) {
                Ok(watch) => watches.push(watch),
                // It went away meanwhile, which the folder above tells.
                Err(Errno::NOENT) => {}
                Err(e) => return Err(SysError::new("inotify_add_watch", e)),
            }
        }
        for watch in self.watches.iter().filter(|watch| !watches.contains(watch)) {
            // The kernel forgets by itself what is deleted.
            let _gone = inotify::remove_watch(&self.inotify, *watch);
        }
        self.watches = watches;
        Ok(())
    }
}

/// Readable when [`FileWatch::look`] is worth it.
impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// Where a path leads.
struct Way {
    /// In which its names are looked up, as far as links decide it: that of each link and that of
    /// the file. Where a name is missing, the folder that lacks it is the last.
    folders: Vec<PathBuf>,
    file: Option<PathBuf>,
}

/// As many links as the kernel follows. [LNX namei.h:MAXSYMLINKS]
const MAX_LINKS: usize = 40;

fn way(path: &Path) -> io::Result<Way> {
    let mut rest: VecDeque<OsString> = names(path);
    let (mut here, mut folders) = (PathBuf::from("/"), Vec::new());
    while let Some(name) = rest.pop_front() {
        let next = match name.to_str() {
            Some("/") => PathBuf::from("/"),
            Some("..") => here.parent().map_or_else(|| here.clone(), Path::to_owned),
            _ => here.join(&name),
        };
        let data = match fs::symlink_metadata(&next) {
            Err(error) if names_nothing(&error) => {
                folders.push(here);
                return Ok(Way { folders, file: None });
            }
            data => data?,
        };
        if data.is_symlink() {
            if folders.len() == MAX_LINKS {
                return Ok(Way { folders, file: None });
            }
            let target = names(&fs::read_link(&next)?);
            rest = target.into_iter().chain(rest).collect();
            folders.push(here.clone());
        } else {
            here = next;
        }
    }
    folders.extend(here.parent().map(Path::to_owned));
    Ok(Way { folders, file: Some(here) })
}

fn names(path: &Path) -> VecDeque<OsString> {
    let said = path.components().filter(|part| !matches!(part, Component::CurDir));
    said.map(|part| part.as_os_str().to_owned()).collect()
}

fn version(path: &Path) -> io::Result<Option<Version>> {
    match fs::metadata(path) {
        Ok(data) => Ok(Some(Version {
            device: data.dev(),
            inode: data.ino(),
            bytes: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
        })),
        Err(error) if names_nothing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn names_nothing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;
    use crate::sys::poll::{Interest, Poller};

    /// Waits for an event, and looks.
    fn next(watch: &mut FileWatch) -> Look {
        let mut poller = Poller::new().unwrap();
        poller.add(watch.as_fd(), 0, Interest::Readable).unwrap();
        let count = poller.wait(Some(Duration::from_secs(5))).unwrap().count();
        assert_eq!(count, 1, "nothing happened");
        watch.look().unwrap()
    }

    fn is_quiet(watch: &FileWatch) -> bool {
        let mut poller = Poller::new().unwrap();
        poller.add(watch.as_fd(), 0, Interest::Readable).unwrap();
        poller.wait(Some(Duration::ZERO)).unwrap().count() == 0
    }

    #[test]
    fn a_file_that_is_written_replaced_deleted_or_made_anew_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg0.conf");
        fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new(&path).unwrap();
        assert_eq!(watch.look().unwrap(), Look::Same);
        fs::write(&path, "three").unwrap();
        assert_eq!(next(&mut watch), Look::Changed);
        fs::write(folder.path().join("new"), "four").unwrap();
        assert_eq!(next(&mut watch), Look::Same, "a neighbour");
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(next(&mut watch), Look::Changed);
        fs::remove_file(&path).unwrap();
        assert_eq!(next(&mut watch), Look::Gone);
        assert_eq!(watch.look().unwrap(), Look::Same, "told once");
        fs::write(&path, "five").unwrap();
        assert_eq!(next(&mut watch), Look::Changed);
        fs::read(&path).unwrap();
        watch.look().unwrap();
        assert!(is_quiet(&watch), "reading is no change");
    }

    /// As Kubernetes lays out a volume: wg0.conf -> ..data/wg0.conf, ..data -> ..version.
    #[test]
    fn u_11_a_link_in_the_middle_of_the_way_that_is_swapped_is_noticed_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("volume");
        let swap = |version: &str| {
            fs::create_dir_all(volume.join(version)).unwrap();
            fs::write(volume.join(version).join("wg0.conf"), "of one length").unwrap();
            symlink(version, volume.join("..data_tmp")).unwrap();
            fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        };
        swap("..1");
        symlink("..data/wg0.conf", volume.join("wg0.conf")).unwrap();
        symlink(volume.join("wg0.conf"), folder.path().join("wg0.conf")).unwrap();
        let mut watch = FileWatch::new(&folder.path().join("wg0.conf")).unwrap();
        for (old, new) in [("..1", "..2"), ("..2", "..3")] {
            assert!(is_quiet(&watch));
            swap(new);
            assert_eq!(next(&mut watch), Look::Changed);
            fs::remove_dir_all(volume.join(old)).unwrap();
            assert_eq!(next(&mut watch), Look::Same);
        }
    }

    #[test]
    fn links_that_lead_in_a_circle_name_no_file_and_end() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        let way = way(&folder.path().join("a")).unwrap();
        assert_eq!((way.folders.len(), way.file), (MAX_LINKS, None));
    }
}
