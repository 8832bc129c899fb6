//! The text of a [`Status`], both ways: `offloads=` and names separated by commas, `port=random` or
//! `port=given`, `mode=rootless` where there is no interface, `masquerade=flow` where what peers send to
//! others is carried on, `flows=`, how many and how many of them are TCP if there may be any, and `full` if there may be no more, for each
//! peer `path=`, its key, the MTU that fits and how that is known, and for each reason for which packets
//! were dropped `drop=`, its name and how many.
//!
//! Other implementations refuse the request, and clients that have not asked never see the answer.

use std::mem::take;

use super::get::{ReplyError, errno_of};
use super::{Operation, parse_number, reply};
use crate::control::settings::{FlowCount, Offloads, PathSource, PathStatus, Status};
use crate::crypto::key::PublicKey;
use crate::proto::drop_reason::DropReason;

/// The request.
pub const REQUEST: &str = "status=1\n\n";

/// The reply.
pub fn render(status: &Status) -> String {
    let port = if status.port_is_random { "random" } else { "given" };
    let mut text = format!("offloads={}\nport={port}\n", status.offloads);
    if status.is_rootless {
        text.push_str("mode=rootless\n");
    }
    if status.is_masquerading {
        text.push_str("masquerade=flow\n");
    }
    if let Some(FlowCount { now, connections, is_full }) = status.flows {
        let full = if is_full { " full" } else { "" };
        text.push_str(&format!("flows={now} {connections}{full}\n"));
    }
    for path in &status.paths {
        let PathStatus { public_key, mtu, source } = path;
        text.push_str(&format!("path={} {mtu} {}\n", public_key.to_hex(), source.name()));
    }
    for (reason, packets) in &status.drops {
        text.push_str(&format!("drop={} {packets}\n", reason.name()));
    }
    text + &reply(Operation::Get, Ok(()))
}

/// Reads a reply line by line. Keys of later versions are skipped.
#[derive(Debug, Default)]
pub struct StatusParser {
    offloads: Option<Offloads>,
    port_is_random: bool,
    flows: Option<FlowCount>,
    is_masquerading: bool,
    is_rootless: bool,
    paths: Vec<PathStatus>,
    drops: Vec<(DropReason, u64)>,
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
            (Some(("mode", mode)), ..) => self.is_rootless = mode == "rootless",
            (Some(("masquerade", way)), ..) => self.is_masquerading = way == "flow",
            (Some(("flows", text)), ..) => self.flows = flow_count(text),
            (Some(("path", text)), ..) => self.paths.extend(path(text)),
            (Some(("drop", text)), ..) => self.drops.extend(drop(text)),
            (Some(("errno", number)), ..) => {
                self.errno = Some(number.parse().map_err(|_| malformed)?);
            }
            (Some(_), ..) => {}
            (None, Some(0), Some(offloads)) if line.is_empty() => {
                let Self { port_is_random, flows, is_masquerading, is_rootless, .. } = *self;
                return Ok(Some(Status {
                    offloads,
                    port_is_random,
                    flows,
                    is_masquerading,
                    is_rootless,
                    paths: take(&mut self.paths),
                    drops: take(&mut self.drops),
                }));
            }
            (None, Some(number), _) if line.is_empty() && number != 0 => {
                return Err(ReplyError::Refused(errno_of(number)));
            }
            (None, ..) => return Err(malformed),
        }
        Ok(None)
    }
}

fn flow_count(text: &str) -> Option<FlowCount> {
    let mut words = text.split(' ');
    let (now, connections) = (parse_number(words.next()?)?, parse_number(words.next()?)?);
    Some(FlowCount { now, connections, is_full: words.next() == Some("full") })
}

/// `None` for what a later version says otherwise.
fn path(text: &str) -> Option<PathStatus> {
    let mut words = text.split(' ');
    let public_key = PublicKey::from_hex(words.next()?).ok()?;
    let mtu = parse_number(words.next()?)?;
    let name = words.next()?;
    let source = PathSource::ALL.into_iter().find(|source| source.name() == name)?;
    Some(PathStatus { public_key, mtu, source })
}

/// `None` for a reason of a later version.
fn drop(text: &str) -> Option<(DropReason, u64)> {
    let (name, packets) = text.split_once(' ')?;
    let reason = DropReason::ALL.into_iter().find(|reason| reason.name() == name)?;
    Some((reason, parse_number(packets)?))
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
            let path = |source| PathStatus {
                public_key: PublicKey::from_bytes([7; 32]),
                mtu: 1340,
                source,
            };
            let paths = PathSource::ALL.map(path).to_vec();
            let is_all = offloads == Offloads::ALL;
            let flows = (offloads != Offloads::NONE).then_some(FlowCount {
                now: 7,
                connections: 3,
                is_full: is_all,
            });
            let is_rootless = !is_all;
            let drops = DropReason::ALL.into_iter().zip(1..).collect();
            let status = Status {
                offloads,
                port_is_random: is_all,
                flows,
                is_masquerading: is_all,
                is_rootless,
                paths,
                drops,
            };
            assert_eq!(parse(&render(&status)), Ok(Some(status)));
        }
    }

    #[test]
    fn what_a_later_version_adds_is_skipped_and_what_is_no_reply_refused() {
        let offloads = Offloads::NONE.with(Offload::Tso, true);
        let status = Status {
            offloads,
            port_is_random: false,
            flows: None,
            is_masquerading: false,
            is_rootless: false,
            paths: vec![],
            drops: vec![],
        };
        assert_eq!(
            parse("offloads=tso,later\nlater=1\npath=x 1 y\ndrop=later 1\nerrno=0\n\n"),
            Ok(Some(status))
        );
        assert!(matches!(parse("errno=22\n\n"), Err(ReplyError::Refused(_))));
        assert_eq!(parse("errno=0\n\n"), Err(ReplyError::Malformed { line: 2 }));
        assert_eq!(parse("nonsense\n"), Err(ReplyError::Malformed { line: 1 }));
    }
}
