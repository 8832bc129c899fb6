//! `hybridwg check FILE|NAME`.

use serde::Serialize;

use crate::cli::args;
use crate::cli::file;
use crate::cli::message::{self, Failure};
use crate::control::check::{self, Finding, Judgement, Severity, excerpt};

/// One finding in JSON.
#[derive(Serialize)]
struct Entry<'a> {
    severity: &'static str,
    line: Option<usize>,
    text: &'a str,
}

/// All that was found, in JSON.
#[derive(Serialize)]
struct Report<'a> {
    file: String,
    findings: Vec<Entry<'a>>,
}

/// Prints what is wrong or odd about a file.
///
/// # Errors
/// [`Failure::Judged`] with 1 if there is something to warn of, with 2 if there is a fault;
/// [`Failure::Usage`] if the file cannot be read.
pub fn run(arguments: &args::Check) -> Result<(), Failure> {
    let located = file::find(&arguments.tunnel.config)?;
    let Judgement { findings, source } = check::check(&located).map_err(file::unusable)?;
    let file = located.path.display().to_string();
    let text = if arguments.json {
        let entries = findings.iter().map(|finding| Entry {
            severity: finding.severity.name(),
            line: finding.line,
            text: &finding.text,
        });
        let report = Report { file, findings: entries.collect() };
        format!("{}\n", serde_json::to_string(&report)?)
    } else {
        let lines: Vec<&str> = source.lines().collect();
        findings.iter().map(|finding| paragraph(&file, &lines, finding)).collect()
    };
    message::result(&text)?;
    match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Fault) => Err(Failure::Judged(2)),
        Some(Severity::Warning) => Err(Failure::Judged(1)),
        Some(Severity::Note) | None => Ok(()),
    }
}

/// The finding, and the line that it is about with a mark under it.
fn paragraph(file: &str, lines: &[&str], finding: &Finding) -> String {
    let Finding { severity, line, text, mark, .. } = finding;
    let severity = severity.name();
    let Some(number) = line else { return format!("{file}: {severity}: {text}\n") };
    let head = format!("{file}:{number}: {severity}: {text}\n");
    let Some(line) = lines.get(number - 1).filter(|_| !finding.is_hidden) else { return head };
    let (shown, range) = excerpt(line, mark.as_deref());
    let margin = number.to_string();
    let (blank, indent) = (" ".repeat(margin.len()), " ".repeat(range.start));
    let carets = "^".repeat(range.len());
    format!("{head}  {margin} | {shown}\n  {blank} | {indent}{carets}\n")
}
