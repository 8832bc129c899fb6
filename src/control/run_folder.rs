//! Folders of ours, below `/run` and `/var/lib`, that everybody may look into.
//!
//! What may be known of a file in them is up to the file.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

const MODE: u32 = 0o755;

/// Creates the folder if it is not there, whatever the umask says. One that is there stays as it
/// is: its mode may be what an administrator wanted.
///
/// # Errors
/// No right, or something else of that name.
pub fn create(folder: &Path) -> io::Result<()> {
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
}
