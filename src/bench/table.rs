//! A report as text for a terminal: what was measured, how the first does beside the others, and
//! what is to be known before anybody believes it.

use std::fmt::Write as _;

use super::implementation::PLAIN;
use super::metric::{METRICS, Metric, digits};
use super::report::{Line, Report};
use super::stats::{Better, Summary, VERDICT_LEAST, Verdict};

/// All of it.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    heading(report, &mut text);
    values(report, &mut text);
    ratios(report, &mut text);
    notes(report, &mut text);
    text
}

fn heading(report: &Report, text: &mut String) {
    let (machine, conditions) = (&report.machine, &report.conditions);
    let cores = if machine.cores == 1 { "core" } else { "cores" };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}, {} {cores}, Linux {}; {}\ntunnel MTU {}, wire MTU {}, path \"{}\", several = {} streams, the kernel's of TCP with {}\n",
        machine.cpu,
        machine.cores,
        machine.kernel,
        report.date,
        conditions.tunnel_mtu,
        conditions.wire_mtu,
        conditions.path,
        conditions.streams,
        conditions.congestion(),
    );
}

fn values(report: &Report, text: &mut String) {
    let names: Vec<&str> = report.participants.iter().map(|one| one.name.as_str()).collect();
    let mut rows = vec![heading_row("", "", &names)];
    for metric in METRICS {
        let lines: Vec<Option<&Line>> =
            names.iter().map(|name| report.summary(metric.key, name)).collect();
        if lines.iter().all(Option::is_none) {
            continue;
        }
        let best = best(metric, &lines);
        let cells =
            lines.iter().map(|line| line.map_or_else(|| "-".to_owned(), |line| cell(line, best)));
        let mut row = vec![metric.label.to_owned(), metric.unit.to_owned()];
        row.extend(cells);
        rows.push(row);
    }
    let rounds = match report.conditions.rounds {
        1 => "1 round".to_owned(),
        rounds => format!("{rounds} rounds"),
    };
    let _ = writeln!(
        text,
        "Medians of {rounds}, with their 95 % intervals (below 6 rounds: the range); * is the best tunnel.\n"
    );
    align(&rows, text);
}

fn heading_row(label: &str, unit: &str, names: &[&str]) -> Vec<String> {
    [label, unit].into_iter().chain(names.iter().copied()).map(str::to_owned).collect()
}

/// The best median among tunnels, if there are several.
fn best(metric: &Metric, lines: &[Option<&Line>]) -> Option<f64> {
    let medians = lines.iter().flatten().filter(|line| line.participant != PLAIN);
    let medians: Vec<f64> = medians.map(|line| line.summary.median).collect();
    if medians.len() < 2 {
        return None;
    }
    match metric.better {
        Better::More => medians.into_iter().max_by(f64::total_cmp),
        Better::Less => medians.into_iter().min_by(f64::total_cmp),
        Better::Neither => None,
    }
}

fn cell(line: &Line, best: Option<f64>) -> String {
    let summary = &line.summary;
    let mark = if line.participant != PLAIN && best == Some(summary.median) { "*" } else { "" };
    let median = digits(summary.median);
    if summary.count == 1 {
        return format!("{median}{mark}");
    }
    format!("{median}{mark} ({}–{})", digits(summary.low), digits(summary.high))
}

fn ratios(report: &Report, text: &mut String) {
    let [first, others @ ..] = &report.participants[..] else { return };
    let names: Vec<&str> = others.iter().map(|one| one.name.as_str()).collect();
    let mut rows = vec![heading_row("", "", &names)];
    for metric in METRICS {
        let cells: Vec<String> = names.iter().map(|name| ratio(report, metric, name)).collect();
        if cells.iter().any(|cell| cell != "-") {
            let mut row = vec![metric.label.to_owned(), String::new()];
            row.extend(cells);
            rows.push(row);
        }
    }
    if rows.len() > 1 {
        let name = &first.name;
        let _ = writeln!(
            text,
            "\n{name} divided by each, round by round, whether that is better, and its interval (too noisy to tell: \
             the 95 % interval has 1 in it; too few rounds to tell: below {VERDICT_LEAST}).\n"
        );
        align(&rows, text);
    }
}

fn ratio(report: &Report, metric: &Metric, name: &str) -> String {
    let ratio = report.summary(metric.key, name).and_then(|line| line.ratio.as_ref());
    let Some(ratio) = ratio else { return "-".to_owned() };
    let verdict = ratio.verdict.map_or("", Verdict::words);
    let Summary { median, low, high, .. } = ratio.summary;
    format!("{median:.2} {verdict} ({low:.2}–{high:.2})")
}

fn notes(report: &Report, text: &mut String) {
    let noisy = report.samples.iter().filter(|sample| sample.noisy).count();
    if noisy > 0 {
        let all = report.samples.len();
        let _ = writeln!(
            text,
            "\n{noisy} of {all} measurements were disturbed: others used the processors. They count \
             all the same."
        );
    }
    if let Some(processors) = processors(report) {
        let _ = writeln!(text, "\n{processors}.");
    }
    let outliers: Vec<String> = report.summaries.iter().filter_map(outlier_note).collect();
    if !outliers.is_empty() {
        let _ = writeln!(text, "\nOutliers, which count as all others do:");
        list(&outliers, text);
    }
    let errors = errors(report);
    if !errors.is_empty() {
        let _ = writeln!(text, "\nNot measured:");
        list(&errors, text);
    }
}

fn list(notes: &[String], text: &mut String) {
    for note in notes {
        let _ = writeln!(text, "  {note}");
    }
}

fn outlier_note(line: &Line) -> Option<String> {
    let outliers: Vec<String> = line.summary.outliers.iter().map(|&value| digits(value)).collect();
    (!outliers.is_empty()).then(|| {
        format!("{} {}: {} {}", line.participant, line.metric, outliers.join(", "), line.unit)
    })
}

/// What the hypervisor took, and how fast the cores ran.
pub fn processors(report: &Report) -> Option<String> {
    let steal: Vec<f64> = report.samples.iter().map(|sample| sample.steal_percent).collect();
    let steal = Summary::of(&steal)?;
    let mut text = format!(
        "The hypervisor gave {} % of the processors to others in the median, {} % at most",
        digits(steal.median),
        digits(steal.max)
    );
    let speeds: Vec<f64> = report.samples.iter().filter_map(|sample| sample.megahertz).collect();
    if let Some(speeds) = Summary::of(&speeds) {
        text.push_str(&format!("; the cores ran at {:.0}–{:.0} MHz", speeds.min, speeds.max));
    }
    if let Some(governor) = &report.machine.governor {
        text.push_str(&format!(", governor {governor}"));
    }
    Some(text)
}

/// What went wrong, with how often.
pub fn errors(report: &Report) -> Vec<String> {
    let mut counted: Vec<(String, u32)> = Vec::new();
    for sample in &report.samples {
        for (key, error) in &sample.errors {
            let note = format!("{} {key}: {error}", sample.participant);
            match counted.iter_mut().find(|(known, _)| *known == note) {
                Some((_, count)) => *count += 1,
                None => counted.push((note, 1)),
            }
        }
    }
    let shown = counted.into_iter().map(|(note, count)| match count {
        1 => note,
        count => format!("{note} ({count} times)"),
    });
    shown.collect()
}

/// The first column to the left, all others to the right.
fn align(rows: &[Vec<String>], text: &mut String) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(line, "{cell:<width$}"),
                1 => write!(line, "  {cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::testing;

    #[test]
    fn a_table_has_a_row_a_metric_with_the_best_marked_and_says_what_disturbed() {
        let mut report = testing::report();
        report.samples[0].errors.insert("udp_64".to_owned(), "nothing arrived".to_owned());
        let text = render(&report);
        let row = text.lines().find(|line| line.starts_with("TCP, 1 stream  ")).unwrap();
        assert!(row.contains("4.10* ("), "{row}");
        assert!(row.contains("20.5 ("), "the plain path is no tunnel and cannot be best: {row}");
        let ratio = text.lines().filter(|line| line.starts_with("TCP, 1 stream  ")).nth(1).unwrap();
        assert!(
            ratio.contains("2.00 better (2.00–2.00)") && ratio.contains("0.20 worse"),
            "{ratio}"
        );
        assert!(text.contains("3 of 18 measurements were disturbed"), "{text}");
        assert!(text.contains("hybridwg udp_64: nothing arrived"), "{text}");
        assert!(text.contains("0.00 % at most; the cores ran at 2300–2300 MHz."), "{text}");
    }

    #[test]
    fn what_was_not_measured_has_no_row() {
        let text = render(&testing::report());
        assert!(!text.contains("handshakes answered"), "{text}");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let mut text = String::new();
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        align(&[row(["a", "µs", "1"]), row(["bb", "s", "100"])], &mut text);
        assert_eq!(text, "a   µs    1\nbb  s   100\n");
    }
}
