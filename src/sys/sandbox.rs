//! A place of one's own on this machine, of which nothing is left afterwards.
//!
//! New mount and PID namespaces, if need be in a new user namespace: what is mounted inside is not
//! seen outside, and when the first process inside ends the kernel ends all the others, whatever
//! became of us. Network namespaces are `netns`.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::ptr;

use rustix::thread::{CapabilitySet, UnshareFlags, capabilities};

use super::SysError;
use super::netns::enter_user_namespace;

/// What it takes to make namespaces, interfaces and raw sockets without a user namespace.
const NEEDED: [(&str, CapabilitySet); 3] = [
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("CAP_NET_RAW", CapabilitySet::NET_RAW),
];

/// The capabilities that this process lacks and would have in a user namespace of its own.
///
/// # Errors
/// None on a kernel that knows the call.
pub fn missing_capabilities() -> Result<Vec<&'static str>, SysError> {
    let held = capabilities(None).map_err(|e| SysError::new("capget", e))?.effective;
    let missing = NEEDED.iter().filter(|(_, capability)| !held.contains(*capability));
    Ok(missing.map(|(name, _)| *name).collect())
}

/// Gives the process mount and PID namespaces of its own, inside a new user namespace if it lacks
/// a capability. The next child is process 1 of the PID namespace.
///
/// Threads can no longer be made afterwards: the kernel keeps a process in one PID namespace.
///
/// # Errors
/// `EPERM`, `ENOSPC` or `EUSERS` where neither the capabilities are there nor user namespaces
/// allowed; `EINVAL` if the process has more than one thread.
pub fn enter() -> Result<(), SysError> {
    if !missing_capabilities()?.is_empty() {
        enter_user_namespace()?;
    }
    unshare(UnshareFlags::NEWNS | UnshareFlags::NEWPID)?;
    // Mounts were copied with their links to the outside; cut, so that nothing travels back.
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE)
}

/// Covers an existing folder by an empty one in memory, which only this process and its descendants
/// see. Call it after [`enter`].
///
/// # Errors
/// The folder does not exist, or the right is missing.
pub fn cover(folder: &CStr) -> Result<(), SysError> {
    mount(Some(c"tmpfs"), folder, Some(c"tmpfs"), libc::MS_NOSUID | libc::MS_NODEV)
}

/// Shows the processes of the PID namespace of the caller in `/proc`. Call it in the first process
/// after [`enter`]: until then `/proc` is that of the outside, with other numbers.
///
/// # Errors
/// In a user namespace, where parts of the outer `/proc` are covered, as containers have it.
pub fn mount_proc() -> Result<(), SysError> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(Some(c"proc"), c"/proc", Some(c"proc"), flags)
}

/// Leaves Ctrl-C to the children: from here on SIGINT does nothing to this process, nor to a child
/// that does not ask for it.
pub fn ignore_interrupts() {
    // SAFETY: SIG_IGN runs no code of ours; the former disposition is not needed again.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
}

/// Why the kernel may refuse user namespaces to its users, as far as it can be told from settings.
pub fn user_namespace_obstacle() -> Option<&'static str> {
    let is = |file: &str, value: &str| {
        fs::read_to_string(format!("/proc/sys/{file}")).is_ok_and(|text| text.trim() == value)
    };
    if is("kernel/unprivileged_userns_clone", "0") {
        return Some("kernel.unprivileged_userns_clone=1");
    }
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Some("kernel.apparmor_restrict_unprivileged_userns=0");
    }
    is("user/max_user_namespaces", "0").then_some("user.max_user_namespaces=1000")
}

fn unshare(flags: UnshareFlags) -> Result<(), SysError> {
    // SAFETY: the hazard of `unshare` is CLONE_FILES, after which descriptors of other threads mean
    // something else here; it is not passed.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(|e| SysError::new("unshare", e))
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
) -> Result<(), SysError> {
    let text = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: `source`, `target` and `kind` are terminated strings that outlive the call, or null
    // where mount(2) allows it; no data is passed.
    let result =
        unsafe { libc::mount(text(source), target.as_ptr(), text(kind), flags, ptr::null()) };
    if result < 0 { Err(SysError::new("mount", io::Error::last_os_error())) } else { Ok(()) }
}
