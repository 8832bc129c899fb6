//! Why a measurement did not take place.

use std::io;

use super::load::Outcome;
use crate::control::netlink::NetlinkError;
use crate::control::uapi::client::ClientError;
use crate::sys::SysError;
use crate::sys::tun::TunError;

/// Why something could not be measured. A run goes on with the next thing, unless it was
/// interrupted.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Sys(#[from] SysError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Device(#[from] ClientError),
    #[error(transparent)]
    Tun(#[from] TunError),
    /// Something of the operating system's, and what it was needed for.
    #[error("{what}")]
    Io { what: String, source: io::Error },
    /// A program under test that ended, or did not do what all do; with the end of what it printed.
    #[error("{program} {what}{}", said(.log))]
    Program { program: String, what: String, log: String },
    /// A load generator that failed, in its own words.
    #[error("{task}: {reason}")]
    Load { task: &'static str, reason: String },
    /// Nothing came back where something must have.
    #[error("{0}")]
    Silent(String),
}

impl BenchError {
    /// For `map_err`: says what an error of the operating system stood in the way of.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }

    /// The generator gave the outcome of another task, which only a defect of ours can cause.
    pub fn mismatch(task: &'static str, outcome: &Outcome) -> Self {
        Self::Load { task, reason: format!("an outcome of another kind: {outcome:?}") }
    }

    /// With all its causes, in one line.
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}

fn said(log: &str) -> String {
    if log.is_empty() { "; it printed nothing".to_owned() } else { format!("; it printed: {log}") }
}
