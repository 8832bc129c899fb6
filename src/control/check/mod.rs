//! What is wrong or odd about a configuration file, on the host that reads it.
//!
//! Judges without changing anything and without rights beyond reading the file. The judgement is
//! pure: the [`Surroundings`] are gathered first. Faults keep `up` from working, warnings are seldom
//! meant, notes are worth knowing. What a file without faults is held against stands in [`lints`].

mod excerpt;
mod lints;
mod surroundings;

use std::path::Path;

use zeroize::Zeroizing;

pub use self::excerpt::excerpt;
pub use self::surroundings::Surroundings;
use crate::control::config::{
    self, Config, ConfigError, Key, LoadError, Located, Problem, Read, Sources, Warning, Written,
};
use crate::control::ends::Mode;
use crate::control::preflight::{self, Missing};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Note,
    Warning,
    Fault,
}

impl Severity {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// Counted from 1; `None` if it is about the file as a whole.
    pub line: Option<usize>,
    pub text: String,
    /// The part of the line that it is about, if not its value.
    pub mark: Option<String>,
    /// Its line may hold a password where none belongs, and is not shown.
    pub is_hidden: bool,
    /// Whose line it is, where the line is not known yet; `mark` stands in it.
    key: Option<Key>,
}

impl Finding {
    fn new(severity: Severity, line: Option<usize>, text: impl Into<String>) -> Self {
        Self { severity, line, text: text.into(), mark: None, is_hidden: false, key: None }
    }

    fn warning(line: usize, text: impl Into<String>) -> Self {
        Self::new(Severity::Warning, Some(line), text)
    }

    /// About this part of what the file says by `key`.
    fn about(severity: Severity, key: Key, part: impl ToString, text: String) -> Self {
        let found = Self::new(severity, None, text);
        Self { key: Some(key), mark: Some(part.to_string()), ..found }
    }
}

/// What there is to say about a file, in the order of its lines, and its text.
#[derive(Debug)]
pub struct Judgement {
    pub findings: Vec<Finding>,
    /// It holds keys: see [`excerpt`] for what of it may be shown.
    pub source: Zeroizing<String>,
}

/// Judges a file.
///
/// # Errors
/// The file cannot be read.
pub fn check(located: &Located) -> Result<Judgement, LoadError> {
    let sources = Sources::read(&located.path)?;
    let name = located.path.display().to_string();
    let mut findings = Vec::new();
    for exposed in sources.exposed() {
        let text = format!("`{exposed}' is world accessible, and the keys in it with it");
        findings.push(Finding::new(Severity::Warning, None, text));
    }
    match sources.parse(&[]) {
        Err(errors) => findings.extend(errors.iter().map(|error| fault(error, &name))),
        Ok(Written { mut config, warnings }) => {
            findings.extend(warnings.iter().map(|warning| {
                let Warning { file, line, .. } = warning;
                told_of(&name, file, *line, Severity::Warning, warning.text())
            }));
            findings.extend(about_keys(&mut config, &located.path, &name));
            let interface = &located.interface;
            // Without them, as where netlink is forbidden, the file is judged by itself.
            let host = surroundings::gather(&config, interface).unwrap_or_default();
            findings.extend(about_machine(&config));
            let subject = lints::Subject { config: &config, interface, host: &host };
            let found = lints::all(&subject).into_iter();
            findings.extend(found.map(|finding| located_in(finding, &config, &name)));
        }
    }
    let source = sources.text().clone();
    for finding in findings.iter_mut().filter(|finding| finding.line.is_none()) {
        let part = finding.mark.as_deref().unwrap_or_default();
        finding.line = finding.key.and_then(|key| config::line_with(&source, key, part));
    }
    findings.sort_by_key(|finding| finding.line);
    Ok(Judgement { findings, source })
}

/// About a line of `file`. If that is another file than `name`, which that one names, it is told.
fn told_of(name: &str, file: &str, line: Option<usize>, severity: Severity, text: &str) -> Finding {
    match line {
        Some(number) if file != name => {
            Finding::new(severity, None, format!("{file}:{number}: {text}"))
        }
        line => Finding::new(severity, line, text),
    }
}

/// The lines of all texts are counted through.
fn located_in(finding: Finding, config: &Config, name: &str) -> Finding {
    let Some(line) = finding.line else { return finding };
    match config.texts.place(line) {
        (file, line) if file != name => {
            Finding { line: None, text: format!("{file}:{line}: {}", finding.text), ..finding }
        }
        (_, line) => Finding { line: Some(line), ..finding },
    }
}

fn fault(error: &ConfigError, name: &str) -> Finding {
    let prefix = format!("{}:{}: ", error.file, error.line);
    let text = error.to_string();
    if error.file != name {
        return Finding::new(Severity::Fault, None, text);
    }
    let text = text.strip_prefix(&prefix).unwrap_or(&text);
    let mark = match &error.problem {
        Problem::BadValue { read: Read::Text(text), .. }
        | Problem::UnknownKey { read: Read::Text(text), .. }
        | Problem::UnknownSection { read: Read::Text(text), .. } => Some(text.clone()),
        _ => None,
    };
    let is_hidden = error.may_hold_password();
    Finding { mark, is_hidden, ..Finding::new(Severity::Fault, Some(error.line), text) }
}

/// What this machine lacks for the file's mode. What depends on who brings the tunnel up is told only where
/// the file insists on an interface.
fn about_machine(config: &Config) -> Vec<Finding> {
    let mode = config.interface.ends.mode.map(|mode| mode.value);
    let missing = match mode {
        Some(Mode::Rootless) => preflight::of_flows(),
        Some(Mode::Tun | Mode::Auto) | None => preflight::of_tun_mode(config),
    };
    let is_told = |missing: &&Missing| mode == Some(Mode::Tun) || !missing.is_a_right();
    let found = missing.iter().filter(is_told);
    found.map(|it| Finding::new(Severity::Note, None, preflight::tell_shortly(it))).collect()
}

/// Keys that stand elsewhere. A file that only root may read says nothing to others.
fn about_keys(config: &mut Config, path: &Path, name: &str) -> Vec<Finding> {
    let errors = config::fetch_keys(config, path).err().unwrap_or_default();
    let found = errors.into_iter().map(|error| {
        let severity = if error.problem.is_denied() { Severity::Note } else { Severity::Fault };
        let text = format!("{}: {}", error.key.name(), error.problem);
        told_of(name, &error.file, Some(error.line), severity, &text)
    });
    found.collect()
}
