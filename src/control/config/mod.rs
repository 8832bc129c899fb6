//! Configuration files in the format of wg(8) and wg-quick(8), read strictly.
//!
//! Guarantees: all faults of a file are reported at once, each with its line, the key, what was
//! read and what is accepted; nothing is skipped because it is not understood; no message repeats
//! a key.
//!
//! Keys of our own stand in comments, `#hybridwg: Key = value`, so that wg-quick can read the same
//! file; without the comment they are understood as well, and by us alone.
//!
//! The sections of wireproxy's files are understood as well ([`parse`]), as aliases of keys of ours.
//!
//! Deliberately stricter than `wg`: ports are numbers, not service names; a decimal FwMark has no
//! leading zero (which `wg` reads as octal); names are checked for their characters.

mod edit;
mod file;
mod lex;
mod model;
mod parse;
mod render;
mod secret;
mod strip;
mod value;
mod warn;

#[cfg(test)]
mod tests;

use std::fmt;

pub use edit::{State, line_of_peer, with_peer};
pub use file::{
    DIRECTORY, Folder, Lines, LoadError, LocateError, Located, Sources, create, given, load,
    load_text, load_with, locate, place, read, replace, stripped, updated,
};
pub use lex::{Key, Reader, Section, line_with};
pub use model::{At, Config, Dns, Endpoint, Ends, Interface, Masquerade, MergedPeer, Peer, Table};
pub use parse::{Text, TextKind, parse, parse_all};
pub use render::render;
pub use secret::{KeySource, SecretError, SecretProblem, fetch_keys};
pub use value::{parse_dns, parse_endpoint, parse_host, parse_network};

/// A file that was understood, and what is odd about it.
#[derive(Clone, Debug)]
pub struct Written {
    pub config: Config,
    pub warnings: Vec<Warning>,
}

/// Something legal that is seldom meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub file: String,
    /// Counted from 1; `None` if it is about the file as a whole, which `text` then names.
    pub line: Option<usize>,
    text: String,
}

impl Warning {
    /// What is odd, without file and line.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// One fault of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// If the line has a key that is known.
    pub key: Option<Key>,
    pub problem: Problem,
}

impl ConfigError {
    /// Whether a password may stand anywhere in the line: its name may be what is misspelt.
    pub fn may_hold_password(&self) -> bool {
        let is_proxy = |key| matches!(key, Key::Socks5 | Key::HttpProxy | Key::Proxy);
        if self.key.is_some_and(is_proxy) {
            return true;
        }
        match &self.problem {
            Problem::NotAPair { read } | Problem::BadValue { read, .. } => *read == Read::Password,
            Problem::UnknownKey { nearest, .. } => nearest.is_none_or(is_proxy),
            Problem::UnknownForeignKey { .. } | Problem::NoEqualsSign | Problem::NotAlone => true,
            _ => false,
        }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if let Some(key) = self.key {
            write!(f, "{}: ", key.name())?;
        }
        match (&self.problem, self.key) {
            (Problem::WrongSection { here }, Some(key)) => {
                write!(f, "belongs into [{}], not into [{}]", key.section().name(), here.name())
            }
            (problem, _) => problem.fmt(f),
        }
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    NotAPair {
        read: Read,
    },
    NoEqualsSign,
    UnknownKey {
        read: Read,
        nearest: Option<Key>,
        here: Option<Section>,
    },
    UnknownSection {
        read: Read,
        nearest: Option<Section>,
    },
    NoHybridSection,
    /// A key of `wg` or wg-quick in a comment that only we read.
    NotOurs,
    /// A key of our own in a comment that is almost as it must be.
    Misspelt,
    /// A comment for us behind a value.
    NotAlone,
    /// A key, and also the place where it is.
    Twice {
        beside: Key,
    },
    /// It says nothing by itself.
    Needs {
        what: &'static str,
    },
    NoSection,
    WrongSection {
        here: Section,
    },
    BadValue {
        read: Read,
        accepted: &'static str,
    },
    BadKey {
        read: BadKey,
        accepted: &'static str,
    },
    MissingPublicKey,
    /// Something else listens there.
    Taken {
        line: usize,
    },
    /// A proxy without a password, where other hosts reach it.
    LeftOpen {
        listen: String,
    },
    /// A section among lines of one.
    NoSectionHere,
    /// A key of `wg` or wg-quick beside the file.
    OnlyOurs,
    /// Where it would be written down.
    PasswordHere,
    /// A comment for us in a section of wireproxy's.
    ForeignSection,
    UnknownForeignKey {
        read: Read,
        section: &'static str,
        keys: &'static [&'static str],
    },
    MissingForeignKey {
        section: &'static str,
        key: &'static str,
    },
    NoTls,
    /// `$NAME` in a section of wireproxy's.
    NoVariableHere,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPair { read } => {
                write!(f, "read {read}, expected `Key = value` or `[Section]`")
            }
            Self::NoEqualsSign => f.write_str("there is no `=` between the key and its value"),
            Self::UnknownKey { read, nearest: Some(key), .. } => {
                write!(f, "unknown key {read}, did you mean {}?", key.name())
            }
            Self::UnknownKey { read, nearest: None, here: Some(section) } => {
                let keys: Vec<_> = section.keys().map(Key::name).collect();
                let (name, keys) = (section.name(), keys.join(", "));
                write!(f, "unknown key {read}, [{name}] takes {keys}")
            }
            Self::UnknownKey { read, nearest: None, here: None } => {
                write!(f, "unknown key {read}")
            }
            Self::UnknownSection { read, nearest: Some(section) } => {
                write!(f, "unknown section {read}, did you mean [{}]?", section.name())
            }
            Self::UnknownSection { read, nearest: None } => {
                write!(f, "unknown section {read}, expected [Interface] or [Peer]")
            }
            Self::NoHybridSection => f.write_str(
                "there is no section [Hybrid]: its keys stand in [Interface], behind \
                     `#hybridwg:` if wg-quick reads the file too",
            ),
            Self::NotOurs => f.write_str(
                "wg-quick knows this key, and shall not miss it: write it without the comment",
            ),
            Self::Misspelt => f.write_str("to be read, the line must begin with `#hybridwg:`"),
            Self::NotAlone => {
                f.write_str("`#hybridwg:` is read only where it begins a line, not after a value")
            }
            Self::Twice { beside } => {
                write!(f, "stands beside {}: one of the two must go", beside.name())
            }
            Self::Needs { what } => write!(f, "takes effect only with {what}"),
            Self::NoSection => f.write_str("stands before the first [Interface] or [Peer]"),
            Self::WrongSection { here } => write!(f, "does not belong into [{}]", here.name()),
            Self::BadValue { read, accepted } => write!(f, "read {read}, accepted is {accepted}"),
            Self::BadKey { read: BadKey::Placeholder, accepted } => {
                write!(f, "this is a placeholder, to be replaced by {accepted}")
            }
            Self::BadKey { read, accepted } => write!(f, "read {read}, accepted is {accepted}"),
            Self::MissingPublicKey => f.write_str("this [Peer] has no PublicKey"),
            Self::Taken { line } => write!(f, "line {line} has the same place already"),
            Self::LeftOpen { listen } => write!(
                f,
                "everybody who reaches {listen} would be let in: `user=` and `passfile=` say who \
                 may, and `open=yes` that all may"
            ),
            Self::NoSectionHere => f.write_str("only lines of [Interface] stand here"),
            Self::OnlyOurs => f.write_str("belongs into the file: only keys of our own stand here"),
            Self::PasswordHere => f.write_str(
                "a password stands in the file or, with `passfile=env:NAME` or `passfile=PATH`, \
                 outside of it, and not here",
            ),
            Self::ForeignSection => f.write_str("belongs into [Interface] or [Peer]"),
            Self::UnknownForeignKey { read, section, keys } => {
                write!(f, "unknown key {read}, [{section}] takes {}", keys.join(", "))
            }
            Self::MissingForeignKey { section, key } => write!(f, "this [{section}] has no {key}"),
            Self::NoVariableHere => f.write_str(
                "`$NAME` is read in PrivateKey and Password alone: write here what is meant",
            ),
            Self::NoTls => f.write_str(
                "a proxy over TLS is not supported: put what ends TLS in front of a proxy on \
                 127.0.0.1",
            ),
        }
    }
}

/// What stood in the file, as far as it may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    Text(String),
    Nothing,
    /// It is a key or could be one.
    Secret,
    /// It could be a password.
    Password,
}

impl Read {
    fn of(text: &str) -> Self {
        const SHOWN: usize = 60;
        Self::at_most(SHOWN, text)
    }

    /// In place of a number: what is longer is none, whatever else it is.
    fn of_number(text: &str) -> Self {
        const SHOWN: usize = 16;
        Self::at_most(SHOWN, text)
    }

    fn at_most(shown: usize, text: &str) -> Self {
        /// A key has 43 characters; what is left of a damaged one should not be shown either.
        const SUSPICIOUS: usize = 30;
        let base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
        if text.is_empty() {
            Self::Nothing
        } else if text.split(|c| !base64(c)).any(|run| run.len() >= SUSPICIOUS) {
            Self::Secret
        } else if text.chars().count() > shown {
            Self::Text(text.chars().take(shown).chain(['…']).collect())
        } else {
            Self::Text(text.to_owned())
        }
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Debug form, so that a terminal is not sent what a file says.
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Nothing => f.write_str("nothing"),
            Self::Secret => f.write_str("something that could be a key (not shown)"),
            Self::Password => f.write_str("something that could be a password (not shown)"),
        }
    }
}

/// What stood in the place of a key. It is not repeated: it may be one that was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKey {
    Nothing,
    /// A word of a template, such as `CLIENT_PRIVATE_KEY`.
    Placeholder,
    /// Characters, white space left out.
    Length(usize),
    /// The right length.
    NotBase64,
}

impl BadKey {
    const LENGTH: usize = 44;

    fn of(text: &str) -> Self {
        let length = text.chars().filter(|c| !c.is_whitespace()).count();
        match length {
            0 => Self::Nothing,
            Self::LENGTH => Self::NotBase64,
            // One character less is a slip, as in copying.
            _ if length != Self::LENGTH - 1 && is_placeholder(text) => Self::Placeholder,
            _ => Self::Length(length),
        }
    }
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Placeholder => f.write_str("a placeholder"),
            Self::Length(1) => write!(f, "1 character in place of {}", Self::LENGTH),
            Self::Length(length) => write!(f, "{length} characters in place of {}", Self::LENGTH),
            Self::NotBase64 => write!(f, "{} characters that are not a key", Self::LENGTH),
        }
    }
}

/// Whether a text that is no key was never meant to be one: words, brackets, a variable.
fn is_placeholder(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    text.starts_with(['<', '[', '{', '(', '$', '%'])
        || text.contains(['_', '…'])
        || lower.contains("...")
        || ["key", "your", "xxx", "change", "todo", "insert", "replace"]
            .iter()
            .any(|word| lower.contains(word))
}
