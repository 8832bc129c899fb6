//! Losses: when they are believed, how fast they are mended, and what if they were none.
//!
//! ```text
//!          a loss is found           everything sent before it is acknowledged
//! Open ───────────────────▶ Repair ───────────────────────────────────────────▶ Open
//!   │                         │   └──── the first copy had arrived: undo ──────▶ Open
//!   │      timeout            ▼
//!   └─────────────────────▶ Timeout ─── as from Repair ────────────────────────▶ Open
//! ```
//!
//! What is lost is RACK's to say [RFC 8985 §6], with a window for reordering that adapts; Repair
//! sends by proportional rate reduction [RFC 9937]; a loss that was none is found by timestamps
//! [RFC 3522], by what was delivered after a timeout without having been sent again [RFC 5682], or by
//! DSACKs of everything that was [RFC 3708].

use std::time::Duration;

use super::rtt::Rtt;
use crate::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Open,
    Repair,
    Timeout,
}

/// How long to wait for what may only be late. [RFC 8985 §6.2 step 4]
#[derive(Clone, Copy, Debug)]
pub struct ReorderWindow {
    /// Something did come late.
    is_seen: bool,
    /// In quarters of the shortest round trip.
    quarters: u32,
    /// Recoveries until it is forgotten that DSACKs made it larger.
    persistence: u8,
    /// Another DSACK counts when this position is acknowledged.
    next_dsack: u64,
}

const PERSISTENCE: u8 = 16;

/// So many segments beyond a gap are proof enough while nothing was reordered. [RFC 8985 §3.3.1]
const DUPLICATE_THRESHOLD: u64 = 3;

impl ReorderWindow {
    pub const fn new() -> Self {
        Self { is_seen: false, quarters: 1, persistence: 0, next_dsack: 0 }
    }

    pub const fn on_reordering(&mut self) {
        self.is_seen = true;
    }

    /// A loss was none: wait longer, once a round trip.
    pub const fn on_dsack(&mut self, acknowledged: u64, next: u64) {
        if acknowledged >= self.next_dsack {
            self.next_dsack = next;
            self.quarters = if self.quarters < 64 { self.quarters + 1 } else { 64 };
            self.persistence = PERSISTENCE;
            self.is_seen = true;
        }
    }

    pub const fn on_recovered(&mut self) {
        self.persistence = self.persistence.saturating_sub(1);
        if self.persistence == 0 {
            self.quarters = 1;
        }
    }

    /// `sacked`: bytes that have arrived beyond a gap.
    pub fn get(&self, rtt: &Rtt, phase: Phase, sacked: u64, mss: u64) -> Duration {
        if !self.is_seen && (phase != Phase::Open || sacked >= DUPLICATE_THRESHOLD * mss) {
            return Duration::ZERO;
        }
        let Some(smoothed) = rtt.smoothed() else { return Duration::ZERO };
        rtt.lowest().min(smoothed).saturating_mul(self.quarters).div_f64(4.0).min(smoothed)
    }
}

/// Proportional rate reduction: by the end of a recovery as much is in flight as the congestion
/// control says, and on the way there something is sent for each that arrives. [RFC 9937 §6]
#[derive(Clone, Copy, Debug, Default)]
pub struct Prr {
    /// What was in flight when it began, in bytes.
    flight: u64,
    delivered: u64,
    sent: u64,
    /// What may be sent until the next acknowledgment.
    quota: u64,
}

impl Prr {
    /// `flight`: what was outstanding and not SACKed. What is sent first must be let out at once.
    pub const fn new(flight: u64, mss: u64) -> Self {
        Self { flight: if flight == 0 { 1 } else { flight }, delivered: 0, sent: 0, quota: mss }
    }

    /// `is_safe`: the acknowledgment moved on, and no more loss was found.
    pub fn on_ack(
        &mut self,
        delivered: u64,
        in_flight: u64,
        threshold: u64,
        mss: u64,
        is_safe: bool,
    ) {
        self.delivered += delivered;
        let wanted = if in_flight > threshold {
            let share = (u128::from(self.delivered) * u128::from(threshold))
                .div_ceil(u128::from(self.flight));
            u64::try_from(share).unwrap_or(u64::MAX).saturating_sub(self.sent)
        } else {
            let owed = self.delivered.saturating_sub(self.sent).max(delivered);
            (owed + if is_safe { mss } else { 0 }).min(threshold - in_flight)
        };
        // The first segment is always sent. [RFC 9937 §6]
        self.quota = if self.sent == 0 { wanted.max(mss) } else { wanted };
    }

    pub const fn on_sent(&mut self, bytes: u64) {
        self.sent += bytes;
        self.quota = self.quota.saturating_sub(bytes);
    }

    pub const fn quota(&self) -> u64 {
        self.quota
    }
}

/// What has to be known to take a recovery back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Undo {
    /// When something was first sent again.
    pub first_retransmitted_at: Option<Instant>,
    /// What was sent again and did not prove to have been needless. Bytes.
    pub needed: u64,
}

/// A probe for a loss at the tail. [RFC 8985 §7]
#[derive(Clone, Copy, Debug)]
pub struct TailProbe {
    /// It is over when this position is acknowledged.
    pub end: u64,
    pub is_retransmission: bool,
}

/// Where a connection is with its losses.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    pub phase: Phase,
    /// The recovery is over when this position is acknowledged: what had been sent when it began.
    pub point: u64,
    /// The transmission that came first after the timeout.
    pub first_after_timeout: u64,
    pub prr: Prr,
    pub undo: Option<Undo>,
    pub reordering: ReorderWindow,
    pub tail_probe: Option<TailProbe>,
    /// Acknowledgments that said nothing new, for those who have no SACK. [RFC 5681 §3.2]
    pub duplicates: u64,
}

impl Recovery {
    pub const fn new() -> Self {
        Self {
            phase: Phase::Open,
            point: 0,
            first_after_timeout: 0,
            prr: Prr { flight: 1, delivered: 0, sent: 0, quota: 0 },
            undo: None,
            reordering: ReorderWindow::new(),
            tail_probe: None,
            duplicates: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_sends_in_proportion_and_ends_at_the_threshold() {
        // Of 100 segments one is lost; the window is to become 70.
        let mut prr = Prr::new(100_000, 1000);
        let (mut in_flight, mut sent) = (99_000_u64, 0);
        prr.on_sent(1000);
        in_flight += 1000;
        for _ in 0..99 {
            in_flight -= 1000;
            prr.on_ack(1000, in_flight, 70_000, 1000, false);
            let segments = prr.quota() / 1000;
            prr.on_sent(segments * 1000);
            in_flight += segments * 1000;
            sent += segments;
        }
        assert!((67..=70).contains(&sent), "{sent}");
        assert!((69_000..=71_000).contains(&in_flight), "{in_flight}");
    }

    #[test]
    fn after_a_burst_of_losses_the_pipe_fills_no_faster_than_in_slow_start() {
        let mut prr = Prr::new(100_000, 1000);
        prr.on_ack(1000, 10_000, 70_000, 1000, false);
        assert_eq!(prr.quota(), 1000, "conservation while losses are found");
        prr.on_sent(1000);
        prr.on_ack(1000, 10_000, 70_000, 1000, true);
        assert_eq!(prr.quota(), 2000);
        prr.on_ack(50_000, 69_500, 70_000, 1000, true);
        assert_eq!(prr.quota(), 500, "never beyond the threshold");
    }

    #[test]
    fn the_reordering_window_opens_when_something_is_late_and_grows_with_dsacks() {
        let mut rtt = Rtt::new();
        let millis = Duration::from_millis;
        rtt.on_sample(Instant::ZERO, millis(40));
        let mut window = ReorderWindow::new();
        assert_eq!(window.get(&rtt, Phase::Open, 2999, 1000), millis(10));
        assert_eq!(window.get(&rtt, Phase::Open, 3000, 1000), Duration::ZERO);
        assert_eq!(window.get(&rtt, Phase::Repair, 0, 1000), Duration::ZERO);
        window.on_reordering();
        assert_eq!(window.get(&rtt, Phase::Repair, 3000, 1000), millis(10));
        window.on_dsack(100, 200);
        window.on_dsack(150, 250);
        assert_eq!(window.get(&rtt, Phase::Repair, 0, 1000), millis(20), "once a round trip");
        (0..90).for_each(|n| window.on_dsack(200 + n * 100, 300 + n * 100));
        assert_eq!(window.get(&rtt, Phase::Repair, 0, 1000), millis(40), "a round trip at most");
        (0..16).for_each(|_| window.on_recovered());
        assert_eq!(window.get(&rtt, Phase::Repair, 0, 1000), millis(10));
    }
}
