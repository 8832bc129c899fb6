//! What a daemon does about SIGHUP: it has its file reloaded, by a process of its own.
//!
//! The process is `hybridwg reload`, as an operator would start it, because a reload asks the daemon
//! itself to change. What it says goes to the daemon's log. There is one at a time, and another after
//! it if a signal came meanwhile: the file may have changed since it was read.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use tracing::{error, info};

use crate::control::daemon::OF_DAEMON;
use crate::control::record;

/// The reloads of one daemon.
#[derive(Debug, Default)]
pub struct Reloading {
    /// To the thread that makes them, once there is one.
    wanted: Option<SyncSender<PathBuf>>,
}

impl Reloading {
    /// Has `interface` reloaded, unless `hybridwg up` has not made it: then there is no file.
    pub fn want(&mut self, interface: &str) -> bool {
        let Some(record) = record::read(interface) else { return false };
        if self.wanted.is_none() {
            self.wanted = begin()
                .inspect_err(|error| error!(%error, "cannot start a thread for reloads"))
                .ok();
        }
        if let Some(wanted) = &self.wanted {
            // If there is no room, one is still to come, and reads the file later than now.
            drop(wanted.try_send(record.file));
        }
        true
    }
}

fn begin() -> io::Result<SyncSender<PathBuf>> {
    let (wanted, files) = mpsc::sync_channel::<PathBuf>(1);
    let work = move || files.iter().for_each(|file| reload(&file));
    thread::Builder::new().name("reload".to_owned()).spawn(work)?;
    Ok(wanted)
}

/// Waits until it is done.
fn reload(file: &Path) {
    let mut reload = Command::new("/proc/self/exe");
    reload.args(["reload", "--"]).arg(file).stdin(Stdio::null());
    for variable in OF_DAEMON {
        reload.env_remove(variable);
    }
    match reload.output() {
        Ok(output) => {
            for line in String::from_utf8_lossy(&output.stderr).lines() {
                info!("reload: {line}");
            }
            if !output.status.success() {
                error!(status = %output.status, "the reload failed: everything is as it was");
            }
        }
        Err(error) => error!(%error, "cannot start a reload"),
    }
}
