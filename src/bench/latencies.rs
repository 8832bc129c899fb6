//! Round-trip times as an HDR histogram: three digits over all of a second's range, in bounded
//! memory, and mergeable over rounds.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest time that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(60);
const DIGITS: u8 = 3;

/// A number of round-trip times. In JSON it is the list of its buckets, `[nanoseconds, count]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let longest = u64::try_from(LONGEST.as_nanos()).expect("a minute fits");
        Self(Histogram::new_with_max(longest, DIGITS).expect("bounds that the histogram takes"))
    }
}

impl Latencies {
    pub fn record(&mut self, time: Duration) {
        self.record_many(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), 1);
    }

    fn record_many(&mut self, nanos: u64, count: u64) {
        self.0.saturating_record_n(nanos, count);
    }

    pub fn merge(&mut self, other: &Self) {
        for (nanos, count) in other.buckets() {
            self.record_many(nanos, count);
        }
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Below or at which this share (0 to 1) of all times lies, in microseconds; `None` if there
    /// are none.
    pub fn micros(&self, share: f64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "three digits are known")]
        let micros = |nanos: u64| nanos as f64 / 1e3;
        (!self.0.is_empty()).then(|| micros(self.0.value_at_quantile(share)))
    }

    /// The buckets that are not empty, from the shortest time on: nanoseconds, count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
    }
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.buckets())
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut latencies = Self::default();
        for (nanos, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            latencies.record_many(nanos, count);
        }
        Ok(latencies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_three_digits() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.micros(0.5), None);
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        for (share, expected) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (0.999, 999.0)] {
            let found = latencies.micros(share).unwrap();
            assert!((found - expected).abs() <= expected / 1000.0 + 0.001, "{share}: {found}");
        }
    }

    #[test]
    fn a_histogram_survives_json_and_two_become_one() {
        let mut latencies = Latencies::default();
        for micros in [1, 5, 5, 70_000, 3_000_000] {
            latencies.record(Duration::from_micros(micros));
        }
        let text = serde_json::to_string(&latencies).unwrap();
        let read: Latencies = serde_json::from_str(&text).unwrap();
        assert_eq!(read, latencies);
        let mut both = latencies.clone();
        both.merge(&read);
        assert_eq!(both.count(), 10);
        assert_eq!(both.micros(1.0), latencies.micros(1.0));
    }

    #[test]
    fn what_took_longer_than_a_minute_counts_as_a_minute() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(1_000_000));
        assert!(latencies.micros(1.0).unwrap() >= 60e6);
        assert_eq!(latencies.count(), 1);
    }
}
