//! Where results go: files, and what an earlier run is compared with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Serialize;

use super::args::Output;
use crate::bench::compare::{self, Kind};
use crate::bench::report::{Report, SCHEMA};
use crate::bench::{html, table};
use crate::cli::enclosure;
use crate::cli::message::{self, Failure};

impl Output {
    /// Reads the earlier run, and looks whether files can be written, before anything is measured.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a file that cannot be read, is no report, or has no folder.
    pub fn prepare(&self) -> Result<Option<Report>, Failure> {
        for path in [&self.json, &self.html].into_iter().flatten() {
            check_folder(path)?;
        }
        self.compare.as_deref().map(read).transpose()
    }

    /// Shows the report and writes the files.
    ///
    /// # Errors
    /// A file that cannot be written; [`Failure::Worse`] if something is worse than before.
    pub fn deliver(&self, report: &Report, earlier: Option<&Report>) -> Result<(), Failure> {
        message::result(&table::render(report))?;
        if let Some(path) = &self.json {
            write_json(path, report)?;
        }
        if let Some(path) = &self.html {
            write(path, &html::render(report))?;
        }
        let Some(earlier) = earlier else { return Ok(()) };
        for difference in compare::differences(report, earlier) {
            message::warning(&format!("the runs are hard to compare: {difference}"));
        }
        let changes = compare::changes(report, earlier, self.tolerance / 100.0);
        message::result(&format!("\n{}", compare::render(&changes)))?;
        if changes.iter().any(|change| change.kind == Kind::Worse) {
            return Err(Failure::Worse);
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Report, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"));
    let text = text.map_err(Failure::usage)?;
    let schema = serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .and_then(|value| value.get("schema")?.as_str().map(str::to_owned));
    if schema.as_deref() != Some(SCHEMA) {
        let found = schema.map_or_else(|| "none".to_owned(), |schema| format!("`{schema}`"));
        let error = anyhow!("{shown} is no result of this version: schema {found}, not `{SCHEMA}`");
        return Err(Failure::usage(error).with_hint("`--json FILE` writes one"));
    }
    let report = serde_json::from_str(&text).with_context(|| format!("{shown} is damaged"));
    report.map_err(Failure::usage)
}

/// # Errors
/// It cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    write(path, &text)
}

/// A result shall not be lost after all has been measured: whether its folder is there, as it is
/// really called.
///
/// # Errors
/// [`Failure::Usage`]
pub fn check_parent(path: &Path) -> Result<PathBuf, Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let real = fs::canonicalize(&folder);
    real.with_context(|| format!("cannot write {}", path.display())).map_err(Failure::usage)
}

/// As [`check_parent`], for what is written from inside an enclosure.
///
/// # Errors
/// [`Failure::Usage`]
pub fn check_folder(path: &Path) -> Result<(), Failure> {
    let real = check_parent(path)?;
    let shown = path.display();
    if real.starts_with(enclosure::covered_folder("the benchmark")?) {
        let error = anyhow!("cannot write {shown}: /var/run is covered while it is measured");
        return Err(Failure::usage(error).with_hint("choose another folder"));
    }
    Ok(())
}

/// As a whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let written = fs::write(&part, text).and_then(|()| fs::rename(&part, path));
    written.with_context(|| format!("cannot write {}", path.display())).map_err(Failure::run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_report_is_refused_with_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.json");
        for text in
            ["", "{}", r#"{"schema": "hybridwg-bench/0"}"#, r#"{"schema": "hybridwg-bench/1"}"#]
        {
            fs::write(&path, text).unwrap();
            let failure = read(&path).unwrap_err();
            assert_eq!(failure.exit_status(), 2, "{text}");
        }
        assert_eq!(read(&folder.path().join("none")).unwrap_err().exit_status(), 2);
    }

    #[test]
    fn a_result_replaces_an_older_one_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.json");
        for text in ["one", "two"] {
            write(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(check_folder(&folder.path().join("none/x.json")).is_err());
        assert!(check_folder(Path::new("x.json")).is_ok());
    }
}
