//! The result of a run as data: what `--json` writes, `--compare` reads, and tables and charts are
//! made of. docs/bench.md describes each field.
//!
//! A field may be added within a schema; none changes its meaning or goes. No folder of the machine
//! is in it, so that a result can be given to others as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::latencies::Latencies;
use super::machine::Machine;
use super::metric::{Group, METRICS, Metric};
use super::path::Profile;
use super::stats::{self, Summary, Verdict};

/// The name and version of the schema.
pub const SCHEMA: &str = "hybridwg-bench/1";

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub schema: String,
    /// Of the program that measured.
    pub version: String,
    /// In UTC, as 2026-11-24T15:00:00Z.
    pub date: String,
    pub command: String,
    pub machine: Machine,
    pub conditions: Conditions,
    pub participants: Vec<Participant>,
    /// In the order in which they were taken.
    pub samples: Vec<Sample>,
    /// Of all rounds together, by participant, then `idle` or `loaded`.
    pub latencies: BTreeMap<String, BTreeMap<String, Latencies>>,
    /// Follows from the samples: for readers that do not want to compute it.
    pub summaries: Vec<Line>,
}

/// What everybody was measured under.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    pub rounds: u32,
    /// `whole` or `cut` for a wire, else the name of an emulated path.
    pub path: String,
    /// What an emulated path did to packets.
    #[serde(default)]
    pub profile: Option<Profile>,
    pub tunnel_mtu: u32,
    pub wire_mtu: u32,
    /// How many "several" are.
    pub streams: usize,
    /// Seconds that streams are counted.
    pub tcp_seconds: f64,
    /// How the kernel's TCP streams avoided congestion, by the kernel's name; `None` in results of
    /// before 2026-11-29, which do not tell.
    #[serde(default)]
    pub congestion: Option<String>,
    pub quick: bool,
}

impl Conditions {
    pub fn congestion(&self) -> &str {
        self.congestion.as_deref().unwrap_or("unknown")
    }
}

/// One that took part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    pub name: String,
    /// Nothing for the kernel and for the path without a tunnel.
    pub command: Option<String>,
}

/// One group of measurements on one tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub participant: String,
    pub group: Group,
    pub round: u32,
    pub seconds: f64,
    /// What others used of all processors just before and just after, the larger.
    pub others_busy_percent: f64,
    /// What the hypervisor gave to others meanwhile.
    pub steal_percent: f64,
    pub megahertz: Option<f64>,
    /// Others used too much. The sample counts all the same.
    pub noisy: bool,
    pub metrics: BTreeMap<String, f64>,
    /// Throughput in Gbit/s, a value for each 100 ms.
    pub series: BTreeMap<String, Vec<f64>>,
    /// Why something is missing.
    pub errors: BTreeMap<String, String>,
}

/// One metric of one participant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub participant: String,
    pub metric: String,
    pub unit: String,
    pub summary: Summary,
    /// Of the first participant to this one, round by round.
    pub ratio: Option<Ratio>,
}

/// How the first participant does beside another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub summary: Summary,
    pub verdict: Option<Verdict>,
}

impl Report {
    /// Computes what follows from the samples.
    pub fn summarize(&mut self) {
        let mut lines = Vec::new();
        for metric in METRICS {
            for participant in &self.participants {
                lines.extend(self.line(metric, &participant.name));
            }
        }
        self.summaries = lines;
    }

    fn line(&self, metric: &Metric, participant: &str) -> Option<Line> {
        let theirs = self.values(metric.key, participant);
        let numbers: Vec<f64> = theirs.iter().map(|(_, value)| *value).collect();
        let ours = self.participants.first().filter(|first| first.name != participant);
        let ratio = ours.and_then(|ours| {
            let summary = stats::paired_ratios(&self.values(metric.key, &ours.name), &theirs)?;
            Some(Ratio { verdict: Verdict::of(&summary, metric.better), summary })
        });
        Some(Line {
            participant: participant.to_owned(),
            metric: metric.key.to_owned(),
            unit: metric.unit.to_owned(),
            summary: Summary::of(&numbers)?,
            ratio,
        })
    }

    /// One metric of one participant, by round: the median where every group has measured it.
    pub fn values(&self, metric: &str, participant: &str) -> Vec<(u32, f64)> {
        let mut rounds: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.participant == participant) {
            if let Some(&value) = sample.metrics.get(metric) {
                rounds.entry(sample.round).or_default().push(value);
            }
        }
        let median = |(round, values): (u32, Vec<f64>)| Some((round, Summary::of(&values)?.median));
        rounds.into_iter().filter_map(median).collect()
    }

    pub fn summary(&self, metric: &str, participant: &str) -> Option<&Line> {
        self.summaries.iter().find(|line| line.metric == metric && line.participant == participant)
    }
}

/// Seconds since 1970 as a date and time in UTC. [RFC 3339]
pub fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut day) = (1970, days);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let length = |year| if is_leap(year) { 366 } else { 365 };
    while day >= length(year) {
        day -= length(year);
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{:02}Z", day + 1, second % 60)
}

#[cfg(test)]
pub mod testing {
    //! A report that never was, for the tests of whatever shows one.

    use super::*;

    /// Of two programs and the plain path over six rounds; ours is twice as fast as the other.
    pub fn report() -> Report {
        let names = ["hybridwg", "other", "plain"];
        let participants = names.map(|name| Participant {
            name: name.to_owned(),
            command: (name != "plain").then(|| format!("{name} -f {{tun}}")),
        });
        let mut samples = Vec::new();
        for round in 0..6 {
            for (name, speed) in names.into_iter().zip([4.0, 2.0, 20.0]) {
                samples.push(sample(name, round, speed * (1.0 + f64::from(round) * 0.01)));
            }
        }
        let mut times = Latencies::default();
        for micros in 30..90 {
            times.record(std::time::Duration::from_micros(micros));
        }
        let by_load =
            BTreeMap::from([("idle".to_owned(), times.clone()), ("loaded".to_owned(), times)]);
        let latencies = names.map(|name| (name.to_owned(), by_load.clone())).into_iter().collect();
        let mut report = Report {
            schema: SCHEMA.to_owned(),
            version: "0.0.0".to_owned(),
            date: date(0),
            command: "hybridwg bench tunnel".to_owned(),
            machine: Machine { cpu: "A <processor>".to_owned(), cores: 2, ..Machine::default() },
            conditions: Conditions {
                rounds: 6,
                path: "whole".to_owned(),
                profile: Some(Profile::default()),
                tunnel_mtu: 1420,
                wire_mtu: 1500,
                streams: 4,
                tcp_seconds: 3.0,
                congestion: Some("cubic".to_owned()),
                quick: false,
            },
            participants: participants.to_vec(),
            samples,
            latencies,
            summaries: Vec::new(),
        };
        report.summarize();
        report
    }

    /// The names of all fields in a document.
    pub fn collect_names(value: &serde_json::Value, names: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    names.push(name.clone());
                    collect_names(value, names);
                }
            }
            serde_json::Value::Array(items) => {
                items.iter().for_each(|item| collect_names(item, names))
            }
            _ => {}
        }
    }

    fn sample(name: &str, round: u32, speed: f64) -> Sample {
        let mut metrics = BTreeMap::from([
            ("tcp_1".to_owned(), speed),
            ("tcp_n".to_owned(), speed * 1.1),
            ("udp_64".to_owned(), speed * 100_000.0),
            ("idle_p50".to_owned(), 200.0 / speed),
        ]);
        if name != "plain" {
            metrics.insert("tcp_1_cpu".to_owned(), 10.0 / speed);
            metrics.insert("memory_peak".to_owned(), 10.0);
        }
        Sample {
            participant: name.to_owned(),
            group: Group::Tcp,
            round,
            seconds: 10.0,
            others_busy_percent: 1.0,
            steal_percent: 0.0,
            megahertz: Some(2300.0),
            noisy: round == 3,
            metrics,
            series: BTreeMap::from([("tcp_1".to_owned(), vec![speed; 30])]),
            errors: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::collect_names;
    use super::*;

    #[test]
    fn a_date_is_what_the_calendar_says() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_799, "2024-02-28T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn the_first_participant_is_compared_with_each_other_by_round() {
        let report = testing::report();
        let line = report.summary("tcp_1", "other").unwrap();
        let ratio = line.ratio.as_ref().unwrap();
        assert!((ratio.summary.median - 2.0).abs() < 1e-9);
        assert_eq!(ratio.verdict, Some(Verdict::Better));
        let plain = report.summary("tcp_1", "plain").unwrap().ratio.as_ref().unwrap();
        assert_eq!(plain.verdict, Some(Verdict::Worse));
        assert_eq!(report.summary("tcp_1", "hybridwg").unwrap().ratio, None);
        assert_eq!(report.summary("tcp_1_cpu", "plain"), None);
    }

    #[test]
    fn what_is_measured_several_times_a_round_counts_with_all_of_them() {
        let mut report = testing::report();
        let again = report.samples[0].clone();
        for value in [9.0, 100.0] {
            let mut again = again.clone();
            again.metrics.insert("tcp_1".to_owned(), value);
            report.samples.push(again);
        }
        assert_eq!(report.values("tcp_1", "hybridwg")[0], (0, 9.0));
    }

    #[test]
    fn a_report_survives_json() {
        let report = testing::report();
        let text = serde_json::to_string(&report).unwrap();
        assert!(serde_json::from_str::<Report>(&text).unwrap() == report, "{text:.200}");
    }

    #[test]
    fn results_that_are_kept_can_be_read() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
        assert!(!files.is_empty());
        for file in files {
            let text = std::fs::read_to_string(file.path()).unwrap();
            let report: Result<Report, _> = serde_json::from_str(&text);
            assert!(report.is_ok(), "{:?}: {report:?}", file.path());
        }
    }

    #[test]
    fn every_field_of_the_schema_is_described() {
        let document = include_str!("../../docs/bench.md");
        let value = serde_json::to_value(testing::report()).unwrap();
        let mut names = Vec::new();
        collect_names(&value, &mut names);
        for metric in METRICS {
            names.push(metric.key.to_owned());
        }
        // Names that are data.
        names.retain(|name| !["hybridwg", "other", "plain"].contains(&name.as_str()));
        for name in names {
            let ways = [format!("`{name}`"), format!("[].{name}`")];
            let is_described = ways.iter().any(|way| document.contains(way));
            assert!(is_described, "docs/bench.md says nothing of `{name}`");
        }
    }
}
