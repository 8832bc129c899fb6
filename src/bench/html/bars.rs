//! One metric as a chart: a bar for each participant, with interval and samples.

use super::super::implementation::PLAIN;
use super::super::metric::{Metric, digits};
use super::super::report::{Line, Report};
use super::{colour, escaped};

/// The chart; nothing if nobody has the metric.
pub fn chart(report: &Report, metric: &Metric) -> Option<String> {
    let lines: Vec<(usize, &Line)> = report
        .participants
        .iter()
        .enumerate()
        .filter_map(|(number, one)| Some((number, report.summary(metric.key, &one.name)?)))
        .collect();
    let full = scale(&lines)?;
    let height = TOP + ROW * lines.len();
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n\
         <text class=\"title\" x=\"0\" y=\"14\">{} <tspan class=\"soft\">{}</tspan></text>\n",
        escaped(metric.label),
        escaped(metric.label),
        escaped(metric.unit)
    );
    for (row, (number, line)) in lines.into_iter().enumerate() {
        let top = TOP + ROW * row;
        svg.push_str(&bar(report, metric, line, number, top, full));
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// The value of a full bar: the most of any tunnel. The plain path can be many times that, and then
/// its bar is cut off.
fn scale(lines: &[(usize, &Line)]) -> Option<f64> {
    let highest = |only_tunnels: bool| {
        let counted = lines.iter().filter(|(_, line)| !only_tunnels || line.participant != PLAIN);
        counted.map(|(_, line)| line.summary.max).max_by(f64::total_cmp)
    };
    let highest = highest(true).or_else(|| highest(false))?;
    Some(if highest > 0.0 { highest * 1.02 } else { 1.0 })
}

fn bar(
    report: &Report,
    metric: &Metric,
    line: &Line,
    number: usize,
    top: usize,
    full: f64,
) -> String {
    let summary = &line.summary;
    let x = |value: f64| LEFT + (value / full).clamp(0.0, 1.0) * BAR;
    let (middle, inside) = (top + ROW / 2, top + 3);
    let name = escaped(&line.participant);
    let interval = format!("{}–{}", digits(summary.low), digits(summary.high));
    let mut svg = format!(
        "<g class=\"{}\"><title>{name}: {} {}, interval {interval}, {} samples</title>\n\
         <text x=\"{:.0}\" y=\"{}\" text-anchor=\"end\">{name}</text>\n\
         <rect class=\"bar\" x=\"{LEFT}\" y=\"{inside}\" width=\"{:.1}\" height=\"{}\" rx=\"2\"/>\n",
        colour(number),
        digits(summary.median),
        escaped(metric.unit),
        summary.count,
        LEFT - 8.0,
        middle + 5,
        x(summary.median) - LEFT,
        ROW - 6
    );
    if summary.max <= full {
        svg.push_str(&format!(
            "<line class=\"span\" x1=\"{:.1}\" y1=\"{middle}\" x2=\"{:.1}\" y2=\"{middle}\"/>\n",
            x(summary.low),
            x(summary.high)
        ));
        for sample in report.samples.iter().filter(|one| one.participant == line.participant) {
            let Some(&value) = sample.metrics.get(metric.key) else { continue };
            let class = if sample.noisy { "hollow" } else { "dot" };
            // A little apart from each other, by round.
            let y = middle as f64 + f64::from(sample.round % 3) * 4.0 - 4.0;
            svg.push_str(&format!(
                "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>\n",
                x(value)
            ));
        }
    } else if summary.median > full {
        // Cut off, which two strokes in the colour of the background say.
        svg.push_str(&format!(
            "<path d=\"M{0:.1} {1}l6 -{2}h5l-6 {2}z\" fill=\"var(--card)\"/>\n",
            LEFT + BAR - 28.0,
            inside + ROW - 6,
            ROW - 6
        ));
    }
    svg.push_str(&format!(
        "<text x=\"{:.0}\" y=\"{}\">{} <tspan class=\"soft\">{interval}</tspan></text></g>\n",
        LEFT + BAR + 10.0,
        middle + 5,
        digits(summary.median)
    ));
    svg
}

const WIDTH: usize = 860;
const LEFT: f64 = 130.0;
const BAR: f64 = 510.0;
const TOP: usize = 24;
const ROW: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::metric::by_key;
    use crate::bench::report::testing;

    #[test]
    fn a_chart_has_a_bar_for_each_participant_and_a_dot_for_each_sample() {
        let report = testing::report();
        let svg = chart(&report, by_key("tcp_1").unwrap()).unwrap();
        assert_eq!(svg.matches("class=\"bar\"").count(), 3);
        // The plain path is cut off, and has neither dots nor an interval.
        assert_eq!(svg.matches("class=\"dot\"").count(), 2 * 5);
        assert_eq!(svg.matches("class=\"hollow\"").count(), 2);
        assert!(svg.contains(&format!("width=\"{BAR:.1}\"")), "the cut bar is full: {svg}");
    }

    #[test]
    fn twice_the_value_is_twice_the_length() {
        let svg = chart(&testing::report(), by_key("tcp_1").unwrap()).unwrap();
        let widths: Vec<f64> = svg
            .split("width=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!((widths[0] / widths[1] - 2.0).abs() < 0.01, "{widths:?}");
    }

    #[test]
    fn what_nobody_measured_has_no_chart() {
        assert_eq!(chart(&testing::report(), by_key("handshakes").unwrap()), None);
    }
}
