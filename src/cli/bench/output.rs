//! Where results go: files, and what an earlier run is compared with.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Serialize;

use super::args::Output;
use crate::bench::compare::{self, Comparison};
use crate::bench::metric::Group;
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
        self.compare
            .as_deref()
            .map(|path| check_uncovered(path).and_then(|()| read(path)))
            .transpose()
    }

    /// That `--compare` will have something to say.
    ///
    /// # Errors
    /// [`Failure::Usage`]: the earlier run has nothing that this one measures.
    pub fn check_earlier(
        &self,
        earlier: Option<&Report>,
        first: &str,
        groups: &[Group],
    ) -> Result<(), Failure> {
        let (Some(path), Some(earlier)) = (&self.compare, earlier) else { return Ok(()) };
        let refused = |why| Failure::usage(anyhow!("--compare {}: {why}", path.display()));
        compare::check(earlier, first, groups).map_err(refused)
    }

    /// Writes the files and shows the report.
    ///
    /// # Errors
    /// A file that cannot be written; [`Failure::Worse`] if something is worse than before.
    pub fn deliver(&self, report: &Report, earlier: Option<&Report>) -> Result<(), Failure> {
        let written = self.write(report);
        // Also if a disk is full: it is all that is left then.
        message::result(&table::render(report))?;
        written?;
        let Some(earlier) = earlier else { return Ok(()) };
        for difference in compare::differences(report, earlier) {
            message::warning(&format!("the runs are hard to compare: {difference}"));
        }
        let comparison = Comparison::of(report, earlier, self.tolerance / 100.0);
        message::result(&format!("\n{}", comparison.render()))?;
        // What became of the others tells of the machine.
        let first = report.participants.first();
        if first.is_some_and(|first| comparison.is_worse(&first.name)) {
            return Err(Failure::Worse);
        }
        Ok(())
    }

    fn write(&self, report: &Report) -> Result<(), Failure> {
        if let Some(path) = &self.json {
            write_json(path, report)?;
        }
        self.html.as_deref().map_or(Ok(()), |path| write(path, &html::render(report)))
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

/// A result shall not be lost after all has been measured: whether it can be written.
///
/// # Errors
/// [`Failure::Usage`]
pub fn check_writable(path: &Path) -> Result<(), Failure> {
    let outcome = if is_replaced(path) {
        let part = part(path);
        create_part(&part).and_then(|_| fs::remove_file(&part))
    } else {
        OpenOptions::new().append(true).open(path).map(drop)
    };
    outcome.with_context(|| format!("cannot write {}", path.display())).map_err(Failure::usage)
}

/// As [`check_writable`], for what is written from inside an enclosure.
///
/// # Errors
/// [`Failure::Usage`]
pub fn check_folder(path: &Path) -> Result<(), Failure> {
    check_writable(path)?;
    check_uncovered(path)
}

/// That a file can be seen from inside an enclosure.
///
/// # Errors
/// [`Failure::Usage`]
pub fn check_uncovered(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let real = fs::canonicalize(folder.unwrap_or(Path::new(".")));
    let real = real.with_context(|| format!("cannot use {shown}")).map_err(Failure::usage)?;
    if real.starts_with(enclosure::covered_folder("the benchmark")?) {
        let error = anyhow!("cannot use {shown}: /var/run is covered while it is measured");
        return Err(Failure::usage(error).with_hint("choose another folder"));
    }
    Ok(())
}

/// As a whole or not at all; what is no file, as `/dev/stdout`, is written to.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = if is_replaced(path) {
        let part = part(path);
        let outcome = create_part(&part)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&part, path));
        // Half of a file helps nobody, and whether it goes as well changes nothing.
        outcome.inspect_err(|_| drop(fs::remove_file(&part)))
    } else {
        fs::write(path, text)
    };
    written.with_context(|| format!("cannot write {}", path.display())).map_err(Failure::run)
}

/// Whether a file is put in its place, or nothing is there yet.
fn is_replaced(path: &Path) -> bool {
    fs::symlink_metadata(path).map_or(true, |found| found.is_file())
}

/// Beside the file, since only within a file system can it be put in its place.
fn part(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// Always a new one: in a folder of everybody's, somebody could have put a link there.
fn create_part(part: &Path) -> io::Result<File> {
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).open(part)
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
    }

    #[test]
    fn nobody_elses_file_is_written_through_a_link_and_what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("theirs"), "theirs").unwrap();
        std::os::unix::fs::symlink(path("theirs"), path("new.json.part")).unwrap();
        check_writable(&path("new.json")).unwrap();
        std::os::unix::fs::symlink(path("theirs"), path("new.json.part")).unwrap();
        write(&path("new.json"), "ours").unwrap();
        assert_eq!(fs::read_to_string(path("theirs")).unwrap(), "theirs");
        assert_eq!(fs::read_to_string(path("new.json")).unwrap(), "ours");

        // As /dev/stdout is one.
        std::os::unix::fs::symlink("/dev/null", path("out")).unwrap();
        check_writable(&path("out")).unwrap();
        write(&path("out"), "ours").unwrap();
        assert!(fs::symlink_metadata(path("out")).unwrap().is_symlink());
    }

    #[test]
    fn whether_a_result_can_be_written_is_known_beforehand() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_writable(&folder.path().join("x.json")).is_ok());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        assert!(check_writable(folder.path()).is_err(), "a folder");
        assert!(check_folder(&folder.path().join("none/x.json")).is_err());
    }
}
