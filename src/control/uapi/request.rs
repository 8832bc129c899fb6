//! Cuts what a client sends into requests.
//!
//! Fed with whatever arrived, it yields each request when its empty line is read. It keeps at most
//! one unfinished line and the values parsed so far. After a fault the rest of that request is read
//! and dropped, so that the connection stays usable; `wireguard-go` closes it instead. [UAPI]

use zeroize::{Zeroize, Zeroizing};

use super::set::SetParser;
use super::{Errno, MAX_LINE_BYTES, MAX_REQUEST_BYTES, Operation};
use crate::control::command::SetRequest;
use crate::control::ends::HostPort;
use crate::control::health::{Question, text};
use crate::control::proxy;

/// One complete request.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    Get,
    Set(SetRequest),
    /// Of our own.
    Status,
    /// Of our own: the descriptor that the device keeps.
    Kept,
    /// Of our own: how the device is.
    Health(Question),
    /// Of our own: what follows is a connection to this place in the tunnel.
    Connect(HostPort),
    /// Answer with the errno. Nothing of the request may be carried out.
    Refused(Operation, Fault),
    /// Not a UAPI client, or an operation of a later version: answer and close the connection, for
    /// where the next request begins is unknown.
    Unintelligible(Fault),
}

/// Why a request was refused, fit for a log: no values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the request: {reason}")]
pub struct Fault {
    /// Counted from 1, the operation itself.
    pub line: usize,
    pub errno: Errno,
    pub reason: &'static str,
}

/// The state between two reads of one connection.
#[derive(Debug)]
pub struct RequestReader {
    /// Start of a line whose end has not arrived. May hold a key: wiped after use.
    partial: Zeroizing<Vec<u8>>,
    state: State,
    /// Lines and bytes of the current request, the current line included.
    line: usize,
    bytes: usize,
}

#[derive(Debug)]
enum State {
    Operation,
    Get,
    Set(Box<SetParser>),
    Status,
    Kept,
    Health(Question),
    Connect(HostPort),
    Refused(Operation, Fault),
    Closed,
}

/// One byte too many is kept of a line, so that it is noticed.
const KEPT_OF_LINE: usize = MAX_LINE_BYTES + 1;

fn append(partial: &mut Vec<u8>, line: &[u8]) {
    let room = KEPT_OF_LINE.saturating_sub(partial.len());
    partial.extend_from_slice(&line[..line.len().min(room)]);
}

impl Default for RequestReader {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestReader {
    pub fn new() -> Self {
        Self {
            // Full size at once, because growing would leave copies of keys behind.
            partial: Zeroizing::new(Vec::with_capacity(KEPT_OF_LINE)),
            state: State::Operation,
            line: 0,
            bytes: 0,
        }
    }

    /// Takes what arrived and hands every request completed by it to `each`, in order.
    ///
    /// After [`Request::Unintelligible`] everything is ignored.
    pub fn feed(&mut self, mut input: &[u8], mut each: impl FnMut(Request)) {
        while let Some(end) = input.iter().position(|&b| b == b'\n') {
            let (line, rest) = (&input[..end], &input[end + 1..]);
            input = rest;
            if self.partial.is_empty() {
                self.take_line(&line[..line.len().min(KEPT_OF_LINE)], &mut each);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                append(&mut whole, line);
                self.take_line(&whole, &mut each);
                whole.as_mut_slice().zeroize();
                whole.clear();
                self.partial = whole;
            }
        }
        append(&mut self.partial, input);
    }

    /// Whether the client may hang up here without having cut a request short.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Operation | State::Closed) && self.partial.is_empty()
    }

    fn take_line(&mut self, line: &[u8], each: &mut impl FnMut(Request)) {
        self.line += 1;
        self.bytes = self.bytes.saturating_add(line.len() + 1);
        if line.len() > MAX_LINE_BYTES {
            self.refuse(Errno::INVALID, "the line is too long");
        } else if self.bytes > MAX_REQUEST_BYTES {
            self.refuse(Errno::TOO_BIG, "the request is too large");
        }
        match &mut self.state {
            State::Operation => {
                self.state = match line {
                    b"get=1" => State::Get,
                    b"set=1" => State::Set(Box::default()),
                    b"status=1" => State::Status,
                    b"kept=1" => State::Kept,
                    line if let Some(question) = text::question(line) => State::Health(question),
                    line if let Some(place) = proxy::text::asked(line) => State::Connect(place),
                    _ => {
                        let errno =
                            if line.contains(&b'=') { Errno::INVALID } else { Errno::PROTOCOL };
                        each(Request::Unintelligible(self.fault(errno, "expected get=1 or set=1")));
                        State::Closed
                    }
                };
            }
            State::Closed => {}
            State::Get
            | State::Set(_)
            | State::Status
            | State::Kept
            | State::Health(_)
            | State::Connect(_)
            | State::Refused(..)
                if line.is_empty() =>
            {
                let request = match std::mem::replace(&mut self.state, State::Operation) {
                    State::Set(parser) => Request::Set(parser.finish()),
                    State::Refused(operation, fault) => Request::Refused(operation, fault),
                    State::Status => Request::Status,
                    State::Kept => Request::Kept,
                    State::Health(question) => Request::Health(question),
                    State::Connect(place) => Request::Connect(place),
                    State::Get | State::Operation | State::Closed => Request::Get,
                };
                (self.line, self.bytes) = (0, 0);
                each(request);
            }
            State::Get | State::Status | State::Kept | State::Health(_) | State::Connect(_) => {
                self.refuse(Errno::INVALID, "a get takes no further lines");
            }
            State::Set(parser) => {
                if let Err((errno, reason)) = parser.line(line) {
                    self.refuse(errno, reason);
                }
            }
            State::Refused(..) => {}
        }
    }

    /// Only the first fault of a request counts; what was parsed of it is dropped.
    fn refuse(&mut self, errno: Errno, reason: &'static str) {
        let operation = match self.state {
            State::Get | State::Status | State::Kept | State::Health(_) | State::Connect(_) => {
                Operation::Get
            }
            State::Set(_) => Operation::Set,
            // An operation that is too long is not one we know: its line end will tell.
            State::Operation | State::Refused(..) | State::Closed => return,
        };
        self.state = State::Refused(operation, self.fault(errno, reason));
    }

    fn fault(&self, errno: Errno, reason: &'static str) -> Fault {
        Fault { line: self.line, errno, reason }
    }
}
