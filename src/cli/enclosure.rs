//! Work in a place of its own on this machine: for the demo and for measurements.
//!
//! The process that was started makes namespaces of its own ([`sandbox`]) and runs itself again as
//! process 1 in them, where the work is done. Whatever ends that process ends everything in it:
//! daemons, interfaces, routes, sockets and key files have never been outside.

use std::env;
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, anyhow};

use crate::cli::hide_memory;
use crate::cli::message::Failure;
use crate::control::floor;
use crate::control::interrupt::Interrupt;
use crate::sys::{SysError, sandbox};

/// Set in the process inside.
const INSIDE: &str = "HYBRIDWG_INSIDE";

/// Does `work` inside. `what` is the subject of sentences, e.g. "the demo".
///
/// The process must have one thread only, and must not have hidden its memory: the kernel maps no
/// users for it then.
///
/// # Errors
/// A right that is missing, with how to give it, or the failure of the work.
pub fn run(
    what: &str,
    work: impl FnOnce(&Interrupt) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // The variable alone could come from anywhere; the first process of a PID namespace is ours.
    let is_inside = env::var_os(INSIDE).is_some() && std::process::id() == 1;
    if is_inside { inside(what, work) } else { outside(what) }
}

/// The folder of sockets as it is really called. Inside, an empty one in memory covers it.
///
/// # Errors
/// It is not there.
pub fn covered_folder(what: &str) -> Result<PathBuf, Failure> {
    fs::canonicalize("/var/run")
        .with_context(|| format!("{what} puts its sockets below /var/run"))
        .map_err(Failure::run)
}

fn outside(what: &str) -> Result<(), Failure> {
    check_tun(what)?;
    sandbox::enter().map_err(|error| refused(what, error))?;
    // The sockets of other tunnels on this machine stay out of sight, and ours out of theirs.
    let sockets = CString::new(covered_folder(what)?.into_os_string().as_bytes())?;
    sandbox::cover(&sockets).map_err(|error| refused(what, error))?;

    // Ctrl-C reaches the process inside as well, which cleans up and ends.
    sandbox::ignore_interrupts();
    let mut child = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        // Nothing of it stays.
        .env(floor::VARIABLE, "")
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run this program again inside its namespaces")
        .map_err(Failure::run)?;
    // Its end of file tells the process inside that we are gone, so it is kept until the end.
    let _lifeline = child.stdin.take();
    match child.wait()?.code() {
        Some(0) => Ok(()),
        Some(status) => Err(Failure::Inside(u8::try_from(status).unwrap_or(1))),
        None => Err(Failure::Told),
    }
}

fn inside(what: &str, work: impl FnOnce(&Interrupt) -> Result<(), Failure>) -> Result<(), Failure> {
    hide_memory()?;
    // Processes have other numbers here.
    sandbox::mount_proc().map_err(|error| refused(what, error))?;
    let interrupt = Interrupt::on_signals()?;
    let outside_gone = interrupt.clone();
    thread::Builder::new().name("lifeline".to_owned()).spawn(move || {
        let mut lifeline = io::stdin().lock();
        while matches!(lifeline.read(&mut [0; 64]), Ok(1..)) {}
        outside_gone.raise();
    })?;
    work(&interrupt)
}

/// The one thing that a user namespace does not give.
fn check_tun(what: &str) -> Result<(), Failure> {
    let Err(error) = OpenOptions::new().read(true).write(true).open(TUN) else { return Ok(()) };
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "`sudo chmod 0666 /dev/net/tun` lets everybody open it (Debian's and Ubuntu's default), \
             or run it with sudo"
        }
        _ => {
            "on a host: `sudo modprobe tun`; in a container: start it with `--device /dev/net/tun`"
        }
    };
    Err(Failure::run(anyhow!(error).context(format!("{what} needs {TUN}"))).with_hint(hint))
}

/// Says which rights are missing, and how to give them.
fn refused(what: &str, error: SysError) -> Failure {
    let missing = sandbox::missing_capabilities().unwrap_or_default();
    let lacking = if missing.is_empty() {
        "the capabilities are there, but something (a seccomp or AppArmor profile) forbids it"
            .to_owned()
    } else {
        format!("missing: {}; and in their place a user namespace was refused", missing.join(", "))
    };
    let way = sandbox::user_namespace_obstacle().map_or_else(String::new, |setting| {
        format!("allow user namespaces with `sudo sysctl -w {setting}`, or ")
    });
    Failure::run(anyhow!(error).context(format!("{what} needs namespaces of its own ({lacking})")))
        .with_hint(format!(
            "{way}run it with sudo; in a container: start it with `--cap-add SYS_ADMIN --cap-add \
             NET_ADMIN --security-opt apparmor=unconfined --device /dev/net/tun`"
        ))
}

const TUN: &str = "/dev/net/tun";
