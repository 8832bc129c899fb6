//! CUBIC, with HyStart++ to leave slow start. [RFC 9438] [RFC 9406]
//!
//! The window is in bytes; the functions of RFC 9438 are in segments, and are computed there.

use std::time::Duration;

use super::congestion::{Ack, INITIAL_SEGMENTS};
use super::hystart::HyStart;
use crate::time::Instant;

/// Segments per second cubed. [RFC 9438 §5]
const C: f64 = 0.4;
/// What a loss leaves of the window. [RFC 9438 §4.6]
const BETA: f64 = 0.7;
/// The increase that makes AIMD with [`BETA`] as fast as Reno. [RFC 9438 §4.3]
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// The least window after a loss, in segments. [RFC 5681 §3.1]
const MIN_SEGMENTS: u64 = 2;

/// What a loss has changed, in case that it was none.
#[derive(Clone, Copy, Debug)]
struct Before {
    window: f64,
    threshold: u64,
    w_max: f64,
    epoch: Option<Epoch>,
}

/// Congestion avoidance since the last loss, or since the application came back.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// When the window is to reach `origin`, in seconds after the start.
    k: f64,
    /// Where the function is flat. Segments.
    origin: f64,
    /// What Reno would have. Segments.
    w_est: f64,
}

#[derive(Debug)]
pub struct Cubic {
    mss: u64,
    /// In bytes.
    window: f64,
    /// `ssthresh`, in bytes.
    threshold: u64,
    /// The window before the last loss, in segments.
    w_max: f64,
    /// The same, for Reno's share. [RFC 9438 §4.3]
    prior: f64,
    epoch: Option<Epoch>,
    /// Until slow start has been left once.
    hystart: Option<HyStart>,
    before: Option<Box<Before>>,
    rtt: Duration,
}

impl Cubic {
    pub fn new(mss: u64) -> Self {
        Self {
            mss,
            window: (INITIAL_SEGMENTS * mss) as f64,
            threshold: u64::MAX,
            w_max: 0.0,
            prior: 0.0,
            epoch: None,
            hystart: Some(HyStart::new()),
            before: None,
            rtt: Duration::ZERO,
        }
    }

    pub const fn set_mss(&mut self, mss: u64) {
        self.mss = mss;
    }

    pub fn window(&self) -> u64 {
        (self.window as u64).max(self.mss)
    }

    pub const fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Twice as fast in slow start as the window alone would have it, so that it can double; a
    /// little faster afterwards, so that the window decides. [LNX tcp_input.c:tcp_update_pacing_rate]
    pub fn pacing_rate(&self, smoothed: Duration) -> u64 {
        let gain = if self.window() < self.threshold / 2 { 2.0 } else { 1.2 };
        (gain * self.window / smoothed.as_secs_f64()) as u64
    }

    pub fn on_ack(&mut self, ack: &Ack) {
        self.rtt = ack.rtt.unwrap_or(self.rtt);
        if ack.is_recovering || ack.delivered == 0 {
            return;
        }
        if self.window() < self.threshold {
            self.slow_start(ack);
        } else if ack.is_window_limited {
            self.avoid_congestion(ack);
        } else {
            // The window stands still while the application does not fill it. [RFC 9438 §5.8]
            self.epoch = None;
        }
    }

    fn slow_start(&mut self, ack: &Ack) {
        let may_grow = ack.is_window_limited || self.window() < 2 * ack.prior_in_flight;
        let divisor = self.hystart.as_mut().map_or(1.0, |hystart| hystart.on_ack(ack));
        if may_grow {
            self.window += ack.delivered as f64 / divisor;
            self.window = self.window.min(self.threshold as f64);
        }
        if self.hystart.as_ref().is_some_and(HyStart::is_over) {
            self.threshold = self.window();
            self.hystart = None;
        }
    }

    /// [RFC 9438 §4.2 to §4.5]
    fn avoid_congestion(&mut self, ack: &Ack) {
        let mss = self.mss as f64;
        let (segments, acked) = (self.window / mss, ack.delivered as f64 / mss);
        // From above the old maximum it goes on from where it is.
        let origin = self.w_max.max(segments);
        let epoch = self.epoch.get_or_insert_with(|| {
            let k = ((origin - segments) / C).cbrt();
            Epoch { start: ack.now, k, origin, w_est: segments }
        });
        let t = (ack.now.since(epoch.start) + self.rtt).as_secs_f64();
        let target = (C * (t - epoch.k).powi(3) + epoch.origin).clamp(segments, 1.5 * segments);
        let alpha = if epoch.w_est < self.prior { ALPHA } else { 1.0 };
        epoch.w_est += alpha * acked / segments;
        let grown = segments + (target - segments) / segments * acked;
        self.window = grown.max(epoch.w_est) * mss;
    }

    pub fn on_congestion(&mut self) {
        self.save();
        let segments = self.window / self.mss as f64;
        // Who has to yield again before it is back makes room for others. [RFC 9438 §4.7]
        self.w_max = if segments < self.w_max { segments * (1.0 + BETA) / 2.0 } else { segments };
        self.prior = segments;
        self.threshold = ((self.window * BETA) as u64).max(MIN_SEGMENTS * self.mss);
        self.window = self.threshold as f64;
        self.epoch = None;
        self.hystart = None;
    }

    /// [RFC 9438 §4.8] [RFC 5681 §3.1]
    pub fn on_timeout(&mut self, is_first: bool) {
        if is_first {
            self.on_congestion();
        }
        self.window = self.mss as f64;
    }

    fn save(&mut self) {
        let Self { window, threshold, w_max, epoch, .. } = *self;
        self.before = Some(Box::new(Before { window, threshold, w_max, epoch }));
    }

    /// [RFC 9438 §4.9]
    pub fn undo(&mut self) {
        let Some(before) = self.before.take() else { return };
        self.window = self.window.max(before.window);
        self.threshold = self.threshold.max(before.threshold);
        self.w_max = before.w_max;
        self.epoch = before.epoch;
    }

    /// Halves the window for each timeout that has passed. [LNX tcp_output.c:tcp_cwnd_restart]
    pub fn on_restart(&mut self, now: Instant, idle: Duration, timeout: Duration) {
        let timeouts = idle.as_nanos() / timeout.as_nanos().max(1);
        let restart = (INITIAL_SEGMENTS * self.mss) as f64;
        if timeouts > 0 && self.window > restart {
            self.threshold = self.threshold.max((self.window * 0.75) as u64);
            let halvings = i32::try_from(timeouts.min(30)).unwrap_or(30);
            self.window = (self.window * 0.5_f64.powi(halvings)).max(restart);
        }
        // The time that has passed must not count. [RFC 9438 §5.8]
        if let Some(epoch) = &mut self.epoch {
            epoch.start = epoch.start + idle.min(now.since(epoch.start));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 1000;

    /// Acknowledges a full window in each round trip of 100 ms, for so many.
    fn rounds(cubic: &mut Cubic, now: &mut Instant, count: u32) {
        for _ in 0..count {
            *now = *now + Duration::from_millis(100);
            let window = cubic.window();
            for _ in 0..window / MSS {
                cubic.on_ack(&Ack {
                    now: *now,
                    delivered: MSS,
                    total_delivered: 0,
                    lost: 0,
                    in_flight: window,
                    prior_in_flight: window,
                    rtt: Some(Duration::from_millis(100)),
                    rate: None,
                    acknowledged: 0,
                    next: 1,
                    is_recovering: false,
                    is_window_limited: true,
                });
            }
        }
    }

    #[test]
    fn the_window_is_back_after_k_and_flat_there() {
        let mut cubic = Cubic::new(MSS);
        let mut now = Instant::ZERO + Duration::from_secs(1);
        rounds(&mut cubic, &mut now, 6);
        assert_eq!(cubic.window(), 640_000, "slow start doubles");
        cubic.on_congestion();
        assert_eq!(cubic.window(), 448_000, "seven tenths");
        // K = cbrt(640 * 0.3 / 0.4) = 7.83 s.
        rounds(&mut cubic, &mut now, 39);
        let half = cubic.window();
        assert!((590_000..630_000).contains(&half), "{half}");
        rounds(&mut cubic, &mut now, 39);
        assert!((635_000..645_000).contains(&cubic.window()), "{}", cubic.window());
        rounds(&mut cubic, &mut now, 78);
        assert!(cubic.window() > 800_000, "and then it goes on: {}", cubic.window());
    }

    #[test]
    fn a_small_window_grows_as_renos_does() {
        let mut cubic = Cubic::new(MSS);
        let mut now = Instant::ZERO + Duration::from_secs(1);
        cubic.on_congestion();
        assert_eq!(cubic.window(), 7000);
        rounds(&mut cubic, &mut now, 10);
        // 0.53 of a segment in a round trip, and one of them once it is back at ten.
        assert!((11_500..14_500).contains(&cubic.window()), "{}", cubic.window());
    }

    #[test]
    fn a_loss_that_was_none_is_taken_back() {
        let mut cubic = Cubic::new(MSS);
        let mut now = Instant::ZERO + Duration::from_secs(1);
        rounds(&mut cubic, &mut now, 4);
        let before = (cubic.window(), cubic.threshold());
        cubic.on_timeout(true);
        cubic.on_timeout(false);
        assert_eq!(cubic.window(), MSS);
        cubic.undo();
        assert_eq!((cubic.window(), cubic.threshold()), before);
    }

    #[test]
    fn idleness_halves_the_window_with_each_timeout() {
        let mut cubic = Cubic::new(MSS);
        let mut now = Instant::ZERO + Duration::from_secs(1);
        rounds(&mut cubic, &mut now, 4);
        assert_eq!(cubic.window(), 160_000);
        let timeout = Duration::from_millis(300);
        cubic.on_restart(now, Duration::from_millis(299), timeout);
        assert_eq!(cubic.window(), 160_000);
        cubic.on_restart(now, Duration::from_millis(700), timeout);
        assert_eq!(cubic.window(), 40_000);
        cubic.on_restart(now, Duration::from_secs(9999), timeout);
        assert_eq!(cubic.window(), 10_000, "as at the start");
    }
}
