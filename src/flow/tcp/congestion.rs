//! What a congestion control is told, and what it answers: how much may be on the way, and how fast
//! it may be sent. [RFC 5681] [RFC 9438]
//!
//! Which segments are lost, and what of them is sent again when, is not its matter (`recovery`).

use std::time::Duration;

use super::bbr::Bbr;
use super::cubic::Cubic;
use super::rtt::Rtt;
use crate::time::Instant;

/// How a connection shares a path with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Fills the queue until a packet is lost. [RFC 9438]
    #[default]
    Cubic,
    /// Measures the bandwidth, and yields to loss only when there is much.
    Bbr,
}

/// Segments that may be sent before anything is known. [RFC 6928]
pub const INITIAL_SEGMENTS: u64 = 10;

/// Rates are not kept to on paths that are shorter: a timer would take longer than they do.
const SHORTEST_PACED: Duration = Duration::from_millis(1);

/// How fast the path delivered what an acknowledgment was about.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Never zero.
    pub bytes_per_second: u64,
    /// What had been delivered when it was sent: tells rounds apart. Bytes.
    pub prior_delivered: u64,
    /// The application had no more to send, so that the path may be faster.
    pub is_app_limited: bool,
}

/// What an acknowledgment said. Amounts in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    pub now: Instant,
    /// What it newly delivered, in order or not.
    pub delivered: u64,
    /// All that was ever delivered.
    pub total_delivered: u64,
    /// What it showed to be lost.
    pub lost: u64,
    pub in_flight: u64,
    pub prior_in_flight: u64,
    /// Of the latest segment that it delivered.
    pub rtt: Option<Duration>,
    pub rate: Option<Rate>,
    /// Positions: what is acknowledged in order, and what is to be sent next.
    pub acknowledged: u64,
    pub next: u64,
    /// Losses of before are being mended.
    pub is_recovering: bool,
    /// The window has kept something from being sent within the last round trip.
    pub is_window_limited: bool,
}

/// The control of one connection.
#[derive(Debug)]
pub enum Congestion {
    Cubic(Cubic),
    Bbr(Box<Bbr>),
}

impl Congestion {
    /// `salt` makes connections that start together differ.
    pub fn new(algorithm: Algorithm, mss: u64, salt: u32) -> Self {
        match algorithm {
            Algorithm::Cubic => Self::Cubic(Cubic::new(mss)),
            Algorithm::Bbr => Self::Bbr(Box::new(Bbr::new(mss, salt))),
        }
    }

    /// Segments have another size from now on.
    pub const fn set_mss(&mut self, mss: u64) {
        match self {
            Self::Cubic(cubic) => cubic.set_mss(mss),
            Self::Bbr(bbr) => bbr.set_mss(mss),
        }
    }

    /// How much may be in flight, in bytes.
    pub fn window(&self) -> u64 {
        match self {
            Self::Cubic(cubic) => cubic.window(),
            Self::Bbr(bbr) => bbr.window(),
        }
    }

    /// To how much a recovery brings down what is in flight, in bytes; `None` if the window does.
    pub const fn threshold(&self) -> Option<u64> {
        match self {
            Self::Cubic(cubic) => Some(cubic.threshold()),
            Self::Bbr(_) => None,
        }
    }

    /// Bytes per second; `None`: as fast as they come.
    pub fn pacing_rate(&self, rtt: &Rtt) -> Option<u64> {
        let smoothed = rtt.smoothed().filter(|smoothed| *smoothed >= SHORTEST_PACED)?;
        Some(match self {
            Self::Cubic(cubic) => cubic.pacing_rate(smoothed),
            Self::Bbr(bbr) => bbr.pacing_rate(smoothed),
        })
    }

    pub fn on_ack(&mut self, ack: &Ack) {
        match self {
            Self::Cubic(cubic) => cubic.on_ack(ack),
            Self::Bbr(bbr) => bbr.on_ack(ack),
        }
    }

    /// The first loss since the last one's were mended.
    pub fn on_congestion(&mut self) {
        match self {
            Self::Cubic(cubic) => cubic.on_congestion(),
            Self::Bbr(_) => {}
        }
    }

    /// Everything counts as lost; `is_first`: for the first time in a row.
    pub fn on_timeout(&mut self, in_flight: u64, is_first: bool) {
        match self {
            Self::Cubic(cubic) => cubic.on_timeout(is_first),
            Self::Bbr(bbr) => bbr.on_timeout(in_flight),
        }
    }

    /// All losses are mended.
    pub fn on_recovered(&mut self) {
        match self {
            Self::Cubic(_) => {}
            Self::Bbr(bbr) => bbr.on_recovered(),
        }
    }

    /// The last loss was none.
    pub fn undo(&mut self) {
        match self {
            Self::Cubic(cubic) => cubic.undo(),
            Self::Bbr(bbr) => bbr.on_recovered(),
        }
    }

    /// Something is sent after nothing was on the way for `idle`. [RFC 5681 §4.1]
    pub fn on_restart(&mut self, now: Instant, idle: Duration, timeout: Duration) {
        match self {
            Self::Cubic(cubic) => cubic.on_restart(now, idle, timeout),
            Self::Bbr(bbr) => bbr.on_restart(),
        }
    }
}
