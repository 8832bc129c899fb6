//! Lines: throughput over time, and how round-trip times are distributed.

use super::super::implementation::PLAIN;
use super::super::measure::BUCKET;
use super::super::metric::digits;
use super::super::report::Report;
use super::{colour, escaped};

/// Throughput of one metric over time; nothing if there is none.
pub fn over_time(report: &Report, key: &str) -> Option<String> {
    let mut drawn = Vec::new();
    for (number, participant) in report.participants.iter().enumerate() {
        let ours = report.samples.iter().filter(|sample| sample.participant == participant.name);
        let series: Vec<&Vec<f64>> = ours.filter_map(|sample| sample.series.get(key)).collect();
        if participant.name != PLAIN && !series.is_empty() {
            drawn.push((number, &participant.name, envelope(&series)));
        }
    }
    let points = drawn.iter().flat_map(|(_, _, envelope)| envelope);
    let highest = points.map(|&(_, _, high)| high).max_by(f64::total_cmp)?;
    let longest = drawn.iter().map(|(_, _, envelope)| envelope.len()).max()?;
    let full = if highest > 0.0 { highest * 1.05 } else { 1.0 };
    let seconds = BUCKET.as_secs_f64();
    let x = |at: usize| LEFT + (at as f64 + 0.5) / longest as f64 * PLOT_WIDTH;
    let y = |value: f64| TOP + PLOT_HEIGHT * (1.0 - value / full);
    let mut svg = frame("throughput over time");
    for step in 0..=4 {
        let value = full * f64::from(step) / 4.0;
        svg.push_str(&horizontal(y(value), &digits(value)));
    }
    let whole = longest as f64 * seconds;
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        svg.push_str(&vertical(LEFT + share * PLOT_WIDTH, &format!("{:.2} s", whole * share)));
    }
    svg.push_str("<text class=\"soft\" x=\"0\" y=\"12\">Gbit/s</text>\n");
    for (number, name, envelope) in &drawn {
        let upper = envelope.iter().enumerate().map(|(at, p)| (x(at), y(p.2)));
        let lower = envelope.iter().enumerate().rev().map(|(at, p)| (x(at), y(p.0)));
        let middle = envelope.iter().enumerate().map(|(at, p)| (x(at), y(p.1)));
        svg.push_str(&format!(
            "<g class=\"{}\"><title>{}</title><path class=\"band\" d=\"{}Z\"/>\
             <path class=\"line\" d=\"{}\"/></g>\n",
            colour(*number),
            escaped(name),
            path(upper.chain(lower)),
            path(middle)
        ));
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// Lowest, median and highest of all rounds at each moment that all of them have.
fn envelope(series: &[&Vec<f64>]) -> Vec<(f64, f64, f64)> {
    let length = series.iter().map(|one| one.len()).min().unwrap_or(0);
    let at = |moment: usize| {
        let mut values: Vec<f64> = series.iter().map(|one| one[moment]).collect();
        values.sort_by(f64::total_cmp);
        (values[0], values[values.len() / 2], values[values.len() - 1])
    };
    (0..length).map(at).collect()
}

/// The share of round trips that took at most so long; nothing if there are none. Each nine has as
/// much room as the one before, since it is the slow ones that a user notices.
pub fn distribution(report: &Report, when: &str) -> Option<String> {
    let times = |name: &str| {
        let times = report.latencies.get(name)?.get(when)?;
        (times.count() > 0).then_some(times)
    };
    let drawn: Vec<_> = report
        .participants
        .iter()
        .enumerate()
        .filter_map(|(number, one)| Some((number, &one.name, times(&one.name)?)))
        .collect();
    let edge = |share: f64| drawn.iter().filter_map(move |(_, _, times)| times.micros(share));
    let (least, most) = (edge(0.0).min_by(f64::total_cmp)?, edge(1.0).max_by(f64::total_cmp)?);
    // Whole powers of ten around all that there is.
    let (from, to) = (least.max(0.1).log10().floor(), most.max(1.0).log10().ceil());
    let decades = (to - from).max(1.0);
    let x = |micros: f64| {
        LEFT + ((micros.max(0.1).log10() - from) / decades).clamp(0.0, 1.0) * PLOT_WIDTH
    };
    let most_counted = drawn.iter().map(|(_, _, times)| times.count()).max()?;
    let nines = (most_counted as f64).log10().ceil().max(1.0);
    let y = |share: f64| TOP + PLOT_HEIGHT * (1.0 + (1.0 - share).log10().max(-nines) / nines);
    let mut svg = frame("distribution of round trips");
    let after_nines = (1..=nines as i32).map(|count| 1.0 - 10_f64.powi(-count));
    for share in [0.0, 0.5].into_iter().chain(after_nines) {
        svg.push_str(&horizontal(y(share), &format!("{} %", digits(share * 100.0))));
    }
    let mut decade = from;
    while decade <= to {
        svg.push_str(&vertical(x(10_f64.powf(decade)), &duration(10_f64.powf(decade))));
        decade += 1.0;
    }
    for (number, name, times) in &drawn {
        let mut passed = 0;
        let mut points = Vec::new();
        for (nanos, count) in times.buckets() {
            let at = x(nanos as f64 / 1e3);
            points.push((at, y(passed as f64 / times.count() as f64)));
            passed += count;
            points.push((at, y(passed as f64 / times.count() as f64)));
        }
        let median = times.micros(0.5).map(duration).unwrap_or_default();
        let tail = times.micros(0.999).map(duration).unwrap_or_default();
        svg.push_str(&format!(
            "<g class=\"{}\"><title>{}: half within {median}, 99.9 % within {tail}</title>\
             <path class=\"line\" d=\"{}\"/></g>\n",
            colour(*number),
            escaped(name),
            path(thinned(points).into_iter())
        ));
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// Without the points that fall on the pixel of the one before.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    let last = points.len().saturating_sub(1);
    for (at, point) in points.into_iter().enumerate() {
        let is_near = kept.last().is_some_and(|before| {
            (before.0 - point.0).abs() < 0.5 && (before.1 - point.1).abs() < 0.5
        });
        if !is_near || at == last {
            kept.push(point);
        }
    }
    kept
}

fn duration(micros: f64) -> String {
    match micros {
        _ if micros >= 1e6 => format!("{} s", short(micros / 1e6)),
        _ if micros >= 1e3 => format!("{} ms", short(micros / 1e3)),
        _ => format!("{} µs", short(micros)),
    }
}

/// Without zeros at its end.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

fn frame(label: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">\n")
}

fn horizontal(y: f64, label: &str) -> String {
    format!(
        "<line class=\"rule\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.0}\" y2=\"{y:.1}\"/>\
         <text class=\"soft\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n",
        LEFT + PLOT_WIDTH,
        LEFT - 8.0,
        y + 4.0
    )
}

fn vertical(x: f64, label: &str) -> String {
    format!(
        "<line class=\"rule\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{0:.0}\"/>\
         <text class=\"soft\" x=\"{x:.1}\" y=\"{1:.0}\" text-anchor=\"middle\">{label}</text>\n",
        TOP + PLOT_HEIGHT,
        TOP + PLOT_HEIGHT + 18.0
    )
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let steps = points.enumerate().map(|(at, (x, y))| {
        let letter = if at == 0 { 'M' } else { 'L' };
        format!("{letter}{x:.1} {y:.1}")
    });
    steps.collect()
}

const WIDTH: usize = 860;
const HEIGHT: usize = 330;
const LEFT: f64 = 60.0;
const TOP: f64 = 22.0;
const PLOT_WIDTH: f64 = 770.0;
const PLOT_HEIGHT: f64 = 275.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::testing;

    #[test]
    fn each_tunnel_has_a_line_over_time_and_the_plain_path_none() {
        let svg = over_time(&testing::report(), "tcp_1").unwrap();
        assert_eq!(svg.matches("class=\"line\"").count(), 2);
        assert_eq!(over_time(&testing::report(), "tcp_n"), None);
    }

    #[test]
    fn an_envelope_is_lowest_median_and_highest_of_what_all_rounds_have() {
        let rounds = [vec![1.0, 5.0], vec![3.0, 4.0, 9.0], vec![2.0, 6.0]];
        let found = envelope(&rounds.iter().collect::<Vec<_>>());
        assert_eq!(found, [(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)]);
    }

    #[test]
    fn a_distribution_rises_from_none_to_all() {
        let svg = distribution(&testing::report(), "idle").unwrap();
        assert_eq!(svg.matches("class=\"line\"").count(), 3);
        let line = svg.split("class=\"line\" d=\"M").nth(1).unwrap().split('"').next().unwrap();
        let heights: Vec<f64> = line
            .split('L')
            .map(|point| point.split(' ').nth(1).unwrap().parse().unwrap())
            .collect();
        assert!(heights.is_sorted_by(|a, b| a >= b), "{heights:?}");
        assert!(
            (heights[0] - (TOP + PLOT_HEIGHT)).abs() < 0.1
                && (heights.last().unwrap() - TOP).abs() < 0.1
        );
        assert_eq!(distribution(&testing::report(), "asleep"), None);
    }

    #[test]
    fn a_time_is_written_in_its_unit() {
        for (micros, text) in [(0.1, "0.1 µs"), (10.0, "10 µs"), (1500.0, "1.5 ms"), (1e6, "1 s")]
        {
            assert_eq!(duration(micros), text);
        }
    }
}
