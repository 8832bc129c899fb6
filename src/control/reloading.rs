//! What a daemon does about SIGHUP: it has its file reloaded, by a process of its own.
//!
//! The process is `hybridwg reload`, as an operator would start it, because a reload asks the daemon
//! itself to change. What it says goes to the daemon's log.

use std::process::{Command, Stdio};
use std::thread;

use tracing::{error, info, warn};

use crate::control::daemon::OF_DAEMON;
use crate::control::record;

/// Starts a reload of `interface`, unless `hybridwg up` has not made it: then there is no file.
pub fn start(interface: &str) -> bool {
    let Some(record) = record::read(interface) else { return false };
    let mut reload = Command::new("/proc/self/exe");
    reload.args(["reload", "--"]).arg(&record.file).stdin(Stdio::null());
    for variable in OF_DAEMON {
        reload.env_remove(variable);
    }
    let wait = move || match reload.output() {
        Ok(output) => {
            for line in String::from_utf8_lossy(&output.stderr).lines() {
                info!("reload: {line}");
            }
            if !output.status.success() {
                error!(status = %output.status, "the reload failed: everything is as it was");
            }
        }
        Err(error) => error!(%error, "cannot start a reload"),
    };
    if let Err(error) = thread::Builder::new().name("reload".to_owned()).spawn(wait) {
        warn!(%error, "cannot start a reload");
    }
    true
}
