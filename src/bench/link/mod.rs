//! Measuring a live tunnel from one of its ends.
//!
//! [Round trips](round_trips), losses and the [longest packet](longest) take nothing at the other
//! end but an answer to ICMP echo requests. [Throughput](throughput) takes a [server](serve) of ours
//! there. Everything is bounded in rate and time, and both are known before anything is sent: a live
//! tunnel has other users.

pub mod longest;
pub mod protocol;
pub mod report;
pub mod round_trips;
pub mod serve;
pub mod target;
pub mod throughput;

use std::time::Duration;

/// Somebody who watches.
pub trait Watcher {
    /// What begins, and how long it takes.
    fn begins(&mut self, what: &str, takes: Duration);
    /// How much of that has passed, and what is known so far.
    fn goes_on(&mut self, passed: Duration, news: &str);
}
