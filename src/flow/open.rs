//! Two connections, one on each side of the tunnel's end, and what moves between them: bytes, ends and
//! resets. Neither is read faster than the other takes.

use std::io::{IoSlice, IoSliceMut};

use crate::flow::tcp::Connection;
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
    /// Nobody on the host's side hears the peer any more.
    is_cut: bool,
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
            is_cut: false,
        }
    }

    /// Whether reading on would give the peer more.
    pub fn can_read_more(&self) -> bool {
        self.is_readable
            && !self.host_is_done
            && self.stream.is_some()
            && self.connection.writable() > 0
    }

    /// Something is wrong with the host's side: a reset, perhaps, after it had said all, when nobody reads
    /// from it any more.
    pub fn on_failure(&mut self) {
        let stream = self.stream.as_ref().filter(|_| self.host_is_done);
        self.is_cut |= stream.is_some_and(|stream| stream.take_error().is_err());
    }

    /// Moves what can be moved. A host's side that has ended by a reset resets the peer's when all that
    /// it had said before has arrived, as it would have without us.
    pub fn move_on(&mut self, buffer: &mut [u8]) {
        self.feed_host();
        self.feed_peer(buffer);
        if self.is_cut && self.host_is_done && self.connection.has_delivered_all() {
            self.connection.abort();
        }
    }

    /// From the peer to the host's side.
    fn feed_host(&mut self) {
        let events = self.connection.take_events();
        let Some(stream) = &mut self.stream else { return };
        while self.is_writable && !self.is_cut && self.connection.readable_bytes() > 0 {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (piece, bytes) in pieces.iter_mut().zip(self.connection.readable()) {
                *piece = IoSlice::new(bytes);
                count += 1;
            }
            match stream.write(&pieces[..count]) {
                Ok(Some(written)) => self.connection.consume(written),
                Ok(None) => self.is_writable = false,
                Err(_) => self.is_cut = true,
            }
        }
        if self.is_cut {
            self.connection.consume(self.connection.readable_bytes());
        }
        self.peer_is_done |= events.peer_closed;
        if self.peer_is_done && self.connection.readable_bytes() == 0 {
            stream.finish();
        }
    }

    /// From the host's side to the peer.
    fn feed_peer(&mut self, buffer: &mut [u8]) {
        let Some(stream) = &mut self.stream else { return };
        if !self.already.is_empty() {
            let taken = self.connection.write(&self.already);
            self.already.drain(..taken);
        }
        for _ in 0..READS_A_TURN {
            let room = self.connection.writable().min(buffer.len());
            if !self.is_readable || self.host_is_done || room == 0 || !self.already.is_empty() {
                break;
            }
            match stream.read(&mut [IoSliceMut::new(&mut buffer[..room])]) {
                // Writing has been told of a reset, which is told once.
                Ok(Some(0)) if self.is_cut => self.host_is_done = true,
                Ok(Some(0)) => {
                    self.host_is_done = true;
                    self.connection.shutdown_write();
                }
                Ok(Some(read)) => {
                    self.connection.write(&buffer[..read]);
                }
                Ok(None) => self.is_readable = false,
                Err(_) => (self.host_is_done, self.is_cut) = (true, true),
            }
        }
    }
}
