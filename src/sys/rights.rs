//! What this process may do, found out without doing it.

use std::io;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::SysError;

/// Whether interfaces and routes may be changed.
///
/// # Errors
/// None on a kernel that knows the call.
pub fn has_net_admin() -> Result<bool, SysError> {
    let held = capabilities(None).map_err(|e| SysError::new("capget", e))?;
    Ok(held.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Whether files can be made in `folder`, which may itself have to be made.
///
/// # Errors
/// No right, or a file system that cannot be written.
pub fn may_write_in(folder: &Path) -> io::Result<()> {
    let nearest = folder.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(folder);
    Ok(access(nearest, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// How many descriptors this process can have if it asks for them.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_can_be_made_can_be_written_and_one_below_a_file_system_of_the_kernel_cannot() {
        let folder = tempfile::tempdir().unwrap();
        assert!(may_write_in(&folder.path().join("a/b")).is_ok());
        assert!(may_write_in(Path::new("/proc/sys/none/such")).is_err());
    }

    #[test]
    fn there_are_descriptors_for_this_test() {
        assert!(descriptor_limit() > 2);
    }
}
