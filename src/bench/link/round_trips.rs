//! Echo requests at a steady pace: round trips, and what is lost of them.
//!
//! A request leaves when it is due and not when the last was answered, so that a stall shows in all
//! that it held up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bench::error::BenchError;
use crate::bench::latencies::Latencies;
use crate::control::interrupt::Interrupt;
use crate::sys::clock;
use crate::sys::echo::EchoSocket;
use crate::time::Instant;

/// How long the last request may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often somebody who watches is told, and an interruption is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub interval: Duration,
    pub duration: Duration,
}

impl Pace {
    /// Sequence numbers have 16 bits.
    pub fn count(&self) -> u16 {
        let count = self.duration.as_nanos() / self.interval.as_nanos().max(1);
        u16::try_from(count).unwrap_or(u16::MAX).max(1)
    }
}

/// What came of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoundTrips {
    pub sent: u64,
    pub lost: u64,
    /// Answers to what had been answered.
    pub again: u64,
    /// By how much one round trip differs from that of the request before, on average, in
    /// microseconds.
    pub jitter_us: Option<f64>,
    pub times: Latencies,
}

impl RoundTrips {
    #[expect(clippy::cast_precision_loss, reason = "16 bits fit")]
    pub fn lost_percent(&self) -> f64 {
        100.0 * self.lost as f64 / self.sent.max(1) as f64
    }
}

/// Measures. `tell` is told every now and then how long it has been at it, and what is known.
///
/// # Errors
/// What the socket said, or somebody interrupted.
pub fn measure(
    echo: &EchoSocket,
    pace: Pace,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(Duration, &RoundTrips),
) -> Result<RoundTrips, BenchError> {
    let mut book = Book::default();
    let started = clock::now().mono;
    let due = |number: u16| started + pace.interval.saturating_mul(number.into());
    let (count, mut told) = (pace.count(), started);
    let end = due(count) + PATIENCE;
    loop {
        let mut now = clock::now().mono;
        let next = book.sent_count();
        if next < count && now >= due(next) {
            now = clock::now().mono;
            book.sent(now);
            echo.send(next)?;
            continue;
        }
        if now >= end || (next == count && book.is_complete()) {
            return Ok(book.close());
        }
        let until = if next < count { due(next) } else { end };
        if let Some(sequence) = echo.receive(until.since(now).min(LOOK_EVERY))? {
            book.answered(sequence, clock::now().mono);
        }
        if clock::now().mono.since(told) >= LOOK_EVERY {
            told = clock::now().mono;
            tell(told.since(started).min(pace.duration), &book.so_far(told));
            if interrupt.is_raised() {
                return Err(BenchError::Interrupted);
            }
        }
    }
}

/// What was sent and answered.
#[derive(Debug, Default)]
struct Book {
    sent: Vec<(Instant, Option<Duration>)>,
    again: u64,
    times: Latencies,
}

impl Book {
    fn sent_count(&self) -> u16 {
        u16::try_from(self.sent.len()).unwrap_or(u16::MAX)
    }

    fn sent(&mut self, at: Instant) {
        self.sent.push((at, None));
    }

    fn answered(&mut self, sequence: u16, at: Instant) {
        match self.sent.get_mut(usize::from(sequence)) {
            Some((sent, took @ None)) => {
                let time = at.since(*sent);
                *took = Some(time);
                self.times.record(time);
            }
            Some((_, Some(_))) => self.again += 1,
            // Of no request of ours, whatever it says.
            None => {}
        }
    }

    fn is_complete(&self) -> bool {
        self.times.count() == self.sent.len() as u64
    }

    /// What may still be answered is not lost yet.
    fn so_far(&self, now: Instant) -> RoundTrips {
        let is_lost = |(sent, took): &&(Instant, Option<Duration>)| {
            took.is_none() && now.since(*sent) > PATIENCE
        };
        RoundTrips {
            sent: self.sent.len() as u64,
            lost: self.sent.iter().filter(is_lost).count() as u64,
            again: self.again,
            jitter_us: None,
            times: self.times.clone(),
        }
    }

    fn close(self) -> RoundTrips {
        let sent = self.sent.len() as u64;
        RoundTrips {
            sent,
            lost: sent - self.times.count(),
            again: self.again,
            jitter_us: self.jitter_us(),
            times: self.times,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "16 bits fit")]
    fn jitter_us(&self) -> Option<f64> {
        let pairs = self.sent.windows(2).filter_map(|pair| Some((pair[0].1?, pair[1].1?)));
        let differences: Vec<f64> = pairs.map(|(a, b)| a.abs_diff(b).as_secs_f64() * 1e6).collect();
        let count = differences.len();
        (count > 0).then(|| differences.iter().sum::<f64>() / count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000);

    fn at(millis: u64) -> Instant {
        START + Duration::from_millis(millis)
    }

    #[test]
    fn what_is_not_answered_is_lost_and_what_is_answered_twice_counts_once() {
        let mut book = Book::default();
        for number in 0..4 {
            book.sent(at(number * 10));
        }
        for (sequence, millis) in [(0, 5), (3, 45), (1, 17), (1, 19), (77, 20)] {
            book.answered(sequence, at(millis));
        }
        assert!(!book.is_complete());
        assert_eq!(book.so_far(at(50)).lost, 0, "it may still come");
        assert_eq!(book.so_far(at(5000)).lost, 1);
        let found = book.close();
        assert_eq!((found.sent, found.lost, found.again), (4, 1, 1));
        assert!((found.lost_percent() - 25.0).abs() < 1e-9);
        // 5 and 7 ms are of neighbours, 15 ms is alone.
        assert!((found.jitter_us.unwrap() - 2000.0).abs() < 1e-6);
        assert_eq!(found.times.count(), 3);
    }

    #[test]
    fn a_pace_has_at_least_one_request_and_no_more_than_numbers() {
        let pace = |interval, duration| Pace {
            interval: Duration::from_millis(interval),
            duration: Duration::from_millis(duration),
        };
        assert_eq!(pace(50, 10_000).count(), 200);
        assert_eq!(pace(50, 10).count(), 1);
        assert_eq!(pace(1, 1_000_000).count(), u16::MAX);
    }
}
