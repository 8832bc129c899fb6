//! What a handful of samples allows to say, and when they allow nothing.
//!
//! A [`Summary`] is a median with an interval that covers the true median in at least 95 of 100
//! runs, however the samples are distributed: it reaches from one of them to another, as the sign
//! test has it. Resampling would not do: of 6 to 15 samples its interval covers the median in 88 to
//! 93 of 100 runs. Below 6 samples even the range covers less (94 of 5, 75 of 3). Two programs are
//! compared by the [`ratio`](paired_ratios) of each round, in which they ran seconds apart, so that
//! what disturbs a whole round falls out. A [`Verdict`] is given only if the whole interval lies on
//! one side of 1. Two runs have no rounds in common: their ranks [tell](chance_of_more) whether one
//! has more. Nothing is ever thrown away: an outlier is named and counted.
//!
//! Pure: equal samples give equal summaries, resampling included.

use serde::{Deserialize, Serialize};

use super::random::Random;

/// Rounds below which no verdict is given: with five, chance puts all on one side in 1 of 16 runs.
pub const VERDICT_LEAST: usize = 5;

/// How likely a finding may be by chance.
const LEVEL: f64 = 0.05;

/// Samples of either run below which resampling says no more than the range.
const BOOTSTRAP_LEAST: usize = 6;

const RESAMPLES: usize = 2000;

/// Enough that a chance of 1 in 1000 is known to a third.
const SHUFFLES: u32 = 10_000;

/// Any will do; a fixed one makes a report repeatable.
const SEED: u64 = 0x6879_6272_6964_7767;

/// Whether a larger number is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    More,
    Less,
    /// Just told.
    Neither,
}

/// Samples of one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub median: f64,
    /// The interval around the median.
    pub low: f64,
    pub high: f64,
    pub min: f64,
    pub max: f64,
    pub count: usize,
    /// Samples more than 1.5 interquartile ranges outside the middle half. They count like all
    /// others.
    pub outliers: Vec<f64>,
}

impl Summary {
    /// `None` if there is no sample. What is not a number must not be among them.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let sorted = sorted(samples);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let outside = outside(sorted.len());
        let (low, high) = (sorted[outside], sorted[sorted.len() - 1 - outside]);
        let (lower, upper) = (quantile(&sorted, 0.25), quantile(&sorted, 0.75));
        let reach = 1.5 * (upper - lower);
        let is_outlier = |sample: &f64| *sample < lower - reach || *sample > upper + reach;
        Some(Self {
            median: quantile(&sorted, 0.5),
            low,
            high,
            min,
            max,
            count: sorted.len(),
            outliers: sorted.into_iter().filter(is_outlier).collect(),
        })
    }
}

/// What can be said of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Better,
    Worse,
    /// The interval has 1 in it.
    TooNoisy,
    /// Fewer than [`VERDICT_LEAST`] rounds.
    TooFew,
}

impl Verdict {
    /// Of the ratio of ours to another's; `None` where neither more nor less is good news.
    pub fn of(ratio: &Summary, better: Better) -> Option<Self> {
        let above = match better {
            Better::More => Self::Better,
            Better::Less => Self::Worse,
            Better::Neither => return None,
        };
        let below = if above == Self::Better { Self::Worse } else { Self::Better };
        Some(if ratio.count < VERDICT_LEAST {
            Self::TooFew
        } else if ratio.low > 1.0 {
            above
        } else if ratio.high < 1.0 {
            below
        } else {
            Self::TooNoisy
        })
    }

    pub const fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::TooNoisy => "too noisy",
            Self::TooFew => "too few",
        }
    }
}

/// The ratio of each round that has a sample of both; a round is told by its number. `None` if
/// there is no such round, or one in which theirs is zero: without it, the rounds would be chosen by
/// what came out.
pub fn paired_ratios(ours: &[(u32, f64)], theirs: &[(u32, f64)]) -> Option<Summary> {
    let pairs = ours.iter().filter_map(|&(round, our)| {
        Some((our, theirs.iter().find(|(other, _)| *other == round)?.1))
    });
    let ratios = pairs.map(|(our, their)| (their > 0.0).then_some(our / their));
    Summary::of(&ratios.collect::<Option<Vec<_>>>()?)
}

/// The ratio of the medians of two runs that have nothing to do with each other, by resampling
/// both; with few samples the widest that they allow. `None` if either is empty.
pub fn unpaired_ratio(new: &[f64], old: &[f64]) -> Option<Summary> {
    let (new, old) = (sorted(new), sorted(old));
    let (&new_min, &new_max) = (new.first()?, new.last()?);
    let (&old_min, &old_max) = (old.first()?, old.last()?);
    let count = new.len().min(old.len());
    let (min, max) = (quotient(new_min, old_max), quotient(new_max, old_min));
    let (low, high) = if count < BOOTSTRAP_LEAST {
        (min, max)
    } else {
        let mut random = Random::new(SEED);
        let mut median = |samples: &[f64]| quantile(&resampled(samples, &mut random), 0.5);
        interval((0..RESAMPLES).map(|_| quotient(median(&new), median(&old))).collect())
    };
    let median = quotient(quantile(&new, 0.5), quantile(&old, 0.5));
    Some(Summary { median, low, high, min, max, count, outliers: Vec::new() })
}

/// Of numbers that are not negative. Something is infinitely more than nothing, and nothing is as
/// much as nothing.
fn quotient(new: f64, old: f64) -> f64 {
    if old > 0.0 {
        new / old
    } else if new > 0.0 {
        f64::INFINITY
    } else {
        1.0
    }
}

/// How likely it is that `these` would have so high ranks among all by chance alone, if both were
/// samples of the same: a permutation test of the rank sum (Wilcoxon's). Equals share their rank.
pub fn chance_of_more(these: &[f64], others: &[f64]) -> f64 {
    let all: Vec<f64> = these.iter().chain(others).copied().collect();
    // Twice the middle of the places that equals take among all: whole numbers, which add up alike in
    // each order.
    let rank = |sample: &f64| {
        let below = all.iter().filter(|other| *other < sample).count();
        let equal = all.iter().filter(|other| *other == sample).count();
        2 * below + equal
    };
    let mut ranks: Vec<usize> = all.iter().map(rank).collect();
    let found: usize = ranks[..these.len()].iter().sum();
    let mut random = Random::new(SEED);
    let mut as_high = 0_u32;
    for _ in 0..SHUFFLES {
        for at in 0..these.len() {
            let other = at + random.below(ranks.len() - at);
            ranks.swap(at, other);
        }
        as_high += u32::from(ranks[..these.len()].iter().sum::<usize>() >= found);
    }
    // What was found is one of the orders, so that none has no chance at all.
    f64::from(as_high + 1) / f64::from(SHUFFLES + 1)
}

/// Which of several findings hold, by how likely each is by chance: if none is true, one is taken for
/// true in 5 of 100 runs, and not each in 5. (Benjamini and Hochberg 1995.)
#[expect(clippy::cast_precision_loss, reason = "findings are few")]
pub fn hold(chances: &[f64]) -> Vec<bool> {
    let share = LEVEL / chances.len() as f64;
    let sorted = sorted(chances);
    let holds = |(rank, chance): (usize, &f64)| *chance <= share * rank as f64;
    let last = (1..).zip(&sorted).filter(|&one| holds(one)).map(|(_, chance)| *chance).last();
    chances.iter().map(|chance| last.is_some_and(|last| *chance <= last)).collect()
}

/// How many samples lie outside of the interval at each of its ends: the most so that the true
/// median lies inside in 95 of 100 runs. A sample falls on either side of it like a coin.
#[expect(clippy::cast_precision_loss, reason = "a number of samples is small")]
fn outside(count: usize) -> usize {
    // Of `below` of all on one side, as a logarithm.
    let mut chance = count as f64 * 0.5_f64.ln();
    let mut tail = 0.0;
    let fits = |below: &usize| {
        tail += chance.exp();
        chance += ((count - below) as f64 / (below + 1) as f64).ln();
        2.0 * tail <= LEVEL
    };
    // Those that lie below the interval's end, which is a sample itself.
    (0..count).take_while(fits).count().saturating_sub(1)
}

/// The 95 % in the middle.
fn interval(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (quantile(&values, 0.025), quantile(&values, 0.975))
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// As many samples as there are, drawn with replacement, sorted.
fn resampled(samples: &[f64], random: &mut Random) -> Vec<f64> {
    sorted(&(0..samples.len()).map(|_| samples[random.below(samples.len())]).collect::<Vec<_>>())
}

/// By linear interpolation between the two nearest; 0 of nothing.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions are small and positive"
)]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let position = share * last as f64;
    let below = position as usize;
    let above = (below + 1).min(last);
    let weight = position - below as f64;
    sorted[below].mul_add(1.0 - weight, sorted[above] * weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::metric::{Group, METRICS, Metric};

    fn summary(samples: &[f64]) -> Summary {
        Summary::of(samples).unwrap()
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(summary(&[4.0, 1.0, 3.0, 2.0]).median, 2.5);
        assert_eq!(summary(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(summary(&[7.0]).median, 7.0);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn few_samples_give_all_that_was_seen_as_the_interval() {
        let few = summary(&[1.0, 2.0, 9.0, 4.0, 5.0]);
        assert_eq!((few.low, few.high), (1.0, 9.0));
    }

    #[test]
    fn an_interval_holds_its_median_lies_in_the_range_and_is_the_same_each_time() {
        let samples = [10.0, 10.5, 9.5, 10.2, 9.9, 10.1, 30.0, 9.8, 10.3];
        let summary = summary(&samples);
        assert!(summary.low <= summary.median && summary.median <= summary.high);
        assert!(summary.low >= summary.min && summary.high < summary.max, "{summary:?}");
        assert_eq!(Summary::of(&samples).as_ref(), Some(&summary));
    }

    #[test]
    fn an_interval_leaves_out_as_many_samples_as_the_tables_of_the_sign_test() {
        let tables = [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (15, 3), (20, 5)];
        for (count, expected) in tables {
            assert_eq!(outside(count), expected, "{count}");
        }
        assert_eq!(outside(0), 0);
        // As many as the normal distribution has it: 500 ± 31.
        assert!((467..=470).contains(&outside(1000)), "{}", outside(1000));
    }

    #[test]
    fn an_interval_covers_the_true_median_as_often_as_it_says_whatever_the_number_of_samples() {
        let mut random = Random::new(7);
        for count in [6, 7, 9, 12, 15] {
            let covered = (0..1000).filter(|_| {
                // Far from symmetric, with 1 as the true median.
                let samples: Vec<f64> = (0..count).map(|_| 1.0 / (0.5 + random.unit())).collect();
                let summary = summary(&samples);
                (summary.low..=summary.high).contains(&1.0)
            });
            let covered = covered.count();
            assert!(covered >= 940, "{covered} of 1000 with {count} samples");
        }
    }

    #[test]
    fn an_outlier_is_named_and_counts() {
        let summary = summary(&[10.0, 10.1, 9.9, 10.0, 10.2, 50.0]);
        assert_eq!(summary.outliers, [50.0]);
        assert_eq!((summary.count, summary.max), (6, 50.0));
    }

    #[test]
    fn what_disturbs_a_whole_round_falls_out_of_the_paired_ratio() {
        // Each is half as fast in every other round; alone, both look too noisy for anything.
        let pace = |round: u32| if round.is_multiple_of(2) { 1.0 } else { 0.5 };
        let ours: Vec<_> = (0..8).map(|round| (round, 2.2 * pace(round))).collect();
        let theirs: Vec<_> = (0..8).map(|round| (round, 2.0 * pace(round))).collect();
        let ratio = paired_ratios(&ours, &theirs).unwrap();
        assert!((ratio.low - 1.1).abs() < 1e-9 && (ratio.high - 1.1).abs() < 1e-9, "{ratio:?}");
        assert_eq!(Verdict::of(&ratio, Better::More), Some(Verdict::Better));
        assert_eq!(Verdict::of(&ratio, Better::Less), Some(Verdict::Worse));
        assert_eq!(Verdict::of(&ratio, Better::Neither), None);
    }

    #[test]
    fn rounds_that_one_of_both_lacks_do_not_count() {
        let ratio = paired_ratios(&[(0, 4.0), (2, 9.0)], &[(1, 1.0), (2, 3.0)]).unwrap();
        assert_eq!((ratio.median, ratio.count), (3.0, 1));
        assert_eq!(paired_ratios(&[(0, 4.0)], &[(1, 1.0)]), None);
    }

    #[test]
    fn rounds_are_not_chosen_by_what_came_out_in_them() {
        // They lost nothing in one round, so that no ratio is known; without it we would look better.
        let (ours, theirs) = ([(0, 2.0), (1, 2.0)], [(0, 0.0), (1, 4.0)]);
        assert_eq!(paired_ratios(&ours, &theirs), None);
        assert_eq!(paired_ratios(&theirs, &ours).map(|ratio| ratio.count), Some(2));
    }

    #[test]
    fn a_ratio_around_one_is_too_noisy_and_a_few_rounds_are_too_few() {
        let ratio = summary(&[0.9, 1.1, 1.0, 0.95, 1.2, 1.01]);
        assert_eq!(Verdict::of(&ratio, Better::More), Some(Verdict::TooNoisy));
        let few = summary(&[1.5, 1.6, 1.5, 1.7]);
        assert_eq!(Verdict::of(&few, Better::More), Some(Verdict::TooFew));
        let enough = summary(&[1.5, 1.6, 1.5, 1.7, 1.4]);
        assert_eq!(Verdict::of(&enough, Better::More), Some(Verdict::Better));
    }

    #[test]
    fn two_runs_are_compared_by_the_widest_that_few_samples_allow_and_closer_with_more() {
        let few = unpaired_ratio(&[2.0, 2.2], &[1.0, 1.1]).unwrap();
        assert!((few.low - 2.0 / 1.1).abs() < 1e-9 && (few.high - 2.2).abs() < 1e-9, "{few:?}");
        let new: Vec<f64> = (0..20).map(|n| 2.0 + f64::from(n % 5) * 0.01).collect();
        let old: Vec<f64> = (0..20).map(|n| 1.0 + f64::from(n % 5) * 0.01).collect();
        let many = unpaired_ratio(&new, &old).unwrap();
        assert!(many.low > 1.9 && many.high < 2.1 && many.low <= many.median, "{many:?}");
        assert_eq!(unpaired_ratio(&[], &[1.0]), None);
    }

    #[test]
    fn something_is_infinitely_more_than_nothing() {
        let ratio =
            |new, old| unpaired_ratio(&[new; 8], &[old; 8]).map(|one| (one.low, one.median));
        assert_eq!(ratio(1.0, 0.0), Some((f64::INFINITY, f64::INFINITY)));
        assert_eq!(ratio(0.0, 0.0), Some((1.0, 1.0)));
        assert_eq!(ratio(0.0, 1.0), Some((0.0, 0.0)));
    }

    #[test]
    fn the_chance_of_ranks_is_that_of_all_orders() {
        // Of 20 orders of three and three, one has all of the first above; of 924, of six and six.
        for (these, others, expected) in [
            (&[4.0, 5.0, 6.0][..], &[1.0, 2.0, 3.0][..], 0.05),
            (&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0], 1.0),
            (&[7.0, 8.0, 9.0, 7.5, 8.5, 9.5], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 1.0 / 924.0),
            (&[1.0, 1.0], &[1.0, 1.0], 1.0),
        ] {
            let found = chance_of_more(these, others);
            assert!((found / expected - 1.0).abs() < 0.35, "{found}, not {expected}");
        }
    }

    #[test]
    fn six_rounds_of_both_tell_one_metric_of_all_of_a_tunnel() {
        let chance = chance_of_more(&[7.0; 6], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let is_of_tunnels =
            |metric: &&Metric| metric.group.is_none_or(|group| Group::OF_TUNNELS.contains(&group));
        let mut chances = vec![0.5; METRICS.iter().filter(is_of_tunnels).count()];
        chances[0] = chance;
        assert!(hold(&chances)[0], "{chance}");
    }

    #[test]
    fn of_many_findings_by_chance_none_holds_and_true_ones_do() {
        let by_chance: Vec<f64> = (1..=31).map(|number| f64::from(number) / 32.0).collect();
        assert_eq!(hold(&by_chance), [false; 31], "one in 31 has a chance of 3 % among so many");
        assert_eq!(hold(&[0.001, 0.5, 0.02, 0.9]), [true, false, true, false]);
        assert_eq!(hold(&[0.04]), [true]);
        assert_eq!(hold(&[]), Vec::<bool>::new());
    }
}
