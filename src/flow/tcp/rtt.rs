//! Round-trip times: the estimate, the retransmission timeout and the lowest of late. [RFC 6298]
//!
//! The variance counts as at least 200 ms [LNX tcp_input.c:tcp_rtt_estimator, TCP_RTO_MIN], because
//! the other end may keep an acknowledgment back for longer than a round trip takes.

use std::time::Duration;

use crate::time::Instant;

/// Before anything was measured. [RFC 6298 §2.1]
const INITIAL_RTO: Duration = Duration::from_secs(1);
const MIN_VARIANCE: Duration = Duration::from_millis(200);
pub const MAX_RTO: Duration = Duration::from_secs(60);

/// For how long the lowest counts: routes change. [LNX tcp_input.c:tcp_update_rtt_min]
const WINDOW: Duration = Duration::from_secs(300);

/// What is known of a path's round trip.
#[derive(Clone, Copy, Debug)]
pub struct Rtt {
    smoothed: Option<Duration>,
    variance: Duration,
    lowest: Duration,
    /// The lowest of the window that has not ended.
    candidate: Duration,
    since: Instant,
}

impl Rtt {
    pub const fn new() -> Self {
        Self {
            smoothed: None,
            variance: Duration::ZERO,
            lowest: Duration::MAX,
            candidate: Duration::MAX,
            since: Instant::ZERO,
        }
    }

    /// Takes in a measurement. [RFC 6298 §2]
    pub fn on_sample(&mut self, now: Instant, sample: Duration) {
        let sample = sample.clamp(Duration::from_micros(1), MAX_RTO);
        match &mut self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variance = sample / 2;
            }
            Some(smoothed) => {
                let difference = smoothed.abs_diff(sample);
                self.variance = (self.variance * 3 + difference) / 4;
                *smoothed = (*smoothed * 7 + sample) / 8;
            }
        }
        self.on_lowest(now, sample);
    }

    /// Takes in a measurement that counts for the lowest only.
    pub fn on_lowest(&mut self, now: Instant, sample: Duration) {
        if now.since(self.since) > WINDOW {
            self.lowest = self.candidate.min(sample);
            self.candidate = sample;
            self.since = now;
        }
        self.candidate = self.candidate.min(sample);
        self.lowest = self.lowest.min(sample);
    }

    pub const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The lowest of late; the farthest future before anything was measured.
    pub const fn lowest(&self) -> Duration {
        self.lowest
    }

    /// How long to wait for an acknowledgment before the segment counts as lost.
    pub fn timeout(&self) -> Duration {
        self.smoothed.map_or(INITIAL_RTO, |smoothed| {
            (smoothed + (self.variance * 4).max(MIN_VARIANCE)).min(MAX_RTO)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_timeout_follows_rfc_6298_and_never_falls_below_200_ms_beyond_a_round_trip() {
        let mut rtt = Rtt::new();
        assert_eq!(rtt.timeout(), Duration::from_secs(1));
        rtt.on_sample(Instant::ZERO, 100 * MS);
        assert_eq!(rtt.timeout(), 300 * MS, "srtt + 4 * srtt / 2");
        rtt.on_sample(Instant::ZERO, 260 * MS);
        // rttvar = 3/4 * 50 + 1/4 * 160, srtt = 7/8 * 100 + 1/8 * 260
        assert_eq!(rtt.timeout(), 120 * MS + 4 * Duration::from_micros(77_500));
        (0..100).for_each(|_| rtt.on_sample(Instant::ZERO, 100 * MS));
        assert!(rtt.timeout() < 301 * MS && rtt.timeout() >= 300 * MS);
        rtt.on_sample(Instant::ZERO, Duration::from_secs(9999));
        assert!(rtt.timeout() <= MAX_RTO);
    }

    #[test]
    fn the_lowest_is_forgotten_when_it_is_old() {
        let mut rtt = Rtt::new();
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        rtt.on_sample(at(1), 10 * MS);
        (2..900).for_each(|second| rtt.on_sample(at(second), 50 * MS));
        assert_eq!(rtt.lowest(), 50 * MS);
    }
}
