//! Two connections, one on each side of the tunnel's end, and what moves between them: bytes, ends and
//! resets. Neither is read faster than the other takes.

use std::io::{IoSlice, IoSliceMut};

use crate::flow::tcp::Connection;
use crate::sys::SysError;
use crate::sys::sockets::Stream;

/// Pieces that are written to a socket at once.
const PIECES: usize = 16;

/// Bytes that are read from a socket at once, and before the next flow has its turn.
pub(super) const READ_BYTES: usize = 64 << 10;
const READS_A_TURN: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Open {
    pub connection: Connection,
    /// `None` when the host's side is over.
    pub stream: Option<Stream>,
    /// What the host's side has said before anybody reads from the stream, as far as it is not taken.
    pub already: Vec<u8>,
    /// Reading, or writing, may do something.
    pub is_readable: bool,
    pub is_writable: bool,
    /// The host's side, or the peer, has said all.
    host_is_done: bool,
    peer_is_done: bool,
}

impl Open {
    /// With a stream that is still to come.
    pub const fn new(connection: Connection) -> Self {
        Self {
            connection,
            stream: None,
            already: Vec::new(),
            is_readable: true,
            is_writable: true,
            host_is_done: false,
            peer_is_done: false,
        }
    }

    /// Whether reading on would give the peer more.
    pub fn can_read_more(&self) -> bool {
        self.is_readable
            && !self.host_is_done
            && self.stream.is_some()
            && self.connection.writable() > 0
    }

    /// Whether the host's side was reset after it had said all, when nobody reads from it any more.
    pub fn is_reset(&self) -> bool {
        let stream = self.stream.as_ref().filter(|_| self.host_is_done);
        stream.is_some_and(|stream| stream.take_error().is_err())
    }

    /// Moves what can be moved.
    pub fn move_on(&mut self, buffer: &mut [u8]) {
        if self.feed_host().and_then(|()| self.feed_peer(buffer)).is_err() {
            self.connection.abort();
        }
    }

    /// From the peer to the host's side.
    fn feed_host(&mut self) -> Result<(), SysError> {
        let events = self.connection.take_events();
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while self.is_writable && self.connection.readable_bytes() > 0 {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (piece, bytes) in pieces.iter_mut().zip(self.connection.readable()) {
                *piece = IoSlice::new(bytes);
                count += 1;
            }
            match stream.write(&pieces[..count])? {
                Some(written) => self.connection.consume(written),
                None => self.is_writable = false,
            }
        }
        self.peer_is_done |= events.peer_closed;
        if self.peer_is_done && self.connection.readable_bytes() == 0 {
            stream.finish();
        }
        Ok(())
    }

    /// From the host's side to the peer.
    fn feed_peer(&mut self, buffer: &mut [u8]) -> Result<(), SysError> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if !self.already.is_empty() {
            let taken = self.connection.write(&self.already);
            self.already.drain(..taken);
        }
        for _ in 0..READS_A_TURN {
            let room = self.connection.writable().min(buffer.len());
            if !self.is_readable || self.host_is_done || room == 0 || !self.already.is_empty() {
                break;
            }
            match stream.read(&mut [IoSliceMut::new(&mut buffer[..room])])? {
                Some(0) => {
                    self.host_is_done = true;
                    self.connection.shutdown_write();
                }
                Some(read) => {
                    self.connection.write(&buffer[..read]);
                }
                None => self.is_readable = false,
            }
        }
        Ok(())
    }
}
