//! A new run beside an old one: what became worse, as far as the samples allow to say.
//!
//! The runs have nothing to do with each other, so that all of both is resampled. Worse is only what
//! is worse with its whole interval, and by more than the tolerance: a machine is not the same on
//! two days.

use super::metric::{METRICS, digits};
use super::report::Report;
use super::stats::{self, Better, Summary};

/// One metric of one participant in both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub participant: String,
    pub label: &'static str,
    pub unit: &'static str,
    pub old: f64,
    pub new: f64,
    /// New to old.
    pub ratio: Summary,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Better,
    Worse,
    /// Within the tolerance, or the samples do not tell.
    Same,
}

/// Everything that both have. `tolerance` is a share, 0.05 for five percent.
pub fn changes(new: &Report, old: &Report, tolerance: f64) -> Vec<Change> {
    let mut changes = Vec::new();
    for participant in &new.participants {
        for metric in METRICS {
            let values = |report: &Report| {
                let values = report.values(metric.key, &participant.name);
                values.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
            };
            let (ours, theirs) = (values(new), values(old));
            let medians = (Summary::of(&ours), Summary::of(&theirs));
            let (Some(ratio), (Some(now), Some(then))) =
                (stats::unpaired_ratio(&ours, &theirs), medians)
            else {
                continue;
            };
            changes.push(Change {
                participant: participant.name.clone(),
                label: metric.label,
                unit: metric.unit,
                old: then.median,
                new: now.median,
                kind: kind(&ratio, metric.better, tolerance),
                ratio,
            });
        }
    }
    changes
}

fn kind(ratio: &Summary, better: Better, tolerance: f64) -> Kind {
    let (up, down) = match better {
        Better::More => (Kind::Better, Kind::Worse),
        Better::Less => (Kind::Worse, Kind::Better),
        Better::Neither => return Kind::Same,
    };
    // One sample of either tells nothing of how both vary.
    if ratio.count < LEAST_ROUNDS {
        Kind::Same
    } else if ratio.low > 1.0 && ratio.median > 1.0 + tolerance {
        up
    } else if ratio.high < 1.0 && ratio.median < 1.0 - tolerance {
        down
    } else {
        Kind::Same
    }
}

/// What makes two runs hard to compare.
pub fn differences(new: &Report, old: &Report) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, new: String, old: String| {
        if new != old {
            found.push(format!("{what}: {new}, before {old}"));
        }
    };
    compare("processor", new.machine.cpu.clone(), old.machine.cpu.clone());
    compare("cores", new.machine.cores.to_string(), old.machine.cores.to_string());
    compare("kernel", new.machine.kernel.clone(), old.machine.kernel.clone());
    let (ours, theirs) = (&new.conditions, &old.conditions);
    compare("path", ours.path.clone(), theirs.path.clone());
    compare("tunnel MTU", ours.tunnel_mtu.to_string(), theirs.tunnel_mtu.to_string());
    compare("streams", ours.streams.to_string(), theirs.streams.to_string());
    compare("quick", ours.quick.to_string(), theirs.quick.to_string());
    found
}

/// What became better or worse, and the whole in one line.
pub fn render(changes: &[Change]) -> String {
    let mut text = String::new();
    for change in changes.iter().filter(|change| change.kind != Kind::Same) {
        let word = if change.kind == Kind::Worse { "WORSE " } else { "better" };
        text.push_str(&format!(
            "{word}  {}: {}, {} after {} {} ({:.2}, {:.2}–{:.2})\n",
            change.participant,
            change.label,
            digits(change.new),
            digits(change.old),
            change.unit,
            change.ratio.median,
            change.ratio.low,
            change.ratio.high
        ));
    }
    let count = |kind| changes.iter().filter(|change| change.kind == kind).count();
    text.push_str(&format!(
        "{} worse, {} better, {} the same or too noisy to tell\n",
        count(Kind::Worse),
        count(Kind::Better),
        count(Kind::Same)
    ));
    text
}

/// Rounds of either run below which nothing is called better or worse.
const LEAST_ROUNDS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::testing;

    /// The same run with one metric of ours multiplied.
    fn with(metric: &str, factor: f64) -> Report {
        let mut report = testing::report();
        for sample in report.samples.iter_mut().filter(|one| one.participant == "hybridwg") {
            if let Some(value) = sample.metrics.get_mut(metric) {
                *value *= factor;
            }
        }
        report
    }

    fn kinds(new: &Report, tolerance: f64) -> (usize, usize) {
        let changes = changes(new, &testing::report(), tolerance);
        let count = |kind| changes.iter().filter(|change| change.kind == kind).count();
        (count(Kind::Worse), count(Kind::Better))
    }

    #[test]
    fn the_same_run_has_neither_worse_nor_better() {
        assert_eq!(kinds(&testing::report(), 0.0), (0, 0));
    }

    #[test]
    fn slower_is_worse_and_so_is_more_of_what_shall_be_little() {
        assert_eq!(kinds(&with("tcp_1", 0.7), 0.05), (1, 0));
        assert_eq!(kinds(&with("tcp_1", 1.3), 0.05), (0, 1));
        assert_eq!(kinds(&with("idle_p50", 1.3), 0.05), (1, 0));
        assert_eq!(kinds(&with("tcp_1_cpu", 0.7), 0.05), (0, 1));
    }

    #[test]
    fn what_lies_within_the_tolerance_is_the_same() {
        assert_eq!(kinds(&with("tcp_1", 0.85), 0.05), (1, 0));
        assert_eq!(kinds(&with("tcp_1", 0.85), 0.20), (0, 0));
    }

    #[test]
    fn one_round_alone_is_never_worse() {
        let mut new = with("tcp_1", 0.1);
        new.samples.retain(|sample| sample.round == 0);
        assert_eq!(kinds(&new, 0.05), (0, 0));
    }

    #[test]
    fn another_machine_is_told() {
        let mut new = testing::report();
        assert_eq!(differences(&new, &testing::report()), Vec::<String>::new());
        new.machine.cores = 64;
        assert_eq!(differences(&new, &testing::report()), ["cores: 64, before 2"]);
    }

    #[test]
    fn what_changed_has_a_line_and_all_are_counted() {
        let text = render(&changes(&with("tcp_1", 0.5), &testing::report(), 0.05));
        assert!(text.contains("WORSE   hybridwg: TCP, 1 stream, 2.05 after 4.10 Gbit/s"), "{text}");
        assert!(text.contains("1 worse, 0 better, "), "{text}");
    }
}
