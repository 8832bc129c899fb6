//! Paths by name: what lies between two hosts, each direction alike. docs/bench.md has the source of
//! every number.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a path does to packets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// One way.
    pub delay_ms: f64,
    /// Each packet is delayed by up to so much more; the order of a flow stays.
    pub jitter_ms: f64,
    pub loss_percent: f64,
    /// The mean length of a run of lost packets; 1 leaves it to chance.
    pub loss_burst: f64,
    /// These overtake: they are spared the delay.
    pub reorder_percent: f64,
    pub duplicate_percent: f64,
    /// Of all together.
    pub rate_mbit: Option<f64>,
    /// Of each flow: addresses, protocol and ports.
    pub flow_mbit: Option<f64>,
    /// Waits for the rate at most.
    pub queue_kb: f64,
    /// Bytes, at both ends.
    pub mtu: u32,
    pub fragments: Fragments,
    /// The same seed gives each packet the same fate.
    pub seed: u64,
}

/// What becomes of fragments of IPv4 packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fragments {
    Pass,
    /// One that is not the next of its packet is dropped.
    InOrder,
    Drop,
}

impl Default for Profile {
    /// A path that does nothing.
    fn default() -> Self {
        Self {
            delay_ms: 0.0,
            jitter_ms: 0.0,
            loss_percent: 0.0,
            loss_burst: 1.0,
            reorder_percent: 0.0,
            duplicate_percent: 0.0,
            rate_mbit: None,
            flow_mbit: None,
            queue_kb: 4000.0,
            mtu: 1500,
            fragments: Fragments::Pass,
            seed: 1,
        }
    }
}

/// The names of the built-in profiles.
pub const NAMES: [&str; 6] = ["aws", "gcp", "azure", "wan20", "wan80", "lossy"];

/// One way from Stockholm to Oslo: half of a round trip of 15 ms.
const STOCKHOLM_OSLO_MS: f64 = 7.5;

impl Profile {
    /// A built-in profile, or one from a JSON file with some of the fields; behind a name, fields may
    /// be given other values: `wan20,loss_percent=1`.
    ///
    /// # Errors
    /// Neither a name nor a file, or what is wrong in it.
    pub fn load(name: &str) -> Result<Self, String> {
        let mut parts = name.split(',');
        let profile = match parts.next().and_then(Self::named) {
            Some(named) => parts.try_fold(named, Self::with),
            None => fs::read_to_string(Path::new(name))
                .map_err(|error| {
                    format!("`{name}` is none of {}, and as a file: {error}", NAMES.join(", "))
                })
                .and_then(|text| {
                    serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))
                }),
        }?;
        profile.check().map_err(|fault| format!("{name}: {fault}"))?;
        Ok(profile)
    }

    /// With another value for one field, as in `loss_percent=1`.
    fn with(self, change: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{change}`: {why}; it must be FIELD=VALUE");
        let (field, value) = change.split_once('=').ok_or_else(|| wrong("no `=` in it"))?;
        // What is no number is a word.
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        let mut all = serde_json::to_value(self).map_err(|error| wrong(&error.to_string()))?;
        all[field] = value;
        serde_json::from_value(all).map_err(|error| wrong(&error.to_string()))
    }

    fn named(name: &str) -> Option<Self> {
        let near = Self { delay_ms: STOCKHOLM_OSLO_MS, jitter_ms: 0.2, ..Self::default() };
        Some(match name {
            "aws" => Self { flow_mbit: Some(5000.0), ..near },
            "gcp" => Self { mtu: 1460, ..near },
            "azure" => Self { mtu: 1400, fragments: Fragments::InOrder, ..near },
            "wan20" => Self {
                delay_ms: 10.0,
                jitter_ms: 0.0,
                rate_mbit: Some(417.6),
                queue_kb: 1500.0,
                ..near
            },
            "wan80" => Self { delay_ms: 40.0, jitter_ms: 0.5, rate_mbit: Some(1000.0), ..near },
            "lossy" => Self {
                delay_ms: 25.0,
                jitter_ms: 5.0,
                loss_percent: 1.0,
                loss_burst: 2.0,
                reorder_percent: 0.5,
                duplicate_percent: 0.1,
                rate_mbit: Some(100.0),
                queue_kb: 1000.0,
                ..near
            },
            _ => return None,
        })
    }

    fn check(&self) -> Result<(), String> {
        let between = |name: &str, value: f64, least: f64, most: f64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(format!("{name} is {value}; it can be {least} to {most}"))
        };
        between("delay_ms", self.delay_ms, 0.0, 10_000.0)?;
        between("jitter_ms", self.jitter_ms, 0.0, 10_000.0)?;
        between("loss_percent", self.loss_percent, 0.0, 90.0)?;
        between("loss_burst", self.loss_burst, 1.0, 1000.0)?;
        between("reorder_percent", self.reorder_percent, 0.0, 100.0)?;
        between("duplicate_percent", self.duplicate_percent, 0.0, 100.0)?;
        between("queue_kb", self.queue_kb, 1.0, 1e6)?;
        for (name, rate) in [("rate_mbit", self.rate_mbit), ("flow_mbit", self.flow_mbit)] {
            rate.map_or(Ok(()), |rate| between(name, rate, 0.01, 1e6))?;
        }
        between("mtu", self.mtu.into(), 656.0, 9000.0)
    }

    /// There and back, at most.
    pub fn round_trip(&self) -> Duration {
        Duration::from_secs_f64((self.delay_ms + self.jitter_ms) * 2.0 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_profile_can_be_had_and_is_explained() {
        let document = include_str!("../../../docs/bench.md");
        for name in NAMES {
            let profile = Profile::load(name).unwrap();
            assert_eq!(profile.check(), Ok(()), "{name}");
            assert!(document.contains(&format!("| `{name}` |")), "docs/bench.md lacks {name}");
        }
        assert_eq!(Profile::load("gcp").unwrap().mtu, 1460);
        assert_eq!(Profile::load("azure").unwrap().fragments, Fragments::InOrder);
        assert_eq!(Profile::load("aws").unwrap().round_trip(), Duration::from_micros(15_400));
    }

    fn wan20() -> Profile {
        Profile::named("wan20").unwrap()
    }

    #[test]
    fn a_file_gives_some_fields_and_says_what_is_wrong_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.json");
        let load = |text: &str| {
            fs::write(&path, text).unwrap();
            Profile::load(path.to_str().unwrap())
        };
        let profile = load(r#"{"delay_ms": 5, "fragments": "drop"}"#).unwrap();
        assert_eq!((profile.delay_ms, profile.mtu), (5.0, 1500));
        assert!(load(r#"{"dely_ms": 5}"#).unwrap_err().contains("dely_ms"));
        assert!(load(r#"{"loss_percent": 95}"#).unwrap_err().contains("it can be 0 to 90"));
        let changed = Profile::load("wan20,loss_percent=0.1,fragments=drop").unwrap();
        let expected = Profile { loss_percent: 0.1, fragments: Fragments::Drop, ..wan20() };
        assert_eq!(changed, expected);
        for (change, fault) in [
            ("loss_percent", "no `=` in it"),
            ("los=1", "unknown field"),
            ("mtu=soon", "must be FIELD=VALUE"),
            ("mtu=99999", "it can be 656 to 9000"),
        ] {
            let told = Profile::load(&format!("wan20,{change}")).unwrap_err();
            assert!(told.contains(fault), "{change}: {told}");
        }
        assert!(Profile::load("nowhere").unwrap_err().contains("none of aws, gcp"));
    }
}
