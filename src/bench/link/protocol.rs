//! What the two ends of a measurement of throughput say to each other.
//!
//! One connection for words, one JSON object a line, and a number of connections for streams, all of
//! them begun by whoever measures: firewalls mostly let that pass. A stream begins with the token
//! that the server gave, so that nobody else's connection is taken for one.
//!
//! Whoever asks is a peer of the tunnel and no more than that: a request is bounded in what it can
//! ask for, and names no address.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sys::clock;
use crate::time::Instant;

/// Raised when one end would misunderstand the other.
pub const VERSION: u32 = 1;

/// The port of a server unless another one is given: the one after iperf3's.
pub const PORT: u16 = 5202;

/// Bytes of the token.
pub const TOKEN_BYTES: usize = 16;

pub const MOST_STREAMS: u16 = 16;
pub const MOST_SECONDS: u16 = 60;

/// Before anything counts.
pub const WARM_UP: Duration = Duration::from_millis(500);

/// How long an end waits for a word or a stream of the other.
pub const SILENCE: Duration = Duration::from_secs(10);

/// A line that is longer is none of ours.
const LONGEST_LINE_BYTES: u64 = 64 << 10;

/// Of what the other end says.
const SHOWN_LETTERS: usize = 200;

/// Which way the streams go, as whoever measures sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    There,
    Back,
}

/// The first line: what is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub hybridwg_link: u32,
    pub direction: Direction,
    pub streams: u16,
    /// That are counted.
    pub seconds: u16,
    /// Megabits a second of all streams together; `None` for as fast as it goes.
    pub mbit: Option<u32>,
}

/// The server's answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// In hexadecimal digits.
    Token(String),
    Refused(String),
}

/// The server's last line: what it saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    Received { bits_per_second: f64 },
    Sent { retransmissions: u64 },
    Failed(String),
}

impl Request {
    /// # Errors
    /// What is asked for that no server gives.
    pub fn check(&self) -> Result<(), String> {
        let between = |what: &str, value: u16, most: u16| {
            let is_in = (1..=most).contains(&value);
            is_in.then_some(()).ok_or_else(|| format!("{value} {what}: it can be 1 to {most}"))
        };
        if self.hybridwg_link != VERSION {
            let theirs = self.hybridwg_link;
            return Err(format!("version {theirs} of this measurement, and here is {VERSION}"));
        }
        between("streams", self.streams, MOST_STREAMS)?;
        between("seconds", self.seconds, MOST_SECONDS)?;
        if self.mbit == Some(0) {
            return Err("0 Mbit/s".to_owned());
        }
        Ok(())
    }

    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// Bits a second.
    pub fn rate(&self) -> Option<u64> {
        self.mbit.map(|mbit| u64::from(mbit) * 1_000_000)
    }
}

/// Reads a connection until a moment, however little comes at a time: a letter each few seconds
/// keeps nobody busy.
#[derive(Debug)]
pub struct Patient {
    pub stream: TcpStream,
    pub until: Instant,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let silent = || io::Error::new(io::ErrorKind::TimedOut, "the other end says nothing");
        let left = self.until.since(clock::now().mono);
        if left == Duration::ZERO {
            return Err(silent());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => silent(),
            _ => error,
        })
    }
}

/// What the other end wrote, as it may be shown: no letter of it steers a terminal.
pub fn shown(words: &str) -> String {
    words.chars().take(SHOWN_LETTERS).collect::<String>().replace(char::is_control, "?")
}

/// The connection for words.
#[derive(Debug)]
pub struct Words(BufReader<Patient>);

impl Words {
    /// # Errors
    /// What the socket said.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Self(BufReader::new(Patient { stream, until: Instant::ZERO })))
    }

    /// # Errors
    /// The other end has gone.
    pub fn say(&mut self, word: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        self.0.get_mut().stream.write_all(&line)
    }

    /// # Errors
    /// The other end has gone, has said nothing whole for [`SILENCE`], or says what is no word of ours.
    pub fn hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        self.0.get_mut().until = clock::now().mono + SILENCE;
        let mut line = Vec::new();
        self.0.by_ref().take(LONGEST_LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other end hung up"));
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// A request that a server takes.
    pub const REQUEST: Request = Request {
        hybridwg_link: VERSION,
        direction: Direction::There,
        streams: 2,
        seconds: 1,
        mbit: Some(50),
    };
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::testing::REQUEST;
    use super::*;

    #[test]
    fn what_no_server_gives_is_refused_with_what_it_gives() {
        assert_eq!(REQUEST.check(), Ok(()));
        for (request, words) in [
            (Request { hybridwg_link: 2, ..REQUEST }, "version 2"),
            (Request { streams: 0, ..REQUEST }, "0 streams: it can be 1 to 16"),
            (Request { streams: 17, ..REQUEST }, "1 to 16"),
            (Request { seconds: 61, ..REQUEST }, "61 seconds: it can be 1 to 60"),
            (Request { mbit: Some(0), ..REQUEST }, "0 Mbit/s"),
        ] {
            let fault = request.check().unwrap_err();
            assert!(fault.contains(words), "{fault}");
        }
    }

    #[test]
    fn whoever_says_a_letter_at_a_time_is_not_listened_to_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().unwrap().0;
        let until = clock::now().mono + Duration::from_millis(200);
        let writing = std::thread::spawn(move || while near.write_all(b"x").is_ok() {});
        let mut far = Patient { stream, until };
        let error = io::copy(&mut far, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(far);
        writing.join().unwrap();
    }

    #[test]
    fn words_of_the_other_end_do_not_steer_a_terminal() {
        assert_eq!(shown("no\x1b[2J\r\n\u{9b}room"), "no?[2J???room");
        assert_eq!(shown(&"x".repeat(1000)).len(), 200);
    }

    #[test]
    fn words_come_as_they_were_said_and_nothing_else_is_taken_for_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut far = Words::new(listener.accept().unwrap().0).unwrap();
        let mut words = Words::new(near.try_clone().unwrap()).unwrap();
        words.say(&REQUEST).unwrap();
        assert_eq!(far.hear::<Request>().unwrap(), REQUEST);
        near.write_all(b"GET / HTTP/1.1\n").unwrap();
        assert!(far.hear::<Request>().is_err());
        near.write_all(&[b'x'; 70_000]).unwrap();
        assert!(far.hear::<Request>().is_err(), "a line without an end");
        drop((near, words));
        assert!(far.hear::<Request>().is_err());
    }
}
