//! Notices that a file was removed or replaced, e.g. a UAPI socket deleted to stop its daemon.
//!
//! The name of a bound Unix socket can be unlinked while the socket lives on, so `IN_DELETE_SELF`
//! alone never comes; the falling link count arrives as `IN_ATTRIB`. Events are therefore only a
//! hint to look at the path again, which also keeps chmod and touch from ending anything.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use rustix::io::Errno;

use super::SysError;

/// Watches one path for as long as it names the same file.
#[derive(Debug)]
pub struct DeletionWatch {
    inotify: OwnedFd,
    path: PathBuf,
    identity: Identity,
}

impl DeletionWatch {
    /// # Errors
    /// `path` does not exist, or the inotify limits of the user are reached.
    pub fn new(path: &Path) -> Result<Self, SysError> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(|e| SysError::new("inotify_init1", e))?;
        let events = inotify::WatchFlags::ATTRIB
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::MOVE_SELF;
        inotify::add_watch(&inotify, path, events)
            .map_err(|e| SysError::new("inotify_add_watch", e))?;
        let identity = identity(path).map_err(|e| SysError::new("lstat", e))?;
        Ok(Self { inotify, path: path.to_owned(), identity })
    }

    /// Takes the pending events and looks: true while the path still names the watched file.
    pub fn is_still_there(&self) -> Result<bool, SysError> {
        let mut space = [MaybeUninit::uninit(); 1024];
        let mut events = inotify::Reader::new(&self.inotify, &mut space);
        loop {
            match events.next() {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => break,
                Err(e) => return Err(SysError::new("read inotify", e)),
            }
        }
        match identity(&self.path) {
            Ok(found) => Ok(found == self.identity),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(SysError::new("lstat", e)),
        }
    }
}

/// Readable when [`DeletionWatch::is_still_there`] is worth asking.
impl AsFd for DeletionWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// Device, inode, and whether a name leads to it: the kernel tells of an unlinked file a moment before
/// its name is gone, and who looks in between still finds it, with no link. [LNX fs/namei.c:vfs_unlink]
type Identity = (u64, u64, bool);

fn identity(path: &Path) -> std::io::Result<Identity> {
    Ok(identity_of(&fs::symlink_metadata(path)?))
}

fn identity_of(found: &fs::Metadata) -> Identity {
    (found.dev(), found.ino(), found.nlink() > 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::*;
    use crate::sys::poll::{Interest, Poller};

    fn readable_within(watch: &DeletionWatch, timeout: Duration) -> bool {
        let mut poller = Poller::new().unwrap();
        poller.add(watch.as_fd(), 0, Interest::Readable).unwrap();
        poller.wait(Some(timeout)).unwrap().count() == 1
    }

    #[test]
    fn an_unlinked_file_is_no_longer_the_same_while_its_name_still_leads_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        // A file that is open shows for as long as one likes what a look meets in that moment.
        let file = fs::File::create(&path).unwrap();
        let linked = identity_of(&file.metadata().unwrap());
        assert_eq!(identity(&path).unwrap(), linked);
        fs::remove_file(&path).unwrap();
        assert_ne!(identity_of(&file.metadata().unwrap()), linked);
    }

    #[test]
    fn unlinking_a_socket_that_still_listens_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("if.sock");
        let _listening = UnixListener::bind(&path).unwrap();
        let watch = DeletionWatch::new(&path).unwrap();
        assert!(watch.is_still_there().unwrap());
        assert!(!readable_within(&watch, Duration::ZERO));
        fs::remove_file(&path).unwrap();
        assert!(readable_within(&watch, Duration::from_secs(5)));
        assert!(!watch.is_still_there().unwrap());
    }

    #[test]
    fn a_socket_replaced_by_another_of_the_same_name_counts_as_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("if.sock");
        let _first = UnixListener::bind(&path).unwrap();
        let watch = DeletionWatch::new(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        assert!(!watch.is_still_there().unwrap());
    }

    #[test]
    fn a_change_of_permissions_wakes_but_does_not_count_as_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        let watch = DeletionWatch::new(&path).unwrap();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).unwrap();
        assert!(readable_within(&watch, Duration::from_secs(5)));
        assert!(watch.is_still_there().unwrap());
        assert!(!readable_within(&watch, Duration::ZERO));
    }

    #[test]
    fn a_path_that_does_not_exist_cannot_be_watched() {
        let error = DeletionWatch::new(Path::new("/nonexistent/if.sock")).unwrap_err();
        assert!(error.is_missing());
    }
}
