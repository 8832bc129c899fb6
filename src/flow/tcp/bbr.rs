//! BBR: sends as fast as the path has lately delivered, and keeps as much in flight as that times
//! the shortest round trip. [draft-cardwell-iccrg-bbr-congestion-control-00]
//!
//! The first version, which takes no loss for congestion, with the ceiling of the second: who loses
//! more than 2 % in a round keeps less in flight until the losses end.
//! [draft-cardwell-iccrg-bbr-congestion-control-02 §4.5]
//!
//! ```text
//! Startup ──(no faster for 3 rounds, or much loss)──▶ Drain ──(queue empty)──▶ ProbeBandwidth
//!    ▲                                                                            │  ▲
//!    └──── before the pipe was full ◀──┐            (shortest round trip is 10 s old) │
//!                                      └──────────────────── ProbeRtt ◀───────────┘──┘
//! ```

use std::time::Duration;

use super::congestion::{Ack, INITIAL_SEGMENTS, Rate};
use crate::time::Instant;

/// 2 / ln 2: the least that doubles what is delivered each round.
const HIGH_GAIN: f64 = 2.89;
const DRAIN_GAIN: f64 = 1.0 / HIGH_GAIN;
const WINDOW_GAIN: f64 = 2.0;
/// One phase probes for more, the next drains what that has queued, the others cruise.
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];

/// A little below what was measured, so that queues drain. [LNX tcp_bbr.c:bbr_pacing_margin_percent]
const PACING_MARGIN: f64 = 0.99;

/// Rounds that a measurement of the bandwidth counts for.
const BANDWIDTH_ROUNDS: u64 = 10;
const MIN_RTT_WINDOW: Duration = Duration::from_secs(10);
const PROBE_RTT: Duration = Duration::from_millis(200);
const MIN_SEGMENTS: u64 = 4;

/// The pipe is full when it has not become this much faster in so many rounds.
const FULL_GROWTH: f64 = 1.25;
const FULL_ROUNDS: u32 = 3;

/// More loss than this in a round, of so many segments at least, is congestion.
const LOSS_THRESHOLD: f64 = 0.02;
const LOST_SEGMENTS: u64 = 8;
/// What it leaves of what is in flight.
const BETA: f64 = 0.7;
/// By how much a round without much loss raises the ceiling again.
const CEILING_GROWTH: f64 = 1.0 / 16.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    ProbeBandwidth,
    ProbeRtt {
        /// When little enough has been in flight for long enough.
        until: Option<Instant>,
    },
}

/// The maximum of the last [`BANDWIDTH_ROUNDS`]: the best three, each later than the one before.
/// [LNX win_minmax.c:minmax_running_max]
#[derive(Clone, Copy, Debug, Default)]
struct MaxFilter([(u64, u64); 3]);

impl MaxFilter {
    const fn max(&self) -> u64 {
        self.0[0].1
    }

    fn update(&mut self, round: u64, value: u64) {
        let is_old = |entry: (u64, u64)| round - entry.0 > BANDWIDTH_ROUNDS;
        if value >= self.max() || is_old(self.0[2]) {
            self.0 = [(round, value); 3];
            return;
        }
        if value >= self.0[1].1 {
            self.0[1] = (round, value);
            self.0[2] = (round, value);
        } else if value >= self.0[2].1 {
            self.0[2] = (round, value);
        }
        while is_old(self.0[0]) {
            self.0 = [self.0[1], self.0[2], (round, value)];
        }
        // Successors of other ages, so that there is one when the best gets old.
        let age = round - self.0[0].0;
        if self.0[1].0 == self.0[0].0 && age > BANDWIDTH_ROUNDS / 4 {
            self.0[1] = (round, value);
            self.0[2] = (round, value);
        } else if self.0[2].0 == self.0[1].0 && age > BANDWIDTH_ROUNDS / 2 {
            self.0[2] = (round, value);
        }
    }
}

#[derive(Debug)]
pub struct Bbr {
    mss: u64,
    mode: Mode,
    /// In bytes.
    window: u64,
    /// The window before a recovery or a probe made it small.
    prior_window: u64,
    /// Bytes per second.
    bandwidth: MaxFilter,
    min_rtt: Option<Duration>,
    min_rtt_at: Instant,
    round: u64,
    /// The round ends when what was sent after so much was delivered is acknowledged.
    round_end: u64,
    full_bandwidth: u64,
    full_rounds: u32,
    is_pipe_full: bool,
    phase: usize,
    phase_start: Instant,
    pacing_gain: f64,
    loss: RoundLoss,
    /// At most so much in flight, after much loss. Bytes.
    ceiling: Option<u64>,
    /// Where in the cycle it begins, so that flows that start together do not probe together.
    salt: u32,
}

/// What of a round was lost. Bytes.
#[derive(Clone, Copy, Debug, Default)]
struct RoundLoss {
    lost: u64,
    delivered: u64,
    in_flight: u64,
}

impl Bbr {
    pub fn new(mss: u64, salt: u32) -> Self {
        Self {
            mss,
            mode: Mode::Startup,
            window: INITIAL_SEGMENTS * mss,
            prior_window: 0,
            bandwidth: MaxFilter::default(),
            min_rtt: None,
            min_rtt_at: Instant::ZERO,
            round: 0,
            round_end: 0,
            full_bandwidth: 0,
            full_rounds: 0,
            is_pipe_full: false,
            phase: 0,
            phase_start: Instant::ZERO,
            pacing_gain: HIGH_GAIN,
            loss: RoundLoss::default(),
            ceiling: None,
            salt,
        }
    }

    pub const fn set_mss(&mut self, mss: u64) {
        self.mss = mss;
    }

    pub const fn window(&self) -> u64 {
        self.window
    }

    pub fn pacing_rate(&self, smoothed: Duration) -> u64 {
        let mut bandwidth = self.bandwidth.max() as f64;
        if !self.is_pipe_full {
            // An application that has sent in drops so far has not shown what the path can do.
            let initial = (INITIAL_SEGMENTS * self.mss) as f64 / smoothed.as_secs_f64();
            bandwidth = bandwidth.max(initial);
        }
        (bandwidth * self.pacing_gain * PACING_MARGIN) as u64
    }

    pub fn on_ack(&mut self, ack: &Ack) {
        let is_round_start = self.update_round(ack);
        if let Some(rate) = ack.rate {
            self.update_bandwidth(&rate);
            if is_round_start {
                self.check_full_pipe(&rate);
            }
        }
        self.update_ceiling(ack, is_round_start);
        self.update_cycle(ack);
        if self.is_pipe_full && self.mode == Mode::Startup {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && ack.in_flight <= self.target(1.0) {
            self.enter_probe_bandwidth(ack.now);
        }
        self.update_min_rtt(ack, is_round_start);
        self.pacing_gain = match self.mode {
            Mode::Startup => HIGH_GAIN,
            Mode::Drain => DRAIN_GAIN,
            Mode::ProbeBandwidth => CYCLE[self.phase],
            Mode::ProbeRtt { .. } => 1.0,
        };
        self.update_window(ack);
    }

    const fn update_round(&mut self, ack: &Ack) -> bool {
        match ack.rate {
            Some(rate) if rate.prior_delivered >= self.round_end => {
                self.round_end = ack.total_delivered;
                self.round += 1;
                true
            }
            _ => false,
        }
    }

    fn update_bandwidth(&mut self, rate: &Rate) {
        if !rate.is_app_limited || rate.bytes_per_second >= self.bandwidth.max() {
            self.bandwidth.update(self.round, rate.bytes_per_second);
        }
    }

    fn check_full_pipe(&mut self, rate: &Rate) {
        if self.is_pipe_full || rate.is_app_limited {
            return;
        }
        let bandwidth = self.bandwidth.max();
        if bandwidth as f64 >= self.full_bandwidth as f64 * FULL_GROWTH {
            self.full_bandwidth = bandwidth;
            self.full_rounds = 0;
        } else {
            self.full_rounds += 1;
            self.is_pipe_full = self.full_rounds >= FULL_ROUNDS;
        }
    }

    fn update_ceiling(&mut self, ack: &Ack, is_round_start: bool) {
        self.loss.lost += ack.lost;
        self.loss.delivered += ack.delivered;
        self.loss.in_flight = self.loss.in_flight.max(ack.prior_in_flight);
        if !is_round_start {
            return;
        }
        let RoundLoss { lost, delivered, in_flight } = std::mem::take(&mut self.loss);
        let is_much = lost as f64 > (lost + delivered) as f64 * LOSS_THRESHOLD
            && lost >= LOST_SEGMENTS * self.mss;
        if is_much {
            self.is_pipe_full = true;
            let in_flight = in_flight.min(self.ceiling.unwrap_or(u64::MAX));
            let lowest = (self.target(1.0) as f64 * BETA) as u64;
            self.ceiling = Some(((in_flight as f64 * BETA) as u64).max(lowest));
        } else if let Some(ceiling) = self.ceiling {
            let raised = ceiling + (ceiling as f64 * CEILING_GROWTH) as u64;
            self.ceiling = (raised < self.target(WINDOW_GAIN)).then_some(raised);
        }
    }

    fn update_cycle(&mut self, ack: &Ack) {
        if self.mode != Mode::ProbeBandwidth {
            return;
        }
        let min_rtt = self.min_rtt.unwrap_or(Duration::MAX);
        let is_full_length = ack.now.since(self.phase_start) > min_rtt;
        let gain = CYCLE[self.phase];
        let is_over = if gain > 1.0 {
            // Until as much is in flight as it probes for, or something did not fit.
            is_full_length && (ack.lost > 0 || ack.prior_in_flight >= self.target(gain))
        } else if gain < 1.0 {
            is_full_length || ack.prior_in_flight <= self.target(1.0)
        } else {
            is_full_length
        };
        if is_over {
            self.phase = (self.phase + 1) % CYCLE.len();
            self.phase_start = ack.now;
        }
    }

    fn enter_probe_bandwidth(&mut self, now: Instant) {
        self.mode = Mode::ProbeBandwidth;
        // Anywhere but in the phase that drains: nothing has been queued for it.
        let phases = [0, 2, 3, 4, 5, 6, 7];
        self.phase = phases[self.salt as usize % phases.len()];
        self.phase_start = now;
    }

    fn update_min_rtt(&mut self, ack: &Ack, is_round_start: bool) {
        let is_old = self.min_rtt.is_some() && ack.now.since(self.min_rtt_at) > MIN_RTT_WINDOW;
        if let Some(rtt) = ack.rtt {
            if self.min_rtt.is_none_or(|min_rtt| rtt <= min_rtt) || is_old {
                self.min_rtt = Some(rtt);
                self.min_rtt_at = ack.now;
            }
            if is_old && !matches!(self.mode, Mode::ProbeRtt { .. }) {
                self.prior_window = self.window;
                self.mode = Mode::ProbeRtt { until: None };
            }
        }
        let Mode::ProbeRtt { until } = &mut self.mode else { return };
        match *until {
            None if ack.in_flight <= MIN_SEGMENTS * self.mss => {
                *until = Some(ack.now + PROBE_RTT);
                self.round_end = ack.total_delivered;
            }
            Some(end) if ack.now >= end && is_round_start => {
                self.min_rtt_at = ack.now;
                self.window = self.window.max(self.prior_window);
                if self.is_pipe_full {
                    self.enter_probe_bandwidth(ack.now);
                } else {
                    self.mode = Mode::Startup;
                }
            }
            _ => {}
        }
    }

    /// The bandwidth-delay product, `gain` times, in bytes.
    fn target(&self, gain: f64) -> u64 {
        let (Some(min_rtt), bandwidth @ 1..) = (self.min_rtt, self.bandwidth.max()) else {
            return INITIAL_SEGMENTS * self.mss;
        };
        ((bandwidth as f64 * min_rtt.as_secs_f64() * gain) as u64).max(MIN_SEGMENTS * self.mss)
    }

    /// What is on the way in bursts, and acknowledged in bursts, beyond the product.
    /// [LNX tcp_bbr.c:bbr_quantization_budget]
    fn headroom(&self) -> u64 {
        3 * (self.bandwidth.max() / 1000).clamp(2 * self.mss, 64 << 10)
    }

    fn update_window(&mut self, ack: &Ack) {
        let gain = if self.is_pipe_full { WINDOW_GAIN } else { HIGH_GAIN };
        let target = self.target(gain) + self.headroom();
        if self.is_pipe_full {
            self.window = (self.window + ack.delivered).min(target);
        } else if self.window < target || ack.total_delivered < INITIAL_SEGMENTS * self.mss {
            self.window += ack.delivered;
        }
        self.window = self.window.min(self.ceiling.unwrap_or(u64::MAX));
        self.window = self.window.max(MIN_SEGMENTS * self.mss);
        if matches!(self.mode, Mode::ProbeRtt { .. }) {
            self.window = MIN_SEGMENTS * self.mss;
        }
    }

    /// Loss alone is none of its matters: `update_ceiling` looks at how much there is. After a
    /// timeout nothing is known to be on the way, and the window grows again with what is delivered.
    pub fn on_timeout(&mut self, in_flight: u64) {
        if !matches!(self.mode, Mode::ProbeRtt { .. }) {
            self.prior_window = self.window;
        }
        self.window = in_flight.max(MIN_SEGMENTS * self.mss).min(self.window);
        self.full_bandwidth = 0;
        self.full_rounds = 0;
    }

    pub fn on_recovered(&mut self) {
        if !matches!(self.mode, Mode::ProbeRtt { .. }) {
            self.window = self.window.max(self.prior_window);
        }
    }

    /// After idleness at the rate of the path, with no more behind it.
    pub const fn on_restart(&mut self) {
        if matches!(self.mode, Mode::ProbeBandwidth) {
            self.pacing_gain = 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bandwidth_is_the_maximum_of_the_last_ten_rounds() {
        // Against the list of all: the filter may only ever err towards a later maximum.
        let mut filter = MaxFilter::default();
        let mut all: Vec<u64> = Vec::new();
        let mut random = 1_u32;
        for round in 0..3000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = 1 + u64::from(random >> 22);
            all.push(value);
            filter.update(round, value);
            let window = &all[all.len().saturating_sub(11)..];
            let max = *window.iter().max().unwrap();
            assert!(filter.max() <= max, "round {round}: {} is not in {window:?}", filter.max());
            assert!(window.contains(&filter.max()));
            assert!(filter.max() >= value);
        }
    }
}
