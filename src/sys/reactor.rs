//! Lets the control plane's tokio runtime wait for a descriptor of this module.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Readiness of a descriptor, as an await.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Watches what `source` refers to. To be called within a runtime.
    ///
    /// # Errors
    /// The descriptor cannot be duplicated or polled.
    pub fn new(source: impl AsFd) -> io::Result<Self> {
        let fd = source.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` owns an open descriptor, always the same one, until it is dropped,
        // and here that is when the `AsyncFd` is.
        let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self(watched))
    }

    /// Waits until there is something to read. The caller must then read all of it: what stays is
    /// not reported again.
    pub async fn ready(&self) {
        if let Ok(mut guard) = self.0.readable().await {
            guard.clear_ready();
        }
    }
}
