//! Readiness: an epoll set, and a waker that other threads ring.
//!
//! Level-triggered but for [`Interest::Arrivals`] and [`Interest::Changes`]: what is not drained is reported again, so no event
//! can be lost by a caller that stops early because its budget is spent.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::io::Errno;

use super::SysError;

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Readable,
    Writable,
    /// Readable, and told once each time that something arrives; otherwise as [`Self::Changes`].
    Arrivals,
    /// Both ways, and told once each time that it becomes so: who does not read or write until it
    /// would block must remember that there is more.
    Changes,
}

/// One ready descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The token given to [`Poller::add`].
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    /// An error or hang-up is pending; for a TUN descriptor, its interface is gone.
    pub failed: bool,
}

/// An epoll set with room for a fixed number of events per wait.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

// SAFETY: the events are what the kernel has written: numbers, one of which may be read as a pointer,
// and nobody does.
unsafe impl Send for Poller {}

impl Poller {
    /// Events handed out by one [`wait`](Self::wait); the rest follow in the next.
    const EVENTS: usize = 16;

    pub fn new() -> Result<Self, SysError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| SysError::new("epoll_create1", e))?;
        Ok(Self { epoll, events: Vec::with_capacity(Self::EVENTS) })
    }

    /// Watches `fd`. Closing the last copy of a descriptor removes it from the set.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), SysError> {
        let flags = match interest {
            Interest::Readable => epoll::EventFlags::IN,
            Interest::Writable => epoll::EventFlags::OUT,
            Interest::Arrivals => epoll::EventFlags::IN | epoll::EventFlags::ET,
            Interest::Changes => {
                epoll::EventFlags::IN
                    | epoll::EventFlags::OUT
                    | epoll::EventFlags::RDHUP
                    | epoll::EventFlags::ET
            }
        };
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)
            .map_err(|e| SysError::new("epoll_ctl add", e))
    }

    /// Stops watching `fd`.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> Result<(), SysError> {
        epoll::delete(&self.epoll, fd).map_err(|e| SysError::new("epoll_ctl del", e))
    }

    /// Waits until something is ready or `timeout` has passed (`None`: for ever); yields what is
    /// ready. A signal ends the wait early with nothing ready.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<impl Iterator<Item = Ready> + '_, SysError> {
        let timeout = timeout.map(timespec);
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(SysError::new("epoll_wait", e)),
        }
        Ok(self.events.iter().map(|event| {
            // Events are packed on some machines: copy the fields out before use.
            let (data, flags) = (event.data, event.flags);
            Ready {
                token: data.u64(),
                readable: flags.contains(epoll::EventFlags::IN),
                writable: flags.contains(epoll::EventFlags::OUT),
                failed: flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP),
            }
        }))
    }
}

/// Waits until `limit` has passed, or until `waker` has been rung or one of `others` is readable. A
/// signal ends the wait early.
pub fn nap(
    waker: &Waker,
    others: [Option<BorrowedFd<'_>>; 2],
    limit: Duration,
) -> Result<(), SysError> {
    let [first, second] = others.map(|fd| fd.unwrap_or(waker.as_fd()));
    let mut watched =
        [waker.as_fd(), first, second].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    match poll(&mut watched, Some(&timespec(limit))) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(SysError::new("ppoll", e)),
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// An eventfd: any thread wakes, one thread polls and drains. Rings before a drain count as one.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    pub fn new() -> Result<Self, SysError> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Self)
            .map_err(|e| SysError::new("eventfd", e))
    }

    /// Makes the descriptor readable. It cannot fail in a way that loses the wake-up: the only
    /// refusal of a non-blocking eventfd is a counter that is already full, hence readable.
    pub fn wake(&self) {
        while rustix::io::write(&self.0, &1_u64.to_ne_bytes()) == Err(Errno::INTR) {}
    }

    /// Takes the wake-up back; true if there was one.
    pub fn drain(&self) -> bool {
        let mut counter = [0; 8];
        loop {
            match rustix::io::read(&self.0, &mut counter) {
                Err(Errno::INTR) => {}
                outcome => return outcome.is_ok(),
            }
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sys::clock;

    fn tokens(poller: &mut Poller, timeout: Option<Duration>) -> Vec<u64> {
        poller.wait(timeout).unwrap().map(|ready| ready.token).collect()
    }

    #[test]
    fn a_wait_without_events_ends_at_its_timeout() {
        let timeout = Duration::from_millis(20);
        let mut poller = Poller::new().unwrap();
        let mut lasts = || {
            let started = clock::now().mono;
            assert!(tokens(&mut poller, Some(timeout)).is_empty());
            clock::now().mono.since(started) >= timeout
        };
        // The signals of other tests of this process end a wait early, but hardly four.
        assert!((0..4).any(|_| lasts()));
    }

    #[test]
    fn a_waker_rung_from_another_thread_ends_an_endless_wait_and_many_rings_drain_as_one() {
        let mut poller = Poller::new().unwrap();
        let waker = Arc::new(Waker::new().unwrap());
        poller.add(waker.as_fd(), 7, Interest::Readable).unwrap();
        let ringer = Arc::clone(&waker);
        let thread = std::thread::spawn(move || (0..3).for_each(|_| ringer.wake()));
        assert_eq!(tokens(&mut poller, None), [7]);
        thread.join().unwrap();
        assert!(waker.drain());
        assert!(!waker.drain());
        assert!(tokens(&mut poller, Some(Duration::ZERO)).is_empty());
    }

    #[test]
    fn an_event_that_was_not_drained_is_reported_again() {
        let mut poller = Poller::new().unwrap();
        let waker = Waker::new().unwrap();
        poller.add(waker.as_fd(), 1, Interest::Readable).unwrap();
        waker.wake();
        assert_eq!(tokens(&mut poller, Some(Duration::ZERO)), [1]);
        assert_eq!(tokens(&mut poller, Some(Duration::ZERO)), [1]);
        poller.remove(waker.as_fd()).unwrap();
        assert!(tokens(&mut poller, Some(Duration::ZERO)).is_empty());
    }

    #[test]
    fn a_nap_ends_by_itself_or_when_something_comes() {
        let (waker, other) = (Waker::new().unwrap(), Waker::new().unwrap());
        let nap = |limit| nap(&waker, [None, Some(other.as_fd())], limit).unwrap();
        let limit = Duration::from_millis(20);
        let lasts = || {
            let started = clock::now().mono;
            nap(limit);
            clock::now().mono.since(started) >= limit
        };
        // The signals of other tests of this process end a nap early, but hardly four.
        assert!((0..4).any(|_| lasts()));
        waker.wake();
        nap(Duration::MAX);
        assert!(waker.drain());
        other.wake();
        nap(Duration::MAX);
    }

    #[test]
    fn writability_is_reported_apart_from_readability() {
        let mut poller = Poller::new().unwrap();
        let waker = Waker::new().unwrap();
        poller.add(waker.as_fd(), 1, Interest::Writable).unwrap();
        let ready: Vec<_> = poller.wait(None).unwrap().collect();
        assert_eq!(ready, [Ready { token: 1, readable: false, writable: true, failed: false }]);
    }
}
