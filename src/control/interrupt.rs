//! SIGINT, SIGTERM and SIGHUP as a flag that long work looks at, so that it can clean up first.
//!
//! Must not end the process: whoever sees the flag takes back what he did and returns.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A flag that is raised once and stays raised. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Interrupt {
    /// A flag that no signal raises.
    pub fn never() -> Self {
        Self::default()
    }

    /// A flag that the signals raise from now on, in place of ending the process.
    ///
    /// # Errors
    /// If the handlers or their thread cannot be set up.
    pub fn on_signals() -> io::Result<Self> {
        let interrupt = Self::never();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let [mut int, mut term, mut hup]: [Signal; 3] = {
            let _context = runtime.enter();
            [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ]
        };
        let raised = interrupt.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                    _ = hup.recv() => {}
                }
            });
            raised.raise();
        })?;
        Ok(interrupt)
    }

    /// Raises the flag and wakes those who wait on it.
    pub fn raise(&self) {
        *self.shared.raised.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.changed.notify_all();
    }

    pub fn is_raised(&self) -> bool {
        *self.shared.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the flag is raised, at most for `limit`. Says whether it is.
    pub fn wait(&self, limit: Duration) -> bool {
        let raised = self.shared.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let (raised, _) = self
            .shared
            .changed
            .wait_timeout_while(raised, limit, |raised| !*raised)
            .unwrap_or_else(PoisonError::into_inner);
        *raised
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_flag_ends_a_wait_at_once_and_stays_raised() {
        let interrupt = Interrupt::never();
        assert!(!interrupt.wait(Duration::ZERO));
        let other = interrupt.clone();
        let waiter = thread::spawn(move || other.wait(Duration::from_secs(600)));
        interrupt.raise();
        assert!(waiter.join().unwrap());
        assert!(interrupt.is_raised());
        assert!(interrupt.wait(Duration::ZERO));
    }
}
