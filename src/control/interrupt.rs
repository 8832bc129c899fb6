//! SIGINT, SIGTERM and SIGHUP as a flag that long work looks at, so that it can clean up first.
//!
//! Must not end the process: whoever sees the flag takes back what he did and returns.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::Poll;
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes, when dropped, those who wait.
struct Wake(Arc<Shared>);

impl Drop for Wake {
    fn drop(&mut self) {
        // Whoever looked before this waits by now, and is not missed.
        let _looked = self.0.lock();
        self.0.changed.notify_all();
    }
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
        Self::on(&[SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()])
    }

    /// As [`Self::on_signals`], but SIGHUP means something else.
    ///
    /// # Errors
    /// As there.
    pub fn on_signals_to_end() -> io::Result<Self> {
        Self::on(&[SignalKind::interrupt(), SignalKind::terminate()])
    }

    fn on(kinds: &[SignalKind]) -> io::Result<Self> {
        let interrupt = Self::never();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let mut signals = {
            let _context = runtime.enter();
            kinds.iter().map(|&kind| signal(kind)).collect::<io::Result<Vec<Signal>>>()?
        };
        let raised = interrupt.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(poll_fn(|context| {
                let mut signals = signals.iter_mut();
                let has_come = signals.any(|signal| signal.poll_recv(context).is_ready());
                if has_come { Poll::Ready(()) } else { Poll::Pending }
            }));
            raised.raise();
        })?;
        Ok(interrupt)
    }

    /// Raises the flag and wakes those who wait on it.
    pub fn raise(&self) {
        *self.shared.lock() = true;
        self.shared.changed.notify_all();
    }

    pub fn is_raised(&self) -> bool {
        *self.shared.lock()
    }

    /// Does `work` on a thread of its own, and waits until it is done or the flag is raised: then
    /// there is no result, and the thread is left to itself.
    ///
    /// # Errors
    /// If the thread cannot be started, or dies.
    pub fn cut_short<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Option<T>> {
        let (sender, receiver) = mpsc::channel();
        let wake = Wake(Arc::clone(&self.shared));
        thread::Builder::new().name("waited for".to_owned()).spawn(move || {
            // Dropped last, and also after a panic: the waiter then sees that no result can come.
            let _wake = wake;
            let sender = sender;
            // He may have given up.
            drop(sender.send(work()));
        })?;
        let mut raised = self.shared.lock();
        loop {
            match receiver.try_recv() {
                Ok(result) => return Ok(Some(result)),
                Err(_) if *raised => return Ok(None),
                Err(mpsc::TryRecvError::Disconnected) => {
                    return Err(io::Error::other("the thread that did the work died"));
                }
                Err(mpsc::TryRecvError::Empty) => {
                    raised =
                        self.shared.changed.wait(raised).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Waits until the flag is raised, at most for `limit`. Says whether it is.
    pub fn wait(&self, limit: Duration) -> bool {
        let raised = self.shared.lock();
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

    #[test]
    fn work_is_waited_for_until_it_is_done_or_dies_or_the_flag_is_raised() {
        let interrupt = Interrupt::never();
        assert_eq!(interrupt.cut_short(|| 7).unwrap(), Some(7));
        assert!(interrupt.cut_short(|| panic!("as this test wants it")).is_err());
        let (hold, held) = mpsc::channel::<()>();
        let raised = interrupt.clone();
        let outcome = interrupt.cut_short(move || {
            raised.raise();
            // For ever, as far as the waiter is concerned.
            held.recv()
        });
        assert_eq!(outcome.unwrap(), None);
        drop(hold);
    }
}
