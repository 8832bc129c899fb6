//! What `up --foreground` waits for while its tunnel is up: its end, SIGHUP, and with `--watch` a
//! change of its file.
//!
//! Signals and changes count from before `up` reads the file, so that none is missed.

use std::future::pending;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout_at};

use crate::control::uapi::socket_path;
use crate::sys::SysError;
use crate::sys::file_watch::{FileWatch, Look};
use crate::sys::process;
use crate::sys::reactor::Readable;

/// A file that has changed is read when it has not changed for so long: an editor may write it in
/// several steps.
const QUIET: Duration = Duration::from_millis(250);

/// A file that does not stop changing is read all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has happened.
#[derive(Debug)]
pub enum Happening {
    /// The daemon is no more, whatever has ended it.
    Ended,
    HungUp,
    FileChanged,
    FileGone,
    /// Changes of the file are not noticed any more.
    Blind(SysError),
}

/// See the module.
#[derive(Debug)]
pub struct Vigil {
    hangup: Signal,
    /// Of a child.
    ended: Signal,
    file: Option<Watched>,
    daemon: Option<UnixStream>,
    reaping: Reaping,
    // Dropped last: the others are registered with it.
    runtime: Runtime,
}

/// That children of others are taken note of, until it is ended. Clones are the same.
///
/// Locking: held for one round of the taking note.
#[derive(Clone, Debug, Default)]
pub struct Reaping {
    has_ended: Arc<Mutex<bool>>,
}

impl Reaping {
    fn go_on(&self) {
        let has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        if !*has_ended {
            process::reap();
        }
    }

    /// From now on who has a child may wait for it, though the vigil goes on.
    pub fn end(&self) {
        *self.has_ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

#[derive(Debug)]
struct Watched {
    watch: FileWatch,
    ready: Readable,
}

impl Vigil {
    /// Begins, with `file` if its changes matter.
    ///
    /// # Errors
    /// The file or the signal cannot be watched.
    pub fn begin(file: Option<&Path>) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let context = runtime.enter();
        let hangup = signal(SignalKind::hangup())?;
        let ended = signal(SignalKind::child())?;
        let file = file.map(Watched::new).transpose()?;
        drop(context);
        Ok(Self { hangup, ended, file, daemon: None, reaping: Reaping::default(), runtime })
    }

    /// Waits for the end of the daemon of `interface`, too.
    ///
    /// # Errors
    /// It does not answer.
    pub fn attend(&mut self, interface: &str) -> io::Result<()> {
        let connect = UnixStream::connect(socket_path(interface));
        self.daemon = Some(self.runtime.block_on(connect)?);
        Ok(())
    }

    /// To be ended before hooks run while somebody still waits.
    pub fn reaping(&self) -> Reaping {
        self.reaping.clone()
    }

    /// Waits for what happens next.
    pub fn wait(&mut self) -> Happening {
        let Self { hangup, ended, file, daemon, reaping, runtime } = self;
        let happening = runtime.block_on(async {
            loop {
                // As process 1 of a container it is left with children of others. Hooks are its own,
                // and waited for elsewhere: none of them runs meanwhile.
                reaping.go_on();
                tokio::select! {
                    () = end_of(daemon) => return Happening::Ended,
                    _ = hangup.recv() => return Happening::HungUp,
                    happening = change_of(file) => return happening,
                    _ = ended.recv() => {}
                }
            }
        });
        if matches!(happening, Happening::Blind(_)) {
            *file = None;
        }
        happening
    }
}

impl Watched {
    fn new(path: &Path) -> io::Result<Self> {
        let watch = FileWatch::new(path).map_err(io::Error::other)?;
        let ready = Readable::new(&watch)?;
        Ok(Self { watch, ready })
    }
}

async fn end_of(daemon: &mut Option<UnixStream>) {
    let Some(daemon) = daemon else { return pending().await };
    // It says nothing, as nothing is asked.
    let _hung_up = daemon.read_u8().await;
}

async fn change_of(file: &mut Option<Watched>) -> Happening {
    let Some(Watched { watch, ready }) = file else { return pending().await };
    loop {
        ready.ready().await;
        let latest = Instant::now() + PATIENCE;
        let another = || timeout_at(latest.min(Instant::now() + QUIET), ready.ready());
        while Instant::now() < latest && another().await.is_ok() {}
        match watch.look() {
            Ok(Look::Same) => {}
            Ok(Look::Changed) => return Happening::FileChanged,
            Ok(Look::Gone) => return Happening::FileGone,
            Err(error) => return Happening::Blind(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_written_in_steps_is_told_once_and_one_that_goes_is_told_as_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg0.conf");
        fs::write(&path, "one").unwrap();
        let mut vigil = Vigil::begin(Some(&path)).unwrap();
        for text in ["", "[Interface]", "[Interface]\nMTU = 1400\n"] {
            fs::write(&path, text).unwrap();
        }
        assert!(matches!(vigil.wait(), Happening::FileChanged));
        fs::remove_file(&path).unwrap();
        // Had the steps been told one by one, another change would come before.
        assert!(matches!(vigil.wait(), Happening::FileGone));
    }
}
