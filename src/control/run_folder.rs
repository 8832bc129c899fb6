//! Where sockets and notes of running tunnels are.
//!
//! Root, and whoever may write there, has them below `/run`, where `wg` looks: everybody may look into
//! these folders, and what may be known of a file in them is up to the file. A plain user has a folder
//! of his own for both, which nobody else may look into: in `$XDG_RUNTIME_DIR`, or else
//! `/run/hybridwg-UID` or `/tmp/hybridwg-UID`. Others may have made one of that name to trick him: one
//! that is not his, or that others may write to, is not used.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::sys::{process, rights};

/// Where the sockets of all userspace implementations live; `wg` looks nowhere else.
pub const SOCKETS: &str = "/var/run/wireguard";

/// Where our notes about interfaces are.
const NOTES: &str = "/run/hybridwg";

const MODE: u32 = 0o755;
const OWN_MODE: u32 = 0o700;

/// The folders of this process.
#[derive(Debug)]
struct Folders {
    sockets: PathBuf,
    notes: PathBuf,
    /// They are for one user alone.
    is_own: bool,
}

static FOLDERS: LazyLock<Folders> = LazyLock::new(|| {
    let own = || own_in(&candidates(process::user(), std::env::var_os("XDG_RUNTIME_DIR")));
    match is_for_system() {
        true => Folders { sockets: SOCKETS.into(), notes: NOTES.into(), is_own: false },
        false => {
            let folder = own();
            Folders { sockets: folder.clone(), notes: folder, is_own: true }
        }
    }
});

/// Where this process makes sockets.
pub fn sockets() -> &'static Path {
    &FOLDERS.sockets
}

/// Where this process writes notes.
pub fn notes() -> &'static Path {
    &FOLDERS.notes
}

/// The socket of an interface: one of this user's, or else the system's.
pub fn socket(interface: &str) -> PathBuf {
    let file = format!("{interface}.sock");
    let own = sockets().join(&file);
    let is_own = !FOLDERS.is_own || own.exists() || !Path::new(SOCKETS).join(&file).exists();
    if is_own { own } else { Path::new(SOCKETS).join(file) }
}

/// The folders in which there may be sockets.
pub fn all_sockets() -> Vec<&'static Path> {
    let system = Path::new(SOCKETS);
    if FOLDERS.is_own { vec![sockets(), system] } else { vec![system] }
}

/// Creates the folder of the sockets, if it is not there.
///
/// # Errors
/// No right; or somebody else has made one of that name.
pub fn create_for_sockets() -> io::Result<()> {
    create(sockets())
}

fn is_for_system() -> bool {
    process::is_root() || rights::may_write_in(Path::new(SOCKETS)).is_ok()
}

/// Where a user's folder may be, best first.
fn candidates(user: u32, runtime: Option<std::ffi::OsString>) -> Vec<PathBuf> {
    let name = format!("hybridwg-{user}");
    // One that is relative says nothing. [XDG Base Directory Specification]
    let runtime = runtime.map(PathBuf::from).filter(|folder| folder.is_absolute());
    let of_session = runtime.map(|folder| folder.join("hybridwg"));
    of_session
        .into_iter()
        .chain([Path::new("/run").join(&name), Path::new("/tmp").join(name)])
        .collect()
}

/// The first that is there and his, or that he can make; the last if there is none.
fn own_in(candidates: &[PathBuf]) -> PathBuf {
    let can_be_made = |folder: &Path| {
        let parent = folder.parent().filter(|parent| parent.is_dir());
        fs::symlink_metadata(folder).is_err()
            && parent.is_some_and(|parent| rights::may_write_in(parent).is_ok())
    };
    let found = candidates.iter().find(|folder| is_ours(folder) || can_be_made(folder));
    found.or(candidates.last()).cloned().unwrap_or_default()
}

fn create_own(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(OWN_MODE).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) if is_ours(folder) => Ok(()),
        Ok(()) | Err(_) => Err(io::Error::other(format!(
            "{} is not a folder of this user's alone: remove it, or set XDG_RUNTIME_DIR",
            folder.display()
        ))),
    }
}

/// Whether it is a folder, no link to one, of this user, that nobody else may write to.
fn is_ours(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|found| {
        found.is_dir() && found.uid() == process::user() && found.mode() & 0o022 == 0
    })
}

/// Creates the folder if it is not there, whatever the umask says. One that is there stays as it
/// is: its mode may be what an administrator wanted.
///
/// # Errors
/// No right, or something else of that name.
pub fn create(folder: &Path) -> io::Result<()> {
    if FOLDERS.is_own && folder == sockets() {
        return create_own(folder);
    }
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(MODE).create(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(MODE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_is_open_to_all_and_one_that_is_there_stays_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        let mode = || fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
        create(&folder).unwrap();
        assert_eq!(mode(), 0o755);
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        create(&folder).unwrap();
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn a_plain_user_has_a_folder_of_his_own_that_others_cannot_have_made_for_him() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        create_own(&path("new")).unwrap();
        assert_eq!(fs::metadata(path("new")).unwrap().permissions().mode() & 0o777, 0o700);
        create_own(&path("new")).unwrap();
        fs::create_dir(path("open")).unwrap();
        fs::set_permissions(path("open"), Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink(path("new"), path("link")).unwrap();
        fs::write(path("file"), "").unwrap();
        for bad in ["open", "link", "file"] {
            let told = create_own(&path(bad)).unwrap_err().to_string();
            assert!(told.contains("not a folder of this user's alone"), "{told}");
        }
        assert_eq!(own_in(&[path("open"), path("none/x"), path("made")]), path("made"));
        assert!(!path("made").exists(), "who only looks makes nothing");
        assert_eq!(own_in(&[path("later"), path("new")]), path("later"), "the best that can be");
    }

    #[test]
    fn the_folder_of_a_session_comes_first_if_it_is_a_path() {
        let all = candidates(7, Some("/run/user/7".into()));
        let all: Vec<_> = all.iter().map(|it| it.to_str().unwrap()).collect();
        assert_eq!(all, ["/run/user/7/hybridwg", "/run/hybridwg-7", "/tmp/hybridwg-7"]);
        assert_eq!(candidates(7, Some("here".into())).len(), 2);
        assert_eq!(candidates(7, None).len(), 2);
    }
}
