//! How long each benchmark of functions takes: all of them together stay under 10 minutes.

use std::time::Duration;

use criterion::Criterion;

/// A second to warm up, three to measure.
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
}
