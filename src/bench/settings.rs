//! How long and how often everything is done.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::topology::Wiring;

/// How senders of TCP avoid congestion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Congestion {
    Cubic,
    Bbr,
}

impl Congestion {
    /// As the kernel names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

/// The durations and sizes of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub wiring: Wiring,
    /// How many "several" are.
    pub streams: usize,
    /// Before anything of a stream counts.
    pub warm_up: Duration,
    /// That a stream is counted.
    pub tcp: Duration,
    /// Of each rate that is tried.
    pub udp: Duration,
    pub udp_steps: u32,
    /// The rate that is tried first, in packets a second.
    pub udp_start: f64,
    /// Of round trips at a steady pace: 1000 at least, or one of 1000 would be the longest of all.
    pub latency: Duration,
    /// Of the streams beside which round trips are taken, for seven tenths of it: 1000 as well.
    pub load: Duration,
    /// Of requests in a closed loop.
    pub requests: Duration,
    pub idle: Duration,
    /// How many peers begin one.
    pub handshakes: usize,
    /// Connections on which nothing passes.
    pub idle_connections: usize,
    /// SYN that another peer sends in a second.
    pub flood: f64,
    /// How the kernels' and our own TCP are to avoid congestion; `None` leaves it to them.
    pub congestion: Option<Congestion>,
    /// How long each measurement waits for others to leave the processors alone.
    pub patience: Duration,
}

impl Settings {
    /// For results to rely on.
    pub const fn full(wiring: Wiring, streams: usize) -> Self {
        Self {
            wiring,
            streams,
            warm_up: Duration::from_secs(1),
            tcp: Duration::from_secs(3),
            udp: Duration::from_millis(700),
            udp_steps: 8,
            udp_start: 50_000.0,
            latency: Duration::from_secs(4),
            load: Duration::from_secs(3),
            requests: Duration::from_secs(2),
            idle: Duration::from_millis(1500),
            handshakes: 2000,
            idle_connections: 10_000,
            flood: 10_000.0,
            congestion: None,
            patience: Duration::from_secs(30),
        }
    }

    /// For a first look, in a third of the time.
    #[must_use]
    pub const fn quick(self) -> Self {
        Self {
            warm_up: Duration::from_millis(300),
            tcp: Duration::from_millis(700),
            udp: Duration::from_millis(250),
            udp_steps: 6,
            latency: Duration::from_secs(2),
            requests: Duration::from_millis(400),
            idle: Duration::from_millis(300),
            handshakes: 500,
            idle_connections: 500,
            patience: Duration::from_secs(2),
            ..self
        }
    }

    /// From the first byte to the last, at most.
    pub fn streams_take(&self) -> Duration {
        self.warm_up + self.tcp.max(self.load)
    }
}
