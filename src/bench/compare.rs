//! A new run beside an old one: what became worse, as far as the samples allow to say.
//!
//! The runs have nothing to do with each other, so that the ranks of all samples of both decide. And
//! so many metrics are looked at that some always look worse: worse is only what
//! [holds](stats::hold) among all of a participant's, and whose median differs by more than the
//! tolerance, since a machine is not the same on two days. What worked before and failed now is
//! worse, too.

use super::metric::{Group, METRICS, Metric, digits};
use super::report::{Report, Sample};
use super::stats::{self, Better, Summary};

/// What became of everything that both runs have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    pub changes: Vec<Change>,
    pub failures: Vec<Failure>,
}

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

/// What could be measured in the old run, and in no round of the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub participant: String,
    pub label: &'static str,
}

impl Comparison {
    /// `tolerance` is a share, 0.05 for five percent.
    pub fn of(new: &Report, old: &Report, tolerance: f64) -> Self {
        let mut comparison = Self::default();
        for participant in &new.participants {
            let name = &participant.name;
            comparison.changes.extend(changes(name, new, old, tolerance));
            let failed = METRICS.iter().filter(|metric| {
                was_tried(new, metric, name)
                    && numbers(new, metric, name).is_empty()
                    && !numbers(old, metric, name).is_empty()
            });
            let failed = failed.map(|m| Failure { participant: name.clone(), label: m.label });
            comparison.failures.extend(failed);
        }
        comparison
    }

    /// Whether something of this participant is.
    pub fn is_worse(&self, participant: &str) -> bool {
        let is_worse = |one: &Change| one.participant == participant && one.kind == Kind::Worse;
        self.changes.iter().any(is_worse)
            || self.failures.iter().any(|one| one.participant == participant)
    }

    /// What became better or worse, and the whole in one line.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for Failure { participant, label } in &self.failures {
            text.push_str(&format!("WORSE   {participant}: {label}, which failed\n"));
        }
        for change in self.changes.iter().filter(|change| change.kind != Kind::Same) {
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
        let count = |kind| self.changes.iter().filter(|change| change.kind == kind).count();
        text.push_str(&format!(
            "{} worse, {} better, {} the same or too noisy to tell\n",
            count(Kind::Worse) + self.failures.len(),
            count(Kind::Better),
            count(Kind::Same)
        ));
        text
    }
}

/// # Errors
/// There would be nothing to compare: the old run has nothing of the participant that decides, or
/// none of the groups.
pub fn check(old: &Report, participant: &str, groups: &[Group]) -> Result<(), String> {
    let mut theirs = old.samples.iter().filter(|sample| sample.participant == participant);
    if theirs.any(|sample| groups.contains(&sample.group) && !sample.metrics.is_empty()) {
        return Ok(());
    }
    let found = |of: fn(&Sample) -> &str| {
        let mut names: Vec<&str> = old.samples.iter().map(of).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    };
    Err(format!(
        "it has nothing of {participant} in what is to be measured; there are {}, measured in {}",
        found(|sample| &sample.participant),
        found(|sample| sample.group.name())
    ))
}

fn changes(name: &str, new: &Report, old: &Report, tolerance: f64) -> Vec<Change> {
    let numbers = METRICS.iter().map(|m| (m, numbers(new, m, name), numbers(old, m, name)));
    let both: Vec<_> =
        numbers.filter(|(_, now, then)| !now.is_empty() && !then.is_empty()).collect();
    let more = both.iter().map(|(_, now, then)| stats::chance_of_more(now, then));
    let more = stats::hold(&more.collect::<Vec<_>>());
    let less = both.iter().map(|(_, now, then)| stats::chance_of_more(then, now));
    let less = stats::hold(&less.collect::<Vec<_>>());
    let changes = both.iter().zip(more.into_iter().zip(less));
    let changes = changes.filter_map(|((metric, now, then), (is_more, is_less))| {
        let ratio = stats::unpaired_ratio(now, then)?;
        let kind = match metric.better {
            Better::More | Better::Less if !is_beyond(&ratio, tolerance) => Kind::Same,
            Better::More if is_more => Kind::Better,
            Better::More if is_less => Kind::Worse,
            Better::Less if is_less => Kind::Better,
            Better::Less if is_more => Kind::Worse,
            Better::More | Better::Less | Better::Neither => Kind::Same,
        };
        Some(Change {
            participant: name.to_owned(),
            label: metric.label,
            unit: metric.unit,
            old: Summary::of(then)?.median,
            new: Summary::of(now)?.median,
            ratio,
            kind,
        })
    });
    changes.collect()
}

fn is_beyond(ratio: &Summary, tolerance: f64) -> bool {
    (ratio.median - 1.0).abs() > tolerance
}

fn numbers(report: &Report, metric: &Metric, participant: &str) -> Vec<f64> {
    report.values(metric.key, participant).into_iter().map(|(_, value)| value).collect()
}

fn was_tried(report: &Report, metric: &Metric, participant: &str) -> bool {
    report.samples.iter().any(|sample| {
        sample.participant == participant && metric.group.is_none_or(|group| group == sample.group)
    })
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
    // Two files may have one name.
    compare("profile", format!("{:?}", ours.profile), format!("{:?}", theirs.profile));
    compare("wire MTU", ours.wire_mtu.to_string(), theirs.wire_mtu.to_string());
    compare("tunnel MTU", ours.tunnel_mtu.to_string(), theirs.tunnel_mtu.to_string());
    compare("streams", ours.streams.to_string(), theirs.streams.to_string());
    compare("congestion control", ours.congestion().to_owned(), theirs.congestion().to_owned());
    compare("quick", ours.quick.to_string(), theirs.quick.to_string());
    found
}

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
        let comparison = Comparison::of(new, &testing::report(), tolerance);
        let count = |kind| comparison.changes.iter().filter(|one| one.kind == kind).count();
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
    fn one_metric_of_many_takes_more_than_three_rounds() {
        let (mut new, mut old) = (with("tcp_1", 0.5), testing::report());
        for report in [&mut new, &mut old] {
            report.samples.retain(|sample| sample.round < 3);
        }
        // All of three below all of three is chance once in twenty times.
        assert!(!Comparison::of(&new, &old, 0.05).is_worse("hybridwg"));
    }

    #[test]
    fn what_failed_is_worse_and_what_was_not_asked_for_is_not() {
        let mut new = testing::report();
        for sample in new.samples.iter_mut().filter(|one| one.participant == "hybridwg") {
            sample.metrics.remove("tcp_n");
        }
        let comparison = Comparison::of(&new, &testing::report(), 0.05);
        assert!(comparison.is_worse("hybridwg") && !comparison.is_worse("other"));
        let text = comparison.render();
        assert!(text.contains("WORSE   hybridwg: TCP, several streams, which failed"), "{text}");
        assert!(text.contains("1 worse, "), "{text}");
        new.samples.retain(|sample| sample.participant == "other");
        assert!(!Comparison::of(&new, &testing::report(), 0.05).is_worse("hybridwg"));
    }

    #[test]
    fn losses_where_there_were_none_are_worse() {
        let with = |lost| {
            let mut report = testing::report();
            for sample in &mut report.samples {
                sample.metrics.insert("idle_lost".to_owned(), lost);
            }
            report
        };
        assert!(Comparison::of(&with(2.0), &with(0.0), 0.05).is_worse("hybridwg"));
        assert!(!Comparison::of(&with(0.0), &with(0.0), 0.05).is_worse("hybridwg"));
    }

    #[test]
    fn an_old_run_without_the_one_that_decides_is_refused_with_what_it_has() {
        let old = testing::report();
        assert_eq!(check(&old, "hybridwg", &[Group::Udp, Group::Tcp]), Ok(()));
        for (name, group) in [("mine", Group::Tcp), ("hybridwg", Group::Udp)] {
            let fault = check(&old, name, &[group]).unwrap_err();
            assert!(fault.contains("hybridwg, other, plain, measured in tcp"), "{fault}");
        }
    }

    #[test]
    fn another_machine_is_told() {
        let mut new = testing::report();
        assert_eq!(differences(&new, &testing::report()), Vec::<String>::new());
        new.machine.cores = 64;
        assert_eq!(differences(&new, &testing::report()), ["cores: 64, before 2"]);
        let mut old = new.clone();
        old.conditions.congestion = None;
        assert_eq!(differences(&new, &old), ["congestion control: cubic, before unknown"]);
    }

    #[test]
    fn what_changed_has_a_line_and_all_are_counted() {
        let text = Comparison::of(&with("tcp_1", 0.5), &testing::report(), 0.05).render();
        assert!(text.contains("WORSE   hybridwg: TCP, 1 stream, 2.05 after 4.10 Gbit/s"), "{text}");
        assert!(text.contains("1 worse, 0 better, "), "{text}");
    }
}
