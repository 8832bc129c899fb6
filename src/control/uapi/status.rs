//! The text of a [`Status`], both ways: `offloads=` and names separated by commas, `port=random` or
//! `port=given`.
//!
//! Other implementations refuse the request, and clients that have not asked never see the answer.

use super::get::{ReplyError, errno_of};
use super::{Operation, reply};
use crate::control::settings::{Offloads, Status};

/// The request.
pub const REQUEST: &str = "status=1\n\n";

/// The reply.
pub fn render(status: Status) -> String {
    let port = if status.port_is_random { "random" } else { "given" };
    format!("offloads={}\nport={port}\n{}", status.offloads, reply(Operation::Get, Ok(())))
}

/// Reads a reply line by line. Keys of later versions are skipped.
#[derive(Debug, Default)]
pub struct StatusParser {
    offloads: Option<Offloads>,
    port_is_random: bool,
    errno: Option<i64>,
}

impl StatusParser {
    /// Takes the line of that number, counted from 1; yields the status after the last.
    ///
    /// # Errors
    /// [`ReplyError::Malformed`] for what is no reply, [`ReplyError::Refused`] if the device said so.
    pub fn line(&mut self, number: usize, line: &str) -> Result<Option<Status>, ReplyError> {
        let malformed = ReplyError::Malformed { line: number };
        match (line.split_once('='), self.errno, self.offloads) {
            (Some(("offloads", names)), ..) => {
                let known = names.split(',').filter_map(|name| name.parse().ok());
                let none = Offloads::NONE;
                self.offloads = Some(known.fold(none, |all, one| all.with(one, true)));
            }
            (Some(("port", origin)), ..) => self.port_is_random = origin == "random",
            (Some(("errno", number)), ..) => {
                self.errno = Some(number.parse().map_err(|_| malformed)?);
            }
            (Some(_), ..) => {}
            (None, Some(0), Some(offloads)) if line.is_empty() => {
                return Ok(Some(Status { offloads, port_is_random: self.port_is_random }));
            }
            (None, Some(number), _) if line.is_empty() && number != 0 => {
                return Err(ReplyError::Refused(errno_of(number)));
            }
            (None, ..) => return Err(malformed),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::settings::Offload;

    fn parse(text: &str) -> Result<Option<Status>, ReplyError> {
        let mut parser = StatusParser::default();
        for (number, line) in text.lines().enumerate() {
            if let Some(status) = parser.line(number + 1, line)? {
                return Ok(Some(status));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_status_comes_back_as_rendered() {
        for offloads in [Offloads::ALL, Offloads::NONE, Offloads::NONE.with(Offload::Gso, true)] {
            let status = Status { offloads, port_is_random: offloads == Offloads::ALL };
            assert_eq!(parse(&render(status)), Ok(Some(status)));
        }
    }

    #[test]
    fn what_a_later_version_adds_is_skipped_and_what_is_no_reply_refused() {
        let offloads = Offloads::NONE.with(Offload::Tso, true);
        let status = Status { offloads, port_is_random: false };
        assert_eq!(parse("offloads=tso,later\nlater=1\nerrno=0\n\n"), Ok(Some(status)));
        assert!(matches!(parse("errno=22\n\n"), Err(ReplyError::Refused(_))));
        assert_eq!(parse("errno=0\n\n"), Err(ReplyError::Malformed { line: 2 }));
        assert_eq!(parse("nonsense\n"), Err(ReplyError::Malformed { line: 1 }));
    }
}
