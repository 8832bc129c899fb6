//! The one place that prints.
//!
//! Results go to standard output, everything else to standard error. Nobody reading any more is no
//! failure: the text had no other purpose.

use std::io::{self, IsTerminal, Write};

use crate::control::lifecycle::Console;

/// Why a command failed, and with which exit status.
///
/// Every error of a library becomes [`Failure::Run`] by `?`.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage or configuration: exit status 2.
    Usage(Explained),
    /// It failed at run time: exit status 1.
    Run(Explained),
    /// Exit status 1, and the user has been told.
    Told,
    /// A measurement is worse than an earlier one: exit status 3, and the user has been told.
    Worse,
    /// The exit status of our own process in an enclosure, which has told the user.
    Inside(u8),
    /// This exit status is what a file was judged.
    Judged(u8),
}

/// An error, and perhaps what to do about it.
#[derive(Debug)]
pub struct Explained {
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(Explained { error: error.into(), hint: None })
    }

    pub fn run(error: impl Into<anyhow::Error>) -> Self {
        Self::Run(Explained { error: error.into(), hint: None })
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Usage(explained) | Self::Run(explained) = &mut self {
            explained.hint = Some(text.into());
        }
        self
    }

    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Run(_) | Self::Told => 1,
            Self::Worse => 3,
            Self::Inside(status) => *status,
            Self::Judged(status) => *status,
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::run(error)
    }
}

/// The result of a command, as it is.
///
/// # Errors
/// If standard output cannot be written to, unless it is a pipe that nobody reads any more.
pub fn result(text: &str) -> Result<(), Unwritten> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.map_err(Unwritten),
    }
}

/// The result did not get out, as on a disk that is full.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub struct Unwritten(#[source] io::Error);

/// A step that is about to be taken, in the form that scripts know from wg-quick.
pub fn step(text: &str) {
    line(&format!("[#] {text}"));
}

/// Something odd that does not stop the work.
pub fn warning(text: &str) {
    line(&format!("Warning: {text}"));
}

/// Why an interface was passed over, in the words of `wg`.
pub fn inaccessible(interface: &str, reason: &str) {
    line(&format!("Unable to access interface {interface}: {reason}"));
}

/// Text for a person who waits.
pub fn note(text: &str) {
    line(text);
}

/// The whole chain of causes, and the hint.
pub fn failure(failure: &Failure) {
    if let Failure::Usage(explained) | Failure::Run(explained) = failure {
        line(&format!("hybridwg: {:#}", explained.error));
        if let Some(hint) = &explained.hint {
            line(&format!("hint: {hint}"));
        }
    }
}

/// Whether a person sees what is said.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// How many characters a line of the result has room for, where it goes to a terminal.
pub fn columns() -> Option<u16> {
    rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col).filter(|&it| it > 0)
}

/// Whether the result is coloured: `WG_COLOR_MODE` is `always`, `never` or `auto`, which is a
/// terminal.
pub fn is_coloured() -> bool {
    match std::env::var("WG_COLOR_MODE").as_deref() {
        Ok("always") => true,
        Ok("never") => false,
        Ok(_) | Err(_) => io::stdout().is_terminal(),
    }
}

/// Standard error, for code that does not know it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terminal;

impl Console for Terminal {
    fn command(&mut self, line: &str) {
        step(line);
    }

    fn warn(&mut self, text: &str) {
        warning(text);
    }
}

/// There is nobody left to tell if standard error fails.
fn line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_status_1_is_a_failure_and_2_the_fault_of_whoever_typed() {
        assert_eq!(Failure::from(io::Error::other("x")).exit_status(), 1);
        assert_eq!(Failure::Told.exit_status(), 1);
        assert_eq!(Failure::Inside(3).exit_status(), Failure::Worse.exit_status());
        assert_eq!(Failure::usage(anyhow::anyhow!("x")).with_hint("y").exit_status(), 2);
    }
}
