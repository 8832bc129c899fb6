//! A report as one page that needs nothing else: no network, no script, charts as SVG in it.
//!
//! Light or dark as the reader has it. Every number that is drawn is also text: in the value beside
//! a bar, in the table, or in the title that appears under the pointer.

mod bars;
mod lines;
mod style;

use super::implementation::PLAIN;
use super::metric::{METRICS, Metric, digits};
use super::report::{Line, Report};
use super::stats::{Summary, VERDICT_LEAST, Verdict};
use super::table;

/// The page.
pub fn render(report: &Report) -> String {
    let mut page = Page(String::new());
    page.add("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.add("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.add("<meta name=\"color-scheme\" content=\"light dark\">\n");
    page.add(&format!("<title>hybridwg bench, {}</title>\n", escaped(&report.date)));
    page.add(&format!("<style>{}</style>\n</head>\n<body>\n<main>\n", style::SHEET));
    heading(report, &mut page);
    findings(report, &mut page);
    legend(report, &mut page);
    bars(report, &mut page);
    lines(report, &mut page);
    all_numbers(report, &mut page);
    notes(report, &mut page);
    page.add("</main>\n</body>\n</html>\n");
    page.0
}

/// A page as far as it is written.
struct Page(String);

impl Page {
    fn add(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// A part with a heading and a sentence on how to read it.
    fn section(&mut self, title: &str, hint: &str, content: &str) {
        self.add(&format!(
            "<section>\n<h2>{title}</h2>\n<p class=\"hint\">{hint}</p>\n{content}</section>\n"
        ));
    }
}

/// Text as it may stand between tags and in attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            _ => safe.push(c),
        }
    }
    safe
}

fn heading(report: &Report, page: &mut Page) {
    let (machine, conditions) = (&report.machine, &report.conditions);
    let facts = [
        ("processor", format!("{}, {} cores", machine.cpu, machine.cores)),
        ("kernel", format!("Linux {}", machine.kernel)),
        (
            "path",
            format!(
                "{}, wire MTU {}, tunnel MTU {}",
                conditions.path, conditions.wire_mtu, conditions.tunnel_mtu
            ),
        ),
        (
            "effort",
            format!(
                "{} rounds, {} s a stream, several = {} streams, the kernel's of TCP with {}",
                conditions.rounds,
                conditions.tcp_seconds,
                conditions.streams,
                conditions.congestion(),
            ),
        ),
        ("date", report.date.clone()),
        ("command", report.command.clone()),
    ];
    page.add("<header>\n<h1>Tunnels side by side</h1>\n<dl>\n");
    for (name, fact) in facts {
        page.add(&format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escaped(&fact)));
    }
    page.add("</dl>\n</header>\n");
}

/// What most people want to know, of the first beside each other tunnel.
fn findings(report: &Report, page: &mut Page) {
    let Some(first) = report.participants.first() else { return };
    let mut cards = String::new();
    for other in report.participants.iter().skip(1).filter(|other| other.name != PLAIN) {
        let lines = ["tcp_1", "tcp_1_cpu", "udp_64", "idle_p99", "loaded_p99"];
        let facts = lines.iter().filter_map(|key| finding(report, key, &other.name));
        let facts: String = facts.collect();
        if !facts.is_empty() {
            cards.push_str(&format!(
                "<div class=\"card\"><h3>beside {}</h3>\n<ul>\n{facts}</ul></div>\n",
                escaped(&other.name)
            ));
        }
    }
    if !cards.is_empty() {
        let hint = format!(
            "{} divided by the other, round by round, so that what slows down a whole round falls \
             out. A verdict takes {VERDICT_LEAST} rounds and an interval on one side of 1.",
            escaped(&first.name)
        );
        page.section("In short", &hint, &format!("<div class=\"cards\">\n{cards}</div>\n"));
    }
}

fn finding(report: &Report, key: &str, other: &str) -> Option<String> {
    let metric = METRICS.iter().find(|metric| metric.key == key)?;
    let ratio = report.summary(key, other)?.ratio.as_ref()?;
    let verdict = ratio.verdict?;
    let (class, words) = match verdict {
        Verdict::Better => ("good", "better"),
        Verdict::Worse => ("bad", "worse"),
        Verdict::TooNoisy => ("open", "too noisy to tell"),
        Verdict::TooFew => ("open", "too few rounds to tell"),
    };
    Some(format!(
        "<li><b>{:.2}×</b> {} <span class=\"{class}\">{words}</span></li>\n",
        ratio.summary.median, metric.label
    ))
}

fn legend(report: &Report, page: &mut Page) {
    page.add("<ul class=\"legend\">\n");
    for (number, participant) in report.participants.iter().enumerate() {
        let command = participant.command.as_deref().unwrap_or(&participant.name);
        page.add(&format!(
            "<li title=\"{}\"><span class=\"key {}\"></span>{}</li>\n",
            escaped(command),
            colour(number),
            escaped(&participant.name)
        ));
    }
    page.add("</ul>\n");
}

/// The class of the colour of a participant, by his position.
fn colour(number: usize) -> String {
    format!("c{}", number % style::COLOURS)
}

/// Charts with a bar for each participant: heading, hint, metrics.
const BARS: [(&str, &str, &[&str]); 6] = [
    (
        "Throughput",
        "TCP through the tunnel; more is better.",
        &["tcp_1", "tcp_1_back", "tcp_n", "tcp_n_back", "tcp_both"],
    ),
    (
        "Processor time for a gigabyte",
        "What both ends of the tunnel cost; less is better. The kernel's module works in nobody's name and is seen in the last rows alone.",
        &["tcp_1_cpu", "tcp_n_cpu", "tcp_1_machine_cpu"],
    ),
    (
        "Packets without loss",
        "The best rate at which at most 0.5 % of the datagrams were lost; more is better.",
        &["udp_64", "udp_512", "udp_mtu"],
    ),
    (
        "Requests",
        "Requests and responses of 64 bytes; more is better.",
        &["request_tcp_1", "request_tcp_16", "request_udp_1"],
    ),
    (
        "Round trips",
        "Idle, and while streams fill the tunnel; less is better.",
        &["idle_p50", "idle_p99", "idle_p99_9", "loaded_p50", "loaded_p99"],
    ),
    (
        "Starting and standing",
        "From the command until the first packet; handshakes that one end answers; memory; what it costs to do nothing.",
        &["first_packet", "handshakes", "memory_peak", "idle_cpu"],
    ),
];

fn bars(report: &Report, page: &mut Page) {
    for (title, hint, keys) in BARS {
        let metrics = keys.iter().filter_map(|key| METRICS.iter().find(|m| m.key == *key));
        let charts: String = metrics.filter_map(|metric| bars::chart(report, metric)).collect();
        if !charts.is_empty() {
            let hint = format!(
                "{hint} Bars are medians, lines their 95 % intervals (below 6 rounds: the range), dots the rounds; hollow dots were disturbed."
            );
            page.section(title, &hint, &charts);
        }
    }
}

fn lines(report: &Report, page: &mut Page) {
    for (key, title) in [("tcp_1", "One stream over time"), ("tcp_n", "Several streams over time")]
    {
        if let Some(chart) = lines::over_time(report, key) {
            let hint = "Each 100 ms; the line is the median of the rounds, the band reaches from the lowest to the highest. Without the plain path, whose height would flatten the others.";
            page.section(title, hint, &chart);
        }
    }
    for (when, title) in [("idle", "Round trips, idle"), ("loaded", "Round trips under load")] {
        if let Some(chart) = lines::distribution(report, when) {
            let hint = "The share of round trips that took at most so long, all rounds together. Further left is better; a long way to the top is a long tail.";
            page.section(title, hint, &chart);
        }
    }
}

fn all_numbers(report: &Report, page: &mut Page) {
    let mut rows = String::from("<tr><th scope=\"col\">metric</th><th scope=\"col\">unit</th>");
    for participant in &report.participants {
        rows.push_str(&format!("<th scope=\"col\">{}</th>", escaped(&participant.name)));
    }
    rows.push_str("</tr>\n");
    for metric in METRICS {
        let lines: Vec<Option<&Line>> = report
            .participants
            .iter()
            .map(|participant| report.summary(metric.key, &participant.name))
            .collect();
        if lines.iter().any(Option::is_some) {
            rows.push_str(&row(metric, &lines));
        }
    }
    let hint =
        "Median and interval, and below them the ratio of the first to this one, with its own.";
    page.section(
        "All numbers",
        hint,
        &format!("<div class=\"wide\"><table>\n{rows}</table></div>\n"),
    );
}

fn row(metric: &Metric, lines: &[Option<&Line>]) -> String {
    let mut row = format!(
        "<tr><th scope=\"row\">{}</th><td class=\"unit\">{}</td>",
        metric.label, metric.unit
    );
    for line in lines {
        let Some(line) = line else {
            row.push_str("<td>–</td>");
            continue;
        };
        let summary = &line.summary;
        let ratio = line.ratio.as_ref().map_or_else(String::new, |ratio| {
            let words = ratio.verdict.map_or("", Verdict::words);
            let Summary { median, low, high, .. } = ratio.summary;
            format!("<br>{median:.2}× {words} ({low:.2}–{high:.2})")
        });
        row.push_str(&format!(
            "<td>{}<small>{}–{}{ratio}</small></td>",
            digits(summary.median),
            digits(summary.low),
            digits(summary.high)
        ));
    }
    row.push_str("</tr>\n");
    row
}

fn notes(report: &Report, page: &mut Page) {
    let noisy = report.samples.iter().filter(|sample| sample.noisy).count();
    let mut notes = vec![format!(
        "{noisy} of {} measurements were disturbed: others used more than 12 % of the processors, \
         or the hypervisor took as much. They count all the same.",
        report.samples.len()
    )];
    notes.extend(table::processors(report).map(|processors| format!("{processors}.")));
    let outliers = report.summaries.iter().filter(|line| !line.summary.outliers.is_empty());
    notes.extend(outliers.map(|line| {
        let values: Vec<String> = line.summary.outliers.iter().map(|&v| digits(v)).collect();
        format!(
            "outlier: {} {}: {} {}",
            line.participant,
            line.metric,
            values.join(", "),
            line.unit
        )
    }));
    notes.extend(table::errors(report).into_iter().map(|error| format!("not measured: {error}")));
    let items: String = notes.iter().map(|note| format!("<li>{}</li>\n", escaped(note))).collect();
    page.section("To be known", "Nothing is thrown away.", &format!("<ul>\n{items}</ul>\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::testing;

    #[test]
    fn a_page_needs_nothing_from_anywhere() {
        let page = render(&testing::report());
        for word in ["http", "src=", "url(", "@import", "<script", "<link"] {
            assert!(!page.contains(word), "`{word}` is in the page");
        }
    }

    #[test]
    fn tags_are_closed_and_what_is_not_ours_is_escaped() {
        let page = render(&testing::report());
        for tag in ["main", "section", "svg", "table", "ul", "li", "g", "text", "dl", "td"] {
            let open = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            let closed = page.matches(&format!("</{tag}>")).count();
            assert_eq!(open, closed, "{tag}");
        }
        assert!(page.contains("A &lt;processor&gt;") && !page.contains("<processor>"));
        assert!(!page.contains("NaN") && !page.contains("inf"), "a coordinate is no number");
    }

    #[test]
    fn every_metric_that_was_measured_is_in_it_with_its_verdict() {
        let page = render(&testing::report());
        assert!(page.contains("<b>2.00×</b> TCP, 1 stream <span class=\"good\">better</span>"));
        for label in ["TCP, several streams", "round trip, p50", "UDP, packets of 64 bytes"] {
            assert!(page.contains(label), "{label}");
        }
        assert!(page.contains("3 of 18 measurements were disturbed"));
        assert!(page.contains("the cores ran at 2300"));
    }

    #[test]
    fn a_report_without_samples_is_a_page_too() {
        let mut report = testing::report();
        report.samples.clear();
        report.latencies.clear();
        report.summarize();
        assert!(render(&report).contains("0 of 0 measurements"));
    }
}
