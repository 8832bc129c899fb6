//! A blocking client: what `show`, `up` and the tests speak to a running device with.
//!
//! It works with every implementation that serves `/var/run/wireguard/NAME.sock`. It never removes
//! a socket, even one that nobody answers: between `bind` and `listen` a starting daemon looks just
//! like a dead one. [UAPI]

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use zeroize::{Zeroize, Zeroizing};

use super::get::{GetParser, ReplyError, errno_of};
use super::status::{self, StatusParser};
use super::{Errno, MAX_LINE_BYTES, Operation, is_interface_name, reply, set, socket_path};
use crate::control::command::{DeviceSnapshot, SetRequest};
use crate::control::ends::HostPort;
use crate::control::health::Question;
use crate::control::health::text::{self, AnswerParser};
use crate::control::proxy;
use crate::control::run_folder;
use crate::control::settings::Status;
use crate::sys::passing;

/// How long a device may be silent before it counts as hung. Binding a port, or taking 100,000
/// peers, takes less.
const SILENCE: Duration = Duration::from_secs(60);

/// As `SILENCE`, for a question that a device which is well answers at once.
const HEALTH_SILENCE: Duration = Duration::from_secs(3);

/// Why a device did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach interface {interface}")]
    Unreachable { interface: String, source: io::Error },
    #[error("lost the connection to interface {interface}")]
    Lost { interface: String, source: io::Error },
    #[error("interface {interface} refused")]
    Reply { interface: String, source: ReplyError },
    /// With where to and why, in words.
    #[error("{interface} does not lead to {what}")]
    NotLed { interface: String, what: String },
    #[error("{interface} cannot listen at {place}: {errno}")]
    NotListening { interface: String, place: String, errno: Errno },
}

impl ClientError {
    /// What the device answered in place of doing what it was asked.
    pub fn refusal(&self) -> Option<Errno> {
        match self {
            Self::Reply { source: ReplyError::Refused(errno), .. }
            | Self::NotListening { errno, .. } => Some(*errno),
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::Reply { .. }
            | Self::NotLed { .. } => None,
        }
    }

    /// Whether nobody is behind the socket, or whoever was has just ended: of a daemon that is
    /// killed, the interface goes a moment before the socket.
    pub fn is_abandoned(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => source.kind() == io::ErrorKind::ConnectionRefused,
            Self::Lost { source, .. } => {
                matches!(source.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            }
            Self::Reply { source, .. } => matches!(source, ReplyError::Truncated),
            Self::NotLed { .. } | Self::NotListening { .. } => false,
        }
    }
}

/// A connection to one device, good for any number of requests.
#[derive(Debug)]
pub struct UapiClient {
    interface: String,
    stream: WipingReader<UnixStream>,
}

impl UapiClient {
    /// Connects to the device of that interface name.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if the name is not one, or nobody answers there.
    pub fn connect(interface: &str) -> Result<Self, ClientError> {
        Self::connect_in(socket_path(interface).parent().unwrap_or(Path::new("")), interface)
    }

    /// As [`Self::connect`], with the sockets in another folder.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_in(directory: &Path, interface: &str) -> Result<Self, ClientError> {
        let unreachable =
            |source| ClientError::Unreachable { interface: interface.to_owned(), source };
        if !is_interface_name(interface) {
            return Err(unreachable(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not an interface name",
            )));
        }
        let stream = UnixStream::connect(directory.join(format!("{interface}.sock")))
            .map_err(unreachable)?;
        stream.set_read_timeout(Some(SILENCE)).map_err(unreachable)?;
        stream.set_write_timeout(Some(SILENCE)).map_err(unreachable)?;
        Ok(Self { interface: interface.to_owned(), stream: WipingReader::new(stream) })
    }

    /// Asks for the whole state.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the connection fails, [`ClientError::Reply`] if the answer is an
    /// error or no answer.
    pub fn get(&mut self) -> Result<DeviceSnapshot, ClientError> {
        self.send("get=1\n\n")?;
        let mut parser = GetParser::default();
        self.receive(|_, line| parser.line(line))
    }

    /// Asks for what a device of our own says about itself.
    ///
    /// # Errors
    /// As [`Self::get`]. Other implementations hang up, and the client is of no further use.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        self.send(status::REQUEST)?;
        let mut parser = StatusParser::default();
        self.receive(|number, line| parser.line(number, line))
    }

    /// Asks a device of our own how it is: why not live, started or ready; nothing if it is. Who asks
    /// so has not much time.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub fn health(&mut self, question: Question) -> Result<Vec<String>, ClientError> {
        let timeout = self.stream.inner.set_read_timeout(Some(HEALTH_SILENCE));
        timeout.map_err(|source| self.lost(source))?;
        self.send(&text::request(question))?;
        let mut parser = AnswerParser::default();
        self.receive(|number, line| parser.line(number, line))
    }

    /// Asks for a copy of the descriptor that a device of our own keeps as long as it lives; `None`
    /// if it keeps none.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub fn kept(&mut self) -> Result<Option<OwnedFd>, ClientError> {
        self.send("kept=1\n\n")?;
        // In one piece, as it was sent.
        let mut text = [0; 64];
        let (length, kept) = passing::receive(&self.stream.inner, &mut text)
            .map_err(|error| self.lost(error.source))?;
        let is_done = text[..length] == *reply(Operation::Get, Ok(())).as_bytes();
        let is_none = text[..length] == *reply(Operation::Get, Err(Errno::ABSENT)).as_bytes();
        match kept {
            Some(kept) if is_done => Ok(Some(kept)),
            None if is_none => Ok(None),
            Some(_) | None => Err(self.refused(ReplyError::Malformed { line: 1 })),
        }
    }

    /// Asks a device of our own to be led to `to`. Returns the stream, which is that connection, and what
    /// was heard of it already.
    ///
    /// # Errors
    /// As [`Self::status`]; [`ClientError::NotLed`] if nobody was reached.
    pub fn lead_to(mut self, to: &HostPort) -> Result<(UnixStream, Vec<u8>), ClientError> {
        self.send(&proxy::text::request(to))?;
        let (mut reason, mut errno) = (None, None);
        let led = self.receive(|number, line| {
            match line.split_once('=') {
                Some(("reason", text)) => reason = Some(text.to_owned()),
                Some(("errno", text)) => errno = text.parse::<i64>().ok(),
                None if line.is_empty() && errno == Some(0) => return Ok(Some(true)),
                None if line.is_empty() && reason.is_some() => return Ok(Some(false)),
                None if line.is_empty() && errno.is_some() => {
                    return Err(ReplyError::Refused(errno_of(errno.unwrap_or_default())));
                }
                Some(_) | None => return Err(ReplyError::Malformed { line: number }),
            }
            Ok(None)
        })?;
        if !led {
            let what = format!("{to}: {}", reason.unwrap_or_default());
            return Err(ClientError::NotLed { interface: self.interface, what });
        }
        let WipingReader { inner, buffer, unread } = self.stream;
        let timeouts = inner.set_read_timeout(None).and_then(|()| inner.set_write_timeout(None));
        let interface = self.interface;
        timeouts.map_err(|source| ClientError::Lost { interface, source })?;
        Ok((inner, buffer[unread].to_vec()))
    }

    /// Asks for a change, which is done as a whole or not at all by our own device.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn set(&mut self, request: &SetRequest) -> Result<(), ClientError> {
        self.send(&set::render(request))?;
        let (mut errno, mut place): (Option<i64>, _) = (None, None);
        let outcome = self.receive(|number, line| {
            if let Some(text) = line.strip_prefix("place=") {
                place = Some(text.to_owned());
                return Ok(None);
            }
            let malformed = ReplyError::Malformed { line: number };
            match (line.strip_prefix("errno="), errno) {
                (Some(number), None) => errno = Some(number.parse().map_err(|_| malformed)?),
                (None, Some(0)) if line.is_empty() => return Ok(Some(())),
                (None, Some(number)) if line.is_empty() => {
                    return Err(ReplyError::Refused(errno_of(number)));
                }
                (None, _) if line.contains('=') => {}
                _ => return Err(malformed),
            }
            Ok(None)
        });
        match (outcome, place) {
            (
                Err(ClientError::Reply { source: ReplyError::Refused(errno), interface }),
                Some(place),
            ) => Err(ClientError::NotListening { interface, place, errno }),
            (outcome, _) => outcome,
        }
    }

    fn send(&mut self, text: &str) -> Result<(), ClientError> {
        self.stream.inner.write_all(text.as_bytes()).map_err(|source| self.lost(source))
    }

    /// Reads lines until `take`, which is given their numbers from 1, has its result.
    fn receive<T>(
        &mut self,
        mut take: impl FnMut(usize, &str) -> Result<Option<T>, ReplyError>,
    ) -> Result<T, ClientError> {
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE_BYTES + 1));
        let mut number = 0;
        loop {
            number += 1;
            let malformed = ReplyError::Malformed { line: number };
            let mut bounded = (&mut self.stream).take(MAX_LINE_BYTES as u64 + 1);
            bounded.read_until(b'\n', &mut line).map_err(|source| self.lost(source))?;
            let outcome = match line.strip_suffix(b"\n").map(std::str::from_utf8) {
                Some(Ok(text)) => take(number, text),
                Some(Err(_)) => Err(malformed),
                None if line.len() > MAX_LINE_BYTES => Err(malformed),
                None => Err(ReplyError::Truncated),
            };
            line.as_mut_slice().zeroize();
            line.clear();
            if let Some(result) = outcome.map_err(|source| self.refused(source))? {
                return Ok(result);
            }
        }
    }

    fn lost(&self, source: io::Error) -> ClientError {
        ClientError::Lost { interface: self.interface.clone(), source }
    }

    fn refused(&self, source: ReplyError) -> ClientError {
        ClientError::Reply { interface: self.interface.clone(), source }
    }
}

/// A buffered reader that wipes what was taken out of it: a reply holds keys.
struct WipingReader<R> {
    inner: R,
    buffer: Zeroizing<Vec<u8>>,
    /// Where in `buffer` the bytes are that were read and not yet taken.
    unread: Range<usize>,
}

impl<R> WipingReader<R> {
    const BYTES: usize = 16 * 1024;

    fn new(inner: R) -> Self {
        Self { inner, buffer: Zeroizing::new(vec![0; Self::BYTES]), unread: 0..0 }
    }
}

impl<R: Read> Read for WipingReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(into)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: Read> BufRead for WipingReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.unread.is_empty() {
            self.unread = 0..self.inner.read(&mut self.buffer)?;
        }
        Ok(&self.buffer[self.unread.clone()])
    }

    fn consume(&mut self, amount: usize) {
        let taken = self.unread.start..self.unread.end.min(self.unread.start + amount);
        self.unread.start = taken.end;
        self.buffer[taken].zeroize();
    }
}

impl<R> fmt::Debug for WipingReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WipingReader(hidden)")
    }
}

/// Whether a failed connection means that no device is there, rather than one that we may not
/// speak to.
pub fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The interfaces that have a device, in alphabetical order: also one that this user may not speak
/// to, as `wg` counts them.
///
/// # Errors
/// If the folder exists and cannot be read.
pub fn interfaces() -> io::Result<Vec<String>> {
    let mut all = Vec::new();
    for folder in run_folder::all_sockets() {
        all.extend(interfaces_in(folder)?);
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Those of which one may be meant without its name: this user's own, or all if there are none of his.
///
/// # Errors
/// As [`interfaces`].
pub fn likely_interfaces() -> io::Result<Vec<String>> {
    let own = interfaces_in(run_folder::sockets())?;
    if own.is_empty() { interfaces() } else { Ok(own) }
}

/// As [`interfaces`], with the sockets in another folder.
///
/// # Errors
/// As [`interfaces`].
pub fn interfaces_in(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".sock")) else {
            continue;
        };
        let connected = UnixStream::connect(directory.join(&file));
        if is_interface_name(name) && !connected.is_err_and(|error| is_nobody(&error)) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_wiped_and_what_was_not_is_kept() {
        let mut reader = WipingReader::new(&b"private_key=0102\nlisten_port=7\n"[..]);
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).unwrap();
        assert_eq!(line, b"private_key=0102\n");
        assert_eq!(reader.buffer[..17], [0; 17]);
        line.clear();
        (&mut reader).take(4).read_to_end(&mut line).unwrap();
        assert_eq!(line, b"list");
        reader.read_to_end(&mut line).unwrap();
        assert_eq!(line, b"listen_port=7\n");
        assert!(reader.buffer.iter().all(|&byte| byte == 0));
    }
}
