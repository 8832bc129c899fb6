//! Signs of life for the service manager: only while the engine turns and every shard empties its
//! inbox, so that a tunnel in which one of them is stuck is started anew.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::dataplane::inbox::{Inboxes, ShardCommand};
use crate::sys::notify::{self, Notifier};
use crate::time::Instant;

/// What the manager is told, and when.
#[derive(Debug)]
pub(super) struct Watchdog {
    notifier: Notifier,
    every: Duration,
    due: Instant,
    /// Each shard has a copy until it has looked into its inbox.
    pulse: Arc<()>,
}

impl Watchdog {
    /// `None` if the manager does not watch.
    pub fn from_environment() -> Option<Self> {
        let interval = notify::watchdog_interval()?;
        match Notifier::from_environment() {
            Ok(notifier) => Some(Self::new(notifier?, interval)),
            Err(error) => {
                warn!(%error, "NOTIFY_SOCKET cannot be used: no signs of life");
                None
            }
        }
    }

    /// One that gives two signs in each `interval`, as sd_watchdog_enabled(3) advises.
    fn new(notifier: Notifier, interval: Duration) -> Self {
        Self { notifier, every: interval / 2, due: Instant::ZERO, pulse: Arc::new(()) }
    }

    pub const fn due(&self) -> Instant {
        self.due
    }

    /// If it is time: gives a sign if all shards have answered the last question, and asks them again.
    pub fn turn(&mut self, now: Instant, inboxes: &Inboxes) {
        if now < self.due {
            return;
        }
        self.due = now + self.every;
        let is_alive = Arc::strong_count(&self.pulse) == 1;
        if !is_alive {
            return warn!("a thread for packets does not answer: no sign of life");
        }
        inboxes.post_to_all(|| ShardCommand::Pulse(Box::new(Arc::clone(&self.pulse))));
        if let Err(error) = self.notifier.alive() {
            warn!(%error, "the service manager does not listen");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn there_are_two_signs_of_life_in_an_interval_and_none_while_a_shard_is_stuck() {
        let folder = tempfile::tempdir().unwrap();
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        manager.set_nonblocking(true).unwrap();
        let notifier = Notifier::to(folder.path().join("notify").as_os_str()).unwrap();
        let mut watchdog = Watchdog::new(notifier, Duration::from_secs(10));
        let inboxes = Inboxes::new(2);
        let look = |shard: usize| {
            let mut taken = VecDeque::new();
            inboxes.iter().nth(shard).unwrap().take(&mut taken);
        };
        let at = |secs| Instant::ZERO + Duration::from_secs(secs);
        let mut has_sign = |secs| {
            watchdog.turn(at(secs), &inboxes);
            manager.recv(&mut [0; 64]).is_ok()
        };
        assert!(has_sign(100));
        look(0);
        look(1);
        assert!(!has_sign(104), "too early");
        assert!(has_sign(105));
        look(0);
        assert!(!has_sign(110), "the other shard has not looked");
        assert!(!has_sign(115));
        look(1);
        assert!(has_sign(120), "it was only slow");
    }
}
