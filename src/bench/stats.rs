//! What a handful of samples allows to say, and when they allow nothing.
//!
//! A [`Summary`] is a median with an interval that covers the true median in about 95 of 100 runs:
//! the percentile bootstrap from [`BOOTSTRAP_LEAST`] samples on, below that all that was seen. Two
//! programs are compared by the [`ratio`](paired_ratios) of each round, in which they ran seconds
//! apart, so that what disturbs a whole round falls out. A [`Verdict`] is given only if the whole
//! interval lies on one side of 1. Nothing is ever thrown away: an outlier is named and counted.
//!
//! Pure: equal samples give equal summaries, resampling included.

use serde::{Deserialize, Serialize};

use super::random::Random;

/// Samples from which resampling says more than the range does.
pub const BOOTSTRAP_LEAST: usize = 6;

/// Rounds below which no verdict is given: with five, chance puts all on one side in 1 of 16 runs.
pub const VERDICT_LEAST: usize = 5;

const RESAMPLES: usize = 2000;

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
        let (low, high) = if sorted.len() < BOOTSTRAP_LEAST {
            (min, max)
        } else {
            let mut random = Random::new(SEED);
            let medians = (0..RESAMPLES).map(|_| quantile(&resampled(&sorted, &mut random), 0.5));
            interval(medians.collect())
        };
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
/// there is no such round.
pub fn paired_ratios(ours: &[(u32, f64)], theirs: &[(u32, f64)]) -> Option<Summary> {
    let ratios = ours.iter().filter_map(|&(round, our)| {
        let their = theirs.iter().find(|(other, _)| *other == round)?.1;
        (their > 0.0).then_some(our / their)
    });
    Summary::of(&ratios.collect::<Vec<_>>())
}

/// The ratio of the medians of two runs that have nothing to do with each other, by resampling
/// both; with few samples the widest that they allow. `None` if either is empty or zero.
pub fn unpaired_ratio(new: &[f64], old: &[f64]) -> Option<Summary> {
    let (new, old) = (sorted(new), sorted(old));
    let (&new_min, &new_max) = (new.first()?, new.last()?);
    let (&old_min, &old_max) = (old.first()?, old.last()?);
    if old_min <= 0.0 {
        return None;
    }
    let count = new.len().min(old.len());
    let (min, max) = (new_min / old_max, new_max / old_min);
    let (low, high) = if count < BOOTSTRAP_LEAST {
        (min, max)
    } else {
        let mut random = Random::new(SEED);
        let mut median = |samples: &[f64]| quantile(&resampled(samples, &mut random), 0.5);
        interval((0..RESAMPLES).map(|_| median(&new) / median(&old)).collect())
    };
    let median = quantile(&new, 0.5) / quantile(&old, 0.5);
    Some(Summary { median, low, high, min, max, count, outliers: Vec::new() })
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
    fn an_interval_covers_the_true_median_about_as_often_as_it_says() {
        let mut random = Random::new(7);
        let covered = (0..300).filter(|_| {
            // Uniform around 1, so that 1 is the true median.
            let samples: Vec<f64> = (0..12).map(|_| 0.5 + random.unit()).collect();
            let summary = summary(&samples);
            (summary.low..=summary.high).contains(&1.0)
        });
        let covered = covered.count();
        assert!((270..=300).contains(&covered), "{covered} of 300");
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
        assert_eq!(paired_ratios(&[(0, 4.0)], &[(0, 0.0)]), None);
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
        assert_eq!(unpaired_ratio(&[1.0], &[0.0]), None);
    }
}
